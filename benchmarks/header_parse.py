"""How fast a header parses when its bytes are at hand, beside tifffile.

python benchmarks/header_parse.py [--number 50] [--repeat 300] [FILE ...]
"""

from __future__ import annotations

import argparse
import io
import timeit
from pathlib import Path

import numpy as np
import rasterio
import tifffile
from rasterio.io import MemoryFile

from rasteret_sql.tiff.header import parse_header


def made_cog(*, side: int = 10_980, block: int = 1024) -> bytes:
    """A sparse COG of the layout of a Sentinel-2 band: 121 tiles and its overviews."""
    with MemoryFile() as memory:
        with memory.open(
            driver="COG", width=side, height=side, count=1, dtype="uint16", crs="EPSG:32633",
            transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), nodata=0, blocksize=block,
            compress="deflate",
        ) as target:  # fmt: skip
            target.write(np.zeros((side, side), "uint16"), 1)
        return memory.read()


def with_tifffile(data: bytes) -> None:
    """Read what the engine needs of every page: tables, shape and type."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for page in file.pages:
            assert page.dataoffsets
            assert page.databytecounts
            assert page.dtype


def main() -> None:
    """Print microseconds per header."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--number", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=300)
    options = parser.parse_args()
    files = {path.name: path.read_bytes() for path in options.files}
    files = files or {"made COG": made_cog(), "made COG, no overview": made_cog(side=1024)}
    print(f"{'file':32} {'levels':>6} {'tiles':>6} {'ours us':>8} {'tifffile us':>11} {'ratio':>5}")
    for name, data in files.items():
        header = parse_header(data)
        times = [
            min(timeit.repeat(lambda call=call, data=data: call(data),
                              number=options.number, repeat=options.repeat)) / options.number
            for call in (parse_header, with_tifffile)
        ]  # fmt: skip
        print(
            f"{name[:32]:32} {1 + len(header.overviews):6} {header.image.tile_offsets.size:6}"
            f" {times[0] * 1e6:8.1f} {times[1] * 1e6:11.1f} {times[1] / times[0]:5.1f}"
        )


if __name__ == "__main__":
    main()
