"""Headers of files that were written alike: what is known of one need not be parsed again.

The scenes of a collection come from one program and have one size. Then their directories are
the same byte by byte, but for the tile tables that stand in them (of a level of one tile), and
so are most values that directories point to. A header follows from those bytes and the tables
alone. So the second file with such directories is kept as a `_Layout`: the bytes that must be
the same, where the tables lie, and for each set of values what the parser made of it. Of a
later file the bytes are compared and the tables and the transform are read.

Only headers without warnings are kept, which lie in the first bytes as a whole, so that nothing
depends on the length of the file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.tiff import tags
from rasteret_sql.tiff.crs import FileCrs
from rasteret_sql.tiff.georef import read_georef
from rasteret_sql.tiff.ifd import Dialect, Directory, Ifd, dialect_of
from rasteret_sql.tiff.layout import Header, Level
from rasteret_sql.tiff.source import ByteSource

_MOST_LAYOUTS: Final = 256
_MOST_ALIKE: Final = 8
"""Layouts that begin with the same bytes."""
_MOST_TEMPLATES: Final = 32
_MOST_VALUE_BYTES: Final = 4096
_MOST_GAP_BYTES: Final = 1024
"""Between tile tables, as all of them are read at once."""
_HEAD_BYTES: Final = 16
_FIRST_TAGS_BYTES: Final = 64
_TABLE_TYPES: Final = frozenset({3, 4, 13, 16, 18})
"""SHORT, LONG, IFD, LONG8, IFD8."""
_GEOREF_TAGS: Final = frozenset(
    {tags.MODEL_PIXEL_SCALE, tags.MODEL_TIEPOINT, tags.MODEL_TRANSFORMATION}
)
_TABLE_TAGS: Final = (tags.TILE_OFFSETS, tags.TILE_BYTE_COUNTS)

_K = TypeVar("_K")
_V = TypeVar("_V")
_Range = tuple[int, int]
_Block = tuple[np.dtype[np.generic], int, int]
_Tables = tuple[NDArray[np.int64], ...]


class _Template(NamedTuple):
    """What the parser made of the values of one file; its tile tables do not count."""

    header: Header
    crs: FileCrs
    georef: bytes


class _Layout(NamedTuple):
    """Directories that several files have.

    Attributes:
        dialect: How numbers are written.
        directory: Of the first page; only the transform is read by it.
        offset: Where that lies.
        same: Offset and bytes of what must be the same.
        stop: How many of the first bytes are needed.
        values: Ranges of the values that a header follows from.
        georef: Ranges of the transform.
        blocks: Bytes that hold tile tables of one type: type, numbers, first byte.
        tables: In which of them the offsets and byte counts of each level lie, and where.
        templates: By the bytes of ``values``.
    """

    dialect: Dialect
    directory: Directory
    offset: int
    same: tuple[tuple[int, bytes], ...]
    stop: int
    values: tuple[_Range, ...]
    georef: tuple[_Range, ...]
    blocks: tuple[_Block, ...]
    tables: tuple[tuple[int, slice], ...]
    templates: OrderedDict[bytes, _Template]


_known: OrderedDict[bytes, list[_Layout]] = OrderedDict()
_seen: OrderedDict[bytes, None] = OrderedDict()


def known_header(source: ByteSource) -> Header | None:
    """The header of a file that was written like others; None where it must be parsed."""
    layout = _layout_of(source.start)
    if layout is None:
        return None
    start = source.start
    template = layout.templates.get(_joined(start, layout.values))
    tables = None if template is None else _tables(start, layout)
    if template is None or tables is None:
        return None
    header, crs, bytes_of_georef = template
    georef = header.georef
    if bytes_of_georef != _joined(start, layout.georef):
        georef = read_georef(Ifd(source, layout.dialect, layout.directory, layout.offset), crs)
    levels = [header.image, *header.overviews]
    n_own = len(levels)
    if header.mask is not None:
        levels += [header.mask, *header.mask_overviews]
    own = [
        Level._make((*level[:5], offsets, byte_counts, *level[7:]))
        for level, offsets, byte_counts in zip(levels, tables[::2], tables[1::2], strict=True)
    ]
    images, masks = own[:n_own], own[n_own:]
    reduced = tuple(images[1:]), masks[0] if masks else None, tuple(masks[1:])
    return Header._make((*header[:6], images[0], *reduced, georef, *header[11:]))


class _Value(NamedTuple):
    """Where the values of a tag lie."""

    tag: int
    kind: int
    n: int
    first: int
    stop: int
    is_inline: bool


def learn(
    source: ByteSource, header: Header, image: Ifd, crs: FileCrs, made: Sequence[tuple[Level, Ifd]]
) -> None:
    """Keep what was parsed, if another file began like it.

    Args:
        source: of the file.
        header: that was parsed.
        image: its first page.
        crs: what `georef.read_file_crs` read of it.
        made: the levels, and the pages that they were read from.
    """
    start = source.start
    if header.warnings or source.requests or tags.SUB_IFDS in image:
        return
    key = _key(start)
    if key not in _seen:
        _put(_seen, key, None, _MOST_LAYOUTS)
        return
    layout = _layout_of(start)
    if layout is None:
        layout = _new_layout(start, header, image, made)
        if layout is None:
            return
        _put(_known, key, [layout, *_known.get(key, ())][:_MOST_ALIKE], _MOST_LAYOUTS)
    values = _joined(start, layout.values)
    if len(values) <= _MOST_VALUE_BYTES:
        template = _Template(_without_tables(header), crs, _joined(start, layout.georef))
        _put(layout.templates, values, template, _MOST_TEMPLATES)


def forget() -> None:
    """Parse every file anew."""
    _known.clear()
    _seen.clear()


def _put(kept: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)


def _key(start: bytes) -> bytes:
    """What files that were written alike have in common at least; b'' of no TIFF."""
    dialect = dialect_of(start)
    if dialect is None or len(start) < _HEAD_BYTES:
        return b""
    first = dialect.pointer.unpack_from(start, 8 if dialect.is_bigtiff else 4)[0]
    return start[:_HEAD_BYTES] + start[first : first + _FIRST_TAGS_BYTES]


def _layout_of(start: bytes) -> _Layout | None:
    for layout in _known.get(_key(start), ()):
        if len(start) >= layout.stop:
            for offset, part in layout.same:
                if not start.startswith(part, offset):
                    break
            else:
                return layout
    return None


def _joined(start: bytes, ranges: Sequence[_Range]) -> bytes:
    return b"".join([start[first:stop] for first, stop in ranges])


def _tables(start: bytes, layout: _Layout) -> list[NDArray[np.int64]] | None:
    """The tile tables; None if there is a number in one that the parser refuses."""
    blocks = [np.frombuffer(start, *block).astype(np.int64) for block in layout.blocks]
    found = [blocks[number][place] for number, place in layout.tables]
    if any(dtype.itemsize == 8 for dtype, *_ in layout.blocks):
        return None if any(table.min() < 0 for table in found) else found
    return found


def _without_tables(header: Header) -> Header:
    """The header without the arrays, which are not its own."""
    none = np.zeros(0, np.int64)

    def bare(level: Level) -> Level:
        return level._replace(tile_offsets=none, tile_byte_counts=none)

    return header._replace(
        image=bare(header.image),
        overviews=tuple(map(bare, header.overviews)),
        mask=None if header.mask is None else bare(header.mask),
        mask_overviews=tuple(map(bare, header.mask_overviews)),
    )


def _new_layout(
    start: bytes, header: Header, image: Ifd, made: Sequence[tuple[Level, Ifd]]
) -> _Layout | None:
    """The layout of a file; None if there is something in it that is not told here."""
    pages = _directories(start, image)
    if pages is None or (header.mask is None and header.mask_overviews):
        return None
    masks = () if header.mask is None else (header.mask, *header.mask_overviews)
    page_of = {id(level): page for level, page in made}
    tables = []
    for level in (header.image, *header.overviews, *masks):
        own = {value.tag: value for value in pages[page_of[id(level)].offset][1]}
        if tags.TILE_WIDTH not in own or not own.keys() >= set(_TABLE_TAGS):
            return None
        tables += [own[tag] for tag in _TABLE_TAGS]
        if any(own[tag].n != len(level.tile_offsets) for tag in _TABLE_TAGS):
            return None
    placed = _placed(tables, image.dialect)
    if placed is None or any(table.stop > len(start) for table in tables):
        return None
    values = [
        value
        for _, found in pages.values()
        for value in found
        if not value.is_inline and value.tag in tags.READ_TAGS and value not in tables
    ]
    if any(value.stop > len(start) for value in values):
        return None
    head = 2 * image.dialect.pointer.size
    same = _without(
        [(0, head), *(extent for extent, _ in pages.values())],
        [(t.first, t.stop) for t in tables if t.is_inline],
    )
    return _Layout(
        image.dialect,
        image.directory,
        image.offset,
        tuple((begin, start[begin:end]) for begin, end in same),
        max(*(end for _, end in same), *(value.stop for value in (*tables, *values))),
        _merged((v.first, v.stop) for v in values if v.tag not in _GEOREF_TAGS),
        _merged((v.first, v.stop) for v in values if v.tag in _GEOREF_TAGS),
        *placed,
        OrderedDict(),
    )


def _placed(
    tables: Sequence[_Value], dialect: Dialect
) -> tuple[tuple[_Block, ...], tuple[tuple[int, slice], ...]] | None:
    """The blocks that hold the tables, and where in them; None where tables lie far apart."""
    if any(table.kind not in _TABLE_TYPES for table in tables):
        return None
    sizes = {kind: dialect.array_types[kind].itemsize for kind in _TABLE_TYPES}
    groups: dict[tuple[int, int], list[_Value]] = {}
    for table in tables:
        groups.setdefault((sizes[table.kind], table.first % sizes[table.kind]), []).append(table)
    blocks: list[_Block] = []
    places: dict[_Value, tuple[int, slice]] = {}
    for (size, _), group in groups.items():
        first, stop = min(t.first for t in group), max(t.stop for t in group)
        if stop - first - sum(t.stop - t.first for t in group) > _MOST_GAP_BYTES:
            return None
        for table in group:
            begin = (table.first - first) // size
            places[table] = len(blocks), slice(begin, begin + table.n)
        blocks.append((dialect.array_types[group[0].kind], (stop - first) // size, first))
    return tuple(blocks), tuple(places[table] for table in tables)


def _directories(start: bytes, image: Ifd) -> dict[int, tuple[_Range, list[_Value]]] | None:
    """By its offset, where each directory of the chain lies, and its values.

    None where a directory is cut off, has a tag twice, or lies in another one.
    """
    dialect = image.dialect
    head, pointer = dialect.entry_count.size, dialect.pointer
    found: dict[int, tuple[_Range, list[_Value]]] = {}
    offset = image.offset
    while offset and offset not in found:
        if offset + head > len(start):
            return None
        count = dialect.entry_count.unpack_from(start, offset)[0]
        end = offset + head + count * dialect.entry.size
        if end + pointer.size > len(start):
            return None
        values = [
            _value(start, at, dialect) for at in range(offset + head, end, dialect.entry.size)
        ]
        if len({value.tag for value in values}) < len(values):
            return None
        found[offset] = (offset, end + pointer.size), values
        offset = pointer.unpack_from(start, end)[0]
    extents = sorted(extent for extent, _ in found.values())
    if any(stop > first for (_, stop), (first, _) in pairwise([(0, 2 * pointer.size), *extents])):
        return None
    return found


def _value(start: bytes, at: int, dialect: Dialect) -> _Value:
    """The values of the entry at a place."""
    tag, kind, count, value = dialect.entry.unpack_from(start, at)
    n_bytes = tags.FIELD_SIZES.get(kind, 0) * count
    is_inline = n_bytes <= dialect.pointer.size
    first = at + dialect.entry.size - dialect.pointer.size if is_inline else value
    return _Value(tag, kind, count, first, first + n_bytes, is_inline)


def _merged(ranges: Iterable[_Range]) -> tuple[_Range, ...]:
    """The same bytes in few ranges."""
    found: list[_Range] = []
    for first, stop in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((first, stop))
    return tuple(found)


def _without(ranges: Iterable[_Range], holes: Iterable[_Range]) -> list[_Range]:
    """What is left of ranges; each hole lies in one of them."""
    left = sorted(ranges)
    for begin, end in holes:
        left = [
            part
            for first, stop in left
            for part in (
                [(first, begin), (end, stop)] if first <= begin and end <= stop else [(first, stop)]
            )
            if part[0] < part[1]
        ]
    return left
