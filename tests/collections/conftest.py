"""Records to write: boxes anywhere, any day of 2023 and 2024, Sentinel-2-like tile tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely

from rasteret_sql.collections.layout import PartFile, write_collection
from rasteret_sql.collections.workspace import Workspace
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

MakeRecords = Callable[..., pa.Table]


def make_records(n: int, *, bands: tuple[str, ...] = ("B04",), seed: int = 0) -> pa.Table:
    """A table of ``n`` records; every tenth has no datetime."""
    rng = np.random.default_rng(seed)
    west, south = rng.uniform(-179, 178, n), rng.uniform(-89, 88, n)
    days = np.datetime64("2023-01-01") + rng.integers(0, 731, n)
    moments = pa.array(days.astype("M8[us]"), mask=np.arange(n) % 10 == 9)
    geometry = shapely.to_wkb(shapely.box(west, south, west + 1, south + 1))
    bounds = [pa.array(b) for b in (west, south, west + 1, south + 1)]
    assets = [
        {b: {"href": f"s3://b/{i}/{b}.tif", "band_index": 0} for b in bands} for i in range(n)
    ]
    columns = {
        "id": pa.array([f"s{seed}-{i:06d}" for i in range(n)]),
        "datetime": moments,
        "geometry": pa.array(geometry, pa.binary()),
        "bbox": pa.StructArray.from_arrays(bounds, fields=list(BBOX)),
        "assets": pa.array(assets, assets_type(list(bands))),
        "proj:epsg": pa.array([32643] * n, pa.int32()),
        "platform": pa.array(["S2A", "S2B", None][i % 3] for i in range(n)),
    }
    fields = [ID, DATETIME, GEOMETRY, pa.field("bbox", BBOX)]
    fields += [
        pa.field("assets", assets_type(list(bands))),
        EPSG,
        pa.field("platform", pa.string()),
    ]
    for band in bands:
        columns[metadata_column(band)] = headers(rng, n)
        fields.append(pa.field(metadata_column(band), BAND_METADATA))
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def headers(rng: np.random.Generator, n: int) -> pa.Array:
    """Headers of 10980 px images: 121 tiles, and two overviews."""
    found = []
    for _ in range(n):
        sizes = np.maximum(rng.normal(1.2e6, 2e5, 121 + 36 + 9), 1).astype("i8")
        offsets = 1000 + np.cumsum(sizes + 8)
        cut = [slice(0, 121), slice(121, 157), slice(157, 166)]
        tables = [
            {"tile_offsets": offsets[part].tolist(), "tile_byte_counts": sizes[part].tolist()}
            for part in cut
        ]
        found.append(
            {
                "image_width": 10980,
                "image_height": 10980,
                "tile_width": 1024,
                "tile_height": 1024,
                "dtype": "uint16",
                "transform": [10.0, 600000.0, -10.0, 1500000.0],
                "predictor": 2,
                "compression": 8,
                "nodata": 0.0,
                "overviews": [{"width": 5490, **tables[1]}, {"width": 2745, **tables[2]}],
                **tables[0],
            }
        )
    return pa.array(found, BAND_METADATA)


def built(workspace: Workspace, name: str, records: pa.Table) -> list[PartFile]:
    with workspace.build(name, "stac") as build:
        info = {"name": name, "data_source": "made"}
        parts = write_collection(
            records.schema,
            iter(records.to_batches(100)),
            build.folder,
            info=info,
            first_part=build.first_part,
        )
        build.commit({"records": records.num_rows})
    return parts


@pytest.fixture(name="make_records")
def _make_records() -> MakeRecords:
    return make_records


@pytest.fixture
def build_into() -> Callable[[Workspace, str, pa.Table], list[PartFile]]:
    return built


@pytest.fixture(scope="session")
def records() -> pa.Table:
    return make_records(500)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")
