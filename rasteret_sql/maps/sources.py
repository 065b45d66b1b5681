"""Collections that the map shows: their bands, columns and scenes."""

from __future__ import annotations

import functools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb
import numpy as np
import shapely
from numpy.typing import NDArray

from rasteret_sql.duck.connection import instance_of
from rasteret_sql.duck.names import quote_identifier, quote_text
from rasteret_sql.duck.relation_names import parse_name
from rasteret_sql.errors import InputError, UnknownBandError, UnknownCollectionError
from rasteret_sql.ingest.rasters import is_raster_name
from rasteret_sql.maps.connections import Connections
from rasteret_sql.maps.expressions import Expression, checked
from rasteret_sql.schema import bands_of

Mask = NDArray[np.bool_]

_QUERY = re.compile(r"^\s*(\(|SELECT\b|FROM\b|WITH\b|VALUES\b)", re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
_HIDDEN: Final = ("BLOB", "STRUCT", "MAP", "GEOMETRY", "UNION", "VARIANT")
_KEPT_FILTERS = 64
_SHOWN_NAMES = 8
_IS_INTEGER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?")


@dataclass(eq=False)
class Scenes:
    """The scenes of a collection, the earliest first.

    Attributes:
        ids: Shape (n,).
        moments: UTC, NaT where there is none; shape (n,).
        outlines: In degrees; None where there is none; shape (n,).
        bounds: West, south, east, north, in degrees; shape (n, 4).
        order: Place of each id.
        clouds: Cloud cover of each id, once it was asked for.
    """

    ids: NDArray[np.object_]
    moments: NDArray[np.datetime64]
    outlines: NDArray[np.object_]
    bounds: NDArray[np.float64]
    order: Mapping[str, int]
    clouds: Mapping[str, float] | None = None

    def within(self, west: float, south: float, east: float, north: float) -> Mask:
        """Which scenes have a box that meets this one, in degrees."""
        own = self.bounds
        meets: Mask = (
            (own[:, 0] <= east) & (own[:, 2] >= west) & (own[:, 1] <= north) & (own[:, 3] >= south)
        )
        return meets

    def between(self, dates: Sequence[str | None]) -> Mask:
        """Which scenes are of these days, both included; None is open."""
        start, stop = dates
        found = np.ones(len(self.ids), bool)
        if start is not None:
            found &= self.moments >= np.datetime64(start, "D")
        if stop is not None:
            found &= self.moments < np.datetime64(stop, "D") + 1
        return found


@dataclass(frozen=True, eq=False)
class Source:
    """A collection that the map shows.

    Attributes:
        name: In addresses.
        argument: What stands for it as an argument of a table function.
        relation: What stands for it after FROM.
        columns: Columns of its scenes that hold plain values, to their SQL type.
        types: SQL type of each band.
        folder: Where its files are, of a collection of the workspace.
    """

    name: str
    argument: str
    relation: str
    columns: Mapping[str, str]
    types: Mapping[str, str]
    folder: str | None
    _scenes: dict[object, Scenes] = field(default_factory=dict)
    _filters: OrderedDict[tuple[object, str], Mask] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def version(self) -> object:
        """What changes when the collection is built anew."""
        if self.folder is None:
            return None
        try:
            real = os.path.realpath(self.folder)
            facts = os.stat(real)  # noqa: PTH116 (a third of the time)
        except OSError:
            return None
        return real, facts.st_mtime_ns

    def casts(self, method: str = "last") -> dict[str, str]:
        """How bands enter an expression: integers as BIGINT, so that B08 - B04 may be negative."""
        is_made = method in ("mean", "median")
        return {
            band: "::BIGINT" if _IS_INTEGER.fullmatch(kind) and not is_made else ""
            for band, kind in self.types.items()
        }

    def check_bands(self, bands: Sequence[str]) -> tuple[str, ...]:
        """The bands, if the collection has them.

        Raises:
            UnknownBandError: it lacks one.
        """
        for band in bands:
            if band not in self.types:
                raise UnknownBandError.of(band, self.types)
        return tuple(bands)

    def expression(self, text: str) -> Expression:
        """An expression over bands.

        Raises:
            InputError: it is none, or reads no band.
        """
        found = checked("expression", text, tuple(self.types), "bands")
        if not found.names:
            raise InputError.expected("expression", "a band in it", text, "name one")
        return found

    def filtered(self, run: Connections, where: str, bands: Sequence[str]) -> str:
        """What stands, as an argument, for the scenes that meet a condition and have the bands.

        Raises:
            InputError: it is none.
        """
        conditions = [_has_band(band) for band in bands if not self.having(run, [band]).all()]
        if where:
            conditions.insert(0, checked("where", where, tuple(self.columns), "columns").sql)
        if not conditions:
            return self.argument
        return f"SELECT * FROM {self.relation} WHERE {' AND '.join(conditions)}"

    def sizes(self, run: Connections, bands: Sequence[str]) -> set[float]:
        """Least size of a pixel of each band, in units of its CRS."""
        listed = ", ".join(
            f"min(abs({quote_identifier(f'{band}_metadata')}.transform[1]))" for band in bands
        )
        table = run.table(f"SELECT unnest([{listed}]) AS size FROM {self.relation}")
        return {size for size in table.column("size").to_pylist() if size}

    def scenes(self, run: Connections) -> Scenes:
        """All scenes, as they are now."""
        version = self.version
        with self._lock:
            found = self._scenes.get(version)
            if found is None:
                found = _read_scenes(self, run)
                self._scenes.clear()
                self._filters.clear()
                self._scenes[version] = found
        return found

    def chosen(self, run: Connections, where: str) -> Mask:
        """Which scenes meet a condition.

        Raises:
            InputError: it is none.
        """
        if not where:
            return np.ones(len(self.scenes(run).ids), bool)
        return self._meeting(run, checked("where", where, tuple(self.columns), "columns").sql)

    def having(self, run: Connections, bands: Sequence[str]) -> Mask:
        """Which scenes have all of these bands."""
        masks = [self._meeting(run, _has_band(band)) for band in bands]
        found: Mask = np.logical_and.reduce(masks)
        return found

    def _meeting(self, run: Connections, condition: str) -> Mask:
        """Which scenes meet a condition that was checked; not to be changed."""
        scenes = self.scenes(run)
        key = self.version, condition
        with self._lock:
            found = self._filters.get(key)
        if found is None:
            table = run.table(f"SELECT id::VARCHAR AS id FROM {self.relation} WHERE {condition}")
            found = np.zeros(len(scenes.ids), bool)
            ids = table.column("id").to_pylist()
            found[[scenes.order[id_] for id_ in ids if id_ in scenes.order]] = True
            found.setflags(write=False)
            with self._lock:
                self._filters[key] = found
                if len(self._filters) > _KEPT_FILTERS:
                    self._filters.popitem(last=False)
        return found


def _has_band(band: str) -> str:
    """The condition that a scene has a band, whose header was read."""
    return f"{quote_identifier(f'{band}_metadata')} IS NOT NULL"


def source_of(con: duckdb.DuckDBPyConnection, run: Connections, text: str) -> Source:
    """The source that a text names.

    Args:
        con: Gets a table of the headers of rasters.
        run: Runs the statements.
        text: A collection, view or table, with its schema and database where it needs them;
            SELECT text, Parquet, or rasters.

    Raises:
        UnknownCollectionError: it names none, or what has no scenes or bands.
    """
    known = dict(con.sql("SELECT name, path FROM rasteret_collections()").fetchall())
    name, argument, relation, folder = _named(con, text, known)
    try:
        schema = con.sql(f"SELECT * FROM {relation} LIMIT 0").to_arrow_table().schema
        described = con.sql(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except duckdb.CatalogException:
        here = instance_of(con).folder
        listed = ", ".join(sorted(known)[:_SHOWN_NAMES]) + ", …" * (len(known) > _SHOWN_NAMES)
        raise UnknownCollectionError.expected(
            "collection",
            f"a collection of {here} ({listed or 'none'}), a table, SELECT text or a path",
            text,
            "check its name",
        ) from None
    bands = bands_of(schema)
    if not bands or not {"id", "geometry"} <= set(schema.names):
        raise UnknownCollectionError.expected(
            "collection",
            "columns id, geometry and metadata of bands",
            ", ".join(schema.names) or "none",
            "build a collection, or call rasteret_enrich",
        )
    columns = {
        column: kind
        for column, kind, *_ in described
        if column == "bbox" or not (kind.startswith(_HIDDEN) or kind.endswith("]"))
    }
    return Source(
        name,
        argument,
        relation,
        columns,
        _types(run, argument, bands),
        folder,
    )


def _named(
    con: duckdb.DuckDBPyConnection, text: str, folders: Mapping[str, str]
) -> tuple[str, str, str, str | None]:
    """Name, argument, relation and folder of a collection; `folders` are those there are."""
    if _QUERY.match(text):
        query = text.strip().rstrip(";")
        return "query", query, f"({query})", None
    is_quoted = '"' in text and parse_name(text) is not None  # then a sign in it means nothing
    if is_raster_name(text) and not is_quoted:
        table = _free_name(con, "files")
        relation = quote_identifier(table)
        con.execute(f"CREATE TABLE {relation} AS FROM rasteret_files({quote_text(text)})")
        return table, relation, relation, None
    if not is_quoted and ("/" in text or text.endswith(".parquet")):
        stem = re.sub(r"\W+", "_", text.rstrip("/").rsplit("/", 1)[-1].removesuffix(".parquet"))
        return stem, text, f"rasteret_records({quote_text(text)})", None
    full = quote_identifier(text) if text in folders else parse_name(text)
    if full is None:
        raise UnknownCollectionError.expected("collection", "a name", text, "quote its parts")
    parts = [part.replace('""', '"') for part in _QUOTED.findall(full)]
    name = ".".join(parts)
    argument = name if re.fullmatch(r"\w+", name) else full
    return name, argument, full, folders.get(name)


def _free_name(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """The name, with a number behind it where a table or view has it already."""
    tables = con.sql("SELECT lower(table_name) FROM information_schema.tables").fetchall()
    taken = {table for (table,) in tables}
    names = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
    return next(one for one in names if one.lower() not in taken)


def _types(run: Connections, argument: str, bands: Sequence[str]) -> dict[str, str]:
    """SQL type of each band that a map can show."""
    text = (
        f"DESCRIBE SELECT {', '.join(map(quote_identifier, bands))} FROM rasteret_composite("
        f"{quote_text(argument)}, bands := [{', '.join(map(quote_text, bands))}], "
        "method := 'last', crs := 3857, resolution := 10, format := 'list')"
    )
    try:
        kinds = run.table(text).column("column_type").to_pylist()
    except InputError:
        if len(bands) == 1:
            return {}  # complex numbers
        found = (_types(run, argument, [band]) for band in bands)
        return {band: kind for one in found for band, kind in one.items()}
    return {band: str(kind).removesuffix("[]") for band, kind in zip(bands, kinds, strict=True)}


def _read_scenes(source: Source, run: Connections) -> Scenes:
    kind = source.columns.get("datetime", "")
    moment = {"": "NULL::TIMESTAMP", "TIMESTAMP WITH TIME ZONE": "datetime AT TIME ZONE 'UTC'"}
    box = "bbox" if source.columns.get("bbox", "").startswith("STRUCT") else "NULL"
    table = run.table(
        f"SELECT id::VARCHAR AS id, ({moment.get(kind, 'datetime')})::TIMESTAMP AS datetime, "
        f"geometry, CASE WHEN geometry IS NULL THEN {box} END AS box "
        f"FROM {source.relation} ORDER BY 2 NULLS FIRST, 1"
    )
    ids = np.array(table.column("id").to_pylist(), object)
    moments = table.column("datetime").to_numpy().astype("datetime64[us]")
    outlines = _outlines(table.column("geometry").to_pylist())
    for place, one in enumerate(table.column("box").to_pylist()):
        if one is not None and one.get("xmin") is not None:
            outlines[place] = _rectangle(one["xmin"], one["ymin"], one["xmax"], one["ymax"])
    order = {id_: place for place, id_ in enumerate(ids.tolist())}
    return Scenes(ids, moments, outlines, shapely.bounds(outlines).reshape(-1, 4), order)


def _rectangle(west: float, south: float, east: float, north: float) -> shapely.Geometry:
    """The outline of a box, two parts where it crosses 180 (west > east)."""
    if west <= east:
        return shapely.box(west, south, east, north)
    sides = shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)
    return shapely.MultiPolygon(sides)


def _outlines(values: Sequence[Any]) -> NDArray[np.object_]:
    """Shapes from WKB, or from what a SELECT made of it: WKT or GeoJSON."""
    if not any(isinstance(value, str) for value in values):
        found = shapely.from_wkb(np.array(values, object), on_invalid="ignore")
    elif any(str(value).lstrip().startswith("{") for value in values):
        found = shapely.from_geojson(np.array(values, object), on_invalid="ignore")
    else:
        found = shapely.from_wkt(np.array(values, object), on_invalid="ignore")
    return np.atleast_1d(np.asarray(found, object))


@functools.lru_cache(maxsize=64)
def day_range(text: str) -> tuple[str | None, str | None]:
    """First and last day of ``DATE``, ``START/END``, ``START/`` or ``/END``; None is open.

    Raises:
        InputError: it is none of these.

    Example:
        >>> day_range("2024-01-10"), day_range("2024-01-01/"), day_range("")
        (('2024-01-10', '2024-01-10'), ('2024-01-01', None), (None, None))
    """
    sides = text.split("/") if "/" in text else [text, text]
    days: list[str | None] = []
    for side in sides:
        try:
            is_open = side.strip() in ("", "..")
            days.append(None if is_open else str(np.datetime64(side.strip(), "D")))
        except ValueError:
            days = []
            break
    if len(days) != len(("start", "end")):
        raise InputError.expected("date", "DATE or START/END", text, "'2024-01-10' is an example")
    return days[0], days[1]
