"""GeoKeys: the CRS tags of a GeoTIFF, as a mapping.

Source:
    OGC 19-008r4 GeoTIFF 1.1, clause 7.1 (GeoKeyDirectory) and annex B (keys).
"""

from __future__ import annotations

import math
import struct
from typing import Final

from rasteret_sql.tiff import tags
from rasteret_sql.tiff.layout import ByteOrder

MODEL_TYPE: Final = 1024
RASTER_TYPE: Final = 1025
CITATION: Final = 1026
GEODETIC_CRS: Final = 2048
GEODETIC_CITATION: Final = 2049
GEODETIC_DATUM: Final = 2050
PRIME_MERIDIAN: Final = 2051
ANGULAR_UNITS: Final = 2054
ANGULAR_UNIT_SIZE: Final = 2055
ELLIPSOID: Final = 2056
SEMI_MAJOR_AXIS: Final = 2057
SEMI_MINOR_AXIS: Final = 2058
INVERSE_FLATTENING: Final = 2059
PRIME_MERIDIAN_LONGITUDE: Final = 2061
PROJECTED_CRS: Final = 3072
PROJECTED_CITATION: Final = 3073
PROJECTION: Final = 3074
PROJECTION_METHOD: Final = 3075
LINEAR_UNITS: Final = 3076
LINEAR_UNIT_SIZE: Final = 3077
VERTICAL_CRS: Final = 4096
VERTICAL_CITATION: Final = 4097
VERTICAL_DATUM: Final = 4098
VERTICAL_UNITS: Final = 4099

PROJECTED: Final = 1
GEOGRAPHIC: Final = 2
GEOCENTRIC: Final = 3
"""Values of GTModelTypeGeoKey."""

USER_DEFINED: Final = 32767
PIXEL_IS_POINT: Final = 2

GeoKeys = dict[int, int | float | str]
"""First value of each key: a code, a number, or text without its closing bar."""


def parse_geokeys(directory: bytes, doubles: bytes, text: bytes, byte_order: ByteOrder) -> GeoKeys:
    """Decode tags 34735, 34736 and 34737; a key that points outside them is left out.

    Example:
        >>> parse_geokeys(bytes([1, 0, 1, 0, 0, 0, 1, 0, 0, 12, 0, 0, 1, 0, 33, 126]), b"", b"",
        ...               "little")
        {3072: 32289}
    """
    mark = "<" if byte_order == "little" else ">"
    shorts = struct.unpack(f"{mark}{len(directory) // 2}H", directory[: len(directory) // 2 * 2])
    numbers = struct.unpack(f"{mark}{len(doubles) // 8}d", doubles[: len(doubles) // 8 * 8])
    keys: GeoKeys = {}
    if len(shorts) < 4:
        return keys
    end = min(len(shorts) - 3, 4 + 4 * shorts[3])
    for at in range(4, end, 4):
        key, place, count, value = shorts[at : at + 4]
        if place == 0:
            keys[key] = value
        elif place == tags.GEO_DOUBLE_PARAMS and value < len(numbers):
            keys[key] = numbers[value]
        elif place == tags.GEO_ASCII_PARAMS and value < len(text):
            part = text[value : value + count].split(b"\0")[0]
            keys[key] = part.decode("utf-8", "replace").removesuffix("|").strip()
        elif place == tags.GEO_KEY_DIRECTORY and value < len(shorts):
            keys[key] = shorts[value]
    return keys


def code_of(keys: GeoKeys, key: int) -> int | None:
    """A registered code; None for absent, undefined (0) and user-defined (32767) ones."""
    value = keys.get(key)
    return value if isinstance(value, int) and value not in (0, USER_DEFINED) else None


def number_of(keys: GeoKeys, where: tuple[int, ...], default: float) -> float:
    """The first of the keys that is there and a finite number."""
    for key in where:
        value = keys.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return default


def name_of(keys: GeoKeys, *where: int) -> str:
    """The first of the keys that holds a text, else "unnamed"."""
    for key in where:
        value = keys.get(key)
        if isinstance(value, str) and value:
            return value
    return "unnamed"
