"""What private scalar UDFs take and return: rows, values, errors."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.duck.udfs import fallible
from rasteret_sql.errors import RasteretError


def make_enter(runtime: Runtime) -> Callable[..., pa.Array]:
    """What the thread of a statement calls for its scalars, which other threads may run.

    DuckDB folds a call with a constant while it plans. Ctrl-C can only be listened to from the
    main thread. Returns what it is given.
    """

    def enter(texts: pa.Array) -> pa.Array:
        runtime.scans.on_work()
        return texts

    return enter


def value_or_error(column: str) -> str:
    """SQL for the value of a `fallible` UDF's result, else its error.

    What a UDF raises reaches the user inside DuckDB's own sentence, in 1.5 with a line for
    each Python frame; SQL's ``error()`` shows the message alone.
    """
    return f"CASE WHEN {column}.error IS NULL THEN {column}.value ELSE error({column}.error) END"


def failed(
    runtime: Runtime, error: RasteretError, call: tuple[str, str], kind: pa.DataType, n_rows: int
) -> pa.Array:
    """The result of a `fallible` UDF that failed for a chunk of rows; the error is kept.

    Args:
        runtime: Keeps the error, for `duck.results`.
        error: What happened.
        call: Name of the function, and number of the connection.
        kind: Of the values.
        n_rows: Of the chunk.
    """
    message = runtime.remember(error, *call).message
    # Frames lead to their callers', so to connections, which hold the UDF that holds the
    # engine that keeps the error: nothing collects a cycle through DuckDB.
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = None
        found = found.__cause__ or found.__context__
    errors = pa.array([message] * n_rows, pa.string())
    return pa.StructArray.from_arrays([pa.nulls(n_rows, kind), errors], fields=list(fallible(kind)))


def succeeded(values: pa.Array) -> pa.Array:
    """The result of a `fallible` UDF that did not fail."""
    errors = pa.nulls(len(values), pa.string())
    return pa.StructArray.from_arrays([values, errors], fields=list(fallible(values.type)))


def row_batch(rows: pa.StructArray | pa.ChunkedArray) -> pa.RecordBatch:
    """A UDF's row argument as a batch; DuckDB passes one chunk or several."""
    whole = rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    return pa.RecordBatch.from_struct_array(whole)


def without_geometry_crs(rows: pa.RecordBatch) -> pa.RecordBatch:
    """A UDF's rows without the CRS of geometries: DuckDB 1.5 puts bytes of other memory there."""
    schema = pa.schema([field.remove_metadata() for field in rows.schema])
    columns = [
        column.storage if isinstance(column.type, pa.BaseExtensionType) else column
        for column in rows.columns
    ]
    kinds = [field.with_type(column.type) for field, column in zip(schema, columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(kinds))
