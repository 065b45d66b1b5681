"""Parts of scenes: every pixel of every window once, tiles whole, a bounded number at a time."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from rasteret_sql.reading.block_columns import KindColumns
from rasteret_sql.reading.plan import Jobs
from rasteret_sql.reading.zone_parts import Tiling, parts_of, steps_of
from rasteret_sql.tiff.layout import BlockFormat

pytestmark = pytest.mark.any_duckdb


def kinds_of(*sizes):
    formats = [BlockFormat(1, 1, 1, "uint8", "little", 8, 1, width, tall) for tall, width in sizes]
    return KindColumns.of([SimpleNamespace(format=one) for one in formats])


@st.composite
def scenes(draw):
    """Windows on one or two grids of a scene, and how these lie in tiles."""
    sizes, tiles = [], []
    for _ in range(draw(st.integers(1, 2))):
        sizes.append((draw(st.integers(20, 90)), draw(st.integers(20, 90))))
        tiles.append((draw(st.integers(4, 40)), draw(st.integers(4, 40))))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    n = draw(st.integers(1, 120))
    grid = rng.integers(0, len(sizes), n)
    height, width = np.array(sizes)[grid].T
    window = np.empty((n, 4), np.int64)
    for axis, size in enumerate((height, width)):
        first = rng.integers(0, size)
        window[:, 2 * axis] = first
        window[:, 2 * axis + 1] = np.minimum(
            first + rng.integers(1, draw(st.integers(2, 60)), n), size
        )
    return sizes, tiles, Jobs(np.zeros(n, np.int64), np.arange(n), grid, window, np.ones(n, bool))


@settings(max_examples=examples(60, 150), deadline=None)
@given(scene=scenes(), at_once=st.sampled_from([1, 5, 40, 1000]))
def test_parts_hold_each_pixel_of_each_window_once_and_no_half_tiles(scene, at_once):
    sizes, tiles, jobs = scene
    kinds = kinds_of(*tiles)
    tilings = {
        number: (Tiling(high, tall, tall), Tiling(wide, across, across))
        for number, ((high, wide), (tall, across)) in enumerate(zip(sizes, tiles, strict=True))
    }
    left = [np.ones((b - a, d - c), int) for a, b, c, d in jobs.window.tolist()]
    complete: set[int] = set()
    read_in: dict[tuple[int, int, int], int] = {}
    for number, part in enumerate(parts_of(jobs, jobs.grid, kinds, tilings, at_once)):
        places = part.at.tolist()
        assert complete.isdisjoint(places)
        assert len(set(places)) == len(places)
        complete |= set(part.at[part.is_last].tolist())
        for at, (top, bottom, first, stop) in zip(places, part.jobs.window.tolist(), strict=True):
            assert top < bottom
            assert first < stop
            row, _, col, _ = jobs.window[at]
            left[at][top - row : bottom - row, first - col : stop - col] -= 1
            grid = int(jobs.grid[at])
            tall, across = tiles[grid]
            rows, cols = (
                range(top // tall, -(-bottom // tall)),
                range(first // across, -(-stop // across)),
            )
            for tile in itertools.product(rows, cols):
                assert read_in.setdefault((grid, *tile), number) == number
    assert all((pixels == 0).all() for pixels in left)
    assert complete == set(range(len(left)))


def test_a_part_holds_about_as_much_as_is_said():
    n = 100_000
    rng = np.random.default_rng(1)
    corner = rng.integers(0, 8000, (n, 2))
    window = np.column_stack([corner[:, 0], corner[:, 0] + 10, corner[:, 1], corner[:, 1] + 10])
    jobs = Jobs(
        *np.zeros((1, n), np.int64), np.arange(n), np.zeros(n, np.int64), window, np.ones(n, bool)
    )
    tiling = Tiling(8192, 512, 512)
    found = list(parts_of(jobs, jobs.grid, kinds_of((512, 512)), {0: (tiling, tiling)}, 1 << 14))
    assert 6 <= len(found) <= 16
    assert max(len(part.at) for part in found) < 1.2 * (1 << 14)
    low = window[:, 0] % 500
    crowded = jobs._replace(window=np.column_stack([low, low + 9, window[:, 2:]]))
    found = list(parts_of(crowded, jobs.grid, kinds_of((512, 512)), {0: (tiling, tiling)}, 1 << 14))
    assert max(len(part.at) for part in found) < 1.2 * (1 << 14)  # one row of tiles: by columns


def test_steps_of_many_rows_are_bounded():
    assert steps_of([Tiling(1 << 40, 1, 1)]) == (1 << 14, 2**-14)
    assert steps_of([Tiling(10, 512, 512)]) == (1, 1.0)
