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
import tomllib
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from rasteret_sql.datasets.dataset import Dataset, Source
from rasteret_sql.errors import CollectionError, InputError, RasteretError

ENVIRONMENT = "RASTERET_DATASETS"

_FOLDER = Path("~/.config/rasteret_sql")
_BUILT_IN = Path(__file__).with_name("catalog.toml")
_LOCK_S = 30
_N_NEAR = 5


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


def set_storage_defaults_of(ids: Iterable[str]) -> None:
    """Have the files of collections read as the data sets they were built from say.

    Args:
        ids: data sources of collections; those that are no data set are passed over.
    """
    wanted = {id_ for id_ in ids if id_}
    if not wanted:
        return
    with contextlib.suppress(RasteretError):  # told by what uses the data sets
        known = datasets()
        for id_ in wanted & known.keys():
            known[id_].set_storage_defaults()


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
        raise InputError.expected(str(path), kind, error, "fix the file") from error
    try:
        return {id_: Dataset.of(id_, given, source) for id_, given in _tables(tables)}
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error


def _tables(tables: object) -> list[tuple[str, dict[str, object]]]:
    if isinstance(tables, dict) and all(isinstance(given, dict) for given in tables.values()):
        return list(tables.items())
    raise InputError.expected("data sets", "a table of fields per id", "another form", "fix it")


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
