"""Samples that are no whole machine words: odd bit depths, 24-bit floats, reversed bits."""

from __future__ import annotations

from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def reverse_bits(data: bytes | memoryview) -> bytes:
    """Turn every byte around, for FillOrder 2.

    Source:
        TIFF 6.0, page 32: with FillOrder 2 the first pixel lies in the lowest bits.

    Example:
        >>> reverse_bits(bytes([1, 0b11010000])) == bytes([128, 0b00001011])
        True
    """
    return bytes(data).translate(_REVERSED)


def unpack_rows(
    packed: NDArray[np.uint8], bits: int, per_row: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Take unsigned integers of any number of bits apart, highest bit first.

    Args:
        packed: Shape (rows, bytes per row); a row starts on a byte.
        bits: Bits of a sample, 1 to 31.
        per_row: Samples in a row.
        dtype: Unsigned integer that holds ``bits`` bits.

    Returns:
        Shape (rows, per_row). No sign is extended, as in GDAL.

    Example:
        >>> row = np.array([[0b1010_1111, 0b0001_0000]], np.uint8)
        >>> unpack_rows(row, 12, 1, np.dtype("uint16")).tolist()
        [[2801]]
    """
    rows = packed.shape[0]
    if bits in (3, 5, 6, 7):  # these the decoder below does not take
        single = np.unpackbits(packed, axis=1, count=per_row * bits)
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint8)
        return (single.reshape(rows, per_row, bits) @ weights).astype(dtype, copy=False)
    flat = imagecodecs.packints_decode(packed.tobytes(), dtype, bits, runlen=per_row)
    return np.asarray(flat).reshape(rows, per_row)


def float24_to_float32(stored: NDArray[np.uint8], *, big_endian: bool) -> NDArray[np.float32]:
    """Widen 24-bit floats: 1 sign, 7 exponent (bias 63) and 16 mantissa bits.

    Unlike integers of odd depths they follow the byte order of the file.

    Args:
        stored: Bytes, the last axis a multiple of 3.
        big_endian: Byte order of the file.

    Source:
        Adobe Photoshop TIFF Technical Note 3, "Floating point formats".

    Example:
        >>> float24_to_float32(np.array([0, 0x80, 0xC0], np.uint8), big_endian=False).tolist()
        [-3.0]
    """
    parts = stored.reshape(*stored.shape[:-1], -1, 3).astype(np.uint32)
    high, middle, low = (0, 1, 2) if big_endian else (2, 1, 0)
    mantissa = parts[..., middle] << 8 | parts[..., low]
    sign = parts[..., high] >> 7 << 31
    exponent = parts[..., high] & 0x7F
    normal = sign | ((exponent + 64) << 23) | (mantissa << 7)
    special = sign | np.uint32(0x7F800000) | (mantissa << 7)
    wide = np.where(exponent == 127, special, normal).astype(np.uint32).view(np.float32)
    # Below the normal range the mantissa has no hidden bit: 2**-62 * mantissa / 2**16.
    tiny = np.ldexp(mantissa.astype(np.float32), -78)
    tiny = np.where(sign != 0, -tiny, tiny)
    return np.where(exponent == 0, tiny, wide).astype(np.float32)
