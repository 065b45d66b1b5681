"""STAC GeoParquet files back to items."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rasteret_sql.collections.datetimes import format_micros, parse_micros
from rasteret_sql.collections.geo_key import geo_of_footer
from rasteret_sql.collections.hrefs import local_path
from rasteret_sql.collections.parquet_source import ParquetSource
from rasteret_sql.errors import CollectionError, InputError, redact
from rasteret_sql.grid.crs import LONLAT, crs_of, is_same
from rasteret_sql.ingest.stac.documents import COLUMN_TYPES, GEOMETRY_CRS, Item, Json
from rasteret_sql.ingest.stac.property_types import column_type, passes_through
from rasteret_sql.remote.stores import is_remote

_BATCH_ROWS = 500
_TOP_LEVEL = frozenset(
    {"type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets"}
)
_ASSET_FIELD = re.compile(r"href$|type$|roles$|alternate$|(eo:|raster:)?bands$|proj:")
_UNUSED = frozenset({"links"})


def read_stac_geoparquet(location: str) -> Iterator[Item]:
    """Items of a STAC GeoParquet file, unchecked; geometries stay WKB, NULLs are left out.

    A folder is read as its Parquet files, by name; remote ones are read by ranges.

    Files of stac-geoparquet 0.x to 1.1, GeoParquet 0.1 to 1.1.

    Raises:
        CollectionError: if it is no Parquet file or has no column id or assets.
        ReadError: if a remote one can't be reached.

    Source: stac-geoparquet specification 1.1.
    """
    if is_remote(location):
        source = ParquetSource(location)
        crs = _geometry_crs(source.geo_metadata)
        yield from _items(location, source.stored, source.batches, crs)
        return
    path = Path(local_path(location))
    if path.is_dir():
        for part in sorted(part for part in path.rglob("*.parquet") if part.is_file()):
            yield from read_stac_geoparquet(str(part))
        return
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise CollectionError.expected(
            redact(location), "a Parquet file", error, "check the file"
        ) from None
    names = file.schema_arrow.names
    crs = _geometry_crs(geo_of_footer(file.metadata))
    yield from _items(
        location, names, lambda used: file.iter_batches(_BATCH_ROWS, columns=used), crs
    )


def _geometry_crs(geo_metadata: bytes | None) -> str | None:
    """The CRS that the file names for its footprints, None for none and for degrees.

    Raises:
        CollectionError: it names one that is unknown.
    """
    try:
        named = json.loads(geo_metadata or b"{}")["columns"]["geometry"]["crs"]
    except (ValueError, KeyError, TypeError):
        return None
    if not named:
        return None
    try:
        crs = crs_of(named if isinstance(named, str) else json.dumps(named))
    except InputError:
        raise CollectionError.expected(
            "geometry", "a CRS in the key geo", named, "correct the metadata of the file"
        ) from None
    is_degrees = is_same(crs, crs_of(LONLAT)) or crs.to_epsg() in {4326, 4979}
    return None if is_degrees else str(crs.to_wkt())


def _items(
    location: str,
    names: list[str],
    batches: Callable[[list[str]], Iterator[pa.RecordBatch]],
    geometry_crs: str | None,
) -> Iterator[Item]:
    missing = [name for name in ("id", "assets") if name not in names]
    if missing:
        raise CollectionError.expected(
            redact(location),
            "STAC GeoParquet with columns id and assets",
            ", ".join(names),
            "import a table of other columns with rasteret_build_table",
        )
    used = [name for name in names if name not in _UNUSED]
    types: dict[str, pa.DataType] | None = None
    for batch in batches(used):
        slim = batch.set_column(used.index("assets"), "assets", _slim(batch.column("assets")))
        if types is None:
            types = _property_types(batch.schema)
        for row in slim.to_pylist():
            item = _item_of(row)
            item[COLUMN_TYPES] = types
            if geometry_crs is not None:
                item[GEOMETRY_CRS] = geometry_crs
            yield item


def _property_types(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns that are properties of items, and keep their types."""
    types = {field.name: column_type(field.type) for field in schema}
    return {
        name: kind
        for name, kind in types.items()
        if name not in _TOP_LEVEL | {"collection", "properties"} and passes_through(kind)
    }


def _slim(assets: pa.Array) -> pa.Array:
    """Structs of assets with the fields that records are made of: half of the time saved."""
    if not pa.types.is_struct(assets.type):
        return assets
    children = []
    for child in assets.type:
        asset = pc.struct_field(assets, child.name)
        if pa.types.is_struct(asset.type):
            kept = [part for part in asset.type if _ASSET_FIELD.match(part.name)]
            parts = [pc.struct_field(asset, part.name) for part in kept]
            if kept:
                asset = pa.StructArray.from_arrays(parts, fields=kept, mask=asset.is_null())
        children.append(asset)
    return pa.StructArray.from_arrays(children, names=[child.name for child in assets.type])


def _item_of(row: dict[str, Any]) -> Item:
    item: Item = {"type": "Feature"}
    properties: dict[str, Any] = {}
    for name, value in row.items():
        if value is None:
            continue
        if name == "properties":
            properties.update(_plain(_json_text(value)))
        elif name == "collection" or name in _TOP_LEVEL:
            item[name] = value
        else:
            properties[name] = _plain(value)
    item["properties"] = properties
    assets = _json_text(item.get("assets", {}))
    if isinstance(assets, list):
        assets = dict(assets)
    if isinstance(assets, dict):
        assets = {key: _plain(_json_text(asset)) for key, asset in assets.items() if asset}
    item["assets"] = assets
    geometry = item.get("geometry")
    item["geometry"] = _json_text(geometry) if isinstance(geometry, str) else geometry
    return item


def _json_text(value: Json) -> Json:
    """What text that is JSON says; other values are returned as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _plain(value: Json) -> Json:
    """As JSON would have it: no NULL members, times as text, bytes as hexadecimal text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], float | str):
            return list(value)
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime | date):
        return format_micros(parse_micros(value))
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
