"""Where on the earth a projection is one map: without the place that it draws as a whole circle.

An azimuthal projection draws the antipode of its centre as a circle, or not at all: a ring
that goes through there jumps across the map. Cut to the *domain*, areas keep their insides.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, transformer
from rasteret_sql.units import BBox

_REACH: Final = {
    "laea": 180 - 2e-3,  # PROJ refuses what is nearer; 2 mm of its map
    "stere": 180 - 0.1,
    "sterea": 180 - 0.1,
    "aeqd": 180 - 1e-6,
    "ortho": 90 - 1e-3,
    "gnom": 89.9,
}
"""Degrees from the centre that an azimuthal projection shows."""

_ELLIPSOID_AEQD: Final = 180 - 0.7
"""Geodesics around an ellipsoid meet in a line near the antipode, of a degree at most."""

_TRANSVERSE: Final = frozenset({"tmerc", "etmerc", "utm"})
_TRANSVERSE_HOLE: Final = 9.0
"""Degrees around the two ends of its equator, where PROJ gives nothing."""

_PLAIN: Final = frozenset(
    {"merc", "cea", "eqc", "sinu", "moll", "robin", "eqearth", "natearth", "eck4", "eck6", "mill"}
)
"""Projections of the whole earth whose map ends at one meridian."""

_SEAM: Final = 1e-9
_MARGIN: Final = 5.0
_STEPS: Final = 7200
_STEP: Final = 0.05
_MERIDIAN_STEP: Final = 1.0
SLIT_DEGREES: Final = 1e-6
"""What is cut out of a map on each side of its far meridian, and ten times that around poles."""


class Cap(NamedTuple):
    """What an azimuthal projection shows: all places within so many degrees of its centre."""

    lon: float
    lat: float
    degrees: float

    def polygon(self) -> BaseGeometry:
        """Longitudes and latitudes, within 180 degrees of the centre's."""
        frame = _frame(self.lon)
        if self.degrees <= 90:
            return _disc(self.lon, self.lat, self.degrees, self.lon)
        hole = _disc(self.lon + 180, -self.lat, 180 - self.degrees, self.lon)
        return shapely.difference(frame, hole)


@lru_cache(maxsize=256)
def cap_of(crs: pyproj.CRS) -> Cap | None:
    """The cap of an azimuthal projection; None of any other CRS.

    Example:
        >>> cap_of(pyproj.CRS(3035))
        Cap(lon=10.0, lat=52.0, degrees=179.998)
    """
    terms = _terms(crs)
    kind = terms.get("proj")
    if kind == "geos":
        semi_major = crs.ellipsoid.semi_major_metre if crs.ellipsoid else 6_378_137.0
        height = float(terms["h"])
        reach = math.degrees(math.acos(semi_major / (semi_major + height))) - 0.05
    elif kind in _REACH:
        reach = _REACH[kind]
        is_sphere = crs.ellipsoid is not None and crs.ellipsoid.inverse_flattening == 0
        if kind == "aeqd" and not is_sphere and abs(float(terms.get("lat_0", 0))) < 90:
            reach = _ELLIPSOID_AEQD
    else:
        return None
    return Cap(_meridian(terms), float(terms.get("lat_0", 0)), reach)


@lru_cache(maxsize=256)
def domain_of(crs: pyproj.CRS, around: BBox | None = None) -> BaseGeometry | None:
    """Where a projection is one map, in degrees; None where any longitudes will do.

    Args:
        crs: Azimuthal or transverse Mercator; others have their seam at one meridian.
        around: A box in it: of an azimuthal projection, what lies far beyond is left out too.

    Returns:
        Longitudes within 180 degrees of the central meridian.

    Example:
        >>> shapely.contains_xy(domain_of(pyproj.CRS(3035)), [10, -169.9995], [80, -52])
        array([ True, False])
    """
    cap = cap_of(crs)
    if cap is not None:
        return _nearer(cap, crs, around).polygon()
    terms = _terms(crs)
    if terms.get("proj") not in _TRANSVERSE:
        return None
    centre = _meridian(terms)
    cuts = [
        shapely.box(centre - 181, -_SEAM, centre - 90, _SEAM),
        shapely.box(centre + 90, -_SEAM, centre + 181, _SEAM),
        _disc(centre - 90, 0, _TRANSVERSE_HOLE, centre),
        _disc(centre + 90, 0, _TRANSVERSE_HOLE, centre),
    ]
    return shapely.difference(_frame(centre), shapely.union_all(cuts))


class Map(NamedTuple):
    """The map that a projection makes of the earth.

    Attributes:
        polygon: In its CRS, slit along the far meridian: no ring in it goes around a pole.
        meridian: Longitude of the slit.
        middle: Of the map, x and y.
        reach: What the map surely shows of a box around its middle: half of its sides.
        radius: The same of a circle; None of a map that is not round.
        poles: Places of poles inside a round map, (n, 2).
    """

    polygon: BaseGeometry
    meridian: float
    middle: tuple[float, float]
    reach: tuple[float, float]
    radius: float | None
    poles: NDArray[np.float64]

    def is_inside(self, bounds: tuple[float, float, float, float]) -> bool:
        """Whether a box, xmin, ymin, xmax, ymax, surely lies on the map, away from poles."""
        xmin, ymin, xmax, ymax = bounds
        across = max(self.middle[0] - xmin, xmax - self.middle[0])
        along = max(self.middle[1] - ymin, ymax - self.middle[1])
        if self.radius is None:
            return across < self.reach[0] and along < self.reach[1]
        x, y = self.poles.T
        holds_pole = (x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax)
        return math.hypot(across, along) < self.radius and not holds_pole.any()

    def is_edge(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which places, (n, 2), lie on its outline."""
        # a copy: two threads that prepare one geometry can end the process
        outline = shapely.transform(self.polygon.boundary, lambda p: p)
        shapely.prepare(outline)
        near: NDArray[np.bool_] = shapely.dwithin(outline, shapely.points(xy), 1e-8 * self.reach[0])
        return near


@lru_cache(maxsize=64)
def map_of(crs: pyproj.CRS) -> Map | None:
    """The map of a projection; None where its edge is not known.

    Example:
        >>> earth = map_of(pyproj.CRS(3413))
        >>> shapely.contains_xy(earth.polygon, [1e5, 1e6, -1e11], [1e6, 0, 0])
        array([ True,  True, False])
    """
    cap, terms = cap_of(crs), _terms(crs)
    if cap is None and terms.get("proj") not in _PLAIN:
        return None
    centre, move = _meridian(terms), transformer(LONLAT, crs)
    far, high = 180 - SLIT_DEGREES, 90 - 10 * SLIT_DEGREES
    edges = shapely.box(centre - far, -high, centre + far, high)
    known = edges if cap is None else shapely.intersection(cap.polygon(), edges)
    known = shapely.segmentize(known, _STEP if cap is None else _MERIDIAN_STEP)
    drawn = shapely.transform(known, lambda p: np.column_stack(move.transform(*p.T)))
    if not np.isfinite(shapely.get_coordinates(drawn)).all():
        return None
    if not shapely.is_valid(drawn):
        drawn = shapely.make_valid(drawn)
    xmin, ymin, xmax, ymax = drawn.bounds
    reach, poles = ((xmax - xmin) / 4, (ymax - ymin) / 4), np.empty((0, 2))
    if cap is None:
        return Map(drawn, centre, ((xmin + xmax) / 2, (ymin + ymax) / 2), reach, None, poles)
    x, y = (float(n) for n in move.transform(cap.lon, cap.lat))
    edge = np.column_stack(move.transform(*_circle(cap.lon, cap.lat, cap.degrees - 1e-9)))
    radius = float(np.hypot(*(edge - [x, y]).T).min())
    lats = [lat for lat in (-90, 90) if cap.degrees > abs(lat - cap.lat)]
    poles = np.array([move.transform(cap.lon, lat) for lat in lats]).reshape(-1, 2)
    return Map(drawn, centre, (x, y), reach, 0.99 * radius, poles)


def check_far_side(crs: pyproj.CRS, around: BBox) -> None:
    """Refuse a raster that reaches to where a projection is no map, under an area that does too.

    Raises:
        InputError: the far end of an azimuthal equidistant map of an ellipsoid.
    """
    cap = cap_of(crs)
    earth = map_of(crs) if cap is not None and cap.degrees == _ELLIPSOID_AEQD else None
    if cap is None or earth is None or earth.radius is None:
        return
    x, y = earth.middle
    away = np.hypot(max(x - around.xmin, around.xmax - x), max(y - around.ymin, around.ymax - y))
    if away > earth.radius:
        far = (cap.lon + 360) % 360 - 180
        raise InputError.expected(
            "crs",
            "a projection that shows each place once",
            crs.name,
            f"leave the area out, or keep it a degree away from {far:g}, {-cap.lat:g}",
        )


def _nearer(cap: Cap, crs: pyproj.CRS, around: BBox | None) -> Cap:
    if around is None:
        return cap
    x = np.array([around.xmin, around.xmax] * 2)
    y = np.repeat([around.ymin, around.ymax], 2)
    lon, lat = transformer(crs, LONLAT).transform(x, y)
    back = transformer(LONLAT, crs).transform(lon, lat)
    size = max(around.xmax - around.xmin, around.ymax - around.ymin)
    with np.errstate(invalid="ignore"):  # beyond the map: infinite, or a place elsewhere
        if not (np.hypot(back[0] - x, back[1] - y) < 1e-3 * size).all():
            return cap
    along, own = np.radians(lat), math.radians(cap.lat)
    cosine = np.sin(along) * math.sin(own) + np.cos(along) * math.cos(own) * np.cos(
        np.radians(np.array(lon) - cap.lon)
    )
    farthest = math.degrees(math.acos(float(np.clip(cosine, -1, 1).min())))
    return cap._replace(degrees=min(cap.degrees, farthest + _MARGIN))


def _frame(centre: float) -> BaseGeometry:
    return shapely.box(centre - 180, -90, centre + 180, 90)


def _circle(
    lon: float, lat: float, degrees: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places at a distance from one, on a sphere."""
    turn, reach = np.linspace(0, 2 * np.pi, _STEPS + 1), math.radians(degrees)
    own = math.radians(lat)
    sine = math.sin(own) * math.cos(reach) + math.cos(own) * math.sin(reach) * np.cos(turn)
    away = np.arctan2(
        np.sin(turn) * math.sin(reach) * math.cos(own),
        math.cos(reach) - math.sin(own) * sine,
    )
    return lon + np.degrees(away), np.degrees(np.arcsin(np.clip(sine, -1, 1)))


def _disc(lon: float, lat: float, degrees: float, centre: float) -> BaseGeometry:
    """Places within 90 degrees of one at most, longitudes within 180 degrees of a meridian."""
    if abs(lat) >= 90:
        pole = math.copysign(90, lat)
        edge = np.linspace(centre - 180, centre + 180, _STEPS + 1)
        xy = np.column_stack([edge, np.full(len(edge), math.copysign(90 - degrees, lat))])
        return shapely.Polygon(np.vstack([xy, [[edge[-1], pole], [edge[0], pole]]]))
    around, along = _circle(lon, lat, degrees)
    around = np.unwrap(around, period=360)
    xy = np.column_stack([around, along])
    if abs(around[-1] - around[0]) > 180:  # it holds a pole
        pole = math.copysign(90, lat)
        xy = np.vstack([xy, [[around[-1], pole], [around[0], pole]]])
    disc = shapely.make_valid(shapely.Polygon(xy))
    turns = [
        shapely.transform(disc, lambda p, t=t: p + np.array([t, 0]))
        for t in (-720, -360, 0, 360, 720)
    ]
    return shapely.intersection(shapely.union_all(turns), _frame(centre))


def _terms(crs: pyproj.CRS) -> dict[str, str]:
    """The terms of a projected CRS as PROJ names them; none of any other."""
    if not crs.is_projected:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it leaves out does not matter here
        try:
            return {name: str(value) for name, value in crs.to_dict().items()}
        except CRSError:
            return {}


def _meridian(terms: dict[str, str]) -> float:
    lon = float(terms.get("lon_0", 0))
    if terms.get("proj") == "utm":
        lon = int(terms["zone"]) * 6 - 183.0
    return lon
