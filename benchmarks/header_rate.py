"""Headers per second of 1,000 distinct COG URLs, beside the least that any client must do.

Usage: python benchmarks/header_rate.py [--latency-ms 0 20 80] [--repeat 3] [--urls 1000]

Needs nginx with its lua module (Debian: nginx-light, libnginx-mod-http-lua). Half of the URLs
name a header of 10980 x 10980 pixels, half one of 4096 x 4096, as in case f of the project's
measurements. `limit` gets 16 KiB and unpacks the first directory, nothing else; `read_asset`
parses all of it; `enrich` also makes the Parquet columns; `sql` is rasteret_enrich. Each runs in
a process of its own, in turns; with root's rights, at real-time priority. Figures are medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from header_parse import made_cog
from range_requests import free_port, wait_for

NGINX = """
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
worker_processes 1; master_process off; daemon off; pid {folder}/nginx.pid; {user}
error_log stderr crit; events {{ worker_connections 4096; multi_accept on; }}
http {{
    access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder}; open_file_cache max=100 inactive=600s;
    server {{
        listen 127.0.0.1:{port} backlog=4096; root {folder}/files;
        location ~ "^/l([0-9]+)/" {{
            set $latency $1;
            rewrite "^/l[0-9]+/[0-9]+/(.*)$" /$1 break;
            access_by_lua_block {{ if ngx.var.latency ~= "0" then
                ngx.sleep(tonumber(ngx.var.latency) / 1000) end }}
        }}
    }}
}}
"""
LANES = 512


def with_limit(urls: Sequence[str]) -> Callable[[], int]:
    """One get of 16 KiB and the entries of the first directory."""
    from concurrent.futures import ThreadPoolExecutor
    from urllib.parse import urlsplit

    import obstore
    from obstore.store import HTTPStore

    base = "http://" + urlsplit(urls[0]).netloc
    options = {"allow_http": True, "pool_max_idle_per_host": "512", "timeout": "120s"}
    store = HTTPStore.from_url(base, client_options=options)
    pool = ThreadPoolExecutor(LANES)
    list(pool.map(lambda _: time.sleep(0.01), range(LANES)))

    def one(url: str) -> int:
        data = memoryview(obstore.get_range(store, urlsplit(url).path[1:], start=0, length=16384))
        start = struct.unpack_from("<I", data, 4)[0]
        n_entries = struct.unpack_from("<H", data, start)[0]
        n_tiles = 0
        for i in range(n_entries):
            tag, kind, count, value = struct.unpack_from("<HHII", data, start + 2 + 12 * i)
            if tag in (324, 325) and kind == 4:
                n_tiles += len(struct.unpack_from(f"<{count}I", data, value))
        return n_tiles

    return lambda: sum(n > 0 for n in pool.map(one, urls))


def with_read_asset(urls: Sequence[str]) -> Callable[[], int]:
    """`remote.headers.read_asset` on lanes."""
    from rasteret_sql.remote.headers import read_asset
    from rasteret_sql.remote.lanes import lanes

    return lambda: sum(bool(asset.header.dtype) for asset in lanes(LANES).map(read_asset, urls))


def with_enrich(urls: Sequence[str]) -> Callable[[], int]:
    """`records.enrich.enrich`, batches of 1,024 records in and out."""
    import pyarrow as pa

    from rasteret_sql.ingest.enrich import Enrichment, enrich, enriched_schema
    from rasteret_sql.schema import BBOX

    asset = pa.struct([("href", pa.string()), ("band_index", pa.int32())])
    schema = pa.schema(
        [("id", pa.string()), ("bbox", BBOX), ("assets", pa.struct([("B1", asset)]))]
    )
    box = {"xmin": 0.0, "ymin": 0.0, "xmax": 1.0, "ymax": 1.0}
    rows = [{"id": u, "bbox": box, "assets": {"B1": {"href": u}}} for u in urls]
    batches = pa.Table.from_pylist(rows, schema).to_batches(1024)

    def run() -> int:
        result = Enrichment()
        for _ in enrich(
            iter(batches), enriched_schema(schema, ["B1"]), ["B1"], result, max_concurrent=LANES
        ):
            pass
        return result.enriched

    return run


def with_sql(urls: Sequence[str]) -> Callable[[], int]:
    """rasteret_enrich over a table."""
    import rasteret_sql

    con = rasteret_sql.connect()
    con.execute("CREATE TABLE scenes AS SELECT unnest($urls) AS url", {"urls": list(urls)})
    con.execute("ALTER TABLE scenes ADD COLUMN id VARCHAR")
    con.execute("UPDATE scenes SET id = url")
    sql = (
        "SELECT count(B1_metadata) FROM rasteret_enrich('scenes', href_column := 'url', "
        f"bands := ['B1'], max_concurrent := {LANES})"
    )
    return lambda: con.sql(sql).fetchall()[0][0]


CLIENTS = {
    "limit": with_limit,
    "read_asset": with_read_asset,
    "enrich": with_enrich,
    "sql": with_sql,
}


def shield() -> None:
    """Take real-time priority, so that other users of the machine do not count."""
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))
        except (PermissionError, ProcessLookupError):
            return


def run_client(client: str, base: str, n_urls: int, answers: multiprocessing.Queue[float]) -> None:
    """Start threads and connections on other URLs, then time one pass."""
    names = ("big.tif", "small.tif")

    def urls(first: int) -> list[str]:
        return [f"{base}/{i}/{names[i % 2]}" for i in range(first, first + n_urls)]

    warm, timed = CLIENTS[client](urls(n_urls)[:LANES]), CLIENTS[client](urls(0))
    warm()
    shield()
    began = time.perf_counter()
    n_read = timed()
    seconds = time.perf_counter() - began
    assert n_read == n_urls, (client, n_read)
    answers.put(n_urls / seconds)
    answers.close()
    answers.join_thread()
    os._exit(0)


def main() -> None:
    """Print headers per second for each latency and client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=int, nargs="*", default=[0, 20, 80])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--urls", type=int, default=1000)
    parser.add_argument("--clients", nargs="*", default=list(CLIENTS))
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        files.mkdir()
        (files / "big.tif").write_bytes(made_cog())
        (files / "small.tif").write_bytes(made_cog(side=4096, block=512))
        port = free_port()
        config = Path(folder, "nginx.conf")
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(NGINX.format(folder=folder, port=port, user=user))
        Path(folder).chmod(0o755)
        server = subprocess.Popen(["/usr/sbin/nginx", "-p", folder, "-c", str(config)])
        try:
            wait_for(port)
            try:
                os.sched_setscheduler(server.pid, os.SCHED_RR, os.sched_param(1))
            except PermissionError:
                print("without real-time priority")
            for latency in options.latency_ms:
                base = f"http://127.0.0.1:{port}/l{latency}"
                rates: dict[str, list[float]] = {client: [] for client in options.clients}
                for _ in range(options.repeat):
                    for client in options.clients:
                        answers = spawn.Queue()
                        job = (client, base, options.urls, answers)
                        process = spawn.Process(target=run_client, args=job)
                        process.start()
                        rates[client].append(answers.get(timeout=120))
                        process.join()
                limit = statistics.median(rates[options.clients[0]])
                for client, found in rates.items():
                    rate = statistics.median(found)
                    print(f"{latency:4} ms {client:12} {rate:8.0f}/s {rate / limit:6.2f}")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
