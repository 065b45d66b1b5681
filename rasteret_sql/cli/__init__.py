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


class _WithoutPandas:
    """An import hook by which pandas is not installed.

    pyarrow imports it with its first array wherever it is, which takes a third of the time of a
    short command; no command uses it. The library must not do so: its caller may use pandas.
    """

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Refuse pandas, leave all other modules to the next hook."""
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)


def run() -> None:
    """Do what the arguments of this process say; a question of Tab needs few imports."""
    instruction = os.environ.get(VARIABLE, "")
    if instruction.endswith("_complete"):
        from rasteret_sql.cli.known_commands import answer

        sys.exit(answer(instruction))
    sys.meta_path.insert(0, _WithoutPandas())
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
