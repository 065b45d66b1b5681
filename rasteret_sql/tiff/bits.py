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
    if bits == 1:
        return np.unpackbits(packed, axis=1, count=per_row).astype(dtype, copy=False)
    if bits < 8:
        # A table of whole bytes would not help 3, 5, 6 and 7 bits; these pass through here too.
        single = np.unpackbits(packed, axis=1, count=per_row * bits)
        weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint8)
        return (single.reshape(rows, per_row, bits) @ weights).astype(dtype, copy=False)
    flat = imagecodecs.packints_decode(
        np.ascontiguousarray(packed).reshape(-1), dtype, bits, runlen=per_row
    )
    return np.asarray(flat).reshape(rows, per_row)


def unpack_uint24(packed: NDArray[np.uint8], *, big_endian: bool) -> NDArray[np.uint32]:
    """Widen 3-byte integers, which, unlike other odd depths, follow the file's byte order.

    Args:
        packed: Bytes, the last axis a multiple of 3.
        big_endian: Byte order of the file.

    Example:
        >>> unpack_uint24(np.array([1, 2, 0], np.uint8), big_endian=False).tolist()
        [513]
    """
    shape = (*packed.shape[:-1], packed.shape[-1] // 3)
    parts = packed.reshape(*shape, 3)
    wide = np.zeros((*shape, 4), np.uint8)
    wide[..., 1:] = parts if big_endian else parts[..., ::-1]
    return wide.view(">u4")[..., 0].astype(np.uint32)


def float24_to_float32(codes: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Widen 24-bit floats: 1 sign, 7 exponent (bias 63) and 16 mantissa bits.

    Source:
        Adobe Photoshop TIFF Technical Note 3, "Floating point formats".

    Example:
        >>> float24_to_float32(np.array([0x3F0000, 0xC08000], np.uint32)).tolist()
        [1.0, -3.0]
    """
    sign = (codes & 0x800000) << 8
    exponent = (codes >> 16) & 0x7F
    mantissa = codes & 0xFFFF
    normal = sign | ((exponent + 64) << 23) | (mantissa << 7)
    special = sign | np.uint32(0x7F800000) | (mantissa << 7)
    wide = np.where(exponent == 127, special, normal).astype(np.uint32).view(np.float32)
    # Below the normal range the mantissa has no hidden bit: 2**-62 * mantissa / 2**16.
    tiny = np.ldexp(mantissa.astype(np.float32), -78)
    tiny = np.where(sign != 0, -tiny, tiny)
    return np.where(exponent == 0, tiny, wide).astype(np.float32)
