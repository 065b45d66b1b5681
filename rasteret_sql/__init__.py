"""Satellite imagery from SQL: STAC and COGs as DuckDB collections, pixels without GDAL.

>>> import rasteret_sql
>>> con = rasteret_sql.connect(workspace="/nonexistent")
>>> con.sql("SELECT rasteret_ndvi(1000, 3000) AS ndvi").fetchall()
[(0.5,)]
>>> con.close()
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rasteret_sql import errors

if TYPE_CHECKING:
    from rasteret_sql.arrays import to_geopandas, to_numpy, to_xarray
    from rasteret_sql.duck.connection import connect, register
    from rasteret_sql.duck.results import sql
    from rasteret_sql.duck.storage import storage

__all__ = [
    "__version__",
    "connect",
    "errors",
    "register",
    "sql",
    "storage",
    "to_geopandas",
    "to_numpy",
    "to_xarray",
]
__version__ = "0.1.0"

_IMPORTED_WHEN_USED = {
    "connect": "rasteret_sql.duck.connection",
    "register": "rasteret_sql.duck.connection",
    "sql": "rasteret_sql.duck.results",
    "storage": "rasteret_sql.duck.storage",
    "to_geopandas": "rasteret_sql.arrays",
    "to_numpy": "rasteret_sql.arrays",
    "to_xarray": "rasteret_sql.arrays",
}
_MODULES = ("maps", "progress", "serve")
"""Named in the documentation with no more than ``import rasteret_sql``."""


def __getattr__(name: str) -> object:
    """Import a function when it is used: to connect, or to complete a word, must not take long."""
    if name in _MODULES:
        return import_module(f"rasteret_sql.{name}")
    if name not in _IMPORTED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_IMPORTED_WHEN_USED[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
