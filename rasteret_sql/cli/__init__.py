"""The command line, ``rasteret-sql``: every command is SQL underneath."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rasteret_sql.cli.program import main

__all__ = ["PROGRAM", "VARIABLE", "main", "run"]

PROGRAM = "rasteret-sql"
VARIABLE = "_RASTERET_SQL_COMPLETE"
"""Set by a shell that asks what may stand at the cursor."""


def run() -> None:
    """Do what the arguments of this process say; a question of Tab needs few imports."""
    instruction = os.environ.get(VARIABLE, "")
    if instruction.endswith("_complete"):
        from rasteret_sql.cli.known_commands import answer

        sys.exit(answer(instruction))
    try:
        from rasteret_sql.cli.program import main
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)  # `failures.INTERRUPTED`, which may not be imported yet
    main(prog_name=PROGRAM)


def __getattr__(name: str) -> object:
    """Import the commands when they are used: with the functions they take a second."""
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rasteret_sql.cli.program import main

    return main
