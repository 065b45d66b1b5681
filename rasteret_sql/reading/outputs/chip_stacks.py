"""Stacks of chips: one row per square of one grid over all rasters, with all scenes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import InputError
from rasteret_sql.reading.blocks import item_bytes
from rasteret_sql.reading.columns import Ints, common_dtype
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.outputs.chips import LONLAT_WKB, outline_of
from rasteret_sql.reading.outputs.common import ERROR, Read, Records
from rasteret_sql.reading.outputs.mosaics import (
    NO_MOMENT,
    Layer,
    LayerOutput,
    MosaicPlanner,
    all_scenes,
    failed_row,
    joined,
    layers_by_place,
    moments_of,
    on_common_grid,
)
from rasteret_sql.reading.outputs.windows import MAX_WINDOW_BYTES, columns_of, transform_of
from rasteret_sql.reading.patches import Patch, fill_value
from rasteret_sql.reading.plan import Lattice, TilePlan
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.reading.tile_store import Pixels

STACK_FIELDS = (
    pa.field("chip_id", pa.string()),
    pa.field("record_ids", pa.list_(pa.string())),
    pa.field("datetimes", pa.list_(pa.timestamp("us"))),
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
"""Columns of a stack beside its bands."""


_SIDES = (1024, 512, 256, 128)
"""Rows and columns of a block of squares; tiles are in memory while a block needs them."""

_BLOCK_BYTES = 64 << 20
"""Of a block of all scenes."""

_PIXEL_BYTES = 9
"""Of a pixel of a scene in a block: a float64 and whether it counts."""


class _StackLayers(LayerOutput):
    """Makes the layers of squares."""

    def weights(self, plan: TilePlan) -> Ints:
        """Bytes of each unit."""
        window = plan.units.window
        size = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        each = sum(_item_bytes(self.read, plan, name) + 1 for name in self.bands)
        places = np.column_stack([plan.units.target, window])
        scenes = int(np.unique(places, axis=0, return_counts=True)[1].max(initial=0))
        if len(size) and int(size.max()) * each * scenes > MAX_WINDOW_BYTES:
            raise InputError.expected(
                "size",
                f"stacks of at most {MAX_WINDOW_BYTES} bytes",
                f"{scenes} records of {np.diff(window[0])[0]} x {np.diff(window[0])[2]} pixels",
                "take a smaller size, fewer bands or a shorter date_range",
            )
        return size * each + 1

    def values_of(
        self, plan: TilePlan, unit: int, patches: dict[str, Patch]
    ) -> dict[str, tuple[Pixels, Mask] | None]:
        """Values of each band of a unit, and which of them hold data."""
        read, scene = self.read, int(plan.units.scene[unit])
        found: dict[str, tuple[Pixels, Mask] | None] = {}
        for name in self.bands:
            values, kind = (
                read.values_of(plan, unit, name, patches[name]),
                read.kind_of(plan, scene, name),
            )
            if values is None or kind is None:
                found[name] = None
                continue
            pixels, valid = values
            if read.request.scaled and pixels.dtype.kind != "c":
                pixels = kind.scaled(pixels)
            found[name] = pixels, np.ones(pixels.shape, bool) if valid is None else valid
        return found


def stack_rows(
    read: Read,
    bands: Sequence[str],
    lattice: Lattice,
    records: Records,
    *,
    min_valid: float,
) -> Iterator[pa.RecordBatch]:
    """Read stacks of chips.

    Args:
        read: The execution.
        bands: Bands that are wanted; the others are not fetched.
        lattice: Where the chips lie.
        records: Gives the scene tables.
        min_valid: Share of pixels, 0 to 1, that must hold data in all bands; scenes with
            fewer are left out of a stack.

    Raises:
        InputError: it would fetch more than allowed, or a stack is too large.
    """
    table = all_scenes(records, read)
    if table is None:
        return
    read = on_common_grid(read, table)
    moments = moments_of(table)

    def planner() -> MosaicPlanner:
        return stack_planner(read, table, bands, lattice)

    for layers in map(list, layers_by_place(_StackLayers(read, bands), planner, table)):
        if layers[0].unit < 0:
            yield failed_row(read, layers)
            continue
        enough = [layer for layer in layers if _is_enough(layer, min_valid)]
        if enough:
            yield _stack(read, bands, moments, enough)


def stack_planner(
    read: Read, table: SceneTable, bands: Sequence[str], lattice: Lattice
) -> MosaicPlanner:
    """Plans stacks of chips.

    Args:
        read: The execution; its request names the output grid.
        table: All scenes.
        bands: Bands that are wanted.
        lattice: Where the chips lie.
    """
    side = max(_side_of(table), lattice.size)
    return MosaicPlanner(
        read.request,
        read.footprints,
        moments_of(table),
        block=(side, side),
        bands=bands,
        lattice=lattice,
    )


def stack_schema(bands: Sequence[str], *, valid: bool, on_error: str) -> pa.Schema:
    """Columns of stacks besides those of areas."""
    return pa.schema(
        [
            *STACK_FIELDS,
            *(pa.field(band, pa.binary_view()) for band in bands),
            *((pa.field("valid", pa.binary_view()),) if valid else ()),
            *((ERROR,) if on_error == "report" else ()),
        ]
    )


def _side_of(table: SceneTable) -> int:
    """Rows and columns of a block, so that the tiles of its scenes fit into memory."""
    n_scenes = table.n_scenes if table.chosen is None else int(table.chosen.sum())
    fitting = (side for side in _SIDES if n_scenes * side * side * _PIXEL_BYTES <= _BLOCK_BYTES)
    return next(fitting, _SIDES[-1])


def _is_enough(layer: Layer, share: float) -> bool:
    """Whether so many pixels hold data in all bands; what could not be read stays."""
    if not share or layer.error is not None:
        return True
    masks = [np.zeros((), bool) if one is None else one[1] for one in layer.bands.values()]
    return float(np.mean(np.logical_and.reduce(masks))) >= share


def _stack(read: Read, bands: Sequence[str], moments: Ints, layers: list[Layer]) -> pa.RecordBatch:
    """The row of a square, from its layers in order of time."""
    plan, unit, window = layers[0].plan, layers[0].unit, layers[0].window
    target, grid = int(plan.units.target[unit]), plan.table.grids[int(plan.units.grid[unit])]
    scenes = [layer.scene for layer in layers]
    row: dict[str, Any] = {
        "chip_id": f"{window.row_start}_{window.col_start}",
        "record_ids": [plan.table.id_of(scene) for scene in scenes],
        "datetimes": [None if moments[s] == NO_MOMENT else int(moments[s]) for s in scenes],
        "row_off": window.row_start,
        "col_off": window.col_start,
        "height": window.height,
        "width": window.width,
        "transform": transform_of(grid, window),
        "crs": grid.crs,
        "dtypes": [],
        "nodata": [],
        "error": joined(one.error for one in layers),
    }
    if "geometry" in read.wanted:
        row["geometry"] = outline_of(grid, window)
    masks = []
    for name in bands:
        found = [layer.bands[name] for layer in layers]
        there = [one for one in found if one is not None]
        dtype = common_dtype((values.dtype for values, _ in there), name)
        kinds = (read.kind_of(plan, scene, name) for scene in scenes)
        nodata = next((kind.nodata for kind in kinds if kind and kind.nodata is not None), None)
        if read.request.scaled and dtype.kind == "f":
            nodata = math.nan
        shape = len(layers), window.height, window.width
        values = np.full(shape, fill_value(nodata, dtype), dtype)
        valid = np.zeros(shape, bool)
        for number, one in enumerate(found):
            if one is not None:
                np.copyto(values[number], one[0], where=one[1], casting="unsafe")
                valid[number] = one[1]
        row[name] = values
        row["dtypes"].append(dtype.name)
        row["nodata"].append(nodata)
        masks.append(valid.ravel().view(np.uint8))
    row["valid"] = np.concatenate(masks) if masks else None
    arrays = read.records_of(plan, scenes[:1], [target], [1])
    return read.batch(arrays | columns_of(read, bands, [row]), 1)


def _item_bytes(read: Read, plan: TilePlan, name: str) -> int:
    level = plan.table.bands[name].level(0)
    if read.request.scaled or level is None:
        return 8
    kinds = np.unique(level.kind[level.kind >= 0]).tolist()
    return max((item_bytes(plan.table.kinds[kind].format) for kind in kinds), default=1)
