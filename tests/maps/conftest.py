"""A server of the demo's scenes, and a client of it."""

from __future__ import annotations

import http.client
import json
import math
from urllib.parse import urlencode

import imagecodecs
import pytest

import rasteret_sql
from rasteret_sql.maps import serving

TOKEN = "token-of-the-tests"


class Answer:
    """What the server sent."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def image(self):
        """Shape (rows, columns, 4)."""
        return imagecodecs.png_decode(self.body)


class Client:
    """Asks one server."""

    def __init__(self, server, con):
        self.server, self.con = server, con
        self.address = f"http://127.0.0.1:{server.port}/"

    def __call__(self, path, verb="GET", *, headers=None, body=None, **query):
        """Ask; a header of None is left out."""
        given = {"Cookie": f"{self.server.cookie}={TOKEN}"} | (headers or {})
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        text = f"{path}?{urlencode(query)}" if query else path
        connection.putrequest(verb, text, skip_host="Host" in given)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()


def tile_at(lon, lat, zoom):
    """Path of the tile that holds a place, and its box in Web Mercator."""
    count = 1 << zoom
    x = int((lon + 180) / 360 * count)
    y = int((1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * count)
    half = math.pi * 6378137
    side = 2 * half / count
    box = (x * side - half, half - (y + 1) * side, (x + 1) * side - half, half - y * side)
    return f"{zoom}/{x}/{y}", box


@pytest.fixture(scope="session")
def workspace(tmp_path_factory, scenes):
    """A workspace with the collection `s2`."""
    root = tmp_path_factory.mktemp("maps") / "workspace"
    with rasteret_sql.connect(workspace=root) as con:
        items = str(scenes / "items.json")
        con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [items]).fetchall()
    return root


@pytest.fixture(scope="session")
def client(workspace):
    con = rasteret_sql.connect(workspace=workspace)
    with serving(con, tokens=[TOKEN]) as server:
        yield Client(server, con)
    con.close()
