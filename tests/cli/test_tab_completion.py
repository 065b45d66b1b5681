"""What Tab offers: by the protocol of each shell, and in a real bash."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import rasteret_sql
from rasteret_sql.cli import known_commands, main
from rasteret_sql.cli.tab_completion import SHELLS

pytestmark = pytest.mark.any_duckdb

ROOT = Path(__file__).parents[2]


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
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in variables.items():
                patch.setenv(name, value)
            assert known_commands.answer("bash_complete") == 0
        return out.getvalue().split()

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
        (("zonal", "s2", "--stats", "mean,me"), ["plain,mean,median"]),
        (("preview", "s2", "out", "--colormap", "vi"), ["plain,viridis"]),
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


def test_the_known_commands_are_those_there_are():
    stale = "python -m rasteret_sql.cli.known_commands > rasteret_sql/cli/commands.jsonl"
    kept = known_commands.FILE.read_text(encoding="utf-8").splitlines()
    assert kept == list(known_commands.written(main)), stale


def lines():
    """Lines to complete: each command, each option begun, and the value of each."""
    for text in map(known_commands.json.loads, known_commands.written(main)):
        words = text["command"].split()
        yield words, ""
        yield words, "--"
        for one in text["parameters"]:
            if "flags" in one and not one.get("is_flag"):
                yield [*words, one["flags"][0]], ""


def test_what_is_known_offers_what_the_commands_would(built, monkeypatch):
    monkeypatch.setenv("RASTERET_WORKSPACE", str(built))
    quick, whole = (ShellComplete(one, {}, "", "") for one in (known_commands.read(), main))
    n_offered = 0
    for words, begun in lines():
        expected = [(one.type, one.value) for one in whole.get_completions(words, begun)]
        assert [(one.type, one.value) for one in quick.get_completions(words, begun)] == expected
        n_offered += len(expected)
    assert n_offered > 400


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("coll",), set()),
        (("sample", "s"), set()),
        (("sample", "s2", "--"), set()),
        (("functions", "composi"), set()),
        (("sample", "s2", "--bands", ""), {"pyarrow"}),
    ],
)
def test_a_tab_imports_little(built, words, needed):
    code = (
        "import atexit, sys; from rasteret_sql.cli import run\n"
        "heavy = {'duckdb', 'pyarrow', 'shapely', 'obstore', 'imagecodecs', 'pyproj'}\n"
        "atexit.register(lambda: print(*heavy & {*sys.modules}, file=sys.stderr))\n"
        "run()"
    )
    variables = {
        "_RASTERET_SQL_COMPLETE": "bash_complete",
        "COMP_WORDS": shlex.join(("rasteret-sql", *words)),
        "COMP_CWORD": str(len(words)),
        "RASTERET_WORKSPACE": str(built),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout
    assert set(done.stderr.split()) == needed


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


def test_a_real_fish_completes(program, built):
    """`complete -C` answers as Tab does."""
    fish = _shell("fish")
    lines = "zon", "sample s", "sample s2 --bands B04,", "collections re", "query x --output pyp"
    asked = "".join(f"complete -C {shlex.quote(f'rasteret-sql {one}')}; echo;" for one in lines)
    done = subprocess.run(
        [fish, "--no-config", "-c", f"rasteret-sql completion fish | source; {asked}"],
        env=_environment(program, built), cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert [part.split("\n") for part in done.stdout.strip().split("\n\n")] == [
        ["zonal\tCompute statistics of COLLECTION in ZONES, a row per zone, record and band."],
        ["s2"],
        ["B04,B08", "B04,SCL"],
        ["refresh\tRun the build of the collection NAME again for what is new."],
        ["pyproject.toml"],
    ], done.stderr


ZSH = """
fpath=({folder} $fpath)
autoload -Uz compinit && compinit -u -D
{setup}
tell() {{ print -r -- "<$BUFFER>"; zle kill-whole-line; zle redisplay }}
zle -N tell
bindkey '^T' tell
PS1='READY '
"""


@pytest.mark.parametrize("way", ["eval", "fpath"])
def test_a_real_zsh_completes(program, built, tmp_path, way):
    zsh = _shell("zsh")
    setup = 'eval "$(rasteret-sql completion zsh)"' if way == "eval" else ""
    if way == "fpath":
        with (tmp_path / "_rasteret-sql").open("w") as file:
            subprocess.run(
                [program / "rasteret-sql", "completion", "zsh"],
                stdout=file,
                check=True,
                timeout=60,
                cwd=ROOT,
            )
    (tmp_path / ".zshrc").write_text(ZSH.format(folder=tmp_path, setup=setup))
    environment = _environment(program, built) | {"ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    with terminal([zsh, "-i"], environment) as (send, wait):
        wait("READY ")
        for typed, whole in (
            ("zon", "zonal "),
            ("sample s", "sample s2 "),
            ("sample s2 --bands SCL,B04,", "sample s2 --bands SCL,B04,B08 "),
            ("sample s2 --return-n", "sample s2 --return-neighbourhood "),
            ("collections ref", "collections refresh "),
            ("query x --output pyp", "query x --output pyproject.toml "),
        ):
            send(f"rasteret-sql {typed}\t\x14")
            assert wait(">")[1:].rpartition("<")[2] == f"rasteret-sql {whole}>"
        send("rasteret-sql d\t")
        wait("Check the installation, the workspace")  # told beside what is offered


def _shell(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _environment(program, built):
    path = f"{program}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {
        "PATH": path, "RASTERET_WORKSPACE": str(built), "PYTHONPATH": str(ROOT)
    }  # fmt: skip


@contextlib.contextmanager
def terminal(command, environment):
    """Run a program on a terminal; send it keys, wait for what it writes."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execve(command[0], command, environment)
    written = ""

    def wait(text):
        """What was written since the last wait, through this text."""
        nonlocal written
        until = time.monotonic() + 60
        while text not in written:
            assert time.monotonic() < until, written
            if select.select([terminal], [], [], 0.1)[0]:
                written += os.read(terminal, 65536).decode(errors="replace")
                written = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\b]", "", written)
        before, _, written = written.partition(text)
        return before + text

    try:
        yield lambda keys: os.write(terminal, keys.encode()), wait
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
