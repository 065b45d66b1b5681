"""Whole small objects."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers.range_server import RangeServer

from rasteret_sql.errors import NotFoundError
from rasteret_sql.remote.documents import get_document

CONTENT = bytes(range(256)) * 400


@pytest.mark.parametrize("fault", ["", "norange", "chunked", "redirect"])
def test_a_small_document_is_whole(server: RangeServer, folder: Path, fault: str) -> None:
    assert get_document(server.url("data", "a.tif", fault=fault)) == CONTENT
    assert get_document(str(folder / "a.tif")) == CONTENT


def test_a_small_document_is_one_request_and_a_long_one_two(
    server: RangeServer, folder: Path
) -> None:
    get_document(server.url("data", "a.tif"))
    assert len(server.requests()) == 1
    data = bytes(range(256)) * (20 << 10)
    (folder / "long.json").write_bytes(data)
    assert get_document(server.url("data", "long.json")) == data
    assert len(server.requests()) == 3


def test_an_empty_document_is_empty(server: RangeServer) -> None:
    assert get_document(server.url("data", "empty.tif")) == b""


def test_a_missing_document_is_named(server: RangeServer) -> None:
    with pytest.raises(NotFoundError, match="HTTP 404"):
        get_document(server.url("data", "none.json"))
