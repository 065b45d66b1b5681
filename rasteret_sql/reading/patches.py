"""A window of one band, put together from decoded tiles, with what is valid in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import RasteretError
from rasteret_sql.grid.windows import tile_window, tiles_under
from rasteret_sql.reading.pipeline import Pixels, Tile
from rasteret_sql.reading.scenes import Band, BandLevel
from rasteret_sql.reading.tileset import TileSet, part_rows
from rasteret_sql.units import Window

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Piece:
    tile: Tile
    window: Window  # of the image, inside both the tile and the patch
    origin: tuple[int, int]  # row and column of the block's first pixel
    sample: int  # of the tile's pixels


@dataclass(frozen=True, eq=False)
class Patch:
    """One band under one window.

    Attributes:
        window: Pixels of the level.
        band: None where the record has no such band, and that is not an error.
    """

    window: Window
    band: Band | None
    pieces: tuple[_Piece, ...] = ()
    mask_pieces: tuple[_Piece, ...] = ()

    @property
    def tiles(self) -> list[Tile]:
        """Every tile it needs."""
        return [piece.tile for piece in (*self.pieces, *self.mask_pieces)]

    @property
    def error(self) -> RasteretError | None:
        """Why a tile of it could not be read."""
        return next((tile.error for tile in self.tiles if tile.error is not None), None)


def plan_patch(tiles: TileSet, band: Band, level: int, window: Window, *, masked: bool) -> Patch:
    """Name the tiles under a window; each counts this patch as one more user."""
    mask_level = band.mask_levels[level] if masked else None
    patch = Patch(
        window,
        band,
        tuple(_pieces(tiles, band.href, band.levels[level], window)),
        tuple(_pieces(tiles, band.href, mask_level, window)) if mask_level else (),
    )
    for tile in patch.tiles:
        tile.users += 1
    return patch


def _pieces(tiles: TileSet, href: str, level: BandLevel, window: Window) -> Iterator[_Piece]:
    height, width = level.format.tile_height, level.format.tile_width
    span = tiles_under(window, height, width)
    for row in range(span.row_start, span.row_stop):
        for col in range(span.col_start, span.col_stop):
            inside = tile_window(row, col, height, width, level.height, level.width)
            top, rows = row * height, part_rows(level.format)
            wanted = inside.intersection(window)
            for part in range(
                (wanted.row_start - top) // rows, -(-(wanted.row_stop - top) // rows)
            ):
                tile = tiles.tile(href, level, row, col, part)
                slab = Window(top + part * rows, top + (part + 1) * rows, *wanted[2:])
                cut = wanted.intersection(slab)
                tile.need(cut.row_start - top, cut.row_stop - top)
                yield _Piece(tile, cut, (top, col * width), level.sample)


def pixels_of(patch: Patch) -> Pixels:
    """The band's values in the window, shape (rows, columns), native dtype.

    Sparse tiles hold nodata, else 0, as GDAL reads them.
    """
    band = patch.band
    assert band is not None  # noqa: S101 (callers skip absent bands)
    return _gather(patch.pieces, patch.window, _sparse_value(band))


def valid_pixels(patch: Patch, values: Pixels) -> Mask | None:
    """Which pixels hold data; None where all do.

    GDAL's order: the file's transparency mask, else nodata, else alpha. Sparse tiles of a
    file without nodata are valid zeros in GDAL; here they hold no data.

    Source:
        GDAL raster data model, section "Mask Bands"; RFC 15.
    """
    band = patch.band
    assert band is not None  # noqa: S101
    valid: Mask | None = None
    if patch.mask_pieces:
        valid = _gather(patch.mask_pieces, patch.window, 0) != 0
    elif band.nodata is not None:
        valid = _differs(values, band.nodata)
    elif band.alpha is not None and band.alpha != patch.pieces[0].sample:
        alpha = tuple(replace(piece, sample=band.alpha) for piece in patch.pieces)
        valid = _gather(alpha, patch.window, 0) != 0
    for piece in patch.pieces:
        if piece.tile.byte_count == 0:
            if valid is None:
                valid = np.ones(values.shape, np.bool_)
            valid[_within(piece.window, patch.window)] = False
    return None if valid is None or valid.all() else valid


def _gather(pieces: tuple[_Piece, ...], window: Window, sparse: Any) -> Pixels:  # noqa: ANN401
    if len(pieces) == 1 and pieces[0].tile.byte_count:
        return _cut(pieces[0])
    arrays = [_cut(piece) if piece.tile.byte_count else None for piece in pieces]
    dtype = next((a.dtype for a in arrays if a is not None), _decoded_dtype(pieces[0].tile))
    out = np.full((window.height, window.width), np.asarray(sparse).astype(dtype), dtype)
    for piece, array in zip(pieces, arrays, strict=True):
        if array is not None:
            out[_within(piece.window, window)] = array
    return out


def _cut(piece: _Piece) -> Pixels:
    pixels = piece.tile.pixels
    assert pixels is not None  # noqa: S101 (Patch.error was checked)
    row, col = piece.origin
    row += piece.tile.first_row or 0
    window = piece.window
    return pixels[
        window.row_start - row : window.row_stop - row,
        window.col_start - col : window.col_stop - col,
        piece.sample,
    ]


def _within(inner: Window, outer: Window) -> tuple[slice, slice]:
    return (
        slice(inner.row_start - outer.row_start, inner.row_stop - outer.row_start),
        slice(inner.col_start - outer.col_start, inner.col_stop - outer.col_start),
    )


def _decoded_dtype(tile: Tile) -> np.dtype[Any]:
    return value_dtype(tile.format.dtype)


def _sparse_value(band: Band) -> Any:  # noqa: ANN401
    return fill_value(band.nodata, value_dtype(band.dtype))


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
    if math.isnan(nodata):
        return ~np.isnan(values) if values.dtype.kind in "fc" else None
    if not _fits(nodata, values.dtype):
        return None
    with np.errstate(over="ignore"):
        same = values == np.asarray(nodata).astype(values.dtype)
    if values.dtype.kind == "f":
        same |= np.isnan(values)
    valid: Mask = ~same
    return valid
