"""The engine alone, with toy functions: no raster, no network."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pytest

from examples import examples
from rasteret_sql.duck import sources as kept_sources
from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import at_least, texts
from rasteret_sql.duck.connection import Instance
from rasteret_sql.duck.declarations import FUNCTIONS, Parameter, table_function
from rasteret_sql.duck.relations import stream
from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.duck.udfs import UDFS, create_udf
from rasteret_sql.errors import InputError, ReadError


class Toy:
    """Counts what the engine asks of a function."""

    def __init__(self):
        self.binds = 0
        self.batches = 0
        self.columns = []
        self.pushed = []
        self.open = 0
        self.delay = 0.0


@pytest.fixture
def toy():
    state = Toy()

    @table_function(
        "toy",
        "Count.",
        parameters=(
            Parameter("n", "INTEGER", "batches", check=at_least(0, "write a number")),
            Parameter("bands", "VARCHAR[]", "columns", "NULL", texts("column names")),
            Parameter("fail", "VARCHAR", "where", "NULL"),
        ),
        returns="id and the columns",
        example="FROM toy(1)",
    )
    def toy_function(call: Call, *, n, bands, fail):
        state.binds += 1
        names = bands or ["v"]
        schema = pa.schema([("id", pa.int64()), *((b, pa.float64()) for b in names)])

        def run(scan: Scan):
            state.columns.append(list(scan.columns))
            taken = scan.take({"id"}) if fail == "take" else None
            state.pushed.append(str(taken))
            state.open += 1
            try:
                for k in range(n):
                    if fail == "run" and k == 2:
                        raise ReadError("tile 3: expected 512 bytes, got 7; try again")
                    deadline = time.monotonic() + state.delay
                    while time.monotonic() < deadline:
                        if scan.stop.wait(min(0.02, state.delay)):
                            scan.check()
                    state.batches += 1
                    columns = {"id": pa.array([2 * k, 2 * k + 1])} | {
                        b: pa.array([float(k), k + 0.5]) for b in names
                    }
                    batch = pa.RecordBatch.from_arrays(
                        [columns[c] for c in scan.columns], list(scan.columns)
                    )
                    yield batch if taken is None else batch.filter(taken)
            finally:
                state.open -= 1

        return Stream(schema, run)

    @table_function(
        "toy_rows",
        "Count rows.",
        parameters=(Parameter("source", "VARCHAR", "a relation"),),
        returns="n",
        example="FROM toy_rows('t')",
    )
    def toy_rows(call: Call, *, source):
        return Sql(f"SELECT count(*) AS n FROM query_table('{source}')")

    yield state
    FUNCTIONS.pop("toy")
    FUNCTIONS.pop("toy_rows")


@pytest.fixture
def con(tmp_path, toy):
    con = duckdb.connect(config={"threads": 2})
    instance = Instance(workspace=None)
    instance._members[con] = "0"
    instance.udfs = [create_udf(con, UDFS[0], instance)]
    for name in ("toy", "toy_rows"):
        con.execute(FUNCTIONS[name].macro())
    toy.instance = instance
    yield con
    instance.runtime.close()
    con.close()


def rows(con, query, parameters=None):
    return con.execute(query, parameters).fetchall()


def test_columns_follow_the_arguments(con):
    assert con.sql("FROM toy(1, bands := ['a', 'b c'])").columns == ["id", "a", "b c"]


def test_only_the_columns_asked_for_reach_the_function(con, toy):
    rows(con, "SELECT sum(b) FROM toy(2, bands := ['a', 'b', 'c'])")
    assert toy.columns == [["b"]]


@pytest.mark.parametrize("who", ["engine", "take"])
def test_a_pushed_filter_is_applied_exactly_whoever_applies_it(con, toy, who):
    query = f"SELECT id, v FROM toy(3, fail := '{who}') WHERE id >= 3 AND v < 2"
    assert rows(con, query) == [(3, 1.5)]
    assert toy.pushed == ["(id >= 3)" if who == "take" else "None"]


def test_explain_describe_and_views_start_no_work(con, toy):
    rows(con, "EXPLAIN FROM toy(5)")
    rows(con, "DESCRIBE FROM toy(5)")
    rows(con, "CREATE VIEW held AS FROM toy(5)")
    assert (toy.batches, toy.binds) == (0, 3)
    assert rows(con, "SELECT count(*) FROM held") == [(10,)]


def test_limit_stops_pulling_and_closes_the_generator(con, toy):
    rows(con, "SET streaming_buffer_size = '1KB'")
    assert len(rows(con, "FROM toy(1000) LIMIT 3")) == 3
    assert toy.batches < 1000
    assert toy.open == 0


def test_several_calls_in_one_query_and_joins_between_them(con):
    query = "SELECT count(*) FROM toy(3) a JOIN toy(4) b USING (id) CROSS JOIN toy(1) c"
    assert rows(con, query) == [(12,)]


def test_prepared_statements_with_and_without_parameters(con):
    rows(con, "PREPARE p AS SELECT count(*) FROM toy(?)")
    assert rows(con, "EXECUTE p(3)") == [(6,)]
    assert rows(con, "EXECUTE p(4)") == [(8,)]
    rows(con, "PREPARE q AS SELECT count(*) FROM toy(2)")
    assert rows(con, "EXECUTE q") == rows(con, "EXECUTE q") == [(4,)]


def test_a_prepared_statement_outlives_many_other_calls(con, toy, monkeypatch):
    monkeypatch.setattr(kept_sources, "_KEPT_BYTES", 4 << 20)
    rows(con, "PREPARE q AS SELECT count(*) FROM toy(2, bands := ['kept'])")
    for number in range(220):
        rows(con, f"DESCRIBE FROM toy(1, bands := ['b{number}'])")
    assert len(toy.instance.runtime.sources._kept) < 200
    assert rows(con, "EXECUTE q") == [(4,)]


def test_create_table_as_and_copy(con, tmp_path):
    rows(con, "CREATE TABLE t AS FROM toy(2)")
    assert rows(con, "SELECT count(*) FROM t") == [(4,)]
    target = tmp_path / "t.parquet"
    rows(con, f"COPY (FROM toy(2)) TO '{target}' (FORMAT parquet)")
    assert rows(con, f"SELECT count(*) FROM '{target}'") == [(4,)]


def test_transactions(con):
    rows(con, "BEGIN")
    rows(con, "CREATE TABLE t AS FROM toy(2)")
    assert rows(con, "SELECT count(*) FROM toy(3)") == [(6,)]
    rows(con, "ROLLBACK")
    assert rows(con, "SELECT count(*) FROM toy(1)") == [(2,)]
    with pytest.raises(duckdb.CatalogException):
        rows(con, "FROM t")


def test_cursors_in_threads_run_at_once(con, toy):
    toy.delay = 0.05
    answers = []

    def work():
        with con.cursor() as cursor:
            answers.append(rows(cursor, "SELECT count(*) FROM toy(5)"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [[(10,)]] * 4


def test_a_bind_error_is_one_clean_line(con):
    with pytest.raises(duckdb.InvalidInputException) as caught:
        rows(con, "FROM toy('x')")
    assert "toy: n: expected 0 or more, an integer, got 'x'; write a number" in str(caught.value)


def test_a_run_error_is_one_clean_line_and_the_object_is_kept(con, toy):
    with pytest.raises(duckdb.Error) as caught:
        rows(con, "SELECT count(*) FROM toy(5, fail := 'run')")
    text = str(caught.value)
    assert "toy: tile 3: expected 512 bytes, got 7; try again" in text
    assert "Traceback" not in text
    kept = list(toy.instance.runtime.last_errors.values())
    assert [type(error) for error in kept] == [ReadError]
    assert toy.open == 0
    assert rows(con, "SELECT count(*) FROM toy(1)") == [(2,)]


def test_interrupt_stops_within_a_second_and_the_connection_stays_usable(con, toy):
    toy.delay = 0.1
    threading.Timer(0.4, con.interrupt).start()
    began = time.monotonic()
    with pytest.raises(duckdb.Error):
        rows(con, "SELECT count(*) FROM toy(200)")
    assert time.monotonic() - began < 1.5
    toy.delay = 0.0
    assert rows(con, "SELECT count(*) FROM toy(1)") == [(2,)]
    assert toy.open == 0


def test_a_result_abandoned_half_way_closes_its_generator(con, toy):
    toy.delay = 0.001

    def n_batches_of_an_abandoned_result():
        toy.batches = 0
        cursor = con.cursor()
        rows(cursor, "SET streaming_buffer_size = '1KB'")
        reader = stream(cursor, "FROM toy(4000)", 4)
        next(iter(reader))
        del reader
        cursor.close()
        gc.collect()
        deadline = time.monotonic() + 10  # 1.5 may be in the middle of a batch on its own thread
        while toy.open and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert toy.open == 0
        return toy.batches

    # now and then DuckDB 1.5 runs to the end before it gives the first batch
    assert any(n_batches_of_an_abandoned_result() < 4000 for _ in range(5))


@pytest.mark.any_duckdb
def test_thousands_of_calls_leave_nothing_behind(con, toy):
    def resident():
        with Path("/proc/self/statm").open() as file:
            return int(file.read().split()[1]) * 4096

    def repeat(n):
        for number in range(n):
            rows(con, f"SELECT count(*) FROM toy(1, bands := ['b{number % 100}'])")

    repeat(300)
    gc.collect()
    before = resident()
    n_calls = examples(2000, 10_000)
    repeat(n_calls)
    gc.collect()
    assert resident() - before < 6000 * n_calls
    assert toy.open == 0
    assert toy.instance.runtime.scans.n_running == 0
    assert len(toy.instance.runtime.sources) < 500


def test_what_is_kept_of_statements_is_bounded_by_bytes(con, toy):
    held = []
    for number in range(100):
        name = f"b{number}" + "x" * 100_000
        rows(con, "SELECT count(*) FROM toy(1, bands := [$name])", {"name": name})
        held.append(sum(len(source.source.schema.names[1]) for source in sources(toy)))
    assert max(held) < 10_000_000
    assert max(held[-20:]) - min(held[-20:]) < 1000
    assert rows(con, "SELECT count(*) FROM toy(1, bands := [$name])", {"name": name}) == [(2,)]


def sources(toy):
    return toy.instance.runtime.sources._kept.values()


def test_sql_functions_see_what_only_the_connection_sees(con):
    rows(con, "CREATE TEMP TABLE mine AS SELECT 1 AS a FROM range(3)")
    assert rows(con, "FROM toy_rows('mine')") == [(3,)]
    assert rows(con, "WITH q AS (SELECT 1 UNION ALL SELECT 2) FROM toy_rows('q')") == [(2,)]


def test_an_error_that_names_its_function_is_not_its_own_cause():
    """Who follows the causes would never end."""
    kept = SimpleNamespace(last_errors={})
    error = InputError("rasteret_value: no")
    assert Runtime.remember(kept, error, "rasteret_value", "1") is error
    assert error.__cause__ is None
    other = Runtime.remember(kept, InputError("no"), "rasteret_value", "1")
    assert str(other.__cause__) == "no"
