"""From records to a collection in the workspace: enrich, write, swap in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Any, Literal, cast

import pyarrow as pa
import shapely

from rasteret_sql.collections.layout import write_collection
from rasteret_sql.collections.workspace import (
    Workspace,
    read_build,
    without_secrets,
    write_errors,
)
from rasteret_sql.errors import CollectionError, InputError, InterruptedReadError, shorten
from rasteret_sql.ingest.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.ingest.header_journal import HeaderJournal
from rasteret_sql.ingest.records import Records
from rasteret_sql.ingest.samples import header_reader


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        name: Of the collection.
        kind: ``'stac'`` or ``'records'``, the folder's suffix.
        source: The function that builds and its arguments, as the user gave them; stored
            without secrets. A later build of the same name with others is refused unless
            forced, and a refresh runs them again.
        enrich: Read headers.
        on_error: ``'error'`` ends the build at the first unreadable asset.
        max_concurrent: Header requests under way at once.
        force: Replace what stands under the name.
    """

    name: str
    kind: Literal["stac", "records"]
    source: Mapping[str, Any]
    data_source: str
    enrich: bool = True
    on_error: Literal["report", "error"] = "report"
    max_concurrent: int = 300
    force: bool = False


def existing_report(workspace: Workspace, options: BuildOptions) -> dict[str, Any] | None:
    """The report of a collection that stands already, None where it must be built.

    Raises:
        InputError: it was built from something else, or is of the other kind.
    """
    if options.force or all(info.name != options.name for info in workspace.collections()):
        return None
    found = workspace.find(options.name)
    built = read_build(found.path)
    if found.kind != options.kind or built.get("source") != without_secrets(stored(options.source)):
        raise InputError.expected(
            "name",
            "a new name, or the source and options it was built with",
            f"{options.name}, built from {_written(built.get('source'))}",
            "pass force := true to replace it",
        )
    report = cast("dict[str, Any]", built.get("report", {}))
    return report | {"path": str(found.path), "requests": 0, "seconds": 0.0}


def _written(source: object) -> str:
    """The arguments of a build as SQL has them.

    Example:
        >>> _written({"enrich": True, "stac_api": "items.json"})
        "enrich := true, stac_api := 'items.json'"
    """
    if not isinstance(source, Mapping):
        return str(source or "elsewhere")
    return ", ".join(f"{name} := {shorten(value)}" for name, value in source.items())


def build_collection(
    records: Records, workspace: Workspace, options: BuildOptions, stop: threading.Event
) -> dict[str, Any]:
    """Write a collection and swap it in whole.

    Returns:
        The build report, one value per field of `REPORT_SCHEMA`.

    Raises:
        CollectionError: another build of the name runs, or the disk is full or read-only.
        ReadError, HeaderError: an asset, with ``on_error='error'``.
        InterruptedReadError: ``stop`` was set; nothing of the build is left.
    """
    began = time.monotonic()
    bands = [f.name for f in records.schema.field("assets").type]
    result = Enrichment()
    info = {"name": options.name, "data_source": options.data_source, "description": ""}
    with (
        workspace.build(options.name, options.kind, force=options.force) as build,
        closing(HeaderJournal(build.journal, _plain(options.source))) as journal,
    ):
        is_enriched = options.enrich and records.has_rasters
        if is_enriched and records.of_headers is not None:
            read, n_requests = header_reader(
                max_concurrent=options.max_concurrent, stop=stop, journal=journal
            )
            records = records.of_headers.records(read, {})
            bands = [f.name for f in records.schema.field("assets").type]
            result.requests += n_requests()
        result.failures += records.failures
        rows = records.for_enrichment() if is_enriched else records.batches()
        schema, batches = records.schema, _checked(_require_rows(rows, records.warnings), stop)
        if is_enriched:
            schema = enriched_schema(schema, bands)
            batches = enrich(
                batches,
                schema,
                bands,
                result,
                max_concurrent=options.max_concurrent,
                stop=stop,
                journal=journal,
            )
        if options.on_error == "error":
            batches = strict(batches, result)
        parts = write_collection(
            schema, batches, build.folder, info=info, first_part=build.first_part
        )
        odd = [{"id": None, "band": None, "href": None, "error": w} for w in records.warnings]
        told = (line._asdict() for line in chain(result.failures, result.conflicts))
        write_errors(build.folder, chain(odd, told))
        report = {
            "name": options.name,
            "kind": options.kind,
            "path": "",
            "records": sum(part.records for part in parts),
            "bands": bands,
            "assets": result.assets,
            "enriched": result.enriched,
            "failed": len(result.failures),
            "partitions": len({part.path.parent for part in parts}),
            "size_bytes": sum(part.size_bytes for part in parts),
            "requests": result.requests,
            "seconds": round(time.monotonic() - began, 3),
        }
        path = build.commit(facts_of(options, report))
        journal.remove()
    return report | {"path": str(path)}


def _require_rows(
    batches: Iterator[pa.RecordBatch], warnings: list[str]
) -> Iterator[pa.RecordBatch]:
    """Refuse a build of nothing: the search was too narrow, or found another place."""
    n_records = 0
    for batch in batches:
        n_records += batch.num_rows
        yield batch
    if not n_records:
        why = f" ({warnings[0]})" if warnings else ""
        raise InputError.expected(
            "source",
            "at least one record",
            "none",
            f"check it, or widen bbox, date_range and other conditions{why}",
        )


def _checked(batches: Iterator[pa.RecordBatch], stop: threading.Event) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if stop.is_set():
            raise InterruptedReadError("interrupted")
        yield batch


def strict(batches: Iterator[pa.RecordBatch], result: Enrichment) -> Iterator[pa.RecordBatch]:
    """Pass batches on until an asset fails, then raise for it."""
    for batch in batches:
        if result.failures:
            first = result.failures[0]
            raise CollectionError(f"record {first.id}, band {first.band}: {first.error}")
        yield batch


def facts_of(options: BuildOptions, report: Mapping[str, Any]) -> dict[str, Any]:
    """What ``_build.json`` keeps: the options and the report of the last build or refresh.

    ``withheld`` names the options that were stored without a part, as it may be secret.
    """
    source = stored(options.source)
    withheld = [key for key, value in source.items() if without_secrets(value) != value]
    return {"source": source, "withheld": withheld, "report": dict(report)}


def stored(source: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them: they compare equal after a round trip, and run again.

    Example:
        >>> stored({"date_range": [date(2024, 1, 31), None], "ids": None})
        {'date_range': ['2024-01-31', None]}
    """
    return {key: _plain(value) for key, value in sorted(source.items()) if value is not None}


def _plain(value: Any) -> Any:  # noqa: ANN401 (a value of SQL, then one of JSON)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):  # a geometry
        return shapely.to_wkt(shapely.from_wkb(value), rounding_precision=-1)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
