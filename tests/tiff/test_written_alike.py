"""What is known of one file must not change what is read of another."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from rasteret_sql.errors import RasteretError
from rasteret_sql.tiff import written_alike
from rasteret_sql.tiff.header import parse_header, read_header
from rasteret_sql.tiff.source import ByteSource

sys.path.insert(0, str(Path(__file__).parent))

from fuzz import damage
from made_tiffs import all_files

from examples import examples

START_BYTES = 16_384


@pytest.fixture(autouse=True)
def nothing_known():
    written_alike.forget()
    yield
    written_alike.forget()


@pytest.fixture(scope="module")
def starts(truth, data):
    """The first bytes and the length of each file."""
    found = []
    for path in sorted(truth):
        with (data / path).open("rb") as file:
            found.append((file.read(START_BYTES), (data / path).stat().st_size))
    found += [(file[:START_BYTES], len(file)) for file in all_files()]
    return [(start, size) for start, size in found if size > 16]


def shown(header):
    """All of a header, tile tables too."""

    def plain(value):
        if hasattr(value, "tobytes"):
            return value.dtype.str, value.shape, value.tobytes().hex()
        return repr(value)

    return json.dumps(header, default=plain)


def outcome(start, size):
    """What is read of a file, with its warnings, or why it is not; and how often it was asked."""
    asked = []

    def fetch(offset, length):
        asked.append((offset, length))
        return start[offset : offset + length]

    try:
        found = shown(read_header(fetch, start=start, file_size=size))
    except (RasteretError, ValueError, OverflowError) as error:
        found = f"{type(error).__name__}: {error}"
    return found, asked


def is_known(start, size):
    return written_alike.known_header(ByteSource(bytes, start, size)) is not None


def test_a_third_file_that_was_written_alike_is_not_parsed(starts):
    n_known = 0
    starts = examples(starts[::2], starts)
    for start, size in starts:
        written_alike.forget()
        first = outcome(start, size)
        assert not is_known(start, size)
        assert outcome(start, size) == first
        assert outcome(start, size) == first
        n_known += is_known(start, size)
    assert n_known > len(starts) / 3


def test_damaged_bytes_are_read_as_if_nothing_was_known(starts):
    rng = random.Random(8)
    n_known = 0
    for start, size in starts:
        for _ in range(2):
            outcome(start, size)
        if not is_known(start, size):
            continue
        for _ in range(examples(6, 25)):
            spoiled = bytearray(start)
            for _ in range(rng.choice([1, 1, 2, 8])):
                spoiled[rng.randrange(min(len(start), 2048))] = rng.choice([0, 1, 255, 65, 7])
            cut = bytes(spoiled[: rng.choice([len(start), len(start), rng.randrange(len(start))])])
            n_known += is_known(cut, size)
            with_known = outcome(cut, size)
            kept = dict(written_alike._known)
            written_alike._known.clear()
            assert outcome(cut, size) == with_known
            written_alike._known.update(kept)
    assert n_known > examples(24, 100)  # tile tables and what no header follows from


def test_damaged_files_teach_nothing_wrong(starts):
    rng = random.Random(9)
    for start, size in starts[::3]:
        spoiled = damage(start, rng)[:START_BYTES]
        first = outcome(spoiled, size)
        outcome(spoiled, size)
        assert outcome(spoiled, size) == first
        assert outcome(start, size) == outcome(start, size)


def test_tile_tables_and_transform_are_those_of_the_file(tiff_with):
    def file(x, fill):
        return tiff_with(
            (33550, 12, 3, (10.0, 10.0, 0.0)),
            (33922, 12, 6, (0.0, 0.0, 0.0, x, 5e6, 0.0)),
            shape=(64, 48),
            tile=(16, 16),
            dtype="uint16",
        ) + bytes(fill)

    def moved(data, by):
        """The same file with other tile offsets."""
        header = parse_header(data)
        old, new = (
            b"".join(int(o + more).to_bytes(4, "little") for o in header.image.tile_offsets)
            for more in (0, by)
        )
        assert data.count(old) == 1
        return data.replace(old, new)

    for n in range(4):
        header = parse_header(file(5e5 + n, n))
        assert header.georef.affine.c == 5e5 + n
    assert is_known(file(7e5, 0), None)
    there = moved(file(7e5, 0), 4)
    assert is_known(there, None)
    header = parse_header(there)
    assert header.georef.affine.c == 7e5
    assert list(header.image.tile_offsets) == [
        offset + 4 for offset in parse_header(file(7e5, 0)).image.tile_offsets
    ]


def test_few_layouts_and_templates_are_kept(tiff_with, monkeypatch):
    monkeypatch.setattr(written_alike, "_MOST_LAYOUTS", 20)
    monkeypatch.setattr(written_alike, "_MOST_TEMPLATES", 8)
    files = [
        tiff_with(shape=(8, width), tile=(16, 16))
        for width in range(16, 16 + written_alike._MOST_LAYOUTS + 20)
    ]
    files += [
        tiff_with((42113, 2, 9, f"{name:08d}"), shape=(64, 64), tile=(16, 16))
        for name in range(written_alike._MOST_TEMPLATES + 8)
    ]
    for file in files:
        for _ in range(2):
            parse_header(file)
    layouts = [layout for kept in written_alike._known.values() for layout in kept]
    assert 0 < len(written_alike._known) <= written_alike._MOST_LAYOUTS
    assert max(len(layout.templates) for layout in layouts) == written_alike._MOST_TEMPLATES
