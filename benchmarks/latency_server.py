"""An HTTP/1.1 server of byte ranges on 127.0.0.1 with the latency of a network, for benchmarks.

    python benchmarks/latency_server.py --root build/bench [--port 8765] [--latency-ms 20]

`/cogs/x.tif` is a file below the root; `/a17/cogs/x.tif` is the same file under another URL.
Settings and counters: `LatencyServer.set` and `LatencyServer.stats`. nginx with its Lua module
where both are installed (Debian: nginx-light, libnginx-mod-http-lua), else `asyncio_server.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

MODULES = Path("/usr/lib/nginx/modules")
LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")

_NGINX = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
daemon off; master_process off; {user}
pid {run}/nginx.pid; error_log {run}/error.log warn;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off; default_type application/octet-stream; types {{ image/tiff tif; }}
  client_body_temp_path {run}; proxy_temp_path {run}; fastcgi_temp_path {run};
  uwsgi_temp_path {run}; scgi_temp_path {run};
  sendfile on; tcp_nopush on; tcp_nodelay on; sendfile_max_chunk 2m;
  keepalive_timeout 120s; keepalive_requests 100000000;
  open_file_cache max=4000 inactive=600s; open_file_cache_valid 600s;
  lua_shared_dict settings 64k; lua_shared_dict counters 64k;
  server {{
    listen 127.0.0.1:{port} backlog=4096; root {root};
    location = /__set {{ content_by_lua_block {{
      local arguments = ngx.req.get_uri_args()
      for _, name in ipairs({{"latency_ms", "connection_ms", "rate_mb"}}) do
        if arguments[name] then ngx.shared.settings:set(name, tonumber(arguments[name])) end
      end
      ngx.shared.counters:flush_all()
      ngx.say("ok") }} }}
    location = /__stats {{ content_by_lua_block {{
      local n = ngx.shared.counters
      ngx.say(string.format('{{"requests":%d,"bytes":%d,"connections":%d,"errors":%d}}',
        n:get("requests") or 0, n:get("bytes") or 0, n:get("connections") or 0,
        n:get("errors") or 0)) }} }}
    location / {{
      rewrite "^/a[0-9]+/(.*)$" /$1 break;
      access_by_lua_block {{
        local settings = ngx.shared.settings
        local wait_ms = settings:get("latency_ms") or 0
        if ngx.var.connection_requests == "1" then
          wait_ms = wait_ms + (settings:get("connection_ms") or 0)
        end
        local rate_mb = settings:get("rate_mb") or 0
        if rate_mb > 0 then ngx.var.limit_rate = tostring(math.floor(rate_mb * 1000)) .. "k" end
        if wait_ms > 0 then ngx.sleep(wait_ms / 1000) end }}
      log_by_lua_block {{
        local n = ngx.shared.counters
        n:incr("requests", 1, 0); n:incr("bytes", tonumber(ngx.var.bytes_sent) or 0, 0)
        if ngx.var.connection_requests == "1" then n:incr("connections", 1, 0) end
        if ngx.status >= 400 then n:incr("errors", 1, 0) end }}
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nginx_path() -> str | None:
    """Path of an nginx that has the Lua module, or None."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    return path if path and all((MODULES / name).exists() for name in LUA_MODULES) else None


class LatencyServer:
    """The server as a process of its own, from `with` to the end of the block.

    Args:
        root: Folder that is served.
        port: 0 for a free one.
        kind: "nginx", "asyncio", or None: nginx where it can be had.
        is_realtime: Run with real-time priority where that is allowed.
    """

    def __init__(
        self, root: Path, port: int = 0, kind: str | None = None, *, is_realtime: bool = False
    ) -> None:
        self.root = root.resolve()
        self.port = port or free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.kind = kind or ("nginx" if nginx_path() else "asyncio")
        self._is_realtime = is_realtime
        self._run = Path(tempfile.mkdtemp(prefix="latency-server-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self.kind == "nginx":
            config = self._run / "nginx.conf"
            user = "user root;" if os.geteuid() == 0 else ""
            facts = {"modules": MODULES, "run": self._run, "port": self.port, "root": self.root}
            config.write_text(_NGINX.format(user=user, **facts))
            command = [str(nginx_path()), "-p", str(self._run), "-c", str(config)]
        else:
            script = Path(__file__).with_name("asyncio_server.py")
            command = [sys.executable, str(script), str(self.root), str(self.port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.stats()
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
            else:
                if self._is_realtime:
                    make_realtime(self._process.pid)
                return self
        self.stop()
        raise RuntimeError(f"{self.kind} did not start on port {self.port}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        shutil.rmtree(self._run, ignore_errors=True)

    def set(self, latency_ms: float = 0, connection_ms: float = 0, rate_mb: float = 0) -> None:
        """Change what a network does, and set the counters to 0.

        Args:
            latency_ms: Before the first byte of every response.
            connection_ms: As well, on the first request of a connection.
            rate_mb: MB/s of a connection, 0 for no limit.
        """
        query = f"latency_ms={latency_ms}&connection_ms={connection_ms}&rate_mb={rate_mb}"
        self._get(f"/__set?{query}")

    def stats(self) -> dict[str, int]:
        """Requests, bytes, connections and errors (status >= 400) since `set`."""
        return json.loads(self._get("/__stats"))

    def wait(self, seconds: float) -> None:
        assert self._process is not None
        self._process.wait(seconds)

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.base + path, timeout=5) as answer:
            return answer.read()


def make_realtime(pid: int, *, on: bool = True) -> None:
    """Give every thread of a process real-time priority, or take it; nothing where not allowed."""
    policy, priority = (os.SCHED_RR, 1) if on else (os.SCHED_OTHER, 0)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))
        except (PermissionError, ProcessLookupError):
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--kind", choices=["nginx", "asyncio"])
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--connection-ms", type=float, default=0)
    parser.add_argument("--rate-mb", type=float, default=0)
    parser.add_argument("--seconds", type=float, default=3600, help="ends after so long")
    options = parser.parse_args()
    with LatencyServer(options.root, options.port, options.kind) as server:
        server.set(options.latency_ms, options.connection_ms, options.rate_mb)
        print(f"{server.kind} serves {server.root} on {server.base}", flush=True)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            server.wait(options.seconds)


if __name__ == "__main__":
    main()
