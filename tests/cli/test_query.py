"""`query`: every format gives the rows back."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CHECKOUT = Path(__file__).parents[2]
ROWS = [(1, "a,b", 1.5), (2, None, -2.0), (3, 'q"é', 0.1)]
SQL = "SELECT * FROM (VALUES (1, 'a,b', 1.5::DOUBLE), (2, NULL, -2), (3, 'q\"é', 0.1)) t(i, s, d)"


def read(data, format_):
    if format_ == "csv":
        rows = list(csv.reader(io.StringIO(data.decode())))
        assert rows[0] == ["i", "s", "d"]
        return [(int(i), s or None, float(d)) for i, s, d in rows[1:]]
    if format_ == "json":
        return [tuple(row.values()) for row in json.loads(data)]
    source = pa.BufferReader(data)
    table = pq.read_table(source) if format_ == "parquet" else pa.ipc.open_stream(source).read_all()
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("format_", ["csv", "json", "parquet", "arrow"])
@pytest.mark.parametrize("to", ["stdout", "output", "suffix"])
def test_every_format_round_trips(command, tmp_path, format_, to):
    path = tmp_path / f"result.{format_}"
    arguments = {
        "stdout": ("--format", format_),
        "output": ("--format", format_, "--output", path),
        "suffix": ("--output", path),
    }[to]
    done = command("query", SQL, *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    data = done.stdout_bytes if to == "stdout" else path.read_bytes()
    assert read(data, format_) == ROWS
    if to != "stdout":
        assert done.stdout_bytes == b""
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_read_imports_no_pandas(built):
    """pyarrow would, with its first array."""
    code = (
        "import atexit, sys; from rasteret_sql.cli import run\n"
        "atexit.register(lambda: print('pandas' in sys.modules, file=sys.stderr))\n"
        "run()"
    )
    query = "SELECT count(B04) AS n FROM rasteret_pixels('s2') WHERE id <> ''"
    done = subprocess.run(
        [sys.executable, "-c", code, "query", query, "--workspace-dir", built, "--format", "csv"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == "False\n"
    assert int(done.stdout.splitlines()[1]) > 0


@pytest.mark.any_duckdb
@pytest.mark.parametrize("name", ["query", "sample", "zonal"])
def test_json_is_short_for_its_format(command, built, name):
    area = "POLYGON((77.985 13.0, 77.99 13.0, 77.99 13.01, 77.985 13.0))"
    given = {
        "query": ["FROM s2"],
        "sample": ["s2", "SELECT 77.985 AS lon, 13.01 AS lat", "--bands", "B04"],
        "zonal": ["s2", f"SELECT '{area}' AS geometry", "--bands", "B04"],
    }[name]
    where = ["--workspace-dir", built]
    long = command(name, *given, "--format", "json", *where)
    assert len(json.loads(long.stdout)) > 1
    assert command(name, *given, "--json", *where).stdout == long.stdout


def test_the_table_is_the_one_that_duckdb_draws(command):
    with duckdb.connect() as con:
        assert command("query", SQL).stdout.strip() == str(con.sql(SQL)).strip()


@pytest.mark.parametrize("format_", ["table", "csv", "json", "parquet", "arrow"])
def test_pixels_of_a_collection_come_out_in_every_format(command, built, tmp_path, format_):
    path = tmp_path / "out"
    sql = (
        "SELECT count(*) AS n, sum(B04) AS total, any_value(datetime) AS t FROM rasteret_pixels("
        "'s2', bands := ['B04'], bbox := [78.0, 13.0, 78.002, 13.002]) "
        'WHERE "eo:cloud_cover" < 20'
    )
    done = command(*("query", sql, "--workspace-dir", built, "--format", format_, "--output", path))
    assert done.exit_code == 0, done.output
    assert path.stat().st_size > 0


def test_geometry_and_structs_of_a_collection_survive_json(command, built):
    sql = "SELECT geometry, bbox, assets FROM s2 ORDER BY id LIMIT 1"
    done = command("query", sql, "--workspace-dir", built, "--format", "json")
    row = json.loads(done.stdout)[0]
    assert row["geometry"].startswith("POLYGON ((77.96")
    assert row["bbox"]["xmin"] == pytest.approx(77.9644, abs=1e-3)
    assert row["assets"]["B04"]["band_index"] == 0


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN SELECT 1",
        "DESCRIBE SELECT 1 AS i",
        "SELECT 1; SELECT 2 AS two -- the last one\n;",
        "CALL pragma_version()",
        "CREATE TABLE t AS SELECT 1 AS i; UPDATE t SET i = 2 RETURNING i",
    ],
)
def test_statements_of_other_kinds_have_results_too(command, sql):
    done = command("query", sql, "--format", "json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) > 0
    assert command("query", sql).stdout.startswith("┌")


def test_a_statement_without_result_prints_nothing(command):
    done = command("query", "SET threads = 1", "--format", "csv")
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.any_duckdb
def test_a_build_in_a_query_runs_once(command, items, tmp_path):
    sql = f"SELECT requests > 0 AS ran FROM rasteret_build_stac('s2', stac_api := '{items}')"
    for format_ in ("table", "json"):
        done = command("query", sql, "--workspace-dir", tmp_path / format_, "--format", format_)
        assert "true" in done.stdout


@pytest.mark.any_duckdb
def test_sql_may_come_from_stdin(command):
    done = command("query", "-", "--format", "csv", input="SELECT 7 AS n;\n")
    assert done.stdout == "n\n7\n"


def test_a_database_file_keeps_what_a_query_made(command, tmp_path):
    path = tmp_path / "a.duckdb"
    sql = "CREATE TABLE t AS SELECT 5 AS n"
    assert command("query", sql, "--database", path).exit_code == 0
    read_only = ("--database", path, "--read-only")
    assert command("query", "FROM t", *read_only, "--format", "csv").stdout == "n\n5\n"
    done = command("query", "INSERT INTO t VALUES (6)", *read_only)
    assert done.exit_code == 1
    assert "read-only" in done.stderr


@pytest.mark.any_duckdb
def test_a_failed_query_leaves_no_file_and_keeps_the_old_one(command, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    sql = "SELECT CASE WHEN i = 90000 THEN error('late') ELSE i END AS x FROM range(100000) t(i)"
    done = command("query", sql, "--output", path)
    assert done.exit_code == 1
    assert "late" in done.stderr
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.any_duckdb
def test_an_output_folder_that_is_missing_is_one_line(command, tmp_path):
    done = command("query", "SELECT 1", "--output", tmp_path / "no" / "out.csv")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.any_duckdb
@pytest.mark.parametrize("name", ["o.geojson", "o.txt", "o", "o.csv.gz"])
def test_an_output_of_an_unknown_format_is_refused_before_anything_runs(command, tmp_path, name):
    kept = tmp_path / "kept.csv"
    sql = f"COPY (SELECT 1) TO '{kept}'"
    done = command("query", sql, "--output", tmp_path / name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        f"--output: expected a file that ends in .csv, .json, .parquet, .arrow, got '{name}'"
        in (" ".join(done.stderr.split()))
    )
    assert list(tmp_path.iterdir()) == []
    done = command("query", "SELECT 1 AS i", "--output", tmp_path / name, "--format", "csv")
    assert done.exit_code == 0
    assert (tmp_path / name).read_text() == "i\n1\n"


@pytest.mark.parametrize("format_", ["csv", "json"])
@pytest.mark.parametrize(
    "sql",
    [
        "FROM test_all_types()",
        "FROM (VALUES ('a,b'), ('q\"x'), (NULL), (''), ('n\nx'), ('r\r'), ('a#')) t(\"s,\")",
        "SELECT 1 AS i WHERE false",
    ],
)
def test_csv_and_json_are_what_duckdb_writes(command, tmp_path, format_, sql):
    path = tmp_path / "expected"
    with duckdb.connect() as con:
        how = {"csv": "FORMAT csv, HEADER true", "json": "FORMAT json, ARRAY true"}[format_]
        con.execute(f"COPY ({sql}) TO '{path}' ({how})")
    done = command("query", sql, "--format", format_)
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes == path.read_bytes()


@pytest.mark.parametrize(
    "format_",
    ["csv", *(pytest.param(other, marks=pytest.mark.any_duckdb) for other in ("json", "arrow"))],
)
def test_rows_come_while_the_statement_runs_and_a_reader_may_leave(format_):
    sql = "SELECT i, 'a text that takes some room' AS s FROM range(100_000_000_000) t(i)"
    process = subprocess.Popen(
        [sys.executable, "-m", "rasteret_sql", "query", sql, "--format", format_],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    with process:
        try:
            head = process.stdout.read(2_000_000)  # the statement would take hours to end
            process.stdout.close()
            error = process.stderr.read()
            assert (process.wait(timeout=30), error) == (0, b"")
        finally:
            process.kill()
    assert len(head) == 2_000_000
    assert b"a text that takes some room" in head


def test_what_comes_before_an_error_is_written_and_the_exit_code_tells(command):
    sql = "SELECT CASE WHEN i = 900000 THEN error('late') ELSE i END AS x FROM range(1000000) t(i)"
    done = command("query", sql, "--format", "csv")
    assert done.exit_code == 1
    assert done.stdout.startswith("x\n0\n1\n")
    assert "late" in done.stderr


def test_columns_of_one_name_all_come_out(command):
    done = command("query", "SELECT 1 AS a, 2 AS a", "--format", "json")
    assert list(json.loads(done.stdout)[0].values()) == [1, 2]


@pytest.mark.parametrize("columns", [90, 200])
def test_on_a_terminal_the_table_is_as_wide_as_that(columns):
    """Otherwise the statistics of `zonal` are among the columns that are left out."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    names = ", ".join(f"{n} AS column_number_{n}" for n in range(11, 20))
    with subprocess.Popen(
        [sys.executable, "-m", "rasteret_sql", "query", f"SELECT {names}"],
        cwd=CHECKOUT, stdout=theirs, stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if key != "COLUMNS"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(ours)
    assert process.returncode == 0
    lines = shown.decode().splitlines()
    assert max(map(len, lines)) <= columns
    n_shown = sum(f"column_number_{n}" in lines[1] for n in range(11, 20))
    assert n_shown == 9 if columns == 200 else 2 < n_shown < 5
