"""One value per pixel of many scenes, put in one scene at a time.

All but the median are kept as running values, so their memory does not grow with the number
of scenes. A median needs the values of all scenes; they are sorted in their own type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.units import Window

METHODS = ("median", "mean", "min", "max", "first", "last", "count")

_CHUNK_BYTES = 512 * 1024
"""Of the pixels that are sorted at once: they stay in the cache of a core."""


class Combined:
    """One value per pixel of many scenes.

    Median and mean are float64, counts int32, the others of the type of the values.

    Args:
        method: One of `METHODS`.
        dtype: Of the values.
        shape: Rows and columns.
        n_scenes: How many scenes come, at most.

    Example:
        >>> scenes = [(4, True), (1, False), (9, True)]
        >>> found = {}
        >>> for method in ("median", "mean", "first", "count"):
        ...     one = Combined(method, np.dtype("uint8"), (1, 1), len(scenes))
        ...     for value, is_used in scenes:
        ...         pixels, used = np.array([[value]], np.uint8), np.array([[is_used]])
        ...         one.add(pixels, used, Window(0, 1, 0, 1))
        ...     found[method] = one.result()[0].item()
        >>> found
        {'median': 6.5, 'mean': 6.5, 'first': 4, 'count': 2}
    """

    def __init__(
        self, method: str, dtype: np.dtype[Any], shape: tuple[int, int], n_scenes: int
    ) -> None:
        self._method = method
        self._dtype = dtype
        self._count = np.zeros(shape, np.int32)
        self._stack: Pixels | None = None
        self._n_added = 0
        if method == "median":
            self._fill = np.inf if dtype.kind == "f" else np.iinfo(dtype).max
            self._stack = np.empty((n_scenes, *shape), dtype)
        elif method == "mean":
            self._value: Pixels = np.zeros(shape, np.float64)
        elif method != "count":
            self._value = np.zeros(shape, dtype)

    @staticmethod
    def bytes_per_pixel(method: str, dtype: np.dtype[Any], n_scenes: int) -> int:
        """What a pixel takes."""
        own = {"median": n_scenes * dtype.itemsize + 16, "mean": 8, "count": 0}
        return 4 + own.get(method, dtype.itemsize)

    def add(self, values: Pixels, used: Mask, window: Window) -> None:
        """Put a scene in; scenes come in order of time.

        Args:
            values: Shape (rows, columns) of the window.
            used: Which of them count, same shape.
            window: Where they lie.
        """
        at = slice(window.row_start, window.row_stop), slice(window.col_start, window.col_stop)
        count = self._count[at]
        if self._stack is not None:
            layer = self._stack[self._n_added]
            if values.shape != layer.shape:
                layer.fill(self._fill)
            layer[at] = np.where(used, values, self._dtype.type(self._fill))
            self._n_added += 1
        elif self._method == "mean":
            np.add(self._value[at], values, out=self._value[at], where=used)
        elif self._method != "count":
            np.copyto(self._value[at], values, where=self._is_better(values, used, at))
        count += used

    def _is_better(self, values: Pixels, used: Mask, at: tuple[slice, slice]) -> Mask:
        if self._method == "last":
            return used
        better: Mask = self._count[at] == 0
        if self._method == "min":
            better |= values < self._value[at]
        elif self._method == "max":
            better |= values > self._value[at]
        return used & better

    def result(self) -> tuple[Pixels, Mask]:
        """Values, shape (rows, columns), 0 where there are none, and where there are any."""
        there = self._count > 0
        if self._method == "count":
            return self._count, np.ones(there.shape, bool)
        if self._method == "mean":
            return np.divide(self._value, self._count, out=self._value, where=there), there
        if self._stack is not None:
            return self._median(self._stack[: self._n_added]), there
        return self._value, there

    def _median(self, stack: Pixels) -> Pixels:
        n_scenes = len(stack)
        pixels, counts = stack.reshape(n_scenes, -1), self._count.ravel()
        found = np.zeros(len(counts))
        step = max(64, _CHUNK_BYTES // max(1, n_scenes * self._dtype.itemsize))
        for start in range(0, len(counts) if n_scenes else 0, step):
            some = np.ascontiguousarray(pixels[:, start : start + step])
            sort_scenes(some)
            count = counts[start : start + step]
            low = np.take_along_axis(some, (np.maximum(count - 1, 0) // 2)[np.newaxis], 0)[0]
            high = np.take_along_axis(some, np.minimum(count // 2, n_scenes - 1)[np.newaxis], 0)[0]
            middle = (low.astype(np.float64) + high) / 2
            found[start : start + step] = np.where(count > 0, middle, 0.0)
        return found.reshape(self._count.shape)


def sort_scenes(values: NDArray[Any]) -> None:
    """Sort along the first axis, in place; whole rows are compared at once.

    A network of comparisons that depends on the number of rows alone: about n log2(n)^2 / 4
    of them, each over all columns. For columns of the cache's size it is many times faster
    than sorting each column. Without NaN.

    Source: Batcher's merge exchange, Knuth, The Art of Computer Programming 3, 5.2.2, M.

    Example:
        >>> values = np.array([[3, 1], [2, 9], [1, 4]])
        >>> sort_scenes(values)
        >>> values.tolist()
        [[1, 1], [2, 4], [3, 9]]
    """
    n = len(values)
    if n < 2:
        return
    top = 1 << (n - 1).bit_length() - 1
    least = np.empty_like(values[: n // 2 + 1])
    run = top
    while run:
        stride, offset, distance = top, 0, run
        while True:
            _exchange(values, least, run, offset, distance)
            if stride == run:
                break
            distance, stride, offset = stride - run, stride // 2, run
        run //= 2


def _exchange(
    values: NDArray[Any], least: NDArray[Any], run: int, offset: int, distance: int
) -> None:
    """Exchange rows i and i + distance where they are out of order, for i & run == offset."""
    n, width = values.shape
    last = n - distance  # rows i below it
    whole = max(0, (last - offset) // (2 * run)) if last > offset else 0
    if whole and offset + whole * 2 * run + distance > n:
        whole -= 1
    start = offset
    if whole:
        low, high = (
            values[at : at + whole * 2 * run].reshape(whole, 2 * run, width)[:, :run]
            for at in (offset, offset + distance)
        )
        _order(low, high, least[: whole * run].reshape(whole, run, width))
        start += whole * 2 * run
    while start < last:
        stop = min(start + run, last)
        _order(
            values[start:stop], values[start + distance : stop + distance], least[: stop - start]
        )
        start += 2 * run


def _order(low: NDArray[Any], high: NDArray[Any], least: NDArray[Any]) -> None:
    np.minimum(low, high, out=least)
    np.maximum(low, high, out=high)
    low[...] = least
