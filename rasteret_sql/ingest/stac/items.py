"""STAC items to records: one pass learns bands and types, the next makes batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasteret_sql.collections.hrefs import stored_href
from rasteret_sql.errors import InputError, UnknownBandError
from rasteret_sql.ingest import asset_hints
from rasteret_sql.ingest.bands import (
    Band,
    BandSurvey,
    RasterAsset,
    choose_bands,
    sample_index,
)
from rasteret_sql.ingest.records import (
    BATCH_ROWS,
    AssetFailure,
    BandsOfHeaders,
    Records,
    local_refused,
)
from rasteret_sql.ingest.samples import KnownSamples, ReadHeaders, SampleSurvey, data_samples
from rasteret_sql.ingest.stac.documents import Item
from rasteret_sql.ingest.stac.item_spool import ItemSpool
from rasteret_sql.ingest.stac.item_survey import (
    CONSUMED,
    MAX_HEADERS,
    ItemProperty,
    ItemRow,
    ItemSurvey,
    Notes,
    survey_items,
)
from rasteret_sql.ingest.stac.property_types import DATETIME_PROPERTIES, to_array
from rasteret_sql.remote.stores import is_local
from rasteret_sql.schema import (
    BBOX,
    COLLECTION,
    CRS,
    DATETIME,
    EPSG,
    GEOMETRY,
    ID,
    METADATA_SUFFIX,
    PARTITION_KEYS,
    assets_type,
)

_RENAMED_SUFFIX = "_property"


def records_from_items(
    items: Iterable[Item],
    *,
    bands: list[str] | None = None,
    band_map: Mapping[str, str] | None = None,
    band_index_map: Mapping[str, int] | None = None,
    url_rewrite: Mapping[str, str] | None = None,
    is_remote: bool = False,
    allow_local: bool = False,
    is_partial: bool = False,
    has_headers: bool = False,
    warnings: list[str] | None = None,
    spool_folder: Path | None = None,
) -> Records:
    """Records of STAC items, one each, every property a column typed over all items.

    Args:
        items: as from `read_items`; read once, kept in a temporary file.
        bands: the bands to keep; None for all.
        band_map: band to asset key; without it bands are named as `BandSurvey` says.
        band_index_map: band to sample of its file, from 0.
        url_rewrite: prefix to prefix, for hrefs.
        is_remote: whether the items came over a network (items whose document did are
            always taken as remote).
        allow_local: whether remote items may name local files.
        is_partial: whether `band_map` may name assets that no item has; a warning says so.
        has_headers: whether headers are going to be read, so that they tell of samples that
            the items do not, see `Records.of_headers`.
        warnings: lines of the reader of the items, which the result goes on with.
        spool_folder: of the temporary file, which a killed build leaves to the next one there;
            the system's where None.

    Raises:
        InputError: if a map or a band does not fit the items, or no asset has an href.
        CollectionError: from the items.
    """
    notes = Notes([] if warnings is None else warnings)
    survey = survey_items(items, notes, set(band_map.values()) if band_map else None, spool_folder)
    surveyed = survey.bands
    has_rasters = bool(surveyed) or not survey.others
    if not has_rasters:
        surveyed = survey.others
        notes.add("assets", "none is a TIFF, so all are kept, but there are no pixels to read")
    aliases = survey.key_aliases.aliases() if band_map is None and has_rasters else {}
    if aliases:
        surveyed = surveyed.with_keys(aliases)
        shown = ", ".join(list(aliases)[:2])
        notes.add("assets", f"keys that differ per item ({shown}, …) are {_listed(aliases)}")
    surveyed.check()
    hrefs = _Hrefs(dict(url_rewrite or {}), is_remote=is_remote, allow_local=allow_local)
    is_told = band_map is not None or not has_rasters or not has_headers
    unnamed = {} if is_told else _unnamed(survey, aliases, hrefs)

    def choose(surveyed: BandSurvey, bands: list[str] | None) -> dict[str, Band]:
        return choose_bands(
            surveyed,
            bands=bands,
            band_map=band_map,
            band_index_map=band_index_map,
            known_keys=survey.keys,
            is_partial=is_partial,
        )

    try:
        chosen = choose(surveyed, bands)
        keys = {band.key for band in chosen.values()}
        unnamed = {key: firsts for key, firsts in unnamed.items() if key in keys}
    except UnknownBandError:
        if not unnamed:
            raise
        chosen = choose(surveyed, None)
    for band, key in (band_map or {}).items():
        if bands is None and survey.n_items and band not in chosen:
            notes.add(f"band {band}", f"no item has the asset {key}, so it is left out")
    if survey.n_items and not chosen:
        listed = ", ".join(sorted(survey.keys)[:20]) or "none"
        raise InputError.expected(
            "assets", "at least one with an href", listed, "there is nothing to read"
        )
    for band, name in surveyed.renamed.items():
        notes.add(f"band {band}", f"is {name} in the items, a name that another band has")
    table = _Table(survey.spool, chosen, _property_columns(survey, notes), hrefs)
    table = replace(table, aliases=aliases)
    notes.finish(survey.duplicates())
    has_refused = survey.has_local and not allow_local

    def records_of(table: _Table) -> Records:
        refused = list(table.refused()) if has_refused else []
        hinted = table.hinted_batches if survey.has_hints else None
        return Records(table.schema, table.batches, notes.lines, refused, hinted, has_rasters)

    if not unnamed:
        return records_of(table)

    def with_samples(read: ReadHeaders, known: KnownSamples) -> Records:
        names = _names_of_headers(surveyed, unnamed, read, known)
        chosen = choose(surveyed.with_names(names) if names else surveyed, bands)
        return records_of(replace(table, bands=chosen, names=names))

    probed = frozenset(href for found in unnamed.values() for href in found)
    return replace(records_of(table), of_headers=BandsOfHeaders(with_samples, probed))


def _listed(aliases: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(aliases.values()))


def _unnamed(survey: ItemSurvey, aliases: Mapping[str, str], hrefs: _Hrefs) -> dict[str, list[str]]:
    """The first files of each asset that no item says the samples of, as they are stored."""
    found: dict[str, list[str]] = {}
    for key, firsts in survey.unnamed.items():
        asked = found.setdefault(aliases.get(key, key), [])
        for href, is_remote in firsts[: MAX_HEADERS - len(asked)]:
            stored = hrefs.stored(href, is_remote=is_remote)
            asked += [stored] if stored is not None and key in survey.bands.keys else []
    return {key: firsts for key, firsts in found.items() if firsts}


def _names_of_headers(
    survey: BandSurvey, unnamed: dict[str, list[str]], read: ReadHeaders, known: KnownSamples
) -> dict[str, tuple[str, ...]]:
    """Names of the samples of assets whose files have several samples of data.

    What another item calls them counts most, then what the files do. Samples without a
    name are told by their number, behind the asset key where there are several assets.
    """
    wanted = [href for firsts in unnamed.values() for href in firsts if href not in known]
    headers = dict(read(wanted))
    names: dict[str, tuple[str, ...]] = {}
    for key, firsts in unnamed.items():
        samples = SampleSurvey()
        for href in firsts:
            header = headers.get(href)
            if header is not None and data_samples(header) > 1:
                samples.add(href, header)
            elif sum(name is not None for name in known.get(href, ())) > 1:
                samples.add_names(href, known[href], len(known[href]))
        found = samples.names() if len(survey.keys) == 1 else samples.descriptions()
        if len(found) > 1:
            names[key] = survey.names_of(key, len(found)) or tuple(found)
    return names


def _property_columns(
    survey: ItemSurvey, notes: Notes
) -> dict[str, tuple[str, pa.DataType | None]]:
    """Column name to property and type; None is JSON text.

    Names of canonical columns, partition keys and cached headers are not given away; DuckDB
    compares names without case.
    """
    canonical = (ID, DATETIME, GEOMETRY, COLLECTION, EPSG, CRS)
    taken = {field.name for field in canonical} | {"bbox", "assets", *PARTITION_KEYS}
    columns: dict[str, tuple[str, pa.DataType | None]] = {}
    unseen = {name: ItemProperty(name) for name in survey.column_types if name not in CONSUMED}
    for name, seen in (survey.properties | unseen | survey.properties).items():
        column = name
        if name.endswith(METADATA_SUFFIX) or name.casefold() in taken or not name:
            column = f"{name}{_RENAMED_SUFFIX}"
        while column.casefold() in taken:
            column += "_"
        if column != name:
            notes.add(f"property {name}", f"is column {column}, as the name is taken")
        if name in DATETIME_PROPERTIES and not seen.is_time:
            notes.add(f"property {name}", "is not a time in every item, so it stays as it is")
        taken.add(column.casefold())
        kind = None if seen.is_time else survey.column_types.get(name)
        columns[column] = (name, kind or seen.arrow())
    return columns


@dataclass(frozen=True)
class _Hrefs:
    """From an href of an item to the one that is stored."""

    url_rewrite: dict[str, str]
    is_remote: bool
    allow_local: bool

    def stored(self, href: str, *, is_remote: bool) -> str | None:
        """The unsigned, rewritten href; None if a remote item names a local file.

        A local file that a rewrite of the caller leads to is allowed.
        """
        rewritten = stored_href(href, self.url_rewrite)
        is_foreign = (self.is_remote or is_remote) and not self.allow_local
        if is_foreign and is_local(rewritten) and is_local(href) and rewritten == href:
            return None
        return rewritten


@dataclass(frozen=True)
class _Table:
    spool: ItemSpool
    bands: dict[str, Band]
    columns: dict[str, tuple[str, pa.DataType | None]]
    hrefs: _Hrefs
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        canonical = [
            ID,
            DATETIME,
            GEOMETRY,
            pa.field("bbox", BBOX),
            pa.field("assets", assets_type(list(self.bands))),
            COLLECTION,
            EPSG,
            CRS,
        ]
        others = [
            pa.field(column, pa.string() if kind is None else kind)
            for column, (_, kind) in self.columns.items()
        ]
        return pa.schema(canonical + others)

    def batches(self) -> Iterator[pa.RecordBatch]:
        schema = self.schema
        for chunk in self._chunks():
            yield self._batch(chunk, schema)

    def hinted_batches(self) -> Iterator[pa.RecordBatch]:
        schema = self.schema
        hints = pa.struct([(band, asset_hints.HINT) for band in self.bands])
        for chunk in self._chunks():
            column = pa.array([self._hints(row) for row in chunk], hints)
            yield self._batch(chunk, schema).append_column(asset_hints.COLUMN, column)

    def _chunks(self) -> Iterator[list[ItemRow]]:
        rows = iter(self.spool)
        while chunk := [ItemRow(*row) for row in islice(rows, BATCH_ROWS)]:
            yield chunk

    def _batch(self, rows: list[ItemRow], schema: pa.Schema) -> pa.RecordBatch:
        geometries = [row.geometry and bytes.fromhex(row.geometry) for row in rows]
        boxes = [row.bbox and dict(zip(BBOX.names, row.bbox, strict=True)) for row in rows]
        arrays = [
            to_array([row.id for row in rows], ID.type),
            pa.array([row.datetime for row in rows], pa.int64()).cast(DATETIME.type),
            pa.array(geometries, GEOMETRY.type),
            pa.array(boxes, BBOX),
            pa.array([self._assets(row) for row in rows], schema.field("assets").type),
            to_array([row.collection for row in rows], COLLECTION.type),
            pa.array([row.epsg for row in rows], EPSG.type),
            pa.array([row.crs for row in rows], CRS.type),
        ]
        arrays += [
            to_array([row.properties.get(name) for row in rows], kind)
            for name, kind in self.columns.values()
        ]
        return pa.record_batch(arrays, schema=schema)

    def _assets(self, row: ItemRow) -> dict[str, Any]:
        found = {}
        for band, (href, index) in self._located(row):
            stored = self.hrefs.stored(href, is_remote=row.is_remote)
            if stored is not None:
                found[band] = {"href": stored, "band_index": index}
        return found

    def _hints(self, row: ItemRow) -> dict[str, Any]:
        found = {}
        told = {self.aliases.get(key, key): asset[2] for key, asset in row.assets.items()}
        for band, (_, sample) in self._located(row):
            hint = asset_hints.hint_of(told[self.bands[band].key], sample)
            found[band] = None if hint is None else hint._asdict()
        return found

    def _located(self, row: ItemRow) -> Iterator[tuple[str, tuple[str, int]]]:
        assets = row.assets
        if self.aliases:
            assets = {self.aliases.get(key, key): asset for key, asset in assets.items()}
        for band, where in self.bands.items():
            found = assets.get(where.key)
            if found is None:
                continue
            asset = RasterAsset(found[0], tuple(found[1]) or self.names.get(where.key, ()))
            index = sample_index(where, asset)
            if index is not None:
                yield band, (asset.href, index)

    def refused(self) -> Iterator[AssetFailure]:
        """Assets of remote items that name local files."""
        for values in self.spool:
            row = ItemRow(*values)
            for band, (href, _) in self._located(row):
                if self.hrefs.stored(href, is_remote=row.is_remote) is None:
                    yield local_refused(row.id, band, href)
