"""What a STAC item says of values completes a header, or stands in its place and is told."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from rasteret_sql.ingest.asset_hints import AssetHint, apply_hint, asset_hints, hint_of
from rasteret_sql.units import Affine

pytestmark = pytest.mark.any_duckdb

NOTHING = AssetHint()._asdict()


@pytest.mark.parametrize(
    ("asset", "sample", "expected"),
    [
        ({"raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": -0.1}]}, 0, (0, 1e-4, -0.1)),
        ({"bands": [{"nodata": 0, "raster:scale": 2, "raster:offset": 3}]}, 0, (0, 2, 3)),
        ({"nodata": -9999, "raster:scale": 0.5, "bands": [{"name": "a"}]}, 0, (-9999, 0.5, None)),
        ({"nodata": -9999, "bands": [{"nodata": 1}, {"name": "b"}]}, 0, (1, None, None)),
        ({"nodata": -9999, "bands": [{"nodata": 1}, {"name": "b"}]}, 1, (-9999, None, None)),
        ({"nodata": 7}, 3, (7, None, None)),
        ({"bands": [{}], "raster:bands": [{"nodata": 5}]}, 0, (5, None, None)),
        ({"raster:bands": [{"nodata": "-inf"}]}, 0, (-math.inf, None, None)),
        ({"raster:bands": [{"nodata": "none"}, {"nodata": True}]}, 0, None),
        ({"raster:bands": "text"}, 0, None),
        ({"raster:bands": [{"nodata": 5}]}, 1, (None, None, None)),
    ],
)
def test_where_hints_stand(asset, sample, expected):
    found = hint_of(asset_hints(asset), sample)
    assert found == (None if expected is None else AssetHint(*expected))


GRID = [10.0, 0.0, 5e5, 0.0, -10.0, 5e6]


@pytest.mark.parametrize(
    ("asset", "properties", "shape", "transform"),
    [
        ({"proj:shape": [2, 3], "proj:transform": [*GRID, 0, 0, 1]}, {}, [2, 3], GRID),
        ({"proj:shape": [2, 3]}, {"proj:shape": [9, 9], "proj:transform": GRID}, [2, 3], GRID),
        ({"proj:shape": None}, {"proj:shape": [9, 9]}, [9, 9], None),
        ({"proj:shape": [2], "proj:transform": [1, 2, "3", 4, 5, 6]}, {}, None, None),
        ({"proj:transform": [1, 2, math.nan, 4, 5, 6], "nodata": 1}, {}, None, None),
    ],
)
def test_where_hints_of_the_grid_stand(asset, properties, shape, transform):
    found = hint_of(asset_hints(asset, properties), 0) or AssetHint()
    assert (found.shape, found.transform) == (shape, transform)


def test_a_grid_that_differs_is_told_and_the_files_used():
    values = row() | {"affine": Affine(*GRID), "transform": [10.0, 5e5, -10.0, 5e6]}
    before = dict(values)
    near = [10.0 + 1e-9, 0.0, 5e5 + 0.5, 0.0, -10.0, 5e6]
    assert apply_hint(values, NOTHING | {"shape": [200, 300], "transform": near}) == []
    far = [10.0, 0.0, 5e5 + 5, 0.0, -10.0, 5e6]
    told = apply_hint(values, NOTHING | {"shape": [300, 200], "transform": far})
    assert [line.split(": ")[0] for line in told] == ["proj:shape", "proj:transform"]
    assert values == before


def test_a_file_without_a_grid_takes_the_items():
    values = row()
    assert apply_hint(values, NOTHING | {"shape": [200, 300], "transform": GRID}) == []
    assert (values["affine"], values["transform"]) == (Affine(*GRID), [10.0, 5e5, -10.0, 5e6])
    values = row()
    assert apply_hint(values, NOTHING | {"shape": [1, 1], "transform": GRID}) != []
    assert values["affine"] is None


def row(dtype="uint16", nodata=None, scale=1.0, offset=0.0):
    values = {"dtype": dtype, "nodata": nodata, "scale": scale, "offset": offset}
    return values | {"image_height": 200, "image_width": 300, "affine": None, "transform": None}


def test_a_hint_completes_a_header_without_a_word():
    values = row()
    assert apply_hint(values, NOTHING | {"nodata": 0.0, "scale": 1e-4, "offset": -0.1}) == []
    assert values == row(nodata=0.0, scale=1e-4, offset=-0.1)


def test_a_hint_that_differs_is_used_and_told():
    values = row(nodata=65535.0, scale=0.1)
    told = apply_hint(values, NOTHING | {"nodata": 0.0, "scale": 0.2})
    assert values == row(nodata=0.0, scale=0.2)
    assert [line.split(":")[0] for line in told] == ["nodata", "scale"]
    assert "the item says 0.0, the file 65535.0" in told[0]


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", -9999.0), ("int16", 0.5), ("uint8", math.nan)]
)
def test_a_nodata_that_no_sample_can_hold_is_told_and_not_used(dtype, nodata):
    values = row(dtype)
    (line,) = apply_hint(values, NOTHING | {"nodata": nodata})
    assert values["nodata"] is None
    assert f"expected a value of {dtype}" in line


@given(st.floats(width=64), st.sampled_from(["float32", "float64"]))
def test_what_the_samples_cannot_tell_apart_is_no_conflict(value, dtype):
    with np.errstate(over="ignore"):
        stored = float(np.dtype(dtype).type(value))
    values = row(dtype, nodata=stored)
    assert apply_hint(values, NOTHING | {"nodata": value}) == []
    assert values["nodata"] == stored or math.isnan(stored)


def test_pixels_follow_the_item(con, rows, tmp_path):
    path = tmp_path / "a.tif"
    values = np.array([[0, 1], [2, 3]], "uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint16", nodata=3,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ) as target:  # fmt: skip
        target.write(values, 1)
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a",
        "geometry": {"type": "Point", "coordinates": [15, 45]}, "bbox": [14, 45, 16, 46],
        "properties": {"datetime": "2024-01-01T00:00:00Z"}, "links": [],
        "assets": {
            "B1": {"href": str(path), "type": "image/tiff",
                   "raster:bands": [{"nodata": 0, "scale": 0.5, "offset": 10}]},
        },
    }  # fmt: skip
    (tmp_path / "items.ndjson").write_text(json.dumps(item) + "\n")
    report = con.execute(
        "FROM rasteret_build_stac('s', stac_api := $1)", [str(tmp_path / "items.ndjson")]
    ).fetchall()[0]
    assert report[5:8] == (1, 1, 0)
    query = "SELECT B1 FROM rasteret_pixels('s', bands := ['B1']{}) ORDER BY row, col"
    assert rows(query.format("")) == [(None,), (1,), (2,), (3,)]
    assert rows(query.format(", scaled := true")) == [(None,), (10.5,), (11.0,), (11.5,)]
    assert rows(query.format(", masked := false")) == [(0,), (1,), (2,), (3,)]
    ((name, band, href, error),) = rows("FROM rasteret_errors('s')")
    assert (name, band, href) == ("a", "B1", str(path))
    assert error.startswith("nodata: the item says 0.0, the file 3.0")
    assert "_asset_hints" not in con.sql("FROM s").columns
    con.execute(
        "FROM rasteret_build_stac('bare', stac_api := $1, enrich := false)",
        [str(tmp_path / "items.ndjson")],
    ).fetchall()
    assert "_asset_hints" not in con.sql("FROM bare").columns
