"""A real Jupyter kernel and a real pytest session that end or stop in the middle of a read."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client import KernelManager
from servers.python_forks import Forks
from servers.range_server import RangeServer

import rasteret_sql
from examples import examples
from rasteret_sql.duck.names import IS_DUCKDB_2

CHECKOUT = Path(__file__).parents[2]
MOST_SECONDS = 20
"""On a busy machine; alone it takes one."""

FOLDERS = itertools.count()
"""A program that was ended may have left a request on its way."""

needs_duckdb_2 = pytest.mark.skipif(
    not IS_DUCKDB_2, reason="DuckDB 1.5 makes an error of its own of Ctrl-C in a function"
)


@pytest.fixture(scope="module")
def folder(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    items = scenes / "items.json"
    con = rasteret_sql.connect(workspace=folder / "workspace")
    con.execute("FROM rasteret_build_stac('s2', stac_api := $items)", {"items": str(items)})
    con.fetchall()
    con.close()
    return folder


@pytest.fixture(scope="module")
def silent(folder):
    """SQL of a read whose server takes requests and never answers."""
    with RangeServer(scenes=folder / "workspace") as server:
        yield (
            (
                "SELECT sum(B04) FROM rasteret_pixels('SELECT * REPLACE ({B04: {href: "
                f"''{server.origin}/hang/'' || id, band_index: 0}}}} AS assets) FROM s2', "
                "bands := ['B04'])"
            ),
            server,
        )


@pytest.fixture(scope="module", params=[1, 10_000], ids=["main thread", "any thread"])
def silent_value(request, folder, silent):
    """SQL of a scalar function whose server never answers; many rows run on any thread."""
    _, server = silent
    return (
        "SELECT sum(rasteret_value(s, 'B04', [77.987, 13.007])) FROM (SELECT * REPLACE ({B04: "
        f"{{href: '{server.origin}/hang/' || id, band_index: 0}}}} AS assets) FROM s2, "
        f"range({request.param})) AS s"
    ), server


def environment():
    return os.environ | {"PYTHONPATH": str(CHECKOUT)}


def wait_for_requests(server):
    deadline = time.monotonic() + MOST_SECONDS
    while not server.requests():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def of_its_own(query):
    """A silent read of files that no other program asked for, and what waits for its requests."""
    folder = f"/hang/{next(FOLDERS)}/"

    def wait(server):
        deadline = time.monotonic() + MOST_SECONDS
        while not any(folder in one["path"] for one in server.requests()):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return query.replace("/hang/", folder), wait


class Kernel:
    """A kernel with a connection; ``run`` gives the text and the error of a cell."""

    def __init__(self, folder):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.folder = folder
        self.shown = []
        self.connect()

    def connect(self):
        self.client.wait_for_ready(timeout=60)
        text, error = self.run(
            "import rasteret_sql\n"
            f"con = rasteret_sql.connect(workspace={str(self.folder / 'workspace')!r})\n"
            "print(con.execute('SELECT count(*) FROM s2').fetchall()[0][0])"
        )
        assert error is None
        assert int(text) > 0

    def run(self, code):
        return self.finish(self.client.execute(code))

    def finish(self, message):
        text, error = "", None
        while True:
            got = self.client.get_iopub_msg(timeout=MOST_SECONDS)
            if got["parent_header"].get("msg_id") != message:
                continue
            kind, content = got["msg_type"], got["content"]
            if kind == "stream":
                text += content["text"]
            elif kind in ("display_data", "update_display_data"):
                self.shown.append(content["data"]["text/plain"])
            elif kind == "error":
                error = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return text, error

    def end(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def shared_kernel(folder):
    """A kernel of all tests, which it outlives."""
    kernel = Kernel(folder)
    yield kernel
    kernel.end()


SHOWN = (
    "from rasteret_sql.progress import display as d\n"
    "d._state['notebook'] and d._state['notebook'].join()"
)
"""Waits until what an earlier cell has to show is over."""


@pytest.fixture
def kernel(shared_kernel):
    assert shared_kernel.run(SHOWN) == ("", None)
    shared_kernel.shown.clear()
    return shared_kernel


ASK = "print(con.execute('SELECT 42').fetchall()[0][0])"


@pytest.mark.parametrize("form", ["con.execute({query!r}).fetchall()", "con.sql({query!r})"])
def test_interrupt_of_a_kernel_stops_the_read_and_keeps_the_connection(kernel, silent, form):
    query, server = silent
    for _ in range(3):  # the second time another handler stands before ours
        server.reset()
        cell = kernel.client.execute(form.format(query=query))
        wait_for_requests(server)
        began = time.monotonic()
        kernel.manager.interrupt_kernel()
        _, error = kernel.finish(cell)
        assert error is not None
        assert time.monotonic() - began < MOST_SECONDS / 2
        assert kernel.run(ASK) == ("42\n", None)


WORK = (
    "import time\n"
    "from rasteret_sql.progress import counts\n"
    "with counts.watched('s2'):\n"
    "    for n in range(6):\n"
    "        counts.add('records listed', 0 if n else 10)\n"
    "        counts.add('records done')\n"
    "        counts.add('headers', 3)\n"
    "        time.sleep(0.5)\n"
)
SHOWN_LONG = WORK + "time.sleep(2)"


@pytest.mark.any_duckdb
def test_a_kernel_shows_how_far_long_work_is(kernel):
    assert kernel.run("con.sql('FROM s2').fetchall(); 1")[1] is None
    assert kernel.shown == []  # it was short
    assert kernel.run(SHOWN_LONG) == ("", None)
    shown = re.search(r"s2  \[(#+)-+\] (\d) of 10 records, (\d+) headers", kernel.shown[0])
    bar, records, headers = len(shown[1]), int(shown[2]), int(shown[3])
    assert (bar, headers) == (2 * records, 3 * records)
    assert " s left" in kernel.shown[0]
    assert len(kernel.shown) > 2
    assert kernel.shown[-1] == ""


@pytest.mark.any_duckdb
def test_a_kernel_shows_a_read_that_takes_long(kernel, silent):
    query, server = silent
    server.reset()
    cell = kernel.client.execute(f"con.execute({query!r}).fetchall()")
    wait_for_requests(server)
    time.sleep(2)
    kernel.manager.interrupt_kernel()
    assert kernel.finish(cell)[1] == "KeyboardInterrupt"
    assert kernel.shown[0].startswith("rasteret_pixels")


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("off", "on"),
    [
        (
            "import os; os.environ['RASTERET_PROGRESS'] = '0'",
            "del os.environ['RASTERET_PROGRESS']",
        ),
        (
            "import rasteret_sql.progress; rasteret_sql.progress.wanted(False)",
            "rasteret_sql.progress.wanted(None)",
        ),
    ],
)
def test_a_kernel_shows_nothing_where_it_is_switched_off(kernel, off, on):
    assert kernel.run(off) == ("", None)
    assert kernel.run(WORK) == ("", None)
    assert kernel.run(on) == ("", None)
    assert kernel.shown == []


@needs_duckdb_2
def test_interrupt_of_a_kernel_ends_a_scalar_function(kernel, silent_value):
    query, server = silent_value
    for _ in range(2):
        server.reset()
        cell = kernel.client.execute(f"con.execute({query!r}).fetchall()")
        wait_for_requests(server)
        kernel.manager.interrupt_kernel()
        assert kernel.finish(cell)[1] == "KeyboardInterrupt"
        assert kernel.run(ASK) == ("42\n", None)


def test_a_kernel_restarts_in_the_middle_of_a_read(kernel, silent):
    query, server = silent
    server.reset()
    kernel.client.execute(f"con.execute({query!r}).fetchall()")
    wait_for_requests(server)
    began = time.monotonic()
    kernel.manager.restart_kernel(now=False)
    assert time.monotonic() - began < MOST_SECONDS
    kernel.connect()


SESSION = """
import threading, time
import pytest, rasteret_sql
from rasteret_sql.duck.stream import n_pulling

con = rasteret_sql.connect(workspace={workspace!r}, config={{"threads": 2}})

def read(query):
    try:
        con.cursor().execute(query).fetchall()
    except Exception:
        pass

def test_fails_while_another_thread_reads():
    threading.Thread(target=read, args=({query!r},), daemon=True).start()
    while not n_pulling(lambda _owner: True):
        time.sleep(0.001)
    assert con is None

def test_fails_with_a_half_read_result():
    con.execute("SET streaming_buffer_size = '1KB'").fetchall()
    reader = con.sql("SELECT B04 FROM rasteret_pixels('s2', bands := ['B04'])").to_arrow_reader(64)
    reader.read_next_batch()
    assert reader is None

def test_passes():
    assert con.cursor().execute("SELECT 42").fetchall() == [(42,)]
"""


def test_a_pytest_session_that_fails_in_the_middle_of_a_read(folder, silent, tmp_path):
    query, _ = silent
    code = SESSION.format(workspace=str(folder / "workspace"), query=query)
    (tmp_path / "test_session.py").write_text(code)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_session.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 1 passed" in done.stdout
    assert time.monotonic() - began < 2 * MOST_SECONDS


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with Forks(environment(), tmp_path_factory.mktemp("forks")) as running:
        yield running


def errors_of_ctrl_c(forks, code, is_time):
    """What a script writes to stderr that gets SIGINT when ``is_time(its output)`` returns."""
    exit_code, errors = forks.interrupted(code, is_time, MOST_SECONDS)
    assert exit_code in (1, -signal.SIGINT), errors
    return errors


@needs_duckdb_2
@pytest.mark.parametrize(
    "form", ["con.execute({query!r}).fetchall()", "rasteret_sql.sql(con, {query!r})"]
)
def test_ctrl_c_of_a_script_ends_a_scalar_function(folder, forks, silent_value, form):
    query, server = silent_value
    for _ in range(examples(1, 2)):
        own, wait = of_its_own(query)
        code = (
            "import rasteret_sql\n"
            f"con = rasteret_sql.connect(workspace={str(folder / 'workspace')!r})\n"
            "try:\n"
            f"    {form.format(query=own)}\n"
            "finally:\n"
            "    print(con.execute('SELECT 42').fetchall())\n"
        )
        errors = errors_of_ctrl_c(forks, code, lambda _, wait=wait: wait(server))
        assert "KeyboardInterrupt" in errors
        assert "executing the UDF" not in errors


def test_ctrl_c_of_a_script_stops_a_silent_read(folder, forks, silent):
    """Each time: DuckDB 2.0 may wait without looking for signals."""
    query, server = silent
    for _ in range(examples(2, 5)):
        own, wait = of_its_own(query)
        code = (
            "import rasteret_sql\n"
            f"con = rasteret_sql.connect(workspace={str(folder / 'workspace')!r})\n"
            f"con.execute({own!r}).fetchall()"
        )
        errors = errors_of_ctrl_c(forks, code, lambda _, wait=wait: wait(server))
        assert errors.splitlines()[1].startswith('  File "<string>", line 3')
        assert errors.splitlines()[-1] == "KeyboardInterrupt"


SLOW = """\
import time
import rasteret_sql
from rasteret_sql.duck import runtime, scans, udfs
con = rasteret_sql.connect(workspace={workspace!r})
def slow(where, name):
    own = getattr(where, name)
    def paused(*arguments, **named):
        print('now', flush=True)
        time.sleep(1)
        return own(*arguments, **named)
    setattr(where, name, paused)
slow({where}, {name!r})
con.execute({query!r}).fetchall()
"""
"""A script that pauses in what DuckDB calls, before there is work that can be stopped."""


@pytest.mark.parametrize(
    "place",
    [("udfs.Udf", "load"), ("runtime.Runtime", "_bind_one"), ("scans.Scans", "started")],
)
def test_ctrl_c_before_a_read_has_begun_is_not_lost(folder, forks, silent, place):
    check_early_ctrl_c(folder, forks, *silent, place)


@needs_duckdb_2
@pytest.mark.parametrize("place", [("udfs.Udf", "load"), ("scans.Scans", "started")])
def test_ctrl_c_before_a_function_has_begun_is_not_lost(folder, forks, silent_value, place):
    check_early_ctrl_c(folder, forks, *silent_value, place)


def check_early_ctrl_c(folder, forks, query, server, place):
    where, name = place
    code = SLOW.format(workspace=str(folder / "workspace"), where=where, name=name, query=query)
    server.reset()
    errors = errors_of_ctrl_c(forks, code, wait_for_output)
    assert "interrupted" in errors or "KeyboardInterrupt" in errors


def wait_for_output(path):
    deadline = time.monotonic() + MOST_SECONDS
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
