"""What each read gives beside an independent oracle: run over many cases, written as a table.

python tests/reading/agreement.py --write docs/reads.md
python tests/reading/agreement.py --cases 2
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import duckdb
import numpy as np
import pyproj
import rasterio
import rasterio.features
import shapely
from grid import warp_oracle
from reading import (
    test_chip_stacks,
    test_chips,
    test_composite,
    test_histogram,
    test_output_grid,
    test_plan_equals_requests,
    test_points,
    test_preview,
    test_read,
    test_zones,
)
from reading.read_oracle import (
    LOSSY,
    build_files,
    call_of,
    decoded,
    expected_read,
    make_areas,
    numpy_type,
    opened,
    random_polygon,
    rows_of,
    to_map,
    touches,
)
from reading.test_read_property import LAYOUTS, NODATA, ORIGINS, TURNS, Raster
from servers.range_server import RangeServer

import rasteret_sql
from rasteret_sql.demo.scenes import write_scenes
from rasteret_sql.duck.declarations import FUNCTIONS
from rasteret_sql.grid.warp import Grid, locate
from rasteret_sql.reading.tile_store import STORE
from rasteret_sql.units import Affine

DATA = TESTS.parents[1] / "shared" / "data"
CASES = 24
SEED = 1
MAX_PIXELS = 1_500_000
BEGIN = "<!-- agreement: written by tests/reading/agreement.py -->"
END = "<!-- end of agreement -->"
_TOLD = 3
READS_FILE = "30_pixels.sql"
PAGES = {
    "rasteret_plan": "reading.md",
    "rasteret_read_tiles": "reading.md",
    "rasteret_read": "reading.md",
    "rasteret_pixels": "reading.md",
    "rasteret_sample_points": "points.md",
    "rasteret_zonal_stats": "zones.md",
    "rasteret_composite": "reading.md",
    "rasteret_chips": "chips.md",
    "rasteret_histogram": "histogram.md",
    "rasteret_preview": "preview.md",
}
PACKAGES = ("rasterio", "exactextract", "rasterstats", "shapely", "numpy", "pyproj")


@dataclass
class Row:
    """One row of the table: a function, what of it, its oracle, and what was seen.

    Attributes:
        rule: What must hold, in words.
        calls: Of the function.
        values: Compared.
        unlike: Values that hold data, or exist, in one of the two alone.
        unequal: Values that differ.
        largest: Largest difference.
        left_out: Pixels that decide nothing, since rounding does; not compared.
        broken: Cases that break the rule.
    """

    function: str
    what: str
    oracle: str
    rule: str = "equal"
    calls: int = 0
    values: int = 0
    unlike: int = 0
    unequal: int = 0
    largest: float = 0.0
    left_out: int = 0
    broken: list[str] = field(default_factory=list)

    def expect(self, case: str, *, holds: bool, told: str) -> None:
        """Note a case of which something does not hold."""
        if not holds:
            self.broken.append(f"{case}: {told}")

    def compare(
        self,
        case: str,
        got: Any,
        want: Any,
        valid: Any = None,
        want_valid: Any = None,
        *,
        tolerance: float = 0.0,
        is_relative: bool = False,
    ) -> None:
        """Compare arrays of one shape; validity is True where there is data.

        Args:
            case: Says how to get this case again.
            got: Values of ours.
            want: Values of the oracle.
            valid: Where ours hold data; None says everywhere.
            want_valid: The same of the oracle.
            tolerance: Largest difference that the rule allows.
            is_relative: Differences are divided by the oracle's value, if that is over 1.
        """
        got, want = np.asarray(got), np.asarray(want)
        if got.shape != want.shape:
            self.unlike += max(got.size, want.size)
            self.broken.append(f"{case}: shape {got.shape}, the oracle's is {want.shape}")
            return
        valid = np.ones(got.shape, bool) if valid is None else np.asarray(valid, bool)
        want_valid = (
            np.ones(want.shape, bool) if want_valid is None else np.asarray(want_valid, bool)
        )
        unlike = int(np.count_nonzero(valid != want_valid))
        both = valid & want_valid
        off = _apart(got[both], want[both])
        if is_relative:
            off = off / np.maximum(np.abs(want[both]), 1)
        self.add(case, got.size, unlike, off)
        if unlike:
            self.broken.append(f"{case}: {unlike} of {got.size} values exist in one alone")
        if off.max(initial=0) > tolerance:
            self.broken.append(f"{case}: largest difference {off.max():.3g}")

    def add(self, case: str, n_values: int, n_unlike: int, off: Any) -> None:
        """Count what a rule of its own judges."""
        del case
        self.values += n_values
        self.unlike += n_unlike
        self.unequal += int(np.count_nonzero(off))
        self.largest = max(self.largest, float(off.max(initial=0)))


def _apart(got: Any, want: Any) -> Any:
    """Absolute differences; equal values, NaN and NaN are 0 apart, NaN and a number infinitely."""
    is_equal = got == want
    if got.dtype.kind in "fc":
        is_equal |= np.isnan(got) & np.isnan(want)
    kind = np.complex128 if "c" in (got.dtype.kind, want.dtype.kind) else np.float64
    with np.errstate(invalid="ignore"):
        off = np.abs(got.astype(kind) - want.astype(kind))
    unequal = ~is_equal
    off[is_equal] = 0
    off[unequal & np.isnan(off)] = np.inf
    off[unequal & (off == 0)] = 1  # 64-bit integers that DOUBLE can't tell apart
    return off


@dataclass
class Bench:
    """What a comparison works with.

    Attributes:
        con: A connection with a workspace of its own.
        folder: For files.
        rng: Of this comparison alone, so that one does not change the others.
        cases: How many rasters, files or calls a comparison takes.
    """

    con: duckdb.DuckDBPyConnection
    folder: Path
    rng: np.random.Generator
    cases: int

    def sample(self, things: Any, n: int) -> list[Any]:
        """Some of a list, in random order."""
        things = list(things)
        return [things[k] for k in self.rng.permutation(len(things))[:n]]

    def real_files(self, n: int, *, lossy: bool = False, placed: bool = False) -> list[str]:
        """Paths of real files that GDAL reads, of moderate size."""
        return self.sample(real_files(lossy=lossy, placed=placed), n)

    def built(self, paths: list[str], bands: tuple[str, ...] = ("band",)) -> list[str]:
        """Collection `real` of real files; those of which the header is read."""
        build_files(self.con, "real", {path: DATA / path for path in paths}, bands)
        query = f"SELECT id FROM real WHERE {bands[0]}_metadata IS NOT NULL"
        readable = {row[0] for row in self.con.execute(query).fetchall()}
        return [path for path in paths if path in readable]

    def raster(self, turns: tuple[str, ...] = tuple(TURNS), **fixed: Any) -> Raster:
        """A random raster, of the kinds that the property-based tests draw from."""
        pick = lambda options: options[self.rng.integers(len(options))]  # noqa: E731
        hides = pick(["", "", "", "mask", "alpha"])
        dtype = pick(["uint8", "uint16"]) if hides == "alpha" else pick(list(NODATA))
        facts = {
            "height": int(self.rng.integers(1, 90)), "width": int(self.rng.integers(1, 90)),
            "count": 4 if hides == "alpha" else int(self.rng.integers(1, 4)), "dtype": dtype,
            "nodata": None if hides else pick(NODATA[dtype]), "crs": pick(list(ORIGINS)),
            "turn": pick(turns), "layout": pick(LAYOUTS), "interleave": pick(["pixel", "band"]),
            "compress": pick(["none", "deflate", "lzw", "zstd"]),
            "is_sparse": not hides and bool(self.rng.integers(2)), "hides": hides,
            "seed": int(self.rng.integers(1000)),
        }  # fmt: skip
        return Raster(**facts | fixed)

    def areas(self, size: float, n: int) -> dict[str, shapely.Geometry]:
        """Random polygons in pixel coordinates, some of them partly outside."""
        sizes = size * self.rng.uniform(0.1, 1.2, n)
        found = {str(k): random_polygon(self.rng, s) for k, s in enumerate(sizes)}
        return {name: area for name, area in found.items() if area.area > 1e-3}


_TRUTH: dict[str, Any] = {}


def truth() -> dict[str, Any]:
    """What GDAL says of each real file."""
    if not _TRUTH:
        _TRUTH.update(json.loads((DATA / "truth.json").read_text())["files"])
    return _TRUTH


def real_files(*, lossy: bool = False, placed: bool = False) -> list[str]:
    """Real files that GDAL reads, of at most 1.5 million values."""
    found = []
    for path, entry in truth().items():
        if entry.get("error") or not entry.get("bands"):
            continue
        is_lossy = entry.get("compression") in LOSSY
        is_placed = entry["crs_present"] and not entry["transform_is_identity"]
        if (
            entry["width"] * entry["height"] * min(entry["count"], 4) <= MAX_PIXELS
            and not any(band.get("error") for band in entry["bands"])
            and is_lossy == lossy
            and (is_placed or not placed)
        ):
            found.append(path)
    return found


def widened(values: Any, dtype: Any) -> Any:
    """Values in the type that GDAL has for them."""
    is_wider = values.dtype in (np.float16, np.complex128)
    return values.astype(dtype) if is_wider else values


def of_record(path: str) -> str:
    """The collection `real`, one record of it."""
    return f"SELECT * FROM real WHERE id = '{path}'"


# The comparisons: each yields the rows of one function


def read_tiles(bench: Bench) -> Iterator[Row]:
    """Whole tiles."""
    oracle = "rasterio `read(window=)` and its masks"
    exact = Row("rasteret_read_tiles", "real files, every level, masked or not", oracle)
    lossy = Row(
        "rasteret_read_tiles", "real files with JPEG or WebP", oracle,
        "a mean of less than 1 (decoders differ)",
    )  # fmt: skip
    for row, n in ((exact, 4 * bench.cases), (lossy, bench.cases)):
        for path in bench.built(bench.real_files(n, lossy=row is lossy)):
            levels = 1 + len(truth()[path]["bands"][0].get("overviews") or ())
            with opened(DATA / path) as file:
                levels = 1 + len(file.overviews(1))
            for level in range(levels):
                for masked in (True, False):
                    _tiles_of(bench, row, path, level, masked=masked, is_lossy=row is lossy)
        yield row


def _tiles_of(
    bench: Bench, row: Row, path: str, level: int, *, masked: bool, is_lossy: bool
) -> None:
    call = call_of("rasteret_read_tiles", of_record(path), level=level, masked=masked)
    case = f"FROM {call}"
    try:
        tiles = rows_of(bench.con, f"FROM {call}")
    except duckdb.Error as error:
        row.expect(case, holds=_is_refused(error), told=str(error))
        return
    row.calls += 1
    whole = expected_read(DATA / path, indexes=[1], level=level, masked=masked)
    n_tiled = 0
    offs = []
    for tile in tiles:
        at = np.s_[tile["row_off"] : tile["row_off"] + tile["height"]]
        at = at, np.s_[tile["col_off"] : tile["col_off"] + tile["width"]]
        want = whole.pixels[0][at]
        got = np.frombuffer(tile["pixels"], numpy_type(tile["dtype"])).reshape(want.shape)
        got = widened(got, want.dtype)
        n_tiled += got.size
        if is_lossy:
            off = _apart(got, want)
            offs.append(off)
            row.add(case, got.size, 0, off.ravel())
            continue
        row.compare(case, got, want)
        if masked:
            n_valid = int(whole.valid[0][at].sum())
            row.expect(
                case, holds=tile["valid_count"] == n_valid,
                told=f"valid_count {tile['valid_count']}, the oracle's is {n_valid}",
            )  # fmt: skip
    row.expect(case, holds=n_tiled == whole.pixels[0].size, told="tiles do not cover the raster")
    if offs:
        mean = sum(off.sum() for off in offs) / sum(off.size for off in offs)
        row.expect(case, holds=mean < 1, told=f"mean difference {mean:.2f}")


def _is_refused(error: duckdb.Error) -> bool:
    """Whether a file is of a kind that docs/formats.md lists as refused."""
    return "not supported" in str(error) or "not supported" in repr(error)


def read_windows(bench: Bench) -> Iterator[Row]:
    """Windows under polygons, on the rasters' own grids."""
    mask = "`rasterio.mask.mask`"
    kinds = {
        "real files, pixels by their centre": {},
        "real files, `all_touched`": {"all_touched": True},
        "real files, overviews": {"level": 1},
        "real files, `masked := false`": {"masked": False},
        "real files, `crop := false`": {"crop": False},
    }
    files = bench.built(bench.real_files(4 * bench.cases))
    for what, how in kinds.items():
        row = Row("rasteret_read", what, mask)
        if how.get("masked", True) is False:
            row.oracle = "rasterio `read(window=)`"
        for path in files:
            entry = truth()[path]
            with opened(DATA / path) as file:
                if len(file.overviews(1)) < how.get("level", 0):
                    continue
            areas = bench.areas(max(entry["width"], entry["height"]), 3)
            make_areas(bench.con, "pieces", areas)
            options = {"aois": "pieces", "geometry_crs": "pixel"} | how
            _windows_of(bench, row, of_record(path), DATA / path, ["band"], areas, options)
        yield row
    row = Row("rasteret_read", "random rasters and polygons, 7 CRSs, 6 affines", mask)
    for _ in range(3 * bench.cases):
        raster, path = _made(bench)
        areas = bench.areas(max(raster.height, raster.width), 6)
        make_areas(
            bench.con, "pieces", {name: to_map(a, raster.transform) for name, a in areas.items()}
        )
        flags = ("all_touched", "crop", "masked")
        how = {flag: bool(bench.rng.integers(2)) for flag in flags}
        options = {"aois": "pieces", "geometry_crs": raster.crs} | how
        _windows_of(bench, row, "made", path, raster.bands, areas, options, case=str(raster))
    yield row


def _made(bench: Bench, **fixed: Any) -> tuple[Raster, Path]:
    """A random raster as a file, and as the collection `made`."""
    raster = bench.raster(**fixed)
    path = Path(tempfile.mkdtemp(dir=bench.folder)) / "a.tif"
    raster.write(path)
    build_files(bench.con, "made", {"one": path}, raster.bands)
    return raster, path


def _windows_of(bench, row, collection, path, bands, areas, options, case=""):
    call = call_of("rasteret_read", collection, bands=list(bands), valid=True, **options)
    try:
        got = {r["area"]: decoded(r, bands) for r in rows_of(bench.con, f"FROM {call}")}
    except duckdb.Error as error:
        row.expect(call, holds=_is_refused(error), told=str(error))
        return
    row.calls += 1
    how = {
        name: options[name]
        for name in ("all_touched", "crop", "masked", "level")
        if name in options
    }
    for name, area in areas.items():
        told = f"{case} {call} area {area.wkt}".strip()
        want = expected_read(path, geometry_px=area, indexes=range(1, 1 + len(bands)), **how)
        one = got.get(name)
        if one is None or want is None:
            # where bounds overlap and areas do not: no row, or one without data
            is_outside = not touches(path, area)
            if not (is_outside or (one is None and want is None)):
                row.unlike += 1
                row.broken.append(f"{told}: a window is in one alone")
            continue
        values = np.stack([widened(v, want.pixels.dtype) for v in one.bands.values()])
        row.compare(told, values, want.pixels)
        if how.get("masked", True):
            unlike = int(np.count_nonzero(one.valid != want.valid))
            row.unlike += unlike
            row.expect(told, holds=not unlike, told=f"validity of {unlike} pixels")
        if one.transform is not None:
            size = max(abs(n) for i, n in enumerate(want.transform[:6]) if i not in (2, 5))
            moved = np.abs(np.array(one.transform[:6]) - want.transform[:6]).max()
            scale = max(abs(n) for n in want.transform[:6])
            near = moved <= 1e-9 * size + 1e-12 * scale
            row.expect(told, holds=bool(near), told=f"transform is {moved:.3g} off")


def pixels(bench: Bench) -> Iterator[Row]:
    """Pixels as rows, on the rasters' own grids."""
    row = Row(
        "rasteret_pixels", "random rasters and polygons: which pixels, values, NULL",
        "`rasterio.features.geometry_mask`, rasterio's values and masks",
    )  # fmt: skip
    for _ in range(3 * bench.cases):
        raster, path = _made(bench)
        areas = bench.areas(max(raster.height, raster.width), 4)
        touched = bool(bench.rng.integers(2))
        make_areas(
            bench.con, "pieces", {name: to_map(a, raster.transform) for name, a in areas.items()}
        )
        call = call_of("rasteret_pixels", "made", bands=raster.bands, aois="pieces",
                       geometry_crs=raster.crs, all_touched=touched)  # fmt: skip
        found = bench.con.execute(f"FROM {call}").fetchnumpy()
        row.calls += 1
        area_of = np.asarray(found["area"]).astype(str)
        whole = expected_read(path)
        for name, area in areas.items():
            case = f"{raster} FROM {call} area {area.wkt}"
            mine = area_of == name
            at = found["row"][mine], found["col"][mine]
            with opened(path) as file:
                inside = rasterio.features.geometry_mask(
                    [to_map(area, file.transform)], file.shape, file.transform,
                    all_touched=touched, invert=True,
                )  # fmt: skip
            there = np.zeros(inside.shape, bool)
            there[at] = True
            row.expect(case, holds=there.sum() == mine.sum(), told="a pixel came twice")
            row.compare(case, there & inside, there & inside, there, inside)
            for number, band in enumerate(raster.bands):
                value = np.ma.asarray(found[band])[mine]
                row.compare(
                    case, np.ma.getdata(value), whole.pixels[number][at],
                    ~np.ma.getmaskarray(value), whole.valid[number][at],
                )  # fmt: skip
            if len(at[0]):
                x, y = raster.transform @ (at[1] + 0.5, at[0] + 0.5)
                moved = max(np.abs(found["x"][mine] - x).max(), np.abs(found["y"][mine] - y).max())
                near = moved <= 1e-9 * ORIGINS[raster.crs][2] + 1e-12 * 1e7
                row.expect(case, holds=bool(near), told=f"x, y are {moved:.3g} off")
    yield row
    yield from coverage(bench)


def coverage(bench: Bench) -> Iterator[Row]:
    """The share of each pixel that is inside an area."""
    exact = Row("rasteret_pixels", "`coverage := true`, north-up rasters", "exactextract",
                "within 1e-6")  # fmt: skip
    cut = Row("rasteret_pixels", "`coverage := true`, any affine",
              "`shapely.intersection` of each pixel", "within 1e-6")  # fmt: skip
    for row, turns in ((exact, ("north-up",)), (cut, tuple(TURNS))):
        for _ in range(bench.cases):
            raster, path = _made(
                bench, turns=turns, hides="", nodata=None, count=1, is_sparse=False, dtype="uint8"
            )
            if row is exact and raster.crs != "EPSG:32643":
                raster = raster._replace(crs="EPSG:32643")  # that of test_zones.exactextracted
                raster.write(path)
                build_files(bench.con, "made", {"one": path}, raster.bands)
            areas = bench.areas(max(raster.height, raster.width), 5)
            placed = {name: to_map(a, raster.transform) for name, a in areas.items()}
            make_areas(bench.con, "pieces", placed)
            call = call_of("rasteret_pixels", "made", aois="pieces", geometry_crs=raster.crs,
                           coverage=True)  # fmt: skip
            rows = bench.con.execute(f"SELECT area, row, col, coverage FROM {call}").fetchnumpy()
            row.calls += 1
            theirs = {}
            if row is exact:
                theirs = test_zones.exactextracted(path, placed, ["coverage", "cell_id"])
            for name, area in areas.items():
                mine = np.asarray(rows["area"]).astype(str) == name
                got = np.zeros((raster.height, raster.width))
                got[rows["row"][mine], rows["col"][mine]] = rows["coverage"][mine]
                want = np.zeros(got.shape)
                if row is exact:
                    one = theirs[name]
                    want.ravel()[one["cell_id"].astype(int)] = one["coverage"]
                else:
                    down, across = np.mgrid[: raster.height, : raster.width]
                    cells = shapely.box(across, down, across + 1, down + 1)
                    want = shapely.area(shapely.intersection(cells, area))
                seen = np.maximum(got, want) > 1e-9
                case = f"{raster} FROM {call} area {area.wkt}"
                row.compare(case, got[seen], want[seen], got[seen] > 0, want[seen] > 0,
                            tolerance=1e-6)  # fmt: skip
        yield row


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
    pairs = bench.sample(pairs, min(len(pairs), bench.cases))
    rows = {}
    for kernel in test_output_grid.KERNELS:
        for dtype in TYPES:
            kind = "float" if dtype.startswith("float") else "integer"
            rule = KERNEL_RULES.get(kernel if kernel == "nearest" else "")
            rule = rule or KERNEL_RULES["average" if (kernel, kind) == ("average", "integer") else kind]
            for function in ("rasteret_read", "rasteret_pixels"):
                what = f"onto a grid, {kernel}, {dtype}, {len(pairs)} pairs of CRS"
                rows[function, kernel, dtype] = Row(function, what, "WarpedVRT", rule)
    for pair in pairs:
        source, affine, crs = test_output_grid.PAIRS[pair]
        for dtype in TYPES:
            data, nodata = test_output_grid.noise(dtype, int(bench.rng.integers(1000)))
            path = test_output_grid.write(
                bench.folder / "source.tif", data, f"EPSG:{source}", affine, nodata=nodata
            )
            build_files(bench.con, "made", {"one": path})
            for kernel in test_output_grid.KERNELS:
                factor = round(float(np.exp(bench.rng.uniform(np.log(0.5), np.log(6)))), 2)
                case = test_output_grid.warp(
                    bench.con, "made", path, nodata, crs, factor, kernel
                )
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
        case.got, case.expected, 0 if spread else None, case.at, case.apart
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
        found = test_points.sample(
            bench.con, "one", geometry_crs=32643, max_distance_pixels=reach
        )
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


def composites(bench: Bench) -> Iterator[Row]:
    """Values of many scenes, one grid."""
    con, folder = _demo(bench)
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
            random_polygon(bench.rng, 1.0), [0.025, 0, 0, 0.025, 77.98, 13.003]
        )
        options = {
            "bands": bands, "method": method, "period": period, "mask_band": "SCL",
            "mask_values": test_composite.CLOUDS, "geometry": shape.wkt, "valid": True,
            "overview": ["auto", "auto", "none", 1, 2][bench.rng.integers(5)],
        } | grid  # fmt: skip
        if not grid:
            del options["overview"]
        _composites_of(con, folder, rows[method], options)
    con.close()
    yield from rows.values()


def _composites_of(con, folder, row, options):
    call = call_of("rasteret_composite", "s2", **options)
    found = rows_of(con, f"FROM {call}")
    row.calls += 1
    known = test_composite.dates(con)
    levels = _levels(con, options)
    method, period = options["method"], options["period"]
    starts = {n: test_composite.start_of(con, moment, period) for n, (moment, _) in known.items()}
    area = shapely.from_wkt(options["geometry"]).segmentize(1e-5).__geo_interface__
    for one in found:
        mask = test_composite.inside(one, area)
        got = test_composite.arrays(one, options["bands"])
        for band in options["bands"]:
            layers = []
            near = np.zeros((one["height"], one["width"]), bool)
            for name in (n for n, start in starts.items() if start == one["period"]):
                path, level = folder / name / f"{band}.tif", levels.get((name, band), 0)
                values, valid = test_composite.warped(path, one, level)
                near |= _near_edges(path, level, one)
                path, level = folder / name / "SCL.tif", levels.get((name, "SCL"), 0)
                classes, known_class = test_composite.warped(path, one, level)
                near |= _near_edges(path, level, one)
                is_clear = ~np.isin(classes, test_composite.CLOUDS)
                layers.append((values, valid & known_class & is_clear & mask))
            want = test_composite.expected(method, layers)
            values, valid = got[band]
            is_mean = method in ("mean", "median")
            row.left_out += int(near.sum())
            row.compare(
                f"FROM {call}, {band}", np.where(valid, values, 0), want.filled(0), valid & ~near,
                ~np.ma.getmaskarray(want) & ~near, tolerance=1e-13 if is_mean else 0, is_relative=is_mean,
            )  # fmt: skip


def _near_edges(path: Path, level: int, one: dict[str, Any]) -> Any:
    """Pixels of a row whose centre is so near an edge in a file that rounding decides."""
    source = test_output_grid.level_grid(path, level)
    affine = Affine(*one["transform"])
    target = Grid(pyproj.CRS(one["crs"]), affine, one["width"], one["height"])
    apart = 1e-6 + warp_oracle.apart_px(target, source)  # 1e-6 is the tolerance of a WarpedVRT
    near = np.zeros((one["height"], one["width"]), bool)
    for place in locate(target, target.window, source):
        near |= np.abs(place - np.round(place)) < 2 * apart
    return near


def _levels(con: Any, options: dict[str, Any]) -> dict[tuple[str, str], int]:
    """The level of each record and band that the plan names."""
    names = ("geometry", "bbox", "crs", "resolution", "overview")
    asked = {name: options.get(name) for name in names}
    call = call_of("rasteret_plan", "s2", **asked)
    found = con.execute(f"SELECT DISTINCT id, band, level FROM {call}").fetchall()
    return {(record, band): level for record, band, level in found}


def _demo(bench: Bench) -> tuple[Any, Path]:
    """The demo's scenes as collection `s2`, on a connection of its own."""
    folder = bench.folder / "s2"
    items = write_scenes(folder)
    con = rasteret_sql.connect(workspace=bench.folder / "s2_workspace")
    con.execute("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": str(items)})
    con.fetchall()
    return con, folder


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
        size, stride = (int(n) for n in bench.rng.integers(7, 40, 2))
        _chips_of(bench, row, "made", path, size, stride, int(bench.rng.integers(3)))
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
        row.expect(case, holds=_is_refused(error), told=str(error))
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
    con, folder = _demo(bench)
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
            levels = _levels(con, grid)
            for one in found[:: 1 + len(found) // 12]:
                _stack_of(row, f"FROM {call}", folder, one, bands, levels)
    con.close()
    yield from rows.values()


def _stack_of(row, case, folder, one, bands, levels):
    records = one.get("record_ids") or [one["record_id"]]
    arrays = test_chip_stacks.arrays(one | {"record_ids": records}, bands)
    for band, (values, valid) in arrays.items():
        for layer, name in enumerate(records):
            want, there = test_chip_stacks.warped(
                folder / name / f"{band}.tif", one, levels.get((name, band), 0)
            )
            told = f"{case}, {one['chip_id']}, {name}, {band}"
            near = _near_edges(folder / name / f"{band}.tif", levels.get((name, band), 0), one)
            row.left_out += int(near.sum())
            row.compare(told, values[layer], want, valid[layer] & ~near, there & ~near)


def histograms(bench: Bench) -> Iterator[Row]:
    """Bins of values."""
    row = Row("rasteret_histogram", "random rasters under random polygons", "`numpy.histogram`",
              "counts and edges equal")  # fmt: skip
    for _ in range(3 * bench.cases):
        raster, path = _made(bench)
        areas = bench.areas(max(raster.height, raster.width), 4)
        placed = {name: to_map(area, raster.transform) for name, area in areas.items()}
        make_areas(bench.con, "pieces", placed)
        touched = bool(bench.rng.integers(2))
        options = {"bins": int(bench.rng.integers(1, 40)), "all_touched": touched}
        if bench.rng.integers(2):
            options["value_range"] = [10, int(bench.rng.integers(20, 120))]
        call = call_of("rasteret_histogram", "made", bands=raster.bands, aois="pieces",
                       geometry_crs=raster.crs, **options)  # fmt: skip
        found = rows_of(bench.con, f"FROM {call}")
        row.calls += 1
        for (name, area), band in ((a, b) for a in areas.items() for b in raster.bands):
            own = [one for one in found if (one["area"], one["band"]) == (name, band)]
            _bins_of(row, f"{raster} FROM {call} area {area.wkt}", own, path, area,
                     raster.bands.index(band), options)  # fmt: skip
    yield row
    row = Row("rasteret_histogram", "real files, whole", "`numpy.histogram`",
              "counts and edges equal")  # fmt: skip
    for path in bench.built(bench.real_files(2 * bench.cases)):
        if truth()[path]["dtype"].startswith("complex"):
            continue
        options = {"bins": int(bench.rng.integers(1, 300))}
        call = call_of("rasteret_histogram", of_record(path), bands=["band"], **options)
        try:
            found = rows_of(bench.con, f"FROM {call}")
        except duckdb.Error as error:
            row.expect(call, holds=_is_refused(error), told=str(error))
            continue
        row.calls += 1
        _bins_of(row, f"FROM {call}", found, DATA / path, None, 0, options)
    yield row


def _bins_of(row, case, found, path, area, index, options):
    want = expected_read(path, geometry_px=area, indexes=[index + 1],
                         all_touched=options.get("all_touched", False))  # fmt: skip
    if not found:
        row.expect(case, holds=want is None or not touches(path, area), told="no row")
        return
    if want is None:
        row.expect(case, holds=not any(one["count"] for one in found), told="rows of no pixel")
        return
    values = want.pixels[want.valid].astype(float)
    values = values[np.isfinite(values)]
    limits = options.get("value_range")
    count, edges = np.histogram(values, options["bins"], limits)
    row.compare(case, [one["count"] for one in found], count)
    if len(values) or limits:
        ours = [[one["low"], one["high"]] for one in found]
        row.compare(case, ours, np.stack([edges[:-1], edges[1:]], axis=1))


def previews(bench: Bench) -> Iterator[Row]:
    """Pictures."""
    oracle = "NumPy over rasterio's read of the overview"
    rule = "transparency equal, colours within 1, at most 0.1 % differ"
    row = Row("rasteret_preview", "random rasters and widths, percentiles or `rescale`", oracle,
              rule)  # fmt: skip
    for number in range(bench.cases):
        height, width = (int(n) for n in bench.rng.integers(40, 260, 2))
        path = test_read.write(
            bench.folder / "preview.tif",
            test_read.noise((1, height, width), low=0, high=6000, seed=number),
            overviews=[2, 4], nodata=3,
        )  # fmt: skip
        build_files(bench.con, "made", {"a": path})
        low, high = sorted(bench.rng.choice(6000, 2, replace=False).tolist())
        rescale = [low, high] if number % 2 else None
        _preview_of(bench, row, "made", path, int(bench.rng.integers(10, 90)), rescale)
    _one_in_a_thousand(row)
    yield row
    row = Row("rasteret_preview", "real files, percentiles", oracle, rule)
    for path in bench.built(bench.real_files(bench.cases)):
        with opened(DATA / path) as file:
            is_class = file.colorinterp[0].name == "palette"
        if not is_class and not truth()[path]["dtype"].startswith("complex"):
            width = int(bench.rng.integers(10, 60))
            _preview_of(bench, row, of_record(path), DATA / path, width, None)
    _one_in_a_thousand(row)
    yield row


def _one_in_a_thousand(row: Row) -> None:
    row.expect("all pictures", holds=row.unequal <= 0.001 * row.values,
               told=f"{row.unequal} of {row.values} colours differ")  # fmt: skip


def _preview_of(bench, row, collection, path, width, rescale):
    call = call_of("rasteret_preview", collection, bands=["band"], width=width, rescale=rescale)
    case = f"FROM {call}"
    STORE.clear()
    try:
        (one,) = rows_of(bench.con, f"FROM {call}")
    except duckdb.Error as error:
        row.expect(case, holds=_is_refused(error), told=str(error))
        return
    row.calls += 1
    with opened(path) as file:
        full = file.height, file.width
        sizes = [file.width, *(-(-file.width // factor) for factor in file.overviews(1))]
    out = min(width, full[1])
    level = max(k for k, size in enumerate(sizes) if size >= out)
    row.expect(case, holds=one["level"] == level, told=f"level {one['level']}, expected {level}")
    whole = expected_read(path, indexes=[1], level=one["level"])
    known = whole.valid[0] & np.isfinite(whole.pixels[0])
    size = whole.pixels.shape[1:]  # of the level: rounding up may add a row of the picture
    shape = max(1, round(size[0] * out / size[1])), out
    row.expect(case, holds=(one["height"], one["width"]) == shape, told=f"shape is not {shape}")
    values, valid = test_preview.boxed(
        whole.pixels[0].astype(float), known, one["height"], one["width"]
    )
    got = test_preview.picture(one)
    row.compare(case, got[..., 3], np.where(valid, 255, 0))
    if not valid.any():
        return
    low, high = rescale or np.percentile(values[valid], [2, 98])
    if low < high:
        want = test_preview.bytes_of(values, low, high)
        row.compare(case, got[..., 0][valid], want[valid], tolerance=1)


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
        for kind in bench.sample(kinds, bench.cases):
            test_plan_equals_requests.write(served / f"{kind}.tif", kind, kinds[kind])
            url = server.url("scenes", f"{kind}.tif")
            build_files(bench.con, kind, {"one": url}, test_plan_equals_requests.BANDS)
            for name, row in rows.items():
                for level in (0, 1):
                    _plan_of(bench, server, row, name, kind, level)
    yield from rows.values()


def _plan_of(bench, server, row, function, kind, level):
    helpers = test_plan_equals_requests
    areas = bench.areas(240, 4)
    is_zonal, is_whole = function == "rasteret_zonal_stats", function == "rasteret_read_tiles"
    make_areas(
        bench.con, "pieces", {n: to_map(a, helpers.TRANSFORM) for n, a in areas.items()}
    )
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


COMPARISONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "plans": plans,
    "tiles": read_tiles,
    "windows": read_windows,
    "pixels": pixels,
    "output grids": output_grids,
    "points": sample_points,
    "zones": zonal_stats,
    "composites": composites,
    "chips": chips,
    "histograms": histograms,
    "previews": previews,
}


def read_functions() -> list[str]:
    """Names of all functions that read pixels."""
    return [name for name, one in FUNCTIONS.items() if one.file == READS_FILE]


def collect(cases: int = CASES, seed: int = SEED, only: str | None = None) -> list[Row]:
    """Run the comparisons; ``only`` names one."""
    rows: list[Row] = []
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, compare in COMPARISONS.items():
                if only in (None, name):
                    rows += _run(name, compare, cases, seed)
    finally:
        logging.disable(logging.NOTSET)
    return rows


def _run(
    name: str, compare: Callable[[Bench], Iterator[Row]], cases: int, seed: int
) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        con = rasteret_sql.connect(workspace=Path(folder) / "workspace", config={"threads": 2})
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        STORE.clear()
        started = time.monotonic(), time.process_time()
        try:
            rows = list(compare(Bench(con, Path(folder), rng, cases)))
        finally:
            con.close()
    seconds, cpu = time.monotonic() - started[0], time.process_time() - started[1]
    calls = sum(row.calls for row in rows)
    print(f"{name}: {calls} calls, {seconds:.0f} s, {cpu:.0f} s of CPU", file=sys.stderr)
    return rows


def failures(rows: list[Row]) -> list[str]:
    """What breaks a rule, and functions that have no row."""
    found = []
    for row in rows:
        told = list(dict.fromkeys(row.broken))
        found += [f"{row.function}, {row.what}: {one}" for one in told[:_TOLD]]
        if len(told) > _TOLD:
            found.append(f"{row.function}, {row.what}: and {len(told) - _TOLD} more")
    found += [f"{row.function}, {row.what}: nothing was compared" for row in rows if not row.values]
    return found


HEAD = """\
# How the reads were checked

Each function that reads pixels is compared with an independent program on real files and on random
rasters, windows, polygons, points and pairs of CRS. Differences are counted as they are.

`make agreement` runs the cases and writes this page; it fails where a rule is broken.
`python tests/reading/agreement.py --cases 2` is a quick run. What decodes of each codec and type of
sample is in [formats.md](formats.md).

## Oracles

| oracle | what it decides |
| --- | --- |
| rasterio `read(window=)`, `rasterio.mask.mask`, `geometry_mask` | values, nodata and masks, windows, pixels inside a polygon |
| WarpedVRT over the same overview | pixels on another grid: nearest with `tolerance=1e-6`, else 1e-10, as GDAL's default moves up to 3 % of the nearest pixels |
| `rasterio.sample` | the pixel of a point |
| exactextract | share of a pixel inside a polygon, statistics by share |
| rasterstats | statistics of pixels by their centre, or touched |
| shapely | each pixel cut out of the polygon |
| `pyproj.Geod` | square metres on the ellipsoid |
| NumPy | quantiles, statistics, composites, histograms, search of neighbours, matches in time, stretch of pictures: written out in the tests |
| the log of a local range server | requests |

GDAL and `rasteret_sql` read the same files, so an error in a file's own header is in both.
"""
NOTES = """\
* **values**: compared, pixels for arrays, statistics for zones, bins and edges for histograms,
  requests for plans.
* **in one alone**: values that hold data, or rows that exist, in one of the two alone.
* **differ**, **largest difference**: values that are not equal, in the unit of the value; where the
  rule says relative, divided by the oracle's value if that is over 1.
* A real file that GDAL reads without loss is compared exactly; decoders of JPEG and WebP differ.
* Integers on another grid: GDAL adds up in float32, so that a sum near a half rounds either way.
"""


def versions() -> str:
    """The versions of the oracles."""
    names = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    names.insert(1, f"GDAL {rasterio.__gdal_version__}")
    names.insert(2, f"PROJ {rasterio.__proj_version__} (pyproj: {pyproj.proj_version_str})")
    return ", ".join(names)


def render(rows: list[Row], cases: int, seed: int) -> str:
    """The table, between its markers."""
    lines = [
        BEGIN, "", f"Seed {seed}, {cases} cases. {versions()}.", "",
        "| function | what | oracle | calls | values | in one alone | differ "
        "| largest difference | rule |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in sorted(rows, key=lambda row: list(PAGES).index(row.function)):
        name = f"[{row.function}]({PAGES[row.function]})"
        largest = f"{row.largest:.2g}" if row.largest else "0"
        told = "" if not row.broken else " (**broken**)"
        lines.append(
            f"| {name} | {row.what} | {row.oracle} | {row.calls:,} | {row.values:,} "
            f"| {row.unlike:,} | {row.unequal:,} | {largest} | {row.rule}{told} |"
        )
    left_out = sum(row.left_out for row in rows)
    total = sum(row.calls for row in rows), sum(row.values for row in rows)
    lines += [
        "", f"In all {total[0]:,} calls and {total[1]:,} values. Left out were {left_out:,} pixels "
        "on other grids: their centre is so near the edge of a source pixel that the two builds of "
        "PROJ, or the tolerance of the WarpedVRT, decide.", "", END,
    ]  # fmt: skip
    return "\n".join(lines)


def page(table: str) -> str:
    """The whole page."""
    return f"{HEAD}\n## What was seen\n\n{table}\n\n{NOTES}"


def main(arguments: list[str] | None = None) -> int:
    """Run, print or write the table; 1 where a rule is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page")
    parser.add_argument("--cases", type=int, default=CASES, help="rasters or files of a comparison")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", choices=list(COMPARISONS), help="one comparison")
    options = parser.parse_args(arguments)
    rows = collect(options.cases, options.seed, options.only)
    table = render(rows, options.cases, options.seed)
    if options.write and not options.only:
        options.write.write_text(page(table), encoding="utf-8")
    else:
        print(table)
    broken = failures(rows)
    print("\n".join(broken) or "every rule holds", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
