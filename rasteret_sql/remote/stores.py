"""From an href to where its bytes lie: a path on disk, or a store and a key in it.

A store is a client with its own pool of connections, so there is one for each bucket or
origin and the options in force, and all of a database instance are in its `Stores`.

Whoever works for a statement says with `Stores.in_use` which stores it works with; everything
below on that thread, and every job that it gives to a lane (`remote.lanes`), uses these. It is
said where DuckDB calls us, anew for each batch: its threads change and have no context.
"""

from __future__ import annotations

import functools
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
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


_Shared = tuple["ObjectStore", "Signer | None"]


@dataclass(slots=True)
class _Slot:
    """A store to be; whoever comes first makes it, and holds up only those who need it too."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made: _Shared | None = None


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


def _local_path(href: str) -> str:
    if href[:7].lower() == "file://":
        # file://localhost/a and file:///a name the same file
        return unquote(urlsplit(href).path)
    return href if href.startswith(os.sep) else str(Path(href).absolute())


class Stores:
    """The stores of a database instance, what it was told of them, and whom it asks first.

    Args:
        check: asked before anything is opened: ``check(href)`` raises to refuse.

    Example:
        >>> mine, yours = Stores(), Stores()
        >>> mine.configure("s3://payers/", {"requester_pays": True})
        >>> with mine.in_use():
        ...     web_address("s3://payers/a.tif")[1].requester_pays
        True
        >>> with yours.in_use():
        ...     web_address("s3://payers/a.tif")[1].requester_pays
        False
    """

    def __init__(self, check: Callable[[str], None] | None = None) -> None:
        self.check = check
        self._config = Storage()
        self._signed: dict[str, str] = {}
        self._slots: dict[object, _Slot] = {}
        self._refusing: set[Bucket] = set()
        self._lock = threading.Lock()
        self._generation = 0
        self._forget()
        _all.add(self)

    @contextmanager
    def in_use(self) -> Iterator[Stores]:
        """Have what is read inside, on this thread and on the lanes it gives jobs to, use these."""
        token = _in_use.set(self)
        try:
            yield self
        finally:
            _in_use.reset(token)

    def configure(self, prefix: str, options: Mapping[str, object]) -> None:
        """Say how to reach what lies under a URL prefix; no options forget the prefix.

        It goes before the TOML file (see `rasteret_sql.remote.config`). Stores that are in use
        finish their requests; the next request uses the new options.

        Raises:
            InputError: an option that does not exist, or a value of another type.
        """
        self._config.configure(prefix, options)
        self._forget()

    def set_defaults(self, prefix: str, options: Mapping[str, object]) -> None:
        """Set how files under a prefix are reached, unless `configure` or the TOML file say it.

        Args:
            prefix: start of the hrefs; the first defaults for it stay.
            options: see `StorageOptions`.
        """
        if self._config.set_defaults(prefix, options):
            self._forget()

    def locate(self, href: str) -> Location:
        """As `locate`."""
        if self.check is not None:
            self.check(href)
        if is_local(href):
            return Location(href=href, path=_local_path(href), store=None, source=href)
        return self._locate_remote(self._signed.get(href, href), self._generation)

    def with_credentials(self, location: Location) -> Location | None:
        """As `with_credentials`."""
        bucket = location.refused
        if bucket is None or not has_credentials(bucket.cloud):
            return None
        target = self._config.rewritten(location.source)
        options = self._config.options_for(target, bucket.address + location.path)
        found = bucket, location.path
        return self._locate_object(location.source, target, found, options, signed=True)

    def sign_from_now_on(self, location: Location) -> None:
        """As `sign_from_now_on`."""
        if location.refused is not None:
            with self._lock:
                self._refusing.add(location.refused)
                self._generation += 1

    def options_of(self, href: str) -> tuple[str, StorageOptions]:
        """The address that is asked instead of an href, and its options."""
        target = self._config.rewritten(href)
        return target, self._config.options_for(target)

    def access_to(self, href: str) -> object:
        """What decides who may see the bytes of an href: the same for those who share them."""
        if self.check is None and is_local(href):
            return None
        asked = self._signed.get(href, href)
        target = self._config.rewritten(asked)
        found = None if is_local(target) else parse_object(target)
        names = (target,) if found is None else (target, found[0].address + found[1])
        options = self._config.options_for(*names)
        secret = None if asked == href else asked
        return target, options, self._config.options_for(asked), secret, self.check

    def kept_query(self, href: str) -> tuple[str, ...]:
        """As `kept_query`."""
        return tuple(self._config.options_for(href).keep_query or ())

    def remember_signed(self, plain: str, signed: str) -> None:
        """As `remember_signed`."""
        if plain == signed:
            self._signed.pop(plain, None)
        else:
            self._signed[plain] = signed

    def signed_form(self, href: str) -> str:
        """As `signed_form`."""
        return self._signed.get(href) or self._signed.get(href.rstrip("/"), href)

    def start_over(self) -> None:
        """Let go of what a forked child can't use: the parent's clients, and locks it held."""
        self._lock = threading.Lock()
        self._forget()

    def has_stores(self) -> bool:
        """Whether a client was made."""
        return bool(self._slots)

    def _forget(self) -> None:
        with self._lock:
            self._generation += 1
            self._slots.clear()
            self._refusing.clear()
            self._locate_remote = functools.lru_cache(maxsize=_N_LOCATIONS)(self._find_remote)
            self._exact_url = functools.lru_cache(maxsize=_N_LOCATIONS)(_exact_url)

    def _find_remote(self, href: str, _: int) -> Location:
        """Locate under the options of one generation, which is part of the cache's key."""
        target = self._config.rewritten(href)
        if is_local(target):
            return Location(href=target, path=_local_path(target), store=None, source=href)
        is_http = target.split("://", 1)[0].lower() in {"http", "https"}
        found = parse_object(target)
        if found is None:
            if is_http:
                return self._locate_http(href, target, self._config.options_for(target))
            known = "a path or a URL of http, https, s3, gs, az or abfs"
            raise InputError.expected(redact(target), known, "another scheme", "check the href")
        bucket, key = found
        options = self._config.options_for(target, bucket.address + key)
        is_plain_key = not {"", ".", ".."} & set(key.split("/"))  # to obstore
        signed = bucket in self._refusing or signs_first(bucket, options)
        is_public = _forked and not signed and options.endpoint is None
        if is_http and (callable(options.signer) or not is_plain_key or is_public):
            return self._locate_http(href, target, options)
        if not is_plain_key:
            names = "a key without empty names and dots between its slashes"
            raise InputError.expected(
                redact(target), names, key, "use the https:// form of the URL"
            )
        return self._locate_object(href, target, found, options, signed=signed)

    def _locate_object(
        self,
        href: str,
        target: str,
        found: tuple[Bucket, str],
        options: StorageOptions,
        *,
        signed: bool,
    ) -> Location:
        bucket, key = found
        if _forked:
            raise ReadError(
                f"{redact(target)}: expected a process that was not forked from one that reads, "
                "got a fork; use the https:// form, or multiprocessing's 'spawn'"
            )
        store, signer = self._shared(
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

    def _locate_http(self, href: str, target: str, options: StorageOptions) -> Location:
        parts = urlsplit(target)
        origin = f"{parts.scheme}://{parts.netloc}"
        path = quote(parts.path, safe=_LEGAL)
        if_denied = _IF_DENIED["signed" if parts.query else "http"]
        shared = not parts.query or bool(_SHARED_SIGNATURE.search(parts.query))
        stable = _STABLE_PATH.fullmatch(path) and not {".", ".."} & set(path.split("/"))
        special = callable(options.signer) or "@" in parts.netloc or _forked
        if stable and shared and not special:
            base = origin + (f"?{parts.query}" if parts.query else "")
            store, _ = self._shared((base, options), lambda: (_http_store(base, options), None))
            return Location(redact(target), unquote(path)[1:], store, href, if_denied)
        url = origin + path + (f"?{parts.query}" if parts.query else "")
        with self._lock:  # or each lane that asks for a new href would sign it
            return Location(redact(target), path, self._exact_url(url, options), href, if_denied)

    def _shared(self, key: object, make: Callable[[], _Shared]) -> _Shared:
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
        with slot.lock:
            if slot.made is None:
                slot.made = make()
            return slot.made


def _with_signer(
    bucket: Bucket, options: StorageOptions, *, signed: bool
) -> tuple[ObjectStore, Signer | None]:
    signer = signer_of(bucket, options)
    return bucket_store(bucket, options, signer, signed=signed), signer


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


_all: weakref.WeakSet[Stores] = weakref.WeakSet()
_forked = False
_of_account = Stores()
"""For whoever asks outside a statement: the TOML file and the environment alone."""
_in_use: ContextVar[Stores] = ContextVar("rasteret_sql_stores")


def stores_in_use() -> Stores:
    """The stores that this thread works with."""
    return _in_use.get(_of_account)


def locate(href: str) -> Location:
    """Find the store and the key of an href; stores are made once and shared.

    Args:
        href: a path (relative ones start at the working directory), a ``file://`` URL, or
            the URL of a web server or cloud: ``http(s)``, ``s3``, ``gs``, ``az``, ``abfs(s)``.

    Raises:
        InputError: a scheme that is none of these, or options that do not fit.
    """
    return stores_in_use().locate(href)


def with_credentials(location: Location) -> Location | None:
    """Locate what was refused to the unknown, to ask signed; None without credentials."""
    return stores_in_use().with_credentials(location)


def sign_from_now_on(location: Location) -> None:
    """Sign all requests to a bucket that refused the unknown and took the signed one.

    Not before it did: the environment's keys may be stale, and S3 refuses the unknown the
    objects that are missing from a public bucket.
    """
    stores_in_use().sign_from_now_on(location)


def web_address(url: str) -> tuple[str, StorageOptions]:
    """Where a document of the web is asked for, and how: for clients of other kinds than ours."""
    return stores_in_use().options_of(url)


def kept_query(href: str) -> tuple[str, ...]:
    """Names of the query parameters of an href that are stored though they look like secrets."""
    return stores_in_use().kept_query(href)


def access_to(href: str) -> object:
    """What decides who may see the bytes of an href, as a part of the keys of caches.

    Bytes that one instance fetched with its options, and whoever checks what it opens, are
    not shown to an instance with others.
    """
    return stores_in_use().access_to(href)


def remember_signed(plain: str, signed: str) -> None:
    """Have an address that is stored without its secrets read with them, by this instance.

    Args:
        plain: as it is stored.
        signed: as it is asked for; the same as ``plain`` forgets it.
    """
    stores_in_use().remember_signed(plain, signed)


def signed_form(href: str) -> str:
    """The address with the secrets that `remember_signed` was told."""
    return stores_in_use().signed_form(href)


def whole_url(location: Location) -> ExactUrl | None:
    """Return the web address of a location as it stands; None if it is no plain one."""
    if not isinstance(location.store, HTTPStore):
        return None
    target, options = web_address(location.source)
    return ExactUrl(lambda: target, options)


def _start_over() -> None:
    """Once obstore's threads run, they are missing in a forked child: its calls would hang."""
    global _forked
    _forked = _forked or any(one.has_stores() for one in _all)
    for one in _all:
        one.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
