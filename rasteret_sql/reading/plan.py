"""Which tiles a read needs: scenes x targets x bands, as columns. No I/O.

A *tile* is a block of a file, or a part of a large one. A *unit* is what an output makes at
once: a window of a scene under a target, a tile, or the part of a window in one tile. The
same plan is shown by ``rasteret_plan``, summed for ``max_bytes`` and run by the pipeline.

Source: TIFF 6.0 section 15 (tiles are ordered left to right, top to bottom); COG
driver documentation (blocks may lie next to each other with 8 bytes between them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import CollectionError, InputError, RasteretError, UnsupportedTiffError
from rasteret_sql.reading.blocks import (
    DEFLATE,
    is_streamed,
    part_rows,
    prefix_bytes,
    row_size,
    slab_rows,
)
from rasteret_sql.reading.footprints import Footprints, Mask, Pairs
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import BandKind, Grid, Ints, LevelTable, SceneTable
from rasteret_sql.tiff.codecs import check_supported
from rasteret_sql.tiff.rows import RowAccess, row_access, row_bytes
from rasteret_sql.units import Affine, Window

_GAP_BYTES = 16
_REQUEST_BYTES = 2 << 20
_REQUEST_PIXEL_BYTES = 32 << 20
"""Decoded bytes of a request: all its tiles are in memory at once, however well compressed."""
_ROWS_AT_ONCE = 1 << 14
_GRID_TOLERANCE = 1e-3
"""Pixels: by how much grids of one scene may differ and still count as the same."""

_MOST_SQUARES = 1 << 20
_BORDER = 2e-6
"""Pixels: a target that reaches less far into a square only borders on it."""

DATA, MASK = 0, 1


@dataclass(frozen=True)
class Clip:
    """Which pixels are wanted at all: between which places, ends included.

    Attributes:
        row: Row of the level.
        col: Column of the level.
        x: Pixel centre in CRS units; looked at where the grid has no rotation.
        y: Likewise.
    """

    row: tuple[float, float] = (-math.inf, math.inf)
    col: tuple[float, float] = (-math.inf, math.inf)
    x: tuple[float, float] = (-math.inf, math.inf)
    y: tuple[float, float] = (-math.inf, math.inf)

    def window(self, grid: Grid) -> list[int]:
        """Rows and columns of a grid that may be wanted."""
        rows, cols = [self.row], [self.col]
        affine = grid.affine
        if affine is not None and affine.is_rectilinear and affine.a and affine.e:
            cols.append(_in_pixels(self.x, affine.c, affine.a))
            rows.append(_in_pixels(self.y, affine.f, affine.e))
        return [*_whole(rows, grid.height), *_whole(cols, grid.width)]


def _in_pixels(span: tuple[float, float], origin: float, size: float) -> tuple[float, float]:
    """Places between two map coordinates, with a pixel on either side."""
    low, high = sorted((edge - origin) / size for edge in span)
    return low - 2, high + 1


def _whole(spans: Sequence[tuple[float, float]], size: int) -> tuple[int, int]:
    low = min(max(0.0, *(low for low, _ in spans)), size)
    high = max(min(size - 1.0, *(high for _, high in spans)), -1.0)
    return math.ceil(low), math.floor(high) + 1


class Granularity(Enum):
    """What a unit is."""

    WINDOW = "all bands of a scene under a target"
    BLOCK = "the part of that in one tile of the first band"
    TILE = "a tile of a band"


class Lattice(NamedTuple):
    """Squares over a whole raster; see `Planner.lattice_origins` for where the first one lies.

    Attributes:
        size: Rows and columns of each.
        stride: Pixels from one to the next.
    """

    size: int
    stride: int


@dataclass(frozen=True)
class Failure:
    """Something that can't be planned.

    Attributes:
        scene: Its row in the table.
        band: None where it is all bands.
        error: Why.
    """

    scene: int
    band: str | None
    error: RasteretError


class Units(NamedTuple):
    """Units in delivery order; arrays of one length.

    Attributes:
        scene: Row of the scene in the table.
        target: Number of the target, -1 without one.
        band: Number of the band in `TilePlan.bands`; -1 where the unit is of all bands.
        grid: Number of the grid that ``window`` is on.
        window: Rows and columns, (n, 4).
        is_whole: Whether every pixel of the window counts.
    """

    scene: Ints
    target: Ints
    band: Ints
    grid: Ints
    window: Ints
    is_whole: Mask


class Needs(NamedTuple):
    """Pieces of tiles that units are put together from, sorted by unit; arrays of one length.

    Attributes:
        unit: Number of the unit.
        band: Number of the band.
        role: `DATA` or `MASK`.
        kind: Number of the kind in the scene table.
        tile: Number of the tile in `Tiles`; -1 of a sparse one.
        tile_row: Row of blocks of the level.
        tile_col: Column of blocks of the level.
        window: Pixels of the piece, (n, 4), in the image.
    """

    unit: Ints
    band: Ints
    role: Ints
    kind: Ints
    tile: Ints
    tile_row: Ints
    tile_col: Ints
    window: Ints


class Tiles(NamedTuple):
    """Distinct tiles to fetch and decode; arrays of one length.

    Attributes:
        file: Number of the file in the scene table.
        band: A band that it is read for.
        scene: A scene that it is read for.
        kind: Number of the kind.
        byte_offset: First byte of the block.
        byte_count: Bytes of the block.
        rows: Rows that the block has (the last strip may be short).
        part: Number of the part, 0 of a block that is not large.
        first_row: First row of the block that is needed, or that decoding starts with.
        stop_row: Behind the last one.
        fetch_start: First byte that is requested.
        fetch_stop: Behind the last one.
        request: Number of the request; neighbours share one.
    """

    file: Ints
    band: Ints
    scene: Ints
    kind: Ints
    byte_offset: Ints
    byte_count: Ints
    rows: Ints
    part: Ints
    first_row: Ints
    stop_row: Ints
    fetch_start: Ints
    fetch_stop: Ints
    request: Ints


@dataclass(frozen=True, eq=False)
class TilePlan:
    """The plan of some scenes.

    Attributes:
        table: The scenes.
        bands: Names of the bands that are read.
        level: Image level.
        failures: What can't be planned, by scene; a plan for 'error' has none.
        levels: Level of each scene by band, where units are on another grid than the bands.
    """

    table: SceneTable
    bands: tuple[str, ...]
    level: int
    units: Units
    needs: Needs
    tiles: Tiles
    failures: tuple[Failure, ...] = ()
    levels: dict[str, Ints] | None = None

    @property
    def fetched_bytes(self) -> int:
        """Bytes that its requests fetch; parts of a block that comes in order are one."""
        tiles = self.tiles
        size = tiles.fetch_stop - tiles.fetch_start
        first = np.ones(len(size), bool)
        first[1:] = (np.diff(tiles.file) != 0) | (np.diff(tiles.fetch_start) != 0)
        return int(size[first].sum())

    @cached_property
    def first_need(self) -> Ints:
        """Where the needs of each unit begin, and the end of the last one's."""
        return np.searchsorted(self.needs.unit, np.arange(len(self.units.scene) + 1))


class Jobs(NamedTuple):
    """Windows to read; arrays of one length."""

    scene: Ints
    target: Ints
    grid: Ints
    window: Ints
    is_whole: Mask

    def take(self, chosen: NDArray[np.generic]) -> Jobs:
        """Some of them."""
        return Jobs(*(column[chosen] for column in self))


class Asked(NamedTuple):
    """Windows of one band that units need.

    Attributes:
        name: Of the band.
        jobs: The windows, each of one scene, on the grid of the band's level.
        unit: Number of the unit that needs each; None where they are the units, one by one.
        level: Image level; None for that of the request.
    """

    name: str
    jobs: Jobs
    unit: Ints | None = None
    level: int | None = None


class _Cells(NamedTuple):
    """Blocks, or slabs of them, under windows; arrays of one length, by job, row by row."""

    job: Ints
    tile_row: Ints
    part: Ints
    tile_col: Ints
    top: Ints
    bottom: Ints
    left: Ints
    right: Ints

    @property
    def windows(self) -> Ints:
        """Rows and columns of each, (n, 4)."""
        return np.column_stack([self.top, self.bottom, self.left, self.right])


@dataclass(frozen=True, eq=False)
class Usable:
    """A level of a band: in which scenes it can be read."""

    level: LevelTable | None
    is_usable: Mask


class Planner:
    """Plans reads of one form.

    Args:
        request: What to read.
        footprints: Of the targets.
        granularity: What a unit is.
        bands: Bands that are fetched: those of the request, or fewer.
        aligned: Whether all bands must lie on one grid; else each is read on its own.
        clip: Which pixels are wanted at all.
        crop: Windows of the targets; else whole rasters, as far as a target touches them.
        whole_windows: Whether tiles of a window that its target does not touch are read too.
        per_band: Whether failures are told for each band; else one for each record.
        at_once: Tiles, about, in a plan.
        lattice: Instead of the window of a target, the whole squares that the target meets.
    """

    def __init__(
        self,
        request: ReadRequest,
        footprints: Footprints,
        granularity: Granularity,
        *,
        bands: Sequence[str] | None = None,
        aligned: bool = True,
        clip: Clip | None = None,
        crop: bool = True,
        whole_windows: bool = False,
        per_band: bool = False,
        at_once: int = _ROWS_AT_ONCE,
        lattice: Lattice | None = None,
    ) -> None:
        self.request = request
        self.footprints = footprints
        self._granularity = granularity
        self.bands = tuple(request.bands if bands is None else bands)
        self._aligned = aligned
        self._clip = clip
        self._crop = crop
        self.whole_windows = whole_windows
        self._per_band = per_band or granularity is Granularity.TILE
        self.at_once = at_once
        self.lattice = lattice

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """Plan the scenes of a table, some at a time.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        usable = {name: self._usable(table, name) for name in table.bands}
        if self.request.masked:  # numbers their kinds and grids too
            for name in self.bands:
                table.bands[name].mask(self.request.level)
        failures = self._failures(table, usable)
        if self._granularity is Granularity.TILE or not self._aligned:
            asked: list[tuple[str | None, list[str], Ints]] = [
                (name, [name], self._grids(table, usable, [name])) for name in self.bands
            ]
        else:
            grids = self._grids(table, usable, self.request.bands)
            self._check_grids(table, usable, grids)
            asked = [(None, list(self.bands), grids)]
        readings = []
        for band, names, grids in asked:
            wanted = np.unique(grids[grids >= 0])
            pairs, errors = self.footprints.pairs(table.grids, wanted)
            failures += self._errors_of_grids(table, grids, errors, band)
            readings.append(
                _Reading(band, names, grids, pairs, *_ranges(pairs.grid, len(table.grids)))
            )
        for start, stop in self._slices(table, usable, readings):
            own = [one for one in failures if start <= one.scene < stop]
            yield from self._slice(table, usable, readings, np.arange(start, stop), own)

    def of_units(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        units: Units,
        asked: Sequence[tuple[str, Units, Ints]],
        failures: list[Failure],
    ) -> TilePlan:
        """The plan of units that the caller made.

        Args:
            table: The scenes.
            usable: In which scenes each band can be read.
            units: In delivery order.
            asked: For each band: its name, windows that are needed, each of one scene, and
                the number of the unit that needs it.
            failures: What can't be planned.
        """
        own = [
            Asked(name, Jobs(w.scene, w.target, w.grid, w.window, w.is_whole), unit)
            for name, w, unit in asked
        ]
        return _Slice(self, table, usable, np.unique(units.scene)).assembled(units, own, failures)

    def of_jobs(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        jobs: Jobs,
        asked: Sequence[Asked],
        failures: list[Failure],
    ) -> TilePlan:
        """The plan of units that are windows, which need windows on other grids."""
        plan = _Slice(self, table, usable, np.unique(jobs.scene))
        return plan.assembled(_units(jobs), asked, failures)

    def windows(self, table: SceneTable, grids: Ints) -> tuple[Jobs, dict[int, InputError]]:
        """The windows of targets on one grid of each scene, -1 for none, by scene.

        Returns:
            The windows, and the errors of grids that have no place on the map of the targets.
        """
        pairs, errors = self.footprints.pairs(table.grids, np.unique(grids[grids >= 0]))
        reading = _Reading(None, [], grids, pairs, *_ranges(pairs.grid, len(table.grids)))
        return self._jobs(table, reading, np.arange(table.n_scenes)), errors

    def _slices(
        self, table: SceneTable, usable: dict[str, Usable], readings: list[_Reading]
    ) -> Iterator[tuple[int, int]]:
        """Runs of scenes with a bounded number of windows and tiles."""
        kinds = _KindColumns.of(table.kinds)
        n_tiles = np.ones(table.n_scenes)
        for one in readings:
            kind = self._reference(usable, one.names, table.n_scenes)
            there = np.flatnonzero((one.grids >= 0) & (kind >= 0))
            grid, kind = one.grids[there], kind[there]
            high = np.diff(one.pairs.window[:, :2])[:, 0]
            wide = np.diff(one.pairs.window[:, 2:])[:, 0]
            area, high, wide = (
                np.bincount(one.pairs.grid, weights, len(table.grids))[grid]
                for weights in (high * wide, high, wide)
            )
            tall, broad = kinds.tile_height[kind], kinds.tile_width[kind]
            estimate = area / (tall * broad) + high / tall + wide / broad + one.n_pairs[grid]
            if self.lattice is not None:
                size, stride = self.lattice
                estimate += area / stride**2 * (1 + size / tall) * (1 + size / broad)
            n_tiles[there] += estimate * len(one.names)
        run = np.cumsum(n_tiles) // self.at_once
        edges = np.flatnonzero(np.diff(run, prepend=-1, append=-1))
        yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)

    def _slice(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        readings: list[_Reading],
        scenes: Ints,
        failures: list[Failure],
    ) -> Iterator[TilePlan]:
        plan = _Slice(self, table, usable, scenes)
        if self._granularity is Granularity.TILE:
            jobs = [(band, self._jobs(table, one, scenes)) for band, one in enumerate(readings)]
            yield plan.of_tiles(jobs, failures)
            return
        (first, *others) = readings
        windows = self._jobs(table, first, scenes)
        if self._granularity is Granularity.WINDOW:
            more = [self._jobs(table, one, scenes) for one in others]
            yield plan.of_windows(windows, more, failures)
            return
        told = False
        for blocks in plan.blocks(
            windows, self._reference(usable, self.request.bands, table.n_scenes)
        ):
            yield plan.of_blocks(blocks, [] if told else failures)
            told = True
        if failures and not told:
            yield plan.of_blocks(windows, failures)

    def _jobs(self, table: SceneTable, one: _Reading, scenes: Ints) -> Jobs:
        """The windows of some scenes: of a scene, in the order of tiles."""
        grids = one.grids[scenes]
        there = grids >= 0
        scenes, grids = scenes[there], grids[there]
        of, place = _spread(one.first[grids], one.n_pairs[grids])
        window = one.pairs.window[place]
        if self._clip is not None:
            wanted = np.array([self._clip.window(grid) for grid in table.grids], np.int64)[
                grids[of]
            ]
            window = np.column_stack(
                [
                    np.maximum(window[:, 0], wanted[:, 0]),
                    np.minimum(window[:, 1], wanted[:, 1]),
                    np.maximum(window[:, 2], wanted[:, 2]),
                    np.minimum(window[:, 3], wanted[:, 3]),
                ]
            )
        jobs = Jobs(
            scenes[of], one.pairs.target[place], grids[of], window, one.pairs.is_whole[place]
        )
        if self._granularity is Granularity.WINDOW:
            jobs = self._touched(table, jobs)
            if self.lattice is not None:
                jobs = self._squares(table, jobs, self.lattice)
            window = jobs.window
        some = (window[:, 0] < window[:, 1]) & (window[:, 2] < window[:, 3])
        return jobs if some.all() else jobs.take(some)

    def _touched(self, table: SceneTable, jobs: Jobs) -> Jobs:
        """Without targets whose bounds alone reach into a raster; whole rasters if not cropped."""
        sizes = _sizes(table)[jobs.grid]
        window = jobs.window
        at_border = (window[:, [0, 2]] == 0).any(axis=1)
        at_border |= (window[:, 1] == sizes[:, 1]) | (window[:, 3] == sizes[:, 0])
        check = np.flatnonzero(at_border & ~jobs.is_whole & (jobs.target >= 0))
        keep = np.ones(len(jobs.scene), bool)
        boxes = window[check][:, [2, 0, 3, 1]].astype(np.float64)
        keep[check] = touched(self.footprints, table, jobs.grid[check], jobs.target[check], boxes)
        if not self._crop:
            whole = np.column_stack([0 * sizes[:, 1], sizes[:, 1], 0 * sizes[:, 0], sizes[:, 0]])
            jobs = jobs._replace(window=whole, is_whole=jobs.target < 0)
        return jobs if keep.all() else jobs.take(keep)

    def _squares(self, table: SceneTable, jobs: Jobs, lattice: Lattice) -> Jobs:
        """The squares that targets meet and that lie in the raster; of a scene, row by row."""
        size, stride = lattice
        sizes, window = _sizes(table)[jobs.grid], jobs.window
        origin = self.lattice_origins(table, stride)[jobs.grid]
        first, count = [], []
        for low, high, length in (
            (window[:, 0] - origin[:, 0], window[:, 1] - origin[:, 0], sizes[:, 1] - origin[:, 0]),
            (window[:, 2] - origin[:, 1], window[:, 3] - origin[:, 1], sizes[:, 0] - origin[:, 1]),
        ):
            begin = np.maximum((low - size) // stride + 1, 0)
            end = np.minimum((high - 1) // stride, (length - size) // stride)
            first.append(begin)
            count.append(np.maximum(end - begin + 1, 0))
        n_squares = count[0] * count[1]
        if len(n_squares) and n_squares.max() > _MOST_SQUARES:
            raise InputError.expected(
                "stride",
                f"at most {_MOST_SQUARES} squares of a record",
                int(n_squares.max()),
                "take a longer stride, or a smaller area",
            )
        job, place = _spread(np.zeros(len(n_squares), np.int64), n_squares)
        top = (first[0][job] + place // count[1][job]) * stride + origin[job, 0]
        left = (first[1][job] + place % count[1][job]) * stride + origin[job, 1]
        squares = np.column_stack([top, top + size, left, left + size])
        check = np.flatnonzero((~jobs.is_whole & (jobs.target >= 0))[job])
        keep = np.ones(len(job), bool)
        inner = squares[check][:, [2, 0, 3, 1]] + [_BORDER, _BORDER, -_BORDER, -_BORDER]
        keep[check] = touched(
            self.footprints, table, jobs.grid[job[check]], jobs.target[job[check]], inner
        )
        jobs = jobs.take(job[keep])._replace(
            window=squares[keep], is_whole=np.ones(int(keep.sum()), bool)
        )
        order = np.lexsort((jobs.target, jobs.window[:, 2], jobs.window[:, 0], jobs.scene))
        return jobs.take(order)

    def lattice_origins(self, table: SceneTable, _stride: int) -> Ints:
        """First row and column of the lattice in each grid: the upper left corner."""
        return np.zeros((len(table.grids), 2), np.int64)

    def _reference(self, usable: dict[str, Usable], names: Sequence[str], n_scenes: int) -> Ints:
        """Kind of the first band that a scene has, which says how its windows are cut."""
        kinds = np.full(n_scenes, -1, np.int64)
        for name in reversed(names):
            level = usable[name].level
            if level is not None:
                kinds = np.where(usable[name].is_usable, level.kind, kinds)
        return kinds

    def _usable(self, table: SceneTable, name: str) -> Usable:
        band = table.bands[name]
        level = band.level(self.request.level)
        if level is None:
            return Usable(None, np.zeros(table.n_scenes, bool))
        is_usable = band.is_present & (level.grid >= 0)
        if table.chosen is not None:
            is_usable &= table.chosen
        kinds = np.unique(level.kind[is_usable])
        for kind in kinds.tolist():
            try:
                check_supported(table.kinds[kind].format)
            except UnsupportedTiffError as error:
                refused = is_usable & (level.kind == kind)
                for scene in np.flatnonzero(refused).tolist():
                    table.faults[scene, name] = UnsupportedTiffError(
                        f"record {table.id_of(scene)}, band {name}: {error.message}"
                    )
                is_usable &= ~refused
        return Usable(level, is_usable)

    def _grids(self, table: SceneTable, usable: dict[str, Usable], names: Sequence[str]) -> Ints:
        """Grid of each scene: that of the first of some bands it has; -1 without any."""
        grids = np.full(table.n_scenes, -1, np.int64)
        for name in reversed(names):
            level = usable[name].level
            if level is not None:
                grids = np.where(usable[name].is_usable, level.grid, grids)
        return grids

    def _check_grids(self, table: SceneTable, usable: dict[str, Usable], grids: Ints) -> None:
        for name in self.bands:
            level = usable[name].level
            if level is None:
                continue
            differs = usable[name].is_usable & (level.grid != grids)
            for own, other in {
                (int(level.grid[s]), int(grids[s])) for s in np.flatnonzero(differs)
            }:
                if _is_same_grid(table.grids[own], table.grids[other]):
                    continue
                scene = int(np.flatnonzero(differs & (level.grid == own) & (grids == other))[0])
                first = next(n for n in self.request.bands if usable[n].is_usable[scene])
                raise InputError.expected(
                    f"record {table.id_of(scene)}, band {name}",
                    f"the grid of band {first} ({_grid_text(table.grids[other])})",
                    _grid_text(table.grids[own]),
                    "read bands of unlike resolution in separate calls, "
                    "or with rasteret_read(…, align := 'band')",
                )

    def _failures(self, table: SceneTable, usable: dict[str, Usable]) -> list[Failure]:
        """Bands that can't be read; all of them together where none can."""
        may_fail = self.request.on_error != "error"
        failures: list[Failure] = []
        chosen = np.ones(table.n_scenes, bool) if table.chosen is None else table.chosen
        nothing = chosen & ~np.any([one.is_usable for one in usable.values()], axis=0)
        if not may_fail and nothing.any():
            raise self._why(table, int(nothing.argmax()), self.request.bands[0])
        if not self._per_band:
            failures += [
                Failure(scene, None, self._why_nothing(table, scene))
                for scene in np.flatnonzero(nothing).tolist()
            ]
        for name in self.bands:
            for scene in np.flatnonzero(chosen & ~usable[name].is_usable).tolist():
                error = self._why(table, scene, name)
                if not may_fail:
                    raise error
                if self._per_band:
                    failures.append(Failure(scene, name, error))
                elif table.bands[name].is_present[scene]:
                    table.faults[scene, name] = error
        return failures

    def _why_nothing(self, table: SceneTable, scene: int) -> RasteretError:
        """Why no band of a scene can be read: what its files or grids said, if anything."""
        for name in self.request.bands:
            if (scene, name) in table.faults or table.bands[name].is_present[scene]:
                return self._why(table, scene, name)
        return CollectionError("; ".join(f"{name}: no header" for name in self.request.bands))

    def _why(self, table: SceneTable, scene: int, name: str) -> RasteretError:
        band = table.bands[name]
        if band.is_present[scene] and (scene, name) not in table.faults:
            return InputError.expected(
                f"record {table.id_of(scene)}, band {name}",
                f"a level of at most {band.n_levels(scene) - 1}",
                self.request.level,
                "0 is full resolution, 1 the largest overview",
            )
        return table.missing(scene, name)

    def _errors_of_grids(
        self, table: SceneTable, grids: Ints, errors: dict[int, InputError], band: str | None
    ) -> list[Failure]:
        failures = []
        for number, error in errors.items():
            for scene in np.flatnonzero(grids == number).tolist():
                told = InputError(f"record {table.id_of(scene)}: {error.message}")
                if self.request.on_error == "error":
                    raise told
                if band is not None and not self._per_band:
                    table.faults[scene, band] = told
                    continue
                failures.append(Failure(scene, band, told))
        return failures


class _Reading(NamedTuple):
    """Windows of all targets for some bands, which share a grid in each scene.

    Attributes:
        band: The band; None where it is all bands.
        names: The bands.
        grids: Grid of each scene, -1 without one.
        pairs: Grids and targets, sorted by grid.
        first: Where the pairs of each grid begin.
        n_pairs: How many there are.
    """

    band: str | None
    names: list[str]
    grids: Ints
    pairs: Pairs
    first: Ints
    n_pairs: Ints


class _Slice:
    """Plans of some scenes of a table."""

    def __init__(
        self, planner: Planner, table: SceneTable, usable: dict[str, Usable], scenes: Ints
    ) -> None:
        self._request = planner.request
        self._footprints = planner.footprints
        self._at_once = planner.at_once
        self._whole_windows = planner.whole_windows
        self._bands = planner.bands
        self._table = table
        self._usable = usable
        self._scenes = scenes
        self._kinds = _KindColumns.of(table.kinds)

    def blocks(self, windows: Jobs, kinds: Ints) -> Iterator[Jobs]:
        """Windows cut where blocks of the first band end, a bounded number of them at a time."""
        kind = kinds[windows.scene]
        n_blocks = self._kinds.count(kind, windows.window, is_delivery=True)
        runs = np.cumsum(n_blocks) // self._at_once
        scene_run = np.maximum.accumulate(_last_of(windows.scene, runs)) if len(runs) else runs
        edges = np.flatnonzero(np.diff(scene_run, prepend=-1, append=-1))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            some = windows.take(np.arange(start, stop))
            if n_blocks[start:stop].sum() <= 4 * self._at_once:
                yield self._cut(some, kind[start:stop])
                continue
            for one in range(start, stop):  # a file that declares many blocks
                for rows in self._kinds.row_bands(
                    int(kind[one]), Window(*windows.window[one].tolist()), self._at_once
                ):
                    part = windows.take(np.array([one]))._replace(window=np.array([rows]))
                    yield self._cut(part, kind[one : one + 1])

    def _cut(self, windows: Jobs, kind: Ints) -> Jobs:
        cells = self._cells(windows, kind, is_delivery=True)
        jobs = windows.take(cells.job)._replace(window=cells.windows)
        order = np.lexsort((jobs.target, cells.tile_col, cells.part, cells.tile_row, jobs.scene))
        return jobs.take(order)

    def of_blocks(self, blocks: Jobs, failures: list[Failure]) -> TilePlan:
        """A unit for each block of the first band."""
        return self.assembled(_units(blocks), [Asked(n, blocks) for n in self._bands], failures)

    def of_windows(self, windows: Jobs, others: list[Jobs], failures: list[Failure]) -> TilePlan:
        """A unit for each scene and target, of all bands."""
        units = _units(windows)
        if not others:
            return self.assembled(units, [Asked(n, windows) for n in self._bands], failures)
        order = {pair: n for n, pair in enumerate(_pairs_of(windows))}
        for jobs in others:
            for place, pair in enumerate(_pairs_of(jobs)):
                if pair not in order:  # a band whose grid the area meets alone
                    order[pair] = len(order)
                    units = _appended(units, _units(jobs.take(np.array([place]))))
        asked = [
            Asked(name, jobs, np.array([order[pair] for pair in _pairs_of(jobs)], np.int64))
            for name, jobs in zip(self._bands, [windows, *others], strict=True)
        ]
        return self.assembled(units, asked, failures)

    def of_tiles(self, jobs: list[tuple[int, Jobs]], failures: list[Failure]) -> TilePlan:
        """A unit for each tile of each band."""
        parts: list[Jobs] = []
        numbers: list[Ints] = []
        for number, windows in jobs:
            level = self._usable[self._bands[number]].level
            if level is None:
                continue
            cells = self._cells(windows, level.kind[windows.scene], whole_tiles=True)
            parts.append(windows.take(cells.job)._replace(window=cells.windows))
            numbers.append(np.full(len(cells.job), number, np.int64))
        if not parts:
            parts, numbers = [_no_jobs()], [np.empty(0, np.int64)]
        tiles = Jobs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        band = np.concatenate(numbers)
        # Several targets may need the same tile, which is one unit.
        columns = (tiles.window[:, 2], tiles.window[:, 0], band, tiles.scene)
        order = np.lexsort(columns)
        keys = np.column_stack([column[order] for column in columns])
        new = np.append(True, (np.diff(keys, axis=0) != 0).any(axis=1))[: len(order)]
        tiles, band = tiles.take(order[new]), band[order[new]]
        tiles = tiles._replace(
            target=np.full(len(band), -1, np.int64), is_whole=np.ones(len(band), bool)
        )
        asked = []
        for number, name in enumerate(self._bands):
            own = np.flatnonzero(band == number)
            asked.append(Asked(name, tiles.take(own), own))
        return self.assembled(_units(tiles)._replace(band=band), asked, failures)

    def assembled(
        self,
        units: Units,
        asked: Sequence[Asked],
        failures: list[Failure],
    ) -> TilePlan:
        """Needs and tiles of units."""
        found = []
        for name, jobs, unit, own_level in asked:
            number = self._bands.index(name)
            band = self._table.bands[name]
            usable = self._usable[name]
            n_level = self._request.level if own_level is None else own_level
            for role in (DATA, MASK) if self._request.masked else (DATA,):
                level = band.mask(n_level) if role == MASK else band.level(n_level)
                if level is None:
                    continue
                there = usable.is_usable[jobs.scene] & (level.grid[jobs.scene] >= 0)
                chosen = np.flatnonzero(there)
                own = jobs if len(chosen) == len(there) else jobs.take(chosen)
                of = chosen if unit is None else unit[chosen]
                found.append(self._needs(number, name, role, level, own, of))
        return _plan_of(
            self._table, self._bands, self._request.level, units, found, failures, self._kinds
        )

    def _needs(
        self, number: int, name: str, role: int, level: LevelTable, jobs: Jobs, unit: Ints
    ) -> _Pieces:
        kind = level.kind[jobs.scene]
        cells = self._cells(jobs, kind)
        scene = jobs.scene[cells.job]
        kind = kind[cells.job]
        sizes = _sizes(self._table)
        across = -(-sizes[level.grid[scene], 0] // self._kinds.tile_width[kind])
        index = cells.tile_row * across + cells.tile_col
        beyond = index >= level.n_tiles[scene]
        if beyond.any():
            self._short_table(name, scene, index, level, beyond)
            cells, scene, kind, index = (
                _Cells(*(column[~beyond] for column in cells)),
                scene[~beyond],
                kind[~beyond],
                index[~beyond],
            )
        place = level.start[scene] + index
        height = sizes[level.grid[scene], 1]
        tile_height = self._kinds.tile_height[kind]
        is_strip = self._kinds.tile_width[kind] == sizes[level.grid[scene], 0]
        rows = np.where(
            is_strip, np.minimum(tile_height, height - cells.tile_row * tile_height), tile_height
        )
        return _Pieces(
            unit=unit[cells.job],
            band=np.full(len(scene), number, np.int64),
            role=np.full(len(scene), role, np.int64),
            kind=kind,
            scene=scene,
            file=self._table.bands[name].file[scene],
            offset=level.offsets[place],
            byte_count=level.counts[place],
            part=cells.part,
            rows=rows,
            tile_row=cells.tile_row,
            tile_col=cells.tile_col,
            window=cells.windows,
        )

    def _short_table(
        self, name: str, scene: Ints, index: Ints, level: LevelTable, beyond: Mask
    ) -> None:
        for one in np.unique(scene[beyond]).tolist():
            error = CollectionError.expected(
                f"record {self._table.id_of(one)}, band {name}",
                f"a tile table of {int(index[scene == one].max()) + 1} or more",
                int(level.n_tiles[one]),
                "build the collection again",
            )
            if self._request.on_error == "error":
                raise error
            self._table.faults[one, name] = error

    def _cells(
        self, jobs: Jobs, kind: Ints, *, is_delivery: bool = False, whole_tiles: bool = False
    ) -> _Cells:
        """Blocks under windows, but for those that no target touches."""
        cells = self._kinds.cells(kind, jobs.window, is_delivery=is_delivery, whole=whole_tiles)
        if whole_tiles:
            sizes = _sizes(self._table)
            grid = jobs.grid[cells.job]
            cells = cells._replace(
                bottom=np.minimum(cells.bottom, sizes[grid, 1]),
                right=np.minimum(cells.right, sizes[grid, 0]),
            )
        if jobs.is_whole.all() or self._whole_windows:
            return cells
        several = np.bincount(cells.job, minlength=len(jobs.scene)) > 1
        check = (several & ~jobs.is_whole & (jobs.target >= 0))[cells.job]
        if not check.any():
            return cells
        keep = np.ones(len(cells.job), bool)
        at = np.flatnonzero(check)
        boxes = [cells.left[at], cells.top[at], cells.right[at], cells.bottom[at]]
        keep[at] = touched(
            self._footprints,
            self._table,
            jobs.grid[cells.job[at]],
            jobs.target[cells.job[at]],
            np.column_stack(boxes).astype(np.float64),
        )
        return _Cells(*(column[keep] for column in cells))


class _Pieces(NamedTuple):
    """Needs, and the tiles that they are of, not yet told apart."""

    unit: Ints
    band: Ints
    role: Ints
    kind: Ints
    scene: Ints
    file: Ints
    offset: Ints
    byte_count: Ints
    part: Ints
    rows: Ints
    tile_row: Ints
    tile_col: Ints
    window: Ints


@dataclass(frozen=True, eq=False)
class _KindColumns:
    """What of kinds the planner needs, as columns."""

    kinds: list[BandKind]
    tile_height: Ints
    tile_width: Ints
    slab: Ints
    part: Ints
    is_streamed: Mask
    is_random: Mask
    is_deflate: Mask
    row_bytes: Ints
    row_size: Ints

    @classmethod
    def of(cls, kinds: list[BandKind]) -> _KindColumns:
        formats = [kind.format for kind in kinds]
        return cls(
            kinds,
            np.array([f.tile_height for f in formats], np.int64),
            np.array([f.tile_width for f in formats], np.int64),
            np.array([slab_rows(f) for f in formats], np.int64),
            np.array([part_rows(f) for f in formats], np.int64),
            np.array([is_streamed(f) for f in formats], bool),
            np.array([row_access(f) is RowAccess.ANY for f in formats], bool),
            np.array([f.compression in DEFLATE for f in formats], bool),
            np.array([row_bytes(f) for f in formats], np.int64),
            np.array([row_size(f) for f in formats], np.int64),
        )

    def _spans(
        self, kind: Ints, window: Ints, *, is_delivery: bool, whole: bool
    ) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
        height, width = self.tile_height[kind], self.tile_width[kind]
        rows = height if whole else (self.slab if is_delivery else self.part)[kind]
        per_tile = -(-height // rows)
        first = window[:, 0] // height * per_tile + window[:, 0] % height // rows
        last = (window[:, 1] - 1) // height * per_tile + (window[:, 1] - 1) % height // rows
        left, right = window[:, 2] // width, (window[:, 3] - 1) // width
        return rows, per_tile, first, last - first + 1, left, right - left + 1

    def count(self, kind: Ints, window: Ints, *, is_delivery: bool) -> Ints:
        """Blocks or slabs under each window."""
        _, _, _, down, _, across = self._spans(kind, window, is_delivery=is_delivery, whole=False)
        return down * across

    def row_bands(self, kind: int, window: Window, at_once: int) -> Iterator[Window]:
        """A window cut into runs of rows of blocks."""
        one = np.array([kind])
        rows, per_tile, first, down, _, across = (
            int(column[0])
            for column in self._spans(one, np.array([window]), is_delivery=True, whole=False)
        )
        height, step = int(self.tile_height[kind]), max(1, at_once // across)
        start = window.row_start
        for slab in range(first + step, first + down + step, step):
            stop = min(slab // per_tile * height + slab % per_tile * rows, window.row_stop)
            stop = stop if slab < first + down else window.row_stop
            yield window._replace(row_start=start, row_stop=stop)
            start = stop

    def cells(self, kind: Ints, window: Ints, *, is_delivery: bool, whole: bool) -> _Cells:
        """Blocks or slabs under windows, and the part of the window in each."""
        rows, per_tile, first, down, left, across = self._spans(
            kind, window, is_delivery=is_delivery, whole=whole
        )
        job, place = _spread(np.zeros(len(kind), np.int64), down * across)
        slab = first[job] + place // across[job]
        tile_col = left[job] + place % across[job]
        tile_row, part = slab // per_tile[job], slab % per_tile[job]
        height, width = self.tile_height[kind][job], self.tile_width[kind][job]
        top = tile_row * height + part * rows[job]
        bottom = np.minimum(top + rows[job], (tile_row + 1) * height)
        start, stop = tile_col * width, (tile_col + 1) * width
        if not whole:
            top, bottom = np.maximum(top, window[job, 0]), np.minimum(bottom, window[job, 1])
            start, stop = np.maximum(start, window[job, 2]), np.minimum(stop, window[job, 3])
        return _Cells(job, tile_row, part, tile_col, top, bottom, start, stop)


def touched(
    footprints: Footprints,
    table: SceneTable,
    grid: Ints,
    target: Ints,
    boxes: NDArray[np.float64],
) -> Mask:
    """Which boxes, xmin, ymin, xmax, ymax in pixels of a grid, a target touches."""
    keep = np.ones(len(grid), bool)
    if not len(grid):
        return keep
    order = np.lexsort((target, grid))
    new = (np.diff(grid[order]) != 0) | (np.diff(target[order]) != 0)
    edges = np.flatnonzero(np.append(True, new))
    for start, stop in zip(edges, [*edges[1:], len(order)], strict=True):
        at = order[start:stop]
        first = at[0]
        keep[at] = footprints.touched(table.grids[int(grid[first])], int(target[first]), boxes[at])
    return keep


def _sizes(table: SceneTable) -> Ints:
    """Width and height of each grid."""
    return np.array([(g.width, g.height) for g in table.grids] or [(1, 1)], np.int64)


def _plan_of(
    table: SceneTable,
    bands: tuple[str, ...],
    level: int,
    units: Units,
    found: list[_Pieces],
    failures: list[Failure],
    kinds: _KindColumns,
) -> TilePlan:
    """Sort the needs by unit, tell tiles apart, number requests."""
    if not found:
        nothing = np.empty(0, np.int64)
        found = [_Pieces._make([*[nothing] * 12, np.empty((0, 4), np.int64)])]
    joined = found[0]
    if len(found) > 1:
        joined = _Pieces(*(np.concatenate(column) for column in zip(*found, strict=True)))
        order = np.argsort(joined.unit, kind="stable")
        joined = _Pieces(*(column[order] for column in joined))
    elif len(joined.unit) and (np.diff(joined.unit) < 0).any():
        order = np.argsort(joined.unit, kind="stable")
        joined = _Pieces(*(column[order] for column in joined))
    tile, tiles = _tiles_of(joined, kinds)
    needs = Needs(
        joined.unit,
        joined.band,
        joined.role,
        joined.kind,
        tile,
        joined.tile_row,
        joined.tile_col,
        joined.window,
    )
    return TilePlan(table, bands, level, units, needs, tiles, tuple(failures))


def _tiles_of(pieces: _Pieces, kinds: _KindColumns) -> tuple[Ints, Tiles]:
    """Number of the tile of each piece, -1 of a sparse one; and the tiles."""
    tile = np.full(len(pieces.unit), -1, np.int64)
    stored = np.flatnonzero(pieces.byte_count > 0)
    keys = (pieces.part[stored], pieces.offset[stored], pieces.file[stored])
    order = np.lexsort(keys)
    sorted_keys = [key[order] for key in keys]
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = np.any([np.diff(key) != 0 for key in sorted_keys], axis=0)
    first = np.flatnonzero(new)
    tile[stored[order]] = np.cumsum(new) - 1
    at = stored[order]
    top = pieces.tile_row[at] * kinds.tile_height[pieces.kind[at]]
    start, stop = pieces.window[at, 0] - top, pieces.window[at, 1] - top
    if len(first):
        start = np.minimum.reduceat(start, first)
        stop = np.maximum.reduceat(stop, first)
    at = at[first]
    kind, offset, count = pieces.kind[at], pieces.offset[at], pieces.byte_count[at]
    is_random, is_streamed_ = kinds.is_random[kind], kinds.is_streamed[kind]
    start = np.where(is_random | is_streamed_, start, 0)
    fetch_start, fetch_stop = offset.copy(), offset + count
    size = kinds.row_bytes[kind]
    fetch_start = np.where(
        is_random, np.minimum(offset + start * size, offset + count - 1), fetch_start
    )
    fetch_stop = np.where(is_random, np.minimum(offset + count, offset + stop * size), fetch_stop)
    rows = pieces.rows[at]
    guess = prefix_bytes(count, rows, stop)
    is_short = kinds.is_deflate[kind] & ~is_streamed_ & (stop < rows) & (guess < count)
    fetch_stop = np.where(is_short, offset + guess, fetch_stop)
    return tile, Tiles(
        pieces.file[at],
        pieces.band[at],
        pieces.scene[at],
        kind,
        offset,
        count,
        rows,
        pieces.part[at],
        start,
        stop,
        fetch_start,
        fetch_stop,
        _request_numbers(
            pieces.file[at],
            fetch_start,
            fetch_stop,
            (stop - start) * kinds.row_size[kind],
            is_streamed_,
        ),
    )


def _request_numbers(
    file: Ints, start: Ints, stop: Ints, pixel_bytes: Ints, is_alone: Mask
) -> Ints:
    """Neighbours in a file share a request, as far as it does not grow too long."""
    if not len(file):
        return file
    is_near = (np.diff(file) == 0) & (start[1:] <= stop[:-1] + _GAP_BYTES)
    is_near &= ~is_alone[1:] & ~is_alone[:-1]
    run = np.cumsum(np.append(True, ~is_near))
    first = np.searchsorted(run, run)
    piece = (stop - start[first] - 1) // _REQUEST_BYTES
    decoded = np.cumsum(pixel_bytes)
    share = (decoded - (decoded - pixel_bytes)[first] - 1) // _REQUEST_PIXEL_BYTES
    new = np.append(True, (np.diff(run) != 0) | (np.diff(piece) != 0) | (np.diff(share) != 0))
    numbers: Ints = np.cumsum(new) - 1
    return numbers


def _spread(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Number of the range, and each integer in it, for ranges of these lengths."""
    of = np.repeat(np.arange(len(count)), count)
    begin = np.cumsum(count) - count
    return of, np.arange(len(of)) - begin[of] + first[of]


def _last_of(group: Ints, values: Ints) -> Ints:
    """The value of the last of each run of equal groups, for all of the run."""
    ends = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    of_group: Ints = values[ends][np.searchsorted(ends, np.arange(len(group)))]
    return of_group


def _units(jobs: Jobs) -> Units:
    band = np.full(len(jobs.scene), -1, np.int64)
    return Units(jobs.scene, jobs.target, band, jobs.grid, jobs.window, jobs.is_whole)


def _appended(units: Units, more: Units) -> Units:
    return Units(*(np.concatenate(columns) for columns in zip(units, more, strict=True)))


def _pairs_of(jobs: Jobs) -> list[tuple[int, int]]:
    return list(zip(jobs.scene.tolist(), jobs.target.tolist(), strict=True))


def _no_jobs() -> Jobs:
    nothing = np.empty(0, np.int64)
    return Jobs(nothing, nothing, nothing, np.empty((0, 4), np.int64), np.empty(0, bool))


def _ranges(grid: Ints, n_grids: int) -> tuple[Ints, Ints]:
    edges = np.searchsorted(grid, np.arange(n_grids + 1))
    return edges[:-1], np.diff(edges)


def _is_same_grid(a: Grid, b: Grid) -> bool:
    return (a.width, a.height) == (b.width, b.height) and _is_close(a.affine, b.affine)


def _is_close(a: Affine | None, b: Affine | None) -> bool:
    if a is None or b is None:
        return a is b
    limit = _GRID_TOLERANCE * abs(a.determinant) ** 0.5
    return bool(np.allclose(a, b, rtol=0, atol=limit))


def _grid_text(grid: Grid) -> str:
    return f"{grid.width} x {grid.height} px"
