"""How the files of a database are reached, said in Python."""

from __future__ import annotations

import duckdb

from rasteret_sql.duck.connection import instance_of


def storage(con: duckdb.DuckDBPyConnection, prefix: str, **options: object) -> None:
    """Say how to reach what lies under a URL prefix, for the database of a connection.

    All connections and cursors of the database know it, and no other database of the process
    does. It goes before the TOML file (see `rasteret_sql.remote.config`). What is being read
    goes on; the next request uses the new options.

    Args:
        con: A connection of `connect`, or one that was given to `register`.
        prefix: Start of the hrefs; the longest that fits wins; ``*`` stands for any text
            without a slash. ``s3://bucket/`` also fits the bucket's ``https://`` form.
        options: See `StorageOptions`; none at all forgets the prefix.

    Raises:
        InputError: An option that does not exist, or a value of another type.
        NotRegisteredError: The connection does not know rasteret_sql.

    Example:
        >>> import rasteret_sql
        >>> con = rasteret_sql.connect(workspace="/nonexistent")
        >>> storage(con, "s3://usgs-landsat/", requester_pays=True)
        >>> storage(con, "s3://usgs-landsat/")
        >>> con.close()
    """
    instance_of(con).stores.configure(prefix, options)
