"""What reads and builds see and leave inside of a transaction of the caller's."""

from __future__ import annotations

import pytest
from reading.rasters import noise, write
from reading.read_oracle import build_files

CRS = "geometry_crs := 'EPSG:32643'"


@pytest.fixture
def three(con, tmp_path):
    """Collection `made` of three files, as a table `scenes` too, and a point in `spots`."""
    files = {name: tmp_path / f"{name}.tif" for name in "abc"}
    for number, path in enumerate(files.values()):
        write(path, noise((1, 40, 40), seed=number))
    build_files(con, "made", files)
    x, y = con.execute("SELECT x, y FROM rasteret_pixels('made') LIMIT 1").fetchone()
    con.execute("CREATE TABLE scenes AS FROM made")
    con.execute("CREATE TABLE spots AS SELECT ?::DOUBLE AS x, ?::DOUBLE AS y", [x, y])
    return con


@pytest.mark.any_duckdb
def test_what_is_written_in_a_transaction_goes_with_it(three):
    three.execute("CREATE TABLE kept AS FROM rasteret_pixels('made') LIMIT 0")
    three.execute("BEGIN")
    three.execute("INSERT INTO kept FROM rasteret_pixels('made')")
    assert three.execute("SELECT count(*) FROM kept").fetchone() == (4800,)
    three.execute("ROLLBACK")
    assert three.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    three.execute("BEGIN; INSERT INTO kept FROM rasteret_pixels('made'); COMMIT")
    assert three.execute("SELECT count(*) FROM kept").fetchone() == (4800,)


@pytest.mark.any_duckdb
def test_a_build_stays_when_its_transaction_is_rolled_back(three):
    three.execute("BEGIN")
    three.execute(
        "FROM rasteret_build_table('inside', source := 'made_files', href_column := 'href', "
        "band_index_map := MAP {'band': 0}, enrich := true)"
    ).fetchall()
    assert three.execute("SELECT count(*) FROM rasteret_read('inside')").fetchone() == (3,)
    three.execute("ROLLBACK")
    assert three.execute("SELECT count(*) FROM rasteret_read('inside')").fetchone() == (3,)


@pytest.mark.any_duckdb
def test_changes_of_a_table_are_read_once_they_are_committed(three):
    """A limit that docs/reading.md tells; TEMP tables are the way around it."""
    points = "rasteret_sample_points('made', '{}', x_column := 'x', y_column := 'y', " + CRS + ")"
    three.execute("BEGIN")
    three.execute("DELETE FROM scenes WHERE id = 'b'")
    three.execute("INSERT INTO spots FROM spots")
    three.execute("CREATE TEMP TABLE own AS FROM spots")
    count = "SELECT count(*) FROM "
    assert three.execute(count + "rasteret_read('scenes')").fetchone() == (3,)
    assert three.execute(count + points.format("spots")).fetchone() == (3,)
    assert three.execute(count + points.format("own")).fetchone() == (6,)
    three.execute("COMMIT")
    assert three.execute(count + "rasteret_read('scenes')").fetchone() == (2,)
    assert three.execute(count + points.format("spots")).fetchone() == (6,)
