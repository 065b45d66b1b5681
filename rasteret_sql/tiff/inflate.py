"""Undo the compressions that turn bytes into bytes, never more of them than asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import imagecodecs
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from rasteret_sql.errors import DecodeError

Bytes: TypeAlias = bytes | memoryview
Inflate: TypeAlias = Callable[[Bytes, int, int], NDArray[np.uint8]]
"""``inflate(data, wanted, full)``: the first ``wanted`` bytes of a block that should have
``full``; fewer where the data end early."""

_MAX_SLOW_PACKBITS: Final = 8 << 20
_IsalError: Final[type[Exception]] = isal_zlib.error  # type: ignore[assignment]  # its stub says instance


def stored(data: Bytes, wanted: int, full: int) -> NDArray[np.uint8]:  # noqa: ARG001
    """Compression 1: the bytes themselves, as a view that must not be written to."""
    return np.frombuffer(data, np.uint8, count=min(wanted, len(data)))


def deflate(data: Bytes, wanted: int, full: int) -> NDArray[np.uint8]:
    """Compressions 8 and 32946: a zlib stream; stops after ``wanted`` bytes."""
    # libdeflate is the faster for bytes and floats, but it can't stop early, and refuses a
    # stream that is damaged behind what is wanted.
    if wanted >= full:
        try:
            return _into(imagecodecs.deflate_decode, "deflate", data, full)[:wanted]
        except DecodeError:
            pass
    try:
        return np.frombuffer(isal_zlib.decompressobj().decompress(data, wanted), np.uint8)
    except _IsalError as error:
        raise corrupt("deflate", error) from None


def lzw(data: Bytes, wanted: int, full: int) -> NDArray[np.uint8]:  # noqa: ARG001
    """Compression 5: LZW, high bits first, or in the old manner low bits first."""
    return _into(imagecodecs.lzw_decode, "LZW", data, wanted)


def lzma(data: Bytes, wanted: int, full: int) -> NDArray[np.uint8]:  # noqa: ARG001
    """Compression 34925: an xz stream."""
    return _into(imagecodecs.lzma_decode, "LZMA", data, wanted)


def zstd(data: Bytes, wanted: int, full: int) -> NDArray[np.uint8]:
    """Compression 50000: a Zstandard frame."""
    try:
        return _into(imagecodecs.zstd_decode, "ZSTD", data, full)[:wanted]
    except DecodeError as error:
        if "too small" not in str(error):
            raise
    # The last strip of some writers has the rows of a whole one, or more.
    return _into(imagecodecs.zstd_decode, "ZSTD", data, 2 * full + (1 << 16))[:wanted]


def packbits(data: Bytes, wanted: int, full: int) -> NDArray[np.uint8]:
    """Compression 32773: runs of bytes; what lies behind ``wanted`` bytes is not looked at."""
    try:
        return _into(imagecodecs.packbits_decode, "PackBits", data, full)[:wanted]
    except DecodeError:
        if len(data) > _MAX_SLOW_PACKBITS:
            raise
    return _packbits_prefix(bytes(data), wanted)


def _packbits_prefix(data: bytes, wanted: int) -> NDArray[np.uint8]:
    out = bytearray()
    position = 0
    while len(out) < wanted and position < len(data):
        code = data[position]
        position += 1
        if code < 128:
            out += data[position : position + code + 1]
            position += code + 1
        elif code > 128:
            out += data[position : position + 1] * (257 - code)
            position += 1
    return np.frombuffer(out, np.uint8)[:wanted]


def _into(decode: Callable[..., Any], name: str, data: Bytes, size: int) -> NDArray[np.uint8]:
    out = np.empty(size, np.uint8)
    try:
        decoded = decode(data, out=out)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise corrupt(name, error) from None
    return out[: len(decoded)]


def corrupt(name: str, error: Exception) -> DecodeError:
    """What every failing decoder says."""
    return DecodeError.expected("block", f"{name} data", error, "the file is corrupt")


INFLATE: Final[dict[int, Inflate]] = {
    1: stored,
    5: lzw,
    8: deflate,
    32773: packbits,
    32946: deflate,
    34925: lzma,
    50000: zstd,
}
STOPS_EARLY: Final = frozenset({1, 5, 8, 32946, 34925})
"""Compressions that make no more than the wanted bytes of a block."""
