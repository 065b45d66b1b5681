"""What a collection's Parquet file says about itself: encodings and key-value metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasteret_sql.errors import CollectionError
from rasteret_sql.schema import METADATA_SUFFIX
from rasteret_sql.units import BBox

_TILE_TABLES = ("tile_offsets.list.element", "tile_byte_counts.list.element")
_UNIQUE_TEXT = ("href", "etag")
_WKB_NAMES = (
    "Point",
    "LineString",
    "Polygon",
    "MultiPoint",
    "MultiLineString",
    "MultiPolygon",
    "GeometryCollection",
)
_EWKB_Z = 0x80000000


@dataclass
class Footprint:
    """Bounds and kinds of the geometries of a file, gathered while it is written.

    Attributes:
        bounds: Lon/lat degrees, None before the first box.
        kinds: GeoParquet geometry types, as ``Polygon`` or ``Polygon Z``.
    """

    bounds: BBox | None = None
    kinds: set[str] = field(default_factory=set)

    def add(self, records: pa.Table) -> None:
        """Widen by these records' ``bbox`` and ``geometry``."""
        if "bbox" in records.column_names:
            box = bounds_of(records["bbox"])
            if box is not None:
                self.bounds = box if self.bounds is None else union(self.bounds, box)
        if "geometry" in records.column_names:
            heads = pc.unique(pc.binary_slice(records["geometry"], 0, 5))
            self.kinds.update(_wkb_kind(head) for head in heads.to_pylist() if head)

    def geo_key(self, *, has_bbox: bool) -> str:
        """The ``geo`` metadata: WKB in CRS84, with ``bbox`` as covering.

        Source:
            GeoParquet 1.1.0, file metadata; a column without ``crs`` is OGC:CRS84.
        """
        column: dict[str, object] = {"encoding": "WKB", "geometry_types": sorted(self.kinds)}
        if self.bounds is not None:
            column["bbox"] = list(self.bounds)
        if has_bbox:
            column["covering"] = {"bbox": {bound: ["bbox", bound] for bound in BBox._fields}}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        return json.dumps(geo)


def bounds_of(bbox: pa.ChunkedArray) -> BBox | None:
    """The box around all boxes; a box over the antimeridian spans all longitudes."""
    bounds = {name: pc.struct_field(bbox, name) for name in BBox._fields}
    west, south = (pc.min(bounds[name]).as_py() for name in ("xmin", "ymin"))
    east, north = (pc.max(bounds[name]).as_py() for name in ("xmax", "ymax"))
    if None in (west, south, east, north):
        return None
    if pc.any(pc.greater(bounds["xmin"], bounds["xmax"])).as_py():
        west, east = -180.0, 180.0
    return BBox(float(west), float(south), float(east), float(north))


def union(one: BBox, other: BBox) -> BBox:
    """The box around two boxes.

    Example:
        >>> union(BBox(0, 0, 1, 1), BBox(2, -1, 3, 0))
        BBox(xmin=0, ymin=-1, xmax=3, ymax=1)
    """
    return BBox(
        min(one.xmin, other.xmin),
        min(one.ymin, other.ymin),
        max(one.xmax, other.xmax),
        max(one.ymax, other.ymax),
    )


def _wkb_kind(head: bytes) -> str:
    """Name the geometry type in the first five bytes of a WKB."""
    code = int.from_bytes(head[1:5], "little" if head[0] == 1 else "big")
    has_z = bool(code & _EWKB_Z) or (code % 10000) // 1000 in (1, 3)
    number = (code & 0xFFFF) % 1000
    name = _WKB_NAMES[number - 1] if 1 <= number <= len(_WKB_NAMES) else "GeometryCollection"
    return f"{name} Z" if has_z else name


def plain_schema(schema: pa.Schema, dropped: Iterable[str]) -> pa.Schema:
    """The schema of the files: no partition keys, no views or 64-bit text, WKB as binary.

    rasteret, and Arrow readers in general, get the Arrow type back that was written, and
    not every kernel of theirs takes views.
    """
    gone = set(dropped)
    return pa.schema([_plain_field(item) for item in schema if item.name not in gone])


def _plain_field(item: pa.Field) -> pa.Field:
    if item.name != "geometry":
        return pa.field(item.name, _plain_type(item.type), item.nullable)
    return pa.field("geometry", pa.binary(), item.nullable)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field_in(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    return kind


def _plain_field_in(item: pa.Field) -> pa.Field:
    return pa.field(item.name, _plain_type(item.type), item.nullable)


def writer_options(schema: pa.Schema) -> dict[str, object]:
    """Encoding and statistics of each leaf, as keywords of ``ParquetWriter``.

    Tile tables are delta-encoded; text that never repeats gets no dictionary. Statistics
    are kept where a query can skip by them; in the hundreds of leaves of band metadata
    they would only swell the footer, save one leaf whose null count tells how many
    records lack the band.
    """
    tile_tables, dictionary, statistics = [], [], []
    for leaf in leaves(schema):
        top, _, rest = leaf.partition(".")
        last = leaf.rpartition(".")[2]
        if leaf.endswith(_TILE_TABLES):
            tile_tables.append(leaf)
        elif top not in ("id", "geometry", "bbox") and last not in _UNIQUE_TEXT:
            dictionary.append(leaf)
        tells_nulls = top.endswith(METADATA_SUFFIX) and rest == "image_width"
        if tells_nulls or top == "bbox" or (not rest and top != "geometry"):
            statistics.append(leaf)
    return {
        "use_dictionary": dictionary,
        "write_statistics": statistics,
        "column_encoding": dict.fromkeys(tile_tables, "DELTA_BINARY_PACKED"),
    }


def leaves(schema: pa.Schema) -> list[str]:
    """Parquet paths of all leaf columns.

    Raises:
        CollectionError: for a type that Parquet cannot hold, as a struct without fields.

    Example:
        >>> leaves(pa.schema([("a", pa.list_(pa.int64()))]))
        ['a.list.element']
    """
    sink = io.BytesIO()
    try:
        pq.write_table(schema.empty_table(), sink)
    except pa.ArrowNotImplementedError as error:
        wrong = [one for one in schema if not _is_writable(one)]
        raise CollectionError.expected(
            f"column {', '.join(one.name for one in wrong)}",
            "a type that Parquet can hold",
            ", ".join(str(one.type) for one in wrong) or str(error),
            "drop it, or cast it to VARCHAR",
        ) from error
    columns = pq.ParquetFile(sink).schema
    return [columns.column(index).path for index in range(len(columns))]


def _is_writable(column: pa.Field) -> bool:
    try:
        pq.write_table(pa.schema([column]).empty_table(), io.BytesIO())
    except pa.ArrowNotImplementedError:
        return False
    return True


def with_info(schema: pa.Schema, info: Mapping[str, str]) -> pa.Schema:
    """The schema with its key-value metadata, in rasteret's words."""
    known = {"name": "", "data_source": "", "description": "", "date_range": ""}
    version = {"rasteret_collection_version": "1"}
    return schema.with_metadata({**known, **version, **info})


def with_geo(schema: pa.Schema, footprint: Footprint) -> pa.Schema:
    """The schema with the ``geo`` key of a file, where there is a geometry column."""
    if "geometry" not in schema.names:
        return schema
    geo = footprint.geo_key(has_bbox="bbox" in schema.names)
    return schema.with_metadata({**(schema.metadata or {}), "geo": geo})
