"""What a catalogue says of the values in an asset: nodata, scale and offset.

Source: STAC raster extension 1.x ``raster:bands``; STAC 1.1 common metadata ``bands`` and
``nodata``; raster extension 2.0 ``raster:scale`` and ``raster:offset``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import shorten

COLUMN = "_value_hints"
"""A column of records that are going to be enriched: a STRUCT of `HINT` per band."""

HINT = pa.struct([("nodata", pa.float64()), ("scale", pa.float64()), ("offset", pa.float64())])

_FIELDS = (("nodata", "nodata"), ("scale", "raster:scale"), ("offset", "raster:offset"))


class ValueHint(NamedTuple):
    """Nodata, scale and offset of a sample; None where nothing is said."""

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None


def value_hints(asset: Mapping[str, Any]) -> list[ValueHint]:
    """What is said of an asset as a whole, then of each of its samples; [] if nothing is.

    Example:
        >>> value_hints({"raster:bands": [{"nodata": "nan", "scale": 0.1}]})[1]
        ValueHint(nodata=nan, scale=0.1, offset=None)
        >>> value_hints({"href": "a.tif"})
        []
    """
    of_asset = _hint(asset, asset)
    lists = [asset.get(field) for field in ("bands", "raster:bands")]
    declared: list[ValueHint] = []
    for bands in (bands for bands in lists if isinstance(bands, list)):
        for i, band in enumerate(bands):
            hint = _hint(band, of_asset._asdict()) if isinstance(band, Mapping) else of_asset
            if i == len(declared):
                declared.append(hint)
            else:
                declared[i] = ValueHint(
                    *(b if a is None else a for a, b in zip(declared[i], hint, strict=True))
                )
    found = [of_asset, *declared]
    return found if any(value is not None for hint in found for value in hint) else []


def _hint(band: Mapping[str, Any], otherwise: Mapping[str, Any]) -> ValueHint:
    values = []
    for short, long in _FIELDS:
        value = _number(band.get(long))
        value = _number(band.get(short)) if value is None else value
        values.append(_number(otherwise.get(short)) if value is None else value)
    return ValueHint(*values)


def _number(value: object) -> float | None:
    """A number, or one of the texts that STAC allows for nodata."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def hint_of(hints: list[Any], sample: int) -> ValueHint | None:
    """The hint of a sample, from `value_hints`."""
    if not hints:
        return None
    return ValueHint(*(hints[1 + sample] if sample + 1 < len(hints) else hints[0]))


def apply_hint(row: dict[str, Any], hint: Mapping[str, float | None]) -> list[str]:
    """Put what the catalogue says in place of what the header says, in a ``{band}_metadata``.

    Args:
        row: ``nodata``, ``scale`` and ``offset`` are changed; ``dtype`` is read.
        hint: Of the band; None leaves the header's value.

    Returns:
        A line for each value on which the two differ, or that the samples cannot hold.
    """
    conflicts = []
    for name, header_says in (("nodata", None), ("scale", 1.0), ("offset", 0.0)):
        said, own = hint[name], row[name]
        if said is None or _is_same(said, own, row["dtype"]):
            continue
        if name == "nodata" and not _can_hold(row["dtype"], said):
            conflicts.append(
                f"nodata: expected a value of {row['dtype']}, the catalogue says {shorten(said)}; "
                "it is not used"
            )
            continue
        if own is not None and own != header_says:
            conflicts.append(
                f"{name}: the catalogue says {shorten(said)}, the file {shorten(own)}; "
                "the catalogue's is used"
            )
        with np.errstate(over="ignore"):
            is_nodata = name == "nodata" and row["dtype"] == "float32"
            row[name] = float(np.float32(said)) if is_nodata else said
    return conflicts


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
