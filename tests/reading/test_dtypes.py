"""Files of several sample types in one band: values stay exact, or the read says why not."""

from __future__ import annotations

import itertools

import duckdb
import numpy as np
import pytest
import rasterio
from reading.rasters import write
from reading.read_oracle import build_files

from rasteret_sql.errors import InputError
from rasteret_sql.reading.columns import common_type, sql_type, to_arrow

REAL = [
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64"),
]
COMPLEX = ["complex_int16", "complex_int32", "complex64", "complex128"]
LIMITS = {
    (0, 255, "uint8", "int16"): "SMALLINT",
    (-128, 255, "int8", "uint8"): "SMALLINT",
    (0, 2**32 - 1, "int32", "uint32"): "BIGINT",
    (-5, 0.1, "int8", "float32"): "FLOAT",
    (2**31 - 1, 0.5, "int32", "float32"): "DOUBLE",
}


def extremes(dtype):
    """Values of a type that another type is most likely to lose."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
    return np.array([limits.min, limits.max, limits.max - 1, 0, 1], kind)


@pytest.mark.parametrize("pair", list(itertools.combinations(REAL, 2)), ids="+".join)
def test_two_real_types_meet_in_one_that_holds_both_exactly(pair):
    has_64_bits = any(dtype.endswith("int64") for dtype in pair)
    is_lossy = has_64_bits and np.result_type(*pair).kind == "f"
    if is_lossy:
        with pytest.raises(
            InputError, match=f"types of its files: .*got '{', '.join(sorted(pair))}'"
        ):
            common_type(sorted(pair))
        return
    kind = common_type(pair)
    for dtype in pair:
        values = extremes(dtype)
        assert [int(v) if v == int(v) else v for v in to_arrow(values, kind, None).to_pylist()] == [
            int(v) if v == int(v) else v for v in values.tolist()
        ]


@pytest.mark.parametrize("dtype", COMPLEX)
def test_complex_numbers_beside_real_ones_are_pairs_of_double(dtype):
    both = common_type([dtype, "int32"])
    assert str(both) == "struct<re: double, im: double>"
    assert common_type([dtype]) == sql_type(dtype)
    with pytest.raises(InputError, match="types of its files"):
        common_type([dtype, "int64"])


@pytest.mark.parametrize(
    ("call", "dtype", "band"),
    [
        ("rasteret_read($path)", "dtypes[1]", "b1"),
        ("rasteret_chips($path, size := 16)", "dtypes[1]", "b1"),
        ("rasteret_read_tiles($path)", "dtype", "pixels"),
    ],
)
def test_complex_integers_are_told_in_the_type_that_the_blob_has(con, tmp_path, call, dtype, band):
    path = tmp_path / "slc.tif"
    values = (np.arange(256) + 1j * np.arange(256)[::-1]).reshape(1, 16, 16)
    options = {"driver": "GTiff", "count": 1, "height": 16, "width": 16, "dtype": "complex_int16"}
    options |= {"crs": 32643, "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    with rasterio.open(path, "w", **options) as file:
        file.write(values.astype("complex64"))
    query = f"SELECT {dtype}, {band} FROM {call}"
    ((name, blob),) = con.execute(query, {"path": str(path)}).fetchall()
    assert name == "complex64"
    assert np.array_equal(np.frombuffer(blob, name).reshape(1, 16, 16), values)


@pytest.mark.parametrize(("values", "kind"), list(LIMITS.items()), ids=str)
def test_pixels_of_files_of_two_types_are_exact(con, build, values, kind):
    low, high, *dtypes = values
    build(a=np.full((16, 16), low, dtypes[0]), b=np.full((16, 16), high, dtypes[1]))
    found = con.execute("SELECT DISTINCT id, b, typeof(b) FROM rasteret_pixels('made') ORDER BY 1")
    expected = [np.array(v, d).item() for v, d in zip((low, high), dtypes, strict=True)]
    assert found.fetchall() == [("a", expected[0], kind), ("b", expected[1], kind)]


def test_files_that_no_column_holds_are_an_error_that_says_what_to_do(con, build):
    build(a=np.full((16, 16), -1, np.int64), b=np.full((16, 16), 2**64 - 1, np.uint64))
    message = r"rasteret_pixels: band b: types of its files: .*got 'int64, uint64'; read them apart"
    with pytest.raises(duckdb.Error, match=message):
        con.execute("EXPLAIN FROM rasteret_pixels('made')")
    for dtype, value in (("int64", -1), ("uint64", 2**64 - 1)):
        apart = f"SELECT * FROM made WHERE b_metadata.dtype = '{dtype}'"
        found = con.execute("SELECT DISTINCT b FROM rasteret_pixels($c)", {"c": apart})
        assert found.fetchall() == [(value,)]
    found = con.execute("SELECT DISTINCT b FROM rasteret_pixels('made', scaled := true) ORDER BY 1")
    assert found.fetchall() == [(-1.0,), (2.0**64,)]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "call",
    [
        "rasteret_composite('both', method := 'max')",
        "rasteret_chips('both', size := 16, stack := 'time')",
    ],
)
def test_one_grid_of_files_that_no_array_holds_exactly_is_an_error(con, tmp_path, call):
    files = {
        name: write(tmp_path / f"{name}.tif", np.full((1, 32, 32), value, name))
        for name, value in (("int64", -(2**60) - 1), ("uint64", 2**63 + 1))
    }
    build_files(con, "both", files)
    with pytest.raises(duckdb.Error, match="band band: types of its files: expected some that one"):
        con.execute(f"FROM {call}").fetchall()
