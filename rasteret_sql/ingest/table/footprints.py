"""Footprint columns of a table, of whatever form and CRS, to WKB and boxes in degrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from rasteret_sql.collections.footprints import (
    LAT_LIMIT,
    LON_LIMIT,
    Shapes,
    bbox_of,
    geometry_of,
    parse_bbox,
    parse_geometry,
    to_lonlat,
)
from rasteret_sql.collections.geo_key import extension
from rasteret_sql.errors import InputError, shorten
from rasteret_sql.grid.crs import LONLAT, crs_of
from rasteret_sql.schema import BBOX, GEOMETRY

BBOX_COLUMNS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("bbox_minx", "bbox_miny", "bbox_maxx", "bbox_maxy"),
    ("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax"),
    ("west", "south", "east", "north"),
)
"""Spellings of a box in four columns, in the order they are tried."""

_GEOMETRY_NAMES = ("geometry", "geom", "wkb_geometry", "geometry_wkb", "footprint")
_WHOLE_WORLD = 359.0
_NESTING = {1: "linestring", 2: "polygon", 3: "multipolygon"}


@dataclass(frozen=True)
class GeometryColumn:
    """A column of footprints and what its metadata say of it.

    Attributes:
        name: of the column.
        kind: GeoArrow extension name, or what the `geo` key's encoding stands for; else "".
        crs: None if no metadata name one.
    """

    name: str
    kind: str
    crs: pyproj.CRS | None

    def degrees(self, column: pa.Array, note: Callable[[str, int], None]) -> tuple[Shapes, bool]:
        """The geometries of a column, two-dimensional, in longitude and latitude.

        Args:
            column: of this name.
            note: is told of what could not be used, and how often.

        Returns:
            The geometries, and whether a CRS was declared for them.

        Raises:
            InputError: if the type of the column holds no geometries, or coordinates
                without a CRS are not degrees.
        """
        n_given = len(column) - column.null_count
        decoded = self._decode(column)
        srids = shapely.get_srid(decoded)
        shapes = np.asarray(shapely.force_2d(decoded), object)
        shapes[shapely.is_empty(shapes)] = None
        bounds = shapely.bounds(shapes)
        shapes[~np.isfinite(bounds).all(axis=1)] = None
        n_lost = n_given - int((~shapely.is_missing(shapes)).sum())
        if n_lost:
            note(f"{self.name}: a geometry that is empty or can't be read; it is NULL", n_lost)
        if self.crs is not None:
            return to_lonlat(shapes, self.crs), True
        for srid in np.unique(srids[srids > 0]).tolist():
            rows = srids == srid
            shapes[rows] = to_lonlat(shapes[rows], crs_of(int(srid)))
        self._check_degrees(shapes)
        return shapes, bool((srids > 0).any())

    def _decode(self, column: pa.Array) -> Shapes:
        kind = column.type
        if pa.types.is_null(kind):
            return np.full(len(column), None, object)
        if _is_binary(kind):
            values = np.array(column.cast(pa.large_binary()).to_pylist(), object)
            return np.asarray(shapely.from_wkb(values, on_invalid="ignore"), object)
        if _is_text(kind):
            return _each(column, parse_geometry)
        if pa.types.is_nested(kind):
            family = self.kind.removeprefix("geoarrow.") or _family(kind)
            return _each(column, lambda value: _from_nested(value, family))
        raise InputError.expected(
            self.name,
            "WKB, WKT, GeoJSON or GeoArrow",
            kind,
            "name the geometry column in column_map, MAP {'<column>': 'geometry'}",
        )

    def _check_degrees(self, shapes: Shapes) -> None:
        bounds = shapely.bounds(shapes)
        outside = (np.abs(bounds[:, [0, 2]]) > LON_LIMIT).any(axis=1)
        outside |= (np.abs(bounds[:, [1, 3]]) > LAT_LIMIT).any(axis=1)
        if outside.any():
            raise InputError.expected(
                self.name,
                "degrees, as the column declares no CRS",
                tuple(bounds[outside][0].tolist()),
                "give geometry_crs, or make it degrees with ST_Transform",
            )


def find_geometry(
    schema: pa.Schema, geo_metadata: bytes | None, geometry_crs: str | int | None
) -> GeometryColumn | None:
    """The column of footprints: by name, by GeoArrow type, or as the `geo` key says.

    Args:
        schema: of the table, aliases included.
        geo_metadata: value of the Parquet key ``geo``.
        geometry_crs: the CRS if it is known better than the metadata.

    Raises:
        InputError: a CRS that PROJ does not know.

    Source: GeoParquet 0.1 to 1.1; GeoArrow extension types.
    """
    geo = _geo_columns(geo_metadata)
    kinds = {field.name: extension(field) for field in schema}
    by_type = [name for name, (kind, _) in kinds.items() if kind.startswith("geoarrow.")]
    by_type += [name for name, (kind, _) in kinds.items() if kind in {"ogc.wkb", "ogc.geometry"}]
    names = [*_GEOMETRY_NAMES[:1], *by_type, *geo, *_GEOMETRY_NAMES[1:]]
    name = next((name for name in names if name in kinds), None)
    if name is None:
        return None
    kind, declared = kinds[name]
    of_geo = geo.get(name, {})
    encoding = str(of_geo.get("encoding", "WKB")).lower()
    kind = kind or ("" if encoding == "wkb" else f"geoarrow.{encoding}")
    if geometry_crs not in (None, ""):
        return GeometryColumn(name, kind, crs_of(_crs_text(geometry_crs)))
    crs: Any = declared
    if crs is None and name in geo:
        # GeoParquet: no crs is CRS84, a null one is unknown
        crs = of_geo.get("crs", LONLAT)
    return GeometryColumn(name, kind, _parse_crs(crs, name))


def _geo_columns(geo_metadata: bytes | None) -> dict[str, dict[str, Any]]:
    """Columns of the `geo` key, the primary one first."""
    try:
        geo = json.loads(geo_metadata) if geo_metadata else {}
    except ValueError:
        return {}
    columns = geo.get("columns") if isinstance(geo, dict) else None
    if not isinstance(columns, dict):
        return {}
    primary = geo.get("primary_column")
    ordered = sorted(columns, key=lambda name: name != primary)
    return {name: columns[name] for name in ordered if isinstance(columns[name], dict)}


def _crs_text(crs: object) -> str | int:
    """A CRS as `crs_of` takes it; a PROJJSON object is text there."""
    return crs if isinstance(crs, str | int) else json.dumps(crs)


def _parse_crs(crs: object, name: str) -> pyproj.CRS | None:
    if crs is None or crs in ("", {}):
        return None
    text = _crs_text(crs)
    try:
        return crs_of(text)
    except (InputError, CRSError):
        raise InputError.expected(
            name, "a CRS in the metadata of the column", text, "give geometry_crs"
        ) from None


def to_wkb(shapes: Shapes) -> pa.Array:
    """Geometries as a canonical column."""
    return pa.array(shapely.to_wkb(shapes, include_srid=False), GEOMETRY.type)


def boxes_of(shapes: Shapes) -> NDArray[np.float64]:
    """Bounds (rows, 4), NaN where there is no geometry; west > east across 180 degrees."""
    bounds: NDArray[np.float64] = shapely.bounds(shapes)
    for row in np.nonzero(bounds[:, 2] - bounds[:, 0] > _WHOLE_WORLD)[0]:
        bounds[row] = bbox_of(shapes[row])
    return bounds


def shapes_of(boxes: NDArray[np.float64]) -> Shapes:
    """Polygons of boxes (rows, 4); None where a bound is NaN."""
    shapes = np.full(len(boxes), None, object)
    for row in np.nonzero(~np.isnan(boxes).any(axis=1))[0]:
        shapes[row] = geometry_of(parse_bbox(boxes[row].tolist()))  # type: ignore[arg-type]
    return shapes


def to_bbox(boxes: NDArray[np.float64]) -> pa.Array:
    """Boxes (rows, 4) as a canonical column; NULL where a bound is NaN."""
    missing = pa.array(np.isnan(boxes).any(axis=1))
    children = [pa.array(boxes[:, i]) for i in range(4)]
    return pa.StructArray.from_arrays(children, fields=list(BBOX), mask=missing)


def read_boxes(columns: list[pa.Array], note: Callable[[str, int], None]) -> NDArray[np.float64]:
    """Boxes (rows, 4) of one column of structs or lists, or of four columns; NaN for NULL.

    Raises:
        InputError: if the type is none of these.
    """
    if len(columns) == 4:
        boxes = np.column_stack([_floats(column) for column in columns])
    elif _is_box_struct(columns[0].type):
        fields = [pc.struct_field(columns[0], name) for name in BBOX.names]
        boxes = np.column_stack([_floats(field) for field in fields])
    elif _is_list(columns[0].type):
        boxes, n_bad = _boxes_of_lists(columns[0])
        if n_bad:
            note("bbox: not four or six numbers; it is NULL", n_bad)
        return boxes
    elif pa.types.is_null(columns[0].type):
        return np.full((len(columns[0]), 4), np.nan)
    else:
        raise InputError.expected(
            "bbox",
            "STRUCT(xmin, ymin, xmax, ymax), a list of four or six, or four columns",
            columns[0].type,
            "name them in column_map",
        )
    bad = ~np.isnan(boxes).any(axis=1) & (boxes[:, 1] > boxes[:, 3])
    if bad.any():
        note("bbox: ymin > ymax; it is NULL", int(bad.sum()))
        boxes[bad] = np.nan
    return boxes


def _boxes_of_lists(column: pa.Array) -> tuple[NDArray[np.float64], int]:
    boxes = np.full((len(column), 4), np.nan)
    n_bad = 0
    for row, value in enumerate(column.to_pylist()):
        try:
            box = parse_bbox(value)
        except ValueError:
            n_bad += 1
            continue
        if box is not None:
            boxes[row] = box
    return boxes, n_bad


def _floats(column: pa.Array) -> NDArray[np.float64]:
    try:
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise InputError.expected(
            "bbox", "numbers", shorten(error), "name other columns in column_map"
        ) from None
    return np.array(values, np.float64)


def _is_box_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and all(
        kind.get_field_index(name) >= 0 for name in BBOX.names
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _each(column: pa.Array, parse: Callable[[Any], Any]) -> Shapes:
    shapes = np.full(len(column), None, object)
    for row, value in enumerate(column.to_pylist()):
        try:
            shapes[row] = None if value is None else parse(value)
        except (ValueError, TypeError, KeyError, IndexError):
            continue  # counted by the caller, as every value without a shape is
    return shapes


def _family(kind: pa.DataType) -> str:
    """The geometry type that a nested Arrow type stands for, if nothing says so."""
    if pa.types.is_struct(kind):
        return "geojson" if kind.get_field_index("coordinates") >= 0 else "point"
    depth = 0
    while _is_list(kind) and not pa.types.is_fixed_size_list(kind):
        depth += 1
        kind = kind.value_type
    return _NESTING.get(depth, "point")


def _from_nested(value: Any, family: str) -> Any:  # noqa: ANN401 - shapely has no types
    """A geometry of GeoArrow's native encodings or of a GeoJSON struct."""
    if family == "geojson":
        return parse_geometry({key: part for key, part in value.items() if part is not None})
    if family == "box":
        return shapely.box(*(value[name] for name in BBOX.names))
    coordinates = _coordinates(value)
    if family == "point":
        return shapely.Point(coordinates)
    names = {"linestring": "LineString", "polygon": "Polygon", "multipoint": "MultiPoint"}
    names |= {"multilinestring": "MultiLineString", "multipolygon": "MultiPolygon"}
    return parse_geometry({"type": names[family], "coordinates": coordinates})


def _coordinates(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return [value["x"], value["y"]]
    if value and isinstance(value[0], float | int):
        return list(value[:2])
    return [_coordinates(part) for part in value]
