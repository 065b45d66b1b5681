"""How many rows a read gives, about: what DuckDB orders joins by.

DuckDB takes every Arrow source for one row, and so makes the hash table of a join from it: of
100 million pixels, not of the thousand rows beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.duck.reading import BoundRead
from rasteret_sql.duck.relations import record_filter
from rasteret_sql.units import BBox

MANY_PIXELS = 10_000_000
"""Where the records are not in memory when a statement is bound."""


def n_pixels(bound: BoundRead) -> int:
    """Pixels of the records that are read, under the boxes of their area.

    Masks, predicates, the outlines of areas and another grid are left out. A relation of areas
    is not read yet: it counts as all there is.
    """
    version = bound.relation.version
    if version is None or not version.is_whole or version.records is None:
        return MANY_PIXELS
    boxes = None if bound.targets is None else bound.targets.lonlat_boxes() or None
    chosen = version.chosen(record_filter(bound.relation, boxes, bound.dates, bound.ids))
    band = bound.request.bands[0]
    table = version.scenes([band], chosen)
    level = table.bands[band].level(bound.request.level)
    if level is None:
        return 0
    sizes = np.array([grid.height * grid.width for grid in table.grids], np.float64)
    is_read = chosen & (level.grid >= 0)
    pixels = sizes[level.grid[is_read]]
    if boxes is not None and "bbox" in version.records.schema.names:
        bbox = version.records.column("bbox").filter(pa.array(is_read))
        pixels = pixels * _shares(bbox, boxes)
    return int(pixels.sum())


def _shares(bbox: pa.StructArray, boxes: Sequence[BBox]) -> NDArray[np.float64]:
    """The share of each record's box that lies in the boxes; 1 where it has none."""
    west, south, east, north = (
        pc.struct_field(bbox, name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        for name in BBox._fields
    )
    inside = np.zeros(len(bbox))
    for box in boxes:
        width = np.minimum(east, box.xmax) - np.maximum(west, box.xmin)
        height = np.minimum(north, box.ymax) - np.maximum(south, box.ymin)
        inside += np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = inside / ((east - west) * (north - south))
    return np.where(np.isfinite(share), np.clip(share, 0, 1), 1.0)
