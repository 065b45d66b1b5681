"""Statistics of the pixels in zones: one row per record, zone and band.

A piece of work is a tile with all zones that touch it. Which pixels of a tile are in which
zone depends on the grid alone, so scenes on one grid share it. Pieces are gathered on the
decode workers and merged in the order of delivery, so a result never depends on timing. A
zone's row is made when its last tile is merged, so memory is bounded by the zones under way.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.errors import InputError
from rasteret_sql.grid.zonal import STATISTICS, ZonalStatistics, is_statistic
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import ERROR, Read, run
from rasteret_sql.reading.outputs.tiles import without_needs
from rasteret_sql.reading.outputs.zone_partials import Layout, Merged, Partial
from rasteret_sql.reading.outputs.zone_pieces import Gatherer, pieces_of
from rasteret_sql.reading.outputs.zone_pixels import ZoneOptions
from rasteret_sql.reading.patches import value_dtype
from rasteret_sql.reading.plan import Failure, TilePlan
from rasteret_sql.reading.scenes import Grid, SceneTable
from rasteret_sql.reading.zone_plans import ZonePlan, ZonePlanner

_WHOLE_NUMBERS = ("variety", "pixel_count", "nodata_count")
_PIXEL_BYTES = 40
"""Of a pixel of a zone while it is worked on, about."""
_UNIT_BYTES = 512
_GROUP_BYTES = 16 * 1024 * 1024
_ROWS_AT_ONCE = 1024


class ZoneRows:
    """Makes rows of statistics.

    The batches that the pipeline gets are numbers of partial results; `merged` makes rows.

    Args:
        read: The execution.
        bands: Bands that get rows.
        options: What is computed.
    """

    def __init__(self, read: Read, bands: Sequence[str], options: ZoneOptions) -> None:
        self._read = read
        self._bands = tuple(bands)
        self._options = options
        self._stats = tuple(one for one in options.stats if one in read.wanted)
        self._gathered = tuple(one for one in self._stats if one != "area_m2")
        self._has_areas = "area_m2" in self._stats
        self._numbers = itertools.count()
        self._partials: dict[int, Partial | pa.RecordBatch] = {}
        self._layouts: weakref.WeakKeyDictionary[TilePlan, Layout] = weakref.WeakKeyDictionary()
        self._before: tuple[SceneTable, Layout] | None = None
        self._state: Merged | None = None
        self._gatherer = Gatherer(
            read,
            self._bands,
            options,
            has_areas=self._has_areas,
            needs_values=self.needs_values,
        )

    @property
    def needs_values(self) -> bool:
        """Whether anything is to be read."""
        return bool(self._stats) or self._read.reports_errors

    def add_plan(self, plan: ZonePlan) -> None:
        """Lay out a plan that has units, the next one in order."""
        table, before = self._before or (None, None)
        if table is not plan.table:
            before = None
        layout = Layout.of(plan, before, pieces_of(plan), self._dtypes(plan))
        self._layouts[plan], self._before = layout, (plan.table, layout)

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of the work of each piece, told at its last unit, so that groups end there."""
        window = plan.units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        each = size * (_PIXEL_BYTES + 8 * len(self._bands)) + _UNIT_BYTES
        if not len(each):
            return each
        piece = self._layouts[plan].piece
        total = np.bincount(piece, each).astype(np.int64)
        weights = np.zeros(len(each), np.int64)
        weights[np.flatnonzero(np.diff(piece, append=-1))] = total
        return weights

    def group_bytes(self) -> int:
        """Enough pixels that NumPy works on many at once."""
        return _GROUP_BYTES

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> pa.RecordBatch:
        """A row of each band for each record that can't be planned."""
        told = [(one.scene, b, one) for one in failures for b in self._names(one)]
        scenes = [scene for scene, _, _ in told]
        arrays = self._read.records_of(plan, scenes, [-1] * len(told), [1] * len(told))
        arrays["band"] = pa.array([name for _, name, _ in told], pa.string())
        for name in self._stats:
            arrays[name] = pa.nulls(len(told), self._read.field(name).type)
        arrays["error"] = pa.array([one.error.message for _, _, one in told], pa.string())
        return self._ticket(self._read.batch(arrays, len(told)) if told else None)

    def work(self, group: Group) -> pa.RecordBatch:
        """Gather the pixels of a group."""
        plan, layout = group.plan, self._layouts[group.plan]
        assert isinstance(plan, ZonePlan)  # noqa: S101
        span = slice(group.start, group.stop)
        pairs, local = np.unique(layout.pair[span], return_inverse=True)
        partial = Partial(
            plan,
            group.stop,
            pairs,
            np.zeros(len(pairs), np.int64),
            [ZonalStatistics(len(pairs), self._gathered, one) for one in layout.dtypes],
            [ZonalStatistics(len(pairs), ("weight_sum",), one) for one in layout.dtypes]
            if self._has_areas
            else [],
        )
        edges = np.flatnonzero(np.diff(layout.piece[span], prepend=-1, append=-1))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            units = range(group.start + start, group.start + stop)
            self._gatherer.add(group, units, local.ravel()[start:stop], partial)
        return self._ticket(partial)

    def merged(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Add a partial result to those before it; rows of zones that are complete by it."""
        found = self._partials.pop(batch.column(0)[0].as_py())
        if isinstance(found, pa.RecordBatch):
            yield found
            return
        state = self._state
        layout = self._layouts[found.plan]
        if state is None or state.plan is not found.plan:
            state = self._state = Merged.after(state, found.plan, layout, found)
        state.add(found)
        plan, stop = found.plan, found.stop
        scene_ends = stop == len(plan.units.scene) or (
            plan.units.scene[stop] != plan.units.scene[stop - 1]
        )
        complete = np.flatnonzero((layout.last < stop) & ~layout.is_open & ~state.is_done)
        if not len(complete) or not (scene_ends or len(complete) >= _ROWS_AT_ONCE):
            return
        state.is_done[complete] = True
        for bands, pairs in self._by_bands(plan, layout, complete):
            for first in range(0, len(pairs), _ROWS_AT_ONCE):
                rows = self._rows(state, layout, pairs[first : first + _ROWS_AT_ONCE], bands)
                if rows is not None:
                    yield rows

    def _by_bands(
        self, plan: ZonePlan, layout: Layout, pairs: Ints
    ) -> Iterator[tuple[tuple[int, ...], Ints]]:
        """Numbers of bands, and the pairs that get rows of these."""
        groups = np.stack([layout.scene[pairs], layout.group[pairs]])
        starts = np.flatnonzero((np.diff(groups, axis=1, prepend=-1) != 0).any(axis=0))
        found: dict[tuple[int, ...], list[Ints]] = {}
        for (scene, group), some in zip(
            groups[:, starts].T.tolist(), np.split(pairs, starts[1:]), strict=True
        ):
            found.setdefault(plan.numbers_of(scene, group, self._bands), []).append(some)
        for bands, several in found.items():
            yield bands, np.concatenate(several)

    def _names(self, failure: Failure) -> Sequence[str]:
        return self._bands if failure.band is None else [failure.band]

    def _ticket(self, found: Partial | pa.RecordBatch | None) -> pa.RecordBatch:
        number = next(self._numbers)
        if found is None:
            return pa.RecordBatch.from_pydict({"number": pa.array([], pa.int64())})
        self._partials[number] = found
        return pa.RecordBatch.from_pydict({"number": [number]})

    def _dtypes(self, plan: TilePlan) -> list[np.dtype[Any]]:
        """A type for each band that holds the values of all scenes of a plan."""
        if self._read.request.scaled:
            return [np.dtype(np.float64)] * len(self._bands)
        found = []
        scenes = np.unique(plan.units.scene)
        for name in self._bands:
            level = plan.table.bands[name].level(plan.level)
            kinds = [] if level is None else np.unique(level.kind[scenes]).tolist()
            dtypes = {value_dtype(plan.table.kinds[kind].dtype) for kind in kinds if kind >= 0}
            real = [one for one in dtypes if one.kind != "c"] or [np.dtype(np.float64)]
            found.append(np.result_type(*real))
        return found

    def _rows(
        self, state: Merged, layout: Layout, pairs: Ints, bands: Sequence[int]
    ) -> pa.RecordBatch | None:
        """Rows of complete zones, of some bands of each."""
        plan = state.plan
        popped = [state.stats[band].pop(pairs) for band in bands]
        areas = [state.areas[band].pop(pairs) for band in bands if state.areas]
        keep = np.flatnonzero((state.pixels[pairs] > 0) | self._touch(plan, layout, pairs))
        if not len(keep):
            return None
        n_rows, n_bands = len(keep) * len(bands), len(bands)
        kept = pairs[keep]
        errors: list[str | None] = [None] * n_rows
        if state.errors:
            errors = [state.errors.get((pair, band)) for pair in kept.tolist() for band in bands]
        refused = np.array([error is not None for error in errors], bool)
        scenes, targets = layout.scene[kept].tolist(), layout.target[kept].tolist()
        arrays = self._read.records_of(plan, scenes, targets, [n_bands] * len(keep))
        names = np.array([self._bands[band] for band in bands], object)
        arrays["band"] = pa.array(np.tile(names, len(keep)), pa.string())
        for name in self._stats:
            kind = self._read.field(name).type
            if name == "frac":
                arrays[name] = _fracs(popped, keep, refused)
                continue
            if name == "area_m2":
                columns = [one.column("weight_sum") for one in areas]
                on_earth = np.array([_is_on_earth(grid) for grid in plan.table.grids], bool)
                known = np.repeat(on_earth[layout.grid[kept]], n_bands)
            else:
                columns = [one.column(name) for one in popped]
                known = np.ones(n_rows, bool)
            values = np.stack([one.values[keep].astype(np.float64) for one in columns], axis=1)
            known &= np.stack([one.valid[keep] for one in columns], axis=1).reshape(-1)
            known &= ~refused
            values = values.reshape(-1)
            if pa.types.is_integer(kind):
                values = values.astype(np.int64)
            arrays[name] = pa.array(values, kind, mask=~known)
        if self._read.reports_errors:
            arrays["error"] = pa.array(errors, pa.string())
        return self._read.batch(arrays, n_rows)

    def _touch(self, plan: TilePlan, layout: Layout, pairs: Ints) -> Mask:
        """Which zones without pixels touch the raster, so that they are rows; True for others."""
        touch = np.ones(len(pairs), bool)
        assert self._state is not None  # noqa: S101 (its caller)
        check = np.flatnonzero((self._state.pixels[pairs] == 0) & (layout.target[pairs] >= 0))
        boxes = layout.window[pairs][:, [2, 0, 3, 1]].astype(np.float64)
        grids, targets = layout.grid[pairs], layout.target[pairs]
        for number in np.unique(grids[check]).tolist():
            own, grid = check[grids[check] == number], plan.table.grids[number]
            touch[own] = self._read.footprints.each_touched(grid, targets[own], boxes[own])
        return touch


class _LaidOut(ZonePlanner):
    """Lays plans out for the output."""

    def __init__(
        self, output: ZoneRows, read: Read, bands: Sequence[str], options: ZoneOptions
    ) -> None:
        super().__init__(
            read.request, read.footprints, bands=bands, weight_band=options.weight_band,
            mask_band=options.mask_band,
        )  # fmt: skip
        self._output = output

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """The plans; what one without units completes is told to the one before."""
        held: ZonePlan | None = None
        for plan in super().plans(table):
            made = plan if self._output.needs_values else without_needs(plan)
            assert isinstance(made, ZonePlan)  # noqa: S101
            if not len(made.units.scene) and not made.failures:
                if held is not None and held.complete is not None and made.complete is not None:
                    both = np.concatenate([held.complete, made.complete], axis=1)
                    held = replace(held, complete=both)
                continue
            if held is not None:
                yield self._laid_out(held)
            held = made
        if held is not None:
            yield self._laid_out(held)

    def _laid_out(self, plan: ZonePlan) -> ZonePlan:
        if len(plan.units.scene):
            self._output.add_plan(plan)
        return plan


def zone_rows(
    read: Read,
    bands: Sequence[str],
    options: ZoneOptions,
    records: Any,  # noqa: ANN401
) -> Iterator[pa.RecordBatch]:
    """Read statistics of zones.

    Args:
        read: The execution.
        bands: Of the bands of the request, those that get rows.
        options: What is computed.
        records: Gives the scene tables, of all bands that are read.
    """
    if not bands:
        return
    output = ZoneRows(read, bands, options)
    planner = _LaidOut(output, read, bands, options)
    checked = ZonePlanner(
        read.request, read.footprints, bands=bands, weight_band=options.weight_band,
        mask_band=options.mask_band,
    )  # fmt: skip
    for batch in run(read, output, planner, records, checked):
        yield from output.merged(batch)


def zone_schema(options: ZoneOptions, on_error: str) -> pa.Schema:
    """Columns of statistics besides those of records and zones."""
    fields = [pa.field("band", pa.string())]
    for name in options.stats:
        kind = pa.float64()
        if name in _WHOLE_NUMBERS or (name == "count" and not options.is_exact):
            kind = pa.int64()
        elif name == "frac":
            kind = pa.map_(pa.float64(), pa.float64())
        fields.append(pa.field(name, kind))
    return pa.schema([*fields, *((ERROR,) if on_error == "report" else ())])


def chosen_bands(bands: Sequence[str], keep: pc.Expression | None) -> list[str]:
    """The bands whose rows a predicate over the column ``band`` keeps."""
    if keep is None:
        return list(bands)
    table = pa.table({"band": pa.array(bands, pa.string())})
    return [str(name) for name in table.filter(keep)["band"].to_pylist()]


def check_stats(name: str, stats: Sequence[str]) -> tuple[str, ...]:
    """Names of statistics, in lower case, each once.

    Raises:
        InputError: there is no such statistic.

    Example:
        >>> check_stats("stats", ["Mean", "p05", "mean"])
        ('mean', 'p05')
    """
    known = tuple(dict.fromkeys(one.strip().lower() for one in stats))
    for one in known:
        if one != "area_m2" and not is_statistic(one):
            names = ", ".join((*STATISTICS, "area_m2", "p05"))
            raise InputError.expected(name, f"names of {names}", one, "p05 is a percentile")
    return known


def _is_on_earth(grid: Grid) -> bool:
    return grid.affine is not None and grid.crs is not None


def _fracs(stats: list[ZonalStatistics], keep: Ints, refused: Mask) -> pa.Array:
    """Values and their shares as maps: all bands of a zone after each other."""
    every = [one.shares() for one in stats]
    values, shares, counts = [], [], []
    for zone in keep.tolist():
        for one in every:
            start, stop = one.offsets[zone : zone + 2].tolist()
            values.append(one.values[start:stop].astype(np.float64))
            shares.append(one.shares[start:stop])
            counts.append(stop - start)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    is_null = np.append(refused, False)
    return pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32(), mask=is_null if refused.any() else None),
        pa.array(np.concatenate(values)),
        pa.array(np.concatenate(shares)),
    )
