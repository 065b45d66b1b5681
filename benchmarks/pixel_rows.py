"""Mean NDVI of whole scenes: rasteret_pixels in SQL beside rasterio and NumPy.

    python benchmarks/pixel_rows.py [--folder DIR] [--scenes 4] [--size 4096]

Writes scenes of two bands (uint16, 512 px tiles, deflate, predictor 2) once, then times both,
alternating, and prints the median seconds and their ratio. Local files: what is compared is
decoding, masking and arithmetic, not the network.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

import rasteret_sql

BANDS = ("B04", "B08")
QUERY = """
    SELECT id, avg((B08::DOUBLE - B04) / (B08::DOUBLE + B04))
    FROM rasteret_pixels('scenes') GROUP BY id ORDER BY id
"""


def write_scenes(folder: Path, n_scenes: int, size: int) -> None:
    rng = np.random.default_rng(1)
    base = np.add.outer(np.arange(size), np.arange(size)) % 3000 + 1000
    for scene in range(n_scenes):
        for band in BANDS:
            path = folder / f"s{scene}_{band}.tif"
            if path.exists():
                continue
            profile = {
                "driver": "GTiff",
                "height": size,
                "width": size,
                "count": 1,
                "dtype": "uint16",
                "crs": "EPSG:32643",
                "transform": from_origin(600000, 1500000, 10, 10),
                "tiled": True,
                "blockxsize": 512,
                "blockysize": 512,
                "compress": "deflate",
                "predictor": 2,
                "nodata": 0,
            }
            with rasterio.open(path, "w", **profile) as file:
                file.write((base + rng.integers(0, 60, base.shape)).astype("uint16"), 1)


def build(folder: Path, n_scenes: int):
    con = rasteret_sql.connect(workspace=tempfile.mkdtemp())
    con.execute("CREATE TABLE files (id VARCHAR, B04 VARCHAR, B08 VARCHAR)")
    for scene in range(n_scenes):
        paths = [str(folder / f"s{scene}_{band}.tif") for band in BANDS]
        con.execute("INSERT INTO files VALUES (?, ?, ?)", [f"s{scene}", *paths])
    con.execute(
        "FROM rasteret_build_table('scenes', 'SELECT id, "
        "{B04: {href: B04}, B08: {href: B08}} AS assets FROM files', enrich := true)"
    ).fetchall()
    return con


def by_rasterio(folder: Path, n_scenes: int) -> list[float]:
    means = []
    for scene in range(n_scenes):
        bands = []
        for band in BANDS:
            with rasterio.open(folder / f"s{scene}_{band}.tif") as file:
                bands.append(file.read(1, masked=True).astype("f8"))
        means.append(float(((bands[1] - bands[0]) / (bands[1] + bands[0])).mean()))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    write_scenes(folder, chosen.scenes, chosen.size)
    con = build(folder, chosen.scenes)
    seconds: dict[str, list[float]] = {"sql": [], "rasterio": []}
    for _ in range(chosen.runs):
        began = time.perf_counter()
        ours = [mean for _, mean in con.execute(QUERY).fetchall()]
        seconds["sql"].append(time.perf_counter() - began)
        began = time.perf_counter()
        theirs = by_rasterio(folder, chosen.scenes)
        seconds["rasterio"].append(time.perf_counter() - began)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    pixels = chosen.scenes * chosen.size**2 * len(BANDS) / 1e6
    for name, value in median.items():
        print(f"{name:9s} {value:6.2f} s  {pixels / value:7.0f} Mpixel/s")
    print(f"rasterio / sql = {median['rasterio'] / median['sql']:.2f}")


if __name__ == "__main__":
    main()
