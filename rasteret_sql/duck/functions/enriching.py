"""rasteret_enrich: headers of any relation, streaming.

The work is a scalar UDF beside the columns of each row, so the relation may be a TEMP
table, a CTE or a registered frame, and rows flow as DuckDB asks for them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pyarrow as pa

from rasteret_sql.duck.checks import rows_not_raster
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.parameters import (
    BAND_INDEX_MAP,
    BANDS,
    HREF_COLUMN,
    MAX_CONCURRENT,
    ON_ERROR,
)
from rasteret_sql.duck.relations import caller_sql, find_visible
from rasteret_sql.duck.scalars import (
    Scalar,
    failed,
    fallible,
    row_batch,
    sql_type_name,
    succeeded,
    value_or_error,
)
from rasteret_sql.duck.table_function import (
    Call,
    Runtime,
    Sql,
    quote_identifier,
    quote_text,
)
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.records.build import strict
from rasteret_sql.records.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.records.table.tables import records_from_table
from rasteret_sql.remote.waiting import listening
from rasteret_sql.schema import BAND_METADATA, BBOX, metadata_column

_HEADERS_UDF = "_rasteret_headers"
_HEADERS = pa.struct(
    [
        ("metadata", pa.list_(BAND_METADATA)),
        ("epsg", pa.int32()),
        ("crs", pa.string()),
        ("bbox", BBOX),
    ]
)


@table_function(
    "rasteret_enrich",
    "Read the headers of all assets of a relation, streaming; nothing is kept.",
    file="20_collections.sql",
    parameters=with_docs(
        (
            Parameter(
                "source",
                "VARCHAR",
                "table, view, TEMP table or registered frame; SELECT text; Parquet path",
                check=rows_not_raster,
            ),
            BANDS,
            HREF_COLUMN,
            BAND_INDEX_MAP,
            ON_ERROR,
            MAX_CONCURRENT,
        ),
        bands="bands to enrich; default: all of assets",
        on_error="'report' (NULL metadata) or 'error' (in a statement that selects a column it "
        "adds: only then are headers read)",
    ),
    returns='every input column, {band}_metadata STRUCT per band, "proj:epsg" INTEGER, crs '
    "VARCHAR, bbox STRUCT",
    raises="source: not found, or without assets",
    example="CREATE TABLE enriched AS FROM rasteret_enrich('my_scenes', href_column := 'url', "
    "bands := ['B04'])",
)
def enrich_relation(
    call: Call,
    *,
    source: object,
    bands: list[str] | None,
    href_column: str | None,
    band_index_map: dict[str, int] | None,
    on_error: str,
    max_concurrent: int,
) -> Sql:
    """Rewrite the call: the relation's columns, and those that the UDF adds."""
    relation = find_visible(call, source, "source")
    names = bands or (list(band_index_map) if band_index_map else None)
    if names is None:
        if relation is None:
            raise InputError.expected(
                "bands", "a list", "NULL", "name the bands of a relation private to a connection"
            )
        columns = relation.schema
        table = columns.empty_table()
        records = records_from_table(
            table.to_reader,
            geo_metadata=None,
            column_map=None,
            href_column=href_column,
            band_index_map=band_index_map,
            url_rewrite=None,
            columns=None,
            bands=None,
        )
        names = [field.name for field in records.schema.field("assets").type]
    options = {
        "bands": names,
        "href_column": href_column,
        "band_index_map": band_index_map,
        "on_error": on_error,
        "max_concurrent": max_concurrent,
    }
    caller = quote_text(call.caller.connection)
    added = {
        '"proj:epsg"': "_headers.epsg",
        "crs": "_headers.crs",
        "bbox": "_headers.bbox",
        **{
            quote_identifier(metadata_column(name)): f"_headers.metadata[{number}]"
            for number, name in enumerate(names, 1)
        },
    }
    replaced = ["_headers", "proj:epsg", "crs", "bbox", *map(metadata_column, names)]
    listed = ", ".join(quote_text(name) for name in replaced)
    own = ", ".join(f"{value} AS {name}" for name, value in added.items())
    rows = relation.given if relation is not None else caller_sql(str(source))
    return Sql(
        f"SELECT COLUMNS(lambda c: c NOT IN ({listed})), {own} FROM ("
        f"SELECT * REPLACE ({value_or_error('_headers')} AS _headers) FROM ("
        f"SELECT s.*, {_HEADERS_UDF}(s, {quote_text(json.dumps(options))}, {caller}) AS _headers "
        f"FROM {rows} AS s))"
    )


def _make_headers(runtime: Runtime) -> Callable[..., pa.Array]:
    def headers(rows: pa.Array, options: pa.Array, callers: pa.Array) -> pa.Array:
        if not len(rows):
            return pa.array([], fallible(_HEADERS))
        caller = callers[0].as_py()
        try:
            with runtime.stop_event(caller) as stop, listening(stop):
                found = _headers_of(row_batch(rows), stop, **json.loads(options[0].as_py()))
        except RasteretError as error:
            named = runtime.remember(error, "rasteret_enrich", caller)
            return failed(_HEADERS, len(rows), named.message)
        return succeeded(found)

    return headers


def _headers_of(
    rows: pa.RecordBatch,
    stop: threading.Event,
    *,
    bands: list[str],
    href_column: str | None,
    band_index_map: dict[str, int] | None,
    on_error: str,
    max_concurrent: int,
) -> pa.Array:
    records = records_from_table(
        pa.Table.from_batches([rows]).to_reader,
        geo_metadata=None,
        column_map=None,
        href_column=href_column,
        band_index_map=band_index_map,
        url_rewrite=None,
        columns=None,
        bands=bands,
    )
    result = Enrichment(failures=list(records.failures))
    schema = enriched_schema(records.schema, bands)
    batches = enrich(records.batches(), schema, bands, result, n_lanes=max_concurrent, stop=stop)
    if on_error == "error":
        batches = strict(batches, result)
    parts = [
        pa.StructArray.from_arrays(
            [
                _interleaved([batch.column(metadata_column(band)) for band in bands]),
                batch.column("proj:epsg"),
                batch.column("crs"),
                batch.column("bbox"),
            ],
            fields=list(_HEADERS),
        )
        for batch in batches
    ]
    return pa.concat_arrays(parts)


def _interleaved(columns: list[pa.Array]) -> pa.ListArray:
    """One list per row, holding that row of each column."""
    n_rows, n_columns = len(columns[0]), len(columns)
    order = [column * n_rows + row for row in range(n_rows) for column in range(n_columns)]
    values = pa.concat_arrays(columns).take(pa.array(order, pa.int64()))
    offsets = pa.array(range(0, n_rows * n_columns + 1, n_columns), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, type=_HEADERS.field("metadata").type)


SCALARS = (Scalar(_HEADERS_UDF, _make_headers, sql_type_name(fallible(_HEADERS))),)
