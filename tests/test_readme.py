"""README and generated pages are true: what they say to type works, tables are up to date."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from processes import heeding_ctrl_c

import rasteret_sql
from rasteret_sql.remote.config import StorageOptions

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shell(tmp_path):
    """Run lines of a shell in an empty folder, with `rasteret-sql` on PATH."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    command = bin_ / "rasteret-sql"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rasteret_sql "$@"\n')
    command.chmod(0o755)
    (tmp_path / "empty").mkdir()
    paths = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{bin_}:{os.environ['PATH']}"}

    def run(text):
        done = subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=tmp_path / "empty",
            env=paths,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder, run.environment = tmp_path / "empty", paths
    return run


def page_of_the_map(shell, command):
    """What a browser gets at the address that a command of the README prints; Ctrl-C ends it."""
    name, *arguments = shlex.split(command)
    assert name == "rasteret-sql"
    server = subprocess.Popen(
        heeding_ctrl_c("-m", "rasteret_sql", *arguments, "--port", "0"),
        cwd=shell.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = server.stdout.readline().strip()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(address, timeout=30) as answer:
            page = answer.read().decode()
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)
    assert server.returncode == 0
    return page


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of rasterio's affine
def test_what_a_reader_types_in_an_empty_folder_gives_what_stands_below_it(shell, monkeypatch):
    monkeypatch.chdir(shell.folder)
    names: dict = {}
    found, checked = None, 0
    install, *fences = FENCE.findall((ROOT / "README.md").read_text())
    assert install[0] == "sh"
    assert install[1].endswith("pip install .\n")  # `make wheel` does that
    for kind, text in fences:
        if kind == "sh" and text.startswith("rasteret-sql map "):
            assert "<title>rasteret map</title>" in page_of_the_map(shell, text)
            checked += 1
        elif kind == "sh":
            assert shell(text)
        elif kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(text, names)
            found = printed.getvalue()
        elif kind == "sql":
            found = str(names["con"].sql(text))
        elif kind == "text":
            assert found.strip() == text.strip()
            checked += 1
    names["con"].close()
    assert checked == 7


def test_rasterio_and_sql_give_the_same_numbers():
    fences = FENCE.findall((ROOT / "README.md").read_text())
    shown = {text for kind, text in fences if kind == "text"}
    (sql,) = (text for text in shown if "ndvi" in text and "│" in text)
    (theirs,) = (text for text in shown if re.match(r"2024-\d\d-\d\d 0", text))
    rows = re.findall(r"│ (\S+) +│ +([\d.]+) │", sql)
    assert [" ".join(row) for row in rows] == theirs.split("\n")[: len(rows)]
    assert len(rows) == 2


def test_the_table_and_the_reference_are_up_to_date(build):
    text = (ROOT / "README.md").read_text()
    assert build.readme(text) == text, "run: python docs/build.py"
    reference = (ROOT / "docs" / "functions.md").read_text()
    assert build.reference() == reference, "run: python docs/build.py"
    python = (ROOT / "docs" / "python.md").read_text()
    assert build.python_reference() == python, "run: python docs/build.py"


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


def test_every_public_python_name_says_what_it_takes(build):
    names = build.python_functions()
    assert {*names, "__version__", "errors"} == set(rasteret_sql.__all__)
    for name in names:
        function = getattr(rasteret_sql, name)
        told = inspect.getdoc(function)
        for parameter in inspect.signature(function).parameters:
            assert re.search(rf"^    {parameter}: ", told, re.MULTILINE), f"{name}: {parameter}"
    options = inspect.getdoc(StorageOptions)
    for field in dataclasses.fields(StorageOptions):
        assert re.search(rf"^    {field.name}: ", options, re.MULTILINE), field.name
    errors = build.error_classes()
    assert rasteret_sql.errors.RasteretError in errors
    assert all(one.__doc__ for one in errors)
