"""Files in memory in place of the network, and the promise that a run leaves nothing behind."""

from __future__ import annotations

import pytest
from reading.made import Files, Run, until

from rasteret_sql.reading import pipeline, streams


@pytest.fixture
def files(monkeypatch):
    """Files that the pipeline reads in place of real ones."""
    made = Files()
    monkeypatch.setattr(pipeline, "get_range", made.get_range)
    monkeypatch.setattr(streams, "get_range", made.get_range)
    yield made
    made.go.set()


@pytest.fixture
def run():
    """A run with a store of its own; at the end nothing of it is left."""
    one = Run()
    yield one
    assert_nothing_left(one)


def assert_nothing_left(*runs):
    for one in runs:
        store = one.store
        assert until(lambda store=store: store._in_flight == 0), store._in_flight
        assert until(lambda store=store: not store._in_work), store._in_work
    assert until(lambda: pipeline._RUNS.n_active == 0)


@pytest.fixture
def nothing_left():
    """Check that runs left nothing behind."""
    return assert_nothing_left
