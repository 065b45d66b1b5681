"""What is a secret in an address: decided here alone, for all that is stored or shown.

Always the user and password. Of the parameters, those whose decoded name says so (`is_secret`),
and what belongs to a signature. A parameter may stand behind ``?``, ``&``, ``;``, ``#`` or
``&amp;``, also without a ``?`` before it, and in an address that is part of another one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote, unquote, urlsplit

_SECRET_NAME = re.compile(
    "key|token|secret|pass|pwd|sig|auth|cred|jwt|code|session|bearer|hmac|sas|^x-amz-|^x-goog-",
    re.IGNORECASE,
)
# Azure shared access signatures: every field of the token, `sig` being its proof.
_SAS = frozenset(
    {"sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr", "sig", "si", "sdd", "scid"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid"}
)
_BESIDE = {
    "sig": _SAS,
    "key-pair-id": frozenset({"policy", "expires"}),
    "awsaccesskeyid": frozenset({"expires"}),
    "googleaccessid": frozenset({"expires", "googleaccessid"}),
}
"""What goes with a parameter of this name."""

_SEPARATOR = re.compile(r"(&amp;|[?&;#])")
_USER = re.compile(r"((?:^|[A-Za-z][A-Za-z0-9+.-]*:)//)[^/?#\s]*@")
_LONG_PASSWORD = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)[^/?#@\s\[]*:(?!\d+[/?#])[^@]*@")
_NO_SCHEME = re.compile(r"^[^\s/?#@:]+:[^\s/?#@]+@(?=[^\s/]+/)")
_MAY_HOLD = re.compile(r"[?&;#@%]")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
"""An address in a text."""

_WORD = re.compile(r"[^\s'\"<>]+")
_MAX_DECODINGS = 4


def is_secret(name: str) -> bool:
    """Whether the name of a parameter says that its value is a secret.

    Example:
        >>> [name for name in ("sig", "X-Api-Key", "A%75th", "version") if is_secret(name)]
        ['sig', 'X-Api-Key', 'A%75th']
    """
    return bool(_SECRET_NAME.search(_decoded(name).strip()))


def without_secrets(href: str, keep: Collection[str] = ()) -> str:
    """Drop user, password and secret parameters of an address; the rest stays as it is.

    Args:
        href: a URL, a path, a GDAL name.
        keep: names of parameters that are no secrets here, in any case.

    Example:
        >>> without_secrets("https://me:pw@host/a.tif?version=2&api_key=S#page")
        'https://host/a.tif?version=2#page'
        >>> without_secrets("https://host/a.tif?code=S", keep=["code"])
        'https://host/a.tif?code=S'
    """
    if not _MAY_HOLD.search(href):
        return href
    text = _NO_SCHEME.sub("", _USER.sub(r"\1", _LONG_PASSWORD.sub(r"\1", href)))
    first, *rest = _SEPARATOR.split(text)
    pairs = list(zip(rest[::2], rest[1::2], strict=True))
    names = {_name(part) for _, part in pairs}
    beside = frozenset[str]().union(*(_BESIDE[name] for name in names & _BESIDE.keys()))
    kept_names = {name.casefold() for name in keep}
    found = [_inner(first, "/", keep)]
    has_query = is_open = False
    for mark, part in pairs:
        has_query = has_query or mark == "?"
        name, has_value, value = part.partition("=")
        plain = _name(part)
        is_dropped = has_value and (is_secret(name) or plain in beside)
        if is_dropped and plain not in kept_names:
            continue
        if has_query and not is_open and mark in ("&", "&amp;"):
            mark = "?"
        is_open = is_open or mark == "?"
        found += [mark, f"{name}={_inner(value, '', keep)}" if has_value else part]
    return "".join(found)


def redact(text: str) -> str:
    """Drop user, password, query and fragment of an address, or of each one in a text.

    Example:
        >>> redact("s3://bucket/key.tif?X-Amz-Signature=abc")
        's3://bucket/key.tif'
        >>> redact("HTTP 500: see https://host/log?token=abc")
        'HTTP 500: see https://host/log'
    """
    return _shown(text) if URL.match(text) else redact_words(text)


def redact_words(text: str) -> str:
    """As `redact`, of a text that may begin with an address and go on behind it.

    Example:
        >>> redact_words("https://host/a.tif?sig=abc: expected 5 bytes; is it whole?")
        'https://host/a.tif: expected 5 bytes; is it whole?'
        >>> redact_words("//me:pw@host/a.tif or b.tif?sig=abc")
        '//host/a.tif or b.tif'
    """
    if not _MAY_HOLD.search(text):
        return text
    return _WORD.sub(lambda found: _shown_word(found[0]), text)


def _shown_word(word: str) -> str:
    if not _MAY_HOLD.search(word):
        return word
    end = len(word.rstrip(":;,.)")) if _SEPARATOR.search(word) else len(word)
    body, tail = word[:end], word[end:]
    found = URL.sub(lambda url: _shown(url[0]), body)
    return (without_secrets(found) if _is_address(found) else found) + tail


def _is_address(word: str) -> bool:
    return "=" in word or "@" in word or "%3d" in word.casefold()


def _shown(url: str) -> str:
    plain = without_secrets(url)
    try:
        parts = urlsplit(plain)
    except ValueError:
        return re.split("[?#]", plain, maxsplit=1)[0]
    host = parts.netloc.rsplit("@", 1)[-1]
    return f"{parts.scheme}://{host}{parts.path}"


def _name(parameter: str) -> str:
    return _decoded(parameter.partition("=")[0]).strip().casefold()


def _inner(text: str, separator: str, keep: Collection[str]) -> str:
    """A value, or each part of a path, without the secrets of an address written in it."""
    if "%" not in text:
        return text
    parts = text.split(separator) if separator else [text]
    return separator.join(_without_encoded(part, keep) for part in parts)


def _without_encoded(part: str, keep: Collection[str]) -> str:
    plain = unquote(part)
    if plain == part:
        return part
    found = without_secrets(plain, keep)
    return part if found == plain else quote(found, safe="")


def _decoded(text: str) -> str:
    for _ in range(_MAX_DECODINGS):
        plain = unquote(text)
        if plain == text:
            break
        text = plain
    return text
