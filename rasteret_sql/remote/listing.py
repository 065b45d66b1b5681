"""Files below a prefix of a bucket; web servers have no listing to ask for."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import obstore
from obstore.store import HTTPStore

from rasteret_sql.errors import InputError
from rasteret_sql.remote.exact import ExactUrl
from rasteret_sql.remote.ranges import store_of, with_retries
from rasteret_sql.remote.stores import Location, locate
from rasteret_sql.remote.waiting import interruptible


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a listing.

    Attributes:
        href: its address, in the form of the folder's.
        size: in bytes.
        version: changes with its content: the ETag, else the time of its last change.
    """

    href: str
    size: int
    version: str


def list_files(folder: str) -> list[Listed]:
    """All files below a remote folder, by name.

    Raises:
        InputError: it lies on a web server.
        AccessDeniedError: the store refuses to list.
        ReadError: no answer came.
    """
    base = folder.rstrip("/")
    inside = interruptible(locate, f"{base}/_")  # a folder has no key, a file in it has
    if inside.store is None or isinstance(inside.store, ExactUrl | HTTPStore):
        raise InputError.expected(
            folder,
            "one file, as a web server lists none",
            "a folder",
            "name the file, or use s3://, gs:// or az://",
        )
    prefix = inside.path.removesuffix("_")

    def ask(place: Location) -> list[Listed]:
        chunks = obstore.list(store_of(place), prefix.rstrip("/") or None)  # type: ignore[arg-type]
        return [
            Listed(
                f"{base}/{_spelled(one['path'].removeprefix(prefix), base)}",
                one["size"],
                one["e_tag"] or str(one["last_modified"]),
            )
            for chunk in chunks
            for one in chunk
        ]

    return sorted(with_retries(inside, "a listing", ask), key=lambda one: one.href)


def _spelled(key: str, base: str) -> str:
    """A key as its URL has it: clouds' own schemes take it as it is."""
    return quote(key) if base.lower().startswith(("http://", "https://")) else key
