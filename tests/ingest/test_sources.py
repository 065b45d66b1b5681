"""The table of sources in docs/ingest.md is what happens: nothing got worse unseen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import sources

pytestmark = pytest.mark.any_duckdb

PAGE = Path(__file__).parents[2] / "docs" / "ingest.md"


@pytest.mark.skipif(not sources.STAC.is_dir(), reason="the shared data is not here")
def test_the_table_of_sources_is_up_to_date():
    changed = sources.changes(PAGE, list(sources.results()))
    assert changed == [], "run: python tests/ingest/sources.py --write docs/ingest.md"


def test_a_change_for_the_worse_is_named(tmp_path):
    page = tmp_path / "page.md"
    before = [sources.Result("a.json", "ingested", 3, 2), sources.Result("b.json", "no items")]
    page.write_text(sources.table(before))
    now = [
        sources.Result("a.json", "ingested", 2, 2),
        sources.Result("b.json", "ingested", 1, 1),
        sources.Result("c.json", "refused", why="no JSON"),
    ]
    assert sources.changes(page, now) == [
        "a.json: WORSE: ('ingested', 3, 2) is ('ingested', 2, 2)",
        "b.json: better: ('no items', 0, 0) is ('ingested', 1, 1)",
        "c.json: is new",
    ]
