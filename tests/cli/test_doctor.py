"""`doctor` tells what is there, and fails where something essential is broken."""

from __future__ import annotations

import importlib
import json
import shutil

import duckdb
import pyarrow as pa
import pytest

import rasteret_sql

KEYS = ["ok", "faults", "versions", "extensions", "workspace", "credentials", "urls"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Settings and credentials of nobody."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("AWS_ACCESS_KEY_ID", "EARTHDATA_TOKEN", "RASTERET_DATASETS"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def ask(command):
    def run(*arguments):
        done = command("doctor", "--json", *arguments)
        return done.exit_code, json.loads(done.stdout)

    return run


def test_a_sound_installation_is_exit_code_0(ask, built):
    code, report = ask("--workspace-dir", built)
    assert (code, report["ok"], report["faults"]) == (0, True, [])
    assert list(report) == KEYS
    versions = report["versions"]
    assert versions["rasteret_sql"] == rasteret_sql.__version__
    assert versions["duckdb"] == duckdb.__version__
    assert versions["pyarrow"] == pa.__version__
    assert all(versions[name] for name in ("obstore", "proj", "python"))
    states = {one["name"]: one["loaded"] for one in report["extensions"]}
    assert all(states[name] for name in ("parquet", "icu", "json"))
    workspace = report["workspace"]
    size = sum(path.stat().st_size for path in built.glob(".versions/**/*") if path.is_file())
    assert workspace == {
        "path": str(built),
        "exists": True,
        "writable": True,
        "collections": 1,
        "versions": 1,
        "size_bytes": size,
    }
    assert size > 10_000


@pytest.mark.any_duckdb
def test_it_makes_no_workspace(ask, tmp_path):
    folder = tmp_path / "later"
    code, report = ask("--workspace-dir", folder)
    assert code == 0
    assert report["workspace"]["exists"] is False
    assert report["workspace"]["writable"] is True
    assert not folder.exists()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("place", ["file/workspace", "/proc/workspace"])
def test_a_workspace_that_can_not_be_made_is_a_fault(ask, tmp_path, place):
    """Root may write in /proc as far as permissions go; nobody can."""
    (tmp_path / "file").write_text("")
    code, report = ask("--workspace-dir", tmp_path / place)
    assert report["workspace"]["writable"] is False
    assert (code, report["ok"]) == (1, False)
    assert [fault["subject"] for fault in report["faults"]] == ["workspace"]


@pytest.mark.any_duckdb
def test_to_look_whether_it_can_write_leaves_nothing(ask, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert ask("--workspace-dir", folder)[1]["workspace"]["writable"] is True
    assert list(folder.iterdir()) == []


@pytest.mark.any_duckdb
def test_a_collection_that_can_not_be_read_is_a_fault(ask, built, tmp_path):
    workspace = tmp_path / "workspace"
    shutil.copytree(built, workspace, symlinks=True)
    for path in workspace.rglob("*.parquet"):
        path.write_bytes(b"PAR1 no more")
    code, report = ask("--workspace-dir", workspace)
    assert code == 1
    assert "workspace, s2_stac" in [fault["subject"] for fault in report["faults"]]


@pytest.mark.any_duckdb
def test_names_of_credentials_are_told_and_never_their_values(command, home, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hunter2")
    monkeypatch.setenv("EARTHDATA_TOKEN", "hunter2")
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_text("[default]\naws_secret_access_key = hunter2\n")
    for json_ in ([], ["--json"]):
        done = command("doctor", *json_, "--workspace-dir", tmp_path)
        assert done.exit_code == 0, done.output
        assert "hunter2" not in done.output
        for name in ("AWS_ACCESS_KEY_ID", "EARTHDATA_TOKEN", str(home / ".aws" / "credentials")):
            assert name in done.output


@pytest.mark.any_duckdb
def test_only_urls_that_are_asked_for_are_requested(ask, server, items, tmp_path):
    server.reset()
    assert ask("--workspace-dir", tmp_path)[0] == 0
    assert server.requests() == []
    url = server.url("scenes", "items.json")
    code, report = ask("--workspace-dir", tmp_path, "--url", url)
    assert code == 0
    (found,) = report["urls"]
    assert (found["url"], found["reachable"], found["error"]) == (url, True, None)
    assert found["size_bytes"] == items.stat().st_size
    assert [request["path"] for request in server.requests()] == ["/scenes/items.json"]


@pytest.mark.any_duckdb
def test_a_url_that_can_not_be_read_is_a_fault_without_its_secrets(ask, server, tmp_path):
    host = server.origin.removeprefix("http://")
    url = f"http://me:hunter2@{host}/404/scenes/items.json?sig=hunter2"
    code, report = ask("--workspace-dir", tmp_path, "--url", url)
    assert code == 1
    assert report["urls"][0]["reachable"] is False
    assert report["urls"][0]["url"] == f"http://{host}/404/scenes/items.json"
    assert report["faults"] == [{"subject": "url", "message": report["urls"][0]["error"]}]
    assert "hunter2" not in json.dumps(report)


@pytest.mark.any_duckdb
def test_a_bad_file_of_settings_is_a_fault(ask, tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "datasets.toml").write_text("[mine\n")
    monkeypatch.setenv("RASTERET_DATASETS", str(tmp_path / "datasets"))
    code, report = ask("--workspace-dir", tmp_path / "workspace")
    assert code == 1
    assert "datasets" in [fault["subject"] for fault in report["faults"]]


@pytest.mark.any_duckdb
def test_a_bad_storage_file_is_a_fault(ask, tmp_path, monkeypatch):
    (tmp_path / "storage.toml").write_text('["s3://a/"]\nno_such_option = 1\n')
    monkeypatch.setenv("RASTERET_STORAGE", str(tmp_path / "storage.toml"))
    code, report = ask("--workspace-dir", tmp_path / "workspace")
    assert code == 1
    assert [fault["subject"] for fault in report["faults"]] == ["storage"]
    assert "no_such_option" in report["faults"][0]["message"]


@pytest.mark.any_duckdb
def test_a_missing_extension_and_a_failing_connection_are_faults(ask, tmp_path, monkeypatch):
    doctor = importlib.import_module("rasteret_sql.cli.doctor")

    def fail(*_arguments):
        raise duckdb.Error("no such macro")

    monkeypatch.setattr(doctor, "opened", fail)
    monkeypatch.setattr(doctor, "_ESSENTIAL", ("icu", "no_such_extension"))
    code, report = ask("--workspace-dir", tmp_path)
    assert code == 1
    assert report["faults"] == [
        {
            "subject": "extensions",
            "message": "no_such_extension: expected an extension that is installed, got none; "
            "run INSTALL no_such_extension in DuckDB",
        },
        {"subject": "functions", "message": "no such macro"},
    ]


@pytest.mark.any_duckdb
def test_a_person_reads_a_line_for_each_fact(command, tmp_path):
    done = command("doctor", "--workspace-dir", tmp_path)
    assert (done.exit_code, done.stderr) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert facts["duckdb"] == duckdb.__version__
    assert facts["workspace"].startswith(str(tmp_path))
    assert done.stdout.splitlines()[-1] == "no faults"
