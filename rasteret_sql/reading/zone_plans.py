"""Plans of zones: a unit is a tile of the bands of one grid, with a zone.

Bands of a scene that share a grid are read together, as a group. Bands of another grid are a
group of their own, over the pixels of that grid. The groups of a scene lie in one plan, place
by place, so that what they share (the tiles of a mask band) is fetched and decoded once. A
scene with many zones is planned in parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from rasteret_sql.errors import InputError
from rasteret_sql.reading.block_columns import KindColumns
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Footprints, Mask
from rasteret_sql.reading.plan import Asked, Failure, Granularity, Jobs, TilePlan, Usable
from rasteret_sql.reading.planner import Planner, Reading, grid_text, is_same_grid
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.reading.warps import nearest_windows
from rasteret_sql.reading.zone_parts import Tiling, parts_of


@dataclass(frozen=True, eq=False, kw_only=True)
class ZonePlan(TilePlan):
    """A plan whose units are of the bands of one grid.

    Attributes:
        group: Number of the group of each unit.
        groups: By band, number of its group in each scene; -1 where the scene has none.
        complete: Scene, group and target, (3, n), of zones that have no units in later plans;
            None where that is all of the plan's.
    """

    group: Ints
    groups: dict[str, Ints]
    complete: Ints | None = None

    def numbers_of(self, scene: int, group: int, names: Sequence[str]) -> tuple[int, ...]:
        """Numbers of the bands of a group of a scene."""
        return tuple(n for n, name in enumerate(names) if self.groups[name][scene] == group)


class ZonePlanner(Planner):
    """Plans reads of zones.

    Args:
        request: What to read; its bands are those that get rows.
        footprints: Of the zones.
        bands: Of them, those that are wanted.
        weight_band: A band that is needed wherever they are, on any grid.
        mask_band: Another one.
        at_once: Parts of zones in tiles, about, in a plan.
    """

    def __init__(
        self,
        request: ReadRequest,
        footprints: Footprints,
        *,
        bands: Sequence[str],
        weight_band: str | None = None,
        mask_band: str | None = None,
        at_once: int = 1 << 14,
    ) -> None:
        self._own = tuple(bands)
        self._further = [one for one in (weight_band, mask_band) if one is not None]
        fetched = tuple(dict.fromkeys([*bands, *self._further]))
        super().__init__(request, footprints, Granularity.BLOCK, bands=fetched, at_once=at_once)

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """Plan the scenes of a table, some at a time.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        usable = {name: self._usable(table, name) for name in table.bands}
        for name in self.bands:  # numbers the kinds and grids of masks too
            table.bands[name].mask(self.request.level)
        failures = self._failures(table, usable)
        groups = self._groups(table, usable)
        failures += self._without_group(table, usable, groups, failures)
        readings = []
        for number, leader in enumerate(self.request.bands):
            names = [name for name in self._own if (groups[name] == number).any()]
            level = usable[leader].level
            if not names or level is None:
                continue
            wanted = np.any([groups[name] == number for name in names], axis=0)
            grids = np.where(wanted, level.grid, -1)
            pairs, errors = self.footprints.pairs(table.grids, np.unique(grids[grids >= 0]))
            failures += self._failures_of_grids(table, grids, errors, groups, number)
            fetched = list(dict.fromkeys([leader, *names, *self._further]))
            readings.append(Reading.of(leader, fetched, grids, pairs, len(table.grids)))
        for start, stop in self._slices(table, usable, readings):
            own = [one for one in failures if start <= one.scene < stop]
            scenes = np.arange(start, stop)
            yield from self._of_scenes(table, usable, readings, groups, scenes, own)

    def _of_scenes(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        readings: list[Reading],
        groups: dict[str, Ints],
        scenes: Ints,
        failures: list[Failure],
    ) -> Iterator[TilePlan]:
        """Plans of some scenes."""
        parts = [self._jobs(table, one, scenes) for one in readings]
        kinds = [
            self._reference(usable, [one.names[0]], table.n_scenes)[jobs.scene]
            for one, jobs in zip(readings, parts, strict=True)
        ]
        windows, kind = Jobs.none(), np.empty(0, np.int64)
        if len(parts) == 1:
            windows, kind = parts[0], kinds[0]
        elif parts:
            windows = Jobs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
            order = np.argsort(windows.scene, kind="stable")
            windows, kind = windows.take(order), np.concatenate(kinds)[order]
        assembly = self._assembly(table, usable)
        for part, kind_of_part, complete in self._parts(table, usable, readings, windows, kind):
            blocks = assembly.cut(part, kind_of_part)
            yield self._plan(table, usable, readings, groups, blocks, failures, complete)
            failures = []
        if failures:
            yield self._plan(table, usable, readings, groups, Jobs.none(), failures, None)

    def _parts(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        readings: list[Reading],
        windows: Jobs,
        kind: Ints,
    ) -> Iterator[tuple[Jobs, Ints, Ints | None]]:
        """Windows that are planned together, their kinds, and which zones are complete then."""
        kinds = KindColumns.of(table.kinds)
        n_blocks = kinds.count(kind, windows.window, is_delivery=True)
        if n_blocks.sum() <= 2 * self.at_once:
            if len(kind):
                yield windows, kind, None
            return
        group = self._group_of(readings, windows)
        edges = np.flatnonzero(np.diff(windows.scene, prepend=-1, append=-1))
        for start, stop in itertools.pairwise(edges.tolist()):
            own, scene = slice(start, stop), int(windows.scene[start])
            tilings = self._tilings(table, usable, kinds, scene)
            jobs = windows if len(edges) == 2 else windows.take(np.arange(start, stop))
            for part in parts_of(jobs, kind[own], kinds, tilings, self.at_once):
                done = part.at[part.is_last]
                complete = np.stack([jobs.scene[done], group[own][done], jobs.target[done]])
                yield part.jobs, kind[own][part.at], complete

    def _tilings(
        self, table: SceneTable, usable: dict[str, Usable], kinds: KindColumns, scene: int
    ) -> dict[int, tuple[Tiling, Tiling]]:
        """How the bands of a scene lie in blocks: by grid, rows and columns."""
        tilings: dict[int, tuple[Tiling, Tiling]] = {}
        for name in reversed(self.bands):
            level = usable[name].level
            if level is not None and usable[name].is_usable[scene]:
                number, kind = int(level.grid[scene]), int(level.kind[scene])
                height, width = int(kinds.tile_height[kind]), int(kinds.tile_width[kind])
                rows = Tiling(table.grids[number].height, height, int(kinds.part[kind]))
                cols = Tiling(table.grids[number].width, width, width)
                before = tilings.get(number, (rows, cols))
                tilings[number] = max(rows, before[0]), max(cols, before[1])
        return tilings

    def _plan(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        readings: list[Reading],
        groups: dict[str, Ints],
        units: Jobs,
        failures: list[Failure],
        complete: Ints | None,
    ) -> ZonePlan:
        """The plan of units, which are parts of windows in one tile."""
        group = self._group_of(readings, units)
        if len(np.unique(group)) > 1:
            order = self._by_place(table, usable, units, group)
            units, group = units.take(order), group[order]
        asked: list[Asked] = []
        for name in self.bands:
            level = usable[name].level
            if level is None:
                continue
            wanted = np.full(len(group), name in self._further)
            if name in self._own:
                wanted |= groups[name][units.scene] == group
            wanted &= usable[name].is_usable[units.scene]
            asked += self._asked(table, name, units, wanted, level.grid[units.scene])
        made = self.of_jobs(table, usable, units, asked, failures)
        known = {one.name: getattr(made, one.name) for one in fields(TilePlan)}
        return ZonePlan(**known, group=group, groups=groups, complete=complete)

    def _asked(
        self, table: SceneTable, name: str, units: Jobs, wanted: Mask, grid: Ints
    ) -> Iterator[Asked]:
        """What units need of a band: their windows, or those on the band's own grid."""
        same = wanted & _are_same_grids(table, units.grid, grid, wanted)
        if same.all():
            yield Asked(name, units)
            return
        at = np.flatnonzero(same)
        yield Asked(name, units.take(at), at)
        at = np.flatnonzero(wanted & ~same)
        if not len(at):
            return
        places = np.column_stack([units.grid[at], grid[at]])
        distinct, of = np.unique(places, axis=0, return_inverse=True)
        needed = np.zeros((len(at), 4), np.int64)
        for number, (target, source) in enumerate(distinct.tolist()):
            own = np.flatnonzero(of.reshape(-1) == number)
            for one in (target, source):
                if table.grids[one].affine is None or table.grids[one].crs is None:
                    raise InputError.expected(
                        f"record {table.id_of(int(units.scene[at[own[0]]]))}, band {name}",
                        "rasters with a transform and a CRS, or of one grid",
                        grid_text(table.grids[source]),
                        "leave the band out",
                    )
            needed[own] = nearest_windows(
                table.grids[target], units.window[at[own]], table.grids[source]
            )
        some = (needed[:, 0] < needed[:, 1]) & (needed[:, 2] < needed[:, 3])
        at = at[some]
        nothing, every = np.full(len(at), -1, np.int64), np.ones(len(at), bool)
        yield Asked(name, Jobs(units.scene[at], nothing, grid[at], needed[some], every), at)

    def _groups(self, table: SceneTable, usable: dict[str, Usable]) -> dict[str, Ints]:
        """By band, number of the first band on its grid in each scene.

        Bands that can't be read are with the first one that can; -1 where there is none.
        """
        found: dict[str, Ints] = {}
        first = np.full(table.n_scenes, -1, np.int64)
        for number, name in enumerate(self.request.bands):
            own, one = np.full(table.n_scenes, -1, np.int64), usable[name]
            for before, other in enumerate(found):
                level = usable[other].level
                if one.level is None or level is None:
                    continue
                maybe = one.is_usable & (own < 0) & (found[other] == before)
                own[maybe & _are_same_grids(table, one.level.grid, level.grid, maybe)] = before
            own[one.is_usable & (own < 0)] = number
            found[name] = own
            first = np.where(first < 0, own, first)
        return {name: np.where(own < 0, first, own) for name, own in found.items()}

    def _without_group(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        groups: dict[str, Ints],
        failures: list[Failure],
    ) -> list[Failure]:
        """Scenes of which the weight or mask band alone can be read."""
        told = {one.scene for one in failures}
        further = np.any([usable[name].is_usable for name in self._further or self._own], axis=0)
        alone = np.flatnonzero(further & (groups[self.request.bands[0]] < 0)).tolist()
        return [
            Failure(scene, name, self._why(table, scene, name))
            for scene in alone
            if scene not in told
            for name in self._own
        ]

    def _failures_of_grids(
        self,
        table: SceneTable,
        grids: Ints,
        errors: dict[int, InputError],
        groups: dict[str, Ints],
        group: int,
    ) -> list[Failure]:
        """A failure of each band of a group whose grid has no place on the map of the zones."""
        return [
            Failure(one.scene, name, one.error)
            for one in self._errors_of_grids(table, grids, errors, None)
            for name in self._own
            if groups[name][one.scene] == group
        ]

    def _group_of(self, readings: list[Reading], units: Jobs) -> Ints:
        """The group of each unit, which its grid tells."""
        group = np.full(len(units.scene), -1, np.int64)
        for one in readings:
            group[one.grids[units.scene] == units.grid] = self.request.bands.index(one.names[0])
        return group

    def _by_place(
        self, table: SceneTable, usable: dict[str, Usable], units: Jobs, group: Ints
    ) -> Ints:
        """The order in which tiles of all groups that lie near each other follow each other."""
        kinds = KindColumns.of(table.kinds)
        kind = np.zeros(len(group), np.int64)
        for number in np.unique(group).tolist():
            own = group == number
            leader = self.request.bands[number]
            kind[own] = self._reference(usable, [leader], table.n_scenes)[units.scene[own]]
        tall, wide = kinds.tile_height[kind], kinds.tile_width[kind]
        row, col = units.window[:, 0] // tall, units.window[:, 2] // wide
        slab = units.window[:, 0] % tall // kinds.slab[kind]
        height = np.array([grid.height for grid in table.grids], np.int64)[units.grid]
        place = (row * tall + slab * kinds.slab[kind]) / height
        return np.lexsort((units.target, col, group, place, units.scene))


def _are_same_grids(table: SceneTable, a: Ints, b: Ints, where: Mask) -> Mask:
    """Which pairs of numbers of grids are one grid, looked at in some places."""
    same: Mask = where & (a == b)
    unlike = np.flatnonzero(where & (a != b))
    if not len(unlike):
        return same
    distinct, of = np.unique(np.column_stack([a[unlike], b[unlike]]), axis=0, return_inverse=True)
    is_same = [is_same_grid(table.grids[x], table.grids[y]) for x, y in distinct.tolist()]
    same[unlike] = np.array(is_same, bool)[of.reshape(-1)]
    return same
