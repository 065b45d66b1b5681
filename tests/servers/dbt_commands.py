"""A command ``dbt`` that begins at once: a process forked from one that has dbt imported and warm.

``python dbt_commands.py SOCKET`` listens until its input ends. A request is a JSON object on a
line, with the arguments of `ask`, which makes one. `COMMAND` is a script ``dbt`` of shells that
makes one too.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
from pathlib import Path

TIMEOUT_S = 100

COMMAND = """\
#!{python} -IS
import json, os, runpy, sys
ask = runpy.run_path({file!r})["ask"]
code, printed = ask({address!r}, sys.argv[1:], os.getcwd(), dict(os.environ), cleans=False)
print(printed, end="")
sys.exit(code)
"""

PROJECT = {
    "dbt_project.yml": "{name: warm, profile: warm, flags: {send_anonymous_usage_stats: false}}",
    "profiles.yml": "warm: {target: dev, outputs: {dev: {type: duckdb, path: warm.duckdb}}}",
    "models/a.sql": "{{ config(materialized='incremental') }} FROM {{ source('s', 't') }}",
    "models/all.yml": "{models: [{name: a, columns: [{name: n, data_tests: [not_null]}]}], "
    "sources: [{name: s, tables: [{name: t}]}], "
    "exposures: [{name: e, type: ml, owner: {name: me}}]}",
    "seeds/b.csv": "n\n1\n",
    "tests/c.sql": "FROM {{ ref('a') }}",
}
"""Of every kind that the tests have; what dbt knows of kinds it works out at the first of each."""


def ask(
    address: str,
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    *,
    cleans: bool,
) -> tuple[int, str]:
    """Run a command; its exit code, and what it printed.

    Args:
        cleans: It frees all at its end, which takes a second, and tells what stays for good.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address)
        call = {
            "arguments": arguments,
            "folder": folder,
            "environment": environment,
            "cleans": cleans,
        }
        asking.sendall(json.dumps(call).encode() + b"\n")
        with asking.makefile(encoding="utf-8") as answer:
            code, printed = json.load(answer)
    return code, printed


def warm() -> None:
    """Import and work out what every command does first."""
    import duckdb
    from dbt.cli.main import dbtRunner

    import rasteret_sql.dbt  # noqa: F401
    from rasteret_sql.duck import functions  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        for name, text in PROJECT.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        place = ["--project-dir", folder, "--profiles-dir", folder]
        # the static parser has threads, which a fork loses
        done = dbtRunner().invoke(["--quiet", "--no-static-parser", "parse", *place])
    if not done.success:
        raise SystemExit(f"the project to begin with: {done.exception}")
    duckdb.default_connection().close()  # in 1.5 it has threads, which a fork loses
    gc.freeze()


def become_dbt(
    output: int, arguments: list[str], folder: str, environment: dict[str, str], *, cleans: bool
) -> None:
    """Run a command in place of this process, as the script ``dbt`` does."""
    from dbt.cli.main import cli

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.alarm(TIMEOUT_S)
    sys.argv = ["dbt", *arguments]
    try:
        cli()
    except SystemExit as end:
        if not cleans:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        gc.unfreeze()
        raise


def main(address: str) -> None:
    """Answer one request after the other."""
    warm()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    print("ready", flush=True)
    while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
        asked, _ = listening.accept()
        with asked, asked.makefile(encoding="utf-8") as lines, tempfile.TemporaryFile() as output:
            call = json.loads(lines.readline())
            if (child := os.fork()) == 0:
                become_dbt(output.fileno(), **call)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            printed = output.read().decode()
            asked.sendall(json.dumps([code, printed]).encode())
    gc.unfreeze()  # what stays for good is told at the end


if __name__ == "__main__":
    main(sys.argv[1])
