import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from rasteret_sql.grid import coverage
from rasteret_sql.grid.coverage import (
    cell_areas,
    coverage_fractions,
    coverage_of_each,
    length_in_cells,
)
from rasteret_sql.grid.masks import polygon_mask
from rasteret_sql.grid.reproject import polygonal
from rasteret_sql.grid.windows import to_pixels, window_of
from rasteret_sql.units import Affine, Window

IMAGE = Window(0, 24, 0, 20)


def intersections(geometry_px, window):
    """The oracle: each pixel cut out of the polygon."""
    rows, cols = np.mgrid[
        window.row_start : window.row_stop, window.col_start : window.col_stop
    ].reshape(2, -1)
    cells = shapely.box(cols, rows, cols + 1, rows + 1)
    areas = shapely.area(shapely.intersection(cells, geometry_px))
    return areas.reshape(window.height, window.width)


def stars(seed, count, scales):
    """Random polygons with a hole, some of two parts, some partly or wholly outside."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        parts = []
        for _ in range(rng.integers(1, 3)):
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 20)))
            radii = rng.uniform(0.3, 1, len(angles)) * 10 ** rng.uniform(*scales)
            centre = rng.uniform(-3, 27, 2)
            ring = centre + np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
            part = polygonal(shapely.Polygon(ring))
            hole = shapely.Point(centre + radii.min() / 2).buffer(0.4 * radii.min())
            parts.append(part.difference(hole))
        yield polygonal(shapely.union_all(parts))


@pytest.mark.parametrize("scales", [(-5, -3), (-1, 1), (1, 2), (3, 5)])
def test_shares_are_those_of_intersections(scales):
    seen = 0
    for area in stars(7, 40, scales):
        got = coverage_fractions(area, IMAGE)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, intersections(area, IMAGE), rtol=1e-6, atol=1e-7)
        seen += (got > 0).any()
    assert seen > 10


def test_a_tiny_area_keeps_its_share():
    area = shapely.box(5.25, 7.25, 5.25 + 1e-6, 7.25 + 1e-6)
    got = coverage_fractions(area, IMAGE)
    assert np.flatnonzero(got).tolist() == [7 * 20 + 5]
    assert got[7, 5] == pytest.approx(1e-12, rel=1e-4)


edges = st.one_of(st.integers(-3, 27).map(float), st.floats(-3, 27, width=32))


@st.composite
def polygons(draw):
    points = draw(st.lists(st.tuples(edges, edges), min_size=3, max_size=8))
    return polygonal(shapely.Polygon(points))


@settings(max_examples=examples(40, 100), deadline=None)
@given(area=polygons())
def test_shares_along_pixel_edges_are_those_of_intersections(area):
    got, expected = coverage_fractions(area, IMAGE), intersections(area, IMAGE)
    np.testing.assert_allclose(got, expected, atol=1e-7)
    differ = (got > 0) != (expected > 0)
    assert np.maximum(got, expected)[differ].max(initial=0) < 1e-10


def test_parts_that_touch_in_a_point_do_not_disturb_each_other():
    # GEOS 3.14's own grid intersection is wrong by a whole pixel here.
    crossing = [(-1, 22), (25.574098587036133, 21), (7.6673126220703125, 5)]
    crossing += [(2.538414716720581, 12), (11, 17), (15, 6), (7, 14)]
    area = polygonal(shapely.Polygon(crossing))
    assert area.geom_type == "MultiPolygon"
    got = coverage_fractions(area, IMAGE)
    np.testing.assert_allclose(got, intersections(area, IMAGE), atol=1e-7)


def test_a_vertex_a_hair_beside_a_pixel_edge_does_no_harm():
    # GEOS 3.14's own grid intersection ends the process here.
    area = shapely.from_wkt(
        "MULTIPOLYGON (((6.176715000011566e-32 14, 19.74832534790039 -3,"
        " -0.2773114629524384 11.835031885436402, 6.176715000011566e-32 14)),"
        " ((-0.5 12, -0.2773114629524384 11.835031885436402, -0.7685419321060181 8, -0.5 12)))"
    )
    assert area.is_valid
    np.testing.assert_allclose(
        coverage_fractions(area, IMAGE), intersections(area, IMAGE), atol=1e-7
    )


@pytest.mark.parametrize("row", [1, 11, 23])
@pytest.mark.parametrize("col", [1, 7, 19])
def test_neighbouring_windows_fit_together(row, col):
    for area in stars(3, 6, (0, 1.5)):
        parts = [
            [coverage_fractions(area, Window(*rows, *cols)) for cols in ((0, col), (col, 20))]
            for rows in ((0, row), (row, 24))
        ]
        np.testing.assert_allclose(np.block(parts), coverage_fractions(area, IMAGE), atol=6e-8)


def test_the_shares_of_a_polygon_add_up_to_its_area():
    for area in stars(5, 20, (-1, 0.8)):
        window = Window(-40, 60, -40, 60)
        assert coverage_fractions(area, window).sum() == pytest.approx(area.area, rel=1e-5)


def test_pixels_that_no_boundary_enters_are_all_or_nothing():
    got = coverage_fractions(shapely.box(3, 2, 9, 21), IMAGE)
    expected = np.zeros((24, 20), np.float32)
    expected[2:21, 3:9] = 1
    np.testing.assert_array_equal(got, expected)
    ring = shapely.box(-1e6, -1e6, 1e6, 1e6) - shapely.box(5, 5, 7.5, 9)
    got = coverage_fractions(ring, IMAGE)
    assert set(np.unique(got)) == {0, 0.5, 1}
    assert (got == 0).sum() == 8


@pytest.mark.parametrize("max_cells", [1 << 21, 9000])
def test_shares_of_many_polygons_are_those_of_each(monkeypatch, max_cells):
    monkeypatch.setattr(coverage, "_MAX_CELLS", max_cells)
    scales = [(-5, -2), (-1, 0.5), (0, 1), (1, 2)]
    areas = [area for i, scale in enumerate(scales) for area in stars(20 + i, 60, scale)]
    areas += [shapely.Polygon(), shapely.box(3, 2, 9, 7), shapely.LineString([(0, 0), (9, 9)])]
    areas += [shapely.GeometryCollection([shapely.box(1, 1, 3.5, 4), shapely.Point(3, 3)])]
    windows = [window_of(area, 24, 20) for area in areas]
    windows[::7] = [Window(2, 19, 3, 4)] * len(windows[::7])
    windows[5] = IMAGE
    every = coverage_of_each(np.array(areas, object), np.array(windows))
    sizes = [window.height * window.width for window in windows]
    assert len(every) == sum(sizes)
    lines = np.split(every, np.cumsum(sizes)[:-1])
    found = [line.reshape(w.height, w.width) for line, w in zip(lines, windows, strict=True)]
    for area, window, got in zip(areas, windows, found, strict=True):
        want = coverage_fractions(area, window)
        assert got.shape == want.shape
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1.2e-7)
        np.testing.assert_array_equal(got > 1e-9, want > 1e-9)
        np.testing.assert_array_equal(got == 1, want == 1)
    assert sum(got.sum() for got in found) > 1000
    assert len(coverage_of_each(np.empty(0, object), np.empty((0, 4), np.int64))) == 0


def test_what_covers_something_is_touched():
    for area in stars(11, 40, (-1, 1.3)):
        covered = coverage_fractions(area, IMAGE) > 0
        assert not (covered & ~polygon_mask(area, IMAGE, all_touched=True)).any()


@pytest.mark.parametrize(
    "geometry",
    [
        shapely.Polygon(),
        shapely.box(30, 30, 31, 31),
        shapely.box(-5, 2, 0, 4),
        shapely.LineString([(1, 1), (9, 9)]),
        shapely.GeometryCollection([shapely.Point(3, 3)]),
    ],
)
def test_what_has_no_area_in_the_window_covers_nothing(geometry):
    assert not coverage_fractions(geometry, IMAGE).any()


def test_polygons_of_a_collection_count_and_overlaps_end_at_one():
    box = shapely.box(2, 2, 4, 4)
    collection = shapely.GeometryCollection(
        [shapely.LineString([(0, 0), (9, 9)]), shapely.MultiPolygon([box]), shapely.Point(9, 9)]
    )
    np.testing.assert_array_equal(
        coverage_fractions(collection, IMAGE), coverage_fractions(box, IMAGE)
    )
    twice = shapely.MultiPolygon([box, box])
    assert coverage_fractions(twice, IMAGE).max() == 1


def test_an_empty_window_has_no_shares():
    assert coverage_fractions(shapely.box(0, 0, 9, 9), Window(3, 3, 0, 5)).shape == (0, 5)


def test_strips_of_a_large_window_fit_together(monkeypatch):
    area = next(stars(2, 1, (1, 1)))
    whole = coverage_fractions(area, IMAGE)
    monkeypatch.setattr(coverage, "_MAX_CELLS", 100)
    np.testing.assert_allclose(coverage_fractions(area, IMAGE), whole, atol=6e-8)


def test_shares_are_those_of_exactextract():
    exactextract = pytest.importorskip("exactextract")
    raster = exactextract.raster.NumPyRasterSource(np.ones((24, 20)), 0, 0, 20, 24)
    for area in stars(13, 30, (-1, 1)):
        if not area.intersects(shapely.box(0, 0, 20, 24)):
            continue
        on_map = shapely.transform(area, lambda xy: [0, 24] + xy * [1, -1])
        feature = {"type": "Feature", "geometry": on_map.__geo_interface__, "properties": {}}
        [result] = exactextract.exact_extract(raster, feature, ["cell_id", "coverage"])
        expected = np.zeros(24 * 20)
        cells = result["properties"]["cell_id"]
        expected[np.asarray(cells, dtype=int)] = result["properties"]["coverage"]
        got = coverage_fractions(area, IMAGE)
        np.testing.assert_allclose(got.ravel(), expected, atol=2e-7)


def test_fields_of_real_data_have_their_area(vectors):
    fields = vectors("earthpy/colorado-counties.geojson")
    checked = 0
    for field in fields[:60]:
        xmin, ymin, xmax, ymax = field.bounds
        size = max(xmax - xmin, ymax - ymin) / 37.3
        affine = Affine(size, 0, xmin - size / 3, 0, -size, ymax + size / 7)
        pixels = to_pixels(polygonal(field), affine)
        window = window_of(pixels, 60, 60)
        assert coverage_fractions(pixels, window).sum() == pytest.approx(pixels.area, rel=1e-5)
        checked += 1
    assert checked > 10


def lengths(geometry_px, window):
    rows, cols = np.mgrid[
        window.row_start : window.row_stop, window.col_start : window.col_stop
    ].reshape(2, -1)
    cells = shapely.box(cols, rows, cols + 1, rows + 1)
    return shapely.length(shapely.intersection(cells, geometry_px)).reshape(
        window.height, window.width
    )


@pytest.mark.parametrize("scale", [1e-4, 3, 200])
def test_lengths_are_those_of_intersections(scale):
    rng = np.random.default_rng(4)
    for _ in range(30):
        points = rng.uniform(-2, 25, 2) + rng.normal(0, scale, (rng.integers(2, 9), 2))
        line = shapely.LineString(points)
        got = length_in_cells(line, IMAGE)
        # The oracle sees one line where a line crosses itself, as measures of sets do.
        np.testing.assert_allclose(got, lengths(line, IMAGE), rtol=1e-9, atol=1e-9 * scale)


def test_a_line_between_two_pixels_counts_once():
    line = shapely.LineString([(2, 1), (2, 4), (7, 4)])
    got = length_in_cells(line, IMAGE)
    assert got.sum() == line.length
    assert got[1:4, 2].tolist() == [1, 1, 1]
    assert got[4, 2:7].tolist() == [1, 1, 1, 1, 1]


def test_lengths_of_neighbouring_windows_fit_together():
    rng = np.random.default_rng(8)
    line = shapely.MultiLineString([rng.uniform(-3, 27, (5, 2)) for _ in range(4)])
    left, right = (length_in_cells(line, Window(0, 24, *cols)) for cols in ((0, 9), (9, 20)))
    np.testing.assert_allclose(
        np.hstack([left, right]), length_in_cells(line, IMAGE), rtol=1e-9, atol=1e-12
    )


def test_lengths_on_the_map_and_on_the_ellipsoid():
    affine = Affine(0.01, 0, 10, 0, -0.01, 50)
    line = shapely.LineString([(0.2, 3.1), (15.8, 19.4)])
    in_degrees = length_in_cells(line, IMAGE, affine)
    assert in_degrees.sum() == pytest.approx(line.length * 0.01)
    in_metres = length_in_cells(line, IMAGE, affine, "EPSG:4326")
    ends = [affine.to_map(*xy) for xy in line.coords]
    expected = pyproj.Geod(ellps="WGS84").inv(*ends[0], *ends[1])[2]
    assert in_metres.sum() == pytest.approx(expected, rel=1e-5)
    assert ((in_metres > 0) == (in_degrees > 0)).all()


def test_geodesic_lengths_on_a_projected_rotated_grid():
    affine = Affine(80, 30, 500_000, 30, -80, 5_000_000)
    line = shapely.LineString([(1, 1), (18, 22)])
    got = length_in_cells(line, IMAGE, affine, "EPSG:32632")
    on_map = length_in_cells(line, IMAGE, affine)
    assert on_map.sum() == pytest.approx(np.hypot(80, 30) * line.length)
    assert got.sum() == pytest.approx(on_map.sum() / 0.9996, rel=1e-5)


def geodesic_area(affine, crs, row, col):
    """The oracle: the pixel with 50 points on each side, as geodesic polygon."""
    side = np.linspace(0, 1, 50, endpoint=False)
    cols = col + np.concatenate([side, np.ones(50), 1 - side, np.zeros(50)])
    rows = row + np.concatenate([np.zeros(50), side, np.ones(50), 1 - side])
    x, y = (
        affine.a * cols + affine.b * rows + affine.c,
        affine.d * cols + affine.e * rows + affine.f,
    )
    own = pyproj.CRS(crs)
    lon, lat = pyproj.Transformer.from_crs(own, own.geodetic_crs, always_xy=True).transform(x, y)
    return abs(own.get_geod().polygon_area_perimeter(lon, lat)[0])


@pytest.mark.parametrize(
    ("affine", "crs", "limit"),
    [
        (Affine(0.5, 0, -180, 0, -0.5, 90), "EPSG:4326", 2e-5),
        (Affine(0.001, 0, 10, 0, 0.001, 60), "OGC:CRS84", 1e-6),
        (Affine(30, 0, 300_000, 0, -30, 5_000_000), "EPSG:32632", 1e-7),
        (Affine(20, 20, 300_000, 20, -20, 5_000_000), "EPSG:32632", 1e-6),
        (Affine(5000, 0, 0, 0, -5000, 9_000_000), "EPSG:3857", 1e-4),
        (Affine(1000, 0, -150_000, 0, -1000, 150_000), "EPSG:3413", 1e-4),
        (Affine(1000, 0, -2_000_000, 0, -1000, 3_000_000), "EPSG:5070", 1e-6),
    ],
)
def test_areas_of_pixels_are_geodesic(affine, crs, limit):
    window = Window(0, 300, 3, 203)
    areas = np.broadcast_to(cell_areas(affine, crs, window), (300, 200))
    for row, col in [(0, 3), (17, 40), (149, 150), (150, 149), (161, 100), (299, 202)]:
        expected = geodesic_area(affine, crs, row, col)
        assert areas[row, col - 3] == pytest.approx(expected, rel=limit), (row, col)


def test_areas_of_the_world_add_up():
    areas = cell_areas(Affine(1, 0, -180, 0, -1, 90), "EPSG:4326", Window(0, 180, 0, 360))
    assert areas.shape == (180, 1)
    assert areas.sum() * 360 == pytest.approx(510_065_621_724_088, rel=1e-9)  # of WGS 84, m2


def test_equal_area_pixels_are_equal():
    areas = cell_areas(Affine(30, 0, 0, 0, -30, 2e6), "EPSG:5070", Window(0, 70, 0, 50))
    np.testing.assert_allclose(areas, 900, rtol=1e-7)
