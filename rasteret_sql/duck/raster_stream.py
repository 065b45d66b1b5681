"""Rasters that stand for themselves, as rows that DuckDB reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from rasteret_sql.duck.calls import Scan, Stream
from rasteret_sql.ingest.rasters import RasterRecords


def raster_stream(records: RasterRecords, bands: Mapping[str, int], on_error: str) -> Stream:
    """The records of files.

    Args:
        records: of the files.
        bands: names of bands and the numbers of their samples.
        on_error: ``'report'`` (NULL metadata) or ``'error'``.
    """
    schema = _with_geometry(records.schema(list(bands)))

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        for batch in records.batches(dict(bands), scan.stop, on_error=on_error):
            yield batch.cast(schema)

    return Stream(schema, run)


def _with_geometry(schema: pa.Schema) -> pa.Schema:
    """The schema, its footprints known as longitude, latitude."""
    place = schema.get_field_index("geometry")
    metadata = {
        b"ARROW:extension:name": b"geoarrow.wkb",
        b"ARROW:extension:metadata": b'{"crs": "OGC:CRS84"}',
    }
    return schema.set(place, schema.field(place).with_metadata(metadata))
