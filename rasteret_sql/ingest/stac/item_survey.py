"""The first pass over STAC items: rows on disk, and the bands, types and ids of all."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from pyproj.exceptions import ProjError

from rasteret_sql.collections.datetimes import parse_micros
from rasteret_sql.collections.footprints import (
    LAT_LIMIT,
    LON_LIMIT,
    Geometry,
    bbox_of,
    geometry_of,
    parse_bbox,
    parse_geometry,
    to_lonlat,
)
from rasteret_sql.collections.hrefs import unsigned, unsigned_values
from rasteret_sql.errors import InputError, shorten
from rasteret_sql.grid.crs import crs_of
from rasteret_sql.ingest.asset_hints import asset_hints
from rasteret_sql.ingest.bands import (
    BandSurvey,
    KeyAliases,
    RasterAsset,
    has_declared_bands,
    is_raster,
    sample_names,
)
from rasteret_sql.ingest.crs_hints import crs_hint
from rasteret_sql.ingest.raster_footprints import covers, widened
from rasteret_sql.ingest.stac.documents import COLUMN_TYPES, GEOMETRY_CRS, LOCATION, Item
from rasteret_sql.ingest.stac.item_filter import collection_of
from rasteret_sql.ingest.stac.item_spool import ItemSpool
from rasteret_sql.ingest.stac.property_types import DATETIME_PROPERTIES, PropertyType
from rasteret_sql.progress import counts
from rasteret_sql.remote.stores import is_local, is_remote
from rasteret_sql.schema import COLLECTION, DATETIME
from rasteret_sql.units import BBox

_N_SHOWN = 5
_N_NOTES = 100
MAX_HEADERS = 3
_ROUNDING_DEG = 1e-3
_HALF_CIRCLE = 180.0
# Consumed by canonical columns of the same name; not kept beside them.
CONSUMED = frozenset({"datetime", "proj:epsg"})


class Notes:
    """Warnings; of each kind only the first are written out, the rest are counted."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._n: Counter[str] = Counter()

    def add(self, subject: str, text: str, kind: str | None = None) -> None:
        """Note something of an item or property; `kind` names what is counted together."""
        kind = kind or text
        self._n[kind] += 1
        if self._n[kind] <= _N_NOTES:
            self.lines.append(f"{subject}: {text}")

    def finish(self, duplicates: list[str]) -> None:
        """Add the counts of what was not written out, and the ids that are there twice."""
        for kind, n in self._n.items():
            if n > _N_NOTES:
                self.lines.append(f"{n - _N_NOTES} more items: {kind}")
        if duplicates:
            shown = ", ".join(duplicates[:_N_SHOWN])
            more = f" and {len(duplicates) - _N_SHOWN} more" if len(duplicates) > _N_SHOWN else ""
            self.lines.append(f"id: {shown}{more}: more than one item has this id")


@dataclass(frozen=True, slots=True)
class ItemRow:
    """What is kept of an item, in the order of the spool.

    Attributes:
        datetime: UTC microseconds since 1970.
        geometry: WKB in hexadecimal.
        bbox: west, south, east, north.
        is_remote: whether the item's document came over a network.
        assets: asset key to href, sample names and what is said of values and grid.
    """

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
        """The values in order, as JSON writes them."""
        return [getattr(self, name) for name in self.__slots__]


@dataclass
class ItemSurvey:
    """What one pass over the items learned.

    Attributes:
        bands: of the rasters, or of the assets that were asked for.
        others: of all assets, until the first raster came.
        keys: every asset key, rasters or not, in order of appearance.
        has_local: whether an asset is a local file.
        has_hints: whether values or grid of an asset are told of.
        column_types: of the properties that are columns of the same type in all files.
        key_aliases: asset keys that are made of the item's id or date.
        unnamed: asset key to its first hrefs in items that do not say how many samples it has,
            each with whether the item is remote.
        id_hashes: of every id; eight bytes an item is all that grows in memory.
    """

    spool: ItemSpool
    bands: BandSurvey
    keys: dict[str, None]
    properties: dict[str, ItemProperty]
    id_hashes: array[int]
    n_items: int = 0
    has_local: bool = False
    has_hints: bool = False
    column_types: dict[str, pa.DataType] = field(default_factory=dict)
    key_aliases: KeyAliases = field(default_factory=KeyAliases)
    unnamed: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    others: BandSurvey = field(default_factory=BandSurvey)

    def declare(self, types: Mapping[str, pa.DataType]) -> None:
        """Take the columns of one more file into account; other items name their own types."""
        if not types or (self.n_items and not self.column_types):
            self.column_types = {}
        elif not self.n_items:
            self.column_types = dict(types)
        else:
            both = self.column_types.items() & types.items()
            self.column_types = {name: kind for name, kind in types.items() if (name, kind) in both}

    def duplicates(self) -> list[str]:
        """Ids that more than one item has, in order of first repetition."""
        hashes = np.frombuffer(self.id_hashes, np.int64) if self.n_items else np.empty(0, np.int64)
        values, n_times = np.unique(hashes, return_counts=True)
        repeated = set(values[n_times > 1].tolist())
        if not repeated:
            return []
        seen: Counter[str] = Counter()
        for row in self.spool:
            if hash(row[0]) in repeated:
                seen[row[0]] += 1
        return [name for name, n in seen.items() if n > 1]


class ItemProperty:
    """A property over all items: its type, and whether it is a time everywhere."""

    __slots__ = ("is_time", "type")

    def __init__(self, name: str) -> None:
        self.type = PropertyType()
        self.is_time = name in DATETIME_PROPERTIES

    def add(self, value: object) -> None:
        """Take one more value into account."""
        self.type.add(value)
        if self.is_time and value is not None:
            try:
                parse_micros(value)
            except ValueError:
                self.is_time = False

    def arrow(self) -> pa.DataType | None:
        """The type of the column; None is JSON text."""
        return DATETIME.type if self.is_time else self.type.arrow()


def survey_items(
    items: Iterable[Item],
    notes: Notes,
    wanted_keys: set[str] | None,
    spool_folder: Path | None = None,
) -> ItemSurvey:
    """Read all items once.

    Args:
        items: as from `read_items`.
        notes: is told what is odd.
        wanted_keys: the assets to keep, whatever they are; None keeps rasters, and as long
            as there were none, all that have an href.
        spool_folder: where the items wait on disk; the temporary folder where None.
    """
    found = ItemSurvey(ItemSpool(spool_folder), BandSurvey(), {}, {}, array("q"))
    declared: dict[str, pa.DataType] | None = None
    for item in items:
        found.keys |= dict.fromkeys(item["assets"])
        assets = _assets_of(item, wanted_keys)
        found.bands.add(assets)
        if wanted_keys is None and not found.bands:
            assets = _assets_of(item, set(item["assets"]))
            found.others.add(assets)
        found.has_local |= any(is_local(asset.href) for asset in assets.values())
        found.key_aliases.add(item["id"], {key: item["assets"][key] for key in assets})
        row = _row_of(item, assets, notes)
        for key, asset in assets.items():
            firsts = found.unnamed.setdefault(key, [])
            if len(firsts) < MAX_HEADERS and not has_declared_bands(item["assets"][key]):
                firsts.append((asset.href, row.is_remote))
        found.has_hints |= any(hints for *_, hints in row.assets.values())
        if item.get(COLUMN_TYPES) is not declared:
            declared = item.get(COLUMN_TYPES)
            found.declare(declared or {})
        for name, value in row.properties.items():
            seen = found.properties.get(name)
            if seen is None:
                seen = found.properties[name] = ItemProperty(name)
            seen.add(value)
        found.id_hashes.append(hash(row.id))
        found.n_items += 1
        counts.add("records listed")
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
            found[key] = RasterAsset(unsigned(href), sample_names(asset, item["properties"]))
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


def _row_of(item: Item, assets: dict[str, RasterAsset], notes: Notes) -> ItemRow:
    properties = item["properties"]
    raw_assets = item["assets"]
    hint = crs_hint(properties, (raw_assets[key] for key in assets))
    geometry, bbox = _footprint(item, notes, hint.crs)
    collection = collection_of(item)
    return ItemRow(
        id=item["id"],
        datetime=_datetime(item["id"], properties, notes),
        geometry=geometry,
        bbox=bbox,
        collection=collection,
        epsg=hint.epsg,
        crs=hint.crs,
        is_remote=is_remote(str(item.get(LOCATION, ""))),
        assets={
            key: [asset.href, list(asset.names), asset_hints(raw_assets[key], properties)]
            for key, asset in assets.items()
        },
        properties={
            name: unsigned_values(value)
            for name, value in properties.items()
            if name not in CONSUMED and (name != COLLECTION.name or value != collection)
        },
    )


def _datetime(name: str, properties: Mapping[str, Any], notes: Notes) -> int | None:
    for key in ("datetime", "start_datetime"):
        value = properties.get(key)
        if value is None:
            continue
        try:
            return parse_micros(value)
        except ValueError:
            notes.add(
                f"item {name}",
                f"{key}: expected an RFC 3339 time, got {shorten(value)}; it is NULL",
                f"{key} that is no time",
            )
    return None


def _footprint(
    item: Item, notes: Notes, raster_crs: str | None
) -> tuple[str | None, list[float] | None]:
    """Geometry as WKB in hexadecimal, and bounds; each from the other if one is missing.

    What is not in degrees is transformed from the CRS of the rasters, or left out.
    """
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
    declared = item.get(GEOMETRY_CRS)
    if declared is not None:
        # the box is in the CRS that the geometry is in, or an older one
        box = box if geometry is None else None
        geometry = _in_degrees(geometry, declared)
        moved = None if box is None else _in_degrees(shapely.box(*box), declared)
        box = None if moved is None else bbox_of(moved)
    elif not (_is_degrees(geometry and geometry.bounds) and _is_degrees(box)):
        geometry, box = _corrected(item["id"], geometry, box, notes, raster_crs)
    own = None if geometry is None else bbox_of(geometry)
    if box is None:
        box = own
    elif own is not None and not _spans_half(own) and not _holds(box, own):
        text = "bbox: does not cover the item's geometry; it is widened"
        notes.add(f"item {item['id']}", text, text)
        box = widened(box, own)
    if geometry is None and box is not None:
        geometry = geometry_of(box)
    return (None if geometry is None else geometry.wkb_hex), (None if box is None else list(box))


def _holds(box: BBox, own: BBox) -> bool:
    """Whether a box covers another, but for what rounding does."""
    slack = _ROUNDING_DEG
    wide = BBox(box.xmin - slack, box.ymin - slack, box.xmax + slack, box.ymax + slack)
    return covers(wide, own)


def _spans_half(box: BBox) -> bool:
    """Whether a box is so wide that its geometry may cross 180 without being cut there."""
    return box.xmax - box.xmin > _HALF_CIRCLE


def _is_degrees(bounds: Sequence[float] | None) -> bool:
    """Whether bounds can be longitudes and latitudes; None can."""
    if bounds is None:
        return True
    return max(abs(bounds[0]), abs(bounds[2])) <= LON_LIMIT and (
        max(abs(bounds[1]), abs(bounds[3])) <= LAT_LIMIT
    )


def _corrected(
    name: str, geometry: Geometry | None, box: BBox | None, notes: Notes, crs: str | None
) -> tuple[Geometry | None, BBox | None]:
    """Geometry and box of which one is not in degrees: from the CRS of the rasters, or None."""
    shapes = {"geometry": geometry, "bbox": None if box is None else shapely.box(*box)}
    fixed: dict[str, Geometry | None] = {}
    for field_name, shape in shapes.items():
        fixed[field_name] = shape
        if shape is None or _is_degrees(shape.bounds):
            continue
        fixed[field_name] = None if crs is None else _in_degrees(shape, crs)
        text = "is not in degrees; it is "
        text += "NULL" if fixed[field_name] is None else f"taken as {crs} and transformed"
        notes.add(f"item {name}", f"{field_name}: {text}", f"{field_name} {text}")
    moved = fixed["bbox"] is not shapes["bbox"]
    if moved:
        box = None if fixed["bbox"] is None else bbox_of(fixed["bbox"])
    return fixed["geometry"], box


def _in_degrees(shape: Geometry | None, crs: str) -> Geometry | None:
    """A geometry transformed to degrees; None where it does not lie in the area of the CRS."""
    try:
        moved = to_lonlat(np.array([shape], object), crs_of(crs))[0]
    except (InputError, ProjError):
        return None
    is_there = moved is not None and not moved.is_empty and _is_degrees(moved.bounds)
    return moved if is_there else None
