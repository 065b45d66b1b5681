"""Outlines of images on the map."""

from __future__ import annotations

from typing import Final

import numpy as np
import shapely

from rasteret_sql.grid.crs import LONLAT, crs_of, transformer
from rasteret_sql.grid.reproject import reproject
from rasteret_sql.units import Affine

_SMALL_DEGREES: Final = 5.0
_SEGMENTS: Final = 16
"""Of each edge of a small image: 16 leave a bend of 1 m in 100 km."""


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
    found = _small(np.array(corners), crs)
    return found or reproject(shapely.Polygon(corners), crs_of(crs), crs_of(LONLAT))


def _small(
    corners: np.ndarray[tuple[int, ...], np.dtype[np.float64]], crs: str
) -> shapely.Polygon | None:
    """The outline by its points alone, in a tenth of the time; None where that may be wrong."""
    steps = np.arange(_SEGMENTS)[:, np.newaxis] / _SEGMENTS
    edges = [a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
    x, y = np.concatenate(edges).T
    lon, lat = transformer(crs, LONLAT).transform(x, y)
    spans = np.ptp(lon), np.ptp(lat), np.abs(lon).max() - 175, np.abs(lat).max() - 80
    if not np.isfinite(spans).all() or max(spans[:2]) > _SMALL_DEGREES or max(spans[2:]) > 0:
        return None
    return shapely.Polygon(np.column_stack([lon, lat]))
