"""From the arguments of a read to its records, targets and columns.

Binding touches no pixel and, for a version of a collection that is in memory, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.collections.datetimes import Instants, parse_range
from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.names import quote_identifier, quote_text
from rasteret_sql.duck.record_conditions import record_conditions, record_filter
from rasteret_sql.duck.relations import (
    Relation,
    caller_sql,
    check_bands,
    find_visible,
    reading_columns,
    resolve,
    unreadable,
)
from rasteret_sql.duck.staging import ROW, STAGE, Staged
from rasteret_sql.duck.udfs import STAGE_UDF, STAGED_UDF
from rasteret_sql.duck.unmatched import Unmatched
from rasteret_sql.errors import InputError
from rasteret_sql.grid.aoi import parse_aoi
from rasteret_sql.reading.columns import RepeatedColumns, common_type, repeated_field
from rasteret_sql.reading.counters import Counters
from rasteret_sql.reading.footprints import Footprints
from rasteret_sql.reading.index import Version
from rasteret_sql.reading.outputs.common import Read, tables
from rasteret_sql.reading.request import OutputGrid, ReadRequest
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.reading.targets import Targets, find_geometry_column, parse_targets
from rasteret_sql.schema import METADATA_SUFFIX, metadata_column
from rasteret_sql.units import BBox

Run = Callable[["BoundRead", Scan], Iterator[pa.RecordBatch]]

_FIRST = ("id", "datetime")
_HIDDEN = ("assets", "bbox", "geometry")
_TARGET = "_rasteret_target"
_NUMBER = "_rasteret_number"
_GEOMETRY_NAMES = ("geometry", "geom", "wkb_geometry")


@dataclass
class BoundRead:
    """A read of some records, bound.

    Attributes:
        call: The call.
        relation: Its records.
        request: What to read.
        dates: Of the records.
        ids: Of the records, None for all.
        targets: The area, None for none or for a relation of them.
        aois: The relation of areas, as it is seen by a connection of our own.
        geometry_crs: CRS of the areas.
        geometry_column: Of the areas.
        area_argument: The one that gave the area: bbox, geometry or aois.
        private: Where areas arrive that only the caller's connection sees.
        record_columns: Columns of the records that are returned.
        areas_argument: How the function names the relation of areas.
    """

    call: Call
    relation: Relation
    request: ReadRequest
    dates: Instants
    ids: list[str] | None
    targets: Targets | None
    aois: Relation | None
    geometry_crs: object
    geometry_column: str | None
    area_argument: str
    private: Staged | None
    private_sql: str
    record_columns: Sequence[str]
    shows_targets: bool
    areas_argument: str = "aois"
    outputs: dict[str, str] = field(default_factory=dict)
    target_outputs: dict[str, str] = field(default_factory=dict)
    own: pa.Schema = field(default_factory=lambda: pa.schema([]))

    @cached_property
    def target_schema(self) -> pa.Schema:
        """Columns of the areas that come through."""
        if self.private is not None:
            return pa.schema([(_NUMBER, pa.int64())])
        if self.aois is None or not self.shows_targets:
            return pa.schema([])
        name = find_geometry_column(self.aois.schema, self.geometry_column, self.areas_argument)
        return pa.schema([one for one in self.aois.schema if one.name != name])

    def record_names(self, own: Sequence[str]) -> dict[str, str]:
        """Output names of the columns of records, unlike a read's own; and the columns."""
        return _free_names(self.record_columns, own, "record_")

    def bind(self, own: pa.Schema, clashing: Sequence[str] | None) -> pa.Schema:
        """All columns of the read, given its own."""
        self.own = own
        self.outputs = self.record_names(own.names if clashing is None else clashing)
        if self.private is not None:
            self.target_outputs = {_TARGET: _NUMBER}
        else:
            taken = [*own.names, *self.outputs]
            self.target_outputs = _free_names(
                self.target_schema.names, taken, self.areas_argument.rstrip("s") + "_"
            )
        records = [
            repeated_field(self.relation.schema.field(name).with_name(output))
            for output, name in self.outputs.items()
        ]
        areas = [
            repeated_field(self.target_schema.field(name).with_name(output))
            for output, name in self.target_outputs.items()
        ]
        first = [one for one in records if one.name in _FIRST]
        return pa.schema([*first, *areas, *own, *(one for one in records if one not in first)])

    def records(
        self,
        scan: Scan,
        *,
        may_request: bool = True,
        push: bool = True,
        bands: Sequence[str] | None = None,
        columns: Sequence[str] = (),
    ) -> Callable[[], Iterator[SceneTable]]:
        """The records to read, with the predicates on their columns applied.

        Args:
            scan: The execution.
            may_request: Whether headers may be completed from the files.
            push: Whether to take the predicates over.
            bands: Bands that the scenes are of; default: those of the request.
            columns: Columns of the records that the read needs itself.
        """
        bands = self.request.bands if bands is None else bands
        keep = scan.take(set(self.outputs)) if push else None
        targets = self.found_targets(scan)
        boxes = None if targets is None else targets.lonlat_boxes() or None
        if targets is not None and not len(targets):
            return lambda: iter(())
        current = self.relation.renewed(self.call)
        version = current.version
        unmatched = self._unmatched(boxes)
        if version is not None and version.is_whole:
            wanted = record_filter(self.relation, boxes, self.dates, self.ids)

            def indexed() -> Iterator[SceneTable]:
                chosen = version.chosen(wanted)
                unmatched.tell(int(chosen.sum()), self._ids_of(version, chosen))
                if keep is not None and version.records is not None:
                    chosen &= self._mask(version.records, keep)
                if chosen.any():
                    yield version.scenes(bands, chosen)

            return indexed
        relation = current.near(self.call, boxes)
        conditions = record_conditions(self.call, relation, boxes, self.dates, self.ids)
        wanted_columns = [name for out, name in self.outputs.items() if out in scan.columns]
        if keep is not None:
            wanted_columns = list(self.outputs.values())
        read_columns = reading_columns(relation, bands, [*wanted_columns, *columns])

        def scanned() -> Iterator[SceneTable]:
            batches = unmatched.watched(relation.batches(self.call, read_columns, conditions))
            if keep is not None:
                batches = (batch.filter(pa.array(self._mask(batch, keep))) for batch in batches)
            yield from tables(batches, bands, scan.check, may_request=may_request)

        return scanned

    def _ids_of(self, version: Version, chosen: np.ndarray[Any, Any]) -> set[str]:
        """Ids of the chosen records, where the call names ids."""
        if self.ids is None or version.records is None:
            return set()
        ids = pc.filter(version.records.column("id"), pa.array(chosen))
        return set(ids.cast(pa.string()).to_pylist())

    def _unmatched(self, boxes: Sequence[BBox] | None) -> Unmatched:
        """What tells the user that the arguments of one execution match no record."""
        return Unmatched(
            call=self.call,
            relation=self.relation,
            boxes=boxes,
            dates=self.dates,
            ids=self.ids,
            argument=self.area_argument,
            has_crs=self.geometry_crs is not None,
        )

    def _mask(self, batch: pa.RecordBatch, keep: pc.Expression) -> np.ndarray[Any, Any]:
        """Which records a predicate over output columns keeps."""
        arrays = {o: batch.column(n) for o, n in self.outputs.items() if n in batch.schema.names}
        number = np.arange(batch.num_rows)
        table = pa.table({**arrays, _NUMBER: number})
        mask = np.zeros(batch.num_rows, bool)
        mask[table.filter(keep)[_NUMBER].to_numpy()] = True
        return mask

    def found_targets(self, scan: Scan) -> Targets | None:
        """The areas; a relation of them is read when the statement runs, once."""
        if self.targets is None and (self.private is not None or self.aois is not None):
            if self.private is not None:
                table = self.private.wait(scan.check)
            else:
                assert self.aois is not None  # noqa: S101 (one of both)
                table = self.aois.table(self.call)
            if table is None:
                empty = pa.RecordBatch.from_pylist([], schema=self.target_schema)
                return Targets([], None, empty)
            self.targets = self.parsed(table)
        return self.targets

    def parsed(self, table: pa.Table) -> Targets:
        """The rows of the relation of areas."""
        return parse_targets(table, self.geometry_column, self.geometry_crs, self.areas_argument)

    def execution(self, scan: Scan) -> Read:
        """One execution of the read."""
        targets = self.found_targets(scan)
        columns = targets.columns if targets is not None and self.target_outputs else None
        counters = scan.counters = Counters()
        return Read(
            request=self.request,
            footprints=Footprints(targets, all_touched=self.request.all_touched),
            repeated=RepeatedColumns(
                self.outputs, self.relation.schema, self.target_outputs, columns
            ),
            schema=self.own,
            wanted=scan.columns,
            stop=scan.stop,
            check=scan.check,
            counters=counters,
        )

    def dtypes(self) -> dict[str, list[str]]:
        """Sample types of each band among the records that are read."""
        bands = self.request.bands
        version = self.relation.version
        boxes = None if self.targets is None else self.targets.lonlat_boxes() or None
        if version is not None and version.is_whole:
            chosen = version.chosen(record_filter(self.relation, boxes, self.dates, self.ids))
            table = version.scenes(bands, chosen)
            found = {}
            for name in bands:
                level = table.bands[name].level(0)
                used = [] if level is None else level.kind[chosen & (level.kind >= 0)].tolist()
                found[name] = sorted({table.kinds[n].dtype for n in set(used)}) or ["uint8"]
            return found
        return self._scanned_dtypes(boxes)

    def _scanned_dtypes(self, boxes: Sequence[Any] | None) -> dict[str, list[str]]:
        parts = ", ".join(
            f"list(DISTINCT {quote_identifier(metadata_column(band))}.dtype)"
            for band in self.request.bands
        )
        relation = self.relation.near(self.call, boxes)
        conditions = record_conditions(self.call, relation, boxes, self.dates, self.ids)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        try:
            with self.call.cursor() as cursor:
                rows = relation.slim(self.call).sql
                row = cursor.execute(f"SELECT {parts} FROM {rows}{where}").fetchall()[0]
        except duckdb.Error as error:
            raise unreadable(relation.label, error) from error
        return {
            band: sorted(dtype for dtype in dtypes or [] if dtype) or ["uint8"]
            for band, dtypes in zip(self.request.bands, row, strict=True)
        }

    def types(self, *, scaled: bool) -> dict[str, pa.DataType]:
        """A column type for each band; scaled real numbers are DOUBLE."""
        found = {}
        for band, dtypes in self.dtypes().items():
            if scaled and not any(dtype.startswith("complex") for dtype in dtypes):
                found[band] = pa.float64()
                continue
            try:
                found[band] = common_type(dtypes)
            except InputError as error:
                raise InputError(f"band {band}: {error.message}") from error
        return found


def bind_read(
    call: Call,
    arguments: Mapping[str, Any],
    *,
    shows_targets: bool = True,
    areas_argument: str = "aois",
) -> BoundRead:
    """Check the arguments that reads share and find the records.

    Args:
        call: The call.
        arguments: Of the declaration, checked; those of `ReadRequest` and of areas are taken.
        shows_targets: Whether columns of a relation of areas come through.
        areas_argument: How the function names the relation of areas.

    Raises:
        InputError: what was expected.
    """
    given = dict(arguments)
    relation = resolve(call, given.pop("collection"))
    bands = check_bands(relation, given.pop("bands"))
    bbox, geometry, crs = (given.pop(name) for name in ("bbox", "geometry", "geometry_crs"))
    aois, column = given.pop(areas_argument, None), given.pop("geometry_column", None)
    dates = parse_range(given["date_range"]) if given["date_range"] else Instants(None, None)
    ids, columns = given.pop("ids"), given.pop("record_columns")
    del given["date_range"]
    given["output_grid"] = _output_grid(given, crs)
    if aois is not None and (bbox is not None or geometry is not None):
        raise InputError.expected(
            areas_argument,
            f"one of {areas_argument}, bbox and geometry",
            f"{areas_argument} and {'bbox' if geometry is None else 'geometry'}",
            "leave one out",
        )
    aoi = parse_aoi(bbox=bbox, geometry=geometry, geometry_crs=crs)
    if aoi is not None and not aoi.geometry.area:  # a box; parse_aoi refuses such a geometry
        raise InputError.expected(
            "bbox",
            "a box with an area",
            list(bbox),
            "draw it larger; of points, use rasteret_sample_points",
        )
    areas = None if aois is None else find_visible(call, aois, areas_argument)
    private = Staged() if aois is not None and areas is None else None
    reading_columns(relation, bands, [])
    bound = BoundRead(
        call=call,
        relation=relation,
        request=ReadRequest(bands=bands, **given),
        dates=dates,
        ids=ids,
        targets=None if aoi is None else Targets.of(aoi),
        aois=areas,
        geometry_crs=crs,
        geometry_column=column,
        area_argument="aois" if aois is not None else "bbox" if bbox is not None else "geometry",
        private=private,
        private_sql="" if private is None else caller_sql(str(aois)),
        record_columns=_record_columns(relation, columns),
        shows_targets=shows_targets,
        areas_argument=areas_argument,
    )
    if areas is not None:
        find_geometry_column(areas.schema, column, areas_argument)
    record_filter(relation, None, dates, ids)
    return bound


def _output_grid(given: dict[str, Any], geometry_crs: object) -> OutputGrid | None:
    """The grid that pixels are read onto, of the arguments that say so, which are taken."""
    if "resolution" not in given:
        return None
    resolution, crs = given.pop("resolution"), given.pop("crs")
    kernel, overview = given.pop("resampling"), given.pop("overview")
    if resolution is None and crs is None:
        for name, value, default in (
            ("resampling", kernel, "nearest"),
            ("overview", overview, "auto"),
        ):
            if value != default:
                raise InputError.expected(
                    name, f"{default!r} where pixels stay on the grid of the raster", value,
                    "name a grid with resolution or crs",
                )  # fmt: skip
        return None
    if given.get("level"):
        raise InputError.expected(
            "level", "0 with resolution or crs", given["level"], "use overview, which is 'auto'"
        )
    if geometry_crs == "pixel":
        raise InputError.expected(
            "geometry_crs", "a CRS with resolution or crs", "pixel", "give the area on the map"
        )
    return OutputGrid(crs, resolution, kernel, overview)


def expose_read(
    bound: BoundRead,
    own: pa.Schema,
    run: Run,
    clashing: Sequence[str] | None = None,
) -> Stream | Sql:
    """What stands for the call.

    Args:
        bound: The read.
        own: Columns of its own.
        run: Makes its batches.
        clashing: Names that columns of records give way to; default: all of ``own``.
    """
    schema = bound.bind(own, clashing)
    stream = Stream(schema, lambda scan: run(bound, scan))
    if bound.private is None:
        return stream
    token = STAGE.add(bound.private)
    hidden = {_NUMBER, *([bound.geometry_column] if bound.geometry_column else _GEOMETRY_NAMES)}
    listed = ", ".join(quote_text(name) for name in sorted(hidden))
    source = bound.call.runtime.expose(bound.call, stream, token)
    shown = f", COLUMNS(lambda c: c NOT IN ({listed}, {quote_text(_TARGET)}))"
    areas = "a.*" if bound.shows_targets else ""
    return Sql(
        f"WITH _rasteret_aois AS MATERIALIZED (SELECT row_number() OVER () - 1 AS {_NUMBER}, r.* "
        f"FROM {bound.private_sql} AS r), _rasteret_rows AS (SELECT * FROM ({source}) WHERE "
        f"(SELECT {STAGED_UDF}({quote_text(token)}, bool_and({STAGE_UDF}({quote_text(token)}, "
        f"{ROW}))) FROM _rasteret_aois AS {ROW})) SELECT {shown[2:]} FROM (SELECT s.*"
        f"{', ' + areas if areas else ''} FROM _rasteret_rows AS s LEFT JOIN _rasteret_aois AS a "
        f"ON s.{_TARGET} = a.{_NUMBER})"
    )


def _record_columns(relation: Relation, asked: list[str] | None) -> list[str]:
    """Columns of the records that are returned, id and datetime first."""
    known = [name for name in relation.schema.names if not name.endswith(METADATA_SUFFIX)]
    if asked is None:
        chosen = [name for name in known if name not in _HIDDEN]
    elif asked == ["all"]:
        chosen = known
    else:
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise InputError.expected(
                "record_columns", f"some of {', '.join(known)}, or 'all'", unknown[0], "correct it"
            )
        chosen = list(dict.fromkeys(asked))
    return [*(n for n in _FIRST if n in chosen), *(n for n in chosen if n not in _FIRST)]


def _free_names(names: Sequence[str], own: Sequence[str], prefix: str) -> dict[str, str]:
    """Output name to column, unlike the names that are taken; to SQL, X is x."""
    used = {name.lower() for name in own}
    taken = used | {name.lower() for name in names}
    outputs = {}
    for name in names:
        output = name
        while output.lower() in (used if output == name else taken):
            output = prefix + output
        taken.add(output.lower())
        outputs[output] = name
    return outputs
