"""Decoded tiles: one row per record, band and tile under the targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.errors import UnsupportedTiffError
from rasteret_sql.grid.windows import bounds_of
from rasteret_sql.reading.blocks import item_bytes
from rasteret_sql.reading.columns import Ints, blobs
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import ERROR, Read, Records, message_of, run, with_record
from rasteret_sql.reading.patches import (
    fill_value,
    has_only_nodata,
    pixels_of,
    valid_pixels,
    value_dtype,
)
from rasteret_sql.reading.plan import Failure, Granularity, Needs, TilePlan, Units
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.units import Affine, Window

TILE_SCHEMA = pa.schema(
    [
        ("band", pa.string()),
        ("level", pa.int32()),
        ("tile_row", pa.int32()),
        ("tile_col", pa.int32()),
        ("row_off", pa.int32()),
        ("col_off", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("xmin", pa.float64()),
        ("ymin", pa.float64()),
        ("xmax", pa.float64()),
        ("ymax", pa.float64()),
        ("transform", pa.list_(pa.float64())),
        ("dtype", pa.string()),
        ("nodata", pa.float64()),
        ("valid_count", pa.int64()),
        ("pixels", pa.binary_view()),
    ]
)
"""Columns of a tile besides the record's own; the first four can be planned from."""

PLANNED = ("band", "level", "tile_row", "tile_col")
NEED_PIXELS = frozenset({"valid_count", "pixels", "error"})
_MAX_TILE_BYTES = 1 << 30
_BATCH_BYTES = 8 * 1024 * 1024
_ROW_BYTES = 256


class TileRows:
    """Makes rows of tiles.

    Args:
        read: The execution.
        with_pixels: Whether tiles are decoded at all.
    """

    def __init__(self, read: Read, *, with_pixels: bool) -> None:
        self._read = read
        self._with_pixels = with_pixels

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of each tile."""
        window = plan.units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        if not self._with_pixels:
            return np.full(len(size), _ROW_BYTES, np.int64)
        items = [_items(plan, band) for band in range(len(plan.bands))]
        each = np.array(items or [8], np.int64)[plan.units.band]
        return size * each + _ROW_BYTES

    def group_bytes(self) -> int:
        """Bytes of a batch."""
        return _BATCH_BYTES

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        plan, units = group.plan, group.plan.units
        chosen = range(group.start, group.stop)
        rows = [self._row(group, unit) for unit in chosen]
        scenes = units.scene[group.start : group.stop].tolist()
        return self._batch(plan, scenes, rows)

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> pa.RecordBatch | None:
        """A row without a place for each band whose tiles are not known, so that none is lost."""
        rows = [
            {"band": failure.band, "level": plan.level, "error": failure.error.message}
            for failure in failures
        ]
        return self._batch(plan, [failure.scene for failure in failures], rows)

    def _batch(
        self, plan: TilePlan, scenes: list[int], rows: list[dict[str, Any]]
    ) -> pa.RecordBatch:
        read = self._read
        arrays = read.records_of(plan, scenes, [-1] * len(scenes), [1] * len(scenes))
        for field in read.schema:
            if field.name == "pixels":
                arrays["pixels"] = blobs([row.get("pixels") for row in rows])
            elif field.name in read.wanted:
                arrays[field.name] = pa.array([row.get(field.name) for row in rows], field.type)
        return read.batch(arrays, len(rows))

    def _row(self, group: Group, unit: int) -> dict[str, Any]:
        plan, units = group.plan, group.plan.units
        number, scene = int(units.band[unit]), int(units.scene[unit])
        name = plan.bands[number]
        level = plan.table.bands[name].level(plan.level)
        assert level is not None  # noqa: S101 (the unit is a tile of it)
        kind = plan.table.kinds[int(level.kind[scene])]
        window = Window(*units.window[unit].tolist())
        row: dict[str, Any] = {
            "band": name,
            "level": plan.level,
            "tile_row": window.row_start // kind.format.tile_height,
            "tile_col": window.col_start // kind.format.tile_width,
            "row_off": window.row_start,
            "col_off": window.col_start,
            "height": window.height,
            "width": window.width,
            "dtype": value_dtype(kind.dtype).name,
            "nodata": kind.nodata,
        }
        affine = plan.table.grids[int(units.grid[unit])].affine
        if affine is not None:
            x, y = affine.to_map(window.col_start, window.row_start)
            moved = Affine(*affine[:2], x, *affine[3:5], y)
            bounds = bounds_of(moved, window.height, window.width)
            row |= {"transform": list(moved), **bounds._asdict()}
        return row | self._pixels(group, unit, name, scene) if self._with_pixels else row

    def _pixels(self, group: Group, unit: int, name: str, scene: int) -> dict[str, Any]:
        request, plan = self._read.request, group.plan
        patch = group.patches(unit)[int(plan.units.band[unit])]
        error = patch.error
        if error is not None or patch.kind is None:
            if error is not None and request.on_error == "error":
                raise with_record(error, plan.table, scene, name)
            if error is None:
                return {"error": "no header"}
            return {"error": message_of(error, plan.table, scene, name)}
        values = pixels_of(patch)
        if has_only_nodata(patch) and "valid_count" not in self._read.wanted:
            return {"pixels": values}  # nodata is what pixels without data are set to
        valid = valid_pixels(patch, values) if request.masked else None
        if valid is None:
            return {"pixels": values, "valid_count": values.size}
        return {
            "pixels": masked_values(values, valid, patch.kind.nodata),
            "valid_count": int(np.count_nonzero(valid)),
        }


def masked_values(values: Pixels, valid: Pixels, nodata: float | None) -> Pixels:
    """Values, with nodata (else 0) where there is no data."""
    fill = np.asarray(fill_value(nodata, values.dtype), values.dtype)
    return np.where(valid, values, fill)


def tile_rows(
    read: Read,
    records: Records,
    keep: pc.Expression | None,
) -> Iterator[pa.RecordBatch]:
    """Read tiles.

    Args:
        read: The execution; without ``pixels``, ``valid_count`` and ``error`` among the wanted
            columns nothing is requested.
        records: Gives the scene tables.
        keep: Predicate over `PLANNED` columns; tiles that fail it are not requested.
    """
    with_pixels = not NEED_PIXELS.isdisjoint(read.wanted)
    planner = _TilePlanner(read, keep, with_pixels=with_pixels)
    whole = Planner(read.request, read.footprints, Granularity.TILE)
    yield from run(read, TileRows(read, with_pixels=with_pixels), planner, records, whole)


def tile_schema(on_error: str) -> pa.Schema:
    """Columns of a tile, with one for errors where they are reported."""
    return TILE_SCHEMA.append(ERROR) if on_error == "report" else TILE_SCHEMA


class _TilePlanner(Planner):
    """Leaves out tiles that a predicate drops, and all bytes where no pixel is wanted."""

    def __init__(self, read: Read, keep: pc.Expression | None, *, with_pixels: bool) -> None:
        super().__init__(read.request, read.footprints, Granularity.TILE)
        self._keep = keep
        self._with_pixels = with_pixels

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """The plans of what is left."""
        for plan in super().plans(table):
            kept = plan if self._keep is None else self._filtered(plan, self._keep)
            if not self._with_pixels:
                yield without_needs(kept)
                continue
            yield self._deliverable(kept)

    def _deliverable(self, plan: TilePlan) -> TilePlan:
        """Refuse tiles that are no value of a column."""
        window = plan.units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        each = np.array([_items(plan, band) for band in range(len(plan.bands))] or [8])
        is_large = size * each[plan.units.band] > _MAX_TILE_BYTES
        failures = list(plan.failures)
        for unit in np.flatnonzero(is_large).tolist():
            scene, band = int(plan.units.scene[unit]), plan.bands[int(plan.units.band[unit])]
            high, wide = np.diff(window[unit])[[0, 2]].tolist()
            error = UnsupportedTiffError.expected(
                f"{plan.table.id_of(scene)}, band {band}",
                f"tiles of at most {_MAX_TILE_BYTES} bytes",
                f"{high} x {wide} pixels",
                "read it with rasteret_pixels",
            )
            if self.request.on_error == "error":
                raise error
            failures.append(Failure(scene, band, error))
        if not is_large.any():
            return plan
        return replace(take_units(plan, np.flatnonzero(~is_large)), failures=tuple(failures))

    def _filtered(self, plan: TilePlan, keep: pc.Expression) -> TilePlan:
        units = plan.units
        table = _planned_columns(plan).append_column("_unit", pa.array(np.arange(len(units.scene))))
        chosen = table.filter(keep)["_unit"].to_numpy()
        failures = tuple(one for one in plan.failures if _is_kept(one, plan.level, keep))
        return replace(take_units(plan, chosen), failures=failures)


def take_units(plan: TilePlan, chosen: Ints) -> TilePlan:
    """Some units of a plan, and what they need."""
    number = np.full(len(plan.units.scene), -1, np.int64)
    number[chosen] = np.arange(len(chosen))
    of = number[plan.needs.unit]
    needs = Needs._make(column[of >= 0] for column in plan.needs)._replace(unit=of[of >= 0])
    used = np.unique(needs.tile[needs.tile >= 0])
    tile = np.full(len(plan.tiles.file) + 1, -1, np.int64)
    tile[used] = np.arange(len(used))
    tiles = type(plan.tiles)(*(column[used] for column in plan.tiles))
    return replace(
        plan,
        units=Units._make(column[chosen] for column in plan.units),
        needs=needs._replace(tile=tile[needs.tile]),
        tiles=tiles,
    )


def without_needs(plan: TilePlan) -> TilePlan:
    """A plan of which nothing is fetched."""
    return replace(
        plan,
        needs=Needs(*(column[:0] for column in plan.needs)),
        tiles=type(plan.tiles)(*(column[:0] for column in plan.tiles)),
    )


def _planned_columns(plan: TilePlan) -> pa.Table:
    units = plan.units
    rows, cols = np.zeros(len(units.scene), np.int32), np.zeros(len(units.scene), np.int32)
    for number, name in enumerate(plan.bands):
        level = plan.table.bands[name].level(plan.level)
        own = np.flatnonzero(units.band == number)
        if level is None or not len(own):
            continue
        formats = [kind.format for kind in plan.table.kinds]
        kind = level.kind[units.scene[own]]
        rows[own] = units.window[own, 0] // np.array([f.tile_height for f in formats])[kind]
        cols[own] = units.window[own, 2] // np.array([f.tile_width for f in formats])[kind]
    band = pa.DictionaryArray.from_arrays(units.band.astype(np.int32), pa.array(plan.bands))
    return pa.table(
        {
            "band": band.cast(pa.string()),
            "level": np.full(len(rows), plan.level, np.int32),
            "tile_row": rows,
            "tile_col": cols,
        }
    )


def _is_kept(failure: Failure, level: int, keep: pc.Expression) -> bool:
    row = {"band": failure.band, "level": level, "tile_row": None, "tile_col": None}
    schema = pa.schema([TILE_SCHEMA.field(name) for name in PLANNED])
    return bool(pa.Table.from_pylist([row], schema=schema).filter(keep).num_rows)


def _items(plan: TilePlan, band: int) -> int:
    """Bytes of a value of a band, at most."""
    level = plan.table.bands[plan.bands[band]].level(plan.level)
    if level is None:
        return 8
    kinds = np.unique(level.kind[level.kind >= 0]).tolist()
    return max([item_bytes(plan.table.kinds[kind].format) for kind in kinds], default=8)
