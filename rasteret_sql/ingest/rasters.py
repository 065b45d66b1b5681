"""Rasters as a collection of their own: files found by pattern, one enriched record each."""

from __future__ import annotations

import glob
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from rasteret_sql.collections.hrefs import local_path, unsigned
from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError, redact
from rasteret_sql.ingest.bands import RASTER_SUFFIXES
from rasteret_sql.ingest.build import strict
from rasteret_sql.ingest.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.ingest.headers import Headers
from rasteret_sql.ingest.records import BATCH_ROWS
from rasteret_sql.ingest.samples import SampleSurvey, header_reader
from rasteret_sql.ingest.table.assets import of_samples
from rasteret_sql.remote.listing import list_files
from rasteret_sql.remote.ranges import stat
from rasteret_sql.remote.stores import access_to, is_remote, locate, remember_signed
from rasteret_sql.schema import (
    ASSET,
    BBOX,
    CRS,
    DATETIME,
    EPSG,
    GEOMETRY,
    ID,
    assets_type,
    metadata_column,
)

_PATTERN = re.compile(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\]")
_MAGIC = re.compile(r"[*?\[]")
_N_KEPT = 4
_KEPT_BYTES = 32 << 20
_TRUSTED_SECONDS = 1.0
_N_STATS = 64


@dataclass(frozen=True)
class RasterFile:
    """A raster that was found.

    Attributes:
        href: where it is, without secrets.
        version: changes with its content; None where nothing tells it.
    """

    href: str
    version: str | None


def is_raster_name(text: str) -> bool:
    """Whether a path, URL or pattern names rasters by its ending.

    Example:
        >>> [is_raster_name(n) for n in ("a/*.tif", "s3://b/s?.TIFF", "https://h/a.tif?v=1", "s2")]
        [True, True, True, False]
    """
    path = urlsplit(text).path if text.lower().startswith(("http://", "https://")) else text
    return PurePosixPath(path).suffix.lower() in RASTER_SUFFIXES


def find_rasters(pattern: object, argument: str = "pattern") -> list[RasterFile]:
    """The files that a pattern names, sorted; a list names each file or pattern in order.

    ``*`` and ``?`` stop at a slash, ``**`` does not. A folder stands for the rasters below it.

    Args:
        pattern: a path, URL or pattern, or a list of them.
        argument: what the pattern is given as.

    Raises:
        InputError: it is no text, or finds nothing.
        ReadError: a bucket can't be listed.
    """
    patterns = pattern if isinstance(pattern, list | tuple) else [pattern]
    found: dict[str, RasterFile] = {}
    for one in patterns:
        if not isinstance(one, str) or not one.strip():
            raise InputError.expected(argument, "paths, URLs or patterns", one, "write text")
        files = _remote(one) if is_remote(one) else _local(one)
        if not files:
            raise InputError.expected(
                argument, "at least one raster", f"none for {redact(one)}", "check the path"
            )
        found |= {file.href: file for file in files}
    if not found:
        raise InputError.expected(argument, "at least one raster", "an empty list", "name one")
    return list(found.values())


def _local(pattern: str) -> list[RasterFile]:
    path = Path(local_path(pattern)).expanduser()
    locate(str(path))  # raises where local files are not to be seen
    if path.is_file():
        paths = [str(path)]
    elif path.is_dir():
        paths = [str(one) for one in path.rglob("*") if one.is_file() and _is_raster(one.name)]
    else:
        listed = glob.glob(str(path), recursive=True)  # noqa: PTH207
        paths = [one for one in listed if Path(one).is_file()]
    return [RasterFile(one, _version_of(one)) for one in sorted(paths)]


def _version_of(href: str) -> str | None:
    """Size and ETag, or the time of the last change; None where they are not told."""
    try:
        size, etag = stat(href)
    except InterruptedReadError:
        raise
    except RasteretError:  # reading its header says what is wrong
        return None
    return None if etag is None else f"{size} {etag}"


def _remote(pattern: str) -> list[RasterFile]:
    is_web = pattern.lower().startswith(("http://", "https://"))
    path, mark, query = pattern.partition("?") if is_web else (pattern, "", "")
    magic = _MAGIC.search(path)
    if magic is None and not path.endswith("/"):
        plain = unsigned(pattern)
        remember_signed(plain, pattern)
        return [RasterFile(plain, _version_of(plain))]
    folder = path[: path.rindex("/", 0, magic.start() if magic else len(path)) + 1]
    listed = list_files(folder + mark + query)
    matches = _is_raster if magic is None else _expression(path).fullmatch
    return [
        RasterFile(one.href, f"{one.size} {one.version}") for one in listed if matches(one.href)
    ]


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression, of which ``*`` and ``?`` stop at a slash.

    Example:
        >>> [bool(_expression("s3://b/**/*.tif").fullmatch(f"s3://b/{n}")) for n in ("a.tif", "c")]
        [True, False]
    """
    parts, at = [], 0
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    for match in _PATTERN.finditer(pattern):
        text = match[0]
        parts += [
            re.escape(pattern[at : match.start()]),
            words.get(text) or "[^" * text.startswith("[!") + text.removeprefix("[!"),
        ]
        at = match.end()
    return re.compile("".join(parts) + re.escape(pattern[at:]))


def _is_raster(name: str) -> bool:
    return PurePosixPath(urlsplit(name).path).suffix.lower() in RASTER_SUFFIXES


def file_name(href: str) -> str:
    """The last part of a path or URL, without the ending of a raster.

    Example:
        >>> file_name("https://a.org/x/B04.tif?version=2"), file_name("/x/of.2024")
        ('B04', 'of.2024')
        >>> file_name("https://a.org?file=B04.tif"), file_name("s3://b/a%20b.tif#x/y")
        ('', 'a b')
    """
    path = href
    if "://" in href:  # urlsplit takes 7 us
        bare = href.partition("#")[0].partition("?")[0]
        path = unquote(bare.partition("://")[2].partition("/")[2])
    return _bare(path.rstrip("/").rsplit("/", 1)[-1])


def _bare(path: str) -> str:
    stem, dot, ending = path.rpartition(".")
    is_ending = bool(stem) and not stem.endswith("/") and f".{ending}".lower() in RASTER_SUFFIXES
    return stem if dot and is_ending else path


def record_ids(hrefs: Sequence[str]) -> list[str]:
    """An id for each file: its name; where several have it, the path below their folder.

    The ending and the query are left out, but for files that differ by nothing else.

    Example:
        >>> record_ids(["/d/may/B04.tif", "/d/may/B08.tif", "/d/june/B04.tif"])
        ['may/B04', 'B08', 'june/B04']
        >>> record_ids(["/d/a.tif", "/d/a.tiff"])
        ['a.tif', 'a.tiff']
        >>> record_ids(["https://h/d/a.tif?v=1", "https://h/d/a.tif?v=2"])
        ['a.tif?v=1', 'a.tif?v=2']
    """
    names = [file_name(href) for href in hrefs]
    n_uses = Counter(names)
    paths = [href.partition("?")[0] for href in hrefs]
    alike = [path for path, name in zip(paths, names, strict=True) if n_uses[name] > 1]
    first, last = min(alike, default=""), max(alike, default="")
    cut = commonprefix([first, last]).rfind("/") + 1  # noqa: RUF071 - the folder is cut out next
    n_bare = Counter(map(_bare, alike))
    below = [path[cut:] if n_bare[_bare(path)] > 1 else _bare(path[cut:]) for path in paths]
    ids = [longer if n_uses[name] > 1 else name for longer, name in zip(below, names, strict=True)]
    n_ids = Counter(ids)
    return [one if n_ids[one] == 1 else href[cut:] for one, href in zip(ids, hrefs, strict=True)]


class RasterRecords:
    """Files as records: their headers are read once, to learn the bands.

    Args:
        files: the files.
        max_concurrent: header requests under way at once.
        stop: ends the work with InterruptedReadError.

    Attributes:
        files: the files.
        bands: all bands, with the numbers of their samples.
        first_failure: why the first of the files could not be read, None if all could.
        n_failed: how many could not be read.
    """

    def __init__(
        self, files: Sequence[RasterFile], max_concurrent: int, stop: threading.Event
    ) -> None:
        self.files = tuple(files)
        self._hrefs = [file.href for file in files]
        self._ids = record_ids(self._hrefs)
        self._max_concurrent = max_concurrent
        self._survey = SampleSurvey()
        self._lock = threading.Lock()
        self._kept: list[pa.RecordBatch] | None = None
        self._result = Enrichment()
        headers = Headers(max_concurrent, stop, kept_bytes=_KEPT_BYTES)
        read, _ = header_reader(max_concurrent=max_concurrent, stop=stop, headers=headers)
        self.n_failed = 0
        self.first_failure: RasteretError | None = None
        for href, header in read(self._hrefs):
            self._survey.add(href, header)
            if header is None:
                self.n_failed += 1
                self.first_failure = self.first_failure or _named(href, headers.failure(href))
        self.bands = self._survey.chosen(None)
        assets = pa.field("assets", assets_type(list(self.bands)))
        self._bare = pa.schema([ID, DATETIME, GEOMETRY, pa.field("bbox", BBOX), assets, EPSG, CRS])
        self._schema = enriched_schema(self._bare, list(self.bands))
        self._headers: Headers | None = headers if headers.has_all(self._hrefs) else None
        self.is_whole = self._headers is not None and not self.n_failed

    def chosen(self, bands: list[str] | None) -> dict[str, int]:
        """The bands that are asked for and their samples, see `SampleSurvey.chosen`."""
        return self._survey.chosen(bands)

    def schema(self, bands: Sequence[str]) -> pa.Schema:
        """`id`, `datetime` (NULL), `geometry`, `bbox`, `assets`, `proj:epsg`, `crs` and the
        metadata of each band.
        """  # noqa: D205
        assets = pa.field("assets", assets_type(list(bands)))
        place = self._bare.get_field_index("assets")
        return enriched_schema(self._bare.set(place, assets), list(bands))

    def batches(
        self, bands: dict[str, int], stop: threading.Event, *, on_error: str
    ) -> Iterator[pa.RecordBatch]:
        """The records, in order of the files.

        Args:
            bands: names of bands and the numbers of their samples, see `chosen`.
            stop: ends the work with InterruptedReadError.
            on_error: ``'report'`` or ``'error'``.

        Raises:
            CollectionError: a file can't be read, with ``on_error='error'``.
            InterruptedReadError: the stop event was set.
        """
        kept, result = self._known(stop), self._result
        if kept is None:  # too many headers for memory
            result = Enrichment()
            found = self._enriched(result, Headers(self._max_concurrent, stop), stop)
        else:
            found = iter(kept)
        schema, own = self.schema(list(bands)), list(self.bands)
        names = {name: own[sample] for name, sample in bands.items()}
        for batch in strict(found, result) if on_error == "error" else found:
            yield _renamed(batch, names, schema)

    def _known(self, stop: threading.Event) -> list[pa.RecordBatch] | None:
        """All records, made once from the headers, if these were few enough to be kept."""
        with self._lock:
            if self._kept is None and self._headers is not None:
                result = Enrichment()
                headers = self._headers.continued(stop)
                self._kept = list(self._enriched(result, headers, stop))
                self._result, self._headers = result, None
            return self._kept

    def _enriched(
        self, result: Enrichment, headers: Headers, stop: threading.Event
    ) -> Iterator[pa.RecordBatch]:
        bands = list(self.bands)
        return enrich(
            self._bare_batches(),
            self._schema,
            bands,
            result,
            stop=stop,
            headers=headers,
            has_outlines=True,
        )

    def _bare_batches(self) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(self._hrefs), BATCH_ROWS):
            hrefs = pa.array(self._hrefs[start : start + BATCH_ROWS], pa.string())
            n = len(hrefs)
            known = {
                "id": pa.array(self._ids[start : start + BATCH_ROWS], pa.string()),
                "assets": of_samples(hrefs, self.bands, self._survey),
            }
            arrays = [known.get(f.name, pa.nulls(n, f.type)) for f in self._bare]
            yield pa.RecordBatch.from_arrays(arrays, schema=self._bare)


def _renamed(batch: pa.RecordBatch, names: dict[str, str], schema: pa.Schema) -> pa.RecordBatch:
    """Records with some of their bands, under other names."""
    assets = batch.column("assets")
    of_bands = {metadata_column(new): metadata_column(old) for new, old in names.items()}
    children = [assets.field(old) for old in names.values()]
    fields = [pa.field(name, pa.struct(ASSET)) for name in names]
    arrays = [
        pa.StructArray.from_arrays(children, fields=fields)
        if field.name == "assets"
        else batch.column(of_bands.get(field.name, field.name))
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _named(href: str, error: RasteretError | None) -> RasteretError | None:
    """An error whose text names the file."""
    name = redact(href)
    if error is None or name in error.message:
        return error
    named = type(error)(f"{name}: {error.message}")
    named.__cause__ = error
    return named


class _Kept:
    """The latest rasters that were opened, for binds and statements that name them again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: OrderedDict[tuple[object, ...], RasterRecords] = OrderedDict()
        self._found: OrderedDict[tuple[str, object], tuple[float, list[RasterFile]]] = OrderedDict()

    def find(self, pattern: object, argument: str = "pattern") -> list[RasterFile]:
        """As `find_rasters`; a store is not asked again within a second.

        A statement is bound several times, each time with the same question.
        """
        if not isinstance(pattern, str) or not is_remote(pattern):
            return find_rasters(pattern, argument)
        now, key = time.monotonic(), (pattern, access_to(pattern))
        with self._lock:
            asked, files = self._found.get(key, (-_TRUSTED_SECONDS, []))
        if files and now - asked < _TRUSTED_SECONDS:
            locate(pattern)  # raises where it is not to be seen
            return files
        files = find_rasters(pattern, argument)
        with self._lock:
            self._found[key] = now, files
            self._found.move_to_end(key)
            if len(self._found) > _N_STATS:
                self._found.popitem(last=False)
        return files

    def open(
        self, files: Sequence[RasterFile], max_concurrent: int, stop: threading.Event
    ) -> RasterRecords:
        """The records of files; headers are read again if a file has changed."""
        key = *files, *(access_to(file.href) for file in files)
        with self._lock:
            records = self._records.get(key)
            if records is not None:
                self._records.move_to_end(key)
                return records
        records = RasterRecords(files, max_concurrent, stop)
        if records.is_whole and all(file.version is not None for file in files):
            with self._lock:
                self._records[key] = records
                if len(self._records) > _N_KEPT:
                    self._records.popitem(last=False)
        return records

    def forget(self) -> None:
        """Forget all."""
        with self._lock:
            self._records.clear()
            self._found.clear()


KEPT = _Kept()
