"""`rasteret_values`: NumPy is the oracle."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import rasterio
from affine import Affine

import rasteret_sql


@pytest.fixture(scope="module")
def con(tmp_path_factory):
    con = rasteret_sql.connect(workspace=tmp_path_factory.mktemp("workspace"))
    yield con
    con.close()


def values(con, data, dtype):
    return con.execute("SELECT rasteret_values($1::BLOB, $2)", [data, dtype]).fetchall()[0][0]


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("kind", ["uint", "int", "float"])
def test_values_are_those_of_numpy(con, kind):
    rng = np.random.default_rng(3)
    for size in (8, 16, 32, 64) if kind != "float" else (16, 32, 64):
        dtype = f"{kind}{size}"
        data = rng.integers(0, 256, 8 * 300, "u1").tobytes()
        edges = bytes(
            [0, 0, 0, 0, 0, 0, 0, 0x80, *[255] * 8, *[0] * 8, 1, *[0] * 7, *[255] * 6, 0xEF, 127]
        )
        expected = np.frombuffer(data + edges, f"<{dtype[0]}{size // 8}").astype(np.float64)
        np.testing.assert_array_equal(values(con, data + edges, dtype), expected)


def test_special_numbers(con):
    for number in (np.inf, -np.inf, np.nan, 5e-324, -2.5e-310, 1.7e308, -0.0):
        np.testing.assert_array_equal(
            values(con, np.float64(number).tobytes(), "float64"), [number]
        )
    assert values(con, b"\x01\x00", "bool") == [1, 0]
    assert values(con, b"", "int16") == []
    assert values(con, None, "int16") is None
    assert values(con, b"ab", None) is None


def test_values_of_a_read(con, tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(1).normal(size=(1, 20, 30)).astype("float32")
    with rasterio.open(
        path, "w", driver="GTiff", width=30, height=20, count=1, dtype="float32", crs="EPSG:32643",
        transform=Affine(10, 0, 600_000, 0, -10, 1_440_000),
    ) as file:  # fmt: skip
        file.write(pixels)
    (got,) = con.execute(
        f"SELECT rasteret_values(b1, dtypes[1]) FROM rasteret_read('{path}')"
    ).fetchall()[0]
    np.testing.assert_array_equal(got, pixels.ravel().astype(np.float64))


def test_what_is_no_array_is_told(con):
    with pytest.raises(
        duckdb.Error, match="rasteret_values: pixels: expected a multiple of 2 bytes"
    ):
        values(con, b"abc", "int16")
    with pytest.raises(duckdb.Error, match=r"dtype: expected bool, .* got complex64"):
        values(con, b"abcd", "complex64")
