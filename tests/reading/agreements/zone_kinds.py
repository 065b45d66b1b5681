"""Statistics of lines, points, masked pixels, scaled values and bands of unlike grid."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import numpy as np
import rasterio
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import JSONFeatureSource
from reading import test_zone_grids, test_zone_lines, test_zones
from reading.agreements.cases import DATA, Bench, Row, truth
from reading.agreements.zones import _statistics
from reading.read_oracle import call_of, make_areas, opened, read, rows_of, to_map

from rasteret_sql.reading.tile_store import STORE

FUNCTION = "rasteret_zonal_stats"
HERE = {"geometry_crs": "EPSG:32643"}
_HIDDEN = 0.4


def lines_and_points(bench: Bench) -> Iterator[Row]:
    """Zones without an area."""
    rows = {
        "center": Row(FUNCTION, "`'center'`: lines and points, 5 statistics",
                      "`rasterio.features.rasterize`"),
        "touched": Row(FUNCTION, "`'touched'`: lines and points, 5 statistics",
                       "`rasterio.features.rasterize`, `all_touched`"),
        "fraction": Row(FUNCTION, "`'fraction'`: lines, 5 statistics", "exactextract",
                        "within 2e-5, relative (coverage is float32)"),
    }  # fmt: skip
    for number in range(bench.cases):
        names = list(test_zone_lines.TRANSFORMS)
        name = names[number % len(names)]
        transform = test_zone_lines.TRANSFORMS[name]
        path = test_zone_lines.made(bench.con, bench.folder, transform)
        shapes = {f"line {k}": _line(bench) for k in range(15)}
        shapes |= {f"points {k}": shapely.MultiPoint(_places(bench, 4)) for k in range(5)}
        zones = {key: to_map(shape, transform) for key, shape in shapes.items()}
        make_areas(bench.con, "zones", zones)
        stats = ["count", "sum", "min", "max", "pixel_count"]
        for weights in ("center", "touched"):
            got = _zones(bench, rows[weights], stats, weights=weights)
            for key, zone in zones.items():
                case = f"{name}, {weights}, {shapes[key].wkt}"
                values, valid, mask = test_zone_lines.burnt(path, zone, touched=weights[0] == "t")
                own = values[mask & valid].astype(float)
                if key not in got:
                    rows[weights].expect(case, holds=not mask.any(), told="no row")
                    continue
                want = {"count": len(own), "sum": own.sum(), "pixel_count": mask.sum()}
                want |= {"min": own.min(), "max": own.max()} if len(own) else {}
                _statistics(rows[weights], case, got[key], want, 0)
        if name != "south-up":  # which exactextract does not read
            _lengths(bench, rows["fraction"], path, zones)
    yield from rows.values()


def _places(bench, n):
    """Places that lie on no edge of a pixel: GDAL leaves out where a line runs along one."""
    return bench.rng.integers(-15 * 50, 115 * 50, (n, 2)) / 50 + [0.0037, 0.0041]


def _line(bench):
    n = int(bench.rng.integers(2, 7))
    parts = [shapely.LineString(_places(bench, n)) for _ in range(int(bench.rng.integers(1, 3)))]
    return parts[0] if len(parts) == 1 else shapely.MultiLineString(parts)


def _zones(bench, row, stats, **options):
    """Rows by zone."""
    STORE.clear()
    row.calls += 1
    call = call_of(FUNCTION, "made", zones="zones", stats=stats, **HERE, **options)
    return {one["area"]: one for one in rows_of(bench.con, f"FROM {call}")}


def _lengths(bench, row, path, zones):
    names = {"count": "count", "sum": "sum", "mean": "mean", "min": "min", "max": "max"}
    got = _zones(bench, row, list(names), weights="fraction")
    features = [
        {"type": "Feature", "properties": {"area": key},
         "geometry": json.loads(shapely.to_geojson(zone))}
        for key, zone in zones.items()
        if key.startswith("line")
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = JSONFeatureSource(features, srs_wkt=None)
        theirs = exact_extract(str(path), source, list(names.values()), include_cols=["area"])
    for one in theirs:
        other = one["properties"]
        key = other["area"]
        if key not in got or not got[key]["count"]:
            row.expect(zones[key].wkt, holds=not other["count"], told="no row, or an empty one")
            continue
        want = {mine: other[its] for mine, its in names.items()}
        _statistics(row, f"'fraction', {zones[key].wkt}", got[key], want, 2e-5)


def grids_and_masks(bench: Bench) -> Iterator[Row]:
    """Bands of unlike grid in one call, and pixels that a mask band hides."""
    oracle = "NumPy over `geometry_mask`"
    rule = "within 1e-9, relative"
    rows = {
        "grids": Row(FUNCTION, "bands of unlike grid, 10 statistics", oracle, rule),
        "same": Row(FUNCTION, "`mask_band` on the same grid, 10 statistics", oracle, rule),
        "other": Row(FUNCTION, "`mask_band` on another grid, 10 statistics", oracle, rule),
        "exact": Row(FUNCTION, "`mask_band`, `'fraction'`: 10 statistics", "exactextract",
                     "within 2e-6, relative (coverage is float32)"),
    }  # fmt: skip
    for number in range(bench.cases):
        case = f"case {number}, "
        paths = _scene(bench, number)
        test_zone_grids.build_scenes(bench.con, {"one": paths})
        areas = test_zones.zones_over(test_zones.NORTH_UP, 100, 15, int(bench.rng.integers(9999)))
        make_areas(bench.con, "zones", areas)
        weights = ("center", "touched")[number % 2]
        _by_mask(bench, rows["grids"], paths, areas, weights, case, None)
        _by_mask(bench, rows["same"], {"fine": paths["fine"]}, areas, weights, case, "twin")
        for mask in ("coarse", "apart"):
            some = {band: path for band, path in paths.items() if band != mask}
            _by_mask(bench, rows["other"], some, areas, weights, case, mask)
        _shares(bench, rows["exact"], paths, areas, case, ("twin", "coarse", "apart")[number % 3])
    yield from rows.values()


def _scene(bench, number):
    """Files by band: two on one grid, one of twice the pixels, one anywhere."""
    scale, shift = bench.rng.uniform(0.5, 4), bench.rng.uniform(-300, 300, 2)
    north_up = test_zones.NORTH_UP
    places = {
        "fine": (north_up, (90, 110)),
        "twin": (north_up, (90, 110)),
        "coarse": (north_up @ Affine.scale(2), (45, 55)),
        "apart": (Affine(10 * scale, 0, 5e5 + shift[0], 0, -10 * scale, 4e6 + shift[1]), (80, 70)),
    }
    paths = {}
    for seed, (band, (transform, shape)) in enumerate(places.items()):
        options = [{"nodata": 3}, {"tiled": False}, {}][(number + seed) % 3]
        values = test_zones.noise((1, *shape), ["uint8", "int16"][seed % 2], high=25,
                                  seed=100 * number + seed)  # fmt: skip
        path = bench.folder / f"{band}.tif"
        paths[band] = test_zones.write(path, values, transform=transform, **options)
    return paths


def _hidden(bench):
    return [float(one) for one in np.flatnonzero(bench.rng.uniform(0, 1, 25) < _HIDDEN)]


def _by_mask(bench, row, paths, areas, weights, case, mask):
    hidden = _hidden(bench)
    masked = {} if mask is None else {"mask_band": mask, "mask_values": hidden}
    STORE.clear()
    row.calls += 1
    got = test_zones.stats_of(
        bench.con, "made", "zones", test_zone_grids.STATS, bands=list(paths), weights=weights,
        **masked, **HERE,
    )  # fmt: skip
    for band, path in paths.items():
        values, valid, transform = test_zone_grids.pixels_of(path)
        if mask is not None:
            other = path.with_name(f"{mask}.tif")
            valid = valid & test_zone_grids.used_of(path, other, hidden)
        for name, area in areas.items():
            told = f"{case}{weights}, {band} by {mask} {hidden}, {area.wkt}"
            touched = weights == "touched"
            inside = test_zone_grids.inside_of(area, transform, values.shape, touched=touched)
            one = got.get((name, "one", band))
            if one is None:
                row.expect(told, holds=not inside.any(), told="no row")
                continue
            want = test_zone_grids.summed(values[inside & valid])
            want |= {"pixel_count": inside.sum(), "nodata_count": (inside & ~valid).sum()}
            _statistics(row, told, one, want, 1e-9)


def _shares(bench, row, paths, areas, case, mask):
    hidden, names = _hidden(bench), test_zones.EXACT
    row.calls += 1
    got = test_zones.stats_of(
        bench.con, "made", "zones", list(names), bands=["fine"], weights="fraction",
        mask_band=mask, mask_values=hidden, **HERE,
    )  # fmt: skip
    values, valid, _ = test_zone_grids.pixels_of(paths["fine"])
    values = values.astype("int16")
    values[~(valid & test_zone_grids.used_of(paths["fine"], paths[mask], hidden))] = -1
    cleared = test_zones.write(bench.folder / "cleared.tif", values[None], nodata=-1)
    for name, other in test_zones.exactextracted(cleared, areas, list(names.values())).items():
        told = f"{case}'fraction', fine by {mask} {hidden}, {areas[name].wkt}"
        one = got.get((name, "one", "fine"))
        if one is None or not one["count"]:
            row.expect(told, holds=not other["count"], told="no row, or an empty one")
            continue
        want = {mine: other[its] for mine, its in names.items()}
        _statistics(row, told, one, want, 2e-6)


def scaled_values(bench: Bench) -> Iterator[Row]:
    """Scale and offset of the files."""
    oracle, rule = "rasterio's values, `scales` and `offsets`", "within 1e-12, relative"
    rows = {
        name: Row(name, "`scaled := true`, real and random files", oracle, rule)
        for name in ("rasteret_read", "rasteret_pixels", FUNCTION)
    }
    paths = [
        DATA / path
        for path, entry in truth().items()
        if not entry.get("error")
        and any(one != (1, 0) for one in zip(entry.get("scales") or [], entry.get("offsets") or [],
                                             strict=True))
    ]  # fmt: skip
    paths = bench.sample(paths, 4 * bench.cases)
    for number in range(bench.cases):
        path = bench.folder / f"scaled{number}.tif"
        values = test_zones.noise((1, 40, 50), ["int16", "uint8", "float32"][number % 3],
                                  seed=number)  # fmt: skip
        test_zones.write(path, values, nodata=[None, 3][number % 2])
        scale, offset = float(bench.rng.normal(0, 3)), float(bench.rng.normal(0, 100))
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = [scale], [offset]
        paths.append(path)
    for path in paths:
        _scaled(bench, rows, path)
    yield from rows.values()


def _scaled(bench, rows, path):
    with opened(path) as file:
        values, valid = file.read(1), file.read_masks(1) != 0
        want = values * np.float64(file.scales[0]) + file.offsets[0]
        shape = file.shape
    test_zone_grids.build_scenes(bench.con, {"one": {"b": path}})
    case = f"scaled, {path.name}"
    name = "rasteret_read"
    rows[name].calls += 1
    (one,) = read(bench.con, "made", ["b"], scaled=True, valid=True)
    rows[name].compare(case, one.bands["b"][one.valid[0]], want[one.valid[0]], tolerance=1e-12,
                       is_relative=True)  # fmt: skip
    rows[name].expect(case, holds=bool((one.valid[0] == valid).all()), told="validity differs")
    name = "rasteret_pixels"
    rows[name].calls += 1
    call = call_of(name, "made", scaled=True)
    found = bench.con.execute(f"SELECT row, col, b FROM {call} ORDER BY ALL").fetchnumpy()
    got = np.ma.masked_all(shape)
    got[found["row"], found["col"]] = found["b"]
    known = ~np.ma.getmaskarray(got)
    rows[name].compare(case, np.where(known, got.filled(0), 0), np.where(valid, want, 0), known,
                       valid, tolerance=1e-12, is_relative=True)  # fmt: skip
    rows[FUNCTION].calls += 1
    stats = ["count", "mean", "min", "max", "sum"]
    call = call_of(FUNCTION, "made", stats=stats, scaled=True).replace("'made'", "'made', NULL")
    (one,) = rows_of(bench.con, f"FROM {call}")
    own = want[valid]
    wanted = {"count": own.size, "sum": own.sum()}
    rest = (own.mean(), own.min(), own.max()) if own.size else (None, None, None)
    wanted |= dict(zip(("mean", "min", "max"), rest, strict=True))
    _statistics(rows[FUNCTION], case, one, wanted, 1e-12)
