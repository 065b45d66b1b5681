"""What is not needed is not requested: counted at the server."""

from __future__ import annotations

import pytest
from servers.range_server import RangeServer

from rasteret_sql.demo.scenes import SIZE_PX

TILES_PER_BAND = (SIZE_PX // 128) ** 2
ALL = "rasteret_pixels('s2', bands := ['B04', 'B08'])"


@pytest.fixture
def everything(n_requests):
    """Requests of an unfiltered read of two bands of six scenes."""
    return n_requests(f"SELECT sum(B04), sum(B08) FROM {ALL}")[0]


def test_plan_explain_and_describe_request_nothing(n_requests):
    for query in (
        "FROM rasteret_plan('s2')",
        f"EXPLAIN FROM {ALL}",
        f"DESCRIBE FROM {ALL}",
        f"CREATE OR REPLACE TEMP VIEW v AS FROM {ALL}",
        "SELECT id FROM s2",
    ):
        assert n_requests(query)[0] == 0, query


def test_plan_counts_the_requests_that_a_read_makes(n_requests, everything):
    planned = n_requests(
        "SELECT count(DISTINCT request) FROM rasteret_plan('s2', bands := ['B04', 'B08'])"
    )[1]
    assert planned == [(everything,)]


def test_a_band_that_is_not_selected_is_not_requested(n_requests, everything):
    one = n_requests(f"SELECT sum(B04) FROM {ALL}")[0]
    assert 0 < one < everything


def test_count_of_rows_requests_nothing(n_requests):
    n, found = n_requests(f"SELECT count(*) FROM {ALL}")
    assert (n, found) == (0, [(6 * SIZE_PX * SIZE_PX,)])


@pytest.mark.parametrize(
    "condition",
    [
        "id = 'S2A_43PHQ_20240110_L2A'",
        "id IN ('S2A_43PHQ_20240110_L2A')",
        "datetime < '2024-01-15' AND \"proj:epsg\" = 32643",
        "\"proj:epsg\" = 32643 AND datetime BETWEEN '2024-01-01' AND '2024-01-31' AND B08 > 0",
    ],
)
def test_where_on_record_columns_drops_scenes_before_pixels(n_requests, everything, condition):
    n, found = n_requests(f"SELECT DISTINCT id FROM {ALL} WHERE {condition} AND B08 >= 0")
    assert found == [("S2A_43PHQ_20240110_L2A",)]
    assert n == everything // 12


def test_predicates_inside_the_collection_argument_drop_scenes(n_requests, everything):
    query = "SELECT sum(B04), sum(B08) FROM rasteret_pixels('{}', bands := ['B04', 'B08'])"
    subset = 'SELECT * FROM s2 WHERE "eo:cloud_cover" < 20 AND "proj:epsg" = 32643'
    assert n_requests(query.format(subset))[0] == everything // 3


def test_date_range_and_ids_drop_scenes(n_requests, everything):
    query = "SELECT sum(B04), sum(B08) FROM rasteret_pixels('s2', bands := ['B04', 'B08'], {})"
    dates = "date_range := ['2024-01-01', '2024-01-31']"
    assert n_requests(query.format(dates))[0] == everything // 3
    assert n_requests(query.format("ids := ['S2A_43PHQ_20240110_L2A']"))[0] == everything // 6


def test_where_on_plan_columns_drops_tiles(n_requests):
    n, found = n_requests(
        "SELECT band, tile_row, octet_length(pixels) FROM rasteret_read_tiles('s2') "
        "WHERE band = 'B08' AND tile_row = 1 AND tile_col < 2 AND id = 'S2A_43PHQ_20240110_L2A'"
    )
    assert found == [("B08", 1, 128 * 128 * 2)] * 2
    assert n <= 2


def test_tile_places_without_pixels_request_nothing(n_requests):
    n, found = n_requests("SELECT count(*), min(xmin) FROM rasteret_read_tiles('s2')")
    assert n == 0
    assert found[0][0] == 6 * 3 * TILES_PER_BAND


def test_an_area_requests_only_the_tiles_under_it(n_requests, everything):
    box = "bbox := [77.985, 13.004, 77.986, 13.005]"
    n, found = n_requests(
        f"SELECT count(*), sum(B04) FROM rasteret_pixels('s2', bands := ['B04'], {box})"
    )
    assert found[0][0] > 0
    assert 0 < n <= 3 * 4


def test_an_area_outside_every_scene_is_no_rows_and_no_request(n_requests):
    n, found = n_requests("FROM rasteret_pixels('s2', bbox := [10, 50, 10.1, 50.1])")
    assert (n, found) == (0, [])


def test_limit_stops_requests(s2, scenes, tmp_path):
    """A hundred records of one request each; read-ahead starts with 32 requests.

    On a server of its own: requests that are under way when the statement ends come late.
    """
    with RangeServer(scenes=scenes[0]) as own:
        url = own.url("scenes", "S2A_43PHQ_20240110_L2A/B04.tif")
        s2.execute(
            "CREATE TABLE many AS SELECT 'r' || i AS id, $url || '?n=' || i AS href "
            "FROM range(100) t(i)",
            {"url": url},
        )
        s2.execute(
            "FROM rasteret_build_table('many_r', 'many', href_column := 'href', enrich := true, "
            f"bands := ['B04'], workspace := '{tmp_path}')"
        ).fetchall()
        own.reset()
        s2.execute("SELECT sum(B04) FROM rasteret_pixels('many_r')").fetchall()
        assert len(own.requests()) == 100
        own.reset()
        found = s2.execute("SELECT B04 FROM rasteret_pixels('many_r') LIMIT 10").fetchall()
        assert len(found) == 10
        assert 1 <= len(own.requests()) <= 40


def test_a_where_outside_gives_the_same_rows_as_one_inside(s2):
    outside = s2.execute(
        f"SELECT id, count(*), sum(B04) FROM {ALL} "
        'WHERE "eo:cloud_cover" < 20 AND B08 > 2000 GROUP BY id ORDER BY id'
    ).fetchall()
    inside = s2.execute(
        "SELECT id, count(*), sum(B04) FROM rasteret_pixels("
        "'SELECT * FROM s2 WHERE \"eo:cloud_cover\" < 20', bands := ['B04', 'B08']) "
        "WHERE B08 > 2000 GROUP BY id ORDER BY id"
    ).fetchall()
    assert outside == inside
    assert len(outside) > 0


def test_max_bytes_refuses_before_the_first_request(s2, server):
    with pytest.raises(Exception, match=r"max_bytes: expected a read of at most 1000 bytes"):
        s2.execute("SELECT sum(B04) FROM rasteret_pixels('s2', max_bytes := 1000)").fetchall()
    assert server.requests() == []


@pytest.mark.parametrize(
    ("condition", "most"),
    [
        ("row = 5 AND col = 5", 1),
        ("row BETWEEN 5 AND 9 AND col < 3", 1),
        ("row = 5", TILES_PER_BAND // 2),
        ("x <= (SELECT min(x) + 50 FROM places) AND y <= (SELECT min(y) + 50 FROM places)", None),
        ("row > 100000", 0),
    ],
)
def test_where_on_places_drops_tiles_and_gives_the_rows_of_a_table(s2, n_requests, condition, most):
    call = "rasteret_pixels('s2', bands := ['B04'], ids := ['S2A_43PHQ_20240110_L2A'])"
    s2.execute(f"CREATE OR REPLACE TEMP TABLE places AS FROM {call}")
    what = "count(*), sum(hash(row, col, x, y, B04)::HUGEINT)"
    n, found = n_requests(f"SELECT {what} FROM {call} WHERE {condition}")
    tiles = s2.execute("SELECT tiles_decoded FROM rasteret_read_stats(last := 1)").fetchall()
    assert found == s2.execute(f"SELECT {what} FROM places WHERE {condition}").fetchall()
    if most is not None:
        assert tiles[0][0] <= most
        assert n <= max(most, 1)
