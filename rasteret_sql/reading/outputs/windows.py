"""Windows: one row per record and target, with an array of each band."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError
from rasteret_sql.reading.band_kinds import BandKind
from rasteret_sql.reading.blocks import item_bytes
from rasteret_sql.reading.columns import Ints, blobs, common_type, to_arrow
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import CRS, ERROR, Read, Records, run
from rasteret_sql.reading.patches import Patch, fill_value, value_dtype
from rasteret_sql.reading.plan import Failure, Granularity, TilePlan
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.reading.warps import WarpPlanner
from rasteret_sql.units import Affine, Window

_BATCH_BYTES = 1024 * 1024
MAX_WINDOW_BYTES = 1 << 30
_ROW_BYTES = 256


@dataclass(frozen=True)
class WindowOptions:
    """How windows are returned.

    Attributes:
        crop: Windows of the target; else the whole raster, pixels outside hidden.
        valid: Add a BLOB of 0 and 1 that tells which pixels hold data.
        is_list: LISTs with NULL for no data, instead of BLOBs.
        per_band: Each band is on its own grid; places are lists with one entry per band.
    """

    crop: bool = True
    valid: bool = False
    is_list: bool = False
    per_band: bool = False


class WindowRows:
    """Makes rows of windows.

    Args:
        read: The execution.
        bands: Bands that are wanted.
        options: How they are returned.
    """

    def __init__(self, read: Read, bands: Sequence[str], options: WindowOptions) -> None:
        self._read = read
        self._bands = tuple(bands)
        self._options = options

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of each window, all bands."""
        window = plan.units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        each = 0
        for name in self._bands:
            level = plan.table.bands[name].level(plan.level)
            kinds = [] if level is None else np.unique(level.kind[level.kind >= 0]).tolist()
            items = [item_bytes(plan.table.kinds[kind].format) for kind in kinds]
            each += 8 if self._read.request.scaled else max(items, default=1)
            each += self._options.valid
        if len(size) and int(size.max()) * each > MAX_WINDOW_BYTES:
            unit = int(size.argmax())
            raise InputError.expected(
                f"record {plan.table.id_of(int(plan.units.scene[unit]))}",
                f"a window of at most {MAX_WINDOW_BYTES} bytes",
                f"{np.diff(window[unit])[0]} x {np.diff(window[unit])[2]} pixels",
                "draw a smaller area, read fewer bands, or use rasteret_pixels",
            )
        return size * each + _ROW_BYTES

    def group_bytes(self) -> int:
        """Bytes of a batch."""
        return _BATCH_BYTES

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        plan, units = group.plan, group.plan.units
        rows = [self._row(group, unit) for unit in range(group.start, group.stop)]
        return self._batch(
            plan,
            units.scene[group.start : group.stop].tolist(),
            units.target[group.start : group.stop].tolist(),
            rows,
        )

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> pa.RecordBatch:
        """A row without a place for each record that can't be planned."""
        firsts = {failure.scene: failure for failure in reversed(failures)}
        chosen = [firsts[scene] for scene in sorted(firsts)]
        rows: list[dict[str, Any]] = [{"error": failure.error.message} for failure in chosen]
        return self._batch(plan, [one.scene for one in chosen], [-1] * len(chosen), rows)

    def _batch(
        self, plan: TilePlan, scenes: list[int], targets: list[int], rows: list[dict[str, Any]]
    ) -> pa.RecordBatch:
        arrays = self._read.records_of(plan, scenes, targets, [1] * len(rows))
        return self._read.batch(arrays | columns_of(self._read, self._bands, rows), len(rows))

    def _row(self, group: Group, unit: int) -> dict[str, Any]:
        plan, read, units = group.plan, self._read, group.plan.units
        scene, target = int(units.scene[unit]), int(units.target[unit])
        patches = dict(zip(plan.bands, group.patches(unit), strict=True))
        row: dict[str, Any] = {"error": read.error_of(plan, scene, patches)}
        row |= self._facts(plan, scene)
        grid = plan.table.grids[int(units.grid[unit])]
        window = Window(*units.window[unit].tolist())
        if self._options.per_band:
            windows = {name: self._window(plan, scene, target, name) for name in plan.bands}
            places = [windows[name] for name in read.request.bands if name in windows]
            row["height"] = [one and one[1].height for one in places]
            row["width"] = [one and one[1].width for one in places]
            row["transform"] = [one and transform_of(*one) for one in places]
        else:
            windows = dict.fromkeys(plan.bands, (grid, window))
            row |= {"height": window.height, "width": window.width, "crs": grid.crs}
            row["transform"] = transform_of(grid, window)
        masks = []
        for name in self._bands:
            place = windows[name]
            values: Pixels | None = None
            valid: Mask | None = None
            if place is not None:
                is_whole = bool(units.is_whole[unit]) and not self._options.per_band
                inside = read.footprints.inside(place[0], target, place[1], is_whole=is_whole)
                patch = replace(patches[name], window=place[1])
                values, valid = self._values(plan, unit, name, patch, inside.mask)
            row[name] = values
            if place is not None and self._options.valid:
                shape = place[1].height, place[1].width
                everything = np.ones if values is not None else np.zeros
                masks.append((everything(shape, bool) if valid is None else valid).ravel())
        if self._options.valid:
            row["valid"] = (
                np.concatenate([mask.view(np.uint8) for mask in masks]) if masks else None
            )
        return row

    def _facts(self, plan: TilePlan, scene: int) -> dict[str, Any]:
        """Types and nodata values of the bands of a scene."""
        read = self._read
        kinds = [read.kind_of(plan, scene, name) for name in read.request.bands]
        scaled = [read.request.scaled and k and "complex" not in k.dtype for k in kinds]
        return {
            "dtypes": [
                k and ("float64" if s else value_dtype(k.dtype).name)
                for k, s in zip(kinds, scaled, strict=True)
            ],
            "nodata": [
                k and (self._scaled_nodata(k) if s else k.nodata)
                for k, s in zip(kinds, scaled, strict=True)
            ],
        }

    def _scaled_nodata(self, kind: BandKind) -> float | None:
        """What stands for no data among scaled values: NaN, or with ``masked := false`` its own."""
        if self._read.request.masked:
            return math.nan
        return None if kind.nodata is None else float(kind.scaled(np.array(kind.nodata)))

    def _window(
        self, plan: TilePlan, scene: int, target: int, name: str
    ) -> tuple[Grid, Window] | None:
        """Grid and window of a target in a band with a grid of its own."""
        level = plan.table.bands[name].level(plan.level)
        number = -1 if level is None else int(level.grid[scene])
        if number < 0:
            return None
        pairs, errors = self._read.footprints.pairs(plan.table.grids, np.array([number]))
        place = np.flatnonzero(pairs.target == target)
        if errors or not len(place):
            return None
        grid = plan.table.grids[number]
        if not self._options.crop:
            return grid, Window(0, grid.height, 0, grid.width)
        return grid, Window(*pairs.window[place[0]].tolist())

    def _values(
        self, plan: TilePlan, unit: int, name: str, patch: Patch, inside: Mask | None
    ) -> tuple[Pixels | None, Mask | None]:
        """Pixels of a band and which of them hold data (None: all)."""
        request = self._read.request
        found = self._read.values_of(plan, unit, name, patch)
        kind = self._read.kind_of(plan, int(plan.units.scene[unit]), name)
        if found is None or kind is None:
            return None, None
        values, valid = found
        if inside is not None and request.masked:
            valid = inside if valid is None else valid & inside
        if request.scaled and values.dtype.kind != "c":
            return self._scaled(values, valid, kind), valid
        if valid is not None and not self._options.is_list:
            fill = fill_value(kind.nodata, values.dtype)
            values = np.where(valid, values, np.asarray(fill, values.dtype))
        if self._options.is_list and valid is not None:
            return np.ma.masked_array(values, ~valid), valid
        return values, valid

    def _scaled(self, values: Pixels, valid: Mask | None, kind: BandKind) -> Pixels:
        values = kind.scaled(values)
        if valid is None:
            return values
        if self._options.is_list:
            return np.ma.masked_array(values, ~valid)
        return np.where(valid, values, np.nan)


def window_rows(
    read: Read,
    bands: Sequence[str],
    options: WindowOptions,
    records: Records,
) -> Iterator[pa.RecordBatch]:
    """Read windows.

    Args:
        read: The execution.
        bands: Bands that are wanted; the others are not fetched.
        options: How they are returned.
        records: Gives the scene tables.
    """
    if read.request.output_grid is not None:
        planner: Planner = WarpPlanner(
            read.request, read.footprints, bands=bands, crop=options.crop
        )
    else:
        planner = Planner(
            read.request,
            read.footprints,
            Granularity.WINDOW,
            bands=read.request.bands if options.per_band else bands,
            aligned=not options.per_band,
            crop=options.crop,
            whole_windows=not read.request.masked,
        )
    yield from run(read, WindowRows(read, bands, options), planner, records)


def window_schema(
    bands: Sequence[pa.Field], options: WindowOptions, on_error: str, *, has_crs: bool = False
) -> pa.Schema:
    """Columns of windows besides those of records and targets.

    Args:
        bands: Their columns.
        options: How windows are returned.
        on_error: As of the request.
        has_crs: Whether the CRS of the windows is not that of the records.
    """
    size, transform = pa.int32(), pa.list_(pa.float64())
    if options.per_band:
        size, transform = pa.list_(size), pa.list_(transform)
    return pa.schema(
        [
            pa.field("height", size),
            pa.field("width", size),
            pa.field("transform", transform),
            *((CRS,) if has_crs else ()),
            pa.field("dtypes", pa.list_(pa.string())),
            pa.field("nodata", pa.list_(pa.float64())),
            *bands,
            *((pa.field("valid", pa.binary_view()),) if options.valid else ()),
            *((ERROR,) if on_error == "report" else ()),
        ]
    )


def columns_of(
    read: Read, bands: Sequence[str], rows: Sequence[dict[str, Any]]
) -> dict[str, pa.Array]:
    """The wanted columns of a read's own, from rows; what a row lacks is NULL."""
    arrays = {}
    for field in read.schema:
        if field.name not in read.wanted:
            continue
        values = [row.get(field.name) for row in rows]
        if field.type == pa.binary_view():
            arrays[field.name] = blobs(values)
        elif field.name in bands:
            arrays[field.name] = lists_of(values, field.type)
        else:
            arrays[field.name] = pa.array(values, field.type)
    return arrays


def transform_of(grid: Grid, window: Window) -> list[float] | None:
    """The six numbers of a window's transform; None where the raster has none."""
    affine = grid.affine
    if affine is None:
        return None
    x, y = affine.to_map(window.col_start, window.row_start)
    return list(Affine(*affine[:2], x, *affine[3:5], y))


def lists_of(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A LIST column; masked elements are NULL."""
    item = kind.value_type
    parts, offsets = [], [0]
    for value in values:
        flat = np.empty(0) if value is None else np.ma.getdata(value).reshape(-1)
        null = np.ma.getmaskarray(value).reshape(-1) if np.ma.isMA(value) else None
        if value is not None:
            parts.append(to_arrow(flat, item, null))
        offsets.append(offsets[-1] + len(flat))
    flat_values = pa.concat_arrays(parts) if parts else pa.nulls(0, item)
    absent = np.array([value is None for value in values], bool)
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), flat_values, mask=pa.array(absent) if absent.any() else None
    )


def list_field(band: str, dtypes: Sequence[str], *, scaled: bool) -> pa.Field:
    """A LIST column of a band whose files have these types."""
    item = pa.float64() if scaled else common_type(dtypes)
    return pa.field(band, pa.large_list(item))
