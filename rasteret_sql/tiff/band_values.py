"""A header as the values of one band, in the words of a collection (``schema.BAND_METADATA``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rasteret_sql.errors import UnsupportedTiffError
from rasteret_sql.tiff.layout import SEPARATE, Header, Level


def band_values(header: Header, band_index: int) -> dict[str, Any]:
    """One band's ``{band}_metadata``, but for the file's size and ETag.

    Args:
        header: of the file.
        band_index: the sample that is the band, from 0.

    Raises:
        UnsupportedTiffError: the file has no such sample.
    """
    if not 0 <= band_index < header.samples_per_pixel:
        raise UnsupportedTiffError.expected(
            "band_index", f"0 to {header.samples_per_pixel - 1}", band_index, "count from 0"
        )
    image, georef = header.image, header.georef
    is_separate = header.planar_configuration == SEPARATE
    own = band_index if is_separate else None
    offsets, counts = _own_tiles(image, own)
    affine = georef.affine
    plain = affine is not None and affine.is_rectilinear
    return {
        "image_width": image.width,
        "image_height": image.height,
        "tile_width": image.tile_width,
        "tile_height": image.tile_height,
        "dtype": header.dtype,
        "transform": [affine.a, affine.c, affine.e, affine.f] if plain and affine else None,
        "predictor": image.predictor,
        "compression": image.compression,
        "tile_offsets": offsets,
        "tile_byte_counts": counts,
        "pixel_scale": georef.pixel_scale,
        "tiepoint": georef.tiepoint,
        "nodata": None if header.nodata is None else float(header.nodata),
        "samples_per_pixel": header.samples_per_pixel,
        "planar_configuration": header.planar_configuration,
        "photometric": image.photometric,
        "extra_samples": header.extra_samples,
        "byte_order": header.byte_order,
        "bits_per_sample": image.bits_per_sample,
        "affine": affine,
        "scale": header.scales[band_index] if header.scales else None,
        "offset": header.offsets[band_index] if header.offsets else None,
        "overviews": [_level_row(level, own) for level in header.overviews],
        "mask": _mask_row(header, band_index),
        "jpeg_tables": image.jpeg_tables,
        "is_tiled": image.is_tiled,
        "fill_order": header.fill_order,
        "t4_options": header.t4_options,
        "ycbcr_subsampling": header.ycbcr_subsampling,
        "ycbcr_coefficients": header.ycbcr_coefficients or None,
        "reference_black_white": header.reference_black_white or None,
    }


def _mask_row(header: Header, band_index: int) -> dict[str, Any] | None:
    """The transparency mask; without one, the alpha band where it has blocks of its own.

    Alpha that lies in the blocks of the band itself needs no further table. As in GDAL, a
    no-data value counts more than alpha.
    """
    levels: tuple[Level, ...] = ()
    if header.mask is not None:
        levels = header.mask, *header.mask_overviews
    elif header.planar_configuration == SEPARATE and header.nodata is None:
        alpha = header.alpha
        if alpha is not None and alpha != band_index:
            levels, band_index = (header.image, *header.overviews), alpha
    if not levels:
        return None
    full, *overviews = (_level_row(level, band_index) for level in levels)
    return full | {"overviews": overviews}


def _level_row(level: Level, band_index: int | None) -> dict[str, Any]:
    offsets, counts = _own_tiles(level, band_index)
    return {
        "width": level.width,
        "height": level.height,
        "tile_width": level.tile_width,
        "tile_height": level.tile_height,
        "tile_offsets": offsets,
        "tile_byte_counts": counts,
        "compression": level.compression,
        "predictor": level.predictor,
        "photometric": level.photometric,
        "bits_per_sample": level.bits_per_sample,
        "is_tiled": level.is_tiled,
        "jpeg_tables": level.jpeg_tables,
        "block_samples": level.block_samples,
    }


def _own_tiles(
    level: Level, band_index: int | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The band's own slice of the tile table where planes are separate, else (None) all of it."""
    if band_index is None or level.tile_offsets.size <= level.tiles_per_plane:
        return level.tile_offsets, level.tile_byte_counts
    own = slice(band_index * level.tiles_per_plane, (band_index + 1) * level.tiles_per_plane)
    return level.tile_offsets[own], level.tile_byte_counts[own]
