"""Chips and stacks: windows of rasterio, and a WarpedVRT."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
from reading import (
    read_oracle,
    test_chip_stacks,
    test_chips,
    test_read,
)
from reading.agreements.cases import (
    DATA,
    Bench,
    Row,
    demo_scenes,
    is_refused,
    near_edges,
    of_record,
    planned_levels,
    truth,
    widened,
)
from reading.read_oracle import (
    build_files,
    call_of,
    decoded,
    expected_read,
    rows_of,
)

from rasteret_sql.reading.tile_store import STORE


def chips(bench: Bench) -> Iterator[Row]:
    """Squares for training."""
    row = Row("rasteret_chips", "random rasters, size, stride and level",
              "rasterio `read(window=)`")  # fmt: skip
    for number in range(bench.cases):
        height, width = (int(n) for n in bench.rng.integers(30, 150, 2))
        path = test_read.write(
            bench.folder / "chips.tif", test_read.noise((1, height, width), seed=number, low=1),
            overviews=[2, 4], transform=[test_read.NORTH_UP, test_read.ROTATED][number % 2],
        )  # fmt: skip
        build_files(bench.con, "made", {"a": path})
        level = int(bench.rng.integers(3))
        size = int(bench.rng.integers(3, min(height, width) // 2**level))
        _chips_of(bench, row, "made", path, size, int(bench.rng.integers(5, 40)), level)
    yield row
    row = Row("rasteret_chips", "real files", "rasterio `read(window=)`")
    for path in bench.built(bench.real_files(2 * bench.cases)):
        least = min(truth()[path]["width"], truth()[path]["height"])
        size = int(bench.rng.integers(1, max(2, min(least, 90))))
        stride = max(size, max(truth()[path]["width"], truth()[path]["height"]) // 6)
        _chips_of(bench, row, of_record(path), DATA / path, size, stride, 0)
    yield row
    yield from _stacks(bench)


def _chips_of(bench, row, collection, path, size, stride, level):
    call = call_of("rasteret_chips", collection, bands=["band"], size=size, stride=stride,
                   level=level, valid=True)  # fmt: skip
    case = f"FROM {call}"
    STORE.clear()
    try:
        found = rows_of(bench.con, f"FROM {call}")
    except duckdb.Error as error:
        row.expect(case, holds=is_refused(error), told=str(error))
        return
    row.calls += 1
    whole = expected_read(path, indexes=[1], level=level)
    places = test_chips.places(*whole.pixels.shape[1:], size, stride)
    got = [(one["row_off"], one["col_off"]) for one in found]
    row.expect(case, holds=got == places, told=f"{len(got)} chips, expected {len(places)}")
    for one in found:
        top, left = one["row_off"], one["col_off"]
        at = np.s_[top : top + size, left : left + size]
        want = whole.pixels[0][at]
        values = decoded(one, ["band"])
        row.compare(case, widened(values.bands["band"], want.dtype), want)
        unlike = int(np.count_nonzero(values.valid[0] != whole.valid[0][at]))
        row.unlike += unlike
        row.expect(case, holds=not unlike, told=f"validity of {unlike} pixels")


def _stacks(bench: Bench) -> Iterator[Row]:
    con, folder = demo_scenes(bench)
    rows = {
        "time": Row("rasteret_chips", "`stack := 'time'`, own and other grids", "WarpedVRT"),
        None: Row("rasteret_chips", "on a grid of one's own", "WarpedVRT"),
    }
    bands = ["B04", "SCL"]
    for _ in range(max(1, bench.cases // 4)):
        size, stride = (int(n) for n in bench.rng.integers(20, 60, 2))
        crs = [None, 3857, 32644, 4326, 6933][bench.rng.integers(5)]
        meters = float(f"{bench.rng.uniform(8, 30):.3g}")
        resolution = float(f"{meters / 111_000:.3g}") if crs == 4326 else meters
        for stack, row in rows.items():
            call = call_of(
                "rasteret_chips", "s2", bands=bands, size=size, stride=stride, valid=True,
                bbox=test_chip_stacks.BOX, crs=crs, resolution=resolution, stack=stack,
            )  # fmt: skip
            found = rows_of(con, f"FROM {call}")
            row.calls += 1
            grid = {"bbox": test_chip_stacks.BOX, "crs": crs, "resolution": resolution}
            levels = planned_levels(con, grid)
            for one in found[:: 1 + len(found) // 12]:
                _stack_of(row, f"FROM {call}", folder, one, bands, levels)
    con.close()
    yield from rows.values()


def _stack_of(row, case, folder, one, bands, levels):
    records = one.get("record_ids") or [one["record_id"]]
    arrays = test_chip_stacks.arrays(one | {"record_ids": records}, bands)
    for band, (values, valid) in arrays.items():
        for layer, name in enumerate(records):
            want, there = read_oracle.warped(
                folder / name / f"{band}.tif", one, levels.get((name, band), 0)
            )
            told = f"{case}, {one['chip_id']}, {name}, {band}"
            near = near_edges(folder / name / f"{band}.tif", levels.get((name, band), 0), one)
            row.left_out += int(near.sum())
            row.compare(told, values[layer], want, valid[layer] & ~near, there & ~near)
