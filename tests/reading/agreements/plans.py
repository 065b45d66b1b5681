"""Plans: the log of a range server."""

from __future__ import annotations

from collections.abc import Iterator

from reading import (
    test_plan_equals_requests,
)
from reading.agreements.cases import (
    Bench,
    Row,
)
from reading.read_oracle import (
    build_files,
    make_areas,
    to_map,
)
from servers.range_server import RangeServer

from rasteret_sql.demo.scenes import write_scenes


def plans(bench: Bench) -> Iterator[Row]:
    """Requests that a server gets are those that the plan says."""
    functions = ("rasteret_read", "rasteret_pixels", "rasteret_read_tiles", "rasteret_histogram",
                 "rasteret_zonal_stats")  # fmt: skip
    rows = {
        name: Row("rasteret_plan", f"as `{name}` requests", "log of a range server",
                  "path and byte range of each request equal")
        for name in functions
    }  # fmt: skip
    served = bench.folder / "served"
    served.mkdir()
    kinds = test_plan_equals_requests.KINDS
    with RangeServer(scenes=served) as server:
        for number, kind in enumerate(bench.sample(kinds, max(3, bench.cases))):
            test_plan_equals_requests.write(served / f"{kind}.tif", kind, kinds[kind])
            url = server.url("scenes", f"{kind}.tif")
            build_files(bench.con, kind, {"one": url}, test_plan_equals_requests.BANDS)
            for name, row in rows.items():
                for level in bench.few((0, 1), number):
                    _plan_of(bench, server, row, name, kind, level)
        yield from rows.values()
        yield from _mosaics(bench, server, served)


def _mosaics(bench, server, served):
    """Plans of reads of all records onto one grid."""
    helpers = test_plan_equals_requests
    rows = {
        name: Row("rasteret_plan", f"as {what} requests", "log of a range server",
                  "path and byte range of each request equal, each once")
        for name, what in (("composite", "`rasteret_composite`"),
                           ("stacks", "`rasteret_chips` with `stack`"))
    }  # fmt: skip
    items = write_scenes(served / "s2")
    bench.con.execute(
        "FROM rasteret_build_stac('s2', stac_api := $items, url_rewrite := MAP {$old: $new})",
        {"items": str(items), "old": str(served / "s2"), "new": server.url("scenes", "s2")},
    ).fetchall()
    for number in range(2 * bench.cases):
        name = ("composite", "stacks")[number % 2]
        west, south = bench.rng.uniform(77.97, 78.0), bench.rng.uniform(12.99, 13.01)
        options = {
            "bands": bench.sample(["B04", "B08"], int(bench.rng.integers(1, 3))),
            "bbox": [west, south, west + bench.rng.uniform(0.002, 0.05), south + 0.02],
            "resolution": [None, round(float(bench.rng.uniform(7, 45)), 1)][number % 3 % 2],
        }  # fmt: skip
        options["bbox"] = [float(one) for one in options["bbox"]]
        if name == "composite":
            options["period"] = [None, "1 month"][number % 4 // 2]
            options["mask_band"] = [None, "SCL"][number % 8 // 4]
            own = {"mask_values": [8, 9] if options["mask_band"] else None}
            function = "rasteret_composite"
        else:
            options["size"] = int(bench.rng.integers(20, 90))
            own, function = {"stack": "time"}, "rasteret_chips"
        plan = helpers.planned(bench.con, server, "s2", reads=name, **options)
        got = helpers.requested(bench.con, server, function, "s2", **options, **own)
        rows[name].calls += 1
        keys = sorted(plan.keys() | got.keys())
        rows[name].compare(f"{name}, {options}", [got[k] for k in keys], [plan[k] for k in keys],
                           [k in got for k in keys], [k in plan for k in keys])  # fmt: skip
    yield from rows.values()


def _plan_of(bench, server, row, function, kind, level):
    helpers = test_plan_equals_requests
    areas = bench.areas(240, 4)
    is_zonal, is_whole = function == "rasteret_zonal_stats", function == "rasteret_read_tiles"
    make_areas(bench.con, "pieces", {n: to_map(a, helpers.TRANSFORM) for n, a in areas.items()})
    bands = bench.sample(helpers.BANDS, int(bench.rng.integers(1, 4)))
    options = {"bands": bands, "level": level, "geometry_crs": "EPSG:32643"}
    if is_whole:
        if "compress" not in helpers.KINDS[kind]:
            return  # of uncompressed tiles a plan counts the rows under the area
        area = to_map(next(iter(areas.values())), helpers.TRANSFORM)
        plan = helpers.planned(bench.con, server, kind, geometry=area, **options)
        read = helpers.requested(bench.con, server, function, kind, geometry=area, **options)
    else:
        plan = helpers.planned(bench.con, server, kind, aois="pieces", **options)
        of = {"zones": "pieces"} if is_zonal else {"aois": "pieces"}
        read = helpers.requested(bench.con, server, function, kind, **of, **options)
    row.calls += 1
    keys = sorted(plan.keys() | read.keys())
    wkt = {name: area.wkt for name, area in areas.items()}
    row.compare(f"{function}, {kind}, {options}, {wkt}", [read[k] for k in keys],
                [plan[k] for k in keys], [k in read for k in keys], [k in plan for k in keys],
                )  # fmt: skip
