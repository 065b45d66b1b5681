"""What to tell a user whose arguments match no record of a collection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from rasteret_sql.collections.datetimes import Instants, format_micros
from rasteret_sql.duck.calls import Call
from rasteret_sql.duck.names import quote_text
from rasteret_sql.duck.record_conditions import record_conditions
from rasteret_sql.duck.relations import Relation
from rasteret_sql.errors import RasteretError, redact
from rasteret_sql.units import BBox

_MOST_DEGREES = 270.0
"""A bbox across the antimeridian that is wider has most likely its sides swapped."""
_SHOWN_IDS = 3
_SHOWN_LABEL = 60
_OPEN = Instants(None, None)


@dataclass
class Unmatched:
    """One execution of a read: which of its records its arguments matched.

    Args:
        call: The read.
        relation: Its records.
        boxes: Of the area, in longitude and latitude; None for no area.
        dates: Of the records.
        ids: Of the records, None for all.
        argument: The one that gave the area: bbox, geometry or aois.
        has_crs: Whether the area came with a CRS.
    """

    call: Call
    relation: Relation
    boxes: Sequence[BBox] | None
    dates: Instants
    ids: Sequence[str] | None
    argument: str
    has_crs: bool
    _is_told: bool = field(default=False, init=False)

    def watched(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The matching records; after the last one, tell what matched none."""
        found: set[str] = set()
        n_records = 0
        for batch in batches:
            n_records += batch.num_rows
            if self.ids is not None:
                found.update(map(str, batch.column("id").to_pylist()))
            yield batch
        self.tell(n_records, found)

    def tell(self, n_records: int, found: set[str]) -> None:
        """Tell what matched none, once.

        Args:
            n_records: How many records all arguments match.
            found: Ids among them.
        """
        if self._is_told:
            return
        self._is_told = True
        if self.argument == "bbox" and not self.has_crs:
            self._tell_wide()
        is_short = self.ids is not None and not found.issuperset(self.ids)
        if n_records and not is_short:
            return
        if self.relation.source is not None:  # a second scan of it costs requests
            if not n_records:
                self.call.runtime.warn(
                    self.call,
                    f"arguments: expected some that match a record of {self._label}, "
                    "got none; compare them with its bbox, datetime and id",
                )
            return
        try:
            messages = list(self._reasons(n_records))
        except (duckdb.Error, RasteretError):
            return  # what is wrong with the relation is an error of the read itself
        for message in messages:
            self.call.runtime.warn(self.call, message)

    @property
    def _label(self) -> str:
        """The collection as the user named it; a query may be long, and holds what it holds."""
        label = self.relation.label
        is_name = len(label) <= _SHOWN_LABEL and not any(map(str.isspace, label))
        return redact(label) if is_name else "the query"

    def _tell_wide(self) -> None:
        """Longitudes that cross the antimeridian the long way round."""
        boxes = self.boxes or ()
        width = sum(box.xmax - box.xmin for box in boxes)
        if len(boxes) > 1 and width > _MOST_DEGREES:
            west, east = max(box.xmin for box in boxes), min(box.xmax for box in boxes)
            self.call.runtime.warn(
                self.call,
                f"bbox: expected west < east, or a narrow one across the antimeridian, got "
                f"{west:g} > {east:g}, {width:g} degrees wide; are west and east swapped?",
            )

    def _reasons(self, n_records: int) -> Iterator[str]:
        """A message for each argument that alone matches no record, else one for all."""
        label = self._label
        facts = self._facts()
        if not facts["n"]:
            return  # there is nothing to match
        known = set(facts["ids"] or ())
        unknown = [one for one in dict.fromkeys(self.ids or ()) if one not in known]
        n_told = 0
        if unknown:
            n_told += 1
            shown = ", ".join(unknown[:_SHOWN_IDS]) + (", …" if len(unknown) > _SHOWN_IDS else "")
            yield (
                f"ids: expected ids of {label}, got {len(unknown)} unknown ({shown}); "
                "SELECT id lists those it has"
            )
        if n_records:
            return
        if facts["in_area"] == 0:
            n_told += 1
            yield self._area_reason(BBox(*(float(facts[name]) for name in BBox._fields)))
        if facts["in_dates"] == 0:
            n_told += 1
            yield (
                f"date_range: expected dates of {label} ({facts['first']} to {facts['last']}), "
                f"got {_moments(self.dates)}; check the years"
            )
        if not n_told:
            yield (
                f"arguments: expected some that match a record of {label} together, got none; "
                "each alone matches some"
            )

    def _area_reason(self, bounds: BBox) -> str:
        boxes = self.boxes or ()
        todo = "check its coordinates"
        swapped = [BBox(box.ymin, box.xmin, box.ymax, box.xmax) for box in boxes]
        if self.has_crs:
            todo = "is geometry_crs the CRS of its coordinates?"
        elif any(bounds.intersects(box) for box in swapped):
            todo = "are longitude and latitude swapped?"
        got = " and ".join(map(_shown, boxes[:2]))
        return (
            f"{self.argument}: expected an area that touches {self._label} "
            f"({_shown(bounds)}), got {got}; {todo}"
        )

    def _facts(self) -> dict[str, Any]:
        """Counts of what each argument matches alone, and the bounds of the collection."""

        def counted(conditions: list[str]) -> str:
            return f"count(*) FILTER (WHERE {' AND '.join(conditions)})" if conditions else "NULL"

        in_area = record_conditions(self.call, self.relation, self.boxes, _OPEN, None)
        in_dates = record_conditions(self.call, self.relation, None, self.dates, None)
        parts = {"n": "count(*)", "in_area": counted(in_area), "in_dates": counted(in_dates)}
        if in_area:
            parts |= {
                name: f"{'min' if name.endswith('min') else 'max'}(bbox.{name})"
                for name in BBox._fields
            }
        if in_dates:
            parts |= {
                "first": "min(datetime)::DATE::VARCHAR",
                "last": "max(datetime)::DATE::VARCHAR",
            }
        listed = ", ".join(quote_text(one) for one in self.ids or ())
        parts["ids"] = f"list(id::VARCHAR) FILTER (WHERE id IN ({listed}))" if listed else "NULL"
        columns = ", ".join(f"{sql} AS {name}" for name, sql in parts.items())
        cursor = self.call.cursor()
        try:
            row = cursor.execute(f"SELECT {columns} FROM {self.relation.sql}").fetchall()[0]
        finally:
            cursor.close()
        return dict(zip(parts, row, strict=True))


def _shown(box: BBox) -> str:
    """A box as a person reads it.

    Example:
        >>> _shown(BBox(77.96, 13.0, 78.03, 13.04))
        'longitude 77.96 to 78.03, latitude 13 to 13.04'
    """
    return f"longitude {box.xmin:.6g} to {box.xmax:.6g}, latitude {box.ymin:.6g} to {box.ymax:.6g}"


def _moments(dates: Instants) -> str:
    start, end = (None if one is None else format_micros(one) for one in dates)
    return f"{start or 'any'} to {end or 'any'}"
