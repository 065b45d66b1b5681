"""Write the scenes that the read benchmarks use: Sentinel-2-like COGs and their STAC items.

    python benchmarks/scenes.py --folder build/bench [--bands B04] [--workers 2]

* `cogs/A00_B04.tif` ...: 30 scenes of EPSG:32643, 4096 x 4096 uint16, deflate with predictor 2,
  GDAL's COG driver, averaged overviews. The first 20 have tiles of 1024 px, the others of 512 px.
* `cogs/B00_B04.tif` ...: 6 scenes of EPSG:32644, band B04, tiles of 1024 px.
* `cogs/H0.tif` ...: 4 COGs of 10980 x 10980 with little content: headers of the real size.
* `items.ndjson`: STAC items, hrefs begin with `@BASE@`. `layout.json`: what was written.

The same arguments give the same pixels. Files that exist are kept. No valid pixel is 0 (nodata).
One band takes 0.76 GB and about two minutes on two cores. The cases read band B04; the others are
for reads of several bands: `--bands B02 B03 B04 B08`.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from pyproj import Transformer
from rasterio.io import MemoryFile
from rasterio.shutil import copy
from rasterio.transform import from_origin

ALL_BANDS = ("B02", "B03", "B04", "B08")
SEED = 20260101
SIZE_PX = 4096
HEADER_SIZE_PX = 10980
RESOLUTION_M = 10.0
N_SCENES = {"A": 30, "B": 6}
N_WIDE_TILES = 20
N_HEADERS = 4
# EPSG code, x of the left edge, y of the top edge.
ZONES = {"A": (32643, 799980.0, 1500000.0), "B": (32644, 159960.0, 1500000.0)}


class File(NamedTuple):
    """One COG to write: its name is `{zone}{scene:02d}_{band}`, or `H{scene}` for headers."""

    zone: str
    scene: int
    band: str
    tile_px: int

    @property
    def name(self) -> str:
        return f"H{self.scene}" if self.zone == "H" else f"{self.zone}{self.scene:02d}_{self.band}"


@cache
def base_fields(size: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Three random fields whose spectrum falls as 1/f^1.9, and white noise."""
    rng = np.random.default_rng(SEED)
    y = np.fft.fftfreq(size)[:, None].astype("f4")
    x = np.fft.rfftfreq(size)[None, :].astype("f4")
    frequency = np.sqrt(y * y + x * x)
    frequency[0, 0] = 1.0
    fields = []
    for _ in range(3):
        phase = rng.uniform(0, 2 * np.pi, frequency.shape).astype("f4")
        spectrum = frequency ** np.float32(-1.9) * np.exp(1j * phase).astype("c8")
        spectrum[0, 0] = 0
        field = np.fft.irfft2(spectrum, s=(size, size)).astype("f4")
        fields.append(field / field.std())
    return fields, rng.standard_normal((size + 512, size + 512), dtype="f4")


def scene_pixels(zone: str, scene: int, band: int, size: int) -> np.ndarray:
    """Land with sensor noise that follows land cover, water and clouds: (size, size) uint16."""
    (first, second, third), noise = base_fields(size)
    rng = np.random.default_rng([SEED, ord(zone), scene, band])
    shift = int(rng.integers(0, size))
    level = 1100 + 500 * band + rng.uniform(-120, 120)
    values = level + (230 + 90 * band) * first + (70 + 30 * band) * np.roll(second, shift, axis=1)
    row, col = rng.integers(0, 512, 2)
    noise = noise[row : row + size, col : col + size]
    values += (7.0 + 6.0 * np.clip(third + 0.6, 0, 2.5)) * noise
    water = second < -1.6
    values[water] = 180 + 40 * band + 4.0 * noise[water]
    cloud = np.roll(third, (shift, 2 * shift), (0, 1)) > 2.0
    values[cloud] = values[cloud] * 0.3 + 6500
    return np.clip(np.rint(values), 1, 65535).astype("u2")


def header_pixels(scene: int) -> np.ndarray:
    steps = np.arange(HEADER_SIZE_PX, dtype="u2") // 64
    return np.add.outer(steps, steps) + np.uint16(100 + scene)


def write_cog(path: Path, pixels: np.ndarray, epsg: int, x: float, y: float, tile_px: int) -> None:
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "nodata": 0, "crs": f"EPSG:{epsg}",
        "height": pixels.shape[0], "width": pixels.shape[1],
        "transform": from_origin(x, y, RESOLUTION_M, RESOLUTION_M),
    }  # fmt: skip
    unfinished = path.with_suffix(".part")
    with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(pixels, 1)
        with memory.open() as file:
            copy(
                file, unfinished, driver="COG", COMPRESS="DEFLATE", LEVEL=6, PREDICTOR="STANDARD",
                BLOCKSIZE=tile_px, OVERVIEWS="AUTO", OVERVIEW_RESAMPLING="AVERAGE",
                OVERVIEW_COMPRESS="DEFLATE", OVERVIEW_PREDICTOR="STANDARD", BIGTIFF="NO",
            )  # fmt: skip
    unfinished.replace(path)


def write_file(folder: Path, file: File) -> None:
    path = folder / f"{file.name}.tif"
    if path.exists():
        return
    if file.zone == "H":
        write_cog(path, header_pixels(file.scene), 32643, 699960.0, 1500000.0, file.tile_px)
        return
    epsg, x, y = ZONES[file.zone]
    pixels = scene_pixels(file.zone, file.scene, ALL_BANDS.index(file.band), SIZE_PX)
    write_cog(path, pixels, epsg, x, y, file.tile_px)


def files(bands: list[str]) -> list[File]:
    scenes = [
        File("A", scene, band, 1024 if scene < N_WIDE_TILES else 512)
        for scene in range(N_SCENES["A"])
        for band in bands
    ]
    scenes += [File("B", scene, "B04", 1024) for scene in range(N_SCENES["B"])]
    return scenes + [File("H", number, "", 1024) for number in range(N_HEADERS)]


def stac_item(zone: str, scene: int, bands: list[str]) -> dict:
    epsg, left, top = ZONES[zone]
    side = SIZE_PX * RESOLUTION_M
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    corners = [(0, 0), (side, 0), (side, -side), (0, -side), (0, 0)]
    ring = [list(to_lonlat.transform(left + x, top + y)) for x, y in corners]
    lons, lats = zip(*ring, strict=True)
    minutes = scene if zone == "A" else 60 + scene
    when = datetime(2024, 1, 1, 5, 20, tzinfo=UTC) + timedelta(days=5 * scene, minutes=minutes)
    asset = {
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:shape": [SIZE_PX, SIZE_PX],
        "proj:transform": [RESOLUTION_M, 0.0, left, 0.0, -RESOLUTION_M, top, 0.0, 0.0, 1.0],
    }
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": f"{zone}{scene:02d}",
        "collection": "sentinel-2-l2a-bench", "links": [],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "properties": {
            "datetime": when.isoformat().replace("+00:00", "Z"), "proj:epsg": epsg,
            "proj:code": f"EPSG:{epsg}", "eo:cloud_cover": float(scene * 37 % 97),
            "gsd": 10, "platform": "sentinel-2a",
        },
        "assets": {
            band: {"href": f"@BASE@/cogs/{zone}{scene:02d}_{band}.tif", **asset} for band in bands
        },
    }  # fmt: skip


def write_scenes(folder: Path, bands: list[str], n_workers: int) -> None:
    """Write what is missing below `folder`; `layout.json` comes last and tells it is complete."""
    cogs = folder / "cogs"
    cogs.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    wanted = files(bands)
    with ProcessPoolExecutor(n_workers) as pool:
        list(pool.map(write_file, [cogs] * len(wanted), wanted))
    items = [
        stac_item(zone, scene, bands if zone == "A" else ["B04"])
        for zone, count in N_SCENES.items()
        for scene in range(count)
    ]
    (folder / "items.ndjson").write_text("".join(json.dumps(item) + "\n" for item in items))
    layout = {"bands": bands, "rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__}
    (folder / "layout.json").write_text(json.dumps(layout, indent=1) + "\n")
    total = sum(path.stat().st_size for path in cogs.glob("*.tif"))
    print(f"{len(wanted)} COGs, {total / 1e9:.2f} GB, {time.perf_counter() - began:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--bands", nargs="+", choices=ALL_BANDS, default=["B04"])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    write_scenes(options.folder, options.bands, options.workers)


if __name__ == "__main__":
    main()
