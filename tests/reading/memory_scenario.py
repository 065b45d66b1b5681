"""Peak memory of a read of 640 MiB of pixels, in a process of its own; see `test_memory`.

    python memory_scenario.py FOLDER QUERY

Prints the decoded bytes and the peak above the baseline in MiB, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tifffile

import rasteret_sql
from rasteret_sql.reading.tile_store import STORE

SIDE, N_SCENES = 4096, 20


def status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main(folder: Path, query: str) -> None:
    rng = np.random.default_rng(0)
    for name, side in (("small", 256), ("large", SIDE)):
        values = rng.integers(0, 4000, (side, side)).astype("uint16")
        tifffile.imwrite(  # of noise deflate makes no less; level 0 is cheap, and as much memory
            folder / f"{name}.tif", values, tile=(512, 512), compression="zlib",
            compressionargs={"level": 0}, metadata=None,
        )  # fmt: skip
        del values
    for number in range(N_SCENES):
        (folder / f"n{number}.tif").symlink_to(folder / "large.tif")
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    for name, files in (("small", ["small"]), ("made", [f"n{n}" for n in range(N_SCENES)])):
        rows = ", ".join(f"('{one}', '{folder / one}.tif')" for one in files)
        con.execute(
            f"FROM rasteret_build_table('{name}', $source, href_column := 'href', "
            "band_index_map := MAP {'b': 0}, enrich := true)",
            {"source": f"SELECT * FROM (VALUES {rows}) AS files(id, href)"},
        ).fetchall()
    con.execute(query.replace("made", "small")).fetchall()
    baseline = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    con.execute(query).fetchall()
    facts = {
        "decoded_mib": SIDE * SIDE * 2 * N_SCENES / 2**20,
        "baseline_mib": baseline,
        "peak_mib": status_mib("VmHWM") - baseline,
        "kept_mib": STORE.stats().used_bytes / 2**20,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
