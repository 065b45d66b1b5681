"""GeoKeys to a projected CRS: a code, a registered conversion, or a method with parameters.

Source:
    OGC 19-008r4 GeoTIFF 1.1, clause 7.4.3 and annex C; libgeotiff's geo_normalize.c.
"""

from __future__ import annotations

import math
import re

import pyproj
from pyproj.crs import CoordinateOperation  # type: ignore[attr-defined]

from rasteret_sql.tiff import geokeys
from rasteret_sql.tiff.geodetic import geographic_wkt, known_code, quoted
from rasteret_sql.tiff.geokeys import USER_DEFINED, GeoKeys, code_of, name_of, number_of
from rasteret_sql.tiff.projections import (
    FALSE_EASTING,
    FALSE_NORTHING,
    FIRST_PARALLEL,
    LENGTHS,
    LONGITUDE,
    METHODS,
    Parameters,
)


def projected_crs(keys: GeoKeys) -> pyproj.CRS | str | None:
    """A code with its authority, or a CRS of which only the definition is known.

    Raises:
        ProjError: if PROJ makes no CRS of the definition.
    """
    code = code_of(keys, geokeys.PROJECTED_CRS)
    if code is not None:
        known = known_code(code)
        if known is not None:
            return _in_unit_of_keys(known, keys)
    conversion = code_of(keys, geokeys.PROJECTION)
    if conversion is not None:
        return _from_conversion(conversion, keys)
    method = METHODS.get(int(number_of(keys, (geokeys.PROJECTION_METHOD,), 0.0)))
    return None if method is None else _from_method(*method, keys)


def _in_unit_of_keys(known: str, keys: GeoKeys) -> pyproj.CRS | str:
    """A known CRS, in the linear unit that the keys or the citation name instead of its own."""
    unit = unit_in_citation(keys) or (length_unit(keys) if geokeys.LINEAR_UNITS in keys else None)
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
    unit = length_unit(keys)
    base = pyproj.CRS.from_wkt(geographic_wkt(keys))
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
        "name": name_of(keys, geokeys.PROJECTED_CITATION, geokeys.CITATION),
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
    if method == "Mercator_1SP" and number_of(keys, FIRST_PARALLEL, 0.0) != 0:
        method = "Mercator_2SP"
        parameters = (
            ("standard_parallel_1", FIRST_PARALLEL),
            ("central_meridian", LONGITUDE),
        )
    named = [
        (name, number_of(keys, where, 1.0 if name == "scale_factor" else 0.0))
        for name, where in (
            *parameters,
            ("false_easting", FALSE_EASTING),
            ("false_northing", FALSE_NORTHING),
        )
    ]
    shown = ",".join(f'PARAMETER["{name}",{value!r}]' for name, value in named)
    unit = length_unit(keys)
    return pyproj.CRS.from_wkt(
        f"PROJCS[{quoted(name_of(keys, geokeys.PROJECTED_CITATION, geokeys.CITATION))},"
        f'{geographic_wkt(keys)},PROJECTION["{method}"],{shown},'
        f"UNIT[{quoted(unit[0])},{unit[1]!r}],"
        'AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    )


def unit_in_citation(keys: GeoKeys) -> tuple[str, float] | None:
    """ERDAS Imagine writes the unit of a known CRS into the citation."""
    citation = str(keys.get(geokeys.CITATION, ""))
    found = re.search(r"^Units = (.*)$", citation, re.MULTILINE)
    if not citation.startswith("IMAGINE GeoTIFF Support") or found is None:
        return None
    name = found[1].strip()
    size = {"meters": 1.0, "international_feet": 0.3048, "us_survey_feet": 12 / 39.37}
    factor = size.get(name.lower())
    return None if factor is None else (name, factor)


def length_unit(keys: GeoKeys) -> tuple[str, float]:
    """Name and size in metres of ProjLinearUnitsGeoKey; the metre by default."""
    code = keys.get(geokeys.LINEAR_UNITS, 9001)
    if code == USER_DEFINED:
        return "unknown", number_of(keys, (geokeys.LINEAR_UNIT_SIZE,), 1.0) or 1.0
    return LENGTHS.get(int(code) if not isinstance(code, str) else 9001, ("metre", 1.0))
