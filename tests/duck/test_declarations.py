"""A declaration is the one place: what is written from it, and what it checks."""

from __future__ import annotations

import inspect
import shutil

import duckdb
import pytest

import rasteret_sql
from rasteret_sql.duck import functions as functions  # declares them
from rasteret_sql.duck import macros
from rasteret_sql.duck.checks import at_least, flag, one_of, texts
from rasteret_sql.duck.declarations import (
    FUNCTIONS,
    Parameter,
    sql_file,
    table_function,
)
from rasteret_sql.duck.functions.read_parameters import READ_PARAMETERS
from rasteret_sql.duck.macros import SQL_FILES
from rasteret_sql.errors import InputError, RasteretError

PUBLIC = sorted(name for name in FUNCTIONS if name.startswith("rasteret_"))
READS = (
    "rasteret_plan",
    "rasteret_read_tiles",
    "rasteret_pixels",
    "rasteret_chips",
    "rasteret_preview",
    "rasteret_histogram",
)


@pytest.fixture(scope="module")
def con():
    con = rasteret_sql.connect(workspace="/nonexistent")
    yield con
    con.close()


@pytest.mark.parametrize("name", SQL_FILES)
def test_the_files_are_up_to_date(name):
    text = (macros.sql_folder() / name).read_text(encoding="utf-8")
    assert text == sql_file(name), "run: python docs/build.py"


def test_every_function_is_in_a_file():
    assert {FUNCTIONS[name].file for name in PUBLIC} == set(SQL_FILES)
    assert sorted(SQL_FILES) == sorted(
        path.name
        for path in macros.sql_folder().glob("*.sql")
        if path.name not in macros.HAND_WRITTEN
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_macro_manual_and_bind_function_have_the_same_parameters(con, name):
    function = FUNCTIONS[name]
    declared = [one.name for one in function.parameters]
    rows = con.execute(
        "SELECT parameters, comment FROM duckdb_functions() "
        "WHERE function_name = $name AND database_name = 'rasteret'",
        {"name": name},
    ).fetchall()
    assert rows == [(declared, f"\n{function.manual()}\n")]
    accepted = inspect.signature(function.bind).parameters.values()
    keywords = [one.name for one in accepted if one.kind is one.KEYWORD_ONLY]
    assert set(keywords) <= set(declared)
    if not any(one.kind is one.VAR_KEYWORD for one in accepted):
        assert set(keywords) == set(declared)


@pytest.mark.parametrize("name", READS)
def test_every_read_takes_what_all_reads_take(name):
    declared = [one.name for one in FUNCTIONS[name].parameters]
    assert declared[: 1 + len(READ_PARAMETERS)] == [
        "collection",
        *(one.name for one in READ_PARAMETERS),
    ]


def test_what_writes_is_declared_so():
    assert {name for name in PUBLIC if FUNCTIONS[name].writes} == {
        "rasteret_build",
        "rasteret_build_stac",
        "rasteret_build_table",
        "rasteret_load",
        "rasteret_export",
        "rasteret_drop",
        "rasteret_refresh",
        "rasteret_register_dataset",
        "rasteret_unregister_dataset",
    }


@pytest.mark.parametrize("parameters", [("a",), ("a", "b", "c"), ("a", "b", "b")])
def test_a_bind_function_with_other_keywords_is_refused(parameters):
    declare = table_function(
        "unlike",
        "Unlike.",
        parameters=tuple(Parameter(name, "INTEGER", name) for name in parameters),
        returns="none",
        example="FROM unlike()",
    )
    with pytest.raises(TypeError, match="unlike: parameters of the declaration and keywords of"):

        @declare
        def unlike(call, *, a, b):
            return None

    assert "unlike" not in FUNCTIONS


def test_arguments_are_checked_in_order_and_normalised():
    checked = FUNCTIONS["rasteret_pixels"].checked
    given = dict.fromkeys(one.name for one in FUNCTIONS["rasteret_pixels"].parameters)
    given |= {"collection": "s2", "bands": "B04", "on_error": "null", "max_concurrent": 8}
    given |= {"all_touched": False, "masked": True, "scaled": False}
    given |= {"level": 0, "lonlat": False, "coverage": False}
    given |= {"resampling": "nearest", "overview": "auto"}
    assert checked(given)["bands"] == ["B04"]
    assert checked(given | {"bands": ("B04", "B08")})["bands"] == ["B04", "B08"]
    with pytest.raises(InputError, match="bands: expected a list of band names, got 7"):
        checked(given | {"bands": 7, "scaled": "x"})
    with pytest.raises(InputError, match="scaled: expected true or false, got NULL"):
        checked(given | {"scaled": None})
    with pytest.raises(InputError, match=r"arguments: expected collection, bands, .*, got 'bands'"):
        checked({"bands": None})


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (flag, 1),
        (at_least(1), 0),
        (at_least(1), True),
        (at_least(1), 1.5),
        (one_of("a", "b"), "c"),
        (one_of("a", "b"), ["a"]),
        (texts("names"), []),
        (texts("names"), [1]),
    ],
)
def test_a_check_names_the_argument_and_what_it_got(check, value):
    with pytest.raises(InputError, match=r"^here: expected .+, got .+; .+"):
        check("here", value)


@pytest.mark.parametrize("listed", ["['B04']", "'B04'"])
def test_bands_of_sql_are_a_list_or_one(con, listed):
    with pytest.raises(duckdb.Error, match="rasteret_pixels: collection: expected"):
        con.execute(f"FROM rasteret_pixels('nothing', bands := {listed})")


@pytest.mark.parametrize(
    ("argument", "value"), [("bands", ("B04", "B08")), ("ids", ("a",)), ("bbox", (1, 2, 3, 4.5))]
)
def test_a_python_tuple_is_a_list(con, argument, value):
    with pytest.raises(duckdb.Error, match="rasteret_pixels: collection: expected"):
        con.execute(f"FROM rasteret_pixels('nothing', {argument} := $value)", {"value": value})


def test_another_package_s_folder_sql_is_not_ours(tmp_path):
    package = tmp_path / "site-packages" / "rasteret_sql"
    shutil.copytree(macros.sql_folder(), package / "_sql")
    (package.parent / "sql").mkdir()
    (package.parent / "sql" / "magic.sql").write_text("SELECT 1")
    assert macros.sql_folder(package) == package / "_sql"
    shutil.rmtree(package / "_sql")
    with pytest.raises(RasteretError, match=r"SQL files: expected 10_scalars\.sql and others in"):
        macros.sql_folder(package)
