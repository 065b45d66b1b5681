"""What the footers of a collection's Parquet files tell, without reading a column."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_sql.collections.geoparquet import union
from rasteret_sql.errors import CollectionError
from rasteret_sql.schema import bands_of
from rasteret_sql.units import BBox

BUILD_FILE = "_build.json"


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection of a workspace, as ``rasteret_collections()`` shows it.

    Attributes:
        name: Without the suffix of the folder.
        kind: ``'stac'`` or ``'records'``.
        path: The visible folder.
        data_source: From the files, else the last word of the name, else ``'unknown'``.
        records: Rows.
        bands: Bands whose header is cached, in column order.
        start_datetime: First datetime, UTC, without zone; None where unknown.
        end_datetime: Last datetime.
        bbox: Around all footprints, lon/lat degrees; None where unknown.
        size_bytes: Of the Parquet files.
        created: UTC, without zone.
    """

    name: str
    kind: str
    path: Path
    data_source: str
    records: int
    bands: tuple[str, ...]
    start_datetime: datetime | None
    end_datetime: datetime | None
    bbox: BBox | None
    size_bytes: int
    created: datetime


def part_files(folder: Path) -> Iterator[Path]:
    """Parquet files of a collection, sorted; names with a leading ``_`` or ``.`` are not data."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for name in sorted(files):
            if name.endswith(".parquet") and name[0] not in "._":
                yield Path(root) / name


def read_info(name: str, kind: str, path: Path) -> CollectionInfo:
    """Sum up a collection from its footers.

    Raises:
        CollectionError: if the folder has no Parquet file, or one that can't be read.
    """
    files = list(part_files(path))
    if not files:
        raise CollectionError.expected(
            str(path), "Parquet files", "none", f"build {name} again or remove the folder"
        )
    total = _Total()
    for file in files:
        try:
            total.add(pq.read_metadata(file), file.stat().st_size)
        except (OSError, pa.ArrowInvalid) as error:
            raise CollectionError.expected(
                str(file), "a Parquet file", str(error), f"build {name} again"
            ) from error
    return CollectionInfo(
        name=name,
        kind=kind,
        path=path,
        data_source=total.meta.get("data_source") or _last_word(name),
        records=total.records,
        bands=tuple(total.bands),
        start_datetime=total.first,
        end_datetime=total.last,
        bbox=total.bounds,
        size_bytes=total.size_bytes,
        created=_created(path, total.meta),
    )


class _Total:
    """Sums over footers."""

    def __init__(self) -> None:
        self.records = 0
        self.size_bytes = 0
        self.bands: dict[str, None] = {}
        self.meta: dict[str, str] = {}
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.bounds: BBox | None = None
        self._columns: dict[str, int] = {}
        self._n_columns = -1

    def add(self, footer: pq.FileMetaData, size_bytes: int) -> None:
        self.records += footer.num_rows
        self.size_bytes += size_bytes
        if footer.num_columns != self._n_columns:
            self._read_schema(footer)
        bounds = geo_bounds(footer)
        for index in range(footer.num_row_groups):
            group = footer.row_group(index)
            self._add_span(group)
            if bounds is None:
                self._widen(self._group_bounds(group))
        self._widen(bounds)

    def _read_schema(self, footer: pq.FileMetaData) -> None:
        """Parsing the Arrow schema costs more than a footer: only where it may differ."""
        self._n_columns = footer.num_columns
        columns = footer.schema
        self._columns = {columns.column(i).path: i for i in range(self._n_columns)}
        self.bands.update(dict.fromkeys(bands_of(columns.to_arrow_schema())))
        pairs = (footer.metadata or {}).items()
        self.meta = {
            key.decode(): value.decode("utf-8", "replace")
            for key, value in pairs
            if key in (b"data_source", b"created")
        } | self.meta

    def _add_span(self, group: pq.RowGroupMetaData) -> None:
        found = self._range(group, "datetime")
        if found is not None:
            first, last = _naive(found[0]), _naive(found[1])
            self.first = first if self.first is None else min(first, self.first)
            self.last = last if self.last is None else max(last, self.last)

    def _group_bounds(self, group: pq.RowGroupMetaData) -> BBox | None:
        ranges = [self._range(group, f"bbox.{bound}") for bound in BBox._fields]
        found = [item for item in ranges if item is not None]
        if len(found) < len(ranges):
            return None
        west, south, east, north = found
        return BBox(float(west[0]), float(south[0]), float(east[1]), float(north[1]))

    def _widen(self, box: BBox | None) -> None:
        if box is not None:
            self.bounds = box if self.bounds is None else union(self.bounds, box)

    def _range(self, group: pq.RowGroupMetaData, path: str) -> tuple[Any, Any] | None:
        """Least and greatest value of a leaf."""
        index = self._columns.get(path)
        if index is None:
            return None
        statistics = group.column(index).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        return statistics.min, statistics.max


def geo_bounds(footer: pq.FileMetaData) -> BBox | None:
    """The ``bbox`` of the ``geo`` key, which knows of the antimeridian."""
    try:
        geo = json.loads((footer.metadata or {})[b"geo"])
        west, south, east, north = geo["columns"][geo["primary_column"]]["bbox"]
        return BBox(float(west), float(south), float(east), float(north))
    except (KeyError, ValueError, TypeError):
        return None


def _naive(moment: object) -> datetime:
    """UTC without zone."""
    if not isinstance(moment, datetime):
        return datetime.fromisoformat(str(moment))
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _created(path: Path, meta: dict[str, str]) -> datetime:
    """When it was built: our own word, the files', else the folder's time."""
    try:
        built = json.loads((path / BUILD_FILE).read_text(encoding="utf-8"))
        return _naive(datetime.fromisoformat(built["created"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        return _naive(datetime.fromisoformat(meta.get("created", "")))
    except ValueError:
        return _naive(datetime.fromtimestamp(path.stat().st_mtime, UTC))


def _last_word(name: str) -> str:
    """Rasteret's rule: the token after the last underscore of a name."""
    return name.rpartition("_")[2] if "_" in name else "unknown"
