"""A process that dies, or a disk that is full: the collection before, or the one after."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap

import pyarrow.dataset as ds
import pytest

pytestmark = pytest.mark.any_duckdb

# Imports once, then makes a collection in a fork for each line it is given: root, items, mode,
# step to die at (0: none), bytes a file may have (0: any). Answers with the exit status and
# what the fork said.
FORKS = textwrap.dedent(
    """
    import json, os, resource, signal, sys, threading

    import pyarrow.parquet, filelock, sqlite3, ctypes, shapely
    import rasteret_sql.collections.layout as layout
    from rasteret_sql.errors import RasteretError
    from rasteret_sql.ingest.build import BuildOptions, build_collection
    from rasteret_sql.ingest.stac.items import records_from_items
    from rasteret_sql.maintenance.refresh import RefreshOptions, refresh_collection
    from rasteret_sql.ingest.stac.search import StacSource, read_items
    from rasteret_sql.collections.workspace import Workspace

    WATCHED = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir",
               "os.symlink", "shutil.rmtree", "pyarrow", "ctypes.dlsym"}

    def work(root, items, mode, die_at, limit):
        count = 0

        def step(event, args):
            nonlocal count
            if event == "open" and not (args and str(args[0]).startswith(root)):
                return
            if event in WATCHED:
                count += 1
                if count == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        write_groups = layout._Writer._write_groups

        def watched(self, writer, sink, table):
            step("pyarrow", ())
            write_groups(self, writer, sink, table)
            step("pyarrow", ())

        layout._Writer._write_groups = watched
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        options = BuildOptions("s2", "stac", {"stac_api": items, "enrich": True}, "made",
                               max_concurrent=4, force=mode == "build")
        records = lambda: records_from_items(read_items(StacSource(items)))
        sys.addaudithook(step)
        stop = threading.Event()
        if mode == "build":
            report = build_collection(records(), Workspace(root), options, stop)
        else:
            report = refresh_collection(records, Workspace(root), RefreshOptions(options), stop)
        return {"steps": count, "records": report["records"], "enriched": report["enriched"]}

    print("ready", flush=True)
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                said = work(*json.loads(line))
            except RasteretError as error:
                said = {"error": error.message}
            os.write(writing, json.dumps(said).encode())
            os._exit(0)
        os.close(writing)
        said = os.read(reading, 100000)
        os.close(reading)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([status, json.loads(said or "null")]), flush=True)
    """
)


@pytest.fixture(scope="module")
def fork():
    """Make or refresh a collection in a process that may die."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "ready\n"

        def run(root, items, mode, die_at=0, limit=0):
            process.stdin.write(json.dumps([str(root), str(items), mode, die_at, limit]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.fixture
def before_and_after(scenes, tmp_path):
    """Two files of items: the second adds, changes and moves some."""
    items = json.loads((scenes / "items.json").read_text())
    for item in items["features"]:
        item["assets"] = {"B04": item["assets"]["B04"]}
        item["assets"]["B04"]["href"] = str(scenes / item["assets"]["B04"]["href"])
    document = copy.deepcopy(items)
    document["features"] = document["features"][:4]
    paths = tmp_path / "before.json", tmp_path / "after.json"
    paths[0].write_text(json.dumps(document))
    items["features"][0]["properties"]["eo:cloud_cover"] = 99.5
    items["features"][1]["properties"]["datetime"] = "2025-01-01T00:00:00Z"
    items["features"][2]["assets"]["B04"]["href"] = items["features"][3]["assets"]["B04"]["href"]
    paths[1].write_text(json.dumps(items))
    return paths


def content(root):
    """Every row and column of the collection, in order of ids."""
    table = ds.dataset(root / "s2_stac", partitioning="hive").to_table().sort_by("id")
    return table.select(sorted(table.column_names)).to_pylist()


def files(root):
    """The bytes of all files, by path: quicker than rows, if they are the same."""
    folder = root / "s2_stac"
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.parquet")}


@pytest.mark.parametrize("mode", ["build", "refresh"])
def test_twenty_kills_leave_the_collection_before_or_after(fork, before_and_after, tmp_path, mode):
    root = tmp_path / "killed"
    before, after = before_and_after
    assert fork(root, before, "build")[0] == 0
    shutil.copytree(root, tmp_path / "kept", symlinks=True)

    def start_over():
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "kept", root, symlinks=True)

    old, old_files = content(root), files(root)
    status, whole = fork(root, after, mode)
    assert (status, whole["records"]) == (0, 6)
    new = content(root)
    assert old != new
    n_steps = whole["steps"]
    assert n_steps > 40
    start_over()
    seen = []
    points = random.Random(f"kill {mode}").sample(range(1, n_steps - 8), 13)
    for point in [*points, *range(n_steps - 6, n_steps + 1)]:
        if point > n_steps - 7:  # what a dead one left is more to do
            start_over()
        assert fork(root, after, mode, die_at=point) == [-9, None]
        found = old if files(root) == old_files else content(root)
        assert found in (old, new)
        seen.append(found == new)
        if found == new:
            start_over()
    assert set(seen) == {False, True}
    assert fork(root, after, mode)[0] == 0
    assert content(root) == new
    status, again = fork(root, after, "refresh")
    assert (status, again["enriched"]) == (0, 0)
    versions = root / ".versions" / "s2_stac"
    assert len([path for path in versions.iterdir() if any(path.rglob("*.parquet"))]) <= 2
    assert not list(root.rglob("_refresh"))


@pytest.mark.parametrize("limit", [1, 10_000])
def test_a_disk_that_refuses_a_write_leaves_the_collection_before(
    fork, before_and_after, tmp_path, limit
):
    root = tmp_path / "small"
    before, after = before_and_after
    fork(root, before, "build")
    old = content(root)
    status, said = fork(root, after, "refresh", limit=limit)
    assert status == 0
    assert "expected files of this size to be allowed, got 'File too large'" in said["error"]
    assert content(root) == old
    assert fork(root, after, "refresh")[1]["records"] == 6
    assert len(content(root)) == 6


def test_a_full_disk_leaves_the_collection_before(fork, before_and_after, tmp_path):
    root = tmp_path / "disk"
    root.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        before, after = before_and_after
        assert fork(root, before, "build")[0] == 0
        old = content(root)
        free = shutil.disk_usage(root).free
        (root / "ballast").write_bytes(bytes(max(0, free - 40_000)))
        status, said = fork(root, after, "refresh")
        assert status == 0
        assert "expected room on the disk, got 'No space left" in said["error"]
        assert content(root) == old
        (root / "ballast").unlink()
        assert fork(root, after, "refresh")[1]["records"] == 6
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)
