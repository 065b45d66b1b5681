"""Colours that GDAL turns into RGB while it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import UnsupportedTiffError
from rasteret_sql.tiff.layout import BlockFormat

Recolour: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

_SEPARATED: Final = 5
_YCBCR: Final = 6
_CIELAB: Final = 8
_JPEG: Final = 7
_SUBSAMPLINGS: Final = frozenset({(4, 4), (4, 2), (4, 1), (2, 2), (2, 1), (1, 2), (1, 1)})
"""Those that libtiff turns into RGB."""
_RED_OF_RED: Final = round(1.402 * 65536)
_BLUE_OF_BLUE: Final = round(1.772 * 65536)
_GREEN_OF_RED: Final = -round(0.299 * 1.402 / 0.587 * 65536)
_GREEN_OF_BLUE: Final = -round(0.114 * 1.772 / 0.587 * 65536)


def recolour(fmt: BlockFormat) -> Recolour | None:
    """Choose the conversion that GDAL would make; None where samples stay as they are.

    Raises:
        UnsupportedTiffError: for a conversion that is not made here.
    """
    if fmt.bits_per_sample != 8 or fmt.photometric not in (_SEPARATED, _CIELAB):
        return None
    if fmt.photometric == _SEPARATED and fmt.samples == 4:
        return cmyk_to_rgba
    name = "CMYK in separate planes" if fmt.photometric == _SEPARATED else "CIELab"
    raise UnsupportedTiffError.expected(
        "photometric interpretation",
        "grey, RGB, palette, YCbCr or CMYK pixel by pixel",
        f"{fmt.photometric} ({name})",
        "convert the file to RGB",
    )


def is_plain_ycbcr(fmt: BlockFormat) -> bool:
    """Whether a block holds YCbCr that its own compression does not turn into RGB."""
    return fmt.photometric == _YCBCR and fmt.compression != _JPEG and fmt.samples > 1


def check_ycbcr(fmt: BlockFormat) -> None:
    """Refuse what libtiff does not turn into RGB.

    Raises:
        UnsupportedTiffError: naming the subsampling, samples or predictor.
    """
    if fmt.ycbcr_subsampling not in _SUBSAMPLINGS:
        raise UnsupportedTiffError.expected(
            "YCbCr subsampling", "1, 2 or 4", fmt.ycbcr_subsampling, "convert the file to RGB"
        )
    if (fmt.dtype, fmt.bits_per_sample, fmt.samples) != ("uint8", 8, 3) or fmt.predictor > 1:
        got = f"{fmt.samples} of {fmt.bits_per_sample} bits, predictor {fmt.predictor}"
        raise UnsupportedTiffError.expected(
            "YCbCr", "3 samples of 8 bits, no predictor", got, "convert the file to RGB"
        )


def ycbcr_row_units(fmt: BlockFormat) -> int:
    """Bytes of one row of data units: all samples of as many rows as share their chroma."""
    across, down = fmt.ycbcr_subsampling
    return -(-fmt.tile_width // across) * (across * down + 2)


def ycbcr_to_rgb(raw: NDArray[np.uint8], rows: int, fmt: BlockFormat) -> NDArray[np.uint8]:
    """Turn packed data units into RGB, each chroma pair repeated for its pixels.

    Coefficients are those of ITU-R BT.601 at full range, the defaults of TIFF.

    Args:
        raw: Whole rows of data units: Y of all pixels, then Cb, then Cr.
        rows: Rows to return.
        fmt: Format of the block.

    Source:
        TIFF 6.0, section 21; libtiff, tif_color.c, TIFFYCbCrToRGBInit.
    """
    across, down = fmt.ycbcr_subsampling
    units = raw.reshape(-(-rows // down), -1, across * down + 2)
    shape = (units.shape[0] * down, units.shape[1] * across)
    luma = units[..., :-2].reshape(*units.shape[:2], down, across).swapaxes(1, 2).reshape(shape)
    luma = luma.astype(np.int32)
    blue, red = (
        (units[..., plane].astype(np.int32) - 128).repeat(down, 0).repeat(across, 1)
        for plane in (-2, -1)
    )
    half = 1 << 15
    rgb = (
        luma + (_RED_OF_RED * red + half >> 16),
        luma + (_GREEN_OF_BLUE * blue + half + _GREEN_OF_RED * red >> 16),
        luma + (_BLUE_OF_BLUE * blue + half >> 16),
    )
    return np.stack(rgb, axis=-1).clip(0, 255).astype(np.uint8)[:rows, : fmt.tile_width]


def cmyk_to_rgba(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn four inks into opaque RGBA.

    Source:
        libtiff, tif_getimage.c, putRGBcontig8bitCMYKtile.

    Example:
        >>> cmyk_to_rgba(np.array([[[255, 0, 0, 0]]], np.uint8)).tolist()
        [[[0, 255, 255, 255]]]
    """
    result = np.full(inks.shape, 255, np.uint8)
    white = 255 - inks[..., :3].astype(np.uint16)
    light = 255 - inks[..., 3:].astype(np.uint16)
    result[..., :3] = light * white // 255
    return result
