"""What decodes to what GDAL reads: run over real and made files, written as a table.

python tests/tiff/matrix.py --check docs/formats.md
python tests/tiff/matrix.py --write docs/formats.md
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import made_tiffs
import numpy as np
import rasterio
from rasterio.errors import RasterioError

from rasteret_sql.errors import RasteretError
from rasteret_sql.tiff.codecs import check_supported, decode_block, supported_compressions
from rasteret_sql.tiff.header import parse_header
from rasteret_sql.tiff.layout import CHUNKY, Header, Level
from rasteret_sql.tiff.unpack import sample_dtype
from rasteret_sql.units import Window

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
MAX_PIXELS = 25_000_000
LOSSY = frozenset({7, 50001, 50002, 52546})
SIGNS = {"equal": "=", "tolerance": "~", "refused": "x", "different": "!"}
"""From best to worst."""
LAYOUTS = ("strips", "tiles", "planes of strips", "planes of tiles")

LARGE_BLOCKS = (
    "## Large strips and tiles",
    "",
    "- No compression: only the rows under the area are fetched, of any strip or tile.",
    "- A strip or tile of more than 32 MiB of pixels is delivered in slabs of 4 MiB. Without",
    "  compression, and with deflate and LZMA, it is also fetched and decoded slab by slab,",
    "  from its start as far as the area needs; memory does not grow with it.",
    "- With other compressions it is decoded whole. LZW stops after the last row that is needed;",
    "  more than 1 GiB of pixels in one strip or tile (with LZW: up to that row) is refused.",
    "- `rasteret_read_tiles` delivers a strip or tile as one row, whole; one of more than 1 GiB",
    "  of pixels is refused.",
)
VERIFIED = (
    "## What is verified",
    "",
    "- A strip or tile of which all rows are needed is verified whole: it must have the bytes",
    "  that its rows take, and the checksum of deflate (Adler-32), LZMA and, where it has one,",
    "  ZSTD must fit. What lies behind the rows is inflated too, up to twice a whole block;",
    "  damage there is an error.",
    "- A JPEG image must have an end, and data up to it: one that ends early is an error, not",
    "  grey. PackBits, LZW and fax have no checksum; without compression nothing but the length",
    "  is known.",
    "- Of a strip or tile of which only the first rows are needed (the rows of the image in the",
    "  lowest tiles, or a small area in a large strip), only these rows are inflated with",
    "  deflate, LZMA and LZW: they must be there, but a checksum behind them is not reached,",
    "  and tells nothing.",
    "- Memory is refused before it is taken: a block whose bytes can't make its pixels (1032 to",
    "  1 at most with deflate), or of more than 1 GiB, is an error at once.",
)


@dataclass(frozen=True)
class Result:
    """One file: what it is and how its pixels compare."""

    name: str
    codec: str
    predictor: int
    samples: str
    layout: str
    order: str
    outcome: str
    why: str = ""


def read_bands(
    data: bytes,
    header: Header,
    count: int | None = None,
    level: Level | None = None,
    window: Window | None = None,
) -> np.ndarray:
    """Pixels of a level, the full resolution by default, shape (row, column, sample)."""
    level = level or header.image
    window = window or Window(0, level.height, 0, level.width)
    fmt = header.block_format(level)
    check_supported(fmt)
    planes = 1 if header.planar_configuration == CHUNKY else header.samples_per_pixel
    planes = min(planes, count or planes)
    shape = (window.height, window.width, fmt.samples * planes)
    pixels = np.full(shape, header.nodata or 0, sample_dtype(fmt))
    for number in range(planes * level.tiles_per_plane):
        plane, place = divmod(number, level.tiles_per_plane)
        top, left = (
            step * size
            for step, size in zip(
                divmod(place, level.tiles_across),
                (level.tile_height, level.tile_width),
                strict=True,
            )
        )
        rows, columns = (
            min(level.tile_height, level.height - top),
            min(level.tile_width, level.width - left),
        )
        part = window.intersection(Window(top, top + rows, left, left + columns))
        start, size = int(level.tile_offsets[number]), int(level.tile_byte_counts[number])
        if size == 0 or part.is_empty:
            continue
        block = decode_block(
            memoryview(data)[start : start + size],
            fmt,
            rows=None if level.is_tiled else rows,
            needed_rows=rows,
        )
        bands = slice(plane * fmt.samples, (plane + 1) * fmt.samples)
        inside = block[part.row_start - top : part.row_stop - top]
        top, left = part.row_start - window.row_start, part.col_start - window.col_start
        pixels[top : top + part.height, left : left + part.width, bands] = inside[
            :, part.col_start - place % level.tiles_across * level.tile_width :
        ][:, : part.width]
    return pixels


def compare(ours: np.ndarray, theirs: np.ndarray, header: Header) -> tuple[str, str]:
    """Outcome and reason; lossy codecs may differ as decoders do."""
    theirs = theirs[..., : ours.shape[2]]
    ours = ours[..., : theirs.shape[2]].astype(theirs.dtype)
    if np.array_equal(ours, theirs, equal_nan=theirs.dtype.kind in "fc"):
        return "equal", ""
    difference = np.abs(ours.astype(np.complex128) - theirs.astype(np.complex128))
    worst, mean = float(np.nanmax(difference)), float(np.nanmean(difference))
    codec = header.image.compression
    if codec in LOSSY and mean < 1:
        # Decoders differ in how they widen subsampled chroma, hardly in the luma.
        luma = np.abs((ours.astype(float) - theirs) @ [0.299, 0.587, 0.114])
        is_cut = ((ours % 255 == 0) | (theirs % 255 == 0)).any(axis=-1)
        if np.mean(luma[~is_cut] > 2) < 0.02:
            return "tolerance", f"chroma of another decoder: mean {mean:.2f}, most {worst:.0f}"
    return "different", f"mean {mean:.3g}, most {worst:.3g}"


def by_rasterio(data: bytes, window: Window | None = None, **options: object) -> np.ndarray | None:
    """GDAL's pixels, (row, column, band); None where it refuses."""
    rows_and_columns = window and ((window[:2]), (window[2:]))
    try:
        with rasterio.MemoryFile(data) as memory, memory.open(**options) as file:
            return np.moveaxis(file.read(window=rows_and_columns), 0, -1)
    except RasterioError:
        return None


def _describe(name: str, header: Header, outcome: str, why: str) -> Result:
    level = header.image
    bits, whole = level.bits_per_sample, {8, 16, 32, 64, 128}
    samples = header.dtype
    if bits == 24 and header.dtype == "float32":
        samples = "float24"
    elif bits not in whole:
        samples = "1 bit" if bits == 1 else "2-31 bits"
    layout = "tiles" if level.is_tiled else "strips"
    if header.planar_configuration != CHUNKY and header.samples_per_pixel > 1:
        layout = f"planes of {layout}"
    codec = supported_compressions().get(level.compression, f"number {level.compression}")
    predictor = level.predictor if level.compression in (5, 8, 32946, 34925, 50000) else 1
    return Result(name, codec, predictor, samples, layout, header.byte_order, outcome, why)


def real_results() -> Iterator[Result]:
    """Every real file that GDAL reads, and those that only another reader does."""
    truth = json.loads((DATA / "truth.json").read_text())["files"]
    for name, facts in truth.items():
        bands = [band for band in facts.get("bands") or [] if band.get("sha256")]
        is_readable = bool(bands) and not facts.get("error")
        lacks_codec = "missing codec JXL" in str(facts.get("error"))
        other = facts["second_reader"].get("bands_sha256") if lacks_codec else None
        if not is_readable and not other:
            continue
        if is_readable and facts["width"] * facts["height"] > MAX_PIXELS:
            continue
        data = (DATA / name).read_bytes()
        header = parse_header(data)
        try:
            pixels = read_bands(data, header, 4)
        except RasteretError as error:
            yield _describe(name, header, "refused", str(error))
            continue
        hashes = [band["sha256"] for band in bands] if is_readable else other
        dtype = facts["dtype"] if is_readable else facts["second_reader"]["dtype"]
        dtype = {"complex_int16": "complex64"}.get(dtype, dtype)
        numbers = [band["band"] - 1 for band in bands] if is_readable else range(len(other))
        ours = [
            hashlib.sha256(np.ascontiguousarray(pixels[..., n]).astype(dtype).tobytes()).hexdigest()
            for n in numbers
            if n < pixels.shape[2]
        ]
        if ours == hashes:
            yield _describe(name, header, "equal", "")
            continue
        theirs = by_rasterio(data)
        verdict = ("different", "hash of the second reader")
        if theirs is not None:
            verdict = compare(pixels, theirs, header)
        yield _describe(name, header, *verdict)


def large_results() -> Iterator[Result]:
    """Windows of the real files that are too large to compare whole, and that GDAL reads."""
    truth = json.loads((DATA / "truth.json").read_text())["files"]
    for name, facts in truth.items():
        expected = (facts.get("window_0_0") or {}).get("sha256")
        if facts.get("error") or expected is None:
            continue
        data = (DATA / name).read_bytes()
        header = parse_header(data)
        pixels = read_bands(data, header, 1, window=Window(0, 256, 0, 256))[..., :1]
        hashed = hashlib.sha256(pixels.astype(facts["dtype"]).tobytes()).hexdigest()
        outcome = (
            "equal" if hashed == expected or header.image.compression in LOSSY else "different"
        )
        why = "" if hashed == expected else "hash of the window at (0, 0)"
        for window in _spread_windows(header.image):
            theirs = by_rasterio(data, window)
            if theirs is None:
                continue
            verdict = compare(read_bands(data, header, window=window), theirs, header)
            if list(SIGNS).index(verdict[0]) > list(SIGNS).index(outcome):
                outcome, why = verdict
        yield _describe(name, header, outcome, why)


def _spread_windows(level: Level, count: int = 9) -> Iterator[Window]:
    """A window across the edges of blocks at the corners, on the sides and in the middle."""
    height, width = min(300, level.height), min(400, level.width)
    steps = np.linspace(0, 1, round(count**0.5))
    for down, right in itertools.product(steps, steps):
        top, left = int(down * (level.height - height)), int(right * (level.width - width))
        yield Window(top, top + height, left, left + width)


def overview_results() -> Iterator[Result]:
    """Every overview of a real file, found by its size: the header sorts them."""
    truth = json.loads((DATA / "truth.json").read_text())["files"]
    for name, facts in truth.items():
        levels = facts.get("overview_truth") or []
        if facts.get("error") or not levels or facts["width"] * facts["height"] > MAX_PIXELS:
            continue
        data = (DATA / name).read_bytes()
        header = parse_header(data)
        ours = {(level.width, level.height): level for level in header.overviews}
        for number, facts_of in enumerate(levels):
            level = ours[facts_of["width"], facts_of["height"]]
            label = f"{name} overview {number}"
            try:
                pixels = read_bands(data, header, level=level)
            except RasteretError as error:
                yield _describe(label, header, "refused", str(error))
                continue
            theirs = by_rasterio(data, overview_level=number)
            if theirs is not None:
                yield _describe(label, header, *compare(pixels, theirs, header))


def made_results() -> Iterator[Result]:
    """Every made file that GDAL reads."""
    for number, data in enumerate(made_tiffs.all_files()):
        theirs = by_rasterio(data)
        header = parse_header(data)
        if theirs is None:
            continue
        try:
            ours = read_bands(data, header)
        except RasteretError as error:
            yield _describe(f"made {number}", header, "refused", str(error))
            continue
        yield _describe(f"made {number}", header, *compare(ours, theirs, header))


def collect() -> tuple[list[Result], list[Result], list[Result]]:
    """Results of the real files, of the made ones, and of the real files' overviews."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            real = [*real_results(), *large_results()]
            return real, list(made_results()), list(overview_results())
    finally:
        logging.disable(logging.NOTSET)


Cells = dict[tuple[str, str], Counter[str]]


def cells(results: list[Result]) -> tuple[Cells, Cells]:
    """Outcomes by codec and sample type, and by codec and layout."""
    by_type: Cells = defaultdict(Counter)
    by_layout: Cells = defaultdict(Counter)
    for result in results:
        row = f"{result.codec} {result.predictor}"
        by_type[row, result.samples][SIGNS[result.outcome]] += 1
        by_layout[row, f"{result.layout}, {result.order}"][SIGNS[result.outcome]] += 1
    return by_type, by_layout


def _table(table: Cells, columns: list[str]) -> list[str]:
    rows = sorted({row for row, _ in table})
    lines = [f"| codec, predictor | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for row in rows:
        texts = [
            " ".join(f"{sign} {n}" for sign in SIGNS.values() if (n := table[row, column][sign]))
            for column in columns
        ]
        lines.append(f"| {row} | {' | '.join(texts)} |")
    return lines


def _counts(results: list[Result]) -> str:
    counted = Counter(result.outcome for result in results)
    parts = [f"{counted[outcome]} {outcome}" for outcome in SIGNS]
    return f"{len(results)}: {', '.join(parts)}"


def render(real: list[Result], made: list[Result], overviews: list[Result]) -> str:
    """The page."""
    by_type, by_layout = cells(real + made)
    types = sorted({column for _, column in by_type})
    layouts = [f"{layout}, {order}" for layout in LAYOUTS for order in ("little", "big")]
    lines = [
        "# TIFF formats that are read",
        "",
        "Written by `python tests/tiff/matrix.py --write docs/formats.md` from real runs;",
        "`tests/tiff/test_matrix.py` fails when a cell gets worse.",
        "",
        f"- Real files: {_counts(real)}.",
        "  Of those of more than 25 Mpixel nine windows are compared.",
        f"- Made files: {_counts(made)}.",
        f"- Overviews of the real files: {_counts(overviews)}.",
        "",
        "Oracle: the pixels GDAL reads (for JPEG XL, which that build lacks: tifffile).",
        "`=` equal, `~` within tolerance, `x` refused by name, `!` different;",
        "each followed by the number of files. Predictor 1 is none.",
        "",
        "Tolerance is for subsampled YCbCr only: a mean of less than 1 grey level, and the luma",
        "within 2 levels for 98 % of the pixels that have no sample at 0 or 255.",
        "",
        "## By sample type",
        "",
        *_table(by_type, types),
        "",
        "## By layout and byte order",
        "",
        *_table(by_layout, layouts),
        "",
        "## Real files that are not equal",
        "",
        "| file | outcome | why |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| `{result.name}` | {result.outcome} | {result.why.replace('|', '/')} |"
        for result in real
        if result.outcome != "equal"
    ]
    reasons = sorted({result.why for result in made if result.outcome == "refused"})
    lines += ["", "## Why made files are refused", "", *(f"- {reason}" for reason in reasons)]
    lines += ["", *LARGE_BLOCKS, "", *VERIFIED]
    return "\n".join(lines) + "\n"


def parse_cells(page: str) -> dict[tuple[str, str, str], Counter[str]]:
    """The cells of a written page, by section, row and column."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    section, columns = "", []
    for line in page.splitlines():
        if line.startswith("## "):
            section, columns = line[3:], []
        elif line.startswith("| codec"):
            columns = [part.strip() for part in line.strip("|").split("|")][1:]
        elif columns and line.startswith("|") and "---" not in line:
            row, *texts = [part.strip() for part in line.strip("|").split("|")]
            for column, text in zip(columns, texts, strict=True):
                words = text.split()
                found[section, row, column] = Counter(
                    {sign: int(n) for sign, n in zip(words[::2], words[1::2], strict=True)}
                )
    return found


def worse(before: str, after: str) -> list[str]:
    """Cells of ``before`` that lost an equal file or gained a different one."""
    old, new = parse_cells(before), parse_cells(after)
    lines = []
    for key, counts in old.items():
        now = new.get(key, Counter())
        good = now["="] >= counts["="] and now["="] + now["~"] >= counts["="] + counts["~"]
        if not good or now["!"] > counts["!"]:
            lines.append(f"{' / '.join(key)}: was {dict(counts)}, is {dict(now)}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="PAGE")
    action.add_argument("--check", type=Path, metavar="PAGE")
    options: Any = parser.parse_args(arguments)
    results = collect()
    page = render(*results)
    for name, part in zip(("real", "made", "overviews"), results, strict=True):
        print(f"{name}: {_counts(part)}")
    if options.write:
        options.write.write_text(page)
        return 0
    lost = worse(options.check.read_text(), page)
    print("\n".join(lost) or "no cell is worse")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
