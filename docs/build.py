"""Write what is generated: macros in sql/, README's function table and docs/functions.md.

Run ``python docs/build.py``; a test fails when one is stale. The macros of table functions
come from their declarations, `rasteret_sql.duck.declarations`; table and page come from the
comments in ``sql/``, through `rasteret_functions()`.
"""

from __future__ import annotations

from pathlib import Path

import rasteret_sql
from rasteret_sql.duck import functions as functions  # declares them
from rasteret_sql.duck.declarations import sql_file
from rasteret_sql.duck.macros import SQL_FILES

ROOT = Path(__file__).parents[1]
HEAD = """\
# Functions

Arguments are constants: literals, prepared parameters (`?`, `$1`) or `getvariable('x')`, after
`SET VARIABLE x = (SELECT …)`. Columns and subqueries are refused by DuckDB. What takes many values
at once takes a relation by its name, as `aois` of the reads. A parameter of your own macro needs
its type there: `geometry := area::VARCHAR`. How the reads are used: [reading.md](reading.md).

Written by `docs/build.py` from the comments in `sql/`.
"""
BEGIN = "<!-- functions: written by docs/build.py -->"
END = "<!-- end of functions -->"


def manual() -> list[tuple[str, str, str, str, str]]:
    """Name, kind, signature, description and manual text of every public function."""
    con = rasteret_sql.connect(workspace="/nonexistent")
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
