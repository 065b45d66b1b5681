"""How much of a collection a box reads: a million records without tile tables.

Run: python benchmarks/layout_pruning.py [n_records]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from rasteret_sql.collections.layout import ROW_GROUP_BYTES, write_collection
from rasteret_sql.schema import BBOX, DATETIME, EPSG, GEOMETRY, ID, assets_type

BANDS = ["B02", "B03", "B04", "B08"]
SCHEMA = pa.schema(
    [
        ID,
        DATETIME,
        GEOMETRY,
        pa.field("bbox", BBOX),
        pa.field("assets", assets_type(BANDS)),
        EPSG,
        pa.field("eo:cloud_cover", pa.float64()),
    ]
)
BOX = (10.0, 45.0, 11.0, 46.0)


def batches(n_records: int, size: int = 20_000) -> Iterator[pa.RecordBatch]:
    """Scenes of one degree anywhere on land-like latitudes, in 2020 to 2024."""
    rng = np.random.default_rng(0)
    for start in range(0, n_records, size):
        n = min(size, n_records - start)
        west, south = rng.uniform(-180, 179, n), rng.uniform(-60, 80, n)
        days = np.datetime64("2020-01-01") + rng.integers(0, 1827, n)
        numbers = np.char.zfill(np.arange(start, start + n).astype(str), 9)
        hrefs = {
            band: pa.StructArray.from_arrays(
                [
                    pa.array([f"s3://bucket/sentinel/{i}/{band}.tif" for i in numbers]),
                    pa.array(np.zeros(n, np.int32)),
                ],
                fields=list(assets_type(BANDS).field(band).type),
            )
            for band in BANDS
        }
        yield pa.RecordBatch.from_arrays(
            [
                pa.array([f"S2_{i}" for i in numbers]),
                pa.array(days.astype("M8[us]")),
                pa.array(
                    shapely.to_wkb(shapely.box(west, south, west + 1, south + 1)), pa.binary()
                ),
                pa.StructArray.from_arrays(
                    [pa.array(b) for b in (west, south, west + 1, south + 1)], fields=list(BBOX)
                ),
                pa.StructArray.from_arrays(list(hrefs.values()), fields=list(assets_type(BANDS))),
                pa.array(np.full(n, 32632, np.int32)),
                pa.array(rng.uniform(0, 100, n)),
            ],
            schema=SCHEMA,
        )


def groups_met(path: Path) -> tuple[int, int, int, int]:
    """Row groups and bytes of a file: all, and those that the box's statistics meet."""
    footer = pq.read_metadata(path)
    leaf = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    n_bytes = n_met = met_bytes = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        size = sum(group.column(i).total_compressed_size for i in range(footer.num_columns))
        found = {name: group.column(leaf[f"bbox.{name}"]).statistics for name in BBOX.names}
        met = (
            found["xmin"].min <= BOX[2]
            and found["xmax"].max >= BOX[0]
            and found["ymin"].min <= BOX[3]
            and found["ymax"].max >= BOX[1]
        )
        n_bytes, n_met, met_bytes = n_bytes + size, n_met + met, met_bytes + size * met
    return footer.num_row_groups, n_bytes, n_met, met_bytes


def measure(n_records: int, partition_by: tuple[str, ...], row_group_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        parts = write_collection(
            SCHEMA,
            batches(n_records),
            folder,
            info={},
            partition_by=partition_by,
            row_group_bytes=row_group_bytes,
        )
        seconds = time.perf_counter() - began
        groups, n_bytes, met, met_bytes = map(
            sum, zip(*(groups_met(part.path) for part in parts), strict=True)
        )
        began = time.perf_counter()
        query = (
            f"SELECT count(*), any_value(assets) FROM read_parquet('{folder}/**/*.parquet') WHERE "
            f"bbox.xmin <= {BOX[2]}::DOUBLE AND bbox.xmax >= {BOX[0]}::DOUBLE AND "
            f"bbox.ymin <= {BOX[3]}::DOUBLE AND bbox.ymax >= {BOX[1]}::DOUBLE"
        )
        row = duckdb.execute(query).fetchone()
        asked = time.perf_counter() - began
        began = time.perf_counter()
        duckdb.execute(f"SELECT max(id) FROM read_parquet('{folder}/**/*.parquet')").fetchone()
        whole = time.perf_counter() - began
        print(
            f"{'/'.join(partition_by) or 'one file':12} {row_group_bytes >> 10:5} KiB groups: "
            f"{len(parts):3} files, {n_bytes / 1e6:6.1f} MB, written in {seconds:5.1f} s; "
            f"all ids in {whole * 1000:4.0f} ms; box reads "
            f"{met:4} of {groups:4} groups, {met_bytes / n_bytes:6.2%} of bytes, "
            f"{row[0] if row else 0} records in {asked * 1000:5.0f} ms"
        )


def main() -> None:
    n_records = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for partition_by in ((), ("year",), ("year", "month")):
        for row_group_bytes in (ROW_GROUP_BYTES // 32, ROW_GROUP_BYTES):
            measure(n_records, partition_by, row_group_bytes)


if __name__ == "__main__":
    main()
