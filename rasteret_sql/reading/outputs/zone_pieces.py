"""Pieces of the work: a tile of a scene with all zones that touch it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.reading.band_kinds import BandKind
from rasteret_sql.reading.bands import LevelTable
from rasteret_sql.reading.blocks import slab_rows
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import Read, message_of, with_record
from rasteret_sql.reading.outputs.zone_partials import Partial
from rasteret_sql.reading.outputs.zone_pixels import Floats, Rasterizer, ZoneOptions, ZonePixels
from rasteret_sql.reading.patches import Patch, Piece, pixels_of, used_pixels, valid_pixels
from rasteret_sql.reading.plan import DATA, TilePlan
from rasteret_sql.reading.planner import is_same_grid
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.warps import nearest
from rasteret_sql.reading.zone_plans import ZonePlan
from rasteret_sql.units import Window

_PIECE_PIXELS = 1 << 21
"""Pixels of zones in one tile that are worked on at once."""


def pieces_of(plan: TilePlan) -> Ints:
    """Number of the piece of each unit: those of a tile of a scene, of many pixels several."""
    units = plan.units
    n = len(units.scene)
    if not n:
        return np.empty(0, np.int64)
    needs = plan.needs
    edges = plan.first_need
    has_need = edges[:-1] < edges[1:]
    row, col, slab = (np.full(n, -1, np.int64) for _ in range(3))
    if has_need.any():
        at = edges[:-1][has_need]
        formats = [kind.format for kind in plan.table.kinds]
        kind = needs.kind[at]
        tall = np.array([one.tile_height for one in formats], np.int64)[kind]
        rows = np.array([slab_rows(one) for one in formats], np.int64)[kind]
        row[has_need], col[has_need] = needs.tile_row[at], needs.tile_col[at]
        top = units.window[has_need, 0] - needs.tile_row[at] * tall
        slab[has_need] = top // rows
    else:  # nothing is fetched: by place
        row, col = units.window[:, 0] >> 9, units.window[:, 2] >> 9
    new = np.ones(n, bool)
    columns = (units.scene, units.grid, row, slab, col)
    new[1:] = np.any([np.diff(column) != 0 for column in columns], axis=0)
    run_number = np.cumsum(new) - 1
    size = np.diff(units.window[:, :2])[:, 0] * np.diff(units.window[:, 2:])[:, 0]
    total = np.cumsum(size)
    begin = (total - size)[np.flatnonzero(new)][run_number]
    part = (total - size - begin) // _PIECE_PIXELS
    new[1:] |= np.diff(part) != 0
    return np.cumsum(new) - 1


def around(windows: Ints) -> Window:
    """The window around some, (n, 4)."""
    low, high = windows.min(axis=0), windows.max(axis=0)
    return Window(int(low[0]), int(high[1]), int(low[2]), int(high[3]))


@dataclass(eq=False)
class PieceBand:
    """A band under the window of a piece.

    Attributes:
        patch: What can be read of it; None where that is nothing.
        errors: Why units can't be read, and which.
    """

    name: str
    n_units: int
    patch: Patch | None
    errors: list[tuple[Mask, RasteretError]]


def bands_of(group: Group, units: range, union: Window) -> list[PieceBand]:
    """The bands of a piece: one patch around all its units, which share their tiles."""
    plan, needs = group.plan, group.plan.needs
    scene = int(plan.units.scene[units[0]])
    start, stop = plan.first_need[[units.start, units.stop]].tolist()
    key = (needs.band, needs.role, needs.tile, needs.tile_row, needs.tile_col)
    own = np.column_stack([column[start:stop] for column in key])
    order = np.lexsort(own.T)
    is_new = np.append(True, (np.diff(own[order], axis=0) != 0).any(axis=1))[: len(order)]
    edges = [*np.flatnonzero(is_new).tolist(), len(order)]
    pieces: list[tuple[list[Piece], list[Piece]]] = [([], []) for _ in plan.bands]
    kinds: list[BandKind | None] = [None] * len(plan.bands)
    errors: list[list[tuple[Mask, RasteretError]]] = [[] for _ in plan.bands]
    for first, last in itertools.pairwise(edges):
        at = start + order[first:last]
        band, role, number, tile_row, tile_col = own[order[first]].tolist()
        kind = plan.table.kinds[int(needs.kind[at[0]])]
        mine = needs.unit[at] - units.start
        tile = None if number < 0 else group.chunk.tile(number)
        if role == DATA:
            kinds[band] = kind
        if tile is not None and tile.error is not None:
            errors[band].append((_mask_of(mine, len(units)), tile.error))
            continue
        origin = tile_row * kind.format.tile_height, tile_col * kind.format.tile_width
        piece = Piece(tile, around(needs.window[at]), origin, kind.sample)
        pieces[band][role].append(piece)
    found = []
    for band, (name, (data, masks)) in enumerate(zip(plan.bands, pieces, strict=True)):
        fault = plan.table.faults.get((scene, name))
        if fault is not None:
            errors[band].append((np.ones(len(units), bool), fault))
        elif level_of(plan, scene, name) is None:
            errors[band].append((np.ones(len(units), bool), InputError("no header")))
        patch = Patch(union, kinds[band], tuple(data), tuple(masks)) if data else None
        found.append(PieceBand(name, len(units), patch, errors[band]))
    return found


def level_of(plan: TilePlan, scene: int, name: str) -> LevelTable | None:
    """The level that a band of a scene is read from; None where it has no such band."""
    level = plan.table.bands[name].level(plan.level)
    return None if level is None or level.kind[scene] < 0 else level


def _mask_of(numbers: Ints, size: int) -> Mask:
    mask = np.zeros(size, bool)
    mask[numbers] = True
    return mask


def weights_of(cells: ZonePixels, found: tuple[NDArray[Any], Mask | None] | None) -> Floats:
    """Weights from the values of a band; 0 where it has no data, or does not reach."""
    if found is None:
        return np.zeros(len(cells.unit))
    values, valid = found
    weights = cells.of(values).astype(np.float64)
    is_absent = np.isnan(weights)
    if valid is not None:
        is_absent |= ~cells.of(valid)
    weights[is_absent] = 0.0
    return weights


def _negative(plan: TilePlan, scene: int, name: str, weights: Floats) -> InputError | None:
    lowest = weights.min(initial=0.0)
    if lowest >= 0:
        return None
    return InputError.expected(
        f"record {plan.table.id_of(scene)}, band {name}",
        "weights of 0 or more",
        float(lowest),
        "take another weight_band",
    )


def _hidden(
    values: NDArray[Any], valid: Mask | None, used: Mask
) -> tuple[NDArray[Any], Mask | None]:
    return values, used if valid is None else valid & used


class Gatherer:
    """Gathers the pixels of pieces into the statistics of their zones.

    Args:
        read: The execution.
        bands: Bands that get rows.
        options: What is computed.
        has_areas: Whether square metres are.
        needs_values: Whether anything is to be read.
    """

    def __init__(
        self,
        read: Read,
        bands: tuple[str, ...],
        options: ZoneOptions,
        *,
        has_areas: bool,
        needs_values: bool,
    ) -> None:
        self._read = read
        self._bands = bands
        self._options = options
        self._needs_values = needs_values
        self._rasterizer = Rasterizer(read.footprints, options, has_areas=has_areas)

    def add(self, group: Group, units: range, local: Ints, partial: Partial) -> None:
        """Add a piece.

        Args:
            group: It is one of.
            units: Of the piece.
            local: Place of the zone of each unit in the partial result.
            partial: What it is added to.

        Raises:
            RasteretError: what can't be read, unless errors may pass.
        """
        plan = group.plan
        assert isinstance(plan, ZonePlan)  # noqa: S101
        first = units[0]
        scene, grid = int(plan.units.scene[first]), plan.table.grids[int(plan.units.grid[first])]
        windows = plan.units.window[units.start : units.stop]
        union = around(windows)
        cells = self._rasterizer.pixels(
            grid, plan.units.target[units.start : units.stop], windows,
            plan.units.is_whole[units.start : units.stop], union,
        )  # fmt: skip
        np.add.at(partial.pixels, local, cells.sizes)
        if not self._needs_values:
            return
        found = dict(zip(plan.bands, bands_of(group, units, union), strict=True))
        missing = self._missing_area(plan, scene, grid, cells)
        further = cells.area if self._options.weights == "area" else None
        every = plan.numbers_of(scene, int(plan.group[first]), self._bands)
        refused = np.zeros(len(units), bool)
        name = self._options.weight_band
        if name is not None and missing is None:
            values = self._values(plan, first, union, found[name])
            refused = self._refused(plan, scene, found[name], every, local, partial)
            by_band = weights_of(cells, values)
            further = by_band if further is None else further * by_band
            missing = _negative(plan, scene, name, by_band[~refused[cells.unit]])
        if missing is not None:
            self._tell(plan, scene, missing, None, every, local, partial)
            return
        used: Mask | None = None
        name = self._options.mask_band
        if name is not None:
            refused = refused | self._refused(plan, scene, found[name], every, local, partial)
            used = self._used(plan, first, union, found[name])
        for number in every:
            name = self._bands[number]
            values = self._values(plan, first, union, found[name])
            own = refused | self._refused(plan, scene, found[name], [number], local, partial)
            if values is not None and not own.all():
                values = values if used is None else _hidden(*values, used)
                self._add_values(number, values, cells, further, own, local, partial)

    def _used(self, plan: TilePlan, unit: int, union: Window, band: PieceBand) -> Mask:
        """Where the mask band lets values through."""
        found = self._found(plan, unit, union, band)
        if found is None:
            return np.zeros((union.height, union.width), bool)
        return used_pixels(*found, self._options.mask_values)

    def _found(
        self, plan: TilePlan, unit: int, union: Window, band: PieceBand
    ) -> tuple[NDArray[Any], Mask | None] | None:
        """Values of a band at the pixels of a window, and which hold data.

        A band of another grid is looked up at the centres of the pixels. None where none of
        its pixels is there, or can be read.
        """
        scene, patch = int(plan.units.scene[unit]), band.patch
        level = level_of(plan, scene, band.name)
        if patch is None or patch.kind is None or level is None:
            return None
        number, own = int(plan.units.grid[unit]), int(level.grid[scene])
        grids = plan.table.grids
        if number == own or is_same_grid(grids[number], grids[own]):
            values = pixels_of(patch)
            return values, valid_pixels(patch, values)
        return nearest(patch, grids[number], union, grids[own])

    def _add_values(
        self,
        number: int,
        found: tuple[NDArray[Any], Mask | None],
        cells: ZonePixels,
        further: Floats | None,
        refused: Mask,
        local: Ints,
        partial: Partial,
    ) -> None:
        if refused.any():
            keep = ~refused[cells.unit]
            cells, further = cells.take(keep), None if further is None else further[keep]
        values, valid = cells.of(found[0]), None if found[1] is None else cells.of(found[1])
        values = values.astype(partial.stats[number].dtype, copy=False)
        zone = local[cells.unit]
        partial.stats[number].add(
            zone, values, valid=valid, coverage=cells.coverage, weights=further
        )
        if partial.areas and cells.area is not None:
            partial.areas[number].add(
                zone, values, valid=valid, coverage=cells.coverage, weights=cells.area
            )

    def _values(
        self, plan: TilePlan, unit: int, union: Window, band: PieceBand
    ) -> tuple[NDArray[Any], Mask | None] | None:
        """As `_found`, scaled where that is asked for; complex numbers are an error."""
        found, patch = self._found(plan, unit, union, band), band.patch
        if found is None or patch is None or patch.kind is None:
            return None
        pixels, valid = found
        if pixels.dtype.kind == "c":
            error = InputError.expected(
                f"record {plan.table.id_of(int(plan.units.scene[unit]))}, band {band.name}",
                "real numbers",
                "complex ones",
                "read it with rasteret_pixels",
            )
            band.errors.append((np.ones(band.n_units, bool), error))
            return None
        if self._read.request.scaled:
            pixels = patch.kind.scaled(pixels)
        return pixels, valid

    def _refused(
        self,
        plan: TilePlan,
        scene: int,
        band: PieceBand,
        bands: Sequence[int],
        local: Ints,
        partial: Partial,
    ) -> Mask:
        """Which zones of a piece have no result of some bands, as one can't be read."""
        refused = np.zeros(band.n_units, bool)
        for units, error in band.errors:
            refused |= units
            self._tell(plan, scene, error, band.name, bands, local[units], partial)
        return refused

    def _tell(
        self,
        plan: TilePlan,
        scene: int,
        error: RasteretError,
        band: str | None,
        bands: Sequence[int],
        local: Ints,
        partial: Partial,
    ) -> None:
        """Note an error for some zones and bands.

        Raises:
            RasteretError: where it is one.
        """
        if self._read.request.on_error == "error":
            raise error if band is None else with_record(error, plan.table, scene, band)
        told = error.message
        if band is not None:
            told = f"{band}: {message_of(error, plan.table, scene, band)}"
        for one in local.tolist():
            for number in bands:
                partial.errors.setdefault((int(partial.pairs[one]), number), told)

    def _missing_area(
        self, plan: TilePlan, scene: int, grid: Grid, cells: ZonePixels
    ) -> InputError | None:
        if self._options.weights != "area" or cells.area is not None:
            return None
        missing = "transform" if grid.affine is None else "CRS on the earth"
        return InputError.expected(
            f"record {plan.table.id_of(scene)}",
            f"a raster with a {missing}, for weights := 'area'",
            "none",
            "take weights := 'fraction', or pass on_error := 'null'",
        )
