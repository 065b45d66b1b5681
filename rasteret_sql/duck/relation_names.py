"""What the text of a relation argument is: a query, a name or a path."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from rasteret_sql.collections.folders import is_parquet_name
from rasteret_sql.duck.names import quote_identifier

_QUERY = re.compile(r"^\s*(\(|SELECT\b|FROM\b|WITH\b|VALUES\b|--|/\*)", re.IGNORECASE)
_NAME_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\s."]+))\s*(?:\.|$)')
_PLAIN_NAME = re.compile(r"[^\W\d]\w*$")


def is_query(text: str) -> bool:
    """Whether it is the text of a query.

    Example:
        >>> is_query("FROM s2"), is_query("s2")
        (True, False)
    """
    return _QUERY.match(text) is not None


def is_plain_name(text: str) -> bool:
    """Whether it is a name without quotes or qualification.

    Example:
        >>> is_plain_name("s2"), is_plain_name("lake.s2")
        (True, False)
    """
    return _PLAIN_NAME.match(text) is not None


def parse_name(text: str) -> str | None:
    """A possibly qualified name, every part quoted; None where the text is no name.

    Example:
        >>> parse_name('lake.main."my s2"')
        '"lake"."main"."my s2"'
    """
    parts, position = [], 0
    while position < len(text):
        match = _NAME_PART.match(text, position)
        if match is None:
            return None
        quoted, plain = match.groups()
        parts.append(quoted.replace('""', '"') if quoted else plain)
        position = match.end()
    return ".".join(quote_identifier(part) for part in parts) if parts else None


def exists(cursor: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether a connection sees a relation of this name, each part quoted."""
    try:
        cursor.sql(f"FROM {name}")  # binds alone
    except duckdb.CatalogException:
        return False
    except duckdb.BinderException as error:
        if "does not exist" in str(error) or "capable of reading the file" in str(error):
            return False
        raise
    return True


def is_path(text: object) -> bool:
    """Whether a relation argument that is no name can be a path."""
    if not isinstance(text, str) or is_query(text):
        return False
    return is_parquet_name(text) or "/" in text or Path(text).is_dir()
