"""The planner: pieces, tiles and requests of random grids and areas, checked one by one."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading.made import DEFLATE, PIXEL, UNCOMPRESSED, Files, plans_of, table_of
from shapely import affinity

from examples import examples
from rasteret_sql.errors import CollectionError, InputError, UnsupportedTiffError
from rasteret_sql.grid.crs import crs_of
from rasteret_sql.reading import assembly
from rasteret_sql.reading.assembly import _request_numbers
from rasteret_sql.reading.plan import DATA, MASK, Granularity

pytestmark = pytest.mark.any_duckdb

quick = settings(
    max_examples=examples(32, 80),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def level_of(files, href, shape, *, divide):
    """A mask or overview of a file, by the header of a file of its own."""
    small = tuple(-(-n // divide) for n in shape)
    other = f"{href}-{divide}"
    files.add(other, np.ones(small, "uint8"), (16, 16))
    names = ("tile_width", "tile_height", "tile_offsets", "tile_byte_counts", "compression")
    head = files.headers[other]
    return {name: head[name] for name in names} | {
        "tile_offsets": [1_000_000 + offset for offset in head["tile_offsets"]],  # behind the image
        "width": small[1],
        "height": small[0],
        "predictor": 1,
        "photometric": 4,
        "bits_per_sample": 8,
        "is_tiled": True,
        "block_samples": 1,
    }


@st.composite
def scenes(draw):
    """Files with one or two bands on grids of several sizes; some blocks are sparse."""
    files, made = Files(), []
    for number in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
        bands = {}
        for band in ("a", "b")[: draw(st.integers(1, 2))]:
            tile = draw(
                st.sampled_from([(16, 16), (32, 16), (16, 48), (1, shape[1]), (7, shape[1])])
            )
            n_blocks = -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])
            more = {}
            if draw(st.booleans()):
                more["mask"] = level_of(files, f"m{number}{band}", shape, divide=1)
            bands[band] = files.add(
                f"f{number}{band}",
                np.arange(shape[0] * shape[1]).reshape(shape).astype("uint16"),
                tile,
                draw(st.sampled_from([DEFLATE, UNCOMPRESSED])),
                gap=draw(st.sampled_from([0, 8, 200])),
                sparse=draw(st.sets(st.integers(0, n_blocks - 1), max_size=3)),
                **more,
            )
        made.append(bands)
    bands = [name for name in ("a", "b") if any(name in one for one in made)]
    made = [dict.fromkeys(bands) | one for one in made]
    made = [{name: href for name, href in one.items() if href} for one in made]
    return files, made


@st.composite
def areas(draw):
    corner = st.tuples(st.integers(-10, 100), st.integers(-10, 100))
    kind = draw(st.sampled_from(["box", "triangle", "diagonal"]))
    (x1, y1), (x2, y2) = draw(corner), draw(corner)
    if kind == "box":
        area = shapely.box(min(x1, x2), min(y1, y2), max(x1, x2) + 1.3, max(y1, y2) + 1.7)
    elif kind == "triangle":
        area = shapely.Polygon([(x1, y1), (x2, y2 + 0.5), draw(corner)])
    else:
        area = shapely.LineString([(x1, y1), (x2 + 1, y2)]).buffer(0.8)
    area = affinity.translate(area, 0.0073, 0.0041)
    return area if area.is_valid and area.area > 0.1 else shapely.box(1, 1, 9.5, 9.5)


def boxes_of(windows):
    return shapely.box(windows[:, 2], windows[:, 0], windows[:, 3], windows[:, 1])


def check(plan, targets, *, granularity, whole_windows=False):
    """What holds for every plan."""
    units, needs, tiles = plan.units, plan.needs, plan.tiles
    assert (np.diff(needs.unit) >= 0).all()
    sizes = {len(column) for column in needs}
    assert len(sizes) == 1
    # pieces cover a window once, but for blocks that no target touches
    pieces = defaultdict(list)
    for n in range(len(needs.unit)):
        pieces[int(needs.unit[n]), int(needs.band[n]), int(needs.role[n])].append(n)
    for (unit, _, role), numbers in pieces.items():
        window = units.window[unit]
        covered = np.zeros((window[1] - window[0], window[3] - window[2]), int)
        for piece in needs.window[numbers] - np.array([window[0]] * 2 + [window[2]] * 2):
            assert (piece >= 0).all()
            assert piece[1] <= covered.shape[0]
            assert piece[3] <= covered.shape[1]
            assert piece[0] < piece[1]
            assert piece[2] < piece[3]
            covered[piece[0] : piece[1], piece[2] : piece[3]] += 1
        assert covered.max() == 1
        target = int(units.target[unit])
        if target < 0 or whole_windows or granularity is Granularity.TILE:
            assert covered.all()
        elif not covered.all():
            row, col = np.nonzero(covered == 0)
            row, col = row + window[0], col + window[2]
            left_out = shapely.box(col, row, col + 1, row + 1)
            assert not shapely.intersects(targets[target], left_out).any()
        assert role in (DATA, MASK)
    # a piece lies in its block, and the rows of its tile hold it
    table = plan.table
    height = np.array([kind.format.tile_height for kind in table.kinds])[needs.kind]
    width = np.array([kind.format.tile_width for kind in table.kinds])[needs.kind]
    top, left = needs.tile_row * height, needs.tile_col * width
    assert (needs.window[:, 0] >= top).all()
    assert (needs.window[:, 1] <= top + height).all()
    assert (needs.window[:, 2] >= left).all()
    assert (needs.window[:, 3] <= left + width).all()
    stored = needs.tile >= 0
    at = needs.tile[stored]
    assert (tiles.first_row[at] <= needs.window[stored, 0] - top[stored]).all()
    assert (tiles.stop_row[at] >= needs.window[stored, 1] - top[stored]).all()
    assert (tiles.stop_row <= tiles.rows).all()
    # each tile once, and only tiles that are needed
    assert np.array_equal(np.unique(at), np.arange(len(tiles.file)))
    places = list(
        zip(tiles.file.tolist(), tiles.byte_offset.tolist(), tiles.part.tolist(), strict=True)
    )
    assert len(set(places)) == len(places)
    # ranges lie in their block and hold the rows of uncompressed ones
    assert (tiles.fetch_start >= tiles.byte_offset).all()
    assert (tiles.fetch_stop <= tiles.byte_offset + tiles.byte_count).all()
    assert (tiles.fetch_start < tiles.fetch_stop).all()
    check_requests(tiles.file, tiles.fetch_start, tiles.fetch_stop, tiles.request)


def check_requests(file, start, stop, request):
    """Numbers without holes, of one file each, in order; nothing far apart in one."""
    if not len(file):
        return
    assert request[0] == 0
    assert set(np.diff(request).tolist()) <= {0, 1}
    for number in range(int(request[-1]) + 1):
        own = np.flatnonzero(request == number)
        assert len(set(file[own].tolist())) == 1
        end = stop[own[0]]
        for one in own[1:]:
            assert start[one] <= end + assembly._GAP_BYTES
            end = max(end, stop[one])


@quick
@given(
    made=scenes(),
    targets=st.one_of(st.none(), st.lists(areas(), min_size=1, max_size=6)),
    granularity=st.sampled_from(list(Granularity)),
    masked=st.booleans(),
    whole_windows=st.booleans(),
    at_once=st.sampled_from([1, 10, 1 << 14]),
)
def test_plans_are_whole(made, targets, granularity, masked, whole_windows, at_once):
    files, bands = made
    table = table_of(files, bands)
    plans = plans_of(
        table,
        targets,
        granularity,
        masked=masked,
        on_error="null",
        whole_windows=whole_windows,
        at_once=at_once,
        aligned=True,
    )
    seen = set()
    for plan in plans:
        check(plan, targets, granularity=granularity, whole_windows=whole_windows)
        found = zip(
            plan.units.scene.tolist(),
            plan.units.target.tolist(),
            plan.units.band.tolist(),
            map(tuple, plan.units.window.tolist()),
            strict=True,
        )
        for unit in found:
            assert unit not in seen, "a unit came twice"
            seen.add(unit)
    if granularity is Granularity.WINDOW:
        assert {(s, t) for s, t, _, _ in seen} == expected_pairs(files, bands, targets)


def expected_pairs(files, scenes, targets):
    """Scenes and targets whose raster an area covers a part of, by shapely."""
    pairs = set()
    for number, bands in enumerate(scenes):
        height, width = files.values[next(iter(bands.values()))].shape
        raster = shapely.box(0, 0, width, height)
        if targets is None:
            pairs.add((number, -1))
            continue
        for place, area in enumerate(targets):
            if shapely.intersection(area, raster).area > 0:  # a touch covers no pixel
                pairs.add((number, place))
    return pairs


@quick
@given(
    made=scenes(),
    targets=st.lists(areas(), min_size=1, max_size=4),
    at_once=st.sampled_from([1, 1000]),
)
def test_blocks_of_a_window_are_the_window(made, targets, at_once):
    """Units of blocks are disjoint; what they leave out of a window no target touches."""
    files, bands = made
    table = table_of(files, bands)
    windows = plans_of(table, targets, on_error="null")
    blocks = plans_of(table, targets, Granularity.BLOCK, on_error="null", at_once=at_once)
    parts = defaultdict(list)
    for plan in blocks:
        for n in range(len(plan.units.scene)):
            parts[int(plan.units.scene[n]), int(plan.units.target[n])].append(plan.units.window[n])
    for plan in windows:
        for n in range(len(plan.units.scene)):
            key = int(plan.units.scene[n]), int(plan.units.target[n])
            window, own = plan.units.window[n], np.array(parts.pop(key)).reshape(-1, 4)
            whole = shapely.box(window[2], window[0], window[3], window[1])
            union = shapely.union_all(boxes_of(own))
            assert union.area == pytest.approx(shapely.area(boxes_of(own)).sum())
            assert shapely.covers(whole, union)
            left_out = whole - union
            assert (left_out & targets[key[1]]).area < 1e-9
    for (_, target), own in parts.items():  # bounds alone reach in: then no pixel is inside
        for window in own:
            assert not shapely.intersects(targets[target], boxes_of(window[None])[0])


# requests


@st.composite
def ranges(draw):
    """Ranges of files as the planner has them: sorted by file and start."""
    rows = []
    for file in range(draw(st.integers(1, 3))):
        at = 0
        for _ in range(draw(st.integers(1, 30))):
            at += draw(st.sampled_from([0, 0, 3, 16, 17, 5000]))
            size = draw(st.sampled_from([1, 10, 3000, 900_000, 3_000_000]))
            pixels = draw(st.sampled_from([10, 1 << 19, 20 << 20, 40 << 20]))
            rows.append((file, at, at + size, pixels, draw(st.integers(0, 9)) == 0))
            at += size
    return [np.array(column) for column in zip(*rows, strict=True)]


@settings(max_examples=examples(80, 200), deadline=None)
@given(columns=ranges())
def test_every_byte_is_in_one_request(columns):
    file, start, stop, pixels, alone = columns
    numbers = _request_numbers(file, start, stop, pixels, alone)
    assert len(numbers) == len(file)
    check_requests(file, start, stop, numbers)
    for number in range(int(numbers[-1]) + 1):
        own = np.flatnonzero(numbers == number)
        if len(own) > 1:
            assert not alone[own].any()
            largest = (stop - start)[own].max()
            assert stop[own].max() - start[own].min() <= assembly._REQUEST_BYTES + largest + 16
            held = pixels[own].sum()
            assert held <= assembly._REQUEST_PIXEL_BYTES + pixels[own].max()


@settings(max_examples=examples(80, 200), deadline=None)
@given(columns=ranges())
def test_neighbours_share_a_request_while_it_is_short(columns):
    file, start, stop, _, _ = columns
    none = np.zeros(len(file), bool)
    numbers = _request_numbers(file, start, stop, np.ones(len(file), np.int64), none)
    for n in range(len(file) - 1):
        is_near = file[n] == file[n + 1] and start[n + 1] <= stop[n] + assembly._GAP_BYTES
        if not is_near:
            assert numbers[n] != numbers[n + 1]
        first = np.flatnonzero(file == file[n])[0]
        if is_near and stop[n + 1] - start[first] <= assembly._REQUEST_BYTES:
            assert numbers[n] == numbers[n + 1]


def test_nothing_to_fetch_has_no_requests():
    nothing = np.empty(0, np.int64)
    assert len(_request_numbers(nothing, nothing, nothing, nothing, nothing.astype(bool))) == 0


def test_fetched_bytes_are_the_sum_of_the_ranges():
    files = Files()
    files.add("a", np.arange(64 * 64).reshape(64, 64).astype("uint16"), (16, 16))
    (plan,) = plans_of(table_of(files, ["a"]), [shapely.box(3, 3, 20, 20)])
    counts = np.array(files.headers["a"]["tile_byte_counts"]).reshape(4, 4)
    assert plan.fetched_bytes() == counts[:2, :2].sum()


# many areas


def test_ten_thousand_areas_are_one_plan():
    files = Files()
    files.add("a", np.zeros((1000, 1000), "uint8"), (64, 64))
    table = table_of(files, ["a"])
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 990 * PIXEL, (10_000, 2)) * [1, -1]
    targets = shapely.box(
        corner[:, 0], corner[:, 1] - 6 * PIXEL, corner[:, 0] + 8 * PIXEL, corner[:, 1]
    )
    began = time.process_time()
    plans = plans_of(table, targets, crs=crs_of("EPSG:32633"))
    seconds = time.process_time() - began
    target = np.concatenate([plan.units.target for plan in plans])
    windows = np.concatenate([plan.units.window for plan in plans])
    assert np.array_equal(np.sort(target), np.arange(10_000))
    x, y = corner[target, 0] / PIXEL, -corner[target, 1] / PIXEL
    assert np.array_equal(windows[:, 2], np.floor(x))
    assert np.array_equal(windows[:, 0], np.floor(y))
    assert np.array_equal(windows[:, 3], np.minimum(np.ceil(x + 8), 1000))
    assert np.array_equal(windows[:, 1], np.minimum(np.ceil(y + 6), 1000))
    for plan in plans[:2]:
        tiles = plan.tiles
        places = np.column_stack([tiles.file, tiles.byte_offset])
        assert len(np.unique(places, axis=0)) == len(places)
    assert seconds < 5


# what can't be planned


def two_scenes(**more):
    files = Files()
    values = np.zeros((32, 32), "uint8")
    files.add("good", values)
    files.add("bad", values, **more)
    return table_of(files, ["good", "bad"])


@pytest.mark.parametrize(
    ("more", "kind", "text"),
    [
        ({"compression": 9999}, UnsupportedTiffError, "record s1, band b"),
        ({"tile_offsets": None}, CollectionError, "record s1, column b_metadata"),
        ({"tile_width": 0}, CollectionError, "record s1, column b_metadata"),
    ],
)
def test_a_scene_that_cant_be_read_leaves_the_others(more, kind, text):
    files = Files()
    values = np.zeros((32, 32), "uint8")
    for name in ("good", "bad"):
        files.add(name, values)
    files.headers["bad"] |= more
    table = table_of(files, ["good", "bad"])
    with pytest.raises(kind, match=text):
        plans_of(table)
    (plan,) = plans_of(table_of(files, ["good", "bad"]), on_error="null")
    assert plan.units.scene.tolist() == [0]
    (failure,) = plan.failures
    assert (failure.scene, failure.band) == (1, None)
    assert isinstance(failure.error, kind)


def test_a_tile_table_that_is_too_short_is_named():
    files = Files()
    files.add("a", np.zeros((64, 64), "uint8"))
    for name in ("tile_offsets", "tile_byte_counts"):
        files.headers["a"][name] = files.headers["a"][name][:10]
    with pytest.raises(CollectionError, match="a tile table of 16 or more, got 10"):
        plans_of(table_of(files, ["a"]))
    table = table_of(files, ["a"])
    (plan,) = plans_of(table, on_error="null")
    assert len(plan.needs.unit) == 10
    assert isinstance(table.faults[0, "b"], CollectionError)


def test_a_level_that_is_not_there_is_named():
    table = two_scenes()
    with pytest.raises(InputError, match="a level of at most 0, got 2"):
        plans_of(table, level=2)


def test_a_target_without_a_way_to_the_crs_is_an_error_of_the_scene():
    files = Files()
    files.add("a", np.zeros((32, 32), "uint8"))
    table = table_of(files, ["a"], crs=None)
    area = [shapely.box(0, 0, 1, 1)]
    with pytest.raises(InputError, match="record s0: expected a raster with a CRS"):
        plans_of(table, area, crs=crs_of("EPSG:4326"))
    (plan,) = plans_of(table, area, crs=crs_of("EPSG:4326"), on_error="null")
    assert [failure.scene for failure in plan.failures] == [0]


def test_bands_of_unlike_grids_are_refused():
    files = Files()
    files.add("fine", np.zeros((64, 64), "uint8"))
    files.add("coarse", np.zeros((32, 32), "uint8"))
    table = table_of(files, [{"a": "fine", "b": "coarse"}])
    with pytest.raises(InputError, match=r"record s0, band b.*64 x 64 px"):
        plans_of(table)
    plans = plans_of(table, aligned=False)
    assert [plan.units.window.tolist() for plan in plans] == [[[0, 64, 0, 64]]]


def test_only_chosen_scenes_are_planned():
    table = two_scenes()
    table.chosen = np.array([False, True])
    (plan,) = plans_of(table)
    assert plan.units.scene.tolist() == [1]


def test_plans_are_cut_where_they_grow_large():
    files = Files()
    hrefs = [files.add(f"f{n}", np.zeros((64, 64), "uint8")) for n in range(50)]
    plans = plans_of(table_of(files, hrefs), at_once=100)
    assert len(plans) > 5
    scenes = np.concatenate([plan.units.scene for plan in plans])
    assert scenes.tolist() == list(range(50))
    assert max(len(plan.needs.unit) for plan in plans) <= 100 + 16


def test_a_planner_has_bounded_plans_of_one_large_raster():
    files = Files()
    values = np.zeros((800, 800), "uint8")
    files.add("a", values, (16, 16), sparse=range(2500))
    plans = plans_of(table_of(files, ["a"]), None, Granularity.BLOCK, at_once=200)
    assert max(len(plan.units.scene) for plan in plans) <= 4 * 200
    assert sum(len(plan.units.scene) for plan in plans) == 2500
