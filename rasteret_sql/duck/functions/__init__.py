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
    point_values,
    points,
    previews,
    reads,
    warning_list,
    zones,
)

SCALARS = (*builds.SCALARS, *enriching.SCALARS, *point_values.SCALARS)
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
    "point_values",
    "points",
    "previews",
    "reads",
    "warning_list",
    "zones",
]
