"""The plan itself as rows: what a read would fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_sql.reading.blocks import item_bytes
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.fetched import Fetched
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.outputs.common import ERROR, Read, Records, check_max_bytes
from rasteret_sql.reading.outputs.mosaics import all_scenes, on_common_grid
from rasteret_sql.reading.plan import MASK, Granularity, Needs, TilePlan
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.reading.warps import WarpPlanner

PLAN_SCHEMA = pa.schema(
    [
        ("band", pa.string()),
        ("level", pa.int32()),
        ("tile_row", pa.int32()),
        ("tile_col", pa.int32()),
        ("href", pa.string()),
        ("byte_offset", pa.int64()),
        ("byte_count", pa.int64()),
        ("decoded_bytes", pa.int64()),
        ("request", pa.int64()),
        ("role", pa.string()),
    ]
)
"""Columns of a plan besides the record's own."""

_ROWS_AT_ONCE = 1 << 18


def window_planner(read: Read) -> Planner:
    """Plans windows and rows of pixels.

    Without masks it is the plan of whole windows, as `rasteret_read` reads them; rows of
    pixels need only the tiles that a target touches.
    """
    if read.request.output_grid is not None:
        return WarpPlanner(read.request, read.footprints, at_once=_ROWS_AT_ONCE, makes_rows=False)
    return Planner(
        read.request,
        read.footprints,
        Granularity.WINDOW,
        aligned=False,
        whole_windows=not read.request.masked,
        per_band=True,
        at_once=_ROWS_AT_ONCE,
    )


def plan_rows(
    read: Read, records: Records, planner: Planner, fetched: Fetched | None = None
) -> Iterator[pa.RecordBatch]:
    """Plan a read; nothing is requested.

    Args:
        read: The execution.
        records: Gives the scene tables.
        planner: Makes the plans of the read.
        fetched: Leaves out what a plan before has fetched.
    """
    check_max_bytes(read, planner, records, fetched=None if fetched is None else Fetched())
    first = 0
    for table in records():
        for plan in planner.plans(table):
            read.check()
            yield from _failed(read, plan)
            yield _rows(read, plan, first, None if fetched is None else fetched.chosen(plan))
            first += int(plan.tiles.request.max()) + 1 if len(plan.tiles.request) else 0


def mosaic_plan_rows(
    read: Read, records: Records, planner: Callable[[Read, SceneTable], Planner]
) -> Iterator[pa.RecordBatch]:
    """Plan a read of all records onto one grid; nothing is requested.

    Args:
        read: The execution.
        records: Gives the scene tables.
        planner: Makes the plans, given the execution with its grid and all records.
    """
    table = all_scenes(records, read)
    if table is not None:
        read = on_common_grid(read, table)
        yield from plan_rows(read, lambda: iter([table]), planner(read, table), Fetched())


def plan_schema(on_error: str) -> pa.Schema:
    """Columns of a plan, with one for errors where they are reported."""
    return PLAN_SCHEMA.append(ERROR) if on_error == "report" else PLAN_SCHEMA


def _failed(read: Read, plan: TilePlan) -> Iterator[pa.RecordBatch]:
    if not plan.failures:
        return
    scenes = [failure.scene for failure in plan.failures]
    arrays = read.records_of(plan, scenes, [-1] * len(scenes), [1] * len(scenes))
    for field in PLAN_SCHEMA:
        arrays[field.name] = pa.nulls(len(scenes), field.type)
    arrays["band"] = pa.array([failure.band for failure in plan.failures], pa.string())
    arrays["level"] = pa.array([plan.level] * len(scenes), pa.int32())
    arrays["error"] = pa.array([failure.error.message for failure in plan.failures], pa.string())
    yield read.batch(arrays, len(scenes))


def _rows(read: Read, plan: TilePlan, first_request: int, chosen: Mask | None) -> pa.RecordBatch:
    needs, tiles, units = plan.needs, plan.tiles, plan.units
    if chosen is not None:
        needs = Needs(*(column[chosen] for column in needs))
    scene = units.scene[needs.unit]
    keys = (needs.tile_col, needs.tile_row, needs.role, needs.band, scene)
    order = np.lexsort(keys)
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    first = np.flatnonzero(new)
    at = order[first]  # the parts of a large block are one row
    tile = needs.tile[at]
    stored = tile >= 0
    start = np.where(stored, tiles.fetch_start[tile], 0) if len(tiles.file) else np.zeros(len(at))
    stop = start.copy()
    if len(tiles.file) and len(first):
        ends = np.where(needs.tile >= 0, tiles.fetch_stop[needs.tile], 0)[order]
        stop = np.maximum(np.maximum.reduceat(ends, first), start)
        starts = np.where(needs.tile >= 0, tiles.fetch_start[needs.tile], 0)[order]
        start = np.minimum.reduceat(starts, first)
    request = tiles.request[tile] + first_request if len(tiles.file) else np.zeros(len(at))
    kinds = plan.table.kinds
    sizes = np.array(
        [k.format.tile_height * k.format.tile_width * item_bytes(k.format) for k in kinds] or [0]
    )
    band_names, hrefs = list(plan.bands) or [""], plan.table.hrefs or [""]
    file = np.zeros(len(at), np.int64)
    for number, name in enumerate(plan.bands):
        own = needs.band[at] == number
        file[own] = plan.table.bands[name].file[scene[at][own]]
    scenes, counts = np.unique(scene[at], return_counts=True)
    arrays = read.records_of(plan, scenes.tolist(), [-1] * len(scenes), counts.tolist())
    arrays |= {
        "band": _named(band_names, needs.band[at]),
        "level": pa.array(_level(plan, needs.band[at], scene[at])),
        "tile_row": pa.array(needs.tile_row[at].astype(np.int32)),
        "tile_col": pa.array(needs.tile_col[at].astype(np.int32)),
        "href": _named(hrefs, file),
        "byte_offset": pa.array(start.astype(np.int64)),
        "byte_count": pa.array((stop - start).astype(np.int64)),
        "decoded_bytes": pa.array(sizes[needs.kind[at]].astype(np.int64)),
        "request": pa.array(request.astype(np.int64), mask=~stored),
        "role": _named(["data", "mask"], (needs.role[at] == MASK).astype(np.int64)),
        "error": pa.nulls(len(at), pa.string()),
    }
    return read.batch(arrays, len(at))


def _level(plan: TilePlan, band: Ints, scene: Ints) -> NDArray[np.int32]:
    """The level that each tile is of."""
    found = np.full(len(band), plan.level, np.int32)
    if plan.levels is not None:
        for number, name in enumerate(plan.bands):
            own = band == number
            found[own] = plan.levels[name][scene[own]]
    return found


def _named(names: list[str], number: Any) -> pa.Array:  # noqa: ANN401
    return pa.array(names, pa.string()).take(pa.array(number))
