"""What outputs share: columns of records and targets, errors, and the run of a read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rasteret_sql.errors import DecodeError, InputError, RasteretError, redact
from rasteret_sql.reading.backfill import backfill
from rasteret_sql.reading.band_kinds import BandKind
from rasteret_sql.reading.columns import RepeatedColumns
from rasteret_sql.reading.counters import Counters
from rasteret_sql.reading.fetched import Fetched
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.patches import Patch, pixels_of, valid_pixels
from rasteret_sql.reading.pipeline import Output, Pipeline
from rasteret_sql.reading.plan import TilePlan
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import SceneTable, scene_table
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.reading.warps import warped
from rasteret_sql.units import Window

ERROR = pa.field("error", pa.string())
CRS = pa.field("crs", pa.string())
"""Of the pixels, where it is not that of the record."""

Records = Callable[[], Iterator[SceneTable]]
"""Gives the records of a read as scene tables, from the first on each time it is called."""


@dataclass(frozen=True)
class Read:
    """One execution of a read.

    Attributes:
        request: What to read.
        footprints: Of its targets.
        repeated: Columns of records and targets.
        schema: Columns of the read's own.
        wanted: Output columns that are wanted, in order.
        stop: Ends it.
        counters: Filled while it runs.
    """

    request: ReadRequest
    footprints: Footprints
    repeated: RepeatedColumns
    schema: pa.Schema
    wanted: Sequence[str]
    stop: threading.Event
    check: Callable[[], None]
    counters: Counters = field(default_factory=Counters)

    @property
    def reports_errors(self) -> bool:
        """Whether a column says what could not be read."""
        return self.request.on_error == "report" and "error" in self.wanted

    def batch(self, arrays: dict[str, pa.Array], n_rows: int) -> pa.RecordBatch:
        """A batch of the wanted columns."""
        names = [name for name in self.wanted if name in arrays]
        if not names:
            return pa.RecordBatch.from_arrays([pa.nulls(n_rows)], ["_"])
        fields = [self.field(name) for name in names]
        columns = [arrays[name] for name in names]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    def field(self, name: str) -> pa.Field:
        """An output column."""
        own = self.schema.get_field_index(name)
        return self.schema.field(own) if own >= 0 else self.repeated.fields[name]

    def records_of(
        self, plan: TilePlan, scenes: list[int], targets: list[int], counts: list[int]
    ) -> dict[str, pa.Array]:
        """Columns of records and targets for parts of a batch."""
        return self.repeated.arrays(self.wanted, plan.table.batch, scenes, targets, counts)

    def values_of(
        self, plan: TilePlan, unit: int, name: str, patch: Patch
    ) -> tuple[Pixels, Mask | None] | None:
        """Pixels of a band of a unit, and which of them hold data (None: all).

        None where the scene has no such band, or it could not be read.
        """
        if patch.error is not None:
            return None
        if plan.levels is not None:
            grid = plan.table.grids[int(plan.units.grid[unit])]
            window = Window(*plan.units.window[unit].tolist())
            place = int(plan.units.scene[unit]), grid, window
            return warped(self.footprints, self.request, plan, place, name, patch)
        if patch.kind is None:
            return None
        values = pixels_of(patch)
        return values, valid_pixels(patch, values) if self.request.masked else None

    def kind_of(self, plan: TilePlan, scene: int, name: str) -> BandKind | None:
        """How a band of a scene is read; None where it has no such band."""
        number = plan.level if plan.levels is None else max(int(plan.levels[name][scene]), 0)
        level = plan.table.bands[name].level(number)
        kind = -1 if level is None else int(level.kind[scene])
        return None if kind < 0 else plan.table.kinds[kind]

    def error_of(self, plan: TilePlan, scene: int, patches: dict[str, Patch]) -> str | None:
        """What could not be read of a unit, as text.

        Raises:
            RasteretError: where that is an error.
        """
        told = []
        for name, patch in patches.items():
            error = patch.error
            if error is not None and self.request.on_error == "error":
                raise with_record(error, plan.table, scene, name)
            if error is not None:
                told.append(f"{name}: {message_of(error, plan.table, scene, name)}")
            elif patch.kind is None and self.kind_of(plan, scene, name) is None:
                told.append(f"{name}: no header")
        return "; ".join(told) or None


def with_record(error: RasteretError, table: SceneTable, scene: int, band: str) -> RasteretError:
    """The error, with the record and band it happened in."""
    prefix = f"record {table.id_of(scene)}, band {band}: "
    if error.message.startswith(prefix):
        return error
    named: Any = type(error)(prefix + message_of(error, table, scene, band))
    named.__cause__ = error
    return named  # type: ignore[no-any-return]


def message_of(error: RasteretError, table: SceneTable, scene: int, band: str) -> str:
    """What to tell of an error; one of a tile's content does not know its file, so it is named."""
    number = int(table.bands[band].file[scene]) if isinstance(error, DecodeError) else -1
    return error.message if number < 0 else f"{redact(table.hrefs[number])}: {error.message}"


def tables(
    batches: Iterator[pa.RecordBatch | SceneTable],
    bands: Sequence[str],
    check: Callable[[], None],
    *,
    may_request: bool = True,
) -> Iterator[SceneTable]:
    """Batches of records as scene tables, their headers made whole where they are not."""
    for batch in batches:
        check()
        if isinstance(batch, SceneTable):
            yield batch
        elif batch.num_rows:
            whole, faults = backfill(batch, bands, check, may_request=may_request)
            yield scene_table(whole, bands, faults)


def run(
    read: Read,
    output: Output[pa.RecordBatch],
    planner: Planner,
    records: Records,
    checked: Planner | None = None,
) -> Iterator[pa.RecordBatch]:
    """Plan and run a read.

    Args:
        read: The execution.
        output: Makes its batches.
        planner: Makes its plans.
        records: Gives its records, from the first on each time it is called.
        checked: Makes the plans that are summed for ``max_bytes``, where they are others.

    Raises:
        InputError: it would fetch more than `ReadRequest.max_bytes`; nothing was fetched.
    """
    check_max_bytes(read, checked or planner, records)
    yield from run_unchecked(read, output, planner, records)


def run_unchecked(
    read: Read, output: Output[pa.RecordBatch], planner: Planner, records: Records
) -> Iterator[pa.RecordBatch]:
    """`run` of a read whose bytes were checked before."""
    pipeline = Pipeline(
        output, read.stop, max_concurrent=read.request.max_concurrent, counters=read.counters
    )

    def plans() -> Iterator[TilePlan]:
        share, is_known = 0.0, True
        for table in records():
            for plan in planner.plans(table):
                is_known &= not 0 < plan.share < share  # not in the order of the scenes
                share = max(share, plan.share)
                read.counters.planned_share = share if is_known else 0.0
                yield plan
        read.counters.planned_share = 1.0

    yield from pipeline.run(plans())


def check_max_bytes(
    read: Read,
    planner: Planner,
    records: Records,
    *,
    spent: int = 0,
    fetched: Fetched | None = None,
) -> None:
    """Refuse a read that would fetch too much, before its first request.

    Args:
        read: The execution.
        planner: Makes its plans.
        records: Gives its records.
        spent: Bytes that it has fetched before.
        fetched: Counts a tile that several plans need once.

    Raises:
        InputError: it would fetch more than `ReadRequest.max_bytes`.
    """
    most = read.request.max_bytes
    if most is None:
        return
    total = spent
    for table in records():
        for plan in planner.plans(table):
            read.check()
            total += plan.fetched_bytes(None if fetched is None else fetched.chosen(plan))
    if total > most:
        raise InputError.expected(
            "max_bytes",
            f"a read of at most {most} bytes",
            f"{total} bytes",
            "narrow the area, the dates or the bands, or raise max_bytes",
        )
