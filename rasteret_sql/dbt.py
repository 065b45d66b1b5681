"""dbt-duckdb plugin: every model sees the ``rasteret_*`` functions and the collections.

In ``profiles.yml``::

    plugins:
      - module: rasteret_sql.dbt
        config:
          workspace: imagery
          storage:
            "s3://usgs-landsat/": {requester_pays: true}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.adapters.duckdb.plugins import BasePlugin

from rasteret_sql.duck.connection import instance_of, register
from rasteret_sql.duck.views import create_workspace_views
from rasteret_sql.errors import InputError
from rasteret_sql.remote.stores import storage

if TYPE_CHECKING:
    import duckdb

_KEYS = ("workspace", "storage", "views")


class Plugin(BasePlugin):  # type: ignore[misc]  # dbt has no types
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
            InputError: an unknown setting, or one of another type.
        """
        # dbt-duckdb puts the profile's DuckDB settings among a plugin's own
        others = set(plugin_config) - set(_KEYS) - set(self.creds.settings or {})
        if others:
            raise InputError.expected(
                "plugin rasteret_sql.dbt", f"only {', '.join(_KEYS)}", min(others), "mend its name"
            )
        self._workspace = plugin_config.get("workspace")
        self._with_views = bool(plugin_config.get("views", True))
        for prefix, options in (plugin_config.get("storage") or {}).items():
            storage(prefix, **options)

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Add the functions and the views, once per database that dbt opens."""
        register(conn, workspace=self._workspace)
        if self._with_views:
            create_workspace_views(conn, instance_of(conn).workspace)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Make the plain names work on each of dbt's cursors."""
        register(cursor)
