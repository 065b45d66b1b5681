"""GDAL's WarpedVRT as the oracle of pixels on another grid.

A tolerance of 1e-6 pixels, which is enough for `nearest`, moves float values of noise by
1e-6 of their range, so the others are compared with 1e-10. XSCALE and YSCALE fix what GDAL
else measures for each of its blocks.
"""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform

from rasteret_sql.grid import warp
from rasteret_sql.grid.crs import transformer
from rasteret_sql.units import Affine

GEOTIFF = Path(__file__).parents[3] / "shared" / "data" / "geotiff"

PAIRS = {
    "utm neighbours": (32643, Affine(10, 0, 500_000, 0, -10, 3_000_000), 32644),
    "utm neighbours, west": (32633, Affine(10, 0, 300_000, 0, -10, 5_300_000), 32632),
    "same": (32632, Affine(10, 0, 700_000, 0, -10, 5_300_000), 32632),
    "utm to lonlat": (32632, Affine(30, 0, 300_000, 0, -30, 5_300_000), 4326),
    "lonlat to utm": (4326, Affine(0.001, 0, 10, 0, -0.001, 50), 32632),
    "lonlat to mercator": (4326, Affine(0.01, 0, 10, 0, -0.01, 50), 3857),
    "mercator to utm": (3857, Affine(100, 0, 1.2e6, 0, -100, 6.2e6), 32633),
    "utm to polar": (32621, Affine(1000, 0, 300_000, 0, -1000, 8_900_000), 3413),
    "polar with pole to utm": (3031, Affine(500, 0, -60_000, 0, -500, 60_000), 32701),
    "lonlat to polar": (4326, Affine(0.05, 0, -40, 0, -0.05, 80), 3995),
    "conic equal area to utm": (5070, Affine(30, 0, 100_000, 0, -30, 1_500_000), 32614),
    "azimuthal equal area to utm": (3035, Affine(100, 0, 4e6, 0, -100, 3e6), 32631),
    "utm to azimuthal equal area": (32631, Affine(100, 0, 5e5, 0, -100, 5.5e6), 3035),
    "cylindric equal area to lonlat": (6933, Affine(1000, 0, 1e6, 0, -1000, 5e6), 4326),
    "south-up to mercator": (32632, Affine(10, 0, 500_000, 0, 10, 5_300_000), 3857),
    "rotated to utm": (32632, Affine(9, 3, 500_000, 3, -9, 5_300_000), 32633),
    "antimeridian to utm": (4326, Affine(0.01, 0, 178.5, 0, -0.01, -17), 32760),
    "antimeridian to lonlat": (32701, Affine(100, 0, 200_000, 0, -100, 8_100_000), 4326),
    "world to mercator": (4326, Affine(1, 0, -170, 0, -1, 90), 3857),
}


def oracle(path, nodata, target, kernel, scale, *, tolerance=1e-10):
    """Values and validity by GDAL, of a file of one band."""
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source,
            crs=target.crs.to_wkt(),
            transform=rasterio.Affine(*target.affine),
            width=target.width,
            height=target.height,
            resampling=Resampling[kernel],
            tolerance=tolerance,
            src_nodata=nodata,
            nodata=nodata,
            XSCALE=str(1 / warp._snapped(scale.x)),
            YSCALE=str(1 / warp._snapped(scale.y)),
        ) as warped,
    ):
        values = warped.read(1)
    return values, is_data(values, nodata)


def is_data(values, nodata):
    return ~np.isnan(values) if np.isnan(nodata) else values != nodata


def check(got, expected, nodata, kernel, spread, at, apart=0.0):
    """The rules of equality: nearest and validity exact, floats to 4e-7 of their spread.

    Where the PROJ of rasterio and that of pyproj are `apart` (azimuthal equal area: 0.3 mm),
    pixels with a centre so near an edge are left out, and values may differ as much.
    """
    (values, valid), (want, want_valid) = got, expected
    places = (np.broadcast_to(place, valid.shape) for place in at)
    near = np.zeros(valid.shape, dtype=bool)
    if apart > 1e-9:
        with np.errstate(invalid="ignore"):
            for place in places:
                near |= np.abs(place - np.round(place)) < 2 * apart
        assert near.mean() < 0.01
    differ = (valid != want_valid) & ~near
    assert not differ.any()
    both = valid & want_valid & ~near
    if values.dtype.kind in "iu":
        both &= values != nodata  # GDAL moves a value that comes out as no data by 1
    off = np.abs(values[both].astype(float) - want[both].astype(float))
    if kernel == "nearest":
        assert off.max(initial=0) == 0
    elif values.dtype.kind == "f":  # more only where few of the weights are left
        assert off.max(initial=0) <= (4e-6 + 40 * apart) * spread
        assert (off > (4e-7 + 10 * apart) * spread).mean() < 0.001
    else:
        assert off.max(initial=0) <= 1
        assert (off > 0).mean() <= (0.02 if kernel == "average" else 0.01) + 4 * apart * spread
    return int(both.sum())


def apart_px(target, source):
    """How far the PROJ of rasterio is from that of pyproj, in source pixels."""
    cols, rows = np.meshgrid(np.linspace(0, target.width, 9), np.linspace(0, target.height, 9))
    a, b, c, d, e, f = target.affine
    x, y = (a * cols + b * rows + c).ravel(), (d * cols + e * rows + f).ravel()
    theirs = transform(target.crs.to_wkt(), source.crs.to_wkt(), x, y)
    ours = transformer(target.crs, source.crs).transform(x, y)
    with np.errstate(invalid="ignore"):
        dx, dy = (np.abs(np.array(t) - o) for t, o in zip(theirs, ours, strict=True))
    near = (dx < 1) & (dy < 1)
    size = np.sqrt(abs(source.affine.determinant))
    apart = float(np.hypot(dx, dy)[near].max(initial=0)) / size
    return apart if apart > 1e-9 else 0.0
