"""Lines and points as zones: the pixels of GDAL's rasterizer, the lengths of exactextract."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import JSONFeatureSource
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reading.read_oracle import build_files, call_of, make_areas, opened, rows_of, to_map

import rasteret_sql
from examples import examples
from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, crs_of
from rasteret_sql.grid.reproject import reproject
from rasteret_sql.reading import pipeline
from rasteret_sql.reading.tile_store import STORE

TRANSFORMS = {
    "north-up": Affine(10, 0, 500_000, 0, -10, 4_000_000),
    "oblong": Affine(10, 0, 500_000, 0, -25, 4_000_000),
    "south-up": Affine(10, 0, 500_000, 0, 10, 4_000_000),
}
SIZE, TILE, PAD = 100, 32, 30
STATS = ["count", "sum", "mean", "min", "max", "stddev", "pixel_count"]
THEIRS = ["count", "sum", "mean", "min", "max", "stdev"]

# Vertices lie on no edge of a pixel: GDAL leaves pixels out where a line runs along an edge.
across = st.integers(-15 * 50, (SIZE + 15) * 50).map(lambda n: n / 50 + 0.0037)
down = st.integers(-15 * 50, (SIZE + 15) * 50).map(lambda n: n / 50 + 0.0041)
vertices = st.lists(st.tuples(across, down), min_size=2, max_size=6, unique=True)
lines = st.one_of(
    vertices.map(shapely.LineString),
    st.lists(vertices, min_size=2, max_size=3).map(shapely.MultiLineString),
)
points = st.lists(st.tuples(across, down), min_size=1, max_size=5).map(shapely.MultiPoint)
drawn_zones = st.lists(st.one_of(lines, lines, points), min_size=5, max_size=25)
several = settings(
    max_examples=examples(6, 10), deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(params=TRANSFORMS)
def raster(request, con, tmp_path):
    """A collection of one file of small tiles, some pixels without data."""
    return con, made(con, tmp_path, TRANSFORMS[request.param]), TRANSFORMS[request.param]


def made(con, folder, transform):
    path = folder / "one.tif"
    pixels = np.random.default_rng(1).integers(0, 200, (1, SIZE, SIZE)).astype("int16")
    with warnings.catch_warnings(), rasterio.open(
        path, "w", driver="GTiff", count=1, height=SIZE, width=SIZE, dtype="int16", tiled=True,
        blockxsize=TILE, blockysize=TILE, transform=transform, crs="EPSG:32643", nodata=7,
    ) as file:  # fmt: skip
        warnings.simplefilter("ignore")
        file.write(pixels)
    build_files(con, "made", {"one": path}, ["b"])
    return path


def stats_of(con, zones, **options):
    make_areas(con, "zones", zones)
    options = {"stats": STATS, "geometry_crs": "EPSG:32643"} | options
    call = call_of("rasteret_zonal_stats", "made", zones="zones", **options)
    rows = rows_of(con, f"FROM {call}")
    found = {row["area"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def burnt(path, shape, *, touched):
    """Values, which hold data, and the pixels that GDAL burns: on a larger raster, as it
    writes outside of its memory where a touched line leaves the raster."""
    with opened(path) as file:
        size = (SIZE + 2 * PAD, SIZE + 2 * PAD)
        mask = rasterio.features.rasterize(
            [(shape, 1)], size, transform=file.transform * Affine.translation(-PAD, -PAD),
            all_touched=touched, dtype="uint8",
        )  # fmt: skip
        inner = mask[PAD:-PAD, PAD:-PAD] != 0
        return file.read(1), file.read_masks(1) != 0, inner


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "touched"])
@several
@given(drawn=drawn_zones)
def test_lines_and_points_burn_the_pixels_of_gdal(raster, weights, drawn):
    con, path, transform = raster
    zones = {f"z{n}": to_map(one, transform) for n, one in enumerate(drawn)}
    got = stats_of(con, zones, weights=weights)
    for name, zone in zones.items():
        values, valid, mask = burnt(path, zone, touched=weights == "touched")
        row = got.get(name)
        if row is None:
            assert not mask.any(), zone.wkt
            continue
        own = values[mask & valid].astype(float)
        assert row["pixel_count"] == mask.sum(), zone.wkt
        assert row["count"] == len(own)
        if len(own):
            assert (row["sum"], row["min"], row["max"]) == (own.sum(), own.min(), own.max())
            assert row["mean"] == pytest.approx(own.mean(), rel=1e-12)
            assert row["stddev"] == pytest.approx(own.std(), rel=1e-9, abs=1e-9)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("raster", ["north-up", "oblong"], indirect=True)  # exactextract's limit
@several
@example(drawn=[shapely.LineString([(0.0037, 0.0041), (0.0037, 0.0241)])] * 5)
@example(drawn=[shapely.LineString([(0.0037, 0.0041), (0.0237, 0.0041), (-0.0163, 0.0041)])] * 5)
@example(
    drawn=[
        shapely.MultiLineString([[(0.2, 0.1), (0.2, 0.3)], [(0.2, 0.1), (0.4, 0.3)]]),
        shapely.MultiLineString([[(0.2, 0.1), (0.2, 0.3)], [(0.2, 0.1), (3.4, 0.3)]]),
    ]
    * 3
)
@given(drawn=st.lists(lines, min_size=5, max_size=25))
def test_fractions_of_lines_are_lengths_as_in_exactextract(raster, drawn):
    con, path, transform = raster
    zones = {f"z{n}": to_map(one, transform) for n, one in enumerate(drawn)}
    got = stats_of(con, zones, weights="fraction")
    features = [
        {
            "type": "Feature",
            "properties": {"area": k},
            "geometry": json.loads(shapely.to_geojson(z)),
        }
        for k, z in zones.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = exact_extract(
            str(path), JSONFeatureSource(features, srs_wkt=None), THEIRS, include_cols=["area"]
        )
    for one in theirs:
        other = one["properties"]
        row = got.get(other["area"])
        if row is None or not row["count"]:
            assert not other["count"]
            continue
        zone = zones[other["area"]]
        if row["count"] != pytest.approx(other["count"], rel=2e-5):
            # exactextract passes over a part that lies in one pixel of the raster
            length = lengths_of(path, transform, zone)
            assert row["count"] == pytest.approx(length, rel=1e-6), zone.wkt
            continue
        for mine, its in zip(STATS, THEIRS, strict=False):
            near = pytest.approx(other[its], rel=2e-5, abs=2e-3 if mine == "stddev" else 1e-9)
            assert row[mine] == near, (mine, zone.wkt)


def lengths_of(path, transform, line):
    """Length of a line on the valid pixels of a raster, by shapely."""
    with opened(path) as file:
        mask, frame = file.read_masks(1) != 0, shapely.box(*file.bounds)
    rows, cols = np.nonzero(~mask)
    boxes = [shapely.box(c, r, c + 1, r + 1) for r, c in zip(rows, cols, strict=True)]
    holes = shapely.union_all(to_map(shapely.MultiPolygon(boxes), transform))
    ends = [zip(part.coords, part.coords[1:], strict=False) for part in shapely.get_parts(line)]
    pieces = shapely.linestrings([pair for pairs in ends for pair in pairs])  # may overlap
    inside, nothing = shapely.intersection(pieces, frame), shapely.intersection(pieces, holes)
    return (shapely.length(inside) - shapely.length(nothing)).sum()


def test_the_count_of_a_line_is_its_length_on_the_map_by_shapely(con, tmp_path):
    transform = TRANSFORMS["oblong"]
    path = made(con, tmp_path, transform)
    rng = np.random.default_rng(3)
    zones = {
        f"z{n}": to_map(shapely.LineString(rng.uniform(-20, 120, (5, 2))), transform)
        for n in range(20)
    }
    got = stats_of(con, zones, weights="fraction", stats=["count", "weight_sum"])
    assert len(got) == 20
    for name, line in zones.items():
        length = lengths_of(path, transform, line)
        assert got[name]["count"] == pytest.approx(length, rel=1e-6)
        assert got[name]["weight_sum"] == got[name]["count"]


def test_zones_of_several_kinds_in_one_table(raster):
    con, path, transform = raster
    zones = {
        "polygon": shapely.box(10, 10, 20, 30),
        "line": shapely.LineString([(10.5, 10.5), (10.5, 29.5)]),
        "point": shapely.Point(10.5, 10.5),
        "points": shapely.MultiPoint([(10.5, 10.5), (10.7, 10.2), (90.5, 90.5)]),
        "both": shapely.GeometryCollection(
            [shapely.Point(90, 90), shapely.LineString([(10.5, 10.5), (10.5, 29.5)])]
        ),
        "no length": shapely.LineString([(10.5, 10.5), (10.5, 10.5)]),
        "outside": shapely.LineString([(-5, 10), (-5, 20)]),
    }
    got = stats_of(
        con, {k: to_map(z, transform) for k, z in zones.items()}, stats=["pixel_count", "sum"]
    )
    counts = {name: row["pixel_count"] for name, row in got.items()}
    assert counts == {
        "polygon": 200, "line": 20, "point": 1, "points": 2, "both": 20, "no length": 1,
    }  # fmt: skip
    with opened(path) as file:
        values, valid = file.read(1).astype(float), file.read_masks(1) != 0
    assert got["point"]["sum"] == (values[10, 10] if valid[10, 10] else None)
    assert got["both"]["sum"] == got["line"]["sum"]


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "touched", "fraction"])
def test_lines_in_degrees_are_those_in_the_crs_of_the_raster(con, tmp_path, weights):
    transform = TRANSFORMS["north-up"]
    made(con, tmp_path, transform)
    rng = np.random.default_rng(8)
    zones = {
        f"z{n}": to_map(shapely.LineString(rng.uniform(0, 100, (4, 2))), transform)
        for n in range(10)
    }
    zones |= {f"p{n}": to_map(shapely.Point(rng.uniform(0, 100, 2)), transform) for n in range(9)}
    utm, lonlat = crs_of("EPSG:32643"), crs_of(LONLAT)
    degrees = {name: reproject(zone, utm, lonlat) for name, zone in zones.items()}
    mapped = stats_of(con, zones, weights=weights)
    got = stats_of(con, degrees, weights=weights, geometry_crs=None)
    assert got.keys() == mapped.keys() == zones.keys()
    for name, row in mapped.items():
        near = 1e-5 if weights == "fraction" else 0.0 if name[0] == "p" else 0.05
        assert got[name]["count"] == pytest.approx(row["count"], rel=near), name
        assert type(zones[name]) is shapely.Point or degrees[name].geom_type == "LineString"


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "touched", "fraction"])
def test_each_tile_under_lines_is_decoded_once_and_no_other(con, tmp_path, monkeypatch, weights):
    decoded = []
    original = pipeline.decode_block
    monkeypatch.setattr(
        pipeline, "decode_block", lambda *a, **k: decoded.append(1) or original(*a, **k)
    )
    transform = TRANSFORMS["north-up"]
    path = made(con, tmp_path, transform)
    zones = {  # tiles in the corners, and those along the upper left diagonal
        "a": shapely.LineString([(3.2, 3.1), (60.7, 55.3)]),
        "b": shapely.LineString([(60.2, 3.1), (3.2, 50.4), (7.7, 7.2)]),
        "c": shapely.Point(98.5, 98.5),
    }
    zones = {name: to_map(zone, transform) for name, zone in zones.items()}
    masks = [burnt(path, zone, touched=weights != "center")[2] for zone in zones.values()]
    rows, cols = np.nonzero(np.any(masks, axis=0))
    tiles = set(zip((rows // TILE).tolist(), (cols // TILE).tolist(), strict=True))
    STORE.clear()
    assert stats_of(con, zones, weights=weights).keys() == zones.keys()
    assert len(decoded) == len(tiles) == 5


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("shape", "arguments", "told"),
    [
        (
            "LINESTRING(0 0, 9 9)",
            {"weights": "area"},
            "polygons for weights := 'area', got 'LineString'",
        ),
        (
            "POINT(1 1)",
            {"weights": "area"},
            "polygons for weights := 'area', got 'Point'; .*buffer",
        ),
        ("POINT(1 1)", {"weights": "fraction", "min_coverage": 0.5}, "polygons for min_coverage"),
        (
            "LINESTRING(0 0, 9 9)",
            {"weights": "fraction", "stats": ["area_m2"]},
            "polygons for area_m2 with weights := 'fraction', got 'LineString'; take weights",
        ),
    ],
)
def test_what_lines_and_points_lack_is_refused(con, tmp_path, shape, arguments, told):
    made(con, tmp_path, TRANSFORMS["north-up"])
    make_areas(con, "zones", {"z": shapely.from_wkt(shape)})
    call = call_of(
        "rasteret_zonal_stats", "made", zones="zones", geometry_crs="EPSG:32643", **arguments
    )
    with pytest.raises(InputError, match=f"zones: expected {told}"):
        rasteret_sql.sql(con, f"FROM {call}").fetchall()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "touched"])
@pytest.mark.parametrize("crs", ["EPSG:32643", "EPSG:4326"])
def test_a_part_without_length_burns_its_pixel(con, tmp_path, weights, crs):
    transform = TRANSFORMS["north-up"]
    path = made(con, tmp_path, transform)
    line, dot = [(3.3, 40.7), (17.2, 61.1)], [(80.4, 9.3), (80.4, 9.3)]
    zones = {
        "with": shapely.MultiLineString([line, dot]), "without": shapely.LineString(line)
    }  # fmt: skip
    zones = {name: to_map(zone, transform) for name, zone in zones.items()}
    values, valid, mask = burnt(path, zones["with"], touched=weights == "touched")
    if crs != "EPSG:32643":
        zones = {k: reproject(z, crs_of("EPSG:32643"), crs_of(crs)) for k, z in zones.items()}
    rows = stats_of(con, zones, weights=weights, geometry_crs=crs)
    assert mask[9, 80]
    assert rows["with"]["pixel_count"] == rows["without"]["pixel_count"] + 1
    assert rows["with"]["sum"] == rows["without"]["sum"] + values[9, 80]
    if crs == "EPSG:32643":
        assert rows["with"]["pixel_count"] == mask.sum()
        assert rows["with"]["sum"] == values[mask & valid].sum()
