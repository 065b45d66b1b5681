"""Which pixels of a tile are in which zone, and what each counts.

That depends on the grid alone, so scenes on one grid share it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from rasteret_sql.errors import InputError
from rasteret_sql.grid.coverage import cell_areas, coverage_of_each, length_in_cells
from rasteret_sql.grid.masks import box_covers, line_places, point_places, polygon_places
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.units import Window

Weights = Literal["center", "touched", "fraction", "area"]

Floats = NDArray[np.float64]

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
        mask_band: A band that tells where values are not to be used.
        mask_values: Values of it that say so.
        min_coverage: Pixels with a smaller share inside are left out; of polygons.
    """

    stats: tuple[str, ...]
    weights: Weights = "center"
    weight_band: str | None = None
    min_coverage: float = 0.0
    mask_band: str | None = None
    mask_values: tuple[float, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether pixels count by their share inside."""
        return self.weights in ("fraction", "area")


class ZonePixels(NamedTuple):
    """The pixels of zones in a window, zone by zone; arrays of one length but `sizes`.

    Attributes:
        sizes: Pixels of each zone of the piece.
        flat: Place in the flattened window; None where it is each pixel once.
        coverage: Share inside, or length of a line in the pixel; None where all are 1.
        area: In square metres; None where it is not needed or not known.
    """

    sizes: Ints
    flat: NDArray[np.int32] | None
    coverage: NDArray[np.float32] | None
    area: Floats | None

    @property
    def unit(self) -> Ints:
        """Number of the zone in the piece, of each pixel."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values of the pixels, from those of the window."""
        line = np.ascontiguousarray(values).reshape(-1)
        return line if self.flat is None else line[self.flat]

    def take(self, chosen: Mask) -> ZonePixels:
        """Some of the pixels; a window that counts once is spelled out."""
        flat = np.arange(len(chosen), dtype=np.int32) if self.flat is None else self.flat
        return ZonePixels(
            np.bincount(self.unit[chosen], minlength=len(self.sizes)),
            flat[chosen],
            None if self.coverage is None else self.coverage[chosen],
            None if self.area is None else self.area[chosen],
        )


class _Burnt(NamedTuple):
    """Pixels of zones.

    Attributes:
        at: Places in the windows of the zones, flattened and laid end to end; ascending.
        shares: What of the zone is in each; None where all count 1.
    """

    at: Ints
    shares: NDArray[np.float32] | None = None


def _positive(shares: NDArray[np.float32]) -> _Burnt:
    at = np.flatnonzero(shares > 0)
    return _Burnt(at, shares[at])


def _told_apart(at: Ints, windows: Ints) -> tuple[Ints, NDArray[np.int32]]:
    """How many places lie in each window, and where in that each is."""
    size = (windows[:, 1] - windows[:, 0]) * (windows[:, 3] - windows[:, 2])
    ends = np.cumsum(size)
    counts = np.diff(np.searchsorted(at, ends), prepend=0)
    return counts, (at - np.repeat(ends - size, counts)).astype(np.int32)


class _Kept:
    """Pixels of zones, for the next scenes on the same grid.

    What does not fit is not kept: dropping the oldest would drop each before it is needed again.
    """

    def __init__(self) -> None:
        self._cells: dict[Grid, dict[tuple[bytes, bytes], ZonePixels]] = {}
        self._n_bytes = 0
        self._lock = threading.Lock()

    def find(self, grid: Grid, key: tuple[bytes, bytes]) -> ZonePixels | None:
        """What was kept, if it was."""
        with self._lock:
            return self._cells.get(grid, {}).get(key)

    def keep(self, grid: Grid, key: tuple[bytes, bytes], cells: ZonePixels) -> None:
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


def _n_bytes(cells: ZonePixels) -> int:
    return sum(0 if column is None else int(column.nbytes) for column in cells)


class Rasterizer:
    """Finds the pixels of zones on grids, each once, as far as memory allows.

    Args:
        footprints: Of the zones.
        options: What counts.
        has_areas: Whether areas of pixels are wanted, whatever counts.
    """

    def __init__(self, footprints: Footprints, options: ZoneOptions, *, has_areas: bool) -> None:
        self._footprints = footprints
        self._options = options
        self._has_areas = has_areas
        self._kept = _Kept()

    def pixels(
        self, grid: Grid, targets: Ints, windows: Ints, is_whole: Mask, union: Window
    ) -> ZonePixels:
        """Pixels of zones in a tile: the same for all scenes on the grid.

        Args:
            grid: Of the scene.
            targets: Number of the zone of each unit, -1 for the whole window.
            windows: Of each unit, (n, 4).
            is_whole: Whether a zone holds the centre of every pixel of its window.
            union: The window around them all, that places are told in.
        """
        key = targets.tobytes(), windows.tobytes()
        found = self._kept.find(grid, key)
        if found is None:
            found = self._made(grid, targets, windows, is_whole, union)
            self._kept.keep(grid, key, found)
        return found

    def _made(
        self, grid: Grid, targets: Ints, windows: Ints, is_whole: Mask, union: Window
    ) -> ZonePixels:
        at, shares = self._burnt(grid, targets, windows, is_whole)
        least = self._options.min_coverage
        if shares is not None and least > 0:
            keep = shares >= np.float32(least)
            at, shares = at[keep], shares[keep]
        sizes, flat = _told_apart(at, windows)
        first = (windows[:, 0] - union.row_start) * union.width + windows[:, 2] - union.col_start
        width = windows[:, 3] - windows[:, 2]
        if first.any() or (width != union.width).any():
            left_out, width, first = (
                np.repeat(column.astype(np.int32), sizes)
                for column in (union.width - width, width, first)
            )
            flat += flat // width * left_out + first
        is_once = len(sizes) == 1 and len(at) == union.height * union.width
        areas = self._areas(grid, union, flat)
        return ZonePixels(sizes, None if is_once else flat, shares, areas)

    def _burnt(self, grid: Grid, targets: Ints, windows: Ints, is_whole: Mask) -> _Burnt:
        """The pixels of all zones, each in its window."""
        covered = targets < 0
        if not self._options.is_exact:
            covered |= is_whole
        geometries = np.empty(len(targets), object)
        some = np.flatnonzero(~covered)
        if len(some):
            geometries[some] = self._footprints.geometries(grid, targets[some])
        n_dims = np.maximum(shapely.get_dimensions(geometries), 0)
        size = (windows[:, 1] - windows[:, 0]) * (windows[:, 3] - windows[:, 2])
        for unit in np.flatnonzero((n_dims == 2) & (size >= _LARGE_WINDOW)).tolist():
            window = Window(*windows[unit].tolist())
            covered[unit] = self._covers(grid, int(targets[unit]), window)
        n_dims[covered] = -1
        found = []
        for dims, burn in enumerate((self._whole, self._points, self._lines, self._polygons), -1):
            units = np.flatnonzero(n_dims == dims)
            if len(units) == len(targets):
                return burn(grid, geometries, windows)
            if len(units):
                burnt = burn(grid, geometries[units], windows[units])
                counts, place = _told_apart(burnt.at, windows[units])
                begin: Ints = np.repeat((np.cumsum(size) - size)[units], counts)
                found.append(burnt._replace(at=begin + place))
        at = np.concatenate([one.at for one in found])
        order = np.argsort(at, kind="stable")
        if all(one.shares is None for one in found):
            return _Burnt(at[order])
        shares = [np.ones(len(a), np.float32) if s is None else s for a, s in found]
        return _Burnt(at[order], np.concatenate(shares)[order])

    def _whole(self, _grid: Grid, _geometries: NDArray[np.object_], windows: Ints) -> _Burnt:
        size = (windows[:, 1] - windows[:, 0]) * (windows[:, 3] - windows[:, 2])
        return _Burnt(np.arange(int(size.sum())))

    def _points(self, _grid: Grid, geometries: NDArray[np.object_], windows: Ints) -> _Burnt:
        return _Burnt(point_places(geometries, windows))

    def _lines(self, grid: Grid, geometries: NDArray[np.object_], windows: Ints) -> _Burnt:
        """Of a line that counts by its length: lengths in units of the raster's CRS."""
        if not self._options.is_exact:
            touched = self._options.weights == "touched"
            return _Burnt(line_places(geometries, windows, all_touched=touched))
        lengths = [
            length_in_cells(line, Window(*window), grid.affine).astype(np.float32).reshape(-1)
            for line, window in zip(geometries, windows.tolist(), strict=True)
        ]
        return _positive(np.concatenate(lengths))

    def _polygons(self, grid: Grid, geometries: NDArray[np.object_], windows: Ints) -> _Burnt:
        if self._options.is_exact:
            return _positive(coverage_of_each(geometries, windows))
        touched = self._options.weights == "touched"
        places = polygon_places(
            geometries,
            windows,
            all_touched=touched,
            is_mirrored=grid.affine is not None and grid.affine.is_mirrored,
        )
        return _Burnt(places)

    def _covers(self, grid: Grid, target: int, window: Window) -> bool:
        """Whether a zone surely covers every pixel of a window, all of it where that matters."""
        with self._footprints.prepared(grid, target) as geometry:
            if not box_covers(geometry, window):
                return False
            box = shapely.box(window.col_start, window.row_start, window.col_stop, window.row_stop)
            return not self._options.is_exact or bool(shapely.covers(geometry, box))

    def _areas(self, grid: Grid, union: Window, flat: NDArray[np.int32]) -> Floats | None:
        wanted = self._has_areas or self._options.weights == "area"
        if not wanted or grid.affine is None or grid.crs is None:
            return None
        try:
            areas = cell_areas(grid.affine, grid.crs, union)
        except (InputError, ProjError):  # an engineering CRS
            return None
        areas = np.broadcast_to(areas, (union.height, union.width))
        found: Floats = np.nan_to_num(areas.reshape(-1)[flat])
        return found
