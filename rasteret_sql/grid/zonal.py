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
from rasteret_sql.grid.value_tables import ValueTable, sizes_of, starts_of

_MOMENTS: Final = ("count", "weight_sum", "sum", "mean", "variance", "stddev")
_PIXELS: Final = ("pixel_count", "nodata_count")
_EXTREMES: Final = ("min", "max")
_BY_VALUE: Final = ("variety", "majority", "mode", "minority", "frac")

STATISTICS: Final = (*_MOMENTS, *_EXTREMES, *_BY_VALUE, "median", *_PIXELS)
"""Names that `ZonalStatistics` takes, besides percentiles (``p05``, ``p99.9``)."""

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")

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


def is_statistic(name: str) -> bool:
    """Whether there is a statistic of the name.

    Example:
        >>> is_statistic("mean"), is_statistic("p99.9"), is_statistic("average")
        (True, True, False)
    """
    return name in STATISTICS or _PERCENTILE.fullmatch(name) is not None


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
        raise InputError.expected(
            "stats", f"names of {names}, p05", statistic, "p05 is a percentile"
        )
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
        self._table = ValueTable.empty(self.dtype)
        self._pending: list[ValueTable] = []

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
        starts = starts_of(zone)
        self._pixels[zone[starts]] += sizes_of(starts, len(zone))
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
        starts = starts_of(zone)
        of, sizes = zone[starts], sizes_of(starts, len(zone))
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
            self._add_table(ValueTable.of(zone, values, weight))

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

    def _add_table(self, table: ValueTable) -> None:
        self._pending.append(table)
        waiting = sum(len(pending.zone) for pending in self._pending)
        if waiting > max(len(self._table.zone), _MIN_PENDING):
            self._joined()

    def _joined(self) -> ValueTable:
        if self._pending:
            self._table = ValueTable.join([self._table, *self._pending])
            self._pending = []
        return self._table


def _product(coverage: _Values | None, weights: _Values | None) -> _Floats | None:
    if weights is None:
        return None if coverage is None else coverage.astype(np.float64)
    further = weights.astype(np.float64)
    return further if coverage is None else further * coverage


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return -np.inf, np.inf
    return (info := np.iinfo(dtype)).min, info.max
