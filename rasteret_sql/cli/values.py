"""Values of options that are no plain text: boxes, date ranges, lists, pairs."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import click
import duckdb

_N_BOX = 4
_N_RANGE = 2


def bbox(_ctx: click.Context, _option: click.Parameter, value: str | None) -> list[float] | None:
    """``west,south,east,north``."""
    if value is None:
        return None
    try:
        box = [float(part) for part in value.split(",")]
    except ValueError:
        box = []
    if len(box) != _N_BOX:
        raise click.BadParameter(f"expected west,south,east,north, got {value!r}")
    return box


def date_range(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> list[str | None] | None:
    """``START/END`` or one date for both; an empty side or ``..`` is open."""
    if value is None:
        return None
    sides = [side.strip() for side in value.split("/" if "/" in value else ",")]
    if len(sides) == 1:
        sides *= _N_RANGE
    if len(sides) != _N_RANGE or not any(sides):
        raise click.BadParameter(f"expected START/END or one date, got {value!r}")
    return [None if side in ("", "..") else side for side in sides]


def names(_ctx: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    """``A,B,C``."""
    if value is None:
        return None
    found = [name.strip() for name in value.split(",")]
    if not all(found):
        raise click.BadParameter(f"expected names with commas between them, got {value!r}")
    return found


def numbers(_ctx: click.Context, _option: click.Parameter, value: str | None) -> list[float] | None:
    """``3,8,9``."""
    if value is None:
        return None
    try:
        return [float(part) for part in value.split(",")]
    except ValueError:
        expected = "numbers with commas between them"
        raise click.BadParameter(f"expected {expected}, got {value!r}") from None


def interval(_ctx: click.Context, _option: click.Parameter, value: str | None) -> timedelta | None:
    """``5 days``, or what else SQL takes for an INTERVAL."""
    if value is None:
        return None
    try:
        with duckdb.connect() as con:
            found = con.execute("SELECT $text::INTERVAL", {"text": value}).fetchall()[0][0]
    except duckdb.Error:
        found = None
    if not isinstance(found, timedelta):
        raise click.BadParameter(f"expected an interval as '5 days', got {value!r}")
    return found


def colormap(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> str | dict[str, str] | None:
    """``viridis``, or ``4=#00a000,9=#ffffff``."""
    return value if value is None or "=" not in value else texts(_ctx, _option, value)


def texts(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> dict[str, str] | None:
    """``A=x,B=y``, or a JSON object where a name holds a comma or an equals sign."""
    return None if value is None else {key: str(item) for key, item in _pairs(value).items()}


def integers(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> dict[str, int] | None:
    """``A=0,B=1``, or a JSON object."""
    if value is None:
        return None
    try:
        return {key: int(item) for key, item in _pairs(value).items()}
    except (TypeError, ValueError):
        raise click.BadParameter(f"expected integers, got {value!r}") from None


def _pairs(value: str) -> dict[str, Any]:
    try:
        if value.lstrip().startswith("{"):
            return dict(json.loads(value))
        pairs = [pair.split("=", 1) for pair in value.split(",")]
        return {key.strip(): item.strip() for key, item in pairs}
    except ValueError:
        expected = "KEY=VALUE,... or a JSON object"
        raise click.BadParameter(f"expected {expected}, got {value!r}") from None
