"""Lengths of blocks that can't be meant are taken as GDAL takes them."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from rasteret_sql.errors import RasteretError
from rasteret_sql.tiff.header import parse_header

sys.path.insert(0, str(Path(__file__).parent))

import made_tiffs
import matrix

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PIXELS = bytes(range(1, 41))


def with_counts(counts: list[int], *, compression: int = 1) -> bytes:
    """Strips of 8 columns that hold 1 to 40; their byte counts are replaced in the file."""
    per_strip = 40 // len(counts)
    parts = [PIXELS[at : at + per_strip] for at in range(0, 40, per_strip)]
    blocks = parts if compression == 1 else [zlib.compress(part) for part in parts]
    data = bytearray(
        made_tiffs.one_page(
            *("little", 8, 5, 8, 1, blocks),
            compression=compression,
            rows_per_strip=5 // len(counts),
        )
    )
    entry = data.rfind(struct.pack("<HHI", 279, 4, len(counts)))
    at = entry + 8 if len(counts) == 1 else struct.unpack_from("<I", data, entry + 8)[0]
    struct.pack_into(f"<{len(counts)}I", data, at, *counts)
    return bytes(data)


COUNTS = ([0], [1], [39], [41], [8, 0, 8, 8, 8], [0] * 5)


@pytest.mark.parametrize(
    ("counts", "compression"),
    [([10**6], 1), *((counts, compression) for counts in COUNTS for compression in (1, 8))],
)
def test_pixels_are_those_of_gdal_or_both_refuse(counts, compression):
    data = with_counts(counts, compression=compression)
    expected = matrix.by_rasterio(data)
    try:
        got = matrix.read_bands(data, parse_header(data))
    except RasteretError:
        got = None
    if expected is None:
        assert got is None
    else:
        np.testing.assert_array_equal(got, expected)


def test_a_missing_count_of_several_is_a_sparse_block():
    header = parse_header(with_counts([8, 0, 8, 8, 8]))
    assert header.image.tile_byte_counts.tolist() == [8, 0, 8, 8, 8]
