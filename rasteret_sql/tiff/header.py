"""Bytes of a TIFF file to `Header`."""

from __future__ import annotations

from typing import Final

from rasteret_sql.errors import HeaderError, UnsupportedTiffError
from rasteret_sql.tiff import tags
from rasteret_sql.tiff.georef import read_file_crs, read_georef
from rasteret_sql.tiff.ifd import Ifd, read_start
from rasteret_sql.tiff.layout import CHUNKY, SEPARATE, Header, Level
from rasteret_sql.tiff.metadata import (
    extra_samples,
    is_shown_as_rgba,
    read_band_metadata,
    read_nodata,
    sample_colors,
)
from rasteret_sql.tiff.pages import Pages, read_level, read_pages
from rasteret_sql.tiff.samples import sample_dtype
from rasteret_sql.tiff.source import ByteSource, Fetch
from rasteret_sql.tiff.written_alike import known_header, learn

_FIRST_READ: Final = 16 * 1024
_MAX_SAMPLES: Final = 65_535
_YCBCR: Final = 6
_JPEG: Final = 7


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
    known = known_header(source)
    if known is not None:
        return known
    dialect, first = read_start(source)
    pages = read_pages(source, dialect, first)
    _fetch_values(source, pages)
    page = pages.image
    samples, planar = _sample_layout(page)
    warnings = pages.warnings
    dtype = sample_dtype(page)
    image = read_level(page)
    made = [(image, page)]
    crs = read_file_crs(page)
    if crs.warning:
        warnings.append(crs.warning)
    colors = sample_colors(page, samples, image)
    bands = read_band_metadata(page, samples, [*colors], warnings)
    units = bands.units
    if crs.vertical_unit:
        units = [unit or crs.vertical_unit for unit in units]
    overviews, mask, mask_overviews = _read_reduced(pages, image, samples, made)
    header = Header(
        dialect.byte_order,
        dialect.is_bigtiff,
        dtype,
        samples,
        planar,
        extra_samples(page),
        image,
        overviews,
        mask,
        mask_overviews,
        read_georef(page, crs),
        read_nodata(page, dtype),
        tuple(bands.scales),
        tuple(bands.offsets),
        tuple(units),
        tuple(bands.descriptions),
        tuple(colors if is_shown_as_rgba(image, samples) else bands.colors),
        tuple(bands.statistics),
        page.integer(tags.FILL_ORDER, 1),
        page.integer(tags.T4_OPTIONS, 0),
        *_ycbcr(page, image),
        tuple(warnings),
    )
    learn(source, header, page, crs, made)
    return header


def _fetch_values(source: ByteSource, pages: Pages) -> None:
    """Get what the tags of all pages point to; leave out optional tags that are cut off."""
    missing = [
        (page, tag, offset, length)
        for page in pages.all()
        for tag, offset, length in page.outside(
            tags.READ_TAGS if page is pages.image else tags.LEVEL_TAGS
        )
        if not source.has(offset, length)
    ]
    if not missing:
        return
    source.prefetch((offset, length) for _, _, offset, length in missing)
    for page, tag, offset, length in missing:
        if tag in tags.OPTIONAL_TAGS and not source.has(offset, length):
            page.drop(tag)
            pages.warnings.append(f"TIFF tag {tag} is left out: its values are cut off")


def _sample_layout(page: Ifd) -> tuple[int, int]:
    """SamplesPerPixel and PlanarConfiguration."""
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
    return samples, planar


def _ycbcr(page: Ifd, image: Level) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """Subsampling (horizontal, vertical), coefficients and range of YCbCr.

    JPEG blocks say it themselves; a tag with too many or too few values counts as absent.
    """
    if image.photometric != _YCBCR or image.compression == _JPEG:
        return (2, 2), (), ()
    subsampling = page.whole_numbers(tags.YCBCR_SUBSAMPLING)
    coefficients, black_white = (
        values if len(values := page.numbers(tag)) == count else ()
        for tag, count in (
            (tags.YCBCR_COEFFICIENTS, 3),
            (tags.REFERENCE_BLACK_WHITE, 6),
        )
    )
    across, down = subsampling if len(subsampling) == 2 else (2, 2)
    return (across, down), coefficients, black_white


def _read_reduced(
    pages: Pages, image: Level, samples: int, made: list[tuple[Level, Ifd]]
) -> tuple[tuple[Level, ...], Level | None, tuple[Level, ...]]:
    """Overviews, mask and masks of overviews, as far as they belong to the image.

    ``made`` gets all of them, with their pages.
    """
    if not (pages.overviews or pages.masks or pages.overview_masks):
        return (), None, ()
    warnings = pages.warnings
    overviews = _read_levels(_with_samples(pages.overviews, {samples}, warnings), warnings, made)
    # TIFF has masks of one sample; GDAL also takes one for each sample of the image.
    allowed = {1, samples}
    masks = _read_levels(_with_samples(pages.masks, allowed, warnings)[:1], warnings, made)
    sizes = {(level.width, level.height) for level in overviews}
    mask_overviews = tuple(
        level
        for level in _read_levels(
            _with_samples(pages.overview_masks, allowed, warnings), warnings, made
        )
        if (level.width, level.height) in sizes
    )
    is_same_size = masks and (masks[0].width, masks[0].height) == (image.width, image.height)
    return overviews, masks[0] if is_same_size else None, mask_overviews


def _with_samples(pages: list[Ifd], allowed: set[int], warnings: list[str]) -> list[Ifd]:
    """The pages with so many samples; the others are no use to the image and leave a warning."""
    fitting = [p for p in pages if p.integer(tags.SAMPLES_PER_PIXEL, 1) in allowed]
    if len(fitting) < len(pages):
        shown = " or ".join(map(str, sorted(allowed)))
        warnings.append(f"an overview or mask without {shown} samples is left out")
    return fitting


def _read_levels(
    pages: list[Ifd], warnings: list[str], made: list[tuple[Level, Ifd]]
) -> tuple[Level, ...]:
    """The levels that can be read, largest first; the others leave a warning."""
    levels = []
    for page in pages:
        try:
            levels.append(read_level(page))
            made.append((levels[-1], page))
        except HeaderError as error:
            warnings.append(f"an overview or mask is left out: {error.message}")
    if len(levels) > 1:
        levels.sort(key=lambda level: -level.width * level.height)
    return tuple(levels)
