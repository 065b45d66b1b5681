"""Histograms: one row per record, target, band and bin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError
from rasteret_sql.reading.columns import texts
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import ERROR, Read, run
from rasteret_sql.reading.outputs.windows import WindowOptions, WindowRows
from rasteret_sql.reading.plan import Failure, Granularity, TilePlan
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.tile_store import Pixels

FIELDS = (
    pa.field("band", pa.string()),
    pa.field("bin", pa.int32()),
    pa.field("low", pa.float64()),
    pa.field("high", pa.float64()),
    pa.field("count", pa.int64()),
)

_MOST_EXACT = 2**53
"""Float64 holds whole numbers up to it."""


class HistogramRows(WindowRows):
    """Makes rows of histograms.

    Args:
        read: The execution.
        bands: Bands to count.
        bins: How many.
        limits: Lower edge of the first one and upper edge of the last one; None: least and
            greatest valid value of each record, target and band.
    """

    def __init__(
        self, read: Read, bands: Sequence[str], bins: int, limits: tuple[float, float] | None
    ) -> None:
        super().__init__(read, bands, WindowOptions(valid=True, per_band=True))
        self._bins = bins
        self._limits = limits

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        units, parts = group.plan.units, []
        for unit in range(group.start, group.stop):
            row = self._row(group, unit)
            scene, target = int(units.scene[unit]), int(units.target[unit])
            begin = 0
            for number, name in enumerate(self._bands):
                height, width = row["height"][number], row["width"][number]
                size = 0 if height is None else height * width
                valid = row["valid"][begin : begin + size].astype(bool)
                begin += size
                error = row["error"]
                try:
                    counted = self._counted(group.plan, scene, name, row[name], valid)
                except InputError as refused:
                    if self._read.request.on_error == "error":
                        raise
                    told = [one for one in (error, refused.message) if one]
                    counted, error = self._no_bins(), "; ".join(told)
                parts.append((scene, target, name, error, counted))
        return self._rows(group.plan, parts)

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> pa.RecordBatch:
        """A row without a bin for each record that can't be planned."""
        nothing = self._no_bins()
        parts = [(one.scene, -1, one.band, one.error.message, nothing) for one in failures]
        return self._rows(plan, parts)

    def _counted(
        self,
        plan: TilePlan,
        scene: int,
        name: str,
        values: Any,  # noqa: ANN401
        valid: Any,  # noqa: ANN401
    ) -> tuple[Any, ...]:
        """Bin, low, high and count of each bin; what could not be read is one row of NULL."""
        if values is None:
            return self._no_bins()
        if values.dtype.kind == "c":
            raise InputError.expected(
                f"record {plan.table.id_of(scene)}, band {name}",
                "real numbers",
                values.dtype.name,
                "count re or im of rasteret_pixels in SQL",
            )
        inside = values.ravel()[valid]
        if values.dtype.kind == "f":
            inside = inside[np.isfinite(inside)].astype(np.float64)
        found = _binned(inside, self._bins, self._limits)
        if found is None:
            low, high = self._limits or (inside.min(), inside.max())
            raise InputError.expected(
                f"bins of record {plan.table.id_of(scene)}, band {name}",
                f"a range that float64 divides into {self._bins} bins",
                f"{low} to {high}",
                "give another value_range, or count distinct values of rasteret_pixels in SQL",
            )
        count, edges = found
        low, high = edges[:-1], edges[1:]
        if not inside.size and self._limits is None:
            low = high = np.full(self._bins, np.nan)
        return np.arange(self._bins), low, high, count

    def _no_bins(self) -> tuple[Any, ...]:
        return (None, None, None, None)

    def _rows(self, plan: TilePlan, parts: list[tuple[Any, ...]]) -> pa.RecordBatch:
        read = self._read
        counts = [1 if counted[0] is None else len(counted[0]) for *_, counted in parts]
        scenes, targets, bands, errors = ([part[n] for part in parts] for n in range(4))
        arrays = read.records_of(plan, scenes, targets, counts)
        arrays["band"], arrays["error"] = texts(bands, counts), texts(errors, counts)
        for place, field in enumerate(FIELDS[1:]):
            columns = [
                pa.nulls(1, field.type)
                if counted[place] is None
                else pa.array(counted[place], field.type, from_pandas=True)
                for *_, counted in parts
            ]
            arrays[field.name] = pa.concat_arrays(columns or [pa.nulls(0, field.type)])
        return read.batch(arrays, sum(counts))


def _binned(
    values: Pixels, n_bins: int, limits: tuple[float, float] | None
) -> tuple[Pixels, Pixels] | None:
    """NumPy's histogram, counts and edges; of integers beyond 2^53 the exact counts.

    Where edges between the least and the greatest value would be equal in float64, the range
    is widened on both sides until each bin has a width. None where that can't be had, or the
    limits are the user's.

    Example:
        >>> count, edges = _binned(np.full(9, 2**60), 4, None)
        >>> count.tolist(), (edges - 2.0**60).tolist()
        ([0, 0, 9, 0], [-512.0, -256.0, 0.0, 256.0, 512.0])
    """
    is_exact = values.dtype.kind == "f" or not values.size
    is_exact = is_exact or max(-int(values.min()), int(values.max())) <= _MOST_EXACT
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            if is_exact:
                return np.histogram(values, n_bins, limits)
            edges = np.histogram_bin_edges(values, n_bins, limits)
        except ValueError:  # edges are float64: those of bins would be equal, or infinite
            edges = np.zeros(2)
        if limits is None and not (np.diff(edges) > 0).all():
            edges = _widened(float(values.min()), float(values.max()), n_bins)
    if not (np.diff(edges) > 0).all():
        return None
    if is_exact:
        return np.histogram(values, edges)
    if limits is None:
        _stretch(edges, int(values.min()), int(values.max()))
    return _counted_exactly(values, edges), edges


def _widened(low: float, high: float, n_bins: int) -> Pixels:
    """Edges around a range as narrow as float64 allows; NaN where it has none."""
    step = np.spacing(max(abs(low), abs(high)))
    for width in (step, 2 * step, 4 * step):
        half = -(-n_bins // 2) * width
        edges: Pixels = np.linspace(low - half, high + half, n_bins + 1)
        if np.isfinite(edges).all() and (np.diff(edges) > 0).all():
            return edges
    return np.full(2, np.nan)


def _stretch(edges: Pixels, least: int, greatest: int) -> None:
    """Move the outer edges to the next float64 where rounding left a value outside."""
    if float(edges[0]) > least:
        edges[0] = np.nextafter(edges[0], -np.inf)
    if float(edges[-1]) < greatest:
        edges[-1] = np.nextafter(edges[-1], np.inf)


def _counted_exactly(values: Pixels, edges: Pixels) -> Pixels:
    """How many integers lie in each bin, compared as integers."""
    ordered, kind = np.sort(values), np.iinfo(values.dtype)
    whole = [math.ceil(edge) for edge in edges[:-1].tolist()]
    whole.append(math.floor(edges[-1]) + 1)  # the last bin holds its upper edge
    known = np.array([min(max(edge, kind.min), kind.max) for edge in whole], values.dtype)
    below = np.searchsorted(ordered, known)
    return np.diff(np.where([edge > kind.max for edge in whole], len(ordered), below))


def histogram_rows(
    read: Read,
    bins: int,
    limits: tuple[float, float] | None,
    records: Any,  # noqa: ANN401
) -> Iterator[pa.RecordBatch]:
    """Count values.

    Args:
        read: The execution.
        bins: How many.
        limits: Of the bins; None: of the values of each record, target and band.
        records: Gives the scene tables.
    """
    bands = read.request.bands
    planner = Planner(read.request, read.footprints, Granularity.WINDOW, bands=bands, aligned=False)
    yield from run(read, HistogramRows(read, bands, bins, limits), planner, records)


def histogram_schema(on_error: str) -> pa.Schema:
    """Columns of histograms besides those of records and targets."""
    return pa.schema([*FIELDS, *((ERROR,) if on_error == "report" else ())])
