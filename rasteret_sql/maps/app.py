"""The answers of the map: tiles, scenes, series and pictures, from addresses."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import shapely

from rasteret_sql.errors import InputError, NotFoundError, redact
from rasteret_sql.maps import statements
from rasteret_sql.maps.connections import Connections
from rasteret_sql.maps.layers import (
    METHODS,
    Layer,
    Limits,
    default_bands,
    degrees_of,
    empty_png,
    layer_of,
    lonlat_frame,
    painted,
    percentiles,
    pixels_of,
    tile_frame,
)
from rasteret_sql.maps.sources import Scenes, Source, day_range
from rasteret_sql.maps.statements import Frame
from rasteret_sql.pictures import CLASSES, RAMPS
from rasteret_sql.secrets import redact_words

PNG: Final = "image/png"
JSON: Final = "application/json"
MAX_SCENES: Final = 64
"""Of one tile. A tile of more would take long and show little of each."""

MAX_OUTLINES: Final = 2000
_STRETCH_PX: Final = 256
_CACHE_BYTES: Final = 64 << 20
_PREVIEW_PX: Final = 192
_KEPT_LIMITS: Final = 1000
_BOX: Final = 4
_OF_PICTURES: Final = ("bands", "expression", "rescale", "colormap")

Query = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
        body: Its bytes.
        kind: Media type.
        tag: Changes when the answer does; None: not to be kept.
        is_known: The client has it, so the body was not made.
    """

    body: bytes
    kind: str = JSON
    tag: str | None = None
    is_known: bool = False


class Kept:
    """Answers that were given, the least used leave first."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity, self._size = capacity_bytes, 0
        self._found: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The bytes of a key, if they are still there."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
            return found

    def put(self, key: str, body: bytes) -> None:
        """Keep bytes."""
        with self._lock:
            self._size += len(body) - len(self._found.pop(key, b""))
            self._found[key] = body
            while self._size > self._capacity:
                self._size -= len(self._found.popitem(last=False)[1])


@dataclass
class App:
    """Answers requests.

    Attributes:
        run: Runs statements.
        sources: Collections by name.
    """

    run: Connections
    sources: Mapping[str, Source]
    _kept: Kept = field(default_factory=lambda: Kept(_CACHE_BYTES))
    _limits: dict[object, Limits] = field(default_factory=dict)
    _empty: bytes = field(default_factory=empty_png)

    def collections(self) -> Answer:
        """Names of all collections."""
        return _json({"collections": list(self.sources)})

    def collection(self, name: str) -> Answer:
        """What a collection holds, and what may be asked of it."""
        source = self._source(name)
        scenes = self._scenes(source)
        bounds = scenes.bounds[np.isfinite(scenes.bounds).all(axis=1)]
        low, high = (
            (bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)) if len(bounds) else ([], [])
        )
        readable = [band for band in source.types if source.having(self.run, [band]).any()]
        return _json(
            {
                "name": source.name,
                "bands": source.types,
                "default_bands": default_bands(readable or [*source.types]),
                "columns": {k: v for k, v in source.columns.items() if k != "bbox"},
                "records": len(scenes.ids),
                "bounds": [float(side) for side in (*low, *high)] or None,
                "colormaps": [*RAMPS, *CLASSES],
                "methods": METHODS,
            }
        )

    def tile(
        self,
        name: str,
        place: tuple[int, int, int],
        query: Query,
        is_wanted: Wanted,
        known: str | None = None,
    ) -> Answer:
        """The PNG of a tile.

        Args:
            name: Of the collection.
            place: Zoom, x and y.
            query: What `layer_of` takes; ``date`` and ``where`` choose scenes.
            is_wanted: Whether the client is still there.
            known: Tag of the answer that the client has.

        Raises:
            InputError: a parameter does not do.
        """
        source = self._source(name)
        frame, layer = tile_frame(*place), layer_of(source, query)
        ids = self._ids_of(source, layer, frame, query)
        if not ids:
            return Answer(self._empty, PNG)
        limits = self._limits_of(source, layer, query)
        tag = _digest((name, source.version, layer, limits, place, ids))
        if tag == known:
            return Answer(b"", PNG, tag, is_known=True)
        body = self._kept.get(tag)
        if body is None:
            table = self.run.table(_pixels(source, frame, layer, ids), is_wanted)
            body = painted(pixels_of(table, frame, layer), layer, limits)
            self._kept.put(tag, body)
        return Answer(body, PNG, tag)

    def tile_sql(self, name: str, place: tuple[int, int, int], query: Query) -> Answer:
        """The statement of a tile; none where no scene is."""
        source = self._source(name)
        frame, layer = tile_frame(*place), layer_of(source, query)
        ids = self._ids_of(source, layer, frame, query)
        return _json({"sql": redact_words(_pixels(source, frame, layer, ids)) if ids else None})

    def stretch(self, name: str, query: Query, is_wanted: Wanted) -> Answer:
        """Percentiles of what a view shows, as limits for each band."""
        source = self._source(name)
        layer = layer_of(source, query)
        frame = lonlat_frame(*_box(query), _STRETCH_PX)
        ids = self._ids_of(source, layer, frame, query)
        if not ids:
            return _json({"rescale": None, "sql": None, "note": self._lacking(source, layer)})
        text = _pixels(source, frame, layer, ids)
        pixels = pixels_of(self.run.table(text, is_wanted), frame, layer)
        found = percentiles(pixels, layer) if any(one.any() for one in pixels.valid) else None
        return _json({"rescale": found, "sql": redact_words(text)})

    def scenes(self, name: str, query: Query) -> Answer:
        """Outlines of scenes, the newest first, and how many there are of each day."""
        source = self._source(name)
        scenes = self._scenes(source)
        chosen = source.chosen(self.run, query.get("where", ""))
        days, counts = np.unique(scenes.moments[chosen].astype("datetime64[D]"), return_counts=True)
        chosen = chosen & scenes.between(day_range(query.get("date", "")))
        total = int(chosen.sum())
        if query.get("bbox"):
            chosen &= scenes.within(*_box(query))
        places = np.flatnonzero(chosen)[::-1]
        features = self._features(source, scenes, places[:MAX_OUTLINES])
        return _json(
            {
                "total": total,
                "in_view": len(places),
                "days": [
                    [str(day), count]
                    for day, count in zip(days, counts.tolist(), strict=True)
                    if not np.isnat(day)
                ],
                "scenes": {"type": "FeatureCollection", "features": features},
            }
        )

    def scene(self, name: str, record: str) -> Answer:
        """All plain columns of a scene."""
        source = self._source(name)
        names = [name for name in source.columns if name != "bbox"]
        listed = ", ".join(map(statements.quoted, names))
        table = self.run.table(
            f"SELECT {listed} FROM {source.relation} WHERE id = {statements.literal(record)}"
        )
        rows = _python_rows(table)
        if not rows:
            raise NotFoundError.expected("id", f"a scene of {name}", record, "check it")
        return _json({key: _plain(value) for key, value in rows[0].items() if value is not None})

    def picture(self, name: str, record: str, query: Query, is_wanted: Wanted) -> Answer:
        """A quick-look of a scene, from its overviews."""
        source = self._source(name)
        given = {key: query[key] for key in _OF_PICTURES if query.get(key)}
        layer = layer_of(source, given)
        if layer.expression is not None:
            return self._picture_of_expression(source, layer, record, given, is_wanted)
        rescale = layer.limits[0] if layer.limits and len(layer.limits) == 1 else None
        text = statements.picture(
            source.argument, record, layer.bands, _PREVIEW_PX, rescale, layer.colormap
        )
        tag = _digest((name, source.version, text))
        body = self._kept.get(tag)
        if body is None:
            rows = self.run.table(text, is_wanted).to_pylist()
            if not rows or rows[0]["png"] is None:
                raise NotFoundError.expected("id", f"a scene of {name}", record, "check it")
            body = bytes(rows[0]["png"])
            self._kept.put(tag, body)
        return Answer(body, PNG, tag)

    def _picture_of_expression(
        self, source: Source, layer: Layer, record: str, query: Query, is_wanted: Wanted
    ) -> Answer:
        """A quick-look of what is computed, on the grid of the map's tiles."""
        scenes = self._scenes(source)
        found = source.having(self.run, layer.reads) & (scenes.ids == record)
        places = np.flatnonzero(found & np.isfinite(scenes.bounds).all(axis=1))
        if not len(places):
            expected = f"a scene of {source.name} with {', '.join(layer.reads)}"
            raise NotFoundError.expected("id", expected, record, "check it")
        west, south, east, north = scenes.bounds[places[0]].tolist()
        frame = lonlat_frame(west, south, east, north, _PREVIEW_PX)
        limits = self._limits_of(source, layer, query)
        tag = _digest((source.name, source.version, layer, limits, record))
        body = self._kept.get(tag)
        if body is None:
            table = self.run.table(_pixels(source, frame, layer, [record]), is_wanted)
            body = painted(pixels_of(table, frame, layer), layer, limits)
            self._kept.put(tag, body)
        return Answer(body, PNG, tag)

    def point(self, name: str, query: Query, is_wanted: Wanted) -> Answer:
        """Values at a point over time."""
        source = self._source(name)
        layer = layer_of(source, query)
        lon, lat = (_number(query, key, most) for key, most in (("lon", 180), ("lat", 90)))
        text = statements.point(
            source.filtered(self.run, query.get("where", ""), layer.reads),
            lon,
            lat,
            layer.reads,
            layer.expression,
            source.casts(),
            day_range(query.get("date", "")),
        )
        return _rows(self.run.table(text, is_wanted), text)

    def zone(self, name: str, query: Query, geometry: str, is_wanted: Wanted) -> Answer:
        """Statistics of a polygon over time.

        Args:
            name: Of the collection.
            query: As of a point, without lon and lat.
            geometry: GeoJSON of a polygon, in degrees.
            is_wanted: Whether the client is still there.
        """
        source = self._source(name)
        layer = layer_of(source, query)
        sizes = source.sizes(self.run, layer.reads) if layer.expression else {1.0}
        text = statements.zone(
            source.filtered(self.run, query.get("where", ""), layer.reads),
            _polygon(geometry),
            layer.reads,
            layer.expression,
            source.casts(),
            day_range(query.get("date", "")),
            min(sizes) if len(sizes) > 1 else None,
        )
        return _rows(self.run.table(text, is_wanted), text)

    def _source(self, name: str) -> Source:
        source = self.sources.get(name)
        if source is None:
            raise NotFoundError.expected(
                "collection", f"one of {', '.join(self.sources)}", name, "choose one"
            )
        return source

    def _scenes(self, source: Source) -> Scenes:
        return source.scenes(self.run)

    def _ids_of(self, source: Source, layer: Layer, frame: Frame, query: Query) -> list[str]:
        """The scenes that a frame shows: those that have the bands.

        Raises:
            InputError: they are too many.
        """
        scenes = self._scenes(source)
        chosen = source.chosen(self.run, query.get("where", ""))
        chosen = chosen & scenes.between(day_range(query.get("date", "")))
        chosen &= source.having(self.run, layer.reads)
        found: list[str] = scenes.ids[chosen & scenes.within(*degrees_of(frame))].tolist()
        if len(found) > MAX_SCENES:
            raise InputError.expected(
                "tile", f"at most {MAX_SCENES} scenes", len(found), "zoom in, or choose a date"
            )
        return found

    def _lacking(self, source: Source, layer: Layer) -> str | None:
        """What to say of bands that no scene of a collection has."""
        lacking = [band for band in layer.reads if not source.having(self.run, [band]).any()]
        if not lacking:
            return None
        return f"bands: {', '.join(lacking)} can be read in no scene; rasteret_errors says why"

    def _limits_of(self, source: Source, layer: Layer, query: Query) -> Limits:
        """The limits of a layer; of one without, percentiles of the newest scene."""
        if layer.is_classes:
            return ((0.0, 1.0),)
        if layer.limits is not None:
            return layer.limits
        key = source.name, source.version, replace(layer, limits=None)
        found = self._limits.get(key)
        if found is None:
            scenes = self._scenes(source)
            chosen = source.chosen(self.run, query.get("where", ""))
            there = np.flatnonzero(chosen & source.having(self.run, layer.reads))
            newest = there[np.isfinite(scenes.bounds[there]).all(axis=1)][-1]
            west, south, east, north = scenes.bounds[newest].tolist()
            frame = lonlat_frame(west, south, east, north, _STRETCH_PX)
            text = _pixels(source, frame, layer, [scenes.ids[newest]])
            found = percentiles(pixels_of(self.run.table(text), frame, layer), layer)
            if len(self._limits) >= _KEPT_LIMITS:
                self._limits.clear()
            self._limits[key] = found
        return found

    def _features(
        self, source: Source, scenes: Scenes, places: np.ndarray[Any, Any]
    ) -> list[dict[str, Any]]:
        clouds = self._clouds(source, scenes)
        shapes = shapely.to_geojson(scenes.outlines[places])
        found = []
        for place, shape in zip(places.tolist(), shapes.tolist(), strict=True):
            moment = scenes.moments[place]
            properties = {
                "id": scenes.ids[place],
                "datetime": None if np.isnat(moment) else f"{str(moment)[:19]}Z",
                "cloud": clouds.get(scenes.ids[place]),
            }
            geometry = None if shape is None else json.loads(shape)
            found.append({"type": "Feature", "properties": properties, "geometry": geometry})
        return found

    def _clouds(self, source: Source, scenes: Scenes) -> Mapping[str, float]:
        """Cloud cover of each scene, where the collection tells it."""
        if "eo:cloud_cover" not in source.columns:
            return {}
        if scenes.clouds is None:
            table = self.run.table(
                'SELECT id::VARCHAR AS id, TRY_CAST("eo:cloud_cover" AS DOUBLE) AS cloud '
                f'FROM {source.relation} WHERE isfinite(TRY_CAST("eo:cloud_cover" AS DOUBLE))'
            )
            found = zip(*(table.column(key).to_pylist() for key in ("id", "cloud")), strict=True)
            scenes.clouds = {
                id_: cloud for id_, cloud in found if cloud is not None and math.isfinite(cloud)
            }
        return scenes.clouds


Wanted = Callable[[], bool]


def _pixels(source: Source, frame: Frame, layer: Layer, ids: Sequence[str]) -> str:
    return statements.pixels(
        source.argument,
        frame,
        layer.reads,
        ids,
        layer.method,
        layer.expression,
        source.casts(layer.method),
    )


def _digest(key: object) -> str:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()


def _rows(table: Any, text: str) -> Answer:  # noqa: ANN401 (pyarrow has no types)
    rows = [{key: _plain(value) for key, value in row.items()} for row in _python_rows(table)]
    return _json({"rows": rows, "sql": redact_words(text)})


def _python_rows(table: Any) -> list[dict[str, Any]]:  # noqa: ANN401 (pyarrow has no types)
    """Rows of Python's values; None for a time beyond its years, as 'infinity'."""
    columns = map(_python_values, table.columns)
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _python_values(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        try:
            yield value.as_py()
        except OverflowError:
            yield None


def _plain(value: object) -> object:
    """A value as JSON holds it; of addresses no secret."""
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat() + ("Z" if value.tzinfo is None else "")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return redact(str(value))


def _json(value: object) -> Answer:
    return Answer(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())


def _number(query: Query, name: str, most: float) -> float:
    """A finite number of a parameter, between minus and plus the most.

    Raises:
        InputError: it is none.
    """
    try:
        found = float(query.get(name, ""))
    except ValueError:
        found = math.nan
    if not abs(found) <= most:
        raise InputError.expected(
            name, f"a number from -{most} to {most}", query.get(name, "nothing"), "check it"
        )
    return found


def _box(query: Query) -> tuple[float, float, float, float]:
    """West, south, east, north of the parameter bbox.

    Raises:
        InputError: it is no box.
    """
    text = query.get("bbox", "")
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != _BOX or not all(map(math.isfinite, found)) or found[1] > found[3]:
        raise InputError.expected(
            "bbox", "west,south,east,north", text or "nothing", "four numbers"
        )
    west, south, east, north = found
    return max(west, -180.0), max(south, -90.0), min(east, 180.0), min(north, 90.0)


def _polygon(text: str) -> str:
    """GeoJSON of a polygon, in short.

    Raises:
        InputError: it is none.
    """
    try:
        shape = shapely.from_geojson(text)
    except shapely.GEOSException:
        shape = None
    if not isinstance(shape, shapely.Polygon | shapely.MultiPolygon) or shape.is_empty:
        raise InputError.expected(
            "geometry", "a polygon as GeoJSON", text[:40] or "nothing", "draw three points or more"
        )
    return str(shapely.to_geojson(shapely.transform(shape, lambda xy: np.round(xy, 7))))
