"""`rasteret_zonal_stats` beside exactextract, rasterstats and NumPy; requests, columns, errors."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import rasterio.features
import rasterstats
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import JSONFeatureSource
from reading.read_oracle import (
    build_files,
    call_of,
    make_areas,
    opened,
    random_polygon,
    rows_of,
    to_map,
)

import rasteret_sql
from rasteret_sql.errors import InputError
from rasteret_sql.grid.coverage import cell_areas
from rasteret_sql.reading import pipeline
from rasteret_sql.reading.outputs import zone_pieces
from rasteret_sql.reading.outputs import zones as zone_rows
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.tile_store import STORE
from rasteret_sql.units import Affine as OurAffine
from rasteret_sql.units import Window

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
MOMENTS = ["count", "sum", "mean", "min", "max", "stddev", "variance"]
BY_VALUE = ["variety", "majority", "minority", "median", "p05", "p90"]


def write(path, pixels, *, transform=NORTH_UP, crs="EPSG:32643", **options):
    count, height, width = pixels.shape
    options = TILED | options
    if options.get("tiled") is False:
        options = {k: v for k, v in options.items() if not k.startswith("block")}
    with warnings.catch_warnings(), rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, transform=transform, crs=crs, **options,
    ) as file:  # fmt: skip
        warnings.simplefilter("ignore")
        file.write(pixels)
    return path


def noise(shape, dtype="uint16", *, high=60, seed=0):
    values = np.random.default_rng(seed).integers(0, high, shape)
    return (values / 7).astype(dtype) if np.dtype(dtype).kind == "f" else values.astype(dtype)


def zones_over(transform, size, n, seed):
    """Random polygons on a raster, some partly outside, and one that covers it."""
    rng = np.random.default_rng(seed)
    stars = [random_polygon(rng, size * rng.uniform(0.05, 0.9)) for _ in range(n)]
    moved = [shapely.affinity.translate(s, *rng.uniform(-0.3, 0.9, 2) * size) for s in stars]
    everywhere = shapely.box(-5, -5, size + 5, size + 5)
    areas = {f"z{k}": to_map(one, transform) for k, one in enumerate([*moved, everywhere])}
    return {name: one for name, one in areas.items() if not one.is_empty}


def stats_of(con, collection, zones, stats, *, key=("area", "id", "band"), **options):
    call = call_of("rasteret_zonal_stats", collection, zones=zones, stats=stats, **options)
    rows = rows_of(con, f"FROM {call}")
    found = {tuple(row[k] for k in key): {name: row[name] for name in stats} for row in rows}
    assert len(found) == len(rows)
    return found


def near(got, expected, *, rel=1e-9):
    if expected is None or (isinstance(expected, float) and math.isnan(expected)):
        return got is None
    return got is not None and math.isclose(got, expected, rel_tol=rel, abs_tol=1e-9)


RASTERS = {
    "bytes": {"dtype": "uint8", "nodata": 7},
    "integers": {"dtype": "int16"},
    "floats": {"dtype": "float32", "nodata": -1},
    "strips": {"dtype": "uint16", "tiled": False, "nodata": 3},
    "doubles": {"dtype": "float64"},
}


@pytest.fixture(scope="module", params=RASTERS)
def raster(request, tmp_path_factory):
    """A connection with a collection of one random file; its path, and zones on it."""
    folder = tmp_path_factory.mktemp("raster")
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    options = dict(RASTERS[request.param])
    seed = list(RASTERS).index(request.param)
    pixels = noise((1, 150, 170), options.pop("dtype"), seed=seed)
    path = write(folder / "one.tif", pixels, **options)
    build_files(con, "made", {"one": path}, ["b"])
    areas = zones_over(NORTH_UP, 170, 25, seed)
    make_areas(con, "zones", areas)
    yield con, path, areas
    con.close()


def inside_of(path, area, *, touched):
    with opened(path) as file:
        mask = rasterio.features.geometry_mask(
            [area], (file.height, file.width), file.transform, invert=True, all_touched=touched
        )
        return file.read(1), file.read_masks(1) != 0, mask


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "touched"])
def test_equal_numpy_over_rasterio_masks(raster, weights):
    con, path, areas = raster
    stats = [*MOMENTS, *BY_VALUE, "pixel_count", "nodata_count", "weight_sum", "mode"]
    got = stats_of(con, "made", "zones", stats, geometry_crs="EPSG:32643", weights=weights)
    n_rows = 0
    for name, area in areas.items():
        values, valid, inside = inside_of(path, area, touched=weights == "touched")
        if (name, "one", "b") not in got:
            assert not inside.any()
            continue
        n_rows += 1
        row = got[name, "one", "b"]
        own = values[inside & valid].astype(np.float64)
        assert row["pixel_count"] == inside.sum()
        assert row["nodata_count"] == (inside & ~valid).sum()
        assert row["count"] == row["weight_sum"] == len(own)
        if not len(own):
            assert row["mean"] is None
            assert row["median"] is None
            continue
        distinct, counts = np.unique(own, return_counts=True)
        expected = {
            "sum": own.sum(), "mean": own.mean(), "min": own.min(), "max": own.max(),
            "stddev": own.std(), "variance": own.var(), "variety": len(distinct),
            "majority": distinct[counts == counts.max()].max(),
            "minority": distinct[counts == counts.min()].min(),
            "median": np.median(own), "p05": np.quantile(own, 0.05),
            "p90": np.quantile(own, 0.9),
        }  # fmt: skip
        expected["mode"] = expected["majority"]
        for stat, wanted in expected.items():
            assert near(row[stat], float(wanted)), (name, stat, row[stat], wanted)
    assert n_rows == len(got) > 15


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "touched"])
def test_equal_rasterstats(raster, weights):
    con, path, areas = raster
    got = stats_of(
        con, "made", "zones", ["count", "mean", "min", "max", "stddev", "variety"],
        geometry_crs="EPSG:32643", weights=weights,
    )  # fmt: skip
    with warnings.catch_warnings(), opened(path) as file:
        warnings.simplefilter("ignore")
        theirs = rasterstats.zonal_stats(
            list(areas.values()), file.read(1), affine=file.transform, nodata=file.nodata,
            all_touched=weights == "touched",
            stats=["count", "mean", "min", "max", "std", "unique"],
        )  # fmt: skip
    compared = 0
    for name, other in zip(areas, theirs, strict=True):
        row = got.get((name, "one", "b"))
        if row is None or not other["count"]:
            assert not other["count"]
            continue
        compared += 1
        assert row["count"] == other["count"]
        assert row["variety"] == other["unique"]
        for mine, its in (("mean", "mean"), ("min", "min"), ("max", "max"), ("stddev", "std")):
            assert near(row[mine], other[its], rel=1e-5), (name, mine)
    assert compared > 15


EXACT = {
    "count": "count", "sum": "sum", "mean": "mean", "min": "min", "max": "max",
    "stddev": "stdev", "variance": "variance", "variety": "variety", "majority": "majority",
    "minority": "minority",
}  # fmt: skip


def exactextracted(path, areas, operations, **options):
    features = JSONFeatureSource(
        [
            {
                "type": "Feature",
                "properties": {"area": name},
                "geometry": shapely.geometry.mapping(a),
            }
            for name, a in areas.items()
        ],
        srs_wkt=rasterio.crs.CRS.from_epsg(32643).to_wkt(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = exact_extract(str(path), features, operations, include_cols=["area"], **options)
    return {one["properties"]["area"]: one["properties"] for one in found}


@pytest.mark.any_duckdb
def test_fractions_equal_exactextract(raster):
    con, path, areas = raster
    got = stats_of(
        con, "made", "zones", [*EXACT, "frac"], geometry_crs="EPSG:32643", weights="fraction"
    )
    theirs = exactextracted(path, areas, [*EXACT.values(), "unique", "frac"])
    compared = 0
    for name, other in theirs.items():
        row = got.get((name, "one", "b"))
        if row is None or not row["count"]:
            assert not other["count"]
            continue
        compared += 1
        for mine, its in EXACT.items():
            assert near(row[mine], float(other[its]), rel=2e-6), (name, mine)
        shares = dict(zip(other["unique"].tolist(), other["frac"].tolist(), strict=True))
        assert row["frac"].keys() == shares.keys()
        np.testing.assert_allclose(
            list(row["frac"].values()), [shares[v] for v in row["frac"]], rtol=1e-4, atol=1e-7
        )
    assert compared > 15


@pytest.mark.any_duckdb
def test_a_band_as_weight_equals_exactextract(con, tmp_path):
    values, weights = noise((1, 90, 90), "float32"), noise((1, 90, 90), "float32", seed=1)
    path = write(tmp_path / "both.tif", np.concatenate([values, weights]))
    alone = write(tmp_path / "weights.tif", weights)
    build_files(con, "made", {"both": path}, ["v", "w"])
    areas = zones_over(NORTH_UP, 90, 12, 4)
    make_areas(con, "zones", areas)
    got = stats_of(
        con, "made", "zones", ["count", "weight_sum", "mean", "sum", "variance"],
        geometry_crs="EPSG:32643", weights="fraction", bands=["v"], weight_band="w",
    )  # fmt: skip
    single = write(tmp_path / "values.tif", values)
    theirs = exactextracted(
        single, areas, ["count", "weighted_mean", "weighted_sum", "weighted_variance"],
        weights=str(alone),
    )  # fmt: skip
    assert {band for _, _, band in got} == {"v"}
    compared = 0
    for name, other in theirs.items():
        row = got.get((name, "both", "v"))
        if row is None or not row["weight_sum"]:
            continue
        compared += 1
        for mine, its in (
            ("count", "count"), ("mean", "weighted_mean"),
            ("sum", "weighted_sum"), ("variance", "weighted_variance"),
        ):  # fmt: skip
            assert near(row[mine], other[its], rel=1e-5), (name, mine, row[mine], other[its])
    assert compared > 6


@pytest.mark.any_duckdb
def test_areas_are_geodesic(con, tmp_path):
    transform = Affine(0.01, 0, 10, 0, -0.01, 60)
    pixels = noise((1, 80, 80), "uint8")
    path = write(tmp_path / "one.tif", pixels, transform=transform, crs="EPSG:4326")
    build_files(con, "made", {"one": path}, ["b"])
    make_areas(con, "zones", {"all": shapely.box(10, 59.2, 10.8, 60)})
    stats = ["mean", "weight_sum", "area_m2", "count"]
    row = stats_of(con, "made", "zones", stats, weights="area")["all", "one", "b"]
    area = cell_areas(OurAffine(*transform[:6]), "EPSG:4326", Window(0, 80, 0, 80))
    area = np.broadcast_to(area, (80, 80))
    assert near(row["area_m2"], area.sum(), rel=1e-9)
    assert row["area_m2"] == row["weight_sum"]
    assert near(row["mean"], float(np.average(pixels[0], weights=area)), rel=1e-9)
    assert row["count"] == 6400
    centre = stats_of(con, "made", "zones", ["area_m2", "mean"])["all", "one", "b"]
    assert near(centre["area_m2"], area.sum())
    assert near(centre["mean"], float(pixels.mean()))


@pytest.mark.any_duckdb
def test_min_coverage_leaves_pixels_out(con, tmp_path):
    path = write(tmp_path / "one.tif", np.arange(64, dtype="uint8").reshape(1, 8, 8))
    build_files(con, "made", {"one": path}, ["b"])
    make_areas(con, "zones", {"a": to_map(shapely.box(0.5, 0, 3.25, 1), NORTH_UP)})
    options = {"geometry_crs": "EPSG:32643", "weights": "fraction"}
    whole = stats_of(con, "made", "zones", ["count", "sum"], **options)["a", "one", "b"]
    assert whole == {"count": 2.75, "sum": 0 + 1 + 2 + 0.75}
    half = stats_of(
        con, "made", "zones", ["count", "sum", "pixel_count"], min_coverage=0.5, **options
    )
    assert half["a", "one", "b"] == {"count": 2.5, "sum": 3, "pixel_count": 3}
    with pytest.raises(InputError, match="min_coverage: expected weights 'fraction'"):
        rasteret_sql.sql(con, "FROM rasteret_zonal_stats('made', 'zones', min_coverage := 0.5)")


def test_zones_without_data_are_rows_and_zones_outside_are_not(con, tmp_path):
    pixels = noise((1, 64, 64), "uint8") + 1
    pixels[0, :20, :20] = 0
    build_files(con, "made", {"one": write(tmp_path / "one.tif", pixels, nodata=0)}, ["b"])
    areas = {
        "no data": shapely.box(2, 2, 9, 9),
        "between centres": shapely.box(30.6, 30.6, 30.9, 30.9),
        "outside": shapely.box(70, 70, 80, 80),
        "bounds only": shapely.Polygon([(68, 63), (68, 68), (63, 68)]),
        "some": shapely.box(40, 40, 44, 44),
    }
    make_areas(con, "zones", {k: to_map(a, NORTH_UP) for k, a in areas.items()})
    stats = ["count", "mean", "min", "sum", "variety", "nodata_count", "median", "frac"]
    got = stats_of(con, "made", "zones", stats, key=("area",), geometry_crs="EPSG:32643")
    assert {name for (name,) in got} == {"no data", "between centres", "some"}
    empty = {"count": 0, "mean": None, "min": None, "sum": 0, "variety": 0, "median": None}
    assert got[("no data",)] == empty | {"nodata_count": 49, "frac": {}}
    assert got[("between centres",)] == empty | {"nodata_count": 0, "frac": {}}
    assert got[("some",)]["count"] == 16


@pytest.mark.any_duckdb
@pytest.mark.parametrize("scale", [(10, -10), (10, 10), (-10, -10), (-10, 10)])
def test_edges_through_centres_equal_rasterio_whichever_way_is_up(con, tmp_path, scale):
    transform = Affine(scale[0], 0, 500_000, 0, scale[1], 4_000_000)
    path = write(tmp_path / "one.tif", noise((1, 40, 40)), transform=transform)
    build_files(con, "made", {"one": path}, ["b"])
    ring = shapely.box(3.5, 3.5, 20.5, 24.5) - shapely.box(8.5, 9.5, 12.5, 15.5)
    areas = {"ring": ring, "two": shapely.MultiPolygon([shapely.box(22.5, 2.5, 26.5, 6.5), ring])}
    areas = {name: to_map(area, transform) for name, area in areas.items()}
    make_areas(con, "zones", areas)
    options = {"geometry_crs": "EPSG:32643"}
    got = stats_of(con, "made", "zones", ["count", "sum"], **options)
    pixels = call_of("rasteret_pixels", "made", aois="zones", **options)
    again = dict(con.execute(f"SELECT area, sum(b) FROM {pixels} GROUP BY 1").fetchall())
    for name, area in areas.items():
        values, _, inside = inside_of(path, area, touched=False)
        wanted = {"count": inside.sum(), "sum": values[inside].sum()}
        assert got[name, "one", "b"] == wanted
        assert again[name] == wanted["sum"]


@pytest.mark.any_duckdb
@pytest.mark.parametrize("far", [2e7, 1e8])
def test_a_zone_beyond_the_map_takes_no_rows_from_others(con, tmp_path, far):
    path = write(tmp_path / "one.tif", noise((1, 50, 50)))
    build_files(con, "made", {"one": path}, ["b"])
    near_by, wide = shapely.box(2, 2, 9, 9), shapely.box(-far, -far, far, far)
    areas = {"z": to_map(near_by, NORTH_UP), "far": wide}
    make_areas(con, "zones", areas)
    got = stats_of(con, "made", "zones", ["count"], geometry_crs="EPSG:32643")
    assert got["z", "one", "b"] == {"count": 49}
    assert got["far", "one", "b"] == {"count": 2500}


def test_scaled_values(con, tmp_path):
    path = tmp_path / "one.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=32, width=32, dtype="int16",
        crs="EPSG:32643", transform=NORTH_UP, **TILED,
    ) as file:  # fmt: skip
        pixels = noise((1, 32, 32), "int16")
        file.write(pixels)
        file.scales, file.offsets = [-0.5], [10.0]
    build_files(con, "made", {"one": path}, ["b"])
    make_areas(con, "zones", {"all": to_map(shapely.box(0, 0, 32, 32), NORTH_UP)})
    options = {"geometry_crs": "EPSG:32643", "stats": ["min", "max", "mean"], "scaled": True}
    row = stats_of(con, "made", "zones", **options)["all", "one", "b"]
    wanted = pixels * -0.5 + 10
    assert row == {"min": wanted.min(), "max": wanted.max(), "mean": pytest.approx(wanted.mean())}


SCENES = {
    "bytes": ("uint8", NORTH_UP, {"nodata": 5}),
    "wide": ("int16", Affine(20, 0, 499_800, 0, -20, 4_000_200), {}),
    "turned": ("float32", Affine(8, 6, 500_100, 6, -8, 3_999_900), {"nodata": 0}),
    "hidden": ("uint8", NORTH_UP, {"mask": True}),
    "sparse": ("uint16", NORTH_UP, {"sparse_ok": True, "nodata": 0}),
    "twin": ("uint8", NORTH_UP, {}),
    "away": ("uint8", Affine(10, 0, 900_000, 0, -10, 4_000_000), {}),
}


@pytest.fixture(scope="module")
def unlike(tmp_path_factory):
    """Scenes of several types, grids and ways to say that there is no data; zones over them."""
    folder, files = tmp_path_factory.mktemp("unlike"), {}
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    for seed, (name, (dtype, transform, options)) in enumerate(SCENES.items()):
        options = dict(options)
        has_mask = options.pop("mask", False)
        path = folder / f"{name}.tif"
        pixels = noise((1, 120, 130), dtype, seed=seed)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
            path, "w", driver="GTiff", count=1, height=120, width=130, dtype=dtype,
            crs="EPSG:32643", transform=transform, **TILED, **options,
        ) as file:  # fmt: skip
            if "sparse_ok" in options:
                file.write(pixels[:, :40], window=rasterio.windows.Window(0, 0, 130, 40))
            else:
                file.write(pixels)
            if has_mask:
                file.write_mask(noise((120, 130), "uint8", high=2) * 255)
        files[name] = path
    build_files(con, "made", files, ["b"])
    make_areas(con, "zones", zones_over(NORTH_UP, 130, 30, 11))
    yield con
    con.close()


@pytest.mark.parametrize(
    "weights",
    [
        "center",
        pytest.param("touched", marks=pytest.mark.any_duckdb),
        pytest.param("fraction", marks=pytest.mark.any_duckdb),
    ],
)
def test_scenes_of_unlike_grid_and_type_equal_sql_over_pixels(unlike, weights):
    exact, options = weights == "fraction", {"geometry_crs": "EPSG:32643"}
    stats = ["count", "sum", "mean", "min", "max", "variety", "nodata_count"]
    got = stats_of(unlike, "made", "zones", stats, key=("area", "id"), weights=weights, **options)
    pixels = call_of(
        "rasteret_pixels", "made", aois="zones", all_touched=weights == "touched",
        coverage=exact, **options,
    )  # fmt: skip
    c = "coverage" if exact else "1"
    wanted = unlike.execute(
        f"SELECT area, id, coalesce(sum({c}) FILTER (b IS NOT NULL), 0), "
        f"coalesce(sum(b::DOUBLE * {c}), 0), "
        f"sum(b::DOUBLE * {c}) / sum({c}) FILTER (b IS NOT NULL), "
        f"min(b), max(b), count(DISTINCT b), count(*) - count(b) FROM {pixels} GROUP BY ALL"
    ).fetchall()
    wanted = {row[:2]: row[2:] for row in wanted}
    assert len(wanted) > 100
    assert wanted.keys() <= got.keys()
    assert {name for _, name in wanted} == SCENES.keys() - {"away"}
    for key, row in got.items():
        expected = dict(zip(stats, wanted.get(key, (0, 0, None, None, None, 0, 0)), strict=True))
        for stat in stats:
            assert near(row[stat], expected[stat], rel=1e-6), (key, stat, row, expected)


def test_a_record_without_a_crs_is_a_row_that_says_so(con, tmp_path):
    good = write(tmp_path / "good.tif", noise((1, 32, 32), "uint8"))
    bare = write(tmp_path / "bare.tif", noise((1, 32, 32), "uint8"), crs=None)
    build_files(con, "made", {"good": good, "bare": bare}, ["b"])
    make_areas(con, "zones", {"all": to_map(shapely.box(0, 0, 32, 32), NORTH_UP)})
    call = call_of("rasteret_zonal_stats", "made", zones="zones", on_error="report",
                   geometry_crs="EPSG:32643", stats=["count"])  # fmt: skip
    rows = con.execute(f"SELECT id, area, band, count, error FROM {call} ORDER BY id").fetchall()
    assert rows[1] == ("good", "all", "b", 1024, None)
    assert rows[0][:4] == ("bare", None, "b", None)
    assert "expected a raster with a CRS" in rows[0][4]


# Requests


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "fraction"])
def test_each_tile_is_requested_and_decoded_once_for_all_zones(s2, server, monkeypatch, weights):
    decoded = []
    original = pipeline.decode_block
    monkeypatch.setattr(
        pipeline, "decode_block", lambda *a, **k: decoded.append(1) or original(*a, **k)
    )
    rng = np.random.default_rng(5)
    west, south, size = 77.98, 12.995, 0.05
    zones = {
        f"z{k}": shapely.affinity.affine_transform(
            random_polygon(rng, 1.0), [size, 0, 0, size, west, south]
        )
        for k in range(40)
    }
    make_areas(s2, "zones", zones)
    STORE.clear()
    server.reset()
    call = call_of(
        "rasteret_zonal_stats", "s2", zones="zones", bands=["B04", "SCL"], weights=weights,
        stats=["mean", "majority"],
    )  # fmt: skip
    rows = s2.execute(f"FROM {call}").fetchall()
    asked = list(server.requests())
    plan = s2.execute(
        "SELECT count(DISTINCT (href, request)), count(*) FROM "
        + call_of("rasteret_plan", "s2", aois="zones", bands=["B04", "SCL"])
    ).fetchall()[0]
    assert len(rows) > 200
    assert len(asked) == plan[0] > 0
    assert len(decoded) == plan[1] >= plan[0]


def test_nothing_is_requested_for_other_columns_and_less_for_fewer_bands(n_requests):
    zones = (
        "'SELECT ''x'' AS name, ''POLYGON((77.985 13.0, 78.0 13.0, 78.0 13.02, 77.985 13.0))'' "
        "AS geometry'"
    )
    call = f"rasteret_zonal_stats('s2', {zones}, bands := ['B04', 'B08'], stats := ['mean'])"
    both, rows = n_requests(f"FROM {call}")
    none, counted = n_requests(f"SELECT count(*) FROM {call}")
    one, half = n_requests(f"FROM {call} WHERE band = 'B08'")
    few, picked = n_requests(f"FROM {call} WHERE id = (SELECT min(id) FROM s2)")
    assert none == 0
    assert counted == [(len(rows),)]
    assert both == 2 * one > 0
    assert len(half) * 2 == len(rows)
    assert 0 < few <= both
    assert 2 <= len(picked) < len(rows)


# Columns


def test_columns_of_zones_come_through(s2):
    s2.execute(
        "CREATE TABLE parcels AS SELECT * FROM (VALUES (7, 'rice', 1.5, "
        "'POLYGON((77.985 13.0, 78.0 13.0, 78.0 13.02, 77.985 13.0))')) "
        "AS p(id, crop, count, geometry)"
    )
    rows = rows_of(s2, "FROM rasteret_zonal_stats('s2', 'parcels', bands := ['B04'])")
    assert len(rows) == 6
    row = rows[0]
    assert (row["zone_id"], row["crop"], row["zone_count"], row["band"]) == (7, "rice", 1.5, "B04")
    assert row["count"] > 0
    assert isinstance(row["id"], str)
    assert row["mean"] > 0


@pytest.mark.parametrize("kind", ["TEMP TABLE", "registered"])
def test_private_relations_are_zones(s2, kind):
    geometry = shapely.from_wkt("POLYGON((77.985 13.0, 78.0 13.0, 78.0 13.02, 77.985 13.0))")
    make_areas(s2, "public_zones", {"a": geometry})
    if kind == "registered":
        s2.register("mine", pa.table({"area": ["a"], "geom": [geometry.wkb]}))
    else:
        make_areas(s2, "mine", {"a": geometry}, kind)
    query = "SELECT area, id, band, count, mean FROM rasteret_zonal_stats('s2', '{}') ORDER BY ALL"
    got = s2.execute(query.format("mine")).fetchall()
    assert got == s2.execute(query.format("public_zones")).fetchall()
    assert len(got) == 18


def test_without_zones_the_area_or_the_raster_is_the_zone(con, tmp_path):
    pixels = noise((1, 40, 40), "uint8")
    build_files(con, "made", {"one": write(tmp_path / "one.tif", pixels)}, ["b"])
    query = "SELECT count, sum FROM rasteret_zonal_stats('made', NULL, stats := ['count', 'sum']{})"
    assert con.execute(query.format("")).fetchall() == [(1600, pixels.sum())]
    box = list(to_map(shapely.box(0, 0, 10, 10), NORTH_UP).bounds)
    got = con.execute(query.format(f", bbox := {box}, geometry_crs := 'EPSG:32643'")).fetchall()
    assert got == [(100, pixels[0, :10, :10].sum())]


# Errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("stats := ['average']", "stats: expected names of count, .*average"),
        ("stats := []", "stats: expected a list of statistics"),
        ("weights := 'half'", "weights: expected 'center', 'touched', 'fraction' or 'area'"),
        ("weights := 'fraction', min_coverage := 2", "min_coverage: expected a share"),
        ("weight_band := 'none'", "none"),
    ],
)
def test_arguments_are_checked(s2, arguments, told):
    with pytest.raises(rasteret_sql.errors.RasteretError, match=told):
        rasteret_sql.sql(
            s2,
            f"FROM rasteret_zonal_stats('s2', 'SELECT ''POINT(1 1)'' AS geometry', {arguments})",
        )


def test_what_is_no_geometry_is_no_zone(s2):
    with pytest.raises(InputError, match="zones, row 1"):
        rasteret_sql.sql(
            s2, "FROM rasteret_zonal_stats('s2', 'SELECT ''POINT(nan 13)'' AS geometry')"
        ).fetchall()
    told = "row 1: geometry: expected .*, got 'west'; name the column of geometries"
    with pytest.raises(InputError, match=told):
        rasteret_sql.sql(
            s2, "FROM rasteret_zonal_stats('s2', 'SELECT ''west'' AS geometry')"
        ).fetchall()
    with pytest.raises(InputError, match=r"stats: expected names of count, .*, p05, got 'area'"):
        rasteret_sql.sql(s2, "FROM rasteret_zonal_stats('s2', NULL, stats := ['area'])").fetchall()


def test_a_tile_that_cannot_be_read_concerns_its_zones_alone(con, tmp_path):
    pixels = noise((1, 64, 64), "uint8")
    path = write(tmp_path / "one.tif", pixels)
    build_files(con, "made", {"one": path}, ["b"])
    ((offset, size),) = con.execute(
        "SELECT byte_offset, byte_count FROM rasteret_plan('made') WHERE tile_row = 0 "
        "AND tile_col = 0"
    ).fetchall()
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    path.write_bytes(bytes(data))
    STORE.clear()
    boxes = {"bad": shapely.box(3, 3, 9, 9), "across": shapely.box(20, 20, 40, 40),
             "good": shapely.box(40, 40, 50, 50)}  # fmt: skip
    make_areas(con, "zones", {k: to_map(a, NORTH_UP) for k, a in boxes.items()})
    options = {"key": ("area",), "geometry_crs": "EPSG:32643"}
    got = stats_of(con, "made", "zones", ["count", "sum"], on_error="null", **options)
    assert got[("bad",)] == got[("across",)] == {"count": None, "sum": None}
    assert got[("good",)] == {"count": 100, "sum": pixels[0, 40:50, 40:50].sum()}
    call = call_of("rasteret_zonal_stats", "made", zones="zones", on_error="report",
                   geometry_crs="EPSG:32643")  # fmt: skip
    told = dict(con.execute(f"SELECT area, error FROM {call}").fetchall())
    assert told["good"] is None
    assert told["bad"].startswith("b: ")
    assert told["across"]
    with pytest.raises(rasteret_sql.errors.RasteretError, match="record one, band b"):
        rasteret_sql.sql(con, "FROM " + call.replace("'report'", "'error'")).fetchall()


def test_weights_below_zero_are_refused(con, tmp_path):
    pixels = np.concatenate([noise((1, 32, 32), "int16"), noise((1, 32, 32), "int16") - 30])
    build_files(con, "made", {"one": write(tmp_path / "one.tif", pixels)}, ["v", "w"])
    make_areas(con, "zones", {"all": to_map(shapely.box(0, 0, 32, 32), NORTH_UP)})
    call = call_of("rasteret_zonal_stats", "made", zones="zones", geometry_crs="EPSG:32643",
                   bands=["v"], weight_band="w", on_error="error")  # fmt: skip
    with pytest.raises(InputError, match="band w: expected weights of 0 or more, got -30"):
        rasteret_sql.sql(con, f"FROM {call}").fetchall()
    null = con.execute("SELECT mean FROM " + call.replace("'error'", "'null'")).fetchall()
    assert null == [(None,)]


def cut_small(monkeypatch, at_once):
    """Make plans, groups, pieces and batches of rows small."""
    original = Planner.__init__
    monkeypatch.setattr(zone_rows, "_GROUP_BYTES", 20_000)
    monkeypatch.setattr(zone_pieces, "_PIECE_PIXELS", 500)
    monkeypatch.setattr(zone_rows, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(
        Planner, "__init__",
        lambda self, *a, **k: original(self, *a, **k | {"at_once": at_once}),
    )  # fmt: skip


@pytest.mark.any_duckdb
def test_a_zone_of_many_tiles_and_plans(con, tmp_path, monkeypatch):
    """Plans and groups that end inside of zones change nothing."""
    pixels = noise((1, 300, 300), "uint16", seed=3)
    build_files(con, "made", {"one": write(tmp_path / "one.tif", pixels, blockxsize=16,
                                           blockysize=16)}, ["b"])  # fmt: skip
    areas = zones_over(NORTH_UP, 300, 30, 9)
    make_areas(con, "zones", areas)
    stats = ["count", "sum", "median", "stddev", "max", "p90", "frac"]
    options = {"geometry_crs": "EPSG:32643", "weights": "fraction"}
    at_once = stats_of(con, "made", "zones", stats, **options)
    STORE.clear()
    cut_small(monkeypatch, at_once=40)
    piecewise = stats_of(con, "made", "zones", stats, **options)
    assert at_once.keys() == piecewise.keys()
    assert len(at_once) > 20
    for key, row in at_once.items():
        other = piecewise[key]
        assert row["frac"].keys() == other["frac"].keys()
        for stat in stats[:-1]:
            assert near(other[stat], row[stat], rel=1e-12), (key, stat)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("at_once", [20, 150, 600])
def test_plans_of_scenes_of_unlike_type_follow_each_other(unlike, monkeypatch, at_once):
    stats = ["count", "mean", "min", "median", "variety"]
    options = {"geometry_crs": "EPSG:32643", "weights": "touched"}
    STORE.clear()
    whole = stats_of(unlike, "made", "zones", stats, **options)
    cut_small(monkeypatch, at_once)
    piecewise = stats_of(unlike, "made", "zones", stats, **options)
    assert whole.keys() == piecewise.keys()
    assert {scene for _, scene, _ in whole} == SCENES.keys() - {"away"}
    for key, row in whole.items():
        assert all(near(piecewise[key][stat], row[stat], rel=1e-12) for stat in stats), key


def test_the_page_says_what_comes_out(s2):
    page = (Path(__file__).parents[2] / "docs" / "zones.md").read_text(encoding="utf-8")
    areas, clear, roads = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    table, query = areas.strip().split(";\n\n")
    s2.execute(table)
    for statement, n_rows in ((query, 4), (clear, 3), (roads, 1)):
        rows = s2.execute(statement).fetchall()
        lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
        assert len(lines) == n_rows
        assert "\n".join(lines) in page, lines
