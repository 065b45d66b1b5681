"""`init` makes a file that DuckDB's stock shell shows, without Python."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest

import rasteret_sql

PAGE = Path(__file__).parents[2] / "docs" / "shells.md"
HELPERS = {
    "rasteret_bbox_intersects",
    "rasteret_evi",
    "rasteret_functions",
    "rasteret_grid_cell",
    "rasteret_ndvi",
    "rasteret_normalized_difference",
    "rasteret_num_tiles",
    "rasteret_qa_bit",
    "rasteret_scl_clear",
    "rasteret_solar_day",
    "rasteret_split",
    "rasteret_tile_span",
    "rasteret_values",
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Ask DuckDB 1.5.5's own binary, with nothing of ours in its environment."""
    home = tmp_path_factory.mktemp("home")
    binary = Path(sys.prefix).with_name(".venv-duckdb15") / "bin" / "duckdb"
    if importlib.util.find_spec("duckdb_cli"):
        binary = Path(str(files("duckdb_cli") / "duckdb"))
    if not binary.exists():
        pytest.skip("there is no duckdb-cli, neither here nor in .venv-duckdb15")

    def run(database, script):
        done = subprocess.run(
            [binary, "-csv", "-bail", *([database] if database else [])],
            input=script,
            capture_output=True,
            text=True,
            env={"PATH": os.defpath, "HOME": str(home)},
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return list(csv.reader(io.StringIO(done.stdout)))

    return run


@pytest.fixture
def made(command, built, tmp_path):
    path = tmp_path / "my.duckdb"
    done = command("init", path, "--workspace-dir", built)
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert first == f"{path}: 1 view, {len(HELPERS)} functions"
    assert "rasteret-sql shell" in second
    assert "rasteret-sql serve" in second
    return path


def test_the_stock_shell_shows_collections_and_has_the_helpers(shell, made):
    assert shell(made, "SHOW TABLES;") == [["name"], ["s2"]]
    _, *rows = shell(
        made,
        "SELECT count(*), min(rasteret_num_tiles(B04_metadata)), "
        "count(*) FILTER (rasteret_bbox_intersects(bbox, 77.98, 13.0, 77.99, 13.01)), "
        "rasteret_ndvi(1000, 3000), any_value(typeof(geometry)) FROM s2 "
        "WHERE year = 2024;",
    )
    assert len(rows) == 1
    n_scenes, n_tiles, n_near, ndvi, kind = rows[0]
    assert (n_scenes, n_tiles, ndvi) == ("6", "16", "0.5")
    assert 0 < int(n_near) <= 6
    assert kind.startswith("GEOMETRY")
    _, *listed = shell(made, "SELECT name FROM rasteret_functions() WHERE kind <> 'needs Python';")
    assert {name for (name,) in listed} == HELPERS


def test_the_stock_shell_is_told_where_functions_that_read_pixels_are(shell, made):
    """Of each of them DuckDB says 'Did you mean "rasteret_functions"?'."""
    sql = "SELECT name, kind, description, manual FROM rasteret_functions();"
    _, *rows = shell(made, sql)
    here, there = rows[: len(HELPERS)], rows[len(HELPERS) :]
    assert [row[0] for row in here] == sorted(HELPERS)
    with rasteret_sql.connect() as con:
        known = con.execute("SELECT name, description, manual FROM rasteret_functions()").fetchall()
    manuals = {name: (description, manual) for name, description, manual in known}
    assert {row[0] for row in there} == manuals.keys() - HELPERS
    for name, kind, description, manual in there:
        assert kind == "needs Python"
        where, _, what = description.partition("(rasteret-sql serve). ")
        assert where.startswith("Not in this file: run rasteret-sql shell, or ask a server ")
        assert (what, manual.strip()) == (manuals[name][0], manuals[name][1].strip())


def test_with_python_the_file_lists_them_as_its_own(made, built):
    with rasteret_sql.connect(made, workspace=built) as con:
        for one in (con, con.cursor()):
            kinds = one.execute("SELECT DISTINCT kind FROM rasteret_functions() ORDER BY 1")
            assert kinds.fetchall() == [("scalar",), ("table",)]


def test_every_helper_gives_what_its_manual_says_in_the_stock_shell(shell, made):
    sql = (
        "SELECT example, regexp_extract(manual, '\\nresult +([^\\n]*)', 1) "
        "FROM rasteret_functions() WHERE kind = 'scalar';"
    )
    _, *manual = shell(made, sql)
    assert len(manual) == len(HELPERS) - 1
    for example, result in manual:
        _, row = shell(made, f"{example};")
        assert ", ".join(row) == result


def test_the_page_s_commands_and_statements_run(shell, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line.strip() for line in PAGE.read_text().split("## ")[1].splitlines()]
    for line in lines:
        if line.startswith("rasteret-sql "):
            done = command(*shlex.split(line)[1:])
            assert done.exit_code == 0, done.output
    statements = [line.removeprefix("D ") for line in lines if line.startswith("D ")]
    assert len(statements) == 4
    assert len(shell("my.duckdb", "\n".join(statements))) > len(HELPERS)


def test_its_sql_can_be_read_by_a_shell_into_an_open_database(shell, command, built, tmp_path):
    script = tmp_path / "views.sql"
    done = command("init", "--sql", "--workspace-dir", built)
    assert done.exit_code == 0
    script.write_text(done.stdout)
    found = shell(
        None,
        f".read {script}\nSELECT id, rasteret_ndvi(1000, 3000) AS ndvi FROM s2 ORDER BY id;\n",
    )
    assert found[0] == ["id", "ndvi"]
    assert len(found) == 1 + 6
    assert found[1] == ["S2A_43PHQ_20240110_L2A", "0.5"]


def test_a_shell_sees_a_collection_that_is_built_again(shell, made, command, built, tmp_path):
    workspace = tmp_path / "workspace"
    shutil.copytree(built, workspace, symlinks=True)
    path = tmp_path / "other.duckdb"
    assert command("init", path, "--workspace-dir", workspace).exit_code == 0
    where = ("--record-table", "SELECT * FROM s2 LIMIT 2", "--workspace-dir", workspace)
    done = command("collections", "import", "two", *where)
    assert done.exit_code == 0, done.output
    assert shell(path, "SELECT count(*) AS n FROM s2;") == [["n"], ["6"]]
    assert command("init", path, "--workspace-dir", workspace).exit_code == 0
    assert shell(path, "SELECT count(*) AS n FROM two;") == [["n"], ["2"]]


def test_what_else_the_file_holds_stays_and_python_reads_it_too(command, built, made):
    with duckdb.connect(made) as con:
        con.execute("CREATE TABLE plots AS SELECT 7 AS plot")
    assert command("init", made, "--workspace-dir", built).exit_code == 0
    con = rasteret_sql.connect(made, workspace=built)
    try:
        assert con.execute("FROM plots").fetchall() == [(7,)]
        names = {row[0] for row in con.execute("SELECT name FROM rasteret_functions()").fetchall()}
        assert names > HELPERS | {"rasteret_pixels"}
        n_pixels = con.execute("SELECT count(*) FROM rasteret_pixels('s2', bands := ['B04'])")
        assert n_pixels.fetchall()[0][0] > 100_000
    finally:
        con.close()


def test_a_name_that_is_taken_is_refused_and_nothing_changes(command, built, tmp_path):
    path = tmp_path / "farm.duckdb"
    with duckdb.connect(path) as con:
        con.execute("CREATE VIEW s2 AS SELECT 1 AS i")
    done = command("init", path, "--workspace-dir", built)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: s2: expected a name that is free in farm.duckdb, got ")
    with duckdb.connect(path) as con:
        assert con.execute("FROM s2").fetchall() == [(1,)]
        names = "SELECT function_name FROM duckdb_functions() WHERE function_name LIKE 'rasteret%'"
        assert con.execute(names).fetchall() == []
    assert command("init", path, "--force", "--workspace-dir", built).exit_code == 0
    with duckdb.connect(path) as con:
        assert con.execute("SELECT count(*) FROM s2").fetchall() == [(6,)]


def test_a_file_or_sql_is_asked_for(command, built, tmp_path):
    for arguments in ((), (tmp_path / "a.duckdb", "--sql")):
        done = command("init", *arguments, "--workspace-dir", built)
        assert done.exit_code == 2
        assert "expected DATABASE or --sql" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_refused(command, built, tmp_path):
    """DuckDB would take CSV for a view in a database in memory, and nothing would be kept."""
    path = tmp_path / "wells.csv"
    path.write_text("lon,lat\n77.99,13.01\n")
    done = command("init", path, "--workspace-dir", built)
    assert (done.exit_code, done.stderr) == (
        1,
        f"error: database: expected a DuckDB file, got '{path}'; name a new file, as my.duckdb\n",
    )
    assert path.read_text() == "lon,lat\n77.99,13.01\n"
