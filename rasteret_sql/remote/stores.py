"""From an href to where its bytes lie: a path on disk, or a store and a key in it.

A store is a client with its own pool of connections, so there is one for each bucket or
origin and the options in force, for the whole process.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from obstore.store import HTTPStore

from rasteret_sql.errors import InputError, ReadError, redact
from rasteret_sql.remote.clouds import (
    Bucket,
    Signer,
    bucket_store,
    client_options,
    has_credentials,
    parse_object,
    retry_config,
    signer_of,
    signs_first,
)
from rasteret_sql.remote.config import Storage, StorageOptions
from rasteret_sql.remote.exact import ExactUrl
from rasteret_sql.remote.signers import SignedHref

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_N_LOCATIONS = 16384
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LEGAL = "/%!$&'()*+,;=:@~-._"
# obstore takes a decoded key and encodes it anew; only these paths come out as they went in
_STABLE_PATH = re.compile(
    r"(?:/(?:[A-Za-z0-9!$&'()*+,;=:@~_.-]|%(?:2[0235]|3[CEF]|60|7[BD]|[89A-F][0-9A-F]))+)+"
)
# an Azure signature of a container, directory or account holds for all blobs in it
_SHARED_SIGNATURE = re.compile(r"(?:^|&)(?:sr=[cd]|ss=[a-z]+)(?:&|$)")
_IF_DENIED = {
    "s3": "give credentials with rasteret_sql.storage(...) or AWS_*, or set requester_pays; "
    "S3 also refuses what is not there",
    "gs": "give credentials with rasteret_sql.storage(...) or GOOGLE_*",
    "az": "give credentials or a signer with rasteret_sql.storage(...), or AZURE_*",
    "http": "give headers with rasteret_sql.storage(...)",
    "signed": "the signature may have ended; sign anew, or set a signer with rasteret_sql.storage",
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of an href lie.

    Attributes:
        href: the address for messages, without user, password, query and fragment.
        path: the key within the store, or the absolute path of a local file.
        store: None for a local file.
        source: the href as it was given.
        if_denied: what the user can do if the store refuses.
        prepare: has a token ready, or raises what is wrong with it.
        refused: what to sign from now on, if the store refuses the unknown.
    """

    href: str
    path: str
    store: ObjectStore | ExactUrl | None = field(repr=False)
    source: str = field(default="", repr=False)
    if_denied: str = field(default="", repr=False)
    prepare: Callable[[], None] | None = field(default=None, repr=False)
    refused: Bucket | None = field(default=None, repr=False)


def is_remote(href: str) -> bool:
    """Whether the bytes come over a network.

    Example:
        >>> is_remote("s3://bucket/a.tif"), is_remote("file:///a.tif"), is_remote("C:/a.tif")
        (True, False, False)
    """
    return bool(_SCHEME.match(href)) and href[:7].lower() != "file://"


def is_local(href: str) -> bool:
    """Whether the href is a path or a ``file://`` URL of this machine."""
    return not is_remote(href)


def rewrite(href: str, mapping: Mapping[str, str]) -> str:
    """Put another prefix in place of the longest that the mapping names.

    Example:
        >>> rewrite("https://a.org/data/x.tif", {"https://a.org/": "s3://b/"})
        's3://b/data/x.tif'
    """
    for prefix in sorted(mapping, key=len, reverse=True):
        if prefix and href.startswith(prefix):
            return mapping[prefix] + href[len(prefix) :]
    return href


def storage(prefix: str, **options: object) -> None:
    """Say how to reach what lies under a URL prefix, for this process.

    It goes before the TOML file (see `rasteret_sql.remote.config`). Stores that are in use
    finish their requests; the next request uses the new options.

    Args:
        prefix: start of the hrefs; the longest that fits wins; ``*`` stands for any text
            without a slash. ``s3://bucket/`` also fits the bucket's ``https://`` form.
        options: see `StorageOptions`; none at all forgets the prefix.

    Raises:
        InputError: an option that does not exist, or a value of another type.

    Example:
        >>> storage("s3://usgs-landsat/", requester_pays=True)
        >>> storage("s3://usgs-landsat/")
    """
    _config.configure(prefix, options)
    _forget_stores()


def set_storage_defaults(prefix: str, **options: object) -> None:
    """Set how files under a prefix are reached, unless `storage` or the TOML file say it.

    Args:
        prefix: start of the hrefs, as for `storage`; the first defaults for it stay.
        options: see `StorageOptions`.
    """
    if _config.set_defaults(prefix, options):
        _forget_stores()


def reload_storage() -> None:
    """Forget all stores and what `storage` was told; read the TOML file anew."""
    global _config
    _config = Storage()
    _forget_stores()


def guard(check: Callable[[str], None] | None) -> None:
    """Ask before anything is opened, for this process: ``check(href)`` raises to refuse."""
    global _guard
    _guard = check


def locate(href: str) -> Location:
    """Find the store and the key of an href; stores are made once and shared.

    Args:
        href: a path (relative ones start at the working directory), a ``file://`` URL, or
            the URL of a web server or cloud: ``http(s)``, ``s3``, ``gs``, ``az``, ``abfs(s)``.

    Raises:
        InputError: a scheme that is none of these, or options that do not fit.
    """
    if _guard is not None:
        _guard(href)
    if is_local(href):
        return Location(href=href, path=_local_path(href), store=None, source=href)
    return _locate_remote(_signed.get(href, href), _generation)


def with_credentials(location: Location) -> Location | None:
    """Locate what was refused to the unknown, to ask signed; None without credentials."""
    bucket = location.refused
    if bucket is None or not has_credentials(bucket.cloud):
        return None
    target = _config.rewritten(location.source)
    options = _config.options_for(target, bucket.address + location.path)
    return _locate_object(location.source, target, (bucket, location.path), options, signed=True)


def sign_from_now_on(location: Location) -> None:
    """Sign all requests to a bucket that refused the unknown and took the signed one.

    Not before it did: the environment's keys may be stale, and S3 refuses the unknown the
    objects that are missing from a public bucket.
    """
    global _generation
    if location.refused is not None:
        with _lock:
            _refusing.add(location.refused)
            _generation += 1


def web_address(url: str) -> tuple[str, StorageOptions]:
    """Where a document of the web is asked for, and how: for clients of other kinds than ours."""
    target = _config.rewritten(url)
    return target, _config.options_for(target)


def kept_query(href: str) -> tuple[str, ...]:
    """Names of the query parameters of an href that are stored though they look like secrets."""
    return tuple(_config.options_for(href).keep_query or ())


def remember_signed(plain: str, signed: str) -> None:
    """Have an address that is stored without its secrets read with them, in this process.

    Args:
        plain: as it is stored.
        signed: as it is asked for; the same as ``plain`` forgets it.
    """
    if plain == signed:
        _signed.pop(plain, None)
    else:
        _signed[plain] = signed


def signed_form(href: str) -> str:
    """The address with the secrets that `remember_signed` was told."""
    return _signed.get(href) or _signed.get(href.rstrip("/"), href)


def whole_url(location: Location) -> ExactUrl | None:
    """Return the web address of a location as it stands; None if it is no plain one."""
    target = _config.rewritten(location.source)
    if not isinstance(location.store, HTTPStore):
        return None
    return ExactUrl(lambda: target, _config.options_for(target))


def _local_path(href: str) -> str:
    if href[:7].lower() == "file://":
        # file://localhost/a and file:///a name the same file
        return unquote(urlsplit(href).path)
    return href if href.startswith(os.sep) else str(Path(href).absolute())


@functools.lru_cache(maxsize=_N_LOCATIONS)
def _locate_remote(href: str, _: int) -> Location:
    """Locate under the options of one generation, which is part of the cache's key."""
    target = _config.rewritten(href)
    if is_local(target):
        return Location(href=target, path=_local_path(target), store=None, source=href)
    is_http = target.split("://", 1)[0].lower() in {"http", "https"}
    found = parse_object(target)
    if found is None:
        if is_http:
            return _locate_http(href, target, _config.options_for(target))
        known = "a path or a URL of http, https, s3, gs, az or abfs"
        raise InputError.expected(redact(target), known, "another scheme", "check the href")
    bucket, key = found
    options = _config.options_for(target, bucket.address + key)
    is_plain_key = not {"", ".", ".."} & set(key.split("/"))  # to obstore
    signed = bucket in _refusing or signs_first(bucket, options)
    is_public = _forked and not signed and options.endpoint is None
    if is_http and (callable(options.signer) or not is_plain_key or is_public):
        return _locate_http(href, target, options)
    if not is_plain_key:
        names = "a key without empty names and dots between its slashes"
        raise InputError.expected(redact(target), names, key, "use the https:// form of the URL")
    return _locate_object(href, target, found, options, signed=signed)


def _locate_object(
    href: str, target: str, found: tuple[Bucket, str], options: StorageOptions, *, signed: bool
) -> Location:
    bucket, key = found
    if _forked:
        raise ReadError(
            f"{redact(target)}: expected a process that was not forked from one that reads, "
            "got a fork; use the https:// form, or multiprocessing's 'spawn'"
        )
    store, signer = _shared(
        (bucket, options, signed),
        lambda: _with_signer(bucket, options, signed=signed),
    )
    return Location(
        href=redact(target),
        path=key,
        store=store,
        source=href,
        if_denied=_IF_DENIED[bucket.cloud],
        prepare=signer.prepare if signer else None,
        refused=None if signed or options.anonymous or bucket.cloud == "az" else bucket,
    )


def _with_signer(
    bucket: Bucket, options: StorageOptions, *, signed: bool
) -> tuple[ObjectStore, Signer | None]:
    signer = signer_of(bucket, options)
    return bucket_store(bucket, options, signer, signed=signed), signer


def _locate_http(href: str, target: str, options: StorageOptions) -> Location:
    parts = urlsplit(target)
    origin = f"{parts.scheme}://{parts.netloc}"
    path = quote(parts.path, safe=_LEGAL)
    if_denied = _IF_DENIED["signed" if parts.query else "http"]
    shared = not parts.query or bool(_SHARED_SIGNATURE.search(parts.query))
    stable = _STABLE_PATH.fullmatch(path) and not {".", ".."} & set(path.split("/"))
    special = callable(options.signer) or "@" in parts.netloc or _forked
    if stable and shared and not special:
        base = origin + (f"?{parts.query}" if parts.query else "")
        store, _ = _shared((base, options), lambda: (_http_store(base, options), None))
        return Location(redact(target), unquote(path)[1:], store, href, if_denied)
    url = origin + path + (f"?{parts.query}" if parts.query else "")
    with _lock:  # or each lane that asks for a new href would sign it
        return Location(redact(target), path, _exact_url(url, options), href, if_denied)


@functools.lru_cache(maxsize=_N_LOCATIONS)
def _exact_url(url: str, options: StorageOptions) -> ExactUrl:
    if callable(options.signer):
        return ExactUrl(SignedHref(url, options.signer), options)
    return ExactUrl(lambda: url, options)


def _http_store(base: str, options: StorageOptions) -> HTTPStore:
    return HTTPStore.from_url(
        base,
        client_options=client_options(options, base),
        retry_config=retry_config(options),
    )


_Shared = tuple["ObjectStore", "Signer | None"]


@dataclass(slots=True)
class _Slot:
    """A store to be; whoever comes first makes it, and holds up only those who need it too."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made: _Shared | None = None


_config = Storage()
_guard: Callable[[str], None] | None = None
_signed: dict[str, str] = {}
_slots: dict[object, _Slot] = {}
_refusing: set[Bucket] = set()
_lock = threading.Lock()
_forked = False
_generation = 0


def _shared(key: object, make: Callable[[], _Shared]) -> _Shared:
    with _lock:
        slot = _slots.setdefault(key, _Slot())
    with slot.lock:
        if slot.made is None:
            slot.made = make()
        return slot.made


def _forget_stores() -> None:
    global _generation
    with _lock:
        _generation += 1
        _slots.clear()
        _refusing.clear()
        _exact_url.cache_clear()
        _locate_remote.cache_clear()


def _start_over() -> None:
    """Once obstore's threads run, they are missing in a forked child: its calls would hang."""
    global _lock, _forked  # the parent may have held the lock
    _lock = threading.Lock()
    _forked = _forked or bool(_slots)
    _forget_stores()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
