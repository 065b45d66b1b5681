"""Pages whose every block is typed here, in order, give what stands below the blocks."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from doors.pages import FENCE, Session, cells, outcomes
from doors.scenes import ROOT

import rasteret_sql
from rasteret_sql.demo import write_scenes

DOCS = ROOT / "docs"
PAGES = {"recipes.md": 14}
"""Pages that are run whole, and how many of their results are compared at least."""


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_every_block_gives_what_stands_below_it(page, reader):
    checked = 0
    text = (DOCS / page).read_text(encoding="utf-8")
    for fence, found in outcomes(text, reader):
        if found is not None:
            assert cells(found) == cells(fence["text"]), f"{page}:\n{found}"
            checked += 1
    assert checked >= PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert len(re.findall(r"^```\w*$", text, re.MULTILINE)) == 2 * len(FENCE.findall(text))
    assert {fence["kind"] for fence in FENCE.finditer(text)} <= {"sh", "python", "sql", "text"}
