"""A collection beside the data set that it is of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from rasteret_sql.datasets.dataset import Dataset
from rasteret_sql.errors import InputError

FACT_SCHEMA = pa.schema(
    [
        ("fact", pa.string()),
        ("catalog", pa.string()),
        ("collection", pa.string()),
        ("agrees", pa.bool_()),
    ]
)

_GLOBAL = ("global", "worldwide", "world")


class Fact(NamedTuple):
    """A row of ``rasteret_compare_to_catalog``; `agrees` is None where one side says nothing."""

    fact: str
    catalog: str | None
    collection: str | None
    agrees: bool | None


def dataset_of(
    known: Mapping[str, Dataset],
    data_source: str | None,
    built: Mapping[str, Any],
    collections: Iterable[str],
) -> Dataset:
    """The data set that a collection is of.

    Args:
        known: Data sets by id.
        data_source: Of the collection: an id, where it was built by one.
        built: Options of its build.
        collections: Values of its column ``collection``.

    Raises:
        InputError: there is none, or there are several; lists them.
    """
    if data_source is not None and data_source in known:
        return known[data_source]
    named = {*collections, data_source}
    found = [one for one in known.values() if one.stac_collection and one.stac_collection in named]
    same_api = [one for one in found if one.stac_api == built.get("stac_api")]
    found = same_api or found
    if len(found) == 1:
        return found[0]
    listed = f" (one of {', '.join(one.id for one in found)})" if found else ""
    raise InputError.expected(
        "collection",
        "a collection of a data set that is known",
        data_source or "no data source",
        f"say which with dataset_id :={listed}",
    )


def compare(
    dataset: Dataset, described: Mapping[str, Any], built: Mapping[str, Any], found: list[str]
) -> Iterator[Fact]:
    """The facts of the data set, each beside the collection's.

    Args:
        dataset: The data set.
        described: Row of ``rasteret_describe``.
        built: Options of the build, empty where they are not known.
        found: Values of the column ``collection``.
    """
    bands = list(described["bands"])
    yield _same("data_source", dataset.id, described["data_source"] or None)
    yield Fact("name", dataset.name or None, described["name"], None)
    yield Fact(
        "bands",
        _listed(dataset.bands),
        _listed(bands),
        set(bands) <= set(dataset.bands) if dataset.bands and bands else None,
    )
    for fact in ("band_map", "band_index_map"):
        yield _maps(fact, getattr(dataset, fact), built, bands)
    yield _same("url_rewrite", _json(dataset.url_rewrite), _json(built.get("url_rewrite")))
    yield _same("stac_api", dataset.stac_api, built.get("stac_api"))
    yield _collections(dataset.stac_collection, found)
    yield _same("record_table", dataset.record_table, built.get("source"))
    start, end = described["start_datetime"], described["end_datetime"]
    yield _dates("start_date", dataset.start_date, start, is_start=True)
    yield _dates("end_date", dataset.end_date, end, is_start=False)
    yield _coverage(dataset.spatial_coverage, described["bounds"])
    yield Fact("epsg", None, _listed([str(code) for code in described["epsg"]]), None)
    yield Fact("records", None, str(described["records"]), None)
    yield Fact("access", dataset.access, None, None)
    yield Fact("license", dataset.license, None, None)
    yield Fact("license_url", dataset.license_url, None, None)


def _same(fact: str, catalog: str | None, collection: object) -> Fact:
    text = None if collection is None else str(collection)
    agrees = None if catalog is None or text is None else catalog.rstrip("/") == text.rstrip("/")
    return Fact(fact, catalog, text, agrees)


def _maps(
    fact: str, catalog: Mapping[str, Any], built: Mapping[str, Any], bands: list[str]
) -> Fact:
    """Agrees where the bands that the collection has are of the same assets."""
    own = built.get(fact)
    shared = {band: value for band, value in catalog.items() if band in bands}
    agrees = None
    if catalog and isinstance(own, Mapping):
        agrees = shared == {band: value for band, value in own.items() if band in bands}
    return Fact(fact, _json(catalog), _json(own), agrees)


def _collections(catalog: str | None, found: list[str]) -> Fact:
    agrees = set(found) == {catalog} if catalog and found else None
    return Fact("stac_collection", catalog, _listed(found), agrees)


def _dates(fact: str, catalog: date | None, own: datetime | None, *, is_start: bool) -> Fact:
    agrees = None
    if catalog is not None and own is not None:
        agrees = own.date() >= catalog if is_start else own.date() <= catalog
    shown = own.date().isoformat() if own else None
    return Fact(fact, catalog.isoformat() if catalog else None, shown, agrees)


def _coverage(catalog: str | None, bounds: Mapping[str, float] | None) -> Fact:
    """Words can't be compared with bounds, save those that mean everywhere."""
    own = None
    if bounds is not None and None not in bounds.values():
        own = f"[{', '.join(f'{bound:.6g}' for bound in bounds.values())}]"
    is_everywhere = catalog is not None and catalog.casefold().startswith(_GLOBAL)
    return Fact("spatial_coverage", catalog, own, True if is_everywhere and own else None)


def _listed(names: list[str]) -> str | None:
    return ", ".join(names) or None


def _json(value: object) -> str | None:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else None
