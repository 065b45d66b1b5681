"""Blocks of files under windows, many windows at once, as columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rasteret_sql.reading.band_kinds import BandKind
from rasteret_sql.reading.blocks import DEFLATE, is_streamed, part_rows, row_size, slab_rows
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.tiff.rows import RowAccess, row_access, row_bytes
from rasteret_sql.units import Window


class Cells(NamedTuple):
    """Blocks, or slabs of them, under windows; arrays of one length, by job, row by row."""

    job: Ints
    tile_row: Ints
    part: Ints
    tile_col: Ints
    top: Ints
    bottom: Ints
    left: Ints
    right: Ints

    @property
    def windows(self) -> Ints:
        """Rows and columns of each, (n, 4)."""
        return np.column_stack([self.top, self.bottom, self.left, self.right])


@dataclass(frozen=True, eq=False)
class KindColumns:
    """What of kinds the planner needs, as columns."""

    kinds: list[BandKind]
    tile_height: Ints
    tile_width: Ints
    slab: Ints
    part: Ints
    is_streamed: Mask
    is_random: Mask
    is_deflate: Mask
    row_bytes: Ints
    row_size: Ints

    @classmethod
    def of(cls, kinds: list[BandKind]) -> KindColumns:
        """The columns of some kinds, by number."""
        formats = [kind.format for kind in kinds]
        return cls(
            kinds,
            np.array([f.tile_height for f in formats], np.int64),
            np.array([f.tile_width for f in formats], np.int64),
            np.array([slab_rows(f) for f in formats], np.int64),
            np.array([part_rows(f) for f in formats], np.int64),
            np.array([is_streamed(f) for f in formats], bool),
            np.array([row_access(f) is RowAccess.ANY for f in formats], bool),
            np.array([f.compression in DEFLATE for f in formats], bool),
            np.array([row_bytes(f) for f in formats], np.int64),
            np.array([row_size(f) for f in formats], np.int64),
        )

    def _spans(
        self, kind: Ints, window: Ints, *, is_delivery: bool, whole: bool
    ) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
        height, width = self.tile_height[kind], self.tile_width[kind]
        rows = height if whole else (self.slab if is_delivery else self.part)[kind]
        per_tile = -(-height // rows)
        first = window[:, 0] // height * per_tile + window[:, 0] % height // rows
        last = (window[:, 1] - 1) // height * per_tile + (window[:, 1] - 1) % height // rows
        left, right = window[:, 2] // width, (window[:, 3] - 1) // width
        return rows, per_tile, first, last - first + 1, left, right - left + 1

    def count(self, kind: Ints, window: Ints, *, is_delivery: bool) -> Ints:
        """Blocks or slabs under each window."""
        _, _, _, down, _, across = self._spans(kind, window, is_delivery=is_delivery, whole=False)
        return down * across

    def row_bands(self, kind: int, window: Window, at_once: int) -> Iterator[Window]:
        """A window cut into runs of rows of blocks."""
        one = np.array([kind])
        rows, per_tile, first, down, _, across = (
            int(column[0])
            for column in self._spans(one, np.array([window]), is_delivery=True, whole=False)
        )
        height, step = int(self.tile_height[kind]), max(1, at_once // across)
        start = window.row_start
        for slab in range(first + step, first + down + step, step):
            stop = min(slab // per_tile * height + slab % per_tile * rows, window.row_stop)
            stop = stop if slab < first + down else window.row_stop
            yield window._replace(row_start=start, row_stop=stop)
            start = stop

    def cells(self, kind: Ints, window: Ints, *, is_delivery: bool, whole: bool) -> Cells:
        """Blocks or slabs under windows, and the part of the window in each."""
        rows, per_tile, first, down, left, across = self._spans(
            kind, window, is_delivery=is_delivery, whole=whole
        )
        job, place = spread(np.zeros(len(kind), np.int64), down * across)
        slab = first[job] + place // across[job]
        tile_col = left[job] + place % across[job]
        tile_row, part = slab // per_tile[job], slab % per_tile[job]
        height, width = self.tile_height[kind][job], self.tile_width[kind][job]
        top = tile_row * height + part * rows[job]
        bottom = np.minimum(top + rows[job], (tile_row + 1) * height)
        start, stop = tile_col * width, (tile_col + 1) * width
        if not whole:
            top, bottom = np.maximum(top, window[job, 0]), np.minimum(bottom, window[job, 1])
            start, stop = np.maximum(start, window[job, 2]), np.minimum(stop, window[job, 3])
        return Cells(job, tile_row, part, tile_col, top, bottom, start, stop)


def spread(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Number of the range, and each integer in it, for ranges of these lengths."""
    of = np.repeat(np.arange(len(count)), count)
    begin = np.cumsum(count) - count
    return of, np.arange(len(of)) - begin[of] + first[of]
