"""What STAC metadata says about the CRS of a raster; the header decides later."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from pyproj import CRS
from pyproj.exceptions import CRSError

_CODE = re.compile(r"(?:EPSG:{1,2})?(\d{1,7})$", re.IGNORECASE)
_INT32_MAX = 2**31 - 1


class CrsHint(NamedTuple):
    """EPSG code if there is one, and the CRS as ``AUTHORITY:code`` or WKT2."""

    epsg: int | None = None
    crs: str | None = None


def crs_hint(properties: Mapping[str, Any], assets: Iterable[Mapping[str, Any]] = ()) -> CrsHint:
    """The CRS that the properties name, else the one that all assets which name one share.

    Source: STAC projection extension 2.0 (proj:code) and 1.x (proj:epsg).

    Example:
        >>> crs_hint({"proj:code": "EPSG:32633"})
        CrsHint(epsg=32633, crs='EPSG:32633')
    """
    found = _of_fields(properties)
    if found != CrsHint():
        return found
    of_assets = {_of_fields(asset) for asset in assets} - {CrsHint()}
    return of_assets.pop() if len(of_assets) == 1 else CrsHint()


def _of_fields(fields: Mapping[str, Any]) -> CrsHint:
    for name in ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson"):
        value = fields.get(name)
        if value is None or value in ("", {}):
            continue
        text = value if isinstance(value, str) else json.dumps(_whole(value))
        found = _parse(text.strip(), name)
        if found != CrsHint():
            return found
    return CrsHint()


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A code that was written as a DOUBLE or DECIMAL, as an integer."""
    is_number = isinstance(value, float | Decimal) and value == value
    return int(value) if is_number and value == int(value) else None if is_number else value


@lru_cache(maxsize=512)
def _parse(text: str, name: str) -> CrsHint:
    match = _CODE.match(text)
    if match and name in {"proj:code", "proj:epsg"}:
        epsg = int(match[1])
        return CrsHint(epsg, f"EPSG:{epsg}") if 0 < epsg <= _INT32_MAX else CrsHint()
    try:
        crs = CRS.from_user_input(text)
    except CRSError:
        return CrsHint()
    authority = crs.to_authority(min_confidence=100)
    if authority is None:
        return CrsHint(None, crs.to_wkt("WKT2_2019"))
    if authority[0] == "EPSG":
        return CrsHint(int(authority[1]), f"EPSG:{authority[1]}")
    return CrsHint(None, ":".join(authority))
