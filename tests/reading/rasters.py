"""Rasters that tests write, and where they lie."""

from __future__ import annotations

import numpy as np
import rasterio
from affine import Affine

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)
ROTATED = Affine(8, 3, 500_000, 3.5, -9, 4_000_000)


def write(
    path, pixels, *, transform=NORTH_UP, crs="EPSG:32643", overviews=(), mask=None, **options
):
    """A GeoTIFF of ``pixels`` (band, row, column), in tiles of 32 unless told otherwise."""
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"} | options
    count, height, width = pixels.shape
    environment = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
    with environment, rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, transform=transform, crs=crs, **options,
    ) as file:  # fmt: skip
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
        if overviews:
            file.build_overviews(list(overviews), rasterio.enums.Resampling.nearest)
    return path


def noise(shape, dtype="uint16", *, low=0, high=250, seed=0):
    """Random pixels from ``low`` to below ``high``."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)
