"""What the engine has to tell: rasteret_warnings."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Stream
from rasteret_sql.duck.checks import at_least
from rasteret_sql.duck.declarations import Parameter, table_function

_SCHEMA = pa.schema(
    [
        ("function", pa.string()),
        ("connection", pa.string()),
        ("message", pa.string()),
        ("time", pa.timestamp("us")),
    ]
)


@table_function(
    "rasteret_warnings",
    "The last warnings of this database instance, the oldest first.",
    file="30_pixels.sql",
    parameters=(Parameter("newest", "BIGINT", "so many of the last ones", "100", at_least(1)),),
    returns="function, connection (current_connection_id() of the caller), message, time (UTC)",
    example="SELECT function, message FROM rasteret_warnings()",
    notes=(
        "A read that matches no record returns no row, which is no error. What was expected is",
        "told here, as a Python warning (rasteret_sql.errors.RasteretWarning), and on stderr of",
        "the command line.",
    ),
)
def list_warnings(call: Call, *, newest: int) -> Stream:
    """The warnings; where clients of a server ask, those of their own connection."""
    runtime = call.runtime

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        rows = [
            {
                "function": one.function,
                "connection": one.connection,
                "message": one.message,
                "time": one.time.replace(tzinfo=None),
            }
            for one in list(runtime.warned)
            if runtime.shares_warnings or one.connection == call.caller.connection
        ]
        yield pa.RecordBatch.from_pylist(rows[-newest:], schema=_SCHEMA)

    return Stream(_SCHEMA, run)
