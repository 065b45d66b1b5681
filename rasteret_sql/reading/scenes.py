"""Records of a collection as scenes: bands with their tile tables, ready to plan from.

Tile tables stay Arrow buffers, read through numpy; nothing here loops over tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_sql.errors import CollectionError, HeaderError, RasteretError, ReadError
from rasteret_sql.grid.windows import level_affine
from rasteret_sql.reading.completion import Completion
from rasteret_sql.schema import metadata_column
from rasteret_sql.tiff.band_values import band_values
from rasteret_sql.tiff.layout import CHUNKY, BlockFormat, ByteOrder, Header, alpha_sample
from rasteret_sql.units import Affine

_COMPLEX_BITS = {"complex_int16": 32, "complex_int32": 64}


@dataclass(frozen=True, eq=False)
class BandLevel:
    """One level of one band: its grid and where its blocks lie.

    Attributes:
        affine: Pixel corner to map, None where the file has no transform.
        tile_offsets: This band's own blocks, row by row.
        tile_byte_counts: Same order; 0 with offset 0 is a sparse block.
        format: How to decode a block.
        sample: Which sample of a decoded block is this band.
    """

    width: int
    height: int
    affine: Affine | None
    tile_offsets: NDArray[np.int64]
    tile_byte_counts: NDArray[np.int64]
    format: BlockFormat
    sample: int

    @property
    def tiles_across(self) -> int:
        """Blocks in a row of blocks."""
        return -(-self.width // self.format.tile_width)


@dataclass(frozen=True, eq=False)
class Band:
    """One band of one scene.

    Attributes:
        levels: Full resolution first, then overviews.
        mask_levels: Transparency mask per level, None where a level has none.
        alpha: Which sample of a decoded block is alpha, if any.
    """

    name: str
    href: str
    dtype: str
    nodata: float | None
    scale: float | None
    offset: float | None
    levels: tuple[BandLevel, ...]
    mask_levels: tuple[BandLevel | None, ...]
    alpha: int | None


@dataclass(frozen=True, eq=False)
class Scene:
    """One record.

    Attributes:
        row: Its row in the batch it came from.
        id: Record id.
        crs: CRS of the raster: ``'EPSG:n'`` or WKT2; None where there is none.
        bands: By name; None where the header was not readable or the band is absent.
        faults: Why a band is None, where its file was asked now.
    """

    row: int
    id: str
    crs: str | None
    bands: dict[str, Band | None]
    faults: dict[str, RasteretError]


def scenes(
    batch: pa.RecordBatch, bands: Sequence[str], *, completed: bool = True
) -> Iterator[Scene]:
    """The records of a batch, in order.

    Args:
        batch: Holds ``id``, ``assets``, ``{band}_metadata`` of each band, and ``crs`` or
            ``proj:epsg`` where the collection has them.
        bands: Bands to look at.
        completed: Whether files are asked for what the metadata of others do not hold.
    """
    ids = batch.column("id").to_pylist()
    crs = _crs_column(batch)
    columns = [_BandColumn(batch, band) for band in bands]
    lacking = [[c.lacking(row) for c in columns if completed] for row in range(batch.num_rows)]
    completion = Completion([[href for href in hrefs if href] for hrefs in lacking])
    for row, record_id in enumerate(ids):
        found: dict[str, Band | None] = {}
        faults: dict[str, RasteretError] = {}
        for position, column in enumerate(columns):
            href = lacking[row][position] if completed else None
            try:
                if href:
                    header = completion.header(row, href)
                    column.complete(row, header)
                    crs[row] = crs[row] or header.georef.crs
                found[column.name] = column.band(row, str(record_id))
            except (HeaderError, ReadError) as error:
                found[column.name] = None
                faults[column.name] = type(error)(
                    f"record {record_id}, band {column.name}: {error.message}"
                )
        yield Scene(row=row, id=str(record_id), crs=crs[row], bands=found, faults=faults)


def _crs_column(batch: pa.RecordBatch) -> list[str | None]:
    names = batch.schema.names
    texts = batch.column("crs").to_pylist() if "crs" in names else [None] * batch.num_rows
    codes = batch.column("proj:epsg").to_pylist() if "proj:epsg" in names else texts
    return [
        text or (f"EPSG:{code}" if code else None) for text, code in zip(texts, codes, strict=True)
    ]


def missing_band(scene: Scene, band: str) -> RasteretError:
    """The error for a record without this band's header."""
    if band in scene.faults:
        return scene.faults[band]
    return CollectionError.expected(
        f"record {scene.id}, band {band}",
        "a cached header",
        "NULL",
        f"see rasteret_errors, filter on {metadata_column(band)} IS NOT NULL, "
        "or pass on_error := 'null'",
    )


class _BandColumn:
    """``{band}_metadata`` and ``assets.{band}`` of a batch."""

    def __init__(self, batch: pa.RecordBatch, name: str) -> None:
        self.name = name
        self._metadata = batch.column(metadata_column(name))
        self._fields = {field.name for field in self._metadata.type}
        self._valid = self._metadata.is_valid().to_pylist()
        self._asset = _asset_column(batch, name)
        self._plain: dict[str, list[Any]] = {}
        self._lists: dict[str, _Lists] = {}
        self._of_files: dict[int, dict[str, Any]] = {}

    def lacking(self, row: int) -> str | None:
        """The file to ask, where its byte order is unknown: all else that is ours is too."""
        href = self._asset[row][0]
        if not self._valid[row] or not href or self._value("byte_order", row) is not None:
            return None
        return href

    def complete(self, row: int, header: Header) -> None:
        """Take a file's own word for the metadata of a row."""
        self._of_files[row] = band_values(header, self._asset[row][1] or 0)

    def band(self, row: int, record_id: str) -> Band | None:
        href = self._asset[row][0]
        if not self._valid[row] or not href:
            return None
        index = self._asset[row][1] or 0
        samples = self._value("samples_per_pixel", row) or 1
        chunky = (self._value("planar_configuration", row) or CHUNKY) == CHUNKY
        if chunky and index >= samples:
            raise CollectionError.expected(
                f"{record_id}, band {self.name}",
                f"a band_index below {samples}",
                index,
                "build the collection again",
            )
        image = self._image(row, samples if chunky else 1, index)
        overviews = tuple(
            self._reduced(level, image, image.format.samples, index)
            for level in self._nested("overviews", row) or ()
        )
        return Band(
            name=self.name,
            href=href,
            dtype=image.format.dtype,
            nodata=self._value("nodata", row),
            scale=self._value("scale", row),
            offset=self._value("offset", row),
            levels=(image, *overviews),
            mask_levels=self._masks(row, image, index, 1 + len(overviews)),
            alpha=self._alpha(row, samples) if chunky else None,
        )

    def _image(self, row: int, samples: int, index: int) -> BandLevel:
        dtype = self._value("dtype", row)
        jpeg_tables = self._value("jpeg_tables", row)
        subsampling = self._value("ycbcr_subsampling", row) or (2, 2)
        return BandLevel(
            width=self._value("image_width", row),
            height=self._value("image_height", row),
            affine=self._affine(row),
            tile_offsets=self._list("tile_offsets", row),
            tile_byte_counts=self._list("tile_byte_counts", row),
            format=BlockFormat(
                compression=self._value("compression", row) or 1,
                predictor=self._value("predictor", row) or 1,
                photometric=1 if (p := self._value("photometric", row)) is None else p,
                dtype=dtype,
                byte_order=cast(ByteOrder, self._value("byte_order", row) or "little"),
                bits_per_sample=self._value("bits_per_sample", row) or _bits(dtype),
                samples=samples,
                tile_height=self._value("tile_height", row),
                tile_width=self._value("tile_width", row),
                jpeg_tables=jpeg_tables,
                fill_order=self._value("fill_order", row) or 1,
                t4_options=self._value("t4_options", row) or 0,
                ycbcr_subsampling=(subsampling[0], subsampling[1]),
                ycbcr_coefficients=tuple(self._value("ycbcr_coefficients", row) or ()),
                reference_black_white=tuple(self._value("reference_black_white", row) or ()),
            ),
            sample=index if samples > 1 else 0,
        )

    def _reduced(
        self,
        level: dict[str, Any],
        image: BandLevel,
        samples: int,
        index: int,
        dtype: str | None = None,
    ) -> BandLevel:
        """An overview or mask, which takes from the image what its struct does not say."""
        base = image.format
        samples = level.get("block_samples") or samples
        return BandLevel(
            width=level["width"],
            height=level["height"],
            affine=image.affine
            and level_affine(
                image.affine, image.width, image.height, level["width"], level["height"]
            ),
            tile_offsets=np.asarray(level["tile_offsets"], np.int64),
            tile_byte_counts=np.asarray(level["tile_byte_counts"], np.int64),
            format=BlockFormat(
                compression=level.get("compression") or base.compression,
                predictor=level.get("predictor") or 1,
                photometric=base.photometric if (p := level.get("photometric")) is None else p,
                dtype=dtype or base.dtype,
                byte_order=base.byte_order,
                bits_per_sample=level.get("bits_per_sample") or base.bits_per_sample,
                samples=samples,
                tile_height=level["tile_height"],
                tile_width=level["tile_width"],
                jpeg_tables=level.get("jpeg_tables"),
                fill_order=base.fill_order,
                t4_options=base.t4_options,
                ycbcr_subsampling=base.ycbcr_subsampling,
                ycbcr_coefficients=base.ycbcr_coefficients,
                reference_black_white=base.reference_black_white,
            ),
            sample=index if samples > 1 else 0,
        )

    def _masks(
        self, row: int, image: BandLevel, index: int, n_levels: int
    ) -> tuple[BandLevel | None, ...]:
        mask = self._nested("mask", row)
        if not mask:
            return (None,) * n_levels
        found = [
            self._reduced(level, image, 1, index, dtype=_mask_dtype(level))
            for level in (mask, *(mask.get("overviews") or ()))
        ]
        return tuple(found[:n_levels]) + (None,) * (n_levels - len(found))

    def _alpha(self, row: int, samples: int) -> int | None:
        extra = self._value("extra_samples", row) or ()
        photometric = self._value("photometric", row)
        found = alpha_sample(1 if photometric is None else photometric, samples, extra)
        return found if found is not None and found < samples else None

    def _affine(self, row: int) -> Affine | None:
        six = self._value("affine", row)
        if six:
            return Affine(*six)
        values = self._value("transform", row)
        if not values:
            return None
        if len(values) == 4:
            return Affine(values[0], 0.0, values[1], 0.0, values[2], values[3])
        return Affine(*values)

    def _value(self, field: str, row: int) -> Any:  # noqa: ANN401 (fields of many types)
        if row in self._of_files:
            return self._of_files[row][field]
        if field not in self._fields:
            return None
        if field not in self._plain:
            self._plain[field] = self._metadata.field(field).to_pylist()
        return self._plain[field][row]

    def _nested(self, field: str, row: int) -> Any:  # noqa: ANN401
        if row in self._of_files:
            return self._of_files[row][field]
        if field not in self._fields:
            return None
        value = self._metadata.field(field)[row]
        return value.as_py() if value.is_valid else None

    def _list(self, field: str, row: int) -> NDArray[np.int64]:
        if row in self._of_files:
            return np.asarray(self._of_files[row][field], np.int64)
        if field not in self._lists:
            self._lists[field] = _Lists(self._metadata.field(field))
        return self._lists[field].row(row)


class _Lists:
    """Rows of a LIST of integers as numpy views."""

    def __init__(self, array: pa.ListArray) -> None:
        if not pa.types.is_large_list(array.type):
            array = array.cast(pa.list_(pa.int64()))
        self._offsets = array.offsets.to_numpy()
        self._values = array.values.to_numpy(zero_copy_only=False)

    def row(self, row: int) -> NDArray[np.int64]:
        return cast(
            "NDArray[np.int64]",
            self._values[self._offsets[row] : self._offsets[row + 1]].astype(np.int64, copy=False),
        )


def _asset_column(batch: pa.RecordBatch, band: str) -> list[tuple[str | None, int | None]]:
    assets = batch.column("assets")
    if assets.type.get_field_index(band) < 0:
        return [(None, None)] * batch.num_rows
    asset = assets.field(band)
    if not pa.types.is_struct(asset.type):
        return [(href, None) for href in asset.to_pylist()]
    hrefs = asset.field("href").to_pylist()
    if asset.type.get_field_index("band_index") < 0:
        return [(href, None) for href in hrefs]
    return list(zip(hrefs, asset.field("band_index").to_pylist(), strict=True))


def _mask_dtype(level: dict[str, Any]) -> str:
    """A mask has 1 or 8 bits; alpha that serves as mask may have more."""
    bits = level.get("bits_per_sample") or 8
    return f"uint{bits}" if bits in (16, 32, 64) else "uint8"


def _bits(dtype: str) -> int:
    return _COMPLEX_BITS.get(dtype) or np.dtype(dtype).itemsize * 8
