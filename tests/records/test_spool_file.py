"""Temporary files of builds that were killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pyarrow as pa
import pytest

from rasteret_sql.records.stac.item_spool import ItemSpool
from rasteret_sql.records.table import spool
from rasteret_sql.records.table.spool import TableSpool

KILLED = """
import os, signal
from rasteret_sql.records.stac.item_spool import ItemSpool
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
    monkeypatch.setattr(spool, "_IN_MEMORY_BYTES", 0)
    other = TableSpool(pa.schema([("a", pa.int64())]))
    other.append(pa.record_batch({"a": [1]}))
    other.close()
    assert not left.exists()
    assert list(mine) == [[2]]
    assert [batch.to_pydict() for batch in other] == [{"a": [1]}]
    assert len(list(tmp_path.iterdir())) == 3
    del mine, other
    assert [path.name for path in tmp_path.iterdir()] == ["rasteret-other.txt"]
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.parametrize(("limit", "n_files"), [(1 << 20, 0), (40, 1), (0, 1)])
def test_a_table_is_in_a_file_from_some_size_on(tmp_path, monkeypatch, limit, n_files):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(spool, "_IN_MEMORY_BYTES", limit)
    kept = TableSpool(pa.schema([("a", pa.int64())]))
    for number in range(8):
        kept.append(pa.record_batch({"a": [number, None]}))
    kept.close()
    assert len(list(tmp_path.iterdir())) == n_files
    for _ in range(2):
        found = [row for batch in kept for row in batch.column("a").to_pylist()]
        assert found[::2] == list(range(8))
        assert set(found[1::2]) == {None}
    del kept
    assert list(tmp_path.iterdir()) == []
