"""Options by prefix: from a file, from calls, the longest prefix first."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasteret_sql.errors import InputError
from rasteret_sql.remote.config import Storage
from rasteret_sql.remote.stores import Stores


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "storage.toml"
    path.write_text(
        """
        ["s3://usgs-landsat/"]
        requester_pays = true
        region = "us-west-2"

        ["https://*.blob.core.windows.net/"]
        signer = "planetary_computer"

        ["https://data.example.org/"]
        headers = { Authorization = "Bearer ${EXAMPLE_TOKEN}" }
        timeout_s = 5
        """
    )
    return path


def test_the_file_is_read_with_variables_filled_in(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_TOKEN", "t0ken")
    found = Storage(file)
    options = found.options_for("https://data.example.org/a.tif")
    assert (options.headers, options.timeout_s) == ({"Authorization": "Bearer t0ken"}, 5)
    assert "t0ken" not in repr(options)
    assert found.options_for("s3://usgs-landsat/x/a.tif").requester_pays
    assert not found.options_for("s3://usgs-landsat-2/x/a.tif").requester_pays
    blob = found.options_for("https://naipeuwest.blob.core.windows.net/naip/a.tif")
    assert blob.signer == "planetary_computer"
    assert found.options_for("https://a.b/c.blob.core.windows.net/").signer is None


def test_a_variable_that_is_not_set_is_named(file: Path) -> None:
    with pytest.raises(InputError, match="expected the environment variable EXAMPLE_TOKEN"):
        Storage(file).options_for("s3://other/a.tif")


def test_the_longest_prefix_wins_and_calls_go_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "storage.toml"
    path.write_text('["s3://b/"]\nregion = "one"\n["s3://b/deep/"]\nregion = "two"')
    found = Storage(path)
    assert found.options_for("s3://b/deep/a.tif").region == "two"
    found.configure("s3://b/", {"region": "three"})
    assert found.options_for("s3://b/deep/a.tif").region == "two"
    assert found.options_for("s3://b/a.tif").region == "three"
    found.configure("s3://b/", {})
    assert found.options_for("s3://b/a.tif").region == "one"


def test_a_rewrite_replaces_what_the_prefix_stands_for() -> None:
    found = Storage()
    found.configure("https://*.usgs.gov/data/", {"url_rewrite": "s3://usgs-landsat/"})
    there = found.rewritten("https://landsatlook.usgs.gov/data/c02/a.TIF")
    assert there == "s3://usgs-landsat/c02/a.TIF"
    assert found.rewritten("https://a.org/data/x") == "https://a.org/data/x"


def test_the_environment_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('["https://a.org/"]\nurl_rewrite = "/data/"')
    monkeypatch.setenv("RASTERET_STORAGE", str(file))
    assert Stores().locate("https://a.org/x/a.tif").path == "/data/x/a.tif"
    monkeypatch.setenv("RASTERET_STORAGE", str(file) + ".none")
    with pytest.raises(InputError, match="RASTERET_STORAGE: expected a TOML file"):
        Stores().locate("https://a.org/x/a.tif")


def test_the_users_own_file_is_read_if_there_is_one(tmp_path: Path) -> None:
    assert Stores().locate("https://a.org/x/a.tif").store is not None
    own = tmp_path / ".config/rasteret_sql/storage.toml"  # HOME is tmp_path here
    own.parent.mkdir(parents=True)
    own.write_text('["https://a.org/"]\nurl_rewrite = "/data/"')
    assert Stores().locate("https://a.org/x/a.tif").store is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"requester_pay": True}, "expected one of endpoint, region.* got 'requester_pay'"),
        ({"requester_pays": "yes"}, "requester_pays: expected bool, got 'str'"),
        ({"timeout_s": True}, "timeout_s: expected int or float, got 'bool'"),
        ({"retries": 1.5}, "retries: expected int, got 'float'"),
        ({"headers": "x"}, "headers: expected Mapping, got 'str'"),
        ({"region": 5}, "region: expected str, got 'int'"),
        ({"signer": "nobody"}, "signer: expected planetary_computer or earthdata"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_named(
    options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Storage().configure("s3://b/", options)


@pytest.mark.parametrize("text", ["= broken", '"s3://b/" = 1', "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "storage.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"storage.toml: expected TOML|expected a table"):
        Storage(path).options_for("s3://b/a.tif")
