"""Days by the sun and cells of the Major TOM grid, against their definitions in NumPy."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

RADIUS_KM = 6378.137


def lines(low: int, span: float, length: float, km: float) -> np.ndarray:
    """Lower edges of cells along a circle or half circle, as the grid's authors make them."""
    edges = np.linspace(low, low + span, math.ceil(length / km) + 1)[:-1]
    return np.sort(np.mod(edges, span) - span / 2)


def name(edges: np.ndarray, value: float, signs: str) -> tuple[str, float]:
    """The cell of a value on one axis, and its lower edge."""
    place = int(np.searchsorted(edges, value)) - 1
    number = place - int(np.argmin(np.abs(edges)))
    return f"{abs(number)}{signs[number >= 0]}", float(edges[place])


def cell(lon: float, lat: float, km: float) -> str:
    row, south = name(lines(-90, 180, math.pi * RADIUS_KM, km), lat, "DU")
    around = 2 * math.pi * RADIUS_KM * math.cos(south * math.pi / 180)
    col, _ = name(lines(-180, 360, around, km), lon, "LR")
    return f"{row}_{col}"


@pytest.mark.parametrize("km", [1, 5, 10, 100, 333.3])
def test_cells_are_those_of_the_definition(rows, km):
    rng = np.random.default_rng(int(km))
    lons, lats = rng.uniform(-179, 179, 200).tolist(), rng.uniform(-84, 84, 200).tolist()
    found = rows(
        "SELECT lon, lat, rasteret_grid_cell(lon, lat, km := $km) "
        "FROM (SELECT unnest($lons) AS lon, unnest($lats) AS lat)",
        {"lons": lons, "lats": lats, "km": km},
    )
    assert sorted(row[:2] for row in found) == sorted(zip(lons, lats, strict=True))
    assert [row for row in found if row[2] != cell(row[0], row[1], km)] == []
    for lon, lat, name in found[:5]:
        assert rows("SELECT rasteret_grid_cell(?, ?, km := ?)", [lon, lat, km]) == [(name,)]
    assert rows("SELECT rasteret_grid_cell(NULL, 1), rasteret_grid_cell(1, NULL)") == [(None, None)]


def test_cells_of_a_table_are_computed_row_by_row(rows):
    found = rows(
        "SELECT rasteret_grid_cell(lon, lat), count(*) FROM (SELECT i * 0.01 AS lon, 1.0 AS lat "
        "FROM range(1, 100) t(i)) GROUP BY ALL"
    )
    wanted = Counter(cell(n * 0.01, 1.0, 10) for n in range(1, 100))
    assert dict(found) == dict(wanted)
    assert len(found) > 10


def test_solar_days_are_those_of_the_definition(rows):
    rng = np.random.default_rng(3)
    for seconds, lon in zip(rng.integers(0, 10**9, 100), rng.uniform(-180, 180, 100), strict=True):
        moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))
        wanted = (moment + timedelta(hours=lon / 15)).date()
        naive = moment.replace(tzinfo=None)
        assert rows("SELECT rasteret_solar_day(?, ?)", [naive, lon]) == [(wanted,)]
        assert rows("SELECT rasteret_solar_day(?::TIMESTAMPTZ, ?)", [moment, lon]) == [(wanted,)]
    assert rows("SELECT rasteret_solar_day(NULL::TIMESTAMP, 1)") == [(None,)]


def test_boxes_on_both_sides_of_the_antimeridian_intersect(rows):
    """A record's box and the one asked for, as the degrees that each of them holds."""
    edges = range(-180, 181, 5)
    held = {
        (west, east): {
            lon
            for lon in range(-180, 181)
            if (west <= lon <= east if west <= east else lon >= west or lon <= east)
        }
        for west in edges
        for east in edges
    }
    found = rows(
        "SELECT a, b, c, d, rasteret_bbox_intersects({xmin: a, ymin: 0.0, xmax: b, ymax: 1.0}, "
        "c, 0, d, 1) FROM (SELECT unnest($all) AS a), (SELECT unnest($all) AS b), "
        "(SELECT unnest($some) AS c), (SELECT unnest($some) AS d)",
        {"all": [float(edge) for edge in edges], "some": [-180.0, -170.0, -5.0, 0.0, 175.0, 180.0]},
    )
    assert len(found) == 73 * 73 * 36
    wrong = [row for row in found if row[4] != bool(held[row[:2]] & held[row[2:4]])]
    assert wrong == []


def test_a_box_without_a_value_intersects_nothing_that_is_known(rows):
    box = "{xmin: NULL::DOUBLE, ymin: 0.0, xmax: 1.0, ymax: 1.0}"
    assert rows(f"SELECT rasteret_bbox_intersects({box}, 0, 0, 1, 1)") == [(None,)]
