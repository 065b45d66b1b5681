"""A collection beside its source: which records stay, which are replaced, which are new."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_sql.collections.spool import Spool
from rasteret_sql.errors import InterruptedReadError
from rasteret_sql.ingest import asset_hints
from rasteret_sql.ingest.asset_hints import HINT
from rasteret_sql.ingest.raster_footprints import covers
from rasteret_sql.maintenance.evolve import conform_to_schema
from rasteret_sql.maintenance.stored import Stored
from rasteret_sql.units import BBox

_BBOX = "bbox"


@dataclass
class Comparison:
    """What becomes of each stored row, and the rows that the source has beyond them.

    An id that the source has is stored as the source has it; other ids stay. A row that
    the source repeats word for word counts once.

    Attributes:
        fresh: New and changed rows of the source: those in the place of a stored row first,
            in the order of these, so that both are read side by side.
        kept: Of each stored row, whether it stays.
        replaced_by: Of each stored row, the number of the fresh row in its place, else -1.
        is_new: Of each fresh row, whether it is in nobody's place.
        given_as: Of each stored row, the number in `hints` of the source's row that it is or
            that replaces it, else -1.
        fresh_as: Of each fresh row, its number in `hints`.
        hints: `asset_hints.COLUMN` of the source, of stored rows in their order, then of new
            ones; None where it has none.
    """

    fresh: Spool
    kept: NDArray[np.bool_]
    replaced_by: NDArray[np.int64]
    is_new: NDArray[np.bool_]
    given_as: NDArray[np.int64]
    fresh_as: NDArray[np.int64]
    hints: Spool | None = None

    def hints_of(self, numbers: NDArray[np.int64], bands: Sequence[str]) -> pa.StructArray | None:
        """What the source says of the values in rows of `hints`, NULL for -1."""
        if self.hints is None:
            return None
        there = numbers >= 0
        found = self.hints.take(numbers[there]).column(0)
        places = pa.array(np.cumsum(there) - 1, pa.int64(), mask=~there)
        children = []
        for band in bands:
            known = found.type.get_field_index(band) >= 0
            children.append(
                found.field(band).take(places) if known else pa.nulls(len(numbers), HINT)
            )
        return pa.StructArray.from_arrays(children, fields=[pa.field(b, HINT) for b in bands])


@dataclass(frozen=True)
class ComparisonKey:
    """The columns by which a stored record and one of the source are told apart.

    Attributes:
        schema: What rows are cast to before they are compared.
        columns: Compared.
        is_bbox_filled: Whether a bbox that the source lacks, or that does not cover the
            raster, was taken from the raster.
    """

    schema: pa.Schema
    columns: tuple[str, ...]
    is_bbox_filled: bool

    def hashes(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Id and content of each row, shape (rows, 2)."""
        rows = zip(*(_plain(batch.column(name)) for name in self.columns), strict=True)
        content = [hash(repr(row)) for row in rows]
        ids = [hash(name) for name in batch.column("id").to_pylist()]
        return np.array([ids, content], np.int64).reshape(2, -1).T

    def boxes(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        """The bbox of each row, shape (rows, 4); NaN where it is NULL or compared as content."""
        nothing = np.full((batch.num_rows, 4), np.nan)
        if not self.is_bbox_filled:
            return nothing
        for row, box in enumerate(batch.column(_BBOX).to_pylist()):
            if box is not None and None not in box.values():
                nothing[row] = list(box.values())
        return nothing


def compare(
    stored: Stored,
    source: Iterable[pa.RecordBatch],
    key: ComparisonKey,
    folder: Path,
    stop: threading.Event,
) -> Comparison:
    """Read the collection, then its source; some 80 bytes a record are held in memory.

    Args:
        stored: The collection.
        source: Its records now.
        key: How both are compared.
        folder: Where rows of the source wait.
        stop: Ends the work with InterruptedReadError.
    """
    # columns of the schema that the files lack are NULL there, as `conform_to_schema` has it
    held = {name.casefold(): name for name in stored.schema.names}
    asked = [held[name.casefold()] for name in key.schema.names if name.casefold() in held]
    known = [np.empty((0, 2), np.int64)]
    boxes = [np.empty((0, 4))]
    for _, batch in stored.batches(asked):
        _check(stop)
        held_rows = conform_to_schema(batch, key.schema)
        known.append(key.hashes(held_rows))
        boxes.append(key.boxes(held_rows))
    matching = _Matching(np.concatenate(known), np.concatenate(boxes))
    fresh = Spool(key.schema, folder / "fresh.arrows")
    hints: Spool | None = None
    for batch in source:
        _check(stop)
        if asset_hints.COLUMN in batch.schema.names:
            told = batch.select([asset_hints.COLUMN])
            if hints is None:
                hints = Spool(told.schema, folder / "hints.arrows")
            hints.append(told)
        given = conform_to_schema(batch, key.schema)
        rows = matching.unmatched(key.hashes(given), key.boxes(given))
        fresh.append(given.take(pa.array(rows, pa.int64())) if rows else given.slice(0, 0))
    for spool in (fresh, hints):
        if spool is not None:
            spool.close()
    found = matching.result(fresh, hints)
    del matching  # several times as large as what it found
    return _side_by_side(found, folder, stop)


def _side_by_side(found: Comparison, folder: Path, stop: threading.Event) -> Comparison:
    """The comparison with its rows of the source in the order in which they are needed.

    A source has another order than a collection. Taking the rows where they lie would read a
    batch for each.
    """
    replacing = found.replaced_by >= 0
    order = np.concatenate([found.replaced_by[replacing], np.flatnonzero(found.is_new)])
    found.fresh = _reordered(found.fresh, order, folder / "fresh-ordered.arrows", stop)
    found.replaced_by[replacing] = np.arange(np.count_nonzero(replacing))
    found.is_new, found.fresh_as = found.is_new[order], found.fresh_as[order]
    if found.hints is not None:
        given = found.given_as >= 0
        order = np.concatenate([found.given_as[given], found.fresh_as[found.is_new]])
        places = np.full(len(found.hints), -1, np.int64)
        places[order] = np.arange(len(order))
        found.hints = _reordered(found.hints, order, folder / "hints-ordered.arrows", stop)
        found.given_as[given] = places[found.given_as[given]]
        found.fresh_as = places[found.fresh_as]
    return found


def _reordered(spool: Spool, rows: NDArray[np.int64], path: Path, stop: threading.Event) -> Spool:
    other = Spool(spool.schema, path)
    for batch in spool.ordered(rows):
        _check(stop)
        other.append(batch)
    other.close()
    spool.remove()
    return other


class _Matching:
    """Stored rows by id, and those that the source still has."""

    def __init__(self, known: NDArray[np.int64], boxes: NDArray[np.float64]) -> None:
        self._order = np.argsort(known[:, 0], kind="stable")
        self._ids = known[self._order, 0]
        self._contents = known[self._order, 1].tolist()
        self._boxes = boxes[self._order]
        self._given_as = np.full(len(known), -1, np.int64)
        self._n_given = 0
        self._is_given = bytearray(len(known))
        self._fresh_ids: list[int] = []
        self._fresh_as: list[int] = []
        self._fresh: set[tuple[int, int, bytes]] = set()

    def unmatched(self, given: NDArray[np.int64], boxes: NDArray[np.float64]) -> list[int]:
        """Rows of a batch that are not stored as they are."""
        starts = np.searchsorted(self._ids, given[:, 0], "left").tolist()
        stops = np.searchsorted(self._ids, given[:, 0], "right").tolist()
        rows = []
        for row, (name, content) in enumerate(given.tolist()):
            same = self._find(range(starts[row], stops[row]), content, boxes[row])
            box = boxes[row].tobytes()
            if same is not None:
                self._given_as[same] = self._n_given + row
            elif (name, content, box) not in self._fresh:
                self._fresh.add((name, content, box))
                self._fresh_ids.append(name)
                self._fresh_as.append(self._n_given + row)
                rows.append(row)
        self._n_given += len(given)
        return rows

    def _find(self, places: Sequence[int], content: int, box: NDArray[np.float64]) -> int | None:
        found = None
        for place in places:
            self._is_given[place] = True
            is_same = self._contents[place] == content and _holds(self._boxes[place], box)
            if is_same and (found is None or self._given_as[found] >= 0):
                found = place
        return found

    def result(self, fresh: Spool, hints: Spool | None) -> Comparison:
        n = len(self._order)
        is_given = np.frombuffer(self._is_given, np.bool_)
        is_kept = ~is_given | (self._given_as >= 0)
        dropped = np.flatnonzero(~is_kept)
        ids = self._ids[dropped]  # sorted, as all rows are here
        fresh_ids = np.array(self._fresh_ids, np.int64)
        fresh_as = np.array(self._fresh_as, np.int64)
        by_id = np.argsort(fresh_ids, kind="stable")
        # the first dropped row of an id gets its first fresh row, the second its second
        ranks = np.arange(len(ids)) - np.searchsorted(ids, ids)
        places = np.searchsorted(fresh_ids[by_id], ids, "left") + ranks
        is_replaced = places < np.searchsorted(fresh_ids[by_id], ids, "right")
        numbers = by_id[places[is_replaced]]
        replaced_by = np.full(n, -1, np.int64)
        replaced_by[dropped[is_replaced]] = numbers
        self._given_as[dropped[is_replaced]] = fresh_as[numbers]
        is_new = np.ones(len(fresh_as), np.bool_)
        is_new[numbers] = False
        in_order = np.empty(n, np.int64)
        in_order[self._order] = np.arange(n)
        return Comparison(
            fresh,
            is_kept[in_order],
            replaced_by[in_order],
            is_new,
            self._given_as[in_order],
            fresh_as,
            hints,
        )


def _holds(kept: NDArray[np.float64], given: NDArray[np.float64]) -> bool:
    """Whether the bbox that is kept is what became of the source's: that one, or a wider one."""
    if np.isnan(given).any() or (kept == given).all():
        return True
    return not np.isnan(kept).any() and covers(BBox(*kept.tolist()), BBox(*given.tolist()))


def _plain(column: pa.Array) -> list[object]:
    """Values whose text tells them apart."""
    values: list[object] = column.cast(_counted(column.type)).to_pylist()
    return values


def _counted(kind: pa.DataType) -> pa.DataType:
    """The type with dates and times as integers: Python's own end with the year 9999."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_counted(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_counted(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(_counted(kind.key_type), _counted(kind.item_type))
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_temporal(kind):
        return pa.int32() if kind.bit_width == pa.int32().bit_width else pa.int64()
    return kind


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise InterruptedReadError("interrupted")
