"""Satellite imagery from SQL: STAC and COGs as DuckDB collections, pixels without GDAL.

>>> import rasteret_sql
>>> con = rasteret_sql.connect(workspace="/nonexistent")
>>> con.sql("SELECT rasteret_ndvi(1000, 3000) AS ndvi").fetchall()
[(0.5,)]
>>> con.close()
"""

from rasteret_sql import errors
from rasteret_sql.arrays import to_geopandas, to_numpy, to_xarray
from rasteret_sql.duck.connection import connect, register
from rasteret_sql.duck.results import sql
from rasteret_sql.remote.stores import storage

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
