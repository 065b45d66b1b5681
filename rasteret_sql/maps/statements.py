"""The SQL behind what is seen: each text is run as it stands, and shown as it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rasteret_sql.duck.names import quote_identifier, quote_text
from rasteret_sql.maps.expressions import Expression

MERCATOR = 3857
"""EPSG code of web maps."""

_PLAIN = re.compile(r"[A-Za-z]+\d\w*", re.ASCII)
"""Names that are surely no word of SQL."""


@dataclass(frozen=True)
class Frame:
    """A rectangle of pixels in Web Mercator.

    Attributes:
        west: Metres.
        north: Metres.
        resolution: Metres of the projection per pixel, both ways.
        width: Columns.
        height: Rows.
    """

    west: float
    north: float
    resolution: float
    width: int
    height: int

    @property
    def box(self) -> list[float]:
        """West, south, east, north, in metres."""
        east = self.west + self.width * self.resolution
        return [self.west, self.north - self.height * self.resolution, east, self.north]


@dataclass(frozen=True)
class Call:
    """A call of a table function, over several lines."""

    function: str
    first: Sequence[str]
    arguments: Mapping[str, object]

    def text(self, indent: int) -> str:
        """The call; what stands below its first line is indented."""
        pad = "\n" + " " * (indent + 4)
        listed = [f"{name} := {literal(value)}" for name, value in self.arguments.items()]
        return f"{self.function}({', '.join(self.first)},{pad}{(',' + pad).join(listed)})"


def literal(value: object) -> str:
    """A value as SQL text.

    Example:
        >>> literal(["it's", 1.5, True, None])
        "['it''s', 1.5, true, NULL]"
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quote_text(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def columns(names: Sequence[str], indent: int = 0) -> str:
    """Names between commas, several lines of them where they are many."""
    pad = "\n" + " " * (indent + 4)
    lines = [", ".join(map(quoted, names[start : start + 8])) for start in range(0, len(names), 8)]
    return ("," + pad).join(lines)


def quoted(name: str) -> str:
    """A column, between double quotes unless it is a plain word.

    Example:
        >>> quoted("B04"), quoted("eo:cloud_cover")
        ('B04', '"eo:cloud_cover"')
    """
    return name if _PLAIN.fullmatch(name) else quote_identifier(name)


def pixels(
    collection: str,
    frame: Frame,
    bands: Sequence[str],
    ids: Sequence[str],
    method: str,
    expression: Expression | None,
    casts: Mapping[str, str],
) -> str:
    """The pixels of a frame from several scenes, one block or a few of them.

    Args:
        collection: What stands for it as an argument.
        frame: Where they lie.
        bands: Bands that are read.
        ids: Scenes.
        method: Of `rasteret_composite`.
        expression: What is computed of them; None for the bands themselves.
        casts: Type of each band in an expression.

    Returns:
        Without an expression a row is a block: height, width, transform, dtypes, the bands and
        valid. With one a row is a pixel: height, width, west and north of its block, and value,
        row by row.
    """
    where = {
        "bands": list(bands),
        "ids": list(ids),
        "method": method,
        "bbox": frame.box,
        "geometry_crs": MERCATOR,
        "crs": MERCATOR,
        "resolution": frame.resolution,
    }
    if expression is None:
        call = Call("rasteret_composite", [literal(collection)], where | {"valid": True})
        own = columns(bands)
        return f"SELECT height, width, transform, dtypes, {own}, valid\nFROM {call.text(0)}"
    call = Call("rasteret_composite", [literal(collection)], where | {"format": "list"})
    unnested = [f"unnest({quoted(band)}){casts[band]} AS {quoted(band)}" for band in bands]
    place = "height, width, transform[3] AS west, transform[6] AS north"
    return (
        f"SELECT height, width, west, north, {expression.sql}::DOUBLE AS value\n"
        f"FROM (SELECT {place},\n        {', '.join(unnested)}\n    FROM {call.text(4)})"
    )


def point(
    collection: str,
    lon: float,
    lat: float,
    bands: Sequence[str],
    expression: Expression | None,
    casts: Mapping[str, str],
    dates: Sequence[str | None],
) -> str:
    """The values at a point in all scenes that hold it: id, datetime, and the bands or value."""
    call = Call(
        "rasteret_sample_points",
        [literal(collection), literal(f"SELECT {lon!r} AS lon, {lat!r} AS lat")],
        {"bands": list(bands), **_dates(dates)},
    )
    if expression is None:
        own = columns(bands)
        return (
            f"SELECT record_id AS id, datetime, {own}\nFROM {call.text(0)}\nORDER BY datetime, id"
        )
    cast = ", ".join(f"{quoted(band)}{casts[band]} AS {quoted(band)}" for band in bands)
    return (
        f"SELECT id, datetime, {expression.sql}::DOUBLE AS value\n"
        f"FROM (SELECT record_id AS id, datetime, {cast}\n    FROM {call.text(4)})\n"
        "ORDER BY datetime, id"
    )


def zone(
    collection: str,
    geometry: str,
    bands: Sequence[str],
    expression: Expression | None,
    casts: Mapping[str, str],
    dates: Sequence[str | None],
    resolution: float | None,
) -> str:
    """Statistics of a polygon in each scene: id, datetime, band, count, mean, stddev, min, max.

    An expression is computed for each pixel, its statistics after that; its band is ``value``.

    Args:
        collection: What stands for it as an argument.
        geometry: GeoJSON of the polygon, in degrees.
        bands: Bands that are read.
        expression: What is computed of them; None for the bands themselves.
        casts: Type of each band in an expression.
        dates: First and last day; None is open.
        resolution: Of pixels, in units of each raster's CRS, where bands differ in theirs.
    """
    place = {"geometry": geometry, "bands": list(bands), **_dates(dates)}
    if expression is None:
        stats = ["count", "mean", "stddev", "min", "max"]
        call = Call("rasteret_zonal_stats", [literal(collection), "NULL"], place | {"stats": stats})
        own = "id, datetime, band, count, mean, stddev, min, max"
        return f"SELECT {own}\nFROM {call.text(0)}\nORDER BY datetime, id, band"
    if resolution is not None:
        place |= {"resolution": resolution}
    call = Call("rasteret_pixels", [literal(collection)], place)
    cast = ", ".join(f"{quoted(band)}{casts[band]} AS {quoted(band)}" for band in bands)
    return (
        "SELECT id, datetime, 'value' AS band, count(value) AS count, avg(value) AS mean,\n"
        "    stddev_pop(value) AS stddev, min(value) AS min, max(value) AS max\n"
        f"FROM (SELECT id, datetime, {expression.sql}::DOUBLE AS value\n"
        f"    FROM (SELECT id, datetime, {cast}\n        FROM {call.text(8)}))\n"
        "GROUP BY id, datetime\nORDER BY datetime, id"
    )


def picture(
    collection: str,
    record: str,
    bands: Sequence[str],
    width: int,
    rescale: Sequence[float] | None,
    colormap: str | None,
) -> str:
    """A picture of a scene, from its overviews: png."""
    arguments: dict[str, object] = {"bands": list(bands), "ids": [record], "width": width}
    if rescale is not None:
        arguments["rescale"] = list(rescale)
    if colormap is not None and len(bands) == 1:
        arguments["colormap"] = colormap
    call = Call("rasteret_preview", [literal(collection)], arguments)
    return f"SELECT png\nFROM {call.text(0)}"


def _dates(dates: Sequence[str | None]) -> dict[str, object]:
    """The argument date_range, unless both sides are open."""
    return {"date_range": list(dates)} if any(dates) else {}
