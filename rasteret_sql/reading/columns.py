"""Arrow columns: pixel values, BLOBs without a copy, and values repeated for many rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.errors import InputError

Values = NDArray[Any]
Ints = NDArray[np.int64]

_EXTENSION_NAME = b"ARROW:extension:name"
_INLINE_BYTES = 12
_MOST_BYTES = (1 << 31) - 1
"""Of a column whose offsets have 32 bits."""
_zeros = np.zeros(1 << 20, np.int32)


def sql_type(dtype: str) -> pa.DataType:
    """Arrow type of a band's values in SQL.

    Half floats widen to FLOAT, which DuckDB has; complex numbers are STRUCT(re, im).

    Example:
        >>> sql_type("uint16"), sql_type("float16")
        (DataType(uint16), DataType(float))
    """
    if dtype.startswith("complex"):
        part = pa.float32() if dtype in ("complex64", "complex_int16") else pa.float64()
        return pa.struct([("re", part), ("im", part)])
    return pa.float32() if dtype == "float16" else pa.from_numpy_dtype(np.dtype(dtype))


def common_type(dtypes: Sequence[str]) -> pa.DataType:
    """The smallest type that holds the values of all records of a band exactly.

    Raises:
        InputError: there is none: int64 beside uint64, or one of these beside real or
            complex numbers.

    Example:
        >>> common_type(["uint8", "int16"]), common_type(["uint8", "float32"])
        (DataType(int16), DataType(float))
    """
    types = {sql_type(dtype) for dtype in dtypes}
    if len(types) == 1:
        return types.pop()
    if any(pa.types.is_struct(t) for t in types):
        common = pa.struct([("re", pa.float64()), ("im", pa.float64())])
    else:
        common = pa.from_numpy_dtype(np.result_type(*(t.to_pandas_dtype() for t in types)))
    is_real = not pa.types.is_integer(common)
    if is_real and any(pa.types.is_integer(t) and t.bit_width == 64 for t in types):
        raise InputError.expected(
            "types of its files",
            "some that one column holds exactly",
            ", ".join(sorted(set(dtypes))),
            "read them apart, by the dtype in {band}_metadata, or scaled := true for DOUBLE",
        )
    return common


def common_dtype(dtypes: Iterable[np.dtype[Any]], band: str) -> np.dtype[Any]:
    """The smallest type of NumPy that holds arrays of some types exactly.

    Raises:
        InputError: there is none: int64 beside uint64, or one of these beside real numbers.

    Example:
        >>> common_dtype([np.dtype("u1"), np.dtype("i2")], "B04")
        dtype('int16')
    """
    found = sorted({one.name for one in dtypes})
    common = np.result_type(*found) if found else np.dtype("u1")
    if common.kind != "c" and len(found) > 1:
        try:
            common_type(found)
        except InputError as error:
            raise InputError(f"band {band}: {error.message}") from None
    return common


def to_arrow(values: Values, kind: pa.DataType, null: Values | None) -> pa.Array:
    """A band's values, in one dimension, as a column of this type, NULL where told.

    Example:
        >>> to_arrow(np.array([1, 2], np.uint8), pa.uint16(), np.array([False, True])).to_pylist()
        [1, None]
    """
    if pa.types.is_struct(kind):
        part = kind.field(0).type
        parts = [pa.array(np.ascontiguousarray(p), type=part) for p in (values.real, values.imag)]
        mask = None if null is None else pa.array(null)
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=mask)
    data = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(data), [validity(null), pa.py_buffer(data)])


def validity(null: Values | None) -> pa.Buffer | None:
    """An Arrow validity bitmap."""
    return None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))


def blobs(values: Sequence[Values | None]) -> pa.Array:
    """A column of BLOBs that lie where they are: little-endian, row-major, not copied.

    Args:
        values: Arrays of any shape; None for NULL.

    Returns:
        Type ``binary_view``, which DuckDB reads as BLOB.

    Source:
        Arrow columnar format, "Variable-size Binary View Layout".
    """
    views = np.zeros((len(values), 16), np.uint8)
    lengths = views[:, :4].view(np.int32)
    buffers: list[pa.Buffer] = []
    for row, value in enumerate(values):
        if value is None:
            continue
        data = _bytes_of(value)
        lengths[row, 0] = data.size
        if data.size <= _INLINE_BYTES:
            views[row, 4 : 4 + data.size] = data
            continue
        views[row, 4:8] = data[:4]
        views[row, 8:12].view(np.int32)[0] = len(buffers)
        buffers.append(pa.py_buffer(data))
    null = np.array([value is None for value in values], bool)
    bitmap = validity(null) if null.any() else None
    return pa.Array.from_buffers(
        pa.binary_view(), len(values), [bitmap, pa.py_buffer(views), *buffers]
    )


def _bytes_of(values: Values) -> NDArray[np.uint8]:
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8)


def is_repeatable(field: pa.Field) -> bool:
    """Whether a column repeats as an Arrow dictionary; DuckDB takes those of scalars only."""
    kind = field.type
    if _EXTENSION_NAME in (field.metadata or {}) or isinstance(kind, pa.BaseExtensionType):
        return False
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind) or pa.types.is_dictionary(kind))


def repeated_field(field: pa.Field) -> pa.Field:
    """A column as `repeated` gives it."""
    return field.with_type(pa.dictionary(pa.int32(), field.type)) if is_repeatable(field) else field


def repeated(
    column: pa.Array, field: pa.Field, rows: Sequence[int], counts: Sequence[int]
) -> pa.Array:
    """Some values of a column, each for a number of rows.

    Args:
        column: The values.
        field: Of the column.
        rows: Which of them; -1 for NULL.
        counts: How often each.
    """
    if len(rows) == 1 and is_repeatable(field) and rows[0] >= 0:
        index = pa.Array.from_buffers(pa.int32(), counts[0], [None, _zero_buffer(counts[0])])
        return pa.DictionaryArray.from_arrays(index, _of_type(column.slice(rows[0], 1), field.type))
    distinct, inverse = np.unique(np.asarray(rows, np.int64), return_inverse=True)
    indices = np.repeat(inverse.ravel(), counts).astype(np.int32)
    values = _of_type(column.take(pa.array(distinct, mask=distinct < 0)), field.type)
    if is_repeatable(field):
        return pa.DictionaryArray.from_arrays(pa.array(indices), values)
    return values.take(pa.array(indices))


def _zero_buffer(n: int) -> pa.Buffer:
    global _zeros
    if n > len(_zeros):
        _zeros = np.zeros(2 * n, np.int32)
    return pa.py_buffer(_zeros)


def one_batch(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """All rows of some batches of a schema; columns of 2 GiB or more get offsets of 64 bits.

    Example:
        >>> one_batch([pa.record_batch({"id": [name]}) for name in "abc"]).column("id").to_pylist()
        ['a', 'b', 'c']
    """
    whole = pa.Table.from_batches(batches)
    fields = [
        field.with_type(_with_long_offsets(field.type)) if column.nbytes > _MOST_BYTES else field
        for field, column in zip(whole.schema, whole.columns, strict=True)
    ]
    return pa.concat_batches([batch.cast(pa.schema(fields)) for batch in batches])


def _with_long_offsets(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_binary(kind):
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value = kind.value_field
        return pa.large_list(value.with_type(_with_long_offsets(value.type)))
    if pa.types.is_struct(kind):
        return pa.struct([one.with_type(_with_long_offsets(one.type)) for one in kind])
    return kind


def _of_type(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """A few values of a column that `one_batch` may have given another type."""
    if values.type == kind or isinstance(kind, pa.BaseExtensionType):
        return values
    return values.cast(kind)


def select_rows(batch: pa.RecordBatch, keep: pc.Expression) -> pa.RecordBatch:
    """The rows for which a predicate is true; columns of BLOBs stay where they are."""
    views = [n for n, f in enumerate(batch.schema) if f.type == pa.binary_view()]
    if not views:
        return _filtered(batch, keep)
    plain = batch
    for n in views:
        name = batch.schema.names[n]
        plain = plain.set_column(n, name, batch.column(n).cast(pa.large_binary()))
    rows = pa.array(np.arange(batch.num_rows))
    if _reads(keep, [batch.schema.names[n] for n in views]):
        chosen = _filtered(plain.append_column("_row", rows), keep).column("_row").to_numpy()
    else:
        others = batch.select([f.name for f in batch.schema if f.type != pa.binary_view()])
        chosen = _filtered(others.append_column("_row", rows), keep).column("_row").to_numpy()
    columns = [
        _taken_view(column, chosen) if n in views else column.take(pa.array(chosen))
        for n, column in enumerate(batch.columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _filtered(batch: pa.RecordBatch, keep: pc.Expression) -> pa.RecordBatch:
    """As `RecordBatch.filter`, which fails where no row is left of a dictionary of times."""
    rows = pa.Table.from_batches([batch]).filter(keep)
    return rows.combine_chunks().to_batches()[0] if rows.num_rows else batch.slice(0, 0)


def without_views(schema: pa.Schema) -> pa.Schema:
    """BLOB columns in the type in which DuckDB pushes filters down: of a view it pushes none."""
    return pa.schema(
        [f.with_type(pa.large_binary()) if f.type == pa.binary_view() else f for f in schema]
    )


def copied_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """BLOB columns in the type of `without_views`, for DuckDB 1.5, which needs that."""
    for n, field in enumerate(batch.schema):
        if field.type == pa.binary_view():
            batch = batch.set_column(n, field.name, _contiguous(batch.column(n)))
    return batch


def _contiguous(column: pa.Array) -> pa.Array:
    buffers = column.buffers()
    if len(column) != 1 or len(buffers) != 3 or column.null_count or column.offset:
        return column.cast(pa.large_binary())
    offsets = np.array([0, buffers[2].size], np.int64)
    parts = [None, pa.py_buffer(offsets), buffers[2]]
    return pa.Array.from_buffers(pa.large_binary(), 1, parts)


def _reads(expression: pc.Expression, names: Sequence[str]) -> bool:
    return any(name in str(expression) for name in names)


def _taken_view(column: pa.Array, rows: Values) -> pa.Array:
    bitmap, views, *data = column.buffers()
    items = np.frombuffer(views, np.uint8).reshape(-1, 16)[column.offset :][rows]
    null = None if bitmap is None else column.is_null().to_numpy(zero_copy_only=False)[rows]
    return pa.Array.from_buffers(
        column.type, len(rows), [validity(null), pa.py_buffer(np.ascontiguousarray(items)), *data]
    )


class RepeatedColumns:
    """Columns of records and targets beside what a read makes of them.

    Args:
        records: Output name to column of the records.
        targets: Output name to column of the targets.
        schema: Of the records.
        target_columns: The targets' own columns, one row per target.
    """

    def __init__(
        self,
        records: Mapping[str, str],
        schema: pa.Schema,
        targets: Mapping[str, str] | None = None,
        target_columns: pa.RecordBatch | None = None,
    ) -> None:
        self._records = dict(records)
        self._targets = dict(targets or {})
        self._target_columns = target_columns
        self._fields = {
            output: repeated_field(schema.field(name).with_name(output))
            for output, name in self._records.items()
        }
        if target_columns is not None:
            self._fields |= {
                output: repeated_field(target_columns.schema.field(name).with_name(output))
                for output, name in self._targets.items()
            }
        self._plain = {name: schema.field(name) for name in self._records.values()}

    @property
    def fields(self) -> dict[str, pa.Field]:
        """The columns, by output name."""
        return self._fields

    def arrays(
        self,
        wanted: Sequence[str],
        records: pa.RecordBatch,
        scenes: Sequence[int],
        targets: Sequence[int],
        counts: Sequence[int],
    ) -> dict[str, pa.Array]:
        """Columns for some rows of output.

        Args:
            wanted: Output names; others are passed over.
            records: The records.
            scenes: Row of the record, of each part of the output.
            targets: Number of the target of each part, -1 for none.
            counts: Rows of each part.
        """
        found = {}
        for name in wanted:
            if name in self._records:
                source = self._records[name]
                column = records.column(source)
                found[name] = repeated(column, self._plain[source], scenes, counts)
            elif name in self._targets and self._target_columns is not None:
                source = self._targets[name]
                column = self._target_columns.column(source)
                field = self._target_columns.schema.field(source)
                found[name] = repeated(column, field, targets, counts)
        return found


def batch_of(arrays: Mapping[str, pa.Array], wanted: Sequence[str], n_rows: int) -> pa.RecordBatch:
    """A batch of the wanted columns that are there, in order."""
    names = [name for name in wanted if name in arrays]
    if not names:
        return pa.RecordBatch.from_arrays([pa.nulls(n_rows)], ["_"])
    return pa.RecordBatch.from_arrays([arrays[name] for name in names], names)


def texts(values: Sequence[str | None], counts: Sequence[int]) -> pa.Array:
    """Texts, each for a number of rows."""
    index = np.repeat(np.arange(len(values)), counts)
    return cast("pa.Array", pa.array(values, pa.string()).take(pa.array(index)))
