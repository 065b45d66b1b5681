"""The bytes of one tile or strip to an array of samples, equal to what GDAL reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import DecodeError, RasteretError, UnsupportedTiffError
from rasteret_sql.tiff.bits import reverse_bits
from rasteret_sql.tiff.colours import (
    check_ycbcr,
    is_plain_ycbcr,
    recolour,
    ycbcr_row_units,
    ycbcr_to_rgb,
)
from rasteret_sql.tiff.images import IMAGES
from rasteret_sql.tiff.inflate import EXPANSION, INFLATE, STOPS_EARLY, corrupt
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.unpack import sample_dtype, unpacker

Decoder: TypeAlias = Callable[[bytes | memoryview, int, int, int], NDArray[Any]]
"""``decoder(data, first, stop, declared)``: rows [first, stop) of a block that declares so many,
shape (rows, tile_width, samples)."""

_NAMES: Final = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_REFUSED: Final = {
    0: "not a compression",
    6: "old-style JPEG",
    32766: "NeXT 2-bit",
    32771: "CCITT RLE/W",
    32809: "ThunderScan",
    32908: "Pixar film",
    32909: "Pixar log",
    32947: "Kodak DCS",
    33003: "Aperio JPEG 2000 in YCbCr",
    34661: "JBIG",
    34676: "SGILOG",
    34677: "SGILOG24",
}
_JPEG: Final = 7
_FILL_ORDER_REVERSED: Final = 2
_MAX_BLOCK_BYTES: Final = 1 << 30


def supported_compressions() -> dict[int, str]:
    """The compressions that are read: value of TIFF tag 259 to name."""
    return dict(_NAMES)


def check_supported(fmt: BlockFormat) -> None:
    """Say before any byte is fetched whether blocks of this format can be decoded.

    Raises:
        UnsupportedTiffError: naming the compression, predictor or sample type with its
            tag value, or a block of more than 1 GiB.
    """
    _decoder(fmt)


def decode_block(
    data: bytes | memoryview,
    fmt: BlockFormat,
    *,
    rows: int | None = None,
    needed_rows: int | None = None,
    first_row: int = 0,
) -> NDArray[Any]:
    """Decode one tile or strip.

    Never more memory than the declared pixels take, a few times over, whatever the bytes say.

    Args:
        data: The block as it lies in the file.
        fmt: From `Header.block_format`.
        rows: Rows that the block has: fewer than ``fmt.tile_height`` in the last strip of an
            image. A tile always has all of its rows.
        needed_rows: Behind the last of them that is wanted. Some compressions can stop
            there. As in GDAL, a block of the last row of blocks need not have bytes beyond
            the rows that lie in the image. Size and checksum are verified where the last row
            of the block is wanted; of a part of them nobody can tell.
        first_row: The first of them that is wanted. Rows before it are inflated and dropped.

    Returns:
        Rows [first_row, needed_rows or rows), shape (n, ``fmt.tile_width``, ``fmt.samples``),
        native byte order. It may be a read-only view of ``data``.

    Raises:
        UnsupportedTiffError: as `check_supported`.
        DecodeError: if the bytes are cut off or corrupt.
    """
    try:
        return _decoded(data, fmt, rows, needed_rows, first_row)
    except RasteretError:
        raise
    except Exception as error:
        # a header that contradicts itself, in a way that no check above knows
        raise corrupt("sound", f"{type(error).__name__}: {error}") from error


def _decoded(
    data: bytes | memoryview,
    fmt: BlockFormat,
    rows: int | None,
    needed_rows: int | None,
    first: int,
) -> NDArray[Any]:
    decoder = _decoder(fmt)
    declared = fmt.tile_height if rows is None else min(rows, fmt.tile_height)
    wanted = declared if needed_rows is None else min(needed_rows, declared)
    if wanted <= first:
        return np.empty((0, fmt.tile_width, fmt.samples), sample_dtype(fmt))
    pixels = decoder(data, first, wanted, declared)
    whole = pixels.base
    if first and isinstance(whole, np.ndarray) and whole.nbytes > 2 * pixels.nbytes:
        return pixels.copy()  # the view would keep the dropped rows in memory
    return pixels


@lru_cache(maxsize=512)
def _decoder(fmt: BlockFormat) -> Decoder:
    if fmt.compression not in _NAMES:
        known = ", ".join(sorted(set(_NAMES.values())))
        name = _REFUSED.get(fmt.compression, "unknown")
        raise UnsupportedTiffError.expected(
            "compression", f"one of {known}", f"{fmt.compression} ({name})", "convert the file"
        )
    if min(fmt.tile_width, fmt.tile_height, fmt.samples, fmt.bits_per_sample) < 1:
        raise UnsupportedTiffError.expected(
            "block", "at least one pixel", f"{fmt.tile_width} x {fmt.tile_height}", "fix the file"
        )
    if is_plain_ycbcr(fmt):
        return _ycbcr_decoder(fmt)
    decoder = _image_decoder(fmt) if fmt.compression in IMAGES else _byte_decoder(fmt)
    finish = recolour(fmt)
    if finish is None:
        return decoder
    return lambda data, first, stop, declared: finish(decoder(data, first, stop, declared))


def _check_size(size: int) -> None:
    if size > _MAX_BLOCK_BYTES:
        raise UnsupportedTiffError.expected(
            "block", "at most 1 GiB of samples", f"{size} bytes", "write the file in smaller tiles"
        )


def _byte_decoder(fmt: BlockFormat) -> Decoder:
    """Inflate, then make samples of the bytes."""
    inflate, unpack = INFLATE[fmt.compression], unpacker(fmt)
    per_row = fmt.tile_width * fmt.samples
    row_bytes = -(-per_row * fmt.bits_per_sample // 8)
    widest_row = max(row_bytes, per_row * sample_dtype(fmt).itemsize)
    full = row_bytes * fmt.tile_height
    stops_early = fmt.compression in STOPS_EARLY
    is_reversed = fmt.fill_order == _FILL_ORDER_REVERSED
    _check_size(widest_row if stops_early else widest_row * fmt.tile_height)

    def decode(data: bytes | memoryview, first: int, stop: int, declared: int) -> NDArray[Any]:
        _check_size(stop * widest_row)
        size = stop * row_bytes
        _check_expansion(fmt, len(data), size)
        raw = inflate(reverse_bits(data) if is_reversed else data, size, declared * row_bytes, full)
        return unpack(_whole(raw, size)[first * row_bytes :], stop - first)

    return decode


def _ycbcr_decoder(fmt: BlockFormat) -> Decoder:
    """Inflate, spread the chroma, make RGB."""
    check_ycbcr(fmt)
    if fmt.compression not in INFLATE:
        raise UnsupportedTiffError.expected(
            "YCbCr",
            "JPEG or a compression of bytes",
            f"compression {fmt.compression}",
            "convert the file to RGB",
        )
    inflate, unit_row, down = (
        INFLATE[fmt.compression],
        ycbcr_row_units(fmt),
        fmt.ycbcr_subsampling[1],
    )
    full = -(-fmt.tile_height // down) * unit_row
    # Wide integers hold the pixels for a moment.
    _check_size(12 * fmt.tile_width * fmt.tile_height)
    is_reversed = fmt.fill_order == _FILL_ORDER_REVERSED

    def decode(data: bytes | memoryview, first: int, stop: int, declared: int) -> NDArray[Any]:
        size, whole = (-(-rows // down) * unit_row for rows in (stop, declared))
        _check_expansion(fmt, len(data), size)
        raw = inflate(reverse_bits(data) if is_reversed else data, size, whole, full)
        return ycbcr_to_rgb(_whole(raw, size), stop, fmt)[first:]

    return decode


def _check_expansion(fmt: BlockFormat, n_bytes: int, size: int) -> None:
    """Refuse, before any memory is taken, a block that the bytes can't make."""
    most = EXPANSION.get(fmt.compression)
    if most is not None and size > most * n_bytes:
        raise DecodeError.expected(
            "block", f"{size} bytes", f"{n_bytes} packed ones", "the file is truncated or corrupt"
        )


def _whole(raw: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if raw.size < size:
        raise DecodeError.expected(
            "block", f"{size} bytes", raw.size, "the file is truncated or corrupt"
        )
    return raw


def _image_decoder(fmt: BlockFormat) -> Decoder:
    """Decode a block that is an image of its own."""
    _check_size(fmt.tile_width * fmt.tile_height * fmt.samples * sample_dtype(fmt).itemsize)
    image = IMAGES[fmt.compression](fmt)
    # libtiff leaves the bits of JPEG blocks alone.
    is_reversed = fmt.fill_order == _FILL_ORDER_REVERSED and fmt.compression != _JPEG

    def decode(data: bytes | memoryview, first: int, stop: int, declared: int) -> NDArray[Any]:
        pixels = image(reverse_bits(data) if is_reversed else data, declared)
        return pixels[first:stop].reshape(stop - first, fmt.tile_width, fmt.samples)

    return decode
