"""Scenes on disk and on the range server, and item files over them."""

from __future__ import annotations

import json

import pytest

from rasteret_sql.demo.scenes import write_scenes


@pytest.fixture(scope="session")
def scenes(server):
    """Folder of the demo's scenes, which the server shows as ``scenes/built``."""
    folder = server.folder / "built"
    write_scenes(folder)
    return folder


@pytest.fixture
def items(scenes):
    """The ItemCollection as a dict, to be changed and written."""
    return json.loads((scenes / "items.json").read_text())


@pytest.fixture
def write_items(tmp_path):
    """Write an ItemCollection, return its path as text."""

    def write(document, name="items.json"):
        path = tmp_path / name
        path.write_text(json.dumps(document))
        return str(path)

    return write


@pytest.fixture
def served_items(items, write_items, server):
    """Items whose hrefs are on the server; band B08 of the first hits a fault."""

    def make(fault=""):
        for number, item in enumerate(items["features"]):
            for band, asset in item["assets"].items():
                path = f"built/{item['id']}/{band}.tif"
                broken = fault if (number, band) == (0, "B08") else ""
                asset["href"] = server.url("scenes", path, fault=broken)
        return write_items(items)

    return make
