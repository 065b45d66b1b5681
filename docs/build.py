"""Write what is generated: macros in sql/, README's table, docs/functions.md and docs/python.md.

Run ``python docs/build.py``; a test fails when one is stale. The macros of table functions
come from their declarations, `rasteret_sql.duck.declarations`; table and page come from the
comments in ``sql/``, through `rasteret_functions()`; docs/python.md from docstrings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import rasteret_sql
from rasteret_sql import errors
from rasteret_sql.duck import functions as functions  # declares them
from rasteret_sql.duck.declarations import sql_file
from rasteret_sql.duck.macros import SQL_FILES
from rasteret_sql.remote.config import StorageOptions

ROOT = Path(__file__).parents[1]
HEAD = """\
# Functions

Arguments are constants: literals, prepared parameters (`?`, `$1`) or `getvariable('x')`, after
`SET VARIABLE x = (SELECT …)`. Columns and subqueries are refused by DuckDB. What takes many values
at once takes a relation by its name, as `aois` of the reads. A parameter of your own macro needs
its type there: `geometry := area::VARCHAR`. How the reads are used: [reading.md](reading.md).

Written by `docs/build.py` from the comments in `sql/`.
"""
PYTHON_HEAD = """\
# Python

The work is done in SQL; these are the few names of the package `rasteret_sql`. How results become
frames and arrays: [frames.md](frames.md) and [arrays.md](arrays.md). How `storage` is used:
[storage.md](storage.md).

Written by `docs/build.py` from the docstrings.
"""
BEGIN = "<!-- functions: written by docs/build.py -->"
END = "<!-- end of functions -->"


def manual() -> list[tuple[str, str, str, str, str]]:
    """Name, kind, signature, description and manual text of every public function."""
    con = rasteret_sql.connect()
    rows = con.execute(
        "SELECT name, kind, signature, description, manual FROM rasteret_functions() "
        "ORDER BY kind DESC, name"
    ).fetchall()
    con.close()
    return rows


def table() -> str:
    """The functions as a Markdown table."""
    lines = [BEGIN, "", "| function | what it does |", "| --- | --- |"]
    lines += [f"| `{name}` | {description} |" for name, _, _, description, _ in manual()]
    return "\n".join([*lines, "", END])


def reference() -> str:
    """The whole manual as Markdown."""
    parts = [HEAD]
    for name, _, signature, _, text in manual():
        parts.append(f"## {name}\n\n`{signature}`\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(parts)


def python_functions() -> list[str]:
    """Names of the public functions of the package."""
    return [n for n in rasteret_sql.__all__ if inspect.isfunction(getattr(rasteret_sql, n))]


def signature(name: str, function: Callable[..., object]) -> str:
    """A call with a line for each parameter."""
    lines, seen_star = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not seen_star:
            lines.append("*")
            seen_star = True
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"{stars}{parameter.name}: {parameter.annotation}{default}")
    return "\n".join([f"{name}(", *(f"    {line}," for line in lines), ")"])


def error_classes() -> list[type[BaseException]]:
    """The public errors and warnings, bases first."""
    known = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    return sorted(known, key=lambda one: (issubclass(one, Warning), len(one.__mro__), one.__name__))


def python_reference() -> str:
    """The docstrings of the Python package as Markdown."""
    parts = [PYTHON_HEAD]
    for name in python_functions():
        function = getattr(rasteret_sql, name)
        text = inspect.getdoc(function)
        call = signature(name, function)
        parts.append(f"## rasteret_sql.{name}\n\n```text\n{call}\n```\n\n```text\n{text}\n```\n")
        if name == "storage":
            options = inspect.getdoc(StorageOptions)
            parts.append(f"### Options of storage\n\n```text\n{options}\n```\n")
    parts.append("## rasteret_sql.errors\n\n| class | of | when |\n| --- | --- | --- |")
    for one in error_classes():
        bases = ", ".join(f"`{base.__name__}`" for base in one.__bases__)
        first = (inspect.getdoc(one) or "").partition("\n\n")[0].replace("\n", " ")
        parts.append(f"| `{one.__name__}` | {bases} | {first} |")
    return "\n".join(parts) + "\n"


def readme(text: str) -> str:
    """The README with its table renewed."""
    before, rest = text.split(BEGIN)
    return before + table() + rest.split(END)[1]


if __name__ == "__main__":
    for name in SQL_FILES:
        (ROOT / "sql" / name).write_text(sql_file(name), encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "docs" / "functions.md").write_text(reference(), encoding="utf-8")
    (ROOT / "docs" / "python.md").write_text(python_reference(), encoding="utf-8")
