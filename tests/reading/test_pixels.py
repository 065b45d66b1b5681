"""Pixels are GDAL's: rasterio reads the same files as oracle."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely

import rasteret_sql

MAX_PIXELS = 1_500_000
AOI = "POLYGON((77.984 13.004, 77.997 13.002, 77.994 13.030, 77.984 13.004))"

DENSE_AOI = shapely.from_wkt(AOI).segmentize(1e-5).__geo_interface__


def grid_of(con, query, parameters, shape, dtype):
    """Rows (row, col, value) as an array and a mask of the cells that had a row."""
    found = con.execute(query, parameters).fetchnumpy()
    row, col, value = (found[name] for name in ("row", "col", "value"))
    cells = np.zeros(shape, dtype)
    there = np.zeros(shape, bool)
    valid = np.zeros(shape, bool)
    there[row, col] = True
    cells[row, col] = np.ma.getdata(value)
    valid[row, col] = ~np.ma.getmaskarray(value)
    assert there.sum() == len(row), "a pixel came twice"
    return cells, there, valid


@pytest.mark.parametrize("band", ["B04", "B08", "SCL"])
def test_whole_bands_equal_gdal(s2, scenes, band):
    for (record,) in s2.execute("SELECT id FROM s2 ORDER BY id").fetchall():
        with rasterio.open(scenes[0] / record / f"{band}.tif") as file:
            expected, mask = file.read(1), file.read_masks(1) != 0
        cells, there, valid = grid_of(
            s2,
            f"SELECT row, col, {band} AS value FROM rasteret_pixels('s2', bands := [$band], "
            "ids := [$id])",
            {"band": band, "id": record},
            expected.shape,
            expected.dtype,
        )
        assert there.all()
        np.testing.assert_array_equal(valid, mask)
        np.testing.assert_array_equal(cells[valid], expected[mask])


def test_a_polygon_selects_gdals_pixels_in_both_zones(s2, scenes):
    n_pixels = 0
    for record, epsg in s2.execute('SELECT id, "proj:epsg" FROM s2 ORDER BY id').fetchall():
        with rasterio.open(scenes[0] / record / "B08.tif") as file:
            aoi = rasterio.warp.transform_geom(
                "OGC:CRS84",
                f"EPSG:{epsg}",
                DENSE_AOI,
            )
            inside = rasterio.features.geometry_mask([aoi], file.shape, file.transform, invert=True)
            expected = file.read(1)
        cells, there, _ = grid_of(
            s2,
            "SELECT row, col, B08 AS value FROM rasteret_pixels('s2', bands := ['B08'], "
            "geometry := $aoi, ids := [$id], masked := false)",
            {"aoi": AOI, "id": record},
            expected.shape,
            expected.dtype,
        )
        np.testing.assert_array_equal(there, inside)
        np.testing.assert_array_equal(cells[there], expected[inside])
        n_pixels += int(inside.sum())
    assert n_pixels > 10_000


def test_positions_are_pixel_centres(s2, scenes):
    x, y, row, col, record = s2.execute(
        "SELECT x, y, row, col, id FROM rasteret_pixels('s2', bands := ['B04']) "
        "WHERE row = 7 AND col = 300 LIMIT 1"
    ).fetchall()[0]
    with rasterio.open(scenes[0] / record / "B04.tif") as file:
        assert file.xy(row, col) == (x, y)


def test_the_time_series_of_the_issue(s2, scenes):
    found = s2.execute(
        "SELECT datetime, avg((B08::DOUBLE - B04) / (B08::DOUBLE + B04)) AS ndvi "
        "FROM rasteret_pixels('s2', bands := ['B04','B08'], geometry := $aoi) "
        'WHERE "eo:cloud_cover" < 20 GROUP BY ALL ORDER BY 1',
        {"aoi": AOI},
    ).fetchall()
    sums: dict = {}
    for record, when, epsg, cloud in s2.execute(
        'SELECT id, datetime, "proj:epsg", "eo:cloud_cover" FROM s2'
    ).fetchall():
        if cloud >= 20:
            continue
        aoi = rasterio.warp.transform_geom("OGC:CRS84", f"EPSG:{epsg}", DENSE_AOI)
        bands = []
        for band in ("B04", "B08"):
            with rasterio.open(scenes[0] / record / f"{band}.tif") as file:
                inside = rasterio.features.geometry_mask(
                    [aoi], file.shape, file.transform, invert=True
                )
                bands.append(file.read(1, masked=True)[inside].astype(float))
        ndvi = (bands[1] - bands[0]) / (bands[1] + bands[0])
        total, count = sums.get(when, (0.0, 0))
        sums[when] = (total + ndvi.sum(), count + ndvi.count())
    expected = [(when, total / count) for when, (total, count) in sorted(sums.items())]
    assert [row[0] for row in found] == [row[0] for row in expected]
    np.testing.assert_allclose([r[1] for r in found], [r[1] for r in expected], rtol=1e-12)


def test_tiles_hold_the_same_bytes_at_every_level(s2, scenes):
    for level in (0, 1, 2):
        rows = s2.execute(
            "SELECT id, band, row_off, col_off, height, width, pixels FROM "
            "rasteret_read_tiles('s2', level := $level, masked := false) WHERE band <> 'SCL'",
            {"level": level},
        ).fetchall()
        assert rows
        for record, band, row, col, height, width, pixels in rows:
            options = {"overview_level": level - 1} if level else {}
            with rasterio.open(scenes[0] / record / f"{band}.tif", **options) as file:
                window = rasterio.windows.Window(col, row, width, height)
                assert file.read(1, window=window).tobytes() == pixels


def test_join_of_two_calls(s2):
    found = s2.execute(
        "SELECT count(*) FROM rasteret_pixels('s2', bands := ['B04'], geometry := $aoi) a "
        "JOIN rasteret_pixels('s2', bands := ['B08'], geometry := $aoi) b "
        "ON a.id = b.id AND a.row = b.row AND a.col = b.col",
        {"aoi": AOI},
    ).fetchall()
    one = s2.execute(
        "SELECT count(*) FROM rasteret_pixels('s2', geometry := $aoi)", {"aoi": AOI}
    ).fetchall()
    assert found == one


@pytest.fixture(scope="module")
def truth(data):
    return json.loads((data / "truth.json").read_text())


def usable(entry):
    """Files that GDAL reads and that are small enough; lossy ones are told apart later."""
    return (
        not entry.get("error")
        and entry["width"] * entry["height"] * min(entry["count"], 4) <= MAX_PIXELS
        and entry.get("bands")
        and not any(band.get("error") for band in entry["bands"])
    )


@pytest.mark.any_duckdb
def test_every_real_file_read_through_sql_equals_gdal(data, server, truth, tmp_path):
    """One collection over all real files, over HTTP; the bytes of band 1 by their hash."""
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    files = {path: entry for path, entry in truth["files"].items() if usable(entry)}
    hrefs = {path: server.url("data", path) for path in files}
    con.execute("CREATE TABLE files (id VARCHAR, href VARCHAR)")
    con.executemany("INSERT INTO files VALUES (?, ?)", [[k, v] for k, v in hrefs.items()])
    report = con.execute(
        "FROM rasteret_build_table('real', 'files', href_column := 'href', "
        "band_index_map := MAP {'band': 0}, enrich := true)"
    ).fetchall()
    assert report[0][3] == len(files)
    errors = dict(
        con.execute("SELECT id, error FROM rasteret_errors('real') WHERE id IS NOT NULL").fetchall()
    )
    con.execute("SET VARIABLE good = 'SELECT * FROM real WHERE band_metadata IS NOT NULL'")
    rows = con.execute(
        "SELECT id, height, width, row_off, col_off, pixels, error, dtype FROM "
        "rasteret_read_tiles(getvariable('good'), masked := false, on_error := 'report')"
    ).fetchall()
    got: dict = {}
    failed: dict = dict(errors)
    for record, height, width, row, col, pixels, error, dtype in rows:
        entry = files[record]
        if pixels is None:
            failed[record] = error
            continue
        tile = np.frombuffer(pixels, np.dtype(dtype).newbyteorder("<")).reshape(height, width)
        image = got.setdefault(record, np.zeros((entry["height"], entry["width"]), tile.dtype))
        image[row : row + height, col : col + width] = tile
    equal, different = [], []
    for record, image in got.items():
        if record in failed:
            continue
        band = files[record]["bands"][0]
        hashed_as = {"float16": "float32", "complex128": files[record]["dtype"] or "complex64"}
        hashed = hashed_as.get(image.dtype.name, image.dtype.name)
        wide = image.astype("complex64" if hashed.startswith("complex_int") else hashed)
        same = hashlib.sha256(wide.tobytes()).hexdigest() == band["sha256"]
        (equal if same else different).append(record)
    print(f"\n{len(files)} files: {len(equal)} equal, {len(different)} not, {len(failed)} refused")
    lossy = [
        r for r in different if files[r].get("compression") in ("JPEG", "WEBP", "JXL", "YCbCr JPEG")
    ]
    assert len(equal) > 0.93 * len(files)
    assert len(failed) <= 0.02 * len(files), failed
    assert set(different) <= set(lossy)
    con.close()


def items_of(path):
    """Items of a file: one, a collection, or one on each line."""
    text = path.read_text()
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]
    return document.get("features", [document])


@pytest.mark.any_duckdb
def test_paired_stac_items_read_like_their_files(data, server, tmp_path):
    """Items with their files: built over HTTP, each band's pixels equal to rasterio's."""
    pairs = json.loads((data / "pairs.json").read_text())
    by_item: dict = {}
    for pair in pairs:
        if (data / pair["local"]).suffix.lower() in (".tif", ".tiff"):
            by_item.setdefault(pair["item_file"], []).append(pair)
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    n_equal = n_pixels = 0
    for number, (item_file, assets) in enumerate(sorted(by_item.items())):
        items = items_of(data / item_file)
        known = {(pair["item_id"], pair["asset"]): pair for pair in assets}
        for item in items:
            item["assets"] = {
                key: {**asset, "href": server.url("data", known[item["id"], key]["local"])}
                for key, asset in item["assets"].items()
                if (item["id"], key) in known
            }
        path = tmp_path / f"items{number}.json"
        chosen = [item for item in items if item["assets"]]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": chosen}))
        name = f"c{number}"
        con.execute(
            "FROM rasteret_build_stac($name, stac_api := $path)", {"name": name, "path": str(path)}
        ).fetchall()
        bands = con.execute(f"SELECT bands FROM rasteret_describe('{name}')").fetchall()[0][0]
        for band in bands:
            references = con.execute(
                f'SELECT id, assets."{band}".href, assets."{band}".band_index FROM {name} '
                f'WHERE "{band}_metadata" IS NOT NULL'
            ).fetchall()
            for record, href, index in references:
                local = data / href.split("/data/", 1)[1]
                with rasterio.open(local) as file:
                    expected = file.read((index or 0) + 1)
                    lossy = file.compression and file.compression.name in ("jpeg", "webp")
                if lossy or expected.size > MAX_PIXELS * 4:
                    continue
                cells, there, _ = grid_of(
                    con,
                    f'SELECT row, col, "{band}" AS value FROM rasteret_pixels($name, '
                    "bands := [$band], ids := [$id], masked := false)",
                    {"name": name, "band": band, "id": record},
                    expected.shape,
                    expected.dtype,
                )
                assert there.all(), (record, band)
                np.testing.assert_array_equal(cells, expected, err_msg=f"{record} {band}")
                n_equal += 1
                n_pixels += expected.size
    con.close()
    print(f"\n{n_equal} bands of paired items, {n_pixels} pixels equal to rasterio's")
    assert n_equal >= 20
