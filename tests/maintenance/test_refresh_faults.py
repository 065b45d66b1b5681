"""Servers that fail, and readers, while a refresh is at work: nothing is lost or half there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest

from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.ingest.stac import api as stac_api

API = Path(__file__).parents[1] / "ingest" / "stac_api_server.py"


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("fault", "n_read"),
    [
        ("429/2", 2),
        ("503/2", 2),
        ("short_once", 2),
        ("reset_once", 2),
        ("nohead", 2),
        ("truncated", 1),
        ("html", 1),
        ("404", 1),
    ],
)
def test_a_server_with_faults_costs_no_record(built, refresh, rows, fault, n_read):
    item = built.add(4)
    item["assets"]["B08"]["href"] = built.href(item["id"], "B08", fault=fault)
    built.write()
    built.server.reset()
    report = refresh()
    assert (report["records"], report["assets"], report["enriched"]) == (5, 2, n_read)
    assert report["failed"] == 2 - n_read
    assert len(rows("FROM rasteret_errors('s2')")) == 2 - n_read
    assert rows("SELECT count(B04_metadata), count(B08_metadata) FROM s2") == [(5, 3 + n_read)]
    built.server.reset()
    again = refresh()
    assert (again["enriched"], again["failed"]) == (0, 2 - n_read)
    assert rows("SELECT count(*) FROM rasteret_validate('s2')") == [(2 - n_read,)]


@pytest.mark.any_duckdb
def test_a_strict_refresh_changes_nothing_where_a_file_cannot_be_read(built, refresh, rows):
    old = rows("SELECT * EXCLUDE (year, month) FROM s2 ORDER BY id")
    item = built.add(4)
    item["assets"]["B08"]["href"] = built.href(item["id"], "B08", fault="404")
    built.write()
    with pytest.raises(duckdb.Error, match=r"rasteret_refresh: record \S+, band B08: .*404"):
        refresh(", on_error := 'error'")
    assert rows("SELECT * EXCLUDE (year, month) FROM s2 ORDER BY id") == old


def test_an_interrupt_changes_nothing(con, built, refresh, rows, tmp_path):
    item = built.add(4)
    item["assets"]["B08"]["href"] = built.href(item["id"], "B08", fault="hang")
    built.write()
    timer = threading.Timer(0.7, con.interrupt)
    timer.start()
    with pytest.raises(duckdb.Error, match=r"(?i)interrupted"):
        refresh()
    timer.join()
    assert rows("SELECT count(*) FROM s2") == [(4,)]
    assert not list((tmp_path / "workspace").rglob("_refresh"))
    item["assets"]["B08"]["href"] = built.href(item["id"], "B08")
    built.write()
    built.asked()
    assert refresh()["records"] == 5
    # the header that had come was kept
    assert [path for method, path in built.asked() if method == "GET"] == [f"{item['id']}/B08.tif"]
    assert rows("SELECT count(B04_metadata), count(B08_metadata) FROM s2") == [(5, 5)]


@pytest.mark.any_duckdb
def test_a_second_refresh_is_told_who_is_at_work(built, rows, refresh, tmp_path):
    with (
        Workspace(tmp_path / "workspace").build("s2", "stac"),
        pytest.raises(duckdb.Error, match=r"s2: expected no other build of s2, got 'one running"),
    ):
        refresh()
    assert refresh()["records"] == 4


@pytest.fixture
def serve_api(tmp_path):
    """Serve items by a STAC API; returns its address."""
    with ExitStack() as stack:

        def serve(features):
            path = tmp_path / f"api{len(features)}.json"
            path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
            process = stack.enter_context(
                subprocess.Popen([sys.executable, API, path], stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            return f"http://127.0.0.1:{int(process.stdout.readline())}"

        yield serve


@pytest.mark.any_duckdb
def test_an_api_is_searched_again_and_one_that_fails_changes_nothing(
    upstream, rows, refresh, serve_api, version, monkeypatch
):
    monkeypatch.setattr(stac_api, "_N_RETRIES", 2)
    first = serve_api(upstream.items[:3])
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": f"{first}/post/"})
    assert refresh()["assets"] == 0
    upstream.items[0]["properties"]["eo:cloud_cover"] = 99.5
    second = serve_api(upstream.items)
    before = version()
    for mode in ("500", "401", "404", "html", "loop"):
        with pytest.raises(duckdb.Error, match=r"rasteret_refresh: "):
            refresh(", stac_api := $p", parameters={"p": f"{second}/{mode}/"})
        assert version() == before
    report = refresh(", stac_api := $p", parameters={"p": f"{second}/429/"})
    assert (report["records"], report["assets"], report["enriched"]) == (4, 2, 2)
    assert rows('SELECT count(*) FROM s2 WHERE "eo:cloud_cover" = 99.5') == [(1,)]
    after = version()
    for mode in ("429", "503", "merge", "get", "empty"):
        report = refresh(", stac_api := $p", parameters={"p": f"{second}/{mode}/"})
        assert (report["records"], report["assets"]) == (4, 0)
    assert after != before


READER = textwrap.dedent(
    """
    import os, sys, time, duckdb

    root = sys.argv[1]
    con = duckdb.connect()
    con.execute(f"CREATE VIEW s2 AS SELECT * FROM read_parquet("
                f"'{root}/s2_stac/**/*.parquet', hive_partitioning = true, "
                "hive_types = {'year': BIGINT, 'month': BIGINT})")
    print("ready", flush=True)
    whole, lost, other = set(), 0, []
    while not os.path.exists(f"{root}/stop"):
        time.sleep(0.005)
        try:
            query = "SELECT month, generation, count(*) FROM s2 GROUP BY ALL ORDER BY ALL"
            rows = con.execute(query).fetchall()
        except duckdb.IOException as error:
            gone = "No such file" in str(error) or "No files found" in str(error)
            lost += gone
            other += [] if gone else [str(error)]
        else:
            whole.add(tuple(rows))
    print([sorted(whole), lost, other])
    """
)


@pytest.mark.any_duckdb
def test_readers_see_one_version_or_the_other(upstream, rows, refresh, tmp_path):
    """Refreshes that add, and that change, in all partitions; a query sees one, whole."""
    everything = upstream.all

    def add(number):
        for of_month in (0, 2, 4):
            item = upstream.add(of_month, f"more{number}-{of_month}", ("B04",))
            item["properties"]["generation"] = upstream.items[0]["properties"]["generation"]
        upstream.write()

    upstream.items.clear()
    for of_month in (0, 2, 4):
        upstream.add(of_month, bands=("B04",), generation=0)
    assert len(everything) == 6
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(upstream.path)})
    state = "SELECT month, generation, count(*) FROM s2 GROUP BY ALL ORDER BY ALL"
    allowed = {tuple(rows(state))}
    root = tmp_path / "workspace"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with ExitStack() as stack:
        readers = []
        for _ in range(2):
            popen = subprocess.Popen(
                [sys.executable, "-c", READER, str(root)],
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            readers.append(stack.enter_context(popen))
            stack.callback(popen.kill)
            assert popen.stdout.readline() == "ready\n"
        for number in range(1, 7):
            if number % 3 == 0:
                for item in upstream.items:
                    item["properties"]["generation"] = number
                upstream.write()
            else:
                add(number)
            refresh(", check_remote := false")
            allowed.add(tuple(rows(state)))
        (root / "stop").touch()
        results = [ast.literal_eval(popen.communicate()[0]) for popen in readers]
    assert len(allowed) == 7
    for whole, _, other in results:
        assert other == []
        assert set(whole) <= allowed
        assert len(whole) > 2
