"""Tiles and windows on the rasters' own grids: rasterio is the oracle."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
from affine import TransformNotInvertibleError
from reading.agreements.cases import (
    DATA,
    Bench,
    Row,
    is_refused,
    made_raster,
    of_record,
    off_by,
    truth,
    widened,
)
from reading.read_oracle import (
    call_of,
    decoded,
    expected_read,
    make_areas,
    numpy_type,
    opened,
    rows_of,
    to_map,
    touches,
)


def read_tiles(bench: Bench) -> Iterator[Row]:
    """Whole tiles."""
    oracle = "rasterio `read(window=)` and its masks"
    exact = Row("rasteret_read_tiles", "real files, every level, masked or not", oracle)
    lossy = Row(
        "rasteret_read_tiles", "real files with JPEG or WebP", oracle,
        "a mean of less than 1 (decoders differ)",
    )  # fmt: skip
    for row, n in ((exact, 4 * bench.cases), (lossy, bench.cases)):
        for path in bench.built(bench.real_files(n, lossy=row is lossy)):
            with opened(DATA / path) as file:
                levels = 1 + len(file.overviews(1))
            for level in range(levels):
                for masked in (True, False):
                    _tiles_of(bench, row, path, level, masked=masked, is_lossy=row is lossy)
        yield row


def _tiles_of(
    bench: Bench, row: Row, path: str, level: int, *, masked: bool, is_lossy: bool
) -> None:
    call = call_of("rasteret_read_tiles", of_record(path), level=level, masked=masked)
    case = f"FROM {call}"
    try:
        tiles = rows_of(bench.con, f"FROM {call}")
    except duckdb.Error as error:
        row.expect(case, holds=is_refused(error), told=str(error))
        return
    row.calls += 1
    whole = expected_read(DATA / path, indexes=[1], level=level, masked=masked)
    n_tiled = 0
    offs = []
    for tile in tiles:
        at = np.s_[tile["row_off"] : tile["row_off"] + tile["height"]]
        at = at, np.s_[tile["col_off"] : tile["col_off"] + tile["width"]]
        want = whole.pixels[0][at]
        shape = tile["height"], tile["width"]
        got = np.frombuffer(tile["pixels"], numpy_type(tile["dtype"])).reshape(shape)
        if shape != want.shape:
            row.compare(f"{case}, row_off {tile['row_off']}, col_off {tile['col_off']}", got, want)
            continue
        got = widened(got, want.dtype)
        n_tiled += got.size
        if is_lossy:
            off = off_by(got, want)
            offs.append(off)
            row.add(case, got.size, 0, off.ravel())
            continue
        row.compare(case, got, want)
        if masked:
            n_valid = int(whole.valid[0][at].sum())
            row.expect(
                case, holds=tile["valid_count"] == n_valid,
                told=f"valid_count {tile['valid_count']}, the oracle's is {n_valid}",
            )  # fmt: skip
    row.expect(case, holds=n_tiled == whole.pixels[0].size, told="tiles do not cover the raster")
    if offs:
        mean = sum(off.sum() for off in offs) / sum(off.size for off in offs)
        row.expect(case, holds=mean < 1, told=f"mean difference {mean:.2f}")


def read_windows(bench: Bench) -> Iterator[Row]:
    """Windows under polygons, on the rasters' own grids."""
    mask = "`rasterio.mask.mask`"
    kinds = {
        "real files, pixels by their centre": {},
        "real files, `all_touched`": {"all_touched": True},
        "real files, overviews": {"level": 1},
        "real files, `masked := false`": {"masked": False},
        "real files, `crop := false`": {"crop": False},
    }
    for what, how in kinds.items():
        n = (2 if "level" in how else 4) * bench.cases
        files = bench.built(bench.real_files(n, overviews="level" in how))
        row = Row("rasteret_read", what, mask)
        if how.get("masked", True) is False:
            row.oracle = "rasterio `read(window=)`"
        for path in files:
            entry = truth()[path]
            areas = bench.areas(max(entry["width"], entry["height"]), 3)
            make_areas(bench.con, "pieces", areas)
            options = {"aois": "pieces", "geometry_crs": "pixel"} | how
            _windows_of(bench, row, of_record(path), DATA / path, ["band"], areas, options)
        yield row
    row = Row("rasteret_read", "random rasters and polygons, 7 CRSs, 6 affines", mask)
    for _ in range(3 * bench.cases):
        raster, path = made_raster(bench)
        areas = bench.areas(max(raster.height, raster.width), 6)
        make_areas(
            bench.con, "pieces", {name: to_map(a, raster.transform) for name, a in areas.items()}
        )
        flags = ("all_touched", "crop", "masked")
        how = {flag: bool(bench.rng.integers(2)) for flag in flags}
        options = {"aois": "pieces", "geometry_crs": raster.crs} | how
        _windows_of(bench, row, "made", path, raster.bands, areas, options, case=str(raster))
    yield row


def _windows_of(bench, row, collection, path, bands, areas, options, case=""):
    call = call_of("rasteret_read", collection, bands=list(bands), valid=True, **options)
    try:
        got = {r["area"]: decoded(r, bands) for r in rows_of(bench.con, f"FROM {call}")}
    except duckdb.Error as error:
        row.expect(call, holds=is_refused(error), told=str(error))
        return
    row.calls += 1
    how = {
        name: options[name]
        for name in ("all_touched", "crop", "masked", "level")
        if name in options
    }
    for name, area in areas.items():
        told = f"{case} {call} area {area.wkt}".strip()
        try:
            want = expected_read(path, geometry_px=area, indexes=range(1, 1 + len(bands)), **how)
        except TransformNotInvertibleError:
            continue  # rasterio has no windows where all pixels are one place
        one = got.get(name)
        if one is None or want is None:
            # where bounds overlap and areas do not: no row, or one without data
            is_outside = not touches(path, area)
            if not (is_outside or (one is None and want is None)):
                row.unlike += 1
                row.broken.append(f"{told}: a window is in one alone")
            continue
        values = np.stack([widened(v, want.pixels.dtype) for v in one.bands.values()])
        row.compare(told, values, want.pixels)
        if how.get("masked", True):
            unlike = int(np.count_nonzero(one.valid != want.valid))
            row.unlike += unlike
            row.expect(told, holds=not unlike, told=f"validity of {unlike} pixels")
        if one.transform is not None:
            size = max(abs(n) for i, n in enumerate(want.transform[:6]) if i not in (2, 5))
            moved = np.abs(np.array(one.transform[:6]) - want.transform[:6]).max()
            scale = max(abs(n) for n in want.transform[:6])
            near = moved <= 1e-9 * size + 1e-12 * scale
            row.expect(told, holds=bool(near), told=f"transform is {moved:.3g} off")
