"""Units of a plan that are delivered together, and the tiles that they wait for, as objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from rasteret_sql.reading.blocks import is_streamed, row_size
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.patches import Patch, Piece
from rasteret_sql.reading.plan import MASK, TilePlan
from rasteret_sql.reading.streams import FETCH_BYTES, BlockStream
from rasteret_sql.reading.tile_store import Tile, TileKey
from rasteret_sql.remote.stores import access_to
from rasteret_sql.units import Window

_GROUP_TILE_BYTES = 32 * 1024 * 1024


@dataclass(eq=False, slots=True)
class Group:
    """Units of one plan that are delivered in one batch.

    Attributes:
        start: The first unit.
        stop: Behind the last one.
        weight: Bytes of its output, about.
        number: Which of the groups of a read it is, in the order in which they begin.
    """

    chunk: Chunk
    start: int
    stop: int
    weight: int
    number: int = 0
    tiles: list[Tile] = field(default_factory=list)
    n_waiting: int = 0
    batch: Any = None
    error: BaseException | None = None
    is_done: bool = False

    @property
    def plan(self) -> TilePlan:
        """The plan that the units are of."""
        return self.chunk.plan

    def patches(self, unit: int) -> list[Patch]:
        """The bands of a unit, in the order of the plan's bands."""
        return self.chunk.patches(unit)


class _NeedLists(NamedTuple):
    """The needs of a plan as Python lists, which are faster to walk through one by one.

    Attributes:
        first: Where the needs of each unit begin, and the end of the last one's.
        needs: Band, role, kind, tile, row and column of the tile.
        window: Rows and columns.
    """

    first: list[int]
    needs: list[tuple[int, int, int, int, int, int]]
    window: list[list[int]]


class Chunk:
    """A plan on its way: its tiles as objects, made when they are needed."""

    def __init__(
        self, plan: TilePlan, edges: list[int], streams: dict[tuple[str, int], BlockStream]
    ) -> None:
        self.plan = plan
        self._streams = streams
        self._users = _groups_of_tiles(plan, edges)
        tiles = plan.tiles
        self._first_need = plan.first_need
        self._tiles: list[Tile | None] = [None] * len(tiles.file)
        self._columns = [column.tolist() for column in tiles]
        order = np.argsort(tiles.request, kind="stable")
        request_edges = np.searchsorted(tiles.request[order], np.arange(_n_of(tiles.request) + 1))
        self._by_request = order.tolist()
        self._request_edges = request_edges.tolist()
        self._versions: dict[tuple[int, int], tuple[str | None, object]] = {}

    def needed(self, start: int, stop: int) -> list[int]:
        """Numbers of the tiles that some units need, each once; -1 for sparse ones."""
        first, last = self._first_need[[start, stop]].tolist()
        return list(dict.fromkeys(self.plan.needs.tile[first:last].tolist()))

    @cached_property
    def _needs(self) -> _NeedLists:
        """Made where patches are asked for: lists take ten times the memory of arrays."""
        needs = self.plan.needs
        return _NeedLists(
            self._first_need.tolist(),
            list(
                zip(
                    needs.band.tolist(),
                    needs.role.tolist(),
                    needs.kind.tolist(),
                    needs.tile.tolist(),
                    needs.tile_row.tolist(),
                    needs.tile_col.tolist(),
                    strict=True,
                )
            ),
            needs.window.tolist(),
        )

    def tile(self, number: int) -> Tile:
        """A tile by its number."""
        tile = self._tiles[number]
        if tile is None:
            tile = self._tiles[number] = self._made(number)
        return tile

    def tiles_of_request(self, number: int) -> list[Tile]:
        """The tiles that are fetched together."""
        start, stop = self._request_edges[number : number + 2]
        return [self.tile(n) for n in self._by_request[start:stop]]

    def _made(self, number: int) -> Tile:
        (file, band, scene, kind, offset, count, rows, part, first, stop, begin, end, request) = (
            column[number] for column in self._columns
        )
        table = self.plan.table
        href, block = table.hrefs[file], table.kinds[kind].format
        place = file, scene
        if place not in self._versions:
            name = self.plan.bands[band]
            self._versions[place] = table.bands[name].version(scene), access_to(href)
        version, access = self._versions[place]
        streamed = is_streamed(block)
        tile = Tile(
            href=href,
            key=None
            if version is None or streamed
            else TileKey(href, version, offset, count, part, block, access),
            format=block,
            rows=rows,
            first_row=first,
            stop_row=stop,
            fetch_start=begin,
            fetch_stop=end,
            block=(offset, offset + count),
            cost=(stop - first) * row_size(block)
            + (min(end - begin, FETCH_BYTES) if streamed else end - begin),
            request=request,
            users=self._users[number],
        )
        if streamed:
            at = href, offset
            if at not in self._streams:
                self._streams[at] = BlockStream(href, offset, offset + count, block)
            tile.stream = self._streams[at]
        return tile

    def patches(self, unit: int) -> list[Patch]:
        """The bands of a unit, in the order of the plan's bands."""
        plan = self.plan
        window = Window(*plan.units.window[unit].tolist())
        kinds, table = plan.table.kinds, plan.table
        scene = int(plan.units.scene[unit])
        pieces: list[tuple[list[Piece], list[Piece]]] = [([], []) for _ in plan.bands]
        found = [-1] * len(plan.bands)
        first, needs, windows = self._needs
        for n in range(first[unit], first[unit + 1]):
            band, role, number_of_kind, number, row, col = needs[n]
            kind = kinds[number_of_kind]
            block = kind.format
            origin = row * block.tile_height, col * block.tile_width
            tile = None if number < 0 else self._tiles[number]
            pieces[band][role].append(Piece(tile, Window(*windows[n]), origin, kind.sample))
            if role != MASK:
                found[band] = number_of_kind
        return [
            Patch(
                window,
                None if found[band] < 0 else kinds[found[band]],
                tuple(data),
                tuple(mask),
                table.faults.get((scene, plan.bands[band])),
            )
            for band, (data, mask) in enumerate(pieces)
        ]


def batch_edges(weights: Ints, enough: int, decoded: Ints) -> list[int]:
    """Where groups of units begin that make a batch each, and the end of the last one.

    Args:
        weights: Bytes of the output of each unit.
        enough: Bytes of output that make a batch.
        decoded: Bytes of the tiles that each unit is the first to need: those of a group are
            all in memory at once.
    """
    total, of_tiles = np.cumsum(weights), np.cumsum(decoded)
    edges = [0]
    while (start := edges[-1]) < len(weights):
        before, before_tiles = (int(one[start - 1]) if start else 0 for one in (total, of_tiles))
        stop = int(np.searchsorted(total, before + enough)) + 1
        # before the unit that needs one tile more, so that those of a tile stay together
        fitting = int(np.searchsorted(of_tiles, before_tiles + _GROUP_TILE_BYTES, "right"))
        edges.append(min(stop, max(fitting, start + 1), len(weights)))
    return edges


def tile_bytes(plan: TilePlan) -> Ints:
    """Decoded bytes of the tiles of each unit, of a shared one at the first unit."""
    needs, tiles, kinds = plan.needs, plan.tiles, plan.table.kinds
    row = np.array([row_size(kind.format) for kind in kinds] or [0], np.int64)
    size = (tiles.stop_row - tiles.first_row) * row[tiles.kind]
    stored = np.flatnonzero(needs.tile >= 0)
    tile, first = np.unique(needs.tile[stored], return_index=True)
    unit = needs.unit[stored[first]]
    return np.bincount(unit, size[tile], minlength=len(plan.units.scene)).astype(np.int64)


def _groups_of_tiles(plan: TilePlan, edges: list[int]) -> list[int]:
    """How many groups need each tile."""
    stored = plan.needs.tile >= 0
    group = np.searchsorted(edges, plan.needs.unit[stored], side="right") - 1
    pairs = np.unique(plan.needs.tile[stored] * len(edges) + group)
    n_groups: list[int] = np.bincount(pairs // len(edges), minlength=len(plan.tiles.file)).tolist()
    return n_groups


def _n_of(numbers: Ints) -> int:
    return int(numbers.max()) + 1 if len(numbers) else 0
