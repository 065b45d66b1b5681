"""Columns that hold what a collection has and what its source now gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.collections.geoparquet import plain_schema
from rasteret_sql.schema import PARTITION_KEYS

_MAX_PRECISION = 38
"""Digits of a decimal in DuckDB."""

IsEmpty = Callable[[str], bool]


def merged_schema(
    stored: pa.Schema, given: pa.Schema, *, is_empty_stored: IsEmpty, is_empty_given: IsEmpty
) -> pa.Schema:
    """The columns of both, the stored ones first; each of a type that holds both.

    A column of NULLs alone, which is text, takes the other's type. What no type holds is
    text, as JSON. Names are compared without case, as DuckDB does.

    Args:
        stored: Columns of the collection's files.
        given: Columns of the source, enriched.
        is_empty_stored: Whether a column of the collection is NULL throughout; asked for
            columns of unlike types only.
        is_empty_given: The same of the source.

    Example:
        >>> one = pa.schema([("a", pa.int64())])
        >>> other = pa.schema([("a", pa.float64()), ("b", pa.string())])
        >>> never = lambda name: False
        >>> merged_schema(one, other, is_empty_stored=never, is_empty_given=never).types
        [DataType(double), DataType(string)]
    """
    new = {field.name.casefold(): field for field in plain_schema(given, PARTITION_KEYS)}
    fields = []
    for field in stored.remove_metadata():
        other = new.pop(field.name.casefold(), None)
        kind = field.type if other is None else other.type
        if kind == field.type or (pa.types.is_string(kind) and is_empty_given(field.name)):
            fields.append(field)
        elif pa.types.is_string(field.type) and is_empty_stored(field.name):
            fields.append(field.with_type(kind))
        else:
            fields.append(field.with_type(_common(field.type, kind)))
    return pa.schema([*fields, *new.values()])


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """A type that holds both; text where there is none."""
    one, other = (t.value_type if pa.types.is_dictionary(t) else t for t in (one, other))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        names = {field.name.casefold(): field for field in other}
        fields = []
        for field in one:
            match = names.pop(field.name.casefold(), None)
            kind = field.type if match is None else _common(field.type, match.type)
            fields.append(field.with_type(kind))
        return pa.struct([*fields, *names.values()])
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_common(one.value_type, other.value_type))
    if _is_number(one) and _is_number(other):
        exact = _common_decimal(one, other)
        if exact is not None:
            return exact
    try:
        schemas = [pa.schema([("_", one)]), pa.schema([("_", other)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return pa.string()


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _common_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """For numbers that Arrow gives a type too small for both; None where its rules do.

    Its decimals have no room for integers beside them, and its int64 none for uint64.

    Example:
        >>> _common_decimal(pa.int64(), pa.decimal128(5, 1))
        Decimal128Type(decimal128(20, 1))
        >>> _common_decimal(pa.int8(), pa.uint64()), _common_decimal(pa.int8(), pa.int64())
        (Decimal128Type(decimal128(20, 0)), None)
    """
    both = (one, other)
    has_decimal = any(map(pa.types.is_decimal, both))
    is_beyond_int64 = pa.uint64() in both and any(map(pa.types.is_signed_integer, both))
    if not has_decimal and not is_beyond_int64:
        return None
    if any(map(pa.types.is_floating, both)):
        return pa.float64()
    sizes = [
        (kind.precision - kind.scale, kind.scale) if pa.types.is_decimal(kind) else _digits(kind)
        for kind in both
    ]
    whole, scale = (max(parts) for parts in zip(*sizes, strict=True))
    fits = whole + scale <= _MAX_PRECISION
    return pa.decimal128(whole + scale, scale) if fits else pa.float64()


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Digits of an integer type before the point, and behind it."""
    return len(str(np.iinfo(kind.to_pandas_dtype()).max)), 0


def conform_to_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with these columns: cast, NULL where it lacks them, others left out."""
    names = {name.casefold(): name for name in batch.schema.names}
    arrays = []
    for field in schema:
        name = names.get(field.name.casefold())
        if name is None:
            arrays.append(pa.nulls(batch.num_rows, field.type))
        else:
            arrays.append(_conform(batch.column(name), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _conform(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_dictionary(column.type):
        return _conform(column.dictionary_decode(), kind)
    if pa.types.is_string(kind) and not _is_text(column.type):
        return pa.array([_json(value) for value in column.to_pylist()], kind)
    if pa.types.is_struct(kind) and pa.types.is_struct(column.type):
        return _conform_struct(column, kind)
    if pa.types.is_list(kind) and pa.types.is_list(column.type):
        # the lists of NULL rows may hold values: flatten() drops them, offsets must follow
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        values = _conform(column.flatten(), kind.value_type)
        return pa.ListArray.from_arrays(offsets, values, type=kind, mask=column.is_null())
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # integers beyond 2**53 among doubles
        return column.cast(kind, safe=False)


def _conform_struct(column: pa.StructArray, kind: pa.StructType) -> pa.Array:
    names = {field.name.casefold(): field.name for field in column.type}
    children = []
    for field in kind:
        name = names.get(field.name.casefold())
        child = pa.nulls(len(column), field.type) if name is None else column.field(name)
        children.append(_conform(child, field.type))
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=column.is_null())


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _json(value: object) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> str:  # noqa: ANN401
    return value.isoformat() if isinstance(value, date) else str(value)
