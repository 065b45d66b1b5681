"""Bytes of a file by offset, from the start that is at hand and from few larger requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from rasteret_sql.errors import HeaderError

Fetch = Callable[[int, int], bytes]
"""``fetch(offset, length)`` returns up to ``length`` bytes, fewer at the end of the file."""

_FIRST_REQUEST: Final = 64 * 1024
_LARGEST_REQUEST: Final = 1024 * 1024
_MERGE_GAP: Final = 256 * 1024
_MAX_REQUESTS: Final = 64
_MAX_OFFSET: Final = (1 << 63) - 1


class ByteSource:
    """Reads ranges of one file; asks for more only where the bytes are not at hand.

    Each request beyond the start is at least twice as large as the one before, so a chain of
    small reads costs few round trips; what came is kept until the header is parsed.

    Args:
        fetch: Reads from the file.
        start: What was already read from offset 0.
        file_size: Length of the file in bytes, None if it is not known.
    """

    __slots__ = ("_fetch", "_next_request", "_pieces", "file_size", "requests", "start")

    def __init__(self, fetch: Fetch, start: bytes, file_size: int | None) -> None:
        self.start = start
        self.file_size = file_size
        self._fetch = fetch
        self._pieces: list[tuple[int, bytes]] = []
        self._next_request = _FIRST_REQUEST
        self.requests = 0

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes.

        Raises:
            HeaderError: if the file ends before.
        """
        if offset + length <= len(self.start):
            return self.start[offset : offset + length]
        return self._read_beyond(offset, length)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Get ``(offset, length)`` ranges ahead of `read`, near ones with one request."""
        missing = sorted(
            (offset, offset + length)
            for offset, length in ranges
            if not self.has(offset, length) and self._can_have(offset + length)
        )
        groups: list[list[int]] = []
        for start, stop in missing:
            if groups and start - groups[-1][1] <= _MERGE_GAP:
                groups[-1][1] = max(groups[-1][1], stop)
            else:
                groups.append([start, stop])
        for start, stop in groups:
            self._request(start, stop - start)

    def has(self, offset: int, length: int) -> bool:
        """Whether the bytes are at hand."""
        start, stop = offset, offset + length
        return stop <= len(self.start) or any(
            at <= start and stop <= at + len(piece) for at, piece in self._pieces
        )

    def _can_have(self, stop: int) -> bool:
        return stop <= (_MAX_OFFSET if self.file_size is None else self.file_size)

    def _read_beyond(self, offset: int, length: int) -> bytes:
        stop = offset + length
        for at, piece in self._pieces:
            if at <= offset and stop <= at + len(piece):
                return piece[offset - at : stop - at]
        if self._can_have(stop):
            piece = self._request(offset, length)
            if len(piece) >= length:
                return piece[:length]
        raise HeaderError.expected(
            "TIFF header",
            f"{length} bytes at offset {offset}",
            "the end of the file" if self.file_size is None else f"{self.file_size} in all",
            "the file is cut off or corrupt",
        )

    def _request(self, offset: int, length: int) -> bytes:
        if self.requests == _MAX_REQUESTS:
            raise HeaderError.expected(
                "TIFF header",
                f"at most {_MAX_REQUESTS} requests",
                "more",
                "its parts lie all over the file; rewrite it as a COG",
            )
        self.requests += 1
        wanted = max(length, self._next_request)
        self._next_request = min(2 * self._next_request, _LARGEST_REQUEST)
        if self.file_size is not None:
            wanted = min(wanted, self.file_size - offset)
        if wanted <= 0:
            return b""
        piece = self._fetch(offset, wanted)
        self._pieces.insert(0, (offset, piece))
        return piece
