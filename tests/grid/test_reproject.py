import itertools

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.warp import transform_bounds

from examples import examples
from rasteret_sql.errors import InputError
from rasteret_sql.grid import reproject as module
from rasteret_sql.grid.aoi import parse_aoi
from rasteret_sql.grid.crs import LONLAT, crs_of, transformer
from rasteret_sql.grid.masks import polygon_mask
from rasteret_sql.grid.reproject import are_surely_small, is_large, lonlat_boxes
from rasteret_sql.grid.windows import to_pixels, window_of
from rasteret_sql.units import Affine, BBox

SINUSOIDAL = "+proj=sinu +R=6371007.181 +units=m +no_defs"


def move(geometry, src, dst):
    step = transformer(src, dst)
    return shapely.transform(geometry, lambda p: np.column_stack(step.transform(p[:, 0], p[:, 1])))


def reference(geometry, src, dst, vertices=2500):
    """The area with so many vertices on each side that its edges are the true curves."""
    return move(shapely.segmentize(geometry, geometry.length / 4 / vertices), src, dst)


@pytest.mark.parametrize(
    ("bbox", "crs"),
    [
        ([72, 30, 78, 31], 32643),  # a long east-west edge, 40 pixels from its chord
        ([5, 50, 6, 60], 32632),
        ([-130, 20, -60, 55], 5070),
        ([-30, 60, 60, 80], 3413),
        ([100, -45, 160, -10], 3577),
    ],
)
def test_edges_follow_the_curve_of_thousands_of_vertices(bbox, crs):
    aoi = parse_aoi(bbox=bbox)
    got, expected = aoi.to_crs(crs), reference(aoi.geometry, LONLAT, crs, 1000)
    xmin, ymin, xmax, ymax = expected.bounds
    extent = max(xmax - xmin, ymax - ymin)
    assert shapely.hausdorff_distance(got, expected) < 3e-7 * extent
    assert got.symmetric_difference(expected).area < 1e-7 * extent * expected.length
    chords = move(aoi.geometry, LONLAT, crs)
    assert shapely.hausdorff_distance(chords, expected) > 1e-4 * extent


def test_the_mask_of_a_large_area_is_that_of_the_true_curve():
    aoi = parse_aoi(bbox=[72, 30, 78, 31])
    affine = Affine(100, 0, 150_000, 0, -100, 3_500_000)
    got = to_pixels(aoi.to_crs(32643), affine)
    expected = to_pixels(reference(aoi.geometry, LONLAT, 32643), affine)
    window = window_of(expected, 8000, 8000)
    assert window_of(got, 8000, 8000) == window
    assert (polygon_mask(got, window) != polygon_mask(expected, window)).sum() <= 20  # of 6.8e6


def test_holes_and_parts_come_along():
    area = shapely.MultiPolygon(
        [
            shapely.box(74, 30, 75, 31) - shapely.box(74.2, 30.2, 74.8, 30.8),
            shapely.box(76, 30, 77, 31),
        ]
    )
    got = parse_aoi(geometry=area).to_crs(32643)
    assert got.is_valid
    assert len(shapely.get_rings(shapely.get_parts(got))) == 3
    assert got.area == pytest.approx(reference(area, LONLAT, 32643).area, rel=1e-6)


@pytest.mark.parametrize("epsg", [32760, 32701])
def test_an_area_across_the_antimeridian_is_one_piece_in_utm(epsg):
    area = parse_aoi(bbox=[178, -18, -179, -17])
    got = area.to_crs(epsg)
    expected = reference(shapely.box(178, -18, 181, -17), LONLAT, epsg)
    assert got.geom_type == "Polygon"
    assert got.symmetric_difference(expected).area / expected.area < 1e-6


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (BBox(0, -90, 360, 90), [(178, -18, 181, -17)]),
        (BBox(-180, -90, 180, 90), [(178, -18, 180, -17), (-180, -18, -179, -17)]),
        (BBox(170, -20, 185, -10), [(178, -18, 181, -17)]),
        (BBox(-190, -20, -170, -10), [(-182, -18, -179, -17)]),
    ],
)
def test_a_geographic_raster_gets_the_area_in_its_own_longitudes(bounds, expected):
    got = parse_aoi(bbox=[178, -18, -179, -17]).to_crs(4326, bounds)
    assert shapely.equals(got, shapely.MultiPolygon([shapely.box(*box) for box in expected]))


def test_an_area_outside_of_a_raster_does_not_reach_into_it():
    got = parse_aoi(bbox=[20, 0, 30, 1]).to_crs(4326, BBox(40, -10, 60, 10))
    assert not got.intersects(shapely.box(40, -10, 60, 10))


def test_a_projected_area_across_the_antimeridian_stays_small_in_degrees():
    aoi = parse_aoi(bbox=[600_000, 7_900_000, 900_000, 8_100_000], geometry_crs=32760)
    west, east = aoi.lonlat_boxes()
    assert (west.xmax, east.xmin) == (180, -180)
    assert (180 - west.xmin) + (east.xmax + 180) < 4
    got = aoi.to_crs(4326, BBox(0, -90, 360, 90))
    assert got.geom_type == "Polygon"
    assert 177 < got.bounds[0] < got.bounds[2] < 182


def test_a_projection_centred_on_the_pacific_gets_one_piece():
    got = parse_aoi(bbox=[170, -10, -170, 10]).to_crs(3832)
    assert got.geom_type == "Polygon"
    assert got.bounds[2] - got.bounds[0] == pytest.approx(20 / 360 * 2 * np.pi * 6378137)


def test_what_lies_on_a_projections_far_side_is_cut_not_smeared():
    got = parse_aoi(bbox=[-40, -10, -20, 10]).to_crs(3832)  # cut at 30 degrees west
    assert len(got.geoms) == 2
    assert got.area == pytest.approx(parse_aoi(bbox=[0, -10, 20, 10]).to_crs(3832).area, rel=1e-6)


def test_an_area_around_a_pole_reaches_the_pole():
    [box] = parse_aoi(bbox=[-1e6, -1e6, 1e6, 1e6], geometry_crs=3413).lonlat_boxes()
    assert (box.xmin, box.xmax, box.ymax) == (-180, 180, 90)
    [box] = parse_aoi(bbox=[-1e6, -1e6, 1e6, 1e6], geometry_crs=3031).lonlat_boxes()
    assert (box.xmin, box.xmax, box.ymin) == (-180, 180, -90)


@pytest.mark.parametrize("crs", [32643, 3413, 5070, 3857])
def test_boxes_hold_a_projected_area(crs):
    step = transformer(LONLAT, crs)
    x, y = step.transform({32643: 75, 3413: -45, 5070: -96, 3857: 10}[crs], 70)
    area = shapely.box(x - 3e5, y - 3e5, x + 3e5, y + 3e5)
    [box] = parse_aoi(geometry=area, geometry_crs=crs).lonlat_boxes()
    ring = reference(area, crs, LONLAT, 2000)
    assert shapely.covers(shapely.box(*box), ring)
    expected = transform_bounds(f"EPSG:{crs}", "EPSG:4326", *area.bounds, densify_pts=200)
    assert box == pytest.approx(expected, abs=0.01)


WORLD_RASTERS = [
    (32643, BBox(300_000, 3_200_000, 409_800, 3_309_800)),
    (32601, BBox(300_000, 3_200_000, 409_800, 3_309_800)),
    (3857, BBox(-2e7, -2e7, 2e7, 2e7)),
    (3413, BBox(-3e6, -3e6, 3e6, 3e6)),
    (3031, BBox(-3e6, -3e6, 3e6, 3e6)),
    (SINUSOIDAL, BBox(-20_015_109, 4_447_802, -18_903_158, 5_559_752)),
    ("+proj=geos +h=35785831 +lon_0=0", BBox(-5.5e6, -5.5e6, 5.5e6, 5.5e6)),
]


@pytest.mark.parametrize(("crs", "bounds"), WORLD_RASTERS)
def test_the_world_covers_every_raster(crs, bounds):
    got = parse_aoi(bbox=[-180, -90, 180, 90]).to_crs(crs, bounds)
    assert got.covers(shapely.box(*bounds))


@pytest.mark.parametrize(
    "bbox", [[-100, -60, 75.3, 60], [74.9, 29.2, 179, 90], [60, -89, 100, 29.4]]
)
def test_the_part_of_a_large_area_at_a_raster_is_exact(bbox):
    bounds = BBox(500_000, 3_200_000, 609_800, 3_309_800)
    got = parse_aoi(bbox=bbox).to_crs(32643, bounds)
    xs, ys = np.meshgrid(np.linspace(*bounds[::2], 60), np.linspace(*bounds[1::2], 60))
    lon, lat = transformer(32643, LONLAT).transform(xs, ys)
    expected = (lon > bbox[0]) & (lon < bbox[2]) & (lat > bbox[1]) & (lat < bbox[3])
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(shapely.contains_xy(got, xs, ys), expected)


def test_an_area_that_does_not_transform_is_empty():
    far = parse_aoi(bbox=[170, 0, 171, 1]).to_crs("+proj=geos +h=35785831 +lon_0=0")
    assert far.is_empty
    assert window_of(far, 10, 10).is_empty


def test_another_datum_moves_the_area():
    aoi = parse_aoi(bbox=[4, 51, 5, 52])
    got = aoi.to_crs("EPSG:4289")  # Amersfoort, without grids a shift by three numbers or more
    assert got.bounds != aoi.geometry.bounds
    assert got.bounds == pytest.approx(aoi.geometry.bounds, abs=0.01)


def test_a_round_trip_returns_the_area():
    aoi = parse_aoi(bbox=[499_980, 3_990_240, 609_780, 4_100_040], geometry_crs=32643)
    there = parse_aoi(geometry=aoi.to_crs(LONLAT))
    back = there.to_crs(crs_of(pyproj.CRS(32643)))
    assert shapely.hausdorff_distance(back, aoi.geometry) < 0.05


def test_the_boxes_of_an_area_are_computed_once(monkeypatch):
    area, crs = shapely.box(500_123, 1_000_456, 501_123, 1_001_456), crs_of("EPSG:32631")
    boxes = lonlat_boxes(area, crs)
    other = lonlat_boxes(area, crs_of("EPSG:32632"))
    monkeypatch.setattr(module, "reproject", None)
    assert lonlat_boxes(shapely.box(*area.bounds), crs_of("EPSG:32631")) == boxes
    assert other != boxes
    boxes.clear()
    assert len(lonlat_boxes(area, crs)) == 1


@pytest.mark.parametrize("far", [1e6, 1e7, 2e7, 3e7, 1e8, 1e9])
def test_boxes_of_an_area_beyond_the_map_hold_what_is_on_it(far):
    area = shapely.box(500_000 - far, 4_000_000 - far, 500_000 + far, 4_000_000 + far)
    boxes = lonlat_boxes(area, crs_of("EPSG:32643"))
    assert any(box.xmin <= 75 <= box.xmax and box.ymin <= 36.1 <= box.ymax for box in boxes)


@pytest.mark.parametrize("crs", [4326, 32643, 3413, 5070, 3857, 3832, 3035, SINUSOIDAL])
def test_what_is_surely_small_is_not_large(crs):
    rng = np.random.default_rng(4)
    reach = 100 if crs == 4326 else 1e7
    corner = rng.uniform(-reach, reach, (80, 2))
    size = reach * 10 ** rng.uniform(-5, 0, (80, 2))
    bounds = np.hstack([corner, corner + size])
    small = are_surely_small(bounds, crs_of(crs))
    boxes = [lonlat_boxes(shapely.box(*box), crs_of(crs)) for box in bounds.tolist()]
    large = np.array([any(map(is_large, one)) for one in boxes])
    assert not (small & large).any()
    assert small.sum() > 10


AZIMUTHAL = {
    "europe": ("EPSG:3035", 12.6e6),
    "north, equal area": ("EPSG:6931", 12.7e6),
    "south, equal area": ("EPSG:6932", 12.7e6),
    "north, conformal": ("EPSG:3413", 1.2e7),
    "south, conformal": ("EPSG:3031", 1.2e7),
    "pacific": ("+proj=laea +lat_0=-40 +lon_0=170", 12.7e6),
    "equator": ("+proj=laea +lat_0=0 +lon_0=9", 12.7e6),
    "equidistant": ("+proj=aeqd +lat_0=90 +lon_0=0", 1.9e7),
    "orthographic": ("+proj=ortho +lat_0=52 +lon_0=5", 6.3e6),
}
LARGE = {
    "all but the north": shapely.box(-180, -90, 180, 40),
    "all but the south": shapely.box(-180, -30, 180, 90),
    "around the antipode of europe": shapely.box(-175, -57, -165, -47),
    "with a corner at it": shapely.box(-170, -52, -20, 60),
    "across 180 degrees, with a pole": shapely.box(100, -90, 250, 20),
    "with a hole": shapely.box(-180, -80, 180, 80) - shapely.box(150, -60, 178, -20),
    "a cross": shapely.box(-180, -20, 180, 10) | shapely.box(-100, -90, 60, 90),
}


def centres(bounds, side=40):
    """Pixel centres over a box."""
    steps = (np.arange(side) + 0.5) / side
    x = bounds.xmin + steps * (bounds.xmax - bounds.xmin)
    y = bounds.ymin + steps * (bounds.ymax - bounds.ymin)
    return np.meshgrid(x, y)


def near_edge(area, x, y, tolerance):
    return shapely.distance(shapely.boundary(area), shapely.points(x, y)) < tolerance


MAPS = [*itertools.product(LARGE, AZIMUTHAL)]


@pytest.mark.parametrize(("name", "place"), examples(MAPS[::2], MAPS))
def test_pixels_of_an_azimuthal_raster_lie_in_an_area_as_their_places_do(name, place):
    """Every other area for each map, other ones for the next; or all."""
    (crs, reach), aoi = AZIMUTHAL[place], parse_aoi(geometry=LARGE[name])
    xm, ym = (4_321_000, 3_210_000) if crs == "EPSG:3035" else (0, 0)
    for size in (reach, reach / 9):
        bounds = BBox(xm - size, ym - size, xm + size, ym + size)
        x, y = centres(bounds)
        lon, lat = transformer(crs, LONLAT).transform(x, y)
        back = transformer(LONLAT, crs).transform(lon, lat)
        with np.errstate(invalid="ignore"):
            on_map = np.hypot(back[0] - x, back[1] - y) < 1
        lon, lat = np.where(on_map, lon, 0), np.where(on_map, lat, 0)
        got = aoi.to_crs(crs, bounds)
        sure = on_map & ~near_edge(aoi.geometry, lon, lat, 1e-4)
        inside = shapely.contains_xy(aoi.geometry, lon, lat)
        assert sure.sum() > 500
        np.testing.assert_array_equal(shapely.contains_xy(got, x, y)[sure], inside[sure])


@pytest.mark.parametrize(("crs", "reach"), AZIMUTHAL.values(), ids=AZIMUTHAL)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_places_lie_in_an_area_on_an_azimuthal_map_as_on_the_map(share, crs, reach):
    xm, ym = (4_321_000, 3_210_000) if crs == "EPSG:3035" else (0, 0)
    hole = shapely.Point(xm + reach * share / 3, ym).buffer(reach * share / 4)
    area = shapely.Point(xm, ym - reach * (1 - share) / 2).buffer(reach * share) - hole
    aoi = parse_aoi(geometry=area, geometry_crs=crs)
    bounds = BBox(-180, -90, 180, 90)
    lon, lat = centres(bounds, 60)
    x, y = transformer(LONLAT, crs).transform(lon, lat)
    x, y = np.nan_to_num(x, posinf=1e12), np.nan_to_num(y, posinf=1e12)
    got = aoi.to_crs(LONLAT, bounds)
    sure = ~near_edge(area, x, y, 100)
    inside = shapely.contains_xy(area, x, y)
    assert inside.sum() > 50
    np.testing.assert_array_equal(shapely.contains_xy(got, lon, lat)[sure], inside[sure])


def test_a_zone_on_the_far_side_does_not_reach_a_raster():
    zones = np.array([shapely.box(14, 50, 14.1, 50.1), shapely.box(-170, -5, -160, 5)])
    near, far = module.reproject_all(zones, crs_of(LONLAT), crs_of(32633))
    assert not far.intersects(shapely.box(-1e6, -9e6, 2e6, 9e6))
    assert shapely.equals_exact(near, module.reproject(zones[0], crs_of(LONLAT), crs_of(32633)))
    zones[1] = shapely.box(-175, -57, -165, -47)
    near, far = module.reproject_all(zones, crs_of(LONLAT), crs_of(3035))
    assert not far.intersects(shapely.box(1e6, 1e6, 7e6, 6e6))
    assert near.area > 1e7


def test_areas_of_a_map_that_are_not_cut_go_to_another_directly(monkeypatch):
    zones = np.array([shapely.box(5e5 + n, 5.5e6, 5e5 + n + 9e2, 5.51e6) for n in (0, 1000, 2000)])
    moved = module.reproject_all(zones, crs_of(32632), crs_of(3035))
    monkeypatch.setattr(module, "reproject", None)
    module.reproject_all(zones, crs_of(32632), crs_of(3035))
    for zone, got in zip(zones, moved, strict=True):
        expected = reference(zone, 32632, 3035, 500)
        assert shapely.hausdorff_distance(got, expected) < 0.01


def test_the_far_end_of_an_equidistant_map_is_refused_where_it_would_be_wrong():
    crs, area = "+proj=aeqd +lat_0=30 +lon_0=-100", parse_aoi(bbox=[-180, -90, 180, 0])
    with pytest.raises(InputError, match=r"keep it a degree away from 80, -30$"):
        area.to_crs(crs, BBox(-2e7, -2e7, 2e7, 2e7))
    bounds = BBox(-9e6, -9e6, 9e6, 9e6)
    x, y = centres(bounds)
    lat = transformer(crs, LONLAT).transform(x, y)[1]
    np.testing.assert_array_equal(shapely.contains_xy(area.to_crs(crs, bounds), x, y), lat < 0)


@pytest.mark.parametrize("dst", [6933, 3857, SINUSOIDAL])
@pytest.mark.parametrize("src", [32601, 32660, 3413])
def test_a_projected_area_across_the_seam_of_another_projection_is_cut_there(src, dst):
    x, y = transformer(LONLAT, src).transform(180, 60)
    zones = np.array([shapely.box(x - 1e5, y - 1e5, x + 1e5, y + 1e5)])
    places = [centres(BBox(-180, 58, 180, 62), 100)]  # all around, and on both sides of the seam
    places += [centres(BBox(west, 58, west + 4, 62), 200) for west in (-180, 176)]
    lon, lat = (np.concatenate([one.ravel() for one in part]) for part in zip(*places, strict=True))
    sx, sy = transformer(LONLAT, src).transform(lon, lat)
    inside = shapely.contains_xy(zones[0], sx, sy)
    assert inside.sum() > 1000
    sure = ~near_edge(zones[0], sx, sy, 100)
    dx, dy = transformer(LONLAT, dst).transform(lon, lat)
    for got in (
        module.reproject(zones[0], crs_of(src), crs_of(dst)),
        module.reproject_all(zones, crs_of(src), crs_of(dst))[0],
    ):
        assert len(got.geoms) == 2
        assert got.area < 2e11
        np.testing.assert_array_equal(shapely.contains_xy(got, dx, dy)[sure], inside[sure])
