"""A collection brought up to date with its source: what is new is added, the rest stays.

The source is read whole, as items are cheap and a search by date misses what arrives
late; of the files, only those are read that are new, that changed, or that could not be
read before. Files of the collection without a change are linked into the new version.
"""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.collections.disk import disk_errors
from rasteret_sql.collections.layout import write_collection
from rasteret_sql.collections.partitions import NULL_SEGMENT
from rasteret_sql.collections.workspace import (
    Build,
    Workspace,
    read_build,
    read_errors,
    without_secrets,
    write_errors,
)
from rasteret_sql.errors import CollectionError, InterruptedReadError, UnknownCollectionError
from rasteret_sql.ingest import asset_hints
from rasteret_sql.ingest.build import BuildOptions, facts_of, stored, strict
from rasteret_sql.ingest.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.ingest.header_journal import HeaderJournal
from rasteret_sql.ingest.records import BATCH_ROWS, Records
from rasteret_sql.ingest.samples import header_reader
from rasteret_sql.maintenance.comparison import Comparison, ComparisonKey, compare
from rasteret_sql.maintenance.evolve import conform_to_schema, merged_schema
from rasteret_sql.maintenance.file_checks import FileChecks
from rasteret_sql.maintenance.header_refresh import HeaderRefresher, RefreshedHeaders
from rasteret_sql.maintenance.merging import merged_rows, patched_rows, source_rows
from rasteret_sql.maintenance.refresh_errors import error_key, merged_errors
from rasteret_sql.maintenance.stored import Stored, StoredFile
from rasteret_sql.schema import bands_of, metadata_column

MAX_PARTS = 8
"""Files of a partition that gets new rows; then they become one."""

_SCRATCH = "_refresh"
_ROWS_WITH_TILES = 256


@dataclass(frozen=True)
class RefreshOptions:
    """How to refresh.

    Attributes:
        build: The build that is run again, with the common options of this call.
        check_remote: Ask for the state of every file whose header is kept.
        since: Files of records from before are left alone, UTC microseconds; the caller
            narrows the source alike.
    """

    build: BuildOptions
    check_remote: bool = True
    since: int | None = None


def refresh_collection(
    records: Callable[[], Records],
    workspace: Workspace,
    options: RefreshOptions,
    stop: threading.Event,
) -> dict[str, Any]:
    """Bring a collection up to date and swap the new version in whole.

    Records that the source no longer has stay. Nothing new makes no new version.

    Args:
        records: Reads the source.
        workspace: Has the collection.
        options: How.
        stop: Ends the work with InterruptedReadError.

    Returns:
        The build report: records, bands, partitions and bytes of the whole collection;
        assets, enriched, failed and requests (for headers and states) of this refresh.

    Raises:
        CollectionError: a build of the name runs, the source is not as it should be, or
            the disk is full or read-only; the collection is then as before.
        ReadError: the source can't be reached.
        InterruptedReadError: ``stop`` was set.
    """
    name, kind = options.build.name, options.build.kind
    with workspace.build(name, kind) as build:
        if build.current is None:
            raise UnknownCollectionError.expected(
                "name", "a collection of the workspace", name, "build it first"
            )
        scratch = build.folder / _SCRATCH
        with disk_errors(build.folder):
            scratch.mkdir()
        try:
            with closing(HeaderJournal(build.journal, stored(options.build.source))) as journal:
                work = _Refresh(build, options, records(), journal, stop)
                report = work.run(workspace.root / f"{name}_{kind}")
                journal.remove()
                return report
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


class _Refresh:
    """One refresh, while the lock of the name is held."""

    def __init__(
        self,
        build: Build,
        options: RefreshOptions,
        records: Records,
        journal: HeaderJournal,
        stop: threading.Event,
    ) -> None:
        self._began = time.monotonic()
        self._build = build
        self._options = options
        self._is_enriched = options.build.enrich and records.has_rasters
        self._journal = journal
        self._stop = stop
        self._scratch = build.folder / _SCRATCH
        self._stored = Stored(build.current or build.folder)
        self._result = Enrichment()
        self._records = self._with_bands(records)
        self._result.failures += self._records.failures
        self._checks = FileChecks(options.build.max_concurrent, stop)
        self._schema = self._new_schema()
        self._bands = [field.name for field in self._schema.field("assets").type]

    def run(self, visible: Path) -> dict[str, Any]:
        comparison = self._compare()
        headers = self._read_headers(comparison)
        self._refuse_failures(headers)
        touched = self._touched(comparison, headers)
        changed = {file.path.parent for file in touched}
        if touched or len(comparison.fresh):
            changed |= self._write(comparison, headers, touched)
        errors = merged_errors(
            read_errors(self._stored.folder),
            self._records.warnings,
            [*self._result.failures, *self._result.conflicts],
            headers.lost if headers else [],
            replaced=_ids(comparison),
            retried=headers.retried if headers else set(),
            is_state_known=self._options.check_remote and self._options.since is None,
            is_partial=self._options.since is not None,
        )
        if not changed and not self._is_told_anew(errors):
            return self._report(self._stored.folder, headers) | {"path": str(visible)}
        self._link([file for file in self._stored.files if file not in touched], changed)
        write_errors(self._build.folder, errors)
        shutil.rmtree(self._scratch)
        report = self._report(self._build.folder, headers)
        facts = facts_of(self._options.build, report)
        facts["refreshed"] = datetime.now(UTC).isoformat()
        created = read_build(self._stored.folder).get("created")
        path = self._build.commit(facts | ({"created": created} if created else {}))
        return report | {"path": str(path)}

    def _with_bands(self, records: Records) -> Records:
        """The records with the bands that headers tell of; only those of new files are read."""
        if not self._is_enriched or records.of_headers is None:
            return records
        read, n_requests = header_reader(
            max_concurrent=self._options.build.max_concurrent,
            stop=self._stop,
            journal=self._journal,
        )
        known = self._known_samples(records.of_headers.hrefs)
        found = records.of_headers.records(read, known)
        self._result.requests += n_requests()
        return found

    def _known_samples(self, hrefs: frozenset[str] | None) -> dict[str, list[str | None]]:
        """The bands of files whose header is kept, by number of the sample."""
        stored = set(bands_of(self._stored.schema))
        assets = self._stored.schema.field("assets").type
        bands = [field.name for field in assets if field.name in stored]
        counts = [f"{metadata_column(band)}.samples_per_pixel" for band in bands]
        known: dict[str, list[str | None]] = {}
        for _, batch in self._stored.batches(["assets", *counts]):
            for band in bands:
                asset = batch.column("assets").field(band)
                n_samples = batch.column(metadata_column(band)).field("samples_per_pixel")
                for href, index, n in zip(
                    asset.field("href").to_pylist(),
                    asset.field("band_index").to_pylist(),
                    n_samples.to_pylist(),
                    strict=True,
                ):
                    if href and n and (hrefs is None or href in hrefs):
                        known.setdefault(href, [None] * n)[index or 0] = band
        return known

    def _new_schema(self) -> pa.Schema:
        given = self._records.schema
        if self._is_enriched:
            given = enriched_schema(given, [field.name for field in given.field("assets").type])

        def is_empty_stored(name: str) -> bool:
            batches = self._stored.batches([name])
            return all(batch.column(0).null_count == batch.num_rows for _, batch in batches)

        def is_empty_given(name: str) -> bool:
            if name not in self._records.schema.names:
                return False
            columns = (batch.column(name) for batch in self._records.batches())
            return all(column.null_count == len(column) for column in columns)

        return merged_schema(
            self._stored.schema,
            given,
            is_empty_stored=is_empty_stored,
            is_empty_given=is_empty_given,
        )

    def _compare(self) -> Comparison:
        """Compare what the source says; what headers say is not of the source."""
        of_headers: set[str] = set()
        if self._is_enriched:
            of_headers = {metadata_column(band) for band in self._bands}
        schema = pa.schema([f for f in self._schema if f.name not in of_headers])
        left_out = {"proj:epsg", "crs", "bbox"} if self._is_enriched else set()
        columns = tuple(name for name in schema.names if name not in left_out)
        key = ComparisonKey(schema, columns, is_bbox_filled=bool(left_out))
        source = self._records
        rows = source.for_enrichment() if self._is_enriched else source.batches()
        return compare(self._stored, rows, key, self._scratch, self._stop)

    def _read_headers(self, comparison: Comparison) -> RefreshedHeaders | None:
        if not self._is_enriched:
            return None
        refresher = HeaderRefresher(
            self._stored,
            comparison,
            self._bands,
            self._result,
            self._checks if self._options.check_remote else None,
            since=self._options.since,
            max_concurrent=self._options.build.max_concurrent,
            stop=self._stop,
            journal=self._journal,
        )
        return refresher.run(self._scratch / "headers.arrows")

    def _refuse_failures(self, headers: RefreshedHeaders | None) -> None:
        failures = [*self._result.failures, *(headers.lost if headers else [])]
        if failures and self._options.build.on_error == "error":
            first = failures[0]
            raise CollectionError(f"record {first.id}, band {first.band}: {first.error}")

    def _touched(
        self, comparison: Comparison, headers: RefreshedHeaders | None
    ) -> list[StoredFile]:
        """Files to write again: with a changed row, of other columns, or too many beside."""
        is_other = _columns(self._schema) != _columns(self._stored.schema)
        if is_other or (self._is_flat and _has_dates(comparison)):
            return list(self._stored.files)
        rows = np.flatnonzero(~comparison.kept)
        if headers is not None:
            rows = np.concatenate([rows, headers.rows])
        ends = np.array([file.first_row + file.records for file in self._stored.files], np.int64)
        numbers = set(np.searchsorted(ends, np.unique(rows), side="right").tolist())
        beside: dict[Path, list[int]] = {}
        for number, file in enumerate(self._stored.files):
            beside.setdefault(file.path.parent, []).append(number)
        for folder in self._folders_of(comparison):
            if len(beside.get(folder, ())) >= MAX_PARTS:
                numbers |= set(beside[folder])
        if not self._keeps_dates(comparison, numbers):
            return list(self._stored.files)  # for `write_collection` to make no partitions
        return [self._stored.files[number] for number in sorted(numbers)]

    def _keeps_dates(self, comparison: Comparison, touched: set[int]) -> bool:
        """Whether a record has a datetime afterwards, or there are no partitions anyway."""
        if self._is_flat or _has_dates(comparison):
            return True
        for number, file in enumerate(self._stored.files):
            rows = slice(file.first_row, file.first_row + file.records)
            is_dated = not any(NULL_SEGMENT in part for part in file.path.parent.parts)
            if is_dated and (number not in touched or comparison.kept[rows].any()):
                return True
        return False

    def _write(
        self, comparison: Comparison, headers: RefreshedHeaders | None, touched: list[StoredFile]
    ) -> set[Path]:
        """Write the rows that are new and those of touched files; returns their folders."""

        def batches() -> Iterator[pa.RecordBatch]:
            yield from self._rewritten(comparison, headers, touched)
            yield from self._added(comparison)

        parts = write_collection(
            self._schema,
            batches(),
            self._build.folder,
            info={
                "name": self._options.build.name,
                "data_source": self._options.build.data_source,
                "description": "",
            },
            first_part=self._build.first_part,
            is_whole=self._is_flat or len(touched) == len(self._stored.files),
        )
        return {part.path.parent.relative_to(self._build.folder) for part in parts}

    def _rewritten(
        self, comparison: Comparison, headers: RefreshedHeaders | None, touched: list[StoredFile]
    ) -> Iterator[pa.RecordBatch]:
        if not touched:
            return
        names = self._stored.schema.names
        for start, batch in self._stored.batches(names, touched, _ROWS_WITH_TILES):
            self._check()
            places, wanted = source_rows(batch, start, comparison)
            if headers is None:
                yield conform_to_schema(wanted, self._schema)
                continue
            before = conform_to_schema(batch.take(pa.array(places)), self._schema)
            is_kept = comparison.kept[start + places]
            rows = merged_rows(before, wanted, is_kept, self._bands)
            yield patched_rows(rows, headers.patches, headers.rows, start, places)

    def _added(self, comparison: Comparison) -> Iterator[pa.RecordBatch]:
        """Rows that are in nobody's place, in batches that keep the lanes busy."""
        batches = _together(self._new_rows(comparison))
        if not self._is_enriched:
            yield from (conform_to_schema(batch, self._schema) for batch in batches)
            return
        enriched = enrich(
            batches,
            self._schema,
            self._bands,
            self._result,
            max_concurrent=self._options.build.max_concurrent,
            stop=self._stop,
            journal=self._journal,
        )
        is_strict = self._options.build.on_error == "error"
        yield from strict(enriched, self._result) if is_strict else enriched

    def _new_rows(self, comparison: Comparison) -> Iterator[pa.RecordBatch]:
        for start, batch in comparison.fresh.numbered():
            self._check()
            numbers = np.arange(start, start + batch.num_rows)
            is_new = comparison.is_new[numbers]
            hints = comparison.hints_of(comparison.fresh_as[numbers], self._bands)
            if hints is not None:
                batch = batch.append_column(asset_hints.COLUMN, hints)
            yield batch.filter(pa.array(is_new))

    @property
    def _is_flat(self) -> bool:
        """Whether the files are in no partition, as no record has a datetime."""
        return all(file.path.parent == Path() for file in self._stored.files)

    def _folders_of(self, comparison: Comparison) -> set[Path]:
        """Partitions of the new rows."""
        folders = set()
        for start, batch in comparison.fresh.numbered():
            moments = batch.column("datetime").filter(
                pa.array(comparison.is_new[start : start + batch.num_rows])
            )
            months = pc.unique(pc.floor_temporal(moments, unit="month")).to_pylist()
            for month in months:
                parts = (month.year, month.month) if month else (NULL_SEGMENT, NULL_SEGMENT)
                folders.add(Path(f"year={parts[0]}") / f"month={parts[1]}")
        return {Path()} if folders and self._is_flat else folders

    def _link(self, files: list[StoredFile], changed: set[Path]) -> None:
        """Take files over without a copy.

        In a folder that changes each gets a new name, so that a reader with a list of the
        version before never finds half of its files; elsewhere readers go on undisturbed.
        """
        number = self._build.first_part
        with disk_errors(self._build.folder):
            for file in files:
                self._check()
                path = self._build.folder / file.path
                if file.path.parent in changed:
                    number += 1
                    path = path.with_name(f"part-{number}.parquet")
                path.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(self._stored.folder / file.path, path)

    def _is_told_anew(self, errors: list[dict[str, Any]]) -> bool:
        """Whether what is kept beside the records differs."""
        before = {error_key(row) for row in read_errors(self._stored.folder)}
        source = without_secrets(stored(self._options.build.source))
        is_same = read_build(self._stored.folder).get("source") == source
        return not is_same or before != {error_key(row) for row in errors}

    def _report(self, folder: Path, headers: RefreshedHeaders | None) -> dict[str, Any]:
        whole = Stored(folder)
        files = [folder / file.path for file in whole.files]
        return {
            "name": self._options.build.name,
            "kind": self._options.build.kind,
            "path": "",
            "records": whole.records,
            "bands": self._bands,
            "assets": self._result.assets,
            "enriched": self._result.enriched,
            "failed": len(self._result.failures) + (len(headers.lost) if headers else 0),
            "partitions": len({path.parent for path in files}),
            "size_bytes": sum(path.stat().st_size for path in files),
            "requests": self._result.requests + self._checks.requests,
            "seconds": round(time.monotonic() - self._began, 3),
        }

    def _check(self) -> None:
        if self._stop.is_set():
            raise InterruptedReadError("interrupted")


def _together(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Small batches as larger ones."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting += [batch] if batch.num_rows else []
        if sum(one.num_rows for one in waiting) >= BATCH_ROWS:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def _has_dates(comparison: Comparison) -> bool:
    """Whether a new or changed row has a datetime."""
    datetimes = (batch.column("datetime") for batch in comparison.fresh)
    return any(column.null_count < len(column) for column in datetimes)


def _columns(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in schema]


def _ids(comparison: Comparison) -> set[str]:
    """Ids of the new and changed rows."""
    return {name for _, batch in comparison.fresh.numbered() for name in batch["id"].to_pylist()}


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)
