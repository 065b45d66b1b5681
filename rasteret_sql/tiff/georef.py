"""Where a raster lies: the transform and the CRS, by the rules of GDAL's GTiff driver.

Source:
    OGC 19-008r4 GeoTIFF 1.1, clauses 7.1 (GeoKeyDirectory) and 7.2 (raster to model).
"""

from __future__ import annotations

from rasteret_sql.tiff import tags
from rasteret_sql.tiff.ifd import Ifd
from rasteret_sql.tiff.layout import Georef
from rasteret_sql.units import Affine

_RASTER_TYPE = 1025
_PIXEL_IS_POINT = 2
_GEOGRAPHIC_CRS = 2048
_PROJECTED_CRS = 3072
_USER_DEFINED = 32767


def read_georef(page: Ifd) -> Georef:
    """Transform and CRS of a page."""
    scale = page.numbers(tags.MODEL_PIXEL_SCALE)
    tiepoint = page.numbers(tags.MODEL_TIEPOINT)
    keys = page.numbers(tags.GEO_KEY_DIRECTORY)
    short_keys = {
        int(keys[i]): int(keys[i + 3]) for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0
    }
    is_point = short_keys.get(_RASTER_TYPE) == _PIXEL_IS_POINT
    affine = _affine(scale, tiepoint, page.numbers(tags.MODEL_TRANSFORMATION))
    if affine is not None and is_point:
        affine = affine._replace(
            c=affine.c - (affine.a * 0.5 + affine.b * 0.5),
            f=affine.f - (affine.d * 0.5 + affine.e * 0.5),
        )
    code = short_keys.get(_PROJECTED_CRS) or short_keys.get(_GEOGRAPHIC_CRS)
    epsg = code if code != _USER_DEFINED else None
    return Georef(
        affine,
        epsg,
        f"EPSG:{epsg}" if epsg else None,
        scale,
        tiepoint,
        is_point,
        affine is None and len(tiepoint) >= 6,
    )


def _affine(
    scale: tuple[float, ...], tiepoint: tuple[float, ...], matrix: tuple[float, ...]
) -> Affine | None:
    """Pixel to map before the shift of PixelIsPoint; None if the tags do not say."""
    if len(scale) >= 2 and scale[0] != 0 and scale[1] != 0:
        # GDAL takes a negative ScaleY for a north-up image too
        a, e = scale[0], -abs(scale[1])
        if len(tiepoint) < 6:
            return None
        return Affine(a, 0.0, tiepoint[3] - tiepoint[0] * a, 0.0, e, tiepoint[4] - tiepoint[1] * e)
    if len(matrix) == 16:
        return Affine(matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7])
    return None
