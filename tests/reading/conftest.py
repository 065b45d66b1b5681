"""Files in memory in place of the network, and the demo's scenes on the range server."""

from __future__ import annotations

import pytest
import tifffile
from cursors import cursor_of
from reading.made import Files, Run, until
from reading.rasters import write
from reading.read_oracle import build_files

import rasteret_sql
from rasteret_sql.demo.scenes import write_scenes
from rasteret_sql.reading import gates, pipeline, streams
from rasteret_sql.reading.tile_store import STORE


@pytest.fixture
def files(monkeypatch):
    """Files that the pipeline reads in place of real ones."""
    made = Files()
    monkeypatch.setattr(pipeline, "get_range", made.get_range)
    monkeypatch.setattr(streams, "get_range", made.get_range)
    yield made
    made.go.set()


@pytest.fixture
def run():
    """A run with a store of its own; at the end nothing of it is left."""
    one = Run()
    yield one
    assert_nothing_left(one)


def assert_nothing_left(*runs):
    for one in runs:
        store = one.store
        assert until(lambda store=store: store._in_flight == 0), store._in_flight
        assert until(lambda store=store: not store._in_work), store._in_work
    assert until(lambda: gates.RUNS.n_active == 0)


@pytest.fixture
def nothing_left():
    """Check that runs left nothing behind."""
    return assert_nothing_left


@pytest.fixture(scope="session")
def scenes(server, tmp_path_factory):
    """Folder of the scenes' files and the workspace of collection ``s2`` over HTTP."""
    folder = server.folder / "s2"
    items = write_scenes(folder)
    workspace = tmp_path_factory.mktemp("workspace")
    con = rasteret_sql.connect(workspace=workspace)
    report = con.execute(
        "FROM rasteret_build_stac('s2', stac_api := $items, url_rewrite := MAP {$old: $new})",
        {"items": str(items), "old": str(folder), "new": server.url("scenes", "s2")},
    ).fetchall()
    con.close()
    assert report[0][3:8] == (6, ["B04", "B08", "SCL"], 18, 18, 0)
    return folder, workspace


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


@pytest.fixture(scope="module")
def _connected_s2(scenes):
    con = rasteret_sql.connect(workspace=scenes[1], config={"threads": 2})
    yield con
    con.close()


@pytest.fixture
def s2(_connected_s2, server):
    """A cursor with the collection; the server's log is empty."""
    STORE.clear()
    server.reset()
    with cursor_of(_connected_s2) as cursor:
        yield cursor


@pytest.fixture
def n_requests(s2, server):
    """Run SQL; how many requests the server saw, and the rows."""

    def run(query, parameters=None):
        STORE.clear()
        server.reset()
        found = s2.execute(query, parameters).fetchall()
        return len(server.requests()), found

    return run


@pytest.fixture
def build(con, tmp_path):
    """Build a collection `made` of arrays written as files without georeferencing."""

    def run(**arrays):
        rows = []
        for name, values in arrays.items():
            path = tmp_path / f"{name}.tif"
            tifffile.imwrite(path, values, tile=(16, 16), metadata=None)
            rows.append(f"('{name}', '{path}')")
        con.execute(
            "FROM rasteret_build_table('made', $source, href_column := 'href', "
            "band_index_map := MAP {'b': 0}, enrich := true, force := true)",
            {"source": f"SELECT * FROM (VALUES {', '.join(rows)}) AS files(id, href)"},
        ).fetchall()

    return run


@pytest.fixture
def made(con, tmp_path):
    """Build a collection `made` of one file of these pixels; gives the file's path."""

    def run(pixels, bands=("band",), **options):
        path = write(tmp_path / "a.tif", pixels, **options)
        build_files(con, "made", {"a": path}, bands)
        return path

    return run
