"""Group 4 fax whose rows have runs of no pixels, against GDAL."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from rasteret_sql.tiff.header import parse_header

sys.path.insert(0, str(Path(__file__).parent))

import made_tiffs
import matrix

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SAME, PASS, ENDS = "1", "0001", "000000000001" * 2
WHITE = {0: "00110101", 4: "1011", 8: "10011"}
BLACK = {0: "0000110111", 4: "011"}


def runs(white: int, black: int) -> str:
    """The code of two runs (ITU-T T.6, horizontal mode)."""
    return "001" + WHITE[white] + BLACK[black]


def file_of(codes: str, rows: int) -> bytes:
    """A file of 16 columns."""
    bits = codes + "0" * (-len(codes) % 8)
    strip = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return made_tiffs.one_page("little", 16, rows, 1, 1, [strip], compression=4)


@pytest.mark.parametrize(
    "row",
    [
        runs(0, 0) + runs(4, 4) + runs(8, 0),
        runs(4, 4) + runs(0, 4) + runs(4, 0),
        PASS + runs(4, 0) + runs(4, 0),
    ],
)
def test_rows_below_runs_of_no_pixels_are_what_gdal_reads(row):
    data = file_of(runs(4, 4) * 2 + row + SAME * 15 + ENDS, 4)
    assert np.array_equal(matrix.read_bands(data, parse_header(data)), matrix.by_rasterio(data))


def test_rows_that_a_strip_of_group_4_lacks_are_what_gdal_reads():
    data = file_of(runs(4, 4) * 2 + ENDS, 4)
    assert np.array_equal(matrix.read_bands(data, parse_header(data)), matrix.by_rasterio(data))
