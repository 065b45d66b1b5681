from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, crs_of, is_same, transformer

UTM = pyproj.CRS(32643)


@pytest.mark.parametrize(
    "value",
    [
        32643,
        "32643",
        " EPSG:32643 ",
        "epsg:32643",
        UTM,
        UTM.to_wkt("WKT2_2019"),
        UTM.to_wkt("WKT1_GDAL"),
        UTM.to_json(),
    ],
    ids=["int", "digits", "authority", "lower case", "crs", "wkt2", "wkt1", "projjson"],
)
def test_every_form_names_the_same_crs(value):
    assert crs_of(value).equals(UTM) or crs_of(value).to_epsg() == 32643


@pytest.mark.parametrize("value", ["", "foo", "EPSG:", 99999999, True, None, 4.5, b"EPSG:4326"])
def test_a_value_that_names_no_crs_is_refused_in_one_line(value):
    with pytest.raises(InputError, match=r"^geometry_crs: expected .*, got ") as caught:
        crs_of(value)
    assert "\n" not in str(caught.value)


def test_a_crs_and_a_transformer_are_built_once():
    assert crs_of(32643) is crs_of("EPSG:32643")
    assert transformer(LONLAT, 32643) is transformer(crs_of(LONLAT), UTM)


def test_coordinates_are_x_then_y_whatever_the_authority_says():
    x, y = transformer("EPSG:4326", 32643).transform(75, 0)
    assert (round(x), round(y)) == (500000, 0)


def test_4326_and_crs84_have_the_same_coordinates_but_3857_has_others():
    assert is_same(crs_of(4326), crs_of(LONLAT))
    assert is_same(crs_of(LONLAT), crs_of(4326))
    assert not is_same(crs_of(4326), crs_of(3857))
    assert not is_same(crs_of(32643), crs_of(32644))


def test_a_transformer_serves_several_threads():
    move = transformer(LONLAT, 32643)
    lon, lat = np.linspace(72, 78, 5000), np.linspace(10, 20, 5000)
    expected = move.transform(lon, lat)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: move.transform(lon, lat), range(16)))
    assert all(np.array_equal(expected, result) for result in results)
