"""Composites from SQL: rasteret_composite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.declarations import table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import (
    COLLECTION,
    FORMAT,
    MASKED_BY,
    METHOD,
    OUTPUT_GRID,
    PERIOD,
    READ_PARAMETERS,
    VALID,
    check_masked_by,
)
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.duck.relations import check_bands, reading_columns
from rasteret_sql.reading.columns import common_type
from rasteret_sql.reading.outputs.composites import (
    CompositeOptions,
    composite_rows,
    composite_schema,
)


@table_function(
    "rasteret_composite",
    "Composites: one value per pixel, band and period of many scenes, on one grid over all CRSs.",
    file="30_pixels.sql",
    parameters=with_docs(
        (
            COLLECTION,
            *(one for one in READ_PARAMETERS if one.name != "record_columns"),
            METHOD,
            PERIOD,
            *MASKED_BY,
            *OUTPUT_GRID,
            VALID,
            FORMAT,
        ),
        crs="CRS of the composite: 'EPSG:n', n, WKT2 or PROJJSON; default: that of most records",
        resolution="size of a pixel in units of the CRS, a number or [width, height]; default: the "
        "finest of the rasters",
        on_error="'error', 'null' (a record that can't be read is left out) or 'report' (and a "
        "column error says why)",
    ),
    notes=(
        "A row is a block of at most 1024 x 1024 pixels, so memory is bounded by a block of all",
        "records of a period. Blocks of all periods fall together: row_off and col_off count",
        "pixels from the upper left corner of what all records cover.",
    ),
    returns="period TIMESTAMP (its start; NULL without periods), row_off, col_off, height, width, "
    "transform (a, b, c, d, e, f of the block), crs, dtypes VARCHAR[], n_records (that cover a "
    "part of it), one BLOB per band (row-major, little-endian; of median and mean float64, of "
    "count int32, else of the type of the band; no data is NaN, of integers 0: see valid)",
    raises="collection, bands, mask_band: unknown; a raster without CRS; a tile that can't be "
    "read, unless on_error; bands of complex numbers",
    example="SELECT period, height, width, octet_length(B04) FROM rasteret_composite('s2', "
    "bands := ['B04'], method := 'max', period := '1 month', "
    "bbox := [77.984, 13.004, 77.99, 13.01])",
)
def composite(
    call: Call,
    *,
    method: str,
    period: Any,  # noqa: ANN401
    mask_band: str | None,
    mask_values: tuple[float, ...] | None,
    valid: bool,
    format: str,  # noqa: A002 (the parameter's name in SQL)
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Read composites."""
    check_masked_by(mask_band, mask_values)
    options = CompositeOptions(
        method, period, mask_band, mask_values or (), valid, format == "list"
    )
    bound = bind_read(call, {**arguments, "record_columns": ["id"]})
    bands = bound.request.bands
    read_bands = bands
    if mask_band is not None:
        check_bands(bound.relation, [mask_band])
        read_bands = tuple(dict.fromkeys([*bands, mask_band]))
        reading_columns(bound.relation, read_bands, [])
    fields = [pa.field(band, pa.binary_view()) for band in bands]
    if options.is_list:
        item = {"median": pa.float64(), "mean": pa.float64(), "count": pa.int32()}.get(method)
        fields = [
            pa.field(band, pa.large_list(item or common_type(dtypes)))
            for band, dtypes in bound.dtypes().items()
        ]
    bound.record_columns = []

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        needs_all = {"valid", "error", "dtypes"} & set(scan.columns)
        names = [name for name in bands if needs_all or name in scan.columns]
        columns = [one for one in ("datetime",) if one in bound.relation.schema.names]
        records = bound.records(scan, bands=read_bands, columns=columns)
        yield from composite_rows(bound.execution(scan), names, options, records)

    own = composite_schema(fields, options, bound.request.on_error)
    return expose_read(bound, own, run)
