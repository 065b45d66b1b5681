"""Data sets by name: those that come with the package, and those the user registered.

The user's own are in ``$RASTERET_DATASETS``, else in ``~/.config/rasteret_sql``:
``datasets.toml``, written by hand, and ``datasets.json``, which registering writes. Both
hold a table of fields per id; one of the user's goes before a built-in one of the same id::

    ["mine/s2"]
    stac_api = "https://stac.example.org/v1"
    stac_collection = "sentinel-2-l2a"
    band_map = { B04 = "red", B08 = "nir" }
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import os
import re
import tomllib
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from filelock import FileLock, Timeout

from rasteret_sql.errors import CollectionError, InputError, RasteretError, redact
from rasteret_sql.remote.stores import is_local, suggest_storage

ENVIRONMENT = "RASTERET_DATASETS"
ACCESS = ("open", "requester_pays", "signed")

_FOLDER = Path("~/.config/rasteret_sql")
_BUILT_IN = Path(__file__).with_name("catalog.toml")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_LOCK_S = 30
_N_NEAR = 5

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

    def suggest_storage(self) -> None:
        """Have its files read as `access` says, where the user said nothing about them."""
        options: dict[str, object] = (
            {"requester_pays": True}
            if self.access == "requester_pays"
            else {"signer": "planetary_computer"}
        )
        for prefix in self.access_prefixes:
            suggest_storage(prefix, **options)


def datasets() -> dict[str, Dataset]:
    """All data sets by id, the user's before the built-in ones.

    Raises:
        InputError: a file of the user's is not as it should be.
    """
    found = dict(_built_in())
    for path in _files():
        found |= _read(path, "local")
    return dict(sorted(found.items()))


def find_dataset(id_: object) -> Dataset:
    """The data set of this id.

    Raises:
        InputError: lists the ids that are nearest to an unknown one.
    """
    known = datasets()
    if isinstance(id_, str) and id_ in known:
        return known[id_]
    raise _unknown(id_, known)


def suggest_storage_of(ids: Iterable[str]) -> None:
    """Have the files of collections read as the data sets they were built from say.

    Args:
        ids: data sources of collections; those that are no data set are passed over.
    """
    wanted = {id_ for id_ in ids if id_}
    if not wanted:
        return
    with contextlib.suppress(RasteretError):  # told by what uses the catalogue
        known = datasets()
        for id_ in wanted & known.keys():
            known[id_].suggest_storage()


def register_dataset(dataset: Dataset) -> None:
    """Keep a data set in the user's file, in place of one with its id there.

    Raises:
        InputError: the file is TOML, or not as it should be.
        CollectionError: the file can't be written.
    """
    _change(lambda known: known | {dataset.id: dataset})


def unregister_dataset(id_: object) -> Dataset:
    """Take a data set out of the user's file.

    Raises:
        InputError: it is not there; the ones that are there are listed.
        CollectionError: the file can't be written.
    """
    removed: list[Dataset] = []

    def without(known: dict[str, Dataset]) -> dict[str, Dataset]:
        removed.append(find_registered(id_, known))
        return {key: value for key, value in known.items() if key != id_}

    _change(without)
    return removed[0]


def find_registered(id_: object, known: Mapping[str, Dataset] | None = None) -> Dataset:
    """The data set of this id in the file that registering writes.

    Raises:
        InputError: it is not there; the ones that are there are listed.
    """
    path = _writable()
    known = _read(path, "local") if known is None else known
    if isinstance(id_, str) and id_ in known:
        return known[id_]
    listed = ", ".join(known) or "none"
    raise InputError.expected(
        "id", f"a data set registered in {path} ({listed})", id_, "only these can be removed"
    )


@functools.cache
def _built_in() -> dict[str, Dataset]:
    return _read(_BUILT_IN, "built-in")


def _files() -> list[Path]:
    named = os.environ.get(ENVIRONMENT)
    if named:
        return [Path(named).expanduser()]
    folder = _FOLDER.expanduser()
    return [folder / "datasets.toml", folder / "datasets.json"]


def _writable() -> Path:
    path = _files()[-1]
    if path.suffix == ".toml":
        raise InputError.expected(
            ENVIRONMENT, "a .json file, to register in", str(path), "edit the TOML file by hand"
        )
    return path


def _read(path: Path, source: Source) -> dict[str, Dataset]:
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CollectionError.expected(
            str(path), "a readable file", error.strerror or error, f"check it or {ENVIRONMENT}"
        ) from error
    except ValueError as error:  # TOML, JSON, UTF-8
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise InputError.expected(str(path), kind, error, "mend the file") from error
    try:
        return {id_: Dataset.of(id_, given, source) for id_, given in _tables(tables)}
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error


def _tables(tables: object) -> list[tuple[str, dict[str, object]]]:
    if isinstance(tables, dict) and all(isinstance(given, dict) for given in tables.values()):
        return list(tables.items())
    raise InputError.expected("data sets", "a table of fields per id", "another form", "mend it")


def _change(change: Callable[[dict[str, Dataset]], dict[str, Dataset]]) -> None:
    """Rewrite the user's file under a lock; a reader sees the old one or the new one."""
    path = _writable()
    lock = FileLock(f"{path}.lock", timeout=_LOCK_S, thread_local=False)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            known = change(_read(path, "local"))
            text = json.dumps({id_: known[id_].fields() for id_ in sorted(known)}, indent=1)
            try:
                with new.open("w", encoding="utf-8") as out:
                    out.write(text + "\n")
                    out.flush()
                    os.fsync(out.fileno())
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)
    except Timeout:
        raise CollectionError.expected(
            str(path), f"its lock within {_LOCK_S} s", "another process that holds it", "wait"
        ) from None
    except OSError as error:
        raise CollectionError.expected(
            str(path), "a file that can be written", error.strerror or error, f"set {ENVIRONMENT}"
        ) from error


def _unknown(id_: object, known: Mapping[str, Dataset]) -> InputError:
    text = str(id_).casefold()
    last = {key: key.rpartition("/")[2] for key in known}
    near = [key for key in known if text and (text in key or last[key] in text)]
    near += difflib.get_close_matches(text, known, _N_NEAR)
    near += [
        key for key in known if last[key] in difflib.get_close_matches(text, last.values(), _N_NEAR)
    ]
    listed = ", ".join(list(dict.fromkeys(near))[:_N_NEAR] or known)
    return InputError.expected(
        "dataset_id", f"a known data set, as {listed}", id_, "see rasteret_datasets()"
    )


def _text(name: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise InputError.expected(name, "a text", value, "correct it")


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
    raise InputError.expected(name, "texts to texts", value, "correct it")


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
