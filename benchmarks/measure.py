"""One client, one case, one new process: prints one line of JSON.

    python benchmarks/measure.py CLIENT CASE --base URL --folder build/bench --work DIR

Not timed: imports and the garbage that they leave, one read of another collection and URL, and
what compares pixels.
`digest` is the SHA-1 of all pixels in order, `total` their sum.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.metadata
import json
import os
import resource
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from latency_server import make_realtime

SQL = "sql-"
LIMITS = ("limit", "limit-prefix")


def prepared(options: argparse.Namespace):
    """What to time, and what turns its result into arrays and a total."""
    base, folder, work, case = options.base, options.folder, options.work, options.case
    if options.client in LIMITS:
        import limit_client

        is_prefix = options.client == "limit-prefix"
        run = limit_client.prepare(base, folder, case, options.lanes, is_prefix=is_prefix)
        return run, lambda arrays: arrays, None
    if options.client.startswith(SQL):
        import sql_client

        route = options.client.removeprefix(SQL)
        try:
            return sql_client.prepare(base, folder, work, case, route, options.lanes)
        except sql_client.MissingFunctionError as error:
            print(error, file=sys.stderr)
            sys.exit(3)
    import peer_clients

    return (
        peer_clients.prepare(options.client, base, folder, work, case),
        lambda arrays: arrays,
        None,
    )


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def versions() -> dict[str, str]:
    """Of the installed packages that are imported."""
    known = ("rasteret", "rasteret_sql", "duckdb", "rasterio", "async_geotiff", "obstore", "isal")
    known += ("imagecodecs", "numpy", "pyarrow")
    found = {name: importlib.metadata.version(name) for name in known if name in sys.modules}
    return {"python": sys.version.split()[0]} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client")
    parser.add_argument("case", choices=list("abdef"))
    parser.add_argument("--base", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--lanes", type=int, default=64, help="requests at once, of headers or of the limit client"
    )
    parser.add_argument("--realtime", action="store_true")
    options = parser.parse_args()
    run, arrays, total = prepared(options)
    with urllib.request.urlopen(f"{options.base}/__set", timeout=10) as answer:
        answer.read()
    if options.realtime:
        make_realtime(os.getpid())
    gc.collect()  # of imports; it takes up to 60 ms, in a statement or before it
    before_mib, before_cpu, began = peak_mib(), cpu_seconds(), time.perf_counter()
    result = run()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - before_cpu
    peak = peak_mib()
    if options.realtime:
        make_realtime(os.getpid(), on=False)
    with urllib.request.urlopen(f"{options.base}/__stats", timeout=10) as answer:
        counters = json.loads(answer.read())
    values = arrays(result)
    digest = hashlib.sha1(usedforsecurity=False)
    for value in values:
        digest.update(np.ascontiguousarray(value))
    is_pixels = options.case != "f" and not total
    facts = {
        "client": options.client,
        "case": options.case,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mib": peak,
        "before_mib": before_mib,
        "digest": None if total else digest.hexdigest(),
        "total": total(result) if total else is_pixels and sum(int(v.sum()) for v in values),
        **counters,
        "versions": versions(),
    }
    print(json.dumps(facts), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
