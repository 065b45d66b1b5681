"""Data sets by name: which there are, building from them, registering them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date

import duckdb
import pyarrow.parquet as pq
import pytest

import rasteret_sql
from rasteret_sql import errors
from rasteret_sql.datasets import registry as catalog
from rasteret_sql.datasets.dataset import Dataset
from rasteret_sql.duck.connection import instance_of
from rasteret_sql.remote.stores import Stores

BUILT_IN = [one for one in catalog.datasets().values() if one.source == "built-in"]
REGISTER = (
    "FROM rasteret_register_dataset('mine/s2', stac_api := $items, "
    "band_map := MAP {'red': 'B04', 'nir': 'B08'})"
)


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    """A file for this test's data sets."""
    path = tmp_path / "own" / "datasets.json"
    monkeypatch.setenv("RASTERET_DATASETS", str(path))
    return path


@pytest.fixture
def registered(rows, scenes):
    """The demo's scenes as mine/s2."""
    return rows(REGISTER, {"items": str(scenes / "items.json")})


@pytest.mark.any_duckdb
@pytest.mark.parametrize("one", BUILT_IN, ids=lambda one: one.id)
def test_a_built_in_data_set_has_what_it_needs(one):
    assert one.name
    assert one.description
    assert one.license
    assert one.license_url.startswith("https://")
    assert one.spatial_coverage
    assert date(1972, 7, 23) <= one.start_date <= (one.end_date or date.today())
    assert one.bands
    places = [(key, one.band_index_map.get(band, 0)) for band, key in one.band_map.items()]
    places = places or list(one.band_index_map.values())
    assert len(set(places)) == len(one.bands)
    assert len({band.casefold() for band in one.bands}) == len(one.bands)
    if one.stac_api:
        assert one.stac_api.startswith("https://")
        assert one.stac_collection
        assert set(one.band_index_map) <= set(one.band_map)
    else:
        assert one.record_table.startswith("https://")
        assert one.href_column


@pytest.mark.any_duckdb
def test_the_ids_are_rasteret_s():
    earthsearch = ("sentinel-2-l2a", "landsat-c2-l2", "naip", "cop-dem-glo-30", "cop-dem-glo-90")
    pc = "sentinel-2-l2a", "io-lulc-annual-v02", "alos-dem", "nasadem", "esa-worldcover", "usda-cdl"
    expected = {f"earthsearch/{name}" for name in earthsearch} | {f"pc/{name}" for name in pc}
    assert {one.id for one in BUILT_IN} == expected | {"aef/v1-annual"}


def test_a_registered_data_set_is_listed_and_built(rows, registered, tmp_path):
    assert [(row[0], row[3], row[-1]) for row in registered] == [
        ("mine/s2", ["red", "nir"], "local")
    ]
    assert rows("SELECT id FROM rasteret_datasets() WHERE source = 'local'") == [("mine/s2",)]
    assert rows("SELECT count(*) FROM rasteret_datasets(search := 'SENTINEL')") == [(2,)]
    report = rows("FROM rasteret_build('mine/s2')")[0]
    assert report[:2] == ("mine_s2", "stac")
    assert report[3:8] == (6, ["red", "nir"], 12, 12, 0)
    assert rows("SELECT count(red_metadata), count(DISTINCT id) FROM mine_s2") == [(6, 6)]
    assert rows("SELECT data_source FROM rasteret_collections()") == [("mine/s2",)]
    assert rows("SELECT count(nir) > 0 FROM rasteret_pixels('mine_s2', bands := ['nir'])") == [
        (True,)
    ]


@pytest.mark.any_duckdb
def test_a_build_takes_a_part_of_the_data_set(rows, registered):
    report = rows(
        "FROM rasteret_build('mine/s2', name := 'part', bands := ['nir'], max_items := 1, "
        "bbox := [78.03, 13.0, 78.05, 13.01], date_range := ['2024-02-01', NULL])"
    )[0]
    assert (report[0], report[3], report[4]) == ("part", 1, ["nir"])
    assert rows("SELECT id FROM part") == [("S2A_44PKV_20240209_L2A",)]


@pytest.mark.any_duckdb
def test_bands_that_no_item_has_are_left_out_and_told(rows, scenes):
    rows(
        "FROM rasteret_register_dataset('mine/s2', stac_api := $items, "
        "band_map := MAP {'red': 'B04', 'thermal': 'B10'}, "
        "band_index_map := MAP {'red': 0, 'thermal': 1})",
        {"items": str(scenes / "items.json")},
    )
    assert rows("FROM rasteret_build('mine/s2')")[0][4] == ["red"]
    assert rows("SELECT error FROM rasteret_errors('mine_s2')") == [
        ("band thermal: no item has the asset B10, so it is left out",)
    ]
    with pytest.raises(duckdb.Error, match="bands: expected one of red, got 'thermal'"):
        rows("FROM rasteret_build('mine/s2', name := 'x', bands := ['red', 'thermal'])")
    with pytest.raises(duckdb.Error, match=r"expected asset keys of these items.*B10"):
        rows("FROM rasteret_build('mine/s2', name := 'x', bands := ['thermal'])")


REAL_ITEMS = {
    "earthsearch/landsat-c2-l2": ("landsat/landsat-c2-l2", set()),
    "earthsearch/cop-dem-glo-30": ("cop-dem/cop-dem-glo-30", set()),
    "earthsearch/cop-dem-glo-90": ("cop-dem/cop-dem-glo-90", set()),
    "earthsearch/naip": ("planetary-computer-tasks/naip1.json", set()),
    "pc/sentinel-2-l2a": ("rustac/core/data/two-sentinel-2-items.json", set()),
    "pc/esa-worldcover": ("paired/esa-worldcover", set()),
    "pc/usda-cdl": ("paired/usda-cdl", {"CULTIVATED"}),
}
"""Data set to real items of the collection, and bands that these do not have."""


@pytest.mark.any_duckdb
@pytest.mark.parametrize("id_", REAL_ITEMS)
def test_built_in_band_maps_name_assets_of_real_items(data, id_):
    place, absent = REAL_ITEMS[id_]
    one = catalog.find_dataset(id_)
    path = data / "stac" / place
    documents = [path] if path.is_file() else sorted(path.rglob("*.json"))
    found = set()
    for document in documents:
        content = json.loads(document.read_text())
        for item in content.get("features", [content]):
            if item["type"] == "Feature":
                assert item["collection"] == one.stac_collection
                found |= set(item["assets"])
    assert {band for band, key in one.band_map.items() if key not in found} == absent


def test_a_record_table_is_built_from_the_rows_that_fit(rows, registered, tmp_path):
    rows("FROM rasteret_build('mine/s2', name := 's2')")
    table = tmp_path / "scenes.parquet"
    rows(
        "COPY (SELECT id AS fid, year(datetime) AS y, geometry AS geom, bbox AS box, "
        f"assets.red.href AS path FROM s2) TO '{table}'"
    )
    rows(
        "FROM rasteret_register_dataset('mine/table', record_table := $path, "
        "column_map := MAP {'fid': 'id', 'geom': 'geometry', 'y': 'datetime', 'box': 'bbox'}, "
        "href_column := 'path', band_index_map := MAP {'red': 0})",
        {"path": str(table)},
    )
    report = rows("FROM rasteret_build('mine/table')")[0]
    assert report[:2] == ("mine_table", "records")
    assert report[3:8] == (6, ["red"], 6, 6, 0)
    box = "bbox := [78.03, 13.0, 78.05, 13.01]"
    expected = rows(
        "SELECT id FROM s2 WHERE bbox.xmin <= 78.05 AND bbox.xmax >= 78.03 "
        "AND bbox.ymin <= 13.01 AND bbox.ymax >= 13.0 ORDER BY id"
    )
    assert 0 < len(expected) < 6
    rows(
        f"FROM rasteret_build('mine/table', name := 'near', {box}, "
        "date_range := ['2024-06-01', '2024-07-01'])"
    )
    assert rows("SELECT id FROM near ORDER BY id") == expected
    with pytest.raises(duckdb.Error, match="at least one record"):
        rows(
            "FROM rasteret_build('mine/table', name := 'late', date_range := ['2025-01-01', NULL])"
        )
    with pytest.raises(duckdb.Error, match=r"max_items: expected NULL.*use bbox and date_range"):
        rows("FROM rasteret_build('mine/table', name := 'few', max_items := 1)")


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("sentinel-2-l2a", "earthsearch/sentinel-2-l2a, pc/sentinel-2-l2a"),
        ("Earthsearch/NAIP", "earthsearch/naip"),
        ("pc/nasadme", "pc/nasadem"),
    ],
)
def test_an_unknown_id_lists_near_ones(rows, asked, near):
    with pytest.raises(duckdb.Error, match=rf"dataset_id: expected a known data set, as {near}"):
        rows("FROM rasteret_build($id)", {"id": asked})


def test_unknown_bands_are_refused_when_bound(rows, registered):
    with pytest.raises(duckdb.Error, match="bands: expected one of nir, red, got 'B04'"):
        rows("EXPLAIN FROM rasteret_build('mine/s2', bands := ['B04'])")


def test_unregistering_takes_away_only_one_s_own(rows, registered, own_file):
    rows("FROM rasteret_register_dataset('mine/other', stac_api := 'https://a.org/stac')")
    assert rows("SELECT id FROM rasteret_unregister_dataset('mine/s2')") == [("mine/s2",)]
    assert list(json.loads(own_file.read_text())) == ["mine/other"]
    with pytest.raises(duckdb.Error, match=r"id: expected a data set registered in .*mine/other"):
        rows("FROM rasteret_unregister_dataset('pc/nasadem')")


def test_binding_registers_nothing(rows, own_file):
    rows("EXPLAIN FROM rasteret_register_dataset('mine/s2', stac_api := 'items.json')")
    rows("PREPARE p AS FROM rasteret_register_dataset('mine/s2', stac_api := 'items.json')")
    assert not own_file.exists()


@pytest.mark.any_duckdb
def test_one_s_own_goes_before_a_built_in_one(rows, scenes):
    rows(
        "FROM rasteret_register_dataset('pc/nasadem', stac_api := $items)",
        {"items": str(scenes / "items.json")},
    )
    assert rows("SELECT source FROM rasteret_datasets() WHERE id = 'pc/nasadem'") == [("local",)]
    assert rows("FROM rasteret_build('pc/nasadem')")[0][4] == ["B04", "B08", "SCL"]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "stac_api: expected stac_api or record_table, got 'neither'"),
        ("stac_api := 'a', record_table := 'b'", "got 'both'"),
        ("stac_api := 'https://a.org/?key=SECRET'", "without user, password and query"),
        ("stac_api := 'a', access := 'free'", "access: expected open or requester_pays or signed"),
        ("stac_api := 'a', access := 'signed'", "access_prefixes: expected prefixes"),
        ("stac_api := 'a', access_prefixes := ['s3://b/']", "access_prefixes: expected prefixes"),
        ("stac_api := 'a', band_map := MAP {'x': 1}", "band_map: expected strings to strings"),
        ("stac_api := 'a', band_index_map := MAP {'x': -1}", "sample indices from 0"),
        (
            "stac_api := 'a', band_map := MAP {'x': 'a'}, band_index_map := MAP {'y': 1}",
            r"band_index_map: expected bands of band_map \(x\)",
        ),
        ("stac_api := 'a', start_date := 'soon'", "start_date: expected a date"),
        ("stac_api := ''", "stac_api: expected a string"),
    ],
)
def test_a_malformed_data_set_is_refused(rows, own_file, options, message):
    with pytest.raises(duckdb.Error, match=message) as caught:
        rows(f"FROM rasteret_register_dataset('mine/s2'{', ' + options if options else ''})")
    assert "SECRET" not in str(caught.value)
    assert not own_file.exists()


@pytest.mark.any_duckdb
def test_a_malformed_id_is_refused(rows):
    with pytest.raises(duckdb.Error, match="id: expected letters, digits"):
        rows("FROM rasteret_register_dataset('../x', stac_api := 'a')")


@pytest.mark.any_duckdb
def test_all_fields_come_back_from_the_file(own_file):
    given = {
        "name": "N",
        "description": "D",
        "record_table": "https://a.org/t.parquet",
        "column_map": {"fid": "id"},
        "href_column": "path",
        "band_map": {"a": "x"},
        "band_index_map": {"a": 2},
        "url_rewrite": {"https://a.org/": "s3://b/"},
        "access": "requester_pays",
        "access_prefixes": ("s3://b/",),
        "spatial_coverage": "somewhere",
        "start_date": date(2020, 1, 2),
        "end_date": date(2021, 1, 2),
        "license": "CC0",
        "license_url": "https://a.org/l",
    }
    one = Dataset.of("mine/all", given)
    catalog.register_dataset(one)
    assert catalog.find_dataset("mine/all") == one
    assert all(getattr(one, name) == value for name, value in given.items())


@pytest.mark.any_duckdb
def test_toml_is_read_and_not_written(rows, tmp_path, monkeypatch):
    path = tmp_path / "datasets.toml"
    path.write_text('["mine/s2"]\nstac_api = "https://a.org/v1"\nstart_date = 2020-01-02\n')
    monkeypatch.setenv("RASTERET_DATASETS", str(path))
    assert catalog.find_dataset("mine/s2").start_date == date(2020, 1, 2)
    with pytest.raises(duckdb.Error, match=r"RASTERET_DATASETS: expected a \.json file"):
        rows("FROM rasteret_register_dataset('mine/s2', stac_api := 'https://a.org/v1')")


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "a table of fields per id"),
        ('{"a": {"stac_api": "b", "colour": "red"}}', "a: expected one of name, .*got 'colour'"),
    ],
)
def test_a_damaged_file_is_named(rows, con, own_file, tmp_path, text, message):
    own_file.parent.mkdir()
    own_file.write_text(text)
    with pytest.raises(duckdb.Error, match=rf"datasets\.json: .*{message}"):
        rows("FROM rasteret_datasets()")
    assert own_file.read_text() == text
    with rasteret_sql.connect(workspace=tmp_path / "workspace") as other:
        assert other.sql("SELECT 1").fetchall() == [(1,)]


@pytest.mark.any_duckdb
def test_a_file_that_cannot_be_written_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("RASTERET_DATASETS", "/proc/none/datasets.json")
    one = Dataset.of("mine/s2", {"stac_api": "https://a.org/v1"})
    with pytest.raises(errors.CollectionError, match=r"a file that can be written.*DATASETS"):
        catalog.register_dataset(one)


@pytest.mark.any_duckdb
def test_processes_that_register_at_once_lose_nothing(own_file):
    code = (
        "import sys; from rasteret_sql.datasets import registry as catalog\n"
        "from rasteret_sql.datasets.dataset import Dataset\n"
        "print(flush=True); sys.stdin.readline()\n"
        "for i in range(20): catalog.register_dataset("
        "Dataset.of(f'{sys.argv[1]}/{i}', {'stac_api': 'https://a.org/v1'}))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in running:
        process.stdout.readline()
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
    expected = {f"{name}/{i}" for name in ("one", "two") for i in range(20)}
    assert set(json.loads(own_file.read_text())) == expected
    assert {path.name for path in own_file.parent.iterdir()} <= {
        "datasets.json",
        "datasets.json.lock",
    }


def options_of(con, href):
    return instance_of(con).stores.options_of(href)[1]


@pytest.mark.any_duckdb
def test_a_build_reads_files_as_access_says_and_so_does_a_later_connection(
    con, rows, scenes, tmp_path, monkeypatch
):
    rows(
        "FROM rasteret_register_dataset('mine/s2', stac_api := $items, "
        "access := 'requester_pays', access_prefixes := ['s3://payers/'])",
        {"items": str(scenes / "items.json")},
    )
    assert not options_of(con, "s3://payers/a.tif").requester_pays
    rows("FROM rasteret_build('mine/s2')")
    assert options_of(con, "s3://payers/a.tif").requester_pays
    assert not options_of(con, "s3://others/a.tif").requester_pays
    with rasteret_sql.connect(workspace=tmp_path / "workspace") as later:
        assert options_of(later, "s3://payers/a.tif").requester_pays


@pytest.mark.any_duckdb
def test_what_the_user_said_stands():
    href = "https://nasademeuwest.blob.core.windows.net/nasadem-cog/a.tif"
    nasadem = catalog.find_dataset("pc/nasadem")
    with Stores().in_use() as stores:
        nasadem.set_storage_defaults()
        assert stores.options_of(href)[1].signer == "planetary_computer"
        stores.configure("https://nasademeuwest.blob.core.windows.net/", {"anonymous": True})
        nasadem.set_storage_defaults()
        found = stores.options_of(href)[1]
    assert (found.signer, found.anonymous) == (None, True)


@pytest.mark.any_duckdb
def test_the_collection_names_the_data_set_in_its_footers(rows, registered, tmp_path):
    rows("FROM rasteret_build('mine/s2')")
    part = next((tmp_path / "workspace" / "mine_s2_stac").rglob("*.parquet"))
    assert pq.read_metadata(part).metadata[b"data_source"] == b"mine/s2"
