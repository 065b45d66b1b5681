"""Headers of files whose cached metadata lack what a read needs: the only header requests here.

Collections that rasteret made cache seventeen fields of a header. Byte order, overviews,
masks, JPEG tables and other things are not among them; each file is asked once for them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import pyarrow as pa

from rasteret_sql.errors import HeaderError, RasteretError, ReadError
from rasteret_sql.reading.record_columns import asset_columns
from rasteret_sql.remote.headers import read_asset
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.stores import access_to
from rasteret_sql.schema import BAND_METADATA, metadata_column
from rasteret_sql.tiff.band_values import band_values
from rasteret_sql.tiff.layout import Header

Faults = dict[tuple[int, str], RasteretError]

_N_LANES = 64
_KEPT_TILES = 4_000_000
"""Tiles in all tables of the headers that are kept; 64 MB."""
_POLL_SECONDS = 0.1

_kept: OrderedDict[tuple[str, object], Header] = OrderedDict()
_n_tiles = 0
_lock = threading.Lock()


def backfill(
    batch: pa.RecordBatch,
    bands: Sequence[str],
    check: Callable[[], None],
    *,
    may_request: bool = True,
) -> tuple[pa.RecordBatch, Faults]:
    """The records with whole ``{band}_metadata``, from their files where fields are unknown.

    Args:
        batch: Records with ``id``, ``assets`` and ``{band}_metadata``.
        bands: Bands to look at.
        check: Called while files are asked; ends that by raising.
        may_request: Whether files are asked; otherwise only what was asked before is used.

    Returns:
        The records, the same object where nothing was lacking; and why a band of a record has
        no header, by row and band.
    """
    lacking = {band: _lacking(batch, band) for band in bands}
    hrefs = list(dict.fromkeys(href for rows in lacking.values() for href, _ in rows.values()))
    if not hrefs:
        return batch, {}
    headers = _headers(hrefs, check, may_request=may_request)
    faults: Faults = {}
    for band, rows in lacking.items():
        values: dict[int, dict[str, Any] | None] = {}
        for row, (href, index) in rows.items():
            found = headers.get(href)
            if found is None:
                continue
            try:
                if isinstance(found, RasteretError):
                    raise found
                values[row] = band_values(found, index)
                batch = _with_crs(batch, row, found)
            except (HeaderError, ReadError) as error:
                values[row] = None
                record = batch.column("id")[row].as_py()
                faults[row, band] = type(error)(f"record {record}, band {band}: {error.message}")
        if values:
            batch = _replaced(batch, metadata_column(band), values)
    return batch, faults


def _lacking(batch: pa.RecordBatch, band: str) -> dict[int, tuple[str, int]]:
    """Rows whose byte order is unknown, as all else is that is ours: file and sample."""
    metadata = batch.column(metadata_column(band))
    if metadata.type.get_field_index("byte_order") >= 0:
        unknown = metadata.field("byte_order")
        if not unknown.null_count and not metadata.null_count:
            return {}
        is_unknown = unknown.is_null().to_pylist()
    else:
        is_unknown = [True] * batch.num_rows
    is_valid = metadata.is_valid().to_pylist()
    rows = [n for n in range(batch.num_rows) if is_valid[n] and is_unknown[n]]
    if not rows:
        return {}
    hrefs, index = asset_columns(batch, band)
    found = ((row, hrefs[row].as_py(), int(index[row])) for row in rows)
    return {row: (href, sample) for row, href, sample in found if href}


def _headers(
    hrefs: Sequence[str], check: Callable[[], None], *, may_request: bool
) -> dict[str, Header | RasteretError]:
    found: dict[str, Header | RasteretError] = {}
    pending: dict[Future[Header], str] = {}
    for href in hrefs:
        known = _known(href)
        if known is not None:
            found[href] = known
        elif may_request:
            pending[lanes(_N_LANES).submit(_read, href)] = href
    try:
        while pending:
            check()
            done, _ = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                href = pending.pop(future)
                try:
                    found[href] = future.result()
                except RasteretError as error:
                    found[href] = error
    finally:
        for future in pending:
            future.cancel()
    return found


def _known(href: str) -> Header | None:
    key = href, access_to(href)
    with _lock:
        known = _kept.get(key)
        if known is not None:
            _kept.move_to_end(key)
        return known


def _read(href: str) -> Header:
    """A file's header; kept for all who may see it, as far as there is room."""
    global _n_tiles
    key = href, access_to(href)
    header = read_asset(href).header
    with _lock:
        if key not in _kept:
            _kept[key] = header
            _n_tiles += _size(header)
        while _n_tiles > _KEPT_TILES and len(_kept) > 1:
            _n_tiles -= _size(_kept.popitem(last=False)[1])
    return header


def _size(header: Header) -> int:
    levels = (header.image, *header.overviews, *header.mask_overviews)
    return sum(level.tile_offsets.size for level in levels)


def _replaced(
    batch: pa.RecordBatch, column: str, values: dict[int, dict[str, Any] | None]
) -> pa.RecordBatch:
    """Some rows of a metadata column replaced; all of it then has our fields."""
    old = batch.column(column)
    fields = []
    for field in BAND_METADATA:
        has_field = old.type.get_field_index(field.name) >= 0
        kept = old.field(field.name) if has_field else pa.nulls(len(old), field.type)
        fields.append(kept if kept.type == field.type else _cast(kept, field.type))
    whole = pa.StructArray.from_arrays(fields, fields=list(BAND_METADATA), mask=old.is_null())
    new = pa.array(list(values.values()), BAND_METADATA)
    number = {row: len(old) + n for n, row in enumerate(values)}
    order = pa.array([number.get(row, row) for row in range(len(old))], pa.int64())
    joined = pa.concat_arrays([whole, new]).take(order)
    return batch.set_column(batch.schema.get_field_index(column), column, joined)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return values.cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.array(values.to_pylist(), kind)


def _with_crs(batch: pa.RecordBatch, row: int, header: Header) -> pa.RecordBatch:
    """The CRS of the file, where the record has none."""
    names = batch.schema.names
    known = any(name in names and batch.column(name)[row].is_valid for name in ("crs", "proj:epsg"))
    if known or header.georef.crs is None:
        return batch
    texts = batch.column("crs").to_pylist() if "crs" in names else [None] * batch.num_rows
    texts[row] = header.georef.crs
    column = pa.array(texts, pa.string())
    if "crs" in names:
        return batch.set_column(names.index("crs"), "crs", column)
    return batch.append_column("crs", column)
