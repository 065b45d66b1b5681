"""How much of each pixel a polygon covers, how long a line runs in it, how large it is.

Exact: every edge is cut where it crosses a row or a column, and each piece adds the area
between itself and the right side of its pixel. The same cut gives the length of a line in
each pixel. Coordinates are pixels of the image, as in `windows`.

GEOS 3.14 has a function for the shares too. It was measured and not taken: on some valid
multipolygons whose parts touch in a point it is wrong by whole pixels, on some it crashes.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_sql.grid.crs import LONLAT, crs_of, transformer
from rasteret_sql.grid.edges import RingEdges, line_edges, ring_edges
from rasteret_sql.units import Affine, Window

_MAX_CELLS = 1 << 21
"""Pixels worked on at a time; 8 bytes each."""

_SMALL_AREA = 1e-3
"""Square pixels: the shares of a smaller polygon are computed without others, to all digits."""

_NOISE = 16 * np.finfo(np.float64).eps
"""Share of a coordinate: a piece so short comes from rounding, not from the geometry."""

_AREA_STEPS, _AREA_TOLERANCE = (32, 8, 1), 1e-7
"""Pixels between cells whose geodesic area is computed, and what the others may be off."""

_POLAR_DEGREES = 89.0
"""Beyond this latitude a cell may hold a pole, and its area comes from geodesics."""

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Size = int | _Ints


class _Pieces(NamedTuple):
    """Parts of edges that each lie in one pixel of a window; ends in pixels of the window."""

    x1: _Floats
    y1: _Floats
    x2: _Floats
    y2: _Floats
    row: _Ints
    col: _Ints
    edge: _Ints


def coverage_fractions(geometry_px: BaseGeometry, window: Window) -> NDArray[np.float32]:
    """The share of each pixel that lies inside a polygon.

    Args:
        geometry_px: Valid Polygon or MultiPolygon in pixel coordinates of the image; other
            parts of a collection cover nothing. Where polygons overlap, their shares are
            added, up to 1.
        window: Of the image. Neighbouring windows fit together.

    Returns:
        Shape (window.height, window.width), 0 to 1; exactly 0 and 1 in pixels that the
        boundary does not enter.

    Example:
        >>> coverage_fractions(shapely.box(0.5, 0.5, 2, 2), Window(0, 2, 0, 3))
        array([[0.25, 0.5 , 0.  ],
               [0.5 , 1.  , 0.  ]], dtype=float32)
    """
    covered = np.zeros((max(window.height, 0), max(window.width, 0)), dtype=np.float32)
    if covered.size == 0 or geometry_px.is_empty:
        return covered
    rings = ring_edges(np.array([geometry_px]))
    start, stop, sign = rings.start, rings.stop, _signs(rings)
    origin = np.array([window.col_start, window.row_start], dtype=np.float64)
    start, stop = start - origin, stop - origin
    rows = max(_MAX_CELLS // window.width, 1)
    for first in range(0, window.height, rows):
        strip = covered[first : first + rows]
        height, width = strip.shape
        shift = np.array([0.0, first])
        pieces = _cut(start - shift, stop - shift, height, width)
        cell = pieces.row * (width + 1) + np.maximum(pieces.col, 0)
        added, crossed = _added(pieces, sign, cell, width, height * (width + 1))
        shares = np.cumsum(added.reshape(height, width + 1)[:, :width], axis=1)
        strip[:] = _rounded(shares, crossed.reshape(height, width + 1)[:, :width])
    return covered


def coverage_of_each(geometries_px: NDArray[np.object_], windows: _Ints) -> NDArray[np.float32]:
    """`coverage_fractions` of many polygons at once; of small ones many times as fast.

    Args:
        geometries_px: As for `coverage_fractions`; shares below 1e-9 are not told from 0.
        windows: One for each, (n, 4): row_start, row_stop, col_start, col_stop.

    Returns:
        Shares of all windows, flattened and laid end to end.

    Example:
        >>> boxes = np.array([shapely.box(0, 0, 1.5, 1), shapely.box(5, 5, 6, 7)])
        >>> coverage_of_each(boxes, np.array([[0, 1, 0, 2], [5, 7, 5, 6]]))
        array([1. , 0.5, 1. , 1. ], dtype=float32)
    """
    height, width = (np.maximum(windows[:, n + 1] - windows[:, n], 0) for n in (0, 2))
    ends = np.cumsum(height * width)
    covered = np.zeros(int(ends[-1]) if len(ends) else 0, np.float32)
    begins = ends - height * width
    some = (begins < ends) & ~shapely.is_empty(geometries_px)
    cells = (height + 1) * (width + 1)
    alone = some & ((cells > _MAX_CELLS // 8) | (shapely.area(geometries_px) < _SMALL_AREA))
    for zone in np.flatnonzero(alone).tolist():
        window = Window(*windows[zone].tolist())
        covered[begins[zone] : ends[zone]] = coverage_fractions(geometries_px[zone], window).ravel()
    together = np.flatnonzero(some & ~alone)
    batch = np.cumsum(cells[together]) // _MAX_CELLS
    edges = np.flatnonzero(np.diff(batch, prepend=-1, append=-1))
    for first, stop in itertools.pairwise(edges.tolist()):
        zones = together[first:stop]
        shares = _covered(geometries_px[zones], windows[zones])
        covered[_spelled_out(begins[zones], ends[zones])] = shares
    return covered


def length_in_cells(
    geometry_px: BaseGeometry,
    window: Window,
    affine: Affine | None = None,
    crs: str | int | pyproj.CRS | None = None,
) -> NDArray[np.float64]:
    """The length of a line inside each pixel.

    A line that runs along the edge between two pixels counts in the one right of it or
    below it.

    Args:
        geometry_px: LineString or MultiLineString in pixel coordinates of the image; other
            parts of a collection have no length.
        window: Of the image. Neighbouring windows fit together.
        affine: Pixel corner to map; with it lengths are in map units, else in pixels.
        crs: Of the map; with it and `affine` lengths are geodesic, in metres.

    Returns:
        Shape (window.height, window.width), 0 where no line is.

    Example:
        >>> line = shapely.LineString([(0.5, 0.5), (2.5, 0.5)])
        >>> length_in_cells(line, Window(0, 1, 0, 3), Affine(10, 0, 500, 0, -10, 900))
        array([[ 5., 10.,  5.]])
    """
    height, width = max(window.height, 0), max(window.width, 0)
    if height == 0 or width == 0 or geometry_px.is_empty:
        return np.zeros((height, width))
    edges, origin = line_edges(np.array([geometry_px])), (window.col_start, window.row_start)
    pieces = _cut(edges.start - origin, edges.stop - origin, height, width)
    inside = (pieces.col >= 0) & (pieces.col < width)
    x1, y1, x2, y2 = (values[inside] for values in pieces[:4])
    cell = pieces.row[inside] * width + pieces.col[inside]
    if affine is None:
        length = np.hypot(x2 - x1, y2 - y1)
    elif crs is None:
        dx, dy = x2 - x1, y2 - y1
        length = np.hypot(affine.a * dx + affine.b * dy, affine.d * dx + affine.e * dy)
    else:
        first = _lonlat(x1 + window.col_start, y1 + window.row_start, affine, crs)
        last = _lonlat(x2 + window.col_start, y2 + window.row_start, affine, crs)
        length = np.asarray(_geod(crs).inv(*first, *last)[2])
    return _summed(cell, length, height * width).reshape(height, width)


def cell_areas(affine: Affine, crs: str | int | pyproj.CRS, window: Window) -> NDArray[np.float64]:
    """The area of each pixel on the ellipsoid of the CRS, in square metres.

    Computed for pixels that lie up to 32 apart and interpolated between them to 1e-6.

    Args:
        affine: Pixel corner to map.
        crs: Of the map.
        window: Of the image.

    Returns:
        Shape (window.height, window.width); of a rectilinear grid of longitudes and
        latitudes (window.height, 1), as all pixels of a row have one area. NaN where the
        projection has no inverse.

    Example:
        >>> cell_areas(Affine(1, 0, 0, 0, -1, 1), "EPSG:4326", Window(0, 1, 0, 9)).round()
        array([[1.23084639e+10]])
    """
    if window.is_empty:
        return np.zeros((max(window.height, 0), max(window.width, 0)))
    is_rows = crs_of(crs).is_geographic and affine.is_rectilinear
    width = 1 if is_rows else window.width
    for step in _AREA_STEPS:
        rows = _spread(window.row_start, window.row_stop, step)
        cols = _spread(window.col_start, window.col_start + width, step)
        areas = _quadrangles(rows, cols, affine, crs)
        halfway = _halfway(rows), _halfway(cols)
        true = _quadrangles(*halfway, affine, crs)
        between = _filled(areas, rows, cols, *halfway)
        if (np.abs(between - true) <= _AREA_TOLERANCE * true).all():
            break
    every_row = np.arange(window.row_start, window.row_stop)
    return _filled(areas, rows, cols, every_row, np.arange(width) + window.col_start)


def _covered(geometries_px: NDArray[np.object_], windows: _Ints) -> NDArray[np.float32]:
    """Shares of the pixels of windows, one row of pixels after the other in one line."""
    rings = ring_edges(geometries_px)
    of, origin = rings.geometry, windows[:, [2, 0]].astype(np.float64)
    height, width = windows[:, 1] - windows[:, 0], windows[:, 3] - windows[:, 2]
    start, stop = rings.start - origin[of], rings.stop - origin[of]
    pieces = _cut(start, stop, height[of], width[of])
    of = of[pieces.edge]
    stride = width + 1
    ends = np.cumsum(height * stride)
    cell = (ends - height * stride)[of] + pieces.row * stride[of] + np.maximum(pieces.col, 0)
    added, crossed = _added(pieces, _signs(rings), cell, width[of], int(ends[-1]))
    shares = np.cumsum(added)
    strides = np.repeat(stride, height)
    last = np.cumsum(strides) - 1
    first = last + 1 - strides
    shares -= np.repeat(shares[first] - added[first], strides)
    inside = np.ones(len(shares), dtype=bool)
    inside[last] = False
    return _rounded(shares, crossed)[inside].astype(np.float32)


def _spelled_out(first: _Ints, stop: _Ints) -> _Ints:
    """Each integer of some ranges."""
    sizes = stop - first
    begin = np.cumsum(sizes) - sizes
    spelled_out: _Ints = np.arange(int(sizes.sum())) + np.repeat(first - begin, sizes)
    return spelled_out


def _signs(rings: RingEdges) -> _Floats:
    """The sign by which the ring of each edge adds area."""
    signs: _Floats = np.where(rings.is_shell, -1.0, 1.0) * np.sign(rings.doubled)
    return signs


def _cut(start: _Floats, stop: _Floats, height: _Size, width: _Size) -> _Pieces:
    """Cut edges at the sides of the pixels of a window, or each of those of its own.

    Returns:
        The pieces in the rows of the window; a column outside of it is -1 or `width`.
    """
    low, high = np.minimum(start[:, 1], stop[:, 1]), np.maximum(start[:, 1], stop[:, 1])
    near = (high >= 0) & (low <= height) & (np.minimum(start[:, 0], stop[:, 0]) <= width)
    index = np.flatnonzero(near)
    (x1, y1), (x2, y2) = start[near].T, stop[near].T
    if not isinstance(height, int) and not isinstance(width, int):
        height, width = height[near], width[near]
    by_row, row_lines = _lines_between(y1, y2, height)
    by_col, col_lines = _lines_between(x1, x2, width)
    t_row = (row_lines - y1[by_row]) / (y2 - y1)[by_row]
    t_col = (col_lines - x1[by_col]) / (x2 - x1)[by_col]
    ends = np.arange(len(index))
    edge = np.concatenate([ends, by_row, by_col, ends])
    t = np.concatenate([np.zeros(len(ends)), t_row, t_col, np.ones(len(ends))])
    x = np.concatenate([x1, x1[by_row] + t_row * (x2 - x1)[by_row], col_lines, x2])
    y = np.concatenate([y1, row_lines, y1[by_col] + t_col * (y2 - y1)[by_col], y2])
    order = np.argsort(2.0 * edge + t, kind="stable")
    edge, x, y = edge[order], x[order], y[order]
    before = np.flatnonzero(edge[1:] == edge[:-1])
    x1, y1, x2, y2, edge = x[before], y[before], x[before + 1], y[before + 1], edge[before]
    if not isinstance(height, int) and not isinstance(width, int):
        height, width = height[edge], width[edge]
    row = np.floor(np.clip((y1 + y2) / 2, -1, height)).astype(np.int64)
    col = np.floor(np.clip((x1 + x2) / 2, -1, width)).astype(np.int64)
    inside = (row >= 0) & (row < height)
    pieces = (values[inside] for values in (x1, y1, x2, y2, row, col, index[edge]))
    return _Pieces(*pieces)


def _lines_between(first: _Floats, last: _Floats, size: _Size) -> tuple[_Ints, _Floats]:
    """Index of the edge, and each integer of ``0 .. size`` strictly between its ends."""
    low, high = np.minimum(first, last), np.maximum(first, last)
    start = np.clip(np.floor(low) + 1, 0, size + 1).astype(np.int64)
    stop = np.clip(np.ceil(high), 0, size + 1).astype(np.int64)
    counts = np.maximum(stop - start, 0)
    index = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return index, (np.arange(len(index)) + (start - begin)[index]).astype(np.float64)


def _added(
    pieces: _Pieces, sign: _Floats, cell: _Ints, width: _Size, cells: int
) -> tuple[_Floats, NDArray[np.bool_]]:
    """What each pixel adds to the share of the row up to it, and where an edge enters it.

    Of a row of pixels and one more, which takes what is right of the window.
    """
    x1, y1, x2, y2, _, col, edge = pieces
    rise = (y2 - y1) * sign[edge]
    share = np.clip(1.0 - ((x1 + x2) / 2 - col), 0.0, 1.0)
    share[(col < 0) | (col >= width)] = 1.0  # beside the window: nothing is left for a next pixel
    added = _summed(cell, rise * share, cells + 1)
    added[1:] += _summed(cell, rise * (1.0 - share), cells + 1)[:-1]
    entered = np.zeros(cells + 1, dtype=bool)
    entered[cell[_enters(pieces, width)]] = True
    return added[:-1], entered[:-1]


def _rounded(shares: _Floats, crossed: NDArray[np.bool_]) -> _Floats:
    """Shares from 0 to 1; all or nothing, but for rounding, where no edge enters a pixel."""
    np.rint(shares, out=shares, where=~crossed)
    return np.clip(shares, 0.0, 1.0, out=shares)


def _summed(cell: _Ints, values: _Floats, cells: int) -> _Floats:
    # of no values bincount makes integers
    return np.bincount(cell, weights=values, minlength=cells).astype(np.float64, copy=False)


def _enters(pieces: _Pieces, width: _Size) -> NDArray[np.bool_]:
    """Whether a piece runs inside a pixel, not along its side nor by rounding only."""
    x1, y1, x2, y2, _, col, _ = pieces
    along_col = (x1 == x2) & (x1 == np.floor(x1))
    along_row = (y1 == y2) & (y1 == np.floor(y1))
    extent = np.maximum(np.abs(x2 - x1), np.abs(y2 - y1))
    size = np.maximum(np.maximum(np.abs(x1), np.abs(y1)), 1.0)
    inside = (col >= 0) & (col < width)
    enters: NDArray[np.bool_] = inside & ~along_col & ~along_row & (extent > _NOISE * size)
    return enters


def _lonlat(
    col: _Floats, row: _Floats, affine: Affine, crs: str | int | pyproj.CRS
) -> tuple[_Floats, _Floats]:
    a, b, c, d, e, f = affine
    x, y = a * col + b * row + c, d * col + e * row + f
    own = crs_of(crs)
    if own.is_geographic:
        return x, y
    lon, lat = transformer(crs, own.geodetic_crs or LONLAT).transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def _geod(crs: str | int | pyproj.CRS) -> pyproj.Geod:
    return crs_of(crs).get_geod() or pyproj.Geod(ellps="WGS84")


def _spread(start: int, stop: int, step: int) -> _Ints:
    """Integers of ``[start, stop)`` at most `step` apart, both ends among them."""
    count = 1 + -(-(stop - 1 - start) // step)
    return np.unique(np.rint(np.linspace(start, stop - 1, count)).astype(np.int64))


def _halfway(at: _Ints) -> _Ints:
    return (at[1:] + at[:-1]) // 2 if len(at) > 1 else at


def _quadrangles(
    rows: _Ints, cols: _Ints, affine: Affine, crs: str | int | pyproj.CRS
) -> NDArray[np.float64]:
    geod = _geod(crs)
    row, col = (grid.ravel() for grid in np.meshgrid(rows, cols, indexing="ij"))
    across = col[:, None] + np.array([0.0, 1.0, 1.0, 0.0])
    down = row[:, None] + np.array([0.0, 0.0, 1.0, 1.0])
    lon, lat = _lonlat(across, down, affine, crs)
    lon = np.unwrap(lon, period=360, axis=1)
    # Longitude and authalic latitude span a plane in which areas are true.
    u, v = np.radians(lon), _authalic(np.sin(np.radians(lat)), geod.es)
    u, v = u - u[:, :1], v - v[:, :1]
    areas = np.abs((u * np.roll(v, -1, axis=1) - np.roll(u, -1, axis=1) * v).sum(axis=1))
    areas = areas * (geod.b**2 / 4)
    by_pole = ~np.isclose(np.abs(lat).max(axis=1), 90) if crs_of(crs).is_geographic else True
    for cell in np.flatnonzero((np.abs(lat) > _POLAR_DEGREES).any(axis=1) & by_pole):
        areas[cell] = abs(geod.polygon_area_perimeter(lon[cell], lat[cell])[0])
    grid: _Floats = areas.reshape(len(rows), len(cols))
    return grid


def _authalic(sine: _Floats, es: float) -> _Floats:
    """Twice the area between equator and a latitude, per radian and ``b ** 2``."""
    if es == 0:
        return 2 * sine
    e = np.sqrt(es)
    authalic: _Floats = sine / (1 - es * sine**2) + np.arctanh(e * sine) / e
    return authalic


def _filled(values: _Floats, rows: _Ints, cols: _Ints, at_rows: _Ints, at_cols: _Ints) -> _Floats:
    """Bilinear between the cells of a lattice."""
    return _interpolated(_interpolated(values, rows, at_rows).T, cols, at_cols).T


def _interpolated(values: _Floats, at: _Ints, wanted: _Ints) -> _Floats:
    if len(at) == 1:
        return values[np.zeros(len(wanted), dtype=np.int64)]
    after = np.clip(np.searchsorted(at, wanted, side="right"), 1, len(at) - 1)
    share = (wanted - at[after - 1]) / (at[after] - at[after - 1])
    low, high = values[after - 1], values[after]
    filled: _Floats = low + share[:, None] * (high - low)
    return filled
