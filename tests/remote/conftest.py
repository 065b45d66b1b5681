from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.range_server import RangeServer
from storages import storage

from rasteret_sql.remote.stores import Stores

CONTENT = bytes(range(256)) * 400
ODD_NAMES = ["a b.tif", "a+b.tif", "a#b.tif", "a?b.tif", "a%2Bb.tif", "ä^[1]{2}|'.tif"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as a server has them: plain, empty, very long, with odd names."""
    path = tmp_path_factory.mktemp("served")
    (path / "a.tif").write_bytes(CONTENT)
    (path / "tiny.tif").write_bytes(b"II*\0")
    (path / "empty.tif").write_bytes(b"")
    with (path / "giant.tif").open("wb") as sparse:
        sparse.truncate(200 << 20)
    for name in ODD_NAMES:
        (path / name).write_bytes(name.encode())
    return path


@pytest.fixture(scope="session")
def _running(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(data=folder) as server:
        yield server


@pytest.fixture
def server(_running: RangeServer) -> RangeServer:
    _running.set()
    _running.reset()
    return _running


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No configuration and no credentials of the machine's user."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "PC_SDK_", "EARTHDATA_", "RASTERET_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Stores().in_use():
        yield


@pytest.fixture
def impatient(server: RangeServer) -> RangeServer:
    """The server, asked once more at most and not for long."""
    storage(server.origin, retries=1, timeout_s=0.5)
    return server
