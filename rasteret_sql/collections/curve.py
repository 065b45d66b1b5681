"""Order records so that neighbours on the map are neighbours in the file.

Row groups of records in this order cover small boxes, so that a reader skips most of
them by the statistics of ``bbox``.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BITS = 20
"""Steps per axis: 2^20 over 360 degrees is 38 m at the equator."""

NOWHERE = np.int64(2) ** (2 * _BITS)
"""Key of a record without a box: after all others."""


def hilbert_keys(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """Position of each point along a Hilbert curve over the globe.

    Args:
        lon: Degrees east, shape (n,); outside -180..180 is clipped, NaN allowed.
        lat: Degrees north, shape (n,).

    Returns:
        ``int64``, shape (n,); `NOWHERE` where a coordinate is not finite.

    Source:
        Hilbert (1891); the rotation form of the loop is in Warren, Hacker's Delight, 16-3.

    Example:
        >>> hilbert_keys(np.array([-180.0, np.nan]), np.array([-90.0, 0.0])).tolist()
        [0, 1099511627776]
    """
    finite = np.isfinite(lon) & np.isfinite(lat)
    x = _cells(np.where(finite, lon, 0.0), 180.0)
    y = _cells(np.where(finite, lat, 0.0), 90.0)
    key = np.zeros(len(x), np.int64)
    for bit in range(_BITS - 1, -1, -1):
        in_x, in_y = (x >> bit) & 1, (y >> bit) & 1
        key += ((3 * in_x) ^ in_y) << (2 * bit)
        # A quadrant is entered rotated: flip both axes, then swap them.
        flip = (in_y == 0) & (in_x == 1)
        mask = (np.int64(1) << bit) - 1
        x, y = np.where(flip, ~x & mask, x & mask), np.where(flip, ~y & mask, y & mask)
        swap = in_y == 0
        x, y = np.where(swap, y, x), np.where(swap, x, y)
    key[~finite] = NOWHERE
    return key


def _cells(degrees: NDArray[np.float64], half: float) -> NDArray[np.int64]:
    """Degrees to cells 0 .. 2^bits - 1."""
    top = 2**_BITS - 1
    scaled = (degrees + half) * (2**_BITS / (2 * half))
    cells: NDArray[np.int64] = np.clip(np.floor(scaled), 0, top).astype(np.int64)
    return cells


def bbox_keys(bbox: pa.Array) -> NDArray[np.int64]:
    """Curve position of the centre of each box.

    Args:
        bbox: Structs of ``xmin, ymin, xmax, ymax``, lon/lat degrees; ``xmin > xmax``
            crosses the antimeridian.

    Returns:
        ``int64``, one key for each box; `NOWHERE` where the box or a bound is NULL.
    """
    west, south, east, north = (_bound(bbox, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    lon = (west + east) / 2
    crossing = west > east
    lon = np.where(crossing, np.where(lon < 0, lon + 180.0, lon - 180.0), lon)
    return hilbert_keys(lon, (south + north) / 2)


def _bound(bbox: pa.Array, name: str) -> NDArray[np.float64]:
    """One bound as float64, NaN for NULL."""
    values = pc.cast(pc.struct_field(bbox, name), pa.float64())
    filled: NDArray[np.float64] = pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False)
    return filled


def key_columns(records: pa.Table) -> pa.Table:
    """The columns that `record_order` looks at, first things first."""
    names = [name for name in ("bbox", "datetime", "id") if name in records.column_names]
    columns: dict[str, object] = {name: records[name] for name in names}
    if "bbox" in columns:
        keys = [bbox_keys(chunk) for chunk in records["bbox"].chunks]
        columns["bbox"] = pa.chunked_array(keys, pa.int64())
    return pa.table(columns)


def record_order(records: pa.Table) -> pa.Array:
    """Row numbers that sort records along the curve, ties by datetime, then id.

    Args:
        records: A table with any of ``bbox`` (boxes, or the keys of them), ``datetime``, ``id``.

    Returns:
        ``uint64``, to be used with ``Table.take``; NULL comes last.
    """
    columns = records
    if "bbox" not in records.column_names or not pa.types.is_integer(records["bbox"].type):
        columns = key_columns(records)
    if columns.num_columns == 0:
        return pa.array(np.arange(records.num_rows, dtype=np.uint64))
    names = [name for name in ("bbox", "datetime", "id") if name in columns.column_names]
    return pc.sort_indices(columns, sort_keys=[(name, "ascending") for name in names])
