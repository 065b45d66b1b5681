"""Predictors and odd bit depths against plain definitions."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rasteret_sql.tiff.bits import float24_to_float32, reverse_bits, unpack_rows
from rasteret_sql.tiff.predictors import undo_floating_point, undo_horizontal

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4))


@given(st.sampled_from(["u1", "u2", "u4", "u8"]), st.data())
def test_horizontal_differences_are_summed_with_wrap_around(dtype, data):
    pixels = data.draw(arrays.arrays(dtype, SHAPES))
    stored = np.diff(pixels, axis=1, prepend=np.zeros_like(pixels[:, :1]))
    assert np.array_equal(undo_horizontal(stored), pixels)
    assert undo_horizontal(stored, into=stored) is stored
    assert np.array_equal(stored, pixels)


@given(st.sampled_from(["<f2", "<f4", "<f8"]), st.data())
def test_floating_point_differences_undo_what_the_technical_note_says(dtype, data):
    pixels = data.draw(arrays.arrays(dtype, SHAPES))
    rows, columns, samples = pixels.shape
    size = pixels.dtype.itemsize
    planes = pixels.reshape(rows, -1).view(np.uint8).reshape(rows, -1, size)[..., ::-1]
    row_bytes = planes.swapaxes(1, 2).reshape(rows, columns * size, samples)
    stored = np.diff(row_bytes, axis=1, prepend=np.zeros_like(row_bytes[:, :1]))
    result = undo_floating_point(stored.reshape(rows, -1), samples, size)
    assert result.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("bits", sorted({*range(1, 32)} - {8, 16}))
def test_bits_are_taken_apart_highest_first_and_rows_start_on_bytes(bits):
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 1 << bits, (3, 7))
    text = ["".join(f"{value:0{bits}b}" for value in row) for row in values]
    packed = b"".join(
        int(line.ljust(-(-len(line) // 8) * 8, "0"), 2).to_bytes(-(-len(line) // 8), "big")
        for line in text
    )
    dtype = np.dtype("u1" if bits < 8 else "u2" if bits < 16 else "u4")
    rows = np.frombuffer(packed, np.uint8).reshape(3, -1)
    unpacked = unpack_rows(rows, bits, 7, dtype)
    assert unpacked.dtype == dtype
    assert np.array_equal(unpacked, values)


def test_every_float_of_24_bits_widens_as_in_imagecodecs():
    codes = np.arange(0, 1 << 24, 257, dtype="<u4")
    stored = codes.view(np.uint8).reshape(-1, 4)[:, :3]
    theirs = imagecodecs.float24_decode(stored.tobytes(), byteorder="<")
    ours = float24_to_float32(stored.reshape(1, -1), big_endian=False)
    assert np.array_equal(ours.ravel(), theirs, equal_nan=True)
    turned = np.ascontiguousarray(stored[:, ::-1]).reshape(1, -1)
    assert np.array_equal(float24_to_float32(turned, big_endian=True), ours, equal_nan=True)


@given(st.binary(max_size=40))
def test_reversing_bits_twice_gives_the_bytes_back(data):
    assert reverse_bits(reverse_bits(data)) == data
    assert reverse_bits(memoryview(data)) == imagecodecs.bitorder_decode(data)
