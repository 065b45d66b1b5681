"""Statistics of zones: NumPy, rasterstats, exactextract and `pyproj.Geod`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pyproj
import rasterio
import rasterio.features
import shapely
from reading import (
    test_zones,
)
from reading.agreements.cases import (
    Bench,
    Row,
)
from reading.read_oracle import (
    build_files,
    make_areas,
    opened,
    to_map,
)

from rasteret_sql.reading.tile_store import STORE


def zonal_stats(bench: Bench) -> Iterator[Row]:
    """Statistics of zones."""
    relative = "within 1e-9, relative"
    numpy = "NumPy over `geometry_mask`"
    rows = {
        "center": Row("rasteret_zonal_stats", "`'center'`: 16 statistics", numpy, relative),
        "touched": Row("rasteret_zonal_stats", "`'touched'`: 16 statistics", numpy, relative),
        "stats": Row("rasteret_zonal_stats", "`'center'`, `'touched'`: 6 statistics",
                     "rasterstats", "within 1e-5, relative (it adds float32)"),
        "exact": Row("rasteret_zonal_stats", "`'fraction'`: 10 statistics", "exactextract",
                     "within 2e-6, relative (coverage is float32)"),
        "frac": Row("rasteret_zonal_stats", "`'fraction'`: `frac`", "exactextract",
                    "within 1e-6"),
        "quantiles": Row("rasteret_zonal_stats", "`'fraction'`: quantiles",
                         "NumPy over exactextract's coverage", "within 1e-6, relative"),
        "weights": Row("rasteret_zonal_stats", "`weight_band`", "exactextract",
                       "within 1e-5, relative"),
        "area": Row("rasteret_zonal_stats", "`'area'`: weights in square metres",
                    "`pyproj.Geod` of each cell cut out by shapely", "within 1e-6, relative"),
    }  # fmt: skip
    for number in range(bench.cases):
        names = list(test_zones.RASTERS)
        options = dict(test_zones.RASTERS[names[number % len(names)]])
        seed = int(bench.rng.integers(10_000))
        values = test_zones.noise((1, 110, 130), options.pop("dtype"), seed=seed)
        path = test_zones.write(bench.folder / "zones.tif", values, **options)
        build_files(bench.con, "made", {"one": path}, ["b"])
        areas = test_zones.zones_over(test_zones.NORTH_UP, 130, 15, seed)
        make_areas(bench.con, "zones", areas)
        STORE.clear()
        case = f"{names[number % len(names)]}, seed {seed}"
        for weights in ("center", "touched"):
            _zones_by_mask(bench, rows, path, areas, weights, case)
        _zones_by_share(bench, rows, path, areas, case)
        _zones_by_band(bench, rows["weights"], seed)
        _zones_by_area(bench, rows["area"], seed)
    yield from rows.values()


def _zones_by_mask(bench, rows, path, areas, weights, case):
    row = rows[weights]
    names = [*test_zones.MOMENTS, *test_zones.BY_VALUE, "pixel_count", "nodata_count", "mode"]
    got = test_zones.stats_of(
        bench.con, "made", "zones", names, geometry_crs="EPSG:32643", weights=weights
    )
    row.calls += 1
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = test_zones.rasterstats.zonal_stats(
            list(areas.values()), file.read(1), affine=file.transform, nodata=file.nodata,
            all_touched=weights == "touched",
            stats=["count", "mean", "min", "max", "std", "unique"],
        )  # fmt: skip
    rows["stats"].calls += 1
    for (name, area), other in zip(areas.items(), theirs, strict=True):
        told = f"{case}, zone {name}, weights {weights}"
        values, valid, inside = test_zones.inside_of(path, area, touched=weights == "touched")
        one = got.get((name, "one", "b"))
        if one is None:
            row.expect(told, holds=not inside.any(), told="no row for a zone with pixels")
            rows["stats"].expect(told, holds=not other["count"], told="no row")
            continue
        _statistics(row, told, one, _numpy_statistics(values, valid, inside), 1e-9)
        if other["count"]:
            want = {"stddev": other["std"], "variety": other["unique"]} | {
                stat: other[stat] for stat in ("count", "mean", "min", "max")
            }
            _statistics(rows["stats"], told, one, want, 1e-5)


def _numpy_statistics(values, valid, inside):
    """Statistics of the pixels of a zone; None where there are none."""
    own = values[inside & valid].astype(np.float64)
    want = {
        "count": len(own), "sum": own.sum(), "variety": len(np.unique(own)),
        "pixel_count": inside.sum(), "nodata_count": (inside & ~valid).sum(),
    }  # fmt: skip
    rest = ("mean", "min", "max", "stddev", "variance", "majority", "minority", "median", "p05",
            "p90", "mode")  # fmt: skip
    if not len(own):
        return want | dict.fromkeys(rest)
    distinct, counts = np.unique(own, return_counts=True)
    most = distinct[counts == counts.max()].max()
    return want | {
        "mean": own.mean(), "min": own.min(), "max": own.max(), "stddev": own.std(),
        "variance": own.var(), "majority": most, "mode": most,
        "minority": distinct[counts == counts.min()].min(), "median": np.median(own),
        "p05": np.quantile(own, 0.05), "p90": np.quantile(own, 0.9),
    }  # fmt: skip


def _statistics(row, case, got, want, tolerance):
    """Compare statistics of one zone; NULL is no data."""
    for stat, value in want.items():
        missing = value is None or bool(np.isnan(value))
        row.compare(
            f"{case}, {stat} {got[stat]}, the oracle's {value}", float(got[stat] or 0),
            0.0 if missing else float(value), got[stat] is not None, not missing,
            tolerance=tolerance, is_relative=True,
        )  # fmt: skip


QUANTILES = {"median": 0.5, "p05": 0.05, "p90": 0.9, "p99.9": 0.999}


def _zones_by_share(bench, rows, path, areas, case):
    options = {"geometry_crs": "EPSG:32643", "weights": "fraction"}
    names = [*test_zones.EXACT, "frac", *QUANTILES]
    got = test_zones.stats_of(bench.con, "made", "zones", names, **options)
    for name in ("exact", "frac", "quantiles"):
        rows[name].calls += 1
    theirs = test_zones.exactextracted(
        path, areas, [*test_zones.EXACT.values(), "unique", "frac", "values", "coverage"]
    )
    for name, other in theirs.items():
        told = f"{case}, zone {name}, weights fraction"
        one = got.get((name, "one", "b"))
        if one is None or not one["count"]:
            rows["exact"].expect(told, holds=not other["count"], told="no row, or an empty one")
            continue
        want = {mine: other[its] for mine, its in test_zones.EXACT.items()}
        _statistics(rows["exact"], told, one, want, 2e-6)
        shares = dict(zip(other["unique"].tolist(), other["frac"].tolist(), strict=True))
        keys = sorted(shares.keys() | one["frac"].keys())
        rows["frac"].compare(
            told, [one["frac"].get(k, 0) for k in keys], [shares.get(k, 0) for k in keys],
            [k in one["frac"] for k in keys], [k in shares for k in keys], tolerance=1e-6,
        )  # fmt: skip
        values, cover = (np.ma.asarray(other[n]).filled(np.nan) for n in ("values", "coverage"))
        seen = cover > 0
        want = {
            stat: weighted_quantile(values[seen], cover[seen], q) for stat, q in QUANTILES.items()
        }
        _statistics(rows["quantiles"], told, one, want, 1e-6)


def weighted_quantile(values, weights, q):
    """Linear between the cells, each at ``k*w + (n-1)*W`` where W is the weight before it."""
    order = np.lexsort((weights, values))
    values, weights = values[order].astype(float), weights[order].astype(float)
    n, before = len(values), np.cumsum(weights) - weights
    place = np.arange(n) * weights + (n - 1) * before
    return float(np.interp(q * (n - 1) * weights.sum(), place, values))


def _zones_by_band(bench, row, seed):
    values, weights = (test_zones.noise((1, 90, 90), "float32", seed=seed + k) for k in (0, 1))
    both = test_zones.write(bench.folder / "both.tif", np.concatenate([values, weights]))
    alone = test_zones.write(bench.folder / "weights.tif", weights)
    single = test_zones.write(bench.folder / "values.tif", values)
    build_files(bench.con, "made", {"both": both}, ["v", "w"])
    areas = test_zones.zones_over(test_zones.NORTH_UP, 90, 12, seed)
    make_areas(bench.con, "zones", areas)
    STORE.clear()
    got = test_zones.stats_of(
        bench.con, "made", "zones", ["count", "weight_sum", "mean", "sum", "variance"],
        geometry_crs="EPSG:32643", weights="fraction", bands=["v"], weight_band="w",
    )  # fmt: skip
    row.calls += 1
    names = {"count": "count", "mean": "weighted_mean", "sum": "weighted_sum",
             "variance": "weighted_variance"}  # fmt: skip
    theirs = test_zones.exactextracted(single, areas, list(names.values()), weights=str(alone))
    for name, other in theirs.items():
        one = got.get((name, "both", "v"))
        if one is None or not one["weight_sum"]:
            row.expect(f"seed {seed}, zone {name}", holds=not other["weighted_sum"],
                       told="no row, or an empty one")  # fmt: skip
            continue
        want = {mine: other[its] for mine, its in names.items()}
        _statistics(row, f"weight_band, seed {seed}, zone {name}", one, want, 1e-5)


def _zones_by_area(bench, row, seed):
    transform = rasterio.Affine(0.01, 0, 10, 0, -0.01, float(bench.rng.uniform(-60, 70)))
    values = test_zones.noise((1, 20, 24), "uint8", seed=seed)
    path = test_zones.write(bench.folder / "lonlat.tif", values, transform=transform,
                            crs="EPSG:4326")  # fmt: skip
    build_files(bench.con, "made", {"one": path}, ["b"])
    areas = {
        name: to_map(area, transform)
        for name, area in bench.areas(22, 3).items()
        if area.area > 0.5
    }
    make_areas(bench.con, "zones", areas)
    STORE.clear()
    got = test_zones.stats_of(
        bench.con, "made", "zones", ["area_m2", "weight_sum", "mean", "sum"], weights="area"
    )
    row.calls += 1
    geod = pyproj.Geod(ellps="WGS84")
    down, across = np.mgrid[:20, :24]
    cells = shapely.box(across, down, across + 1, down + 1)
    full = [abs(geod.geometry_area_perimeter(_dense(cell, transform))[0]) for cell in cells[:, 0]]
    for name, area in areas.items():
        one = got.get((name, "one", "b"))
        share = shapely.area(shapely.intersection(cells, to_map(area, ~transform)))
        if one is None:
            row.expect(f"seed {seed}, zone {name}", holds=not share.any(), told="no row")
            continue
        weight = share * np.array(full)[:, None]
        want = {
            "area_m2": weight.sum(), "weight_sum": weight.sum(),
            "sum": (weight * values[0]).sum(), "mean": (weight * values[0]).sum() / weight.sum(),
        }  # fmt: skip
        _statistics(row, f"'area', {transform}, seed {seed}, {area.wkt}", one, want, 1e-6)


def _dense(cell, transform):
    """A pixel in degrees, its sides along the parallels in small steps."""
    return to_map(cell.segmentize(0.02), transform)
