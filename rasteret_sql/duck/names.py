"""Names and literals in SQL text."""

from __future__ import annotations

import duckdb

CATALOG = "rasteret"
"""The attached in-memory database that holds the macros."""

IS_DUCKDB_2 = int(duckdb.__version__.split(".")[0]) >= 2


def quote_identifier(name: str) -> str:
    r"""An SQL identifier.

    Example:
        >>> print(quote_identifier('a"b'))
        "a""b"
    """
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """An SQL string literal.

    Example:
        >>> quote_text("it's")
        "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
