"""Parameters that functions share, worded once."""

from __future__ import annotations

from rasteret_sql.duck.checks import at_least, flag, one_of, text, texts
from rasteret_sql.duck.declarations import Parameter

COLLECTION = Parameter(
    "collection",
    "VARCHAR",
    "name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or "
    "pattern that ends in .tif or .tiff",
)
NAME = Parameter(
    "name", "VARCHAR", "name of the collection and of its view", check=text(todo="name it")
)
WORKSPACE = Parameter(
    "workspace",
    "VARCHAR",
    "folder of collections; default: the connection's",
    "NULL",
    text("a folder", "write a path"),
)
FORCE = Parameter("force", "BOOLEAN", "replace what stands under the name", "false", flag)
MAX_CONCURRENT = Parameter(
    "max_concurrent",
    "INTEGER",
    "header requests under way at once",
    "300",
    at_least(1, "300 suits most stores"),
)
ON_ERROR = Parameter(
    "on_error",
    "VARCHAR",
    "what an unreadable asset does: 'report' (NULL and a row of rasteret_errors) or 'error'",
    "'report'",
    one_of("report", "error"),
)
ENRICH = Parameter("enrich", "BOOLEAN", "read the headers of all assets and keep them", check=flag)
BANDS = Parameter(
    "bands",
    "VARCHAR[]",
    "bands to keep; default: all",
    "NULL",
    texts("band names", "or leave it out for all"),
)
HREF_COLUMN = Parameter(
    "href_column",
    "VARCHAR",
    "column with the file's URL or path, where there is no assets column",
    "NULL",
    text(),
)
BAND_INDEX_MAP = Parameter(
    "band_index_map", "MAP", "band name to sample in its file, from 0", "NULL"
)
URL_REWRITE = Parameter("url_rewrite", "MAP", "href prefix to the prefix that replaces it", "NULL")
DATA_SOURCE = Parameter("data_source", "VARCHAR", "name of the source", "NULL", text())
ALLOW_LOCAL = Parameter(
    "allow_local", "BOOLEAN", "accept hrefs to local files from a remote source", "false", flag
)
BBOX = Parameter("bbox", "DOUBLE[]", "[west, south, east, north] in degrees", "NULL")
DATE_RANGE = Parameter(
    "date_range",
    "VARCHAR[]",
    "[start, end]; NULL is open, a date as end means through that day",
    "NULL",
)
QUERY = Parameter("query", "any", "STAC query extension: JSON text or STRUCT", "NULL")
FILTER = Parameter("filter", "any", "CQL2 text or JSON", "NULL")
MAX_ITEMS = Parameter(
    "max_items", "BIGINT", "stop after so many items", "NULL", at_least(1, "NULL is no limit")
)

BUILD_PARAMETERS = (WORKSPACE, MAX_CONCURRENT, ON_ERROR, FORCE)
"""What every build takes."""

BUILD_REPORT = (
    "one row: name, kind, path, records, bands, assets, enriched, failed, partitions, "
    "size_bytes, requests, seconds; failed counts the assets that could not be read "
    "(rasteret_errors)"
)
