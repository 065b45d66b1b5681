# ruff: noqa: T201 (what it prints is its result)
"""What DuckDB does when a Python source is closed or left while it is read.

Needs duckdb and pyarrow only: ``python closing.py CASE``. Each case runs in a process of its
own with a time limit, five times, and the outcomes are printed.
"""

import collections
import subprocess
import sys
import threading
import time
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

SCHEMA = pa.schema([("v", pa.int64())])
BATCH = pa.record_batch([pa.array(range(2048))], schema=SCHEMA)
SECONDS = 10


class Source(ds.Dataset):
    """A dataset whose reader is a Python generator; it takes about two seconds."""

    def __new__(cls) -> Self:
        """Skip Dataset's own constructor, which refuses subclasses."""
        return super().__new__(cls)

    def __init__(self) -> None:
        pass

    @property
    def schema(self) -> pa.Schema:
        """All columns."""
        return SCHEMA

    def scanner(self, **_options: object) -> "Source":
        """Begin one scan."""
        return self

    projected_schema = SCHEMA

    def to_reader(self) -> pa.RecordBatchReader:
        """Rows, ten thousand of them every 5 milliseconds."""

        def batches():  # noqa: ANN202
            for _ in range(400):
                time.sleep(0.005)
                yield BATCH

        return pa.RecordBatchReader.from_batches(SCHEMA, batches())


def run(case: str) -> None:
    """One case; its thread reads while the main thread does what the case says."""
    con = duckdb.connect(config={"threads": 2})
    con.register("source", Source())
    if case == "drop_reader":
        con.execute("SET streaming_buffer_size = '1KB'").fetchall()
        reader = con.sql("FROM source").to_arrow_reader(2048)
        for _ in range(4):
            reader.read_next_batch()
        began = time.monotonic()
        del reader
        print(f"dropped after {time.monotonic() - began:.1f} s")
        return

    def read() -> None:
        try:
            print(con.execute("SELECT sum(v) FROM source").fetchall())
        except duckdb.Error as error:
            print(type(error).__name__)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    time.sleep(0.5)
    if case == "close":
        began = time.monotonic()
        try:
            con.close()
        except duckdb.Error as error:
            print("close:", type(error).__name__)
        print(f"closed after {time.monotonic() - began:.1f} s")
        thread.join()
    elif case == "interrupt_and_exit":
        con.interrupt()  # and the interpreter ends while the thread unwinds


def main() -> None:
    """Run a case five times."""
    case = sys.argv[1]
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(5):
        command = [sys.executable, __file__, case, "now"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)  # noqa: S603
        except subprocess.TimeoutExpired:
            outcomes[f"still there after {SECONDS} s"] += 1
            continue
        said = " | ".join(done.stdout.split("\n")).strip(" |")
        failure = " ".join(line for line in done.stderr.splitlines()[:2] if line)
        outcomes[f"exit code {done.returncode}: {said} {failure[:150]}"] += 1
    print(duckdb.__version__, case)
    for outcome, n in outcomes.most_common():
        print(f"  {n} of 5: {outcome}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(sys.argv[1])
    else:
        main()
