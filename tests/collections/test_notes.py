"""What a build notes of its source reaches the user as a warning, not only the table of errors."""

from __future__ import annotations

import warnings

import pytest

from rasteret_sql.errors import RasteretWarning


@pytest.fixture
def warned(con):
    """Run a build, get the texts of its warnings."""

    def run(query, parameters):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", RasteretWarning)
            con.execute(query, parameters).fetchall()
        return [str(one.message) for one in found if one.category is RasteretWarning]

    return run


BUILD = "FROM rasteret_build_stac('s2', stac_api := $p, enrich := false"


def test_ids_that_are_not_there_are_told(rows, warned, items, write_items):
    parameters = {"p": write_items(items), "ids": [items["features"][0]["id"], "a", "b"]}
    (message,) = warned(f"{BUILD}, ids := $ids)", parameters)
    assert message == (
        "rasteret_build_stac: source: expected nothing to note, got 1 (ids: a, b: not found); "
        "see FROM rasteret_errors('s2')"
    )
    assert rows("SELECT error FROM rasteret_errors('s2')") == [("ids: a, b: not found",)]
    # a build that finds its collection there reads nothing, and notes nothing
    assert warned(f"{BUILD}, ids := $ids)", parameters) == []


def test_bands_and_columns_under_other_names_are_told(rows, warned, items, write_items):
    for item in items["features"]:
        item["assets"]["b04"] = item["assets"]["B08"]
        item["collection"] = "mine"
        item["properties"] |= {"collection": "theirs", "year": 1}
    (message,) = warned(f"{BUILD})", {"p": write_items(items)})
    assert "got 3 (" in message
    assert "band b04_2: is b04 in the items, a name that another band has" in message
    assert "; …)" in message
    assert rows("SELECT DISTINCT collection, collection_property, year_property FROM s2") == [
        ("mine", "theirs", 1)
    ]
    assert rows("SELECT assets.b04_2.href = assets.B08.href FROM s2 LIMIT 1") == [(True,)]


def test_a_source_without_anything_odd_is_not_warned_of(warned, items, write_items):
    assert warned(f"{BUILD})", {"p": write_items(items)}) == []


def test_a_private_table_is_warned_of_too(rows, warned):
    rows(
        "CREATE TEMP TABLE scenes AS SELECT 'x' AS id, 'y' AS year, {'B04': {'href': '/a.tif'}} "
        "AS assets, TIMESTAMP '2024-05-06' AS datetime, 'POINT (1 2)' AS geometry"
    )
    messages = warned("FROM rasteret_build_table('s2', 'scenes')", None)
    assert len(messages) == 1
    assert "rasteret_build_table: source: expected nothing to note" in messages[0]
    assert "year" in messages[0]
