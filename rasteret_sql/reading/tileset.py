"""The tiles that a read fetches and decodes: blocks of files, and parts of large blocks.

A block of more than 32 MiB of pixels is delivered in *slabs* of rows, and, where its
compression allows that, fetched and decoded in *parts* of as many rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from rasteret_sql.reading.pipeline import Request, Tile, row_size
from rasteret_sql.reading.scenes import BandLevel
from rasteret_sql.reading.streams import BlockStream
from rasteret_sql.remote.ranges import merge_ranges
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.rows import RowAccess, row_access
from rasteret_sql.units import Window

_LARGE_BLOCK_BYTES = 32 * 1024 * 1024
_SLAB_BYTES = 4 * 1024 * 1024

Streams: TypeAlias = dict[tuple[str, int], BlockStream]
"""By file and first byte of the block."""


def slab_rows(block: BlockFormat) -> int:
    """Rows that are delivered at once: all of a block, fewer of a large one.

    Example:
        >>> slab_rows(BlockFormat(1, 1, 1, "uint8", "little", 8, 1, 512, 512))
        512
        >>> slab_rows(BlockFormat(1, 1, 1, "uint8", "little", 8, 1, 60_000, 40_000))
        104
    """
    if block.tile_height * row_size(block) <= _LARGE_BLOCK_BYTES:
        return block.tile_height
    return max(1, _SLAB_BYTES // row_size(block))


def part_rows(block: BlockFormat) -> int:
    """Rows that are decoded at once: those of a slab where the compression allows it."""
    return block.tile_height if row_access(block) is RowAccess.WHOLE else slab_rows(block)


def slabs(window: Window, block: BlockFormat) -> Iterator[Window]:
    """Cut a window that lies in one row of blocks where their slabs end.

    Example:
        >>> block = BlockFormat(1, 1, 1, "uint8", "little", 8, 1, 60_000, 40_000)
        >>> [(w.row_start, w.row_stop) for w in slabs(Window(100, 220, 7, 9), block)]
        [(100, 104), (104, 208), (208, 220)]
    """
    rows, block_top = slab_rows(block), window.row_start // block.tile_height * block.tile_height
    start = window.row_start
    while start < window.row_stop:
        stop = block_top + ((start - block_top) // rows + 1) * rows
        yield window._replace(row_start=start, row_stop=min(stop, window.row_stop))
        start = stop


class TileSet:
    """The tiles of one scene, each once, however many bands share it (chunky files).

    Args:
        streams: Where parts of large blocks are read from; shared by the sets of a scene that
            is planned piece by piece.
    """

    def __init__(self, streams: Streams | None = None) -> None:
        self._tiles: dict[tuple[str, int, int], Tile] = {}
        self._streams: Streams = {} if streams is None else streams

    def tile(self, href: str, level: BandLevel, row: int, col: int, part: int = 0) -> Tile:
        """The block at this row and column of blocks of a level, or a part of it."""
        index = row * level.tiles_across + col
        offset, count = int(level.tile_offsets[index]), int(level.tile_byte_counts[index])
        place = (href, offset) if count else (href, -1 - index)
        tile = self._tiles.get((*place, part))
        if tile is None:
            block = level.format
            remaining = level.height - row * block.tile_height
            is_strip = block.tile_width == level.width
            rows = min(block.tile_height, remaining) if is_strip else block.tile_height
            in_part = min(part_rows(block), rows)
            tile = Tile(href, offset, count, block, rows, in_part)
            if count and in_part < rows and row_access(block) is RowAccess.IN_ORDER:
                if place not in self._streams:
                    self._streams[place] = BlockStream(href, offset, offset + count, block)
                tile.stream = self._streams[place]
            self._tiles[*place, part] = tile
        return tile

    def request(self) -> list[Request]:
        """Join neighbours into requests; each tile then knows its own."""
        by_href: dict[str, list[Tile]] = {}
        for tile in self._tiles.values():
            if tile.byte_count and tile.request is None:
                by_href.setdefault(tile.href, []).append(tile)
        requests = []
        for href, tiles in by_href.items():
            streamed = [tile for tile in tiles if tile.stream is not None]
            requests += [Request(href, *tile.byte_range, [tile]) for tile in streamed]
            plain = [tile for tile in tiles if tile.stream is None]
            for merged in merge_ranges([tile.byte_range for tile in plain]):
                members = [plain[i] for i in merged.members]
                requests.append(Request(href, merged.start, merged.stop, members))
        for request in requests:
            for tile in request.tiles:
                tile.request = request
        return requests
