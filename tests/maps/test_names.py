"""Collections by qualified and quoted names, and beside a database file."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

import duckdb
import pytest
from maps.conftest import TOKEN, Client, tile_at
from processes import heeding_ctrl_c

import rasteret_sql
from rasteret_sql.duck.attached import attach_read_only
from rasteret_sql.maps import serving

SCENE = "S2A_43PHQ_20240110_L2A"
PLACE = (77.99, 13.01)
ODD = '"odd lake"."a.b/c?d=é""{z}"'
SQUARE = [[77.985, 13.005], [77.992, 13.004], [77.991, 13.012], [77.985, 13.005]]


@pytest.fixture(scope="module")
def database(tmp_path_factory, workspace):
    """A file with a view of the collection, and tables in schemas of their own."""
    path = tmp_path_factory.mktemp("file") / "farm.duckdb"
    with rasteret_sql.connect(path, workspace=workspace) as con:
        con.execute('CREATE SCHEMA lake; CREATE SCHEMA "odd lake"')
        con.execute("CREATE TABLE lake.scenes AS FROM s2 WHERE id LIKE '%43PHQ%'")
        con.execute(f"CREATE TABLE {ODD} AS FROM lake.scenes; CREATE TABLE lake.secret AS FROM s2")
        con.execute("CREATE VIEW lake.clear AS FROM lake.scenes; CREATE TABLE plain AS SELECT 1 id")
    return path


@contextmanager
def shown(database, workspace, *names):
    """A client of a server that has the file attached."""
    con = rasteret_sql.connect(workspace=workspace)
    attach_read_only(con, database)
    with serving(con, names, tokens=[TOKEN]) as server:
        yield Client(server, con)
    con.close()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("farm.lake.scenes", "farm.lake.scenes"),
        ('farm."lake".scenes', "farm.lake.scenes"),
        (f"farm.{ODD}", 'farm.odd lake.a.b/c?d=é"{z}'),
    ],
)
def test_a_qualified_name_is_served_at_every_address(database, workspace, given, name):
    tile, _ = tile_at(*PLACE, 14)
    day = {"date": "2024-01-10", "bands": "B08"}
    with shown(database, workspace, given) as client:
        assert client("/api/collections").json == {"collections": [name]}
        part = quote(name, safe="")
        base = f"/api/collections/{part}"
        assert client(base).json["records"] == 3
        assert client(f"{base}/scenes").json["total"] == 3
        assert client(f"{base}/scenes/{SCENE}").json["id"] == SCENE
        assert client(f"/tiles/{part}/{tile}.png", **day).image[..., 3].any()
        sql = client(f"/tiles/{part}/{tile}.sql", **day).json["sql"]
        assert client.con.sql(sql).fetchall()
        assert client(f"/pictures/{part}/{SCENE}.png", bands="B08").image.any()
        lon, lat = PLACE
        assert len(client(f"{base}/point", lon=lon, lat=lat, **day).json["rows"]) == 1
        body = json.dumps({"type": "Polygon", "coordinates": [SQUARE]}).encode()
        assert len(client(f"{base}/zone", "POST", body=body, **day).json["rows"]) == 1
        box = "77.96,12.99,78.04,13.04"
        assert client(f"{base}/stretch", bbox=box, **day).json["rescale"]
        where = {"where": f"id <> '{SCENE}'"}
        assert client(f"{base}/point", lon=lon, lat=lat, bands="B08", **where).json["rows"]


@pytest.fixture(scope="module")
def one_name(database, workspace):
    with shown(database, workspace, "farm.lake.scenes") as client:
        yield client


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "other",
    ["farm.lake.secret", "lake.secret", "secret", 'farm"."lake', "lake.scenes", "s2", "farm/lake"],
)
def test_what_was_not_named_is_not_served(one_name, other):
    tile, _ = tile_at(*PLACE, 14)
    part = quote(other, safe="")
    paths = [f"/api/collections/{part}", f"/api/collections/{part}/scenes/{SCENE}"]
    for path in (*paths, f"/tiles/{part}/{tile}.png", f"/pictures/{part}/{SCENE}.png"):
        answer = one_name(path)
        assert answer.status == 404
        assert "expected one of farm.lake.scenes" in answer.json["error"]


def test_without_names_tables_of_an_attached_database_are_shown_too(database, workspace):
    con = rasteret_sql.connect(workspace=workspace)
    with serving(con, tokens=[TOKEN], database=attach_read_only(con, database)) as server:
        found = Client(server, con)("/api/collections").json["collections"]
    con.close()
    lake = [f"farm.lake.{name}" for name in ("clear", "scenes", "secret")]
    assert found == ["s2", *lake, 'farm.odd lake.a.b/c?d=é"{z}']


@contextmanager
def started(*arguments):
    """The address of the command, and what it wrote to stderr."""
    process = subprocess.Popen(
        heeding_ctrl_c("-m", "rasteret_sql", "map", *arguments, "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield urlsplit(process.stdout.readline().strip()), process
    process.terminate()
    process.communicate(timeout=30)


def fetched(address, path):
    url = f"http://{address.netloc}{path}?{address.query}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.any_duckdb
def test_what_may_be_named_beside_a_file(workspace, database, scenes):
    named = {
        f"{scenes}/S2A_43PHQ_20240310_L2A/*.tif": ("files", 3),
        "s2": ("s2", 6),
        "lake.scenes": ("lake.scenes", 3),
        "farm.lake.clear": ("farm.lake.clear", 3),
        "SELECT * FROM lake.scenes WHERE datetime > '2024-02-01'": ("query", 2),
        "SELECT * FROM s2": ("query_2", 6),
    }
    options = "--database", str(database), "--workspace-dir", str(workspace)
    before = database.read_bytes()
    with started(*named, *options) as (address, _):
        found = fetched(address, "/api/collections")["collections"]
        assert sorted(found) == sorted(name for name, _ in named.values())
        for name, records in named.values():
            assert fetched(address, f"/api/collections/{name}")["records"] == records
    assert database.read_bytes() == before


def test_a_workspace_beside_a_file_that_knows_nothing_of_it(workspace, tmp_path):
    duckdb.connect(tmp_path / "empty.duckdb").close()
    options = "--database", str(tmp_path / "empty.duckdb"), "--workspace-dir", str(workspace)
    with started(*options) as (address, _):
        assert fetched(address, "/api/collections/s2/scenes")["total"] == 6


def test_a_table_of_the_file_comes_before_a_collection_of_its_name(workspace, tmp_path):
    path = tmp_path / "own.duckdb"
    with rasteret_sql.connect(workspace=workspace) as con:
        con.execute(f"ATTACH '{path}' AS own; CREATE TABLE own.s2 AS FROM s2 LIMIT 2; "
                    "CREATE VIEW own.gone AS FROM own.s2; DETACH own")  # fmt: skip
    with started("s2", "--database", str(path), "--workspace-dir", str(workspace)) as (address, _):
        assert fetched(address, "/api/collections/s2")["records"] == 2


def test_a_file_that_is_no_database_is_told(workspace, tmp_path):
    path = tmp_path / "text.duckdb"
    path.write_text("nothing of this kind" * 100)
    for given in (path, tmp_path / "none.duckdb"):
        with started("s2", "--database", str(given)) as (_, process):
            assert process.wait(30) != 0
            told = process.stderr.read()
            assert f"database: expected a DuckDB file, got '{given}'" in told
