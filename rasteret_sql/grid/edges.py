"""The edges of the rings and lines of many geometries, as arrays."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

POLYGON: Final = (3,)
LINES: Final = (1, 2)
POINTS: Final = (0,)

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class Edges(NamedTuple):
    """Edges of lines; arrays of one length.

    Attributes:
        start: Coordinates of the first end, shape (n, 2).
        stop: Coordinates of the last end, shape (n, 2).
        geometry: Index of the geometry that each is from, ascending.
    """

    start: _Floats
    stop: _Floats
    geometry: _Ints


class RingEdges(NamedTuple):
    """Edges of the rings of polygons; arrays of one length.

    Attributes:
        start: Coordinates of the first end, shape (n, 2).
        stop: Coordinates of the last end, shape (n, 2).
        geometry: Index of the geometry that each is from, ascending.
        polygon: Number of the polygon, all polygons of all geometries counted.
        is_shell: Whether the ring is the outer one of its polygon.
        doubled: Twice the area of the ring, above 0 where it goes from x to y.
    """

    start: _Floats
    stop: _Floats
    geometry: _Ints
    polygon: _Ints
    is_shell: NDArray[np.bool_]
    doubled: _Floats


def parts_of(
    geometries: NDArray[np.object_], kinds: tuple[int, ...]
) -> tuple[NDArray[np.object_], _Ints]:
    """Simple geometries of some kinds, and the index of the geometry that each is from.

    Example:
        >>> both = shapely.GeometryCollection([shapely.Point(0, 0), shapely.box(0, 0, 1, 1)])
        >>> parts, of = parts_of(np.array([shapely.Point(1, 1), both]), POLYGON)
        >>> [part.geom_type for part in parts], of
        (['Polygon'], array([1]))
    """
    parts, of = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(parts) > 3).any():  # multi-parts and collections in collections
        parts, inner = shapely.get_parts(parts, return_index=True)
        of = of[inner]
    chosen = np.isin(shapely.get_type_id(parts), kinds)
    return parts[chosen], of[chosen]


def line_edges(geometries: NDArray[np.object_]) -> Edges:
    """Edges of the lines of geometries; their other parts have none."""
    lines, geometry = parts_of(geometries, LINES)
    start, stop, of = _edges(lines)
    return Edges(start, stop, geometry[of])


def ring_edges(geometries: NDArray[np.object_]) -> RingEdges:
    """Edges of the polygons of geometries; their other parts have none."""
    polygons, geometry = parts_of(geometries, POLYGON)
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    start, stop, of = _edges(rings)
    first = np.searchsorted(of, np.arange(len(rings)))[of]
    p, q = start - start[first], stop - start[first]
    area = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    # of no values bincount makes integers
    area = np.bincount(of, weights=area, minlength=len(rings)).astype(np.float64, copy=False)
    is_shell = np.diff(polygon, prepend=-1) != 0
    polygon = polygon[of]
    return RingEdges(start, stop, geometry[polygon], polygon, is_shell[of], area[of])


def _edges(lines: NDArray[np.object_]) -> tuple[_Floats, _Floats, _Ints]:
    """Ends of every edge, and the number of its line."""
    xy, line = shapely.get_coordinates(lines, return_index=True)
    inner = line[1:] == line[:-1]
    return xy[:-1][inner], xy[1:][inner], line[1:][inner]
