"""Which pages of a file are the image, its overviews and its masks, and what a page says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import HeaderError, UnsupportedTiffError
from rasteret_sql.tiff import tags
from rasteret_sql.tiff.ifd import Dialect, Ifd, read_ifd
from rasteret_sql.tiff.layout import CHUNKY, SEPARATE, Level
from rasteret_sql.tiff.source import ByteSource

_MAX_PAGES: Final = 1024
_MAX_OVERVIEWS: Final = 30
_MAX_CHAIN_REQUESTS: Final = 16
_MAX_SIDE: Final = (1 << 31) - 1
_MAX_PADDED_BLOCKS: Final = 1 << 20
_MAX_JPEG_TABLES: Final = 1 << 16
_YCBCR: Final = 6
_NO_ROWS_PER_STRIP: Final = (1 << 32) - 1
_LEVEL_INTEGERS: Final = (
    (tags.IMAGE_WIDTH, 0),
    (tags.IMAGE_LENGTH, 0),
    (tags.TILE_WIDTH, 0),
    (tags.TILE_LENGTH, 0),
    (tags.ROWS_PER_STRIP, _NO_ROWS_PER_STRIP),
    (tags.PLANAR_CONFIGURATION, CHUNKY),
    (tags.SAMPLES_PER_PIXEL, 1),
    (tags.COMPRESSION, 1),
    (tags.PREDICTOR, 1),
    (tags.PHOTOMETRIC, 1),
    (tags.BITS_PER_SAMPLE, 1),
)
"""What a level is read from, with what stands for a tag that is absent."""
_LEVEL_TAGS: Final = tuple(tag for tag, _ in _LEVEL_INTEGERS)


@dataclass(slots=True)
class Pages:
    """The pages of a file that matter, by role."""

    image: Ifd
    overviews: list[Ifd] = field(default_factory=list)
    masks: list[Ifd] = field(default_factory=list)
    overview_masks: list[Ifd] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def by_kind(self, subfile_type: int) -> list[Ifd] | None:
        """The list that pages of a NewSubfileType belong to; None for images of their own."""
        if subfile_type & tags.REDUCED_IMAGE:
            return self.overview_masks if subfile_type & tags.MASK else self.overviews
        return self.masks if subfile_type & tags.MASK else None

    def all(self) -> list[Ifd]:
        """Every page in it."""
        return [self.image, *self.overviews, *self.masks, *self.overview_masks]


def read_pages(source: ByteSource, dialect: Dialect, first: int) -> Pages:
    """Follow the chain of directories and the SubIFDs of the first one.

    The first page is the image; NewSubfileType says what the others are, and pages
    without a flag are other images, which are left alone. A later directory that can't
    be read ends the chain with a warning, as in GDAL.

    Raises:
        HeaderError: if the first directory can't be read.
    """
    image, following = read_ifd(source, dialect, first)
    pages = Pages(image)
    seen = {first}
    if tags.SUB_IFDS in image:
        for offset in image.whole_numbers(tags.SUB_IFDS):
            if offset not in seen and len(seen) < _MAX_PAGES:
                seen.add(offset)
                _read_later_page(source, dialect, offset, pages)
    while following and following not in seen and len(seen) < _MAX_PAGES:
        if source.requests >= _MAX_CHAIN_REQUESTS:
            pages.warnings.append(f"pages beyond {len(seen)} are left out: they lie far apart")
            break
        seen.add(following)
        following = _read_later_page(source, dialect, following, pages)
    return pages


def _read_later_page(source: ByteSource, dialect: Dialect, offset: int, pages: Pages) -> int:
    """Sort a page into its role; where the next one is, 0 if this one can't be read."""
    try:
        page, following = read_ifd(source, dialect, offset)
    except HeaderError as error:
        pages.warnings.append(f"the rest of the pages is left out: {error.message}")
        return 0
    kind = page.integer(tags.NEW_SUBFILE_TYPE, -1)
    if kind < 0:
        kind = tags.REDUCED_IMAGE if page.integer(tags.SUBFILE_TYPE, 0) == 2 else 0
    role = pages.by_kind(kind)
    if role is not None and len(role) < _MAX_OVERVIEWS:
        role.append(page)
    return following


def read_level(page: Ifd) -> Level:
    """Size, blocks and codec of one page.

    Raises:
        HeaderError: if a tag that every image needs is missing or absurd.
        UnsupportedTiffError: if the image has more blocks than can be handled.
    """
    sizes = page.directory.sizes
    if sizes is None:
        sizes = _level_sizes(page)
        if page.are_inline(_LEVEL_TAGS):  # else they are not of the directory alone
            page.directory.sizes = sizes
    width, height, tile_width, tile_height, blocks, samples, *codec = sizes
    compression, predictor, photometric, bits = codec
    offsets, byte_counts = _block_tables(
        page, blocks, tile_width, tile_height, is_compressed=compression != 1
    )
    return Level(
        width,
        height,
        tile_width,
        tile_height,
        tags.TILE_WIDTH in page or tags.TILE_OFFSETS in page,
        offsets,
        byte_counts,
        compression,
        predictor,
        photometric,
        bits,
        page.data(tags.JPEG_TABLES, _MAX_JPEG_TABLES) or None,
        samples,
    )


def _level_sizes(page: Ifd) -> tuple[int, ...]:
    """Image width and height, block width and height, blocks and samples in one, codec."""
    (
        width,
        height,
        tile_width,
        tile_height,
        rows_per_strip,
        planar,
        samples,
        compression,
        predictor,
        photometric,
        bits,
    ) = page.integers(_LEVEL_INTEGERS)
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise HeaderError.expected(
            "TIFF ImageWidth and ImageLength",
            f"1 to {_MAX_SIDE}",
            f"{width} x {height}",
            "the file is corrupt",
        )
    is_tiled = tags.TILE_WIDTH in page or tags.TILE_OFFSETS in page
    if not is_tiled:
        tile_width, tile_height = width, min(rows_per_strip, height)
    if not (0 < tile_width <= _MAX_SIDE and 0 < tile_height <= _MAX_SIDE):
        raise HeaderError.expected(
            "TIFF TileWidth and TileLength" if is_tiled else "TIFF RowsPerStrip",
            f"1 to {_MAX_SIDE}",
            f"{tile_width} x {tile_height}" if is_tiled else tile_height,
            "the file is corrupt",
        )
    blocks = -(-width // tile_width) * -(-height // tile_height)
    if planar == SEPARATE:
        blocks, samples = blocks * samples, 1
    codec = compression, predictor, photometric, bits
    return width, height, tile_width, tile_height, blocks, samples, *codec


def _block_tables(
    page: Ifd, blocks: int, tile_width: int, tile_height: int, *, is_compressed: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the blocks are and how long, one entry per block."""
    entries = page.entries
    # libtiff takes the strip tags for tiles and the other way round: the numbers are the same
    offsets_tag = tags.TILE_OFFSETS if tags.TILE_OFFSETS in entries else tags.STRIP_OFFSETS
    counts_tag = (
        tags.TILE_BYTE_COUNTS if tags.TILE_BYTE_COUNTS in entries else tags.STRIP_BYTE_COUNTS
    )
    if offsets_tag not in entries:
        raise HeaderError.expected(
            "TIFF header", "TileOffsets or StripOffsets", "neither", "the file is corrupt"
        )
    offsets = _fit(page.table(offsets_tag), blocks)
    if counts_tag in entries:
        byte_counts = _fit(page.table(counts_tag), blocks)
        if blocks > 1 or tags.TILE_WIDTH in page:
            return offsets, byte_counts
        needed = _uncompressed_counts(page, offsets, tile_width, tile_height)
        if not _is_doubtful(page, offsets, byte_counts, needed, is_compressed=is_compressed):
            return offsets, byte_counts
    if is_compressed:
        return offsets, _counts_between(offsets, page.source.file_size)
    return offsets, _uncompressed_counts(page, offsets, tile_width, tile_height)


def _is_doubtful(
    page: Ifd,
    offsets: NDArray[np.int64],
    byte_counts: NDArray[np.int64],
    needed: NDArray[np.int64],
    *,
    is_compressed: bool,
) -> bool:
    """Whether the length of an only strip can't be meant; of several, 0 is a sparse block.

    Source:
        libtiff, tif_dirread.c, ``BYTECOUNTLOOKSBAD``.
    """
    offset, count = int(offsets[0]), int(byte_counts[0])
    if is_compressed or count == 0:
        return count == 0 < offset
    is_subsampled = page.integer(tags.PHOTOMETRIC, 1) == _YCBCR
    size = page.source.file_size
    return (count < needed[0] and not is_subsampled) or (size is not None and count > size - offset)


def _uncompressed_counts(
    page: Ifd, offsets: NDArray[np.int64], tile_width: int, tile_height: int
) -> NDArray[np.int64]:
    """What blocks without compression must measure; the last strip may have fewer rows."""
    bits = page.integer(tags.BITS_PER_SAMPLE, 1)
    if page.integer(tags.PLANAR_CONFIGURATION, CHUNKY) == CHUNKY:
        bits *= page.integer(tags.SAMPLES_PER_PIXEL, 1)
    row_bytes = min((tile_width * bits + 7) // 8, _MAX_SIDE)
    counts = np.where(offsets > 0, np.int64(row_bytes * tile_height), np.int64(0))
    height = page.integer(tags.IMAGE_LENGTH, 0)
    if tags.TILE_WIDTH not in page and height % tile_height:
        strips = -(-height // tile_height)
        counts[strips - 1 :: strips] = np.where(
            offsets[strips - 1 :: strips] > 0, row_bytes * (height % tile_height), 0
        )
    return counts


def _fit(table: NDArray[np.int64], blocks: int) -> NDArray[np.int64]:
    """Cut a table that is too long; take the blocks that are missing in a short one as sparse."""
    if table.size == blocks:
        return table
    if table.size > blocks:
        return table[:blocks]
    if blocks > _MAX_PADDED_BLOCKS:
        raise UnsupportedTiffError.expected(
            "TIFF tile table", f"{blocks} entries", table.size, "the file is corrupt"
        )
    return np.concatenate([table, np.zeros(blocks - table.size, np.int64)])


def _counts_between(offsets: NDArray[np.int64], file_size: int | None) -> NDArray[np.int64]:
    """Byte counts of a file without them: each block ends where the next one starts."""
    if file_size is None:
        raise UnsupportedTiffError.expected(
            "TIFF header", "TileByteCounts or StripByteCounts", "neither", "rewrite the file"
        )
    edges = np.unique(np.append(offsets, file_size))
    ends = edges[np.minimum(np.searchsorted(edges, offsets, side="right"), edges.size - 1)]
    return np.where(offsets > 0, np.maximum(ends - offsets, 0), 0).astype(np.int64)
