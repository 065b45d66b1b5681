"""Headers of all assets, read concurrently and kept as ``{band}_metadata`` columns."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rasteret_sql.errors import HeaderError, InterruptedReadError, RasteretError, redact
from rasteret_sql.ingest import asset_hints
from rasteret_sql.ingest.header_journal import HeaderJournal
from rasteret_sql.ingest.headers import Headers
from rasteret_sql.ingest.raster_footprints import (
    RasterGrid,
    covers,
    inside,
    lonlat_box,
    lonlat_footprint,
    widened,
)
from rasteret_sql.ingest.records import AssetFailure
from rasteret_sql.progress import counts
from rasteret_sql.remote.headers import AssetHeader
from rasteret_sql.schema import BAND_METADATA, BBOX, CRS, EPSG, metadata_column
from rasteret_sql.tiff.band_values import band_values
from rasteret_sql.units import BBox

_PIECE_ASSETS = 512
_FIRST_PIECE_ASSETS = 256
_PIECE_BYTES = 64 << 20
_N_AHEAD = 3

Grids = dict[RasterGrid, None]
"""The different grids of a record's rasters, in the order of its bands."""


@dataclass
class Enrichment:
    """What came of enriching: counts for the build report, lines for rasteret_errors.

    Attributes:
        failures: Assets that could not be read.
        conflicts: Where record and file differ; the asset was read.
    """

    assets: int = 0
    enriched: int = 0
    requests: int = 0
    failures: list[AssetFailure] = field(default_factory=list)
    conflicts: list[AssetFailure] = field(default_factory=list)


def enriched_schema(schema: pa.Schema, bands: Sequence[str]) -> pa.Schema:
    """The columns after enrichment: ``proj:epsg``, ``crs``, ``bbox`` and the bands' metadata."""
    for column in (EPSG, CRS, pa.field("bbox", BBOX)):
        if schema.get_field_index(column.name) < 0:
            schema = schema.append(column)
    for band in bands:
        column = pa.field(metadata_column(band), BAND_METADATA)
        at = schema.get_field_index(column.name)
        schema = schema.append(column) if at < 0 else schema.set(at, column)
    return schema


def enrich(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    bands: Sequence[str],
    result: Enrichment,
    *,
    max_concurrent: int = 300,
    stop: threading.Event | None = None,
    journal: HeaderJournal | None = None,
    headers: Headers | None = None,
    has_outlines: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Add the headers to batches of records.

    Args:
        batches: Records with ``id`` and ``assets``, perhaps with `asset_hints.COLUMN`.
        schema: `enriched_schema` of theirs.
        bands: Bands to enrich.
        result: Counts and failures are added here.
        max_concurrent: Header requests under way at once.
        stop: Ends the work with InterruptedReadError.
        journal: Headers of an earlier build that was cut short; gets the new ones.
        headers: Those at hand; in place of the three above.
        has_outlines: Whether a record without geometry gets the outline of its raster.

    Yields:
        All records, in order, with the columns of ``schema``; the batches are others than
        those that came in, as their size follows that of the tile tables. An asset that
        can't be read is NULL there.
    """
    work = headers or Headers(max_concurrent, stop or threading.Event(), journal)
    pieces = _Pieces(batches, bands)

    def finish(piece: _Piece) -> pa.RecordBatch:
        return _finish(piece, schema, work, result, pieces, has_outlines=has_outlines)

    ahead: deque[_Piece] = deque()
    n_ahead = 0
    for piece in pieces:
        work.start(piece.hrefs)
        ahead.append(piece)
        n_ahead += len(piece.hrefs)
        while n_ahead - len(ahead[0].hrefs) >= _N_AHEAD * pieces.n_assets:
            n_ahead -= len(ahead[0].hrefs)
            yield finish(ahead.popleft())
    while ahead:
        yield finish(ahead.popleft())


class _References:
    """Where one band of each record lies."""

    def __init__(self, batch: pa.RecordBatch, band: str) -> None:
        self.band = band
        self.hints: list[dict[str, float | None] | None] = [None] * batch.num_rows
        assets = batch.column("assets")
        if assets.type.get_field_index(band) < 0:
            self.hrefs: list[str | None] = [None] * batch.num_rows
            self.indices: list[int | None] = [None] * batch.num_rows
            return
        asset = assets.field(band)
        self.hrefs = asset.field("href").to_pylist()
        self.indices = asset.field("band_index").to_pylist()
        if asset_hints.COLUMN in batch.schema.names:
            self.hints = batch.column(asset_hints.COLUMN).field(band).to_pylist()


class _Piece:
    """Some records, and where their bands lie."""

    def __init__(self, batch: pa.RecordBatch, bands: Sequence[str]) -> None:
        self.batch = batch
        self.references = [_References(batch, band) for band in bands]
        self.hrefs = list(dict.fromkeys(href for r in self.references for href in r.hrefs if href))


class _Pieces:
    """Batches cut into pieces, small ones first, then by what the tile tables weigh.

    A piece and those read ahead are in memory at once: a thousand headers of Sentinel-2
    scenes are 5 MB, but one of a mosaic of a million tiles is 16 MB.

    Attributes:
        n_assets: About how many assets the next piece has.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch], bands: Sequence[str]) -> None:
        self._batches = batches
        self._bands = bands
        self.n_assets = _FIRST_PIECE_ASSETS

    def __iter__(self) -> Iterator[_Piece]:
        for batch in self._batches:
            row = 0
            while row < batch.num_rows:
                n_rows = max(1, self.n_assets // max(1, len(self._bands)))
                yield _Piece(batch.slice(row, n_rows), self._bands)
                row += n_rows

    def learn(self, n_assets: int, n_bytes: int) -> None:
        """Take the next pieces as large as the last one allows, at most twice as large."""
        if n_assets:
            fitting = max(1, _PIECE_BYTES * n_assets // max(1, n_bytes))
            self.n_assets = min(_PIECE_ASSETS, fitting, 2 * self.n_assets)


def _finish(
    piece: _Piece,
    schema: pa.Schema,
    work: Headers,
    result: Enrichment,
    pieces: _Pieces,
    *,
    has_outlines: bool,
) -> pa.RecordBatch:
    batch, references = piece.batch, piece.references
    work.wait(piece.hrefs)
    n_before = result.assets
    first: list[AssetHeader | None] = [None] * batch.num_rows
    grids: list[Grids] = [{} for _ in range(batch.num_rows)]
    columns = {
        metadata_column(reference.band): _metadata_column(
            batch, reference, work, first, grids, result
        )
        for reference in references
    }
    pieces.learn(result.assets - n_before, sum(column.nbytes for column in columns.values()))
    result.requests += work.release(piece.hrefs)
    counts.add("records done", batch.num_rows)
    columns |= _crs_columns(batch, first, references, result)
    columns["bbox"] = _bbox_column(batch, grids, references, result)
    if has_outlines:
        columns["geometry"] = _geometry_column(batch, grids)
    arrays = [
        columns[f.name] if f.name in columns else batch.column(f.name).cast(f.type) for f in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _metadata_column(
    batch: pa.RecordBatch,
    reference: _References,
    work: Headers,
    first: list[AssetHeader | None],
    grids: Sequence[Grids],
    result: Enrichment,
) -> pa.Array:
    """One band's ``{band}_metadata``.

    ``first`` gets the header of rows that had none yet, ``grids`` where all of them lie.
    """
    rows: list[dict[str, Any] | None] = [None] * batch.num_rows
    for row, (href, index) in enumerate(zip(reference.hrefs, reference.indices, strict=True)):
        if not href:
            continue
        result.assets += 1
        try:
            asset = work.get(href)
            values = band_values(asset.header, index or 0)
            grid = RasterGrid.of(asset.header)
        except InterruptedReadError:
            raise
        except Exception as error:  # noqa: BLE001 (one asset never ends a build)
            _fail(batch, row, reference, error, result)
            continue
        hint = reference.hints[row]
        for text in asset_hints.apply_hint(values, hint) if hint else ():
            result.conflicts.append(_line(batch, row, reference, text))
        rows[row] = values | {"file_size": asset.file_size, "etag": asset.etag}
        first[row] = first[row] or asset
        if grid is not None:
            grids[row][grid] = None
    column = _stored(batch, rows, reference, result)
    n_stored = len(column) - column.null_count
    result.enriched += n_stored
    counts.add("headers", n_stored)
    return column


def _stored(
    batch: pa.RecordBatch,
    rows: Sequence[dict[str, Any] | None],
    reference: _References,
    result: Enrichment,
) -> pa.Array:
    """The values as a column; a header with one that no column holds is a failure."""
    try:
        return pa.array(rows, BAND_METADATA)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        pass
    fitting = []
    for row, values in enumerate(rows):
        try:
            fitting.append(pa.array([values], BAND_METADATA))
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            _fail(batch, row, reference, error, result)
            fitting.append(pa.nulls(1, BAND_METADATA))
    return pa.concat_arrays(fitting)


def _fail(
    batch: pa.RecordBatch,
    row: int,
    reference: _References,
    error: Exception,
    result: Enrichment,
) -> None:
    if not isinstance(error, RasteretError):
        error = HeaderError.expected(
            "TIFF header", "values that can be", error, "the file is corrupt"
        )
    result.failures.append(_line(batch, row, reference, error.message))
    counts.add("unreadable")


def _line(batch: pa.RecordBatch, row: int, reference: _References, text: str) -> AssetFailure:
    name = str(batch.column("id")[row].as_py())
    return AssetFailure(name, reference.band, redact(reference.hrefs[row] or ""), text)


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
            text = (
                f"proj:epsg: the record says {codes[row]}, the file {georef.epsg}; "
                "the file's is used"
            )
            result.conflicts.append(_line(batch, row, own, text))
        codes[row], texts[row] = georef.epsg, georef.crs
    return {"proj:epsg": pa.array(codes, pa.int32()), "crs": pa.array(texts, pa.string())}


def _bbox_column(
    batch: pa.RecordBatch,
    grids: Sequence[Grids],
    references: Sequence[_References],
    result: Enrichment,
) -> pa.Array:
    """Bounds per record that hold its rasters; what had to be widened is reported."""
    boxes: list[Any] = [None] * batch.num_rows
    if "bbox" in batch.schema.names:
        column = batch.column("bbox").cast(BBOX)
        if not any(grids):
            return column
        boxes = column.to_pylist()
    for row, found in enumerate(grids):
        given = boxes[row] and BBox(**boxes[row])
        box = given if given is None or None not in given else None
        for grid in found:
            own = lonlat_box(grid)
            if own is not None and (box is None or not covers(box, inside(grid, own))):
                box = own if box is None else widened(box, own)
        if box is not None and box != given:
            boxes[row] = box._asdict()
            if given is not None:
                text = (
                    f"bbox: the record's {_shown(given)} does not cover the file; "
                    f"it is widened to {_shown(box)}"
                )
                own_reference = next(r for r in references if r.hrefs[row])
                result.conflicts.append(_line(batch, row, own_reference, text))
    return pa.array(boxes, BBOX)


def _shown(box: BBox) -> str:
    return "[" + ", ".join("NULL" if n is None else f"{n:.6g}" for n in box) + "]"


def _geometry_column(batch: pa.RecordBatch, grids: Sequence[Grids]) -> pa.Array:
    """Footprint per record: the record's own, else the outline of its first raster."""
    column = batch.column("geometry")
    shapes = column.to_pylist()
    for row, found in enumerate(grids):
        if shapes[row] is None and found:
            shapes[row] = lonlat_footprint(next(iter(found)))
    return pa.array(shapes, column.type)
