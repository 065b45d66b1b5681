"""Points as targets: where they lie in the CRS and in the pixels of rasters."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, crs_of, is_same, transformer
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.targets import Targets
from rasteret_sql.units import Affine, BBox

Floats = NDArray[np.float64]
Ints32 = NDArray[np.int32]
AnyInts = NDArray[np.signedinteger[Any]]

_KEPT_CRSS = 4
_KEPT_BYTES = 64 * 1024 * 1024
_MAX_BOXES = 16
_APART_DEGREES = 1.0
_BOX_MARGIN = 1e-9
_ROUNDING = 1e-12


class Located(NamedTuple):
    """Points inside a raster, sorted by number; arrays of one length.

    Attributes:
        point: Number of the point.
        row: Row of the pixel that holds it.
        col: Column of that pixel.
    """

    point: Ints32
    row: Ints32
    col: Ints32


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

    UNKNOWN = np.iinfo(np.int64).min

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
        found = Located(
            point[inside].astype(np.int32),
            row[inside].astype(np.int32),
            col[inside].astype(np.int32),
        )
        self._located[grid] = found
        self._located_bytes += _n_bytes(found)
        while self._located_bytes > _KEPT_BYTES and len(self._located) > 1:
            self._located_bytes -= _n_bytes(self._located.popitem(last=False)[1])
        return found

    def positions(self, grid: Grid, point: AnyInts) -> tuple[Floats, Floats]:
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
        a, b, c, d, e, f = _inverse(affine)
        return x * a + y * b + c, x * d + y * e + f

    def _near(self, grid: Grid) -> Ints:
        """Numbers of the points whose x is that of the raster, ascending."""
        if self.crs is None:
            return np.arange(len(self))
        placed, bounds = self._in_crs_of(grid), grid.bounds
        assert bounds is not None  # noqa: S101 (it has an affine)
        if _is_turned(grid):
            return np.arange(len(self))
        pad = _ROUNDING * max(abs(bounds.xmin), abs(bounds.xmax))
        first = np.searchsorted(placed.sorted_x, bounds.xmin - pad)
        stop = np.searchsorted(placed.sorted_x, bounds.xmax + pad, "right")
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


def _inverse(affine: Affine) -> Affine:
    """Map to pixel, in the arithmetic of rasterio: it decides on which side of an edge a point is.

    A point on the edge of pixels of 0.1 degrees is as rounded as the edge.
    """
    shrink = 1.0 / affine.determinant
    a, b, d, e = affine.e * shrink, -affine.b * shrink, -affine.d * shrink, affine.a * shrink
    return Affine(a, b, -affine.c * a - affine.f * b, d, e, -affine.c * d - affine.f * e)


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
