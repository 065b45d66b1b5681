"""Decoded tiles: one row per record, band and tile under the area."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.errors import RasteretError, UnsupportedTiffError
from rasteret_sql.grid.windows import bounds_of, tile_window
from rasteret_sql.reading.patches import Patch, fill_value, pixels_of, plan_patch, valid_pixels
from rasteret_sql.reading.pipeline import Block, Pixels, Reader, item_bytes
from rasteret_sql.reading.pixels import located
from rasteret_sql.reading.plan import BandPlan, ReadOptions, plan_band
from rasteret_sql.reading.scenes import Band, Scene, missing_band, scenes
from rasteret_sql.reading.tileset import TileSet
from rasteret_sql.units import Affine

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
        ("pixels", pa.large_binary()),
    ]
)
"""Columns of a tile besides the record's own; the first four can be planned from."""

PLANNED = ("band", "level", "tile_row", "tile_col")
_MAX_TILE_BYTES = 1 << 30
_BATCH_BYTES = 16 * 1024 * 1024
_NEED_PIXELS = frozenset({"valid_count", "pixels", "error"})


@dataclass(frozen=True, eq=False)
class _TileItem:
    batch: pa.RecordBatch
    scene: Scene
    plan: BandPlan | dict[str, Any]  # or the row itself, where nothing can be planned
    tile_row: int = -1
    tile_col: int = -1
    patch: Patch | None = None


def tile_rows(
    batches: Iterator[pa.RecordBatch],
    options: ReadOptions,
    *,
    columns: Sequence[str],
    keep: pc.Expression | None,
    stop: threading.Event,
) -> Iterator[tuple[pa.RecordBatch, pa.Array, pa.RecordBatch]]:
    """Read tiles.

    Args:
        batches: Records with ``id``, ``assets``, the bands' metadata and the CRS columns.
        options: What to read.
        columns: Columns of `TILE_SCHEMA` wanted (and ``error`` for 'report'); without
            ``pixels``, ``valid_count`` and ``error`` nothing is requested.
        keep: Predicate over `PLANNED` columns; tiles that fail it are not requested.
        stop: Ends the read.

    Yields:
        The records' batch, the record's row for each tile, and the tiles.
    """
    wanted = [name for name in TILE_SCHEMA.names if name in columns]
    if "error" in columns:
        wanted.append("error")
    reader = Reader(stop, n_lanes=options.n_lanes)
    items = _items(batches, options, keep, with_pixels=not _NEED_PIXELS.isdisjoint(wanted))
    pending: list[tuple[_TileItem, dict[str, Any]]] = []
    size = 0
    for block in reader.run(items):
        item = block.payload
        if pending and (item.batch is not pending[0][0].batch or size > _BATCH_BYTES):
            yield _batch(pending, wanted)
            pending, size = [], 0
        row = _row(item, options)
        size += len(row.get("pixels") or b"")
        pending.append((item, row))
    if pending:
        yield _batch(pending, wanted)


def _batch(
    rows: Sequence[tuple[_TileItem, dict[str, Any]]], wanted: Sequence[str]
) -> tuple[pa.RecordBatch, pa.Array, pa.RecordBatch]:
    schema = pa.schema(
        [TILE_SCHEMA.field(n) if n != "error" else pa.field(n, pa.string()) for n in wanted]
    )
    values = [{name: row.get(name) for name in wanted} for _, row in rows]
    index = pa.array([item.scene.row for item, _ in rows], pa.int64())
    if not wanted:
        tiles = pa.RecordBatch.from_arrays([pa.nulls(len(rows))], ["_"])
    else:
        tiles = pa.RecordBatch.from_pylist(values, schema=schema)
    return rows[0][0].batch, index, tiles


def _items(
    batches: Iterator[pa.RecordBatch],
    options: ReadOptions,
    keep: pc.Expression | None,
    *,
    with_pixels: bool,
) -> Iterator[Block[_TileItem]]:
    for batch in batches:
        for scene in scenes(batch, options.bands):
            yield from _scene_items(batch, scene, options, keep, with_pixels=with_pixels)


def _scene_items(
    batch: pa.RecordBatch,
    scene: Scene,
    options: ReadOptions,
    keep: pc.Expression | None,
    *,
    with_pixels: bool,
) -> list[Block[_TileItem]]:
    tiles = TileSet()
    blocks: list[Block[_TileItem]] = []
    for name, band in scene.bands.items():
        try:
            if band is None:
                raise missing_band(scene, name)
            plan = plan_band(scene, band, options.level, options.aoi)
            if with_pixels:
                _check_size(scene, plan)
        except RasteretError as error:
            if options.on_error == "error":
                raise
            blocks += _unplanned(batch, scene, name, options, keep, error)
            continue
        for row, col in _kept(plan, options.level, keep):
            patch = _patch(tiles, band, plan, row, col, options) if with_pixels else None
            item = _TileItem(batch, scene, plan, row, col, patch)
            blocks.append(Block(patch.tiles if patch else [], item))
    tiles.request()
    return blocks


def _check_size(scene: Scene, plan: BandPlan) -> None:
    """Refuse tiles that are no value of a column."""
    block, level = plan.level.format, plan.level
    rows, columns = min(block.tile_height, level.height), min(block.tile_width, level.width)
    size = rows * columns * item_bytes(block)
    if size > _MAX_TILE_BYTES:
        raise UnsupportedTiffError.expected(
            f"{scene.id}, band {plan.band.name}",
            f"tiles of at most {_MAX_TILE_BYTES} bytes",
            f"{rows} x {columns} pixels",
            "read it with rasteret_pixels",
        )


def _unplanned(
    batch: pa.RecordBatch,
    scene: Scene,
    band: str,
    options: ReadOptions,
    keep: pc.Expression | None,
    error: RasteretError,
) -> list[Block[_TileItem]]:
    """One row without a place for a band whose tiles are not known, so that none is lost."""
    row = {"band": band, "level": options.level, "tile_row": None, "tile_col": None}
    table = pa.Table.from_pylist([row], schema=pa.schema([TILE_SCHEMA.field(n) for n in PLANNED]))
    if keep is not None and not table.filter(keep).num_rows:
        return []
    return [Block([], _TileItem(batch, scene, row | {"error": error.message}))]


def _kept(plan: BandPlan, level: int, keep: pc.Expression | None) -> Iterator[tuple[int, int]]:
    rows, cols = plan.tile_rows, plan.tile_cols
    if keep is not None and rows.size:
        table = pa.table(
            {
                "band": pa.repeat(plan.band.name, rows.size),
                "level": np.full(rows.size, level, np.int32),
                "tile_row": rows.astype(np.int32),
                "tile_col": cols.astype(np.int32),
            }
        ).filter(keep)
        rows, cols = table["tile_row"].to_numpy(), table["tile_col"].to_numpy()
    yield from zip(rows.tolist(), cols.tolist(), strict=True)


def _patch(
    tiles: TileSet, band: Band, plan: BandPlan, row: int, col: int, options: ReadOptions
) -> Patch:
    block, level = plan.level.format, plan.level
    window = tile_window(row, col, block.tile_height, block.tile_width, level.height, level.width)
    return plan_patch(tiles, band, options.level, window, masked=options.masked)


def _row(item: _TileItem, options: ReadOptions) -> dict[str, Any]:
    plan = item.plan
    if isinstance(plan, dict):
        return plan
    level, block = plan.level, plan.level.format
    window = tile_window(
        item.tile_row, item.tile_col, block.tile_height, block.tile_width, level.height, level.width
    )
    row: dict[str, Any] = {
        "band": plan.band.name,
        "level": options.level,
        "tile_row": item.tile_row,
        "tile_col": item.tile_col,
        "row_off": window.row_start,
        "col_off": window.col_start,
        "height": window.height,
        "width": window.width,
        "dtype": plan.band.dtype,
        "nodata": plan.band.nodata,
    }
    if level.affine is not None:
        x, y = level.affine.to_map(window.col_start, window.row_start)
        affine = Affine(*level.affine[:2], x, *level.affine[3:5], y)
        bounds = bounds_of(affine, window.height, window.width)
        row |= {"transform": list(affine), **bounds._asdict()}
    if item.patch is None:
        return row
    error = item.patch.error
    if error is not None:
        if options.on_error == "error":
            raise located(error, item.scene, plan.band.name)
        return row | {"error": error.message}
    return row | _pixel_values(item.patch, plan.band, options)


def _pixel_values(patch: Patch, band: Band, options: ReadOptions) -> dict[str, Any]:
    values = pixels_of(patch)
    valid = valid_pixels(patch, values) if options.masked else None
    if valid is None:
        return {"pixels": _little_endian(values), "valid_count": values.size}
    filled = np.where(
        valid, values, np.asarray(fill_value(band.nodata, values.dtype), values.dtype)
    )
    return {"pixels": _little_endian(filled), "valid_count": int(np.count_nonzero(valid))}


def _little_endian(values: Pixels) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def with_error(schema: pa.Schema, on_error: str) -> pa.Schema:
    """The schema, with a column ``error`` where errors are reported."""
    return schema.append(pa.field("error", pa.string())) if on_error == "report" else schema
