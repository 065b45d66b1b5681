"""Every error a user can meet, as one tree.

    RasteretError                       catch-all
    |- InputError (also ValueError)     an argument: UnknownBandError, UnknownCollectionError
    |- HeaderError                      not a file we read: NotATiffError, UnsupportedTiffError
    |- DecodeError                      the bytes of a tile are not what the header promised
    |- ReadError                        bytes did not come: NotFoundError, AccessDeniedError
    |- CollectionError                  a collection, STAC document or workspace is not as promised
    |- NotRegisteredError               the SQL functions are missing on this connection
    `- InterruptedReadError                  the caller stopped the statement

`RasteretWarning` is none of them: a read that found nothing to read is no failure.

A message is one line, ``subject: expected X, got Y; what to do``. The table-function
engine puts the name of the SQL function in front. URLs enter a message through
`redact`, so a token or a signed query string never does; what a text brings along,
`RasteretError` itself takes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from rasteret_sql.secrets import redact as redact
from rasteret_sql.secrets import redact_words

_MAX_SHOWN = 120


class RasteretError(Exception):
    """Any error of this package; no secret of an address stays in its text."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact_words(arg) if isinstance(arg, str) else arg for arg in args))

    @classmethod
    def expected(cls, subject: str, expected: str, got: object, todo: str) -> Self:
        """Build ``subject: expected X, got Y; what to do``.

        Example:
            >>> str(InputError.expected("level", "0 or more", -1, "0 is full resolution"))
            'level: expected 0 or more, got -1; 0 is full resolution'
        """
        return cls(f"{subject}: expected {expected}, got {shorten(got)}; {todo}")

    @property
    def message(self) -> str:
        """The text, on one line."""
        return " ".join(str(self).split())


class InputError(RasteretError, ValueError):
    """An argument does not have the form or range that the function takes."""


class UnknownBandError(InputError):
    """A band name that the collection does not have."""

    @classmethod
    def of(cls, band: str, known: Iterable[str]) -> Self:
        """Name the band and list those that exist.

        Example:
            >>> str(UnknownBandError.of("b4", ["B03", "B04"]))
            "bands: expected one of B03, B04, got 'b4'; band names are case-sensitive"
        """
        listed = ", ".join(sorted(known)) or "none (the collection has no band metadata)"
        return cls.expected("bands", f"one of {listed}", band, "band names are case-sensitive")


class UnknownCollectionError(InputError):
    """A name that is no collection, view, table, query or Parquet path."""


class HeaderError(RasteretError):
    """The file's header can't be used."""


class NotATiffError(HeaderError):
    """The bytes do not start like a TIFF: an error page, an empty or another file."""


class UnsupportedTiffError(HeaderError):
    """A TIFF of a kind that is refused by name."""


class DecodeError(RasteretError):
    """The bytes of a tile or strip do not decode to what its header promises."""


class ReadError(RasteretError):
    """Bytes did not come from a store."""


class TruncatedError(ReadError):
    """The file ends before the bytes that its header promises."""


class NotFoundError(ReadError):
    """The store says that there is no such object."""


class AccessDeniedError(ReadError):
    """The store refused (401, 403), or the policy of the build did."""


class CollectionError(RasteretError):
    """A collection, a STAC document or the workspace is not as promised."""


class NotRegisteredError(RasteretError):
    """The SQL functions are missing on this connection."""


class InterruptedReadError(RasteretError):
    """The statement was stopped: Ctrl-C, ``con.interrupt()``, or the connection closed."""


class RasteretWarning(UserWarning):
    """A read whose arguments match no record, or that is likely not what was meant.

    The rows are what they are without it. It is a row of ``rasteret_warnings()`` too.
    """


_SQL_WORDS = {None: "NULL", True: "true", False: "false"}


def shorten(value: object) -> str:
    """Show a value in a message as SQL has it: quoted if text, cut if long, never a signed URL.

    Example:
        >>> shorten("https://user:pw@host/a.tif?sig=secret")
        "'https://host/a.tif'"
        >>> shorten(None)
        'NULL'
    """
    if value is None or isinstance(value, bool):
        return _SQL_WORDS[value]
    text = repr(redact(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
