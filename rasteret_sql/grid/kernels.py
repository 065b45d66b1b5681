"""Kernels: what the pixels around a position become, by GDAL's rules.

* ``bilinear`` and ``cubic`` (a = -0.5) leave out pixels that have no data or are outside,
  and scale the other weights up. ``cubic`` becomes ``bilinear`` where one of its 16 pixels
  is missing. Both have no data exactly where ``nearest`` has none.
* Where a target pixel is larger than 1 / 0.95 source pixels, both kernels are stretched by
  that factor.
* ``average`` weights pixels by the covered length along x and y; at the border of the source
  a pixel also stands for the part of the box beyond it.
* Integers are rounded, half up, and clamped.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import InputError

KERNELS: Final = ("nearest", "bilinear", "cubic", "average")
"""The names of the ways to resample; all but the first mix values."""

_REACH = {"bilinear": 1, "cubic": 2}
"""Source pixels on each side of a centre."""

_STRETCHED = 1 / 0.95
"""Source pixels per target pixel, above which a kernel is stretched."""

EDGE = 1e-10
"""Pixels: GDAL takes a centre that lies so close to the next pixel as inside of it."""

_STRIP = 1 << 14
"""Target pixels worked on at a time, so that their arrays stay in the cache."""

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]
_Values = NDArray[Any]


class Scale(NamedTuple):
    """Source pixels per target pixel, along the columns and the rows of the source."""

    x: float
    y: float

    @property
    def want(self) -> float:
        """The smaller one: how much coarser an overview may be."""
        return min(self)


class Positions(NamedTuple):
    """Where target pixels lie, in pixels of the source (0, 0 is its upper-left corner).

    Shapes that broadcast to (height, width) of the target block, NaN or infinite where a
    point has no place in the source's CRS. For kernels of a centre, `right` and `bottom`
    are `left` and `top`; for ``average`` the four are a box.
    """

    left: _Floats
    top: _Floats
    right: _Floats
    bottom: _Floats


def check_kernel(name: str) -> str:
    """The kernel of a name.

    Raises:
        InputError: if there is none.

    Example:
        >>> check_kernel("cubic")
        'cubic'
    """
    if name not in KERNELS:
        known = ", ".join(KERNELS)
        raise InputError.expected("resampling", f"one of {known}", name, "nearest mixes no values")
    return name


def reach(kernel: str, scale: float) -> int:
    """Source pixels that a kernel needs on each side of the pixel that holds a place.

    Example:
        >>> reach("nearest", 1.0), reach("cubic", 1.0), reach("cubic", 2.5)
        (1, 3, 6)
    """
    if kernel in _REACH:
        return math.ceil(_REACH[kernel] * max(scale, 1.0)) + 1
    return 1


def nearest(values: _Values, valid: _Bools | None, at: Positions) -> tuple[_Values, _Bools]:
    """The pixels that hold the positions; 0 and False where there is none, or no data.

    Args:
        values: Shape (height, width).
        valid: False where a pixel has no data, same shape; None where all have.
        at: Positions in these pixels.
    """
    shape = np.broadcast_shapes(at.left.shape, at.top.shape)
    height, width = values.shape
    if at.left.shape[0] == 1 and at.top.shape[1] == 1:
        rows, cols = _run(at.top[:, 0], height), _run(at.left[0], width)
        if rows is not None and cols is not None:
            known = np.ones(shape, bool) if valid is None else valid[rows, cols].copy()
            return np.where(known, values[rows, cols], values.dtype.type(0)), known
    out, known = np.empty(shape, dtype=values.dtype), np.empty(shape, dtype=bool)
    for strip in _strips(shape):
        left, top = (p if p.shape[0] == 1 else p[strip] for p in (at.left, at.top))
        col, col_inside = _pixel(left, width)
        row, row_inside = _pixel(top, height)
        index = row * width + col
        picked, has = out[strip], known[strip]
        picked[:] = values.ravel().take(index, mode="clip")
        np.logical_and(col_inside, row_inside, out=has)
        if valid is not None:
            has &= valid.ravel().take(index, mode="clip")
        if not has.all():
            picked[~has] = 0
    return out, known


def _run(places: _Floats, size: int) -> slice | None:
    """The pixels that places are in, where these are one after the other."""
    index, inside = _pixel(places, size)
    is_run = bool(inside.all()) and bool((np.diff(index) == 1).all())
    return slice(int(index[0]), int(index[-1]) + 1) if is_run else None


def _strips(shape: tuple[int, ...]) -> list[slice]:
    """Rows of a block that are worked on together."""
    rows = max(_STRIP // shape[1], 1)
    return [slice(first, first + rows) for first in range(0, shape[0], rows)]


def _pixel(place: _Floats, size: int) -> tuple[_Ints, _Bools]:
    """The pixel that a place is in, moved to the image where it is outside."""
    floor = np.floor(place + EDGE)
    inside = (floor >= 0) & (floor < size)
    if not inside.all():
        floor = np.where(inside, floor, 0.0)
    return floor.astype(np.int64), inside


def mixed(
    values: _Values, valid: _Bools | None, at: Positions, kernel: str, scale: Scale
) -> tuple[_Values, _Bools]:
    """What a kernel makes of the pixels around the positions; as `nearest`.

    Args:
        values: Shape (height, width).
        valid: False where a pixel has no data, same shape; None where all have.
        at: Positions in these pixels.
        kernel: One of `KERNELS` but ``nearest``.
        scale: Source pixels per target pixel.
    """
    shape = np.broadcast_shapes(at.left.shape, at.top.shape)
    image = _Image(values, valid)
    out, known = np.zeros(shape, dtype=values.dtype), np.zeros(shape, dtype=bool)
    for strip in _strips(shape):
        places = Positions(*(p if p.shape[0] == 1 else p[strip] for p in at))
        found, has = _mixed_strip(image, places, kernel, scale)
        out[strip], known[strip] = _of_type(found, has, values.dtype), has
    return out, known


class _Image:
    """An image as float64, NaN where it has no data and in one pixel around it."""

    def __init__(self, values: _Values, valid: _Bools | None) -> None:
        self.height, self.width = values.shape
        self.padded = np.full((self.height + 2, self.width + 2), np.nan)
        inner = self.padded[1:-1, 1:-1]
        inner[:] = values
        if valid is not None:
            inner[~valid] = np.nan

    @cached_property
    def filled(self) -> _Floats:
        """The same, 0 instead of NaN."""
        return np.where(np.isnan(self.padded), 0.0, self.padded)

    @cached_property
    def known(self) -> _Floats:
        """1, and 0 where it is NaN."""
        known: _Floats = 1.0 - np.isnan(self.padded)
        return known


class _Taps(NamedTuple):
    """Pixels along one axis: the first of each place, and the weights of it and the next."""

    first: _Ints
    weights: list[_Floats]

    @property
    def total(self) -> _Floats:
        """Sum of the weights."""
        return np.asarray(sum(self.weights[1:], self.weights[0]))

    def chosen(self, chosen: _Bools) -> _Taps:
        """The taps of some places of a block."""
        first, *weights = (
            np.broadcast_to(values, chosen.shape)[chosen] for values in (self.first, *self.weights)
        )
        return _Taps(first, weights)


def _mixed_strip(image: _Image, at: Positions, kernel: str, scale: Scale) -> tuple[_Floats, _Bools]:
    if kernel == "average":
        x = _box_taps(at.left, at.right, image.width)
        y = _box_taps(at.top, at.bottom, image.height)
        return _weighted(image, x, y, 0.0)[:2]
    if max(scale) > _STRETCHED:
        x, y = (_taps(p, kernel, s) for p, s in ((at.left, scale.x), (at.top, scale.y)))
        found, has, is_whole = _weighted(image, x, y, 1e-6)
    elif kernel == "bilinear":
        found, has, is_whole = _weighted(image, *_bilinear_taps(at.left, at.top), 1e-5)
    else:
        x, y = (_taps(p, kernel, 1.0) for p in (at.left, at.top))
        found = _total(image.padded, x, y)
        gaps = np.isnan(found)
        has, is_whole = ~gaps, not gaps.any()
        if not is_whole:
            left, top = (np.broadcast_to(p, gaps.shape)[gaps] for p in (at.left, at.top))
            found[gaps], has[gaps], _ = _weighted(image, *_bilinear_taps(left, top), 1e-5)
    if not is_whole:
        row = _inside(_floor(at.top + EDGE), image.height)
        has &= _pick(image.known, row, _inside(_floor(at.left + EDGE), image.width)) > 0
    return found, has


def _weighted(image: _Image, x: _Taps, y: _Taps, least: float) -> tuple[_Floats, _Bools, bool]:
    """Weighted means of the pixels that have data, where they have weight, if all have data."""
    total, weight = _total(image.padded, x, y), x.total * y.total
    gaps = np.isnan(total)
    is_whole = not gaps.any()
    if not is_whole and _is_lattice(x, y):
        total, weight = _total(image.filled, x, y), _total(image.known, x, y)
    elif not is_whole:
        chosen = x.chosen(gaps), y.chosen(gaps)
        total[gaps] = _total(image.filled, *chosen)
        weight[gaps] = _total(image.known, *chosen)
    has = weight >= least if least else weight > 0
    return np.divide(total, weight, out=np.zeros(total.shape), where=has), has, is_whole


def _total(padded: _Floats, x: _Taps, y: _Taps) -> _Floats:
    """Weighted sums."""
    height, width = (size - 2 for size in padded.shape)
    cols = [_inside(x.first + step, width) for step in range(len(x.weights))]
    rows = [_inside(y.first + step, height) for step in range(len(y.weights))]
    if _is_lattice(x, y):
        return _total_of_lines(padded, rows, cols, x, y)
    total = np.zeros(np.broadcast_shapes(x.first.shape, y.first.shape))
    for row, weight_y in zip(rows, y.weights, strict=True):
        line = np.zeros(total.shape)
        for col, weight_x in zip(cols, x.weights, strict=True):
            line += _pick(padded, row, col) * weight_x
        total += line * weight_y
    return total


def _is_lattice(x: _Taps, y: _Taps) -> bool:
    """Whether rows and columns of both grids run along each other."""
    return y.first.ndim == 2 and y.first.shape[1] == 1 and x.first.shape[0] == 1


def _total_of_lines(
    padded: _Floats, rows: list[_Ints], cols: list[_Ints], x: _Taps, y: _Taps
) -> _Floats:
    """Weighted sums of a lattice, along x first, then along y."""
    start, stop = min(int(row.min()) for row in rows), max(int(row.max()) for row in rows) + 1
    lines = np.zeros((stop - start, x.first.shape[1]))
    for col, weight_x in zip(cols, x.weights, strict=True):
        lines += padded[start:stop].take(col[0], axis=1, mode="clip") * weight_x
    total = np.zeros((len(y.first), lines.shape[1]))
    for row, weight_y in zip(rows, y.weights, strict=True):
        total += lines.take(row[:, 0] - start, axis=0, mode="clip") * weight_y
    return total


def _inside(place: _Ints, size: int) -> _Ints:
    """Rows or columns of a padded image; those beyond the image are in its border."""
    return np.clip(place, -1, size) + 1


def _pick(padded: _Floats, row: _Ints, col: _Ints) -> _Floats:
    picked: _Floats = padded.ravel().take(row * padded.shape[1] + col, mode="clip")
    return picked


def _floor(place: _Floats) -> _Ints:
    """The integer below, far outside where there is none."""
    with np.errstate(invalid="ignore"):
        near = np.abs(place) < 1e9
    if not near.all():
        place = np.where(near, place, -1e9)
    return np.floor(place).astype(np.int64)


def _split(place: _Floats) -> tuple[_Ints, _Floats]:
    """The pixel whose centre is before a place, and the way from there."""
    before = _floor(place - 0.5)
    with np.errstate(invalid="ignore"):
        share = place - 0.5 - before
        inside = (share >= 0) & (share <= 1)
    return before, share if inside.all() else np.where(inside, share, 0.0)


def _bilinear_taps(left: _Floats, top: _Floats) -> tuple[_Taps, _Taps]:
    return _taps(left, "bilinear", 1.0), _taps(top, "bilinear", 1.0)


def _taps(place: _Floats, kernel: str, scale: float) -> _Taps:
    before, t = _split(place)
    scale = max(snapped(scale), 1.0)
    if scale > 1:
        reach = math.ceil(_REACH[kernel] * scale)
        weigh = _linear if kernel == "bilinear" else _cubic
        steps = range(1 - reach, reach + 1)
        return _Taps(before + (1 - reach), [weigh((step - t) / scale) for step in steps])
    if kernel == "bilinear":
        return _Taps(before, [1.0 - t, t])
    return _Taps(
        before - 1,
        [
            ((1.0 - 0.5 * t) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((2.0 - 1.5 * t) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ],
    )


def snapped(scale: float) -> float:
    """GDAL takes a scale that is nearly an integer as that.

    Example:
        >>> snapped(1.97), snapped(1.9)
        (2.0, 1.9)
    """
    whole = math.floor(scale + 0.5)
    return float(whole) if abs(scale - whole) < 0.05 else scale


def _box_taps(low: _Floats, high: _Floats, size: int) -> _Taps:
    with np.errstate(invalid="ignore"):
        known = (high > EDGE) & (low < size - EDGE)
    low, high = np.where(known, low, -2.0), np.where(known, high, -1.0)
    first = np.maximum(np.floor(low + EDGE), 0.0)
    stop = np.minimum(np.ceil(high - EDGE), size)
    stop = np.where((stop == first) & known, first + 1, stop)
    single = stop == first + 1
    # Not cut at the border of the image: its pixels stand for what lies beyond them.
    at_first = np.where(single, 1.0, first + 1 - low)
    at_last = np.where(single, 1.0, high - stop + 1)
    weights = []
    for step in range(int((stop - first).max(initial=1))):
        left = stop - first - step
        weight = np.where(left == 1, at_last, 1.0) if step else at_first
        weights.append(np.where(left >= 1, weight, 0.0))
    return _Taps(first.astype(np.int64), weights)


def _linear(distance: _Floats) -> _Floats:
    return np.maximum(1.0 - np.abs(distance), 0.0)


def _cubic(distance: _Floats) -> _Floats:
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _of_type(found: _Floats, has: _Bools, dtype: np.dtype[Any]) -> _Values:
    found = np.where(has, found, 0.0)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        rounded = np.floor(found + 0.5)
        # 2 ** 63 and 2 ** 64 are floats, the limits below them are not.
        top = np.nextafter(float(limits.max) + 1.0, 0.0) if dtype.itemsize == 8 else limits.max
        return np.clip(rounded, limits.min, top).astype(dtype)
    with np.errstate(over="ignore"):
        return found.astype(dtype)
