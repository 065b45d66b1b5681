"""Threads that wait for bytes or decode them: pools of the whole process.

A job runs in the context (`contextvars`) of whoever gave it: it uses the stores of the statement
that it works for (`remote.stores.Stores.in_use`).
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Job = Callable[[], None]


class Lanes(Executor):
    """Up to ``width`` daemon threads; a request that hangs never keeps the process alive.

    The standard ThreadPoolExecutor joins its threads when the interpreter ends. Here a
    thread starts when a job finds none idle, and stays.
    """

    def __init__(self, width: int, role: str = "requests") -> None:
        self.width = width
        self.role = role
        self.start_over()

    def start_over(self) -> None:
        """Forget threads and jobs: neither survives a fork, and a lock may have been held."""
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._n_threads = 0
        self._n_idle = 0
        self._heir: Lanes | None = None

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run ``fn(*args, **kwargs)`` on a lane; jobs start in the order of submission."""
        future: Future[_T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it belongs to the future's reader
                future.set_exception(error)
            else:
                future.set_result(result)

        self.post(job)
        return future

    def post(self, job: _Job) -> None:
        """Run a job that never raises and tells its result itself: a Future costs 15 us."""
        self._put(partial(copy_context().run, job))

    def _put(self, job: _Job) -> None:
        if self._heir is not None:
            self._heir._put(job)  # noqa: SLF001 (of this class)
            return
        if self._n_threads == self.width:
            self._jobs.put(job)
            if self._heir is not None:  # retired meanwhile, where nobody may look again
                self._hand_over(self._heir)
            return
        with self._lock:
            if self._heir is not None:  # retired meanwhile: its lanes end before this job
                self._heir._put(job)  # noqa: SLF001
                return
            self._jobs.put(job)
            if self._n_idle:
                self._n_idle -= 1
            elif self._n_threads < self.width:
                self._n_threads += 1
                # threading.Thread.start waits until the thread runs: 0.25 s for 512 of them
                _thread.start_new_thread(self._work, ())

    def retire(self) -> None:
        """Have others take over: some lanes hang in requests that nobody waits for any more.

        Jobs that wait go to a new pool of the width. Each lane ends with its own job.
        """
        with _lock:
            key = self.role, self.width
            if _pools.get(key) is self:
                _pools[key] = Lanes(self.width, self.role)
            heir = _pools.get(key)
        if heir is None or heir is self or self._heir is not None:
            return
        with self._lock:
            self._heir = heir
            self._hand_over(heir)
            for _ in range(self._n_threads):
                self._jobs.put(_end)

    def _hand_over(self, heir: Lanes) -> None:
        n_ends = 0
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is _end:
                n_ends += 1
            else:
                heir._put(job)
        for _ in range(n_ends):
            self._jobs.put(_end)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Do nothing: the pool is the process's, so ``with lanes(64)`` is harmless."""

    def _work(self) -> None:
        threading.current_thread().name = self.role
        while (job := self._next()) is not _end:
            job()

    def _next(self) -> _Job:
        """Wait for a job; while there are few threads, tell that this one is idle."""
        if self._n_threads < self.width:
            with self._lock:
                try:
                    return self._jobs.get_nowait()
                except Empty:
                    self._n_idle += 1
        return self._jobs.get()


def _end() -> None:
    """What a lane of a retired pool finds after its last job."""


_pools: dict[tuple[str, int], Lanes] = {}
_lock = threading.Lock()


def lanes(width: int, role: str = "requests") -> Lanes:
    """Return the process's pool of this width for a kind of work.

    Args:
        width: Threads at most; 64 suits tiles, 256 to 512 headers.
        role: What the threads do. Work that waits for other work needs a pool of its own.

    Example:
        >>> list(lanes(4).map(abs, [-1, -2]))
        [1, 2]
    """
    with _lock:
        return _pools.setdefault((role, width), Lanes(width, role))


def _start_over() -> None:
    global _lock  # the parent may have held it
    _lock = threading.Lock()
    for pool in _pools.values():
        pool.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
