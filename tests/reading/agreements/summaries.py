"""Histograms and pictures: NumPy over rasterio's pixels."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
from reading import (
    test_preview,
    test_read,
)
from reading.agreements.cases import (
    DATA,
    Bench,
    Row,
    is_refused,
    made_raster,
    of_record,
    truth,
)
from reading.read_oracle import (
    build_files,
    call_of,
    expected_read,
    make_areas,
    opened,
    rows_of,
    to_map,
    touches,
)

from rasteret_sql.reading.tile_store import STORE


def histograms(bench: Bench) -> Iterator[Row]:
    """Bins of values."""
    row = Row("rasteret_histogram", "random rasters under random polygons", "`numpy.histogram`",
              "counts and edges equal")  # fmt: skip
    for _ in range(3 * bench.cases):
        raster, path = made_raster(bench)
        areas = bench.areas(max(raster.height, raster.width), 4)
        placed = {name: to_map(area, raster.transform) for name, area in areas.items()}
        make_areas(bench.con, "pieces", placed)
        touched = bool(bench.rng.integers(2))
        options = {"bins": int(bench.rng.integers(1, 40)), "all_touched": touched}
        if bench.rng.integers(2):
            options["value_range"] = [10, int(bench.rng.integers(20, 120))]
        call = call_of("rasteret_histogram", "made", bands=raster.bands, aois="pieces",
                       geometry_crs=raster.crs, **options)  # fmt: skip
        found = rows_of(bench.con, f"FROM {call}")
        row.calls += 1
        for (name, area), band in ((a, b) for a in areas.items() for b in raster.bands):
            own = [one for one in found if (one["area"], one["band"]) == (name, band)]
            _bins_of(row, f"{raster} FROM {call} area {area.wkt}", own, path, area,
                     raster.bands.index(band), options)  # fmt: skip
    yield row
    row = Row("rasteret_histogram", "real files, whole", "`numpy.histogram`",
              "counts and edges equal")  # fmt: skip
    for path in bench.built(bench.real_files(2 * bench.cases)):
        if truth()[path]["dtype"].startswith("complex"):
            continue
        options = {"bins": int(bench.rng.integers(1, 300))}
        call = call_of("rasteret_histogram", of_record(path), bands=["band"], **options)
        try:
            found = rows_of(bench.con, f"FROM {call}")
        except duckdb.Error as error:
            row.expect(call, holds=is_refused(error), told=str(error))
            continue
        row.calls += 1
        _bins_of(row, f"FROM {call}", found, DATA / path, None, 0, options)
    yield row


def _bins_of(row, case, found, path, area, index, options):
    want = expected_read(path, geometry_px=area, indexes=[index + 1],
                         all_touched=options.get("all_touched", False))  # fmt: skip
    if not found:
        row.expect(case, holds=want is None or not touches(path, area), told="no row")
        return
    if want is None:
        row.expect(case, holds=not any(one["count"] for one in found), told="rows of no pixel")
        return
    values = want.pixels[want.valid].astype(float)
    values = values[np.isfinite(values)]
    limits = options.get("value_range")
    count, edges = np.histogram(values, options["bins"], limits)
    row.compare(case, [one["count"] for one in found], count)
    if len(values) or limits:
        ours = [[one["low"], one["high"]] for one in found]
        row.compare(case, ours, np.stack([edges[:-1], edges[1:]], axis=1))


def previews(bench: Bench) -> Iterator[Row]:
    """Pictures."""
    oracle = "NumPy over rasterio's read of the overview"
    rule = "transparency equal, colours within 1, at most 0.1 % differ"
    row = Row("rasteret_preview", "random rasters and widths, percentiles or `rescale`", oracle,
              rule)  # fmt: skip
    for number in range(bench.cases):
        height, width = (int(n) for n in bench.rng.integers(40, 260, 2))
        path = test_read.write(
            bench.folder / "preview.tif",
            test_read.noise((1, height, width), low=0, high=6000, seed=number),
            overviews=[2, 4], nodata=3,
        )  # fmt: skip
        build_files(bench.con, "made", {"a": path})
        low, high = sorted(bench.rng.choice(6000, 2, replace=False).tolist())
        rescale = [low, high] if number % 2 else None
        _preview_of(bench, row, "made", path, int(bench.rng.integers(10, 90)), rescale)
    _one_in_a_thousand(row)
    yield row
    row = Row("rasteret_preview", "real files, percentiles", oracle, rule)
    for path in bench.built(bench.real_files(bench.cases)):
        with opened(DATA / path) as file:
            is_class = file.colorinterp[0].name == "palette"
        if not is_class and not truth()[path]["dtype"].startswith("complex"):
            width = int(bench.rng.integers(10, 60))
            _preview_of(bench, row, of_record(path), DATA / path, width, None)
    _one_in_a_thousand(row)
    yield row


def _one_in_a_thousand(row: Row) -> None:
    row.expect("all pictures", holds=row.unequal <= 0.001 * row.values,
               told=f"{row.unequal} of {row.values} colours differ")  # fmt: skip


def _preview_of(bench, row, collection, path, width, rescale):
    call = call_of("rasteret_preview", collection, bands=["band"], width=width, rescale=rescale)
    case = f"FROM {call}"
    STORE.clear()
    try:
        (one,) = rows_of(bench.con, f"FROM {call}")
    except duckdb.Error as error:
        row.expect(case, holds=is_refused(error), told=str(error))
        return
    row.calls += 1
    with opened(path) as file:
        full = file.height, file.width
        sizes = [file.width, *(-(-file.width // factor) for factor in file.overviews(1))]
    out = min(width, full[1])
    level = max(k for k, size in enumerate(sizes) if size >= out)
    row.expect(case, holds=one["level"] == level, told=f"level {one['level']}, expected {level}")
    whole = expected_read(path, indexes=[1], level=one["level"])
    known = whole.valid[0] & np.isfinite(whole.pixels[0])
    size = whole.pixels.shape[1:]  # of the level: rounding up may add a row of the picture
    shape = max(1, round(size[0] * out / size[1])), out
    row.expect(case, holds=(one["height"], one["width"]) == shape, told=f"shape is not {shape}")
    values, valid = test_preview.boxed(
        whole.pixels[0].astype(float), known, one["height"], one["width"]
    )
    got = test_preview.picture(one)
    row.compare(case, got[..., 3], np.where(valid, 255, 0))
    if not valid.any():
        return
    low, high = rescale or np.percentile(values[valid], [2, 98])
    if low < high:
        want = test_preview.bytes_of(values, low, high)
        row.compare(case, got[..., 0][valid], want[valid], tolerance=1)
