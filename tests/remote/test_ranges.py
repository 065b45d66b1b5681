"""Byte ranges from disks and a real server, in good times and bad."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.range_server import RangeServer
from storages import storage

from rasteret_sql.errors import AccessDeniedError, InputError, NotFoundError, ReadError
from rasteret_sql.remote.ranges import get_range, get_start, merge_ranges, stat

CONTENT = bytes(range(256)) * 400
SECRET = "?X-Amz-Signature=SECRET"
SHARED_SECRET = "?sr=c&sig=SECRET"
# the three ways a URL is sent: plain, one store for a shared signature, letter by letter
QUERIES = pytest.mark.parametrize("query", ["", SHARED_SECRET, SECRET])


@QUERIES
def test_a_range_is_the_same_from_disk_and_from_a_server(
    server: RangeServer, folder: Path, query: str
) -> None:
    for href in (server.url("data", "a.tif") + query, f"{folder}/a.tif", f"file://{folder}/a.tif"):
        data = get_range(href, 1000, 5000)
        assert memoryview(data) == CONTENT[1000:6000]


@QUERIES
def test_a_start_is_one_request_with_size_and_etag(server: RangeServer, query: str) -> None:
    start = get_start(server.url("data", "a.tif") + query, 4096)
    assert (start.data, start.size) == (CONTENT[:4096], len(CONTENT))
    assert stat(server.url("data", "a.tif") + query) == (start.size, start.etag)
    assert [(r["method"], r["range"]) for r in server.requests()] == [
        ("GET", "bytes=0-4095"),
        ("HEAD", None),
    ]


@QUERIES
@pytest.mark.parametrize(("name", "data"), [("tiny.tif", b"II*\0"), ("empty.tif", b"")])
def test_a_start_of_a_short_file_is_the_whole_file(
    server: RangeServer, folder: Path, name: str, data: bytes, query: str
) -> None:
    for href in (server.url("data", name) + query, str(folder / name)):
        start = get_start(href)
        assert (start.data, start.size) == (data, len(data))


def test_a_local_start_has_the_size_and_a_version(folder: Path) -> None:
    start = get_start(str(folder / "a.tif"))
    assert (start.size, start.etag) == stat(str(folder / "a.tif"))
    assert start.etag is not None


def test_a_server_without_etags_is_read_all_the_same(server: RangeServer) -> None:
    assert get_start(server.url("data", "a.tif", fault="noetag")).etag is None


@QUERIES
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("404", NotFoundError, "HTTP 404"),
        ("403", AccessDeniedError, "HTTP 403; "),
        ("401", AccessDeniedError, "HTTP 401; "),
        ("500", ReadError, "HTTP 500"),
        ("429/9", ReadError, "HTTP 429; the server is busy"),
        ("reset", ReadError, "a closed connection"),
        ("truncated", ReadError, "bytes 1000-3500"),
        ("hang", ReadError, "no answer in time"),
        ("stall", ReadError, "no answer in time"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line_without_secrets(
    impatient: RangeServer, fault: str, error: type[ReadError], words: str, query: str
) -> None:
    if "/" not in fault and fault not in {"truncated", "stall"}:
        with pytest.raises(error, match=words):
            stat(impatient.url("data", "a.tif", fault=fault) + query)
    with pytest.raises(error) as caught:
        get_range(impatient.url("data", "a.tif", fault=fault) + query, 1000, 5000)
    message = str(caught.value)
    address = impatient.url("data", "a.tif", fault=fault)
    assert message.startswith(f"{address}: expected bytes 1000-6000, got {words}")
    assert "\n" not in message
    assert len(message) < 200
    trace = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in trace


@QUERIES
def test_a_body_that_stops_early_is_an_error_in_the_end(impatient: RangeServer, query: str) -> None:
    with pytest.raises(ReadError, match=r"got a (body that stops early|closed connection)"):
        get_range(impatient.url("data", "a.tif", fault="short") + query, 1000, 5000)
    assert 2 <= len(impatient.requests()) <= 6


@QUERIES
@pytest.mark.parametrize("fault", ["short_once", "reset_once", "429/2", "503/2", "slow"])
def test_what_passes_is_tried_again(server: RangeServer, fault: str, query: str) -> None:
    href = server.url("data", "a.tif", fault=fault) + query
    assert bytes(get_range(href, 1000, 5000)) == CONTENT[1000:6000]
    assert get_start(server.url("data", "a.tif", fault=fault) + query, 50).data == CONTENT[:50]


@QUERIES
def test_a_body_may_take_longer_than_the_server_may_be_silent(
    impatient: RangeServer, query: str
) -> None:
    begin = time.monotonic()
    href = impatient.url("data", "a.tif", fault="trickle") + query
    assert bytes(get_range(href, 1000, 5000)) == CONTENT[1000:6000]
    assert time.monotonic() - begin > 0.6  # the limit is half a second
    assert len(impatient.requests()) == 1


def test_a_cut_body_without_an_etag_is_tried_again(server: RangeServer) -> None:
    # obstore resumes only what has an ETag
    href = server.url("data", "a.tif", fault="short_noetag_once")
    assert bytes(get_range(href, 1000, 5000)) == CONTENT[1000:6000]
    assert [r["status"] for r in server.requests()] == [206, 206]


@QUERIES
def test_a_range_past_the_end_tells_how_much_was_there(
    server: RangeServer, folder: Path, query: str
) -> None:
    for href in (server.url("data", "a.tif") + query, str(folder / "a.tif")):
        with pytest.raises(ReadError, match="bytes 102390-102430: expected 40 bytes, got 10;"):
            get_range(href, 102390, 40)
    with pytest.raises(ReadError, match="HTTP 416; the file is shorter"):
        get_range(server.url("data", "a.tif") + query, 999_999, 10)


@QUERIES
@pytest.mark.parametrize(
    ("fault", "words"), [("norange", "of 209715200 bytes"), ("chunked", "of over 8388608 bytes")]
)
def test_a_server_that_ignores_ranges_serves_small_files_only(
    server: RangeServer, fault: str, words: str, query: str
) -> None:
    small = server.url("data", "a.tif", fault=fault) + query
    assert bytes(get_range(small, 1000, 5000)) == CONTENT[1000:6000]
    start = get_start(small, 64)
    assert (start.data, start.size) == (CONTENT[:64], len(CONTENT))
    with pytest.raises(ReadError, match=f"got the whole file {words} instead of a range; serve"):
        get_start(server.url("data", "giant.tif", fault=fault) + query)


@QUERIES
def test_an_html_page_comes_through_for_the_header_to_judge(
    server: RangeServer, query: str
) -> None:
    assert get_start(server.url("data", "a.tif", fault="html") + query).data.startswith(b"<!DOC")


@QUERIES
def test_a_redirect_is_followed(server: RangeServer, query: str) -> None:
    href = server.url("data", "a.tif", fault="redirect") + query
    assert bytes(get_range(href, 7, 9)) == CONTENT[7:16]


def test_a_refused_connection_and_an_unknown_host_are_told_apart() -> None:
    storage("http://", retries=0)
    for query in ("", SECRET):
        with pytest.raises(ReadError, match=r"got (a refused connection|no connection)"):
            get_start("http://127.0.0.1:9/a.tif" + query)
        with pytest.raises(ReadError, match=r"got (an unknown host name|no connection)"):
            get_start("http://nosuch.invalid/a.tif" + query)


@pytest.mark.parametrize(
    ("query", "words"),
    [("", "give headers with"), (SECRET, "may have ended"), (SHARED_SECRET, "may have ended")],
)
def test_a_refusal_says_what_can_be_done(server: RangeServer, query: str, words: str) -> None:
    with pytest.raises(AccessDeniedError, match=words):
        get_start(server.url("data", "a.tif", fault="private") + query)


@QUERIES
def test_a_redirect_to_nowhere_is_an_error(server: RangeServer, query: str) -> None:
    with pytest.raises(ReadError, match=r"got (HTTP 301|a redirect elsewhere); set the bucket's r"):
        get_start(server.url("data", "a.tif", fault="301") + query)


@QUERIES
def test_redirects_come_to_an_end(impatient: RangeServer, query: str) -> None:
    with pytest.raises(ReadError, match="got redirects without end"):
        get_start(impatient.url("data", "a.tif", fault="loop") + query)
    assert len(impatient.requests()) <= 30


@QUERIES
def test_the_environments_proxy_is_used(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setenv("http_proxy", server.origin)
    assert get_start(f"http://beyond.invalid/data/a.tif{query}", 64).data == CONTENT[:64]
    monkeypatch.setenv("no_proxy", "beyond.invalid")
    storage("http://beyond.invalid/", retries=0)
    with pytest.raises(ReadError, match=r"got (no connection|an unknown host name)"):
        get_start(f"http://beyond.invalid/data/a.tif{query}", 64)


def test_retry_after_is_kept_to_for_signed_urls(server: RangeServer) -> None:
    begin = time.monotonic()
    get_start(server.url("data", "a.tif", fault="wait") + SECRET)
    assert time.monotonic() - begin >= 1


def test_local_errors_keep_their_cause(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="No such file") as caught:
        get_range(str(tmp_path / "none.tif"), 0, 4)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(ReadError, match="Is a directory"):
        get_range(str(tmp_path), 0, 4)
    with pytest.raises(NotFoundError):
        stat(str(tmp_path / "none.tif"))


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 0), (5, -2)])
def test_a_range_without_bytes_is_refused(start: int, length: int) -> None:
    with pytest.raises(InputError, match="range: expected start"):
        get_range("a.tif", start, length)


def _ranges() -> st.SearchStrategy[list[tuple[int, int]]]:
    pair = st.tuples(st.integers(0, 500), st.integers(0, 60)).map(lambda p: (p[0], p[0] + p[1]))
    return st.lists(pair, max_size=30)


@given(_ranges(), st.integers(1, 300))
def test_merged_ranges_give_the_same_bytes(ranges: Sequence[tuple[int, int]], most: int) -> None:
    merged = merge_ranges(ranges, max_bytes=most)
    found: dict[int, bytes] = {}
    for start, stop, members in merged:
        block = CONTENT[start:stop]
        for i in members:
            assert i not in found
            found[i] = block[ranges[i][0] - start : ranges[i][1] - start]
    assert found == {i: CONTENT[a:b] for i, (a, b) in enumerate(ranges) if b > a}


@given(_ranges(), st.integers(1, 300))
def test_merged_ranges_are_short_near_and_sorted(
    ranges: Sequence[tuple[int, int]], most: int
) -> None:
    merged = merge_ranges(ranges, max_bytes=most)
    assert [m.start for m in merged] == sorted(m.start for m in merged)
    for start, stop, members in merged:
        assert start == min(ranges[i][0] for i in members)
        assert stop == max(ranges[i][1] for i in members)
        assert stop - start <= max(most, *(ranges[i][1] - ranges[i][0] for i in members))
        covered = {byte for i in members for byte in range(*ranges[i])}
        assert stop - start - len(covered) <= 16 * (len(members) - 1)


def test_neighbours_of_a_cog_are_merged_and_tiles_apart_are_not() -> None:
    # GDAL puts 4 bytes after a tile and 4 before the next
    assert merge_ranges([(1000, 2000), (2008, 3000)]) == [(1000, 3000, (0, 1))]
    assert merge_ranges([(1000, 2000), (2017, 3000)]) == [(1000, 2000, (0,)), (2017, 3000, (1,))]
    assert len(merge_ranges([(0, 3 << 20), (3 << 20, 4 << 20)])) == 2
