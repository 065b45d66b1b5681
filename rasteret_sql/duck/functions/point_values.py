"""The UDF behind rasteret_value, which `sql/35_values.sql` defines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.duck.scalars import failed, row_batch, succeeded, without_geometry_crs
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.outputs.point_values import values_at
from rasteret_sql.remote.waiting import check_stop
from rasteret_sql.schema import metadata_column

_FUNCTION = "rasteret_value"
_NUMBERS = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null
_POINT = "POINT as GEOMETRY, WKB or WKT, or [lon, lat]"


def make_value(runtime: Runtime) -> Callable[..., pa.Array]:
    """The UDF behind `rasteret_value`."""

    def value(records: pa.Array, bands: pa.Array, points: pa.Array, callers: pa.Array) -> pa.Array:
        if not len(records) or pa.types.is_null(records.type):
            return succeeded(pa.nulls(len(records), pa.float64()))
        caller = callers[0].as_py()
        try:
            band = bands[0].as_py()
            if band is None:
                raise InputError.expected("band", "a name", None, "write 'B04'")
            rows, record = _distinct(records, band)
            lon, lat = _places(points)
            record[np.isnan(lon) | np.isnan(lat)] = -1
            with runtime.scans.working(caller) as stop:
                found = values_at(rows, band, record, lon, lat, stop, check_stop)
        except RasteretError as error:
            return failed(runtime, error, (_FUNCTION, caller), pa.float64(), len(records))
        return succeeded(found)

    return value


def _distinct(records: pa.Array, band: str) -> tuple[pa.RecordBatch, Ints]:
    """Each record once, and the number of that of each row; -1 where there is no band."""
    rows = without_geometry_crs(row_batch(records))
    is_null = pc.or_(rows.column("metadata").is_null(), rows.column("id").is_null())
    is_null = is_null.to_numpy(zero_copy_only=False)
    numbers: dict[int, int] = {}
    first: list[int] = []
    number = np.full(len(is_null), -1, np.int64)
    for row, key in enumerate(rows.column("key").to_pylist()):
        if is_null[row]:
            continue
        if key not in numbers:
            numbers[key] = len(first)
            first.append(row)
        number[row] = numbers[key]
    some = rows.take(pa.array(first, pa.int64()))
    assets = pa.StructArray.from_arrays([some.column("asset")], [band])
    return pa.RecordBatch.from_arrays(
        [some.column("id"), assets, some.column("metadata"), some.column("crs")],
        ["id", "assets", metadata_column(band), "crs"],
    ), number


def _places(points: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude; NaN without a point.

    Raises:
        InputError: they are no points.
    """
    whole = points.combine_chunks() if isinstance(points, pa.ChunkedArray) else points
    if isinstance(whole, pa.ExtensionArray):
        whole = whole.storage
    kind = whole.type
    if pa.types.is_null(kind):
        nothing = np.full(len(whole), np.nan)
        return nothing, nothing
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        pairs = whole.to_pylist()
        if any(one is not None and (len(one) != 2 or None in one) for one in pairs):
            raise InputError.expected("point", "[lon, lat]", "another list", "give two numbers")
        item = kind.value_type
        if not any(check(item) for check in _NUMBERS):
            raise InputError.expected("point", "[lon, lat]", "no numbers", "give two numbers")
        found = np.array([(np.nan, np.nan) if one is None else one for one in pairs], np.float64)
        return found[:, 0].copy(), found[:, 1].copy()
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text and not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError.expected("point", _POINT, str(kind), "as in [77.98, 13.01]")
    read = shapely.from_wkt if is_text else shapely.from_wkb
    try:
        geometries = read(np.array(whole.to_pylist(), object))
    except shapely.errors.GEOSException:
        raise InputError.expected("point", _POINT, "no geometry", "correct it") from None
    is_other = (shapely.get_type_id(geometries) != 0) & ~shapely.is_missing(geometries)
    if is_other.any():
        other = geometries[is_other][0].geom_type
        raise InputError.expected("point", _POINT, other, "use rasteret_zonal_stats for areas")
    geometries[shapely.is_empty(geometries)] = None
    return shapely.get_x(geometries), shapely.get_y(geometries)
