"""What is wrong with a record: columns of a batch, checked together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from rasteret_sql.errors import CollectionError, RasteretError, shorten
from rasteret_sql.grid.crs import crs_of
from rasteret_sql.ingest.table.layout import plain
from rasteret_sql.schema import (
    ASSET,
    BAND_METADATA,
    BBOX,
    PARTITION_KEYS,
    bands_of,
    metadata_column,
)

FAULT_SCHEMA = pa.schema([(n, pa.string()) for n in ("id", "column", "band", "fault")])

_EDGE_DEGREES = 1e-6
"""How far a footprint may stand out of its bbox: what rounding does."""

_Test = Callable[[pa.DataType], bool]


class Fault(NamedTuple):
    """A row of ``rasteret_validate``; `id` is None where no record alone is at fault."""

    id: str | None
    column: str | None
    band: str | None
    fault: str


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _is_wkb(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _is_box(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    found = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    return all(pa.types.is_floating(found.get(name, pa.null())) for name in BBOX.names)


def _is_assets(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    names = set(ASSET.names)
    return _are_like_assets(kind) and all(names <= set(field.type.names) for field in kind)


def _are_like_assets(kind: pa.DataType) -> bool:
    """Whether what there is of assets is of the right types; an index may be missing."""
    return bool(pa.types.is_struct(kind)) and all(
        pa.types.is_struct(field.type) and header_fault(field.type, ASSET) is None for field in kind
    )


def header_fault(kind: pa.DataType, expected: pa.DataType) -> str | None:
    """The first field of a struct that is of another type than expected; None if none is.

    Integers of any width fit each other, and numbers fit where fractions are expected.

    Example:
        >>> wanted = pa.struct([("a", pa.int32()), ("b", pa.list_(pa.float64()))])
        >>> header_fault(pa.struct([("b", pa.list_(pa.string()))]), wanted)
        'b: expected list<item: double>, got list<item: string>'
        >>> header_fault(pa.struct([("a", pa.uint8())]), wanted) is None
        True
    """
    for i in range(expected.num_fields):
        field = expected.field(i)
        at = kind.get_field_index(field.name)
        if at >= 0 and not _fits(kind.field(at).type, field.type):
            return f"{field.name}: expected {field.type}, got {kind.field(at).type}"
    return None


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _fits(kind: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    if pa.types.is_struct(expected):
        return pa.types.is_struct(kind) and header_fault(kind, expected) is None
    if _is_list(expected):
        return _is_list(kind) and _fits(kind.value_type, expected.value_type)
    if pa.types.is_floating(expected):
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    tests: tuple[_Test, ...] = (pa.types.is_integer, pa.types.is_boolean, _is_text, _is_wkb)
    return any(test(kind) and test(expected) for test in tests)


_COLUMNS: dict[str, tuple[str, _Test]] = {
    "id": ("VARCHAR", _is_text),
    "datetime": ("TIMESTAMP", pa.types.is_timestamp),
    "geometry": ("GEOMETRY or WKB", _is_wkb),
    "bbox": ("STRUCT(xmin, ymin, xmax, ymax DOUBLE)", _is_box),
    "assets": ("STRUCT(band STRUCT(href, band_index), …)", _is_assets),
    "proj:epsg": ("INTEGER", pa.types.is_integer),
    "crs": ("VARCHAR", _is_text),
    "year": ("BIGINT", pa.types.is_integer),
    "month": ("BIGINT", pa.types.is_integer),
}
_OPTIONAL = {"crs", *PARTITION_KEYS}


def column_faults(schema: pa.Schema) -> Iterator[Fault]:
    """Columns of the contract that are missing or of another type.

    Example:
        >>> [fault.column for fault in column_faults(pa.schema([("id", pa.int64())]))]
        ['id', 'datetime', 'geometry', 'bbox', 'assets', 'proj:epsg']
    """
    for name, (expected, test) in _COLUMNS.items():
        if name not in schema.names:
            if name not in _OPTIONAL:
                yield Fault(None, name, None, "is missing")
        elif not test(schema.field(name).type):
            yield Fault(None, name, None, f"expected {expected}, got {schema.field(name).type}")
    for band in bands_of(schema):
        fault = header_fault(schema.field(metadata_column(band)).type, BAND_METADATA)
        if fault is not None:
            yield Fault(None, metadata_column(band), band, fault)


def check_types(schema: pa.Schema, label: str) -> None:
    """Refuse a relation with a column that is named as one of the contract and is another.

    Raises:
        CollectionError: names the column.

    Example:
        >>> check_types(pa.schema([("id", pa.string())]), "s2")
    """
    for fault in column_faults(schema):
        if fault.column == "assets" and fault.column in schema.names:
            is_usable = _are_like_assets(schema.field(fault.column).type)
        else:
            is_usable = fault.column not in schema.names
        if not is_usable:
            raise CollectionError(
                f"{label}, column {fault.column}: {fault.fault}; "
                "build it with rasteret_build_table, or leave the column out"
            )


def sound_columns(schema: pa.Schema) -> list[str]:
    """Columns of the contract whose type is right, so that their values can be checked."""
    return [
        n for n, (_, test) in _COLUMNS.items() if n in schema.names and test(schema.field(n).type)
    ]


def record_faults(batch: pa.RecordBatch, bands: Sequence[str]) -> Iterator[Fault]:
    """Faults of the records in what is not their headers.

    Args:
        batch: With those of `sound_columns`.
        bands: Of the collection; their metadata columns may be there.
    """
    columns = {name: plain(batch.column(name)) for name in batch.schema.names if name in _COLUMNS}
    ids = columns["id"].to_pylist() if "id" in columns else [None] * batch.num_rows
    for row, name in enumerate(ids if "id" in columns else ()):
        if name is None or name == "":
            yield Fault(name, "id", None, f"is NULL or empty{_near(columns, row)}")
    if "datetime" in columns:
        yield from _date_faults(ids, columns)
    if "bbox" in columns:
        yield from _box_faults(ids, columns["bbox"])
    if "geometry" in columns:
        yield from _geometry_faults(ids, columns)
    if "assets" in columns:
        yield from _asset_faults(ids, columns["assets"], bands)
    if "crs" in columns and "proj:epsg" in columns:
        yield from _crs_faults(ids, columns)


def _near(columns: dict[str, pa.Array], row: int) -> str:
    """Which record it is that has no id."""
    at = _shown_moment(columns["datetime"][row]) if "datetime" in columns else None
    return f" (datetime {at})" if at is not None else ""


def _date_faults(ids: Sequence[Any], columns: dict[str, pa.Array]) -> Iterator[Fault]:
    moments = columns["datetime"]
    if moments.type.tz is not None:
        moments = moments.cast(pa.timestamp(moments.type.unit, "UTC"))
    for row in _rows(moments.is_null()):
        yield Fault(ids[row], "datetime", None, "is NULL")
    years = pc.year(moments)
    is_beyond = pc.or_(pc.less(years, 1), pc.greater(years, 9999))
    for row in _rows(pc.fill_null(is_beyond, fill_value=False)):
        yield Fault(ids[row], "datetime", None, f"is {_shown_moment(moments[row])}")
    for key, part in (("year", pc.year), ("month", pc.month)):
        if key not in columns:
            continue
        found, expected = columns[key].cast(pa.int64()), part(moments)
        differs = pc.or_(
            pc.xor(found.is_null(), expected.is_null()),
            pc.fill_null(pc.not_equal(found, expected), fill_value=False),
        )
        for row in _rows(differs):
            at = _shown_moment(moments[row])
            text = f"partition {key}={found[row].as_py()}, but datetime is {at}"
            yield Fault(ids[row], key, None, text)


def _shown_moment(value: pa.Scalar) -> object:
    """A moment, or that Python has none such, as of DuckDB's infinity."""
    try:
        return value.as_py()
    except OverflowError:
        return "beyond the years 1 to 9999"


def bounds_of(column: pa.Array) -> NDArray[np.float64]:
    """Boxes as (rows, 4): west, south, east, north; NaN where NULL."""
    parts = [pc.struct_field(column, name).cast(pa.float64()) for name in BBOX.names]
    return np.column_stack([part.to_numpy(zero_copy_only=False) for part in parts])


def _box_faults(ids: Sequence[Any], column: pa.Array) -> Iterator[Fault]:
    for row in _rows(column.is_null()):
        yield Fault(ids[row], "bbox", None, "is NULL")
    boxes = bounds_of(column)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    unknown = present & ~np.isfinite(boxes).all(axis=1)
    upside_down = boxes[:, 1] > boxes[:, 3]
    beyond = (np.abs(boxes[:, [1, 3]]) > 90 + _EDGE_DEGREES).any(axis=1)
    beyond |= (np.abs(boxes[:, [0, 2]]) > 360 + _EDGE_DEGREES).any(axis=1)
    for where, text in (
        (unknown, "has a bound that is NULL or not finite"),
        (upside_down, "ymin is greater than ymax"),
        (beyond, "is not in degrees of longitude and latitude"),
    ):
        for row in np.flatnonzero(where).tolist():
            yield Fault(ids[row], "bbox", None, f"{text}: {_shown(boxes[row])}")


def _geometry_faults(ids: Sequence[Any], columns: dict[str, pa.Array]) -> Iterator[Fault]:
    values = columns["geometry"].to_pylist()
    shapes = shapely.from_wkb(np.array(values, object), on_invalid="ignore")
    invalid = ~shapely.is_valid(shapes)
    boxes = bounds_of(columns["bbox"]) if "bbox" in columns else None
    own = shapely.bounds(shapes)
    for row, value in enumerate(values):
        if value is None:
            # a table need not have footprints; the bbox then comes from the raster
            if boxes is None or not np.isfinite(boxes[row]).all():
                yield Fault(ids[row], "geometry", None, "is NULL, and so is the bbox")
        elif shapes[row] is None:
            yield Fault(ids[row], "geometry", None, "is no WKB")
        elif shapely.is_empty(shapes[row]):
            yield Fault(ids[row], "geometry", None, "is empty")
        elif invalid[row]:
            reason = shapely.is_valid_reason(shapes[row])
            yield Fault(ids[row], "geometry", None, f"is invalid: {shorten(str(reason))}")
        elif boxes is not None and _stands_out(own[row], boxes[row]):
            text = f"{_shown(own[row])} stands out of the bbox {_shown(boxes[row])}"
            yield Fault(ids[row], "bbox", None, f"the geometry's {text}")


def _stands_out(own: NDArray[np.float64], box: NDArray[np.float64]) -> bool:
    if not np.isfinite(box).all() or not np.isfinite(own).all():
        return False
    outside = [box[0] - own[0], box[1] - own[1], own[2] - box[2], own[3] - box[3]]
    # one over the antimeridian says nothing of longitudes
    sides = (1, 3) if box[0] > box[2] else (0, 1, 2, 3)
    return any(outside[side] > _EDGE_DEGREES for side in sides)


def _shown(box: NDArray[np.float64]) -> str:
    return f"[{', '.join(f'{bound:.7g}' for bound in box)}]"


def _asset_faults(ids: Sequence[Any], assets: pa.Array, bands: Sequence[str]) -> Iterator[Fault]:
    n_bands = np.zeros(len(ids), np.int64)
    for number in range(assets.type.num_fields):
        band = assets.type.field(number).name
        asset = pc.struct_field(assets, [number])
        present = asset.is_valid().to_numpy(zero_copy_only=False)
        hrefs = pc.struct_field(asset, ["href"])
        lacks = pc.or_kleene(hrefs.is_null(), pc.equal(pc.utf8_length(hrefs), 0))
        lacks = pc.fill_null(lacks, True).to_numpy(zero_copy_only=False)  # noqa: FBT003
        n_bands += present & ~lacks
        index = pc.struct_field(asset, ["band_index"])
        below = pc.fill_null(pc.less(index, 0), False).to_numpy(zero_copy_only=False)  # noqa: FBT003
        # a struct of NULLs is how some writers say that there is no such asset
        told = present & lacks & index.is_valid().to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(told).tolist():
            yield Fault(ids[row], "assets", band, "has no href")
        for row in np.flatnonzero(present & below).tolist():
            yield Fault(ids[row], "assets", band, f"band_index is {index[row].as_py()}")
    for row in np.flatnonzero(n_bands == 0).tolist() if bands else ():
        yield Fault(ids[row], "assets", None, "has no file")


def _crs_faults(ids: Sequence[Any], columns: dict[str, pa.Array]) -> Iterator[Fault]:
    pairs = zip(columns["crs"].to_pylist(), columns["proj:epsg"].to_pylist(), strict=True)
    known: dict[tuple[Any, Any], str | None] = {}
    for row, pair in enumerate(pairs):
        if pair not in known:
            known[pair] = crs_fault(*pair)
        fault = known[pair]
        if fault is not None:
            yield Fault(ids[row], "crs", None, fault)


def crs_fault(crs: str | None, epsg: int | None) -> str | None:
    """What is wrong with a record's CRS, None if nothing.

    Example:
        >>> crs_fault("EPSG:32643", 32644)
        "'EPSG:32643' is not proj:epsg 32644"
    """
    if crs is None:
        return None if epsg is None else f"is NULL, but proj:epsg is {epsg}"
    if crs.upper() == f"EPSG:{epsg}":
        return None
    try:
        code = crs_of(crs).to_epsg()
    except (RasteretError, CRSError):
        return f"{shorten(crs)} is no CRS that PROJ knows"
    if epsg is not None and code is not None and code != epsg:
        return f"{shorten(crs)} is not proj:epsg {epsg}"
    return None


def _rows(mask: pa.Array) -> list[int]:
    rows: list[int] = np.flatnonzero(mask.to_numpy(zero_copy_only=False)).tolist()
    return rows
