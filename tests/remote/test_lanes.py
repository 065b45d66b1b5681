"""Threads that wait for bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest

from rasteret_sql.remote.lanes import Lanes, lanes


def test_there_is_one_pool_of_each_width() -> None:
    assert lanes(3) is lanes(3)
    assert lanes(3) is not lanes(5)


def test_all_lanes_run_at_once_and_no_more() -> None:
    pool = Lanes(8)
    together = threading.Barrier(8)
    running, most = 0, 0
    lock = threading.Lock()

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(10)
        with lock:
            running -= 1

    for _ in range(4):  # threads that are idle are used again, and all of them
        wait([pool.submit(job) for _ in range(8)], timeout=20)
    assert most == 8


def test_one_job_at_a_time_needs_one_thread() -> None:
    pool = Lanes(7)
    names = set()
    for _ in range(20):
        names.add(pool.submit(lambda: threading.current_thread().name).result(10))
        while not pool._n_idle:  # the thread has still to say that it is idle
            time.sleep(0)
    assert len(names) == 1


def test_jobs_start_in_order() -> None:
    pool = Lanes(1)
    started: list[int] = []
    wait([pool.submit(started.append, i) for i in range(50)], timeout=20)
    assert started == list(range(50))


def test_an_error_belongs_to_its_job() -> None:
    pool = Lanes(1)
    bad = pool.submit(int, "x")
    good = pool.submit(int, "7")
    with pytest.raises(ValueError, match="invalid literal"):
        bad.result(10)
    assert good.result(10) == 7


def test_a_waiting_job_can_be_cancelled() -> None:
    pool = Lanes(1)
    go = threading.Event()
    first = pool.submit(go.wait, 10)
    second = pool.submit(int, "7")
    assert second.cancel()
    go.set()
    assert first.result(10)
    with pytest.raises(CancelledError):
        second.result(10)


def test_leaving_a_with_block_does_not_end_the_pool() -> None:
    with lanes(2) as pool:
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
    assert lanes(2).submit(abs, -4).result(10) == 4


def test_a_job_that_hangs_does_not_keep_the_process() -> None:
    code = (
        "import threading\n"
        "from rasteret_sql.remote.lanes import lanes\n"
        "hang = threading.Event()\n"
        "lanes(2).submit(hang.wait)\n"
        "print(lanes(2).submit(abs, -1).result(10), flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr[-2000:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_pool_works_in_a_forked_child() -> None:
    code = (
        "import os\n"
        "from rasteret_sql.remote.lanes import lanes\n"
        "pool = lanes(2)\n"
        "pool.submit(abs, -1).result(10)\n"
        "pid = os.fork()\n"
        "good = pool.submit(abs, -2).result(10) == 2 and lanes(2) is pool\n"
        "if pid == 0:\n"
        "    os._exit(0 if good else 1)\n"
        "print(good, os.waitpid(pid, 0)[1])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "True 0\n", done.stderr[-2000:]


def test_a_retired_pool_hands_its_jobs_over_and_its_lanes_end():
    held, running = threading.Event(), threading.Semaphore(0)
    hanging = set()

    def hang():
        hanging.add(threading.get_ident())
        running.release()
        held.wait(10)

    pool = lanes(3)
    for _ in range(3):
        pool.submit(hang)
    for _ in range(3):
        assert running.acquire(timeout=5)
    waiting = [pool.submit(abs, -n) for n in range(20)]
    pool.retire()
    assert [future.result(timeout=5) for future in waiting] == list(range(20))
    # whoever still has the old one is served too
    assert pool.submit(abs, -7).result(timeout=5) == 7
    assert lanes(3) is not pool
    pool.retire()
    assert lanes(3).submit(abs, -8).result(timeout=5) == 8
    assert len(hanging & set(sys._current_frames())) == 3
    held.set()
    end = time.monotonic() + 10
    while hanging & set(sys._current_frames()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not hanging & set(sys._current_frames())
