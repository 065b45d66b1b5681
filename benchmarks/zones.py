"""Time `rasteret_zonal_stats` beside rasterstats and exactextract called scene by scene.

    python benchmarks/zones.py [--folder build/bench] [--scenes 30] [--peer-scenes 2]
                               [--parcels 10000] [--peer-parcels 1000]

Scenes are the local COGs `A??_B04.tif` of `scenes.py`; parcels are fields of 8 corners, 100 to
600 m across. All clients run in turn on one machine in one run; the peers get fewer parcels
and scenes, as each pair of them costs the same there, and rates are compared: pairs per second.
The means of the pairs that both have are compared too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import rasterio
import rasterstats
import shapely
from exactextract import exact_extract

import rasteret_sql
from rasteret_sql.reading.tile_store import STORE

PEER_STATS = {"stddev": ("std", "stdev")}


def parcels(path: Path, n: int) -> geopandas.GeoDataFrame:
    """Random fields inside a raster."""
    rng = np.random.default_rng(1)
    with rasterio.open(path) as file:
        bounds, crs = file.bounds, file.crs
    angles = np.linspace(0, 2 * np.pi, 9)[:-1] + rng.uniform(0, 0.5, (n, 8))
    radii = rng.uniform(50, 300, (n, 1)) * rng.uniform(0.6, 1, (n, 8))
    low, high = (bounds.left + 300, bounds.bottom + 300), (bounds.right - 300, bounds.top - 300)
    centre = rng.uniform(low, high, (n, 2))
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * radii[..., None]
    rings = shapely.polygons(corners + centre[:, None, :])
    fields = shapely.make_valid(rings)
    return geopandas.GeoDataFrame({"parcel": np.arange(n)}, geometry=fields, crs=crs)


def build(work: Path, paths: list[Path]) -> None:
    con = rasteret_sql.connect(workspace=work)
    rows = ", ".join(f"('{path.stem}', '{path}')" for path in paths)
    con.execute(
        "FROM rasteret_build_table('made', $source, href_column := 'href', "
        "band_index_map := MAP {'B04': 0}, enrich := true)",
        {"source": f"SELECT * FROM (VALUES {rows}) AS files(id, href)"},
    ).fetchall()
    con.close()


def ours(work: Path, areas: geopandas.GeoDataFrame, stats: list[str], weights: str) -> np.ndarray:
    """Means by scene and parcel."""
    con = rasteret_sql.connect(workspace=work)
    con.execute("CREATE TABLE parcels (parcel BIGINT, geometry BLOB)")
    frame = pd.DataFrame({"parcel": areas["parcel"], "geometry": areas.geometry.to_wkb()})
    con.register("frame", frame)
    con.execute("INSERT INTO parcels SELECT parcel, geometry FROM frame")
    STORE.clear()
    means = con.execute(
        f"SELECT mean FROM (SELECT * FROM rasteret_zonal_stats('made', 'parcels', stats := "
        f"{stats}, weights := '{weights}', geometry_crs := '{areas.crs.to_string()}')) "
        "ORDER BY id, parcel"
    ).fetchnumpy()["mean"]
    con.close()
    return np.asarray(means, np.float64)


def rasterstats_(paths: list[Path], areas: geopandas.GeoDataFrame, stats: list[str]) -> np.ndarray:
    found = []
    names = [PEER_STATS.get(name, (name,))[0] for name in stats]
    for path in paths:
        rows = rasterstats.zonal_stats(areas, str(path), stats=names)
        found += [row["mean"] for row in rows]
    return np.array(found, np.float64)


def exactextract_(paths: list[Path], areas: geopandas.GeoDataFrame, stats: list[str]) -> np.ndarray:
    names = [PEER_STATS.get(name, (name, name))[1] for name in stats]
    found = [exact_extract(str(path), areas, names, output="pandas") for path in paths]
    return np.concatenate([frame["mean"].to_numpy() for frame in found])


def timed(client: Callable[[], np.ndarray], pairs: int) -> tuple[float, np.ndarray]:
    """Pairs of a parcel and a scene per second, and the means."""
    begun = time.perf_counter()
    means = client()
    return pairs / (time.perf_counter() - begun), means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--peer-scenes", type=int, default=2)
    parser.add_argument("--parcels", type=int, default=10_000)
    parser.add_argument("--peer-parcels", type=int, default=1000)
    parser.add_argument("--stats", nargs="+", default=["count", "mean", "min", "max", "stddev"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    paths = sorted((options.folder / "cogs").glob("A*_B04.tif"))[: options.scenes]
    few = paths[: options.peer_scenes]
    areas = parcels(paths[0], options.parcels)
    for path in paths:
        path.read_bytes()  # into the page cache
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build(work, paths)
        some = areas.iloc[: options.peer_parcels]
        n_pairs, n_few = len(areas) * len(paths), len(some) * len(few)
        print(f"{len(areas)} parcels x {len(paths)} scenes; peers {len(some)} x {len(few)}")
        print("weights   client        pairs/s     ours is   mean differs by")
        peers = {
            "center": ("rasterstats", rasterstats_),
            "fraction": ("exactextract", exactextract_),
        }
        for weights, (name, client) in peers.items():
            rate, means = timed(lambda w=weights: ours(work, areas, options.stats, w), n_pairs)
            other, theirs = timed(lambda c=client: c(few, some, options.stats), n_few)
            mine = means.reshape(len(paths), -1)[: len(few), : len(some)].reshape(-1)
            differs = np.nanmax(np.abs(mine - theirs) / np.abs(theirs))
            print(f"{weights:<9} rasteret_sql  {rate:>9.0f}")
            print(f"{weights:<9} {name:<12} {other:>10.0f}  {rate / other:>8.1f} x   {differs:.1e}")


if __name__ == "__main__":
    main()
