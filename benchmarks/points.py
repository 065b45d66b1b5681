"""Time `rasteret_sample_points` beside rasterio's `sample` called scene by scene.

    python benchmarks/points.py [--folder build/bench] [--scenes 30] [--peer-scenes 2]
                                [--points 100000] [--peer-points 10000]

Scenes are the local COGs `A??_B04.tif` of `scenes.py`; points are spread at random over them. Both
clients run in turn on one machine in one run. rasterio gets fewer points and scenes, in two
orders: as they come, and sorted by the tile that holds them, so that GDAL's block cache serves
neighbours. Rates are compared, pairs of a point and a scene per second, and all values.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
from zones import build

import rasteret_sql
from rasteret_sql.reading.tile_store import STORE


def spread(path: Path, n: int) -> np.ndarray:
    """Random places inside a raster, x and y."""
    with rasterio.open(path) as file:
        left, bottom, right, top = file.bounds
    return np.random.default_rng(1).uniform((left, bottom), (right, top), (n, 2))


def by_tile(path: Path, points: np.ndarray) -> np.ndarray:
    """Order of points by the tile that holds them."""
    with rasterio.open(path) as file:
        height, width = file.block_shapes[0]
        col, row = np.floor(~file.transform * points.T)
    return np.lexsort((col // width, row // height))


def ours(work: Path, points: np.ndarray, crs: str) -> np.ndarray:
    """Values by scene and point."""
    con = rasteret_sql.connect(workspace=work)
    con.register(
        "frame", pa.table({"n": np.arange(len(points)), "x": points[:, 0], "y": points[:, 1]})
    )
    con.execute("CREATE TABLE places AS FROM frame")
    STORE.clear()
    values = con.execute(
        f"SELECT B04 FROM (FROM rasteret_sample_points('made', 'places', geometry_crs := '{crs}')) "
        "ORDER BY record_id, n"
    ).fetchnumpy()["B04"]
    con.close()
    return np.asarray(np.ma.filled(values, 0))


def rasterio_(paths: list[Path], points: np.ndarray) -> np.ndarray:
    """Values by scene and point."""
    found = []
    for path in paths:
        with rasterio.open(path) as file:
            found += [value[0] for value in file.sample(points)]
    return np.array(found)


def timed(client: Callable[[], np.ndarray], pairs: int) -> tuple[float, np.ndarray]:
    """Pairs of a point and a scene per second, and the values."""
    begun = time.perf_counter()
    values = client()
    return pairs / (time.perf_counter() - begun), values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--peer-scenes", type=int, default=2)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--peer-points", type=int, default=10_000)
    options = parser.parse_args()
    paths = sorted((options.folder / "cogs").glob("A*_B04.tif"))[: options.scenes]
    if not paths:
        parser.error(f"no A??_B04.tif in {options.folder / 'cogs'}: run benchmarks/scenes.py")
    few = paths[: options.peer_scenes]
    points = spread(paths[0], options.points)
    for path in paths:
        path.read_bytes()  # into the page cache
    with rasterio.open(paths[0]) as file:
        crs = file.crs.to_string()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), paths)
        rate, values = timed(lambda: ours(Path(folder), points, crs), len(points) * len(paths))
    mine = values.reshape(len(paths), -1)[: len(few), : options.peer_points]
    some = points[: options.peer_points]
    print(f"{len(points)} points x {len(paths)} scenes; rasterio {len(some)} x {len(few)}")
    print("client                       pairs/s     ours is   values that differ")
    print(f"rasteret_sql              {rate:>10.0f}")
    for name, order in {
        "as they come": np.arange(len(some)),
        "by tile": by_tile(few[0], some),
    }.items():
        other, theirs = timed(lambda o=order: rasterio_(few, some[o]), some.shape[0] * len(few))
        differ = int((theirs.reshape(len(few), -1) != mine[:, order]).sum())
        print(f"rasterio, {name:<16}{other:>10.0f}  {rate / other:>8.1f} x   {differ}")


if __name__ == "__main__":
    main()
