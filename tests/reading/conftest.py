"""Files in memory in place of the network, and the demo's scenes on the range server."""

from __future__ import annotations

import contextlib
import shutil

import pytest
import tifffile
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


MADE = """
SELECT 'DETACH', database_name, '' FROM duckdb_databases() WHERE NOT internal
UNION ALL SELECT 'DROP SCHEMA', schema_name, 'CASCADE' FROM duckdb_schemas()
    WHERE NOT internal AND database_name = current_database()
UNION ALL SELECT 'DROP TABLE', table_name, '' FROM duckdb_tables()
    WHERE schema_name = 'main' AND database_name = current_database()
UNION ALL SELECT 'DROP VIEW', view_name, '' FROM duckdb_views()
    WHERE NOT internal AND schema_name = 'main' AND database_name = current_database()
"""


@contextlib.contextmanager
def cursor_of(con):
    """A cursor for one test; what that makes in the database is dropped in the end.

    To connect costs more than most of the tests do.
    """
    kept = set(con.execute(MADE).fetchall())
    with con.cursor() as cursor:
        yield cursor
    for drop, name, rest in set(con.execute(MADE).fetchall()) - kept:
        con.execute(f'{drop} "{name}" {rest}')


@pytest.fixture(scope="module")
def _connected(tmp_path_factory):
    """A connection with a workspace of its own, and the folder of that."""
    workspace = tmp_path_factory.mktemp("workspace")
    con = rasteret_sql.connect(workspace=workspace, config={"threads": 2})
    yield con, workspace
    con.close()


@pytest.fixture
def con(_connected):
    """A cursor on an empty workspace."""
    con, workspace = _connected
    with cursor_of(con) as cursor:
        yield cursor
    for path in workspace.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


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
