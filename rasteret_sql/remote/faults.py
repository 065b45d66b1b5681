"""What a store says when bytes do not come, as errors of this package.

The text of obstore's errors holds the whole URL, signature included, over many lines.
So a remote error is told anew and its cause is cut off; a local one keeps its cause.
"""

from __future__ import annotations

import re
from typing import NoReturn

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from rasteret_sql.errors import AccessDeniedError, NotFoundError, ReadError, redact

_STATUS = re.compile(r"status code: (\d{3})|HTTP status (?:client|server) error \((\d{3})")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"',)>]+")
_REASONS = (
    ("TimedOut", "no answer in time"),
    ("timed out", "no answer in time"),
    ("dns error", "an unknown host name"),
    ("ConnectionRefused", "a refused connection"),
    ("Connection refused", "a refused connection"),
    ("invalid peer certificate", "a certificate that is not trusted"),
    ("IncompleteMessage", "a closed connection"),
    ("IncompleteBody", "a body that stops early"),
    ("ConnectionReset", "a closed connection"),
    ("BrokenPipe", "a closed connection"),
    ("error sending request", "no connection"),
    ("request or response body error", "a body that stops early"),
)
_CUT = re.compile(r"Requested (\d+)\.\.(\d+), got (\d+)\.\.(\d+)")
_DENIED_TODO = (
    "give credentials with rasteret_sql.storage(...) or the environment, or set requester_pays"
)


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an obstore error tells of, if it does."""
    if isinstance(error, FileNotFoundError):
        return 404
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else None


def reason_of(error: Exception) -> str:
    """Say in a few words why bytes did not come, without any URL."""
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
    return _URL.sub(lambda url: redact(url[0]), first)


def is_transient(error: Exception) -> bool:
    """Whether to ask again here: obstore asks again for all else that may pass."""
    return reason_of(error) == "a body that stops early" or bool(_CUT.search(str(error)))


def raise_remote(href: str, expected: str, error: Exception) -> NoReturn:
    """Raise the package's error for one of obstore's, without its text and cause."""
    subject = redact(href)
    reason = reason_of(error)
    if isinstance(error, FileNotFoundError):
        raise NotFoundError(
            f"{subject}: expected {expected}, got {reason}; the file may have moved"
        ) from None
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        raise AccessDeniedError(
            f"{subject}: expected {expected}, got {reason}; {_DENIED_TODO}"
        ) from None
    raise ReadError(f"{subject}: expected {expected}, got {reason}; {_todo(reason)}") from None


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


def _todo(reason: str) -> str:
    if reason == "HTTP 416":
        return "the file is shorter than its header promises"
    if reason == "an unknown host name":
        return "check the URL"
    return "try again, or check the server"
