"""Parquet in clouds and on web servers: read by ranges, with our own credentials."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from servers.emulators import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    AzureEmulator,
    GoogleEmulator,
    S3Emulator,
    missing,
)

import rasteret_sql
from rasteret_sql.collections.layout import write_collection
from rasteret_sql.collections.parquet_source import ParquetSource
from rasteret_sql.schema import BBOX, DATETIME, GEOMETRY, ID, assets_type
from rasteret_sql.units import BBox

N_RECORDS = 3000


@pytest.fixture(autouse=True)
def own_storage(monkeypatch, tmp_path):
    """No credentials of the machine's user, and none of another test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A collection of records along the equator, a tile and a year per folder."""
    number = np.arange(N_RECORDS)
    west = number * 0.1 - 150
    box = [west, np.zeros(N_RECORDS), west + 0.1, np.ones(N_RECORDS)]
    columns = [("tile", pa.string()), ("cloud", pa.float64()), ("filler", pa.binary())]
    assets = pa.field("assets", assets_type(["B04"]))
    schema = pa.schema([ID, DATETIME, GEOMETRY, pa.field("bbox", BBOX), assets, *columns])
    href = pa.array([f"s3://b/{i}.tif" for i in number])
    asset = pa.StructArray.from_arrays(
        [href, pa.nulls(N_RECORDS, pa.int32())], ["href", "band_index"]
    )
    micros = pa.array(number % 720 * 86_400_000_000 + 1_672_531_200_000_000)
    rows = pa.record_batch(
        [
            pa.array([f"r{i}" for i in number]),
            micros.cast(pa.timestamp("us")),
            pa.nulls(N_RECORDS, pa.binary()),
            pa.StructArray.from_arrays([pa.array(side) for side in box], fields=list(BBOX)),
            pa.StructArray.from_arrays([asset], ["B04"]),
            pa.array([None if i % 3 == 0 else f"00{i % 3}" for i in number]),
            pa.array(number / N_RECORDS * 100),
            pa.array([os.urandom(400) for _ in number]),
        ],
        schema=schema,
    )
    folder = tmp_path_factory.mktemp("exported")
    write_collection(
        schema,
        iter([rows]),
        folder,
        info={"name": "far"},
        partition_by=["tile", "year"],
        row_group_bytes=20_000,
    )
    return folder


def files_of(folder: Path):
    for path in sorted(folder.rglob("*.parquet")):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


@pytest.fixture(scope="module")
def s3(exported):
    if reason := missing("s3"):
        pytest.skip(reason)
    with S3Emulator() as emulator:
        for key, data in files_of(exported):
            emulator.put("lake", f"deep/far/{key}", data)
            emulator.put("lake", f"deep/far_too/{key}", b"no Parquet")
        yield emulator


@pytest.fixture(scope="module")
def azure(exported):
    if reason := missing("az"):
        pytest.skip(reason)
    with AzureEmulator() as emulator:
        emulator.create("lake", public=False)
        for key, data in files_of(exported):
            emulator.put("lake", f"deep/far/{key}", data)
        yield emulator


@pytest.fixture(scope="module")
def google(exported):
    if reason := missing("gs"):
        pytest.skip(reason)
    with GoogleEmulator() as emulator:
        emulator.create("lake")
        for key, data in files_of(exported):
            emulator.put("lake", f"deep/far/{key}", data)
        yield emulator


KEYS = {"access_key_id": "me", "secret_access_key": "mine"}
CLOUDS = ["s3", *(pytest.param(name, marks=pytest.mark.any_duckdb) for name in ("azure", "google"))]


@pytest.fixture
def cloud(request, con):
    """The folder's URL in one of the clouds, reachable."""
    emulator = request.getfixturevalue(request.param)
    if request.param == "s3":
        rasteret_sql.storage(con, "s3://lake/", endpoint=emulator.origin, credentials=KEYS)
        return "s3://lake/deep/far"
    if request.param == "azure":
        key = {"account_key": AZURE_KEY}
        rasteret_sql.storage(
            con, "az://lake/", account=AZURE_ACCOUNT, endpoint=emulator.endpoint, credentials=key
        )
        return "az://lake/deep/far/"
    rasteret_sql.storage(con, "gs://lake/", endpoint=emulator.origin, anonymous=True)
    return "gs://lake/deep/far"


FACTS = (
    "count(*), count(DISTINCT id), min(datetime), max(cloud), sum(year), count(tile), "
    "list_sort(list(DISTINCT tile)), typeof(any_value(tile)), typeof(any_value(year)), "
    "typeof(any_value(geometry)), sum(bbox.xmin)::BIGINT, count(assets.B04.href)"
)


@pytest.mark.parametrize("cloud", CLOUDS, indirect=True)
def test_a_folder_in_a_cloud_is_what_it_is_on_disk(rows, cloud, exported):
    here = rows(f"SELECT {FACTS} FROM rasteret_records('{exported}')")
    assert rows(f"SELECT {FACTS} FROM rasteret_records('{cloud}')") == here
    assert here[0][0] == N_RECORDS
    assert here[0][6] == ["001", "002", None]
    where = "WHERE tile = '001' AND year = 2023 AND cloud < 50 AND datetime >= '2023-06-01'"
    query = "SELECT id, datetime, bbox FROM rasteret_records('{}') {} ORDER BY id"
    some = rows(query.format(cloud, where))
    assert some == rows(query.format(exported, where))
    assert 0 < len(some) < N_RECORDS / 6
    assert rows(f"SELECT id FROM rasteret_records('{cloud}') LIMIT 0") == []


@pytest.mark.any_duckdb
@pytest.mark.parametrize("cloud", CLOUDS, indirect=True)
def test_a_table_is_built_from_a_folder_in_a_cloud(rows, cloud):
    report = rows(
        "FROM rasteret_build_table('far', $source, \"where\" := 'cloud >= 90', "
        "columns := ['tile', 'cloud'])",
        {"source": cloud},
    )[0]
    assert report[3:5] == (N_RECORDS // 10, ["B04"])
    assert rows("SELECT min(cloud) >= 90, count(tile), count(*) FROM far") == [(True, 200, 300)]
    with pytest.raises(duckdb.BinderException):
        rows("SELECT filler FROM far")


@pytest.mark.parametrize("cloud", ["s3"], indirect=True)
def test_a_view_over_a_remote_collection_is_one_like_others(rows, con, cloud):
    described = rows("FROM rasteret_load('far', $path)", {"path": cloud})[0]
    assert described[:2] == ("far", N_RECORDS)
    assert rows("SELECT count(*) FROM far WHERE year = 2024") == rows(
        "SELECT count(*) FROM rasteret_records('SELECT * FROM far WHERE year = 2024')"
    )
    assert con.cursor().sql("SELECT count(*) FROM far").fetchall() == [(N_RECORDS,)]
    rows("FROM rasteret_load('far', $path)", {"path": cloud})
    with pytest.raises(duckdb.Error, match=r"force: expected true or false, got 'false'"):
        rows("FROM rasteret_load('far', $path, force := 'false')", {"path": cloud})


@pytest.mark.any_duckdb
def test_keys_decide_who_reads_and_no_secret_is_told(con, rows, s3):
    with s3.checked() as (key, secret):
        wrong = {"access_key_id": key, "secret_access_key": "wrong-SECRET"}
        rasteret_sql.storage(con, "s3://lake/", endpoint=s3.origin, credentials=wrong, retries=0)
        with pytest.raises(duckdb.Error, match=r"s3://lake/deep/far.*403.*credentials") as caught:
            rows("FROM rasteret_records('s3://lake/deep/far')")
        assert "SECRET" not in str(caught.value)
        right = {"access_key_id": key, "secret_access_key": secret}
        rasteret_sql.storage(con, "s3://lake/", endpoint=s3.origin, credentials=right)
        assert rows("SELECT count(*) FROM rasteret_records('s3://lake/deep/far')") == [(N_RECORDS,)]


def test_what_is_no_collection_is_told_in_one_line(con, rows, s3, server):
    rasteret_sql.storage(con, "s3://lake/", endpoint=s3.origin, credentials=KEYS, retries=0)
    (server.folder / "page.parquet").write_bytes(b"<html>" * 100)
    for source, words in {
        "s3://lake/deep/none": "s3://lake/deep/none: expected Parquet files, got 'none'",
        "s3://lake/deep/none.parquet": "HTTP 404",
        "s3://lake/deep/far_too": "expected a Parquet file",
        server.url("scenes", "none.parquet"): "HTTP 404",
        server.url("scenes", "page.parquet"): "expected a Parquet file",
        server.url("scenes", "folder"): "a web server lists none",
    }.items():
        with pytest.raises(duckdb.Error) as caught:
            rows("FROM rasteret_build_table('x', $source)", {"source": source})
        assert words in str(caught.value)


@pytest.fixture
def one_file(server, tmp_path):
    """All records in one file on the web server, small row groups, sorted by place."""

    def make(folder):
        table = pa.concat_tables(pq.read_table(path) for path in folder.rglob("*.parquet"))
        table = table.sort_by([("cloud", "ascending")])
        schema = pq.read_schema(next(folder.rglob("*.parquet")))
        path = server.folder / "far.parquet"
        pq.write_table(table.cast(schema), path, row_group_size=100)
        return server.url("scenes", "far.parquet"), path.stat().st_size

    return make


def fetched(server):
    """Bytes asked for below the end of the file, and the number of requests."""
    spans = [
        one["range"].removeprefix("bytes=").split("-") for one in server.requests() if one["range"]
    ]
    return sum(int(stop) - int(start) + 1 for start, stop in spans), len(server.requests())


def test_only_the_ranges_that_are_needed_are_fetched(rows, server, one_file, exported):
    url, size = one_file(exported)
    first = f"SELECT count(*) FROM rasteret_records('{url}')"
    assert rows(first) == [(N_RECORDS,)]
    server.reset()
    assert rows(f"SELECT sum(cloud) > 0 FROM rasteret_records('{url}')") == [(True,)]
    assert fetched(server)[0] < size / 10  # one column
    server.reset()
    assert rows(f"SELECT count(filler) FROM rasteret_records('{url}') WHERE cloud < 3") == [(90,)]
    n_bytes, n_requests = fetched(server)
    assert n_bytes < size / 10  # one row group
    assert n_requests <= 5
    server.reset()
    assert len(rows(f"SELECT filler FROM rasteret_records('{url}') LIMIT 5")) == 5
    assert fetched(server)[0] < size / 4


@pytest.mark.any_duckdb
def test_row_groups_elsewhere_are_not_read_for_an_area(server, one_file, exported):
    url, size = one_file(exported)
    source = ParquetSource(url)
    server.reset()
    box = BBox(10.01, 0.2, 10.04, 0.3)
    found = list(source.batches(["id", "bbox", "filler"], None, [box]))
    ids = {name for batch in found for name in batch.column("id").to_pylist()}
    assert "r1600" in ids
    assert len(ids) <= 200
    assert fetched(server)[0] < size / 10
    keep = pc.field("bbox", "xmin") > 1000
    assert list(source.batches(["bbox"], keep, [box])) == []


@pytest.mark.any_duckdb
def test_a_short_body_and_a_busy_server_do_not_end_the_read(rows, server, one_file, exported):
    one_file(exported)
    for fault in ("short_once", "503/1"):
        server.reset()
        url = server.url("scenes", "far.parquet", fault=fault)
        assert rows(f"SELECT count(filler) FROM rasteret_records('{url}')") == [(N_RECORDS,)]


@pytest.mark.any_duckdb
def test_a_file_that_changed_is_read_anew(rows, server, one_file, exported):
    url, _ = one_file(exported)
    query = f"SELECT count(*) FROM rasteret_records('{url}')"
    assert rows(query) == [(N_RECORDS,)]
    path = server.folder / "far.parquet"
    pq.write_table(pq.read_table(path).slice(0, 7), path)
    assert rows(query) == [(7,)]


@pytest.mark.any_duckdb
def test_a_remote_table_names_no_local_files_unless_allowed(rows, server, scenes):
    path = str(next(scenes.glob("*/B04.tif")))
    table = pa.table({"id": ["a"], "url": [path], "datetime": ["2024-05-01"]})
    pq.write_table(table, server.folder / "local.parquet")
    build = (
        "SELECT enriched FROM rasteret_build_table('t', $source, href_column := 'url', "
        "bands := ['B04'], enrich := true, force := true{})"
    )
    source = {"source": server.url("scenes", "local.parquet")}
    assert rows(build.format(""), source) == [(0,)]
    told = rows("SELECT error FROM rasteret_errors('t') WHERE band = 'B04'")
    assert "expected a remote file" in told[0][0]
    assert rows(build.format(", allow_local := true"), source) == [(1,)]


@pytest.mark.any_duckdb
def test_pixels_of_a_remote_collection_are_those_of_the_local_one(rows, con, scenes, server):
    rows("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": f"{scenes}/items.json"})
    target = server.folder / "s2"
    rows("FROM rasteret_export('s2', $t, partition_by := [], force := true)", {"t": str(target)})
    url = server.url("scenes", "s2/part-0.parquet")
    rows("FROM rasteret_load('far', $u)", {"u": url})
    area = "bbox := [77.97, 13.0, 77.98, 13.01], date_range := ['2024-02-01', NULL]"
    query = "SELECT id, row, col, B04 FROM rasteret_pixels('{}', bands := ['B04'], {}) ORDER BY ALL"
    wanted = rows(query.format("s2", area))
    assert wanted
    for source in (url, "far", "SELECT * FROM far WHERE id <> ''x''"):
        assert rows(query.format(source, area)) == wanted
    assert rows("SELECT bands, records FROM rasteret_describe('far')") == [
        (["B04", "B08", "SCL"], 6)
    ]
    assert rows(query.format(url, "bbox := [0, 0, 1, 1]")) == []


@pytest.mark.any_duckdb
def test_a_plan_of_records_that_have_no_tile_in_the_area_is_empty(rows, scenes):
    rows("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": f"{scenes}/items.json"})
    everywhere = "{''xmin'': -180.0, ''ymin'': -90.0, ''xmax'': 180.0, ''ymax'': 90.0}"
    source = f"SELECT * REPLACE ({everywhere} AS bbox) FROM s2"
    assert rows(f"FROM rasteret_plan('{source}', bbox := [70, 10, 70.1, 10.1])") == []
