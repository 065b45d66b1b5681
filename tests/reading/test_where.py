"""A WHERE over a read gives the rows that it gives over a table of the same rows."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import rasteret_sql

AREA = "bbox := [77.984, 13.004, 77.99, 13.01]"
ROWS = "count(*), sum(hash(id, row, col, x, y, B04, B08, SCL)::HUGEINT)"
TILES = "count(*), sum(hash(id, band, tile_row, tile_col, valid_count, pixels)::HUGEINT)"

ON_PIXELS = [
    "B04 > 1000",
    "B04 IS NULL",
    "NOT (B04 > 1000)",
    "B04 > 1000 OR id LIKE '%0110%'",
    "B04 > 1000 AND id LIKE 'S2A_43%'",
    "id NOT IN ('S2A_43PHQ_20240110_L2A')",
    "SCL IN (4, 5)",
    "SCL NOT IN (4, NULL)",
    "B04 IN (1000, 1001, NULL)",
    "B04 < -1 OR B04 < 70000",
    "B04 = 1000.5",
    "bbox.xmin > 77.97 AND B08 > B04",
    "assets.B04.href LIKE '%43PHQ%'",
    "datetime > '2024-01-15'",
    "datetime::DATE = '2024-01-10'",
    "datetime IN ('2024-01-10 05:22:11', '2024-03-10 05:22:11')",
    "datetime > TIMESTAMPTZ '2024-01-15 00:00:00+00'",
    "year = 2024 AND month IN (1, 3)",
    '"eo:cloud_cover" BETWEEN 0 AND 20 AND "proj:epsg" = 32643',
    "platform IS DISTINCT FROM 'sentinel-2a'",
    '(B04 > 1000 AND "proj:epsg" = 32643) OR (B08 < 900 AND month = 1)',
    "row BETWEEN 200 AND 300 AND col % 3 = 0 AND x > 824000",
    "B04::DOUBLE / B08 > 0.5",
    "geometry IS NULL",
    "id = (SELECT min(id) FROM s2)",
    "B04 >= (SELECT quantile_disc(B04, 0.9) FROM pixels)",
    "EXISTS (SELECT 1 FROM s2 s WHERE s.id = pixels.id AND s.month = 3)",
    "NULL",
]

ON_TILES = [
    "band = 'B04' AND tile_row > 1",
    "band IN ('B04', 'SCL') AND month = 1",
    "tile_row = 1 OR id LIKE '%0310%'",
    "valid_count < 16384 AND tile_col <> 0",
    "tile_row + tile_col = 3 AND bbox.xmax > 78",
    "level = 0 AND nodata = 0 AND dtype = 'uint8'",
]


def both(con, call, table, what, condition):
    """The same query over the read and over the table."""
    return [
        con.execute(f"SELECT {what} FROM {source} AS {table} WHERE {condition}").fetchall()
        for source in (call, table)
    ]


PIXELS = f"rasteret_pixels('s2', {AREA}, record_columns := 'all')"
READ_TILES = "rasteret_read_tiles('s2', record_columns := 'all')"


@pytest.fixture(scope="module")
def tables(_connected_s2):
    """A cursor with the rows of both reads in tables."""
    with _connected_s2.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE pixels AS FROM {PIXELS}")
        cursor.execute(f"CREATE TEMP TABLE tiles AS FROM {READ_TILES}")
        yield cursor


@pytest.mark.parametrize("condition", ON_PIXELS)
def test_a_where_on_pixels_gives_the_rows_of_a_table(tables, condition):
    read, table = both(tables, PIXELS, "pixels", ROWS, condition)
    assert read == table


@pytest.mark.parametrize("condition", ON_TILES)
def test_a_where_on_tiles_gives_the_rows_of_a_table(tables, condition):
    read, table = both(tables, READ_TILES, "tiles", TILES, condition)
    assert read == table
    assert table[0][0] > 0


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """A connection with a collection of a file of floats with NaN, infinities and both zeros.

    And the rows of its pixels in a table.
    """
    values = np.linspace(-2, 2, 32 * 32, dtype=np.float32).reshape(32, 32)
    values[::7], values[1], values[2], values[3, ::2] = np.nan, np.inf, -np.inf, -0.0
    values[3, 1::2] = 0.0
    folder = tmp_path_factory.mktemp("floats")
    path = folder / "floats.tif"
    tifffile.imwrite(path, values, tile=(16, 16), metadata=None)
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    con.execute(
        "FROM rasteret_build_table('f', $source, href_column := 'href', "
        "band_index_map := MAP {'b': 0}, enrich := true)",
        {
            "source": f"SELECT i::VARCHAR AS id, '{path}' AS href, "
            "['1', 'nan', '-0.0'][i]::DOUBLE AS reading FROM range(1, 4) t(i)"
        },
    ).fetchall()
    con.execute("CREATE TABLE pixels AS FROM rasteret_pixels('f')")
    yield con
    con.close()


@pytest.mark.parametrize(
    "condition",
    [
        "b > 0.5",
        "b >= 'inf'::FLOAT",
        "b < 'nan'::FLOAT",
        "b = 'nan'::FLOAT",
        "b IN (0, 'nan'::FLOAT)",
        "b IN (-0.0, 3)",
        "b NOT IN (0, 1)",
        "b BETWEEN 0 AND 'nan'::FLOAT",
        "NOT (b < 0.5) AND row > 4",
        "b > 0.5 OR b < -0.5",
        "reading >= 1",
        "reading IN (0, 5) AND b <> 0",
    ],
)
def test_nan_and_minus_zero_compare_as_in_a_table(floats, condition):
    what = "count(*), sum(hash(id, row, col, b)::HUGEINT)"
    read, table = both(floats, "rasteret_pixels('f')", "pixels", what, condition)
    assert read == table
    assert table[0][0] > 0


@pytest.mark.parametrize("columns", ["count(datetime), count(*)", "count(datetime), count(id)"])
def test_a_where_that_leaves_no_row_of_a_batch(s2, columns):
    """Of a SELECT, times are dictionaries on DuckDB 2.0; pyarrow makes no empty one of them."""
    call = (
        "rasteret_pixels('SELECT * FROM s2', bands := ['B04'], "
        "bbox := [77.99, 13.01, 78.0, 13.02]) WHERE B04 > {}"
    )
    (some,) = s2.execute(f"SELECT {columns} FROM {call.format(400)}").fetchall()
    (none,) = s2.execute(f"SELECT {columns} FROM {call.format(65000)}").fetchall()
    assert some[0] == some[1] > 0
    assert none == (0, 0)
