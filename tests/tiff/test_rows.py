"""Rows of a block that come in order are those of the block decoded at once."""

from __future__ import annotations

import lzma
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_sql.errors import DecodeError
from rasteret_sql.tiff.codecs import decode_block
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.rows import RowAccess, RowStream, row_access, row_bytes

ROWS, COLUMNS = 60, 31
FORMAT = BlockFormat(
    compression=8,
    predictor=1,
    photometric=1,
    dtype="uint16",
    byte_order="little",
    bits_per_sample=16,
    samples=1,
    tile_height=ROWS,
    tile_width=COLUMNS,
)
FORMATS = (
    FORMAT,
    replace(FORMAT, predictor=2, samples=3, byte_order="big"),
    replace(FORMAT, predictor=3, dtype="float32", bits_per_sample=32),
    replace(FORMAT, dtype="uint8", bits_per_sample=3),
    replace(FORMAT, dtype="uint8", bits_per_sample=8, samples=4, photometric=5),
    replace(FORMAT, dtype="uint8", bits_per_sample=8, fill_order=2),
    replace(FORMAT, compression=34925, predictor=2),
)


def block_of(fmt: BlockFormat) -> bytes:
    raw = np.random.default_rng(0).integers(0, 256, ROWS * row_bytes(fmt), dtype=np.uint8)
    packed = zlib.compress(raw) if fmt.compression == 8 else lzma.compress(raw)
    if fmt.fill_order == 1:
        return packed
    return np.packbits(np.unpackbits(np.frombuffer(packed, np.uint8)), bitorder="little").tobytes()


def stream_of(fmt: BlockFormat, data: bytes, size: int, n_rows: int | None = None) -> RowStream:
    parts = iter([data[at : at + size] for at in range(0, len(data), size)])
    return RowStream(fmt, lambda: next(parts, b""), n_rows)


@given(st.sampled_from(FORMATS), st.integers(1, 999), st.sets(st.integers(1, ROWS)), st.data())
def test_any_cut_into_parts_gives_the_rows_of_the_whole(fmt, size, cuts, data):
    assert row_access(fmt) is RowAccess.IN_ORDER
    block = block_of(fmt)
    whole = decode_block(block, fmt)
    stream = stream_of(fmt, block, size)
    for stop in sorted(cuts):
        first = data.draw(st.integers(stream.position, stop - 1))
        np.testing.assert_array_equal(stream.rows(first, stop), whole[first:stop])
        assert stream.position == stop


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("kept", [0, 1, 3, 100])
def test_a_block_that_ends_early_says_so(fmt, kept):
    with pytest.raises(DecodeError):
        stream_of(fmt, block_of(fmt)[:kept], 64).rows(ROWS - 1, ROWS)


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_end_is_verified_with_the_last_row_and_not_before(fmt):
    block = block_of(fmt)
    cut, rows = block[:-4], decode_block(block, fmt)
    stream = stream_of(fmt, cut, 64)
    np.testing.assert_array_equal(stream.rows(0, 5), rows[:5])
    with pytest.raises(DecodeError, match="truncated"):
        stream.rows(5, ROWS)
    # a last strip of fewer rows, in a block as long as the others
    strip = stream_of(fmt, cut, 64, n_rows=7)
    with pytest.raises(DecodeError, match="truncated"):
        strip.rows(0, 7)
    np.testing.assert_array_equal(stream_of(fmt, block, 64, n_rows=7).rows(0, 7), rows[:7])


def test_bytes_that_are_no_stream_say_so():
    for fmt in FORMATS:
        with pytest.raises(DecodeError):
            stream_of(fmt, b"neither deflate nor xz, but long enough to be seen", 10).rows(0, 1)


def test_a_block_of_kilobytes_that_inflates_without_end_costs_the_rows_asked_for():
    bomb = zlib.compress(bytes(64 << 20), 9)
    wide = replace(FORMAT, tile_width=1 << 20, tile_height=1 << 30)
    rows = stream_of(wide, bomb, 4096).rows(5, 6)
    assert rows.shape == (1, 1 << 20, 1)


def test_which_blocks_give_rows_alone():
    plain = replace(FORMAT, compression=1)
    ycbcr = replace(plain, dtype="uint8", bits_per_sample=8, samples=3, photometric=6)
    expected = {
        RowAccess.ANY: [plain, replace(plain, bits_per_sample=12)],
        RowAccess.IN_ORDER: [FORMAT, replace(FORMAT, compression=34925)],
        RowAccess.WHOLE: [ycbcr, replace(ycbcr, compression=8), replace(FORMAT, compression=5)],
    }
    for access, formats in expected.items():
        assert {row_access(fmt) for fmt in formats} == {access}
