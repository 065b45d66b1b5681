"""Values of bands at points: their own pixels, those around them, and the nearest with data.

Source: ``rasterio.sample`` (row and column are the floor of the inverse transform: the top
and left edge of a pixel are inside, the right and bottom one outside).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.patches import Patch, pixels_of, valid_pixels
from rasteret_sql.reading.point_plans import PointPlan
from rasteret_sql.reading.points import AnyInts, Floats
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.tile_store import Pixels
from rasteret_sql.units import Window

Match = Literal["all", "latest", "nearest"]
Neighbourhood = Literal["off", "always", "if_center_nodata"]


@dataclass(frozen=True)
class PointOptions:
    """How points are sampled.

    Attributes:
        match: Every record that holds a point, the latest at or before its time, or the one
            nearest in time.
        max_dt: Microseconds between a point's time and that of its record, at most.
        time_column: Column of the points with their time.
        reach: Pixels around a point that are searched where its own holds no data.
        neighbourhood: Which points get the values around them as a list.
        mask_band: Band that says where a record is not to be used.
        mask_values: Its values that say so; no data does too.
    """

    match: Match = "all"
    max_dt: int | None = None
    time_column: str | None = None
    reach: int = 0
    neighbourhood: Neighbourhood = "off"
    mask_band: str | None = None
    mask_values: tuple[float, ...] = ()


class Sampled(NamedTuple):
    """A band at the points of a unit.

    Attributes:
        values: One each; what stands where there is none does not count.
        null: Where there is none.
        distance: Pixels from the point to where the value comes from; NaN without one.
        around: All pixels around, (points that have a list, side * side), which of them hold
            data, and which points have a list.
    """

    values: Pixels
    null: Mask
    distance: Floats | None = None
    around: tuple[Pixels, Mask, Mask] | None = None


def sampled(
    plan: PointPlan, unit: int, name: str, patch: Patch, options: PointOptions, *, masked: bool
) -> Sampled | None:
    """A band at the points of a unit; None where it can't be read or is not there."""
    if patch.kind is None or patch.error is not None:
        return None
    at = slice(int(plan.first_point[unit]), int(plan.first_point[unit + 1]))
    places = plan.places[name]
    row, col = places.row[at], places.col[at]
    inside = row >= 0
    if not inside.any():
        return None
    grid = plan.table.grids[int(places.grid[unit])]
    reach = options.reach
    window = Window(
        max(int(row[inside].min()) - reach, 0),
        min(int(row[inside].max()) + reach + 1, grid.height),
        max(int(col[inside].min()) - reach, 0),
        min(int(col[inside].max()) + reach + 1, grid.width),
    )
    patch = replace(patch, window=window)
    pixels = pixels_of(patch)
    valid = valid_pixels(patch, pixels) if masked else None
    row, col = row - window.row_start, col - window.col_start
    own = np.where(inside, row, 0), np.where(inside, col, 0)
    values = pixels[own]
    null = ~inside if valid is None else ~(inside & valid[own])
    if not reach:
        return Sampled(values, null)
    assert places.x is not None and places.y is not None  # noqa: S101, PT018 (the planner reaches)
    around = _Around(
        pixels, valid, row, col, inside,
        places.y[at] - window.row_start, places.x[at] - window.col_start,
    )  # fmt: skip
    return around.searched(values, null, grid, options)


class _Around(NamedTuple):
    """Pixels around the points of a unit, in one array."""

    pixels: Pixels
    valid: Mask | None
    row: AnyInts
    col: AnyInts
    inside: Mask
    y: Floats
    x: Floats

    def searched(self, values: Pixels, null: Mask, grid: Grid, options: PointOptions) -> Sampled:
        """Values of the nearest pixels with data where a point's own has none.

        Square rings from the inside out: of the first that has data, the pixel whose
        rectangle is nearest to the point; of equal ones the first of top row, bottom row,
        left column and right column.
        """
        values, null, missing = values.copy(), null.copy(), null.copy()
        if values.dtype.kind in "fc":
            missing |= np.isnan(values)
        was_missing, distance = missing.copy(), np.where(missing, np.nan, 0.0)
        missing &= self.inside
        scale = _pixel_size(grid)
        for ring in range(1, options.reach + 1):
            left = np.flatnonzero(missing)
            if not len(left):
                break
            down, across = _ring(ring)
            found, is_valid = self.taken(left, down, across)
            rows, cols = self.row[left, None] + down, self.col[left, None] + across
            dy = np.maximum(np.maximum(rows - self.y[left, None], self.y[left, None] - rows - 1), 0)
            dx = np.maximum(np.maximum(cols - self.x[left, None], self.x[left, None] - cols - 1), 0)
            true = np.where(is_valid, np.hypot(dx * scale[0], dy * scale[1]), np.inf)
            best = true.argmin(axis=1)
            each = np.arange(len(left))
            has = is_valid[each, best]
            at = left[has]
            each, best = each[has], best[has]
            values[at] = found[each, best]
            distance[at] = np.hypot(dx[each, best], dy[each, best])
            missing[at] = False
            null[at] = False
        if options.neighbourhood == "off":
            return Sampled(values, null, distance)
        side = np.arange(-options.reach, options.reach + 1)
        down, across = (part.ravel() for part in np.meshgrid(side, side, indexing="ij"))
        has = self.inside & (was_missing | (options.neighbourhood == "always"))
        listed = self.taken(np.flatnonzero(has), down, across, hide_nan=False)
        return Sampled(values, null, distance, (*listed, has))

    def taken(
        self, chosen: Ints, down: Ints, across: Ints, *, hide_nan: bool = True
    ) -> tuple[Pixels, Mask]:
        """Pixels at steps from some points, (points, steps), and which of them hold data."""
        rows, cols = self.row[chosen, None] + down, self.col[chosen, None] + across
        height, width = self.pixels.shape
        there = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        rows, cols = np.where(there, rows, 0), np.where(there, cols, 0)
        found = self.pixels[rows, cols]
        if self.valid is not None:
            there &= self.valid[rows, cols]
        if hide_nan and found.dtype.kind in "fc":
            there &= ~np.isnan(found)
        return found, there


def _ring(ring: int) -> tuple[Ints, Ints]:
    """Steps to the pixels of a square ring: top row, bottom row, left column, right column."""
    along, between = np.arange(-ring, ring + 1), np.arange(-ring + 1, ring)
    down = [np.full(len(along), -ring), np.full(len(along), ring), between, between]
    across = [along, along, np.full(len(between), -ring), np.full(len(between), ring)]
    return np.concatenate(down), np.concatenate(across)


def _pixel_size(grid: Grid) -> tuple[float, float]:
    """Width and height of a pixel."""
    affine = grid.affine
    if affine is None:
        return 1.0, 1.0
    return float(np.hypot(affine.a, affine.d)), float(np.hypot(affine.b, affine.e))


def clear_points(plan: PointPlan, unit: int, patch: Patch, options: PointOptions, n: int) -> Mask:
    """Which points of a unit the mask band lets through; none where it can't be read."""
    assert options.mask_band is not None  # noqa: S101 (its callers)
    plain = replace(options, reach=0, neighbourhood="off")
    one = sampled(plan, unit, options.mask_band, patch, plain, masked=True)
    if one is None:
        return np.zeros(n, bool)
    return ~(one.null | np.isin(one.values, options.mask_values))
