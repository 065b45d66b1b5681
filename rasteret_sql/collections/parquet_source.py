"""Parquet files read by ranges through our own storage: local, web and cloud alike.

The footers say which row groups a read needs and where their columns lie; only those bytes
are fetched. No thread of Arrow's runs Python here, so a read can be left at any batch.
"""

from __future__ import annotations

import copy
import io
import json
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rasteret_sql.collections.folders import PARQUET_SUFFIXES, is_parquet_name
from rasteret_sql.collections.footers import geo_bounds, part_files
from rasteret_sql.collections.footprints import split_at_antimeridian
from rasteret_sql.collections.geo_key import geo_of_footer
from rasteret_sql.collections.hrefs import local_path
from rasteret_sql.collections.partitions import NULL_SEGMENT, hive_types_of
from rasteret_sql.errors import CollectionError, NotFoundError, redact
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.listing import Listed, list_files
from rasteret_sql.remote.ranges import get_range, stat
from rasteret_sql.remote.stores import is_remote, signed_form
from rasteret_sql.remote.waiting import result_of
from rasteret_sql.schema import PARTITION_KEYS
from rasteret_sql.units import BBox

_TYPES = {
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "VARCHAR": pa.string(),
}
_TAIL_BYTES = 64 << 10
_GAP_BYTES = 64 << 10
_REQUEST_BYTES = 8 << 20
_N_LANES = 32
_N_AHEAD = 16
_BYTES_AHEAD = 32 << 20
_N_FOOTERS = 512
_WHOLE_WORLD = (-180.0, 180.0)
_LONLAT = (None, "OGC:CRS84")


class _File(NamedTuple):
    """A file whose footer was read; `values` are those of its folders."""

    listed: Listed
    footer: pq.FileMetaData
    values: dict[str, Any]


class ParquetSource:
    """A Parquet file or a folder of them, hive partitions included.

    Attributes:
        schema: columns of the first file, then those that its folders name.
        stored: names of the columns that are in the files.
        geo_metadata: the first file's ``geo`` key.
        version: changes when a file does.

    Args:
        location: URL or path of a file or folder.

    Raises:
        CollectionError: there is no Parquet file, or one that can't be read.
        ReadError: the store does not answer.
    """

    def __init__(self, location: str) -> None:
        self._listed = _find(signed_form(location))
        if not self._listed:
            raise CollectionError.expected(
                redact(location), "Parquet files", "none", "check the path and the credentials"
            )
        first = _footer(self._listed[0])
        self.geo_metadata = geo_of_footer(first)
        self._keys = self._partition_types(first)
        stored = _described(first.schema.to_arrow_schema(), self.geo_metadata)
        self.stored = [name for name in stored.names if name not in self._keys]
        folders = [pa.field(name, kind) for name, kind in self._keys.items()]
        self.schema = pa.schema([*(stored.field(name) for name in self.stored), *folders])
        self._leaves: dict[str, str] = {}
        self.version = "-".join(f"{one.href}@{one.version}" for one in self._listed)

    def only(self, fields: Mapping[str, str]) -> ParquetSource:
        """The same files with one field of some struct columns, which then hold nothing else."""
        other = copy.copy(self)
        other._leaves = dict(fields)  # noqa: SLF001 (of this class)
        parts = [
            pa.field(one.name, pa.struct([one.type.field(fields[one.name])]))
            if one.name in fields
            else one
            for one in self.schema
        ]
        other.schema = pa.schema(parts)
        return other

    def _paths(self, columns: Sequence[str]) -> list[str]:
        """What to read of the files for some columns."""
        stored = [name for name in columns if name not in self._keys]
        return [f"{name}.{self._leaves[name]}" if name in self._leaves else name for name in stored]

    def _partition_types(self, footer: pq.FileMetaData) -> dict[str, pa.DataType]:
        """Folder keys that all files have; types as the writer declared them, else guessed."""
        found = [_hive_values(one.href) for one in self._listed]
        declared = hive_types_of(footer)
        types: dict[str, pa.DataType] = {}
        for key in found[0]:
            if any(key not in values for values in found):
                continue
            texts = [text for values in found if (text := values[key]) is not None]
            is_whole = all(re.fullmatch(r"-?\d{1,18}", text) for text in texts) and bool(texts)
            guess = pa.int64() if is_whole or key in PARTITION_KEYS else pa.string()
            types[key] = _TYPES.get(declared.get(key, ""), guess)
        return types

    def batches(
        self,
        columns: Sequence[str],
        keep: pc.Expression | None = None,
        boxes: Sequence[BBox] = (),
        *,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows, in the order of the files.

        Args:
            columns: of the result, in order.
            keep: which rows, by some of these columns; files and row groups that have none
                are not read.
            boxes: if there are any, row groups that meet none of them, by their statistics,
                are not read; the rows of the others come, whether they meet one or not.
            check: called between batches; may raise.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        paths = self._paths(columns)
        for file, group, source in self._groups(paths, keep, boxes, check):
            reader = pq.ParquetFile(source, metadata=file.footer)
            for batch in reader.iter_batches(2048, [group], paths, use_threads=False):
                check()
                whole = self._completed(batch, file, schema)
                kept = whole if keep is None else whole.filter(keep)
                if kept.num_rows:
                    yield kept

    def _groups(
        self,
        paths: list[str],
        keep: pc.Expression | None,
        boxes: Sequence[BBox],
        check: Callable[[], None],
    ) -> Iterator[tuple[_File, int, _Ranged]]:
        """Row groups to read; the bytes of the next ones are on their way.

        One ahead at first, for a LIMIT, then twice as many each time.
        """
        ahead: deque[tuple[_File, int, _Ranged]] = deque()
        n_ahead, n_bytes = 1, 0
        for file in self._files(keep, check):
            for group in self._wanted_groups(file, keep, boxes):
                source = _Ranged(file.listed)
                for start, stop in _spans(file.footer, group, paths):
                    source.fetch(start, stop)
                ahead.append((file, group, source))
                n_bytes += source.n_bytes
                while len(ahead) > 1 and (len(ahead) > n_ahead or n_bytes > _BYTES_AHEAD):
                    n_bytes -= ahead[0][2].n_bytes
                    n_ahead = min(2 * n_ahead, _N_AHEAD)
                    yield ahead.popleft()
        yield from ahead

    def _files(self, keep: pc.Expression | None, check: Callable[[], None]) -> Iterator[_File]:
        """Files that their folders do not rule out; footers are read ahead."""
        ahead: deque[tuple[Listed, dict[str, Any], Future[pq.FileMetaData]]] = deque()

        def next_file() -> _File:
            check()
            listed, values, future = ahead.popleft()
            file = _File(listed, result_of(future, lanes(_N_LANES)), values)
            self._check_columns(file)
            return file

        for listed in self._listed:
            values = self._values(listed)
            if keep is None or _may_hold(self._says(values), keep, self.schema):
                ahead.append((listed, values, lanes(_N_LANES).submit(_footer, listed)))
            if len(ahead) > _N_LANES:
                yield next_file()
        while ahead:
            yield next_file()

    def _values(self, listed: Listed) -> dict[str, Any]:
        texts = _hive_values(listed.href)
        return {
            key: None if (text := texts[key]) is None else pa.scalar(text).cast(kind).as_py()
            for key, kind in self._keys.items()
        }

    def _says(self, values: dict[str, Any]) -> pc.Expression:
        """What holds for each row of a file by its folders."""
        says = pc.scalar(True)  # noqa: FBT003 (an expression, not a flag)
        for key, value in values.items():
            field = pc.field(key)
            kind = self._keys[key]
            says &= field.is_null() if value is None else field == pa.scalar(value, kind)
        return says

    def _check_columns(self, file: _File) -> None:
        there = set(file.footer.schema.to_arrow_schema().names)
        missing = [name for name in self.stored if name not in there]
        if missing:
            raise CollectionError.expected(
                redact(file.listed.href),
                f"the columns of {redact(self._listed[0].href)}",
                f"none named {', '.join(missing)}",
                "read the files one by one",
            )

    def _wanted_groups(
        self, file: _File, keep: pc.Expression | None, boxes: Sequence[BBox]
    ) -> list[int]:
        """Row groups that may have a row to keep, by the statistics of the footer."""
        if boxes and "bbox" in self.stored:
            near = _may_meet(boxes, may_cross=_may_cross(file.footer))
            keep = near if keep is None else keep & near
        if keep is None:
            return list(range(file.footer.num_row_groups))
        footer = io.BytesIO()
        file.footer.write_metadata_file(footer)
        fragment = ds.ParquetFileFormat().make_fragment(
            pa.BufferReader(footer.getvalue()), partition_expression=self._says(file.values)
        )
        return [group.id for group in fragment.subset(keep, schema=self.schema).row_groups]

    def _completed(self, batch: pa.RecordBatch, file: _File, schema: pa.Schema) -> pa.RecordBatch:
        """A batch with the values of its folders, typed as the source is."""
        arrays = [
            pa.repeat(pa.scalar(file.values[field.name], field.type), batch.num_rows)
            if field.name in self._keys
            else batch.column(field.name).cast(field.type)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Ranged(io.RawIOBase):
    """A file of which some bytes are on their way; others are fetched when they are read."""

    def __init__(self, listed: Listed) -> None:
        super().__init__()
        self._listed = listed
        self._position = 0
        self._spans: list[tuple[int, int, Future[Any]]] = []
        self.n_bytes = 0

    def fetch(self, start: int, stop: int) -> None:
        """Ask for bytes that will be read."""
        future = lanes(_N_LANES).submit(get_range, self._listed.href, start, stop - start)
        self._spans.append((start, stop, future))
        self.n_bytes += stop - start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        from_where = {io.SEEK_CUR: self._position, io.SEEK_END: self._listed.size}
        self._position = from_where.get(whence, 0) + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        start = self._position
        left = max(self._listed.size - start, 0)
        stop = start + (left if size < 0 else min(size, left))
        self._position = stop
        if start == stop:
            return b""
        for first, last, future in self._spans:
            if first <= start and stop <= last:
                return bytes(
                    memoryview(result_of(future, lanes(_N_LANES)))[start - first : stop - first]
                )
        return bytes(get_range(self._listed.href, start, stop - start))


def _find(location: str) -> list[Listed]:
    """The files of a location, by name; what starts with ``_`` or ``.`` is no data."""
    if is_parquet_name(location):
        try:
            return [_single(location)]
        except NotFoundError:
            if location.lower().startswith(("http://", "https://")):
                raise
            found = _below(location)  # a folder may be called so
            if found:
                return found
            raise
    return _below(location)


def _single(href: str) -> Listed:
    size, version = stat(href)
    if size is None:
        raise CollectionError.expected(
            redact(href), "a server that tells the size of the file", "none", "copy the file"
        )
    return Listed(href, size, version or str(size))


def _below(folder: str) -> list[Listed]:
    if not is_remote(folder):
        return [_single(str(path)) for path in part_files(Path(local_path(folder)))]
    base = folder.rstrip("/")
    found = []
    for one in list_files(base):
        names = one.href[len(base) + 1 :].split("/")
        if names[-1].lower().endswith(PARQUET_SUFFIXES) and all(
            n[:1] not in ("_", ".") for n in names
        ):
            found.append(one)
    return found


_footers: OrderedDict[Listed, pq.FileMetaData] = OrderedDict()
_lock = threading.Lock()


def _footer(listed: Listed) -> pq.FileMetaData:
    """A file's footer, kept while the file is the same; one request unless it is long."""
    with _lock:
        known = _footers.get(listed)
        if known is not None:
            _footers.move_to_end(listed)
            return known
    source = _Ranged(listed)
    if listed.size:
        source.fetch(max(listed.size - _TAIL_BYTES, 0), listed.size)
    try:
        footer = pq.read_metadata(source)
    except pa.ArrowInvalid as error:
        raise CollectionError.expected(
            redact(listed.href), "a Parquet file", error, "check the file"
        ) from None
    with _lock:
        _footers[listed] = footer
        if len(_footers) > _N_FOOTERS:
            _footers.popitem(last=False)
    return footer


def _hive_values(href: str) -> dict[str, str | None]:
    """Values of ``key=value`` folders, as text; None for NULL.

    Example:
        >>> _hive_values("s3://b/year=2024/tile=__HIVE_DEFAULT_PARTITION__/a.parquet")
        {'year': '2024', 'tile': None}
    """
    values: dict[str, str | None] = {}
    for folder in href.split("?", 1)[0].split("/")[:-1]:
        key, sign, text = folder.partition("=")
        if sign and key:
            values[key] = None if text == NULL_SEGMENT else unquote(text)
    return values


def _described(schema: pa.Schema, geo_metadata: bytes | None) -> pa.Schema:
    """The schema with GeoArrow's name on WKB columns in degrees, as DuckDB itself has them."""
    try:
        columns = json.loads(geo_metadata or b"{}").get("columns", {}).items()
    except (ValueError, AttributeError):
        return schema
    for name, facts in columns:
        at = schema.get_field_index(name)
        is_wkb = str(facts.get("encoding", "")).upper() == "WKB"
        if at < 0 or not is_wkb or not _is_lonlat(facts.get("crs", None)):
            continue
        marks = {
            b"ARROW:extension:name": b"geoarrow.wkb",
            b"ARROW:extension:metadata": b'{"crs": "OGC:CRS84"}',
        }
        schema = schema.set(at, pa.field(name, pa.binary(), metadata=marks))
    return schema


def _is_lonlat(crs: object) -> bool:
    """Whether a ``crs`` of a ``geo`` key is CRS84, which it is too where there is none."""
    if isinstance(crs, dict):
        named = crs.get("id") or {}
        crs = f"{named.get('authority')}:{named.get('code')}"
    return crs in _LONLAT


def _spans(footer: pq.FileMetaData, group: int, paths: list[str]) -> list[tuple[int, int]]:
    """Byte ranges of some columns, or fields of them, of a row group; near ones joined."""
    wanted = tuple(f"{path}." for path in paths)
    facts = footer.row_group(group)
    ranges = []
    for index in range(facts.num_columns):
        column = facts.column(index)
        if f"{column.path_in_schema}.".startswith(wanted):
            start = column.data_page_offset
            if column.dictionary_page_offset is not None:
                start = min(start, column.dictionary_page_offset)
            ranges.append((start, start + column.total_compressed_size))
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        last = joined[-1] if joined else None
        if last and start - last[1] <= _GAP_BYTES and stop - last[0] <= _REQUEST_BYTES:
            joined[-1] = (last[0], max(stop, last[1]))
        else:
            joined.append((start, stop))
    return joined


def _may_hold(says: pc.Expression, keep: pc.Expression, schema: pa.Schema) -> bool:
    """Whether a file whose rows are all so may have one to keep."""
    kind = ds.ParquetFileFormat()
    fragment = kind.make_fragment(pa.BufferReader(b""), partition_expression=says)
    files = ds.FileSystemDataset([fragment], schema, kind)
    return next(iter(files.get_fragments(keep)), None) is not None


def _may_meet(boxes: Sequence[BBox], *, may_cross: bool) -> pc.Expression:
    """Rows whose ``bbox`` may meet one of these, or is unknown.

    Where a box may cross the antimeridian (xmin > xmax), only latitudes tell.
    """
    xmin, ymin, xmax, ymax = (pc.field("bbox", name) for name in BBox._fields)
    found = ymin.is_null()
    for box in (part for whole in boxes for part in split_at_antimeridian(whole)):
        near = (ymin <= box.ymax) & (ymax >= box.ymin)
        if not may_cross:
            near &= (xmin <= box.xmax) & (xmax >= box.xmin)
        found |= near
    return found


def _may_cross(footer: pq.FileMetaData) -> bool:
    """Whether a box of the file may cross the antimeridian; ours say so in the ``geo`` key."""
    bounds = geo_bounds(footer)
    return bounds is None or (bounds.xmin, bounds.xmax) == _WHOLE_WORLD
