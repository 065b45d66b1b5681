"""Whole small objects."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from servers.range_server import RangeServer

from rasteret_sql.errors import NotFoundError, ReadError
from rasteret_sql.remote import documents
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


def test_a_document_that_comes_as_gzip_is_unpacked(server: RangeServer, folder: Path) -> None:
    (folder / "a.json").write_bytes(gzip.compress(CONTENT))
    assert get_document(server.url("data", "a.json")) == CONTENT
    assert get_document(str(folder / "a.json")) == CONTENT


def test_gzip_that_is_cut_or_grows_without_end_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "a.json"
    path.write_bytes(gzip.compress(CONTENT)[:-20])
    with pytest.raises(ReadError, match="damaged"):
        get_document(str(path))
    path.write_bytes(gzip.compress(CONTENT)[:20] + b"\xff" * 20)
    with pytest.raises(ReadError, match="damaged"):
        get_document(str(path))
    monkeypatch.setattr(documents, "_MAX_BYTES", 1000)
    path.write_bytes(gzip.compress(CONTENT))
    with pytest.raises(ReadError, match="at most"):
        get_document(str(path))
