"""Checks of arguments that several functions share: what a `Parameter` takes as ``check``.

A check is called with the argument's name and its Python value, and returns the value as a
bind function gets it, or raises `InputError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import crs_of
from rasteret_sql.reading.request import Overview

Check = Callable[[str, Any], Any]


def flag(name: str, value: object) -> bool:
    """A BOOLEAN; anything else is refused, as the text 'false' would count as true.

    Example:
        >>> flag("force", True)
        True
    """
    if not isinstance(value, bool):
        raise InputError.expected(name, "true or false", value, "write it without quotes")
    return value


def at_least(low: int, todo: str = "correct it", *, most: int | None = None) -> Check:
    """An integer that is not lower, and not higher than the most.

    Example:
        >>> at_least(0)("level", 2)
        2
        >>> at_least(1, most=65_536)("bins", 100_000)
        Traceback (most recent call last):
        rasteret_sql.errors.InputError: bins: expected 1 to 65536, got 100000; correct it
    """
    wanted = f"{low} or more" if most is None else f"{low} to {most}"

    def check(name: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError.expected(name, f"{wanted}, an integer", value, todo)
        if value < low or (most is not None and value > most):
            raise InputError.expected(name, wanted, value, todo)
        return value

    return check


def share(name: str, value: object) -> float:
    """A share, 0 to 1.

    Example:
        >>> share("min_valid", 1)
        1.0
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:  # type: ignore[operator]
        raise InputError.expected(name, "a share, 0 to 1", value, "0.9 means 90 percent")
    return float(value)  # type: ignore[arg-type]


def interval(name: str, value: object) -> tuple[float, float]:
    """Two numbers, the lower one first.

    Example:
        >>> interval("rescale", [0, 3000])
        (0.0, 3000.0)
    """
    listed = list(value) if isinstance(value, list | tuple) else []
    is_pair = len(listed) == 2 and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        for one in listed
    )
    if not is_pair or not listed[0] < listed[1]:
        raise InputError.expected(name, "[low, high], low below high", value, "correct it")
    return float(listed[0]), float(listed[1])


@dataclass(frozen=True)
class OneOf:
    """A check for one of some words; see `one_of`."""

    choices: tuple[str, ...]

    def __call__(self, name: str, value: object) -> str:
        """The value.

        Raises:
            InputError: it is another.
        """
        if not isinstance(value, str) or value not in self.choices:
            *others, last = [repr(choice) for choice in self.choices]
            listed = f"{', '.join(others)} or {last}" if others else last
            raise InputError.expected(name, listed, value, "choose one")
        return value


def one_of(*choices: str) -> OneOf:
    """One of some words.

    Example:
        >>> one_of("report", "error")("on_error", "error")
        'error'
        >>> one_of("report", "error")("on_error", "no")
        Traceback (most recent call last):
        rasteret_sql.errors.InputError: on_error: expected 'report' or 'error', got 'no'; choose one
    """
    return OneOf(choices)


def text(
    what: str = "a string",
    todo: str = "write it as a string constant",
    *,
    blank_passes: bool = True,
) -> Check:
    """A text.

    Example:
        >>> text("a folder")("path", "exports")
        'exports'
    """

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or not (blank_passes or value.strip()):
            raise InputError.expected(name, what, value, todo)
        return value

    return check


def texts(what: str, todo: str = "write [ ] around them") -> Check:
    """Texts, one or more: a list, a tuple, or one alone; always a list afterwards.

    Example:
        >>> texts("band names")("bands", ("B04", "B08")), texts("band names")("bands", "B04")
        (['B04', 'B08'], ['B04'])
    """

    def check(name: str, value: object) -> list[str]:
        listed = [value] if isinstance(value, str) else value
        is_list = isinstance(listed, list | tuple) and bool(listed)
        if not is_list or not all(isinstance(one, str) for one in listed):  # type: ignore[attr-defined]
            raise InputError.expected(name, f"a list of {what}", value, todo)
        return list(listed)  # type: ignore[call-overload,no-any-return]

    return check


def rows_not_raster(name: str, value: object) -> object:
    """A relation; the path of a raster is none.

    Example:
        >>> rows_not_raster("source", "scenes.parquet")
        'scenes.parquet'
    """
    if isinstance(value, str) and value.lower().endswith((".tif", ".tiff")):
        raise InputError.expected(
            name,
            "a table with a row per file",
            value,
            f"{name} := $$SELECT 'a' AS id, '…' AS href$$, href_column := 'href' makes one",
        )
    return value


def record_ids(name: str, value: object) -> list[str]:
    """Ids as texts; numbers are ids too, a NULL among them is none.

    Example:
        >>> record_ids("ids", ["a", 7, None])
        ['a', '7']
    """
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if any(not isinstance(one, str | int) for one in listed if one is not None):
        raise InputError.expected(name, "a list of record ids", value, "write them as text")
    return [str(one) for one in listed if one is not None]


def pixel_size(name: str, value: object) -> tuple[float, float]:
    """Width and height of a pixel: two numbers above 0, or one for both.

    Example:
        >>> pixel_size("resolution", 20), pixel_size("resolution", [0.1, 0.2])
        ((20.0, 20.0), (0.1, 0.2))
    """
    listed = list(value) if isinstance(value, list | tuple) else [value]
    listed = listed * 2 if len(listed) == 1 else listed
    numbers = [one for one in listed if isinstance(one, int | float | Decimal)]
    if len(listed) != 2 or len(numbers) != 2 or not all(0 < n < math.inf for n in numbers):
        raise InputError.expected(
            name, "a number above 0, or [width, height]", value, "it is in units of the CRS"
        )
    return float(numbers[0]), float(numbers[1])


def crs_text(name: str, value: object) -> str:
    """The name or definition of a CRS.

    Example:
        >>> crs_text("crs", 3857)
        'EPSG:3857'
    """
    try:
        return str(crs_of(value).srs)  # type: ignore[arg-type]  # it checks
    except InputError as error:
        raise InputError(error.message.replace("geometry_crs", name, 1)) from None


def overview(name: str, value: object) -> Overview:
    """Which level is read: 'auto', 'none' or its number.

    Example:
        >>> overview("overview", 2)
        2
    """
    if value in ("auto", "none"):
        return value  # type: ignore[return-value]  # one of two texts
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InputError.expected(name, "'auto', 'none' or a level, 0 or more", value, "choose one")


def numbers(name: str, value: object) -> tuple[float, ...]:
    """One number or a list of them.

    Example:
        >>> numbers("mask_values", [3, 8])
        (3, 8)
    """
    listed = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in listed):
        raise InputError.expected(name, "a list of numbers", value, "write [3, 8, 9, 10]")
    return tuple(listed)
