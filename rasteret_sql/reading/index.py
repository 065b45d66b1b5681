"""Versions of collections in memory: read once, shared by all connections of the process.

A version of a collection of ours never changes, so its records and headers are read from
Parquet once and stay while there is room. A large collection is not kept: of it only the
schema is, and each statement has DuckDB find its records.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.reading.bands import BandTable
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.records_file import keep_records, load_records, state_of
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.schema import bands_of, metadata_column
from rasteret_sql.units import BBox

_CAPACITY_BYTES = 128 * 1024 * 1024
_MAX_FILE_BYTES = 24 * 1024 * 1024
_BUILD_FILE = "_build.json"
_VERSIONS = ".versions"


@dataclass(frozen=True)
class RecordFilter:
    """Which records a read wants.

    Attributes:
        boxes: Records whose bbox meets one of these, or has none; None for all.
        start: First microsecond of ``datetime`` since 1970, UTC.
        stop: Last one.
        ids: Record ids; None for all.
    """

    boxes: tuple[BBox, ...] | None = None
    start: int | None = None
    stop: int | None = None
    ids: tuple[str, ...] | None = None


class Version:
    """One version of a collection.

    Args:
        schema: Of its records, with types as DuckDB gives them.
        records: All of them, None of a large collection.

    Attributes:
        folder: Visible folder of the collection.
        key: What tells the version from others.
    """

    def __init__(self, schema: pa.Schema, records: pa.RecordBatch | None) -> None:
        self.schema = schema
        self.records = records
        self.n_bytes = 0 if records is None else int(records.nbytes)
        self.folder = ""
        self.key: tuple[object, ...] | None = None
        self._lock = threading.Lock()
        self._table: SceneTable | None = None
        self._bounds: NDArray[np.float64] | None = None
        self._moments: NDArray[np.float64] | None = None

    @property
    def is_current(self) -> bool:
        """Whether the collection's folder still stands for it."""
        return self.key is not None and _key(self.folder) == self.key

    @property
    def is_whole(self) -> bool:
        """Whether its records are in memory."""
        return self.records is not None

    def scenes(self, bands: Sequence[str], chosen: Mask) -> SceneTable:
        """Some of its records, as scenes of some bands."""
        assert self.records is not None  # noqa: S101 (callers look at is_whole)
        with self._lock:
            if self._table is None:
                self._table = SceneTable(self.records)
            for name in bands:
                if name not in self._table.bands:
                    self._table.bands[name] = BandTable(self._table, name)
            return self._table.view(bands, chosen)

    def chosen(self, wanted: RecordFilter) -> Mask:
        """Which records a read wants."""
        records = self.records
        assert records is not None  # noqa: S101 (callers look at is_whole)
        chosen = np.ones(records.num_rows, bool)
        if wanted.ids is not None:
            known = pa.array(list(wanted.ids), pa.string())
            found = pc.is_in(records.column("id").cast(pa.string()), value_set=known)
            chosen &= found.to_numpy(zero_copy_only=False)
        if wanted.boxes is not None:
            chosen &= self._meets(wanted.boxes)
        if wanted.start is not None or wanted.stop is not None:
            moments = self._microseconds()
            if wanted.start is not None:
                chosen &= moments >= wanted.start  # NaN, for NULL, is not
            if wanted.stop is not None:
                chosen &= moments <= wanted.stop
        return chosen

    def _meets(self, boxes: Sequence[BBox]) -> Mask:
        """As `duck.record_conditions.meets_box`: xmin > xmax crosses the antimeridian."""
        if self._bounds is None:
            assert self.records is not None  # noqa: S101
            # `_bounds` last: connections look at it without a lock
            bbox = self.records.column("bbox")
            columns = [
                pc.if_else(bbox.is_valid(), bbox.field(name), None).cast(pa.float64())
                for name in BBox._fields
            ]
            self._unknown = bbox.is_null().to_numpy(zero_copy_only=False)
            self._bounds = np.column_stack(
                [pc.fill_null(c, float("nan")).to_numpy(zero_copy_only=False) for c in columns]
            )
        xmin, ymin, xmax, ymax = self._bounds.T
        met: Mask = self._unknown.copy()
        with np.errstate(invalid="ignore"):
            for box in boxes:
                west_of, east_of = xmin <= box.xmax, xmax >= box.xmin
                across = (west_of & east_of) | ((xmin > xmax) & (west_of | east_of))
                met |= across & (ymin <= box.ymax) & (ymax >= box.ymin)
        return met

    def _microseconds(self) -> NDArray[np.float64]:
        if self._moments is None:
            assert self.records is not None  # noqa: S101
            column = self.records.column("datetime")
            whole = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)))
            values = whole.cast(pa.int64()).cast(pa.float64(), safe=False)
            self._moments = pc.fill_null(values, float("nan")).to_numpy(zero_copy_only=False)
        return self._moments


class Index:
    """Versions in memory, the least used one leaves first.

    Args:
        capacity_bytes: Of all records together.
    """

    def __init__(self, capacity_bytes: int = _CAPACITY_BYTES) -> None:
        self._capacity = capacity_bytes
        self._versions: OrderedDict[tuple[object, ...], Version] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[tuple[object, ...], threading.Lock] = {}

    def version(self, folder: str, load: Callable[[bool], pa.Table]) -> Version | None:
        """The version that a collection's folder stands for; None for a folder that may change.

        Args:
            folder: Visible folder of a collection of a workspace.
            load: Reads its records, or with False a table without rows.
        """
        key = _key(folder)
        if key is None:
            return None
        with self._lock:
            found = self._versions.get(key)
            if found is not None:
                self._versions.move_to_end(key)
                return found
            loading = self._loading.setdefault(key, threading.Lock())
        try:
            with loading:  # a first use by several connections reads it once
                with self._lock:
                    found = self._versions.get(key)
                if found is None:
                    found = self._loaded(str(key[0]), load)
                    found.folder, found.key = folder, key
                    self._keep(key, found)
        finally:
            with self._lock:
                self._loading.pop(key, None)
        return found

    def clear(self) -> None:
        """Let go of all versions."""
        with self._lock:
            self._versions.clear()

    def _loaded(self, folder: str, load: Callable[[bool], pa.Table]) -> Version:
        state, n_bytes = state_of(folder)
        schema = load(False).schema  # noqa: FBT003 (what `load` is given)
        if n_bytes > _MAX_FILE_BYTES:
            return Version(schema, None)
        table = load_records(folder, state, schema)
        if table is None:
            table = load(True).combine_chunks()  # noqa: FBT003
            keep_records(folder, state, table)
        batches = table.to_batches()
        if len(batches) > 1 or not _has_whole_headers(table):
            return Version(table.schema, None)
        empty = pa.RecordBatch.from_pylist([], schema=table.schema)
        return Version(table.schema, batches[0] if batches else empty)

    def _keep(self, key: tuple[object, ...], version: Version) -> None:
        with self._lock:
            for other, old in list(self._versions.items()):
                if other[0] == key[0] or old.folder == version.folder:
                    del self._versions[other]  # built again, or replaced by this version
            self._versions[key] = version
            used = sum(one.n_bytes for one in self._versions.values())
            while used > self._capacity and len(self._versions) > 1:
                used -= self._versions.popitem(last=False)[1].n_bytes
            while len(self._versions) > 1024:
                self._versions.popitem(last=False)


def _key(folder: str) -> tuple[object, ...] | None:
    """What tells a version from all others: its folder, and when that was written."""
    try:
        target = os.readlink(folder.rstrip("/"))  # noqa: PTH115 (pathlib costs as much again)
        if _VERSIONS not in Path(target).parts:
            return None
        real = os.path.realpath(folder)
        facts = os.stat(os.path.join(real, _BUILD_FILE))  # noqa: PTH116, PTH118
    except OSError:
        return None
    return real, facts.st_ino, facts.st_mtime_ns, facts.st_size


def _has_whole_headers(table: pa.Table) -> bool:
    """Whether no header lacks fields that only its file knows."""
    if not {"id", "assets"} <= set(table.schema.names):
        return False
    for band in bands_of(table.schema):
        column = table.column(metadata_column(band))
        if column.type.get_field_index("byte_order") < 0:
            return False
        for chunk in column.chunks:
            orders = chunk.field("byte_order")
            if pc.any(pc.and_(chunk.is_valid(), orders.is_null())).as_py():
                return False
    return True


INDEX = Index()
"""The index of this process."""
