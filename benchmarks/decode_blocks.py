"""How fast blocks decode: full tiles by codec, the first rows only, and threads.

python benchmarks/decode_blocks.py [--repeat 15]
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import imagecodecs
import numpy as np

from rasteret_sql.tiff.codecs import decode_block
from rasteret_sql.tiff.layout import BlockFormat

SIDE = 1024
FORMAT = BlockFormat(
    compression=8,
    predictor=2,
    photometric=1,
    dtype="uint16",
    byte_order="little",
    bits_per_sample=16,
    samples=1,
    tile_height=SIDE,
    tile_width=SIDE,
)


def scene(seed: int = 0) -> np.ndarray:
    """Reflectances that deflate to about half their size, like Sentinel-2."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(2500, 900, (SIDE // 32 + 1, SIDE // 32 + 1))
    smooth = coarse.repeat(32, 0).repeat(32, 1)[:SIDE, :SIDE]
    return np.clip(smooth + rng.normal(0, 14, (SIDE, SIDE)), 1, 12000).astype(np.uint16)


def cases(pixels: np.ndarray) -> dict[str, tuple[bytes, BlockFormat]]:
    """Name to (block, format)."""
    delta = imagecodecs.delta_encode(pixels, axis=-1)
    swapped = imagecodecs.delta_encode(pixels.astype(">u2"), axis=-1)
    floats = (pixels / np.float32(10000)).astype(np.float32)
    predicted = imagecodecs.floatpred_encode(floats, axis=-1)
    grey = (pixels // 48).astype(np.uint8)
    rgb = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    rgb_delta = imagecodecs.delta_encode(rgb, axis=-2)
    byte = replace(FORMAT, dtype="uint8", bits_per_sample=8)
    colour = replace(byte, samples=3)
    return {
        "none": (pixels.tobytes(), replace(FORMAT, compression=1)),
        "deflate": (zlib.compress(pixels.tobytes(), 6), replace(FORMAT, predictor=1)),
        "deflate, predictor 2": (zlib.compress(delta.tobytes(), 6), FORMAT),
        "deflate, predictor 2, big-endian": (
            zlib.compress(swapped.tobytes(), 6),
            replace(FORMAT, byte_order="big"),
        ),
        "ZSTD 9, predictor 2": (
            imagecodecs.zstd_encode(delta.tobytes(), 9),
            replace(FORMAT, compression=50000),
        ),
        "LZW, predictor 2": (
            imagecodecs.lzw_encode(delta.tobytes()),
            replace(FORMAT, compression=5),
        ),
        "LERC, error 0": (imagecodecs.lerc_encode(pixels), replace(FORMAT, compression=34887)),
        "LERC + ZSTD": (
            imagecodecs.zstd_encode(imagecodecs.lerc_encode(pixels)),
            replace(FORMAT, compression=34887),
        ),
        "deflate, float32, predictor 3": (
            zlib.compress(predicted.tobytes(), 6),
            replace(FORMAT, predictor=3, dtype="float32", bits_per_sample=32),
        ),
        "deflate, 3 x uint8 by pixel, predictor 2": (
            zlib.compress(rgb_delta.tobytes(), 6),
            colour,
        ),
        "JPEG, YCbCr": (
            imagecodecs.jpeg8_encode(rgb, 75, colorspace="RGB", outcolorspace="YCBCR"),
            replace(colour, compression=7, photometric=6),
        ),
        "WebP": (imagecodecs.webp_encode(rgb, 75), replace(colour, compression=50001)),
    }


def best(action: Callable[[], object], repeat: int) -> float:
    """Shortest time of several, in milliseconds."""
    shortest = float("inf")
    for _ in range(repeat):
        begun = time.perf_counter()
        action()
        shortest = min(shortest, time.perf_counter() - begun)
    return 1000 * shortest


def bare(block: bytes) -> np.ndarray:
    """The same tile with libdeflate and nothing else, to compare with."""
    flat = np.empty(2 * SIDE * SIDE, np.uint8)
    imagecodecs.deflate_decode(block, out=flat)
    out = flat.view(np.uint16).reshape(SIDE, SIDE)
    return np.asarray(imagecodecs.delta_decode(out, axis=-1, out=out))


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=15)
    repeat = parser.parse_args().repeat
    table = cases(scene())
    print(f"| one {SIDE} x {SIDE} tile | ratio | ms | MB/s out |\n|---|---|---|---|")
    for name, (block, fmt) in table.items():
        size = decode_block(block, fmt).nbytes
        ms = best(lambda block=block, fmt=fmt: decode_block(block, fmt), repeat)
        print(f"| {name} | {size / len(block):.2f} | {ms:.2f} | {size / ms / 1000:.0f} |")

    block, fmt = table["deflate, predictor 2"]
    ms = best(lambda: bare(block), repeat)
    size = SIDE * SIDE * 2
    print(f"| (libdeflate + delta_decode alone) | | {ms:.2f} | {size / ms / 1000:.0f} |")
    print("\n| deflate, predictor 2: rows needed | ms |\n|---|---|")
    for rows in (1, SIDE // 4, SIDE // 2, SIDE):
        ms = best(lambda rows=rows: decode_block(block, fmt, needed_rows=rows), repeat)
        print(f"| {rows} | {ms:.2f} |")
    tiny = replace(fmt, tile_height=1, tile_width=16)
    small = zlib.compress(bytes(32))
    us = best(lambda: [decode_block(small, tiny) for _ in range(1000)], repeat)
    print(f"| a tile of 16 pixels (overhead, us) | {us:.2f} |")

    blocks = [cases(scene(seed))["deflate, predictor 2"][0] for seed in range(4)] * 16
    print("\n| threads | tiles/s |\n|---|---|")
    for threads in (1, 2, 4):
        with ThreadPoolExecutor(threads) as pool:
            ms = best(
                lambda pool=pool: list(pool.map(lambda b: decode_block(b, fmt).shape, blocks)), 3
            )
        print(f"| {threads} | {1000 * len(blocks) / ms:.0f} |")


if __name__ == "__main__":
    main()
