"""Undo the differences that a TIFF writer stored instead of the samples."""

from __future__ import annotations

from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

NONE: Final = 1
"""Predictor tag: samples as they are."""
HORIZONTAL: Final = 2
"""Predictor tag: each sample minus its left neighbour of the same band."""
FLOATING_POINT: Final = 3
"""Predictor tag: differences of the bytes of floats, most significant bytes first."""


def undo_horizontal(stored: NDArray[Any], *, into: NDArray[Any] | None = None) -> NDArray[Any]:
    """Sum up along each row, band by band, with wrap-around.

    Args:
        stored: Differences as unsigned integers in native byte order, shape
            (rows, columns, samples).
        into: Where to write, may be ``stored`` itself; a new array by default.

    Returns:
        ``into``, the samples.

    Source:
        TIFF 6.0, section 14.

    Example:
        >>> undo_horizontal(np.array([[[250], [10], [1]]], np.uint8))[0, :, 0].tolist()
        [250, 4, 5]
    """
    result = np.empty_like(stored) if into is None else into
    if stored.shape[2] == 1:
        imagecodecs.delta_decode(stored[..., 0], axis=-1, out=result[..., 0])
    else:
        imagecodecs.delta_decode(stored, axis=-2, out=result)
    return result


def undo_floating_point(stored: NDArray[np.uint8], samples: int, size: int) -> NDArray[np.uint8]:
    """Sum up the bytes of each row and put those of one float together again.

    The order of the stored bytes does not depend on the byte order of the file.

    Args:
        stored: Shape (rows, columns * samples * size).
        samples: Samples per pixel, the distance of two bytes that were subtracted.
        size: Bytes of a float: 2, 3, 4 or 8.

    Returns:
        Shape (rows, columns * samples, size), least significant byte first.

    Source:
        Adobe Photoshop TIFF Technical Note 3, "Predictor 3".
    """
    rows, row_bytes = stored.shape
    pixels = stored.reshape(rows, row_bytes // samples, samples)
    summed = undo_horizontal(pixels).reshape(rows, size, row_bytes // size)
    result = np.empty((rows, row_bytes // size, size), np.uint8)
    for plane in range(size):
        result[..., size - 1 - plane] = summed[:, plane]
    return result
