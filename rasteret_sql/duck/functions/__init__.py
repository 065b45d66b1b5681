"""The SQL functions, one family a file; importing this package declares them all."""

from rasteret_sql.duck.functions import (
    builds,
    chips,
    collections,
    datasets,
    enriching,
    histograms,
    previews,
    reads,
    upkeep,
)

SCALARS = (*builds.SCALARS, *enriching.SCALARS)
"""Private scalar UDFs that the families need."""

__all__ = [
    "SCALARS",
    "builds",
    "chips",
    "collections",
    "datasets",
    "enriching",
    "histograms",
    "previews",
    "reads",
    "upkeep",
]
