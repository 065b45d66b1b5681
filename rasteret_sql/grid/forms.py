"""The texts, bytes and objects in which users write a geometry.

WKT, EWKT, WKB, EWKB, hexadecimal WKB, GeoJSON (geometry, Feature or FeatureCollection) and
shapely objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from rasteret_sql.errors import InputError

_EXPECTED = "WKT, WKB, GeoJSON or a GEOMETRY"
_CURVES = "it has curves: draw them as straight lines"
_EWKT = re.compile(r"\s*SRID\s*=\s*(\d+)\s*;(.*)", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_HEX = re.compile(r"(?:0[01])(?:[0-9A-Fa-f]{2}){8,}")


def read_geometry(value: object) -> tuple[BaseGeometry, str | int | None]:
    """Read a geometry in any form.

    Returns:
        The geometry, in two dimensions, and the CRS that the form itself names (the SRID of
        EWKT or EWKB, the old ``crs`` member of GeoJSON), else None.

    Raises:
        InputError: if it is none of these forms, is malformed, or has no finite coordinates.

    Example:
        >>> read_geometry("SRID=32643;POINT (1 2)")
        (<POINT (1 2)>, 32643)
    """
    geometry, crs = read_any_geometry(value)
    if geometry.is_empty and isinstance(geometry, shapely.GeometryCollection):
        raise InputError(
            "geometry: expected polygons, got a collection without any; leave it out to read "
            "everything"
        )
    if geometry.is_empty:
        raise InputError(
            "geometry: expected a Polygon or MultiPolygon, got an empty"
            f" {geometry.geom_type}; leave it out to read everything"
        )
    return geometry, crs


def read_any_geometry(value: object) -> tuple[BaseGeometry, str | int | None]:
    """Read a geometry as `read_geometry` does; it may be empty.

    Raises:
        InputError: if it is none of these forms, is malformed, or has no finite coordinates.

    Example:
        >>> read_any_geometry('{"type": "Point", "coordinates": []}')
        (<POINT EMPTY>, None)
    """
    geometry, crs = _read(value)
    geometry = shapely.force_2d(geometry)
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise malformed(value, "a coordinate is not finite")
    return geometry, crs


def _read(value: object) -> tuple[BaseGeometry, str | int | None]:
    if isinstance(value, BaseGeometry):
        return value, int(shapely.get_srid(value)) or None
    if isinstance(value, bytes | bytearray | memoryview):
        return _from_wkb(bytes(value))
    if isinstance(value, Mapping):
        return _from_geojson(value)
    if not isinstance(value, str):
        raise InputError.expected("geometry", _EXPECTED, type(value).__name__, "give one of these")
    text = value.strip()
    if text.startswith("{"):
        try:
            return _from_geojson(json.loads(text))
        except json.JSONDecodeError as error:
            raise malformed(text, f"it is no JSON: {error}") from None
    if _HEX.fullmatch(text):
        return _from_wkb(bytes.fromhex(text))
    if is_name(text):
        raise malformed(text, "of a column, pass its table or query as aois")
    named = _EWKT.fullmatch(text)
    srid, wkt = (int(named[1]), named[2]) if named else (0, text)
    try:
        with np.errstate(invalid="ignore"):  # a NaN is refused later, by name
            return shapely.from_wkt(wkt), srid or None
    except ShapelyError as error:
        raise malformed(text, _reason(error)) from None
    except NotImplementedError:  # shapely has no curves
        raise malformed(text, _CURVES) from None


def _from_wkb(data: bytes) -> tuple[BaseGeometry, int | None]:
    try:
        with np.errstate(invalid="ignore"):  # a NaN is refused later, by name
            geometry = shapely.from_wkb(data)
    except ShapelyError as error:
        raise malformed(f"{len(data)} bytes", _reason(error)) from None
    except NotImplementedError:  # shapely has no curves
        raise malformed(f"{len(data)} bytes", _CURVES) from None
    return geometry, int(shapely.get_srid(geometry)) or None


def _from_geojson(document: Mapping[str, Any]) -> tuple[BaseGeometry, str | None]:
    crs = document.get("crs")
    try:
        name = crs["properties"]["name"] if crs else None
        found = [
            shapely.from_geojson(json.dumps(part, default=_number))
            for part in _geojson_parts(document)
        ]
    except (ShapelyError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise malformed(f"GeoJSON {document.get('type')}", _reason(error)) from None
    if len(found) == 1:
        return found[0], name
    return shapely.GeometryCollection(found), name


def _geojson_parts(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    kind = document["type"]
    if kind == "FeatureCollection":
        return [part for feature in document["features"] for part in _geojson_parts(feature)]
    if kind == "Feature":
        return [document["geometry"]] if document["geometry"] else []
    return [document]


def _number(value: object) -> float:
    """A number of a STRUCT, whose literals are DECIMAL."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no number")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        return f"{text} is missing"
    return text.split("Exception: ", 1)[-1]


def is_name(text: str) -> bool:
    """Whether a text can be the name of a column, and so is no geometry.

    Example:
        >>> is_name("geom"), is_name("POINT (1 2)")
        (True, False)
    """
    return _NAME.fullmatch(text.strip()) is not None


def malformed(got: object, why: str) -> InputError:
    """The error for what is no geometry."""
    shown = bytes(got) if isinstance(got, bytearray | memoryview) else got
    return InputError.expected("geometry", _EXPECTED, shown, why)
