"""One grid over the rasters of many scenes, and the plans of reads that put scenes together."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.reading.columns import Ints, one_batch
from rasteret_sql.reading.fetched import Fetched
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import Read, Records, check_max_bytes
from rasteret_sql.reading.patches import Patch
from rasteret_sql.reading.pipeline import Pipeline
from rasteret_sql.reading.plan import Failure, Jobs, Lattice, TilePlan
from rasteret_sql.reading.request import OutputGrid, ReadRequest
from rasteret_sql.reading.scenes import Grid, SceneTable, scene_table
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.reading.warps import WarpPlanner, output_grid
from rasteret_sql.units import Affine, Window

NO_MOMENT = np.iinfo(np.int64).min
"""Of records without a datetime; they come first."""


class MosaicPlanner(WarpPlanner):
    """Plans reads of all scenes onto one grid, place by place: by period, place and time.

    Args:
        request: What to read; its output grid names CRS and resolution.
        footprints: Of the areas.
        moments: Of each scene.
        periods: Of each scene; default: all scenes are of one.
        block: Rows and columns of a block, which is a plan.
        bands: Bands that are fetched.
        lattice: Its squares are the places; else blocks are, as far as a scene covers them.
    """

    def __init__(
        self,
        request: ReadRequest,
        footprints: Footprints,
        moments: Ints,
        periods: Ints | None = None,
        *,
        block: tuple[int, int],
        bands: Sequence[str],
        lattice: Lattice | None = None,
    ) -> None:
        super().__init__(
            request, footprints, bands=bands, block=None if lattice else block, lattice=lattice
        )
        self._rows, self._cols = block
        self._moments = moments
        self._periods = np.full(len(moments), NO_MOMENT) if periods is None else periods
        self._parts: dict[int, Window] = {}

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """A plan for each period, target and block, with a unit for each place and scene.

        The units of a place follow each other, the earliest scene first.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        ready = self.prepared(table)
        units, told = ready.units, ready.failures
        top, left = units.window[:, 0], units.window[:, 2]
        places = (left, top) if self.lattice else ()
        plans = (
            left // self._cols,
            top // self._rows,
            units.target,
            self._periods[units.scene],
        )
        order = np.lexsort((units.scene, self._moments[units.scene], *places, *plans))
        new = np.zeros(len(order), bool)
        new[:1] = True
        for key in plans:
            new[1:] |= np.diff(key[order]) != 0
        edges = [*np.flatnonzero(new).tolist(), len(order)]
        self.whole_tiles = len(edges) > 2
        for start, stop in itertools.pairwise(edges):
            yield self.plan_of(ready, order[start:stop], told)
            told = []
        if told:
            yield self.plan_of(ready, np.empty(0, np.int64), told)

    def place_of(self, layer: Layer) -> tuple[int, ...]:
        """What tells the places of a plan apart: squares by target; a block is all of a plan."""
        if layer.unit < 0:
            return (-1,)
        return (int(layer.plan.units.target[layer.unit]), *layer.window) if self.lattice else ()

    def _output_grids(self, table: SceneTable, base: Ints) -> tuple[Ints, dict[int, InputError]]:
        """The same grid for all scenes, over what all of them cover."""
        own, errors = super()._output_grids(table, base)
        numbers = np.unique(own[own >= 0]).tolist()
        if not numbers:
            return own, errors
        grids = [table.grids[number] for number in numbers]
        around = _around(grids)
        number = table.number_grid(around)
        self._parts = {}
        for scene, grid in enumerate(own.tolist()):
            if grid >= 0:
                self._parts[scene] = _place(table.grids[grid], around)
        return np.where(own >= 0, number, -1), errors

    def covered(self, jobs: Jobs) -> Jobs:
        """Windows as far as their scenes cover the grid over all."""
        if not len(jobs.scene):
            return jobs
        part = np.array([self._parts[scene] for scene in jobs.scene.tolist()], np.int64)
        window = np.column_stack(
            [
                np.maximum(jobs.window[:, 0], part[:, 0]),
                np.minimum(jobs.window[:, 1], part[:, 1]),
                np.maximum(jobs.window[:, 2], part[:, 2]),
                np.minimum(jobs.window[:, 3], part[:, 3]),
            ]
        )
        there = (window[:, 0] < window[:, 1]) & (window[:, 2] < window[:, 3])
        return jobs._replace(window=window).take(there)


@dataclass(frozen=True, eq=False)
class Layer:
    """The pixels of one scene in one place.

    Attributes:
        plan: Of the place.
        unit: Number of the unit in it; -1 of what can't be planned.
        bands: Values and which of them count, by band; None where there are none.
        error: What could not be read.
    """

    plan: TilePlan
    unit: int
    bands: dict[str, tuple[Pixels, Mask] | None]
    error: str | None
    num_rows: int = 1

    @property
    def scene(self) -> int:
        """Row of the scene in the table."""
        return int(self.plan.units.scene[self.unit])

    @property
    def window(self) -> Window:
        """Rows and columns of the grid."""
        return Window(*self.plan.units.window[self.unit].tolist())


class LayerOutput:
    """Makes layers, on the decode workers.

    Args:
        read: The execution; its request names the output grid.
        bands: Bands that are wanted.
    """

    def __init__(self, read: Read, bands: Sequence[str]) -> None:
        self.read = read
        self.bands = bands

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of each unit."""
        raise NotImplementedError

    def values_of(
        self, plan: TilePlan, unit: int, patches: dict[str, Patch]
    ) -> dict[str, tuple[Pixels, Mask] | None]:
        """Values of each band of a unit, and which of them count."""
        raise NotImplementedError

    def group_bytes(self) -> int:
        """Each unit is a group, so that its tiles are free at once."""
        return 1

    def work(self, group: Group) -> Layer:
        """The layer of a unit."""
        plan, unit = group.plan, group.start
        patches = dict(zip(plan.bands, group.patches(unit), strict=True))
        scene = int(plan.units.scene[unit])
        error = self.read.error_of(plan, scene, patches)
        if error is not None:
            error = _of_record(plan, scene, error)
        return Layer(plan, unit, self.values_of(plan, unit, patches), error)

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> Layer | None:
        """Scenes that can't be planned are left out; where errors are reported they are told."""
        if self.read.request.on_error != "report":
            return None
        told = (_of_record(plan, one.scene, one.error.message, one.band) for one in failures)
        return Layer(plan, -1, {}, joined(told))


def layers_by_place(
    output: LayerOutput,
    planner: Callable[[], MosaicPlanner],
    table: SceneTable,
    *,
    held_bytes: int = 0,
) -> Iterator[Iterator[Layer]]:
    """Run the plans; the layers of each place as they come, the earliest scene first.

    The layers of a place are gone when the next place is asked for.

    Args:
        output: Makes the layers.
        planner: Makes the planner, anew at each call.
        table: All scenes.
        held_bytes: What the caller keeps of a place.

    Raises:
        InputError: it would fetch more than allowed.
    """
    read = output.read
    check_max_bytes(read, planner(), lambda: iter([table]), fetched=Fetched())
    plans = planner()
    pipeline: Pipeline[Layer] = Pipeline(
        output,
        read.stop,
        max_concurrent=read.request.max_concurrent,
        held_bytes=held_bytes,
        counters=read.counters,
    )

    def checked() -> Iterator[Layer]:
        for layer in pipeline.run(plans.plans(table)):
            read.check()
            yield layer

    for _, layers in itertools.groupby(
        checked(), lambda layer: (id(layer.plan), plans.place_of(layer))
    ):
        yield layers


def joined(errors: Iterable[str | None]) -> str | None:
    """Each message once, as one text; None without any."""
    return "; ".join(dict.fromkeys(one for one in errors if one)) or None


def _of_record(plan: TilePlan, scene: int, told: str, band: str | None = None) -> str:
    """A message with the record that it is of: a row is of several."""
    record = f"record {plan.table.id_of(scene)}"
    if told.startswith((f"{record}:", f"{record},")):
        return told
    if band is not None and not told.startswith(f"{band}: "):
        record = f"{record}, band {band}"
    return f"{record}: {told}"


def failed_row(read: Read, layers: Sequence[Layer]) -> pa.RecordBatch:
    """The row of records that can't be planned."""
    arrays: dict[str, pa.Array] = {
        field.name: pa.nulls(1, field.type) for field in map(read.field, read.wanted)
    }
    return read.batch(
        arrays | {"error": pa.array([joined(one.error for one in layers)], pa.string())}, 1
    )


def all_scenes(records: Records, read: Read) -> SceneTable | None:
    """All records of a read as one table."""
    found = list(records())
    if len(found) < 2:
        return found[0] if found else None
    batches, first = [], 0
    faults: dict[tuple[int, str], RasteretError] = {}
    for table in found:
        batches.append(table.batch)
        faults |= {(first + scene, band): e for (scene, band), e in table.faults.items()}
        first += table.n_scenes
    whole = one_batch(batches)
    read.check()
    return scene_table(whole, list(found[0].bands), faults)


def on_common_grid(read: Read, table: SceneTable) -> Read:
    """The execution with the grid that all records are read onto."""
    return replace(read, request=replace(read.request, output_grid=common_grid(read, table)))


def common_grid(read: Read, table: SceneTable) -> OutputGrid:
    """The grid that was asked for; what it leaves out is of the rasters.

    The CRS is the one of most records, the resolution the finest of its rasters.
    """
    asked = read.request.output_grid or OutputGrid()
    if asked.crs is not None and asked.resolution is not None:
        return asked
    grids: Counter[Grid] = Counter()
    chosen = np.ones(table.n_scenes, bool) if table.chosen is None else table.chosen
    for name in read.request.bands:
        level = table.bands[name].level(0)
        if level is not None:
            numbers = level.grid[chosen & (level.grid >= 0)].tolist()
            grids.update(table.grids[number] for number in numbers)
    placed = {g: n for g, n in grids.items() if g.affine is not None and g.crs is not None}
    if not placed:
        return replace(asked, resolution=asked.resolution or (1.0, 1.0))  # each is told why
    by_crs: Counter[str] = Counter()
    for grid, count in placed.items():
        by_crs[str(grid.crs)] += count
    crs = asked.crs or min(by_crs, key=lambda one: (-by_crs[one], one))
    own = [g for g in placed if g.crs == crs] or list(placed)
    if asked.resolution is not None:
        return replace(asked, crs=crs)
    sizes = [output_grid(OutputGrid(crs), grid).affine for grid in own]
    finest = min((a for a in sizes if a is not None), key=lambda a: abs(a.a * a.e))
    return replace(asked, crs=crs, resolution=(abs(finest.a), abs(finest.e)))


def moments_of(table: SceneTable) -> Ints:
    """Microseconds since 1970 of each record; the least integer where it has none.

    Raises:
        InputError: the column datetime holds no times.
    """
    names = table.batch.schema.names
    if "datetime" not in names:
        return np.full(table.n_scenes, NO_MOMENT, np.int64)
    column = table.batch.column("datetime")
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        raise InputError.expected(
            "collection",
            "a column datetime of TIMESTAMP, TIMESTAMPTZ or DATE",
            column.type,
            "SELECT * REPLACE (make_timestamp(datetime, 1, 1, 0, 0, 0) AS datetime), or the like",
        )
    times = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return np.asarray(times.cast(pa.int64()).fill_null(NO_MOMENT), np.int64)


def _around(grids: Sequence[Grid]) -> Grid:
    """The grid over grids of one CRS and resolution."""
    first = grids[0].affine
    assert first is not None  # noqa: S101 (output grids have one)
    affines = [grid.affine or first for grid in grids]
    left, top = min(a.c for a in affines), max(a.f for a in affines)
    right = max(a.c + g.width * a.a for a, g in zip(affines, grids, strict=True))
    bottom = min(a.f + g.height * a.e for a, g in zip(affines, grids, strict=True))
    width, height = round((right - left) / first.a), round((bottom - top) / first.e)
    affine = Affine(first.a, 0.0, left, 0.0, first.e, top)
    return Grid(width, height, affine, grids[0].crs, width, height)


def _place(grid: Grid, around: Grid) -> Window:
    """Where a grid lies in one around it."""
    own, outer = grid.affine, around.affine
    assert own is not None and outer is not None  # noqa: S101, PT018 (output grids have one)
    row, col = round((own.f - outer.f) / outer.e), round((own.c - outer.c) / outer.a)
    return Window(row, row + grid.height, col, col + grid.width)
