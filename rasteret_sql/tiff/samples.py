"""What one sample of a pixel is: its type as GDAL reads it."""

from __future__ import annotations

from typing import Final

from rasteret_sql.errors import UnsupportedTiffError
from rasteret_sql.tiff import tags
from rasteret_sql.tiff.ifd import Ifd

_UNSIGNED: Final = 1
_SIGNED: Final = 2
_FLOAT: Final = 3
_COMPLEX_INTEGER: Final = 5
_COMPLEX_FLOAT: Final = 6

_EXACT: Final = {
    (_UNSIGNED, 8): "uint8",
    (_UNSIGNED, 16): "uint16",
    (_UNSIGNED, 32): "uint32",
    (_UNSIGNED, 64): "uint64",
    (_SIGNED, 8): "int8",
    (_SIGNED, 16): "int16",
    (_SIGNED, 32): "int32",
    (_SIGNED, 64): "int64",
    (_FLOAT, 16): "float16",
    (_FLOAT, 24): "float32",
    (_FLOAT, 32): "float32",
    (_FLOAT, 64): "float64",
    (_COMPLEX_INTEGER, 32): "complex_int16",
    (_COMPLEX_INTEGER, 64): "complex_int32",
    (_COMPLEX_FLOAT, 64): "complex64",
    (_COMPLEX_FLOAT, 128): "complex128",
}


def sample_dtype(page: Ifd) -> str:
    """The type of every sample of a page.

    Odd bit depths become the next unsigned type, signed ones too, as in GDAL.

    Raises:
        UnsupportedTiffError: if samples differ in their format, or no type fits it.
    """
    bits = _same_for_all(page, tags.BITS_PER_SAMPLE, "BitsPerSample", 1)
    kind = _same_for_all(page, tags.SAMPLE_FORMAT, "SampleFormat", _UNSIGNED)
    name = _EXACT.get((_UNSIGNED if kind == 4 else kind, bits))
    if name is not None:
        return name
    if kind in (_UNSIGNED, _SIGNED, 4) and 1 <= bits < 32:
        return "uint8" if bits < 8 else "uint16" if bits < 16 else "uint32"
    raise UnsupportedTiffError.expected(
        "TIFF SampleFormat and BitsPerSample",
        "integers up to 64 bits, floats of 16, 24, 32 or 64, or complex numbers",
        f"format {kind} with {bits} bits",
        "convert the file",
    )


def _same_for_all(page: Ifd, tag: int, name: str, default: int) -> int:
    if page.count(tag) <= 1:
        return page.integer(tag, default)
    # libtiff leaves alone what is more than one value for each sample.
    values = page.whole_numbers(tag)[: page.integer(tags.SAMPLES_PER_PIXEL, 1)]
    if not values:  # of no integer type; libtiff leaves the tag out
        return default
    if min(values) != max(values):
        raise UnsupportedTiffError.expected(
            f"TIFF {name}", "the same for all samples", values, "split the bands into files"
        )
    return values[0]
