"""What `rasteret_plan` says is what the server is asked for: every range, masks included."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from urllib.parse import urlsplit

import duckdb
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from reading.read_oracle import build_files, call_of, make_areas, random_polygon

import rasteret_sql
from examples import examples, in_turns
from rasteret_sql.errors import RasteretError
from rasteret_sql.reading.outputs import chip_stacks, composites
from rasteret_sql.reading.tile_store import STORE

BANDS = ("r", "g", "b")
HEIGHT, WIDTH = 200, 240
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 4_000_000)
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32}
KINDS = {
    "chunky": TILED | {"compress": "deflate", "interleave": "pixel"},
    "planes": TILED | {"compress": "deflate", "interleave": "band"},
    "strips": {"blockysize": 8, "compress": "lzw"},
    "plain_tiles": TILED | {"interleave": "band"},
    "plain_strips": {"blockysize": 16, "interleave": "band"},
    "one_strip": {"blockysize": HEIGHT},
    "sparse": TILED | {"compress": "zstd", "sparse_ok": True},
    "mask": TILED | {"compress": "deflate"},
    "mask_strips": {"blockysize": 8, "compress": "deflate"},
    "alpha": TILED | {"compress": "deflate", "photometric": "rgb", "alpha": "yes"},
    "alpha_planes": TILED
    | {"compress": "deflate", "photometric": "rgb", "alpha": "yes", "interleave": "band"},
    "alpha_plain": TILED | {"photometric": "rgb", "alpha": "yes", "interleave": "band"},
    "nodata": TILED | {"compress": "deflate", "nodata": 7},
}


def write(path, kind, options):
    rng = np.random.default_rng(len(kind))
    count = 4 if "alpha" in options else 3
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        path, "w", driver="GTiff", count=count, height=HEIGHT, width=WIDTH, dtype="uint8",
        crs="EPSG:32643", transform=TRANSFORM, **options,
    ) as file:  # fmt: skip
        pixels = rng.integers(0, 255, (count, HEIGHT, WIDTH)).astype("uint8")
        if kind == "sparse":
            window = rasterio.windows.Window(0, 0, WIDTH, 64)
            file.write(pixels[:, :64], window=window)
        else:
            file.write(pixels)
        if kind.startswith("mask"):
            file.write_mask(rng.integers(0, 2, (HEIGHT, WIDTH)).astype("uint8") * 255)
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)


@pytest.fixture(scope="module")
def kinds(server, tmp_path_factory):
    """A connection with one collection per kind of file, over HTTP, and relation `pieces`."""
    folder = server.folder / "plans"
    folder.mkdir()
    con = rasteret_sql.connect(workspace=tmp_path_factory.mktemp("workspace"))
    for kind, options in KINDS.items():
        write(folder / f"{kind}.tif", kind, options)
        build_files(con, kind, {"one": server.url("scenes", f"plans/{kind}.tif")}, BANDS)
    rng = np.random.default_rng(3)
    make_areas(con, "pieces", {str(n): random_polygon(rng, size) for n, size in enumerate(SIZES)})
    yield con
    con.close()


SIZES = (240, 90, 40, 40, 8, 8, 8)
AREAS = {
    "whole": {},
    "small": {"geometry": shapely.Point(77, 91).buffer(9), "geometry_crs": "pixel"},
    "large": {
        "geometry": shapely.Polygon([(-5, 3), (190, 12), (236, 180), (40, 120)]),
        "geometry_crs": "pixel",
    },
    "ring": {
        "geometry": shapely.Point(120, 100).buffer(99) - shapely.Point(120, 100).buffer(80),
        "geometry_crs": "pixel",
    },
    "bbox": {"bbox": [75.007, 36.135, 75.019, 36.142]},
    "outside": {"bbox": [10, 10, 11, 11]},
    "aois": {"aois": "pieces", "geometry_crs": "pixel"},
}


def planned(con, server, collection, **options):
    """Path and half-open range of each request of a plan; the plan itself makes none."""
    STORE.clear()
    server.reset()
    spans = con.execute(
        "SELECT any_value(href), min(byte_offset), max(byte_offset + byte_count), "
        f"count(DISTINCT href) FROM {call_of('rasteret_plan', collection, **options)} "
        "WHERE byte_count > 0 GROUP BY request"
    ).fetchall()
    assert server.requests() == []
    assert all(n == 1 for *_, n in spans), "one request reaches into two files"
    return Counter((urlsplit(href).path, start, stop) for href, start, stop, _ in spans)


def requested(con, server, function, collection, **options):
    """Path and half-open range of each request of a read."""
    STORE.clear()
    server.reset()
    con.sql(f"FROM {call_of(function, collection, **options)}").to_arrow_table()
    found: Counter = Counter()
    for request in server.requests():
        first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", request["range"]).groups()
        found[request["path"], int(first), int(last) + 1] += 1
    return found


@pytest.mark.any_duckdb
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_read_requests_its_plan(kinds, server, kind):
    """Areas x levels x bands x functions; each range once.

    Else each area with one level, one choice of bands and one function, which take turns.
    """
    n_requests, turn = 0, list(KINDS).index(kind)
    choices = ((["b", "r"], None), ("rasteret_read", "rasteret_pixels"))
    levels = in_turns(AREAS, ((0, 1), (1, 0))[turn % 2])
    for number, (area, level) in enumerate(levels):
        bands, function = (number // 2 + level + turn) % 2, (number + level + turn // 2) % 2
        own = [(choices[0][bands], choices[1][function])]
        for bands, function in examples(own, [*itertools.product(*choices)]):
            options = {"bands": bands, "level": level} | AREAS[area]
            plan = planned(kinds, server, kind, **options)
            read = requested(kinds, server, function, kind, **options)
            assert read == plan, (kind, function, area, level, bands)
            assert not plan or area != "outside"
            assert plan or area == "outside" or kind == "sparse"
            n_requests += sum(plan.values())
    assert n_requests > examples(4, 15)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("kind", [k for k, v in KINDS.items() if "compress" in v])
def test_whole_tiles_are_the_plan_too(kinds, server, kind):
    turn = list(KINDS).index(kind)
    areas = ("whole", "small", "large", "bbox", "outside")
    for area, level in in_turns(areas, ((0, 1), (1, 0))[turn % 2]):
        options = {"bands": ["r", "g"], "level": level} | AREAS[area]
        plan = planned(kinds, server, kind, **options)
        read = requested(kinds, server, "rasteret_read_tiles", kind, **options)
        assert read == plan, (kind, area, level)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("kind", ["mask", "mask_strips", "alpha", "alpha_planes", "nodata"])
def test_a_read_without_masks_plans_and_requests_none(kinds, server, kind):
    """Windows are whole then; rows of pixels need only the tiles under the area."""
    levels = (0, 1) if kind in ("mask", "alpha") else (1, 0)
    for area, level in in_turns(("whole", "small", "aois"), levels):
        options = {"bands": ["r"], "level": level, "masked": False} | AREAS[area]
        plan = planned(kinds, server, kind, **options)
        assert requested(kinds, server, "rasteret_read", kind, **options) == plan, (area, level)
        pixels = requested(kinds, server, "rasteret_pixels", kind, **options)
        assert 0 < total(pixels) <= total(plan), (area, level)
        with_masks = planned(kinds, server, kind, **(options | {"masked": True}))
        has_mask_bytes = kind in ("mask", "mask_strips", "alpha_planes")
        if area == "whole":
            assert (total(with_masks) > total(plan)) == has_mask_bytes
        assert (total(with_masks) > total(pixels)) == has_mask_bytes


def total(requests):
    return sum((stop - start) * n for (_, start, stop), n in requests.items())


SEVERAL = (
    {"ids": ["S2A_43PHQ_20240110_L2A"]},
    {"date_range": ["2024-02-01", "2024-02-28"]},
    {"bbox": [77.984, 13.004, 77.99, 13.01]},
    {"bbox": [77.97, 13.0, 78.03, 13.03], "level": 1},
    {"geometry": "POLYGON((77.984 13.004, 77.997 13.002, 77.994 13.030, 77.984 13.004))"},
    {"aois": "fields"},
    {"aois": "SELECT * FROM fields WHERE area <> '3'", "level": 2},
    {"aois": "fields", "date_range": [None, "2024-01-31"]},
)


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "bands"), in_turns(SEVERAL, (["B04"], ["B08", "SCL"], None)), ids=str
)
def test_a_read_of_several_scenes_requests_its_plan(s2, server, options, bands):
    rng = np.random.default_rng(5)
    areas = {
        str(n): shapely.transform(
            random_polygon(rng, 0.015), lambda xy: xy + np.array([77.985, 13.003])
        )
        for n in range(9)
    }
    make_areas(s2, "fields", areas)
    plan = planned(s2, server, "s2", bands=bands, **options)
    assert plan
    for function in ("rasteret_read", "rasteret_pixels"):
        assert requested(s2, server, function, "s2", bands=bands, **options) == plan


@pytest.mark.any_duckdb
def test_rows_of_a_plan_are_unlike_and_inside_their_files(kinds, server):
    """A tile that areas and bands share is planned once for each band, its bytes once."""
    for kind in KINDS:
        call = call_of("rasteret_plan", kind, **AREAS["aois"])
        rows = kinds.execute(
            f"SELECT band, level, tile_row, tile_col, byte_offset, byte_count FROM {call} "
            "WHERE byte_count > 0"
        ).fetchall()
        assert rows
        assert len(set(rows)) == len(rows), kind
        size = (server.folder / "plans" / f"{kind}.tif").stat().st_size
        assert all(row[4] > 0 and row[4] + row[5] <= size for row in rows)


AREA = {"bbox": [77.97, 13.0, 78.03, 13.03]}
MOSAICS = {
    "composite": ("rasteret_composite", {}),
    "months": ("rasteret_composite", {"period": "1 month", "method": "max"}),
    "masked": ("rasteret_composite", {"mask_band": "SCL", "period": "2 months"}),
    "coarse": ("rasteret_composite", {"resolution": 4e-4, "crs": "EPSG:4326"}),
    "fine": ("rasteret_composite", {"resolution": 7, "resampling": "cubic"}),
    "area": ("rasteret_composite", AREA),
    "dates": ("rasteret_composite", AREA | {"date_range": ["2024-02-01", None]}),
    "stacks": ("rasteret_chips", {"size": 100}),
    "far": ("rasteret_chips", {"size": 60, "stride": 150, "resolution": 20}),
    "few stacks": ("rasteret_chips", AREA | {"size": 64, "stride": 32}),
    "stacks of areas": ("rasteret_chips", {"aois": "fields", "size": 80}),
}


@pytest.mark.any_duckdb
@pytest.mark.parametrize(("case", "bands"), in_turns(MOSAICS, (["B04"], ["B08", "B04"])))
def test_composites_and_stacks_request_their_plan(s2, server, monkeypatch, case, bands):
    """Each range once, though blocks and squares share tiles."""
    if len(bands) == 1:
        monkeypatch.setattr(chip_stacks, "_SIDES", (100,))
        monkeypatch.setattr(composites, "_BLOCKS", ((100, 150),))
    make_areas(s2, "fields", {
        "a": shapely.box(77.98, 13.0, 77.99, 13.012), "b": shapely.box(78.0, 13.01, 78.02, 13.03),
    })  # fmt: skip
    function, options = MOSAICS[case]
    options = options | {"bands": bands}
    stacks = function == "rasteret_chips"
    plan = planned(s2, server, "s2", reads="stacks" if stacks else "composite", **options)
    more = {"stack": "time"} if stacks else {}
    if "mask_band" in options:
        more = {"mask_values": [8, 9]}
    n_bytes = sum(stop - start for _, start, stop in plan)
    with pytest.raises(duckdb.Error, match=f"max_bytes: expected .* got '{n_bytes} bytes'"):
        requested(s2, server, function, "s2", **options, **more, max_bytes=n_bytes - 1)
    read = requested(s2, server, function, "s2", **options, **more, max_bytes=n_bytes)
    assert read == plan
    assert len(plan) > 3
    assert set(plan.values()) == {1}


@pytest.mark.parametrize(
    "options",
    [
        {"size": 100},
        {"size": 64, "stride": 200, "level": 1},
        AREA | {"size": 70, "stride": 60},
        {"aois": "fields", "size": 32},
        AREA | {"size": 48, "resolution": 15},
    ],
    ids=str,
)
def test_chips_request_their_plan(s2, server, options):
    make_areas(s2, "fields", {"a": shapely.box(77.98, 13.0, 77.99, 13.012)})
    options = options | {"bands": ["B04", "SCL"]}
    plan = planned(s2, server, "s2", reads="chips", **options)
    assert requested(s2, server, "rasteret_chips", "s2", **options) == plan
    assert len(plan) > 3


def test_a_plan_of_a_composite_has_the_same_rows_under_a_predicate(s2):
    """A record less must not be another grid."""
    call = call_of("rasteret_plan", "s2", reads="composite", bands=["B04"], period="1 month")
    rows = s2.execute(f"SELECT id, level, tile_row, tile_col, byte_count FROM {call}").fetchall()
    some = s2.execute(
        f"SELECT id, level, tile_row, tile_col, byte_count FROM {call} WHERE id LIKE '%44PKV%'"
    ).fetchall()
    assert sorted(some) == sorted(row for row in rows if "44PKV" in row[0])
    assert 0 < len(some) < len(rows)
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("reads := 'all'", "reads: expected 'windows', 'composite', 'chips' or 'stacks'"),
        ("period := '1 month'", "period: expected reads := 'composite' beside it, got 'windows'"),
        ("size := 9", "size: expected reads := 'chips' or 'stacks' beside it, got 'windows'"),
        ("reads := 'chips', mask_band := 'SCL'", "mask_band: expected reads := 'composite'"),
        ("reads := 'stacks', level := 1", "level: expected none with reads := 'stacks', got 1"),
        ("reads := 'composite', masked := false", "masked: expected none with reads"),
        ("reads := 'composite', mask_band := 'no'", "no"),
    ],
)
def test_arguments_of_other_reads_are_checked(s2, arguments, told):
    with pytest.raises(RasteretError, match=re.escape(told)):
        rasteret_sql.sql(s2, f"FROM rasteret_plan('s2', {arguments})")
