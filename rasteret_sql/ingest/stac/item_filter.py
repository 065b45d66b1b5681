"""The search of a STAC API, done here for sources that can't search."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import shapely

from rasteret_sql.collections.datetimes import Instants, parse_micros
from rasteret_sql.collections.footprints import (
    Geometry,
    bbox_of,
    boxes_meet,
    geometry_of,
    parse_bbox,
    parse_geometry,
)
from rasteret_sql.errors import InputError
from rasteret_sql.units import BBox

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, wanted: value == wanted,
    "neq": lambda value, wanted: value != wanted,
    "lt": lambda value, wanted: value < wanted,
    "lte": lambda value, wanted: value <= wanted,
    "gt": lambda value, wanted: value > wanted,
    "gte": lambda value, wanted: value >= wanted,
    "in": lambda value, wanted: value in wanted,
    "startsWith": lambda value, wanted: value.startswith(wanted),
    "endsWith": lambda value, wanted: value.endswith(wanted),
    "contains": lambda value, wanted: wanted in value,
}

Query = Mapping[str, Mapping[str, Any]]


def parse_query(query: object) -> dict[str, dict[str, Any]]:
    """The STAC `query` of JSON text or an object; ``{"name": value}`` means equality.

    Raises:
        InputError: if it is not JSON, or has an operator that is not in the specification.

    Source: STAC API, query extension.

    Example:
        >>> parse_query('{"eo:cloud_cover": {"lt": 10}, "platform": "s2a"}')
        {'eo:cloud_cover': {'lt': 10}, 'platform': {'eq': 's2a'}}
    """
    if isinstance(query, str):
        try:
            query = json.loads(query)
        except json.JSONDecodeError as error:
            raise InputError.expected("query", "JSON", error, 'quote names with "') from None
    if not isinstance(query, Mapping):
        raise InputError.expected(
            "query", "a JSON object", query, 'write it like {"eo:cloud_cover": {"lt": 10}}'
        )
    parsed = {
        str(name): dict(test) if isinstance(test, Mapping) else {"eq": test}
        for name, test in query.items()
    }
    unknown = {operator for test in parsed.values() for operator in test} - set(_OPERATORS)
    if unknown:
        raise InputError.expected(
            "query", f"operators {', '.join(_OPERATORS)}", sorted(unknown), "check the spelling"
        )
    return parsed


@dataclass(frozen=True)
class ItemFilter:
    """Which items of a source are wanted; None is no condition."""

    collection: str | None = None
    bbox: BBox | None = None
    instants: Instants | None = None
    ids: frozenset[str] | None = None
    query: Query | None = None
    intersects: Geometry | None = None

    def accepts(self, item: Mapping[str, Any]) -> bool:
        """Whether an item meets every condition.

        An item without a footprint meets no area, one without a time no period.
        """
        properties = item["properties"]
        if self.ids is not None and item["id"] not in self.ids:
            return False
        if self.collection is not None and self.collection != collection_of(item):
            return False
        if self.instants is not None and not self.instants.meets(*_period(properties)):
            return False
        if self.query is not None and not _answers(item, properties, self.query):
            return False
        return self._is_inside(item)

    def _is_inside(self, item: Mapping[str, Any]) -> bool:
        if self.bbox is None and self.intersects is None:
            return True
        try:
            geometry = parse_geometry(item.get("geometry"))
            box = parse_bbox(item.get("bbox"))
        except ValueError:
            geometry, box = None, None
        box = box or (bbox_of(geometry) if geometry is not None else None)
        if box is None:
            return False
        geometry = geometry if geometry is not None else geometry_of(box)
        if self.bbox is not None and not (
            boxes_meet(self.bbox, box) and geometry_of(self.bbox).intersects(geometry)
        ):
            return False
        return self.intersects is None or bool(shapely.intersects(self.intersects, geometry))


def collection_of(item: Mapping[str, Any]) -> str | None:
    """Id of the collection that an item says it is in; before STAC 1.0 among properties."""
    for value in (item.get("collection"), item.get("properties", {}).get("collection")):
        if isinstance(value, str) and value:
            return value
    return None


def _period(properties: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """First and last microsecond of an item."""
    at = _instant(properties.get("datetime"))
    start = _instant(properties.get("start_datetime"))
    end = _instant(properties.get("end_datetime"))
    return (at if start is None else start), (at if end is None else end)


def _instant(value: object) -> int | None:
    try:
        return None if value is None else parse_micros(value)
    except ValueError:
        return None


def _answers(item: Mapping[str, Any], properties: Mapping[str, Any], query: Query) -> bool:
    for name, test in query.items():
        plain = name.removeprefix("properties.")
        value = properties.get(plain, item.get(plain))
        if value is None:
            return False
        for operator, wanted in test.items():
            try:
                if not _OPERATORS[operator](value, wanted):
                    return False
            except (TypeError, AttributeError):
                return False
    return True
