"""Whatever happens to a builder, readers see the old collection or the new one."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rasteret_sql.collections.disk import remove
from rasteret_sql.collections.layout import PartFile, write_collection
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.errors import CollectionError

pytestmark = pytest.mark.any_duckdb

MakeRecords = Callable[..., pa.Table]
BuildInto = Callable[[Workspace, str, pa.Table], list[PartFile]]

# Counts calls that touch the disk, and dies before the one whose number it is given. Each number
# is for a process that is forked from one that has imported all; the exit code is printed.
DYING_BUILDER = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path

    root, source = sys.argv[1:]
    WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink",
               "shutil.rmtree", "pyarrow", "ctypes.dlsym"}
    count = 0

    def step(event, args):
        global count
        if event == "open" and not (args and str(args[0]).startswith(root)):
            return
        if event in WATCHED:
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    import pyarrow.parquet as pq
    import rasteret_sql.collections.layout as layout
    from rasteret_sql.collections.workspace import Workspace

    for line in sys.stdin:
        if (child := os.fork()) == 0:
            die_at = int(line)
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    else:
        sys.exit()
    records = pq.read_table(source)
    write_groups = layout._Writer._write_groups

    def watched(self, writer, sink, table):
        step("pyarrow", ())
        write_groups(self, writer, sink, table)
        step("pyarrow", ())

    layout._Writer._write_groups = watched
    sys.addaudithook(step)
    with Workspace(root).build("s2", "stac") as build:
        layout.write_collection(records.schema, iter(records.to_batches(100)), build.folder,
                                info={}, first_part=build.first_part)
        build.commit({})
    print(count, flush=True)
    """
)


class Builders:
    """Builders of one collection, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def steps(self) -> int:
        """Let one finish; how many steps it took."""
        n_steps = int(self._ask(0))
        assert self._answer() == "0"
        return n_steps

    def die_at(self, step: int) -> None:
        """Let one die before a step."""
        assert self._ask(step) == str(-signal.SIGKILL)

    def _ask(self, step: int) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def builders(root: Path, source: Path) -> Iterator[Builders]:
    with subprocess.Popen(
        [sys.executable, "-c", DYING_BUILDER, str(root), str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        yield Builders(process)
        assert process.stdin is not None
        process.stdin.close()


def run_builder(root: Path, source: Path) -> subprocess.CompletedProcess[str]:
    """One builder that finishes or fails."""
    command = [sys.executable, "-c", DYING_BUILDER, str(root), str(source)]
    return subprocess.run(
        command, input="0\n", capture_output=True, text=True, check=False, env=environment()
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.mark.parametrize("old", ["version", "folder"])
def test_a_killed_builder_leaves_the_old_collection_or_the_new_one(
    workspace: Workspace, records: pa.Table, build_into: BuildInto, tmp_path: Path, old: str
) -> None:
    source = tmp_path / "new.parquet"
    records = records.filter(pc.less(records["datetime"], datetime(2023, 7, 1)))
    new = records.filter(pc.less(records["datetime"], datetime(2023, 4, 1)))
    pq.write_table(new, source)
    if old == "version":
        build_into(workspace, "s2", records)
    else:
        (workspace.root / "s2_stac").mkdir(parents=True)
        pq.write_table(records, workspace.root / "s2_stac" / "part-0.parquet")
    shutil.copytree(workspace.root, tmp_path / "old", symlinks=True)

    def start_over() -> None:
        shutil.rmtree(workspace.root)
        shutil.copytree(tmp_path / "old", workspace.root, symlinks=True)

    with builders(workspace.root, source) as started:
        n_steps = started.steps()
        assert n_steps > 30
        # Every step around the switch, and a few of the many writes before it.
        early = {2, 4, n_steps // 3, n_steps // 2} if old == "version" else set()
        points = sorted({*early, *range(n_steps - 6, n_steps + 1)})
        start_over()
        seen = []
        for point in points:
            started.die_at(point)
            visible = Workspace(workspace.root)
            (info,) = visible.collections()
            assert visible.problems == {}
            query = "SELECT count(DISTINCT id), count(*) FROM read_parquet(?)"
            rows = duckdb.execute(query, [f"{info.path}/**/*.parquet"])
            assert rows.fetchall()[0] in {
                (len(records), len(records)),
                (len(new), len(new)),
            }
            seen.append(info.records)
            if point > n_steps // 2:
                start_over()
    assert set(seen) == {len(records), len(new)}
    build_into(workspace, "s2", records.slice(0, 7))
    assert workspace.find("s2").records == 7
    versions = workspace.root / ".versions" / "s2_stac"
    kept = {path.name for path in versions.iterdir() if any(path.rglob("*.parquet"))}
    assert len(kept) <= 2


LIMITED_BUILDER = textwrap.dedent(
    """
    import resource, signal, sys
    import pyarrow.parquet as pq
    from rasteret_sql.errors import CollectionError
    from rasteret_sql.collections.layout import write_collection
    from rasteret_sql.collections.workspace import Workspace

    root, source, limit, memory = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    records = pq.read_table(source)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with Workspace(root).build("s2", "stac") as build:
            write_collection(records.schema, iter(records.to_batches(100)), build.folder, info={},
                             first_part=build.first_part, partition_by=(), memory_bytes=memory)
            build.commit({})
    except CollectionError as error:
        print(error.message)
    """
)


@pytest.mark.parametrize(("limit", "memory"), [(0, 1 << 28), (60_000, 1 << 28), (60_000, 100_000)])
def test_a_disk_that_refuses_a_write_leaves_the_old_collection(
    workspace: Workspace,
    records: pa.Table,
    build_into: BuildInto,
    tmp_path: Path,
    limit: int,
    memory: int,
) -> None:
    source = tmp_path / "new.parquet"
    pq.write_table(records, source)
    build_into(workspace, "s2", records.slice(0, 50))
    command = [sys.executable, "-c", LIMITED_BUILDER, workspace.root, source, limit, memory]
    ran = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert "expected files of this size to be allowed, got 'File too large'; " in ran.stdout
    assert ran.stdout.count("\n") == 1
    assert ran.stderr == ""
    assert Workspace(workspace.root).find("s2").records == 50


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of the given options; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("mounting needs root")
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("room", ["300k", "500k", "700k", "900k"])
def test_a_full_disk_leaves_the_old_collection(
    small_disk: Callable[[str], Path], records: pa.Table, build_into: BuildInto, room: str
) -> None:
    workspace = Workspace(small_disk(f"size={room}"))
    build_into(workspace, "s2", records.slice(0, 4))
    with pytest.raises(
        CollectionError, match="expected room on the disk, got 'No space left"
    ) as said:
        build_into(workspace, "s2", records)
    assert "\n" not in said.value.message
    assert workspace.find("s2").records == 4
    build_into(workspace, "s2", records.slice(0, 5))
    assert Workspace(workspace.root).find("s2").records == 5


def test_a_disk_that_is_full_before_the_build_is_said(
    small_disk: Callable[[str], Path], records: pa.Table, build_into: BuildInto
) -> None:
    root = small_disk("size=64k")
    (root / "ballast").write_bytes(bytes(64 << 10))
    with pytest.raises(CollectionError, match="expected room on the disk"):
        build_into(Workspace(root), "s2", records)
    assert Workspace(root).collections() == []


def test_a_read_only_workspace_is_said(
    small_disk: Callable[[str], Path], records: pa.Table, build_into: BuildInto
) -> None:
    workspace = Workspace(small_disk("ro"))
    with pytest.raises(
        CollectionError, match="expected a folder that can be written, got 'Read-only"
    ):
        build_into(workspace, "s2", records)


def test_a_workspace_that_is_a_file_is_said(
    tmp_path: Path, records: pa.Table, build_into: BuildInto
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CollectionError, match="expected a local folder that can be written"):
        build_into(Workspace(tmp_path / "file"), "s2", records)


def test_of_two_building_processes_one_is_refused(
    workspace: Workspace, records: pa.Table, tmp_path: Path
) -> None:
    source = tmp_path / "new.parquet"
    pq.write_table(records, source)
    with workspace.build("s2", "stac") as build:
        second = run_builder(workspace.root, source)
        assert second.stdout == "1\n"
        assert f"one running (pid {os.getpid()})" in second.stderr
        write_collection(records.schema, iter(records.to_batches()), build.folder, info={})
        build.commit({})
    assert workspace.find("s2").records == 500
    assert run_builder(workspace.root, source).stdout.endswith("\n0\n")


READER = textwrap.dedent(
    """
    import os, sys, time, duckdb

    root = sys.argv[1]
    con = duckdb.connect()
    con.execute(f"CREATE VIEW s2 AS SELECT * FROM read_parquet("
                f"'{root}/s2_stac/**/*.parquet', hive_partitioning = true, "
                "hive_types = {'year': BIGINT, 'month': BIGINT})")
    print("ready", flush=True)
    whole, lost, other = [], 0, []
    while not os.path.exists(f"{root}/stop"):
        time.sleep(0.005)
        try:
            rows = con.execute("SELECT id[:1], count(*) FROM s2 GROUP BY 1").fetchall()
        except duckdb.IOException as error:
            gone = "No such file" in str(error) or "No files found" in str(error)
            lost += gone
            other += [] if gone else [str(error)]
        else:
            whole.append(rows[0])
            other += [] if rows in ([("a", 40)], [("b", 50)]) else [rows]
            if len(set(whole)) == 2 and len(whole) > 5:
                open(f"{root}/enough-{os.getpid()}", "w")
    print([sorted(set(whole)), len(whole), lost, other])
    """
)


@pytest.mark.parametrize("overlap", [True, False])
def test_readers_never_see_a_mixture(
    workspace: Workspace, build_into: BuildInto, make_records: MakeRecords, overlap: bool
) -> None:
    """Two versions with other ids, partitions and counts; a query sees one of them, whole."""
    one, two = make_records(40), make_records(50, seed=0 if overlap else 1)
    versions = []
    for letter, table in (("a", one), ("b", two)):
        numbers = range(len(table))
        months = [datetime(2023, 1 + i % 5, 1) if i % 10 < 9 else None for i in numbers]
        columns = {"id": [f"{letter}{i}" for i in numbers], "datetime": months}
        for name, values in columns.items():
            field = table.schema.field(name)
            at = table.schema.get_field_index(name)
            table = table.set_column(at, field, pa.array(values, field.type))
        versions.append(table)
    if not overlap:
        versions[1] = versions[1].set_column(
            1, "datetime", pc.add(versions[1]["datetime"], pa.scalar(timedelta(days=3000)))
        )
    build_into(workspace, "s2", versions[0])
    command = [sys.executable, "-c", READER, str(workspace.root)]
    with ExitStack() as stack:
        readers = []
        for _ in range(2):
            popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
            readers.append(stack.enter_context(popen))
            stack.callback(popen.kill)
            assert popen.stdout is not None
            assert popen.stdout.readline() == "ready\n"
        for n_builds in range(100):
            build_into(workspace, "s2", versions[(n_builds + 1) % 2])
            if n_builds >= 6 and len([*workspace.root.glob("enough-*")]) == len(readers):
                break
        (workspace.root / "stop").touch()
        results = [ast.literal_eval(popen.communicate()[0]) for popen in readers]
    for seen, n_whole, _, other in results:
        assert other == []
        assert seen == [("a", 40), ("b", 50)]
        assert n_whole > 5


def test_a_version_is_removed_while_a_reader_puts_its_file_there(tmp_path, monkeypatch):
    folder = tmp_path / "1"
    (folder / "year=2024").mkdir(parents=True)
    rmdir, late = os.rmdir, ["_records.arrow"]

    def with_a_reader(path, **options):
        if late and Path(path).name == folder.name:
            (folder / late.pop()).touch()
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", with_a_reader)
    remove(folder)
    assert not folder.exists()
