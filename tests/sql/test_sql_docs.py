"""The comments in sql/ are the manual: complete, and every example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rasteret_sql
from rasteret_sql.demo.scenes import write_scenes
from rasteret_sql.duck import functions as functions  # declares them
from rasteret_sql.duck.declarations import FUNCTIONS
from rasteret_sql.duck.macros import sql_folder, statements

ORDER = (
    "rasteret_build_stac",
    "rasteret_register_dataset",
    "rasteret_build",
    "rasteret_build_table",
    "rasteret_enrich",
    "rasteret_export",
    "rasteret_load",
)
"""Examples that later ones need; ``rasteret_drop`` comes last."""


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """Name, parameters and comment of every public macro, and a connection for examples."""
    folder = tmp_path_factory.mktemp("examples")
    write_scenes(folder)
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RASTERET_DATASETS", str(folder / "datasets.json"))
        con = rasteret_sql.connect(workspace=folder / "workspace")
        con.execute(
            "CREATE TABLE my_scenes AS SELECT i AS id, $url AS url FROM range(2) t(i)",
            {"url": str(next(folder.glob("*/B04.tif")))},
        )
        functions = {
            row[0]: row
            for row in con.execute(
                "SELECT function_name, parameters, comment FROM duckdb_functions() "
                "WHERE starts_with(function_name, 'rasteret_') AND database_name = 'rasteret'"
            ).fetchall()
        }
        yield functions, con
        con.close()
    assert Path.cwd() == before


def texts():
    return "\n".join(statement.query for statement in statements())


def names():
    return sorted(re.findall(r"CREATE OR REPLACE MACRO (rasteret_\w+)", texts()))


def field(comment, name):
    found = re.search(rf"^{name} +(.*)$", comment, re.MULTILINE)
    return found and found[1].strip()


@pytest.mark.parametrize("name", names())
def test_every_function_has_a_line_for_each_parameter(manual, name):
    _, parameters, comment = manual[0][name]
    assert comment, f"COMMENT ON MACRO {name} is missing"
    for part in (*parameters, "returns", "example"):
        assert field(comment, part), f"{name}: no line for {part}"


@pytest.mark.parametrize("name", names())
def test_the_first_line_is_a_sentence(manual, name):
    """It stands alone in lists of functions."""
    first = manual[0][name][2].strip().splitlines()[0]
    assert first.endswith("."), first


def test_every_example_runs_and_scalars_give_their_result(manual):
    functions, con = manual
    middle = [n for n in names() if n not in (*ORDER, "rasteret_drop")]
    for name in (*ORDER, *middle, "rasteret_drop"):
        comment = functions[name][2]
        found = con.execute(field(comment, "example")).fetchall()
        result = field(comment, "result")
        if result is not None:
            assert ", ".join(_text(value) for value in found[0]) == result, name
        else:
            assert isinstance(found, list), name
            assert found or name in ("rasteret_errors", "rasteret_warnings"), name


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_python_functions_and_macros_are_the_same_set():
    called = set(re.findall(r"_rasteret_bind\(\s*'(\w+)'", texts()))
    assert called == set(FUNCTIONS)


def test_rasteret_functions_lists_every_macro_once(manual):
    _, con = manual
    found = [row[0] for row in con.execute("SELECT name FROM rasteret_functions()").fetchall()]
    assert found == names()


@pytest.mark.parametrize("path", sorted(sql_folder().glob("*.sql")), ids=lambda p: p.name)
def test_files_start_with_a_sentence_and_keep_their_width(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("-- ")
    code = [line for line in lines if line.startswith("    ")]
    assert [line for line in code if len(line) > 115] == []
