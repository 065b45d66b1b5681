"""`decode_block`: its contract, its refusals, and blocks that lie."""

from __future__ import annotations

import lzma
import struct
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from rasteret_sql.errors import DecodeError, RasteretError, UnsupportedTiffError
from rasteret_sql.tiff.codecs import check_supported, decode_block, supported_compressions
from rasteret_sql.tiff.layout import BlockFormat

PLAIN = BlockFormat(
    compression=1,
    predictor=1,
    photometric=1,
    dtype="uint16",
    byte_order="little",
    bits_per_sample=16,
    samples=1,
    tile_height=16,
    tile_width=32,
)
PIXELS = (np.arange(16 * 32).reshape(16, 32) * 37 % 4001).astype("<u2")
GREY = replace(PLAIN, dtype="uint8", bits_per_sample=8)
BYTES = (PIXELS % 251).astype(np.uint8)
RGB = np.dstack([BYTES, BYTES.T.reshape(16, 32), 255 - BYTES])

ENCODERS = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: zlib.compress,
    32773: lambda raw: imagecodecs.packbits_encode(np.frombuffer(raw, np.uint8)),
    32946: zlib.compress,
    34925: lambda raw: lzma.compress(raw),
    50000: imagecodecs.zstd_encode,
}
IMAGES = {
    "JPEG": (replace(GREY, compression=7), imagecodecs.jpeg8_encode(BYTES)),
    "JPEG RGB": (
        replace(GREY, compression=7, photometric=6, samples=3),
        imagecodecs.jpeg8_encode(RGB, colorspace="RGB", outcolorspace="YCBCR"),
    ),
    "WebP": (
        replace(GREY, compression=50001, samples=3),
        imagecodecs.webp_encode(RGB, lossless=True),
    ),
    "JPEG XL": (
        replace(GREY, compression=50002, samples=3),
        imagecodecs.jpegxl_encode(RGB, lossless=True),
    ),
    "JPEG 2000": (
        replace(GREY, compression=34712, samples=3),
        imagecodecs.jpeg2k_encode(RGB, codecformat="J2K", reversible=True, level=0),
    ),
    "LERC": (replace(PLAIN, compression=34887), imagecodecs.lerc_encode(PIXELS)),
    "LERC ZSTD": (
        replace(PLAIN, compression=34887),
        imagecodecs.zstd_encode(imagecodecs.lerc_encode(PIXELS)),
    ),
    "group 4": (
        replace(GREY, compression=4, bits_per_sample=1),
        bytes.fromhex("26a0b6c8d9ea00100100") * 8,
    ),
}


def encoded(compression: int, rows: int = 16) -> bytes:
    return bytes(ENCODERS[compression](PIXELS[:rows].tobytes()))


@pytest.mark.parametrize("compression", ENCODERS)
def test_a_whole_block_comes_back_as_rows_columns_samples(compression):
    block = decode_block(encoded(compression), replace(PLAIN, compression=compression))
    assert block.shape == (16, 32, 1)
    assert block.dtype == np.uint16
    assert block.dtype.isnative
    assert np.array_equal(block[..., 0], PIXELS)


@pytest.mark.parametrize("compression", ENCODERS)
def test_needed_rows_are_the_first_rows_of_the_whole_block(compression):
    fmt = replace(PLAIN, compression=compression)
    for wanted in (1, 7, 15):
        block = decode_block(memoryview(encoded(compression)), fmt, needed_rows=wanted)
        assert np.array_equal(block[..., 0], PIXELS[:wanted])


@pytest.mark.parametrize("compression", ENCODERS)
@pytest.mark.parametrize("predictor", [1, 2])
def test_rows_before_the_first_that_is_wanted_are_dropped(compression, predictor):
    fmt = replace(PLAIN, compression=compression, predictor=predictor)
    data = encoded(compression)
    whole = decode_block(data, fmt)
    for first, stop in ((0, 3), (1, 16), (6, 7), (12, 16), (5, 5), (9, 4)):
        block = decode_block(memoryview(data), fmt, needed_rows=stop, first_row=first)
        assert np.array_equal(block, whole[first:stop])
        assert block.dtype == whole.dtype
        if 0 < stop - first < 8 and first and compression != 1:
            assert getattr(block.base, "nbytes", block.nbytes) <= 2 * block.nbytes


@pytest.mark.parametrize("name", IMAGES)
def test_rows_of_images_are_those_of_the_whole_image(name):
    fmt, data = IMAGES[name]
    whole = decode_block(data, fmt)
    for first, stop in ((0, 3), (2, 5), (7, 8)):
        block = decode_block(data, fmt, needed_rows=stop, first_row=first)
        assert np.array_equal(block, whole[first:stop])


@pytest.mark.parametrize("compression", ENCODERS)
def test_the_last_strip_may_be_shorter_or_as_long_as_the_others(compression):
    fmt = replace(PLAIN, compression=compression)
    for written in (5, 16):
        block = decode_block(encoded(compression, written), fmt, rows=5)
        assert np.array_equal(block[..., 0], PIXELS[:5])


@pytest.mark.parametrize("compression", ENCODERS)
def test_a_block_with_too_few_rows_is_an_error_with_both_numbers(compression):
    with pytest.raises(DecodeError, match="expected 1024 bytes, got 960"):
        decode_block(encoded(compression, 15), replace(PLAIN, compression=compression))


@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 34925])
def test_rows_below_the_image_need_no_bytes(compression):
    block = decode_block(
        encoded(compression, 6), replace(PLAIN, compression=compression), needed_rows=6
    )
    assert np.array_equal(block[..., 0], PIXELS[:6])


@pytest.mark.parametrize("compression", [5, 8, 32773, 32946, 34925, 50000])
def test_a_cut_stream_is_an_error(compression):
    data = encoded(compression)
    with pytest.raises(DecodeError, match="block: expected"):
        decode_block(data[: len(data) // 2], replace(PLAIN, compression=compression))


def test_no_bytes_are_an_error_in_every_codec():
    for compression in ENCODERS:
        with pytest.raises(DecodeError):
            decode_block(b"", replace(PLAIN, compression=compression))
    for fmt, _ in IMAGES.values():
        if fmt.compression != 4:
            with pytest.raises(DecodeError):
                decode_block(b"", fmt)


def test_no_rows_wanted_gives_an_empty_array_of_the_right_type():
    assert decode_block(b"", replace(PLAIN, samples=3), needed_rows=0).shape == (0, 32, 3)


def test_uncompressed_native_samples_are_not_copied():
    data = PIXELS.tobytes()
    block = decode_block(data, PLAIN)
    assert not block.flags.writeable
    assert np.shares_memory(block, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("name", ["WebP", "JPEG XL", "JPEG 2000"])
def test_lossless_images_come_back_as_they_were(name):
    fmt, data = IMAGES[name]
    assert np.array_equal(decode_block(data, fmt), RGB)
    assert np.array_equal(decode_block(data, fmt, needed_rows=3), RGB[:3])


@pytest.mark.parametrize("name", ["LERC", "LERC ZSTD"])
def test_lerc_packed_once_more_is_recognised(name):
    fmt, data = IMAGES[name]
    assert np.array_equal(decode_block(data, fmt)[..., 0], PIXELS)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_jpeg_2000_equals_openjpeg_of_gdal():
    fmt, data = IMAGES["JPEG 2000"]
    with MemoryFile(data, ext=".j2k") as memory, memory.open(driver="JP2OpenJPEG") as file:
        theirs = np.moveaxis(file.read(), 0, -1)
    assert np.array_equal(decode_block(data, fmt), theirs)


def test_jpeg_of_12_bits_fills_16():
    data = imagecodecs.jpeg8_encode(PIXELS, bitspersample=12, level=100)
    fmt = replace(PLAIN, compression=7, bits_per_sample=12)
    block = decode_block(data, fmt)
    assert block.dtype == np.uint16
    assert np.array_equal(block[..., 0], imagecodecs.jpeg8_decode(data))


def test_lzw_of_the_old_manner_equals_libtiff(tmp_path):
    # Codes of 9 bits, low bits first: clear, literals, clear, ..., end.
    codes = []
    for start in range(0, BYTES.size, 200):
        codes += [256, *BYTES.ravel()[start : start + 200].tolist()]
    stream = sum(code << 9 * place for place, code in enumerate([*codes, 257]))
    data = stream.to_bytes(9 * (len(codes) + 1) // 8 + 1, "little")
    assert data[0] == 0
    assert data[1] & 1
    path = tmp_path / "old.tif"
    tags = [(256, 32), (257, 16), (258, 8), (259, 5), (262, 1), (273, 8), (277, 1), (278, 16)]
    tags.append((279, len(data)))
    ifd = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags
    )
    body = data + b"\0" * (len(data) % 2)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + ifd + bytes(4))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as file:
        theirs = file.read(1)
    assert np.array_equal(theirs, BYTES)
    assert np.array_equal(decode_block(data, replace(GREY, compression=5))[..., 0], theirs)


def test_every_supported_compression_has_a_name_and_passes_the_check():
    names = supported_compressions()
    assert names[8] == names[32946] == "deflate"
    for compression in names:
        bits = 1 if compression in (2, 3, 4) else 8
        samples = 3 if compression == 50001 else 1
        check_supported(
            replace(GREY, compression=compression, bits_per_sample=bits, samples=samples)
        )


@pytest.mark.parametrize(
    ("compression", "name"),
    [(34676, "SGILOG"), (6, "old-style JPEG"), (32809, "ThunderScan"), (65535, "unknown")],
)
def test_other_compressions_are_refused_by_number_and_name(compression, name):
    with pytest.raises(UnsupportedTiffError, match=f"compression: .*{compression} .*{name}"):
        check_supported(replace(PLAIN, compression=compression))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"predictor": 4}, "predictor: expected 1, 2 or 3, got 4"),
        ({"predictor": 2, "bits_per_sample": 12}, "predictor 2: .* got .uint16 of 12 bits"),
        ({"predictor": 3}, "predictor 3: .* got .uint16 of 16 bits"),
        ({"bits_per_sample": 24, "dtype": "uint32", "byte_order": "big"}, "little-endian"),
        ({"bits_per_sample": 40, "dtype": "uint64"}, "sample: "),
        ({"photometric": 5, "dtype": "uint8", "bits_per_sample": 8}, "CMYK in separate planes"),
        ({"photometric": 8, "dtype": "uint8", "bits_per_sample": 8}, "CIELab"),
        ({"photometric": 6, "samples": 3}, "YCbCr"),
        ({"photometric": 6, "samples": 3, "ycbcr_subsampling": (3, 1)}, "YCbCr subsampling"),
        ({"compression": 7}, "JPEG: expected samples of 8 or 12 bits"),
        ({"compression": 4}, "CCITT"),
        ({"compression": 50001}, "WebP"),
        ({"compression": 34887, "dtype": "int64", "bits_per_sample": 64}, "LERC"),
        ({"compression": 50002, "byte_order": "big"}, "JPEG XL"),
        ({"compression": 50000, "tile_width": 1 << 20, "tile_height": 1 << 10}, "1 GiB"),
        (
            {"compression": 7, "tile_width": 1 << 30, "dtype": "uint8", "bits_per_sample": 8},
            "1 GiB",
        ),
        ({"tile_width": 0}, "at least one pixel"),
    ],
)
def test_what_cannot_be_read_right_is_refused_by_name(change, words):
    with pytest.raises(UnsupportedTiffError, match=words):
        check_supported(replace(PLAIN, **{"compression": 8, **change}))


@pytest.mark.parametrize("compression", [1, 8])
def test_the_first_rows_of_a_strip_of_many_gigabytes_can_be_read(compression):
    fmt = replace(PLAIN, compression=compression, tile_height=1 << 30)
    block = decode_block(encoded(compression), fmt, needed_rows=4)
    assert np.array_equal(block[..., 0], PIXELS[:4])
    with pytest.raises(UnsupportedTiffError, match="1 GiB"):
        decode_block(encoded(compression), fmt)


def test_a_predictor_tag_beside_a_codec_without_one_is_ignored():
    assert np.array_equal(decode_block(encoded(1), replace(PLAIN, predictor=2))[..., 0], PIXELS)


BOMBS = {
    "deflate": (8, lambda: zlib.compress(bytes(1 << 26), 1)),
    "ZSTD": (50000, lambda: imagecodecs.zstd_encode(bytes(1 << 26))),
    "LZMA": (34925, lambda: lzma.compress(bytes(1 << 26), preset=0)),
    "PackBits": (32773, lambda: b"\x81\0" * (1 << 19)),
    "LERC": (34887, lambda: imagecodecs.lerc_encode(np.zeros((8000, 8000), np.uint8))),
    "LERC in deflate": (34887, lambda: zlib.compress(b"Lerc2 " + bytes(1 << 26), 1)),
    "LERC in ZSTD": (34887, lambda: imagecodecs.zstd_encode(b"Lerc2 " + bytes(1 << 26))),
    "JPEG": (7, lambda: imagecodecs.jpeg8_encode(np.zeros((4000, 8000), np.uint8))),
    "JPEG 2000": (34712, lambda: imagecodecs.jpeg2k_encode(np.zeros((3000, 3000), np.uint8))),
    "JPEG XL": (
        50002,
        lambda: imagecodecs.jpegxl_encode(np.zeros((3000, 3000), np.uint8), effort=1),
    ),
}


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("name", BOMBS)
def test_a_block_that_swells_costs_no_more_than_its_pixels(name):
    compression, make = BOMBS[name]
    data = make()
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = _resident(), time.perf_counter()
    try:
        block = decode_block(data, replace(GREY, compression=compression))
    except DecodeError:
        pass
    else:
        assert block.shape == (16, 32, 1)
        assert not block.any()
    assert time.perf_counter() - begun < 1
    assert _resident() - before < 24 << 20


def test_a_jpeg_frame_larger_than_its_block_is_refused_before_it_is_decoded():
    _, data = IMAGES["JPEG"]
    place = data.index(b"\xff\xc0") + 5
    huge = data[:place] + struct.pack(">HH", 65000, 65000) + data[place + 4 :]
    with pytest.raises(DecodeError, match="rows=65000"):
        decode_block(huge, replace(GREY, compression=7))


def test_a_cut_jpeg_is_an_error_and_not_half_a_picture():
    fmt, data = IMAGES["JPEG"]
    with pytest.raises(DecodeError, match="a whole JPEG image"):
        decode_block(data[: -len(data) // 3], fmt)


@pytest.mark.parametrize("rows", [None, 5])
@pytest.mark.parametrize("compression", [8, 32946, 34925])
def test_a_block_that_is_read_whole_is_verified_to_its_end(compression, rows):
    fmt = replace(PLAIN, compression=compression)
    data = encoded(compression, rows or 16)
    checksum_at = -1 if compression != 34925 else -30
    for broken in (data[:-4], _flipped(data, checksum_at)):
        with pytest.raises(DecodeError, match="corrupt"):
            decode_block(broken, fmt, rows=rows)
        # of a part of the rows nobody can tell
        assert np.array_equal(
            decode_block(broken, fmt, rows=rows, needed_rows=2)[..., 0], PIXELS[:2]
        )


@pytest.mark.parametrize("compression", [8, 34925])
def test_a_last_strip_with_surplus_rows_is_verified_too(compression):
    fmt = replace(PLAIN, compression=compression)
    data = encoded(compression)
    assert np.array_equal(decode_block(data, fmt, rows=5)[..., 0], PIXELS[:5])
    for broken in (data[:-4], _flipped(data, -1 if compression == 8 else -30)):
        with pytest.raises(DecodeError, match="corrupt"):
            decode_block(broken, fmt, rows=5)


def test_what_inflates_without_end_behind_the_rows_is_an_error_and_soon():
    bomb = zlib.compress(bytes(256 << 20), 1)
    begun = time.perf_counter()
    with pytest.raises(DecodeError, match="without an end"):
        decode_block(bomb, replace(PLAIN, compression=8))
    assert time.perf_counter() - begun < 0.5


@pytest.mark.parametrize("compression", [5, 8, 32773, 50000])
def test_memory_that_the_bytes_can_not_fill_is_refused_before_it_is_taken(compression):
    fmt = replace(PLAIN, compression=compression, tile_width=1 << 14, tile_height=1 << 14)
    before = tracemalloc_peak(lambda: _refused(encoded(compression), fmt))
    assert before < 1 << 20


def _refused(data, fmt):
    with pytest.raises(DecodeError, match="truncated or corrupt"):
        decode_block(data, fmt)


def tracemalloc_peak(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _flipped(data, at):
    broken = bytearray(data)
    broken[at] ^= 0xFF
    return bytes(broken)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_a_jpeg_whose_data_end_early_is_an_error_though_it_has_an_end(samples, share):
    rng = np.random.default_rng(0)
    shape = (128, 128, 3) if samples == 3 else (128, 128)
    pixels = np.cumsum(rng.integers(0, 3, shape), axis=1).astype(np.uint8)
    fmt = replace(
        GREY, compression=7, tile_width=128, tile_height=128, samples=samples,
        photometric=6 if samples == 3 else 1,
    )  # fmt: skip
    spaces = {"colorspace": "RGB", "outcolorspace": "YCBCR"} if samples == 3 else {}
    data = imagecodecs.jpeg8_encode(pixels, 80, **spaces)
    start = data.index(b"\xff\xda")
    cut = start + int(share * (len(data) - start))
    assert decode_block(data, fmt).shape == (128, 128, samples)
    # an end of the image, and a mark that is none
    for end in (b"\xff\xd9", b"\xff\x37" + data[cut:]):
        with pytest.raises(DecodeError, match=r"the file is (truncated|corrupt)"):
            decode_block(data[:cut] + end, fmt)


def test_a_grey_jpeg_is_whole():
    for level in (127, 128, 129):
        for samples in (1, 3):
            pixels = np.full((64, 64, samples), level, np.uint8).squeeze()
            fmt = replace(GREY, compression=7, tile_width=64, tile_height=64, samples=samples)
            data = imagecodecs.jpeg8_encode(pixels, 90, **JPEG_RGB[samples])
            fmt = replace(fmt, photometric=6 if samples == 3 else 1)
            assert (decode_block(data, fmt) == pixels.reshape(64, 64, samples)).all()


JPEG_RGB = {1: {}, 3: {"colorspace": "RGB", "outcolorspace": "YCBCR"}}


def test_a_jpeg_of_few_bytes_and_many_pixels_is_refused():
    data = imagecodecs.jpeg8_encode(np.zeros((16, 32), np.uint8), 90)
    place = data.index(b"\xff\xc0") + 5
    huge = data[:place] + struct.pack(">HH", 16384, 32) + data[place + 4 :]
    with pytest.raises(DecodeError, match="a whole JPEG image"):
        decode_block(huge, replace(GREY, compression=7, tile_height=16384))


@pytest.mark.parametrize(
    "fmt",
    [
        replace(PLAIN, dtype="uint8", bits_per_sample=12),
        replace(PLAIN, dtype="uint8", bits_per_sample=31, compression=8),
        replace(PLAIN, dtype="float64", bits_per_sample=16, predictor=3),
    ],
)
def test_a_format_that_contradicts_itself_is_an_error_of_ours(fmt):
    data = encoded(fmt.compression)
    with pytest.raises(RasteretError, match=r"expected .*, got"):
        decode_block(data * 40, fmt)


def _mutations(data: bytes, rng: np.random.Generator, count: int):
    for _ in range(count):
        broken = bytearray(data)
        for place in rng.integers(0, len(broken), rng.integers(1, 6)):
            broken[place] = rng.integers(256)
        yield bytes(broken[: rng.integers(1, len(broken) + 1)] if rng.random() < 0.3 else broken)


@pytest.mark.parametrize("name", [*IMAGES, *map(str, ENCODERS)])
def test_damaged_blocks_give_an_array_or_a_decode_error_and_soon(name):
    if name in IMAGES:
        fmt, data = IMAGES[name]
    else:
        fmt, data = replace(PLAIN, compression=int(name), predictor=2), encoded(int(name))
    rng = np.random.default_rng(len(name))
    begun = time.perf_counter()
    for broken in _mutations(bytes(data), rng, 60):
        try:
            block = decode_block(broken, fmt)
        except DecodeError:
            continue
        assert block.shape == (16, 32, fmt.samples)
    assert time.perf_counter() - begun < 5
