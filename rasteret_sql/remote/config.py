"""How to reach stores: options by URL prefix, from a TOML file and from Python calls.

The file is ``$RASTERET_STORAGE``, else ``~/.config/rasteret_sql/storage.toml``; a table per
prefix, the longest prefix that fits an href wins, ``*`` stands for any text without a slash::

    ["s3://usgs-landsat/"]
    requester_pays = true

    ["https://*.blob.core.windows.net/"]
    signer = "planetary_computer"

    ["https://data.example.org/"]
    headers = { Authorization = "Bearer ${EXAMPLE_TOKEN}" }
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias, cast

from rasteret_sql.errors import InputError

SignHref: TypeAlias = Callable[[str], "str | tuple[str, datetime]"]

_FILE = Path("~/.config/rasteret_sql/storage.toml")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SIGNERS = ("planetary_computer", "earthdata")


@dataclass(frozen=True, slots=True, eq=False)
class StorageOptions:
    """How to reach what lies under a prefix; all are optional.

    Attributes:
        endpoint: base URL of an S3, Azure or Google emulator or look-alike.
        region: of the S3 bucket; found by one request if not given.
        anonymous: True never signs, False always does (asking the machine's own identity
            too); by default S3 and Google are asked anonymously first, and with the
            environment's credentials if that is refused.
        requester_pays: the reader's account pays for S3 requests.
        credentials: obstore's names and values: ``access_key_id``, ``secret_access_key``,
            ``session_token``; ``account_key``, ``sas_key``; ``service_account``; ...
        account: Azure storage account, for ``az://container/key``.
        headers: sent with each request.
        url_rewrite: what to put in place of the prefix.
        keep_query: names of query parameters that are stored, though they look like secrets
            (see `rasteret_sql.secrets`).
        signer: ``planetary_computer``, ``earthdata``, or a function from an href to a signed
            URL or to ``(signed URL, time of expiry)``.
        token_url: where the signer asks for tokens.
        timeout_s: longest silence of a server within a request; five minutes are the limit of
            a request in all, which has at most 64 MiB.
        retries: after 429, 5xx and broken connections.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool | None = None
    requester_pays: bool = False
    credentials: Mapping[str, str] | None = field(default=None, repr=False)
    account: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    url_rewrite: str | None = None
    keep_query: Sequence[str] | None = None
    signer: str | SignHref | None = None
    token_url: str | None = None
    timeout_s: float = 30
    retries: int = 6


_DEFAULTS = StorageOptions()
_TYPES: dict[str, tuple[type, ...]] = {
    "anonymous": (bool,),
    "requester_pays": (bool,),
    "credentials": (Mapping,),
    "headers": (Mapping,),
    "keep_query": (list, tuple),
    "timeout_s": (int, float),
    "retries": (int,),
}


class Storage:
    """Options by prefix.

    Args:
        file: TOML to read at the first question; None for the user's own, which may be absent.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._from_file: dict[str, StorageOptions] | None = None
        self._from_calls: dict[str, StorageOptions] = {}
        self._suggested: dict[str, StorageOptions] = {}

    def set_defaults(self, prefix: str, options: Mapping[str, object]) -> bool:
        """Set options for hrefs of which neither file nor calls say anything.

        Returns:
            Whether they are new.

        Raises:
            InputError: an option that does not exist, or a value of another type.
        """
        is_new = prefix not in self._suggested
        if is_new:
            self._suggested[prefix] = _checked(prefix, options)
        return is_new

    def configure(self, prefix: str, options: Mapping[str, object]) -> None:
        """Set the options of a prefix, in place of the file's; none of them forgets it.

        Raises:
            InputError: an option that does not exist, or a value of another type.
        """
        if options:
            self._from_calls[prefix] = _checked(prefix, options)
        else:
            self._from_calls.pop(prefix, None)

    def options_for(self, *hrefs: str) -> StorageOptions:
        """Options of the longest prefix that fits one of the hrefs (they name one object)."""
        return self._longest(hrefs)[1]

    def rewritten(self, href: str) -> str:
        """Put ``url_rewrite`` in place of the prefix that fits, if it is set."""
        length, options = self._longest((href,))
        return href if options.url_rewrite is None else options.url_rewrite + href[length:]

    def _longest(self, hrefs: Sequence[str]) -> tuple[int, StorageOptions]:
        if self._from_file is None:
            self._from_file = _read(self._file)
        by_user = {**self._from_file, **self._from_calls}
        found = _longest_of(by_user, hrefs) or _longest_of(self._suggested, hrefs)
        return found or (0, _DEFAULTS)


def _longest_of(
    known: Mapping[str, StorageOptions], hrefs: Sequence[str]
) -> tuple[int, StorageOptions] | None:
    found, prefix_length = None, -1
    for prefix, options in known.items():
        for href in hrefs:
            matched = _match(prefix, href)
            if matched is not None and len(prefix) > prefix_length:
                found, prefix_length = (matched, options), len(prefix)
    return found


def _match(prefix: str, href: str) -> int | None:
    """Length of the text that the prefix stands for."""
    if "*" not in prefix:
        return len(prefix) if href.startswith(prefix) else None
    found = re.match("[^/]*".join(map(re.escape, prefix.split("*"))), href)
    return found.end() if found else None


def _read(file: Path | None) -> dict[str, StorageOptions]:
    named = file or (Path(os.environ["RASTERET_STORAGE"]) if _is_named() else None)
    path = (named or _FILE).expanduser()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise InputError.expected(
            "RASTERET_STORAGE", "a TOML file", str(path), "there is no such file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.expected(str(path), "TOML", str(error), "fix the file") from error
    return {prefix: _checked(prefix, _filled_in(prefix, table)) for prefix, table in tables.items()}


def _is_named() -> bool:
    return bool(os.environ.get("RASTERET_STORAGE"))


def _filled_in(prefix: str, value: object) -> object:
    """Put environment variables in place of ``${NAME}``."""
    if isinstance(value, dict):
        return {key: _filled_in(prefix, inner) for key, inner in value.items()}
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise InputError.expected(
                f"storage {prefix}", f"the environment variable {found[1]}", "none", "set it"
            )
        return os.environ[found[1]]

    return _VARIABLE.sub(variable, value)


def _checked(prefix: str, options: object) -> StorageOptions:
    subject = f"storage {prefix}"
    if not isinstance(options, Mapping):
        raise InputError.expected(subject, "a table of options", options, "see storage()")
    names = [f.name for f in fields(StorageOptions)]
    for name, value in options.items():
        if name not in names:
            raise InputError.expected(
                subject, f"one of {', '.join(names)}", name, "check the spelling"
            )
        kinds = _TYPES.get(name, (str,))
        is_number = kinds != (bool,) and isinstance(value, bool)
        fits = isinstance(value, kinds) and not is_number
        if value is not None and not fits and not (name == "signer" and callable(value)):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError.expected(
                f"{subject} {name}", wanted, type(value).__name__, "change its type"
            )
    if not all(isinstance(name, str) for name in options.get("keep_query") or ()):
        raise InputError.expected(
            f"{subject} keep_query", "names of parameters", "another value", "write ['name']"
        )
    signer = options.get("signer")
    if isinstance(signer, str) and signer not in _SIGNERS:
        raise InputError.expected(
            f"{subject} signer", " or ".join(_SIGNERS), signer, "or give a function"
        )
    return StorageOptions(**cast("Mapping[str, Any]", options))
