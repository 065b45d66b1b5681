"""Random rasters under random areas: `rasteret_read` and `rasteret_pixels` equal rasterio."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading.read_oracle import (
    assert_same,
    build_files,
    call_of,
    expected_read,
    make_areas,
    polygonal,
    read,
    to_map,
    touches,
)
from shapely import affinity

import rasteret_sql
from examples import examples

ORIGINS = {
    "EPSG:32643": (500_000.0, 4_000_000.0, 10.0),
    "EPSG:32701": (300_000.0, 8_000_000.0, 30.0),
    "EPSG:3035": (4_321_000.0, 3_210_000.0, 100.0),
    "EPSG:3857": (-8_000_000.0, 5_000_000.0, 4.77),
    "EPSG:6933": (1_000_000.0, -2_000_000.0, 1000.0),
    "EPSG:4326": (12.5, 41.25, 0.01),
    "EPSG:4258": (-3.2, 40.1, 0.0025),
}
"""CRS to the upper left corner and the size of a pixel in its units."""

TURNS = {
    "north-up": Affine(1, 0, 0, 0, -1, 0),
    "south-up": Affine(1, 0, 0, 0, 1, 0),
    "east-left": Affine(-1, 0, 0, 0, -1, 0),
    "oblong": Affine(1, 0, 0, 0, -2.5, 0),
    "rotated": Affine(0.8, 0.6, 0, 0.6, -0.8, 0),
    "sheared": Affine(1, 0.3, 0, 0, -1.1, 0),
}

NODATA = {
    "uint8": (None, 0, 255), "int8": (None, -1), "uint16": (None, 0, 7), "int16": (None, -9999, 7),
    "uint32": (None, 7), "int32": (None, -(2**31)), "float32": (None, math.nan, -9999.0),
    "float64": (None, math.nan, 7.0),
}  # fmt: skip

N_EXAMPLES = examples(12, 60)

LAYOUTS = (
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"tiled": True, "blockxsize": 16, "blockysize": 48},
    {"tiled": True, "blockxsize": 128, "blockysize": 128},
    {"blockysize": 1},
    {"blockysize": 7},
)


class Raster(NamedTuple):
    """How a file is to be made."""

    height: int
    width: int
    count: int
    dtype: str
    nodata: float | None
    crs: str
    turn: str
    layout: dict
    interleave: str
    compress: str
    is_sparse: bool
    hides: str
    seed: int

    @property
    def transform(self) -> Affine:
        x, y, size = ORIGINS[self.crs]
        return Affine.translation(x, y) @ Affine.scale(size) @ TURNS[self.turn]

    @property
    def bands(self) -> list[str]:
        return [f"b{number}" for number in range(1, self.count + 1)]

    def write(self, path: Path) -> None:
        """Values with holes of nodata, by GDAL; with ``hides``, an internal mask or alpha."""
        rng = np.random.default_rng(self.seed)
        shape = (self.count, self.height, self.width)
        values = rng.integers(0, 100, shape).astype(self.dtype)
        if self.nodata is not None:
            values[rng.random(shape) < 0.2] = self.nodata
        options = dict(self.layout) | {"sparse_ok": self.is_sparse}
        if self.hides == "alpha":
            options |= {"photometric": "rgb", "alpha": "yes"}
            values[-1] = np.where(rng.random(shape[1:]) < 0.3, 0, 255)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
            path, "w", driver="GTiff", height=self.height, width=self.width, count=self.count,
            dtype=self.dtype, nodata=self.nodata, crs=self.crs, transform=self.transform,
            interleave=self.interleave, compress=self.compress, **options,
        ) as file:  # fmt: skip
            if self.is_sparse:
                half = (self.height + 1) // 2
                window = rasterio.windows.Window(0, 0, self.width, half)
                file.write(values[:, :half], window=window)
            else:
                file.write(values)
            if self.hides == "mask":
                hidden = np.where(rng.random(shape[1:]) < 0.3, 0, 255)
                file.write_mask(hidden.astype("uint8"))


@st.composite
def rasters(draw, turns=tuple(TURNS)):
    dtype = draw(st.sampled_from(list(NODATA)))
    hides = draw(st.sampled_from(["", "", "", "mask", "alpha"]))
    nodata = None if hides else draw(st.sampled_from(NODATA[dtype]))
    if hides == "alpha":
        dtype = draw(st.sampled_from(["uint8", "uint16"]))
    return Raster(
        height=draw(st.integers(1, 70)),
        width=draw(st.integers(1, 70)),
        count=4 if hides == "alpha" else draw(st.integers(1, 3)),
        dtype=dtype,
        nodata=nodata,
        crs=draw(st.sampled_from(list(ORIGINS))),
        turn=draw(st.sampled_from(turns)),
        layout=draw(st.sampled_from(LAYOUTS)),
        interleave=draw(st.sampled_from(["pixel", "band"])),
        compress=draw(st.sampled_from(["none", "deflate", "lzw", "zstd"])),
        is_sparse=not hides and draw(st.booleans()),
        hides=hides,
        seed=draw(st.integers(0, 99)),
    )


# Corners keep off pixel edges and centres, and no edge runs along a row, a column or the
# diagonal through centres, so that rounding decides nothing.
SHIFT = np.array([0.0073137, 0.0041289])
TILT_DEGREES = 0.7241


@st.composite
def areas(draw, low=-25, high=95):
    """Polygons in pixel coordinates: with holes, of several parts, slivers, or outside."""
    corner = st.tuples(st.integers(low * 64, high * 64), st.integers(low * 64, high * 64))
    kind = draw(st.sampled_from(["any", "hole", "parts", "sliver", "box", "outside", "dot"]))
    if kind == "sliver":
        ends = np.array(draw(st.lists(corner, min_size=2, max_size=2, unique=True))) / 64
        area = shapely.LineString(ends).buffer(0.02, cap_style="flat")
    elif kind == "dot":
        x, y = np.array(draw(corner)) / 64
        area = shapely.box(x, y, x + 0.03, y + 0.02)
    elif kind == "box":
        (x1, y1), (x2, y2) = np.array(draw(st.tuples(corner, corner))) / 64
        area = shapely.box(min(x1, x2), min(y1, y2), max(x1, x2) + 0.5, max(y1, y2) + 0.5)
    else:
        ring = np.array(draw(st.lists(corner, min_size=3, max_size=9))) / 64
        area = polygonal(shapely.Polygon(ring))
        if kind == "hole":
            hole = np.array(draw(st.lists(corner, min_size=3, max_size=5))) / 64
            area = polygonal(area - polygonal(shapely.Polygon(hole)))
        if kind == "parts":
            other = np.array(draw(st.lists(corner, min_size=3, max_size=5))) / 64
            area = polygonal(area | polygonal(shapely.Polygon(other)))
        if kind == "outside":
            area = affinity.translate(area, draw(st.sampled_from([-250, 250])), 0)
    area = affinity.rotate(area, TILT_DEGREES, origin=(0, 0))
    return affinity.translate(area, *SHIFT)


def listed(draw_areas):
    return [area for area in draw_areas if area.area > 1e-4]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    con = rasteret_sql.connect(workspace=tmp_path_factory.mktemp("workspace"))
    yield con
    con.close()


def prepare(con, raster, shapes, *, by_pixels):
    """The file, its collection `made`, table `pieces`; path and geometry_crs."""
    folder = Path(tempfile.mkdtemp(prefix="made"))
    path = folder / "a.tif"
    raster.write(path)
    build_files(con, "made", {"one": path}, raster.bands)
    placed = shapes if by_pixels else [to_map(shape, raster.transform) for shape in shapes]
    make_areas(con, "pieces", {str(number): area for number, area in enumerate(placed)})
    return path, "pixel" if by_pixels else raster.crs


quick = settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.any_duckdb
@quick
@given(
    raster=rasters(),
    shapes=st.lists(areas(), min_size=1, max_size=8).map(listed).filter(bool),
    by_pixels=st.booleans(),
    crop=st.booleans(),
    masked=st.booleans(),
)
def test_windows_and_masks_are_rasterios(session, raster, shapes, by_pixels, crop, masked):
    path, crs = prepare(session, raster, shapes, by_pixels=by_pixels)
    for all_touched in (False, True):
        how = {"all_touched": all_touched, "crop": crop, "masked": masked}
        rows = read(
            session, "made", raster.bands, aois="pieces", geometry_crs=crs, valid=masked, **how
        )
        got = {int(row.row["area"]): row for row in rows}
        assert len(got) == len(rows), "an area came twice"
        for number, shape in enumerate(shapes):
            wanted = expected_read(path, geometry_px=shape, **how)
            if not touches(path, shape):
                # bounds may overlap where the area does not: then no row, or one without data
                assert number not in got or not wanted.valid.any()
                continue
            assert wanted is not None
            assert_same(got[number], wanted)


@pytest.mark.any_duckdb
@quick
@given(
    raster=rasters(turns=("north-up", "south-up", "rotated")),
    shapes=st.lists(areas(), min_size=1, max_size=5).map(listed).filter(bool),
    all_touched=st.booleans(),
)
def test_pixels_under_many_areas_are_those_of_each_area(session, raster, shapes, all_touched):
    path, crs = prepare(session, raster, shapes, by_pixels=False)
    call = call_of(
        "rasteret_pixels", "made", bands=raster.bands, aois="pieces", geometry_crs=crs,
        all_touched=all_touched,
    )  # fmt: skip
    found = session.execute(f"FROM {call}").fetchnumpy()
    area_of = np.asarray(found["area"]).astype(str) if len(found["row"]) else np.array([], str)
    for number, shape in enumerate(shapes):
        mine = area_of == str(number)
        row, col = found["row"][mine], found["col"][mine]
        wanted = expected_read(path, geometry_px=shape, all_touched=all_touched)
        # the area's own pixels: those of a read without masks that its polygon selects
        inside = np.zeros((raster.height, raster.width), bool)
        if wanted is not None:
            inside = _inside(path, shape, all_touched=all_touched)
        there = np.zeros(inside.shape, bool)
        there[row, col] = True
        assert there.sum() == len(row), "a pixel came twice"
        np.testing.assert_array_equal(there, inside)
        if wanted is None:
            continue
        at = (row - int(wanted.window.row_off), col - int(wanted.window.col_off))
        for position, band in enumerate(raster.bands):
            value = np.ma.asarray(found[band])[mine]
            valid = ~np.ma.getmaskarray(value)
            np.testing.assert_array_equal(valid, wanted.valid[position][at])
            np.testing.assert_array_equal(
                np.ma.getdata(value)[valid], wanted.pixels[position][at][valid]
            )
        x, y = raster.transform @ (col + 0.5, row + 0.5) if len(row) else (col, row)
        size = ORIGINS[raster.crs][2]
        np.testing.assert_allclose(found["x"][mine], x, rtol=1e-12, atol=1e-9 * size)
        np.testing.assert_allclose(found["y"][mine], y, rtol=1e-12, atol=1e-9 * size)


def _inside(path, shape, *, all_touched):
    with rasterio.open(path) as file:
        return rasterio.features.geometry_mask(
            [to_map(shape, file.transform)],
            file.shape,
            file.transform,
            all_touched=all_touched,
            invert=True,
        )


@pytest.mark.any_duckdb
@quick
@given(raster=rasters(), shape=areas().filter(lambda area: area.area > 1e-4), crop=st.booleans())
def test_lists_and_scaled_values_say_the_same_as_blobs(session, raster, shape, crop):
    path, crs = prepare(session, raster, [shape], by_pixels=False)
    wanted = expected_read(path, geometry_px=shape, crop=crop)
    common = {"bands": raster.bands, "aois": "pieces", "geometry_crs": crs, "crop": crop}
    in_lists = session.execute(
        f"SELECT {', '.join(raster.bands)} FROM "
        f"{call_of('rasteret_read', 'made', format='list', **common)}"
    ).fetchall()
    scaled = session.execute(
        f"SELECT {', '.join(raster.bands)} FROM "
        f"{call_of('rasteret_read', 'made', scaled=True, **common)}"
    ).fetchall()
    assert len(in_lists) == len(scaled)
    if not touches(path, shape):
        return
    assert len(in_lists) == 1
    for pixels, valid, values, doubles in zip(
        wanted.pixels, wanted.valid, in_lists[0], scaled[0], strict=True
    ):
        seen = valid.ravel()
        assert [value is not None for value in values] == seen.tolist()
        kept = [value for value in values if value is not None]
        np.testing.assert_array_equal(np.array(kept, pixels.dtype), pixels.ravel()[seen])
        got = np.frombuffer(doubles, "<f8")
        np.testing.assert_array_equal(got, np.where(seen, pixels.ravel().astype(float), np.nan))


@pytest.mark.any_duckdb
@settings(max_examples=examples(20, 40), deadline=None)
@given(raster=rasters(), shapes=st.lists(areas(), min_size=1, max_size=4).map(listed).filter(bool))
def test_the_oracle_agrees_with_shapely(raster, shapes):
    """Rows of the oracle: pixel centres by shapely, whatever the affine and the polygon."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        raster.write(path)
        for shape in shapes:
            got = expected_read(path, geometry_px=shape, masked=False)
            whole = expected_read(path)
            if got is None:
                assert not touches(path, shape)
                continue
            top, left = int(got.window.row_off), int(got.window.col_off)
            height, width = got.pixels.shape[1:]
            rows, cols = slice(top, top + height), slice(left, left + width)
            np.testing.assert_array_equal(got.pixels, whole_values(path)[:, rows, cols])
            col, row = np.meshgrid(np.arange(left, left + width), np.arange(top, top + height))
            centres = shapely.points(col + 0.5, row + 0.5)
            inside = shapely.contains(shape, centres)
            clear = shapely.distance(shape.boundary, centres) > 1e-7
            expected = whole.valid[:, rows, cols] & inside
            np.testing.assert_array_equal(got.valid & clear, expected & clear)


def whole_values(path):
    with rasterio.open(path) as file:
        return file.read()
