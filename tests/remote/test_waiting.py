"""Waits end when the caller stops, and leave nothing that holds others up."""

from __future__ import annotations

import threading
import time

import pytest

from rasteret_sql.errors import InterruptedReadError, ReadError
from rasteret_sql.remote.documents import get_document
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range, get_start, stat
from rasteret_sql.remote.waiting import interruptible, listening, pause, result_of, within

ASKS = {
    "range": lambda href: get_range(href, 0, 100),
    "start": get_start,
    "stat": stat,
    "document": get_document,
}


@pytest.mark.parametrize("signed", ["", "?sig=1"])
@pytest.mark.parametrize("fault", ["hang", "stall"])
@pytest.mark.parametrize("name", ASKS)
def test_a_request_ends_when_the_caller_stops(server, name, fault, signed):
    if name == "stat" and fault == "stall":
        fault = "hang"  # a HEAD has no body that could stall
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    begun = time.monotonic()
    with listening(stop), pytest.raises(InterruptedReadError, match=r"^interrupted$"):
        ASKS[name](server.url("data", "a.tif", fault=fault) + signed)
    assert time.monotonic() - begun < 1


def test_errors_and_results_are_those_of_the_request(server):
    stop = threading.Event()
    with listening(stop):
        assert len(get_range(server.url("data", "a.tif"), 5, 7)) == 7
        with pytest.raises(ReadError, match="moved"):
            get_start(server.url("data", "none.tif"))
        with pytest.raises(TimeoutError, match="own"):
            interruptible(_raise, TimeoutError("own"))


def test_events_of_outer_work_count_too_and_only_inside():
    outer, inner = threading.Event(), threading.Event()
    with listening(outer), listening(inner):
        outer.set()
        with pytest.raises(InterruptedReadError):
            pause(5)
        with pytest.raises(InterruptedReadError):
            interruptible(abs, -1)
    pause(0)
    assert interruptible(abs, -1) == 1


def test_a_job_that_has_not_begun_never_does():
    held, done = threading.Event(), []
    pool, stop = lanes(1), threading.Event()
    pool.submit(held.wait, 5)
    second = pool.submit(done.append, 1)
    threading.Timer(0.2, stop.set).start()
    with listening(stop), pytest.raises(InterruptedReadError):
        result_of(second, pool)
    held.set()
    assert lanes(1).submit(abs, -1).result(timeout=5) == 1
    assert done == []


def test_what_has_no_limit_gets_one():
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.2, time.sleep, 5)
    assert time.monotonic() - begun < 1
    stop = threading.Event()
    stop.set()
    with listening(stop), pytest.raises(InterruptedReadError):
        within(5, time.sleep, 5)


def test_a_body_that_drips_for_ever_ends(server, monkeypatch):
    """The server gives eight parts, a tenth of a second apart: never silent for long."""
    monkeypatch.setattr("rasteret_sql.remote.exact._LONGEST_S", 0.3)
    monkeypatch.setattr("rasteret_sql.remote.exact._READ_BYTES", 1024)
    href = server.url("data", "a.tif", fault="trickle") + "?sig=1"
    with pytest.raises(ReadError, match="no answer in time"):
        get_range(href, 0, 100_000)


def test_a_long_range_comes_in_requests_that_have_a_limit(server, folder, monkeypatch):
    monkeypatch.setattr("rasteret_sql.remote.ranges._MOST_BYTES", 1000)
    data = get_range(server.url("data", "a.tif"), 10, 2500)
    assert bytes(data) == (folder / "a.tif").read_bytes()[10:2510]
    asked = sorted(request["range"] for request in server.requests())
    assert asked == ["bytes=10-1009", "bytes=1010-2009", "bytes=2010-2509"]


def _raise(error):
    raise error
