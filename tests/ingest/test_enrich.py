"""Headers of many assets: read once, in order, by few requests, and kept by a build cut short."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import tifffile

from examples import examples
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.errors import InterruptedReadError
from rasteret_sql.ingest import header_journal
from rasteret_sql.ingest.enrich import Enrichment, enrich, enriched_schema
from rasteret_sql.ingest.header_journal import HeaderJournal
from rasteret_sql.remote.headers import read_asset
from rasteret_sql.schema import BAND_METADATA

pytestmark = pytest.mark.any_duckdb

N_REQUESTS = 7  # for five headers: the one whose directory and tables lie late takes three
ASSET = pa.struct([("href", pa.string()), ("band_index", pa.int32())])


@pytest.fixture(scope="module")
def files(server):
    """A folder with COGs, one file whose directory lies at its end, and one without tiles."""
    folder = server.folder / "headers"
    folder.mkdir()
    profile = {
        "driver": "COG", "width": 300, "height": 200, "count": 1, "dtype": "uint16",
        "crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
        "blocksize": 128,
    }  # fmt: skip
    for number in range(4):
        with rasterio.open(folder / f"{number}.tif", "w", **profile) as target:
            target.write(np.full((200, 300), number, "uint16"), 1)
    tifffile.imwrite(
        folder / "late.tif", np.zeros((3, 400, 400), "uint8"), photometric="minisblack"
    )
    data = (folder / "late.tif").read_bytes()
    with (folder / "late.tif").open("wb") as out:  # the same file, its directory moved to the end
        start = int.from_bytes(data[4:8], "little")
        out.write(
            data[:4] + len(data).to_bytes(4, "little") + data[8:] + data[start : start + 4096]
        )
    return folder


def records(*bands: list[str | None]) -> tuple[pa.Schema, pa.RecordBatch]:
    """Records with an href for each band."""
    n_bands = len(bands)
    schema = pa.schema(
        [("id", pa.string()), ("assets", pa.struct([(f"B{i}", ASSET) for i in range(n_bands)]))]
    )
    rows = [
        {"id": str(i), "assets": {f"B{b}": href and {"href": href} for b, href in enumerate(hrefs)}}
        for i, hrefs in enumerate(zip(*bands, strict=True))
    ]
    return schema, pa.RecordBatch.from_pylist(rows, schema)


def enriched(hrefs, *, n_rows=None, result=None, **options):
    """Enrich one band of records; returns the table."""
    schema, batch = records(hrefs)
    step = n_rows or max(1, batch.num_rows)
    batches = [batch.slice(at, step) for at in range(0, batch.num_rows, step)]
    out = enriched_schema(schema, ["B0"])
    found = enrich(iter(batches), out, ["B0"], result or Enrichment(), max_concurrent=8, **options)
    return pa.Table.from_batches(list(found), out)


@pytest.mark.parametrize("n_rows", [1, 7, 3000])
def test_headers_come_in_the_order_of_the_records_and_each_url_once(server, files, n_rows):
    order = random.Random(3).choices(range(4), k=3000)
    server.reset()
    result = Enrichment()
    hrefs = [server.url("scenes", f"headers/{n}.tif") for n in order]
    table = enriched(hrefs, n_rows=n_rows, result=result)
    assert table["id"].to_pylist() == [str(i) for i in range(3000)]
    alone = [read_asset(str(files / f"{n}.tif")).header for n in range(4)]
    offsets = table["B0_metadata"].combine_chunks().field("tile_offsets").to_pylist()
    assert offsets == [alone[n].image.tile_offsets.tolist() for n in order]
    assert len(server.requests()) == 4
    assert (result.assets, result.enriched, result.requests) == (3000, 3000, 4)


def test_failures_name_their_record_and_leave_the_others(server, files):
    hrefs = [server.url("scenes", f"headers/{i % 4}.tif") for i in range(100)]
    hrefs[17] = server.url("scenes", "headers/0.tif", fault="404")
    hrefs[50] = None
    result = Enrichment()
    table = enriched(hrefs, result=result)
    assert [failure.id for failure in result.failures] == ["17"]
    assert "404" in result.failures[0].error
    nulls = [i for i, row in enumerate(table["B0_metadata"].is_valid().to_pylist()) if not row]
    assert nulls == [17, 50]


def test_giant_tile_tables_are_handed_on_in_small_batches(tmp_path):
    n_tiles = 200 * 200  # 640 kB of tables
    path = tmp_path / "giant.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=3200, height=3200, count=1, dtype="uint8", tiled=True,
        blockxsize=16, blockysize=16, sparse_ok=True, crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    ):  # fmt: skip
        pass
    hrefs = []
    for number in range(800):
        link = tmp_path / f"{number}.tif"
        link.symlink_to(path)
        hrefs.append(str(link))
    schema, batch = records(hrefs)
    out = enriched_schema(schema, ["B0"])
    sizes = [b.num_rows for b in enrich(iter([batch]), out, ["B0"], Enrichment(), max_concurrent=8)]
    assert sum(sizes) == 800
    assert sizes[0] == 256
    assert 1 < max(sizes[3:]) <= 64 * 2**20 // (16 * n_tiles)


def test_a_stop_ends_the_work(server, files):
    stop = threading.Event()
    hang = server.url("scenes", "headers/0.tif", fault="hang")
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(InterruptedReadError):
        enriched([hang], stop=stop)
    assert time.monotonic() - began < 2


class TestJournal:
    """What is kept of a build that was cut short."""

    @pytest.fixture
    def hrefs(self, server, files):
        names = [*(f"{n}.tif" for n in range(4)), "late.tif"]
        return [server.url("scenes", f"headers/{name}") for name in names]

    def run(self, hrefs, path, source=None):
        journal = HeaderJournal(path, source or {"stac_api": "x"})
        try:
            result = Enrichment()
            return enriched(hrefs, result=result, journal=journal), result
        finally:
            journal.close()

    def test_known_headers_cost_no_request_and_give_the_same_columns(self, server, hrefs, tmp_path):
        first, result = self.run(hrefs, tmp_path / "j")
        assert result.requests == N_REQUESTS
        server.reset()
        second, result = self.run(hrefs, tmp_path / "j")
        assert server.requests() == []
        assert (result.enriched, result.requests) == (5, 0)
        assert second.equals(first)
        assert second["B0_metadata"].type == BAND_METADATA

    def test_another_source_starts_over(self, server, hrefs, tmp_path):
        self.run(hrefs, tmp_path / "j")
        server.reset()
        self.run(hrefs, tmp_path / "j", source={"stac_api": "y"})
        assert len(server.requests()) == N_REQUESTS

    def test_old_headers_are_read_anew(self, server, hrefs, tmp_path, monkeypatch):
        self.run(hrefs, tmp_path / "j")
        monkeypatch.setattr(header_journal, "MAX_AGE_S", 0)
        server.reset()
        self.run(hrefs, tmp_path / "j")
        assert len(server.requests()) == N_REQUESTS

    @pytest.mark.parametrize(
        "content", [b"no database", b"", b"SQLite format 3\0" + b"\xff" * 4096]
    )
    def test_a_broken_journal_only_costs_its_headers(self, server, hrefs, tmp_path, content):
        (tmp_path / "j").write_bytes(content)
        server.reset()
        table, _ = self.run(hrefs, tmp_path / "j")
        assert table["B0_metadata"].null_count == 0
        assert len(server.requests()) == N_REQUESTS

    def test_a_place_that_cannot_be_written_costs_nothing_else(self, hrefs, tmp_path):
        table, _ = self.run(hrefs, tmp_path / "no" / "such" / "folder" / "j")
        assert table["B0_metadata"].null_count == 0

    def test_it_is_small_and_holds_no_url(self, server, hrefs, tmp_path):
        signed = [f"{href}?sig=SECRET" for href in hrefs]
        self.run(signed, tmp_path / "j", source={"stac_api": "https://x/?token=SECRET"})
        content = (tmp_path / "j").read_bytes()
        assert b"SECRET" not in content
        assert b"127.0.0.1" not in content
        with sqlite3.connect(tmp_path / "j") as con:
            sizes = [n for (n,) in con.execute("SELECT length(start) FROM headers")]
        assert len(sizes) == 5
        assert sorted(sizes)[-2] < 2000  # not the 16 KiB that were read


BUILDER = textwrap.dedent(
    """
    import sys
    import rasteret_sql

    con = rasteret_sql.connect(workspace=sys.argv[1])
    con.execute("FROM rasteret_build_table('s2', $q, href_column := 'url', bands := ['B1'], "
                "enrich := true, max_concurrent := 2)", {"q": sys.argv[2]})
    """
)


def test_a_build_killed_at_any_point_goes_on_where_it_was(server, files, tmp_path):
    n_scenes, names = 1500, server.folder / "killed"
    names.mkdir()
    for number in range(n_scenes):
        (names / f"{number}.tif").hardlink_to(files / f"{number % 4}.tif")
    base = server.url("scenes", "killed/")
    query = f"SELECT i::VARCHAR AS id, '{base}' || i || '.tif' AS url FROM range({n_scenes}) t(i)"
    workspace, chance = Workspace(tmp_path / "w"), random.Random(20)
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "w"), query]
    for _ in range(examples(3, 20)):
        server.reset()
        n_seen = chance.randint(0, 400)
        with subprocess.Popen(command) as process:
            while len(server.requests()) < n_seen and process.poll() is None:
                time.sleep(0.02)
            process.kill()
        built = workspace.collections()
        assert [info.records for info in built] in ([], [n_scenes])
        assert not workspace.problems
        if built:  # before the kill came
            break
    server.reset()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert [info.records for info in workspace.collections()] == [n_scenes]
    assert len(server.requests()) < n_scenes
    assert not list((tmp_path / "w" / ".versions").glob("*.headers"))
