"""The curve visits every cell once, in steps to a neighbour."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rasteret_sql.collections.curve import NOWHERE, bbox_keys, hilbert_keys, record_order
from rasteret_sql.schema import BBOX


def test_the_curve_visits_all_cells_in_steps_of_one_cell() -> None:
    n = 64
    lon, lat = np.meshgrid(
        (np.arange(n) + 0.5) * 360 / n - 180, (np.arange(n) + 0.5) * 180 / n - 90
    )
    keys = hilbert_keys(lon.ravel(), lat.ravel())
    order = np.argsort(keys)
    col, row = order % n, order // n
    steps = np.abs(np.diff(col)) + np.abs(np.diff(row))
    assert len(np.unique(keys)) == n * n
    assert set(steps.tolist()) == {1}


def reference_key(x: int, y: int, bits: int) -> int:
    """Distance of a cell by the textbook loop over quadrants."""
    key, side = 0, 1 << (bits - 1)
    while side:
        in_x, in_y = int(bool(x & side)), int(bool(y & side))
        key += side * side * ((3 * in_x) ^ in_y)
        if not in_y:
            if in_x:
                x, y = (2 * side - 1) - (x % (2 * side)), (2 * side - 1) - (y % (2 * side))
            x, y = y, x
        x, y, side = x % side, y % side, side // 2
    return key


@given(st.integers(0, 2**20 - 1), st.integers(0, 2**20 - 1))
def test_a_key_is_that_of_the_textbook_loop(x: int, y: int) -> None:
    lon = np.array([(x + 0.5) * 360 / 2**20 - 180])
    lat = np.array([(y + 0.5) * 180 / 2**20 - 90])
    assert hilbert_keys(lon, lat)[0] == reference_key(x, y, 20)


def test_coordinates_outside_are_clipped_and_unknown_ones_come_last() -> None:
    lon = np.array([-999.0, -180.0, 0.0, np.nan, np.inf])
    lat = np.array([-999.0, -90.0, 0.0, 0.0, 0.0])
    keys = hilbert_keys(lon, lat)
    assert keys[0] == keys[1] == 0
    assert keys[3] == keys[4] == NOWHERE > keys[:3].max()


def test_a_box_over_the_antimeridian_lies_where_its_centre_is() -> None:
    boxes = pa.array([(179.0, 0.0, -177.0, 2.0), (-179.5, 0.5, -178.5, 1.5)], BBOX)
    one, other = bbox_keys(boxes)
    assert one == other


def test_ties_are_in_order_of_datetime_then_id_and_null_boxes_are_last() -> None:
    box = {"xmin": 0.0, "ymin": 0.0, "xmax": 1.0, "ymax": 1.0}
    table = pa.table(
        {
            "id": ["nowhere", "d", "c", "b", "a"],
            "datetime": pa.array([0, None, 2, 1, 2], pa.timestamp("us")),
            "bbox": pa.array([None, box, box, box, box], BBOX),
        }
    )
    ordered = table.take(record_order(table))["id"].to_pylist()
    assert ordered == ["b", "a", "c", "d", "nowhere"]


def test_records_without_boxes_are_in_order_of_datetime() -> None:
    table = pa.table({"id": ["b", "a"], "datetime": pa.array([1, 0], pa.timestamp("us"))})
    assert record_order(table).to_pylist() == [1, 0]
    assert record_order(pa.table({"other": ["b", "a"]})).to_pylist() == [0, 1]
