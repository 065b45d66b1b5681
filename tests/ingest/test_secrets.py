"""Tokens planted everywhere; then every file, view and message is searched for them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rasteret_sql

PLANTED = "PLANTED"
PARAMETERS = [
    *("code", "password", "secret", "key", "api_key", "auth", "jwt", "bearer", "AccessToken"),
    *("access_token", "session_token", "sas_token", "edl_token", "x-api-key", "X-Amz-Signature"),
]


@pytest.fixture(autouse=True)
def own_storage(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def told(tmp_path):
    """A connection on a file of the user's, whatever it said, and all files in reach."""
    database = tmp_path / "user.duckdb"
    messages = []
    con = rasteret_sql.connect(database, workspace=tmp_path / "workspace")

    def run(query, parameters=None):
        try:
            found = con.execute(query, parameters).fetchall()
        except (duckdb.Error, RuntimeError) as error:
            messages.append(str(error))
            return None
        messages.append(repr(found))
        return found

    run.con = con
    run.messages = messages
    run.files = lambda: searched(tmp_path)
    yield run
    con.close()


def searched(folder: Path):
    """Every file below, as text: Parquet by value, so no encoding hides anything."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith("given"):
            continue
        data = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            data = repr((table.to_pylist(), table.schema.metadata)).encode() + data
        yield path, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def signed_forms(plain: str) -> list[str]:
    """The address with a token in each of the ways that were seen to be stored."""
    bare = plain.removeprefix("http://")
    sign = f"sig={PLANTED}"
    return [
        *(f"{plain}?v=1&{name}={PLANTED}" for name in PARAMETERS),
        f"http://user:{PLANTED}@{bare}",
        f"{plain}?v=1;signature={PLANTED}",
        f"{plain}?v=1&amp;signature={PLANTED}",
        f"{plain}?v=1?{sign}",
        f"{plain}?v=1#{sign}",
        f"//user:{PLANTED}@{bare}?{sign}",
        f"/vsicurl?url={quote(f'{plain}?{sign}', safe='')}",
        f"/vsicurl/http://user:{PLANTED}@{bare}?{sign}",
    ]


def assert_nothing_is_told(told):
    found = [path for path, data in told.files() if PLANTED.encode() in data]
    assert found == []
    views = told.con.execute("SELECT sql FROM duckdb_views() WHERE sql IS NOT NULL").fetchall()
    macros = told.con.execute("SELECT macro_definition FROM duckdb_functions()").fetchall()
    assert PLANTED not in repr(views) + repr(macros)
    assert [text for text in told.messages if PLANTED in text] == []


def test_no_token_of_items_is_stored_or_told(told, items, write_items, server):
    forms = signed_forms(server.url("scenes", f"built/{items['features'][0]['id']}/B04.tif"))
    first = items["features"][0]
    items["features"] = []
    for number, href in enumerate(forms):
        item = json.loads(json.dumps(first)) | {"id": f"i{number}"}
        item["assets"] = {"B04": first["assets"]["B04"] | {"href": href}}
        item["properties"] |= {
            "source_url": href,
            "provenance": {"from": [href], "text": f"fetched at http://h/a?sig={PLANTED} today"},
        }
        items["features"].append(item)
    path = write_items(items, "given.json")
    report = told(
        "FROM rasteret_build_stac('s2', stac_api := $p, url_rewrite := $m)",
        {"p": path, "m": {"http://other/": f"http://user:{PLANTED}@there/"}},
    )
    assert report[0][3] == len(forms)
    told("FROM rasteret_errors('s2')")
    told("SELECT * FROM rasteret_records('s2')")
    told("FROM rasteret_pixels('s2', on_error := 'error') LIMIT 5")
    told("FROM rasteret_validate('s2')")
    told("FROM rasteret_describe('s2')")
    told("FROM rasteret_refresh('s2')")
    gone = f"http://me:{PLANTED}@127.0.0.1:{server.port}/404/x.json?sig={PLANTED}"
    told("FROM rasteret_build_stac('gone', stac_api := $p)", {"p": gone})
    assert len(told.messages) == 8
    assert_nothing_is_told(told)


def test_no_token_of_a_table_is_stored_or_told(told, items, server, tmp_path):
    forms = signed_forms(server.url("scenes", f"built/{items['features'][0]['id']}/B04.tif"))
    table = pa.table(
        {
            "id": [f"r{i}" for i in range(len(forms))],
            "url": forms,
            "thumbnail": forms,
            "links": [[{"rel": "self", "href": href}] for href in forms],
            "about": [{"where": href, "n": 1} for href in forms],
            "more": [json.dumps({"at": href}) for href in forms],
            "size": list(range(len(forms))),
        }
    )
    path = tmp_path / "given.parquet"
    pq.write_table(table, path)
    query = "FROM rasteret_build_table('t', source := $p, href_column := 'url')"
    assert told(query, {"p": str(path)})[0][3] == len(forms)
    stored = told("SELECT size, about.n, links[1].rel, thumbnail FROM t ORDER BY size")
    assert [row[:3] for row in stored] == [(i, 1, "self") for i in range(len(forms))]
    assert stored[0][3].endswith("B04.tif?v=1")
    told("FROM rasteret_errors('t')")
    told("FROM rasteret_pixels('t', on_error := 'error') LIMIT 5")
    signed = f"regexp_replace(thumbnail, '.v=1', '?sig={PLANTED}') AS thumbnail"
    query = f"SELECT t.* REPLACE ({signed}) FROM t"
    exported = {"q": query, "p": str(tmp_path / "exported")}
    told("FROM rasteret_export($q, path := $p)", exported)
    assert told.messages[-1].startswith("[(")
    assert_nothing_is_told(told)


def test_a_view_over_a_signed_address_does_not_hold_the_signature(told, served_items, server):
    told("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": served_items()})
    target = server.folder / "exported.parquet"
    pq.write_table(told.con.sql("FROM s2").to_arrow_table(), target)
    origin = server.origin.removeprefix("http://")
    signed = f"http://user:{PLANTED}@{origin}/private/scenes/exported.parquet?sig=good&v=1"
    (row,) = told("FROM rasteret_load('far', path := $p)", {"p": signed})
    assert row[:2] == ("far", 6)
    (sql,) = told("SELECT sql FROM duckdb_views() WHERE view_name = 'far'")[0]
    assert "sig=" not in sql
    assert "v=1" in sql
    # this session asks with the signature that it was given
    assert told("SELECT count(*) FROM far") == [(6,)]
    assert told("SELECT count(*) FROM rasteret_records('far')") == [(6,)]
    told(
        "FROM rasteret_load('gone', path := $p)",
        {"p": signed.replace("exported", PLANTED[:0] + "no")},
    )
    assert "404" in told.messages[-1] or "moved" in told.messages[-1]
    told.con.execute("CHECKPOINT")
    assert_nothing_is_told(told)


def test_a_parameter_that_is_no_secret_is_kept_where_the_user_says_so(told, items, server):
    plain = server.url("scenes", f"built/{items['features'][0]['id']}/B04.tif")
    rasteret_sql.storage(told.con, server.origin, keep_query=["code"])
    told.con.execute(
        "CREATE TABLE mine AS SELECT 'a' AS id, $h AS url", {"h": f"{plain}?code=7&token={PLANTED}"}
    )
    assert told("FROM rasteret_build_table('t', source := 'mine', href_column := 'url')")
    assert told("SELECT assets.b1.href FROM t") == [(f"{plain}?code=7",)]


def test_keep_query_is_a_list_of_names(con):
    with pytest.raises(rasteret_sql.errors.InputError, match="keep_query"):
        rasteret_sql.storage(con, "https://host/", keep_query="code")
    with pytest.raises(rasteret_sql.errors.InputError, match="keep_query"):
        rasteret_sql.storage(con, "https://host/", keep_query=[1])
