"""The page, in headless Chromium."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import imagecodecs
import numpy as np
import pytest
from maps import browser
from maps.browser import Browser
from maps.conftest import TOKEN

import rasteret_sql
from rasteret_sql.maps import serving

pytestmark = [
    pytest.mark.any_duckdb,
    pytest.mark.skipif(browser.find() is None, reason="Chromium is not installed"),
]
MAP = (slice(60, 640), slice(400, 1200))
"""Rows and columns of a picture where the map lies, and nothing on it."""

LAND, WATER = (0xF7, 0xF7, 0xF4), (0xE7, 0xEB, 0xEF)

EXPECTED = ("GPU stall", "status of 400")


@pytest.fixture(scope="module")
def page(client, tmp_path_factory):
    """The page, when it has drawn all scenes of the newest day."""
    found = Browser(tmp_path_factory.mktemp("profile"))
    found.open(f"{client.address}?token={TOKEN}")
    found.wait("document.body.dataset.ready === 'yes'")
    drawn(found)
    yield found
    found.close()


def drawn(page):
    """Wait until the scenes are listed and their tiles are there."""
    page.run("new Promise((done) => setTimeout(done, 350))")  # what is typed is heeded after 250 ms
    for _ in range(2):  # tiles are asked for when their limits are known
        page.wait(
            "document.body.dataset.waiting === '0' && document.body.dataset.idle === 'yes' && "
            "document.querySelectorAll('#scenes li').length"
        )
        page.run("new Promise((done) => setTimeout(done, 100))")


def seen(page, folder):
    """What is seen, shape (rows, columns, channels)."""
    return imagecodecs.png_decode(page.picture(folder / "page.png").read_bytes())


def put(page, name, value, kind="change"):
    page.run(
        f"(() => {{ const one = document.getElementById('{name}'); one.value = `{value}`; "
        f"one.dispatchEvent(new Event('{kind}')); }})()"
    )


def text(page, selector):
    return page.run(f"document.querySelector('{selector}').textContent")


def box(page, selector):
    script = f"document.querySelector('{selector}').getBoundingClientRect().toJSON()"
    return page.run(script)


def show_ndvi(page):
    page.run("document.querySelector('input[value=expression]').click()")
    drawn(page)


def test_it_opens_with_the_newest_scenes_and_without_the_token(page, client, tmp_path):
    assert page.run("location.href") == client.address
    assert text(page, "#day") == "2024-03-10"
    assert text(page, "#count") == "2 scenes, 2 in view"
    page.wait("[...document.querySelectorAll('#scenes img')].every((one) => one.naturalWidth)")
    image = seen(page, tmp_path)[MAP][..., :3].astype(int)
    is_grey = (np.ptp(image, axis=-1) == 0).mean()
    assert is_grey > 0.6, "a band in grey covers the map"


def test_an_expression_is_drawn_in_colours(page, tmp_path):
    show_ndvi(page)
    image = seen(page, tmp_path)[MAP][..., :3].astype(int)
    is_green = (image[..., 1] > image[..., 0] + 40).mean()
    assert is_green > 0.4
    low, high = (
        float(page.run(f"document.getElementById('{name}').value")) for name in ("low", "high")
    )
    assert -0.2 < low < 0.3 < 0.6 < high < 1


def test_a_click_draws_values_over_time(page):
    show_ndvi(page)
    page.click(800, 400)
    page.wait("document.querySelector('#plot canvas')")
    assert "rasteret_ndvi(B04, B08)" in text(page, "#chart h2")
    assert page.run("document.querySelectorAll('#plot .u-series').length") == 2
    values = "[...document.querySelectorAll('#plot .u-value')].map((one) => one.textContent)"
    day, value = page.run(values)
    assert day == "2024-03-10 05:22"  # of the day that is shown, without the pointer
    assert -1 <= float(value) <= 1
    page.run("document.getElementById('previous').click()")
    page.run("document.getElementById('previous').click()")
    drawn(page)
    assert page.run(values)[0] == "2024-01-10 05:22"
    page.run("document.getElementById('next').click()")
    page.run("document.getElementById('next').click()")
    drawn(page)
    page.run("document.getElementById('chart-close').click()")
    assert page.run("document.getElementById('chart').hidden")


def test_the_page_says_what_a_click_does(page):
    hint = "document.getElementById('hint')"
    assert text(page, "#hint") == "Click the map for values over time"
    assert not page.run(f"{hint}.hidden")
    page.run("document.getElementById('draw').click()")
    assert text(page, "#hint").startswith("Click the corners, double-click the last one")
    assert box(page, "#hint")["right"] < box(page, ".maplibregl-ctrl-top-right")["left"]
    page.run("dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert text(page, "#hint") == "Click the map for values over time"
    page.click(800, 400)
    page.wait("document.querySelector('#plot canvas')")
    assert page.run(f"{hint}.hidden")
    page.run("document.getElementById('chart-close').click()")
    assert not page.run(f"{hint}.hidden")


def test_a_polygon_is_drawn_and_its_sql_is_shown(page, client):
    show_ndvi(page)
    page.run("document.getElementById('draw').click()")
    for x, y in ((600, 300), (700, 300), (690, 380)):
        page.click(x, y)
        time.sleep(0.4)  # two clicks within 300 ms are a double-click
    page.click(610, 390, count=2)
    page.wait("document.querySelector('#plot canvas')")
    page.run("document.getElementById('sql-button').click()")
    page.wait("document.querySelectorAll('#sql pre').length === 2")
    statements = page.run(
        "[...document.querySelectorAll('#sql pre')].map((one) => one.textContent)"
    )
    assert box(page, "#sql")["bottom"] < box(page, "#chart")["top"]
    series, tile = (client.con.sql(statement).to_arrow_table() for statement in statements)
    assert series.num_rows == 6
    assert series.column("count").to_pylist()[0] > 1000
    assert tile.num_rows > 10_000
    page.run("document.getElementById('sql-button').click()")
    page.run("document.getElementById('clear').click()")


def test_dates_filters_and_scenes(page):
    page.run("document.getElementById('previous').click()")
    drawn(page)
    assert text(page, "#day") == "2024-02-09"
    assert "cloud" in text(page, "#scenes small")
    put(page, "cloud", 20, "input")
    page.wait("document.getElementById('day').textContent === '2024-03-10'")
    put(page, "cloud", 100, "input")
    page.run("document.getElementById('all-dates').click()")
    page.wait("document.getElementById('count').textContent === '6 scenes, 6 in view'")
    page.run("document.getElementById('add-filter').click()")
    page.run(
        "(() => { const [column, sign, value] = document.querySelectorAll('.filter select, "
        ".filter input'); column.value = 'proj:epsg'; value.value = '32644'; "
        "value.dispatchEvent(new Event('change')); })()"
    )
    page.wait("document.getElementById('count').textContent.startsWith('3 scenes')")
    page.run("document.querySelector('.filter button').click()")
    page.wait("document.getElementById('count').textContent.startsWith('6 scenes')")
    page.run("document.getElementById('all-dates').click()")
    page.wait("document.getElementById('day').textContent === '2024-03-10'")
    drawn(page)
    page.run("document.querySelector('#scenes li > button').click()")
    page.wait("document.querySelector('#scenes dl')")
    assert "sentinel-2a" in text(page, "#scenes dl")
    page.run("document.querySelector('#scenes li.is-chosen > button').click()")


def test_what_is_wrong_is_told(page):
    show_ndvi(page)
    put(page, "expression", "(SELECT 1)")
    page.wait("!document.getElementById('error').hidden")
    assert text(page, "#error span").startswith("expression: expected an expression over bands")
    invalid = "document.getElementById('expression').getAttribute('aria-invalid')"
    assert page.run(invalid) == "true"
    assert page.run("document.getElementById('legend').hidden")
    put(page, "expression", "rasteret_ndvi(B04, B08)")
    page.wait("document.getElementById('error').hidden")
    assert page.run(invalid) == "false"
    put(page, "expression", "B04 = 'x'")
    page.wait("!document.getElementById('error').hidden")
    assert "Could not convert" in text(page, "#error span")
    put(page, "expression", "rasteret_ndvi(B04, B08)")


def test_labels_of_the_grid_leave_the_scale_free(page):
    scale = box(page, ".maplibregl-ctrl-scale")
    labels = page.run(
        "[...document.querySelectorAll('#grid-labels span')].map((one) => "
        "one.getBoundingClientRect().toJSON())"
    )
    assert len(labels) > 6
    for one in labels:
        assert one["right"] < scale["left"] or one["bottom"] < scale["top"]


def test_thumbnails_show_the_expression(page):
    show_ndvi(page)
    put(page, "expression", "rasteret_ndvi(B04, B08)")
    drawn(page)
    page.wait("[...document.querySelectorAll('#scenes img')].every((one) => one.naturalWidth)")
    addresses = page.run("[...document.querySelectorAll('#scenes img')].map((one) => one.src)")
    assert len(addresses) == 2
    assert all("expression=rasteret_ndvi" in one and "rdylgn" in one for one in addresses)
    colours = page.run(
        "(() => { const canvas = document.createElement('canvas'); canvas.width = canvas.height = "
        "40; const paint = canvas.getContext('2d'); paint.drawImage(document.querySelector("
        "'#scenes img'), 0, 0, 40, 40); return [...paint.getImageData(0, 0, 40, 40).data]; })()"
    )
    red, green = colours[0::4], colours[1::4]
    assert sum(g > r + 30 for r, g in zip(red, green, strict=True)) > 400  # of 1600 pixels


def test_countries_are_drawn_where_the_map_is_not_close(page, tmp_path):
    assert page.run("document.querySelectorAll('#country-labels span').length") == 0
    for _ in range(9):
        page.run("document.querySelector('.maplibregl-ctrl-zoom-out').click()")
        page.run("new Promise((done) => setTimeout(done, 400))")
    drawn(page)
    names = page.run(
        "[...document.querySelectorAll('#country-labels span')].map((one) => one.textContent)"
    )
    assert {"India", "Bangladesh"} <= {*names}
    image = seen(page, tmp_path)[MAP][..., :3].astype(int)
    land, water = ((image == colour).all(axis=-1).mean() for colour in (LAND, WATER))
    assert 0.2 < land < 0.8
    assert 0.1 < water < 0.8
    put(page, "collection", "s2")
    drawn(page)
    assert page.run("document.querySelectorAll('#country-labels span').length") == 0
    show_ndvi(page)


def test_no_other_server_was_asked_and_nothing_was_refused(page, client):
    hosts = {
        urlsplit(one).netloc for one in page.requests if not one.startswith(("data:", "blob:"))
    }
    assert hosts == {f"127.0.0.1:{client.server.port}"}
    assert len(page.requests) > 30
    assert [one for one in page.complaints if not any(part in one for part in EXPECTED)] == []


def test_a_collection_of_a_qualified_name_is_chosen(page, workspace):
    con = rasteret_sql.connect(workspace=workspace)
    con.execute('CREATE SCHEMA lake; CREATE TABLE lake."a b/{c}?" AS FROM s2')
    with serving(con, ["s2", 'lake."a b/{c}?"'], tokens=[TOKEN]) as server:
        page.open(f"http://127.0.0.1:{server.port}/?token={TOKEN}")
        page.wait("document.body.dataset.ready === 'yes'")
        drawn(page)
        put(page, "collection", "lake.a b/{c}?")
        page.wait("document.getElementById('count').textContent.startsWith('2 scenes')")
        drawn(page)
        tiles = [one for one in page.requests if "/tiles/lake.a%20b%2F%7Bc%7D%3F/" in one]
        assert len(tiles) > 3
        page.wait("[...document.querySelectorAll('#scenes img')].every((one) => one.naturalWidth)")
        assert page.run("document.getElementById('error').hidden")
        page.open("about:blank")
    con.close()


def test_rasters_without_dates_are_drawn(page, scenes, tmp_path):
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    file = str(scenes / "S2A_43PHQ_20240310_L2A" / "B08.tif")
    with serving(con, [file], tokens=[TOKEN]) as server:
        page.open(f"http://127.0.0.1:{server.port}/?token={TOKEN}")
        page.wait("document.getElementById('day').textContent === 'no dates'")
        drawn(page)
        image = seen(page, tmp_path)[MAP][..., :3].astype(int)
        assert (np.ptp(image, axis=-1) == 0).mean() > 0.4
        page.open("about:blank")
    con.close()
