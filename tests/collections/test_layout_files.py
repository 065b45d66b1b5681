"""Written collections hold all records, sorted, small, and readable by others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from rasteret_sql.collections.curve import bbox_keys
from rasteret_sql.collections.layout import PartFile, export, write_collection
from rasteret_sql.errors import CollectionError, InputError
from rasteret_sql.schema import BBOX

MakeRecords = Callable[..., pa.Table]
INFO = {"name": "s2", "data_source": "made", "description": "ours"}


def write(records: pa.Table, folder: Path, **options: object) -> list[PartFile]:
    batches = iter(records.to_batches(100))
    return write_collection(records.schema, batches, folder, **{"info": INFO, **options})


def read_back(folder: Path, columns: list[str]) -> pa.Table:
    hive = ds.partitioning(flavor="hive")
    return ds.dataset(folder, partitioning=hive).to_table(columns).sort_by("id")


def scan(folder: Path) -> str:
    return f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"


@pytest.mark.any_duckdb
@pytest.mark.parametrize("memory_bytes", [256 << 20, 400_000, 60_000])
def test_every_record_comes_back_whatever_the_memory(
    records: pa.Table, tmp_path: Path, memory_bytes: int
) -> None:
    parts = write(records, tmp_path, memory_bytes=memory_bytes)
    assert read_back(tmp_path, records.column_names).equals(records.sort_by("id"))
    assert sum(part.records for part in parts) == records.num_rows
    assert all(part.path.stat().st_size == part.size_bytes for part in parts)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {p.path for p in parts}


@pytest.mark.any_duckdb
@pytest.mark.parametrize("memory_bytes", [256 << 20, 400_000])
def test_a_partition_lies_along_the_curve(
    records: pa.Table, tmp_path: Path, memory_bytes: int
) -> None:
    (part,) = write(records, tmp_path, partition_by=(), memory_bytes=memory_bytes)
    keys = bbox_keys(pq.read_table(part.path)["bbox"].combine_chunks())
    assert np.all(np.diff(keys) >= 0)


@pytest.mark.any_duckdb
def test_year_and_month_are_those_of_utc(tmp_path: Path) -> None:
    moment = pa.array([1704067200_000000 - 1], pa.timestamp("us", "Asia/Tokyo"))
    schema = pa.schema([("id", pa.string()), ("datetime", moment.type)])
    (part,) = write(pa.table([pa.array(["a"]), moment], schema=schema), tmp_path)
    assert part.partition == {"year": 2023, "month": 12}
    assert part.path == tmp_path / "year=2023/month=12/part-0.parquet"


@pytest.mark.any_duckdb
def test_year_and_month_of_the_records_stand_only_without_a_datetime(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["a", "b"],
            "datetime": pa.array([0, None], pa.timestamp("us")),
            "year": pa.array([1999, 1999], pa.int16()),
            "month": ["7", "7"],
        }
    )
    parts = write(table, tmp_path)
    assert [part.partition for part in parts] == [
        {"year": 1970, "month": 1},
        {"year": 1999, "month": 7},
    ]
    assert pq.read_schema(parts[0].path).names == ["id", "datetime"]


def test_records_without_datetime_survive(records: pa.Table, tmp_path: Path) -> None:
    write(records, tmp_path)
    rows = duckdb.sql(
        f"SELECT count(*), any_value(typeof(year)), any_value(typeof(month)) FROM {scan(tmp_path)} "
        "WHERE datetime IS NULL AND year IS NULL AND month IS NULL"
    ).fetchall()
    assert rows == [(50, "BIGINT", "BIGINT")]
    hive = ds.dataset(tmp_path, partitioning="hive")
    assert hive.to_table(["id"], filter=ds.field("year").is_null()).num_rows == 50


def test_records_are_split_by_any_columns(records: pa.Table, tmp_path: Path) -> None:
    odd = ["a b/c=d%", "", "é", "01", None]
    names = pa.array([odd[i % 5] for i in range(records.num_rows)])
    days = pc.cast(records["datetime"], pa.date32())
    table = records.append_column("odd name", names).append_column("day", days).slice(0, 40)
    parts = write(table, tmp_path, partition_by=["odd name", "day"])
    query = f'SELECT id, "odd name", day FROM {scan(tmp_path)} ORDER BY id'
    types = json.loads(pq.read_metadata(parts[0].path).metadata[b"hive_types"])
    assert types == {"odd name": "VARCHAR", "day": "DATE"}
    hive_types = "{'odd name': VARCHAR, 'day': DATE}"
    query = query.replace("= true)", f"= true, hive_types = {hive_types})")
    wanted = table.select(["id", "odd name", "day"]).sort_by("id").to_pylist()
    assert duckdb.sql(query).to_arrow_table().to_pylist() == wanted


@pytest.mark.any_duckdb
def test_a_collection_without_records_keeps_its_columns(records: pa.Table, tmp_path: Path) -> None:
    (part,) = write(records.slice(0, 0), tmp_path)
    assert part.records == 0
    shown = duckdb.sql(f"SELECT * FROM {scan(tmp_path)}")
    assert sorted(shown.columns) == sorted([*records.column_names, "year", "month"])
    assert shown.fetchall() == []
    assert json.loads(pq.read_metadata(part.path).metadata[b"geo"])["version"] == "1.1.0"


@pytest.mark.any_duckdb
def test_each_file_says_what_it_is(records: pa.Table, tmp_path: Path) -> None:
    parts = write(records, tmp_path, first_part=7)
    part = next(part for part in parts if part.partition == {"year": 2024, "month": 2})
    assert part.path.name == "part-7.parquet"
    meta = pq.read_metadata(part.path).metadata
    assert {key: meta[key.encode()].decode() for key in INFO} == INFO
    assert meta[b"rasteret_collection_version"] == b"1"
    assert meta[b"date_range"] == b"2023-01-02,2024-12-31"
    assert datetime.fromisoformat(meta[b"created"].decode()).tzinfo is not None
    geometry = json.loads(meta[b"geo"])["columns"]["geometry"]
    boxes = pq.read_table(part.path)["bbox"]
    west = pc.min(pc.struct_field(boxes, "xmin")).as_py()
    assert geometry["bbox"][0] == west
    assert geometry["geometry_types"] == ["Polygon"]
    assert geometry["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]


@pytest.mark.any_duckdb
def test_bounds_over_the_antimeridian_span_all_longitudes(tmp_path: Path) -> None:
    boxes = pa.array([(170.0, -20.0, -170.0, -10.0), (10.0, 0.0, 11.0, 1.0)], BBOX)
    table = pa.table({"id": ["a", "b"], "geometry": pa.nulls(2, pa.binary()), "bbox": boxes})
    (part,) = write(table, tmp_path, partition_by=())
    geo = json.loads(pq.read_metadata(part.path).metadata[b"geo"])["columns"]["geometry"]
    assert geo["bbox"] == [-180.0, -20.0, 180.0, 1.0]
    assert geo["geometry_types"] == []


@pytest.mark.any_duckdb
def test_geometry_kinds_are_named_with_their_dimensions(tmp_path: Path) -> None:
    import shapely

    shapes = [shapely.Point(1, 2), shapely.Point(1, 2, 3), shapely.MultiPolygon([])]
    big = shapely.to_wkb(shapely.LineString([(0, 0), (1, 1)]), byte_order=0)
    iso = shapely.to_wkb(shapely.Point(1, 2, 3), flavor="iso")
    table = pa.table({"geometry": pa.array([*shapely.to_wkb(shapes), big, iso], pa.binary())})
    (part,) = write(table, tmp_path, partition_by=())
    geo = json.loads(pq.read_metadata(part.path).metadata[b"geo"])["columns"]["geometry"]
    assert geo["geometry_types"] == ["LineString", "MultiPolygon", "Point", "Point Z"]
    assert "covering" not in geo


def test_duckdb_shows_geometry_and_geopandas_reads_it(records: pa.Table, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    parts = write(records, tmp_path)
    kinds = duckdb.sql(f"SELECT DISTINCT typeof(geometry) FROM {scan(tmp_path)}").fetchall()
    assert kinds == [("GEOMETRY('OGC:CRS84')",)]
    frame = geopandas.read_parquet(parts[0].path, bbox=(-180, -90, 180, 90))
    assert frame.crs.to_string() == "OGC:CRS84"
    assert len(frame) == parts[0].records
    assert frame.geometry.is_valid.all()
    dated = [part.path for part in parts if part.partition["year"] is not None]
    hive = ds.dataset(tmp_path, partitioning="hive").schema
    whole = geopandas.read_parquet(
        tmp_path,
        partitioning=ds.partitioning(
            pa.schema([hive.field("year"), hive.field("month")]), flavor="hive"
        ),
    )
    assert len(whole) == records.num_rows
    assert len(dated) < len(parts)


@pytest.mark.any_duckdb
def test_tile_tables_take_six_bytes_a_tile(make_records: MakeRecords, tmp_path: Path) -> None:
    records = make_records(300, bands=("B03", "B04"))
    (part,) = write(records, tmp_path, partition_by=())
    footer = pq.read_metadata(part.path)
    chunks = [
        footer.row_group(group).column(column)
        for group in range(footer.num_row_groups)
        for column in range(footer.num_columns)
    ]
    ends = ("tile_offsets.list.element", "tile_byte_counts.list.element")
    tables = [chunk for chunk in chunks if chunk.path_in_schema.endswith(ends)]
    n_tiles = 300 * 2 * (121 + 36 + 9)
    assert sum(chunk.total_compressed_size for chunk in tables) / n_tiles < 6.1
    assert all("DELTA_BINARY_PACKED" in chunk.encodings for chunk in tables)
    assert len(tables) == footer.num_row_groups * 2 * 8


@pytest.mark.any_duckdb
def test_row_groups_have_the_bytes_asked_for(make_records: MakeRecords, tmp_path: Path) -> None:
    (part,) = write(make_records(1000), tmp_path, partition_by=(), row_group_bytes=200_000)
    footer = pq.read_metadata(part.path)
    sizes = []
    for group in range(footer.num_row_groups):
        columns = [footer.row_group(group).column(i) for i in range(footer.num_columns)]
        sizes.append(sum(column.total_compressed_size for column in columns))
    assert len(sizes) >= 4
    assert all(100_000 < size < 260_000 for size in sizes)


@pytest.mark.any_duckdb
def test_a_box_reads_few_row_groups(make_records: MakeRecords, tmp_path: Path) -> None:
    (part,) = write(make_records(2000), tmp_path, partition_by=(), row_group_bytes=40_000)
    footer = pq.read_metadata(part.path)
    columns = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    whole, met = footer.num_row_groups, 0
    for group in range(whole):
        span = {
            name: footer.row_group(group).column(columns[f"bbox.{name}"]).statistics
            for name in ("xmin", "ymin", "xmax", "ymax")
        }
        met += (
            span["xmin"].min <= 12
            and span["xmax"].max >= 10
            and span["ymin"].min <= 42
            and span["ymax"].max >= 40
        )
    assert whole >= 30
    assert met <= 3


@pytest.mark.any_duckdb
def test_light_records_lie_in_groups_small_enough_to_skip(tmp_path: Path) -> None:
    ids = pa.table({"id": [f"r{i}" for i in range(10_000)]})
    (part,) = write(ids, tmp_path, partition_by=())
    footer = pq.read_metadata(part.path)
    assert [footer.row_group(i).num_rows for i in range(5)] == [2048, 2048, 2048, 1928, 1928]


@pytest.mark.any_duckdb
def test_statistics_cover_what_queries_ask_and_no_tile_table(
    records: pa.Table, tmp_path: Path
) -> None:
    (part,) = write(records, tmp_path, partition_by=())
    group = pq.read_metadata(part.path).row_group(0)
    having = {
        group.column(i).path_in_schema
        for i in range(group.num_columns)
        if group.column(i).is_stats_set
    }
    assert having == {
        "id",
        "datetime",
        "proj:epsg",
        "platform",
        "B04_metadata.image_width",
        *(f"bbox.{name}" for name in ("xmin", "ymin", "xmax", "ymax")),
    }


@pytest.mark.any_duckdb
def test_views_and_long_text_are_stored_as_plain_text(tmp_path: Path) -> None:
    kind = pa.struct([("href", pa.string_view()), ("tags", pa.large_list(pa.large_string()))])
    schema = pa.schema(
        [("id", pa.large_string()), ("assets", kind), ("p", pa.dictionary(pa.int8(), pa.string()))]
    )
    rows = [{"id": "a", "assets": {"href": "x", "tags": ["y"]}, "p": "z"}]
    (part,) = write(pa.Table.from_pylist(rows, schema), tmp_path, partition_by=())
    plain = pa.struct([("href", pa.string()), ("tags", pa.list_(pa.string()))])
    table = pq.read_table(part.path)
    assert [field.type for field in table.schema] == [pa.string(), plain, pa.string()]
    assert table.to_pylist() == rows


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition_by": ["yeer"]}, "partition_by: expected one of year, month, id"),
        ({"partition_by": ["bbox"]}, "partition_by: bbox: expected text, integers"),
        ({"partition_by": ["a/b"]}, "partition_by: expected names without / = %"),
        ({"compression": "zip"}, "compression: expected one of zstd"),
    ],
)
def test_choices_that_cannot_be_are_named(
    records: pa.Table, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        write(records.append_column("a/b", records["id"]), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.any_duckdb
def test_a_record_without_id_is_refused(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array(["a", None])})
    with pytest.raises(CollectionError, match="id: expected a value in every record, got 'NULL'"):
        write(table, tmp_path, partition_by=())


@pytest.mark.any_duckdb
def test_a_type_that_parquet_cannot_hold_is_refused(tmp_path: Path) -> None:
    table = pa.table({"assets": pa.array([{}], pa.struct([]))})
    with pytest.raises(CollectionError, match=r"column .*: expected a type that Parquet"):
        write(table, tmp_path, partition_by=())


def failing(records: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from records.to_batches(100)[:3]
    raise ConnectionError("the store went away")


@pytest.mark.any_duckdb
def test_an_export_is_whole_or_not_there(records: pa.Table, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(ConnectionError):
        export(records.schema, failing(records), target, info=INFO)
    assert list(tmp_path.iterdir()) == []
    target.mkdir()
    parts = export(records.schema, iter(records.to_batches()), target, info=INFO)
    assert all(part.path.is_file() and part.path.is_relative_to(target) for part in parts)
    assert read_back(target, ["id"])["id"].to_pylist() == records["id"].to_pylist()


@pytest.mark.any_duckdb
def test_an_export_replaces_only_when_told(records: pa.Table, tmp_path: Path) -> None:
    target = tmp_path / "out"
    export(records.schema, iter(records.to_batches()), target, info=INFO)
    few = records.slice(0, 5)
    with pytest.raises(InputError, match="path: expected a new or empty folder"):
        export(few.schema, iter(few.to_batches()), target, info=INFO)
    with pytest.raises(ConnectionError):
        export(records.schema, failing(records), target, info=INFO, force=True)
    assert read_back(target, ["id"]).num_rows == 500
    export(few.schema, iter(few.to_batches()), target, info=INFO, force=True)
    assert read_back(target, ["id"]).num_rows == 5
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
