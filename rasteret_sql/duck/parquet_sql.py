"""Parquet files as DuckDB reads them: what stands behind FROM."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_sql.collections.folders import is_parquet_name
from rasteret_sql.collections.footers import part_files
from rasteret_sql.collections.partitions import hive_types_of
from rasteret_sql.duck.names import quote_text
from rasteret_sql.schema import PARTITION_KEYS


def parquet_sql(path: str) -> str:
    """A table function call that reads local Parquet: a file, or a folder with hive partitions."""
    if is_parquet_name(path):
        return f"read_parquet({quote_text(path)})"
    types = _hive_types(Path(path.split("*", 1)[0]))
    listed = ", ".join(f"{quote_text(key)}: {kind}" for key, kind in types.items())
    hive = f", hive_partitioning = true, hive_types = {{{listed}}}" if types else ""
    return f"read_parquet({quote_text(path.rstrip('/') + '/**/*.parquet')}{hive})"


def _hive_types(folder: Path) -> dict[str, str]:
    """DuckDB types of a folder's partition keys, as its writer declared them."""
    first = next(part_files(folder), None)
    if first is None:
        return {}
    keys = [part.split("=", 1)[0] for part in first.relative_to(folder).parts[:-1] if "=" in part]
    try:
        declared = hive_types_of(pq.read_metadata(first)) if keys else {}
    except (OSError, pa.ArrowInvalid):
        declared = {}  # DuckDB says what is wrong with the file
    ours = dict.fromkeys(PARTITION_KEYS, "BIGINT")
    types = {key: declared.get(key) or ours.get(key) for key in keys}
    return {key: kind for key, kind in types.items() if kind}


def remote_view_sql(path: str) -> str:
    """What a view over remote Parquet reads; DuckDB alone would need httpfs."""
    at = path if is_parquet_name(path) else path.rstrip("/") + "/"
    return f"rasteret.main.rasteret_records({quote_text(at)})"
