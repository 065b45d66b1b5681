"""Undo the compressions that turn bytes into bytes, never more of them than asked for."""

from __future__ import annotations

import lzma as xz
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import imagecodecs
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from rasteret_sql.errors import DecodeError

Bytes: TypeAlias = bytes | memoryview
Inflate: TypeAlias = Callable[[Bytes, int, int, int], NDArray[np.uint8]]
"""``inflate(data, wanted, declared, full)``: the first ``wanted`` bytes of a block whose rows
take ``declared``; fewer where the data end early. The last strip of some writers has ``full``
bytes, as all others. Where all that is declared is wanted, size and checksum are verified."""

_MAX_SLOW_PACKBITS: Final = 8 << 20
_SURPLUS_STEP: Final = 1 << 20
_MAX_XZ_BYTES: Final = 512 << 20
_IsalError: Final[type[Exception]] = isal_zlib.error  # type: ignore[assignment]  # its stub says instance


def stored(data: Bytes, wanted: int, _declared: int, _full: int) -> NDArray[np.uint8]:
    """Compression 1: the bytes themselves, as a view that must not be written to."""
    return np.frombuffer(data, np.uint8, count=min(wanted, len(data)))


def deflate(data: Bytes, wanted: int, declared: int, full: int) -> NDArray[np.uint8]:
    """Compressions 8 and 32946: a zlib stream; stops after ``wanted`` bytes."""
    if wanted < declared:  # libdeflate, the faster for bytes and floats, can't stop early
        try:
            return np.frombuffer(isal_zlib.decompressobj().decompress(data, wanted), np.uint8)
        except _IsalError as error:
            raise corrupt("deflate", error) from None
    try:
        return _into(imagecodecs.deflate_decode, "deflate", data, declared)
    except DecodeError as error:
        if "INSUFFICIENT_SPACE" not in str(error):
            raise
    return _deflate_surplus(data, declared, most_bytes(full))


def _deflate_surplus(data: Bytes, declared: int, most: int) -> NDArray[np.uint8]:
    """The bytes of the declared rows, after what follows them was inflated and verified too."""
    inflater = isal_zlib.decompressobj()
    try:
        raw = inflater.decompress(data, declared)
        size = len(raw)
        while not inflater.eof and size <= most:
            part = inflater.decompress(inflater.unconsumed_tail, _SURPLUS_STEP)
            if not part:
                break
            size += len(part)
    except _IsalError as error:
        raise corrupt("deflate", error) from None
    if len(raw) == declared:
        _check_end("deflate", size, is_whole=inflater.eof)
    return np.frombuffer(raw, np.uint8)


def _check_end(name: str, size: int, *, is_whole: bool) -> None:
    if not is_whole:
        raise corrupt(name, f"{size} bytes without an end")


def most_bytes(full: int) -> int:
    """How many bytes a block may inflate to whose rows take ``full``."""
    return 2 * full + (1 << 16)


def lzw(data: Bytes, wanted: int, _declared: int, _full: int) -> NDArray[np.uint8]:
    """Compression 5: LZW, high bits first, or in the old manner low bits first."""
    return _into(imagecodecs.lzw_decode, "LZW", data, wanted)


def lzma(data: Bytes, wanted: int, declared: int, full: int) -> NDArray[np.uint8]:
    """Compression 34925: an xz stream; stops after ``wanted`` bytes."""
    inflater = xz_inflater()
    try:
        raw = inflater.decompress(data, wanted)
        size = len(raw)
        while wanted == declared and not inflater.eof and size <= most_bytes(full):
            part = inflater.decompress(b"", _SURPLUS_STEP)
            if not part:
                break
            size += len(part)
    except (xz.LZMAError, EOFError) as error:
        raise corrupt("LZMA", error) from None
    if wanted == declared <= size:
        _check_end("LZMA", size, is_whole=inflater.eof)
    return np.frombuffer(raw, np.uint8)


def xz_inflater() -> xz.LZMADecompressor:
    """A new one, which takes no more memory than the largest preset of xz needs, times eight."""
    return xz.LZMADecompressor(memlimit=_MAX_XZ_BYTES)


def zstd(data: Bytes, wanted: int, _declared: int, full: int) -> NDArray[np.uint8]:
    """Compression 50000: a Zstandard frame."""
    try:
        return _into(imagecodecs.zstd_decode, "ZSTD", data, full)[:wanted]
    except DecodeError as error:
        if "too small" not in str(error):
            raise
    # The last strip of some writers has the rows of a whole one, or more.
    return _into(imagecodecs.zstd_decode, "ZSTD", data, most_bytes(full))[:wanted]


def packbits(data: Bytes, wanted: int, _declared: int, full: int) -> NDArray[np.uint8]:
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


def corrupt(name: str, error: object) -> DecodeError:
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
EXPANSION: Final = {5: 4096, 8: 1032, 32773: 64, 32946: 1032, 50000: 65536}
"""Bytes that one byte can become at most: a block that declares more of them ends early."""

STOPS_EARLY: Final = frozenset({1, 5, 8, 32946, 34925})
"""Compressions that make no more than the wanted bytes of a block."""
