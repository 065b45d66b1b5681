"""Temporary files of builds that were killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pyarrow as pa
import pytest

from rasteret_sql.ingest.stac.item_spool import ItemSpool
from rasteret_sql.ingest.table.spool import TableSpool

pytestmark = pytest.mark.any_duckdb

KILLED = """
import os, signal
from rasteret_sql.ingest.stac.item_spool import ItemSpool
spool = ItemSpool()
spool.append([1])
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_build_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, check=False)
    assert killed.stdout == b"written\n"
    (left,) = tmp_path.iterdir()
    (tmp_path / "rasteret-other.txt").write_text("somebody else's")
    mine = ItemSpool()
    mine.append([2])
    mine.close()
    other = TableSpool(pa.schema([("a", pa.int64())]))
    assert not left.exists()
    assert list(mine) == [[2]]
    assert len(list(tmp_path.iterdir())) == 3
    del mine, other
    assert [path.name for path in tmp_path.iterdir()] == ["rasteret-other.txt"]
    monkeypatch.setattr(tempfile, "tempdir", None)
