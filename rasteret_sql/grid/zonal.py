"""Statistics of the pixels in zones, gathered tile by tile.

A pixel adds to its zone with its weight: its coverage by the zone, times a further weight
where one is given. Partial results of parts of the pixels merge to the result of all, in
any order and split, so each tile is read once for all zones.

Definitions, where libraries differ:

* ``count`` is the sum of coverages, ``weight_sum`` that of the weights; ``sum``, ``mean``,
  ``variance``, ``stddev`` (both of the population), ``frac``, ``majority`` and ``minority``
  go by weight, ``min``, ``max`` and ``variety`` do not. So in exactextract.
* Of values with equal weight, the greatest is the majority, the lowest the minority.
* Quantiles: cells sorted by value, those of equal value by weight, n of them with the sum
  of weights W. Cell k stands at ``k*w_k + (n-1)*W_(k-1)``, a quantile q at ``q*(n-1)*W``,
  linear between cells. With equal weights this is NumPy's default (type 7). exactextract
  first joins cells of equal value, and so takes 1.5 for the median of 1, 1, 1, 2.
* A pixel of coverage 0 is outside, one of weight 0 is in ``count``, ``min``, ``max``,
  ``pixel_count`` only. NaN is no data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rasteret_sql.errors import InputError

_MOMENTS: Final = ("count", "weight_sum", "sum", "mean", "variance", "stddev")
_PIXELS: Final = ("pixel_count", "nodata_count")
_EXTREMES: Final = ("min", "max")
_BY_VALUE: Final = ("variety", "majority", "mode", "minority", "frac")

STATISTICS: Final = (*_MOMENTS, *_EXTREMES, *_BY_VALUE, "median", *_PIXELS)
"""Names that `ZonalStatistics` takes, besides percentiles (``p05``, ``p99.9``)."""

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")

_MAX_KEYS = 1 << 22
"""Keys of a table that is counted by index instead of sorted; 8 bytes each and column."""

_MIN_PENDING = 1 << 17
"""Rows of values that wait before they are joined with those that were gathered before."""

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Values = NDArray[Any]


class Column(NamedTuple):
    """One statistic of all zones.

    Attributes:
        values: Shape (zones,).
        valid: Shape (zones,), False where the zone has no value for it.
    """

    values: _Values
    valid: NDArray[np.bool_]


class Shares(NamedTuple):
    """The values in each zone, and which share of the zone's weight each has.

    Attributes:
        offsets: Shape (zones + 1,); rows ``offsets[i]`` to ``offsets[i + 1]`` are zone i.
        values: Ascending in each zone.
        shares: Of each value, above 0 to 1.
    """

    offsets: _Ints
    values: _Values
    shares: _Floats


def quantile_of(statistic: str) -> float | None:
    """The quantile that a statistic names, None where it is none.

    Raises:
        InputError: if there is no statistic of the name.

    Example:
        >>> quantile_of("p05"), quantile_of("median"), quantile_of("mean")
        (0.05, 0.5, None)
    """
    if statistic == "median":
        return 0.5
    if statistic in STATISTICS:
        return None
    percent = _PERCENTILE.fullmatch(statistic)
    if percent is None:
        names = ", ".join(STATISTICS)
        raise InputError.expected("stats", f"of {names}, p05", statistic, "p05 is a percentile")
    return float(percent[1]) / 100


class ZonalStatistics:
    """Gathers statistics of many zones at once.

    Memory: 48 bytes per zone, and for statistics that need all values (``variety``,
    ``majority``, ``minority``, ``mode``, ``frac``, ``median``, percentiles) about 50 bytes
    per distinct value and zone: of integers a histogram, of floating-point numbers it
    grows with the pixels. One thread at a time may use an object.

    Args:
        zones: How many; they are numbered from 0.
        stats: Names, see `STATISTICS` and `quantile_of`.
        dtype: Of the values.

    Raises:
        InputError: if there is no statistic of a name.

    Example:
        >>> gathered = ZonalStatistics(2, ["mean", "max"], "uint8")
        >>> zone, values = np.array([0, 0, 1]), np.array([1, 4, 9], np.uint8)
        >>> gathered.add(zone, values, coverage=np.array([1, 0.5, 1], np.float32))
        >>> gathered.column("mean").values, gathered.column("max").values
        (array([2., 9.]), array([4, 9], dtype=uint8))
    """

    def __init__(self, zones: int, stats: Sequence[str], dtype: DTypeLike) -> None:
        self.stats = tuple(stats)
        self.dtype = np.dtype(dtype)
        quantiles = [quantile_of(name) is not None for name in self.stats]
        self._has_extremes = not set(_EXTREMES).isdisjoint(self.stats)
        self._has_spread = not {"variance", "stddev"}.isdisjoint(self.stats)
        self._has_values = any(quantiles) or not set(_BY_VALUE).isdisjoint(self.stats)
        self.zones = zones
        self._pixels = np.zeros(zones, dtype=np.int64)
        self._nodata = np.zeros(zones, dtype=np.int64)
        self._count, self._weight, self._sum, self._spread = np.zeros((4, zones))
        lowest, highest = _limits(self.dtype)
        self._min = np.full(zones if self._has_extremes else 0, highest, dtype=self.dtype)
        self._max = np.full(zones if self._has_extremes else 0, lowest, dtype=self.dtype)
        self._table = _Table.empty(self.dtype)
        self._pending: list[_Table] = []

    def add(
        self,
        zone: NDArray[np.integer[Any]],
        values: _Values,
        *,
        valid: NDArray[np.bool_] | None = None,
        coverage: NDArray[np.float32] | None = None,
        weights: _Values | None = None,
    ) -> None:
        """Add pixels, of any tile and of any zones.

        Fastest where `zone` ascends. A pixel in several zones is given once for each.

        Args:
            zone: Number of the zone, shape (n,).
            values: Shape (n,).
            valid: False where a pixel has no data, shape (n,); without it all have.
            coverage: Share of the pixel in the zone, shape (n,); without it 1.
            weights: Further weights, 0 or more, shape (n,); without it 1.
        """
        if coverage is not None and not (inside := coverage > 0).all():
            zone, values, coverage = zone[inside], values[inside], coverage[inside]
            valid = valid if valid is None else valid[inside]
            weights = weights if weights is None else weights[inside]
        if len(zone) == 0:
            return
        if (zone[1:] < zone[:-1]).any():
            order = np.argsort(zone, kind="stable")
            zone, values = zone[order], values[order]
            valid = valid if valid is None else valid[order]
            coverage = coverage if coverage is None else coverage[order]
            weights = weights if weights is None else weights[order]
        starts = _starts(zone)
        self._pixels[zone[starts]] += _sizes(starts, len(zone))
        if values.dtype.kind == "f":
            known = ~np.isnan(values)
            valid = known if valid is None else valid & known
        if valid is not None and not valid.all():
            nodata = np.add.reduceat(~valid, starts, dtype=np.int64)
            self._nodata[zone[starts]] += nodata
            zone, values = zone[valid], values[valid]
            coverage = coverage if coverage is None else coverage[valid]
            weights = weights if weights is None else weights[valid]
        if len(zone):
            self._add_valid(zone, values, coverage, weights)

    def _add_valid(
        self,
        zone: NDArray[np.integer[Any]],
        values: _Values,
        coverage: NDArray[np.float32] | None,
        weights: _Values | None,
    ) -> None:
        starts = _starts(zone)
        of, sizes = zone[starts], _sizes(starts, len(zone))
        weight = _product(coverage, weights)
        count = sizes.astype(np.float64)
        if coverage is not None:
            count = np.add.reduceat(coverage, starts, dtype=np.float64)
        total = np.add.reduceat(weight, starts) if weight is not None else count
        with np.errstate(invalid="ignore", over="ignore"):  # infinite values
            numbers = values.astype(np.float64)
            weighted = numbers if weight is None else numbers * weight
            sums = np.add.reduceat(weighted, starts)
            spread = np.zeros(len(of))
            if self._has_spread:
                mean = np.divide(sums, total, out=np.zeros(len(of)), where=total > 0)
                off = numbers - np.repeat(mean, sizes)
                off *= off if weight is None else off * weight
                spread = np.add.reduceat(off, starts)
            self._join_moments(of, count, total, sums, spread)
        if self._has_extremes:
            self._min[of] = np.minimum(self._min[of], np.minimum.reduceat(values, starts))
            self._max[of] = np.maximum(self._max[of], np.maximum.reduceat(values, starts))
        if self._has_values:
            self._add_table(_Table.of(zone, values, weight))

    def merge(self, other: Self, zones: NDArray[np.integer[Any]] | None = None) -> None:
        """Add what another one gathered.

        Args:
            other: Of the same statistics and type of values.
            zones: Which zones here those of `other` are, ascending, shape (other.zones,);
                without it they are the same ones.

        Raises:
            ValueError: if it has other zones, statistics or values.
        """
        n_zones = self.zones if zones is None else len(zones)
        mine, theirs = (n_zones, *self._kind), (other.zones, *other._kind)
        if mine != theirs:
            raise ValueError(f"zonal statistics of {theirs} do not merge into those of {mine}")
        to = np.arange(self.zones) if zones is None else zones
        self._pixels[to] += other._pixels
        self._nodata[to] += other._nodata
        of = np.flatnonzero(other._count)
        with np.errstate(invalid="ignore", over="ignore"):
            moments = (other._count, other._weight, other._sum, other._spread)
            self._join_moments(to[of], *(values[of] for values in moments))
        if self._has_extremes:
            self._min[to] = np.minimum(self._min[to], other._min)
            self._max[to] = np.maximum(self._max[to], other._max)
        for table in (other._table, *other._pending):
            if len(table.zone):
                self._add_table(table if zones is None else table.numbered(to))

    def pop(self, zones: NDArray[np.integer[Any]]) -> Self:
        """Take some zones out; they are empty here afterwards.

        Args:
            zones: Their numbers, ascending.

        Returns:
            What they gathered, numbered from 0 in this order.
        """
        out = type(self)(len(zones), self.stats, self.dtype)
        columns = {"_pixels": 0, "_nodata": 0, "_count": 0, "_weight": 0, "_sum": 0, "_spread": 0}
        if self._has_extremes:
            lowest, highest = _limits(self.dtype)
            columns |= {"_min": highest, "_max": lowest}
        for name, empty in columns.items():
            column = getattr(self, name)
            setattr(out, name, column[zones])
            column[zones] = empty
        table = self._joined()
        if len(table.zone):
            number = np.full(self.zones, -1, np.int64)
            number[zones] = np.arange(len(zones))
            of = number[table.zone]
            out._add_table(table.take(of >= 0).numbered(number))  # noqa: SLF001 (of this class)
            self._table = table.take(of < 0)
        return out

    @property
    def _kind(self) -> tuple[tuple[str, ...], np.dtype[Any]]:
        return self.stats, self.dtype

    def column(self, statistic: str) -> Column:
        """One statistic of all zones.

        Returns:
            ``min``, ``max``, ``majority``, ``minority`` and ``mode`` have the type of the
            values, ``variety``, ``pixel_count`` and ``nodata_count`` are int64, the others
            float64. ``count``, ``weight_sum`` and ``sum`` of an empty zone are 0.

        Raises:
            InputError: if the statistic was not asked for at the start, or is ``frac``,
                which `shares` gives.
        """
        self._check(statistic)
        quantile = quantile_of(statistic)
        if quantile is not None:
            return self.quantile(quantile)
        if statistic in _PIXELS:
            pixels = self._pixels if statistic == "pixel_count" else self._nodata
            return Column(pixels.copy(), np.ones(self.zones, dtype=bool))
        if statistic in _EXTREMES:
            return Column((self._min if statistic == "min" else self._max).copy(), self._count > 0)
        if statistic in _MOMENTS:
            return self._moment(statistic)
        return self._by_value(statistic)

    def quantile(self, q: float) -> Column:
        """A quantile of each zone, 0 to 1, from the values that were gathered.

        Raises:
            InputError: if no statistic was asked for that gathers values.
        """
        if not self._has_values:
            self._check("median")
        table = self._joined()
        zone, values = table.quantiles(q)
        return self._scatter(zone, values)

    def shares(self) -> Shares:
        """The values of each zone and their shares of its weight.

        Raises:
            InputError: if no statistic was asked for that gathers values.
        """
        if not self._has_values:
            self._check("frac")
        table = self._joined()
        offsets = np.searchsorted(table.zone, np.arange(self.zones + 1))
        return Shares(offsets, table.value, table.weight / table.zone_weight())

    @property
    def nbytes(self) -> int:
        """Memory that is held, in bytes."""
        tables = sum(array.nbytes for table in (self._table, *self._pending) for array in table)
        extremes = self._min.nbytes + self._max.nbytes
        return 6 * self._count.nbytes + extremes + tables

    def _check(self, statistic: str) -> None:
        if statistic not in self.stats:
            got = ", ".join(self.stats) or "none"
            raise InputError.expected("stats", f"{statistic} among them", got, "ask for it")

    def _join_moments(
        self, of: _Values, count: _Floats, weight: _Floats, sums: _Floats, spread: _Floats
    ) -> None:
        before = self._weight[of]
        if self._has_spread:  # of two parts: that of each, and of their means
            both = (before > 0) & (weight > 0)
            ratio = [np.divide(s, w, out=np.zeros(len(of)), where=both) for s, w in
                     ((self._sum[of], before), (sums, weight))]  # fmt: skip
            share = np.divide(before * weight, before + weight, out=np.zeros(len(of)), where=both)
            self._spread[of] += spread + (ratio[1] - ratio[0]) ** 2 * share
        self._count[of] += count
        self._weight[of] += weight
        self._sum[of] += sums

    def _moment(self, statistic: str) -> Column:
        everywhere = np.ones(self.zones, dtype=bool)
        if statistic == "count":
            return Column(self._count.copy(), everywhere)
        if statistic == "weight_sum":
            return Column(self._weight.copy(), everywhere)
        if statistic == "sum":
            return Column(self._sum.copy(), everywhere)
        has = self._weight > 0
        wanted = self._sum if statistic == "mean" else self._spread
        values = np.divide(wanted, self._weight, out=np.full(self.zones, np.nan), where=has)
        return Column(np.sqrt(values) if statistic == "stddev" else values, has)

    def _by_value(self, statistic: str) -> Column:
        if statistic == "frac":
            raise InputError.expected("stats", "a statistic of one value", "frac", "see shares")
        table = self._joined()
        if statistic == "variety":
            variety = np.bincount(table.zone, minlength=self.zones)
            return Column(variety.astype(np.int64), np.ones(self.zones, dtype=bool))
        at = table.lightest_values() if statistic == "minority" else table.heaviest_values()
        return self._scatter(table.zone[at], table.value[at])

    def _scatter(self, zone: _Ints, values: _Values) -> Column:
        has = np.zeros(self.zones, dtype=bool)
        has[zone] = True
        missing = np.nan if values.dtype.kind == "f" else 0
        all_values = np.full(self.zones, missing, dtype=values.dtype)
        all_values[zone] = values
        return Column(all_values, has)

    def _add_table(self, table: _Table) -> None:
        self._pending.append(table)
        waiting = sum(len(pending.zone) for pending in self._pending)
        if waiting > max(len(self._table.zone), _MIN_PENDING):
            self._joined()

    def _joined(self) -> _Table:
        if self._pending:
            self._table = _Table.join([self._table, *self._pending])
            self._pending = []
        return self._table


class _Table(NamedTuple):
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
        cells = _sizes(starts, len(zone))
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
    def join(cls, tables: Sequence[_Table]) -> Self:
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

    def take(self, chosen: NDArray[np.bool_]) -> _Table:
        """Some of the rows."""
        return _Table._make(column[chosen] for column in self)

    def numbered(self, zones: NDArray[np.integer[Any]]) -> _Table:
        """With other numbers of the zones, in the same order."""
        return self._replace(zone=zones[self.zone].astype(np.int64))

    def zone_weight(self) -> _Floats:
        """Weight of the whole zone, for each row."""
        if len(self.zone) == 0:
            return self.weight
        starts = _starts(self.zone)
        total = np.add.reduceat(self.weight, starts)
        return np.repeat(total, _sizes(starts, len(self.zone)))

    def heaviest_values(self) -> _Ints:
        """In each zone the row of the most weight, of equal ones the last."""
        if len(self.zone) == 0:
            return np.zeros(0, dtype=np.int64)
        starts = _starts(self.zone)
        most = np.repeat(np.maximum.reduceat(self.weight, starts), _sizes(starts, len(self.zone)))
        at = np.where(self.weight == most, np.arange(len(self.zone)), -1)
        return np.maximum.reduceat(at, starts)

    def lightest_values(self) -> _Ints:
        """In each zone the row of the least weight, of equal ones the first."""
        if len(self.zone) == 0:
            return np.zeros(0, dtype=np.int64)
        starts = _starts(self.zone)
        least = np.repeat(np.minimum.reduceat(self.weight, starts), _sizes(starts, len(self.zone)))
        at = np.where(self.weight == least, np.arange(len(self.zone)), len(self.zone))
        return np.minimum.reduceat(at, starts)

    def quantiles(self, q: float) -> tuple[_Ints, _Floats]:
        """Zones that have values, and a quantile of each."""
        if len(self.zone) == 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        starts = _starts(self.zone)
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
        sizes = _sizes(starts, len(self.zone))
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


def _product(coverage: _Values | None, weights: _Values | None) -> _Floats | None:
    if weights is None:
        return None if coverage is None else coverage.astype(np.float64)
    further = weights.astype(np.float64)
    return further if coverage is None else further * coverage


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return -np.inf, np.inf
    return (info := np.iinfo(dtype)).min, info.max


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


def _starts(ascending: _Values) -> _Ints:
    return np.flatnonzero(_changes(ascending))


def _sizes(starts: _Ints, length: int) -> _Ints:
    return np.diff(starts, append=length)
