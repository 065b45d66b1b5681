"""Bytes of a TIFF file to `Header`."""

from __future__ import annotations

from typing import Final

from rasteret_sql.errors import HeaderError, UnsupportedTiffError
from rasteret_sql.tiff import tags
from rasteret_sql.tiff.georef import read_file_crs, read_georef
from rasteret_sql.tiff.ifd import Ifd, read_start
from rasteret_sql.tiff.layout import CHUNKY, SEPARATE, Header, Level
from rasteret_sql.tiff.pages import read_level, read_pages
from rasteret_sql.tiff.samples import sample_dtype
from rasteret_sql.tiff.source import ByteSource, Fetch

_FIRST_READ: Final = 16 * 1024
_MAX_SAMPLES: Final = 65_535


def parse_header(data: bytes) -> Header:
    """Parse the header of a whole file in memory; see `read_header`."""

    def fetch(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return read_header(fetch, start=data, file_size=len(data))


def read_header(fetch: Fetch, *, start: bytes = b"", file_size: int | None = None) -> Header:
    """Read the header of a TIFF, from the bytes at hand and from few requests.

    A well-made COG has all of it in its first 16 KiB and costs no request beyond them.

    Args:
        fetch: ``fetch(offset, length)`` returns up to ``length`` bytes.
        start: What was already read from offset 0.
        file_size: Length of the file in bytes, if it is known.

    Raises:
        NotATiffError: if the bytes do not start like a TIFF.
        UnsupportedTiffError: if the file is a TIFF of a kind that is not read.
        HeaderError: if the header is cut off or contradicts itself.
    """
    if len(start) < 16 and (file_size is None or len(start) < file_size):
        start = fetch(0, _FIRST_READ)
    source = ByteSource(fetch, start, file_size)
    dialect, first = read_start(source)
    pages = read_pages(source, dialect, first)
    source.prefetch(part for page in pages.all() for part in page.outside())
    page = pages.image
    samples = page.integer(tags.SAMPLES_PER_PIXEL, 1)
    planar = page.integer(tags.PLANAR_CONFIGURATION, CHUNKY)
    if not 0 < samples <= _MAX_SAMPLES:
        raise HeaderError.expected(
            "TIFF SamplesPerPixel", f"1 to {_MAX_SAMPLES}", samples, "the file is corrupt"
        )
    if planar not in (CHUNKY, SEPARATE):
        raise UnsupportedTiffError.expected(
            "TIFF PlanarConfiguration", "1 or 2", planar, "the file is corrupt"
        )
    warnings = pages.warnings
    dtype = sample_dtype(page)
    return Header(
        dialect.byte_order,
        dialect.is_bigtiff,
        dtype,
        samples,
        planar,
        tuple(int(value) for value in page.numbers(tags.EXTRA_SAMPLES)),
        read_level(page),
        _read_levels(pages.overviews, warnings),
        next(iter(_read_levels(pages.masks[:1], warnings)), None),
        _read_levels(pages.overview_masks, warnings),
        read_georef(page, read_file_crs(page)),
        nodata=_nodata(page),
        scales=(1.0,) * samples,
        offsets=(0.0,) * samples,
        units=(None,) * samples,
        descriptions=(None,) * samples,
        color_interpretation=("undefined",) * samples,
        warnings=tuple(warnings),
    )


def _read_levels(pages: list[Ifd], warnings: list[str]) -> tuple[Level, ...]:
    """The levels that can be read, largest first; the others leave a warning."""
    levels = []
    for page in pages:
        try:
            levels.append(read_level(page))
        except HeaderError as error:
            warnings.append(f"an overview or mask is left out: {error.message}")
    if len(levels) > 1:
        levels.sort(key=lambda level: -level.width * level.height)
    return tuple(levels)


def _nodata(page: Ifd) -> float | None:
    text = page.data(tags.GDAL_NODATA, 256).split(b"\0")[0].decode("ascii", "replace").strip()
    try:
        return float(text) if text else None
    except ValueError:
        return None
