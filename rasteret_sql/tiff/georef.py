"""Where a raster lies: the transform and the CRS, by the rules of GDAL's GTiff driver.

Source:
    OGC 19-008r4 GeoTIFF 1.1, clauses 7.1 (GeoKeyDirectory) and 7.2 (raster to model).
"""

from __future__ import annotations

import math
from typing import Final

from rasteret_sql.tiff import tags
from rasteret_sql.tiff.crs import FileCrs, read_crs
from rasteret_sql.tiff.ifd import Ifd
from rasteret_sql.tiff.layout import Georef
from rasteret_sql.units import Affine

_MAX_KEY_BYTES: Final = 32 * 1024
_NO_CRS: Final = FileCrs(None, None, is_pixel_is_point=False, vertical_unit=None, warning=None)


def read_file_crs(page: Ifd) -> FileCrs:
    """The CRS that the GeoKeys of a page define."""
    if tags.GEO_KEY_DIRECTORY not in page:
        return _NO_CRS
    return read_crs(
        page.data(tags.GEO_KEY_DIRECTORY, _MAX_KEY_BYTES),
        page.data(tags.GEO_DOUBLE_PARAMS, _MAX_KEY_BYTES),
        page.data(tags.GEO_ASCII_PARAMS, _MAX_KEY_BYTES),
        page.dialect.byte_order,
    )


def read_georef(page: Ifd, crs: FileCrs) -> Georef:
    """The transform of a page, with its CRS."""
    scale = page.numbers(tags.MODEL_PIXEL_SCALE)
    tiepoint = page.numbers(tags.MODEL_TIEPOINT)
    matrix = page.numbers(tags.MODEL_TRANSFORMATION)
    affine = _affine(scale, tiepoint, matrix)
    has_gcps = affine is None and len(tiepoint) >= 6 and not _is_scale(scale)
    if affine is not None:
        if crs.is_pixel_is_point:  # the tags tie pixel centres; GDAL gives corners
            a, b, c, d, e, f = affine
            affine = Affine(a, b, c - (a * 0.5 + b * 0.5), d, e, f - (d * 0.5 + e * 0.5))
        if not math.isfinite(sum(affine)):
            affine = None
    return Georef(
        affine,
        crs.epsg,
        crs.text,
        scale,
        tiepoint,
        crs.is_pixel_is_point,
        has_gcps,
    )


def _is_scale(scale: tuple[float, ...]) -> bool:
    return len(scale) >= 2 and scale[0] != 0 and scale[1] != 0


def _affine(
    scale: tuple[float, ...], tiepoint: tuple[float, ...], matrix: tuple[float, ...]
) -> Affine | None:
    """Pixel to map before the shift of PixelIsPoint; None if the tags do not say."""
    if _is_scale(scale):
        # a negative ScaleY is against the specification; GDAL takes the image as north-up
        a, e = scale[0], -abs(scale[1])
        if len(tiepoint) < 6:
            return None
        col, row, _, x, y, _ = tiepoint[:6]
        return Affine(a, 0.0, x - col * a, 0.0, e, y - row * e)
    if len(matrix) == 16:
        return Affine(matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7])
    return None
