"""Values at points: `rasterio.sample`, and NumPy point by point."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from reading import (
    test_points,
)
from reading.agreements.cases import (
    DATA,
    Bench,
    Row,
)
from reading.read_oracle import (
    build_files,
    call_of,
    opened,
)

from rasteret_sql.reading.tile_store import STORE


def sample_points(bench: Bench) -> Iterator[Row]:
    """Values at points."""
    yield _points_of_real_files(bench)
    yield _neighbours(bench)
    yield from _matches(bench)


def _points_of_real_files(bench: Bench) -> Row:
    row = Row("rasteret_sample_points", "real files, 300 points each", "`rasterio.sample`")
    for path in bench.sample(test_points.real_files(DATA), 2 * bench.cases):
        with opened(path) as file:
            transform, height, width, count = file.transform, file.height, file.width, file.count
            crs, has_alpha = file.crs.to_string(), "alpha" in [c.name for c in file.colorinterp]
        if has_alpha:  # `rasterio.sample` masks by it, and gives it as a band
            continue
        bands = [f"b{n}" for n in range(1, count + 1)]
        build_files(bench.con, "one", {"one": path}, bands)
        x, y = test_points.scattered(transform, height, width, seed=int(bench.rng.integers(1000)))
        test_points.make_points(bench.con, n=np.arange(len(x)), x=x, y=y)
        found = test_points.sample(bench.con, "one", bands=bands, geometry_crs=crs)
        row.calls += 1
        there, rows, cols, wanted = test_points.expected_sample(path, x, y)
        got = np.zeros(len(x), bool)
        got[[one["n"] for one in found]] = True
        row.expect(str(path), holds=got.sum() == len(found), told="a point came twice")
        row.compare(str(path), got & there, got & there, got, there)
        order = {n: place for place, n in enumerate(np.flatnonzero(there).tolist())}
        for one in found:
            if one["n"] not in order:
                continue
            place = order[one["n"]]
            at = rows[one["n"]], cols[one["n"]]
            row.expect(str(path), holds=(one["row"], one["col"]) == at, told=f"{one} not at {at}")
            values = wanted[place]
            row.compare(
                f"{path} {one}", np.array([one[b] or 0 for b in bands]), np.ma.getdata(values),
                [one[b] is not None for b in bands], ~np.ma.getmaskarray(values),
            )  # fmt: skip
    return row


def _neighbours(bench: Bench) -> Row:
    row = Row("rasteret_sample_points", "`max_distance_pixels`: value and distance",
              "NumPy, ring by ring, pixel by pixel", "equal, distances within 1e-9")  # fmt: skip
    for number in range(bench.cases):
        rng = bench.rng
        height, width = (int(n) for n in rng.integers(20, 120, 2))
        reach = int(rng.integers(1, 20))
        holes = rng.uniform(0.5, 0.99)
        noise = test_points.noise((height, width), seed=number) + 1
        values = np.where(rng.random((height, width)) < holes, 0, noise).astype("uint16")
        block = int(rng.choice([16, 32, 64]))
        path = test_points.write(
            bench.folder / "holes.tif", values[None], nodata=0, blockxsize=block, blockysize=block
        )
        build_files(bench.con, "one", {"one": path})
        x, y = test_points.scattered(test_points.NORTH_UP, height, width, seed=number)
        test_points.make_points(bench.con, n=np.arange(len(x)), x=x, y=y)
        STORE.clear()
        found = test_points.sample(bench.con, "one", geometry_crs=32643, max_distance_pixels=reach)
        row.calls += 1
        masked = np.ma.masked_equal(values, 0)
        for one in found:
            place = (4_000_000 - one["point_y"]) / 10, (one["point_x"] - 500_000) / 10
            value, away = test_points.nearest_valid(masked, one["row"], one["col"], *place, reach)
            case = f"{height} x {width}, seed {number}, reach {reach}, {one}"
            row.compare(case, one["band"] or 0, value or 0, one["band"] is not None,
                        value is not None)  # fmt: skip
            row.compare(case, one["distance_px"] or 0, away or 0, one["distance_px"] is not None,
                        away is not None, tolerance=1e-9)  # fmt: skip
    return row


def _matches(bench: Bench) -> Iterator[Row]:
    kinds = {
        "`match := 'latest'`, `'nearest'`": False,
        "`match` with clouds passed over (`mask_band`)": True,
    }
    rows = {
        has_mask: Row("rasteret_sample_points", what, "NumPy, point by point")
        for what, has_mask in kinds.items()
    }
    for _ in range(max(1, bench.cases // 8)):
        folder = Path(tempfile.mkdtemp(dir=bench.folder))
        bench.con.execute("FROM rasteret_drop('series')") if _has(bench, "series") else None
        arrays = test_points.make_series(bench.con, folder, bench.rng)
        for masked, row in rows.items():
            for match in ("latest", "nearest"):
                for days in (None, 4):
                    call = call_of(
                        "rasteret_sample_points", "series", points="pts", bands=["red"],
                        geometry_crs=32643, match=match, time_column="t",
                        mask_band="scl" if masked else None, mask_values=[3] if masked else None,
                    )  # fmt: skip
                    if days:
                        call = f"{call[:-1]}, max_dt := INTERVAL '{days} days')"
                    found = bench.con.execute(f"SELECT n, record_id, red FROM {call}").fetchall()
                    row.calls += 1
                    most = None if days is None else test_points.timedelta(days=days)
                    want = test_points.expected_matches(bench.con, arrays, match, most, masked)
                    got = {n: (record, value) for n, record, value in found}
                    keys = sorted(got.keys() | want.keys())
                    none = ("", 0)
                    row.compare(
                        call, [got.get(n, none)[1] for n in keys],
                        [want.get(n, none)[1] for n in keys],
                        [n in got for n in keys], [n in want for n in keys],
                    )  # fmt: skip
                    same = [got[n][0] == want[n][0] for n in got.keys() & want.keys()]
                    row.expect(call, holds=all(same), told="another record is matched")
    yield from rows.values()


def _has(bench: Bench, name: str) -> bool:
    found = bench.con.execute(
        "SELECT count(*) FROM duckdb_views() WHERE view_name = $name", {"name": name}
    ).fetchone()
    return bool(found[0])
