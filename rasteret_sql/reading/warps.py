"""Reads onto a grid of the caller's: what they need of the rasters, and their pixels.

Each raster gets an *output grid* over its bounds, in the CRS and resolution that were asked
for, with pixel edges at multiples of the resolution: pixels of all records fall together. From
there on a read is planned as on the rasters' own grids; only the tiles are those of the
pixels that the kernel looks at, in the overview that the rule of gdalwarp chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from rasteret_sql.errors import InputError
from rasteret_sql.grid import kernels, warp
from rasteret_sql.grid.crs import crs_of, is_same, transformer
from rasteret_sql.grid.windows import bounds_of
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.patches import Patch, pixels_of, valid_pixels, value_dtype
from rasteret_sql.reading.plan import (
    Asked,
    Clip,
    Failure,
    Granularity,
    Jobs,
    Lattice,
    TilePlan,
    Usable,
)
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.request import OutputGrid, ReadRequest
from rasteret_sql.reading.scenes import Grid, SceneTable
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.units import Affine, BBox, Window

BLOCK = 256
"""Rows and columns of a block of an output grid, where pixels are rows."""

_OUTLINE_POINTS = 33
"""Points along each side of a raster, and rows of points inside, that give its bounds."""

_HALVINGS = 40
_NARROWINGS = 8  # each to a quarter
_STILL = 1e-9  # of the extent: what moves a bound by less is no gain
_APART_DEGREES = 20.0  # more than between two points of a raster around the world

_Floats = NDArray[np.float64]
_MovePlaces = Callable[[_Floats, _Floats], tuple[_Floats, _Floats]]

_MOST_IN_WINDOW = 1 << 32
_MOST_PIXELS = 1 << 31
"""Rows or columns of an output grid."""


class Prepared(NamedTuple):
    """What the plans of a table have in common.

    Attributes:
        table: With the output grids among its grids.
        usable: In which scenes each band can be read.
        units: All of them.
        levels: Level of each scene by band; -1 where there is none.
        failures: What can't be planned.
    """

    table: SceneTable
    usable: dict[str, Usable]
    units: Jobs
    levels: dict[str, Ints]
    failures: list[Failure]


class WarpPlanner(Planner):
    """Plans reads onto output grids.

    Args:
        request: What to read; its output grid is set.
        footprints: Of the targets.
        bands: Bands that are fetched.
        block: Rows and columns of a block of the output grid, where a unit is a block under a
            target; None where it is the whole window of a target.
        clip: Which pixels are wanted at all.
        crop: Windows of the targets; else whole rasters.
        at_once: Tiles, about, in a plan.
        lattice: Instead of the window of a target, the whole squares that the target meets.
            They begin at multiples of the stride from the origin of the CRS.
    """

    def __init__(
        self,
        request: ReadRequest,
        footprints: Footprints,
        *,
        bands: Sequence[str] | None = None,
        block: tuple[int, int] | None = None,
        clip: Clip | None = None,
        crop: bool = True,
        at_once: int = 1 << 14,
        lattice: Lattice | None = None,
    ) -> None:
        super().__init__(
            request, footprints, Granularity.WINDOW, bands=bands, clip=clip, crop=crop,
            at_once=at_once, lattice=lattice,
        )  # fmt: skip
        assert request.output_grid is not None  # noqa: S101 (its callers)
        self._output_grid = request.output_grid
        self._block = block

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """Plan the scenes of a table, some at a time.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        ready = self.prepared(table)
        told = ready.failures
        for start, stop in self._runs(ready.units):
            yield self.plan_of(ready, np.arange(start, stop), told)
            told = []
        if told:
            yield self.plan_of(ready, np.empty(0, np.int64), told)

    def prepared(self, table: SceneTable) -> Prepared:
        """All units of a table, and what their plans have in common.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        table = _with_levels(table)
        usable = {name: self._usable(table, name) for name in table.bands}
        failures = self._failures(table, usable)
        base = self._grids(table, usable, self.request.bands)
        grids, errors = self._output_grids(table, base)
        failures += self._errors_of_grids(table, base, errors, None)
        windows, errors = self.windows(table, grids)
        failures += self._errors_of_grids(table, grids, errors, None)
        units = _cut(windows, self._block) if self._block else windows
        _check_size(table, units)
        levels = {
            name: self._levels(table, name, usable[name].is_usable, grids) for name in table.bands
        }
        return Prepared(table, usable, units, levels, failures)

    def plan_of(self, ready: Prepared, chosen: Ints, failures: list[Failure]) -> TilePlan:
        """The plan of some units."""
        table, levels = ready.table, ready.levels
        some = ready.units.take(chosen)
        names = dict.fromkeys([*self.bands, *self.request.bands])  # units of a read are the same,
        asked = [one for name in names for one in self._asked(table, name, some, levels)]
        some, asked = _needed(some, asked)  # whatever is fetched of them
        asked = [one for one in asked if one.name in self.bands]
        return replace(self.of_jobs(table, ready.usable, some, asked, failures), levels=levels)

    def lattice_origins(self, table: SceneTable, stride: int) -> Ints:
        """First row and column of the lattice in each grid: the same places in all of a CRS."""
        origins = np.zeros((len(table.grids), 2), np.int64)
        for number, grid in enumerate(table.grids):
            affine = grid.affine
            if affine is not None and affine.is_rectilinear and affine.a and affine.e:
                away = [round(affine.f / affine.e), round(affine.c / affine.a)]
                origins[number] = [-one % stride for one in away]
        return origins

    def _output_grids(self, table: SceneTable, base: Ints) -> tuple[Ints, dict[int, InputError]]:
        """Number of the output grid of each scene; errors by number of the raster's grid."""
        numbers = np.full(max(len(table.grids), 1), -1, np.int64)
        errors: dict[int, InputError] = {}
        for number in np.unique(base[base >= 0]).tolist():
            try:
                numbers[number] = table.number_grid(
                    output_grid(self._output_grid, table.grids[number])
                )
            except InputError as error:
                errors[number] = error
        return np.where(base >= 0, numbers[base], -1), errors

    def _levels(self, table: SceneTable, name: str, is_usable: Mask, grids: Ints) -> Ints:
        """The level of a band that each scene is read from; -1 where there is none."""
        band, overview = table.bands[name], self._output_grid.overview
        chosen = np.full(table.n_scenes, -1, np.int64)
        columns: list[Ints] = []
        while (level := band.level(len(columns))) is not None:
            columns.append(level.grid)
            if overview == "none":
                break
        there = np.flatnonzero(is_usable & (grids >= 0))
        if not columns or not len(there):
            return chosen
        keys = np.column_stack([grids, *columns])[there]
        distinct, of = np.unique(keys, axis=0, return_inverse=True)
        found = []
        for target, *sources in distinct.tolist():
            sizes = [(table.grids[s].width, table.grids[s].height) for s in sources if s >= 0]
            if isinstance(overview, int):
                found.append(overview if overview < len(sizes) else -1)
                continue
            scale = _scale(self.footprints, table.grids[target], table.grids[sources[0]])
            found.append(warp.choose_level(sizes, scale.want))
        chosen[there] = np.array(found, np.int64)[of.reshape(-1)]
        for scene in there[chosen[there] < 0].tolist():
            error = InputError.expected(
                f"record {table.id_of(scene)}, band {name}",
                f"an overview of at most {band.n_levels(scene) - 1}",
                overview,
                "overview := 'auto' takes the best one",
            )
            if self.request.on_error == "error":
                raise error
            table.faults[scene, name] = error
        return chosen

    def _runs(self, units: Jobs) -> Iterator[tuple[int, int]]:
        """Runs of units that need a bounded number of tiles, about."""
        window = units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        run = np.cumsum((1 + size / BLOCK**2) * max(len(self.bands), 1)) // self.at_once
        edges = np.flatnonzero(np.diff(run, prepend=-1, append=-1))
        yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)

    def _asked(
        self, table: SceneTable, name: str, units: Jobs, levels: dict[str, Ints]
    ) -> Iterator[Asked]:
        """What units need of a band, by level: windows on the grids of the band."""
        chosen = levels[name][units.scene]
        for number in np.unique(chosen[chosen >= 0]).tolist():
            level = table.bands[name].level(number)
            assert level is not None  # noqa: S101 (it was chosen)
            unit = np.flatnonzero(chosen == number)
            grid = level.grid[units.scene[unit]]
            keys = np.column_stack([units.grid[unit], grid, units.window[unit]])
            distinct, of = np.unique(keys, axis=0, return_inverse=True)
            needed = np.array(
                [
                    source_window(
                        self.footprints,
                        self._output_grid.kernel,
                        table.grids[target],
                        Window(*window),
                        table.grids[source],
                    )
                    for target, source, *window in distinct.tolist()
                ],
                np.int64,
            ).reshape(-1, 4)[of.reshape(-1)]
            some = (needed[:, 0] < needed[:, 1]) & (needed[:, 2] < needed[:, 3])
            unit = unit[some]
            jobs = Jobs(
                units.scene[unit],
                np.full(len(unit), -1, np.int64),
                grid[some],
                needed[some],
                np.ones(len(unit), bool),
            )
            yield Asked(name, jobs, unit, number)


def _check_size(table: SceneTable, units: Jobs) -> None:
    """Refuse windows that no row of DuckDB can hold.

    Raises:
        InputError: there is one.
    """
    window = units.window
    height, width = window[:, 1] - window[:, 0], window[:, 3] - window[:, 2]
    large = np.flatnonzero(height * width >= _MOST_IN_WINDOW)
    if len(large):
        first = int(large[0])
        raise InputError.expected(
            f"record {table.id_of(int(units.scene[first]))}: resolution",
            "fewer than 2^32 pixels in a row of the result",
            f"{width[first]} x {height[first]}",
            "take a larger resolution, or a smaller area",
        )


def output_grid(asked: OutputGrid, raster: Grid) -> Grid:
    """The grid over a raster that its pixels are read onto.

    Raises:
        InputError: the raster is nowhere on the map, or PROJ knows no way to the CRS.
    """
    if raster.affine is None or raster.crs is None:
        missing = "transform" if raster.affine is None else "CRS"
        raise InputError.expected(
            "resolution", f"a raster with a {missing}", "none", "read it without crs and resolution"
        )
    own, crs = crs_of(raster.crs), crs_of(asked.crs or raster.crs)
    resolution = asked.resolution or _own_resolution(raster.affine, own, crs)
    bounds = _bounds(raster.affine, raster.width, raster.height, own, crs)
    grid = warp.grid_over(crs, bounds, resolution)
    if max(grid.width, grid.height) >= _MOST_PIXELS:
        raise InputError.expected(
            "resolution",
            "fewer than 2^31 rows and columns",
            f"{grid.width} x {grid.height}",
            f"it is in units of the CRS ({_unit(crs)})",
        )
    return Grid(
        grid.width, grid.height, grid.affine, asked.crs or raster.crs, grid.width, grid.height
    )


def source_window(
    footprints: Footprints, kernel: str, target: Grid, window: Window, source: Grid
) -> Window:
    """The pixels of a raster that a window of an output grid needs."""

    def found() -> Window:
        scale = _scale(footprints, target, source)
        return warp.plan_window(_placed(target), window, _placed(source), kernel, scale)

    return footprints.once((target, window, source, "source"), found)


def warped(
    footprints: Footprints,
    request: ReadRequest,
    plan: TilePlan,
    place: tuple[int, Grid, Window],
    name: str,
    patch: Patch,
) -> tuple[Pixels, Mask | None] | None:
    """The pixels of a band on an output grid.

    Args:
        footprints: Of the targets.
        request: What is read; with its output grid.
        plan: It was made by `WarpPlanner`.
        place: Scene, output grid and window on it.
        name: Of the band.
        patch: What was read of the band.

    Returns:
        Values of the band's own type, 0 where there is no data, and which pixels hold data;
        None where the scene has no such band.
    """
    assert plan.levels is not None and request.output_grid is not None  # noqa: S101, PT018
    scene, target, window = place
    level = plan.table.bands[name].level(max(int(plan.levels[name][scene]), 0))
    if level is None or plan.levels[name][scene] < 0:
        return None
    source, kernel = plan.table.grids[int(level.grid[scene])], request.output_grid.kernel
    if not patch.pieces:
        kind = plan.table.kinds[int(level.kind[scene])]
        shape = window.height, window.width
        return np.zeros(shape, value_dtype(kind.dtype)), np.zeros(shape, bool)
    at = footprints.once(
        (target, window, source, "located", kernel == "average"),
        lambda: warp.locate(_placed(target), window, _placed(source), kernel),
    )
    scale = _scale(footprints, target, source)
    return _moved(patch, at, kernel, scale, masked=request.masked)


def nearest_windows(target: Grid, windows: Ints, source: Grid) -> Ints:
    """The pixels of a raster that `nearest` needs for windows of another grid, (n, 4)."""
    return warp.nearest_windows(_placed(target), windows, _placed(source))


def nearest(patch: Patch, target: Grid, window: Window, source: Grid) -> tuple[Pixels, Mask | None]:
    """The pixels of a raster that hold the centres of those of a window of another grid.

    Args:
        patch: What was read of the raster, one piece or more.
        target: The other grid.
        window: Of it.
        source: The grid of the raster.

    Returns:
        Values of the raster's type, 0 where there is no data, and which pixels hold data
        (None: all).
    """
    at = warp.locate(_placed(target), window, _placed(source))
    return _moved(patch, at, "nearest", kernels.Scale(1.0, 1.0), masked=True)


def _moved(
    patch: Patch, at: kernels.Positions, kernel: str, scale: kernels.Scale, *, masked: bool
) -> tuple[Pixels, Mask | None]:
    read = Window(*_around([piece.window for piece in patch.pieces]))
    whole = replace(patch, window=read)
    values = pixels_of(whole)
    valid = valid_pixels(whole, values) if masked else None
    values, valid = warp.warp_block(values, valid, read, at, kernel, scale)
    return values, None if valid.all() else valid


def _with_levels(table: SceneTable) -> SceneTable:
    """The table with all levels numbered, and room for grids of this read alone."""
    for name in table.bands:
        band, number = table.bands[name], 0
        while band.level(number) is not None:
            band.mask(number)
            number += 1
    return table.with_own_grids()


def _cut(jobs: Jobs, block: tuple[int, int]) -> Jobs:
    """Windows cut at multiples of a number of rows and columns; row by row of blocks."""
    rows, cols = block
    first = jobs.window[:, [0, 2]] // block
    count = -(-jobs.window[:, [1, 3]] // block) - first
    n_blocks = count[:, 0] * count[:, 1]
    job = np.repeat(np.arange(len(n_blocks)), n_blocks)
    place = np.arange(len(job)) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)
    top = (first[job, 0] + place // count[job, 1]) * rows
    left = (first[job, 1] + place % count[job, 1]) * cols
    window = jobs.window[job]
    window = np.column_stack(
        [
            np.maximum(window[:, 0], top),
            np.minimum(window[:, 1], top + rows),
            np.maximum(window[:, 2], left),
            np.minimum(window[:, 3], left + cols),
        ]
    )
    return jobs.take(job)._replace(window=window)


def _needed(units: Jobs, asked: list[Asked]) -> tuple[Jobs, list[Asked]]:
    """Units that lie in a raster of theirs; the corners of an output grid may not."""
    needed = np.zeros(len(units.scene), bool)
    for one in asked:
        needed[one.unit] = True
    number = np.cumsum(needed) - 1
    return units.take(needed), [one._replace(unit=number[one.unit]) for one in asked]


def _around(windows: Sequence[Window]) -> tuple[int, int, int, int]:
    return (
        min(one.row_start for one in windows),
        max(one.row_stop for one in windows),
        min(one.col_start for one in windows),
        max(one.col_stop for one in windows),
    )


def _scale(footprints: Footprints, target: Grid, source: Grid) -> kernels.Scale:
    return footprints.once(
        (target, source, "scale"), lambda: warp.measure_scale(_placed(target), _placed(source))
    )


@lru_cache(maxsize=4096)
def _placed(grid: Grid) -> warp.Grid:
    """A grid that has a place on the map."""
    assert grid.affine is not None and grid.crs is not None  # noqa: S101, PT018 (output_grid)
    return warp.Grid(crs_of(grid.crs), grid.affine, grid.width, grid.height)


def _own_resolution(affine: Affine, own: pyproj.CRS, crs: pyproj.CRS) -> tuple[float, float]:
    """Width and height of a raster's pixels, where the CRS has the same units."""
    if not is_same(own, crs) and (_unit(own) != _unit(crs) or crs.is_geographic):
        raise InputError.expected(
            "resolution",
            f"the size of a pixel in units of the CRS ({_unit(crs)})",
            "none",
            f"the raster has pixels in {_unit(own)}",
        )
    return math.hypot(affine.a, affine.d), math.hypot(affine.b, affine.e)


def _unit(crs: pyproj.CRS) -> str:
    return str(crs.axis_info[0].unit_name) if crs.axis_info else "unknown"


def _bounds(affine: Affine, width: int, height: int, own: pyproj.CRS, crs: pyproj.CRS) -> BBox:
    """The box around a raster in another CRS; in degrees it may end beyond 180."""
    if is_same(own, crs):
        return bounds_of(affine, height, width)
    step = transformer(own, crs)
    a, b, c, d, e, f = affine

    def move(col: _Floats, row: _Floats) -> tuple[_Floats, _Floats]:
        x, y = step.transform(a * col + b * row + c, d * col + e * row + f)
        known = np.isfinite(x) & np.isfinite(y)
        return np.where(known, x, np.nan), np.where(known, y, np.nan)

    col, row = np.meshgrid(
        np.linspace(0, width, _OUTLINE_POINTS), np.linspace(0, height, _OUTLINE_POINTS)
    )
    try:
        x, y = move(col, row)
        if np.isnan(x).all():
            raise _no_way(crs)
        found: list[BBox] = []
        if crs.is_geographic:
            ends = _poles_inside(affine, width, height, own, crs)
            if _crosses_antimeridian(x) and not ends:
                x, turned = np.where(x < 0, x + 360, x), move

                def move(col: _Floats, row: _Floats) -> tuple[_Floats, _Floats]:
                    x, y = turned(col, row)
                    return np.where(x < 0, x + 360, x), y

            found += [BBox(-180.0, pole, 180.0, pole) for pole in ends]
        found += [_box_of(x, y), *_tears(move, col, row, x)]
        found += [_extremes(move, (width, height), (col, row), (x, y))]
    except ProjError as error:
        raise _no_way(crs) from error
    lows, highs = zip(*((one[:2], one[2:]) for one in found), strict=True)
    return BBox(*np.min(lows, axis=0).tolist(), *np.max(highs, axis=0).tolist())


def _box_of(x: _Floats, y: _Floats) -> BBox:
    edges = np.nanmin(x), np.nanmin(y), np.nanmax(x), np.nanmax(y)
    return BBox(*map(float, edges))


def _poles_inside(
    affine: Affine, width: int, height: int, own: pyproj.CRS, crs: pyproj.CRS
) -> list[float]:
    """Latitudes of the poles that lie in a raster, around which it has all longitudes."""
    inverse = affine.inverse()
    found = []
    for latitude in (-90.0, 90.0):
        col, row = inverse.to_map(*transformer(crs, own).transform(0.0, latitude))
        if 0 <= col <= width and 0 <= row <= height:
            found.append(latitude)
    return found


def _crosses_antimeridian(longitude: _Floats) -> bool:
    """Whether longitudes go on from 180 to -180, and leave out those around 0."""
    west, east = longitude[longitude < 0], longitude[longitude >= 0]
    if not len(west) or not len(east):
        return False
    inner, outer = east.min() - west.max(), 360 - (east.max() - west.min())
    return bool(inner > max(outer, _APART_DEGREES))


def _tears(move: _MovePlaces, col: _Floats, row: _Floats, x: _Floats) -> list[BBox]:
    """Boxes of the places on both sides of where the map is torn between two points."""
    found = []
    half = (np.nanmax(x) - np.nanmin(x)) / 2
    for axis in (0, 1):
        torn = np.abs(np.diff(x, axis=axis)) > half
        if not torn.any():
            continue
        first, last = (slice(None, -1), slice(1, None))
        index = [(one, slice(None)) if axis == 0 else (slice(None), one) for one in (first, last)]
        (c0, c1), (r0, r1), (x0, x1) = ([one[i][torn] for i in index] for one in (col, row, x))
        for _ in range(_HALVINGS):
            c, r = (c0 + c1) / 2, (r0 + r1) / 2
            middle = move(c, r)[0]
            is_first = np.abs(middle - x0) < np.abs(middle - x1)
            c0, r0, x0 = (np.where(is_first, n, o) for n, o in ((c, c0), (r, r0), (middle, x0)))
            middle = np.where(np.isnan(middle), x1, middle)
            c1, r1, x1 = (np.where(is_first, o, n) for n, o in ((c, c1), (r, r1), (middle, x1)))
        found.append(_box_of(*move(np.append(c0, c1), np.append(r0, r1))))
    return found


def _extremes(
    move: _MovePlaces,
    size: tuple[int, int],
    pixel: tuple[_Floats, _Floats],
    place: tuple[_Floats, _Floats],
) -> BBox:
    """The box with the places between points that lie further out than the points.

    Args:
        move: From columns and rows to x and y.
        size: Columns and rows of the raster.
        pixel: Columns and rows of the points, a lattice of `_OUTLINE_POINTS` on each side.
        place: Their x and y.
    """
    (width, height), (col, row), (x, y) = size, pixel, place
    signed = np.stack([x, y, -x, -y]).reshape(4, -1)
    at = np.nanargmin(signed, axis=1)
    most: _Floats = np.nanmin(signed, axis=1)
    cols, rows = col.ravel()[at], row.ravel()[at]
    span = np.array([width, height]) / (_OUTLINE_POINTS - 1)
    around = np.linspace(-1, 1, 9)
    limit = _STILL * np.ptp(signed[np.isfinite(signed)])
    for _ in range(_NARROWINGS):
        c = np.clip(cols[:, None, None] + around[:, None] * span[0], 0, width)
        r = np.clip(rows[:, None, None] + around[None, :] * span[1], 0, height)
        c, r = (one.reshape(4, -1) for one in np.broadcast_arrays(c, r))
        u, v = move(c, r)
        values = np.stack([u[0], v[1], -u[2], -v[3]])
        values = np.where(np.isnan(values), np.inf, values)
        at, each = values.argmin(axis=1), np.arange(4)
        better = values[each, at]
        cols, rows = c[each, at], r[each, at]
        gain = most - better
        most = np.minimum(most, better)
        if not (gain > limit).any():
            break
        span = span / 4
    return BBox(float(most[0]), float(most[1]), float(-most[2]), float(-most[3]))


def _no_way(crs: pyproj.CRS) -> InputError:
    return InputError.expected(
        "crs", "a CRS that the raster can be transformed to", crs.srs, "choose one for its region"
    )
