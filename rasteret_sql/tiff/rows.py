"""Rows of a block without the rest of it: which compressions allow that, and how."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from rasteret_sql.errors import DecodeError
from rasteret_sql.tiff.bits import reverse_bits
from rasteret_sql.tiff.colours import is_plain_ycbcr, recolour
from rasteret_sql.tiff.inflate import Bytes, corrupt, most_bytes, xz_inflater
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.unpack import unpacker

Feed: TypeAlias = Callable[[], Bytes]
"""The next bytes of a block; none at its end."""

_FILL_ORDER_REVERSED: Final = 2
_SKIP_BYTES: Final = 4 << 20
_FAULTS: Final[tuple[type[Exception], ...]] = (isal_zlib.error, lzma.LZMAError)  # type: ignore[assignment]  # its stub says instance


class RowAccess(Enum):
    """How the rows of a block can be had."""

    ANY = "each row lies at a known byte"
    IN_ORDER = "from the first on, in bounded memory"
    WHOLE = "only all of them at once"


def row_access(fmt: BlockFormat) -> RowAccess:
    """How the rows of blocks of this format can be had.

    Example:
        >>> plain = BlockFormat(1, 1, 1, "uint8", "little", 8, 1, 4, 4)
        >>> row_access(plain)
        <RowAccess.ANY: 'each row lies at a known byte'>
    """
    if is_plain_ycbcr(fmt):  # rows share their chroma
        return RowAccess.WHOLE
    if fmt.compression == 1:
        return RowAccess.ANY
    return RowAccess.IN_ORDER if fmt.compression in _STREAMS else RowAccess.WHOLE


def row_bytes(fmt: BlockFormat) -> int:
    """Bytes of one row of an inflated block; a row starts on a byte."""
    return -(-fmt.tile_width * fmt.samples * fmt.bits_per_sample // 8)


class RowStream:
    """The rows of one block whose access is `RowAccess.IN_ORDER`, from the first on.

    Holds what the feed gave last and the rows that are asked for, whatever the block measures.

    Args:
        fmt: Format of the block.
        feed: Gives the bytes of the block one after another.
        n_rows: Rows that the block has, ``fmt.tile_height`` but in a last strip. With the
            last of them its size and checksum are verified.
    """

    def __init__(self, fmt: BlockFormat, feed: Feed, n_rows: int | None = None) -> None:
        is_reversed = fmt.fill_order == _FILL_ORDER_REVERSED
        self._stream = _STREAMS[fmt.compression](
            (lambda: reverse_bits(feed())) if is_reversed else feed
        )
        self._unpack = unpacker(fmt)
        self._recolour = recolour(fmt)
        self._row_bytes = row_bytes(fmt)
        self._n_rows = fmt.tile_height if n_rows is None else n_rows
        self._most_surplus = most_bytes(self._row_bytes * fmt.tile_height)
        self.position = 0

    def rows(self, first: int, stop: int) -> NDArray[Any]:
        """Rows ``[first, stop)``, shape (rows, tile_width, samples).

        Args:
            first: At least `position`; rows between are passed over.
            stop: More than ``first``; becomes `position`.

        Raises:
            DecodeError: if the bytes are cut off or corrupt.
        """
        try:
            left = (first - self.position) * self._row_bytes
            while left:
                left -= len(self._take(min(left, _SKIP_BYTES)))
            raw = self._take((stop - first) * self._row_bytes)
            if stop >= self._n_rows:
                self._verify_end()
        except _FAULTS as error:
            raise corrupt("compressed", error) from None
        self.position = stop
        pixels = self._unpack(np.frombuffer(raw, np.uint8), stop - first)
        return pixels if self._recolour is None else self._recolour(pixels)

    def _verify_end(self) -> None:
        """Inflate what follows the last row, so that the checksum is reached."""
        surplus = 0
        while surplus <= self._most_surplus and (part := self._stream.take(_SKIP_BYTES)):
            surplus += len(part)
        if not self._stream.is_whole():
            raise DecodeError.expected(
                "block", "its end behind the last row", "none", "the file is truncated or corrupt"
            )

    def _take(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            part = self._stream.take(missing)
            if not part:
                raise DecodeError.expected(
                    "block", f"{missing} bytes more", "its end", "the file is truncated or corrupt"
                )
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Stream(Protocol):
    def take(self, most: int) -> bytes:
        """Some of the next inflated bytes; none at the end."""

    def is_whole(self) -> bool:
        """Whether the end was reached, and with it the checksum."""


class _Deflate:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._inflater = isal_zlib.decompressobj()

    def take(self, most: int) -> bytes:
        part = b""
        while not part and not self._inflater.eof:
            data = self._inflater.unconsumed_tail or self._feed()
            part = self._inflater.decompress(data, most)
            if not data:
                break
        return part

    def is_whole(self) -> bool:
        return bool(self._inflater.eof)


class _Lzma:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._inflater = xz_inflater()

    def take(self, most: int) -> bytes:
        part = b""
        while not part and not self._inflater.eof:
            data = self._feed() if self._inflater.needs_input else b""
            if not data and self._inflater.needs_input:
                break
            part = self._inflater.decompress(data, most)
        return part

    def is_whole(self) -> bool:
        return self._inflater.eof


_STREAMS: Final[dict[int, Callable[[Feed], _Stream]]] = {
    8: _Deflate,
    32946: _Deflate,
    34925: _Lzma,
}
