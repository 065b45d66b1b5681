"""Pixels from SQL: rasteret_plan, rasteret_read_tiles, rasteret_pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.duck.declarations import table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import (
    ALL_TOUCHED,
    COLLECTION,
    LEVEL,
    MASKED,
    READ_PARAMETERS,
    SCALED,
)
from rasteret_sql.duck.relations import (
    Relation,
    check_bands,
    reading_columns,
    record_conditions,
    resolve,
    unreadable,
)
from rasteret_sql.duck.table_function import Call, Scan, Stream, quote_identifier
from rasteret_sql.errors import InputError
from rasteret_sql.grid.aoi import parse_aoi
from rasteret_sql.reading.pixels import POSITION_FIELDS, common_type, pixel_rows
from rasteret_sql.reading.plan import PLAN_SCHEMA, OnError, ReadOptions, plan_tables
from rasteret_sql.reading.tiles import PLANNED, TILE_SCHEMA, tile_rows, with_error
from rasteret_sql.records.datetimes import Instants, parse_range
from rasteret_sql.schema import METADATA_SUFFIX, metadata_column

_OWN_PREFIX = "record_"


@dataclass(frozen=True)
class _Read:
    """A read of some records, bound."""

    call: Call
    relation: Relation
    options: ReadOptions
    conditions: list[str]
    record_names: dict[str, str]
    """Output name of each of the record's columns."""

    def schema(self, own: pa.Schema) -> pa.Schema:
        fields = [
            self.relation.schema.field(name).with_name(output)
            for name, output in self.record_names.items()
        ]
        return pa.schema([*fields, *own])

    def records(self, scan: Scan, bands: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The records to read, with the predicates on their columns applied.

        Raises:
            InputError: the read would fetch more than it may; no request was made.
        """
        outputs = {output: name for name, output in self.record_names.items()}
        wanted = [outputs[name] for name in scan.columns if name in outputs]
        keep = scan.take(set(outputs))
        if self.options.max_bytes is not None:
            self._check_max_bytes(self._kept(scan, bands, list(outputs.values()), keep), bands)
        return self._kept(scan, self.options.bands, wanted, keep)

    def _kept(
        self, scan: Scan, bands: Sequence[str], wanted: Sequence[str], keep: pc.Expression | None
    ) -> Iterator[pa.RecordBatch]:
        columns = reading_columns(self.relation, bands, wanted)
        for batch in self.relation.batches(self.call, columns, self.conditions):
            scan.check()
            yield batch if keep is None else self._filtered(batch, keep)

    def _filtered(self, batch: pa.RecordBatch, keep: pc.Expression) -> pa.RecordBatch:
        names = [self.record_names.get(name, name) for name in batch.schema.names]
        kept = batch.rename_columns(names).filter(keep)
        return kept.rename_columns(batch.schema.names)

    def joined(
        self, scan: Scan, batch: pa.RecordBatch, rows: pa.Array | int, own: pa.RecordBatch
    ) -> pa.RecordBatch:
        """The record's columns beside a read's own.

        Args:
            scan: Says which columns are wanted.
            batch: The records.
            rows: The record's row for each row of ``own``, or one for all of them.
            own: The read's own columns.
        """
        arrays, fields = [], []
        for name, output in self.record_names.items():
            if output in scan.columns:
                arrays.append(_spread(batch.column(name), rows, own.num_rows))
                fields.append(self.relation.schema.field(name).with_name(output))
        for field in own.schema:
            arrays.append(own.column(field.name))
            fields.append(field)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _check_max_bytes(self, records: Iterator[pa.RecordBatch], bands: Sequence[str]) -> None:
        total = 0
        for _, _, plan in plan_tables(records, replace(self.options, bands=tuple(bands))):
            tiles = pa.table(plan).group_by(["href", "byte_offset"]).aggregate([_LONGEST])
            total += pc.sum(tiles.column("byte_count_max")).as_py() or 0
        if total > (self.options.max_bytes or 0):
            raise InputError.expected(
                "max_bytes",
                f"a read of at most {self.options.max_bytes} bytes",
                f"{total} bytes",
                "narrow the area, the dates or the bands, or raise max_bytes",
            )


_LONGEST = ("byte_count", "max")


@table_function(
    "rasteret_plan",
    "The tiles that rasteret_pixels would fetch, of uncompressed ones the rows under the area; "
    "no request is made.",
    file="30_pixels.sql",
    parameters=with_docs(
        (COLLECTION, *READ_PARAMETERS, LEVEL),
        on_error="'error', 'null' (one row without a place for a band whose tiles are not known) "
        "or 'report' (and a column error says why)",
        max_concurrent="as of the read that is planned; a plan makes no request",
    ),
    returns="the record's columns, band, level, tile_row, tile_col, href, byte_offset, byte_count, "
    "decoded_bytes, request (number of the merged request)",
    raises="collection, bands, level: unknown; bbox, geometry: malformed; a band without header, "
    "a raster without CRS, unless on_error",
    example="SELECT count(*), sum(byte_count) FROM rasteret_plan('s2', bands := ['B04'], "
    "bbox := [77.984, 13.004, 77.99, 13.01])",
)
def plan(call: Call, *, on_error: OnError, **common: Any) -> Stream:  # noqa: ANN401
    """Plan a read without any request."""
    own = with_error(PLAN_SCHEMA, on_error)
    read = _bind(call, own.names, on_error=on_error, **common)

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        records = read.records(scan, read.options.bands)
        for batch, rows, table in plan_tables(records, read.options):
            wanted = table.select([n for n in own.names if n in scan.columns])
            yield read.joined(scan, batch, pa.array(rows), wanted)

    return Stream(read.schema(own), run)


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
def read_tiles(call: Call, *, on_error: OnError, **common: Any) -> Stream:  # noqa: ANN401
    """Read tiles."""
    own = with_error(TILE_SCHEMA, on_error)
    read = _bind(call, own.names, on_error=on_error, whole_tiles=True, **common)

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        records = read.records(scan, read.options.bands)
        keep = scan.take(set(PLANNED))
        found = tile_rows(records, read.options, columns=scan.columns, keep=keep, stop=scan.stop)
        for batch, rows, tiles in found:
            yield read.joined(scan, batch, rows, tiles)

    return Stream(read.schema(own), run)


@table_function(
    "rasteret_pixels",
    "Pixels as rows: plain SQL does band math, time series, GROUP BY and joins.",
    file="30_pixels.sql",
    parameters=(COLLECTION, *READ_PARAMETERS, ALL_TOUCHED, MASKED, SCALED),
    returns="the record's columns, x, y (pixel centre, CRS units), row, col, one column per band "
    "in its own type (of files of several types: the smallest that holds all values exactly); "
    "NULL = no data. Pixels outside the area are not returned",
    raises="collection, bands: unknown; bands of unlike grid; files of one band that no column "
    "holds exactly together, as int64 and uint64; a tile that can't be read, unless on_error",
    example="SELECT datetime, avg(rasteret_ndvi(B04, B08)) AS ndvi FROM rasteret_pixels('s2', "
    "bands := ['B04', 'B08'], bbox := [77.984, 13.004, 77.99, 13.01]) GROUP BY ALL ORDER BY 1",
)
def pixels(call: Call, *, on_error: OnError, **common: Any) -> Stream:  # noqa: ANN401
    """Read pixels as rows."""
    positions = with_error(pa.schema(POSITION_FIELDS), on_error).names
    read = _bind(call, positions, on_error=on_error, **common)
    taken = {name.lower() for name in (*positions, *read.record_names.values())}
    clash = [band for band in read.options.bands if band.lower() in taken]
    if clash:
        raise InputError.expected(
            "bands",
            "names that are no other column",
            clash[0],
            "rename the column in a SELECT over the collection",
        )
    own = with_error(pa.schema([*POSITION_FIELDS, *_band_fields(read)]), on_error)

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        bands = [b for b in read.options.bands if b in scan.columns] or read.options.bands[:1]
        if "error" in scan.columns:
            bands = list(read.options.bands)
        records = read.records(scan, bands)
        wanted = [*scan.columns, *(bands if "error" in scan.columns else [])]
        found = pixel_rows(records, read.options, schema=own, columns=wanted, stop=scan.stop)
        for batch, row, table in found:
            yield read.joined(scan, batch, row, table)

    return Stream(read.schema(own), run)


def _spread(column: pa.Array, rows: pa.Array | int, n_rows: int) -> pa.Array:
    """Values of a record's column for many rows; one repeats faster than it is taken."""
    if not isinstance(rows, int):
        return column.take(rows)
    value = column[rows]
    if not value.is_valid:
        return pa.nulls(n_rows, column.type)
    if pa.types.is_nested(column.type) or isinstance(column.type, pa.BaseExtensionType):
        return column.take(pa.array(np.full(n_rows, rows, np.int64)))
    return pa.repeat(value, n_rows)


def _bind(
    call: Call,
    own_names: Sequence[str],
    *,
    collection: object,
    bands: list[str] | None,
    bbox: Sequence[float] | None,
    geometry: object,
    geometry_crs: object,
    date_range: list[Any] | None,
    ids: list[str] | None,
    on_error: OnError,
    max_bytes: int | None,
    max_concurrent: int,
    level: int = 0,
    whole_tiles: bool = False,
    **how: bool,
) -> _Read:
    relation = resolve(call, collection)
    chosen = check_bands(relation, bands)
    aoi = parse_aoi(bbox=bbox, geometry=geometry, geometry_crs=geometry_crs)
    dates = parse_range(date_range) if date_range else Instants(None, None)
    options = ReadOptions(
        bands=chosen,
        aoi=aoi,
        level=level,
        on_error=on_error,
        max_bytes=max_bytes,
        n_lanes=max_concurrent,
        whole_tiles=whole_tiles,
        **how,
    )
    reading_columns(relation, chosen, [])
    names = _record_names(relation.schema.names, own_names)
    conditions = record_conditions(call, relation, aoi, dates, ids)
    return _Read(call, relation.near(call, aoi), options, conditions, names)


def _record_names(names: Sequence[str], own_names: Sequence[str]) -> dict[str, str]:
    """Output names of a record's columns, unlike the read's own; to SQL, X is x."""
    kept = [name for name in names if not name.endswith(METADATA_SUFFIX)]
    own = {name.lower() for name in own_names}
    taken = own | {name.lower() for name in kept}
    outputs = {}
    for name in kept:
        output = name
        while output.lower() in (own if output == name else taken):
            output = _OWN_PREFIX + output
        taken.add(output.lower())
        outputs[name] = output
    return outputs


def _band_fields(read: _Read) -> list[pa.Field]:
    """One column per band, of the type its records hold; scaled real numbers are DOUBLE."""
    parts = ", ".join(
        f"list(DISTINCT {quote_identifier(metadata_column(band))}.dtype)"
        for band in read.options.bands
    )
    where = f" WHERE {' AND '.join(read.conditions)}" if read.conditions else ""
    try:
        with read.call.cursor() as cursor:
            rows = read.relation.slim(read.call).sql
            row = cursor.execute(f"SELECT {parts} FROM {rows}{where}").fetchall()[0]
    except duckdb.Error as error:
        raise unreadable(read.relation.label, error) from error
    return [
        pa.field(band, _band_type(band, dtypes or [], scaled=read.options.scaled))
        for band, dtypes in zip(read.options.bands, row, strict=True)
    ]


def _band_type(band: str, dtypes: Sequence[str | None], *, scaled: bool) -> pa.DataType:
    known = [dtype for dtype in dtypes if dtype] or ["uint8"]
    if scaled and not any(dtype.startswith("complex") for dtype in known):
        return pa.float64()
    try:
        return common_type(known)
    except InputError as error:
        raise InputError(f"band {band}: {error.message}") from error
