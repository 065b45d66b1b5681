"""Points: one row per point and record, with the value of each band at the point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from rasteret_sql.reading.columns import Ints, texts, to_arrow
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import ERROR, Read, Records, check_max_bytes, run_unchecked
from rasteret_sql.reading.outputs.matching import matching_records
from rasteret_sql.reading.outputs.neighbourhoods import PointOptions, Sampled, clear_points, sampled
from rasteret_sql.reading.patches import Patch
from rasteret_sql.reading.plan import Failure, TilePlan
from rasteret_sql.reading.point_plans import (
    BATCH_ROWS,
    PLAN_BYTES,
    UNIT_BYTES,
    PointPlan,
    PointPlanner,
    Select,
)
from rasteret_sql.reading.points import Points

POINT_FIELDS = (
    pa.field("point_x", pa.float64()),
    pa.field("point_y", pa.float64()),
    pa.field("point_crs", pa.string()),
)
"""The point, as it was given."""

PLACE_FIELDS = (
    pa.field("raster_crs", pa.string()),
    pa.field("row", pa.int32()),
    pa.field("col", pa.int32()),
    pa.field("distance_px", pa.float64()),
)
"""The pixel that holds it, and how far from it the values lie."""


class PointRows:
    """Makes rows of points.

    Args:
        read: The execution.
        bands: Bands that are wanted.
        options: How they are sampled.
        points: Where.
        point_columns: Output columns that are the points' own.
    """

    def __init__(
        self,
        read: Read,
        bands: Sequence[str],
        options: PointOptions,
        points: Points,
        point_columns: Sequence[str],
    ) -> None:
        self._read = read
        self._bands = tuple(bands)
        self._options = options
        self._points = points
        own = {one.name for one in read.schema}
        self._of_points = [name for name in read.wanted if name in point_columns]
        self._of_records = [n for n in read.wanted if n not in own and n not in point_columns]
        self.row_bytes = point_bytes(read.schema, read.wanted, options)

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of the rows of each unit."""
        assert isinstance(plan, PointPlan)  # noqa: S101 (the planner of points made it)
        return np.diff(plan.first_point) * self.row_bytes

    def group_bytes(self) -> int:
        """A batch has about 131,072 rows, fewer with lists."""
        return min(BATCH_ROWS * self.row_bytes, 4 * UNIT_BYTES)

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        plan, read = group.plan, self._read
        assert isinstance(plan, PointPlan)  # noqa: S101
        scenes = plan.units.scene[group.start : group.stop]
        edges = plan.first_point[group.start : group.stop + 1]
        counts = np.diff(edges)
        kept, errors = np.ones(int(counts.sum()), bool), []
        parts: dict[str, list[Sampled | None]] = {name: [] for name in self._bands}
        for number, unit in enumerate(range(group.start, group.stop)):
            patches = dict(zip(plan.bands, group.patches(unit), strict=True))
            errors.append(read.error_of(plan, int(scenes[number]), patches))
            at = slice(int(edges[number] - edges[0]), int(edges[number + 1] - edges[0]))
            kept[at] = self._is_clear(plan, unit, patches, int(counts[number]))
            for name in self._bands:
                one = sampled(
                    plan, unit, name, patches[name], self._options, masked=read.request.masked
                )
                parts[name].append(None if one is None else self._scaled(one, patches[name]))
        at = slice(int(edges[0]), int(edges[-1]))
        arrays = self._places(plan, at, scenes, counts)
        for name, found in parts.items():
            arrays |= self._columns(name, found, counts)
        if "distance_px" in read.wanted:
            arrays["distance_px"] = self._distances(parts, counts)
        if read.reports_errors:
            arrays["error"] = texts(errors, counts.tolist())
        batch = read.batch(arrays, len(kept))
        return batch if kept.all() else batch.filter(pa.array(kept))

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> pa.RecordBatch | None:
        """A row without a point for each record that can't be planned; none when matching."""
        read, scenes = self._read, [failure.scene for failure in failures]
        if self._options.match != "all":
            return None
        ones, none = [1] * len(scenes), [-1] * len(scenes)
        arrays = read.repeated.arrays(read.wanted, plan.table.batch, scenes, none, ones)
        for field in read.schema:
            arrays[field.name] = pa.nulls(len(scenes), field.type)
        arrays["error"] = pa.array([failure.error.message for failure in failures], pa.string())
        return read.batch(arrays, len(scenes))

    def _is_clear(
        self, plan: PointPlan, unit: int, patches: dict[str, Patch], n: int
    ) -> Mask | bool:
        """Which points the mask band lets through; those whose mask can't be read are told."""
        options = self._options
        if options.mask_band is None or options.match != "all":
            return True
        patch = patches[options.mask_band]
        if self._read.reports_errors and (patch.kind is None or patch.error is not None):
            return True
        return clear_points(plan, unit, patch, options, n)

    def _scaled(self, one: Sampled, patch: Patch) -> Sampled:
        kind = patch.kind
        if not self._read.request.scaled or one.values.dtype.kind == "c" or kind is None:
            return one
        scale, offset = 1.0 if kind.scale is None else kind.scale, kind.offset or 0.0
        around = one.around
        if around is not None:
            around = (around[0].astype(np.float64) * scale + offset, *around[1:])
        values = one.values.astype(np.float64) * scale + offset
        return one._replace(values=values, around=around)

    def _places(
        self, plan: PointPlan, at: slice, scenes: Ints, counts: Ints
    ) -> dict[str, pa.Array]:
        """Columns of points, of records, and of where the points lie."""
        read, points, point = self._read, self._points, plan.point[at]
        numbers = cast("Sequence[int]", point)
        own, each = cast("Sequence[int]", scenes), cast("Sequence[int]", counts)
        repeated = read.repeated.arrays
        arrays = repeated(
            self._of_points,
            plan.table.batch,
            [],
            numbers,
            cast("Sequence[int]", np.ones_like(point)),
        )
        arrays |= repeated(self._of_records, plan.table.batch, own, [], each)
        grids = plan.units.grid[np.searchsorted(plan.first_point, at.start, "right") - 1 :]
        made: dict[str, Callable[[], pa.Array]] = {
            "point_x": lambda: pa.array(points.x[point]),
            "point_y": lambda: pa.array(points.y[point]),
            "point_crs": lambda: texts([points.crs_text], [len(point)]),
            "raster_crs": lambda: texts(
                [plan.table.grids[number].crs for number in grids[: len(counts)].tolist()], each
            ),
            "row": lambda: pa.array(plan.row[at]),
            "col": lambda: pa.array(plan.col[at]),
        }
        return arrays | {name: make() for name, make in made.items() if name in read.wanted}

    def _columns(self, name: str, found: list[Sampled | None], counts: Ints) -> dict[str, pa.Array]:
        """A band, and the lists of what is around."""
        kind = self._read.field(name).type
        parts = [
            pa.nulls(int(n), kind) if one is None else to_arrow(one.values, kind, one.null)
            for one, n in zip(found, counts, strict=True)
        ]
        arrays = {name: pa.concat_arrays(parts) if parts else pa.nulls(0, kind)}
        listed = neighbourhood_name(name)
        if listed in self._read.wanted:
            lists = [_lists(one, kind, int(n)) for one, n in zip(found, counts, strict=True)]
            arrays[listed] = pa.concat_arrays(lists)
        return arrays

    def _distances(self, parts: dict[str, list[Sampled | None]], counts: Ints) -> pa.Array:
        """The largest over the bands; NULL where none has a value."""
        if not self._options.reach:
            return pa.array(np.zeros(int(counts.sum())))
        most = np.full(int(counts.sum()), -1.0)
        for found in parts.values():
            each = [
                np.full(int(n), -1.0)
                if one is None or one.distance is None
                else np.where(np.isnan(one.distance), -1.0, one.distance)
                for one, n in zip(found, counts, strict=True)
            ]
            most = np.maximum(most, np.concatenate(each))
        return pa.array(most, mask=most < 0)


def _lists(one: Sampled | None, kind: pa.DataType, n: int) -> pa.Array:
    listed = pa.large_list(kind)
    if one is None or one.around is None:
        return pa.nulls(n, listed)
    values, valid, has = one.around
    offsets = np.append(0, np.cumsum(np.where(has, values.shape[1], 0)))
    items = to_arrow(values.ravel(), kind, ~valid.ravel())
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), items, mask=pa.array(~has), type=listed
    )


def point_bytes(schema: pa.Schema, wanted: Sequence[str], options: PointOptions) -> int:
    """Bytes that a row takes, about."""
    n_bytes = PLAN_BYTES
    for field in schema:
        if field.name not in wanted:
            continue
        is_list = pa.types.is_large_list(field.type)
        item = field.type.value_type if is_list else field.type
        width = 16 if pa.types.is_struct(item) or pa.types.is_string(item) else item.bit_width // 8
        n_bytes += width * ((2 * options.reach + 1) ** 2 if is_list else 1)
    return n_bytes


def point_rows(
    read: Read,
    bands: Sequence[str],
    records: Records,
    points: Points,
    options: PointOptions,
    point_columns: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    """Sample points.

    Args:
        read: The execution.
        bands: Bands that are wanted; the others are not fetched.
        records: Gives the scene tables, of all bands of the request and the mask band.
        points: Where.
        options: How.
        point_columns: Output columns that are the points' own.

    Raises:
        InputError: it would fetch more than `ReadRequest.max_bytes`.
    """
    select: Select | None = None
    if options.match != "all":
        matching = matching_records(read, records, points, options)
        tables = matching.matched()
        records, select = lambda: iter(tables), matching.is_best
    output = PointRows(read, bands, options, points, point_columns)
    masks = options.mask_band if options.match == "all" else None
    fetched = tuple(dict.fromkeys([*bands, *([masks] if masks else [])]))
    planner = PointPlanner(
        read.request,
        points,
        read.check,
        bands=fetched,
        reach=options.reach,
        unit_points=max(1, UNIT_BYTES // output.row_bytes),
        select=select,
    )
    check_max_bytes(read, planner, records, spent=read.counters.fetched_bytes)
    yield from run_unchecked(read, output, planner, records)


def neighbourhood_name(band: str) -> str:
    """Column of the pixels around."""
    return f"{band}_neighbourhood"


def point_schema(bands: Sequence[pa.Field], options: PointOptions, on_error: str) -> pa.Schema:
    """Columns of points besides those of records and of the points themselves."""
    lists = [pa.field(neighbourhood_name(one.name), pa.large_list(one.type)) for one in bands]
    return pa.schema(
        [
            *POINT_FIELDS,
            *PLACE_FIELDS,
            *bands,
            *(lists if options.neighbourhood != "off" else ()),
            *((ERROR,) if on_error == "report" else ()),
        ]
    )
