"""Dates and times of many spellings to UTC microseconds, and closed ranges of them."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.errors import InputError
from rasteret_sql.schema import DATETIME

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_YEARS = range(1000, 10000)
_YEAR = re.compile(r"(\d{4})$")
_YEAR_MONTH = re.compile(r"(\d{4})-(\d{2})$")
_LEAP_SECOND = re.compile(r"(:\d{2}):60(?:\.\d+)?")
_FIRST_SECOND = -62_135_596_800
_END_SECOND = 253_402_300_800
"""The years 1 to 9999, in seconds since 1970."""
_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INFINITY = 2**63 - 1
"""DuckDB's infinity in every unit."""
_SPELLINGS = "a date, YYYY, YYYY-MM, YYYY-MM-DD or an RFC 3339 time"


class Instants(NamedTuple):
    """A closed range of UTC microseconds since 1970; None is open."""

    start: int | None
    end: int | None

    def meets(self, start: int | None, end: int | None) -> bool:
        """Whether a closed range with known ends shares an instant with this one.

        Example:
            >>> Instants(0, 10).meets(10, 20)
            True
        """
        first = start if start is not None else end
        last = end if end is not None else start
        if first is None or last is None:
            return False
        return (self.end is None or first <= self.end) and (
            self.start is None or last >= self.start
        )

    def rfc3339(self) -> str:
        """The range as a STAC API writes it."""
        return "/".join(".." if at is None else format_micros(at) for at in self)


def format_micros(micros: int) -> str:
    """UTC microseconds since 1970 as RFC 3339.

    Example:
        >>> format_micros(0)
        '1970-01-01T00:00:00Z'
    """
    return (_EPOCH + micros * _MICROSECOND).isoformat() + "Z"


def parse_micros(value: object) -> int:
    """UTC microseconds since 1970 of the first instant that the value names.

    A time without a zone is UTC; a year (an integer too) or month stands for its beginning.

    Raises:
        ValueError: if it is not understood.

    Example:
        >>> parse_micros("1970-01-01T01:00:00.000001+01:00"), parse_micros("1970")
        (1, 0)
    """
    return _span(value)[0]


def parse_range(date_range: tuple[object, object] | list[Any]) -> Instants:
    """Closed range of ``[start, end]``; an end that is a date counts to its last microsecond.

    Args:
        date_range: two of: text, date, datetime, or None, '' and '..' for an open end.

    Raises:
        InputError: if it is not a pair, not understood, or ends before it starts.

    Example:
        >>> parse_range(("2020-01", "2020-01")).rfc3339()
        '2020-01-01T00:00:00Z/2020-01-31T23:59:59.999999Z'
    """
    if isinstance(date_range, str) or len(date_range) != 2:
        raise InputError.expected(
            "date_range", "[start, end]", date_range, "an open end is NULL or '..'"
        )
    try:
        start, end = (None if at in (None, "", "..") else _span(at) for at in date_range)
    except ValueError as error:
        raise InputError.expected(
            "date_range", _SPELLINGS, error, "write it like 2024-01-31"
        ) from None
    found = Instants(start and start[0], end and end[1])
    if found.start is not None and found.end is not None and found.start > found.end:
        raise InputError.expected(
            "date_range", "start <= end", found.rfc3339(), "the order is [start, end]"
        )
    return found


def _span(value: object) -> tuple[int, int]:
    """First and last microsecond that a value names."""
    if isinstance(value, datetime):
        at = _micros(value)
        return at, at
    if isinstance(value, date):
        return _days(value, 1)
    if isinstance(value, int) and value in _YEARS:
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(repr(value))  # noqa: TRY004 - one error for every bad value
    text = value.strip()
    if match := _YEAR.match(text):
        year = int(match[1])
        return _days(_date(text, year, 1), 365 + calendar.isleap(year))
    if match := _YEAR_MONTH.match(text):
        year, month = int(match[1]), int(match[2])
        first = _date(text, year, month)
        return _days(first, calendar.monthrange(year, month)[1])
    try:
        return _days(date.fromisoformat(text), 1)
    except ValueError:
        pass
    is_leap = bool(_LEAP_SECOND.search(text))
    plain = _LEAP_SECOND.sub(r"\1:59.999999", text).replace("z", "Z")
    try:
        at = _micros(datetime.fromisoformat(plain)) + is_leap
    except (ValueError, OverflowError):
        raise ValueError(repr(value)) from None
    return at, at


def _date(text: str, year: int, month: int) -> date:
    try:
        return date(year, month, 1)
    except ValueError:
        raise ValueError(repr(text)) from None


def _days(first: date, n_days: int) -> tuple[int, int]:
    start = (datetime(first.year, first.month, first.day) - _EPOCH) // _MICROSECOND
    return start, start + n_days * 86_400_000_000 - 1


def _micros(at: datetime) -> int:
    if at.tzinfo is not None:
        at = at.astimezone(UTC).replace(tzinfo=None)
    return (at - _EPOCH) // _MICROSECOND


def to_timestamps(column: pa.Array, name: str) -> pa.Array:
    """A column of timestamps, dates, date strings or integer years as UTC timestamp[us].

    Raises:
        InputError: if a value is not understood; the message names the column.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_timestamps(column.cast(kind.value_type), name)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind):
        if pa.types.is_date32(kind):
            column = column.cast(pa.timestamp("s"))
        elif pa.types.is_date64(kind):
            column = column.cast(pa.timestamp("ms"))
        _check_moments(column, name)
        return column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False).cast(
            DATETIME.type
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _years_to_timestamps(column, name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return _text_to_timestamps(column.cast(pa.string()), name)
    raise InputError.expected(
        name, "timestamps, dates, date text or years", kind, "map another column to datetime"
    )


def _check_moments(column: pa.Array, name: str) -> None:
    """Refuse timestamps that no calendar of ours has, DuckDB's infinity too."""
    limits = pc.min_max(column.cast(pa.int64()))
    low, high = limits["min"].as_py(), limits["max"].as_py()
    if low is None:
        return
    unit = column.type.unit
    seconds = (_FIRST_SECOND, _END_SECOND)
    first, end = (second * _UNITS_PER_SECOND[unit] for second in seconds)
    if max(first, 1 - _INFINITY) <= low and high < min(end, _INFINITY):
        return
    wrong = low if low < first or high < end else high
    text = "infinity" if abs(wrong) >= _INFINITY else np.datetime64(wrong, unit)
    raise InputError.expected(
        name,
        "times of the years 1 to 9999",
        text,
        f"make it NULL, for example with CASE WHEN isfinite({name}) THEN {name} END",
    )


def _years_to_timestamps(column: pa.Array, name: str) -> pa.Array:
    years = column.drop_null().to_pylist()
    wrong = next((year for year in years if not (1 <= year <= 9999 and year == int(year))), None)
    if wrong is not None:
        raise InputError.expected(
            name,
            "integers that are years (1 to 9999)",
            wrong,
            "make it a timestamp first, for example with to_timestamp() or make_timestamp()",
        )
    text = (None if year is None else f"{int(year):04d}" for year in column.to_pylist())
    return _text_to_timestamps(pa.array(text, pa.string()), name)


def _text_to_timestamps(column: pa.Array, name: str) -> pa.Array:
    encoded = column.dictionary_encode()
    try:
        instants = [
            parse_micros(text) if text.strip() else None for text in encoded.dictionary.to_pylist()
        ]
    except ValueError as error:
        raise InputError.expected(
            name, _SPELLINGS, error, "map another column to datetime or convert it"
        ) from None
    parsed = pa.array(instants, pa.int64()).cast(DATETIME.type)
    return pc.take(parsed, encoded.indices)
