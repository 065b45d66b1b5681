"""The SQL functions, one family a file; importing this package declares them all."""

from rasteret_sql.duck.functions import (
    builds,
    chips,
    collections,
    composites,
    counters,
    datasets,
    enriching,
    histograms,
    maintenance,
    points,
    previews,
    reads,
    warning_list,
    zones,
)

SCALARS = (*builds.SCALARS, *enriching.SCALARS)
"""Private scalar UDFs that the families need."""

__all__ = [
    "SCALARS",
    "builds",
    "chips",
    "collections",
    "composites",
    "counters",
    "datasets",
    "enriching",
    "histograms",
    "maintenance",
    "points",
    "previews",
    "reads",
    "warning_list",
    "zones",
]
