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
from pyproj.crs import CoordinateOperation, Datum, Ellipsoid, PrimeMeridian  # type: ignore[attr-defined]
from pyproj.exceptions import CRSError, ProjError

from rasteret_sql.tiff import geokeys
from rasteret_sql.tiff.geokeys import USER_DEFINED, GeoKeys, parse_geokeys
from rasteret_sql.tiff.layout import ByteOrder
from rasteret_sql.tiff.projections import (
    ANGLES,
    FALSE_EASTING,
    FALSE_NORTHING,
    FIRST_PARALLEL,
    GEOGRAPHIC_AXES,
    LENGTHS,
    LONGITUDE,
    METHODS,
    METRE_CODES,
    Parameters,
)

_PROJECTED: Final = 1
_GEOGRAPHIC: Final = 2
_GEOCENTRIC: Final = 3
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
    unit = LENGTHS.get(_code(keys, geokeys.VERTICAL_UNITS) or 0, (None,))[0]
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
    return FileCrs(code, name, is_point, unit, None)


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
    code = _code(keys, geokeys.PROJECTED_CRS)
    if model == _PROJECTED and code in METRE_CODES:
        is_metre = keys.get(geokeys.LINEAR_UNITS, 9001) == 9001
        return code if is_metre and _unit_in_citation(keys) is None else None
    code = _code(keys, geokeys.GEODETIC_CRS)
    if model != _GEOGRAPHIC or code not in GEOGRAPHIC_AXES:
        return None
    if keys.get(geokeys.ANGULAR_UNITS, 9102) not in (9102, 9122):
        return None
    return code if _has_ellipsoid(keys, *GEOGRAPHIC_AXES[code]) else None


def _crs(keys: GeoKeys) -> pyproj.CRS | str:
    """A code as text, or a CRS of which only the definition is known."""
    model = keys.get(geokeys.MODEL_TYPE, USER_DEFINED)
    if model == USER_DEFINED and _code(keys, geokeys.PROJECTED_CRS):
        model = _PROJECTED
    if model == _PROJECTED:
        horizontal = _projected(keys)
    elif model in (_GEOGRAPHIC, _GEOCENTRIC):
        horizontal = _geodetic(keys)
    else:
        horizontal = _from_esri_text(keys)
    return _with_heights(horizontal or _local(keys), keys)


def _projected(keys: GeoKeys) -> pyproj.CRS | str | None:
    code = _code(keys, geokeys.PROJECTED_CRS)
    if code is not None:
        known = _known(code)
        if known is not None:
            return _in_unit_of_keys(known, keys)
    conversion = _code(keys, geokeys.PROJECTION)
    if conversion is not None:
        return _from_conversion(conversion, keys)
    method = METHODS.get(int(_number(keys, (geokeys.PROJECTION_METHOD,), 0.0)))
    return None if method is None else _from_method(*method, keys)


def _in_unit_of_keys(known: str, keys: GeoKeys) -> pyproj.CRS | str:
    """A known CRS, in the linear unit that the keys or the citation name instead of its own."""
    unit = _unit_in_citation(keys) or (_length_unit(keys) if geokeys.LINEAR_UNITS in keys else None)
    crs = pyproj.CRS.from_user_input(known)
    if unit is None or math.isclose(crs.axis_info[0].unit_conversion_factor, unit[1], rel_tol=1e-9):
        return known
    definition = crs.to_json_dict()
    definition.pop("id", None)
    for axis in definition["coordinate_system"]["axis"]:
        axis["unit"] = {"type": "LinearUnit", "name": unit[0], "conversion_factor": unit[1]}
    return pyproj.CRS.from_json_dict(definition)


def _from_conversion(code: int, keys: GeoKeys) -> pyproj.CRS:
    """A projection by its EPSG code, on the geographic CRS of the keys."""
    unit = _length_unit(keys)
    base = pyproj.CRS.from_wkt(_geographic_wkt(keys))
    axes = [
        {
            "name": name,
            "abbreviation": name[0],
            "direction": direction,
            "unit": {"type": "LinearUnit", "name": unit[0], "conversion_factor": unit[1]},
        }
        for name, direction in (("Easting", "east"), ("Northing", "north"))
    ]
    definition = {
        "type": "ProjectedCRS",
        "name": _name(keys, geokeys.PROJECTED_CITATION, geokeys.CITATION),
        "base_crs": base.to_json_dict(),
        "conversion": _conversion(code),
        "coordinate_system": {"subtype": "Cartesian", "axis": axes},
    }
    return pyproj.CRS.from_json_dict(definition)


def _conversion(code: int) -> dict[str, object]:
    definition: dict[str, object] = CoordinateOperation.from_epsg(code).to_json_dict()
    definition.pop("$schema", None)
    return definition


def _from_method(method: str, parameters: Parameters, keys: GeoKeys) -> pyproj.CRS:
    """A projection by its method and parameters, written as GDAL writes it."""
    if method == "Mercator_1SP" and _number(keys, FIRST_PARALLEL, 0.0) != 0:
        method = "Mercator_2SP"
        parameters = (
            ("standard_parallel_1", FIRST_PARALLEL),
            ("central_meridian", LONGITUDE),
        )
    named = [
        (name, _number(keys, where, 1.0 if name == "scale_factor" else 0.0))
        for name, where in (
            *parameters,
            ("false_easting", FALSE_EASTING),
            ("false_northing", FALSE_NORTHING),
        )
    ]
    shown = ",".join(f'PARAMETER["{name}",{value!r}]' for name, value in named)
    unit = _length_unit(keys)
    return pyproj.CRS.from_wkt(
        f"PROJCS[{_quoted(_name(keys, geokeys.PROJECTED_CITATION, geokeys.CITATION))},"
        f'{_geographic_wkt(keys)},PROJECTION["{method}"],{shown},'
        f"UNIT[{_quoted(unit[0])},{unit[1]!r}],"
        'AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    )


def _geodetic(keys: GeoKeys) -> pyproj.CRS | str | None:
    code = _code(keys, geokeys.GEODETIC_CRS)
    if code is not None:
        known = _known(code)
        if known is None:
            return None
        ellipsoid = pyproj.CRS.from_user_input(known).ellipsoid
        if ellipsoid is None or _has_ellipsoid(
            keys, ellipsoid.semi_major_metre, ellipsoid.inverse_flattening
        ):
            return known
    return pyproj.CRS.from_wkt(_geographic_wkt(keys))


def _geographic_wkt(keys: GeoKeys) -> str:
    """The geographic CRS of the keys as WKT 1 without axes, as in a projected one."""
    code = _code(keys, geokeys.GEODETIC_CRS)
    if code is not None:
        known = pyproj.CRS.from_epsg(code)
        ellipsoid = known.ellipsoid
        if ellipsoid is None or _has_ellipsoid(
            keys, ellipsoid.semi_major_metre, ellipsoid.inverse_flattening
        ):
            return re.sub(r',AXIS\["[^"]*",\w+\]', "", known.to_wkt("WKT1_GDAL"))
    citation = dict(
        part.split(" = ", 1)
        for part in str(keys.get(geokeys.GEODETIC_CITATION, "")).split("|")
        if " = " in part
    )
    datum, axes = _datum(keys, citation)
    unit = _angular_unit(keys)
    name = citation.get("GCS Name") or _name(keys, geokeys.GEODETIC_CITATION)
    meridian = _prime_meridian(keys, unit[1])
    return (
        f"GEOGCS[{_quoted(name)},DATUM[{_quoted(datum)},"
        f"SPHEROID[{_quoted(citation.get('Ellipsoid', 'unnamed'))},{axes[0]!r},{axes[1]!r}]],"
        f"{meridian},UNIT[{_quoted(unit[0])},{unit[1]!r}]]"
    )


def _datum(keys: GeoKeys, citation: dict[str, str]) -> tuple[str, tuple[float, float]]:
    """Name of the datum; semi-major axis in metres and inverse flattening (0: a sphere)."""
    name = citation.get("Datum", "unknown")
    ellipsoid: Ellipsoid | None = None
    datum_code = _code(keys, geokeys.GEODETIC_DATUM)
    if datum_code is not None:
        datum = Datum.from_epsg(datum_code)
        name, ellipsoid = datum.name, datum.ellipsoid
    ellipsoid_code = _code(keys, geokeys.ELLIPSOID)
    if ellipsoid_code is not None:
        ellipsoid = Ellipsoid.from_epsg(ellipsoid_code)
    if geokeys.SEMI_MAJOR_AXIS in keys:
        semi_major = _number(keys, (geokeys.SEMI_MAJOR_AXIS,), 0.0)
        if semi_major <= 0:
            raise CRSError(f"GeogSemiMajorAxisGeoKey is {semi_major}")
        return name, (semi_major, _inverse_flattening(keys, semi_major, ellipsoid))
    if ellipsoid is not None:
        return name, (ellipsoid.semi_major_metre, ellipsoid.inverse_flattening)
    return name, GEOGRAPHIC_AXES[4326]


def _inverse_flattening(keys: GeoKeys, semi_major: float, ellipsoid: Ellipsoid | None) -> float:
    inverse = _number(keys, (geokeys.INVERSE_FLATTENING,), 0.0)
    semi_minor = _number(keys, (geokeys.SEMI_MINOR_AXIS,), 0.0)
    if inverse > 0:
        return inverse
    if semi_minor > 0:
        return 0.0 if semi_minor == semi_major else semi_major / (semi_major - semi_minor)
    return ellipsoid.inverse_flattening if ellipsoid is not None else 0.0


def _prime_meridian(keys: GeoKeys, unit_size: float) -> str:
    """PRIMEM in degrees east of Greenwich."""
    code = _code(keys, geokeys.PRIME_MERIDIAN)
    if code is not None:
        meridian = PrimeMeridian.from_epsg(code)
        degrees = math.degrees(meridian.longitude * float(meridian.unit_conversion_factor))
        return f"PRIMEM[{_quoted(meridian.name)},{degrees / _degrees(unit_size):.12g}]"
    longitude = _number(keys, (geokeys.PRIME_MERIDIAN_LONGITUDE,), 0.0)
    return f'PRIMEM["{"unnamed" if longitude else "Greenwich"}",{longitude!r}]'


def _degrees(unit_size: float) -> float:
    return math.degrees(unit_size) if unit_size > 0 else 1.0


def _with_heights(horizontal: pyproj.CRS | str, keys: GeoKeys) -> pyproj.CRS | str:
    """Put the vertical CRS of the keys on top, as GDAL does."""
    code = _code(keys, geokeys.VERTICAL_CRS)
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
    unit = _length_unit(keys)
    return pyproj.CRS.from_wkt(
        f"LOCAL_CS[{_quoted(_name(keys, geokeys.CITATION))},UNIT[{_quoted(unit[0])},{unit[1]!r}],"
        'AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    )


def _known(code: int) -> str | None:
    """The code with its authority: EPSG, else ESRI, whose codes are above EPSG's."""
    for authority in ("EPSG", "ESRI"):
        try:
            pyproj.CRS.from_authority(authority, code)
        except ProjError:
            continue
        return f"{authority}:{code}"
    return None


def _has_ellipsoid(keys: GeoKeys, semi_major: float, inverse_flattening: float) -> bool:
    """Whether the keys name no other ellipsoid, to a tenth of a millimetre."""
    axis = _number(keys, (geokeys.SEMI_MAJOR_AXIS,), semi_major) or semi_major
    inverse = _number(keys, (geokeys.INVERSE_FLATTENING,), inverse_flattening)
    return abs(axis - semi_major) < 1e-4 and (
        inverse == 0 or math.isclose(inverse, inverse_flattening, rel_tol=1e-6)
    )


def _unit_in_citation(keys: GeoKeys) -> tuple[str, float] | None:
    """ERDAS Imagine writes the unit of a known CRS into the citation."""
    citation = str(keys.get(geokeys.CITATION, ""))
    found = re.search(r"^Units = (.*)$", citation, re.MULTILINE)
    if not citation.startswith("IMAGINE GeoTIFF Support") or found is None:
        return None
    name = found[1].strip()
    size = {"meters": 1.0, "international_feet": 0.3048, "us_survey_feet": 12 / 39.37}
    factor = size.get(name.lower())
    return None if factor is None else (name, factor)


def _length_unit(keys: GeoKeys) -> tuple[str, float]:
    code = keys.get(geokeys.LINEAR_UNITS, 9001)
    if code == USER_DEFINED:
        return "unknown", _number(keys, (geokeys.LINEAR_UNIT_SIZE,), 1.0) or 1.0
    return LENGTHS.get(int(code) if not isinstance(code, str) else 9001, ("metre", 1.0))


def _angular_unit(keys: GeoKeys) -> tuple[str, float]:
    code = keys.get(geokeys.ANGULAR_UNITS, 9102)
    if code == USER_DEFINED:
        size = _number(keys, (geokeys.ANGULAR_UNIT_SIZE,), 0.0)
        return ("unknown", size) if size > 0 else ANGLES[9102]
    return ANGLES.get(int(code) if not isinstance(code, str) else 9102, ANGLES[9102])


def _code(keys: GeoKeys, key: int) -> int | None:
    """A registered code; None for absent, undefined (0) and user-defined (32767) ones."""
    value = keys.get(key)
    return value if isinstance(value, int) and value not in (0, USER_DEFINED) else None


def _number(keys: GeoKeys, where: tuple[int, ...], default: float) -> float:
    """The first of the keys that is there and a finite number."""
    for key in where:
        value = keys.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return default


def _name(keys: GeoKeys, *where: int) -> str:
    for key in where:
        value = keys.get(key)
        if isinstance(value, str) and value:
            return value
    return "unnamed"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
