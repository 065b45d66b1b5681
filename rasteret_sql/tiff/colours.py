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
_CIELAB: Final = 8


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
