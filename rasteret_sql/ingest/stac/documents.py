"""STAC documents as JSON: read, told apart, and made into items that stand alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rasteret_sql.collections.hrefs import local_path, resolve
from rasteret_sql.errors import CollectionError, redact
from rasteret_sql.remote.stores import is_remote

Json = Any
"""Any JSON value."""

Item = dict[str, Any]
"""A STAC item as JSON; `LOCATION` says where it was read, its geometry may be WKB bytes."""

COLUMN_TYPES = "rasteret:column_types"
"""Of an item: property to Arrow type, where the file it comes from has columns of them."""

FetchText = Callable[[str], bytes]
"""Reads a whole remote document."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_OF_ITEMS = {"geometry", "properties", "assets"}
LOCATION = "rasteret:location"
GEOMETRY_CRS = "rasteret:geometry_crs"
"""Of an item: the CRS of its geometry, where the file it comes from names one."""


def read_bytes(location: str, fetch_text: FetchText | None) -> bytes:
    """The bytes of a local or remote document.

    Raises:
        CollectionError: if a local file can't be read or nothing can read remote ones.
    """
    if is_remote(location):
        if fetch_text is None:
            raise CollectionError.expected(
                redact(location), "a way to read remote documents", "none", "give fetch_text"
            )
        return fetch_text(location)
    try:
        return Path(local_path(location)).read_bytes()
    except OSError as error:
        raise CollectionError.expected(
            location, "a readable file", error.strerror or error, "check the path"
        ) from None


def parse_json(data: bytes, location: str) -> Json:
    """The JSON of a document; newline-delimited JSON becomes a list.

    Raises:
        CollectionError: if it is not JSON; names the document and the place.
    """
    try:
        text = data.decode("utf-8-sig")
        return _loads(text)
    except UnicodeDecodeError as error:
        fault = f"a byte that is not UTF-8 at {error.start}"
    except RecursionError:
        fault = "JSON nested too deeply"
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and (values := _json_lines(text)) is not None:
            return values
        fault = _describe(error, text)
    except ValueError:
        fault = "a number of thousands of digits"
    raise CollectionError.expected(redact(location), "JSON", fault, "check the document")


def _json_lines(text: str) -> list[Any] | None:
    try:
        return [_loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None


def _loads(text: str) -> Json:
    r"""JSON values; half of a surrogate pair (``\ud800``), which is no text, becomes ``?``."""
    value = json.loads(text)
    return _whole_text(value) if _SURROGATE.search(text) else value


def _whole_text(value: Json) -> Json:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_whole_text(inner) for inner in value]
    if isinstance(value, dict):
        return {_whole_text(name): _whole_text(inner) for name, inner in value.items()}
    return value


def _describe(error: json.JSONDecodeError, text: str) -> str:
    if not text.strip():
        return "an empty document"
    if text.lstrip()[:1] == "<":
        return "an HTML or XML page"
    return f"{error.msg} at line {error.lineno}, column {error.colno}"


def read_document(location: str, fetch_text: FetchText | None) -> Json:
    """`read_bytes` and `parse_json` in one."""
    return parse_json(read_bytes(location, fetch_text), location)


def kind_of(document: object) -> str:
    """What a document is: 'item', 'items', 'catalog', 'collection', 'api' or 'other'.

    Catalogs and collections before STAC 1.0 have no type, nor have items as pgstac keeps
    them; a list is 'items'.

    Example:
        >>> kind_of({"id": "a", "extent": {}, "links": []})
        'collection'
    """
    if isinstance(document, list):
        return "items"
    if not isinstance(document, dict):
        return "other"
    kind = document.get("type")
    if kind in {"FeatureCollection", "ItemCollection"} or isinstance(
        document.get("features"), list
    ):
        return "items"
    if kind == "Feature" or (kind is None and document.keys() >= _OF_ITEMS):
        return "item"
    if "conformsTo" in document or any(link.get("rel") == "search" for link in links(document)):
        return "api"
    if kind == "Collection" or ("extent" in document and "id" in document):
        return "collection"
    if kind == "Catalog" or ("id" in document and isinstance(document.get("links"), list)):
        return "catalog"
    return "other"


def links(document: dict[str, Any], *rels: str) -> Iterator[dict[str, Any]]:
    """Links of a document that have an href and one of these relations (none: any)."""
    found = document.get("links")
    for link in found if isinstance(found, list) else []:
        is_link = isinstance(link, dict) and isinstance(link.get("href"), str)
        if is_link and (not rels or link.get("rel") in rels):
            yield link


def features(document: object, location: str) -> list[Any]:
    """The members of a list or FeatureCollection, or of a list of them; items unchecked.

    Raises:
        CollectionError: if the document has no features.
    """
    if isinstance(document, list):
        return [inner for part in document for inner in _members(part)]
    if isinstance(document, dict) and isinstance(document.get("features"), list):
        return list(document["features"])
    raise CollectionError.expected(
        redact(location),
        "a FeatureCollection with a list of features",
        "none",
        "check the document",
    )


def _members(part: object) -> list[Any]:
    if isinstance(part, dict) and isinstance(part.get("features"), list):
        return list(part["features"])
    return [part]


def item_fault(item: object) -> str | None:
    """Why a JSON value can't be used as an item; None if it can.

    Example:
        >>> item_fault({"type": "Feature", "id": "", "assets": {}})
        'an empty id'
    """
    if not isinstance(item, dict):
        return f"{type(item).__name__} instead of an object"
    is_bare = "type" not in item and "assets" not in item and kind_of(item) == "collection"
    if is_bare or item.get("type") in {"Catalog", "Collection"}:
        return f"a {item.get('type', 'Collection')} instead of an item"
    if item.get("type", "Feature") != "Feature":
        return f"type {item['type']!r}"
    name = item.get("id")
    if not isinstance(name, str | int) or isinstance(name, bool):
        return "no id"
    if name == "":
        return "an empty id"
    for field in ("properties", "assets"):
        if not isinstance(item.get(field), dict | None):
            return f"{field} that are not an object"
    if not isinstance(item.get("assets"), dict):
        return (
            "tiled asset templates instead of assets" if "asset_templates" in item else "no assets"
        )
    return None


def normalize_item(item: Item, location: str, *, is_whole_document: bool) -> Item:
    """Complete a sound item in place: where it is from, text id, absolute asset hrefs.

    Relative hrefs start at the document if that is the item alone, else at the item's own
    `self` link if it has an absolute one.
    """
    base = location
    if not is_whole_document:
        own = (link["href"] for link in links(item, "self"))
        base = next((href for href in own if is_remote(href) or href.startswith("/")), location)
    item["id"] = str(item["id"])
    item["properties"] = item.get("properties") or {}
    item[LOCATION] = location
    for asset in item["assets"].values():
        _normalize_asset(asset, base)
    return item


def _normalize_asset(asset: object, base: str) -> None:
    if not isinstance(asset, dict):
        return
    if isinstance(asset.get("href"), str):
        asset["href"] = resolve(asset["href"].strip(), base)
    alternates = asset.get("alternate")
    for alternate in alternates.values() if isinstance(alternates, dict) else ():
        _normalize_asset(alternate, base)
