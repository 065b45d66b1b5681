"""Short-lived keys: asked for when the first byte is read, kept until just before they end.

Nothing signed is ever stored in a collection; hrefs stay as they were published.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rasteret_sql.errors import AccessDeniedError, InputError, ReadError, redact
from rasteret_sql.remote.config import SignHref, StorageOptions

if TYPE_CHECKING:
    from obstore.store import AzureSASToken, S3Credential

PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
_EARLY = timedelta(seconds=60)
_UNDATED = timedelta(seconds=60)
_TIMEOUT_S = 30

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ExpiringSecret(Generic[_T]):
    """A secret and when it ends."""

    value: _T = field(repr=False)
    expires_at: datetime


class CachedSecret(Generic[_T]):
    """What `fetch` gave, until a minute before it ends; one thread fetches, others wait.

    Args:
        fetch: asks for a new secret.
    """

    def __init__(self, fetch: Callable[[], ExpiringSecret[_T]]) -> None:
        self._fetch = fetch
        self._cached: ExpiringSecret[_T] | None = None
        self._lock = threading.Lock()

    def get(self) -> ExpiringSecret[_T]:
        """The secret, new if the kept one is about to end."""
        kept = self._cached
        if kept is not None and kept.expires_at - _EARLY > datetime.now(UTC):
            return kept
        with self._lock:
            kept = self._cached
            if kept is None or kept.expires_at - _EARLY <= datetime.now(UTC):
                kept = self._cached = self._fetch()
            return kept


class PlanetaryComputerToken:
    """SAS token of one Azure container, as obstore's credential provider.

    Source:
        https://planetarycomputer.microsoft.com/docs/concepts/sas/ (token endpoint)
    """

    def __init__(self, account: str, container: str, options: StorageOptions) -> None:
        base = options.token_url or os.environ.get("PC_SDK_SAS_URL") or PLANETARY_COMPUTER
        self._url = f"{base.rstrip('/')}/{account}/{container}"
        self._cached = CachedSecret(self._fetch)

    def prepare(self) -> None:
        """Have a token; what fails here is told as it is."""
        self._cached.get()

    def __call__(self) -> AzureSASToken:
        """Hand the token to obstore."""
        kept = self._cached.get()
        return {"sas_token": kept.value, "expires_at": kept.expires_at}

    def _fetch(self) -> ExpiringSecret[str]:
        key = os.environ.get("PC_SDK_SUBSCRIPTION_KEY")
        answer = _ask(self._url, {"Ocp-Apim-Subscription-Key": key} if key else {})
        return ExpiringSecret(
            _text(self._url, answer, "token"), _time(self._url, answer, "msft:expiry")
        )


class EarthdataCredentials:
    """Temporary S3 keys of a NASA archive, as obstore's credential provider.

    Asks ``token_url`` (the archive's ``/s3credentials``) with the bearer token of
    ``EARTHDATA_TOKEN``. The keys work inside us-west-2 only.

    Source:
        https://nasa-openscapes.github.io/earthdata-cloud-cookbook (S3 credentials endpoints)
    """

    def __init__(self, options: StorageOptions) -> None:
        if not options.token_url:
            todo = "give the archive's https://.../s3credentials"
            raise InputError.expected("storage token_url", "a URL for earthdata", "none", todo)
        self._url = options.token_url
        self._cached = CachedSecret(self._fetch)

    def prepare(self) -> None:
        """Have keys; what fails here is told as it is."""
        self._cached.get()

    def __call__(self) -> S3Credential:
        """Hand the keys to obstore."""
        kept = self._cached.get()
        key, secret, token = kept.value
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": kept.expires_at,
        }

    def _fetch(self) -> ExpiringSecret[tuple[str, str, str]]:
        token = os.environ.get("EARTHDATA_TOKEN")
        answer = _ask(self._url, {"Authorization": f"Bearer {token}"} if token else {})
        names = ("accessKeyId", "secretAccessKey", "sessionToken")
        key, secret, session = (_text(self._url, answer, name) for name in names)
        return ExpiringSecret((key, secret, session), _time(self._url, answer, "expiration"))


class SignedHref:
    """One href as the user's own function signs it, anew before the signature ends."""

    def __init__(self, href: str, sign: SignHref) -> None:
        self._href = href
        self._sign = sign
        self._cached = CachedSecret(self._fetch)

    def __call__(self) -> str:
        """The signed URL; never shown, never stored."""
        return self._cached.get().value

    def _fetch(self) -> ExpiringSecret[str]:
        try:
            signed = self._sign(self._href)
        except Exception as error:
            kind = type(error).__name__
            raise ReadError(
                f"{redact(self._href)}: expected a signed URL, got {kind}; see the signer"
            ) from error
        if isinstance(signed, str):
            # without a date it is trusted for a minute
            return ExpiringSecret(signed, datetime.now(UTC) + _EARLY + _UNDATED)
        url, expires_at = signed
        return ExpiringSecret(url, expires_at.replace(tzinfo=expires_at.tzinfo or UTC))


def _ask(url: str, headers: dict[str, str]) -> dict[str, Any]:
    subject = f"{redact(url)}: expected a token"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the user's own setting
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        kind = AccessDeniedError if error.code in {401, 403} else ReadError
        todo = "check the signer's key or token in the environment"
        raise kind(f"{subject}, got HTTP {error.code}; {todo}") from None
    except OSError:
        raise ReadError(f"{subject}, got no answer; check token_url and the network") from None
    except ValueError:
        raise ReadError(f"{subject}, got no JSON; check token_url") from None
    if not isinstance(found, dict):
        raise ReadError(f"{subject}, got JSON of another form; check token_url")
    return found


def _text(url: str, answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise ReadError(f"{redact(url)}: expected {name}, got none; check token_url")
    return value


def _time(url: str, answer: dict[str, Any], name: str) -> datetime:
    text = _text(url, answer, name)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ReadError(
            f"{redact(url)}: expected a time in {name}, got another text; check token_url"
        ) from None
    return found.replace(tzinfo=found.tzinfo or UTC)
