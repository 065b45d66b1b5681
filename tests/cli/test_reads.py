"""`sample`, `zonal` and `preview` are what their functions give in SQL."""

from __future__ import annotations

import json
from pathlib import Path

import click
import duckdb
import pytest
from imagecodecs import png_decode
from pyproj import Transformer

import rasteret_sql
from rasteret_sql.cli import main
from rasteret_sql.duck.declarations import FUNCTIONS

POINTS = [("a", 77.99, 13.01, "2024-02-20"), ("b", 78.005, 13.012, "2024-02-20")]
WEST = [[77.985, 13.005], [77.992, 13.004], [77.991, 13.012], [77.985, 13.005]]
EAST = [[77.995, 13.014], [78.004, 13.014], [78.004, 13.022], [77.995, 13.014]]
FIELDS = {"west": [WEST], "east": [EAST]}
ID = "S2A_43PHQ_20240110_L2A"


def feature(name, shape, **more):
    return {"type": "Feature", "properties": {"name": name, **more}, "geometry": shape}


def wkt(rings):
    return f"POLYGON(({', '.join(f'{x} {y}' for x, y in rings[0])}))"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Points and fields in every form that the commands take."""
    folder = tmp_path_factory.mktemp("areas")
    points = [
        feature(name, {"type": "Point", "coordinates": [lon, lat]}, seen=seen)
        for name, lon, lat, seen in POINTS
    ]
    fields = [
        feature(name, {"type": "Polygon", "coordinates": rings}) for name, rings in FIELDS.items()
    ]
    for name, features in (("points", points), ("fields", fields)):
        document = {"type": "FeatureCollection", "features": features}
        (folder / f"{name}.geojson").write_text(json.dumps(document))
    with duckdb.connect() as con:
        con.execute("CREATE TABLE points (name VARCHAR, lon DOUBLE, lat DOUBLE, seen DATE)")
        con.executemany("INSERT INTO points VALUES (?, ?, ?, ?)", POINTS)
        con.execute("CREATE TABLE fields (name VARCHAR, geometry VARCHAR)")
        rows = [(name, wkt(rings)) for name, rings in FIELDS.items()]
        con.executemany("INSERT INTO fields VALUES (?, ?)", rows)
        for name in ("points", "fields"):
            con.execute(f"COPY {name} TO '{folder / name}.parquet'")
            con.execute(f"COPY {name} TO '{folder / name}.csv'")
    return folder


@pytest.fixture(scope="module")
def expected(built, files):
    """Rows of a statement, as the JSON output has them."""
    con = rasteret_sql.connect(workspace=built)
    con.execute(f"CREATE TABLE points AS FROM '{files}/points.parquet'")
    con.execute(f"CREATE TABLE fields AS FROM '{files}/fields.parquet'")

    def run(sql, columns):
        return sorted(con.sql(f"SELECT {columns} {sql}").fetchall())

    yield run
    con.close()


def rows_of(done, columns):
    assert done.exit_code == 0, done.output
    return sorted(tuple(row[one] for one in columns) for row in json.loads(done.stdout))


@pytest.mark.parametrize("form", ["csv", "geojson", "parquet", "SELECT"])
def test_sample_reads_points_of_every_form(command, built, files, expected, form):
    points = {"SELECT": f"SELECT * FROM '{files}/points.parquet'"}.get(
        form, files / f"points.{form}"
    )
    done = command(
        *("sample", "s2", points, "--bands", "B04,B08", "--workspace-dir", built),
        *("--format", "json"),
    )
    sql = "FROM rasteret_sample_points('s2', 'points', bands := ['B04', 'B08'])"
    wanted = expected(sql, "name, record_id, B04, B08")
    assert len(wanted) > len(POINTS)
    assert rows_of(done, ("name", "record_id", "B04", "B08")) == wanted


@pytest.mark.any_duckdb
def test_sample_passes_its_options_on(command, built, files, expected):
    done = command(
        *("sample", "s2", files / "points.geojson", "--bands", "B04", "--workspace-dir", built),
        *("--match", "latest", "--time-column", "seen", "--max-dt", "60 days"),
        *("--mask-band", "SCL", "--mask-values", "3,8,9,10", "--record-columns", "eo:cloud_cover"),
        *("--no-masked", "--scaled", "--format", "json"),
    )
    sql = (
        "FROM rasteret_sample_points('s2', 'points', bands := ['B04'], match := 'latest', "
        "time_column := 'seen', max_dt := INTERVAL '60 days', mask_band := 'SCL', "
        "mask_values := [3, 8, 9, 10], masked := false, scaled := true)"
    )
    wanted = expected(sql, "name, record_id, B04")
    assert [row[1][-12:-4] for row in wanted] == ["20240110", "20240110"]
    assert rows_of(done, ("name", "record_id", "B04")) == wanted
    assert "eo:cloud_cover" in json.loads(done.stdout)[0]


@pytest.mark.parametrize("form", ["csv", "geojson", "parquet"])
def test_zonal_reads_zones_of_every_form(command, built, files, expected, form):
    done = command(
        *("zonal", "s2", files / f"fields.{form}", "--bands", "B04", "--workspace-dir", built),
        *("--stats", "count,mean,p90", "--weights", "fraction", "--ids", ID, "--format", "json"),
    )
    sql = (
        "FROM rasteret_zonal_stats('s2', 'fields', bands := ['B04'], weights := 'fraction', "
        f"stats := ['count', 'mean', 'p90'], ids := ['{ID}'])"
    )
    wanted = expected(sql, "name, count, mean, p90")
    assert [row[0] for row in wanted] == ["east", "west"]
    assert rows_of(done, ("name", "count", "mean", "p90")) == wanted


@pytest.mark.any_duckdb
def test_zonal_without_zones_takes_the_box(command, built, expected):
    done = command(
        *("zonal", "s2", "--bbox", "77.985,13.0,77.99,13.01", "--bands", "B08"),
        *("--workspace-dir", built, "--format", "json"),
    )
    sql = (
        "FROM rasteret_zonal_stats('s2', NULL, bbox := [77.985, 13.0, 77.99, 13.01], "
        "bands := ['B08'])"
    )
    columns = ("id", "count", "mean", "min", "max", "stddev")
    wanted = expected(sql, ", ".join(columns))
    assert wanted
    assert rows_of(done, columns) == wanted


@pytest.mark.any_duckdb
@pytest.mark.parametrize("suffix", ["parquet", "csv", "json", "arrow"])
def test_rows_go_to_a_file_of_any_format(command, built, files, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    done = command(
        *("sample", "s2", files / "points.csv", "--bands", "B04", "--workspace-dir", built),
        *("--output", path),
    )
    assert (done.exit_code, done.output) == (0, "")
    assert path.stat().st_size > 100
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_table_of_a_database_is_read_and_the_file_left_alone(command, built, tmp_path):
    path = tmp_path / "farm.duckdb"
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE wells AS SELECT 'w' AS name, 77.99 AS lon, 13.01 AS lat")
    before = path.read_bytes()
    done = command(
        *("sample", "s2", "wells", "--bands", "B04", "--database", path),
        *("--workspace-dir", built, "--format", "csv"),
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("name,lon,lat,")
    assert path.read_bytes() == before


@pytest.mark.any_duckdb
def test_geojson_keeps_ids_missing_properties_and_its_crs(command, built, tmp_path):
    """UTM coordinates of the point a, named as GeoJSON did before 2016."""
    utm = Transformer.from_crs(4326, 32643, always_xy=True).transform(77.99, 13.01)
    document = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32643"}},
        "features": [
            {"id": 7, **feature("a", {"type": "Point", "coordinates": utm}, geometry="odd")},
            {"id": 8, **feature("b", {"type": "Point", "coordinates": utm}), "properties": None},
        ],
    }
    path = tmp_path / "wells.json"
    path.write_text(json.dumps(document))
    done = command(
        *("sample", "s2", path, "--bands", "B04", "--ids", ID, "--workspace-dir", built),
        *("--format", "json"),
    )
    rows = json.loads(done.stdout)
    assert [(row["name"], row["geometry_property"]) for row in rows] == [("a", "odd"), (None, None)]
    assert {row["id"] for row in rows} == {7, 8}
    assert {row["point_crs"] for row in rows} == {"EPSG:32643"}
    assert len({row["B04"] for row in rows}) == 1


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "points: expected a GeoJSON FeatureCollection, got "),
        ('{"type": "FeatureCollection"}', "points: expected a GeoJSON FeatureCollection, got "),
        ('{"type": "FeatureCollection", "features": []}', "points: expected GeoJSON features"),
        (None, "points: expected a file, got "),
    ],
)
def test_a_file_that_is_no_geojson_is_one_line(command, built, tmp_path, text, said):
    path = tmp_path / "wells.geojson"
    if text is not None:
        path.write_text(text)
    done = command("sample", "s2", path, "--workspace-dir", built)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-dt", "five"], "expected an interval as '5 days', got 'five'"),
        (["--mask-values", "a"], "expected numbers with commas between them, got 'a'"),
        (["--level", "-1"], "-1 is not in the range x>=0"),
        (["--output", "x.txt"], "expected a file that ends in .csv"),
    ],
)
def test_a_bad_option_is_wrong_usage(command, built, files, arguments, said):
    done = command("sample", "s2", files / "points.csv", "--workspace-dir", built, *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_errors_name_the_argument(command, built, files):
    done = command("zonal", "s2", files / "fields.csv", "--bands", "b4", "--workspace-dir", built)
    assert done.exit_code == 1
    assert "bands: expected one of B04, B08, SCL, got 'b4'" in done.stderr
    done = command("sample", "s2", files / "points.csv", "--match", "odd", "--workspace-dir", built)
    assert done.exit_code == 1
    assert "match: expected 'all', 'latest' or 'nearest', got 'odd'" in done.stderr


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("name", "function", "without"),
    [
        ("sample", "rasteret_sample_points", {"collection", "points"}),
        ("zonal", "rasteret_zonal_stats", {"collection", "zones"}),
        ("preview", "rasteret_preview", {"collection", "record_columns"}),
    ],
)
def test_every_parameter_is_an_option(name, function, without):
    options = {
        one.name
        for one in main.get_command(click.Context(main), name).params
        if isinstance(one, click.Option)
    }
    assert {one.name for one in FUNCTIONS[function].parameters} - without <= options


def test_preview_writes_the_pictures_of_the_function(command, built, tmp_path):
    folder = tmp_path / "pictures"
    done = command(
        *("preview", "s2", folder, "--bands", "B08,B04,B04", "--rescale", "0,4000"),
        *("--width", 64, "--workspace-dir", built, "--json"),
    )
    assert done.exit_code == 0, done.output
    listed = json.loads(done.stdout)
    con = rasteret_sql.connect(workspace=built)
    wanted = con.sql(
        "SELECT id, png FROM rasteret_preview('s2', bands := ['B08', 'B04', 'B04'], "
        "rescale := [0, 4000], width := 64)"
    ).fetchall()
    con.close()
    assert len(wanted) == 6
    assert {path.stem: path.read_bytes() for path in folder.iterdir()} == dict(wanted)
    assert {row["file"] for row in listed} == {str(folder / f"{id_}.png") for id_, _ in wanted}
    for row in listed:
        picture = png_decode(Path(row["file"]).read_bytes())
        assert picture.shape == (row["height"], row["width"], 4)


@pytest.mark.any_duckdb
def test_preview_takes_colours_of_classes(command, built, tmp_path):
    done = command(
        *("preview", "s2", tmp_path, "--bands", "SCL", "--colormap", "4=#00a000,9=#ffffff"),
        *("--ids", ID, "--width", 32, "--workspace-dir", built),
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].split() == [ID, "32", "32", str(tmp_path / f"{ID}.png")]
    pixels = png_decode((tmp_path / f"{ID}.png").read_bytes())
    colours = {tuple(map(int, pixel)) for pixel in pixels.reshape(-1, 4) if pixel[3]}
    assert colours <= {(0, 160, 0, 255), (255, 255, 255, 255)}
    assert colours


@pytest.mark.any_duckdb
def test_preview_of_what_can_not_be_read_fails_or_tells(command, built, tmp_path):
    lost = "SELECT * REPLACE ('gone-' || id AS id) FROM s2 LIMIT 1"
    done = command("preview", lost, tmp_path, "--bands", "B99", "--workspace-dir", built)
    assert done.exit_code == 1
    assert "bands: expected one of" in done.stderr
    none = ("--ids", "nobody")
    done = command("preview", "s2", tmp_path, "--bands", "B04", *none, "--workspace-dir", built)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no records" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.any_duckdb
def test_advice_is_of_options(command, built, tmp_path):
    """The functions advise arguments of SQL."""
    some = "CASE WHEN id LIKE '%43PHQ%' THEN B04_metadata END"
    collection = f"SELECT * REPLACE ({some} AS B04_metadata) FROM s2"
    given = ("preview", collection, tmp_path / "pictures", "--bands", "B04")
    done = command(*given, "--workspace-dir", built)
    assert done.exit_code == 1
    assert "pass --on-error null" in done.stderr
    assert ":=" not in done.stderr
    followed = command(*given, "--workspace-dir", built, "--on-error", "null", "--json")
    written = {row["id"]: row["file"] is not None for row in json.loads(followed.stdout)}
    assert len(written) == 6
    assert all(there == ("43PHQ" in id_) for id_, there in written.items())
