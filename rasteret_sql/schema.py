"""The collection contract: columns that `records` writes and `reading` reads.

A *record* is one scene: a row of a collection. `assets` names the file of each band,
`{band}_metadata` caches its header. Column order and types follow rasteret 0.4, whose
seventeen header fields come first; fields of our own follow them.
"""

from __future__ import annotations

import pyarrow as pa

BBOX = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
"""Footprint bounds, lon/lat degrees (CRS84): the GeoParquet covering."""

ASSET = pa.struct([("href", pa.string()), ("band_index", pa.int32())])
"""Where a band lies: unsigned URL or path, and its sample in the file, from 0."""

_TILE_TABLE = [("tile_offsets", pa.list_(pa.int64())), ("tile_byte_counts", pa.list_(pa.int64()))]

_LEVEL_FIELDS = [
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("tile_width", pa.int32()),
    ("tile_height", pa.int32()),
    *_TILE_TABLE,
    ("compression", pa.int32()),
    ("predictor", pa.int32()),
    ("photometric", pa.int32()),
    ("bits_per_sample", pa.int32()),
    ("is_tiled", pa.bool_()),
    ("jpeg_tables", pa.binary()),
    ("block_samples", pa.int32()),
]

LEVEL = pa.struct(_LEVEL_FIELDS)
"""An overview: a reduced image with blocks of its own."""

MASK = pa.struct([*_LEVEL_FIELDS, ("overviews", pa.list_(LEVEL))])
"""The transparency mask of the full resolution, with the masks of the overviews."""

BAND_METADATA = pa.struct(
    [
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("tile_width", pa.int32()),
        ("tile_height", pa.int32()),
        ("dtype", pa.string()),
        ("transform", pa.list_(pa.float64())),
        ("predictor", pa.int32()),
        ("compression", pa.int32()),
        *_TILE_TABLE,
        ("pixel_scale", pa.list_(pa.float64())),
        ("tiepoint", pa.list_(pa.float64())),
        ("nodata", pa.float64()),
        ("samples_per_pixel", pa.int32()),
        ("planar_configuration", pa.int32()),
        ("photometric", pa.int32()),
        ("extra_samples", pa.list_(pa.int32())),
        ("byte_order", pa.string()),
        ("bits_per_sample", pa.int32()),
        ("affine", pa.list_(pa.float64())),
        ("scale", pa.float64()),
        ("offset", pa.float64()),
        ("overviews", pa.list_(LEVEL)),
        ("mask", MASK),
        ("jpeg_tables", pa.binary()),
        ("is_tiled", pa.bool_()),
        ("file_size", pa.int64()),
        ("etag", pa.string()),
        ("fill_order", pa.int32()),
        ("t4_options", pa.int32()),
        ("ycbcr_subsampling", pa.list_(pa.int32())),
        ("ycbcr_coefficients", pa.list_(pa.float64())),
        ("reference_black_white", pa.list_(pa.float64())),
    ]
)
"""The cached header of one band; the first seventeen fields are rasteret's."""

RASTERET_FIELDS = 17
METADATA_SUFFIX = "_metadata"
PARTITION_KEYS = ("year", "month")

ID = pa.field("id", pa.string(), nullable=False)
DATETIME = pa.field("datetime", pa.timestamp("us"))
GEOMETRY = pa.field("geometry", pa.binary())
COLLECTION = pa.field("collection", pa.string())
EPSG = pa.field("proj:epsg", pa.int32())
CRS = pa.field("crs", pa.string())


def metadata_column(band: str) -> str:
    """The column that caches a band's header.

    Example:
        >>> metadata_column("B04")
        'B04_metadata'
    """
    return band + METADATA_SUFFIX


def bands_of(schema: pa.Schema) -> list[str]:
    """Bands whose header is cached, in column order: struct columns ``{band}_metadata``."""
    return [
        field.name.removesuffix(METADATA_SUFFIX)
        for field in schema
        if field.name.endswith(METADATA_SUFFIX)
        and pa.types.is_struct(field.type)
        and field.type.get_field_index("tile_offsets") >= 0
    ]


def assets_type(bands: list[str]) -> pa.StructType:
    """The ``assets`` column of a collection with these bands."""
    return pa.struct([(band, ASSET) for band in bands])


REPORT_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),
        ("path", pa.string()),
        ("records", pa.int64()),
        ("bands", pa.list_(pa.string())),
        ("assets", pa.int64()),
        ("enriched", pa.int64()),
        ("failed", pa.int64()),
        ("partitions", pa.int64()),
        ("size_bytes", pa.int64()),
        ("requests", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
"""The one row that a build returns."""

RASTER_HEADERS = pa.struct(
    [
        ("metadata", pa.list_(BAND_METADATA)),
        ("assets", pa.list_(ASSET)),
        ("epsg", pa.int32()),
        ("crs", pa.string()),
        ("bbox", BBOX),
        ("id", pa.string()),
        ("datetime", DATETIME.type),
        ("geometry", GEOMETRY.type),
    ]
)
"""What the headers of one record's files tell, where there is no collection."""
