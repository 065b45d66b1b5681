"""Pixels as rows, and their share inside an area: GDAL, exactextract and shapely."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import rasterio
import rasterio.features
import shapely
from reading import (
    test_zones,
)
from reading.agreements.cases import (
    Bench,
    Row,
    made_raster,
)
from reading.read_oracle import (
    build_files,
    call_of,
    expected_read,
    make_areas,
    opened,
    to_map,
)
from reading.test_read_property import ORIGINS, TURNS


def pixels(bench: Bench) -> Iterator[Row]:
    """Pixels as rows, on the rasters' own grids."""
    row = Row(
        "rasteret_pixels", "random rasters and polygons: which pixels, values, NULL",
        "`rasterio.features.geometry_mask`, rasterio's values and masks",
    )  # fmt: skip
    for _ in range(3 * bench.cases):
        raster, path = made_raster(bench)
        areas = bench.areas(max(raster.height, raster.width), 4)
        touched = bool(bench.rng.integers(2))
        make_areas(
            bench.con, "pieces", {name: to_map(a, raster.transform) for name, a in areas.items()}
        )
        call = call_of("rasteret_pixels", "made", bands=raster.bands, aois="pieces",
                       geometry_crs=raster.crs, all_touched=touched)  # fmt: skip
        found = bench.con.execute(f"FROM {call}").fetchnumpy()
        row.calls += 1
        area_of = np.asarray(found["area"]).astype(str)
        whole = expected_read(path)
        for name, area in areas.items():
            case = f"{raster} FROM {call} area {area.wkt}"
            mine = area_of == name
            at = found["row"][mine], found["col"][mine]
            with opened(path) as file:
                inside = rasterio.features.geometry_mask(
                    [to_map(area, file.transform)], file.shape, file.transform,
                    all_touched=touched, invert=True,
                )  # fmt: skip
            there = np.zeros(inside.shape, bool)
            there[at] = True
            row.expect(case, holds=there.sum() == mine.sum(), told="a pixel came twice")
            row.compare(case, there & inside, there & inside, there, inside)
            for number, band in enumerate(raster.bands):
                value = np.ma.asarray(found[band])[mine]
                row.compare(
                    case, np.ma.getdata(value), whole.pixels[number][at],
                    ~np.ma.getmaskarray(value), whole.valid[number][at],
                )  # fmt: skip
            if len(at[0]):
                x, y = raster.transform @ (at[1] + 0.5, at[0] + 0.5)
                moved = max(np.abs(found["x"][mine] - x).max(), np.abs(found["y"][mine] - y).max())
                near = moved <= 1e-9 * ORIGINS[raster.crs][2] + 1e-12 * 1e7
                row.expect(case, holds=bool(near), told=f"x, y are {moved:.3g} off")
    yield row
    yield from coverage(bench)


def coverage(bench: Bench) -> Iterator[Row]:
    """The share of each pixel that is inside an area."""
    exact = Row("rasteret_pixels", "`coverage := true`, north-up rasters", "exactextract",
                "within 1e-6")  # fmt: skip
    cut = Row("rasteret_pixels", "`coverage := true`, any affine",
              "`shapely.intersection` of each pixel", "within 1e-6")  # fmt: skip
    for row, turns in ((exact, ("north-up",)), (cut, tuple(TURNS))):
        for _ in range(bench.cases):
            raster, path = made_raster(
                bench, turns=turns, hides="", nodata=None, count=1, is_sparse=False, dtype="uint8"
            )
            if row is exact and raster.crs != "EPSG:32643":
                raster = raster._replace(crs="EPSG:32643")  # that of test_zones.exactextracted
                raster.write(path)
                build_files(bench.con, "made", {"one": path}, raster.bands)
            areas = bench.areas(max(raster.height, raster.width), 5)
            placed = {name: to_map(a, raster.transform) for name, a in areas.items()}
            make_areas(bench.con, "pieces", placed)
            call = call_of("rasteret_pixels", "made", aois="pieces", geometry_crs=raster.crs,
                           coverage=True)  # fmt: skip
            rows = bench.con.execute(f"SELECT area, row, col, coverage FROM {call}").fetchnumpy()
            row.calls += 1
            theirs = {}
            if row is exact:
                theirs = test_zones.exactextracted(path, placed, ["coverage", "cell_id"])
            for name, area in areas.items():
                mine = np.asarray(rows["area"]).astype(str) == name
                got = np.zeros((raster.height, raster.width))
                got[rows["row"][mine], rows["col"][mine]] = rows["coverage"][mine]
                want = np.zeros(got.shape)
                if row is exact:
                    one = theirs[name]
                    want.ravel()[one["cell_id"].astype(int)] = one["coverage"]
                else:
                    down, across = np.mgrid[: raster.height, : raster.width]
                    cells = shapely.box(across, down, across + 1, down + 1)
                    want = shapely.area(shapely.intersection(cells, area))
                seen = np.maximum(got, want) > 1e-9
                case = f"{raster} FROM {call} area {area.wkt}"
                row.compare(case, got[seen], want[seen], got[seen] > 0, want[seen] > 0,
                            tolerance=1e-6)  # fmt: skip
        yield row
