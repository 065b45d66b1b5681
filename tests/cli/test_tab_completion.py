"""What Tab offers: by the protocol of each shell, and in a real bash."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

import rasteret_sql
from rasteret_sql.cli import main
from rasteret_sql.cli.tab_completion import SHELLS

pytestmark = pytest.mark.any_duckdb


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A folder with the command `rasteret-sql`, as pip would install it."""
    folder = tmp_path_factory.mktemp("bin")
    path = folder / "rasteret-sql"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rasteret_sql "$@"\n')
    path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def database(tmp_path_factory, built):
    path = tmp_path_factory.mktemp("file") / "farm.duckdb"
    with rasteret_sql.connect(path, workspace=built) as con:
        con.execute("CREATE SCHEMA lake; CREATE TABLE lake.fields AS SELECT 1 AS id")
        con.execute(
            'CREATE TABLE wells AS SELECT 1 AS id; CREATE TABLE "odd name" AS SELECT 1 AS i'
        )
    return path


@pytest.fixture(scope="module")
def offered(built):
    """What bash would be told of the words of a line; the last one is not yet whole.

    In this process: `test_a_real_bash_completes` starts the program.
    """

    def ask(*words):
        variables = {
            "_RASTERET_SQL_COMPLETE": "bash_complete",
            "COMP_WORDS": shlex.join(("rasteret-sql", *words)),
            "COMP_CWORD": str(len(words)),
            "RASTERET_WORKSPACE": str(built),
        }
        done = CliRunner().invoke(main, prog_name="rasteret-sql", env=variables)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout.split()

    return ask


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("coll",), ["plain,collections"]),
        (("collections", "re"), ["plain,refresh"]),
        (("collections", "info", ""), ["plain,s2"]),
        (("sample", "s"), ["plain,s2"]),
        (("sample", "some/pa"), ["file,some/pa"]),
        (("sample", "s2", "we"), ["file,we"]),
        (("sample", "s2", "--bands", ""), ["plain,B04", "plain,B08", "plain,SCL"]),
        (("sample", "s2", "--bands", "B08,"), ["plain,B08,B04", "plain,B08,SCL"]),
        (("sample", "s2", "--bands", "SCL,B"), ["plain,SCL,B04", "plain,SCL,B08"]),
        (("zonal", "s2", "--on-error", ""), ["plain,error", "plain,null", "plain,report"]),
        (("query", "SELECT 1", "--format", "par"), ["plain,parquet"]),
        (("query", "SELECT 1", "--output", "o"), ["file,o"]),
        (("map", "--workspace-dir", "w"), ["dir,w"]),
        (("map", "s2", ""), ["plain,s2"]),
        (("collections", "build", "new", "--stac-api", "it"), ["file,it"]),
        (("collections", "build", "new", "--data-source", "earthsearch/sentinel-2-l2a"),
         ["plain,earthsearch/sentinel-2-l2a"]),
        (("datasets", "info", "earthsearch/sentinel-2-l"), ["plain,earthsearch/sentinel-2-l2a"]),
        (("functions", "rasteret_comp"), ["plain,rasteret_compare_to_catalog",
                                          "plain,rasteret_composite"]),
        (("functions", "composi"), ["plain,composite"]),
        (("completion", ""), [f"plain,{shell}" for shell in SHELLS]),
    ],
)  # fmt: skip
def test_what_bash_is_told(offered, words, found):
    assert offered(*words) == found


def test_tables_of_a_database_are_offered(offered, database):
    options = "--database", str(database)
    assert offered("map", *options, "l") == ["plain,lake.fields"]
    assert offered("sample", *options, "s2", "w") == ["plain,wells"]
    assert offered("map", *options, "") == ["plain,lake.fields", "plain,s2", "plain,wells"]


def test_a_database_that_is_no_file_or_no_workspace_ends_in_no_error(offered, tmp_path):
    broken = tmp_path / "broken.duckdb"
    broken.write_text("no database" * 1000)
    for path in (broken, tmp_path / "none.duckdb"):
        assert offered("map", "--database", str(path), "s") == ["plain,s2"]
    nowhere = "--workspace-dir", str(tmp_path / "none")
    assert offered("collections", "info", *nowhere, "s") == []
    assert offered("sample", *nowhere, "s2", "--bands", "") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell(command, shell):
    script = command("completion", shell).stdout
    assert f"_RASTERET_SQL_COMPLETE={shell}_complete" in script
    other = shutil.which(shell)
    if other:
        subprocess.run([other, "-n"], input=script, text=True, check=True, timeout=30)


def test_a_value_of_fish_may_hold_commas(command):
    assert 'string split -m 1 ","' in command("completion", "fish").stdout


def test_other_shells_are_refused(command):
    done = command("completion", "tcsh")
    assert done.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in done.output


BASH = """
eval "$(rasteret-sql completion bash)"
complete -p rasteret-sql
ask() {
    COMP_WORDS=(rasteret-sql "$@"); COMP_CWORD=$#; COMPREPLY=()
    compopt() { local IFS=' '; echo "compopt $*"; }
    _rasteret_sql_completion rasteret-sql 2>&1
    echo "$1: ${COMPREPLY[*]}"
}
ask zon
ask sample s
ask sample s2 --bands B04,
ask query x --output o
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_real_bash_completes(program, built):
    path = f"{program}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH],
        env=os.environ | {"PATH": path, "RASTERET_WORKSPACE": str(built)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "complete -o nosort -F _rasteret_sql_completion rasteret-sql",
        "zon: zonal",
        "sample: s2",
        "sample: B04,B08 B04,SCL",
        "compopt -o default",
        "query: ",
    ], done.stderr
