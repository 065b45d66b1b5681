"""Is a collection sound? Its files, its records, the headers it keeps, the files they are of."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasteret_sql.collections.footers import part_files
from rasteret_sql.errors import CollectionError, InterruptedReadError
from rasteret_sql.maintenance.faults import (
    Fault,
    column_faults,
    header_fault,
    record_faults,
    sound_columns,
)
from rasteret_sql.maintenance.file_checks import FileChecks
from rasteret_sql.maintenance.header_faults import header_faults
from rasteret_sql.schema import BAND_METADATA, bands_of, metadata_column

_N_AHEAD = 16
_TAIL_BYTES = 8
_MAGIC = b"PAR1"
_ID_BATCHES = Callable[[], Iterable[pa.RecordBatch]]


def bands_to_check(schema: pa.Schema) -> list[str]:
    """Bands that have a file or a header."""
    bands = dict.fromkeys(bands_of(schema))
    if "assets" in sound_columns(schema):
        assets = schema.field("assets").type
        bands |= dict.fromkeys(assets.field(i).name for i in range(assets.num_fields))
    return list(bands)


def checked_columns(schema: pa.Schema) -> list[str]:
    """The columns that `record_level_faults` reads."""
    return [*sound_columns(schema), *map(metadata_column, _sound_bands(schema))]


def _sound_bands(schema: pa.Schema) -> list[str]:
    """Bands whose headers are of the types that they must have."""
    kinds = {band: schema.field(metadata_column(band)).type for band in bands_of(schema)}
    return [band for band, kind in kinds.items() if header_fault(kind, BAND_METADATA) is None]


def schema_faults(schema: pa.Schema, *, require_band_metadata: bool) -> Iterator[Fault]:
    """Columns that are missing or of another type."""
    yield from column_faults(schema)
    have = set(bands_of(schema))
    for band in bands_to_check(schema) if require_band_metadata else ():
        if band not in have:
            yield Fault(None, metadata_column(band), band, "is missing")


def record_level_faults(
    batches: Iterable[pa.RecordBatch],
    ids: _ID_BATCHES,
    schema: pa.Schema,
    *,
    require_band_metadata: bool,
    checks: FileChecks | None,
    stop: threading.Event,
) -> Iterator[list[Fault]]:
    """Faults of the records, a list for each batch; eight bytes a record stay in memory.

    Args:
        batches: Of `checked_columns`.
        ids: Starts another pass over the column ``id`` alone; used if one comes twice.
        schema: Of the whole relation.
        require_band_metadata: Whether a band with a file must have a header.
        checks: Asks for the state of the files; None leaves that out.
        stop: Ends the work with InterruptedReadError.

    Raises:
        InterruptedReadError: ``stop`` was set.
        CollectionError: from the batches.
    """
    bands = bands_to_check(schema)
    headed = _sound_bands(schema)
    required = require_band_metadata
    hashes: array[int] = array("q")
    ahead: deque[pa.RecordBatch] = deque()
    for batch in batches:
        if stop.is_set():
            raise InterruptedReadError("interrupted")
        if "id" in batch.schema.names:
            hashes.extend(hash(name) for name in batch.column("id").to_pylist() if name is not None)
        # a column that is missing is one fault, not one of each record
        faults = [*record_faults(batch, bands)]
        faults += header_faults(batch, headed, require_band_metadata=required)
        yield faults
        if checks is not None:
            checks.start(href for _, _, href, _, _ in _files(batch, headed))
            ahead.append(_light(batch, headed))
            if len(ahead) > _N_AHEAD:
                yield _stale(ahead.popleft(), headed, checks)
                checks.forget()
    while ahead and checks is not None:
        yield _stale(ahead.popleft(), headed, checks)
    yield _repeated(hashes, ids)


def file_faults(place: Path) -> Iterator[tuple[Path, str | None]]:
    """Each Parquet file of a folder, or the one named, and the fault of its footer and groups.

    A file that was cut short, or whose middle is missing, is found without reading a row.
    """
    for path in [place] if place.is_file() else part_files(place):
        yield path, _file_fault(path)


def _file_fault(path: Path) -> str | None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            file.seek(max(0, size - len(_MAGIC)))
            tail = file.read()
        if head != _MAGIC or tail != _MAGIC:
            return "is no whole Parquet file; it may be truncated"
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid) as error:
        return f"can't be read: {' '.join(str(error).split())}"
    stop = size - _TAIL_BYTES - footer.serialized_size
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for index in range(group.num_columns):
            chunk = group.column(index)
            first = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                first = min(first, chunk.dictionary_page_offset)
            if first < len(_MAGIC) or first + chunk.total_compressed_size > stop:
                return f"row group {number}, column {chunk.path_in_schema}: beyond the file"
    return None


_File = tuple[int, str, str, int | None, str | None]


def _files(batch: pa.RecordBatch, bands: Sequence[str]) -> Iterator[_File]:
    """Row, band, href, size and ETag of the files whose header is kept."""
    if "assets" not in batch.schema.names:
        return
    assets = batch.column("assets")
    for band in bands:
        if assets.type.get_field_index(band) < 0:
            continue
        hrefs = pc.struct_field(assets, [band, "href"]).to_pylist()
        headers = batch.column(metadata_column(band))
        names = headers.type.names
        nothing = [None] * batch.num_rows
        sizes, etags = (
            pc.struct_field(headers, [name]).to_pylist() if name in names else nothing
            for name in ("file_size", "etag")
        )
        for row, valid in enumerate(headers.is_valid().to_pylist()):
            if valid and hrefs[row]:
                yield row, band, hrefs[row], sizes[row], etags[row]


def _light(batch: pa.RecordBatch, bands: Sequence[str]) -> pa.RecordBatch:
    """What `_files` needs, without tile tables."""
    columns = {n: batch.column(n) for n in ("id", "assets") if n in batch.schema.names}
    for band in bands:
        headers = batch.column(metadata_column(band))
        kept = [name for name in ("file_size", "etag") if name in headers.type.names]
        fields = {name: pc.struct_field(headers, [name]) for name in kept}
        fields["is_there"] = headers.is_valid()
        columns[metadata_column(band)] = pa.StructArray.from_arrays(
            list(fields.values()), list(fields), mask=headers.is_null()
        )
    return pa.RecordBatch.from_pydict(columns)


def _stale(batch: pa.RecordBatch, bands: Sequence[str], checks: FileChecks) -> list[Fault]:
    """Files that are gone, refused, or not those whose header is kept."""
    found = []
    for row, band, href, size, etag in _files(batch, bands):
        now = checks.get(href)
        if now.fault is not None:
            text = f"{'gone' if now.is_gone else 'unreachable'}: {now.fault}"
        else:
            text = f"stale: {told}" if (told := now.differs(size, etag)) else ""
        if text:
            name = batch.column("id")[row].as_py() if "id" in batch.schema.names else None
            found.append(Fault(name, "assets", band, text))
    return found


def _repeated(hashes: array[int], ids: _ID_BATCHES) -> list[Fault]:
    values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    repeated = set(values[counts > 1].tolist())
    if not repeated:
        return []
    seen: dict[str, int] = {}
    for batch in ids():
        for name in batch.column(0).to_pylist():
            if name is not None and hash(name) in repeated:
                seen[name] = seen.get(name, 0) + 1
    return [
        Fault(name, "id", None, f"{n} records have this id") for name, n in seen.items() if n > 1
    ]


def with_read_errors(batches: Iterator[list[Fault]]) -> Iterator[list[Fault]]:
    """Faults, and as the last one what ended the reading."""
    try:
        yield from batches
    except CollectionError as error:
        yield [Fault(None, None, None, f"the rows can't be read: {error.message}")]
