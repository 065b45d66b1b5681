"""`shell`, typed into a terminal of its own, and from a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from rasteret_sql.cli.completion import Catalog, candidates, is_complete

CHECKOUT = Path(__file__).parents[2]
CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>]|\r")
PROMPT = "rasteret>"
TAKE_TERMINAL = (  # a preexec_fn forks, for which a process of many tests may be too large
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, '-m', 'rasteret_sql', *sys.argv[1:]])"
)
LONG = "SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(10_000_000) b;"


class Terminal:
    """The shell on the other end of a pseudo-terminal."""

    def __init__(self, workspace, home, **environment):
        self._raw = ""
        self._seen = 0
        number, child = pty.openpty()
        self._number = number
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, "shell", "--workspace-dir", str(workspace)],
            stdin=child,
            stdout=child,
            stderr=child,
            env=os.environ
            | {
                "PYTHONPATH": str(CHECKOUT),
                "XDG_STATE_HOME": str(home),
                "TERM": "xterm-256color",
                "PROMPT_TOOLKIT_NO_CPR": "1",
            }
            | environment,
            start_new_session=True,
        )
        os.close(child)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._number)

    @property
    def raw(self):
        return self._raw

    def type(self, text):
        os.write(self._number, text.encode())

    def expect(self, wanted, seconds=10):
        """Read until a text is there, after the one expected before."""
        deadline = time.monotonic() + seconds
        while True:
            shown = CODES.sub("", self._raw)
            at = shown.find(wanted, self._seen)
            if at >= 0:
                self._seen = at + len(wanted)
                return shown
            left = deadline - time.monotonic()
            assert left > 0, f"no {wanted!r} in {shown[self._seen :]!r}"
            if select.select([self._number], [], [], min(left, 0.5))[0]:
                try:
                    self._raw += os.read(self._number, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert wanted in CODES.sub("", self._raw)[self._seen :]

    def end(self):
        """Leave by Ctrl-D, which counts only while the prompt holds the terminal."""
        self.expect(PROMPT)
        deadline = time.monotonic() + 20
        try:
            while self.process.poll() is None and time.monotonic() < deadline:
                self.type("\x04")
                if select.select([self._number], [], [], 0.5)[0]:
                    os.read(self._number, 65536)
        except OSError:  # the other end is closed
            pass
        return self.process.wait(timeout=5)


@pytest.fixture
def terminal(built, tmp_path):
    def start(**environment):
        return Terminal(built, tmp_path / "state", **environment)

    return start


def test_a_statement_is_answered_with_a_box_and_an_error_with_a_line(terminal):
    with terminal() as shell:
        shell.expect("DuckDB")
        shell.expect(PROMPT)
        shell.type("SELECT count(*) AS scenes FROM s2;\r")
        shell.expect("┌────────┐")
        shell.expect("│ scenes │")
        shell.expect("│      6 │")
        shell.expect(PROMPT)
        shell.type("FROM rasteret_pixels('s9');\r")
        shell.expect("error: rasteret_pixels: collection: expected a collection (known: s2)")
        shell.expect(PROMPT)
        shell.type(".help rasteret_ndvi\r")
        shell.expect("Normalized difference vegetation index.")
        assert shell.end() == 0


@pytest.mark.any_duckdb
def test_a_statement_may_have_several_lines_and_tab_completes_it(terminal):
    with terminal() as shell:
        shell.expect(PROMPT)
        shell.type("SELECT 40 +\r")
        shell.expect("...>")
        shell.type("2 AS answer;\r")
        shell.expect("│ answer │")
        shell.expect("│     42 │")
        shell.expect(PROMPT)
        shell.type("SELECT rasteret_nd\t")
        shell.expect("vi(")
        shell.type("1000, 3000) AS v;\r")
        shell.expect("│    0.5 │")
        assert shell.end() == 0


@pytest.mark.parametrize("kind", ["sql", "read"])
def test_ctrl_c_stops_the_statement_and_keeps_the_session(
    terminal, command, server, tmp_path, kind
):
    sql = LONG
    if kind == "read":
        where = ("--workspace-dir", tmp_path / "remote")
        url = server.url("scenes", "items.json")
        assert command("collections", "build", "far", "--stac-api", url, *where).exit_code == 0
        folder = tmp_path / "remote" / "far_stac"
        sql = f"SELECT sum(B04) FROM rasteret_pixels('{folder}', bands := ['B04'], "
        sql += "max_concurrent := 1);"
        server.reset()
        server.set(latency_ms=400)
    try:
        with terminal() as shell:
            shell.expect(PROMPT)
            shell.type("CREATE TEMP TABLE kept AS SELECT 7 AS number;\r")
            shell.expect(PROMPT)
            shell.type(f"{sql}\r")
            shell.expect("running")
            if kind == "read":
                deadline = time.monotonic() + 20
                while not server.requests():
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            began = time.monotonic()
            shell.type("\x03")
            shell.expect("interrupted")
            assert time.monotonic() - began < 5
            shell.expect(PROMPT)
            shell.type("FROM kept;\r")
            shell.expect("│      7 │")
            assert shell.end() == 0
            assert "Traceback" not in shell.raw
    finally:
        server.set(latency_ms=0)


@pytest.mark.any_duckdb
def test_history_is_kept_without_secrets(terminal, tmp_path):
    with terminal() as shell:
        shell.expect(PROMPT)
        shell.type("SELECT 11 AS eleven;\r")
        shell.expect("│     11 │")
        shell.expect(PROMPT)
        shell.type("CREATE SECRET (TYPE s3, KEY_ID 'hunter2', SECRET 'hunter2');\r")
        assert shell.end() == 0
    path = tmp_path / "state" / "rasteret_sql" / "history"
    assert "SELECT 11 AS eleven;" in path.read_text()
    assert "hunter2" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    with terminal() as shell:
        shell.expect(PROMPT)
        shell.type("\x1b[A\r")
        shell.expect("│     11 │")
        assert shell.end() == 0


@pytest.mark.any_duckdb
def test_words_of_other_shells_are_understood(terminal, command, built):
    """Without a dot and a semicolon they began a statement that never ended."""
    with terminal() as shell:
        shell.expect(PROMPT)
        shell.type("help\r")
        shell.expect(".timer")
        shell.expect(PROMPT)
        shell.type("exit\r")
        assert shell.process.wait(timeout=20) == 0
    done = run(command, built, "SELECT 1 AS a;\nquit;\nFROM nowhere;\n")
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_manual_that_is_not_there_is_told_with_one_that_is(command, built):
    done = run(command, built, ".help pixel\n")
    told = "error: name: expected a SQL function, got 'pixel'; did you mean rasteret_pixels?\n"
    assert (done.exit_code, done.stderr) == (1, told)
    done = run(command, built, ".help nothing_like_it\n")
    assert done.stderr.endswith("got 'nothing_like_it'; .functions lists them\n")
    assert command("functions", "pixel").stderr == told
    assert "'rasteret-sql functions' lists them" in command("functions", "nothing_like_it").stderr
    assert run(command, built, ".help rasteret_pixels\n").stdout.startswith("rasteret_pixels(")


@pytest.mark.any_duckdb
@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_show_where_they_are_wanted(terminal, no_color):
    with terminal(NO_COLOR=no_color) as shell:
        shell.expect(PROMPT)
        shell.type("SELECT 'a text' AS t;\r")
        shell.expect("│ a text  │")
        colours = re.findall(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", shell.raw)
        assert bool(colours) is not bool(no_color)
        assert shell.end() == 0


def run(command, built, text, *arguments):
    return command("shell", *arguments, "--workspace-dir", built, input=text)


def test_statements_and_commands_come_from_a_pipe_too(command, built, tmp_path):
    (tmp_path / "more.sql").write_text("SELECT 2 AS b;\nSELECT 3 AS c;")
    text = (
        "SELECT 1\n  AS a;\n.mode csv\nSELECT '.mode;\n.x' AS s; SELECT 4 AS d;\n"
        f".read {tmp_path / 'more.sql'}\n.mode json\nSET threads = 1;\nSELECT 5 AS e"
    )
    done = run(command, built, text)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("┌───────┐\n│   a   │")
    assert done.stdout.endswith('s\n".mode;\n.x"\nd\n4\nb\n2\nc\n3\n[\n\t{"e":5}\n]\n')


def test_a_failed_statement_of_a_pipe_ends_it_with_1(command, built):
    done = run(command, built, "SELECT 1 AS a;\nFROM nowhere;\nSELECT 2 AS b;\n")
    assert done.exit_code == 1
    assert "│     1 │" in done.stdout
    assert "b" not in done.stdout
    assert done.stderr.startswith("error: table: expected a table, view or collection of ")
    assert done.stderr.count("\n") == 1


def test_commands_of_the_shell(command, built):
    done = run(
        command, built, ".tables\n.help\n.functions\n.timer on\nSELECT 1;\n.quit\nFROM no;\n"
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("s2\n.help")
    assert "rasteret_build_stac" in done.stdout
    assert re.fullmatch(r"0\.\d{3} s\n", done.stderr)
    done = run(command, built, ".nope\n")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: command: expected .help, ")


def test_a_database_file_is_opened(command, built, tmp_path):
    path = tmp_path / "farm.duckdb"
    assert run(command, built, "CREATE TABLE t AS SELECT 5 AS n;", path).exit_code == 0
    done = run(command, built, ".mode csv\nFROM t;", path, "--read-only")
    assert done.stdout == "n\n5\n"


@pytest.mark.any_duckdb
def test_without_the_extra_it_says_what_to_install(terminal, tmp_path):
    (tmp_path / "prompt_toolkit.py").write_text(
        "raise ModuleNotFoundError('gone', name='prompt_toolkit')"
    )
    with terminal(PYTHONPATH=f"{tmp_path}:{CHECKOUT}") as shell:
        shell.expect("error: shell: expected the package prompt_toolkit, got none; pip install")
        assert shell.process.wait(timeout=20) == 1


KNOWN = Catalog(
    {
        "rasteret_pixels": ["collection", "bands", "bbox", "date_range"],
        "rasteret_ndvi": ["red", "nir"],
        "round": (),
    },
    {
        "s2": ["id", "datetime", "eo:cloud_cover", "B04_metadata", "B08_metadata"],
        "fields": ["name", "geometry"],
    },
    ["SELECT", "FROM", "WHERE"],
)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("SEL", ["SELECT"]),
        ("SELECT rasteret_n", ["rasteret_ndvi("]),
        ("SELECT rou", ["round("]),
        ("FROM ", ["s2", "fields", "rasteret_pixels("]),
        ("FROM s", ["s2"]),
        ("FROM rasteret_pixels('", ["s2", "fields"]),
        ("FROM rasteret_pixels('f", ["fields"]),
        ("FROM rasteret_pixels('s2', b", ["bands := ", "bbox := "]),
        ("FROM rasteret_pixels('s2', bands := ['B04'], b", ["bbox := "]),
        ("FROM rasteret_pixels('s2', bands := ['", ["B04", "B08"]),
        ("FROM rasteret_pixels('s2', bands := ['B04', 'B0", ["B04", "B08"]),
        ("FROM rasteret_pixels('s2', bands := [", ["'B04'", "'B08'"]),
        ("FROM rasteret_pixels('s2', bands := ['B04', ", ["'B04'", "'B08'"]),
        ("FROM rasteret_pixels(", ["'s2'", "'fields'"]),
        ("FROM rasteret_pixels('s2', lonlat := ", ["true", "false"]),
        ("FROM rasteret_zonal_stats('s2', 'fields', stats := ['me", ["mean", "median"]),
        ("FROM rasteret_preview('s2', colormap := 'vi", ["viridis"]),
        ("FROM rasteret_zonal_stats('s2', 'fi", ["fields"]),
        ("FROM rasteret_zonal_stats('s2', 'fields', weights := '", ["center", "touched"]),
        ("FROM s2 WHERE eo", ['"eo:cloud_cover"']),
        ('FROM s2 WHERE "eo:', ['"eo:cloud_cover"']),
        ("SELECT name, FROM fields WHERE na", ["name"]),
        (".he", [".help"]),
        (".help rasteret_n", ["rasteret_ndvi"]),
        (".mode c", ["csv"]),
        ("SELECT 'a text ", []),
    ],
)
def test_completion(text, first):
    found = list(candidates(text, KNOWN))
    assert [one.text for one in found][: len(first)] == first
    if not first:
        assert found == []
    for one in found:
        assert text.endswith(text[len(text) - one.length :])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("FROM rasteret_pixels('s2', ", {"argument", "constant"}),
        ("FROM rasteret_pixels('s2', b", {"argument"}),
        ("FROM rasteret_pixels('s2', bands := ['B04'], ", {"argument", "constant"}),
        ("SELECT rasteret_ndvi(B", {"s2", "band"}),
    ],
)
def test_columns_and_words_are_no_arguments_of_table_functions(text, what):
    """They are refused there; a scalar function takes them."""
    assert {one.what for one in candidates(text, KNOWN)} == what


def test_completion_knows_what_the_connection_has(built):
    import rasteret_sql

    con = rasteret_sql.connect(workspace=built)
    try:
        catalog = Catalog.of(con)
    finally:
        con.close()
    assert catalog.bands("s2") == ["B04", "B08", "SCL"]
    assert list(catalog.functions["rasteret_pixels"])[:2] == ["collection", "bands"]
    assert list(catalog.functions["rasteret_ndvi"]) == ["red", "nir"]
    assert "SELECT" in catalog.keywords
    found = [one.text for one in candidates('SELECT "eo', catalog)]
    assert found == ['"eo:cloud_cover"']


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT ';", False),
        ("SELECT 'it''s;';", True),
        ('SELECT ";";', True),
        ("SELECT $$;", False),
        ("SELECT $a$;$a$;", True),
        ("SELECT 1; -- end", True),
        ("SELECT 1 -- ;", False),
        ("SELECT /* ; ", False),
        ("", True),
        (".tables", True),
        ("exit", True),
        ("Quit;", True),
        ("help", True),
        ("exits", False),
    ],
)
def test_a_statement_ends_with_a_semicolon(text, is_whole):
    assert is_complete(text) is is_whole
