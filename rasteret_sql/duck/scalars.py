"""Private scalar UDFs over Arrow arrays: how one is declared, and Arrow types in SQL."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from rasteret_sql.duck.table_function import Runtime, quote_identifier
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


def row_batch(rows: pa.StructArray | pa.ChunkedArray) -> pa.RecordBatch:
    """A UDF's row argument as a batch; DuckDB passes one chunk or several."""
    whole = rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    return pa.RecordBatch.from_struct_array(whole)


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
