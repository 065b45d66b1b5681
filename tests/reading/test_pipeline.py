"""The pipeline without SQL: order, budget, stop, sharing, and failures of some tiles."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
import shapely
from reading.made import UNCOMPRESSED, Files, Run, Shown, in_thread, plans_of, table_of, until

from rasteret_sql.errors import DecodeError, InterruptedReadError, ReadError, TruncatedError
from rasteret_sql.reading import gates, groups, pipeline
from rasteret_sql.reading.plan import Granularity
from rasteret_sql.reading.tile_store import TileStore
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range

pytestmark = pytest.mark.any_duckdb

STOPS_WITHIN_S = 0.3


def noise(height, width, seed=0, dtype="uint16"):
    high = 256 if dtype == "uint8" else 60_000
    return np.random.default_rng(seed).integers(0, high, (height, width)).astype(dtype)


def wanted(values, window):
    row_start, row_stop, col_start, col_stop = window
    return [np.ascontiguousarray(values[row_start:row_stop, col_start:col_stop]).tobytes()]


def assert_pixels(files, hrefs, rows):
    for row in rows:
        assert row["error"] is None
        assert row["pixels"] == wanted(files.values[hrefs[row["scene"]]], row["window"])


# groups


@pytest.mark.parametrize(
    ("weights", "decoded", "edges"),
    [
        ([4] * 6, [0] * 6, [0, 3, 6]),  # 10 bytes of output and more make a group
        ([4] * 6, [20, 0, 0, 20, 0, 0], [0, 3, 6]),
        ([1] * 6, [20, 20, 20, 0, 0, 20], [0, 1, 2, 5, 6]),  # 30 bytes of tiles at most
        ([1] * 6, [20, 10, 0, 0, 1, 0], [0, 4, 6]),  # those of a tile stay together
        ([1, 1, 1], [50, 0, 50], [0, 1, 2, 3]),  # one unit may need more
        ([], [], [0]),
    ],
)
def test_groups_end_at_enough_output_and_before_too_many_tiles(
    weights, decoded, edges, monkeypatch
):
    monkeypatch.setattr(groups, "_GROUP_TILE_BYTES", 30)
    as_ints = (np.array(one, np.int64) for one in (weights, decoded))
    weights, decoded = as_ints
    assert groups.batch_edges(weights, 10, decoded) == edges


# order


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("per_batch", [1, 3000, 1 << 30])
def test_units_come_in_order_however_tiles_arrive(files, run, granularity, per_batch, monkeypatch):
    hrefs = [files.add(f"f{n}", noise(40, 50, n)) for n in range(9)]
    plans = plans_of(table_of(files, hrefs), None, granularity, at_once=30)
    pauses = np.random.default_rng(3)

    def late(href, start, length):
        time.sleep(float(pauses.random()) / 50)
        return files.get_range(href, start, length)

    monkeypatch.setattr(pipeline, "get_range", late)
    run.output = Shown(per_batch)
    rows = run.rows(plans)
    expected = [
        (int(scene), window.tolist())
        for plan in plans
        for scene, window in zip(plan.units.scene, plan.units.window, strict=True)
    ]
    assert len(plans) > 1
    assert [(row["scene"], row["window"]) for row in rows] == expected
    assert_pixels(files, hrefs, rows)


def test_of_the_tiles_that_came_the_one_needed_first_is_decoded_first(files, run, monkeypatch):
    """Else the first batch would wait for all tiles whose bytes came before its own."""
    hrefs = [files.add(f"f{n}", noise(32, 32, n), (32, 32), UNCOMPRESSED) for n in range(20)]
    order, decode = [], pipeline.decode_block
    run.output = Shown(1)

    def shuffled(href, start, length):
        data = files.get_range(href, start, length)
        time.sleep((len(hrefs) - hrefs.index(href)) / 500)  # the last of them come first
        return data

    def noted(data, fmt, **options):
        order.append(bytes(data))
        until(lambda: len(files.asked) == len(hrefs))
        time.sleep(0.1 if len(order) <= pipeline._N_DECODERS else 0)  # all have come
        return decode(data, fmt, **options)

    monkeypatch.setattr(pipeline, "get_range", shuffled)
    monkeypatch.setattr(pipeline, "decode_block", noted)
    rows = run.rows(plans_of(table_of(files, hrefs)))
    assert_pixels(files, hrefs, rows)
    blocks = [np.ascontiguousarray(files.values[href]).tobytes() for href in hrefs]
    numbers = [blocks.index(block) for block in order]
    n_begun = pipeline._N_DECODERS  # before the others had come
    assert sorted(numbers[n_begun:]) == numbers[n_begun:]
    assert min(numbers[:n_begun]) > 5


def test_output_is_made_on_decode_threads_alone(files, run):
    hrefs = [files.add(f"f{n}", noise(64, 64, n)) for n in range(6)]
    assert_pixels(files, hrefs, run.rows(plans_of(table_of(files, hrefs))))
    assert run.output.threads == {"decode"}


def test_a_unit_without_tiles_is_delivered(files, run):
    files.add("sparse", np.zeros((32, 32), "uint8"), sparse=range(4))
    (row,) = run.rows(plans_of(table_of(files, ["sparse"])))
    assert row["pixels"] == [bytes(1024)]
    assert files.asked == []


# budget


def test_bytes_in_flight_stay_below_the_budget(files, run):
    size, tile = 512, 256
    hrefs = [files.add(f"f{n}", noise(size, size, n), (tile, tile)) for n in range(40)]
    budget = 4 << 20
    group = size * size * 2 * 3  # fetched, decoded and made
    rows = run.rows(plans_of(table_of(files, hrefs)), budget_bytes=budget)
    assert len(rows) == 40
    assert_pixels(files, hrefs, rows)
    assert budget / 2 < run.output.largest_in_flight <= budget + group


def test_well_compressed_neighbours_stay_below_the_budget_too(files, run):
    """One request of 2 MiB may hold thousands of such tiles."""
    side, tile = 8192, 512
    files.add("flat", np.zeros((side, side), "uint16"), (tile, tile))
    budget = 24 << 20
    plans = plans_of(table_of(files, ["flat"]), None, Granularity.BLOCK)
    n_rows = 0
    for batch in run.batches(plans, budget_bytes=budget):
        n_rows += batch.num_rows
    assert n_rows == (side // tile) ** 2
    assert run.output.largest_in_flight <= budget + (33 << 20)


def test_little_waits_for_a_slow_consumer(files, run):
    hrefs = [files.add(f"f{n}", noise(256, 256, n), (256, 256)) for n in range(200)]
    budget = 8 << 20
    one = 256 * 256 * 2
    batches = run.batches(plans_of(table_of(files, hrefs)), budget_bytes=budget)
    pipe, taken = run.output.pipeline, []
    for batch in itertools.islice(batches, 120):
        taken.append(batch)
        assert until(lambda: pipe._in_flight == (len(files.asked) - len(taken) + 1) * one)  # done
    assert pipe._in_flight <= budget / 4 + 3 * one
    rows = [row for batch in (*taken, *batches) for row in batch.to_pylist()]
    assert len(rows) == 200
    assert_pixels(files, hrefs, rows)


def test_a_read_larger_than_the_memory_leaves_some_of_the_cache_free(files, run):
    hrefs = [files.add(f"f{n}", noise(256, 256, n), (256, 256)) for n in range(40)]
    budget = 2 << 20
    batches = run.batches(plans_of(table_of(files, hrefs)), budget_bytes=budget)
    pipe, free = run.output.pipeline, []
    one = 256 * 256 * 2
    for n_taken, _ in enumerate(batches):
        assert until(lambda n=n_taken: pipe._in_flight == (len(files.asked) - n) * one)  # all done
        free.append(run.store._in_flight - pipe._in_flight)
    assert run.counters.decoded_bytes == 40 * one
    assert free[0] == 0
    assert free[-1] == budget / 4


def test_what_the_consumer_holds_is_taken_from_reads_and_cache(files, run):
    hrefs = [files.add(f"f{n}", noise(256, 256, n), (256, 256)) for n in range(30)]
    budget, held = 8 << 20, 6 << 20
    one = 256 * 256 * 2
    batches = run.batches(plans_of(table_of(files, hrefs)), budget_bytes=budget, held_bytes=held)
    rows = next(batches).to_pylist()
    assert run.store._in_flight >= held
    rows += [row for batch in batches for row in batch.to_pylist()]
    assert run.output.largest_in_flight <= budget - held + 3 * one
    assert len(rows) == 30  # and `run` checks that nothing is held at the end
    assert_pixels(files, hrefs, rows)


def test_a_unit_larger_than_the_budget_runs(files, run):
    hrefs = [files.add(f"f{n}", noise(256, 256, n), (64, 64)) for n in range(3)]
    rows = run.rows(plans_of(table_of(files, hrefs)), budget_bytes=1000)
    assert_pixels(files, hrefs, rows)
    assert len(rows) == 3


def test_runs_share_the_budget(files):
    hrefs = [files.add(f"f{n}", noise(256, 256, n), (128, 128)) for n in range(30)]
    files.pause_s = 0.005
    budget, store = 6 << 20, TileStore(0)
    runs = [Run(store) for _ in range(3)]
    plans = [plans_of(table_of(files, hrefs)) for _ in runs]
    barrier = threading.Barrier(3)

    def work(one, own):
        batches = one.batches(own, budget_bytes=budget)
        first = next(batches)
        barrier.wait(10)
        one.output.largest_in_flight = 0
        return [first, *batches]

    started = [in_thread(lambda o=o, p=p: work(o, p)) for o, p in zip(runs, plans, strict=True)]
    for results, thread in started:
        thread.join(20)
        assert len(results[0]) == 30
    group = 256 * 256 * 2 * 3
    for one in runs:
        assert one.output.largest_in_flight <= budget + group


# each tile once


def test_many_targets_fetch_and_decode_a_tile_once(files, run):
    files.add("a", noise(128, 128), (32, 32), gap=64)
    areas = [
        shapely.box(x, y, x + 21.5, y + 17.5) for x in range(0, 100, 5) for y in range(0, 100, 5)
    ]
    rows = run.rows(plans_of(table_of(files, ["a"]), areas))
    assert len(rows) == len(areas)
    assert_pixels(files, ["a"], rows)
    assert set(files.counts().values()) == {1}
    assert run.counters.tiles_decoded == run.counters.requests == 16
    assert run.counters.fetched_bytes == sum(length for _, _, length in files.asked)


def test_scenes_of_one_file_decode_a_tile_once(files, run):
    files.add("a", noise(64, 64), (32, 32))
    rows = run.rows(plans_of(table_of(files, ["a"] * 5)))
    assert_pixels(files, ["a"] * 5, rows)
    assert run.counters.tiles_decoded == 4


def test_plans_of_one_file_share_what_is_in_flight(files, run):
    files.add("a", noise(64, 64), (32, 32))
    plans = [plan for _ in range(4) for plan in plans_of(table_of(files, ["a"]))]
    assert_pixels(files, ["a"], run.rows(plans))
    assert run.counters.tiles_decoded + run.counters.cache_hits == 16


def test_a_tile_whose_group_still_waits_is_shared(files, nothing_left):
    for name in ("a", "b"):
        files.add(name, noise(32, 32), (32, 32))
    files.hanging.add("b")
    store = TileStore()
    one, two = Run(store), Run(store)
    table = table_of(files, [{"x": "a", "y": "b"}])
    results, thread = in_thread(lambda: one.rows(plans_of(table)))
    assert until(lambda: one.counters.tiles_decoded == 1)
    time.sleep(0.05)
    assert_pixels(files, ["a"], two.rows(plans_of(table_of(files, ["a"]))))
    files.go.set()
    thread.join(5)
    assert len(results[0]) == 1
    nothing_left(one, two)
    assert two.counters.tiles_decoded == 0


def test_a_kept_tile_needs_no_request(files, run):
    files.add("a", noise(64, 64), (32, 32))
    plans = plans_of(table_of(files, ["a"]))
    first = run.rows(plans)
    files.asked.clear()
    assert run.rows(plans) == first
    assert files.asked == []
    assert run.counters.cache_hits == 4


def test_without_a_version_nothing_is_kept(files, run):
    files.add("a", noise(64, 64), (32, 32), etag=None)
    plans = plans_of(table_of(files, ["a"]))
    first = run.rows(plans)
    files.asked.clear()
    assert run.rows(plans) == first
    assert files.asked
    assert run.store.stats().tiles == 0


def test_a_kept_tile_of_another_version_is_not_used(files, run):
    files.add("a", noise(64, 64), (32, 32))
    run.rows(plans_of(table_of(files, ["a"])))
    files.add("a", noise(64, 64, 9), (32, 32), etag="v2")
    assert_pixels(files, ["a"], run.rows(plans_of(table_of(files, ["a"]))))


def test_fewer_rows_in_memory_than_needed_are_read_again(files, run):
    files.add("a", noise(512, 512), (512, 512))
    table = table_of(files, ["a"])
    run.rows(plans_of(table, [shapely.box(0.1, 0.1, 300, 99.9)]))
    rows = run.rows(plans_of(table, [shapely.box(0.1, 0.1, 300, 399.9)]))
    assert_pixels(files, ["a"], rows)
    assert run.counters.tiles_decoded == 2
    again = run.rows(plans_of(table, [shapely.box(0.1, 200.1, 300, 299.9)]))
    assert_pixels(files, ["a"], again)
    assert run.counters.tiles_decoded == 2


# prefixes


def test_a_tile_that_was_read_before_is_decoded_from_its_first_row_on(files, run):
    """The first read of a tile keeps its own rows, the next one all that it inflates."""
    files.add("a", noise(256, 256), (256, 256))
    table = table_of(files, ["a"])
    for first, stop, n_hits, n_rows in (
        (200, 210, 0, 10), (100, 110, 0, 110), (40, 90, 1, 0), (0, 5, 2, 0), (204, 206, 2, 206),
    ):  # fmt: skip
        before = run.counters.decoded_bytes
        (row,) = run.rows(plans_of(table, [shapely.box(0, first, 256, stop)]))
        assert row["window"] == [first, stop, 0, 256]
        assert_pixels(files, ["a"], [row])
        assert run.counters.decoded_bytes - before == n_rows * 256 * 2
        assert run.counters.cache_hits == n_hits
        assert run.store.stats().tiles == 1
    assert run.store.stats().used_bytes == 206 * 256 * 2


def test_a_prefix_is_fetched_and_gives_the_right_rows(files, run):
    files.add("a", noise(512, 512), (512, 512))
    rows = run.rows(plans_of(table_of(files, ["a"]), [shapely.box(0.1, 0.1, 300, 99.9)]))
    assert_pixels(files, ["a"], rows)
    ((_, _, length),) = files.asked
    assert length < files.headers["a"]["tile_byte_counts"][0] / 2


def test_a_prefix_that_is_too_short_is_fetched_whole(files, run):
    values = np.zeros((512, 512), "uint16")
    values[:200] = noise(200, 512)  # the first rows take nearly all bytes
    files.add("a", values, (512, 512))
    rows = run.rows(plans_of(table_of(files, ["a"]), [shapely.box(0.1, 0.1, 500, 149.9)]))
    assert_pixels(files, ["a"], rows)
    assert [length for _, _, length in files.asked][1:] == files.headers["a"]["tile_byte_counts"]
    assert run.counters.tiles_decoded == 1


def test_rows_of_an_uncompressed_block_are_fetched_alone(files, run):
    files.add("a", noise(512, 128), (512, 128), UNCOMPRESSED)
    rows = run.rows(plans_of(table_of(files, ["a"]), [shapely.box(0.1, 200.1, 100, 209.9)]))
    assert_pixels(files, ["a"], rows)
    ((_, start, length),) = files.asked
    assert (start, length) == (20 + 200 * 256, 10 * 256)


# failure of some


def test_one_broken_file_leaves_the_others(files, run):
    hrefs = [files.add(f"f{n}", noise(32, 32, n)) for n in range(8)]
    files.broken.add("f3")
    run.output = Shown(may_fail=True)
    rows = run.rows(plans_of(table_of(files, hrefs), on_error="null"))
    assert [row["scene"] for row in rows if row["error"]] == [3]
    assert_pixels(files, hrefs, [row for row in rows if row["scene"] != 3])


def test_one_broken_file_is_an_error(files, run):
    hrefs = [files.add(f"f{n}", noise(32, 32, n)) for n in range(8)]
    files.broken.add("f3")
    got = []
    batches = run.batches(plans_of(table_of(files, hrefs)))
    with pytest.raises(ReadError, match="f3: broken"):
        got.extend(batch.to_pylist() for batch in batches)
    assert [row["scene"] for rows in got for row in rows] == [0, 1, 2]


@pytest.mark.parametrize("damage", ["corrupt", "cut"])
def test_one_bad_tile_leaves_its_neighbours_in_the_request(files, run, damage):
    files.add("a", noise(64, 64), (16, 16))
    head = files.headers["a"]
    at, size = head["tile_offsets"][15], head["tile_byte_counts"][15]
    body = files.contents["a"]
    bad = b"\xff" * size if damage == "corrupt" else b"\x01"
    files.contents["a"] = body[:at] + bad
    run.output = Shown(may_fail=True)
    rows = run.rows(plans_of(table_of(files, ["a"]), None, Granularity.BLOCK, on_error="null"))
    failed = [row["window"] for row in rows if row["error"]]
    assert failed == [[48, 64, 48, 64]]
    assert_pixels(files, ["a"], [row for row in rows if row["error"] is None])


def test_an_error_of_the_output_ends_the_run(files, run):
    hrefs = [files.add(f"f{n}", noise(32, 32, n)) for n in range(30)]

    def fail(group):
        if group.plan.units.scene[group.start] == 2:
            raise DecodeError("made to fail")

    run.output.on_work = fail
    with pytest.raises(DecodeError, match="made to fail"):
        run.rows(plans_of(table_of(files, hrefs)))


def test_an_unforeseen_error_names_itself(files, run, monkeypatch):
    files.add("a", noise(32, 32))

    def broken(*_args):
        raise MemoryError("none left")

    monkeypatch.setattr(pipeline, "get_range", broken)
    with pytest.raises(Exception, match="fetch: MemoryError: none left"):
        run.rows(plans_of(table_of(files, ["a"])))


# stop


def stopped_after(run, plans, is_ready, **options):
    """Seconds from the stop to the end of a run that was stopped when ready."""
    results, thread = in_thread(lambda: run.rows(plans, **options))
    assert until(is_ready)
    began = time.monotonic()
    busy, control = in_thread(oversleep)
    run.stop.set()
    thread.join(5)
    seconds = time.monotonic() - began
    assert isinstance(results[0], InterruptedReadError)
    control.join(5)
    return seconds - busy[0]


def oversleep():
    """By how much a busy machine prolongs three waits of 0.1 s."""
    began = time.monotonic()
    for _ in range(3):
        time.sleep(0.1)
    return time.monotonic() - began - 0.3


def test_a_stop_ends_requests_that_hang(files, run, nothing_left):
    hrefs = [files.add(f"f{n}", noise(32, 32, n)) for n in range(100)]
    files.hanging.update(hrefs)
    plans = plans_of(table_of(files, hrefs))
    seconds = stopped_after(run, plans, lambda: len(files.asked) >= 20, max_concurrent=20)
    assert seconds < STOPS_WITHIN_S
    nothing_left(run)  # while the requests still hang


def test_a_stop_ends_a_run_that_decodes(files, run, monkeypatch):
    hrefs = [files.add(f"f{n}", noise(32, 32, n)) for n in range(100)]
    decode = pipeline.decode_block

    def slow(*args, **options):
        time.sleep(0.05)
        return decode(*args, **options)

    monkeypatch.setattr(pipeline, "decode_block", slow)
    ready = lambda: run.counters.tiles_decoded > 3  # noqa: E731
    assert stopped_after(run, plans_of(table_of(files, hrefs)), ready) < STOPS_WITHIN_S


def test_a_stop_ends_a_run_that_makes_output(files, run):
    hrefs = [files.add(f"f{n}", noise(32, 32, n)) for n in range(100)]
    made = []

    def slow(group):
        made.append(group)
        time.sleep(0.05)

    run.output.on_work = slow
    plans = plans_of(table_of(files, hrefs))
    assert stopped_after(run, plans, lambda: len(made) > 3) < STOPS_WITHIN_S


def test_a_stop_ends_a_run_that_plans(files, run):
    hrefs = [files.add(f"f{n}", noise(32, 32, n)) for n in range(4)]
    planned = []

    def slow_plans():
        while len(planned) < 400:
            time.sleep(0.02)
            planned.append(1)
            yield plans_of(table_of(files, hrefs[:1]))[0]

    assert stopped_after(run, slow_plans(), lambda: len(planned) > 3) < STOPS_WITHIN_S


def test_a_stop_before_the_first_batch_asks_for_nothing(files, run):
    files.add("a", noise(32, 32))
    run.stop.set()
    with pytest.raises(InterruptedReadError):
        run.rows(plans_of(table_of(files, ["a"])))
    assert files.asked == []


def test_a_stop_ends_a_large_block_that_comes_in_parts(files, run):
    files.add("a", noise(9000, 4096, dtype="uint8"), (9000, 4096))
    files.pause_s = 0.05
    plans = plans_of(table_of(files, ["a"]), None, Granularity.BLOCK)
    assert len(plans[0].tiles.file) > 5
    ready = lambda: len(files.asked) > 2  # noqa: E731
    assert stopped_after(run, plans, ready) < STOPS_WITHIN_S


def test_a_read_that_is_left_early_lets_go_of_all(files, run, nothing_left):
    hrefs = [files.add(f"f{n}", noise(64, 64, n), (32, 32)) for n in range(200)]
    batches = run.batches(plans_of(table_of(files, hrefs)))
    assert next(batches).num_rows == 1
    assert gates.RUNS.n_active == 1
    batches.close()
    nothing_left(run)
    n_asked = len(files.asked)
    assert n_asked < 150, "a LIMIT costs few requests"
    time.sleep(0.1)
    assert len(files.asked) == n_asked


def test_a_read_that_was_never_begun_holds_nothing(files, run, nothing_left):
    files.add("a", noise(32, 32))
    run.batches(plans_of(table_of(files, ["a"]))).close()
    nothing_left(run)
    assert files.asked == []


# runs at once


def test_two_runs_decode_a_tile_once(files, nothing_left):
    hrefs = [files.add(f"f{n}", noise(64, 64, n), (32, 32)) for n in range(6)]
    files.hanging.update(hrefs)
    store = TileStore()
    runs = [Run(store) for _ in range(4)]
    started = [in_thread(lambda o=o: o.rows(plans_of(table_of(files, hrefs)))) for o in runs]
    assert until(lambda: sum(len(w) for w in store._in_work.values()) == 3 * 24)
    files.go.set()
    for results, thread in started:
        thread.join(10)
        assert_pixels(files, hrefs, results[0])
    assert set(files.counts().values()) == {1}
    assert sum(one.counters.tiles_decoded for one in runs) == 24
    assert sum(one.counters.cache_hits for one in runs) == 72
    nothing_left(*runs)


def test_when_the_owner_fails_the_other_fetches_itself(files, nothing_left, monkeypatch):
    files.add("a", noise(32, 32), (32, 32))
    store, go, n_asked = TileStore(), threading.Event(), []

    def first_fails(href, start, length):
        n_asked.append(href)
        if len(n_asked) == 1:
            go.wait(10)
            raise ReadError("only the first")
        return files.get_range(href, start, length)

    monkeypatch.setattr(pipeline, "get_range", first_fails)
    owner, other = Run(store), Run(store)
    owned, owns = in_thread(lambda: owner.rows(plans_of(table_of(files, ["a"]))))
    assert until(lambda: len(n_asked) == 1)
    waited, waits = in_thread(lambda: other.rows(plans_of(table_of(files, ["a"]))))
    assert until(lambda: sum(len(w) for w in store._in_work.values()) == 1)
    go.set()
    owns.join(10)
    waits.join(10)
    assert isinstance(owned[0], ReadError)
    assert_pixels(files, ["a"], waited[0])
    nothing_left(owner, other)


def test_when_the_owner_is_stopped_the_other_fetches_itself(files, nothing_left, monkeypatch):
    """Also while the owner's request hangs: the other does not wait for that."""
    files.add("a", noise(64, 64), (32, 32))
    store, go, n_asked = TileStore(), threading.Event(), []
    late = threading.Event()

    def first_hangs(href, start, length):
        n_asked.append(href)
        if len(n_asked) == 1:
            assert go.wait(20)
            late.set()
        return files.get_range(href, start, length)

    monkeypatch.setattr(pipeline, "get_range", first_hangs)
    owner, other = Run(store), Run(store)
    owned, owns = in_thread(lambda: owner.rows(plans_of(table_of(files, ["a"]))))
    assert until(lambda: len(n_asked) == 1)
    waited, waits = in_thread(lambda: other.rows(plans_of(table_of(files, ["a"]))))
    assert until(lambda: sum(len(w) for w in store._in_work.values()) == 4)
    owner.stop.set()
    owns.join(5)
    assert isinstance(owned[0], InterruptedReadError)
    waits.join(3)
    try:
        assert waited, "it waits for a request that nobody needs"
        assert_pixels(files, ["a"], waited[0])
        nothing_left(owner, other)
        # what comes late must not disturb a third run that has the tiles in work
        store.clear()
        files.hanging.add("a")
        third = Run(store)
        came, comes = in_thread(lambda: third.rows(plans_of(table_of(files, ["a"]))))
        assert files.arrived.wait(5)
    finally:
        go.set()
    assert late.wait(5)
    time.sleep(0.05)
    assert len(store._in_work) == 4
    files.go.set()
    comes.join(5)
    assert_pixels(files, ["a"], came[0])
    nothing_left(owner, other, third)


def test_when_the_owner_leaves_early_the_other_fetches_itself(files, nothing_left, monkeypatch):
    hrefs = [files.add(f"f{n}", noise(32, 32, n), (32, 32)) for n in range(3)]
    store, go, n_asked = TileStore(), threading.Event(), []

    def second_hangs(href, start, length):
        n_asked.append(href)
        if href == "f1" and n_asked.count("f1") == 1:
            assert go.wait(20)
        return files.get_range(href, start, length)

    monkeypatch.setattr(pipeline, "get_range", second_hangs)
    owner, other = Run(store), Run(store)
    batches = owner.batches(plans_of(table_of(files, hrefs)))
    next(batches)
    waited, waits = in_thread(lambda: other.rows(plans_of(table_of(files, hrefs))))
    assert until(lambda: sum(len(w) for w in store._in_work.values()) == 1)
    batches.close()
    waits.join(3)
    try:
        assert waited, "it waits for a request that nobody needs"
        assert_pixels(files, hrefs, waited[0])
    finally:
        go.set()
    nothing_left(owner, other)


def test_many_runs_with_stops_leave_nothing(files, nothing_left):
    """Runs of random length on the same tiles; those that end say the right pixels."""
    hrefs = [files.add(f"f{n}", noise(64, 64, n), (32, 32)) for n in range(12)]
    files.pause_s = 0.002
    files.broken.add("f7")
    store = TileStore(64 * 1024)
    rng = np.random.default_rng(5)
    runs, started = [], []
    for _ in range(24):
        one = Run(store, output=Shown(may_fail=True))
        runs.append(one)
        started.append(
            in_thread(lambda o=one: o.rows(plans_of(table_of(files, hrefs), on_error="null")))
        )
        if rng.random() < 0.5:
            timer = threading.Timer(float(rng.random()) / 20, one.stop.set)
            timer.daemon = True
            timer.start()
    n_whole = 0
    for results, thread in started:
        thread.join(20)
        assert results
        if isinstance(results[0], InterruptedReadError):
            continue
        n_whole += 1
        assert [row["scene"] for row in results[0] if row["error"]] == [7]
        assert_pixels(files, hrefs, [row for row in results[0] if row["scene"] != 7])
    assert n_whole >= 8
    nothing_left(*runs)


# real files that are cut


@pytest.mark.parametrize("where", ["local", "http", "http with a query"])
def test_tiles_before_the_end_of_a_cut_file_are_read(server, tmp_path, run, where):
    values = noise(64, 64)
    made = Files()
    made.add("a", values)
    head = made.headers["a"]
    keep = head["tile_offsets"][15] + 3
    folder = server.folder / "cut"
    folder.mkdir(exist_ok=True)
    (folder / "a.tif").write_bytes(made.contents["a"][:keep])
    address = server.url("scenes", "cut/a.tif")
    href = {"local": str(folder / "a.tif"), "http": address}.get(where, f"{address}?n=1")
    for kind in (made.headers, made.values):
        kind[href] = kind["a"]
    run.output = Shown(may_fail=True)
    rows = run.rows(plans_of(table_of(made, [href]), None, Granularity.BLOCK, on_error="null"))
    (failed,) = (row for row in rows if row["error"])
    assert failed["window"] == [48, 64, 48, 64]
    assert_pixels(made, [href], [row for row in rows if row["error"] is None])
    with pytest.raises(TruncatedError):
        get_range(href, keep + 5, 10)


def test_a_job_that_comes_while_its_pool_is_retired_runs():
    """One run is stopped and retires the pool while another posts to it."""
    pool, ran = lanes(3, "retired meanwhile"), threading.Event()
    pool.submit(int).result(5)  # a lane that is idle then

    class Lock:
        inner, is_first = pool._lock, True

        def __enter__(self):
            if self.is_first:
                self.is_first = False
                pool.retire()
            self.inner.acquire()

        def __exit__(self, *_exc):
            self.inner.release()

    pool._lock = Lock()
    pool.post(ran.set)
    assert ran.wait(2)
