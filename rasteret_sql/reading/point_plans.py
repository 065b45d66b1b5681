"""Plans of points: a unit is a tile of the first band with the points in it.

So each tile is fetched and decoded once for all of them. A scene is never split between
plans, and memory is bounded by the points of a scene, not by points times scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from rasteret_sql.errors import InputError
from rasteret_sql.reading.blocks import slab_rows
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.plan import Failure, Granularity, TilePlan, Units
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.point_relations import moments_of
from rasteret_sql.reading.points import Floats, Located, Points
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import Ints, SceneTable

Select = Callable[[SceneTable, int, Ints], Mask]

BATCH_ROWS = 1 << 17
"""Points of a batch, about, and of a unit, at most."""

PLAN_BYTES = 128
"""What a plan holds of a point: it is in memory until the point's row is delivered."""

UNIT_BYTES = 4 * 1024 * 1024
"""Bytes of the rows of a unit, about."""

_ANY_NUMBER = np.iinfo(np.int64).max
_POINTS_AT_ONCE = 1 << 18


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

    point: Ints
    row: Ints
    col: Ints
    first_point: Ints
    places: dict[str, Places]


class Places(NamedTuple):
    """Where points lie in the rasters of a band; arrays of one length.

    Attributes:
        row: Row of the pixel, -1 outside.
        col: Column of the pixel.
        grid: Number of the raster's grid, -1 without a raster.
        y: Row, not rounded; None where nobody needs it.
        x: Column, not rounded.
    """

    row: Ints
    col: Ints
    grid: Ints
    y: Floats | None
    x: Floats | None


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
        parts: list[tuple[int, Located]] = []
        n_points = 0
        for scene, found in self._wanted(table, grids, errors):
            if parts and n_points + len(found.point) > self.at_once:
                yield self._plan(table, usable, grids, parts, failures)
                parts, n_points, failures = [], 0, []
            parts.append((scene, found))
            n_points += len(found.point)
        if parts or failures:
            yield self._plan(table, usable, grids, parts, failures)

    def candidates(self, table: SceneTable) -> Iterator[tuple[int, Ints]]:
        """Each scene, and the points inside it; no I/O.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        grids = self._grids_of(table)
        for scene, found in self._wanted(table, grids, {}):
            yield scene, found.point

    def holds(self, table: SceneTable, scene: int, point: Ints) -> Mask:
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

    def _wanted(
        self, table: SceneTable, grids: Ints, errors: dict[int, InputError]
    ) -> Iterator[tuple[int, Located]]:
        """Each scene with the points inside it that are wanted."""
        scenes = np.flatnonzero(grids >= 0)
        if self._latest_first:
            moments = moments_of(table.batch, "datetime")[scenes]
            scenes = scenes[np.argsort(-moments.astype(np.float64), kind="stable")]
        for scene in scenes.tolist():
            self._check()
            number = int(grids[scene])
            if number in errors:
                continue
            found = self._points.located(table.grids[number])
            if self._select is not None and len(found.point):
                keep = self._select(table, scene, found.point)
                found = Located(*(column[keep] for column in found))
            if len(found.point):
                yield scene, found

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
        usable: dict[str, Any],
        grids: Ints,
        parts: list[tuple[int, Located]],
        failures: list[Failure],
    ) -> PointPlan:
        """A plan of some scenes, each with all of its points."""
        scene = np.repeat(
            np.array([one for one, _ in parts], np.int64), [len(found.point) for _, found in parts]
        )
        nothing = Located(*[np.empty(0, np.int64)] * 3)
        point, row, col = (
            np.concatenate(column)
            for column in zip(*(found for _, found in parts or [(0, nothing)]), strict=True)
        )
        shapes = _Shapes.of(table)
        kind = self._reference(usable, self.request.bands, table.n_scenes)[scene]
        slab, across = shapes.slab(kind, row), col // shapes.width[kind]
        order = np.lexsort((point, across, slab, scene))
        scene, point, row, col, slab, across = (
            column[order] for column in (scene, point, row, col, slab, across)
        )
        first = _runs(self._unit_points, scene, slab, across)
        grid = grids[scene]
        units = _units(first, scene, grid, row, row + 1, col, col + 1)
        unit = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(scene))))
        asked, places = [], {}
        for name in self.bands:
            level = usable[name].level
            own = np.full(table.n_scenes, -1, np.int64)
            if level is not None:
                own = np.where(usable[name].is_usable, level.grid, -1)
            places[name] = self._places(table, own[scene], grid, point, row, col)
            if level is not None:
                kinds = level.kind[scene]
                asked.append((name, *self._tiles(shapes, places[name], kinds, scene, unit)))
        plan = self.of_units(table, usable, units, asked, failures)
        known = {one.name: getattr(plan, one.name) for one in fields(TilePlan)}
        known["bands"] = self.bands
        return PointPlan(
            **known, point=point, row=row, col=col,
            first_point=np.append(first, len(scene)), places=places,
        )  # fmt: skip

    def _places(
        self, table: SceneTable, own: Ints, grid: Ints, point: Ints, row: Ints, col: Ints
    ) -> Places:
        """Where points lie in a band: as in the first band where they share a grid."""
        row, col = np.where(own >= 0, row, -1), np.where(own >= 0, col, -1)
        x = y = None
        if self._reach:
            x, y = np.full(len(point), np.nan), np.full(len(point), np.nan)
        differs = own != grid
        wanted = own >= 0 if self._reach else (own >= 0) & differs
        for number in np.unique(own[wanted]).tolist():
            one = table.grids[number]
            at = np.flatnonzero(wanted & (own == number))
            try:
                across, down = self._points.positions(one, point[at])
            except InputError:  # noted as a fault of the band
                row[at] = col[at] = -1
                continue
            if x is not None and y is not None:
                x[at], y[at] = across, down
            with np.errstate(invalid="ignore"):
                inside = (across >= 0) & (across < one.width) & (down >= 0) & (down < one.height)
            row[at] = np.where(inside, np.where(inside, down, 0).astype(np.int64), -1)
            col[at] = np.where(inside, np.where(inside, across, 0).astype(np.int64), -1)
        return Places(row, col, own, y, x)

    def _tiles(
        self,
        shapes: _Shapes,
        places: Places,
        kind: Ints,
        scene: Ints,
        unit: Ints,
    ) -> tuple[Units, Ints]:
        """Tiles of a band that hold points or pixels around them, by unit."""
        at = np.flatnonzero(places.row >= 0)
        unit, scene, kind, grid = unit[at], scene[at], kind[at], places.grid[at]
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
        return _units(first, scene, grid, *(edge[order] for edge in tile_edges)), unit[first]


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


def _runs(most: int, *keys: Ints) -> Ints:
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
    """Units with the windows around what is in each run."""
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
    return Units(scene[first], none, none, grid[first], window, np.ones(len(first), bool))
