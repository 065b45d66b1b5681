"""Stored rows as they shall be: of the source what it says, of the headers what holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_sql.collections.spool import Spool
from rasteret_sql.ingest.raster_footprints import widened
from rasteret_sql.maintenance.comparison import Comparison
from rasteret_sql.maintenance.evolve import conform_to_schema
from rasteret_sql.schema import BBOX, METADATA_SUFFIX, metadata_column
from rasteret_sql.units import BBox

ROW = "_row"
"""Of a patch: the number of the stored row."""

READ = "_read"
"""Of a patch: of each band, whether its header was read."""


def source_rows(
    stored: pa.RecordBatch, start: int, comparison: Comparison
) -> tuple[NDArray[np.int64], pa.RecordBatch]:
    """The rows of a stored batch as they shall be: kept, or the fresh ones in their place.

    Args:
        stored: With at least the columns of ``comparison.fresh``.
        start: Number of its first row.
        comparison: What becomes of each row.

    Returns:
        Places in the batch of the rows that stay or are replaced, and the rows.
    """
    stop = start + stored.num_rows
    kept, replaced_by = comparison.kept[start:stop], comparison.replaced_by[start:stop]
    places = np.flatnonzero(kept | (replaced_by >= 0))
    own = conform_to_schema(stored, comparison.fresh.schema)
    if kept.all():
        return places, own
    replaced = np.flatnonzero(~kept[places])
    both = pa.concat_batches([own, comparison.fresh.take(replaced_by[places][replaced])])
    chosen = places.copy()
    chosen[replaced] = stored.num_rows + np.arange(len(replaced))
    return places, both.take(pa.array(chosen))


def has_same_file(stored: pa.RecordBatch, wanted: pa.RecordBatch, band: str) -> NDArray[np.bool_]:
    """Whether the kept header of a band is that of the file that is wanted; row by row."""
    before, after = asset_of(stored, band), asset_of(wanted, band)
    name = metadata_column(band)
    if before is None or after is None or name not in stored.schema.names:
        return np.zeros(stored.num_rows, np.bool_)
    same_href = pc.fill_null(pc.equal(before.field("href"), after.field("href")), False)  # noqa: FBT003
    one, other = (pc.fill_null(asset.field("band_index"), 0) for asset in (before, after))
    same = pc.and_(pc.and_(same_href, pc.equal(one, other)), stored.column(name).is_valid())
    return np.asarray(same.to_numpy(zero_copy_only=False), np.bool_)


def merged_rows(
    before: pa.RecordBatch,
    wanted: pa.RecordBatch,
    is_kept: NDArray[np.bool_],
    bands: Sequence[str],
) -> pa.RecordBatch:
    """The wanted rows, with the headers that go on being theirs.

    Args:
        before: The rows as they are stored, of the columns that the result has.
        wanted: The rows as they shall be, without headers.
        is_kept: Whether the row stays; the others are replaced.
        bands: Whose headers there are.
    """
    rows = conform_to_schema(wanted, before.schema)
    same = [is_kept | has_same_file(before, rows, band) for band in bands]
    columns = {
        metadata_column(band): _where(own, before.column(metadata_column(band)))
        for band, own in zip(bands, same, strict=True)
    }
    is_before = np.logical_or.reduce(same) if same else is_kept
    for name in ("proj:epsg", "crs"):
        columns[name] = _chosen(is_before, before.column(name), rows.column(name))
    columns["bbox"] = _boxes(is_kept, is_before, before.column("bbox"), rows.column("bbox"))
    arrays = [columns.get(f.name, rows.column(f.name)) for f in before.schema]
    return pa.RecordBatch.from_arrays(arrays, schema=before.schema)


def patched_rows(
    rows: pa.RecordBatch,
    patches: Spool,
    numbers: NDArray[np.int64],
    start: int,
    places: NDArray[np.int64],
) -> pa.RecordBatch:
    """Rows with the headers that were read.

    Args:
        rows: Some of a stored batch.
        patches: With `READ`, the CRS, ``bbox`` and headers.
        numbers: Of each patch, the number of the stored row, in order.
        start: Number of the batch's first row.
        places: Of the rows in the batch.
    """
    if not len(places):
        return rows
    first, last = np.searchsorted(numbers, [start, start + int(places[-1]) + 1])
    if first == last:
        return rows
    patch = patches.take(np.arange(first, last))
    target = np.searchsorted(places, numbers[first:last] - start)
    is_read = np.array(patch.column(READ).to_pylist(), np.bool_)
    everywhere = np.ones(len(target), np.bool_)
    bands = [name for name in patch.schema.names if name.endswith(METADATA_SUFFIX)]
    wheres = dict.fromkeys(("proj:epsg", "crs", "bbox"), everywhere)
    wheres |= {name: is_read[:, number] for number, name in enumerate(bands)}
    for name, where in wheres.items():
        index = np.arange(rows.num_rows)
        index[target[where]] = rows.num_rows + np.flatnonzero(where)
        both = pa.concat_arrays([rows.column(name), patch.column(name)])
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), both.take(pa.array(index)))
    return rows


def _boxes(
    is_kept: NDArray[np.bool_], is_before: NDArray[np.bool_], before: pa.Array, rows: pa.Array
) -> pa.Array:
    """The bbox of the source; where a header goes on, wide enough for its raster."""
    found = []
    for kept, same, old, new in zip(
        is_kept.tolist(), is_before.tolist(), before.to_pylist(), rows.to_pylist(), strict=True
    ):
        if new is None or kept or not same or old is None:
            found.append(old if new is None or kept else new)
        else:
            found.append(widened(BBox(**old), BBox(**new))._asdict())
    return pa.array(found, BBOX)


def _where(is_own: NDArray[np.bool_], column: pa.Array) -> pa.Array:
    """The column, NULL where not."""
    return column.take(pa.array(np.arange(len(column)), mask=~is_own))


def _chosen(is_first: NDArray[np.bool_], one: pa.Array, other: pa.Array) -> pa.Array:
    index = np.arange(len(one)) + np.where(is_first, 0, len(one))
    return pa.concat_arrays([one, other]).take(pa.array(index))


def asset_of(batch: pa.RecordBatch, band: str) -> pa.StructArray | None:
    """Href and sample of a band, None where the column does not have it."""
    assets = batch.column("assets")
    if assets.type.get_field_index(band) < 0:
        return None
    return pa.StructArray.from_arrays(
        [pc.struct_field(assets, [band, name]) for name in ("href", "band_index")],
        ["href", "band_index"],
    )
