"""Statistics of the pixels in zones: one row per record, zone and band.

A piece of work is a tile with all zones that touch it. Which pixels of a tile are in which
zone depends on the grid alone, so scenes on one grid share it. Pieces are gathered on the
decode workers and merged in the order of delivery, so a result never depends on timing. A
zone's row is made when its last tile is merged, so memory is bounded by the zones under way.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.grid.coverage import cell_areas, coverage_of_each
from rasteret_sql.grid.masks import box_covers, polygon_mask
from rasteret_sql.grid.zonal import ZonalStatistics, quantile_of
from rasteret_sql.reading.blocks import slab_rows
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.outputs.common import ERROR, Read, run, with_record
from rasteret_sql.reading.outputs.tiles import without_needs
from rasteret_sql.reading.patches import Patch, Piece, pixels_of, valid_pixels, value_dtype
from rasteret_sql.reading.pipeline import Group
from rasteret_sql.reading.plan import DATA, Failure, Granularity, TilePlan
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import BandKind, Grid, Ints, SceneTable
from rasteret_sql.units import Window

Weights = Literal["center", "touched", "fraction", "area"]

_Floats = NDArray[np.float64]

_WHOLE_NUMBERS = ("variety", "pixel_count", "nodata_count")
_PIXEL_BYTES = 40
"""Of a pixel of a zone while it is worked on, about."""
_UNIT_BYTES = 512
_GROUP_BYTES = 16 * 1024 * 1024
_PIECE_PIXELS = 1 << 21
"""Pixels of zones in one tile that are worked on at once."""
_ROWS_AT_ONCE = 1024
_KEPT_BYTES = 128 * 1024 * 1024
_LARGE_WINDOW = 1 << 12
"""Pixels from which it pays to ask whether a zone covers all of a window."""


@dataclass(frozen=True)
class ZoneOptions:
    """What is computed.

    Attributes:
        stats: Names, as `grid.zonal` takes them, and ``area_m2``.
        weights: What a pixel counts: all where its centre is inside, all where it is touched,
            its share inside, or that times its area on the ellipsoid.
        weight_band: A band whose values are further weights.
        min_coverage: Pixels with a smaller share inside are left out.
    """

    stats: tuple[str, ...]
    weights: Weights = "center"
    weight_band: str | None = None
    min_coverage: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether pixels count by their share inside."""
        return self.weights in ("fraction", "area")


class _Cells(NamedTuple):
    """The pixels of zones in a window, zone by zone; arrays of one length but `sizes`.

    Attributes:
        sizes: Pixels of each zone of the piece.
        flat: Place in the flattened window; None where it is each pixel once.
        coverage: Share inside; None where all are 1.
        area: In square metres; None where it is not needed or not known.
    """

    sizes: Ints
    flat: NDArray[np.int32] | None
    coverage: NDArray[np.float32] | None
    area: _Floats | None

    @property
    def unit(self) -> Ints:
        """Number of the zone in the piece, of each pixel."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values of the pixels, from those of the window."""
        line = np.ascontiguousarray(values).reshape(-1)
        return line if self.flat is None else line[self.flat]

    def take(self, chosen: Mask) -> _Cells:
        """Some of the pixels; a window that counts once is spelled out."""
        flat = np.arange(len(chosen), dtype=np.int32) if self.flat is None else self.flat
        return _Cells(
            np.bincount(self.unit[chosen], minlength=len(self.sizes)),
            flat[chosen],
            None if self.coverage is None else self.coverage[chosen],
            None if self.area is None else self.area[chosen],
        )


class _Kept:
    """Pixels of zones, for the next scenes on the same grid.

    What does not fit is not kept: dropping the oldest would drop each before it is needed again.
    """

    def __init__(self) -> None:
        self._cells: dict[Grid, dict[tuple[bytes, bytes], _Cells]] = {}
        self._n_bytes = 0
        self._lock = threading.Lock()

    def find(self, grid: Grid, key: tuple[bytes, bytes]) -> _Cells | None:
        """What was kept, if it was."""
        with self._lock:
            return self._cells.get(grid, {}).get(key)

    def keep(self, grid: Grid, key: tuple[bytes, bytes], cells: _Cells) -> None:
        """Keep while there is room, before that of other grids."""
        size = _n_bytes(cells) + sum(map(len, key))
        with self._lock:
            if self._n_bytes + size > _KEPT_BYTES:
                self._cells = {grid: self._cells.get(grid, {})}
                own = self._cells[grid].items()
                self._n_bytes = sum(_n_bytes(one) + sum(map(len, of)) for of, one in own)
            own_cells = self._cells.setdefault(grid, {})
            if self._n_bytes + size <= _KEPT_BYTES and key not in own_cells:
                own_cells[key] = cells
                self._n_bytes += size


def _n_bytes(cells: _Cells) -> int:
    return sum(0 if column is None else int(column.nbytes) for column in cells)


@dataclass(eq=False)
class _Layout:
    """How the units of a plan are put together.

    Attributes:
        pair: Number of the scene and zone of each unit, in the order of scenes and zones.
        piece: Number of the piece of each unit.
        last: Last unit of each pair.
        first: First unit of each pair.
        is_open: Whether units of the pair follow in the next plan.
        dtypes: Of the values of each band.
    """

    pair: Ints
    piece: Ints
    first: Ints
    last: Ints
    is_open: Mask
    dtypes: list[np.dtype[Any]]


@dataclass(eq=False)
class _Partial:
    """What a group of units gave.

    Attributes:
        pairs: Numbers of its pairs in the layout of the plan, ascending.
        pixels: Pixels of each.
        stats: Of each band.
        areas: Square metres with data of each band, where they are asked for.
        errors: By pair of the plan and band.
    """

    plan: TilePlan
    stop: int
    pairs: Ints
    pixels: Ints
    stats: list[ZonalStatistics]
    areas: list[ZonalStatistics]
    errors: dict[tuple[int, int], str] = field(default_factory=dict)


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
        self._partials: dict[int, _Partial | pa.RecordBatch] = {}
        self._layouts: weakref.WeakKeyDictionary[TilePlan, _Layout] = weakref.WeakKeyDictionary()
        self._state: _State | None = None
        self._kept = _Kept()

    @property
    def needs_values(self) -> bool:
        """Whether anything is to be read."""
        return bool(self._stats) or self._read.reports_errors

    def add_plan(self, plan: TilePlan, after: TilePlan | None) -> None:
        """Lay out a plan, given the next one of the table that has units."""
        units = plan.units
        n_targets = 1 + int(units.target.max(initial=-1))
        key = units.scene * (n_targets + 1) + units.target + 1
        keys, first, pair = np.unique(key, return_index=True, return_inverse=True)
        last = np.zeros(len(keys), np.int64)
        last[pair] = np.arange(len(pair))
        is_open = np.zeros(len(keys), bool)
        if after is not None:
            later = after.units.scene * (n_targets + 1) + after.units.target + 1
            is_open = np.isin(keys, later[after.units.target < n_targets])
        self._layouts[plan] = _Layout(
            pair.ravel(), _pieces_of(plan), first, last, is_open, self._dtypes(plan)
        )

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
        span = slice(group.start, group.stop)
        pairs, local = np.unique(layout.pair[span], return_inverse=True)
        partial = _Partial(
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
            self._add_piece(group, units, local.ravel()[start:stop], partial)
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
            state = self._state = _State.after(state, found.plan, layout, found)
        state.add(found)
        plan, stop = found.plan, found.stop
        scene_ends = stop == len(plan.units.scene) or (
            plan.units.scene[stop] != plan.units.scene[stop - 1]
        )
        complete = np.flatnonzero((layout.last < stop) & ~layout.is_open & ~state.is_done)
        if not len(complete) or not (scene_ends or len(complete) >= _ROWS_AT_ONCE):
            return
        state.is_done[complete] = True
        for first in range(0, len(complete), _ROWS_AT_ONCE):
            rows = self._rows(state, layout, complete[first : first + _ROWS_AT_ONCE])
            if rows is not None:
                yield rows

    def _names(self, failure: Failure) -> Sequence[str]:
        return self._bands if failure.band is None else [failure.band]

    def _ticket(self, found: _Partial | pa.RecordBatch | None) -> pa.RecordBatch:
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

    # Pieces

    def _add_piece(self, group: Group, units: range, local: Ints, partial: _Partial) -> None:
        plan = group.plan
        first = units[0]
        scene, grid = int(plan.units.scene[first]), plan.table.grids[int(plan.units.grid[first])]
        windows = plan.units.window[units.start : units.stop]
        union = _around(windows)
        cells = self._cells(
            grid, plan.units.target[units.start : units.stop], windows,
            plan.units.is_whole[units.start : units.stop], union,
        )  # fmt: skip
        np.add.at(partial.pixels, local, cells.sizes)
        if not self.needs_values:
            return
        found = dict(zip(plan.bands, _bands_of(group, units, union), strict=True))
        missing = self._missing_area(plan, scene, grid, cells)
        further = cells.area if self._options.weights == "area" else None
        every = range(len(self._bands))
        refused = np.zeros(len(units), bool)
        name = self._options.weight_band
        if name is not None and missing is None:
            values = self._values(plan, scene, name, found[name])
            refused = self._refused(plan, scene, found[name], every, local, partial)
            if values is not None:
                by_band = _weights_of(cells, *values)
                further = by_band if further is None else further * by_band
                missing = _negative(plan, scene, name, by_band[~refused[cells.unit]])
        if missing is not None:
            self._tell(plan, scene, missing, None, every, local, partial)
            return
        for number, name in enumerate(self._bands):
            values = self._values(plan, scene, name, found[name])
            own = refused | self._refused(plan, scene, found[name], [number], local, partial)
            if values is not None and not own.all():
                self._add_values(number, values, cells, further, own, local, partial)

    def _add_values(
        self,
        number: int,
        found: tuple[NDArray[Any], Mask | None],
        cells: _Cells,
        further: _Floats | None,
        refused: Mask,
        local: Ints,
        partial: _Partial,
    ) -> None:
        if refused.any():
            keep = ~refused[cells.unit]
            cells, further = cells.take(keep), None if further is None else further[keep]
        values, valid = cells.of(found[0]), None if found[1] is None else cells.of(found[1])
        values = values.astype(partial.stats[number].dtype, copy=False)
        zone = local[cells.unit]
        partial.stats[number].add(
            zone, values, valid=valid, coverage=cells.coverage, weights=further
        )
        if partial.areas and cells.area is not None:
            partial.areas[number].add(
                zone, values, valid=valid, coverage=cells.coverage, weights=cells.area
            )

    def _values(
        self, plan: TilePlan, scene: int, name: str, band: _BandOfPiece
    ) -> tuple[NDArray[Any], Mask | None] | None:
        """Values of the window of a piece, and which hold data; None of what can't be read."""
        patch = band.patch
        if patch is None or patch.kind is None:
            return None
        pixels = pixels_of(patch)
        if pixels.dtype.kind == "c":
            error = InputError.expected(
                f"record {plan.table.id_of(scene)}, band {name}",
                "real numbers",
                "complex ones",
                "read it with rasteret_pixels",
            )
            band.errors.append((np.ones(band.n_units, bool), error))
            return None
        valid = valid_pixels(patch, pixels)
        if self._read.request.scaled:
            scale = 1.0 if patch.kind.scale is None else patch.kind.scale
            pixels = pixels.astype(np.float64) * scale + (patch.kind.offset or 0.0)
        return pixels, valid

    def _refused(
        self,
        plan: TilePlan,
        scene: int,
        band: _BandOfPiece,
        bands: Sequence[int],
        local: Ints,
        partial: _Partial,
    ) -> Mask:
        """Which zones of a piece have no result of some bands, as one can't be read."""
        refused = np.zeros(band.n_units, bool)
        for units, error in band.errors:
            refused |= units
            self._tell(plan, scene, error, band.name, bands, local[units], partial)
        return refused

    def _tell(
        self,
        plan: TilePlan,
        scene: int,
        error: RasteretError,
        band: str | None,
        bands: Sequence[int],
        local: Ints,
        partial: _Partial,
    ) -> None:
        """Note an error for some zones and bands.

        Raises:
            RasteretError: where it is one.
        """
        if self._read.request.on_error == "error":
            raise error if band is None else with_record(error, plan.table, scene, band)
        for one in local.tolist():
            for number in bands:
                told = error.message if band is None else f"{band}: {error.message}"
                partial.errors.setdefault((int(partial.pairs[one]), number), told)

    def _missing_area(
        self, plan: TilePlan, scene: int, grid: Grid, cells: _Cells
    ) -> InputError | None:
        if self._options.weights != "area" or cells.area is not None:
            return None
        missing = "transform" if grid.affine is None else "CRS on the earth"
        return InputError.expected(
            f"record {plan.table.id_of(scene)}",
            f"a raster with a {missing}, for weights := 'area'",
            "none",
            "take weights := 'fraction', or pass on_error := 'null'",
        )

    def _cells(
        self, grid: Grid, targets: Ints, windows: Ints, is_whole: Mask, union: Window
    ) -> _Cells:
        """Pixels of zones in a tile: the same for all scenes on the grid."""
        key = targets.tobytes(), windows.tobytes()
        found = self._kept.find(grid, key)
        if found is None:
            found = self._made_cells(grid, targets, windows, is_whole, union)
            self._kept.keep(grid, key, found)
        return found

    def _made_cells(
        self, grid: Grid, targets: Ints, windows: Ints, is_whole: Mask, union: Window
    ) -> _Cells:
        shares = self._shares(grid, targets, windows, is_whole)
        line = np.concatenate([one.reshape(-1) for one in shares])
        heights, widths = windows[:, 1] - windows[:, 0], windows[:, 3] - windows[:, 2]
        sizes = heights * widths
        begin = np.cumsum(sizes) - sizes
        keep = line > 0
        least = self._options.min_coverage
        if self._options.is_exact and least > 0:
            keep &= line >= np.float32(least)
        at = np.flatnonzero(keep)
        unit = np.repeat(np.arange(len(sizes)), sizes)[at]
        row, col = np.divmod(at - begin[unit], widths[unit])
        row += windows[unit, 0] - union.row_start
        col += windows[unit, 2] - union.col_start
        flat = row * union.width + col
        is_once = len(sizes) == 1 and len(at) == union.height * union.width
        return _Cells(
            np.bincount(unit, minlength=len(sizes)),
            None if is_once else flat.astype(np.int32),
            line[at] if self._options.is_exact else None,
            self._areas(grid, union, flat),
        )

    def _shares(
        self, grid: Grid, targets: Ints, windows: Ints, is_whole: Mask
    ) -> list[NDArray[Any]]:
        """Share of each pixel of each window inside its zone; of masks True and False."""
        footprints, options = self._read.footprints, self._options
        every = [Window(*window) for window in windows.tolist()]
        shares: list[NDArray[Any]] = [np.empty(0)] * len(every)
        exact: list[int] = []
        for number, (target, window) in enumerate(zip(targets.tolist(), every, strict=True)):
            kind = np.float32 if options.is_exact else np.bool_
            if target < 0 or (is_whole[number] and not options.is_exact):
                shares[number] = np.ones((window.height, window.width), kind)
                continue
            geometry = footprints.geometry(grid, target)
            is_large = window.height * window.width >= _LARGE_WINDOW
            if is_large and _covers(geometry, window, is_exact=options.is_exact):
                shares[number] = np.ones((window.height, window.width), kind)
            elif options.is_exact:
                exact.append(number)
            else:
                touched = options.weights == "touched"
                shares[number] = polygon_mask(geometry, window, all_touched=touched)
        geometries = [footprints.geometry(grid, int(targets[number])) for number in exact]
        covered = coverage_of_each(geometries, [every[number] for number in exact])
        for number, share in zip(exact, covered, strict=True):
            shares[number] = share
        return shares

    def _areas(self, grid: Grid, union: Window, flat: Ints) -> _Floats | None:
        wanted = self._has_areas or self._options.weights == "area"
        if not wanted or grid.affine is None or grid.crs is None:
            return None
        try:
            areas = cell_areas(grid.affine, grid.crs, union)
        except (InputError, ProjError):  # an engineering CRS
            return None
        areas = np.broadcast_to(areas, (union.height, union.width))
        found: _Floats = np.nan_to_num(areas.reshape(-1)[flat])
        return found

    # Rows

    def _rows(self, state: _State, layout: _Layout, pairs: Ints) -> pa.RecordBatch | None:
        """Rows of complete zones, all bands of each."""
        plan = state.plan
        popped = [one.pop(pairs) for one in state.stats]
        areas = [one.pop(pairs) for one in state.areas]
        keep = np.flatnonzero((state.pixels[pairs] > 0) | self._touch(plan, layout, pairs))
        if not len(keep):
            return None
        n_rows, n_bands = len(keep) * len(self._bands), len(self._bands)
        errors = [
            state.errors.get((pair, band))
            for pair in pairs[keep].tolist()
            for band in range(n_bands)
        ]
        refused = np.array([error is not None for error in errors], bool)
        units = layout.first[pairs[keep]]
        scenes, targets = plan.units.scene[units].tolist(), plan.units.target[units].tolist()
        arrays = self._read.records_of(plan, scenes, targets, [n_bands] * len(keep))
        arrays["band"] = pa.array(np.tile(np.array(self._bands, object), len(keep)), pa.string())
        for name in self._stats:
            kind = self._read.field(name).type
            if name == "frac":
                arrays[name] = _fracs(popped, keep, refused)
                continue
            if name == "area_m2":
                columns = [one.column("weight_sum") for one in areas]
                on_earth = [_is_on_earth(plan.table.grids[int(plan.units.grid[u])]) for u in units]
                known = np.repeat(np.array(on_earth, bool), n_bands)
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

    def _touch(self, plan: TilePlan, layout: _Layout, pairs: Ints) -> Mask:
        """Which zones without pixels touch the raster, so that they are rows; True for others."""
        touch = np.ones(len(pairs), bool)
        assert self._state is not None  # noqa: S101 (its caller)
        for place in np.flatnonzero(self._state.pixels[pairs] == 0).tolist():
            units = np.flatnonzero(layout.pair == pairs[place])
            target = int(plan.units.target[units[0]])
            if target < 0:
                continue
            grid = plan.table.grids[int(plan.units.grid[units[0]])]
            boxes = plan.units.window[units][:, [2, 0, 3, 1]].astype(np.float64)
            touch[place] = self._read.footprints.touched(grid, target, boxes).any()
        return touch


@dataclass(eq=False)
class _State:
    """What was gathered of the zones of a plan.

    Attributes:
        is_done: Which pairs have their rows.
    """

    plan: TilePlan
    layout: _Layout
    stats: list[ZonalStatistics]
    areas: list[ZonalStatistics]
    pixels: Ints
    is_done: Mask
    errors: dict[tuple[int, int], str]

    @classmethod
    def after(
        cls, before: _State | None, plan: TilePlan, layout: _Layout, like: _Partial
    ) -> _State:
        """The state at the begin of a plan: zones that the plan before left open go on."""
        n_pairs = len(layout.last)
        state = cls(
            plan,
            layout,
            [ZonalStatistics(n_pairs, one.stats, one.dtype) for one in like.stats],
            [ZonalStatistics(n_pairs, one.stats, one.dtype) for one in like.areas],
            np.zeros(n_pairs, np.int64),
            np.zeros(n_pairs, bool),
            {},
        )
        if before is None or before.plan.table is not plan.table:
            return state
        left = np.flatnonzero(before.layout.is_open)
        number = {name: n for n, name in enumerate(_pair_names(plan, layout))}
        names = _pair_names(before.plan, before.layout)
        here = np.array([number[names[pair]] for pair in left.tolist()], np.int64)
        for mine, theirs in ((state.stats, before.stats), (state.areas, before.areas)):
            for own, other in zip(mine, theirs, strict=True):
                own.merge(other.pop(left), here)
        state.pixels[here] = before.pixels[left]
        moved = dict(zip(left.tolist(), here.tolist(), strict=True))
        state.errors = {
            (moved[pair], band): error
            for (pair, band), error in before.errors.items()
            if pair in moved
        }
        return state

    def add(self, partial: _Partial) -> None:
        """Add what a group gave."""
        for mine, theirs in ((self.stats, partial.stats), (self.areas, partial.areas)):
            for own, other in zip(mine, theirs, strict=True):
                own.merge(other, partial.pairs)
        self.pixels[partial.pairs] += partial.pixels
        for key, error in partial.errors.items():
            self.errors.setdefault(key, error)


class _ZonePlanner(Planner):
    """Lays plans out for the output, which must know whether a zone goes on in the next one."""

    def __init__(self, output: ZoneRows, read: Read, bands: Sequence[str]) -> None:
        targets = read.footprints.targets
        n_zones = 0 if targets is None else len(targets)
        at_once = max(1 << 14, min(4 * n_zones, 1 << 18))  # all zones of a scene in one plan
        super().__init__(
            read.request, read.footprints, Granularity.BLOCK, bands=bands, at_once=at_once
        )
        self._output = output

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """The plans, each when the next one with units is known."""
        held: list[TilePlan] = []
        for plan in super().plans(table):
            made = plan if self._output.needs_values else without_needs(plan)
            if len(made.units.scene) and held:
                yield from self._laid_out(held, made)
                held = []
            held.append(made)
        yield from self._laid_out(held, None)

    def _laid_out(self, plans: list[TilePlan], after: TilePlan | None) -> Iterator[TilePlan]:
        """Plans of which only the first has units."""
        for plan in plans:
            self._output.add_plan(plan, after)
            yield plan


def zone_rows(
    read: Read,
    bands: Sequence[str],
    options: ZoneOptions,
    records: Any,  # noqa: ANN401
) -> Iterator[pa.RecordBatch]:
    """Read statistics of zones.

    Args:
        read: The execution.
        bands: Bands that get rows.
        options: What is computed.
        records: Gives the scene tables.
    """
    if not bands:
        return
    output = ZoneRows(read, bands, options)
    more = options.weight_band
    fetched = [*bands, *([more] if more is not None and more not in bands else [])]
    planner = _ZonePlanner(output, read, fetched)
    checked = Planner(read.request, read.footprints, Granularity.BLOCK, bands=fetched)
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
        if one == "area_m2":
            continue
        try:
            quantile_of(one)
        except InputError as error:
            raise InputError(error.message.replace("stats:", f"{name}:", 1)) from None
    return known


def _pieces_of(plan: TilePlan) -> Ints:
    """Number of the piece of each unit: those of a tile of a scene, of many pixels several."""
    units = plan.units
    n = len(units.scene)
    if not n:
        return np.empty(0, np.int64)
    needs = plan.needs
    edges = plan.first_need
    has_need = edges[:-1] < edges[1:]
    row, col, slab = (np.full(n, -1, np.int64) for _ in range(3))
    if has_need.any():
        at = edges[:-1][has_need]
        formats = [kind.format for kind in plan.table.kinds]
        kind = needs.kind[at]
        tall = np.array([one.tile_height for one in formats], np.int64)[kind]
        rows = np.array([slab_rows(one) for one in formats], np.int64)[kind]
        row[has_need], col[has_need] = needs.tile_row[at], needs.tile_col[at]
        top = units.window[has_need, 0] - needs.tile_row[at] * tall
        slab[has_need] = top // rows
    else:  # nothing is fetched: by place
        row, col = units.window[:, 0] >> 9, units.window[:, 2] >> 9
    new = np.ones(n, bool)
    new[1:] = np.any([np.diff(column) != 0 for column in (units.scene, row, slab, col)], axis=0)
    run_number = np.cumsum(new) - 1
    size = np.diff(units.window[:, :2])[:, 0] * np.diff(units.window[:, 2:])[:, 0]
    total = np.cumsum(size)
    begin = (total - size)[np.flatnonzero(new)][run_number]
    part = (total - size - begin) // _PIECE_PIXELS
    new[1:] |= np.diff(part) != 0
    return np.cumsum(new) - 1


def _around(windows: Ints) -> Window:
    low, high = windows.min(axis=0), windows.max(axis=0)
    return Window(int(low[0]), int(high[1]), int(low[2]), int(high[3]))


@dataclass(eq=False)
class _BandOfPiece:
    """A band under the window of a piece.

    Attributes:
        patch: What can be read of it; None where that is nothing.
        errors: Why units can't be read, and which.
    """

    name: str
    n_units: int
    patch: Patch | None
    errors: list[tuple[Mask, RasteretError]]


def _bands_of(group: Group, units: range, union: Window) -> list[_BandOfPiece]:
    """The bands of a piece: one patch around all its units, which share their tiles."""
    plan, needs = group.plan, group.plan.needs
    scene = int(plan.units.scene[units[0]])
    start, stop = plan.first_need[[units.start, units.stop]].tolist()
    columns = (needs.band, needs.role, needs.tile, needs.tile_row, needs.tile_col)
    own = np.column_stack([column[start:stop] for column in columns])
    order = np.lexsort(own.T)
    is_new = np.append(True, (np.diff(own[order], axis=0) != 0).any(axis=1))[: len(order)]
    edges = [*np.flatnonzero(is_new).tolist(), len(order)]
    pieces: list[tuple[list[Piece], list[Piece]]] = [([], []) for _ in plan.bands]
    kinds: list[BandKind | None] = [None] * len(plan.bands)
    has = np.zeros((len(plan.bands), len(units)), bool)
    errors: list[list[tuple[Mask, RasteretError]]] = [[] for _ in plan.bands]
    for first, last in itertools.pairwise(edges):
        at = start + order[first:last]
        band, role, number, tile_row, tile_col = own[order[first]].tolist()
        kind = plan.table.kinds[int(needs.kind[at[0]])]
        mine = needs.unit[at] - units.start
        tile = None if number < 0 else group.chunk.tile(number)
        if role == DATA:
            kinds[band] = kind
            has[band, mine] = True
        if tile is not None and tile.error is not None:
            errors[band].append((_mask_of(mine, len(units)), tile.error))
            continue
        origin = tile_row * kind.format.tile_height, tile_col * kind.format.tile_width
        piece = Piece(tile, _around(needs.window[at]), origin, kind.sample)
        pieces[band][role].append(piece)
    found = []
    for band, (name, (data, masks)) in enumerate(zip(plan.bands, pieces, strict=True)):
        fault = plan.table.faults.get((scene, name))
        if fault is not None:
            errors[band].append((np.ones(len(units), bool), fault))
        elif not has[band].all():
            errors[band].append((~has[band], InputError("no header")))
        patch = Patch(union, kinds[band], tuple(data), tuple(masks)) if data else None
        found.append(_BandOfPiece(name, len(units), patch, errors[band]))
    return found


def _mask_of(numbers: Ints, size: int) -> Mask:
    mask = np.zeros(size, bool)
    mask[numbers] = True
    return mask


def _weights_of(cells: _Cells, values: NDArray[Any], valid: Mask | None) -> _Floats:
    """Weights from the values of a band; 0 where it has no data."""
    weights = cells.of(values).astype(np.float64)
    is_absent = np.isnan(weights)
    if valid is not None:
        is_absent |= ~cells.of(valid)
    weights[is_absent] = 0.0
    return weights


def _negative(plan: TilePlan, scene: int, name: str, weights: _Floats) -> InputError | None:
    lowest = weights.min(initial=0.0)
    if lowest >= 0:
        return None
    return InputError.expected(
        f"record {plan.table.id_of(scene)}, band {name}",
        "weights of 0 or more",
        float(lowest),
        "take another weight_band",
    )


def _covers(geometry: shapely.Geometry, window: Window, *, is_exact: bool) -> bool:
    """Whether a zone surely covers every pixel of a window, all of it where that matters."""
    if not box_covers(geometry, window):
        return False
    if not is_exact:
        return True
    box = shapely.box(window.col_start, window.row_start, window.col_stop, window.row_stop)
    shapely.prepare(geometry)
    return bool(shapely.covers(geometry, box))


def _is_on_earth(grid: Grid) -> bool:
    return grid.affine is not None and grid.crs is not None


def _pair_names(plan: TilePlan, layout: _Layout) -> list[tuple[int, int]]:
    scenes, targets = plan.units.scene[layout.first], plan.units.target[layout.first]
    return list(zip(scenes.tolist(), targets.tolist(), strict=True))


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
