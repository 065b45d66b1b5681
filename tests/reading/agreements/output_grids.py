"""Windows and pixels on grids of another CRS and resolution: a WarpedVRT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from grid import warp_oracle
from reading import (
    test_output_grid,
)
from reading.agreements.cases import (
    DATA,
    Bench,
    Row,
)
from reading.read_oracle import (
    build_files,
    call_of,
)

KERNEL_RULES = {
    "nearest": "equal",
    "float": "within 4e-6 of the range (5000), 99.9 % within 4e-7",
    "average": "within 1, at most 2 % of the values",
    "integer": "within 1, at most 1 % of the values",
}
TYPES = ("float32", "float64", "uint16", "int16")


def output_grids(bench: Bench) -> Iterator[Row]:
    """Windows and pixels on grids of another CRS and resolution."""
    pairs = [name for name in test_output_grid.PAIRS if name != "world to mercator"]
    pairs = bench.sample(pairs, 2 * bench.cases)
    rows = {}
    for kernel in test_output_grid.KERNELS:
        for dtype in TYPES:
            kind = "float" if dtype.startswith("float") else "integer"
            rule = KERNEL_RULES.get(kernel if kernel == "nearest" else "")
            rule = (
                rule
                or KERNEL_RULES["average" if (kernel, kind) == ("average", "integer") else kind]
            )
            for function in ("rasteret_read", "rasteret_pixels"):
                what = f"onto a grid, {kernel}, {dtype}, {len(pairs)} pairs of CRS"
                rows[function, kernel, dtype] = Row(function, what, "WarpedVRT", rule)
    for number, pair in enumerate(pairs):
        source, affine, crs = test_output_grid.PAIRS[pair]
        for dtype in bench.few(TYPES, number):
            data, nodata = test_output_grid.noise(dtype, int(bench.rng.integers(1000)))
            path = test_output_grid.write(
                bench.folder / "source.tif", data, f"EPSG:{source}", affine, nodata=nodata
            )
            build_files(bench.con, "made", {"one": path})
            for kernel in test_output_grid.KERNELS:
                factor = round(float(np.exp(bench.rng.uniform(np.log(0.5), np.log(6)))), 2)
                case = test_output_grid.warp(bench.con, "made", path, nodata, crs, factor, kernel)
                row = rows["rasteret_read", kernel, dtype]
                _judge(row, case, kernel, dtype, 5000, f"{pair}, {dtype}, x {factor}")
                row = rows["rasteret_pixels", kernel, dtype]
                case = case._replace(got=_on_grid(bench, case))
                _judge(row, case, kernel, dtype, 5000, f"{pair}, {dtype}, x {factor}")
    yield from rows.values()
    row = Row("rasteret_read", "onto a grid, nearest, real files", "WarpedVRT")
    for name, crs in bench.sample(test_output_grid.REAL, bench.cases):
        path = DATA / "geotiff" / name
        build_files(bench.con, "real", {"one": path})
        for factor in bench.rng.uniform(0.5, 6, 3).round(2).tolist():
            case = test_output_grid.warp_real(bench.con, "real", path, crs, factor)
            _judge(row, case, "nearest", case.got[0].dtype, 0, f"{name} in {crs}, x {factor}")
    yield row


def _on_grid(bench: Bench, case: Any) -> tuple[Any, Any]:
    """Values and validity of the same read as pixels, placed by their x and y."""
    call = call_of("rasteret_pixels", "made", **case.options)
    found = bench.con.execute(f"SELECT x, y, band FROM {call}").fetchnumpy()
    a, _, c, _, e, f = case.grid.affine
    at = (
        np.rint((found["y"] - f) / e - 0.5).astype(int),
        np.rint((found["x"] - c) / a - 0.5).astype(int),
    )
    values = np.zeros_like(case.got[0])
    valid = np.zeros(values.shape, bool)
    band = np.ma.asarray(found["band"])
    values[at] = np.ma.getdata(band)
    valid[at] = ~np.ma.getmaskarray(band)
    return np.where(valid, values, 0), valid


def _judge(row: Row, case: Any, kernel: str, dtype: Any, spread: float, told: str) -> None:
    """Count a case on another grid, by the rules of its kernel."""
    found = warp_oracle.differences(
        case.got, case.expected, 0 if spread else None, case.at, case.apart, kernel
    )
    row.calls += 1
    row.left_out += found.n_left_out
    row.add(told, found.n_pixels, found.n_unlike, found.off)
    options = {name: value for name, value in case.options.items() if name != "geometry"}
    for rule in warp_oracle.broken_rules(found, kernel, dtype, spread, case.apart):
        row.broken.append(
            f"{told}, {options}: not true that {rule} ({found.n_unlike} of {found.n_pixels} "
            f"pixels hold data in one alone, {np.count_nonzero(found.off)} values differ, "
            f"by at most {found.off.max(initial=0):.3g})"
        )
