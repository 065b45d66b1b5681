"""Rows that have places: pixels as a cube, records and points as geometries on the map.

What `rasteret_sql.to_xarray` and `to_geopandas` do with rows that are no windows, as those of
`rasteret_pixels`, `rasteret_sample_points`, `rasteret_zonal_stats` and of a collection itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rasteret_sql.collections.geo_key import extension
from rasteret_sql.errors import InputError, UnknownBandError
from rasteret_sql.grid.crs import LONLAT, crs_of
from rasteret_sql.grid.windows import pixel_centres
from rasteret_sql.units import Affine, Window

_PLACES = frozenset(
    ("x", "y", "row", "col", "lon", "lat", "coverage", "year", "month", "id", "record_id")
)
"""Columns of `rasteret_pixels` that are no bands; neither are those with a colon in the name."""
_GEOMETRIES = ("geometry", "geom", "wkb_geometry")
_POINTS = (("lon", "lat"), ("point_x", "point_y"), ("x", "y"))
_CRS_COLUMNS = ("point_crs", "crs", "proj:epsg")
_TOLERANCE = 1e-3
"""Pixels: by how much a place may lie beside the grid."""
_MOST_CELLS_PER_ROW = 100

Ints = NDArray[np.intp]


class Cube(NamedTuple):
    """Pixels as an array, with labels.

    Attributes:
        values: Shape (time, band, y, x).
        coordinates: As xarray takes them.
        attributes: The same.
    """

    values: NDArray[Any]
    coordinates: dict[str, Any]
    attributes: dict[str, Any]


class _Axis(NamedTuple):
    """Pixel centres along an axis, evenly spaced, and the place of each row among them."""

    first: float
    step: float | None
    size: int
    places: Ints


def are_pixels(schema: pa.Schema) -> bool:
    """Whether rows are pixels: they have centres."""
    return {"x", "y"} <= set(schema.names)


def cube_of(table: pa.Table, bands: Sequence[str] | None) -> Cube:
    """Pixels on one grid as one array, a row of `table` for each pixel of a record.

    Args:
        table: With columns x, y and bands; id, datetime and CRS where it has them.
        bands: Columns that are bands; None: all columns of numbers but those of place and
            time and those with a colon in the name.

    Raises:
        InputError: no bands, pixels that are on no common grid, or one that comes twice.

    Example:
        >>> rows = pa.table({"x": [0.5, 1.5, 1.5], "y": [1.5, 1.5, 0.5], "B04": [1, 2, 3]})
        >>> cube_of(rows, None).values[0, 0]
        array([[ 1.,  2.],
               [nan,  3.]])
    """
    names, crs = _bands(table, bands), _crs(table)
    x, y = _axis(table, "x"), _axis(table, "y")
    records, coordinates = _records(table)
    n_records = int(records.max()) + 1 if len(records) else 0
    shape = (n_records, len(names), y.size, x.size)
    if n_records * y.size * x.size > _MOST_CELLS_PER_ROW * (len(records) + 1000):
        raise InputError.expected(
            "relation", "pixels of one area", f"{len(records)} in {y.size} x {x.size} places",
            "read one area",
        )  # fmt: skip
    rows = y.size - 1 - y.places
    cells = (records * y.size + rows) * x.size + x.places
    is_full = len(cells) == n_records * y.size * x.size
    if len(np.unique(cells)) != len(cells):
        raise InputError.expected(
            "relation", "each pixel of a record once", "one that comes twice",
            "select id, and read one area",
        )  # fmt: skip
    columns = [_plain(table[name]) for name in names]
    is_whole = is_full and not any(column.null_count for column in columns)
    kinds = [np.dtype(column.type.to_pandas_dtype()) for column in columns]
    dtype = np.result_type(*kinds) if is_whole else _with_nan(kinds)
    values = np.full(shape, 0 if is_whole else np.nan, dtype)
    for number, column in enumerate(columns):
        values[records, number, rows, x.places] = column.to_numpy()
    coordinates["band"] = list(names)
    step_x, step_y = x.step or y.step, y.step or x.step
    affine = None
    if step_x is not None and step_y is not None:
        top = y.first + (y.size - 1) * step_y + step_y / 2
        affine = Affine(step_x, 0.0, x.first - step_x / 2, 0.0, -step_y, top)
    else:  # one pixel, of a size that nobody told
        coordinates |= {"x": [x.first], "y": [y.first]}
    labels, attributes = labels_of(affine, crs, y.size, x.size)
    return Cube(values, coordinates | labels, attributes)


def labels_of(
    affine: Affine | None, crs_text: str | None, height: int, width: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Coordinates and attributes of a grid, as the CF conventions have them.

    Args:
        affine: None: nothing is known of its place.
        crs_text: None where it is not known.
        height: Rows.
        width: Columns.
    """
    if affine is None:
        return {}, {}
    coords: dict[str, Any] = {}
    crs = crs_of(crs_text) if crs_text else None
    reference = crs.to_cf() if crs is not None else {}
    a, b, c, d, e, f = affine
    reference["GeoTransform"] = " ".join(map(repr, (c, a, b, f, d, e)))
    coords["spatial_ref"] = ((), 0, reference)
    axes = {axis["axis"]: axis for axis in (crs.cs_to_cf() if crs is not None else [])}
    x, y = pixel_centres(affine, Window(0, height, 0, width))
    if affine.is_rectilinear:
        coords["x"] = ("x", x, axes.get("X", {}))
        coords["y"] = ("y", y, axes.get("Y", {}))
    else:  # no axis of the map: auxiliary coordinates of two dimensions
        for name, grid in (("xc", x), ("yc", y)):
            plain = {k: v for k, v in axes.get(name[0].upper(), {}).items() if k != "axis"}
            coords[name] = (("y", "x"), grid, plain)
    return coords, {"grid_mapping": "spatial_ref"}


def geometries_of(table: pa.Table) -> dict[str, tuple[NDArray[Any], Any]]:
    """The geometries of rows, and their CRS, by the name of their column.

    They are the columns of type GEOMETRY, else geometry, geom or wkb_geometry as WKB or WKT,
    else points of lon and lat, point_x and point_y, or x and y.

    Raises:
        InputError: there are none, or points of several CRS.
    """
    found = {
        field.name: (shapely.from_wkb(storage(table, field.name).to_pylist()), _crs_of(field))
        for field in table.schema
        if is_wkb(field)
    }
    for name in () if found else _GEOMETRIES:
        if name in table.column_names:
            texts = table[name].to_pylist()
            is_text = any(isinstance(one, str) for one in texts)
            return {name: ((shapely.from_wkt if is_text else shapely.from_wkb)(texts), LONLAT)}
    for x, y in () if found else _POINTS:
        if {x, y} <= set(table.column_names):
            places = np.column_stack([table[x].to_numpy(), table[y].to_numpy()])
            crs = LONLAT if x == "lon" else _crs(table)
            return {"geometry": (shapely.points(places.astype(float)), crs)}
    if not found:
        raise InputError.expected(
            "relation",
            "windows of rasteret_read, or a column geometry, or lon and lat, or x and y",
            ", ".join(table.column_names) or "none",
            "select one of these too",
        )
    return found


def times_of(column: pa.Array | pa.ChunkedArray) -> NDArray[np.datetime64]:
    """Times in UTC: of nanoseconds, as xarray has them, or of microseconds beyond 1677 to 2262.

    Raises:
        InputError: they are numbers, as of years.
    """
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        raise InputError.expected(
            "relation, column datetime", "TIMESTAMP or DATE", column.type, "cast it"
        )
    try:
        times = column.cast(pa.timestamp("ns"))
    except pa.ArrowInvalid:
        times = column.cast(pa.timestamp("us"))
    return np.asarray(times.to_numpy())


def storage(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column without its extension type."""
    column = table[name]
    if isinstance(column.type, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        return pa.chunked_array(chunks, column.type.storage_type)
    return column


def is_wkb(field: pa.Field) -> bool:
    """Whether a column is GEOMETRY, which DuckDB gives as WKB."""
    return extension(field)[0] == "geoarrow.wkb"


def _crs_of(field: pa.Field) -> Any:  # noqa: ANN401 (a CRS, or its name)
    """The CRS that a column of GEOMETRY names; longitude and latitude where it names none."""
    told = extension(field)[1]
    named = told.get("id", {}) if isinstance(told, dict) else {}
    if told in (None, LONLAT) or (named.get("authority"), named.get("code")) == tuple(
        LONLAT.split(":")
    ):
        return LONLAT
    return crs_of(told if isinstance(told, str) else json.dumps(told))


def _bands(table: pa.Table, bands: Sequence[str] | None) -> list[str]:
    known = [field.name for field in table.schema if _is_number(field.type)]
    if bands is None:
        found = [name for name in known if name not in _PLACES and ":" not in name]
    else:
        found = [bands] if isinstance(bands, str) else list(bands)
        for name in found:
            if name not in known:
                raise UnknownBandError.of(name, known)
    if not found:
        raise InputError.expected(
            "relation", "columns of bands", ", ".join(table.column_names), "select bands too"
        )
    return found


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of a type that NumPy has; HUGEINT, as of sum(), comes as DECIMAL."""
    return column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column


def _with_nan(kinds: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """The smallest float that holds values of these types, as far as a float does."""
    return np.result_type(np.float32, *kinds)


def _axis(table: pa.Table, name: str) -> _Axis:
    values = table[name].to_numpy().astype(float)
    if not len(values):
        return _Axis(0.0, None, 0, np.empty(0, np.intp))
    distinct = np.unique(values)
    if len(distinct) == 1:
        return _Axis(float(distinct[0]), None, 1, np.zeros(len(values), np.intp))
    gaps = np.diff(distinct)
    step = float(gaps[gaps > gaps.max() * 1e-6].min())
    places = np.rint((values - distinct[0]) / step)
    if np.abs(values - distinct[0] - places * step).max() > _TOLERANCE * step:
        raise InputError.expected(
            f"relation, column {name}",
            "pixels of one grid",
            f"centres that are not multiples of {step:g} apart",
            "read scenes of one CRS, or give resolution and crs",
        )
    return _Axis(float(distinct[0]), step, int(places.max()) + 1, places.astype(np.intp))


def _records(table: pa.Table) -> tuple[Ints, dict[str, Any]]:
    """The number of each row's record, by time and id, and coordinates of the records."""
    keys = [name for name in ("datetime", "id", "record_id") if name in table.column_names]
    if "datetime" in keys and table["datetime"].null_count == table.num_rows:
        keys.remove("datetime")  # rasters without dates
    if not keys:
        return np.zeros(table.num_rows, np.intp), {}
    columns = []
    for name in keys:
        column = table[name].combine_chunks()
        moments = name == "datetime"
        if column.null_count and not moments:
            raise InputError.expected(
                f"relation, column {name}", "a value in each row", None, "leave such rows out"
            )
        columns.append(
            times_of(column) if moments else np.array(column.to_pylist(), dtype=object).astype(str)
        )
    codes = [np.unique(column, return_inverse=True)[1] for column in columns]
    whole = np.zeros(table.num_rows, np.int64)
    for code in codes:
        whole = whole * (int(code.max(initial=0)) + 1) + code
    _, first, records = np.unique(whole, return_index=True, return_inverse=True)
    found: dict[str, Any] = {}
    for name, column in zip(keys, columns, strict=True):
        if name == "datetime":
            found["time"] = column[first]
        else:
            found[name] = ("time", column[first].astype(object))
    return records, found


def _crs(table: pa.Table) -> str | None:
    """The one CRS of all rows.

    Raises:
        InputError: there are several.
    """
    for name in _CRS_COLUMNS:
        if name in table.column_names:
            found = [one for one in table[name].unique().to_pylist() if one is not None]
            if len(found) > 1:
                raise InputError.expected(
                    f"relation, column {name}", "one CRS", ", ".join(map(str, found)),
                    "choose one with WHERE, or read with crs and resolution",
                )  # fmt: skip
            if found:
                return f"EPSG:{found[0]}" if isinstance(found[0], int) else str(found[0])
    return None
