"""Asset columns of a table, of whatever form, to (band, href, band_index) lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.collections.hrefs import stored_href
from rasteret_sql.errors import InputError, UnknownBandError
from rasteret_sql.ingest.bands import is_raster
from rasteret_sql.ingest.records import AssetFailure, local_refused
from rasteret_sql.ingest.samples import SampleSurvey
from rasteret_sql.remote.stores import is_local
from rasteret_sql.schema import ASSET, assets_type

ENTRY = pa.struct([("band", pa.string()), *ASSET])
ENTRIES = pa.list_(ENTRY)
"""Assets of a record before the bands of all records are known."""

_HREF_NAMES = ("href", "url", "uri", "path")
_BAND_NAMES = ("band", "name", "key", "asset")
_INDEX = "band_index"
_FORMS = (
    "STRUCT(band STRUCT(href, band_index)), STRUCT(band VARCHAR), a MAP, a list of (key, value) "
    "or JSON text"
)


@dataclass
class AssetReader:
    """Reads the assets of batches and learns the bands while it does.

    Args:
        href_column: a column of hrefs in place of an assets column.
        band_index_map: band to sample, from 0.
        url_rewrite: prefix to prefix.
        wanted: bands asked for; assets of other media types are taken too if asked for.
    """

    href_column: str | None
    band_index_map: Mapping[str, int]
    url_rewrite: Mapping[str, str]
    wanted: list[str] | None
    _seen: dict[str, None] = field(default_factory=dict)
    _refused: dict[str, None] = field(default_factory=dict)

    def entries(self, column: pa.Array) -> pa.Array:
        """A column of `ENTRIES` for a batch.

        Raises:
            InputError: if the column has none of the forms, or a map does not fit.
        """
        kind = column.type
        if self.href_column is not None:
            return self._of_hrefs(column)
        if pa.types.is_struct(kind):
            return self._of_struct(column)
        if pa.types.is_map(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return self._of_values(column.to_pylist())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
            return self._of_values(map(_parse_json, column.to_pylist()))
        if pa.types.is_null(kind):
            return pa.nulls(len(column), ENTRIES)
        raise InputError.expected("assets", _FORMS, kind, "or give href_column")

    def bands(self) -> list[str]:
        """Bands of all batches read so far that are wanted, in order of appearance.

        Raises:
            UnknownBandError: if a wanted band is nowhere.
            InputError: if names differ in case only, which DuckDB can't tell apart.
        """
        known = {band: None for band in self._seen if band not in self._refused}
        for band in self.wanted or []:
            if band not in self._seen:
                raise UnknownBandError.of(band, known)
        bands = list(dict.fromkeys(self.wanted)) if self.wanted is not None else list(known)
        folded: dict[str, str] = {}
        for band in bands:
            other = folded.setdefault(band.casefold(), band)
            if other != band:
                raise InputError.expected(
                    "assets",
                    "names that differ in more than case",
                    f"{other}, {band}",
                    "rename one",
                )
        return bands

    def _of_hrefs(self, column: pa.Array) -> pa.Array:
        try:
            hrefs = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError.expected(
                "href_column", "a string column", column.type, "name the column of URLs"
            ) from None
        names = list(self.band_index_map) or list(self.wanted or ["b1"])
        if len(names) > 1 and not self.band_index_map:
            raise InputError.expected(
                "band_index_map",
                f"a sample for each of {', '.join(names)}",
                "none",
                "give MAP {band: sample index from 0}, as all are in one file",
            )
        found = {}
        for name in names:
            index = pa.repeat(pa.scalar(self.band_index_map.get(name, 0), pa.int32()), len(hrefs))
            found[name] = (hrefs, index)
        return self._interleave(found, len(column))

    def _of_struct(self, column: pa.Array) -> pa.Array:
        found: dict[str, tuple[pa.Array, pa.Array]] = {}
        for child in column.type:
            values = pc.struct_field(column, child.name)
            located = _href_and_index(values, child.name)
            if located is None:
                continue
            if _says_no_raster(child.name, values):
                self._refused[child.name] = None
            found[child.name] = located
        return self._interleave(self._indexed(found, len(column)), len(column))

    def _indexed(
        self, found: dict[str, tuple[pa.Array, pa.Array]], n_rows: int
    ) -> dict[str, tuple[pa.Array, pa.Array]]:
        """Samples as `band_index_map` says; bands of it may all be in the only asset."""
        self._check_indices(found)
        if self.band_index_map and len(found) == 1 and set(self.band_index_map) - set(found):
            hrefs = next(iter(found.values()))[0]
            found = dict.fromkeys(self.band_index_map, (hrefs, hrefs))
        for band, sample in self.band_index_map.items():
            if band in found:
                index = pa.repeat(pa.scalar(sample, pa.int32()), n_rows)
                found[band] = (found[band][0], index)
        return found

    def _check_indices(self, found: Iterable[str]) -> None:
        names = list(found)
        unknown = [band for band in self.band_index_map if band not in names]
        if unknown and len(names) > 1:
            raise UnknownBandError.expected(
                "band_index_map",
                f"bands of assets ({', '.join(names)})",
                unknown,
                "check the names",
            )

    def _interleave(self, found: dict[str, tuple[pa.Array, pa.Array]], n_rows: int) -> pa.Array:
        """Columns per band to a list per row."""
        self._seen |= dict.fromkeys(found)
        if not found:
            return pa.array([[]] * n_rows, ENTRIES)
        hrefs = pa.concat_arrays([href for href, _ in found.values()])
        indices = pa.concat_arrays([index for _, index in found.values()])
        is_there = np.asarray(hrefs.is_valid()).reshape(len(found), n_rows)
        by_row = np.arange(len(hrefs)).reshape(len(found), n_rows).T[is_there.T]
        bands = np.array(list(found), object)[by_row // max(n_rows, 1)]
        offsets = np.concatenate([[0], np.cumsum(is_there.sum(axis=0))]).astype(np.int32)
        entries = pa.StructArray.from_arrays(
            [
                pa.array(bands, pa.string()),
                self.stored(hrefs.take(pa.array(by_row))),
                indices.take(pa.array(by_row)),
            ],
            fields=list(ENTRY),
        )
        return pa.ListArray.from_arrays(pa.array(offsets), entries)

    def _of_values(self, values: Iterable[object]) -> pa.Array:
        rows = []
        for value in values:
            entries = []
            for band, asset in _pairs(value):
                located = _located(asset)
                if located is None:
                    continue
                if isinstance(asset, Mapping) and asset.get("type") and not is_raster(band, asset):
                    self._refused[band] = None
                entries.append((band, *located))
            rows.append(entries)
        names = dict.fromkeys(band for entries in rows for band, *_ in entries)
        if self.band_index_map:
            self._check_indices(names)
            rows = [list(self._reindexed(entries, set(names))) for entries in rows]
            names = dict.fromkeys(band for entries in rows for band, *_ in entries)
        self._seen |= names
        stored = [
            [dict(zip(ENTRY.names, (band, href, index), strict=True)) for band, href, index in row]
            for row in rows
        ]
        made = pa.array(stored, ENTRIES)
        entries_ = made.values
        children = [entries_.field(0), self.stored(entries_.field(1)), entries_.field(2)]
        flat = pa.StructArray.from_arrays(children, fields=list(ENTRY))
        return pa.ListArray.from_arrays(made.offsets, flat)

    def _reindexed(
        self, entries: list[tuple[str, str, int]], names: set[str]
    ) -> Iterator[tuple[str, str, int]]:
        is_split = len(names) == 1 and bool(set(self.band_index_map) - names)
        for band, href, index in entries:
            if is_split:
                for split, sample in self.band_index_map.items():
                    yield split, href, sample
            else:
                yield band, href, self.band_index_map.get(band, index)

    def stored(self, hrefs: pa.Array, *, is_rewritten: bool = True) -> pa.Array:
        """Hrefs unsigned and rewritten; Python only runs where there may be something to do."""
        mapping = self.url_rewrite if is_rewritten else {}
        may_be_signed = pc.any(pc.match_substring_regex(hrefs, "[?&;#@%]")).as_py()
        if not may_be_signed and not mapping:
            return hrefs
        values = hrefs.to_pylist()
        return pa.array(
            [None if href is None else stored_href(href, mapping) for href in values],
            pa.string(),
        )


def refuse_local(
    entries: pa.Array, ids: pa.Array, url_rewrite: Mapping[str, str]
) -> tuple[pa.Array, list[AssetFailure]]:
    """Take out the assets of a remote table that are local files.

    Those that a rewrite of the caller leads to stay.
    """
    allowed = tuple(target for target in url_rewrite.values() if target)
    hrefs = pc.list_flatten(entries).field("href").to_pylist()
    if not any(is_local(href) and not href.startswith(allowed) for href in hrefs):
        return entries, []
    kept: list[list[dict[str, Any]]] = []
    failures = []
    for name, row in zip(ids.to_pylist(), entries.to_pylist(), strict=True):
        kept.append([])
        for entry in row or []:
            if is_local(entry["href"]) and not entry["href"].startswith(allowed):
                failures.append(local_refused(name, entry["band"], entry["href"]))
            else:
                kept[-1].append(entry)
    return pa.array(kept, ENTRIES), failures


def scatter(entries: pa.Array, bands: list[str]) -> pa.Array:
    """A column of `ENTRIES` as the assets column of these bands."""
    n_rows = len(entries)
    rows = pc.list_parent_indices(entries).to_numpy()
    flat = pc.list_flatten(entries)
    names = flat.field("band").dictionary_encode()
    codes = names.indices.to_numpy(zero_copy_only=False)
    code_of = {name: code for code, name in enumerate(names.dictionary.to_pylist())}
    children = []
    for band in bands:
        mine = np.nonzero(codes == code_of.get(band, -1))[0]
        place = np.full(n_rows, -1, np.int64)
        place[rows[mine]] = mine
        taken = pa.array(place, mask=place < 0)
        parts = [flat.field(name).take(taken) for name in ASSET.names]
        absent = pa.array(place < 0)
        children.append(pa.StructArray.from_arrays(parts, fields=list(ASSET), mask=absent))
    kind = assets_type(bands)
    if not bands:
        return pa.array([{}] * n_rows, kind)
    return pa.StructArray.from_arrays(children, fields=list(kind))


def hrefs_of(entries: pa.Array) -> pa.Array:
    """The hrefs of a column of `ENTRIES` that has at most one in a row."""
    return pc.struct_field(scatter(entries, ["b1"]), ["b1", "href"])


def of_samples(hrefs: pa.Array, bands: Mapping[str, int], survey: SampleSurvey) -> pa.Array:
    """A column of hrefs, one file per row, as the assets column of these bands and samples.

    A band of which a file has no sample is NULL in its rows.
    """
    n_samples = np.array([survey.count(href) if href else 0 for href in hrefs.to_pylist()], int)
    children = []
    for number in bands.values():
        index = pa.repeat(pa.scalar(number, pa.int32()), len(hrefs))
        absent = pa.array(n_samples <= number)
        parts = [pc.if_else(absent, None, part) for part in (hrefs, index)]
        children.append(pa.StructArray.from_arrays(parts, fields=list(ASSET), mask=absent))
    return pa.StructArray.from_arrays(children, fields=list(assets_type(list(bands))))


def _href_and_index(values: pa.Array, band: str) -> tuple[pa.Array, pa.Array] | None:
    """Hrefs and samples of one child of a struct of assets; None if it has no href."""
    kind = values.type
    zeros = pa.repeat(pa.scalar(0, pa.int32()), len(values))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return values.cast(pa.string()), zeros
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.string()), zeros
    if not pa.types.is_struct(kind):
        raise InputError.expected(f"assets.{band}", "STRUCT(href, band_index)", kind, _FORMS)
    name = next((name for name in _HREF_NAMES if kind.get_field_index(name) >= 0), None)
    if name is None:
        return None
    hrefs = _cast(pc.struct_field(values, name), pa.string(), f"assets.{band}.{name}")
    if kind.get_field_index(_INDEX) < 0:
        return hrefs, zeros
    indices = _cast(pc.struct_field(values, _INDEX), pa.int32(), f"assets.{band}.{_INDEX}")
    return hrefs, pc.coalesce(indices, zeros)


def _cast(values: pa.Array, kind: pa.DataType, subject: str) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowException:
        raise InputError.expected(
            subject, kind, values.type, "select it with that type, or give href_column"
        ) from None


def _says_no_raster(key: str, values: pa.Array) -> bool:
    """Whether a STAC asset's own media type or roles rule it out; the first value decides."""
    if not pa.types.is_struct(values.type) or values.type.get_field_index("type") < 0:
        return False
    given = values.drop_null()
    if not len(given):
        return False
    first = given[0].as_py()
    return bool(first.get("type")) and not is_raster(key, first)


def _parse_json(text: str | None) -> object:
    if text is None or not text.strip():
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError.expected("assets", "JSON text", error, "or give href_column") from None


def _pairs(value: object) -> Iterator[tuple[str, Any]]:
    """Band and asset of a JSON object, a MAP, or a list of pairs."""
    if value is None:
        return
    if isinstance(value, Mapping):
        yield from ((str(band), asset) for band, asset in value.items())
        return
    if not isinstance(value, list):
        raise InputError.expected("assets", _FORMS, value, "or give href_column")
    for part in value:
        if isinstance(part, tuple | list) and len(part) == 2:
            yield str(part[0]), part[1]
        elif isinstance(part, Mapping):
            band = next((part[name] for name in _BAND_NAMES if part.get(name) is not None), None)
            if band is None:
                raise InputError.expected(
                    "assets", f"a name in each asset ({', '.join(_BAND_NAMES)})", part, "add one"
                )
            yield str(band), part.get("value", part)
        elif part is not None:
            raise InputError.expected("assets", _FORMS, part, "or give href_column")


def _located(asset: object) -> tuple[str, int] | None:
    """Href and sample of one asset; None if it has no href."""
    if isinstance(asset, str):
        return asset, 0
    if not isinstance(asset, Mapping):
        return None
    href = next((asset[name] for name in _HREF_NAMES if asset.get(name)), None)
    if href is None:
        return None
    index = asset.get(_INDEX)
    return str(href), int(index) if isinstance(index, int) else 0
