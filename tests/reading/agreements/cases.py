"""What a comparison works with: rows of the table, random rasters, real files."""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyproj
import shapely
from grid import warp_oracle
from reading import (
    test_output_grid,
)
from reading.read_oracle import (
    LOSSY,
    build_files,
    call_of,
    random_polygon,
)
from reading.test_read_property import LAYOUTS, NODATA, ORIGINS, TURNS, Raster

import rasteret_sql
from rasteret_sql.demo.scenes import write_scenes
from rasteret_sql.grid.warp import Grid, locate
from rasteret_sql.units import Affine

DATA = Path(__file__).parents[4] / "shared" / "data"
MAX_PIXELS = 1_500_000


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
        off = off_by(got[both], want[both])
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


def off_by(got: Any, want: Any) -> Any:
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

    def few(self, things: Any, turn: int) -> list[Any]:
        """All of a list; of a comparison of one case every other one, in turns."""
        return list(things) if self.cases > 1 else list(things)[turn % 2 :: 2]

    def real_files(self, n: int, *, lossy: bool = False, overviews: bool = False) -> list[str]:
        """Paths of real files that GDAL reads, of moderate size."""
        return self.sample(real_files(lossy=lossy, overviews=overviews), n)

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


_NO_ORACLE = {
    # GDAL cuts its strip into 2001, and says of the first alone that it is in the file
    "geotiff/gdal/gcore/data/one_strip_nobytecount.tif",
}
_TRUTH: dict[str, Any] = {}


def truth() -> dict[str, Any]:
    """What GDAL says of each real file."""
    if not _TRUTH:
        _TRUTH.update(json.loads((DATA / "truth.json").read_text())["files"])
    return _TRUTH


def real_files(*, lossy: bool = False, overviews: bool = False) -> list[str]:
    """Real files that GDAL reads, of at most 1.5 million values; ``overviews``: that have some."""
    found = []
    for path, entry in truth().items():
        if entry.get("error") or not entry.get("bands") or path in _NO_ORACLE:
            continue
        if (
            entry["width"] * entry["height"] * min(entry["count"], 4) <= MAX_PIXELS
            and not any(band.get("error") for band in entry["bands"])
            and (entry.get("compression") in LOSSY) == lossy
            and (bool(entry["overviews"]) or not overviews)
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


def is_refused(error: duckdb.Error) -> bool:
    """Whether a file is of a kind that docs/formats.md lists as refused."""
    return "not supported" in str(error) or "not supported" in repr(error)


def made_raster(bench: Bench, **fixed: Any) -> tuple[Raster, Path]:
    """A random raster as a file, and as the collection `made`."""
    raster = bench.raster(**fixed)
    path = Path(tempfile.mkdtemp(dir=bench.folder)) / "a.tif"
    raster.write(path)
    build_files(bench.con, "made", {"one": path}, raster.bands)
    return raster, path


def demo_scenes(bench: Bench) -> tuple[Any, Path]:
    """The demo's scenes as collection `s2`, on a connection of its own."""
    home = Path(_demo_home().name)
    return rasteret_sql.connect(workspace=home / "workspace"), home / "s2"


@functools.cache
def _demo_home() -> tempfile.TemporaryDirectory[str]:
    """The scenes and the collection, which several comparisons of a process read."""
    home = tempfile.TemporaryDirectory()
    items = write_scenes(Path(home.name) / "s2")
    con = rasteret_sql.connect(workspace=Path(home.name) / "workspace")
    con.execute("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": str(items)})
    con.fetchall()
    con.close()
    return home


def planned_levels(con: Any, options: dict[str, Any]) -> dict[tuple[str, str], int]:
    """The level of each record and band that the plan names."""
    names = ("geometry", "bbox", "crs", "resolution", "overview")
    asked = {name: options.get(name) for name in names}
    call = call_of("rasteret_plan", "s2", **asked)
    found = con.execute(f"SELECT DISTINCT id, band, level FROM {call}").fetchall()
    return {(record, band): level for record, band, level in found}


def near_edges(path: Path, level: int, one: dict[str, Any]) -> Any:
    """Pixels of a row whose centre is so near an edge in a file that rounding decides."""
    source = test_output_grid.level_grid(path, level)
    affine = Affine(*one["transform"])
    target = Grid(pyproj.CRS(one["crs"]), affine, one["width"], one["height"])
    apart = 1e-6 + warp_oracle.apart_px(target, source)  # 1e-6 is the tolerance of a WarpedVRT
    near = np.zeros((one["height"], one["width"]), bool)
    for place in locate(target, target.window, source):
        near |= np.abs(place - np.round(place)) < 2 * apart
    return near
