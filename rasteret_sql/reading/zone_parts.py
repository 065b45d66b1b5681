"""Parts of scenes that are planned one after the other: runs of rows of tiles, or of columns.

Memory is bounded by the zones of a part, whatever their number in the scene. Parts end where
tiles end, of all bands that are read, so that no tile is fetched for two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.reading.block_columns import KindColumns
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.plan import Jobs

_MOST_STEPS = 1 << 14
_ROUNDING = 1e-6
"""Pixels: a place that should lie on a tile's edge may lie so far before it."""


class Part(NamedTuple):
    """Windows of one part of a scene.

    Attributes:
        jobs: The windows, as far as they lie in the part.
        at: Number of each among the windows of the scene.
        is_last: Whether no later part has more of the window.
    """

    jobs: Jobs
    at: Ints
    is_last: Mask


class Tiling(NamedTuple):
    """The blocks of a grid, on one axis.

    Attributes:
        size: Pixels of the grid.
        tile: Pixels of a block.
        piece: Pixels of what is decoded at once, from the begin of a block.
    """

    size: int
    tile: int
    piece: int

    def edges(self, n_steps: int, step: float) -> Ints:
        """Pixels where steps begin that are a share of the grid long, and the end of all.

        Example:
            >>> Tiling(1000, 300, 300).edges(2, 0.512)
            array([   0,  300, 1000])
        """
        place = np.floor(np.arange(n_steps) * step * self.size + _ROUNDING).astype(np.int64)
        first = place - place % self.tile
        return np.append(first + (place - first) // self.piece * self.piece, self.size)


def steps_of(tilings: Sequence[Tiling]) -> tuple[int, float]:
    """How many steps an axis has that hold a piece of each grid, and the share each is of it.

    Example:
        >>> steps_of([Tiling(1000, 250, 250), Tiling(500, 250, 250)])
        (2, 0.5)
    """
    step = min(1.0, max(1 / _MOST_STEPS, *(one.piece / one.size for one in tilings)))
    return max(1, int(np.ceil(1 / step - _ROUNDING))), step


def parts_of(
    jobs: Jobs,
    kind: Ints,
    kinds: KindColumns,
    tilings: dict[int, tuple[Tiling, Tiling]],
    at_once: int,
) -> Iterator[Part]:
    """Cut the windows of a scene into parts.

    Args:
        jobs: All windows of a scene.
        kind: Of the blocks of each.
        kinds: What of them is needed.
        tilings: Rows and columns of all grids of the scene whose tiles are not to be cut.
        at_once: Blocks under windows, about, in a part.
    """
    n_rows, row_step = steps_of([rows for rows, _ in tilings.values()])
    n_cols, col_step = steps_of([cols for _, cols in tilings.values()])
    bounds = np.zeros((len(kind), 4), np.int64)  # first and last step down, and across
    edges = {}
    for grid in np.unique(jobs.grid).tolist():
        rows, cols = tilings[grid]
        edges[grid] = rows.edges(n_rows, row_step), cols.edges(n_cols, col_step)
        own = np.flatnonzero(jobs.grid == grid)
        for axis, axis_edges in enumerate(edges[grid]):
            first, stop = jobs.window[own, 2 * axis], jobs.window[own, 2 * axis + 1]
            bounds[own, 2 * axis] = np.searchsorted(axis_edges, first, side="right") - 1
            bounds[own, 2 * axis + 1] = np.searchsorted(axis_edges, stop - 1, side="right") - 1
    n_blocks = kinds.count(kind, jobs.window, is_delivery=True)
    top, bottom, left, right = bounds.T
    share = n_blocks / (bottom - top + 1)
    for first, stop, at in _runs(share, top, bottom, n_rows, at_once):
        across = iter([(0, n_cols, np.arange(len(at)))])
        if stop - first == 1 and share[at].sum() > 2 * at_once:
            of_cell = share[at] / (right - left + 1)[at]
            across = _runs(of_cell, left[at], right[at], n_cols, at_once)
        for begin, end, some in across:
            own = at[some]
            window = jobs.window[own].copy()
            for grid, (down, along) in edges.items():
                low = np.array([down[first], 0, along[begin], 0])
                high = np.array([0, down[stop], 0, along[end]])
                on = jobs.grid[own] == grid
                window[on, ::2] = np.maximum(window[on, ::2], low[::2])
                window[on, 1::2] = np.minimum(window[on, 1::2], high[1::2])
            is_last = (bottom[own] < stop) & (right[own] < end)
            yield Part(jobs.take(own)._replace(window=window), own, is_last)


def _runs(
    weight: NDArray[np.float64], first: Ints, last: Ints, n_steps: int, enough: int
) -> Iterator[tuple[int, int, Ints]]:
    """Runs of steps that hold so much weight, or one step, and the windows that meet each.

    Args:
        weight: Of each window, in each of its steps.
        first: First step of each.
        last: Last step of each.
        n_steps: Of the axis.
        enough: Weight of a run.
    """
    change = np.bincount(first, weight, n_steps + 1) - np.bincount(last + 1, weight, n_steps + 1)
    n_windows = np.bincount(first, minlength=n_steps + 1)
    n_windows = np.cumsum(n_windows - np.bincount(last + 1, minlength=n_steps + 1))
    edges, total = [0], 0.0
    for step, more in enumerate(np.cumsum(change)[:n_steps].tolist()):
        if total > 0 and total + more > enough:
            edges.append(step)
            total = 0.0
        if n_windows[step]:
            total += more
    order = np.argsort(first, kind="stable")
    places = np.searchsorted(first[order], [*edges, n_steps])
    met = order[:0]
    for run, (begin, end) in enumerate(itertools.pairwise([*edges, n_steps])):
        met = np.sort(np.concatenate([met, order[places[run] : places[run + 1]]]))
        if len(met):
            yield begin, end, met
        met = met[last[met] >= end]
