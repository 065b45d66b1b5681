"""Headers of files: what a store's first bytes say of a raster."""

from __future__ import annotations

from dataclasses import dataclass

from rasteret_sql.errors import HeaderError, RasteretError
from rasteret_sql.remote.ranges import Start, get_range, get_start
from rasteret_sql.tiff.codecs import check_supported
from rasteret_sql.tiff.header import read_header
from rasteret_sql.tiff.layout import Header
from rasteret_sql.tiff.source import Fetch


@dataclass(frozen=True, slots=True)
class AssetHeader:
    """A parsed header and what the store said of the file.

    Attributes:
        file_size: Bytes, None where the store does not say.
        etag: What the store calls this version, None where it does not say.
        requests: How many the header took.
    """

    header: Header
    file_size: int | None
    etag: str | None
    requests: int


class MoreBytesNeeded(Exception):  # noqa: N818 - no fault: the header does not end in the start
    """A header goes on beyond the bytes at hand."""


def read_asset(href: str) -> AssetHeader:
    """Read one header: one request for a well-made COG.

    Raises:
        ReadError: the bytes did not come.
        HeaderError: they are no TIFF that we read.
    """
    return continue_header(href, get_start(href))[0]


def continue_header(href: str, start: Start) -> tuple[AssetHeader, Start, list[tuple[int, bytes]]]:
    """Read a header of which the start has come.

    Returns:
        The header, its start, and what was fetched beyond that, as ``(offset, bytes)``.
    """
    pieces: list[tuple[int, bytes]] = []

    def fetch(offset: int, length: int) -> bytes:
        if start.size is not None:
            length = min(length, start.size - offset)
        piece = bytes(get_range(href, offset, length)) if length > 0 else b""
        pieces.append((offset, piece))
        return piece

    header = _parsed(start, fetch)
    return AssetHeader(header, start.size, start.etag, 1 + len(pieces)), start, pieces


def parse_asset(start: Start, pieces: list[tuple[int, bytes]] | None = None) -> AssetHeader:
    """Parse a header from bytes at hand, without I/O.

    Args:
        start: The first bytes, as `get_start` returned them.
        pieces: What `continue_header` had fetched beyond them.

    Raises:
        MoreBytesNeeded: it goes on beyond them.
        HeaderError: they are no TIFF that we read.
    """

    def fetch(offset: int, length: int) -> bytes:
        for at, piece in pieces or ():
            if at <= offset and offset + length <= at + len(piece):
                return piece[offset - at : offset - at + length]
            if at == offset:  # the file ends there
                return piece
        raise MoreBytesNeeded

    return AssetHeader(_parsed(start, fetch), start.size, start.etag, 1)


def _parsed(start: Start, fetch: Fetch) -> Header:
    """Parse; whatever a hostile header leads to, it is the fault of this file alone."""
    try:
        header = read_header(fetch, start=start.data, file_size=start.size)
        check_supported(header.block_format(header.image))
    except (RasteretError, MoreBytesNeeded):
        raise
    except Exception as error:
        raise HeaderError.expected(
            "TIFF header",
            "values that can be",
            f"{type(error).__name__}: {error}",
            "the file is corrupt",
        ) from error
    return header
