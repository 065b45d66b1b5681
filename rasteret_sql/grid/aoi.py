"""Areas of interest: a bbox or a geometry, in any CRS, as one type.

Edges are straight in the CRS that the area is in; in another CRS they become curves,
which `Aoi.to_crs` follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, crs_of, is_same
from rasteret_sql.grid.forms import read_geometry
from rasteret_sql.grid.reproject import (
    fold_longitudes,
    is_large,
    joined,
    lonlat_boxes,
    polygonal,
    reproject,
    shift_into,
)
from rasteret_sql.units import BBox

_ORDER = "the order is west, south, east, north"
_SAY_CRS = "say geometry_crs := 'EPSG:n' where coordinates are not longitude and latitude"
_MAX_CACHED = 256


@dataclass(frozen=True, slots=True)
class Aoi:
    """An area of interest; `parse_aoi` makes one.

    Attributes:
        geometry: Polygon or MultiPolygon; of longitudes and latitudes, within -180..180.
        crs: What the coordinates are in; None = pixels (x = column, y = row).
    """

    geometry: BaseGeometry
    crs: pyproj.CRS | None
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_pixel(self) -> bool:
        """Whether the coordinates are columns and rows instead of map units."""
        return self.crs is None

    def lonlat_boxes(self) -> list[BBox]:
        """One box in longitude, latitude that holds the area, two across the antimeridian.

        Returns:
            ``xmin <= xmax`` in every box; no box for pixel coordinates, or a CRS from which
            PROJ knows no way to degrees: those can be anywhere.
        """
        crs = self.crs
        if crs is None:
            return []
        boxes: list[BBox] = self._once("boxes", lambda: lonlat_boxes(self.geometry, crs))
        return list(boxes)

    def to_crs(self, crs: str | int | pyproj.CRS, bounds: BBox | None = None) -> BaseGeometry:
        """The area in the CRS of a raster, curves followed to 1e-7 of its extent.

        In the CRS that it is in already, the geometry comes back as it is.

        Args:
            crs: Of the raster.
            bounds: Of the raster, in its CRS. With bounds, longitudes are shifted by 360
                degrees where the raster has them so (0..360), and of an area too large for
                the raster's projection the part around the raster is kept.

        Returns:
            Polygon or MultiPolygon, empty where nothing of the area can be transformed.

        Raises:
            InputError: if the area is in pixel coordinates, or PROJ knows no way there.

        Example:
            >>> aoi = parse_aoi(bbox=[-20, 0, -10, 1])
            >>> aoi.to_crs("EPSG:4326", BBox(0, -90, 360, 90)).bounds
            (340.0, 0.0, 350.0, 1.0)
        """
        src, dst = self.crs, crs_of(crs)
        if src is None:
            raise InputError.expected(
                "geometry_crs", "a CRS", "pixel", "pixel coordinates belong to no map"
            )
        if is_same(src, dst):
            area, around = self.geometry, None
        else:
            around = bounds if self._is_large and not dst.is_geographic else None
            try:
                area = self._once(
                    (dst.srs, around), lambda: reproject(self.geometry, src, dst, around)
                )
            except ProjError as error:  # an engineering CRS, or one of another planet
                raise InputError.expected(
                    "crs",
                    "a CRS that the area can be transformed to",
                    dst.srs,
                    "read it whole, or give the area in pixels with geometry_crs := 'pixel'",
                ) from error
        return shift_into(area, bounds) if bounds is not None and dst.is_geographic else area

    @property
    def _is_large(self) -> bool:
        return any(is_large(box) for box in self.lonlat_boxes())

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:  # noqa: ANN401
        value = self._cache.get(key)
        if value is None:
            value = make()
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[key] = value
        return value


def parse_aoi(
    *,
    bbox: Sequence[float] | None = None,
    geometry: object = None,
    geometry_crs: object = None,
) -> Aoi | None:
    """Read the area arguments of a function.

    Args:
        bbox: West, south, east, north, or the six numbers of a box with heights. Of
            longitudes, ``west > east`` crosses the antimeridian.
        geometry: Polygons as WKT, EWKT, WKB, EWKB, GeoJSON or a shapely object. Invalid
            ones are repaired, of several the union is taken.
        geometry_crs: CRS of either, ``'pixel'`` for columns and rows; without it the one
            that the geometry names, else longitude and latitude.

    Returns:
        The area, None where there is no argument.

    Raises:
        InputError: if an argument is malformed, no area, or both are given.

    Example:
        >>> parse_aoi(bbox=[170, -20, -170, -10]).lonlat_boxes()[1]
        BBox(xmin=-180.0, ymin=-20.0, xmax=-170.0, ymax=-10.0)
    """
    if bbox is not None and geometry is not None:
        raise InputError.expected("bbox", "bbox or geometry", "both", "leave one of them out")
    if bbox is not None:
        crs = crs_of_area(geometry_crs, None)
        return Aoi(_box(bbox, crs), crs)
    if geometry is None:
        return None
    shape, named = read_geometry(geometry)
    crs = crs_of_area(geometry_crs, named)
    return Aoi(area_of(shape, crs), crs)


def crs_of_area(geometry_crs: object, named: str | int | None) -> pyproj.CRS | None:
    """The CRS of areas: what is asked for, else what they name, else longitude and latitude.

    Args:
        geometry_crs: The argument of that name; ``'pixel'`` gives None.
        named: What the geometries themselves name.

    Raises:
        InputError: the two differ, or one is no CRS.
    """
    if isinstance(geometry_crs, str) and geometry_crs.strip().lower() == "pixel":
        return None
    if geometry_crs is None:
        return crs_of(LONLAT if named is None else named)
    crs = crs_of(geometry_crs)  # type: ignore[arg-type]  # refuses what it does not take
    if named is not None and not is_same(crs, crs_of(named)):
        raise InputError.expected(
            "geometry_crs", f"{named} as the geometry says", geometry_crs, "leave one of them out"
        )
    return crs


def _box(bbox: Sequence[float], crs: pyproj.CRS | None) -> BaseGeometry:
    west, south, east, north = _four_numbers(bbox)
    if south > north:
        raise InputError.expected("bbox", "south <= north", list(bbox), _ORDER)
    is_lonlat = crs is not None and crs.is_geographic
    if west > east and not is_lonlat:
        raise InputError.expected("bbox", "west < east", list(bbox), _ORDER)
    if not is_lonlat:
        return shapely.box(west, south, east, north)
    _check_degrees("bbox", (west, south, east, north))
    if east - west >= 360:
        west, east = -180.0, 180.0
    while west > east:  # twice where one of them is written a turn further
        east += 360
    return fold_longitudes(shapely.box(west, south, east, north))


def _four_numbers(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    try:
        numbers = [float(number) for number in bbox]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in {4, 6} or not all(map(math.isfinite, numbers)):
        got = bbox if isinstance(bbox, str) or not isinstance(bbox, Sequence) else list(bbox)
        raise InputError.expected("bbox", "4 finite numbers", got, _ORDER)
    half = len(numbers) // 2
    return numbers[0], numbers[1], numbers[half], numbers[half + 1]


def area_of(shape: BaseGeometry, crs: pyproj.CRS | None) -> BaseGeometry:
    """The polygons of a geometry, valid, longitudes within -180..180.

    Raises:
        InputError: there are none, or coordinates are no numbers or no degrees.
    """
    _check_finite(shape)
    area = polygonal(shape)
    if area.is_empty:
        kind = shape.geom_type
        point = kind in {"Point", "MultiPoint"}
        todo = (
            "use rasteret_sample_points for points"
            if point
            else "a line has no pixels inside; rasteret_zonal_stats takes lines as zones"
        )
        if kind in {"Polygon", "MultiPolygon", "GeometryCollection"}:
            kind, todo = f"{kind} without area", "draw it larger, or buffer it"
        raise InputError(f"geometry: expected a Polygon or MultiPolygon, got {kind}; {todo}")
    if crs is not None and crs.is_geographic:
        _check_degrees("geometry", area.bounds)
        area = fold_longitudes(area)
    return area


def zone_of(shape: BaseGeometry, crs: pyproj.CRS | None) -> BaseGeometry:
    """The polygons of a geometry as `area_of`; where it has none its lines, else its points.

    A line without length is a point, or a part of a line with others.

    Raises:
        InputError: it has nothing of these, or coordinates are no numbers or no degrees.
    """
    _check_finite(shape)
    zone = polygonal(shape)
    if zone.is_empty:
        lines = shapely.get_parts(joined([shape], 1))
        if any(one.length > 0 for one in lines):  # a part without length burns a pixel too
            zone = joined(list(lines), 1)
        else:
            zone = joined([shape, *(shapely.Point(one.coords[0]) for one in lines)], 0)
    if zone.is_empty or shapely.get_dimensions(zone) == 2:
        return area_of(shape, crs)
    if crs is not None and crs.is_geographic:
        _check_degrees("geometry", zone.bounds)
        zone = fold_longitudes(zone)
    return zone


def _check_finite(shape: BaseGeometry) -> None:
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise InputError.expected("geometry", "finite coordinates", shape.wkt, "correct it")


def _check_degrees(subject: str, bounds: tuple[float, float, float, float]) -> None:
    xmin, ymin, xmax, ymax = bounds
    if min(ymin, ymax) < -90 or max(ymin, ymax) > 90:
        raise InputError.expected(subject, "latitudes in -90..90", list(bounds), _SAY_CRS)
    if min(xmin, xmax) < -360 or max(xmin, xmax) > 360:
        raise InputError.expected(subject, "longitudes in -360..360", list(bounds), _SAY_CRS)
