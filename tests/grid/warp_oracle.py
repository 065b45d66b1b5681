"""GDAL's WarpedVRT as the oracle of pixels on another grid.

A tolerance of 1e-6 pixels, which is enough for `nearest`, moves float values of noise by
1e-6 of their range, so the others are compared with 1e-10. XSCALE and YSCALE fix what GDAL
else measures for each of its blocks.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform

from rasteret_sql.grid.crs import transformer
from rasteret_sql.grid.kernels import snapped
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
            XSCALE=str(1 / snapped(scale.x)),
            YSCALE=str(1 / snapped(scale.y)),
        ) as warped,
    ):
        values = warped.read(1)
    return values, is_data(values, nodata)


def is_data(values, nodata):
    return ~np.isnan(values) if np.isnan(nodata) else values != nodata


class Differences(NamedTuple):
    """How two results on one grid differ.

    Attributes:
        n_pixels: Compared, whether they hold data or not.
        n_left_out: Pixels with a centre so near an edge that either answer is right.
        n_unlike: Pixels that hold data in one of them alone.
        off: Of each pixel that holds data in both, how far the values are apart.
    """

    n_pixels: int
    n_left_out: int
    n_unlike: int
    off: NDArray[np.float64]


def differences(got, expected, nodata, at, apart=0.0, kernel="nearest"):
    """Compare two pairs of values and validity.

    Where the PROJ of rasterio and that of pyproj are `apart` (azimuthal equal area: 0.3 mm),
    pixels with a centre so near an edge are left out. With cubic, those near the middle of a
    pixel too: there the 4 x 4 pixels change, of which one without data makes it bilinear.
    """
    (values, valid), (want, want_valid) = got, expected
    places = (np.broadcast_to(place, valid.shape) for place in at)
    near = np.zeros(valid.shape, dtype=bool)
    if apart > 1e-9:
        with np.errstate(invalid="ignore"):
            steps = 2 if kernel == "cubic" else 1
            for place in places:
                near |= np.abs(place * steps - np.round(place * steps)) < 2 * steps * apart
    differ = (valid != want_valid) & ~near
    both = valid & want_valid & ~near
    if values.dtype.kind in "iu":
        both &= values != nodata  # GDAL moves a value that comes out as no data by 1
    ours, theirs = values[both].astype(float), want[both].astype(float)
    with np.errstate(invalid="ignore"):
        off = np.abs(ours - theirs)
    off[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0
    return Differences(int((~near).sum()), int(near.sum()), int(differ.sum()), off)


def broken_rules(found, kernel, dtype, spread, apart=0.0):
    """The rules of equality that differences break.

    Nearest and validity are exact, floats within 4e-7 of their spread, where PROJs are
    `apart` as much more; integers are rounded of sums in another order.
    """
    off, dtype = found.off, np.dtype(dtype)
    unequal = float((off > 0).mean()) if off.size else 0.0
    beyond = float((off > (4e-7 + 10 * apart) * spread).mean()) if off.size else 0.0
    share = (0.02 if kernel == "average" else 0.01) + 4 * apart * spread
    rules = {
        "no pixel holds data in one alone": found.n_unlike == 0,
        "less than 1 % is left out": found.n_left_out < 0.01 * (found.n_pixels + found.n_left_out),
    }
    if kernel == "nearest":
        rules["values are equal"] = off.max(initial=0) == 0
    elif dtype.kind == "f":  # more only where few of the weights are left
        rules["values are within 4e-6 of their range"] = (
            off.max(initial=0) <= (4e-6 + 40 * apart) * spread
        )
        rules["99.9 % of the values are within 4e-7 of their range"] = beyond < 0.001
    else:
        rules["values are within 1"] = off.max(initial=0) <= 1
        rules[f"{share:.1%} of the values differ at most"] = unequal <= share
    return [rule for rule, holds in rules.items() if not holds]


def check(got, expected, nodata, kernel, spread, at, apart=0.0):
    """Two results are equal by the rules; the number of values compared."""
    found = differences(got, expected, nodata, at, apart, kernel)
    assert broken_rules(found, kernel, got[0].dtype, spread, apart) == []
    return found.off.size


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
