"""What a plan of a read is made of: units, the pieces of tiles they need, and the tiles.

A *tile* is a block of a file, or a part of a large one. A *unit* is what an output makes at
once: a window of a scene under a target, a tile, or the part of a window in one tile. The
same plan is shown by ``rasteret_plan``, summed for ``max_bytes`` and run by the pipeline.
`planner` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import RasteretError
from rasteret_sql.reading.bands import LevelTable
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.scenes import Grid, SceneTable

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
        first_row: First row of the block that is needed.
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

    def fetched_bytes(self, chosen: Mask | None = None) -> int:
        """Bytes that its requests fetch; parts of a block that comes in order are one.

        Args:
            chosen: The needs whose tiles are counted; None for all tiles.
        """
        tiles = self.tiles
        size = tiles.fetch_stop - tiles.fetch_start
        is_counted = np.ones(len(size), bool)
        is_counted[1:] = (np.diff(tiles.file) != 0) | (np.diff(tiles.fetch_start) != 0)
        if chosen is not None:
            numbers = self.needs.tile[chosen]
            is_new = np.zeros(len(size), bool)
            is_new[numbers[numbers >= 0]] = True
            is_counted &= is_new
        return int(size[is_counted].sum())

    @property
    def share(self) -> float:
        """Share of all scenes of the read through its last one.

        0 where that is not known: the table is a batch of many, or the plan has no units.
        """
        chosen, scenes = self.table.chosen, self.units.scene
        if chosen is None or not len(scenes):
            return 0.0
        return float(chosen[: int(scenes.max()) + 1].sum() / chosen.sum())

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

    @classmethod
    def none(cls) -> Jobs:
        """No window."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, nothing, nothing, np.empty((0, 4), np.int64), np.empty(0, bool))


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


@dataclass(frozen=True, eq=False)
class Usable:
    """A level of a band: in which scenes it can be read."""

    level: LevelTable | None
    is_usable: Mask


def units_of(jobs: Jobs) -> Units:
    """Windows as units of all bands."""
    band = np.full(len(jobs.scene), -1, np.int64)
    return Units(jobs.scene, jobs.target, band, jobs.grid, jobs.window, jobs.is_whole)
