import numpy as np
import pyproj
import pytest
import shapely
from rasterio.warp import transform_bounds

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
    got, expected = aoi.to_crs(crs), reference(aoi.geometry, LONLAT, crs)
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
