"""Codes that GeoKeys use: units, ellipsoids, and the projections with their parameters.

Source:
    OGC 19-008r4 GeoTIFF 1.1, annex C; libgeotiff's geo_normalize.c for the order in which
    keys of one meaning are tried; EPSG's units of measure.
"""

from __future__ import annotations

from typing import Final

METRE_CODES: Final = frozenset(
    {
        *(base + zone for base in (32600, 32700) for zone in range(1, 61)),
        *range(26901, 26924),
        *range(25828, 25839),
        *(2154, 3031, 3035, 3395, 3413, 3857, 3577, 3978, 5070, 6933, 8857, 27700),
    }
)
"""Projected CRSs in metres that need no look into PROJ's database."""

GEOGRAPHIC_AXES: Final = {
    4326: (6378137.0, 298.257223563),
    4258: (6378137.0, 298.257222101),
    4269: (6378137.0, 298.257222101),
    4283: (6378137.0, 298.257222101),
    4674: (6378137.0, 298.257222101),
    4267: (6378206.4, 294.978698213898),
}
"""Semi-major axis and inverse flattening of the commonest geographic CRSs."""

ANGLES: Final = {
    9101: ("radian", 1.0),
    9102: ("degree", 0.0174532925199433),
    9103: ("arc-minute", 0.0174532925199433 / 60),
    9104: ("arc-second", 0.0174532925199433 / 3600),
    9105: ("grad", 0.015707963267949),
    9106: ("gon", 0.015707963267949),
    9114: ("mil_6400", 0.00098174770424681),
    9122: ("degree", 0.0174532925199433),
}
"""EPSG angular units: name and size in radians."""

LENGTHS: Final = {
    9001: ("metre", 1.0),
    9002: ("foot", 0.3048),
    9003: ("US survey foot", 12 / 39.37),
    9005: ("Clarke's foot", 0.3047972654),
    9014: ("fathom", 1.8288),
    9030: ("nautical mile", 1852.0),
    9036: ("kilometre", 1000.0),
    9037: ("Clarke's yard", 0.9143917962),
    9040: ("British yard (Sears 1922)", 0.914398414616029),
    9041: ("British foot (Sears 1922)", 0.304799471538676),
    9042: ("British chain (Sears 1922)", 20.1167651215526),
    9062: ("British chain (Benoit 1895 B)", 20.116782494375872),
    9080: ("Indian foot", 0.304799510248147),
    9084: ("Indian yard", 0.914398530744441),
    9093: ("Statute mile", 1609.344),
    9094: ("Gold Coast foot", 0.304799710181509),
    9095: ("British foot (1936)", 0.3048007491),
    9301: ("British chain (Sears 1922 truncated)", 20.116756),
}
"""EPSG units of length: name and size in metres."""

_LATITUDE: Final = (3081, 3085, 3089)
_LATITUDE_OF_CENTER: Final = (3089, 3081, 3085)
_FALSE_ORIGIN_LATITUDE: Final = (3085, 3081, 3089)
LONGITUDE: Final = (3080, 3084, 3088)
_LONGITUDE_OF_CENTER: Final = (3088, 3080, 3084)
_FALSE_ORIGIN_LONGITUDE: Final = (3084, 3080, 3088)
_SCALE: Final = (3092, 3093)
FIRST_PARALLEL: Final = (3078,)
_SECOND_PARALLEL: Final = (3079,)
FALSE_EASTING: Final = (3082, 3086, 3090)
FALSE_NORTHING: Final = (3083, 3087, 3091)

Parameters = tuple[tuple[str, tuple[int, ...]], ...]

_ORIGIN: Final[Parameters] = (("latitude_of_origin", _LATITUDE), ("central_meridian", LONGITUDE))
_CENTER: Final[Parameters] = (
    ("latitude_of_center", _LATITUDE_OF_CENTER),
    ("longitude_of_center", _LONGITUDE_OF_CENTER),
)
_PARALLELS: Final[Parameters] = (
    ("standard_parallel_1", FIRST_PARALLEL),
    ("standard_parallel_2", _SECOND_PARALLEL),
)
_OBLIQUE: Final[Parameters] = (
    *_CENTER,
    ("azimuth", (3094,)),
    ("rectified_grid_angle", (3096, 3094)),
    ("scale_factor", (3093, 3092)),
)

METHODS: Final[dict[int, tuple[str, Parameters]]] = {
    1: ("Transverse_Mercator", (*_ORIGIN, ("scale_factor", _SCALE))),
    3: ("Hotine_Oblique_Mercator", _OBLIQUE),
    7: ("Mercator_1SP", (*_ORIGIN, ("scale_factor", _SCALE))),
    8: (
        "Lambert_Conformal_Conic_2SP",
        (
            ("latitude_of_origin", _FALSE_ORIGIN_LATITUDE),
            ("central_meridian", _FALSE_ORIGIN_LONGITUDE),
            *_PARALLELS,
        ),
    ),
    9: ("Lambert_Conformal_Conic_1SP", (*_ORIGIN, ("scale_factor", _SCALE))),
    10: ("Lambert_Azimuthal_Equal_Area", _CENTER),
    11: (
        "Albers_Conic_Equal_Area",
        (
            ("latitude_of_center", _LATITUDE),
            ("longitude_of_center", LONGITUDE),
            *_PARALLELS,
        ),
    ),
    12: ("Azimuthal_Equidistant", _CENTER),
    13: (
        "Equidistant_Conic",
        (
            ("latitude_of_center", _LATITUDE),
            ("longitude_of_center", LONGITUDE),
            *_PARALLELS,
        ),
    ),
    14: (
        "Stereographic",
        (
            ("latitude_of_origin", _LATITUDE_OF_CENTER),
            ("central_meridian", _LONGITUDE_OF_CENTER),
            ("scale_factor", _SCALE),
        ),
    ),
    15: (
        "Polar_Stereographic",
        (
            ("latitude_of_origin", _LATITUDE),
            ("central_meridian", (3095, *LONGITUDE)),
            ("scale_factor", _SCALE),
        ),
    ),
    16: ("Oblique_Stereographic", (*_ORIGIN, ("scale_factor", _SCALE))),
    17: (
        "Equirectangular",
        (
            ("latitude_of_origin", _LATITUDE_OF_CENTER),
            ("central_meridian", _LONGITUDE_OF_CENTER),
            ("standard_parallel_1", FIRST_PARALLEL),
        ),
    ),
    18: ("Cassini_Soldner", _ORIGIN),
    19: (
        "Gnomonic",
        (
            ("latitude_of_origin", _LATITUDE_OF_CENTER),
            ("central_meridian", _LONGITUDE_OF_CENTER),
        ),
    ),
    20: ("Miller_Cylindrical", _CENTER),
    21: (
        "Orthographic",
        (
            ("latitude_of_origin", _LATITUDE_OF_CENTER),
            ("central_meridian", _LONGITUDE_OF_CENTER),
        ),
    ),
    22: ("Polyconic", _ORIGIN),
    23: ("Robinson", (("longitude_of_center", _LONGITUDE_OF_CENTER),)),
    24: ("Sinusoidal", (("longitude_of_center", _LONGITUDE_OF_CENTER),)),
    25: ("VanDerGrinten", (("central_meridian", _LONGITUDE_OF_CENTER),)),
    26: ("New_Zealand_Map_Grid", _ORIGIN),
    27: ("Transverse_Mercator_South_Orientated", (*_ORIGIN, ("scale_factor", _SCALE))),
    28: (
        "Cylindrical_Equal_Area",
        (("standard_parallel_1", FIRST_PARALLEL), ("central_meridian", LONGITUDE)),
    ),
    9815: ("Hotine_Oblique_Mercator_Azimuth_Center", _OBLIQUE),
}
"""ProjMethodGeoKey: WKT 1 name, and the keys that may hold each parameter."""
