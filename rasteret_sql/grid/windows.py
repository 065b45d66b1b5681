"""Map to pixels: windows, tiles, levels and pixel centres of a grid.

Pixel coordinates are continuous, x = column and y = row, 0, 0 the upper-left corner of
the image; the centre of the first pixel is 0.5, 0.5.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_sql.units import Affine, BBox, Window

EDGE_TOLERANCE = 1e-6
"""Pixels: how far beyond a pixel edge a bound may lie and still count as on the edge."""


class TileSpan(NamedTuple):
    """Tiles ``[row_start, row_stop) x [col_start, col_stop)`` of one image level."""

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int


def to_pixels(geometry: BaseGeometry, affine: Affine) -> BaseGeometry:
    """A geometry in pixel coordinates, for rotated grids too.

    On a grid without rotation the arithmetic is GDAL's (``x * (1/a) - c/a``), so that
    edges through pixel centres fall on the side that GDAL gives them.

    Args:
        geometry: In map coordinates, the CRS of the grid.
        affine: Pixel corner to map.

    Raises:
        InputError: if a pixel has no area.

    Example:
        >>> to_pixels(shapely.box(500, 860, 520, 900), Affine(10, 0, 500, 0, -10, 900)).bounds
        (0.0, 0.0, 2.0, 4.0)
    """
    inverse = affine.inverse()
    if affine.is_rectilinear:
        scale_x, scale_y = 1.0 / affine.a, 1.0 / affine.e
        shift = np.array([-affine.c / affine.a, -affine.f / affine.e])
        return shapely.transform(geometry, lambda xy: shift + xy * [scale_x, scale_y])
    a, b, c, d, e, f = inverse
    linear = np.array([[a, d], [b, e]])
    return shapely.transform(geometry, lambda xy: xy @ linear + [c, f])


def window_of(geometry_px: BaseGeometry, height: int, width: int) -> Window:
    """The pixels of an image under the bounds of a geometry.

    Starts round down and stops round up, as in rasterio's ``geometry_window``, except that
    a bound within `EDGE_TOLERANCE` of a pixel edge is on that edge: an AOI drawn along
    pixel edges gets no further row from the noise of a reprojection. A geometry smaller
    than the tolerance keeps its pixel. Of a line or a point it is the pixels that hold its
    bounds, left and top edges included.

    Args:
        geometry_px: In pixel coordinates.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        The window, clamped to the image; empty where the geometry is outside or touches
        the image only.

    Example:
        >>> window_of(shapely.box(1.5, -3, 4.0000000001, 2), 10, 10)
        Window(row_start=0, row_stop=2, col_start=1, col_stop=4)
    """
    if geometry_px.is_empty:
        return Window(0, 0, 0, 0)
    xmin, ymin, xmax, ymax = geometry_px.bounds
    if shapely.get_dimensions(geometry_px) < 2:
        return Window(*_held(ymin, ymax, height), *_held(xmin, xmax, width))
    return Window(*_pixel_range(ymin, ymax, height), *_pixel_range(xmin, xmax, width))


def _pixel_range(low: float, high: float, size: int) -> tuple[int, int]:
    low, high = max(low, -1.0), min(high, size + 1.0)  # far or infinite bounds stay integers
    if not low <= high:
        return 0, 0
    start, stop = math.floor(low + EDGE_TOLERANCE), math.ceil(high - EDGE_TOLERANCE)
    if start >= stop:
        start, stop = math.floor(low), math.ceil(high)
    start, stop = max(start, 0), min(stop, size)
    return (start, stop) if start < stop else (0, 0)


def _held(low: float, high: float, size: int) -> tuple[int, int]:
    """The pixels on one axis that hold what lies between two places."""
    low, high = max(low, -1.0), min(high, float(size))
    if not low <= high:
        return 0, 0
    start, stop = max(math.floor(low), 0), min(math.floor(high) + 1, size)
    return (start, stop) if start < stop else (0, 0)


def tiles_under(window: Window, tile_height: int, tile_width: int) -> TileSpan:
    """The tiles that a window touches; none where the window is empty.

    Example:
        >>> tiles_under(Window(0, 513, 600, 700), 512, 512)
        TileSpan(row_start=0, row_stop=2, col_start=1, col_stop=2)
    """
    if window.is_empty:
        return TileSpan(0, 0, 0, 0)
    return TileSpan(
        window.row_start // tile_height,
        -(-window.row_stop // tile_height),
        window.col_start // tile_width,
        -(-window.col_stop // tile_width),
    )


def tile_window(
    tile_row: int, tile_col: int, tile_height: int, tile_width: int, height: int, width: int
) -> Window:
    """The pixels of a tile that lie in the image (the padding of edge tiles does not).

    Example:
        >>> tile_window(1, 0, 512, 512, 700, 300)
        Window(row_start=512, row_stop=700, col_start=0, col_stop=300)
    """
    row, col = tile_row * tile_height, tile_col * tile_width
    return Window(row, min(row + tile_height, height), col, min(col + tile_width, width))


def level_affine(
    affine: Affine, width: int, height: int, level_width: int, level_height: int
) -> Affine:
    """The affine of an overview, which covers the ground of the full resolution.

    Example:
        >>> level_affine(Affine(10, 0, 500, 0, -10, 900), 101, 100, 51, 50).e
        -20.0
    """
    across, down = width / level_width, height / level_height
    a, b, c, d, e, f = affine
    return Affine(a * across, b * down, c, d * across, e * down, f)


def pixel_centres(
    affine: Affine, window: Window
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map coordinates of the pixel centres in a window.

    Returns:
        x and y, in map units: of shape (width,) and (height,) where the grid is
        rectilinear, else both of shape (height, width).

    Example:
        >>> pixel_centres(Affine(10, 0, 500, 0, -10, 900), Window(0, 1, 2, 4))
        (array([525., 535.]), array([895.]))
    """
    a, b, c, d, e, f = affine
    cols = np.arange(window.col_start, window.col_stop, dtype=np.float64) + 0.5
    rows = np.arange(window.row_start, window.row_stop, dtype=np.float64) + 0.5
    if affine.is_rectilinear:
        return a * cols + c, e * rows + f
    grid_rows = rows[:, None]
    return a * cols + b * grid_rows + c, d * cols + e * grid_rows + f


def bounds_of(affine: Affine, height: int, width: int) -> BBox:
    """The box around an image, in map units; of a rotated image, around its corners.

    Example:
        >>> bounds_of(Affine(10, 0, 500, 0, -10, 900), 4, 2)
        BBox(xmin=500.0, ymin=860.0, xmax=520.0, ymax=900.0)
    """
    if affine.is_rectilinear:
        (x0, y0), (x1, y1) = affine.to_map(0, 0), affine.to_map(width, height)
        return BBox(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    corners = [affine.to_map(col, row) for col in (0, width) for row in (0, height)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return BBox(min(xs), min(ys), max(xs), max(ys))
