"""Composites: for each period and block of one grid, one value per pixel of many scenes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError
from rasteret_sql.reading.columns import Ints, common_dtype
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.outputs.combining import Combined
from rasteret_sql.reading.outputs.common import CRS, ERROR, Read, Records
from rasteret_sql.reading.outputs.mosaics import (
    NO_MOMENT,
    Layer,
    LayerOutput,
    MosaicPlanner,
    all_scenes,
    failed_row,
    joined,
    layers_by_place,
    moments_of,
    on_common_grid,
)
from rasteret_sql.reading.outputs.windows import columns_of, transform_of
from rasteret_sql.reading.patches import Patch, used_pixels, value_dtype
from rasteret_sql.reading.plan import TilePlan
from rasteret_sql.reading.scenes import Grid, SceneTable
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.reading.warps import warped
from rasteret_sql.units import Window

_BLOCKS = ((1024, 1024), (512, 1024), (256, 1024), (128, 1024), (128, 512), (128, 256), (128, 128))
"""Rows and columns of a block; the larger, the fewer tiles are needed by several."""

_STACK_BYTES = 160 << 20
"""Of a block: what is kept of its scenes until the last one came."""

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
        return composite_planner(
            read, table, bands, options.method, options.period, options.mask_band
        )

    (rows, cols), pixel_bytes = _block_of(table, read.request.bands, options.method, periods)
    held = min(_STACK_BYTES, rows * cols * pixel_bytes)
    output = _CompositeLayers(read, bands, options)
    for layers in layers_by_place(output, planner, table, held_bytes=held):
        first = next(layers)
        if first.unit < 0:
            yield failed_row(read, [first, *layers])
        else:
            start = int(periods[first.scene])
            yield _block(read, bands, options, start, itertools.chain([first], layers))


def composite_planner(
    read: Read,
    table: SceneTable,
    bands: Sequence[str],
    method: str,
    period: Period | None,
    mask_band: str | None,
) -> MosaicPlanner:
    """Plans composites.

    Args:
        read: The execution; its request names the output grid.
        table: All scenes.
        bands: Bands that are wanted.
        method: One of `METHODS`.
        period: Of a composite; None for one of all records.
        mask_band: A band that is fetched too.
    """
    moments = moments_of(table)
    periods = _periods(period, moments)
    fetched = list(dict.fromkeys([*bands, *([mask_band] if mask_band else [])]))
    block, _ = _block_of(table, read.request.bands, method, periods)
    return MosaicPlanner(
        read.request, read.footprints, moments, periods, block=block, bands=fetched
    )


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


def _block_of(
    table: SceneTable, bands: Sequence[str], method: str, periods: Ints
) -> tuple[tuple[int, int], int]:
    """Rows and columns of a block, and bytes of a pixel of it while its scenes come.

    Of all bands that were asked for: rows are the same whatever is selected of them.
    """
    chosen = np.ones(table.n_scenes, bool) if table.chosen is None else table.chosen
    most = int(np.unique(periods[chosen], return_counts=True)[1].max(initial=1))
    total = 0
    for name in bands:
        level = table.bands[name].level(0)
        kinds = [] if level is None else np.unique(level.kind[level.kind >= 0]).tolist()
        dtypes = [value_dtype(table.kinds[kind].dtype) for kind in kinds] or [np.dtype("u1")]
        total += Combined.bytes_per_pixel(method, np.result_type(*dtypes), most)
    fitting = (block for block in _BLOCKS if block[0] * block[1] * total <= _STACK_BYTES)
    return next(fitting, _BLOCKS[-1]), total


def _block(
    read: Read,
    bands: Sequence[str],
    options: CompositeOptions,
    start: int,
    layers: Iterator[Layer],
) -> pa.RecordBatch:
    """The row of a block, and of the period that begins at a microsecond."""
    first = next(layers)
    plan = first.plan
    places, scenes = plan.units.window, np.unique(plan.units.scene).tolist()
    window = Window(
        int(places[:, 0].min()),
        int(places[:, 1].max()),
        int(places[:, 2].min()),
        int(places[:, 3].max()),
    )
    shape, n_units = (window.height, window.width), len(plan.units.scene)
    found = {
        name: Combined(options.method, _dtype_of(read, plan, scenes, name), shape, n_units)
        for name in bands
    }
    errors = []
    for layer in itertools.chain([first], layers):
        at = layer.window
        own = Window(
            at.row_start - window.row_start,
            at.row_stop - window.row_start,
            at.col_start - window.col_start,
            at.col_stop - window.col_start,
        )
        for name, values in layer.bands.items():
            if values is not None:
                found[name].add(*values, own)
        errors.append(layer.error)
    grid = plan.table.grids[int(plan.units.grid[0])]
    row: dict[str, Any] = {
        "period": None if start == NO_MOMENT else start,
        "row_off": window.row_start,
        "col_off": window.col_start,
        "height": window.height,
        "width": window.width,
        "transform": transform_of(grid, window),
        "crs": grid.crs,
        "n_records": len(scenes),
        "error": joined(errors),
    }
    dtypes, masks = [], []
    for name, one in found.items():
        combined, there = one.result()
        dtypes.append(combined.dtype.name)
        masks.append(there.ravel())
        if options.is_list:
            combined = np.ma.masked_array(combined, ~there)
        elif combined.dtype.kind == "f":
            combined[~there] = np.nan
        row[name] = combined
    row["dtypes"] = dtypes
    if options.valid:
        row["valid"] = np.concatenate([m.view(np.uint8) for m in masks]) if masks else None
    return read.batch(columns_of(read, bands, [row]), 1)


def _dtype_of(read: Read, plan: TilePlan, scenes: Sequence[int], name: str) -> np.dtype[Any]:
    """Type of a band's values in some scenes.

    Raises:
        InputError: complex values have no order; no type holds all of them exactly.
    """
    kinds = [read.kind_of(plan, scene, name) for scene in scenes]
    dtype = common_dtype((value_dtype(kind.dtype) for kind in kinds if kind is not None), name)
    if dtype.kind == "c":
        todo = "leave it out of bands"
        raise InputError.expected(f"band {name}", "real numbers", dtype.name, todo)
    return dtype


def _periods(period: Period | None, moments: Ints) -> Ints:
    found = np.full(len(moments), NO_MOMENT, np.int64)
    there = moments != NO_MOMENT
    if period is not None and there.any():
        found[there] = period.starts(moments[there])
    return found
