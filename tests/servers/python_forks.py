"""Scripts that each run in a fork of this process, which has imported what a first call imports.

Reads a JSON object per line, with ``code`` and ``output`` (a path, to which ``.out`` and ``.err``
are added); answers with the process id, and with the exit code at its end. Tests use `Forks`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self


class Forks:
    """A process from which scripts are forked."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        from processes import heeding_ctrl_c

        self._process = subprocess.Popen(
            heeding_ctrl_c(__file__),
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._folder = folder
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=20)

    def interrupted(
        self, code: str, is_time: Callable[[Path], object], seconds: float
    ) -> tuple[int, str]:
        """Run a script; SIGINT when ``is_time(path of its output)`` returns.

        Returns:
            Its exit code, and what it wrote to stderr.
        """
        self._count += 1
        output = self._folder / f"fork{self._count}"
        self._process.stdin.write(json.dumps({"code": code, "output": str(output)}) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        try:
            is_time(output.with_suffix(".out"))
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + seconds
            while not output.with_suffix(".end").exists():
                assert time.monotonic() < deadline, "it did not end"
                time.sleep(0.01)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            exit_code = int(self._process.stdout.readline())
        return exit_code, output.with_suffix(".err").read_text()


def become_script(code: str, output: str) -> None:
    """Run a script in place of this process, as ``python -c`` does."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT), number)
    sys.excepthook = without_our_frames
    script = compile(code, "<string>", "exec")
    exec(script, {"__name__": "__main__"})


def without_our_frames(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error as ``python -c`` does."""
    while trace and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)


def main() -> None:
    """Answer one request after the other."""
    import duckdb

    import rasteret_sql  # noqa: F401
    from rasteret_sql.duck import ctrl_c, functions  # noqa: F401

    duckdb.default_connection().close()  # in 1.5 it has threads, which a fork loses
    for line in sys.stdin:
        call = json.loads(line)
        if (child := os.fork()) == 0:
            become_script(**call)
            return
        print(child, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        Path(call["output"]).with_suffix(".end").touch()
        print(code, flush=True)


if __name__ == "__main__":
    main()
