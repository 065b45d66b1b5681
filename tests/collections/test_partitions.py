"""Records that wait in their partitions take the memory that they may, and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from rasteret_sql.collections.partitions import Partitions
from rasteret_sql.schema import PARTITION_KEYS


@pytest.mark.any_duckdb
def test_records_of_many_months_in_turn_leave_few_batches(
    make_records: Callable[..., pa.Table], tmp_path: Path
) -> None:
    records = make_records(2000)
    partitions = Partitions(records.schema, PARTITION_KEYS, tmp_path, 256 << 20)
    for batch in records.to_batches(10):
        partitions.append(batch)
    tables = {path: list(partitions.tables(path)) for path, _ in partitions}
    assert sum(table.num_rows for found in tables.values() for table in found) == 2000
    assert len(tables) == 25  # two years, and records without a datetime
    assert all(len(table.to_batches()) == 1 for (table,) in tables.values())


@pytest.mark.any_duckdb
def test_memory_counts_what_short_batches_take_besides_their_values(tmp_path: Path) -> None:
    n_rows = 500
    columns = {f"c{n}": pa.array([n] * n_rows, pa.int16()) for n in range(200)}
    records = pa.table({"id": [f"r{n}" for n in range(n_rows)], **columns})
    limit = 4 << 20
    assert records.nbytes < limit
    partitions = Partitions(records.schema, ["id"], tmp_path, limit)
    for batch in records.to_batches(100):
        partitions.append(batch)
    paths = [path for path, _ in partitions]
    assert len(paths) == n_rows
    assert any(tmp_path.iterdir())
    assert all(pa.concat_tables(partitions.tables(path)).num_rows == 1 for path in paths)
