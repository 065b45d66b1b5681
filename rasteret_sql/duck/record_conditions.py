"""Which records a read wants: compared in memory, or as SQL conditions over a relation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from rasteret_sql.collections.datetimes import Instants, format_micros
from rasteret_sql.duck.calls import Call
from rasteret_sql.duck.names import quote_text
from rasteret_sql.duck.partition_keys import follow_datetime
from rasteret_sql.duck.relations import Relation
from rasteret_sql.errors import InputError
from rasteret_sql.reading.index import RecordFilter
from rasteret_sql.units import BBox


def record_filter(
    relation: Relation,
    boxes: Sequence[BBox] | None,
    dates: Instants,
    ids: Sequence[str] | None,
) -> RecordFilter:
    """Which records a read wants, to be compared in memory.

    Raises:
        InputError: there is no datetime that the dates could be compared with.
    """
    if dates != Instants(None, None):
        _datetime_type(relation)
    return RecordFilter(
        None if boxes is None or not _has_boxes(relation.schema) else tuple(boxes),
        dates.start,
        dates.end,
        None if ids is None else tuple(ids),
    )


def record_conditions(
    call: Call,
    relation: Relation,
    boxes: Sequence[BBox] | None,
    dates: Instants,
    ids: Sequence[str] | None,
) -> list[str]:
    """SQL conditions that drop records before anything else is read.

    Year and month are compared too, as DuckDB does not skip hive folders by datetime.

    Raises:
        InputError: there is no datetime that the dates could be compared with.
    """
    conditions = []
    if ids is not None:
        conditions.append(f"id IN ({', '.join(quote_text(str(i)) for i in ids) or 'NULL'})")
    if boxes and _has_boxes(relation.schema):
        conditions.append(f"(bbox IS NULL OR {' OR '.join(meets_box(box) for box in boxes)})")
    if dates == Instants(None, None):
        return conditions
    kind = _datetime_type(relation)
    hive = {"year", "month"} <= set(relation.schema.names) and _keys_follow_datetime(call, relation)
    for micros, strictly, or_equal in ((dates.start, ">", ">="), (dates.end, "<", "<=")):
        if micros is not None:
            conditions.append(f"datetime {or_equal} {_moment(micros, kind)}")
            if hive:
                conditions.append(_months(micros, strictly, or_equal))
    return conditions


def _has_boxes(schema: pa.Schema) -> bool:
    """Whether bbox is one of ours; others are left to the comparison with the raster."""
    if "bbox" not in schema.names:
        return False
    kind = schema.field("bbox").type
    return pa.types.is_struct(kind) and all(kind.get_field_index(n) >= 0 for n in BBox._fields)


def _datetime_type(relation: Relation) -> pa.DataType:
    names = relation.schema.names
    if "datetime" not in names:
        raise InputError.expected(
            "date_range", "a column datetime", ", ".join(names[:12]), "SELECT it under that name"
        )
    kind = relation.schema.field("datetime").type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise InputError.expected(
            "date_range",
            "a column datetime of TIMESTAMP, TIMESTAMPTZ or DATE",
            kind,
            "SELECT * REPLACE (datetime::TIMESTAMPTZ AS datetime), or the like",
        )
    return kind


def _moment(micros: int, kind: pa.DataType) -> str:
    """A UTC instant as SQL, of the type that compares without the session's time zone."""
    if getattr(kind, "tz", None) is None:
        return f"make_timestamp({micros}::BIGINT)"
    return f"TIMESTAMPTZ {quote_text(format_micros(micros).replace('Z', '+00'))}"


def _keys_follow_datetime(call: Call, relation: Relation) -> bool:
    with call.cursor() as cursor:
        return follow_datetime(cursor, relation.label, is_query=relation.is_query)


def _months(micros: int, strictly: str, or_equal: str) -> str:
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    return (
        f"(year {strictly} {moment.year} OR "
        f"(year = {moment.year} AND month {or_equal} {moment.month}))"
    )


def meets_box(box: BBox, column: str = "bbox") -> str:
    """SQL condition: the box of a record and this one have a point in common.

    A record whose xmin is greater than its xmax crosses the antimeridian (RFC 7946, 5.2).
    """
    east_of = f"{column}.xmax >= {box.xmin!r}::DOUBLE"
    west_of = f"{column}.xmin <= {box.xmax!r}::DOUBLE"
    return (
        f"(({west_of} AND {east_of} OR {column}.xmin > {column}.xmax AND ({west_of} OR {east_of})) "
        f"AND {column}.ymin <= {box.ymax!r}::DOUBLE AND {column}.ymax >= {box.ymin!r}::DOUBLE)"
    )
