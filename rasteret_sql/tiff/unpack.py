"""The bytes of an inflated block to samples: word size, byte order, predictor, odd bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import UnsupportedTiffError
from rasteret_sql.tiff import predictors
from rasteret_sql.tiff.bits import float24_to_float32, unpack_rows
from rasteret_sql.tiff.layout import BlockFormat

Unpack: TypeAlias = Callable[[NDArray[np.uint8], int], NDArray[Any]]
"""``unpack(block_bytes, rows)``: native order, shape (rows, tile_width, samples)."""

_PREDICTED: Final = frozenset({5, 8, 32946, 34925, 50000})
"""Compressions whose predictor libtiff looks at; with others it ignores the tag."""
_COMPLEX_INTEGERS: Final = {
    "complex_int16": ("int16", "complex64"),
    "complex_int32": ("int32", "complex128"),
}


def sample_dtype(fmt: BlockFormat) -> np.dtype[Any]:
    """The type that `unpacker` returns; complex integers become complex floats."""
    return np.dtype(_COMPLEX_INTEGERS.get(fmt.dtype, ("", fmt.dtype))[1])


def unpacker(fmt: BlockFormat) -> Unpack:
    """Choose how the bytes of a block become samples.

    Raises:
        UnsupportedTiffError: if GDAL does not read such samples, or reads them in a way
            that contradicts the specification.
    """
    dtype, bits = sample_dtype(fmt), fmt.bits_per_sample
    predictor = fmt.predictor if fmt.compression in _PREDICTED else predictors.NONE
    if predictor == predictors.FLOATING_POINT:
        return _predicted_floats(fmt, dtype)
    if predictor not in (predictors.NONE, predictors.HORIZONTAL):
        raise UnsupportedTiffError.expected("predictor", "1, 2 or 3", predictor, "convert the file")
    is_predicted = predictor == predictors.HORIZONTAL
    part = _stored_type(fmt.dtype, bits, dtype)
    if is_predicted and (part is None or bits not in (8, 16, 32, 64)):
        got = f"{fmt.dtype} of {bits} bits"
        raise UnsupportedTiffError.expected(
            "predictor 2", "samples of 8, 16, 32 or 64 bits", got, "convert the file"
        )
    if part is not None:
        return _words(fmt, dtype, part, is_predicted=is_predicted)
    if dtype == np.float32 and bits == 24:
        return _short_floats(fmt)
    return _odd_bits(fmt, dtype)


def _stored_type(name: str, bits: int, dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The type of the real numbers as stored; None where samples are no whole words."""
    if name in _COMPLEX_INTEGERS:
        part = np.dtype(_COMPLEX_INTEGERS[name][0])
        return part if bits == 16 * part.itemsize else None
    if bits != 8 * dtype.itemsize:
        return None
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def _words(
    fmt: BlockFormat, dtype: np.dtype[Any], part: np.dtype[Any], *, is_predicted: bool
) -> Unpack:
    unit = np.dtype(f"u{fmt.bits_per_sample // 8 if is_predicted else part.itemsize}")
    in_file = unit.newbyteorder(">" if fmt.byte_order == "big" else "<")
    is_native = in_file.isnative
    shape = (fmt.tile_width, fmt.samples)

    def unpack(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        words: NDArray[Any] = raw.view(in_file).reshape(rows, shape[0], -1)
        if not is_native:
            words = words.astype(unit)
        if is_predicted:
            words = predictors.undo_horizontal(words, into=words if words.flags.writeable else None)
        values = words.reshape(-1).view(part)
        if fmt.dtype in _COMPLEX_INTEGERS:
            values = values.astype(f"f{dtype.itemsize // 2}").view(dtype)
        else:
            values = values.view(dtype)
        return values.reshape(rows, *shape)

    return unpack


def _short_floats(fmt: BlockFormat) -> Unpack:
    is_big = fmt.byte_order == "big"

    def unpack(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        values = float24_to_float32(raw.reshape(rows, -1), big_endian=is_big)
        return values.reshape(rows, fmt.tile_width, fmt.samples)

    return unpack


def _odd_bits(fmt: BlockFormat, dtype: np.dtype[Any]) -> Unpack:
    bits = fmt.bits_per_sample
    if dtype.kind != "u" or bits >= 8 * dtype.itemsize or bits > 31:
        raise UnsupportedTiffError.expected(
            "sample", f"the bits of {fmt.dtype}", bits, "convert the file"
        )
    if bits == 24 and fmt.byte_order == "big":
        # libtiff turns these three bytes around and GDAL then reads them as if it had not.
        raise UnsupportedTiffError.expected(
            "sample", "integers of 24 bits in a little-endian file", "big", "convert the file"
        )
    per_row = fmt.tile_width * fmt.samples

    def unpack(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        values = unpack_rows(raw.reshape(rows, -1), bits, per_row, dtype)
        return values.reshape(rows, fmt.tile_width, fmt.samples)

    return unpack


def _predicted_floats(fmt: BlockFormat, dtype: np.dtype[Any]) -> Unpack:
    size = fmt.bits_per_sample // 8
    if dtype.kind != "f" or fmt.bits_per_sample not in (16, 24, 32, 64):
        got = f"{fmt.dtype} of {fmt.bits_per_sample} bits"
        raise UnsupportedTiffError.expected(
            "predictor 3", "floats of 16, 24, 32 or 64 bits", got, "convert the file"
        )

    def unpack(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        parts = predictors.undo_floating_point(raw.reshape(rows, -1), fmt.samples, size)
        if size == 3:
            values: NDArray[Any] = float24_to_float32(parts, big_endian=False)
        else:
            values = parts.view(f"<f{size}").astype(dtype, copy=False)
        return values.reshape(rows, fmt.tile_width, fmt.samples)

    return unpack
