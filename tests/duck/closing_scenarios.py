"""What a process does while a read runs; each try is a fork of this one, so imports cost once.

``python closing_scenarios.py WORKSPACE ORIGIN N N_HALF`` prints for each line ``SCENARIO SOURCE``
that it reads one JSON line: ``[[exit code or null, seconds, output], …]``. SOURCE is ``local``
(files) or ``silent`` (a server that never answers); N_HALF are half-read results of files.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time

import duckdb

import rasteret_sql
from rasteret_sql.duck import ctrl_c as ctrl_c  # what a first call imports
from rasteret_sql.duck import functions as functions
from rasteret_sql.duck.stream import n_pulling

WORKSPACE, ORIGIN, N, N_HALF = sys.argv[1:]
LIMIT_SECONDS = 30
AT_ONCE = 4
MANY = (
    "SELECT s.* REPLACE (s.id || r.range::VARCHAR AS id) "
    "FROM (FROM s2 LIMIT {n}) s, range({times}) r"
)
SILENT = (
    "SELECT * REPLACE ({B04: {href: ''"
    + ORIGIN
    + "/hang/'' || id, band_index: 0}} AS assets) FROM s2"
)


def wanted_of_this_fork() -> tuple[str, str]:
    """Scenario and source, returned in each child; the parent leaves when its input ends."""
    while line := sys.stdin.readline():
        scenario, source = line.split()
        if run_forks():
            return scenario, source
    os._exit(0)


def run_forks() -> bool:
    """Whether this is a child; the parent tells how all of them ended."""
    results = []
    for start in range(0, int(N), AT_ONCE):
        running = {}
        for _ in range(min(AT_ONCE, int(N) - start)):
            output = tempfile.TemporaryFile()  # noqa: SIM115 (the child's too)
            pid = os.fork()
            if pid == 0:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                return True
            running[pid] = (output, time.monotonic())
        deadline = time.monotonic() + LIMIT_SECONDS
        while running:
            for pid, (output, began) in list(running.items()):
                found, status = os.waitpid(pid, os.WNOHANG)
                is_late = not found and time.monotonic() > deadline
                if is_late:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if found or is_late:
                    output.seek(0)
                    code = None if is_late else os.waitstatus_to_exitcode(status)
                    text = output.read().decode("utf-8", "replace")
                    results.append([code, time.monotonic() - began, text])
                    del running[pid]
            time.sleep(0.005)
    print(json.dumps(results), flush=True)
    return False


def query(what: str, *, half: bool = False) -> str:
    records = MANY.format(n=1, times=60)
    if SOURCE == "silent":  # 1.5 may run ahead before it gives the first rows
        records = f"({MANY.format(n=1, times=20)}) UNION ALL ({SILENT})" if half else SILENT
    return f"SELECT {what} FROM rasteret_pixels('{records}', bands := ['B04'])"


def read(con: duckdb.DuckDBPyConnection) -> None:
    """Read everything; the only right end is an error."""
    try:
        print("rows", con.execute(query("sum(B04)")).fetchall(), flush=True)
    except duckdb.Error as error:
        print("error", str(error).lower().splitlines()[0], flush=True)


def reading(con: duckdb.DuckDBPyConnection) -> threading.Thread:
    """A thread that is in the middle of a read."""
    thread = threading.Thread(target=read, args=(con,), daemon=True)
    thread.start()
    wait_for_a_read()
    return thread


def wait_for_a_read() -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not n_pulling(lambda _owner: True) and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.02)


def close_soon(con: duckdb.DuckDBPyConnection) -> None:
    wait_for_a_read()
    con.close()


def half_read(con: duckdb.DuckDBPyConnection) -> object:
    """A result of which the first rows have been read."""
    con.execute("SET streaming_buffer_size = '1KB'").fetchall()
    reader = con.sql(query("B04", half=True)).to_arrow_reader(64)
    assert reader.read_next_batch().num_rows
    return reader


def ended(thread: threading.Thread) -> None:
    thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()


duckdb.default_connection().close()  # in 1.5 it has threads, which a fork loses
SCENARIO, SOURCE = wanted_of_this_fork()
con = rasteret_sql.connect(workspace=WORKSPACE, config={"threads": 2})
if SCENARIO == "close":
    thread = reading(con)
    con.close()
    ended(thread)
elif SCENARIO == "close_elsewhere":
    other = threading.Thread(target=close_soon, args=(con,))
    other.start()
    read(con)
    ended(other)
    del other  # holds the connection
elif SCENARIO == "close_parent":
    thread = reading(con.cursor())
    con.close()
    ended(thread)
elif SCENARIO == "close_cursor":
    cursor = con.cursor()
    thread = reading(cursor)
    cursor.close()
    ended(thread)
    print("still", con.execute("SELECT rasteret_ndvi(1, 3)").fetchall())
elif SCENARIO == "with":
    with con:
        thread = reading(con)
    ended(thread)
elif SCENARIO == "end":
    reading(con)
elif SCENARIO == "end_of_two":
    reading(con)
    reading(con.cursor())
elif SCENARIO == "exit":
    reading(con)
    sys.exit(3)
elif SCENARIO == "uncaught":
    reading(con)
    raise ValueError("planned")
elif SCENARIO == "half_deleted":
    result = half_read(con)
    del result
    gc.collect()
    con.close()
elif SCENARIO == "half_dropped":
    results = [half_read(con.cursor()) for _ in range(int(N_HALF) if SOURCE == "local" else 3)]
    results.clear()
    gc.collect()
    con.close()
elif SCENARIO == "half_closed":
    result = half_read(con)
    con.close()
elif SCENARIO == "half_end":
    result = half_read(con)
else:
    raise SystemExit(f"no scenario {SCENARIO}")
