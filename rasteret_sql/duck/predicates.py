"""Pushed filters, taken apart.

DuckDB hands a source one `pyarrow.compute.Expression` and forgets the predicate, so the
source must apply it exactly. To drop scenes and tiles before they are requested, we need
its conjuncts and the columns each one reads. An Expression has no public tree, but its
pickle is one: an IPC file whose batch holds the literals and whose schema metadata is the
tree in prefix order (``call f``, children, ``end f``; Arrow C++, ``compute::Serialize``).

DuckDB 1.5 offers comparisons of floats as they are, but Arrow's differ: to DuckDB, NaN is
the greatest number, and -0.0 is in a list with 0.0.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

_Tree = list[tuple[bytes, bytes]]


_BOUNDS = {
    b"equal": (True, True),
    b"less": (False, True),
    b"less_equal": (False, True),
    b"greater": (True, False),
    b"greater_equal": (True, False),
}
"""Comparisons, and whether they bound a column below and above."""


class Interval(NamedTuple):
    """Rows outside are not kept; of those inside, not all may be."""

    column: str
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Conjunct:
    """One predicate of a conjunction.

    Attributes:
        expression: Keeps the rows for which it is true.
        columns: Top-level columns that it reads.
        interval: Between which values it keeps a column's rows at most, where it is a comparison
            of one column of numbers with a number.
    """

    expression: pc.Expression
    columns: frozenset[str]
    interval: Interval | None = None


def conjuncts(expression: pc.Expression | None, columns: Sequence[str] = ()) -> list[Conjunct]:
    """Split a pushed filter at its outermost ANDs.

    Args:
        expression: The filter.
        columns: All columns of the source, which a filter of an unknown format may read.

    Example:
        >>> both = conjuncts((pc.field("a") < 20) & (pc.field("b", "c") > 3))
        >>> [sorted(c.columns) for c in both]
        [['a'], ['b']]
    """
    if expression is None:
        return []
    try:
        batch = pa.ipc.open_file(expression.__reduce__()[1][0]).get_batch(0)
        tree = _metadata_pairs(batch.schema)
        return [
            Conjunct(_as_duckdb(batch, part), frozenset(_columns(part)), _interval(batch, part))
            for part in _and_parts(tree)
        ]
    except (pa.ArrowException, LookupError, TypeError, ValueError, AttributeError):
        return [Conjunct(expression, frozenset(columns))]  # then it is applied to the output


def _interval(batch: pa.RecordBatch, tree: _Tree) -> Interval | None:
    """What a comparison says of a column's values."""
    if tree[0][0] != b"call" or tree[0][1] not in _BOUNDS:
        return None
    children = _children(tree)
    if [child[0][0] for child in children] != [b"field_ref", b"literal"]:
        return None
    value = batch.column(int(children[1][0][1]))[0].as_py()
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    has_low, has_high = _BOUNDS[tree[0][1]]
    low = float(value) if has_low else -math.inf
    return Interval(children[0][0][1].decode(), low, float(value) if has_high else math.inf)


def combine(parts: list[Conjunct]) -> pc.Expression | None:
    """AND the conjuncts together again; None for no filter."""
    result: pc.Expression | None = None
    for part in parts:
        result = part.expression if result is None else result & part.expression
    return result


def _and_parts(tree: _Tree) -> list[_Tree]:
    if tree[0] != (b"call", b"and_kleene"):
        return [tree]
    return [part for child in _children(tree) for part in _and_parts(child)]


def _children(tree: _Tree) -> list[_Tree]:
    """Arguments of a call; its options come behind them."""
    children = []
    position = 1
    while tree[position][0] not in (b"end", b"options"):
        stop = _subtree_end(tree, position)
        children.append(tree[position:stop])
        position = stop
    return children


def _as_duckdb(batch: pa.RecordBatch, tree: _Tree) -> pc.Expression:
    """The expression, with DuckDB's meaning of NaN and -0.0."""
    plain = _expression(batch, tree)
    if tree[0][0] != b"call":
        return plain
    call, children = tree[0][1], _children(tree)
    if call in (b"and_kleene", b"or_kleene"):
        left, right = (_as_duckdb(batch, child) for child in children)
        return left & right if call == b"and_kleene" else left | right
    if call in (b"greater", b"greater_equal") and children[1][0][0] == b"literal":
        literal = batch.column(int(children[1][0][1]))
        if pa.types.is_floating(literal.type):
            return plain | pc.is_nan(_expression(batch, children[0]))
    if call == b"is_in":
        options = batch.column(int(tree[-2][1]))[0]
        values = options["value_set"].values
        if pa.types.is_floating(values.type) and 0.0 in values.to_pylist():
            return plain | (_expression(batch, children[0]) == pa.scalar(0.0, values.type))
    return plain


def _subtree_end(tree: _Tree, start: int) -> int:
    kind, value = tree[start]
    if kind == b"nested_field_ref":
        return start + 1 + int(value)
    if kind != b"call":
        return start + 1
    position = start + 1
    while tree[position][0] != b"end":
        position = position + 1 if tree[position][0] == b"options" else _subtree_end(tree, position)
    return position + 1


def _columns(tree: _Tree) -> list[str]:
    names: list[str] = []
    position = 0
    while position < len(tree):
        kind, value = tree[position]
        if kind == b"nested_field_ref":
            names.append(tree[position + 1][1].decode())
            position += 1 + int(value)
            continue
        if kind == b"field_ref":
            names.append(value.decode())
        position += 1
    return names


def _expression(batch: pa.RecordBatch, tree: _Tree) -> pc.Expression:
    schema = pa.schema(list(batch.schema), metadata=pa.KeyValueMetadata(tree))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
    return pc.Expression._deserialize(sink.getvalue())  # noqa: SLF001 (what its pickle calls)


class _CSchema(ctypes.Structure):
    """Arrow C data interface, ``struct ArrowSchema``."""

    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("private_data", ctypes.c_void_p),
    )


def _metadata_pairs(schema: pa.Schema) -> _Tree:
    """The schema's metadata with its order and repeated keys, which a dict loses."""
    exported = _CSchema()
    address = ctypes.addressof(exported)
    schema._export_to_c(address)  # noqa: SLF001 (pyarrow's documented C data interface)
    try:
        position = exported.metadata
        if not position:
            return []

        def take(size: int) -> bytes:
            nonlocal position
            chunk = ctypes.string_at(position, size)
            position += size
            return chunk

        def number() -> int:
            return int.from_bytes(take(4), byteorder="little")

        return [(take(number()), take(number())) for _ in range(number())]
    finally:
        exported.release(address)
