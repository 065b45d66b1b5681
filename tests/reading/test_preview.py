"""`rasteret_preview`: pictures of rasterio's pixels, by formulas written out here."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import shapely
from imagecodecs import png_decode
from reading.rasters import NORTH_UP, noise, write
from reading.read_oracle import (
    assert_transform,
    build_files,
    call_of,
    expected_read,
    opened,
    rows_of,
    to_map,
)

from rasteret_sql.reading.tile_store import STORE

ONE = "S2A_43PHQ_20240110_L2A"
RGB = ("r", "g", "b")


def previews(con, collection, **options):
    return rows_of(con, f"FROM {call_of('rasteret_preview', collection, **options)}")


def picture(row):
    """The PNG's pixels, (row, column, RGBA)."""
    pixels = png_decode(row["png"])
    assert pixels.shape == (row["height"], row["width"], 4)
    return pixels


def boxed(values, valid, height, width):
    """The mean of the valid pixels in each box, one box at a time."""
    rows = [i * values.shape[0] // height for i in range(height + 1)]
    cols = [i * values.shape[1] // width for i in range(width + 1)]
    found, there = np.zeros((height, width)), np.zeros((height, width), bool)
    for i in range(height):
        for j in range(width):
            at = np.s_[rows[i] : rows[i + 1], cols[j] : cols[j + 1]]
            inside = values[at][valid[at]]
            there[i, j] = inside.size > 0
            found[i, j] = inside.mean() if inside.size else 0
    return found, there


def bytes_of(values, low, high):
    return np.floor(np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("width", [90, 512])
def test_three_bands_are_red_green_and_blue(con, made, width):
    pixels = noise((3, 70, 90), low=0, high=250)
    path = made(pixels, RGB, nodata=7)
    (row,) = previews(con, "made", bands=list(RGB), width=width, rescale=[20, 200])
    got = picture(row)
    valid = (pixels != 7).all(axis=0)
    np.testing.assert_array_equal(got[..., 3], np.where(valid, 255, 0))
    wanted = bytes_of(pixels.transpose(1, 2, 0).astype(float), 20, 200)
    np.testing.assert_array_equal(got[..., :3][valid], wanted[valid])
    assert not got[~valid].any()
    with opened(path) as file:
        assert_transform(row["transform"], file.transform)
    assert row["level"] == 0


@pytest.mark.any_duckdb
def test_without_rescale_the_2nd_and_98th_percentile_are_black_and_white(con, made):
    pixels = noise((1, 70, 90), low=0, high=60_000)
    made(pixels, nodata=0)
    (row,) = previews(con, "made")
    low, high = np.percentile(pixels[pixels != 0], [2, 98])
    got = picture(row)
    valid = pixels[0] != 0
    np.testing.assert_array_equal(
        got[..., 0][valid], bytes_of(pixels[0].astype(float), low, high)[valid]
    )
    assert (got[..., 0] == got[..., 1]).all()
    assert (got[..., 0] == got[..., 2]).all()
    assert 0.01 < np.mean(got[..., 0] == 0) < 0.05


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("width", "level"), [(512, 0), (200, 0), (151, 0), (150, 1), (76, 1), (75, 2), (20, 2)]
)
def test_the_smallest_overview_that_is_wide_enough_is_read(con, made, width, level):
    path = made(noise((1, 200, 300), low=0, high=250), overviews=[2, 4], nodata=3)
    (row,) = previews(con, "made", width=width, rescale=[0, 250])
    assert row["level"] == level
    whole = expected_read(path, level=level)
    out = min(width, 300)
    assert (row["width"], row["height"]) == (out, round(200 * out / 300))
    values, valid = boxed(whole.pixels[0].astype(float), whole.valid[0], row["height"], out)
    got = picture(row)
    np.testing.assert_array_equal(got[..., 3] > 0, valid)
    difference = np.abs(got[..., 0][valid] - bytes_of(values, 0, 250)[valid])
    assert difference.max() <= 1  # of sums in another order
    assert np.mean(difference == 0) > 0.999
    a, _, c, _, e, f = row["transform"]
    assert (a * row["width"], e * row["height"]) == pytest.approx((3000, -2000))
    assert (c, f) == (NORTH_UP.c, NORTH_UP.f)


@pytest.mark.any_duckdb
def test_the_width_is_of_the_area(con, made):
    made(noise((1, 400, 400)), overviews=[2, 4])
    small = to_map(shapely.box(100, 100, 150, 120), NORTH_UP)
    (row,) = previews(con, "made", geometry=small, geometry_crs="EPSG:32643", width=100)
    assert (row["level"], row["width"], row["height"]) == (0, 50, 20)
    (row,) = previews(con, "made", geometry=small, geometry_crs="EPSG:32643", width=25)
    assert (row["level"], row["width"], row["height"]) == (1, 25, 10)


@pytest.mark.any_duckdb
def test_outside_the_area_is_transparent(con, made):
    path = made(noise((1, 120, 130), low=1))
    area = shapely.Polygon([(10, 10), (100, 30), (40, 110)])
    (row,) = previews(
        con, "made", geometry=to_map(area, NORTH_UP), geometry_crs="EPSG:32643", width=130
    )
    wanted = expected_read(path, geometry_px=area)
    np.testing.assert_array_equal(picture(row)[..., 3] > 0, wanted.valid[0])


@pytest.mark.any_duckdb
def test_ramps_go_from_their_first_colour_to_their_last(con, made):
    made(np.arange(256, dtype="uint16").reshape(1, 1, 256).repeat(4, 1))
    (row,) = previews(con, "made", colormap="viridis", rescale=[0, 255])
    line = picture(row)[0, :, :3]
    assert line[0].tolist() == [0x44, 0x01, 0x54]
    assert line[-1].tolist() == [0xFD, 0xE7, 0x25]
    light = line.astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(light) > -1.01).all()
    (row,) = previews(con, "made", rescale=[0, 255])
    np.testing.assert_array_equal(picture(row)[0, :, 0], np.arange(256))


@pytest.mark.any_duckdb
def test_classes_have_their_colour_and_are_not_mixed(con, made):
    pixels = noise((1, 90, 90), "uint8", high=3)
    made(pixels)
    (row,) = previews(con, "made", width=30, colormap={1: "#ff8000", 2: "#0000ff"})
    got, middle = picture(row), pixels[0, 1::3, 1::3]
    assert (got[middle == 0] == 0).all()
    assert (got[middle == 1] == [255, 128, 0, 255]).all()
    assert (got[middle == 2] == [0, 0, 255, 255]).all()


@pytest.mark.any_duckdb
def test_complex_nan_and_empty_rasters_have_pictures(con, made):
    values = noise((1, 30, 40), "float32")
    values[0, :5] = np.nan
    made(values)
    (row,) = previews(con, "made")
    assert not picture(row)[:5].any()
    assert (picture(row)[5:, :, 3] == 255).all()
    made(np.full((1, 30, 40), 5, "uint8"), nodata=5)
    (row,) = previews(con, "made")
    assert not picture(row).any()
    made(np.full((1, 30, 40), 5, "uint8"))
    (row,) = previews(con, "made")
    assert (picture(row) == [0, 0, 0, 255]).all()
    made(noise((1, 30, 40)).astype("complex64") * 1j)
    (row,) = previews(con, "made", rescale=[0, 250])
    np.testing.assert_array_equal(
        picture(row)[..., 0], bytes_of(noise((1, 30, 40))[0].astype(float), 0, 250)
    )


def test_overviews_save_bytes_and_what_is_not_selected_is_not_requested(n_requests, s2, server):
    call = "rasteret_preview('s2', bands := ['B04'], width := {})"
    small, _ = n_requests(f"SELECT png FROM {call.format(128)}")
    assert small > 0
    assert n_requests(f"SELECT id, height, width FROM {call.format(128)}")[0] == 0
    plan = "SELECT sum(byte_count) FROM rasteret_plan('s2', bands := ['B04'], level := {})"
    whole, fetched = (s2.execute(plan.format(level)).fetchone()[0] for level in (0, 2))
    assert 4 * fetched < whole
    rows = s2.execute(
        f"SELECT png FROM rasteret_preview('s2', bands := ['B04'], width := 128, "
        f"max_bytes := {fetched + 1000})"
    ).fetchall()
    assert len(rows) == 6
    with pytest.raises(duckdb.Error, match="max_bytes: expected a read of at most"):
        s2.execute(f"SELECT png FROM {call.format(128)[:-1]}, max_bytes := 100)").fetchall()


@pytest.mark.any_duckdb
def test_records_with_and_without_overviews(con, tmp_path):
    write(tmp_path / "a.tif", noise((1, 128, 128)), overviews=[2, 4])
    write(tmp_path / "b.tif", noise((1, 128, 128)))
    build_files(con, "made", {n: tmp_path / f"{n}.tif" for n in "ab"})
    rows = previews(con, "made", width=32, rescale=[0, 250])
    assert {row["id"]: row["level"] for row in rows} == {"a": 2, "b": 0}
    assert all(picture(row).shape == (32, 32, 4) for row in rows)


def test_a_band_may_stand_for_two_colours(s2):
    (row,) = previews(s2, "s2", bands=["B08", "B04", "B04"], ids=[ONE])
    got = picture(row)
    assert (got[..., 1] == got[..., 2]).all()
    assert (got[..., 0] != got[..., 1]).any()


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("bands := ['B04', 'B08']", "bands: expected one band, or red, green and blue, got 'B04, "),
        ("bands := ['B04'], width := 0", "width: expected 1 or more, got 0"),
        ("bands := ['B04'], rescale := [3, 3]", r"rescale: expected \[low, high\], low below high"),
        ("bands := ['B04'], colormap := 'jet'", "colormap: expected 'grey', 'viridis', .* 'jet'"),
        ("bands := ['B04'], colormap := MAP {1: 'red'}", "colormap: expected 'grey'"),
        ("colormap := 'magma'", "colormap: expected one band, got 'B04, B08, SCL'"),
    ],
)
def test_odd_arguments_are_refused(s2, options, told):
    with pytest.raises(duckdb.Error, match=f"rasteret_preview: {told}"):
        s2.execute(f"FROM rasteret_preview('s2', {options})")


def test_a_file_that_is_gone_is_null_or_told(con, tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.tif", noise((1, 64, 64)))
    build_files(con, "made", {n: tmp_path / f"{n}.tif" for n in "ab"})
    (tmp_path / "b.tif").unlink()
    STORE.clear()
    with pytest.raises(duckdb.Error, match="record b, band band: "):
        previews(con, "made")
    rows = {row["id"]: row for row in previews(con, "made", on_error="report")}
    assert rows["a"]["error"] is None
    assert rows["b"]["png"] is None
    assert "b.tif" in rows["b"]["error"]
