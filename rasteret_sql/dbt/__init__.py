"""dbt-duckdb plugin: every model sees the ``rasteret_*`` functions and the collections.

`PACKAGE` is a dbt package beside it: a macro that builds the collections of sources, and tests.

In ``profiles.yml``::

    plugins:
      - module: rasteret_sql.dbt
        config:
          workspace: imagery
          storage:
            "s3://usgs-landsat/": {requester_pays: true}
"""

# mypy: disallow-subclassing-any=False
# (so that it passes with and without dbt)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt_common.exceptions import DbtRuntimeError

from rasteret_sql.duck.connection import instance_of, register
from rasteret_sql.duck.storage import storage
from rasteret_sql.duck.views import create_workspace_views
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.remote.config import Storage

if TYPE_CHECKING:
    import duckdb

PACKAGE = Path(__file__).parent / "package"
"""Folder of the dbt package `rasteret`; ``python -m rasteret_sql.dbt`` prints it."""

_KEYS = ("workspace", "storage", "views")


class Plugin(BasePlugin):
    """What dbt-duckdb finds in this module.

    Its ``config`` takes:

    * ``workspace``: folder of collections; default ``$RASTERET_WORKSPACE``, else
      ``~/rasteret_workspace``. A relative one starts where dbt runs.
    * ``storage``: options of `rasteret_sql.storage` by URL prefix.
    * ``views``: false to make no view of each collection in schema ``main``. A view is plain
      SQL over Parquet, so a model can have it as a source, and any DuckDB reads both.
    """

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Check the settings, once per process.

        Raises:
            DbtRuntimeError: an unknown setting, or one of another type.
        """
        # dbt-duckdb puts the profile's DuckDB settings among a plugin's own
        shared = (self.creds and self.creds.settings) or {}
        others = set(plugin_config) - set(_KEYS) - set(shared)
        with _shown_by_dbt():
            if others:
                raise InputError.expected(
                    "plugin rasteret_sql.dbt", f"only {', '.join(_KEYS)}", min(others), "fix it"
                )
            self._storage = dict(plugin_config.get("storage") or {})
            for prefix, options in self._storage.items():
                Storage().configure(prefix, options)  # raises what is wrong with them
        self._workspace = plugin_config.get("workspace")
        self._with_views = bool(plugin_config.get("views", True))

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Add the functions and the views, once per database that dbt opens."""
        with _shown_by_dbt():
            register(conn, workspace=self._workspace)
            for prefix, options in self._storage.items():
                storage(conn, prefix, **options)
            if self._with_views:
                instance = instance_of(conn)
                with instance.stores.in_use():
                    create_workspace_views(conn, instance.workspace)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Make the plain names work on each of dbt's cursors."""
        register(cursor)


@contextmanager
def _shown_by_dbt() -> Iterator[None]:
    """Of other errors dbt prints the traceback."""
    try:
        yield
    except RasteretError as error:
        raise DbtRuntimeError(error.message) from error
