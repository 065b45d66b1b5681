"""A reader of the pages: a folder with the demo, and a session in it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from docs.pages import Session, with_command
from scenes import ROOT

import rasteret_sql


@pytest.fixture(scope="session")
def demo(scenes, tmp_path_factory) -> Path:
    """What `rasteret-sql demo --folder .` writes, made once for all pages."""
    folder = tmp_path_factory.mktemp("demo")
    items = shutil.copytree(scenes, folder / "scenes") / "items.json"
    with rasteret_sql.connect(workspace=folder / "workspace") as con:
        con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [str(items)]).fetchall()
    return folder


@pytest.fixture
def reader(demo, tmp_path, monkeypatch):
    """A session in a folder with the demo in it, and with a command `rasteret-sql`."""
    folder = tmp_path / "folder"
    shutil.copytree(demo, folder, symlinks=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RASTERET_DATASETS", str(tmp_path / "datasets.json"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    monkeypatch.chdir(folder)
    session = Session(folder, with_command(tmp_path / "bin", environment))
    yield session
    session.close()
