"""The macros are copied from a file in the user's cache; without it they are the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import duckdb
import pytest

import rasteret_sql
from rasteret_sql.duck import macro_cache, macros

MANUAL = (
    "SELECT function_name, function_type, parameters::VARCHAR, comment, macro_definition "
    "FROM duckdb_functions() WHERE database_name = 'rasteret' "
    "AND function_name <> '_rasteret_instance' ORDER BY ALL"
)
DATABASES = (
    "SELECT database_name, path, internal, readonly FROM duckdb_databases() "
    "WHERE NOT internal ORDER BY ALL"
)
CONNECT = """
import rasteret_sql
con = rasteret_sql.connect(workspace={workspace!r})
print(con.execute("SELECT count(*) FROM rasteret_functions()").fetchall())
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the cache, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rasteret_sql"


@pytest.fixture
def parsed(monkeypatch):
    """How often the statements are run."""
    calls = []
    load = macros.load

    def counted(con):
        calls.append(con)
        load(con)

    monkeypatch.setattr(macros, "load", counted)
    return calls


def connect(tmp_path, **options):
    return rasteret_sql.connect(workspace=tmp_path / "workspace", **options)


def manual(con):
    """All macros, and the databases. 1.5 shows a copied lambda and type in another notation."""
    found = [
        (*rest, re.sub(r"lambda (\w+): ?", r"\1 -> ", body).replace('"', ""))
        for *rest, body in con.execute(MANUAL).fetchall()
    ]
    return found, con.execute(DATABASES).fetchall()


def test_what_is_copied_is_what_the_statements_make(cache, parsed, tmp_path, monkeypatch):
    with connect(tmp_path) as first, connect(tmp_path) as second:
        assert len(parsed) == 1  # for the file; both connections copied it
        copied = manual(first)
        assert manual(second) == copied
        assert first.execute("SELECT rasteret_ndvi(1000, 3000)").fetchall() == [(0.5,)]
        assert first.execute("FROM rasteret_collections()").fetchall() == []
        first.execute("USE rasteret")
        assert first.execute("SELECT rasteret_ndvi(1000, 3000)").fetchall() == [(0.5,)]
    assert [path.name for path in cache.iterdir()] == [macro_cache._name()]
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with connect(tmp_path) as con:
        assert len(parsed) == 2
        assert manual(con) == copied
    assert len(copied[0]) == len(macros.temp_statements()) > 40
    assert all(comment for *_, comment, _ in copied[0])


def test_temp_macros_are_all_macros(cache, tmp_path):
    query = "SELECT function_name FROM duckdb_functions() WHERE database_name = $name AND "
    query += "function_name LIKE 'rasteret%' ORDER BY ALL"
    with connect(tmp_path) as con:
        own, temp = (con.execute(query, {"name": n}).fetchall() for n in ("rasteret", "temp"))
    assert own == temp != []


@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_a_damaged_file_is_written_again(cache, parsed, tmp_path, damage):
    connect(tmp_path).close()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:12288] + bytes(len(whole) - 12288)
    path.write_bytes({"cut": whole[:middle], "empty": b"", "changed": changed}[damage])
    with connect(tmp_path) as con:
        assert len(con.execute("FROM rasteret_functions()").fetchall()) > 40
    connect(tmp_path).close()
    n_parsed = len(parsed)
    with connect(tmp_path) as con:
        assert len(con.execute("FROM rasteret_functions()").fetchall()) > 40
    assert len(parsed) == n_parsed == 3  # the file, instead of the damaged one, the file again


def test_a_connection_that_may_open_no_files_has_the_macros(cache, parsed, tmp_path):
    connect(tmp_path).close()
    config = {"enable_external_access": False}
    with duckdb.connect(config=config) as con:
        rasteret_sql.register(con, workspace=tmp_path / "workspace")
        assert len(con.execute("FROM rasteret_functions()").fetchall()) > 40
    assert len(parsed) == 2
    assert [path.name for path in cache.iterdir()] == [macro_cache._name()]


def test_a_database_that_is_read_only_or_exported_has_nothing_of_ours(cache, parsed, tmp_path):
    path = tmp_path / "farm.duckdb"
    duckdb.connect(str(path)).close()
    with connect(tmp_path, database=path, read_only=True) as con:
        assert len(con.execute("FROM rasteret_functions()").fetchall()) > 40
    with duckdb.connect(str(path)) as con:
        rasteret_sql.register(con, workspace=tmp_path / "workspace")
        assert len(con.execute("FROM rasteret_functions()").fetchall()) > 40
        con.execute(f"EXPORT DATABASE '{tmp_path / 'exported'}'")
    assert "rasteret" not in (tmp_path / "exported" / "schema.sql").read_text()
    assert len(parsed) == 1


def test_processes_that_start_at_once_share_the_cache(cache, tmp_path):
    code = CONNECT.format(workspace=str(tmp_path))
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {process.communicate(timeout=120)[0] for process in started}
    assert {process.returncode for process in started} == {0}
    assert len(printed) == 1
    assert [path.name for path in cache.iterdir()] == [macro_cache._name()]


def test_files_of_old_versions_are_deleted(cache, tmp_path):
    cache.mkdir(parents=True)
    names = ("macros-0.9.0-0123.duckdb", "macros-1.5.5-4567.duckdb", "other.duckdb")
    for name in names:
        (cache / name).touch()
    for name in (names[0], names[2]):
        os.utime(cache / name, (0, 0))
    connect(tmp_path).close()
    assert {path.name for path in cache.iterdir()} == {macro_cache._name(), *names[1:]}


@pytest.mark.parametrize("folder", ["relative", "/dev/null"])
def test_without_a_folder_of_its_own_nothing_is_written(parsed, tmp_path, monkeypatch, folder):
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    monkeypatch.chdir(tmp_path)
    with connect(tmp_path) as con:
        assert len(con.execute("FROM rasteret_functions()").fetchall()) > 40
    assert len(parsed) == 1
    assert list(tmp_path.iterdir()) == []
