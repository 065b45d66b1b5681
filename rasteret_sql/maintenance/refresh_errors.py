"""What could not be read, over refreshes: what goes on being so, what is told anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from rasteret_sql.collections.workspace import without_secrets
from rasteret_sql.ingest.records import AssetFailure

OF_STATE = "of_state"
"""Marks, in ``_errors.ndjson``, a file that could not be asked for its state."""


def merged_errors(
    before: Iterable[Mapping[str, Any]],
    warnings: Sequence[str],
    failures: Sequence[AssetFailure],
    lost: Sequence[AssetFailure],
    *,
    replaced: set[str],
    retried: set[tuple[str, str]],
    is_state_known: bool,
    is_partial: bool,
) -> list[dict[str, Any]]:
    """What could not be read: of this refresh, and of before where nobody looked again.

    Args:
        before: Lines of the version before.
        warnings: Of the source.
        failures: Of this refresh.
        lost: Files that could not be asked for their state now.
        replaced: Ids of the records that are new or replaced.
        retried: Id and band of the headers that were asked for.
        is_state_known: Whether all files were asked for their state.
        is_partial: Whether a part of the source was read, which says nothing of the rest.
    """
    warned: list[Mapping[str, Any]] = [
        {"id": None, "band": None, "href": None, "error": text} for text in warnings
    ]
    found: list[Mapping[str, Any]] = [failure._asdict() for failure in failures]
    found += [failure._asdict() | {OF_STATE: True} for failure in lost]
    for row in before:
        if row["id"] is None:
            warned += [row] if is_partial else []
        elif row["id"] not in replaced and (row["id"], row["band"]) not in retried:
            found += [] if is_state_known and row.get(OF_STATE) else [row]
    unique = {error_key(row): without_secrets(row) for row in [*warned, *found]}
    return cast("list[dict[str, Any]]", list(unique.values()))


def error_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells lines apart."""
    told = cast("Mapping[str, Any]", without_secrets(row))
    return tuple(told.get(name) for name in ("id", "band", "href", "error"))
