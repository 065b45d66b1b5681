"""What a Parquet file says of its geometry columns, in the key ``geo`` or as GeoArrow types."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


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
        raw = metadata.get(b"ARROW:extension:metadata", b"")
    try:
        declared = json.loads(raw) if raw else {}
    except ValueError:
        declared = {}
    return name, declared.get("crs") if isinstance(declared, dict) else None
