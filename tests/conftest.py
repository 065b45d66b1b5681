"""Fixtures that several folders of tests share."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
import rasterio
from cursors import cursor_of
from scenes import ROOT, build_workspace
from servers.range_server import RangeServer

import rasteret_sql
from rasteret_sql.demo.scenes import write_scenes

# Tests start hundreds of programs: their modules are compiled once, and those with a home of
# their own copy the macros from the same file as all others.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let a worker's counts of reruns go out at once: each test sends three small messages."""
    counts = getattr(config, "failures_db", None)
    if hasattr(counts, "sock"):
        counts.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def pytest_collection_finish() -> None:
    """What is imported stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _gdal():
    """One environment of GDAL; rasterio makes one for each call where there is none."""
    with rasterio.Env():
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real files beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("the shared data set is not beside this checkout")
    return DATA


@pytest.fixture
def con(tmp_path):
    """A registered connection with a workspace of its own."""
    con = rasteret_sql.connect(workspace=tmp_path / "workspace", config={"threads": 2})
    yield con
    con.close()


@pytest.fixture(scope="module")
def _connected(tmp_path_factory):
    """A connection for a file of tests, and the folder of its workspace."""
    workspace = tmp_path_factory.mktemp("workspace")
    con = rasteret_sql.connect(workspace=workspace, config={"threads": 2})
    yield con, workspace
    con.close()


@pytest.fixture(name="cursor")
def cursor_of_module(_connected):
    """A cursor of that connection; the workspace is empty."""
    con, workspace = _connected
    with cursor_of(con) as cursor:
        yield cursor
    for path in workspace.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.fixture
def rows(con):
    """Run SQL, get all rows."""

    def run(query, parameters=None):
        return con.execute(query, parameters).fetchall()

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A range server: `scenes` serves a folder of the session, `data` the shared files."""
    folder = tmp_path_factory.mktemp("served")
    roots = {"scenes": folder} | ({"data": DATA} if DATA.is_dir() else {})
    with RangeServer(**roots) as running:
        running.folder = folder
        yield running


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


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """A workspace with one collection, `s2`."""
    return build_workspace(tmp_path_factory.mktemp("imagery"))


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For programs that the tests start: this checkout, and this interpreter's scripts."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
