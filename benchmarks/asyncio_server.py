"""Serve byte ranges of a folder with a settable latency: what `latency_server.py` tells, no nginx.

Usage: python benchmarks/asyncio_server.py FOLDER PORT
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

_RANGE = re.compile(rb"\r\nrange: *bytes=(\d*)-(\d*)\r\n", re.IGNORECASE)
_ALIAS = re.compile(r"^/a[0-9]+/")
_STEP_BYTES = 64 << 10


class RangeService:
    """Settings, counters, and the answer to each connection."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.settings = {"latency_ms": 0.0, "connection_ms": 0.0, "rate_mb": 0.0}
        self.counters: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection until the client closes it."""
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        is_first = True
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = request.split(b"\r\n", 1)[0].decode().split(" ")
                if target.startswith("/__"):
                    self._answer_own(target, writer)
                    continue
                self.counters["connections"] += is_first
                wait_ms = self.settings["latency_ms"]
                wait_ms += self.settings["connection_ms"] if is_first else 0
                is_first = False
                if wait_ms:
                    await asyncio.sleep(wait_ms / 1000)
                await self._answer_file(method, target, _RANGE.search(request), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer_own(self, target: str, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(target)
        if parts.path == "/__set":
            wanted = {name: float(value) for name, value in parse_qsl(parts.query)}
            self.settings |= {name: wanted[name] for name in wanted if name in self.settings}
            self.counters.clear()
        names = ("requests", "bytes", "connections", "errors")
        body = json.dumps({name: self.counters[name] for name in names}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def _answer_file(
        self,
        method: str,
        target: str,
        asked: re.Match[bytes] | None,
        writer: asyncio.StreamWriter,
    ) -> None:
        path = (self.root / _ALIAS.sub("/", unquote(urlsplit(target).path))[1:]).resolve()
        self.counters["requests"] += 1
        if not path.is_relative_to(self.root) or not path.is_file():
            self.counters["errors"] += 1
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        facts = path.stat()
        start, stop, status = 0, facts.st_size, "200 OK"
        if asked:
            first, last = asked.groups()
            start = int(first) if first else max(0, facts.st_size - int(last))
            stop = min(facts.st_size, int(last) + 1) if first and last else facts.st_size
            status = "206 Partial Content"
        if start >= facts.st_size:
            self.counters["errors"] += 1
            writer.write(
                b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n"
                b"Content-Range: bytes */%d\r\n\r\n" % facts.st_size
            )
            return
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: image/tiff\r\nAccept-Ranges: bytes\r\n"
            f"Content-Length: {stop - start}\r\n"
            f"Last-Modified: {formatdate(facts.st_mtime, usegmt=True)}\r\n"
            f'ETag: "{facts.st_mtime_ns:x}-{facts.st_size:x}"\r\n'
        )
        if asked:
            head += f"Content-Range: bytes {start}-{stop - 1}/{facts.st_size}\r\n"
        writer.write(f"{head}\r\n".encode())
        if method != "HEAD":
            await self._send(path, start, stop, writer)

    async def _send(self, path: Path, start: int, stop: int, writer: asyncio.StreamWriter) -> None:
        rate = self.settings["rate_mb"] * 1e6
        step = _STEP_BYTES if rate else stop - start
        loop = asyncio.get_running_loop()
        with path.open("rb") as file:
            for at in range(start, stop, step):
                size = min(step, stop - at)
                began = loop.time()
                await loop.sendfile(writer.transport, file, at, size)
                self.counters["bytes"] += size
                if rate:
                    await asyncio.sleep(max(0.0, size / rate - (loop.time() - began)))


async def main() -> None:
    service = RangeService(Path(sys.argv[1]))
    server = await asyncio.start_server(
        service.serve, "127.0.0.1", int(sys.argv[2]), backlog=4096, limit=1 << 20
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
