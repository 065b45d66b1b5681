"""The tables of RESULTS.md, from the rows that `reads.py` measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

# Name: latency before each response in ms, more on a new connection in ms, MB/s of a connection.
PROFILES: dict[str, tuple[float, float, float]] = {
    "0": (0, 0, 0),
    "20": (20, 0, 0),
    "80": (80, 0, 0),
    "s3": (30, 15, 80),
}
TITLES = {
    "a": "One area of 512 x 512 px, 15 scenes (30 tiles, 34 MB)",
    "b": "Four areas of 512 x 512 px, 30 scenes (320 tiles, 210 MB)",
    "d": "13 whole scenes (208 tiles, 213 MB)",
    "e": "84 points in 30 scenes (800 tiles, 450 MB)",
    "f": "1,000 headers",
}
WHAT = {
    "limit": "limit: ranges known, fetched and inflated, nothing else",
    "limit-prefix": "limit, and only the rows down to the last that is needed",
    "sql-read": "`rasteret_read`",
    "sql-tiles": "`rasteret_read_tiles`",
    "sql-rows": "`rasteret_pixels`, rows",
    "sql-sum": "`rasteret_pixels`, `sum()`",
    "sql-avg": "`rasteret_pixels`, `avg() GROUP BY id`",
    "sql-points": "`rasteret_sample_points`",
    "sql-headers": "`rasteret_enrich`",
    "sql-read-used": "`rasteret_read`, the collection used before",
    "sql-tiles-used": "`rasteret_read_tiles`, the collection used before",
    "sql-points-used": "`rasteret_sample_points`, the collection used before",
    "rasterio-16": "rasterio, 16 threads",
    "async-geotiff": "async-geotiff",
    "rasteret": "rasteret",
}
SERVERS = {
    "nginx": "nginx with its Lua module",
    "asyncio": "`asyncio_server.py` (nginx with its Lua module was not found; it is faster)",
}
INTRODUCTION = """\
Seconds of one SQL statement to an Arrow table over HTTP on this machine, beside those of the
least that a client can do (`limit_client.py`) in the same run. Every figure is the median of
repetitions in new processes that alternate, with the smallest and the largest. Not timed:
imports and the garbage that they leave, one read of another collection and URL. A process reads
the headers of a collection at its first use; that is timed, except where the collection was used
before.
`make bench` and `make bench-peers` write this file.
"""


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def report(rows: list[dict]) -> str:
    """Markdown with the machine, the versions and one table for each case and profile."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["case"], row["profile"], row["client"]].append(row)
    parts = ["# Reads over HTTP: seconds, and how often the limit\n", INTRODUCTION, facts(rows)]
    for case in sorted({row["case"] for row in rows}):
        parts.append(f"## {case}. {TITLES[case]}\n")
        for profile in PROFILES:
            found = {
                client: values
                for (c, p, client), values in groups.items()
                if (c, p) == (case, profile)
            }
            if found:
                parts.append(table(case, profile, found))
    return "\n".join(parts)


def facts(rows: list[dict]) -> str:
    versions: dict[str, str] = {}
    for row in rows:
        for name, version in row["versions"].items():
            versions.setdefault(name, version)
            if version not in versions[name].split(" and "):
                versions[name] += f" and {version}"
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    loads = [row["load"] for row in rows]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"* {datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores ({processor()}), "
        f"{memory_gib:.0f} GiB, {platform.system()} {platform.release()}; "
        f"load {min(loads):.1f} to {max(loads):.1f}.\n"
        f"* {shown}.\n"
        f"* Server: {SERVERS[rows[0]['server']]}, in a process of its own.\n"
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(case: str, profile: str, found: dict[str, list[dict]]) -> str:
    """One row for each client; ratios are to `limit` of the same case and profile."""
    limit = found.get("limit", [])
    limit_s = statistics.median(row["seconds"] for row in limit) if limit else None
    lines = [
        f"{describe(profile)}\n",
        "| client | ms | x limit | CPU s | requests | MB | peak MiB | same pixels |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for client in WHAT:
        if client not in found:
            continue
        rows = found[client]
        times = [row["seconds"] for row in rows]
        middle = statistics.median(times)
        spread = f"{middle * 1e3:,.0f} ({min(times) * 1e3:,.0f}-{max(times) * 1e3:,.0f})"
        if case == "f":
            spread += f", {1000 / middle:,.0f}/s"
        ratio = f"{middle / limit_s:.2f}" if limit_s else "-"
        cpu, requests, sent, peak = (
            statistics.median(row[name] for row in rows)
            for name in ("cpu_seconds", "requests", "bytes", "peak_mib")
        )
        lines.append(
            f"| {WHAT[client]} | {spread} | {ratio} | {cpu:.2f} | {requests:.0f} | "
            f"{sent / 1e6:.0f} | {peak:.0f} | {same(rows, limit)} |"
        )
    return "\n".join(lines) + "\n"


def describe(profile: str) -> str:
    latency_ms, connection_ms, rate_mb = PROFILES[profile]
    text = f"{latency_ms:g} ms before each response"
    if connection_ms:
        text += f", {connection_ms:g} ms more on a new connection"
    return text + (f", {rate_mb:g} MB/s for each connection:" if rate_mb else ":")


def same(rows: list[dict], limit: list[dict]) -> str:
    """Whether pixels (offsets, sums) are those of the limit client."""
    if not limit or (rows[0]["client"] == "rasterio-16" and rows[0]["case"] == "f"):
        return "-"
    if rows[0]["digest"] is None:
        return "same sum" if {row["total"] for row in rows} == {limit[0]["total"]} else "NO"
    return "yes" if {row["digest"] for row in rows} == {limit[0]["digest"]} else "NO"
