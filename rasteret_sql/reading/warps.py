"""Reads onto a grid of the caller's: what they need of the rasters, and their pixels.

Each raster gets an *output grid* over its bounds, in the CRS and resolution that were asked
for, with pixel edges at multiples of the resolution: pixels of all records fall together. From
there on a read is planned as on the rasters' own grids; only the tiles are those of the
pixels that the kernel looks at, in the overview that the rule of gdalwarp chooses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyproj

from rasteret_sql.errors import InputError
from rasteret_sql.grid import kernels, warp
from rasteret_sql.grid.crs import crs_of, is_same
from rasteret_sql.grid.extents import extent_of
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
from rasteret_sql.units import Affine, Window

BLOCK = 256
"""Rows and columns of a block of an output grid, where pixels are rows."""

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
        makes_rows: Whether the pixels of a window become a row, so that it has a largest size.
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
        makes_rows: bool = True,
    ) -> None:
        super().__init__(
            request, footprints, Granularity.WINDOW, bands=bands, clip=clip, crop=crop,
            at_once=at_once, lattice=lattice,
        )  # fmt: skip
        assert request.output_grid is not None  # noqa: S101 (its callers)
        self._output_grid = request.output_grid
        self._block = block
        self._makes_rows = makes_rows

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
        if self._makes_rows:
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
        size = np.minimum(size, warp.MOST_LOCATED)
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
    large = np.flatnonzero(height * width >= warp.MOST_LOCATED)
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
    bounds = extent_of(raster.affine, raster.width, raster.height, own, crs)
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
