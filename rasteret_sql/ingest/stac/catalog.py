"""Static STAC catalogs: walk the links from a root document down to the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from rasteret_sql.collections.hrefs import resolve_link
from rasteret_sql.errors import (
    CollectionError,
    InputError,
    InterruptedReadError,
    RasteretError,
    redact,
    shorten,
)
from rasteret_sql.ingest.stac.documents import (
    FetchText,
    Item,
    Json,
    features,
    item_fault,
    kind_of,
    links,
    normalize_item,
    read_document,
)
from rasteret_sql.remote.lanes import Lanes, lanes
from rasteret_sql.remote.stores import is_remote
from rasteret_sql.remote.waiting import result_of

_N_FETCHERS = 32
_N_AHEAD = 256


class _Pending(NamedTuple):
    """A linked document, and what it takes over from the collection that links it."""

    location: str
    collection: str | None
    commons: dict[str, Any]


def _cancel(queue: Iterable[tuple[_Pending, Future[Any] | None]]) -> None:
    for _, future in queue:
        if future is not None:
            future.cancel()


class CatalogWalk:
    """All items below a catalog, collection, or file of items; each document once.

    A linked document that can't be used becomes a warning.

    Args:
        fetch_text: reads remote documents, several at a time.
        collection: only items of this collection; others are not fetched where their
            parent says that it is another collection.
        warnings: gets a line for each document and item that was left out.
    """

    def __init__(
        self, fetch_text: FetchText | None, collection: str | None, warnings: list[str]
    ) -> None:
        self._fetch_text = fetch_text
        self._collection = collection
        self._warnings = warnings
        self._seen: set[str] = set()
        self._collections: dict[str, None] = {}

    def items(self, root: str, document: object) -> Iterator[Item]:
        """Items in link order, depth first.

        Raises:
            CollectionError: if the root is no STAC document.
            InputError: if `collection` is nowhere.
            RasteretError: of the first unreadable document, if there are no items at all.
        """
        if kind_of(document) == "other":
            is_list = isinstance(document, dict) and isinstance(document.get("collections"), list)
            raise CollectionError.expected(
                redact(root),
                "a STAC catalog, collection or item",
                "a list of collections" if is_list else "other JSON",
                "name one of them, or the API" if is_list else "check the address",
            )
        self._seen.add(root)
        n_found = 0
        self._fault: RasteretError | None = None
        for item in self._descend(_Pending(root, None, {}), document, lanes(_N_FETCHERS)):
            n_found += 1
            yield item
        wanted = self._collection
        if not n_found and wanted is not None and wanted not in self._collections:
            raise InputError.expected(
                "collection",
                f"one of {', '.join(self._collections) or 'none'}",
                wanted,
                "check the id",
            )
        if not n_found and self._fault is not None:
            raise self._fault
        if not n_found and kind_of(document) in {"catalog", "collection"}:
            self._warn(root, "links no item that can be read")

    def _descend(self, at: _Pending, document: object, pool: Lanes) -> Iterator[Item]:
        """Depth first without recursion: a catalog may nest as deep as it likes."""
        stack = [self._enter(at, document, pool)]
        while stack:
            for found in stack[-1]:
                if isinstance(found, dict):
                    yield found
                else:
                    stack.append(found)
                    break
            else:
                stack.pop()

    def _enter(
        self,
        at: _Pending,
        document: Json,
        pool: Lanes,
    ) -> Iterator[Item | Iterator[Any]]:
        kind = kind_of(document)
        if kind == "item":
            yield from self._accept([document], at, is_whole_document=True)
        elif kind == "items":
            yield from self._accept(features(document, at.location), at, is_whole_document=False)
            further = self._next_pages(document, at.location)
            pages = self._unseen(further, at.location, at.collection, at.commons)
            for pending, page in self._read_all(pages, pool):
                yield self._enter(pending, page, pool)
        elif kind == "other":
            self._warn(at.location, "no STAC document, left out")
        else:
            inner = self._inherit(at, document, is_collection=kind == "collection")
            for pending, child in self._read_all(inner, pool):
                yield self._enter(pending, child, pool)

    def _next_pages(self, document: Json, location: str) -> Iterator[dict[str, Any]]:
        for link in links(document, "next") if isinstance(document, dict) else ():
            if str(link.get("method", "GET")).upper() == "GET":
                yield link
            else:
                self._warn(location, "the next page is not read; search the API instead")

    def _inherit(
        self, at: _Pending, document: dict[str, Any], *, is_collection: bool
    ) -> Iterator[_Pending]:
        collection, commons = at.collection, at.commons
        if is_collection:
            collection = str(document.get("id"))
            self._collections[collection] = None
            # STAC 0.6 to 0.9: properties of a collection hold for each of its items
            shared = document.get("properties")
            commons = {**commons, **shared} if isinstance(shared, dict) else commons
        is_wanted = self._collection in {None, collection} or collection is None
        rels = ("child", "item", "items") if is_wanted else ("child",)
        return self._unseen(links(document, *rels), at.location, collection, commons)

    def _unseen(
        self,
        found: Iterable[dict[str, Any]],
        base: str,
        collection: str | None,
        commons: dict[str, Any],
    ) -> Iterator[_Pending]:
        for link in found:
            location = resolve_link(link["href"].strip(), base)
            if location is None:
                self._warn(base, f"links a local file ({shorten(link['href'])}), left out")
            elif location not in self._seen:
                self._seen.add(location)
                yield _Pending(location, collection, commons)

    def _read_all(self, pending: Iterable[_Pending], pool: Lanes) -> Iterator[tuple[_Pending, Any]]:
        """Documents in order; remote ones are fetched ahead, local ones when needed."""
        queue: deque[tuple[_Pending, Future[Any] | None]] = deque()
        pending = iter(pending)
        is_done = False
        while True:
            while not is_done and len(queue) < _N_AHEAD:
                one = next(pending, None)
                if one is None:
                    is_done = True
                    break
                ahead = is_remote(one.location)
                queue.append((one, pool.submit(self._read, one.location) if ahead else None))
            if not queue:
                return
            one, future = queue.popleft()
            try:
                yield one, result_of(future, pool) if future else self._read(one.location)
            except InterruptedReadError:
                _cancel(queue)
                raise
            except RasteretError as error:
                self._fault = self._fault or error
                self._warnings.append(f"left out {error.message}")

    def _read(self, location: str) -> Json:
        return read_document(location, self._fetch_text)

    def _accept(self, items: list[Any], at: _Pending, *, is_whole_document: bool) -> Iterator[Item]:
        for number, item in enumerate(items):
            fault = item_fault(item)
            if fault is not None:
                where = "" if is_whole_document else f"item {number}: "
                self._warn(at.location, f"{where}{fault}, left out")
                continue
            if at.collection is not None and not item.get("collection"):
                item["collection"] = at.collection
            if at.commons:
                item["properties"] = {**at.commons, **(item.get("properties") or {})}
            yield normalize_item(item, at.location, is_whole_document=is_whole_document)

    def _warn(self, location: str, text: str) -> None:
        self._warnings.append(f"{redact(location)}: {text}")
