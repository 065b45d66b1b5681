"""rasteret 0.4.1 loads our collections and reads the same pixels as GDAL.

It needs Python 3.12, so it runs in an environment of its own, made once under pytest's
cache when ``RASTERET_INTEROP=1``.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import textwrap
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
import tifffile
from rasterio.warp import transform_bounds

from rasteret_sql.records.layout import write_collection
from rasteret_sql.records.workspace import Workspace
from rasteret_sql.schema import (
    BAND_METADATA,
    BBOX,
    DATETIME,
    EPSG,
    GEOMETRY,
    ID,
    assets_type,
    metadata_column,
)

BANDS = ("B04", "B08")
TILE = 128
ORIGIN_X, ORIGIN_Y, PIXEL = 780_000.0, 1_440_000.0, 10.0

CHECK = textwrap.dedent(
    """
    import sys, numpy as np, pyarrow.dataset as ds, rasterio, rasteret

    c = rasteret.load(sys.argv[1])
    t = c.to_table(["id", "datetime", "year", "assets", "proj:epsg"])
    print(c.name, c.data_source, sorted(c.bands), t.num_rows, t["year"].null_count)
    same = 0
    for r in t.to_pylist():
        for band in c.bands:
            with rasterio.open(r["assets"][band]["href"]) as d:
                want, b = d.read(1), d.bounds
            got = c.where(ds.field("id") == r["id"]).get_numpy(
                geometries=tuple(b), bands=[band], geometry_crs=r["proj:epsg"])[0]
            same += got.dtype == want.dtype and np.array_equal(got, want)
    print(same)
    """
)


def python312() -> str | None:
    """A Python 3.12, from the path or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = sorted(pyenv.glob("versions/3.12.*/bin/python3.12"))
    return str(found[-1]) if found else shutil.which("python3.12")


@pytest.fixture(scope="module")
def rasteret_python(pytestconfig: pytest.Config) -> str:
    base = python312()
    if os.environ.get("RASTERET_INTEROP") != "1" or base is None:
        pytest.skip("RASTERET_INTEROP=1 and python3.12 are needed")
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("rasteret-0.4.1")
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
        packages = ["rasteret==0.4.1", "rasterio"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (folder / "ready").touch()
    return str(python)


def write_tiff(path: Path, seed: int) -> None:
    """260 x 300 pixels of uint16 in deflated tiles with predictor 2, UTM 43N."""
    image = np.random.default_rng(seed).integers(0, 5000, (260, 300), dtype=np.uint16)
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32643)
    tags = [
        (33550, "d", 3, (PIXEL, PIXEL, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, ORIGIN_X, ORIGIN_Y, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42113, "s", 0, "0", True),
    ]
    tifffile.imwrite(
        path,
        image,
        tile=(TILE, TILE),
        compression="zlib",
        predictor=2,
        photometric="minisblack",
        extratags=tags,
        metadata=None,
    )


def header(path: Path) -> dict[str, object]:
    """The seventeen fields of rasteret, by tifffile."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        n_tiles = math.ceil(page.imagelength / TILE) * math.ceil(page.imagewidth / TILE)
        assert len(page.dataoffsets) == n_tiles
        return {
            "image_width": page.imagewidth,
            "image_height": page.imagelength,
            "tile_width": page.tilewidth,
            "tile_height": page.tilelength,
            "dtype": str(page.dtype),
            "transform": [PIXEL, ORIGIN_X, -PIXEL, ORIGIN_Y],
            "predictor": int(page.predictor),
            "compression": int(page.compression),
            "tile_offsets": list(page.dataoffsets),
            "tile_byte_counts": list(page.databytecounts),
            "pixel_scale": [PIXEL, PIXEL, 0.0],
            "tiepoint": [0.0, 0.0, 0.0, ORIGIN_X, ORIGIN_Y, 0.0],
            "nodata": 0.0,
            "samples_per_pixel": 1,
            "planar_configuration": 1,
            "photometric": 1,
            "extra_samples": [],
            "byte_order": "little",
            "overviews": [],
            "is_tiled": True,
            "file_size": path.stat().st_size,
        }


def records(folder: Path) -> pa.Table:
    """Three scenes of two bands, one without a datetime."""
    moments = [datetime(2024, 1, 5, 10), datetime(2024, 2, 6, 10), None]
    rows = []
    for number, moment in enumerate(moments):
        paths = {band: folder / f"{number}_{band}.tif" for band in BANDS}
        for index, path in enumerate(paths.values()):
            write_tiff(path, 10 * number + index)
        with rasterio.open(paths["B04"]) as opened:
            bounds = transform_bounds(opened.crs, "OGC:CRS84", *opened.bounds)
        rows.append(
            {
                "id": f"scene-{number}",
                "datetime": moment,
                "geometry": shapely.to_wkb(shapely.box(*bounds)),
                "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
                "assets": {b: {"href": str(p), "band_index": 0} for b, p in paths.items()},
                "proj:epsg": 32643,
                **{metadata_column(band): header(path) for band, path in paths.items()},
            }
        )
    fields = [ID, DATETIME, GEOMETRY, pa.field("bbox", BBOX)]
    fields += [pa.field("assets", assets_type(list(BANDS))), EPSG]
    fields += [pa.field(metadata_column(band), BAND_METADATA) for band in BANDS]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def test_rasteret_loads_a_workspace_collection_and_reads_its_pixels(
    rasteret_python: str, tmp_path: Path
) -> None:
    made = records(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    with workspace.build("demo", "stac") as build:
        write_collection(
            made.schema,
            iter(made.to_batches()),
            build.folder,
            info={"name": "demo", "data_source": "made"},
            first_part=build.first_part,
        )
        path = build.commit({})
    ran = subprocess.run(
        [rasteret_python, "-W", "ignore", "-c", CHECK, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["demo made ['B04', 'B08'] 3 1", "6"]
