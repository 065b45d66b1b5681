"""rasteret_build_stac over files, folders and APIs: areas, and STAC GeoParquet of every age."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import duckdb
import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from servers.emulators import S3Emulator, missing

import rasteret_sql


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


@pytest.fixture
def paths(items, scenes):
    """The items with absolute hrefs."""
    for item in items["features"]:
        for asset in item["assets"].values():
            asset["href"] = str((scenes / asset["href"]).resolve())
    return items


def build(rows, source, options="", name="s2"):
    rows(
        "FROM rasteret_build_stac($name, stac_api := $s, enrich := false, "
        f"{options} force := true)",
        {"name": name, "s": str(source)},
    )
    return rows(f'SELECT id, datetime, bbox, "proj:epsg", "eo:cloud_cover" FROM {name} ORDER BY id')


AREA = shapely.Polygon([(77.9, 12.9), (78.02, 12.9), (77.9, 13.15)])


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "area",
    [
        f"'{AREA.wkt}'",
        f"'{shapely.to_geojson(AREA)}'",
        f"from_hex('{AREA.wkb_hex}')",
        f"'{AREA.wkt}'::GEOMETRY",
    ],
    ids=["WKT", "GeoJSON", "WKB", "GEOMETRY"],
)
def test_intersects_keeps_the_items_whose_footprint_meets_it(rows, paths, write_items, area):
    whole = {i["id"]: json.dumps(i["geometry"]) for i in paths["features"]}
    far = paths["features"][0]
    far["geometry"] = shapely.geometry.mapping(shapely.Point(78.03, 13.03).buffer(0.001))
    del far["bbox"]
    found = build(rows, write_items(paths), f"intersects := {area},")
    near = {name for name, text in whole.items() if shapely.from_geojson(text).intersects(AREA)}
    wanted = near - {far["id"]}
    assert {row[0] for row in found} == wanted
    assert 0 < len(found) < 6


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("intersects := 'POLYGON((', ", "intersects: expected GeoJSON, WKT or WKB in degrees"),
        ("intersects := 'POINT EMPTY', ", "intersects: expected a geometry"),
        ("intersects := 'POINT(1 2)', bbox := [1, 2, 3, 4], ", "bbox or intersects"),
    ],
)
def test_a_bad_area_is_told_when_bound(rows, paths, write_items, options, words):
    with pytest.raises(duckdb.Error, match=words):
        rows(
            f"EXPLAIN FROM rasteret_build_stac('x', {options} stac_api := $s)",
            {"s": write_items(paths)},
        )


def by_rustac(folder, items):
    rustac = pytest.importorskip("rustac")

    async def write():
        await rustac.write(str(folder / "items.parquet"), items)

    asyncio.run(write())


def by_stac_geoparquet(version):
    def write(folder, items):
        arrow = pytest.importorskip("stac_geoparquet.arrow")
        path = str(folder / "items.parquet")
        arrow.to_parquet(
            arrow.parse_stac_items_to_arrow(items["features"]), path, schema_version=version
        )

    return write


def by_geopandas(folder, items):
    """stac-geoparquet 0.x, GeoParquet 0.4: bbox as a list, times as text, nothing of STAC."""
    rows = []
    for item in items["features"]:
        properties = {k: v for k, v in item["properties"].items() if v is not None}
        kept = {k: item[k] for k in ("id", "assets", "bbox", "stac_version") if k in item}
        geometry = shapely.to_wkb(shapely.from_geojson(json.dumps(item["geometry"])))
        rows.append(kept | properties | {"geometry": geometry})
    column = {"encoding": "WKB", "crs": "OGC:CRS84", "geometry_type": "Polygon"}
    geo = {"version": "0.4.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = pa.Table.from_pylist(rows)
    pq.write_table(
        table.replace_schema_metadata({"geo": json.dumps(geo)}), folder / "items.parquet"
    )


WRITERS = {
    "rustac": by_rustac,
    "stac-geoparquet 1.1": by_stac_geoparquet("1.1.0"),
    "stac-geoparquet 1.0": by_stac_geoparquet("1.0.0"),
    "stac-geoparquet 0.x": by_geopandas,
}


@pytest.mark.any_duckdb
@pytest.mark.parametrize("writer", WRITERS)
def test_stac_geoparquet_of_every_age_gives_the_items_back(
    rows, paths, write_items, server, tmp_path, writer
):
    wanted = build(rows, write_items(paths))
    WRITERS[writer](tmp_path, paths)
    found = build(rows, tmp_path / "items.parquet")
    assert [row[:2] + row[3:] for row in found] == [row[:2] + row[3:] for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert list(one[2].values()) == pytest.approx(list(other[2].values()))
    (server.folder / "items.parquet").write_bytes((tmp_path / "items.parquet").read_bytes())
    far = build(rows, server.url("scenes", "items.parquet"), "allow_local := true,")
    assert far == found
    table = rows(
        "FROM rasteret_build_table('as_table', $s, force := true)",
        {"s": str(tmp_path / "items.parquet")},
    )
    assert table[0][3:5] == (6, ["B04", "B08", "SCL"])
    query = 'SELECT id, datetime, bbox, "proj:epsg" FROM as_table ORDER BY id'
    assert [row[:2] for row in rows(query)] == [row[:2] for row in wanted]


@pytest.mark.any_duckdb
def test_a_folder_of_stac_geoparquet_in_a_cloud(con, rows, paths, write_items, tmp_path):
    if reason := missing("s3"):
        pytest.skip(reason)
    wanted = build(rows, write_items(paths))
    by_geopandas(tmp_path, paths)
    whole = pq.read_table(tmp_path / "items.parquet")
    with S3Emulator() as s3:
        keys = {"access_key_id": "me", "secret_access_key": "mine"}
        rasteret_sql.storage(con, "s3://lake/", endpoint=s3.origin, credentials=keys)
        for number in range(2):
            pq.write_table(whole.slice(3 * number, 3), tmp_path / "part.parquet")
            data = (tmp_path / "part.parquet").read_bytes()
            s3.put("lake", f"items/year={number}/part.parquet", data)
        found = build(rows, "s3://lake/items/", "allow_local := true,")
    assert [row[:2] for row in found] == [row[:2] for row in wanted]


@pytest.mark.any_duckdb
def test_assets_of_which_none_is_a_raster_are_kept_without_a_request(
    con, rows, items, write_items, server
):
    for item in items["features"]:
        item["assets"] = {
            "doc": {"href": server.url("scenes", "none.json"), "type": "application/json"}
        }
    path = write_items(items)
    server.reset()
    report = con.execute("FROM rasteret_build_stac('docs', stac_api := $1)", [path]).fetchall()[0]
    assert report[3:8] == (6, ["doc"], 0, 0, 0)
    assert server.requests() == []
    assert rows("SELECT DISTINCT assets.doc.href FROM docs") == [
        (server.url("scenes", "none.json"),)
    ]
    assert "none is a TIFF" in rows("SELECT error FROM rasteret_errors('docs')")[0][0]
    again = rows("SELECT records, assets, requests FROM rasteret_refresh('docs')")
    assert again == [(6, 0, 0)]
    with pytest.raises(Exception, match="doc"):
        con.execute("FROM rasteret_pixels('docs', bands := ['doc'])").fetchall()


@pytest.mark.any_duckdb
def test_ids_that_are_not_found_are_told(rows, served_items):
    path = served_items()
    known = json.loads(Path(path).read_text())["features"][0]["id"]
    query = "SELECT records FROM rasteret_build_stac('s', $p, ids := $ids, enrich := false)"
    assert rows(query, {"p": path, "ids": [known, "nowhere"]}) == [(1,)]
    assert ("ids: nowhere: not found",) in rows("SELECT error FROM rasteret_errors('s')")


@pytest.mark.parametrize("name", ["text", "name", "sql"])
def test_a_source_is_never_a_python_variable_of_ours(con, rows, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a folder of the name would be the source
    query = f"FROM rasteret_build_table('t', '{name}', href_column := 'url')"
    with pytest.raises(duckdb.Error) as raised:
        rows(query)
    assert "Python Object" not in str(raised.value)
    con.register(name, pa.table({"id": ["a"], "url": ["s3://b/a.tif"]}))
    assert len(rows(query)) == 1


def test_a_geoparquet_file_is_a_table(rows, tmp_path, monkeypatch):
    path = tmp_path / "scenes.geoparquet"
    geopandas.GeoDataFrame(
        {"id": ["a"], "url": ["s3://b/a.tif"]}, geometry=[shapely.box(1, 2, 3, 4)], crs=4326
    ).to_parquet(path)
    query = "SELECT records FROM rasteret_build_table($n, $s, href_column := 'url')"
    assert rows(query, {"n": "one", "s": str(path)}) == [(1,)]
    monkeypatch.chdir(tmp_path)
    assert rows(query, {"n": "two", "s": path.name}) == [(1,)]
    assert rows("SELECT bbox.xmax FROM two") == [(3.0,)]


TYPED = {
    "decimal": pa.array(["1.10", None], pa.string()).cast(pa.decimal128(9, 2)),
    "day": pa.array([19000, None], pa.date32()),
    "at": pa.array([1_700_000_000_123_456, None], pa.timestamp("us", "UTC")),
    "clock": pa.array([3_600_000_001, None], pa.time64("us")),
    "large": pa.array([2**64 - 1, None], pa.uint64()),
    "small": pa.array([7, None], pa.int16()),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())),
    "bytes": pa.array([b"\x00\xff", None], pa.binary()),
    "nested": pa.array([{"x": [b"1"]}, None], pa.struct([("x", pa.list_(pa.binary()))])),
    "nothing": pa.nulls(2, pa.float32()),
    "text": pa.array(["a", None]),
}


def test_columns_of_stac_geoparquet_keep_their_types(rows, tmp_path):
    table = pa.table(
        {
            "id": ["a", "b"],
            "datetime": pa.array([0, 1], pa.timestamp("ms", "UTC")),
            "geometry": [shapely.Point(1, 2).wkb] * 2,
            "assets": [{"B04": {"href": "s3://b/a.tif", "type": "image/tiff"}}] * 2,
            **TYPED,
        }
    )
    path = tmp_path / "typed.parquet"
    pq.write_table(table, path)
    report = rows(
        "SELECT path FROM rasteret_build_stac('s', $p, enrich := false)", {"p": str(path)}
    )
    (part,) = Path(report[0][0]).resolve().rglob("*.parquet")
    stored = pq.ParquetFile(part).read().sort_by("id")
    for name, column in TYPED.items():
        assert stored.schema.field(name).type == column.type, name
        assert stored[name].to_pylist() == column.to_pylist(), name
