"""Runs commands of dbt, each in a process of its own, forked from this one: it has imported dbt.

Reads a JSON object per line, with ``arguments``, ``folder``, ``environment`` and ``output`` (a
file for what the command prints), and answers with the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from dbt.cli.main import cli

TIMEOUT_S = 100


def become_dbt(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Run a command in place of this process, as the script ``dbt`` does."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    signal.alarm(TIMEOUT_S)
    sys.argv = ["dbt", *arguments]
    cli()


for line in sys.stdin:
    if (child := os.fork()) == 0:
        become_dbt(**json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
