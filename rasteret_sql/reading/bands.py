"""Bands of scenes: which scenes have one, its levels and the tile tables of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.errors import CollectionError
from rasteret_sql.reading.band_kinds import band_kinds
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.record_columns import asset_columns
from rasteret_sql.schema import metadata_column
from rasteret_sql.tiff.layout import CHUNKY

if TYPE_CHECKING:
    from rasteret_sql.reading.scenes import SceneTable

_IMAGE_SIZE = ("image_width", "image_height")
_LEVEL_SIZE = ("width", "height")
_REQUIRED = (*_IMAGE_SIZE, "tile_width", "tile_height", "dtype", "tile_offsets", "tile_byte_counts")


@dataclass(frozen=True, eq=False)
class LevelTable:
    """One image level of one band, for every scene; arrays have one entry per scene.

    Attributes:
        grid: Number of the grid in `SceneTable.grids`; -1 where there is no such level.
        kind: Number of the kind in `SceneTable.kinds`.
        start: First entry of the scene's tiles in ``offsets`` and ``counts``.
        n_tiles: Entries it has there.
        offsets: First byte of every block of every scene, row by row.
        counts: Bytes of the block; 0 with offset 0 is a sparse one.
    """

    grid: Ints
    kind: Ints
    start: Ints
    n_tiles: Ints
    offsets: Ints
    counts: Ints


class BandTable:
    """One band of every scene.

    Attributes:
        name: Of the band.
        is_present: Whether the scene has a readable header of the band.
        file: Number of the file in `SceneTable.hrefs`.
    """

    def __init__(self, table: SceneTable, name: str) -> None:
        self.name = name
        self._table = table
        self._metadata: pa.StructArray = table.batch.column(metadata_column(name))
        fields = {f.name for f in self._metadata.type}
        lacking = [one for one in _REQUIRED if one not in fields]
        if lacking:
            raise CollectionError.expected(
                f"column {metadata_column(name)}",
                f"the fields {', '.join(_REQUIRED)}",
                f"no {', '.join(lacking)}",
                "build the collection again, or use rasteret_enrich",
            )
        hrefs, index = asset_columns(table.batch, name)
        self.file = table.number_files(hrefs)
        self._band_index = index
        self.is_present = _is_usable(self._metadata, table, name) & (self.file >= 0)
        self._check_samples()
        self._rows = np.flatnonzero(self.is_present)
        self._levels: dict[tuple[str, int], LevelTable | None] = {}

    def level(self, number: int) -> LevelTable | None:
        """Full resolution (0) or an overview; None where no scene has it."""
        return self._once("image", number)

    def mask(self, number: int) -> LevelTable | None:
        """The transparency mask of a level; None where no scene has one."""
        return self._once("mask", number)

    def version(self, scene: int) -> str | None:
        """What tells this version of the file from others, None where nothing does."""
        for name in ("etag", "file_size"):
            if self._metadata.type.get_field_index(name) >= 0:
                value = self._metadata.field(name)[scene].as_py()
                if value is not None:
                    return f"{name}:{value}"
        return None

    def n_levels(self, scene: int) -> int:
        """Levels that a scene has, full resolution included."""
        if self._metadata.type.get_field_index("overviews") < 0:
            return 1
        overviews = self._metadata.field("overviews")[scene]
        return 1 + (len(overviews) if overviews.is_valid else 0)

    def _check_samples(self) -> None:
        """Note a band_index that the file has no sample for."""
        samples, planes = (
            pc.fill_null(_whole(self._metadata, name), 1).to_numpy(zero_copy_only=False)
            for name in ("samples_per_pixel", "planar_configuration")
        )
        beyond = self.is_present & (planes == CHUNKY) & (self._band_index >= samples)
        for scene in np.flatnonzero(beyond).tolist():
            self._table.faults[scene, self.name] = CollectionError.expected(
                f"record {self._table.id_of(scene)}, band {self.name}",
                f"a band_index below {samples[scene]}",
                self._band_index[scene],
                "build the collection again",
            )
        self.is_present &= ~beyond

    def _once(self, what: str, number: int) -> LevelTable | None:
        key = what, number
        with self._table.lock:
            if key not in self._levels:
                made = self._image(number) if what == "image" else self._mask(number)
                self._levels[key] = made
            return self._levels[key]

    def _image(self, number: int) -> LevelTable | None:
        if number == 0:
            return self._built(self._metadata, self._rows, self._rows, _IMAGE_SIZE)
        if self._metadata.type.get_field_index("overviews") < 0:
            return None
        values, place, rows = _element(self._metadata.field("overviews"), self._rows, number - 1)
        return self._built(values, place, rows, _LEVEL_SIZE) if rows.size else None

    def _mask(self, number: int) -> LevelTable | None:
        if self._metadata.type.get_field_index("mask") < 0:
            return None
        mask = self._metadata.field("mask")
        if not pa.types.is_struct(mask.type):
            return None
        has_mask = mask.is_valid().to_numpy(zero_copy_only=False)
        rows = self._rows[has_mask[self._rows]]
        if number == 0:
            made = (mask, rows, rows)
        elif mask.type.get_field_index("overviews") < 0:
            return None
        else:
            made = _element(mask.field("overviews"), rows, number - 1)
        values, place, rows = made
        return self._built(values, place, rows, _LEVEL_SIZE, is_mask=True) if rows.size else None

    def _built(
        self,
        struct: pa.StructArray,
        place: Ints,
        rows: Ints,
        size: tuple[str, str],
        *,
        is_mask: bool = False,
    ) -> LevelTable:
        """A level whose fields stand at ``place`` of a struct, for the scenes ``rows``."""
        table, n = self._table, self._table.n_scenes
        width, height = (_ints(struct, name, place) for name in size)
        affine = self._affine(rows)
        full = np.column_stack([_ints(self._metadata, name, rows) for name in _IMAGE_SIZE])
        own = np.column_stack([width, height])
        if size is _LEVEL_SIZE:
            ratio = full / own
            affine = affine * np.column_stack([ratio, np.ones(len(rows))] * 2)
        grid, kind, start, n_tiles = (np.full(n, -1, np.int64) for _ in range(4))
        grid[rows] = table.number_grids(own, affine, table.crs_codes[rows], full)
        kind[rows] = self._kinds(struct, place, rows, is_image=size is _IMAGE_SIZE, is_mask=is_mask)
        offsets, begin, end = _lists(struct.field("tile_offsets"), place)
        counts, count_begin, _ = _lists(struct.field("tile_byte_counts"), place)
        if not np.array_equal(begin, count_begin):  # lists of their own layout
            counts = _realigned(counts, count_begin, begin, end, len(offsets))
        start[rows], n_tiles[rows] = begin, end - begin
        return LevelTable(grid, kind, start, n_tiles, offsets, counts)

    def _affine(self, rows: Ints) -> NDArray[np.float64]:
        """Affines of full resolution, (n, 6), NaN where there is none."""
        found = np.full((len(rows), 6), np.nan)
        names = {f.name for f in self._metadata.type}
        for name in ("transform", "affine"):  # the latter says more
            if name not in names:
                continue
            values, begin, end = _lists(self._metadata.field(name), rows, np.float64)
            for length, places in ((4, (0, 2, 4, 5)), (6, range(6))):
                chosen = end - begin == length
                if chosen.any():
                    at = begin[chosen][:, None] + np.arange(length)
                    full = np.zeros((int(chosen.sum()), 6))
                    full[:, list(places)] = values[at]
                    found[chosen] = full
        return found

    def _kinds(
        self, struct: pa.StructArray, place: Ints, rows: Ints, *, is_image: bool, is_mask: bool
    ) -> Ints:
        index = pa.array(self._band_index[rows])
        kinds, codes = band_kinds(
            struct, place, self._metadata, rows, index, is_image=is_image, is_mask=is_mask
        )
        first = len(self._table.kinds)
        self._table.kinds += kinds
        return first + codes


def _is_usable(metadata: pa.StructArray, table: SceneTable, name: str) -> NDArray[np.bool_]:
    """Which scenes have a header; one that lacks what a read needs is a fault."""
    valid = metadata.is_valid().to_numpy(zero_copy_only=False)
    whole = valid.copy()
    for needed in _REQUIRED:
        whole &= metadata.field(needed).is_valid().to_numpy(zero_copy_only=False)
    for needed in ("image_width", "image_height", "tile_width", "tile_height"):
        values = pc.fill_null(metadata.field(needed), 0).to_numpy(zero_copy_only=False)
        whole &= values > 0
    for scene in np.flatnonzero(valid & ~whole).tolist():
        table.faults[scene, name] = CollectionError.expected(
            f"record {table.id_of(scene)}, column {metadata_column(name)}",
            f"{', '.join(_REQUIRED)}, sizes of 1 or more",
            "a NULL or 0 among them",
            "build the collection again",
        )
    return cast("NDArray[np.bool_]", whole)


def _whole(struct: pa.StructArray, name: str) -> pa.Array:
    has_field = struct.type.get_field_index(name) >= 0
    return struct.field(name) if has_field else pa.nulls(len(struct), pa.int64())


def _ints(struct: pa.StructArray, name: str, place: Ints) -> Ints:
    values = struct.field(name).take(pa.array(place))
    return cast("Ints", values.to_numpy(zero_copy_only=False).astype(np.int64))


def _lists(
    column: pa.ListArray, place: Ints, kind: type[np.generic] = np.int64
) -> tuple[Any, Ints, Ints]:
    """Values of a LIST column, and where the lists at ``place`` begin and end in them."""
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        column = column.cast(pa.list_(column.type.value_type))
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values
    if values.null_count:
        values = pc.fill_null(values, 0)
    begin, end = offsets[place], offsets[place + 1]
    if column.null_count:  # a NULL may hide entries
        absent = ~column.is_valid().to_numpy(zero_copy_only=False)[place]
        end = np.where(absent, begin, end)
    return values.to_numpy(zero_copy_only=False).astype(kind, copy=False), begin, end


def _element(column: pa.ListArray, rows: Ints, number: int) -> tuple[pa.StructArray, Ints, Ints]:
    """The n-th struct of each list: all structs, where those are, and the rows that have one."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    there = column.is_valid().to_numpy(zero_copy_only=False)[rows]
    place = offsets[rows] + number
    there &= place < offsets[rows + 1]
    return column.values, place[there], rows[there]


def _realigned(values: Ints, begin: Ints, wanted: Ints, end: Ints, size: int) -> Ints:
    """Lists moved to where lists of the same lengths begin elsewhere."""
    moved = np.zeros(size, np.int64)
    for old, start, stop in zip(begin.tolist(), wanted.tolist(), end.tolist(), strict=True):
        part = values[old : old + stop - start]
        moved[start : start + len(part)] = part
    return moved
