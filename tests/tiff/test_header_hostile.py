"""Damaged and hostile bytes give a header or a named error, soon and in little memory."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from contextlib import suppress

import pytest

from rasteret_sql.errors import HeaderError, NotATiffError, RasteretError, UnsupportedTiffError
from rasteret_sql.tiff.header import parse_header, read_header
from rasteret_sql.tiff.layout import Header

MUTATIONS = 600
TIME_LIMIT_S = 2.0
MEMORY_LIMIT = 64 << 20


def _entry(tag, kind, count, value):
    return struct.pack("<HHII", tag, kind, count, value)


def _tiff(*entries, following=0, tail=b""):
    body = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8) + body + tail


PLAIN = (
    _entry(256, 4, 1, 64),
    _entry(257, 4, 1, 64),
    _entry(258, 3, 1, 8),
    _entry(273, 4, 1, 8),
    _entry(279, 4, 1, 4096),
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no bytes"),
        (b"<!DOCTYPE html><html>denied", "the server may have sent an error page"),
        (b'  {"message": "Not Found"}     ', "the server may have sent an error page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG"),
        (b"PK\x03\x04" + bytes(40), "PK"),
        (b"II\x2a", "II"),
    ],
)
def test_what_is_no_tiff_is_named_by_its_first_bytes(data, said):
    with pytest.raises(NotATiffError, match=said):
        parse_header(data)


@pytest.mark.parametrize("length", [4, 6, 8, 9, 20, 60])
def test_a_cut_off_header_is_said_to_be_cut_off(length):
    with pytest.raises(HeaderError, match="cut off"):
        parse_header(_tiff(*PLAIN)[:length])


def test_a_directory_that_follows_itself_ends():
    assert parse_header(_tiff(*PLAIN, following=8)).image.width == 64


def test_a_long_chain_of_overlapping_directories_ends_soon():
    tail = b"".join(struct.pack("<H", 1) + bytes(12) + bytes(4) for _ in range(50_000))
    start = time.perf_counter()
    parse_header(_tiff(*PLAIN, following=70, tail=tail))
    assert time.perf_counter() - start < TIME_LIMIT_S


@pytest.mark.parametrize(
    "entries",
    [
        (_entry(256, 4, 1, 2**31 - 1), _entry(257, 4, 1, 2**31 - 1), _entry(278, 3, 1, 1)),
        (_entry(256, 4, 1, 60_000), _entry(257, 4, 1, 60_000), _entry(322, 3, 1, 1),
         _entry(323, 3, 1, 1)),
    ],
)  # fmt: skip
def test_more_blocks_than_any_table_has_are_refused(entries):
    with pytest.raises(UnsupportedTiffError, match="tile table"):
        parse_header(_tiff(*entries, _entry(258, 3, 1, 8), _entry(273, 4, 1, 8)))


@pytest.mark.parametrize("size", [None, 1000])
def test_a_table_beyond_the_file_costs_no_memory(size):
    data = _tiff(*PLAIN[:3], _entry(273, 4, 10_000_000, 100), _entry(279, 4, 10_000_000, 100))
    tracemalloc.start()
    with pytest.raises(HeaderError, match="cut off"):
        read_header(lambda at, n: data[at : at + n], start=data, file_size=size and len(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("tag", [256, 257, 273])
def test_a_missing_tag_that_every_image_needs_is_a_header_error(tag):
    rest = [entry for entry in PLAIN if struct.unpack("<H", entry[:2])[0] != tag]
    with pytest.raises(HeaderError, match="expected"):
        parse_header(_tiff(*rest))


@pytest.mark.parametrize(("tag", "value"), [(256, 0), (257, 0), (277, 0), (284, 7), (278, 0)])
def test_absurd_values_are_refused_with_the_tag(tag, value):
    rest = [entry for entry in PLAIN if struct.unpack("<H", entry[:2])[0] != tag]
    with pytest.raises(HeaderError, match=f"TIFF .*{value}"):
        parse_header(_tiff(*rest, _entry(tag, 3, 1, value)))


def test_an_optional_tag_that_is_cut_off_is_left_out_with_a_warning():
    header = parse_header(_tiff(*PLAIN, _entry(42112, 2, 5000, 9000)))
    assert header.image.width == 64
    assert any("42112" in warning for warning in header.warnings)


def test_of_two_entries_with_one_tag_the_first_counts():
    assert parse_header(_tiff(*PLAIN, _entry(256, 4, 1, 9))).image.width == 64


def _mutate(rng, data, others):
    data = bytearray(data)
    kind = rng.randrange(4)
    head = min(len(data), 2000)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:
        for _ in range(rng.randint(1, 12)):
            data[rng.randrange(head)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        at = rng.randrange(head)
        data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"))
    else:
        other = rng.choice(others)
        at, length = rng.randrange(head), rng.randint(1, 400)
        data[at : at + length] = other[at : at + length]
    return bytes(data)


@pytest.fixture(scope="module")
def seeds(data, truth):
    """Small real files of many kinds."""
    files = (data / path for path in truth)
    return [file.read_bytes() for file in files if file.stat().st_size < 20_000]


def _outcome(data):
    """The header, or the message of an error of ours; any other error goes up."""
    try:
        return parse_header(data)
    except RasteretError as error:
        return error.message


def test_mutated_files_give_a_header_or_an_error_of_ours(seeds):
    rng = random.Random(20)
    headers = 0
    for number in range(MUTATIONS):
        data = _mutate(rng, rng.choice(seeds), seeds)
        start = time.perf_counter()
        outcome = _outcome(data)
        assert time.perf_counter() - start < TIME_LIMIT_S, number
        if isinstance(outcome, str):
            assert "\n" not in outcome
        else:
            assert isinstance(outcome, Header)
            headers += 1
    assert MUTATIONS // 20 < headers < MUTATIONS * 19 // 20


def test_mutated_files_stay_small_in_memory(seeds):
    rng = random.Random(21)
    tracemalloc.start()
    for _ in range(60):
        _outcome(_mutate(rng, rng.choice(seeds), seeds))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_LIMIT


NAN, INFINITE = struct.pack("<d", float("nan")), struct.pack("<d", float("inf"))


@pytest.mark.parametrize("value", [NAN, INFINITE, struct.pack("<d", -1e300)])
@pytest.mark.parametrize("tag", [338, 339, 258, 330, 530])
def test_numbers_that_are_no_integers_are_left_out_where_integers_belong(tag, value):
    entries = [entry for entry in PLAIN if struct.unpack("<H", entry[:2])[0] != tag]
    directory = 8 + 2 + 12 * (len(entries) + 1) + 4
    data = _tiff(*entries, _entry(tag, 12, 2, directory), tail=value * 2)
    header = parse_header(data + bytes(4096))
    assert (header.image.width, header.dtype, header.extra_samples) == (64, "uint8", ())


def _bigtiff(*entries):
    body = struct.pack("<Q", len(entries)) + b"".join(
        struct.pack("<HHQQ", *entry) for entry in entries
    )
    return b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + body + bytes(8)


@pytest.mark.parametrize("size", [None, 4096])
@pytest.mark.parametrize("tag", [42112, 42113, 33550, 33922, 34264, 34735, 34736, 34737, 338, 330])
@pytest.mark.parametrize(("count", "at"), [(2**64 - 1, 16), (4, 2**64 - 1), (2**64 - 1, 2**64 - 1)])
def test_counts_and_places_of_64_bits_are_an_error_of_ours_or_left_out(tag, count, at, size):
    kinds = {42112: 2, 42113: 2, 34735: 3, 34737: 2, 338: 16, 330: 16}
    plain = [struct.unpack("<HHII", entry) for entry in PLAIN]
    data = _bigtiff(*plain, (tag, kinds.get(tag, 12), count, at)).ljust(4096, b"\0")

    def fetch(offset, length):
        assert offset + length < 2**63  # what a file or a request can be asked for
        return data[offset : offset + length]

    header = None
    with suppress(HeaderError):  # any other class goes up
        header = read_header(fetch, start=data[:200], file_size=size)
    assert header is None or header.image.width == 64


def test_extra_samples_that_no_short_holds_are_left_out():
    header = parse_header(_tiff(*PLAIN, _entry(338, 4, 1, 2**32 - 1)) + bytes(4096))
    assert header.extra_samples == ()
