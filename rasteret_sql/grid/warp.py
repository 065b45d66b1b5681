"""Pixels of one grid from those of another: where they lie, and what they become.

The rules are GDAL's, so that results equal ``gdalwarp`` with an exact transformer:

* A target pixel is looked up at its centre, for ``average`` in the box between its
  upper-left and lower-right corners. Source pixels have their centres at k + 0.5.
* What the source pixels around it become: `grid.kernels`. GDAL measures the scale of a
  kernel anew for each block; here it is one of both grids (`Scale`), so that blocks fit
  together. GDAL's options XSCALE and YSCALE set the same.

Transforms are exact to 2e-9 pixels, or what the rounding of map coordinates leaves: a
block is a polynomial through some exact points, checked at others, and cut up to single
pixels where it is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import is_same, transformer
from rasteret_sql.grid.kernels import (
    EDGE,
    Positions,
    Scale,
    check_kernel,
    mixed,
    nearest,
    reach,
)
from rasteret_sql.grid.windows import EDGE_TOLERANCE, bounds_of
from rasteret_sql.units import Affine, BBox, Window

MOST_LOCATED = 1 << 32
"""Pixels of a block from which on it has no array: such blocks are planned and not read."""

_QUARTERED = 6
"""How often a block without an array is divided, where it bends too much."""

_NODES = 8
"""Exact points of a block along each axis."""

_EXACT_SIZE = 24
"""Pixels: a block no longer than this is computed point by point."""

_TOLERANCE, _NOISE = 2e-9, 64 * np.finfo(np.float64).eps
"""What the polynomial may be off where it is checked: pixels, and a share of the pixels from
the origin of the map, the rounding of exact points."""

_SMALL_PRODUCT = 1 << 17
"""Multiplications of a matrix product that is done in one thread: others wait for cores."""

_ROUNDING = 1e-9
"""Pixels: places are rounded once more when they are counted from the window that was read."""

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]
_Values = NDArray[Any]
_Move = Callable[[_Floats, _Floats], tuple[_Floats, _Floats]]


class Grid(NamedTuple):
    """A raster's or a target's grid: its pixels on the map.

    Attributes:
        crs: Of the map.
        affine: Pixel corner to map.
        width: Columns.
        height: Rows.
    """

    crs: pyproj.CRS
    affine: Affine
    width: int
    height: int

    @property
    def window(self) -> Window:
        """All pixels."""
        return Window(0, self.height, 0, self.width)

    @property
    def bounds(self) -> BBox:
        """The box around all pixels, in map units."""
        return bounds_of(self.affine, self.height, self.width)


def grid_over(crs: pyproj.CRS, bounds: BBox, resolution: tuple[float, float]) -> Grid:
    """The north-up grid over a box whose pixel edges are multiples of the resolution.

    So grids of one CRS and resolution fit together, as with ``gdalwarp -tap``.

    Args:
        crs: Of the grid.
        bounds: In its units.
        resolution: Width and height of a pixel, in its units.

    Raises:
        InputError: if the resolution is not above 0, or the box is not finite.

    Example:
        >>> grid_over(pyproj.CRS(32643), BBox(105, 205, 191, 290), (10, 10)).affine
        Affine(a=10, b=0.0, c=100, d=0.0, e=-10, f=290)
    """
    across, down = resolution
    if not (across > 0 and down > 0 and math.isfinite(across) and math.isfinite(down)):
        raise InputError.expected("resolution", "above 0", resolution, "it is in units of the CRS")
    if not all(map(math.isfinite, bounds)):
        raise InputError.expected("bounds", "4 finite numbers", tuple(bounds), "cut the area")
    first_col = math.floor(bounds.xmin / across + EDGE_TOLERANCE)
    last_col = max(math.ceil(bounds.xmax / across - EDGE_TOLERANCE), first_col + 1)
    first_row = math.floor(bounds.ymin / down + EDGE_TOLERANCE)
    last_row = max(math.ceil(bounds.ymax / down - EDGE_TOLERANCE), first_row + 1)
    affine = Affine(across, 0.0, first_col * across, 0.0, -down, last_row * down)
    return Grid(crs, affine, last_col - first_col, last_row - first_row)


def measure_scale(target: Grid, source: Grid) -> Scale:
    """How many source pixels a target pixel spans, where both grids are.

    The median over points of the target that lie in the source, or over all where none
    does; 1 where no point can be transformed.

    Example:
        >>> utm = pyproj.CRS(32643)
        >>> source = Grid(utm, Affine(10, 0, 0, 0, -10, 0), 100, 100)
        >>> measure_scale(Grid(utm, Affine(25, 0, 0, 0, -20, 0), 10, 10), source)
        Scale(x=2.5, y=2.0)
    """
    move = _mover(target, source)
    cols, rows = (np.linspace(0, size, 23)[1:-1] for size in (target.width, target.height))
    col, row = (grid.ravel() for grid in np.meshgrid(cols, rows))
    x, y = move(col, row)
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x <= source.width) & (y >= 0) & (y <= source.height)
        if inside.any():
            col, row = col[inside], row[inside]
        right, left = (move(col + step, row) for step in (0.5, -0.5))
        below, above = (move(col, row + step) for step in (0.5, -0.5))
        along_x = np.hypot(right[0] - left[0], below[0] - above[0])
        along_y = np.hypot(right[1] - left[1], below[1] - above[1])
    known = np.isfinite(along_x) & np.isfinite(along_y) & (along_x > 0) & (along_y > 0)
    if not known.any():
        return Scale(1.0, 1.0)
    return Scale(*(round(float(np.median(along[known])), 9) for along in (along_x, along_y)))


def choose_level(sizes: Sequence[tuple[int, int]], want: float) -> int:
    """The level of an image to read from, by the rule of ``gdalwarp``.

    Args:
        sizes: Width and height of the image, then of its overviews.
        want: Source pixels per target pixel, of the image itself (`Scale.want`).

    Returns:
        Index into `sizes`: the coarsest level not coarser than wanted, with a tolerance of
        0.1.

    Example:
        >>> choose_level([(100, 100), (50, 50), (25, 25)], 3.2)
        1
    """
    width, height = sizes[0]
    chosen, best = 0, 1.0
    if want <= 1:
        return chosen
    factors = [min(width / w, height / h) for w, h in sizes]
    for level in sorted(range(1, len(sizes)), key=factors.__getitem__):
        if abs(best - want) < 0.1:
            break
        if best < factors[level] < want + 0.1:
            chosen, best = level, factors[level]
    return chosen


def locate(target: Grid, window: Window, source: Grid, kernel: str = "nearest") -> Positions:
    """Where the pixels of a block of the target lie in the source.

    Longitudes are turned by 360 degrees to the side where a geographic source is.

    Args:
        target: The grid to fill.
        window: The block of it; may reach beyond it.
        source: The grid of the image, or of the overview that is read.
        kernel: One of `KERNELS`.

    Example:
        >>> utm = pyproj.CRS(32643)
        >>> source = Grid(utm, Affine(10, 0, 0, 0, -10, 0), 100, 100)
        >>> target = Grid(utm, Affine(20, 0, 100, 0, -20, 0), 2, 2)
        >>> locate(target, target.window, source).left
        array([[11., 13.]])
    """
    move = _mover(target, source)
    cols = np.arange(window.col_start, window.col_stop, dtype=np.float64)
    rows = np.arange(window.row_start, window.row_stop, dtype=np.float64)
    if check_kernel(kernel) != "average":
        x, y = _located(move, cols + 0.5, rows + 0.5, target, source)
        return Positions(x, y, x, y)
    cols, rows = np.append(cols, window.col_stop), np.append(rows, window.row_stop)
    x, y = _located(move, cols, rows, target, source)
    (x1, x2), (y1, y2) = _corners(x), _corners(y)
    if source.crs.is_geographic and source.affine.is_rectilinear:
        turn = 360.0 / source.affine.a  # a box across the longitude where they jump
        with np.errstate(invalid="ignore"):
            x2 = x2 - turn * np.rint((x2 - x1) / turn)
    return Positions(np.minimum(x1, x2), np.minimum(y1, y2), np.maximum(x1, x2), np.maximum(y1, y2))


def source_window(at: Positions, source: Grid, kernel: str, scale: Scale) -> Window:
    """The source pixels that a block needs; empty where it is outside of the source.

    Args:
        at: Of the block, from `locate`.
        source: The grid that it was located in.
        kernel: One of `KERNELS`.
        scale: Of both grids, from `measure_scale`.
    """
    with np.errstate(invalid="ignore"):
        inside = (at.right >= -1) & (at.left <= source.width + 1)
        inside = inside & (at.bottom >= -1) & (at.top <= source.height + 1)
    if not inside.any():
        return Window(0, 0, 0, 0)
    left, top, right, bottom = (np.broadcast_to(p, inside.shape)[inside] for p in at)
    box = BBox(left.min(), top.min(), right.max(), bottom.max())
    return _with_reach(box, source, kernel, scale)


def plan_window(target: Grid, window: Window, source: Grid, kernel: str, scale: Scale) -> Window:
    """A source window that holds what a block needs, without locating each of its pixels.

    As `source_window`, at a tenth of the time, and up to some pixels larger; no larger for
    the nearest pixels of grids that lie parallel, whose blocks may be those of the file.
    """
    if window.height * window.width >= MOST_LOCATED:
        return _reached_roughly(target, window, source, kernel, scale, _QUARTERED)
    if kernel == "nearest" and _is_parallel(target, source):
        at = locate(target, window, source, kernel)
        found = Window(*_holding(at.top, source.height), *_holding(at.left, source.width))
        return Window(0, 0, 0, 0) if found.is_empty else found
    box = _box_of(_mover(target, source), window)
    if box is None:
        return source_window(locate(target, window, source, kernel), source, kernel, scale)
    return _with_reach(box, source, kernel, scale)


def _reached_roughly(
    target: Grid, window: Window, source: Grid, kernel: str, scale: Scale, more: int
) -> Window:
    """What a block needs that has too many pixels for memory; all where it is not known."""
    box = _box_of(_mover(target, source), window)
    if box is not None:
        return _with_reach(box, source, kernel, scale)
    if not more:
        return Window(0, source.height, 0, source.width)
    parts = [
        _reached_roughly(target, part, source, kernel, scale, more - 1)
        for part in _quarters(window)
    ]
    edges = np.array([part for part in parts if not part.is_empty] or [Window(0, 0, 0, 0)])
    low, high = edges.min(axis=0).tolist(), edges.max(axis=0).tolist()
    return Window(low[0], high[1], low[2], high[3])


def _quarters(window: Window) -> list[Window]:
    row = (window.row_start + window.row_stop) // 2
    col = (window.col_start + window.col_stop) // 2
    halves = (window.row_start, row), (row, window.row_stop)
    sides = (window.col_start, col), (col, window.col_stop)
    return [Window(*rows, *cols) for rows in halves for cols in sides]


def _box_of(move: _Move, window: Window) -> BBox | None:
    """The box around where a block lies in the source, by some points; None if it bends much."""
    cols = np.linspace(window.col_start, window.col_stop, 9)
    rows = np.linspace(window.row_start, window.row_stop, 9)
    x, y = move(*np.meshgrid(cols, rows))
    pads = [_bend(values) for values in (x, y)]
    if not all(np.isfinite(pad) and pad < _EXACT_SIZE for pad in pads):
        return None
    pad_x, pad_y = pads
    return BBox(x.min() - pad_x, y.min() - pad_y, x.max() + pad_x, y.max() + pad_y)


def nearest_windows(target: Grid, windows: _Ints, source: Grid) -> _Ints:
    """The source pixels that hold the centres of the pixels of some blocks.

    Args:
        target: The grid of the blocks.
        windows: Rows and columns of each, (n, 4); none is empty.
        source: Another grid.

    Returns:
        Rows and columns of each, (n, 4); those outside of the source are empty.

    Example:
        >>> utm = pyproj.CRS(32643)
        >>> source = Grid(utm, Affine(20, 0, 0, 0, -20, 0), 50, 50)
        >>> target = Grid(utm, Affine(10, 0, 40, 0, -10, 0), 90, 90)
        >>> nearest_windows(target, np.array([[2, 5, 0, 1], [0, 1, 96, 97]]), source).tolist()
        [[1, 3, 2, 3], [0, 1, 50, 50]]
    """
    move = _mover(target, source)
    ends = np.array([0.5, 0.5, -0.5, -0.5])
    rows, cols = windows[:, [0, 0, 1, 1]] + ends, windows[:, [2, 3, 2, 3]] + ends[[0, 2, 0, 2]]
    corners = move(cols, rows)
    centres = move(cols.mean(axis=1), rows.mean(axis=1))
    is_straight = target.affine.is_rectilinear and source.affine.is_rectilinear
    pad = 0.0 if is_straight else 1e-6
    found, is_plain = [], np.full(len(windows), is_same(target.crs, source.crs))
    for at, centre, size in zip(
        corners[::-1], centres[::-1], (source.height, source.width), strict=True
    ):
        is_plain &= np.abs(at.mean(axis=1) - centre) < 0.25
        low, high = at.min(axis=1) - pad, at.max(axis=1) + pad
        found += [np.floor(low + EDGE), np.floor(high + EDGE) + 1]
        found[-2:] = [np.clip(edge, 0, size) for edge in found[-2:]]
    around = np.column_stack(found).astype(np.int64)
    for number in np.flatnonzero(~is_plain).tolist():
        window = Window(*windows[number].tolist())
        around[number] = plan_window(target, window, source, "nearest", Scale(1.0, 1.0))
    return around


def warp_block(
    values: _Values,
    valid: _Bools | None,
    read: Window,
    at: Positions,
    kernel: str,
    scale: Scale,
) -> tuple[_Values, _Bools]:
    """The pixels of a block of the target, of one band.

    Args:
        values: What was read, shape (read.height, read.width).
        valid: False where a pixel has no data, same shape; None where all have.
        read: Where in the source it lies: `source_window` or more of the source.
        at: Of the block, from `locate` with the same kernel.
        kernel: One of `KERNELS`.
        scale: Of both grids, from `measure_scale`.

    Returns:
        Values of the type that was read, 0 where there is no data, and False there.

    Example:
        >>> utm = pyproj.CRS(32643)
        >>> source = Grid(utm, Affine(10, 0, 0, 0, -10, 0), 2, 2)
        >>> target = Grid(utm, Affine(20, 0, 0, 0, -20, 0), 1, 1)
        >>> at, scale = locate(target, target.window, source, "average"), Scale(2, 2)
        >>> values = np.array([[1, 2], [3, 5]], np.uint8)
        >>> warp_block(values, None, source.window, at, "average", scale)
        (array([[3]], dtype=uint8), array([[ True]]))
    """
    left, top, right, bottom = at
    shape = np.broadcast_shapes(left.shape, top.shape)
    if values.size == 0 or 0 in shape:
        return np.zeros(shape, dtype=values.dtype), np.zeros(shape, dtype=bool)
    if valid is not None and valid.all():
        valid = None
    moved = Positions(
        left - read.col_start,
        top - read.row_start,
        right - read.col_start,
        bottom - read.row_start,
    )
    if kernel == "nearest":
        return nearest(values, valid, moved)
    return mixed(values, valid, moved, check_kernel(kernel), scale)


def _mover(target: Grid, source: Grid) -> _Move:
    """The exact way from pixels of the target to pixels of the source."""
    a, b, c, d, e, f = target.affine
    same = is_same(target.crs, source.crs)
    step = None if same else transformer(target.crs, source.crs)
    inverse = _inverse(source.affine)
    centre = source.affine.to_map(source.width / 2, source.height / 2)[0]
    is_lonlat = source.crs.is_geographic

    def move(col: _Floats, row: _Floats) -> tuple[_Floats, _Floats]:
        x, y = c + col * a + row * b, f + col * d + row * e
        if step is not None:
            x, y = np.broadcast_arrays(x, y)
            x, y = step.transform(x, y)
        if is_lonlat:
            with np.errstate(invalid="ignore"):
                turns = np.rint((x - centre) / 360.0)
                x = np.where(np.abs(x - centre) > 180.0, x - 360.0 * turns, x)
        ia, ib, ic, id_, ie, if_ = inverse
        if ib == 0 and id_ == 0:
            return ic + x * ia, if_ + y * ie
        return ic + x * ia + y * ib, if_ + x * id_ + y * ie

    return move


def _inverse(affine: Affine) -> Affine:
    if affine.is_rectilinear:  # the arithmetic of GDAL, for centres that lie on an edge
        across, down = 1.0 / affine.a, 1.0 / affine.e
        return Affine(across, 0.0, -affine.c / affine.a, 0.0, down, -affine.f / affine.e)
    return affine.inverse()


def _located(
    move: _Move, cols: _Floats, rows: _Floats, target: Grid, source: Grid
) -> tuple[_Floats, _Floats]:
    """Exact positions of a lattice of columns and rows."""
    if not is_same(target.crs, source.crs):
        x, y = np.empty((2, len(rows), len(cols)))
        inverse = _inverse(source.affine)
        limit = max(_TOLERANCE, _NOISE * max(abs(inverse.c), abs(inverse.f)))
        _fill(move, cols, rows, (x, y), limit)
        return x, y
    if _is_parallel(target, source):
        return move(cols[None, :], rows[:1, None])[0], move(cols[None, :1], rows[:, None])[1]
    return move(cols[None, :], rows[:, None])


def _fill(
    move: _Move, cols: _Floats, rows: _Floats, out: tuple[_Floats, _Floats], limit: float
) -> None:
    """Fill x and y of a lattice: by a polynomial, by parts, or point by point."""
    if len(cols) == 0 or len(rows) == 0:
        return
    small_x, small_y = len(cols) <= _EXACT_SIZE, len(rows) <= _EXACT_SIZE
    if small_x and small_y:
        for values, found in zip(out, move(*np.meshgrid(cols, rows)), strict=True):
            values[:] = found
        return
    by_col, check_cols = _basis(len(cols))
    by_row, check_rows = _basis(len(rows))
    nodes = np.meshgrid(_nodes(cols[0], cols[-1]), _nodes(rows[0], rows[-1]))
    checks = np.meshgrid(cols[check_cols], rows[check_rows])
    points = [np.concatenate([n.ravel(), c.ravel()]) for n, c in zip(nodes, checks, strict=True)]
    exact = [(found[: _NODES**2], found[_NODES**2 :]) for found in move(*points)]
    if all(
        _is_close(by_row[check_rows], at_nodes, by_col[check_cols], at_checks, limit)
        for at_nodes, at_checks in exact
    ):
        step = max(_SMALL_PRODUCT // (_NODES * len(cols)), 1)
        for values, (at_nodes, _) in zip(out, exact, strict=True):
            across = at_nodes.reshape(_NODES, _NODES) @ by_col.T
            for first in range(0, len(rows), step):
                np.matmul(by_row[first : first + step], across, out=values[first : first + step])
        return
    for cut_x in [slice(None)] if small_x else _halves(len(cols)):
        for cut_y in [slice(None)] if small_y else _halves(len(rows)):
            x, y = (values[cut_y, cut_x] for values in out)
            _fill(move, cols[cut_x], rows[cut_y], (x, y), limit)


def _is_close(
    by_row: _Floats, nodes: _Floats, by_col: _Floats, checks: _Floats, limit: float
) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        found = by_row @ nodes.reshape(_NODES, _NODES) @ by_col.T
        return bool((np.abs(found.ravel() - checks) <= limit).all())


def _halves(size: int) -> list[slice]:
    return [slice(0, size // 2), slice(size // 2, size)]


def _nodes(first: float, last: float) -> _Floats:
    """Chebyshev points of an interval."""
    angles = (2 * np.arange(_NODES) + 1) * (np.pi / (2 * _NODES))
    nodes: _Floats = (first + last) / 2 - (last - first) / 2 * np.cos(angles)
    return nodes


@lru_cache(maxsize=64)
def _basis(count: int) -> tuple[_Floats, _Ints]:
    """Weights of the nodes at evenly spaced points, and points to check at.

    Returns:
        Shape (count, _NODES); indices of points, the ends among them.
    """
    at = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    nodes = _nodes(-1, 1)
    degree = np.arange(_NODES)
    to_nodes = np.linalg.inv(np.cos(degree[None, :] * np.arccos(nodes)[:, None]))
    basis = np.cos(degree[None, :] * np.arccos(np.clip(at, -1, 1))[:, None]) @ to_nodes
    return basis, np.unique(np.rint(np.linspace(0, count - 1, 8)).astype(np.int64))


def _corners(values: _Floats) -> tuple[_Floats, _Floats]:
    """Upper-left and lower-right of each pixel, from those of a lattice."""
    if values.shape[0] == 1:
        return values[:, :-1], values[:, 1:]
    if values.shape[1] == 1:
        return values[:-1], values[1:]
    return values[:-1, :-1], values[1:, 1:]


def _with_reach(box: BBox, source: Grid, kernel: str, scale: Scale) -> Window:
    """The pixels that a kernel reaches from positions in a box."""
    rows = _reached(box.ymin, box.ymax, source.height, reach(kernel, scale.y))
    cols = _reached(box.xmin, box.xmax, source.width, reach(kernel, scale.x))
    window = Window(*rows, *cols)
    return Window(0, 0, 0, 0) if window.is_empty else window


def _reached(low: float, high: float, size: int, reach: int) -> tuple[int, int]:
    if high < -1 or low > size + 1:
        return 0, 0
    start = math.floor(max(low, -1.0)) - reach
    stop = math.floor(min(high, size + 1.0)) + 1 + reach
    return max(start, 0), min(stop, size)


def _is_parallel(target: Grid, source: Grid) -> bool:
    """Whether rows and columns of one grid are rows and columns of the other."""
    is_rectilinear = target.affine.is_rectilinear and source.affine.is_rectilinear
    return is_rectilinear and is_same(target.crs, source.crs)


def _holding(places: _Floats, size: int) -> tuple[int, int]:
    """The first pixel that holds a place, and behind the last one."""
    low, high = np.floor(places + EDGE - _ROUNDING), np.floor(places + EDGE + _ROUNDING)
    inside = (high >= 0) & (low < size)
    if not inside.any():
        return 0, 0
    return max(int(low[inside].min()), 0), min(int(high[inside].max()) + 1, size)


def _bend(values: _Floats) -> float:
    """Pixels that a lattice may bulge between its points, NaN where it is not known."""
    with np.errstate(invalid="ignore"):
        bends = [np.abs(np.diff(values, 2, axis=axis)).max() for axis in (0, 1)]
    return float(max(bends)) if np.isfinite(bends).all() else math.nan
