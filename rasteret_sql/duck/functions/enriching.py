"""rasteret_enrich: headers of any relation, streaming.

The work is a scalar UDF beside the columns of each row, so the relation may be a TEMP
table, a CTE or a registered frame, and rows flow as DuckDB asks for them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.collections.hrefs import unsigned
from rasteret_sql.duck.calls import Call, Sql, Stream
from rasteret_sql.duck.checks import rows_not_raster
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.builds import footprint_crs
from rasteret_sql.duck.functions.parameters import (
    BAND_INDEX_MAP,
    BANDS,
    HREF_COLUMN,
    MAX_CONCURRENT,
    ON_ERROR,
)
from rasteret_sql.duck.names import IS_DUCKDB_2, quote_identifier, quote_text
from rasteret_sql.duck.raster_stream import raster_stream
from rasteret_sql.duck.relations import Relation, caller_sql, find_visible
from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.duck.scalars import (
    failed,
    row_batch,
    succeeded,
    value_or_error,
    without_geometry_crs,
)
from rasteret_sql.duck.staging import ROW
from rasteret_sql.duck.udfs import HEADER_UDF, HEADERS_UDF, fallible
from rasteret_sql.errors import InputError, RasteretError, redact
from rasteret_sql.ingest.bands import RASTER_SUFFIXES
from rasteret_sql.ingest.build import strict
from rasteret_sql.ingest.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.ingest.headers import Headers
from rasteret_sql.ingest.rasters import KEPT, file_name
from rasteret_sql.ingest.samples import ReadHeaders, SampleSurvey, header_reader
from rasteret_sql.ingest.table.assets import AssetReader
from rasteret_sql.ingest.table.layout import plain
from rasteret_sql.ingest.table.tables import records_from_table
from rasteret_sql.progress.counts import watched
from rasteret_sql.schema import BAND_METADATA, RASTER_HEADERS, metadata_column
from rasteret_sql.tiff.layout import Header

_ADDED = ("proj:epsg", "crs", "bbox")
_GEOMETRY_SQL = "ST_GeomFromWKB(_headers.geometry)::GEOMETRY('OGC:CRS84')"
_N_FIRST_FILES = 64
_N_FIRST_BATCHES = 8


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
        bands="bands to enrich; default: all of assets, or of an href_column those of the first "
        "64 files",
        on_error="'report' (NULL metadata) or 'error' (in a statement that selects a column it "
        "adds: only then are headers read)",
    ),
    returns='every input column; assets, "proj:epsg", crs, bbox and a {band}_metadata STRUCT per '
    "band; id (the file name without its ending), datetime (NULL) and geometry (the raster's "
    "outline) where the source has none, so that all reads take it as a collection. Of a "
    "relation that only this connection sees, give id, datetime and geometry yourself",
    raises="source: not found, or without assets; bands: not given with an href_column of a TEMP "
    "table or registered frame",
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
    options: dict[str, Any] = {
        "bands": bands or (list(band_index_map) if band_index_map else None),
        "href_column": href_column,
        "band_index_map": band_index_map,
        "is_whole": False,
        "geometry_crs": footprint_crs(relation) if relation is not None else None,
        "on_error": on_error,
        "max_concurrent": max_concurrent,
    }
    if relation is not None:
        _check_columns(relation.schema.names, href_column)
        if options["bands"] is None:
            options |= _bands_of(call, relation, href_column, max_concurrent)
    elif options["bands"] is None and href_column is not None:
        raise InputError.expected(
            "bands",
            "names, as this connection alone sees the relation",
            "NULL",
            "give bands := [name], or band_index_map := MAP {name: sample from 0}",
        )
    rows = relation.given if relation is not None else caller_sql(str(source))
    given = quote_text(json.dumps(options)) + ", " + quote_text(call.caller.connection)
    if options["bands"] is None:
        return Sql(_sql_of_struct(rows, given))
    own = _made_columns(options["bands"], relation.schema.names if relation else None, href_column)
    replaced = ["_headers", *_ADDED, "assets", *map(metadata_column, options["bands"])]
    listed = ", ".join(quote_text(name) for name in replaced)
    made = ", ".join(f"{value} AS {quote_identifier(name)}" for name, value in own.items())
    return Sql(
        f"SELECT COLUMNS(lambda c: c NOT IN ({listed})), {made} FROM ("
        f"SELECT * REPLACE ({value_or_error('_headers')} AS _headers) FROM ("
        f"SELECT {ROW}.*, {HEADERS_UDF}({ROW}, {given}) AS _headers FROM {rows} AS {ROW}))"
    )


def _made_columns(
    bands: list[str], given: list[str] | None, href_column: str | None
) -> dict[str, str]:
    """What is added to the columns of a relation, and the SQL of each.

    Which columns a relation has that this connection alone sees is not known: those that
    a record may lack are then left out.
    """
    made: dict[str, str] = {}
    if given is not None and "id" not in given:
        made["id"] = _name_sql(quote_identifier(href_column)) if href_column else "_headers.id"
    if given is not None and "datetime" not in given:
        has_start = "start_datetime" in given
        made["datetime"] = "_headers.datetime" if has_start else "NULL::TIMESTAMP"
    if given is not None and not _has_geometry(given):
        made["geometry"] = _GEOMETRY_SQL
    assets = ", ".join(
        f"{quote_identifier(name)}: _headers.assets[{number}]"
        for number, name in enumerate(bands, 1)
    )
    made |= {"assets": f"{{{assets}}}", "proj:epsg": "_headers.epsg"}
    made |= {"crs": "_headers.crs", "bbox": "_headers.bbox"}
    return made | {
        metadata_column(name): f"_headers.metadata[{number}]"
        for number, name in enumerate(bands, 1)
    }


def _name_sql(href: str) -> str:
    """SQL for the `file_name` of a column."""
    endings = "|".join(sorted(suffix.removeprefix(".") for suffix in RASTER_SUFFIXES))
    name = f"regexp_extract(split_part({href}, '?', 1), '([^/]+)/*$', 1)"
    return f"regexp_replace({name}, '\\.({endings})$', '', 'i')"


def _has_geometry(names: list[str]) -> bool:
    return "geometry" in names


def _sql_of_struct(rows: str, given: str) -> str:
    """SQL that takes the bands from the fields of ``assets``, as only the caller sees them.

    ``unnest`` makes a column of each field; ``COLUMNS`` calls the UDF for each.
    """
    kept = ", ".join(quote_text(name) for name in _ADDED)
    value = value_or_error("{}")
    for part in ("error", "value"):
        value = value.replace(f"{{}}.{part}", f"struct_extract(COLUMNS('_metadata$'), '{part}')")
    return (
        "SELECT * EXCLUDE (_row) FROM ("
        f'SELECT unnest(_kept), _headers.epsg AS "proj:epsg", _headers.crs AS crs, '
        f"_headers.bbox AS bbox, {value} FROM ("
        f"SELECT * REPLACE ({value_or_error('_headers')} AS _headers) FROM ("
        f"SELECT _kept, {HEADERS_UDF}(_kept._row, {given}) AS _headers, "
        f"{HEADER_UDF}(COLUMNS(* EXCLUDE (_kept)), {given}) AS '\\0_metadata' FROM ("
        f"SELECT _rasteret_rows AS _kept, unnest(_rasteret_rows.assets) FROM ("
        f"SELECT {ROW} AS _row, COLUMNS(lambda c: c NOT IN ({kept})) FROM {rows} AS {ROW}) "
        f"AS _rasteret_rows))))"
    )


def _check_columns(names: list[str], href_column: str | None) -> None:
    listed = ", ".join(names)
    if href_column is not None and href_column not in names:
        raise InputError.expected(
            "href_column", f"a column of the source ({listed})", href_column, "check the spelling"
        )
    if href_column is None and "assets" not in names:
        raise InputError.expected(
            "source", "a column assets", f"columns {listed}", "give href_column := '<column>'"
        )


def _bands_of(
    call: Call, relation: Relation, href_column: str | None, max_concurrent: int
) -> dict[str, Any]:
    """The bands of a relation that can be read now: its assets', or those of its first files."""
    batches = (batch.column(0) for batch in relation.batches(call, [href_column or "assets"], []))
    if href_column is None:
        reader = AssetReader(None, {}, {}, None)
        kind = relation.schema.field("assets").type
        n_batches = _N_FIRST_BATCHES if pa.types.is_struct(kind) else None
        for column in islice(batches, n_batches):
            reader.entries(plain(column))
        names = reader.bands()
        if not names and pa.types.is_struct(kind):
            names = [field.name for field in kind]
        if not names:
            raise InputError.expected("bands", "names", "NULL", "the assets name none; give them")
        return {"bands": names}
    hrefs: dict[str, None] = {}
    for column in batches:
        found = pc.unique(plain(column)).drop_null().cast(pa.string()).to_pylist()
        hrefs |= dict.fromkeys(found[: _N_FIRST_FILES - len(hrefs)])
        if len(hrefs) >= _N_FIRST_FILES:
            break
    survey = SampleSurvey()
    with call.runtime.scans.stop_event(call.caller.connection) as stop:
        read, _ = header_reader(max_concurrent=max_concurrent, stop=stop)
        for href, header in read(map(unsigned, hrefs)):
            survey.add(href, header)
    names = survey.names() or ["b1"]
    samples = {name: number for number, name in enumerate(names)}
    return {"bands": names, "band_index_map": samples, "is_whole": True}


def make_headers(runtime: Runtime) -> Callable[..., pa.Array]:
    """The UDF for rows of several bands: their assets in, what the headers tell out."""

    def headers(rows: pa.Array, options: pa.Array, callers: pa.Array) -> pa.Array:
        if not len(rows):
            return pa.array([], fallible(RASTER_HEADERS))
        caller = callers[0].as_py()
        try:
            with (
                runtime.scans.working(caller) as stop,
                watched("rasteret_enrich", resume=caller),
            ):
                found = _headers_of(row_batch(rows), stop, **json.loads(options[0].as_py()))
        except RasteretError as error:
            return failed(runtime, error, ("rasteret_enrich", caller), RASTER_HEADERS, len(rows))
        return succeeded(found)

    return headers


def make_header(runtime: Runtime) -> Callable[..., pa.Array]:
    """The UDF for one band: its assets in, its metadata out."""

    def header(assets: pa.Array, options: pa.Array, callers: pa.Array) -> pa.Array:
        if not len(assets):
            return pa.array([], fallible(BAND_METADATA))
        whole = assets.combine_chunks() if isinstance(assets, pa.ChunkedArray) else assets
        caller = callers[0].as_py()
        given = json.loads(options[0].as_py()) | {"bands": ["band"], "band_index_map": None}
        try:
            rows = pa.RecordBatch.from_arrays(
                [pa.StructArray.from_arrays([whole], ["band"])], ["assets"]
            )
            with (
                runtime.scans.working(caller) as stop,
                watched("rasteret_enrich", resume=caller),
            ):
                found = _headers_of(rows, stop, **given)
        except RasteretError as error:
            return failed(runtime, error, ("rasteret_enrich", caller), BAND_METADATA, len(assets))
        return succeeded(found.field("metadata").values)

    return header


def _headers_of(
    rows: pa.RecordBatch,
    stop: threading.Event,
    *,
    bands: list[str] | None,
    href_column: str | None,
    band_index_map: dict[str, int] | None,
    is_whole: bool,
    geometry_crs: str | None,
    on_error: str,
    max_concurrent: int,
) -> pa.Array:
    _check_columns(rows.schema.names, href_column)
    if not IS_DUCKDB_2:
        rows = without_geometry_crs(rows)
    if "id" not in rows.schema.names:
        rows = rows.append_column("id", pa.array(map(str, range(rows.num_rows)), pa.string()))
    records = records_from_table(
        pa.Table.from_batches([rows]).to_reader,
        geo_metadata=None,
        column_map=None,
        href_column=href_column,
        band_index_map=None if is_whole else band_index_map,
        url_rewrite=None,
        columns=None,
        bands=None if is_whole else bands,
        geometry_crs=geometry_crs,
        has_headers=is_whole,
        samples=band_index_map if is_whole else None,
    )
    headers = Headers(max_concurrent, stop)
    if records.of_headers is not None:
        read, _ = header_reader(max_concurrent=max_concurrent, stop=stop, headers=headers)
        records = records.of_headers.records(_up_to(len(bands or ()), read), {})
    names = bands or [field.name for field in records.schema.field("assets").type]
    result = Enrichment(failures=list(records.failures))
    schema = enriched_schema(records.schema, names)
    batches = enrich(
        records.batches(), schema, names, result, stop=stop, headers=headers, has_outlines=True
    )
    if on_error == "error":
        batches = strict(batches, result)
    parts = [
        pa.StructArray.from_arrays(
            [
                _interleaved([batch.column(metadata_column(name)) for name in names]),
                assets,
                batch.column("proj:epsg"),
                batch.column("crs"),
                batch.column("bbox"),
                _file_names(assets),
                batch.column("datetime"),
                batch.column("geometry"),
            ],
            fields=list(RASTER_HEADERS),
        )
        for batch in batches
        for assets in [_interleaved([batch.column("assets").field(name) for name in names])]
    ]
    return pa.concat_arrays(parts)


def _file_names(assets: pa.ListArray) -> pa.Array:
    """Of each row, the name of the first of its files."""
    hrefs = assets.values.field("href").to_pylist()
    n_bands = max(1, len(hrefs) // max(1, len(assets)))
    firsts = [
        next(filter(None, hrefs[at : at + n_bands]), None) for at in range(0, len(hrefs), n_bands)
    ]
    return pa.array([href and file_name(href) for href in firsts], pa.string())


def _up_to(n_samples: int, read: ReadHeaders) -> ReadHeaders:
    """Headers of files that have no more samples than there are bands."""

    def checked(hrefs: Iterable[str]) -> Iterator[tuple[str, Header | None]]:
        for href, header in read(hrefs):
            if header is not None and header.samples_per_pixel > n_samples:
                raise InputError.expected(
                    redact(href),
                    f"at most {n_samples} samples, as in the first {_N_FIRST_FILES} files",
                    header.samples_per_pixel,
                    "name the bands with band_index_map",
                )
            yield href, header

    return checked


def _interleaved(columns: list[pa.Array]) -> pa.ListArray:
    """One list per row, holding that row of each column."""
    n_rows, n_columns = len(columns[0]), len(columns)
    if n_columns == 1:
        offsets = pa.array(range(n_rows + 1), pa.int32())
        return pa.ListArray.from_arrays(offsets, columns[0])
    order = [column * n_rows + row for row in range(n_rows) for column in range(n_columns)]
    values = pa.concat_arrays(columns).take(pa.array(order, pa.int64()))
    offsets = pa.array(range(0, n_rows * n_columns + 1, n_columns), pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


@table_function(
    "rasteret_files",
    "Rasters as records, one per file, with the headers that reads need; nothing is kept.",
    file="20_collections.sql",
    parameters=(
        Parameter(
            "pattern",
            "any",
            "path, URL, folder or pattern (*, ?, [a-z], **) of rasters, or a list of them; s3://, "
            "gs:// and az:// are listed, web servers are not",
        ),
        BANDS.with_doc("bands to keep, or a new name for each sample; default: all"),
        ON_ERROR.with_doc("'report' (NULL metadata) or 'error'"),
        MAX_CONCURRENT,
    ),
    returns="id (the file name without its ending, or the path below the folder that files of one "
    "name share), "
    'datetime (NULL), geometry, bbox, assets, "proj:epsg", crs, {band}_metadata STRUCT per band; '
    "bands have the files' band descriptions, else b1, b2, …",
    raises="pattern: nothing found, or not to be listed; bands: unknown",
    example="FROM rasteret_files('*/B04.tif')",
)
def files(
    call: Call, *, pattern: object, bands: list[str] | None, on_error: str, max_concurrent: int
) -> Stream:
    """Records of files that need no table: their headers are read when the call is bound."""
    with call.runtime.scans.stop_event(call.caller.connection) as stop:
        records = KEPT.open(KEPT.find(pattern), max_concurrent, stop)
    return raster_stream(records, records.chosen(bands), on_error)
