"""What a text that names a relation may and may not find."""

from __future__ import annotations

import duckdb
import pytest

import rasteret_sql

OWN_VARIABLES = ("text", "name", "call", "source", "cursor", "relation", "found", "argument")
"""Names of variables of the package, where a replacement scan of DuckDB's would look."""


@pytest.fixture
def s2(rows, scenes):
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(scenes / "items.json")})


@pytest.fixture(scope="module")
def ask(scenes, tmp_path_factory):
    """Ask a connection with the collection s2, where no variable of a test is seen."""
    with rasteret_sql.connect(workspace=tmp_path_factory.mktemp("workspace")) as con:
        items = str(scenes / "items.json")
        con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [items]).fetchall()
        yield lambda query, **given: con.execute(query, given).fetchall()


@pytest.mark.parametrize("unknown", OWN_VARIABLES)
def test_variables_of_the_package_are_no_relations(ask, unknown):
    for query, argument in (
        ("rasteret_describe($n)", "collection"),
        ("rasteret_pixels($n)", "collection"),
        ("rasteret_pixels('s2', aois := $n)", unknown),
        ("rasteret_build_table('t', $n)", unknown),
        ("rasteret_enrich($n, bands := ['B04'])", unknown),
    ):
        with pytest.raises(duckdb.Error, match=rf"(?s){argument}.*(exist|expected a collection)"):
            ask(f"SELECT * FROM {query}", n=unknown)


def test_a_folder_without_parquet_hides_no_relation_of_its_name(rows, s2, tmp_path, monkeypatch):
    (tmp_path / "here/meadows").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(duckdb.Error, match="Table with name meadows does not exist"):
        rows("FROM rasteret_build_table('t', 'meadows')")
    rows("CREATE TEMP TABLE meadows AS FROM s2")
    assert rows("SELECT records FROM rasteret_build_table('t', 'meadows')") == [(6,)]
    query = (
        "SELECT count(DISTINCT id) FROM rasteret_read('s2', aois := 'meadows', bands := ['B04'])"
    )
    assert rows(query) == [(6,)]


def test_columns_may_have_any_name(rows, s2):
    named = "1 AS s, 2 AS a, 3 AS k, 4 AS r, 5 AS o, 6 AS b"
    rows(f"CREATE TEMP TABLE areas AS SELECT geometry AS geom, {named} FROM s2 LIMIT 2")
    found = rows("SELECT DISTINCT a, s FROM rasteret_read('s2', bands := ['B04'], aois := 'areas')")
    assert found == [(2, 1)]
    rows(f"CREATE TEMP TABLE scenes AS SELECT id, datetime, geometry, assets, {named} FROM s2")
    assert rows("SELECT records FROM rasteret_build_table('t', 'scenes')") == [(6,)]
    assert rows("SELECT sum(s + a + k + r + o + b) FROM t") == [(6 * 21,)]
    for options in ("", ", bands := ['B04']"):
        query = (
            f"SELECT sum(s), sum(k), count(B04_metadata) FROM rasteret_enrich('scenes'{options})"
        )
        assert rows(query) == [(6, 18, 6)]


@pytest.mark.parametrize("name", ["scenes.geoparquet", "scenes.parq", "SCENES.GEOPARQUET"])
def test_a_local_file_is_parquet_by_any_of_its_endings(rows, s2, tmp_path, name):
    file = tmp_path / name
    rows(f"COPY (FROM s2) TO '{file}' (FORMAT parquet)")
    path = {"p": str(file)}
    assert rows("SELECT records FROM rasteret_describe($p)", path) == [(6,)]
    assert rows("SELECT records FROM rasteret_load('loaded', $p)", path) == [(6,)]
    assert rows("SELECT count(*) FROM loaded") == [(6,)]
    assert rows("SELECT records FROM rasteret_build_table('t', $p)", path) == [(6,)]
    query = "SELECT count(*) FROM rasteret_pixels($p, bands := ['B04'])"
    assert rows(query, path)[0][0] > 0
