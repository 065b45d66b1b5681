"""GeoKeys to a geographic or geocentric CRS: datum, ellipsoid, prime meridian and angular unit.

Source:
    OGC 19-008r4 GeoTIFF 1.1, clause 7.4.2 and annex C; libgeotiff's geo_normalize.c.
"""

from __future__ import annotations

import math
import re

import pyproj
from pyproj.crs import Datum, Ellipsoid, PrimeMeridian  # type: ignore[attr-defined]
from pyproj.exceptions import CRSError, ProjError

from rasteret_sql.tiff import geokeys
from rasteret_sql.tiff.geokeys import USER_DEFINED, GeoKeys, code_of, name_of, number_of
from rasteret_sql.tiff.projections import ANGLES, GEOGRAPHIC_AXES


def geodetic_crs(keys: GeoKeys) -> pyproj.CRS | str | None:
    """A code with its authority, or a CRS of which only the definition is known.

    Raises:
        ProjError: if PROJ makes no CRS of the definition.
    """
    code = code_of(keys, geokeys.GEODETIC_CRS)
    if code is not None:
        known = known_code(code)
        if known is None:
            return None
        ellipsoid = pyproj.CRS.from_user_input(known).ellipsoid
        if ellipsoid is None or has_ellipsoid(
            keys, ellipsoid.semi_major_metre, ellipsoid.inverse_flattening
        ):
            return known
    crs = pyproj.CRS.from_wkt(geographic_wkt(keys))
    return _geocentric(crs) if keys.get(geokeys.MODEL_TYPE) == geokeys.GEOCENTRIC else crs


def _geocentric(geographic: pyproj.CRS) -> pyproj.CRS:
    """Metres from the centre of the Earth, on the datum of a geographic CRS."""
    definition = geographic.to_json_dict() | {"type": "GeodeticCRS"}
    axes = [
        {
            "name": f"Geocentric {axis}",
            "abbreviation": axis,
            "direction": f"geocentric{axis}",
            "unit": "metre",
        }
        for axis in "XYZ"
    ]
    definition["coordinate_system"] = {"subtype": "Cartesian", "axis": axes}
    return pyproj.CRS.from_json_dict(definition)


def geographic_wkt(keys: GeoKeys) -> str:
    """The geographic CRS of the keys as WKT 1 without axes, as in a projected one."""
    code = code_of(keys, geokeys.GEODETIC_CRS)
    if code is not None:
        known = pyproj.CRS.from_epsg(code)
        ellipsoid = known.ellipsoid
        if ellipsoid is None or has_ellipsoid(
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
    name = citation.get("GCS Name") or name_of(keys, geokeys.GEODETIC_CITATION)
    meridian = _prime_meridian(keys, unit[1])
    return (
        f"GEOGCS[{quoted(name)},DATUM[{quoted(datum)},"
        f"SPHEROID[{quoted(citation.get('Ellipsoid', 'unnamed'))},{axes[0]!r},{axes[1]!r}]],"
        f"{meridian},UNIT[{quoted(unit[0])},{unit[1]!r}]]"
    )


def _datum(keys: GeoKeys, citation: dict[str, str]) -> tuple[str, tuple[float, float]]:
    """Name of the datum; semi-major axis in metres and inverse flattening (0: a sphere)."""
    name = citation.get("Datum", "unknown")
    ellipsoid: Ellipsoid | None = None
    datum_code = code_of(keys, geokeys.GEODETIC_DATUM)
    if datum_code is not None:
        datum = Datum.from_epsg(datum_code)
        name, ellipsoid = datum.name, datum.ellipsoid
    ellipsoid_code = code_of(keys, geokeys.ELLIPSOID)
    if ellipsoid_code is not None:
        ellipsoid = Ellipsoid.from_epsg(ellipsoid_code)
    if geokeys.SEMI_MAJOR_AXIS in keys:
        semi_major = number_of(keys, (geokeys.SEMI_MAJOR_AXIS,), 0.0)
        if semi_major <= 0:
            raise CRSError(f"GeogSemiMajorAxisGeoKey is {semi_major}")
        return name, (semi_major, _inverse_flattening(keys, semi_major, ellipsoid))
    if ellipsoid is not None:
        return name, (ellipsoid.semi_major_metre, ellipsoid.inverse_flattening)
    return name, GEOGRAPHIC_AXES[4326]


def _inverse_flattening(keys: GeoKeys, semi_major: float, ellipsoid: Ellipsoid | None) -> float:
    inverse = number_of(keys, (geokeys.INVERSE_FLATTENING,), 0.0)
    semi_minor = number_of(keys, (geokeys.SEMI_MINOR_AXIS,), 0.0)
    if inverse > 0:
        return inverse
    if semi_minor > 0:
        return 0.0 if semi_minor == semi_major else semi_major / (semi_major - semi_minor)
    return ellipsoid.inverse_flattening if ellipsoid is not None else 0.0


def _prime_meridian(keys: GeoKeys, unit_size: float) -> str:
    """PRIMEM in degrees east of Greenwich."""
    code = code_of(keys, geokeys.PRIME_MERIDIAN)
    if code is not None:
        meridian = PrimeMeridian.from_epsg(code)
        degrees = math.degrees(meridian.longitude * float(meridian.unit_conversion_factor))
        return f"PRIMEM[{quoted(meridian.name)},{degrees / _degrees(unit_size):.12g}]"
    longitude = number_of(keys, (geokeys.PRIME_MERIDIAN_LONGITUDE,), 0.0)
    return f'PRIMEM["{"unnamed" if longitude else "Greenwich"}",{longitude!r}]'


def _degrees(unit_size: float) -> float:
    return math.degrees(unit_size) if unit_size > 0 else 1.0


def known_code(code: int) -> str | None:
    """The code with its authority: EPSG, else ESRI, whose codes are above EPSG's."""
    for authority in ("EPSG", "ESRI"):
        try:
            pyproj.CRS.from_authority(authority, code)
        except ProjError:
            continue
        return f"{authority}:{code}"
    return None


def has_ellipsoid(keys: GeoKeys, semi_major: float, inverse_flattening: float) -> bool:
    """Whether the keys name no other ellipsoid, to a tenth of a millimetre."""
    axis = number_of(keys, (geokeys.SEMI_MAJOR_AXIS,), semi_major) or semi_major
    inverse = number_of(keys, (geokeys.INVERSE_FLATTENING,), inverse_flattening)
    return abs(axis - semi_major) < 1e-4 and (
        inverse == 0 or math.isclose(inverse, inverse_flattening, rel_tol=1e-6)
    )


def _angular_unit(keys: GeoKeys) -> tuple[str, float]:
    code = keys.get(geokeys.ANGULAR_UNITS, 9102)
    if code == USER_DEFINED:
        size = number_of(keys, (geokeys.ANGULAR_UNIT_SIZE,), 0.0)
        return ("unknown", size) if size > 0 else ANGLES[9102]
    return ANGLES.get(int(code) if not isinstance(code, str) else 9102, ANGLES[9102])


def quoted(name: str) -> str:
    """A name as WKT writes it.

    Example:
        >>> quoted('the "old" one')
        '"the ""old"" one"'
    """
    return '"' + name.replace('"', '""') + '"'
