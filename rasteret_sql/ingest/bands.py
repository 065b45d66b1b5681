"""From the assets of STAC items to the bands of a collection."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rasteret_sql.errors import InputError, UnknownBandError

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".gtif", ".gtiff", ".geotiff", ".btf", ".tf8"})
_OPAQUE_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "image/*"})
_NOT_DATA_ROLES = frozenset({"thumbnail", "overview"})
_NOT_DATA_KEYS = frozenset({"thumbnail", "overview", "preview", "browse", "rendered_preview"})
_MAX_BANDS = 1000
_MAX_KEYS = 1_000_000
_DATE = re.compile(r"(?<!\d)\d{4}(?:[-_.]?\d{2}(?:[-_.]?\d{2})?)?(?:T\d[\d:.]*)?Z?(?!\d)")
_BAND_FIELDS = ("bands", "raster:bands", "eo:bands")


class RasterAsset(NamedTuple):
    """An asset as the bands are named from it.

    Attributes:
        href: of the file, absolute.
        names: a name for each sample of the file, "" if it has none; empty if the asset is
            not said to have several.
    """

    href: str
    names: tuple[str, ...]


class Band(NamedTuple):
    """Where the values of a band are: the asset of that key, the sample by name or number.

    Attributes:
        sample: index from 0, or the sample's name where items order them differently.
    """

    key: str
    sample: int | str


def is_raster(key: str, asset: Mapping[str, Any]) -> bool:
    """Whether an asset is a TIFF with data, by media type, else by file name.

    A picture for people (role or name thumbnail, overview, ...) is not, unless its roles
    say that it is data too.

    Example:
        >>> is_raster("B04", {"href": "a.tif"}), is_raster("info", {"href": "a.json"})
        (True, False)
    """
    media_type = asset.get("type")
    kind = media_type.lower() if isinstance(media_type, str) else ""
    if kind.split(";", 1)[0].strip() in _OPAQUE_TYPES:
        path = urlsplit(str(asset.get("href") or "")).path
        is_tiff = PurePosixPath(path).suffix.lower() in RASTER_SUFFIXES
    else:
        is_tiff = "tiff" in kind
    if not is_tiff:
        return False
    roles = asset.get("roles")
    if isinstance(roles, list) and roles:
        return "data" in roles or _NOT_DATA_ROLES.isdisjoint(map(str, roles))
    return key.lower() not in _NOT_DATA_KEYS


def sample_names(asset: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the samples of an asset that has more than one; () for one or unknown.

    Source: STAC 1.1 ``bands``; raster 1.x ``raster:bands``; eo 1.x ``eo:bands``, which
    before STAC 0.9 were indices into the bands of the item.

    Example:
        >>> sample_names({"eo:bands": [{"name": "red"}, {"name": "nir"}]}, {})
        ('red', 'nir')
    """
    lists = [_band_list(asset.get(field)) for field in _BAND_FIELDS]
    declared = next((bands for bands in lists if bands), [])
    if len(declared) < 2:
        return ()
    of_item = _band_list(properties.get("eo:bands"))
    names = [""] * len(declared)
    for bands in (bands for bands in lists if len(bands) == len(declared)):
        for i, band in enumerate(bands):
            names[i] = names[i] or _band_name(band, of_item)
    # a name that two samples have is the first one's; the other is told by its number
    return tuple("" if name in names[:i] else name for i, name in enumerate(names))


class KeyAliases:
    """Asset keys that name their item or its date, and what is the same in all of them.

    A key is such a one if it is in one item only and differs from that of another item in
    the id or in a date (``openEO_2023-06-01Z.tif``); bands are then named without these.

    Example:
        >>> found = KeyAliases()
        >>> for name, day in (("a", "2023-06-01"), ("b", "2023-06-06")):
        ...     found.add(name, {f"openEO_{day}Z.tif": {}, "dem": {}})
        >>> found.aliases()
        {'openEO_2023-06-01Z.tif': 'openEO', 'openEO_2023-06-06Z.tif': 'openEO'}
    """

    def __init__(self) -> None:
        self._aliases: dict[str, str] | None = {}
        self._n_items = 0

    def add(self, item_id: str, assets: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the raster assets of one more item into account."""
        if self._aliases is None:
            return
        self._n_items += bool(assets)
        labels = {key: _label(item_id, key, asset) for key, asset in assets.items()}
        varying = {key: label for key, label in labels.items() if label != key}
        is_clear = len(set(labels.values())) == len(labels)
        if not is_clear or not self._aliases.keys().isdisjoint(labels):
            self._aliases = None  # a key of several items, or two that could not be told apart
        else:
            self._aliases |= varying

    def aliases(self) -> dict[str, str]:
        """Asset key to the key that stands for it and its like in other items."""
        aliases = self._aliases or {}
        n_uses = Counter(aliases.values())
        return {key: label for key, label in aliases.items() if n_uses[label] > 1}


def _label(item_id: str, key: str, asset: Mapping[str, Any]) -> str:
    """An asset key without the item's id and dates, or the name of the one band."""
    stem = PurePosixPath(key).stem if PurePosixPath(key).suffix in RASTER_SUFFIXES else key
    plain = _DATE.sub("", stem.replace(item_id, "") if item_id else stem)
    if plain == stem:
        return key
    declared = next((found for f in _BAND_FIELDS if (found := _band_list(asset.get(f)))), [])
    name = _band_name(declared[0], []) if len(declared) == 1 else ""
    return name or plain.strip("_-. ") or "data"


def has_declared_bands(asset: Mapping[str, Any]) -> bool:
    """Whether an asset says how many samples its file has."""
    return any(_band_list(asset.get(field)) for field in _BAND_FIELDS)


def _band_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _band_name(band: object, of_item: list[Any]) -> str:
    if isinstance(band, int) and not isinstance(band, bool):
        band = of_item[band] if 0 <= band < len(of_item) else {}
    if not isinstance(band, Mapping):
        return ""
    name = band.get("name") or band.get("common_name") or band.get("eo:common_name")
    return str(name) if name else ""


class BandSurvey:
    """The asset keys and sample names of all items, and the band names made of them.

    An asset of one sample is a band named by its asset key. The samples of an asset of
    several are bands of their own names; if such a name is used by two assets,
    ``{key}_{name}``, and without a name of its own ``{key}_{number from 1}``.

    Example:
        >>> survey = BandSurvey()
        >>> survey.add({"image": RasterAsset("a.tif", ("R", "G")), "dem": RasterAsset("b.tif", ())})
        >>> survey.bands()
        {'R': Band(key='image', sample='R'), 'G': Band(key='image', sample='G'), \
'dem': Band(key='dem', sample=0)}
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int | str], None] = {}
        self.renamed: dict[str, str] = {}
        self._variants: dict[str, dict[tuple[str, ...], None]] = {}

    def add(self, assets: Mapping[str, RasterAsset]) -> None:
        """Take the raster assets of one more item into account."""
        for key, asset in assets.items():
            variants = self._variants.setdefault(key, {})
            if asset.names in variants:
                continue
            variants[asset.names] = None
            for i, name in enumerate(asset.names):
                self._seen[key, name or i] = None
            if not asset.names:
                self._seen[key, 0] = None
            if len(self._seen) > _MAX_KEYS:
                self.check()

    def check(self) -> None:
        """Raise if there are more bands than a collection can have columns for."""
        if len(self._seen) > _MAX_BANDS:
            raise InputError.expected(
                "band_map",
                f"at most {_MAX_BANDS} distinct raster assets and bands",
                "more in these items",
                "give MAP {band: asset key} for the assets you need",
            )

    def __bool__(self) -> bool:
        """Whether there was any asset."""
        return bool(self._seen)

    def samples(self, key: str) -> set[str]:
        """Names of the samples that the asset of this key has in some item."""
        return {name for names in self._variants.get(key, ()) for name in names if name}

    @property
    def keys(self) -> list[str]:
        """The asset keys, in order of first appearance."""
        return list(self._variants)

    def names_of(self, key: str, n_samples: int) -> tuple[str, ...]:
        """What some item calls the samples of this asset, if it has as many there; else ()."""
        variants = self._variants.get(key, ())
        return next((names for names in variants if len(names) == n_samples), ())

    def with_keys(self, aliases: Mapping[str, str]) -> BandSurvey:
        """The same under other asset keys."""
        told = BandSurvey()
        for key, variants in self._variants.items():
            for names in variants:
                told.add({aliases.get(key, key): RasterAsset("", names)})
        return told

    def with_names(self, of_headers: Mapping[str, tuple[str, ...]]) -> BandSurvey:
        """The same where assets of unknown samples have those that their headers tell."""
        told = BandSurvey()
        for key, variants in self._variants.items():
            for names in variants:
                told.add({key: RasterAsset("", names or of_headers.get(key, ()))})
        return told

    def bands(self) -> dict[str, Band]:
        """Band name to where it is, in order of first appearance."""
        single = {key: () in variants for key, variants in self._variants.items()}
        plain = {
            (key, sample): sample
            if isinstance(sample, str)
            else key
            if sample == 0 and single[key]
            else f"{key}_{sample + 1}"
            for key, sample in self._seen
        }
        n_uses = Counter(name.casefold() for name in plain.values())
        named: dict[str, Band] = {}
        taken: set[str] = set()
        for (key, sample), name in plain.items():
            is_alone = n_uses[name.casefold()] == 1 or name == key
            name = name if is_alone else f"{key}_{name}"
            unique, n = name, 1
            while unique.casefold() in taken:
                n += 1
                unique = f"{name}_{n}"
            if unique != name:
                self.renamed[unique] = name
            taken.add(unique.casefold())
            named[unique] = Band(key, sample)
        return named


def checked_indices(band_index_map: Mapping[str, int] | None) -> dict[str, int]:
    """The samples of a band index map.

    Raises:
        InputError: one is no number, or below 0.
    """
    indices = dict(band_index_map or {})
    for band, index in indices.items():
        if not isinstance(index, int) or index < 0:
            raise InputError.expected(
                f"band_index_map[{band!r}]", "0 or more", index, "samples count from 0"
            )
    return indices


def choose_bands(
    survey: BandSurvey,
    *,
    bands: list[str] | None,
    band_map: Mapping[str, str] | None,
    band_index_map: Mapping[str, int] | None,
    known_keys: Iterable[str],
    is_partial: bool = False,
) -> dict[str, Band]:
    """The bands of the collection and where each is found.

    Args:
        survey: of the raster assets, or of the assets that `band_map` names.
        bands: the ones to keep, None for all.
        band_map: band to asset key; replaces the survey's names.
        band_index_map: band to sample, from 0.
        known_keys: every asset key of the items, for messages.
        is_partial: whether `band_map` may name assets that no item has, if not only such.

    Raises:
        UnknownBandError: if `bands` names one that is not there.
        InputError: if a map does not fit the assets.
    """
    indices = checked_indices(band_index_map)
    if band_map:
        keys = {band.key for band in survey.bands().values()} if is_partial else set()
        there = {band: key for band, key in band_map.items() if key in keys} or dict(band_map)
        if is_partial:
            indices = {band: index for band, index in indices.items() if band in there}
        found = _mapped(survey, there, indices, known_keys)
    else:
        found = _inferred(survey, indices)
    if bands is None:
        return found
    for band in bands:
        if band not in found:
            raise UnknownBandError.of(band, found)
    return {band: found[band] for band in dict.fromkeys(bands)}


def _mapped(
    survey: BandSurvey, band_map: dict[str, str], indices: dict[str, int], known: Iterable[str]
) -> dict[str, Band]:
    keys = {band.key for band in survey.bands().values()}
    if not keys.issuperset(band_map.values()):
        missing = sorted(set(band_map.values()) - keys)
        listed = ", ".join(sorted(known)) or "none"
        raise InputError.expected(
            "band_map",
            f"asset keys of these items ({listed})",
            missing,
            "the map is band: asset key",
        )
    unknown = sorted(set(indices) - set(band_map))
    if unknown:
        raise InputError.expected(
            "band_index_map",
            f"bands of band_map ({', '.join(band_map)})",
            unknown,
            "name them there",
        )
    n_uses = Counter(band_map.values())
    found = {}
    for band, key in band_map.items():
        samples = survey.samples(key)
        if band in indices:
            sample: int | str = indices[band]
        elif band in samples:
            sample = band
        elif n_uses[key] == 1:
            sample = 0
        else:
            raise InputError.expected(
                "band_index_map",
                f"a sample for {band!r}, as several bands are in asset {key!r}",
                "none",
                "give MAP {band: sample index from 0}",
            )
        found[band] = Band(key, sample)
    return found


def _inferred(survey: BandSurvey, indices: dict[str, int]) -> dict[str, Band]:
    found = survey.bands()
    keys = {band.key for band in found.values()}
    unknown = [band for band in indices if band not in found]
    if unknown and len(keys) == 1:
        key = keys.pop()
        return {band: Band(key, index) for band, index in indices.items()}
    if unknown:
        raise UnknownBandError.expected(
            "band_index_map",
            f"bands of these items ({', '.join(found)})",
            unknown,
            "say in band_map which asset each band is in",
        )
    return found | {band: Band(found[band].key, index) for band, index in indices.items()}


def sample_index(band: Band, asset: RasterAsset) -> int | None:
    """The sample of a band in one item's asset; None if the asset there does not have it."""
    if isinstance(band.sample, str):
        return asset.names.index(band.sample) if band.sample in asset.names else None
    return band.sample
