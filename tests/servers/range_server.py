"""A real HTTP/1.1 server with byte ranges, faults and a log, as its own process.

Run ``python range_server.py --root data=/some/folder``; it prints its port and serves
``/data/...``. A first path segment may name a fault, the rest is the file it hits:
``/404/data/a.tif``. Faults: see `FAULTS`. Tests use `RangeServer`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

FAULTS = {
    "401": "401 Unauthorized",
    "403": "403 Forbidden",
    "private": "403 without an Authorization header or a signature in the query",
    "404": "404 Not Found",
    "500": "500 for ever",
    "301": "301 without a Location",
    "wait": "503 with Retry-After: 1, the first time that each path is asked for",
    "html": "an HTML page with status 200",
    "short": "the body stops half-way, the connection closes",
    "short_once": "as short, the first time that each path is asked for",
    "short_noetag_once": "as short_once, and without an ETag",
    "truncated": "206 with half of the bytes, and headers that say so",
    "reset": "the socket closes before any answer",
    "reset_once": "as reset, the first time that each path is asked for",
    "429": "/429/N/...: 429 the first N times for each path, with Retry-After: 0",
    "503": "/503/N/...: 503 the first N times for each path",
    "norange": "the Range header is ignored: 200 and the whole file",
    "chunked": "as norange, without a Content-Length",
    "noetag": "no ETag, no Last-Modified",
    "nohead": "405 for HEAD",
    "hang": "never answers, until the server stops",
    "trickle": "the body comes in eight parts, a tenth of a second apart",
    "stall": "half of the body, then nothing until the server stops",
    "slow": "half a second before the answer",
    "redirect": "302 to the rest of the path",
    "loop": "302 to itself",
    "elsewhere": "302 to the host and path that follow",
    "tokens": "JSON with the keys of token services, which end after token_ttl_s",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
_PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class _State:
    """What the server remembers between requests."""

    def __init__(self, roots: dict[str, Path]) -> None:
        self.roots = roots
        self.lock = threading.Lock()
        self.log: list[dict[str, Any]] = []
        self.seen: Counter[str] = Counter()
        self.latency_ms = 0.0
        self.token_ttl_s = 3600.0
        self.connections = 0
        self.stopping = threading.Event()

    def reset(self) -> None:
        with self.lock:
            self.log.clear()
            self.seen.clear()
            self.connections = 0

    def count(self, key: str) -> int:
        """How often this was counted before."""
        with self.lock:
            self.seen[key] += 1
            return self.seen[key] - 1


class _Handler(BaseHTTPRequestHandler):
    """One connection; `state` is set by `serve`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    state: _State
    pause_s = 0.0

    def setup(self) -> None:
        super().setup()
        with self.state.lock:
            self.state.connections += 1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_GET  # noqa: N815

    def answer(self) -> None:
        url = urlsplit(self.path)
        parts = url.path.lstrip("/").split("/")
        if parts[0].startswith("__"):
            self.control(parts[0], dict(p.split("=") for p in url.query.split("&") if p))
            return
        if self.state.latency_ms:
            time.sleep(self.state.latency_ms / 1000)
        fault = parts.pop(0) if parts[0] in FAULTS else ""
        if fault in {"429", "503"} and len(parts) > 1 and parts[0].isdigit():
            if self.state.count(url.path) < int(parts.pop(0)):
                self.send(int(fault), b"busy", {"Retry-After": "0"})
                return
            fault = ""
        if fault == "wait":
            if self.state.count(url.path) == 0:
                self.send(503, b"busy", {"Retry-After": "1"})
                return
            fault = ""
        if fault.endswith("_once"):
            ends = "noetag" if "noetag" in fault else ""
            fault = fault.removesuffix("_once") if self.state.count(url.path) == 0 else ends
        self.serve(fault, "/".join(parts), url.query)

    def serve(self, fault: str, path: str, query: str) -> None:
        if fault == "private":
            signed = "sig=good" in query or "sig=azure" in query or "Authorization" in self.headers
            fault = "" if signed else "403"
        if fault == "nohead" and self.command == "HEAD":
            self.send(405, b"")
        elif fault in {"301", "401", "403", "404", "500"}:
            self.send(int(fault), b"no")
        elif fault == "html":
            self.send(200, _PAGE, {"Content-Type": "text/html"})
        elif fault == "loop":
            self.send(302, b"", {"Location": self.path})
        elif fault == "elsewhere":
            self.send(302, b"", {"Location": f"http://{path}" + (f"?{query}" if query else "")})
        elif fault == "tokens":
            self.send(200, self.tokens(), {"Content-Type": "application/json"})
        elif fault == "reset":
            self.record(0, 0)
            self.close_connection = True
        elif fault == "hang":
            self.record(0, 0)
            self.state.stopping.wait()
        elif fault == "redirect":
            self.send(302, b"", {"Location": f"/{path}" + (f"?{query}" if query else "")})
        else:
            if fault == "slow":
                time.sleep(0.5)
            self.serve_file(fault, unquote(path))

    def tokens(self) -> bytes:
        n = self.state.count("tokens") + 1
        ends = datetime.now(UTC) + timedelta(seconds=self.state.token_ttl_s)
        azure = {"token": f"sv=1&sr=c&sig=azure{n}", "msft:expiry": ends.isoformat()}
        keys = {"accessKeyId": f"KEY{n}", "secretAccessKey": "s3cret", "sessionToken": "session"}
        return json.dumps({**azure, **keys, "expiration": ends.isoformat(" ")}).encode()

    def serve_file(self, fault: str, path: str) -> None:
        root, _, rest = path.partition("/")
        file = self.state.roots.get(root, Path("/nonexistent")) / rest
        if ".." in rest.split("/") or not file.is_file():
            self.send(404, b"no such file")
            return
        facts = file.stat()
        size = facts.st_size
        headers = {"Accept-Ranges": "bytes", "Content-Type": "image/tiff"}
        if not fault.endswith("noetag"):
            headers["ETag"] = f'"{facts.st_mtime_ns:x}-{size:x}"'
            headers["Last-Modified"] = formatdate(facts.st_mtime, usegmt=True)
        start, stop, status = 0, size, 200
        asked = (
            _RANGE.match(self.headers.get("Range", ""))
            if fault not in {"norange", "chunked"}
            else None
        )
        if asked:
            first, last = asked.groups()
            start = int(first) if first else max(size - int(last), 0)
            stop = min(int(last) + 1, size) if first and last else size
            if start >= size or stop <= start:
                self.send(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            if fault == "truncated":
                stop = start + (stop - start) // 2
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        with file.open("rb") as handle:
            handle.seek(start)
            body = handle.read(stop - start)
        if fault == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        if fault == "trickle":
            self.pause_s = 0.1
        self.send(
            status,
            body,
            headers,
            cut=len(body) // 2 if fault.startswith(("short", "stall")) else None,
        )
        if fault == "stall":
            self.state.stopping.wait()

    def send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        """Answer; ``cut`` sends only so many bytes of the body and closes."""
        sent = body[:cut] if self.command != "HEAD" else b""
        self.record(status, len(sent))
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Transfer-Encoding" in (headers or {}):
            sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent) if sent else b""
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        step = len(sent) // 8 + 1 if self.pause_s else len(sent) or 1
        try:
            for start in range(0, len(sent), step):
                self.wfile.write(sent[start : start + step])
                self.wfile.flush()
                time.sleep(self.pause_s)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if cut is not None:
            self.close_connection = True

    def record(self, status: int, n_bytes: int) -> None:
        entry = {
            "method": self.command,
            "path": self.path,
            "range": self.headers.get("Range"),
            "status": status,
            "bytes": n_bytes,
            "headers": {k.lower(): v for k, v in self.headers.items()},
        }
        with self.state.lock:
            self.state.log.append(entry)

    def control(self, name: str, options: dict[str, str]) -> None:
        """Answer ``/__log``, ``/__reset`` and ``/__set?latency_ms=20``."""
        if name == "__reset":
            self.state.reset()
        if name == "__set":
            self.state.latency_ms = float(options["latency_ms"])
            self.state.token_ttl_s = float(options["token_ttl_s"])
        with self.state.lock:
            facts = {"log": list(self.state.log), "connections": self.state.connections}
        body = json.dumps(facts["log"] if name == "__log" else facts).encode()
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error."""


def serve(roots: dict[str, Path], port: int = 0) -> None:
    """Serve until the process is ended."""
    state = _State(roots)
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"state": state}))
    print(server.server_port, flush=True)
    server.serve_forever()


class RangeServer:
    """The server as a child process; a context manager.

    Example:
        with RangeServer(data=folder) as server:
            get_range(server.url("data", "a.tif"), 0, 16)
            assert len(server.requests()) == 1
    """

    def __init__(self, **roots: Path | str) -> None:
        self.roots = {name: Path(path).resolve() for name, path in roots.items()}
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        command = [sys.executable, __file__]
        for name, path in self.roots.items():
            command += ["--root", f"{name}={path}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the range server did not start")
        self.port = int(line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, name: str, path: str = "", *, fault: str = "") -> str:
        """The address of a file, e.g. ``url("data", "a b.tif", fault="429/2")``."""
        return "/".join(p for p in (self.origin, fault, name, quote(path)) if p)

    def requests(self) -> list[dict[str, Any]]:
        """Every request since the start or the last `reset`, in order of the answers."""
        log: list[dict[str, Any]] = self._control("__log")
        return log

    def connections(self) -> int:
        """TCP connections since the start or the last `reset`, this question's included."""
        return int(self._control("__stats")["connections"])

    def reset(self) -> None:
        """Forget the log and the counts of the faults."""
        self._control("__reset")

    def set(self, *, latency_ms: float = 0, token_ttl_s: float = 3600) -> None:
        """Wait this long before each answer; let tokens last this long."""
        options = {"latency_ms": latency_ms, "token_ttl_s": token_ttl_s}
        self._control("__set?" + urlencode(options))

    def _control(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.origin}/{path}", timeout=10) as answer:
            return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    roots = dict(root.split("=", 1) for root in options.root)
    serve({name: Path(path) for name, path in roots.items()}, options.port)


if __name__ == "__main__":
    main()
