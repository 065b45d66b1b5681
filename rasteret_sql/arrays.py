"""Results as NumPy arrays, xarray and GeoPandas.

BLOBs become arrays that lie where Arrow has them: read-only, and not copied unless rows
that Arrow keeps apart are stacked. xarray and GeoPandas are imported when they are used.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, overload

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rasteret_sql.collections.geo_key import with_declared_crs
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.grid.crs import LONLAT
from rasteret_sql.grid.outlines import outline
from rasteret_sql.reading.columns import common_type
from rasteret_sql.reading.patches import value_dtype
from rasteret_sql.rows import (
    are_pixels,
    cube_of,
    geometries_of,
    is_wkb,
    labels_of,
    storage,
    times_of,
)
from rasteret_sql.units import Affine

if TYPE_CHECKING:
    import geopandas
    import xarray

_ROWS_AT_ONCE = 8
"""DuckDB puts at most 2 GiB of one BLOB column into an Arrow batch."""

_FACTS = ("height", "width", "dtypes")
_INLINE_BYTES = 12
_GRID_TOLERANCE = 1e-3
"""Pixels: by how much two grids may differ and still count as the same."""


class ArrowStream(Protocol):
    """What can give its rows as Arrow: a relation of DuckDB's, a table or reader of PyArrow's."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The stream of the Arrow C interface."""
        ...


Array: TypeAlias = NDArray[Any]


@overload
def to_numpy(relation: ArrowStream, *, stack: Literal[True] = True) -> dict[str, Array]: ...
@overload
def to_numpy(
    relation: ArrowStream, *, stack: Literal[False]
) -> dict[str, list[NDArray[Any] | None]]: ...
def to_numpy(
    relation: ArrowStream, *, stack: bool = True
) -> dict[str, Array] | dict[str, list[Array | None]]:
    """The arrays of a result of `rasteret_read` or `rasteret_chips`.

    Arrays are read-only views of Arrow's memory where they can be: with ``stack=False``
    all are; stacked ones are where the rows lie in one Arrow batch (a relation gives
    batches of 8 rows), else they are copied once.

    Args:
        relation: The rows, with their columns height, width, dtypes and all bands that were
            read: ``con.sql("FROM rasteret_read(…)")``, or a table or reader of PyArrow's.
        stack: One array per band; False: one per band and row.

    Returns:
        By name of the band, in native dtype: an array of shape (rows, height, width),
        (0, 0, 0) of a result without rows; with ``stack=False`` a list of arrays of shape
        (height, width), None where the band is NULL. With ``valid := true`` also ``valid``,
        bool, of shape (rows, bands, height, width), and (bands, height, width) in the list.
        With ``stack := 'time'`` and the column record_ids, the records of a row stand before
        height, as (rows, records, height, width).

    Raises:
        InputError: the columns are not those of `rasteret_read`, or rows to be stacked have
            windows of unlike size or dtype, or unlike numbers of records, or NULL.

    Example:
        >>> rows = pa.table({"B04": [bytes([1, 0, 2, 0, 3, 0, 4, 0])], "height": [2],
        ...                  "width": [2], "dtypes": [["uint16"]]})
        >>> to_numpy(rows)["B04"]
        array([[[1, 2],
                [3, 4]]], dtype=uint16)
    """
    windows = _Windows(relation)
    if stack:
        return {name: windows.stacked(name) for name in windows.names}
    return {name: windows.listed(name) for name in windows.names}


def to_xarray(relation: ArrowStream, *, bands: Sequence[str] | None = None) -> xarray.DataArray:
    """The windows of a time series, or its pixels, as one labelled array.

    Args:
        relation: As in `to_numpy`, its rows on one grid: one area, scenes of one CRS. With
            its columns transform and datetime, and the CRS in ``crs`` or ``"proj:epsg"``. Or
            rows of `rasteret_pixels`, with their columns x and y.
        bands: Of pixels, the columns that are bands; default: all columns of numbers but those
            of place and time and those with a colon in the name.

    Returns:
        Shape (time, band, y, x), a row of the result for each time, in the order of rows. Of
        `rasteret_composite` a time is a period.
        Of bands of several types, the smallest dtype that holds all values exactly. Of one
        band, not copied where `to_numpy` copies nothing. Coordinates: ``time`` (UTC; none
        where all are NULL), ``band``, ``y`` and ``x`` (pixel centres, CRS units; of a
        rotated raster ``yc`` and ``xc`` of shape (y, x)), ``id`` by time, ``valid`` of
        shape (time, band, y, x) with ``valid := true``, and ``spatial_ref``, the grid mapping
        of the CF conventions. The nodata value that all bands share is the attribute
        ``_FillValue``.

        Of pixels a time is a record, in the order of time and id; their values are floats with
        NaN where a pixel is not there or holds no data, and in their own type where each does.
        This copies: `rasteret_read` is for large areas.

    Raises:
        InputError: as of `to_numpy`; or rows on unlike grids.
        RasteretError: xarray is not installed.
    """
    labelled = _imported("xarray").DataArray
    dims = ("time", "band", "y", "x")
    table = _table_of(relation)
    if "dtypes" not in table.column_names and are_pixels(table.schema):
        values, coords, attributes = cube_of(table, bands)
        pixels: xarray.DataArray = labelled(values, coords, dims, name="pixels", attrs=attributes)
        return pixels
    windows = _Windows(table)
    windows.check_one_grid()
    stacks = [windows.stacked(band) for band in windows.bands]
    kinds = {str(one.dtype) for one in stacks}
    if len(kinds) > 1:
        kind = common_type(sorted(kinds))
        dtype = np.complex128 if pa.types.is_struct(kind) else kind.to_pandas_dtype()
        stacks = [one.astype(dtype) for one in stacks]
    values = stacks[0][:, np.newaxis] if len(stacks) == 1 else np.stack(stacks, axis=1)
    coords, attributes = windows.coordinates(values.shape[2], values.shape[3])
    if "valid" in windows.names:
        coords["valid"] = (dims, windows.stacked("valid"))
    found: xarray.DataArray = labelled(values, coords, dims, name="pixels", attrs=attributes)
    return found


def to_geopandas(relation: ArrowStream) -> geopandas.GeoDataFrame:
    """The rows as a GeoDataFrame: footprints on the map, an array in each cell of a band.

    Args:
        relation: As in `to_numpy`; windows may be of any size. Or rows with a column of
            geometries, as those of a collection or of zones; or with ``lon`` and ``lat``,
            ``point_x`` and ``point_y``, or ``x`` and ``y``, which become points.

    Returns:
        A row per row of the result and all its columns. Cells of a band hold arrays of
        shape (height, width), not copied, or None. ``geometry`` is the column of that name
        where the result has one (as of `rasteret_chips`), else the outline of the window,
        in longitude and latitude (OGC:CRS84); None where the raster has no place on the map.

    Raises:
        InputError: the columns are not those of `rasteret_read`.
        RasteretError: GeoPandas is not installed.
    """
    geopandas = _imported("geopandas")
    table = _table_of(relation)
    if not set(_FACTS) <= set(table.column_names):
        return _located(table, geopandas)
    windows = _Windows(table)
    plain = [f.name for f in table.schema if f.name not in windows.names and not is_wkb(f)]
    frame = table.select(plain).to_pandas()
    for name in table.column_names:
        if name in windows.names:
            cells = np.empty(table.num_rows, dtype=object)
            for row, array in enumerate(windows.listed(name)):
                cells[row] = array
            frame[name] = cells
        elif name not in plain:
            shapes = shapely.from_wkb(storage(table, name).to_pylist())
            frame[name] = geopandas.GeoSeries(shapes, index=frame.index, crs=LONLAT)
    if "geometry" not in frame.columns:
        outlines = geopandas.GeoSeries(windows.outlines(), index=frame.index, crs=LONLAT)
        frame["geometry"] = outlines
    ordered = [*(n for n in table.column_names if n != "geometry"), "geometry"]
    return geopandas.GeoDataFrame(frame[ordered], geometry="geometry", crs=LONLAT)


def _located(table: pa.Table, geopandas: Any) -> geopandas.GeoDataFrame:  # noqa: ANN401
    """Rows that are no windows, with their geometries."""
    found = geometries_of(table)
    frame = table.select([n for n in table.column_names if n not in found]).to_pandas()
    for name, (shapes, crs) in found.items():
        frame[name] = geopandas.GeoSeries(shapes, index=frame.index, crs=crs)
    active = "geometry" if "geometry" in found else next(iter(found))
    ordered = [*(n for n in table.column_names if n != active), active]
    return geopandas.GeoDataFrame(frame[ordered], geometry=active)


class _Windows:
    """A result of `rasteret_read`: its rows and what is known of them."""

    def __init__(self, relation: ArrowStream) -> None:
        self.table = _table_of(relation)
        schema = self.table.schema
        missing = [name for name in _FACTS if name not in schema.names]
        if missing:
            raise InputError.expected(
                "relation",
                f"the columns {', '.join(_FACTS)} of rasteret_read",
                f"no {', '.join(missing)}",
                "select them too",
            )
        blobs = [f.name for f in schema if _is_blob(f.type) and not is_wkb(f)]
        self.bands = [name for name in blobs if name != "valid"]
        self.names = [*self.bands, *(["valid"] if "valid" in blobs else [])]
        self._dtypes: list[list[str | None]] = self.table["dtypes"].to_pylist()
        if not self.bands:
            raise InputError.expected(
                "relation", "BLOB columns of bands", "none", "read with format := 'blob'"
            )

    @cached_property
    def _sizes(self) -> list[tuple[Any, Any]]:
        return list(zip(self.table["height"].to_pylist(), self.table["width"].to_pylist(),
                        strict=True))  # fmt: skip

    def _place(self, row: int, band: str) -> tuple[tuple[int, int], np.dtype[Any]]:
        """Size of the window, and the type of its values."""
        kinds = self._dtypes[row] or []
        told = {kind for kind in kinds if kind is not None}
        position = self.bands.index(band)
        if len(kinds) != len(self.bands) and len(told) > 1:
            raise InputError.expected(
                "relation",
                f"{len(kinds)} bands, as its column dtypes has",
                f"{len(self.bands)} ({', '.join(self.bands)})",
                "select all bands that are read, or read only those",
            )
        kind = kinds[position] if len(kinds) == len(self.bands) else next(iter(told), None)
        height, width = self._sizes[row]
        if isinstance(height, list):  # align := 'band'
            if len(height) != len(self.bands):
                raise InputError.expected(
                    "relation", f"{len(height)} bands", len(self.bands), "select all of them"
                )
            height, width = height[position], width[position]
        return (height, width), value_dtype(kind or "uint8").newbyteorder("<")

    @cached_property
    def _records(self) -> list[Any]:
        """The records of each row of stacks; nothing of other rows."""
        return self.table["record_ids"].to_pylist() if self.is_of_stacks else []

    @property
    def is_of_stacks(self) -> bool:
        """Whether a row is a stack of chips."""
        return "record_ids" in self.table.column_names

    def _stack(self, row: int) -> tuple[int, ...]:
        """How many records lie behind each other in a row of stacks."""
        return (len(self._records[row] or ()),) if self.is_of_stacks else ()

    def listed(self, name: str) -> list[Array | None]:
        """An array for each row, (height, width), or (bands, height, width) of ``valid``."""
        cells = [cell for chunk in self.table[name].chunks for cell in _cells(chunk)]
        return [
            None if cell is None else self._shaped(row, name, cell)
            for row, cell in enumerate(cells)
        ]

    def _shaped(self, row: int, name: str, data: pa.Buffer) -> Array:
        shape: tuple[int, ...]
        if name == "valid":
            size, dtype = self._place(row, self.bands[0])[0], np.dtype(np.bool_)
            n_layers = data.size // max(1, size[0] * size[1])
            stack = self._stack(row)
            shape = (n_layers // max(1, *stack), *stack, *size) if stack else (n_layers, *size)
        else:
            size, dtype = self._place(row, name)
            shape = (*self._stack(row), *size)
        wanted = int(np.prod(shape)) * dtype.itemsize
        if wanted != data.size:
            raise InputError.expected(
                f"relation, column {name}",
                f"{wanted} bytes ({' x '.join(map(str, shape))} values of {dtype.name})",
                data.size,
                "select height, width, dtypes (of stacks also record_ids) as the read gives them",
            )
        return np.frombuffer(data, dtype).reshape(shape)

    def stacked(self, name: str) -> Array:
        """The arrays of all rows as one: where they lie, if they lie one behind the other."""
        arrays = self.listed(name)
        if not arrays:
            is_valid = name == "valid"
            return np.empty((0,) * (3 + is_valid + self.is_of_stacks), bool if is_valid else "u1")
        first = arrays[0]
        for row, array in enumerate(arrays):
            if array is None or first is None:
                row = row if array is None else 0
                raise InputError.expected(
                    f"relation, row {row + 1}, column {name}",
                    "an array",
                    None,
                    "leave such rows out with WHERE, or pass stack=False",
                )
            if array.shape != first.shape or array.dtype != first.dtype:
                raise InputError.expected(
                    f"relation, row {row + 1}, column {name}",
                    f"{_form(first)}, as in row 1",
                    _form(array),
                    "read one area on one grid, or pass to_numpy stack=False",
                )
        assert first is not None  # noqa: S101 (just checked)
        return _joined(self.table[name].chunks, first)

    def check_one_grid(self) -> None:
        """Refuse windows on unlike grids."""
        if self.is_of_stacks:
            raise InputError.expected(
                "relation", "a record in a row", "stacks of records", "use to_numpy"
            )
        if self.table.num_rows and isinstance(self._sizes[0][0], list):
            raise InputError.expected(
                "relation", "bands on one grid", "align := 'band'", "read with align := 'grid'"
            )
        crs, transforms = self._crs, self._transforms
        for row in range(1, self.table.num_rows):
            if crs[row] != crs[0] or not _is_same(transforms[row], transforms[0]):
                raise InputError.expected(
                    f"relation, row {row + 1}",
                    f"the grid of row 1 ({crs[0]}, transform {transforms[0]})",
                    f"{crs[row]}, {transforms[row]}",
                    "read one area, and scenes of one grid",
                )

    @cached_property
    def _transforms(self) -> list[Any]:
        is_there = "transform" in self.table.column_names
        nothing = [None] * self.table.num_rows
        return list(self.table["transform"].to_pylist() if is_there else nothing)

    @cached_property
    def _crs(self) -> list[str | None]:
        """CRS of each row: of the column ``crs``, else of ``proj:epsg``."""
        names = self.table.column_names
        texts, codes = (
            self.table[name].to_pylist() if name in names else [None] * self.table.num_rows
            for name in ("crs", "proj:epsg")
        )
        both = zip(texts, codes, strict=True)
        return [text or (f"EPSG:{code}" if code else None) for text, code in both]

    def outlines(self) -> list[shapely.Geometry | None]:
        """The window of each row, in longitude and latitude."""
        found: list[shapely.Geometry | None] = []
        for row in range(self.table.num_rows):
            six, crs, (height, width) = self._transforms[row], self._crs[row], self._sizes[row]
            if isinstance(height, list):  # one area: that of the first band that is there
                some = [n for n, one in enumerate(height) if one is not None]
                six, height, width = (
                    column[some[0]] if column and some else None for column in (six, height, width)
                )
            if six is None or crs is None or height is None:
                found.append(None)
                continue
            found.append(outline(Affine(*six), height, width, crs))
        return found

    def coordinates(self, height: int, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Coordinates and attributes of a stack, as the CF conventions have them."""
        coords: dict[str, Any] = {}
        names = self.table.column_names
        moment = next((name for name in ("datetime", "period") if name in names), None)
        if moment is not None and self.table[moment].null_count < max(1, self.table.num_rows):
            coords["time"] = times_of(self.table[moment])
        coords["band"] = self.bands
        for name in ("id", "record_id"):
            if name in names:
                coords[name] = ("time", np.array(self.table[name].to_pylist(), dtype=object))
        attributes: dict[str, Any] = {}
        nodata = self.table["nodata"].to_pylist() if "nodata" in names else []
        values = {
            math.nan if value != value else value for row in nodata for value in row or [None]
        }
        if len(values) == 1 and None not in values:
            attributes["_FillValue"] = values.pop()
        six = next(iter(self._transforms), None)
        affine = None if six is None else Affine(*six)
        labels, told = labels_of(affine, next(iter(self._crs), None), height, width)
        return coords | labels, attributes | told


def _table_of(relation: Any) -> pa.Table:  # noqa: ANN401 (what else it may be is refused)
    reader = getattr(relation, "to_arrow_reader", None)
    if reader is not None:
        table = reader(_ROWS_AT_ONCE).read_all()
        kinds = getattr(relation, "types", None) or [one[1] for one in relation.description]
        schema = with_declared_crs(table.schema, kinds)
        return pa.Table.from_arrays(table.columns, schema=schema)
    if not hasattr(relation, "__arrow_c_stream__"):
        raise InputError.expected(
            "relation",
            "a relation, or a table or reader of PyArrow's",
            type(relation).__name__,
            "con.sql('FROM rasteret_read(…)') gives one",
        )
    return pa.table(relation)


def _cells(chunk: pa.Array) -> list[pa.Buffer | None]:
    """The bytes of each BLOB, where they lie; a scalar of Arrow's would copy them."""
    first, stop = chunk.offset, chunk.offset + len(chunk)
    _, places, *data = chunk.buffers()
    is_there = chunk.is_valid().to_numpy(zero_copy_only=False)
    found: list[pa.Buffer | None] = [None] * len(chunk)
    if chunk.type == pa.binary_view():
        words = np.frombuffer(places, np.int32).reshape(-1, 4)[first:stop].tolist()
        for row, (size, _, number, begin) in enumerate(words):
            if is_there[row]:
                is_inline = size <= _INLINE_BYTES
                held, at = (places, 16 * (first + row) + 4) if is_inline else (data[number], begin)
                found[row] = held.slice(at, size)
        return found
    kind = np.int64 if pa.types.is_large_binary(chunk.type) else np.int32
    offsets = np.frombuffer(places, kind)[first : stop + 1].tolist()
    held = data[0] if data[0] is not None else pa.py_buffer(b"")
    for row in np.flatnonzero(is_there).tolist():
        found[row] = held.slice(offsets[row], offsets[row + 1] - offsets[row])
    return found


def _joined(chunks: Sequence[pa.Array], first: Array) -> Array:
    """Rows without NULL as one array: where they lie, if that is one behind the other."""
    cells = [cell for chunk in chunks for cell in _cells(chunk) if cell is not None]
    begin = cells[0].address
    is_adjacent = all(cell.address == begin + n * first.nbytes for n, cell in enumerate(cells))
    for data in (data for chunk in chunks for data in chunk.buffers() if data is not None):
        start, n_bytes = begin - data.address, first.nbytes * len(cells)
        if is_adjacent and start >= 0 and start + n_bytes <= data.size:
            values = np.frombuffer(data.slice(start, n_bytes), first.dtype)
            return values.reshape(len(cells), *first.shape)
    return np.stack([np.frombuffer(cell, first.dtype).reshape(first.shape) for cell in cells])


def _form(array: Array) -> str:
    return f"{' x '.join(map(str, array.shape))} values of {array.dtype.name}"


def _is_same(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    limit = _GRID_TOLERANCE * abs(Affine(*other).determinant) ** 0.5
    return bool(np.allclose(one, other, rtol=0, atol=limit))


def _is_blob(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or kind == pa.binary_view()
    )


def _imported(name: str) -> Any:  # noqa: ANN401 (a module)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RasteretError.expected(
            name, "it installed", "no such package", f"pip install 'rasteret_sql[{name}]'"
        ) from error
