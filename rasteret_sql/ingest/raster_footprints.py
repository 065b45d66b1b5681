"""Where rasters lie, in longitude and latitude, as their headers say it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import shapely
from pyproj.exceptions import ProjError

from rasteret_sql.collections.footprints import to_lonlat
from rasteret_sql.errors import RasteretError
from rasteret_sql.grid.crs import LONLAT, crs_of, transformer
from rasteret_sql.grid.windows import bounds_of
from rasteret_sql.tiff.layout import Header
from rasteret_sql.units import Affine, BBox

_CIRCLE = 360.0
_TOUCH_DEG = 1e-9
_UNPLACED = (ProjError, RasteretError, ValueError, shapely.errors.ShapelyError)


class RasterGrid(NamedTuple):
    """The grid of a raster that has a CRS and a transform."""

    crs: str
    affine: Affine
    height: int
    width: int

    @classmethod
    def of(cls, header: Header) -> RasterGrid | None:
        """The grid of a header, None where it does not tell where the raster lies."""
        georef = header.georef
        if georef.affine is None or georef.crs is None:
            return None
        return cls(georef.crs, georef.affine, header.image.height, header.image.width)


@lru_cache(maxsize=4096)
def lonlat_box(grid: RasterGrid) -> BBox | None:
    """Bounds in degrees, west > east across 180; None where the CRS is not of the Earth."""
    bounds = bounds_of(grid.affine, grid.height, grid.width)
    try:
        box = transformer(grid.crs, LONLAT).transform_bounds(*bounds, densify_pts=21)
    except _UNPLACED:  # an engineering CRS, or one of another planet
        return None
    return _folded(BBox(*map(float, box))) if all(map(math.isfinite, box)) else None


def _folded(box: BBox) -> BBox:
    """A box in degrees within -180 and 180, west > east across 180.

    Rasters of longitudes beyond, as 0 to 360, keep their own; RFC 7946 section 5.2 folds.
    """
    if box.xmax - box.xmin >= _CIRCLE - _TOUCH_DEG:
        return BBox(-_CIRCLE / 2, box.ymin, _CIRCLE / 2, box.ymax)
    if box.xmin >= -_CIRCLE / 2 and box.xmax <= _CIRCLE / 2:
        return box
    west = (box.xmin + _CIRCLE / 2) % _CIRCLE - _CIRCLE / 2
    east = _CIRCLE / 2 - (_CIRCLE / 2 - box.xmax) % _CIRCLE  # 180 stays 180
    return BBox(west, box.ymin, east, box.ymax)


@lru_cache(maxsize=1024)
def lonlat_footprint(grid: RasterGrid) -> bytes | None:
    """The outline in degrees as WKB, cut where it crosses 180; None as for `lonlat_box`."""
    corners = ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
    outline = shapely.Polygon([grid.affine.to_map(*corner) for corner in corners])
    try:
        shape = to_lonlat(np.array([outline], object), crs_of(grid.crs))[0]
    except _UNPLACED:
        return None
    return None if shape is None else bytes(shapely.to_wkb(shape))


def inside(grid: RasterGrid, box: BBox) -> BBox:
    """The bounds of a raster less half a pixel on each side: pixel centres lie there."""
    length, height = _length(box), box.ymax - box.ymin
    dx, dy = length / grid.width / 2, height / grid.height / 2
    return BBox(box.xmin + dx, box.ymin + dy, box.xmin + length - dx, box.ymax - dy)


def covers(outer: BBox, inner: BBox) -> bool:
    """Whether a box in degrees holds another; either may cross 180 (west > east).

    Example:
        >>> covers(BBox(170, 0, -170, 2), BBox(-179, 0, -175, 1))
        True
    """
    if inner.ymin < outer.ymin - _TOUCH_DEG or inner.ymax > outer.ymax + _TOUCH_DEG:
        return False
    if _length(outer) >= _CIRCLE - _TOUCH_DEG:
        return True
    start = (inner.xmin - outer.xmin + _TOUCH_DEG) % _CIRCLE - _TOUCH_DEG
    return start + _length(inner) <= _length(outer) + _TOUCH_DEG


def widened(box: BBox, other: BBox) -> BBox:
    """The smallest box in degrees that holds both; west > east if it crosses 180.

    Example:
        >>> widened(BBox(170, 0, 175, 1), BBox(-179, -1, -178, 1))
        BBox(xmin=170, ymin=-1, xmax=-178, ymax=1)
    """
    south, north = min(box.ymin, other.ymin), max(box.ymax, other.ymax)
    found = []
    for first, second in ((box, other), (other, box)):
        start = (second.xmin - first.xmin) % _CIRCLE
        found.append((max(_length(first), start + _length(second)), first.xmin))
    length, west = min(found)
    if length >= _CIRCLE:
        return BBox(-_CIRCLE / 2, south, _CIRCLE / 2, north)
    east = max((one.xmax for one in (box, other)), key=lambda x: _near(x, west + length))
    return BBox(west, south, east, north)


def _near(x: float, wanted: float) -> float:
    """How near two longitudes are, larger is nearer."""
    away = abs(x - wanted) % _CIRCLE
    return -min(away, _CIRCLE - away)


def _length(box: BBox) -> float:
    """Degrees of longitude from west to east."""
    length = box.xmax - box.xmin
    return length if length >= 0 else length + _CIRCLE
