"""Buckets: what names them, whose keys are used, and real emulators of the three clouds."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.emulators import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    AzureEmulator,
    GoogleEmulator,
    S3Emulator,
    missing,
)
from servers.range_server import RangeServer
from storages import storage

from rasteret_sql.errors import AccessDeniedError, InputError, NotFoundError
from rasteret_sql.remote import clouds
from rasteret_sql.remote.clouds import Bucket, parse_object
from rasteret_sql.remote.exact import ExactUrl
from rasteret_sql.remote.ranges import get_range, get_start, stat
from rasteret_sql.remote.stores import Stores, locate

CONTENT = bytes(range(256)) * 400
ODD = "d/ä b+c#d?%2B.tif"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Emulator]:
    if reason := missing("s3"):
        pytest.skip(reason)
    with S3Emulator() as emulator:
        emulator.put("private", "a.tif", CONTENT)
        emulator.put("private", ODD, CONTENT)
        emulator.put("public", "a.tif", CONTENT, public=True)
        yield emulator


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureEmulator]:
    if reason := missing("az"):
        pytest.skip(reason)
    with AzureEmulator() as emulator:
        for name, public in (("private", False), ("public", True)):
            emulator.create(name, public=public)
            for key in ("a.tif", ODD):
                emulator.put(name, key, CONTENT)
        yield emulator


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleEmulator]:
    if reason := missing("gs"):
        pytest.skip(reason)
    with GoogleEmulator() as emulator:
        emulator.create("bucket")
        for key in ("a.tif", ODD):
            emulator.put("bucket", key, CONTENT)
        yield emulator


@pytest.mark.parametrize(
    ("href", "bucket", "key"),
    [
        ("s3://b/d/a%20b+.tif", Bucket("s3", "b"), "d/a%20b+.tif"),
        ("s3a://b/a.tif", Bucket("s3", "b"), "a.tif"),
        ("https://b.s3.amazonaws.com/d/a%20b.tif", Bucket("s3", "b"), "d/a b.tif"),
        ("https://b.c.s3.us-west-2.amazonaws.com/a.tif", Bucket("s3", "b.c", "us-west-2"), "a.tif"),
        ("https://b.s3-eu-west-1.amazonaws.com/a.tif", Bucket("s3", "b", "eu-west-1"), "a.tif"),
        (
            "https://b.s3.dualstack.us-gov-west-1.amazonaws.com/a.tif",
            Bucket("s3", "b", "us-gov-west-1"),
            "a.tif",
        ),
        ("https://s3.us-west-2.amazonaws.com/b/a.tif", Bucket("s3", "b", "us-west-2"), "a.tif"),
        ("https://s3.amazonaws.com/b/d/a%2Bb.tif", Bucket("s3", "b"), "d/a+b.tif"),
        ("gs://b/a.tif", Bucket("gs", "b"), "a.tif"),
        ("https://storage.googleapis.com/b_1/d/a.tif", Bucket("gs", "b_1"), "d/a.tif"),
        ("https://b.storage.googleapis.com/d/a.tif", Bucket("gs", "b"), "d/a.tif"),
        ("az://c/d/a.tif", Bucket("az", "c"), "d/a.tif"),
        ("abfs://c@acct.dfs.core.windows.net/a.tif", Bucket("az", "c", account="acct"), "a.tif"),
        ("https://acct.blob.core.windows.net/c/a.tif", Bucket("az", "c", account="acct"), "a.tif"),
        ("HTTPS://ACCT.blob.core.windows.net/c/a.tif", Bucket("az", "c", account="acct"), "a.tif"),
    ],
)
def test_an_object_is_known_by_all_its_names(href: str, bucket: Bucket, key: str) -> None:
    assert parse_object(href) == (bucket, key)


@pytest.mark.parametrize(
    "href",
    [
        "https://example.org/b/a.tif",
        "https://b.s3.amazonaws.com.evil.org/a.tif",
        "https://b.s3-accelerate.amazonaws.com/a.tif",
        "https://b.s3.us-west-2.amazonaws.com/a.tif?X-Amz-Signature=1",
        "https://b.s3.us-west-2.amazonaws.com:8443/a.tif",
        "https://acct.blob.core.windows.net/c/a.tif?sig=1",
        "ftp://b/a.tif",
    ],
)
def test_other_urls_are_no_objects(href: str) -> None:
    assert parse_object(href) is None


def test_options_of_a_bucket_fit_its_https_form_too() -> None:
    storage("s3://b/", region="eu-west-1", endpoint="http://127.0.0.1:9")
    store = locate("https://b.s3.us-west-2.amazonaws.com/a.tif").store
    assert store.config["region"] == "eu-west-1"  # type: ignore[union-attr]


def test_a_public_bucket_is_read_by_nobody(s3: S3Emulator) -> None:
    storage("s3://", endpoint=s3.origin)
    assert bytes(get_range("s3://public/a.tif", 1000, 50)) == CONTENT[1000:1050]
    start = get_start("https://public.s3.amazonaws.com/a.tif", 64)
    assert (start.data, start.size) == (CONTENT[:64], len(CONTENT))
    assert stat("s3://public/a.tif") == (start.size, start.etag)


@pytest.mark.parametrize("key", ["a.tif", ODD])
def test_a_private_bucket_is_read_with_the_environments_keys(
    s3: S3Emulator, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage("s3://", endpoint=s3.origin)
    with pytest.raises(AccessDeniedError, match="HTTP 403; give credentials with rasteret"):
        get_range(f"s3://private/{key}", 0, 4)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    assert bytes(get_range(f"s3://private/{key}", 1000, 50)) == CONTENT[1000:1050]
    assert get_start(f"s3://private/{key}").size == len(CONTENT)
    with pytest.raises(NotFoundError, match="HTTP 404; the file may have moved"):
        get_start("s3://private/none.tif")


def test_a_private_bucket_is_read_with_the_keys_of_a_profile(
    s3: S3Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[sat]\naws_access_key_id=any\naws_secret_access_key=any\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "sat")
    storage("s3://", endpoint=s3.origin)
    assert stat("s3://private/a.tif")[0] == len(CONTENT)


def test_wrong_keys_are_refused_without_being_shown(s3: S3Emulator) -> None:
    with s3.checked() as (key, secret):
        wrong = [
            {"access_key_id": "WRONGKEY", "secret_access_key": "WRONGSECRET"},
            {"access_key_id": key, "secret_access_key": "WRONGSECRET"},
        ]
        for keys in wrong:
            storage("s3://", endpoint=s3.origin, credentials=keys)
            with pytest.raises(AccessDeniedError, match="got HTTP 403; give cred") as caught:
                get_start("s3://private/a.tif")
            trace = "".join(traceback.format_exception(caught.value))
            assert "WRONG" not in trace
            assert key not in trace
        right = {"access_key_id": key, "secret_access_key": secret}
        storage("s3://", endpoint=s3.origin, credentials=right)
        assert get_start("s3://private/a.tif").size == len(CONTENT)


def test_the_region_of_a_bucket_is_found(s3: S3Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "_S3_ORIGIN", s3.origin)
    monkeypatch.setattr(clouds, "_regions", {})
    store = locate("s3://public/a.tif").store
    assert store.config["region"] == "eu-west-1"  # type: ignore[union-attr]
    assert clouds._regions == {"public": "eu-west-1"}


def test_a_region_that_can_not_be_found_is_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clouds, "_S3_ORIGIN", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    store = locate("s3://nowhere/a.tif").store
    assert store.config["region"] == "ap-south-1"  # type: ignore[union-attr]


def test_the_requester_pays_if_told_to(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    storage("s3://data/", endpoint=server.origin, requester_pays=True)
    assert bytes(get_range("s3://data/a.tif", 0, 4)) == CONTENT[:4]
    (request,) = server.requests()
    assert request["path"] == "/data/a.tif"
    assert request["headers"]["x-amz-request-payer"] == "requester"
    assert "Credential=KEY/" in request["headers"]["authorization"]


@pytest.mark.parametrize("cloud", ["s3", "gs"])
def test_who_is_refused_asks_again_with_keys_and_signs_from_then_on(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch, cloud: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "TOKEN")
    storage(f"{cloud}://data/", endpoint=f"{server.origin}/private")
    for _ in range(2):
        assert bytes(get_range(f"{cloud}://data/a.tif", 0, 4)) == CONTENT[:4]
    assert [r["status"] for r in server.requests()] == [403, 206, 206]


def test_stale_keys_do_not_spoil_a_public_bucket(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "STALE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "STALE")
    storage("s3://403/", endpoint=server.origin)  # each of its objects is refused to everybody
    for _ in range(2):
        with pytest.raises(AccessDeniedError, match="S3 also refuses what is not there"):
            get_range("s3://403/missing.tif", 0, 4)
    assert ["authorization" in r["headers"] for r in server.requests()] == [False, True] * 2


def test_anonymous_is_never_signed(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    storage("s3://data/", endpoint=f"{server.origin}/private", anonymous=True)
    with pytest.raises(AccessDeniedError):
        get_range("s3://data/a.tif", 0, 4)
    assert [r["status"] for r in server.requests()] == [403]


@pytest.mark.parametrize("key", ["a.tif", ODD])
def test_azure_containers_are_read_by_those_who_may(azure: AzureEmulator, key: str) -> None:
    storage("az://", account=AZURE_ACCOUNT, endpoint=azure.endpoint)
    start = get_start(f"az://public/{key}", 64)
    assert (start.data, start.size) == (CONTENT[:64], len(CONTENT))
    with pytest.raises(AccessDeniedError, match="HTTP 403; give cred"):
        get_start(f"az://private/{key}")
    storage(
        "az://private/",
        account=AZURE_ACCOUNT,
        endpoint=azure.endpoint,
        credentials={"account_key": AZURE_KEY},
    )
    assert bytes(get_range(f"az://private/{key}", 1000, 50)) == CONTENT[1000:1050]
    with pytest.raises(NotFoundError):
        get_start("az://private/none.tif")


def test_azure_keys_come_from_the_environment(
    azure: AzureEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    href = f"https://{AZURE_ACCOUNT}.blob.core.windows.net/private/a.tif"
    storage("https://", endpoint=azure.endpoint)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)
    assert stat(href)[0] == len(CONTENT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "V1JPTkdTRUNSRVQ=")
    with Stores().in_use():
        storage("https://", endpoint=azure.endpoint)
        with pytest.raises(AccessDeniedError) as caught:
            stat(href)
    assert "V1JPTkdTRUNSRVQ" not in "".join(traceback.format_exception(caught.value))


def test_a_key_for_another_azure_account_is_not_used(
    azure: AzureEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "another")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "V1JPTkdTRUNSRVQ=")
    storage("https://", endpoint=azure.endpoint)
    href = f"https://{AZURE_ACCOUNT}.blob.core.windows.net/public/a.tif"
    assert stat(href)[0] == len(CONTENT)


def test_azure_without_an_account_says_what_to_set() -> None:
    with pytest.raises(InputError, match="set account with storage"):
        locate("az://container/a.tif")


@pytest.mark.parametrize("key", ["a.tif", ODD])
def test_google_buckets_are_read(google: GoogleEmulator, key: str) -> None:
    storage("gs://", endpoint=google.origin)
    start = get_start(f"gs://bucket/{key}", 64)
    assert (start.data, start.size) == (CONTENT[:64], len(CONTENT))
    assert bytes(get_range(f"gs://bucket/{key}", 1000, 50)) == CONTENT[1000:1050]
    assert stat(f"gs://bucket/{key}") == (start.size, start.etag)
    with pytest.raises(NotFoundError):
        get_start("gs://bucket/none.tif")


def test_an_option_that_the_store_does_not_know_is_named() -> None:
    storage("s3://b/", credentials={"acces_key": "SECRET"}, region="us-west-2")
    with pytest.raises(InputError, match="storage s3://b/: expected options") as caught:
        locate("s3://b/a.tif")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("key", ["/a.tif", "d//a.tif", "d/../a.tif", "d/", ""])
def test_a_key_that_obstore_can_not_say_is_refused(key: str) -> None:
    storage("s3://data/", region="us-west-2")
    with pytest.raises(InputError, match="use the https:// form"):
        locate(f"s3://data/{key}")
    # as a plain URL it can be said
    assert isinstance(locate(f"https://data.s3.amazonaws.com//{key}").store, ExactUrl)
