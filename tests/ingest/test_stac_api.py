"""STAC APIs: a real server (rustac) for the search, one of our own for the faults."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from rasteret_sql.errors import (
    AccessDeniedError,
    CollectionError,
    InputError,
    NotFoundError,
    RasteretError,
    ReadError,
)
from rasteret_sql.ingest.stac import api as stac_api
from rasteret_sql.ingest.stac.search import StacSource, read_items

pytestmark = pytest.mark.any_duckdb

N_ITEMS = 53
RUSTAC = shutil.which("rustac", path=str(Path(sys.executable).parent))


def make_item(number: int) -> dict:
    west = -180 + 6 * number if number < 50 else 178 + 0.5 * (number - 50)
    day = f"2024-01-{number % 28 + 1:02d}T{number % 24:02d}:30:00Z"
    box = [west, 0, west + 1, 1]
    ring = [[west, 0], [west + 1, 0], [west + 1, 1], [west, 1], [west, 0]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"item-{number:03d}",
        "collection": "even" if number % 2 == 0 else "odd",
        "bbox": box,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": day, "eo:cloud_cover": number},
        "links": [],
        "assets": {"red": {"href": f"https://host/{number}.tif", "type": "image/tiff"}},
    }


@pytest.fixture(scope="module")
def items_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "items.json"
    document = {"type": "FeatureCollection", "features": [make_item(n) for n in range(N_ITEMS)]}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def api(items_file):
    script = Path(__file__).with_name("stac_api_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(items_file)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def rustac(items_file):
    if RUSTAC is None:
        pytest.skip("rustac is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [RUSTAC, "serve", "-a", address, "--create-collections", str(items_file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://{address}/", process)
        yield f"http://{address}/"
    finally:
        process.kill()
        process.wait()


def wait_for(url, process):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        try:
            fetch(url)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
        else:
            return
    pytest.skip("rustac does not serve here")


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def search(url, **conditions):
    warnings: list[str] = []
    source = StacSource(url, **conditions)
    found = [item["id"] for item in read_items(source, fetch_text=fetch, warnings=warnings)]
    return found, warnings


def searches(api, mode):
    log = json.loads(fetch(f"{api}/_log"))
    return [entry for entry in log if entry["mode"] == mode]


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(stac_api, "PAGE_ITEMS", 10)


CONDITIONS = [
    {},
    {"bbox": (0, -5, 30, 5)},
    {"bbox": (170, -5, -170, 5)},
    {"date_range": ("2024-01-05", "2024-01-07")},
    {"date_range": ("2024-01-20", None)},
    {"collection": "odd"},
    {"ids": ["item-003", "item-017"]},
    {"query": {"eo:cloud_cover": {"lt": 10}}},
    {"intersects": "POLYGON ((0 0, 40 0, 40 1, 0 1, 0 0))"},
    {"max_items": 13},
]


@pytest.mark.parametrize("conditions", CONDITIONS, ids=lambda c: ",".join(c) or "all")
def test_a_real_server_and_a_file_of_the_same_items_answer_alike(
    rustac, items_file, conditions, small_pages
):
    from_api, warnings = search(rustac, **conditions)
    from_file, _ = search(str(items_file), **conditions)
    assert warnings == []
    if "max_items" in conditions:
        assert len(from_api) == len(from_file) == 13
    else:
        assert sorted(from_api) == sorted(from_file)
        assert from_api


@pytest.mark.parametrize("mode", ["post", "merge", "get", "empty", "osdd"])
def test_every_page_is_read_however_the_next_one_is_named(api, mode, small_pages):
    found, warnings = search(f"{api}/{mode}")
    assert found == [f"item-{n:03d}" for n in range(N_ITEMS)]
    assert warnings == []
    asked = searches(api, mode)
    assert {entry["method"] for entry in asked} == {
        "GET" if mode in {"get", "empty", "osdd"} else "POST"
    }
    assert len(asked) == 6 + (mode == "empty")


@pytest.mark.parametrize("mode", ["429", "503"])
def test_a_busy_server_is_asked_again_after_what_it_says(api, mode, small_pages):
    found = list(read_items(StacSource(f"{api}/{mode}", max_items=25)))
    assert [item["id"] for item in found] == [f"item-{n:03d}" for n in range(25)]


def test_a_limit_that_the_server_refuses_is_lowered(api):
    found, _ = search(f"{api}/limit")
    assert len(found) == N_ITEMS
    assert [entry["asked"]["limit"] for entry in searches(api, "limit")][:2] == [200, 20]


def test_a_lowered_limit_goes_on_where_pages_are_merged(api):
    found, warnings = search(f"{api}/small-merge")
    assert found == [f"item-{n:03d}" for n in range(N_ITEMS)]
    assert warnings == []
    limits = [entry["asked"]["limit"] for entry in searches(api, "small-merge")]
    assert limits == [200, 20, 20, 20]


def test_an_answer_that_is_cut_short_is_asked_for_again(api):
    found, warnings = search(f"{api}/cut")
    assert found == [f"item-{n:03d}" for n in range(N_ITEMS)]
    assert warnings == []


def test_an_item_that_two_pages_have_is_given_once(api, small_pages):
    found, _ = search(f"{api}/repeat")
    assert found == [f"item-{n:03d}" for n in range(N_ITEMS)]


def test_a_wait_without_end_is_cut_and_told(api, monkeypatch):
    monkeypatch.setattr(stac_api, "_MAX_WAIT_SECONDS", 0.01)
    found, warnings = search(f"{api}/patient")
    assert len(found) == N_ITEMS
    assert warnings == [f"{api}/patient: asks to wait 100000; waited 0.01 s"]


def test_fewer_items_than_the_server_counts_are_not_passed_over_in_silence(api):
    found, warnings = search(f"{api}/short")
    assert len(found) == N_ITEMS
    assert warnings == [
        f"{api}/short/search: the server counts 58 items for the search but gave 53"
    ]


def test_a_page_that_names_itself_as_the_next_one_ends_the_search(api):
    with pytest.raises(CollectionError, match="the same page again"):
        search(f"{api}/loop")


@pytest.mark.parametrize(
    ("mode", "error"),
    [("401", AccessDeniedError), ("404", NotFoundError), ("html", CollectionError)],
)
def test_a_refusal_has_its_own_error(api, mode, error):
    source = StacSource(f"{api}/{mode}")
    with pytest.raises(error):
        list(read_items(source))


def test_a_server_that_stays_broken_is_reported_without_its_secrets(api, monkeypatch):
    monkeypatch.setattr(stac_api, "_N_RETRIES", 1)
    with pytest.raises(RasteretError, match="HTTP 500") as caught:
        search(f"{api}/500")
    assert "secret" not in caught.value.message


def test_no_server_is_a_read_error(monkeypatch):
    monkeypatch.setattr(stac_api, "_N_RETRIES", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ReadError):
        list(read_items(StacSource(f"http://127.0.0.1:{port}/")))


def test_a_query_is_left_to_a_server_that_declares_it(api):
    found, _ = search(f"{api}/query", query='{"eo:cloud_cover": {"lt": 5}}')
    assert found == []
    assert searches(api, "query")[-1]["asked"]["query"] == {"eo:cloud_cover": {"lt": 5}}


def test_a_query_that_the_server_does_not_know_is_answered_here(api):
    found, _ = search(f"{api}/post", query='{"eo:cloud_cover": {"lt": 5}}')
    assert found == [f"item-{n:03d}" for n in range(5)]
    assert "query" not in searches(api, "post")[-1]["asked"]


def test_a_filter_that_the_server_does_not_know_is_refused(api):
    with pytest.raises(InputError, match="filter"):
        search(f"{api}/post", filter="eo:cloud_cover < 5")


@pytest.mark.parametrize(
    ("cql2", "method", "language"),
    [
        ("eo:cloud_cover < 5", "GET", "cql2-text"),
        ('{"op": "<", "args": [{"property": "x"}, 5]}', "POST", "cql2-json"),
        ({"op": "<", "args": [{"property": "x"}, 5]}, "POST", "cql2-json"),
    ],
)
def test_cql2_goes_to_the_server_as_text_in_an_address_or_as_json_in_a_body(
    api, cql2, method, language
):
    search(f"{api}/filter", filter=cql2)
    entry = searches(api, "filter")[-1]
    assert entry["method"] == method
    assert entry["asked"]["filter-lang"] == language
    as_sent = cql2 if method == "GET" or isinstance(cql2, dict) else json.loads(cql2)
    assert entry["asked"]["filter"] == as_sent


def test_the_address_of_a_collection_of_an_api_searches_that_collection(api):
    search(f"{api}/post/collections/odd")
    assert searches(api, "post")[-1]["asked"]["collections"] == ["odd"]


def test_dates_go_to_the_server_as_closed_utc_ranges(api):
    search(f"{api}/post", date_range=("2024-01", "2024-01-05"))
    asked = searches(api, "post")[-1]["asked"]
    assert asked["datetime"] == "2024-01-01T00:00:00Z/2024-01-05T23:59:59.999999Z"


def test_a_box_across_the_antimeridian_is_asked_for_in_two_halves_without_doubles(api):
    found, _ = search(f"{api}/post", bbox=(170, -5, -170, 5))
    assert len(found) == len(set(found)) == N_ITEMS
    boxes = [entry["asked"]["bbox"] for entry in searches(api, "post")[-2:]]
    assert boxes == [[170.0, -5.0, 180.0, 5.0], [-180.0, -5.0, -170.0, 5.0]]


def test_a_landing_page_without_search_is_no_api(api):
    with pytest.raises(CollectionError, match="item search"):
        list(read_items(StacSource(f"{api}/_log")))
