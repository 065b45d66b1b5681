"""Footprints of records: WKB and lon/lat boxes from GeoJSON, WKB, or each other."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from rasteret_sql.grid.crs import LONLAT, crs_of, is_same, transformer
from rasteret_sql.grid.reproject import reproject
from rasteret_sql.units import BBox

Geometry = Any
"""A shapely geometry; shapely has no types."""

Shapes = NDArray[np.object_]
"""shapely geometries, None where there is none; shape (rows,)."""

LON_LIMIT = 360.5
"""Farther from 0 is no longitude."""
LAT_LIMIT = 90.5
"""Farther from 0 is no latitude."""
_SEGMENTS_PER_EXTENT = 16
_HALF_WORLD = 180.0
_BBOX_LENGTHS = {4: (0, 1, 2, 3), 6: (0, 1, 3, 4)}
_MERIDIAN = 180.0
_TOUCH_DEG = 1e-6


def parse_geometry(value: object) -> Geometry | None:
    """A two-dimensional geometry of GeoJSON (dict or text), WKB or WKT; None if empty.

    Raises:
        ValueError: if it is none of these.
    """
    if value is None or value == {}:
        return None
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            geometry = shapely.from_wkb(bytes(value))
        elif isinstance(value, str) and not value.lstrip().startswith("{"):
            geometry = _from_ewkt(value)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            geometry = shapely.from_geojson(text)
    except (shapely.errors.ShapelyError, TypeError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    if geometry is None or geometry.is_empty:
        return None
    geometry = shapely.force_2d(geometry)
    if not all(map(math.isfinite, geometry.bounds)):
        raise ValueError("coordinates that are not finite")
    return geometry


def wkb_as_text(wkb: bytes) -> str:
    """WKB as WKT; bytes that are none as text that is none either.

    Example:
        >>> wkb_as_text(shapely.to_wkb(shapely.Point(1, 2)))
        'POINT (1 2)'
    """
    try:
        return str(shapely.from_wkb(wkb).wkt)
    except shapely.errors.ShapelyError:
        return "no WKB"


def _from_ewkt(text: str) -> Geometry:
    """WKT; the SRID of EWKT goes with the geometry."""
    if text[:5].upper() != "SRID=":
        return shapely.from_wkt(text)
    srid, wkt = text[5:].split(";", 1)
    return shapely.set_srid(shapely.from_wkt(wkt), int(srid))


def parse_bbox(value: object) -> BBox | None:
    """West, south, east, north of a list of four or six numbers or of a struct.

    Raises:
        ValueError: if there are not four or six numbers, or south is north of north.

    Example:
        >>> parse_bbox([-10, 40, 0, 5, 50, 900])
        BBox(xmin=-10.0, ymin=40.0, xmax=5.0, ymax=50.0)
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = [value.get(name) for name in BBox._fields]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{value!r}")  # noqa: TRY004 - one error for every bad value
    if not value or all(number is None for number in value):
        return None
    chosen = _BBOX_LENGTHS.get(len(value))
    if chosen is None:
        raise ValueError(f"{len(value)} numbers")
    try:
        box = BBox(*(float(value[i]) for i in chosen))
    except (TypeError, ValueError):
        raise ValueError(f"{list(value)!r}") from None
    if not all(map(math.isfinite, box)) or box.ymin > box.ymax:
        raise ValueError(f"{list(value)!r}")
    return box


def bbox_of(geometry: Geometry) -> BBox:
    """Lon/lat bounds; parts that meet at 180 degrees give a box with west > east.

    Source: RFC 7946, section 3.1.9 and 5.2.
    """
    whole = BBox(*(float(bound) for bound in geometry.bounds))
    if whole.xmin > _TOUCH_DEG - _MERIDIAN or whole.xmax < _MERIDIAN - _TOUCH_DEG:
        return whole
    bounds = shapely.bounds(shapely.get_parts(geometry))
    bounds = bounds[np.argsort(bounds[:, 0])]
    easts = np.maximum.accumulate(bounds[:, 2])
    gaps = bounds[1:, 0] - easts[:-1]
    if len(gaps) == 0 or gaps.max() <= 0:
        return whole
    gap = int(gaps.argmax())
    return whole._replace(xmin=float(bounds[gap + 1, 0]), xmax=float(easts[gap]))


def geometry_of(box: BBox) -> Geometry:
    """The box as a polygon; one that crosses 180 degrees as two.

    Example:
        >>> geometry_of(BBox(170, 0, -170, 1)).geom_type
        'MultiPolygon'
    """
    if box.xmin <= box.xmax:
        return shapely.box(*box)
    west = shapely.box(box.xmin, box.ymin, _MERIDIAN, box.ymax)
    east = shapely.box(-_MERIDIAN, box.ymin, box.xmax, box.ymax)
    return shapely.MultiPolygon([west, east])


def split_at_antimeridian(box: BBox) -> list[BBox]:
    """One box, or the two halves of a box with west > east."""
    if box.xmin <= box.xmax:
        return [box]
    return [box._replace(xmax=_MERIDIAN), box._replace(xmin=-_MERIDIAN)]


def boxes_meet(a: BBox, b: BBox) -> bool:
    """Whether lon/lat boxes share a point, across the antimeridian too.

    Example:
        >>> boxes_meet(BBox(170, 0, -170, 1), BBox(-175, 0, -174, 1))
        True
    """
    return any(
        one.intersects(other)
        for one in split_at_antimeridian(a)
        for other in split_at_antimeridian(b)
    )


def to_lonlat(shapes: Shapes, crs: pyproj.CRS) -> Shapes:
    """Transform to CRS84; straight edges become curves, what crosses 180 degrees is cut."""
    if is_same(crs, crs_of(LONLAT)) or crs.to_epsg() in {4326, 4979}:
        return shapes
    bounds = shapely.bounds(shapes)
    extent = np.fmax(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    length = np.where(extent > 0, extent / _SEGMENTS_PER_EXTENT, 1.0)
    dense = np.asarray(shapely.segmentize(shapes, length), object)
    move = transformer(crs, LONLAT)

    def moved(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(move.transform(xy[:, 0], xy[:, 1]))

    result = np.asarray(shapely.transform(dense, moved), object)
    bounds = shapely.bounds(result)
    result[~np.isfinite(bounds).all(axis=1)] = None
    wide = np.nonzero(bounds[:, 2] - bounds[:, 0] > _HALF_WORLD)[0]
    for row in wide:
        if shapely.get_dimensions(shapes[row]) == 2:
            result[row] = reproject(shapes[row], crs, crs_of(LONLAT))
    return result
