"""Windows of targets: which a target really touches, and the squares of a lattice over them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import InputError
from rasteret_sql.reading.block_columns import spread
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.plan import Jobs, Lattice
from rasteret_sql.reading.scenes import SceneTable

_MOST_SQUARES = 1 << 20
_BORDER = 2e-6
"""Pixels: a target that reaches less far into a square only borders on it."""


def touched(
    footprints: Footprints,
    table: SceneTable,
    grid: Ints,
    target: Ints,
    boxes: NDArray[np.float64],
) -> Mask:
    """Which boxes, xmin, ymin, xmax, ymax in pixels of a grid, a target touches."""
    keep = np.ones(len(grid), bool)
    for number in np.unique(grid).tolist():
        at = np.flatnonzero(grid == number)
        keep[at] = footprints.each_touched(table.grids[number], target[at], boxes[at])
    return keep


def sizes_of(table: SceneTable) -> Ints:
    """Width and height of each grid."""
    return np.array([(g.width, g.height) for g in table.grids] or [(1, 1)], np.int64)


def without_untouched(footprints: Footprints, table: SceneTable, jobs: Jobs, *, crop: bool) -> Jobs:
    """Without targets whose bounds alone reach into a raster; whole rasters if not cropped."""
    sizes = sizes_of(table)[jobs.grid]
    window = jobs.window
    at_border = (window[:, [0, 2]] == 0).any(axis=1)
    at_border |= (window[:, 1] == sizes[:, 1]) | (window[:, 3] == sizes[:, 0])
    check = np.flatnonzero(at_border & ~jobs.is_whole & (jobs.target >= 0))
    keep = np.ones(len(jobs.scene), bool)
    boxes = window[check][:, [2, 0, 3, 1]].astype(np.float64)
    keep[check] = touched(footprints, table, jobs.grid[check], jobs.target[check], boxes)
    if not crop:
        whole = np.column_stack([0 * sizes[:, 1], sizes[:, 1], 0 * sizes[:, 0], sizes[:, 0]])
        jobs = jobs._replace(window=whole, is_whole=jobs.target < 0)
    return jobs if keep.all() else jobs.take(keep)


def squares_met(
    footprints: Footprints, table: SceneTable, jobs: Jobs, lattice: Lattice, origins: Ints
) -> Jobs:
    """The squares that targets meet and that lie in the raster; of a scene, row by row."""
    size, stride = lattice
    sizes, window = sizes_of(table)[jobs.grid], jobs.window
    origin = origins[jobs.grid]
    first, count = [], []
    for low, high, length in (
        (window[:, 0] - origin[:, 0], window[:, 1] - origin[:, 0], sizes[:, 1] - origin[:, 0]),
        (window[:, 2] - origin[:, 1], window[:, 3] - origin[:, 1], sizes[:, 0] - origin[:, 1]),
    ):
        begin = np.maximum((low - size) // stride + 1, 0)
        end = np.minimum((high - 1) // stride, (length - size) // stride)
        first.append(begin)
        count.append(np.maximum(end - begin + 1, 0))
    n_squares = count[0] * count[1]
    if len(n_squares) and n_squares.max() > _MOST_SQUARES:
        raise InputError.expected(
            "stride",
            f"at most {_MOST_SQUARES} squares of a record",
            int(n_squares.max()),
            "take a longer stride, or a smaller area",
        )
    job, place = spread(np.zeros(len(n_squares), np.int64), n_squares)
    top = (first[0][job] + place // count[1][job]) * stride + origin[job, 0]
    left = (first[1][job] + place % count[1][job]) * stride + origin[job, 1]
    squares = np.column_stack([top, top + size, left, left + size])
    check = np.flatnonzero((~jobs.is_whole & (jobs.target >= 0))[job])
    keep = np.ones(len(job), bool)
    inner = squares[check][:, [2, 0, 3, 1]] + [_BORDER, _BORDER, -_BORDER, -_BORDER]
    keep[check] = touched(footprints, table, jobs.grid[job[check]], jobs.target[job[check]], inner)
    jobs = jobs.take(job[keep])._replace(
        window=squares[keep], is_whole=np.ones(int(keep.sum()), bool)
    )
    order = np.lexsort((jobs.target, jobs.window[:, 2], jobs.window[:, 0], jobs.scene))
    return jobs.take(order)
