"""How runs of pipelines share the pools of threads of the process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from heapq import heappop, heappush

from rasteret_sql.remote.lanes import Lanes
from rasteret_sql.remote.stores import stores_in_use


class Gate:
    """Lets some jobs of a run at a time into a pool that runs of the process share.

    They use the stores of the run, whichever run's thread lets them in. Of the jobs that wait, the
    one of the lowest number goes first.
    """

    def __init__(self, pool: Lanes, limit: int) -> None:
        self.limit = limit
        self._pool = pool
        self._stores = stores_in_use()
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._n_inside = 0
        self._lock = threading.Lock()

    def post(self, job: Callable[[], None], number: int = 0) -> None:
        """Run a job when there is room; of those with one number, the first that came."""
        with self._lock:
            if self._n_inside >= self._share:
                heappush(self._waiting, (number, next(self._count), job))
                return
            self._n_inside += 1
        self._pool.post(lambda: self._run(job))

    def widen(self, limit: int) -> None:
        """Let more jobs in."""
        with self._lock:
            self.limit = limit
            more = []
            while self._waiting and self._n_inside < self._share:
                self._n_inside += 1
                more.append(heappop(self._waiting)[-1])
        for job in more:
            self._pool.post(lambda job=job: self._run(job))  # type: ignore[misc]

    def close(self, *, hangs: bool = False) -> list[Callable[[], None]]:
        """Let no more jobs in; those that waited.

        Args:
            hangs: Jobs inside may hang; others then get new threads.
        """
        with self._lock:
            left, self._waiting = self._waiting, []
            hangs = hangs and self._n_inside > 0
        if hangs:
            self._pool.retire()
        return [job for _, _, job in left]

    @property
    def _share(self) -> int:
        """All runs together find room in the pool."""
        return max(1, min(self.limit, self._pool.width // max(1, RUNS.n_active)))

    def _run(self, job: Callable[[], None]) -> None:
        while True:
            with self._stores.in_use():
                job()
            with self._lock:
                if not self._waiting or self._n_inside > self._share:
                    self._n_inside -= 1
                    return
                job = heappop(self._waiting)[-1]
                if RUNS.n_active > 1:
                    break
        self._pool.post(lambda: self._run(job))  # behind the jobs of other runs


class Runs:
    """How many runs are active, as a context manager."""

    def __init__(self) -> None:
        self.n_active = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Count a run that begins."""
        with self._lock:
            self.n_active += 1

    def __exit__(self, *_exc: object) -> None:
        """Count it no more."""
        with self._lock:
            self.n_active -= 1


RUNS = Runs()
