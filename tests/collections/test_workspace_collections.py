"""A workspace lists, finds, replaces and drops collections."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from rasteret_sql.collections.layout import PartFile
from rasteret_sql.collections.workspace import (
    Workspace,
    read_build,
    read_errors,
    write_errors,
)
from rasteret_sql.errors import CollectionError, InputError, UnknownCollectionError
from rasteret_sql.units import BBox

pytestmark = pytest.mark.any_duckdb

BuildInto = Callable[[Workspace, str, pa.Table], list[PartFile]]


def ids(folder: Path) -> set[str]:
    return set(ds.dataset(folder, partitioning="hive").to_table(["id"])["id"].to_pylist())


def rasteret_folder(records: pa.Table, folder: Path) -> None:
    """A collection as rasteret lays it out: real folders, part-0, no key of ours."""
    folder.mkdir(parents=True)
    pq.write_table(records.replace_schema_metadata(None), folder / "part-0.parquet")


def test_the_root_is_the_argument_else_the_environment_else_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RASTERET_WORKSPACE", raising=False)
    assert Workspace().root == tmp_path / "rasteret_workspace"
    monkeypatch.setenv("RASTERET_WORKSPACE", "~/elsewhere")
    assert Workspace().root == tmp_path / "elsewhere"
    assert Workspace(tmp_path / "given").root == tmp_path / "given"
    assert Workspace().collections() == []


def test_a_built_collection_is_listed_from_its_footers(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    before = datetime.now(UTC).replace(tzinfo=None)
    parts = build_into(workspace, "s2", records)
    (info,) = workspace.collections()
    moments = pc.min_max(records["datetime"]).as_py()
    edges = [records["bbox"].combine_chunks().field(name) for name in BBox._fields]
    bounds = BBox(
        *(f(e).as_py() for f, e in zip([pc.min, pc.min, pc.max, pc.max], edges, strict=True))
    )
    assert (info.name, info.kind, info.data_source) == ("s2", "stac", "made")
    assert info.path == workspace.root / "s2_stac"
    assert (info.records, info.bands) == (500, ("B04",))
    assert (info.start_datetime, info.end_datetime) == (moments["min"], moments["max"])
    assert info.bbox == bounds
    assert info.size_bytes == sum(part.size_bytes for part in parts)
    assert before <= info.created <= datetime.now(UTC).replace(tzinfo=None)
    assert workspace.find("s2") == info


def test_rasterets_own_folders_are_listed(workspace: Workspace, records: pa.Table) -> None:
    rasteret_folder(records, workspace.root / "demo_202401_sentinel_stac")
    (info,) = workspace.collections()
    assert (info.name, info.data_source) == ("demo_202401_sentinel", "sentinel")
    assert (info.records, info.bands) == (500, ("B04",))
    assert info.bbox is not None
    assert info.start_datetime == pc.min(records["datetime"]).as_py()


def test_what_cannot_be_read_is_a_problem_and_not_an_error(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    build_into(workspace, "good", records)
    (workspace.root / "empty_stac").mkdir()
    (workspace.root / "cut_records").mkdir()
    (workspace.root / "cut_records" / "part-0.parquet").write_bytes(b"PAR1 no more")
    (workspace.root / "gone_stac").symlink_to("nowhere")
    (workspace.root / "notes.txt").write_text("not a collection")
    assert [info.name for info in workspace.collections()] == ["good"]
    assert set(workspace.problems) == {"empty_stac", "cut_records", "gone_stac"}
    assert "expected a Parquet file" in workspace.problems["cut_records"]
    assert "expected Parquet files, got 'none'" in workspace.problems["empty_stac"]


def test_an_unknown_name_lists_the_known_ones(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    build_into(workspace, "s2", records)
    with pytest.raises(UnknownCollectionError, match=r"\(s2\), got 's3'"):
        workspace.find("s3")
    with pytest.raises(UnknownCollectionError, match=r"\(s2\), got 's3'"):
        workspace.drop("s3")


BAD_NAMES = ["", ".hidden", "..", "a/b", "../s2", "a b", "it's", 'say "x"', "é", "n" * 101, "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_safe_folder_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(InputError, match="name: expected 1 to 100 letters"):
        workspace.find(name)
    with pytest.raises(InputError, match="name: expected 1 to 100 letters"):
        workspace.drop(name)
    with (
        pytest.raises(InputError, match="name: expected 1 to 100 letters"),
        workspace.build(name, "stac"),
    ):
        pass
    assert not workspace.root.exists()


@pytest.mark.parametrize("name", ["a", "_x", "-", "S2.l2a-2024_v1", "n" * 100])
def test_other_names_are_taken(
    workspace: Workspace, records: pa.Table, build_into: BuildInto, name: str
) -> None:
    build_into(workspace, name, records.slice(0, 1))
    assert workspace.find(name).records == 1


def test_a_rebuild_replaces_all_and_never_reuses_a_file_name(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    names: list[set[str]] = []
    for n in (500, 300, 400):
        build_into(workspace, "s2", records.slice(0, n))
        found = workspace.find("s2")
        assert found.records == n
        names.append({path.name for path in found.path.rglob("*.parquet")})
    workspace.drop("s2")
    build_into(workspace, "s2", records.slice(0, 10))
    names.append({path.name for path in workspace.find("s2").path.rglob("*.parquet")})
    assert names[:3] == [{"part-1.parquet"}, {"part-2.parquet"}, {"part-3.parquet"}]
    assert not names[3] & set.union(*names[:3])


def test_the_version_before_stays_until_the_next_build(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    build_into(workspace, "s2", records)
    before = workspace.find("s2").path.resolve()
    build_into(workspace, "s2", records.slice(0, 10))
    assert len(ids(before)) == 500
    with workspace.build("s2", "stac"):
        assert not before.exists()


def test_leaving_without_commit_changes_nothing(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    with workspace.build("s2", "stac") as build:
        (build.folder / "part-0.parquet").write_bytes(b"half")
    assert workspace.collections() == []
    build_into(workspace, "s2", records)

    def failing_build() -> None:
        with workspace.build("s2", "stac") as build:
            (build.folder / "part-9.parquet").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_build()
    assert workspace.find("s2").records == 500
    assert [path.name for path in workspace.root.rglob("part-9.parquet")] == []


def test_rasterets_folder_is_replaced_in_one_step(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    rasteret_folder(records, workspace.root / "demo_stac")
    parts = build_into(workspace, "demo", records.slice(0, 20))
    assert workspace.find("demo").records == 20
    assert (workspace.root / "demo_stac").is_symlink()
    assert {part.path.name for part in parts} == {"part-1.parquet"}
    build_into(workspace, "demo", records.slice(0, 30))
    left = [path for path in workspace.root.rglob("*.parquet") if "part-0" in path.name]
    assert left == []


def test_a_name_of_the_other_kind_is_refused_unless_forced(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    build_into(workspace, "s2", records)
    with (
        pytest.raises(InputError, match="name: expected a name that is no stac collection"),
        workspace.build("s2", "records"),
    ):
        pass
    with workspace.build("s2", "records", force=True) as build:
        assert workspace.find("s2").kind == "stac"
        pq.write_table(records, build.folder / "part-0.parquet")
        build.commit({})
    assert [info.kind for info in workspace.collections()] == ["records"]


def test_a_kind_is_stac_or_records(workspace: Workspace) -> None:
    said = "kind: expected 'stac' or 'records', got 'view'"
    with pytest.raises(InputError, match=said), workspace.build("s2", "view"):
        pass


@pytest.mark.parametrize("plain", [False, True])
def test_dropping_removes_all_files(
    workspace: Workspace, records: pa.Table, build_into: BuildInto, plain: bool
) -> None:
    if plain:
        rasteret_folder(records, workspace.root / "s2_stac")
    else:
        build_into(workspace, "s2", records)
    workspace.drop("s2")
    assert workspace.collections() == []
    assert not os.path.lexists(workspace.root / "s2_stac")
    assert list(workspace.root.rglob("*.parquet")) == []


def test_a_second_build_of_a_name_is_told_who_builds(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    said = f"s2: expected no other build of s2, got 'one running .pid {os.getpid()}.'; wait"
    with workspace.build("s2", "stac"):
        with pytest.raises(CollectionError, match=said):
            build_into(Workspace(workspace.root), "s2", records)
        with pytest.raises(UnknownCollectionError):
            workspace.drop("s2")
        build_into(workspace, "s3", records.slice(0, 1))
    build_into(workspace, "s2", records)
    assert workspace.find("s2").records == 500


def test_a_build_that_has_just_begun_has_no_number_yet(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    with workspace.build("s2", "stac"):
        (workspace.root / ".versions" / "s2.pid").write_text("")
        with pytest.raises(CollectionError, match=r"one running \(pid unknown\)"):
            build_into(Workspace(workspace.root), "s2", records)


def test_a_drop_waits_for_no_build(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    build_into(workspace, "s2", records)
    with workspace.build("s2", "stac"), pytest.raises(CollectionError, match="no other build"):
        workspace.drop("s2")


def test_what_is_kept_beside_the_records_has_no_secret(
    workspace: Workspace, records: pa.Table, build_into: BuildInto
) -> None:
    href = "https://user:pw@host/a.tif?sig=secret"
    failure = {"id": "a", "band": "B04", "href": href, "error": "404"}
    with workspace.build("s2", "stac") as build:
        pq.write_table(records, build.folder / "part-0.parquet")
        assert write_errors(build.folder, [failure, failure]) == 2
        path = build.commit({"source": {"stac_api": href, "maps": [(href, 1)]}, "records": 5})
    assert list(read_errors(path)) == [failure | {"href": "https://host/a.tif"}] * 2
    facts = read_build(path)
    clean = "https://host/a.tif"
    assert facts["source"] == {"stac_api": clean, "maps": [[clean, 1]]}
    assert (facts["name"], facts["kind"], facts["records"]) == ("s2", "stac", 5)
    assert (
        "secret" not in (path / "_build.json").read_text() + (path / "_errors.ndjson").read_text()
    )
    assert json.loads((path / "_build.json").read_text()) == facts


def test_a_folder_without_our_files_has_no_build_and_no_errors(tmp_path: Path) -> None:
    assert read_build(tmp_path) == {}
    assert list(read_errors(tmp_path)) == []


def test_a_workspace_may_be_moved(
    workspace: Workspace, records: pa.Table, build_into: BuildInto, tmp_path: Path
) -> None:
    build_into(workspace, "s2", records)
    shutil.move(workspace.root, tmp_path / "moved")
    assert Workspace(tmp_path / "moved").find("s2").records == 500
