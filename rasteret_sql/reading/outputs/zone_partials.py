"""What groups of pieces gave, and what was gathered of the zones of a plan so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rasteret_sql.grid.zonal import ZonalStatistics
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.scenes import Ints
from rasteret_sql.reading.zone_plans import ZonePlan


@dataclass(eq=False)
class Layout:
    """How the units of a plan are put together.

    Attributes:
        pair: Number of the scene, group of bands and zone of each unit, in this order.
        piece: Number of the piece of each unit.
        last: Last unit of each pair.
        first: First unit of each pair.
        is_open: Whether units of the pair follow in the next plan.
        dtypes: Of the values of each band.
    """

    pair: Ints
    piece: Ints
    first: Ints
    last: Ints
    is_open: Mask
    dtypes: list[np.dtype[Any]]


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
        left = np.flatnonzero(before.layout.is_open)
        number = {name: n for n, name in enumerate(_pair_names(plan, layout))}
        names = _pair_names(before.plan, before.layout)
        here = np.array([number[names[pair]] for pair in left.tolist()], np.int64)
        for mine, theirs in ((state.stats, before.stats), (state.areas, before.areas)):
            for own, other in zip(mine, theirs, strict=True):
                own.merge(other.pop(left), here)
        state.pixels[here] = before.pixels[left]
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


def _pair_names(plan: ZonePlan, layout: Layout) -> list[tuple[int, int, int]]:
    columns = (plan.units.scene, plan.group, plan.units.target)
    return list(zip(*(column[layout.first].tolist() for column in columns), strict=True))
