"""Closing, exiting and abandoning while a read runs: no abort, no hang, no short result."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import heeding_ctrl_c
from servers.range_server import RangeServer

import rasteret_sql
from examples import examples, in_turns
from rasteret_sql.duck.names import IS_DUCKDB_2

CHECKOUT = Path(__file__).parents[2]
SCENARIOS = Path(__file__).with_name("closing_scenarios.py")
N_TRIES = int(os.environ.get("RASTERET_CLOSING_TRIES", examples("1", "2")))
"""Of each scenario; 20 and more on a quiet machine show what is rare."""

MOST_SECONDS = 25  # on a busy machine; alone it takes a second; a hang ends at 30


@pytest.fixture(scope="module")
def workspace(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("closing")
    items = scenes / "items.json"
    con = rasteret_sql.connect(workspace=folder / "workspace")
    con.execute("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": str(items)})
    con.fetchall()
    con.close()
    return folder / "workspace"


@pytest.fixture(scope="module")
def origin(workspace):
    with RangeServer(scenes=workspace) as server:
        yield server.origin


@pytest.fixture(scope="module")
def forks(workspace, origin):
    """A process that has imported everything, and that each try is a fork of."""
    with subprocess.Popen(
        [sys.executable, SCENARIOS, workspace, origin, str(N_TRIES), examples("8", "30")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    ) as process:
        yield process


def tries(forks, scenario, source):
    """Exit code, seconds and output of each try; one that hangs is ended after 30 seconds."""
    forks.stdin.write(f"{scenario} {source}\n")
    forks.stdin.flush()
    results = json.loads(forks.stdout.readline())
    assert len(results) == N_TRIES
    return results


SCENARIOS_OF_BOTH = ("close", "close_elsewhere", "close_parent", "close_cursor", "end",
    "half_deleted", "half_dropped", "half_closed", "half_end")  # fmt: skip
SCENARIOS_IN_TURNS = ("with", "end_of_two", "exit", "uncaught")
"""These end as ``close`` and ``end`` do."""
SOURCES = ("local", "silent") if IS_DUCKDB_2 else ("silent", "local")
EXIT_CODES = {"exit": 3, "uncaught": 1}


@pytest.mark.parametrize(
    ("scenario", "source"),
    [
        *itertools.product(SCENARIOS_OF_BOTH, SOURCES),
        *in_turns(SCENARIOS_IN_TURNS, SOURCES),
    ],
)
def test_nothing_aborts_or_hangs(scenario, source, forks):
    code = EXIT_CODES.get(scenario, 0)
    for got, seconds, output in tries(forks, scenario, source):
        assert got == code, output
        assert seconds < MOST_SECONDS
        assert "rows" not in output  # of a sum over a part of the pixels
        if scenario in ("half_closed", "half_end"):  # there the result itself is held at the end
            output = output.split("nanobind:")[0]
        assert "nanobind" not in output
        if scenario.startswith(("close", "with")):
            assert "interrupt" in output
        lines = [line for line in output.splitlines() if not line.startswith(("error", "still"))]
        if code != 1:
            assert lines == []
        else:
            assert lines[-1] == "ValueError: planned"


def in_a_process(code, *, seconds=60):
    """Output of Python code in a process of its own."""
    done = subprocess.run(
        heeding_ctrl_c("-c", code),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


STATEMENT = """
import signal, sys, threading, time, duckdb, rasteret_sql
con = rasteret_sql.connect(workspace={workspace!r}, signals={signals})
before = signal.signal(signal.SIGINT, signal.default_int_handler) and signal.default_int_handler
seen = []
watch = threading.Thread(target=lambda: [
    seen.append(signal.getsignal(signal.SIGINT) is before) or time.sleep(0.01)
    for _ in range(60)])
watch.start()
con.execute("SELECT count(B04) FROM rasteret_pixels('s2')").fetchall()
watch.join()
deadline = time.monotonic() + 10
while signal.getsignal(signal.SIGINT) is not before and time.monotonic() < deadline:
    time.sleep(0.01)
print(all(seen), signal.getsignal(signal.SIGINT) is before)
"""


def test_the_handler_of_sigint_is_ours_only_while_a_statement_runs(workspace):
    code = STATEMENT.format(workspace=str(workspace), signals=True)
    assert in_a_process(code) == ["False", "True"]


def test_signals_can_be_left_alone(workspace):
    code = STATEMENT.format(workspace=str(workspace), signals=False)
    assert in_a_process(code) == ["True", "True"]


CELL = """
import os, signal, threading, time, duckdb, rasteret_sql
from rasteret_sql.duck.stream import n_pulling
con = rasteret_sql.connect(workspace={workspace!r}, config={{"threads": 2}})
signal.signal(signal.SIGINT, signal.default_int_handler)  # as ipykernel does before a cell
def press():
    while not n_pulling(lambda _owner: True):
        time.sleep(0.01)
    time.sleep(0.1)
    pressed.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
pressed = []
threading.Thread(target=press, daemon=True).start()
try:
    try:
        con.execute({query!r}).fetchall()
        print("rows")
    except (duckdb.Error, RuntimeError):
        print("and it is a")  # where the interpreter looks for signals
except KeyboardInterrupt:
    print("KeyboardInterrupt")
print(time.monotonic() - pressed[0] < 5, con.execute("SELECT 42").fetchall()[0][0])
"""


def test_ctrl_c_stops_a_cell_whose_kernel_replaced_the_handler(workspace, origin):
    query = (
        "SELECT sum(B04) FROM rasteret_pixels('SELECT * REPLACE ({B04: {href: "
        f"''{origin}/hang/'' || id, band_index: 0}}}} AS assets) FROM s2', bands := ['B04'])"
    )
    code = CELL.format(workspace=str(workspace), query=query)
    assert in_a_process(code) == ["KeyboardInterrupt", "True", "42"]
