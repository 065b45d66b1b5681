"""Rows on disk: what goes in comes out, and temporary files of killed builds are removed."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
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


BUILDER = """
import sys, rasteret_sql
con = rasteret_sql.connect(workspace=sys.argv[1])
con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [sys.argv[2]])
"""


def spools_in(folder):
    return [path.name for path in folder.rglob("rasteret-spool-*")]


def started_build(workspace, temporary, items, environment):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(workspace), str(items)],
        env=environment | {"TMPDIR": str(temporary)},
    )


def wait_for(is_so):
    give_up_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_a_killed_build_leaves_its_rows_in_the_workspace_to_the_next_build(
    tmp_path, served_items, items, write_items, environment, con
):
    workspace, temporary = tmp_path / "workspace", tmp_path / "temporary"
    temporary.mkdir()
    slow = served_items("hang")
    with started_build(workspace, temporary, slow, environment) as process:
        wait_for(lambda: spools_in(workspace) or process.poll() is not None)
        process.kill()
    (left,) = spools_in(workspace)
    with started_build(workspace, temporary, slow, environment) as process:
        wait_for(lambda: spools_in(workspace) not in ([left], []) or process.poll() is not None)
        assert len(spools_in(workspace)) == 1  # the next build of the same name took its place
        process.kill()
    assert len(spools_in(workspace)) == 1
    write_items(items, "whole.json")
    other = "FROM rasteret_build_stac('other', stac_api := $1, enrich := false)"
    con.execute(other, [str(tmp_path / "whole.json")]).fetchall()
    assert spools_in(workspace) == []
    assert list(temporary.iterdir()) == []
    assert con.execute("SELECT count(*) FROM other").fetchall() == [(6,)]


def test_a_running_build_keeps_its_rows_while_another_begins(
    tmp_path, served_items, items, write_items, environment, con
):
    workspace = tmp_path / "workspace"
    with started_build(workspace, tmp_path, served_items("hang"), environment) as process:
        wait_for(lambda: spools_in(workspace) or process.poll() is not None)
        running = spools_in(workspace)
        other = "FROM rasteret_build_stac('other', stac_api := $1, enrich := false)"
        con.execute(other, [write_items(items, "whole.json")]).fetchall()
        assert spools_in(workspace) == running
        process.kill()


def test_a_refresh_of_a_table_waits_in_the_workspace_too(tmp_path, con, scenes, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))  # which nobody makes
    con.execute(f"CREATE TABLE mine AS SELECT 'a' AS id, '{scenes}/a/B04.tif' AS url")
    build = "FROM rasteret_build_table('t', source := 'mine', href_column := 'url', bands := ['b'])"
    assert con.execute(build).fetchall()[0][3] == 1
    con.execute(f"INSERT INTO mine VALUES ('b', '{scenes}/b/B04.tif')")
    assert con.execute("FROM rasteret_refresh('t')").fetchall()[0][3] == 2


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
    monkeypatch.setattr(spools, "_LockedFile", lambda *_: full)
    spool = Spool(SCHEMA, path)
    with pytest.raises(CollectionError, match=f"/dev/full: expected room on the disk.*{todo}"):
        spool.append(rows(0, 100_000))
