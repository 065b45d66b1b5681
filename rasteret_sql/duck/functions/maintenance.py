"""Keep collections right: rasteret_refresh, rasteret_validate, rasteret_compare_to_catalog."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from rasteret_sql.collections.datetimes import Instants, format_micros, parse_range
from rasteret_sql.collections.footers import read_info
from rasteret_sql.collections.workspace import KINDS, read_build
from rasteret_sql.datasets.compare import FACT_SCHEMA, compare, dataset_of
from rasteret_sql.datasets.registry import datasets, find_dataset, set_storage_defaults_of
from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import flag
from rasteret_sql.duck.declarations import Parameter, table_function
from rasteret_sql.duck.functions.builds import BuildRequest, run_build, stac_request, table_request
from rasteret_sql.duck.functions.collections import KEPT, description, workspace_of
from rasteret_sql.duck.functions.parameters import (
    COLLECTION,
    MAX_CONCURRENT,
    ON_ERROR,
    WORKSPACE,
)
from rasteret_sql.duck.names import quote_text
from rasteret_sql.duck.relation_names import is_path
from rasteret_sql.duck.relations import Relation, resolve
from rasteret_sql.errors import CollectionError, InputError, RasteretError
from rasteret_sql.ingest.records import Records
from rasteret_sql.maintenance.faults import FAULT_SCHEMA, Fault
from rasteret_sql.maintenance.file_checks import FileChecks
from rasteret_sql.maintenance.refresh import RefreshOptions, refresh_collection
from rasteret_sql.maintenance.validate import (
    checked_columns,
    file_faults,
    record_level_faults,
    schema_faults,
    with_read_errors,
)
from rasteret_sql.remote.stores import is_remote
from rasteret_sql.schema import PARTITION_KEYS

_LOCATION = {"stac": "stac_api", "records": "source"}


@table_function(
    "rasteret_refresh",
    "Run the build of a collection again for what is new: records are added and replaced, "
    "headers of new and changed files read.",
    file="22_maintenance.sql",
    writes=True,
    notes=(
        (
            "The whole source is read again, so that late and changed records are found; a "
            "record that it no longer has stays."
        ),
        (
            "Only headers of new files, of files whose ETag or size changed, and of those in "
            "rasteret_errors are read. Readers see the version before or the one after; nothing "
            "new makes no new version."
        ),
    ),
    parameters=(
        KEPT.with_doc("name of a collection that was built in the workspace"),
        Parameter(
            "stac_api",
            "VARCHAR",
            "where its items are now; needed where the address was signed, as secrets are not kept",
            "NULL",
        ),
        Parameter(
            "source",
            "VARCHAR",
            "where its table is now; the same for rasteret_build_table",
            "NULL",
        ),
        Parameter(
            "since",
            "VARCHAR",
            "look only at items from this date on (STAC); older ones that changed or came late "
            "are not found",
            "NULL",
        ),
        Parameter(
            "check_remote",
            "BOOLEAN",
            "ask for ETag and size of every file that is in the collection",
            "true",
            flag,
        ),
        WORKSPACE,
        MAX_CONCURRENT,
        ON_ERROR,
    ),
    returns="one row as of a build: records, bands, partitions, size_bytes of the whole "
    "collection; assets, enriched, failed, requests of this refresh",
    raises="name: unknown, or not built here; stac_api: needed again; the source: not to be read "
    "(the collection is as before)",
    example="FROM rasteret_refresh('s2')",
)
def refresh(
    call: Call,
    *,
    name: str,
    since: object,
    check_remote: bool,
    workspace: str | None,
    max_concurrent: int,
    on_error: str,
    **locations: object,
) -> Stream | Sql:
    """Run the build of a collection again, for what is new."""
    place = workspace_of(call, workspace)
    info = place.find(name)
    arguments = _stored_arguments(read_build(info.path), info.name, info.kind, locations)
    common: dict[str, Any] = {
        "name": info.name,
        "workspace": workspace,
        "max_concurrent": max_concurrent,
        "on_error": on_error,
    }
    request_of = stac_request if info.kind == "stac" else table_request
    request = request_of(call, **arguments, **common)
    instants = _since(since, info.kind)
    if instants is not None:
        narrowed = _narrowed(arguments.get("date_range"), instants)
        request = replace(request, records=_later(call, arguments | common, narrowed))
    options = RefreshOptions(
        request.options,
        check_remote=check_remote,
        since=instants and instants.start,
    )

    def work(records: Callable[[], Records], stop: threading.Event) -> dict[str, Any]:
        set_storage_defaults_of([info.data_source])
        return refresh_collection(records, request.place, options, stop)

    return run_build(call, request, work)


def _stored_arguments(
    built: Mapping[str, object], name: str, kind: str, locations: Mapping[str, object]
) -> dict[str, Any]:
    """What the collection was built with, its location given again or as it was kept.

    Raises:
        CollectionError: the folder does not tell how it was built.
        InputError: a part that may be secret was not kept, and is not given again.
    """
    source = built.get("source")
    if not isinstance(source, dict) or _LOCATION[kind] not in source:
        raise CollectionError.expected(
            name, "a collection that tells how it was built", "none", "build it with force := true"
        )
    arguments = dict(cast("dict[str, Any]", source))
    own = _LOCATION[kind]
    for argument, value in locations.items():
        if value is not None and argument != own:
            raise InputError.expected(argument, "NULL", value, f"{name} is built from {own}")
    withheld = list(cast("list[str]", built.get("withheld") or []))
    if locations[own] is not None:
        arguments[own] = locations[own]
        withheld = [argument for argument in withheld if argument != own]
    if own in withheld:
        raise InputError.expected(
            own, "the signed address again", "NULL", "what follows its ? was not stored"
        )
    if withheld:
        raise InputError.expected(
            ", ".join(withheld), "values without secrets", "ones", "build it with force := true"
        )
    return arguments


def _since(since: object, kind: str) -> Instants | None:
    if since is None:
        return None
    if kind != "stac":
        raise InputError.expected("since", "NULL for a table", since, "put it into its SELECT")
    return parse_range([since, None])


def _narrowed(date_range: list[Any] | None, since: Instants) -> list[Any]:
    """The dates of the build from `since` on."""
    start, end = date_range or [None, None]
    instants = parse_range([start, None])
    later = max(at for at in (instants.start, since.start) if at is not None)
    return [format_micros(later), end]


def _later(
    call: Call, arguments: dict[str, Any], date_range: list[Any]
) -> Callable[..., Records] | None:
    request: BuildRequest = stac_request(call, **arguments | {"date_range": date_range})
    return request.records


@table_function(
    "rasteret_validate",
    "List what is wrong with a collection: its Parquet files, columns, records and cached "
    "headers, and the files they are of.",
    file="22_maintenance.sql",
    parameters=(
        COLLECTION,
        Parameter(
            "require_band_metadata",
            "BOOLEAN",
            "a band with a file but without a header is a fault",
            "true",
            flag,
        ),
        Parameter(
            "check_remote",
            "BOOLEAN",
            "ask every file for its ETag and size: 'stale', 'gone' and 'unreachable' are faults",
            "false",
            flag,
        ),
        MAX_CONCURRENT.with_doc("requests under way at once"),
    ),
    returns="id (NULL: of no record alone), column, band, fault; no row: all is sound",
    raises="collection: unknown (the known ones are listed)",
    example="SELECT count(*) AS faults FROM rasteret_validate('s2')",
)
def validate(
    call: Call,
    *,
    collection: object,
    require_band_metadata: bool,
    check_remote: bool,
    max_concurrent: int,
) -> Stream:
    """List what is wrong with a collection."""
    place = _place_of(call, collection)
    try:
        relation: Relation | None = resolve(call, collection)
    except RasteretError:
        if place is None:
            raise
        relation = None  # a file that can't be read is what is looked for

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        sound = []
        broken: list[Fault] = []
        for path, fault in file_faults(place) if place is not None else ():
            scan.check()
            if fault is None:
                sound.append(path)
            else:
                name = path.name if path == place else path.relative_to(cast("Path", place))
                broken.append(Fault(None, None, None, f"{name} {fault}"))
        yield _fault_batch(broken)
        found = relation
        if broken or found is None:
            found = resolve(call, _query_over(sound)) if sound else None
        if found is None:
            return
        faults = schema_faults(found.schema, require_band_metadata=require_band_metadata)
        yield _fault_batch(list(faults))
        rows = record_level_faults(
            found.batches(call, checked_columns(found.schema), []),
            lambda: found.batches(call, ["id"], []),
            found.schema,
            require_band_metadata=require_band_metadata,
            checks=FileChecks(max_concurrent, scan.stop) if check_remote else None,
            stop=scan.stop,
        )
        yield from (_fault_batch(one) for one in with_read_errors(rows) if one)

    return Stream(FAULT_SCHEMA, run)


@table_function(
    "rasteret_compare_to_catalog",
    "Put what a data set says of itself beside what the collection is, a row for each fact.",
    file="22_maintenance.sql",
    parameters=(
        COLLECTION,
        Parameter(
            "dataset_id",
            "VARCHAR",
            "id of the data set; default: the one the collection was built from",
            "NULL",
        ),
    ),
    returns="fact, catalog, collection (as text), agrees BOOLEAN (NULL where one side says "
    "nothing)",
    raises="collection: of no known data set, or of several",
    example="SELECT * FROM rasteret_compare_to_catalog('mine') WHERE agrees IS NOT NULL",
)
def compare_to_catalog(call: Call, *, collection: object, dataset_id: object) -> Stream:
    """Put the facts of the data set beside the collection's."""
    relation = resolve(call, collection)
    chosen = None if dataset_id is None else find_dataset(dataset_id)
    place = _place_of(call, collection)

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        row = description(
            call, relation.slim(call).sql, relation.label, relation.schema, relation.bands
        )
        if place is not None and place.is_dir():
            row["data_source"] = read_info(relation.label, "", place).data_source
        built = read_build(place).get("source") if place is not None else None
        options = cast("dict[str, Any]", built if isinstance(built, dict) else {})
        found = _collection_ids(call, relation)
        dataset = chosen or dataset_of(datasets(), row["data_source"], options, found)
        facts = [fact._asdict() for fact in compare(dataset, row, options, found)]
        yield pa.RecordBatch.from_pylist(facts, schema=FACT_SCHEMA)

    return Stream(FACT_SCHEMA, run)


def _place_of(call: Call, text: object) -> Path | None:
    """The local folder or file of a collection argument, None where it is none."""
    if not isinstance(text, str) or is_remote(text):
        return None
    folders = [call.workspace.root / f"{text}_{kind}" for kind in KINDS] if "/" not in text else []
    if is_path(text):
        folders.append(Path(text).expanduser().absolute())
    try:
        return next((folder for folder in folders if folder.exists()), None)
    except OSError:  # query text, too long for a path
        return None


def _query_over(files: Sequence[Path]) -> str:
    """Query text over the files that can be read."""
    listed = ", ".join(quote_text(str(path)) for path in files)
    keys = [key for key in PARTITION_KEYS if all(f"/{key}=" in str(path) for path in files)]
    types = ", ".join(f"{quote_text(key)}: BIGINT" for key in keys)
    hive = f", hive_partitioning = true, hive_types = {{{types}}}" if keys else ""
    return f"SELECT * FROM read_parquet([{listed}]{hive})"


def _fault_batch(faults: Sequence[Fault]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([fault._asdict() for fault in faults], schema=FAULT_SCHEMA)


def _collection_ids(call: Call, relation: Relation) -> list[str]:
    if "collection" not in relation.schema.names:
        return []
    with call.cursor() as cursor:
        rows = cursor.sql(
            f"SELECT DISTINCT collection::VARCHAR FROM {relation.sql} "
            "WHERE collection IS NOT NULL ORDER BY 1 LIMIT 20"
        ).fetchall()
    return [row[0] for row in rows]
