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
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.errors import CollectionError, RasteretError
from rasteret_sql.grid.windows import bounds_of
from rasteret_sql.schema import metadata_column
from rasteret_sql.tiff.layout import CHUNKY, BlockFormat, ByteOrder, alpha_sample
from rasteret_sql.units import Affine, BBox

Ints = NDArray[np.int64]

_COMPLEX_BITS = {"complex_int16": 32, "complex_int32": 64}
_IMAGE_SIZE = ("image_width", "image_height")
_LEVEL_SIZE = ("width", "height")
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
_REQUIRED = (*_IMAGE_SIZE, "tile_width", "tile_height", "dtype", "tile_offsets", "tile_byte_counts")


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
        self._crs = _crs_codes(self.batch)
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
        shape = [_taken(struct, name, place) for name in ("tile_width", "tile_height")]
        own = [_taken(struct, name, place) for name in (*_FORMAT_FIELDS, "block_samples")]
        file = [_taken(self._metadata, name, rows) for name in _FILE_FIELDS]
        image = [_taken(self._metadata, name, rows) for name in _FORMAT_FIELDS]
        index = pa.array(self._band_index[rows])
        columns = [*shape, *own, *file, *image, index]
        distinct, codes = _distinct(columns)
        first = len(self._table.kinds)
        for position in distinct.tolist():
            values: list[Any] = [None if c is None else c[position].as_py() for c in columns]
            tile, rest = values[:2], values[2:]
            n = len(_FORMAT_FIELDS)
            level = dict(zip((*_FORMAT_FIELDS, "block_samples"), rest[: n + 1], strict=True))
            facts = dict(zip(_FILE_FIELDS, rest[n + 1 : n + 1 + len(_FILE_FIELDS)], strict=True))
            base = dict(zip(_FORMAT_FIELDS, rest[-n - 1 : -1], strict=True))
            self._table.kinds.append(
                _kind(tile, level, facts, base, int(rest[-1]), is_image=is_image, is_mask=is_mask)
            )
        return first + codes


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


def asset_columns(batch: pa.RecordBatch, band: str) -> tuple[pa.Array, Ints]:
    """File and sample of a band in each record."""
    assets, n = batch.column("assets"), batch.num_rows
    nothing = pa.nulls(n, pa.string()), np.zeros(n, np.int64)
    if not pa.types.is_struct(assets.type):
        raise CollectionError.expected(
            "column assets",
            "a STRUCT with a field for each band",
            assets.type,
            "see rasteret_build_table, which makes it",
        )
    if assets.type.get_field_index(band) < 0:
        return nothing
    asset = assets.field(band)
    is_there = pc.and_(assets.is_valid(), asset.is_valid())
    if not pa.types.is_struct(asset.type):
        return _texts(asset, is_there, band), nothing[1]
    if asset.type.get_field_index("href") < 0:
        return nothing
    hrefs = _texts(asset.field("href"), is_there, band)
    if asset.type.get_field_index("band_index") < 0:
        return hrefs, nothing[1]
    index = pc.fill_null(asset.field("band_index").cast(pa.int64()), 0)
    return hrefs, index.to_numpy(zero_copy_only=False)


def _texts(hrefs: pa.Array, is_there: pa.Array, band: str) -> pa.Array:
    if pa.types.is_null(hrefs.type):
        return pa.nulls(len(hrefs), pa.string())
    if not (pa.types.is_string(hrefs.type) or pa.types.is_large_string(hrefs.type)):
        raise CollectionError.expected(
            f"column assets, band {band}", "an href of VARCHAR", hrefs.type, "cast it"
        )
    is_there = pc.and_(is_there, pc.fill_null(pc.not_equal(hrefs, ""), fill_value=False))
    return pc.if_else(is_there, hrefs, pa.scalar(None, hrefs.type))


def _crs_codes(batch: pa.RecordBatch) -> tuple[Ints, list[str | None]]:
    """Code of each record's CRS, and the CRS of each code."""
    names, n = batch.schema.names, batch.num_rows
    texts = batch.column("crs") if "crs" in names else pa.nulls(n, pa.string())
    codes = batch.column("proj:epsg") if "proj:epsg" in names else None
    if codes is not None and not pa.types.is_null(codes.type):
        named = pc.binary_join_element_wise("EPSG:", codes.cast(pa.string()), "")
        named = pc.if_else(pc.equal(codes, 0), pa.scalar(None, pa.string()), named)
        texts = pc.coalesce(texts.cast(pa.string()), named)
    encoded = pc.dictionary_encode(texts.cast(pa.string()), null_encoding="encode")
    listed = [text or None for text in encoded.dictionary.to_pylist()]
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), listed


def _whole(struct: pa.StructArray, name: str) -> pa.Array:
    has_field = struct.type.get_field_index(name) >= 0
    return struct.field(name) if has_field else pa.nulls(len(struct), pa.int64())


def _taken(struct: pa.StructArray, name: str, place: Ints) -> pa.Array | None:
    if struct.type.get_field_index(name) < 0:
        return None
    values = struct.field(name)
    if values.null_count == len(values):
        return None
    return values if len(place) == len(values) else values.take(pa.array(place))


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
