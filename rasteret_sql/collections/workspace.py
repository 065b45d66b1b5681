"""The folder of collections: find, list, replace and drop them, whole or not at all.

``{name}_stac`` and ``{name}_records`` are links into ``.versions``::

    s2_stac -> .versions/s2_stac/7
    .versions/s2_stac/6      the version before, until the next build starts
    .versions/s2_stac/7      what readers see
    .versions/s2_stac/8      a build on its way
    .versions/s2.lock        held by the builder
    .versions/s2_stac.headers    header bytes of a build that has not ended
    .versions/rasteret-spool-*   rows that a build reads twice; a killed one's go with the next

Moving the link is the only step that readers can see. A folder of rasteret's own is
listed, read and replaced as well.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from rasteret_sql.collections.disk import disk_errors, remove, replace_folder, sync_tree
from rasteret_sql.collections.folders import KINDS as KINDS
from rasteret_sql.collections.folders import NAME, collection_folders, workspace_folder
from rasteret_sql.collections.footers import BUILD_FILE, CollectionInfo, part_files, read_info
from rasteret_sql.errors import (
    CollectionError,
    InputError,
    UnknownCollectionError,
    redact,
)

ERRORS_FILE = "_errors.ndjson"

_PART = re.compile(r"part-(\d+)\.parquet")
_VERSIONS = ".versions"


class Build:
    """A collection that is being built; `Workspace.build` makes one.

    Attributes:
        folder: Write the collection here; nobody sees it before `commit`.
        first_part: N for ``part-N.parquet``: never used before under this name.
        current: The version that readers see meanwhile, None if there is none.
        journal: Where header bytes may wait for a build that resumes; it outlives this one.
    """

    def __init__(self, root: Path, name: str, kind: str, *, force: bool) -> None:
        self._root = root
        self._name = name
        self._kind = kind
        self._force = force
        self._visible = root / f"{name}_{kind}"
        self._versions = root / _VERSIONS / f"{name}_{kind}"
        self.journal = _journal(root, name, kind)
        self.committed = False
        self._versions.mkdir(parents=True, exist_ok=True)
        self.current = self._visible.resolve() if self._visible.exists() else None
        newest = max(_numbers(self._versions), default=0)
        _sweep(self._versions, self.current, newest)
        self.folder = self._versions / str(newest + 1)
        self.folder.mkdir()
        self.first_part = max(newest, _newest_part(self.current)) + 1

    def commit(self, info: Mapping[str, object]) -> Path:
        """Make the collection visible in one step.

        Args:
            info: What to keep in ``_build.json`` for a refresh, JSON values; URLs lose
                their user, password and query.

        Returns:
            The visible folder.

        Raises:
            CollectionError: if the disk is full or cannot be written; readers then still
                see the version before.
        """
        facts: dict[str, object] = {
            "name": self._name,
            "kind": self._kind,
            "created": datetime.now(UTC).isoformat(),
            **{key: without_secrets(value) for key, value in info.items()},
        }
        with disk_errors(self._root):
            text = json.dumps(facts, indent=1, default=str)
            (self.folder / BUILD_FILE).write_text(text, encoding="utf-8")
            self._add_empty_partitions()
            sync_tree(self.folder)
            link = self._versions / "link"
            remove(link)
            link.symlink_to(Path(_VERSIONS) / self._versions.name / self.folder.name)
            replace_folder(link, self._visible)
            self.committed = True
            _sync_root(self._root)
            if self._force:
                _remove_visible(self._root, self._name, _other(self._kind))
        return self._visible

    def _add_empty_partitions(self) -> None:
        """Put files without rows where the visible version lacks a partition of the new one.

        A reader that lists folders while the link moves then holds, for each partition it
        came to before, a name that is gone, which is an error, and has passed over none.
        """
        if self.current is None:
            return
        like = next(part_files(self.current), None)
        if like is None or (like.parent == self.current) != any(self.folder.glob("*.parquet")):
            return  # without partitions on one side, a reader finds names that are gone anyway
        sink = io.BytesIO()
        try:
            pq.write_table(pq.read_schema(like).empty_table(), sink)
        except pa.ArrowInvalid:
            return  # nobody can read that version
        for folder in {path.parent for path in part_files(self.folder)}:
            empty = self.current / folder.relative_to(self.folder)
            if not any(empty.glob("*.parquet")):
                empty.mkdir(parents=True, exist_ok=True)
                whole = self._versions / "none"
                whole.write_bytes(sink.getvalue())
                whole.replace(empty / f"part-{self.first_part}-none.parquet")

    def abandon(self) -> None:
        """Remove what was written; nobody has seen it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Workspace:
    """A folder of collections.

    Args:
        root: The folder; ``RASTERET_WORKSPACE``, else ``~/rasteret_workspace``, where None.

    Attributes:
        root: The folder, absolute; it need not exist yet.
        problems: Folders that `collections` skipped, and why.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = workspace_folder(root)
        self.problems: dict[str, str] = {}
        self._known: dict[Path, CollectionInfo] = {}

    @contextmanager
    def build(self, name: str, kind: str, *, force: bool = False) -> Iterator[Build]:
        """Build or replace a collection; without `Build.commit` nothing changes.

        Args:
            name: Of the collection.
            kind: ``'stac'`` or ``'records'``.
            force: At commit, remove a collection of the same name and the other kind.

        Raises:
            InputError: for a bad name or kind, or a collection of the other kind.
            CollectionError: if another build of this name runs, or the disk refuses.
        """
        check_name(name)
        if kind not in KINDS:
            raise InputError.expected("kind", "'stac' or 'records'", kind, "choose one")
        other = _other(kind)
        if not force and os.path.lexists(self._folder(name, other)):
            raise InputError.expected(
                "name",
                f"a name that is no {other} collection",
                name,
                "choose another, drop it, or set force := true",
            )
        with self._locked(name):
            with disk_errors(self.root):
                build = Build(self.root, name, kind, force=force)
            try:
                yield build
            finally:
                if not build.committed:
                    build.abandon()

    @property
    def spool_folder(self) -> Path:
        """Where the rows of a build wait on disk; see `collections.spool.Spool`."""
        return self.root / _VERSIONS

    def collections(self) -> list[CollectionInfo]:
        """All collections, by name, from their footers; what can't be read is a problem."""
        self.problems = {}
        found = []
        for name, kind in collection_folders(self.root):
            try:
                found.append(self._info(name, kind))
            except CollectionError as error:
                self.problems[f"{name}_{kind}"] = error.message
        return found

    def extent(self) -> tuple[int, int]:
        """Number of versions and bytes of all files, those of builds under way included."""
        n_versions = n_bytes = 0
        for at, folders, files in os.walk(self.root):
            folder = Path(at)
            if folder.parent == self.root / _VERSIONS:
                n_versions += sum(name.isdecimal() for name in folders)
            n_bytes += sum((folder / name).lstat().st_size for name in files)
        return n_versions, n_bytes

    def find(self, name: str, argument: str = "name") -> CollectionInfo:
        """The collection of that name.

        Args:
            name: As it was built.
            argument: What messages call it.

        Raises:
            InputError: for a name that cannot be one.
            UnknownCollectionError: if there is none; lists those that exist.
            CollectionError: if its files can't be read.
        """
        check_name(name, argument)
        for kind in KINDS:
            if self._folder(name, kind).exists():
                return self._info(name, kind)
        raise self._unknown(name, argument)

    def folders(self, name: str) -> list[Path]:
        """Where a collection of that name may be, of either kind."""
        return [self._folder(name, kind) for kind in KINDS]

    def drop(self, name: str) -> None:
        """Remove a collection, of either kind, with its versions.

        Raises:
            InputError: for a name that cannot be one.
            UnknownCollectionError: if there is none.
            CollectionError: if a build of this name runs, or the disk refuses.
        """
        check_name(name)
        kinds = [kind for kind in KINDS if os.path.lexists(self._folder(name, kind))]
        if not kinds:
            raise self._unknown(name)
        with self._locked(name), disk_errors(self.root):
            for kind in kinds:
                _remove_visible(self.root, name, kind)

    def _folder(self, name: str, kind: str) -> Path:
        return self.root / f"{name}_{kind}"

    def _info(self, name: str, kind: str) -> CollectionInfo:
        """Footers are read once for a version, which never changes; a plain folder may."""
        folder = self._folder(name, kind)
        version = folder.resolve()
        info = self._known.get(version) or read_info(name, kind, folder)
        if folder.is_symlink():
            self._known[version] = info
        return info

    def _unknown(self, name: str, argument: str = "name") -> UnknownCollectionError:
        known = ", ".join(sorted({known for known, _ in collection_folders(self.root)})) or "none"
        return UnknownCollectionError.expected(
            argument,
            f"a collection of {self.root} ({known})",
            name,
            "build it or check the workspace",
        )

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a name; it ends with the process, however that ends."""
        versions = self.root / _VERSIONS
        with disk_errors(self.root):
            versions.mkdir(parents=True, exist_ok=True)
        holder = versions / f"{name}.pid"
        lock = FileLock(versions / f"{name}.lock", thread_local=False)
        with disk_errors(self.root):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise CollectionError.expected(
                    name,
                    f"no other build of {name}",
                    f"one running ({_holder(holder)})",
                    "wait or use another name",
                ) from None
        try:
            with disk_errors(self.root):
                holder.write_text(str(os.getpid()), encoding="ascii")
            yield
        finally:
            lock.release()


def check_name(name: str, argument: str = "name") -> None:
    """Refuse a name that is no safe folder name and identifier.

    Raises:
        InputError: for anything but letters, digits, ``_``, ``-`` and ``.``.
    """
    if not NAME.fullmatch(name):
        raise InputError.expected(
            argument,
            "1 to 100 letters, digits, _, - or ., no dot in front",
            name,
            "choose another name",
        )


def write_errors(folder: Path, errors: Iterable[Mapping[str, object]]) -> int:
    """Keep what could not be read beside the records; returns how many.

    Args:
        folder: Of a build.
        errors: Each with ``id``, ``band``, ``href`` (stored without secrets) and ``error``.
    """
    n_errors = 0
    with disk_errors(folder), (folder / ERRORS_FILE).open("w", encoding="utf-8") as out:
        for error in errors:
            out.write(json.dumps(without_secrets(error), default=str) + "\n")
            n_errors += 1
    return n_errors


def read_errors(folder: Path) -> Iterator[dict[str, object]]:
    """The assets that could not be read when the collection was built."""
    try:
        lines = (folder / ERRORS_FILE).open(encoding="utf-8")
    except FileNotFoundError:
        return
    with lines:
        for line in lines:
            yield json.loads(line)


def read_build(folder: Path) -> dict[str, object]:
    """The options and counts of a collection's build; empty for rasteret's own folders."""
    try:
        facts: dict[str, object] = json.loads((folder / BUILD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return facts


def without_secrets(value: object) -> object:
    """The same JSON value, all URLs in it without user, password and query.

    Example:
        >>> without_secrets({"href": ["s3://b/a.tif?sig=1"]})
        {'href': ['s3://b/a.tif']}
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def _other(kind: str) -> str:
    return KINDS[1 - KINDS.index(kind)]


def _numbers(versions: Path) -> list[int]:
    """Numbers of all versions there are."""
    return [int(path.name) for path in versions.iterdir() if path.name.isdecimal()]


def _newest_part(folder: Path | None) -> int:
    """Largest N of ``part-N.parquet``; -1 where there is none."""
    if folder is None:
        return -1
    found = (_PART.fullmatch(path.name) for path in part_files(folder))
    return max((int(match[1]) for match in found if match), default=-1)


def _sweep(versions: Path, current: Path | None, newest: int) -> None:
    """Remove what dead builders and old versions left, but keep the newest number."""
    for path in list(versions.iterdir()):
        if path.resolve() != current and path.name != str(newest):
            remove(path)
    if newest and versions / str(newest) != current:
        remove(versions / str(newest))
        (versions / str(newest)).mkdir()


def _remove_visible(root: Path, name: str, kind: str) -> None:
    """Take a collection out of sight, then off the disk; its numbers stay used."""
    visible = root / f"{name}_{kind}"
    remove(_journal(root, name, kind))
    if not os.path.lexists(visible):
        return
    versions = root / _VERSIONS / visible.name
    versions.mkdir(parents=True, exist_ok=True)
    used = max([*_numbers(versions), _newest_part(visible), 0]) + 1
    (versions / str(used)).mkdir()
    if visible.is_symlink():
        visible.unlink()
    else:
        remove(versions / "dropped")
        visible.rename(versions / "dropped")
    _sweep(versions, None, used)


def _journal(root: Path, name: str, kind: str) -> Path:
    return root / _VERSIONS / f"{name}_{kind}.headers"


def _sync_root(root: Path) -> None:
    handle = os.open(root, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    """The process that builds, as it said itself; one that has just begun may not have yet."""
    try:
        pid = path.read_text(encoding="ascii")
    except OSError:
        pid = ""
    return f"pid {pid or 'unknown'}"
