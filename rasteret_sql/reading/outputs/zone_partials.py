"""What groups of pieces gave, and what was gathered of the zones of a plan so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rasteret_sql.grid.zonal import ZonalStatistics
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.zone_plans import ZonePlan


@dataclass(eq=False)
class Layout:
    """How the units of a plan are put together.

    A *pair* is a zone in a group of bands of a scene. A plan has those of its units, those that
    it completes, and those that plans before left open.

    Attributes:
        scene: Of each pair, which are in the order of scene, group and target.
        group: Likewise.
        target: Likewise.
        grid: Likewise.
        window: Around the units of each pair so far, (n, 4).
        last: Last unit of each pair; -1 where the plan has none.
        is_open: Whether units of the pair may follow in later plans.
        carried: Numbers of the pairs that the plan before left open, in its order.
        pair: Number of the pair of each unit.
        piece: Number of the piece of each unit.
        dtypes: Of the values of each band.
    """

    scene: Ints
    group: Ints
    target: Ints
    grid: Ints
    window: Ints
    last: Ints
    is_open: Mask
    carried: Ints
    pair: Ints
    piece: Ints
    dtypes: list[np.dtype[Any]]

    @classmethod
    def of(
        cls, plan: ZonePlan, before: Layout | None, piece: Ints, dtypes: list[np.dtype[Any]]
    ) -> Layout:
        """Lay out a plan.

        Args:
            plan: It has units.
            before: The layout of the plan before, of the same table.
            piece: Number of the piece of each unit.
            dtypes: Of the values of each band.
        """
        names = [np.stack([plan.units.scene, plan.group, plan.units.target])]
        left = np.zeros(0, np.int64)
        if before is not None:
            left = np.flatnonzero(before.is_open)
            names.append(np.stack([before.scene, before.group, before.target])[:, left])
        complete = names[0] if plan.complete is None else plan.complete
        every = np.concatenate([*names, complete], axis=1)
        _, n_groups, n_targets = (every.max(axis=1) + 2).tolist()
        keys = (every[0] * n_groups + every[1]) * n_targets + every[2] + 1
        keys, done = np.split(keys, [len(keys) - complete.shape[1]])
        distinct, first, number = np.unique(keys, return_index=True, return_inverse=True)
        is_open = ~np.isin(distinct, done)
        pair, carried = np.split(number.reshape(-1), [len(piece)])
        n_pairs = len(first)
        grid, window = np.zeros(n_pairs, np.int64), np.zeros((n_pairs, 4), np.int64)
        window[:, ::2] = np.iinfo(np.int64).max
        if before is not None:
            grid[carried], window[carried] = before.grid[left], before.window[left]
        grid[pair] = plan.units.grid
        for column, widen in enumerate((np.minimum, np.maximum) * 2):
            widen.at(window[:, column], pair, plan.units.window[:, column])
        last = np.full(n_pairs, -1, np.int64)
        last[pair] = np.arange(len(pair))
        scene, group, target = every[:, first]
        return cls(
            scene, group, target, grid, window, last, is_open, carried, pair, piece, dtypes
        )  # fmt: skip


@dataclass(eq=False)
class Partial:
    """What a group of units gave.

    Attributes:
        pairs: Numbers of its pairs in the layout of the plan, ascending.
        pixels: Pixels of each.
        stats: Of each band.
        areas: Square metres with data of each band, where they are asked for.
        errors: By pair of the plan and band.
    """

    plan: ZonePlan
    stop: int
    pairs: Ints
    pixels: Ints
    stats: list[ZonalStatistics]
    areas: list[ZonalStatistics]
    errors: dict[tuple[int, int], str] = field(default_factory=dict)


@dataclass(eq=False)
class Merged:
    """What was gathered of the zones of a plan.

    Attributes:
        is_done: Which pairs have their rows.
    """

    plan: ZonePlan
    layout: Layout
    stats: list[ZonalStatistics]
    areas: list[ZonalStatistics]
    pixels: Ints
    is_done: Mask
    errors: dict[tuple[int, int], str]

    @classmethod
    def after(cls, before: Merged | None, plan: ZonePlan, layout: Layout, like: Partial) -> Merged:
        """The state at the begin of a plan: zones that the plan before left open go on."""
        n_pairs = len(layout.last)
        state = cls(
            plan,
            layout,
            [ZonalStatistics(n_pairs, one.stats, one.dtype) for one in like.stats],
            [ZonalStatistics(n_pairs, one.stats, one.dtype) for one in like.areas],
            np.zeros(n_pairs, np.int64),
            np.zeros(n_pairs, bool),
            {},
        )
        if before is None or before.plan.table is not plan.table:
            return state
        left, here = np.flatnonzero(before.layout.is_open), layout.carried
        if not len(left):  # the values of other scenes may be of another type
            return state
        for mine, theirs in ((state.stats, before.stats), (state.areas, before.areas)):
            for own, other in zip(mine, theirs, strict=True):
                own.merge(other.pop(left), here)
        state.pixels[here] = before.pixels[left]
        if before.errors:
            moved = dict(zip(left.tolist(), here.tolist(), strict=True))
            state.errors = {
                (moved[pair], band): error
                for (pair, band), error in before.errors.items()
                if pair in moved
            }
        return state

    def add(self, partial: Partial) -> None:
        """Add what a group gave."""
        for mine, theirs in ((self.stats, partial.stats), (self.areas, partial.areas)):
            for own, other in zip(mine, theirs, strict=True):
                own.merge(other, partial.pairs)
        self.pixels[partial.pairs] += partial.pixels
        for key, error in partial.errors.items():
            self.errors.setdefault(key, error)
