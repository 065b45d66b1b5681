"""What each read gives beside an independent oracle: run over many cases, written as a table.

python tests/reading/agreement.py --write docs/reads.md
python tests/reading/agreement.py --cases 2
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import multiprocessing
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyproj
import rasterio
from reading.agreements.cases import DATA as DATA
from reading.agreements.cases import Bench, Row
from reading.agreements.chips import chips
from reading.agreements.composites import composites
from reading.agreements.output_grids import output_grids
from reading.agreements.pixels import pixels
from reading.agreements.plans import plans
from reading.agreements.points import sample_points
from reading.agreements.summaries import histograms, previews
from reading.agreements.windows import read_tiles, read_windows
from reading.agreements.zone_kinds import grids_and_masks, lines_and_points, scaled_values
from reading.agreements.zones import zonal_stats

import rasteret_sql
from rasteret_sql.duck import functions as functions  # declares them
from rasteret_sql.duck.declarations import FUNCTIONS
from rasteret_sql.reading.tile_store import STORE

CASES = 12
SEED = 1
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
COMPARISONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "plans": plans,
    "tiles": read_tiles,
    "windows": read_windows,
    "pixels": pixels,
    "output grids": output_grids,
    "points": sample_points,
    "zones": zonal_stats,
    "lines": lines_and_points,
    "masks": grids_and_masks,
    "scaled": scaled_values,
    "composites": composites,
    "chips": chips,
    "histograms": histograms,
    "previews": previews,
}


def read_functions() -> list[str]:
    """Names of all functions that read pixels."""
    return [
        name
        for name, one in FUNCTIONS.items()
        if one.file == READS_FILE and "collection" in (p.name for p in one.parameters)
    ]


def collect(
    cases: int = CASES, seed: int = SEED, only: str | None = None, jobs: int = 1
) -> list[Row]:
    """Run the comparisons, several processes at a time; ``only`` names one."""
    names = [name for name in COMPARISONS if only in (None, name)]
    if jobs == 1:
        return [row for name in names for row in run(name, cases, seed)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = [pool.submit(run, name, cases, seed) for name in names]
        return [row for one in running for row in one.result()]


def run(name: str, cases: int, seed: int) -> list[Row]:
    """Run one comparison, in a folder and with a connection of its own."""
    logging.disable(logging.CRITICAL)
    STORE.clear()
    started = time.monotonic(), time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            con = rasteret_sql.connect(workspace=Path(folder) / "workspace", config={"threads": 2})
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            try:
                rows = list(COMPARISONS[name](Bench(con, Path(folder), rng, cases)))
            finally:
                con.close()
    finally:
        logging.disable(logging.NOTSET)
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


def versions() -> str:
    """The versions of the oracles."""
    names = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    names.insert(1, f"GDAL {rasterio.__gdal_version__}")
    names.insert(2, f"PROJ {rasterio.__proj_version__} (pyproj: {pyproj.proj_version_str})")
    return ", ".join(names)


def render(rows: list[Row], cases: int, seed: int) -> str:
    """The table, between its markers."""
    columns = ("function", "what", "oracle", "calls", "values", "in one alone", "differ",
               "largest difference", "rule")  # fmt: skip
    lines = [BEGIN, "", f"Seed {seed}, {cases} cases. {versions()}.", ""]
    lines += [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
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
    told = f"In all {total[0]:,} calls and {total[1]:,} values. Left out: {left_out:,} pixels."
    lines += ["", told, "", END]
    return "\n".join(lines)


def renewed(text: str, table: str) -> str:
    """A page with its table renewed."""
    before, rest = text.split(BEGIN)
    return before + table + rest.split(END)[1]


def main(arguments: list[str] | None = None) -> int:
    """Run, print or write the table; 1 where a rule is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="renew the table of a page")
    parser.add_argument("--cases", type=int, default=CASES, help="rasters or files of a comparison")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", choices=list(COMPARISONS), help="one comparison")
    options = parser.parse_args(arguments)
    rows = collect(options.cases, options.seed, options.only, options.jobs)
    table = render(rows, options.cases, options.seed)
    if options.write and not options.only:
        text = options.write.read_text(encoding="utf-8")
        options.write.write_text(renewed(text, table), encoding="utf-8")
    else:
        print(table)
    broken = failures(rows)
    print("\n".join(broken) or "every rule holds", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
