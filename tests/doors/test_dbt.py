"""The example project, built by dbt itself in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pytest
from doors.scenes import ROOT, SCENES, band_pixels, is_installed

pytestmark = pytest.mark.skipif(
    not is_installed("dbt-core", "dbt-duckdb"), reason="dbt-core and dbt-duckdb are not installed"
)

DBT = (sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--no-use-colors")
AREA = "{area: [780000, 1449360, 780640, 1450000], area_crs: 'EPSG:32643'}"


@dataclass
class Project:
    """A copy of the example, and what its runs said."""

    folder: Path
    environment: dict[str, str]
    output: str = ""
    statuses: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> int:
        done = subprocess.run(
            [*DBT, *arguments, "--profiles-dir", ".", "--vars", AREA],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        self.output = done.stdout + done.stderr
        results = self.folder / "target" / "run_results.json"
        if results.exists():
            self.statuses = {
                result["unique_id"].split(".")[2]: result["status"]
                for result in json.loads(results.read_text())["results"]
            }
        return done.returncode

    def rows(self, query: str) -> list[tuple]:
        with duckdb.connect(str(self.folder / "fields.duckdb"), read_only=True) as con:
            return con.execute(query).fetchall()


def copy(folder: Path, workspace: Path, environment: dict[str, str]) -> Project:
    ours = shutil.ignore_patterns("target", "logs", "*.duckdb")
    shutil.copytree(ROOT / "examples" / "dbt", folder, dirs_exist_ok=True, ignore=ours)
    return Project(folder, environment | {"RASTERET_WORKSPACE": str(workspace)})


@pytest.fixture(scope="module")
def built(tmp_path_factory, workspace, environment):
    """The example, built twice."""
    project = copy(tmp_path_factory.mktemp("project"), workspace, environment)
    assert project.run("build") == 0, project.output
    first = project.rows("SELECT id, read_at FROM red_by_scene ORDER BY id")
    assert project.run("build") == 0, project.output
    project.first_reads = first
    return project


def ndvi(scene: int, rows=slice(None), cols=slice(None)) -> float:
    red, nir = (
        np.where(p == 0, np.nan, p)[rows, cols]
        for p in (band_pixels(scene, b).astype(float) for b in ("B04", "B08"))
    )
    return float(np.nanmean((nir - red) / (nir + red)))


def test_every_model_and_test_passes_and_nothing_of_ours_is_printed(built):
    assert set(built.statuses.values()) == {"success", "pass"}
    assert len(built.statuses) == 17
    assert not re.search(r"Traceback|File \"|nanobind|leaked|rasteret_sql/", built.output)


def test_a_table_over_pixels_holds_the_time_series(built):
    rows = built.rows("SELECT id, n_pixels, ndvi FROM ndvi_by_scene ORDER BY id")
    assert [(row[0], row[1]) for row in rows] == [(scene, 127 * 128) for scene in SCENES]
    assert [row[2] for row in rows] == pytest.approx([ndvi(0), ndvi(1)])


def test_a_table_over_a_view_of_pixels_has_the_area_of_the_view(built):
    rows = built.rows("SELECT block_row, block_col, ndvi FROM ndvi_by_block WHERE id LIKE 'S2A%'")
    found = {(row, col): value for row, col, value in rows}
    assert set(found) == {(row, col) for row in range(2) for col in range(2)}
    assert found[1, 0] == pytest.approx(ndvi(0, slice(32, 64), slice(0, 32)))


def test_an_incremental_model_reads_only_new_scenes(built):
    reads = built.rows("SELECT id, read_at FROM red_by_scene ORDER BY id")
    assert reads == built.first_reads
    assert [row[0] for row in reads] == list(SCENES)


def test_an_external_model_is_a_parquet_file_for_others(built):
    path = built.folder / "target" / "ndvi_pixels.parquet"
    query = f"SELECT count(*), count(ndvi), min(row), max(col) FROM '{path}'"
    assert built.rows(query) == [(2 * 64 * 64, 2 * 63 * 64, 0, 63)]


def test_collection_views_and_tables_are_read_without_us(built):
    assert built.rows('SELECT count(*), any_value("proj:epsg") FROM s2') == [(2, 32643)]
    assert built.rows("SELECT count(*) FROM clear_scenes") == [(2,)]


def test_a_bind_error_in_a_model_is_our_one_line(tmp_path, workspace, environment):
    project = copy(tmp_path, workspace, environment)
    (tmp_path / "models" / "wrong.sql").write_text(
        "SELECT B99 FROM rasteret_pixels('s2', bands := ['B99'])"
    )
    assert project.run("run", "--select", "wrong") == 1
    expected = (
        "rasteret_pixels: bands: expected one of B04, B08, got 'B99'; band names are case-sensitive"
    )
    assert f"Invalid Input Error: {expected}\n" in project.output
    assert not re.search(r"Traceback|At:|File \"", project.output)


def test_an_unknown_setting_is_our_one_line(tmp_path, workspace, environment):
    project = copy(tmp_path, workspace, environment)
    profiles = tmp_path / "profiles.yml"
    profiles.write_text(profiles.read_text().replace("workspace:", "worskpace:"))
    assert project.run("run", "--select", "clear_scenes") != 0
    expected = "plugin rasteret_sql.dbt: expected only workspace, storage, views, got 'worskpace'"
    assert expected in project.output
    assert "Traceback" not in project.output
