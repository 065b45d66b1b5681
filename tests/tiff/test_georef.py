"""Transforms and CRSs of made files against GDAL and PROJ."""

from __future__ import annotations

import math
import struct
from unittest import mock

import pyproj
import pytest
import rasterio
from rasterio.io import MemoryFile

from rasteret_sql.tiff import crs as crs_module
from rasteret_sql.tiff.crs import read_crs
from rasteret_sql.tiff.header import parse_header

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
MATRIX = (34264, "d", 16, (1.0, 2.0, 0.0, 3.0, 4.0, 5.0, 0.0, 6.0, *[0.0] * 7, 1.0))
CORNERS = (
    0.0,
    0.0,
    0.0,
    5.0,
    6.0,
    0.0,
    8.0,
    0.0,
    0.0,
    13.0,
    6.0,
    0.0,
    0.0,
    8.0,
    0.0,
    5.0,
    -2.0,
    0.0,
)
ZERO_SCALE = (33550, "d", 3, (0.0, 0.0, 0.0))


def _scale(x, y):
    return (33550, "d", 3, (x, y, 0.0))


def _tie(*values):
    return (33922, "d", len(values), values)


ORIGIN = _tie(0.0, 0.0, 0.0, 5.0, 6.0, 0.0)
CASES = {
    "north-up": [_scale(2.0, 3.0), ORIGIN],
    "negative ScaleY": [_scale(2.0, -3.0), ORIGIN],
    "negative ScaleX": [_scale(-2.0, 3.0), ORIGIN],
    "tiepoint inside": [_scale(2.0, 3.0), _tie(1.5, 2.5, 0.0, 5.0, 6.0, 0.0)],
    "two tiepoints": [_scale(2.0, 3.0), _tie(*ORIGIN[3], 8.0, 8.0, 0.0, 100.0, 200.0, 0.0)],
    "two scales": [(33550, "d", 2, (2.0, 3.0)), ORIGIN],
    "one scale": [(33550, "d", 1, (2.0,)), ORIGIN],
    "floats": [(33550, "f", 3, (2.0, 3.0, 0.0)), (33922, "f", 6, ORIGIN[3])],
    "matrix": [MATRIX],
    "matrix of twelve": [(34264, "d", 12, MATRIX[3][:12])],
    "matrix beside a scale": [_scale(2.0, 3.0), ORIGIN, MATRIX],
    "zero scale": [ZERO_SCALE, ORIGIN],
    "zero scale and matrix": [ZERO_SCALE, MATRIX],
    "zero scale and ground control points": [ZERO_SCALE, _tie(*CORNERS)],
    "ground control points": [_tie(*CORNERS)],
    "one tiepoint": [ORIGIN],
}


@pytest.mark.parametrize("is_point", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_transforms_are_gdals_to_the_last_bit(tiff_with, name, is_point):
    keys = [(34735, "H", 8, (1, 1, 0, 1, 1025, 0, 1, 2))] if is_point else []
    data = tiff_with(*CASES[name], *keys)
    georef = parse_header(data).georef
    with MemoryFile(data) as file, file.open() as source:
        assert (georef.affine or IDENTITY) == tuple(source.transform)[:6]
        assert georef.has_gcps is bool(source.gcps[0])
    assert georef.is_pixel_is_point is is_point


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_transform_that_is_no_number_is_none(tiff_with, value):
    georef = parse_header(tiff_with(_scale(value, 3.0), ORIGIN)).georef
    assert georef.affine is None
    assert not georef.has_gcps


def test_a_scale_without_a_tiepoint_is_no_transform(tiff_with):
    assert parse_header(tiff_with(_scale(2.0, 3.0))).georef.affine is None


CRS_TEXTS = (
    *("EPSG:4326", "EPSG:32633", "EPSG:32733", "EPSG:3857", "EPSG:5070", "EPSG:3035"),
    *("EPSG:2193", "EPSG:27700", "EPSG:2263", "EPSG:28992", "EPSG:4807", "EPSG:3413", "EPSG:3031"),
    *("EPSG:21781", "EPSG:2056", "EPSG:3395", "EPSG:6933", "EPSG:31370", "EPSG:26914"),
    *("EPSG:4326+5773", "EPSG:32633+3855", "EPSG:4979", "ESRI:102008"),
    "+proj=sinu +lon_0=0 +R=6371007.181 +units=m",
    "+proj=laea +lat_0=45 +lon_0=-100 +ellps=sphere +units=m",
    "+proj=lcc +lat_0=38.5 +lon_0=-97.5 +lat_1=38.5 +lat_2=30 +R=6370000 +units=m",
    "+proj=lcc +lat_1=46 +lat_0=46 +lon_0=2 +k_0=0.9998 +x_0=6e5 +y_0=2e5 +ellps=bessel",
    "+proj=tmerc +lat_0=1 +lon_0=11 +k=0.99 +x_0=5 +y_0=7 +ellps=intl +units=us-ft",
    "+proj=aea +lat_0=10 +lon_0=-50 +lat_1=-5 +lat_2=-40 +datum=WGS84",
    "+proj=aeqd +lat_0=52 +lon_0=10 +datum=WGS84",
    "+proj=stere +lat_0=90 +lat_ts=75 +lon_0=-45 +datum=WGS84",
    "+proj=stere +lat_0=52 +lon_0=5 +k=0.99 +datum=WGS84",
    "+proj=merc +lat_ts=20 +lon_0=3 +datum=WGS84",
    "+proj=merc +k=0.9 +lon_0=3 +datum=WGS84",
    "+proj=eqc +lat_ts=30 +lon_0=3 +datum=WGS84",
    "+proj=cea +lat_ts=30 +lon_0=3 +datum=WGS84",
    "+proj=cass +lat_0=10 +lon_0=20 +x_0=1 +y_0=2 +ellps=clrk80",
    "+proj=poly +lat_0=0 +lon_0=-54 +x_0=5e6 +y_0=1e7 +ellps=aust_SA",
    "+proj=sterea +lat_0=46.5 +lon_0=-66.5 +k=0.999912 +x_0=2.5e6 +y_0=7.5e6 +datum=NAD83",
    "+proj=gnom +lat_0=40 +lon_0=5 +R=6371000",
    "+proj=ortho +lat_0=40 +lon_0=5 +R=6371000",
    "+proj=robin +lon_0=10 +datum=WGS84",
    "+proj=mill +lon_0=10 +R=6371000",
    "+proj=vandg +lon_0=10 +R=6371000",
    "+proj=eqdc +lat_0=0 +lon_0=5 +lat_1=20 +lat_2=60 +datum=WGS84",
    "+proj=omerc +lat_0=4 +lonc=115 +alpha=53 +gamma=53 +k=0.99984 +no_uoff +ellps=evrstSS",
    "+proj=geos +h=35785831 +lon_0=-75 +sweep=x +datum=WGS84",
    "+proj=longlat +a=6371229 +b=6371229",
    "+proj=longlat +ellps=bessel +pm=ferro",
)  # fmt: skip


@pytest.fixture(scope="module")
def written():
    """Write a file with a CRS through GDAL."""

    def write(text):
        crs = rasterio.CRS.from_user_input(text)
        memory = MemoryFile()
        with memory.open(
            driver="GTiff", width=8, height=8, count=1, dtype="uint8", crs=crs,
            transform=rasterio.Affine(10, 0, 100, 0, -10, 200),
        ):  # fmt: skip
            pass
        return memory

    return write


def _places(crs, points):
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    return [to_degrees.transform(*point) for point in points]


@pytest.mark.parametrize("text", CRS_TEXTS)
def test_what_gdal_writes_is_read_back_as_gdal_reads_it(written, text):
    with written(text) as memory:
        georef = parse_header(memory.read()).georef
        with memory.open() as source:
            theirs = pyproj.CRS.from_wkt(source.crs.to_wkt())
    ours = pyproj.CRS.from_user_input(georef.crs)
    assert ours.is_geographic == theirs.is_geographic
    assert ours.is_compound == theirs.is_compound
    assert ours.ellipsoid.semi_major_metre == pytest.approx(theirs.ellipsoid.semi_major_metre)
    # ten metres, or ten degrees, around the origin of the projection
    points = [(x, y) for x in (-8.0, 0.0, 10.0) for y in (-5.0, 9.0)]
    for one, other in zip(_places(ours, points), _places(theirs, points), strict=True):
        assert one == pytest.approx(other, abs=1e-8, nan_ok=True)
    if text.startswith("EPSG:") and "+" not in text:
        assert georef.epsg == int(text[5:])


def _keys(*entries, doubles=(), text=b""):
    shorts = [1, 1, 0, len(entries), *[number for entry in entries for number in entry]]
    return (
        struct.pack(f"<{len(shorts)}H", *shorts),
        struct.pack(f"<{len(doubles)}d", *doubles),
        text,
        "little",
    )


def test_a_plain_epsg_code_builds_no_crs_object():
    read_crs.cache_clear()
    with mock.patch.object(crs_module.pyproj, "CRS", side_effect=AssertionError("built")):
        found = read_crs(*_keys((1024, 0, 1, 1), (1025, 0, 1, 1), (3072, 0, 1, 32633)))
        geographic = read_crs(*_keys((1024, 0, 1, 2), (2048, 0, 1, 4326)))
    assert (found.epsg, found.text) == (32633, "EPSG:32633")
    assert geographic.epsg == 4326


def test_a_crs_is_made_once_for_all_files_that_share_it():
    keys = _keys((1024, 0, 1, 1), (3072, 0, 1, 2263))
    first = read_crs(*keys)
    with mock.patch.object(crs_module.pyproj, "CRS", side_effect=AssertionError("built again")):
        assert read_crs(*keys) is first
    assert first.epsg == 2263


@pytest.mark.parametrize("key", [2048, 3072])
def test_32767_is_never_a_code(key):
    model = 2 if key == 2048 else 1
    found = read_crs(*_keys((1024, 0, 1, model), (key, 0, 1, 32767)))
    assert found.epsg is None
    assert found.text is None or "32767" not in found.text


@pytest.mark.parametrize(
    "keys",
    [
        _keys(),
        _keys((1025, 0, 1, 2)),
        (b"\x01", b"", b"", "little"),
        (b"\xff" * 40, b"\0" * 7, b"x", "big"),
        _keys((1024, 0, 1, 2), (2048, 0, 1, 32767), (2057, 34736, 1, 0), doubles=(0.0,)),
        _keys((1024, 0, 1, 1), (3072, 34736, 1, 900)),
    ],
)
def test_keys_that_define_nothing_give_no_code(keys):
    assert read_crs(*keys).epsg is None


def test_a_geocentric_crs_is_not_taken_for_a_geographic_one(tiff_with):
    keys = (1, 1, 0, 3, 1024, 0, 1, 3, 2048, 0, 1, 32767, 2050, 0, 1, 6326)
    georef = parse_header(tiff_with((34735, "H", len(keys), keys))).georef
    assert pyproj.CRS.from_user_input(georef.crs).is_geocentric
    assert georef.epsg == 4978


def test_a_code_that_proj_does_not_know_is_told(tiff_with):
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 60999)
    header = parse_header(tiff_with((34735, "H", len(keys), keys)))
    assert header.georef.epsg is None
    assert any("EPSG:60999" in warning for warning in header.warnings)
