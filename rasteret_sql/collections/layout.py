"""Records to GeoParquet files in partition folders: ``year=2024/month=1/part-0.parquet``.

Records are sorted along a Hilbert curve inside each partition and cut into row groups by
bytes, so that a query with a box reads few of them. Each partition is one file.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasteret_sql.collections.curve import key_columns, record_order
from rasteret_sql.collections.datetimes import to_timestamps
from rasteret_sql.collections.disk import disk_errors, replace_folder
from rasteret_sql.collections.geoparquet import (
    Footprint,
    plain_schema,
    with_geo,
    with_info,
    writer_options,
)
from rasteret_sql.collections.partitions import (
    HIVE_TYPES,
    Partitions,
    arrow_type,
    partition_types,
)
from rasteret_sql.errors import InputError
from rasteret_sql.schema import PARTITION_KEYS

ROW_GROUP_BYTES = 2 << 20
"""Compressed bytes of a row group, unless the caller says otherwise; 2048 records at most."""

MEMORY_BYTES = 256 << 20
"""Arrow bytes of records held in memory while a collection is written."""

_ZSTD_LEVEL = 3
_MAX_GROUP_RECORDS = 2048
"""A vector of DuckDB. Records without tile tables are so small that groups by bytes alone
would hold a whole month, which no box can skip (benchmarks/layout_pruning.py)."""
_FIRST_GUESS = 0.4
"""Compressed per Arrow bytes, before the first row group has told."""
_SPOOL = "_spool"
_RANGE = "_curve_range"


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file that was written.

    Attributes:
        path: Where it lies.
        partition: Value of each partition key; None for NULL.
        records: Rows in the file.
        size_bytes: Length of the file.
    """

    path: Path
    partition: Mapping[str, object]
    records: int
    size_bytes: int


def write_collection(
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    folder: Path,
    *,
    info: Mapping[str, str],
    partition_by: Sequence[str] = PARTITION_KEYS,
    first_part: int = 0,
    row_group_bytes: int = ROW_GROUP_BYTES,
    compression: str = "zstd",
    memory_bytes: int = MEMORY_BYTES,
    is_whole: bool = True,
) -> list[PartFile]:
    """Write records as a collection of hive-partitioned GeoParquet 1.1 files.

    The whole input is consumed before the first file is written. Records whose
    partition key is NULL lie in ``__HIVE_DEFAULT_PARTITION__`` folders. A key that is NULL in
    all records makes no folders, and is a column of the files: pyarrow and geopandas take the
    type of a key from the names of its folders, and refuse one that has no value. No records
    give one file without rows, so that a view over the folder has its columns. What was
    written stays behind when an error is raised: write into a folder that nobody reads.

    Args:
        schema: Columns of the records, ``schema.py`` words them; others pass through.
        batches: Record batches with that schema, any order; may raise.
        folder: Made where missing.
        info: Key-value metadata: ``name``, ``data_source``, ``description``, ``date_range``
            (``start,end``; from ``datetime`` where absent), ``created``, more.
        partition_by: Folder levels; ``year`` and ``month`` come from ``datetime`` in UTC.
        first_part: N of ``part-N.parquet``: give each version of a collection another, so
            that a reader with an old list of files never opens a new one by an old name.
        row_group_bytes: Compressed bytes of a row group, about; it has 2048 records at most.
        compression: A Parquet codec.
        memory_bytes: Arrow bytes held in memory; what is beyond waits on disk.
        is_whole: Whether these are all files of the collection; files beside others have
            the same folders as those, also for a key that is NULL in all of these records.

    Returns:
        The files in order of their folders.

    Raises:
        InputError: for a partition key that cannot be one, or an unknown codec.
        CollectionError: if the disk is full or cannot be written.
    """
    _check_codec(compression)
    types = partition_types(schema, partition_by)
    plain = plain_schema(schema, partition_by)
    spool = Partitions(plain, partition_by, folder / _SPOOL, max(memory_bytes // 2, 1))
    span = _Span()
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for batch in batches:
            span.add(batch)
            with disk_errors(folder):
                spool.append(batch)
        with disk_errors(folder):
            empty = [key for key in partition_by if is_whole and spool.is_null(key)]
        for key in empty:
            plain = plain.append(pa.field(key, arrow_type(types.pop(key))))
        now = datetime.now(UTC).isoformat()
        facts = {"date_range": str(span), "created": now, HIVE_TYPES: json.dumps(types), **info}
        writer = _Writer(with_info(plain, facts), first_part, row_group_bytes, compression)
        with disk_errors(folder):
            if span.records == 0:
                values: dict[str, object] = dict.fromkeys(partition_by)
                return [writer.write(folder, values, iter(()), Footprint())]
            parts = []
            for path, partition in spool:
                footprint = Footprint()
                for pieces in spool.tables(path):
                    footprint.add(pieces)
                rows = _sorted_tables(
                    spool, path, folder / _SPOOL / _RANGE, max(memory_bytes // 2, 1)
                )
                rows = (_with_nulls(table, plain) for table in rows)
                levels = zip(partition_by, path.split("/"), strict=True) if partition_by else ()
                place = folder.joinpath(*(level for key, level in levels if key not in empty))
                parts.append(writer.write(place, partition, rows, footprint))
                spool.drop(path)
            return parts
    finally:
        shutil.rmtree(folder / _SPOOL, ignore_errors=True)


def export(
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    path: Path,
    *,
    info: Mapping[str, str],
    partition_by: Sequence[str] = PARTITION_KEYS,
    row_group_bytes: int = ROW_GROUP_BYTES,
    compression: str = "zstd",
    force: bool = False,
) -> list[PartFile]:
    """Write a collection to a local folder, whole or not at all.

    Args:
        schema: As in `write_collection`, with all that follows.
        batches: As there.
        path: The new folder; an empty one may exist.
        info: As there.
        partition_by: As there.
        row_group_bytes: As there.
        compression: As there.
        force: Replace what is in the folder.

    Returns:
        The files, in their final place.

    Raises:
        InputError: if the folder is not empty and `force` is not set.
        CollectionError: if the disk is full or cannot be written.
    """
    check_export(schema, path, partition_by=partition_by, compression=compression, force=force)
    target = path.resolve()
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}"
    try:
        parts = write_collection(
            schema,
            batches,
            staging,
            info=info,
            partition_by=partition_by,
            row_group_bytes=row_group_bytes,
            compression=compression,
        )
        with disk_errors(target):
            replace_folder(staging, target)
    finally:
        # After an exchange this is the replaced folder.
        shutil.rmtree(staging, ignore_errors=True)
    return [
        PartFile(target / p.path.relative_to(staging), p.partition, p.records, p.size_bytes)
        for p in parts
    ]


def check_export(
    schema: pa.Schema, path: Path, *, partition_by: Sequence[str], compression: str, force: bool
) -> None:
    """Refuse what `export` would refuse whatever the records are.

    Raises:
        InputError: as there.
    """
    _check_codec(compression)
    partition_types(schema, partition_by)
    if not force and _is_taken(path.resolve()):
        raise InputError.expected(
            "path", "a new or empty folder", str(path), "choose another or set force := true"
        )


def _is_taken(target: Path) -> bool:
    return target.exists() and (not target.is_dir() or any(target.iterdir()))


def _check_codec(compression: str) -> None:
    known = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")
    if compression.lower() not in known:
        raise InputError.expected(
            "compression", f"one of {', '.join(known)}", compression, "zstd is the default"
        )


class _Span:
    """First and last datetime of a stream, and its length."""

    def __init__(self) -> None:
        self.records = 0
        self._first: datetime | None = None
        self._last: datetime | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        self.records += batch.num_rows
        if "datetime" not in batch.schema.names:
            return
        bounds = pc.min_max(to_timestamps(batch.column("datetime"), "datetime"))
        first, last = bounds["min"].as_py(), bounds["max"].as_py()
        if first is not None:
            self._first = first if self._first is None else min(first, self._first)
            self._last = last if self._last is None else max(last, self._last)

    def __str__(self) -> str:
        if self._first is None or self._last is None:
            return ""
        return f"{self._first.date().isoformat()},{self._last.date().isoformat()}"


def _with_nulls(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with a column of NULLs for each field that follows its own."""
    for field in list(schema)[table.num_columns :]:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _sorted_tables(
    spool: Partitions, path: str, folder: Path, limit_bytes: int
) -> Iterator[pa.Table]:
    """Rows of a partition in order; one that is too large is first cut into ranges of it."""
    n_ranges = -(-spool.n_bytes(path) // limit_bytes)
    if n_ranges <= 1:
        yield _in_order(pa.concat_tables(spool.tables(path)))
        return
    order = record_order(pa.concat_tables(key_columns(rows) for rows in spool.tables(path)))
    ranges = np.empty(len(order), np.int64)
    ranges[order.to_numpy()] = np.arange(len(order)) * n_ranges // len(order)
    by_range = Partitions(spool.schema, (_RANGE,), folder, limit_bytes)
    start = 0
    for rows in spool.tables(path):
        names = pa.array([f"{n:09d}" for n in ranges[start : start + rows.num_rows].tolist()])
        start += rows.num_rows
        for batch in rows.append_column(_RANGE, names).to_batches():
            by_range.append(batch)
    for part, _ in by_range:
        yield _in_order(pa.concat_tables(by_range.tables(part)))
        by_range.drop(part)


def _in_order(table: pa.Table) -> pa.Table:
    return table.take(record_order(table))


class _Writer:
    """Writes part files of one collection."""

    def __init__(
        self, schema: pa.Schema, first_part: int, row_group_bytes: int, compression: str
    ) -> None:
        self._schema = schema
        self._name = f"part-{first_part}.parquet"
        self._row_group_bytes = row_group_bytes
        self._ratio = _FIRST_GUESS
        codec = compression.lower()
        self._options = {
            **writer_options(schema),
            "compression": codec,
            "compression_level": _ZSTD_LEVEL if codec == "zstd" else None,
        }

    def write(
        self,
        folder: Path,
        partition: Mapping[str, object],
        tables: Iterator[pa.Table],
        footprint: Footprint,
    ) -> PartFile:
        """Write one file of tables that are already in order."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._name
        schema = with_geo(self._schema, footprint)
        records = 0
        with pa.OSFile(str(path), "wb") as sink:
            writer = pq.ParquetWriter(sink, schema, **self._options)
            try:
                for table in tables:
                    records += table.num_rows
                    self._write_groups(writer, sink, table)
                writer.close()
            except BaseException:
                # Else its destructor tries to finish the file that failed.
                writer.is_open = False
                raise
        return PartFile(path, partition, records, path.stat().st_size)

    def _write_groups(self, writer: pq.ParquetWriter, sink: pa.OSFile, table: pa.Table) -> None:
        """Cut a table into row groups by the compression that the last ones had."""
        start = 0
        while start < table.num_rows:
            left = table.num_rows - start
            record_bytes = max(table.nbytes / table.num_rows * self._ratio, 1.0)
            n = max(1, min(int(self._row_group_bytes / record_bytes), _MAX_GROUP_RECORDS))
            # The last two share what is left, so that no group is a crumb.
            n = left if left <= n else min(n, -(-left // 2))
            group = table.slice(start, n)
            before = sink.tell()
            writer.write_table(group, row_group_size=n)
            self._ratio = max((sink.tell() - before) / max(group.nbytes, 1), 0.01)
            start += n
