"""STAC APIs: one search, all of its pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from rasteret_sql.collections.footprints import split_at_antimeridian
from rasteret_sql.errors import (
    AccessDeniedError,
    CollectionError,
    InputError,
    NotFoundError,
    RasteretError,
    ReadError,
    redact,
)
from rasteret_sql.ingest.stac.documents import (
    Item,
    Json,
    item_fault,
    links,
    normalize_item,
    parse_json,
)
from rasteret_sql.ingest.stac.item_filter import ItemFilter
from rasteret_sql.remote.stores import web_address
from rasteret_sql.remote.waiting import within

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

PAGE_ITEMS = 200
_SMALL_PAGE_ITEMS = 20
_N_RETRIES = 5
_TIMEOUT_SECONDS = 60.0
_LONGEST_SECONDS = 600.0
_MAX_WAIT_SECONDS = 60.0
_N_BODIES = 3
_RETRIED = (408, 429, 500, 502, 503, 504)
_TOO_LARGE = {400, 413, 422, 500, 502, 504}


class StacApi:
    """A STAC API by the address of its landing page.

    Args:
        url: of the landing page.
        warnings: gets a line for what the server could not do or left out.
        landing_page: the document there, if it has been read.
    """

    def __init__(
        self, url: str, warnings: list[str], landing_page: dict[str, Any] | None = None
    ) -> None:
        # half a second, which only a search should cost
        from pystac_client.stac_api_io import StacApiIO
        from urllib3.util import Retry

        self._url = url
        self._warnings = warnings

        class PatientRetry(Retry):
            """Waits as long as the server says, but not for ever."""

            def get_retry_after(self, response: Any) -> float | None:  # noqa: ANN401
                seconds = super().get_retry_after(response)
                if seconds is None or seconds <= _MAX_WAIT_SECONDS:
                    return seconds
                asked = response.headers.get("Retry-After")
                line = f"{redact(url)}: asks to wait {asked}; waited {_MAX_WAIT_SECONDS:g} s"
                if line not in warnings:
                    warnings.append(line)
                return _MAX_WAIT_SECONDS

        retry = PatientRetry(
            total=_N_RETRIES,
            backoff_factor=0.5,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            respect_retry_after_header=True,
            raise_on_status=False,
        )
        self._io: StacApiIO = StacApiIO(max_retries=retry, timeout=_TIMEOUT_SECONDS)
        self._root = landing_page

    def landing_page(self) -> dict[str, Any]:
        """The document at the address, {} if it is none; fetched once."""
        if self._root is None:
            page = self._request(self._url, "GET", None)
            self._root = page if isinstance(page, dict) else {}
        return self._root

    def items(
        self, wanted: ItemFilter, *, cql2: object = None, max_items: int | None = None
    ) -> Iterator[Item]:
        """Items that match, in the order of the server, each checked and complete.

        Args:
            wanted: the search.
            cql2: CQL2 text or JSON for the server to evaluate too.
            max_items: stop after this many.
        """
        parts = [None] if wanted.bbox is None else split_at_antimeridian(wanted.bbox)
        given: set[int] = set()
        n_given = 0
        for bbox in parts:
            for item in self._search(replace(wanted, bbox=bbox), cql2, max_items):
                key = (item.get("collection"), item["id"])
                if max_items is not None and n_given >= max_items:
                    return
                if hash(key) in given:  # of both halves, or repeated by a next page
                    continue
                given.add(hash(key))
                n_given += 1
                yield item

    def _search(self, wanted: ItemFilter, cql2: object, max_items: int | None) -> Iterator[Item]:
        # servers read CQL2 text from an address, CQL2 JSON from a body
        is_text = _cql2_parts(cql2)[1] == "cql2-text"
        url, method = self._search_link(("GET", "POST") if is_text else ("POST", "GET"))
        local = self._unsupported(wanted, cql2)
        if local is not None:
            wanted = replace(wanted, query=None)
        n_seen = 0
        matched: int | None = None
        for page, location in self._pages(url, method, wanted, cql2, max_items):
            matched = _matched(page) if matched is None else matched
            for item in page["features"]:
                n_seen += 1
                fault = item_fault(item)
                if fault is not None:
                    self._warnings.append(f"{redact(url)}: item {n_seen - 1}: {fault}, left out")
                    continue
                normalize_item(item, location, is_whole_document=False)
                if local is None or local.accepts(item):
                    yield item
        if matched is not None and n_seen < matched:
            self._warnings.append(
                f"{redact(url)}: the server counts {matched} items for the search but gave {n_seen}"
            )

    def _search_link(self, methods: tuple[str, str]) -> tuple[str, str]:
        """Address and method of the search: the first of these methods that is offered.

        An OpenSearch description and a page for people have the same relation, not the type.
        """
        offered = {
            str(link.get("method", "GET")).upper(): urljoin(self._url, link["href"])
            for link in links(self.landing_page(), "search")
            if "json" in str(link.get("type") or "json").lower()
        }
        for method in methods:
            if method in offered:
                return offered[method], method
        raise CollectionError.expected(
            redact(self._url),
            "a STAC API with item search",
            "a landing page without a search link",
            "set static_catalog := true for a static catalog",
        )

    def _unsupported(self, wanted: ItemFilter, cql2: object) -> ItemFilter | None:
        """The conditions that the server says it does not know, to be tested here."""
        declared = self.landing_page().get("conformsTo")
        classes = [str(one).lower() for one in declared] if isinstance(declared, list) else []
        if not classes:
            return None
        if cql2 is not None and not any("filter" in one for one in classes):
            raise InputError.expected(
                "filter", "a server with the filter extension", redact(self._url), "use query"
            )
        if wanted.query is None or any(one.endswith("#query") for one in classes):
            return None
        return ItemFilter(query=wanted.query)

    def _pages(
        self,
        url: str,
        method: str,
        wanted: ItemFilter,
        cql2: object,
        max_items: int | None,
    ) -> Iterator[tuple[dict[str, Any], str]]:
        limit = PAGE_ITEMS if max_items is None else max(1, min(PAGE_ITEMS, max_items))
        try:
            page = self._request(url, method, _parameters(url, method, wanted, cql2, limit))
        except _HttpError as error:
            if error.status not in _TOO_LARGE or limit <= _SMALL_PAGE_ITEMS:
                raise
            limit = _SMALL_PAGE_ITEMS
            page = self._request(url, method, _parameters(url, method, wanted, cql2, limit))
        location = url
        asked: set[str] = set()
        while True:
            if not isinstance(page, dict) or not isinstance(page.get("features"), list):
                raise CollectionError.expected(
                    redact(location),
                    "a page of items",
                    "other JSON",
                    "check the address of the API",
                )
            yield page, location
            link = next(links(page, "next"), None)
            if link is None:
                return
            location = urljoin(location, link["href"])
            method = str(link.get("method", "GET")).upper()
            given = link.get("body")
            body = given if isinstance(given, dict) else None
            if method == "POST" and link.get("merge"):
                first = _parameters(url, method, wanted, cql2, limit)
                body = {**first, **(body or {})}
            request = json.dumps([location, method, body], sort_keys=True)
            if request in asked:
                raise CollectionError.expected(
                    redact(location),
                    "pages that end",
                    "the same page again",
                    "report it to the server",
                )
            asked.add(request)
            page = self._request(location, method, body if method == "POST" else None)

    def _request(self, url: str, method: str, parameters: dict[str, Any] | None) -> Json:
        """The JSON of an answer; one whose body is cut short is asked for again."""
        for n_left in reversed(range(_N_BODIES)):
            try:
                return self._request_once(url, method, parameters)
            except _HttpError:
                raise
            except (_CutError, CollectionError):
                if not n_left:
                    raise
        raise AssertionError

    def _request_once(self, url: str, method: str, parameters: dict[str, Any] | None) -> Json:
        from pystac_client.exceptions import APIError

        target, options = web_address(url)
        headers = dict(options.headers or {})
        try:
            text = within(
                _LONGEST_SECONDS,
                self._io.request,
                target,
                method,
                headers=headers,
                parameters=parameters,
            )
        except TimeoutError:
            minutes = f"none within {_LONGEST_SECONDS // 60:g} minutes"
            raise ReadError.expected(redact(url), "an answer", minutes, "try again") from None
        except APIError as error:
            raise _of_api_error(url, error, getattr(error, "status_code", None)) from None
        return parse_json(text.encode(), url)


class _CutError(ReadError):
    """An answer that ended before its end."""


class _HttpError(CollectionError):
    """An HTTP status that the search may recover from."""

    status: int = 0


def _of_api_error(url: str, error: Exception, status: int | None) -> RasteretError:
    text = str(error) or "no reason given"
    if status in {401, 403}:
        return AccessDeniedError.expected(
            redact(url), "access", f"HTTP {status}", "give headers with rasteret_sql.storage(...)"
        )
    if status == 404:
        return NotFoundError.expected(
            redact(url), "a STAC API", "HTTP 404", "check the address and the collection"
        )
    if status is None:
        kind = _CutError if "IncompleteRead" in text or "prematurely" in text else ReadError
        return kind.expected(redact(url), "an answer", _reason(text), "check the address")
    refused = _HttpError.expected(
        redact(url), "items", f"HTTP {status}: {_reason(text)}", "check the search"
    )
    refused.status = status
    return refused


def _reason(text: str) -> str:
    """What the server says, without the URLs in it."""
    return " ".join(redact(word) for word in text.split())


def _parameters(
    url: str, method: str, wanted: ItemFilter, cql2: object, limit: int
) -> dict[str, Any]:
    """The parameters of a search as pystac-client forms them."""
    from pystac_client.item_search import ItemSearch

    text, language = _cql2_parts(cql2)
    search = ItemSearch(
        url,
        method=method,
        limit=limit,
        collections=None if wanted.collection is None else [wanted.collection],
        ids=None if wanted.ids is None else sorted(wanted.ids),
        bbox=None if wanted.bbox is None else list(wanted.bbox),
        intersects=None if wanted.intersects is None else wanted.intersects.__geo_interface__,
        query=None if wanted.query is None else {**wanted.query},
        filter=text,
        filter_lang=language,
    )
    parameters: dict[str, Any] = search.get_parameters()
    if wanted.instants is not None:
        parameters["datetime"] = wanted.instants.rfc3339()
    return parameters


def _cql2_parts(cql2: object) -> tuple[Any, str | None]:
    if cql2 is None:
        return None, None
    if isinstance(cql2, dict):
        return cql2, "cql2-json"
    text = str(cql2)
    if not text.lstrip().startswith("{"):
        return text, "cql2-text"
    try:
        return json.loads(text), "cql2-json"
    except json.JSONDecodeError as error:
        raise InputError.expected("filter", "CQL2 text or JSON", error, "check it") from None


def _matched(page: dict[str, Any]) -> int | None:
    context = page.get("context")
    found = page.get("numberMatched")
    if found is None and isinstance(context, dict):
        found = context.get("matched")
    return found if isinstance(found, int) else None
