"""Faults are found where they are put, one by one, and a sound collection has none."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from cursors import cursor_of

import rasteret_sql

COLUMNS = 'id, datetime, geometry, bbox, assets, collection, "proj:epsg", crs, year, month'


@pytest.fixture
def built(rows, served_items):
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": served_items()})


@pytest.fixture
def faults(rows):
    return faults_by(rows)


def faults_by(rows):
    """Faults of a collection argument, as (column, band, fault), and ids."""

    def run(collection="s2", options=""):
        query = f"FROM rasteret_validate($c{options})"
        return rows(query, {"c": collection})

    return run


@pytest.fixture(scope="module")
def sound(scenes, tmp_path_factory):
    """A connection with the collection s2, for tests that change no file of it."""
    with rasteret_sql.connect(workspace=tmp_path_factory.mktemp("sound")) as con:
        items = str(scenes / "items.json")
        con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [items]).fetchall()
        yield con


@pytest.fixture
def sound_rows(sound):
    with cursor_of(sound) as cursor:
        yield lambda query, parameters=None: cursor.execute(query, parameters).fetchall()


@pytest.fixture
def sound_faults(sound_rows):
    return faults_by(sound_rows)


def replaced(column, value, where="true"):
    """A query over s2 with one value changed."""
    changed = f'CASE WHEN {where} THEN {value} ELSE "{column}" END'
    return f'SELECT * REPLACE ({changed} AS "{column}") FROM s2'


def test_a_sound_collection_has_no_faults(built, faults, rows, tmp_path):
    folder = str(tmp_path / "workspace" / "s2_stac")
    file = str(next(Path(folder).rglob("*.parquet")))
    rows("CREATE TABLE kept AS FROM s2")
    rows("CREATE VIEW seen AS SELECT * FROM s2 WHERE month = 1")
    for collection in ("s2", folder, "kept", "seen", "SELECT * FROM s2 LIMIT 1", "memory.main.s2"):
        assert faults(collection) == [], collection
    assert faults("s2", ", check_remote := true") == []
    assert faults(file) == []


FIRST = "id = (SELECT min(id) FROM s2)"


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("column", "value", "at", "fault"),
    [
        ("datetime", "NULL", "datetime", "is NULL"),
        ("datetime", "'infinity'", "datetime", "is beyond the years 1 to 9999"),
        ("year", "1999", "year", "partition year=1999, but datetime is 2024-"),
        ("month", "NULL", "month", "partition month=None, but datetime is 2024-"),
        ("bbox", "NULL", "bbox", "is NULL"),
        (
            "bbox",
            "{'xmin': bbox.xmin + 0.01, 'ymin': bbox.ymin, 'xmax': bbox.xmax, 'ymax': bbox.ymax}",
            "bbox",
            "stands out of the bbox",
        ),
        (
            "bbox",
            "{'xmin': 0.0, 'ymin': 2.0, 'xmax': 1.0, 'ymax': 1.0}",
            "bbox",
            "ymin is greater than ymax",
        ),
        (
            "bbox",
            "{'xmin': 500000.0, 'ymin': 1.0, 'xmax': 500001.0, 'ymax': 2.0}",
            "bbox",
            "is not in degrees",
        ),
        (
            "bbox",
            "{'xmin': 'NaN'::DOUBLE, 'ymin': 1.0, 'xmax': 1.0, 'ymax': 2.0}",
            "bbox",
            "NULL or not finite",
        ),
        ("proj:epsg", "4326", "crs", "is not proj:epsg 4326"),
        ("crs", "'no such CRS'", "crs", "is no CRS that PROJ knows"),
        ("crs", "NULL", "crs", "is NULL, but proj:epsg is 3264"),
        ("id", "''", "id", "is NULL or empty (datetime 2024-"),
        ("id", "NULL", "id", "is NULL or empty (datetime 2024-"),
        ("B04_metadata", "NULL", "B04_metadata", "is NULL, but there is a file"),
    ],
)
def test_a_wrong_value_is_told(sound_faults, sound_rows, column, value, at, fault):
    first = sound_rows("SELECT min(id) FROM s2")[0][0]
    found = sound_faults(replaced(column, value, f"id = '{first}'"))
    assert any(one[1] == at and fault in one[3] for one in found), found
    expected = {first} if column != "id" else {None, ""}
    assert {one[0] for one in found} <= expected


def metadata(change, band="B04"):
    name = f"{band}_metadata"
    return replaced(name, f"struct_update({name}, {change.replace('M.', name + '.')})")


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("tile_offsets := M.tile_offsets[:-2]", r"16 tiles, but 15 tile_offsets"),
        ("tile_byte_counts := M.tile_byte_counts[:-2]", "but 15 tile_byte_counts"),
        (
            "tile_offsets := list_transform(M.tile_offsets, lambda o: -o)",
            r"tile 0: offset -\d+, \d+ bytes",
        ),
        (
            (
                "tile_byte_counts := list_transform(M.tile_byte_counts, "
                "lambda n, i: CASE i WHEN 3 THEN 99000000 ELSE n END)"
            ),
            r"tile 2: bytes \d+-\d+ are beyond the file of \d+",
        ),
        ("file_size := 1000::BIGINT", "tile 0: bytes .* beyond the file of 1000"),
        ("image_width := 0", "size of image or tiles is NULL or not above 0"),
        ("tile_width := NULL::INTEGER", "size of image or tiles is NULL or not above 0"),
        (
            "transform := NULL::DOUBLE[], affine := NULL::DOUBLE[]",
            "has no transform, but the record has a CRS",
        ),
        ("transform := [1.0, 2.0]", "transform has 2 numbers, not 4"),
        ("dtype := 'float17'", "dtype 'float17' is none of NumPy"),
        (
            "overviews := [struct_update(M.overviews[2], tile_offsets := [-5]::BIGINT[])]",
            r"overviews: tile 0: offset -5, \d+ bytes",
        ),
    ],
)
def test_a_wrong_header_is_told(sound_faults, change, fault):
    found = sound_faults(metadata(change))
    assert {one[1:3] for one in found} == {("B04_metadata", "B04")}
    assert len({one[0] for one in found}) == 6
    assert any(re.search(fault, one[3]) for one in found), found[:3]


@pytest.mark.any_duckdb
def test_ids_that_come_twice_are_told_once(sound_faults, sound_rows):
    first = sound_rows("SELECT min(id) FROM s2")[0][0]
    query = f"FROM s2 UNION ALL BY NAME SELECT * FROM s2 WHERE id = '{first}'"
    assert sound_faults(query) == [(first, "id", None, "2 records have this id")]


@pytest.mark.any_duckdb
def test_columns_that_are_missing_or_of_another_type_are_told(sound_faults):
    found = sound_faults("SELECT * EXCLUDE (bbox, B04_metadata) REPLACE (id::BLOB AS id) FROM s2")
    assert {(one[1], one[3][:12]) for one in found} == {
        ("bbox", "is missing"),
        ("B04_metadata", "is missing"),
        ("id", "expected VAR"),
    }
    assert sound_faults("SELECT 1 AS a")[0][:2] == (None, "id")
    found = sound_faults(
        "SELECT * EXCLUDE (B04_metadata) FROM s2", ", require_band_metadata := false"
    )
    assert found == []


@pytest.mark.any_duckdb
def test_assets_without_files_are_told(sound_faults):
    found = sound_faults(replaced("assets", "NULL"))
    assert {one[3] for one in found} == {"has no file"}
    no_href = "struct_update(assets, B04 := {'href': NULL::VARCHAR, 'band_index': 0::INTEGER})"
    found = sound_faults(replaced("assets", no_href))
    assert {one[1:4] for one in found} == {("assets", "B04", "has no href")}


@pytest.mark.any_duckdb
def test_geometries_that_are_invalid_are_told(sound_faults, sound_rows):
    bow = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)])
    boxes = "SELECT * EXCLUDE (geometry), $${}$$::BLOB AS geometry FROM s2 LIMIT 1"
    for wkb, fault in ((bow.wkb, "is invalid: 'Self-intersection"), (b"no", "is no WKB")):
        text = "".join(f"\\x{byte:02X}" for byte in wkb)
        found = sound_faults(boxes.format(text))
        assert [one[1] for one in found] == ["geometry"]
        assert fault in found[0][3]


@pytest.mark.any_duckdb
def test_a_record_needs_a_footprint_or_a_bbox(sound_faults):
    assert sound_faults("SELECT * REPLACE (NULL::BLOB AS geometry) FROM s2") == []
    found = sound_faults("SELECT * REPLACE (NULL::BLOB AS geometry, NULL AS bbox) FROM s2 LIMIT 1")
    assert [one[1:] for one in found if one[0] is not None] == [
        ("geometry", None, "is NULL, and so is the bbox")
    ]


def test_files_that_changed_or_went_are_told(rows, items, write_items, server, scenes, faults):
    folder = server.folder / "validated"
    shutil.copytree(scenes, folder, dirs_exist_ok=True)
    for item in items["features"]:
        for band, asset in item["assets"].items():
            asset["href"] = server.url("scenes", f"validated/{item['id']}/{band}.tif")
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": write_items(items)})
    first, second = (item["id"] for item in items["features"][:2])
    changed = folder / first / "B04.tif"
    changed.write_bytes(changed.read_bytes() + b"\0")
    (folder / second / "SCL.tif").unlink()
    server.reset()
    assert faults() == []
    assert server.requests() == []
    found = sorted(faults("s2", ", check_remote := true"))
    assert len(found) == 2
    assert {one[:3] for one in found} == {(first, "assets", "B04"), (second, "assets", "SCL")}
    texts = {one[0]: one[3] for one in found}
    assert texts[first].startswith("stale: size ")
    assert texts[second].startswith("gone: ")
    assert "404" in texts[second]
    asked = [(one["method"], one["path"].split("/", 3)[3]) for one in server.requests()]
    # a file that is gone is asked for once more, as some servers refuse HEAD alone
    assert {path for method, path in asked if method == "GET"} == {f"{second}/SCL.tif"}
    server.reset()
    twice = "FROM s2 UNION ALL BY NAME SELECT * REPLACE (id || 'x' AS id) FROM s2"
    assert len(faults(twice, ", check_remote := true")) == 4
    assert len(server.requests()) == len(asked)


def broken(path, how):
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "middle":
        path.write_bytes(data[: len(data) // 4] + data[len(data) // 2 :])
    elif how == "zeros":
        start = len(data) // 5
        path.write_bytes(data[:start] + bytes(2000) + data[start + 2000 :])


@pytest.mark.any_duckdb
@pytest.mark.parametrize("how", ["cut", "empty", "middle", "zeros"])
def test_part_files_that_are_damaged_are_told(built, faults, tmp_path, how):
    folder = tmp_path / "workspace" / "s2_stac"
    path = min(folder.rglob("*.parquet"))
    broken(path, how)
    found = faults()
    assert len(found) >= 1
    assert {one[0] for one in found} == {None}
    expected = "the rows can't be read" if how == "zeros" else str(path.relative_to(folder))
    assert any(expected in one[3] for one in found), found


@pytest.mark.any_duckdb
def test_the_sound_files_beside_damaged_ones_are_read_on(built, faults, rows, tmp_path):
    folder = tmp_path / "workspace" / "s2_stac"
    paths = sorted(folder.rglob("*.parquet"))
    broken(paths[0], "cut")
    table = pq.read_table(paths[1], partitioning=None)
    place = table.schema.get_field_index("datetime")
    nulls = pa.nulls(table.num_rows, table.schema.field("datetime").type)
    table = table.set_column(place, table.schema.field("datetime"), nulls)
    paths[1].unlink()
    pq.write_table(table, paths[1])
    found = faults(str(folder))
    assert [one[1] for one in found].count("datetime") == 2
    assert any(str(paths[0].relative_to(folder)) in one[3] for one in found)


@pytest.mark.any_duckdb
def test_a_unknown_name_lists_the_known_ones(sound_faults):
    with pytest.raises(duckdb.Error, match=r"rasteret_validate: collection: .*s2"):
        sound_faults("s9")
    with pytest.raises(duckdb.Error, match="max_concurrent: expected 1 or more"):
        sound_faults("s2", ", max_concurrent := 0")


@pytest.mark.any_duckdb
def test_a_large_collection_is_read_in_batches(sound_rows):
    sound_rows("CREATE TABLE many AS SELECT s2.* REPLACE (id || i AS id) FROM s2, range(500) t(i)")
    assert sound_rows("SELECT count(*) FROM rasteret_validate('many')") == [(0,)]


@pytest.mark.any_duckdb
def test_rasterets_own_export_without_our_fields_is_sound(sound_faults, sound_rows):
    struct = (
        "struct_pack(image_width := B04_metadata.image_width, "
        "image_height := B04_metadata.image_height, tile_width := B04_metadata.tile_width, "
        "tile_height := B04_metadata.tile_height, dtype := B04_metadata.dtype, "
        "transform := B04_metadata.transform, tile_offsets := B04_metadata.tile_offsets, "
        "tile_byte_counts := B04_metadata.tile_byte_counts)"
    )
    query = (
        (
            f"SELECT {COLUMNS.replace('crs, ', '').replace('assets', '{{0}} AS assets')}, "
            f"{struct} AS B04_metadata FROM s2"
        )
        .replace("{0}", "{'B04': assets.B04}")
        .replace("{{'B04': assets.B04}}", "{'B04': assets.B04}")
    )
    assert sound_faults(query) == []


@pytest.fixture
def registered(rows, scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("RASTERET_DATASETS", str(tmp_path / "sets.json"))
    rows(
        "FROM rasteret_register_dataset('mine/s2', name := 'Mine', stac_api := $p, "
        "stac_collection := 'sentinel-2-l2a', band_map := MAP {'red': 'B04', 'nir': 'B08'}, "
        "start_date := DATE '2024-02-01', spatial_coverage := 'Global', license := 'CC0')",
        {"p": str(scenes / "items.json")},
    )


def test_the_data_set_is_put_beside_the_collection(rows, registered):
    rows("FROM rasteret_build('mine/s2', bands := ['red'])")
    found = {row[0]: row[1:] for row in rows("FROM rasteret_compare_to_catalog('mine_s2')")}
    assert found["data_source"] == ("mine/s2", "mine/s2", True)
    assert found["bands"] == ("red, nir", "red", True)
    assert found["band_map"] == ('{"nir": "B08", "red": "B04"}', '{"red": "B04"}', True)
    assert found["stac_collection"] == ("sentinel-2-l2a", "sentinel-2-l2a", True)
    assert found["start_date"] == ("2024-02-01", "2024-01-10", False)
    assert found["end_date"] == (None, "2024-03-10", None)
    assert found["license"] == ("CC0", None, None)
    assert found["spatial_coverage"][2] is True
    assert found["epsg"] == (None, "32643, 32644", None)
    assert found["stac_api"][2] is True
    assert rows("SELECT typeof(agrees) FROM rasteret_compare_to_catalog('mine_s2') LIMIT 1") == [
        ("BOOLEAN",)
    ]


@pytest.mark.any_duckdb
def test_a_collection_finds_its_data_set_or_says_which_there_are(rows, registered, scenes):
    items = str(scenes / "items.json")
    rows(
        "FROM rasteret_build_stac('own', stac_api := $p, collection := 'sentinel-2-l2a', "
        "band_map := MAP {'red': 'B08'})",
        {"p": items},
    )
    found = {row[0]: row[1:] for row in rows("FROM rasteret_compare_to_catalog('own')")}
    assert found["band_map"][2] is False
    assert found["data_source"] == ("mine/s2", "sentinel-2-l2a", False)
    rows("CREATE TABLE copied AS FROM own")
    with pytest.raises(
        duckdb.Error,
        match=r"collection: expected a collection of .*dataset_id := \(one of .*mine/s2",
    ):
        rows("FROM rasteret_compare_to_catalog('copied')")
    found = rows(
        "SELECT catalog FROM rasteret_compare_to_catalog('copied', dataset_id := 'mine/s2') "
        "WHERE fact = 'name'"
    )
    assert found == [("Mine",)]
    with pytest.raises(duckdb.Error, match="dataset_id: expected a known data set"):
        rows("FROM rasteret_compare_to_catalog('copied', dataset_id := 'mine/s3')")
