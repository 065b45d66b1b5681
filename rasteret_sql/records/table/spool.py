"""Batches kept between the pass that reads a table and those that give it; many go to disk."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rasteret_sql.records import progress
from rasteret_sql.records.spool_file import SpoolFile

_IN_MEMORY_BYTES = 8 << 20


class TableSpool:
    """Batches in memory; from some size on in a temporary Arrow stream that goes with the object.

    A file costs as much as the headers of some hundred records: its name, its lock, zstd.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []
        self._n_bytes = 0
        self._path: Path | None = None

    def append(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""
        progress.add("records listed", batch.num_rows)
        self._n_bytes += batch.nbytes
        if self._path is None and self._n_bytes > _IN_MEMORY_BYTES:
            self._open()
        if self._path is None:
            self._batches.append(batch)
        else:
            self._writer.write_batch(batch)

    def close(self) -> None:
        """End writing; needed before reading."""
        if self._path is not None:
            self._writer.close()
            self._sink.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Read all batches, in order; several readers may be at work."""
        if self._path is None:
            yield from self._batches
            return
        with pa.OSFile(str(self._path), "rb") as file, pa.ipc.open_stream(file) as stream:
            yield from stream

    def _open(self) -> None:
        """Go on in a file."""
        file = SpoolFile(".arrows")
        self._path = file.path
        weakref.finalize(self, file.remove)
        self._sink = pa.OSFile(str(file.path), "wb")
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._sink, self._schema, options=options)
        for batch in self._batches:
            self._writer.write_batch(batch)
        self._batches.clear()
