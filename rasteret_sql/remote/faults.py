"""What a store says when bytes do not come, as errors of this package.

The text of obstore's errors holds the whole URL, signature included, over many lines.
So a remote error is told anew and its cause is cut off; a local one keeps its cause.
"""

from __future__ import annotations

import re
from typing import NoReturn

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from rasteret_sql.errors import AccessDeniedError, NotFoundError, ReadError, TruncatedError, redact
from rasteret_sql.remote.exact import TransferError

_STATUS = re.compile(r"status code: (\d{3})|HTTP status (?:client|server) error \((\d{3})")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"',)>]+")
_REASONS = (
    ("TimedOut", "no answer in time"),
    ("timed out", "no answer in time"),
    ("dns error", "an unknown host name"),
    ("ConnectionRefused", "a refused connection"),
    ("Connection refused", "a refused connection"),
    ("InvalidCertificate", "a certificate that is not trusted"),
    ("IncompleteMessage", "a closed connection"),
    ("IncompleteBody", "a body that stops early"),
    ("ConnectionReset", "a closed connection"),
    ("BrokenPipe", "a closed connection"),
    ("Received redirect without LOCATION", "a redirect elsewhere"),
    ("error following redirect", "redirects without end"),
    ("error sending request", "no connection"),
    ("request or response body error", "a body that stops early"),
)
_CUT = re.compile(r"Requested (\d+)\.\.(\d+), got (\d+)\.\.(\d+)")
_TODOS = {
    "HTTP 416": "the file is shorter than its header promises",
    "HTTP 301": "set the bucket's region with rasteret_sql.storage(...)",
    "HTTP 429": "the server is busy; try again later",
    "an unknown host name": "check the URL",
    "a redirect elsewhere": "set the bucket's region with rasteret_sql.storage(...)",
    "a longer range than was asked for": "the server does not keep to HTTP",
}


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error tells of, if it does."""
    if isinstance(error, TransferError):
        return error.status
    if isinstance(error, FileNotFoundError):
        return 404
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else None


def reason_of(error: Exception) -> str:
    """Say in a few words why bytes did not come, without any URL."""
    if isinstance(error, TransferError):
        return str(error)
    status = status_of(error)
    if status is not None:
        return f"HTTP {status}"
    text = str(error)
    for token, reason in _REASONS:
        if token in text:
            return reason
    if cut := _CUT.search(text):
        return f"bytes {cut[3]}-{cut[4]}"
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    # what stands before the last dash is the URL and the time that it took
    return _URL.sub(lambda url: redact(url[0]), first.rpartition(" - ")[2])


def is_cut(error: Exception) -> bool:
    """Whether a body was cut; what else may pass, the stores try again themselves."""
    if isinstance(error, TransferError):
        return error.is_cut
    return reason_of(error) == "a body that stops early" or bool(_CUT.search(str(error)))


def is_refusal(error: Exception) -> bool:
    """Whether the store did not want to serve the one who asked."""
    denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    return denied or status_of(error) in {401, 403}


def raise_remote(href: str, expected: str, error: Exception, if_denied: str) -> NoReturn:
    """Raise the package's error for one of the store's, without its text and cause.

    Args:
        href: what was read.
        expected: which bytes of it.
        error: of obstore or `ExactUrl`.
        if_denied: what to do about a refusal.
    """
    reason = reason_of(error)
    kind: type[ReadError] = ReadError
    if status_of(error) in {404, 410}:
        kind = NotFoundError
    elif status_of(error) == 416 or _CUT.search(str(error)):
        kind = TruncatedError
    elif is_refusal(error):
        kind = AccessDeniedError
    todo = if_denied if kind is AccessDeniedError else _todo(kind, reason)
    message = f"{redact(href)}: expected {expected}, got {reason}; {todo}"
    raise kind(message) from None


def raise_local(href: str, expected: str, error: OSError) -> NoReturn:
    """Raise the package's error for one of the operating system."""
    reason = error.strerror or type(error).__name__
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        todo = "check the path"
        raise NotFoundError(f"{href}: expected {expected}, got {reason}; {todo}") from error
    if isinstance(error, PermissionError):
        todo = "check the permissions of the file"
        raise AccessDeniedError(f"{href}: expected {expected}, got {reason}; {todo}") from error
    raise ReadError(f"{href}: expected {expected}, got {reason}; check the disk") from error


def _todo(kind: type[ReadError], reason: str) -> str:
    if kind is NotFoundError:
        return "the file may have moved"
    if reason.startswith("the whole file"):
        return "serve it from a store that answers byte ranges"
    return _TODOS.get(reason, "try again, or check the server")
