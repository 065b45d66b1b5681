"""Run the blocks of a page in order, as a reader types them, and compare what they give.

python tests/docs/pages.py docs/recipes.md FOLDER   # writes what it gives in FOLDER into the page

A fence of kind ``sh``, ``python`` or ``sql`` is run; a fence of kind ``text`` below it is what it
gives. ``<!-- not run: why -->`` in front of a fence: SQL is only bound, Python only compiled.
Blocks that import a package of `OPTIONAL` are left out where it is not installed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

ROOT = Path(__file__).parents[2]
INDENTED = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.MULTILINE)
FENCE = re.compile(
    r"(?P<mark>^<!-- not run: .*? -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
FRAME = ("┌", "├", "└", "+-", "|-", "---")
OPTIONAL = frozenset(
    ("polars", "ibis", "sqlalchemy", "duckdb_engine", "torch", "odc", "rasteret", "xarray", "h3")
)
"""Packages that only documents use. All other imports have to be there."""


class Session:
    """A reader: a folder, a command line, and a Python session with ``con``.

    Args:
        folder: Where the reader types, as a working directory.
        environment: Of commands.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.names: dict[str, Any] = {}
        self._left_out: set[str] = set()

    def run(self, kind: str, text: str) -> str | None:
        """Run a block; what it prints, or its last table. None: it was left out.

        Raises:
            AssertionError: a command failed, or a fence of a kind that is not known.
        """
        if kind == "sh":
            return run(text, self.folder, self.environment)
        if kind == "python":
            if self._needs_what_is_not_there(text):
                return None
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(text, "<page>", "exec"), self.names)
            return printed.getvalue()
        assert kind == "sql", kind
        return [str(self.names["con"].sql(statement)) for statement in statements(text)][-1]

    def _needs_what_is_not_there(self, code: str) -> bool:
        """Whether a block needs a package that is not installed, or a block that did."""
        found, made = used_and_made(code)
        lacking = any(importlib.util.find_spec(n) is None for n in imported(code) & OPTIONAL)
        if not lacking and not found & (self._left_out - self.names.keys()):
            return False
        self._left_out |= made
        return True

    def check(self, kind: str, text: str) -> None:
        """Bind SQL, compile Python, or parse commands; nothing is run."""
        if kind == "python":
            compile(text, "<page>", "exec")
        elif kind == "sql":
            for statement in statements(text):
                self.names["con"].execute(f"EXPLAIN {statement}")
        else:
            subprocess.run(["bash", "-n", "-c", text], check=True, timeout=20)

    def close(self) -> None:
        """Close the session's connection."""
        if "con" in self.names:
            self.names["con"].close()


def run(script: str, folder: Path, environment: dict[str, str]) -> str:
    """Type commands in a folder; what they print.

    Raises:
        AssertionError: one of them failed.
    """
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def with_command(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment with a command ``rasteret-sql`` in this folder, as after an installation."""
    folder.mkdir(parents=True)
    command = folder / "rasteret-sql"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rasteret_sql "$@"\n')
    command.chmod(0o755)
    return environment | {"PATH": f"{folder}:{environment['PATH']}"}


def page_text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """The indented blocks of a page, in order."""
    return [textwrap.dedent(block).strip() for block in INDENTED.findall(page_text(page))]


def block(page: str, start: str) -> str:
    """The one block that begins so."""
    (found,) = [text for text in blocks(page) if text.startswith(start)]
    return found


def imported(code: str) -> set[str]:
    """Top-level packages that a piece of Python imports, or needs for ``to_xarray``.

    Example:
        >>> sorted(imported("import numpy as np; from odc.stac import load"))
        ['numpy', 'odc']
    """
    found = {"xarray"} if "to_xarray(" in code else set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def used_and_made(code: str) -> tuple[set[str], set[str]]:
    """Names that a piece of Python reads, and names that it makes.

    Example:
        >>> used_and_made("import ibis\\nt = ibis.table(q)")[1] == {"ibis", "t"}
        True
    """
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    made |= {alias.asname or alias.name for node in nodes
             if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}  # fmt: skip
    return used, made | {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def statements(script: str) -> list[str]:
    """Statements of a script; a dollar-quoted text may hold semicolons."""
    return [one.query for one in duckdb.extract_statements(script)]


def outcomes(page: str, session: Session) -> Iterator[tuple[re.Match[str], str | None]]:
    """Run a page; each fence of kind ``text``, with what stands above it gave."""
    found: str | None = None
    for fence in FENCE.finditer(page):
        kind, text = fence["kind"], fence["text"]
        if kind == "text":
            yield fence, found
        elif fence["mark"]:
            session.check(kind, text)
            found = None
        else:
            try:
                found = session.run(kind, text)
            except Exception as error:
                error.add_note(f"in the block:\n{text}")
                raise


def cells(drawn: str) -> list[list[str]]:
    """What a table holds, or the words of lines; frames differ between versions of DuckDB.

    Example:
        >>> cells("┌───┐\\n│ n │\\n├───┤\\n│ 6 │\\n└───┘")
        [['n'], ['6']]
    """
    lines = [line.strip().strip("│").strip() for line in drawn.strip().splitlines()]
    return [re.split(r"\s*│\s*|\s+", line) for line in lines if not line.startswith(FRAME)]


def write(path: Path, folder: Path) -> None:
    """Run a page and put what it gives into its fences of kind ``text``."""
    page = path.read_text(encoding="utf-8")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    session = Session(folder, environment)
    os.chdir(folder)
    parts, end = [], 0
    for fence, found in outcomes(page, session):
        if found is not None:
            parts += [page[end : fence.start("text")], found.rstrip() + "\n"]
            end = fence.end("text")
    session.close()
    path.write_text("".join([*parts, page[end:]]), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
