"""Small TIFF files made on the spot: by GDAL, and by hand where GDAL does not write them."""

from __future__ import annotations

import functools
import itertools
import struct
import warnings
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
import rasterio
from rasterio.errors import RasterioError

HEIGHT, WIDTH = 37, 45
TYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64", "complex_int16", "complex64", "complex128"),
)
PREDICTED = ("DEFLATE", "LZW", "ZSTD")


def one_page(
    order: str,
    width: int,
    height: int,
    bits: int,
    sample_format: int,
    blocks: list[bytes],
    *,
    compression: int = 1,
    predictor: int = 1,
    photometric: int = 1,
    samples: int = 1,
    fill_order: int = 1,
    rows_per_strip: int | None = None,
    more: list[tuple[int, str, list[float]]] | None = None,
) -> bytes:
    """A classic TIFF with one image of strips.

    Args:
        more: Further tags as number, `struct` code ("II" for rationals) and values.
    """
    mark = "<" if order == "little" else ">"
    offsets = [8 + sum(len(b) + len(b) % 2 for b in blocks[:n]) for n in range(len(blocks))]
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [bits] * samples),
        (259, "H", [compression]),
        (262, "H", [photometric]),
        (266, "H", [fill_order]),
        (273, "I", offsets),
        (277, "H", [samples]),
        (278, "I", [rows_per_strip or height]),
        (279, "I", [len(block) for block in blocks]),
        (317, "H", [predictor]),
        (339, "H", [sample_format] * samples),
        *(more or []),
    ]
    tags.sort()
    body = b"".join(block + b"\0" * (len(block) % 2) for block in blocks)
    start = 8 + len(body)
    outside = start + 2 + 12 * len(tags) + 4
    directory, far = struct.pack(mark + "H", len(tags)), b""
    for tag, code, values in tags:
        raw = struct.pack(f"{mark}{len(values)}{code[0]}", *values)
        kind = {"B": 1, "H": 3, "I": 4, "II": 5, "f": 11, "d": 12}[code]
        if len(raw) > 4:
            far += b"\0" * (len(far) % 2)
            place = struct.pack(mark + "I", outside + len(far))
            far += raw
        else:
            place = raw.ljust(4, b"\0")
        directory += struct.pack(mark + "HHI", tag, kind, len(values) // len(code)) + place
    magic = b"II*\0" if mark == "<" else b"MM\0*"
    return magic + struct.pack(mark + "I", start) + body + directory + bytes(4) + far


def by_gdal(pixels: np.ndarray, **options: object) -> bytes | None:
    """Let GDAL write ``pixels`` (band, row, column); None where it refuses."""
    count, height, width = pixels.shape
    options.setdefault("dtype", pixels.dtype.name)
    try:
        with warnings.catch_warnings(), rasterio.MemoryFile() as memory:
            warnings.simplefilter("ignore")
            with memory.open(
                driver="GTiff", count=count, height=height, width=width, **options
            ) as file:
                file.write(pixels)
            return bytes(memory.read())
    except (RasterioError, TypeError, ValueError):
        return None


def noise(dtype: str, bands: int, seed: int = 0) -> np.ndarray:
    """Values of the whole range of a type, half of the rows all the same."""
    rng = np.random.default_rng(seed)
    shape = (bands, HEIGHT, WIDTH)
    if dtype.startswith("complex"):
        steps = rng.integers(-9, 9, (2, *shape)).cumsum(axis=-1)
        return (steps[0] + 1j * steps[1]).astype("c16" if dtype == "complex128" else "c8")
    if dtype.startswith("float"):
        return rng.normal(size=shape).cumsum(axis=-1).astype(dtype)
    limits = np.iinfo(dtype)
    pixels = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    pixels[:, HEIGHT // 2 :] = pixels[:, :1, :1]
    return pixels


def picture(bands: int) -> np.ndarray:
    """Smooth bytes that lossy codecs can hold."""
    row, col = np.mgrid[:64, :80]
    planes = [(3 * row + col) % 256, 2 * col % 256, (2 * row + 2 * col) % 256, 255 - col]
    return np.stack(planes[:bands]).astype(np.uint8)


def lossless() -> Iterator[bytes | None]:
    """Codec x type x predictor x byte order x planes x strips or tiles."""
    codecs = ("NONE", *PREDICTED, "PACKBITS", "LZMA", "LERC", "LERC_ZSTD", "LERC_DEFLATE")
    for dtype, codec, predictor, order, planes, is_tiled in itertools.product(
        TYPES, codecs, (1, 2, 3), ("LITTLE", "BIG"), ("PIXEL", "BAND"), (False, True)
    ):
        if predictor > 1 and codec not in PREDICTED:
            continue
        options: dict[str, object] = {"compress": codec, "endianness": order, "interleave": planes}
        options |= {"dtype": dtype, "blockysize": 16 if is_tiled else 8}
        if predictor > 1:
            options["predictor"] = predictor
        if codec.startswith("LERC"):
            options["max_z_error"] = 0
        if is_tiled:
            options |= {"tiled": True, "blockxsize": 16}
        yield by_gdal(noise(dtype, 3), **options)


def odd_bits() -> Iterator[bytes | None]:
    """Integers of 1 to 31 bits, floats of 16 and 24, both fill orders."""
    rng = np.random.default_rng(1)
    for bits, order, planes, codec in itertools.product(
        range(1, 32), ("LITTLE", "BIG"), ("PIXEL", "BAND"), ("NONE", "LZW")
    ):
        if bits in (8, 16):
            continue
        dtype = "uint8" if bits < 8 else "uint16" if bits < 16 else "uint32"
        pixels = rng.integers(0, 1 << bits, (3, HEIGHT, WIDTH)).astype(dtype)
        options = {"compress": codec, "endianness": order, "interleave": planes}
        yield by_gdal(pixels, nbits=bits, blockysize=8, **options)
    for order, codec, predictor in itertools.product(
        ("LITTLE", "BIG"), ("NONE", *PREDICTED), (1, 2, 3)
    ):
        pixels = rng.normal(size=(3, HEIGHT, WIDTH)).astype("float32")
        pixels[0, 0, :9] = [np.nan, np.inf, -np.inf, 1e-6, -0.0, 6e-8, 65504, 1e30, 1e-30]
        options = {"compress": codec, "endianness": order}
        if predictor > 1 and codec == "NONE":
            continue
        if predictor > 1:
            options["predictor"] = str(predictor)
        yield by_gdal(pixels, nbits=16, **options)
    counting = bytes(range(240))
    for order, (codec, predictor) in itertools.product(("little", "big"), ((1, 1), (8, 1), (8, 3))):
        block = counting if codec == 1 else zlib.compress(counting)
        yield one_page(order, 20, 4, 24, 3, [block], compression=codec, predictor=predictor)
    for order, bits, codec in itertools.product(("little", "big"), (1, 4, 8, 12, 16), (1, 5, 8)):
        raw = rng.integers(0, 255, -(-WIDTH * bits // 8) * HEIGHT, dtype=np.uint8).tobytes()
        packed = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress}[codec](raw)
        block = bytes(imagecodecs.bitorder_decode(packed))
        yield one_page(order, WIDTH, HEIGHT, bits, 1, [block], compression=codec, fill_order=2)


def images() -> Iterator[bytes | None]:
    """JPEG, WebP, CMYK, fax, LERC with holes and with alpha."""
    layouts: tuple[dict[str, object], ...] = (
        {},
        {"blockysize": 24},
        {"tiled": True, "blockxsize": 32, "blockysize": 16},
    )
    for layout, planes in itertools.product(layouts, ("PIXEL", "BAND")):
        for bands, colour in ((1, "MINISBLACK"), (2, "MINISBLACK"), (3, "RGB"), (4, "CMYK")):
            options = {"compress": "JPEG", "photometric": colour, "interleave": planes}
            yield by_gdal(picture(bands), **options, **layout)
        yield by_gdal(picture(3), compress="JPEG", photometric="YCBCR", **layout)
        yield by_gdal(picture(1).view(np.int8), compress="JPEG", **layout)
    for layout, bands, is_lossless in itertools.product(layouts, (3, 4), ("YES", "NO")):
        options = {"compress": "WEBP", "interleave": "PIXEL", "webp_lossless": is_lossless}
        yield by_gdal(picture(bands), **options, **layout)
    for planes, codec in itertools.product(("PIXEL", "BAND"), ("NONE", "DEFLATE")):
        yield by_gdal(picture(4), compress=codec, photometric="CMYK", interleave=planes)
    black = (noise("uint8", 1) > 180).astype(np.uint8)
    for layout, codec, colour in itertools.product(
        layouts, ("CCITTRLE", "CCITTFAX3", "CCITTFAX4"), ("MINISWHITE", "MINISBLACK")
    ):
        yield by_gdal(black, nbits=1, compress=codec, photometric=colour, **layout)
    holes = noise("float32", 3)
    holes[0, 2:5, 3:9] = holes[1, 7] = np.nan
    for bands, planes, dtype, error in itertools.product(
        (1, 3), ("PIXEL", "BAND"), ("float32", "float64"), (0, 0.01)
    ):
        options = {"compress": "LERC", "max_z_error": error, "interleave": planes}
        yield by_gdal(holes[:bands].astype(dtype), **options)
    seen = picture(4)
    seen[3] = np.where(seen[3] > 200, 255, 0)
    for alpha in ("YES", "NO", "PREMULTIPLIED"):
        options = {"compress": "LERC", "interleave": "PIXEL", "alpha": alpha}
        yield by_gdal(seen, photometric="RGB", **options)


def ycbcr() -> Iterator[bytes | None]:
    """YCbCr without JPEG: every subsampling, other coefficients, other ranges."""
    rng = np.random.default_rng(2)
    coefficients = [2125, 10000, 7154, 10000, 721, 10000]
    video = [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]
    odd = [155, 10, 2351, 10, 1285, 10, 2407, 10, 1205, 10, 2401, 10]
    flat = [16, 1, 16, 1, 128, 1, 128, 1, 0, 1, 255, 1]
    for (across, down), chosen, reference, order in itertools.product(
        ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4)),
        (None, coefficients),
        (None, video, odd, flat),
        ("little", "big"),
    ):
        more: list[tuple[int, str, list[float]]] = [(530, "H", [across, down])]
        more += [(529, "II", chosen)] if chosen else []
        more += [(532, "II", reference)] if reference else []
        units = -(-WIDTH // across) * -(-HEIGHT // down)
        block = rng.integers(0, 256, units * (across * down + 2), dtype=np.uint8).tobytes()
        yield one_page(order, WIDTH, HEIGHT, 8, 1, [block], photometric=6, samples=3, more=more)


def sizes() -> Iterator[bytes | None]:
    """Images of one pixel, row or column; strips of one row; tiles larger than the image."""
    rng = np.random.default_rng(3)
    layouts: tuple[dict[str, object], ...] = (
        {},
        {"blockysize": 1},
        {"blockysize": 7},
        {"tiled": True, "blockxsize": 16, "blockysize": 32},
        {"tiled": True, "blockxsize": 512, "blockysize": 256},
    )
    codecs = ("NONE", *PREDICTED, "PACKBITS", "LZMA", "LERC", "WEBP")
    for (height, width), layout, codec in itertools.product(
        ((1, 1), (1, 300), (300, 1), (16, 16), (33, 17)), layouts, codecs
    ):
        pixels = rng.integers(0, 255, (3, height, width), dtype=np.uint8)
        yield by_gdal(pixels, compress=codec, webp_lossless="YES", interleave="pixel", **layout)


@functools.cache
def all_files() -> tuple[bytes, ...]:
    """Every file that could be made; it takes some seconds, and several files of tests ask."""
    made = itertools.chain(lossless(), odd_bits(), images(), ycbcr(), sizes())
    return tuple(data for data in made if data is not None)
