"""Whether a relation's year and month are those of its datetime, so that they may stand for it.

DuckDB skips hive folders by a condition on year and month, not by one on datetime. A view
or query over a collection may give datetime other values and keep the folders' keys, as
``SELECT * REPLACE (… AS datetime)`` does: then only datetime counts. This is found out
from SQL text alone, and where that is not clear the answer is no, which costs speed only.
"""

from __future__ import annotations

import re

import duckdb

_LITERAL = re.compile(r"'(?:[^']|'')*'")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_COMPARED = r"(?!\"?\s*(?:=|<|>|!=|in\b|between\b|not\b|is\b))"
_OTHER_USE = re.compile(rf"\b(?:datetime|year|month)\b{_COMPARED}", re.IGNORECASE)
_COLLECTION = re.compile(r"^CREATE VIEW .* AS SELECT \* FROM read_parquet\(", re.IGNORECASE)
_ONE_FILE = re.compile(r"[^*]\.parquet\b", re.IGNORECASE)  # its keys are columns like any other
_SELECT = re.compile(r"\bSELECT\b", re.IGNORECASE)


def follow_datetime(con: duckdb.DuckDBPyConnection, text: str, *, is_query: bool) -> bool:
    """Whether year and month can be relied on.

    Args:
        con: Knows the views and tables.
        text: The relation argument: query text, a name or a path.
        is_query: It is query text.
    """
    tables = con.execute(
        "SELECT DISTINCT table_name FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) WHERE column_name = 'datetime'"
    ).fetchall()
    views = con.execute("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal").fetchall()
    if any(_names(text, name) for (name,) in tables):
        return False
    if _ONE_FILE.search(text) or (is_query and _may_change(text)):
        return False
    left, seen = [text], set[str]()
    while left:
        looked_at = left.pop()
        for name, sql in views:
            if sql in seen or not _names(looked_at, name):
                continue
            seen.add(sql)
            if _is_collection(sql):
                continue
            body = sql.split(" AS ", 1)[-1]
            if _may_change(sql) or any(_names(body, table) for (table,) in tables):
                return False
            left.append(body)
    return True


def _is_collection(sql: str) -> bool:
    """A view over Parquet files and nothing else."""
    plain = _plain(sql)
    once = len(_SELECT.findall(plain)) == 1 and "datetime" not in plain.lower()
    return bool(_COLLECTION.match(plain)) and once and "hive_partitioning" in plain


def _may_change(sql: str) -> bool:
    """Whether a column named like one of the three may come to be, or be left out."""
    return bool(_ONE_FILE.search(sql) or _OTHER_USE.search(_plain(sql)))


def _plain(sql: str) -> str:
    return _COMMENT.sub(" ", _LITERAL.sub("''", sql))


def _names(text: str, name: str) -> bool:
    """Whether the text may name it."""
    lower, wanted = text.lower(), name.lower()
    if not name.isidentifier():
        return wanted in lower or wanted.replace('"', '""') in lower
    return re.search(rf"\b{re.escape(wanted)}\b", lower) is not None
