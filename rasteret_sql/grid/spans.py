"""Runs of pixels that edges of geometries burn, each geometry in a window of its own.

`masks` says by which rules. Columns and rows of spans are those of the window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.grid.edges import Edges, RingEdges

_ALIGNED = 1e-4
"""Pixels: an axis-parallel edge so close to a pixel edge touches no pixel beyond it."""

_AXIS = 0.01
"""Pixels: an edge whose ends differ less in a coordinate counts as axis-parallel."""

_FAR = 1 << 30
"""Pixels: vertices of a line farther away are pulled to there, so that products fit."""

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


class Windows(NamedTuple):
    """Windows of an image; arrays of one length."""

    top: _Ints
    left: _Ints
    height: _Ints
    width: _Ints

    @classmethod
    def of(cls, windows: _Ints) -> Windows:
        """Of rows and columns, (n, 4): row_start, row_stop, col_start, col_stop."""
        top, bottom, left, right = windows.T
        return cls(top, left, np.maximum(bottom - top, 0), np.maximum(right - left, 0))

    def take(self, chosen: NDArray[np.generic]) -> Windows:
        """Some of them."""
        return Windows(*(column[chosen] for column in self))


class Spans(NamedTuple):
    """Runs of pixels: number and row of the window, first column, column after the last."""

    window: _Ints
    row: _Ints
    start: _Ints
    stop: _Ints


class Segments(NamedTuple):
    """Edges to burn, with the window of each; arrays of one length.

    Attributes:
        window: Number of the window.
        within: The windows themselves.
    """

    x1: _Floats
    y1: _Floats
    x2: _Floats
    y2: _Floats
    window: _Ints
    within: Windows

    @classmethod
    def of(cls, edges: Edges | RingEdges, windows: Windows) -> Segments:
        """Edges of geometries; `windows` has one for each geometry."""
        (x1, y1), (x2, y2) = edges.start.T, edges.stop.T
        return cls(x1, y1, x2, y2, edges.geometry, windows.take(edges.geometry))

    def take(self, chosen: NDArray[np.generic]) -> Segments:
        """Some of them."""
        x1, y1, x2, y2, window = (column[chosen] for column in self[:5])
        return Segments(x1, y1, x2, y2, window, self.within.take(chosen))


def places_of(spans: list[Spans], windows: Windows) -> _Ints:
    """Pixels of spans, each once: places in the windows, flattened and laid end to end.

    Args:
        spans: They may overlap, and reach beyond their windows.
        windows: Of the numbers in `spans`.

    Example:
        >>> windows = Windows.of(np.array([[0, 1, 0, 3], [0, 2, 0, 2]]))
        >>> one, two = np.array([[0, 1], [0, 1], [1, 0], [9, 1]]), np.array([[0], [0], [0], [2]])
        >>> places_of([Spans(*one), Spans(*two)], windows)
        array([0, 1, 2, 5])
    """
    window, row, start, stop = (np.concatenate(group) for group in zip(*spans, strict=True))
    width = windows.width[window]
    start, stop = np.clip(start, 0, width), np.clip(stop, 0, width)
    keep = (stop > start) & (row >= 0) & (row < windows.height[window])
    sizes = windows.height * windows.width
    base = (np.cumsum(sizes) - sizes)[window[keep]] + row[keep] * width[keep]
    start, stop = base + start[keep], base + stop[keep]
    order = np.argsort(start, kind="stable")
    start, stop = start[order], stop[order]
    # From where those before end: what is left of each is burnt by no other.
    end = np.maximum.accumulate(stop)
    start[1:] = np.maximum(start[1:], end[:-1])
    return _each(start, stop - 1)[1]


def crossing_spans(edges: Segments, polygon: _Ints) -> Spans:
    """Pixels between the 1st and 2nd, 3rd and 4th crossing of a scanline and a polygon.

    Args:
        edges: Of rings.
        polygon: Number of the polygon of each, ascending.
    """
    within = edges.within
    down = edges.y1 < edges.y2
    top, bottom = np.where(down, edges.y1, edges.y2), np.where(down, edges.y2, edges.y1)
    x_top, x_bottom = np.where(down, edges.x1, edges.x2), np.where(down, edges.x2, edges.x1)
    # The upper end of an edge is its own, the lower one is not: a vertex counts once.
    first = _to_ints(np.ceil(top - 0.5) - within.top, within.height)
    last = _to_ints(np.ceil(bottom - 0.5) - within.top, within.height) - 1
    edge, row = _each(np.maximum(first, 0), np.minimum(last, within.height - 1))
    y = row + (within.top[edge] + 0.5)
    run, rise = (x_bottom - x_top)[edge], (bottom - top)[edge]
    x = (y - top[edge]) * run / rise + x_top[edge]
    left = within.left[edge]
    col = np.clip(np.floor(x + 0.5) - left, 0, within.width[edge]).astype(np.int64)
    # Scanlines of all polygons are numbered one after the other.
    one = np.flatnonzero(np.diff(polygon, prepend=-1))
    lines = np.cumsum(within.height[one])
    ordinal = np.repeat(np.arange(len(one)), np.diff(one, append=len(polygon)))
    scanline = (lines - within.height[one])[ordinal[edge]] + row
    stride = int(within.width.max(initial=0)) + 1
    key = np.sort(scanline * stride + col)
    line, start = np.divmod(key[::2], stride)
    at = np.searchsorted(lines, line, side="right")
    row = line - (lines - within.height[one])[at]
    return Spans(edges.window[one][at], row, start, key[1::2] % stride)


def bottom_spans(edges: Segments, clockwise: _Bools) -> Spans:
    """Pixels above a horizontal bottom edge that runs through their centres.

    Args:
        edges: Of rings.
        clockwise: Whether the ring of each goes clockwise as seen on a north-up map.
    """
    # It has its bottoms leftwards on a north-up raster, and its tops on a mirror image.
    leftward = (edges.x1 > edges.x2) == clockwise
    row = np.floor(edges.y1)
    on_centre = (edges.y1 == edges.y2) & (edges.y1 == row + 0.5) & leftward
    row, edges = row[on_centre], edges.take(on_centre)
    within = edges.within
    low, high = np.minimum(edges.x1, edges.x2), np.maximum(edges.x1, edges.x2)
    return Spans(
        edges.window,
        _to_ints(row - within.top, within.height),
        _to_ints(np.floor(low + 0.5) - within.left, within.width),
        _to_ints(np.floor(high + 0.5) - within.left, within.width),
    )


def touched_spans(edges: Segments, *, along: bool = False) -> list[Spans]:
    """The pixels that edges pass through; also along a pixel edge, if said so."""
    upright = np.abs(edges.x1 - edges.x2) < _AXIS
    level = ~upright & (np.abs(edges.y1 - edges.y2) < _AXIS)
    sloped = ~upright & ~level
    if not along:
        upright &= ~_on_pixel_edge(edges.x1, edges.x2)
        level &= ~_on_pixel_edge(edges.y1, edges.y2)
    return [
        _level_spans(edges.take(level)),
        _upright_spans(edges.take(upright)),
        _sloped_spans(edges.take(sloped)),
    ]


def stepped_spans(edges: Segments) -> Spans:
    """Bresenham's line between the pixels of the ends, one pixel for each step."""
    within = edges.within
    col, row, col_end, row_end = (
        np.floor(np.clip(values, -_FAR, _FAR)).astype(np.int64) for values in edges[:4]
    )
    across, down = np.abs(col_end - col), np.abs(row_end - row)
    right, below = np.where(col > col_end, -1, 1), np.where(row > row_end, -1, 1)
    by_col = across >= down
    steps, others = np.where(by_col, across, down), np.where(by_col, down, across)
    # Steps whose column, or row, lies in the window.
    begin, sign = np.where(by_col, col, row), np.where(by_col, right, below)
    low = np.where(by_col, within.left, within.top)
    high = low + np.where(by_col, within.width, within.height) - 1
    first = np.where(sign > 0, low - begin, begin - high)
    last = np.where(sign > 0, high - begin, begin - low)
    edge, step = _each(np.maximum(first, 0), np.minimum(last, steps))
    length = np.maximum(steps[edge], 1)
    aside = (2 * others[edge] * step + length) // (2 * length)  # halfway between two: the farther
    by_col = by_col[edge]
    rows = row[edge] + below[edge] * np.where(by_col, aside, step) - within.top[edge]
    cols = col[edge] + right[edge] * np.where(by_col, step, aside) - within.left[edge]
    return Spans(edges.window[edge], rows, cols, cols + 1)


def _each(first: _Ints, last: _Ints) -> tuple[_Ints, _Ints]:
    """Index of the edge, and each integer from its first to its last."""
    counts = np.maximum(last - first + 1, 0)
    index = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return index, np.arange(len(index)) + (first - begin)[index]


def _to_ints(values: _Floats | _Ints, size: _Ints) -> _Ints:
    """Integers, far ones pulled to just outside ``[0, size]``."""
    return np.clip(values, -2, size + 2).astype(np.int64)


def _on_pixel_edge(first: _Floats, second: _Floats) -> _Bools:
    near = np.abs(first - np.round(first)) < _ALIGNED
    return near & (np.abs(second - np.round(second)) < _ALIGNED)


def _upright_spans(edges: Segments) -> Spans:
    """The column that an upright edge passes through."""
    x1, y1, x2, y2, window, within = edges
    col = _to_ints(np.floor(np.maximum(x1, x2)) - within.left, within.width)
    first = _to_ints(np.floor(np.minimum(y1, y2)) - within.top, within.height)
    last = np.floor(np.maximum(y1, y2) - _ALIGNED) - within.top
    edge, row = _each(np.maximum(first, 0), _to_ints(last, within.height))
    return Spans(window[edge], row, col[edge], col[edge] + 1)


def _level_spans(edges: Segments) -> Spans:
    """The row that a horizontal edge passes through."""
    x1, y1, x2, y2, window, within = edges
    y_left = np.where(x1 <= x2, y1, y2)
    return Spans(
        window,
        _to_ints(np.floor(y_left) - within.top, within.height),
        _to_ints(np.floor(np.minimum(x1, x2)) - within.left, within.width),
        _to_ints(np.floor(np.maximum(x1, x2) - _ALIGNED) + 1 - within.left, within.width),
    )


def _sloped_spans(edges: Segments) -> Spans:
    """In each row, the pixels that a sloped edge passes through."""
    x1, y1, x2, y2, window, within = edges
    rightward = x1 < x2
    left, right = np.where(rightward, x1, x2), np.where(rightward, x2, x1)
    y_left, y_right = np.where(rightward, y1, y2), np.where(rightward, y2, y1)
    falls = y_right > y_left  # on the image: rows grow downwards
    top, bottom = np.minimum(y1, y2), np.maximum(y1, y2)
    last = np.where(falls, np.ceil(bottom) - 1, np.floor(bottom))
    edge, row = _each(
        np.maximum(_to_ints(np.floor(top) - within.top, within.height), 0),
        np.minimum(_to_ints(last - within.top, within.height), within.height - 1),
    )
    slope = ((right - left) / (y_right - y_left))[edge]
    left, right, y_left, falls = left[edge], right[edge], y_left[edge], falls[edge]
    within = within.take(edge)
    above = left + (row + within.top - y_left) * slope
    below = left + (row + within.top + 1 - y_left) * slope
    enter = np.clip(np.where(falls, above, below), left, right)
    leave = np.clip(np.where(falls, below, above), left, right)
    # An upward edge through a corner of four pixels also marks the one right of it.
    past = np.where(falls | (leave >= right), np.ceil(leave), np.floor(leave) + 1)
    return Spans(
        window[edge],
        row,
        _to_ints(np.floor(enter) - within.left, within.width),
        _to_ints(np.maximum(past, np.floor(enter) + 1) - within.left, within.width),
    )
