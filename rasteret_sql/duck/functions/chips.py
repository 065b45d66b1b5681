"""Chips from SQL: rasteret_chips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import one_of, share
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import (
    AREAS,
    COLLECTION,
    LEVEL,
    OUTPUT_GRID,
    READ_PARAMETERS,
    SCALED,
    SIZE,
    STRIDE,
    VALID,
)
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.errors import InputError
from rasteret_sql.reading.outputs.chip_stacks import STACK_FIELDS, stack_rows, stack_schema
from rasteret_sql.reading.outputs.chips import PLACE_FIELDS, chip_rows, chip_schema
from rasteret_sql.reading.plan import Lattice
from rasteret_sql.reading.request import OutputGrid


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
            SIZE,
            STRIDE,
            Parameter(
                "min_valid",
                "DOUBLE",
                "leave out chips where a smaller share of the pixels, 0 to 1, holds data in all "
                "bands",
                "0",
                share,
            ),
            VALID.with_doc(
                "add a column valid: a BLOB of bytes, 1 where a pixel holds data, (bands, height, "
                "width), of stacks (bands, records, height, width)"
            ),
            Parameter(
                "stack",
                "VARCHAR",
                "'time': one row per chip of one grid over all records, with all records of it in "
                "order of time; default: one row per chip of each record",
                "NULL",
                one_of("time"),
            ),
            *OUTPUT_GRID,
        ),
        bbox="[west, south, east, north]: chips that it meets, whole; west > east crosses the "
        "antimeridian",
        geometry="polygon as WKT, WKB, GeoJSON text or GEOMETRY: chips that it meets, whole",
    ),
    notes=(
        "The lattice begins in the upper left corner of each raster, whatever the area, so that",
        "a chip has the same chip_id in every call of one size, stride and level. Chips that",
        "would leave the raster are left out. With resolution or crs the lattice begins in the",
        "origin of the CRS, so chips of all records fall together.",
        "Stacks are on one grid, as composites are: the CRS of most records and the finest",
        "resolution, unless crs and resolution say otherwise. Pixels that a record does not cover",
        "hold no data. With min_valid a record of less is left out of a stack.",
    ),
    returns="the record's columns, the area's columns, chip_id (record_row_col), record_id, "
    "row_off, col_off, height, width, transform, crs, geometry (outline, GEOMETRY in longitude "
    "and latitude), dtypes VARCHAR[], nodata DOUBLE[] (of scaled values NaN), one BLOB "
    "per band (row-major, little-endian). A column of the record of such a name is called "
    "record_…. A stack has the area's columns, chip_id (row_col), record_ids VARCHAR[] and "
    "datetimes TIMESTAMP[] in place of those of the record, and BLOBs of records x height x width "
    "values",
    raises="collection, bands, level: unknown; stride: more than 1048576 chips of a record; bands "
    "of unlike grid; a tile that can't be read, unless on_error; a stack of more than 1 GiB",
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
    stack: str | None,
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Read chips."""
    lattice = Lattice(size, stride or size)
    if stack is not None:
        return _stacks(call, lattice, min_valid, arguments, valid=valid)
    bound = bind_read(call, arguments)
    names = bound.request.bands
    check_band_names(names, [field.name for field in PLACE_FIELDS])

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


def _stacks(
    call: Call,
    lattice: Lattice,
    min_valid: float,
    arguments: dict[str, Any],
    *,
    valid: bool,
) -> Stream | Sql:
    """Read stacks of chips."""
    if arguments["record_columns"] is not None:
        raise InputError.expected(
            "record_columns", "none with stack", "some", "join the collection on record_ids"
        )
    if arguments["level"]:
        raise InputError.expected(
            "level", "0 with stack", arguments["level"], "name a resolution; overview is 'auto'"
        )
    bound = bind_read(call, {**arguments, "record_columns": ["id"]})
    bound.record_columns = []
    bound.request = replace(bound.request, output_grid=bound.request.output_grid or OutputGrid())
    names = bound.request.bands
    check_band_names(names, [field.name for field in STACK_FIELDS])

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        needs_all = min_valid > 0 or {"valid", "error", "dtypes", "nodata"} & set(scan.columns)
        bands = [name for name in names if needs_all or name in scan.columns]
        columns = [one for one in ("datetime",) if one in bound.relation.schema.names]
        records = bound.records(scan, columns=columns)
        yield from stack_rows(bound.execution(scan), bands, lattice, records, min_valid=min_valid)

    own = stack_schema(names, valid=valid, on_error=bound.request.on_error)
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
