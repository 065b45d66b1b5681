"""Colours that GDAL turns into RGB while it reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

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
_COEFFICIENTS: Final = (0.299, 0.587, 0.114)
_BLACK_WHITE: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
"""TIFF's defaults: ITU-R BT.601 at full range."""
_LARGEST_REFERENCE: Final = float((1 << 31) - 129)


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
    return fmt.photometric == _YCBCR and fmt.compression != _JPEG


def check_ycbcr(fmt: BlockFormat) -> None:
    """Refuse what libtiff does not turn into RGB.

    Raises:
        UnsupportedTiffError: naming the subsampling, samples, predictor, or values without sense.
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
    coefficients, black_white = fmt.ycbcr_coefficients, fmt.reference_black_white
    if not all(map(math.isfinite, coefficients)) or (coefficients and coefficients[1] == 0):
        raise UnsupportedTiffError.expected(
            "YCbCrCoefficients", "three numbers", coefficients, "convert the file to RGB"
        )
    if not all(abs(value) < _LARGEST_REFERENCE for value in black_white):
        raise UnsupportedTiffError.expected(
            "ReferenceBlackWhite", "numbers of 31 bits", black_white, "convert the file to RGB"
        )


def ycbcr_row_units(fmt: BlockFormat) -> int:
    """Bytes of one row of data units: all samples of as many rows as share their chroma."""
    across, down = fmt.ycbcr_subsampling
    return -(-fmt.tile_width // across) * (across * down + 2)


def ycbcr_to_rgb(raw: NDArray[np.uint8], rows: int, fmt: BlockFormat) -> NDArray[np.uint8]:
    """Turn packed data units into RGB, each chroma pair repeated for its pixels.

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
    tables = _ycbcr_tables(fmt.ycbcr_coefficients, fmt.reference_black_white)
    blue, red = (units[..., plane].repeat(down, 0).repeat(across, 1) for plane in (-2, -1))
    grey = tables.luma[luma]
    rgb = (
        grey + tables.red_of_red[red],
        grey + (tables.green_of_blue[blue] + tables.green_of_red[red] >> 16),
        grey + tables.blue_of_blue[blue],
    )
    return np.stack(rgb, axis=-1).clip(0, 255).astype(np.uint8)[:rows, : fmt.tile_width]


class _YcbcrTables(NamedTuple):
    """What each byte adds, ``int32``, shape (256,); those of green are times 65536."""

    luma: NDArray[np.int32]
    red_of_red: NDArray[np.int32]
    green_of_red: NDArray[np.int32]
    green_of_blue: NDArray[np.int32]
    blue_of_blue: NDArray[np.int32]


@lru_cache(maxsize=64)
def _ycbcr_tables(coefficients: tuple[float, ...], black_white: tuple[float, ...]) -> _YcbcrTables:
    """The tables of libtiff, with its 32-bit floats.

    Source:
        libtiff, tif_color.c, TIFFYCbCrToRGBInit.
    """
    red, green, blue = (np.float32(value) for value in coefficients or _COEFFICIENTS)
    reference = [np.float32(value) for value in black_white or _BLACK_WHITE]
    two = np.float32(2)
    half = 1 << 15
    of_red, of_blue = two - two * red, two - two * blue
    with np.errstate(over="ignore"):
        red_chroma, blue_chroma = (
            _code_to_value(np.arange(-128, 128), reference[at] - 128, reference[at + 1] - 128, 127)
            for at in (4, 2)
        )
        return _YcbcrTables(
            _code_to_value(np.arange(256), reference[0], reference[1], 255),
            _fixed(of_red) * red_chroma + half >> 16,
            -_fixed(red * of_red / green) * red_chroma,
            -_fixed(blue * of_blue / green) * blue_chroma + half,
            _fixed(of_blue) * blue_chroma + half >> 16,
        )


def _fixed(factor: np.float32) -> np.int32:
    return np.int32(float(np.clip(factor, 0, 2)) * 65536 + 0.5)


def _code_to_value(
    codes: NDArray[np.int64], black: np.float32, white: np.float32, span: int
) -> NDArray[np.int32]:
    width = white - black or np.float32(1)
    values = (codes - int(black)).astype(np.float32) * np.float32(span) / width
    return values.clip(-4096, 4096).astype(np.int32)


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
