"""What reads did: counters of the last ones, and the tile cache."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Stream
from rasteret_sql.duck.checks import at_least, flag
from rasteret_sql.duck.declarations import Parameter, table_function
from rasteret_sql.reading.tile_store import STORE

CACHE_SCHEMA = pa.schema(
    [
        ("capacity_bytes", pa.int64()),
        ("used_bytes", pa.int64()),
        ("tiles", pa.int64()),
        ("hits", pa.int64()),
        ("misses", pa.int64()),
        ("evictions", pa.int64()),
    ]
)
READS_SCHEMA = pa.schema(
    [
        ("function", pa.string()),
        ("connection", pa.string()),
        ("started", pa.timestamp("us")),
        ("seconds", pa.float64()),
        ("requests", pa.int64()),
        ("fetched_bytes", pa.int64()),
        ("tiles_decoded", pa.int64()),
        ("cache_hits", pa.int64()),
        ("tiles_failed", pa.int64()),
    ]
)


@table_function(
    "rasteret_cache_stats",
    "The cache of decoded tiles, which all connections of the process share.",
    file="30_pixels.sql",
    parameters=(
        Parameter("clear", "BOOLEAN", "let go of all tiles, after counting", "false", flag),
    ),
    returns="one row: capacity_bytes, used_bytes, tiles (in it), hits, misses, evictions (since "
    "the process began). Only tiles of files of a known version (ETag or size) are kept; reads "
    "under way take from the same memory",
    raises="",
    example="SELECT used_bytes, hits FROM rasteret_cache_stats()",
)
def cache_stats(_call: Call, *, clear: bool) -> Stream:
    """Size and counters of the cache."""

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        stats = STORE.stats()
        if clear:
            STORE.clear()
        yield pa.RecordBatch.from_pylist([stats._asdict()], schema=CACHE_SCHEMA)

    return Stream(CACHE_SCHEMA, run)


@table_function(
    "rasteret_read_stats",
    "What the last reads of this database instance did, the newest first.",
    file="30_pixels.sql",
    parameters=(Parameter("last", "INTEGER", "how many reads, at most", "100", at_least(1)),),
    returns="function, connection (its number), started TIMESTAMP (UTC), seconds, requests, "
    "fetched_bytes, tiles_decoded, cache_hits (tiles that were in memory, or that another read "
    "was decoding), tiles_failed (not fetched or not decoded: on_error := 'null' or 'report')",
    raises="",
    example="SELECT function, requests, fetched_bytes FROM rasteret_read_stats() LIMIT 1",
)
def read_stats(call: Call, *, last: int) -> Stream:
    """Counters of reads that have ended."""

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        rows = [entry._asdict() for entry in reversed(call.runtime.finished_reads()[-last:])]
        yield pa.RecordBatch.from_pylist(rows, schema=READS_SCHEMA)

    return Stream(READS_SCHEMA, run)
