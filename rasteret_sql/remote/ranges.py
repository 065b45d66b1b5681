"""Byte ranges of files: fetched, checked, tried again, merged."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import obstore
from obstore.exceptions import BaseError, NotSupportedError

from rasteret_sql.errors import InputError, ReadError, TruncatedError
from rasteret_sql.remote.exact import Answer, ExactUrl, TransferError
from rasteret_sql.remote.faults import is_cut, is_refusal, raise_local, raise_remote, status_of
from rasteret_sql.remote.stores import (
    Location,
    is_local,
    locate,
    sign_from_now_on,
    whole_url,
    with_credentials,
)
from rasteret_sql.remote.waiting import interruptible

if TYPE_CHECKING:
    from obstore import Bytes
    from obstore.store import ObjectStore

_N_TRIES = 3
_SMALL_FILE_BYTES = 8 << 20
_GAP_BYTES = 16
_MOST_BYTES = 64 << 20
"""Of one request: with the limit of its time that is a least rate of some 200 KiB a second."""

# obstore tells of a key that it can't take with a ValueError
_FAULTS = (BaseError, OSError, ValueError, TransferError)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Start:
    """The first bytes of a file.

    Attributes:
        data: fewer than asked for if the file is shorter.
        size: length of the file in bytes; None if the server does not say.
        etag: what the server calls this version; None if it does not say.
    """

    data: bytes
    size: int | None
    etag: str | None


class MergedRange(NamedTuple):
    """Bytes ``[start, stop)`` to fetch at once; ``members`` index the ranges within."""

    start: int
    stop: int
    members: tuple[int, ...]


def get_range(href: str, start: int, length: int) -> Bytes | bytes:
    """Fetch ``length`` bytes from byte ``start`` on.

    Args:
        href: path or URL.
        start: offset of the first byte.
        length: number of bytes, at least 1.

    Returns:
        A buffer of exactly ``length`` bytes; `memoryview` and `bytes` take it.

    Raises:
        NotFoundError: there is no such file.
        AccessDeniedError: the store refuses it.
        TruncatedError: the file ends before.
        ReadError: fewer bytes came, or none.
    """
    if start < 0 or length < 1:
        raise InputError.expected(
            "range", "start >= 0 and length >= 1", (start, length), "check the tile's offset"
        )
    location = _located(href)
    what = f"bytes {start}-{start + length}"
    if location.store is None:
        data: Bytes | bytes = _local_range(location, start, length, what)
    elif length <= _MOST_BYTES:
        data = with_retries(location, what, lambda place: _remote_range(place, start, length))
    else:
        stop = start + length
        firsts = range(start, stop, _MOST_BYTES)
        data = b"".join(get_range(href, at, min(_MOST_BYTES, stop - at)) for at in firsts)
    if len(data) != length:
        raise _short(location, what, length, len(data))
    return data


def get_start(href: str, length: int = 16384) -> Start:
    """Fetch the first bytes of a file, its size and its ETag in one request.

    Raises:
        NotFoundError: there is no such file.
        AccessDeniedError: the store refuses it.
        ReadError: the bytes did not come.
    """
    location = _located(href)
    what = "the start of the file"
    if location.store is None:
        return _local_start(location, length)
    return with_retries(location, what, lambda place: _remote_start(place, length))


def stat(href: str) -> tuple[int | None, str | None]:
    """Ask for the size in bytes and the ETag of a file.

    Raises:
        NotFoundError: there is no such file.
        AccessDeniedError: the store refuses it.
        ReadError: no answer came.
    """
    location = _located(href)
    if location.store is None:
        try:
            facts = Path(location.path).stat()
        except OSError as error:
            raise_local(location.href, "a file", error)
        return facts.st_size, _local_etag(facts)
    return with_retries(location, "a file", _remote_stat)


def merge_ranges(
    ranges: Sequence[tuple[int, int]], *, max_bytes: int = 2 << 20
) -> list[MergedRange]:
    """Join ranges that lie next to each other in the file.

    Whole-image merges are slow under caps per connection, so only neighbours are joined
    (at most 16 bytes apart: a GDAL COG puts 4 bytes before and 4 after each tile).

    Args:
        ranges: ``(start, stop)`` in bytes, half-open, in any order; empty ones are left out.
        max_bytes: length of a merged range that is not passed; a longer one stays alone.

    Returns:
        By start; every range that is not empty is a member of exactly one.

    Example:
        >>> merged = merge_ranges([(108, 200), (0, 100), (900, 950)])
        >>> [(m.start, m.stop, m.members) for m in merged]
        [(0, 200, (1, 0)), (900, 950, (2,))]
    """
    order = sorted(
        (i for i, (start, stop) in enumerate(ranges) if stop > start), key=lambda i: ranges[i]
    )
    merged: list[MergedRange] = []
    for i in order:
        start, stop = ranges[i]
        if merged:
            last = merged[-1]
            joint_stop = max(last.stop, stop)
            near = start <= last.stop + _GAP_BYTES
            if near and (joint_stop == last.stop or joint_stop - last.start <= max_bytes):
                merged[-1] = MergedRange(last.start, joint_stop, (*last.members, i))
                continue
        merged.append(MergedRange(start, stop, (i,)))
    return merged


def _located(href: str) -> Location:
    """As `locate`, which may ask S3 for the region of a bucket."""
    return locate(href) if is_local(href) else interruptible(locate, href)


def _local_start(location: Location, length: int) -> Start:
    try:
        # pathlib would cost as much again as the reading
        with open(location.path, "rb", buffering=0) as file:  # noqa: PTH123
            facts = os.fstat(file.fileno())
            return Start(file.read(length), facts.st_size, _local_etag(facts))
    except OSError as error:
        raise_local(location.href, "a file", error)


def _local_etag(facts: os.stat_result) -> str:
    return f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'


def _local_range(location: Location, start: int, length: int, what: str) -> bytes:
    try:
        with Path(location.path).open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)
    except OSError as error:
        raise_local(location.href, what, error)


def _remote_range(location: Location, start: int, length: int) -> Bytes | bytes:
    store = store_of(location)
    if isinstance(store, ExactUrl):
        return store.get(start, length, whole_max_bytes=_SMALL_FILE_BYTES).data
    try:
        return obstore.get_range(store, location.path, start=start, length=length)
    except NotSupportedError:
        return _of_whole(location, start, length).data


def _remote_start(location: Location, length: int) -> Start:
    store = store_of(location)
    try:
        if isinstance(store, ExactUrl):
            answer = store.get(0, length, whole_max_bytes=_SMALL_FILE_BYTES)
            return Start(answer.data, answer.size, answer.etag)
        got = obstore.get(store, location.path, options={"range": (0, length)})
    except NotSupportedError:
        answer = _of_whole(location, 0, length)
        return Start(answer.data, answer.size, answer.etag)
    except (BaseError, TransferError) as error:
        if status_of(error) == 416:  # no file is too short to have a start, but an empty one
            return Start(b"", 0, None)
        raise
    return Start(bytes(got.bytes()), got.meta["size"], got.meta["e_tag"])


def _of_whole(location: Location, start: int, length: int) -> Answer:
    """Fetch a range from a server that sends the whole file; obstore let go of that."""
    url = whole_url(location)
    if url is None:
        raise TransferError("the whole file instead of a range")
    return url.get(start, length, whole_max_bytes=_SMALL_FILE_BYTES)


def _remote_stat(location: Location) -> tuple[int | None, str | None]:
    store = store_of(location)
    if isinstance(store, ExactUrl):
        answer = store.head()
        return answer.size, answer.etag
    meta = obstore.head(store, location.path)
    return meta["size"], meta["e_tag"]


def store_of(location: Location) -> ObjectStore | ExactUrl:
    """The store of a remote location, with a token that holds."""
    if location.prepare is not None:
        location.prepare()
    return cast("ObjectStore | ExactUrl", location.store)


def with_retries(location: Location, what: str, fetch: Callable[[Location], _T]) -> _T:
    """Fetch; ask once more as somebody if nobody is refused, and again if the body was cut.

    Args:
        location: where.
        what: is asked for, in words.
        fetch: asks; gets the location, or the same one with credentials.
    """
    n_cut = 0
    signed: Location | None = None
    while True:
        try:
            found = interruptible(fetch, signed or location)
        except _FAULTS as error:
            if signed is None and is_refusal(error):
                signed = with_credentials(location)
                if signed is not None:
                    continue
            n_cut += is_cut(error)
            if not is_cut(error) or n_cut == _N_TRIES:
                raise_remote(location.href, what, error, location.if_denied)
        else:
            if signed is not None:
                sign_from_now_on(location)
            return found


def _short(location: Location, what: str, expected: int, got: int) -> ReadError:
    return TruncatedError(
        f"{location.href} {what}: expected {expected} bytes, got {got}; the file may be truncated"
    )
