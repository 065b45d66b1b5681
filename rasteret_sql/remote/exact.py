"""URLs that must be sent letter by letter: signed for one object, or oddly encoded.

obstore encodes a path anew and binds a query string to a store, that is one new client and
one new connection for each signed URL. Here all of them share one pool of connections.
"""

from __future__ import annotations

import os
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from rasteret_sql.remote.config import StorageOptions
from rasteret_sql.remote.waiting import pause

_CONNECT_S = 5
_N_IDLE = 512
_N_HOSTS = 64
_N_REDIRECTS = 5
_SHORT_BODY_BYTES = 65536
_LONGEST_PAUSE_S = 5.0
_RETRIES_S = 60
_LONGEST_S = 300
_READ_BYTES = 1 << 18
_GOOD = frozenset({200, 206})
_BUSY = frozenset({429, 500, 502, 503, 504})
_REDIRECTED = frozenset({301, 302, 303, 307, 308})


class TransferError(Exception):
    """No bytes came; says why in a few words, without the URL.

    Attributes:
        status: what the server answered; None if it did not.
        is_cut: fewer bytes came than were promised.
    """

    def __init__(self, reason: str, *, status: int | None = None, is_cut: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.is_cut = is_cut


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes of an object.

    Attributes:
        data: what came of the range.
        size: length of the whole object, if the server says.
        etag: its version, if the server says.
    """

    data: bytes
    size: int | None
    etag: str | None


class ExactUrl:
    """One URL, sent as it stands.

    Args:
        url: gives the URL, signed late.
        options: headers, time limit, retries.
    """

    def __init__(self, url: Callable[[], str], options: StorageOptions) -> None:
        self._url = url
        self._options = options

    def get(self, start: int, length: int, *, whole_max_bytes: int) -> Answer:
        """Ask for a range; a server that sends the whole object may do so up to a limit.

        Raises:
            TransferError: no bytes, or a longer object than ``whole_max_bytes``.
        """
        asked = {"Range": f"bytes={start}-{start + length - 1}"}
        return self._tried("GET", asked, lambda r: _ranged(r, start, length, whole_max_bytes))

    def head(self) -> Answer:
        """Ask for size and ETag.

        Raises:
            TransferError: no answer, or not a good one.
        """
        return self._tried("HEAD", {}, lambda r: Answer(b"", _length(r), r.headers.get("ETag")))

    def _tried(
        self,
        method: str,
        asked: Mapping[str, str],
        read: Callable[[urllib3.BaseHTTPResponse], Answer],
    ) -> Answer:
        n_tries = self._options.retries + 1
        give_up_at = time.monotonic() + _RETRIES_S
        for n_failed in range(1, n_tries + 1):
            pause_s = random.uniform(0.5, 1) * 0.1 * 2**n_failed  # noqa: S311 - jitter
            try:
                response = self._send(method, asked)
                try:
                    if response.status in _GOOD:
                        return read(response)
                    fault = TransferError(f"HTTP {response.status}", status=response.status)
                    pause_s = max(pause_s, _retry_after_s(response))
                finally:
                    _give_back(response)
            except HTTPError as error:
                fault = TransferError(_reason(error))
            is_final = fault.status is not None and fault.status not in _BUSY
            if is_final or n_failed == n_tries or time.monotonic() > give_up_at:
                raise fault
            pause(min(pause_s, _LONGEST_PAUSE_S))
        raise AssertionError  # the last round returns or raises

    def _send(self, method: str, asked: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        url, auth = _without_user(self._url())
        own = auth | dict(self._options.headers or {})
        for _ in range(_N_REDIRECTS):
            response = _connections(url).request(
                method,
                url,
                headers={"User-Agent": "rasteret_sql", **own, **asked},
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=self._options.timeout_s),
            )
            target = response.headers.get("Location")
            if response.status not in _REDIRECTED or not target:
                return response
            _give_back(response)
            target = urljoin(url, target)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                own = {}  # keys for one host are not for another
            if url.startswith("https:") and not target.startswith("https:"):
                raise TransferError("a redirect from https to http")
            url = target
        raise TransferError("redirects without end")


def _give_back(response: urllib3.BaseHTTPResponse) -> None:
    """Keep the connection if little is left to read on it."""
    left = response.length_remaining
    if left is not None and left <= _SHORT_BODY_BYTES:
        response.drain_conn()
        response.release_conn()
    else:
        response.close()


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """Take ``user:password@`` out of a URL; urllib3 does not send it."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    headers = urllib3.make_headers(basic_auth=unquote(user))
    return parts._replace(netloc=host).geturl(), dict(headers)


def _ranged(
    response: urllib3.BaseHTTPResponse, start: int, length: int, whole_max_bytes: int
) -> Answer:
    etag = response.headers.get("ETag")
    size = _length(response)
    if response.status != 206:
        whole = _body(response, whole_max_bytes + 1) if (size or 0) <= whole_max_bytes else b""
        if not whole or len(whole) > whole_max_bytes:
            many = f"{size} bytes" if size else f"over {whole_max_bytes} bytes"
            raise TransferError(f"the whole file of {many} instead of a range")
        return Answer(whole[start : start + length], len(whole), etag)
    if size is None or size > length:
        raise TransferError("a longer range than was asked for")
    data = _body(response, size)
    total = _total(response)
    promised = length if total is None else min(length, total - start)
    if len(data) != promised:
        raise TransferError(f"bytes {start}-{start + len(data)}", is_cut=True)
    return Answer(data, total, etag)


def _body(response: urllib3.BaseHTTPResponse, most: int) -> bytes:
    """Up to so many bytes, unless they take too long in all."""
    parts, size = [], 0
    give_up_at = time.monotonic() + _LONGEST_S
    while size < most:
        part = response.read1(min(most - size, _READ_BYTES))
        if not part:
            break
        parts.append(part)
        size += len(part)
        if time.monotonic() > give_up_at:
            raise TransferError("no answer in time")
    return b"".join(parts)


def _length(response: urllib3.BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _total(response: urllib3.BaseHTTPResponse) -> int | None:
    text = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(text) if text.isdigit() else None


def _retry_after_s(response: urllib3.BaseHTTPResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _reason(error: HTTPError) -> str:
    if isinstance(error, NewConnectionError):
        return "no connection"
    if isinstance(error, PoolTimeoutError):
        return "no answer in time"
    if "SSL" in type(error).__name__:
        return "a certificate that is not trusted"
    return "a closed connection"


_pools: dict[str | None, urllib3.PoolManager] = {}
_lock = threading.Lock()


def _connections(url: str) -> urllib3.PoolManager:
    """Return the pool of the process for direct connections, or for the proxy in force."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and urllib.request.proxy_bypass(parts.hostname or ""):
        proxy = None
    with _lock:
        if proxy not in _pools:
            _pools[proxy] = (
                urllib3.ProxyManager(proxy, num_pools=_N_HOSTS, maxsize=_N_IDLE)
                if proxy
                else urllib3.PoolManager(num_pools=_N_HOSTS, maxsize=_N_IDLE)
            )
        return _pools[proxy]


def _start_over() -> None:
    global _lock  # the parent may have held it
    _lock = threading.Lock()
    _pools.clear()  # a connection must not be used by two processes


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
