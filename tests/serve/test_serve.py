"""The server in a process of its own, read by DuckDB's stock shell, which has no Python."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest
from scenes import SCENES, band_pixels, is_installed

import rasteret_sql
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.serve import serve

PACKAGES = ("duckdb-cli", "duckdb-extensions", "duckdb-extension-quack", "duckdb-extension-httpfs")
with_quack = pytest.mark.skipif(
    duckdb.__version__ != "1.5.5" or not is_installed(*PACKAGES),
    reason=f"needs duckdb 1.5.5 and {', '.join(PACKAGES)}",
)
ANN, BOB = "ann-secret", "bob-secret"
PIXELS = "SELECT id, count(B04), avg(B04) FROM rasteret_pixels('s2') GROUP BY id ORDER BY id"
MANY = "SELECT f.* FROM s2 f, range(100000)"


ERROR = re.compile(r"^(?=[A-Z][\w ]* Error:)", re.MULTILINE)
"""Where the error of a statement begins."""


class Shell:
    """DuckDB's own binary, with nothing of ours in its environment."""

    def __init__(self, port: int | None = None):
        self.binary = str(files("duckdb_cli") / "duckdb")
        self.port = port

    def start(self, sql: str, *, token: str = ANN, database: Path | None = None, then=None):
        """Start it with SQL; ``then`` is where it reads more."""
        if self.port is not None:
            loads = "".join(
                f"LOAD '{files('duckdb_extension_' + n)}/extensions/v1.5.5/{n}.duckdb_extension';"
                for n in ("httpfs", "quack")
            )
            sql = f"{loads} ATTACH 'quack:localhost:{self.port}' AS r (TOKEN '{token}'); {sql}"
        return subprocess.Popen(
            [
                self.binary,
                *filter(None, [database and str(database)]),
                "-csv",
                "-cmd" if then else "-c",
                sql,
            ],
            stdin=then,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.defpath},
            text=True,
        )

    def ask(self, sql: str, **options) -> tuple[list[list[str]], str]:
        """Rows without the header, and the error text."""
        out, error = self.start(sql, **options).communicate(timeout=60)
        return list(csv.reader(io.StringIO(out)))[1:], error

    def query_each(self, statements: list[str]) -> tuple[list[list[str]], list[str]]:
        """Rows of all statements without headers, and the error text of each that failed."""
        with self.start("", then=subprocess.PIPE) as client:
            out, error = client.communicate(
                "".join(f"FROM r.query($${sql}$$);\n" for sql in statements), timeout=60
            )
        return list(csv.reader(io.StringIO(out)))[1:], ERROR.split(error)[1:]

    def query(self, sql: str, **options) -> tuple[list[list[str]], str]:
        return self.ask(f"FROM r.query($${sql}$$)", **options)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    """`serve` in another process."""

    def __init__(self, environment, **arguments):
        listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from rasteret_sql.serve import serve; serve({listed})"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.first_line = self.process.stdout.readline()

    def stop(self, number=signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, error = self.process.communicate(timeout=20)
        return self.process.returncode, error


@pytest.fixture(scope="module")
def database(tmp_path_factory, workspace):
    path = tmp_path_factory.mktemp("served") / "farm.duckdb"
    con = rasteret_sql.connect(path, workspace=workspace)
    con.execute("CREATE TABLE plots AS SELECT 7 AS plot")
    con.execute("CREATE SCHEMA lake; CREATE TABLE lake.some AS FROM s2 LIMIT 1")
    con.close()
    return path


@pytest.fixture
def start(environment, workspace):
    servers = []

    def run(**arguments):
        port = free_port()
        given = {"workspace": str(workspace), "port": port, "tokens": {"ann": ANN, "bob": BOB}}
        servers.append(Server(environment, **given, **arguments))
        return servers[-1], Shell(port)

    yield run
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def served(environment, workspace, database):
    """The port of a server of a database, and the address of the map beside it."""
    port = free_port()
    server = Server(
        environment,
        database=str(database),
        workspace=str(workspace),
        port=port,
        http_port=0,
        tokens={"ann": ANN, "bob": BOB},
    )
    assert server.first_line == f"serving quack:localhost:{port}\n"
    yield port, server.process.stdout.readline()
    code, error = server.stop()
    assert code == 0, error
    assert "Traceback" not in error


@pytest.fixture(scope="module")
def shell(served):
    return Shell(served[0])


@pytest.mark.skipif(importlib.util.find_spec("duckdb_cli") is None, reason="needs duckdb-cli")
@pytest.mark.skipif(duckdb.__version__ != "1.5.5", reason="the shell is older than the file")
def test_the_stock_shell_reads_a_collection_from_our_file(database):
    rows, error = Shell().ask("SELECT id, B04_metadata.image_width FROM s2", database=database)
    assert error == ""
    assert sorted(rows) == [[scene, "128"] for scene in SCENES]


@with_quack
def test_pixels_over_quack(shell):
    rows, error = shell.query(PIXELS)
    assert error == ""
    means = [band_pixels(n, "B04")[1:].mean() for n in range(2)]
    assert [row[:2] for row in rows] == [[scene, str(127 * 128)] for scene in SCENES]
    assert [float(row[2]) for row in rows] == pytest.approx(means)


@with_quack
def test_a_subset_as_query_text_and_pure_sql_functions(shell):
    query = "SELECT max(rasteret_ndvi(1, 3)), count(*) FROM rasteret_pixels({})"
    rows, error = shell.query(query.format("'FROM s2 WHERE id LIKE ''S2A%'''"))
    assert (rows, error) == ([["0.5", str(128 * 128)]], "")


@with_quack
def test_collections_are_tables_of_the_attached_server(shell):
    rows, _ = shell.ask('SELECT id FROM r.s2 WHERE "eo:cloud_cover" > 1')
    assert rows == [[list(SCENES)[1]]]


@with_quack
def test_the_database_file_is_there_read_only(shell):
    assert shell.query("SELECT plot FROM farm.plots")[0] == [["7"]]


@with_quack
def test_another_user_and_the_manual(shell):
    rows, _ = shell.query("SELECT count(*) > 10 FROM rasteret_functions()", token=BOB)
    assert rows == [["true"]]


@with_quack
def test_a_wrong_token_is_refused(shell):
    rows, error = shell.query("SELECT 1", token="not-a-secret")
    assert rows == []
    assert "Authentication failed" in error


@with_quack
def test_a_bad_band_is_our_one_line(shell):
    _, error = shell.query("SELECT B99 FROM rasteret_pixels('s2', bands := ['B99'])")
    assert error.startswith(
        "Invalid Input Error: rasteret_pixels: bands: expected one of B04, B08, got 'B99'; "
        "band names are case-sensitive\n"
    )
    assert "At:" not in error


NO_READS = [
    "CREATE TABLE mine AS SELECT 1",
    "SELECT 1; CREATE TABLE mine AS SELECT 1",
    "INSERT INTO farm.plots VALUES (8)",
    "EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1",
    "COPY (SELECT 1) TO 'stolen.csv'",
    "ATTACH ':memory:' AS other",
    "SET threads = 1",
    "INSTALL spatial",
    "PRAGMA database_list",
    "FROM quack_stop('quack:localhost')",
    "FROM query('SELECT 1')",
    "FROM duckdb_secrets()",
    "SELECT _rasteret_bind('rasteret_drop', NULL, NULL)",
]
OF_OTHERS = [
    ("FROM read_text('/etc/hostname')", "file system operations are disabled"),
    ("FROM read_parquet('https://localhost/a.parquet')", "operations are disabled"),
    ("FROM rasteret_plan('/etc/a.parquet')", "file system operations are disabled"),
    ("FROM rasteret_drop('s2')", "expected a function that reads"),
    ("FROM rasteret_plan('FROM rasteret_drop(''s2'')')", "expected a function that reads"),
    ("FROM rasteret_plan('FROM quack_stop(''x'')')", "got 'function quack_stop'"),
    ("FROM rasteret_collections(workspace := '/etc')", "expected the server's own"),
]
MADE_UP = ["/etc/hostname", "file:///etc/hostname", "http://127.0.0.1:9/a"]
"""Addresses of assets."""


def read_made_up(href):
    made_up = f"SELECT * REPLACE ({{B04: {{href: ''{href}'', band_index: 0}}}} AS assets) FROM s2"
    return f"SELECT pixels FROM rasteret_read_tiles('{made_up}', bands := ['B04'])"


@pytest.fixture(scope="module")
def refused(shell):
    """The error of each statement, all asked by one client, which goes on after each."""
    statements = [*NO_READS, *(text for text, _ in OF_OTHERS), *map(read_made_up, MADE_UP)]
    rows, errors = shell.query_each(statements)
    assert rows == []
    assert len(errors) == len(statements)
    return dict(zip(statements, errors, strict=True))


@with_quack
@pytest.mark.parametrize("statement", NO_READS)
def test_what_does_not_read_is_refused(refused, statement):
    assert "Authorization failed" in refused[statement]


@with_quack
def test_a_table_on_the_server_is_refused(shell):
    assert "Authorization failed" in shell.ask("CREATE TABLE r.mine AS SELECT 1 AS a")[1]


@with_quack
@pytest.mark.parametrize(("statement", "expected"), OF_OTHERS)
def test_other_files_and_building_functions_are_refused(refused, statement, expected):
    assert expected in refused[statement]


@with_quack
@pytest.mark.parametrize("href", MADE_UP)
def test_a_made_up_asset_reads_no_other_file_or_server(refused, href):
    error = refused[read_made_up(href)]
    assert f"expected a file where the served collections have theirs, got '{href}'" in error


@with_quack
def test_two_clients_at_once(shell):
    both = [shell.start(f"FROM r.query($${PIXELS}$$)", token=token) for token in (ANN, BOB)]
    answers = [client.communicate(timeout=60) for client in both]
    assert answers[0] == answers[1]
    assert answers[0][0].count("\n") == 3


@with_quack
def test_a_scan_over_the_time_limit_ends(start):
    server, shell = start(time_limit_seconds=0.5)
    began = time.monotonic()
    _, error = shell.query(f"SELECT sum(B04) FROM rasteret_pixels('{MANY}')")
    assert "rasteret_pixels: stopped after 0.5 seconds, the limit of this server; read" in error
    assert time.monotonic() - began < 10
    assert shell.query(PIXELS)[1] == ""
    assert server.stop()[0] == 0


@with_quack
def test_the_map_is_served_beside_quack_to_the_same_users(served, shell):
    name, address = served[1].split()
    assert (name, address.count("?")) == ("map", 0)  # tokens of a file are not printed
    for token, status in ((ANN, 200), (BOB, 200), ("guess", 403)):
        try:
            with urllib.request.urlopen(f"{address}api/collections/s2?token={token}") as answer:
                found, facts = answer.status, json.load(answer)
                assert (facts["name"], facts["records"]) == ("s2", 2)
        except urllib.error.HTTPError as error:
            found = error.code
        assert found == status
    west, south, east, north = facts["bounds"]
    place = f"lon={(west + east) / 2}&lat={(south + north) / 2}"
    query = f"api/collections/s2/point?{place}&expression=B08-B04&token={ANN}"
    with urllib.request.urlopen(address + query) as answer:
        rows = json.load(answer)["rows"]
    assert [2000 < row["value"] < 2200 for row in rows] == [True, True]
    with urllib.request.urlopen(f"{address}tiles/s2/0/0/0.png?bands=B08&token={ANN}") as answer:
        assert answer.read().startswith(b"\x89PNG")
    assert shell.query("SELECT 1")[0] == [["1"]]


@with_quack
def test_the_map_shows_collections_of_the_database_too(served):
    _, address = served[1].split()
    with urllib.request.urlopen(f"{address}api/collections?token={ANN}") as answer:
        assert json.load(answer) == {"collections": ["s2", "farm.lake.some"]}
    with urllib.request.urlopen(f"{address}api/collections/farm.lake.some?token={ANN}") as answer:
        assert json.load(answer)["records"] == 1


@with_quack
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_while_a_client_reads(start, number):
    server, shell = start()
    client = shell.start(f"FROM r.query($$SELECT sum(B04) FROM rasteret_pixels('{MANY}')$$)")
    deadline, began = time.monotonic() + 20, used_seconds(server.process.pid)
    while used_seconds(server.process.pid) < began + 2 and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(0.05)
    code, error = server.stop(number)
    assert (code, error) == (0, "")
    assert client.communicate(timeout=20)[0] == ""


def used_seconds(pid: int) -> float:
    """Processor time that a process has used: two seconds more than to start are of a read."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@with_quack
def test_building_is_possible_where_it_is_allowed(environment, tmp_path, workspace):
    port = free_port()
    tokens = {"ann": ANN}
    server = Server(
        environment,
        workspace=str(tmp_path),
        port=port,
        tokens=tokens,
        allow_building=True,
    )
    shell = Shell(port)
    (source,) = workspace.glob("s2_records/year=2024/month=1/*.parquet")
    (tmp_path / "scenes.parquet").write_bytes(source.read_bytes())
    build = f"FROM rasteret_build_table('copied', '{tmp_path}/scenes.parquet', enrich := true)"
    rows, error = shell.query(f"SELECT records FROM ({build})")
    assert (rows, error) == ([["1"]], "")
    assert shell.query("SELECT count(*) FROM rasteret_pixels('copied')")[0] == [[str(128 * 128)]]
    assert server.stop()[0] == 0


@with_quack
def test_a_taken_port_is_refused(workspace):
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port: expected a free one, not {port}"):
            serve(workspace=workspace, port=port)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"host": "0.0.0.0"},
            "host: expected localhost, got '0.0.0.0'; allow_network .--allow-network. permits it",
        ),
        ({"tokens": {"ann": "short"}}, "token of ann: expected 8 characters or more, got 5"),
        ({"database": "no.duckdb"}, "database: expected a DuckDB file, got 'no.duckdb'"),
    ],
)
def test_arguments_that_do_not_do(workspace, arguments, message):
    with pytest.raises(InputError, match=message):
        serve(workspace=workspace, **arguments)


@pytest.mark.skipif(is_installed("duckdb-extension-quack"), reason="the extension is here")
def test_without_the_extension_it_says_what_to_install(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RasteretError, match="pip install duckdb_extensions duckdb_extension_quack"):
        serve(workspace=workspace, port=free_port())
