"""Arguments that match no record: no row, no error, and a word where the user looks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import UTC, datetime

import pytest
from pyproj import Transformer
from scenes import ORIGIN, PIXEL_M, SCENES, SIZE_PX

import rasteret_sql
from examples import in_turns
from rasteret_sql.duck.connection import instance_of
from rasteret_sql.errors import RasteretWarning

LEFT, TOP = ORIGIN
SIDE_M = SIZE_PX * PIXEL_M
LON, LAT = Transformer.from_crs(32643, 4326, always_xy=True).transform(
    [LEFT, LEFT + SIDE_M, LEFT + SIDE_M, LEFT], [TOP, TOP, TOP - SIDE_M, TOP - SIDE_M]
)
BOUNDS = f"longitude {min(LON):.6g} to {max(LON):.6g}, latitude {min(LAT):.6g} to {max(LAT):.6g}"
HERE = "[77.585, 13.093, 77.59, 13.099]"
READS = ("rasteret_plan", "rasteret_read_tiles", "rasteret_read", "rasteret_pixels")
QUERY = "SELECT * FROM s2"


@pytest.fixture
def con(workspace):
    con = rasteret_sql.connect(workspace=workspace)
    yield con
    con.close()


def told(con, arguments, *, function="rasteret_pixels", source="s2"):
    """Number of rows, and what `warnings` got."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        query = f"FROM {function}('{source}', bands := ['B04'], {arguments})"
        n_rows = len(con.execute(query).fetchall())
    assert {one.category for one in caught} <= {RasteretWarning}
    return n_rows, [str(one.message) for one in caught]


@pytest.mark.parametrize(("function", "source"), in_turns(READS, ["s2", QUERY]))
def test_swapped_coordinates_are_no_rows_and_one_warning(con, function, source):
    swapped = "bbox := [13.093, 77.585, 13.099, 77.59]"
    n_rows, (message,) = told(con, swapped, function=function, source=source)
    assert n_rows == 0
    named = "s2" if source == "s2" else "the query"
    assert message == (
        f"{function}: bbox: expected an area that touches {named} ({BOUNDS}), got longitude "
        "13.093 to 13.099, latitude 77.585 to 77.59; are longitude and latitude swapped?"
    )


@pytest.mark.parametrize("source", ["s2", QUERY])
def test_an_area_elsewhere_names_the_bounds_and_asks_nothing(con, source):
    elsewhere = "geometry := 'POLYGON ((7 46, 7.1 46, 7.1 46.1, 7 46))'"
    n_rows, (message,) = told(con, elsewhere, source=source)
    assert n_rows == 0
    assert f"({BOUNDS}), got longitude 7 to 7.1, latitude 46 to 46.1; check" in message
    assert message.startswith("rasteret_pixels: geometry: ")


def test_a_wrong_utm_zone_asks_for_the_crs(con):
    metres = "bbox := [780100, 1448900, 780900, 1449900], geometry_crs := "
    assert told(con, f"{metres}32643")[1] == []
    n_rows, (message,) = told(con, f"{metres}32633")
    assert n_rows == 0
    assert BOUNDS in message
    assert message.endswith("is geometry_crs the CRS of its coordinates?")


def test_areas_of_a_relation_that_touch_nothing_are_told(con):
    con.execute("CREATE TABLE fields AS SELECT 'POLYGON ((7 46, 8 46, 8 47, 7 46))' AS geom")
    n_rows, (message,) = told(con, "aois := 'fields'")
    assert n_rows == 0
    assert message.startswith("rasteret_pixels: aois: expected an area that touches s2")


def test_a_bbox_across_the_antimeridian_the_long_way_round_is_told(con):
    n_rows, messages = told(con, "bbox := [77.59, 13.09, 77.585, 13.1]")
    assert n_rows > 0
    assert len(messages) == 1
    assert "got 77.59 > 77.585, 359.995 degrees wide; are west and east swapped?" in messages[0]
    n_rows, messages = told(con, "bbox := [170, 13.09, -170, 13.1]")
    assert n_rows == 0
    assert [message.split(":")[1] for message in messages] == [" bbox"]
    assert BOUNDS in messages[0]


@pytest.mark.parametrize("source", ["s2", QUERY])
def test_ids_that_are_not_there_are_named(con, source):
    known = next(iter(SCENES))
    n_rows, (message,) = told(con, f"ids := ['{known}', 'nope', 'neither']", source=source)
    assert n_rows == 128 * 128
    assert "got 2 unknown (nope, neither)" in message
    assert told(con, f"ids := ['{known}']", source=source) == (128 * 128, [])


def test_dates_without_a_record_name_those_of_the_collection(con):
    n_rows, (message,) = told(con, "date_range := ['2014-01-01', '2014-12-31']")
    assert n_rows == 0
    assert "date_range: expected dates of s2 (2024-01-09 to 2024-02-03), got 2014-01-01" in message


def test_arguments_that_match_apart_but_not_together_are_told(con):
    known = next(iter(SCENES))
    n_rows, (message,) = told(con, f"ids := ['{known}'], date_range := ['2024-02-01', NULL]")
    assert n_rows == 0
    assert "arguments: expected some that match a record of s2 together" in message


def test_what_matches_and_what_a_where_drops_are_no_warning(con):
    assert told(con, f"bbox := {HERE}")[1] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        query = f"FROM rasteret_pixels('s2', bbox := {HERE}) WHERE id = 'nope'"
        assert con.execute(query).fetchall() == []
        empty = "FROM rasteret_pixels('SELECT * FROM s2 WHERE false', bands := ['B04'], "
        assert con.execute(f"{empty} bbox := [1, 2, 3, 4])").fetchall() == []


def test_the_warnings_of_the_instance_are_rows(con):
    for number in range(103):
        told(con, f"ids := ['unknown {number}']", function="rasteret_plan")
    other = con.cursor()
    told(other, "bbox := [7, 46, 8, 47]")
    rows = con.execute("FROM rasteret_warnings()").fetchall()
    assert len(rows) == 100
    function, connection, message, time = rows[-1]
    assert function == "rasteret_pixels"
    (number,) = other.execute("SELECT current_connection_id()::VARCHAR").fetchone()
    assert connection == number != rows[0][1]
    assert "got longitude 7 to 8, latitude 46 to 47" in message
    assert abs((time - datetime.now(UTC).replace(tzinfo=None)).total_seconds()) < 60
    assert "unknown 4)" in rows[0][2]
    assert con.execute("FROM rasteret_warnings(newest := 1)").fetchall() == rows[-1:]


def test_clients_of_a_server_see_their_own_warnings_alone(con):
    other = con.cursor()
    told(con, "ids := ['mine']")
    told(other, "ids := ['theirs']")
    runtime = instance_of(con).runtime
    assert len(con.execute("FROM rasteret_warnings()").fetchall()) == 2
    runtime.shares_warnings = False
    for connection, name in ((con, "mine"), (other, "theirs")):
        ((message,),) = connection.execute("SELECT message FROM rasteret_warnings()").fetchall()
        assert f"({name})" in message


def test_a_filter_that_makes_it_an_error_does_not_end_the_statement(con, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    con.execute("BEGIN")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        query = "SELECT count(*) FROM rasteret_pixels('s2', bbox := [7, 46, 8, 47])"
        assert con.execute(query).fetchall() == [(0,)]
        assert con.execute("SELECT 1").fetchall() == [(1,)]
    con.execute("COMMIT")
    assert [one.exc_type for one in reported] == [RasteretWarning]
    assert "got longitude 7 to 8" in str(reported[0].exc_value)


def test_the_sql_function_raises_it_after_the_statement(con):
    query = "SELECT count(*) FROM rasteret_pixels('s2', bbox := [7, 46, 8, 47])"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RasteretWarning, match="got longitude 7 to 8"):
            rasteret_sql.sql(con, query)
    with pytest.warns(RasteretWarning, match="got longitude 7 to 8"):
        assert rasteret_sql.sql(con, query).fetchall() == [(0,)]
    assert con.execute("SELECT 1").fetchall() == [(1,)]


def test_an_error_comes_before_a_warning(con):
    query = (
        "SELECT error('later') FROM (SELECT count(*) AS n FROM rasteret_pixels('s2', "
        "bbox := [7, 46, 8, 47])) WHERE n = 0"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Exception, match="later"):
            rasteret_sql.sql(con, query)


def test_remote_parquet_is_told_without_a_second_scan(con, server, workspace, tmp_path):
    folder = server.folder / "told"
    con.execute(f"FROM rasteret_export('s2', '{folder}')").fetchall()
    (part,) = [path for path in folder.rglob("*.parquet") if "month=1" in str(path)]
    url = server.url("scenes", str(part.relative_to(server.folder)))
    server.reset()
    n_rows, (message,) = told(con, "bbox := [7, 46, 8, 47]", source=url, function="rasteret_plan")
    assert n_rows == 0
    assert message.startswith("rasteret_plan: arguments: expected some that match a record of ")
    n_requests = len(server.requests())
    server.reset()
    told(con, f"bbox := {HERE}", source=url, function="rasteret_plan")
    assert n_requests <= len(server.requests())


def test_the_command_line_says_it_on_stderr(workspace, environment):
    query = "SELECT count(*) AS n FROM rasteret_pixels('s2', bbox := [13.09, 77.58, 13.1, 77.6])"
    command = ["-m", "rasteret_sql", "query", query, "--workspace-dir", str(workspace)]
    done = subprocess.run(
        [sys.executable, *command, "--format", "csv"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (0, "n\n0\n")
    first = done.stderr.splitlines()[0]
    assert first.startswith("warning: rasteret_pixels: bbox: expected an area that touches s2 (")
    assert first.endswith("are longitude and latitude swapped?")
