"""Headers of a standing collection: those that are missing or of another file are read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.collections.spool import Spool
from rasteret_sql.errors import InterruptedReadError, redact
from rasteret_sql.ingest.asset_hints import COLUMN, VALUES, apply_values
from rasteret_sql.ingest.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.ingest.header_journal import HeaderJournal
from rasteret_sql.ingest.records import BATCH_ROWS, AssetFailure
from rasteret_sql.maintenance.comparison import Comparison
from rasteret_sql.maintenance.evolve import conform_to_schema
from rasteret_sql.maintenance.file_checks import FileChecks
from rasteret_sql.maintenance.header_checks import (
    HeaderCheck,
    ReadBatch,
    is_first,
    masked,
    read_first,
)
from rasteret_sql.maintenance.merging import READ, ROW, asset_of, has_same_file, source_rows
from rasteret_sql.maintenance.stored import Stored
from rasteret_sql.schema import BBOX, CRS, DATETIME, EPSG, ID, metadata_column

_FACTS = ("image_width", "file_size", "etag", "dtype", "nodata", "scale", "offset")


@dataclass
class RefreshedHeaders:
    """Headers that a refresh read, and what it could not find out.

    Attributes:
        patches: Rows whose headers were read: `ROW`, `READ` (of each band, whether it was),
            ``proj:epsg``, ``crs``, ``bbox`` and the bands' metadata; in order of `ROW`.
        rows: `ROW` of each patch.
        lost: Files that could not be asked for their state; their headers are kept.
        retried: Id and band of the headers that were asked for.
    """

    patches: Spool
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    lost: list[AssetFailure] = field(default_factory=list)
    retried: set[tuple[str, str]] = field(default_factory=set)


class HeaderRefresher:
    """Finds the headers that a collection lacks, and reads them.

    Args:
        stored: The collection.
        comparison: What becomes of its rows.
        bands: Bands to check.
        result: Counts and failures are added here.
        checks: Asks for the state of files; None leaves that out.
        since: Rows from before are left alone, UTC microseconds.
        max_concurrent: Header requests at once.
        stop: Ends the work with InterruptedReadError.
        journal: Headers of a refresh that was cut short; gets the new ones.
    """

    def __init__(
        self,
        stored: Stored,
        comparison: Comparison,
        bands: Sequence[str],
        result: Enrichment,
        checks: FileChecks | None,
        *,
        since: int | None,
        max_concurrent: int,
        stop: threading.Event,
        journal: HeaderJournal,
    ) -> None:
        self._stored = stored
        self._comparison = comparison
        self._bands = bands
        self._result = result
        self._checks = checks
        self._since = since
        self._max_concurrent = max_concurrent
        self._stop = stop
        self._journal = journal
        self._submitted: deque[ReadBatch] = deque()
        light = pa.schema([ID, _field(comparison, "assets"), EPSG, CRS, pa.field("bbox", BBOX)])
        self._light = light
        self._schema = enriched_schema(light, bands)
        added = [pa.field(ROW, pa.int64()), pa.field(READ, pa.list_(pa.bool_()))]
        self._patch_schema = pa.schema([*added, *list(self._schema)[2:]])

    def run(self, path: Path) -> RefreshedHeaders:
        """Ask and read; rows that gained or lost a header become patches at this path."""
        found = RefreshedHeaders(Spool(self._patch_schema, path))
        numbers: list[NDArray[np.int64]] = []
        batches = enrich(
            self._wanted(found),
            self._schema,
            self._bands,
            self._result,
            max_concurrent=self._max_concurrent,
            stop=self._stop,
            journal=self._journal,
        )
        n_done = 0  # of the first that is asked for; what comes back is cut into pieces
        for batch in batches:
            submitted = self._submitted[0]
            rows, patch = self._patch(batch, submitted.slice(n_done, n_done + batch.num_rows))
            n_done += batch.num_rows
            if n_done == len(submitted.rows):
                self._submitted.popleft()
                n_done = 0
            found.patches.append(patch)
            numbers.append(rows)
        found.patches.close()
        found.rows = np.concatenate([found.rows, *numbers])
        return found

    def _wanted(self, found: RefreshedHeaders) -> Iterator[pa.RecordBatch]:
        """Rows with a header to read; of their assets, those whose header is wanted."""
        waiting: list[ReadBatch] = []
        for part in self._read_batches(found):
            waiting.append(part)
            if sum(len(part.rows) for part in waiting) >= BATCH_ROWS:
                yield self._submit(waiting)
                waiting = []
        if waiting:
            yield self._submit(waiting)

    def _submit(self, parts: Sequence[ReadBatch]) -> pa.RecordBatch:
        batch = ReadBatch.concatenate(parts)
        self._submitted.append(batch)
        return batch.masked

    def _read_batches(self, found: RefreshedHeaders) -> Iterator[ReadBatch]:
        unresolved: deque[HeaderCheck] = deque()
        try:
            for start, batch in self._stored.batches(self._columns()):
                if self._stop.is_set():
                    raise InterruptedReadError("interrupted")
                unresolved.append(self._start_check(start, batch))
                if len(unresolved) > 1:
                    yield from self._resolve(unresolved.popleft(), found)
            while unresolved:
                yield from self._resolve(unresolved.popleft(), found)
        finally:
            if self._checks is not None:
                self._checks.cancel()

    def _columns(self) -> list[str]:
        held = self._stored.schema
        names = {name.casefold(): name for name in held.names}
        asked = [
            names[n.casefold()]
            for n in self._comparison.fresh.schema.names
            if n.casefold() in names
        ]
        for band in self._bands:
            name = metadata_column(band)
            if name in names.values():
                fields = [f.name for f in held.field(name).type]
                asked += [f"{name}.{f}" for f in _FACTS if f in fields]
        return asked

    def _start_check(self, start: int, stored: pa.RecordBatch) -> HeaderCheck:
        places, wanted = source_rows(stored, start, self._comparison)
        whole = len(places) == stored.num_rows
        before = stored if whole else stored.take(pa.array(places))
        is_asked = np.ones(len(places), np.bool_)
        if self._since is not None:
            micros = conform_to_schema(wanted, pa.schema([DATETIME])).column(0).cast(pa.int64())
            later = pc.fill_null(pc.greater_equal(micros, self._since), False)  # noqa: FBT003
            is_asked = later.to_numpy(zero_copy_only=False)
        check = HeaderCheck(
            rows=start + places,
            is_kept=self._comparison.kept[start + places],
            wanted=conform_to_schema(wanted, self._light),
            before=conform_to_schema(before, pa.schema([EPSG, CRS])),
            is_same=[has_same_file(before, wanted, band) for band in self._bands],
            has_header=[_is_valid(before, metadata_column(band)) for band in self._bands],
            hrefs=[_hrefs(wanted, band) for band in self._bands],
            facts=[_facts(before, metadata_column(band)) for band in self._bands],
            hints=self._comparison.hints_of(self._comparison.given_as[start + places], self._bands),
            is_asked=np.asarray(is_asked, np.bool_),
        )
        if self._checks is not None:
            for same, hrefs in zip(check.is_same, check.hrefs, strict=True):
                asked = np.flatnonzero(same & check.is_asked).tolist()
                self._checks.start(href for row in asked if (href := hrefs[row]))
        return check

    def _resolve(self, check: HeaderCheck, found: RefreshedHeaders) -> Iterator[ReadBatch]:
        """Say of each band and row whether its header must be read."""
        is_read = np.zeros((len(check.rows), len(self._bands)), np.bool_)
        for number, hrefs in enumerate(check.hrefs):
            same = check.is_same[number]
            present = np.array([bool(href) for href in hrefs], np.bool_)
            # a record of before is left alone, unless it is replaced
            is_read[:, number] = present & ~same & (check.is_asked | ~check.is_kept)
            is_read[:, number] |= same & self._has_new_hint(check, number)
            if self._checks is not None:
                for row in np.flatnonzero(same & check.is_asked).tolist():
                    is_read[row, number] |= self._is_stale(check, number, row, found)
        if self._checks is not None:
            self._checks.forget()
        read_first(check, is_read)
        places = np.flatnonzero(is_read.any(axis=1))
        if len(places):
            yield self._read_batch(check, places, is_read[places], found)

    def _read_batch(
        self,
        check: HeaderCheck,
        places: NDArray[np.int64],
        is_read: NDArray[np.bool_],
        found: RefreshedHeaders,
    ) -> ReadBatch:
        chosen = pa.array(places)
        batch = check.wanted.take(chosen)
        if check.hints is not None:
            batch = batch.append_column(COLUMN, check.hints.take(chosen))
        names = batch.column("id").to_pylist()
        for number, band in enumerate(self._bands):
            rows = np.flatnonzero(is_read[:, number]).tolist()
            found.retried.update((str(names[row]), band) for row in rows)
        return ReadBatch(
            rows=check.rows[places],
            is_kept=check.is_kept[places],
            before=check.before.take(chosen),
            is_read=is_read,
            had=np.column_stack([has[places] for has in check.has_header]),
            is_same=np.column_stack([same[places] for same in check.is_same]) & ~is_read,
            masked=masked(batch, self._bands, is_read),
        )

    def _has_new_hint(self, check: HeaderCheck, number: int) -> NDArray[np.bool_]:
        """Rows of which the source now says another nodata, scale or offset."""
        differs = np.zeros(len(check.rows), np.bool_)
        if check.hints is None:
            return differs
        for row, hint in enumerate(check.hints.field(number).to_pylist()):
            kept = check.facts[number][row]
            if hint and kept:
                told = {name: kept.get(name) for name in ("dtype", *VALUES)}
                if told["dtype"]:
                    before = dict(told)
                    apply_values(told, hint)
                    differs[row] = told != before
        return differs

    def _is_stale(self, check: HeaderCheck, number: int, row: int, found: RefreshedHeaders) -> bool:
        href, kept = check.hrefs[number][row], check.facts[number][row] or {}
        if self._checks is None or not href:
            return False
        now = self._checks.get(href)
        if now.fault is not None:
            name = str(check.wanted.column("id")[row].as_py())
            found.lost.append(AssetFailure(name, self._bands[number], redact(href), now.fault))
            return False
        size, etag = kept.get("file_size"), kept.get("etag")
        return now.differs(size, etag) is not None

    def _patch(
        self, batch: pa.RecordBatch, submitted: ReadBatch
    ) -> tuple[NDArray[np.int64], pa.RecordBatch]:
        """Rows that changed; the CRS of a header that was read wins over that of one kept."""
        n_rows, n_bands = submitted.is_read.shape
        valid = [_is_valid(batch, metadata_column(band)) for band in self._bands]
        read = submitted.is_read & np.column_stack(valid)
        # a header that is still missing changes nothing
        changed = (read | (submitted.is_read & submitted.had)).any(axis=1) | ~submitted.is_kept
        is_before = pa.array(is_first(submitted.is_same, read))
        offsets = pa.array(np.arange(0, n_rows * n_bands + 1, n_bands), pa.int32())
        columns = {
            ROW: pa.array(submitted.rows),
            READ: pa.ListArray.from_arrays(offsets, pa.array(submitted.is_read.ravel())),
        }
        for name in ("proj:epsg", "crs"):
            columns[name] = pc.if_else(is_before, submitted.before.column(name), batch.column(name))
        schema = self._patch_schema
        arrays = [columns[f.name] if f.name in columns else batch.column(f.name) for f in schema]
        patch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return submitted.rows[changed], patch.filter(pa.array(changed))


def _field(comparison: Comparison, name: str) -> pa.Field:
    return comparison.fresh.schema.field(name)


def _is_valid(batch: pa.RecordBatch, name: str) -> NDArray[np.bool_]:
    if name not in batch.schema.names:
        return np.zeros(batch.num_rows, np.bool_)
    return np.asarray(batch.column(name).is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _hrefs(batch: pa.RecordBatch, band: str) -> list[str | None]:
    asset = asset_of(batch, band)
    if asset is None:
        return [None] * batch.num_rows
    hrefs: list[str | None] = asset.field("href").to_pylist()
    return hrefs


def _facts(batch: pa.RecordBatch, name: str) -> list[dict[str, Any] | None]:
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    facts: list[dict[str, Any] | None] = batch.column(name).to_pylist()
    return facts
