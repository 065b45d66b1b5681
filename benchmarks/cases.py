"""What the read benchmarks read: the files of `scenes.py`, and the windows of each case.

| case | work |
| --- | --- |
| a | one area of 512 x 512 px in 15 scenes, tiles of 1024 px: 30 tiles, 34 MB |
| b | four such areas in 30 scenes, tiles of 1024 and 512 px: 320 tiles, 210 MB |
| d | 13 whole scenes: 208 tiles of 1024 px, 213 MB |
| e | 84 points, spread evenly, in 30 scenes: 800 tiles, 450 MB |
| f | the headers of 1,000 COGs with URLs of their own, 4096 px and 10980 px wide |
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

AREA_PX = 512
# Row and column of the areas on the grid of the A scenes.
AREA_A = (1100, 800)
AREAS_B = ((1100, 800), (300, 200), (2300, 1800), (1800, 2700))
SIZE_PX = 4096
N_HEADERS = 1000
N_POINTS = 84
CRS = "EPSG:32643"
# Read once before the clock starts; the alias is no URL of a case.
WARM_KEY = "B00_B04"
WARM_PATH = f"a990001/cogs/{WARM_KEY}.tif"
WARM_CRS = "EPSG:32644"

_DTYPES = {1: "u1", 3: "u2", 4: "u4", 12: "f8", 16: "u8"}
_SIZE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}


class Window(NamedTuple):
    """Pixels of one raster."""

    row: int
    col: int
    height: int
    width: int


class Piece(NamedTuple):
    """The part of a tile that a window needs, rows and columns counted in the tile."""

    tile: int
    first_row: int
    stop_row: int
    first_col: int
    stop_col: int
    # Where it goes in the window.
    row: int
    col: int


@dataclass(frozen=True)
class Cog:
    """Grid and tile ranges of a COG on disk."""

    path: str
    width: int
    tile_px: int
    x: float
    y: float
    resolution_m: float
    offsets: np.ndarray
    counts: np.ndarray

    def pieces(self, window: Window) -> Iterator[Piece]:
        row, col, height, width = window
        side = self.tile_px
        across = -(-self.width // side)
        for tile_row in range(row // side, (row + height - 1) // side + 1):
            for tile_col in range(col // side, (col + width - 1) // side + 1):
                top, left = tile_row * side, tile_col * side
                first_row, first_col = max(row, top), max(col, left)
                yield Piece(
                    tile_row * across + tile_col,
                    first_row - top,
                    min(row + height, top + side) - top,
                    first_col - left,
                    min(col + width, left + side) - left,
                    first_row - row,
                    first_col - col,
                )

    def bounds(self, window: Window) -> tuple[float, float, float, float]:
        row, col, height, width = window
        step = self.resolution_m
        left, top = self.x + col * step, self.y - row * step
        return left, top - height * step, left + width * step, top


def first_ifd(data: bytes) -> dict[int, np.ndarray]:
    """Tags of the first directory of a TIFF or BigTIFF. Raises EOFError where bytes lack."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word, entry, value_at = ("Q", "HHQ", 12) if big else ("I", "HHI", 8)
    at = struct.unpack_from(order + word, data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    at += 8 if big else 2
    tags = {}
    for start in range(at, at + count * (20 if big else 12), 20 if big else 12):
        tag, kind, n = struct.unpack_from(order + entry, data, start)
        size, place = _SIZE_BYTES[kind] * n, start + value_at
        if size > struct.calcsize(word):
            place = struct.unpack_from(order + word, data, place)[0]
        if place + size > len(data):
            raise EOFError(place + size)
        known = kind in _DTYPES
        dtype = order + _DTYPES[kind] if known else "u1"
        tags[tag] = np.frombuffer(data, dtype, n if known else size, place)
    return tags


def load_cogs(folder: Path) -> dict[str, Cog]:
    """Every COG of `scenes.py` by its name; stands for an index that is in memory."""
    cogs = {}
    for path in sorted((folder / "cogs").glob("*.tif")):
        with path.open("rb") as file:
            tags = first_ifd(file.read(65536))
        scale, tiepoint = tags[33550], tags[33922]
        cogs[path.stem] = Cog(
            f"cogs/{path.name}",
            int(tags[256][0]),
            int(tags[322][0]),
            float(tiepoint[3]),
            float(tiepoint[4]),
            float(scale[0]),
            tags[324].astype("i8"),
            tags[325].astype("i8"),
        )
    return cogs


def load_items(folder: Path, base: str) -> list[dict]:
    """The STAC items, with hrefs below `base`, the server's URL."""
    lines = (folder / "items.ndjson").read_text().splitlines()
    return [json.loads(line.replace("@BASE@", base)) for line in lines]


def areas(case: str) -> list[Window]:
    """The areas of a case, on the grid of the A scenes."""
    if case == "d":
        return [Window(0, 0, SIZE_PX, SIZE_PX)]
    if case == "e":
        places = np.random.default_rng(5).integers(0, SIZE_PX, (N_POINTS, 2)).tolist()
        return [Window(row, col, 1, 1) for row, col in places]
    corners = (AREA_A,) if case == "a" else AREAS_B
    return [Window(row, col, AREA_PX, AREA_PX) for row, col in corners]


def scene_ids(case: str) -> list[str]:
    return [f"A{scene:02d}" for scene in range({"a": 15, "b": 30, "d": 13, "e": 30}[case])]


def windows(case: str) -> list[tuple[str, Window]]:
    """File and window of every array that a client returns, in that order."""
    return [(f"{scene}_B04", area) for scene in scene_ids(case) for area in areas(case)]


def header_paths(n: int = N_HEADERS) -> list[str]:
    """Paths of `n` COGs: the server gives every file under as many names as are asked for."""
    return [
        f"a{i}/cogs/H{i // 2 % 4}.tif" if i % 2 else f"a{i}/cogs/A{i // 2 % 30:02d}_B04.tif"
        for i in range(n)
    ]
