"""Statistics of zones from SQL: rasteret_zonal_stats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa
import shapely

from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import one_of, text, texts
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import (
    AREAS,
    COLLECTION,
    LEVEL,
    MASKED_BY,
    READ_PARAMETERS,
    SCALED,
    check_masked_by,
)
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.duck.relations import check_bands, reading_columns
from rasteret_sql.errors import InputError
from rasteret_sql.grid.zonal import STATISTICS
from rasteret_sql.reading.outputs.zone_pixels import ZoneOptions
from rasteret_sql.reading.outputs.zones import check_stats, chosen_bands, zone_rows, zone_schema
from rasteret_sql.reading.targets import Targets, parse_targets

_GEOMETRY_COLUMN = AREAS[1]


@dataclass
class BoundZones(BoundRead):
    """A read of zones, bound; they may be polygons, lines and points."""

    options: ZoneOptions = field(default_factory=lambda: ZoneOptions(()))

    def parsed(self, table: pa.Table) -> Targets:
        """The rows of the relation of zones."""
        zones = parse_targets(
            table, self.geometry_column, self.geometry_crs, self.areas_argument, areas_only=False
        )
        others = zones.areas[shapely.get_dimensions(zones.areas) < 2]
        if len(others):
            _check_options(self.options, others[0].geom_type)
        zones.snaps_lines = self.options.weights == "center"
        return zones


def _check_options(options: ZoneOptions, kind: str) -> None:
    """Refuse what is not defined for lines and points, which have no area."""
    for is_asked, wanted, todo in (
        (
            options.weights == "area",
            "polygons for weights := 'area'",
            "take 'fraction', which weighs by the length of a line, or buffer it",
        ),
        (
            options.min_coverage > 0,
            "polygons for min_coverage",
            "leave it out: pixels hold no share of a line or a point",
        ),
        (
            options.weights == "fraction" and "area_m2" in options.stats,
            "polygons for area_m2 with weights := 'fraction'",
            "take weights := 'touched' or leave area_m2 out",
        ),
    ):
        if is_asked:
            raise InputError.expected("zones", wanted, kind, todo)


def _stats(name: str, value: object) -> tuple[str, ...]:
    return check_stats(name, texts("statistics")(name, value))


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError.expected(name, "a share of a pixel, 0 to 1", value, "correct it")
    return float(value)


@table_function(
    "rasteret_zonal_stats",
    "Statistics of the pixels in zones: one row per zone, record and band.",
    file="30_pixels.sql",
    parameters=(
        COLLECTION,
        Parameter(
            "zones",
            "VARCHAR",
            "relation of polygons, lines or points: table, view, TEMP table, registered frame, "
            "SELECT text or Parquet path; NULL: the bbox or geometry, or whole rasters, are the "
            "zone",
        ),
        READ_PARAMETERS[0],
        Parameter(
            "stats",
            "VARCHAR[]",
            f"some of {', '.join(STATISTICS)}, area_m2, and percentiles as p05 or p99.9",
            "['count', 'mean', 'min', 'max', 'stddev']",
            _stats,
        ),
        Parameter(
            "weights",
            "VARCHAR",
            "what a pixel counts: 'center' (1 where the zone holds its centre), 'touched' (1 where "
            "the zone touches it), 'fraction' (its share inside the zone; of a line the length in "
            "it) or 'area' (that share times its square metres on the ellipsoid)",
            "'center'",
            one_of("center", "touched", "fraction", "area"),
        ),
        Parameter(
            "weight_band",
            "VARCHAR",
            "a band whose values are further weights, 0 where it has no data. On another grid, its "
            "pixel that holds the centre of a pixel counts",
            "NULL",
            text("the name of a band"),
        ),
        Parameter(
            "min_coverage",
            "DOUBLE",
            "leave out pixels of which a smaller share is inside; of 'fraction' and 'area'",
            "0",
            _share,
        ),
        *with_docs(
            READ_PARAMETERS[1:],
            geometry_crs="CRS of the zones: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: the one "
            "that their column names, else lon/lat",
            on_error="'error', 'null' (statistics of a zone are NULL where one of its tiles can't "
            "be read) or 'report' (and a column error says why)",
        ),
        _GEOMETRY_COLUMN.with_doc(
            "column of zones that holds the geometries; default: the one of type GEOMETRY, or "
            "named geometry, geom or wkb_geometry"
        ),
        LEVEL,
        SCALED.with_doc("apply the file's scale and offset before anything else"),
        *with_docs(
            MASKED_BY,
            mask_band="band that tells where pixels are not to be used: where it holds one of "
            "mask_values or no data. On another grid, its pixel that holds the centre of a pixel "
            "counts",
        ),
    ),
    returns="the record's columns, the zone's columns, band, one column per statistic. A zone "
    "that touches a raster, but no pixel with data, is a row with count 0; one outside is no row",
    raises="collection, bands, level, stats: unknown; zones: no relation of geometries; "
    "weight_band: below 0; a tile that can't be read, unless "
    "on_error",
    example="SELECT name, datetime, band, count, mean FROM rasteret_zonal_stats('s2', "
    "'SELECT ''north'' AS name, ''POLYGON((77.985 13.0, 77.99 13.0, 77.99 13.01, 77.985 13.0))'' "
    "AS geometry', bands := ['B04'], weights := 'fraction') ORDER BY ALL",
)
def zonal_stats(
    call: Call,
    *,
    collection: str,
    stats: tuple[str, ...],
    weights: Any,  # noqa: ANN401 (one of four words, checked)
    weight_band: str | None,
    min_coverage: float,
    mask_band: str | None,
    mask_values: tuple[float, ...] | None,
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Read statistics of zones."""
    if min_coverage and weights not in ("fraction", "area"):
        raise InputError.expected(
            "min_coverage", "weights 'fraction' or 'area' beside it", f"'{weights}'", "add them"
        )
    check_masked_by(mask_band, mask_values)
    options = ZoneOptions(stats, weights, weight_band, min_coverage, mask_band, mask_values or ())
    arguments |= {"collection": collection, "all_touched": weights == "touched"}
    shared = bind_read(call, arguments, areas_argument="zones")
    bands = shared.request.bands
    further = [one for one in (weight_band, mask_band) if one is not None]
    check_bands(shared.relation, further or None)
    read_bands = tuple(dict.fromkeys([*bands, *further]))
    reading_columns(shared.relation, read_bands, [])
    known = {one.name: getattr(shared, one.name) for one in fields(BoundRead)}
    bound = BoundZones(**known, options=options)

    def run(bound: Any, scan: Scan) -> Iterator[pa.RecordBatch]:  # noqa: ANN401
        records = bound.records(scan, bands=read_bands)
        names = chosen_bands(bands, scan.take({"band"}))
        yield from zone_rows(bound.execution(scan), names, options, records)

    return expose_read(bound, zone_schema(options, bound.request.on_error), run)
