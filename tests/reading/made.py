"""Files that exist in memory alone, collections of them, and an output that shows its pixels."""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql.errors import ReadError, TruncatedError
from rasteret_sql.reading.counters import Counters
from rasteret_sql.reading.footprints import Footprints
from rasteret_sql.reading.patches import pixels_of
from rasteret_sql.reading.pipeline import Pipeline
from rasteret_sql.reading.plan import Granularity
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import scene_table
from rasteret_sql.reading.targets import Targets
from rasteret_sql.reading.tile_store import TileStore
from rasteret_sql.schema import BAND_METADATA, assets_type, metadata_column

UNCOMPRESSED, DEFLATE = 1, 8
PIXEL = 10.0
"""Map units: pixels of made files start at (0, 0) and go down."""


def encoded(values, compression):
    """A block as a file holds it."""
    data = np.ascontiguousarray(values).tobytes()
    return zlib.compress(data, 1) if compression == DEFLATE else data


def header(values, tile, offsets, counts, compression, **more) -> dict[str, Any]:
    """`BAND_METADATA` of one band."""
    height, width = values.shape
    return {
        "image_width": width,
        "image_height": height,
        "tile_width": tile[1],
        "tile_height": tile[0],
        "dtype": values.dtype.name,
        "affine": [PIXEL, 0, 0, 0, -PIXEL, 0],
        "compression": compression,
        "tile_offsets": offsets,
        "tile_byte_counts": counts,
        "samples_per_pixel": 1,
        "planar_configuration": 1,
        "photometric": 1,
        "byte_order": "little",
        "bits_per_sample": values.dtype.itemsize * 8,
        "is_tiled": True,
    } | more


@dataclass
class Files:
    """What `get_range` reads in a test, and what it was asked for.

    Attributes:
        broken: Files whose requests fail.
        hanging: Files whose requests wait until `go` is set.
        pause_s: How long each request takes.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    go: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    pause_s: float = 0.0

    def add(self, href, values, tile=(16, 16), compression=DEFLATE, *, gap=0, sparse=(), **more):
        """Lay the blocks of a band one after another; ``gap`` bytes lie between them."""
        rows, cols = (-(-n // t) for n, t in zip(values.shape, tile, strict=True))
        padded = np.zeros((rows * tile[0], cols * tile[1]), values.dtype)
        padded[: values.shape[0], : values.shape[1]] = values
        body, offsets, counts = bytearray(b"start" * 4), [], []
        for number, (row, col) in enumerate(itertools.product(range(rows), range(cols))):
            block = padded[row * tile[0] :, col * tile[1] :][: tile[0], : tile[1]]
            data = b"" if number in sparse else encoded(block, compression)
            offsets.append(len(body) if data else 0)
            counts.append(len(data))
            body += data + bytes(gap)
        self.contents[href] = bytes(body)
        self.values[href] = values
        more = {"etag": "v1"} | more
        self.headers[href] = header(values, tile, offsets, counts, compression, **more)
        return href

    def get_range(self, href, start, length):
        """In place of `rasteret_sql.remote.ranges.get_range`."""
        self.asked.append((href, start, length))
        if href in self.hanging:
            self.arrived.set()
            assert self.go.wait(20), "the test let a request hang"
        if self.pause_s:
            time.sleep(self.pause_s)
        if href in self.broken:
            raise ReadError(f"{href}: broken")
        data = self.contents[href][start : start + length]
        if len(data) < length:
            raise TruncatedError(f"{href}: {length - len(data)} bytes are missing")
        return data

    def counts(self):
        """How often each range was asked for."""
        return Counter(self.asked)


def records(files: Files, scenes, crs="EPSG:32633") -> pa.RecordBatch:
    """Records of a collection; ``scenes`` are dictionaries of band and href."""
    bands = list(dict.fromkeys(band for scene in scenes for band in scene))
    assets = [
        {band: {"href": scene[band], "band_index": 0} if band in scene else None for band in bands}
        for scene in scenes
    ]
    columns = {
        "id": pa.array([f"s{n}" for n in range(len(scenes))]),
        "assets": pa.array(assets, assets_type(bands)),
        "crs": pa.array([crs] * len(scenes), pa.string()),
    }
    for band in bands:
        values = [files.headers[scene[band]] if band in scene else None for scene in scenes]
        columns[metadata_column(band)] = pa.array(values, BAND_METADATA)
    return pa.RecordBatch.from_pydict(columns)


def table_of(files, scenes, **options):
    """A scene table; hrefs alone stand for scenes with one band `b`."""
    scenes = [{"b": scene} if isinstance(scene, str) else scene for scene in scenes]
    bands = list(dict.fromkeys(band for scene in scenes for band in scene))
    return scene_table(records(files, scenes, **options), bands)


def planner(table, areas=None, granularity=Granularity.WINDOW, crs=None, **options):
    """A planner for all bands of a table; ``areas`` in pixels unless ``crs`` says otherwise."""
    asked = {
        name: options.pop(name)
        for name in ("level", "all_touched", "masked", "on_error")
        if name in options
    }
    request = ReadRequest(tuple(table.bands), **asked)
    targets = None if areas is None else Targets(areas, crs)
    footprints = Footprints(targets, all_touched=request.all_touched)
    return Planner(request, footprints, granularity, **options)


def plans_of(table, areas=None, granularity=Granularity.WINDOW, **options):
    return list(planner(table, areas, granularity, **options).plans(table))


SCHEMA = pa.schema(
    [
        ("scene", pa.int64()),
        ("target", pa.int64()),
        ("window", pa.list_(pa.int64())),
        ("pixels", pa.list_(pa.large_binary())),
        ("error", pa.string()),
    ]
)


class Shown:
    """An output whose rows are the pixels of units.

    Args:
        per_batch: Bytes that make a batch.
        may_fail: Whether an error is a row; else it is raised.
    """

    def __init__(self, per_batch=1, *, may_fail=False):
        self.per_batch = per_batch
        self.may_fail = may_fail
        self.threads: set[str] = set()
        self.largest_in_flight = 0
        self.pipeline: Pipeline | None = None
        self.on_work = lambda _group: None

    def weights(self, plan):
        window = plan.units.window
        pixels = (window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])
        return pixels * len(plan.bands) * 2

    def group_bytes(self):
        return self.per_batch

    def work(self, group):
        self.threads.add(threading.current_thread().name)
        if self.pipeline is not None:
            self.largest_in_flight = max(self.largest_in_flight, self.pipeline._in_flight)
        self.on_work(group)
        rows = [self._row(group, unit) for unit in range(group.start, group.stop)]
        return pa.RecordBatch.from_pylist(rows, SCHEMA)

    def _row(self, group, unit):
        units = group.plan.units
        row = {
            "scene": int(units.scene[unit]),
            "target": int(units.target[unit]),
            "window": units.window[unit].tolist(),
        }
        patches = group.patches(unit)
        error = next((patch.error for patch in patches if patch.error is not None), None)
        if error is not None:
            if not self.may_fail:
                raise error
            return row | {"error": error.message}
        kept = [None if patch.kind is None else pixels_of(patch).tobytes() for patch in patches]
        return row | {"pixels": kept}

    def failed(self, plan, failures):
        rows = [{"scene": one.scene, "target": -1, "error": one.error.message} for one in failures]
        return pa.RecordBatch.from_pylist(rows, SCHEMA)


@dataclass
class Run:
    """One run of the pipeline with what it shares."""

    store: TileStore = field(default_factory=TileStore)
    stop: threading.Event = field(default_factory=threading.Event)
    counters: Counters = field(default_factory=Counters)
    output: Shown = field(default_factory=Shown)

    def batches(self, plans, **options):
        pipeline = Pipeline(
            self.output, self.stop, store=self.store, counters=self.counters, **options
        )
        self.output.pipeline = pipeline
        return pipeline.run(iter(plans))

    def rows(self, plans, **options):
        return [row for batch in self.batches(plans, **options) for row in batch.to_pylist()]


def in_thread(call):
    """Start a call; a list that gets its result or error, and the thread."""
    results: list[Any] = []

    def work():
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            results.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return results, thread


def until(is_true, seconds=5.0):
    """Whether something comes true in time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if is_true():
            return True
        time.sleep(0.005)
    return bool(is_true())
