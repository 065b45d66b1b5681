"""The bytes of one tile or strip to an array of samples, equal to what GDAL reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import DecodeError, UnsupportedTiffError
from rasteret_sql.tiff import predictors
from rasteret_sql.tiff.bits import float24_to_float32, reverse_bits, unpack_rows, unpack_uint24
from rasteret_sql.tiff.inflate import INFLATE, Inflate
from rasteret_sql.tiff.layout import BlockFormat

_NAMES: Final = {
    1: "none",
    5: "LZW",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate (old number)",
    34925: "LZMA",
    50000: "ZSTD",
}
_REFUSED: Final = {
    2: "CCITT RLE",
    3: "CCITT group 3",
    4: "CCITT group 4",
    6: "old-style JPEG",
    7: "JPEG",
    32766: "NeXT 2-bit",
    32771: "CCITT RLE/W",
    32809: "ThunderScan",
    32908: "Pixar film",
    32909: "Pixar log",
    32947: "Kodak DCS",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGILOG",
    34677: "SGILOG24",
    34712: "JPEG 2000",
    34887: "LERC",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_PREDICTED: Final = frozenset({5, 8, 32946, 34925, 50000})
"""Compressions whose predictor libtiff looks at; with others it ignores the tag."""
_FILL_ORDER_REVERSED: Final = 2
_MAX_BLOCK_BYTES: Final = 1 << 30

Samples: TypeAlias = Callable[[NDArray[np.uint8], int], NDArray[Any]]
"""``samples(block_bytes, rows)``: native order, shape (rows, tile_width, samples)."""


def supported_compressions() -> dict[int, str]:
    """The compressions that are read: value of TIFF tag 259 to name."""
    return dict(_NAMES)


def check_supported(fmt: BlockFormat) -> None:
    """Say before any byte is fetched whether blocks of this format can be decoded.

    Raises:
        UnsupportedTiffError: naming the compression, predictor or sample type with its
            tag value, or a block that declares more than 1 GiB.
    """
    _decoder(fmt)


def decode_block(
    data: bytes | memoryview,
    fmt: BlockFormat,
    *,
    rows: int | None = None,
    needed_rows: int | None = None,
) -> NDArray[Any]:
    """Decode one tile or strip.

    Never more memory than the declared pixels take, a few times over, whatever the bytes say.

    Args:
        data: The block as it lies in the file.
        fmt: From `Header.block_format`.
        rows: Rows that the block has: fewer than ``fmt.tile_height`` in the last strip of an
            image. A tile always has all of its rows.
        needed_rows: How many of them are wanted, from the first. Some compressions can stop
            there. As in GDAL, a block of the last row of blocks need not have bytes beyond
            the rows that lie in the image.

    Returns:
        Shape (rows or needed_rows, ``fmt.tile_width``, ``fmt.samples``), native byte order.
        It may be a read-only view of ``data``.

    Raises:
        UnsupportedTiffError: as `check_supported`.
        DecodeError: if the bytes are cut off or corrupt.
    """
    decoder = _decoder(fmt)
    declared = fmt.tile_height if rows is None else min(rows, fmt.tile_height)
    wanted = declared if needed_rows is None else min(needed_rows, declared)
    if wanted <= 0:
        return np.empty((0, fmt.tile_width, fmt.samples), decoder.dtype)
    return decoder(data, wanted)


@dataclass(frozen=True, slots=True)
class _ByteDecoder:
    """Inflate, then make samples of the bytes."""

    inflate: Inflate
    row_bytes: int
    full_bytes: int
    samples: Samples
    dtype: np.dtype[Any]
    is_reversed: bool

    def __call__(self, data: bytes | memoryview, wanted: int) -> NDArray[Any]:
        size = wanted * self.row_bytes
        compressed = reverse_bits(data) if self.is_reversed else data
        raw = self.inflate(compressed, size, self.full_bytes)
        if raw.size < size:
            raise DecodeError.expected(
                "block", f"{size} bytes", raw.size, "the file is truncated or corrupt"
            )
        return self.samples(raw, wanted)


@lru_cache(maxsize=512)
def _decoder(fmt: BlockFormat) -> _ByteDecoder:
    if fmt.compression not in _NAMES:
        known = ", ".join(sorted(set(_NAMES.values())))
        name = _REFUSED.get(fmt.compression, "unknown")
        raise UnsupportedTiffError.expected(
            "compression", f"one of {known}", f"{fmt.compression} ({name})", "convert the file"
        )
    per_row = fmt.tile_width * fmt.samples
    row_bytes = -(-per_row * fmt.bits_per_sample // 8)
    dtype = sample_dtype(fmt)
    if min(fmt.tile_width, fmt.tile_height, fmt.samples, fmt.bits_per_sample) < 1:
        raise UnsupportedTiffError.expected(
            "block", "at least one pixel", f"{fmt.tile_width} x {fmt.tile_height}", "mend the file"
        )
    size = max(row_bytes, per_row * dtype.itemsize) * fmt.tile_height
    if size > _MAX_BLOCK_BYTES:
        raise UnsupportedTiffError.expected(
            "block", "at most 1 GiB", f"{size} bytes", "write the file with smaller tiles"
        )
    return _ByteDecoder(
        INFLATE[fmt.compression],
        row_bytes,
        row_bytes * fmt.tile_height,
        _samples(fmt, dtype),
        dtype,
        fmt.fill_order == _FILL_ORDER_REVERSED,
    )


def sample_dtype(fmt: BlockFormat) -> np.dtype[Any]:
    """The type that `decode_block` returns; complex integers become complex floats."""
    widened = {"complex_int16": "complex64", "complex_int32": "complex128"}
    return np.dtype(widened.get(fmt.dtype, fmt.dtype))


def _samples(fmt: BlockFormat, dtype: np.dtype[Any]) -> Samples:
    bits = fmt.bits_per_sample
    predictor = fmt.predictor if fmt.compression in _PREDICTED else predictors.NONE
    if predictor == predictors.FLOATING_POINT:
        return _predicted_floats(fmt, dtype)
    if predictor not in (predictors.NONE, predictors.HORIZONTAL, 0):
        raise UnsupportedTiffError.expected("predictor", "1, 2 or 3", predictor, "convert the file")
    if predictor == predictors.HORIZONTAL and bits not in (8, 16, 32, 64):
        raise UnsupportedTiffError.expected(
            "predictor 2", "samples of 8, 16, 32 or 64 bits", bits, "convert the file"
        )
    if bits == 24:
        return _three_bytes(fmt, dtype)
    is_predicted = predictor == predictors.HORIZONTAL
    parts = _whole_words(fmt.dtype, bits, dtype)
    if parts is not None:
        return _words(fmt, dtype, parts, is_predicted=is_predicted)
    if dtype.kind != "u" or bits >= 8 * dtype.itemsize or bits > 31:
        raise UnsupportedTiffError.expected(
            "sample", f"bits of {fmt.dtype}", f"{bits} bits", "convert the file"
        )
    if is_predicted:
        raise UnsupportedTiffError.expected(
            "predictor 2", f"samples as wide as {fmt.dtype}", f"{bits} bits", "convert the file"
        )
    return _odd_bits(fmt, dtype)


def _whole_words(name: str, bits: int, dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The type of the real numbers as stored; None where samples are no whole words."""
    if name in ("complex_int16", "complex_int32"):
        stored = np.dtype(name.removeprefix("complex_"))
        return stored if bits == 16 * stored.itemsize else None
    if bits == 16 and name == "float32":
        return np.dtype("float16")
    if bits != 8 * dtype.itemsize:
        return None
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def _words(
    fmt: BlockFormat, dtype: np.dtype[Any], part: np.dtype[Any], *, is_predicted: bool
) -> Samples:
    unit = np.dtype(f"u{fmt.bits_per_sample // 8 if is_predicted else part.itemsize}")
    in_file = unit.newbyteorder(">" if fmt.byte_order == "big" else "<")
    is_native = in_file.isnative
    shape = (fmt.tile_width, fmt.samples)

    def samples(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        words: NDArray[Any] = raw.view(in_file).reshape(rows, shape[0], -1)
        if not is_native:
            words = words.astype(unit)
        if is_predicted:
            words = predictors.undo_horizontal(words, into=words if words.flags.writeable else None)
        values = words.reshape(-1).view(part)
        if fmt.dtype.startswith("complex_int"):
            values = values.astype(f"f{dtype.itemsize // 2}").view(dtype)
        elif part != dtype:
            values = values.view(dtype) if dtype.kind == "c" else values.astype(dtype)
        return values.reshape(rows, *shape)

    return samples


def _three_bytes(fmt: BlockFormat, dtype: np.dtype[Any]) -> Samples:
    is_big = fmt.byte_order == "big"

    def samples(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        codes = unpack_uint24(raw.reshape(rows, -1), big_endian=is_big)
        values = float24_to_float32(codes) if dtype.kind == "f" else codes.astype(dtype, copy=False)
        return values.reshape(rows, fmt.tile_width, fmt.samples)

    return samples


def _odd_bits(fmt: BlockFormat, dtype: np.dtype[Any]) -> Samples:
    per_row = fmt.tile_width * fmt.samples

    def samples(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        values = unpack_rows(raw.reshape(rows, -1), fmt.bits_per_sample, per_row, dtype)
        return values.reshape(rows, fmt.tile_width, fmt.samples)

    return samples


def _predicted_floats(fmt: BlockFormat, dtype: np.dtype[Any]) -> Samples:
    size = fmt.bits_per_sample // 8
    if dtype.kind != "f" or fmt.bits_per_sample not in (16, 24, 32, 64):
        raise UnsupportedTiffError.expected(
            "predictor 3",
            "floats of 16, 24, 32 or 64 bits",
            f"{fmt.dtype} of {fmt.bits_per_sample} bits",
            "convert the file",
        )

    def samples(raw: NDArray[np.uint8], rows: int) -> NDArray[Any]:
        parts = predictors.undo_floating_point(raw.reshape(rows, -1), fmt.samples, size)
        if size == 3:
            codes = unpack_uint24(parts.reshape(rows, -1), big_endian=False)
            values: NDArray[Any] = float24_to_float32(codes)
        else:
            values = parts.view(f"<f{size}").astype(dtype, copy=False)
        return values.reshape(rows, fmt.tile_width, fmt.samples)

    return samples
