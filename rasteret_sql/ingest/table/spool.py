"""Record batches kept on disk between the pass that reads a table and those that give it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pyarrow as pa

from rasteret_sql.collections.spool_file import SpoolFile
from rasteret_sql.ingest import progress


class TableSpool:
    """Batches in a temporary Arrow stream, which goes when the object does."""

    def __init__(self, schema: pa.Schema) -> None:
        file = SpoolFile(".arrows")
        self.path = file.path
        weakref.finalize(self, file.remove)
        self._sink = pa.OSFile(str(file.path), "wb")
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._sink, schema, options=options)

    def append(self, batch: pa.RecordBatch) -> None:
        """Write one more batch."""
        self._writer.write_batch(batch)
        progress.add("records listed", batch.num_rows)

    def close(self) -> None:
        """End writing; needed before reading."""
        self._writer.close()
        self._sink.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Read all batches, in order; several readers may be at work."""
        with pa.OSFile(str(self.path), "rb") as file, pa.ipc.open_stream(file) as stream:
            yield from stream
