"""Points: equal to rasterio.sample; matching equal to NumPy; each tile requested once."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from reads.read_oracle import build_files, call_of, opened, rows_of

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)


def write(path, pixels, *, transform=NORTH_UP, crs="EPSG:32643", **options):
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"} | options
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, transform=transform, crs=crs, **options,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def noise(shape, dtype="uint16", *, high=250, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def build_items(con, folder, name, items):
    """A collection of records: id to moment and files by band."""
    listed = []
    for record, (moment, files) in items.items():
        with opened(next(iter(files.values()))) as file:
            box = rasterio.warp.transform_bounds(file.crs, 4326, *file.bounds)
        assets = {
            band: {"href": str(path), "type": "image/tiff; application=geotiff"}
            for band, path in files.items()
        }
        listed.append(
            {
                "type": "Feature", "stac_version": "1.0.0", "id": record, "collection": name,
                "bbox": list(box), "geometry": shapely.geometry.mapping(shapely.box(*box)),
                "properties": {"datetime": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}, "links": [],
                "assets": assets,
            }
        )  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": listed}))
    con.execute(
        f"FROM rasteret_build_stac('{name}', stac_api := $path, allow_local := true)",
        {"path": str(path)},
    ).fetchall()
    return name


def make_points(con, name="pts", kind="TABLE", **columns):
    con.register("_points", pa.table(columns))
    con.execute(f"CREATE OR REPLACE {kind} {name} AS FROM _points")
    con.unregister("_points")
    return name


def sample(con, collection, points="pts", **options):
    return rows_of(
        con, f"FROM {call_of('rasteret_sample_points', collection, points=points, **options)}"
    )


def scattered(transform, height, width, n=300, seed=1):
    """Random points in and around a raster, in its CRS."""
    rng = np.random.default_rng(seed)
    cols, rows = rng.uniform(-0.2, 1.2, n) * width, rng.uniform(-0.2, 1.2, n) * height
    a, b, c, d, e, f = transform[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f


def inside(file, x, y):
    """Which points lie in a file, and their rows and columns, as rasterio says."""
    rows, cols = rasterio.transform.rowcol(file.transform, x, y)
    rows, cols = np.asarray(rows).astype(int), np.asarray(cols).astype(int)
    return (rows >= 0) & (rows < file.height) & (cols >= 0) & (cols < file.width), rows, cols


def assert_equals_sample(found, path, x, y, bands):
    """Rows of one record equal `rasterio.sample`, NULL where it masks."""
    with opened(path) as file:
        there, rows, cols = inside(file, x, y)
        wanted = list(file.sample(zip(x[there], y[there], strict=True), masked=True))
    found = sorted(found, key=lambda row: row["n"])  # they come tile by tile
    assert [row["n"] for row in found] == np.flatnonzero(there).tolist()
    assert [row["row"] for row in found] == rows[there].tolist()
    assert [row["col"] for row in found] == cols[there].tolist()
    for position, band in enumerate(bands):
        values = np.ma.stack(wanted)[:, position] if wanted else np.ma.array([])
        null = np.ma.getmaskarray(values)
        assert [row[band] is None for row in found] == null.tolist()
        got = np.array([row[band] for row in found if row[band] is not None])
        np.testing.assert_array_equal(got, values.compressed())
    return int(there.sum())


def real_files(data):
    """Georeferenced files of the shared data that rasterio reads, of moderate size."""
    for path in sorted((data / "geotiff").rglob("*.tif")):
        if path.stat().st_size > 3_000_000:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with opened(path) as file:
                    lossy = str(file.compression) in ("Compression.jpeg", "Compression.webp")
                    is_plain = file.crs is not None and not file.transform.is_identity
                    odd = {"complex", "int64", "uint64"} & {d[:7] for d in file.dtypes}
                    small = file.width * file.height < 4_000_000 and file.count <= 4
                    nbits = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
                    if lossy or odd or nbits or not (is_plain and small and not file.gcps[0]):
                        continue
                    file.read(1)
            except Exception:  # noqa: BLE001 (files that are broken on purpose)
                continue
        yield path


def test_real_files_equal_rasterio_sample(con, data):
    n_files = n_points = 0
    for path in list(real_files(data))[::5]:
        with opened(path) as file:
            transform, height, width, count = file.transform, file.height, file.width, file.count
            crs, has_alpha = file.crs.to_string(), "alpha" in [c.name for c in file.colorinterp]
        if has_alpha:  # test_alpha_and_masks
            continue
        bands = [f"b{n}" for n in range(1, count + 1)]
        build_files(con, "one", {"one": path}, bands)
        x, y = scattered(transform, height, width, seed=n_files)
        make_points(con, n=np.arange(len(x)), x=x, y=y)
        found = sample(con, "one", bands=bands, geometry_crs=crs)
        n_points += assert_equals_sample(found, path, x, y, bands)
        n_files += 1
    assert n_files > 30
    assert n_points > 30 * 100


@pytest.mark.parametrize("kind", ["mask", "alpha", "nodata", "strips", "planes", "plain"])
def test_masks_and_layouts_equal_rasterio_sample(con, tmp_path, kind):
    options = {
        "alpha": {"photometric": "rgb", "alpha": "yes"},
        "nodata": {"nodata": 7},
        "strips": {"tiled": False, "blockxsize": 200, "blockysize": 8},
        "planes": {"interleave": "band"},
        "plain": {"compress": "none", "blockxsize": 64},
    }.get(kind, {})
    count = 4 if kind == "alpha" else 3
    pixels = noise((count, 150, 200), "uint8", high=12)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "a.tif", pixels, **options)
        if kind == "mask":
            with rasterio.open(path, "r+") as file:
                file.write_mask(noise((150, 200), "uint8", high=2).astype(bool))
    build_files(con, "one", {"one": path}, ["r", "g", "b"])
    x, y = scattered(NORTH_UP, 150, 200, n=2000)
    make_points(con, n=np.arange(len(x)), x=x, y=y)
    found = sample(con, "one", geometry_crs=32643)
    assert assert_equals_sample(found, path, x, y, ["r", "g", "b"]) > 900


def test_points_of_another_crs(con, tmp_path):
    path = write(tmp_path / "a.tif", noise((1, 150, 200)))
    build_files(con, "one", {"one": path})
    x, y = scattered(NORTH_UP, 150, 200, n=3000)
    lon, lat = pyproj.Transformer.from_crs(32643, 4326, always_xy=True).transform(x, y)
    back = pyproj.Transformer.from_crs(4326, 32643, always_xy=True).transform(lon, lat)
    make_points(con, n=np.arange(len(x)), lon=lon, lat=lat)
    found = sample(con, "one")
    assert assert_equals_sample(found, path, *map(np.asarray, back), ["band"]) > 1500
    row = min(found, key=lambda row: row["n"])
    assert (row["point_x"], row["point_y"]) == (row["lon"], row["lat"])
    assert (row["point_crs"], row["raster_crs"]) == ("OGC:CRS84", "EPSG:32643")
    assert row["record_id"] == "one"
    assert row["distance_px"] == 0


def test_top_and_left_are_inside_right_and_bottom_outside(con, tmp_path):
    path = write(tmp_path / "a.tif", np.arange(12, dtype="uint8").reshape(1, 3, 4))
    build_files(con, "one", {"one": path})
    left, top = 500_000.0, 4_000_000.0
    x = [left, left + 10, left + 39.999, left + 40, left - 0.001, left, left]
    y = [top, top - 10, top - 29.999, top, top, top - 30, top + 0.001]
    make_points(con, n=range(7), x=x, y=y)
    found = {row["n"]: (row["row"], row["col"], row["band"])
             for row in sample(con, "one", geometry_crs=32643)}  # fmt: skip
    assert found == {0: (0, 0, 0), 1: (1, 1, 5), 2: (2, 3, 11)}


def test_pixels_as_coordinates_and_a_level(con, tmp_path):
    pixels = noise((1, 128, 160))
    path = write(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    build_files(con, "one", {"one": path})
    make_points(con, n=range(3), x=[0.5, 159.9, 160], y=[0.5, 127.9, 1])
    full = sample(con, "one", geometry_crs="pixel")
    assert sorted((row["n"], row["band"]) for row in full) == [
        (0, pixels[0, 0, 0]), (1, pixels[0, 127, 159]),
    ]  # fmt: skip
    half = sample(con, "one", geometry_crs="pixel", level=1)
    assert sorted((row["row"], row["col"]) for row in half) == [(0, 0), (63, 79)]
    assert {row["point_crs"] for row in half} == {"pixel"}


def test_longitudes_from_0_to_360(con, tmp_path):
    pixels = noise((1, 18, 36), "int16")
    path = write(
        tmp_path / "a.tif", pixels, transform=Affine(10, 0, 0, 0, -10, 90), crs="EPSG:4326",
        blockxsize=16, blockysize=16,
    )  # fmt: skip
    build_files(con, "world", {"one": path})
    make_points(con, n=range(3), lon=[-175.0, 5.0, 179.9], lat=[5.0, 5.0, -85.0])
    found = {row["n"]: row["band"] for row in sample(con, "world")}
    assert found == {0: pixels[0, 8, 18], 1: pixels[0, 8, 0], 2: pixels[0, 17, 17]}


def test_bands_of_unlike_grids_are_read_each_on_its_own(con, tmp_path):
    fine, coarse = noise((1, 120, 120)), noise((1, 50, 50), "uint8")
    files = {
        "fine": write(tmp_path / "fine.tif", fine),
        "coarse": write(
            tmp_path / "coarse.tif", coarse, transform=Affine(20, 0, 500_000, 0, -20, 4_000_000)
        ),
    }
    build_items(con, tmp_path, "two", {"one": (datetime(2024, 1, 1, tzinfo=UTC), files)})
    x, y = scattered(NORTH_UP, 120, 120, n=800)
    make_points(con, n=np.arange(len(x)), x=x, y=y)
    found = sample(con, "two", bands=["fine", "coarse"], geometry_crs=32643)
    assert len(found) > 300
    for row in found:
        assert row["fine"] == fine[0, row["row"], row["col"]]
        down, across = row["row"] // 2, row["col"] // 2
        assert row["coarse"] == (coarse[0, down, across] if max(down, across) < 50 else None)


# What points may be, and what comes through


def some_points(con, kind="TABLE", name="pts"):
    return make_points(
        con, name, kind, id=["a", "b", "c"], lon=[77.99, 78.0, 78.01], lat=[13.01, 13.012, 13.02],
        datetime=[datetime(2024, 2, 10)] * 3,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["TABLE", "TEMP TABLE", "VIEW", "registered", "query", "wkt"])
def test_relations_of_points(s2, kind):
    some_points(s2, name="kept")
    points = "pts"
    query = "SELECT record_id, lon, B04, row, col FROM rasteret_sample_points('s2', 'kept')"
    wanted = sorted(s2.execute(query).fetchall())
    assert len(wanted) > 9
    if kind == "registered":
        s2.register("pts", s2.sql("FROM kept").to_arrow_table())
    elif kind == "query":
        points = "SELECT * FROM kept WHERE lon < 100"
    elif kind == "wkt":
        s2.execute(
            "CREATE TABLE pts AS SELECT 'POINT(' || lon || ' ' || lat || ')' AS geom, lon FROM kept"
        )
    else:
        s2.execute(f"CREATE {kind} pts AS FROM kept")
    query = "SELECT record_id, lon, B04, row, col FROM rasteret_sample_points('s2', $points)"
    assert sorted(s2.execute(query, {"points": points}).fetchall()) == wanted


def test_columns(s2):
    some_points(s2)
    query = "FROM rasteret_sample_points('s2', 'pts', bands := ['B04'])"
    names = s2.sql(query).columns
    assert names == [
        "id", "lon", "lat", "point_datetime", "point_x", "point_y", "point_crs", "record_id",
        "datetime", "raster_crs", "row", "col", "distance_px", "B04",
    ]  # fmt: skip
    more = s2.sql(query.replace(")", ", record_columns := ['crs'])")).columns
    assert set(more) - set(names) == {"crs"}


def test_a_where_gives_the_same_rows(s2):
    some_points(s2)
    call = "rasteret_sample_points('s2', 'pts')"
    everything = s2.execute(f"SELECT id, record_id, B04 FROM {call}").fetchall()
    one = everything[0][1]
    found = s2.execute(
        f"SELECT id, record_id, B04 FROM {call} WHERE record_id = $one", {"one": one}
    )
    assert sorted(found.fetchall()) == sorted(row for row in everything if row[1] == one)
    assert s2.execute(f"SELECT count(*) FROM {call}").fetchall() == [(len(everything),)]
    assert s2.execute(f"SELECT id FROM {call} WHERE B04 < 0").fetchall() == []


# Requests


def test_each_tile_is_requested_once_for_all_points(s2, server, n_requests, scenes):
    rng = np.random.default_rng(4)
    n = 5000
    make_points(
        s2, n=np.arange(n), lon=rng.uniform(77.97, 78.02, n), lat=rng.uniform(13.0, 13.03, n)
    )
    n_read, found = n_requests(
        "SELECT record_id, row // 256, col // 256, B04 FROM "
        "rasteret_sample_points('s2', 'pts', bands := ['B04'])"
    )
    assert len(found) > 6 * 1000
    ranges = Counter((one["path"], one["range"]) for one in server.requests())
    assert set(ranges.values()) == {1}
    planned = s2.execute(
        "SELECT href, tile_row, tile_col FROM rasteret_plan('s2', bands := ['B04'])"
    ).fetchall()
    tiles = {row[:3] for row in found}
    assert 6 < len(tiles) <= len(planned)
    assert n_read <= len(tiles)
    n_none, _ = n_requests("SELECT count(*), min(row) FROM rasteret_sample_points('s2', 'pts')")
    assert n_none == 0


def test_max_bytes(s2, server):
    some_points(s2)
    query = "FROM rasteret_sample_points('s2', 'pts', max_bytes := $most)"
    with pytest.raises(Exception, match="max_bytes: expected a read of at most 10 bytes"):
        s2.execute(query, {"most": 10}).fetchall()
    assert server.requests() == []
    assert s2.execute(query, {"most": 10_000_000}).fetchall()
