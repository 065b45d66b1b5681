"""Which pixels of a grid lie under a target: windows for all pairs at once, masks one by one.

A window and a mask depend on a grid and a target alone, not on the scene: a time series of
scenes on one grid needs each once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import crs_of
from rasteret_sql.grid.masks import is_box, polygon_mask, snapped
from rasteret_sql.grid.windows import EDGE_TOLERANCE, to_pixels, window_of
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.targets import Moved, Targets
from rasteret_sql.units import Window

Mask = NDArray[np.bool_]
T = TypeVar("T")

_KEPT_BYTES = 32 * 1024 * 1024
_KEPT_GEOMETRIES = 1 << 15
_ENTRY_BYTES = 512
"""What a kept thing takes besides its arrays, about."""
_PAIRS_AT_ONCE = 1 << 17
_MANY_BOXES = 8
"""Of a target from which it pays to prepare its geometry."""
_TOUCHING = 1e-6
"""Pixels: how far from an area a tile may lie and still count as touched by it."""


class Pairs(NamedTuple):
    """Grids and targets that have pixels in common; arrays of one length, sorted by grid.

    Attributes:
        grid: Number of the grid.
        target: Number of the target, -1 where everything is read.
        window: Rows and columns, (n, 4): row_start, row_stop, col_start, col_stop.
        is_whole: Whether every pixel of the window counts.
    """

    grid: Ints
    target: Ints
    window: Ints
    is_whole: Mask


class Inside(NamedTuple):
    """The pixels of a window that count.

    Attributes:
        mask: True where a pixel counts; None where all do.
        flat: Their places in the flattened window; None where all count.
        n_pixels: How many they are.
    """

    mask: Mask | None
    flat: NDArray[np.intp] | None
    n_pixels: int


@dataclass(frozen=True, eq=False)
class _GridPairs:
    target: Ints
    window: Ints
    is_whole: Mask


class Footprints:
    """Windows and masks of targets on grids, each made once, as far as memory allows.

    Args:
        targets: None reads rasters whole.
        all_touched: Pixels that an area touches, not only those whose centre it holds.
    """

    def __init__(self, targets: Targets | None, *, all_touched: bool = False) -> None:
        self.targets = targets
        self.all_touched = all_touched
        self._pairs: dict[Grid, _GridPairs | InputError] = {}
        self._geometries: dict[tuple[Grid, int], shapely.Geometry] = {}
        self._prepared: dict[tuple[Grid, int], shapely.Geometry] = {}
        self._prepared_lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def pairs(self, grids: Sequence[Grid], wanted: Ints) -> tuple[Pairs, dict[int, InputError]]:
        """Windows of all targets on some grids.

        Args:
            grids: By number.
            wanted: Numbers of the grids to look at, without repeats, in ascending order.

        Returns:
            The pairs, and the errors of grids that have no place on the map of the targets.
        """
        self._find([grids[n] for n in wanted.tolist() if grids[n] not in self._pairs])
        errors: dict[int, InputError] = {}
        found: list[tuple[int, _GridPairs]] = []
        for number in wanted.tolist():
            one = self._pairs[grids[number]]
            if isinstance(one, InputError):
                errors[number] = one
            else:
                found.append((number, one))
        counts = [len(one.target) for _, one in found]
        return Pairs(
            np.repeat(np.array([number for number, _ in found], np.int64), counts),
            np.concatenate([one.target for _, one in found] or [np.empty(0, np.int64)]),
            np.concatenate([one.window for _, one in found] or [np.empty((0, 4), np.int64)]),
            np.concatenate([one.is_whole for _, one in found] or [np.empty(0, bool)]),
        ), errors

    def geometry(self, grid: Grid, target: int) -> shapely.Geometry:
        """A target in pixel coordinates of a grid."""
        key = grid, target
        found = self._geometries.get(key)
        if found is None:
            found = self._geometry(grid, target)
            if self.targets is not None and self.targets.snaps_lines and _is_line(found):
                found = snapped(found)
            if len(self._geometries) > _KEPT_GEOMETRIES:
                self._geometries.clear()
            self._geometries[key] = found
        return found

    def geometries(self, grid: Grid, targets: Ints) -> NDArray[np.object_]:
        """Targets in pixel coordinates of a grid, as `geometry`; made anew where that is fast."""
        own = self.targets
        assert own is not None  # noqa: S101 (only areas have a geometry)
        if own.crs is None or not _is_plain(grid, own):
            found: NDArray[np.object_] = np.empty(len(targets), object)
            found[:] = [self.geometry(grid, target) for target in targets.tolist()]
            return found
        assert grid.affine is not None and grid.crs is not None  # noqa: S101, PT018 (`_is_plain`)
        moved: NDArray[np.object_] = own.in_crs(grid.crs).geometries[targets]
        found = to_pixels(moved, grid.affine)
        if own.snaps_lines and (is_line := shapely.get_dimensions(found) == 1).any():
            found[is_line] = snapped(found[is_line])
        return found

    def touched(self, grid: Grid, target: int, boxes: NDArray[np.float64]) -> Mask:
        """Which boxes, (n, 4) xmin, ymin, xmax, ymax in pixels, a target touches."""
        with self.prepared(grid, target) as geometry:
            touched: Mask = shapely.intersects(geometry, _padded(boxes))
        return touched

    def each_touched(self, grid: Grid, targets: Ints, boxes: NDArray[np.float64]) -> Mask:
        """Which boxes the target named for each touches; as `touched`."""
        touched = np.zeros(len(targets), bool)
        distinct, of, counts = np.unique(targets, return_inverse=True, return_counts=True)
        is_few = (counts < _MANY_BOXES)[of]
        few = np.flatnonzero(is_few)
        if len(few):
            used = np.flatnonzero(counts < _MANY_BOXES)
            geometries = np.empty(len(distinct), object)
            geometries[used] = self.geometries(grid, distinct[used])
            touched[few] = shapely.intersects(geometries[of[few]], _padded(boxes[few]))
        rest = np.flatnonzero(~is_few)
        order = rest[np.argsort(of[rest], kind="stable")]
        for at in np.split(order, np.flatnonzero(np.diff(of[order])) + 1) if len(order) else ():
            touched[at] = self.touched(grid, int(targets[at[0]]), boxes[at])
        return touched

    @contextmanager
    def prepared(self, grid: Grid, target: int) -> Iterator[shapely.Geometry]:
        """A target as `geometry`, quick to ask about many boxes; for one thread at a time.

        GEOS builds the index of a prepared geometry when it is asked first, and two threads
        that ask the same one at once can end the process. So others get their own copy.
        """
        with self._prepared_lock:
            found = self._prepared.get((grid, target))
            if found is None:
                found = shapely.transform(self.geometry(grid, target), lambda xy: xy)
                shapely.prepare(found)
                if len(self._prepared) > _KEPT_GEOMETRIES:
                    self._prepared.clear()
                self._prepared[grid, target] = found
            yield found

    def inside(self, grid: Grid, target: int, window: Window, *, is_whole: bool) -> Inside:
        """The pixels of a window that count for a target."""
        if target < 0 or is_whole:
            return Inside(None, None, window.height * window.width)
        return self.once(
            (grid, target, window, "inside"), lambda: self._inside(grid, target, window)
        )

    def once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Make something that many scenes share, and keep it while there is room."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                kept: T = self._kept[key][0]
                return kept
        made = make()
        size = _n_bytes(made) + _ENTRY_BYTES
        with self._lock:
            if key not in self._kept and size <= _KEPT_BYTES // 4:
                self._kept[key] = made, size
                self._kept_bytes += size
                while self._kept_bytes > _KEPT_BYTES:
                    self._kept_bytes -= self._kept.popitem(last=False)[1][1]
        return made

    def _inside(self, grid: Grid, target: int, window: Window) -> Inside:
        mask = polygon_mask(
            self.geometry(grid, target),
            window,
            all_touched=self.all_touched,
            is_mirrored=grid.affine is not None and grid.affine.is_mirrored,
        )
        if mask.all():
            return Inside(None, None, mask.size)
        flat = np.flatnonzero(mask)
        return Inside(mask, flat, flat.size)

    def _geometry(self, grid: Grid, target: int) -> shapely.Geometry:
        targets = self.targets
        assert targets is not None  # noqa: S101 (only areas have a geometry)
        if targets.crs is None:  # pixels of the full resolution
            across, down = grid.width / grid.full_width, grid.height / grid.full_height
            area = targets.areas[target]
            if (across, down) == (1, 1):
                return area
            return shapely.transform(area, lambda xy: xy * [across, down])
        assert grid.affine is not None and grid.crs is not None  # noqa: S101, PT018 (`_find`)
        if _is_plain(grid, targets):
            return to_pixels(targets.in_crs(grid.crs).geometries[target], grid.affine)
        bounds = grid.bounds
        assert bounds is not None  # noqa: S101 (it has an affine)
        return to_pixels(targets.near(target, grid.crs, bounds), grid.affine)

    def _find(self, grids: list[Grid]) -> None:
        """Fill `_pairs` for these grids."""
        targets = self.targets
        if targets is None:
            whole = np.array([-1], np.int64)
            for grid in grids:
                window = np.array([[0, grid.height, 0, grid.width]], np.int64)
                self._pairs[grid] = _GridPairs(whole, window, np.ones(1, bool))
            return
        plain: dict[str, list[Grid]] = {}
        for grid in grids:
            if targets.crs is None:
                self._pairs[grid] = self._one_by_one(grid, targets)
            elif grid.affine is None or grid.crs is None:
                missing = "transform" if grid.affine is None else "CRS"
                self._pairs[grid] = InputError(
                    f"expected a raster with a {missing}, got none; "
                    "read it whole, or give the area in pixels with geometry_crs := 'pixel'"
                )
            elif _is_plain(grid, targets):
                plain.setdefault(grid.crs, []).append(grid)
            else:
                try:
                    self._pairs[grid] = self._one_by_one(grid, targets)
                except InputError as error:
                    self._pairs[grid] = error
        for crs, ones in plain.items():
            try:
                moved = targets.in_crs(crs)
            except InputError as error:
                self._pairs |= dict.fromkeys(ones, error)
                continue
            step = max(1, _PAIRS_AT_ONCE // max(1, len(targets)))
            for first in range(0, len(ones), step):
                self._vectorised(ones[first : first + step], moved)

    def _one_by_one(self, grid: Grid, targets: Targets) -> _GridPairs:
        found, windows, whole = [], [], []
        for target in range(len(targets)):
            geometry = self.geometry(grid, target)
            window = window_of(geometry, grid.height, grid.width)
            if not window.is_empty:
                found.append(target)
                windows.append(window)
                whole.append(_covers_centres(geometry, window))
        return _GridPairs(
            np.array(found, np.int64),
            np.array(windows, np.int64).reshape(-1, 4),
            np.array(whole, bool),
        )

    def _vectorised(self, grids: list[Grid], moved: Moved) -> None:
        """Windows of all targets on grids without rotation, in one CRS."""
        n_targets = len(moved.is_box)
        found = [
            _windows(grids, moved, slice(first, first + _PAIRS_AT_ONCE))
            for first in range(0, max(n_targets, 1), _PAIRS_AT_ONCE)
        ]
        for grid, *parts in zip(grids, *found, strict=True):
            one = parts[0]
            if len(parts) > 1:
                target, window, is_whole = (
                    np.concatenate([getattr(part, name) for part in parts])
                    for name in ("target", "window", "is_whole")
                )
                one = _GridPairs(target, window, is_whole)
            self._pairs[grid] = one


def _windows(grids: list[Grid], moved: Moved, some: slice) -> list[_GridPairs]:
    """Windows of some targets on grids without rotation, in one CRS."""
    bounds, is_area = moved.bounds[some], moved.is_area[some]
    affines = np.array([grid.affine for grid in grids])
    height = np.array([grid.height for grid in grids])[:, None]
    width = np.array([grid.width for grid in grids])[:, None]
    with np.errstate(invalid="ignore"):
        xmin, xmax = _axis(affines[:, 0], affines[:, 2], bounds[:, 0], bounds[:, 2])
        ymin, ymax = _axis(affines[:, 4], affines[:, 5], bounds[:, 1], bounds[:, 3])
    rows = _pixel_ranges(ymin, ymax, height, is_area)
    cols = _pixel_ranges(xmin, xmax, width, is_area)
    met = (rows[0] < rows[1]) & (cols[0] < cols[1])
    whole = moved.is_box[None, some] & (xmin < cols[0] + 0.5) & (xmax > cols[1] - 0.5)
    whole &= (ymin < rows[0] + 0.5) & (ymax > rows[1] - 0.5)
    windows = np.stack([*rows, *cols], axis=-1)
    found = []
    for number in range(len(grids)):
        chosen = np.flatnonzero(met[number])
        target = chosen + some.start
        found.append(_GridPairs(target, windows[number, chosen], whole[number, chosen]))
    return found


def _padded(boxes: NDArray[np.float64]) -> NDArray[np.object_]:
    pad = np.array([-_TOUCHING, -_TOUCHING, _TOUCHING, _TOUCHING])
    padded: NDArray[np.object_] = shapely.box(*(boxes + pad).T)
    return padded


def _is_line(geometry: shapely.Geometry) -> bool:
    return bool(shapely.get_dimensions(geometry) == 1)


def _is_plain(grid: Grid, targets: Targets) -> bool:
    """Whether windows follow from the bounds of targets in the CRS alone."""
    assert grid.affine is not None and grid.crs is not None  # noqa: S101, PT018 (its callers)
    if not grid.affine.is_rectilinear or not grid.affine.a or not grid.affine.e:
        return False
    try:
        is_geographic = crs_of(grid.crs).is_geographic
    except InputError:
        return False
    if is_geographic:
        bounds = grid.bounds
        return bounds is not None and bounds.xmin >= -180 and bounds.xmax <= 180
    return not targets.is_large.any()


def _axis(
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds in pixels on one axis, (grids, targets); arithmetic as in `windows.to_pixels`."""
    first = (-shift / scale)[:, None] + low[None, :] * (1.0 / scale)[:, None]
    second = (-shift / scale)[:, None] + high[None, :] * (1.0 / scale)[:, None]
    return np.minimum(first, second), np.maximum(first, second)


def _pixel_ranges(
    low: NDArray[np.float64], high: NDArray[np.float64], size: Ints, is_area: Mask
) -> tuple[Ints, Ints]:
    """As ``windows.window_of`` on one axis; empty ranges are 0, 0."""
    low, high = np.maximum(low, -1.0), np.minimum(high, size + 1.0)
    known = low <= high
    low, high = np.where(known, low, 0.0), np.where(known, high, 0.0)
    start, stop = np.floor(low + EDGE_TOLERANCE), np.ceil(high - EDGE_TOLERANCE)
    thin = start >= stop
    start, stop = np.where(thin, np.floor(low), start), np.where(thin, np.ceil(high), stop)
    if not is_area.all():
        start = np.where(is_area, start, np.floor(low))
        stop = np.where(is_area, stop, np.floor(high) + 1)
    start, stop = np.maximum(start, 0), np.minimum(stop, size)
    known &= start < stop
    return (
        np.where(known, start, 0).astype(np.int64),
        np.where(known, stop, 0).astype(np.int64),
    )


def _covers_centres(geometry: shapely.Geometry, window: Window) -> bool:
    """Whether the mask is all true: a box whose edges hold every pixel centre."""
    if window.is_empty or not is_box(geometry):
        return False
    xmin, ymin, xmax, ymax = geometry.bounds
    return bool(
        xmin < window.col_start + 0.5
        and xmax > window.col_stop - 0.5
        and ymin < window.row_start + 0.5
        and ymax > window.row_stop - 0.5
    )


def _n_bytes(value: object) -> int:
    if isinstance(value, tuple):
        return sum(_n_bytes(part) for part in value)
    return int(getattr(value, "nbytes", 0))
