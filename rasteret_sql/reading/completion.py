"""Headers of files whose cached metadata lack what a read needs, read when they are needed.

Collections that rasteret made cache seventeen fields of a header. Byte order, overviews,
masks, JPEG tables and other things are not among them; each file is asked once for them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

from rasteret_sql.remote.headers import read_asset
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.tiff.layout import Header

_N_LANES = 64
_N_AHEAD = 16
_KEPT_TILES = 4_000_000
"""Tiles in all tables of the headers that are kept; 64 MB."""

_kept: OrderedDict[str, Header] = OrderedDict()
_n_tiles = 0
_lock = threading.Lock()


class Completion:
    """Headers for the rows of a batch, a few rows ahead of the one that is asked for.

    Args:
        hrefs: files to ask, for each row.
    """

    def __init__(self, hrefs: Sequence[Sequence[str]]) -> None:
        self._hrefs = hrefs
        self._next = 0
        self._asked: dict[str, Future[Header]] = {}

    def header(self, row: int, href: str) -> Header:
        """The header of a file of a row.

        Raises:
            ReadError: the bytes did not come.
            HeaderError: they are no TIFF that we read.
        """
        while self._next < min(row + _N_AHEAD, len(self._hrefs)):
            for ahead in self._hrefs[self._next]:
                if ahead not in self._asked:
                    self._asked[ahead] = lanes(_N_LANES).submit(header_of, ahead)
            self._next += 1
        return self._asked[href].result()


def header_of(href: str) -> Header:
    """A file's header; kept for the process, as far as there is room."""
    with _lock:
        known = _kept.get(href)
        if known is not None:
            _kept.move_to_end(href)
            return known
    header = read_asset(href).header
    _keep(href, header)
    return header


def _keep(href: str, header: Header) -> None:
    global _n_tiles
    with _lock:
        if href not in _kept:
            _kept[href] = header
            _n_tiles += _size(header)
        while _n_tiles > _KEPT_TILES and len(_kept) > 1:
            _n_tiles -= _size(_kept.popitem(last=False)[1])


def _size(header: Header) -> int:
    levels = (header.image, *header.overviews, *header.mask_overviews)
    return sum(level.tile_offsets.size for level in levels)
