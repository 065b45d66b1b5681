"""An interrupt reaches the queries that we run ourselves, on connections the user never sees."""

from __future__ import annotations

import threading
import time

import duckdb
import pytest

import rasteret_sql
from rasteret_sql.errors import InterruptedReadError

ENDLESS = "(SELECT count(*) AS n FROM range(1000000000000) r WHERE hash(r.range) % 7 = 3)"
CALLS = {
    "build": "rasteret_build_table('t', 'slow')",
    "pixels": "rasteret_pixels('slow')",
    "areas": "rasteret_pixels('s2', aois := 'slow_areas')",
    "describe": "rasteret_describe('slow')",
    "validate": "rasteret_validate('slow')",
}


@pytest.fixture(scope="module")
def con(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inner")
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    items = scenes / "items.json"
    con.execute("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(items)})
    named = "CASE WHEN n < 0 THEN NULL ELSE id END AS id"
    con.execute(f"CREATE VIEW slow AS SELECT * REPLACE ({named}) FROM s2, {ENDLESS}")
    con.execute(f"CREATE VIEW slow_areas AS SELECT geometry AS geom, n FROM s2, {ENDLESS}")
    yield con
    con.close()


@pytest.mark.parametrize("call", CALLS)
def test_interrupt_stops_a_query_of_ours_and_leaves_the_connection_usable(con, call):
    ended = []

    def run():
        try:
            rasteret_sql.sql(con, f"FROM {CALLS[call]}")
        except (duckdb.InterruptException, InterruptedReadError) as error:
            ended.append(error)

    reader = threading.Thread(target=run)
    reader.start()
    time.sleep(0.3)
    assert reader.is_alive()
    began = time.monotonic()
    while reader.is_alive() and time.monotonic() - began < 20:
        con.interrupt()
        reader.join(0.5)
    assert not reader.is_alive()
    assert time.monotonic() - began < 10
    assert len(ended) == 1
    assert con.execute("SELECT count(*) FROM s2").fetchall() == [(6,)]
    assert con.execute("SELECT records FROM rasteret_describe('s2')").fetchall() == [(6,)]


def test_an_interrupt_stops_no_query_of_another_connection(con):
    """Each connection has its own."""
    other = con.cursor()
    ended = []

    def run():
        try:
            rasteret_sql.sql(con, "FROM rasteret_describe('slow')")
        except (duckdb.InterruptException, InterruptedReadError) as error:
            ended.append(error)

    reader = threading.Thread(target=run)
    reader.start()
    time.sleep(0.3)
    other.interrupt()
    reader.join(1)
    assert reader.is_alive()
    con.interrupt()
    reader.join(20)
    assert len(ended) == 1
    other.close()
