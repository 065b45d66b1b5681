"""Composites of many scenes: NumPy over warped inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from reading import (
    read_oracle,
    test_composite,
)
from reading.agreements.cases import (
    Bench,
    Row,
    demo_scenes,
    near_edges,
    planned_levels,
)
from reading.read_oracle import (
    call_of,
    random_polygon,
    rows_of,
)


def composites(bench: Bench) -> Iterator[Row]:
    """Values of many scenes, one grid."""
    con, folder = demo_scenes(bench)
    oracle = "NumPy over WarpedVRTs"
    rows = {}
    methods = ("median", "mean", "min", "max", "first", "last", "count")
    for method in methods:
        rule = "within 1e-13, relative" if method in ("mean", "median") else "equal"
        rows[method] = Row("rasteret_composite", f"`'{method}'`, clouds masked", oracle, rule)
    grids = [{}, {"crs": 3857}, {"crs": 32644}, {"crs": 4326}, {"crs": 6933}]
    periods = [None, "45 days", "1 month", "2 months"]
    bands = ["B04", "B08"]
    for number in range(max(bench.cases, len(methods))):
        method = methods[number % len(methods)]
        grid = dict(grids[bench.rng.integers(len(grids))])
        if grid:
            meters = bench.rng.uniform(8, 40)
            size = meters / 111_000 if grid["crs"] == 4326 else meters
            grid["resolution"] = float(f"{size:.4g}")
        period = periods[bench.rng.integers(len(periods))]
        shape = shapely.affinity.affine_transform(
            random_polygon(bench.rng, 1.0), [0.015, 0, 0, 0.015, 77.984, 13.006]
        )
        options = {
            "bands": bands, "method": method, "period": period, "mask_band": "SCL",
            "mask_values": test_composite.CLOUDS, "geometry": shape.wkt, "valid": True,
            "overview": ["auto", "auto", "none", 1, 2][bench.rng.integers(5)],
        } | grid  # fmt: skip
        if not grid:
            del options["overview"]
        _composites_of(bench, con, folder, rows[method], options)
    con.close()
    yield from rows.values()


def _composites_of(bench, con, folder, row, options):
    call = call_of("rasteret_composite", "s2", **options)
    found = rows_of(con, f"FROM {call}")
    row.calls += 1
    known = test_composite.dates(con)
    levels = planned_levels(con, options)
    method, period = options["method"], options["period"]
    starts = {n: test_composite.start_of(con, moment, period) for n, (moment, _) in known.items()}
    area = shapely.from_wkt(options["geometry"]).segmentize(1e-4).__geo_interface__
    for one in bench.few(found, 0):
        mask = test_composite.inside(one, area)
        got = test_composite.arrays(one, options["bands"])
        clear, unsure = {}, np.zeros((one["height"], one["width"]), bool)
        for name in (n for n, start in starts.items() if start == one["period"]):
            path, level = folder / name / "SCL.tif", levels.get((name, "SCL"), 0)
            classes, known_class = read_oracle.warped(path, one, level)
            unsure |= near_edges(path, level, one)
            clear[name] = known_class & ~np.isin(classes, test_composite.CLOUDS) & mask
        for band in options["bands"]:
            layers, near = [], unsure.copy()
            for name, is_clear in clear.items():
                path, level = folder / name / f"{band}.tif", levels.get((name, band), 0)
                values, valid = read_oracle.warped(path, one, level)
                near |= near_edges(path, level, one)
                layers.append((values, valid & is_clear))
            want = test_composite.expected(method, layers)
            values, valid = got[band]
            is_mean = method in ("mean", "median")
            row.left_out += int(near.sum())
            row.compare(
                f"FROM {call}, {band}",
                np.where(valid, values, 0),
                want.filled(0),
                valid & ~near,
                ~np.ma.getmaskarray(want) & ~near,
                tolerance=1e-13 if is_mean else 0,
                is_relative=is_mean,
            )
