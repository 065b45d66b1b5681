"""Exit codes, one line of error, no secrets, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from processes import heeding_ctrl_c

from examples import examples
from rasteret_sql.cli import failures
from rasteret_sql.cli.failures import one_line
from rasteret_sql.duck.names import IS_DUCKDB_2

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELEC 1", "Parser Error: syntax error"),
        ("SELECT nowhere('x')", "Catalog Error: Scalar Function with name nowhere does not exist"),
        ("FROM rasteret_plan('s2', bands := ['b4'])", "bands: expected one of B04, B08, SCL"),
        ("FROM rasteret_pixels('s3')", "collection: expected a collection (known: s2), got 's3'"),
        ("SELECT eo:cloud_cover FROM s2", 'got eo:cloud_cover; write "eo:cloud_cover"'),
        ("FROM s2 WHERE eo:cloud_cover < 9", 'got eo:cloud_cover; write "eo:cloud_cover"'),
        (
            "SELECT B04 - B08 FROM rasteret_pixels('s2')",
            "bands have the type of their files: write B08::DOUBLE - B04, or scaled := true",
        ),
    ],
)
def test_an_error_is_exit_code_1_and_one_line(command, built, sql, text):
    done = command("query", sql, "--workspace-dir", built)
    assert (done.exit_code, done.stdout) == (1, "")
    assert text in done.stderr
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 'sig=hunter2'::INTEGER", "'sig=…'"),
        ("SELECT 1 FROMM 'api_key=hunter2'", "'api_key=…'"),
        ("SELECT 'Authorization: Bearer hunter2'::INTEGER", "Bearer …"),
        ("FROM rasteret_pixels('token=hunter2')", "'token=…'"),
        ("SELECT 'size=hunter2'::INTEGER", "size=hunter2"),
    ],
)
def test_what_looks_like_a_secret_is_not_repeated(command, built, sql, told):
    """A literal without an address around it, as one that an address is put together from."""
    done = command("query", sql, "--workspace-dir", built)
    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr
    assert ("hunter2" in done.stderr) is ("size" in sql)


def test_a_folder_of_rasters_is_told_how_it_is_named(command, items, tmp_path):
    folder = items.parent
    done = command("query", f"FROM rasteret_pixels('{folder}/')", "--workspace-dir", tmp_path)
    pattern = f"{folder}/**/*.tif"
    assert done.stderr.endswith(f"; rasters in it are named by a pattern: '{pattern}'\n")
    sql = f"SELECT count(DISTINCT id) AS n FROM rasteret_plan('{pattern}')"
    done = command("query", sql, "--workspace-dir", tmp_path, "--format", "csv")
    assert done.stdout == "n\n18\n"


def test_a_table_that_is_not_there_is_told_with_the_collections_of_the_workspace(
    command, built, tmp_path
):
    """The likeliest slip: without --workspace-dir another folder is looked into."""
    for name, folder, known in (("s3", built, "s2"), ("s2", tmp_path, "none")):
        told = (
            f"error: table: expected a table, view or collection of {folder} ({known}), "
            f"got {name!r}; check the name, or pass --workspace-dir\n"
        )
        done = command("query", f"FROM {name}", "--workspace-dir", folder)
        assert (done.exit_code, done.stderr) == (1, told)
        done = command("shell", "--workspace-dir", folder, input=f"FROM {name};")
        assert (done.exit_code, done.stderr) == (1, told)


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("arguments", "function"),
    [
        (("query", "FROM rasteret_pixels('s2')"), "rasteret_pixels"),
        (("collections", "info", "s2"), "rasteret_describe"),
        (("zonal", "s2"), "rasteret_zonal_stats"),
    ],
)
def test_a_collection_that_is_not_in_an_empty_workspace_is_told_with_its_folder(
    command, tmp_path, arguments, function
):
    done = command(*arguments, "--workspace-dir", tmp_path)
    told = (
        f"error: {function}: collection: expected a collection (known: none yet), got 's2'; "
        f"{tmp_path} holds none, --workspace-dir names another folder\n"
    )
    assert (done.exit_code, done.stderr) == (1, told)


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ("query", "SELECT 1", "--output", "/nonexistent/a.csv"),
            1,
            "output: expected a file in a folder that is there, got '/nonexistent/a.csv'; make",
        ),
        (
            ("query", "SELECT 1", "--database", "/nonexistent/a.duckdb"),
            1,
            "database: expected a DuckDB file, got '/nonexistent/a.duckdb'; IO Error: ",
        ),
        (
            ("shell", "/nonexistent/a.duckdb"),
            1,
            "database: expected a DuckDB file, got '/nonexistent/a.duckdb'; IO Error: ",
        ),
        (
            ("init", "/nonexistent/a.duckdb"),
            1,
            "database: expected a DuckDB file, got '/nonexistent/a.duckdb'; IO Error: ",
        ),
        (
            ("zonal", "s2", "fields.shp"),
            1,
            "zones: expected a file, got 'fields.shp'; check the path",
        ),
        (("datasets", "info", "nope"), 1, "got 'nope'; see rasteret-sql datasets list"),
        (
            ("collections", "import", "x", "--record-table", "SELECT 1 AS a"),
            1,
            "give --column-map '<column>=id'",
        ),
        (
            ("collections", "import", "x", "--record-table", "SELEC 1"),
            1,
            "table: expected a table, view or collection of ",
        ),
    ],
)
def test_what_cannot_be_used_is_told_with_what_to_do(command, built, arguments, code, told):
    places = () if arguments[0] == "datasets" else ("--workspace-dir", built)
    done = command(*arguments, *places)
    assert (done.exit_code, done.stdout) == (code, "")
    line = done.stderr.splitlines()[-1]
    assert told in line
    assert line.lower().startswith("error: ")


@pytest.mark.any_duckdb
def test_a_file_that_the_shell_is_to_read_is_not_there(command, built):
    done = command("shell", "--workspace-dir", built, input=".read nope.sql\n")
    assert done.exit_code == 1
    told = "nope.sql: expected a path that can be used, got 'No such file or directory'; check it"
    assert done.stderr == f"error: {told}\n"


@pytest.mark.any_duckdb
def test_wrong_usage_is_exit_code_2(command):
    for arguments in (["query"], ["nope"], ["query", "x", "--format", "xml"], ["collections", "x"]):
        done = command(*arguments)
        assert done.exit_code == 2
        assert "Usage: " in done.stderr


@pytest.mark.any_duckdb
def test_debug_lets_the_traceback_through(command):
    done = command("--debug", "query", "SELEC 1")
    assert "syntax error" in str(done.exception)
    assert done.exit_code == 1
    code = "from rasteret_sql.cli import main; main(['--debug', 'query', 'SELEC 1'])"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=CHECKOUT
    )
    assert shown.returncode == 1
    assert shown.stderr.startswith("Traceback")


@pytest.mark.any_duckdb
def test_no_secret_of_a_url_is_printed(command, server, tmp_path):
    host = server.origin.removeprefix("http://")
    url = f"http://me:hunter2@{host}/404/scenes/items.json?sig=hunter2"
    done = command("collections", "build", "x", "--stac-api", url, "--workspace-dir", tmp_path)
    assert done.exit_code == 1
    assert "hunter2" not in done.output
    done = command("query", f"FROM read_csv('{url}')")
    assert done.exit_code == 1
    assert "hunter2" not in done.output


@pytest.mark.any_duckdb
def test_an_unforeseen_exception_is_called_a_bug():
    assert one_line(KeyError("x")) == (
        "KeyError: 'x'; this is a bug, run again with --debug to see where"
    )


@pytest.mark.any_duckdb
@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_in_a_command_is_exit_code_130(error):
    @click.group(cls=failures.Commands)
    @click.option("--debug", is_flag=True)
    def group(debug):
        pass

    @group.command()
    def stopped():
        raise error

    from click.testing import CliRunner

    done = CliRunner().invoke(group, ["stopped"])
    assert (done.exit_code, done.stderr) == (130, "error: interrupted\n")


DURING_IMPORTS = """
import os, signal, sys
module = sys.argv.pop()

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from rasteret_sql.cli import run
run()
"""


@pytest.mark.any_duckdb
@pytest.mark.parametrize("module", ["click", "rasteret_sql.cli.options"])
def test_ctrl_c_while_commands_are_imported_is_one_line(environment, module):
    done = subprocess.run(
        heeding_ctrl_c("-c", DURING_IMPORTS, "collections", "list", module),
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


FORMATS = ["table", "json", "arrow"]


@pytest.mark.parametrize(
    "format_", examples(["table", "json" if IS_DUCKDB_2 else "arrow"], FORMATS)
)
def test_ctrl_c_ends_a_long_read_within_two_seconds_with_130(command, server, tmp_path, format_):
    remote, outputs = tmp_path / "workspace", tmp_path / "outputs"
    outputs.mkdir()
    url = server.url(format_, "items.json")
    done = command("collections", "build", "s2", "--stac-api", url, "--workspace-dir", remote)
    assert done.exit_code == 0, done.output
    sql = "SELECT sum(B04) AS n FROM rasteret_pixels('s2', bands := ['B04'], max_concurrent := 1)"
    output = outputs / "out"
    arguments = ["--workspace-dir", str(remote), "--format", format_, "--output", str(output)]
    server.reset()
    server.set(latency_ms=400)
    try:
        process = subprocess.Popen(
            heeding_ctrl_c("-m", "rasteret_sql", "query", sql, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )
        deadline = time.monotonic() + 20
        while not any(request["path"].startswith(f"/{format_}/") for request in server.requests()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        elapsed = time.monotonic() - began
    finally:
        server.set(latency_ms=0)
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    assert elapsed < 4  # two on a machine that does nothing else
    assert list(outputs.iterdir()) == []


@pytest.mark.any_duckdb
def test_head_ends_a_pipeline_with_exit_code_0(built):
    """Of a table; tests of queries have formats that come in pieces."""
    sql = "SELECT range AS i FROM range(1000000)"
    command = f'"{sys.executable}" -m rasteret_sql query "{sql}"'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} | head -n 1"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "rror" not in done.stderr


@pytest.mark.any_duckdb
def test_the_package_alone_gives_the_modules_of_the_documentation():
    code = (
        "import rasteret_sql; print(rasteret_sql.maps.serve_map.__name__, "
        "rasteret_sql.serve.serve.__name__, rasteret_sql.progress.wanted.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["serve_map", "serve", "wanted"]


@pytest.mark.any_duckdb
def test_a_command_imports_no_other(environment):
    code = "import sys; from rasteret_sql.cli import run\ntry: run()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "query", "SELECT 1"],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    modules = set(done.stdout.split())
    assert {"rasteret_sql.cli.query", "duckdb"} <= modules
    assert not {"rasteret_sql.cli.reads", "rasteret_sql.duck.functions", "shapely"} & modules
