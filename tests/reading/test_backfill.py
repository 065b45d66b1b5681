"""Collections with rasteret's seventeen header fields: the rest is read when it is needed."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import rasterio
from rasterio import Affine

from rasteret_sql.reading import backfill
from rasteret_sql.schema import BAND_METADATA, RASTERET_FIELDS

BANDS = ("R", "G")


@pytest.fixture
def sparse(server, rows):
    """A view `theirs` over three big-endian files with masks and overviews; their names."""
    folder = server.folder / "big"
    folder.mkdir(exist_ok=True)
    backfill._kept.clear()
    pixels = np.random.default_rng(5).integers(1, 999, (2, 100, 90), dtype=np.uint16)
    names = [f"{n}.tif" for n in range(3)]
    for name in names:
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                folder / name,
                "w",
                driver="GTiff",
                count=2,
                height=100,
                width=90,
                dtype="uint16",
                crs="EPSG:32643",
                transform=Affine(10, 0, 780_000, 0, -10, 1_440_000),
                tiled=True,
                blockxsize=64,
                blockysize=64,
                compress="deflate",
                interleave="pixel",
                ENDIANNESS="BIG",
            ) as made,
        ):
            made.write(pixels)
            made.write_mask(np.tri(100, 90, dtype=bool))
            made.build_overviews([2])
    urls = ", ".join(f"('{n}', '{server.url('scenes', f'big/{n}')}')" for n in names)
    rows(
        "CREATE TABLE files AS SELECT *, TIMESTAMP '2024-05-01' AS datetime "
        f"FROM (VALUES {urls}) t(id, url)"
    )
    rows(
        "CREATE TABLE kept AS FROM rasteret_enrich('files', href_column := 'url', "
        "band_index_map := MAP {'R': 0, 'G': 1})"
    )
    fields = [BAND_METADATA.field(i).name for i in range(RASTERET_FIELDS)]
    structs = ", ".join(
        "CASE WHEN {b}_metadata IS NOT NULL THEN {{{parts}}} END AS {b}_metadata".format(
            b=b, parts=", ".join(f"'{f}': {b}_metadata.{f}" for f in fields)
        )
        for b in BANDS
    )
    assets = ", ".join(f"'{b}': {{'href': url, 'band_index': {i}}}" for i, b in enumerate(BANDS))
    rows(
        f'CREATE TABLE theirs AS SELECT id, datetime, bbox, "proj:epsg", {{{assets}}} AS assets, '
        f"{structs} FROM kept"
    )
    server.reset()
    return folder


def test_byte_order_masks_and_overviews_come_from_the_file(con, rows, sparse):
    found = con.execute(
        "SELECT * FROM rasteret_pixels('theirs', ids := ['1.tif']) ORDER BY row, col"
    ).fetchnumpy()
    with rasterio.open(sparse / "1.tif") as opened:
        want = opened.read(masked=True)
    for index, band in enumerate(BANDS):
        got = np.ma.asarray(found[band]).reshape(want.shape[1:])
        assert np.array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(want[index]))
        assert np.array_equal(got.compressed(), want[index].compressed())
    assert rows("SELECT sum(valid_count) FROM rasteret_read_tiles('theirs', level := 1)")[0][0] > 0
    assert rows("SELECT count(*) FROM rasteret_plan('theirs', level := 1, masked := false)") == [
        (6,)
    ]


def test_each_file_is_asked_once_and_a_plan_asks_none(rows, sparse, server):
    assert rows("SELECT count(*) FROM rasteret_plan('theirs')") == [(3 * 2 * 4,)]
    assert server.requests() == []
    for _ in range(2):
        rows("SELECT sum(R), sum(G) FROM rasteret_pixels('theirs', masked := false)")
    starts = [one["path"] for one in server.requests() if one["range"] == "bytes=0-16383"]
    assert len(starts) == len(set(starts)) == 3


def test_a_file_that_is_gone_is_told_where_it_is_read(rows, sparse):
    (sparse / "2.tif").unlink()
    query = "SELECT id, count(R), max(error) FROM rasteret_pixels('theirs', on_error := '{}') "
    with pytest.raises(duckdb.Error, match=r"record 2.tif, band R: .*404"):
        rows("SELECT sum(R) FROM rasteret_pixels('theirs')")
    found = rows(query.format("report") + "GROUP BY id ORDER BY id")
    assert [row[:2] for row in found][2] == ("2.tif", 0)
    assert found[0][1] > 0
    assert "404" in found[2][2]
    tiles = rows(
        "SELECT DISTINCT error FROM rasteret_read_tiles('theirs', on_error := 'report') "
        "WHERE id = '2.tif'"
    )
    assert len(tiles) == 2
    assert all("404" in error for (error,) in tiles)
