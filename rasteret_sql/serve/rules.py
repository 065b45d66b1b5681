"""What clients of the server may do."""

from __future__ import annotations

import functools
import hmac
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb

from rasteret_sql.duck.calls import Call
from rasteret_sql.duck.declarations import TableFunction
from rasteret_sql.duck.names import quote_identifier
from rasteret_sql.errors import AccessDeniedError
from rasteret_sql.remote import stores

_TRANSACTION = re.compile(
    r"\s*(BEGIN|START|COMMIT|END|ROLLBACK|ABORT)(\s+(TRANSACTION|WORK))?\s*;?\s*", re.IGNORECASE
)
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?", re.IGNORECASE)
_READING = re.compile(
    r"range|generate_series|unnest|repeat(_row)?|summary|glob|json_(each|tree)|query_table"
    r"|read_(parquet|csv|json|ndjson|text|blob)\w*"
    r"|parquet_(scan|schema|metadata|file_metadata|kv_metadata|full_metadata|bloom_probe)"
    r"|duckdb_(columns|constraints|coordinate_systems|databases|extensions|functions|indexes"
    r"|keywords|schemas|sequences|settings|tables|types|views)"
    r"|show\w*|pragma_(show|table_info|version)|table_info|icu_calendar_names|pg_timezone_names"
)
"""Table functions of DuckDB that only read; all others of its own are refused."""


def token_checker(tokens: list[str]) -> Callable[[str, str, str], bool]:
    """What Quack asks when a client logs in."""
    known = [token.encode() for token in tokens]

    def authenticate(_session: str, token: str, _server_token: str) -> bool:
        given = token.encode()
        return any(hmac.compare_digest(given, one) for one in known)

    return authenticate


def confined(function: TableFunction, *, may_build: bool) -> TableFunction:
    """A function as clients may call it."""

    def bind(call: Call, **arguments: Any) -> Any:  # noqa: ANN401 (what it wraps)
        if not may_build and function.writes:
            raise AccessDeniedError.expected(
                function.name, "a function that reads", "one that writes", "ask who runs the server"
            )
        if arguments.get("workspace") is not None:
            raise AccessDeniedError.expected(
                "workspace", "the server's own", arguments["workspace"], "leave it out"
            )
        return function.bind(call, **arguments)

    return replace(function, bind=bind)


class Gate:
    """Lets through what only reads.

    DuckDB's own parser, in an instance of its own, turns the text into a tree; it does so
    for SELECT (FROM, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE) and for nothing else.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._parser = duckdb.connect()
        self._lock = threading.Lock()
        rows = con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE internal AND function_type IN ('table', 'pragma')"
        ).fetchall()
        self._refused = {name for (name,) in rows if not _READING.fullmatch(name)}

    def authorize(self, _session: str, query: str) -> bool:
        """What Quack asks; the client learns only that it was refused, so tell the server."""
        reason = self._refusal(query)
        if reason is not None:
            text = " ".join(query.split())[:200]
            print(f"refused: {reason}: {text}", file=sys.stderr, flush=True)  # noqa: T201
        return reason is None

    def check(self, query: str) -> None:
        """What the engine asks about query text in an argument.

        Raises:
            AccessDeniedError: says what is refused.
        """
        reason = self._refusal(query)
        if reason is not None:
            raise AccessDeniedError.expected("query text", "one that reads", reason, "change it")

    def _refusal(self, query: str) -> str | None:
        if _TRANSACTION.fullmatch(query):
            return None
        explained = _EXPLAIN.match(query)
        with self._lock:
            text = self._parser.execute(
                "SELECT json_serialize_sql($query::VARCHAR)",
                {"query": query[explained.end() :] if explained else query},
            ).fetchall()[0][0]
        tree = json.loads(text)
        if tree["error"]:  # of a syntax error DuckDB tells more
            return None if tree["error_type"] == "parser" else "a statement other than SELECT"
        called = {name.lower() for name in _function_names(tree)}
        refused = {name for name in called if name in self._refused or _is_private(name)}
        return f"function {min(refused)}" if refused else None


def _is_private(name: str) -> bool:
    return name.startswith(("_rasteret", "quack_"))


def _function_names(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("function_name"), str):
            yield node["function_name"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _function_names(child)


class Origins:
    """Folders and servers where the assets of the served collections lie.

    Without it, a client could write a row that names any file of this machine, or any
    address inside its network, as an asset.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        rows = con.execute(
            "SELECT database_name, schema_name, table_name, data_type FROM duckdb_columns() "
            "WHERE column_name = 'assets' AND NOT internal AND starts_with(data_type, 'STRUCT')"
        ).fetchall()
        self._known = {
            _origin(prefix)
            for *names, _ in rows
            for prefix in _href_prefixes(con, ".".join(map(quote_identifier, names)))
        }

    def check(self, href: str) -> None:
        """Refuse what lies elsewhere.

        Raises:
            AccessDeniedError: names the href.
        """
        if _origin(href) not in self._known:
            raise AccessDeniedError.expected(
                "href", "a file where the served collections have theirs", href, "serve it too"
            )


def _href_prefixes(con: duckdb.DuckDBPyConnection, relation: str) -> list[str]:
    """The server of each remote href, the folder of each local one."""
    assets = con.sql(f"SELECT assets FROM {relation} LIMIT 0").types[0]  # noqa: S608 (quoted)
    bands = [name for name, _ in assets.children]
    hrefs = ", ".join(f"assets.{quote_identifier(band)}.href" for band in bands)
    rows = con.execute(
        f"SELECT DISTINCT coalesce(nullif(regexp_extract(href, '^[^:/]+://[^/]+/'), ''), "  # noqa: S608
        f"regexp_replace(href, '[^/]*$', '')) FROM (SELECT unnest([{hrefs}]) AS href "
        f"FROM {relation}) WHERE href IS NOT NULL"
    ).fetchall()
    return [prefix for (prefix,) in rows]


def _origin(href: str) -> str:
    if not stores.is_local(href):
        parts = urlsplit(href)
        return f"{parts.scheme.lower()}://{parts.netloc.rsplit('@', 1)[-1].lower()}"
    path = unquote(urlsplit(href).path) if href.lower().startswith("file:") else href
    return _real(os.path.dirname(path))  # noqa: PTH120 (keeps the slash-less last part apart)


@functools.lru_cache(4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)
