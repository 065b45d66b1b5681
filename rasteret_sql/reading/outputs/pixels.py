"""Pixels as rows: one row per pixel of a record under a target.

Rows come tile by tile (of a large tile in slabs of rows), so memory is bounded by tiles,
not by scenes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError
from rasteret_sql.grid.coverage import coverage_fractions
from rasteret_sql.grid.crs import LONLAT, transformer
from rasteret_sql.grid.windows import pixel_centres
from rasteret_sql.reading.columns import Ints, to_arrow
from rasteret_sql.reading.footprints import Inside
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import CRS, ERROR, Read, Records, run
from rasteret_sql.reading.patches import Patch
from rasteret_sql.reading.plan import Clip, Failure, Granularity, TilePlan
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.warps import BLOCK, WarpPlanner
from rasteret_sql.units import Affine, Window

POSITION_FIELDS = (
    pa.field("x", pa.float64()),
    pa.field("y", pa.float64()),
    pa.field("row", pa.int32()),
    pa.field("col", pa.int32()),
)
"""Pixel centre in CRS units (pixels where the raster has no transform), and its place."""

LONLAT_FIELDS = (pa.field("lon", pa.float64()), pa.field("lat", pa.float64()))
COVERAGE_FIELD = pa.field("coverage", pa.float64())

_BATCH_ROWS = 1 << 17


class PixelRows:
    """Makes rows of pixels.

    Args:
        read: The execution.
        bands: Bands that are wanted.
        coverage: Every pixel that a target touches is a row, with its share inside.
    """

    def __init__(self, read: Read, bands: Sequence[str], *, coverage: bool) -> None:
        self._read = read
        self._bands = tuple(bands)
        self._coverage = coverage
        names = {f.name for f in (*POSITION_FIELDS, *LONLAT_FIELDS, COVERAGE_FIELD)}
        self._positions = [name for name in read.wanted if name in names]
        self._row_bytes = max(
            8,
            sum(
                read.field(name).type.bit_width // 8
                if not pa.types.is_struct(read.field(name).type)
                else 16
                for name in (*self._positions, *self._bands)
            ),
        )

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of the rows of each unit."""
        window = plan.units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        return size * self._row_bytes

    def group_bytes(self) -> int:
        """A batch has about 131,072 rows."""
        return _BATCH_ROWS * self._row_bytes

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        plan, read, units = group.plan, self._read, group.plan.units
        parts: list[dict[str, Any]] = []
        scenes, targets, counts, errors, names = [], [], [], [], []
        for unit in range(group.start, group.stop):
            grid = plan.table.grids[int(units.grid[unit])]
            scene, target = int(units.scene[unit]), int(units.target[unit])
            window = Window(*units.window[unit].tolist())
            inside = self._inside(grid, target, window, is_whole=bool(units.is_whole[unit]))
            if not inside.n_pixels:
                continue
            patches = dict(zip(plan.bands, group.patches(unit), strict=True))
            errors.append(read.error_of(plan, scene, patches))
            self._check_degrees(plan, scene, grid)
            part: dict[str, Any] = {
                name: self._position(name, grid, target, window, inside) for name in self._positions
            }
            for name in self._bands:
                part[name] = self._values(plan, unit, name, patches[name], inside)
            parts.append(part)
            scenes.append(scene)
            targets.append(target)
            counts.append(inside.n_pixels)
            names.append(grid.crs)
        n_rows = sum(counts)
        arrays = read.records_of(plan, scenes, targets, counts)
        if parts:
            for name in parts[0]:
                arrays[name] = _joined([part[name] for part in parts])
        elif self._positions or self._bands:
            arrays |= {n: pa.nulls(0, read.field(n).type) for n in (*self._positions, *self._bands)}
        index = np.repeat(np.arange(len(counts)), counts)
        if CRS.name in read.wanted and CRS.name in read.schema.names:
            arrays[CRS.name] = pa.array(names, pa.string()).take(pa.array(index))
        if read.reports_errors:
            arrays["error"] = pa.array(errors, pa.string()).take(pa.array(index))
        return read.batch(arrays, n_rows)

    def failed(self, plan: TilePlan, failures: tuple[Failure, ...]) -> pa.RecordBatch:
        """A row without a place for each record that can't be planned."""
        scenes = [failure.scene for failure in failures]
        read, ones = self._read, [1] * len(failures)
        arrays = read.records_of(plan, scenes, [-1] * len(failures), ones)
        for field in read.schema:
            arrays[field.name] = pa.nulls(len(failures), field.type)
        arrays["error"] = pa.array([failure.error.message for failure in failures], pa.string())
        return read.batch(arrays, len(failures))

    def _check_degrees(self, plan: TilePlan, scene: int, grid: Grid) -> None:
        """Refuse degrees of a raster that is nowhere on the map."""
        if self._read.request.on_error != "error" or not {"lon", "lat"} & set(self._positions):
            return
        if grid.affine is None or grid.crs is None:
            missing = "transform" if grid.affine is None else "CRS"
            raise InputError.expected(
                f"record {plan.table.id_of(scene)}",
                f"a raster with a {missing}, for lon and lat",
                "none",
                "leave lonlat out, or pass on_error := 'null'",
            )

    def _inside(self, grid: Grid, target: int, window: Window, *, is_whole: bool) -> Inside:
        footprints = self._read.footprints
        if not self._coverage or target < 0:
            return footprints.inside(grid, target, window, is_whole=is_whole)

        def touched() -> Inside:
            shares = self._shares(grid, target, window)
            flat = np.flatnonzero(shares > 0)
            whole = flat.size == shares.size
            return Inside(None, None if whole else flat, flat.size)

        return footprints.once((grid, target, window, "touched"), touched)

    def _shares(self, grid: Grid, target: int, window: Window) -> Any:  # noqa: ANN401
        footprints = self._read.footprints

        def shares() -> Any:  # noqa: ANN401
            return coverage_fractions(footprints.geometry(grid, target), window).ravel()

        return footprints.once((grid, target, window, "shares"), shares)

    def _position(
        self, name: str, grid: Grid, target: int, window: Window, inside: Inside
    ) -> pa.Array:
        """A column of places: the same for all scenes on the grid."""
        key = (grid, target if inside.flat is not None or name == "coverage" else -1, window, name)

        def made() -> pa.Array:
            flat = _place(name, grid, window) if name != "coverage" else None
            if flat is None:
                if target < 0:
                    flat = np.ones(window.height * window.width)
                else:
                    flat = self._shares(grid, target, window)
            if inside.flat is not None:
                flat = flat[inside.flat]
            return pa.array(flat, self._read.field(name).type)

        if name in ("lon", "lat") and (grid.affine is None or grid.crs is None):
            return pa.nulls(inside.n_pixels, pa.float64())
        return self._read.footprints.once((*key, self._coverage), made)

    def _values(
        self, plan: TilePlan, unit: int, name: str, patch: Patch, inside: Inside
    ) -> pa.Array:
        read = self._read
        kind = read.field(name).type
        found = read.values_of(plan, unit, name, patch)
        band = read.kind_of(plan, int(plan.units.scene[unit]), name)
        if found is None or band is None:
            return pa.nulls(inside.n_pixels, kind)
        pixels, valid = found
        values = _flat(pixels, inside)
        null = None if valid is None else ~_flat(valid, inside)
        if read.request.scaled and values.dtype.kind != "c":
            values = band.scaled(values)
        return to_arrow(values, kind, null)


def pixel_rows(
    read: Read,
    bands: Sequence[str],
    records: Records,
    *,
    coverage: bool,
    clip: Clip | None,
) -> Iterator[pa.RecordBatch]:
    """Read pixels as rows.

    Args:
        read: The execution.
        bands: Bands that are wanted; the others are not fetched.
        records: Gives the scene tables.
        coverage: Every touched pixel is a row, with its share inside.
        clip: Which pixels are wanted at all.
    """

    def planner(names: Sequence[str]) -> Planner:
        if read.request.output_grid is not None:
            return WarpPlanner(
                read.request, read.footprints, bands=names, block=(BLOCK, BLOCK), clip=clip
            )
        return Planner(read.request, read.footprints, Granularity.BLOCK, bands=names, clip=clip)

    output = PixelRows(read, bands, coverage=coverage)
    checked = planner(bands or read.request.bands[:1])
    yield from run(read, output, planner(bands), records, checked)


def pixel_schema(
    bands: Sequence[pa.Field],
    *,
    lonlat: bool,
    coverage: bool,
    on_error: str,
    has_crs: bool = False,
) -> pa.Schema:
    """Columns of rows of pixels besides those of records and targets."""
    return pa.schema(
        [
            *POSITION_FIELDS,
            *(LONLAT_FIELDS if lonlat else ()),
            *((COVERAGE_FIELD,) if coverage else ()),
            *((CRS,) if has_crs else ()),
            *bands,
            *((ERROR,) if on_error == "report" else ()),
        ]
    )


def _place(name: str, grid: Grid, window: Window) -> Any:  # noqa: ANN401
    shape = (window.height, window.width)
    if name == "row":
        rows = np.arange(window.row_start, window.row_stop, dtype=np.int32)
        return np.repeat(rows, window.width)
    if name == "col":
        cols = np.arange(window.col_start, window.col_stop, dtype=np.int32)
        return np.tile(cols, window.height)
    affine = grid.affine or Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    x, y = pixel_centres(affine, window)
    if x.ndim == 1:
        x, y = np.broadcast_to(x, shape), np.broadcast_to(y[:, np.newaxis], shape)
    if name in ("x", "y"):
        return np.ascontiguousarray(x if name == "x" else y).reshape(-1)
    assert grid.crs is not None  # noqa: S101 (its caller)
    lon, lat = transformer(grid.crs, LONLAT).transform(x.ravel(), y.ravel())
    return np.asarray(lon if name == "lon" else lat)


def _flat(grid: Any, inside: Inside) -> Any:  # noqa: ANN401 (values or a mask)
    flat = np.ascontiguousarray(grid).reshape(-1)
    return flat if inside.flat is None else flat[inside.flat]


def _joined(parts: list[pa.Array]) -> pa.Array:
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
