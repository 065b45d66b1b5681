"""The table of docs/reads.md: every read has a row, its rules hold, and a broken rule is seen."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from reading import agreement
from reading.agreements.cases import DATA, Row

PAGE = Path(__file__).parents[2] / "docs" / "reads.md"

pytestmark = [
    pytest.mark.any_duckdb,
    pytest.mark.skipif(
        not (DATA / "truth.json").is_file(), reason="the shared test data are not here"
    ),
]


def rows_of_page():
    """Function to the numbers of its rows: calls, values."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if (name := re.match(r"\| \[(rasteret_\w+)\]\((\w+\.md)\) ", line)) is not None:
            assert (PAGE.parent / name[2]).is_file()
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            numbers = [int(cell.replace(",", "")) for cell in cells[3:5]]
            found.setdefault(name[1], []).append(numbers)
    return found


def test_few_cases_keep_every_rule_and_reach_every_function():
    rows = agreement.collect(cases=1, seed=3)
    assert agreement.failures(rows) == []
    assert {row.function for row in rows} == set(agreement.read_functions())


def test_the_page_has_a_row_for_every_function_that_reads():
    found = rows_of_page()
    assert set(found) == set(agreement.read_functions()) == set(agreement.PAGES)
    for name, numbers in found.items():
        assert all(calls > 0 and values > 0 for calls, values in numbers), name
    text = PAGE.read_text(encoding="utf-8")
    assert agreement.BEGIN in text
    assert agreement.END in text


def test_a_difference_is_counted_and_breaks_the_rule():
    row = Row("rasteret_read", "made", "NumPy")
    want = np.arange(6, dtype="uint16")
    row.compare("same", want, want)
    assert (row.values, row.unequal, row.largest, row.broken) == (6, 0, 0, [])
    row.compare("one more", want + np.array([0, 0, 3, 0, 0, 0], "uint16"), want)
    assert (row.values, row.unequal, row.largest) == (12, 1, 3)
    row.compare("a hole", want, want, want != 2, want >= 0)
    row.compare("larger", want[:3], want)
    assert row.unlike == 1 + 6
    assert len(row.broken) == 3
    table = agreement.render([row], 1, 1)
    assert "| 18 | 7 | 1 | 3 | equal (**broken**) |" in table
    assert len(agreement.failures([row])) == 3
    assert agreement.failures([Row("rasteret_read", "none", "NumPy")]) != []


@pytest.mark.parametrize(
    ("got", "want", "largest"),
    [
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], 0),
        ([np.nan], [1.0], np.inf),
        ([2**63 + 1], [2**63], 1),
    ],
)
def test_values_that_doubles_do_not_hold_are_told_apart(got, want, largest):
    row = Row("rasteret_read", "made", "NumPy")
    kind = "uint64" if isinstance(got[0], int) else "float64"
    row.compare("odd", np.array(got, kind), np.array(want, kind))
    assert row.largest == largest
    assert bool(row.broken) == bool(largest)
