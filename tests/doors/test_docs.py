"""What the pages of docs/ tell to type is typed here, as it stands there."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest
from doors.scenes import ROOT, is_installed
from doors.test_serve import Shell, free_port, with_quack

import rasteret_sql
from rasteret_sql.demo import write_scenes

INDENTED = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.MULTILINE)
FENCED = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FRAME = ("┌", "├", "└")
PORT = "9494"
RUN_BY_THEIR_TESTS = ("points.md", "reading.md", "zones.md")
"""Pages whose statements are run in order, by the tests of what they tell of."""

with_dbt = pytest.mark.skipif(
    not is_installed("dbt-core", "dbt-duckdb"), reason="dbt-core and dbt-duckdb are not installed"
)


def blocks(page: str) -> list[str]:
    """The indented blocks of a page, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [textwrap.dedent(block).strip() for block in INDENTED.findall(text)]


def block(page: str, start: str) -> str:
    """The one block that begins so."""
    (found,) = [text for text in blocks(page) if text.startswith(start)]
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder with the examples and a command `rasteret-sql`, as after an installation."""
    folder = tmp_path_factory.mktemp("checkout")
    ours = shutil.ignore_patterns("target", "logs", "*.duckdb")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=ours)
    command = folder / "bin" / "rasteret-sql"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rasteret_sql "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def at_home(checkout, environment) -> dict[str, str]:
    """The environment, with that command and a home of its own."""
    path = f"{checkout / 'bin'}:{environment['PATH']}"
    return environment | {"PATH": path, "HOME": str(checkout)}


def run(script: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.any_duckdb
@with_dbt
def test_the_example_of_dbt_md(checkout, at_home):
    output = run(block("dbt.md", "rasteret-sql demo"), checkout, at_home)
    assert re.search(r"PASS=17 WARN=0 ERROR=0", output)
    query = re.search(r'-c "(.*)"', block("dbt.md", "duckdb fields.duckdb"))[1]
    with duckdb.connect(str(checkout / "examples/dbt/fields.duckdb"), read_only=True) as con:
        days = [str(row[0])[:10] for row in con.execute(query).fetchall()]
    assert sorted(days) == ["2024-01-10", "2024-01-10", "2024-03-10", "2024-03-10"]


@pytest.mark.any_duckdb
@with_dbt
def test_a_project_of_the_pieces_of_dbt_md(checkout, at_home):
    project = checkout / "pieces"
    (project / "models").mkdir(parents=True)
    shutil.copy(ROOT / "examples/dbt/dbt_project.yml", project)
    profile = (ROOT / "examples/dbt/profiles.yml").read_text(encoding="utf-8")
    before = profile[: profile.index("      plugins:")]
    plugins = textwrap.indent(block("dbt.md", "plugins:"), " " * 6)
    (project / "profiles.yml").write_text(f"{before}{plugins}\n")
    (project / "models" / "sources.yml").write_text(block("dbt.md", "sources:") + "\n")
    models = [text for text in blocks("dbt.md") if text.startswith("-- ")]
    pieces = [part for text in models for part in re.split(r"\n(?=-- \w+\.sql\n)", text)]
    for piece in pieces:
        name = re.match(r"-- (\w+\.sql)\n", piece)[1]
        kind = "incremental" if "is_incremental" in piece else "table"
        config = f"{{{{ config(materialized='{kind}') }}}}\n"
        (project / "models" / name).write_text(config + piece + "\n")
    script = "rasteret-sql demo --folder ~/demo && ln -sfn ~/demo/workspace ~/rasteret_workspace"
    run(f"{script} && cd pieces && dbt build --profiles-dir . --vars '{{}}'", checkout, at_home)
    with duckdb.connect(str(project / "fields.duckdb"), read_only=True) as con:
        counts = "SELECT (SELECT count(*) FROM ndvi_by_scene), (SELECT count(*) FROM red_by_scene)"
        assert con.execute(counts).fetchall() == [(4, 4)]


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
def test_every_statement_of_reading_md_gives_what_stands_below_it(
    checkout, at_home, tmp_path, monkeypatch
):
    page = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
    (demo,) = re.findall(r"`(rasteret-sql demo [^`]*)`", page)
    run(demo, tmp_path, at_home)
    monkeypatch.chdir(tmp_path)
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
def test_every_fenced_statement_binds(statement, tmp_path):
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    con.execute("CREATE TABLE scenes_table AS SELECT 'a' AS scene, now() AS taken, 'x.tif' AS url")
    if "rasteret_build" not in statement:  # then the collection stands
        items = str(write_scenes(tmp_path / "scenes"))
        con.execute("FROM rasteret_build_stac('fields', stac_api := $1)", [items]).fetchall()
    try:
        con.execute("EXPLAIN " + statement.replace("'s3://bucket/index.parquet'", "'scenes_table'"))
    finally:
        con.close()
