"""Points: one row per point and record, with the value of each band at the point.

A unit of work is a tile of the first band with the points in it, so each tile is fetched and
decoded once for all of them. A scene is never split between plans, and memory is bounded by
the points of a scene, not by points times scenes.

Source: ``rasterio.sample`` (row and column are the floor of the inverse transform: the top
and left edge of a pixel are inside, the right and bottom one outside).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, crs_of, is_same, transformer
from rasteret_sql.reading.blocks import slab_rows
from rasteret_sql.reading.columns import texts, to_arrow
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.outputs.common import ERROR, Read, check_max_bytes
from rasteret_sql.reading.patches import Patch, pixels_of, valid_pixels
from rasteret_sql.reading.pipeline import Group, Output, Pipeline
from rasteret_sql.reading.plan import Failure, Granularity, Planner, TilePlan, Units
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import Grid, Ints, SceneTable
from rasteret_sql.reading.targets import (
    Targets,
    find_geometry_column,
    one_batch,
    shapes_of,
)
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.units import BBox, Window

Floats = NDArray[np.float64]
Match = Literal["all", "latest", "nearest"]
Neighbourhood = Literal["off", "always", "if_center_nodata"]
Records = Callable[[], Iterator[SceneTable]]
Select = Callable[[SceneTable, int, Ints], Mask]

POINT_FIELDS = (
    pa.field("point_x", pa.float64()),
    pa.field("point_y", pa.float64()),
    pa.field("point_crs", pa.string()),
)
"""The point, as it was given."""

PLACE_FIELDS = (
    pa.field("raster_crs", pa.string()),
    pa.field("row", pa.int32()),
    pa.field("col", pa.int32()),
    pa.field("distance_px", pa.float64()),
)
"""The pixel that holds it, and how far from it the values lie."""

_XY_NAMES = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
_NEVER = np.iinfo(np.int64).max
_UNKNOWN = np.iinfo(np.int64).min
_KEPT_CRSS = 4
_KEPT_BYTES = 64 * 1024 * 1024
_POINTS_AT_ONCE = 1 << 18
_UNIT_BYTES = 4 * 1024 * 1024
_BATCH_ROWS = 1 << 17
_MAX_BOXES = 16
_APART_DEGREES = 1.0
_BOX_MARGIN = 1e-9
_LEAST_AT_ONCE = 1 << 12
_PLAN_BYTES = 128
"""What a plan holds of a point: it is in memory until the point's row is delivered."""


class Located(NamedTuple):
    """Points inside a raster, sorted by number; arrays of one length.

    Attributes:
        point: Number of the point.
        row: Row of the pixel that holds it.
        col: Column of that pixel.
    """

    point: Ints
    row: Ints
    col: Ints


class _Placed(NamedTuple):
    """All points in one CRS, and their order along x."""

    x: Floats
    y: Floats
    order: Ints
    sorted_x: Floats


class Points(Targets):
    """Points, numbered from 0.

    Args:
        x: Coordinates as x, longitude or column.
        y: Coordinates as y, latitude or row.
        crs: What they are in; None = pixels of the full resolution.
        columns: One row per point: the columns that come through.
        moments: Microseconds since 1970, UTC; `UNKNOWN` of a point without a time.
    """

    UNKNOWN = _UNKNOWN

    def __init__(
        self,
        x: Floats,
        y: Floats,
        crs: pyproj.CRS | None,
        columns: pa.RecordBatch | None = None,
        moments: Ints | None = None,
    ) -> None:
        super().__init__([], crs, columns)
        self.x = np.ascontiguousarray(x, np.float64)
        self.y = np.ascontiguousarray(y, np.float64)
        self.moments = moments
        self._placed: OrderedDict[str, _Placed | InputError] = OrderedDict()
        self._located: OrderedDict[Grid, Located] = OrderedDict()
        self._located_bytes = 0

    def __len__(self) -> int:
        """Number of points."""
        return len(self.x)

    @property
    def crs_text(self) -> str:
        """The CRS as text: ``'EPSG:n'`` where it has a code, else WKT2; or ``'pixel'``."""
        if self.crs is None:
            return "pixel"
        authority = self.crs.to_authority(min_confidence=100)
        return ":".join(authority) if authority else self.crs.to_wkt()

    def lonlat_boxes(self) -> list[BBox]:
        """Boxes in longitude, latitude that hold all points: one for each part of the world.

        Example:
            >>> boxes = Points(np.array([10, 10.2, 70]), np.array([1, 2, 3]), crs_of(4326))
            >>> [tuple(round(n, 3) for n in box) for box in boxes.lonlat_boxes()]
            [(10.0, 1.0, 10.2, 2.0), (70.0, 3.0, 70.0, 3.0)]
        """
        if self.crs is None:
            return []
        try:
            lon, lat = self._transformed_to(crs_of(LONLAT))
        except ProjError:  # of an engineering CRS, or of another planet: anywhere
            return []
        known = np.isfinite(lon) & np.isfinite(lat)
        lon, lat = (lon[known] + 180) % 360 - 180, lat[known]
        at_seam = lon < -180 + _BOX_MARGIN  # 180 degrees is the same place
        lon, lat = np.append(lon, lon[at_seam] + 360), np.append(lat, lat[at_seam])
        if not len(lon):
            return [BBox(0.0, 91.0, 0.0, 91.0)]  # nowhere
        order = np.argsort(lon)
        lon, lat = lon[order], lat[order]
        gap = np.diff(lon)
        widest = np.argsort(gap)[::-1][: _MAX_BOXES - 1]
        first = np.append(0, np.sort(widest[gap[widest] > _APART_DEGREES]) + 1)
        last = np.append(first[1:], len(lon)) - 1
        south, north = np.minimum.reduceat(lat, first), np.maximum.reduceat(lat, first)
        edges = np.column_stack([lon[first], south, lon[last], north])
        edges += [-_BOX_MARGIN, -_BOX_MARGIN, _BOX_MARGIN, _BOX_MARGIN]
        return [BBox(*edge) for edge in edges.tolist()]

    def located(self, grid: Grid) -> Located:
        """The points inside a raster.

        Raises:
            InputError: the raster has no place on the map of the points.
        """
        found = self._located.get(grid)
        if found is not None:
            self._located.move_to_end(grid)
            return found
        point = self._near(grid)
        col, row = self.positions(grid, point)
        with np.errstate(invalid="ignore"):
            inside = (col >= 0) & (col < grid.width) & (row >= 0) & (row < grid.height)
        found = Located(point[inside], row[inside].astype(np.int64), col[inside].astype(np.int64))
        self._located[grid] = found
        self._located_bytes += _n_bytes(found)
        while self._located_bytes > _KEPT_BYTES and len(self._located) > 1:
            self._located_bytes -= _n_bytes(self._located.popitem(last=False)[1])
        return found

    def positions(self, grid: Grid, point: Ints) -> tuple[Floats, Floats]:
        """Columns and rows of points in a raster, not rounded; NaN where there are none.

        Raises:
            InputError: the raster has no place on the map of the points.
        """
        if self.crs is None:
            return (
                self.x[point] * (grid.width / (grid.full_width or grid.width)),
                self.y[point] * (grid.height / (grid.full_height or grid.height)),
            )
        placed = self._in_crs_of(grid)
        affine = grid.affine
        assert affine is not None  # noqa: S101 (`_in_crs_of`)
        x, y = _turned(placed.x[point], grid), placed.y[point]
        if affine.is_rectilinear:
            return (x - affine.c) / affine.a, (y - affine.f) / affine.e
        x, y, size = x - affine.c, y - affine.f, affine.determinant
        return (affine.e * x - affine.b * y) / size, (affine.a * y - affine.d * x) / size

    def _near(self, grid: Grid) -> Ints:
        """Numbers of the points whose x is that of the raster, ascending."""
        if self.crs is None:
            return np.arange(len(self))
        placed, bounds = self._in_crs_of(grid), grid.bounds
        assert bounds is not None  # noqa: S101 (it has an affine)
        if _is_turned(grid):
            return np.arange(len(self))
        first, stop = np.searchsorted(placed.sorted_x, [bounds.xmin, bounds.xmax])
        first, stop = max(0, first - 1), stop + 1  # the edges are rounded
        while first > 0 and placed.sorted_x[first - 1] == placed.sorted_x[first]:
            first -= 1
        stop = int(
            np.searchsorted(placed.sorted_x, placed.sorted_x[min(stop, len(self)) - 1], "right")
        )
        return np.sort(placed.order[first:stop])

    def _in_crs_of(self, grid: Grid) -> _Placed:
        if grid.affine is None or grid.crs is None:
            missing = "transform" if grid.affine is None else "CRS"
            raise InputError(
                f"expected a raster with a {missing}, got none; "
                "give the points in pixels with geometry_crs := 'pixel'"
            )
        if not grid.affine.determinant:
            raise InputError.expected(
                "transform",
                "pixels with an area",
                tuple(grid.affine),
                "the file has no usable grid",
            )
        found = self._placed.get(grid.crs)
        if found is None:
            found = self._placed[grid.crs] = self._moved_to(grid.crs)
            if len(self._placed) > _KEPT_CRSS:
                self._placed.popitem(last=False)
        self._placed.move_to_end(grid.crs)
        if isinstance(found, InputError):
            raise found
        return found

    def _transformed_to(self, dst: pyproj.CRS) -> tuple[Floats, Floats]:
        src = self.crs
        assert src is not None  # noqa: S101 (points in pixels are not transformed)
        if is_same(src, dst):
            return self.x, self.y
        x, y = transformer(src, dst).transform(self.x, self.y)
        return np.asarray(x), np.asarray(y)

    def _moved_to(self, crs: str) -> _Placed | InputError:
        try:
            x, y = self._transformed_to(crs_of(crs))
        except ProjError:  # an engineering CRS, or one of another planet
            return InputError.expected(
                "crs",
                "a CRS that the points can be transformed to",
                crs,
                "give the points in pixels with geometry_crs := 'pixel'",
            )
        except InputError as error:
            return error
        known = np.isfinite(x) & np.isfinite(y)
        x, y = np.where(known, x, np.nan), np.where(known, y, np.nan)
        order = np.argsort(x, kind="stable")
        return _Placed(x, y, order, x[order])


def parse_points(
    table: pa.Table,
    *,
    x_column: str | None = None,
    y_column: str | None = None,
    geometry_column: str | None = None,
    geometry_crs: object = None,
    time_column: str | None = None,
) -> Points:
    """Read a relation of points.

    Args:
        table: One row per point; a NULL coordinate or geometry leaves it out.
        x_column: Column of x; with `y_column`.
        y_column: Column of y.
        geometry_column: Column of points; without any of the three see `find_point_columns`.
        geometry_crs: CRS of them all, ``'pixel'`` for columns and rows.
        time_column: TIMESTAMP, TIMESTAMPTZ or DATE of the point.

    Raises:
        InputError: there is no such column, or it holds no points.
    """
    names = find_point_columns(table.schema, x_column, y_column, geometry_column)
    if len(names) == 1:
        shapes, there, crs = shapes_of(table, names[0], geometry_crs, "points")
        odd = np.flatnonzero(shapely.get_type_id(shapes) != 0)
        if len(odd):
            raise InputError.expected(
                f"points, column {names[0]}",
                "points",
                shapes[odd[0]].geom_type,
                "ST_Centroid gives a point of an area, rasteret_pixels reads areas",
            )
        x, y = shapely.get_x(shapes), shapely.get_y(shapes)
        table = table.drop_columns(list(names)).filter(pa.array(there))
    else:
        x, y = (_numbers(table, name) for name in names)
        there = np.isfinite(x) & np.isfinite(y)
        x, y, table = x[there], y[there], table.filter(pa.array(there))
        _, _, crs = shapes_of(
            pa.table({"g": pa.nulls(0, pa.binary())}), "g", geometry_crs, "points"
        )
    moments = None if time_column is None else moments_of(table, time_column)
    return Points(x, y, crs, one_batch(table), moments)


def find_point_columns(
    schema: pa.Schema, x: str | None, y: str | None, geometry: str | None
) -> tuple[str, ...]:
    """The column of points, or the two of x and y.

    Those asked for; else the one of type GEOMETRY; else columns named x and y, lon and lat,
    longitude and latitude or lng and lat; else a column named like a geometry.

    Raises:
        InputError: there are none.
    """
    if (x is None) != (y is None):
        raise InputError.expected(
            "x_column", "x_column and y_column", "one of them", "give both, or a geometry_column"
        )
    if x is not None and y is not None:
        if geometry is not None:
            raise InputError.expected(
                "geometry_column",
                "x_column and y_column, or geometry_column",
                "all",
                "leave one out",
            )
        for argument, name in (("x_column", x), ("y_column", y)):
            if name not in schema.names:
                raise InputError.expected(
                    argument, f"one of {', '.join(schema.names[:12])}", name, "correct it"
                )
        return x, y
    if geometry is not None:
        return (find_geometry_column(schema, geometry, "points"),)
    typed = [one.name for one in schema if b"geoarrow.wkb" in _extension(one)]
    if len(typed) == 1:
        return (typed[0],)
    lower = {name.lower(): name for name in schema.names}
    for pair in _XY_NAMES:
        if set(pair) <= set(lower):
            return lower[pair[0]], lower[pair[1]]
    try:
        return (find_geometry_column(schema, None, "points"),)
    except InputError:
        raise InputError.expected(
            "points",
            "columns x and y, lon and lat, or a column of geometries",
            ", ".join(schema.names[:12]),
            "name them with x_column and y_column, or geometry_column",
        ) from None


def moments_of(table: pa.Table | pa.RecordBatch, name: str) -> Ints:
    """Microseconds since 1970, UTC, of a column; `Points.UNKNOWN` for NULL.

    Raises:
        InputError: there is no such column, or it holds no times.
    """
    if name not in table.schema.names:
        listed = ", ".join(table.schema.names[:12])
        raise InputError.expected("time_column", f"one of {listed}", name, "correct it")
    column = table.column(name)
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise InputError.expected(
            "time_column",
            f"{name} of TIMESTAMP, TIMESTAMPTZ or DATE",
            kind,
            f"cast it: {name}::TIMESTAMP",
        )
    micros = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
    whole = pc.fill_null(micros.cast(pa.int64()), _UNKNOWN)
    return (
        np.asarray(whole.to_numpy(), np.int64)
        if isinstance(whole, pa.ChunkedArray)
        else (whole.to_numpy(zero_copy_only=False))
    )


def _extension(field: pa.Field) -> bytes:
    named = (field.metadata or {}).get(b"ARROW:extension:name", b"")
    return named or str(getattr(field.type, "extension_name", "")).encode()


def _numbers(table: pa.Table, name: str) -> Floats:
    column = table.column(name)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise InputError.expected(
            f"points, column {name}", "numbers", kind, f"cast it: {name}::DOUBLE"
        )
    filled = pc.fill_null(column.cast(pa.float64(), safe=False), float("nan"))
    return np.asarray(filled.to_numpy(), np.float64)


def _is_turned(grid: Grid) -> bool:
    """Whether longitudes of a raster lie beyond -180..180, as in 0..360."""
    bounds = grid.bounds
    if bounds is None or grid.crs is None or (bounds.xmin >= -180 and bounds.xmax <= 180):
        return False
    return crs_of(grid.crs).is_geographic


def _turned(x: Floats, grid: Grid) -> Floats:
    if not _is_turned(grid):
        return x
    bounds = grid.bounds
    assert bounds is not None  # noqa: S101 (`_is_turned`)
    x = np.where(x < bounds.xmin, x + 360, x)
    return np.where(x >= bounds.xmax, x - 360, x)


def _n_bytes(found: Located) -> int:
    return sum(column.nbytes for column in found) + 256


@dataclass(frozen=True, eq=False, kw_only=True)
class PointPlan(TilePlan):
    """A plan whose units are tiles with points; arrays of one length, sorted by unit.

    Attributes:
        point: Number of the point.
        row: Row of the first band's pixel that holds it.
        col: Column of that pixel.
        first_point: Where the points of each unit begin, and the end of the last one's.
        places: By band, where it lies in the band's own raster.
    """

    point: Ints
    row: Ints
    col: Ints
    first_point: Ints
    places: dict[str, _Places]


class _Places(NamedTuple):
    """Where points lie in the rasters of a band; arrays of one length.

    Attributes:
        row: Row of the pixel, -1 outside.
        col: Column of the pixel.
        grid: Number of the raster's grid, -1 without a raster.
        y: Row, not rounded; None where nobody needs it.
        x: Column, not rounded.
    """

    row: Ints
    col: Ints
    grid: Ints
    y: Floats | None
    x: Floats | None


class PointPlanner(Planner):
    """Plans reads of points.

    Args:
        request: What to read. The first of its bands that a scene has says which points are
            inside, and how they are put into units.
        points: Where.
        check: Raises where the statement was stopped.
        bands: Bands that are fetched.
        reach: Pixels around each point that are needed too.
        unit_points: Points in a unit, at most.
        select: Which of a scene's points are wanted; default: all.
        latest_first: Order of scenes: by their moment, descending.
        at_once: Points, about, in a plan.
    """

    def __init__(
        self,
        request: ReadRequest,
        points: Points,
        check: Callable[[], None],
        *,
        bands: Sequence[str],
        reach: int = 0,
        unit_points: int = _BATCH_ROWS,
        select: Select | None = None,
        latest_first: bool = False,
        at_once: int = _POINTS_AT_ONCE,
    ) -> None:
        super().__init__(
            request,
            Footprints(None),
            Granularity.BLOCK,
            bands=bands,
            aligned=False,
            at_once=at_once,
        )
        self._points = points
        self._check = check
        self._reach = reach
        self._unit_points = unit_points
        self._select = select
        self._latest_first = latest_first
        self._held: tuple[SceneTable, Ints] | None = None

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """Plan the scenes of a table, some at a time.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        names = tuple(dict.fromkeys([*self.request.bands, *self.bands]))
        usable = {name: self._usable(table, name) for name in names}
        if self.request.masked:  # numbers their kinds and grids too
            for name in self.bands:
                table.bands[name].mask(self.request.level)
        failures = self._failures(table, usable)
        grids = self._grids(table, usable, self.request.bands)
        for name in self.bands:
            own = self._grids(table, usable, [name])
            self._errors_of_grids(table, own, self._without_place(table, own), name)
        errors = self._without_place(table, grids)
        failures += self._errors_of_grids(table, grids, errors, None)
        parts: list[tuple[int, Located]] = []
        n_points = 0
        for scene, found in self._wanted(table, grids, errors):
            if parts and n_points + len(found.point) > self.at_once:
                yield self._plan(table, usable, grids, parts, failures)
                parts, n_points, failures = [], 0, []
            parts.append((scene, found))
            n_points += len(found.point)
        if parts or failures:
            yield self._plan(table, usable, grids, parts, failures)

    def candidates(self, table: SceneTable) -> Iterator[tuple[int, Ints]]:
        """Each scene, and the points inside it; no I/O.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        grids = self._grids_of(table)
        for scene, found in self._wanted(table, grids, {}):
            yield scene, found.point

    def holds(self, table: SceneTable, scene: int, point: Ints) -> Mask:
        """Which points are inside a scene; no I/O.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        if self._held is None or self._held[0] is not table:
            self._held = table, self._grids_of(table)
        number = int(self._held[1][scene])
        if number < 0:
            return np.zeros(len(point), bool)
        return np.isin(point, self._points.located(table.grids[number]).point, kind="table")

    def _grids_of(self, table: SceneTable) -> Ints:
        """Grid of each scene, -1 of one that has none on the map of the points."""
        usable = {name: self._usable(table, name) for name in self.request.bands}
        grids = self._grids(table, usable, self.request.bands)
        errors = self._without_place(table, grids)
        self._errors_of_grids(table, grids, errors, None)
        return np.where(np.isin(grids, list(errors)), -1, grids)

    def _wanted(
        self, table: SceneTable, grids: Ints, errors: dict[int, InputError]
    ) -> Iterator[tuple[int, Located]]:
        """Each scene with the points inside it that are wanted."""
        scenes = np.flatnonzero(grids >= 0)
        if self._latest_first:
            moments = moments_of(table.batch, "datetime")[scenes]
            scenes = scenes[np.argsort(-moments.astype(np.float64), kind="stable")]
        for scene in scenes.tolist():
            self._check()
            number = int(grids[scene])
            if number in errors:
                continue
            found = self._points.located(table.grids[number])
            if self._select is not None and len(found.point):
                keep = self._select(table, scene, found.point)
                found = Located(*(column[keep] for column in found))
            if len(found.point):
                yield scene, found

    def _without_place(self, table: SceneTable, grids: Ints) -> dict[int, InputError]:
        errors: dict[int, InputError] = {}
        nothing = np.empty(0, np.int64)
        for number in np.unique(grids[grids >= 0]).tolist():
            try:
                self._points.positions(table.grids[number], nothing)
            except InputError as error:
                errors[number] = error
        return errors

    def _plan(
        self,
        table: SceneTable,
        usable: dict[str, Any],
        grids: Ints,
        parts: list[tuple[int, Located]],
        failures: list[Failure],
    ) -> PointPlan:
        """A plan of some scenes, each with all of its points."""
        scene = np.repeat(
            np.array([one for one, _ in parts], np.int64), [len(found.point) for _, found in parts]
        )
        nothing = Located(*[np.empty(0, np.int64)] * 3)
        point, row, col = (
            np.concatenate(column)
            for column in zip(*(found for _, found in parts or [(0, nothing)]), strict=True)
        )
        shapes = _Shapes.of(table)
        kind = self._reference(usable, self.request.bands, table.n_scenes)[scene]
        slab, across = shapes.slab(kind, row), col // shapes.width[kind]
        order = np.lexsort((point, across, slab, scene))
        scene, point, row, col, slab, across = (
            column[order] for column in (scene, point, row, col, slab, across)
        )
        first = _runs(self._unit_points, scene, slab, across)
        grid = grids[scene]
        units = _units(first, scene, grid, row, row + 1, col, col + 1)
        unit = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(scene))))
        asked, places = [], {}
        for name in self.bands:
            level = usable[name].level
            own = np.full(table.n_scenes, -1, np.int64)
            if level is not None:
                own = np.where(usable[name].is_usable, level.grid, -1)
            places[name] = self._places(table, own[scene], grid, point, row, col)
            if level is not None:
                kinds = level.kind[scene]
                asked.append((name, *self._tiles(shapes, places[name], kinds, scene, unit)))
        plan = self.of_units(table, usable, units, asked, failures)
        known = {one.name: getattr(plan, one.name) for one in fields(TilePlan)}
        known["bands"] = self.bands
        return PointPlan(
            **known, point=point, row=row, col=col,
            first_point=np.append(first, len(scene)), places=places,
        )  # fmt: skip

    def _places(
        self, table: SceneTable, own: Ints, grid: Ints, point: Ints, row: Ints, col: Ints
    ) -> _Places:
        """Where points lie in a band: as in the first band where they share a grid."""
        row, col = np.where(own >= 0, row, -1), np.where(own >= 0, col, -1)
        x = y = None
        if self._reach:
            x, y = np.full(len(point), np.nan), np.full(len(point), np.nan)
        differs = own != grid
        wanted = own >= 0 if self._reach else (own >= 0) & differs
        for number in np.unique(own[wanted]).tolist():
            one = table.grids[number]
            at = np.flatnonzero(wanted & (own == number))
            try:
                across, down = self._points.positions(one, point[at])
            except InputError:  # noted as a fault of the band
                row[at] = col[at] = -1
                continue
            if x is not None and y is not None:
                x[at], y[at] = across, down
            with np.errstate(invalid="ignore"):
                inside = (across >= 0) & (across < one.width) & (down >= 0) & (down < one.height)
            row[at] = np.where(inside, np.where(inside, down, 0).astype(np.int64), -1)
            col[at] = np.where(inside, np.where(inside, across, 0).astype(np.int64), -1)
        return _Places(row, col, own, y, x)

    def _tiles(
        self,
        shapes: _Shapes,
        places: _Places,
        kind: Ints,
        scene: Ints,
        unit: Ints,
    ) -> tuple[Units, Ints]:
        """Tiles of a band that hold points or pixels around them, by unit."""
        at = np.flatnonzero(places.row >= 0)
        unit, scene, kind, grid = unit[at], scene[at], kind[at], places.grid[at]
        tall, wide = shapes.height[kind], shapes.width[kind]
        top = np.maximum(places.row[at] - self._reach, 0)
        left = np.maximum(places.col[at] - self._reach, 0)
        bottom = np.minimum(places.row[at] + self._reach, shapes.rows[grid] - 1)
        right = np.minimum(places.col[at] + self._reach, shapes.cols[grid] - 1)
        first_row, last_row = top // tall, bottom // tall
        first_col, last_col = left // wide, right // wide
        found = []
        for down in range(int((last_row - first_row).max(initial=0)) + 1):
            for across in range(int((last_col - first_col).max(initial=0)) + 1):
                r, c = first_row + down, first_col + across
                some = np.flatnonzero((r <= last_row) & (c <= last_col))
                tile = (
                    np.maximum(top, r * tall),
                    np.minimum(bottom + 1, (r + 1) * tall),
                    np.maximum(left, c * wide),
                    np.minimum(right + 1, (c + 1) * wide),
                )
                columns = (unit, scene, grid, shapes.slab(kind, tile[0]), c, *tile)
                found.append([column[some] for column in columns])
        unit, scene, grid, slab, c, *tile_edges = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        order = np.lexsort((c, slab, unit))
        unit, scene, grid, slab, c = (column[order] for column in (unit, scene, grid, slab, c))
        first = _runs(_NEVER, unit, slab, c)
        return _units(first, scene, grid, *(edge[order] for edge in tile_edges)), unit[first]


class _Shapes(NamedTuple):
    """Sizes of tiles by kind, and of rasters by grid."""

    height: Ints
    width: Ints
    slab_rows: Ints
    rows: Ints
    cols: Ints

    @classmethod
    def of(cls, table: SceneTable) -> _Shapes:
        formats = [kind.format for kind in table.kinds]
        return cls(
            np.array([one.tile_height for one in formats], np.int64),
            np.array([one.tile_width for one in formats], np.int64),
            np.array([slab_rows(one) for one in formats], np.int64),
            np.array([grid.height for grid in table.grids], np.int64),
            np.array([grid.width for grid in table.grids], np.int64),
        )

    def slab(self, kind: Ints, row: Ints) -> Ints:
        """Number of the slab of a row; a block that is not large is one slab."""
        height, rows = self.height[kind], self.slab_rows[kind]
        number: Ints = row // height * -(-height // rows) + row % height // rows
        return number


def _runs(most: int, *keys: Ints) -> Ints:
    """Where runs of equal keys begin, those longer than so many cut."""
    n = len(keys[0])
    new = np.ones(n, bool)
    for number, key in enumerate(keys):
        differs = np.diff(key) != 0
        new[1:] = differs if not number else new[1:] | differs
    first = np.flatnonzero(new)
    if most < n:
        rank = np.arange(n) - first[np.cumsum(new) - 1]
        first = np.flatnonzero(rank % most == 0)
    return first


def _units(
    first: Ints, scene: Ints, grid: Ints, top: Ints, bottom: Ints, left: Ints, right: Ints
) -> Units:
    """Units with the windows around what is in each run."""
    if not len(first):
        empty = np.empty(0, np.int64)
        return Units(empty, empty, empty, empty, np.empty((0, 4), np.int64), np.empty(0, bool))
    window = np.column_stack(
        [
            np.minimum.reduceat(top, first),
            np.maximum.reduceat(bottom, first),
            np.minimum.reduceat(left, first),
            np.maximum.reduceat(right, first),
        ]
    )
    none = np.full(len(first), -1, np.int64)
    return Units(scene[first], none, none, grid[first], window, np.ones(len(first), bool))


@dataclass(frozen=True)
class PointOptions:
    """How points are sampled.

    Attributes:
        match: Every record that holds a point, the latest at or before its time, or the one
            nearest in time.
        max_dt: Microseconds between a point's time and that of its record, at most.
        time_column: Column of the points with their time.
        reach: Pixels around a point that are searched where its own holds no data.
        neighbourhood: Which points get the values around them as a list.
        mask_band: Band that says where a record is not to be used.
        mask_values: Its values that say so; no data does too.
    """

    match: Match = "all"
    max_dt: int | None = None
    time_column: str | None = None
    reach: int = 0
    neighbourhood: Neighbourhood = "off"
    mask_band: str | None = None
    mask_values: tuple[float, ...] = ()


class _Sampled(NamedTuple):
    """A band at the points of a unit.

    Attributes:
        values: One each; what stands where there is none does not count.
        null: Where there is none.
        distance: Pixels from the point to where the value comes from; NaN without one.
        around: All pixels around, (points that have a list, side * side), which of them hold
            data, and which points have a list.
    """

    values: Pixels
    null: Mask
    distance: Floats | None = None
    around: tuple[Pixels, Mask, Mask] | None = None


def sampled(
    plan: PointPlan, unit: int, name: str, patch: Patch, options: PointOptions, *, masked: bool
) -> _Sampled | None:
    """A band at the points of a unit; None where it can't be read or is not there."""
    if patch.kind is None or patch.error is not None:
        return None
    at = slice(int(plan.first_point[unit]), int(plan.first_point[unit + 1]))
    places = plan.places[name]
    row, col = places.row[at], places.col[at]
    inside = row >= 0
    if not inside.any():
        return None
    grid = plan.table.grids[int(places.grid[at][inside][0])]
    reach = options.reach
    window = Window(
        max(int(row[inside].min()) - reach, 0),
        min(int(row[inside].max()) + reach + 1, grid.height),
        max(int(col[inside].min()) - reach, 0),
        min(int(col[inside].max()) + reach + 1, grid.width),
    )
    patch = replace(patch, window=window)
    pixels = pixels_of(patch)
    valid = valid_pixels(patch, pixels) if masked else None
    row, col = row - window.row_start, col - window.col_start
    own = np.where(inside, row, 0), np.where(inside, col, 0)
    values = pixels[own]
    null = ~inside if valid is None else ~(inside & valid[own])
    if not reach:
        return _Sampled(values, null)
    assert places.x is not None and places.y is not None  # noqa: S101, PT018 (the planner reaches)
    around = _Around(
        pixels, valid, row, col, inside,
        places.y[at] - window.row_start, places.x[at] - window.col_start,
    )  # fmt: skip
    return around.searched(values, null, grid, options)


class _Around(NamedTuple):
    """Pixels around the points of a unit, in one array."""

    pixels: Pixels
    valid: Mask | None
    row: Ints
    col: Ints
    inside: Mask
    y: Floats
    x: Floats

    def searched(self, values: Pixels, null: Mask, grid: Grid, options: PointOptions) -> _Sampled:
        """Values of the nearest pixels with data where a point's own has none.

        Square rings from the inside out: of the first that has data, the pixel whose
        rectangle is nearest to the point; of equal ones the first of top row, bottom row,
        left column and right column.
        """
        values, null, missing = values.copy(), null.copy(), null.copy()
        if values.dtype.kind in "fc":
            missing |= np.isnan(values)
        was_missing, distance = missing.copy(), np.where(missing, np.nan, 0.0)
        missing &= self.inside
        scale = _pixel_size(grid)
        for ring in range(1, options.reach + 1):
            left = np.flatnonzero(missing)
            if not len(left):
                break
            down, across = _ring(ring)
            found, is_valid = self.taken(left, down, across)
            rows, cols = self.row[left, None] + down, self.col[left, None] + across
            dy = np.maximum(np.maximum(rows - self.y[left, None], self.y[left, None] - rows - 1), 0)
            dx = np.maximum(np.maximum(cols - self.x[left, None], self.x[left, None] - cols - 1), 0)
            true = np.where(is_valid, np.hypot(dx * scale[0], dy * scale[1]), np.inf)
            best = true.argmin(axis=1)
            each = np.arange(len(left))
            has = is_valid[each, best]
            at = left[has]
            each, best = each[has], best[has]
            values[at] = found[each, best]
            distance[at] = np.hypot(dx[each, best], dy[each, best])
            missing[at] = False
            null[at] = False
        if options.neighbourhood == "off":
            return _Sampled(values, null, distance)
        side = np.arange(-options.reach, options.reach + 1)
        down, across = (part.ravel() for part in np.meshgrid(side, side, indexing="ij"))
        has = self.inside & (was_missing | (options.neighbourhood == "always"))
        listed = self.taken(np.flatnonzero(has), down, across, hide_nan=False)
        return _Sampled(values, null, distance, (*listed, has))

    def taken(
        self, chosen: Ints, down: Ints, across: Ints, *, hide_nan: bool = True
    ) -> tuple[Pixels, Mask]:
        """Pixels at steps from some points, (points, steps), and which of them hold data."""
        rows, cols = self.row[chosen, None] + down, self.col[chosen, None] + across
        height, width = self.pixels.shape
        there = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        rows, cols = np.where(there, rows, 0), np.where(there, cols, 0)
        found = self.pixels[rows, cols]
        if self.valid is not None:
            there &= self.valid[rows, cols]
        if hide_nan and found.dtype.kind in "fc":
            there &= ~np.isnan(found)
        return found, there


def _ring(ring: int) -> tuple[Ints, Ints]:
    """Steps to the pixels of a square ring: top row, bottom row, left column, right column."""
    along, between = np.arange(-ring, ring + 1), np.arange(-ring + 1, ring)
    down = [np.full(len(along), -ring), np.full(len(along), ring), between, between]
    across = [along, along, np.full(len(between), -ring), np.full(len(between), ring)]
    return np.concatenate(down), np.concatenate(across)


def _pixel_size(grid: Grid) -> tuple[float, float]:
    """Width and height of a pixel."""
    affine = grid.affine
    if affine is None:
        return 1.0, 1.0
    return float(np.hypot(affine.a, affine.d)), float(np.hypot(affine.b, affine.e))


class PointRows:
    """Makes rows of points.

    Args:
        read: The execution.
        bands: Bands that are wanted.
        options: How they are sampled.
        points: Where.
        point_columns: Output columns that are the points' own.
    """

    def __init__(
        self,
        read: Read,
        bands: Sequence[str],
        options: PointOptions,
        points: Points,
        point_columns: Sequence[str],
    ) -> None:
        self._read = read
        self._bands = tuple(bands)
        self._options = options
        self._points = points
        own = {one.name for one in read.schema}
        self._of_points = [name for name in read.wanted if name in point_columns]
        self._of_records = [n for n in read.wanted if n not in own and n not in point_columns]
        self.row_bytes = point_bytes(read.schema, read.wanted, options)

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of the rows of each unit."""
        assert isinstance(plan, PointPlan)  # noqa: S101 (the planner of points made it)
        return np.diff(plan.first_point) * self.row_bytes

    def group_bytes(self) -> int:
        """A batch has about 131,072 rows, fewer with lists."""
        return min(_BATCH_ROWS * self.row_bytes, 4 * _UNIT_BYTES)

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        plan, read = group.plan, self._read
        assert isinstance(plan, PointPlan)  # noqa: S101
        scenes = plan.units.scene[group.start : group.stop]
        edges = plan.first_point[group.start : group.stop + 1]
        counts = np.diff(edges)
        kept, errors = np.ones(int(counts.sum()), bool), []
        parts: dict[str, list[_Sampled | None]] = {name: [] for name in self._bands}
        for number, unit in enumerate(range(group.start, group.stop)):
            patches = dict(zip(plan.bands, group.patches(unit), strict=True))
            errors.append(read.error_of(plan, int(scenes[number]), patches))
            at = slice(int(edges[number] - edges[0]), int(edges[number + 1] - edges[0]))
            kept[at] = self._is_clear(plan, unit, patches, int(counts[number]))
            for name in self._bands:
                one = sampled(
                    plan, unit, name, patches[name], self._options, masked=read.request.masked
                )
                parts[name].append(None if one is None else self._scaled(one, patches[name]))
        at = slice(int(edges[0]), int(edges[-1]))
        arrays = self._places(plan, at, scenes, counts)
        for name, found in parts.items():
            arrays |= self._columns(name, found, counts)
        if "distance_px" in read.wanted:
            arrays["distance_px"] = self._distances(parts, counts)
        if read.reports_errors:
            arrays["error"] = texts(errors, counts.tolist())
        batch = read.batch(arrays, len(kept))
        return batch if kept.all() else batch.filter(pa.array(kept))

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> pa.RecordBatch | None:
        """A row without a point for each record that can't be planned; none when matching."""
        read, scenes = self._read, [failure.scene for failure in failures]
        if self._options.match != "all":
            return None
        ones, none = [1] * len(scenes), [-1] * len(scenes)
        arrays = read.repeated.arrays(read.wanted, plan.table.batch, scenes, none, ones)
        for field in read.schema:
            arrays[field.name] = pa.nulls(len(scenes), field.type)
        arrays["error"] = pa.array([failure.error.message for failure in failures], pa.string())
        return read.batch(arrays, len(scenes))

    def _is_clear(
        self, plan: PointPlan, unit: int, patches: dict[str, Patch], n: int
    ) -> Mask | bool:
        """Which points the mask band lets through; those whose mask can't be read are told."""
        options = self._options
        if options.mask_band is None or options.match != "all":
            return True
        patch = patches[options.mask_band]
        if self._read.reports_errors and (patch.kind is None or patch.error is not None):
            return True
        return clear_points(plan, unit, patch, options, n)

    def _scaled(self, one: _Sampled, patch: Patch) -> _Sampled:
        kind = patch.kind
        if not self._read.request.scaled or one.values.dtype.kind == "c" or kind is None:
            return one
        scale, offset = 1.0 if kind.scale is None else kind.scale, kind.offset or 0.0
        around = one.around
        if around is not None:
            around = (around[0].astype(np.float64) * scale + offset, *around[1:])
        values = one.values.astype(np.float64) * scale + offset
        return one._replace(values=values, around=around)

    def _places(
        self, plan: PointPlan, at: slice, scenes: Ints, counts: Ints
    ) -> dict[str, pa.Array]:
        """Columns of points, of records, and of where the points lie."""
        read, points, point = self._read, self._points, plan.point[at]
        numbers = cast("Sequence[int]", point)
        own, each = cast("Sequence[int]", scenes), cast("Sequence[int]", counts)
        repeated = read.repeated.arrays
        arrays = repeated(
            self._of_points,
            plan.table.batch,
            [],
            numbers,
            cast("Sequence[int]", np.ones_like(point)),
        )
        arrays |= repeated(self._of_records, plan.table.batch, own, [], each)
        grids = plan.units.grid[np.searchsorted(plan.first_point, at.start, "right") - 1 :]
        made: dict[str, Callable[[], pa.Array]] = {
            "point_x": lambda: pa.array(points.x[point]),
            "point_y": lambda: pa.array(points.y[point]),
            "point_crs": lambda: texts([points.crs_text], [len(point)]),
            "raster_crs": lambda: texts(
                [plan.table.grids[number].crs for number in grids[: len(counts)].tolist()], each
            ),
            "row": lambda: pa.array(plan.row[at].astype(np.int32)),
            "col": lambda: pa.array(plan.col[at].astype(np.int32)),
        }
        return arrays | {name: make() for name, make in made.items() if name in read.wanted}

    def _columns(
        self, name: str, found: list[_Sampled | None], counts: Ints
    ) -> dict[str, pa.Array]:
        """A band, and the lists of what is around."""
        kind = self._read.field(name).type
        parts = [
            pa.nulls(int(n), kind) if one is None else to_arrow(one.values, kind, one.null)
            for one, n in zip(found, counts, strict=True)
        ]
        arrays = {name: pa.concat_arrays(parts) if parts else pa.nulls(0, kind)}
        listed = neighbourhood_name(name)
        if listed in self._read.wanted:
            lists = [_lists(one, kind, int(n)) for one, n in zip(found, counts, strict=True)]
            arrays[listed] = pa.concat_arrays(lists)
        return arrays

    def _distances(self, parts: dict[str, list[_Sampled | None]], counts: Ints) -> pa.Array:
        """The largest over the bands; NULL where none has a value."""
        if not self._options.reach:
            return pa.array(np.zeros(int(counts.sum())))
        most = np.full(int(counts.sum()), -1.0)
        for found in parts.values():
            each = [
                np.full(int(n), -1.0)
                if one is None or one.distance is None
                else np.where(np.isnan(one.distance), -1.0, one.distance)
                for one, n in zip(found, counts, strict=True)
            ]
            most = np.maximum(most, np.concatenate(each))
        return pa.array(most, mask=most < 0)


def _lists(one: _Sampled | None, kind: pa.DataType, n: int) -> pa.Array:
    listed = pa.large_list(kind)
    if one is None or one.around is None:
        return pa.nulls(n, listed)
    values, valid, has = one.around
    offsets = np.append(0, np.cumsum(np.where(has, values.shape[1], 0)))
    items = to_arrow(values.ravel(), kind, ~valid.ravel())
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), items, mask=pa.array(~has), type=listed
    )


def clear_points(plan: PointPlan, unit: int, patch: Patch, options: PointOptions, n: int) -> Mask:
    """Which points of a unit the mask band lets through; none where it can't be read."""
    assert options.mask_band is not None  # noqa: S101 (its callers)
    plain = replace(options, reach=0, neighbourhood="off")
    one = sampled(plan, unit, options.mask_band, patch, plain, masked=True)
    if one is None:
        return np.zeros(n, bool)
    return ~(one.null | np.isin(one.values, options.mask_values))


def point_bytes(schema: pa.Schema, wanted: Sequence[str], options: PointOptions) -> int:
    """Bytes that a row takes, about."""
    n_bytes = _PLAN_BYTES
    for field in schema:
        if field.name not in wanted:
            continue
        is_list = pa.types.is_large_list(field.type)
        item = field.type.value_type if is_list else field.type
        width = 16 if pa.types.is_struct(item) or pa.types.is_string(item) else item.bit_width // 8
        n_bytes += width * ((2 * options.reach + 1) ** 2 if is_list else 1)
    return n_bytes


class Matching:
    """For each point the record that matches best so far.

    Args:
        points: With their moments.
        options: How they match.
    """

    def __init__(self, points: Points, options: PointOptions) -> None:
        assert points.moments is not None  # noqa: S101 (matching needs a time column)
        self._moments = points.moments
        self._options = options
        self._score = np.full(len(points), _NEVER)
        self._table = np.full(len(points), -1, np.int64)
        self._scene = np.full(len(points), -1, np.int64)
        self.tables: list[SceneTable] = []
        self._numbers: dict[int, int] = {}
        self._lock = threading.Lock()

    def number(self, table: SceneTable) -> int:
        """Number of a table, the same each time; the table is kept."""
        with self._lock:
            number = self._numbers.setdefault(id(table), len(self.tables))
            if number == len(self.tables):
                self.tables.append(table)
            return number

    def may_win(self, table: SceneTable, scene: int, point: Ints) -> Mask:
        """Which points a record would match better than what they have."""
        score = self._scores(table, scene, point)
        number = self.number(table)
        is_earlier = (number < self._table[point]) | (
            (number == self._table[point]) & (scene < self._scene[point])
        )
        best = self._score[point]
        may: Mask = (score < best) | ((score == best) & is_earlier & (score < _NEVER))
        return may

    def offer(self, table: SceneTable, scene: int, point: Ints) -> None:
        """A record that some points may have."""
        won = point[self.may_win(table, scene, point)]
        self._score[won] = self._scores(table, scene, won)
        self._table[won], self._scene[won] = self.number(table), scene

    def is_best(self, table: SceneTable, scene: int, point: Ints) -> Mask:
        """Which points a record is the match of."""
        best: Mask = (self._table[point] == self.number(table)) & (self._scene[point] == scene)
        return best

    def matched(self) -> list[SceneTable]:
        """Tables with a record that matches."""
        numbers = np.unique(self._table[self._table >= 0])
        return [self.tables[number] for number in numbers.tolist()]

    def _scores(self, table: SceneTable, scene: int, point: Ints) -> Ints:
        """Twice the time between record and point, plus 1 for a later record."""
        moment = int(moments_of(table.batch.slice(scene, 1), "datetime")[0])
        moments = self._moments[point]
        known = (moments != _UNKNOWN) & (moment != _UNKNOWN)
        ahead = np.where(known, moments, 0) - (moment if moment != _UNKNOWN else 0)
        away = np.abs(ahead)
        if self._options.max_dt is not None:
            known &= away <= self._options.max_dt
        if self._options.match == "latest":
            known &= ahead >= 0
        return np.where(known, 2 * away + (ahead < 0), _NEVER)


class _ClearRows:
    """Which points the mask band of each record lets through."""

    def __init__(self, read: Read, options: PointOptions, matching: Matching) -> None:
        self._read = read
        self._options = options
        self._matching = matching

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of each unit."""
        assert isinstance(plan, PointPlan)  # noqa: S101
        return np.diff(plan.first_point) * _PLAN_BYTES

    def group_bytes(self) -> int:
        """Bytes of a batch."""
        return _UNIT_BYTES

    def work(self, group: Group) -> pa.RecordBatch:
        """Points and records."""
        plan = group.plan
        assert isinstance(plan, PointPlan)  # noqa: S101
        points, scenes = [], []
        for unit in range(group.start, group.stop):
            patches = dict(zip(plan.bands, group.patches(unit), strict=True))
            scene = int(plan.units.scene[unit])
            self._read.error_of(plan, scene, patches)
            at = slice(int(plan.first_point[unit]), int(plan.first_point[unit + 1]))
            (patch,) = patches.values()
            clear = clear_points(plan, unit, patch, self._options, at.stop - at.start)
            points.append(plan.point[at][clear])
            scenes.append(np.full(len(points[-1]), scene))
        number = self._matching.number(plan.table)
        chosen = np.concatenate(points)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(chosen),
                pa.array(np.concatenate(scenes)),
                pa.array(np.full(len(chosen), number)),
            ],
            ["point", "scene", "table"],
        )

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> None:
        """A record whose mask is not known matches nothing."""


def point_rows(
    read: Read,
    bands: Sequence[str],
    records: Records,
    points: Points,
    options: PointOptions,
    point_columns: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    """Sample points.

    Args:
        read: The execution.
        bands: Bands that are wanted; the others are not fetched.
        records: Gives the scene tables, of all bands of the request and the mask band.
        points: Where.
        options: How.
        point_columns: Output columns that are the points' own.

    Raises:
        InputError: it would fetch more than `ReadRequest.max_bytes`.
    """
    select: Select | None = None
    if options.match != "all":
        matching = _matched(read, records, points, options)
        tables = matching.matched()
        records, select = lambda: iter(tables), matching.is_best
    output = PointRows(read, bands, options, points, point_columns)
    masks = options.mask_band if options.match == "all" else None
    fetched = tuple(dict.fromkeys([*bands, *([masks] if masks else [])]))
    planner = PointPlanner(
        read.request,
        points,
        read.check,
        bands=fetched,
        reach=options.reach,
        unit_points=max(1, _UNIT_BYTES // output.row_bytes),
        select=select,
    )
    check_max_bytes(read, planner, records, read.counters.fetched_bytes)
    yield from _run(read, output, planner, records)


def _matched(read: Read, records: Records, points: Points, options: PointOptions) -> Matching:
    """Find the record of each point; reads the mask band, each of its tiles once."""
    matching = Matching(points, options)
    if options.mask_band is None:
        planner = PointPlanner(read.request, points, read.check, bands=(), select=matching.may_win)
        for table in records():
            for scene, point in planner.candidates(table):
                matching.offer(table, scene, point)
        return matching
    bands = PointPlanner(read.request, points, read.check, bands=())

    def masks(best: Matching) -> PointPlanner:
        assert options.mask_band is not None  # noqa: S101
        return PointPlanner(
            replace(read.request, bands=(options.mask_band,), level=0, masked=True),
            points,
            read.check,
            bands=(options.mask_band,),
            select=lambda *place: bands.holds(*place) & best.may_win(*place),
            latest_first=True,
            at_once=max(_LEAST_AT_ONCE, len(points)),
        )

    check_max_bytes(read, masks(Matching(points, options)), records)
    for batch in _run(read, _ClearRows(read, options, matching), masks(matching), records):
        point, scenes, (number, *_) = (column.to_numpy() for column in batch.columns)
        table = matching.tables[int(number)]
        for scene in np.unique(scenes).tolist():
            matching.offer(table, scene, point[scenes == scene])
    return matching


def _run(
    read: Read, output: Output[pa.RecordBatch], planner: PointPlanner, records: Records
) -> Iterator[pa.RecordBatch]:
    pipeline = Pipeline(
        output, read.stop, max_concurrent=read.request.max_concurrent, counters=read.counters
    )
    plans = (plan for table in records() for plan in planner.plans(table))
    yield from pipeline.run(plans)


def neighbourhood_name(band: str) -> str:
    """Column of the pixels around."""
    return f"{band}_neighbourhood"


def point_schema(bands: Sequence[pa.Field], options: PointOptions, on_error: str) -> pa.Schema:
    """Columns of points besides those of records and of the points themselves."""
    lists = [pa.field(neighbourhood_name(one.name), pa.large_list(one.type)) for one in bands]
    return pa.schema(
        [
            *POINT_FIELDS,
            *PLACE_FIELDS,
            *bands,
            *(lists if options.neighbourhood != "off" else ()),
            *((ERROR,) if on_error == "report" else ()),
        ]
    )
