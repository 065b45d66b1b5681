"""Two small Sentinel-like scenes, written with tifffile, and a workspace that holds them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import tifffile

import rasteret_sql

ROOT = Path(__file__).parents[1]
SCENES = {"S2A_43PGQ_20240109": "2024-01-09T05:22:00", "S2B_43PGQ_20240203": "2024-02-03T05:21:00"}
SIZE_PX = 128
ORIGIN = (780_000.0, 1_450_000.0)
PIXEL_M = 10.0

_GEOKEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32643)
_DOUBLES, _SHORTS = 12, 3


def is_installed(*packages: str) -> bool:
    """Whether all of these distributions are there."""
    try:
        return all(version(package) for package in packages)
    except PackageNotFoundError:
        return False


def band_pixels(scene: int, band: str) -> np.ndarray:
    """What a band of a scene holds; the first row has no data."""
    row, col = np.mgrid[:SIZE_PX, :SIZE_PX]
    pixels = 1000 * (scene + 1) + row + (2000 + col if band == "B08" else 0)
    pixels[0] = 0
    return pixels.astype(np.uint16)


def write_band(path: Path, pixels: np.ndarray) -> None:
    """A tiled, deflated GeoTIFF in UTM zone 43N."""
    west, north = ORIGIN
    tags = [
        (33550, _DOUBLES, 3, (PIXEL_M, PIXEL_M, 0.0)),
        (33922, _DOUBLES, 6, (0.0, 0.0, 0.0, west, north, 0.0)),
        (34735, _SHORTS, len(_GEOKEYS), _GEOKEYS),
        (42113, 2, 2, "0"),
    ]
    tifffile.imwrite(
        path,
        pixels,
        tile=(64, 64),
        compression="zlib",
        predictor=True,
        photometric="minisblack",
        metadata=None,
        extratags=[(*tag, True) for tag in tags],
    )


def build_workspace(folder: Path) -> Path:
    """A workspace with one collection, `s2`."""
    rows = []
    for number, (scene, moment) in enumerate(SCENES.items()):
        assets = []
        for band in ("B04", "B08"):
            path = folder / f"{scene}_{band}.tif"
            write_band(path, band_pixels(number, band))
            assets.append(f"{band}: {{href: '{path}'}}")
        rows.append(
            f"('{scene}', TIMESTAMP '{moment}', {{{', '.join(assets)}}}, 'l2a', {5.0 * number})"
        )
    source = (
        f'FROM (VALUES {", ".join(rows)}) t(id, datetime, assets, collection, "eo:cloud_cover")'
    )
    root = folder / "workspace"
    con = rasteret_sql.connect(workspace=root)
    report = con.execute(
        "SELECT records, enriched, failed FROM rasteret_build_table('s2', $source, enrich := true)",
        {"source": source},
    ).fetchall()
    con.close()
    assert report == [(2, 4, 0)]
    return root
