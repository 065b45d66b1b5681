"""Data sets by name: rasteret_build, rasteret_datasets, registering."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rasteret_sql.collections.datetimes import parse_range
from rasteret_sql.datasets.dataset import Dataset
from rasteret_sql.datasets.registry import (
    datasets,
    find_dataset,
    find_registered,
    register_dataset,
    unregister_dataset,
)
from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import text
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.builds import build_stac, build_table
from rasteret_sql.duck.functions.parameters import (
    BAND_INDEX_MAP,
    BANDS,
    BBOX,
    BUILD_PARAMETERS,
    BUILD_REPORT,
    DATE_RANGE,
    FILTER,
    MAX_ITEMS,
    NAME,
    QUERY,
    URL_REWRITE,
)
from rasteret_sql.duck.names import quote_identifier
from rasteret_sql.duck.record_conditions import meets_box
from rasteret_sql.duck.relations import resolve
from rasteret_sql.errors import InputError, UnknownBandError
from rasteret_sql.grid.aoi import parse_aoi

DATASETS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("description", pa.string()),
        ("bands", pa.list_(pa.string())),
        ("access", pa.string()),
        ("license", pa.string()),
        ("license_url", pa.string()),
        ("spatial_coverage", pa.string()),
        ("start_date", pa.date32()),
        ("end_date", pa.date32()),
        ("stac_api", pa.string()),
        ("stac_collection", pa.string()),
        ("record_table", pa.string()),
        ("source", pa.string()),
    ]
)

_TABLE_TAKES_NO = ("query", "filter", "max_items")
_MAX_NAME = 100


@table_function(
    "rasteret_build",
    "Build a collection from a data set known by name; its files are reached as its access says.",
    file="25_datasets.sql",
    writes=True,
    parameters=with_docs(
        (
            Parameter("dataset_id", "VARCHAR", "id, as rasteret_datasets lists it"),
            NAME.with_default("NULL"),
            BBOX,
            DATE_RANGE,
            QUERY,
            FILTER,
            BANDS,
            MAX_ITEMS,
            *BUILD_PARAMETERS,
        ),
        name="name of the collection and of its view; default: the id, with _ for what needs "
        "quotes",
        bands="bands to keep; default: those of the data set that the items have",
    ),
    returns=BUILD_REPORT,
    raises="dataset_id: unknown (near ones are listed); bands: unknown; name: taken",
    example="FROM rasteret_build('mine/s2', name := 'mine', bands := ['red', 'nir'])",
)
def build(
    call: Call,
    *,
    dataset_id: object,
    name: str | None,
    bbox: list[float] | None,
    date_range: list[Any] | None,
    bands: list[str] | None,
    **rest: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Build from a data set known by name."""
    dataset = find_dataset(dataset_id)
    shared = {
        "name": _name_of(dataset) if name is None else name,
        "bands": bands,
        "band_index_map": _of_bands(dataset.band_index_map, bands),
        "url_rewrite": dict(dataset.url_rewrite) or None,
        "data_source": dataset.id,
        "enrich": True,
    }
    _check_bands(dataset, bands)
    if dataset.record_table is not None:
        return _build_table(call, dataset, shared, bbox, date_range, rest)
    built = build_stac(
        call,
        stac_api=dataset.stac_api,
        collection=dataset.stac_collection,
        bbox=bbox,
        date_range=date_range,
        band_map=_of_bands(dataset.band_map, bands),
        ids=None,
        intersects=None,
        static_catalog=None,
        allow_local=False,
        is_partial=True,
        **shared,
        **rest,
    )
    return _reading_as_told(dataset, built)


@table_function(
    "rasteret_datasets",
    "Data sets known by name: built-in ones, and those you registered.",
    file="25_datasets.sql",
    parameters=(
        Parameter(
            "search",
            "VARCHAR",
            "text that the id, name or description holds, in any case",
            "NULL",
            text(todo="NULL lists all"),
        ),
    ),
    returns="id, name, description, bands, access, license, license_url, spatial_coverage, "
    "start_date, end_date (NULL: goes on), stac_api, stac_collection, record_table, source "
    "('built-in' or 'local')",
    raises="the file of your data sets is damaged",
    example="SELECT id, bands, access FROM rasteret_datasets() WHERE source = 'built-in'",
)
def list_datasets(_call: Call, *, search: str | None) -> Stream:
    """List the data sets."""
    part = (search or "").casefold()

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        found = datasets().values()
        yield _rows([d for d in found if part in f"{d.id}\n{d.name}\n{d.description}".casefold()])

    return Stream(DATASETS_SCHEMA, run)


def _told(name: str, sql_type: str, doc: str) -> Parameter:
    """A fact of a data set, which `Dataset.of` checks."""
    return Parameter(name, sql_type, doc, "NULL")


_ID = Parameter("id", "VARCHAR", "of a data set you registered", check=text(todo="as 'mine/s2'"))


@table_function(
    "rasteret_register_dataset",
    "Keep a data set of your own, in $RASTERET_DATASETS, else "
    "~/.config/rasteret_sql/datasets.json.",
    file="25_datasets.sql",
    writes=True,
    parameters=(
        _ID.with_doc(
            "as 'mine/s2'; replaces the one you registered under it, goes before a built-in one"
        ),
        _told("name", "VARCHAR", "title"),
        _told("description", "VARCHAR", "one sentence"),
        _told("stac_api", "VARCHAR", "as of rasteret_build_stac; this or record_table"),
        _told("stac_collection", "VARCHAR", "STAC collection id"),
        _told("record_table", "VARCHAR", "path or URL of Parquet with a row per scene"),
        _told("column_map", "MAP", "column of the record table to canonical column"),
        _told("href_column", "VARCHAR", "column of the record table with the file's URL"),
        _told("band_map", "MAP", "band name to asset key"),
        BAND_INDEX_MAP,
        URL_REWRITE,
        Parameter(
            "access",
            "VARCHAR",
            "'open', 'requester_pays' (your S3 account) or 'signed' (tokens of the Planetary "
            "Computer)",
            "'open'",
        ),
        _told("access_prefixes", "VARCHAR[]", "where the hrefs start for which access holds"),
        _told("spatial_coverage", "VARCHAR", "in words"),
        _told("start_date", "DATE", "of the first scene"),
        _told("end_date", "DATE", "of the last; NULL: goes on"),
        _told("license", "VARCHAR", "name of the license"),
        _told("license_url", "VARCHAR", "its text"),
    ),
    returns="the row of rasteret_datasets",
    raises="id: malformed; stac_api: with a secret, or neither it nor record_table; any other: "
    "malformed",
    example="FROM rasteret_register_dataset('mine/s2', stac_api := 'items.json', "
    "band_map := MAP {'red': 'B04', 'nir': 'B08'})",
)
def register(_call: Call, *, id: str, **given: object) -> Stream:  # noqa: A002 (as in SQL)
    """Keep a data set of the user's."""
    dataset = Dataset.of(id, given)

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        register_dataset(dataset)
        yield _rows([dataset])

    return Stream(DATASETS_SCHEMA, run)


@table_function(
    "rasteret_unregister_dataset",
    "Forget a data set that you registered; collections built from it stay.",
    file="25_datasets.sql",
    writes=True,
    parameters=(_ID,),
    returns="the row of rasteret_datasets that it was",
    raises="id: not registered (those that are, are listed)",
    example="FROM rasteret_unregister_dataset('mine/s2')",
)
def unregister(_call: Call, *, id: str) -> Stream:  # noqa: A002 (as in SQL)
    """Forget a data set of the user's."""
    find_registered(id)

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        yield _rows([unregister_dataset(id)])

    return Stream(DATASETS_SCHEMA, run)


def _rows(found: list[Dataset]) -> pa.RecordBatch:
    rows = [{name: getattr(one, name) for name in DATASETS_SCHEMA.names} for one in found]
    return pa.RecordBatch.from_pylist(rows, schema=DATASETS_SCHEMA)


def _name_of(dataset: Dataset) -> str:
    """A name that needs no quotes in SQL.

    Example:
        >>> _name_of(Dataset("pc/alos-dem"))
        'pc_alos_dem'
    """
    return re.sub(r"[^A-Za-z0-9_]", "_", dataset.id)[:_MAX_NAME]


def _check_bands(dataset: Dataset, bands: list[str] | None) -> None:
    """Refuse unknown bands at once, where the data set says which it has."""
    for band in bands or []:
        if dataset.bands and band not in dataset.bands:
            raise UnknownBandError.of(band, dataset.bands)


def _of_bands(found: Any, bands: list[str] | None) -> dict[str, Any] | None:  # noqa: ANN401
    """The pairs of the bands to keep: items need not have the assets of the others."""
    return {key: item for key, item in found.items() if bands is None or key in bands} or None


def _reading_as_told(dataset: Dataset, built: Stream | Sql) -> Stream | Sql:
    """Files are reached as the data set says from when the build runs."""
    if isinstance(built, Sql):
        return built

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        dataset.set_storage_defaults()
        yield from built.run(scan)

    return Stream(built.schema, run)


def _build_table(
    call: Call,
    dataset: Dataset,
    shared: dict[str, Any],
    bbox: list[float] | None,
    date_range: list[Any] | None,
    rest: dict[str, Any],
) -> Stream | Sql:
    """Build from a record table; what is asked for becomes conditions on its columns."""
    for argument in _TABLE_TAKES_NO:
        if rest.pop(argument) is not None:
            raise InputError.expected(
                argument, "NULL", "a value", f"{dataset.id} is a table: use bbox and date_range"
            )
    conditions = []
    if bbox is not None or date_range:
        schema = resolve(call, dataset.record_table, "record_table").schema
        names = {canonical: column for column, canonical in dataset.column_map.items()}
        if bbox is not None:
            conditions.append(_meets(schema, names.get("bbox", "bbox"), bbox))
        if date_range:
            conditions += _within(schema, names.get("datetime", "datetime"), date_range)
    built = build_table(
        call,
        source=dataset.record_table,
        where=" AND ".join(conditions) or None,
        column_map=dict(dataset.column_map) or None,
        href_column=dataset.href_column,
        columns=None,
        geometry_crs=None,
        allow_local=False,
        **shared,
        **rest,
    )
    return _reading_as_told(dataset, built)


def _meets(schema: pa.Schema, column: str, bbox: list[float]) -> str:
    if column not in schema.names or not pa.types.is_struct(schema.field(column).type):
        raise InputError.expected(
            "bbox", f"a data set with a column {column} of boxes", "none", "leave it out"
        )
    aoi = parse_aoi(bbox=bbox, geometry=None, geometry_crs=None)
    boxes = aoi.lonlat_boxes() if aoi else []
    return f"({' OR '.join(meets_box(box, quote_identifier(column)) for box in boxes)})"


def _within(schema: pa.Schema, column: str, date_range: list[Any]) -> list[str]:
    """Compare dates, or years where the table has only these."""
    if column not in schema.names:
        raise InputError.expected(
            "date_range", f"a data set with a column {column}", "none", "leave it out"
        )
    quoted = quote_identifier(column)
    dates = parse_range(date_range)
    is_year = pa.types.is_integer(schema.field(column).type)
    conditions = []
    for micros, compares in ((dates.start, ">="), (dates.end, "<=")):
        if micros is not None:
            moment = f"make_timestamp({micros}::BIGINT)"
            conditions.append(f"{quoted} {compares} {f'year({moment})' if is_year else moment}")
    return conditions
