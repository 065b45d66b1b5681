"""The record that matches each point best in time, of those whose mask lets it through."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa

from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import Read, Records, check_max_bytes, run_unchecked
from rasteret_sql.reading.outputs.neighbourhoods import PointOptions, clear_points
from rasteret_sql.reading.plan import Failure, TilePlan
from rasteret_sql.reading.point_plans import PLAN_BYTES, UNIT_BYTES, PointPlan, PointPlanner
from rasteret_sql.reading.point_relations import moments_of
from rasteret_sql.reading.points import AnyInts, Points
from rasteret_sql.reading.scenes import SceneTable

_NEVER = np.iinfo(np.int64).max
_LEAST_AT_ONCE = 1 << 12


class Matching:
    """For each point the record that matches best so far.

    Args:
        points: With their moments.
        options: How they match.
    """

    def __init__(self, points: Points, options: PointOptions) -> None:
        assert points.moments is not None  # noqa: S101 (matching needs a time column)
        self._moments = points.moments
        self._options = options
        self._score = np.full(len(points), _NEVER)
        self._table = np.full(len(points), -1, np.int64)
        self._scene = np.full(len(points), -1, np.int64)
        self.tables: list[SceneTable] = []
        self._numbers: dict[int, int] = {}
        self._lock = threading.Lock()

    def number(self, table: SceneTable) -> int:
        """Number of a table, the same each time; the table is kept."""
        with self._lock:
            number = self._numbers.setdefault(id(table), len(self.tables))
            if number == len(self.tables):
                self.tables.append(table)
            return number

    def may_win(self, table: SceneTable, scene: int, point: AnyInts) -> Mask:
        """Which points a record would match better than what they have."""
        score = self._scores(table, scene, point)
        number = self.number(table)
        is_earlier = (number < self._table[point]) | (
            (number == self._table[point]) & (scene < self._scene[point])
        )
        best = self._score[point]
        may: Mask = (score < best) | ((score == best) & is_earlier & (score < _NEVER))
        return may

    def offer(self, table: SceneTable, scene: int, point: AnyInts) -> None:
        """A record that some points may have."""
        won = point[self.may_win(table, scene, point)]
        self._score[won] = self._scores(table, scene, won)
        self._table[won], self._scene[won] = self.number(table), scene

    def is_best(self, table: SceneTable, scene: int, point: AnyInts) -> Mask:
        """Which points a record is the match of."""
        best: Mask = (self._table[point] == self.number(table)) & (self._scene[point] == scene)
        return best

    def matched(self) -> list[SceneTable]:
        """Tables with a record that matches."""
        numbers = np.unique(self._table[self._table >= 0])
        return [self.tables[number] for number in numbers.tolist()]

    def _scores(self, table: SceneTable, scene: int, point: AnyInts) -> Ints:
        """Twice the time between record and point, plus 1 for a later record."""
        moment = int(moments_of(table.batch.slice(scene, 1), "datetime")[0])
        moments = self._moments[point]
        known = (moments != Points.UNKNOWN) & (moment != Points.UNKNOWN)
        ahead = np.where(known, moments, 0) - (moment if moment != Points.UNKNOWN else 0)
        away = np.abs(ahead)
        if self._options.max_dt is not None:
            known &= away <= self._options.max_dt
        if self._options.match == "latest":
            known &= ahead >= 0
        return np.where(known, 2 * away + (ahead < 0), _NEVER)


class _ClearRows:
    """Which points the mask band of each record lets through."""

    def __init__(self, read: Read, options: PointOptions, matching: Matching) -> None:
        self._read = read
        self._options = options
        self._matching = matching

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of each unit."""
        assert isinstance(plan, PointPlan)  # noqa: S101
        return np.diff(plan.first_point) * PLAN_BYTES

    def group_bytes(self) -> int:
        """Bytes of a batch."""
        return UNIT_BYTES

    def work(self, group: Group) -> pa.RecordBatch:
        """Points and records."""
        plan = group.plan
        assert isinstance(plan, PointPlan)  # noqa: S101
        points, scenes = [], []
        for unit in range(group.start, group.stop):
            patches = dict(zip(plan.bands, group.patches(unit), strict=True))
            scene = int(plan.units.scene[unit])
            self._read.error_of(plan, scene, patches)
            at = slice(int(plan.first_point[unit]), int(plan.first_point[unit + 1]))
            (patch,) = patches.values()
            clear = clear_points(plan, unit, patch, self._options, at.stop - at.start)
            points.append(plan.point[at][clear])
            scenes.append(np.full(len(points[-1]), scene))
        number = self._matching.number(plan.table)
        chosen = np.concatenate(points)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(chosen),
                pa.array(np.concatenate(scenes)),
                pa.array(np.full(len(chosen), number)),
            ],
            ["point", "scene", "table"],
        )

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> None:
        """A record whose mask is not known matches nothing."""


def matching_records(
    read: Read, records: Records, points: Points, options: PointOptions
) -> Matching:
    """Find the record of each point; reads the mask band, each of its tiles once.

    Args:
        read: The execution.
        records: Gives the scene tables.
        points: With their moments.
        options: How they match.

    Raises:
        InputError: it would fetch more than `ReadRequest.max_bytes`.
    """
    matching = Matching(points, options)
    if options.mask_band is None:
        planner = PointPlanner(read.request, points, read.check, bands=(), select=matching.may_win)
        for table in records():
            for scene, point in planner.candidates(table):
                matching.offer(table, scene, point)
        return matching
    bands = PointPlanner(read.request, points, read.check, bands=())

    def masks(best: Matching) -> PointPlanner:
        assert options.mask_band is not None  # noqa: S101
        return PointPlanner(
            replace(read.request, bands=(options.mask_band,), level=0, masked=True),
            points,
            read.check,
            bands=(options.mask_band,),
            select=lambda *place: bands.holds(*place) & best.may_win(*place),
            latest_first=True,
            at_once=max(_LEAST_AT_ONCE, len(points)),
        )

    check_max_bytes(read, masks(Matching(points, options)), records)
    for batch in run_unchecked(read, _ClearRows(read, options, matching), masks(matching), records):
        point, scenes, (number, *_) = (column.to_numpy() for column in batch.columns)
        table = matching.tables[int(number)]
        for scene in np.unique(scenes).tolist():
            matching.offer(table, scene, point[scenes == scene])
    return matching
