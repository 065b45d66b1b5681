"""Other libraries as clients of the read benchmarks; `make bench-peers` runs them.

They run in an environment of their own and import nothing of this project.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
from cases import (
    CRS,
    WARM_CRS,
    WARM_KEY,
    WARM_PATH,
    Window,
    areas,
    header_paths,
    load_cogs,
    load_items,
    scene_ids,
    windows,
)

PEERS = ("rasterio-16", "async-geotiff", "rasteret")
# What GDAL's and rasterio's guides advise for COGs over HTTP.
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
    "GDAL_CACHEMAX": "512",
    "CPL_VSIL_CURL_CACHE_SIZE": "200000000",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
}


def prepare(name: str, base: str, folder: Path, work: Path, case: str) -> Callable[[], list]:
    """Do what is not timed; the function that is returned is. It gives arrays in order."""
    client = {"rasterio-16": rasterio, "async-geotiff": async_geotiff, "rasteret": rasteret}[name]
    return client(base, folder, work, case)


def windows_of_files(case: str) -> dict[str, list[tuple[int, Window]]]:
    """Every file is opened once: its windows, each with its place in the output."""
    files: dict[str, list[tuple[int, Window]]] = {}
    for place, (name, window) in enumerate(windows(case)):
        files.setdefault(name, []).append((place, window))
    return files


def in_order(parts: list[list[tuple[int, np.ndarray]]]) -> list[np.ndarray]:
    arrays = dict(pair for part in parts for pair in part)
    return [arrays[place] for place in range(len(arrays))]


def rasterio(base: str, folder: Path, work: Path, case: str) -> Callable[[], list]:  # noqa: ARG001
    os.environ.update(GDAL_OPTIONS)
    import rasterio
    from rasterio import windows as rio

    def open_and_read(path: str, wanted: list[tuple[int, Window]]):
        with rasterio.open(f"{base}/{path}") as file:
            return [
                (place, file.read(1, window=rio.Window(w.col, w.row, w.width, w.height)))
                for place, w in wanted
            ]

    def open_only(path: str) -> int:
        with rasterio.open(f"{base}/{path}") as file:
            return file.width

    open_and_read(WARM_PATH, [(0, Window(0, 0, 8, 8))])
    pool = ThreadPoolExecutor(16)
    list(pool.map(lambda _: None, range(16)))
    if case == "f":
        return lambda: list(pool.map(open_only, header_paths()))
    files = windows_of_files(case)
    paths = [f"cogs/{name}.tif" for name in files]
    return lambda: in_order(list(pool.map(open_and_read, paths, files.values())))


def async_geotiff(base: str, folder: Path, work: Path, case: str) -> Callable[[], list]:  # noqa: ARG001
    from async_geotiff import GeoTIFF
    from async_geotiff import Window as GeoTIFFWindow
    from async_tiff import TIFF
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(f"{base}/", client_options={"allow_http": True})
    loop = asyncio.new_event_loop()

    async def open_and_read(path: str, wanted: list[tuple[int, Window]]):
        file = await GeoTIFF.open(path, store=store)
        reads = [
            file.read(
                window=GeoTIFFWindow(col_off=w.col, row_off=w.row, width=w.width, height=w.height)
            )
            for _, w in wanted
        ]
        arrays = await asyncio.gather(*reads)
        return [(place, a.data[0]) for (place, _), a in zip(wanted, arrays, strict=True)]

    slots = asyncio.Semaphore(256)

    async def open_only(path: str):
        async with slots:
            return await TIFF.open(path, store=store)

    async def open_all():
        return await asyncio.gather(*map(open_only, header_paths()))

    async def read_all():
        files = windows_of_files(case).items()
        reads = [open_and_read(f"cogs/{name}.tif", wanted) for name, wanted in files]
        return in_order(await asyncio.gather(*reads))

    loop.run_until_complete(open_and_read(WARM_PATH, [(0, Window(0, 0, 8, 8))]))
    if case == "f":
        return lambda: [
            np.array(file.ifds[0].tile_offsets, "i8")
            for file in loop.run_until_complete(open_all())
        ]
    return lambda: loop.run_until_complete(read_all())


def rasteret(base: str, folder: Path, work: Path, case: str) -> Callable[[], list]:
    logging.disable(logging.WARNING)
    import pyarrow as pa
    import pyarrow.dataset as ds
    import rasteret
    import shapely
    from rasteret.fetch.header_parser import AsyncCOGHeaderParser

    allow_http()

    async def parse(urls: list[str]):
        async with AsyncCOGHeaderParser() as parser:
            return await parser.process_cog_headers_batch(urls)

    if case == "f":
        urls = [f"{base}/{path}" for path in header_paths()]
        asyncio.run(parse([f"{base}/{WARM_PATH}"]))
        return lambda: [np.array(m.tile_offsets, "i8") for m in asyncio.run(parse(urls))]
    cogs = load_cogs(folder)
    warm = rasteret.load(str(work / "rasteretwarm_records"))
    corner = shapely.box(*cogs[WARM_KEY].bounds(Window(0, 0, 8, 8)))
    warm.get_numpy(geometries=corner, geometry_crs=int(WARM_CRS[5:]), bands=["B04"])
    collection = rasteret.load(str(work / "rasteret_records"))
    scenes = collection.where(ds.field("id").isin(scene_ids(case)))
    boxes = [shapely.box(*cogs["A00_B04"].bounds(area)) for area in areas(case)]
    geometries = boxes[0] if len(boxes) == 1 else pa.array(shapely.to_wkb(boxes))
    return lambda: list(
        scenes.get_numpy(geometries=geometries, geometry_crs=int(CRS[5:]), bands=["B04"])
    )


def allow_http() -> None:
    """Let rasteret 0.4.1 read plain http, which it refuses."""
    import rasteret.fetch.cog

    rasteret.fetch.cog._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"  # noqa: SLF001


def build_rasteret(folder: Path, work: Path, base: str) -> None:
    """Build rasteret's collections below `work`."""
    import pyarrow as pa
    import rasteret
    import shapely

    allow_http()

    def build(name: str, items: list[dict], href: Callable[[dict], str]) -> None:
        when = [datetime.fromisoformat(item["properties"]["datetime"]) for item in items]
        table = pa.table(
            {
                "id": [item["id"] for item in items],
                "datetime": pa.array([t.replace(tzinfo=None) for t in when], pa.timestamp("us")),
                "geometry": [shapely.to_wkb(shapely.geometry.shape(i["geometry"])) for i in items],
                "assets": [{"B04": {"href": href(item)}} for item in items],
                "proj:epsg": pa.array([i["properties"]["proj:epsg"] for i in items], pa.int32()),
            }
        )
        rasteret.build_from_table(
            table, name=name, data_source="bench", workspace_dir=str(work), enrich_cog=True,
            band_codes=["B04"], force=True,
        )  # fmt: skip

    items = load_items(folder, base)
    build("rasteret", items, lambda item: item["assets"]["B04"]["href"])
    warm = [item for item in items if item["id"] == "B00"]
    build("rasteretwarm", warm, lambda _: f"{base}/{WARM_PATH}")
