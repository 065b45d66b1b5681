"""Points and areas from files, as relations that the table functions take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb

from rasteret_sql.duck.names import quote_text
from rasteret_sql.errors import InputError

_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_GEOJSON = (".geojson", ".json")
_FILES = (*_CSV, *_GEOJSON, ".parquet")
_OTHER_FILES = (".shp", ".gpkg", ".fgb", ".kml")
"""Which DuckDB reads with its extension spatial."""
_TABLE = "_rasteret_areas"


def relation_of(con: duckdb.DuckDBPyConnection, argument: str, text: str) -> tuple[str, str | None]:
    """The relation that an argument of the command line names, and the CRS that its file names.

    Args:
        con: Gets a TEMP table with the features of GeoJSON.
        argument: How the command calls it, for errors.
        text: A CSV, GeoJSON or Parquet file; else SELECT text, a table or a view.

    Raises:
        InputError: there is no such file, or it is no GeoJSON.
    """
    suffix = next((one for one in (*_FILES, *_OTHER_FILES) if text.lower().endswith(one)), None)
    if suffix is None:
        return text, None
    path = Path(text).expanduser()
    is_pattern = "*" in text or "://" in text
    if not is_pattern and not path.exists():
        raise InputError.expected(argument, "a file", text, "check the path")
    if suffix in _CSV:
        return f"SELECT * FROM read_csv({quote_text(str(path))})", None  # noqa: S608
    if suffix in _GEOJSON:
        return _TABLE, _load(con, argument, path)
    return text if is_pattern else str(path), None


def _load(con: duckdb.DuckDBPyConnection, argument: str, path: Path) -> str | None:
    """Make a TEMP table of features: their properties, id, and geometry as GeoJSON text.

    Returns:
        The CRS of the ``crs`` member that GeoJSON had before 2016.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = list(_rows(document))
        crs = document["crs"]["properties"]["name"] if document.get("crs") else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError.expected(
            argument, "a GeoJSON FeatureCollection", str(path), "check the file"
        ) from None
    if not rows:
        raise InputError.expected(argument, "GeoJSON features", f"none in {path}", "add some")
    with tempfile.TemporaryDirectory(prefix="rasteret-sql-") as folder:
        lines = Path(folder) / "features.ndjson"
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        size = lines.stat().st_size
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE {_TABLE} AS FROM read_json({quote_text(str(lines))}, "
            f"format = 'newline_delimited', sample_size = -1, maximum_object_size = {size + 1})"
        )
    return crs


def _rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    features = [document] if document["type"] == "Feature" else document["features"]
    for feature in features:
        row = {} if feature.get("id") is None else {"id": feature["id"]}
        for name, value in (feature.get("properties") or {}).items():
            row[f"{name}_property" if name.lower() == "geometry" else name] = value
        shape = feature["geometry"]
        yield row | {"geometry": None if shape is None else json.dumps(shape)}
