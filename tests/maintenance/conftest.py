"""A collection, the items that it was built from, and its refreshes."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter

import pytest


class Upstream:
    """Items in a file, over scenes of one test on the range server."""

    def __init__(self, items, folder, path, server):
        self.all = items["features"]
        self.items = []
        self.folder = folder
        self.path = path
        self.server = server

    def href(self, item, band, fault=""):
        path = f"{self.folder.name}/{item}/{band}.tif"
        return self.server.url("scenes", path, fault=fault)

    def add(self, number, name=None, bands=("B04", "B08"), **properties):
        item = copy.deepcopy(self.all[number])
        scene = item["id"]
        item["id"] = name or scene
        item["properties"] |= properties
        item["assets"] = {
            band: item["assets"][band] | {"href": self.href(scene, band)} for band in bands
        }
        self.items.append(item)
        self.write()
        return item

    def write(self):
        document = {"type": "FeatureCollection", "features": self.items}
        self.path.write_text(json.dumps(document))

    def touch(self, number, band):
        """Another file at the same address: a byte more, and so another ETag."""
        path = self.folder / self.all[number]["id"] / f"{band}.tif"
        path.write_bytes(path.read_bytes() + b"\0")

    def asked(self):
        """Header and state requests by file since the last call.

        A test before this one may have left a request on its way, for a folder of its own.
        """
        own = f"/{self.folder.name}/"
        found = Counter(
            (one["method"], one["path"].partition(own)[2])
            for one in self.server.requests()
            if own in one["path"]
        )
        self.server.reset()
        return found


@pytest.fixture
def upstream(scenes, items, server, tmp_path, request):
    folder = server.folder / f"up{abs(hash(request.node.nodeid))}"
    shutil.copytree(scenes, folder)
    made = Upstream(items, folder, tmp_path / "items.json", server)
    for number in range(4):
        made.add(number)
    yield made
    shutil.rmtree(folder)


@pytest.fixture
def built(rows, upstream):
    report = rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(upstream.path)})[0]
    assert report[3:8] == (4, ["B04", "B08"], 8, 8, 0)
    upstream.asked()
    return upstream


@pytest.fixture
def refresh(con):
    def run(options="", name="s2", parameters=None):
        result = con.execute(f"FROM rasteret_refresh('{name}'{options})", parameters)
        names = [column[0] for column in result.description]
        return dict(zip(names, result.fetchall()[0], strict=True))

    return run


@pytest.fixture
def version(tmp_path):
    """The folder that readers see now."""

    def find(name="s2", kind="stac"):
        return (tmp_path / "workspace" / f"{name}_{kind}").resolve()

    return find
