"""A data set: where its records are, which bands it has, how its files are reached."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from rasteret_sql.errors import InputError, redact
from rasteret_sql.remote.stores import is_local, stores_in_use

ACCESS = ("open", "requester_pays", "signed")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")

Source: TypeAlias = Literal["built-in", "local"]


@dataclass(frozen=True)
class Dataset:
    """Where the records of a data set are and how to read them.

    Attributes:
        id: ``provider/name``.
        stac_api: as ``stac_api`` of ``rasteret_build_stac``; this or `record_table`.
        stac_collection: collection id in the API.
        record_table: path or URL of a Parquet file with a row per scene.
        column_map: source column to canonical column, of the record table.
        href_column: column with the file's URL, of the record table.
        band_map: band to asset key.
        band_index_map: band to sample in its file, from 0.
        url_rewrite: href prefix to the prefix that replaces it.
        access: ``open``; ``requester_pays``: the reader's S3 account; ``signed``: tokens of
            the Planetary Computer.
        access_prefixes: where the hrefs start for which `access` holds.
        spatial_coverage: in words.
        start_date: of the first scene.
        end_date: of the last; None where there are new ones still.
        source: ``built-in``, or ``local`` for one of the user's.
    """

    id: str
    name: str = ""
    description: str = ""
    stac_api: str | None = None
    stac_collection: str | None = None
    record_table: str | None = None
    column_map: Mapping[str, str] = field(default_factory=dict)
    href_column: str | None = None
    band_map: Mapping[str, str] = field(default_factory=dict)
    band_index_map: Mapping[str, int] = field(default_factory=dict)
    url_rewrite: Mapping[str, str] = field(default_factory=dict)
    access: str = "open"
    access_prefixes: tuple[str, ...] = ()
    spatial_coverage: str | None = None
    start_date: date | None = None
    end_date: date | None = None
    license: str | None = None
    license_url: str | None = None
    source: Source = "local"

    @classmethod
    def of(cls, id_: str, given: Mapping[str, object], source: Source = "local") -> Dataset:
        """A data set from its fields, checked; None is as good as absent.

        Raises:
            InputError: names the field.

        Example:
            >>> Dataset.of("mine/s2", {"stac_api": "s3://b/items.json"}).access
            'open'
        """
        if not _ID.fullmatch(id_):
            raise InputError.expected(
                "id", "letters, digits, '.', '_', '-', parts joined by '/'", id_, "as 'mine/s2'"
            )
        known = [f.name for f in fields(cls) if f.name not in ("id", "source")]
        found: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise InputError.expected(id_, f"one of {', '.join(known)}", name, "correct it")
            if value is not None:
                found[name] = _KINDS.get(name, _text)(name, value)
        dataset = cls(id_, **found, source=source)
        dataset._check()
        return dataset

    def _check(self) -> None:
        if (self.stac_api is None) == (self.record_table is None):
            got = "neither" if self.stac_api is None else "both"
            raise InputError.expected("stac_api", "stac_api or record_table", got, "give one")
        if self.access not in ACCESS:
            raise InputError.expected("access", " or ".join(ACCESS), self.access, "choose one")
        if (self.access == "open") == bool(self.access_prefixes):
            raise InputError.expected(
                "access_prefixes",
                "prefixes of hrefs where access is not 'open', and only there",
                ", ".join(self.access_prefixes) or "none",
                f"access is {self.access}",
            )
        unknown = sorted(set(self.band_index_map) - set(self.band_map))
        if self.band_map and unknown:
            listed = ", ".join(self.band_map)
            raise InputError.expected(
                "band_index_map", f"bands of band_map ({listed})", unknown, "name them there"
            )

    @property
    def bands(self) -> list[str]:
        """The bands it names; none where they are named after the assets."""
        return list(self.band_map or self.band_index_map)

    def fields(self) -> dict[str, Any]:
        """What was given for it, as JSON holds it."""
        plain = {k: v for k, v in asdict(self).items() if v and k not in ("id", "source")}
        for name, value in plain.items():
            if isinstance(value, date):
                plain[name] = value.isoformat()
            elif isinstance(value, tuple):
                plain[name] = list(value)
        return plain

    def set_storage_defaults(self) -> None:
        """Have its files read as `access` says, where the user said nothing about them."""
        options: dict[str, object] = (
            {"requester_pays": True}
            if self.access == "requester_pays"
            else {"signer": "planetary_computer"}
        )
        stores = stores_in_use()
        for prefix in self.access_prefixes:
            stores.set_defaults(prefix, options)


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise InputError.expected(name, "a string", value, "correct it")


def _location(name: str, value: object) -> str:
    """A URL without secrets, or a path, made absolute as it outlives the working directory."""
    location = _text(name, value)
    if is_local(location):
        plain = location.removeprefix("file://")
        return str(Path(plain).expanduser().absolute())
    if redact(location) != location:
        raise InputError.expected(
            name, "a URL without user, password and query", location, "use rasteret_sql.storage"
        )
    return location


def _texts(name: str, value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        pairs = {key: item for key, item in value.items() if isinstance(key, str) and key}
        if len(pairs) == len(value) and all(isinstance(item, str) for item in pairs.values()):
            return pairs
    raise InputError.expected(name, "strings to strings", value, "correct it")


def _indices(name: str, value: object) -> dict[str, int]:
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and type(index) is int and index >= 0 for key, index in value.items()
    ):
        return dict(value)
    raise InputError.expected(name, "bands to sample indices from 0", value, "correct it")


def _prefixes(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value):
        return tuple(cast("list[str]", value))
    raise InputError.expected(name, "a list of prefixes", value, "correct it")


def _date(name: str, value: object) -> date:
    try:
        return value if type(value) is date else date.fromisoformat(str(value))
    except ValueError:
        raise InputError.expected(name, "a date as 2024-01-31", value, "correct it") from None


_KINDS: dict[str, Callable[[str, object], object]] = {
    "stac_api": _location,
    "record_table": _location,
    "column_map": _texts,
    "band_map": _texts,
    "url_rewrite": _texts,
    "band_index_map": _indices,
    "access_prefixes": _prefixes,
    "start_date": _date,
    "end_date": _date,
}
