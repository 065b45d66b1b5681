"""Chips: one row per square of pixels, on a lattice over each raster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from pyproj.exceptions import ProjError

from rasteret_sql.grid.outlines import outline
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import ERROR, Read, run
from rasteret_sql.reading.outputs.windows import WindowOptions, WindowRows
from rasteret_sql.reading.plan import Granularity, Lattice
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.warps import WarpPlanner
from rasteret_sql.units import Affine, Window

LONLAT_WKB = {
    b"ARROW:extension:name": b"geoarrow.wkb",
    b"ARROW:extension:metadata": b'{"crs": "OGC:CRS84"}',
}
PLACE_FIELDS = (
    pa.field("chip_id", pa.string()),
    pa.field("record_id", pa.string()),
    pa.field("row_off", pa.int32()),
    pa.field("col_off", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("transform", pa.list_(pa.float64())),
    pa.field("crs", pa.string()),
    pa.field("geometry", pa.binary(), metadata=LONLAT_WKB),
    pa.field("dtypes", pa.list_(pa.string())),
    pa.field("nodata", pa.list_(pa.float64())),
)
"""Columns of a chip beside its bands."""


class ChipRows(WindowRows):
    """Makes rows of chips.

    Args:
        read: The execution.
        bands: Bands that are wanted.
        valid: Whether the column ``valid`` is wanted.
        min_valid: Share of pixels that must hold data in all bands.
    """

    def __init__(self, read: Read, bands: Sequence[str], *, valid: bool, min_valid: float) -> None:
        super().__init__(read, bands, WindowOptions(valid=valid or min_valid > 0))
        self._min_valid = min_valid

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        units, kept, rows = group.plan.units, [], []
        for unit in range(group.start, group.stop):
            row = self._row(group, unit)
            if self._is_enough(row):
                kept.append(unit)
                rows.append(row | self._place(group, unit))
        return self._batch(
            group.plan, units.scene[kept].tolist(), units.target[kept].tolist(), rows
        )

    def _is_enough(self, row: dict[str, Any]) -> bool:
        """Whether enough pixels hold data; what could not be read is told, not left out."""
        if not self._min_valid or row["error"] is not None:
            return True
        in_all = row["valid"].reshape(-1, row["height"] * row["width"]).all(axis=0)
        return float(np.mean(in_all)) >= self._min_valid

    def _place(self, group: Group, unit: int) -> dict[str, Any]:
        plan = group.plan
        window = Window(*plan.units.window[unit].tolist())
        grid = plan.table.grids[int(plan.units.grid[unit])]
        record = plan.table.id_of(int(plan.units.scene[unit]))
        place = {
            "chip_id": f"{record}_{window.row_start}_{window.col_start}",
            "record_id": record,
            "row_off": window.row_start,
            "col_off": window.col_start,
            "crs": grid.crs,
        }
        if "geometry" in self._read.wanted:
            place["geometry"] = self._read.footprints.once(
                (grid, window, "outline"), lambda: outline_of(grid, window)
            )
        return place


def chip_rows(
    read: Read,
    bands: Sequence[str],
    lattice: Lattice,
    records: Any,  # noqa: ANN401
    *,
    valid: bool,
    min_valid: float,
) -> Iterator[pa.RecordBatch]:
    """Read chips.

    Args:
        read: The execution.
        bands: Bands that are wanted; the others are not fetched.
        lattice: Where the chips lie.
        records: Gives the scene tables.
        valid: Whether the column ``valid`` is wanted.
        min_valid: Share of pixels, 0 to 1, that must hold data in all bands.
    """
    planner = chip_planner(read, bands, lattice)
    yield from run(read, ChipRows(read, bands, valid=valid, min_valid=min_valid), planner, records)


def chip_planner(read: Read, bands: Sequence[str], lattice: Lattice) -> Planner:
    """Plans chips of each record."""
    request, footprints = read.request, read.footprints
    if request.output_grid is not None:
        return WarpPlanner(request, footprints, bands=bands, lattice=lattice)
    return Planner(request, footprints, Granularity.WINDOW, bands=bands, lattice=lattice)


def chip_schema(bands: Sequence[str], *, valid: bool, on_error: str) -> pa.Schema:
    """Columns of chips besides those of records and targets."""
    return pa.schema(
        [
            *PLACE_FIELDS,
            *(pa.field(band, pa.binary_view()) for band in bands),
            *((pa.field("valid", pa.binary_view()),) if valid else ()),
            *((ERROR,) if on_error == "report" else ()),
        ]
    )


def outline_of(grid: Grid, window: Window) -> bytes | None:
    """A window in longitude and latitude, as WKB; None where its grid has no place."""
    if grid.affine is None or grid.crs is None:
        return None
    x, y = grid.affine.to_map(window.col_start, window.row_start)
    moved = Affine(*grid.affine[:2], x, *grid.affine[3:5], y)
    try:
        found = outline(moved, window.height, window.width, grid.crs)
    except ProjError:  # of an engineering CRS, or of another planet
        return None
    return bytes(shapely.to_wkb(found))
