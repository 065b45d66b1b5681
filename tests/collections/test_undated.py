"""Collections in which records have no datetime: their partitions have no value to be named by."""

from __future__ import annotations

import geopandas
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def undated(items):
    """Items without a time, as they may be of a static map."""
    for item in items["features"]:
        item["properties"]["datetime"] = None
    return items


@pytest.fixture
def paths(tmp_path):
    def find(folder="workspace/s2_stac"):
        root = tmp_path / folder
        return sorted(str(path.relative_to(root)) for path in root.glob("**/*.parquet"))

    return find


def build(rows, path, function="rasteret_build_stac('s2', stac_api := $path, enrich := false)"):
    return rows(f"SELECT records, partitions FROM {function}", {"path": path})


def n_read(folder):
    """How many records other readers find, each in its own way."""
    return (
        len(geopandas.read_parquet(folder)),
        pq.read_table(folder).num_rows,
        ds.dataset(folder, partitioning="hive").count_rows(),
    )


def test_it_opens_in_geopandas_and_pyarrow(rows, undated, write_items, tmp_path, paths):
    assert build(rows, write_items(undated)) == [(6, 1)]
    assert paths() == ["part-1.parquet"]
    assert n_read(tmp_path / "workspace/s2_stac") == (6, 6, 6)
    found = rows(
        "SELECT typeof(year), typeof(month), count(*) FROM s2 WHERE year IS NULL GROUP BY ALL"
    )
    assert found == [("BIGINT", "BIGINT", 6)]


def test_with_dated_records_too_it_opens_where_the_types_of_the_keys_are_said(
    rows, items, write_items, tmp_path
):
    """As docs/parquet.md says it; on the day the last line fails, take its sentence out."""
    for item in items["features"][:4]:
        item["properties"]["datetime"] = None
    build(rows, write_items(items))
    folder = tmp_path / "workspace/s2_stac"
    keys = pa.schema([("year", pa.int64()), ("month", pa.int64())])
    frame = geopandas.read_parquet(folder, partitioning=ds.partitioning(keys, flavor="hive"))
    assert frame.geometry.geom_type.unique().tolist() == ["Polygon"]
    months = frame.set_index("id")[["year", "month"]].fillna(0).astype(int)
    wanted = rows("SELECT id, coalesce(year, 0), coalesce(month, 0) FROM s2 ORDER BY id")
    assert list(months.sort_index().itertuples(name=None)) == wanted
    assert "year" not in geopandas.read_parquet(folder, partitioning=None)
    table = ds.dataset(folder, partitioning="hive").to_table(columns=["year"])
    assert (table.num_rows, table["year"].null_count) == (6, 4)
    with pytest.raises(pa.ArrowInvalid, match="unify dictionaries with nulls"):
        geopandas.read_parquet(folder)


def test_an_export_of_it_opens_too(rows, undated, write_items, tmp_path, paths):
    build(rows, write_items(undated))
    source = "SELECT *, NULL::DATE AS day, 'x' AS kind FROM s2"
    query = f"SELECT records FROM rasteret_export('{source.replace(chr(39), chr(39) * 2)}', $p, "
    rows(query + "partition_by := ['day', 'kind'])", {"p": str(tmp_path / "days")})
    assert paths("days") == ["kind=x/part-0.parquet"]
    assert n_read(tmp_path / "days") == (6, 6, 6)
    rows("FROM rasteret_load('days', $p)", {"p": str(tmp_path / "days")})
    assert rows("SELECT DISTINCT typeof(day), day, kind FROM days") == [("DATE", None, "x")]


def test_a_refresh_puts_all_into_partitions_once_a_record_is_dated(
    rows, undated, write_items, paths
):
    path = write_items(undated)
    build(rows, path)
    refresh = "rasteret_refresh('s2')"
    undated["features"][1]["properties"]["title"] = "a change without a date"
    write_items(undated)
    assert build(rows, None, f"{refresh} WHERE $path IS NULL") == [(6, 1)]
    assert paths() == ["part-2.parquet"]
    undated["features"][0]["properties"]["datetime"] = "2024-05-06T00:00:00Z"
    write_items(undated)
    assert build(rows, None, f"{refresh} WHERE $path IS NULL") == [(6, 2)]
    assert [path.split("/")[0] for path in paths()] == [
        "year=2024",
        "year=__HIVE_DEFAULT_PARTITION__",
    ]
    assert rows("SELECT year, month, count(*) FROM s2 GROUP BY ALL ORDER BY ALL") == [
        (2024, 5, 1),
        (None, None, 5),
    ]
    undated["features"][2]["properties"]["title"] = "one more change without a date"
    write_items(undated)
    assert build(rows, None, f"{refresh} WHERE $path IS NULL") == [(6, 2)]
    assert rows("SELECT count(*), count(year) FROM s2") == [(6, 1)]


@pytest.mark.parametrize("undated_first", [0, 4])
def test_a_refresh_takes_all_out_of_partitions_once_no_record_is_dated(
    rows, items, write_items, tmp_path, paths, undated_first
):
    for item in items["features"][:undated_first]:
        item["properties"]["datetime"] = None
    path = write_items(items)
    build(rows, path)
    assert any(path.startswith("year=20") for path in paths())
    for item in items["features"]:
        item["properties"]["datetime"] = None
    write_items(items)
    refresh = "rasteret_refresh('s2')"
    assert build(rows, None, f"{refresh} WHERE $path IS NULL") == [(6, 1)]
    assert paths() == ["part-2.parquet"]
    assert n_read(tmp_path / "workspace/s2_stac") == (6, 6, 6)
    found = "SELECT count(*), count(DISTINCT id), count(year), any_value(typeof(year)) FROM s2"
    assert rows(found) == [(6, 6, 0, "BIGINT")]
    items["features"][0]["properties"]["datetime"] = "2024-05-06T00:00:00Z"
    write_items(items)
    assert build(rows, None, f"{refresh} WHERE $path IS NULL") == [(6, 2)]
    assert rows("SELECT count(*), count(year) FROM s2") == [(6, 1)]


def test_a_refresh_leaves_partitions_while_a_record_is_dated(rows, items, write_items, paths):
    for item in items["features"][:4]:
        item["properties"]["datetime"] = None
    path = write_items(items)
    build(rows, path)
    items["features"][4]["properties"]["datetime"] = None
    write_items(items)
    assert build(rows, None, "rasteret_refresh('s2') WHERE $path IS NULL")[0][0] == 6
    assert [path for path in paths() if path.startswith("year=20")]
    assert [path for path in paths() if path.startswith("year=__HIVE")]
    assert rows("SELECT count(*), count(datetime), count(year) FROM s2") == [(6, 1, 1)]
