"""Peak memory of reads that are much larger than the budget of 256 MiB.

    python benchmarks/memory.py [--folder build/bench] [--gigabytes 20] [--append RESULTS.md]

A collection names the scenes of `scenes.py` under as many URLs as make so many decoded bytes.
Each read runs in a process of its own, after the same read of one scene: what is shown is the
peak of its resident memory, above that after the small read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from cases import SIZE_PX, load_items
from latency_server import LatencyServer
from measure import peak_mib

import rasteret_sql
from rasteret_sql.duck.names import IS_DUCKDB_2

SCENE_BYTES = SIZE_PX**2 * 2
GOAL_MIB = 256 * 1.3
# The rows of DuckDB's Parquet row groups are kept until a group is written: with BLOBs of 2 MB
# the usual 122,880 rows never fit, so a group ends at so many bytes; that needs order to be free.
# DuckDB 2.0 holds up to 180 MiB that wait for a slow disk, unless it writes at once.
COPY_SETTINGS = ("SET preserve_insertion_order = false",)
if IS_DUCKDB_2:
    COPY_SETTINGS += ("SET async_threads = 0",)
# Points and corners of parcels: random places of the grid that all A scenes have.
PLACES = (
    "CREATE TABLE {{name}} AS SELECT i AS n, 799980 + random() * 40000 AS x, "
    "1500000 - 1000 - random() * 39000 AS y FROM range({n:d}) t(i)"
)
SQUARES = (
    "CREATE TABLE parcels AS SELECT n, 'POLYGON((' || x || ' ' || y || ', ' || x + 100 || ' ' || y "
    "|| ', ' || x + 100 || ' ' || y + 100 || ', ' || x || ' ' || y + 100 || ', ' || x || ' ' || y "
    "|| '))' AS geometry FROM corners"
)


class Case(NamedTuple):
    """A read of `{name}`, the collection of one scene or of all; `{part}` is `small` of the one.

    `own_mib` is what the points or zones themselves take, besides the budget.
    """

    title: str
    query: str
    setup: tuple[str, ...] = ()
    small: str = ""
    own_mib: int = 0


READS = {
    "aggregate": Case(
        "`sum()` and `avg()` of `rasteret_pixels`",
        "SELECT count(*), sum(B04), avg(B04) FROM rasteret_pixels('{name}', bands := ['B04'])",
    ),
    "copy": Case(
        "`COPY (rasteret_read_tiles) TO` Parquet",
        "COPY (SELECT id, tile_row, tile_col, valid_count, pixels FROM rasteret_read_tiles("
        "'{name}', bands := ['B04'])) TO '{output}' (FORMAT parquet, ROW_GROUP_SIZE_BYTES '4MB')",
        COPY_SETTINGS,
    ),
    "points": Case(
        "`rasteret_sample_points`, a million points in each scene",
        "SELECT count(*), sum(B04) FROM rasteret_sample_points('{name}', "
        "'SELECT x, y FROM places {part}', bands := ['B04'], geometry_crs := 'EPSG:32643')",
        (PLACES.format(n=1_000_000).format(name="places"),),
        small="LIMIT 1000",
        own_mib=100,
    ),
    "match": Case(
        "`rasteret_sample_points`, a million points with `match := 'nearest'`",
        "SELECT count(*), sum(B04) FROM rasteret_sample_points('{name}', "
        "'SELECT x, y, TIMESTAMP ''2024-02-01'' + INTERVAL (n % 90) DAY AS day FROM places "
        "{part}', bands := ['B04'], match := 'nearest', time_column := 'day', "
        "geometry_crs := 'EPSG:32643')",
        (PLACES.format(n=1_000_000).format(name="places"),),
        small="LIMIT 1000",
        own_mib=150,
    ),
    "zones": Case(
        "`rasteret_zonal_stats`, 100,000 parcels in each scene",
        "SELECT count(*), sum(mean) FROM rasteret_zonal_stats('{name}', "
        "'SELECT n, geometry FROM parcels {part}', bands := ['B04'], "
        "geometry_crs := 'EPSG:32643')",
        (PLACES.format(n=100_000).format(name="corners"), SQUARES),
        small="LIMIT 1000",
    ),
    "composite": Case(
        "`rasteret_composite`, the median of all scenes",
        "SELECT count(*), sum(octet_length(B04)) FROM rasteret_composite('{name}', "
        "bands := ['B04'] {part})",
        small=", bbox := [77.9, 13.3, 77.901, 13.301]",
    ),
}


def build(folder: Path, work: Path, base: str, n_scenes: int) -> None:
    """Collections `one` and `all`: records of URLs that the server gives the same files under."""
    scenes = [item for item in load_items(folder, "") if item["id"].startswith("A")]
    records = []
    for number in range(n_scenes):
        record = json.loads(json.dumps(scenes[number % len(scenes)]))
        path = record["assets"]["B04"]["href"]
        record["id"] = f"R{number:05d}"
        record["assets"]["B04"]["href"] = f"{base}/a{number}{path}"
        records.append(record)
    with rasteret_sql.connect(workspace=work / "workspace") as con:
        for name, wanted in (("one", records[:1]), ("all", records)):
            path = work / f"{name}.ndjson"
            path.write_text("".join(json.dumps(record) + "\n" for record in wanted))
            query = (
                f"SELECT records, failed FROM rasteret_build_stac('{name}', stac_api := '{path}')"
            )
            assert con.execute(query).fetchall() == [(len(wanted), 0)]


def resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def measure(read: str, work: Path) -> dict:
    """Run a read of one scene, then of all; MiB before, and peak of the second."""
    con = rasteret_sql.connect(workspace=work / "workspace")
    output, case = work / "tiles.parquet", READS[read]
    for statement in case.setup:
        con.execute(statement)
    con.execute(case.query.format(name="one", output=output, part=case.small)).fetchall()
    before = resident_mib()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    began = time.perf_counter()
    answer = con.execute(case.query.format(name="all", output=output, part="")).fetchall()
    seconds = time.perf_counter() - began
    written = output.stat().st_size if output.exists() else 0
    return {
        "before_mib": before,
        "peak_mib": peak_mib(),
        "seconds": seconds,
        "count": answer[0][0],
        "written_bytes": written,
    }


def in_new_process(read: str, work: Path, timeout_s: float) -> dict:
    command = [sys.executable, __file__, "--measure", read, "--work", str(work)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=timeout_s)
    return json.loads(done.stdout)


def line(read: str, facts: dict, n_scenes: int) -> str:
    above = facts["peak_mib"] - facts["before_mib"]
    rate = n_scenes * SCENE_BYTES / 1e6 / facts["seconds"]
    goal = GOAL_MIB + READS[read].own_mib
    return (
        f"| {READS[read].title} | {n_scenes * SCENE_BYTES / 1e9:.1f} GB | {facts['seconds']:,.0f} "
        f"| {rate:,.0f} | {facts['before_mib']:,.0f} | {above:,.0f} | {goal:.0f} "
        f"| {'yes' if above <= goal else 'no'} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="of scenes.py")
    parser.add_argument("--gigabytes", type=float, default=20, help="decoded bytes of each read")
    parser.add_argument("--reads", nargs="+", choices=list(READS), default=list(READS))
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of each read")
    parser.add_argument("--append", type=Path, help="add the table to this file")
    parser.add_argument("--measure", choices=list(READS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.work)))
        return
    n_scenes = max(1, round(options.gigabytes * 1e9 / SCENE_BYTES))
    table = (
        "| read | decoded | s | MB/s | MiB before | peak MiB above | goal | met |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    # Beside the scenes: what COPY writes may not fit where temporary files are.
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as temporary,
        LatencyServer(options.folder) as http,
    ):
        http.set(latency_ms=5)
        work = Path(temporary)
        build(options.folder, work, http.base, n_scenes)
        for read in options.reads:
            facts = in_new_process(read, work, options.timeout)
            assert read != "aggregate" or facts["count"] == n_scenes * SIZE_PX**2, facts
            table += line(read, facts, n_scenes)
    print(table)
    if options.append:
        with options.append.open("a") as file:
            file.write(
                f"\n## Memory of reads of {options.gigabytes:g} GB\n\nThe budget is 256 MiB; 30 % "
                f"more are allowed, and what a million points take themselves.\n\n{table}"
            )


if __name__ == "__main__":
    main()
