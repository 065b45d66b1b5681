"""Which pixels of a window a polygon, a line or a point burns, by the rules of GDAL's rasterizer.

A pixel is inside of a polygon where its centre is. Centres on an edge: with columns growing to the
right and rows down, a left edge excludes and a right edge includes them; a top edge and
the bottom edge of a north-up raster include them. Seen and measured against GDAL 3.10
(``gdal_rasterize``, which rasterio's masks use), not described in its manual.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_sql.units import Window

_MARGIN = 0.25
"""Pixels: what a geometry may leave of a window's border and still cover all its centres."""

_ALIGNED = 1e-4
"""Pixels: an axis-parallel edge so close to a pixel edge touches no pixel beyond it."""

_AXIS = 0.01
"""Pixels: an edge whose ends differ less in a coordinate counts as axis-parallel."""

_FAR = 1 << 30
"""Pixels: vertices of a line farther away are pulled to there, so that products fit."""

_POLYGON, _LINES, _POINTS = (3,), (1, 2), (0,)

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class _Edges(NamedTuple):
    """Edges of all rings: ends, number of the polygon, winding of the ring."""

    x1: _Floats
    y1: _Floats
    x2: _Floats
    y2: _Floats
    polygon: _Ints
    clockwise: NDArray[np.bool_]


def polygon_mask(
    geometry_px: BaseGeometry, window: Window, *, all_touched: bool = False
) -> NDArray[np.bool_]:
    """Mark the pixels of a window that a polygon covers.

    Args:
        geometry_px: Polygon or MultiPolygon in pixel coordinates of the image; other parts
            of a collection cover nothing.
        window: Of the image. Masks of neighbouring windows fit together.
        all_touched: Also mark the pixels that the boundary passes through.

    Returns:
        Shape (window.height, window.width), True inside.

    Example:
        >>> polygon_mask(shapely.box(0.6, 0.4, 3, 2), Window(0, 2, 0, 3)).astype(int)
        array([[0, 1, 1],
               [0, 1, 1]])
    """
    height, width = max(window.height, 0), max(window.width, 0)
    if height == 0 or width == 0 or geometry_px.is_empty:
        return np.zeros((height, width), dtype=bool)
    edges = _edges(geometry_px)
    spans = [_crossing_spans(edges, window), _bottom_spans(edges, window)]
    if all_touched:
        spans += [_level_spans(edges, window), _upright_spans(edges, window)]
        spans += [_sloped_spans(edges, window)]
    return _burn(spans, height, width)


def line_mask(
    geometry_px: BaseGeometry, window: Window, *, all_touched: bool = False
) -> NDArray[np.bool_]:
    """Mark the pixels of a window that a line burns.

    Args:
        geometry_px: LineString or MultiLineString in pixel coordinates of the image; other
            parts of a collection burn nothing.
        window: Of the image. Masks of neighbouring windows fit together.
        all_touched: Every pixel that the line passes through; else one in each row or column
            of a segment, whichever it crosses more of (Bresenham's line).

    Returns:
        Shape (window.height, window.width), True on the line.

    Example:
        >>> line = shapely.LineString([(0.9, 0.9), (3.1, 1.9)])
        >>> line_mask(line, Window(0, 2, 0, 4)).astype(int)
        array([[1, 1, 0, 0],
               [0, 0, 1, 1]])
        >>> line_mask(line, Window(0, 2, 0, 4), all_touched=True).astype(int)
        array([[1, 1, 0, 0],
               [0, 1, 1, 1]])
    """
    height, width = max(window.height, 0), max(window.width, 0)
    if height == 0 or width == 0 or geometry_px.is_empty:
        return np.zeros((height, width), dtype=bool)
    xy, line = shapely.get_coordinates(_parts(geometry_px, _LINES), return_index=True)
    inner = line[1:] == line[:-1]
    (x1, y1), (x2, y2) = xy[:-1][inner].T, xy[1:][inner].T
    edges = _Edges(x1, y1, x2, y2, line[1:][inner], np.zeros(len(x1), bool))
    if not all_touched:
        return _burn([_stepped_spans(edges, window)], height, width)
    spans = [_level_spans(edges, window, along=True), _upright_spans(edges, window, along=True)]
    return _burn([*spans, _sloped_spans(edges, window)], height, width)


def point_mask(geometry_px: BaseGeometry, window: Window) -> NDArray[np.bool_]:
    """Mark the pixels of a window that hold a point.

    Args:
        geometry_px: Point or MultiPoint in pixel coordinates of the image; other parts of a
            collection burn nothing. Left and top edges of a pixel are its own.
        window: Of the image.

    Returns:
        Shape (window.height, window.width), True where a point is.

    Example:
        >>> point_mask(shapely.Point(1.0, 0.99), Window(0, 2, 0, 3)).astype(int)
        array([[0, 1, 0],
               [0, 0, 0]])
    """
    mask = np.zeros((max(window.height, 0), max(window.width, 0)), dtype=bool)
    col, row = np.floor(shapely.get_coordinates(_parts(geometry_px, _POINTS))).T
    inside = (row >= window.row_start) & (row < window.row_stop)
    inside &= (col >= window.col_start) & (col < window.col_stop)
    row, col = row[inside] - window.row_start, col[inside] - window.col_start
    mask[row.astype(np.int64), col.astype(np.int64)] = True
    return mask


def snapped(geometry_px: BaseGeometry) -> BaseGeometry:
    """A line from pixel centre to pixel centre: it meets the pixels that `line_mask` marks.

    Example:
        >>> snapped(shapely.LineString([(0.9, 0.9), (3.1, 1.9)])).wkt
        'LINESTRING (0.5 0.5, 3.5 1.5)'
    """
    return shapely.transform(geometry_px, lambda xy: np.floor(xy) + 0.5)


def box_covers(geometry_px: BaseGeometry, window: Window) -> bool:
    """Whether a geometry surely covers all pixels of a window, so that no mask is needed.

    Example:
        >>> box_covers(shapely.box(0, 0, 4, 4), Window(0, 4, 0, 4))
        True
    """
    if window.is_empty or geometry_px.is_empty:
        return False
    row_start, row_stop, col_start, col_stop = window
    core = (col_start + _MARGIN, row_start + _MARGIN, col_stop - _MARGIN, row_stop - _MARGIN)
    xmin, ymin, xmax, ymax = geometry_px.bounds
    if xmin > core[0] or ymin > core[1] or xmax < core[2] or ymax < core[3]:
        return False
    return is_box(geometry_px) or bool(shapely.covers(geometry_px, shapely.box(*core)))


def is_box(geometry_px: BaseGeometry) -> bool:
    """Whether a geometry is one rectangle along rows and columns.

    Example:
        >>> is_box(shapely.box(0, 0, 2, 1)), is_box(shapely.Point(0, 0).buffer(1))
        (True, False)
    """
    if geometry_px.geom_type != "Polygon" or shapely.get_num_coordinates(geometry_px) != 5:
        return False
    xy = shapely.get_coordinates(geometry_px)
    (xmin, ymin), (xmax, ymax) = xy.min(axis=0), xy.max(axis=0)
    at_edge = np.isin(xy[:, 0], (xmin, xmax)) & np.isin(xy[:, 1], (ymin, ymax))
    steps = np.diff(xy, axis=0) != 0
    return bool(at_edge.all() and (steps.sum(axis=1) == 1).all())


def _parts(geometry: BaseGeometry, kinds: tuple[int, ...]) -> NDArray[np.object_]:
    """The simple parts of some kinds."""
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > 3).any():  # multi-parts and collections in collections
        parts = shapely.get_parts(parts)
    chosen: NDArray[np.object_] = parts[np.isin(shapely.get_type_id(parts), kinds)]
    return chosen


def _edges(geometry: BaseGeometry) -> _Edges:
    parts = _parts(geometry, _POLYGON)
    rings, polygon = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    inner = ring[1:] == ring[:-1]
    start, stop, of = xy[:-1][inner], xy[1:][inner], ring[1:][inner]
    first = xy[np.searchsorted(ring, of)]
    p, q = start - first, stop - first
    area = np.bincount(of, weights=p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1], minlength=len(rings))
    return _Edges(start[:, 0], start[:, 1], stop[:, 0], stop[:, 1], polygon[of], (area > 0)[of])


class _Spans(NamedTuple):
    """Runs of pixels to mark: rows, first columns, columns after the last, of the window."""

    row: _Ints
    start: _Ints
    stop: _Ints


def _burn(spans: list[_Spans], height: int, width: int) -> NDArray[np.bool_]:
    row, start, stop = (np.concatenate(group) for group in zip(*spans, strict=True))
    keep = (stop > start) & (row >= 0) & (row < height)
    base = row[keep] * (width + 1)
    start, stop = (np.clip(cols[keep], 0, width) for cols in (start, stop))
    depth = np.zeros(height * (width + 1), dtype=np.int32)
    np.add.at(depth, base + start, 1)
    np.subtract.at(depth, base + stop, 1)
    np.cumsum(depth, out=depth)  # every span ends in its row, so rows begin with 0
    covered: NDArray[np.bool_] = depth.reshape(height, width + 1)[:, :width] > 0
    return covered


def _each(first: _Ints, last: _Ints) -> tuple[_Ints, _Ints]:
    """Index of the edge, and each integer from its first to its last."""
    counts = np.maximum(last - first + 1, 0)
    index = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return index, np.arange(len(index)) - begin[index] + first[index]


def _to_ints(values: _Floats, size: int) -> _Ints:
    """Integers, far ones pulled to just outside ``[0, size]``."""
    return np.clip(values, -2, size + 2).astype(np.int64)


def _crossing_spans(edges: _Edges, window: Window) -> _Spans:
    """Pixels between the 1st and 2nd, 3rd and 4th crossing of a scanline and a polygon."""
    down = edges.y1 < edges.y2
    top, bottom = np.where(down, edges.y1, edges.y2), np.where(down, edges.y2, edges.y1)
    x_top, x_bottom = np.where(down, edges.x1, edges.x2), np.where(down, edges.x2, edges.x1)
    # The upper end of an edge is its own, the lower one is not: a vertex counts once.
    first = _to_ints(np.ceil(top - 0.5) - window.row_start, window.height)
    last = _to_ints(np.ceil(bottom - 0.5) - window.row_start, window.height) - 1
    edge, row = _each(np.maximum(first, 0), np.minimum(last, window.height - 1))
    y = row + (window.row_start + 0.5)
    run, rise = (x_bottom - x_top)[edge], (bottom - top)[edge]
    x = (y - top[edge]) * run / rise + x_top[edge]
    col = np.clip(np.floor(x + 0.5) - window.col_start, 0, window.width).astype(np.int64)
    scanline = edges.polygon[edge] * window.height + row
    key = np.sort(scanline * (window.width + 1) + col)
    line, col = np.divmod(key, window.width + 1)
    return _Spans(line[::2] % window.height, col[::2], col[1::2])


def _bottom_spans(edges: _Edges, window: Window) -> _Spans:
    """Pixels above a horizontal bottom edge that runs through their centres."""
    # A ring that is walked clockwise, as seen on a north-up map, has its bottoms leftwards.
    leftward = (edges.x1 > edges.x2) == edges.clockwise
    row = np.floor(edges.y1)
    on_centre = (edges.y1 == edges.y2) & (edges.y1 == row + 0.5) & leftward
    low = np.minimum(edges.x1, edges.x2)[on_centre]
    high = np.maximum(edges.x1, edges.x2)[on_centre]
    return _Spans(
        _to_ints(row[on_centre] - window.row_start, window.height),
        _to_ints(np.floor(low + 0.5) - window.col_start, window.width),
        _to_ints(np.floor(high + 0.5) - window.col_start, window.width),
    )


def _on_pixel_edge(first: _Floats, second: _Floats) -> NDArray[np.bool_]:
    near = np.abs(first - np.round(first)) < _ALIGNED
    return near & (np.abs(second - np.round(second)) < _ALIGNED)


def _kinds(edges: _Edges) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    upright = np.abs(edges.x1 - edges.x2) < _AXIS
    return upright, ~upright & (np.abs(edges.y1 - edges.y2) < _AXIS)


def _upright_spans(edges: _Edges, window: Window, *, along: bool = False) -> _Spans:
    """The column that an upright edge passes through; also along a pixel edge, if said so."""
    upright = _kinds(edges)[0] & (along | ~_on_pixel_edge(edges.x1, edges.x2))
    x1, y1, x2, y2 = (values[upright] for values in edges[:4])
    col = _to_ints(np.floor(np.maximum(x1, x2)) - window.col_start, window.width)
    first = _to_ints(np.floor(np.minimum(y1, y2)) - window.row_start, window.height)
    last = np.floor(np.maximum(y1, y2) - _ALIGNED) - window.row_start
    edge, row = _each(np.maximum(first, 0), _to_ints(last, window.height))
    return _Spans(row, col[edge], col[edge] + 1)


def _level_spans(edges: _Edges, window: Window, *, along: bool = False) -> _Spans:
    """The row that a horizontal edge passes through; also along a pixel edge, if said so."""
    level = _kinds(edges)[1] & (along | ~_on_pixel_edge(edges.y1, edges.y2))
    x1, y1, x2, y2 = (values[level] for values in edges[:4])
    y_left = np.where(x1 <= x2, y1, y2)
    return _Spans(
        _to_ints(np.floor(y_left) - window.row_start, window.height),
        _to_ints(np.floor(np.minimum(x1, x2)) - window.col_start, window.width),
        _to_ints(np.floor(np.maximum(x1, x2) - _ALIGNED) + 1 - window.col_start, window.width),
    )


def _sloped_spans(edges: _Edges, window: Window) -> _Spans:
    """In each row, the pixels that a sloped edge passes through."""
    upright, level = _kinds(edges)
    x1, y1, x2, y2 = (values[~upright & ~level] for values in edges[:4])
    rightward = x1 < x2
    left, right = np.where(rightward, x1, x2), np.where(rightward, x2, x1)
    y_left, y_right = np.where(rightward, y1, y2), np.where(rightward, y2, y1)
    falls = y_right > y_left  # on the image: rows grow downwards
    top, bottom = np.minimum(y1, y2), np.maximum(y1, y2)
    last = np.where(falls, np.ceil(bottom) - 1, np.floor(bottom))
    edge, row = _each(
        np.maximum(_to_ints(np.floor(top) - window.row_start, window.height), 0),
        np.minimum(_to_ints(last - window.row_start, window.height), window.height - 1),
    )
    slope = ((right - left) / (y_right - y_left))[edge]
    left, right, y_left, falls = left[edge], right[edge], y_left[edge], falls[edge]
    above = left + (row + window.row_start - y_left) * slope
    below = left + (row + window.row_start + 1 - y_left) * slope
    enter = np.clip(np.where(falls, above, below), left, right)
    leave = np.clip(np.where(falls, below, above), left, right)
    # An upward edge through a corner of four pixels also marks the one right of it.
    past = np.where(falls | (leave >= right), np.ceil(leave), np.floor(leave) + 1)
    return _Spans(
        row,
        _to_ints(np.floor(enter) - window.col_start, window.width),
        _to_ints(np.maximum(past, np.floor(enter) + 1) - window.col_start, window.width),
    )


def _stepped_spans(edges: _Edges, window: Window) -> _Spans:
    """Bresenham's line between the pixels of the ends, one pixel for each step."""
    col, row, col_end, row_end = (
        np.floor(np.clip(values, -_FAR, _FAR)).astype(np.int64) for values in edges[:4]
    )
    across, down = np.abs(col_end - col), np.abs(row_end - row)
    right, below = np.where(col > col_end, -1, 1), np.where(row > row_end, -1, 1)
    by_col = across >= down
    steps, others = np.where(by_col, across, down), np.where(by_col, down, across)
    # Steps whose column, or row, lies in the window.
    begin, sign = np.where(by_col, col, row), np.where(by_col, right, below)
    low = np.where(by_col, window.col_start, window.row_start)
    high = np.where(by_col, window.col_stop, window.row_stop) - 1
    first = np.where(sign > 0, low - begin, begin - high)
    last = np.where(sign > 0, high - begin, begin - low)
    edge, step = _each(np.maximum(first, 0), np.minimum(last, steps))
    length = np.maximum(steps[edge], 1)
    aside = (2 * others[edge] * step + length) // (2 * length)  # halfway between two: the farther
    by_col = by_col[edge]
    rows = row[edge] + below[edge] * np.where(by_col, aside, step) - window.row_start
    cols = col[edge] + right[edge] * np.where(by_col, step, aside) - window.col_start
    return _Spans(rows, cols, cols + 1)
