"""Relations of points: rows with x and y, or with a geometry, and with a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_sql.errors import InputError
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.points import Floats, Points
from rasteret_sql.reading.targets import find_geometry_column, one_batch, shapes_of

_XY_NAMES = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"))
_FAR = 2**60
"""Microseconds; twice the time between two such moments is an int64."""


def parse_points(
    table: pa.Table,
    *,
    x_column: str | None = None,
    y_column: str | None = None,
    geometry_column: str | None = None,
    geometry_crs: object = None,
    time_column: str | None = None,
) -> Points:
    """Read a relation of points.

    Args:
        table: One row per point; a NULL coordinate or geometry leaves it out.
        x_column: Column of x; with `y_column`.
        y_column: Column of y.
        geometry_column: Column of points; without any of the three see `find_point_columns`.
        geometry_crs: CRS of them all, ``'pixel'`` for columns and rows.
        time_column: TIMESTAMP, TIMESTAMPTZ or DATE of the point.

    Raises:
        InputError: there is no such column, or it holds no points.
    """
    names = find_point_columns(table.schema, x_column, y_column, geometry_column)
    if len(names) == 1:
        shapes, there, crs = shapes_of(table, names[0], geometry_crs, "points")
        odd = np.flatnonzero(shapely.get_type_id(shapes) != 0)
        if len(odd):
            raise InputError.expected(
                f"points, column {names[0]}",
                "points",
                shapes[odd[0]].geom_type,
                "ST_Centroid gives a point of an area, rasteret_pixels reads areas",
            )
        x, y = shapely.get_x(shapes), shapely.get_y(shapes)
        table = table.drop_columns(list(names)).filter(pa.array(there))
    else:
        x, y = (_numbers(table, name) for name in names)
        there = np.isfinite(x) & np.isfinite(y)
        x, y, table = x[there], y[there], table.filter(pa.array(there))
        _, _, crs = shapes_of(
            pa.table({"g": pa.nulls(0, pa.binary())}), "g", geometry_crs, "points"
        )
    moments = None if time_column is None else moments_of(table, time_column)
    return Points(x, y, crs, one_batch(table), moments)


def find_point_columns(
    schema: pa.Schema, x: str | None, y: str | None, geometry: str | None
) -> tuple[str, ...]:
    """The column of points, or the two of x and y.

    Those asked for; else the one of type GEOMETRY; else columns named x and y, lon and lat,
    longitude and latitude or lng and lat; else a column named like a geometry.

    Raises:
        InputError: there are none.
    """
    if (x is None) != (y is None):
        raise InputError.expected(
            "x_column", "x_column and y_column", "one of them", "give both, or a geometry_column"
        )
    if x is not None and y is not None:
        if geometry is not None:
            raise InputError.expected(
                "geometry_column",
                "x_column and y_column, or geometry_column",
                "all",
                "leave one out",
            )
        for argument, name in (("x_column", x), ("y_column", y)):
            if name not in schema.names:
                raise InputError.expected(
                    argument, f"one of {', '.join(schema.names[:12])}", name, "correct it"
                )
        return x, y
    if geometry is not None:
        return (find_geometry_column(schema, geometry, "points"),)
    typed = [one.name for one in schema if b"geoarrow.wkb" in _extension(one)]
    if len(typed) == 1:
        return (typed[0],)
    lower = {name.lower(): name for name in schema.names}
    for pair in _XY_NAMES:
        if set(pair) <= set(lower):
            return lower[pair[0]], lower[pair[1]]
    try:
        return (find_geometry_column(schema, None, "points"),)
    except InputError:
        raise InputError.expected(
            "points",
            "columns x and y, lon and lat, or a column of geometries",
            ", ".join(schema.names[:12]),
            "name them with x_column and y_column, or geometry_column",
        ) from None


def moments_of(table: pa.Table | pa.RecordBatch, name: str) -> Ints:
    """Microseconds since 1970, UTC, of a column; `Points.UNKNOWN` for NULL.

    Those 36,000 years and further away, as 'infinity', are that far.

    Raises:
        InputError: there is no such column, or it holds no times.
    """
    if name not in table.schema.names:
        listed = ", ".join(table.schema.names[:12])
        raise InputError.expected("time_column", f"one of {listed}", name, "correct it")
    column = table.column(name)
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise InputError.expected(
            "time_column",
            f"{name} of TIMESTAMP, TIMESTAMPTZ or DATE",
            kind,
            f"cast it: {name}::TIMESTAMP",
        )
    micros = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
    whole = pc.fill_null(micros.cast(pa.int64()), Points.UNKNOWN)
    moments: Ints = (
        np.asarray(whole.to_numpy(), np.int64)
        if isinstance(whole, pa.ChunkedArray)
        else (whole.to_numpy(zero_copy_only=False))
    )
    return np.where(moments == Points.UNKNOWN, moments, np.clip(moments, -_FAR, _FAR))


def _extension(field: pa.Field) -> bytes:
    named = (field.metadata or {}).get(b"ARROW:extension:name", b"")
    return named or str(getattr(field.type, "extension_name", "")).encode()


def _numbers(table: pa.Table, name: str) -> Floats:
    column = table.column(name)
    kind = column.type
    if column.null_count == len(column):  # of no value, as in a CSV file without rows, any type
        return np.full(len(column), np.nan)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise InputError.expected(
            f"points, column {name}", "numbers", kind, f"cast it: {name}::DOUBLE"
        )
    filled = pc.fill_null(column.cast(pa.float64(), safe=False), float("nan"))
    return np.asarray(filled.to_numpy(), np.float64)
