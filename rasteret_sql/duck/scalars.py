"""Private scalar UDFs over Arrow arrays: how one is declared, and Arrow types in SQL."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from rasteret_sql.duck.table_function import Runtime, quote_identifier
from rasteret_sql.errors import RasteretError
from rasteret_sql.grid.crs import keep_context

_PLAIN = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
}


def create_scalar(
    con: duckdb.DuckDBPyConnection, name: str, function: Callable[..., Any], returns: str
) -> object:
    """Register a UDF that takes Arrow arrays of any number and types, NULLs included.

    Returns:
        What DuckDB calls; it only borrows it, so the caller must keep it.
    """

    @functools.wraps(function)
    def guarded(*arguments: pa.Array) -> pa.Array:
        try:
            return function(*arguments)
        finally:
            keep_context()

    con.create_function(  # type: ignore[call-overload]  # the stubs know no varargs
        name, guarded, None, returns, type="arrow", null_handling="special"
    )
    return guarded


@dataclass(frozen=True)
class Scalar:
    """A private scalar UDF over Arrow arrays of any types.

    Attributes:
        name: Starts with ``_rasteret_``.
        make: Given the engine, returns the function.
        returns: Its SQL type.
    """

    name: str
    make: Callable[[Runtime], Callable[..., Any]]
    returns: str


def fallible(kind: pa.DataType) -> pa.StructType:
    """What a UDF returns that may fail: see `value_or_error`."""
    return pa.struct([("value", kind), ("error", pa.string())])


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


def sql_type_name(kind: pa.DataType) -> str:
    """An Arrow type as SQL writes it.

    Example:
        >>> sql_type_name(pa.list_(pa.struct([("a b", pa.int32())])))
        'STRUCT("a b" INTEGER)[]'
    """
    if pa.types.is_struct(kind):
        fields = ", ".join(f"{quote_identifier(f.name)} {sql_type_name(f.type)}" for f in kind)
        return f"STRUCT({fields})"
    if pa.types.is_list(kind):
        return sql_type_name(kind.value_type) + "[]"
    return _PLAIN[kind]
