"""What is asked for: areas in one CRS, with the columns that come through to the output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from rasteret_sql.errors import InputError
from rasteret_sql.grid.aoi import Aoi, area_of, crs_of_area, zone_of
from rasteret_sql.grid.crs import LONLAT, crs_of, is_same
from rasteret_sql.grid.forms import is_name, malformed, read_any_geometry
from rasteret_sql.grid.masks import are_boxes
from rasteret_sql.grid.reproject import (
    are_surely_small,
    is_large,
    lonlat_boxes,
    reproject_all,
)
from rasteret_sql.units import BBox

_ROWS_AT_ONCE = 1 << 14
_POLYGONS = (3, 6)
_ZONES = (0, 1, 3, 4, 5, 6)
_EXTENSION = b"ARROW:extension:metadata"


@dataclass(frozen=True, eq=False)
class Moved:
    """All targets in the CRS of a raster.

    Attributes:
        geometries: Polygons; empty where nothing transforms.
        bounds: xmin, ymin, xmax, ymax of each; NaN of an empty one.
        is_box: Whether the polygon is a rectangle along the axes.
        is_area: Whether it is polygons, and no line or points.
    """

    geometries: NDArray[np.object_]
    bounds: NDArray[np.float64]
    is_box: NDArray[np.bool_]
    is_area: NDArray[np.bool_]


class Targets:
    """Areas, numbered from 0.

    Args:
        areas: Polygons, or lines and points; of longitudes and latitudes, within -180..180.
        crs: What the coordinates are in; None = pixels (x = column, y = row).
        columns: One row per area: the columns that come through.

    Attributes:
        snaps_lines: Whether a line counts as going from pixel centre to pixel centre, so that
            it meets the pixels of `grid.masks.line_mask`.
    """

    snaps_lines = False

    def __init__(
        self,
        areas: Sequence[BaseGeometry] | NDArray[np.object_],
        crs: pyproj.CRS | None,
        columns: pa.RecordBatch | None = None,
    ) -> None:
        self.areas = np.empty(len(areas), dtype=object)
        self.areas[:] = areas
        self.crs = crs
        self.columns = columns
        self._moved: dict[str, Moved | InputError] = {}
        self._boxes: list[BBox] | None = None
        self._is_large: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, aoi: Aoi) -> Targets:
        """One area without columns."""
        return cls([aoi.geometry], aoi.crs)

    def __len__(self) -> int:
        """Number of areas."""
        return len(self.areas)

    def aoi(self, number: int) -> Aoi:
        """One of the areas."""
        return Aoi(self.areas[number], self.crs)

    def lonlat_boxes(self) -> list[BBox]:
        """Boxes in longitude, latitude that hold all areas; none for pixel coordinates."""
        if self.crs is None:
            return []
        if self._boxes is None:
            if len(self) > 1 and is_same(self.crs, crs_of(LONLAT)):
                # one box around areas in one part of the world, also across the antimeridian
                boxes = [shapely.box(*bounds) for bounds in shapely.bounds(self.areas)]
                self._boxes = lonlat_boxes(shapely.MultiPolygon(boxes), self.crs)
            elif len(self) > 1:
                self._boxes = lonlat_boxes(_around(self.areas), self.crs)
            else:
                self._boxes = self.aoi(0).lonlat_boxes() if len(self) else []
        return list(self._boxes)

    @property
    def is_large(self) -> NDArray[np.bool_]:
        """Which areas are too large to be transformed to a projection made for elsewhere."""
        if self._is_large is None:
            if self.crs is None or not any(is_large(box) for box in self.lonlat_boxes()):
                self._is_large = np.zeros(len(self), bool)
            else:
                found = ~are_surely_small(shapely.bounds(self.areas), self.crs)
                for n in np.flatnonzero(found).tolist():
                    found[n] = any(is_large(box) for box in self.aoi(n).lonlat_boxes())
                self._is_large = found
        return self._is_large

    def in_crs(self, crs: str) -> Moved:
        """All areas in a CRS.

        Raises:
            InputError: PROJ knows no way there.
        """
        found = self._moved.get(crs)
        if found is None:
            try:
                found = self._transformed(crs_of(crs))
            except ProjError:  # an engineering CRS, or one of another planet
                found = InputError.expected(
                    "crs",
                    "a CRS that the area can be transformed to",
                    crs,
                    "read it whole, or give the area in pixels with geometry_crs := 'pixel'",
                )
            except InputError as error:
                found = error
            self._moved[crs] = found
        if isinstance(found, InputError):
            raise found
        return found

    def near(self, number: int, crs: str, bounds: BBox) -> BaseGeometry:
        """One area in the CRS of a raster with these bounds; see `Aoi.to_crs`."""
        return self.aoi(number).to_crs(crs, bounds)

    def _transformed(self, dst: pyproj.CRS) -> Moved:
        src = self.crs
        assert src is not None  # noqa: S101 (areas in pixels are not transformed)
        moved = self.areas if is_same(src, dst) else reproject_all(self.areas, src, dst)
        is_area = shapely.get_dimensions(moved) == 2
        return Moved(moved, shapely.bounds(moved), are_boxes(moved), is_area)


def parse_targets(
    table: pa.Table,
    geometry_column: str | None,
    geometry_crs: object,
    argument: str = "aois",
    *,
    areas_only: bool = True,
) -> Targets:
    """Read a relation of areas.

    Args:
        table: One row per area; NULL and empty geometries are left out.
        geometry_column: Which column holds them; found by type or name without it.
        geometry_crs: CRS of them all, ``'pixel'`` for columns and rows; without it the one that
            the column or the geometries name, else longitude and latitude.
        argument: How the user named the relation, for errors.
        areas_only: Whether lines and points are refused.

    Raises:
        InputError: there is no such column, or a geometry is malformed or no area.
    """
    name = find_geometry_column(table.schema, geometry_column, argument)
    shapes, there, crs = shapes_of(table, name, geometry_crs, argument)
    rows = np.flatnonzero(there)
    areas = _areas(shapes, rows, crs, argument, areas_only=areas_only)
    return Targets(areas, crs, one_batch(table.drop_columns([name]).filter(pa.array(there))))


def shapes_of(
    table: pa.Table, name: str, geometry_crs: object, argument: str
) -> tuple[NDArray[np.object_], NDArray[np.bool_], pyproj.CRS | None]:
    """Geometries of a column, in two dimensions, without NULL and empty ones.

    Returns:
        The geometries, which rows have one, and their CRS (None = pixels).

    Raises:
        InputError: one is malformed, or ``geometry_crs`` is not what they name.
    """
    shapes = _shapes(table.column(name), f"{argument}: column {name}")
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    shapes = shapes[there]
    more = shapely.get_coordinate_dimension(shapes) > 2
    shapes[more] = shapely.force_2d(shapes[more])
    try:
        named = _named_crs(table.schema.field(name), shapes)
    except InputError as error:
        raise InputError(f"{argument}: column {name}: {error.message}") from None
    return shapes, there, crs_of_area(geometry_crs, named)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """All rows of a table as one batch."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def find_geometry_column(schema: pa.Schema, wanted: str | None, argument: str) -> str:
    """The column of geometries: the one asked for, else by type, else by name.

    Raises:
        InputError: there is none.
    """
    if wanted is not None:
        if wanted not in schema.names:
            listed = ", ".join(schema.names[:12])
            raise InputError.expected("geometry_column", f"one of {listed}", wanted, "correct it")
        return wanted
    typed = [field.name for field in schema if _is_geometry(field)]
    if len(typed) == 1:
        return str(typed[0])
    named = [n for n in schema.names if n.lower() in ("geometry", "geom", "wkb_geometry")]
    if len(named) >= 1:
        return str(named[0])
    raise InputError.expected(
        argument,
        "a column of geometries (GEOMETRY, or named geometry, geom or wkb_geometry)",
        ", ".join(schema.names[:12]),
        "name it with geometry_column := '…'",
    )


def _around(areas: NDArray[np.object_]) -> BaseGeometry:
    """The box around areas; a line or a point where it has no width or no height."""
    xmin, ymin, xmax, ymax = shapely.total_bounds(areas)
    if xmin < xmax and ymin < ymax:
        return shapely.box(xmin, ymin, xmax, ymax)
    line = shapely.LineString([(xmin, ymin), (xmax, ymax)])
    return line if line.length > 0 else shapely.Point(xmin, ymin)


def _is_geometry(field: pa.Field) -> bool:
    name = (field.metadata or {}).get(b"ARROW:extension:name", b"")
    return name == b"geoarrow.wkb" or getattr(field.type, "extension_name", "") == "geoarrow.wkb"


def _named_crs(field: pa.Field, shapes: NDArray[np.object_]) -> str | int | None:
    """The CRS that the column's type names, else the one SRID of the geometries."""
    metadata = (field.metadata or {}).get(_EXTENSION)
    if metadata is None and hasattr(field.type, "__arrow_ext_serialize__"):
        metadata = field.type.__arrow_ext_serialize__()
    try:
        named = json.loads(metadata or b"{}").get("crs")
    except (ValueError, AttributeError):
        named = None
    if named:
        return named if isinstance(named, str) else json.dumps(named)
    srids = sorted({int(srid) for srid in np.unique(shapely.get_srid(shapes))} - {0})
    if len(srids) > 1:
        raise InputError.expected(
            "geometry",
            "geometries of one CRS",
            ", ".join(f"SRID {srid}" for srid in srids[:4]),
            "transform them to one, or read those of each CRS in a call of its own",
        )
    return srids[0] if srids else None


def _shapes(column: pa.ChunkedArray, subject: str) -> NDArray[np.object_]:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array(
            [chunk.storage for chunk in column.chunks], column.type.storage_type
        )
    shapes = np.empty(len(column), dtype=object)
    for first in range(0, len(column), _ROWS_AT_ONCE):  # as Python objects they take much memory
        some = column.slice(first, _ROWS_AT_ONCE).to_pylist()
        shapes[first : first + len(some)] = _some_shapes(some, subject, first)
    return shapes


def _some_shapes(found: list[Any], subject: str, first: int) -> NDArray[np.object_]:
    """Geometries of the rows of a column from one on."""
    values = np.empty(len(found), dtype=object)
    values[:] = found
    kinds = {type(value) for value in found} - {type(None)}
    try:
        shapes = None
        with np.errstate(invalid="ignore"):  # a NaN is refused below, by row
            if kinds <= {bytes}:
                shapes = np.asarray(shapely.from_wkb(values), dtype=object)
            elif kinds == {str} and not any(v and v.lstrip()[:1] in "{S0" for v in values):
                shapes = np.asarray(shapely.from_wkt(values), dtype=object)
        if shapes is not None and _are_finite(shapes):
            return shapes
    except (ShapelyError, NotImplementedError):
        pass  # one by one: the message then names the row
    shapes = np.empty(len(values), dtype=object)
    for row, value in enumerate(values.tolist()):
        try:
            shapes[row] = None if value is None else _one(value)
        except InputError as error:
            told = f"{subject}, row {first + row + 1}: {error.message}"
            raise InputError(told) from None
    return shapes


def _are_finite(shapes: NDArray[np.object_]) -> bool:
    """Whether all corners of lines and polygons have a place; a point may have none."""
    drawn = shapes[shapely.get_type_id(shapes) > 0]
    return bool(np.isfinite(shapely.get_coordinates(drawn)).all())


def _one(value: Any) -> BaseGeometry:  # noqa: ANN401 (whatever the column holds)
    if isinstance(value, str) and is_name(value):  # else the advice is to pass a table
        raise malformed(value, "name the column of geometries with geometry_column")
    shape, crs = read_any_geometry(value)
    if isinstance(crs, str):  # of GeoJSON
        named = crs_of(crs)
        crs = None if is_same(named, crs_of(LONLAT)) else named.to_epsg()
        if crs is None and not is_same(named, crs_of(LONLAT)):
            raise InputError.expected(
                "geometry", "a CRS with an EPSG code", named.name, "give it as geometry_crs"
            )
    return shape if crs is None else shapely.set_srid(shape, crs)


def _areas(
    shapes: NDArray[np.object_],
    rows: NDArray[np.intp],
    crs: pyproj.CRS | None,
    argument: str,
    *,
    areas_only: bool,
) -> NDArray[np.object_]:
    """As `grid.aoi` takes one: valid, polygons, longitudes folded; `rows` are theirs."""
    areas = shapes.copy()
    odd = ~np.isin(shapely.get_type_id(shapes), _POLYGONS if areas_only else _ZONES)
    odd |= ~shapely.is_valid(shapes)
    if crs is not None and crs.is_geographic and len(shapes):
        xmin, ymin, xmax, ymax = shapely.bounds(shapes).T
        odd |= (xmin < -180) | (xmax > 180) | (ymin < -90) | (ymax > 90)
    for n in np.flatnonzero(odd).tolist():
        try:
            areas[n] = (area_of if areas_only else zone_of)(shapes[n], crs)
        except InputError as error:
            raise InputError(f"{argument}, row {rows[n] + 1}: {error.message}") from None
    return areas
