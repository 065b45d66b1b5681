"""Time reads of COGs over HTTP beside the least that they can cost; write RESULTS.md.

    python benchmarks/reads.py [--cases abdef] [--profiles 20 80] [--repetitions 5]
                               [--clients limit sql-read] [--peers PYTHON] [--rows rows.jsonl]

Cases: `cases.py`. Clients: `limit_client.py`, `sql_client.py` and, with an interpreter that has
them, `peer_clients.py`. Each repetition of a client is a new process; clients alternate, in an
order that rotates. Only a run of all cases and both profiles writes RESULTS.md, unless `--output`
says where to.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from latency_server import LatencyServer
from peer_clients import PEERS
from report import PROFILES, read_rows, report

HERE = Path(__file__).resolve().parent
CLIENTS = {
    "a": ("limit", "limit-prefix", "sql-read", "sql-read-used", "sql-sum", "sql-avg"),
    "b": ("limit", "limit-prefix", "sql-read", "sql-read-used", "sql-rows"),
    "d": ("limit", "sql-tiles", "sql-tiles-used"),
    "e": ("limit", "limit-prefix", "sql-points", "sql-points-used"),
    "f": ("limit", "sql-headers"),
}
# Requests at once that were the fastest, by case and latency: threads of the limit client, and
# max_concurrent where headers are read.
LANES = {("b", "80"): 256, ("f", "20"): 256, ("f", "80"): 512}
TIMEOUT_S = 300
MISSING = 3


def clients(case: str, wanted: list[str] | None, peers: str | None) -> list[str]:
    known = [*CLIENTS[case], *(PEERS if peers and case != "e" else ())]
    if wanted is None:
        return known
    extra = ["sql-tiles", "sql-rows"] if case in "ab" else ["sql-read"] if case == "d" else []
    return [name for name in [*known, *extra] if name in wanted]


def measured(
    name: str, case: str, profile: str, options: argparse.Namespace, places: list[str]
) -> dict | None:
    """The facts of one process, or None where this version lacks the function of the client."""
    is_peer = name in PEERS
    lanes = LANES.get((case, profile), 64)
    command = [options.peers if is_peer else sys.executable, str(HERE / "measure.py"), name, case]
    command += [*places, "--lanes", str(lanes)] + ["--realtime"] * options.rt
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment()
    )
    if done.returncode == MISSING:
        print(f"{name}: {done.stderr.strip()}", flush=True)
        return None
    if done.returncode:
        raise RuntimeError(f"{name} {case} {profile}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """Of a client: this checkout first, no warnings."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}


def run(options: argparse.Namespace, work: Path) -> Iterator[dict]:
    """Every row of the matrix."""
    with LatencyServer(
        options.folder, options.port, options.server, is_realtime=options.rt
    ) as http:
        places = ["--base", http.base, "--folder", str(options.folder), "--work", str(work)]
        build(options, work, http.base)
        for path in (options.folder / "cogs").glob("*.tif"):
            path.read_bytes()  # into the page cache
        for case in options.cases:
            for profile in options.profiles:
                http.set(*PROFILES[profile])
                names = clients(case, options.clients, options.peers)
                for repetition in range(options.repetitions):
                    turn = repetition % len(names)
                    for name in names[turn:] + names[:turn]:
                        facts = measured(name, case, profile, options, places)
                        if facts is None:
                            names = [other for other in names if other != name]
                            continue
                        yield facts | {
                            "profile": profile,
                            "repetition": repetition,
                            "load": os.getloadavg()[0],
                            "server": http.kind,
                        }
                print(f"case {case}, {profile} ms: done", flush=True)


def build(options: argparse.Namespace, work: Path, base: str) -> None:
    """Build the collections that clients find ready."""
    code = (
        "import sys; from pathlib import Path; import {module};"
        "{module}.{name}(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    )
    builders = [(sys.executable, "sql_client", "build")]
    if options.peers:
        builders.append((options.peers, "peer_clients", "build_rasteret"))
    env = environment()
    env["PYTHONPATH"] = f"{HERE}{os.pathsep}{env['PYTHONPATH']}"
    for python, module, name in builders:
        command = [python, "-c", code.format(module=module, name=name)]
        command += [str(options.folder), str(work), base]
        subprocess.run(command, check=True, timeout=TIMEOUT_S, env=env, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="of scenes.py")
    parser.add_argument("--work", type=Path, help="for collections; a temporary folder")
    parser.add_argument("--cases", default="abdef")
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=["20", "80"])
    parser.add_argument("--clients", nargs="+")
    parser.add_argument("--peers", help="a Python that has rasterio, async-geotiff and rasteret")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rows", type=Path, help="append every measurement to this file")
    parser.add_argument("--output", type=Path, help="write the tables here")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--server", choices=["nginx", "asyncio"])
    parser.add_argument("--rt", action="store_true", help="real-time priority (root)")
    parser.add_argument("--report", type=Path, help="only print the tables of these rows")
    options = parser.parse_args()
    if options.report:
        print(report(read_rows(options.report)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for row in run(options, work):
            rows.append(row)
            if options.rows:
                with options.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    text = report(rows)
    print(text)
    is_whole = options.cases == "abdef" and len(options.profiles) > 1 and not options.clients
    output = options.output or (HERE / "RESULTS.md" if is_whole else None)
    if output:
        output.write_text(text)


if __name__ == "__main__":
    main()
