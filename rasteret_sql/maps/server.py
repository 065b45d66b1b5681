"""HTTP for one person: on this machine, with a token, for the page that it sends itself."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import select
import socket
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from rasteret_sql.errors import (
    InputError,
    InterruptedReadError,
    NotFoundError,
    RasteretError,
    ReadError,
    redact_words,
)
from rasteret_sql.maps.app import JSON, Answer, App

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_MAX_BODY: Final = 1 << 20
_IDLE_SECONDS: Final = 60
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
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
_NAME = "([^/]+)"
_FILE: Final = re.compile(r"/static/((?:vendor/)?[\w.-]+)")

Route = tuple[str, re.Pattern[str]]


class MapServer(ThreadingHTTPServer):
    """Serves the page and its data.

    Args:
        app: Gives the answers.
        host: Address to listen on.
        port: 0 for any that is free.
        token: What a client must show; None asks for none.
        is_public: Listen for other machines too: names of theirs for this one are let in.

    Raises:
        InputError: the port is taken, or there is no such host.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, app: App, host: str, port: int, *, token: str | None, is_public: bool
    ) -> None:
        self.app, self.token = app, token
        self._names = {*LOCAL_NAMES, host.lower()}
        self._is_public = is_public
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            got = error.strerror or str(error)
            raise InputError.expected(
                "port", f"a free one of {host}, not {port}", got, "choose another"
            ) from error

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

    def handle_error(self, request: object, client_address: object) -> None:
        """Say in a line what went wrong, unless the client has gone."""
        error = sys.exception() if sys.version_info >= (3, 11) else None
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

    def do_GET(self) -> None:  # noqa: N802 (the name that http.server calls)
        """Answer GET."""
        self._answer("GET")

    def do_HEAD(self) -> None:  # noqa: N802
        """Answer HEAD as GET, without the body."""
        self._answer("GET")

    def do_POST(self) -> None:  # noqa: N802
        """Answer POST."""
        self._answer("POST")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Write no log: addresses hold the token."""

    def _answer(self, method: str) -> None:
        try:
            body = self._body() if method == "POST" else ""
            path, query = self._request()
            if path == "/" and "token" in query and self.server.token is not None:
                self._send(
                    HTTPStatus.SEE_OTHER, b"", "text/plain", {"Location": "/"} | self._cookie()
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
        token = self.server.token
        if token is None:
            return True
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            cookie = None
        given = query.get("token", cookie.value if cookie else "")
        return hmac.compare_digest(given.encode(), token.encode())

    def _cookie(self) -> dict[str, str]:
        value = f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
        return {"Set-Cookie": value, "Cache-Control": "no-store"}

    def _route(self, method: str, path: str, query: Mapping[str, str], body: str) -> Answer:
        for (allowed, pattern), answer in _ROUTES.items():
            found = pattern.fullmatch(path)
            if found and allowed == method:
                return answer(self, [unquote(part) for part in found.groups()], query, body)
        raise _Refusal(HTTPStatus.NOT_FOUND, f"address: expected one of the map, got {path}")

    def _tile(self, parts: list[str], query: Mapping[str, str], _body: str) -> Answer:
        name, z, x, y, kind = parts
        place = int(z), int(x), int(y)
        if kind == "sql":
            return self.server.app.tile_sql(name, place, query)
        known = self.headers.get("If-None-Match", "").strip('"')
        return self.server.app.tile(name, place, query, self._is_there, known)

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
            ready, _, _ = select.select([self.connection], [], [], 0)
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


_Answerer = Callable[[_Handler, list[str], Mapping[str, str], str], Answer]
_ROUTES: Final[dict[Route, _Answerer]] = {
    ("GET", re.compile("/")): lambda _s, _p, _q, _b: asset("index.html"),
    ("GET", _FILE): lambda _s, p, _q, _b: asset(p[0]),
    ("GET", re.compile(rf"/tiles/{_NAME}/(\d{{1,2}})/(\d{{1,9}})/(\d{{1,9}})\.(png|sql)")): (
        _Handler._tile
    ),
    ("GET", re.compile(rf"/pictures/{_NAME}/{_NAME}\.png")): (
        lambda s, p, q, _b: s.server.app.picture(p[0], p[1], q, s._is_there)
    ),
    ("GET", re.compile("/api/collections")): lambda s, _p, _q, _b: s.server.app.collections(),
    ("GET", re.compile(rf"/api/collections/{_NAME}/scenes")): (
        lambda s, p, q, _b: s.server.app.scenes(p[0], q)
    ),
    ("GET", re.compile(rf"/api/collections/{_NAME}/scenes/{_NAME}")): (
        lambda s, p, _q, _b: s.server.app.scene(p[0], p[1])
    ),
    ("GET", re.compile(rf"/api/collections/{_NAME}/stretch")): (
        lambda s, p, q, _b: s.server.app.stretch(p[0], q, s._is_there)
    ),
    ("GET", re.compile(rf"/api/collections/{_NAME}/point")): (
        lambda s, p, q, _b: s.server.app.point(p[0], q, s._is_there)
    ),
    ("POST", re.compile(rf"/api/collections/{_NAME}/zone")): (
        lambda s, p, q, b: s.server.app.zone(p[0], q, b, s._is_there)
    ),
}
"""What answers which address."""
