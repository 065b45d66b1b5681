"""Composites: for each period and block of one grid, one value per pixel of many scenes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.outputs.common import (
    CRS,
    ERROR,
    Read,
    Records,
)
from rasteret_sql.reading.outputs.mosaics import (
    NO_MOMENT,
    Layer,
    LayerOutput,
    MosaicPlanner,
    all_scenes,
    errors_of,
    failed_row,
    layers_by_place,
    moments_of,
    on_common_grid,
    side_of,
)
from rasteret_sql.reading.outputs.windows import columns_of, transform_of
from rasteret_sql.reading.patches import Patch, used_pixels
from rasteret_sql.reading.plan import TilePlan
from rasteret_sql.reading.scenes import Grid, Ints, SceneTable
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.reading.warps import warped
from rasteret_sql.units import Window

METHODS = ("median", "mean", "min", "max", "first", "last", "count")

_UNITS = {"day": 1, "week": 7, "month": 1, "quarter": 3, "year": 12}
_PERIOD = re.compile(r"\s*(\d+)?\s*(day|week|month|quarter|year)s?\s*", re.IGNORECASE)
_MONTH_ORIGIN = np.datetime64("2000-01-01", "M")
_DAY_ORIGIN = np.datetime64("2000-01-03", "D")


class Period(NamedTuple):
    """A length of time; periods begin as those of DuckDB's `time_bucket` do."""

    length: int
    is_months: bool

    def starts(self, moments: Ints) -> Ints:
        """First microsecond of the period of each moment, both since 1970.

        Example:
            >>> may = np.array([np.datetime64("2024-05-17T08:00", "us")]).astype(np.int64)
            >>> str(parse_period("period", "1 month").starts(may).astype("datetime64[us]")[0])
            '2024-05-01T00:00:00.000000'
        """
        times = moments.astype("datetime64[us]")
        if self.is_months:
            number = (times.astype("datetime64[M]") - _MONTH_ORIGIN).astype(np.int64)
            starts = _MONTH_ORIGIN + number // self.length * self.length
        else:
            days = (times.astype("datetime64[D]") - _DAY_ORIGIN).astype(np.int64)
            starts = _DAY_ORIGIN + days // self.length * self.length
        return starts.astype("datetime64[us]").astype(np.int64)


@dataclass(frozen=True)
class CompositeOptions:
    """How a composite is made.

    Attributes:
        method: One of `METHODS`.
        period: None for one composite of all records.
        mask_band: Band that tells where a scene is not to be used.
        mask_values: Values of it that say so.
        valid: Add a BLOB of 0 and 1 that tells which pixels hold data.
        is_list: LISTs with NULL for no data, instead of BLOBs.
    """

    method: str
    period: Period | None
    mask_band: str | None
    mask_values: tuple[float, ...]
    valid: bool
    is_list: bool


def parse_period(name: str, value: object) -> Period:
    """A number of days, weeks, months, quarters or years.

    Raises:
        InputError: it is none.

    Example:
        >>> parse_period("period", "2 weeks"), parse_period("period", "year")
        (Period(length=14, is_months=False), Period(length=12, is_months=True))
    """
    found = _PERIOD.fullmatch(value) if isinstance(value, str) else None
    count = int(found[1] or 1) if found else 0
    if found is None or count < 1:
        raise InputError.expected(
            name,
            "a number of days, weeks, months, quarters or years",
            value,
            "'1 month' is an example; NULL makes one composite of all records",
        )
    unit = found[2].lower()
    return Period(count * _UNITS[unit], unit not in ("day", "week"))


class _CompositeLayers(LayerOutput):
    """Makes the layers of blocks.

    Args:
        read: The execution; its request names the output grid.
        bands: Bands that are wanted.
        options: How the composite is made.
    """

    def __init__(self, read: Read, bands: Sequence[str], options: CompositeOptions) -> None:
        super().__init__(read, bands)
        self._options = options
        grid = read.request.output_grid
        assert grid is not None  # noqa: S101 (composite_rows sets it)
        nearest = replace(grid, kernel="nearest")
        self._mask_request = replace(read.request, output_grid=nearest)

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of each unit."""
        window = plan.units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        return size * len(plan.bands) * 5 + 1

    def values_of(
        self, plan: TilePlan, unit: int, patches: dict[str, Patch]
    ) -> dict[str, tuple[Pixels, Mask] | None]:
        """Values of each band of a unit, and where the scene is used."""
        read, units = self.read, plan.units
        scene, grid = int(units.scene[unit]), plan.table.grids[int(units.grid[unit])]
        window = Window(*units.window[unit].tolist())
        inside = read.footprints.inside(
            grid, int(units.target[unit]), window, is_whole=bool(units.is_whole[unit])
        ).mask
        used = self._used(plan, (scene, grid, window), patches)
        found: dict[str, tuple[Pixels, Mask] | None] = {}
        for name in self.bands:
            values = read.values_of(plan, unit, name, patches[name])
            found[name] = None if values is None else self._layer(values, inside, used)
        return found

    def _used(
        self, plan: TilePlan, place: tuple[int, Grid, Window], patches: dict[str, Patch]
    ) -> Mask | None:
        """Where a scene is used, as its mask band says; None for everywhere."""
        name = self._options.mask_band
        if name is None:
            return None
        nothing = np.zeros((place[2].height, place[2].width), bool)
        if patches[name].error is not None:
            return nothing
        found = warped(self.read.footprints, self._mask_request, plan, place, name, patches[name])
        if found is None:
            return nothing
        return used_pixels(*found, self._options.mask_values)

    @staticmethod
    def _layer(
        found: tuple[Pixels, Mask | None], inside: Mask | None, used: Mask | None
    ) -> tuple[Pixels, Mask]:
        values, valid = found
        mask = np.ones(values.shape, bool) if valid is None else valid
        for one in (inside, used):
            mask = mask if one is None else mask & one
        if values.dtype.kind == "f":  # a number is asked for
            mask = mask & ~np.isnan(values)
        return values, mask


def combine(method: str, values: Pixels, used: Mask) -> tuple[Pixels, Mask]:
    """One value per pixel of many scenes.

    Args:
        method: One of `METHODS`.
        values: Shape (scenes, rows, columns), the earliest scene first.
        used: Which of them count, same shape.

    Returns:
        Values, shape (rows, columns), and where there are any. Median and mean are float64,
        counts int32, the others of the type of the values.

    Example:
        >>> values = np.array([[[4]], [[1]], [[9]]], np.uint8)
        >>> used = np.array([[[True]], [[False]], [[True]]])
        >>> {m: combine(m, values, used)[0].item() for m in ("median", "mean", "first", "count")}
        {'median': 6.5, 'mean': 6.5, 'first': 4, 'count': 2}
    """
    count = used.sum(axis=0, dtype=np.int32)
    there = count > 0
    if method == "count":
        return count, np.ones(count.shape, bool)
    if method == "mean":
        total = np.where(used, values, 0).sum(axis=0, dtype=np.float64)
        return np.divide(total, count, out=np.zeros(count.shape), where=there), there
    if method == "median":
        ordered = np.where(used, values.astype(np.float64), np.inf)
        ordered.sort(axis=0)
        last = np.maximum(count - 1, 0)
        low, high = (
            np.take_along_axis(ordered, n[np.newaxis], 0)[0]
            for n in (last // 2, count // 2 if len(values) > 1 else last)
        )
        return np.where(there, (low + high) / 2, 0.0), there
    if method in ("first", "last"):
        place = (
            used.argmax(axis=0) if method == "first" else len(used) - 1 - used[::-1].argmax(axis=0)
        )
        chosen = np.take_along_axis(values, place[np.newaxis], 0)[0]
        return np.where(there, chosen, chosen.dtype.type(0)), there
    is_integer = values.dtype.kind in "iu"
    limits: Any = np.iinfo(values.dtype) if is_integer else np.finfo(values.dtype)
    fill, pick = (limits.max, np.min) if method == "min" else (limits.min, np.max)
    if not is_integer:
        fill = np.inf if method == "min" else -np.inf
    chosen = pick(np.where(used, values, values.dtype.type(fill)), axis=0)
    return np.where(there, chosen, chosen.dtype.type(0)), there


def composite_rows(
    read: Read, bands: Sequence[str], options: CompositeOptions, records: Records
) -> Iterator[pa.RecordBatch]:
    """Read composites.

    Args:
        read: The execution.
        bands: Bands that are wanted; the others are not fetched.
        options: How it is made.
        records: Gives the scene tables, of all bands and the mask band.

    Raises:
        InputError: it would fetch more than allowed; complex values have no order.
    """
    table = all_scenes(records, read)
    if table is None:
        return
    read = on_common_grid(read, table)
    periods = _periods(options.period, moments_of(table))

    def planner() -> MosaicPlanner:
        return composite_planner(read, table, bands, options.period, options.mask_band)

    for layers in layers_by_place(_CompositeLayers(read, bands, options), planner, table):
        told = failed_row(read, layers)
        if told is None:
            told = _block(read, bands, options, int(periods[layers[0].scene]), layers)
        yield told


def composite_planner(
    read: Read,
    table: SceneTable,
    bands: Sequence[str],
    period: Period | None,
    mask_band: str | None,
) -> MosaicPlanner:
    """Plans composites.

    Args:
        read: The execution; its request names the output grid.
        table: All scenes.
        bands: Bands that are wanted.
        period: Of a composite; None for one of all records.
        mask_band: A band that is fetched too.
    """
    moments = moments_of(table)
    periods = _periods(period, moments)
    fetched = list(dict.fromkeys([*bands, *([mask_band] if mask_band else [])]))
    side = side_of(table, periods)
    return MosaicPlanner(read.request, read.footprints, moments, periods, side=side, bands=fetched)


def composite_schema(
    bands: Sequence[pa.Field], options: CompositeOptions, on_error: str
) -> pa.Schema:
    """Columns of composites."""
    return pa.schema(
        [
            pa.field("period", pa.timestamp("us")),
            pa.field("row_off", pa.int64()),
            pa.field("col_off", pa.int64()),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("transform", pa.list_(pa.float64())),
            CRS,
            pa.field("dtypes", pa.list_(pa.string())),
            pa.field("n_records", pa.int32()),
            *bands,
            *((pa.field("valid", pa.binary_view()),) if options.valid else ()),
            *((ERROR,) if on_error == "report" else ()),
        ]
    )


def _block(
    read: Read,
    bands: Sequence[str],
    options: CompositeOptions,
    start: int,
    layers: list[Layer],
) -> pa.RecordBatch:
    """The row of a block, and of the period that begins at a microsecond."""
    plan = layers[0].plan
    places = plan.units.window[[layer.unit for layer in layers]]
    window = Window(
        int(places[:, 0].min()),
        int(places[:, 1].max()),
        int(places[:, 2].min()),
        int(places[:, 3].max()),
    )
    grid = plan.table.grids[int(plan.units.grid[0])]
    row: dict[str, Any] = {
        "period": None if start == NO_MOMENT else start,
        "row_off": window.row_start,
        "col_off": window.col_start,
        "height": window.height,
        "width": window.width,
        "transform": transform_of(grid, window),
        "crs": grid.crs,
        "n_records": len({layer.scene for layer in layers}),
        "error": errors_of(layers),
    }
    dtypes, masks = [], []
    for name in bands:
        values, used = _stack(layers, name, window)
        if values.dtype.kind == "c":
            raise InputError.expected("bands", "real numbers", name, "leave it out")
        combined, there = combine(options.method, values, used)
        dtypes.append(combined.dtype.name)
        masks.append(there.ravel())
        if options.is_list:
            combined = np.ma.masked_array(combined, ~there)
        elif combined.dtype.kind == "f":
            combined = np.where(there, combined, np.nan).astype(combined.dtype)
        row[name] = combined
    row["dtypes"] = dtypes
    if options.valid:
        row["valid"] = np.concatenate([m.view(np.uint8) for m in masks]) if masks else None
    return read.batch(columns_of(read, bands, [row]), 1)


def _stack(layers: list[Layer], name: str, window: Window) -> tuple[Pixels, Mask]:
    """The values of all scenes in a block, and which of them are used."""
    found = [(layer, layer.bands[name]) for layer in layers]
    there = [(layer, one) for layer, one in found if one is not None]
    shape = (len(there) or 1, window.height, window.width)
    dtype = np.result_type(*(values.dtype for _, (values, _) in there)) if there else np.dtype("u1")
    stack, used = np.zeros(shape, dtype), np.zeros(shape, bool)
    for number, (layer, (values, mask)) in enumerate(there):
        own = layer.window
        rows = slice(own.row_start - window.row_start, own.row_stop - window.row_start)
        cols = slice(own.col_start - window.col_start, own.col_stop - window.col_start)
        stack[number, rows, cols], used[number, rows, cols] = values, mask
    return stack, used


def _periods(period: Period | None, moments: Ints) -> Ints:
    found = np.full(len(moments), NO_MOMENT, np.int64)
    there = moments != NO_MOMENT
    if period is not None and there.any():
        found[there] = period.starts(moments[there])
    return found
