"""Rows of a collection and of its source: which is which, and how often they are read."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasteret_sql.collections.spool import Spool
from rasteret_sql.errors import InterruptedReadError
from rasteret_sql.ingest.asset_hints import COLUMN, HINT
from rasteret_sql.maintenance.comparison import ComparisonKey, compare
from rasteret_sql.maintenance.merging import source_rows
from rasteret_sql.maintenance.stored import Stored

pytestmark = pytest.mark.any_duckdb

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int64())])


@pytest.fixture
def compared(tmp_path):
    """Compare stored rows (id, n) with those of a source, in batches of some size."""

    def run(stored, source, n_rows, stop=None):
        folder, scratch = tmp_path / "collection", tmp_path / "scratch"
        folder.mkdir(exist_ok=True)
        scratch.mkdir(exist_ok=True)
        pq.write_table(table(stored), folder / "part-0.parquet")
        batches = [hinted(batch) for batch in table(source).to_batches(n_rows)]
        whole = Stored(folder)
        key = ComparisonKey(SCHEMA, ("id", "n"), is_bbox_filled=False)
        return whole, compare(whole, batches, key, scratch, stop or threading.Event())

    return run


def table(rows):
    names, values = zip(*rows, strict=True) if rows else ((), ())
    return pa.table([pa.array(names, pa.string()), pa.array(values, pa.int64())], schema=SCHEMA)


def hinted(batch):
    """The batch with a hint that tells which row it is of."""
    scale = batch.column("n").cast(pa.float64())
    others = [pa.nulls(batch.num_rows, field.type) for field in HINT]
    hint = pa.StructArray.from_arrays([*others[:1], scale, *others[2:]], fields=list(HINT))
    return batch.append_column(COLUMN, pa.StructArray.from_arrays([hint], ["B04"]))


def scales(comparison, numbers):
    hints = comparison.hints_of(numbers, ["B04"]).field("B04").to_pylist()
    return [hint and hint["scale"] for hint in hints]


def after(whole, comparison, n_rows):
    """Stored rows as they shall be, then the new ones; the hint of each must be its own."""
    rows = []
    for start, batch in whole.batches(["id", "n"], n_rows=n_rows):
        places, wanted = source_rows(batch, start, comparison)
        found = [tuple(row.values()) for row in wanted.to_pylist()]
        given = comparison.given_as[start + places]
        for (_, n), scale in zip(found, scales(comparison, given), strict=True):
            assert scale in (None, n)
        rows += found
    for start, batch in comparison.fresh.numbered():
        new = comparison.is_new[start : start + batch.num_rows]
        hints = scales(comparison, comparison.fresh_as[start : start + batch.num_rows][new])
        found = [tuple(row.values()) for row in batch.filter(pa.array(new)).to_pylist()]
        assert hints == [n for _, n in found]
        rows += found
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_an_id_is_stored_as_its_source_has_it(compared, seed):
    dice = random.Random(seed)

    def some():
        return [(f"i{dice.randrange(8)}", dice.randrange(4)) for _ in range(dice.randrange(30))]

    stored, source = some() or [("i0", 0)], some()
    whole, comparison = compared(stored, source, 7)
    gone = [row for row in stored if row[0] not in dict(source)]
    assert Counter(after(whole, comparison, 5)) == Counter([*gone, *set(source)]) | Counter(
        # of rows stored alike, as many stay as the source has
        {row: min(Counter(stored)[row], Counter(source)[row]) for row in source}
    )
    kept = {row for row, stays in zip(stored, comparison.kept, strict=True) if stays}
    assert kept == {row for row in stored if row in source or row in gone}
    fresh = [tuple(row.values()) for batch in comparison.fresh for row in batch.to_pylist()]
    new = [
        source.index(row) for row, is_new in zip(fresh, comparison.is_new, strict=True) if is_new
    ]
    assert new == sorted(new)


def test_rows_that_changed_in_another_order_are_read_a_few_times(compared, monkeypatch):
    n = 5000
    stored = [(f"i{number}", number) for number in range(n)]
    source = [(name, -number) for name, number in stored]
    random.Random(1).shuffle(source)
    n_read = 0
    batch_at = Spool._batch_at

    def counted(*arguments):
        nonlocal n_read
        n_read += 1
        return batch_at(*arguments)

    monkeypatch.setattr(Spool, "_batch_at", counted)
    whole, comparison = compared(stored, source, 100)
    assert after(whole, comparison, 50) == [(name, -number) for name, number in stored]
    # 50 batches to be put in order, and 100 that are then taken from; of rows and of hints
    assert n_read < 400


MOMENTS = {
    "date": ("'infinity'::DATE", "'-infinity'::DATE"),
    "time": ("TIME '24:00:00'", "TIME '00:00:00'"),
    "timestamp": ("'infinity'::TIMESTAMP", "'-infinity'::TIMESTAMP"),
    "struct": ("{'at': 'infinity'::TIMESTAMP}", "{'at': NULL::TIMESTAMP}"),
    "list": ("['infinity'::DATE]", "['infinity'::DATE, NULL]"),
    "map": ("MAP {'at': TIMESTAMPTZ '290000-01-01'}", "MAP {'at': 'infinity'::TIMESTAMPTZ}"),
    "nanoseconds": (
        "[{'at': TIMESTAMP_NS '2024-01-01 00:00:00.000000001'}]",
        "[{'at': TIMESTAMP_NS '2024-01-01 00:00:00.000000002'}]",
    ),
}


@pytest.mark.parametrize("kind", MOMENTS)
def test_moments_beyond_those_of_python_are_compared(rows, version, kind):
    def source(values):
        rows(
            "CREATE OR REPLACE TABLE mine AS SELECT 'a' AS id, TIMESTAMP '2024-01-01' AS datetime, "
            f"'a.tif' AS url, {values} AS v"
        )

    before, after = MOMENTS[kind]
    source(before)
    rows("FROM rasteret_build_table('t', 'mine', href_column := 'url', enrich := false)")
    built = version("t", "records")
    rows("FROM rasteret_refresh('t')")
    assert version("t", "records") == built
    source(after)
    rows("FROM rasteret_refresh('t')")
    assert version("t", "records") != built
    assert rows("SELECT v::VARCHAR FROM t") == rows("SELECT v::VARCHAR FROM mine")


@pytest.mark.parametrize("value", ["'a'::{}", "['a'::{}, NULL]", "{{'x': ['a'::{}]}}"])
def test_values_of_an_enumeration_stay_as_they_are(rows, version, value):
    value = value.format("ENUM('a', 'b')")
    rows(
        "CREATE TABLE mine AS SELECT 'a' AS id, TIMESTAMP '2024-01-01' AS datetime, "
        f"'a.tif' AS url, {value} AS v"
    )
    rows("FROM rasteret_build_table('t', 'mine', href_column := 'url', enrich := false)")
    built, stored = version("t", "records"), rows("SELECT v FROM t")
    rows("FROM rasteret_refresh('t')")
    assert version("t", "records") == built
    rows("INSERT INTO mine SELECT * REPLACE ('b' AS id) FROM mine")
    rows("FROM rasteret_refresh('t')")
    assert version("t", "records") != built
    assert rows("SELECT v FROM t") == stored * 2


def test_a_comparison_stops(compared):
    stop = threading.Event()
    stop.set()
    with pytest.raises(InterruptedReadError):
        compared([("a", 1)], [("a", 2)], 1, stop)
