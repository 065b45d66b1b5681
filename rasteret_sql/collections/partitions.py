"""Records put into their partitions as they come, in bounded memory.

Rows wait in memory; when they are too many, the largest partitions go to disk. No file
stays open, so that a collection may have any number of partitions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasteret_sql.collections.datetimes import to_timestamps
from rasteret_sql.collections.spool import Spool
from rasteret_sql.errors import CollectionError, InputError
from rasteret_sql.schema import PARTITION_KEYS

NULL_SEGMENT = "__HIVE_DEFAULT_PARTITION__"
"""Hive's folder name for NULL; DuckDB, pyarrow and rasteret read it back as NULL."""

HIVE_TYPES = "hive_types"
"""Key of a footer's metadata: JSON, DuckDB type of each partition key."""

_DUCKDB_TYPES = (
    (pa.types.is_integer, "BIGINT"),
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_string, "VARCHAR"),
    (pa.types.is_large_string, "VARCHAR"),
    (pa.types.is_string_view, "VARCHAR"),
)
_GATHERED_ROWS = 8192
_FIELD_BYTES = 450
"""What pyarrow itself keeps of each field of a batch, nested ones too, however few its rows."""
_SQL_TYPES = frozenset(name for _, name in _DUCKDB_TYPES)
_ARROW_TYPES = {"BIGINT": pa.int64(), "BOOLEAN": pa.bool_(), "DATE": pa.date32()}


def partition_types(schema: pa.Schema, partition_by: Sequence[str]) -> dict[str, str]:
    """DuckDB type of each partition key, for ``hive_types``.

    Raises:
        InputError: for a key that is no column, or of a type that a folder name cannot hold.

    Example:
        >>> partition_types(pa.schema([("datetime", pa.timestamp("us"))]), ["year"])
        {'year': 'BIGINT'}
    """
    types: dict[str, str] = {}
    for key in partition_by:
        if key in PARTITION_KEYS and (key in schema.names or "datetime" in schema.names):
            types[key] = "BIGINT"
            continue
        if key not in schema.names:
            listed = ", ".join(dict.fromkeys([*PARTITION_KEYS, *schema.names]))
            raise InputError.expected("partition_by", f"one of {listed}", key, "name a column")
        if any(sign in key for sign in "/=%"):
            raise InputError.expected(
                "partition_by", "names without / = %", key, "rename the column"
            )
        kind = schema.field(key).type
        named = [name for test, name in _DUCKDB_TYPES if test(kind)]
        if not named:
            wanted = "text, integers, booleans or dates"
            raise InputError.expected(
                f"partition_by: {key}", wanted, str(kind), "cast the column or choose another"
            )
        types[key] = named[0]
    return types


def hive_types_of(footer: pq.FileMetaData) -> dict[str, str]:
    """The types that `partition_types` gave a collection, kept in the footers of its files."""
    try:
        found = json.loads((footer.metadata or {}).get(HIVE_TYPES.encode(), b"{}"))
    except ValueError:
        return {}
    return {str(key): str(kind) for key, kind in found.items() if kind in _SQL_TYPES}


def arrow_type(sql_type: str) -> pa.DataType:
    """The Arrow type of a partition key.

    Example:
        >>> arrow_type("BIGINT"), arrow_type("VARCHAR")
        (DataType(int64), DataType(string))
    """
    return _ARROW_TYPES.get(sql_type, pa.string())


@dataclass
class _Partition:
    """Rows of one folder: on disk first, then those still in memory."""

    values: dict[str, object]
    files: list[Spool] = field(default_factory=list)
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    waiting_bytes: int = 0
    n_bytes: int = 0


class Partitions:
    """Partitions of a stream of record batches.

    Batches are gathered before they are split: a batch of 256 records of as many months
    would leave 256 batches of one, whose 200 columns each take a hundred times their values.

    Args:
        schema: Schema of the stored rows, without partition keys.
        partition_by: Keys, outermost folder first; ``year`` and ``month`` are those of
            ``datetime`` (UTC) where it has a value.
        folder: Where rows that do not fit wait; made when needed.
        limit_bytes: Bytes kept in memory, about.
    """

    def __init__(
        self, schema: pa.Schema, partition_by: Sequence[str], folder: Path, limit_bytes: int
    ) -> None:
        self.schema = schema
        self._keys = tuple(partition_by)
        self._folder = folder
        self._limit = limit_bytes
        self._batch_bytes = _FIELD_BYTES * sum(_n_fields(one.type) for one in schema)
        self._gathered: list[pa.RecordBatch] = []
        self._gathered_rows = 0
        self._gathered_bytes = 0
        self._waiting_bytes = 0
        self._n_files = 0
        self._partitions: dict[str, _Partition] = {}

    def append(self, batch: pa.RecordBatch) -> None:
        """Take rows over; may write to disk.

        Raises:
            CollectionError: for a record without id.
            OSError: if the disk refuses.
        """
        if batch.num_rows == 0:
            return
        if "id" in batch.schema.names and batch.column("id").null_count:
            raise CollectionError.expected(
                "id", "a value in every record", "NULL", "drop such records or give them an id"
            )
        if self._gathered and batch.schema != self._gathered[0].schema:
            self._place()
        self._gathered.append(batch)
        self._gathered_rows += batch.num_rows
        self._gathered_bytes += batch.nbytes + self._batch_bytes
        if self._gathered_rows >= _GATHERED_ROWS or self._gathered_bytes > self._limit // 4:
            self._place()

    def _place(self) -> None:
        """Put what was gathered into its partitions, and the largest of them on disk."""
        batches, self._gathered = self._gathered, []
        self._gathered_rows = self._gathered_bytes = 0
        if len(batches) > 1 and self._keys:
            batches = pa.Table.from_batches(batches).combine_chunks().to_batches()
        for batch in batches:
            for path, values, rows in self._split(batch):
                stored = rows.select(self.schema.names)
                if not stored.schema.equals(self.schema):
                    stored = stored.cast(self.schema)
                partition = self._partitions.setdefault(path, _Partition(values))
                n_bytes = stored.nbytes
                partition.waiting.append(stored)
                partition.waiting_bytes += n_bytes + self._batch_bytes
                partition.n_bytes += n_bytes
                self._waiting_bytes += n_bytes + self._batch_bytes
        if self._waiting_bytes > self._limit:
            self._spill()

    def _split(
        self, batch: pa.RecordBatch
    ) -> Iterator[tuple[str, dict[str, object], pa.RecordBatch]]:
        """Rows by folder: its relative path, its values, its rows."""
        columns = {key: _key_column(batch, key) for key in self._keys}
        if not columns:
            yield "", {}, batch
            return
        paths = pc.binary_join_element_wise(
            *(_segments(key, column) for key, column in columns.items()), "/"
        ).dictionary_encode()
        codes = paths.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(paths.dictionary) + 1))
        for code, path in enumerate(paths.dictionary.to_pylist()):
            rows = order[starts[code] : starts[code + 1]]
            first = int(rows[0])
            values = {key: column[first].as_py() for key, column in columns.items()}
            whole = len(rows) == batch.num_rows
            yield path, values, batch if whole else batch.take(pa.array(rows))

    def _spill(self) -> None:
        """Write the largest waiting partitions until half of the limit is free."""
        by_size = sorted(self._partitions.values(), key=lambda p: p.waiting_bytes, reverse=True)
        for partition in by_size:
            if self._waiting_bytes <= self._limit // 2:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            spool = Spool(self.schema, self._folder / f"{self._n_files}.arrows")
            self._n_files += 1
            rows = pa.Table.from_batches(partition.waiting, self.schema).combine_chunks()
            for batch in rows.to_batches():
                spool.append(batch)
            spool.close()
            partition.files.append(spool)
            partition.waiting.clear()
            self._waiting_bytes -= partition.waiting_bytes
            partition.waiting_bytes = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, object]]]:
        """Relative folder and values of each partition, in order of the folders.

        May write to disk.
        """
        self._place()
        for path in sorted(self._partitions):
            yield path, self._partitions[path].values

    def is_null(self, key: str) -> bool:
        """Whether a partition key is NULL in all rows; may write to disk."""
        self._place()
        return all(partition.values[key] is None for partition in self._partitions.values())

    def n_bytes(self, path: str) -> int:
        """Arrow bytes of a partition."""
        return self._partitions[path].n_bytes

    def tables(self, path: str) -> Iterator[pa.Table]:
        """Rows of a partition, in the order they came; pieces on disk are mapped, not read."""
        partition = self._partitions[path]
        for file in partition.files:
            yield pa.Table.from_batches(file, self.schema)
        if partition.waiting:
            yield pa.Table.from_batches(partition.waiting, self.schema)

    def drop(self, path: str) -> None:
        """Forget a partition and remove its files."""
        partition = self._partitions.pop(path)
        self._waiting_bytes -= partition.waiting_bytes
        for file in partition.files:
            file.remove()


def _n_fields(kind: pa.DataType) -> int:
    """Fields of a type, itself too."""
    return 1 + sum(_n_fields(kind.field(i).type) for i in range(kind.num_fields))


def _key_column(batch: pa.RecordBatch, key: str) -> pa.Array:
    """A partition key's values; year and month are datetime's wherever it has a value.

    A subset of a collection may bring keys of its old folders beside a datetime it changed.
    """
    names = batch.schema.names
    own = batch.column(key) if key in names else pa.nulls(batch.num_rows, pa.int64())
    if key not in PARTITION_KEYS:
        return own.cast(pa.int64()) if pa.types.is_integer(own.type) else own
    if "datetime" not in names:
        return own.cast(pa.int64())
    moment = to_timestamps(batch.column("datetime"), "datetime")
    part = pc.year(moment) if key == "year" else pc.month(moment)
    return pc.coalesce(part, own.cast(pa.int64())) if part.null_count else part


def _segments(key: str, column: pa.Array) -> pa.Array:
    """Folder names ``key=value``, one a row, percent-encoded."""
    encoded = column.dictionary_encode()
    start = key + "="  # DuckDB decodes values, but not keys
    names = [start + _folder_value(value) for value in encoded.dictionary.to_pylist()]
    taken = pa.array(names, pa.string()).take(encoded.indices)
    return pc.fill_null(taken, start + NULL_SEGMENT)


def _folder_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quote(str(value), safe="")
