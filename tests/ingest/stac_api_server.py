"""A STAC API over a file of items as its own process, with the faults of real ones.

Run ``python stac_api_server.py items.json``; it prints its port. The first path segment
names how it behaves (see `MODES`); ``/{mode}/`` is the landing page. ``/_log`` is the
list of search requests so far.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

MODES = {
    "post": "POST and GET; the next page is a body with a token",
    "merge": "POST; the next page is a token to merge into the first body",
    "get": "GET only; the next page is a relative address",
    "empty": "GET; an empty page comes before the second",
    "429": "every request is refused twice with Retry-After: 0, then answered",
    "503": "every request fails once with 503, then is answered",
    "500": "500 for ever",
    "401": "401 Unauthorized",
    "404": "404 Not Found",
    "html": "pages of HTML with status 200",
    "loop": "the next page is the same page",
    "short": "numberMatched is more than there is",
    "small-merge": "as limit, and the next page is a token to merge into the first body",
    "cut": "the first answer of each search ends in its middle",
    "repeat": "a next page begins with the last item of the page before",
    "patient": "every search is refused once with Retry-After: 100000",
    "limit": "400 for a limit above 20",
    "filter": "as post, declares the filter extension",
    "query": "as post, declares the query extension and answers nothing for it",
    "osdd": "as get, and lists an OpenSearch description and a page of HTML as searches too",
}
ITEMS: list[dict] = []
LOG: list[dict] = []
SEEN: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._route(parts.path, "GET", asked)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self._route(urlsplit(self.path).path, "POST", json.loads(self.rfile.read(size) or b"{}"))

    def _route(self, path: str, method: str, asked: dict) -> None:
        if path == "/_log":
            self._send(200, LOG)
            return
        mode, _, rest = path.strip("/").partition("/")
        if rest == "search":
            LOG.append({"mode": mode, "method": method, "asked": asked})
        if self._fault(mode, f"{method} {self.path} {json.dumps(asked)}", rest):
            return
        if rest == "":
            self._landing(mode)
        elif rest == "collections/odd":
            self._collection(mode)
        elif rest == "search":
            self._search(mode, method, asked)
        else:
            self._send(404, {"description": "no such page"})

    def _fault(self, mode: str, key: str, rest: str) -> bool:
        SEEN[key] += 1
        if mode == "429" and SEEN[key] <= 2:
            self._send(429, {"description": "slow down"}, {"Retry-After": "0"})
        elif mode == "503" and SEEN[key] <= 1:
            self._send(503, {"description": "busy"}, {"Retry-After": "0"})
        elif mode == "patient" and rest == "search" and SEEN[key] <= 1:
            self._send(503, {"description": "later"}, {"Retry-After": "100000"})
        elif mode == "cut" and rest == "search" and SEEN[key] <= 1:
            self._send(200, b'{"type": "FeatureCollection", "fea', {}, n_missing=1000)
            self.close_connection = True
        elif mode == "500" and rest == "search":
            self._send(
                500, {"description": "see https://host/log?token=secret"}, {"Retry-After": "0"}
            )
        elif mode in {"401", "404"}:
            self._send(int(mode), {"description": "no"})
        elif mode == "html" and rest == "search":
            self._send(200, b"<!DOCTYPE html><html>Please log in</html>")
        else:
            return False
        return True

    def _landing(self, mode: str) -> None:
        base = f"http://127.0.0.1:{self.server.server_address[1]}/{mode}"
        methods = ["GET"] if mode in {"get", "empty", "osdd"} else ["GET", "POST"]
        classes = ["https://api.stacspec.org/v1.0.0/item-search"]
        if mode == "query":
            classes.append("https://api.stacspec.org/v1.0.0/item-search#query")
        if mode == "filter":
            classes.append("http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter")
        links = [
            {"rel": "search", "href": f"{base}/search", "method": method} for method in methods
        ]
        if mode == "osdd":
            links[0]["type"] = "application/geo+json"
            links += [
                {"rel": "search", "type": kind, "href": f"{base}/other"}
                for kind in ("application/opensearchdescription+xml", "text/html")
            ]
        self._send(
            200,
            {
                "type": "Catalog",
                "id": mode,
                "stac_version": "1.0.0",
                "description": "",
                "conformsTo": classes,
                "links": links,
            },
        )

    def _collection(self, mode: str) -> None:
        links = [{"rel": "items", "href": "odd/items"}, {"rel": "root", "href": f"/{mode}/"}]
        self._send(200, {"type": "Collection", "id": "odd", "extent": {}, "links": links})

    def _search(self, mode: str, method: str, asked: dict) -> None:
        limit = int(asked.get("limit", 10))
        start = int(asked.get("token", 0))
        if mode in {"limit", "small-merge"} and limit > 20:
            self._send(400, {"description": "limit must be 20 or less"})
            return
        found = [] if mode == "query" and "query" in asked else ITEMS
        if mode == "empty" and start == limit and "again" not in asked:
            page, following = [], f"search?limit={limit}&token={start}&again=1"
        else:
            page = found[max(0, start - (mode == "repeat")) : start + limit]
            following = f"search?limit={limit}&token={start + limit}"
        links = []
        if start + limit < len(found) or mode == "loop":
            token = start if mode == "loop" else start + limit
            if method == "GET":
                links = [{"rel": "next", "href": following}]
            elif mode.endswith("merge"):
                links = [
                    {
                        "rel": "next",
                        "href": f"/{mode}/search",
                        "method": "POST",
                        "merge": True,
                        "body": {"token": token},
                    }
                ]
            else:
                links = [
                    {
                        "rel": "next",
                        "href": f"/{mode}/search",
                        "method": "POST",
                        "body": {**asked, "token": token},
                    }
                ]
        matched = len(found) + (5 if mode == "short" else 0)
        self._send(
            200,
            {
                "type": "FeatureCollection",
                "features": page,
                "links": links,
                "numberMatched": matched,
            },
        )

    def _send(
        self, status: int, body: object, headers: dict | None = None, n_missing: int = 0
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) + n_missing))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    document = json.loads(Path(sys.argv[1]).read_text())
    ITEMS.extend(document["features"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
