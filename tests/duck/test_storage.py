"""How files are reached belongs to a database: its cursors share it, no other database has it."""

from __future__ import annotations

import threading

import duckdb
import pytest

import rasteret_sql
from rasteret_sql.duck.connection import instance_of
from rasteret_sql.errors import AccessDeniedError
from rasteret_sql.remote import stores

HEADERS = {"Authorization": "Bearer t0ken"}
LON, LAT = 77.987, 13.007
SUM = "SELECT sum(B04)::BIGINT FROM rasteret_pixels('s2', bands := ['B04'])"
BUILD = "FROM rasteret_build_stac('s2', stac_api := $1, enrich := true)"


@pytest.fixture
def other(tmp_path):
    """A connection to another database of this process, with the same workspace."""
    with rasteret_sql.connect(workspace=tmp_path / "workspace", config={"threads": 2}) as con:
        yield con


@pytest.fixture
def private(items, write_items, server):
    """Items whose files the server shows only to whoever sends the token."""
    for item in items["features"]:
        for band, asset in item["assets"].items():
            asset["href"] = server.url("scenes", f"built/{item['id']}/{band}.tif", fault="private")
    return write_items(items)


def refuse(href):
    """Open nothing."""
    raise AccessDeniedError.expected("href", "a file that is served", href, "serve it too")


def fails(con, query, words):
    with pytest.raises(duckdb.Error, match=words):
        con.execute(query).fetchall()


def test_options_of_a_database_are_not_those_of_another(con, other, private):
    rasteret_sql.storage(con, "http://", headers=HEADERS)
    con.execute(BUILD, [private]).fetchall()
    assert con.execute("SELECT count(*) FROM rasteret_errors('s2')").fetchall() == [(0,)]
    total = con.execute(SUM).fetchall()
    fails(other, SUM, "403")
    fails(other, "SELECT count(B04) FROM rasteret_read('s2', bands := ['B04'])", "403")
    assert con.cursor().execute(SUM).fetchall() == total  # from memory, as the first one did
    rasteret_sql.storage(other, "http://", headers=HEADERS)
    assert other.execute(SUM).fetchall() == total
    rasteret_sql.storage(con, "http://")
    fails(con, SUM, "403")


def test_a_cursor_tells_the_whole_database(con, private):
    rasteret_sql.storage(con.cursor(), "http://", headers=HEADERS)
    con.execute(BUILD, [private]).fetchall()
    assert con.execute("SELECT count(*) FROM rasteret_errors('s2')").fetchall() == [(0,)]


def test_two_databases_read_at_the_same_time_each_with_its_own(con, other, private):
    rasteret_sql.storage(con, "http://", headers=HEADERS)
    con.execute(BUILD, [private]).fetchall()
    found = []

    def read(one):
        for _ in range(5):
            try:
                found.append((one, one.execute(SUM).fetchall()))
            except duckdb.Error as error:
                found.append((one, "403" in str(error)))

    threads = [threading.Thread(target=read, args=(one,)) for one in (con, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {repr(value) for one, value in found if one is other} == {"True"}
    assert {repr(value) for one, value in found if one is con} == {
        repr(con.execute(SUM).fetchall())
    }


def test_whom_a_database_asks_first_holds_for_it_alone(con, other, scenes):
    con.execute(BUILD, [str(scenes / "items.json")]).fetchall()
    total = con.execute(SUM).fetchall()
    instance_of(other).stores.check = refuse
    fails(other, SUM, "a file that is served")  # though the tiles are in memory
    fails(other, f"FROM rasteret_read('{scenes}/*/B04.tif')", "a file that is served")
    assert con.execute(SUM).fetchall() == total


def test_nothing_is_opened_but_by_the_stores_of_the_database(
    con, rows, private, server, scenes, monkeypatch, tmp_path
):
    monkeypatch.setattr(stores, "_of_account", stores.Stores(refuse))
    rasteret_sql.storage(con, "http://", headers=HEADERS)
    rows(BUILD, [private])
    assert rows("SELECT count(*) FROM rasteret_errors('s2')") == [(0,)]
    one = "SELECT * FROM s2 LIMIT 1"
    assert rows(SUM)
    assert rows(f"SELECT count(B04) FROM rasteret_read('{one}', bands := ['B04'])") == [(1,)]
    assert rows(f"SELECT count(*) FROM rasteret_read_tiles('{one}', bands := ['B04'])")
    value = f"rasteret_value(s, 'B04', [{LON}, {LAT}])"
    assert rows(f"SELECT count({value}) FROM s2 AS s")[0][0] > 0
    assert rows("SELECT count(*) FROM rasteret_enrich('s2', bands := ['B04'])") == [(6,)]
    assert rows("FROM rasteret_validate('s2', check_remote := true)") == []
    assert rows("FROM rasteret_refresh('s2')")
    href = server.url("scenes", f"built/{next(scenes.glob('*/B04.tif')).parent.name}/B04.tif")
    assert rows(f"SELECT count(*) FROM rasteret_read('{href}')") == [(1,)]
    rows(f"COPY s2 TO '{server.folder / 'mine.parquet'}'")
    rows("FROM rasteret_load('far', path := $1)", [server.url("scenes", "mine.parquet")])
    assert rows("SELECT count(*) FROM rasteret_records('far')") == [(6,)]
