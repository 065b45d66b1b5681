"""What is a secret in an address is decided in one place."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_sql import errors
from rasteret_sql.secrets import is_secret, redact, without_secrets

NAMES = [
    *("code", "password", "secret", "key", "api_key", "apikey", "auth", "jwt", "bearer"),
    *("AccessToken", "access_token", "session_token", "sas_token", "edl_token", "x-api-key"),
    *("Signature", "sig", "X-Amz-Security-Token", "X-Goog-Signature", "credential", "PWD"),
    *("si%67", "%61uth", "to%256Ben", "sas", "subscription-key"),
]
FORMS = [
    "https://host/a.tif?{secret}",
    "https://host/a.tif?v=1&{secret}",
    "https://host/a.tif?{secret}&v=1",
    "https://host/a.tif?v=1;{secret}",
    "https://host/a.tif;{secret}",
    "https://host/a.tif&{secret}",
    "https://host/a.tif?v=1&amp;{secret}",
    "https://host/a.tif?v=1?{secret}",
    "https://host/a.tif#{secret}",
    "https://host/a.tif?v=1#{secret}",
    "s3://bucket/a.tif?{secret}",
    "//host/a.tif?{secret}",
    "B04.tif?{secret}",
    "/vsicurl/https://host/a.tif?{secret}",
    "/vsicurl?url=https://host/a.tif?{secret}",
    "/vsicurl?pc=no&url=https%3A%2F%2Fhost%2Fa.tif%3F{encoded}",
    "/vsicurl?url=https%253A%252F%252Fhost%252Fa.tif%253F{twice}",
    "https://proxy/https%3A%2F%2Fhost%2Fa.tif%3F{encoded}/tile",
]
USERS = [
    "https://user:PLANTED@host/a.tif",
    "https://PLANTED@host/a.tif",
    "https://user:PLAN@PLANTED@host/a.tif",
    "https://user:PLANTED/b@host/a.tif",
    "https://user:PLANTED?b@host/a.tif",
    "//user:PLANTED@host/a.tif",
    "user:PLANTED@host/a.tif",
    "/vsicurl/https://user:PLANTED@host/a.tif",
    "/vsicurl?url=https%3A%2F%2Fuser%3APLANTED%40host%2Fa.tif",
    "https://proxy/get/https://user:PLANTED@host/a.tif",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_is_named_as_a_secret_does_not_stay(name, form):
    secret = f"{name}=PLANTED/x%3D"
    encoded = quote(secret, safe="")
    href = form.format(secret=secret, encoded=encoded, twice=quote(encoded, safe=""))
    plain = without_secrets(href)
    assert "PLANTED" not in plain
    assert ".tif" in plain
    assert ("v=1" in plain) == ("v=1" in href)
    assert without_secrets(plain) == plain
    assert "PLANTED" not in redact(href)
    assert "PLANTED" not in str(errors.CollectionError(f"a: expected b, got '{href}'; do c"))


@pytest.mark.parametrize("href", USERS)
def test_user_and_password_never_stay(href):
    for found in (without_secrets(href), redact(href), redact(f"at {href}: HTTP 403")):
        assert "PLAN" not in found
        assert "user" not in found
        assert "host/a.tif" in found.replace("%2F", "/")


@pytest.mark.parametrize(
    "href",
    [
        "https://host:8080/@tiles/a@2x.tif?version=2&date=2024-01-01T00:00:00Z#page=1",
        "http://[::1]:9000/a@b.tif?x=%20a+b&y=",
        "https://host/a.tif?url=https%3a%2f%2fother%2fb.tif",  # as it is written
        "s3://bucket/a;b/c&d=1.tif",
        "C:/data/a@b/c.tif",
        "/data/year=2024/monkey=1/a.tif",
        "data/50%/a.tif",
    ],
)
def test_all_else_stays_as_it_is(href):
    assert without_secrets(href) == href


def test_what_the_user_wants_kept_stays():
    href = "https://user:pw@host/a.tif?Code=1&token=2&v=3"
    assert without_secrets(href, keep=["code"]) == "https://host/a.tif?Code=1&v=3"


@given(
    st.lists(st.tuples(st.sampled_from("?&;#"), st.sampled_from(["v=1", "w", "sig=S", "x=%2F"])))
)
def test_any_mix_of_separators_keeps_the_rest_in_order(parts):
    href = "https://host/a" + "".join(mark + part for mark, part in parts)
    plain = without_secrets(href)
    kept = [part for _, part in parts if part != "sig=S"]
    assert "sig" not in plain
    for part in kept:
        assert part in plain
    assert without_secrets(plain) == plain


def test_a_message_keeps_its_words():
    text = "https://host/a.tif: expected a name, e.g. 'a := 1'; is it 50% of me@home? (x/y)"
    assert errors.InputError(text).message == text
    assert [is_secret(name) for name in ("signature", "version")] == [True, False]
