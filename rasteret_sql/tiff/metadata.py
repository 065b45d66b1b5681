"""What GDAL writes beside the pixels: no-data value, scale, offset, unit, description, colour.

Source:
    GDAL's GTiff driver documentation, "Internal nodata" and "Metadata"; tags 42112 and 42113.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import unescape

import numpy as np

from rasteret_sql.tiff import tags
from rasteret_sql.tiff.ifd import Ifd
from rasteret_sql.tiff.layout import Level, Statistics, extra_roles

_ENTITIES: Final = {"&quot;": '"', "&apos;": "'"}
_MAX_XML: Final = 4 * 1024 * 1024
_MAX_NODATA: Final = 256
_LIMITS: Final = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for kind in ("int", "uint")
    for name in (f"{kind}{bits}" for bits in (8, 16, 32, 64))
}
_MAX_TEXT: Final = 4096
_MAX_SHORT: Final = 65535
_NUMBER: Final = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")
_WHOLE: Final = re.compile(r"\s*[+-]?\d{1,20}")
_ALPHA: Final = (1, 2)
_STATISTICS: Final = "statistics_"
_NO_STATISTICS: Final = Statistics()
_COLORS: Final = {
    2: ("red", "green", "blue"),
    3: ("palette",),
    5: ("cyan", "magenta", "yellow", "black"),
    6: ("red", "green", "blue"),
    8: ("red", "green", "blue"),
}
"""PhotometricInterpretation: what its own samples are; YCbCr and CIELab are decoded to RGB."""

_NAMES: Final = frozenset(
    {
        *(
            "undefined",
            "gray",
            "palette",
            "red",
            "green",
            "blue",
            "alpha",
            "hue",
            "saturation",
            "lightness",
            "cyan",
            "magenta",
            "yellow",
        ),
        *("black", "pan", "coastal", "rededge", "nir", "swir", "mwir", "lwir", "tir", "other_ir"),
        *("sar_ka", "sar_k", "sar_ku", "sar_x", "sar_c", "sar_s", "sar_l", "sar_p"),
    }
)
"""GDAL's colour interpretations, in lower case."""


@dataclass(slots=True)
class BandMetadata:
    """What GDAL_METADATA says, one entry per sample."""

    scales: list[float]
    offsets: list[float]
    units: list[str | None]
    descriptions: list[str | None]
    colors: list[str]
    statistics: list[Statistics]


class _Refused(Exception):  # noqa: N818 - stops the parser, never leaves this module
    """The XML declares entities or a document type."""


def read_band_metadata(
    page: Ifd, samples: int, colors: list[str], warnings: list[str]
) -> BandMetadata:
    """Apply the items of tag 42112 to the samples they name; XML that is refused warns."""
    bands = BandMetadata(
        [1.0] * samples,
        [0.0] * samples,
        [None] * samples,
        [None] * samples,
        colors,
        [_NO_STATISTICS] * samples,
    )
    if tags.GDAL_METADATA in page:
        xml = page.data(tags.GDAL_METADATA, _MAX_XML).split(b"\0", 1)[0]
        try:
            items = _items(xml)
        except (expat.ExpatError, _Refused, ValueError) as error:
            warnings.append(f"GDAL_METADATA is left out: {error}")
            return bands
        for role, sample, text in items:
            if 0 <= sample < samples:
                _apply(bands, role, sample, text)
    return bands


def _apply(bands: BandMetadata, role: str, sample: int, text: str) -> None:
    if role == "scale":
        bands.scales[sample] = number(text)
    elif role == "offset":
        bands.offsets[sample] = number(text)
    elif role == "unittype":
        bands.units[sample] = text or None
    elif role == "description":
        bands.descriptions[sample] = text or None
    elif role == "colorinterp":
        name = text.lower()
        bands.colors[sample] = name if name in _NAMES else bands.colors[sample]
    elif role.startswith(_STATISTICS) and text:
        field = role.removeprefix(_STATISTICS)
        if field in Statistics._fields:
            known = bands.statistics[sample]
            bands.statistics[sample] = known._replace(**{field: number(text)})


def _items(xml: bytes) -> list[tuple[str, int, str]]:
    """Role (or the name of a statistic), sample and text of the items that name a sample."""
    found: list[tuple[str, int, str]] = []
    text: list[str] = []
    current: tuple[str, int] | None = None

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal current
        text.clear()
        current = None
        if name.lower() != "item" or "name" not in attributes:
            return
        role = (attributes.get("role") or "").lower()
        label = attributes["name"].lower()
        sample = re.match(r"\d{1,5}", attributes.get("sample", ""))
        if sample and (role or label.startswith(_STATISTICS)):
            current = role or label, int(sample[0])

    def characters(part: str) -> None:
        if current is not None:
            text.append(part)

    def end(_name: str) -> None:
        nonlocal current
        if current is not None:
            # GDAL escapes a text before it makes XML of it, which escapes it again.
            found.append((*current, unescape("".join(text)[:_MAX_TEXT].lstrip(), _ENTITIES)))
            current = None

    def refuse(*_arguments: object) -> None:
        raise _Refused("it declares a document type or entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.Parse(xml, True)  # noqa: FBT003 - expat takes no keyword
    return found


def is_shown_as_rgba(image: Level, samples: int) -> bool:
    """Whether GDAL shows the image as RGBA, whatever its metadata say: CMYK of 8 bits."""
    is_cmyk = image.photometric == 5 and image.bits_per_sample == 8
    return is_cmyk and samples >= 4


def extra_samples(page: Ifd) -> tuple[int, ...]:
    """What tag 338 says of the samples that are no colours; () where it has no such values."""
    values = page.whole_numbers(tags.EXTRA_SAMPLES)
    return values if all(0 <= value <= _MAX_SHORT for value in values) else ()


def sample_colors(page: Ifd, samples: int, image: Level) -> list[str]:
    """Colour interpretation from PhotometricInterpretation and ExtraSamples, as GDAL."""
    photometric, bits = image.photometric, image.bits_per_sample
    if is_shown_as_rgba(image, samples):
        own: tuple[str, ...] = ("red", "green", "blue", "alpha")
    elif photometric == 0:
        own = ("palette",) if bits <= 16 else ("undefined",)
    elif photometric == 1:
        has_map = (samples == 1 and bits == 1) or (tags.COLOR_MAP in page and bits <= 16)
        own = ("palette",) if has_map else ("gray",)
    else:
        own = _COLORS.get(photometric, ())
        if photometric == 8 and samples != 3:  # GDAL turns CIELab of three samples only into RGB
            own = ()
    colors = [*own[:samples], *["undefined"] * (samples - len(own))]
    roles = extra_roles(photometric, samples, extra_samples(page))
    for sample, role in roles.items():
        if role in _ALPHA and len(own) <= sample < samples:
            colors[sample] = "alpha"
    return colors


def number(text: str) -> float:
    """The number at the start of a text, as GDAL reads it; 0 if there is none.

    Source:
        GDAL's ``CPLAtofM``: C's ``strtod`` with a point or a comma, and the spellings of
        infinity and not-a-number that Microsoft's C library writes.

    Example:
        >>> number("-1.#IND"), number("1.#INF"), number("-32768 (sea)"), number("n/a")
        (nan, inf, -32768.0, 0.0)
    """
    text = text.strip()
    lower = text.lower()
    if lower == "nan" or lower.startswith(("1.#qnan", "-1.#qnan", "-1.#ind", "1.#snan")):
        return math.nan
    if lower in ("inf", "+inf") or lower.startswith("1.#inf"):
        return math.inf
    if lower == "-inf" or lower.startswith("-1.#inf"):
        return -math.inf
    found = _NUMBER.match(text)
    return float(found[0].replace(",", ".")) if found else 0.0


def read_nodata(page: Ifd, dtype: str) -> float | int | None:
    """The no-data value of tag 42113; None also where no sample can have it."""
    if tags.GDAL_NODATA not in page:
        return None
    text = page.data(tags.GDAL_NODATA, _MAX_NODATA).split(b"\0", 1)[0].decode("latin-1")
    if not text:
        return None
    if dtype in ("int64", "uint64"):
        found = _WHOLE.match(text)
        whole = int(found[0]) if found else 0
        # C's strtoull takes a negative number modulo 2 ** 64
        return _within(whole % (1 << 64) if dtype == "uint64" and whole < 0 else whole, dtype)
    value = number(text)
    if dtype == "float32":
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    return _within(value, dtype) if dtype.startswith(("int", "uint", "complex_int")) else value


def _within(value: float, dtype: str) -> float | int | None:
    low, high = _LIMITS[dtype.removeprefix("complex_")]
    return value if low <= value <= high else None
