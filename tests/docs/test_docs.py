"""What the pages of docs/ tell to type is typed here, as it stands there."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import subprocess
from pathlib import Path

import duckdb
import pytest
from docs.pages import block, run, with_command
from docs.test_pages import PAGES
from scenes import ROOT
from serve.test_serve import Shell, free_port, with_quack

import rasteret_sql

FENCED = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FRAME = ("┌", "├", "└")
PORT = "9494"
SCENES_TABLE = "CREATE TABLE scenes_table AS SELECT 'a' AS scene, now() AS taken, 'x.tif' AS url"
RUN_BY_THEIR_TESTS = ("points.md", "reading.md", "zones.md", *PAGES)
"""Pages whose statements are run in order, by the tests of what they tell of."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with a command `rasteret-sql`, as after an installation."""
    return tmp_path_factory.mktemp("checkout")


@pytest.fixture(scope="module")
def at_home(checkout, environment) -> dict[str, str]:
    """The environment, with that command and a home of its own."""
    return with_command(checkout / "bin", environment) | {"HOME": str(checkout)}


@with_quack
def test_the_server_and_the_client_of_serve_md(checkout, at_home):
    commands = block("serve.md", "rasteret-sql demo").splitlines()
    folder = checkout / "serving"
    folder.mkdir()
    run("\n".join(commands[:-1]), folder, at_home)
    port = free_port()
    server = subprocess.Popen(
        ["bash", "-c", f"exec {commands[-1]} --port {port}"],
        cwd=folder,
        env=at_home,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout.readline() == f"serving quack:localhost:{port}\n"
        client = block("serve.md", "LOAD httpfs").replace(PORT, str(port))
        loads, attach, *queries = [part.strip() for part in split(client)]
        assert loads.startswith("LOAD")
        token = re.search(r"TOKEN '([^']+)'", ";".join([attach, *queries]))[1]
        asked = [text for text in queries if not text.startswith(("LOAD", "ATTACH"))]
        answers = [Shell(port).ask(query, token=token) for query in asked]
        assert [error for _, error in answers] == [""] * 3
        assert [len(rows) > 1 for rows, _ in answers] == [True] * 3
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
    assert server.returncode == 0


def split(script: str) -> list[str]:
    """Statements of a script; a dollar-quoted text may hold semicolons."""
    return [one.query for one in duckdb.extract_statements(script)]


@pytest.mark.filterwarnings("ignore::rasteret_sql.errors.RasteretWarning")
def test_every_statement_of_reading_md_gives_what_stands_below_it(reader):
    page = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
    assert re.findall(r"`(rasteret-sql demo [^`]*)`", page) == ["rasteret-sql demo --folder ."]
    names: dict = {}
    found, checked = None, 0
    for kind, text in ANY_FENCE.findall(page):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(text, names)
            found = printed.getvalue()
        elif kind == "sql":
            found = [str(names["con"].sql(statement)) for statement in split(text)][-1]
        else:
            assert cells(found) == cells(text), text
            checked += 1
    assert checked >= 20
    con = names["con"]
    with pytest.raises(duckdb.Error, match="Overflow in subtraction of UINT16"):
        con.execute("SELECT min(B08 - B04) FROM rasteret_pixels('s2')").fetchall()
    for column in ("geometry := geometry", "geometry := f.geometry"):
        with pytest.raises(duckdb.Error):
            con.execute(f"FROM fields f, rasteret_pixels('s2', {column})")
    con.close()


def cells(drawn: str) -> list[list[str]]:
    """What a table holds; the versions of DuckDB draw its frame alike, but for widths."""
    lines = [line.strip().strip("│") for line in drawn.strip().splitlines()]
    return [re.split(r"\s*│\s*", line.strip()) for line in lines if not line.startswith(FRAME)]


@pytest.fixture(scope="module")
def before_a_build(tmp_path_factory):
    """A connection without a collection."""
    with rasteret_sql.connect(workspace=tmp_path_factory.mktemp("empty")) as con:
        con.execute(SCENES_TABLE)
        yield con


@pytest.fixture(scope="module")
def after_a_build(demo, tmp_path_factory):
    """A connection with the collection `fields`."""
    with rasteret_sql.connect(workspace=tmp_path_factory.mktemp("fields")) as con:
        con.execute(SCENES_TABLE)
        items = str(demo / "scenes" / "items.json")
        con.execute("FROM rasteret_build_stac('fields', stac_api := $1)", [items]).fetchall()
        yield con


@pytest.mark.parametrize(
    "statement",
    [
        statement
        for page in sorted((ROOT / "docs").glob("*.md"))
        if page.name not in RUN_BY_THEIR_TESTS
        for text in FENCED.findall(page.read_text(encoding="utf-8"))
        for statement in split(text)
    ],
)
def test_every_fenced_statement_runs_or_binds_where_it_needs_the_network(
    statement, before_a_build, after_a_build
):
    con = before_a_build if "rasteret_build" in statement else after_a_build
    verb = "EXPLAIN " if "://" in statement else ""
    text = statement.replace("'s3://bucket/index.parquet'", "'scenes_table'")
    con.execute(verb + text).fetchall()
