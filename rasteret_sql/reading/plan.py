"""Which tiles a read needs: scenes x bands x area, vectorised over tiles. No I/O.

Source: TIFF 6.0 section 15 (tiles are ordered left to right, top to bottom); COG
driver documentation (blocks may lie next to each other with 8 bytes between them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rasteret_sql.errors import CollectionError, InputError, RasteretError, UnsupportedTiffError
from rasteret_sql.grid.aoi import Aoi
from rasteret_sql.grid.masks import is_box
from rasteret_sql.grid.windows import bounds_of, tiles_under, to_pixels, window_of
from rasteret_sql.reading.pipeline import item_bytes
from rasteret_sql.reading.scenes import Band, BandLevel, Scene, missing_band, scenes
from rasteret_sql.remote.ranges import merge_ranges
from rasteret_sql.tiff.codecs import check_supported
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.rows import RowAccess, row_access, row_bytes
from rasteret_sql.units import Window

OnError = Literal["error", "null", "report"]


@dataclass(frozen=True)
class ReadOptions:
    """What every read takes.

    Attributes:
        bands: Bands, in output order.
        aoi: Area; None is the whole raster.
        level: 0 is full resolution, 1 the largest overview.
        all_touched: Pixels that the area touches, not only those whose centre it holds.
        masked: Hide nodata, masked, transparent and sparse pixels.
        scaled: Apply the file's scale and offset.
        on_error: What a tile or header that can't be read does.
        max_bytes: Refuse a read that would fetch more.
        n_lanes: Requests under way at once.
        whole_tiles: Tiles are delivered whole, also where the area needs a part of them.
    """

    bands: tuple[str, ...]
    aoi: Aoi | None = None
    level: int = 0
    all_touched: bool = False
    masked: bool = True
    scaled: bool = False
    on_error: OnError = "error"
    max_bytes: int | None = None
    n_lanes: int = 64
    whole_tiles: bool = False


@dataclass(frozen=True, eq=False)
class Area:
    """The part of one image level under the AOI.

    Attributes:
        window: Pixels to look at.
        geometry_px: The AOI in pixel coordinates; None where every pixel of the window counts.
    """

    window: Window
    geometry_px: shapely.Geometry | None

    def __bool__(self) -> bool:
        """Whether any pixel lies in it."""
        return not self.window.is_empty


@dataclass(frozen=True, eq=False)
class BandPlan:
    """The tiles of one band of one scene under the AOI; all arrays have one length.

    The bytes are those that a read of the area fetches: of blocks that are not compressed,
    only the rows of the area.
    """

    band: Band
    level: BandLevel
    area: Area
    tile_rows: NDArray[np.int64]
    tile_cols: NDArray[np.int64]
    byte_offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]

    @property
    def decoded_bytes(self) -> int:
        """Size of one tile of this band alone."""
        block = self.level.format
        return block.tile_height * block.tile_width * item_bytes(block)


def area_under(scene: Scene, level: BandLevel, aoi: Aoi | None) -> Area:
    """Cut an image level with the AOI.

    Raises:
        InputError: the raster has no CRS or transform, or one that is no place on the map
            of the AOI.
    """
    whole = Window(0, level.height, 0, level.width)
    if aoi is None:
        return Area(whole, None)
    if aoi.is_pixel:
        geometry = aoi.geometry
    else:
        if level.affine is None or scene.crs is None:
            missing = "transform" if level.affine is None else "CRS"
            raise InputError.expected(
                f"record {scene.id}",
                f"a raster with a {missing}",
                "none",
                "read it whole, or give the area in pixels with geometry_crs := 'pixel'",
            )
        bounds = bounds_of(level.affine, level.height, level.width)
        try:
            geometry = to_pixels(aoi.to_crs(scene.crs, bounds), level.affine)
        except InputError as error:
            raise InputError(f"record {scene.id}: {error.message}") from error
    if geometry.is_empty:
        return Area(Window(0, 0, 0, 0), None)
    window = window_of(geometry, level.height, level.width)
    return Area(window, None if _is_whole_pixels(geometry, window) else geometry)


def _is_whole_pixels(geometry: shapely.Geometry, window: Window) -> bool:
    """Whether the mask is all true: a box whose edges hold every pixel centre."""
    if window.is_empty or not is_box(geometry):
        return False
    xmin, ymin, xmax, ymax = geometry.bounds
    return bool(
        xmin < window.col_start + 0.5
        and xmax > window.col_stop - 0.5
        and ymin < window.row_start + 0.5
        and ymax > window.row_stop - 0.5
    )


def plan_band(
    scene: Scene, band: Band, level: int, aoi: Aoi | None, *, whole_tiles: bool = False
) -> BandPlan:
    """The tiles of one band under the AOI, row by row.

    Raises:
        InputError: the band has no such level.
        UnsupportedTiffError: the codec is one that is refused by name.
    """
    if level >= len(band.levels):
        raise InputError.expected(
            "level",
            f"at most {len(band.levels) - 1} for record {scene.id}, band {band.name}",
            level,
            "0 is full resolution, 1 the largest overview",
        )
    image = band.levels[level]
    try:
        check_supported(image.format)
    except UnsupportedTiffError as error:
        raise UnsupportedTiffError(f"{scene.id}, band {band.name}: {error.message}") from error
    area = area_under(scene, image, aoi)
    rows, cols = _tiles(area, image)
    index = rows * image.tiles_across + cols
    if index.size and int(index[-1]) >= len(image.tile_offsets):
        raise CollectionError.expected(
            f"{scene.id}, band {band.name}",
            f"a tile table of {int(index[-1]) + 1} or more",
            len(image.tile_offsets),
            "build the collection again",
        )
    offsets, counts = image.tile_offsets[index], image.tile_byte_counts[index]
    if not whole_tiles and row_access(image.format) is RowAccess.ANY:
        offsets, counts = _row_ranges(rows, offsets, counts, area.window, image.format)
    return BandPlan(band, image, area, rows, cols, offsets, counts)


def _row_ranges(
    rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    window: Window,
    block: BlockFormat,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of blocks that are not compressed, where the rows of the window are."""
    top = rows * block.tile_height
    first = np.maximum(window.row_start - top, 0) * row_bytes(block)
    stop = np.minimum(window.row_stop - top, block.tile_height) * row_bytes(block)
    first = np.minimum(first, np.maximum(counts - 1, 0))
    return offsets + first, np.minimum(stop, counts) - np.where(counts > 0, first, 0)


def _tiles(area: Area, level: BandLevel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    height, width = level.format.tile_height, level.format.tile_width
    if not area:
        nothing = np.empty(0, np.int64)
        return nothing, nothing
    span = tiles_under(area.window, height, width)
    rows, cols = np.mgrid[span.row_start : span.row_stop, span.col_start : span.col_stop]
    rows, cols = rows.ravel(), cols.ravel()
    if area.geometry_px is not None and rows.size > 1:
        boxes = shapely.box(cols * width, rows * height, (cols + 1) * width, (rows + 1) * height)
        shapely.prepare(area.geometry_px)
        touched = shapely.intersects(area.geometry_px, boxes)
        rows, cols = rows[touched], cols[touched]
    return rows, cols


PLAN_SCHEMA = pa.schema(
    [
        ("band", pa.string()),
        ("level", pa.int32()),
        ("tile_row", pa.int32()),
        ("tile_col", pa.int32()),
        ("href", pa.string()),
        ("byte_offset", pa.int64()),
        ("byte_count", pa.int64()),
        ("decoded_bytes", pa.int64()),
        ("request", pa.int64()),
    ]
)
"""Columns of a plan besides the record's own."""

_TOLD_SCHEMA = PLAN_SCHEMA.append(pa.field("error", pa.string()))


@dataclass(frozen=True)
class _Unplanned:
    """A band whose tiles are not known, and why."""

    name: str
    error: str


def plan_tables(
    batches: Iterator[pa.RecordBatch], options: ReadOptions
) -> Iterator[tuple[pa.RecordBatch, NDArray[np.int64], pa.RecordBatch]]:
    """Plan batch by batch.

    A band that can't be planned is one row without a place, unless `ReadOptions.on_error`
    is 'error', as in a read.

    Yields:
        The records, the record's row for each planned tile, and the plan: `PLAN_SCHEMA`,
        and ``error``.

    Raises:
        RasteretError: a band that can't be planned.
    """
    first_request = 0
    for batch in batches:
        parts: list[pa.RecordBatch] = []
        rows: list[NDArray[np.int64]] = []
        for scene in scenes(batch, options.bands, completed=options.level > 0):
            plans = [_planned(scene, name, options) for name in scene.bands]
            part, n_requests = _plan_scene(plans, options.level, first_request)
            first_request += n_requests
            if part.num_rows:
                parts.append(part)
                rows.append(np.full(part.num_rows, scene.row, np.int64))
        if parts:
            table = pa.Table.from_batches(parts).combine_chunks()
            yield batch, np.concatenate(rows), table.to_batches()[0]


def _planned(scene: Scene, name: str, options: ReadOptions) -> BandPlan | _Unplanned:
    try:
        band = scene.bands[name]
        if band is None:
            raise missing_band(scene, name)
        return plan_band(scene, band, options.level, options.aoi, whole_tiles=options.whole_tiles)
    except RasteretError as error:
        if options.on_error == "error":
            raise
        return _Unplanned(name, error.message)


def _plan_scene(
    plans: Sequence[BandPlan | _Unplanned], level: int, first_request: int
) -> tuple[pa.RecordBatch, int]:
    known = [plan for plan in plans if isinstance(plan, BandPlan)]
    requests, n_requests = _request_numbers(known, first_request)
    numbers = iter(requests)
    parts = [
        _unplanned_row(plan, level)
        if isinstance(plan, _Unplanned)
        else _plan_rows(plan, level, next(numbers))
        for plan in plans
    ]
    return pa.concat_batches(parts), n_requests


def _unplanned_row(band: _Unplanned, level: int) -> pa.RecordBatch:
    row = {"band": band.name, "level": level, "error": band.error}
    return pa.RecordBatch.from_pylist([row], schema=_TOLD_SCHEMA)


def _plan_rows(plan: BandPlan, level: int, numbers: NDArray[np.int64]) -> pa.RecordBatch:
    n_tiles = plan.tile_rows.size
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(plan.band.name, n_tiles),
            pa.array(np.full(n_tiles, level, np.int32)),
            pa.array(plan.tile_rows.astype(np.int32)),
            pa.array(plan.tile_cols.astype(np.int32)),
            pa.repeat(plan.band.href, n_tiles),
            pa.array(plan.byte_offsets),
            pa.array(plan.byte_counts),
            pa.array(np.full(n_tiles, plan.decoded_bytes, np.int64)),
            pa.array(numbers, mask=plan.byte_counts == 0),
            pa.nulls(n_tiles, pa.string()),
        ],
        schema=_TOLD_SCHEMA,
    )


def _request_numbers(plans: Sequence[BandPlan], first: int) -> tuple[list[NDArray[np.int64]], int]:
    """Number the merged requests; a tile that two bands share has one number."""
    number = first
    known: dict[tuple[str, int], int] = {}
    by_href: dict[str, dict[int, int]] = {}
    for plan in plans:
        ranges = by_href.setdefault(plan.band.href, {})
        for offset, count in zip(
            plan.byte_offsets.tolist(), plan.byte_counts.tolist(), strict=True
        ):
            if count:
                ranges[offset] = count
    for href, ranges in by_href.items():
        spans = [(offset, offset + count) for offset, count in ranges.items()]
        for merged in merge_ranges(spans):
            for member in merged.members:
                known[href, spans[member][0]] = number
            number += 1
    numbers = [
        np.array([known.get((p.band.href, o), -1) for o in p.byte_offsets.tolist()], np.int64)
        for p in plans
    ]
    return numbers, number - first
