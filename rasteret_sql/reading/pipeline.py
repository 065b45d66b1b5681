"""Fetch, decode, work, deliver: one queue for a whole call.

Units of a plan are put into *groups*, in delivery order; a group needs some tiles. Tiles that
lie next to each other in a file share one request. Requests run ahead of the consumer on
the fetch lanes; a thread per core decodes; the worker that decodes the last tile of a
group also makes its Arrow batch, so that the consumer only hands batches over. Two limits
hold the read-ahead: bytes in flight (fetched, decoded or made, not yet delivered), and
requests, which start few and double with each delivery so that a LIMIT costs little.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Generic, Protocol, TypeVar

from rasteret_sql.errors import DecodeError, InterruptedReadError, RasteretError, TruncatedError
from rasteret_sql.reading.blocks import row_size
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.counters import Counters
from rasteret_sql.reading.gates import RUNS, Gate
from rasteret_sql.reading.groups import Chunk, Group, batch_edges, tile_bytes
from rasteret_sql.reading.plan import Failure, TilePlan
from rasteret_sql.reading.streams import BlockStream
from rasteret_sql.reading.tile_store import BUDGET_BYTES, STORE, Pixels, Tile, TileKey, TileStore
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range
from rasteret_sql.tiff.codecs import decode_block
from rasteret_sql.tiff.rows import RowAccess, row_access

_FIRST_REQUESTS = 32
_FETCH_LANES = 512
_LANES = 64
_LANES_FAR = 256
_FAR_SECONDS = 0.05
_POLL_SECONDS = 0.1
_READY_PART = 4
"""Where a quarter of the memory of a run holds batches that are ready, the consumer is slow."""
_UNUSED_PART = 4
"""A quarter of the memory is left free while a read runs that decodes more than all of it."""
_N_DECODERS = os.cpu_count() or 1


class Delivered(Protocol):
    """What a group becomes, as a record batch; without rows it is not delivered."""

    @property
    def num_rows(self) -> int:
        """How many rows it has."""
        ...


D = TypeVar("D", bound=Delivered)
D_co = TypeVar("D_co", bound=Delivered, covariant=True)


class Output(Protocol[D_co]):
    """What a read makes of its units."""

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes that the output of each unit takes."""
        ...

    def group_bytes(self) -> int:
        """Bytes of output that make a batch."""
        ...

    def work(self, group: Group) -> D_co | None:
        """The rows of a group of units whose tiles are all there; runs on a decode worker.

        Raises:
            RasteretError: a tile that can't be read, where that is an error.
        """
        ...

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> D_co | None:
        """The rows of what can't be planned."""
        ...


class Pipeline(Generic[D]):
    """Runs plans through fetch, decode and an output.

    Args:
        output: Makes batches of units.
        stop: Ends the run; checked at least every 0.1 s.
        max_concurrent: Requests under way at once; None adapts to the latency.
        budget_bytes: Bytes in flight, shared with other runs of the process.
        held_bytes: How much of that the consumer itself keeps meanwhile.
        store: Tiles of the process.
        counters: Filled while it runs.
    """

    def __init__(
        self,
        output: Output[D],
        stop: threading.Event,
        *,
        max_concurrent: int | None = None,
        budget_bytes: int = BUDGET_BYTES,
        held_bytes: int = 0,
        store: TileStore = STORE,
        counters: Counters | None = None,
    ) -> None:
        self._output = output
        self._stop = stop
        self._store = store
        self._held = held_bytes
        self._budget = budget_bytes - held_bytes
        self.counters = counters or Counters()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._room = self._budget
        self._ready = self._unused = 0
        self._fetching = Gate(lanes(_FETCH_LANES, "fetch"), max_concurrent or _LANES)
        self._decoding = Gate(lanes(_N_DECODERS, "decode"), _N_DECODERS)
        self._is_adaptive = max_concurrent is None
        self._n_started = 0
        self._ended = False
        self._begun: set[TileKey] = set()
        self._streams: dict[tuple[str, int], BlockStream] = {}

    def run(self, plans: Iterator[TilePlan]) -> Iterator[D]:
        """Yield the batches in the order of the plans' units.

        Raises:
            InterruptedReadError: `stop` was set.
            RasteretError: what the output raised.
        """
        groups = self._groups(plans)
        pending: deque[Group] = deque()
        unready: deque[Group] = deque()
        undelivered: deque[int] = deque()
        ahead, n_ahead, exhausted = _FIRST_REQUESTS, 0, False
        with RUNS:
            self._store.reserve(self._held)
            try:
                while True:
                    while not exhausted and n_ahead < ahead and self._has_room(pending):
                        group = next(groups, None)
                        if group is None:
                            exhausted = True
                            break
                        started = self._start(group)
                        n_ahead += started
                        undelivered.append(started)
                        pending.append(group)
                        unready.append(group)
                    if not pending:
                        return
                    head = pending.popleft()
                    self._adapt_room(head, unready)
                    self._adapt_cache()
                    self._wait(head)
                    if head.error is not None:
                        raise head.error
                    batch, head.batch = head.batch, None
                    if batch is not None and batch.num_rows:
                        yield batch
                    del batch
                    self._take(-head.weight)
                    n_ahead -= undelivered.popleft()
                    ahead = min(2 * ahead, 2 * self._fetching.limit)
            finally:
                self._end()

    def _groups(self, plans: Iterator[TilePlan]) -> Iterator[Group]:
        for plan in plans:
            self._check()
            weights = self._output.weights(plan)
            edges = batch_edges(weights, self._output.group_bytes(), tile_bytes(plan))
            chunk = Chunk(plan, edges, self._streams)
            self._count(tiles_planned=len(plan.tiles.file), unplanned=len(plan.failures))
            if plan.failures:
                group = Group(chunk, 0, 0, 0)
                group.batch, group.is_done = self._output.failed(plan, plan.failures), True
                yield group
            for start, stop in itertools.pairwise(edges):
                yield Group(chunk, start, stop, int(weights[start:stop].sum()))
            del chunk, plan

    def _has_room(self, pending: deque[Group]) -> bool:
        share = self._budget // max(1, RUNS.n_active)
        return not pending or self._in_flight < min(share, self._room)

    def _adapt_room(self, head: Group, unready: deque[Group]) -> None:
        """Take less memory for a consumer that is slower than the reads: more is no faster.

        Args:
            head: What is delivered next.
            unready: It and the groups behind it, without those at the front that were ready.
        """
        while unready and unready[0].is_done:
            self._ready += unready.popleft().weight
        if unready and unready[0] is head:
            unready.popleft()
            self._room = min(self._room + 2 * head.weight, self._budget)
            return
        self._ready -= head.weight
        enough = self._budget // _READY_PART
        if self._ready > enough:
            self._room = max(self._room - head.weight, enough)

    def _adapt_cache(self) -> None:
        """Use less of the cache for a read that is larger than it: little is found there again."""
        if not self._unused and self.counters.decoded_bytes > self._budget:
            self._unused = self._budget // _UNUSED_PART
            self._store.reserve(self._unused)

    def _start(self, group: Group) -> int:
        """Start the requests of a group; how many they are."""
        if group.is_done:
            return 0
        chunk = group.chunk
        self._n_started += 1
        group.number = self._n_started
        numbers = chunk.needed(group.start, group.stop)
        group.tiles = [chunk.tile(number) for number in numbers if number >= 0]
        self._take(group.weight)
        requests: dict[int, None] = {}
        with self._changed:
            group.n_waiting = 1  # until all are counted
            for tile in group.tiles:
                if not tile.is_done:
                    tile.waiting.append(group)
                    group.n_waiting += 1
                if not tile.is_started:
                    requests[tile.request] = None
        n_started = sum(self._request(chunk, number) for number in requests)
        self._one_less(group)
        return n_started

    def _request(self, chunk: Chunk, number: int) -> int:
        """Have the tiles of a request: from memory, from another read, or fetched."""
        wanted: list[Tile] = []
        for tile in chunk.tiles_of_request(number):
            tile.is_started, tile.number = True, self._n_started
            self._take(tile.cost)
            if not self._is_known(tile):
                self._keep_more(tile)
                wanted.append(tile)
        if not wanted:
            return 0
        if wanted[0].stream is not None:
            for tile in wanted:
                self._submit_part(tile)
        else:
            self._fetching.post(lambda: self._fetch(wanted), wanted[0].number)
        return 1

    def _is_known(self, tile: Tile) -> bool:
        """Take a tile that is in memory, or wait for the read that is decoding it."""
        if tile.key is None:
            return False
        kept = self._store.find(tile.key, tile.first_row, tile.stop_row)
        if kept is not None:
            self._count(cache_hits=1)
            self._done(tile, kept[1], kept[0])
            return True

        def when_done(pixels: Pixels | None, first_row: int) -> None:
            enough = pixels is not None and (
                first_row <= tile.first_row and tile.stop_row <= first_row + len(pixels)
            )
            if enough and pixels is not None:
                self._count(cache_hits=1)
                self._done(tile, pixels, first_row)
                return
            tile.key = None  # the other read failed, stopped, or needed fewer rows
            self._fetching.post(lambda: self._fetch([tile]), tile.number)

        if not self._store.begin(tile.key, when_done):
            return True
        with self._changed:
            self._begun.add(tile.key)
        return False

    def _keep_more(self, tile: Tile) -> None:
        """Decode a tile from its first row on if other rows were needed before.

        They are inflated anyhow; a map that is moved, or a list of places, comes back to them.
        """
        if tile.key is None or not tile.first_row or row_access(tile.format) is RowAccess.ANY:
            return
        if self._store.has(tile.key):
            more = tile.first_row * row_size(tile.format)
            tile.first_row, tile.cost = 0, tile.cost + more
            self._take(more)

    def _submit_part(self, tile: Tile) -> None:
        stream = tile.stream
        assert stream is not None  # noqa: S101 (its caller)
        stream.submit(self._fetching.post, lambda: self._decode(tile, None))

    def _fetch(self, tiles: list[Tile]) -> None:
        start = min(tile.fetch_start for tile in tiles)
        stop = max(tile.fetch_stop for tile in tiles)
        begun = time.monotonic()
        try:
            self._check()
            data = memoryview(get_range(tiles[0].href, start, stop - start))
        except BaseException as error:  # noqa: BLE001 (must not leave the consumer waiting)
            if isinstance(error, TruncatedError) and len(tiles) > 1:
                for tile in tiles:  # those before the end of the file are there
                    self._fetching.post(partial(self._fetch, [tile]), tile.number)
                return
            for tile in tiles:
                self._failed(tile, _as_ours(error, "fetch"))
            return
        self._note_latency(time.monotonic() - begun)
        self._count(requests=1, fetched_bytes=stop - start)
        for tile in tiles:
            part = data[tile.fetch_start - start : tile.fetch_stop - start]
            decode = partial(self._decode, tile, part)
            self._decoding.post(decode, tile.number)

    def _count(self, **more: int) -> None:
        """Add to the counters, from any thread."""
        with self._changed:
            for name, number in more.items():
                setattr(self.counters, name, getattr(self.counters, name) + number)

    def _note_latency(self, seconds: float) -> None:
        if self._is_adaptive and self.counters.requests == 0 and seconds > _FAR_SECONDS:
            self._fetching.widen(_LANES_FAR)

    def _decode(self, tile: Tile, data: memoryview | None) -> None:
        try:
            self._check()
            if data is None and tile.stream is not None:
                pixels = tile.stream.rows(tile.first_row, tile.stop_row, self._check)
            else:
                first, stop = tile.first_row, tile.stop_row
                if row_access(tile.format) is RowAccess.ANY:  # nothing before it was fetched
                    first, stop = 0, stop - first
                pixels = decode_block(
                    b"" if data is None else data, tile.format,
                    rows=tile.rows, needed_rows=stop, first_row=first,
                )  # fmt: skip
        except BaseException as error:  # noqa: BLE001 (must not leave the consumer waiting)
            if isinstance(error, DecodeError) and _may_have_more(tile):
                tile.fetch_stop = tile.block[1]
                self._fetching.post(lambda: self._fetch([tile]), tile.number)
                return
            self._failed(tile, _as_ours(error, "decode"))
            return
        self._count(tiles_decoded=1, decoded_bytes=pixels.nbytes)
        key, first_row = tile.key, tile.first_row
        self._done(tile, pixels, first_row)
        if key is not None:  # other reads find it while groups of this one wait for more
            self._store.keep(key, pixels, first_row)
        self._finish(key, pixels, first_row)

    def _failed(self, tile: Tile, error: RasteretError) -> None:
        key = tile.key
        tile.error = error
        if not isinstance(error, InterruptedReadError):
            self._count(tiles_failed=1)
        self._done(tile, None, tile.first_row)
        self._finish(key, None, 0)

    def _finish(self, key: TileKey | None, pixels: Pixels | None, first_row: int) -> None:
        """Tell other reads of a tile that this one began, once."""
        with self._changed:
            if key is None or key not in self._begun:
                return
            self._begun.discard(key)
        self._store.finish(key, pixels, first_row)

    def _done(self, tile: Tile, pixels: Pixels | None, first_row: int) -> None:
        with self._changed:
            tile.pixels, tile.first_row = pixels, first_row
            tile.is_done = True
            waiting, tile.waiting = tile.waiting, []
        for group in waiting:
            self._one_less(group)

    def _one_less(self, group: Group) -> None:
        with self._changed:
            group.n_waiting -= 1
            if group.n_waiting:
                return
        if threading.current_thread().name.startswith("decode"):
            self._work(group)
        else:
            self._decoding.post(lambda: self._work(group), group.number)

    def _work(self, group: Group) -> None:
        try:
            if not self._ended:
                self._check()
                group.batch = self._output.work(group)
        except BaseException as error:  # noqa: BLE001 (it belongs to the consumer)
            group.error = _as_ours(error, "read")
        for tile in group.tiles:
            self._release(tile)
        group.tiles = []
        with self._changed:
            group.is_done = True
            self._changed.notify_all()

    def _release(self, tile: Tile) -> None:
        with self._changed:
            tile.users -= 1
            if tile.users:
                return
            pixels, tile.pixels = tile.pixels, None
        self._take(-tile.cost)
        if tile.key is not None and pixels is not None:
            self._store.keep(tile.key, pixels, tile.first_row)

    def _wait(self, group: Group) -> None:
        while True:
            with self._changed:
                if group.is_done:
                    break
                self._changed.wait(_POLL_SECONDS)
            self._check()
        self._check()

    def _take(self, n_bytes: int) -> None:
        with self._changed:
            if self._ended:  # which gave all back
                return
            self._in_flight += n_bytes
        self._store.reserve(n_bytes)

    def _end(self) -> None:
        """Let go of what is under way."""
        with self._changed:
            self._ended = True
            left, self._in_flight = self._in_flight, 0
        self._store.reserve(-left - self._unused - self._held)
        for job in (*self._fetching.close(hangs=self._stop.is_set()), *self._decoding.close()):
            job()  # fails at once
        with self._changed:
            begun = list(self._begun)
        for key in begun:  # a request that hangs must not hold others up: they fetch themselves
            self._finish(key, None, 0)

    def _check(self) -> None:
        if self._ended or self._stop.is_set():
            raise InterruptedReadError("interrupted")


def _may_have_more(tile: Tile) -> bool:
    """Whether only a prefix of the block was fetched, which turned out too short."""
    is_prefix = tile.fetch_stop < tile.block[1] and row_access(tile.format) is not RowAccess.ANY
    return is_prefix and tile.stream is None


def _as_ours(error: BaseException, what: str) -> RasteretError:
    if isinstance(error, RasteretError):
        return error
    ours = RasteretError(f"{what}: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours


def _start_over() -> None:
    """Forget the runs of the parent of a forked process."""
    RUNS.n_active = 0
    STORE.start_over()


with contextlib.suppress(AttributeError):
    os.register_at_fork(after_in_child=_start_over)
