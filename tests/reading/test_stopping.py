"""A read that hangs or is slow stops within a second, and the connection stays usable."""

from __future__ import annotations

import threading
import time

import duckdb
import pytest

HANGING = (
    "SELECT * REPLACE ({B04: {href: replace(assets.B04.href, ''/scenes/'', ''/hang/scenes/''), "
    "band_index: 0}} AS assets) FROM s2"
)


@pytest.fixture
def hanging(s2):
    return f"SELECT sum(B04) FROM rasteret_pixels('{HANGING}', bands := ['B04'])"


def test_interrupt_ends_a_read_that_waits_for_a_dead_server(s2, hanging):
    timer = threading.Timer(0.5, s2.interrupt)
    timer.start()
    began = time.monotonic()
    with pytest.raises(duckdb.Error, match=r"(?i)interrupt"):
        s2.execute(hanging).fetchall()
    assert time.monotonic() - began < 1.5
    timer.join()
    assert s2.execute("SELECT count(B04) > 0 FROM rasteret_pixels('s2')").fetchall() == [(True,)]


def test_interrupting_one_cursor_leaves_the_other_running(s2, server):
    answers = []
    server.set(latency_ms=150)
    try:

        def work():
            with s2.cursor() as cursor:
                query = "SELECT count(B04) FROM rasteret_pixels('s2', max_concurrent := 2)"
                answers.append(cursor.execute(query).fetchall())

        thread = threading.Thread(target=work)
        thread.start()
        with s2.cursor() as other:
            threading.Timer(0.2, other.interrupt).start()
            with pytest.raises(duckdb.Error):
                other.execute(
                    "SELECT count(B08) FROM rasteret_pixels('s2', max_concurrent := 1)"
                ).fetchall()
        thread.join(20)
    finally:
        server.set(latency_ms=0)
    expected = s2.execute("SELECT count(B04) FROM rasteret_pixels('s2')").fetchall()
    assert answers == [expected]


def test_cursors_in_threads_read_at_once(s2):
    query = "SELECT id, sum(B04), sum(B08) FROM rasteret_pixels('s2') GROUP BY id ORDER BY id"
    expected = s2.execute(query).fetchall()
    answers = []

    def work():
        with s2.cursor() as cursor:
            answers.append(cursor.execute(query).fetchall())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [expected] * 4
