"""A plain name stands for the collection that its view shows now."""

from __future__ import annotations

import shutil

import duckdb
import pytest

import rasteret_sql
from rasteret_sql.duck import relations
from rasteret_sql.reading import index
from rasteret_sql.reading.records_file import load_records

IDS = "SELECT DISTINCT id FROM rasteret_plan('{}') ORDER BY id"


@pytest.fixture
def built(rows, served_items):
    """Two collections of the same scenes, the second of two of them."""
    path = served_items()
    rows("FROM rasteret_build_stac('s2', stac_api := $path)", {"path": path})
    ids = [row[0] for row in rows("SELECT id FROM s2 ORDER BY id")]
    rows(
        "FROM rasteret_build_stac('few', stac_api := $path, ids := $ids)",
        {"path": path, "ids": ids[:2]},
    )
    return [(one,) for one in ids]


def test_the_text_of_a_view_is_read_once(rows, built, monkeypatch):
    queries = []

    class Cursor:
        def __init__(self, inner):
            self.inner = inner

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            self.inner.close()

        def execute(self, query, parameters):
            queries.append(query)
            return self.inner.execute(query, parameters)

    folder_of = relations._folder_of_view

    def recorded(call, name):
        class Connections:
            def cursor(self, of=call.runtime.connections):
                return Cursor(of.cursor())

        with monkeypatch.context() as patched:
            patched.setattr(call.runtime, "connections", Connections())
            return folder_of(call, name)

    monkeypatch.setattr(relations, "_folder_of_view", recorded)
    assert rows(IDS.format("s2")) == built
    n_first = len(queries)
    assert [", sql FROM" in query for query in queries] == [False, True]
    assert rows(IDS.format("s2")) == built
    assert [", sql FROM" in query for query in queries[n_first:]] == [False]


def test_a_view_that_is_replaced_is_the_new_one(rows, built):
    assert rows(IDS.format("s2")) == built
    rows("CREATE TABLE few_records AS FROM few ORDER BY id")
    rows("DROP VIEW s2")
    rows("ALTER VIEW few RENAME TO s2")
    assert rows(IDS.format("s2")) == built[:2]
    rows("CREATE OR REPLACE VIEW s2 AS SELECT * FROM few_records LIMIT 1")
    assert rows(IDS.format("s2")) == built[:1]
    rows("DROP VIEW s2")  # the name of the workspace's collection again
    assert rows(IDS.format("s2")) == built


def test_a_database_attached_under_the_name_of_another_is_not_taken_for_it(rows, built, tmp_path):
    """Both files number their only view alike."""
    texts = dict(rows("SELECT view_name, sql FROM duckdb_views() WHERE view_name IN ('s2', 'few')"))
    for name, text in texts.items():
        with duckdb.connect(str(tmp_path / f"{name}.duckdb")) as other:
            other.execute(text.replace(f"VIEW {name} ", "VIEW shown "))
    for name, expected in (("s2", built), ("few", built[:2]), ("s2", built)):
        rows(f"ATTACH '{tmp_path / name}.duckdb' AS farm (READ_ONLY)")
        rows("USE farm")
        assert rows(IDS.format("shown")) == expected
        rows("USE memory")
        rows("DETACH farm")


def test_a_collection_that_another_process_replaced_is_seen(rows, built, tmp_path):
    workspace = tmp_path / "workspace"
    assert rows(IDS.format("s2")) == built
    (target,) = (path for path in workspace.iterdir() if path.name.startswith("few_"))
    (link,) = (path for path in workspace.iterdir() if path.name.startswith("s2_"))
    copy = link.resolve().with_name("another")
    shutil.copytree(target.resolve(), copy)
    new = link.with_name("new")
    new.symlink_to(copy)
    new.replace(link)
    assert rows(IDS.format("s2")) == built[:2]


def test_a_table_of_the_user_keeps_its_name_in_any_case(rows, built, tmp_path):
    path = tmp_path / "farm.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE S2 AS SELECT 7 AS a")
    for _ in range(2):  # the view of the other collection stands already the second time
        with rasteret_sql.connect(path, workspace=tmp_path / "workspace") as con:
            assert con.execute("FROM s2").fetchall() == [(7,)]
            assert con.execute("SELECT count(*) FROM few").fetchall() == [(2,)]


def test_the_records_of_another_process_are_those_of_duckdb(rows, built, monkeypatch):
    query = "SELECT * FROM rasteret_plan('s2', record_columns := ['all']) ORDER BY ALL"
    loaded = []

    def counted(*arguments):
        loaded.append(load_records(*arguments))
        return loaded[-1]

    monkeypatch.setattr(index, "load_records", counted)
    found = []
    for _ in range(2):
        index.INDEX.clear()
        found.append(rows(query))
    assert [one is None for one in loaded] == [True, False]
    assert found[0] == found[1]
    assert {row[0] for row in found[0]} == {one for (one,) in built}
