"""Data sets on the command line: list, info, build, register, unregister."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    path = tmp_path / "datasets.json"
    monkeypatch.setenv("RASTERET_DATASETS", str(path))
    monkeypatch.setenv("RASTERET_WORKSPACE", str(tmp_path / "workspace"))
    return path


@pytest.fixture
def registered(command, items):
    done = command(
        *("datasets", "register", "mine/s2", "--stac-api", items, "--name", "Fields"),
        *("--band-map", "red=B04,nir=B08", "--start-date", "2024-01-10", "--license", "CC0"),
    )
    assert (done.exit_code, done.stdout) == (0, "mine/s2: registered\n"), done.output


@pytest.mark.any_duckdb
def test_list_prints_text_and_json(command, registered):
    text = command("datasets", "list").stdout.splitlines()
    assert text[0].split() == ["id", "access", "source", "name", "description"]
    assert "mine/s2" in [line.split()[0] for line in text]
    rows = json.loads(command("datasets", "list", "--search", "nasadem", "--json").stdout)
    assert [(row["id"], row["access"], row["bands"]) for row in rows] == [
        ("pc/nasadem", "signed", ["DEM"])
    ]
    none = command("datasets", "list", "--search", "no such")
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "no data sets\n")


@pytest.mark.any_duckdb
def test_info_says_all_that_is_known(command, registered, items):
    row = json.loads(command("datasets", "info", "mine/s2", "--json").stdout)
    assert row == {
        "id": "mine/s2",
        "name": "Fields",
        "stac_api": str(items),
        "band_map": {"red": "B04", "nir": "B08"},
        "access": "open",
        "start_date": "2024-01-10",
        "license": "CC0",
        "source": "local",
    }
    text = command("datasets", "info", "earthsearch/landsat-c2-l2").stdout
    assert "url_rewrite       https://landsatlook.usgs.gov/data/=s3://usgs-landsat/\n" in text
    assert "access_prefixes   s3://usgs-landsat/\n" in text
    unknown = command("datasets", "info", "landsat-c2-l2")
    assert unknown.exit_code == 1
    assert "as earthsearch/landsat-c2-l2" in unknown.stderr


def test_build_makes_the_collection(command, registered):
    done = command("datasets", "build", "mine/s2", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["name"], report["records"], report["enriched"]) == ("mine_s2", 6, 12)
    part = command(
        *("datasets", "build", "mine/s2", "--name", "part", "--bands", "nir", "--max-items", 1),
        *("--bbox", "78.03,13.0,78.05,13.01", "--date-range", "2024-02-01/.."),
    )
    assert part.stdout.startswith("part: 1 records, nir, 1 of 1 headers, ")
    refused = command("datasets", "build", "mine/s2", "--bands", "nir")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: rasteret_build: name: expected a new name")
    assert command("datasets", "build", "mine/s2", "--bands", "nir", "--force").exit_code == 0


@pytest.mark.any_duckdb
def test_register_passes_every_option_on(command, own_file):
    done = command(
        *("datasets", "register", "mine/t", "--record-table", "https://a.org/t.parquet"),
        *("--description", "D", "--column-map", "fid=id", "--href-column", "path"),
        *("--band-index-map", "a=0,b=1", "--url-rewrite", "https://a.org/=s3://b/"),
        *("--access", "requester_pays", "--access-prefixes", "s3://b/,s3://c/"),
        *("--spatial-coverage", "there", "--start-date", "2020-01-02", "--end-date", "2021-01-02"),
        *("--license", "CC0", "--license-url", "https://a.org/l", "--json"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["end_date"] == "2021-01-02"
    assert json.loads(own_file.read_text()) == {
        "mine/t": {
            "description": "D",
            "record_table": "https://a.org/t.parquet",
            "column_map": {"fid": "id"},
            "href_column": "path",
            "band_index_map": {"a": 0, "b": 1},
            "url_rewrite": {"https://a.org/": "s3://b/"},
            "access": "requester_pays",
            "access_prefixes": ["s3://b/", "s3://c/"],
            "spatial_coverage": "there",
            "start_date": "2020-01-02",
            "end_date": "2021-01-02",
            "license": "CC0",
            "license_url": "https://a.org/l",
        }
    }


@pytest.mark.any_duckdb
def test_unregister_forgets_one_s_own_only(command, registered, own_file):
    done = command("datasets", "unregister", "mine/s2")
    assert (done.exit_code, done.stdout) == (0, "mine/s2: unregistered\n")
    assert json.loads(own_file.read_text()) == {}
    again = command("datasets", "unregister", "pc/nasadem")
    assert again.exit_code == 1
    assert again.stderr.startswith("error: rasteret_unregister_dataset: id: expected a data set")


@pytest.mark.any_duckdb
def test_a_malformed_data_set_is_one_line(command):
    done = command("datasets", "register", "mine/x")
    assert done.exit_code == 1
    assert done.stderr == (
        "error: rasteret_register_dataset: stac_api: expected stac_api or record_table, "
        "got 'neither'; give one\n"
    )
    assert command("datasets", "register", "x", "--access", "free").exit_code == 2
