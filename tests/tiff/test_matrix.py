"""The table of formats must not get worse, and damaged blocks must not surprise."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from rasteret_sql.errors import RasteretError
from rasteret_sql.tiff.header import parse_header

sys.path.insert(0, str(Path(__file__).parent))

import fuzz
import matrix

from examples import examples

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
needs_data = pytest.mark.skipif(
    not (matrix.DATA / "truth.json").is_file(), reason="the shared test data are not here"
)


@pytest.fixture(scope="module")
def results():
    return matrix.collect()


@needs_data
def test_no_cell_of_the_table_is_worse_than_the_page_says(results):
    assert matrix.worse(PAGE.read_text(), matrix.render(*results)) == []


@needs_data
def test_of_the_files_gdal_reads_all_but_two_percent_are_read_and_none_differ(results):
    real, made, overviews = results
    assert len(real) > 400
    assert len(overviews) > 100
    refused = [result for result in real if result.outcome == "refused"]
    assert len(refused) <= 0.02 * len(real)
    different = {result.name for result in real + made + overviews if result.outcome == "different"}
    assert different == set()


def test_a_lost_file_and_a_new_difference_are_seen():
    head = "## By sample type\n| codec, predictor | uint8 |\n| --- | --- |\n"
    before = head + "| LZW 1 | = 3 ~ 1 x 1 |\n"
    assert matrix.worse(before, before) == []
    assert matrix.worse(before, head + "| LZW 1 | = 5 |\n") == []
    assert matrix.worse(before, head + "| LZW 1 | = 2 ~ 2 x 1 |\n")
    assert matrix.worse(before, head + "| LZW 1 | = 3 ~ 1 x 1 ! 1 |\n")
    assert matrix.worse(before, head)


@needs_data
def test_damaged_blocks_of_files_give_arrays_or_errors_of_this_package():
    files = []
    for _, data in fuzz.seeds():
        with contextlib.suppress(RasteretError):
            files.append((data, parse_header(data)))
    assert len(files) > 400
    outcomes = Counter()
    for number in range(examples(1000, 3000)):
        rng = random.Random(number)
        data, header = rng.choice(files)
        outcomes[fuzz.attempt(fuzz.damage(data, rng), header)] += 1
    assert set(outcomes) == {"array", "DecodeError", "UnsupportedTiffError"}
