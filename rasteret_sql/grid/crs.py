"""Coordinate reference systems and transformers, built once."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import pyproj
from pyproj.exceptions import CRSError

from rasteret_sql.errors import InputError

LONLAT: Final = "OGC:CRS84"
"""Longitude, latitude in degrees, WGS 84: what an AOI is in unless something else is said."""

PROJ_VERSION: Final[str] = pyproj.proj_version_str

_CODE = re.compile(r"[A-Za-z]+:\w+")
_FORMS = "an EPSG code, 'EPSG:n', 'OGC:CRS84', WKT or PROJJSON"


def crs_of(value: str | int | pyproj.CRS) -> pyproj.CRS:
    """The CRS that a value names.

    Args:
        value: EPSG code (``32643``, ``'32643'``), authority code (``'EPSG:32643'``,
            ``'OGC:CRS84'``), WKT 1 or 2, PROJJSON text, or a CRS.

    Raises:
        InputError: if the value names no CRS.

    Example:
        >>> crs_of("32643") is crs_of("EPSG:32643")
        True
    """
    if isinstance(value, pyproj.CRS):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _not_a_crs(value)
    text = str(value).strip()
    return _crs(f"EPSG:{text}" if text.isdecimal() else text)


@lru_cache(maxsize=256)
def _crs(text: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError:
        raise _not_a_crs(text) from None


def _not_a_crs(value: object) -> InputError:
    if isinstance(value, str) and _CODE.fullmatch(value):
        todo = f"PROJ {pyproj.proj_version_str} has no such code, check it at epsg.org"
        return InputError.expected("geometry_crs", "a code of a CRS", value, todo)
    todo = "'EPSG:32643' is an example, 'OGC:CRS84' is longitude, latitude"
    return InputError.expected("geometry_crs", _FORMS, value, todo)


def transformer(src: str | int | pyproj.CRS, dst: str | int | pyproj.CRS) -> pyproj.Transformer:
    """The transformer from one CRS to another, coordinates as x, y (longitude, latitude).

    Building one costs 8 ms, so each pair is built once. A transformer may be used from
    several threads at a time.

    Raises:
        InputError: if a value names no CRS.

    Example:
        >>> transformer(4326, 3857).transform(180, 0)[0]
        20037508.342789244
    """
    return _named_transformer(src, dst)


@lru_cache(maxsize=1024)
def _named_transformer(
    src: str | int | pyproj.CRS, dst: str | int | pyproj.CRS
) -> pyproj.Transformer:
    return _transformer(crs_of(src).srs, crs_of(dst).srs)


@lru_cache(maxsize=1024)
def _transformer(src: str, dst: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(src, dst, always_xy=True)


@lru_cache(maxsize=1024)
def _same(first: str, second: str) -> bool:
    return pyproj.CRS(first).equals(pyproj.CRS(second), ignore_axis_order=True)


def is_same(first: pyproj.CRS, second: pyproj.CRS) -> bool:
    """Whether x, y coordinates mean the same in both (``EPSG:4326`` and ``OGC:CRS84`` do).

    Example:
        >>> is_same(crs_of(4326), crs_of(LONLAT))
        True
    """
    if first is second or first.srs == second.srs or _same(first.srs, second.srs):
        return True
    wgs84 = {"EPSG:4326", LONLAT}
    return first.srs in wgs84 and second.srs in wgs84
