"""Pixels as rows: one row per pixel of a record under the area.

Rows come block by block (a block is a tile of the first band cut to the area, a large one
in slabs of rows), so memory is bounded by tiles, not by scenes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.grid.masks import polygon_mask
from rasteret_sql.grid.windows import pixel_centres, tile_window
from rasteret_sql.reading.patches import Patch, pixels_of, plan_patch, valid_pixels
from rasteret_sql.reading.pipeline import Block, Pixels, Reader
from rasteret_sql.reading.plan import Area, BandPlan, ReadOptions, plan_band
from rasteret_sql.reading.scenes import Band, BandLevel, Scene, missing_band, scenes
from rasteret_sql.reading.tileset import Streams, TileSet, slabs
from rasteret_sql.units import Affine, Window

_PLANNED_AT_ONCE = 4096

POSITION_FIELDS = [
    pa.field("x", pa.float64()),
    pa.field("y", pa.float64()),
    pa.field("row", pa.int32()),
    pa.field("col", pa.int32()),
]
"""Pixel centre in CRS units (pixels where the raster has no transform), and its place."""


def sql_type(dtype: str) -> pa.DataType:
    """Arrow type of a band's values in SQL.

    Half floats widen to FLOAT, which DuckDB has; complex numbers are STRUCT(re, im).

    Example:
        >>> sql_type("uint16"), sql_type("float16")
        (DataType(uint16), DataType(float))
    """
    if dtype.startswith("complex"):
        part = pa.float32() if dtype in ("complex64", "complex_int16") else pa.float64()
        return pa.struct([("re", part), ("im", part)])
    return pa.float32() if dtype == "float16" else pa.from_numpy_dtype(np.dtype(dtype))


def common_type(dtypes: Sequence[str]) -> pa.DataType:
    """The smallest type that holds the values of all records of a band exactly.

    Raises:
        InputError: there is none: int64 beside uint64, or one of these beside real or
            complex numbers.

    Example:
        >>> common_type(["uint8", "int16"]), common_type(["uint8", "float32"])
        (DataType(int16), DataType(float))
    """
    types = {sql_type(dtype) for dtype in dtypes}
    if len(types) == 1:
        return types.pop()
    if any(pa.types.is_struct(t) for t in types):
        common = pa.struct([("re", pa.float64()), ("im", pa.float64())])
    else:
        common = pa.from_numpy_dtype(np.result_type(*(t.to_pandas_dtype() for t in types)))
    is_real = not pa.types.is_integer(common)
    if is_real and any(pa.types.is_integer(t) and t.bit_width == 64 for t in types):
        raise InputError.expected(
            "types of its files",
            "some that one column holds exactly",
            ", ".join(sorted(set(dtypes))),
            "read them apart, by the dtype in {band}_metadata, or scaled := true for DOUBLE",
        )
    return common


@dataclass(frozen=True, eq=False)
class PixelBlock:
    """A block of one scene on its way: where it lies, and a patch per band.

    A record of which no band has a header, or that can't be planned (``error`` says why), is
    one row without a place: ``area`` is None.
    """

    batch: pa.RecordBatch
    scene: Scene
    area: Area | None
    affine: Affine | None
    patches: dict[str, Patch]
    error: RasteretError | None = None


def pixel_rows(
    batches: Iterator[pa.RecordBatch],
    options: ReadOptions,
    *,
    schema: pa.Schema,
    columns: Sequence[str],
    stop: threading.Event,
) -> Iterator[tuple[pa.RecordBatch, int, pa.RecordBatch]]:
    """Read pixels.

    Args:
        batches: Records with ``id``, ``assets``, the bands' metadata and the CRS columns.
        options: What to read; `ReadOptions.level` is 0.
        schema: Types of the position and band columns (and ``error`` for 'report').
        columns: Which of them are wanted; bands left out are not requested.
        stop: Ends the read.

    Yields:
        The records' batch, the record's row in it, and the pixels of a block.
    """
    wanted = set(columns)
    bands = [band for band in options.bands if band in wanted]
    reader = Reader(stop, n_lanes=options.n_lanes)
    blocks = _blocks(batches, options, bands)
    for block in reader.run(blocks):
        item = block.payload
        rows = _rows(item, options, schema, wanted)
        if rows.num_rows:
            yield item.batch, item.scene.row, rows


def _blocks(
    batches: Iterator[pa.RecordBatch], options: ReadOptions, bands: Sequence[str]
) -> Iterator[Block[PixelBlock]]:
    for batch in batches:
        for scene in scenes(batch, options.bands):
            yield from _scene_blocks(batch, scene, options, bands)


def _scene_blocks(
    batch: pa.RecordBatch, scene: Scene, options: ReadOptions, bands: Sequence[str]
) -> Iterator[Block[PixelBlock]]:
    present = {name: band for name, band in scene.bands.items() if band is not None}
    if not present:
        if options.on_error == "error":
            raise missing_band(scene, next(iter(scene.bands)))
        yield _nowhere(batch, scene, bands)
        return
    first = next(iter(present.values()))
    try:
        plan = plan_band(scene, first, 0, options.aoi)
    except RasteretError as error:
        if options.on_error == "error":
            raise
        yield _nowhere(batch, scene, bands, error)
        return
    if not plan.tile_rows.size:
        return
    for name in bands:
        band = scene.bands[name]
        if band is None:
            if options.on_error == "error":
                raise missing_band(scene, name)
        elif not _same_grid(band.levels[0], plan.level):
            raise InputError.expected(
                f"record {scene.id}, band {name}",
                f"the grid of band {first.name} ({_grid_text(plan.level)})",
                _grid_text(band.levels[0]),
                "read bands of unlike resolution in separate calls",
            )
    windows = _windows(plan)
    streams: Streams = {}
    # In groups, so that a file that says it has a million slabs is not planned whole.
    while group := list(itertools.islice(windows, _PLANNED_AT_ONCE)):
        tiles = TileSet(streams)
        blocks = [
            _block(batch, scene, plan.area, plan.level, window, tiles, bands, options)
            for window in group
        ]
        tiles.request()
        yield from blocks


def _nowhere(
    batch: pa.RecordBatch, scene: Scene, bands: Sequence[str], error: RasteretError | None = None
) -> Block[PixelBlock]:
    patches = {name: Patch(Window(0, 1, 0, 1), None) for name in bands}
    return Block([], PixelBlock(batch, scene, None, None, patches, error))


def _windows(plan: BandPlan) -> Iterator[Window]:
    """The tiles cut to the area, large ones cut into slabs."""
    level, block = plan.level, plan.level.format
    for row, col in zip(plan.tile_rows.tolist(), plan.tile_cols.tolist(), strict=True):
        tile = tile_window(row, col, block.tile_height, block.tile_width, level.height, level.width)
        yield from slabs(tile.intersection(plan.area.window), block)


def _block(
    batch: pa.RecordBatch,
    scene: Scene,
    area: Area,
    level: BandLevel,
    window: Window,
    tiles: TileSet,
    bands: Sequence[str],
    options: ReadOptions,
) -> Block[PixelBlock]:
    patches = {}
    for name in bands:
        band = scene.bands[name]
        patches[name] = (
            Patch(window, None)
            if band is None
            else plan_patch(tiles, band, 0, window, masked=options.masked)
        )
    needed = [tile for patch in patches.values() for tile in patch.tiles]
    item = PixelBlock(batch, scene, Area(window, area.geometry_px), level.affine, patches)
    return Block(needed, item)


def _rows(
    item: PixelBlock, options: ReadOptions, schema: pa.Schema, wanted: set[str]
) -> pa.RecordBatch:
    inside, n_rows = _inside(item.area, options)
    arrays: dict[str, pa.Array] = _positions(item, inside, schema, wanted)
    errors = []
    for name, patch in item.patches.items():
        kind = schema.field(name).type
        error = patch.error or item.scene.faults.get(name)
        if error is not None and options.on_error == "error":
            raise located(error, item.scene, name)
        if patch.band is None or error is not None:
            errors.append((name, error))
            arrays[name] = pa.nulls(n_rows, kind)
        else:
            arrays[name] = _values(patch, patch.band, inside, kind, options)
    if "error" in wanted and options.on_error == "report":
        text = "; ".join(
            f"{name}: {'no header' if error is None else error.message}" for name, error in errors
        )
        if item.error is not None:
            text = item.error.message
        arrays["error"] = pa.array([text or None] * n_rows, pa.string())
    names = [name for name in schema.names if name in arrays]
    if not names:
        return pa.RecordBatch.from_arrays([pa.nulls(n_rows)], ["_"])
    return pa.RecordBatch.from_arrays([arrays[name] for name in names], names)


def _inside(area: Area | None, options: ReadOptions) -> tuple[Pixels | None, int]:
    """Flat indices of the pixels that count, None for all of them; and how many they are."""
    if area is None:
        return None, 1
    window = area.window
    if area.geometry_px is not None:
        mask = polygon_mask(area.geometry_px, window, all_touched=options.all_touched)
        if not mask.all():
            inside = np.flatnonzero(mask)
            return inside, inside.size
    return None, window.height * window.width


def _positions(
    item: PixelBlock, inside: Pixels | None, schema: pa.Schema, wanted: set[str]
) -> dict[str, pa.Array]:
    if item.area is None:
        fields = (field for field in POSITION_FIELDS if field.name in wanted)
        return {field.name: pa.nulls(1, schema.field(field.name).type) for field in fields}
    window = item.area.window
    shape = (window.height, window.width)
    grids: dict[str, Pixels] = {}
    if wanted & {"x", "y"}:
        affine = item.affine or Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        x, y = pixel_centres(affine, window)
        if x.ndim == 1:
            x, y = np.broadcast_to(x, shape), np.broadcast_to(y[:, np.newaxis], shape)
        grids |= {"x": x, "y": y}
    if "row" in wanted:
        rows = np.arange(window.row_start, window.row_stop, dtype=np.int32)
        grids["row"] = np.broadcast_to(rows[:, np.newaxis], shape)
    if "col" in wanted:
        cols = np.arange(window.col_start, window.col_stop, dtype=np.int32)
        grids["col"] = np.broadcast_to(cols, shape)
    return {name: pa.array(_take(grid, inside)) for name, grid in grids.items() if name in wanted}


def _values(
    patch: Patch, band: Band, inside: Pixels | None, kind: pa.DataType, options: ReadOptions
) -> pa.Array:
    grid = pixels_of(patch)
    valid = valid_pixels(patch, grid) if options.masked else None
    values = _take(grid, inside)
    null = None if valid is None else ~_take(valid, inside)
    if options.scaled and values.dtype.kind != "c":
        scale = 1.0 if band.scale is None else band.scale
        values = values.astype(np.float64) * scale + (band.offset or 0.0)
    return to_arrow(values, kind, null)


def to_arrow(values: Pixels, kind: pa.DataType, null: Pixels | None) -> pa.Array:
    """A band's values as a column of this type, NULL where told."""
    if pa.types.is_struct(kind):
        part = kind.field(0).type
        parts = [pa.array(np.ascontiguousarray(p), type=part) for p in (values.real, values.imag)]
        mask = None if null is None else pa.array(null)
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=mask)
    wide = values.astype(kind.to_pandas_dtype(), copy=False)
    return pa.array(wide, type=kind, mask=null)


def _take(grid: Pixels, inside: Pixels | None) -> Pixels:
    flat = np.ascontiguousarray(grid).reshape(-1)
    return flat if inside is None else flat[inside]


def _same_grid(a: BandLevel, b: BandLevel) -> bool:
    return (a.width, a.height) == (b.width, b.height) and _close(a.affine, b.affine)


def _close(a: Affine | None, b: Affine | None) -> bool:
    """Whether two grids of one scene agree to a thousandth of a pixel."""
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a, b, rtol=0, atol=1e-3 * abs(a.determinant) ** 0.5))


def _grid_text(level: BandLevel) -> str:
    return f"{level.width} x {level.height} px"


def located(error: RasteretError, scene: Scene, band: str) -> RasteretError:
    """The error, with the record and band it happened in."""
    located: Any = type(error)(f"record {scene.id}, band {band}: {error.message}")
    located.__cause__ = error
    return located  # type: ignore[no-any-return]
