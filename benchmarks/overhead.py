"""What a statement costs before the first pixel: imports, cursors, binds and plans.

    python benchmarks/overhead.py [--folder build/bench] [--append benchmarks/RESULTS.md]

No statement here makes a request. Collections of many records are synthetic (`synthetic.py`).
"First use" is the first statement of a new process on a collection of a million records, with
what Python imports for it. Its bytes (`rchar` of /proc/self/io), as a share of the files, are
those of a process that has run a statement on another collection, and so counts no imports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cases import AREA_A, AREA_PX, CRS, Window, load_cogs, load_items, scene_ids
from latency_server import make_realtime
from synthetic import BAND, template, write

import rasteret_sql

SCENES_RECORDS = 36
FIRST_USE = """
import json, sys, time
import rasteret_sql
from pathlib import Path
con = rasteret_sql.connect(workspace=sys.argv[1])
def read_bytes():
    return int(Path("/proc/self/io").read_text().split()[1])
if len(sys.argv) > 3:
    con.sql(sys.argv[3]).fetchall()
before, began = read_bytes(), time.perf_counter()
n_tiles = len(con.sql(sys.argv[2]).to_arrow_table())
print(json.dumps([time.perf_counter() - began, read_bytes() - before, n_tiles]))
"""
CONNECT = """
import sys, time
began = time.perf_counter()
import rasteret_sql
rasteret_sql.connect(workspace=sys.argv[1])
print(time.perf_counter() - began)
"""


class Figure(NamedTuple):
    """One line of the table; values and goal are in `unit`."""

    name: str
    values: list[float]
    goal: float
    unit: str

    def line(self) -> str:
        middle = statistics.median(self.values)
        spread = f"{self.number(min(self.values))}-{self.number(max(self.values))}"
        meets = middle >= self.goal if "/s" in self.unit else middle <= self.goal
        verdict = "yes" if meets else "no"
        values = f"{self.number(middle)} ({spread})"
        return f"| {self.name} | {values} | {self.unit} | {self.number(self.goal)} | {verdict} |"

    @staticmethod
    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds(call: Callable[[], object], repetitions: int) -> list[float]:
    """Of each repetition, after one that is not counted."""
    call()
    taken = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def in_ms(values: list[float]) -> list[float]:
    return [value * 1e3 for value in values]


def in_new_process(code: str, *arguments: str) -> str:
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    return done.stdout


def build_scenes(folder: Path, work: Path, workspace: Path) -> None:
    """The 36 records of the read benchmarks, from local files, as collection `s2`."""
    items = work / "items.ndjson"
    found = load_items(folder, str(folder.resolve()))
    items.write_text("".join(json.dumps(item) + "\n" for item in found))
    with rasteret_sql.connect(workspace=workspace) as con:
        query = f"SELECT records FROM rasteret_build_stac('s2', stac_api := '{items}')"
        assert con.execute(query).fetchall() == [(SCENES_RECORDS,)]


def area(folder: Path) -> str:
    """The arguments that ask for the area of case a."""
    left, bottom, right, top = load_cogs(folder)["A00_B04"].bounds(
        Window(*AREA_A, AREA_PX, AREA_PX)
    )
    return f"bbox := [{left}, {bottom}, {right}, {top}], geometry_crs := '{CRS}'"


def statements(con, folder: Path, repetitions: int) -> list[Figure]:
    """Binds and plans in a connection where each statement ran before."""
    bands = f"bands := ['{BAND}']"
    one_area = f"{bands}, {area(folder)}"
    tile = "id, band, level, tile_row, tile_col, href, byte_offset, byte_count"
    few = f"SELECT {tile} FROM rasteret_plan('s2', {one_area}, ids := {scene_ids('a')})"
    read = f"FROM rasteret_read_tiles('s2', {one_area}, ids := {scene_ids('a')})"
    many = f"SELECT {tile} FROM rasteret_plan('many', {one_area})"
    whole = f"SELECT {tile} FROM rasteret_plan('wide', {bands})"

    def rows(query: str) -> int:
        return len(con.sql(query).to_arrow_table())

    n_few, n_many, n_whole = rows(few), rows(many), rows(whole)
    assert (n_few, n_many) == (30, 20_000), (n_few, n_many)
    cursor = seconds(lambda: con.cursor().close(), repetitions * 4)
    bind = seconds(lambda: con.execute(f"EXPLAIN {read}").fetchall(), repetitions)
    plan = seconds(lambda: rows(few), repetitions)
    plan_many = seconds(lambda: rows(many), min(repetitions, 5))
    plan_whole = seconds(lambda: rows(whole), min(repetitions, 3))
    rates = [n_whole / taken for taken in plan_whole]
    return [
        Figure("`con.cursor()`", in_ms(cursor), 3, "ms"),
        Figure("bind `rasteret_read_tiles` (`EXPLAIN`), 15 of 36 records", in_ms(bind), 10, "ms"),
        Figure("`rasteret_plan`, 15 of 36 records, 30 tiles", in_ms(plan), 10, "ms"),
        Figure("`rasteret_plan`, 10,000 records, 20,000 tiles", in_ms(plan_many), 150, "ms"),
        Figure(f"tiles planned, 10,000 whole records, {n_whole:,} tiles", rates, 1e6, "tiles/s"),
    ]


def first_use(
    folder: Path, work: Path, n_places: int, n_dates: int, *, is_realtime: bool
) -> list[Figure]:
    """The first statement on a large collection, with a box, a range of dates and clouds."""
    workspace = work / "large"
    n_bytes = write(workspace, "large", template(folder, work, "A00_B04"), n_places, n_dates)
    query = (
        "SELECT id, tile_row, tile_col, byte_offset FROM rasteret_plan("
        "'SELECT * FROM large WHERE \"eo:cloud_cover\" < 20', "
        f"bands := ['{BAND}'], {area(folder)}, date_range := ['2023-06-01', '2023-06-30'])"
    )
    if is_realtime:
        make_realtime(os.getpid())
    other = query.replace("FROM large", "FROM other").replace("2023-06-01", "2020-01-01")
    write(workspace, "other", template(folder, work, "A00_B04"), 1, 1)
    runs, used = [], []
    for _ in range(3):
        runs.append(json.loads(in_new_process(FIRST_USE, str(workspace), query)))
        used.append(json.loads(in_new_process(FIRST_USE, str(workspace), query, other)))
    assert all(n_tiles > 0 for *_, n_tiles in runs + used), runs
    count = f"{n_places * n_dates:,}"
    shares = [read / n_bytes * 100 for _, read, _ in used]
    name = f"first use of {count} records ({n_bytes / 1e6:,.0f} MB)"
    return [
        Figure(name, [taken for taken, *_ in runs], 1, "s"),
        Figure("bytes of the files that it reads", shares, 2, "%"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="of scenes.py")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--records", type=int, default=1_000_000, help="of the large collection")
    parser.add_argument("--rt", action="store_true", help="real-time priority (root)")
    parser.add_argument("--append", type=Path, help="add the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work, workspace = Path(temporary), Path(temporary, "workspace")
        empty = str(work / "empty")
        if options.rt:
            make_realtime(os.getpid())
        starts = [float(in_new_process(CONNECT, empty)) for _ in range(6)][1:]
        make_realtime(os.getpid(), on=False)
        figures = [Figure("`import rasteret_sql` and `connect()`", starts, 0.3, "s")]
        build_scenes(options.folder, work, workspace)
        write(workspace, "many", template(options.folder, work, "A00_B04"), 1, 10_000)
        write(workspace, "wide", template(options.folder, work, "H0"), 1, 10_000)
        with rasteret_sql.connect(workspace=workspace) as con:
            if options.rt:
                make_realtime(os.getpid())
            figures += statements(con, options.folder, options.repetitions)
            make_realtime(os.getpid(), on=False)
        if options.records:
            n_places = min(1000, options.records)
            figures += first_use(
                options.folder, work, n_places, options.records // n_places, is_realtime=options.rt
            )
    head = "| what | median (min-max) | unit | goal | met |\n| --- | --- | --- | --- | --- |\n"
    table = head + "".join(figure.line() + "\n" for figure in figures)
    print(table)
    if options.append:
        with options.append.open("a") as file:
            file.write(f"\n## Before the first pixel\n\nNo requests, warm.\n\n{table}")


if __name__ == "__main__":
    main()
