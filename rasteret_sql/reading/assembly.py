"""The needs and tiles of units: pieces of blocks found, tiles told apart, requests numbered.

Source: TIFF 6.0 section 15 (tiles are ordered left to right, top to bottom); COG
driver documentation (blocks may lie next to each other with 8 bytes between them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rasteret_sql.errors import CollectionError
from rasteret_sql.reading.bands import LevelTable
from rasteret_sql.reading.block_columns import Cells, KindColumns
from rasteret_sql.reading.blocks import prefix_bytes
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.plan import (
    DATA,
    MASK,
    Asked,
    Failure,
    Jobs,
    Needs,
    TilePlan,
    Tiles,
    Units,
    Usable,
    units_of,
)
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.reading.target_windows import sizes_of, touched
from rasteret_sql.units import Window

_GAP_BYTES = 16
_REQUEST_BYTES = 2 << 20
_REQUEST_PIXEL_BYTES = 32 << 20
"""Decoded bytes of a request: all its tiles are in memory at once, however well compressed."""


class Assembly:
    """Plans of some scenes of a table.

    Args:
        request: What to read.
        footprints: Of the targets.
        bands: Bands that are fetched.
        table: The scenes.
        usable: In which scenes each band can be read.
        whole_windows: Whether tiles of a window that its target does not touch are read too.
        at_once: Tiles, about, in a plan.
        whole_tiles: Whether all rows of a tile are needed, as other plans need the others.
    """

    def __init__(
        self,
        request: ReadRequest,
        footprints: Footprints,
        bands: tuple[str, ...],
        table: SceneTable,
        usable: dict[str, Usable],
        *,
        whole_windows: bool,
        at_once: int,
        whole_tiles: bool = False,
    ) -> None:
        self._whole_tiles = whole_tiles
        self._request = request
        self._footprints = footprints
        self._bands = bands
        self._table = table
        self._usable = usable
        self._whole_windows = whole_windows
        self._at_once = at_once
        self._kinds = KindColumns.of(table.kinds)

    def blocks(self, windows: Jobs, kind: Ints) -> Iterator[Jobs]:
        """Windows cut where blocks end, a bounded number of them at a time.

        Args:
            windows: Sorted by scene.
            kind: Of each window, whose blocks are meant.
        """
        n_blocks = self._kinds.count(kind, windows.window, is_delivery=True)
        runs = np.cumsum(n_blocks) // self._at_once
        scene_run = np.maximum.accumulate(_last_of(windows.scene, runs)) if len(runs) else runs
        edges = np.flatnonzero(np.diff(scene_run, prepend=-1, append=-1))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            some = windows.take(np.arange(start, stop))
            if n_blocks[start:stop].sum() <= 4 * self._at_once:
                yield self.cut(some, kind[start:stop])
                continue
            for one in range(start, stop):  # a file that declares many blocks
                for rows in self._kinds.row_bands(
                    int(kind[one]), Window(*windows.window[one].tolist()), self._at_once
                ):
                    part = windows.take(np.array([one]))._replace(window=np.array([rows]))
                    yield self.cut(part, kind[one : one + 1])

    def cut(self, windows: Jobs, kind: Ints) -> Jobs:
        """Windows cut where blocks end, all of them; in the order of tiles."""
        cells = self._cells(windows, kind, is_delivery=True)
        jobs = windows.take(cells.job)._replace(window=cells.windows)
        order = np.lexsort((jobs.target, cells.tile_col, cells.part, cells.tile_row, jobs.scene))
        return jobs.take(order)

    def of_blocks(self, blocks: Jobs, failures: list[Failure]) -> TilePlan:
        """A unit for each block of the first band."""
        return self.assembled(units_of(blocks), [Asked(n, blocks) for n in self._bands], failures)

    def of_windows(self, windows: Jobs, others: list[Jobs], failures: list[Failure]) -> TilePlan:
        """A unit for each scene and target, of all bands."""
        units = units_of(windows)
        if not others:
            return self.assembled(units, [Asked(n, windows) for n in self._bands], failures)
        order = {pair: n for n, pair in enumerate(_pairs_of(windows))}
        for jobs in others:
            for place, pair in enumerate(_pairs_of(jobs)):
                if pair not in order:  # a band whose grid the area meets alone
                    order[pair] = len(order)
                    units = _appended(units, units_of(jobs.take(np.array([place]))))
        asked = [
            Asked(name, jobs, np.array([order[pair] for pair in _pairs_of(jobs)], np.int64))
            for name, jobs in zip(self._bands, [windows, *others], strict=True)
        ]
        return self.assembled(units, asked, failures)

    def of_tiles(self, jobs: list[tuple[int, Jobs]], failures: list[Failure]) -> TilePlan:
        """A unit for each tile of each band."""
        parts: list[Jobs] = []
        numbers: list[Ints] = []
        for number, windows in jobs:
            level = self._usable[self._bands[number]].level
            if level is None:
                continue
            cells = self._cells(windows, level.kind[windows.scene], whole_tiles=True)
            parts.append(windows.take(cells.job)._replace(window=cells.windows))
            numbers.append(np.full(len(cells.job), number, np.int64))
        if not parts:
            parts, numbers = [Jobs.none()], [np.empty(0, np.int64)]
        tiles = Jobs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        band = np.concatenate(numbers)
        # Several targets may need the same tile, which is one unit.
        columns = (tiles.window[:, 2], tiles.window[:, 0], band, tiles.scene)
        order = np.lexsort(columns)
        keys = np.column_stack([column[order] for column in columns])
        new = np.append(True, (np.diff(keys, axis=0) != 0).any(axis=1))[: len(order)]
        tiles, band = tiles.take(order[new]), band[order[new]]
        tiles = tiles._replace(
            target=np.full(len(band), -1, np.int64), is_whole=np.ones(len(band), bool)
        )
        asked = []
        for number, name in enumerate(self._bands):
            own = np.flatnonzero(band == number)
            asked.append(Asked(name, tiles.take(own), own))
        return self.assembled(units_of(tiles)._replace(band=band), asked, failures)

    def assembled(
        self,
        units: Units,
        asked: Sequence[Asked],
        failures: list[Failure],
    ) -> TilePlan:
        """Needs and tiles of units."""
        found = []
        for name, jobs, unit, own_level in asked:
            number = self._bands.index(name)
            band = self._table.bands[name]
            usable = self._usable[name]
            n_level = self._request.level if own_level is None else own_level
            for role in (DATA, MASK) if self._request.masked else (DATA,):
                level = band.mask(n_level) if role == MASK else band.level(n_level)
                if level is None:
                    continue
                there = usable.is_usable[jobs.scene] & (level.grid[jobs.scene] >= 0)
                chosen = np.flatnonzero(there)
                own = jobs if len(chosen) == len(there) else jobs.take(chosen)
                of = chosen if unit is None else unit[chosen]
                found.append(self._needs(number, name, role, level, own, of))
        return _plan_of(
            self._table, self._bands, self._request.level, units, found, failures, self._kinds,
            whole_tiles=self._whole_tiles,
        )  # fmt: skip

    def _needs(
        self, number: int, name: str, role: int, level: LevelTable, jobs: Jobs, unit: Ints
    ) -> _Pieces:
        kind = level.kind[jobs.scene]
        cells = self._cells(jobs, kind)
        scene = jobs.scene[cells.job]
        kind = kind[cells.job]
        sizes = sizes_of(self._table)
        across = -(-sizes[level.grid[scene], 0] // self._kinds.tile_width[kind])
        index = cells.tile_row * across + cells.tile_col
        beyond = index >= level.n_tiles[scene]
        if beyond.any():
            self._short_table(name, scene, index, level, beyond)
            cells, scene, kind, index = (
                Cells(*(column[~beyond] for column in cells)),
                scene[~beyond],
                kind[~beyond],
                index[~beyond],
            )
        place = level.start[scene] + index
        height = sizes[level.grid[scene], 1]
        tile_height = self._kinds.tile_height[kind]
        is_strip = self._kinds.tile_width[kind] == sizes[level.grid[scene], 0]
        rows = np.where(
            is_strip, np.minimum(tile_height, height - cells.tile_row * tile_height), tile_height
        )
        return _Pieces(
            unit=unit[cells.job],
            band=np.full(len(scene), number, np.int64),
            role=np.full(len(scene), role, np.int64),
            kind=kind,
            scene=scene,
            file=self._table.bands[name].file[scene],
            offset=level.offsets[place],
            byte_count=level.counts[place],
            part=cells.part,
            rows=rows,
            tile_row=cells.tile_row,
            tile_col=cells.tile_col,
            window=cells.windows,
        )

    def _short_table(
        self, name: str, scene: Ints, index: Ints, level: LevelTable, beyond: Mask
    ) -> None:
        for one in np.unique(scene[beyond]).tolist():
            error = CollectionError.expected(
                f"record {self._table.id_of(one)}, band {name}",
                f"a tile table of {int(index[scene == one].max()) + 1} or more",
                int(level.n_tiles[one]),
                "build the collection again",
            )
            if self._request.on_error == "error":
                raise error
            self._table.faults[one, name] = error

    def _cells(
        self, jobs: Jobs, kind: Ints, *, is_delivery: bool = False, whole_tiles: bool = False
    ) -> Cells:
        """Blocks under windows, but for those that no target touches."""
        cells = self._kinds.cells(kind, jobs.window, is_delivery=is_delivery, whole=whole_tiles)
        if whole_tiles:
            sizes = sizes_of(self._table)
            grid = jobs.grid[cells.job]
            cells = cells._replace(
                bottom=np.minimum(cells.bottom, sizes[grid, 1]),
                right=np.minimum(cells.right, sizes[grid, 0]),
            )
        if jobs.is_whole.all() or self._whole_windows:
            return cells
        several = np.bincount(cells.job, minlength=len(jobs.scene)) > 1
        check = (several & ~jobs.is_whole & (jobs.target >= 0))[cells.job]
        if not check.any():
            return cells
        keep = np.ones(len(cells.job), bool)
        at = np.flatnonzero(check)
        boxes = [cells.left[at], cells.top[at], cells.right[at], cells.bottom[at]]
        keep[at] = touched(
            self._footprints,
            self._table,
            jobs.grid[cells.job[at]],
            jobs.target[cells.job[at]],
            np.column_stack(boxes).astype(np.float64),
        )
        return Cells(*(column[keep] for column in cells))


class _Pieces(NamedTuple):
    """Needs, and the tiles that they are of, not yet told apart."""

    unit: Ints
    band: Ints
    role: Ints
    kind: Ints
    scene: Ints
    file: Ints
    offset: Ints
    byte_count: Ints
    part: Ints
    rows: Ints
    tile_row: Ints
    tile_col: Ints
    window: Ints


def _plan_of(
    table: SceneTable,
    bands: tuple[str, ...],
    level: int,
    units: Units,
    found: list[_Pieces],
    failures: list[Failure],
    kinds: KindColumns,
    *,
    whole_tiles: bool,
) -> TilePlan:
    """Sort the needs by unit, tell tiles apart, number requests."""
    if not found:
        nothing = np.empty(0, np.int64)
        found = [_Pieces._make([*[nothing] * 12, np.empty((0, 4), np.int64)])]
    joined = found[0]
    if len(found) > 1:
        joined = _Pieces(*(np.concatenate(column) for column in zip(*found, strict=True)))
        order = np.argsort(joined.unit, kind="stable")
        joined = _Pieces(*(column[order] for column in joined))
    elif len(joined.unit) and (np.diff(joined.unit) < 0).any():
        order = np.argsort(joined.unit, kind="stable")
        joined = _Pieces(*(column[order] for column in joined))
    tile, tiles = _tiles_of(joined, kinds, whole_tiles=whole_tiles)
    needs = Needs(
        joined.unit,
        joined.band,
        joined.role,
        joined.kind,
        tile,
        joined.tile_row,
        joined.tile_col,
        joined.window,
    )
    return TilePlan(table, bands, level, units, needs, tiles, tuple(failures))


def _tiles_of(pieces: _Pieces, kinds: KindColumns, *, whole_tiles: bool) -> tuple[Ints, Tiles]:
    """Number of the tile of each piece, -1 of a sparse one; and the tiles."""
    tile = np.full(len(pieces.unit), -1, np.int64)
    stored = np.flatnonzero(pieces.byte_count > 0)
    keys = (pieces.part[stored], pieces.offset[stored], pieces.file[stored])
    order = np.lexsort(keys)
    sorted_keys = [key[order] for key in keys]
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = np.any([np.diff(key) != 0 for key in sorted_keys], axis=0)
    first = np.flatnonzero(new)
    tile[stored[order]] = np.cumsum(new) - 1
    at = stored[order]
    top = pieces.tile_row[at] * kinds.tile_height[pieces.kind[at]]
    start, stop = pieces.window[at, 0] - top, pieces.window[at, 1] - top
    if len(first):
        start = np.minimum.reduceat(start, first)
        stop = np.maximum.reduceat(stop, first)
    at = at[first]
    kind, offset, count = pieces.kind[at], pieces.offset[at], pieces.byte_count[at]
    is_random, is_streamed_ = kinds.is_random[kind], kinds.is_streamed[kind]
    if whole_tiles:
        is_one = kinds.part[kind] >= kinds.tile_height[kind]
        start, stop = np.where(is_one, 0, start), np.where(is_one, pieces.rows[at], stop)
    fetch_start, fetch_stop = offset.copy(), offset + count
    size = kinds.row_bytes[kind]
    fetch_start = np.where(
        is_random, np.minimum(offset + start * size, offset + count - 1), fetch_start
    )
    fetch_stop = np.where(is_random, np.minimum(offset + count, offset + stop * size), fetch_stop)
    rows = pieces.rows[at]
    guess = prefix_bytes(count, rows, stop)
    is_short = kinds.is_deflate[kind] & ~is_streamed_ & (stop < rows) & (guess < count)
    fetch_stop = np.where(is_short, offset + guess, fetch_stop)
    return tile, Tiles(
        pieces.file[at],
        pieces.band[at],
        pieces.scene[at],
        kind,
        offset,
        count,
        rows,
        pieces.part[at],
        start,
        stop,
        fetch_start,
        fetch_stop,
        _request_numbers(
            pieces.file[at],
            fetch_start,
            fetch_stop,
            np.where(is_random, stop - start, stop) * kinds.row_size[kind],
            is_streamed_,
        ),
    )


def _request_numbers(
    file: Ints, start: Ints, stop: Ints, pixel_bytes: Ints, is_alone: Mask
) -> Ints:
    """Neighbours in a file share a request, as far as it does not grow too long."""
    if not len(file):
        return file
    is_near = (np.diff(file) == 0) & (start[1:] <= stop[:-1] + _GAP_BYTES)
    is_near &= ~is_alone[1:] & ~is_alone[:-1]
    run = np.cumsum(np.append(True, ~is_near))
    first = np.searchsorted(run, run)
    piece = (stop - start[first] - 1) // _REQUEST_BYTES
    decoded = np.cumsum(pixel_bytes)
    share = (decoded - (decoded - pixel_bytes)[first] - 1) // _REQUEST_PIXEL_BYTES
    new = np.append(True, (np.diff(run) != 0) | (np.diff(piece) != 0) | (np.diff(share) != 0))
    numbers: Ints = np.cumsum(new) - 1
    return numbers


def _last_of(group: Ints, values: Ints) -> Ints:
    """The value of the last of each run of equal groups, for all of the run."""
    ends = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    of_group: Ints = values[ends][np.searchsorted(ends, np.arange(len(group)))]
    return of_group


def _appended(units: Units, more: Units) -> Units:
    return Units(*(np.concatenate(columns) for columns in zip(units, more, strict=True)))


def _pairs_of(jobs: Jobs) -> list[tuple[int, int]]:
    return list(zip(jobs.scene.tolist(), jobs.target.tolist(), strict=True))
