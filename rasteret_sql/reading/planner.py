"""Plans reads: scenes x targets x bands, as columns. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rasteret_sql.errors import CollectionError, InputError, RasteretError, UnsupportedTiffError
from rasteret_sql.reading.assembly import Assembly
from rasteret_sql.reading.block_columns import KindColumns, spread
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.footprints import Footprints, Pairs
from rasteret_sql.reading.plan import (
    Asked,
    Clip,
    Failure,
    Granularity,
    Jobs,
    Lattice,
    TilePlan,
    Units,
    Usable,
    units_of,
)
from rasteret_sql.reading.request import ReadRequest
from rasteret_sql.reading.scenes import Grid, SceneTable
from rasteret_sql.reading.target_windows import squares_met, without_untouched
from rasteret_sql.tiff.codecs import check_supported
from rasteret_sql.units import Affine

_ROWS_AT_ONCE = 1 << 14
_GRID_TOLERANCE = 1e-3
"""Pixels: by how much grids of one scene may differ and still count as the same."""


class Planner:
    """Plans reads of one form.

    Args:
        request: What to read.
        footprints: Of the targets.
        granularity: What a unit is.
        bands: Bands that are fetched: those of the request, or fewer.
        aligned: Whether all bands must lie on one grid; else each is read on its own.
        clip: Which pixels are wanted at all.
        crop: Windows of the targets; else whole rasters, as far as a target touches them.
        whole_windows: Whether tiles of a window that its target does not touch are read too.
        per_band: Whether failures are told for each band; else one for each record.
        at_once: Tiles, about, in a plan.
        lattice: Instead of the window of a target, the whole squares that the target meets.

    Attributes:
        whole_tiles: Whether plans take all rows of their tiles, since others need them too.
    """

    def __init__(
        self,
        request: ReadRequest,
        footprints: Footprints,
        granularity: Granularity,
        *,
        bands: Sequence[str] | None = None,
        aligned: bool = True,
        clip: Clip | None = None,
        crop: bool = True,
        whole_windows: bool = False,
        per_band: bool = False,
        at_once: int = _ROWS_AT_ONCE,
        lattice: Lattice | None = None,
    ) -> None:
        self.request = request
        self.footprints = footprints
        self._granularity = granularity
        self.bands = tuple(request.bands if bands is None else bands)
        self._aligned = aligned
        self._clip = clip
        self._crop = crop
        self.whole_windows = whole_windows
        self._per_band = per_band or granularity is Granularity.TILE
        self.at_once = at_once
        self.lattice = lattice
        self.whole_tiles = False

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """Plan the scenes of a table, some at a time.

        Raises:
            RasteretError: what can't be planned, unless errors may pass.
        """
        usable = {name: self._usable(table, name) for name in table.bands}
        if self.request.masked:  # numbers their kinds and grids too
            for name in self.bands:
                table.bands[name].mask(self.request.level)
        failures = self._failures(table, usable)
        if self._granularity is Granularity.TILE or not self._aligned:
            asked: list[tuple[str | None, list[str], Ints]] = [
                (name, [name], self._grids(table, usable, [name])) for name in self.bands
            ]
        else:
            grids = self._grids(table, usable, self.request.bands)
            self._check_grids(table, usable, grids)
            asked = [(None, list(self.bands), grids)]
        readings: list[Reading] = []
        nowhere: set[tuple[int, str | None]] = set()
        for band, names, grids in asked:
            wanted = np.unique(grids[grids >= 0])
            pairs, errors = self.footprints.pairs(table.grids, wanted)
            failures += self._errors_of_grids(table, grids, errors, band)
            readings.append(Reading.of(band, names, grids, pairs, len(table.grids)))
            nowhere |= {(scene, band) for scene in scenes_of(grids, errors)}
        failures += self._without_windows(table, readings, nowhere)
        for start, stop in self._slices(table, usable, readings):
            own = [one for one in failures if start <= one.scene < stop]
            yield from self._slice(table, usable, readings, np.arange(start, stop), own)

    def of_units(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        units: Units,
        asked: Sequence[tuple[str, Units, Ints]],
        failures: list[Failure],
    ) -> TilePlan:
        """The plan of units that the caller made.

        Args:
            table: The scenes.
            usable: In which scenes each band can be read.
            units: In delivery order.
            asked: For each band: its name, windows that are needed, each of one scene, and
                the number of the unit that needs it.
            failures: What can't be planned.
        """
        own = [
            Asked(name, Jobs(w.scene, w.target, w.grid, w.window, w.is_whole), unit)
            for name, w, unit in asked
        ]
        return self._assembly(table, usable).assembled(units, own, failures)

    def of_jobs(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        jobs: Jobs,
        asked: Sequence[Asked],
        failures: list[Failure],
    ) -> TilePlan:
        """The plan of units that are windows, which need windows on other grids."""
        plan = self._assembly(table, usable)
        return plan.assembled(units_of(jobs), asked, failures)

    def _assembly(self, table: SceneTable, usable: dict[str, Usable]) -> Assembly:
        return Assembly(
            self.request,
            self.footprints,
            self.bands,
            table,
            usable,
            whole_windows=self.whole_windows,
            at_once=self.at_once,
            whole_tiles=self.whole_tiles,
        )

    def windows(self, table: SceneTable, grids: Ints) -> tuple[Jobs, dict[int, InputError]]:
        """The windows of targets on one grid of each scene, -1 for none, by scene.

        Returns:
            The windows, and the errors of grids that have no place on the map of the targets.
        """
        pairs, errors = self.footprints.pairs(table.grids, np.unique(grids[grids >= 0]))
        reading = Reading.of(None, [], grids, pairs, len(table.grids))
        return self._jobs(table, reading, np.arange(table.n_scenes)), errors

    def _slices(
        self, table: SceneTable, usable: dict[str, Usable], readings: list[Reading]
    ) -> Iterator[tuple[int, int]]:
        """Runs of scenes with a bounded number of windows and tiles."""
        kinds = KindColumns.of(table.kinds)
        n_tiles = np.ones(table.n_scenes)
        for one in readings:
            kind = self._reference(usable, one.names, table.n_scenes)
            there = np.flatnonzero((one.grids >= 0) & (kind >= 0))
            grid, kind = one.grids[there], kind[there]
            high = np.diff(one.pairs.window[:, :2])[:, 0]
            wide = np.diff(one.pairs.window[:, 2:])[:, 0]
            area, high, wide = (
                np.bincount(one.pairs.grid, weights, len(table.grids))[grid]
                for weights in (high * wide, high, wide)
            )
            tall, broad = kinds.tile_height[kind], kinds.tile_width[kind]
            estimate = area / (tall * broad) + high / tall + wide / broad + one.n_pairs[grid]
            if self.lattice is not None:
                size, stride = self.lattice
                estimate += area / stride**2 * (1 + size / tall) * (1 + size / broad)
            n_tiles[there] += estimate * len(one.names)
        run = np.cumsum(n_tiles) // self.at_once
        edges = np.flatnonzero(np.diff(run, prepend=-1, append=-1))
        yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)

    def _slice(
        self,
        table: SceneTable,
        usable: dict[str, Usable],
        readings: list[Reading],
        scenes: Ints,
        failures: list[Failure],
    ) -> Iterator[TilePlan]:
        plan = self._assembly(table, usable)
        if self._granularity is Granularity.TILE:
            jobs = [(band, self._jobs(table, one, scenes)) for band, one in enumerate(readings)]
            yield plan.of_tiles(jobs, failures)
            return
        (first, *others) = readings
        windows = self._jobs(table, first, scenes)
        if self._granularity is Granularity.WINDOW:
            more = [self._jobs(table, one, scenes) for one in others]
            yield plan.of_windows(windows, more, failures)
            return
        told = False
        kinds = self._reference(usable, self.request.bands, table.n_scenes)
        for blocks in plan.blocks(windows, kinds[windows.scene]):
            yield plan.of_blocks(blocks, [] if told else failures)
            told = True
        if failures and not told:
            yield plan.of_blocks(windows, failures)

    def _jobs(self, table: SceneTable, one: Reading, scenes: Ints) -> Jobs:
        """The windows of some scenes: of a scene, in the order of tiles."""
        grids = one.grids[scenes]
        there = grids >= 0
        scenes, grids = scenes[there], grids[there]
        of, place = spread(one.first[grids], one.n_pairs[grids])
        window = one.pairs.window[place]
        if self._clip is not None:
            wanted = np.array([self._clip.window(grid) for grid in table.grids], np.int64)[
                grids[of]
            ]
            window = np.column_stack(
                [
                    np.maximum(window[:, 0], wanted[:, 0]),
                    np.minimum(window[:, 1], wanted[:, 1]),
                    np.maximum(window[:, 2], wanted[:, 2]),
                    np.minimum(window[:, 3], wanted[:, 3]),
                ]
            )
        jobs = Jobs(
            scenes[of], one.pairs.target[place], grids[of], window, one.pairs.is_whole[place]
        )
        if self._granularity is Granularity.WINDOW:
            jobs = without_untouched(self.footprints, table, jobs, crop=self._crop)
            jobs = self.covered(jobs)
            if self.lattice is not None:
                origins = self.lattice_origins(table, self.lattice.stride)
                jobs = squares_met(self.footprints, table, jobs, self.lattice, origins)
            window = jobs.window
        some = (window[:, 0] < window[:, 1]) & (window[:, 2] < window[:, 3])
        return jobs if some.all() else jobs.take(some)

    def covered(self, jobs: Jobs) -> Jobs:
        """Windows as far as their scenes cover them: a raster covers its grid."""
        return jobs

    def lattice_origins(self, table: SceneTable, _stride: int) -> Ints:
        """First row and column of the lattice in each grid: the upper left corner."""
        return np.zeros((len(table.grids), 2), np.int64)

    def _reference(self, usable: dict[str, Usable], names: Sequence[str], n_scenes: int) -> Ints:
        """Kind of the first band that a scene has, which says how its windows are cut."""
        kinds = np.full(n_scenes, -1, np.int64)
        for name in reversed(names):
            level = usable[name].level
            if level is not None:
                kinds = np.where(usable[name].is_usable, level.kind, kinds)
        return kinds

    def _usable(self, table: SceneTable, name: str) -> Usable:
        band = table.bands[name]
        level = band.level(self.request.level)
        if level is None:
            return Usable(None, np.zeros(table.n_scenes, bool))
        is_usable = band.is_present & (level.grid >= 0)
        if table.chosen is not None:
            is_usable &= table.chosen
        kinds = np.unique(level.kind[is_usable])
        for kind in kinds.tolist():
            try:
                check_supported(table.kinds[kind].format)
            except UnsupportedTiffError as error:
                refused = is_usable & (level.kind == kind)
                for scene in np.flatnonzero(refused).tolist():
                    table.faults[scene, name] = UnsupportedTiffError(
                        f"record {table.id_of(scene)}, band {name}: {error.message}"
                    )
                is_usable &= ~refused
        return Usable(level, is_usable)

    def _grids(self, table: SceneTable, usable: dict[str, Usable], names: Sequence[str]) -> Ints:
        """Grid of each scene: that of the first of some bands it has; -1 without any."""
        grids = np.full(table.n_scenes, -1, np.int64)
        for name in reversed(names):
            level = usable[name].level
            if level is not None:
                grids = np.where(usable[name].is_usable, level.grid, grids)
        return grids

    def _check_grids(self, table: SceneTable, usable: dict[str, Usable], grids: Ints) -> None:
        for name in self.bands:
            level = usable[name].level
            if level is None:
                continue
            differs = usable[name].is_usable & (level.grid != grids)
            for own, other in {
                (int(level.grid[s]), int(grids[s])) for s in np.flatnonzero(differs)
            }:
                if is_same_grid(table.grids[own], table.grids[other]):
                    continue
                scene = int(np.flatnonzero(differs & (level.grid == own) & (grids == other))[0])
                first = next(n for n in self.request.bands if usable[n].is_usable[scene])
                raise InputError.expected(
                    f"record {table.id_of(scene)}, band {name}",
                    f"the grid of band {first} ({grid_text(table.grids[other])})",
                    grid_text(table.grids[own]),
                    "read bands of unlike resolution in separate calls, "
                    "or with rasteret_read(…, align := 'band')",
                )

    def _failures(self, table: SceneTable, usable: dict[str, Usable]) -> list[Failure]:
        """Bands that can't be read; all of them together where none can."""
        may_fail = self.request.on_error != "error"
        failures: list[Failure] = []
        chosen = np.ones(table.n_scenes, bool) if table.chosen is None else table.chosen
        nothing = chosen & ~np.any([one.is_usable for one in usable.values()], axis=0)
        if not may_fail and nothing.any():
            raise self._why(table, int(nothing.argmax()), self.request.bands[0])
        if not self._per_band:
            failures += [
                Failure(scene, None, self._why_nothing(table, scene))
                for scene in np.flatnonzero(nothing).tolist()
            ]
        for name in self.bands:
            for scene in np.flatnonzero(chosen & ~usable[name].is_usable).tolist():
                error = self._why(table, scene, name)
                if not may_fail:
                    raise error
                if self._per_band:
                    failures.append(Failure(scene, name, error))
                elif table.bands[name].is_present[scene]:
                    table.faults[scene, name] = error
        return failures

    def _why_nothing(self, table: SceneTable, scene: int) -> RasteretError:
        """Why no band of a scene can be read: what its files or grids said, if anything."""
        for name in self.request.bands:
            if (scene, name) in table.faults or table.bands[name].is_present[scene]:
                return self._why(table, scene, name)
        return CollectionError("; ".join(f"{name}: no header" for name in self.request.bands))

    def _why(self, table: SceneTable, scene: int, name: str) -> RasteretError:
        band = table.bands[name]
        if band.is_present[scene] and (scene, name) not in table.faults:
            return InputError.expected(
                f"record {table.id_of(scene)}, band {name}",
                f"a level of at most {band.n_levels(scene) - 1}",
                self.request.level,
                "0 is full resolution, 1 the largest overview",
            )
        return table.missing(scene, name)

    def _without_windows(
        self, table: SceneTable, readings: list[Reading], nowhere: set[tuple[int, str | None]]
    ) -> list[Failure]:
        """Scenes of which no band has a place on its own grid: no row of theirs tells it."""
        if self._per_band or self._aligned:  # those are told one by one
            return []
        found = []
        for scene in sorted({scene for scene, _ in nowhere}):
            there = [one.names[0] for one in readings if one.grids[scene] >= 0]
            if all((scene, name) in nowhere for name in there):
                found.append(Failure(scene, None, table.faults[scene, there[0]]))
        return found

    def _errors_of_grids(
        self, table: SceneTable, grids: Ints, errors: dict[int, InputError], band: str | None
    ) -> list[Failure]:
        failures = []
        for number, error in errors.items():
            for scene in scenes_of(grids, [number]):
                told = InputError(f"record {table.id_of(scene)}: {error.message}")
                if self.request.on_error == "error":
                    raise told
                if band is not None and not self._per_band:
                    table.faults[scene, band] = told
                    continue
                failures.append(Failure(scene, band, told))
        return failures


def scenes_of(grids: Ints, numbers: Iterable[int]) -> list[int]:
    """Scenes whose grid is one of these."""
    found: list[int] = np.flatnonzero(np.isin(grids, list(numbers))).tolist()
    return found


class Reading(NamedTuple):
    """Windows of all targets for some bands, which share a grid in each scene.

    Attributes:
        band: The band; None where it is all bands.
        names: The bands.
        grids: Grid of each scene, -1 without one.
        pairs: Grids and targets, sorted by grid.
        first: Where the pairs of each grid begin.
        n_pairs: How many there are.
    """

    band: str | None
    names: list[str]
    grids: Ints
    pairs: Pairs
    first: Ints
    n_pairs: Ints

    @classmethod
    def of(
        cls, band: str | None, names: list[str], grids: Ints, pairs: Pairs, n_grids: int
    ) -> Reading:
        """The windows of some pairs of so many grids."""
        edges = np.searchsorted(pairs.grid, np.arange(n_grids + 1))
        return cls(band, names, grids, pairs, edges[:-1], np.diff(edges))


def is_same_grid(a: Grid, b: Grid) -> bool:
    """Whether pixels of two grids of a scene fall together."""
    return (a.width, a.height) == (b.width, b.height) and _is_close(a.affine, b.affine)


def _is_close(a: Affine | None, b: Affine | None) -> bool:
    if a is None or b is None:
        return a is b
    limit = _GRID_TOLERANCE * abs(a.determinant) ** 0.5
    return bool(np.allclose(a, b, rtol=0, atol=limit))


def grid_text(grid: Grid) -> str:
    """A grid in an error message."""
    return f"{grid.width} x {grid.height} px"
