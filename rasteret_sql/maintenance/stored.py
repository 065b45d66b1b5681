"""The part files of a collection that stands, read as one sequence of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_sql.collections.footers import part_files
from rasteret_sql.errors import CollectionError


@dataclass(frozen=True)
class StoredFile:
    """One part file.

    Attributes:
        path: Below the collection's folder.
        first_row: Number of its first row among those of all files.
        records: Rows in the file.
    """

    path: Path
    first_row: int
    records: int


class Stored:
    """The rows of a collection, numbered over all of its files.

    Raises:
        CollectionError: if a file can't be read, or there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[StoredFile] = []
        self.records = 0
        schema: pa.Schema | None = None
        for path in part_files(folder):
            try:
                footer = pq.read_metadata(path)
            except (OSError, pa.ArrowInvalid) as error:
                raise _damaged(path, error) from error
            if footer.num_rows or schema is None:
                schema = footer.schema.to_arrow_schema()
            if footer.num_rows:  # files without rows are there for readers of another version
                file = StoredFile(path.relative_to(folder), self.records, footer.num_rows)
                self.files.append(file)
                self.records += footer.num_rows
        if schema is None:
            raise CollectionError.expected(str(folder), "Parquet files", "none", "build it again")
        self.schema = schema.remove_metadata()

    def batches(
        self, columns: Sequence[str], files: Sequence[StoredFile] | None = None, n_rows: int = 1000
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Some columns, or fields as ``B04_metadata.etag``, with the number of the first row.

        Raises:
            CollectionError: if a file can't be read.
        """
        for file in self.files if files is None else files:
            row = file.first_row
            path = self.folder / file.path
            try:
                with pq.ParquetFile(path) as parquet:
                    for batch in parquet.iter_batches(n_rows, columns=list(columns)):
                        yield row, batch
                        row += batch.num_rows
            except (OSError, pa.ArrowInvalid) as error:
                raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CollectionError:
    return CollectionError.expected(
        str(path), "a Parquet file", str(error), "build the collection again with force := true"
    )
