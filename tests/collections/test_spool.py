"""Rows on disk: what goes in comes out, and temporary files of killed builds are removed."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from rasteret_sql.collections import spool as spools
from rasteret_sql.collections.spool import Spool
from rasteret_sql.errors import CollectionError
from rasteret_sql.ingest.stac.item_spool import ItemSpool

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
    other = Spool(pa.schema([("a", pa.int64())]))
    assert not left.exists()
    assert list(mine) == [[2]]
    assert len(list(tmp_path.iterdir())) == 3
    del mine, other
    assert [path.name for path in tmp_path.iterdir()] == ["rasteret-other.txt"]
    monkeypatch.setattr(tempfile, "tempdir", None)


SCHEMA = pa.schema([("n", pa.int64()), ("name", pa.string()), ("tiles", pa.list_(pa.int64()))])


def rows(start, stop):
    numbers = list(range(start, stop))
    return pa.record_batch(
        [numbers, [f"s{n}" if n % 3 else None for n in numbers], [[n] * (n % 4) for n in numbers]],
        schema=SCHEMA,
    )


@pytest.mark.parametrize("name", [None, "rows.arrows"])
def test_rows_come_back_in_order_and_by_number(tmp_path, name):
    spool = Spool(SCHEMA, name and tmp_path / name)
    ends = [0, 1, 1, 100, 5_000, 5_003]
    for start, stop in itertools.pairwise(ends):
        spool.append(rows(start, stop))
    spool.close()
    whole = rows(0, ends[-1])
    assert len(spool) == ends[-1]
    assert pa.Table.from_batches(spool, SCHEMA).combine_chunks().to_batches()[0].equals(whole)
    # a reader that is not at its end, and another
    first, second = iter(spool), iter(spool)
    assert next(first).equals(next(second))
    assert [start for start, _ in spool.numbered()] == [0, 1, 100, 5_000]
    for seed in range(20):
        numbers = np.random.default_rng(seed).integers(0, ends[-1], 50)
        assert spool.take(numbers).equals(whole.take(pa.array(numbers)))
    assert spool.take(np.empty(0, np.int64)).equals(rows(0, 0))


def test_a_spool_is_read_once_it_is_closed(tmp_path):
    spool = Spool(SCHEMA, tmp_path / "rows.arrows")
    spool.append(rows(0, 3))
    with pytest.raises(ValueError, match="close"):
        next(iter(spool))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("path", "todo"), [(Path("/dev/full"), "choose another folder"), (None, "set TMPDIR")]
)
def test_a_full_disk_is_named(monkeypatch, path, todo):
    full = SimpleNamespace(path=Path("/dev/full"), remove=lambda: None)
    monkeypatch.setattr(spools, "_LockedFile", lambda _suffix: full)
    spool = Spool(SCHEMA, path)
    with pytest.raises(CollectionError, match=f"/dev/full: expected room on the disk.*{todo}"):
        spool.append(rows(0, 100_000))
