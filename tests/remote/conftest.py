from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.range_server import RangeServer

CONTENT = bytes(range(256)) * 400
ODD_NAMES = ["a b.tif", "a+b.tif", "a#b.tif", "a?b.tif", "a%2Bb.tif", "ä^[1]{2}|'.tif"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    _running.reset()
    return _running
