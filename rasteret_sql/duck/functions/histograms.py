"""Histograms from SQL: rasteret_histogram."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import at_least, interval
from rasteret_sql.duck.declarations import Parameter, table_function
from rasteret_sql.duck.functions.read_parameters import (
    ALL_TOUCHED,
    AREAS,
    COLLECTION,
    LEVEL,
    READ_PARAMETERS,
    SCALED,
)
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.reading.outputs.histograms import histogram_rows, histogram_schema


@table_function(
    "rasteret_histogram",
    "Histograms: one row per record, area, band and bin.",
    file="30_pixels.sql",
    parameters=(
        COLLECTION,
        *READ_PARAMETERS,
        *AREAS,
        LEVEL.with_doc("0 is full resolution; an overview counts fewer pixels, and is faster"),
        ALL_TOUCHED,
        SCALED.with_doc("count values with the file's scale and offset applied"),
        Parameter(
            "bins", "INTEGER", "bins of equal width, 65536 at most", "256", at_least(1, most=65_536)
        ),
        Parameter(
            "value_range",
            "DOUBLE[]",
            "[low, high] of all bins; values outside are not counted. Default: the least and "
            "greatest value of each record, area and band",
            "NULL",
            interval,
        ),
    ),
    notes=(
        "Bins are NumPy's: each holds its lower edge, the last one its upper edge too. With",
        "value_range they are the same for all records, so that GROUP BY band, bin adds them up.",
        "Without it, values too near each other for edges of type DOUBLE (integers beyond 2^53)",
        "get bins as narrow as DOUBLE allows around them.",
    ),
    returns="the record's columns, the area's columns, band, bin (from 0), low, high, count. No "
    "data is not counted; without any value count is 0 and, without value_range, low and high "
    "are NULL",
    raises="collection, bands, level: unknown; a band of complex numbers; a tile that can't be "
    "read, unless on_error; a window of more than 1 GiB",
    example="SELECT bin, low, high, sum(count) AS pixels FROM rasteret_histogram('s2', "
    "bands := ['B04'], bins := 16, value_range := [0, 4096], "
    "bbox := [77.984, 13.004, 77.99, 13.01]) GROUP BY ALL ORDER BY bin",
)
def histogram(
    call: Call,
    *,
    bins: int,
    value_range: tuple[float, float] | None,
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Count values."""
    bound = bind_read(call, arguments)

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        yield from histogram_rows(bound.execution(scan), bins, value_range, bound.records(scan))

    return expose_read(bound, histogram_schema(bound.request.on_error), run)
