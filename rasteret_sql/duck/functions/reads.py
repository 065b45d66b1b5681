"""Pixels from SQL: rasteret_plan, rasteret_read_tiles, rasteret_read, rasteret_pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import flag, one_of
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import (
    ALL_TOUCHED,
    AREAS,
    CHIP_SIZE,
    COLLECTION,
    DEFAULT_METHOD,
    FORMAT,
    LEVEL,
    MASKED,
    MASKED_BY,
    METHOD,
    OUTPUT_GRID,
    PERIOD,
    READ_PARAMETERS,
    SCALED,
    SIZE,
    STRIDE,
    VALID,
)
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.duck.relations import check_bands, reading_columns
from rasteret_sql.errors import InputError
from rasteret_sql.reading.outputs.chip_stacks import stack_planner
from rasteret_sql.reading.outputs.chips import chip_planner
from rasteret_sql.reading.outputs.common import Read
from rasteret_sql.reading.outputs.composites import composite_planner
from rasteret_sql.reading.outputs.pixels import pixel_rows, pixel_schema
from rasteret_sql.reading.outputs.plans import (
    mosaic_plan_rows,
    plan_rows,
    plan_schema,
    window_planner,
)
from rasteret_sql.reading.outputs.tiles import PLANNED, tile_rows, tile_schema
from rasteret_sql.reading.outputs.windows import (
    WindowOptions,
    list_field,
    window_rows,
    window_schema,
)
from rasteret_sql.reading.plan import Clip, Lattice
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import SceneTable

_VALUES = MASKED.with_doc("write nodata where there is no data; false: the file's own values")


@table_function(
    "rasteret_plan",
    "The tiles that a read would fetch, of uncompressed ones the rows under the area; "
    "no request is made.",
    file="30_pixels.sql",
    parameters=with_docs(
        (
            COLLECTION,
            *READ_PARAMETERS,
            *AREAS,
            LEVEL,
            MASKED,
            *OUTPUT_GRID,
            Parameter(
                "reads",
                "VARCHAR",
                "what is planned: 'windows' (rasteret_read, rasteret_pixels, and with zones as "
                "aois rasteret_zonal_stats), 'composite' (rasteret_composite), 'chips' or 'stacks' "
                "(rasteret_chips, without and with stack)",
                "'windows'",
                one_of("windows", "composite", "chips", "stacks"),
            ),
            replace(
                METHOD, doc=f"as of the composite; default: '{DEFAULT_METHOD}'", default="NULL"
            ),
            PERIOD.with_doc("as of the composite"),
            MASKED_BY[0].with_doc("as of the composite"),
            replace(SIZE, doc=f"as of the chips; default: {CHIP_SIZE}", default="NULL"),
            STRIDE.with_doc("as of the chips"),
        ),
        on_error="'error', 'null' (a row with NULL tile_row and tile_col for a band whose tiles "
        "are not known) or 'report' (and a column error says why)",
        max_concurrent="as of the read that is planned; a plan makes no request",
        masked="plan the tiles of transparency masks too",
        aois="relation of areas, instead of bbox and geometry; a tile that several need is one row",
    ),
    returns="the record's columns, band, level, tile_row, tile_col, href, byte_offset, byte_count "
    "(of a deflated tile whose first rows are needed, the bytes that hold them by estimate), "
    "decoded_bytes, request (number of the merged request), role ('data' or 'mask')",
    raises="collection, bands, level: unknown; bbox, geometry: malformed; a band without header, "
    "a raster without CRS, unless on_error",
    example="SELECT count(*), sum(byte_count) FROM rasteret_plan('s2', bands := ['B04'], "
    "bbox := [77.984, 13.004, 77.99, 13.01])",
)
def plan(
    call: Call,
    *,
    reads: str,
    method: str | None,
    period: Any,  # noqa: ANN401
    mask_band: str | None,
    size: int | None,
    stride: int | None,
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Plan a read without any request."""
    own = {"method": method, "period": period, "mask_band": mask_band, "size": size}
    _check_planned(reads, arguments, **own, stride=stride)
    bound = bind_read(call, arguments, shows_targets=False)
    bands = read_bands = bound.request.bands
    if mask_band is not None:
        check_bands(bound.relation, [mask_band])
        read_bands = tuple(dict.fromkeys([*bands, mask_band]))
        reading_columns(bound.relation, read_bands, [])
    lattice = Lattice(size or CHIP_SIZE, stride or size or CHIP_SIZE)

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        read = bound.execution(scan)
        if reads in ("windows", "chips"):
            # Numbers of requests must not depend on predicates: those are applied to the output.
            push = "request" not in scan.columns
            records = bound.records(scan, may_request=False, push=push)
            is_chips = reads == "chips"
            planner = chip_planner(read, bands, lattice) if is_chips else window_planner(read)
            yield from plan_rows(read, records, planner)
            return

        def mosaic(read: Read, table: SceneTable) -> Planner:
            if reads == "stacks":
                return stack_planner(read, table, bands, lattice)
            return composite_planner(
                read, table, bands, method or DEFAULT_METHOD, period, mask_band
            )

        columns = [one for one in ("datetime",) if one in bound.relation.schema.names]
        records = bound.records(
            scan, may_request=False, push=False, bands=read_bands, columns=columns
        )  # a record less may be another grid
        yield from mosaic_plan_rows(read, records, mosaic)

    return expose_read(bound, plan_schema(bound.request.on_error), run)


def _check_planned(reads: str, arguments: dict[str, Any], **own: Any) -> None:  # noqa: ANN401
    """Refuse what the function that is planned does not take."""
    takes = {"composite": ("method", "period", "mask_band"), "chips": ("size", "stride"),
             "stacks": ("size", "stride"), "windows": ()}  # fmt: skip
    for name, value in own.items():
        if value is not None and name not in takes[reads]:
            known = " or ".join(f"'{one}'" for one, names in takes.items() if name in names)
            raise InputError.expected(
                name, f"reads := {known} beside it", reads, "say what is planned"
            )
    for name, default, others in (
        ("level", 0, ("composite", "stacks")),
        ("aois", None, ("composite",)),
        ("masked", True, ("composite", "chips", "stacks")),
    ):
        if reads in others and arguments[name] != default:
            raise InputError.expected(
                name, f"none with reads := '{reads}'", arguments[name], "leave it out"
            )


@table_function(
    "rasteret_read_tiles",
    "Decoded tiles: one row per record, band and tile under the area.",
    file="30_pixels.sql",
    parameters=(
        COLLECTION,
        *READ_PARAMETERS,
        LEVEL,
        MASKED.with_doc("write nodata where a mask hides pixels; false: the file's own values"),
    ),
    returns="the record's columns, band, level, tile_row, tile_col, row_off, col_off, height, "
    "width, xmin, ymin, xmax, ymax (CRS of the raster), transform, dtype, nodata, valid_count, "
    "pixels BLOB (row-major, little-endian)",
    raises="collection, bands, level: unknown; a tile that can't be read, unless on_error",
    example="SELECT id, band, tile_row, tile_col, octet_length(pixels) "
    "FROM rasteret_read_tiles('s2', bands := ['B04']) LIMIT 4",
)
def read_tiles(call: Call, **arguments: Any) -> Stream | Sql:  # noqa: ANN401
    """Read tiles."""
    bound = bind_read(call, arguments)

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        records = bound.records(scan)
        keep = scan.take(set(PLANNED))
        yield from tile_rows(bound.execution(scan), records, keep)

    return expose_read(bound, tile_schema(bound.request.on_error), run)


@table_function(
    "rasteret_read",
    "Windows: one row per record and area, with an array of each band.",
    file="30_pixels.sql",
    parameters=(
        COLLECTION,
        *READ_PARAMETERS,
        *AREAS,
        LEVEL,
        ALL_TOUCHED,
        _VALUES,
        SCALED.with_doc("apply the file's scale and offset; values become DOUBLE, NaN = no data"),
        Parameter(
            "crop",
            "BOOLEAN",
            "windows around the area; false: the whole raster, pixels outside the area hidden",
            "true",
            flag,
        ),
        VALID,
        FORMAT,
        Parameter(
            "align",
            "VARCHAR",
            "'grid' (all bands on one grid) or 'band' (each on its own; height, width and "
            "transform are lists, an entry per band)",
            "'grid'",
            one_of("grid", "band"),
        ),
        *OUTPUT_GRID,
    ),
    returns="the record's columns, the area's columns, height, width, transform (a, b, c, d, e, f "
    "of the window), dtypes VARCHAR[], nodata DOUBLE[] (of scaled values NaN, scaled itself with "
    "masked := false), one BLOB per band (row-major, little-endian, height x width values of its "
    "dtype). An area that touches no pixel of a record gives no row",
    raises="collection, bands, level: unknown; bands of unlike grid; a tile that can't be read, "
    "unless on_error; a window of more than 1 GiB",
    example="SELECT id, height, width, octet_length(B04) FROM rasteret_read('s2', "
    "bands := ['B04'], bbox := [77.984, 13.004, 77.99, 13.01])",
)
def read_windows(
    call: Call,
    *,
    crop: bool,
    valid: bool,
    format: str,  # noqa: A002 (the parameter's name in SQL)
    align: str,
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Read windows."""
    options = WindowOptions(
        crop=crop, valid=valid, is_list=format == "list", per_band=align == "band"
    )
    bound = bind_read(call, arguments)
    has_grid = bound.request.output_grid is not None
    if has_grid and options.per_band:
        raise InputError.expected(
            "align",
            "'grid' with resolution or crs",
            align,
            "leave it out: all bands share the grid",
        )
    scaled = bound.request.scaled
    if options.is_list:
        fields = [
            list_field(band, dtypes, scaled=scaled) for band, dtypes in bound.dtypes().items()
        ]
    else:
        fields = [pa.field(band, pa.binary_view()) for band in bound.request.bands]

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        needs_all = {"valid", "error"} & set(scan.columns)
        names = bound.request.bands
        bands = [name for name in names if needs_all or name in scan.columns]
        yield from window_rows(bound.execution(scan), bands, options, bound.records(scan))

    own = window_schema(fields, options, bound.request.on_error, has_crs=has_grid)
    return expose_read(bound, own, run)


@table_function(
    "rasteret_pixels",
    "Pixels as rows: plain SQL does band math, time series, GROUP BY and joins.",
    file="30_pixels.sql",
    parameters=(
        COLLECTION,
        *READ_PARAMETERS,
        *AREAS,
        LEVEL,
        ALL_TOUCHED,
        MASKED,
        SCALED,
        Parameter("lonlat", "BOOLEAN", "add lon, lat: the pixel centre in degrees", "false", flag),
        Parameter(
            "coverage",
            "BOOLEAN",
            "add coverage: the share of the pixel inside the area, 0 to 1; every pixel that the "
            "area touches is a row",
            "false",
            flag,
        ),
        *OUTPUT_GRID,
    ),
    returns="the record's columns, the area's columns, x, y (pixel centre, CRS units), row, col, "
    "one column per band "
    "in its own type (of files of several types: the smallest that holds all values exactly); "
    "NULL = no data. Pixels outside the area are not returned",
    raises="collection, bands: unknown; bands of unlike grid; files of one band that no column "
    "holds exactly together, as int64 and uint64; a tile that can't be read, unless on_error",
    example="SELECT datetime, avg(rasteret_ndvi(B04, B08)) AS ndvi FROM rasteret_pixels('s2', "
    "bands := ['B04', 'B08'], bbox := [77.984, 13.004, 77.99, 13.01]) GROUP BY ALL ORDER BY 1",
)
def pixels(call: Call, *, lonlat: bool, coverage: bool, **arguments: Any) -> Stream | Sql:  # noqa: ANN401
    """Read pixels as rows."""
    bound = bind_read(call, arguments)
    on_error = bound.request.on_error
    fields = [
        pa.field(band, kind) for band, kind in bound.types(scaled=bound.request.scaled).items()
    ]
    has_crs = bound.request.output_grid is not None
    own, places = (
        pixel_schema(bands, lonlat=lonlat, coverage=coverage, on_error=on_error, has_crs=has_crs)
        for bands in (fields, [])
    )
    _check_band_names(bound, places.names)

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        names: Sequence[str] = bound.request.bands
        if "error" not in scan.columns or on_error != "report":
            names = [name for name in names if name in scan.columns]
        read, records = bound.execution(scan), bound.records(scan)
        clip = Clip(**{place: scan.bounds(place) for place in ("row", "col", "x", "y")})
        some = None if clip == Clip() else clip
        yield from pixel_rows(read, names, records, coverage=coverage, clip=some)

    return expose_read(bound, own, run, clashing=places.names)


def _check_band_names(bound: BoundRead, own: Sequence[str]) -> None:
    """Refuse bands that are named like another column; to SQL, X is x."""
    taken = {name.lower() for name in (*own, *bound.record_names(own))}
    clash = [band for band in bound.request.bands if band.lower() in taken]
    if clash:
        raise InputError.expected(
            "bands",
            "names that are no other column",
            clash[0],
            "rename the column in a SELECT over the collection",
        )
