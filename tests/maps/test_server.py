"""Who may ask, what is answered about scenes, points and polygons, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
import rasterio
from maps.conftest import TOKEN, Client, tile_at
from processes import heeding_ctrl_c
from rasterio.features import geometry_mask
from rasterio.warp import transform, transform_geom

import rasteret_sql
from rasteret_sql.errors import InputError, InterruptedReadError, UnknownCollectionError
from rasteret_sql.maps import serve_map, serving
from rasteret_sql.maps.connections import Connections

ADDRESSES = ("/", "/static/map.js", "/api/collections", "/tiles/s2/14/11740/7594.png")
SQUARE = [[77.985, 13.005], [77.992, 13.004], [77.991, 13.012], [77.985, 13.005]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE]}


@pytest.mark.any_duckdb
@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_told_without_the_token(client, address):
    for headers in (
        {"Cookie": None},
        {"Cookie": f"{client.server.cookie}=guess"},
        {"Cookie": f"other={TOKEN}"},
        {"Cookie": f"{client.server.cookie}=\u00e9"},
    ):
        answer = client(address, headers=headers)
        assert answer.status == 403
        assert answer.json["error"].startswith("token: expected the server's")
        assert TOKEN not in answer.body.decode()
    assert client(address, headers={"Cookie": None}, token="guess").status == 403
    assert client(address).status == 200


@pytest.mark.any_duckdb
def test_the_printed_address_leads_to_a_cookie_and_away_from_the_token(client):
    answer = client("/", headers={"Cookie": None}, token=TOKEN)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert client("/", headers={"Cookie": cookie.split(";")[0]}).status == 200
    among = f'odd={{"a": [1]}}; x; {cookie.split(";")[0]}; _xsrf=2|a b'
    assert client("/", headers={"Cookie": among}).status == 200
    # other programs, as QGIS, have no cookie
    assert client("/api/collections", headers={"Cookie": None}, token=TOKEN).status == 200


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "["}, 421),
        ({"Host": ""}, 421),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8765"}, 200),
        ({"Host": "127.0.0.1", "Origin": "https://evil.example"}, 403),
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1:99"}, 403),
        ({"Host": "127.0.0.1:99", "Origin": "http://127.0.0.1:99"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_pages_and_other_names_are_refused(client, headers, status):
    answer = client("/api/collections", headers=headers)
    assert answer.status == status
    assert ("error" in answer.json) == (status != 200)


@pytest.mark.any_duckdb
def test_a_link_on_another_page_may_lead_here(client):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client("/", headers=headers).status == 200
    assert client("/api/collections", headers=headers).status == 403


@pytest.mark.any_duckdb
def test_a_public_server_takes_addresses_and_its_own_name_only(workspace):
    con = rasteret_sql.connect(workspace=workspace)
    with serving(con, tokens=[], is_public=True) as server:
        client = Client(server, con)
        assert client("/", headers={"Host": "192.168.1.20:8765", "Cookie": None}).status == 200
        assert client("/", headers={"Host": "evil.example"}).status == 421
    con.close()


@pytest.mark.any_duckdb
def test_the_page_loads_nothing_from_elsewhere(client):
    policy = client("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    page = client("/").body.decode()
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)
    assert "<script>" not in page
    assert "style=" not in page


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/vendor/../map.js",
        "/static/none.js",
        "/static/vendor/uPlot.LICENSE.txt",
        "/etc/passwd",
        "/tiles/s2/14/1.png",
        "/tiles/s2/14/1/2/3.png",
        "/tiles/none/1/0/0.png",
        "/api/collections/none/scenes",
        "/pictures/s2/none.png",
        "/api/collections/s2/scenes/none",
    ],
)
def test_what_is_not_there_is_404(client, path):
    answer = client(path)
    assert answer.status == 404
    assert "expected" in answer.json["error"]


@pytest.mark.any_duckdb
def test_a_tile_outside_the_world_is_refused(client):
    for path in ("1/2/0", "1/0/2", "99/0/0"):
        assert client(f"/tiles/s2/{path}.png").status == 400


@pytest.mark.any_duckdb
def test_bodies_are_bounded_and_other_methods_refused(client):
    assert (
        client("/api/collections/s2/zone", "POST", headers={"Content-Length": "9" * 9}).status
        == 413
    )
    assert client("/api/collections/s2/zone", "POST", body=b"\xff").status == 400
    assert client("/api/collections/s2/zone").status == 404
    assert client("/", "DELETE").status == 501
    head = client("/", "HEAD")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.any_duckdb
def test_licences_of_what_is_vendored_are_kept():
    folder = Path(rasteret_sql.__file__).parent / "maps" / "page" / "vendor"
    assert sorted(path.name for path in folder.iterdir()) == [
        "countries.LICENSE.txt",
        "countries.json",
        "maplibre-gl-worker.mjs",
        "maplibre-gl.LICENSE.txt",
        "maplibre-gl.css",
        "maplibre-gl.mjs",
        "uPlot.LICENSE.txt",
        "uPlot.iife.min.js",
        "uPlot.min.css",
    ]


@pytest.mark.any_duckdb
def test_countries_come_with_the_page_and_are_small(client):
    answer = client("/static/vendor/countries.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert len(answer.body) < 300_000
    names = [one["properties"]["name"] for one in answer.json["objects"]["countries"]["geometries"]]
    assert len(names) > 200
    assert {"India", "Brazil", "Kenya"} < {*names}


def test_scenes_are_filtered_by_date_column_and_place(client):
    def found(**query):
        answer = client("/api/collections/s2/scenes", **query).json
        ids = [one["properties"]["id"] for one in answer["scenes"]["features"]]
        return answer["total"], answer["in_view"], ids

    assert found()[:2] == (6, 6)
    assert found(date="2024-02-09")[0] == 2
    assert found(date="2024-02-01/")[0] == 4
    assert found(date="/2024-02-09")[0] == 4
    assert found(where='"eo:cloud_cover" < 20')[0] == 4
    assert found(where='"proj:epsg" = 32643', bbox="78.03,13,78.05,13.01")[:2] == (3, 0)
    assert found(bbox="78.03,13,78.05,13.01", date="2024-03-10")[2] == ["S2A_44PKV_20240310_L2A"]
    answer = client("/api/collections/s2/scenes", where="id LIKE '%43PHQ%'").json
    assert answer["days"] == [["2024-01-10", 1], ["2024-02-09", 1], ["2024-03-10", 1]]
    (first, *_) = answer["scenes"]["features"]
    assert first["properties"]["datetime"] == "2024-03-10T05:22:11Z"
    assert first["properties"]["cloud"] == pytest.approx(5.62)
    assert first["geometry"]["type"] == "Polygon"


@pytest.mark.any_duckdb
def test_a_scene_is_told_without_its_addresses(client, scenes):
    facts = client("/api/collections/s2/scenes/S2A_43PHQ_20240310_L2A").json
    assert facts["proj:epsg"] == 32643
    assert facts["platform"] == "sentinel-2a"
    assert not {"assets", "B04_metadata", "geometry", "bbox"} & set(facts)
    assert str(scenes) not in json.dumps(facts)


@pytest.mark.any_duckdb
def test_times_beyond_those_of_python_leave_the_rest(workspace):
    con = rasteret_sql.connect(workspace=workspace)
    con.execute("CREATE TABLE until AS SELECT *, 'infinity'::TIMESTAMP AS valid_until FROM s2")
    con.execute("CREATE TABLE far AS SELECT * REPLACE (DATE '20000-01-01' AS datetime) FROM s2")
    with serving(con, ["until", "far"], tokens=[TOKEN]) as server:
        client = Client(server, con)
        facts = client("/api/collections/until/scenes/S2A_43PHQ_20240310_L2A").json
        assert ("platform" in facts, "valid_until" in facts) == (True, False)
        answer = client("/api/collections/far/point", lon=77.99, lat=13.01, bands="B04").json
        assert [row["datetime"] for row in answer["rows"]] == [None] * 3
        assert any(row["B04"] for row in answer["rows"])
    con.close()


@pytest.mark.any_duckdb
def test_a_quick_look_comes_from_overviews(client):
    answer = client("/pictures/s2/S2A_43PHQ_20240310_L2A.png", bands="B08", rescale="0,5000")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.image.shape[1] == 192
    assert answer.image[..., 3].any()


@pytest.mark.any_duckdb
def test_bands_that_nothing_can_be_read_of_are_not_shown_first(workspace, scenes, tmp_path):
    """A map of them would be empty, without a word."""
    items = json.loads((scenes / "items.json").read_text())
    for item in items["features"]:
        for band, asset in item["assets"].items():
            name = "gone" if band == "B04" else band
            asset["href"] = str(scenes / item["id"] / f"{name}.tif")
    (tmp_path / "items.json").write_text(json.dumps(items))
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [str(tmp_path / "items.json")])
    con.fetchall()
    with serving(con, ["s2"], tokens=[TOKEN]) as server:
        client = Client(server, con)
        assert client("/api/collections/s2").json["default_bands"] == ["B08"]
        view = {"bbox": "77.9,12.9,78.1,13.1"}
        answer = client("/api/collections/s2/stretch", bands="B04,B08,B08", **view).json
        assert answer["rescale"] is None
        assert answer["note"].startswith("bands: B04 can be read in no scene")
        assert client("/api/collections/s2/stretch", bands="B08", **view).json["rescale"]
    con.close()


@pytest.mark.any_duckdb
def test_a_quick_look_of_an_expression_shows_what_is_computed(client, scenes):
    path = "/pictures/s2/S2A_43PHQ_20240310_L2A.png"
    answer = client(path, expression="(B08 - B04) / 2", rescale="-500,2500", colormap="grey")
    image = answer.image
    is_there = image[..., 3] > 0
    assert 96 < max(image.shape[:2]) <= 192
    assert is_there.mean() > 0.8
    red, nir = (
        rasterio.open(scenes / "S2A_43PHQ_20240310_L2A" / f"{band}.tif").read(1, masked=True)
        for band in ("B04", "B08")
    )
    wanted = (nir.astype(float) - red) / 2
    shown = image[..., 0][is_there] / 255 * 3000 - 500
    assert shown.mean() == pytest.approx(wanted.clip(-500, 2500).mean(), abs=60)
    assert shown.std() == pytest.approx(wanted.clip(-500, 2500).std(), rel=0.15)
    assert client(path, expression="(B08 - B04) / 2", rescale="-500,2500").body == answer.body
    assert client(path, expression="rasteret_ndvi(B04, B08)").image[..., 3].any()
    assert client(path, expression="(SELECT 1)").status == 400
    missing = client(path.replace("43PHQ", "none"), expression="B08 + 1")
    assert missing.status == 404
    assert "a scene of s2 with B08" in missing.json["error"]


def test_a_point_has_the_values_that_rasterio_reads(client, scenes):
    lon, lat = 78.0, 13.02
    answer = client("/api/collections/s2/point", lon=lon, lat=lat, bands="B08").json
    assert len(answer["rows"]) == 6
    for row in answer["rows"]:
        with rasterio.open(scenes / row["id"] / "B08.tif") as file:
            (x,), (y,) = transform("EPSG:4326", file.crs, [lon], [lat])
            (value,) = next(file.sample([(x, y)]))
        assert row["B08"] == (value or None)
    same = client(
        "/api/collections/s2/point", lon=lon, lat=lat, expression="B08 - 10000",
        where='"eo:cloud_cover" < 20', date="2024-02-01/",
    ).json["rows"]  # fmt: skip
    assert [row["value"] for row in same] == [row["B08"] - 10000 for row in answer["rows"][4:]]


def test_a_polygon_has_the_statistics_of_its_pixels(client, scenes):
    answer = client(
        "/api/collections/s2/zone", "POST", body=json.dumps(POLYGON).encode(), bands="B08"
    ).json
    own = client(
        "/api/collections/s2/zone", "POST", body=json.dumps(POLYGON).encode(),
        expression="B08 * 2",
    ).json  # fmt: skip
    rows = {row["id"]: row for row in answer["rows"]}
    doubled = {row["id"]: row for row in own["rows"]}
    assert len(rows) == len(doubled) == 6
    for name, row in rows.items():
        with rasterio.open(scenes / name / "B08.tif") as file:
            area = transform_geom("EPSG:4326", file.crs, POLYGON)
            inside = geometry_mask([area], file.shape, file.transform, invert=True)
            values = file.read(1)[inside]
        values = values[values != 0].astype(np.float64)
        assert row["count"] == values.size
        if not values.size:
            assert row["mean"] is None
            continue
        assert row["mean"] == pytest.approx(values.mean())
        assert row["stddev"] == pytest.approx(values.std())
        assert doubled[name]["mean"] == pytest.approx(2 * values.mean())
    again = client.con.sql(answer["sql"]).to_arrow_table().to_pylist()
    assert [row["mean"] for row in again] == [row["mean"] for row in answer["rows"]]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "body", ["", "{}", '{"type": "Point", "coordinates": [1, 2]}', "[", "null"]
)
def test_what_is_no_polygon_is_refused(client, body):
    answer = client("/api/collections/s2/zone", "POST", body=body.encode(), bands="B08")
    assert answer.status == 400
    assert answer.json["error"].startswith("geometry: expected a polygon as GeoJSON")


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "place", [{"lon": "x", "lat": 1}, {"lon": 181, "lat": 1}, {"lat": 1}, {"lon": "nan", "lat": 0}]
)
def test_what_is_no_place_is_refused(client, place):
    answer = client("/api/collections/s2/point", **place)
    assert answer.status == 400
    assert answer.json["error"].startswith("lon: expected a number from -180 to 180")


@pytest.mark.any_duckdb
def test_a_file_that_is_gone_is_told_and_the_server_goes_on(tmp_path, scenes):
    con = rasteret_sql.connect(workspace=tmp_path)
    path = tmp_path / "a.tif"
    path.write_bytes((scenes / "S2A_43PHQ_20240310_L2A" / "B08.tif").read_bytes())
    with serving(con, [str(path)], tokens=[TOKEN]) as server:
        client = Client(server, con)
        path.unlink()
        query = {"rescale": "0,5000"}
        answer = client("/tiles/files/14/11741/7594.png", **query)
        assert answer.status == 404
        assert "a.tif" in answer.json["error"]
        assert client("/api/collections").status == 200
    con.close()


@pytest.mark.any_duckdb
def test_secrets_of_addresses_are_not_shown(tmp_path):
    con = rasteret_sql.connect(workspace=tmp_path)
    run = Connections(con, 1, 5)
    with pytest.raises(InputError) as failed:
        run.table("SELECT error('see https://me:pw@host/a.tif?sig=SECRET&v=1')")
    assert "SECRET" not in failed.value.message
    assert "pw@" not in failed.value.message
    con.close()


def test_an_answer_that_takes_too_long_is_stopped(tmp_path):
    con = rasteret_sql.connect(workspace=tmp_path)
    run = Connections(con, 1, 0.2)
    with pytest.raises(InterruptedReadError, match=r"expected 0\.2 seconds or less, got more"):
        run.table("SELECT count(*) FROM range(10000000000) t(i) WHERE i % 7 = 1")
    assert run.table("SELECT 1 AS one").column("one").to_pylist() == [1]
    with pytest.raises(InterruptedReadError, match="it has gone"):
        run.table("SELECT 1", lambda: False)
    con.close()


@pytest.mark.any_duckdb
def test_faults_of_the_start_are_told(tmp_path, workspace):
    with pytest.raises(InputError, match=r"host: expected 127\.0\.0\.1, got '0\.0\.0\.0'"):
        serve_map(workspace=tmp_path, host="0.0.0.0")
    con = rasteret_sql.connect(workspace=tmp_path)
    with (
        pytest.raises(UnknownCollectionError, match=f"none in {tmp_path}"),
        serving(con, tokens=[]),
    ):
        pass
    with (
        pytest.raises(UnknownCollectionError, match=r"\(none\), .*got 'nope'"),
        serving(con, ["nope"], tokens=[]),
    ):
        pass
    con.execute("CREATE TABLE plain AS SELECT 1 AS id")
    with (
        pytest.raises(UnknownCollectionError, match="columns id, geometry"),
        serving(con, ["plain"], tokens=[]),
    ):
        pass
    con.close()
    con = rasteret_sql.connect(workspace=workspace)
    with (
        serving(con, tokens=[]) as server,
        pytest.raises(InputError, match="port: expected a free one"),
        serving(con, tokens=[], port=server.port),
    ):
        pass
    con.close()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_and_ends_on_a_signal(workspace, number):
    command = heeding_ctrl_c(
        "-m", "rasteret_sql", "map", "s2", "--workspace-dir", str(workspace), "--port", "0"
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = urlsplit(process.stdout.readline().strip())
        assert (address.scheme, address.hostname) == ("http", "127.0.0.1")
        assert re.fullmatch(r"token=[\w-]{32}", address.query)
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == ""


def test_several_files_and_queries_have_names_of_their_own(tmp_path, scenes):
    con = rasteret_sql.connect(workspace=tmp_path)
    con.execute("CREATE TABLE files AS SELECT 1 AS mine")
    paths = [str(scenes / "S2A_43PHQ_20240310_L2A" / f"{band}.tif") for band in ("B04", "B08")]
    queries = [f"SELECT * FROM rasteret_files('{path}')" for path in paths]
    with serving(con, [*paths, *queries], tokens=[TOKEN]) as server:
        found = Client(server, con)("/api/collections").json["collections"]
        assert sorted(found) == ["files_2", "files_3", "query", "query_2"]
    assert con.execute("FROM files").fetchall() == [(1,)]
    con.close()


def test_a_server_that_is_stopped_while_it_answers_ends_quietly(workspace):
    """DuckDB 1.5 aborted, and 2.0 printed what leaks, where a thread was inside of it."""
    program = subprocess.Popen(
        heeding_ctrl_c(
            "-m", "rasteret_sql", "map", "s2", "--workspace-dir", str(workspace), "--port", "0"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    address, token = program.stdout.readline().strip().split("/?token=")
    tile = tile_at(78.0, 13.015, 14)[0]

    def ask(number):
        query = urlencode({"expression": f"B08 + {number}", "rescale": "0,5000", "token": token})
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(f"{address}/tiles/s2/{tile}.png?{query}", timeout=20).read()

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for client in clients:
        client.start()
    time.sleep(0.5)
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=40)
    for client in clients:
        client.join()
    assert (program.returncode, errors) == (0, "")
