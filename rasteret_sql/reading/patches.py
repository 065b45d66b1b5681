"""A window of one band, put together from decoded tiles, with what is valid in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import RasteretError
from rasteret_sql.reading.band_kinds import BandKind
from rasteret_sql.reading.tile_store import Pixels, Tile
from rasteret_sql.units import Window

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """A part of a patch that lies in one tile.

    Attributes:
        tile: None where the block is sparse.
        window: Pixels of the image, inside both the tile and the patch.
        origin: Row and column of the block's first pixel.
        sample: Sample of the tile's pixels.
    """

    tile: Tile | None
    window: Window
    origin: tuple[int, int]
    sample: int


@dataclass(frozen=True, eq=False, slots=True)
class Patch:
    """One band under one window.

    Attributes:
        window: Pixels of the level.
        kind: How the band is read; None where the record has no such band.
        pieces: Of the band; what no piece covers is not asked for.
        mask_pieces: Of its transparency mask.
        fault: Why there is no band.
    """

    window: Window
    kind: BandKind | None
    pieces: tuple[Piece, ...] = ()
    mask_pieces: tuple[Piece, ...] = ()
    fault: RasteretError | None = None

    @property
    def error(self) -> RasteretError | None:
        """Why it could not be read."""
        if self.fault is not None:
            return self.fault
        for piece in (*self.pieces, *self.mask_pieces):
            if piece.tile is not None and piece.tile.error is not None:
                return piece.tile.error
        return None


def pixels_of(patch: Patch) -> Pixels:
    """The band's values in the window, shape (rows, columns), native dtype.

    Sparse tiles hold nodata, else 0, as GDAL reads them. It may be a view of a tile.
    """
    kind = patch.kind
    assert kind is not None  # noqa: S101 (callers skip absent bands)
    dtype = value_dtype(kind.dtype)
    return _gather(patch.pieces, patch.window, fill_value(kind.nodata, dtype), dtype)


def valid_pixels(patch: Patch, values: Pixels) -> Mask | None:
    """Which pixels hold data; None where all do.

    GDAL's order: the file's transparency mask, else nodata, else alpha. Sparse tiles of a
    file without nodata are valid zeros in GDAL; here they hold no data.

    Source:
        GDAL raster data model, section "Mask Bands"; RFC 15.
    """
    kind = patch.kind
    assert kind is not None  # noqa: S101
    valid: Mask | None = None
    if patch.mask_pieces:
        valid = _gather(patch.mask_pieces, patch.window, 0, np.dtype(np.uint8)) != 0
    elif kind.nodata is not None:
        valid = _differs(values, kind.nodata)
    elif kind.alpha is not None and kind.format.samples > 1 and kind.alpha != kind.sample:
        alpha = tuple(replace(piece, sample=kind.alpha) for piece in patch.pieces)
        valid = _gather(alpha, patch.window, 0, value_dtype(kind.dtype)) != 0
    for piece in patch.pieces:
        if piece.tile is None:
            if valid is None:
                valid = np.ones(values.shape, np.bool_)
            valid[_within(piece.window, patch.window)] = False
    return None if valid is None or valid.all() else valid


def has_only_nodata(patch: Patch) -> bool:
    """Whether all pixels without data hold one value already, that of nodata.

    Of floats not: -0 is nodata too where nodata is 0.
    """
    kind = patch.kind
    if kind is None or kind.nodata is None or patch.mask_pieces:
        return False
    return value_dtype(kind.dtype).kind in "iu"


def used_pixels(values: Pixels, valid: Mask | None, hidden: Sequence[float]) -> Mask:
    """Where a mask band lets pixels through: it holds data, and none of some values.

    Example:
        >>> used_pixels(np.array([4, 8, 0]), np.array([True, True, False]), [8, 9])
        array([ True, False, False])
    """
    used: Mask = ~np.isin(values, np.array(hidden))
    return used if valid is None else used & valid


def _gather(
    pieces: tuple[Piece, ...],
    window: Window,
    fill: Any,  # noqa: ANN401 (a number of any type)
    dtype: np.dtype[Any],
) -> Pixels:
    if len(pieces) == 1 and pieces[0].tile is not None and pieces[0].window == window:
        return _cut(pieces[0])
    arrays = [None if piece.tile is None else _cut(piece) for piece in pieces]
    dtype = next((a.dtype for a in arrays if a is not None), dtype)
    out = np.empty((window.height, window.width), dtype)
    covered = sum(p.window.height * p.window.width for p in pieces if p.tile is not None)
    if covered < out.size:
        out[...] = np.asarray(fill).astype(dtype)
    for piece, array in zip(pieces, arrays, strict=True):
        if array is not None:
            out[_within(piece.window, window)] = array
    return out


def _cut(piece: Piece) -> Pixels:
    tile = piece.tile
    assert tile is not None and tile.pixels is not None  # noqa: S101, PT018 (error was checked)
    row, col = piece.origin
    row += tile.first_row
    window = piece.window
    return tile.pixels[
        window.row_start - row : window.row_stop - row,
        window.col_start - col : window.col_stop - col,
        piece.sample,
    ]


def _within(inner: Window, outer: Window) -> tuple[slice, slice]:
    return (
        slice(inner.row_start - outer.row_start, inner.row_stop - outer.row_start),
        slice(inner.col_start - outer.col_start, inner.col_stop - outer.col_start),
    )


def value_dtype(dtype: str) -> np.dtype[Any]:
    """NumPy type of decoded values; complex integers decode to complex floats, like GDAL.

    Example:
        >>> value_dtype("complex_int16"), value_dtype("uint16")
        (dtype('complex64'), dtype('uint16'))
    """
    return np.dtype({"complex_int16": "complex64", "complex_int32": "complex128"}.get(dtype, dtype))


def fill_value(nodata: float | None, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401
    """What stands for no data in an array: nodata where the type can hold it, else 0.

    Example:
        >>> fill_value(-9999, np.dtype("uint8")), fill_value(255, np.dtype("uint8"))
        (0, 255)
    """
    return 0 if nodata is None or not _fits(nodata, dtype) else nodata


def _fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind in "fc":
        return True
    if not math.isfinite(nodata) or nodata != int(nodata):
        return False
    info = np.iinfo(dtype)
    return bool(info.min <= int(nodata) <= info.max)


def _differs(values: Pixels, nodata: float) -> Mask | None:
    if values.dtype.kind == "c":  # as GDAL, which looks at the real part alone
        values = values.real
    if math.isnan(nodata):
        return ~np.isnan(values) if values.dtype.kind in "fc" else None
    if not _fits(nodata, values.dtype):
        return None
    low, high = _nodata_span(nodata, values.dtype)
    valid: Mask = values != low if low == high else ~((values >= low) & (values <= high))
    return valid


@lru_cache(maxsize=256)
def _nodata_span(nodata: float, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest value that stands for no data.

    Source:
        GDAL, ``ARE_REAL_EQUAL`` in gdal_priv_templates.hpp: real numbers are equal up to two
        float32 epsilons of their sum, also as float64.
    """
    with np.errstate(over="ignore"):
        same = np.asarray(nodata).astype(dtype)[()]
    if dtype.kind != "f" or dtype.itemsize < 4 or not np.isfinite(same) or same == 0:
        return same, same
    epsilon, most = dtype.type(np.finfo(np.float32).eps), np.finfo(dtype).max

    def is_same(value: Any) -> bool:  # noqa: ANN401 (a number of the type)
        with np.errstate(over="ignore"):
            return bool(abs(value - same) < epsilon * abs(value + same) * dtype.type(2))

    def last(outside: Any) -> Any:  # noqa: ANN401
        inside = same
        if is_same(outside):
            return outside
        while True:
            between = dtype.type(inside + (outside - inside) / 2)
            if between in (inside, outside):
                return inside
            inside, outside = (between, outside) if is_same(between) else (inside, between)

    with np.errstate(over="ignore"):
        beyond = np.clip(same * dtype.type(2), -most, most)
    low, high = sorted((last(dtype.type(0)), last(beyond)))
    return low, high
