from __future__ import annotations

from pathlib import Path

from servers.range_server import RangeServer

from rasteret_sql.remote.ranges import get_range, get_start

CONTENT = bytes(range(256)) * 400


def test_a_range_is_the_same_from_disk_and_from_a_server(server: RangeServer, folder: Path) -> None:
    for href in (server.url("data", "a.tif"), str(folder / "a.tif"), f"file://{folder}/a.tif"):
        assert bytes(get_range(href, 1000, 5000)) == CONTENT[1000:6000]


def test_a_start_is_one_request_with_size_and_etag(server: RangeServer) -> None:
    start = get_start(server.url("data", "a.tif"), 4096)
    assert (start.data, start.size) == (CONTENT[:4096], len(CONTENT))
    assert start.etag
    assert [r["range"] for r in server.requests()] == ["bytes=0-4095"]
