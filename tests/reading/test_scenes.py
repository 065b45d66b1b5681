"""Records as columns: grids, kinds, tile tables, versions, and records that lack something."""

from __future__ import annotations

import io
import threading
import time
import uuid
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import tifffile
from reading.made import DEFLATE, PIXEL, UNCOMPRESSED, Files, in_thread, records, table_of, until

from rasteret_sql.errors import CollectionError, InterruptedReadError, ReadError
from rasteret_sql.reading import backfill as backfill_module
from rasteret_sql.reading.backfill import backfill
from rasteret_sql.reading.scenes import scene_table
from rasteret_sql.tiff.header import parse_header
from rasteret_sql.units import Affine

pytestmark = pytest.mark.any_duckdb


def zeros(height=64, width=48, dtype="uint8"):
    return np.zeros((height, width), dtype)


def overview(files, href, height, width, tile=(16, 16)):
    files.add(href, zeros(height, width), tile)
    head = files.headers[href]
    names = ("tile_width", "tile_height", "tile_offsets", "tile_byte_counts", "compression")
    return {name: head[name] for name in names} | {"width": width, "height": height}


def test_scenes_on_one_grid_share_it():
    files = Files()
    hrefs = [files.add(f"f{n}", zeros()) for n in range(4)] + [files.add("other", zeros(32, 48))]
    table = table_of(files, hrefs)
    level = table.bands["b"].level(0)
    assert len(table.grids) == len(set(level.grid.tolist())) == 2
    assert len(set(level.grid[:4].tolist())) == 1
    grid = table.grids[level.grid[0]]
    assert (grid.width, grid.height, grid.crs) == (48, 64, "EPSG:32633")
    assert grid.affine == Affine(PIXEL, 0, 0, 0, -PIXEL, 0)
    assert table.hrefs == hrefs
    assert table.bands["b"].file.tolist() == list(range(5))


def test_kinds_differ_by_how_a_block_is_read():
    files = Files()
    table = table_of(
        files,
        [
            files.add("a", zeros(), compression=DEFLATE),
            files.add("b", zeros(), compression=UNCOMPRESSED),
            files.add("c", zeros(), (32, 16)),
            files.add("d", zeros(), nodata=7.0),
            files.add("e", zeros(dtype="float32")),
            files.add("f", zeros()),
        ],
    )
    kind = table.bands["b"].level(0).kind
    assert len(set(kind.tolist())) == 5
    assert kind[0] == kind[5]
    formats = [table.kinds[n].format for n in kind]
    assert [f.compression for f in formats] == [8, 1, 8, 8, 8, 8]
    assert [f.tile_height for f in formats] == [16, 16, 32, 16, 16, 16]
    assert [table.kinds[n].nodata for n in kind] == [None, None, None, 7.0, None, None]
    assert table.kinds[kind[4]].dtype == "float32"


def test_tile_tables_are_those_of_the_headers():
    files = Files()
    hrefs = [files.add(f"f{n}", zeros(16 * (n + 1), 40), gap=n) for n in range(3)]
    level = table_of(files, hrefs).bands["b"].level(0)
    for scene, href in enumerate(hrefs):
        at = slice(level.start[scene], level.start[scene] + level.n_tiles[scene])
        assert level.offsets[at].tolist() == files.headers[href]["tile_offsets"]
        assert level.counts[at].tolist() == files.headers[href]["tile_byte_counts"]


@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_slice_of_records_has_its_own_tile_tables(first):
    files = Files()
    hrefs = [files.add(f"f{n}", zeros(16 * (n + 1), 40), gap=n) for n in range(5)]
    batch = records(files, [{"b": href} for href in hrefs]).slice(first, 2)
    table = scene_table(batch, ["b"])
    level = table.bands["b"].level(0)
    assert [table.hrefs[n] for n in table.bands["b"].file] == hrefs[first : first + 2]
    for scene, href in enumerate(hrefs[first : first + 2]):
        at = slice(level.start[scene], level.start[scene] + level.n_tiles[scene])
        assert level.offsets[at].tolist() == files.headers[href]["tile_offsets"]
        assert level.counts[at].tolist() == files.headers[href]["tile_byte_counts"]
        assert table.grids[level.grid[scene]].height == files.headers[href]["image_height"]


def test_an_overview_has_its_own_grid_and_tiles():
    files = Files()
    half = overview(files, "half", 32, 24)
    files.add("a", zeros(64, 48), overviews=[half])
    files.add("b", zeros(64, 48))
    table = table_of(files, ["b", "a"])
    band = table.bands["b"]
    level = band.level(1)
    assert level.grid[0] == -1
    grid = table.grids[level.grid[1]]
    assert (grid.width, grid.height, grid.full_width, grid.full_height) == (24, 32, 48, 64)
    assert grid.affine == Affine(2 * PIXEL, 0, 0, 0, -2 * PIXEL, 0)
    at = slice(level.start[1], level.start[1] + level.n_tiles[1])
    assert level.offsets[at].tolist() == half["tile_offsets"]
    assert (band.n_levels(0), band.n_levels(1)) == (1, 2)
    assert band.level(2) is None


def test_a_mask_is_a_level_of_one_sample():
    files = Files()
    mask = overview(files, "m", 64, 48) | {"bits_per_sample": 1, "block_samples": 1}
    files.add("a", zeros(dtype="uint16"), mask=mask)
    files.add("b", zeros(dtype="uint16"))
    table = table_of(files, ["a", "b"])
    level = table.bands["b"].mask(0)
    assert level.grid.tolist() == [table.bands["b"].level(0).grid[0], -1]
    kind = table.kinds[level.kind[0]].format
    assert (kind.dtype, kind.bits_per_sample, kind.samples) == ("uint8", 1, 1)
    assert table.bands["b"].mask(1) is None


def test_a_version_is_the_etag_else_the_size():
    files = Files()
    table = table_of(
        files,
        [
            files.add("a", zeros(), etag="x", file_size=5),
            files.add("b", zeros(), etag=None, file_size=5),
            files.add("c", zeros(), etag=None),
        ],
    )
    band = table.bands["b"]
    assert [band.version(n) for n in range(3)] == ["etag:x", "file_size:5", None]


def test_a_record_without_the_band_is_absent():
    files = Files()
    one, two = files.add("a", zeros()), files.add("b", zeros())
    table = table_of(files, [{"x": one}, {"x": one, "y": two}])
    assert table.bands["y"].is_present.tolist() == [False, True]
    assert table.bands["y"].level(0).grid.tolist() == [-1, 0]
    error = table.missing(0, "y")
    assert isinstance(error, CollectionError)
    assert error.message.startswith("record s0, band y: expected a cached header, got 'NULL'; ")


def test_a_band_index_beyond_the_samples_is_a_fault():
    files = Files()
    files.add("a", zeros())
    batch = records(files, [{"b": "a"}])
    assets = pa.array([{"b": {"href": "a", "band_index": 3}}], batch.column("assets").type)
    batch = batch.set_column(batch.schema.get_field_index("assets"), "assets", assets)
    table = scene_table(batch, ["b"])
    assert table.bands["b"].is_present.tolist() == [False]
    assert "a band_index below 1, got 3" in table.missing(0, "b").message


@pytest.mark.parametrize("href", [None, ""])
def test_a_record_without_a_file_is_absent(href):
    files = Files()
    files.add("a", zeros())
    batch = records(files, [{"b": "a"}, {"b": "a"}])
    values = [{"b": {"href": href, "band_index": 0}}, {"b": {"href": "a", "band_index": 0}}]
    assets = pa.array(values, batch.column("assets").type)
    batch = batch.set_column(batch.schema.get_field_index("assets"), "assets", assets)
    assert scene_table(batch, ["b"]).bands["b"].is_present.tolist() == [False, True]


def test_a_column_without_a_needed_field_is_named():
    files = Files()
    files.add("a", zeros())
    batch = records(files, [{"b": "a"}])
    metadata = batch.column("b_metadata")
    kept = [f for f in metadata.type if f.name != "tile_width"]
    fewer = pa.StructArray.from_arrays([metadata.field(f.name) for f in kept], fields=kept)
    batch = batch.set_column(batch.schema.get_field_index("b_metadata"), "b_metadata", fewer)
    with pytest.raises(CollectionError, match=r"column b_metadata.*no tile_width"):
        scene_table(batch, ["b"])


def test_crs_comes_from_either_column():
    files = Files()
    files.add("a", zeros())
    batch = records(files, [{"b": "a"}] * 4, crs=None)
    codes = pa.array([32633, None, 0, 3857], pa.int32())
    texts = pa.array([None, None, "", "EPSG:4326"])
    batch = batch.drop_columns(["crs"]).append_column("crs", texts)
    batch = batch.append_column("proj:epsg", codes)
    table = scene_table(batch, ["b"])
    grids = table.bands["b"].level(0).grid
    assert [table.grids[n].crs for n in grids] == ["EPSG:32633", None, None, "EPSG:4326"]


def test_threads_that_ask_for_a_level_get_one():
    files = Files()
    hrefs = [files.add(f"f{n}", zeros()) for n in range(50)]
    table = table_of(files, hrefs)
    started = [in_thread(lambda: table.bands["b"].level(0)) for _ in range(8)]
    for _, thread in started:
        thread.join(5)
    assert len({id(results[0]) for results, _ in started}) == 1
    assert len(table.grids) == len(table.kinds) == 1


# headers that lack fields


@pytest.fixture
def lacking():
    """Records whose headers lack the byte order, as those of other writers do."""
    files = Files()
    hrefs = [f"/gone/{uuid.uuid4()}.tif" for _ in range(3)]  # none was ever asked
    for href in hrefs:
        files.add(href, zeros(), byte_order=None)
    return records(files, [{"b": href} for href in hrefs])


def test_a_stop_ends_header_requests_that_hang(lacking, monkeypatch):
    go, stop, n_asked = threading.Event(), threading.Event(), []

    def hangs(href):
        n_asked.append(href)
        go.wait(10)
        raise ReadError("too late")

    def check():
        if stop.is_set():
            raise InterruptedReadError("interrupted")

    monkeypatch.setattr(backfill_module, "read_asset", hangs)
    results, thread = in_thread(lambda: backfill(lacking, ["b"], check))
    try:
        assert until(lambda: len(n_asked) == 3)
        began = time.monotonic()
        stop.set()
        thread.join(5)
        assert time.monotonic() - began < 0.3
        assert isinstance(results[0], InterruptedReadError)
    finally:
        go.set()


@pytest.fixture
def tiff_bytes():
    file = io.BytesIO()
    tifffile.imwrite(file, zeros(), tile=(16, 16), metadata=None)
    return file.getvalue()


def test_one_header_that_cant_be_had_leaves_the_others(lacking, monkeypatch, tiff_bytes):
    hrefs = [asset["b"]["href"] for asset in lacking.column("assets").to_pylist()]

    def read(href):
        if href == hrefs[1]:
            raise ReadError("made to fail")
        return SimpleNamespace(header=parse_header(tiff_bytes))

    monkeypatch.setattr(backfill_module, "read_asset", read)
    whole, faults = backfill(lacking, ["b"], lambda: None)
    orders = [value and value["byte_order"] for value in whole.column("b_metadata").to_pylist()]
    assert orders == ["little", None, "little"]
    assert {place: error.message for place, error in faults.items()} == {
        (1, "b"): "record s1, band b: made to fail"
    }
    table = scene_table(whole, ["b"], faults)
    assert table.bands["b"].is_present.tolist() == [True, False, True]
    # what came is kept: nothing is asked again
    monkeypatch.setattr(backfill_module, "read_asset", None)
    again, _ = backfill(lacking, ["b"], lambda: None, may_request=False)
    orders = [value["byte_order"] for value in again.column("b_metadata").to_pylist()]
    assert orders == ["little", None, "little"]


def test_whole_headers_are_the_same_object():
    files = Files()
    batch = records(files, [{"b": files.add("a", zeros())}])
    got, faults = backfill(batch, ["b"], lambda: None)
    assert got is batch
    assert faults == {}
