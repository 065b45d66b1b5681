"""Objects in the three clouds: what an href names, and the obstore store that reads it."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import urllib3
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from rasteret_sql.errors import InputError
from rasteret_sql.remote.config import StorageOptions
from rasteret_sql.remote.signers import EarthdataCredentials, PlanetaryComputerToken

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3CredentialProvider

_N_IDLE = 512
_CONNECT_S = 5
_LONGEST_S = 300
_S3_ORIGIN = "https://s3.amazonaws.com"
_AZURE_DOMAIN = ".blob.core.windows.net"
_S3_HOST = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]*)\.)?s3"
    r"(?:[.-](?:dualstack\.)?(?P<region>[a-z]{2}(?:-[a-z]+)+-\d))?\.amazonaws\.com"
)
_GS_HOST = re.compile(r"(?:(?P<bucket>[a-z0-9][a-z0-9._-]*)\.)?storage\.googleapis\.com")
_AZURE_HOST = re.compile(r"(?P<account>[a-z0-9]{3,24})\.(?:blob|dfs)\.core\.windows\.net")
_S3_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_GS_ENVIRONMENT = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
)
_AZURE_ENVIRONMENT = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
)

_SIGNER_ENVIRONMENT = ("EARTHDATA_TOKEN", "PC_SDK_SUBSCRIPTION_KEY")
_AWS_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}

Cloud = Literal["s3", "gs", "az"]
Signer = EarthdataCredentials | PlanetaryComputerToken


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, or an Azure container.

    Attributes:
        region: of an S3 bucket, if its URL says.
        account: of an Azure container, if its URL says.
    """

    cloud: Cloud
    name: str
    region: str | None = None
    account: str | None = None

    @property
    def address(self) -> str:
        """The form in which prefixes of options can name it, too."""
        if self.cloud == "az" and self.account:
            return f"https://{self.account}{_AZURE_DOMAIN}/{self.name}/"
        return f"{self.cloud}://{self.name}/"


def parse_object(href: str) -> tuple[Bucket, str] | None:
    """Split an href into bucket and key; None if it is no object of a cloud.

    Keys in ``s3://``, ``gs://``, ``az://`` and ``abfs://`` stand as they are, as in the clouds'
    own tools; in ``https://`` they are percent-encoded. A query string makes it a plain URL.

    Example:
        >>> parse_object("https://b.s3.us-west-2.amazonaws.com/a%20b.tif")
        (Bucket(cloud='s3', name='b', region='us-west-2', account=None), 'a b.tif')
        >>> parse_object("https://example.org/a.tif")
    """
    scheme, _, rest = href.partition("://")
    scheme = scheme.lower()
    if scheme in {"http", "https"}:
        return _parse_https(href)
    place, _, key = rest.partition("/")
    if scheme in {"s3", "s3a"}:
        return Bucket("s3", place), key
    if scheme in {"gs", "gcs"}:
        return Bucket("gs", place), key
    if scheme in {"az", "azure", "abfs", "abfss", "adl"}:
        name, _, host = place.partition("@")
        account = host.split(".", 1)[0].lower() or None
        return Bucket("az", name, account=account), key
    return None


def _parse_https(href: str) -> tuple[Bucket, str] | None:
    parts = urlsplit(href)
    host = (parts.hostname or "").lower()
    if parts.query or parts.port or parts.username:
        return None
    path = unquote(parts.path)[1:]
    if found := _S3_HOST.fullmatch(host):
        name, key = _name_and_key(found["bucket"], path)
        return Bucket("s3", name, region=found["region"]), key
    if found := _GS_HOST.fullmatch(host):
        name, key = _name_and_key(found["bucket"], path)
        return Bucket("gs", name), key
    if found := _AZURE_HOST.fullmatch(host):
        name, key = _name_and_key(None, path)
        return Bucket("az", name, account=found["account"]), key
    return None


def _name_and_key(bucket: str | None, path: str) -> tuple[str, str]:
    if bucket:
        return bucket, path
    name, _, key = path.partition("/")
    return name, key


def has_credentials(cloud: Cloud) -> bool:
    """Whether the environment holds credentials of this cloud."""
    if cloud == "s3":
        return _any_set(_S3_ENVIRONMENT) or _boto3_provider() is not None
    return _any_set(_GS_ENVIRONMENT if cloud == "gs" else _AZURE_ENVIRONMENT)


def credentials_found() -> list[str]:
    """Where credentials of clouds and signers may come from on this machine, never their values.

    Returns:
        Names of environment variables that are set, and paths of AWS profile files that exist.

    Example:
        >>> os.environ["EARTHDATA_TOKEN"] = "a secret"
        >>> "EARTHDATA_TOKEN" in credentials_found()
        True
        >>> del os.environ["EARTHDATA_TOKEN"]
    """
    names = (*_S3_ENVIRONMENT, *_GS_ENVIRONMENT, *_AZURE_ENVIRONMENT, *_SIGNER_ENVIRONMENT)
    found = [name for name in names if os.environ.get(name)]
    return found + [str(path) for path in _aws_files() if path.exists()]


def _aws_files() -> list[Path]:
    """The profile files of AWS, which need not exist."""
    return [Path(os.environ.get(n) or f).expanduser() for n, f in _AWS_FILES.items()]


def signs_first(bucket: Bucket, options: StorageOptions) -> bool:
    """Whether the first request is signed already, not only one after a refusal."""
    if options.anonymous is not None:
        return not options.anonymous
    if options.credentials or options.signer:
        return True
    if bucket.cloud == "az":
        # a private container answers 404 to the unknown: asking twice would not help
        named = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        return has_credentials("az") and named in {None, bucket.account}
    return options.requester_pays and has_credentials(bucket.cloud)


def signer_of(bucket: Bucket, options: StorageOptions) -> Signer | None:
    """Return the named signer for a bucket, if its options name one."""
    if options.signer == "earthdata" and bucket.cloud == "s3":
        return EarthdataCredentials(options)
    if options.signer == "planetary_computer" and bucket.cloud == "az":
        return PlanetaryComputerToken(_account(bucket, options), bucket.name, options)
    return None


def bucket_store(
    bucket: Bucket, options: StorageOptions, signer: Signer | None, *, signed: bool
) -> ObjectStore:
    """Make the store of a bucket.

    Raises:
        InputError: an option or credential that the store does not take.
    """
    config: dict[str, Any] = dict(options.credentials or {})
    if not signed:
        config["skip_signature"] = True
    settings: dict[str, Any] = {
        "config": config,
        "client_options": client_options(options, options.endpoint or _endpoint(bucket.cloud)),
        "retry_config": retry_config(options),
    }
    if signer is not None:
        settings["credential_provider"] = signer
    try:
        if bucket.cloud == "s3":
            return _s3_store(bucket, options, settings)
        if bucket.cloud == "gs":
            if options.endpoint:
                config["base_url"] = options.endpoint
            return GCSStore(bucket.name, **settings)
        config["account_name"] = _account(bucket, options)
        if options.endpoint:
            config["endpoint"] = options.endpoint
        return AzureStore(bucket.name, **settings)
    except BaseError as error:
        # the text names the option; values of credentials are not in it
        reason = str(error).splitlines()[0]
        raise InputError.expected(
            f"storage {bucket.address}", "options that the store takes", reason, "see storage()"
        ) from None


def _s3_store(bucket: Bucket, options: StorageOptions, settings: dict[str, Any]) -> S3Store:
    config = settings["config"]
    if options.endpoint:
        config["endpoint"] = options.endpoint
    if options.requester_pays:
        config["request_payer"] = True
    config["region"] = options.region or bucket.region or _region(bucket, options)
    signed = "skip_signature" not in config
    own = options.credentials or settings.get("credential_provider")
    if signed and not own and not _any_set(_S3_ENVIRONMENT):
        provider = _boto3_provider()
        if provider is not None:
            settings["credential_provider"] = provider
    return S3Store(bucket.name, **settings)


def _account(bucket: Bucket, options: StorageOptions) -> str:
    account = bucket.account or options.account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise InputError.expected(
            bucket.address,
            "an Azure storage account",
            "none",
            "set account with storage() or AZURE_STORAGE_ACCOUNT_NAME",
        )
    return account


_regions: dict[str, str] = {}
_regions_lock = threading.Lock()


def _region(bucket: Bucket, options: StorageOptions) -> str:
    """Ask S3 where a bucket lies; S3 tells it even to those who may not read it."""
    default = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if options.endpoint or _endpoint("s3"):
        return default
    with _regions_lock:
        if bucket.name not in _regions:
            found = None
            try:
                answer = urllib3.request(
                    "HEAD",
                    f"{_S3_ORIGIN}/{bucket.name}",
                    redirect=False,
                    retries=False,
                    timeout=_CONNECT_S,
                )
                found = answer.headers.get("x-amz-bucket-region")
            except urllib3.exceptions.HTTPError:
                pass  # the read itself will tell what is wrong with the network
            if not found:
                return default
            _regions[bucket.name] = found
        return _regions[bucket.name]


def _endpoint(cloud: Cloud) -> str | None:
    """Return the endpoint that the environment names; obstore reads it, too."""
    names = {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "gs": ("GOOGLE_BASE_URL",),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }[cloud]
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _any_set(names: tuple[str, ...]) -> bool:
    return any(os.environ.get(name) for name in names)


def _boto3_provider() -> S3CredentialProvider | None:
    """Return keys of the AWS profile and config files, where boto3 is installed."""
    paths = _aws_files()
    if not any(path.exists() for path in paths):
        return None  # boto3 would go on to ask the cloud's machines, and wait
    if not importlib.util.find_spec("boto3"):
        return None
    return _profile_provider(os.environ.get("AWS_PROFILE"), *map(str, paths))


@functools.lru_cache(maxsize=8)
def _profile_provider(profile: str | None, *_: str) -> S3CredentialProvider | None:
    """Make it once for each profile and pair of files; it renews its keys itself."""
    import boto3  # type: ignore[import-untyped,unused-ignore]
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session(profile_name=profile)
    return Boto3CredentialProvider(session) if session.get_credentials() else None


def client_options(options: StorageOptions, base: str | None) -> ClientConfig:
    """Limits of the HTTP client; plain http is allowed where the base itself is plain."""
    found: ClientConfig = {
        "allow_http": bool(base) and str(base).lower().startswith("http://"),
        "connect_timeout": timedelta(seconds=_CONNECT_S),
        "read_timeout": timedelta(seconds=options.timeout_s),
        "timeout": timedelta(seconds=_LONGEST_S),
        "pool_max_idle_per_host": str(_N_IDLE),
        "user_agent": "rasteret_sql",
    }
    if options.headers:
        found["default_headers"] = dict(options.headers)
    return found


def retry_config(options: StorageOptions) -> RetryConfig:
    """Retries of the HTTP client: 0.1 s and longer apart, a minute in all."""
    return {
        "max_retries": options.retries,
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
        "retry_timeout": timedelta(seconds=60),
    }
