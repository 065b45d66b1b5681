"""Statements that call a table function with literals, so that their rows can stream."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import takewhile
from typing import Any

from rasteret_sql.duck.declarations import FUNCTIONS, quoted
from rasteret_sql.duck.names import quote_text


def statement(function: str, arguments: Mapping[str, Any], columns: str = "*") -> str:
    """The statement that calls a table function.

    Args:
        function: SQL name.
        arguments: Parameter to value; None leaves one that has a default at it.
        columns: What to select.

    Example:
        >>> given = {"collection": "s2", "bands": ["B04"], "width": 64, "bbox": None}
        >>> statement("rasteret_preview", given, "id, png")
        "SELECT id, png FROM rasteret_preview('s2', bands := ['B04'], width := 64)"
    """
    parameters = FUNCTIONS[function].parameters
    required = [one.name for one in takewhile(lambda one: not one.default, parameters)]
    listed = [literal(arguments[name]) for name in required]
    listed += [
        f"{quoted(name)} := {literal(value)}"
        for name, value in arguments.items()
        if name not in required and value is not None
    ]
    return f"SELECT {columns} FROM {function}({', '.join(listed)})"  # noqa: S608


def literal(value: Any) -> str:  # noqa: ANN401 (what options give)
    """A value as SQL text.

    Raises:
        TypeError: a value of another type.

    Example:
        >>> literal(["it's", None]), literal({"4": "#00a000"}), literal(timedelta(days=1))
        ("['it''s', NULL]", "MAP {'4': '#00a000'}", "INTERVAL '86400000000 microseconds'")
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return quote_text(value)
    if isinstance(value, timedelta):
        return f"INTERVAL '{value // timedelta(microseconds=1)} microseconds'"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        pairs = (f"{literal(key)}: {literal(item)}" for key, item in value.items())
        return f"MAP {{{', '.join(pairs)}}}"
    raise TypeError(f"no literal of {type(value).__name__}")
