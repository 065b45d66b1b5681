"""Headers of all assets, read concurrently and kept as ``{band}_metadata`` columns."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyproj.exceptions import ProjError

from rasteret_sql.errors import InterruptedReadError, RasteretError, UnsupportedTiffError, redact
from rasteret_sql.grid.crs import LONLAT, transformer
from rasteret_sql.grid.windows import bounds_of
from rasteret_sql.records.records import AssetFailure
from rasteret_sql.remote.lanes import Lanes, lanes
from rasteret_sql.remote.ranges import get_range, get_start
from rasteret_sql.schema import BAND_METADATA, BBOX, CRS, EPSG, metadata_column
from rasteret_sql.tiff.codecs import check_supported
from rasteret_sql.tiff.header import read_header
from rasteret_sql.tiff.layout import SEPARATE, Header, Level

_POLL_SECONDS = 0.1
_KEPT_HEADERS = 4096


@dataclass(frozen=True)
class AssetHeader:
    """A parsed header and what the store said of the file."""

    header: Header
    file_size: int | None
    etag: str | None


@dataclass
class Enrichment:
    """What came of enriching: counts for the build report, failures for rasteret_errors."""

    assets: int = 0
    enriched: int = 0
    requests: int = 0
    failures: list[AssetFailure] = field(default_factory=list)


def read_asset(href: str) -> tuple[AssetHeader, int]:
    """Read one header: one request for a well-made COG.

    Returns:
        The header, and how many requests it took.

    Raises:
        ReadError: the bytes did not come.
        HeaderError: they are no TIFF that we read.
    """
    start = get_start(href)
    n_requests = 1

    def fetch(offset: int, length: int) -> bytes:
        nonlocal n_requests
        n_requests += 1
        if start.size is not None:
            length = min(length, start.size - offset)
        return bytes(get_range(href, offset, length)) if length > 0 else b""

    header = read_header(fetch, start=start.data, file_size=start.size)
    check_supported(header.block_format(header.image))
    return AssetHeader(header, start.size, start.etag), n_requests


def enriched_schema(schema: pa.Schema, bands: Sequence[str]) -> pa.Schema:
    """The columns after enrichment: ``proj:epsg``, ``crs``, ``bbox`` and the bands' metadata."""
    for column in (EPSG, CRS, pa.field("bbox", BBOX)):
        if schema.get_field_index(column.name) < 0:
            schema = schema.append(column)
    for band in bands:
        if schema.get_field_index(metadata_column(band)) < 0:
            schema = schema.append(pa.field(metadata_column(band), BAND_METADATA))
    return schema


def enrich(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    bands: Sequence[str],
    result: Enrichment,
    *,
    n_lanes: int = 300,
    stop: threading.Event | None = None,
) -> Iterator[pa.RecordBatch]:
    """Add the headers to batches of records.

    Args:
        batches: Records with ``id`` and ``assets``.
        schema: `enriched_schema` of theirs.
        bands: Bands to enrich.
        result: Counts and failures are added here.
        n_lanes: Header requests under way at once.
        stop: Ends the work with InterruptedReadError.

    Yields:
        Each batch, in order, with the columns of ``schema``. An asset that can't be read is
        NULL there.
    """
    work = _Headers(lanes(n_lanes), stop or threading.Event())
    ahead: deque[tuple[pa.RecordBatch, list[_References]]] = deque()
    for batch in batches:
        references = [_References(batch, band) for band in bands]
        for reference in references:
            work.start(reference.hrefs)
        ahead.append((batch, references))
        if len(ahead) > 1:
            yield _finish(*ahead.popleft(), schema, work, result)
    while ahead:
        yield _finish(*ahead.popleft(), schema, work, result)


class _References:
    """Where one band of each record lies."""

    def __init__(self, batch: pa.RecordBatch, band: str) -> None:
        self.band = band
        assets = batch.column("assets")
        if assets.type.get_field_index(band) < 0:
            self.hrefs: list[str | None] = [None] * batch.num_rows
            self.indices: list[int | None] = [None] * batch.num_rows
            return
        asset = assets.field(band)
        self.hrefs = asset.field("href").to_pylist()
        self.indices = asset.field("band_index").to_pylist()


class _Headers:
    """Headers under way and done, each distinct URL once."""

    def __init__(self, pool: Lanes, stop: threading.Event) -> None:
        self._pool = pool
        self._stop = stop
        self._futures: dict[str, Future[tuple[AssetHeader, int]]] = {}

    def start(self, hrefs: Sequence[str | None]) -> None:
        for href in hrefs:
            if href and href not in self._futures:
                self._futures[href] = self._pool.submit(self._read, href)
        for old in list(self._futures)[: max(0, len(self._futures) - _KEPT_HEADERS)]:
            if self._futures[old].done() and old not in hrefs:
                del self._futures[old]

    def get(self, href: str) -> tuple[AssetHeader, int]:
        future = self._futures.get(href)
        if future is None:
            self.start([href])
            future = self._futures[href]
        while not future.done():
            if self._stop.is_set():
                self.cancel()
                raise InterruptedReadError("interrupted")
            wait_for(future)
        return future.result()

    def cancel(self) -> None:
        for future in self._futures.values():
            future.cancel()

    def _read(self, href: str) -> tuple[AssetHeader, int]:
        if self._stop.is_set():
            raise InterruptedReadError("interrupted")
        return read_asset(href)


def wait_for(future: Future[Any]) -> None:
    """Wait a moment for a future; its error stays inside."""
    event = threading.Event()
    future.add_done_callback(lambda _: event.set())
    event.wait(_POLL_SECONDS)


def _finish(
    batch: pa.RecordBatch,
    references: Sequence[_References],
    schema: pa.Schema,
    work: _Headers,
    result: Enrichment,
) -> pa.RecordBatch:
    ids = batch.column("id").to_pylist()
    counted: set[str] = set()
    first: list[AssetHeader | None] = [None] * batch.num_rows
    columns: dict[str, pa.Array] = {}
    for reference in references:
        rows: list[dict[str, Any] | None] = []
        for row, (href, index) in enumerate(zip(reference.hrefs, reference.indices, strict=True)):
            if not href:
                rows.append(None)
                continue
            result.assets += 1
            try:
                asset, n_requests = work.get(href)
                rows.append(metadata_row(asset, index or 0))
            except InterruptedReadError:
                raise
            except RasteretError as error:
                rows.append(None)
                failure = AssetFailure(str(ids[row]), reference.band, redact(href), error.message)
                result.failures.append(failure)
                continue
            result.enriched += 1
            first[row] = first[row] or asset
            if href not in counted:
                counted.add(href)
                result.requests += n_requests
        columns[metadata_column(reference.band)] = pa.array(rows, BAND_METADATA)
    columns |= _crs_columns(batch, first, references, result)
    columns["bbox"] = _bbox_column(batch, first)
    arrays = [
        columns[f.name] if f.name in columns else batch.column(f.name).cast(f.type) for f in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def metadata_row(asset: AssetHeader, band_index: int) -> dict[str, Any]:
    """One band's ``{band}_metadata``.

    Raises:
        UnsupportedTiffError: the file has no such sample.
    """
    header = asset.header
    if not 0 <= band_index < header.samples_per_pixel:
        raise UnsupportedTiffError.expected(
            "band_index", f"0 to {header.samples_per_pixel - 1}", band_index, "count from 0"
        )
    image, georef = header.image, header.georef
    offsets, counts = _own_tiles(image, band_index)
    affine = georef.affine
    plain = affine is not None and affine.is_rectilinear
    return {
        "image_width": image.width,
        "image_height": image.height,
        "tile_width": image.tile_width,
        "tile_height": image.tile_height,
        "dtype": header.dtype,
        "transform": [affine.a, affine.c, affine.e, affine.f] if plain and affine else None,
        "predictor": image.predictor,
        "compression": image.compression,
        "tile_offsets": offsets,
        "tile_byte_counts": counts,
        "pixel_scale": georef.pixel_scale,
        "tiepoint": georef.tiepoint,
        "nodata": None if header.nodata is None else float(header.nodata),
        "samples_per_pixel": header.samples_per_pixel,
        "planar_configuration": header.planar_configuration,
        "photometric": image.photometric,
        "extra_samples": header.extra_samples,
        "byte_order": header.byte_order,
        "bits_per_sample": image.bits_per_sample,
        "affine": affine,
        "scale": header.scales[band_index] if header.scales else None,
        "offset": header.offsets[band_index] if header.offsets else None,
        "overviews": [_level_row(level, band_index) for level in header.overviews],
        "mask": _mask_row(header, band_index),
        "jpeg_tables": image.jpeg_tables,
        "is_tiled": image.is_tiled,
        "file_size": asset.file_size,
        "etag": asset.etag,
        "fill_order": header.fill_order,
        "t4_options": header.t4_options,
        "ycbcr_subsampling": header.ycbcr_subsampling,
        "ycbcr_coefficients": header.ycbcr_coefficients or None,
        "reference_black_white": header.reference_black_white or None,
    }


def _mask_row(header: Header, band_index: int) -> dict[str, Any] | None:
    """The transparency mask; without one, the alpha band where it has blocks of its own.

    Alpha that lies in the blocks of the band itself needs no further table. As in GDAL, a
    no-data value counts more than alpha.
    """
    levels: tuple[Level, ...] = ()
    if header.mask is not None:
        levels = header.mask, *header.mask_overviews
    elif header.planar_configuration == SEPARATE and header.nodata is None:
        alpha = header.alpha
        if alpha not in (None, band_index) and header.dtype.startswith("uint"):
            levels, band_index = (header.image, *header.overviews), alpha
    if not levels:
        return None
    full, *overviews = (_level_row(level, band_index) for level in levels)
    return full | {"overviews": overviews}


def _level_row(level: Level, band_index: int) -> dict[str, Any]:
    offsets, counts = _own_tiles(level, band_index)
    return {
        "width": level.width,
        "height": level.height,
        "tile_width": level.tile_width,
        "tile_height": level.tile_height,
        "tile_offsets": offsets,
        "tile_byte_counts": counts,
        "compression": level.compression,
        "predictor": level.predictor,
        "photometric": level.photometric,
        "bits_per_sample": level.bits_per_sample,
        "is_tiled": level.is_tiled,
        "jpeg_tables": level.jpeg_tables,
        "block_samples": level.block_samples,
    }


def _own_tiles(level: Level, band_index: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The band's own slice of the tile table where planes are separate, else all of it."""
    if level.tile_offsets.size <= level.tiles_per_plane:
        return level.tile_offsets, level.tile_byte_counts
    own = slice(band_index * level.tiles_per_plane, (band_index + 1) * level.tiles_per_plane)
    return level.tile_offsets[own], level.tile_byte_counts[own]


def _crs_columns(
    batch: pa.RecordBatch,
    first: Sequence[AssetHeader | None],
    references: Sequence[_References],
    result: Enrichment,
) -> dict[str, pa.Array]:
    """CRS per record: the header's wins, as the pixels lie there; a conflict is reported."""
    names = batch.schema.names
    nothing = [None] * batch.num_rows
    codes = batch.column("proj:epsg").to_pylist() if "proj:epsg" in names else list(nothing)
    texts = batch.column("crs").to_pylist() if "crs" in names else list(nothing)
    for row, asset in enumerate(first):
        if asset is None or asset.header.georef.crs is None:
            continue
        georef = asset.header.georef
        if georef.epsg and codes[row] and codes[row] != georef.epsg:
            own = next(r for r in references if r.hrefs[row])
            result.failures.append(
                AssetFailure(
                    str(batch.column("id")[row].as_py()),
                    own.band,
                    redact(own.hrefs[row] or ""),
                    f"proj:epsg: the record says {codes[row]}, the file {georef.epsg}; "
                    "the file's is used",
                )
            )
        codes[row], texts[row] = georef.epsg, georef.crs
    return {"proj:epsg": pa.array(codes, pa.int32()), "crs": pa.array(texts, pa.string())}


def _bbox_column(batch: pa.RecordBatch, first: Sequence[AssetHeader | None]) -> pa.Array:
    """Bounds per record; where the record has none, those of its first raster."""
    if "bbox" not in batch.schema.names:
        boxes: list[Any] = [None] * batch.num_rows
    else:
        column = batch.column("bbox").cast(BBOX)
        if not column.null_count:
            return column
        boxes = column.to_pylist()
    for row, asset in enumerate(first):
        if boxes[row] is None and asset is not None:
            boxes[row] = _lonlat_bounds(asset.header)
    return pa.array(boxes, BBOX)


def _lonlat_bounds(header: Header) -> dict[str, float] | None:
    georef = header.georef
    if georef.affine is None or georef.crs is None:
        return None
    bounds = bounds_of(georef.affine, header.image.height, header.image.width)
    try:
        box = transformer(georef.crs, LONLAT).transform_bounds(*bounds, densify_pts=21)
    except ProjError:  # an engineering CRS, or one of another planet
        return None
    if not np.isfinite(box).all():
        return None
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
