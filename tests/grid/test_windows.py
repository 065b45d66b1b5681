from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.errors import WindowError
from rasterio.features import geometry_window
from rasterio.transform import Affine as RasterioAffine
from rasterio.transform import array_bounds, xy
from rasterio.windows import Window as RasterioWindow

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, transformer
from rasteret_sql.grid.windows import (
    EDGE_TOLERANCE,
    bounds_of,
    level_affine,
    pixel_centres,
    tile_window,
    tiles_under,
    to_pixels,
    window_of,
)
from rasteret_sql.units import Affine, Window

# Raised inside rasterio by newer versions of affine.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

UTM_GRID = Affine(10, 0, 499980, 0, -10, 4100040)
GRIDS = {
    "utm": UTM_GRID,
    "degrees": Affine(0.1, 0, -180, 0, -0.1, 90),
    "thirds": Affine(1 / 3, 0, 0.1, 0, -1 / 3, 7.7),
    "south-up": Affine(30, 0, 0, 0, 30, -100),
    "rotated": Affine(8, 3, 1000, 2, -9, 2000),
}
grids = pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
pixels = st.floats(-50, 150, allow_nan=False)


def rasterio_window(geometry, affine, height, width):
    dataset = SimpleNamespace(transform=RasterioAffine(*affine), height=height, width=width)
    try:
        window = geometry_window(dataset, [geometry])
    except WindowError:
        return Window(0, 0, 0, 0)
    (row_start, row_stop), (col_start, col_stop) = window.toranges()
    window = Window(int(row_start), int(row_stop), int(col_start), int(col_stop))
    return Window(0, 0, 0, 0) if window.is_empty else window


def far_from_edges(*bounds):
    return all(abs(value - round(value)) > 2 * EDGE_TOLERANCE for value in bounds)


@grids
@given(x=pixels, y=pixels, width=st.floats(0.001, 90), height=st.floats(0.001, 90))
def test_the_window_under_a_geometry_is_rasterios(affine, x, y, width, height):
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    geometry = shapely.Polygon([affine.to_map(*corner) for corner in corners])
    in_pixels = to_pixels(geometry, affine)
    assume(far_from_edges(*in_pixels.bounds))
    window = window_of(in_pixels, 100, 80)
    expected = rasterio_window(geometry, affine, 100, 80)
    assert window == expected or (window.is_empty and expected.is_empty)


@given(row=st.integers(0, 10979), col=st.integers(0, 10979), size=st.integers(1, 2000))
def test_an_area_on_pixel_edges_gets_no_further_row_after_a_round_trip(row, col, size):
    box = shapely.box(*UTM_GRID.to_map(col, row + size), *UTM_GRID.to_map(col + size, row))
    there, back = transformer(32643, LONLAT), transformer(LONLAT, 32643)
    tour = shapely.transform(
        box, lambda p: np.column_stack(back.transform(*there.transform(p[:, 0], p[:, 1])))
    )
    wanted = Window(row, min(row + size, 10980), col, min(col + size, 10980))
    assert window_of(to_pixels(tour, UTM_GRID), 10980, 10980) == wanted


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 10, 10), Window(0, 10, 0, 10)),
        ((-5, -5, 500, 500), Window(0, 10, 0, 10)),
        ((1 - 1e-9, 1 + 1e-9, 2 + 1e-9, 3), Window(1, 3, 1, 2)),
        ((4.2, 4.3, 4.4, 4.5), Window(4, 5, 4, 5)),
        ((5 - 1e-8, 5, 5 + 1e-8, 6), Window(5, 6, 4, 6)),  # smaller than the tolerance
        ((-1e300, 0.5, 1e300, 0.6), Window(0, 1, 0, 10)),
    ],
)
def test_bounds_are_clamped_and_snapped(box, expected):
    assert window_of(shapely.box(*box), 10, 10) == expected


@pytest.mark.parametrize(
    "box", [(-3, 0, 0, 5), (10, 0, 12, 5), (0, -2, 5, 0), (0, 10, 5, 11), (20, 20, 30, 30)]
)
def test_touching_or_missing_the_image_gives_an_empty_window(box):
    assert window_of(shapely.box(*box), 10, 10).is_empty


def test_an_empty_geometry_gives_an_empty_window():
    assert window_of(shapely.Polygon(), 10, 10).is_empty


@grids
@given(col=pixels, row=pixels)
def test_to_pixels_undoes_to_map(affine, col, row):
    point = to_pixels(shapely.Point(affine.to_map(col, row)), affine)
    assert (point.x, point.y) == pytest.approx((col, row), abs=1e-7)


def test_to_pixels_refuses_a_grid_without_area():
    with pytest.raises(InputError, match="transform"):
        to_pixels(shapely.box(0, 0, 1, 1), Affine(0, 0, 0, 0, -10, 0))


@given(
    rows=st.tuples(st.integers(0, 99), st.integers(1, 50)),
    cols=st.tuples(st.integers(0, 99), st.integers(1, 50)),
    tile=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_tiles_under_a_window_are_those_that_share_pixels_with_it(rows, cols, tile):
    window = Window(rows[0], min(sum(rows), 100), cols[0], min(sum(cols), 100))
    span = tiles_under(window, *tile)
    touched = {
        (r, c)
        for r in range(-(-100 // tile[0]))
        for c in range(-(-100 // tile[1]))
        if not tile_window(r, c, *tile, 100, 100).intersection(window).is_empty
    }
    inside = range(span.row_start, span.row_stop), range(span.col_start, span.col_stop)
    assert touched == {(r, c) for r in inside[0] for c in inside[1]}


def test_an_empty_window_has_no_tiles():
    assert tiles_under(Window(5, 5, 0, 9), 4, 4) == (0, 0, 0, 0)


def test_tiles_cut_the_image_into_pieces_without_overlap():
    seen = np.zeros((70, 33), dtype=int)
    for row in range(5):
        for col in range(3):
            part = tile_window(row, col, 16, 16, 70, 33)
            seen[part.row_start : part.row_stop, part.col_start : part.col_stop] += 1
    assert (seen == 1).all()


@grids
def test_pixel_centres_are_rasterios(affine):
    window = Window(3, 8, 2, 6)
    x, y = pixel_centres(affine, window)
    rows, cols = np.mgrid[3:8, 2:6]
    expected = xy(RasterioAffine(*affine), rows.ravel(), cols.ravel())
    if affine.is_rectilinear:
        assert x.shape == (4,)
        assert y.shape == (5,)
        x, y = np.meshgrid(x, y)
    assert x.dtype == y.dtype == np.float64
    np.testing.assert_allclose(x.ravel(), expected[0], rtol=1e-12)
    np.testing.assert_allclose(y.ravel(), expected[1], rtol=1e-12)


@grids
def test_bounds_hold_the_corners_as_in_rasterio(affine):
    bounds = bounds_of(affine, 100, 80)
    xs, ys = xy(RasterioAffine(*affine), [0, 0, 100, 100], [0, 80, 0, 80], offset="ul")
    assert bounds == pytest.approx((min(xs), min(ys), max(xs), max(ys)))
    if affine.is_rectilinear and affine.e < 0:
        assert bounds == pytest.approx(array_bounds(100, 80, RasterioAffine(*affine)))


@grids
def test_a_level_covers_the_same_ground(affine):
    level = level_affine(affine, 101, 67, 51, 34)
    assert bounds_of(level, 34, 51) == pytest.approx(bounds_of(affine, 67, 101))


def test_half_open_windows_read_like_rasterios():
    window = Window(3, 8, 2, 6)
    assert RasterioWindow.from_slices((3, 8), (2, 6)).toslices() == (
        slice(window.row_start, window.row_stop),
        slice(window.col_start, window.col_stop),
    )
