"""The store of decoded tiles: what is kept, what must go, who decodes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading.made import in_thread

from examples import examples
from rasteret_sql.reading import tile_store
from rasteret_sql.reading.tile_store import TileKey, TileStore
from rasteret_sql.tiff.layout import BlockFormat

pytestmark = pytest.mark.any_duckdb

FORMAT = BlockFormat(1, 1, 1, "uint8", "little", 8, 1, 16, 16)


def key(number, version="v1", part=0):
    return TileKey(f"f{number}", version, 8, 256, part, FORMAT)


def pixels(n_bytes):
    return np.zeros((n_bytes // 10, 10, 1), "uint8")


def test_a_kept_tile_is_found_with_its_rows():
    store = TileStore()
    kept = pixels(100)
    store.keep(key(1), kept, 4)
    assert store.find(key(1), 4, 14) == (4, kept)
    assert store.find(key(1), 6, 9) == (4, kept)
    for first, stop in ((3, 9), (4, 15), (0, 1)):
        assert store.find(key(1), first, stop) is None
    for other in (key(2), key(1, "v2"), key(1, part=1)):
        assert store.find(other, 4, 5) is None
    assert store.stats()[1:] == (100, 1, 2, 6, 0)


def test_of_two_versions_of_rows_the_larger_stays():
    store = TileStore()
    store.keep(key(1), pixels(100), 0)
    store.keep(key(1), pixels(50), 2)
    assert store.find(key(1), 0, 10) is not None
    store.keep(key(1), pixels(300), 0)
    assert store.find(key(1), 0, 30) is not None
    assert store.stats().used_bytes == 300


def test_a_view_counts_what_it_keeps_in_memory():
    store = TileStore()
    store.keep(key(1), pixels(1000)[:5], 0)
    assert store.stats().used_bytes == 1000


def test_the_least_used_leaves_first():
    store = TileStore(1000)
    for number in range(10):
        store.keep(key(number), pixels(100), 0)
    assert store.find(key(0), 0, 1) is not None
    store.keep(key(10), pixels(100), 0)
    assert store.find(key(1), 0, 1) is None
    assert store.find(key(0), 0, 1) is not None
    assert store.stats().evictions == 1


def test_a_tile_that_would_fill_the_cache_is_not_kept():
    store = TileStore(1000)
    store.keep(key(1), pixels(260), 0)
    assert store.stats().tiles == 0


def test_reads_under_way_take_from_the_cache(monkeypatch):
    monkeypatch.setattr(tile_store, "BUDGET_BYTES", 1000)
    store = TileStore(1000)
    for number in range(10):
        store.keep(key(number), pixels(100), 0)
    store.reserve(650)
    assert store.stats().used_bytes == 300
    store.keep(key(11), pixels(100), 0)
    assert store.stats().used_bytes == 300
    assert store.find(key(11), 0, 1) is not None
    store.reserve(650)
    assert store.stats().used_bytes == 0
    store.reserve(-1300)
    store.keep(key(12), pixels(100), 0)
    assert store.stats().used_bytes == 100


def test_a_smaller_capacity_holds_at_once():
    store = TileStore()
    for number in range(10):
        store.keep(key(number), pixels(100), 0)
    store.resize(250)
    assert store.stats()[:3] == (250, 200, 2)
    store.resize(0)
    store.keep(key(11), pixels(10), 0)
    assert store.stats().tiles == 0


def test_clear_forgets_tiles_and_not_what_is_under_way():
    store = TileStore()
    store.keep(key(1), pixels(100), 0)
    store.reserve(77)
    assert store.begin(key(2), lambda *_: None)
    store.clear()
    assert store.stats()[1:3] == (0, 0)
    assert store._in_flight == 77
    assert not store.begin(key(2), lambda *_: None)


def test_one_begins_and_the_others_are_told():
    store, told = TileStore(), []
    assert store.begin(key(1), lambda *_: told.append("the owner"))
    for number in range(3):
        assert not store.begin(key(1), lambda *got, number=number: told.append((number, got)))
    assert store.begin(key(2), lambda *_: None)
    found = pixels(100)
    store.finish(key(1), found, 3)
    assert told == [(number, (found, 3)) for number in range(3)]
    store.finish(key(1), found, 3)
    assert len(told) == 3
    assert store.begin(key(1), lambda *_: None), "it is free again"


def test_who_is_told_may_begin_at_once():
    store, begun = TileStore(), []
    store.begin(key(1), lambda *_: None)
    store.begin(key(1), lambda *_: begun.append(store.begin(key(1), lambda *_: None)))
    store.finish(key(1), None, 0)
    assert begun == [True]


def test_many_threads_have_one_owner_each_time():
    store, barrier = TileStore(), threading.Barrier(8)
    told = [threading.Event() for _ in range(8)]

    def work(number):
        barrier.wait(5)
        return store.begin(key(1), lambda *_: told[number].set())

    started = [in_thread(lambda n=n: work(n)) for n in range(8)]
    for _, thread in started:
        thread.join(5)
    owners = [n for n, (results, _) in enumerate(started) if results == [True]]
    assert len(owners) == 1
    store.finish(key(1), None, 0)
    assert [event.is_set() for event in told] == [n not in owners for n in range(8)]


def test_a_forked_process_starts_over():
    store = TileStore()
    store.keep(key(1), pixels(100), 0)
    store.reserve(500)
    store.begin(key(1), lambda *_: None)
    store._lock.acquire()
    store.start_over()
    assert store._in_flight == 0
    assert store.begin(key(1), lambda *_: None)
    assert store.find(key(1), 0, 1) is not None


steps = st.one_of(
    st.tuples(st.just("keep"), st.integers(0, 5), st.integers(1, 40), st.integers(0, 5)),
    st.tuples(st.just("find"), st.integers(0, 5), st.integers(0, 9), st.integers(1, 30)),
    st.tuples(st.just("reserve"), st.integers(0, 900)),
    st.tuples(
        st.just("give"),
    ),
    st.tuples(st.just("resize"), st.integers(0, 1500)),
)


@settings(max_examples=examples(80, 200), deadline=None)
@given(done=st.lists(steps, max_size=60))
def test_the_count_of_bytes_is_that_of_the_tiles(done):
    patch = pytest.MonkeyPatch()
    patch.setattr(tile_store, "BUDGET_BYTES", 1000)
    try:
        store, taken = TileStore(800), []
        for what, *args in done:
            if what == "keep":
                number, n_rows, first = args
                values = np.full((n_rows, 10, 1), number, "uint8")
                store.keep(key(number), values, first)
            elif what == "find":
                number, first, n_rows = args
                found = store.find(key(number), first, first + n_rows)
                if found is not None:
                    assert found[0] <= first
                    assert first + n_rows <= found[0] + len(found[1])
                    assert (found[1] == number).all()
            elif what == "reserve":
                taken.append(args[0])
                store.reserve(args[0])
            elif what == "give" and taken:
                store.reserve(-taken.pop())
            elif what == "resize":
                store.resize(args[0])
            held = sum(values.nbytes for _, values in store._kept.values())
            stats = store.stats()
            assert stats.used_bytes == held
            assert held <= stats.capacity_bytes
            assert held <= max(0, 1000 - sum(taken))
    finally:
        patch.undo()
