"""Damage files and blocks at random: only arrays and RasteretError may come out, and soon.

python tests/tiff/fuzz.py --seconds 60 [--seed 0]
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import made_tiffs

from rasteret_sql.errors import RasteretError
from rasteret_sql.tiff.codecs import decode_block
from rasteret_sql.tiff.header import parse_header
from rasteret_sql.tiff.layout import Header

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "geotiff"
MAX_SECONDS = 2.0
MAX_FILE_BYTES = 200_000
MAX_BLOCKS = 40
SPARE_BYTES = 64 << 20
"""What a decoder may keep for itself, beside 12 times the declared samples."""


def seeds() -> list[tuple[str, bytes]]:
    """Small real files and every fourth made one."""
    real = [
        (path.name, path.read_bytes())
        for path in sorted(DATA.rglob("*.tif*"))
        if path.stat().st_size <= MAX_FILE_BYTES
    ]
    made = itertools.islice(made_tiffs.all_files(), 0, None, 4)
    return real + [(f"made {number}", data) for number, data in enumerate(made)]


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut, repeat or swap a few bytes."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(broken)) if broken else 0
        match rng.randrange(6):
            case 0:
                broken[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                broken[place : place + 4] = rng.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
                )
            case 2:
                del broken[place:]
            case 3:
                part = broken[place : place + rng.randrange(1, 64)]
                broken[place:place] = part
            case 4:
                del broken[place : place + rng.randrange(1, 64)]
            case _:
                broken[place : place + 1] = bytes([broken[place] ^ 1 << rng.randrange(8)])
        if not broken:
            break
    return bytes(broken)


def read(data: bytes, header: Header) -> int:
    """Decode the first blocks of every level; returns the bytes they declare."""
    levels = (header.image, *header.overviews, *((header.mask,) if header.mask else ()))
    declared = 0
    for level in levels:
        fmt = header.block_format(level)
        for start, size in zip(
            level.tile_offsets[:MAX_BLOCKS].tolist(),
            level.tile_byte_counts[:MAX_BLOCKS].tolist(),
            strict=False,
        ):
            rows = None if level.is_tiled else min(level.height, level.tile_height)
            block = decode_block(data[start : start + size], fmt, rows=rows)
            declared = max(declared, block.nbytes)
    return declared


def attempt(data: bytes, header: Header | None = None) -> str:
    """Outcome of one file; raises AssertionError where it is not an accepted one.

    With the header of the whole file, only what was done to the blocks counts.
    """
    before = peak_bytes()
    begun = time.perf_counter()
    declared = 0
    try:
        declared = read(data, header or parse_header(data))
        outcome = "array"
    except RasteretError as error:
        outcome = type(error).__name__
    seconds = time.perf_counter() - begun
    assert seconds < MAX_SECONDS, f"{outcome} after {seconds:.1f} s"
    grown = peak_bytes() - before
    assert grown < SPARE_BYTES + 12 * declared, f"{outcome} took {grown} bytes"
    return outcome


def peak_bytes() -> int:
    """The most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(arguments: list[str] | None = None) -> int:
    """Run for the given time; the number of a failure reproduces it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    files = seeds()
    outcomes: Counter[str] = Counter()
    failures = 0
    end = time.monotonic() + options.seconds
    for number in itertools.count():
        if time.monotonic() > end:
            break
        rng = random.Random(f"{options.seed} {number}")
        name, data = rng.choice(files)
        try:
            outcomes[attempt(damage(data, rng))] += 1
        except Exception as error:  # noqa: BLE001 - any other class is the finding
            failures += 1
            print(f"{options.seed} {number} {name}: {type(error).__name__}: {error}")
    print(sum(outcomes.values()), "accepted:", dict(outcomes), "failures:", failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
