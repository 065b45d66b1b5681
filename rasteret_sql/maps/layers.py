"""What a map shows of the pixels: bands or an expression, their colours, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rasteret_sql import pictures
from rasteret_sql.errors import InputError
from rasteret_sql.maps.expressions import Expression
from rasteret_sql.maps.sources import Source
from rasteret_sql.maps.statements import Frame

METHODS: Final = ("last", "first", "median", "mean", "min", "max")
TILE_PX: Final = 256
MAX_ZOOM: Final = 24
HALF_M: Final = 20037508.342789244
"""Half the width of the world in Web Mercator: pi times 6378137 m."""

RADIUS_M: Final = 6378137.0
_RGB: Final = 3
_LIMITS: Final = 2

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Limits = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Layer:
    """What is shown.

    Attributes:
        bands: One band, or red, green and blue; of an expression those that it reads.
        expression: Instead of bands.
        method: Of several scenes, as in `rasteret_composite`.
        limits: Values that become black and white, of each band; None: the usual ones.
        colormap: Of one band or an expression: a ramp or classes of `pictures`.
    """

    bands: tuple[str, ...]
    expression: Expression | None = None
    method: str = "last"
    limits: Limits | None = None
    colormap: str = "grey"

    @property
    def reads(self) -> tuple[str, ...]:
        """Bands that are read, each once."""
        return tuple(dict.fromkeys(self.bands))

    @property
    def is_classes(self) -> bool:
        """Whether values are classes, which have no limits."""
        return self.colormap in pictures.CLASSES


def layer_of(source: Source, given: Mapping[str, str]) -> Layer:
    """The layer that parameters of an address ask for.

    Args:
        source: Of the bands.
        given: ``bands`` or ``expression``; ``rescale``, ``colormap``, ``method``.

    Raises:
        InputError: a parameter does not do.
    """
    method = one_of("method", given.get("method", "last"), METHODS)
    known = (*pictures.RAMPS, *pictures.CLASSES)
    colormap = one_of("colormap", given.get("colormap", "grey"), known)
    limits = _limits(given.get("rescale", ""))
    if given.get("expression"):
        if given.get("bands"):
            raise InputError.expected("bands", "bands or an expression", "both", "leave one out")
        expression = source.expression(given["expression"])
        if limits is not None and len(limits) > 1:
            raise InputError.expected("rescale", "LOW,HIGH", given["rescale"], "two numbers")
        return Layer(expression.names, expression, method, limits, colormap)
    names = [name.strip() for name in given.get("bands", "").split(",") if name.strip()]
    bands = source.check_bands(names or default_bands([*source.types]))
    if len(bands) not in (1, _RGB):
        raise InputError.expected(
            "bands", "one band, or red, green and blue", ", ".join(bands), "name them"
        )
    if limits is not None and len(limits) not in (1, len(bands)):
        raise InputError.expected(
            "rescale", "LOW,HIGH once or for each band", given["rescale"], "check their number"
        )
    return Layer(bands, None, method, limits, colormap if len(bands) == 1 else "grey")


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """The value, if it is known.

    Raises:
        InputError: it is not.
    """
    if value not in known:
        raise InputError.expected(name, f"one of {', '.join(known)}", value, "choose one")
    return value


def default_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Red, green and blue where their names are usual ones, else the first band.

    Example:
        >>> default_bands(["B08", "B02", "B03", "B04"]), default_bands(["B08", "B04"])
        (('B04', 'B03', 'B02'), ('B08',))
    """
    for names in (("B04", "B03", "B02"), ("red", "green", "blue"), ("SR_B4", "SR_B3", "SR_B2")):
        if set(names) <= set(bands):
            return names
    return tuple(bands)[:1]


def _limits(text: str) -> Limits | None:
    if not text:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    pairs = tuple(zip(found[::2], found[1::2], strict=False))
    if len(found) % _LIMITS or not pairs or not all(low < high for low, high in pairs):
        raise InputError.expected("rescale", "LOW,HIGH with LOW < HIGH", text, "two numbers")
    if not all(math.isfinite(value) for value in found):
        raise InputError.expected("rescale", "finite numbers", text, "two numbers")
    return pairs


def tile_frame(z: int, x: int, y: int) -> Frame:
    """The pixels of a tile.

    Raises:
        InputError: there is no such tile.

    Example:
        >>> tile_frame(1, 0, 0)
        Frame(west=-20037508.342789244, north=20037508.342789244, resolution=78271.51696402048, \
width=256, height=256)
    """
    if not 0 <= z <= MAX_ZOOM or not (0 <= x < 1 << z and 0 <= y < 1 << z):
        raise InputError.expected(
            "tile", f"zoom 0 to {MAX_ZOOM}, x and y within it", f"{z}/{x}/{y}", "check the address"
        )
    side = 2 * HALF_M / (1 << z)
    return Frame(x * side - HALF_M, HALF_M - y * side, side / TILE_PX, TILE_PX, TILE_PX)


def lonlat_frame(west: float, south: float, east: float, north: float, most_px: int) -> Frame:
    """Pixels over a box in degrees, on the grid of a zoom level, of at most so many a side."""
    left, right = (math.radians(lon) * RADIUS_M for lon in (west, east))
    low, high = (_northing(lat) for lat in (south, north))
    least = max(right - left, high - low, 1e-3) / (most_px - 1)
    zoom = math.floor(math.log2(2 * HALF_M / TILE_PX / least))
    size = 2 * HALF_M / TILE_PX / 2.0 ** min(zoom, MAX_ZOOM)
    column, row = math.floor(left / size), math.ceil(high / size)
    width = max(1, math.ceil(right / size) - column)
    height = max(1, row - math.floor(low / size))
    return Frame(column * size, row * size, size, width, height)


def _northing(lat: float) -> float:
    """Metres north of the equator in Web Mercator."""
    lat = max(-85.05112878, min(85.05112878, lat))
    return RADIUS_M * math.asinh(math.tan(math.radians(lat)))


def degrees_of(frame: Frame) -> tuple[float, float, float, float]:
    """West, south, east, north of a frame, in degrees."""
    west, south, east, north = frame.box
    lats = (math.degrees(math.atan(math.sinh(y / RADIUS_M))) for y in (south, north))
    low, high = lats
    return math.degrees(west / RADIUS_M), low, math.degrees(east / RADIUS_M), high


@dataclass(frozen=True, eq=False)
class Pixels:
    """Values of a frame.

    Attributes:
        values: Of each band that is read, or one array of an expression; (height, width) each.
        valid: Which of them hold data.
    """

    values: tuple[Array, ...]
    valid: tuple[Mask, ...]


def pixels_of(table: Any, frame: Frame, layer: Layer) -> Pixels:  # noqa: ANN401 (pyarrow has no types)
    """The pixels of a statement that `statements.pixels` wrote."""
    if layer.expression is None:
        return _blocks(table.to_pylist(), frame, layer.reads)
    values = np.full((frame.height, frame.width), np.nan)
    flat = table.column("value").to_numpy()
    heights, widths = (table.column(name).to_numpy() for name in ("height", "width"))
    wests, norths = (table.column(name).to_numpy() for name in ("west", "north"))
    start = 0
    while start < len(flat):
        height, width = int(heights[start]), int(widths[start])
        block = flat[start : start + height * width].reshape(height, width)
        _put(values, block, frame, wests[start], norths[start])
        start += height * width
    return Pixels((values,), (np.isfinite(values),))


def _blocks(rows: list[dict[str, Any]], frame: Frame, bands: Sequence[str]) -> Pixels:
    shape = frame.height, frame.width
    values = [np.zeros(shape) for _ in bands]
    if rows:
        values = [np.zeros(shape, dtype) for dtype in rows[0]["dtypes"]]
    valid = [np.zeros(shape, bool) for _ in bands]
    for row in rows:
        size = row["height"], row["width"]
        place = row["transform"][2], row["transform"][5]
        masks = np.frombuffer(row["valid"], bool).reshape(len(bands), *size)
        for number, band in enumerate(bands):
            block = np.frombuffer(row[band], row["dtypes"][number]).reshape(size)
            _put(values[number], block, frame, *place)
            _put(valid[number], masks[number], frame, *place)
    finite = (mask & np.isfinite(array) for mask, array in zip(valid, values, strict=True))
    return Pixels(tuple(values), tuple(finite))


def _put(canvas: Array, block: Array, frame: Frame, west: float, north: float) -> None:
    """Copy the part of a block that lies on a canvas."""
    row = round((frame.north - north) / frame.resolution)
    col = round((west - frame.west) / frame.resolution)
    top, left = max(row, 0), max(col, 0)
    bottom = min(row + block.shape[0], canvas.shape[0])
    right = min(col + block.shape[1], canvas.shape[1])
    if top < bottom and left < right:
        canvas[top:bottom, left:right] = block[top - row : bottom - row, left - col : right - col]


def percentiles(pixels: Pixels, layer: Layer) -> Limits:
    """The 2nd and 98th percentile of the values of each band, or of an expression."""
    found = []
    for values, valid in _shown(pixels, layer):
        inside = values[valid]
        low, high = (
            np.percentile(inside, pictures.PERCENTILES).tolist() if inside.size else (0.0, 1.0)
        )
        found.append((float(low), float(high if high > low else low + 1)))
    return tuple(found)


def painted(pixels: Pixels, layer: Layer, limits: Limits) -> bytes:
    """The PNG of a layer; pixels without data are transparent."""
    shown = _shown(pixels, layer)
    if layer.is_classes:
        (values, valid) = shown[0]
        rgb, valid = pictures.classed(values, valid, pictures.CLASSES[layer.colormap])
        return pictures.png(rgb, valid, is_quick=True)
    every = limits * len(shown) if len(limits) == 1 else limits
    codes = [
        pictures.stretched(values, valid, pair)
        for (values, valid), pair in zip(shown, every, strict=True)
    ]
    valid = np.logical_and.reduce([valid for _, valid in shown])
    rgb = np.dstack(codes) if len(codes) > 1 else pictures.coloured(codes[0], layer.colormap)
    return pictures.png(rgb, valid, is_quick=True)


def _shown(pixels: Pixels, layer: Layer) -> list[tuple[Array, Mask]]:
    """Values and which hold data, of each channel."""
    pairs = list(zip(pixels.values, pixels.valid, strict=True))
    if layer.expression is not None:
        return pairs
    return [pairs[layer.reads.index(band)] for band in layer.bands]


def empty_png() -> bytes:
    """A tile of transparent pixels."""
    shape = TILE_PX, TILE_PX
    return pictures.png(np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool), is_quick=True)
