"""The SQL functions, one family a file; importing this package declares them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from rasteret_sql.duck.runtime import Runtime

__all__ = [
    "builds",
    "chips",
    "collections",
    "composites",
    "counters",
    "datasets",
    "enriching",
    "histograms",
    "maintenance",
    "make_bind",
    "point_values",
    "points",
    "previews",
    "reads",
    "warning_list",
    "zones",
]


def make_bind(runtime: Runtime) -> Callable[..., Any]:
    """The UDF that binds a call of any of them."""
    return runtime.bind
