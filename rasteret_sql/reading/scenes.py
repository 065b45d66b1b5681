"""Records of a collection as columns: grids, block formats and tile tables of every band.

A *scene* is one record. Its cached headers stay Arrow buffers, read through NumPy: nothing
here loops over scenes or tiles, only over distinct grids and distinct formats, of which
a collection has few.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.errors import CollectionError, RasteretError
from rasteret_sql.grid.windows import bounds_of
from rasteret_sql.reading.band_kinds import BandKind
from rasteret_sql.reading.bands import BandTable
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.record_columns import crs_codes
from rasteret_sql.schema import metadata_column
from rasteret_sql.units import Affine, BBox


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of one image level lie.

    Attributes:
        affine: Pixel corner to map, None where the file has no transform.
        crs: ``'EPSG:n'`` or WKT2; None where there is none.
        full_width: Columns of the full resolution, of which this may be an overview.
        full_height: Rows of it.
    """

    width: int
    height: int
    affine: Affine | None
    crs: str | None
    full_width: int = 0
    full_height: int = 0

    @property
    def bounds(self) -> BBox | None:
        """The box around the image, in map units."""
        return None if self.affine is None else bounds_of(self.affine, self.height, self.width)


@dataclass
class SceneTable:
    """The records of one batch.

    Attributes:
        batch: The records, with all their columns.
        bands: By name.
        grids: Distinct grids of all levels.
        kinds: Distinct kinds of all bands and levels.
        hrefs: Distinct files.
        faults: Why a band of a scene can't be read.
        chosen: Which scenes are read; None for all.
    """

    batch: pa.RecordBatch
    bands: dict[str, BandTable] = field(default_factory=dict)
    grids: list[Grid] = field(default_factory=list)
    kinds: list[BandKind] = field(default_factory=list)
    hrefs: list[str] = field(default_factory=list)
    faults: dict[tuple[int, str], RasteretError] = field(default_factory=dict)
    chosen: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Prepare what bands share."""
        self._grid_numbers: dict[Grid, int] = {}
        self._file_numbers: dict[str, int] = {}
        self._crs = crs_codes(self.batch)
        self.lock = threading.RLock()

    def view(self, bands: Sequence[str], chosen: NDArray[np.bool_]) -> SceneTable:
        """The same table for a read of some bands and scenes; what is numbered is shared."""
        view = copy.copy(self)
        view.bands = {name: self.bands[name] for name in bands}
        view.chosen = chosen
        view.faults = dict(self.faults)
        return view

    def with_own_grids(self) -> SceneTable:
        """The same table with a list of grids of its own; all levels have to be numbered."""
        table = copy.copy(self)
        with self.lock:
            table.grids = list(self.grids)
            table._grid_numbers = dict(self._grid_numbers)  # noqa: SLF001 (its own class)
        return table

    def number_grid(self, grid: Grid) -> int:
        """The number of a grid, which may be a new one."""
        if grid not in self._grid_numbers:
            self._grid_numbers[grid] = len(self.grids)
            self.grids.append(grid)
        return self._grid_numbers[grid]

    @property
    def n_scenes(self) -> int:
        """Records in the table."""
        return int(self.batch.num_rows)

    def id_of(self, scene: int) -> str:
        """The record's id."""
        return str(self.batch.column("id")[scene].as_py())

    def missing(self, scene: int, band: str) -> RasteretError:
        """The error for a record without this band's header."""
        fault = self.faults.get((scene, band))
        if fault is not None:
            return fault
        return CollectionError.expected(
            f"record {self.id_of(scene)}, band {band}",
            "a cached header",
            "NULL",
            f"see rasteret_errors, filter on {metadata_column(band)} IS NOT NULL, "
            "or pass on_error := 'null'",
        )

    def number_grids(self, size: Ints, affine: Any, crs: Ints, full: Ints) -> Ints:  # noqa: ANN401
        """Numbers of grids.

        Args:
            size: Width and height of each, (n, 2).
            affine: Of each, (n, 6); NaN for none.
            crs: Code of the CRS.
            full: Width and height of the full resolution, (n, 2).
        """
        rows = np.column_stack([size, affine, crs, full]).astype(np.float64) + 0.0
        distinct, codes = _unique_rows(rows)
        numbers = []
        for row in rows[distinct]:
            six = None if np.isnan(row[2:8]).any() else Affine(*map(float, row[2:8]))
            crs_text = self._crs[1][int(row[8])]
            grid = Grid(int(row[0]), int(row[1]), six, crs_text, int(row[9]), int(row[10]))
            numbers.append(self.number_grid(grid))
        return np.array(numbers, np.int64)[codes] if len(rows) else np.empty(0, np.int64)

    def number_files(self, hrefs: pa.Array) -> Ints:
        """Numbers of files in `hrefs`; -1 for NULL."""
        encoded = pc.dictionary_encode(hrefs)
        numbers = np.empty(len(encoded.dictionary) + 1, np.int64)
        for position, href in enumerate(encoded.dictionary.to_pylist()):
            if href not in self._file_numbers:
                self._file_numbers[href] = len(self.hrefs)
                self.hrefs.append(href)
            numbers[position] = self._file_numbers[href]
        numbers[-1] = -1
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        files: Ints = numbers[codes]
        return files

    @property
    def crs_codes(self) -> Ints:
        """Code of each record's CRS."""
        return self._crs[0]


def scene_table(
    batch: pa.RecordBatch,
    bands: Sequence[str],
    faults: Mapping[tuple[int, str], RasteretError] | None = None,
) -> SceneTable:
    """The records of a batch as columns.

    Args:
        batch: Holds ``id``, ``assets``, ``{band}_metadata`` of each band, and ``crs`` or
            ``proj:epsg`` where the collection has them.
        bands: Bands to look at.
        faults: Why a band of a record has no header, by row and band.

    Raises:
        CollectionError: a column is not what a collection has.
    """
    table = SceneTable(batch, faults=dict(faults or {}))
    for name in bands:
        table.bands[name] = BandTable(table, name)
    return table


def _unique_rows(rows: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """First place of each distinct row, and the number of each row among them."""
    if not len(rows):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    plain = np.ascontiguousarray(rows)
    if (plain[1:].tobytes() == plain[:-1].tobytes()) if len(plain) > 1 else True:
        return np.zeros(1, np.int64), np.zeros(len(plain), np.int64)
    words = plain.view(np.dtype((np.void, plain.itemsize * plain.shape[1]))).ravel()
    _, first, codes = np.unique(words, return_index=True, return_inverse=True)
    return first, codes.ravel()
