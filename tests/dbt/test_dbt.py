"""The example project and the dbt package, run by dbt itself in a process of its own."""

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
import shapely
import tifffile
from docs.pages import block, blocks, page_text, run, with_command
from pyproj import Transformer
from scenes import ROOT, is_installed
from servers import dbt_commands
from servers.range_server import RangeServer

import rasteret_sql
from rasteret_sql.duck.names import IS_DUCKDB_2

pytestmark = pytest.mark.skipif(
    not is_installed("dbt-core", "dbt-duckdb"), reason="dbt-core and dbt-duckdb are not installed"
)

DBT_FILE = re.compile(r"(?:--|#) ([\w/]+\.(?:sql|yml))\n")
OURS = re.compile(r"Traceback|File \"|nanobind|leaked|rasteret_sql/(?!dbt/package)")
SCENE = "S2A_43PHQ_20240310_L2A"
"""A scene of the last date, which comes between the second and the third run."""
GONE = "S2A_44PKV_20240110_L2A"
"""A scene of which a file is removed in the end."""


@dataclass
class Project:
    """A copy of the example, and what its runs said."""

    folder: Path
    environment: dict[str, str]
    forked: str
    output: str = ""
    results: dict[str, dict] = field(default_factory=dict)

    def run(self, *arguments: str, cleans: bool = True) -> int:
        """Run a command in a process of its own; `results` are its nodes and tests by name."""
        (self.folder / "target" / "run_results.json").unlink(missing_ok=True)
        options = ["--no-use-colors", *arguments]
        code, output = dbt_commands.ask(
            self.forked, options, str(self.folder), self.environment, cleans=cleans
        )
        self.finished(output)
        return code

    def finished(self, output: str) -> None:
        """Take what a command said and left."""
        self.output, self.results = output, {}
        results = self.folder / "target" / "run_results.json"
        if results.exists():
            for result in json.loads(results.read_text())["results"]:
                self.results[result["unique_id"].split(".")[2]] = result

    def manifest(self) -> dict:
        return json.loads((self.folder / "target" / "manifest.json").read_text())

    def rows(self, query: str) -> list[tuple]:
        with duckdb.connect(str(self.folder / "fields.duckdb"), read_only=True) as con:
            return con.execute(query).fetchall()


@dataclass
class Run:
    """What `dbt build` did."""

    statuses: dict[str, str]
    output: str
    requests: list[dict]
    tables: dict[str, list[tuple]]

    def pixel_files(self) -> set[str]:
        """Files of which bytes were read: the scene and the file's name."""
        paths = [r["path"] for r in self.requests if r["method"] == "GET" and "tif" in r["path"]]
        return {"/".join(path.split("/")[-2:]) for path in paths}

    def checked_files(self) -> int:
        return len({r["path"] for r in self.requests if r["method"] == "HEAD"})


@dataclass
class Story:
    """The example, built three times: twice of the same scenes, then of two more.

    On DuckDB 1.5 there is no second time.
    """

    project: Project
    scenes: Path
    first: Run
    second: Run | None
    last: Run

    @property
    def runs(self) -> list[Run]:
        return [run for run in (self.first, self.second, self.last) if run]


def built(project: Project, requests: list[dict]) -> Run:
    tables = {
        name: project.rows(f"SELECT * FROM {name} ORDER BY ALL")
        for name in ("parcel_scenes", "parcel_ndvi", "training_samples")
    }
    statuses = {name: result["status"] for name, result in project.results.items()}
    return Run(statuses, project.output, requests, tables)


def build(project: Project, server: RangeServer) -> Run:
    server.reset()
    assert project.run("build") == 0, project.output
    return built(project, server.requests())


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """The socket of a process from which commands of dbt are forked."""
    address = str(tmp_path_factory.mktemp("forked") / "socket")
    program = ROOT / "tests" / "servers" / "dbt_commands.py"
    with subprocess.Popen(
        [sys.executable, program, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout.readline() == "ready\n"
        yield address
        running.stdin.close()


def with_dbt(folder: Path, environment: dict[str, str], forked: str) -> dict[str, str]:
    """The environment with the commands ``rasteret-sql`` and ``dbt`` in this folder."""
    environment = with_command(folder, environment)
    facts = {"python": sys.executable, "address": forked}
    (folder / "dbt").write_text(dbt_commands.COMMAND.format(**facts, file=dbt_commands.__file__))
    (folder / "dbt").chmod(0o755)
    return environment


@pytest.fixture(scope="module")
def story(tmp_path_factory, environment, forked):
    """The first run is that of the page, as it stands there, over four scenes on a server.

    On DuckDB 2.0 its commands are those that dbt installs; on 1.5 they are forked as well.
    """
    checkout = tmp_path_factory.mktemp("checkout")
    ours = shutil.ignore_patterns("demo", "workspace", "target", "logs", "dbt_packages", "*.duckdb")
    shutil.copytree(ROOT / "examples" / "dbt", checkout / "examples" / "dbt", ignore=ours)
    if IS_DUCKDB_2:
        environment = with_command(checkout / "bin", environment)
    else:
        environment = with_dbt(checkout / "bin", environment, forked)
    commands = block("dbt.md", "export RASTERET_DBT_PACKAGE").splitlines()
    (demo,) = (command for command in commands if command.startswith("rasteret-sql demo"))
    run(demo, checkout, environment)
    scenes = checkout / "examples" / "dbt" / "demo" / "scenes"
    items = scenes / "items.json"
    whole = json.loads(items.read_text())
    with RangeServer(scenes=scenes) as server:
        for item in whole["features"]:
            for asset in item["assets"].values():
                asset["href"] = server.url("scenes", asset["href"].removeprefix("./"))
        earlier = [i for i in whole["features"] if i["properties"]["datetime"] < "2024-03"]
        items.write_text(json.dumps(whole | {"features": earlier}))
        package = str(ROOT / "rasteret_sql" / "dbt" / "package")
        project = Project(
            checkout / "examples" / "dbt", environment | {"RASTERET_DBT_PACKAGE": package}, forked
        )
        rest = [command for command in commands if command != demo]
        assert rest[-1] == "dbt build"
        project.finished(run("\n".join(rest), checkout, environment | {"NO_COLOR": "1"}))
        first = built(project, server.requests())
        second = build(project, server) if IS_DUCKDB_2 else None
        items.write_text(json.dumps(whole))
        yield Story(project, scenes, first, second, build(project, server))


def test_every_model_and_test_passes_and_nothing_of_ours_is_printed(story):
    for each in story.runs:
        assert set(each.statuses.values()) == {"success", "pass", "no-op"}
        assert len(each.statuses) == 37
        assert "WARN=0 ERROR=0 SKIP=0" in each.output
        assert not OURS.search(each.output)


def test_the_query_of_the_page_gives_the_index_of_each_parcel(story):
    query = re.search(r'-c "(.*)"', block("dbt.md", "duckdb fields.duckdb"))[1]
    rows = story.project.rows(query)
    assert len(rows) == 8
    assert [str(row[1]) for row in rows[:2]] == ["2024-01-10", "2024-03-10"]


def test_the_collection_is_built_and_then_refreshed(story):
    told = [re.search(r"collection s2 (.*)\n", run.output)[1] for run in story.runs]
    assert told == [
        "built: 4 records, 12 headers read, 0 files not readable",
        *["refreshed: 4 records, 0 headers read, 0 files not readable"][: len(told) - 2],
        "refreshed: 6 records, 6 headers read, 0 files not readable",
    ]


@pytest.mark.any_duckdb
def test_a_second_run_reads_no_pixel_and_changes_nothing(story):
    first, second = story.first, story.second
    assert second.pixel_files() == set()
    assert second.checked_files() == 12
    assert second.tables == first.tables


def test_a_run_after_new_scenes_reads_their_files_alone(story):
    first, third = story.first, story.last
    assert len(first.pixel_files()) == 12
    assert {path.split("/")[0][-12:] for path in third.pixel_files()} == {"20240310_L2A"}
    before, after = (set(run.tables["parcel_scenes"]) for run in (first, third))
    assert before < after
    assert {row[1] for row in after - before} == {SCENE, "S2A_44PKV_20240310_L2A"}
    for number in (1, 2, 5):  # observations of before that date
        rows = ([r for r in run.tables["training_samples"] if r[0] == number] for run in story.runs)
        assert len({tuple(row) for row in rows}) == 1


def band(scenes: Path, scene: str, name: str) -> np.ndarray:
    return tifffile.imread(scenes / scene / f"{name}.tif", key=0)


def centres(scenes: Path, scene: str) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of all pixels."""
    with tifffile.TiffFile(scenes / scene / "B04.tif") as file:
        left, top = file.pages[0].tags[33922].value[3:5]
        rows, cols = file.pages[0].shape
    x, y = np.meshgrid(left + 10 * (np.arange(cols) + 0.5), top - 10 * (np.arange(rows) + 0.5))
    return Transformer.from_crs(32643, 4326, always_xy=True).transform(x, y)


def test_the_index_of_a_parcel_is_that_of_its_mean_reflectances(story):
    query = "SELECT geometry, red, nir FROM parcel_scenes JOIN parcels USING (parcel_id) WHERE {}"
    rows = story.project.rows(query.format(f"scene_id = '{SCENE}'"))
    assert len(rows) == 4
    lon, lat = centres(story.scenes, SCENE)
    for outline, red, nir in rows:
        inside = shapely.contains_xy(shapely.from_wkt(outline), lon, lat)
        for name, found in (("B04", red), ("B08", nir)):
            values = band(story.scenes, SCENE, name)[inside]
            # of pixels by their centres; the model takes shares of pixels
            assert found == pytest.approx(values[values > 0].mean(), rel=0.01)
    pooled = story.project.rows(
        "SELECT p.ndvi, s.ndvi, p.n_scenes, s.n FROM parcel_ndvi p JOIN (SELECT parcel_id,"
        " taken_at::DATE AS day, count(*) AS n, (sum(nir * n_pixels) - sum(red * n_pixels))"
        " / (sum(nir * n_pixels) + sum(red * n_pixels)) AS ndvi FROM parcel_scenes GROUP BY ALL) s"
        " USING (parcel_id, day)"
    )
    assert len(pooled) == 8
    for found, expected, scenes, n in pooled:
        assert (found, scenes) == (pytest.approx(expected), n)


def test_clouds_lower_the_clear_share_of_a_parcel(story):
    rows = story.project.rows(
        f"SELECT parcel_id, clear_share, geometry FROM parcel_scenes JOIN parcels USING (parcel_id)"
        f" WHERE scene_id = '{SCENE}' ORDER BY parcel_id"
    )
    assert [row[1] for row in rows[:3]] == pytest.approx([1, 1, 1])
    inside = shapely.contains_xy(shapely.from_wkt(rows[3][2]), *centres(story.scenes, SCENE))
    clear = np.isin(band(story.scenes, SCENE, "SCL")[inside], (4, 5, 6, 7, 11)).mean()
    assert 0.3 < clear < 0.8
    assert rows[3][1] == pytest.approx(clear, abs=0.02)


def test_a_training_sample_is_the_newest_clear_pixel_before_it(story):
    columns = "observation_id, n_candidates, scene_id, red, nir"
    rows = story.project.rows(f"SELECT {columns} FROM training_samples ORDER BY ALL")
    assert [(row[0], row[1], row[2] and row[2][4:18]) for row in rows] == [
        (1, 1, "43PHQ_20240110"),
        (2, 2, "43PHQ_20240110"),
        (3, 2, "43PHQ_20240310"),
        (4, 2, "43PHQ_20240310"),
        (5, 0, None),  # there is no earlier scene
        (6, 1, None),  # it lies under a cloud
    ]
    places = story.project.rows("SELECT lon, lat FROM observations ORDER BY observation_id")
    to_map = Transformer.from_crs(4326, 32643, always_xy=True)
    for (_, _, scene, red, nir), place in zip(rows[:4], places, strict=False):
        x, y = to_map.transform(*place)
        pixel = int((1443200.0 - y) // 10), int((x - 821600.0) // 10)
        assert (red, nir) == tuple(band(story.scenes, scene, b)[pixel] for b in ("B04", "B08"))
    assert len(story.first.tables["training_samples"]) == 6
    early = [row[:1] + row[5:7] for row in story.first.tables["training_samples"]]
    assert (3, 0, None) in early  # its scene came later


def test_an_external_model_is_a_parquet_file_for_others(story):
    path = story.project.folder / "parcel_ndvi.parquet"
    query = "SELECT parcel_id, crop, day, ndvi FROM {} ORDER BY ALL"
    expected = story.project.rows(query.format("parcel_ndvi"))
    assert duckdb.sql(query.format(f"'{path}'")).fetchall() == expected
    assert len(expected) == 8


def test_everything_but_pixels_is_read_without_us(story):
    assert story.project.rows("SELECT count(*) FROM s2") == [(6,)]
    assert story.project.rows("SELECT count(*) FROM stg_scenes") == [(4,)]
    assert story.project.rows("SELECT sum(n_candidates)::INT FROM stg_observations") == [(8,)]


def test_every_column_is_described_in_the_project_and_in_the_database(story):
    manifest = story.project.manifest()
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    described = {
        node["name"]: {c["name"]: c["description"] for c in node["columns"].values()}
        for node in nodes
        if node["resource_type"] in {"model", "seed", "source"}
    }
    assert all(text for columns in described.values() for text in columns.values())
    assert all(node["description"] for node in nodes if node["resource_type"] in {"model", "seed"})
    query = "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    found: dict[str, dict] = {}
    for table, column, comment in story.project.rows(query):
        found.setdefault(table, {})[column] = comment
    assert {name: set(columns) for name, columns in found.items()} == {
        name: set(columns) for name, columns in described.items()
    }
    for name, columns in found.items():
        if name != "s2":  # the view of the collection is ours, not dbt's
            assert columns == described[name]


def test_the_macros_and_exposures_are_documented(story):
    manifest = story.project.manifest()
    macros = [m for m in manifest["macros"].values() if m["package_name"] == "rasteret"]
    assert len(macros) == 9
    assert all(macro["description"] for macro in macros)
    assert all(a["description"] for macro in macros for a in macro["arguments"])
    used = {e["name"]: e["depends_on"]["nodes"] for e in manifest["exposures"].values()}
    assert used == {
        "parcel_report": ["model.fields.parcel_ndvi_file"],
        "crop_classifier": ["model.fields.training_samples"],
    }


def package_tests() -> dict[str, dict]:
    """Each test of the package, on all rows and on rows without its fault."""
    changed = f"id <> '{SCENE}'"
    sound = f"{changed} AND id <> '{GONE}' AND id NOT LIKE '%20240209%' AND id LIKE '%43PHQ%'"
    without = {
        "s2": sound,
        "parcel_scenes": "parcel_id < 4",
        "training_samples": "scene_id IS NOT NULL",
    }
    shares = {"at_most": 0.5, "bands": ["B04", "B08"], "level": 2}
    cases = {
        "stale": ("s2", "stale_file", {}, "true"),
        "stale_or_gone": ("s2", "stale_file", {"gone": True}, "true"),
        "mixed": ("s2", "mixed_crs", {}, "true"),
        "grouped": ("s2", "mixed_crs", {"group_by": ["year"]}, "true"),
        "nodata": ("s2", "nodata_share", shares, changed),
        "nodata_counts": ("parcel_scenes", "nodata_share", {"at_most": 0}, "true"),
        "doubled": ("s2", "unique_ids", {"columns": "datetime"}, "true"),
        "missing": ("training_samples", "unique_ids", {"columns": ["label", "scene_id"]}, "true"),
    }
    tests: dict[str, dict] = {}
    for name, (table, test, arguments, where) in cases.items():
        for title, condition in ((name, where), (f"{name}_sound", without[table])):
            fields = {"name": title, "arguments": arguments, "config": {"where": condition}}
            tests.setdefault(table, []).append({f"rasteret.{test}": fields})
    return tests


@pytest.fixture(scope="module")
def tested(story) -> Project:
    """After tests of the package, where a file has changed, one has gone, and a test is wrong."""
    changed = story.scenes / SCENE / "B04.tif"
    changed.write_bytes(changed.read_bytes() + bytes(8))
    (story.scenes / GONE / "SCL.tif").unlink()
    tables = [{"name": name, "data_tests": tests} for name, tests in package_tests().items()]
    source = {"name": "faulty", "schema": "main", "tables": tables}
    # JSON is YAML
    (story.project.folder / "models" / "faulty.yml").write_text(json.dumps({"sources": [source]}))
    (story.project.folder / "tests" / "wrong.sql").write_text(
        "SELECT B99 FROM rasteret_pixels('s2', bands := ['B99'])"
    )
    assert story.project.run("test", "--select", "source:faulty", "wrong") == 1
    output, results = story.project.output, story.project.results
    return Project(story.project.folder, {}, story.project.forked, output, results)


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("test", "rows"),
    [
        ("stale", 1),
        ("stale_or_gone", 2),
        ("mixed", 1),
        ("grouped", 1),
        ("nodata", 4),
        ("nodata_counts", 2),
        ("doubled", 3),
        ("missing", 2),
    ],
)
def test_a_test_of_the_package_finds_its_fault_and_nothing_else(tested, test, rows):
    assert tested.results[test]["failures"] == rows
    assert tested.results[f"{test}_sound"]["failures"] == 0


@pytest.mark.any_duckdb
def test_a_bind_error_is_our_one_line(tested):
    expected = (
        "rasteret_pixels: bands: expected one of B04, B08, SCL, got 'B99'; "
        "band names are case-sensitive"
    )
    assert f"Invalid Input Error: {expected}\n" in tested.output
    assert not OURS.search(tested.output)


@pytest.mark.any_duckdb
def test_tests_alone_refresh_no_collection(tested):
    assert "collection s2" not in tested.output


def copied(story: Story, folder: Path) -> Project:
    """The project as it was built, for a run that fails."""
    shutil.copytree(story.project.folder, folder, dirs_exist_ok=True, symlinks=True)
    (folder / "models" / "faulty.yml").unlink(missing_ok=True)
    (folder / "tests" / "wrong.sql").unlink(missing_ok=True)
    return Project(folder, story.project.environment, story.project.forked)


@pytest.mark.any_duckdb
def test_an_unknown_setting_is_our_one_line(story, tmp_path):
    project = copied(story, tmp_path)
    profiles = tmp_path / "profiles.yml"
    profiles.write_text(profiles.read_text().replace("workspace:", "worskpace:"))
    assert project.run("run", "--select", "stg_scenes", cleans=False) != 0
    expected = "plugin rasteret_sql.dbt: expected only workspace, storage, views, got 'worskpace'"
    assert expected in project.output
    assert "Traceback" not in project.output


@pytest.mark.any_duckdb
def test_a_full_refresh_builds_a_collection_anew_and_an_unknown_argument_is_our_one_line(
    story, tmp_path
):
    project = copied(story, tmp_path)
    scenes = (f"('{name}', '{story.scenes / name / 'B04.tif'}')" for name in (SCENE, GONE))
    table = {
        "source": f'SELECT * FROM (VALUES {", ".join(scenes)}) AS t(scene, "it\'s here")',
        "column_map": {"scene": "id"},
        "href_column": "it's here",
        "band_index_map": {"red": 0},
        "where": f"scene <> '{SCENE}'",
        "enrich": True,
        "refresh": False,
    }
    meta = {"tables": [{"name": "a_table", "config": {"meta": {"rasteret": table}}}]}
    sources = {"sources": [{"name": "first", "schema": "main", **meta}]}
    (tmp_path / "models" / "tables.yml").write_text(json.dumps(sources))
    (tmp_path / "models" / "reds.sql").write_text("FROM {{ source('first', 'a_table') }}")
    models = tmp_path / "models" / "sources.yml"
    models.write_text(models.read_text().replace("bands: [B04", "band: [B04"))
    with rasteret_sql.connect(workspace=tmp_path / "workspace") as con:
        earlier = f"SELECT 'earlier' AS id, '{story.scenes / GONE / 'B08.tif'}' AS url"
        con.execute("FROM rasteret_build_table('a_table', $1, href_column := 'url')", [earlier])
    # replaces the collection, which a run without --full-refresh would leave as it is
    assert project.run("run", "--full-refresh", "--select", "stg_scenes", "reds", cleans=False) != 0
    built = "collection a_table built: 1 records, 1 headers read, 0 files not readable\n"
    assert built in project.output
    rows = project.rows("SELECT id, red_metadata.image_width FROM a_table")
    assert rows == [(GONE, 512)]
    expected = "s2: meta: rasteret: expected arguments of rasteret_build_stac (allow_local, "
    assert expected in project.output
    assert "got 'band'; fix it" in project.output
    assert "Traceback" not in project.output


@pytest.mark.any_duckdb
def test_the_project_of_the_page(tmp_path, environment, forked):
    project = tmp_path / "farm"
    environment = with_dbt(tmp_path / "bin", environment, forked) | {"HOME": str(tmp_path)}
    wrong = block("dbt.md", "-- models/wrong.sql")
    files = [text for text in blocks("dbt.md") if DBT_FILE.match(text) and text != wrong]
    # two files may stand one below the other
    for text in (part for both in files for part in re.split(r"\n\n(?=(?:--|#) models/)", both)):
        path = project / DBT_FILE.match(text)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    output = run(block("dbt.md", "rasteret-sql demo --folder ."), project, environment)
    assert re.search(r"WARN=0 ERROR=0 SKIP=0", output)
    told = re.search(r"`(collection s2 built: [^`]*)`", page_text("dbt.md"))[1]
    assert told in output
    with duckdb.connect(str(project / "farm.duckdb"), read_only=True) as con:
        con.execute(f"SET file_search_path = '{project}'")
        counts = "SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM {})"
        tables = counts.format("parcel_scenes", "parcel_ndvi")
        assert con.execute(tables).fetchall() == [(8, 2)]
        tables = counts.format("training_samples", "clear_scenes")
        assert con.execute(tables).fetchall() == [(1, 4)]
        index = con.execute("SELECT ndvi FROM parcel_ndvi ORDER BY day").fetchall()
    assert [row[0] for row in index] == pytest.approx([0.2, 0.7], abs=0.03)
    with rasteret_sql.connect(workspace=project / "imagery") as con:
        direct = "SELECT avg(rasteret_ndvi(B04, B08)) FROM rasteret_pixels('s2', ids := [$1], "
        direct += "bbox := [77.984, 13.004, 77.99, 13.01]) WHERE row // 32 = $2 AND col // 32 = $3"
        file = str(project / "ndvi_by_block.parquet")
        found = con.execute("SELECT * FROM read_parquet($1) ORDER BY ALL", [file]).fetchall()
        assert len(found) == 18
        *keys, mean = found[4]
        assert con.execute(direct, keys).fetchone() == (pytest.approx(mean),)
    (project / "models" / "wrong.sql").write_text(wrong)
    with pytest.raises(AssertionError) as failed:
        run("dbt --no-use-colors run --select wrong", project, environment)
    for line in block("dbt.md", "Runtime Error").splitlines():
        assert line.strip() in str(failed.value)


def test_every_block_of_dbt_md_is_known():
    known = ("pip install 'rasteret_sql[dbt]'", "export ", "duckdb fields", "rasteret-sql demo ")
    for text in blocks("dbt.md"):
        assert DBT_FILE.match(text) or text.startswith((*known, "Runtime Error")), text
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"^dbt = \[.*dbt-duckdb", extras, re.MULTILINE)
