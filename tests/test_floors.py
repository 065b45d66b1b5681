"""Imports go down only, and each outside package has its place (design: the floors)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rasteret_sql"

FLOORS = {
    "errors": 0,
    "secrets": 0,
    "units": 0,
    "pictures": 1,
    "tiff": 1,
    "grid": 1,
    "remote": 2,
    "schema": 2,
    "records": 3,
    "reading": 3,
    "arrays": 4,
    "duck": 4,
    "demo": 5,
    "serve": 5,
    "maps": 5,
    "dbt": 5,
    "cli": 6,
    "__main__": 6,
}
NEIGHBOURS_APART = {
    ("records", "reading"),
    ("tiff", "grid"),
    ("grid", "tiff"),
    ("reading", "records"),
    ("arrays", "duck"),
    ("duck", "arrays"),
}
WITHIN_RECORDS = ["files", "stac", "table", "catalog", "upkeep"]
"""Folders of `records`, each of which imports only from those before it."""
OUTSIDE = {
    "obstore": {"remote"},
    "urllib3": {"remote", "records"},
    "pystac_client": {"records"},
    "duckdb": {"duck", "serve", "maps", "dbt", "cli", "demo"},
    "duckdb_extensions": {"serve"},
    "click": {"cli"},
    "prompt_toolkit": {"cli"},
    "pygments": {"cli"},
    "dbt": {"dbt"},
    "pyarrow": {"schema", "records", "reading", "arrays", "duck", "cli"},
    "xarray": {"arrays"},
    "geopandas": {"arrays"},
    "imagecodecs": {"tiff", "pictures"},
    "isal": {"tiff"},
    "pyproj": {"grid", "reading", "tiff", "records", "duck", "demo"},
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


@pytest.mark.parametrize("folder", WITHIN_RECORDS)
def test_a_folder_of_records_imports_only_from_those_before_it(folder):
    allowed = WITHIN_RECORDS[: WITHIN_RECORDS.index(folder) + 1]
    paths = list((PACKAGE / "records" / folder).glob("*.py"))
    assert paths
    for path in paths:
        for name in imported(path):
            parts = name.split(".")
            if parts[:2] == ["rasteret_sql", "records"] and parts[2] in WITHIN_RECORDS:
                assert parts[2] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize(("part", "path"), list(modules()), ids=lambda v: getattr(v, "stem", v))
def test_outside_packages_have_their_place(part, path):
    for name in imported(path):
        places = OUTSIDE.get(name.split(".")[0])
        assert places is None or part in places, f"{path.name} ({part}) imports {name}"


def test_every_part_has_a_floor():
    assert {part for part, _ in modules()} - {"__init__"} == set(FLOORS)
