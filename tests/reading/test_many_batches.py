"""Records that come in many batches, and columns larger than offsets of 32 bits reach."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from reading.read_oracle import call_of, rows_of

from rasteret_sql.reading import columns
from rasteret_sql.reading.columns import one_batch
from rasteret_sql.reading.outputs import mosaics

SIDE = 8
BOX = [77.985, 13.005, 77.9852, 13.0052]
N_COPIES = 700  # of three records: a few more than the 2,048 of a batch
MANY = (
    "SELECT s.* REPLACE (s.id || '/' || range AS id, s.datetime + to_minutes(range) AS datetime), "
    "repeat(s.id, 3) AS note FROM s2 AS s, range({}) ORDER BY ALL"
)


@pytest.fixture
def n_tables(monkeypatch):
    """How many tables each read put together."""
    found, whole = [], mosaics.one_batch

    def counted(batches):
        found.append(len(batches))
        return whole(batches)

    monkeypatch.setattr(mosaics, "one_batch", counted)
    return found


@pytest.mark.any_duckdb
@pytest.mark.parametrize("most_bytes", [None, 100])
def test_a_stack_is_of_all_batches(s2, n_tables, monkeypatch, most_bytes):
    options = {"bands": ["B04"], "size": SIDE, "bbox": BOX, "stack": "time", "record_columns": None}
    few = rows_of(s2, f"FROM {call_of('rasteret_chips', 's2', **options)}")
    assert n_tables == []
    if most_bytes is not None:
        monkeypatch.setattr(columns, "_MOST_BYTES", most_bytes)
    many = rows_of(s2, f"FROM {call_of('rasteret_chips', MANY.format(N_COPIES), **options)}")
    assert n_tables
    assert min(n_tables) > 1
    assert len(many) == len(few)
    for one, row in zip(few, many, strict=True):
        names = [name.partition("/")[0] for name in row["record_ids"]]
        assert Counter(names) == dict.fromkeys(one["record_ids"], N_COPIES)
        assert len(set(row["record_ids"])) == len(names)
        of_name = dict(zip(one["record_ids"], np.frombuffer(one["B04"], "V128"), strict=True))
        layers = np.frombuffer(row["B04"], "V128")
        assert all(of_name[name] == layer for name, layer in zip(names, layers, strict=True))


@pytest.mark.any_duckdb
@pytest.mark.parametrize("most_bytes", [None, 100])
def test_a_composite_is_of_all_batches(s2, n_tables, monkeypatch, most_bytes):
    options = {"bands": ["B04"], "method": "count", "bbox": BOX}
    (few,) = rows_of(s2, f"FROM {call_of('rasteret_composite', 's2', **options)}")
    if most_bytes is not None:
        monkeypatch.setattr(columns, "_MOST_BYTES", most_bytes)
    (many,) = rows_of(s2, f"FROM {call_of('rasteret_composite', MANY.format(N_COPIES), **options)}")
    assert min(n_tables) > 1
    few_counts, counts = (np.frombuffer(row["B04"], "<i4") for row in (few, many))
    assert few_counts.any()
    np.testing.assert_array_equal(counts, few_counts * N_COPIES)


@pytest.mark.any_duckdb
def test_a_column_of_which_32_bits_cannot_tell_the_places_is_whole():
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 8 << 30:
        pytest.skip("takes 3 GiB of memory")
    size = 768 << 20
    offsets = pa.py_buffer(np.array([0, size], np.int32))
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, offsets, pa.py_buffer(np.zeros(size, "u1"))]
    )
    batches = [pa.record_batch({"id": [str(n)], "note": text}) for n in range(3)]
    whole = one_batch(batches)
    assert whole.num_rows == 3
    assert whole.column("id").to_pylist() == ["0", "1", "2"]
    assert whole.schema.field("id").type == pa.string()
    assert whole.column("note").type == pa.large_string()
    assert np.diff(np.frombuffer(whole.column("note").buffers()[1], np.int64)[:4]).tolist() == (
        [size] * 3
    )


@pytest.mark.any_duckdb
def test_nested_columns_get_long_offsets_with_the_same_values(monkeypatch):
    rows = [
        {"a": ["x", None], "b": {"c": b"1", "d": [{"e": "y"}]}, "n": n} if n % 3 else {"n": n}
        for n in range(20)
    ]
    schema = pa.schema(
        [
            ("a", pa.list_(pa.string())),
            (
                "b",
                pa.struct([("c", pa.binary()), ("d", pa.list_(pa.struct([("e", pa.string())])))]),
            ),
            ("n", pa.int64()),
        ]
    )
    batches = pa.Table.from_pylist(rows, schema).to_batches(max_chunksize=7)
    monkeypatch.setattr(columns, "_MOST_BYTES", 0)
    whole = one_batch(batches)
    assert whole.to_pylist() == pa.Table.from_batches(batches).to_pylist()
    assert whole.schema.field("a").type == pa.large_list(pa.large_string())
    assert whole.schema.field("n").type == pa.int64()
