"""What errors tell to write works when it is written; what cannot work is not advised."""

from __future__ import annotations

import re

import duckdb
import pytest
from click.testing import CliRunner

import rasteret_sql
from rasteret_sql.cli import main
from rasteret_sql.errors import InputError, RasteretError

AREA = "POLYGON ((77.585 13.093, 77.59 13.093, 77.59 13.099, 77.585 13.093))"
ARGUMENTS = {
    "bands": ("bands := p", "['B04']"),
    "collection": ("bands := ['B04']", "'s2'"),
    "geometry": ("bands := ['B04'], geometry := p", f"'{AREA}'"),
    "bbox": ("bands := ['B04'], bbox := p", "[77.585, 13.093, 77.59, 13.099]"),
    "level": ("bands := ['B04'], level := p", "0"),
    "scaled": ("bands := ['B04'], scaled := p", "true"),
    "date_range": ("bands := ['B04'], date_range := p", "['2024-01-01', '2024-12-31']"),
    "max_bytes": ("bands := ['B04'], max_bytes := p", "1000000"),
}


@pytest.fixture
def con(workspace):
    con = rasteret_sql.connect(workspace=workspace)
    yield con
    con.close()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_parameter_of_a_macro_is_told_its_cast_and_works_with_it(con, name):
    given, value = ARGUMENTS[name]
    source = "p" if name == "collection" else "'s2'"
    macro = "CREATE MACRO px(p) AS TABLE SELECT count(*) AS n FROM rasteret_pixels({}, {})"
    with pytest.raises(duckdb.Error) as caught:
        con.execute(macro.format(source, given))
    found = re.search(
        rf"rasteret_pixels: {name}: expected a constant, got 'p, a parameter of the macro px, "
        r"without a type'; write (p::\S+)",
        str(caught.value),
    )
    cast = found[1]
    con.execute(macro.format(source.replace("p", cast), re.sub(r"\bp\b", cast, given)))
    plain = macro.split(" AS TABLE ")[1].format(
        source.replace("p", value), re.sub(r"\bp\b", lambda _: value, given)
    )
    assert con.execute(f"FROM px({value})").fetchall() == con.execute(plain).fetchall() != [(0,)]


def test_a_parameter_inside_a_list_works_as_it_is(con):
    con.execute("CREATE MACRO px(b) AS TABLE FROM rasteret_pixels('s2', bands := [b])")
    plain = "SELECT count(B08) FROM rasteret_pixels('s2', bands := ['B08'])"
    assert con.execute("SELECT count(B08) FROM px('B08')").fetchall() == (
        con.execute(plain).fetchall()
    )


@pytest.mark.parametrize(
    ("statement", "got"),
    [
        ("FROM f, rasteret_pixels('s2', geometry := f.geom)", "the column f.geom"),
        ("FROM rasteret_pixels('s2', geometry := (SELECT geom FROM f))", "a subquery"),
    ],
)
def test_a_column_as_an_argument_is_told_what_to_write(con, statement, got):
    con.execute(f"CREATE TABLE f AS SELECT '{AREA}' AS geom")
    with pytest.raises(InputError) as caught:
        rasteret_sql.sql(con, statement)
    assert caught.value.message == (
        f"arguments: expected constants, got {got}; for areas pass their table or query as aois, "
        "else SET VARIABLE v = (SELECT …) and getvariable('v')"
    )
    assert isinstance(caught.value.__cause__, duckdb.BinderException)
    counts = [
        con.execute(f"SELECT count(*) FROM rasteret_pixels('s2', {argument})").fetchall()
        for argument in ("aois := 'f'", "aois := 'SELECT geom FROM f'")
    ]
    con.execute("SET VARIABLE v = (SELECT geom FROM f)")
    query = "SELECT count(*) FROM rasteret_pixels('s2', geometry := getvariable('v'))"
    assert counts == [con.execute(query).fetchall()] * 2 != [[(0,)]] * 2


def test_errors_of_other_functions_of_duckdb_are_left_alone(con):
    with pytest.raises(duckdb.BinderException, match="cannot contain subqueries"):
        rasteret_sql.sql(con, "FROM read_csv((SELECT 'a.csv'))")


@pytest.mark.parametrize("name", ["geom", "f.geom", "public_fields.geometry"])
def test_the_name_of_a_column_as_geometry_names_aois(con, name):
    with pytest.raises(duckdb.Error, match="of a column, pass its table or query as aois"):
        con.execute(f"FROM rasteret_pixels('s2', geometry := {name})")


def test_a_feature_collection_is_the_union_of_its_polygons(con):
    def square(west):
        ring = [[west, 13.093], [west + 0.002, 13.093], [west + 0.002, 13.097], [west, 13.093]]
        text = {"type": "Polygon", "coordinates": [ring]}
        return f'{{"type": "Feature", "properties": {{}}, "geometry": {text}}}'.replace("'", '"')

    def count(text):
        query = "SELECT count(*) FROM rasteret_pixels('s2', bands := ['B04'], geometry := $1)"
        return con.execute(query, [text]).fetchall()[0][0]

    apart = [square(77.584), square(77.589)]
    both = f'{{"type": "FeatureCollection", "features": [{", ".join(apart)}]}}'
    assert count(both) == sum(map(count, apart)) > 0
    with pytest.raises(
        duckdb.Error, match="geometry: expected polygons, got a collection without any"
    ):
        count('{"type": "FeatureCollection", "features": []}')


def test_a_code_that_proj_does_not_know_is_no_fault_of_form(con):
    query = "FROM rasteret_pixels('s2', bbox := [1, 2, 3, 4], geometry_crs := $1)"
    with pytest.raises(duckdb.Error, match=r"got 'EPSG:99999'; PROJ [\d.]+ has no such code"):
        con.execute(query, ["EPSG:99999"])
    with pytest.raises(duckdb.Error, match="expected an EPSG code, 'EPSG:n'"):
        con.execute(query, ["zone 43"])


@pytest.mark.parametrize("call", ["rasteret_build_table('x', $1)", "rasteret_enrich($1)"])
def test_a_raster_as_source_is_told_how_a_table_of_files_is_written(con, workspace, call):
    path = next(iter(sorted(workspace.parent.glob("*_B04.tif"))))
    with pytest.raises(duckdb.Error) as caught:
        con.execute(f"FROM {call}", [str(path)])
    assert "source: expected a table with a row per file, got '" in str(caught.value)
    source, href_column = re.search(
        r"; source := \$\$(.*?)\$\$, (href_column := '\w+') makes one", str(caught.value)
    ).groups()
    rows = con.execute(
        f"FROM rasteret_enrich($1, {href_column}, bands := ['B04'])",
        [source.replace("…", str(path))],
    ).fetchall()
    assert len(rows) == 1


def test_the_command_line_explains_a_column_as_an_argument(workspace):
    sql = "FROM (SELECT 'x' AS geom) f, rasteret_pixels('s2', geometry := f.geom)"
    done = CliRunner().invoke(main, ["query", sql, "--workspace-dir", str(workspace)])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: arguments: expected constants, got the column f.geom")


def test_the_command_line_names_its_own_options(workspace, tmp_path):
    from rasteret_sql.demo import write_scenes

    items = str(write_scenes(tmp_path / "scenes"))
    place = ["--stac-api", items, "--workspace-dir", str(tmp_path / "workspace")]
    build = ["collections", "build", "s2", *place]
    assert CliRunner().invoke(main, build).exit_code == 0
    done = CliRunner().invoke(main, [*build, "--bands", "B04"])
    assert done.exit_code == 1
    assert re.search(r"; pass (--force) to replace it\n$", done.stderr)
    assert CliRunner().invoke(main, [*build, "--bands", "B04", "--force"]).exit_code == 0
    done = CliRunner().invoke(main, ["serve", "--host", "0.0.0.0"])
    assert done.exit_code == 1
    assert "allow_network (--allow-network) permits it" in done.stderr


@pytest.mark.parametrize(
    ("call", "got", "todo"),
    [
        ("rasteret_pixels('s2', band := ['B04'])", "band", "did you mean bands?"),
        ("rasteret_pixels('geom := 1', geom => 'POINT(1 (1')", "geom", "did you mean geometry?"),
        (
            "rasteret_composite('s2', \"bbox\" := [1], BANDS := ['B04'], methd := 'x'), f(a := 1)",
            "methd",
            "did you mean method?",
        ),
        ("rasteret_errors('s2', quux := 1)", "quux", "they are collection, workspace"),
    ],
)
def test_an_argument_that_a_function_does_not_have_is_named(con, call, got, todo):
    with pytest.raises(InputError) as caught:
        rasteret_sql.sql(con, f"FROM rasteret_plan('s2', bands := ['B04']), {call}")
    function = call.partition("(")[0]
    assert caught.value.message == f"{function}: expected one of its arguments, got {got!r}; {todo}"
    assert isinstance(caught.value.__cause__, duckdb.BinderException)


@pytest.mark.parametrize(
    ("statement", "function", "wanted"),
    [
        (
            "FROM rasteret_sample_points('s2')",
            "rasteret_sample_points",
            "(collection, points), others by name",
        ),
        ("SELECT rasteret_ndvi(1)", "rasteret_ndvi", "(red, nir)"),
    ],
)
def test_of_too_few_arguments_the_manual_is_advised(con, statement, function, wanted):
    with pytest.raises(InputError) as caught:
        rasteret_sql.sql(con, statement)
    told, _, manual = caught.value.message.partition("; see ")
    assert told == f"{function}: expected {wanted}, got other arguments"
    ((text,),) = con.execute(manual).fetchall()
    assert "example" in text


def test_a_name_with_a_colon_is_to_be_quoted(con):
    statement = "SELECT count(*) FROM s2 WHERE 'a:b' <> '' AND eo:cloud_cover < 101"
    with pytest.raises(InputError) as caught:
        rasteret_sql.sql(con, statement)
    wanted, quoted = re.search(r"got (\S+); write (\S+)$", caught.value.message).groups()
    assert wanted == "eo:cloud_cover"
    assert con.execute(statement.replace(wanted, quoted)).fetchall()[0][0] > 0
    with pytest.raises(duckdb.ParserException):
        rasteret_sql.sql(con, "SELECT 1 : FROM s2 WHERE x = 'a:b'")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            "rasteret_sample_points('SELECT 77.6 AS lon, 13 AS lat', 's2')",
            (
                "expected {band}_metadata columns, got 'lon, lat'; the first argument is the "
                "collection, areas and points come behind it"
            ),
        ),
        (
            "rasteret_zonal_stats('s2', 'areas', bbox := [77.585, 13.093, 77.59, 13.099])",
            "zones: expected one of zones, bbox and geometry, got 'zones and bbox'; leave one out",
        ),
        (
            "rasteret_read('s2', geometry := '" + AREA + "', aois := 'areas')",
            "aois: expected one of aois, bbox and geometry, got 'aois and geometry'",
        ),
        (
            "rasteret_errors('none')",
            "rasteret_errors: collection: expected a collection of ",
        ),
        (
            "rasteret_read('SELECT st_astext(1) AS g, * FROM s2')",
            "You might need to add explicit type casts. Candidate functions: st_astext(",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_told_so(con, call, told):
    with pytest.raises(RasteretError) as caught:
        rasteret_sql.sql(con, f"FROM {call}")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
