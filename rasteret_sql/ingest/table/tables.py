"""Tables of records to records: columns found, typed and completed; the rest untouched."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.collections.datetimes import to_timestamps
from rasteret_sql.collections.footprints import Shapes
from rasteret_sql.collections.hrefs import unsigned_column
from rasteret_sql.collections.spool import Spool
from rasteret_sql.errors import InputError
from rasteret_sql.ingest.bands import checked_indices
from rasteret_sql.ingest.crs_hints import CrsHint, crs_hint
from rasteret_sql.ingest.records import BATCH_ROWS, AssetFailure, BandsOfHeaders, Records
from rasteret_sql.ingest.samples import KnownSamples, ReadHeaders, SampleSurvey
from rasteret_sql.ingest.table.assets import (
    ENTRIES,
    AssetReader,
    hrefs_of,
    of_samples,
    refuse_local,
    scatter,
)
from rasteret_sql.ingest.table.footprints import (
    BBOX_COLUMNS,
    GeometryColumn,
    boxes_of,
    find_geometry,
    read_boxes,
    shapes_of,
    to_bbox,
    to_wkb,
)
from rasteret_sql.ingest.table.layout import TableLayout, plain, plain_type
from rasteret_sql.progress import counts
from rasteret_sql.schema import (
    BBOX,
    COLLECTION,
    CRS,
    DATETIME,
    EPSG,
    GEOMETRY,
    ID,
    PARTITION_KEYS,
    assets_type,
)

_CRS_NAMES = ("proj:code", "proj:epsg", "crs", "proj:wkt2", "proj:projjson")
_BBOX = pa.field("bbox", BBOX)
_N_SHOWN = 5


def check_table(
    schema: pa.Schema,
    *,
    geo_metadata: bytes | None = None,
    column_map: Mapping[str, str] | None = None,
    href_column: str | None = None,
    band_index_map: Mapping[str, int] | None = None,
    columns: list[str] | None = None,
    geometry_crs: str | int | None = None,
    **_rest: object,
) -> None:
    """Refuse what `records_from_table` would refuse whatever the rows are.

    Raises:
        InputError: as there.
    """
    checked_indices(band_index_map)
    layout = TableLayout.of(schema, dict(column_map or {}), columns, href_column)
    find_geometry(layout.schema, geo_metadata, geometry_crs)


def records_from_table(
    reader: Callable[[], pa.RecordBatchReader],
    *,
    geo_metadata: bytes | None = None,
    column_map: Mapping[str, str] | None = None,
    href_column: str | None = None,
    band_index_map: Mapping[str, int] | None = None,
    url_rewrite: Mapping[str, str] | None = None,
    columns: list[str] | None = None,
    bands: list[str] | None = None,
    geometry_crs: str | int | None = None,
    is_remote: bool = False,
    allow_local: bool = False,
    has_headers: bool = False,
    samples: Mapping[str, int] | None = None,
    spool_folder: Path | None = None,
) -> Records:
    """Records of a table, one a row; the table is read once, through a temporary file.

    Args:
        reader: opens the table.
        geo_metadata: value of the Parquet key ``geo``, which may name the CRS.
        column_map: source column to canonical name; the source column stays, and a column
            that already has the canonical name wins.
        href_column: column of hrefs, if there is no column assets.
        band_index_map: band to sample of its file, from 0.
        url_rewrite: prefix to prefix, for hrefs.
        columns: columns to keep besides the canonical ones; None keeps all.
        bands: bands to keep; with `href_column` and no `band_index_map`, the one band's name,
            or with `has_headers` as `SampleSurvey.chosen` says.
        geometry_crs: CRS of the footprints, if no metadata say it.
        is_remote: whether the table came over a network.
        allow_local: whether a remote table may name local files.
        has_headers: whether headers are going to be read; the bands of an `href_column`
            without `band_index_map` then follow from them, see `Records.of_headers`.
        samples: with `has_headers`, the bands and their samples; a file may have fewer.
        spool_folder: of the temporary file, which a killed build leaves to the next one there;
            the system's where None.

    Raises:
        InputError: if a column is missing or can't be understood; says which argument helps.
        UnknownBandError: if `bands` names one that is not there.
    """
    source = reader()
    indices = checked_indices(band_index_map)
    layout = TableLayout.of(source.schema, dict(column_map or {}), columns, href_column)
    is_of_headers = has_headers and href_column is not None and not indices
    wanted = None if is_of_headers else bands
    assets = AssetReader(href_column, indices, dict(url_rewrite or {}), wanted)
    geometry = find_geometry(layout.schema, geo_metadata, geometry_crs)
    reading = _Reading(layout, geometry, assets, is_foreign=is_remote and not allow_local)
    spool = reading.spool(source, spool_folder)
    chosen = assets.bands()
    if reading.n_rows and not chosen:
        raise InputError.expected(
            "assets", "an href of a raster", "none", "give href_column, or bands to say which"
        )
    records = reading.records(spool, chosen)
    if not is_of_headers:
        return records
    return replace(
        records, of_headers=BandsOfHeaders(partial(_of_headers, reading, spool, bands, samples))
    )


def _of_headers(
    reading: _Reading,
    spool: Spool,
    wanted: list[str] | None,
    samples: Mapping[str, int] | None,
    read: ReadHeaders,
    known: KnownSamples,
) -> Records:
    """The records of a spool, one band per sample of the files."""
    survey = SampleSurvey()

    def unknown() -> Iterator[str]:
        for batch in spool:
            hrefs = pc.list_flatten(batch.column(_position("assets"))).field("href")
            for href in hrefs.to_pylist():
                if href in known:
                    survey.add_names(href, known[href], len(known[href]))
                elif href is not None:
                    yield href

    for href, header in read(unknown()):
        survey.add(href, header)
    chosen = dict(samples) if samples else survey.chosen(wanted)
    notes = [] if samples or wanted is not None else survey.notes()

    def assets_of(entries: pa.Array) -> pa.Array:
        return of_samples(hrefs_of(entries), chosen, survey)

    records = reading.records(spool, list(chosen), assets_of)
    first = next(iter(chosen))  # of a file that was refused, no more samples are known
    failures = [one._replace(band=first) for one in records.failures]
    return replace(records, failures=failures, warnings=[*records.warnings, *notes])


@dataclass
class _Reading:
    """The pass over the source, and what it learns."""

    layout: TableLayout
    geometry: GeometryColumn | None
    assets: AssetReader
    is_foreign: bool
    failures: list[AssetFailure] = field(default_factory=list)
    _notes: Counter[str] = field(default_factory=Counter)
    _id_hashes: array[int] = field(default_factory=lambda: array("q"))
    _disagree: dict[str, None] = field(default_factory=dict)
    n_rows: int = 0

    def spool(self, source: pa.RecordBatchReader, folder: Path | None) -> Spool:
        """Read the source; canonical columns are made, `ENTRIES` stands for the assets."""
        spool = Spool(self._spool_schema(), folder=folder)
        with source:
            for whole in source:
                for start in range(0, whole.num_rows, BATCH_ROWS):
                    batch = self._convert(whole.slice(start, BATCH_ROWS))
                    spool.append(batch)
                    counts.add("records listed", batch.num_rows)
        spool.close()
        return spool

    def records(
        self,
        spool: Spool,
        bands: list[str],
        assets_of: Callable[[pa.Array], pa.Array] | None = None,
    ) -> Records:
        """The records of the spool, with the bands that are now known.

        Args:
            spool: as written by `spool`.
            bands: of the collection.
            assets_of: from a column of `ENTRIES` to the assets column of these bands.
        """
        assets_of = assets_of or partial(scatter, bands=bands)
        names = dict(zip(self._passed(), self._passed_names(), strict=True))
        dropped = {name for name in names if _is_key(name) and name not in self._disagree}
        final = [(i, new) for i, (old, new) in enumerate(names.items()) if old not in dropped]
        canonical = _canonical(assets_type(bands))
        n_canonical = len(canonical)
        stored = self._spool_schema()
        schema = pa.schema(
            [*canonical, *(stored.field(n_canonical + i).with_name(new) for i, new in final)]
        )

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in spool:
                arrays = batch.columns[:n_canonical]
                arrays[_position("assets")] = assets_of(arrays[_position("assets")])
                arrays += [batch.column(n_canonical + i) for i, _ in final]
                yield pa.record_batch(arrays, schema=schema)

        return Records(schema, batches, self._warnings(spool), self.failures)

    def _passed(self) -> list[str]:
        """Source columns that are not canonical ones."""
        made = {column.name for column in _canonical(ENTRIES)}
        if self.geometry is not None:
            made.add(self.geometry.name)
        return [name for name in self.layout.kept if name not in made]

    def _passed_names(self) -> list[str]:
        """Their names in the collection: partition keys give way to those of datetime."""
        taken = {*self.layout.kept, *(column.name for column in _canonical(ENTRIES))}
        names = []
        for name in self._passed():
            new = name
            while name in self._disagree and (_is_key(new) or new in taken):
                new += "_column"
            names.append(new)
        return names

    def _spool_schema(self) -> pa.Schema:
        passed = []
        for name in self._passed():
            column = self.layout.schema.field(name)
            passed.append(pa.field(name, plain_type(column.type), metadata=column.metadata))
        return pa.schema([*_canonical(ENTRIES), *passed])

    def _convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        n_rows = batch.num_rows
        ids = self._ids(batch)
        datetime = self._datetimes(batch)
        geometry, bbox = self._footprints(batch)
        epsg, crs = self._crs(batch)
        source = self.assets.href_column or "assets"
        column = self.layout.column(batch, source)
        collection = self.layout.column(batch, COLLECTION.name)
        if collection is None:
            collection = pa.nulls(n_rows, COLLECTION.type)
        entries = self.assets.entries(column)
        if self.assets.href_column is not None:
            self._note_missing(_text(column, source))
        if self.is_foreign:
            entries, refused = refuse_local(entries, ids, self.assets.url_rewrite)
            self.failures += refused
        self._compare_keys(batch, datetime)
        self.n_rows += n_rows
        arrays = [
            ids,
            datetime,
            geometry,
            bbox,
            entries,
            pa.nulls(n_rows, pa.string())
            if collection is None
            else _text(collection, "collection"),
            epsg,
            crs,
            *(self._pass(batch, name) for name in self._passed()),
        ]
        return pa.record_batch(arrays, schema=self._spool_schema())

    def _pass(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        column = plain(batch.column(name))
        if name != self.assets.href_column:
            return unsigned_column(column)
        return self.assets.stored(column, is_rewritten=False).cast(column.type)

    def _ids(self, batch: pa.RecordBatch) -> pa.Array:
        ids = _text(batch.column(self.layout.sources["id"]), "id")
        if ids.null_count:
            row = self.n_rows + pc.index(ids.is_null(), value=True).as_py()
            raise InputError.expected(
                "id", "a value in every row", f"NULL in row {row}", 'give "where" to leave it out'
            )
        self._id_hashes.extend(map(hash, ids.to_pylist()))
        return ids

    def _datetimes(self, batch: pa.RecordBatch) -> pa.Array:
        found = pa.nulls(batch.num_rows, DATETIME.type)
        names = [n for n in ("datetime", "start_datetime") if n in self.layout.sources]
        if not names:
            self._notes["datetime: no such column, so it is NULL; name one in column_map"] = 1
        for name in names:
            if found.null_count:
                column = self.layout.column(batch, name)
                found = pc.coalesce(found, to_timestamps(column, name))
        return found

    def _note_missing(self, hrefs: pa.Array) -> None:
        n_missing = pc.sum(pc.fill_null(pc.equal(hrefs, ""), fill_value=True)).as_py()
        if n_missing:
            self._notes["href_column: NULL or empty; the record has no band"] += n_missing

    def _note(self, text: str, n: int) -> None:
        self._notes[text] += n

    def _footprints(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """Geometry and bbox, each from the other where it is missing."""
        shapes: Shapes = np.full(batch.num_rows, None, object)
        is_moved = False
        if self.geometry is not None:
            column = self.layout.column(batch, self.geometry.name)
            shapes, is_moved = self.geometry.degrees(column, self._note)
        of_shapes = boxes_of(shapes)
        boxes = of_shapes
        given = self._boxes(batch)
        if given is not None:
            # a stored box may be in the CRS that the geometry was in: only trusted without one
            bare = np.atleast_1d(np.isnan(of_shapes).any(axis=1))
            keep = bare if is_moved else ~np.isnan(given).any(axis=1)
            boxes = np.where(np.expand_dims(keep, 1), given, of_shapes)
            shapes[bare] = shapes_of(boxes[bare])
        n_missing = int(np.isnan(boxes).any(axis=1).sum())
        if n_missing:
            text = "geometry: neither geometry nor bbox; NULL, but for a bbox that headers give"
            self._notes[text] += n_missing
        return to_wkb(shapes), to_bbox(boxes)

    def _boxes(self, batch: pa.RecordBatch) -> NDArray[np.float64] | None:
        column = self.layout.column(batch, "bbox")
        if column is not None:
            return read_boxes([column], self._note)
        for names in BBOX_COLUMNS:
            if all(name in self.layout.sources for name in names):
                four: list[Any] = [self.layout.column(batch, name) for name in names]
                return read_boxes(four, self._note)
        return None

    def _crs(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        found = {name: self.layout.column(batch, name) for name in _CRS_NAMES}
        lists = {name: column.to_pylist() for name, column in found.items() if column is not None}
        if not lists:
            return pa.nulls(batch.num_rows, EPSG.type), pa.nulls(batch.num_rows, CRS.type)
        rows = (
            dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
        )
        hints = [_crs_of_row(row) for row in rows]
        epsg = pa.array([hint.epsg for hint in hints], EPSG.type)
        return epsg, pa.array([hint.crs for hint in hints], CRS.type)

    def _compare_keys(self, batch: pa.RecordBatch, datetime: pa.Array) -> None:
        """Whether columns year and month of the source say what datetime does.

        Also Year and MONTH: a folder year=2024 replaces them when DuckDB reads the file.
        """
        for name in filter(_is_key, self._passed()):
            if name in self._disagree:
                continue
            part = pc.year if name.casefold() == "year" else pc.month
            try:
                column = plain(batch.column(name)).cast(pa.int64())
                agrees = column.equals(part(datetime))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                agrees = False
            if not agrees:
                self._disagree[name] = None

    def _warnings(self, spool: Spool) -> list[str]:
        lines = [f"{text} ({n} rows)" if n > 1 else text for text, n in self._notes.items()]
        for old, new in zip(self._passed(), self._passed_names(), strict=True):
            if old != new:
                lines.append(f"{old}: differs from datetime, so it is column {new}")
        twice = self._duplicates(spool)
        if twice:
            more = f" and {len(twice) - _N_SHOWN} more" if len(twice) > _N_SHOWN else ""
            lines.append(f"id: {', '.join(twice[:_N_SHOWN])}{more}: more than one row has this id")
        return lines

    def _duplicates(self, spool: Spool) -> list[str]:
        hashes = np.array(self._id_hashes, np.int64)
        values, n_times = np.unique(hashes, return_counts=True)
        repeated = set(values[n_times > 1].tolist())
        if not repeated:
            return []
        ids = (name for batch in spool for name in batch.column(0).to_pylist())
        seen = Counter(name for name in ids if hash(name) in repeated)
        return [name for name, n in seen.items() if n > 1]


def _crs_of_row(row: dict[str, Any]) -> CrsHint:
    """The CRS that the columns name; text in `crs` that is none stays as it is."""
    found = crs_hint(row)
    named = row.get("crs")
    if found == CrsHint() and named is not None:
        found = crs_hint({"proj:code": named})
    if found == CrsHint() and isinstance(named, str) and named:
        return CrsHint(None, named)
    return found


def _canonical(assets: pa.DataType) -> list[pa.Field]:
    return [ID, DATETIME, GEOMETRY, _BBOX, pa.field("assets", assets), COLLECTION, EPSG, CRS]


def _position(name: str) -> int:
    return [column.name for column in _canonical(ENTRIES)].index(name)


def _is_key(name: str) -> bool:
    return name.casefold() in PARTITION_KEYS


def _text(column: pa.Array, name: str) -> pa.Array:
    column = plain(column)
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError.expected(
            name, "text or integers", column.type, "map another column in column_map"
        ) from None
