"""Requests per second of `get_range` through lanes against nginx on this machine.

Usage: python benchmarks/range_requests.py [--seconds 3]   (needs nginx on the PATH)

Reads random 16 KiB ranges of a 256 MiB file, with URLs as plain ones are sent (obstore), as
signed ones are (letter by letter), and of a local path.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range

SIZE_BYTES = 256 << 20
LENGTH_BYTES = 16 << 10
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 2048; }}
http {{
    access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port} backlog=2048; root {folder}/files; }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("nginx did not start")


def measure(href: str, width: int, seconds: float) -> tuple[float, float]:
    """Requests per second, and microseconds of this process's CPU for each."""
    stop_at = time.perf_counter() + seconds

    def lane(seed: int) -> int:
        offsets = random.Random(seed)
        n = 0
        while time.perf_counter() < stop_at:
            start = offsets.randrange(SIZE_BYTES - LENGTH_BYTES)
            n += len(get_range(href, start, LENGTH_BYTES)) // LENGTH_BYTES
        return n

    pool = lanes(width)
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    n = sum(pool.map(lane, range(width)))
    took, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return n / took, cpu / n * 1e6


def measure_submitted(href: str, width: int, n: int) -> float:
    """Requests per second with one job for each, as the readers do."""
    offsets = random.Random(0)
    starts = [offsets.randrange(SIZE_BYTES - LENGTH_BYTES) for _ in range(n)]
    pool = lanes(width)
    begin = time.perf_counter()
    jobs = [pool.submit(get_range, href, start, LENGTH_BYTES) for start in starts]
    for job in jobs:
        job.result()
    return n / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "files").mkdir()
        with (folder / "files" / "a.tif").open("wb") as file:
            for _ in range(SIZE_BYTES >> 20):
                file.write(os.urandom(1 << 20))
        port = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
        server = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", name])
        try:
            wait_for(port)
            url = f"http://127.0.0.1:{port}/a.tif"
            hrefs = {"plain": url, "signed": f"{url}?sig=1", "local": f"{folder}/files/a.tif"}
            print(f"{'href':8}{'lanes':>6}{'requests/s':>12}{'CPU us':>8}{'a job each':>12}")
            for kind, href in hrefs.items():
                for width in (1, 16, 64, 256):
                    measure(href, width, 0.3)
                    rate, cpu_us = measure(href, width, options.seconds)
                    submitted = measure_submitted(href, width, int(rate * options.seconds / 4))
                    line = f"{kind:8}{width:>6}{rate:>12,.0f}{cpu_us:>8.0f}{submitted:>12,.0f}"
                    print(line, flush=True)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
