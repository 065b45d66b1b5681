"""STAC sources: an API, a static catalog, or a file of items, read as items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from rasteret_sql.collections.datetimes import Instants, parse_range
from rasteret_sql.collections.footprints import parse_bbox, parse_geometry
from rasteret_sql.collections.hrefs import local_path
from rasteret_sql.errors import CollectionError, InputError, redact
from rasteret_sql.ingest.stac.api import StacApi
from rasteret_sql.ingest.stac.catalog import CatalogWalk
from rasteret_sql.ingest.stac.documents import (
    FetchText,
    Item,
    Json,
    features,
    item_fault,
    kind_of,
    links,
    normalize_item,
    parse_json,
    read_bytes,
    read_document,
)
from rasteret_sql.ingest.stac.geoparquet import read_stac_geoparquet
from rasteret_sql.ingest.stac.item_filter import ItemFilter, parse_query
from rasteret_sql.remote.stores import is_remote

_PARQUET = (".parquet", ".geoparquet", ".parq")
_JSON_LINES = (".ndjson", ".jsonl", ".geojsonl", ".ndgeojson")
_CATALOG_FILES = ("catalog.json", "collection.json")
_N_SHOWN = 10
_LON_LIMIT = 180
_LAT_LIMIT = 90


@dataclass(frozen=True)
class StacSource:
    """Where STAC items are and which are wanted.

    Attributes:
        location: address of an API, address or path of a static catalog or collection, or a
            file of items: ``.json`` (FeatureCollection, list or one item), ``.ndjson``,
            ``.parquet`` (STAC GeoParquet; also a folder of such files, in a cloud with a
            slash at its end).
        collection: only items of this collection.
        bbox: west, south, east, north in degrees; west > east crosses the antimeridian.
        date_range: start and end, both included, None or '..' for open.
        query: STAC query as JSON text or object.
        filter: CQL2 text or JSON; a server evaluates it.
        ids: only these items.
        intersects: GeoJSON, WKT or WKB, in degrees.
        max_items: stop after this many.
        static_catalog: whether the address is no API; None looks at the document.
    """

    location: str
    collection: str | None = None
    bbox: tuple[float, float, float, float] | list[float] | None = None
    date_range: tuple[object, object] | list[Any] | None = None
    query: str | dict[str, Any] | None = None
    filter: str | dict[str, Any] | None = None
    ids: tuple[str, ...] | list[str] | None = None
    intersects: str | bytes | dict[str, Any] | None = None
    max_items: int | None = None
    static_catalog: bool | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the items come over a network; then none may name a local file."""
        return is_remote(self.location)

    def check_place(self) -> None:
        """Look whether a local source is there, and whether it can do what is asked.

        Raises:
            CollectionError: there is no such file or folder.
            InputError: CQL2, which only an API evaluates.
        """
        if is_remote(self.location):
            return
        path = Path(local_path(self.location)).expanduser()
        if not path.exists():
            raise CollectionError.expected(
                self.location, "a readable file", "No such file or directory", "check the path"
            )
        if self.filter is not None:
            raise _filter_without_api(self.location)

    def wanted(self) -> ItemFilter:
        """The conditions, checked.

        Raises:
            InputError: if one of them is malformed.
        """
        if self.max_items is not None and self.max_items < 1:
            raise InputError.expected("max_items", "1 or more", self.max_items, "NULL is all")
        if self.bbox is not None and self.intersects is not None:
            raise InputError.expected("bbox", "bbox or intersects", "both", "give one of them")
        instants = None if self.date_range is None else parse_range(self.date_range)
        if instants == Instants(None, None):
            instants = None
        return ItemFilter(
            collection=self.collection or None,
            bbox=None if self.bbox is None else _checked_bbox(self.bbox),
            instants=instants,
            ids=None if self.ids is None else frozenset(self.ids),
            query=None if self.query is None else parse_query(self.query),
            intersects=None if self.intersects is None else _checked_geometry(self.intersects),
        )


def read_items(
    source: StacSource,
    *,
    fetch_text: FetchText | None = None,
    warnings: list[str] | None = None,
) -> Iterator[Item]:
    """Items of a source, checked, their asset hrefs absolute.

    Each is a dict as in its JSON, with text id, properties and assets; `LOCATION` says in
    which document it was. From STAC GeoParquet the geometry is WKB.

    Args:
        source: where and which.
        fetch_text: reads remote documents of static catalogs and files; may be called
            from several threads. APIs are read through pystac-client.
        warnings: gets a line for each document and item that was left out.

    Raises:
        InputError: if a condition is malformed or the source can't evaluate it.
        CollectionError: if the source is not STAC.
        ReadError: if it can't be reached.
    """
    wanted = source.wanted()
    noted = warnings if warnings is not None else []
    found = islice(_Reader(source, wanted, fetch_text, noted).items(), source.max_items)
    return found if wanted.ids is None else _with_missing_told(found, wanted.ids, noted)


def _with_missing_told(
    items: Iterator[Item], ids: frozenset[str], warnings: list[str]
) -> Iterator[Item]:
    """Pass items on, then tell which ids were asked for and are not among them."""
    missing = set(ids)
    for item in items:
        missing.discard(item["id"])
        yield item
    if missing:
        shown = ", ".join(sorted(missing)[:_N_SHOWN])
        more = f" and {len(missing) - _N_SHOWN} more" if len(missing) > _N_SHOWN else ""
        warnings.append(f"ids: {shown}{more}: not found")


@dataclass(frozen=True)
class _Reader:
    source: StacSource
    wanted: ItemFilter
    fetch_text: FetchText | None
    warnings: list[str]

    def items(self) -> Iterator[Item]:
        location = self._root_location()
        suffix = Path(urlsplit(location).path if is_remote(location) else location).suffix.lower()
        if suffix in _PARQUET or self._is_parquet_folder(location):
            yield from self._of_file(read_stac_geoparquet(location), location)
        elif suffix in _JSON_LINES:
            yield from self._of_file(
                _json_lines(location, self.fetch_text, self.warnings), location
            )
        elif self._is_api(location):
            yield from self._of_api(location)
        else:
            yield from self._of_document(location)

    def _is_api(self, location: str) -> bool:
        """Whether it is said to be an API, or nothing else could read it."""
        is_web = location.lower().startswith(("http://", "https://"))
        return is_web and (self.source.static_catalog is False or self.fetch_text is None)

    def _root_location(self) -> str:
        """The document to start at: a folder stands for its catalog or collection."""
        location = self.source.location
        if is_remote(location):
            return location
        path = Path(local_path(location)).expanduser()
        if not path.is_dir():
            return str(path)
        for name in _CATALOG_FILES:
            if (path / name).is_file():
                return str(path / name)
        if self._is_parquet_folder(str(path)):
            return str(path)
        raise CollectionError.expected(
            location,
            f"a folder with {', '.join(_CATALOG_FILES)} or Parquet files",
            "none of them",
            "name the file",
        )

    @staticmethod
    def _is_parquet_folder(location: str) -> bool:
        if is_remote(location):
            return location.endswith("/") and not location.lower().startswith("http")
        if not Path(location).is_dir():
            return False
        return next(Path(location).rglob("*.parquet"), None) is not None

    def _of_document(self, location: str) -> Iterator[Item]:
        document = read_document(location, self.fetch_text)
        kind = kind_of(document)
        if self.source.static_catalog is None and is_remote(location):
            if kind == "api":
                yield from self._of_api(location, landing_page=document)
                return
            items = next(links(document, "items"), None) if kind == "collection" else None
            root = next(links(document, "root"), None) if items else None
            if root is not None and next(links(document, "item"), None) is None:
                collection = self.wanted.collection or str(document["id"])
                yield from self._of_api(urljoin(location, root["href"]), collection=collection)
                return
        self._refuse_filter()
        further = next(links(document, "next"), None) if isinstance(document, dict) else None
        if kind == "item" or (kind == "items" and (further is None or not is_remote(location))):
            members = [document] if kind == "item" else features(document, location)
            yield from self._of_file(iter(members), location, is_whole_document=kind == "item")
            if further is not None:
                self.warnings.append(f"{location}: is one page of several; the next is not read")
            return
        walk = CatalogWalk(self.fetch_text, self.wanted.collection, self.warnings)
        for item in walk.items(location, document):
            if self.wanted.accepts(item):
                yield item

    def _of_file(
        self, items: Iterator[Any], location: str, *, is_whole_document: bool = False
    ) -> Iterator[Item]:
        self._refuse_filter()
        n_items = n_sound = 0
        fault = None
        for item in items:
            n_items += 1
            fault = item_fault(item)
            if fault is not None:
                where = "" if is_whole_document else f"item {n_items - 1}: "
                self.warnings.append(f"{redact(location)}: {where}{fault}, left out")
                continue
            n_sound += 1
            normalize_item(item, location, is_whole_document=is_whole_document)
            if self.wanted.accepts(item):
                yield item
        if n_items and not n_sound:
            raise CollectionError.expected(
                redact(location), "STAC items", fault, "check the document"
            )

    def _of_api(
        self,
        url: str,
        *,
        collection: str | None = None,
        landing_page: dict[str, Any] | None = None,
    ) -> Iterator[Item]:
        api = StacApi(url, self.warnings, landing_page)
        wanted = self.wanted
        if collection is not None:
            wanted = replace(wanted, collection=collection)
        yield from api.items(wanted, cql2=self.source.filter, max_items=self.source.max_items)

    def _refuse_filter(self) -> None:
        if self.source.filter is not None:
            raise _filter_without_api(self.source.location)


def _filter_without_api(location: str) -> InputError:
    return InputError.expected(
        "filter",
        "a STAC API, which evaluates CQL2",
        redact(location),
        "use query, or a WHERE on the collection",
    )


def _json_lines(location: str, fetch_text: FetchText | None, warnings: list[str]) -> Iterator[Any]:
    """One JSON value a line; a line that is no JSON becomes a warning."""

    def lines() -> Iterator[bytes]:
        if is_remote(location):
            yield from read_bytes(location, fetch_text).splitlines()
            return
        try:
            with Path(local_path(location)).open("rb") as file:
                yield from file
        except OSError as error:
            raise CollectionError.expected(
                location, "a readable file", error.strerror or error, "check the path"
            ) from None

    for number, line in enumerate(lines(), start=1):
        if not line.strip():
            continue
        try:
            yield parse_json(line, f"{location} line {number}")
        except CollectionError as error:
            warnings.append(f"left out {error.message}")


def _checked_bbox(bbox: object) -> Json:
    try:
        box = parse_bbox(list(bbox) if isinstance(bbox, tuple) else bbox)
    except ValueError as error:
        raise InputError.expected(
            "bbox", "[west, south, east, north]", error, "south <= north, in degrees"
        ) from None
    if (
        box is None
        or max(abs(box.ymin), abs(box.ymax)) > _LAT_LIMIT
        or (max(abs(box.xmin), abs(box.xmax)) > _LON_LIMIT)
    ):
        raise InputError.expected(
            "bbox", "degrees: longitudes to 180, latitudes to 90", bbox, "transform it to EPSG:4326"
        )
    return box


def _checked_geometry(value: object) -> Json:
    try:
        geometry = parse_geometry(value)
    except ValueError as error:
        raise InputError.expected(
            "intersects", "GeoJSON, WKT or WKB in degrees", error, "check the geometry"
        ) from None
    if geometry is None:
        raise InputError.expected("intersects", "a geometry", "an empty one", "leave it out")
    return geometry
