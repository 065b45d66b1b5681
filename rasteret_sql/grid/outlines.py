"""Outlines of images on the map."""

from __future__ import annotations

import shapely

from rasteret_sql.grid.crs import LONLAT, crs_of
from rasteret_sql.grid.reproject import reproject
from rasteret_sql.units import Affine


def outline(affine: Affine, height: int, width: int, crs: str) -> shapely.Geometry:
    """The outline of an image in longitude and latitude; cut where it crosses 180 degrees.

    Args:
        affine: Pixel corner to map.
        height: Rows of the image.
        width: Columns of the image.
        crs: What the map coordinates are in.

    Returns:
        A Polygon or MultiPolygon, its edges densified as far as the CRS bends them.

    Example:
        >>> outline(Affine(0.5, 0, 77, 0, -0.5, 13), 2, 4, "EPSG:4326").bounds
        (77.0, 12.0, 79.0, 13.0)
    """
    corners = [affine.to_map(*at) for at in ((0, 0), (width, 0), (width, height), (0, height))]
    return reproject(shapely.Polygon(corners), crs_of(crs), crs_of(LONLAT))
