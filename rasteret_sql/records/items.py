"""STAC items to records: one pass learns bands and types, the next makes batches."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import AccessDeniedError, redact, shorten
from rasteret_sql.records.bands import (
    Band,
    BandSurvey,
    RasterAsset,
    choose_bands,
    is_raster,
    sample_index,
    sample_names,
)
from rasteret_sql.records.crs_hints import crs_hint
from rasteret_sql.records.datetimes import parse_micros
from rasteret_sql.records.footprints import bbox_of, geometry_of, parse_bbox, parse_geometry
from rasteret_sql.records.hrefs import unsigned
from rasteret_sql.records.item_filter import collection_of
from rasteret_sql.records.item_spool import ItemSpool
from rasteret_sql.records.property_types import DATETIME_PROPERTIES, PropertyType, to_array
from rasteret_sql.records.records import BATCH_ROWS, AssetFailure, Records
from rasteret_sql.records.stac_documents import LOCATION, Item
from rasteret_sql.remote.stores import is_local, is_remote, rewrite
from rasteret_sql.schema import (
    BBOX,
    CRS,
    DATETIME,
    EPSG,
    GEOMETRY,
    ID,
    METADATA_SUFFIX,
    PARTITION_KEYS,
    assets_type,
)

COLLECTION = pa.field("collection", pa.string())
_RENAMED_SUFFIX = "_property"
_N_SHOWN = 5
_N_NOTES = 100
# Consumed by canonical columns of the same name; not kept beside them.
_CONSUMED = frozenset({"datetime", "proj:epsg"})


def records_from_items(
    items: Iterable[Item],
    *,
    bands: list[str] | None = None,
    band_map: Mapping[str, str] | None = None,
    band_index_map: Mapping[str, int] | None = None,
    url_rewrite: Mapping[str, str] | None = None,
    is_remote: bool = False,
    allow_local: bool = False,
    warnings: list[str] | None = None,
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
        warnings: lines of the reader of the items, which the result goes on with.

    Raises:
        InputError: if a map or a band does not fit the items.
        CollectionError: from the items.
    """
    notes = _Notes([] if warnings is None else warnings)
    survey = _survey(items, notes, set(band_map.values()) if band_map else None)
    chosen = choose_bands(
        survey.bands,
        bands=bands,
        band_map=band_map,
        band_index_map=band_index_map,
        known_keys=survey.keys,
    )
    if survey.n_items and not chosen:
        listed = ", ".join(sorted(survey.keys)[:20]) or "none"
        notes.add("items", f"no asset is a TIFF (assets: {listed}); name them in band_map")
    hrefs = _Hrefs(dict(url_rewrite or {}), is_remote=is_remote, allow_local=allow_local)
    table = _Table(survey.spool, chosen, _property_columns(survey.properties, notes), hrefs)
    notes.finish(survey.duplicates())
    return Records(table.schema, table.batches, notes.lines, list(table.refused()))


class _Notes:
    """Warnings; of each kind only the first are written out, the rest are counted."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._n: Counter[str] = Counter()

    def add(self, subject: str, text: str, kind: str | None = None) -> None:
        kind = kind or text
        self._n[kind] += 1
        if self._n[kind] <= _N_NOTES:
            self.lines.append(f"{subject}: {text}")

    def finish(self, duplicates: list[str]) -> None:
        for kind, n in self._n.items():
            if n > _N_NOTES:
                self.lines.append(f"{n - _N_NOTES} more items: {kind}")
        if duplicates:
            shown = ", ".join(duplicates[:_N_SHOWN])
            more = f" and {len(duplicates) - _N_SHOWN} more" if len(duplicates) > _N_SHOWN else ""
            self.lines.append(f"id: {shown}{more}: more than one item has this id")


# One row of the spool, in this order.
@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    datetime: int | None
    geometry: str | None
    bbox: list[float] | None
    collection: str | None
    epsg: int | None
    crs: str | None
    is_remote: bool
    assets: dict[str, list[Any]]
    properties: dict[str, Any]

    def as_list(self) -> list[Any]:
        return [getattr(self, name) for name in self.__slots__]


@dataclass
class _Survey:
    spool: ItemSpool
    bands: BandSurvey
    keys: dict[str, None]
    properties: dict[str, _Property]
    id_hashes: array[int]
    n_items: int = 0

    def duplicates(self) -> list[str]:
        """Ids that more than one item has, in order of first repetition."""
        hashes = np.frombuffer(self.id_hashes, np.int64) if self.n_items else np.empty(0, np.int64)
        values, counts = np.unique(hashes, return_counts=True)
        repeated = set(values[counts > 1].tolist())
        if not repeated:
            return []
        seen: Counter[str] = Counter()
        for row in self.spool:
            if hash(row[0]) in repeated:
                seen[row[0]] += 1
        return [name for name, n in seen.items() if n > 1]


class _Property:
    """A property over all items: its type, and whether it is a time everywhere."""

    __slots__ = ("is_time", "type")

    def __init__(self, name: str) -> None:
        self.type = PropertyType()
        self.is_time = name in DATETIME_PROPERTIES

    def add(self, value: object) -> None:
        self.type.add(value)
        if self.is_time and value is not None:
            try:
                parse_micros(value)
            except ValueError:
                self.is_time = False

    def arrow(self) -> pa.DataType | None:
        return DATETIME.type if self.is_time else self.type.arrow()


def _survey(items: Iterable[Item], notes: _Notes, wanted_keys: set[str] | None) -> _Survey:
    found = _Survey(ItemSpool(), BandSurvey(), {}, {}, array("q"))
    for item in items:
        found.keys |= dict.fromkeys(item["assets"])
        assets = _assets_of(item, wanted_keys)
        found.bands.add(assets)
        row = _row_of(item, assets, notes)
        for name, value in row.properties.items():
            seen = found.properties.get(name)
            if seen is None:
                seen = found.properties[name] = _Property(name)
            seen.add(value)
        found.id_hashes.append(hash(row.id))
        found.n_items += 1
        found.spool.append(row.as_list())
    found.spool.close()
    return found


def _assets_of(item: Item, wanted_keys: set[str] | None) -> dict[str, RasterAsset]:
    found = {}
    for key, asset in item["assets"].items():
        if not isinstance(asset, dict):
            continue
        is_wanted = is_raster(key, asset) if wanted_keys is None else key in wanted_keys
        href = _href_of(asset)
        if is_wanted and href:
            found[key] = RasterAsset(href, sample_names(asset, item["properties"]))
    return found


def _href_of(asset: Mapping[str, Any]) -> str | None:
    """The main href; only an asset without one is read at an alternate address."""
    if asset.get("href"):
        return str(asset["href"])
    alternates = asset.get("alternate")
    for alternate in alternates.values() if isinstance(alternates, dict) else ():
        if isinstance(alternate, dict) and alternate.get("href"):
            return str(alternate["href"])
    return None


def _row_of(item: Item, assets: dict[str, RasterAsset], notes: _Notes) -> _Row:
    properties = item["properties"]
    raw_assets = item["assets"]
    geometry, bbox = _footprint(item, notes)
    hint = crs_hint(properties, (raw_assets[key] for key in assets))
    return _Row(
        id=item["id"],
        datetime=_datetime(item["id"], properties, notes),
        geometry=geometry,
        bbox=bbox,
        collection=collection_of(item),
        epsg=hint.epsg,
        crs=hint.crs,
        is_remote=is_remote(str(item.get(LOCATION, ""))),
        assets={key: [asset.href, list(asset.names)] for key, asset in assets.items()},
        properties={name: value for name, value in properties.items() if name not in _CONSUMED},
    )


def _datetime(name: str, properties: Mapping[str, Any], notes: _Notes) -> int | None:
    for field in ("datetime", "start_datetime"):
        value = properties.get(field)
        if value is None:
            continue
        try:
            return parse_micros(value)
        except ValueError:
            notes.add(
                f"item {name}",
                f"{field}: expected an RFC 3339 time, got {shorten(value)}; it is NULL",
                f"{field} that is no time",
            )
    return None


def _footprint(item: Item, notes: _Notes) -> tuple[str | None, list[float] | None]:
    """Geometry as WKB in hexadecimal, and bounds; each from the other if one is missing."""
    geometry, box = None, None
    try:
        geometry = parse_geometry(item.get("geometry"))
    except ValueError as error:
        text = f"geometry: expected GeoJSON, got {shorten(error)}"
        notes.add(f"item {item['id']}", text, "geometry that is no GeoJSON")
    try:
        box = parse_bbox(item.get("bbox"))
    except ValueError as error:
        text = f"bbox: expected [west, south, east, north], got {shorten(error)}"
        notes.add(f"item {item['id']}", text, "bbox that is no box")
    if box is None and geometry is not None:
        box = bbox_of(geometry)
    if geometry is None and box is not None:
        geometry = geometry_of(box)
    return (None if geometry is None else geometry.wkb_hex), (None if box is None else list(box))


def _property_columns(
    properties: Mapping[str, _Property], notes: _Notes
) -> dict[str, tuple[str, pa.DataType | None]]:
    """Column name to property and type; None is JSON text.

    Names of canonical columns, partition keys and cached headers are not given away; DuckDB
    compares names without case.
    """
    canonical = (ID, DATETIME, GEOMETRY, COLLECTION, EPSG, CRS)
    taken = {field.name for field in canonical} | {"bbox", "assets", *PARTITION_KEYS}
    columns: dict[str, tuple[str, pa.DataType | None]] = {}
    for name, seen in properties.items():
        if name == COLLECTION.name:
            continue
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
        columns[column] = (name, seen.arrow())
    return columns


@dataclass(frozen=True)
class _Hrefs:
    """From an href in a catalogue to the one that is stored."""

    url_rewrite: dict[str, str]
    is_remote: bool
    allow_local: bool

    def stored(self, href: str, *, is_remote: bool) -> str | None:
        """The unsigned, rewritten href; None if a remote item names a local file.

        A local file that a rewrite of the caller leads to is allowed.
        """
        rewritten = rewrite(unsigned(href), self.url_rewrite)
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
        rows = iter(self.spool)
        schema = self.schema
        while chunk := [_Row(*row) for row in islice(rows, BATCH_ROWS)]:
            yield self._batch(chunk, schema)

    def _batch(self, rows: list[_Row], schema: pa.Schema) -> pa.RecordBatch:
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

    def _assets(self, row: _Row) -> dict[str, Any]:
        found = {}
        for band, (href, index) in self._located(row):
            stored = self.hrefs.stored(href, is_remote=row.is_remote)
            if stored is not None:
                found[band] = {"href": stored, "band_index": index}
        return found

    def _located(self, row: _Row) -> Iterator[tuple[str, tuple[str, int]]]:
        for band, where in self.bands.items():
            found = row.assets.get(where.key)
            if found is None:
                continue
            asset = RasterAsset(found[0], tuple(found[1]))
            index = sample_index(where, asset)
            if index is not None:
                yield band, (asset.href, index)

    def refused(self) -> Iterator[AssetFailure]:
        """Assets of remote items that name local files."""
        if self.hrefs.allow_local:
            return
        for values in self.spool:
            row = _Row(*values)
            for band, (href, _) in self._located(row):
                if self.hrefs.stored(href, is_remote=row.is_remote) is None:
                    error = AccessDeniedError.expected(
                        redact(href),
                        "a remote file, as the item is remote",
                        "a local path",
                        "use url_rewrite if it is mounted here",
                    )
                    yield AssetFailure(row.id, band, redact(href), error.message)
