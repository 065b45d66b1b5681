"""Options of the stores that the test itself works with, outside a statement."""

from __future__ import annotations

from rasteret_sql.remote.stores import stores_in_use


def storage(prefix: str, **options: object) -> None:
    """As `rasteret_sql.storage`, for the calls of the test's thread."""
    stores_in_use().configure(prefix, options)
