"""The least that a client can do: ranges are known, obstore fetches them, isal inflates them.

There is no header, no plan, no mask and no table: each tile is fetched once from a thread of its
own, inflated on one of as many threads as there are cores, and the rows and columns that are
needed go into the output. `prefix` fetches and inflates only the rows down to the last one that
is needed; where the guess of the bytes was short, the whole tile is fetched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import obstore
from cases import (
    WARM_PATH,
    Cog,
    Piece,
    first_ifd,
    header_paths,
    load_cogs,
    windows,
)
from isal import isal_zlib
from obstore.store import HTTPStore

HEADER_BYTES = 16384
# In imagecodecs for Python 3.12 and later: into an array that is there. Else python-isal.
isal_decode = getattr(imagecodecs, "isal_decode", None)
# Deflated bytes of a share of the rows: a little more than that share of all bytes.
PREFIX_FACTOR, PREFIX_EXTRA_BYTES = 1.06, 2048


class Job(NamedTuple):
    """One range to fetch, and what to do with its bytes."""

    path: str
    offset: int
    count: int
    use: Callable[[bytes], None]


class Tiles:
    """Inflates tiles of uint16 with predictor 2 into windows; one scratch array for each thread."""

    def __init__(self, store: HTTPStore, *, is_prefix: bool) -> None:
        self.is_prefix = is_prefix
        self._store = store
        self._scratch = threading.local()

    def job(self, cog: Cog, tile: int, uses: list[tuple[Piece, np.ndarray]]) -> Job:
        offset, count, side = int(cog.offsets[tile]), int(cog.counts[tile]), cog.tile_px
        stop_row = max(piece.stop_row for piece, _ in uses)
        guess = int(count * stop_row / side * PREFIX_FACTOR) + PREFIX_EXTRA_BYTES
        if not self.is_prefix or guess >= count:
            return Job(cog.path, offset, count, lambda data: self._use_whole(data, side, uses))

        def use(data: bytes) -> None:
            raw = isal_zlib.decompressobj().decompress(data, stop_row * side * 2)
            if len(raw) < stop_row * side * 2:
                data = obstore.get_range(self._store, cog.path, start=offset, length=count)
                self._use_whole(data, side, uses)
            else:
                cut(np.frombuffer(raw, "<u2").reshape(stop_row, side), uses)

        return Job(cog.path, offset, guess, use)

    def _use_whole(self, data: bytes, side: int, uses: list[tuple[Piece, np.ndarray]]) -> None:
        if isal_decode is None:
            raw = isal_zlib.decompressobj().decompress(data, side * side * 2)
            cut(np.frombuffer(raw, "<u2").reshape(side, side), uses)
            return
        buffers = self._scratch.__dict__
        if side not in buffers:
            buffers[side] = np.empty(side * side * 2, "u1")
        isal_decode(data, out=buffers[side])
        tile = buffers[side].view("<u2").reshape(side, side)
        cut(tile, uses, is_in_place=len(uses) == 1)


def cut(
    tile: np.ndarray, uses: list[tuple[Piece, np.ndarray]], *, is_in_place: bool = False
) -> None:
    """Undo the predictor in the rows and columns that windows need, into the windows."""
    for piece, window in uses:
        rows = tile[piece.first_row : piece.stop_row, : piece.stop_col]
        rows = imagecodecs.delta_decode(rows, axis=-1, out=rows if is_in_place else None)
        rows = rows[:, piece.first_col :]
        height, width = rows.shape
        window[piece.row : piece.row + height, piece.col : piece.col + width] = rows


def window_jobs(case: str, cogs: dict[str, Cog], tiles: Tiles) -> tuple[list[Job], list]:
    outputs = []
    uses: dict[tuple[str, int], list[tuple[Piece, np.ndarray]]] = {}
    for name, window in windows(case):
        output = np.empty((window.height, window.width), "u2")
        outputs.append(output)
        for piece in cogs[name].pieces(window):
            uses.setdefault((name, piece.tile), []).append((piece, output))
    jobs = [tiles.job(cogs[name], tile, pieces) for (name, tile), pieces in uses.items()]
    return jobs, outputs


def header_jobs() -> tuple[list[Job], list]:
    paths = header_paths()
    outputs: list = [None] * len(paths)

    def job(i: int) -> Job:
        def use(data: bytes) -> None:
            outputs[i] = first_ifd(data)[324].astype("i8")

        return Job(paths[i], 0, HEADER_BYTES, use)

    return [job(i) for i in range(len(paths))], outputs


def prepare(
    base: str, folder: Path, case: str, max_concurrent: int, *, is_prefix: bool
) -> Callable[[], list]:
    """Do what is not timed; the function that is returned is."""
    store = HTTPStore.from_url(
        f"{base}/",
        client_options={"allow_http": True, "pool_max_idle_per_host": "512", "timeout": "120s"},
    )
    obstore.get_range(store, WARM_PATH, start=0, length=4096)
    n_cores = len(os.sched_getaffinity(0))
    lanes, workers = ThreadPoolExecutor(max_concurrent), ThreadPoolExecutor(n_cores)
    slots = threading.BoundedSemaphore(n_cores)
    for pool, width in ((lanes, max_concurrent), (workers, n_cores)):
        list(pool.map(lambda _: time.sleep(0.01), range(width)))
    if case == "f":
        jobs, outputs = header_jobs()
    else:
        jobs, outputs = window_jobs(case, load_cogs(folder), Tiles(store, is_prefix=is_prefix))

    def fetch(job: Job) -> bytes:
        return obstore.get_range(store, job.path, start=job.offset, length=job.count)

    def fetch_and_submit(job: Job):
        return workers.submit(job.use, fetch(job))

    def fetch_and_use(job: Job) -> None:
        data = fetch(job)
        with slots:
            job.use(data)

    def run() -> list:
        if case == "f":
            list(lanes.map(fetch_and_use, jobs))
        else:
            for done in list(lanes.map(fetch_and_submit, jobs)):
                done.result()
        return outputs

    return run
