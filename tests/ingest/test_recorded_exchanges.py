"""Searches of two public APIs, as they were recorded, played again by a server on loopback."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

import rasteret_sql

pytestmark = pytest.mark.any_duckdb

CASSETTES = Path(__file__).parents[3] / "shared/data/stac/pystac-client/cassettes"
EARTH_SEARCH = "test_cli/TestCLISearch.test_save-inprocess.yaml"
PLANETARY_COMPUTER = "test_client/TestAPI.test_instance.yaml"
SCENES = (
    "['S2B_MSIL2A_20210610T115639_N0212_R066_T33XXG_20210613T185024.SAFE', "
    "'fl_m_2608004_nw_17_060_20191215_20200113']"
)
BOX = "bbox := [-73.21, 43.99, -73.12, 44.05]"
GSD = """query := '{"gsd": {"gte": 0, "lte": 1}}'"""
NAIP = "collection := 'naip'"
ITEM_SEARCH = "test_item_search/TestItemSearch"
SEARCHES = {
    f"{ITEM_SEARCH}.test_result_paging.yaml": (PLANETARY_COMPUTER, f"{NAIP}, {BOX}", 20),
    f"{ITEM_SEARCH}.test_results.yaml": (PLANETARY_COMPUTER, NAIP, 20),
    f"{ITEM_SEARCH}.test_ids_results.yaml": (PLANETARY_COMPUTER, f"{NAIP}, ids := {SCENES}", 1),
    f"{ITEM_SEARCH}Query.test_query_json_syntax.yaml": (
        PLANETARY_COMPUTER, f"{NAIP}, {BOX}, {GSD}", 42),
    EARTH_SEARCH: (EARTH_SEARCH, "collection := 'cop-dem-glo-30'", 10),
}  # fmt: skip


def interactions(name):
    """Requests and answers: ``(method, path, asked, answer)``; the answer as a dict."""
    for one in yaml.safe_load((CASSETTES / name).read_text())["interactions"]:
        request, body = one["request"], one["response"]["body"]["string"]
        data = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        asked = json.loads(request["body"]) if request["body"] else {}
        yield request["method"], urlsplit(request["uri"]).path, asked, json.loads(data)


class Player(BaseHTTPRequestHandler):
    """Answers what was recorded; 404 for anything else."""

    protocol_version = "HTTP/1.1"
    played: list
    log: list

    def log_message(self, *_args):
        pass

    def do_GET(self):
        self._play({})

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        self._play(json.loads(self.rfile.read(size) or b"{}"))

    def _play(self, asked):
        path = urlsplit(self.path).path
        self.log.append((self.command, path, asked, dict(self.headers)))
        wanted = {key: value for key, value in asked.items() if key != "limit"}
        for method, recorded_path, recorded, answer in self.played:
            same = {key: value for key, value in recorded.items() if key != "limit"}
            if (method, recorded_path.rstrip("/"), same) == (
                self.command,
                path.rstrip("/"),
                wanted,
            ):
                return self._send(200, answer)
        return self._send(404, {"description": f"not recorded: {self.command} {path} {asked}"})

    def _send(self, status, answer):
        text = json.dumps(answer)
        for host in ("planetarycomputer.microsoft.com/api", "earth-search.aws.element84.com"):
            origin = f"http://127.0.0.1:{self.server.server_port}"
            text = text.replace(f"https://{host}", origin + ("/api" if "/api" in host else ""))
        data = gzip.compress(text.encode())
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def play():
    """Play cassettes; returns the server's origin and its log."""
    servers = []

    def start(*names):
        played = [one for name in names for one in interactions(name)]
        log: list = []
        handler = type("Handler", (Player,), {"played": played, "log": log})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", log

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(
    not CASSETTES.is_dir(), reason="the shared data set is not beside this checkout"
)
@pytest.mark.parametrize("name", SEARCHES)
def test_a_recorded_search_becomes_a_collection(play, con, rows, name):
    root, conditions, n_items = SEARCHES[name]
    pages = [answer for *_, answer in interactions(name) if "features" in answer]
    features = {item["id"]: item for page in pages for item in page["features"]}
    assert len(features) == n_items
    origin, log = play(root, name)
    path = "/v1" if root == EARTH_SEARCH else "/api/stac/v1"
    report = con.execute(
        f"FROM rasteret_build_stac('found', stac_api := $api, {conditions}, max_items := {n_items},"
        "  enrich := false)",
        {"api": origin + path},
    ).fetchall()[0]
    assert report[3] == n_items
    assert {row[0] for row in rows("SELECT id FROM found")} == set(features)
    searches = [asked for _, at, asked, _ in log if at.endswith("/search")]
    n_pages = len({id(page) for page in pages}) if "query" not in conditions else 1
    assert len(searches) == n_pages
    item = next(iter(features.values()))
    href = next(iter(rows(f"SELECT assets FROM found WHERE id = '{item['id']}'")[0][0].values()))
    assert href["href"] in {asset["href"] for asset in item["assets"].values()}


@pytest.mark.skipif(
    not CASSETTES.is_dir(), reason="the shared data set is not beside this checkout"
)
def test_a_built_in_data_set_is_built_from_a_mirror_of_its_api(play, con, rows):
    origin, log = play(EARTH_SEARCH)
    options = {
        "https://earth-search.aws.element84.com/": {"url_rewrite": f"{origin}/"},
        "s3://copernicus-dem-30m/": {"url_rewrite": f"{origin}/missing/"},
        origin: {"headers": {"x-api-key": "secret"}},
    }
    for prefix, values in options.items():
        rasteret_sql.storage(con, prefix, **values)
    report = con.execute(
        "FROM rasteret_build('earthsearch/cop-dem-glo-30', name := 'dem', max_items := 10)"
    ).fetchall()[0]
    assert report[3:8] == (10, ["DEM"], 10, 0, 10)
    assert {headers.get("x-api-key") for *_, headers in log} == {"secret"}
    pages = [answer for *_, answer in interactions(EARTH_SEARCH) if "features" in answer]
    assert rows("SELECT id, assets.DEM.href FROM dem ORDER BY id") == sorted(
        (item["id"], item["assets"]["data"]["href"]) for item in pages[0]["features"]
    )
