"""Every call that waits for a silent server ends within a second of being stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from processes import heeding_ctrl_c
from servers.range_server import RangeServer

MAX_SECONDS = 1.0

CALLS = {
    "STAC API": "rasteret_build_stac('s', stac_api := '{hang}/api', static_catalog := false)",
    "STAC document": "rasteret_build_stac('s', stac_api := '{hang}/items.json')",
    "STAC catalog": "rasteret_build_stac('s', stac_api := '{served}/catalog.json')",
    "STAC ndjson": "rasteret_build_stac('s', stac_api := '{hang}/items.ndjson')",
    "headers": "rasteret_build_table('s', source := '{table}', href_column := 'url', "
    "bands := ['b'], enrich := true)",
    "load": "rasteret_load('s', path := '{hang}/far.parquet')",
    "records": "rasteret_records('{hang}/far.parquet')",
    "records, body": "rasteret_records('{stall}/far.parquet')",
    "table": "rasteret_build_table('s', source := '{hang}/far.parquet', href_column := 'url')",
    "table, body": "rasteret_build_table('s', source := '{stall}/far.parquet', "
    "href_column := 'url')",
    "describe": "rasteret_describe('{hang}/far.parquet')",
    "enrich": "rasteret_enrich('{table}', bands := ['b'], href_column := 'url')",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of its own: requests that were left are repeated for a minute or more.

    Tests that count requests would find them in the log of the session's server.
    """
    folder = tmp_path_factory.mktemp("served")
    with RangeServer(scenes=folder) as running:
        running.folder = folder
        yield running


@pytest.fixture
def places(server, tmp_path):
    """Addresses that hang, that stop half-way, and files that lead to them."""
    hang = server.url("scenes", fault="hang")
    links = [{"rel": "item", "href": f"{hang}/{n}.json"} for n in range(40)]
    catalog = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "links": links}
    (server.folder / "catalog.json").write_text(json.dumps(catalog | {"description": "d"}))
    far = pa.table({"id": ["a"] * 5000, "url": [f"{hang}/{n}.tif" for n in range(5000)]})
    pq.write_table(far, server.folder / "far.parquet", compression="none", use_dictionary=False)
    few = pa.table({"id": ["a", "b"], "url": [f"{hang}/a.tif", f"{hang}/b.tif"]})
    pq.write_table(few, tmp_path / "few.parquet")
    return {
        "hang": hang,
        "stall": server.url("scenes", fault="stall"),
        "served": server.url("scenes"),
        "table": str(tmp_path / "few.parquet"),
    }


@pytest.fixture(autouse=True)
def _nothing_was_asked_before(server):
    server.reset()


def wait_for_a_request(server, mark, seconds=10):
    end = time.monotonic() + seconds
    while not any(mark in one["path"] for one in server.requests()):
        assert time.monotonic() < end, "no request came"
        time.sleep(0.05)


@pytest.mark.parametrize("name", CALLS)
def test_interrupt_ends_a_wait(con, server, places, name):
    outcome = []

    def run():
        try:
            outcome.append(con.execute(f"FROM {CALLS[name].format(**places)}").fetchall())
        except BaseException as error:  # noqa: BLE001
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for_a_request(server, "/stall/" if "{stall}" in CALLS[name] else "/hang/")
    time.sleep(0.2)
    assert thread.is_alive(), outcome
    begun = time.monotonic()
    con.interrupt()
    thread.join(10)
    assert time.monotonic() - begun < MAX_SECONDS
    (error,) = outcome
    assert isinstance(error, duckdb.Error | RuntimeError), error
    assert "interrupted" in str(error).lower()
    assert "SystemError" not in str(error)
    # nothing of it holds the connection up, and nothing is left
    assert con.execute("SELECT 1").fetchall() == [(1,)]
    assert con.execute("SELECT count(*) FROM rasteret_collections()").fetchall() == [(0,)]


@pytest.mark.any_duckdb
def test_a_stopped_build_leaves_no_lane_that_others_need(con, server, places):
    """Requests that were left go on by themselves; new ones do not wait for them."""
    for _ in range(3):
        for name in ("STAC catalog", "headers", "records"):
            test_interrupt_ends_a_wait(con, server, places, name)
            server.reset()
    begun = time.monotonic()
    query = f"SELECT count(*) FROM rasteret_records('{places['served']}/far.parquet')"
    assert con.execute(query).fetchall() == [(5000,)]
    assert time.monotonic() - begun < 5


COMMANDS = {
    "build": ["build", "s", "--stac-api", "{hang}/items.json"],
    "import": ["import", "s", "--record-table", "{hang}/far.parquet"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_a_command(server, places, tmp_path, name):
    words = [word.format(**places) for word in COMMANDS[name]]
    words += ["--workspace-dir", str(tmp_path / "workspace")]
    command = heeding_ctrl_c("-m", "rasteret_sql", "collections", *words)
    server.reset()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            wait_for_a_request(server, "/hang/", seconds=30)
            time.sleep(0.2)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=15)
            assert time.monotonic() - begun < MAX_SECONDS + 1  # the process has to end, too
        finally:
            process.kill()
    assert errors.strip().splitlines()[-1] == "error: interrupted"
    assert process.returncode == 130
