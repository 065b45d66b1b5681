"""Numbers of TIFF, BigTIFF, GeoTIFF and GDAL tags that a header uses.

Source:
    TIFF 6.0; BigTIFF (libtiff); OGC 19-008r4 GeoTIFF 1.1; GDAL's GTiff driver for 42112, 42113.
"""

from __future__ import annotations

from typing import Final

NEW_SUBFILE_TYPE: Final = 254
SUBFILE_TYPE: Final = 255
IMAGE_WIDTH: Final = 256
IMAGE_LENGTH: Final = 257
BITS_PER_SAMPLE: Final = 258
COMPRESSION: Final = 259
PHOTOMETRIC: Final = 262
FILL_ORDER: Final = 266
STRIP_OFFSETS: Final = 273
SAMPLES_PER_PIXEL: Final = 277
ROWS_PER_STRIP: Final = 278
STRIP_BYTE_COUNTS: Final = 279
PLANAR_CONFIGURATION: Final = 284
T4_OPTIONS: Final = 292
PREDICTOR: Final = 317
TILE_WIDTH: Final = 322
TILE_LENGTH: Final = 323
TILE_OFFSETS: Final = 324
TILE_BYTE_COUNTS: Final = 325
SUB_IFDS: Final = 330
EXTRA_SAMPLES: Final = 338
SAMPLE_FORMAT: Final = 339
JPEG_TABLES: Final = 347
YCBCR_COEFFICIENTS: Final = 529
YCBCR_SUBSAMPLING: Final = 530
REFERENCE_BLACK_WHITE: Final = 532
MODEL_PIXEL_SCALE: Final = 33550
MODEL_TIEPOINT: Final = 33922
MODEL_TRANSFORMATION: Final = 34264
GEO_KEY_DIRECTORY: Final = 34735
GEO_DOUBLE_PARAMS: Final = 34736
GEO_ASCII_PARAMS: Final = 34737
GDAL_METADATA: Final = 42112
GDAL_NODATA: Final = 42113

READ_TAGS: Final = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, int)
)
"""Every tag that is looked at; the values of others are never fetched."""

LEVEL_TAGS: Final = (
    STRIP_OFFSETS,
    STRIP_BYTE_COUNTS,
    TILE_OFFSETS,
    TILE_BYTE_COUNTS,
    BITS_PER_SAMPLE,
    JPEG_TABLES,
)
"""Tags of an overview or mask whose values may lie elsewhere."""

OPTIONAL_TAGS: Final = frozenset(
    {
        EXTRA_SAMPLES,
        SUB_IFDS,
        MODEL_PIXEL_SCALE,
        MODEL_TIEPOINT,
        MODEL_TRANSFORMATION,
        GEO_KEY_DIRECTORY,
        GEO_DOUBLE_PARAMS,
        GEO_ASCII_PARAMS,
        GDAL_METADATA,
        GDAL_NODATA,
    }
)
"""Tags without which the pixels can still be read."""

COLOR_MAP: Final = 320
"""Only its presence matters; its values are never fetched."""

REDUCED_IMAGE: Final = 1
"""Bit of NewSubfileType: a smaller version of another image."""
MASK: Final = 4
"""Bit of NewSubfileType: a transparency mask."""

FIELD_SIZES: Final = {
    1: 1,  # BYTE
    2: 1,  # ASCII
    3: 2,  # SHORT
    4: 4,  # LONG
    5: 8,  # RATIONAL
    6: 1,  # SBYTE
    7: 1,  # UNDEFINED
    8: 2,  # SSHORT
    9: 4,  # SLONG
    10: 8,  # SRATIONAL
    11: 4,  # FLOAT
    12: 8,  # DOUBLE
    13: 4,  # IFD
    16: 8,  # LONG8
    17: 8,  # SLONG8
    18: 8,  # IFD8
}
"""Bytes of one value of each field type."""

FIELD_CODES: Final = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    5: "II",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
"""`struct` code of each field type; the rationals are two numbers."""
