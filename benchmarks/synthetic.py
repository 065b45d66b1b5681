"""Collections of many records without files, for benchmarks of what needs no pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from cases import load_items
from pyproj import Transformer

import rasteret_sql
from rasteret_sql.collections.layout import write_collection
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.schema import metadata_column

BAND = "B04"
BATCH_RECORDS = 20_000
FIRST_DATE = np.datetime64("2020-01-01T05:20", "us")
N_ZONES = 60


def template(folder: Path, work: Path, name: str) -> pa.Table:
    """The record of one file of `scenes.py`, with its header."""
    item = load_items(folder, str(folder.resolve()))[0]
    item["id"] = name
    item["assets"] = {BAND: {"href": str(folder.resolve() / "cogs" / f"{name}.tif")}}
    source = work / f"{name}.ndjson"
    source.write_text(json.dumps(item) + "\n")
    with rasteret_sql.connect(workspace=work / "templates") as con:
        con.execute(
            "FROM rasteret_build_stac($name, stac_api := $items, force := true)",
            {"name": name, "items": str(source)},
        ).fetchall()
    (path,) = (work / "templates" / f"{name}_stac").rglob("*.parquet")
    return pq.ParquetFile(path).read()


class Places:
    """Grids of the template's size, one for each of `n` places; the first is the template's own."""

    def __init__(self, record: pa.Table, n: int) -> None:
        header = record[metadata_column(BAND)][0].as_py()
        step, left, _, top = header["transform"]
        rng = np.random.default_rng(0)
        self.epsg = rng.integers(0, N_ZONES, n) + 32601
        self.left = np.round(rng.uniform(200_000, 700_000, n), -1)
        self.top = np.round(rng.uniform(200_000, 7_500_000, n), -1)
        self.epsg[0], self.left[0], self.top[0] = record["proj:epsg"][0].as_py(), left, top
        width, height = header["image_width"] * step, header["image_height"] * step
        self.bounds = np.empty((n, 4))
        for epsg in np.unique(self.epsg):
            here = self.epsg == epsg
            west, north = self.left[here], self.top[here]
            to_lonlat = Transformer.from_crs(int(epsg), 4326, always_xy=True)
            for i, (x, y) in enumerate(zip(west, north, strict=True)):
                box = to_lonlat.transform_bounds(x, y - height, x + width, y)
                self.bounds[np.flatnonzero(here)[i]] = box
        zero, size = np.zeros(n), np.full(n, step)
        columns = {
            "transform": (size, self.left, -size, self.top),
            "affine": (size, zero, self.left, zero, -size, self.top),
            "tiepoint": (zero, zero, zero, self.left, self.top, zero),
        }
        self.fields = {name: np.stack(values, axis=1) for name, values in columns.items()}
        self.footprints = np.array(shapely.to_wkb(shapely.box(*self.bounds.T)), object)


def records(record: pa.Table, n_places: int, n_dates: int) -> Iterator[pa.RecordBatch]:
    """`n_places` x `n_dates` records with ids, dates, clouds and tile ranges of their own."""
    places = Places(record, n_places)
    rng = np.random.default_rng(1)
    for start in range(0, n_places * n_dates, BATCH_RECORDS):
        numbers = np.arange(start, min(start + BATCH_RECORDS, n_places * n_dates))
        place, date = numbers % n_places, numbers // n_places
        ids = [f"R{number:08d}" for number in numbers]
        spread = date * np.timedelta64(1826 * 86_400_000_000 // n_dates, "us")
        bounds = [pa.array(side) for side in places.bounds[place].T]
        fields = list(record.schema.field("bbox").type)
        columns = {
            "id": pa.array(ids),
            "datetime": pa.array(FIRST_DATE + spread),
            "geometry": pa.array(places.footprints[place], pa.binary()),
            "bbox": pa.StructArray.from_arrays(bounds, fields=fields),
            "assets": assets(record, ids),
            "proj:epsg": pa.array(places.epsg[place].astype("i4")),
            "crs": pa.array([f"EPSG:{epsg}" for epsg in places.epsg[place]]),
            "proj:code": pa.array([f"EPSG:{epsg}" for epsg in places.epsg[place]]),
            "eo:cloud_cover": pa.array(rng.uniform(0, 100, len(numbers))),
            metadata_column(BAND): headers(record, places, place, rng),
        }
        repeated = record.take(np.zeros(len(numbers), "i8"))
        arrays = [
            columns.get(field.name, repeated[field.name].combine_chunks())
            for field in record.schema
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=record.schema)


def assets(record: pa.Table, ids: list[str]) -> pa.Array:
    kind = record.schema.field("assets").type
    hrefs = pa.array([f"https://example.com/scenes/{name}/{BAND}.tif" for name in ids])
    fields = list(kind.field(BAND).type)
    values = [hrefs, pa.nulls(len(ids), fields[1].type)]
    asset = pa.StructArray.from_arrays(values, fields=fields)
    return pa.StructArray.from_arrays([asset], fields=list(kind))


def headers(record: pa.Table, places: Places, place: np.ndarray, rng) -> pa.Array:
    """The template's header at other places, with tiles of other lengths."""
    header = record[metadata_column(BAND)].combine_chunks()
    n, n_tiles = len(place), len(header.field("tile_offsets")[0])
    counts = rng.integers(600_000, 1_400_000, (n, n_tiles))
    lists = {name: values[place] for name, values in places.fields.items()}
    lists |= {"tile_byte_counts": counts, "tile_offsets": 4096 + counts.cumsum(axis=1) - counts}
    repeated = header.take(pa.array(np.zeros(n, "i8")))
    arrays = []
    for field in header.type:
        if field.name in lists:
            values = lists[field.name]
            offsets = pa.array(np.arange(n + 1, dtype="i4") * values.shape[1])
            flat = pa.array(values.reshape(-1), field.type.value_type)
            arrays.append(pa.ListArray.from_arrays(offsets, flat, type=field.type))
        else:
            arrays.append(repeated.field(field.name))
    return pa.StructArray.from_arrays(arrays, fields=list(header.type))


def write(workspace: Path, name: str, record: pa.Table, n_places: int, n_dates: int) -> int:
    """Write a collection into a workspace, as a build does; gives its bytes."""
    with Workspace(workspace).build(name, "records", force=True) as build:
        parts = write_collection(
            record.schema,
            records(record, n_places, n_dates),
            build.folder,
            info={"name": name, "data_source": "synthetic"},
            first_part=build.first_part,
        )
        build.commit({})
    return sum(part.size_bytes for part in parts)
