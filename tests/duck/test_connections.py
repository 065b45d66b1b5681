"""Connections of all kinds, and how errors come back through them."""

from __future__ import annotations

import warnings

import duckdb
import pytest

import rasteret_sql
from rasteret_sql import errors
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.duck import views
from rasteret_sql.duck.connection import instance_of

LOST = "/nowhere/a.tif"


@pytest.fixture
def read_only(tmp_path):
    """A connection to a read-only database, with a workspace that does not exist yet."""
    path = tmp_path / "farm.duckdb"
    duckdb.connect(str(path)).close()
    con = rasteret_sql.connect(path, tmp_path / "new", read_only=True)
    yield con
    con.close()


def test_a_workspace_that_is_named_and_not_there_is_a_warning(tmp_path, monkeypatch):
    """The likeliest slip: its name is misspelt, and all collections seem gone."""
    folder = tmp_path / "typo"
    with pytest.warns(errors.RasteretWarning) as told:
        rasteret_sql.connect(workspace=folder).close()
    (one,) = told
    assert str(one.message) == (
        f"workspace: expected a folder, got '{folder}', which is not there; "
        "check its name, or build a collection, which makes it"
    )
    assert one.filename == __file__
    assert not folder.exists()
    folder.mkdir()
    monkeypatch.setenv("RASTERET_WORKSPACE", str(tmp_path / "later"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rasteret_sql.connect(workspace=folder).close()
        rasteret_sql.connect().close()


def test_a_collection_that_is_dropped_meanwhile_is_left_out(con, rows, served_items, monkeypatch):
    for name in ("kept", "lost"):
        rows(
            "FROM rasteret_build_stac($name, stac_api := $path)",
            {"name": name, "path": served_items()},
        )
    listed = Workspace.collections

    def list_and_lose(workspace):
        found = listed(workspace)
        (workspace.root / "lost_stac").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Workspace, "collections", list_and_lose)
    with rasteret_sql.connect(workspace=instance_of(con).workspace.root) as other:
        assert other.execute("SELECT count(*) FROM kept").fetchall() == [(6,)]
        with pytest.raises(duckdb.CatalogException):
            other.execute("FROM lost")


def test_a_collection_that_is_replaced_meanwhile_has_a_view(con, rows, served_items, monkeypatch):
    rows("FROM rasteret_build_stac('kept', stac_api := $path)", {"path": served_items()})
    tries = []

    def fail_once(*arguments, **options):
        tries.append(arguments)
        if len(tries) == 1:
            raise errors.CollectionError("view kept: IO Error: Cannot open file")
        return create_view(*arguments, **options)

    create_view = views.create_view
    monkeypatch.setattr(views, "create_view", fail_once)
    with rasteret_sql.connect(workspace=instance_of(con).workspace.root) as other:
        assert other.execute("SELECT count(*) FROM kept").fetchall() == [(6,)]


@pytest.mark.parametrize(
    "statement",
    [
        "FROM rasteret_build_stac('s2', stac_api := $path)",
        "FROM rasteret_build_table('s2', $path)",
        "FROM rasteret_load('s2', $path)",
        "FROM rasteret_load('s2', $path, force := true)",
    ],
)
def test_a_build_that_could_not_make_its_view_starts_no_work(
    read_only, served_items, tmp_path, statement
):
    path = served_items()
    with pytest.raises(duckdb.Error, match=r"a database that can be written.*got 'farm, which is"):
        read_only.execute(statement, {"path": path}).fetchall()
    assert not (tmp_path / "new").exists()


def test_a_build_on_a_read_only_connection_works_where_its_error_says(read_only, served_items):
    read_only.execute("ATTACH ':memory:' AS work (READ_WRITE)")
    read_only.execute("USE work")
    query = "FROM rasteret_build_stac('s2', stac_api := $path)"
    read_only.execute(query, {"path": served_items()}).fetchall()
    assert read_only.execute("SELECT count(*) FROM s2").fetchall() == [(6,)]


def test_register_reads_files_as_their_data_set_says(rows, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("RASTERET_DATASETS", str(tmp_path / "datasets.json"))
    rows(
        "FROM rasteret_register_dataset('mine/s2', stac_api := $items, "
        "access := 'requester_pays', access_prefixes := ['s3://payers/'])",
        {"items": str(scenes / "items.json")},
    )
    rows("FROM rasteret_build('mine/s2')")
    for folders in ([tmp_path / "workspace"], [tmp_path / "none", tmp_path / "workspace"]):
        with duckdb.connect() as con:
            for folder in folders:
                rasteret_sql.register(con, workspace=folder)
            stores = instance_of(con).stores
        assert stores.options_of("s3://payers/a.tif")[1].requester_pays


@pytest.mark.parametrize(
    "call",
    [
        "SELECT b_metadata FROM rasteret_enrich('{}', bands := ['b'], href_column := 'url'",
        "FROM rasteret_build_table('t', '{}', enrich := true, bands := ['b'], href_column := 'url'",
    ],
)
@pytest.mark.parametrize("source", ["kept", "private"])
def test_the_error_of_an_asset_is_one_line_of_ours(con, rows, call, source):
    rows(f"CREATE TABLE kept AS SELECT 'one' AS id, '{LOST}' AS url")
    rows(f"CREATE TEMP TABLE private AS SELECT 'one' AS id, '{LOST}' AS url")
    query = call.format(source) + ", on_error := 'error')"
    function = "rasteret_enrich" if "rasteret_enrich" in call else "rasteret_build_table"
    message = f"{function}: record one, band b: {LOST}: expected .*, got No such file"
    with pytest.raises(duckdb.Error, match=message) as raised:
        rows(query)
    assert "UDF" not in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(errors.CollectionError, match=f"^{message}"):
        rasteret_sql.sql(con, query)
    reported = rows(query.replace("'error'", "'report'"))
    assert len(reported) == 1


def test_enrich_reads_no_header_that_is_not_selected(rows, scenes, server):
    url = server.url("scenes", f"built/{next(scenes.glob('*/B04.tif')).parent.name}/B04.tif")
    call = "rasteret_enrich('t', bands := ['B04'], href_column := 'url', on_error := 'error')"
    rows(f"CREATE TABLE t AS SELECT 'one' AS id, '{url}' AS url")
    server.reset()
    assert rows(f"SELECT count(*) FROM {call}") == [(1,)]
    assert rows(f"SELECT id FROM {call}") == [("one",)]
    assert server.requests() == []
    rows(f"FROM {call}")
    ranges = [request["range"] for request in server.requests()]
    assert 1 <= len(set(ranges)) == len(ranges) <= 2


def test_sql_takes_any_statement(con, tmp_path):
    def run(query, parameters=None):
        return rasteret_sql.sql(con, query, parameters).fetchall()

    run("CREATE TABLE t AS SELECT 1 AS a")
    run("INSERT INTO t VALUES (?)", [2])
    run("BEGIN")
    run("UPDATE t SET a = 7 WHERE a = $old", {"old": 2})
    run("ROLLBACK")
    run(f"COPY t TO '{tmp_path / 't.csv'}'")
    run("SET threads = 2")
    run("PREPARE p AS SELECT max(a) FROM t")
    assert run("EXECUTE p") == [(2,)]
    assert run(f"FROM '{tmp_path / 't.csv'}'; SELECT sum(a) FROM t") == [(3,)]
    assert run("") == []
    with pytest.raises(errors.UnknownCollectionError):
        run("CREATE TABLE u AS FROM rasteret_pixels('nothing')")


def test_failed_counts_the_errors_with_an_id_and_notes_have_none(rows):
    twice = f"SELECT 'one' AS id, '{LOST}' AS url FROM range(2)"
    call = "rasteret_build_table('t', $twice, enrich := true, bands := ['b'], href_column := 'url')"
    assert rows(f"SELECT failed FROM {call}", {"twice": twice}) == [(2,)]
    assert rows("SELECT count(id) FROM rasteret_errors('t')") == [(2,)]
    notes = rows("SELECT error FROM rasteret_errors('t') WHERE id IS NULL")
    assert ("id: one: more than one row has this id",) in notes
    manual = rows("SELECT manual FROM rasteret_functions() WHERE name = 'rasteret_errors'")
    assert "whose id is NULL, which is a note on the whole source" in manual[0][0]


def test_a_collection_may_be_a_query_over_our_functions(con, rows, served_items):
    rows("FROM rasteret_build_stac('s2', stac_api := $path)", {"path": served_items()})
    rows("CREATE TABLE urls AS SELECT id, assets.B04.href AS href, bbox, crs FROM s2")
    enriched = (
        "SELECT id, {B04: {href: href}} AS assets, crs, bbox, B04_metadata FROM "
        "rasteret_enrich('urls', bands := ['B04'], href_column := 'href')"
    )
    count = "SELECT count(B04), sum(B04) FROM rasteret_pixels($c, bands := ['B04'])"
    assert rows(count, {"c": enriched}) == rows(count, {"c": "s2"})
    rows("CREATE VIEW pixels AS FROM rasteret_pixels('s2', bands := ['SCL'])")
    described = rows("SELECT records FROM rasteret_describe('pixels')")
    assert described == rows("SELECT count(*) FROM pixels")


def test_a_duplicate_of_a_connection_knows_the_functions(con):
    with con.duplicate() as twin:
        assert twin.execute("SELECT rasteret_ndvi(1, 3)").fetchall() == [(0.5,)]


def test_null_is_called_so(con):
    with pytest.raises(duckdb.Error, match=r"collection: expected a name, .* got NULL; write it"):
        con.execute("FROM rasteret_pixels(NULL)")
