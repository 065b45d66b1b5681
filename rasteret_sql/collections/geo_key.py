"""What a Parquet file says of its geometry columns, in the key ``geo`` or as GeoArrow types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_METADATA = b"ARROW:extension:metadata"
_GEOMETRY = re.compile(r"GEOMETRY\('(.*)'\)", re.DOTALL)


def geo_of_footer(footer: pq.FileMetaData) -> bytes | None:
    """The ``geo`` key of a Parquet file, or one made of its GeoArrow columns.

    DuckDB reads neither into the schema of a query.
    """
    found = (footer.metadata or {}).get(b"geo")
    if found is not None:
        return bytes(found)
    columns = {}
    for field in footer.schema.to_arrow_schema():
        kind, crs = extension(field)
        if kind.startswith("geoarrow.") and crs is not None:
            columns[field.name] = {"encoding": kind.removeprefix("geoarrow."), "crs": crs}
    return json.dumps({"columns": columns}).encode() if columns else None


def extension(field: pa.Field) -> tuple[str, Any]:
    """Extension name and CRS of a field; ("", None) for a plain one."""
    if isinstance(field.type, pa.BaseExtensionType):
        name = str(getattr(field.type, "extension_name", ""))
        serialize = getattr(field.type, "__arrow_ext_serialize__", None)
        raw = serialize() if serialize else b""
    else:
        metadata = field.metadata or {}
        name = metadata.get(b"ARROW:extension:name", b"").decode()
        raw = metadata.get(_METADATA, b"")
    try:
        declared = json.loads(raw) if raw else {}
    except ValueError:
        declared = {}
    return name, declared.get("crs") if isinstance(declared, dict) else None


def with_declared_crs(schema: pa.Schema, kinds: Iterable[object]) -> pa.Schema:
    """The schema of a result of DuckDB 1.5, its geometries with the CRS that their types declare.

    That version leaves it out of Arrow, or puts bytes of other memory there.

    Args:
        schema: Of the result.
        kinds: DuckDB's type of each column.

    Example:
        >>> told = {b"ARROW:extension:name": b"geoarrow.wkb", b"ARROW:extension:metadata": b"?"}
        >>> schema = pa.schema([pa.field("g", pa.binary(), metadata=told)])
        >>> extension(with_declared_crs(schema, ["GEOMETRY('OGC:CRS84')"]).field("g"))
        ('geoarrow.wkb', 'OGC:CRS84')
    """
    fields = []
    for field, kind in zip(schema, map(str, kinds), strict=True):
        metadata = field.metadata or {}
        if _METADATA in metadata and kind.startswith("GEOMETRY"):
            match = _GEOMETRY.fullmatch(kind)
            crs = {} if match is None else {"crs": match[1].replace("''", "'")}
            fields.append(field.with_metadata({**metadata, _METADATA: json.dumps(crs).encode()}))
        else:
            fields.append(field)
    return pa.schema(fields, schema.metadata)
