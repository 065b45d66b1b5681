"""Arrays of results: their memory is Arrow's, shapes and labels are rasterio's."""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
import shapely
from reading.rasters import NORTH_UP, ROTATED, noise, write
from reading.read_oracle import build_files, call_of, opened

import rasteret_sql
from rasteret_sql.errors import InputError, RasteretError

BBOX = [77.984, 13.004, 77.99, 13.01]
ZONE = "43PHQ"


def reading(con, where=f"id LIKE '%{ZONE}%'", **options):
    call = call_of("rasteret_read", "s2", **{"bands": ["B04", "B08"], "bbox": BBOX} | options)
    return con.sql(f"FROM {call} WHERE {where} ORDER BY id")


def blob_memory(table, name):
    """The bytes of a BLOB column of one chunk, as Arrow holds them."""
    (chunk,) = table[name].chunks
    return np.frombuffer(chunk.buffers()[2], np.uint8)


@pytest.fixture
def expected(scenes):
    """Whole windows by rasterio, (scene, band, row, column), of zone 43."""
    folder, _ = scenes

    found = []
    for scene in sorted(folder.glob(f"*{ZONE}*")):
        bands = []
        for band in ("B04", "B08"):
            with opened(scene / f"{band}.tif") as file:
                bands.append(file.read(1))
        found.append(bands)
    return np.array(found)


def test_stacked_arrays_of_a_batch_are_its_memory(s2):
    table = reading(s2, masked=False).to_arrow_reader(8).read_all()
    arrays = rasteret_sql.to_numpy(table)
    assert {name: array.shape for name, array in arrays.items()} == {
        "B04": (3, 68, 67),
        "B08": (3, 68, 67),
    }
    for name, array in arrays.items():
        assert array.dtype == np.uint16
        assert np.shares_memory(array, blob_memory(table, name))
        assert not array.flags.writeable


class Importer:
    """What torch.from_dlpack asks of an array: where it is, and a capsule of DLPack 1."""

    def __init__(self, array):
        self._array = array

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()

    def __dlpack__(self, **options):
        assert options.setdefault("max_version", (1, 0)) >= (1, 0)
        return self._array.__dlpack__(**options)


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="DLPack 1 is of NumPy 2.1"
)
def test_arrays_are_given_on_by_dlpack_without_a_copy(s2):
    array = rasteret_sql.to_numpy(reading(s2))["B04"]
    given = np.from_dlpack(Importer(array))
    assert np.shares_memory(given, array)
    assert not given.flags.writeable
    assert given.dtype == np.uint16
    assert (given == array).all()


def test_torch_shares_the_memory_of_arrays(s2):
    torch = pytest.importorskip("torch")
    array = rasteret_sql.to_numpy(reading(s2))["B04"]
    tensor = torch.from_dlpack(array)
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.to(torch.float64).numpy().sum() == array.sum(dtype=float)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
@pytest.mark.parametrize("n_before", [0, 1])
def test_arrays_of_each_row_are_arrow_s_memory(kind, n_before):
    pixels = noise((3, 5, 7))
    blobs = pa.array([b"x" * 40] * n_before + [p.tobytes() for p in pixels], pa.large_binary())
    sizes = {"height": [5] * len(blobs), "width": [7] * len(blobs), "dtypes": [["uint16"]] * 4}
    sizes["dtypes"] = sizes["dtypes"][: len(blobs)] or [["uint16"]]
    table = pa.table({"b": blobs.cast(kind), **sizes}).slice(n_before)
    (chunk,) = table["b"].chunks
    held = [np.frombuffer(data, np.uint8) for data in chunk.buffers()[1:] if data is not None]
    for row, array in enumerate(rasteret_sql.to_numpy(table, stack=False)["b"]):
        np.testing.assert_array_equal(array, pixels[row])
        assert any(np.shares_memory(array, one) for one in held)
    np.testing.assert_array_equal(rasteret_sql.to_numpy(table)["b"], pixels)


def test_small_blobs_of_views_lie_inline():
    table = pa.table(
        {"b": pa.array([b"\x01\x02", b"\x03\x04"], pa.binary_view()), "height": [1, 1],
         "width": [2, 2], "dtypes": [["uint8"]] * 2}
    )  # fmt: skip
    assert rasteret_sql.to_numpy(table)["b"].tolist() == [[[1, 2]], [[3, 4]]]


def test_rows_of_several_batches_are_stacked(s2, expected):
    table = reading(s2, masked=False, bbox=None).to_arrow_reader(1).read_all()
    assert table["B04"].num_chunks == 3
    arrays = rasteret_sql.to_numpy(table)
    wanted = expected
    for position, name in enumerate(("B04", "B08")):
        np.testing.assert_array_equal(arrays[name], wanted[:, position])


def test_windows_of_unlike_size_are_a_list_or_an_error(s2):
    areas = s2.sql(
        "SELECT unnest(['POLYGON((77.98 13.0, 77.985 13.0, 77.985 13.005, 77.98 13.0))', "
        "'POLYGON((77.98 13.0, 77.99 13.0, 77.99 13.005, 77.98 13.0))']) AS geometry"
    ).to_arrow_table()
    s2.register("areas", areas)
    relation = s2.sql(
        f"FROM rasteret_read('s2', bands := ['B04'], aois := 'areas') WHERE id LIKE '%{ZONE}%'"
    )
    arrays = rasteret_sql.to_numpy(relation, stack=False)["B04"]
    sizes = relation.project("height, width").fetchall()
    assert [array.shape for array in arrays] == sizes
    assert len(set(sizes)) > 1
    with pytest.raises(
        InputError, match=r"relation, row \d, column B04: expected \d+ x \d+ values"
    ):
        rasteret_sql.to_numpy(relation)


@pytest.mark.any_duckdb
def test_windows_on_unlike_grids_have_no_labels_in_common(s2):
    pytest.importorskip("xarray")
    with pytest.raises(InputError, match=r"relation, row 4: expected the grid of row 1 \(EPSG:326"):
        rasteret_sql.to_xarray(reading(s2, where="true", bbox=None))
    with pytest.raises(InputError, match="expected bands on one grid, got \"align := 'band'\""):
        rasteret_sql.to_xarray(reading(s2, bands=["B04", "SCL"], align="band"))


def test_valid_is_bool_of_all_bands(s2):
    relation = reading(s2, valid=True)
    found = rasteret_sql.to_numpy(relation)["valid"]
    assert found.dtype == np.bool_
    assert found.shape == (3, 2, 68, 67)
    (counted,) = relation.project("valid").fetchall()[:1]
    assert found[0].sum() == sum(counted[0])
    assert 0 < found.sum() < found.size


def test_what_is_no_read_is_refused(s2):
    with pytest.raises(InputError, match="relation: expected a relation, or a table"):
        rasteret_sql.to_numpy("FROM rasteret_read('s2')")
    with pytest.raises(InputError, match=r"the columns height, width, dtypes .*got 'no dtypes'"):
        rasteret_sql.to_numpy(reading(s2).project("B04, height, width"))
    with pytest.raises(InputError, match="BLOB columns of bands"):
        rasteret_sql.to_numpy(reading(s2, format="list"))
    with pytest.raises(InputError, match=r"column B04: expected 0 bytes"):
        rasteret_sql.to_numpy(reading(s2).project("B04, 0 AS height, width, dtypes"))
    two = reading(s2, bands=["B04", "SCL"], align="band").project("B04, height, width, dtypes")
    with pytest.raises(InputError, match="expected 2 bands, as its column dtypes has, got '1"):
        rasteret_sql.to_numpy(two)


def test_null_has_no_place_in_a_stack():
    table = pa.table(
        {"b": pa.array([b"\x01", None]), "height": [1, 1], "width": [1, 1],
         "dtypes": [["uint8"], [None]]}
    )  # fmt: skip
    assert rasteret_sql.to_numpy(table, stack=False)["b"][1] is None
    with pytest.raises(InputError, match="row 2, column b: expected an array, got NULL"):
        rasteret_sql.to_numpy(table)
    assert rasteret_sql.to_numpy(table.slice(0, 0))["b"].shape == (0, 0, 0)


@pytest.mark.any_duckdb
def test_bands_of_unlike_grid_each_have_their_size(s2):
    fine, coarse = noise((6, 8)), noise((3, 4), "uint8")
    table = pa.table(
        {"a": [fine.tobytes()], "b": [coarse.tobytes()], "height": [[6, 3]], "width": [[8, 4]],
         "dtypes": [["uint16", "uint8"]]}
    )  # fmt: skip
    arrays = rasteret_sql.to_numpy(table)
    np.testing.assert_array_equal(arrays["a"], [fine])
    np.testing.assert_array_equal(arrays["b"], [coarse])
    read = rasteret_sql.to_numpy(reading(s2, bands=["B04", "SCL"], align="band", bbox=None))
    assert read["SCL"].shape == (3, 512, 512)
    assert (read["B04"].dtype, read["SCL"].dtype) == (np.uint16, np.uint8)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("missing", ["xarray", "geopandas"])
def test_a_package_that_is_missing_is_named(s2, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    convert = getattr(rasteret_sql, f"to_{missing}")
    with pytest.raises(RasteretError, match=rf"pip install 'rasteret_sql\[{missing}\]'"):
        convert(reading(s2))


@pytest.mark.any_duckdb
def test_xarray_has_the_labels_of_rasterio(s2, scenes, expected):
    pytest.importorskip("xarray")
    found = rasteret_sql.to_xarray(reading(s2, masked=False, bbox=None))
    assert found.dims == ("time", "band", "y", "x")
    np.testing.assert_array_equal(found.values, expected)
    with opened(scenes[0] / found.id.values[0] / "B04.tif") as file:
        transform, crs = file.transform, file.crs
    cols, rows = np.arange(found.sizes["x"]), np.arange(found.sizes["y"])
    np.testing.assert_allclose(found.x, transform.c + transform.a * (cols + 0.5))
    np.testing.assert_allclose(found.y, transform.f + transform.e * (rows + 0.5))
    assert found.band.values.tolist() == ["B04", "B08"]
    assert found.time.values.astype("M8[D]").astype(str).tolist() == [
        "2024-01-10",
        "2024-02-09",
        "2024-03-10",
    ]
    assert found.id.values.tolist() == sorted(found.id.values.tolist())
    mapping = found[found.attrs["grid_mapping"]].attrs
    assert pyproj.CRS.from_cf(mapping).to_epsg() == crs.to_epsg()
    assert rasterio.Affine.from_gdal(*map(float, mapping["GeoTransform"].split())) == transform
    assert found.x.attrs["standard_name"] == "projection_x_coordinate"
    assert found.x.attrs["units"] == "metre"
    assert found.attrs["_FillValue"] == 0


@pytest.mark.any_duckdb
def test_what_is_scaled_has_nan_for_no_data(s2):
    """Not the number of the file, which a scaled value may equal."""
    pytest.importorskip("xarray")
    found = rasteret_sql.to_xarray(reading(s2, scaled=True))
    assert np.isnan(found.attrs["_FillValue"])
    assert bool(found.isnull().any())
    assert bool((found == found).any())


@pytest.mark.any_duckdb
def test_xarray_of_one_band_is_not_copied(s2):
    pytest.importorskip("xarray")
    table = reading(s2, bands=["B04"]).to_arrow_reader(8).read_all()
    assert np.shares_memory(rasteret_sql.to_xarray(table).values, blob_memory(table, "B04"))


@pytest.mark.any_duckdb
def test_xarray_of_two_types_has_the_one_that_holds_both():
    pytest.importorskip("xarray")
    small, wide = noise((5, 7), "int16"), noise((5, 7), "uint16", high=65_000)
    table = pa.table(
        {"a": [small.tobytes()], "b": [wide.tobytes()], "height": [5], "width": [7],
         "dtypes": [["int16", "uint16"]]}
    )  # fmt: skip
    found = rasteret_sql.to_xarray(table)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found.values[0], [small, wide])


@pytest.mark.any_duckdb
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north-up", "rotated"])
def test_coordinates_are_pixel_centres(con, tmp_path, transform):
    pytest.importorskip("xarray")
    path = write(tmp_path / "a.tif", noise((1, 40, 50)), transform=transform)
    build_files(con, "made", {"a": path})
    found = rasteret_sql.to_xarray(con.sql("FROM rasteret_read('made')"))
    col, row = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
    x, y = (transform.a * col + transform.b * row + transform.c,
            transform.d * col + transform.e * row + transform.f)  # fmt: skip
    if transform is ROTATED:
        assert "x" not in found.coords
        np.testing.assert_allclose(found.xc, x)
        np.testing.assert_allclose(found.yc, y)
    else:
        np.testing.assert_allclose(np.broadcast_to(found.x, x.shape), x)
        np.testing.assert_allclose(found.y, y[:, 0])


@pytest.mark.any_duckdb
def test_a_netcdf_reader_finds_the_crs_again(s2, tmp_path):
    pytest.importorskip("xarray")
    found = rasteret_sql.to_xarray(reading(s2))
    plain = found.to_dataset(name="pixels").to_dict()  # what a file would hold: texts and numbers
    attributes = plain["coords"]["spatial_ref"]["attrs"]
    assert all(isinstance(value, (str, float, int)) for value in attributes.values())
    assert pyproj.CRS.from_wkt(attributes["crs_wkt"]).to_epsg() == 32643


@pytest.mark.any_duckdb
def test_geopandas_has_the_outline_of_each_window(s2, scenes):
    geopandas = pytest.importorskip("geopandas")
    relation = reading(s2, where="true", bbox=None, bands=["B04"])
    frame = rasteret_sql.to_geopandas(relation)
    assert isinstance(frame, geopandas.GeoDataFrame)
    assert len(frame) == 6
    assert frame["B04"][0].shape == (frame["height"][0], frame["width"][0])
    for row in range(6):
        with opened(scenes[0] / frame["id"][row] / "B04.tif") as file:
            bounds, crs = file.bounds, file.crs.to_epsg()
        own = frame.iloc[[row]].to_crs(crs).geometry.iloc[0]
        assert shapely.symmetric_difference(own, shapely.box(*bounds)).area < 1e-3 * own.area


def test_a_column_of_geometries_comes_along(s2, scenes):
    pytest.importorskip("geopandas")
    relation = reading(s2, where="true", record_columns=["id", "geometry"], bbox=None)
    frame = rasteret_sql.to_geopandas(relation)
    items = json.loads((scenes[0] / "items.json").read_text(encoding="utf-8"))["features"]
    wanted = {item["id"]: shapely.geometry.shape(item["geometry"]) for item in items}
    assert all(
        own.normalize().equals_exact(wanted[name].normalize(), 1e-12)
        for name, own in zip(frame["id"], frame.geometry, strict=True)
    )
    assert len(frame) == 6
    assert frame.crs.to_string() == "OGC:CRS84"
    assert list(frame.columns[-1:]) == ["geometry"]


PIXELS = '"proj:epsg" = 32643'


def pixels(con, columns="*", where=PIXELS, **options):
    call = call_of("rasteret_pixels", "s2", **{"bands": ["B04", "B08"], "bbox": BBOX} | options)
    return con.sql(f"SELECT {columns} FROM {call} WHERE {where}")


def test_pixels_become_the_cube_that_windows_are(s2):
    pytest.importorskip("xarray")
    windows = rasteret_sql.to_xarray(reading(s2, masked=False))
    where = f"{PIXELS} ORDER BY random()"
    found = rasteret_sql.to_xarray(pixels(s2, where=where, masked=False), bands=["B04", "B08"])
    assert found.dims == windows.dims
    assert found.dtype == np.float32  # corners of the box lie outside of it in UTM
    assert found.id.values.tolist() == windows.id.values.tolist()
    for label in ("time", "band"):
        np.testing.assert_array_equal(found[label], windows[label])
    inner = windows.sel(x=found.x, y=found.y, method="nearest", tolerance=1e-6)
    is_there = found.notnull().values
    assert 0.9 < is_there.mean() < 1
    np.testing.assert_array_equal(found.values[is_there], inner.values[is_there])
    mapping = found.spatial_ref.attrs
    assert pyproj.CRS.from_cf(mapping).to_epsg() == 32643
    left, width, _, top, _, height = map(float, mapping["GeoTransform"].split())
    assert (left + width / 2, top + height / 2) == (found.x.values[0], found.y.values[0])
    assert (width, height) == (10, -10)


def test_pixels_that_fill_their_box_keep_their_type(s2):
    pytest.importorskip("xarray")
    inside = "x BETWEEN 824000 AND 824200 AND y BETWEEN 1439700 AND 1439900"
    columns = 'id, datetime, x, y, B04, B08, "eo:cloud_cover", crs'
    rows = pixels(s2, columns, f"{PIXELS} AND {inside}", masked=False)
    found = rasteret_sql.to_xarray(rows)
    assert (found.shape, found.dtype) == ((3, 2, 20, 20), np.uint16)
    assert found.band.values.tolist() == ["B04", "B08"]
    without = rasteret_sql.to_xarray(pixels(s2, "x, y, B04", f"{PIXELS} AND month = 1"))
    assert without.sizes["time"] == 1
    assert "time" not in without.coords
    assert "GeoTransform" in without.spatial_ref.attrs


@pytest.mark.parametrize("day", ["1500-01-01", "2024-01-01", "2300-12-31"])
def test_times_may_be_beyond_those_of_nanoseconds(s2, day):
    pytest.importorskip("xarray")
    records = f"SELECT * REPLACE (TIMESTAMP ''{day}'' AS datetime) FROM s2"
    for function in ("rasteret_read", "rasteret_pixels"):
        call = f"{function}('{records}', bands := ['B04'], bbox := {BBOX})"
        times = rasteret_sql.to_xarray(s2.sql(f"FROM {call} WHERE {PIXELS}")).time.values
        assert times.astype("M8[D]").astype(str).tolist() == [day] * 3
        years = call.replace(f"TIMESTAMP ''{day}''", "2024")
        with pytest.raises(InputError, match="column datetime: expected TIMESTAMP or DATE, got"):
            rasteret_sql.to_xarray(s2.sql(f"FROM {years} WHERE {PIXELS}"))


@pytest.mark.any_duckdb
def test_the_times_of_a_composite_are_its_periods(s2):
    pytest.importorskip("xarray")
    query = (
        "FROM rasteret_composite('s2', bands := ['B04'], resolution := 20, "
        "bbox := [77.984, 13.004, 77.99, 13.01], period := {}) ORDER BY period"
    )
    months = query.format("'1 month'")
    found = rasteret_sql.to_xarray(s2.sql(months))
    periods = [row[0] for row in s2.execute(f"SELECT period {months}").fetchall()]
    assert found.time.values.tolist() == np.array(periods, "M8[ns]").tolist()
    assert len(periods) == 3
    assert "time" not in rasteret_sql.to_xarray(s2.sql(query.format("NULL"))).coords


def test_decimals_are_numbers_and_one_band_needs_no_list(s2):
    pytest.importorskip("xarray")
    columns = "id, datetime, x, y, crs, B04, sum(B04) AS total, any_value(B04::DECIMAL(9, 2)) AS d"
    rows = pixels(s2, columns, f"{PIXELS} GROUP BY ALL", masked=False)
    found = rasteret_sql.to_xarray(rows)
    assert found.band.values.tolist() == ["B04", "total", "d"]
    for name in ("total", "d"):
        np.testing.assert_array_equal(found.sel(band=name), found.sel(band="B04"))
    assert rasteret_sql.to_xarray(rows, bands="B04").band.values.tolist() == ["B04"]


def test_pixels_without_a_common_grid_are_refused(s2):
    pytest.importorskip("xarray")
    with pytest.raises(InputError, match=r"column crs: expected one CRS, got .*EPSG:32644"):
        rasteret_sql.to_xarray(pixels(s2, where="true", bbox=[77.99, 13.01, 78.005, 13.02]))
    with pytest.raises(InputError, match="expected each pixel of a record once"):
        rasteret_sql.to_xarray(pixels(s2, "x, y, B04"))
    with pytest.raises(InputError, match="expected columns of bands"):
        rasteret_sql.to_xarray(pixels(s2, "x, y, id"))
    with pytest.raises(InputError, match=r"bands: expected one of .*B04.*, got 'B05'"):
        rasteret_sql.to_xarray(pixels(s2), bands=["B05"])
    turned = pa.table({"x": [0.0, 1.0, 1.3], "y": [0.0, 1.0, 2.0], "v": [1, 2, 3]})
    with pytest.raises(InputError, match="column x: expected pixels of one grid"):
        rasteret_sql.to_xarray(turned)
    far = pa.table({"x": np.arange(3000.0), "y": np.arange(3000.0), "v": np.arange(3000)})
    with pytest.raises(InputError, match="3000 in 3000 x 3000 places"):
        rasteret_sql.to_xarray(far)


def test_rows_of_a_collection_become_footprints(s2, scenes):
    pytest.importorskip("geopandas")
    frame = rasteret_sql.to_geopandas(s2.sql('SELECT geometry, id, "eo:cloud_cover" FROM s2'))
    items = json.loads((scenes[0] / "items.json").read_text(encoding="utf-8"))["features"]
    wanted = {item["id"]: shapely.geometry.shape(item["geometry"]) for item in items}
    assert {*frame["id"]} == wanted.keys()
    for name, own in zip(frame["id"], frame.geometry, strict=True):
        assert own.normalize().equals_exact(wanted[name].normalize(), 1e-12)
    assert frame.crs.to_string() == "OGC:CRS84"
    assert frame.columns.tolist() == ["id", "eo:cloud_cover", "geometry"]


@pytest.mark.parametrize(
    ("columns", "crs", "first"),
    [
        ("id, B04, lon, lat", "OGC:CRS84", "lon, lat"),
        ("id, B04, x, y, crs", "EPSG:32643", "x, y"),
        ("id, x, y, crs, 'POINT(77.9 13.1)' AS geom", "OGC:CRS84", "77.9, 13.1"),
    ],
)
def test_rows_with_coordinates_become_points(s2, columns, crs, first):
    pytest.importorskip("geopandas")
    rows = pixels(s2, f"{columns} ", f"{PIXELS} AND month = 1 LIMIT 5", lonlat=True)
    frame = rasteret_sql.to_geopandas(rows)
    assert (len(frame), frame.crs.to_string()) == (5, crs)
    wanted = rows.project(first).fetchall()[0]
    own = frame.geometry.iloc[0]
    assert (own.x, own.y) == tuple(map(float, wanted))


def test_rows_without_a_place_are_refused(s2):
    pytest.importorskip("geopandas")
    with pytest.raises(InputError, match="a column geometry, or lon and lat, or x and y, got 'id'"):
        rasteret_sql.to_geopandas(s2.sql("SELECT id FROM s2"))
