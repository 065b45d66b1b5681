"""What docs/map.md tells to type is typed here, as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import textwrap
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import imagecodecs
import pytest
from processes import heeding_ctrl_c

from rasteret_sql.maps.app import MAX_OUTLINES, MAX_SCENES
from rasteret_sql.maps.expressions import MAX_LENGTH
from rasteret_sql.maps.layers import METHODS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
BLOCKS = [textwrap.dedent(block).strip() for block in INDENTED.findall(PAGE)]
START, OTHERS, TILES, WRONG, TOLD, POINT = BLOCKS
MAPS = [line for line in f"{START}\n{OTHERS}".splitlines() if line.startswith("rasteret-sql map")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scenes, workspace):
    """A folder as after the page's first line."""
    made = tmp_path_factory.mktemp("started")
    assert START.splitlines()[0] == "rasteret-sql demo --folder ."
    (made / "workspace").symlink_to(workspace)
    (made / "scenes").symlink_to(scenes)
    return made


@pytest.fixture(params=MAPS)
def address(request, folder):
    """The address that a command of the page prints."""
    arguments = shlex.split(request.param)[1:]
    process = subprocess.Popen(
        heeding_ctrl_c("-m", "rasteret_sql", *arguments, "--port", "0"),
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield urlsplit(process.stdout.readline().strip())
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


def asked(command, address):
    """The address that a command of the page asks, of this server."""
    _, url = shlex.split(command)
    assert url.startswith("http://127.0.0.1:8765/")
    return url.replace("127.0.0.1:8765", address.netloc).replace("token=…", address.query)


def fetched(url):
    try:
        answer = urllib.request.urlopen(url, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.read()


@pytest.mark.any_duckdb
def test_the_commands_and_addresses_of_the_page(address):
    url = f"http://{address.netloc}/api/collections?{address.query}"
    (name,) = json.loads(fetched(url))["collections"]
    facts = json.loads(fetched(url.replace("?", f"/{name}?")))
    assert facts["records"] == {"s2": 6, "query": 4, "files": 3}[name]
    if name != "s2":
        return
    tile = TILES.replace("{z}/{x}/{y}", "14/11741/7594")
    image = imagecodecs.png_decode(fetched(asked(f"curl '{tile}'", address)))
    assert image[..., 3].any()
    assert fetched(asked(WRONG, address)).decode() == TOLD
    assert len(json.loads(fetched(asked(POINT, address)))["rows"]) == 6


def test_figures_and_names_of_the_page():
    assert f"more than {MAX_SCENES} scenes" in PAGE
    assert f"at most {MAX_OUTLINES} " in PAGE
    assert f"more than {MAX_LENGTH} characters" in PAGE
    methods = re.search(r"^\| `method` \|.*$", PAGE, re.MULTILINE)[0]
    assert [name for name in METHODS if f"`{name}`" not in methods] == []
    assert (ROOT / "docs" / "images" / "map.png").stat().st_size < 200_000
