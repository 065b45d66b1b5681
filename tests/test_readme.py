"""README and generated pages are true: fences run in order, tables are up to date."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import rasteret_sql
from rasteret_sql.demo.scenes import write_scenes

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_fence_runs_and_gives_what_stands_below_it(tmp_path, monkeypatch):
    write_scenes(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    found, checked = None, 0
    for kind, text in FENCE.findall((ROOT / "README.md").read_text()):
        if kind == "python":
            exec(text, names)
        elif kind == "sql":
            found = names["con"].execute(text).fetchall()
        elif kind == "text":
            assert repr(found) == text.strip()
            checked += 1
    names["con"].close()
    assert checked >= 4


def test_the_table_and_the_reference_are_up_to_date(build):
    text = (ROOT / "README.md").read_text()
    assert build.readme(text) == text, "run: python docs/build.py"
    reference = (ROOT / "docs" / "functions.md").read_text()
    assert build.reference() == reference, "run: python docs/build.py"


def test_links_lead_to_files():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_public_surface_is_this():
    assert sorted(rasteret_sql.__all__) == [
        "__version__",
        "connect",
        "errors",
        "register",
        "sql",
        "storage",
        "to_geopandas",
        "to_numpy",
        "to_xarray",
    ]
