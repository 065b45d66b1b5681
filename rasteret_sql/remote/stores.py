"""From an href to where its bytes lie: a path on disk, or a store and a key in it."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from obstore.store import HTTPStore

from rasteret_sql.errors import InputError, redact

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_N_IDLE = 512
_N_STORES = 256
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LEGAL = "/%!$&'()*+,;=:@~-._"
# obstore takes a decoded key and encodes it anew; only these paths come out as they went in.
_STABLE_PATH = re.compile(
    r"(?:/(?:[A-Za-z0-9!$&'()*+,;=:@~_.-]|%(?:2[0235]|3[CEF]|60|7[BD]|[89A-F][0-9A-F]))+)+"
)


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of an href lie.

    Attributes:
        href: the address for messages, without user, password, query and fragment.
        path: the key within the store, or the absolute path of a local file.
        store: None for a local file.
    """

    href: str
    path: str
    store: ObjectStore | None = field(repr=False)


def is_remote(href: str) -> bool:
    """Whether the bytes come over a network.

    Example:
        >>> is_remote("s3://bucket/a.tif"), is_remote("file:///a.tif"), is_remote("C:/a.tif")
        (True, False, False)
    """
    return bool(_SCHEME.match(href)) and not href[:7].lower().startswith("file://")


def is_local(href: str) -> bool:
    """Whether the href is a path or a ``file://`` URL of this machine."""
    return not is_remote(href)


def rewrite(href: str, mapping: Mapping[str, str]) -> str:
    """Replace the longest prefix of the href that the mapping names.

    Example:
        >>> rewrite("https://a.org/data/x.tif", {"https://a.org/": "s3://b/"})
        's3://b/data/x.tif'
    """
    for prefix in sorted(mapping, key=len, reverse=True):
        if prefix and href.startswith(prefix):
            return mapping[prefix] + href[len(prefix) :]
    return href


def locate(href: str) -> Location:
    """Find the store and the key of an href; stores are made once and shared.

    Args:
        href: a path (relative ones start at the working directory), or a ``file://``,
            ``http://`` or ``https://`` URL.

    Raises:
        InputError: if the scheme is none of these.
    """
    if is_local(href):
        return Location(href=href, path=_local_path(href), store=None)
    scheme = href.split("://", 1)[0].lower()
    if scheme in {"http", "https"}:
        return _locate_http(href)
    raise InputError.expected(
        redact(href), "a path, file://, http:// or https://", f"{scheme}://", "check the href"
    )


def _local_path(href: str) -> str:
    if href[:7].lower() == "file://":
        # file://localhost/a and file:///a name the same file
        return unquote(urlsplit(href).path)
    return str(Path(href).absolute())


def _locate_http(href: str) -> Location:
    parts = urlsplit(href)
    origin = f"{parts.scheme}://{parts.netloc}"
    path = quote(parts.path, safe=_LEGAL)
    query = f"?{parts.query}" if parts.query else ""
    if _STABLE_PATH.fullmatch(path) and not {".", ".."} & set(path.split("/")):
        return Location(redact(href), unquote(path)[1:], _http_store(origin + query))
    return Location(redact(href), "", _http_store(origin + path + query))


_stores: OrderedDict[str, HTTPStore] = OrderedDict()
_lock = threading.Lock()


def _http_store(base: str) -> HTTPStore:
    with _lock:
        store = _stores.get(base)
        if store is None:
            store = _stores[base] = HTTPStore.from_url(
                base, client_options=_client_options(), retry_config=_retry_config()
            )
            while len(_stores) > _N_STORES:
                _stores.popitem(last=False)
        else:
            _stores.move_to_end(base)
        return store


def _client_options() -> ClientConfig:
    return {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=30),
        "pool_max_idle_per_host": str(_N_IDLE),
        "user_agent": "rasteret_sql",
    }


def _retry_config() -> RetryConfig:
    return {
        "max_retries": 4,
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
        "retry_timeout": timedelta(seconds=60),
    }
