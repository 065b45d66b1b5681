"""The scripts and the notebook of examples/ run, on the demo, and give what they say."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from typing import Any

import pytest
from docs.pages import cells
from jupyter_client import KernelManager
from scenes import ROOT

import rasteret_sql

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.sql"))
PART = re.compile(r"(.*?;)[ ]*\n((?:^--> [^\n]*\n)*)", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_statements_give_the_rows_that_stand_below_them(script, reader):
    compared = 0
    text = script.read_text(encoding="utf-8")
    with rasteret_sql.connect(workspace="workspace") as con:
        for statement, told in PART.findall(text):
            found = con.execute(statement).fetchall()
            if told:
                rows = [", ".join(map(str, row)) for row in found]
                assert rows == [line[4:] for line in told.splitlines()], statement
                compared += 1
    assert compared >= 3
    assert text.count("\n--> ") == sum(told.count("--> ") for _, told in PART.findall(text))


@pytest.mark.any_duckdb
def test_a_script_runs_as_its_first_lines_say(reader):
    (reader.folder / "examples").symlink_to(EXAMPLES)
    text = (EXAMPLES / "query_headers.sql").read_text(encoding="utf-8")
    (command,) = re.findall(r"^-- (rasteret-sql shell .*)$", text, re.MULTILINE)
    assert cells(reader.run("sh", command))[-1] == ["9", "6"]


class Notebook:
    """A kernel that runs cells one after the other."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._manager = KernelManager(kernel_name="python3")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._manager.start_kernel(env=environment, **quiet)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    def run(self, code: str) -> list[dict[str, Any]]:
        """The outputs of a cell.

        Raises:
            AssertionError: the cell raised.
        """
        message, outputs = self._client.execute(code), []
        while True:
            got = self._client.get_iopub_msg(timeout=60)
            if got["parent_header"].get("msg_id") != message:
                continue
            kind, content = got["msg_type"], got["content"]
            assert kind != "error", "\n".join(content.get("traceback", []))
            if kind in ("stream", "execute_result", "display_data"):
                outputs.append(content)
            elif kind == "status" and content["execution_state"] == "idle":
                return outputs

    def end(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


def shown(outputs: list[dict[str, Any]]) -> tuple[list[list[str]], int]:
    """The words of all texts that belong to no picture, and the number of pictures."""
    text, pictures = "", 0
    for output in outputs:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            pictures += 1
        else:
            text += "".join(data["text/plain"]) + "\n"
    return cells(text), pictures


@pytest.mark.any_duckdb
def test_the_notebook_gives_what_it_shows(reader):
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    notebook = json.loads((EXAMPLES / "recipes.ipynb").read_text(encoding="utf-8"))
    found_pictures = 0
    # a slow machine would show how far a read is
    kernel = Notebook(reader.environment | {"RASTERET_PROGRESS": "0"})
    try:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                text, pictures = shown(kernel.run("".join(cell["source"])))
                assert (text, pictures) == shown(cell["outputs"]), "".join(cell["source"])
                found_pictures += pictures
    finally:
        kernel.end()
    assert found_pictures == 5
