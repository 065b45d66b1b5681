"""Where the CPU time of one statement goes: by kind of thread.

    python benchmarks/threads.py sql-tiles d [--latency-ms 80] [--folder build/bench]

Kinds: `statement` (the thread that calls DuckDB: binding, planning, taking batches, copying them
into the result), `DuckDB` (its own threads), `fetch` and `requests` (each waits for a request, of
tiles and of headers), `tokio` (obstore's sockets), `decode` (inflating, and making batches).
Prints medians of new processes, in ms.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from pathlib import Path

import measure
import reads
from latency_server import LatencyServer, make_realtime

KINDS = ("statement", "DuckDB", "fetch", "requests", "tokio", "decode")


def cpu_ms(names: dict[int, str]) -> dict[str, float]:
    """CPU so far of the threads of this process, by kind."""
    total = dict.fromkeys(KINDS, 0.0)
    for task in Path("/proc/self/task").iterdir():
        try:
            ms = int((task / "schedstat").read_text().split()[0]) / 1e6
            comm = (task / "comm").read_text()
        except OSError:
            continue
        own = "tokio" if comm.startswith("tokio") else "DuckDB"
        kind = "statement" if int(task.name) == os.getpid() else names.get(int(task.name), own)
        total[kind] = total.get(kind, 0.0) + ms
    return total


def one_run(options: Namespace) -> None:
    """Time the client in this process; prints a line of JSON."""
    from rasteret_sql.reading import pipeline
    from rasteret_sql.remote.lanes import Lanes

    run, _, _ = measure.prepared(options)
    names: dict[int, str] = {}
    first_request: list[float] = []
    work, fetch = Lanes._work, pipeline.Pipeline._fetch  # noqa: SLF001

    def named_work(self: Lanes) -> None:
        names[threading.get_native_id()] = self.role
        work(self)

    def noted_fetch(self, tiles):
        first_request.append(time.perf_counter())
        fetch(self, tiles)

    Lanes._work = named_work  # noqa: SLF001
    pipeline.Pipeline._fetch = noted_fetch  # noqa: SLF001
    for pool in (pipeline.lanes(512, "fetch"), pipeline.lanes(os.cpu_count() or 1, "decode")):
        pool.start_over()  # new threads, which are named
    gc.collect()
    if options.realtime:
        make_realtime(os.getpid())
    before, began = cpu_ms(names), time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    after = cpu_ms(names)
    facts = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    facts["wall"] = seconds * 1e3
    facts["before the first request"] = (min(first_request) - began) * 1e3 if first_request else 0
    print(json.dumps(facts), flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client")
    parser.add_argument("case", choices=list("abdef"))
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--latency-ms", choices=["20", "80"], default="20")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--base", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.lanes = reads.LANES.get((options.case, options.latency_ms), 64)
    if options.base:
        one_run(options)
    found = []
    with (
        tempfile.TemporaryDirectory() as work,
        LatencyServer(options.folder, is_realtime=options.realtime) as http,
    ):
        reads.build(Namespace(folder=options.folder, peers=None), Path(work), http.base)
        http.set(*reads.PROFILES[options.latency_ms])
        command = [sys.executable, __file__, *sys.argv[1:], "--base", http.base, "--work", work]
        for _ in range(options.repetitions):
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=reads.environment()
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    for name in ("wall", "before the first request", *KINDS):
        print(f"{name:25} {statistics.median(one[name] for one in found):8.1f} ms")


if __name__ == "__main__":
    main()
