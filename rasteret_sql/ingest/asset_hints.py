"""What STAC metadata says of the values in an asset and of its grid.

Source: STAC raster extension 1.x ``raster:bands``; STAC 1.1 common metadata ``bands`` and
``nodata``; raster extension 2.0 ``raster:scale`` and ``raster:offset``; projection extension
``proj:shape`` and ``proj:transform``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import shorten
from rasteret_sql.units import Affine

COLUMN = "_asset_hints"
"""A column of records that are going to be enriched: a STRUCT of `HINT` per band."""

HINT = pa.struct(
    [
        ("nodata", pa.float64()),
        ("scale", pa.float64()),
        ("offset", pa.float64()),
        ("shape", pa.list_(pa.int64())),
        ("transform", pa.list_(pa.float64())),
    ]
)

VALUES = ("nodata", "scale", "offset")
_LONG_NAMES = ("nodata", "raster:scale", "raster:offset")
_MAX_SHIFT_PX = 0.1
_N_SHAPE, _N_TRANSFORM = 2, 6


class AssetHint(NamedTuple):
    """What is said of a sample; None where nothing is.

    Attributes:
        shape: height, width.
        transform: six numbers in the order of `units.Affine`.
    """

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    shape: list[int] | None = None
    transform: list[float] | None = None


def asset_hints(
    asset: Mapping[str, Any], properties: Mapping[str, Any] | None = None
) -> list[AssetHint]:
    """What is said of an asset as a whole, then of each of its samples; [] if nothing is.

    Args:
        asset: Of an item.
        properties: Of the item; its grid is that of the assets which tell of none.

    Example:
        >>> asset_hints({"raster:bands": [{"nodata": "nan", "scale": 0.1}]})[1][:3]
        (nan, 0.1, None)
        >>> asset_hints({"href": "a.tif"})
        []
    """
    grid = {**(properties or {}), **{k: v for k, v in asset.items() if v is not None}}
    shape = _numbers(grid.get("proj:shape"), _N_SHAPE)
    of_asset = AssetHint(
        **_values(asset, {}),
        shape=None if shape is None else [int(n) for n in shape],
        transform=_numbers(grid.get("proj:transform"), _N_TRANSFORM),
    )
    lists = [asset.get(field) for field in ("bands", "raster:bands")]
    declared: list[AssetHint] = []
    for bands in (bands for bands in lists if isinstance(bands, list)):
        for i, band in enumerate(bands):
            values = _values(band if isinstance(band, Mapping) else {}, of_asset._asdict())
            if i == len(declared):
                declared.append(AssetHint())
            declared[i] = declared[i]._replace(
                **{k: v for k, v in values.items() if getattr(declared[i], k) is None}
            )
    found = [of_asset, *declared]
    return found if any(value is not None for hint in found for value in hint) else []


def _values(band: Mapping[str, Any], otherwise: Mapping[str, Any]) -> dict[str, Any]:
    """Nodata, scale and offset."""
    values = {}
    for short, long in zip(VALUES, _LONG_NAMES, strict=True):
        value = _number(band.get(long))
        value = _number(band.get(short)) if value is None else value
        values[short] = _number(otherwise.get(short)) if value is None else value
    return values


def _numbers(value: object, n: int) -> list[float] | None:
    """The first n numbers of a list that has as many (a transform may have nine)."""
    if not isinstance(value, list) or len(value) < n:
        return None
    found = [
        float(one)
        for one in value[:n]
        if isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
    ]
    return found if len(found) == n else None


def _number(value: object) -> float | None:
    """A number, or one of the texts that STAC allows for nodata."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def hint_of(hints: list[Any], sample: int) -> AssetHint | None:
    """The hint of a sample, from `asset_hints`."""
    if not hints:
        return None
    of_asset = AssetHint(*hints[0])
    own = AssetHint(*hints[1 + sample]) if sample + 1 < len(hints) else of_asset
    return own._replace(shape=of_asset.shape, transform=of_asset.transform)


def apply_hint(row: dict[str, Any], hint: Mapping[str, Any]) -> list[str]:
    """Complete a ``{band}_metadata`` with what the STAC item says.

    Of nodata, scale and offset the item's are used, of the grid the file's.

    Args:
        row: One band's values, which are changed.
        hint: Of the band; None leaves the header's value.

    Returns:
        A line for each value on which the two differ, or that the samples cannot hold.
    """
    return [*apply_values(row, hint), *_apply_grid(row, hint)]


def apply_values(row: dict[str, Any], hint: Mapping[str, Any]) -> list[str]:
    """Put the item's nodata, scale and offset in place of the header's; see `apply_hint`."""
    conflicts = []
    for name, header_says in zip(VALUES, (None, 1.0, 0.0), strict=True):
        said, own = hint[name], row[name]
        if said is None or _is_same(said, own, row["dtype"]):
            continue
        if name == "nodata" and not _can_hold(row["dtype"], said):
            conflicts.append(
                f"nodata: expected a value of {row['dtype']}, the item says {shorten(said)}; "
                "it is not used"
            )
            continue
        if own is not None and own != header_says:
            conflicts.append(
                f"{name}: the item says {shorten(said)}, the file {shorten(own)}; "
                "the item's is used"
            )
        with np.errstate(over="ignore"):
            is_nodata = name == "nodata" and row["dtype"] == "float32"
            row[name] = float(np.float32(said)) if is_nodata else said
    return conflicts


def _apply_grid(row: dict[str, Any], hint: Mapping[str, Any]) -> list[str]:
    conflicts = []
    height, width = row["image_height"], row["image_width"]
    shape, transform = hint["shape"], hint["transform"]
    if shape is not None and list(shape) != [height, width]:
        conflicts.append(
            f"proj:shape: the item says {list(shape)}, the file {[height, width]}; "
            "the file's is used"
        )
    if transform is None:
        return conflicts
    said = Affine(*transform)
    if row["affine"] is None:
        if not conflicts and said.determinant:
            row["affine"] = said
            row["transform"] = [said.a, said.c, said.e, said.f] if said.is_rectilinear else None
    elif _shift_px(said, Affine(*row["affine"]), height, width) > _MAX_SHIFT_PX:
        conflicts.append(
            f"proj:transform: the item says {transform}, the file {list(row['affine'])}; "
            "the file's is used"
        )
    return conflicts


def _shift_px(said: Affine, own: Affine, height: int, width: int) -> float:
    """How far apart two grids lay a corner of the image, at most, in pixels."""
    if not own.determinant:
        return 0.0
    to_pixel = own.inverse()
    return max(
        max(abs(a - b) for a, b in zip(to_pixel.to_map(*said.to_map(*at)), at, strict=True))
        for at in ((0, 0), (width, 0), (0, height), (width, height))
    )


def _is_same(said: float, own: float | None, dtype: str) -> bool:
    if own is None:
        return False
    if math.isnan(said) or math.isnan(own):
        return math.isnan(said) and math.isnan(own)
    with np.errstate(over="ignore"):
        return said == own or (dtype == "float32" and np.float32(said) == np.float32(own))


def _can_hold(dtype: str, value: float) -> bool:
    if not dtype.startswith(("int", "uint")):
        return True
    if not value.is_integer():
        return False
    info = np.iinfo(dtype)
    return bool(info.min <= value <= info.max)
