"""Closing, exiting and abandoning while a read runs: no abort, no hang, no short result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest
from servers.range_server import RangeServer

import rasteret_sql
from rasteret_sql.demo.scenes import write_scenes
from rasteret_sql.duck.connection import instance_of

CHECKOUT = Path(__file__).parents[2]
SCENARIOS = Path(__file__).with_name("closing_scenarios.py")
N_TRIES = 20
MOST_SECONDS = 15  # on a busy machine; alone it takes half a second


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("closing")
    items = write_scenes(folder / "scenes")
    con = rasteret_sql.connect(workspace=folder / "workspace")
    con.execute("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": str(items)})
    con.fetchall()
    con.close()
    return folder / "workspace"


@pytest.fixture(scope="module")
def origin(workspace):
    with RangeServer(scenes=workspace) as server:
        yield server.origin


def tries(scenario, source, workspace, origin):
    """Exit code, seconds and output of each try."""
    done = subprocess.run(
        [sys.executable, SCENARIOS, scenario, source, workspace, origin, str(N_TRIES)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        timeout=120,
        check=True,
    )
    results = json.loads(done.stdout)
    assert len(results) == N_TRIES
    return results


@pytest.mark.parametrize("source", ["local", "silent"])
@pytest.mark.parametrize(
    ("scenario", "code"),
    [
        ("close", 0),
        ("close_elsewhere", 0),
        ("close_parent", 0),
        ("close_cursor", 0),
        ("with", 0),
        ("end", 0),
        ("end_of_two", 0),
        ("exit", 3),
        ("uncaught", 1),
        ("half_deleted", 0),
        ("half_dropped", 0),
        ("half_closed", 0),
        ("half_end", 0),
    ],
)
def test_nothing_aborts_or_hangs(scenario, code, source, workspace, origin):
    for got, seconds, output in tries(scenario, source, workspace, origin):
        assert got == code, output
        assert seconds < MOST_SECONDS
        assert "rows" not in output  # of a sum over a part of the pixels
        assert "nanobind" not in output
        if scenario.startswith(("close", "with")):
            assert "interrupt" in output
        lines = [line for line in output.splitlines() if not line.startswith(("error", "still"))]
        if code != 1:
            assert lines == []
        else:
            assert lines[-1] == "ValueError: planned"
