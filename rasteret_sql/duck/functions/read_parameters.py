"""Parameters that every read of pixels takes: one line here adds one to all reads.

A read's bind function gets them, with its own, as keywords of these names, checked.
"""

from __future__ import annotations

from rasteret_sql.duck.checks import (
    at_least,
    crs_text,
    flag,
    numbers,
    one_of,
    overview,
    pixel_size,
    record_ids,
    text,
    texts,
)
from rasteret_sql.duck.declarations import Parameter
from rasteret_sql.duck.functions.parameters import COLLECTION
from rasteret_sql.errors import InputError
from rasteret_sql.reading.outputs.combining import METHODS
from rasteret_sql.reading.outputs.composites import parse_period

__all__ = [
    "ALL_TOUCHED",
    "AREAS",
    "CHIP_SIZE",
    "COLLECTION",
    "DEFAULT_METHOD",
    "FORMAT",
    "LEVEL",
    "MASKED",
    "MASKED_BY",
    "METHOD",
    "OUTPUT_GRID",
    "PERIOD",
    "READ_PARAMETERS",
    "SCALED",
    "SIZE",
    "STRIDE",
    "VALID",
    "check_masked_by",
]

READ_PARAMETERS = (
    Parameter(
        "bands",
        "VARCHAR[]",
        "bands to read, in this order; default: all",
        "NULL",
        texts("band names", "or leave it out for all"),
    ),
    Parameter(
        "bbox",
        "DOUBLE[]",
        "[west, south, east, north]; west > east crosses the antimeridian",
        "NULL",
    ),
    Parameter("geometry", "any", "polygon as WKT, WKB, GeoJSON text or GEOMETRY", "NULL"),
    Parameter(
        "geometry_crs",
        "any",
        "CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat",
        "NULL",
    ),
    Parameter(
        "date_range",
        "VARCHAR[]",
        "[start, end] of datetime; NULL is open, a date as end means through that day",
        "NULL",
    ),
    Parameter("ids", "VARCHAR[]", "record ids", "NULL", record_ids),
    Parameter(
        "record_columns",
        "VARCHAR[]",
        "columns of the record to return, or 'all'; default: all but assets, bbox and geometry",
        "NULL",
        texts("column names", "or 'all'"),
    ),
    Parameter(
        "on_error",
        "VARCHAR",
        "'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)",
        "'error'",
        one_of("error", "null", "report"),
    ),
    Parameter("max_bytes", "BIGINT", "refuse a read that would fetch more", "NULL", at_least(0)),
    Parameter(
        "max_concurrent",
        "INTEGER",
        "requests under way at once; default: 64, more where answers take long",
        "NULL",
        at_least(1),
    ),
)
"""After the collection, in this order, in every read."""

AREAS = (
    Parameter(
        "aois",
        "VARCHAR",
        "relation of areas, instead of bbox and geometry: a row per record and area, with the "
        "area's columns. Table, view, TEMP table, registered frame, SELECT text or Parquet path",
        "NULL",
    ),
    Parameter(
        "geometry_column",
        "VARCHAR",
        "column of aois that holds the areas; default: the one of type GEOMETRY, or named "
        "geometry, geom or wkb_geometry",
        "NULL",
    ),
)
LEVEL = Parameter(
    "level", "INTEGER", "0 is full resolution, 1 the largest overview, …", "0", at_least(0)
)
ALL_TOUCHED = Parameter(
    "all_touched",
    "BOOLEAN",
    "pixels that the area touches, not only those whose centre it holds",
    "false",
    flag,
)
MASKED = Parameter(
    "masked",
    "BOOLEAN",
    "nodata and masked pixels are NULL; false: the file's own values",
    "true",
    flag,
)
SCALED = Parameter(
    "scaled",
    "BOOLEAN",
    "apply the file's scale and offset; bands become DOUBLE",
    "false",
    flag,
)
VALID = Parameter(
    "valid",
    "BOOLEAN",
    "add a column valid: a BLOB of bytes, 1 where a pixel holds data, (bands, height, width)",
    "false",
    flag,
)
FORMAT = Parameter(
    "format",
    "VARCHAR",
    "'blob' (values one after another) or 'list' (LIST with NULL for no data)",
    "'blob'",
    one_of("blob", "list"),
)
MASKED_BY = (
    Parameter(
        "mask_band",
        "VARCHAR",
        "band that tells where a record is not to be used: where it holds one of mask_values or "
        "no data",
        "NULL",
        text(),
    ),
    Parameter("mask_values", "DOUBLE[]", "values of mask_band, as clouds", "NULL", numbers),
)
"""Where pixels of a record are left out, by the values of a band."""
OUTPUT_GRID = (
    Parameter(
        "resolution",
        "DOUBLE[]",
        "size of a pixel in units of the CRS, a number or [width, height]; pixel edges are its "
        "multiples, so pixels of all records fall together. Default: the raster's own grid",
        "NULL",
        pixel_size,
    ),
    Parameter(
        "crs",
        "any",
        "CRS of the pixels: 'EPSG:n', n, WKT2 or PROJJSON; default: that of each raster",
        "NULL",
        crs_text,
    ),
    Parameter(
        "resampling",
        "VARCHAR",
        "'nearest', 'bilinear', 'cubic' or 'average'; all but the first mix values, which classes "
        "and flags do not bear",
        "'nearest'",
        one_of("nearest", "bilinear", "cubic", "average"),
    ),
    Parameter(
        "overview",
        "any",
        "'auto' (the overview that gdalwarp takes), 'none' or a level: what pixels are "
        "computed from",
        "'auto'",
        overview,
    ),
)
"""Where pixels are read onto a grid of the caller's."""
DEFAULT_METHOD = "median"
METHOD = Parameter(
    "method",
    "VARCHAR",
    "'median', 'mean', 'min', 'max', 'first', 'last' (by datetime) or 'count'",
    f"'{DEFAULT_METHOD}'",
    one_of(*METHODS),
)
PERIOD = Parameter(
    "period",
    "VARCHAR",
    "days, weeks, months, quarters or years, as '1 month' or '2 weeks', which begin as those of "
    "time_bucket; default: one composite of all records",
    "NULL",
    parse_period,
)
CHIP_SIZE = 256
SIZE = Parameter("size", "INTEGER", "rows and columns of a chip", str(CHIP_SIZE), at_least(1))
STRIDE = Parameter(
    "stride",
    "INTEGER",
    "pixels from one chip to the next; default: size, so that chips don't overlap",
    "NULL",
    at_least(1),
)


def check_masked_by(band: str | None, values: tuple[float, ...] | None) -> None:
    """Refuse one of `MASKED_BY` without the other.

    Raises:
        InputError: naming the one that is missing.

    Example:
        >>> check_masked_by("SCL", (8.0, 9.0))
    """
    if (band is None) == (values is None):
        return
    given, missing = (
        ("mask_band", "mask_values") if values is None else ("mask_values", "mask_band")
    )
    raise InputError.expected(missing, f"a value, as {given} has one", "none", "give both")
