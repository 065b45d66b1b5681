"""Every command explains itself, and docs/cli.md says the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

import rasteret_sql
from rasteret_sql.cli.reference import commands, reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.any_duckdb
def test_the_page_is_up_to_date():
    assert PAGE.read_text() == reference(), "python -m rasteret_sql.cli.reference > docs/cli.md"


@pytest.mark.any_duckdb
@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_and_option_has_help(name, command):
    found = dict(commands())[name]
    assert found.help
    for option in found.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
    done = command(*name.split()[1:], "--help")
    assert done.exit_code == 0
    assert found.help.split(".")[0].split()[0] in done.stdout


@pytest.mark.any_duckdb
def test_the_first_help_says_what_each_command_does_and_how_to_start(command):
    text = " ".join(command("--help").stdout.split())
    assert "rasteret-sql demo --folder . " in text
    assert (
        "zonal Compute statistics of COLLECTION in ZONES, a row per zone, record and band." in text
    )
    assert "..." not in text.partition("Commands:")[2]
    text = " ".join(command("collections", "--help").stdout.split())
    assert "build Build a collection NAME from STAC: metadata and headers of every asset." in text


def test_functions_lists_and_explains_what_the_database_has(command, tmp_path):
    with rasteret_sql.connect(workspace=tmp_path) as con:
        known = con.sql("SELECT name FROM rasteret_functions()").fetchall()
    done = command("functions")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [name for (name,) in known]
    for name in ("rasteret_pixels", "pixels"):
        text = command("functions", name).stdout
        assert text.startswith("rasteret_pixels(collection, bands")
        assert "all_touched" in text
    assert command("functions", "nope").exit_code == 1


@pytest.mark.any_duckdb
def test_the_version_is_the_package_s(command):
    version = rasteret_sql.__version__
    assert command("--version").stdout == f"rasteret-sql, version {version}\n"


@pytest.mark.any_duckdb
def test_to_write_the_page_leaves_the_options_for_help_as_they_are():
    code = (
        "from rasteret_sql.cli import main; from rasteret_sql.cli.reference import reference; "
        "reference(); main(['collections', 'list', '-h'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "List the collections" in done.stdout
