"""Records of a version of a collection as an Arrow file beside its Parquet files.

Parquet keeps each field of a nested header as a column of its own: to read a few records from
many monthly files takes 20 to 300 ms, and from one Arrow file 1 to 10. A process that has read
the records writes the file for those that come later; where it cannot, nothing is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path

import pyarrow as pa

_NAME = "_records.arrow"
_STATE = b"rasteret_sql.parquet_files"


def state_of(folder: str) -> tuple[bytes, int]:
    """What changes when a Parquet file of the version is replaced, and the bytes of all of them.

    Raises:
        OSError: a file has just been removed.
    """
    facts, n_bytes = [], 0
    for path in sorted(Path(folder).rglob("*.parquet")):
        now = path.stat()
        facts.append((str(path.relative_to(folder)), now.st_size, now.st_mtime_ns))
        n_bytes += now.st_size
    return json.dumps(facts).encode(), n_bytes


def load_records(folder: str, state: bytes, schema: pa.Schema) -> pa.Table | None:
    """The records as they were written, None where there are none of these files.

    Args:
        folder: Of the version.
        state: Of its files now.
        schema: What DuckDB gives for it now; its version and settings decide about types.
    """
    try:
        with pa.OSFile(str(Path(folder, _NAME))) as file:
            reader = pa.ipc.open_file(file)
            kept = dict(reader.schema.metadata or {})
            if kept.pop(_STATE, None) != state or not reader.schema.with_metadata(kept).equals(
                schema, check_metadata=True
            ):
                return None
            return reader.read_all().replace_schema_metadata(kept)
    except (OSError, pa.ArrowException):
        return None


def keep_records(folder: str, state: bytes, table: pa.Table) -> None:
    """Write the records for later processes; a folder that cannot be written stays as it is.

    Args:
        folder: Of the version.
        state: Of its files before the records were read.
        table: All records, as DuckDB gives them.
    """
    path = Path(folder, f".{_NAME}-{secrets.token_hex(8)}")
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), _STATE: state})
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    try:
        with path.open("xb") as file:
            with pa.ipc.new_file(file, marked.schema, options=options) as writer:
                writer.write_table(marked)
            file.flush()
            os.fsync(file.fileno())
        path.replace(path.with_name(_NAME))
    except (OSError, pa.ArrowException):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
