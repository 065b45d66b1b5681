"""Versions in memory: seen by the next statement, gone when replaced, never of another build."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading.made import Files, in_thread, records

from rasteret_sql.reading import index as index_module
from rasteret_sql.reading.index import INDEX, Index, RecordFilter, Version
from rasteret_sql.schema import BBOX
from rasteret_sql.units import BBox

pytestmark = pytest.mark.any_duckdb


def made(n_scenes=3, seed=0, **more):
    files = Files()
    values = np.random.default_rng(seed).integers(0, 9, (32, 32)).astype("uint8")
    hrefs = [files.add(f"f{n}", values, **more) for n in range(n_scenes)]
    return records(files, [{"b": href} for href in hrefs])


class Folder:
    """A collection's folder as a build leaves it: a link to a folder of a version."""

    def __init__(self, root, name="s2"):
        self.root, self.name = root, name
        self.path = str(root / name)
        self.n_binds = self.n_reads = 0
        self.batch = None

    def build(self, batch, version):
        folder = self.root / ".versions" / self.name / version
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_batches([batch]), folder / "part.parquet")
        (folder / "_build.json").write_text(f'{{"rows": {batch.num_rows}}}')
        link = self.root / f"{self.name}.new"
        link.symlink_to(folder)
        link.replace(self.path)
        self.batch = batch

    def load(self, with_rows):
        self.n_reads += with_rows
        self.n_binds += not with_rows
        table = pa.Table.from_batches([self.batch])
        return table if with_rows else table.slice(0, 0)


@pytest.fixture
def folder(tmp_path):
    one = Folder(tmp_path)
    one.build(made(), "v1")
    return one


def test_a_version_is_loaded_once(folder):
    index = Index()
    first = index.version(folder.path, folder.load)
    assert first.is_whole
    assert first.is_current
    assert index.version(folder.path, folder.load) is first
    assert folder.n_binds == 1


def test_connections_at_once_load_a_version_once(folder):
    index, gate = Index(), threading.Event()

    def slow(with_rows):
        gate.wait(5)
        return folder.load(with_rows)

    started = [in_thread(lambda: index.version(folder.path, slow)) for _ in range(8)]
    gate.set()
    for _, thread in started:
        thread.join(5)
    assert len({id(results[0]) for results, _ in started}) == 1
    assert folder.n_binds == 1


def test_a_new_version_is_seen_and_the_old_one_leaves(folder):
    index = Index()
    old = index.version(folder.path, folder.load)
    folder.build(made(5), "v2")
    assert not old.is_current
    new = index.version(folder.path, folder.load)
    assert new.records.num_rows == 5
    assert list(index._versions.values()) == [new]


def test_a_folder_that_was_built_again_is_not_the_old_one(folder):
    index = Index()
    index.version(folder.path, folder.load)
    folder.build(made(4), "v1")  # the same name, another file
    assert index.version(folder.path, folder.load).records.num_rows == 4
    assert len(index._versions) == 1


def test_a_load_that_fails_is_tried_again(folder):
    index = Index()

    def fails(_with_rows):
        raise OSError("made to fail")

    with pytest.raises(OSError, match="made to fail"):
        index.version(folder.path, fails)
    assert not index._loading
    assert index.version(folder.path, folder.load).records.num_rows == 3


def test_what_is_no_version_of_ours_is_not_kept(tmp_path, folder):
    plain = tmp_path / "plain"
    plain.mkdir()
    elsewhere = tmp_path / "link"
    elsewhere.symlink_to(plain)
    index = Index()
    for path in (plain, elsewhere, tmp_path / "absent"):
        assert index.version(str(path), folder.load) is None
    assert folder.n_binds == 0


def test_the_least_used_version_leaves_first(tmp_path):
    folders = []
    for number in range(4):
        folders.append(Folder(tmp_path, f"c{number}"))
        folders[-1].build(made(20), "v1")
    size = folders[0].batch.nbytes
    index = Index(int(3.5 * size))
    for one in folders[:3]:
        index.version(one.path, one.load)
    index.version(folders[0].path, folders[0].load)
    index.version(folders[3].path, folders[3].load)
    for one in (folders[0], folders[2], folders[3]):
        index.version(one.path, one.load)
    assert [one.n_binds for one in folders] == [1, 1, 1, 1]
    index.version(folders[1].path, folders[1].load)
    assert folders[1].n_binds == 2
    assert sum(one.n_bytes for one in index._versions.values()) <= 3.5 * size


def test_a_second_process_reads_the_records_of_a_file(folder):
    first = Index().version(folder.path, folder.load)
    second = Index().version(folder.path, folder.load)
    assert folder.n_reads == 1
    assert second.schema.equals(first.schema, check_metadata=True)
    assert second.records.equals(first.records, check_metadata=True)


def replace_parquet(folder):
    path = Path(folder.path, "part.parquet")
    folder.batch = made(2, seed=1)
    pq.write_table(pa.Table.from_batches([folder.batch]), path)


def add_parquet(folder):
    pq.write_table(pa.Table.from_batches([folder.batch]), Path(folder.path, "more.parquet"))
    folder.batch = pa.concat_batches([folder.batch, folder.batch])


def use_another_type(folder):
    ids = folder.batch.column("id").cast(pa.large_string())
    folder.batch = folder.batch.set_column(0, "id", ids)


def damage(folder):
    with Path(folder.path, "_records.arrow").open("r+b") as file:
        file.truncate(500)


@pytest.mark.parametrize("change", [replace_parquet, add_parquet, use_another_type, damage])
def test_a_file_of_other_records_is_written_again(folder, change):
    Index().version(folder.path, folder.load)
    change(folder)
    for _ in range(2):
        found = Index().version(folder.path, folder.load)
        assert found.records.equals(folder.batch)
    assert folder.n_reads == 2
    assert [path.name for path in Path(folder.path).glob("*arrow*")] == ["_records.arrow"]


def test_a_folder_that_cannot_be_written_is_read(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):
        assert Index().version(folder.path, folder.load).records.equals(folder.batch)
    assert folder.n_reads == 2
    names = {path.name for path in Path(folder.path).iterdir()}
    assert names == {"part.parquet", "_build.json"}


def test_a_version_larger_than_the_index_is_kept_alone(tmp_path, folder):
    other = Folder(tmp_path, "other")
    other.build(made(30), "v1")
    index = Index(10)
    index.version(folder.path, folder.load)
    index.version(other.path, other.load)
    assert [one.folder for one in index._versions.values()] == [other.path]


def test_of_a_large_collection_only_the_schema_is_kept(folder, monkeypatch):
    monkeypatch.setattr(index_module, "_MAX_FILE_BYTES", 100)
    version = Index().version(folder.path, folder.load)
    assert not version.is_whole
    assert version.schema.names == folder.batch.schema.names


def test_headers_that_lack_fields_are_not_kept(folder):
    folder.build(made(byte_order=None), "v2")
    assert not Index().version(folder.path, folder.load).is_whole


def test_views_of_a_version_share_what_is_numbered():
    version = Version(made().schema, made())
    one = version.scenes(["b"], np.array([True, False, True]))
    one.bands["b"].level(0)
    two = version.scenes(["b"], np.ones(3, bool))
    assert two.grids is one.grids
    assert len(two.grids) == 1
    assert two.bands["b"].level(0) is one.bands["b"].level(0)
    one.faults[0, "b"] = ValueError()
    assert not two.faults


def filtered():
    batch = made(5)
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (170, 0, -170, 10), None, (0, 50, 10, 60)]
    bbox = pa.array([box and dict(zip(BBox._fields, box, strict=True)) for box in boxes], BBOX)
    moments = pa.array([0, 10, None, 20, 30], pa.timestamp("us"))
    batch = batch.append_column("bbox", bbox).append_column("datetime", moments)
    return Version(batch.schema, batch)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RecordFilter(), [0, 1, 2, 3, 4]),
        (RecordFilter(boxes=(BBox(5, 5, 6, 6),)), [0, 3]),
        (RecordFilter(boxes=(BBox(10, 10, 20, 12),)), [0, 1, 3]),
        (RecordFilter(boxes=(BBox(175, 1, 176, 2),)), [2, 3]),
        (RecordFilter(boxes=(BBox(-175, 1, -174, 2), BBox(1, 55, 2, 56))), [2, 3, 4]),
        (RecordFilter(boxes=()), [3]),
        (RecordFilter(start=10), [1, 3, 4]),
        (RecordFilter(stop=10), [0, 1]),
        (RecordFilter(start=5, stop=25), [1, 3]),
        (RecordFilter(ids=("s4", "s0", "none")), [0, 4]),
        (RecordFilter(boxes=(BBox(5, 5, 6, 6),), start=1), [3]),
    ],
)
def test_records_are_chosen_by_box_time_and_id(wanted, expected):
    assert np.flatnonzero(filtered().chosen(wanted)).tolist() == expected


class Meanwhile:
    """An object of whose method another call takes place first."""

    def __init__(self, inner, name, call):
        self._inner, self._name, self._call = inner, name, call

    def __getattr__(self, name):
        if name == self._name:
            self._call()
        return getattr(self._inner, name)


@pytest.mark.parametrize("moment", ["is_valid", "field", "is_null"])
def test_a_first_filter_by_two_connections_at_once(moment):
    """Neither sees what the other has made by half."""
    version, wanted, others = filtered(), RecordFilter(boxes=(BBox(5, 5, 6, 6),)), []
    records = version.records

    def other():
        version.records = records
        others.append(np.flatnonzero(version.chosen(wanted)).tolist())

    class Records:
        num_rows = records.num_rows

        def column(self, name):
            return Meanwhile(records.column(name), moment, other)

    version.records = Records()
    assert np.flatnonzero(version.chosen(wanted)).tolist() == [0, 3]
    assert set(map(tuple, others)) == {(0, 3)}


# through SQL


def test_a_statement_sees_the_version_of_its_time(con, build):
    INDEX._versions.clear()
    values = [np.full((32, 32), n, "uint8") for n in (1, 2)]
    total = "SELECT sum(b)::BIGINT FROM rasteret_pixels('made')"
    build(a=values[0])
    assert con.execute(total).fetchall() == [(1024,)]
    build(a=values[1], c=values[1])
    assert con.execute(total).fetchall() == [(4096,)]
    with con.cursor() as other:
        assert other.execute(total).fetchall() == [(4096,)]
    assert [one.records.num_rows for one in INDEX._versions.values()] == [2]


def test_a_dropped_and_rebuilt_collection_is_read_anew(con, build):
    total = "SELECT sum(b)::BIGINT FROM rasteret_pixels('made')"
    build(a=np.full((32, 32), 1, "uint8"))
    con.execute(total).fetchall()
    con.execute("CALL rasteret_drop('made')").fetchall()
    build(a=np.full((32, 32), 7, "uint8"))
    assert con.execute(total).fetchall() == [(7 * 1024,)]


def test_eight_threads_read_the_same(con, build):
    rng = np.random.default_rng(1)
    scenes = {f"s{n}": rng.integers(0, 250, (200, 170)).astype("uint8") for n in range(6)}
    build(**scenes)
    query = "SELECT id, sum(b)::BIGINT FROM rasteret_pixels('made') GROUP BY id ORDER BY id"
    expected = [(name, int(values.sum())) for name, values in sorted(scenes.items())]

    def work():
        with con.cursor() as cursor:
            return [cursor.execute(query).fetchall() for _ in range(3)]

    started = [in_thread(work) for _ in range(8)]
    for results, thread in started:
        thread.join(60)
        assert results == [[expected] * 3]
