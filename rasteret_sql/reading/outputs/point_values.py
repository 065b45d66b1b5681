"""The value of a band of a record at a point, for pairs of both."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import LONLAT, crs_of
from rasteret_sql.reading.columns import Ints, to_arrow
from rasteret_sql.reading.counters import Counters
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import tables, with_record
from rasteret_sql.reading.outputs.neighbourhoods import PointOptions, sampled
from rasteret_sql.reading.pipeline import Pipeline
from rasteret_sql.reading.plan import Failure, TilePlan
from rasteret_sql.reading.point_plans import PointPlan, PointPlanner
from rasteret_sql.reading.points import AnyInts, Points
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import SceneTable

_VALUE_BYTES = 16
_BATCH_BYTES = 1 << 20


def values_at(
    records: pa.RecordBatch,
    band: str,
    record: Ints,
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    stop: threading.Event,
    check: Callable[[], None],
) -> pa.Array:
    """The value of each pair of a record and a point.

    Args:
        records: One row per record: columns ``id``, ``assets``, ``{band}_metadata``, ``crs``.
        band: The band.
        record: Row of the record of each pair; -1 for none.
        lon: Longitude of each point in degrees, NaN without one.
        lat: Latitude of each point.
        stop: Ends the read.
        check: Raises where it was set.

    Returns:
        float64; NULL where there is no data.

    Raises:
        RasteretError: a tile or header that can't be read; complex numbers.
    """
    found = np.zeros(len(record))
    null = np.ones(len(record), bool)
    points = Points(lon, lat, crs_of(LONLAT))
    request = ReadRequest(bands=(band,))

    def is_pair(_table: SceneTable, scene: int, point: AnyInts) -> Mask:
        pairs: Mask = record[point] == scene
        return pairs

    planner = PointPlanner(request, points, check, bands=(band,), select=is_pair)
    pipeline: Pipeline[pa.RecordBatch] = Pipeline(_Values(band), stop, counters=Counters())
    whole = tables(iter([records]), [band], check)
    for batch in pipeline.run(plan for table in whole for plan in planner.plans(table)):
        at, values = batch.column("point").to_numpy(), batch.column("value")
        null[at] = values.is_null().to_numpy(zero_copy_only=False)
        found[at] = values.fill_null(0.0).to_numpy()
    return to_arrow(found, pa.float64(), null)


class _Values:
    """Makes rows of points and their values."""

    def __init__(self, band: str) -> None:
        self._band = band

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of the rows of each unit."""
        assert isinstance(plan, PointPlan)  # noqa: S101 (the planner of points made it)
        return np.diff(plan.first_point) * _VALUE_BYTES

    def group_bytes(self) -> int:
        """Bytes of a batch."""
        return _BATCH_BYTES

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        plan = group.plan
        assert isinstance(plan, PointPlan)  # noqa: S101
        points, values = [], []
        for unit in range(group.start, group.stop):
            (patch,) = group.patches(unit)
            if patch.error is not None:
                raise with_record(patch.error, plan.table, int(plan.units.scene[unit]), self._band)
            at = slice(int(plan.first_point[unit]), int(plan.first_point[unit + 1]))
            one = sampled(plan, unit, self._band, patch, PointOptions(), masked=True)
            if one is not None and one.values.dtype.kind == "c":
                raise InputError.expected(
                    "band", "real numbers", one.values.dtype.name, "use rasteret_sample_points"
                )
            points.append(plan.point[at])
            values.append(
                pa.nulls(at.stop - at.start, pa.float64())
                if one is None
                else to_arrow(one.values, pa.float64(), one.null)
            )
        return pa.record_batch(
            {"point": pa.array(np.concatenate(points)), "value": pa.concat_arrays(values)}
        )

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> None:
        """There are none: what can't be planned is an error."""
