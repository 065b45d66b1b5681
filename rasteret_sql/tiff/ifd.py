"""Image file directories: the tags of one page, classic and BigTIFF, both byte orders."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import HeaderError, NotATiffError, UnsupportedTiffError, shorten
from rasteret_sql.tiff.layout import ByteOrder
from rasteret_sql.tiff.source import ByteSource
from rasteret_sql.tiff.tags import FIELD_CODES, FIELD_SIZES

_MAX_TAGS: Final = 4096
_MAX_VALUES: Final = 1 << 16
_MAX_TABLE: Final = 1 << 24
_INTEGER_TYPES: Final = frozenset({1, 3, 4, 6, 7, 8, 9, 13, 16, 17, 18})

Entry = tuple[int, int, int, int]
"""Tag, field type, count, and the value field as one number: an offset, or small values."""


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """How numbers and directories are written in one kind of TIFF.

    Attributes:
        short_shift: Bits to the right of a SHORT in the value field.
        array_types: NumPy type of each integer field type.
    """

    byte_order: ByteOrder
    is_bigtiff: bool
    mark: str
    entry: struct.Struct
    entry_count: struct.Struct
    pointer: struct.Struct
    short_shift: int
    array_types: dict[int, np.dtype[np.generic]]


def _dialect(byte_order: ByteOrder, *, is_bigtiff: bool) -> Dialect:
    mark = "<" if byte_order == "little" else ">"
    return Dialect(
        byte_order,
        is_bigtiff,
        mark,
        struct.Struct(mark + ("HHQQ" if is_bigtiff else "HHII")),
        struct.Struct(mark + ("Q" if is_bigtiff else "H")),
        struct.Struct(mark + ("Q" if is_bigtiff else "I")),
        0 if byte_order == "little" else 48 if is_bigtiff else 16,
        {
            kind: np.dtype(f"{mark}{'i' if code.islower() else 'u'}{FIELD_SIZES[kind]}")
            for kind, code in FIELD_CODES.items()
            if kind in _INTEGER_TYPES
        },
    )


_DIALECTS: Final = {
    b"II*\0": _dialect("little", is_bigtiff=False),
    b"MM\0*": _dialect("big", is_bigtiff=False),
    b"II+\0": _dialect("little", is_bigtiff=True),
    b"MM\0+": _dialect("big", is_bigtiff=True),
}


class Directory:
    """The entries of a directory as they stand in the file, without what they point to.

    Files that were written alike share one, as their directories are equal byte by byte.

    Attributes:
        entries: By tag.
        stop: Where the last value ends that lies outside of the directory.
        sizes: What `pages.read_level` found in the entries alone; None before it looked.
    """

    __slots__ = ("entries", "sizes", "stop")

    def __init__(self, entries: dict[int, Entry], dialect: Dialect) -> None:
        self.entries = entries
        self.sizes: tuple[int, ...] | None = None
        inline = dialect.pointer.size
        self.stop = max(
            (
                value + size
                for _, kind, count, value in entries.values()
                if (size := FIELD_SIZES.get(kind, 0) * count) > inline
            ),
            default=0,
        )


class Ifd:
    """The tags of one page; values are decoded when asked for."""

    __slots__ = ("_short_shift", "dialect", "directory", "entries", "offset", "source")

    def __init__(
        self, source: ByteSource, dialect: Dialect, directory: Directory, offset: int
    ) -> None:
        self.source = source
        self.offset = offset
        self.dialect = dialect
        self.directory = directory
        self.entries = directory.entries
        self._short_shift = dialect.short_shift

    def drop(self, tag: int) -> None:
        """Take a tag as absent, in this file alone."""
        kept = {name: entry for name, entry in self.entries.items() if name != tag}
        self.directory = Directory(kept, self.dialect)
        self.entries = kept

    def are_inline(self, wanted: Iterable[int]) -> bool:
        """Whether the values of these tags stand in the directory itself."""
        inline = self.dialect.pointer.size
        found = (self.entries.get(tag) for tag in wanted)
        return all(
            entry is None or FIELD_SIZES.get(entry[1], 0) * entry[2] <= inline for entry in found
        )

    def __contains__(self, tag: int) -> bool:
        """Whether the page has the tag."""
        return tag in self.entries

    def count(self, tag: int) -> int:
        """How many values the tag declares, 0 if it is absent."""
        entry = self.entries.get(tag)
        return entry[2] if entry else 0

    def integer(self, tag: int, default: int) -> int:
        """The first value of an integer tag."""
        entry = self.entries.get(tag)
        if entry is None:
            return default
        if entry[1] == 3 and entry[2] == 1:
            return (entry[3] >> self._short_shift) & 0xFFFF
        values = self.numbers(tag) if entry[1] in _INTEGER_TYPES else ()
        return int(values[0]) if values else default

    def integers(self, wanted: Iterable[tuple[int, int]]) -> list[int]:
        """As `integer` for several tags, each with what stands for it where it is absent."""
        entries, shift = self.entries, self._short_shift
        return [
            default
            if (entry := entries.get(tag)) is None
            else (entry[3] >> shift) & 0xFFFF
            if entry[1] == 3 and entry[2] == 1
            else self.integer(tag, default)
            for tag, default in wanted
        ]

    def numbers(self, tag: int) -> tuple[float, ...]:
        """All values of a tag, up to 65,536; rationals as quotients; () if it is absent.

        Raises:
            HeaderError: if the values lie beyond the end of the file.
        """
        entry = self.entries.get(tag)
        if entry is None or entry[1] not in FIELD_SIZES:
            return ()
        count = min(entry[2], _MAX_VALUES)
        code = FIELD_CODES[entry[1]]
        data = self._data(entry, count)
        values = struct.unpack(f"{self.dialect.mark}{count * len(code)}{code[0]}", data)
        if len(code) == 2:
            return tuple(
                n / d if d else 0.0 for n, d in zip(values[::2], values[1::2], strict=True)
            )
        return values

    def whole_numbers(self, tag: int) -> tuple[int, ...]:
        """As `numbers`, of an integer tag; () where the field type is another, as in libtiff."""
        entry = self.entries.get(tag)
        if entry is None or entry[1] not in _INTEGER_TYPES:
            return ()
        return cast("tuple[int, ...]", self.numbers(tag))

    def data(self, tag: int, limit: int) -> bytes:
        """The raw bytes of a tag, at most ``limit``; b'' if it is absent."""
        entry = self.entries.get(tag)
        if entry is None or entry[1] not in FIELD_SIZES:
            return b""
        return self._data(entry, min(entry[2], limit // FIELD_SIZES[entry[1]]))

    def table(self, tag: int) -> NDArray[np.int64]:
        """The values of an integer tag as an array, without a loop over them.

        Raises:
            HeaderError: if the file ends before, or a value does not fit 63 bits.
        """
        entry = self.entries.get(tag)
        if entry is None or entry[2] == 0:
            return np.zeros(0, np.int64)
        _, kind, count, _ = entry
        if kind not in _INTEGER_TYPES:
            raise UnsupportedTiffError.expected(
                f"TIFF tag {tag}", "integers", f"field type {kind}", "the file is corrupt"
            )
        if count > _MAX_TABLE:
            raise UnsupportedTiffError.expected(
                f"TIFF tag {tag}", f"at most {_MAX_TABLE} blocks", count, "use larger tiles"
            )
        dtype = self.dialect.array_types[kind]
        start = self.source.start
        if count * dtype.itemsize > self.dialect.pointer.size and (
            entry[3] + count * dtype.itemsize <= len(start)
        ):
            values = np.frombuffer(start, dtype, count, entry[3]).astype(np.int64)
        else:
            values = np.frombuffer(self._data(entry, count), dtype).astype(np.int64)
        if kind >= 6 and values.min() < 0:  # the other types are unsigned and have 32 bits
            raise HeaderError.expected(
                f"TIFF tag {tag}", "no negative numbers", int(values.min()), "the file is corrupt"
            )
        return values

    def outside(self, wanted: Iterable[int]) -> list[tuple[int, int, int]]:
        """Tag, offset and length of the values that are wanted and lie beyond the first bytes."""
        inline, at_hand = self.dialect.pointer.size, len(self.source.start)
        if self.directory.stop <= at_hand:
            return []
        entries, sizes = self.entries, FIELD_SIZES
        return [
            (tag, entry[3], size)
            for tag in wanted
            if (entry := entries.get(tag)) is not None
            and (size := sizes.get(entry[1], 0) * entry[2]) > inline
            and entry[3] + size > at_hand
            and entry[2] <= _MAX_TABLE
        ]

    def _data(self, entry: Entry, count: int) -> bytes:
        size = FIELD_SIZES[entry[1]]
        inline = self.dialect.pointer.size
        if size * entry[2] <= inline:
            return entry[3].to_bytes(inline, self.dialect.byte_order)[: size * count]
        return self.source.read(entry[3], size * count)


def dialect_of(start: bytes) -> Dialect | None:
    """The kind of TIFF that a file is by its first bytes; None if it is none."""
    return _DIALECTS.get(start[:4])


def read_start(source: ByteSource) -> tuple[Dialect, int]:
    """The kind of TIFF, and where its first directory is.

    Raises:
        NotATiffError: if the bytes do not start like a TIFF.
        HeaderError: if the file ends within its first 8 (BigTIFF: 16) bytes.
    """
    start = source.start
    dialect = dialect_of(start)
    if dialect is None:
        raise _not_a_tiff(start)
    if not dialect.is_bigtiff:
        return dialect, int(dialect.pointer.unpack(source.read(4, 4))[0])
    widths = source.read(4, 4)
    if widths not in (b"\x08\0\0\0", b"\0\x08\0\0"):
        raise UnsupportedTiffError.expected(
            "BigTIFF header", "8-byte offsets", widths.hex(), "the file is corrupt"
        )
    return dialect, int(dialect.pointer.unpack(source.read(8, 8))[0])


def read_ifd(source: ByteSource, dialect: Dialect, offset: int) -> tuple[Ifd, int]:
    """One directory, and where the next one is (0 after the last).

    Raises:
        HeaderError: if the file ends within it, or it declares an absurd number of tags.
    """
    head = dialect.entry_count.size
    count = dialect.entry_count.unpack(source.read(offset, head))[0]
    if not 0 < count <= _MAX_TAGS:
        raise HeaderError.expected(
            f"TIFF directory at offset {offset}",
            f"1 to {_MAX_TAGS} tags",
            count,
            "the file is corrupt",
        )
    length = count * dialect.entry.size
    data = source.read(offset + head, length)
    try:
        tail = source.read(offset + head + length, dialect.pointer.size)
    except HeaderError:  # libtiff takes a missing pointer as the end of the chain
        tail = bytes(dialect.pointer.size)
    return Ifd(source, dialect, _directory(data, dialect), offset), dialect.pointer.unpack(tail)[0]


@lru_cache(maxsize=1024)
def _directory(data: bytes, dialect: Dialect) -> Directory:
    entries = {entry[0]: entry for entry in dialect.entry.iter_unpack(data)}
    if len(entries) * dialect.entry.size < len(data):
        # of two entries with one tag the first counts, as in libtiff
        entries = {entry[0]: entry for entry in reversed([*dialect.entry.iter_unpack(data)])}
    return Directory(entries, dialect)


def _not_a_tiff(start: bytes) -> NotATiffError:
    todo = "check the URL"
    if not start:
        return NotATiffError.expected("file", "a TIFF", "no bytes", todo)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].lower()
    if text.startswith((b"<", b"{")):
        todo = "the server may have sent an error page; check the URL and the access rights"
    shown = shorten(repr(start[:24]))
    return NotATiffError(f"file: expected a TIFF (II*, MM*, II+ or MM+), got {shown}; {todo}")
