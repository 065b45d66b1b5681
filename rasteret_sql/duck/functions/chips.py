"""Chips from SQL: rasteret_chips."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.checks import at_least, flag, share
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import (
    AREAS,
    COLLECTION,
    LEVEL,
    READ_PARAMETERS,
    SCALED,
)
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.duck.table_function import Call, Scan, Sql, Stream
from rasteret_sql.errors import InputError
from rasteret_sql.reading.outputs.chips import PLACE_FIELDS, chip_rows, chip_schema
from rasteret_sql.reading.plan import Lattice


@table_function(
    "rasteret_chips",
    "Chips for training: squares of pixels on a lattice over each raster.",
    file="30_pixels.sql",
    parameters=with_docs(
        (
            COLLECTION,
            *READ_PARAMETERS,
            *AREAS,
            LEVEL,
            SCALED.with_doc("apply the file's scale and offset; values become DOUBLE"),
            Parameter("size", "INTEGER", "rows and columns of a chip", "256", at_least(1)),
            Parameter(
                "stride",
                "INTEGER",
                "pixels from one chip to the next; default: size, so that chips don't overlap",
                "NULL",
                at_least(1),
            ),
            Parameter(
                "min_valid",
                "DOUBLE",
                "leave out chips where a smaller share of the pixels, 0 to 1, holds data in all "
                "bands",
                "0",
                share,
            ),
            Parameter(
                "valid",
                "BOOLEAN",
                "add a column valid: a BLOB of bytes, 1 where a pixel holds data, (bands, height, "
                "width)",
                "false",
                flag,
            ),
        ),
        bbox="[west, south, east, north]: chips that it meets, whole; west > east crosses the "
        "antimeridian",
        geometry="polygon as WKT, WKB, GeoJSON text or GEOMETRY: chips that it meets, whole",
    ),
    notes=(
        "The lattice begins in the upper left corner of each raster, whatever the area, so that",
        "a chip has the same chip_id in every call of one size, stride and level. Chips that",
        "would leave the raster are left out.",
    ),
    returns="the record's columns, the area's columns, chip_id (record_row_col), record_id, "
    "row_off, col_off, height, width, transform, crs, geometry (outline, GEOMETRY in longitude "
    "and latitude), dtypes VARCHAR[], nodata DOUBLE[], one BLOB per band (row-major, "
    "little-endian). A column of the record of such a name is called record_…",
    raises="collection, bands, level: unknown; stride: more than 1048576 chips of a record; bands "
    "of unlike grid; a tile that can't be read, unless on_error",
    example="SELECT chip_id, row_off, col_off, octet_length(B04) FROM rasteret_chips('s2', "
    "bands := ['B04'], size := 128, bbox := [77.984, 13.004, 77.99, 13.01])",
)
def chips(
    call: Call,
    *,
    size: int,
    stride: int | None,
    min_valid: float,
    valid: bool,
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Read chips."""
    bound = bind_read(call, arguments)
    names = bound.request.bands
    check_band_names(names, [field.name for field in PLACE_FIELDS])
    lattice = Lattice(size, stride or size)

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        needs_all = min_valid > 0 or {"valid", "error"} & set(scan.columns)
        bands = [name for name in names if needs_all or name in scan.columns]
        yield from chip_rows(
            bound.execution(scan),
            bands,
            lattice,
            bound.records(scan),
            valid="valid" in scan.columns,
            min_valid=min_valid,
        )

    own = chip_schema(names, valid=valid, on_error=bound.request.on_error)
    return expose_read(bound, own, run)


def check_band_names(bands: tuple[str, ...], own: list[str]) -> None:
    """Refuse bands that are named like a column of the function; to SQL, X is x.

    Raises:
        InputError: naming the band.
    """
    clash = [band for band in bands if band.lower() in {name.lower() for name in own}]
    if clash:
        raise InputError.expected(
            "bands",
            "names that are no other column",
            clash[0],
            "rename the column in a SELECT over the collection",
        )
