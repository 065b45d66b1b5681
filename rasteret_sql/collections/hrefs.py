"""Hrefs of assets: made absolute, unsigned, and kept away from local files if remote."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.remote.stores import is_remote, kept_query, rewrite
from rasteret_sql.secrets import without_secrets

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^\s'\"<>]+|/vsi[^\s'\"<>]+")
"""An address in a text: of the web or a cloud, without a scheme, or a name of GDAL's."""
_GDAL = {
    "/vsicurl/": "",
    "/vsis3/": "s3://",
    "/vsigs/": "gs://",
    "/vsiaz/": "az://",
    "/vsiadls/": "abfs://",
}


def resolve(href: str, base: str | None) -> str:
    """Make an href absolute against the location of the document that has it.

    GDAL's ``/vsicurl/`` and ``/vsis3/`` spellings become plain URLs.

    Example:
        >>> resolve("./B04.tif", "https://host/items/a.json")
        'https://host/items/B04.tif'
        >>> resolve("../B04.tif", "s3://bucket/items/a.json")
        's3://bucket/B04.tif'
        >>> resolve("/vsis3/bucket/B04.tif", None)
        's3://bucket/B04.tif'
    """
    for prefix, replacement in _GDAL.items():
        if href.startswith(prefix):
            return replacement + href.removeprefix(prefix)
    if base is None or _SCHEME.match(href) or href.startswith(("/", "\\\\")):
        return href
    if not is_remote(base):
        folder = Path(local_path(base)).absolute().parent
        return posixpath.normpath((folder / href).as_posix())
    if base.lower().startswith(("http://", "https://")):
        return urljoin(base, href)
    scheme, rest = base.split("://", 1)
    bucket, _, key = rest.partition("/")
    joined = posixpath.normpath(posixpath.join("/", posixpath.dirname(key), href))
    return f"{scheme}://{bucket}{joined}"


def resolve_link(href: str, base: str) -> str | None:
    """The document that a link leads to; None if a remote document links a local file.

    Unlike an asset's, a link's absolute path is one of the same server.

    Example:
        >>> resolve_link("/stac/a.json", "https://host/root.json")
        'https://host/stac/a.json'
        >>> resolve_link("file:///etc/a.json", "https://host/root.json") is None
        True
    """
    if base.lower().startswith(("http://", "https://")) and not _SCHEME.match(href):
        return urljoin(base, href)
    found = resolve(href, base)
    return None if is_remote(base) and not is_remote(found) else found


def local_path(location: str) -> str:
    """The path of a local location, which may be a ``file://`` URL.

    Example:
        >>> local_path("file:///data/a%20b.json")
        '/data/a b.json'
    """
    if location[:7].lower() == "file://":
        return unquote(urlsplit(location).path)
    return location


def unsigned(href: str) -> str:
    """Drop what is a secret in an href, but for what ``keep_query`` of `storage` names.

    Example:
        >>> unsigned("https://host/a.tif?version=2&sv=2024-01-01&sp=r&sig=abc")
        'https://host/a.tif?version=2'
    """
    plain = without_secrets(href)
    keep = () if plain == href else kept_query(href)
    return without_secrets(href, keep) if keep else plain


def stored_href(href: str, url_rewrite: Mapping[str, str]) -> str:
    """The href that is stored: without secrets, of its own and of what it is rewritten to."""
    return unsigned(rewrite(unsigned(href), url_rewrite))


def unsigned_values(value: Any) -> Any:  # noqa: ANN401 (a JSON value)
    """A JSON value, or a list of a column, without the secrets of the addresses in it.

    Example:
        >>> unsigned_values({"self": ["https://me:pw@host/a.json", "is at https://h/b?sig=S now"]})
        {'self': ['https://host/a.json', 'is at https://h/b now']}
    """
    if isinstance(value, str):
        return _ADDRESS.sub(lambda found: unsigned(found[0]), value)
    if isinstance(value, Mapping):
        return {key: unsigned_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(unsigned_values, value))
    return value


def unsigned_column(column: pa.Array) -> pa.Array:
    """A column, of any type, without the secrets of the addresses in it.

    Example:
        >>> unsigned_column(pa.array(["https://h/a?sig=S", "?sig", None])).to_pylist()
        ['https://h/a', '?sig', None]
    """
    if not any(map(_may_hold_secrets, _texts(column))):
        return column
    if pa.types.is_struct(column.type):
        children = [unsigned_column(column.field(i)) for i in range(column.type.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(column.type), mask=column.is_null())
    return pa.array(unsigned_values(column.to_pylist()), column.type)


def _texts(column: pa.Array) -> list[pa.Array]:
    """The text in a column and in all that it nests."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return [column]
    if pa.types.is_struct(kind):
        parts = [column.field(i) for i in range(kind.num_fields)]
    elif pa.types.is_map(kind):
        parts = [column.keys, column.items]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        parts = [column.values]
    else:
        parts = []
    return [text for part in parts for text in _texts(part)]


def _may_hold_secrets(texts: pa.Array) -> bool:
    plain = texts.cast(pa.large_string())
    odd = plain.filter(pc.match_substring_regex(plain, "[?&;#@%]"))
    return bool(pc.any(pc.match_substring_regex(odd, "//|/vsi")).as_py())
