"""What a TIFF header says: images (levels), tile tables, and the format of one block.

A *block* is a tile, or a strip, which is a tile of full width. A *level* is one image
of the file: the full resolution, one of its overviews, or a mask of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.units import Affine

ByteOrder = Literal["little", "big"]

CHUNKY = 1
"""PlanarConfiguration: the samples of a pixel lie together."""
SEPARATE = 2
"""PlanarConfiguration: each sample has blocks of its own."""

_UNASSOCIATED_ALPHA = 2
_COREL_ALPHA = 999
"""What Corel Draw 10 writes for `_UNASSOCIATED_ALPHA`; libtiff knows it too."""
_COLOUR_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
"""PhotometricInterpretation to the samples that it needs."""


def extra_roles(photometric: int, samples: int, extra_samples: Sequence[float]) -> dict[int, int]:
    """What ExtraSamples says of which sample: 1 and 2 are alpha.

    The extra samples are the last ones; where there are fewer entries than that, GDAL takes
    them for the samples next to the colours.

    Example:
        >>> extra_roles(2, 4, (2,)), extra_roles(2, 6, (1, 0))
        ({3: 2}, {3: 1, 4: 0})
    """
    first = min(samples - len(extra_samples), _COLOUR_SAMPLES.get(photometric, samples))
    return {
        first + n: _UNASSOCIATED_ALPHA if role == _COREL_ALPHA else int(role)
        for n, role in enumerate(extra_samples)
        if first + n >= 0
    }


def alpha_sample(
    photometric: int, samples: int, extra_samples: Sequence[float], dtype: str
) -> int | None:
    """The sample that is alpha and says where the others hold data, if any.

    As in GDAL it is the last one of two or four, of unsigned integers of 8 or 16 bits; alpha
    of other files is a band like the others.

    Source:
        TIFF 6.0 section 18, ExtraSamples; GDAL raster data model, section "Mask Bands".

    Example:
        >>> alpha_sample(2, 4, (2,), "uint8"), alpha_sample(2, 4, (2,), "float32")
        (3, None)
    """
    if samples not in (2, 4) or dtype not in ("uint8", "uint16"):
        return None
    roles = extra_roles(photometric, samples, extra_samples)
    return samples - 1 if roles.get(samples - 1) in (1, 2) else None


class Level(NamedTuple):
    """One image of the file.

    Attributes:
        width: Columns of the image, in pixels.
        height: Rows of the image, in pixels.
        tile_width: Columns of a block; the image width where the file has strips.
        tile_height: Rows of a block; the rows per strip where the file has strips.
        is_tiled: False where the file has strips.
        tile_offsets: First byte of each block in the file, ``int64``, in file order; with
            separate planes all blocks of the first sample, then of the second. 0 together
            with a byte count of 0 is a sparse block.
        tile_byte_counts: Length of each block in bytes, ``int64``, same order and length.
        compression: TIFF tag 259 as in the file.
        predictor: TIFF tag 317, 1 where absent.
        photometric: TIFF tag 262.
        bits_per_sample: TIFF tag 258 of the first sample.
        jpeg_tables: TIFF tag 347, the shared tables of JPEG blocks.
        block_samples: Samples per pixel in one block: all bands where the layout is chunky,
            else 1.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    is_tiled: bool
    tile_offsets: NDArray[np.int64]
    tile_byte_counts: NDArray[np.int64]
    compression: int
    predictor: int
    photometric: int
    bits_per_sample: int
    jpeg_tables: bytes | None = None
    block_samples: int = 1

    @property
    def tiles_across(self) -> int:
        """Blocks in a row of blocks."""
        return -(-self.width // self.tile_width)

    @property
    def tiles_down(self) -> int:
        """Blocks in a column of blocks."""
        return -(-self.height // self.tile_height)

    @property
    def tiles_per_plane(self) -> int:
        """Blocks of one plane (of all samples together where the layout is chunky)."""
        return self.tiles_across * self.tiles_down


class Statistics(NamedTuple):
    """What GDAL's STATISTICS_* items say of a sample's values; None for those that are absent."""

    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    stddev: float | None = None
    valid_percent: float | None = None


class Georef(NamedTuple):
    """Where the raster lies.

    Attributes:
        affine: Upper-left pixel corner to map (PixelIsArea), None where the file has no
            transform of its own (ground control points only, or nothing).
        epsg: EPSG code of the CRS, None where there is none (32767 is never a code).
        crs: ``'EPSG:n'``, else another authority's code, else WKT2; None without a CRS.
        pixel_scale: Tag 33550 as in the file.
        tiepoint: Tag 33922 as in the file.
        is_pixel_is_point: GTRasterTypeGeoKey = 2; the affine is already shifted.
        has_gcps: Several tiepoints that no affine can replace.
    """

    affine: Affine | None = None
    epsg: int | None = None
    crs: str | None = None
    pixel_scale: tuple[float, ...] = ()
    tiepoint: tuple[float, ...] = ()
    is_pixel_is_point: bool = False
    has_gcps: bool = False


class Header(NamedTuple):
    """Everything needed to read pixels without another look at the header.

    Attributes:
        byte_order: Order of the file's numbers, also of its samples.
        is_bigtiff: 64-bit offsets.
        dtype: NumPy name of a sample as GDAL reads it, odd bit depths promoted to the
            next integer type; ``complex_int16`` and ``complex_int32`` have no NumPy name.
        samples_per_pixel: Bands, alpha included.
        planar_configuration: `CHUNKY` or `SEPARATE`.
        extra_samples: TIFF tag 338.
        image: The full resolution.
        overviews: Reduced images, largest first.
        mask: The full resolution's transparency mask (0 = no data).
        mask_overviews: The masks of the overviews that have one, largest first.
        georef: Where the raster lies.
        nodata: The value that stands for no data (tag 42113), None where no sample can hold it.
        scales: Per sample, to physical values: ``value * scale + offset``; 1 by default.
        offsets: Per sample, 0 by default.
        units: Per sample.
        descriptions: Per sample.
        color_interpretation: Per sample, GDAL's words in lower case.
        statistics: Per sample, as GDAL computed them once; they may be of an overview.
        fill_order: TIFF tag 266, 2 = bits of each byte reversed.
        t4_options: TIFF tag 292, of CCITT group 3.
        ycbcr_subsampling: TIFF tag 530, of YCbCr blocks that are not JPEG.
        ycbcr_coefficients: TIFF tag 529, of the same; () for TIFF's defaults.
        reference_black_white: TIFF tag 532, of the same; () for TIFF's defaults.
        warnings: What was odd but readable, one line each.
    """

    byte_order: ByteOrder
    is_bigtiff: bool
    dtype: str
    samples_per_pixel: int
    planar_configuration: int
    extra_samples: tuple[int, ...]
    image: Level
    overviews: tuple[Level, ...] = ()
    mask: Level | None = None
    mask_overviews: tuple[Level, ...] = ()
    georef: Georef = Georef()
    nodata: float | int | None = None
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()
    descriptions: tuple[str | None, ...] = ()
    color_interpretation: tuple[str, ...] = ()
    statistics: tuple[Statistics, ...] = ()
    fill_order: int = 1
    t4_options: int = 0
    ycbcr_subsampling: tuple[int, int] = (2, 2)
    ycbcr_coefficients: tuple[float, ...] = ()
    reference_black_white: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def alpha(self) -> int | None:
        """The sample that is alpha and says where the others hold data, if any."""
        return alpha_sample(
            self.image.photometric, self.samples_per_pixel, self.extra_samples, self.dtype
        )

    def block_format(self, level: Level) -> BlockFormat:
        """The format of one block of a level (of the mask too: ``uint8`` samples)."""
        is_mask = level is self.mask or any(level is m for m in self.mask_overviews)
        return BlockFormat(
            compression=level.compression,
            predictor=level.predictor,
            photometric=level.photometric,
            dtype="uint8" if is_mask else self.dtype,
            byte_order=self.byte_order,
            bits_per_sample=level.bits_per_sample,
            samples=level.block_samples,
            tile_height=level.tile_height,
            tile_width=level.tile_width,
            jpeg_tables=level.jpeg_tables,
            fill_order=self.fill_order,
            t4_options=self.t4_options,
            ycbcr_subsampling=self.ycbcr_subsampling,
            ycbcr_coefficients=self.ycbcr_coefficients,
            reference_black_white=self.reference_black_white,
        )


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """All that decoding one block needs; hashable, so that one decoder serves many blocks.

    Attributes:
        samples: Samples per pixel *in this block*: all bands where the layout is chunky, else 1.
        dtype: As in `Header.dtype`.
    """

    compression: int
    predictor: int
    photometric: int
    dtype: str
    byte_order: ByteOrder
    bits_per_sample: int
    samples: int
    tile_height: int
    tile_width: int
    jpeg_tables: bytes | None = None
    fill_order: int = 1
    t4_options: int = 0
    ycbcr_subsampling: tuple[int, int] = (2, 2)
    ycbcr_coefficients: tuple[float, ...] = ()
    reference_black_white: tuple[float, ...] = ()
