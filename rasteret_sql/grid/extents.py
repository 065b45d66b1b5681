"""The box around a raster in another CRS, with what lies between the points that are transformed.

Points over the raster give most of it. The bounds of a raster that holds a pole, lies across the
edge of the map or bulges between two points are looked for from there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import is_same, transformer
from rasteret_sql.grid.windows import bounds_of
from rasteret_sql.units import Affine, BBox

_OUTLINE_POINTS = 33
"""Points along each side of a raster, and rows of points inside, that give its bounds."""

_HALVINGS = 40
_NARROWINGS = 8  # each to a quarter
_STILL = 1e-9  # of the extent: what moves a bound by less is no gain
_APART_DEGREES = 20.0  # more than between two points of a raster around the world

_Floats = NDArray[np.float64]
_MovePlaces = Callable[[_Floats, _Floats], tuple[_Floats, _Floats]]


def extent_of(affine: Affine, width: int, height: int, own: pyproj.CRS, crs: pyproj.CRS) -> BBox:
    """The box around a raster in another CRS; in degrees it may end beyond 180.

    Args:
        affine: Of the raster.
        width: Its columns.
        height: Its rows.
        own: Its CRS.
        crs: That of the box.

    Raises:
        InputError: none of it has a place there.

    Example:
        >>> from rasteret_sql.grid.crs import crs_of
        >>> utm, degrees = crs_of("EPSG:32660"), crs_of("EPSG:4326")
        >>> around = extent_of(Affine(1e4, 0, 4e5, 0, -1e4, 1e5), 60, 5, utm, degrees)
        >>> [round(edge, 2) for edge in around]
        [176.1, 0.45, 181.49, 0.9]
    """
    if is_same(own, crs):
        return bounds_of(affine, height, width)
    step = transformer(own, crs)
    a, b, c, d, e, f = affine

    def move(col: _Floats, row: _Floats) -> tuple[_Floats, _Floats]:
        x, y = step.transform(a * col + b * row + c, d * col + e * row + f)
        known = np.isfinite(x) & np.isfinite(y)
        return np.where(known, x, np.nan), np.where(known, y, np.nan)

    col, row = np.meshgrid(
        np.linspace(0, width, _OUTLINE_POINTS), np.linspace(0, height, _OUTLINE_POINTS)
    )
    try:
        x, y = move(col, row)
        if np.isnan(x).all():
            raise _no_way(crs)
        found: list[BBox] = []
        if crs.is_geographic:
            ends = _poles_inside(affine, width, height, own, crs)
            if _crosses_antimeridian(x) and not ends:
                x, turned = np.where(x < 0, x + 360, x), move

                def move(col: _Floats, row: _Floats) -> tuple[_Floats, _Floats]:
                    x, y = turned(col, row)
                    return np.where(x < 0, x + 360, x), y

            found += [BBox(-180.0, pole, 180.0, pole) for pole in ends]
        found += [_box_of(x, y), *_tears(move, col, row, x)]
        found += [_extremes(move, (width, height), (col, row), (x, y))]
    except ProjError as error:
        raise _no_way(crs) from error
    lows, highs = zip(*((one[:2], one[2:]) for one in found), strict=True)
    return BBox(*np.min(lows, axis=0).tolist(), *np.max(highs, axis=0).tolist())


def _box_of(x: _Floats, y: _Floats) -> BBox:
    edges = np.nanmin(x), np.nanmin(y), np.nanmax(x), np.nanmax(y)
    return BBox(*map(float, edges))


def _poles_inside(
    affine: Affine, width: int, height: int, own: pyproj.CRS, crs: pyproj.CRS
) -> list[float]:
    """Latitudes of the poles that lie in a raster, around which it has all longitudes."""
    inverse = affine.inverse()
    found = []
    for latitude in (-90.0, 90.0):
        col, row = inverse.to_map(*transformer(crs, own).transform(0.0, latitude))
        if 0 <= col <= width and 0 <= row <= height:
            found.append(latitude)
    return found


def _crosses_antimeridian(longitude: _Floats) -> bool:
    """Whether longitudes go on from 180 to -180, and leave out those around 0."""
    west, east = longitude[longitude < 0], longitude[longitude >= 0]
    if not len(west) or not len(east):
        return False
    inner, outer = east.min() - west.max(), 360 - (east.max() - west.min())
    return bool(inner > max(outer, _APART_DEGREES))


def _tears(move: _MovePlaces, col: _Floats, row: _Floats, x: _Floats) -> list[BBox]:
    """Boxes of the places on both sides of where the map is torn between two points."""
    found = []
    half = (np.nanmax(x) - np.nanmin(x)) / 2
    for axis in (0, 1):
        torn = np.abs(np.diff(x, axis=axis)) > half
        if not torn.any():
            continue
        first, last = (slice(None, -1), slice(1, None))
        index = [(one, slice(None)) if axis == 0 else (slice(None), one) for one in (first, last)]
        (c0, c1), (r0, r1), (x0, x1) = ([one[i][torn] for i in index] for one in (col, row, x))
        for _ in range(_HALVINGS):
            c, r = (c0 + c1) / 2, (r0 + r1) / 2
            middle = move(c, r)[0]
            is_first = np.abs(middle - x0) < np.abs(middle - x1)
            c0, r0, x0 = (np.where(is_first, n, o) for n, o in ((c, c0), (r, r0), (middle, x0)))
            middle = np.where(np.isnan(middle), x1, middle)
            c1, r1, x1 = (np.where(is_first, o, n) for n, o in ((c, c1), (r, r1), (middle, x1)))
        found.append(_box_of(*move(np.append(c0, c1), np.append(r0, r1))))
    return found


def _extremes(
    move: _MovePlaces,
    size: tuple[int, int],
    pixel: tuple[_Floats, _Floats],
    place: tuple[_Floats, _Floats],
) -> BBox:
    """The box with the places between points that lie further out than the points.

    Args:
        move: From columns and rows to x and y.
        size: Columns and rows of the raster.
        pixel: Columns and rows of the points, a lattice of `_OUTLINE_POINTS` on each side.
        place: Their x and y.
    """
    (width, height), (col, row), (x, y) = size, pixel, place
    signed = np.stack([x, y, -x, -y]).reshape(4, -1)
    at = np.nanargmin(signed, axis=1)
    most: _Floats = np.nanmin(signed, axis=1)
    cols, rows = col.ravel()[at], row.ravel()[at]
    span = np.array([width, height]) / (_OUTLINE_POINTS - 1)
    around = np.linspace(-1, 1, 9)
    limit = _STILL * np.ptp(signed[np.isfinite(signed)])
    for _ in range(_NARROWINGS):
        c = np.clip(cols[:, None, None] + around[:, None] * span[0], 0, width)
        r = np.clip(rows[:, None, None] + around[None, :] * span[1], 0, height)
        c, r = (one.reshape(4, -1) for one in np.broadcast_arrays(c, r))
        u, v = move(c, r)
        values = np.stack([u[0], v[1], -u[2], -v[3]])
        values = np.where(np.isnan(values), np.inf, values)
        at, each = values.argmin(axis=1), np.arange(4)
        better = values[each, at]
        cols, rows = c[each, at], r[each, at]
        gain = most - better
        most = np.minimum(most, better)
        if not (gain > limit).any():
            break
        span = span / 4
    return BBox(float(most[0]), float(most[1]), float(-most[2]), float(-most[3]))


def _no_way(crs: pyproj.CRS) -> InputError:
    return InputError.expected(
        "crs", "a CRS that the raster can be transformed to", crs.srs, "choose one for its region"
    )
