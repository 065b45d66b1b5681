"""Geometries from one CRS to another: curved edges, the antimeridian, places that do not transform.

Longitudes of an area lie within -180..180, cut where it crosses the antimeridian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.enums import TransformDirection
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from rasteret_sql.grid.crs import LONLAT, crs_of, is_same, transformer
from rasteret_sql.grid.domains import SLIT_DEGREES, Map, cap_of, check_far_side, domain_of, map_of
from rasteret_sql.units import BBox

_WORLD = BBox(-180.0, -90.0, 180.0, 90.0)
_TOLERANCE = 1e-7  # of the area's extent: 0.001 pixels of an area 10,000 pixels wide
_FIRST_PARTS = 16  # of the extent: no edge is longer, so that an S-curve cannot hide
_MAX_ROUNDS = 12
_LARGE_DEGREES = 30.0
_POLAR_DEGREES = 84.0
_LEAST_DEGREES = 1e-3  # extent that a box's margin is taken from at least: a point has none
_RETURN = 1e-6  # of its extent or distance: a place comes back to so near
_SEAM = 1e-10  # degrees from a projection's own antimeridian: PROJ lets 6e-11 pass over it
_MERIDIANS = frozenset(
    {"Longitude of natural origin", "Longitude of false origin", "Longitude of origin"}
)

_MAX_KEPT_POINTS = 500
_MAX_KEPT = 256
_BOXES: dict[tuple[bytes, str], tuple[BBox, ...]] = {}
"""Of areas of few points: every statement asks, and PROJ starts anew in threads of DuckDB's."""

_Floats = NDArray[np.float64]


def reproject(
    geometry: BaseGeometry, src: pyproj.CRS, dst: pyproj.CRS, around: BBox | None = None
) -> BaseGeometry:
    """Transform an area; straight edges become the curves that they are in the target.

    Args:
        geometry: Polygon or MultiPolygon in ``src``; or a line or points, likewise.
        src: CRS of the area.
        dst: CRS of the result, coordinates as x, y.
        around: A box in ``dst``; the area is clipped to its surroundings beforehand, so
            that an area too large for the projection keeps what matters. Of an area that
            covers them, the box itself is returned.

    Returns:
        Polygon or MultiPolygon, of lines and points the same. Edges deviate by at most 1e-7 of
        the extent; vertices that do not transform are left out, which can leave nothing.
    """
    if around is not None:
        if not is_same(src, crs_of(LONLAT)):
            geometry, src = reproject(geometry, src, crs_of(LONLAT)), crs_of(LONLAT)
        place = _surroundings(around, dst)
        if shapely.covers(geometry, place):
            return shapely.box(*around)
        geometry = joined([shapely.intersection(geometry, place)], shapely.get_dimensions(geometry))
    dimension = int(shapely.get_dimensions(geometry))
    if not dst.is_geographic:
        if not _is_direct(np.array([geometry]), src, dst):
            geometry, src = reproject(geometry, src, crs_of(LONLAT)), crs_of(LONLAT)
        if src.is_geographic:
            geometry = _into_domain(geometry, dst, around)
    if dimension < 2:
        geometry = _moved_parts(geometry, transformer(src, dst), dst)
        return fold_longitudes(geometry) if dst.is_geographic else geometry
    cut = None
    if dst.is_geographic and not src.is_geographic:
        geometry, cut = _onto_map(geometry, src)
    polygons = shapely.get_parts(polygonal(geometry))
    polygons = polygons[~shapely.is_empty(polygons)]
    if len(polygons) == 0:
        return shapely.MultiPolygon()
    same_area = np.zeros(len(polygons), np.int64)
    moved, ring, of_polygon = _follow(polygons, same_area, transformer(src, dst), dst, cut)
    if cut is not None:
        moved = _closed(moved, cut.meridian)
    result = _rebuild(moved, ring, of_polygon, is_lonlat=dst.is_geographic)
    return fold_longitudes(result) if dst.is_geographic else result


def reproject_all(
    geometries: NDArray[np.object_], src: pyproj.CRS, dst: pyproj.CRS
) -> NDArray[np.object_]:
    """Transform many areas at once, each as `reproject` does without ``around``.

    Args:
        geometries: Valid Polygons and MultiPolygons that are not empty, in ``src``; lines and
            points among them are transformed one by one.
        src: CRS of the areas.
        dst: CRS of the result, coordinates as x, y.

    Returns:
        As many areas; empty ones where nothing transforms.

    Example:
        >>> area = shapely.box(77.9, 13.0, 78.0, 13.1)
        >>> (moved,) = reproject_all(np.array([area]), crs_of(4326), crs_of(32643))
        >>> bool(shapely.equals_exact(moved, reproject(area, crs_of(4326), crs_of(32643)), 1e-9))
        True
    """
    is_area = shapely.get_dimensions(geometries) == 2
    if not is_area.all():
        moved_all = np.empty(len(geometries), dtype=object)
        moved_all[~is_area] = [reproject(one, src, dst) for one in geometries[~is_area]]
        if is_area.any():
            moved_all[is_area] = reproject_all(geometries[is_area], src, dst)
        return moved_all
    if src.is_geographic and not dst.is_geographic:
        geometries = _all_into_domain(geometries, dst)
    if dst.is_geographic or not _is_direct(geometries, src, dst):
        return np.array([reproject(one, src, dst) for one in geometries], dtype=object)
    polygons, of_area = shapely.get_parts(geometries, return_index=True)
    xy, ring, of_polygon = _follow(polygons, of_area, transformer(src, dst), dst)
    if not np.isfinite(xy).all():
        return np.array([reproject(one, src, dst) for one in geometries], dtype=object)
    moved = shapely.polygons(shapely.linearrings(xy, indices=ring), indices=of_polygon)
    n_parts = np.bincount(of_area, minlength=len(geometries))
    result = np.empty(len(geometries), dtype=object)
    is_single = n_parts == 1
    result[is_single] = moved[is_single[of_area]]
    for area in np.flatnonzero(~is_single):
        result[area] = shapely.multipolygons(moved[of_area == area])
    for area in np.flatnonzero(~shapely.is_valid(result)):
        result[area] = polygonal(result[area])
    return result


def _into_domain(geometry: BaseGeometry, dst: pyproj.CRS, around: BBox | None) -> BaseGeometry:
    """An area in degrees cut to where a projection is one map."""
    domain = domain_of(dst, around)
    if domain is None:
        return _wrap(geometry, _central_meridian(dst), seam=_SEAM)
    geometry = _wrap(geometry, _central_meridian(dst), seam=0.0 if cap_of(dst) else _SEAM)
    if geometry.is_empty or shapely.covers(domain, geometry):
        return geometry
    if around is not None:
        check_far_side(dst, around)
    return joined([shapely.intersection(geometry, domain)], shapely.get_dimensions(geometry))


def _is_direct(geometries: NDArray[np.object_], src: pyproj.CRS, dst: pyproj.CRS) -> bool:
    """Whether areas need not be cut on the way to a projection, or are in degrees for that."""
    if src.is_geographic:
        return True
    domain, centre = domain_of(dst), _central_meridian(dst)
    around = shapely.box(*shapely.total_bounds(geometries))
    boxes = lonlat_boxes(around, src)
    if domain is None:
        seam = (centre + 360.0) % 360.0 - 180.0
        is_cut = seam == -180.0 and len(boxes) > 1
        return not is_cut and not any(box.xmin < seam < box.xmax for box in boxes)
    on_earth = shapely.MultiPolygon([shapely.box(*box) for box in boxes])
    return bool(shapely.covers(domain, _wrap(on_earth, centre, seam=0.0)))


def _onto_map(geometry: BaseGeometry, src: pyproj.CRS) -> tuple[BaseGeometry, Map | None]:
    """The part of an area that is on its map, and the map where it had to be cut for that."""
    earth = map_of(src)
    if earth is None or geometry.is_empty or earth.is_inside(geometry.bounds):
        return geometry, None
    return shapely.intersection(geometry, earth.polygon), earth


def _closed(lonlat: _Floats, meridian: float) -> _Floats:
    """Places along a slit, on the meridian itself and at the poles."""
    far = (meridian + 360.0) % 360.0 - 180.0
    with np.errstate(invalid="ignore"):  # what does not transform is infinite
        away = (lonlat[:, 0] - far + 180.0) % 360.0 - 180.0
    lon = np.where(np.abs(away) < 3 * SLIT_DEGREES, far, lonlat[:, 0])
    lat = lonlat[:, 1]
    lat = np.where(np.abs(lat) > 90 - 30 * SLIT_DEGREES, np.copysign(90.0, lat), lat)
    return np.column_stack([lon, lat])


def _all_into_domain(geometries: NDArray[np.object_], dst: pyproj.CRS) -> NDArray[np.object_]:
    bounds, centre, domain = shapely.bounds(geometries), _central_meridian(dst), domain_of(dst)
    beyond = (bounds[:, 0] < centre - 180.0) | (bounds[:, 2] > centre + 180.0)
    if domain is not None:
        beyond |= ~shapely.covers(domain, shapely.box(*bounds.T))
    if not beyond.any():
        return geometries
    wrapped = geometries.copy()
    for area in np.flatnonzero(beyond):
        wrapped[area] = _into_domain(geometries[area], dst, None)
    return wrapped


def fold_longitudes(geometry: BaseGeometry) -> BaseGeometry:
    """Bring longitudes into -180..180, cutting what crosses the antimeridian.

    Example:
        >>> [part.bounds for part in fold_longitudes(shapely.box(170, 0, 190, 1)).geoms]
        [(-180.0, 0.0, -170.0, 1.0), (170.0, 0.0, 180.0, 1.0)]
    """
    return _wrap(geometry, 0.0, seam=0.0)


def shift_into(geometry: BaseGeometry, bounds: BBox) -> BaseGeometry:
    """Repeat an area by 360 degrees where a raster has such longitudes (0..360, for example).

    Example:
        >>> shift_into(shapely.box(-20, 0, -10, 1), BBox(0, -90, 360, 90)).bounds
        (340.0, 0.0, 350.0, 1.0)
    """
    parts = shapely.get_parts(geometry)
    west, _, east, _ = shapely.bounds(parts).T
    turns = np.array([-360.0, 0.0, 360.0])[:, None]
    reaches = (west + turns < bounds.xmax) & (east + turns > bounds.xmin)
    if not reaches[[0, 2]].any():
        return geometry
    turn, part = np.nonzero(reaches)
    moved = [_translate(parts[p], float(turns[t, 0])) for t, p in zip(turn, part, strict=True)]
    return joined(moved, shapely.get_dimensions(geometry))


def lonlat_boxes(geometry: BaseGeometry, crs: pyproj.CRS) -> list[BBox]:
    """One box in longitude, latitude that holds an area, two across the antimeridian.

    An area in an engineering CRS, or on another planet, has no box: it can be anywhere.

    Example:
        >>> lonlat_boxes(fold_longitudes(shapely.box(170, 0, 190, 1)), crs_of(LONLAT))
        [BBox(xmin=170.0, ymin=0.0, xmax=180.0, ymax=1.0), BBox(xmin=-180.0, ymin=0.0, xmax=-170.0, ymax=1.0)]
    """  # noqa: E501
    if shapely.get_num_coordinates(geometry) > _MAX_KEPT_POINTS:
        return _lonlat_boxes(geometry, crs)
    key = shapely.to_wkb(geometry), crs.srs
    found = _BOXES.get(key)
    if found is None:
        found = tuple(_lonlat_boxes(geometry, crs))
        if len(_BOXES) >= _MAX_KEPT:
            _BOXES.clear()
        _BOXES[key] = found
    return list(found)


def _lonlat_boxes(geometry: BaseGeometry, crs: pyproj.CRS) -> list[BBox]:
    pad = 0.0
    if not is_same(crs, crs_of(LONLAT)):
        try:
            is_on_map = _edges(shapely.bounds(geometry)[None], crs)[2].all()
            geometry = reproject(geometry, crs, crs_of(LONLAT))
        except ProjError:
            return []
        if geometry.is_empty or not is_on_map:
            return [_WORLD]  # nothing is known about where it lies
        xmin, ymin, xmax, ymax = geometry.bounds
        pad = 1e-6 * max(xmax - xmin, ymax - ymin, _LEAST_DEGREES)
    bounds = shapely.bounds(shapely.get_parts(geometry))
    west, east = _smallest_arc(bounds[:, 0], bounds[:, 2])
    south, north = float(bounds[:, 1].min()), float(bounds[:, 3].max())
    return _split_box(west - pad, max(south - pad, -90.0), east + pad, min(north + pad, 90.0))


def are_surely_small(bounds: _Floats, crs: pyproj.CRS) -> NDArray[np.bool_]:
    """Which boxes, (n, 4), are surely not `is_large`: all at once, where asking each is slow.

    Example:
        >>> are_surely_small(np.array([[0, 0, 9e5, 9e5], [0, 0, 9e6, 9e6]]), crs_of(32643))
        array([ True, False])
    """
    try:
        lon, lat, is_back = _edges(bounds, crs)
    except ProjError:
        return np.zeros(len(bounds), bool)
    with np.errstate(invalid="ignore"):  # what does not transform is infinite
        small = is_back & (np.abs(lat) < _POLAR_DEGREES - _LARGE_DEGREES / 2).all(axis=1)
        small &= (np.ptp(lon, axis=1) < _LARGE_DEGREES / 2) & (
            np.ptp(lat, axis=1) < _LARGE_DEGREES / 2
        )
    return small


def _edges(bounds: _Floats, crs: pyproj.CRS) -> tuple[_Floats, _Floats, NDArray[np.bool_]]:
    """Longitudes and latitudes along the edges of boxes, and whether all of them come back.

    Beyond the map of a projection PROJ gives places that are not there, mostly without an error.
    """
    share = np.linspace(0, 1, _FIRST_PARTS + 1)
    across = np.concatenate([share, share, 0 * share, 0 * share + 1])
    down = np.concatenate([0 * share, 0 * share + 1, share, share])
    xmin, ymin, xmax, ymax = bounds[:, :, None].transpose(1, 0, 2)
    x, y = xmin + across * (xmax - xmin), ymin + down * (ymax - ymin)
    to_lonlat = transformer(crs, crs_of(LONLAT))
    lon, lat = to_lonlat.transform(x, y)
    back = to_lonlat.transform(lon, lat, direction=TransformDirection.INVERSE)
    most = _RETURN * np.maximum(np.maximum(xmax - xmin, ymax - ymin), np.abs([xmin, ymin]).max(0))
    with np.errstate(invalid="ignore"):  # what does not transform is infinite
        is_back = (np.hypot(back[0] - x, back[1] - y) <= most).all(axis=1)
    return lon, lat, is_back


def is_large(box: BBox) -> bool:
    """Whether a box in degrees has parts where a projection made for elsewhere breaks down."""
    spread = box.xmax - box.xmin > _LARGE_DEGREES or box.ymax - box.ymin > _LARGE_DEGREES
    return spread or box.ymax > _POLAR_DEGREES or box.ymin < -_POLAR_DEGREES


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of a geometry, made valid; an empty MultiPolygon where there are none.

    A bow-tie becomes its two triangles: no area is lost.
    """
    if not shapely.is_valid(geometry):
        geometry = shapely.make_valid(geometry)
    if geometry.geom_type in {"Polygon", "MultiPolygon"}:
        return geometry
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > 5).any():  # collections in collections
        parts = shapely.get_parts(parts)
    parts = shapely.get_parts(parts)
    return shapely.union_all(parts[shapely.get_type_id(parts) == 3])


def joined(geometries: Sequence[BaseGeometry], dimension: int) -> BaseGeometry:
    """The union of polygons; of lines or points the parts of all, as they are.

    Args:
        geometries: Of any kind.
        dimension: 2 for their polygons, 1 for their lines, 0 for their points.

    Example:
        >>> pieces = [shapely.Point(1, 1), shapely.LineString([(0, 0), (2, 2)])]
        >>> joined(pieces, 0).wkt, joined(pieces, 1).wkt
        ('POINT (1 1)', 'LINESTRING (0 0, 2 2)')
    """
    if dimension >= 2:
        return polygonal(shapely.union_all(geometries))
    parts = shapely.get_parts(np.array(geometries, dtype=object))
    while (shapely.get_type_id(parts) > 3).any():
        parts = shapely.get_parts(parts)
    parts = parts[(shapely.get_dimensions(parts) == dimension) & ~shapely.is_empty(parts)]
    if len(parts) == 1:
        return parts[0]
    return shapely.multilinestrings(parts) if dimension else shapely.multipoints(parts)


def _translate(geometry: BaseGeometry, degrees: float) -> BaseGeometry:
    return shapely.transform(geometry, lambda xy: xy + np.array([degrees, 0.0]))


def _wrap(geometry: BaseGeometry, centre: float, *, seam: float) -> BaseGeometry:
    """Bring longitudes to within 180 degrees of a meridian, cutting at the far side."""
    west, east = centre - 180.0, centre + 180.0
    xmin, ymin, xmax, ymax = geometry.bounds
    if geometry.is_empty or (xmin >= west and xmax <= east):
        return geometry
    frame = shapely.box(west + seam, min(ymin, -90.0) - 1, east - seam, max(ymax, 90.0) + 1)
    pieces = [
        shapely.intersection(_translate(geometry, turn), frame)
        for turn in (-360, 0, 360)
        if xmin + turn < east and xmax + turn > west
    ]
    return joined(pieces, shapely.get_dimensions(geometry))


def _central_meridian(crs: pyproj.CRS) -> float:
    operation = crs.coordinate_operation
    params = operation.params if operation is not None else []
    return next((float(p.value) for p in params if p.name in _MERIDIANS), 0.0)


def _surroundings(around: BBox, crs: pyproj.CRS) -> BaseGeometry:
    """Longitudes and latitudes in and around a box, with half of its size on each side."""
    xs = np.linspace(around.xmin, around.xmax, 33)
    ys = np.linspace(around.ymin, around.ymax, 33)
    grid_x, grid_y = np.meshgrid(xs, ys)
    lon, lat = transformer(crs, LONLAT).transform(grid_x.ravel(), grid_y.ravel())
    known = np.isfinite(lon) & np.isfinite(lat)
    if not known.any():
        return shapely.box(*_WORLD)
    west, east = _smallest_arc(lon[known], lon[known])
    south, north = float(lat[known].min()), float(lat[known].max())
    if east - west > 270:  # a pole is inside or near
        west, east = _WORLD.xmin, _WORLD.xmax
        south, north = (south, 90.0) if south + north > 0 else (-90.0, north)
    pad_x, pad_y = (east - west) / 2 + 0.01, (north - south) / 2 + 0.01
    south, north = max(south - pad_y, -90.0), min(north + pad_y, 90.0)
    if east - west + 2 * pad_x >= 360:
        return shapely.box(_WORLD.xmin, south, _WORLD.xmax, north)
    boxes = _split_box(west - pad_x, south, east + pad_x, north)
    return shapely.MultiPolygon([shapely.box(*box) for box in boxes])


def _smallest_arc(wests: _Floats, easts: _Floats) -> tuple[float, float]:
    """The shortest arc of longitude over intervals; ``east`` above 180 past the antimeridian."""
    order = np.argsort(wests)
    wests, reached = wests[order], np.maximum.accumulate(easts[order])
    gaps = np.append(wests[1:], wests[0] + 360) - reached
    after = int(np.argmax(gaps))
    if after == len(gaps) - 1 or gaps[-1] >= gaps[after]:
        return float(wests[0]), float(reached[-1])
    return float(wests[after + 1]), float(reached[after]) + 360.0


def _split_box(west: float, south: float, east: float, north: float) -> list[BBox]:
    if east - west >= 360:
        return [BBox(_WORLD.xmin, south, _WORLD.xmax, north)]
    if west < -180:
        west, east = west + 360, east + 360
    if east <= 180:
        return [BBox(west, south, east, north)]
    return [BBox(west, south, 180.0, north), BBox(-180.0, south, east - 360, north)]


def _follow(
    polygons: NDArray[np.object_],
    of_area: NDArray[np.int64],
    move: pyproj.Transformer,
    dst: pyproj.CRS,
    cut: Map | None = None,
) -> tuple[_Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Vertices of all rings, with as many between them as the curves need.

    Args:
        polygons: Of all areas, those of one area together.
        of_area: Area of each polygon, in order; what is a small deviation depends on its extent.
        move: From the CRS of the areas.
        dst: To that CRS.
        cut: The map that they were cut to: its edges are not followed, their vertices are close.

    Returns:
        Coordinates in the target (n, 2), ring of each, polygon of each ring.
    """
    rings, of_polygon = shapely.get_rings(polygons, return_index=True)
    return *_follow_lines(rings, of_area[of_polygon], move, dst, cut), of_polygon


def _follow_lines(
    rings: NDArray[np.object_],
    area_of_ring: NDArray[np.int64],
    move: pyproj.Transformer,
    dst: pyproj.CRS,
    cut: Map | None = None,
) -> tuple[_Floats, NDArray[np.int64]]:
    """Vertices of rings or lines as `_follow`, and ring of each."""
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    extent = _extents(xy, ring, area_of_ring)
    rings = shapely.segmentize(rings, np.maximum(extent / _FIRST_PARTS, 1e-300)[area_of_ring])
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    moved = _move(xy, move)
    limit = (_extents(moved, ring, area_of_ring) * _TOLERANCE)[area_of_ring]
    fresh = ring[1:] == ring[:-1]
    for _ in range(_MAX_ROUNDS):
        before = np.flatnonzero(fresh)
        middle = (xy[before] + xy[before + 1]) / 2
        moved_middle = _move(middle, move)
        with np.errstate(invalid="ignore"):
            off = moved_middle - (moved[before] + moved[before + 1]) / 2
            if dst.is_geographic:
                off[:, 0] = (off[:, 0] + 90) % 180 - 90  # a mean across the antimeridian
            bent = ~(np.hypot(off[:, 0], off[:, 1]) <= limit[ring[before]])
        ends = np.isfinite(moved[before]).all(axis=1) | np.isfinite(moved[before + 1]).all(axis=1)
        bent &= ends  # a border of where it transforms is searched for, its far side is not
        if cut is not None:
            bent[bent] = ~cut.is_edge(middle[bent])
        if not bent.any():
            break
        at = before[bent] + 1
        xy = np.insert(xy, at, middle[bent], axis=0)
        moved = np.insert(moved, at, moved_middle[bent], axis=0)
        ring = np.insert(ring, at, ring[at])
        new = at + np.arange(len(at))
        fresh = np.zeros(len(xy) - 1, dtype=bool)
        fresh[new - 1] = fresh[new] = True
    return moved, ring


def _moved_parts(geometry: BaseGeometry, move: pyproj.Transformer, dst: pyproj.CRS) -> BaseGeometry:
    """Lines or points in another CRS, a line cut where vertices do not transform."""
    parts = shapely.get_parts(geometry)
    if shapely.get_dimensions(geometry) < 1:
        xy = _move(shapely.get_coordinates(parts), move)
        return joined(list(shapely.points(xy[np.isfinite(xy).all(axis=1)])), 0)
    has_length = shapely.length(parts) > 0
    dots = [shapely.transform(dot, lambda xy: _move(xy, move)) for dot in parts[~has_length]]
    dots = [dot for dot in dots if np.isfinite(shapely.get_coordinates(dot)).all()]
    parts = parts[has_length]
    xy, line = _follow_lines(parts, np.zeros(len(parts), np.int64), move, dst)
    known = np.isfinite(xy).all(axis=1)
    run = np.cumsum((np.diff(line, prepend=-1) != 0) | (np.diff(known, prepend=False) != 0))
    xy, run = xy[known], run[known]
    lines = np.split(xy, np.flatnonzero(np.diff(run)) + 1) if len(xy) else []
    if dst.is_geographic:
        lines = [np.column_stack([np.unwrap(a[:, 0], period=360), a[:, 1]]) for a in lines]
    return joined([*(shapely.LineString(a) for a in lines if len(a) > 1), *dots], 1)


def _extents(xy: _Floats, ring: NDArray[np.int64], of_area: NDArray[np.int64]) -> _Floats:
    """The longer side of each area's bounds, 0 where it has no finite coordinate."""
    n_areas = int(of_area[-1]) + 1 if len(of_area) else 0
    extents = np.zeros(n_areas)
    known = np.isfinite(xy).all(axis=1)
    xy, area = xy[known], of_area[ring[known]]
    if len(area):
        first = np.flatnonzero(np.diff(area, prepend=-1))
        spans = np.maximum.reduceat(xy, first) - np.minimum.reduceat(xy, first)
        extents[area[first]] = spans.max(axis=1)
    return extents


def _move(xy: _Floats, move: pyproj.Transformer) -> _Floats:
    return np.column_stack(move.transform(xy[:, 0], xy[:, 1]))


def _rebuild(
    xy: _Floats, ring: NDArray[np.int64], of_polygon: NDArray[np.int64], *, is_lonlat: bool
) -> BaseGeometry:
    known = np.isfinite(xy).all(axis=1)
    xy, ring = xy[known], ring[known]
    lines = np.split(xy, np.searchsorted(ring, np.arange(1, len(of_polygon))))
    polygons = []
    for lines_of_one in _grouped(lines, of_polygon):
        shell, *holes = (_unwrapped(line) for line in lines_of_one) if is_lonlat else lines_of_one
        if len(shell) >= 3:
            holes = [_beside(hole, shell) if is_lonlat else hole for hole in holes if len(hole) > 2]
            polygons.append(shapely.Polygon(shell, holes))
    if len(polygons) == 1:
        return polygonal(polygons[0])
    collected = shapely.MultiPolygon(polygons)
    return collected if shapely.is_valid(collected) else _joined(polygons)


def _joined(polygons: list[BaseGeometry]) -> BaseGeometry:
    return polygonal(shapely.union_all([polygonal(polygon) for polygon in polygons]))


def _grouped(lines: list[_Floats], of_polygon: NDArray[np.int64]) -> Iterator[list[_Floats]]:
    starts = np.flatnonzero(np.diff(of_polygon, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start:stop]


def _unwrapped(line: _Floats) -> _Floats:
    """A ring without jumps of 360 degrees; one around a pole gets the pole."""
    if len(line) < 2:
        return line
    lon = np.unwrap(line[:, 0], period=360)
    unwrapped = np.column_stack([lon, line[:, 1]])
    if abs(lon[-1] - lon[0]) < 180:
        return unwrapped
    pole = 90.0 if line[:, 1].mean() > 0 else -90.0
    return np.vstack([unwrapped, [[lon[-1], pole], [lon[0], pole]]])


def _beside(hole: _Floats, shell: _Floats) -> _Floats:
    """A hole on the same turn of longitudes as its shell."""
    away = (shell[:, 0].min() + shell[:, 0].max()) / 2 - (hole[:, 0].min() + hole[:, 0].max()) / 2
    beside: _Floats = hole + np.array([360 * np.round(away / 360), 0.0])
    return beside
