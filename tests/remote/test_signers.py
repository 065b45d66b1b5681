"""Tokens: asked for late, once, again before they end, and never shown."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from servers.range_server import RangeServer
from storages import storage

from rasteret_sql.errors import AccessDeniedError, InputError, ReadError
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range, get_start, stat
from rasteret_sql.remote.signers import CachedSecret, ExpiringSecret
from rasteret_sql.remote.stores import locate

CONTENT = bytes(range(256)) * 400
BLOB = "https://acct.blob.core.windows.net/data/a.tif"
KEYS = "s3://data/a.tif"


def _token_requests(server: RangeServer) -> list[str]:
    return [r["path"] for r in server.requests() if "/tokens/" in r["path"]]


def _planetary_computer(server: RangeServer, fault: str = "tokens") -> None:
    storage(
        "https://acct.blob.core.windows.net/",
        signer="planetary_computer",
        token_url=f"{server.origin}/{fault}/v1/token",
        endpoint=f"{server.origin}/private",
        retries=0,
    )


def _earthdata(server: RangeServer, fault: str = "tokens") -> None:
    storage(
        "s3://data/",
        signer="earthdata",
        token_url=f"{server.origin}/{fault}/s3credentials",
        endpoint=f"{server.origin}/private",
        retries=0,
    )


Use = Callable[..., None]
SIGNERS = pytest.mark.parametrize(
    ("use", "href"), [(_planetary_computer, BLOB), (_earthdata, KEYS)], ids=["azure", "s3"]
)


def test_one_token_of_a_container_serves_all_lanes(server: RangeServer) -> None:
    _planetary_computer(server)
    data = list(lanes(16).map(lambda i: bytes(get_range(BLOB, i, 10)), range(64)))
    assert data == [CONTENT[i : i + 10] for i in range(64)]
    assert _token_requests(server) == ["/tokens/v1/token/acct/data"]
    read = [r["path"] for r in server.requests() if "/private/" in r["path"]]
    assert set(read) == {"/private/data/a.tif?sv=1&sr=c&sig=azure1"}


def test_the_keys_of_earthdata_sign_s3_requests(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", "bearer-secret")
    _earthdata(server)
    data = list(lanes(16).map(lambda i: bytes(get_range(KEYS, i, 10)), range(64)))
    assert data == [CONTENT[i : i + 10] for i in range(64)]
    assert _token_requests(server) == ["/tokens/s3credentials"]
    asked, *read = server.requests()
    assert asked["headers"]["authorization"] == "Bearer bearer-secret"
    assert "Credential=KEY1/" in read[0]["headers"]["authorization"]
    assert read[0]["headers"]["x-amz-security-token"] == "session"


@SIGNERS
def test_a_token_that_is_about_to_end_is_renewed(server: RangeServer, use: Use, href: str) -> None:
    server.set(token_ttl_s=30)
    use(server)
    get_range(href, 0, 4)
    get_range(href, 0, 4)
    assert len(_token_requests(server)) >= 2


def test_nothing_is_asked_before_a_byte_is_read(server: RangeServer) -> None:
    _planetary_computer(server)
    assert "sig" not in repr(locate(BLOB))
    assert server.requests() == []
    assert stat(BLOB)[0] == len(CONTENT)


def test_the_subscription_key_is_sent(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "my-key")
    _planetary_computer(server)
    get_start(BLOB, 4)
    assert server.requests()[0]["headers"]["ocp-apim-subscription-key"] == "my-key"


@SIGNERS
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("401", AccessDeniedError, "got HTTP 401; check the signer's key"),
        ("403", AccessDeniedError, "got HTTP 403; check the signer's key"),
        ("500", ReadError, "got HTTP 500"),
        ("html", ReadError, "got no JSON"),
        ("reset", ReadError, "got no answer"),
    ],
)
def test_a_token_service_that_fails_is_named(
    server: RangeServer,
    monkeypatch: pytest.MonkeyPatch,
    use: Use,
    href: str,
    fault: str,
    error: type[ReadError],
    words: str,
) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", "SECRET")
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "SECRET")
    use(server, fault)
    with pytest.raises(error, match=words) as caught:
        get_start(href)
    assert str(caught.value).startswith(f"{server.origin}/{fault}/")
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def test_a_function_of_the_user_signs_each_href_once(server: RangeServer) -> None:
    asked: list[str] = []

    def sign(href: str) -> str:
        asked.append(href)
        return f"{href}?sig=good"

    storage(server.origin, signer=sign)
    href = server.url("data", "a+b.tif", fault="private")
    got = list(lanes(8).map(lambda _: bytes(get_range(href, 0, 3)), range(40)))
    assert got == [b"a+b"] * 40
    assert asked == [href]
    assert "good" not in repr(locate(href))


def test_a_function_of_the_user_signs_anew_when_its_time_is_over(server: RangeServer) -> None:
    asked: list[str] = []

    def sign(href: str) -> tuple[str, datetime]:
        asked.append(href)
        return f"{href}?sig=good", datetime.now(UTC) + timedelta(seconds=30)

    storage(server.origin, signer=sign)
    href = server.url("data", "a.tif", fault="private")
    get_range(href, 0, 3)
    get_range(href, 0, 3)
    assert len(asked) >= 2


def test_a_function_of_the_user_that_fails_is_named() -> None:
    def sign(href: str) -> str:
        raise ValueError(href)

    storage("https://a.org/", signer=sign)
    with pytest.raises(ReadError, match="expected a signed URL, got ValueError") as caught:
        get_start("https://a.org/a.tif?token=SECRET")
    assert "SECRET" not in str(caught.value)


def test_earthdata_without_its_service_says_what_to_give() -> None:
    storage("s3://data/", signer="earthdata")
    with pytest.raises(InputError, match="token_url"):
        get_start(KEYS)


def test_a_secret_is_not_shown_and_fetched_by_one_thread_only() -> None:
    made: list[int] = []

    def fetch() -> ExpiringSecret[str]:
        made.append(1)
        return ExpiringSecret("SECRET", datetime.now(UTC) + timedelta(hours=1))

    kept = CachedSecret(fetch)
    found = list(lanes(16).map(lambda _: kept.get(), range(64)))
    assert {dated.value for dated in found} == {"SECRET"}
    assert len(made) == 1
    assert "SECRET" not in repr(found[0])
