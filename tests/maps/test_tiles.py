"""Tiles: GDAL's warp is the oracle of their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from maps.conftest import TOKEN, Client, tile_at
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

import rasteret_sql
from rasteret_sql.maps import serving
from rasteret_sql.pictures import CLASSES, rgb_of

SCENE = "S2A_43PHQ_20240310_L2A"
NEXT = "S2A_44PKV_20240310_L2A"
PLACE = 77.99, 13.01
ONE = {"where": f"id = '{SCENE}'"}


def warped(path, box, nodata=0):
    """Pixels of a tile by GDAL, and which hold data."""
    west, _, east, north = box
    affine = rasterio.Affine((east - west) / 256, 0, west, 0, -(east - west) / 256, north)
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file, crs="EPSG:3857", transform=affine, width=256, height=256,
            resampling=Resampling.nearest, tolerance=1e-6, src_nodata=nodata, nodata=nodata,
        ) as found,
    ):  # fmt: skip
        values = found.read(1)
    return values, values != nodata


def grey(values, valid, low, high):
    """Bytes between two limits, 0 where there is no data."""
    share = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    return np.where(valid, np.floor(share * 255 + 0.5), 0).astype(np.uint8)


def facts_of(client):
    """What the server tells of its one collection."""
    (name,) = client("/api/collections").json["collections"]
    return client(f"/api/collections/{name}").json


@pytest.mark.any_duckdb
@pytest.mark.parametrize("zoom", [14, 15, 17])
@pytest.mark.parametrize("place", [PLACE, (77.966, 12.993)], ids=["inside", "corner"])
def test_a_tile_is_what_gdal_warps(client, scenes, zoom, place):
    path, box = tile_at(*place, zoom)
    values, valid = warped(scenes / SCENE / "B08.tif", box)
    image = client(f"/tiles/s2/{path}.png", bands="B08", rescale="0,5000", **ONE).image
    assert valid.any()
    assert (image[..., 3] == np.where(valid, 255, 0)).all()
    for channel in range(3):
        assert (image[..., channel] == grey(values, valid, 0, 5000)).all()


@pytest.mark.any_duckdb
def test_three_bands_have_limits_of_their_own(client, scenes):
    path, box = tile_at(*PLACE, 14)
    image = client(
        f"/tiles/s2/{path}.png", bands="B08,B04,B04", rescale="0,5000,100,900,0,2000", **ONE
    ).image
    channels = (("B08", 0, 5000), ("B04", 100, 900), ("B04", 0, 2000))
    every = [warped(scenes / SCENE / f"{band}.tif", box) for band, *_ in channels]
    valid = np.logical_and.reduce([mask for _, mask in every])
    for number, ((values, _), (_, low, high)) in enumerate(zip(every, channels, strict=True)):
        assert (image[..., number] == grey(values, valid, low, high)).all()


@pytest.mark.any_duckdb
def test_classes_keep_their_colours(client, scenes):
    path, box = tile_at(*PLACE, 14)
    values, valid = warped(scenes / SCENE / "SCL.tif", box)
    image = client(f"/tiles/s2/{path}.png", bands="SCL", colormap="scl", **ONE).image
    assert len(np.unique(values[valid])) > 2
    for value in np.unique(values[valid]).tolist():
        assert (image[values == value, :3] == rgb_of(CLASSES["scl"][value])).all()


def test_an_expression_is_computed_for_each_pixel(client, scenes):
    path, box = tile_at(*PLACE, 14)
    (red, there), (nir, _) = (warped(scenes / SCENE / f"{b}.tif", box) for b in ("B04", "B08"))
    image = client(
        f"/tiles/s2/{path}.png",
        expression="CASE WHEN B08 > 3500 THEN B04 - B08 END",
        rescale="-5000,0",
        **ONE,
    ).image
    valid = there & (nir > 3500)
    assert valid.any()
    assert (valid != there).any()
    assert (image[..., 3] == np.where(valid, 255, 0)).all()
    difference = red.astype(np.int64) - nir
    assert (image[..., 0] == grey(difference, valid, -5000, 0)).all()


@pytest.mark.any_duckdb
def test_scenes_fill_each_other_and_the_newest_lies_on_top(client, scenes):
    path, box = tile_at(77.9915, 13.019, 14)
    names = [f"{tile}_{day}" for day in ("20240110", "20240310") for tile in ("43PHQ", "44PKV")]
    layers = [warped(scenes / f"S2A_{name}_L2A" / "B08.tif", box) for name in names]
    want, want_valid = np.zeros((256, 256), np.uint16), np.zeros((256, 256), bool)
    for values, valid in layers:
        want, want_valid = np.where(valid, values, want), want_valid | valid
    query = {"bands": "B08", "rescale": "0,6000", "where": '"eo:cloud_cover" < 20'}
    image = client(f"/tiles/s2/{path}.png", **query).image
    same = image[..., 0] == grey(want, want_valid, 0, 6000)
    assert (image[..., 3] > 0).mean() == pytest.approx(want_valid.mean(), abs=1e-6)
    assert same.mean() > 0.99  # scenes of one moment: either may be on top
    day = client(f"/tiles/s2/{path}.png", date="2024-01-10", **query).image
    assert (day[..., 0] != image[..., 0]).mean() > 0.5
    cloudy = client(f"/tiles/s2/{path}.png", **query | {"date": "2024-02-09"})
    assert not cloudy.image.any()


@pytest.mark.any_duckdb
def test_a_tile_without_scenes_is_transparent(client):
    path, _ = tile_at(10, 50, 9)
    answer = client(f"/tiles/s2/{path}.png", bands="B08")
    assert answer.status == 200
    assert answer.image.shape == (256, 256, 4)
    assert not answer.image.any()


def test_the_statement_of_a_tile_gives_its_pixels(client):
    path, _ = tile_at(*PLACE, 15)
    for query in ({"bands": "B08"}, {"expression": "rasteret_ndvi(B04, B08)"}):
        sql = client(f"/tiles/s2/{path}.sql", **query, **ONE).json["sql"]
        assert SCENE in sql
        table = client.con.sql(sql).to_arrow_table()
        image = client(f"/tiles/s2/{path}.png", **query, **ONE, rescale="-1,7000").image
        if "bands" in query:
            (row,) = table.to_pylist()
            count = sum(row["valid"])
        else:
            count = table.num_rows - table.column("value").null_count
        assert count == (image[..., 3] > 0).sum() > 0
    path, _ = tile_at(10, 50, 9)
    assert client(f"/tiles/s2/{path}.sql", bands="B08").json == {"sql": None}


@pytest.mark.any_duckdb
def test_without_a_range_all_tiles_share_one(client):
    tiles = [tile_at(lon, 13.01, 14)[0] for lon in (77.98, 78.01)]
    images = [client(f"/tiles/s2/{tile}.png", bands="B08").image for tile in tiles]
    first, second = (image[image[..., 3] > 0][:, 0] for image in images)
    assert first.max() == second.max() == 255
    answer = client(
        "/api/collections/s2/stretch", bands="B04,B08,B08", bbox="77.96,12.99,78.04,13.04",
        date="2024-01-10",
    ).json  # fmt: skip
    assert len(answer["rescale"]) == 3
    assert answer["rescale"][1] == answer["rescale"][2]
    assert 100 < answer["rescale"][0][0] < answer["rescale"][0][1] < 6000
    assert client("/api/collections/s2/stretch", bbox="0,0,1,1").json["rescale"] is None


@pytest.mark.any_duckdb
def test_a_tile_that_the_client_has_is_not_made_again(client, monkeypatch):
    path, _ = tile_at(*PLACE, 14)
    query = {"bands": "B08", "rescale": "0,4321"}
    first = client(f"/tiles/s2/{path}.png", **query)
    monkeypatch.setattr(client.server.app.run, "table", None)  # nothing can run now
    again = client(f"/tiles/s2/{path}.png", **query)
    assert again.body == first.body
    known = {"If-None-Match": first.headers["ETag"]}
    same = client(f"/tiles/s2/{path}.png", **query, headers=known)
    assert (same.status, same.body) == (304, b"")


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"bands": "b08"}, "bands: expected one of B04, B08, SCL, got 'b08'"),
        ({"bands": "B04,B08"}, "bands: expected one band, or red, green and blue"),
        ({"bands": "B04", "expression": "B04"}, "bands: expected bands or an expression"),
        ({"expression": "(FROM s2)"}, "expression: expected an expression over bands"),
        ({"expression": '"eo:cloud_cover"'}, "expression: expected one of bands B04, B08, SCL"),
        ({"expression": "1 + 1"}, "expression: expected a band in it"),
        (
            {"expression": "B04 || 'x'"},
            "expression: expected functions that compute numbers, got ||",
        ),
        (
            {"expression": "length(replace(replace('aa', 'a', 'aa'), 'a', 'aa')) + B04"},
            "expression: expected functions that compute numbers, got length; leave it out",
        ),
        ({"expression": "B04 = 'x'"}, "Could not convert string"),
        ({"where": "replace(id, 'S', 'SS') = id"}, "where: expected functions that compute a va"),
        ({"where": "B04 > 1"}, "where: expected one of columns id"),
        ({"where": "id = (SELECT 1)"}, "where: expected an expression over columns"),
        ({"rescale": "5,1"}, "rescale: expected LOW,HIGH with LOW < HIGH, got '5,1'"),
        ({"rescale": "nan,1"}, "rescale: expected LOW,HIGH"),
        ({"bands": "B08", "rescale": "0,1,0,1"}, "rescale: expected LOW,HIGH once"),
        ({"colormap": "jet"}, "colormap: expected one of grey, viridis"),
        ({"method": "sum"}, "method: expected one of last, first"),
        ({"date": "May"}, "date: expected DATE or START/END, got 'May'"),
    ],
)
def test_what_is_wrong_is_told_as_json(client, query, told):
    path, _ = tile_at(*PLACE, 14)
    answer = client(f"/tiles/s2/{path}.png", **query)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json["error"].startswith(told) or told in answer.json["error"]
    assert "LINE 1" not in answer.json["error"]


@pytest.mark.any_duckdb
def test_a_tile_of_too_many_scenes_is_refused(client, monkeypatch):
    monkeypatch.setattr("rasteret_sql.maps.app.MAX_SCENES", 3)
    path, _ = tile_at(78.0, 13.01, 12)
    answer = client(f"/tiles/s2/{path}.png", bands="B08")
    assert answer.status == 400
    assert "at most 3 scenes, got 6; zoom in, or choose a date" in answer.json["error"]
    assert client(f"/tiles/s2/{path}.png", bands="B08", date="2024-03-10").status == 200


def test_a_collection_that_is_built_anew_is_shown_anew(tmp_path, scenes):
    build = "FROM rasteret_build_stac('s2', stac_api := $1, ids := $2, force := true)"
    items = str(scenes / "items.json")
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    con.execute(build, [items, [SCENE]]).fetchall()
    with serving(con, tokens=[TOKEN]) as server:
        client = Client(server, con)
        assert client("/api/collections/s2/scenes").json["total"] == 1
        with con.cursor() as cursor:
            cursor.execute(build, [items, [SCENE, NEXT]]).fetchall()
        assert client("/api/collections/s2/scenes").json["total"] == 2
        path, _ = tile_at(78.03, 13.01, 14)
        assert client(f"/tiles/s2/{path}.png", bands="B08").image.any()
    con.close()


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("given", "name"),
    [
        ('SELECT * FROM s2 WHERE "eo:cloud_cover" < 20', "query"),
        ("{scenes}/S2A_43PHQ_20240310_L2A/B08.tif", "files"),
        ("{parquet}", "exported"),
    ],
)
def test_what_else_is_a_collection(workspace, scenes, tmp_path, given, name):
    con = rasteret_sql.connect(workspace=workspace)
    exported = tmp_path / "exported"
    con.execute("FROM rasteret_export('s2', $1)", [str(exported)]).fetchall()
    text = given.format(scenes=scenes, parquet=exported)
    path, box = tile_at(*PLACE, 14)
    values, valid = warped(scenes / SCENE / "B08.tif", box)
    with serving(con, [text], tokens=[TOKEN]) as server:
        client = Client(server, con)
        facts = facts_of(client)
        assert facts["name"] == name
        band = "B08" if "B08" in facts["bands"] else next(iter(facts["bands"]))
        where = {} if name == "files" else ONE
        query = {"bands": band, "rescale": "0,5000", **where}
        image = client(f"/tiles/{name}/{path}.png", **query).image
        assert (image[..., 0] == grey(values, valid, 0, 5000)).all()
    con.close()


@pytest.mark.any_duckdb
def test_scenes_that_lack_a_band_are_left_out(workspace, scenes):
    con = rasteret_sql.connect(workspace=workspace)
    con.execute(
        "CREATE TABLE gaps AS SELECT * REPLACE (CASE WHEN id = $1 THEN NULL ELSE B08_metadata END "
        "AS B08_metadata) FROM s2",
        ["S2A_43PHQ_20240110_L2A"],
    )
    path, box = tile_at(*PLACE, 14)
    query = {"rescale": "0,5000", "where": "id LIKE '%43PHQ%'"}
    with serving(con, ["gaps"], tokens=[TOKEN]) as server:
        client = Client(server, con)
        image = client(f"/tiles/gaps/{path}.png", bands="B08", method="first", **query).image
        values, valid = warped(scenes / SCENE / "B08.tif", box)
        february = warped(scenes / "S2A_43PHQ_20240209_L2A" / "B08.tif", box)
        values = np.where(february[1], february[0], values)
        assert (image[..., 0] == grey(values, valid | february[1], 0, 5000)).all()
        answers = [
            client("/api/collections/gaps/point", lon=77.99, lat=13.01, bands=band).json
            for band in ("B04", "B08")
        ]
        assert [len(answer["rows"]) for answer in answers] == [3, 2]
        assert "IS NOT NULL" in answers[1]["sql"]
    con.close()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("file", ["rio-tiler/cog.tif", "rio-tiler/red.tif"])
def test_a_tile_of_a_real_file(data, tmp_path, file):
    path = data / "geotiff" / file
    con = rasteret_sql.connect(workspace=tmp_path)
    with serving(con, [str(path)], tokens=[TOKEN]) as server, rasterio.open(path) as source:
        client = Client(server, con)
        facts = facts_of(client)
        west, south, east, north = facts["bounds"]
        metres = source.res[0] * (111_000 if source.crs.is_geographic else 1)
        zoom = int(np.ceil(np.log2(156_543 / metres)))  # finer than the file: no overview
        place, box = tile_at((west + east) / 2, (south + north) / 2, zoom)
        nodata = 0 if source.nodata is None else source.nodata
        values, valid = warped(path, box, nodata)
        if source.nodata is None:  # GDAL then tells by 0 what lies outside alone
            valid = np.ones_like(valid)
        low, high = float(values.min()), float(values.max())
        band = next(iter(facts["bands"]))
        query = {"bands": band, "rescale": f"{low},{high}"}
        image = client(f"/tiles/{facts['name']}/{place}.png", **query).image
        assert valid.any()
        assert (image[..., 3] > 0).mean() == pytest.approx(valid.mean(), abs=0.001)
        assert (image[..., 0] == grey(values, valid, low, high)).mean() > 0.999
    con.close()
