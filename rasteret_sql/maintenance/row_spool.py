"""Rows on disk that are taken by their numbers, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_sql.collections.disk import disk_errors


class RowSpool:
    """Batches in a file, mapped rather than read.

    Args:
        path: The file; the caller removes it.
        schema: Of the rows.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._path = path
        self._ends: list[int] = []
        with disk_errors(path):
            self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    def __len__(self) -> int:
        """Rows so far."""
        return self._ends[-1] if self._ends else 0

    def append(self, batch: pa.RecordBatch) -> None:
        """Write rows."""
        if batch.num_rows:
            with disk_errors(self._path):
                self._writer.write_batch(batch)
            self._ends.append(len(self) + batch.num_rows)

    def close(self) -> None:
        """End writing; needed before reading."""
        with disk_errors(self._path):
            self._writer.close()
            self._sink.close()
        self._reader = pa.ipc.open_file(pa.memory_map(str(self._path)))

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each batch with the number of its first row."""
        reader = self._open()
        for number, end in enumerate(self._ends):
            batch = reader.get_batch(number)
            yield end - batch.num_rows, batch

    def take(self, rows: NDArray[np.int64]) -> pa.RecordBatch:
        """The rows of these numbers, in this order."""
        if not len(rows):
            return pa.RecordBatch.from_arrays(
                [pa.array([], field.type) for field in self.schema], schema=self.schema
            )
        reader = self._open()
        ends = np.array(self._ends, np.int64)
        which = np.searchsorted(ends, rows, side="right")
        parts, places = [], []
        for number in np.unique(which).tolist():
            places.append(np.flatnonzero(which == number))
            batch = reader.get_batch(number)
            start = int(ends[number]) - batch.num_rows
            parts.append(batch.take(pa.array(rows[places[-1]] - start)))
        together = pa.concat_batches(parts)
        return together.take(pa.array(np.argsort(np.concatenate(places))))

    def _open(self) -> pa.ipc.RecordBatchFileReader:
        if self._reader is None:
            raise ValueError("close() comes before reading")
        return self._reader
