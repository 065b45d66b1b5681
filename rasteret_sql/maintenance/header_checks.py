"""A batch of stored rows while it is found out which of their headers must be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass
class HeaderCheck:
    """One batch while its files are asked for their state.

    Attributes:
        rows: Numbers of the stored rows.
        is_kept: Of each, whether it stays; the others are replaced.
        wanted: The rows as they shall be: id, assets, proj:epsg, crs, bbox.
        before: ``proj:epsg`` and ``crs`` that are stored.
        is_same: Of each band, whether the header that is kept is of the wanted file.
        has_header: Of each band, whether there is a header.
        hrefs: Of each band.
        facts: Of each band, size and ETag that go with the header, and its values.
        hints: What the source says of the values, NULL where it does not have the row.
        is_asked: Of each row, whether its files may be asked for.
    """

    rows: NDArray[np.int64]
    is_kept: NDArray[np.bool_]
    wanted: pa.RecordBatch
    before: pa.RecordBatch
    is_same: list[NDArray[np.bool_]]
    has_header: list[NDArray[np.bool_]]
    hrefs: list[list[str | None]]
    facts: list[list[dict[str, Any] | None]]
    hints: pa.StructArray | None
    is_asked: NDArray[np.bool_]


@dataclass
class ReadBatch:
    """Rows that enrichment works on; shapes (rows,) and (rows, bands).

    Attributes:
        rows: Numbers of the stored rows.
        is_kept: Whether the row stays.
        before: ``proj:epsg`` and ``crs`` that are stored.
        is_read: Whether the header is read.
        had: Whether there is one.
        is_same: Whether the one there is stays.
        masked: What is enriched.
    """

    rows: NDArray[np.int64]
    is_kept: NDArray[np.bool_]
    before: pa.RecordBatch
    is_read: NDArray[np.bool_]
    had: NDArray[np.bool_]
    is_same: NDArray[np.bool_]
    masked: pa.RecordBatch

    def slice(self, start: int, stop: int) -> ReadBatch:
        """Some of the rows."""
        return ReadBatch(
            self.rows[start:stop],
            self.is_kept[start:stop],
            self.before.slice(start, stop - start),
            self.is_read[start:stop],
            self.had[start:stop],
            self.is_same[start:stop],
            self.masked.slice(start, stop - start),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[ReadBatch]) -> ReadBatch:
        """All rows of several, as one batch keeps more requests under way."""
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.is_kept for part in parts]),
            pa.concat_batches([part.before for part in parts]),
            np.concatenate([part.is_read for part in parts]),
            np.concatenate([part.had for part in parts]),
            np.concatenate([part.is_same for part in parts]),
            pa.concat_batches([part.masked for part in parts]),
        )


def is_first(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows where the first band of either is one of the first kind; shapes (rows, bands)."""
    if not one.shape[1]:
        return np.zeros(len(one), np.bool_)
    firsts = (one | other).argmax(axis=1)
    return np.asarray(one[np.arange(len(one)), firsts], np.bool_)


def read_first(check: HeaderCheck, is_read: NDArray[np.bool_]) -> None:
    """Have the header read that now gives a record its CRS, where another one gave it.

    The CRS of a record is that of its first band with a header; bands may lie in several.
    """
    if not check.has_header:
        return
    had = np.column_stack(check.has_header)
    is_kept = np.column_stack(check.is_same) & ~is_read
    firsts = (is_kept | is_read).argmax(axis=1)
    is_other = is_first(is_kept, is_read) & had.any(axis=1) & (had.argmax(axis=1) != firsts)
    is_read[is_other, firsts[is_other]] = True


def masked(
    batch: pa.RecordBatch, bands: Sequence[str], is_read: NDArray[np.bool_]
) -> pa.RecordBatch:
    """The batch, the hrefs of headers that are not read taken away."""
    assets = batch.column("assets")
    children = []
    for number, band in enumerate(bands):
        asset = assets.field(band)
        hrefs = pc.if_else(pa.array(is_read[:, number]), asset.field("href"), None)
        arrays = [hrefs, asset.field("band_index")]
        children.append(pa.StructArray.from_arrays(arrays, fields=list(asset.type)))
    masked = pa.StructArray.from_arrays(children, fields=list(assets.type))
    place = batch.schema.get_field_index("assets")
    return batch.set_column(place, batch.schema.field(place), masked)
