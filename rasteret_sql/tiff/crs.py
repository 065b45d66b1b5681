"""GeoKeys to a CRS that PROJ knows, by the rules of libgeotiff and GDAL.

A code that the keys name is kept as it is. What they define themselves is written as WKT 1,
the way GDAL does, read by PROJ, and given as an EPSG code where PROJ finds an equal one,
else as WKT 2.

Source:
    OGC 19-008r4 GeoTIFF 1.1, clause 7.4 and annex C; libgeotiff's geo_normalize.c.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final, NamedTuple

import pyproj
from pyproj.exceptions import ProjError

from rasteret_sql.tiff import geokeys
from rasteret_sql.tiff.geodetic import geodetic_crs, has_ellipsoid, known_code, quoted
from rasteret_sql.tiff.geokeys import USER_DEFINED, GeoKeys, code_of, name_of, parse_geokeys
from rasteret_sql.tiff.layout import ByteOrder
from rasteret_sql.tiff.projected import length_unit, projected_crs, unit_in_citation
from rasteret_sql.tiff.projections import GEOGRAPHIC_AXES, LENGTHS, METRE_CODES

_MATCH_CONFIDENCE: Final = 70
"""PROJ's word for an equal CRS of another name."""
_SWAPPED_CONFIDENCE: Final = 50
"""PROJ's word for a CRS that is near, for one because its axes are in another order."""
_PE_PREFIX: Final = "ESRI PE String = "
_MAX_WKT: Final = 8192


class FileCrs(NamedTuple):
    """What the keys say: a CRS, pixels or points, and the unit of heights.

    Attributes:
        epsg: EPSG code, None without one.
        text: ``'EPSG:n'``, another authority's code, WKT 2, or None without a CRS.
        is_pixel_is_point: The transform refers to pixel centres.
        vertical_unit: Name of the unit of heights, None without one.
        warning: Why a CRS could not be made of the keys, else None.
    """

    epsg: int | None
    text: str | None
    is_pixel_is_point: bool
    vertical_unit: str | None
    warning: str | None


@lru_cache(maxsize=512)
def read_crs(directory: bytes, doubles: bytes, text: bytes, byte_order: ByteOrder) -> FileCrs:
    """The CRS of tags 34735, 34736 and 34737, by their raw bytes.

    Cached, because the files of a collection share few CRSs and PROJ takes milliseconds.
    """
    keys = parse_geokeys(directory, doubles, text, byte_order)
    is_point = keys.get(geokeys.RASTER_TYPE) == geokeys.PIXEL_IS_POINT
    if not keys.keys() - {geokeys.RASTER_TYPE}:
        return FileCrs(None, None, is_point, None, None)
    unit = LENGTHS.get(code_of(keys, geokeys.VERTICAL_UNITS) or 0, (None,))[0]
    plain = _plain_code(keys)
    if plain is not None:
        return FileCrs(plain, f"EPSG:{plain}", is_point, unit, None)
    try:
        found = _crs(keys)
        if isinstance(found, str):
            crs = pyproj.CRS.from_user_input(found)
            code = int(found[5:]) if found.startswith("EPSG:") else None
        else:
            crs = found
            code = _equal_epsg(crs)
        name = found if isinstance(found, str) else f"EPSG:{code}" if code else crs.to_wkt()
    except ProjError as error:
        return FileCrs(None, None, is_point, None, f"CRS is left out: {_first_line(error)}")
    if crs.is_compound:
        unit = crs.sub_crs_list[1].axis_info[0].unit_name
    return FileCrs(code, name, is_point, unit, _unknown_code(keys))


def _unknown_code(keys: GeoKeys) -> str | None:
    """A code that PROJ's database lacks: the file may be younger than the database."""
    for key in (geokeys.PROJECTED_CRS, geokeys.GEODETIC_CRS):
        code = code_of(keys, key)
        if code is not None and known_code(code) is None:
            return f"CRS is incomplete: PROJ {pyproj.proj_version_str} knows no EPSG:{code}"
    return None


def _equal_epsg(crs: pyproj.CRS) -> int | None:
    """The EPSG code of an equal CRS; unlike PROJ alone, also where only its axes are swapped."""
    code = crs.to_epsg(min_confidence=_MATCH_CONFIDENCE)
    if code is not None or not crs.is_projected:
        return code
    for match in crs.list_authority(auth_name="EPSG", min_confidence=_SWAPPED_CONFIDENCE):
        candidate = pyproj.CRS.from_epsg(match.code)
        if _is_equal_but_for_axes(crs, candidate):
            return int(match.code)
    return None


def _is_equal_but_for_axes(one: pyproj.CRS, other: pyproj.CRS) -> bool:
    """Whether the conversions, the units and the geographic CRSs are the same."""
    mine, theirs = one.coordinate_operation, other.coordinate_operation
    base, base_of_other = one.geodetic_crs, other.geodetic_crs
    if mine is None or theirs is None or base is None or base_of_other is None:
        return False
    values = {p.name: float(p.value) * p.unit_conversion_factor for p in theirs.params}
    return (
        mine.method_name == theirs.method_name
        and {p.name for p in mine.params} == values.keys()
        and all(
            math.isclose(
                float(p.value) * p.unit_conversion_factor,
                values[p.name],
                rel_tol=1e-12,
                abs_tol=1e-12,
            )
            for p in mine.params
        )
        and {a.unit_conversion_factor for a in one.axis_info}
        == {a.unit_conversion_factor for a in other.axis_info}
        and base.equals(base_of_other, ignore_axis_order=True)
    )


def _first_line(error: ProjError) -> str:
    return " ".join(str(error).split())[:200]


def _plain_code(keys: GeoKeys) -> int | None:
    """The EPSG code where the keys say nothing else, without a look into PROJ's database."""
    if keys.keys() & {geokeys.VERTICAL_CRS, geokeys.VERTICAL_DATUM}:
        return None
    model = keys.get(geokeys.MODEL_TYPE)
    code = code_of(keys, geokeys.PROJECTED_CRS)
    if model == geokeys.PROJECTED and code in METRE_CODES:
        is_metre = keys.get(geokeys.LINEAR_UNITS, 9001) == 9001
        return code if is_metre and unit_in_citation(keys) is None else None
    code = code_of(keys, geokeys.GEODETIC_CRS)
    if model != geokeys.GEOGRAPHIC or code not in GEOGRAPHIC_AXES:
        return None
    if keys.get(geokeys.ANGULAR_UNITS, 9102) not in (9102, 9122):
        return None
    return code if has_ellipsoid(keys, *GEOGRAPHIC_AXES[code]) else None


def _crs(keys: GeoKeys) -> pyproj.CRS | str:
    """A code as text, or a CRS of which only the definition is known."""
    model = keys.get(geokeys.MODEL_TYPE, USER_DEFINED)
    if model == USER_DEFINED and code_of(keys, geokeys.PROJECTED_CRS):
        model = geokeys.PROJECTED
    if model == geokeys.PROJECTED:
        horizontal = projected_crs(keys)
    elif model in (geokeys.GEOGRAPHIC, geokeys.GEOCENTRIC):
        horizontal = geodetic_crs(keys)
    else:
        horizontal = _from_esri_text(keys)
    return _with_heights(horizontal or _local(keys), keys)


def _with_heights(horizontal: pyproj.CRS | str, keys: GeoKeys) -> pyproj.CRS | str:
    """Put the vertical CRS of the keys on top, as GDAL does."""
    code = code_of(keys, geokeys.VERTICAL_CRS)
    if code is None:
        return horizontal
    flat = pyproj.CRS.from_user_input(horizontal)
    vertical = _vertical(code, flat)
    if vertical is None:
        return horizontal
    if not vertical.is_vertical:  # GeoTIFF 1.1: the code of the CRS with ellipsoidal heights
        return f"EPSG:{vertical.to_epsg()}" if flat.is_geographic else flat.to_3d()
    if not (flat.is_geographic or flat.is_projected):
        return horizontal
    name = str(keys.get(geokeys.CITATION) or f"{flat.name} + {vertical.name}")
    return pyproj.crs.CompoundCRS(name, [flat, vertical])


def _vertical(code: int, flat: pyproj.CRS) -> pyproj.CRS | None:
    """A vertical CRS, or a geographic one with heights; None if there is none of the code."""
    if code == 5030:  # GeoTIFF 1.0's code for heights above the WGS 84 ellipsoid
        code = 4979
    try:
        crs = pyproj.CRS.from_epsg(code)
    except ProjError:
        return None
    is_3d = crs.is_geographic and len(crs.axis_info) == 3
    return crs if crs.is_vertical or (is_3d and flat is not None) else None


def _from_esri_text(keys: GeoKeys) -> pyproj.CRS | str | None:
    """ArcGIS keeps what GeoKeys can't say as WKT in a citation."""
    text = str(keys.get(geokeys.PROJECTED_CITATION, ""))
    if _PE_PREFIX not in text or len(text) > _MAX_WKT:
        return None
    wkt = text.split(_PE_PREFIX, 1)[1]
    if 'PROJCS["WGS_1984_Web_Mercator_Auxiliary_Sphere"' in wkt:
        return "EPSG:3857"
    extension = re.search(r',EXTENSION\["PROJ4","([^"]*)"\]', wkt)
    if extension:  # GDAL writes here what WKT 1 has no words for: the sweep axis of GOES
        return pyproj.CRS.from_user_input(extension[1])
    return pyproj.CRS.from_wkt(re.sub(r",VERTCS\[.*\](?=\]$)", "", wkt))


def _local(keys: GeoKeys) -> pyproj.CRS:
    """A plane of its own, on no datum."""
    unit = length_unit(keys)
    return pyproj.CRS.from_wkt(
        f"LOCAL_CS[{quoted(name_of(keys, geokeys.CITATION))},UNIT[{quoted(unit[0])},{unit[1]!r}],"
        'AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    )
