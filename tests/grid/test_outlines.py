"""Outlines on the map: the fast way and the careful one agree."""

from __future__ import annotations

import pytest
import shapely

from rasteret_sql.grid import outlines
from rasteret_sql.grid.outlines import outline
from rasteret_sql.units import Affine


@pytest.mark.parametrize("size", [256, 10_980])
@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [("EPSG:32643", 3e5, 15e5), ("EPSG:32733", 5e5, 4e6), ("EPSG:3857", 8e6, 6e6)],
)
def test_a_small_outline_is_the_densified_one(monkeypatch, crs, x, y, size):
    for affine in (Affine(10, 0, x, 0, -10, y), Affine(8, 3, x, 3.5, -9, y)):
        fast = outline(affine, size, size, crs)
        with monkeypatch.context() as patch:
            patch.setattr(outlines, "_small", lambda *_: None)
            careful = outline(affine, size, size, crs)
        assert fast.is_valid
        assert shapely.symmetric_difference(fast, careful).area < 1e-4 * careful.area


def test_an_image_across_180_degrees_is_cut():
    found = outline(Affine(1000, 0, 5e4, 0, -1000, 15e5), 100, 400, "EPSG:32601")
    assert found.geom_type == "MultiPolygon"
    assert (found.bounds[0], found.bounds[2]) == (-180, 180)
