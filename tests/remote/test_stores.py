"""From an href to a store and a key; one store for all that can share it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.range_server import RangeServer
from storages import storage

from rasteret_sql.errors import InputError, ReadError
from rasteret_sql.remote import stores
from rasteret_sql.remote.exact import ExactUrl
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range, get_start
from rasteret_sql.remote.stores import (
    is_local,
    is_remote,
    locate,
    rewrite,
)

ODD_NAMES = ["a b.tif", "a+b.tif", "a#b.tif", "a?b.tif", "a%2Bb.tif", "ä^[1]{2}|'.tif"]


@pytest.mark.parametrize(
    ("href", "remote"),
    [
        ("/data/a.tif", False),
        ("a.tif", False),
        ("C:/a.tif", False),
        ("C:\\a.tif", False),
        ("file:///a.tif", False),
        ("FILE:///a.tif", False),
        ("a://b", False),
        ("s3://b/a.tif", True),
        ("https://a.org/a.tif", True),
        ("HTTP://a.org/a.tif", True),
    ],
)
def test_paths_and_file_urls_are_local(href: str, remote: bool) -> None:
    assert (is_remote(href), is_local(href)) == (remote, not remote)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_with_odd_letters_is_read_from_everywhere(
    server: RangeServer, folder: Path, name: str
) -> None:
    path = folder / name
    hrefs = [str(path), path.as_uri(), server.url("data", name), server.url("data", name) + "?x=1"]
    for href in hrefs:
        assert get_start(href).data == name.encode()


def test_a_path_is_sent_as_it_was_written(server: RangeServer) -> None:
    sent = [
        "/data/a%2Bb.tif",
        "/data/a+b.tif",
        "/data/a%20b.tif",
        "/data/%C3%A4.tif",
        "/data//a.tif",
        "/data/a%2Fb.tif",
        "/data/%7Ea.tif?b&a=1",
        "/data/a.tif?sig=a%2Fb%2Bc%3D",
        "/data/a.tif?sr=c&sig=a%2Fb%2Bc%3D",
        "/data/a&b=c;d,e'f(g)!$*@:.tif",
    ]
    for path in sent:
        with contextlib.suppress(ReadError):
            get_range(server.origin + path, 0, 1)
    assert [r["path"] for r in server.requests()] == sent


def test_a_space_that_was_not_encoded_is(server: RangeServer) -> None:
    assert get_start(f"{server.origin}/data/a b.tif").data == b"a b.tif"


def test_one_origin_is_one_store_and_one_signature_is_another() -> None:
    first = locate("https://a.org/x/1.tif").store
    assert locate("https://a.org/y/2.tif").store is first
    assert locate("https://b.org/x/1.tif").store is not first
    shared = locate("https://c.blob.core.windows.net/k/1.tif?sr=c&sig=abc").store
    assert locate("https://c.blob.core.windows.net/k/2.tif?sr=c&sig=abc").store is shared
    assert locate("https://c.blob.core.windows.net/k/2.tif?sr=c&sig=new").store is not shared
    assert isinstance(locate("https://a.org/1.tif?X-Amz-Signature=abc").store, ExactUrl)


@pytest.mark.parametrize("query", ["", "?sr=c&sig=abc", "?X-Amz-Signature={}"])
def test_connections_are_used_again(server: RangeServer, query: str) -> None:
    hrefs = [server.url("data", "a.tif") + query.format(i) for i in range(40)]
    for href in hrefs:
        get_range(href, 0, 100)
    # a client may open one while another comes free, the more so on a busy machine
    assert server.connections() <= 10
    server.set(latency_ms=5)
    list(lanes(8).map(lambda href: get_range(href, 0, 100), hrefs * 4))
    # eight lanes, and as above
    assert server.connections() <= 40


def test_a_location_does_not_show_what_is_secret() -> None:
    secret = "https://me:pw@a.org/1.tif?X-Amz-Signature=SECRET"
    location = locate(secret)
    assert location.href == "https://a.org/1.tif"
    assert "SECRET" not in repr(location)
    assert "pw" not in repr(location)


def test_a_relative_path_starts_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tif").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert get_start("a.tif").data == name.encode()


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="expected a path or a URL of http, https, s3"):
        locate("ftp://a.org/a.tif?token=SECRET")


@given(
    st.text("ab/", max_size=6),
    st.dictionaries(st.text("ab/", min_size=1, max_size=3), st.text("xy", max_size=3), max_size=4),
)
def test_rewriting_takes_the_longest_prefix(href: str, mapping: dict[str, str]) -> None:
    longest = max((p for p in mapping if href.startswith(p)), key=len, default="")
    assert rewrite(href, mapping) == mapping.get(longest, "") + href[len(longest) :]


def test_many_threads_make_one_store() -> None:
    with ThreadPoolExecutor(32) as pool:
        stores = list(pool.map(lambda i: locate(f"https://a.org/{i}.tif").store, range(200)))
    assert all(store is stores[0] for store in stores)


def test_new_options_reach_the_next_request(server: RangeServer) -> None:
    href = server.url("data", "a.tif", fault="private")
    with pytest.raises(ReadError, match="HTTP 403"):
        get_start(href)
    storage(server.origin, headers={"Authorization": "Bearer t0ken"})
    assert get_start(href, 4).size
    storage(server.origin)
    with pytest.raises(ReadError, match="HTTP 403"):
        get_start(href)


@pytest.mark.parametrize("query", ["", "?sr=c&sig=1", "?sig=1"])
def test_user_and_password_of_a_url_are_sent(server: RangeServer, query: str) -> None:
    href = server.url("data", "a.tif", fault="private").replace("//", "//me:p%40w@") + query
    assert get_start(href, 4).size
    (request,) = server.requests()
    assert request["headers"]["authorization"] == "Basic bWU6cEB3"


def test_keys_for_one_host_are_not_sent_to_another(server: RangeServer) -> None:
    with RangeServer() as other:
        for query in ("", "?X-Amz-Signature=1"):
            other.reset()
            storage(other.origin, headers={"Authorization": "Bearer t0ken"})
            host = server.origin.removeprefix("http://")
            get_start(f"{other.origin}/elsewhere/{host}/data/a.tif{query}", 4)
            assert other.requests()[0]["headers"]["authorization"] == "Bearer t0ken"
    assert len(server.requests()) == 2
    assert not any("authorization" in r["headers"] for r in server.requests())


def test_a_rewritten_prefix_leads_elsewhere(server: RangeServer, folder: Path) -> None:
    storage("s3://gone/", url_rewrite=f"{server.origin}/data/")
    assert get_start("s3://gone/tiny.tif").data == b"II*\0"
    storage("s3://gone/", url_rewrite=f"{folder}/")
    assert get_start("s3://gone/tiny.tif").data == b"II*\0"
    assert len(server.requests()) == 1


CHILDREN = """
import multiprocessing, sys
from rasteret_sql.errors import ReadError
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range

def read(href):
    try:
        return bytes(lanes(4).submit(get_range, href, 0, 9).result(20))
    except ReadError as error:
        return str(error)

if __name__ == "__main__":
    hrefs = sys.argv[2:]
    here = [read(href) for href in hrefs]
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        there = pool.map(read, hrefs)
    print(here == there, there[-1])
"""


def _parent_and_child(folder: Path, kind: str, *hrefs: str) -> str:
    script = folder / "children.py"
    script.write_text(CHILDREN)
    done = subprocess.run(
        [sys.executable, str(script), kind, *hrefs],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_child_process_reads_too(
    server: RangeServer, folder: Path, tmp_path: Path, kind: str
) -> None:
    url = server.url("data", "a.tif")
    said = _parent_and_child(tmp_path, kind, url, f"{url}?sig=1", str(folder / "a.tif"))
    assert said.startswith("True")


@pytest.mark.parametrize("query", ["", "?sig=1"])
def test_a_request_that_hangs_does_not_keep_the_process(server: RangeServer, query: str) -> None:
    href = server.url("data", "a.tif", fault="hang") + query
    code = (
        "import json, sys, urllib.request\n"
        "from rasteret_sql.remote.lanes import lanes\n"
        "from rasteret_sql.remote.ranges import get_range\n"
        "lanes(2).submit(get_range, sys.argv[1], 0, 4)\n"
        "while not json.load(urllib.request.urlopen(sys.argv[2])): pass\n"
    )
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, href, f"{server.origin}/__log"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 15  # the request itself would end after half a minute
    assert len(server.requests()) == 1


def test_a_forked_child_is_told_what_it_can_not_read(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.origin)
    said = _parent_and_child(tmp_path, "fork", "s3://data/a.tif")
    assert "or multiprocessing's 'spawn'" in said


def test_a_forked_child_reads_public_buckets_by_their_web_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    href = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/B04.tif"
    assert not isinstance(locate(href).store, ExactUrl)
    stores.stores_in_use().start_over()
    monkeypatch.setattr(stores, "_forked", True)
    assert isinstance(locate(href).store, ExactUrl)
    storage("s3://sentinel-cogs/", credentials={"access_key_id": "a", "secret_access_key": "b"})
    with pytest.raises(ReadError, match="got a fork"):
        locate(href)
