"""Columns that Arrow would change, cast to what it does not, before they leave DuckDB.

DuckDB hands TIMETZ over without its zone, BIT and BIGNUM as the bytes it keeps them in, and
HUGEINT as DECIMAL(38, 0) unchecked: 2.0 closes the whole database over one that is larger.
"""

from __future__ import annotations

import duckdb
from duckdb.sqltypes import DuckDBPyType

from rasteret_sql.duck.names import quote_identifier

_INSTEAD = {
    "hugeint": "DECIMAL(38, 0)",
    "uhugeint": "DECIMAL(38, 0)",
    "time with time zone": "VARCHAR",
    "bit": "VARCHAR",
    "bignum": "VARCHAR",
    "variant": "VARCHAR",
}
_NESTED = ("list", "array", "map", "struct", "union", "tuple")


def with_plain_types(relation: duckdb.DuckDBPyRelation) -> str:
    """What follows ``SELECT *`` so that every column of a relation comes through Arrow.

    Example:
        >>> with_plain_types(duckdb.sql("SELECT 1 AS a, [1::HUGEINT] AS b"))
        ' REPLACE ("b"::DECIMAL(38, 0)[] AS "b")'
    """
    casts = [
        f"{quote_identifier(name)}::{_plain(kind)} AS {quote_identifier(name)}"
        for name, kind in zip(relation.columns, relation.types, strict=True)
        if _is_changed(kind)
    ]
    return f" REPLACE ({', '.join(casts)})" if casts else ""


def _parts(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """Names and types inside a nested type."""
    if kind.id not in _NESTED:
        return []
    inside = [(name, part) for name, part in kind.children if isinstance(part, DuckDBPyType)]
    return inside[1:] if kind.id == "union" else inside  # without its tag


def _is_changed(kind: DuckDBPyType) -> bool:
    return kind.id in _INSTEAD or any(_is_changed(part) for _, part in _parts(kind))


def _plain(kind: DuckDBPyType) -> str:
    if not _is_changed(kind):
        return str(kind)
    if kind.id in _INSTEAD:
        return _INSTEAD[kind.id]
    parts = [(name, _plain(part)) for name, part in _parts(kind)]
    if kind.id == "list":
        return f"{parts[0][1]}[]"
    if kind.id == "array":
        return f"{parts[0][1]}[{dict(kind.children)['size']}]"
    named = kind.id in ("struct", "union")
    listed = (f"{quote_identifier(name)} {part}" if named else part for name, part in parts)
    return f"{kind.id.upper()}({', '.join(listed)})"
