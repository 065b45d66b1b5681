"""How blocks of a format are cut: rows that are delivered at once, and decoded at once.

A block of more than 32 MiB of pixels is delivered in *slabs* of rows, and, where its
compression allows that, fetched and decoded in *parts* of as many rows.
"""

from __future__ import annotations

import numpy as np

from rasteret_sql.reading.columns import Ints
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.rows import RowAccess, row_access

_LARGE_BLOCK_BYTES = 32 * 1024 * 1024
_SLAB_BYTES = 4 * 1024 * 1024
DEFLATE = frozenset({8, 32946})
"""Compressions whose first rows can be had from the first bytes."""

_PREFIX_MARGIN = 1.06
_PREFIX_BYTES = 2048
_LEAST_SAVING = 64 * 1024


def item_bytes(block: BlockFormat) -> int:
    """Bytes of one decoded sample."""
    complex_int = {"complex_int16": 8, "complex_int32": 16}
    return complex_int.get(block.dtype) or np.dtype(block.dtype).itemsize


def row_size(block: BlockFormat) -> int:
    """Bytes of one decoded row."""
    return block.tile_width * block.samples * item_bytes(block)


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


def is_streamed(block: BlockFormat) -> bool:
    """Whether a block is fetched part by part, as its rows come in order."""
    return row_access(block) is RowAccess.IN_ORDER and part_rows(block) < block.tile_height


def prefix_bytes(byte_count: Ints, rows: Ints, wanted: Ints) -> Ints:
    """Bytes to fetch of deflated blocks of which the first rows are wanted.

    Rows take about equal shares of a block; where a guess falls short, the rest is fetched
    too. A small saving is not worth that.

    Args:
        byte_count: Bytes of each block.
        rows: Rows that it has.
        wanted: Rows that are wanted.

    Example:
        >>> count, rows = np.array([1_000_000, 1_000_000]), np.array([1024, 1024])
        >>> prefix_bytes(count, rows, np.array([512, 1000])).tolist()
        [532048, 1000000]
    """
    guess = (byte_count * (wanted / rows) * _PREFIX_MARGIN).astype(np.int64) + _PREFIX_BYTES
    return np.where(byte_count - guess >= _LEAST_SAVING, guess, byte_count)
