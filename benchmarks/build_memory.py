"""Peak memory and rate of builds with more and more records, headers read from local files.

Usage: python benchmarks/build_memory.py [--records 2000 20000 100000]

The months of twenty years come in turn. Each build runs in a process of its own; the files
are links to one COG of the layout of a Sentinel-2 band.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

from header_parse import made_cog


def peak_mib() -> float:
    """Largest resident memory of this process so far (getrusage counts the parent's too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def build(folder: str, n_records: int, answers: multiprocessing.Queue[tuple[float, float]]) -> None:
    """Build from an ndjson file of STAC items."""
    import rasteret_sql

    con = rasteret_sql.connect(workspace=f"{folder}/workspace")
    before = peak_mib()
    began = time.monotonic()
    report = con.execute(
        "FROM rasteret_build_stac($name, stac_api := $items)",
        {"name": f"n{n_records}", "items": f"{folder}/{n_records}.ndjson"},
    ).fetchall()[0]
    seconds = time.monotonic() - began
    assert report[6] == n_records, report
    answers.put((n_records / seconds, peak_mib() - before))


def main() -> None:
    """Print headers per second and MiB above the start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="*", default=[2000, 20_000, 100_000])
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        files.mkdir()
        (files / "cog.tif").write_bytes(made_cog())
        for n_records in options.records:
            with Path(folder, f"{n_records}.ndjson").open("w") as out:
                for i in range(n_records):
                    path = files / f"{i}.tif"
                    if not path.exists():
                        path.symlink_to(files / "cog.tif")
                    x, y = i % 360 - 180, i // 360 % 170 - 85
                    month = f"{2000 + i % 240 // 12}-{i % 12 + 1:02}"
                    item = {
                        "type": "Feature", "stac_version": "1.0.0", "id": f"scene-{i}", "links": [],
                        "bbox": [x, y, x + 1, y + 1],
                        "geometry": {"type": "Polygon", "coordinates": [[
                            [x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1], [x, y]]]},
                        "properties": {"datetime": f"{month}-01T00:00:00Z",
                                       "eo:cloud_cover": i % 100, "platform": "sentinel-2a"},
                        "assets": {"B04": {"href": str(path), "type": "image/tiff"}},
                    }  # fmt: skip
                    out.write(json.dumps(item) + "\n")
            answers = spawn.Queue()
            process = spawn.Process(target=build, args=(folder, n_records, answers))
            process.start()
            rate, peak = answers.get(timeout=600)
            process.join()
            print(f"{n_records:8} records {rate:8.0f} headers/s {peak:8.0f} MiB above the start")


if __name__ == "__main__":
    main()
