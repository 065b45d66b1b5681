"""One Arrow type for a STAC property over all items, and columns of that type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from rasteret_sql.collections.datetimes import parse_micros
from rasteret_sql.schema import DATETIME

DATETIME_PROPERTIES = frozenset(
    {
        "created",
        "updated",
        "start_datetime",
        "end_datetime",
        "published",
        "expires",
        "unpublished",
    }
)
"""Properties that STAC defines as times; others with times in them stay text."""

_JSON_TYPES = (pa.bool_(), pa.int64(), pa.float64(), pa.string())
_KEPT_KINDS = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
_MAX_FIELDS = 64
_MIN_FILL = 0.5
_INT64 = range(-(2**63), 2**63)
_DOUBLE_LIMIT = 2**1023
_SCALARS = {
    frozenset({"bool"}): pa.bool_(),
    frozenset({"int"}): pa.int64(),
    frozenset({"wide"}): pa.int64(),
    frozenset({"int", "wide"}): pa.int64(),
    frozenset({"float"}): pa.float64(),
    frozenset({"int", "float"}): pa.float64(),
    frozenset({"big", "float"}): pa.float64(),
    frozenset({"int", "big", "float"}): pa.float64(),
    frozenset({"str"}): pa.string(),
}


class PropertyType:
    """What has been seen of a property so far.

    Example:
        >>> seen = PropertyType()
        >>> for value in (1, None, 2.5):
        ...     seen.add(value)
        >>> str(seen.arrow())
        'double'
    """

    __slots__ = ("_element", "_fields", "_n_dicts", "_n_fields", "_scalars")

    def __init__(self) -> None:
        self._scalars: set[str] = set()
        self._element: PropertyType | None = None
        self._fields: dict[str, PropertyType] | None = None
        self._n_dicts = 0
        self._n_fields = 0

    def add(self, value: object) -> None:
        """Take one more JSON value into account."""
        if value is None:
            return
        if isinstance(value, str):
            self._scalars.add("str")
        elif isinstance(value, bool):
            self._scalars.add("bool")
        elif isinstance(value, int):
            is_double = abs(value) < _DOUBLE_LIMIT
            is_exact = is_double and int(float(value)) == value
            kinds = ("int", "wide") if value in _INT64 else ("big", "huge")
            self._scalars.add(kinds[not is_exact])
        elif isinstance(value, float):
            self._scalars.add("float")
        elif isinstance(value, dict):
            self._add_fields(value)
        elif isinstance(value, list):
            if self._element is None:
                self._element = PropertyType()
            for element in value:
                self._element.add(element)
        else:
            raise TypeError(f"not a JSON value: {type(value).__name__}")

    def _add_fields(self, value: dict[str, Any]) -> None:
        if self._fields is None:
            self._fields = {}
        self._n_dicts += 1
        self._n_fields += len(value)
        for name, inner in value.items():
            if name not in self._fields:
                if len(self._fields) > _MAX_FIELDS:
                    continue
                self._fields[name] = PropertyType()
            self._fields[name].add(inner)

    def arrow(self) -> pa.DataType | None:
        """The type that holds all values; None if only JSON text does.

        Nothing but NULL is text. Integers with floats are DOUBLE, but for integers that no
        DOUBLE holds: those are JSON text.
        """
        shapes = (bool(self._scalars), self._element is not None, self._fields is not None)
        if sum(shapes) > 1:
            return None
        if self._element is not None:
            element = self._element.arrow()
            return None if element is None else pa.list_(element)
        if self._fields is not None:
            return self._struct(self._fields)
        return _SCALARS.get(frozenset(self._scalars)) if self._scalars else pa.string()

    def _struct(self, fields: dict[str, PropertyType]) -> pa.DataType | None:
        is_varied = self._n_fields < _MIN_FILL * self._n_dicts * len(fields)
        is_ambiguous = len({name.casefold() for name in fields}) < len(fields) or "" in fields
        if not fields or len(fields) > _MAX_FIELDS or is_varied or is_ambiguous:
            return None
        typed = [(name, inner.arrow()) for name, inner in fields.items()]
        return None if any(kind is None for _, kind in typed) else pa.struct(typed)


def passes_through(kind: pa.DataType) -> bool:
    """Whether a column of a file keeps its type; its values come by way of JSON."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return passes_through(kind.value_type)
    if pa.types.is_map(kind):
        return passes_through(kind.key_type) and passes_through(kind.item_type)
    if pa.types.is_struct(kind):
        return bool(kind.num_fields) and all(passes_through(field.type) for field in kind)
    return any(is_kind(kind) for is_kind in _KEPT_KINDS)


def column_type(kind: pa.DataType) -> pa.DataType:
    """The type that a column of a file has in the collection."""
    if pa.types.is_dictionary(kind):
        return column_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return kind


def _restored(value: Any, kind: pa.DataType) -> Any:  # noqa: ANN401 - values of any type
    """A value that became JSON, as it was; the reader of files writes them so."""
    if value is None:
        return None
    if pa.types.is_decimal(kind):
        return Decimal(str(value))
    if pa.types.is_date(kind):
        return date.fromisoformat(value[:10])
    if pa.types.is_time(kind):
        return time.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        return parse_micros(value)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return bytes.fromhex(value)
    if pa.types.is_map(kind):
        return [(_restored(k, kind.key_type), _restored(v, kind.item_type)) for k, v in value]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_restored(inner, kind.value_type) for inner in value]
    if pa.types.is_struct(kind):
        return {f.name: _restored(value.get(f.name), f.type) for f in kind}
    return value


def to_array(values: Sequence[object], kind: pa.DataType | None) -> pa.Array:
    """JSON values as a column; `kind` None writes each as JSON text."""
    if kind is None:
        values = [None if value is None else _json(value) for value in values]
        return _text_safe(values, pa.string())
    if kind != DATETIME.type and not _is_json(kind):
        return pa.array([_restored(value, kind) for value in values], kind)
    if kind == DATETIME.type:
        instants = [None if value is None else parse_micros(value) for value in values]
        return pa.array(instants, pa.int64()).cast(kind)
    return _text_safe(values, kind)


def _is_json(kind: pa.DataType) -> bool:
    """Whether values of JSON are values of the type as they are."""
    if pa.types.is_list(kind):
        return _is_json(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    return kind in _JSON_TYPES


def _text_safe(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (UnicodeEncodeError, pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([_coerced(value, kind) for value in values], kind)


def _coerced(value: object, kind: pa.DataType) -> object:
    """Make what JSON allows and Arrow refuses fit: lone surrogates, integers among doubles."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and pa.types.is_floating(kind):
        return float(value)
    if isinstance(value, list):
        return [_coerced(element, kind.value_type) for element in value]
    if isinstance(value, dict):
        return {name: _coerced(inner, kind.field(name).type) for name, inner in value.items()}
    return value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
