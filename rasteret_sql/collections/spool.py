"""Rows that wait on disk, in one format: an Arrow stream, read in order or by row number."""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_sql.collections.disk import disk_errors

_PREFIX = "rasteret-spool-"
_ORDERED_BYTES = 32 << 20
_ORDERED_ROWS = 1000


class Spool:
    """Batches in a file: written, closed, then read by any number of readers.

    Args:
        schema: Of the rows.
        path: The file, which the caller removes; without it a compressed file that goes when
            this object does, or with the next spool in its folder if the process is killed.
        folder: Of such a file, made if need be; the temporary folder where None.

    Raises:
        CollectionError: if the disk is full or cannot be written; also from `append` and `close`.

    Example:
        >>> spool = Spool(pa.schema([("n", pa.int64())]))
        >>> for values in ([1, 2], [3, 4]):
        ...     spool.append(pa.record_batch([values], schema=spool.schema))
        >>> spool.close()
        >>> [batch.num_rows for batch in spool], spool.take(np.array([3, 0])).column(0).to_pylist()
        ([2, 2], [4, 1])
    """

    def __init__(
        self, schema: pa.Schema, path: Path | None = None, *, folder: Path | None = None
    ) -> None:
        self.schema = schema
        self._is_temporary = path is None
        self._advice = "free space or set TMPDIR" if (path or folder) is None else None
        if path is None:
            with disk_errors(folder or Path(tempfile.gettempdir()), self._advice):
                file = _LockedFile(".arrows", folder or Path(tempfile.gettempdir()))
            path = file.path
            weakref.finalize(self, file.remove)
        self._path = path
        self._starts: list[int] = []  # bytes of the file before each batch
        self._ends: list[int] = []  # rows up to the end of each batch
        self._is_closed = False
        codec = "zstd" if self._is_temporary else None
        with self._disk_errors():
            self._sink = pa.OSFile(str(path), "wb")
        options = pa.ipc.IpcWriteOptions(compression=codec)
        self._writer = pa.ipc.new_stream(self._sink, schema, options=options)

    def __len__(self) -> int:
        """Rows so far."""
        return self._ends[-1] if self._ends else 0

    def append(self, batch: pa.RecordBatch) -> None:
        """Write rows."""
        if batch.num_rows:
            self._starts.append(self._sink.tell())
            with self._disk_errors():
                self._writer.write_batch(batch)
            self._ends.append(len(self) + batch.num_rows)

    def close(self) -> None:
        """End writing; needed before reading."""
        with self._disk_errors():
            self._writer.close()
            self._sink.close()
        self._is_closed = True

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """All batches, in order; mapped rather than read where they are not compressed."""
        with self._open() as source, pa.ipc.open_stream(source) as stream:
            yield from stream

    def numbered(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each batch with the number of its first row."""
        start = 0
        for batch in self:
            yield start, batch
            start += batch.num_rows

    def take(self, rows: NDArray[np.int64]) -> pa.RecordBatch:
        """The rows of these numbers, in this order; not for dictionary columns."""
        if not len(rows):
            return pa.RecordBatch.from_pylist([], schema=self.schema)
        ends = np.array(self._ends, np.int64)
        which = np.searchsorted(ends, rows, side="right")
        parts, places = [], []
        with self._open() as source:
            for number in np.unique(which).tolist():
                places.append(np.flatnonzero(which == number))
                batch = self._batch_at(source, self._starts[number])
                start = int(ends[number]) - batch.num_rows
                parts.append(batch.take(pa.array(rows[places[-1]] - start)))
        together = pa.concat_batches(parts)
        return together.take(pa.array(np.argsort(np.concatenate(places))))

    def ordered(self, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """The rows of these numbers, in this order, in small batches.

        Rows next to each other here may lie anywhere in the file, so that each `take` reads
        most of its batches: it is done for many rows at once.
        """
        row_bytes = self._path.stat().st_size // max(1, len(self))
        n_rows = max(_ORDERED_ROWS, _ORDERED_BYTES // max(1, row_bytes))
        for start in range(0, len(rows), n_rows):
            taken = self.take(rows[start : start + n_rows])
            for first in range(0, taken.num_rows, _ORDERED_ROWS):
                yield taken.slice(first, _ORDERED_ROWS)

    def remove(self) -> None:
        """Delete the file, if its path was given."""
        if not self._is_temporary:
            self._path.unlink()

    def _batch_at(self, source: pa.MemoryMappedFile, start: int) -> pa.RecordBatch:
        source.seek(start)
        message = pa.ipc.read_message(source)
        while message.type != "record batch":  # the schema is before the first
            message = pa.ipc.read_message(source)
        return pa.ipc.read_record_batch(message, self.schema)

    def _open(self) -> pa.MemoryMappedFile:
        if not self._is_closed:
            raise ValueError("close() comes before reading")
        return pa.memory_map(str(self._path))

    def _disk_errors(self) -> AbstractContextManager[None]:
        return disk_errors(self._path, self._advice)


class _LockedFile:
    """A new file in a folder, locked while this object is not closed.

    A process that ends in whatever way lets go of its locks, so that an unlocked file is
    nobody's: making a new one removes those.
    """

    def __init__(self, suffix: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        while True:
            self._lock, name = tempfile.mkstemp(suffix, _PREFIX, folder)
            self.path = Path(name)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self.path.exists():  # else another process found it before it was locked
                return
            os.close(self._lock)

    def remove(self) -> None:
        """Delete the file; more than once does no harm."""
        if self._lock >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def _remove_abandoned(folder: Path) -> None:
    """Delete the files that no process holds; those of other users stay."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            held = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            finally:
                os.close(held)
