"""What is wrong with cached headers: their tile tables against the size of image and file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.maintenance.faults import Fault
from rasteret_sql.schema import metadata_column
from rasteret_sql.tiff.layout import SEPARATE

_SIZES = ("width", "height", "tile_width", "tile_height")
_TABLE = ("tile_offsets", "tile_byte_counts")
_FILE_SIZE = "file_size"


def header_faults(
    batch: pa.RecordBatch, bands: Sequence[str], *, require_band_metadata: bool
) -> Iterator[Fault]:
    """Faults of the headers of a batch of records.

    Args:
        batch: With the columns of headers, and where they are sound ``id``, ``assets``,
            ``crs``, ``proj:epsg``.
        bands: To look at.
        require_band_metadata: Whether a band with a file must have a header.
    """
    names = batch.schema.names
    ids = batch.column("id").to_pylist() if "id" in names else [None] * batch.num_rows
    has_crs = np.zeros(batch.num_rows, np.bool_)
    for name in ("crs", "proj:epsg"):
        if name in names:
            has_crs |= _bools(batch.column(name).is_valid())
    for band in bands:
        name = metadata_column(band)
        if require_band_metadata and "assets" in names:
            lacks = _has_file(batch, band)
            if name in names:
                lacks &= _bools(batch.column(name).is_null())
            for row in np.flatnonzero(lacks).tolist():
                yield Fault(ids[row], name, band, "is NULL, but there is a file")
        if name in names:
            for row, fault in _of_band(batch.column(name), has_crs):
                yield Fault(ids[row], name, band, fault)


def _has_file(batch: pa.RecordBatch, band: str) -> NDArray[np.bool_]:
    assets = batch.column("assets")
    if assets.type.get_field_index(band) < 0:
        return np.zeros(batch.num_rows, np.bool_)
    return _bools(pc.struct_field(assets, [band, "href"]).is_valid())


def _of_band(column: pa.Array, has_crs: NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
    """Row and fault of one band's headers."""
    there = np.flatnonzero(_bools(column.is_valid()))
    if not len(there):
        return
    headers = column.take(pa.array(there))
    fields = set(headers.type.names)
    missing = {"image_width", "image_height", "tile_width", "tile_height", *_TABLE} - fields
    if missing:
        yield int(there[0]), f"lacks the fields {', '.join(sorted(missing))}"
        return
    size = _numbers(headers, _FILE_SIZE)
    planes = np.where(_numbers(headers, "planar_configuration") == SEPARATE, 1, 0)
    planes = np.where(planes, _numbers(headers, "samples_per_pixel"), 1)
    found = [*_of_levels(headers, size, planes, "image_", "")]
    found += _of_nested(headers, "overviews", size, planes)
    if "mask" in fields:
        masks = pc.struct_field(headers, ["mask"])
        own = np.flatnonzero(_bools(masks.is_valid()))
        if len(own):
            taken = masks.take(pa.array(own))
            in_mask = [*_of_levels(taken, size[own], planes[own], "", "mask: ")]
            in_mask += _of_nested(taken, "overviews", size[own], planes[own], "mask: ")
            found += [(int(own[row]), text) for row, text in in_mask]
    found += _of_georeference(headers, has_crs[there])
    found += _of_dtype(headers)
    for row, text in sorted(found):
        yield int(there[row]), text


def _of_nested(
    headers: pa.Array,
    name: str,
    size: NDArray[np.float64],
    planes: NDArray[np.float64],
    where: str = "",
) -> list[tuple[int, str]]:
    if name not in headers.type.names:
        return []
    lists = pc.struct_field(headers, [name])
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    levels = lists.flatten()
    if not len(levels):
        return []
    faults = _of_levels(levels, size[parents], planes[parents], "", f"{where}{name}: ")
    return [(int(parents[row]), text) for row, text in faults]


def _of_levels(
    levels: pa.Array,
    size: NDArray[np.float64],
    planes: NDArray[np.float64],
    prefix: str,
    where: str,
) -> Iterator[tuple[int, str]]:
    """Row and fault of images that are given with their tile tables."""
    names = [prefix + name if name in _SIZES[:2] else name for name in _SIZES]
    if not {*names, *_TABLE} <= set(levels.type.names):
        return
    width, height, tile_width, tile_height = (_numbers(levels, name) for name in names)
    sized = (width > 0) & (height > 0) & (tile_width > 0) & (tile_height > 0)
    for row in np.flatnonzero(~sized).tolist():
        yield row, f"{where}size of image or tiles is NULL or not above 0"
    offsets, counts = (pc.struct_field(levels, [name]) for name in _TABLE)
    lengths = [_lengths(offsets), _lengths(counts)]
    with np.errstate(divide="ignore", invalid="ignore"):
        n_tiles = np.ceil(width / tile_width) * np.ceil(height / tile_height)
    fits = (lengths[0] == n_tiles) | (lengths[0] == n_tiles * planes)
    for row in np.flatnonzero(sized & ~fits).tolist():
        yield row, f"{where}{int(n_tiles[row])} tiles, but {int(lengths[0][row])} tile_offsets"
    even = lengths[0] == lengths[1]
    for row in np.flatnonzero(~even).tolist():
        text = f"{int(lengths[0][row])} tile_offsets, but {int(lengths[1][row])} tile_byte_counts"
        yield row, f"{where}{text}"
    same = np.flatnonzero(even)
    yield from _of_tiles(
        offsets.take(pa.array(same)), counts.take(pa.array(same)), size, same, where
    )


def _of_tiles(
    offsets: pa.Array,
    counts: pa.Array,
    size: NDArray[np.float64],
    rows: NDArray[np.int64],
    where: str,
) -> Iterator[tuple[int, str]]:
    """The first tile of each row that lies where it cannot."""
    parents = pc.list_parent_indices(offsets).to_numpy(zero_copy_only=False)
    starts, n_bytes = _flat(offsets), _flat(counts)
    limit = size[rows][parents]
    negative = (starts < 0) | (n_bytes < 0)
    beyond = (n_bytes > 0) & (starts + n_bytes > limit)  # a limit that is NaN is never passed
    faulty = np.flatnonzero(negative | beyond)
    own, firsts = np.unique(parents[faulty], return_index=True)
    begins = np.searchsorted(parents, own)
    for row, first, begin in zip(
        own.tolist(), faulty[firsts].tolist(), begins.tolist(), strict=True
    ):
        at, n = int(starts[first]), int(n_bytes[first])
        reason = (
            f"offset {at}, {n} bytes"
            if negative[first]
            else f"bytes {at}-{at + n} are beyond the file of {int(limit[first])}"
        )
        yield int(rows[row]), f"{where}tile {first - begin}: {reason}"


def _of_georeference(headers: pa.Array, has_crs: NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
    fields = headers.type.names
    located = np.zeros(len(headers), np.bool_)
    for name, length in (("transform", 4), ("affine", 6)):
        if name not in fields:
            continue
        column = pc.struct_field(headers, [name])
        lengths = _lengths(column)
        located |= lengths == length
        odd = _bools(column.is_valid()) & (lengths != length)
        for row in np.flatnonzero(odd).tolist():
            yield row, f"{name} has {int(lengths[row])} numbers, not {length}"
    if "transform" in fields or "affine" in fields:
        for row in np.flatnonzero(has_crs & ~located).tolist():
            yield row, "has no transform, but the record has a CRS"


def _of_dtype(headers: pa.Array) -> Iterator[tuple[int, str]]:
    if "dtype" not in headers.type.names:
        return
    column = pc.struct_field(headers, ["dtype"])
    odd = {value for value in pc.unique(column).to_pylist() if not _is_dtype(value)}
    if odd:
        for row, value in enumerate(column.to_pylist()):
            if value in odd:
                yield row, f"dtype {value!r} is none of NumPy"


def _is_dtype(value: object) -> bool:
    try:
        return isinstance(value, str) and np.dtype(value).kind in "iufcb"
    except TypeError:
        return False


def _numbers(headers: pa.Array, name: str) -> NDArray[np.float64]:
    """A field as floats, NaN where NULL or not there."""
    if name not in headers.type.names:
        return np.full(len(headers), np.nan)
    column = pc.struct_field(headers, [name]).cast(pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _lengths(lists: pa.Array) -> NDArray[np.float64]:
    lengths = pc.list_value_length(lists).cast(pa.float64())
    return np.asarray(np.nan_to_num(lengths.to_numpy(zero_copy_only=False), nan=0.0), np.float64)


def _flat(lists: pa.Array) -> NDArray[Any]:
    return np.asarray(lists.flatten().fill_null(-1).to_numpy(zero_copy_only=False))


def _bools(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.bool_)
