"""What is wrong with the arguments alone is told when a statement is bound.

Then the message is ours, without DuckDB's words about the source that failed.
"""

from __future__ import annotations

import duckdb
import pytest

import rasteret_sql


@pytest.fixture
def con(workspace):
    con = rasteret_sql.connect(workspace=workspace)
    con.execute("CREATE TABLE scenes AS FROM s2")
    yield con
    con.close()


FAULTS = {
    "no such file": ("rasteret_build_stac('n', stac_api := '/no/items.json')", "a readable file"),
    "CQL2 without an API": (
        "rasteret_build_stac('n', stac_api := '.', filter := 'a = 1')",
        "filter: expected a STAC API",
    ),
    "sample of items": (
        "rasteret_build_stac('n', stac_api := '.', band_index_map := MAP {'B04': -1})",
        r"band_index_map\['B04'\]: expected 0 or more, got -1",
    ),
    "sample of a table": (
        "rasteret_build_table('n', 'scenes', band_index_map := MAP {'B04': -1})",
        r"band_index_map\['B04'\]: expected 0 or more, got -1",
    ),
    "no id": ("rasteret_build_table('n', 'SELECT assets FROM scenes')", "a column id"),
    "no assets": ("rasteret_build_table('n', 'SELECT id FROM scenes')", "a column assets"),
    "no such href column": (
        "rasteret_build_table('n', 'scenes', href_column := 'zz')",
        r"href_column: expected columns of the source \(id, ",
    ),
    "no such column": ("rasteret_build_table('n', 'scenes', columns := ['zz'])", "columns: "),
    "no such column to map": (
        "rasteret_build_table('n', 'scenes', column_map := MAP {'zz': 'id'})",
        "column_map: ",
    ),
    "no such CRS": (
        "rasteret_build_table('n', 'FROM scenes', geometry_crs := 'EPSG:99999')",
        "geometry_crs: expected a code of a CRS",
    ),
    "folder that is taken": ("rasteret_export('s2', '/')", "path: expected a new or empty folder"),
    "no such key": (
        "rasteret_export('s2', '/no', partition_by := ['zz'])",
        "partition_by: expected one of year, month, id",
    ),
    "no such codec": (
        "rasteret_export('s2', '/no', compression := 'zz')",
        "compression: expected one of zstd",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_arguments_is_told_in_our_words_alone(con, name):
    call, told = FAULTS[name]
    function = call.partition("(")[0]
    with pytest.raises(duckdb.Error, match=rf"^Invalid Input Error: {function}: .*{told}"):
        con.execute(f"EXPLAIN FROM {call}")


def test_a_collection_that_stands_is_returned_without_its_source(con, tmp_path):
    con.execute("COPY (SELECT * FROM s2) TO 'x.parquet'".replace("x.", f"{tmp_path}/x."))
    path = tmp_path / "x.parquet"
    build = "SELECT records FROM rasteret_build_stac('n', stac_api := $p, workspace := $w)"
    parameters = {"p": str(path), "w": str(tmp_path / "workspace")}
    first = con.execute(build, parameters).fetchall()
    path.unlink()
    assert con.execute(build, parameters).fetchall() == first
