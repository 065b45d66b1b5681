"""Points from SQL: rasteret_sample_points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import at_least, one_of, text
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import (
    COLLECTION,
    LEVEL,
    MASKED,
    MASKED_BY,
    READ_PARAMETERS,
    SCALED,
)
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.duck.relations import caller_sql, check_bands, find_visible, reading_columns
from rasteret_sql.duck.staging import Staged
from rasteret_sql.errors import InputError
from rasteret_sql.reading.columns import repeated_field
from rasteret_sql.reading.outputs.neighbourhoods import PointOptions
from rasteret_sql.reading.outputs.points import neighbourhood_name, point_rows, point_schema
from rasteret_sql.reading.point_relations import find_point_columns, moments_of, parse_points
from rasteret_sql.reading.points import Points
from rasteret_sql.reading.targets import Targets

_DAY = timedelta(days=1)
_MONTH_DAYS = 30
_MAX_REACH = 64
_RECORD = ("record_id", "datetime")
_OF_AREAS = ("bbox", "geometry", "geometry_crs", "record_columns")


def interval(name: str, value: object) -> int:
    """An INTERVAL of at least 0, in microseconds; a month counts 30 days, as SQL compares.

    Example:
        >>> interval("max_dt", timedelta(days=2))
        172800000000
    """
    if isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
    elif isinstance(value, pa.MonthDayNano):
        days = value.months * _MONTH_DAYS + value.days
        micros = days * (_DAY // timedelta(microseconds=1)) + value.nanoseconds // 1000
    else:
        raise InputError.expected(name, "an INTERVAL", value, "write INTERVAL '5 days'")
    if micros < 0:
        raise InputError.expected(
            name, "an INTERVAL of 0 or more", value, "write INTERVAL '5 days'"
        )
    return micros


def _reach(name: str, value: object) -> int:
    pixels: int = at_least(0)(name, value)
    if pixels > _MAX_REACH:
        raise InputError.expected(name, f"{_MAX_REACH} or less", value, "search less far")
    return pixels


@dataclass
class BoundPoints(BoundRead):
    """A read of points, bound; the relation of areas is that of the points."""

    x_column: str | None = None
    y_column: str | None = None
    time_column: str | None = None

    @property
    def target_schema(self) -> pa.Schema:
        """Columns of the points that come through."""
        if self.private is not None or self.aois is None:
            return super().target_schema
        names = find_point_columns(
            self.aois.schema, self.x_column, self.y_column, self.geometry_column
        )
        drop = names if len(names) == 1 else ()
        return pa.schema([one for one in self.aois.schema if one.name not in drop])

    def parsed(self, table: pa.Table) -> Targets:
        """The rows of the relation of points."""
        return parse_points(
            table,
            x_column=self.x_column,
            y_column=self.y_column,
            geometry_column=self.geometry_column,
            geometry_crs=self.geometry_crs,
            time_column=self.time_column,
        )

    def bind(self, own: pa.Schema, clashing: Sequence[str] | None) -> pa.Schema:
        """The points' columns, the points, the record, and what was read."""
        names = own.names if clashing is None else clashing
        super().bind(own, [*names, "id"])  # so that the record's is record_id
        target = self.target_schema
        self.target_outputs = self.target_outputs if self.private is not None else {}
        taken = {name.lower() for name in (*own.names, *self.outputs)}
        if self.private is None:
            for name in target.names:
                output = name
                while output.lower() in taken:
                    output = f"point_{output}"
                taken.add(output.lower())
                self.target_outputs[output] = name
        points = [
            repeated_field(target.field(name).with_name(output))
            for output, name in self.target_outputs.items()
        ]
        records = [
            repeated_field(self.relation.schema.field(name).with_name(output))
            for output, name in self.outputs.items()
        ]
        first = [one for one in records if one.name in _RECORD]
        rest = [one for one in records if one.name not in _RECORD]
        place = list(own)
        return pa.schema([*points, *place[:3], *first, *place[3:], *rest])


@table_function(
    "rasteret_sample_points",
    "Values at points: one row per point and record that holds it, or per point the record "
    "that matches its time.",
    file="30_pixels.sql",
    parameters=(
        COLLECTION,
        Parameter(
            "points",
            "VARCHAR",
            "relation of points. Table, view, TEMP table, registered frame, SELECT text or "
            "Parquet path",
        ),
        Parameter("x_column", "VARCHAR", "column of x or longitude; with y_column", "NULL", text()),
        Parameter("y_column", "VARCHAR", "column of y or latitude", "NULL", text()),
        Parameter(
            "geometry_column",
            "VARCHAR",
            "column of points; default: the one of type GEOMETRY, else x and y, lon and lat, "
            "longitude and latitude, lng and lat, else geometry, geom or wkb_geometry",
            "NULL",
            text(),
        ),
        Parameter(
            "geometry_crs",
            "any",
            "CRS of the points: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat",
            "NULL",
        ),
        Parameter(
            "match",
            "VARCHAR",
            "'all' (a row per point and record), 'latest' (the newest record at or before the "
            "point's time) or 'nearest' (in time)",
            "'all'",
            one_of("all", "latest", "nearest"),
        ),
        Parameter(
            "max_dt",
            "INTERVAL",
            "'latest' and 'nearest': the record's time is no further away; a month is 30 days",
            "NULL",
            interval,
        ),
        Parameter(
            "time_column",
            "VARCHAR",
            "column with the point's time: TIMESTAMPTZ, or TIMESTAMP or DATE in UTC",
            "NULL",
            text(),
        ),
        Parameter(
            "max_distance_pixels",
            "INTEGER",
            "where the pixel holds no data, the nearest one that does, so many pixels around "
            f"at most ({_MAX_REACH} is the limit)",
            "0",
            _reach,
        ),
        Parameter(
            "return_neighbourhood",
            "VARCHAR",
            "'always' or 'if_center_nodata': add a list of the pixels around per band, row by "
            "row, NULL outside and where there is no data; 'off'",
            "'off'",
            one_of("off", "always", "if_center_nodata"),
        ),
        *MASKED_BY,
        *(one for one in READ_PARAMETERS if one.name not in _OF_AREAS),
        Parameter(
            "record_columns",
            "VARCHAR[]",
            "columns of the record to return besides record_id and datetime, or 'all'",
            "NULL",
            next(one for one in READ_PARAMETERS if one.name == "record_columns").check,
        ),
        LEVEL,
        *with_docs([MASKED], masked="no data is NULL; false: the file's own values"),
        SCALED,
    ),
    returns="the point's columns, point_x, point_y, point_crs, record_id, datetime, raster_crs, "
    "row, col (of the first band's pixel that holds the point), distance_px (from the point to "
    "the pixel that the value comes from, 0 inside it; of several bands the largest), one column "
    "per band in its own type, {band}_neighbourhood. NULL = no data. A point outside a raster, "
    "or without a record that matches, gives no row",
    raises="collection, points, bands, mask_band, a column: unknown; a tile that can't be read, "
    "unless on_error",
    example="SELECT name, record_id, B04 FROM rasteret_sample_points('s2', "
    "'SELECT ''well'' AS name, 77.99 AS lon, 13.01 AS lat', bands := ['B04'])",
)
def sample_points(
    call: Call,
    *,
    points: Any,  # noqa: ANN401
    x_column: str | None,
    y_column: str | None,
    geometry_column: str | None,
    geometry_crs: object,
    time_column: str | None,
    match: Any,  # noqa: ANN401
    max_dt: int | None,
    max_distance_pixels: int,
    return_neighbourhood: Any,  # noqa: ANN401
    mask_band: str | None,
    mask_values: tuple[float, ...] | None,
    record_columns: list[str] | None,
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Sample points."""
    options = PointOptions(
        match=match,
        max_dt=max_dt,
        reach=max_distance_pixels,
        neighbourhood=return_neighbourhood,
        mask_band=mask_band,
        mask_values=mask_values or (),
    )
    _check_match(options, time_column)
    listed = record_columns if record_columns == ["all"] else [*_ID, *(record_columns or [])]
    nothing = {"bbox": None, "geometry": None, "geometry_crs": None}
    read = bind_read(call, {**arguments, **nothing, "record_columns": None})
    known = read.relation.schema.names
    has_time = "datetime" in known
    if not has_time and match != "all":
        raise InputError.expected(
            "match", "a collection with a column datetime", ", ".join(known[:12]), "use 'all'"
        )
    if record_columns != ["all"]:
        listed = [name for name in listed if name != "datetime" or has_time]
    read = bind_read(call, {**arguments, **nothing, "record_columns": listed})
    visible = find_visible(call, points, "points")
    given = {one.name: getattr(read, one.name) for one in fields(BoundRead)}
    bound = BoundPoints(
        **given
        | {
            "aois": visible,
            "geometry_crs": geometry_crs,
            "geometry_column": geometry_column,
            "private": Staged() if visible is None else None,
            "private_sql": caller_sql(str(points)) if visible is None else "",
        },
        x_column=x_column,
        y_column=y_column,
        time_column=time_column if match != "all" else None,
    )
    if visible is not None:
        empty = visible.schema.empty_table()
        find_point_columns(visible.schema, x_column, y_column, geometry_column)
        if bound.time_column is not None:
            moments_of(empty, bound.time_column)
    bands = bound.request.bands
    all_bands = bands
    if mask_band is not None:
        check_bands(bound.relation, [mask_band])
        all_bands = tuple(dict.fromkeys([*bands, mask_band]))
        reading_columns(bound.relation, all_bands, [])
    on_error = bound.request.on_error
    types = bound.types(scaled=bound.request.scaled)
    own = point_schema([pa.field(band, kind) for band, kind in types.items()], options, on_error)
    places = point_schema([], options, on_error)
    _check_band_names(bound, own, places.names)

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        found = bound.found_targets(scan)
        # A match is of all records: predicates on theirs are applied to the output.
        records = bound.records(
            scan,
            push=match == "all",
            bands=all_bands,
            columns=("datetime",) if match != "all" else (),
        )
        needs_all = "error" in scan.columns and on_error == "report"
        needs_all |= "distance_px" in scan.columns and bool(options.reach)
        wanted = [
            name
            for name in bands
            if needs_all or {name, neighbourhood_name(name)} & set(scan.columns)
        ]
        if not isinstance(found, Points):  # there are none
            return
        yield from point_rows(
            bound.execution(scan), wanted, records, found, options, list(bound.target_outputs)
        )

    return expose_read(bound, own, run, clashing=places.names)


_ID = ("id", "datetime")


def _check_match(options: PointOptions, time_column: str | None) -> None:
    """Refuse arguments that say nothing together."""
    if options.match != "all" and time_column is None:
        raise InputError.expected(
            "time_column", f"a column of the points for match := '{options.match}'", None, "name it"
        )
    if options.match == "all" and options.max_dt is not None:
        raise InputError.expected(
            "max_dt", "match := 'latest' or 'nearest' with it", "'all'", "leave one out"
        )
    if options.neighbourhood != "off" and not options.reach:
        raise InputError.expected(
            "max_distance_pixels",
            f"1 or more for return_neighbourhood := '{options.neighbourhood}'",
            0,
            "say how many pixels around, as max_distance_pixels := 2",
        )
    if (options.mask_band is None) != (not options.mask_values):
        raise InputError.expected(
            "mask_values",
            "mask_band and mask_values",
            "one of them",
            "give both, as mask_band := 'SCL', mask_values := [3, 8, 9, 10]",
        )


def _check_band_names(bound: BoundRead, own: pa.Schema, places: Sequence[str]) -> None:
    """Refuse bands that are named like another column; to SQL, X is x."""
    taken = {name.lower() for name in (*places, *_RECORD, *bound.record_names(own.names))}
    clash = [one for one in own.names if one.lower() in taken and one not in places]
    if clash:
        raise InputError.expected(
            "bands",
            "names that are no other column",
            clash[0],
            "rename the column in a SELECT over the collection",
        )
