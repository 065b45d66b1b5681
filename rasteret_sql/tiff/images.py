"""Compressions whose blocks are small images of their own: JPEG, WebP, JPEG XL, LERC, fax."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import DecodeError, UnsupportedTiffError
from rasteret_sql.tiff import tags
from rasteret_sql.tiff.inflate import Bytes, corrupt, deflate, zstd
from rasteret_sql.tiff.layout import BlockFormat

Decode: TypeAlias = Callable[[Bytes, int], NDArray[Any]]
"""``decode(data, rows)``: shape (rows at least, tile_width, samples) or (rows, tile_width)."""

_FAX3: Final = 3
_FAX4: Final = 4
_YCBCR: Final = 6
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_LERC1_MAGIC: Final = b"CntZImage "
_MAX_JPEG_SCANS: Final = 100
_JPEG_SPACES: Final = {1: "GRAYSCALE", 2: "UNKNOWN", 3: "RGB", 4: "CMYK"}
_MAX_JPEG_PIXELS: Final = 512
"""Pixels that one byte of Huffman codes can make: a bit for each block of 64."""

_JPEG_TAIL: Final = bytes((37 * n * n + 11 * n + 90) % 251 for n in range(96))
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""What ends coded data: neither a stuffed byte nor a restart."""

_ARITHMETIC: Final = frozenset({0xC9, 0xCA})
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})


def _run(name: str, decode: Callable[..., Any], data: Bytes, **options: object) -> NDArray[Any]:
    try:
        return np.asarray(decode(data, **options))
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise corrupt(name, error) from None


def _shape(fmt: BlockFormat, rows: int) -> tuple[int, ...]:
    return (rows, fmt.tile_width, fmt.samples) if fmt.samples > 1 else (rows, fmt.tile_width)


def _out(fmt: BlockFormat, rows: int) -> NDArray[Any]:
    return np.zeros(_shape(fmt, rows), fmt.dtype)


def _require(fmt: BlockFormat, name: str, dtypes: set[str], samples: set[int]) -> None:
    if fmt.dtype not in dtypes or fmt.bits_per_sample != 8 * np.dtype(fmt.dtype).itemsize:
        got = f"{fmt.dtype} of {fmt.bits_per_sample} bits"
        raise UnsupportedTiffError.expected(
            name, f"one of {', '.join(sorted(dtypes))}", got, "convert the file"
        )
    if fmt.samples not in samples:
        listed = ", ".join(map(str, sorted(samples)))
        raise UnsupportedTiffError.expected(
            name, f"{listed} samples in a block", fmt.samples, "convert the file"
        )


def _require_little_endian(fmt: BlockFormat, name: str) -> None:
    """Refuse what no reader at hand could confirm."""
    if fmt.byte_order == "big" and fmt.bits_per_sample > 8:
        got = f"{fmt.bits_per_sample} bits in a big-endian file"
        raise UnsupportedTiffError.expected(
            name, "8 bits or a little-endian file", got, "convert the file"
        )


class JpegFrame(NamedTuple):
    """Precision and size of a JPEG image, in the order of its frame header."""

    bits: int
    rows: int
    columns: int
    samples: int


class _JpegParts(NamedTuple):
    """The frame of a JPEG image, its kind, and where its coded data begin and end."""

    frame: JpegFrame
    marker: int
    start: int
    stop: int


def _jpeg_parts(data: bytes) -> _JpegParts:
    """What the headers say, read before the decoder may allocate by it.

    Raises:
        DecodeError: if there is no frame, or no end of the image behind its coded data.

    Source:
        ITU-T T.81, sections B.1.1, B.2.2 and B.2.3.
    """
    position, frame, kind = 2, None, 0
    while position + 10 <= len(data):
        if data[position] != 0xFF:
            position += 1
            continue
        marker = data[position + 1]
        if marker == 0xD9:
            break
        has_length = marker not in (0x00, 0x01, 0xFF) and not 0xD0 <= marker <= 0xD8
        step = 2 + int.from_bytes(data[position + 2 : position + 4]) if has_length else 1
        if marker in _FRAMES and frame is None:
            frame, kind = JpegFrame(*struct.unpack_from(">BHHB", data, position + 4)), marker
        position += step
        if marker == 0xDA and frame is not None:
            found = _JPEG_MARKER.search(data, position)
            # Neither occurs inside of coded data; the decoder would fill a cut image with grey.
            if found is None or data.rfind(b"\xff\xd9", found.start()) < 0:
                raise _jpeg_ends_early(data)
            return _JpegParts(frame, kind, position, found.start())
    raise DecodeError.expected(
        "block", "a baseline or progressive JPEG frame", f"{len(data)} bytes", "the file is corrupt"
    )


def _jpeg_ends_early(data: bytes) -> DecodeError:
    return DecodeError.expected(
        "block", "a whole JPEG image", f"{len(data)} bytes of one", "the file is truncated"
    )


def _may_end_early(pixels: NDArray[Any], bits: int) -> bool:
    """Whether the last pixel is what the decoder puts where there are no data: mid-grey."""
    middle = 1 << (bits - 1)
    corner = pixels[-1, -1].astype(np.int64)
    return bool((np.abs(corner - middle) <= 1).all())


def jpeg(fmt: BlockFormat) -> Decode:
    """Compression 7. YCbCr becomes RGB, as in GDAL; other colours are left alone."""
    if (fmt.dtype, fmt.bits_per_sample) not in (("uint8", 8), ("int8", 8), ("uint16", 12)):
        got = f"{fmt.dtype} of {fmt.bits_per_sample} bits"
        raise UnsupportedTiffError.expected(
            "JPEG", "samples of 8 or 12 bits", got, "convert the file"
        )
    if fmt.photometric == _YCBCR and fmt.samples == 3:
        spaces = {"colorspace": "YCBCR", "outcolorspace": "RGB"}
    elif fmt.samples in _JPEG_SPACES:
        same = _JPEG_SPACES[fmt.samples]
        spaces = {"colorspace": same, "outcolorspace": same}
    else:
        raise UnsupportedTiffError.expected(
            "JPEG", "1 to 4 samples in a block", fmt.samples, "convert the file"
        )

    def decode(data: Bytes, rows: int) -> NDArray[Any]:
        raw = bytes(data)
        parts = _jpeg_parts(raw)
        frame = parts.frame
        fits = frame._replace(rows=0) == (fmt.bits_per_sample, 0, fmt.tile_width, fmt.samples)
        if not fits or not rows <= frame.rows <= fmt.tile_height:
            wanted = JpegFrame(fmt.bits_per_sample, rows, fmt.tile_width, fmt.samples)
            raise DecodeError.expected("block", str(wanted), frame, "the file is corrupt")
        is_short = (
            parts.marker not in _ARITHMETIC
            and frame.rows * frame.columns > _MAX_JPEG_PIXELS * len(raw)
        )
        if is_short or raw.count(b"\xff\xda") > _MAX_JPEG_SCANS:
            raise _jpeg_ends_early(raw)

        def image(whole: bytes) -> NDArray[Any]:
            # The bits of signed bytes are stored as if they were unsigned.
            kind = "uint16" if fmt.bits_per_sample == 12 else "uint8"
            out = np.zeros(_shape(fmt, frame.rows), kind)
            return _run(
                "JPEG", imagecodecs.jpeg8_decode, whole, tables=fmt.jpeg_tables, out=out, **spaces
            )

        pixels = image(raw)
        if _may_end_early(pixels, fmt.bits_per_sample):
            # Grey by its data, an image is the same whatever follows them.
            longer = raw[: parts.stop] + _JPEG_TAIL + raw[parts.stop :]
            if not np.array_equal(image(longer), pixels):
                raise _jpeg_ends_early(raw)
        return pixels.view(fmt.dtype)

    return decode


def webp(fmt: BlockFormat) -> Decode:
    """Compression 50001. A fourth sample that the image lacks is opaque."""
    _require(fmt, "WebP", {"uint8"}, {3, 4})
    has_alpha = fmt.samples == 4

    def decode(data: Bytes, rows: int) -> NDArray[Any]:
        out = _out(fmt, rows)
        return _run("WebP", imagecodecs.webp_decode, data, hasalpha=has_alpha, out=out)

    return decode


def jpegxl(fmt: BlockFormat) -> Decode:
    """Compressions 50002 and 52546."""
    _require(fmt, "JPEG XL", {"uint8", "uint16", "float16", "float32"}, {1, 2, 3, 4})
    _require_little_endian(fmt, "JPEG XL")

    def decode(data: Bytes, rows: int) -> NDArray[Any]:
        out = _out(fmt, rows)
        return _run("JPEG XL", imagecodecs.jpegxl_decode, data, numthreads=1, out=out)

    return decode


def jpeg2000(fmt: BlockFormat) -> Decode:
    """Compressions 34712 and 33005."""
    _require(fmt, "JPEG 2000", {"uint8", "uint16", "int8", "int16"}, {1, 3, 4})
    _require_little_endian(fmt, "JPEG 2000")

    def decode(data: Bytes, rows: int) -> NDArray[Any]:
        _check_jpeg2000_size(bytes(data), fmt, rows)
        out = _out(fmt, rows)
        return _run("JPEG 2000", imagecodecs.jpeg2k_decode, data, numthreads=1, out=out)

    return decode


def _check_jpeg2000_size(data: bytes, fmt: BlockFormat, rows: int) -> None:
    """Compare the size segment first: the decoder makes all pixels before it looks.

    Source:
        ITU-T T.800, section A.5.1.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    wanted = (fmt.tile_width, rows, fmt.samples)
    got = (0, 0, 0)
    if 0 <= start <= len(data) - 42:
        right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
        samples = int.from_bytes(data[start + 40 : start + 42])
        steps = [data[start + 43 + 3 * n : start + 45 + 3 * n] for n in range(min(samples, 8))]
        if all(step == b"\x01\x01" for step in steps):
            got = (right - left, bottom - top, samples)
    if got != wanted:
        raise DecodeError.expected(
            "block", f"a JPEG 2000 image of {wanted}", got, "the file is corrupt"
        )


_LERC_TYPES: Final = (
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "float32",
    "float64",
)


def lerc(fmt: BlockFormat) -> Decode:
    """Compression 34887, packed once more with deflate or ZSTD or not.

    Source:
        https://github.com/Esri/lerc, doc/MORE.md; libtiff, tif_lerc.c.
    """
    _require(fmt, "LERC", set(_LERC_TYPES), set(range(1, 65536)))
    # The decoder leaves pixels that the mask calls invalid as they were, hence zeros for it.
    pixel_bytes = fmt.samples * np.dtype(fmt.dtype).itemsize
    bound = 2 * fmt.tile_height * fmt.tile_width * pixel_bytes + (1 << 16)

    def decode(data: Bytes, rows: int) -> NDArray[Any]:
        blob = _lerc_blob(data, bound)
        depth = 1
        if blob[:6] == b"Lerc2 ":
            depth = _lerc2_depth(blob)
        elif blob[:10] != _LERC1_MAGIC:
            raise DecodeError.expected("block", "LERC data", blob[:10], "the file is corrupt")
        if fmt.samples > 1 and depth == fmt.samples - 1 and fmt.dtype == "uint8":
            return _lerc_with_alpha(blob, rows, fmt)
        # Either all samples are one value of the pixel, or each is a band with its own mask.
        is_banded = fmt.samples > 1 and depth == 1
        shape = (fmt.samples, rows, fmt.tile_width) if is_banded else _shape(fmt, rows)
        values, valid = _lerc(blob, np.zeros(shape, fmt.dtype))
        if valid is not None and values.dtype.kind == "f":
            values[~valid] = np.nan
        # libtiff encodes the swapped numbers of a big-endian file.
        return _lerc_swapped(np.moveaxis(values, 0, -1) if is_banded else values, fmt)

    return decode


def _lerc(blob: bytes, out: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    try:
        values, valid = imagecodecs.lerc_decode(blob, masks=True, out=out)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise corrupt("LERC", error) from None
    return values, None if valid is None else np.asarray(valid, np.bool_)


def _lerc_swapped(values: NDArray[Any], fmt: BlockFormat) -> NDArray[Any]:
    return values.byteswap() if fmt.byte_order == "big" else values


def _lerc_blob(data: Bytes, bound: int) -> bytes:
    start = bytes(data[:4])
    if start == _ZSTD_MAGIC:
        return zstd(data, bound, bound, bound).tobytes()
    if start[:1] == b"\x78":
        return deflate(data, bound, bound, bound).tobytes()
    return bytes(data)


def _lerc2_depth(blob: bytes) -> int:
    """Values per pixel of a LERC 2 blob; 1 before version 4."""
    if len(blob) < 26:
        raise DecodeError.expected(
            "block", "LERC data", f"{len(blob)} bytes", "the file is truncated"
        )
    version = int.from_bytes(blob[6:10], "little", signed=True)
    return int.from_bytes(blob[22:26], "little", signed=True) if version >= 4 else 1


def _lerc_with_alpha(blob: bytes, rows: int, fmt: BlockFormat) -> NDArray[Any]:
    """The mask of the blob is the last sample: 255 where it is valid."""
    depth = fmt.samples - 1
    shape = (rows, fmt.tile_width, depth) if depth > 1 else (rows, fmt.tile_width)
    colours, valid = _lerc(blob, np.zeros(shape, fmt.dtype))
    result = np.full((rows, fmt.tile_width, fmt.samples), 255, np.uint8)
    result[..., :depth] = colours.reshape(rows, fmt.tile_width, depth)
    if valid is not None:
        result[..., depth] = np.where(valid, 255, 0)
    return result


def fax(fmt: BlockFormat) -> Decode:
    """Compressions 2, 3 and 4: black and white, the codes of facsimile machines."""
    if fmt.bits_per_sample != 1 or fmt.samples != 1:
        got = f"{fmt.samples} of {fmt.bits_per_sample} bits"
        raise UnsupportedTiffError.expected(
            "CCITT compression", "one sample of 1 bit", got, "the file is corrupt"
        )

    def decode(data: Bytes, rows: int) -> NDArray[Any]:
        # imagecodecs' own fax decoder loses its place where an encoder writes runs of no
        # pixels; libtiff does not, but it refuses group 4 that ends before the last row.
        out = np.zeros((rows, fmt.tile_width), np.bool_)
        try:
            file = _one_strip_file(bytes(data), fmt, rows)
            return _run("CCITT", imagecodecs.tiff_decode, file, out=out).view(np.uint8)
        except DecodeError:
            if fmt.compression != _FAX4:
                raise
        black, size = out.view(np.uint8), {"width": fmt.tile_width, "height": rows}
        return _run("CCITT", imagecodecs.ccittfax4_decode, data, out=black, **size)

    return decode


def _one_strip_file(data: bytes, fmt: BlockFormat, rows: int) -> bytes:
    """A TIFF file of one fax strip; MinIsBlack leaves the bits as they are."""
    entries = {
        tags.IMAGE_WIDTH: fmt.tile_width,
        tags.IMAGE_LENGTH: rows,
        tags.BITS_PER_SAMPLE: 1,
        tags.COMPRESSION: fmt.compression,
        tags.PHOTOMETRIC: 1,
        tags.STRIP_OFFSETS: 8,
        tags.SAMPLES_PER_PIXEL: 1,
        tags.ROWS_PER_STRIP: rows,
        tags.STRIP_BYTE_COUNTS: len(data),
    }
    if fmt.compression == _FAX3:
        entries[tags.T4_OPTIONS] = fmt.t4_options
    start = len(data) + 8 + len(data) % 2  # a directory lies at an even offset
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in entries.items())
    count = struct.pack("<H", len(entries))
    header = struct.pack("<2sHI", b"II", 42, start)
    return b"".join((header, data.ljust(start - 8, b"\0"), count, directory, bytes(4)))


IMAGES: Final[dict[int, Callable[[BlockFormat], Decode]]] = {
    2: fax,
    3: fax,
    4: fax,
    7: jpeg,
    33005: jpeg2000,
    34712: jpeg2000,
    34887: lerc,
    50001: webp,
    50002: jpegxl,
    52546: jpegxl,
}
