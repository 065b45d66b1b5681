"""HTTP for one person: on this machine, with a token, for the page that it sends itself."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from rasteret_sql.errors import (
    InputError,
    InterruptedReadError,
    NotFoundError,
    RasteretError,
    ReadError,
)
from rasteret_sql.maps.app import JSON, Answer, App
from rasteret_sql.secrets import redact_words

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_MAX_BODY: Final = 1 << 20
_IDLE_SECONDS: Final = 60
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": JSON,
}
_SAFE: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Attributes:
        parts: Of the path, as the route's pattern names them.
        query: Parameters.
        body: What came with it.
        known: Tag of the answer that the client has.
        is_wanted: Whether the client is still there.
    """

    parts: Mapping[str, str]
    query: Mapping[str, str]
    body: str
    known: str
    is_wanted: Callable[[], bool]


def asset(name: str) -> Answer:
    """A file of the page.

    Raises:
        NotFoundError: there is none of that name.
    """
    suffix = "." + name.rsplit(".", 1)[-1]
    found = files("rasteret_sql.maps").joinpath("page", *name.split("/"))
    if suffix not in _KINDS or not found.is_file():
        raise NotFoundError.expected("address", "a file of the page", name, "check it")
    return Answer(found.read_bytes(), _KINDS[suffix])


def _page(_app: App, _asked: Request) -> Answer:
    return asset("index.html")


def _file(_app: App, asked: Request) -> Answer:
    return asset(asked.parts["file"])


def _tile(app: App, asked: Request) -> Answer:
    z, x, y = (int(asked.parts[name]) for name in "zxy")
    return app.tile(asked.parts["name"], (z, x, y), asked.query, asked.is_wanted, asked.known)


def _tile_sql(app: App, asked: Request) -> Answer:
    z, x, y = (int(asked.parts[name]) for name in "zxy")
    return app.tile_sql(asked.parts["name"], (z, x, y), asked.query)


def _picture(app: App, asked: Request) -> Answer:
    return app.picture(asked.parts["name"], asked.parts["id"], asked.query, asked.is_wanted)


def _collections(app: App, _asked: Request) -> Answer:
    return app.collections()


def _collection(app: App, asked: Request) -> Answer:
    return app.collection(asked.parts["name"])


def _scenes(app: App, asked: Request) -> Answer:
    return app.scenes(asked.parts["name"], asked.query)


def _scene(app: App, asked: Request) -> Answer:
    return app.scene(asked.parts["name"], asked.parts["id"])


def _stretch(app: App, asked: Request) -> Answer:
    return app.stretch(asked.parts["name"], asked.query, asked.is_wanted)


def _point(app: App, asked: Request) -> Answer:
    return app.point(asked.parts["name"], asked.query, asked.is_wanted)


def _zone(app: App, asked: Request) -> Answer:
    return app.zone(asked.parts["name"], asked.query, asked.body, asked.is_wanted)


_NAME = "(?P<name>[^/]+)"
_PLACE = r"(?P<z>\d{1,2})/(?P<x>\d{1,9})/(?P<y>\d{1,9})"
_ROUTES: Final = tuple(
    (method, re.compile(pattern, re.ASCII), answer)
    for method, pattern, answer in (
        ("GET", "/", _page),
        ("GET", r"/static/(?P<file>(?:vendor/)?[\w.-]+)", _file),
        ("GET", rf"/tiles/{_NAME}/{_PLACE}\.png", _tile),
        ("GET", rf"/tiles/{_NAME}/{_PLACE}\.sql", _tile_sql),
        ("GET", rf"/pictures/{_NAME}/(?P<id>[^/]+)\.png", _picture),
        ("GET", "/api/collections", _collections),
        ("GET", rf"/api/collections/{_NAME}", _collection),
        ("GET", rf"/api/collections/{_NAME}/scenes", _scenes),
        ("GET", rf"/api/collections/{_NAME}/scenes/(?P<id>[^/]+)", _scene),
        ("GET", rf"/api/collections/{_NAME}/stretch", _stretch),
        ("GET", rf"/api/collections/{_NAME}/point", _point),
        ("POST", rf"/api/collections/{_NAME}/zone", _zone),
    )
)
"""What answers which address."""


class MapServer(ThreadingHTTPServer):
    """Serves the page and its data.

    Args:
        app: Gives the answers.
        host: Address to listen on.
        port: 0 for any that is free.
        tokens: One of them a client must show; without any nothing is asked for.
        is_public: Listen for other machines too: names of theirs for this one are let in.

    Raises:
        InputError: the port is taken, or there is no such host.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, app: App, host: str, port: int, *, tokens: Sequence[str], is_public: bool
    ) -> None:
        self.app, self.tokens = app, tuple(tokens)
        self._names = {*LOCAL_NAMES, host.lower()}
        self._is_public = is_public
        self._answering: dict[threading.Thread, socket.socket] = {}
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            got = error.strerror or str(error)
            raise InputError.expected(
                "port", f"a free one of {host}, not {port}", got, "choose another"
            ) from error

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer a client, in a thread of its own; `end_answers` knows of it."""
        thread = threading.current_thread()
        self._answering[thread] = request
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._answering.pop(thread, None)

    def end_answers(self, seconds: float = 10) -> None:
        """Take no more requests of clients that are there, and wait for their threads.

        The interpreter must not end while one of them is inside DuckDB.
        """
        deadline = time.monotonic() + seconds
        for thread, request in list(self._answering.items()):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RD)
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token; browsers share cookies between ports."""
        return f"rasteret_map_{self.port}"

    def is_own_name(self, host: str) -> bool:
        """Whether a client that asks for this host means this server.

        A page of another site may lead its own name to this machine (DNS rebinding). It can't
        do that with an address, nor with the name localhost.
        """
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._names:
            return True
        if not self._is_public:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == socket.gethostname().lower()
        return True

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Say in a line what went wrong, unless the client has gone."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"map: {_line(error)}", file=sys.stderr, flush=True)  # noqa: T201


class _Refusal(Exception):  # noqa: N818 (an answer, no fault of ours)
    """An answer other than 200.

    Args:
        status: HTTP status.
        message: For the user.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """A connection of a client."""

    server: MapServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    wbufsize = -1
    disable_nagle_algorithm = True
    server_version = "rasteret-sql"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer GET."""
        self._answer("GET")

    def do_HEAD(self) -> None:
        """Answer HEAD as GET, without the body."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer POST."""
        self._answer("POST")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Write no log: addresses hold the token."""

    def _answer(self, method: str) -> None:
        try:
            body = self._body() if method == "POST" else ""
            path, query = self._request()
            if path == "/" and "token" in query and self.server.tokens:
                self._send(
                    HTTPStatus.SEE_OTHER,
                    b"",
                    "text/plain",
                    {"Location": "/"} | self._cookie(query["token"]),
                )
                return
            answer = self._route(method, path, query, body)
        except _Refusal as refusal:
            self._fail(refusal.status, str(refusal))
        except RasteretError as error:
            if isinstance(error, InterruptedReadError) and not self._is_there():
                self.close_connection = True
                return
            self._fail(_status_of(error), error.message)
        except ConnectionError:
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 (the server goes on)
            print(f"map: {_line(error)}", file=sys.stderr, flush=True)  # noqa: T201
            name = type(error).__name__
            self._fail(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"map: expected an answer, got {name}; the terminal of the server says more",
            )
        else:
            kept = {"Cache-Control": "no-store"}
            if answer.tag is not None:
                kept = {"Cache-Control": "private, no-cache", "ETag": f'"{answer.tag}"'}
            status = HTTPStatus.NOT_MODIFIED if answer.is_known else HTTPStatus.OK
            self._send(status, answer.body, answer.kind, kept)

    def _request(self) -> tuple[str, dict[str, str]]:
        """Path and query, of a client that may ask.

        Raises:
            _Refusal: it may not.
        """
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.is_own_name(hosts[0]):
            raise _Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                "host: expected localhost or 127.0.0.1, got another name; use the address that "
                "was printed",
            )
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        is_page = parts.path == "/" and self.headers.get("Sec-Fetch-Mode") == "navigate"
        if (
            self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
            and not is_page
        ):
            raise _Refusal(HTTPStatus.FORBIDDEN, "request: expected the map's page, got another")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != hosts[0].lower():
            raise _Refusal(HTTPStatus.FORBIDDEN, "origin: expected the map's page, got another")
        if not self._has_token(query):
            raise _Refusal(
                HTTPStatus.FORBIDDEN,
                "token: expected the server's, got another or none; open the address that it "
                "printed",
            )
        return parts.path, query

    def _has_token(self, query: Mapping[str, str]) -> bool:
        if not self.server.tokens:
            return True
        given = query.get("token", self._cookies().get(self.server.cookie, "")).encode()
        same = [hmac.compare_digest(given, token.encode()) for token in self.server.tokens]
        return any(same)

    def _cookies(self) -> dict[str, str]:
        """Cookies by name; those that other programs of this machine set may have any form."""
        pairs = (one.strip().partition("=") for one in self.headers.get("Cookie", "").split(";"))
        return {name: unquote(value) for name, _, value in pairs}

    def _cookie(self, token: str) -> dict[str, str]:
        value = f"{self.server.cookie}={quote(token)}; Path=/; HttpOnly; SameSite=Strict"
        return {"Set-Cookie": value, "Cache-Control": "no-store"}

    def _route(self, method: str, path: str, query: Mapping[str, str], body: str) -> Answer:
        known = self.headers.get("If-None-Match", "").strip('"')
        for allowed, pattern, answer in _ROUTES:
            found = pattern.fullmatch(path) if allowed == method else None
            if found:
                parts = {name: unquote(part) for name, part in found.groupdict().items()}
                asked = Request(parts, query, body, known, self._is_there)
                return answer(self.server.app, asked)
        raise _Refusal(HTTPStatus.NOT_FOUND, f"address: expected one of the map, got {path}")

    def _body(self) -> str:
        """What a client sent.

        Raises:
            _Refusal: too much, or not told how much.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY:
            self.close_connection = True
            raise _Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"body: expected {_MAX_BODY} bytes or fewer, got more; send less",
            )
        try:
            return self.rfile.read(int(length)).decode()
        except UnicodeDecodeError:
            raise _Refusal(HTTPStatus.BAD_REQUEST, "body: expected UTF-8, got none") from None

    def _is_there(self) -> bool:
        """Whether the client still waits for its answer."""
        try:
            with selectors.DefaultSelector() as selector:  # select() refuses files above 1023
                selector.register(self.connection, selectors.EVENT_READ)
                ready = selector.select(0)
            return not ready or bool(self.connection.recv(1, socket.MSG_PEEK))
        except (OSError, ValueError):
            return False

    def _fail(self, status: HTTPStatus, message: str) -> None:
        body = json.dumps({"error": redact_words(message)}, ensure_ascii=False).encode()
        self._send(status, body, JSON, {"Cache-Control": "no-store"})

    def _send(self, status: HTTPStatus, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in (_SAFE | dict(headers)).items():
                self.send_header(name, value)
            if status is not HTTPStatus.NOT_MODIFIED:
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (ConnectionError, TimeoutError):
            self.close_connection = True


def _status_of(error: RasteretError) -> HTTPStatus:
    if isinstance(error, NotFoundError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, InputError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, InterruptedReadError):
        return HTTPStatus.GATEWAY_TIMEOUT
    if isinstance(error, ReadError):
        return HTTPStatus.BAD_GATEWAY
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _line(error: object) -> str:
    return redact_words(" ".join(f"{type(error).__name__}: {error}".split()))
