"""What bands of many scenes have in common, from the fields of their cached headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.reading.columns import Ints
from rasteret_sql.tiff.layout import CHUNKY, BlockFormat, ByteOrder, alpha_sample

_COMPLEX_BITS = {"complex_int16": 32, "complex_int32": 64}
_FORMAT_FIELDS = ("compression", "predictor", "photometric", "bits_per_sample", "jpeg_tables")
_FILE_FIELDS = (
    "dtype",
    "byte_order",
    "samples_per_pixel",
    "planar_configuration",
    "extra_samples",
    "nodata",
    "scale",
    "offset",
    "fill_order",
    "t4_options",
    "ycbcr_subsampling",
    "ycbcr_coefficients",
    "reference_black_white",
)


@dataclass(frozen=True, slots=True)
class BandKind:
    """What bands of many scenes have in common: how their blocks are decoded and read.

    Attributes:
        format: How to decode a block.
        sample: Which sample of a decoded block is this band.
        dtype: NumPy name of the values, as in ``tiff.layout.Header``.
        alpha: Which sample of a decoded block is alpha, if any.
    """

    format: BlockFormat
    sample: int
    dtype: str
    nodata: float | None
    scale: float | None
    offset: float | None
    alpha: int | None

    def scaled(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Stored values as what they stand for: by the scale and offset of the file, if any."""
        scale = 1.0 if self.scale is None else self.scale
        return values.astype(np.float64) * scale + (self.offset or 0.0)


def band_kinds(
    struct: pa.StructArray,
    place: Ints,
    metadata: pa.StructArray,
    rows: Ints,
    index: pa.Array,
    *,
    is_image: bool,
    is_mask: bool,
) -> tuple[list[BandKind], Ints]:
    """Distinct kinds of one level of a band.

    Args:
        struct: Fields of the level.
        place: Where in them those of each scene stand.
        metadata: Cached headers of all scenes.
        rows: Which scenes.
        index: Sample of the file that the band is, of each of these scenes.
        is_image: Whether the level is full resolution, whose fields are those of the header.
        is_mask: Whether it is a transparency mask.

    Returns:
        The kinds, and for each of ``rows`` the number of its kind among them.
    """
    shape = [_taken(struct, name, place) for name in ("tile_width", "tile_height")]
    own = [_taken(struct, name, place) for name in (*_FORMAT_FIELDS, "block_samples")]
    file = [_taken(metadata, name, rows) for name in _FILE_FIELDS]
    image = [_taken(metadata, name, rows) for name in _FORMAT_FIELDS]
    columns = [*shape, *own, *file, *image, index]
    distinct, codes = _distinct(columns)
    kinds = []
    for position in distinct.tolist():
        values: list[Any] = [None if c is None else c[position].as_py() for c in columns]
        tile, rest = values[:2], values[2:]
        n = len(_FORMAT_FIELDS)
        level = dict(zip((*_FORMAT_FIELDS, "block_samples"), rest[: n + 1], strict=True))
        facts = dict(zip(_FILE_FIELDS, rest[n + 1 : n + 1 + len(_FILE_FIELDS)], strict=True))
        base = dict(zip(_FORMAT_FIELDS, rest[-n - 1 : -1], strict=True))
        kinds.append(
            _kind(tile, level, facts, base, int(rest[-1]), is_image=is_image, is_mask=is_mask)
        )
    return kinds, codes


def _kind(
    tile: list[Any],
    level: dict[str, Any],
    facts: dict[str, Any],
    base: dict[str, Any],
    index: int,
    *,
    is_image: bool,
    is_mask: bool,
) -> BandKind:
    file_samples = facts["samples_per_pixel"] or 1
    is_chunky = (facts["planar_configuration"] or CHUNKY) == CHUNKY
    samples = 1 if is_mask or not is_chunky else file_samples
    samples = (None if is_image else level["block_samples"]) or samples
    dtype = facts["dtype"]
    bits = level["bits_per_sample"] or base["bits_per_sample"] or _bits(dtype)
    if is_mask:
        dtype = _mask_dtype(level["bits_per_sample"])
    subsampling = facts["ycbcr_subsampling"] or (2, 2)
    photometric = base["photometric"] if level["photometric"] is None else level["photometric"]
    block = BlockFormat(
        compression=level["compression"] or base["compression"] or 1,
        predictor=level["predictor"] or 1,
        photometric=1 if photometric is None else photometric,
        dtype=dtype,
        byte_order=cast("ByteOrder", facts["byte_order"] or "little"),
        bits_per_sample=bits,
        samples=samples,
        tile_height=tile[1],
        tile_width=tile[0],
        jpeg_tables=level["jpeg_tables"],
        fill_order=facts["fill_order"] or 1,
        t4_options=facts["t4_options"] or 0,
        ycbcr_subsampling=(subsampling[0], subsampling[1]),
        ycbcr_coefficients=tuple(facts["ycbcr_coefficients"] or ()),
        reference_black_white=tuple(facts["reference_black_white"] or ()),
    )
    image_photometric = 1 if base["photometric"] is None else base["photometric"]
    extra = facts["extra_samples"] or ()
    alpha = alpha_sample(image_photometric, file_samples, extra, facts["dtype"])
    return BandKind(
        format=block,
        sample=index if samples > 1 else 0,
        dtype=facts["dtype"],
        nodata=facts["nodata"],
        scale=facts["scale"],
        offset=facts["offset"],
        alpha=alpha if is_chunky else None,
    )


def _taken(struct: pa.StructArray, name: str, place: Ints) -> pa.Array | None:
    if struct.type.get_field_index(name) < 0:
        return None
    values = struct.field(name)
    if values.null_count == len(values):
        return None
    return values if len(place) == len(values) else values.take(pa.array(place))


def _distinct(columns: Sequence[pa.Array | None]) -> tuple[Ints, Ints]:
    """First place of each distinct combination, and the number of each row's combination."""
    n = next((len(column) for column in columns if column is not None), 0)
    codes = np.zeros(n, np.int64)
    if not n:
        return codes, codes
    for column in columns:
        if column is None:
            continue
        encoded = pc.dictionary_encode(_hashable(column), null_encoding="encode")
        if len(encoded.dictionary) > 1:
            own = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            codes = np.unique(codes * len(encoded.dictionary) + own, return_inverse=True)[1].ravel()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return first, inverse.ravel()


def _hashable(column: pa.Array) -> pa.Array:
    """Lists as texts: Arrow can't compare them."""
    if not pa.types.is_nested(column.type):
        return column
    return pa.array([None if value is None else repr(value) for value in column.to_pylist()])


def _mask_dtype(bits: int | None) -> str:
    """A mask has 1 or 8 bits; alpha that serves as mask may have more."""
    return f"uint{bits}" if bits in (16, 32, 64) else "uint8"


def _bits(dtype: str) -> int:
    return _COMPLEX_BITS.get(dtype) or np.dtype(dtype).itemsize * 8
