"""Columns that all records have, whatever their bands: their files and their CRS."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.errors import CollectionError
from rasteret_sql.reading.columns import Ints


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


def crs_codes(batch: pa.RecordBatch) -> tuple[Ints, list[str | None]]:
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
