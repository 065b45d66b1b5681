"""A reader of the pages: a folder with the demo, and a session in it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from docs.pages import Session
from scenes import ROOT

import rasteret_sql
from rasteret_sql.demo import write_scenes


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """What `rasteret-sql demo --folder .` writes, made once for all pages."""
    folder = tmp_path_factory.mktemp("demo")
    items = write_scenes(folder / "scenes")
    with rasteret_sql.connect(workspace=folder / "workspace") as con:
        con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [str(items)]).fetchall()
    return folder


@pytest.fixture
def reader(demo, tmp_path, monkeypatch):
    """A session in a folder with the demo in it, and with a command `rasteret-sql`."""
    folder = tmp_path / "folder"
    shutil.copytree(demo, folder, symlinks=True)
    command = tmp_path / "bin" / "rasteret-sql"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rasteret_sql "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RASTERET_DATASETS", str(tmp_path / "datasets.json"))
    paths = {
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join(
            [str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
    }
    monkeypatch.chdir(folder)
    session = Session(folder, os.environ | paths)
    yield session
    session.close()
