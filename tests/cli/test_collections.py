"""Build, import, list, info, export, delete: what they do, print and return."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time

import duckdb
import pytest

import rasteret_sql
from rasteret_sql.progress import counts, display, wanted


def listed(command, workspace):
    done = command("collections", "list", "--workspace-dir", workspace, "--json")
    assert done.exit_code == 0, done.output
    return {row["name"]: row for row in json.loads(done.stdout)}


def parquet(workspace, name, kind="stac"):
    """The collection as a stock DuckDB reads it."""
    with duckdb.connect() as con:
        path = f"{workspace}/{name}_{kind}/**/*.parquet"
        return con.sql(f"FROM read_parquet('{path}')").to_arrow_table()


def test_build_reports_as_json_and_leaves_parquet(command, items, tmp_path):
    done = command(
        "collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path, "--json"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["records"], report["assets"], report["enriched"]) == (6, 18, 18)
    assert report["path"] == str(tmp_path / "s2_stac")
    assert parquet(tmp_path, "s2").num_rows == 6


@pytest.mark.any_duckdb
def test_build_passes_every_option_on(command, items, tmp_path):
    done = command(
        *("collections", "build", "part", "--stac-api", items, "--workspace-dir", tmp_path),
        *("--collection", "sentinel-2-l2a", "--bbox", "78.03,13.0,78.05,13.01"),
        *("--date-range", "2024-02-01/..", "--band-map", "red=B04, nir=B08", "--bands", "nir"),
        *("--band-index-map", "nir=0", "--max-concurrent", 2, "--json"),
    )
    assert done.exit_code == 0, done.output
    table = parquet(tmp_path, "part")
    assert json.loads(done.stdout)["bands"] == ["nir"]
    assert sorted(table["id"].to_pylist()) == ["S2A_44PKV_20240209_L2A", "S2A_44PKV_20240310_L2A"]
    assert table["assets"][0].as_py()["nir"]["href"].endswith("B08.tif")


@pytest.mark.any_duckdb
def test_build_passes_what_only_some_sources_need(command, items, tmp_path):
    build = ("collections", "build", "part", "--stac-api", items, "--workspace-dir", tmp_path)
    done = command(
        *(*build, "--ids", "S2A_44PKV_20240209_L2A,S2A_44PKV_20240310_L2A", "--no-enrich"),
        *("--intersects", "POLYGON((78.03 13, 78.05 13, 78.05 13.01, 78.03 13))"),
        *("--url-rewrite", f"{items.parent}=s3://bucket", "--data-source", "mine"),
        *("--max-items", 1, "--json"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["enriched"] == 0
    (row,) = parquet(tmp_path, "part").to_pylist()
    assert row["assets"]["B08"]["href"].startswith("s3://bucket/")
    assert "B08_metadata" not in row
    assert listed(command, tmp_path)["part"]["data_source"] == "mine"


@pytest.mark.any_duckdb
def test_strict_ends_a_build_at_a_file_that_can_not_be_read(command, items, tmp_path):
    build = ("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path)
    done = command(*build, "--url-rewrite", f"{items.parent}=/nowhere", "--strict")
    assert done.exit_code == 1
    assert "/nowhere/" in done.stderr
    assert listed(command, tmp_path) == {}


@pytest.mark.any_duckdb
def test_build_over_http_reads_headers_by_range(command, items, server, tmp_path):
    url = server.url("scenes", "items.json")
    done = command(
        "collections", "build", "web", "--stac-api", url, "--workspace-dir", tmp_path, "--json"
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["enriched"] == 18


@pytest.mark.any_duckdb
def test_a_build_that_stands_is_kept_and_force_replaces_it(command, items, tmp_path):
    build = ("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path)
    assert command(*build).exit_code == 0
    again = command(*build, "--json")
    assert json.loads(again.stdout)["requests"] == 0
    other = command(*build, "--bands", "B04")
    assert other.exit_code == 1
    assert other.stderr.startswith("error: rasteret_build_stac: name: expected a new name")
    assert re.search(r', got "\w+, built from --enrich, --stac-api ', other.stderr)
    forced = command(*build, "--bands", "B04", "--force", "--json")
    assert json.loads(forced.stdout)["bands"] == ["B04"]


@pytest.mark.any_duckdb
def test_the_text_of_a_build_names_counts_and_folder(command, items, tmp_path):
    done = command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path)
    first, second = done.stdout.splitlines()
    assert first.startswith("s2: 6 records, B04, B08, SCL, 18 of 18 headers, ")
    assert second == str(tmp_path / "s2_stac")
    again = command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path)
    told = "it was there already, built with these options; --force builds it anew"
    assert again.stdout.splitlines()[1:] == [second, told]
    forced = ("--stac-api", items, "--force", "--workspace-dir", tmp_path)
    assert told not in command("collections", "build", "s2", *forced).stdout


def test_import_takes_a_table_with_other_names(command, built, tmp_path):
    table = tmp_path / "scenes.parquet"
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT id AS scene, datetime AS taken, geometry, assets.B04.href AS url, "
            f"\"eo:cloud_cover\" AS cloud, 'x' AS junk "
            f"FROM read_parquet('{built}/s2_stac/**/*.parquet')) TO '{table}'"
        )
    done = command(
        *("collections", "import", "mine", "--record-table", table, "--workspace-dir", tmp_path),
        *("--column-map", "scene=id,taken=datetime", "--href-column", "url", "--enrich"),
        *("--columns", "scene,taken,geometry,url,cloud", "--where", "cloud < 20"),
        *("--data-source", "drone", "--json"),
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["kind"], report["records"], report["enriched"]) == ("records", 4, 4)
    kept = parquet(tmp_path, "mine", "records")
    assert "cloud" in kept.column_names
    assert "junk" not in kept.column_names
    assert listed(command, tmp_path)["mine"]["data_source"] == "drone"


@pytest.mark.any_duckdb
def test_list_and_info_print_text_and_json(command, built):
    text = command("collections", "list", "--workspace-dir", built).stdout
    assert text.splitlines()[1].split()[:3] == ["s2", "stac", "6"]
    row = listed(command, built)["s2"]
    assert row["start_datetime"] == "2024-01-10T05:22:11Z"
    info = json.loads(
        command("collections", "info", "s2", "--workspace-dir", built, "--json").stdout
    )
    assert info["epsg"] == [32643, 32644]
    assert info["null_metadata"] == {"B04": 0, "B08": 0, "SCL": 0}
    text = command("collections", "info", "s2", "--workspace-dir", built).stdout
    assert "epsg            32643, 32644\n" in text


@pytest.mark.any_duckdb
def test_an_empty_workspace_lists_nothing(command, tmp_path):
    done = command("collections", "list", "--workspace-dir", tmp_path / "none", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    done = command("collections", "list", "--workspace-dir", tmp_path / "none")
    assert (done.exit_code, done.stdout, done.stderr) == (
        0,
        "",
        f"no collections in {tmp_path / 'none'}\n",
    )


def test_export_writes_what_a_stock_duckdb_reads(command, built, tmp_path):
    chosen = 'SELECT * FROM s2 WHERE "eo:cloud_cover" < 20'
    target = tmp_path / "out"
    export = ("collections", "export", chosen, target, "--workspace-dir", built)
    done = command(*export, "--partition-by", "year")
    assert (done.exit_code, done.stdout) == (0, f"4 records in 1 files\n{target}\n")
    assert [path.name for path in target.iterdir() if path.is_dir()] == ["year=2024"]
    with duckdb.connect() as con:
        assert con.sql(f"SELECT count(*) FROM '{target}/**/*.parquet'").fetchall() == [(4,)]
    assert command(*export).exit_code == 1
    assert command(*export, "--force").exit_code == 0


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        ("y\n", 0, "s2: 6 records deleted"),
        ("n\n", 1, "error: not deleted"),
        ("", 1, "error: stdin: expected an answer, got its end; pass --yes"),
    ],
)
def test_delete_asks(command, items, tmp_path, answer, code, text):
    command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path)
    done = command("collections", "delete", "s2", "--workspace-dir", tmp_path, input=answer)
    assert done.exit_code == code
    assert f"Delete s2, 6 records, {tmp_path / 's2_stac'}?" in done.stderr
    assert text in done.output
    assert ("s2" in listed(command, tmp_path)) == (code != 0)


@pytest.mark.any_duckdb
def test_delete_with_yes_does_not_ask(command, items, tmp_path):
    command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path)
    done = command("collections", "delete", "s2", "--yes", "--workspace-dir", tmp_path)
    assert (done.exit_code, done.output) == (0, "s2: 6 records deleted\n")
    done = command("collections", "delete", "s2", "--yes", "--workspace-dir", tmp_path)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: rasteret_drop: name: expected a collection of")


@pytest.mark.any_duckdb
def test_the_workspace_of_the_environment_is_the_default(command, built):
    done = command("collections", "list", "--json", env={"RASTERET_WORKSPACE": str(built)})
    assert [row["name"] for row in json.loads(done.stdout)] == ["s2"]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "option",
    [
        ("--bbox", "1,2,3"),
        ("--bbox", "a,b,c,d"),
        ("--date-range", "2024/2025/2026"),
        ("--date-range", "/"),
        ("--bands", "B04,,B08"),
        ("--band-map", "red"),
        ("--band-map", "{"),
        ("--band-index-map", "red=x"),
        ("--max-concurrent", "0"),
    ],
)
def test_a_malformed_option_is_a_usage_error(command, items, tmp_path, option):
    done = command(
        *("collections", "build", "x", "--stac-api", items, "--workspace-dir", tmp_path), *option
    )
    assert done.exit_code == 2
    assert f"Invalid value for '{option[0]}'" in done.stderr


@pytest.mark.any_duckdb
def test_pairs_may_be_json(command, items, tmp_path):
    done = command(
        *("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path),
        *("--band-map", '{"a=b,c": "B04"}', "--json"),
    )
    assert json.loads(done.stdout)["bands"] == ["a=b,c"]


class Screen:
    """A stderr that says it is a terminal, or not."""

    def __init__(self, *, terminal):
        self.terminal = terminal
        self.text = ""

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.any_duckdb
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_on_a_terminal_only_and_clears_its_line(monkeypatch, terminal):
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(display, "_PERIOD_S", 0.001)
    with display.shown("building s2"):
        while terminal and screen.text.count("building s2") < 3:
            time.sleep(0.001)
    assert ("building s2 0 s" in screen.text) == terminal
    assert screen.text.endswith("\r\x1b[K" if terminal else "")


@pytest.mark.any_duckdb
def test_a_build_shows_how_far_it_is(items, tmp_path, server):
    """In a terminal of its own; the server takes half a second for each header."""
    document = json.loads(items.read_text())
    for item in document["features"]:
        for band, asset in item["assets"].items():
            asset["href"] = server.url("scenes", f"{item['id']}/{band}.tif", fault="slow")
    path = tmp_path / "slow.json"
    path.write_text(json.dumps(document))
    ours, theirs = pty.openpty()
    command = [
        sys.executable, "-c", "from rasteret_sql.cli import main; main()",
        "collections", "build", "s2", "--stac-api", str(path), "--workspace-dir",
        str(tmp_path / "w"), "--max-concurrent", "4",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"building s2: 6 records listed" in shown
    assert shown.endswith(b"\x1b[K")


@pytest.mark.any_duckdb
@pytest.mark.parametrize("way", ["option", "environment"])
def test_progress_is_off_where_nobody_wants_it(monkeypatch, way, command, built):
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(display, "_PERIOD_S", 0.001)
    try:
        if way == "option":
            command("--no-progress", "collections", "info", "s2", "--workspace-dir", built)
        else:
            monkeypatch.setenv("RASTERET_PROGRESS", "0")
        with display.shown("building s2"):
            time.sleep(0.05)
    finally:
        wanted(None)
    assert screen.text == ""
    monkeypatch.setenv("RASTERET_PROGRESS", "0")
    wanted(True)
    try:
        with display.shown("building s2"):
            wait_until(lambda: "building s2" in screen.text)
    finally:
        wanted(None)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.any_duckdb
def test_a_build_counts_what_failed_and_tells_rates_and_the_time_left(monkeypatch):
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(display, "_PERIOD_S", 0.01)
    with display.shown("building s2"), counts.watched("s2"):
        for what, n in (
            ("records listed", 8),
            ("records done", 2),
            ("headers", 5),
            ("unreadable", 1),
        ):
            counts.add(what, n)
        wait_until(lambda: " left" in screen.text)
    last = screen.text.rstrip("\r\x1b[K").rsplit("\r", 1)[-1]
    found = re.search(
        r"building s2: \[#####-+\] 2 of 8 records, 5 headers, [\d,]+/s, 1 unreadable, \d+ s left",
        last,
    )
    assert found, last


def test_a_read_counts_rows_requests_and_bytes(items, tmp_path, server, command):
    """The server takes half a second for each answer."""
    workspace = tmp_path / "w"
    command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", workspace)
    query = (
        "FROM rasteret_read('SELECT * REPLACE ({B04: {href: "
        f"''{server.origin}/slow/scenes/'' || id || ''/B04.tif'', band_index: 0}}}} AS assets) "
        "FROM s2', bands := ['B04'])"
    )
    seen = []
    with rasteret_sql.connect(workspace=workspace) as con:
        thread = threading.Thread(target=lambda: con.execute(query).fetchall())
        thread.start()
        while thread.is_alive():
            seen += [(work.name, display.line(work)) for work in counts.running()]
            time.sleep(0.02)
    assert {name for name, _ in seen} == {"rasteret_read"}
    assert re.search(r"\d+ requests, [\d.]+ [kM]?B, [\d.]+ [kM]?B/s", seen[-1][1]), seen[-1]
    assert counts.running() == []


def test_a_half_read_result_is_not_shown_as_running(command, items, tmp_path, monkeypatch):
    workspace = tmp_path / "w"
    command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", workspace)
    monkeypatch.setattr(counts, "_IDLE_SECONDS", 0.1)
    with rasteret_sql.connect(workspace=workspace) as con:
        query = "SELECT B04 FROM rasteret_pixels('s2', bands := ['B04'])"
        reader = con.sql(query).to_arrow_reader(64)
        n_first = reader.read_next_batch().num_rows
        assert counts._running  # not read to its end
        wait_until(lambda: counts.running() == [])
        assert n_first + reader.read_all().num_rows == con.sql(query).to_arrow_table().num_rows
    assert counts._running == []


@pytest.mark.any_duckdb
def test_what_comes_in_pieces_goes_on_counting():
    for n in (3, 4):
        with counts.watched("rasteret_enrich", resume="1") as work:
            for what in ("records listed", "records done", "headers"):
                counts.add(what, n)
            shown = display.line(work)
    assert shown.startswith("7 records, 7 headers, ")
    assert "left" not in shown
    with counts.watched("rasteret_enrich", resume="2") as other:
        assert other.counts["headers"] == 0


def test_refresh_adds_what_is_new_and_reports(command, items, tmp_path):
    """Half of the items, then all of them."""
    document = json.loads(items.read_text())
    for item in document["features"]:
        for asset in item["assets"].values():
            asset["href"] = str(items.parent / asset["href"])
    path = tmp_path / "items.json"
    path.write_text(json.dumps(document | {"features": document["features"][:3]}))
    done = command("collections", "build", "s2", "--stac-api", path, "--workspace-dir", tmp_path)
    assert done.exit_code == 0, done.output
    refresh = ("collections", "refresh", "s2", "--workspace-dir", tmp_path)
    path.write_text(json.dumps(document))
    done = command(*refresh, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["records"], report["assets"], report["enriched"]) == (6, 9, 9)
    assert parquet(tmp_path, "s2").num_rows == 6
    done = command(*refresh, "--no-check-remote", "--since", "2024-02-01", "--max-concurrent", 4)
    assert done.exit_code == 0
    assert "6 records" in done.stdout
    document["features"][0]["assets"]["B04"]["href"] = "/nowhere.tif"
    path.write_text(json.dumps(document))
    done = command(*refresh, "--strict")
    assert done.exit_code == 1
    assert "nowhere.tif" in done.stderr
    assert done.stderr.count("\n") == 1
    assert command("collections", "refresh", "s9", "--workspace-dir", tmp_path).exit_code == 1


@pytest.mark.any_duckdb
def test_validate_returns_1_where_there_are_faults(command, items, tmp_path):
    done = command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", tmp_path)
    assert done.exit_code == 0, done.output
    validate = ("collections", "validate", "s2", "--workspace-dir", tmp_path)
    done = command(*validate, "--check-remote")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "s2: sound\n", "")
    done = command(*validate, "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    part = min((tmp_path / "s2_stac").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:1000])
    done = command(*validate)
    assert done.exit_code == 1
    assert f"{part.name} is no whole Parquet file" in done.stdout
    done = command(*validate, "--json", "--no-require-band-metadata")
    assert done.exit_code == 1
    assert [one["id"] for one in json.loads(done.stdout)] == [None]
    assert command("collections", "validate", "s9", "--workspace-dir", tmp_path).exit_code == 1


@pytest.mark.any_duckdb
@pytest.mark.parametrize("as_json", [False, True])
def test_a_build_without_one_readable_header_says_so_with_exit_code_1(
    command, items, tmp_path, as_json
):
    found = json.loads(items.read_text())
    for item in found["features"]:
        item["assets"] = {"B04": {**item["assets"]["B04"], "href": "./gone.tif"}}
    broken = tmp_path / "items.json"
    broken.write_text(json.dumps(found))
    form = ["--json"] if as_json else []
    place = ["--stac-api", broken, "--workspace-dir", tmp_path / "workspace", *form]
    done = command("collections", "build", "s2", *place)
    assert done.exit_code == 1
    assert re.fullmatch(
        r"error: s2: expected headers, got 0 of 6; the first: .*gone\.tif.*\n", done.stderr
    )
    if as_json:
        assert json.loads(done.stdout)["failed"] == 6
    else:
        assert done.stdout.startswith("s2: 6 records, ")
    listed = command("collections", "list", "--workspace-dir", tmp_path / "workspace", "--json")
    assert json.loads(listed.stdout)[0]["records"] == 6
    for item in found["features"][:1]:
        item["assets"]["B04"]["href"] = str(items.parent / item["id"] / "B04.tif")
    broken.write_text(json.dumps(found))
    done = command("collections", "build", "s2", *place, "--force")
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.any_duckdb
def test_a_build_without_headers_asked_for_or_without_assets_is_no_failure(
    command, items, tmp_path
):
    place = ["--stac-api", items, "--workspace-dir", tmp_path, "--no-enrich"]
    assert command("collections", "build", "s2", *place).exit_code == 0
