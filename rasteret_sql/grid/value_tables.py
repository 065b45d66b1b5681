"""Distinct values of zones, counted and weighted: what medians, modes and shares come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

_MAX_KEYS = 1 << 22
"""Keys of a table that is counted by index instead of sorted; 8 bytes each and column."""

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Values = NDArray[Any]


class ValueTable(NamedTuple):
    """Distinct values of zones, ascending by zone and value."""

    zone: _Ints
    value: _Values
    cells: _Ints
    weight: _Floats
    lightest: _Floats
    """Smallest weight of a cell of this value."""
    heaviest: _Floats

    @classmethod
    def empty(cls, dtype: np.dtype[Any]) -> Self:
        """Without rows."""
        none, numbers = np.zeros(0, dtype=np.int64), np.zeros(0)
        return cls(none, np.zeros(0, dtype=dtype), none, numbers, numbers, numbers)

    @classmethod
    def of(cls, zone: NDArray[np.integer[Any]], value: _Values, weight: _Floats | None) -> Self:
        """The table of cells, zones ascending."""
        if weight is not None and not (weight > 0).all():
            zone, value, weight = zone[weight > 0], value[weight > 0], weight[weight > 0]
        if len(zone) == 0:
            return cls.empty(value.dtype)
        if value.dtype.kind in "iu":
            low, high = int(value.min()), int(value.max())
            first, last = int(zone[0]), int(zone[-1])
            keys = (last - first + 1) * (high - low + 1)
            if keys <= min(_MAX_KEYS, 8 * len(zone)):
                return cls._counted(zone, value, weight, first, (low, high))
        order = _order(zone, value)
        of, value = zone[order].astype(np.int64), value[order]
        starts = np.flatnonzero(_changes(of) | _changes(value))
        cells = sizes_of(starts, len(zone))
        if weight is None:
            ones = np.ones(len(starts))
            return cls(of[starts], value[starts], cells, cells.astype(float), ones, ones)
        weight = weight[order]
        return cls(
            of[starts],
            value[starts],
            cells,
            np.add.reduceat(weight, starts),
            np.minimum.reduceat(weight, starts),
            np.maximum.reduceat(weight, starts),
        )

    @classmethod
    def _counted(
        cls,
        zone: NDArray[np.integer[Any]],
        value: _Values,
        weight: _Floats | None,
        first: int,
        span: tuple[int, int],
    ) -> Self:
        low, high = span
        width = high - low + 1
        unsigned = f"u{value.dtype.itemsize}"
        least = value.dtype.type(low)
        # Differences of a type's own width wrap around to the right distance.
        distance = (value - least).view(unsigned).astype(np.int64)
        key = (zone.astype(np.int64) - first) * width + distance
        cells = np.bincount(key)
        has = np.flatnonzero(cells)
        row, place = np.divmod(has, width)
        count = cells[has].astype(np.int64)
        values = place.astype(unsigned).view(value.dtype) + least
        if weight is None:
            ones = np.ones(len(has))
            return cls(row + first, values, count, count.astype(float), ones, ones)
        lightest, heaviest = np.full(len(cells), np.inf), np.zeros(len(cells))
        np.minimum.at(lightest, key, weight)
        np.maximum.at(heaviest, key, weight)
        total = np.bincount(key, weights=weight).astype(np.float64, copy=False)
        return cls(row + first, values, count, total[has], lightest[has], heaviest[has])

    @classmethod
    def join(cls, tables: Sequence[ValueTable]) -> Self:
        """The table of all cells of some tables."""
        tables = [table for table in tables if len(table.zone)] or tables[:1]
        if len(tables) == 1:
            return cls(*tables[0])
        columns = [np.concatenate(column) for column in zip(*tables, strict=True)]
        order = _order(columns[0], columns[1])
        zone, value, cells, weight, lightest, heaviest = (column[order] for column in columns)
        starts = np.flatnonzero(_changes(zone) | _changes(value))
        return cls(
            zone[starts],
            value[starts],
            np.add.reduceat(cells, starts),
            np.add.reduceat(weight, starts),
            np.minimum.reduceat(lightest, starts),
            np.maximum.reduceat(heaviest, starts),
        )

    def take(self, chosen: NDArray[np.bool_]) -> ValueTable:
        """Some of the rows."""
        return ValueTable._make(column[chosen] for column in self)

    def numbered(self, zones: NDArray[np.integer[Any]]) -> ValueTable:
        """With other numbers of the zones, in the same order."""
        return self._replace(zone=zones[self.zone].astype(np.int64))

    def zone_weight(self) -> _Floats:
        """Weight of the whole zone, for each row."""
        if len(self.zone) == 0:
            return self.weight
        starts = starts_of(self.zone)
        total = np.add.reduceat(self.weight, starts)
        return np.repeat(total, sizes_of(starts, len(self.zone)))

    def heaviest_values(self) -> _Ints:
        """In each zone the row of the most weight, of equal ones the last."""
        if len(self.zone) == 0:
            return np.zeros(0, dtype=np.int64)
        starts = starts_of(self.zone)
        most = np.repeat(np.maximum.reduceat(self.weight, starts), sizes_of(starts, len(self.zone)))
        at = np.where(self.weight == most, np.arange(len(self.zone)), -1)
        return np.maximum.reduceat(at, starts)

    def lightest_values(self) -> _Ints:
        """In each zone the row of the least weight, of equal ones the first."""
        if len(self.zone) == 0:
            return np.zeros(0, dtype=np.int64)
        starts = starts_of(self.zone)
        least = np.repeat(
            np.minimum.reduceat(self.weight, starts), sizes_of(starts, len(self.zone))
        )
        at = np.where(self.weight == least, np.arange(len(self.zone)), len(self.zone))
        return np.minimum.reduceat(at, starts)

    def quantiles(self, q: float) -> tuple[_Ints, _Floats]:
        """Zones that have values, and a quantile of each."""
        if len(self.zone) == 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        starts = starts_of(self.zone)
        found = self._by_rank(starts, q)
        even = np.minimum.reduceat(self.lightest, starts) == np.maximum.reduceat(
            self.heaviest, starts
        )
        if not even.all():
            found = np.where(even, found, self._by_weight(starts, q))
        return self.zone[starts], found

    def _by_rank(self, starts: _Ints, q: float) -> _Floats:
        """Of cells of equal weight; the arithmetic of NumPy, to the last bit."""
        after = np.cumsum(self.cells)
        first = after[starts] - self.cells[starts]
        n = np.add.reduceat(self.cells, starts)
        place = q * (n - 1)
        lower = np.floor(place).astype(np.int64)
        upper = np.minimum(lower + 1, n - 1)
        numbers = self.value.astype(np.float64)
        low = numbers[np.searchsorted(after, first + lower, side="right")]
        high = numbers[np.searchsorted(after, first + upper, side="right")]
        return _between(low, high, place - lower)

    def _by_weight(self, starts: _Ints, q: float) -> _Floats:
        """Of cells of any weight: the first and the last cell of each value decide."""
        sizes = sizes_of(starts, len(self.zone))
        total = self.zone_weight()  # weights are taken as shares of it: zones differ in scale
        weight, light, heavy = (w / total for w in (self.weight, self.lightest, self.heaviest))
        n = np.add.reduceat(self.cells, starts)
        before_rank = np.cumsum(self.cells) - self.cells
        before_rank -= np.repeat(before_rank[starts], sizes)
        before = np.cumsum(weight) - weight
        before -= np.repeat(before[starts], sizes)
        others = np.repeat(n - 1, sizes)
        first = before_rank * light + others * before
        last = (before_rank + self.cells - 1) * heavy + others * (before + weight - heavy)
        last = np.where(self.cells == 1, first, last)
        numbers = np.repeat(self.value.astype(np.float64), 2)
        place = np.column_stack([first, last]).ravel()
        ordinal = np.repeat(np.arange(len(starts)), sizes)
        scale = np.maximum(np.repeat(n - 1, sizes), 1)
        line = 2.0 * np.repeat(ordinal, 2) + np.clip(place / np.repeat(scale, 2), 0, 1)
        target = q * (n - 1)
        after = np.searchsorted(line, 2.0 * np.arange(len(starts)) + q, side="right")
        after = np.clip(after, 2 * starts + 1, 2 * (starts + sizes) - 1)
        step = place[after] - place[after - 1]
        share = np.divide(target - place[after - 1], step, out=np.zeros(len(n)), where=step > 0)
        return _between(numbers[after - 1], numbers[after], np.clip(share, 0, 1))


def _between(low: _Floats, high: _Floats, share: _Floats) -> _Floats:
    with np.errstate(invalid="ignore"):  # between infinite values
        step = high - low
        between = np.where(share < 0.5, low + step * share, high - step * (1 - share))
    return np.where(low == high, low, between)


def _order(zone: NDArray[np.integer[Any]], value: _Values) -> _Ints:
    """The order by zone, then value; parts that are in order already are merged fast."""
    if value.dtype.kind in "iu":
        low, first = int(value.min()), int(zone.min())
        width = int(value.max()) - low + 1
        if (int(zone.max()) - first + 1) * width < 1 << 62:
            least = value.dtype.type(low)
            place = (value - least).view(f"u{value.dtype.itemsize}").astype(np.int64)
            return np.argsort((zone.astype(np.int64) - first) * width + place, kind="stable")
    return np.lexsort((value, zone))


def _changes(values: _Values) -> NDArray[np.bool_]:
    changes = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


def starts_of(ascending: _Values) -> _Ints:
    """Where runs of equal values begin."""
    return np.flatnonzero(_changes(ascending))


def sizes_of(starts: _Ints, length: int) -> _Ints:
    """How long runs are, of so many values."""
    return np.diff(starts, append=length)
