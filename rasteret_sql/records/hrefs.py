"""Hrefs of assets: made absolute, unsigned, and kept away from local files if remote."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from rasteret_sql.remote.stores import is_remote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_GDAL = {
    "/vsicurl/": "",
    "/vsis3/": "s3://",
    "/vsigs/": "gs://",
    "/vsiaz/": "az://",
    "/vsiadls/": "abfs://",
}
# Azure shared access signatures: every field of the token, `sig` being its proof.
_SAS = frozenset(
    {"sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr", "sig", "si", "sdd", "scid"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid"}
)
_CLOUDFRONT = frozenset({"policy", "signature", "key-pair-id", "expires"})
_S3_V2 = frozenset({"awsaccesskeyid", "signature", "expires"})
_GOOGLE_V2 = frozenset({"googleaccessid", "signature", "expires"})
_TOKENS = frozenset(
    {"token", "access_token", "api_key", "apikey", "api-key", "subscription-key", "authorization"}
)


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
    """Drop the user, the password and the signature or token of an href; keep other queries.

    Example:
        >>> unsigned("https://host/a.tif?version=2&sv=2024-01-01&sp=r&sig=abc")
        'https://host/a.tif?version=2'
    """
    if "://" not in href or ("?" not in href and "@" not in href):
        return href
    scheme, rest = href.split("://", 1)
    cut = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
    rest = rest[:cut].rsplit("@", 1)[-1] + rest[cut:]
    path, mark, query = rest.partition("?")
    if not mark:
        return f"{scheme}://{rest}"
    query, fragment_mark, fragment = query.partition("#")
    kept = "&".join(_without_signature(query.split("&")))
    return f"{scheme}://{path}{'?' if kept else ''}{kept}{fragment_mark}{fragment}"


def _without_signature(parameters: list[str]) -> list[str]:
    names = {unquote(parameter.split("=", 1)[0]).lower() for parameter in parameters}
    dropped = set(_TOKENS)
    if "sig" in names:
        dropped |= _SAS
    for signature, proof in (
        (_CLOUDFRONT, "key-pair-id"),
        (_S3_V2, "awsaccesskeyid"),
        (_GOOGLE_V2, "googleaccessid"),
    ):
        if proof in names:
            dropped |= signature

    def is_kept(parameter: str) -> bool:
        name = unquote(parameter.split("=", 1)[0]).lower()
        return name not in dropped and not name.startswith(("x-amz-", "x-goog-"))

    return [parameter for parameter in parameters if is_kept(parameter)]
