"""Which pixels of a window a polygon, a line or a point burns, by the rules of GDAL's rasterizer.

A pixel is inside of a polygon where its centre is. Centres on an edge: with columns growing to the
right and rows down, a left edge excludes and a right edge includes them; a top edge and
the bottom edge of a north-up raster include them. On a raster that shows the map as in a mirror,
as one that is south-up, bottom edges exclude them, and the top edge of a hole includes them. Seen
and measured against GDAL 3.10 (``gdal_rasterize``, which rasterio's masks use), not described in
its manual.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_sql.grid.edges import POINTS, POLYGON, line_edges, parts_of, ring_edges
from rasteret_sql.grid.spans import (
    Segments,
    Spans,
    Windows,
    bottom_spans,
    crossing_spans,
    places_of,
    stepped_spans,
    touched_spans,
)
from rasteret_sql.units import Window

_MARGIN = 0.25
"""Pixels: what a geometry may leave of a window's border and still cover all its centres."""

_Ints = NDArray[np.int64]


def polygon_mask(
    geometry_px: BaseGeometry,
    window: Window,
    *,
    all_touched: bool = False,
    is_mirrored: bool = False,
) -> NDArray[np.bool_]:
    """Mark the pixels of a window that a polygon covers.

    Args:
        geometry_px: Polygon or MultiPolygon in pixel coordinates of the image; other parts
            of a collection cover nothing.
        window: Of the image. Masks of neighbouring windows fit together.
        all_touched: Also mark the pixels that the boundary passes through.
        is_mirrored: Whether the raster is a mirror image of the map.

    Returns:
        Shape (window.height, window.width), True inside.

    Example:
        >>> polygon_mask(shapely.box(0.6, 0.4, 3, 2), Window(0, 2, 0, 3)).astype(int)
        array([[0, 1, 1],
               [0, 1, 1]])
    """
    one, windows = _one(geometry_px, window)
    places = polygon_places(one, windows, all_touched=all_touched, is_mirrored=is_mirrored)
    return _marked(places, window)


def polygon_places(
    geometries_px: NDArray[np.object_],
    windows: _Ints,
    *,
    all_touched: bool = False,
    is_mirrored: bool = False,
) -> _Ints:
    """The pixels of `polygon_mask` of many polygons at once, each in a window of its own.

    Args:
        geometries_px: As for `polygon_mask`.
        windows: One for each, (n, 4): row_start, row_stop, col_start, col_stop.
        all_touched: As for `polygon_mask`.
        is_mirrored: As for `polygon_mask`.

    Returns:
        Where the masks are True, if they are flattened and laid end to end; ascending.

    Example:
        >>> boxes = np.array([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 7, 7)])
        >>> polygon_places(boxes, np.array([[0, 1, 0, 2], [5, 7, 5, 6]]))
        array([0, 2, 3])
    """
    rings = ring_edges(geometries_px)
    within = Windows.of(windows)
    edges = Segments.of(rings, within)
    clockwise = rings.doubled < 0 if is_mirrored else rings.doubled > 0
    spans = [crossing_spans(edges, rings.polygon), bottom_spans(edges, clockwise)]
    if all_touched:
        spans += touched_spans(edges)
    return places_of(spans, within)


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
    one, windows = _one(geometry_px, window)
    return _marked(line_places(one, windows, all_touched=all_touched), window)


def line_places(
    geometries_px: NDArray[np.object_], windows: _Ints, *, all_touched: bool = False
) -> _Ints:
    """The pixels of `line_mask` of many lines at once; as `polygon_places`."""
    within = Windows.of(windows)
    edges = Segments.of(line_edges(geometries_px), within)
    spans = touched_spans(edges, along=True) if all_touched else [stepped_spans(edges)]
    return places_of(spans, within)


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
    return _marked(point_places(*_one(geometry_px, window)), window)


def point_places(geometries_px: NDArray[np.object_], windows: _Ints) -> _Ints:
    """The pixels of `point_mask` of many points at once; as `polygon_places`."""
    points, of = parts_of(geometries_px, POINTS)
    within = Windows.of(windows)
    there = within.take(of)
    col, row = np.floor(shapely.get_coordinates(points)).T
    row = np.clip(row - there.top, -1, there.height).astype(np.int64)
    col = np.clip(col - there.left, -1, there.width).astype(np.int64)
    return places_of([Spans(of, row, col, col + 1)], within)


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
    return bool(are_boxes(np.array([geometry_px], object))[0])


def are_boxes(geometries_px: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which geometries are one rectangle along rows and columns each; as `is_box`."""
    found = shapely.get_type_id(geometries_px) == POLYGON[0]
    found &= shapely.get_num_coordinates(geometries_px) == 5
    xy = shapely.get_coordinates(geometries_px[found]).reshape(-1, 5, 2)
    at_edge = (xy == xy.min(axis=1, keepdims=True)) | (xy == xy.max(axis=1, keepdims=True))
    steps = (np.diff(xy, axis=1) != 0).sum(axis=2) == 1
    found[found] = at_edge.all(axis=(1, 2)) & steps.all(axis=1)
    boxes: NDArray[np.bool_] = found
    return boxes


def _one(geometry_px: BaseGeometry, window: Window) -> tuple[NDArray[np.object_], _Ints]:
    return np.array([geometry_px], object), np.array([window], np.int64)


def _marked(places: _Ints, window: Window) -> NDArray[np.bool_]:
    height, width = max(window.height, 0), max(window.width, 0)
    mask = np.zeros(height * width, dtype=bool)
    mask[places] = True
    return mask.reshape(height, width)
