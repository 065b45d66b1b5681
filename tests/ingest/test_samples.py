"""Files of several samples of which nothing names the bands: one band per sample."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pystac
import pytest
import rasterio
from rasterio import Affine

from rasteret_sql.ingest.bands import KeyAliases
from rasteret_sql.ingest.samples import SampleSurvey, sample_names
from rasteret_sql.remote.headers import read_asset

pytestmark = pytest.mark.any_duckdb

UTM = Affine(10, 0, 500000, 0, -10, 1500000)


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


def write_tiff(path, n_samples, descriptions=(), alpha=False, epsg=32643, transform=UTM):
    """A raster whose pixels differ between samples, written by GDAL."""
    values = np.arange(n_samples * 8 * 8, dtype="uint16").reshape(n_samples, 8, 8)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=8,
        height=8,
        count=n_samples,
        dtype="uint16",
        crs=f"EPSG:{epsg}",
        transform=transform,
        alpha="yes" if alpha else "no",
    ) as out:
        for number, text in enumerate(descriptions, 1):
            if text:
                out.set_band_description(number, text)
        out.write(values)
    return str(path)


@pytest.fixture
def tiffs(tmp_path):
    """Files of one, two and three samples, the last with descriptions of two of them."""
    return [
        write_tiff(tmp_path / "one.tif", 1),
        write_tiff(tmp_path / "two.tif", 2),
        write_tiff(tmp_path / "three.tif", 3, ["", "green", "nir"]),
    ]


def table_of(rows, paths, options=""):
    rows("CREATE OR REPLACE TABLE files AS SELECT unnest($p) AS url", {"p": paths})
    return rows(
        "SELECT bands, assets, enriched, failed, requests FROM rasteret_build_table('t', "
        "'SELECT url AS id, url FROM files', href_column := 'url', enrich := true, "
        f"force := true{options})"
    )[0]


def test_each_sample_of_a_file_is_a_band(rows, tiffs):
    bands, *counts = table_of(rows, tiffs)
    assert bands == ["b1", "green", "nir"]
    assert counts == [6, 6, 0, 3]
    for path in tiffs:
        with rasterio.open(path) as known:
            totals = known.read().reshape(known.count, -1).sum(axis=1).tolist()
        for band, total in zip(bands, totals, strict=False):
            query = f"SELECT sum({band}) FROM rasteret_pixels($c, bands := ['{band}'])"
            found = rows(query, {"c": f"SELECT * FROM t WHERE id = '{path}'"})
            assert found == [(total,)]
    found = rows("SELECT assets.nir.href, nir_metadata FROM t WHERE id LIKE '%two.tif'")
    assert found == [(None, None)]


def test_each_header_is_requested_once(rows, tiffs, server, tmp_path):
    folder = server.folder / "samples"
    folder.mkdir(exist_ok=True)
    for name in ("one", "two", "three"):
        (folder / f"{name}.tif").write_bytes((tmp_path / f"{name}.tif").read_bytes())
    urls = [server.url("scenes", f"samples/{name}.tif") for name in ("one", "two", "three")]
    server.reset()
    bands, *counts = table_of(rows, urls)
    assert bands == ["b1", "green", "nir"]
    own = [one for one in server.requests() if "samples/" in one["path"]]
    assert len(own) == counts[-1] == 3


def test_a_file_that_cannot_be_read_is_reported_once(rows, tiffs, tmp_path):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"<html>")
    bands, _, enriched, failed, _ = table_of(rows, [*tiffs, str(broken)])
    assert (bands, enriched, failed) == (["b1", "green", "nir"], 6, 1)
    assert rows("SELECT id, band FROM rasteret_errors('t') WHERE id IS NOT NULL") == [
        (str(broken), "b1")
    ]


def test_names_of_one_s_own_go_to_the_samples_in_order(rows, tiffs):
    assert table_of(rows, tiffs, ", bands := ['r', 'g', 'n']")[0] == ["r", "g", "n"]
    assert rows("SELECT assets.n.band_index FROM t WHERE id LIKE '%three.tif'") == [(2,)]
    assert table_of(rows, tiffs, ", bands := ['nir', 'b1']")[0] == ["nir", "b1"]
    assert table_of(rows, tiffs[:1], ", bands := ['red']")[0] == ["red"]
    with pytest.raises(
        duckdb.Error, match=r"bands: expected samples of these files \(b1, green, nir\)"
    ):
        table_of(rows, tiffs, ", bands := ['red']")


def test_descriptions_that_differ_are_told_and_not_used(rows, tmp_path):
    paths = [write_tiff(tmp_path / f"{day}.tif", 1, [day]) for day in ("may", "june")]
    assert table_of(rows, paths)[0] == ["b1"]
    assert ("band b1: the files describe it as june, may",) in rows(
        "SELECT error FROM rasteret_errors('t')"
    )


def test_a_refresh_reads_only_new_files_and_adds_their_bands(rows, tiffs, server, tmp_path):
    assert table_of(rows, tiffs[:2])[0] == ["b1", "b2"]
    again = rows("SELECT bands, assets, requests FROM rasteret_refresh('t', check_remote := false)")
    assert again == [(["b1", "b2"], 0, 0)]
    rows("INSERT INTO files VALUES ($p)", {"p": write_tiff(tmp_path / "four.tif", 4)})
    again = rows("SELECT bands, assets, requests FROM rasteret_refresh('t', check_remote := false)")
    assert again == [(["b1", "b2", "b3", "b4"], 4, 1)]


@pytest.mark.parametrize(
    ("descriptions", "names"),
    [
        ((), ["b1", "b2", "b3"]),
        (("red", "Red", "nir"), ["red", "b2", "nir"]),
        (("b2", "", " near\n infrared "), ["b2", "b2_2", "near infrared"]),
        (("x" * 101, "", "x"), ["b1", "b2", "x"]),
    ],
)
def test_names_of_one_file(tmp_path, descriptions, names):
    header = read_asset(write_tiff(tmp_path / "a.tif", 3, descriptions)).header
    assert sample_names(header) == names


def test_files_of_different_widths_share_the_names_of_their_samples(tmp_path):
    survey = SampleSurvey()
    for name, n, words in (("a", 2, ["red"]), ("b", 3, ["red", "", "nir"]), ("c", 1, [])):
        path = write_tiff(tmp_path / f"{name}.tif", n, words)
        survey.add(path, read_asset(path).header)
    assert survey.names() == ["red", "b2", "nir"]
    assert survey.chosen(["nir", "red"]) == {"nir": 2, "red": 0}


def items_of(tmp_path, assets):
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "properties": {"datetime": "2024-05-01T00:00:00Z"},
        "geometry": None,
        "links": [],
        "assets": assets,
    }
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    return str(path)


def stac_bands(rows, path, options=""):
    query = f"SELECT bands FROM rasteret_build_stac('s', $p, force := true{options})"
    return rows(query, {"p": path})[0][0]


def test_items_that_name_no_bands_have_those_of_their_files(rows, tiffs, tmp_path):
    image = {"href": tiffs[1], "type": "image/tiff"}
    path = items_of(tmp_path, {"image": image})
    assert stac_bands(rows, path) == ["b1", "b2"]
    found = rows("SELECT sum(b1), sum(b2) FROM rasteret_pixels('s')")
    with rasterio.open(tiffs[1]) as known:
        assert found == [tuple(known.read().reshape(2, -1).sum(axis=1).tolist())]
    assert stac_bands(rows, path, ", bands := ['b2']") == ["b2"]
    assert stac_bands(rows, path, ", band_map := MAP {'red': 'image'}") == ["red"]
    assert stac_bands(rows, path, ", enrich := false") == ["image"]
    path = items_of(
        tmp_path, {"image": image, "rest": {"href": tiffs[2]}, "dem": {"href": tiffs[0]}}
    )
    assert stac_bands(rows, path) == ["image_1", "image_2", "rest_1", "green", "nir", "dem"]


def test_bands_that_items_name_are_not_looked_for(rows, tiffs, tmp_path):
    one = {"href": tiffs[1], "eo:bands": [{"name": "B1"}]}
    assert stac_bands(rows, items_of(tmp_path, {"image": one})) == ["image"]


def test_one_sample_of_data_and_alpha_are_one_band(rows, tmp_path):
    path = write_tiff(tmp_path / "alpha.tif", 2, alpha=True)
    items = items_of(tmp_path, {"B04": {"href": path}})
    assert stac_bands(rows, items) == ["B04"]


def test_a_refresh_of_items_asks_for_no_header_again(rows, tiffs, tmp_path):
    path = items_of(tmp_path, {"image": {"href": tiffs[2]}})
    assert stac_bands(rows, path) == ["b1", "green", "nir"]
    again = rows("SELECT bands, requests FROM rasteret_refresh('s', check_remote := false)")
    assert again == [(["b1", "green", "nir"], 0)]


def test_a_table_of_hrefs_without_headers_has_the_first_sample(rows, tiffs):
    rows("CREATE TABLE files AS SELECT unnest($p) AS url", {"p": tiffs})
    report = rows(
        "SELECT bands FROM rasteret_build_table('t', 'SELECT url AS id, url FROM files', "
        "href_column := 'url')"
    )
    assert report == [(["b1"],)]
    assert rows("SELECT count(assets.b1.href) FROM t") == [(3,)]


def test_keys_that_name_the_date_of_their_item_are_one_asset(rows, tmp_path):
    """As an openEO catalog has them: one asset per item, its key the name of its file."""
    features = []
    for day in ("2023-06-01", "2023-06-06", "2023-06-11"):
        key = f"openEO_{day}Z.tif"
        path = write_tiff(tmp_path / key, 3)
        names = [{"name": name} for name in ("B04", "B08", "SCL")]
        asset = {"href": path, "type": "image/tiff", "eo:bands": names}
        features.append(
            {"type": "Feature", "stac_version": "1.0.0", "id": key, "geometry": None, "links": []}
            | {"properties": {"datetime": f"{day}T00:00:00Z"}, "assets": {key: asset}}
        )
    path = tmp_path / "openeo.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert stac_bands(rows, str(path)) == ["B04", "B08", "SCL"]
    found = rows("SELECT id, sum(B08) FROM rasteret_pixels('s') GROUP BY id ORDER BY id")
    assert found == [(f["id"], sum(range(64, 128))) for f in features]
    catalog = pystac.ItemCollection.from_file(str(path))
    hrefs = [asset.href for item in catalog for asset in item.assets.values()]
    assert rows("SELECT assets.SCL.href FROM s ORDER BY id") == [(href,) for href in hrefs]
    for feature in features:
        for asset in feature["assets"].values():
            del asset["eo:bands"]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert stac_bands(rows, str(path)) == ["b1", "b2", "b3"]


@pytest.mark.parametrize(
    ("items", "aliases"),
    [
        ({"a": ["B04", "B08"], "b": ["B04", "B08"]}, {}),
        ({"a": ["B04"], "b": ["B08"]}, {}),
        ({"x": ["x_B04", "x_B08", "dem"], "y": ["y_B04", "y_B08", "dem"]}, ["B04", "B08"] * 2),
        ({"a": ["lc_2019", "lc_2020"], "b": ["lc_2019", "lc_2020"]}, {}),
        ({"a": ["lc_2019"], "b": ["lc_2020"]}, ["lc", "lc"]),
        ({"a": ["lc_2019"]}, {}),
    ],
)
def test_only_ids_and_dates_make_keys_differ(items, aliases):
    survey = KeyAliases()
    for name, keys in items.items():
        survey.add(name, {key: {} for key in keys})
    assert list(survey.aliases().values()) == list(aliases)
