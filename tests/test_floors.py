"""Imports go down only, and each outside package has its place (design: the floors)."""

from __future__ import annotations

import ast
from itertools import permutations, product
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rasteret_sql"

FLOORS = {
    "errors": 0,
    "secrets": 0,
    "progress": 0,
    "units": 0,
    "pictures": 1,
    "tiff": 1,
    "grid": 1,
    "remote": 2,
    "schema": 2,
    "collections": 3,
    "datasets": 3,
    "reading": 3,
    "ingest": 4,
    "maintenance": 5,
    "arrays": 6,
    "rows": 6,
    "duck": 6,
    "demo": 7,
    "serve": 7,
    "maps": 7,
    "dbt": 7,
    "cli": 8,
    "__main__": 8,
}
NEIGHBOURS_APART = {
    ("tiff", "grid"),
    ("grid", "tiff"),
    *permutations(("collections", "datasets", "reading"), 2),
    *product(("ingest", "maintenance"), ("datasets", "reading")),
    *permutations(("arrays", "duck"), 2),
    *permutations(("rows", "duck"), 2),
}
OUTSIDE = {
    "obstore": {"remote"},
    "urllib3": {"remote", "ingest"},
    "pystac_client": {"ingest"},
    "duckdb": {"duck", "serve", "maps", "dbt", "cli", "demo"},
    "duckdb_extensions": {"serve"},
    "click": {"cli"},
    "prompt_toolkit": {"cli"},
    "pygments": {"cli"},
    "dbt": {"dbt"},
    "pyarrow": {
        "schema",
        "collections",
        "datasets",
        "reading",
        "ingest",
        "maintenance",
        "arrays",
        "rows",
        "duck",
        "cli",
    },
    "xarray": {"arrays"},
    "geopandas": {"arrays"},
    "imagecodecs": {"tiff", "pictures"},
    "isal": {"tiff"},
    "pyproj": {"grid", "reading", "tiff", "collections", "ingest", "maintenance", "duck", "demo"},
    "rasterio": set(),
    "osgeo": set(),
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("part", "path"),
    [m for m in modules() if m[0] != "__init__"],
    ids=lambda v: getattr(v, "stem", v),
)
def test_a_module_imports_only_from_its_floor_down(part, path):
    for name in imported(path):
        first, *rest = name.split(".")
        if first != "rasteret_sql" or not rest or rest[0] not in FLOORS:
            continue
        other = rest[0]
        assert FLOORS[other] <= FLOORS[part], f"{path.name} ({part}) imports {name}"
        assert (part, other) not in NEIGHBOURS_APART, f"{path.name} ({part}) imports {name}"


@pytest.mark.parametrize(("folder", "other"), [("stac", "table"), ("table", "stac")])
def test_stac_and_tables_import_nothing_from_each_other(folder, other):
    paths = list((PACKAGE / "ingest" / folder).glob("*.py"))
    assert paths
    for path in paths:
        for name in imported(path):
            assert not name.startswith(f"rasteret_sql.ingest.{other}."), f"{path.name}: {name}"


@pytest.mark.parametrize(("part", "path"), list(modules()), ids=lambda v: getattr(v, "stem", v))
def test_outside_packages_have_their_place(part, path):
    for name in imported(path):
        places = OUTSIDE.get(name.split(".")[0])
        assert places is None or part in places, f"{path.name} ({part}) imports {name}"


def test_every_part_has_a_floor():
    assert {part for part, _ in modules()} - {"__init__"} == set(FLOORS)
