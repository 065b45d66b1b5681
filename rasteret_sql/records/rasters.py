"""Rasters as a collection of their own: files found by pattern, one enriched record each."""

from __future__ import annotations

import glob
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from rasteret_sql.errors import InputError, redact
from rasteret_sql.records.bands import RASTER_SUFFIXES
from rasteret_sql.records.build import strict
from rasteret_sql.records.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.records.headers import Headers
from rasteret_sql.records.hrefs import local_path
from rasteret_sql.records.records import BATCH_ROWS
from rasteret_sql.records.samples import SampleSurvey, header_reader
from rasteret_sql.records.table.assets import of_samples
from rasteret_sql.remote.listing import list_files
from rasteret_sql.remote.stores import is_remote, locate
from rasteret_sql.schema import BBOX, CRS, DATETIME, EPSG, GEOMETRY, ID, assets_type

_PATTERN = re.compile(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\]")
_MAGIC = re.compile(r"[*?\[]")


def find_rasters(pattern: object) -> list[str]:
    """The files that a pattern names, sorted; a list names each file or pattern in order.

    ``*`` and ``?`` stop at a slash, ``**`` does not. A folder stands for the rasters below it.

    Args:
        pattern: a path, URL or pattern, or a list of them.

    Raises:
        InputError: it is no text, or finds nothing.
        ReadError: a bucket can't be listed.
    """
    patterns = pattern if isinstance(pattern, list | tuple) else [pattern]
    found: dict[str, None] = {}
    for one in patterns:
        if not isinstance(one, str) or not one.strip():
            raise InputError.expected("pattern", "paths, URLs or patterns", one, "write text")
        hrefs = _remote(one) if is_remote(one) else _local(one)
        if not hrefs:
            raise InputError.expected(
                "pattern", "at least one raster", f"none for {redact(one)}", "check the path"
            )
        found |= dict.fromkeys(hrefs)
    if not found:
        raise InputError.expected("pattern", "at least one raster", "an empty list", "name one")
    return list(found)


def _local(pattern: str) -> list[str]:
    path = Path(local_path(pattern)).expanduser()
    locate(str(path))  # raises where local files are not to be seen
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        return sorted(str(one) for one in path.rglob("*") if one.is_file() and _is_raster(one.name))
    return sorted(one for one in glob.glob(str(path), recursive=True) if Path(one).is_file())  # noqa: PTH207


def _remote(pattern: str) -> list[str]:
    is_web = pattern.lower().startswith(("http://", "https://"))
    path, mark, query = pattern.partition("?") if is_web else (pattern, "", "")
    magic = _MAGIC.search(path)
    if magic is None and not path.endswith("/"):
        return [pattern]
    folder = path[: path.rindex("/", 0, magic.start() if magic else len(path)) + 1]
    listed = [one.href for one in list_files(folder + mark + query)]
    if magic is None:
        return [href for href in listed if _is_raster(href)]
    matches = _expression(path)
    return [href for href in listed if matches.fullmatch(href)]


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
    """The last part of a path or URL.

    Example:
        >>> file_name("https://a.org/x/B04.tif?version=2")
        'B04.tif'
    """
    return (
        unquote(urlsplit(href).path).rstrip("/").rsplit("/", 1)[-1]
        if "://" in href
        else (href.rstrip("/").rsplit("/", 1)[-1])
    )


def record_ids(hrefs: Sequence[str]) -> list[str]:
    """An id for each file: its name; where several have it, the path below their folder.

    Example:
        >>> record_ids(["/d/may/B04.tif", "/d/may/B08.tif", "/d/june/B04.tif"])
        ['may/B04.tif', 'B08.tif', 'june/B04.tif']
    """
    names = [file_name(href) for href in hrefs]
    n_uses = Counter(names)
    paths = [href.partition("?")[0] for href in hrefs]
    alike = [path for path, name in zip(paths, names, strict=True) if n_uses[name] > 1]
    first, last = min(alike, default=""), max(alike, default="")
    n_shared = next((n for n, pair in enumerate(zip(first, last)) if len(set(pair)) > 1), 0)  # noqa: B905
    cut = first.rfind("/", 0, n_shared) + 1
    return [
        path[cut:] if n_uses[name] > 1 else name for path, name in zip(paths, names, strict=True)
    ]


class RasterRecords:
    """Files as records: their headers are read once to learn the bands, and kept in memory.

    Args:
        hrefs: the files.
        bands: the bands to keep, see `SampleSurvey.chosen`; None for all.
        n_lanes: header requests at once.
        stop: ends the work with InterruptedReadError.

    Attributes:
        schema: `id`, `datetime` (NULL), `geometry`, `bbox`, `assets`, `proj:epsg`, `crs` and
            the metadata of each band.
    """

    def __init__(
        self, hrefs: Sequence[str], bands: list[str] | None, n_lanes: int, stop: threading.Event
    ) -> None:
        self._hrefs = list(hrefs)
        self._ids = record_ids(hrefs)
        self._n_lanes = n_lanes
        self._survey = SampleSurvey()
        self._headers: Headers | None = Headers(n_lanes, stop)
        read, _ = header_reader(n_lanes=n_lanes, stop=stop, headers=self._headers)
        for href, header in read(hrefs):
            self._survey.add(href, header)
        self.bands = self._survey.chosen(bands)
        assets = pa.field("assets", assets_type(list(self.bands)))
        bare = pa.schema([ID, DATETIME, GEOMETRY, pa.field("bbox", BBOX), assets, EPSG, CRS])
        self._bare = bare
        self.schema = enriched_schema(bare, list(self.bands))

    def batches(self, stop: threading.Event, *, on_error: str) -> Iterator[pa.RecordBatch]:
        """The records, in order of the files.

        Raises:
            CollectionError: a file can't be read, with ``on_error='error'``.
            InterruptedReadError: the stop event was set.
        """
        result = Enrichment()
        kept, self._headers = self._headers, None  # of the first pass only: files may change
        headers = kept.continued(stop) if kept else Headers(self._n_lanes, stop)
        found = enrich(
            self._bare_batches(),
            self.schema,
            list(self.bands),
            result,
            stop=stop,
            headers=headers,
            has_outlines=True,
        )
        return strict(found, result) if on_error == "error" else found

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
