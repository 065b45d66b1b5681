"""What every source of a collection is turned into: a schema and batches of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from rasteret_sql.errors import AccessDeniedError, redact

if TYPE_CHECKING:
    from rasteret_sql.ingest.samples import KnownSamples, ReadHeaders

BATCH_ROWS = 1000


class AssetFailure(NamedTuple):
    """An asset that is not in the collection, and why: a row of `rasteret_errors`."""

    id: str
    band: str
    href: str
    error: str


def local_refused(name: str, band: str, href: str) -> AssetFailure:
    """The failure of a remote source's asset that is a local file."""
    error = AccessDeniedError.expected(
        redact(href),
        "a remote file, as the item is remote",
        "a local path",
        "use url_rewrite if it is mounted here",
    )
    return AssetFailure(name, band, redact(href), error.message)


@dataclass(frozen=True)
class BandsOfHeaders:
    """Records whose bands follow from the headers of their files.

    Attributes:
        records: the same records with these bands; asks for the headers that it needs.
        hrefs: the files whose headers it may need; None for all of the records'.
    """

    records: Callable[[ReadHeaders, KnownSamples], Records]
    hrefs: frozenset[str] | None = None


@dataclass(frozen=True)
class Records:
    """Records of a source, canonical columns first, in batches of at most `BATCH_ROWS`.

    Attributes:
        schema: id, datetime, geometry, bbox, assets, collection, proj:epsg, crs, the rest.
        batches: starts a new pass over all records; may be called again.
        warnings: what was odd in the source, one line each; complete before the first pass.
        failures: assets that were refused, with the reason; complete before the first pass.
        hinted: as `batches`, and a column of `asset_hints` beside the schema's; None where
            nothing is said of the assets.
        has_rasters: whether any asset is said to be a TIFF; if none is, no header is asked for.
        of_headers: where the source does not say how many samples files have, and so how
            many bands: what to use in place of these records once headers can be read.
    """

    schema: pa.Schema
    batches: Callable[[], Iterator[pa.RecordBatch]]
    warnings: list[str] = field(default_factory=list)
    failures: list[AssetFailure] = field(default_factory=list)
    hinted: Callable[[], Iterator[pa.RecordBatch]] | None = None
    has_rasters: bool = True
    of_headers: BandsOfHeaders | None = None

    def for_enrichment(self) -> Iterator[pa.RecordBatch]:
        """Start a pass with all that `enrich` can use."""
        return (self.hinted or self.batches)()
