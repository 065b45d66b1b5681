"""Plans of points: a unit is a tile of the first band with the points in it.

So each tile is fetched and decoded once for all of them. A scene is split between plans
only where no tile is needed by two of them: where all bands have the tiles of the first.
Points are sorted by tile once for all scenes on a grid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from rasteret_sql.errors import InputError
from rasteret_sql.reading.blocks import slab_rows
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.plan import Failure, Granularity, TilePlan, Units, Usable
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.point_relations import moments_of
from rasteret_sql.reading.points import AnyInts, Floats, Ints32, Points
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import Grid, SceneTable

Select = Callable[[SceneTable, int, AnyInts], Mask]

BATCH_ROWS = 1 << 17
"""Points of a batch, about, and of a unit, at most."""

PLAN_BYTES = 32
"""What a plan holds of a point: it is in memory until the point's row is delivered."""

UNIT_BYTES = 4 * 1024 * 1024
"""Bytes of the rows of a unit, about."""

_ANY_NUMBER = np.iinfo(np.int64).max
_POINTS_AT_ONCE = 1 << 18
_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, eq=False, kw_only=True)
class PointPlan(TilePlan):
    """A plan whose units are tiles with points; arrays of one length, sorted by unit.

    Attributes:
        point: Number of the point.
        row: Row of the first band's pixel that holds it.
        col: Column of that pixel.
        first_point: Where the points of each unit begin, and the end of the last one's.
        places: By band, where it lies in the band's own raster.
    """

    point: Ints32
    row: Ints32
    col: Ints32
    first_point: Ints
    places: dict[str, Places]


class Places(NamedTuple):
    """Where points lie in the rasters of a band; arrays of one length, but for `grid`.

    Attributes:
        row: Row of the pixel, -1 outside.
        col: Column of the pixel.
        grid: Number of the raster's grid, -1 without a raster; by unit.
        y: Row, not rounded; None where nobody needs it.
        x: Column, not rounded.
    """

    row: Ints32
    col: Ints32
    grid: Ints
    y: Floats | None
    x: Floats | None


class _Sorted(NamedTuple):
    """Points inside a raster, sorted by its tiles and by number; arrays of one length.

    Attributes:
        point: Number of the point.
        row: Row of the pixel that holds it.
        col: Column of that pixel.
        tile: Number of the tile, or of the part of a large one.
    """

    point: Ints32
    row: Ints32
    col: Ints32
    tile: Ints

    def take(self, which: slice | Mask | Ints) -> _Sorted:
        """Some of them, in this order."""
        return _Sorted(self.point[which], self.row[which], self.col[which], self.tile[which])

    def pieces(self, most: int) -> Iterator[_Sorted]:
        """The points in pieces of at most so many, cut between tiles."""
        start, n = 0, len(self.point)
        while n - start > most:
            stop = int(np.searchsorted(self.tile, self.tile[start + most], "left"))
            if stop <= start:  # one tile has more
                stop = int(np.searchsorted(self.tile, self.tile[start], "right"))
            yield self.take(slice(start, stop))
            start = stop
        if start < n:
            yield self.take(slice(start, None))


class PointPlanner(Planner):
    """Plans reads of points.

    Args:
        request: What to read. The first of its bands that a scene has says which points are
            inside, and how they are put into units.
        points: Where.
        check: Raises where the statement was stopped.
        bands: Bands that are fetched.
        reach: Pixels around each point that are needed too.
        unit_points: Points in a unit, at most.
        select: Which of a scene's points are wanted; default: all.
        latest_first: Order of scenes: by their moment, descending.
        at_once: Points, about, in a plan.
    """

    def __init__(
        self,
        request: ReadRequest,
        points: Points,
        check: Callable[[], None],
        *,
        bands: Sequence[str],
        reach: int = 0,
        unit_points: int = BATCH_ROWS,
        select: Select | None = None,
        latest_first: bool = False,
        at_once: int = _POINTS_AT_ONCE,
    ) -> None:
        super().__init__(
            request,
            Footprints(None),
            Granularity.BLOCK,
            bands=bands,
            aligned=False,
            at_once=at_once,
        )
        self._points = points
        self._check = check
        self._reach = reach
        self._unit_points = unit_points
        self._select = select
        self._latest_first = latest_first
        self._held: tuple[SceneTable, Ints] | None = None
        self._by_tile: OrderedDict[tuple[Grid, int, int, int], _Sorted] = OrderedDict()

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """Plan the scenes of a table, some at a time.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        names = tuple(dict.fromkeys([*self.request.bands, *self.bands]))
        usable = {name: self._usable(table, name) for name in names}
        if self.request.masked:  # numbers their kinds and grids too
            for name in self.bands:
                table.bands[name].mask(self.request.level)
        failures = self._failures(table, usable)
        grids = self._grids(table, usable, self.request.bands)
        for name in self.bands:
            own = self._grids(table, usable, [name])
            self._errors_of_grids(table, own, self._without_place(table, own), name)
        errors = self._without_place(table, grids)
        failures += self._errors_of_grids(table, grids, errors, None)
        own_tiles = self._own_tiles(table, usable, grids)
        parts: list[tuple[int, _Sorted]] = []
        n_points = 0
        for scene, found in self._wanted(table, usable, grids, errors):
            may_split = not any(one[scene] for one in own_tiles.values())
            for piece in found.pieces(self.at_once) if may_split else [found]:
                if parts and n_points + len(piece.point) > self.at_once:
                    yield self._plan(table, usable, own_tiles, parts, failures)
                    parts, n_points, failures = [], 0, []
                parts.append((scene, piece))
                n_points += len(piece.point)
        if parts or failures:
            yield self._plan(table, usable, own_tiles, parts, failures)

    def candidates(self, table: SceneTable) -> Iterator[tuple[int, Ints32]]:
        """Each scene, and the points inside it; no I/O.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        grids = self._grids_of(table)
        for scene in self._order(table, grids):
            point = self._points.located(table.grids[int(grids[scene])]).point
            if self._select is not None and len(point):
                point = point[self._select(table, scene, point)]
            if len(point):
                yield scene, point

    def holds(self, table: SceneTable, scene: int, point: AnyInts) -> Mask:
        """Which points are inside a scene; no I/O.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        if self._held is None or self._held[0] is not table:
            self._held = table, self._grids_of(table)
        number = int(self._held[1][scene])
        if number < 0:
            return np.zeros(len(point), bool)
        return np.isin(point, self._points.located(table.grids[number]).point, kind="table")

    def _grids_of(self, table: SceneTable) -> Ints:
        """Grid of each scene, -1 of one that has none on the map of the points."""
        usable = {name: self._usable(table, name) for name in self.request.bands}
        grids = self._grids(table, usable, self.request.bands)
        errors = self._without_place(table, grids)
        self._errors_of_grids(table, grids, errors, None)
        return np.where(np.isin(grids, list(errors)), -1, grids)

    def _order(self, table: SceneTable, grids: Ints) -> Iterator[int]:
        """The scenes that have a grid, in the order that is asked for."""
        scenes = np.flatnonzero(grids >= 0)
        if self._latest_first:
            moments = moments_of(table.batch, "datetime")[scenes]
            scenes = scenes[np.argsort(-moments.astype(np.float64), kind="stable")]
        for scene in scenes.tolist():
            self._check()
            yield scene

    def _wanted(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        grids: Ints,
        errors: dict[int, InputError],
    ) -> Iterator[tuple[int, _Sorted]]:
        """Each scene with the points inside it that are wanted."""
        kinds = self._reference(usable, self.request.bands, table.n_scenes)
        shapes = _Shapes.of(table)
        for scene in self._order(table, grids):
            number = int(grids[scene])
            if number in errors:
                continue
            found = self._sorted(table.grids[number], shapes, int(kinds[scene]))
            if self._select is not None and len(found.point):
                keep = self._select(table, scene, found.point)
                found = found.take(keep)
            if len(found.point):
                yield scene, found

    def _sorted(self, grid: Grid, shapes: _Shapes, kind: int) -> _Sorted:
        """The points inside a raster, by its tiles; scenes on one grid share them."""
        tall, wide, rows = (
            int(one[kind]) for one in (shapes.height, shapes.width, shapes.slab_rows)
        )
        key = grid, tall, wide, rows
        found = self._by_tile.get(key)
        if found is None:
            point, row, col = self._points.located(grid)
            down = row.astype(np.int64)  # there may be more than 2^31 tiles
            slab = down // tall * -(-tall // rows) + down % tall // rows
            tile = slab * -(-grid.width // wide) + col // wide
            order = np.argsort(tile, kind="stable")
            found = _Sorted(point, row, col, tile).take(order)
            self._by_tile[key] = found
            while len(self._by_tile) > 1 and _n_bytes(self._by_tile.values()) > _KEPT_BYTES:
                self._by_tile.popitem(last=False)
        self._by_tile.move_to_end(key)
        return found

    def _own_tiles(
        self, table: SceneTable, usable: dict[str, Usable], grids: Ints
    ) -> dict[str, Mask]:
        """By band, in which scenes its tiles are not those of the first band."""
        shapes = _Shapes.of(table)
        kinds = self._reference(usable, self.request.bands, table.n_scenes)
        own = {}
        for name in self.bands:
            differs = np.full(table.n_scenes, bool(self._reach))
            level = usable[name].level
            if level is not None:
                there = usable[name].is_usable & (grids >= 0)
                differs[there] |= (level.grid != grids)[there]
                differs[there] |= ~shapes.is_same(level.kind[there], kinds[there])
            mask = table.bands[name].mask(self.request.level) if self.request.masked else None
            if mask is not None:
                there = usable[name].is_usable & (grids >= 0) & (mask.grid >= 0)
                differs[there] |= ~shapes.is_same(mask.kind[there], kinds[there])
                differs[there] |= shapes.rows[mask.grid[there]] != shapes.rows[grids[there]]
                differs[there] |= shapes.cols[mask.grid[there]] != shapes.cols[grids[there]]
            own[name] = differs
        return own

    def _without_place(self, table: SceneTable, grids: Ints) -> dict[int, InputError]:
        errors: dict[int, InputError] = {}
        nothing = np.empty(0, np.int64)
        for number in np.unique(grids[grids >= 0]).tolist():
            try:
                self._points.positions(table.grids[number], nothing)
            except InputError as error:
                errors[number] = error
        return errors

    def _plan(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        own_tiles: dict[str, Mask],
        parts: list[tuple[int, _Sorted]],
        failures: list[Failure],
    ) -> PointPlan:
        """A plan of some scenes, each with its points."""
        none = np.empty(0, np.int32)
        nothing = _Sorted(none, none, none, np.empty(0, np.int64))
        point, row, col, _ = (
            np.concatenate(column)
            for column in zip(*(found for _, found in parts or [(0, nothing)]), strict=True)
        )
        runs = [_runs(self._unit_points, found.tile) for _, found in parts]
        offsets = np.cumsum([0, *(len(found.point) for _, found in parts)])
        first = np.concatenate(
            [np.empty(0, np.int64), *(run + at for run, at in zip(runs, offsets, strict=False))]
        )
        scene = np.repeat(np.array([one for one, _ in parts], np.int64), [len(run) for run in runs])
        grids = self._grids(table, usable, self.request.bands)
        edges = np.append(first, len(point))
        units = _units(first, scene, grids[scene], row, row + 1, col, col + 1)
        shapes = _Shapes.of(table)
        asked, places = [], {}
        for name in self.bands:
            level = usable[name].level
            own = np.full(table.n_scenes, -1, np.int64)
            if level is not None:
                own = np.where(usable[name].is_usable, level.grid, -1)
            differs = bool(own_tiles[name][scene].any())
            places[name] = self._places(
                table, own[scene], grids[scene], edges, (point, row, col), is_moved=differs
            )
            if level is None:
                continue
            if differs:
                each = np.repeat(np.arange(len(first)), np.diff(edges))
                kinds = level.kind[scene]
                asked.append((name, *self._tiles(shapes, places[name], kinds, scene, each)))
            else:
                asked.append((name, units, np.arange(len(first))))
        plan = self.of_units(table, usable, units, asked, failures)
        known = {one.name: getattr(plan, one.name) for one in fields(TilePlan)}
        known["bands"] = self.bands
        return PointPlan(**known, point=point, row=row, col=col, first_point=edges, places=places)

    def _places(
        self,
        table: SceneTable,
        own: Ints,
        grid: Ints,
        edges: Ints,
        places: tuple[Ints32, Ints32, Ints32],
        *,
        is_moved: bool,
    ) -> Places:
        """Where points lie in a band: as in the first band where they share a grid."""
        point, row, col = places
        if (own < 0).any() or is_moved:
            there = np.repeat(own >= 0, np.diff(edges))
            row, col = np.where(there, row, np.int32(-1)), np.where(there, col, np.int32(-1))
        if not is_moved:
            return Places(row, col, own, None, None)
        x = y = None
        if self._reach:
            x, y = np.full(len(point), np.nan), np.full(len(point), np.nan)
        wanted = own >= 0 if self._reach else (own >= 0) & (own != grid)
        for number in np.unique(own[wanted]).tolist():
            one = table.grids[number]
            at = np.flatnonzero(np.repeat(wanted & (own == number), np.diff(edges)))
            try:
                across, down = self._points.positions(one, point[at])
            except InputError:  # noted as a fault of the band
                row[at] = col[at] = -1
                continue
            if x is not None and y is not None:
                x[at], y[at] = across, down
            with np.errstate(invalid="ignore"):
                inside = (across >= 0) & (across < one.width) & (down >= 0) & (down < one.height)
            row[at] = np.where(inside, np.where(inside, down, 0).astype(np.int32), -1)
            col[at] = np.where(inside, np.where(inside, across, 0).astype(np.int32), -1)
        return Places(row, col, own, y, x)

    def _tiles(
        self,
        shapes: _Shapes,
        places: Places,
        kind: Ints,
        scene: Ints,
        unit: Ints,
    ) -> tuple[Units, Ints]:
        """Tiles of a band that hold points or pixels around them, by unit.

        Args:
            shapes: Of tiles and rasters.
            places: Of the points in the band.
            kind: Of the band's tiles, by unit.
            scene: By unit.
            unit: By point.
        """
        at = np.flatnonzero(places.row >= 0)
        unit = unit[at]
        scene, kind, grid = scene[unit], kind[unit], places.grid[unit]
        tall, wide = shapes.height[kind], shapes.width[kind]
        top = np.maximum(places.row[at] - self._reach, 0)
        left = np.maximum(places.col[at] - self._reach, 0)
        bottom = np.minimum(places.row[at] + self._reach, shapes.rows[grid] - 1)
        right = np.minimum(places.col[at] + self._reach, shapes.cols[grid] - 1)
        first_row, last_row = top // tall, bottom // tall
        first_col, last_col = left // wide, right // wide
        found = []
        for down in range(int((last_row - first_row).max(initial=0)) + 1):
            for across in range(int((last_col - first_col).max(initial=0)) + 1):
                r, c = first_row + down, first_col + across
                some = np.flatnonzero((r <= last_row) & (c <= last_col))
                tile = (
                    np.maximum(top, r * tall),
                    np.minimum(bottom + 1, (r + 1) * tall),
                    np.maximum(left, c * wide),
                    np.minimum(right + 1, (c + 1) * wide),
                )
                columns = (unit, scene, grid, shapes.slab(kind, tile[0]), c, *tile)
                found.append([column[some] for column in columns])
        unit, scene, grid, slab, c, *tile_edges = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        order = np.lexsort((c, slab, unit))
        unit, scene, grid, slab, c = (column[order] for column in (unit, scene, grid, slab, c))
        first = _runs(_ANY_NUMBER, unit, slab, c)
        return _units(
            first, scene[first], grid[first], *(edge[order] for edge in tile_edges)
        ), unit[first]


class _Shapes(NamedTuple):
    """Sizes of tiles by kind, and of rasters by grid."""

    height: Ints
    width: Ints
    slab_rows: Ints
    rows: Ints
    cols: Ints

    @classmethod
    def of(cls, table: SceneTable) -> _Shapes:
        formats = [kind.format for kind in table.kinds]
        return cls(
            np.array([one.tile_height for one in formats], np.int64),
            np.array([one.tile_width for one in formats], np.int64),
            np.array([slab_rows(one) for one in formats], np.int64),
            np.array([grid.height for grid in table.grids], np.int64),
            np.array([grid.width for grid in table.grids], np.int64),
        )

    def slab(self, kind: Ints, row: Ints) -> Ints:
        """Number of the slab of a row; a block that is not large is one slab."""
        height, rows = self.height[kind], self.slab_rows[kind]
        number: Ints = row // height * -(-height // rows) + row % height // rows
        return number

    def is_same(self, kind: Ints, other: Ints) -> Mask:
        """Whether tiles of two kinds are cut alike."""
        same: Mask = (
            (self.height[kind] == self.height[other])
            & (self.width[kind] == self.width[other])
            & (self.slab_rows[kind] == self.slab_rows[other])
        )
        return same


def _runs(most: int, *keys: AnyInts) -> Ints:
    """Where runs of equal keys begin, those longer than so many cut."""
    n = len(keys[0])
    new = np.ones(n, bool)
    for number, key in enumerate(keys):
        differs = np.diff(key) != 0
        new[1:] = differs if not number else new[1:] | differs
    first = np.flatnonzero(new)
    if most < n:
        rank = np.arange(n) - first[np.cumsum(new) - 1]
        first = np.flatnonzero(rank % most == 0)
    return first


def _units(
    first: Ints, scene: Ints, grid: Ints, top: Ints, bottom: Ints, left: Ints, right: Ints
) -> Units:
    """Units with the windows around what is in each run; scene and grid are those of runs."""
    if not len(first):
        empty = np.empty(0, np.int64)
        return Units(empty, empty, empty, empty, np.empty((0, 4), np.int64), np.empty(0, bool))
    window = np.column_stack(
        [
            np.minimum.reduceat(top, first),
            np.maximum.reduceat(bottom, first),
            np.minimum.reduceat(left, first),
            np.maximum.reduceat(right, first),
        ]
    )
    none = np.full(len(first), -1, np.int64)
    return Units(scene, none, none, grid, window, np.ones(len(first), bool))


def _n_bytes(kept: Iterable[_Sorted]) -> int:
    return sum(column.nbytes for found in kept for column in found)
