"""A header costs few requests: none beyond the start for a COG, two more otherwise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import rasterio

from rasteret_sql.errors import HeaderError, RasteretError
from rasteret_sql.tiff.header import parse_header, read_header

START = 16 * 1024


def _read(data, *, start=START, file_size=None):
    calls = []

    def fetch(offset, length):
        calls.append((offset, length))
        return data[offset : offset + length]

    return read_header(fetch, start=data[:start], file_size=file_size), calls


@pytest.fixture(scope="module")
def cog(tmp_path_factory):
    path = tmp_path_factory.mktemp("cog") / "scene.tif"
    pixels = np.arange(2000 * 2000, dtype=np.uint32).reshape(2000, 2000).astype("uint16")
    with rasterio.open(
        path, "w", driver="COG", width=2000, height=2000, count=1, dtype="uint16",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), blocksize=128,
        overviews="AUTO",
    ) as target:  # fmt: skip
        target.write(pixels, 1)
    return path.read_bytes()


def test_a_cog_costs_no_request_beyond_its_start(cog):
    header, calls = _read(cog)
    assert calls == []
    assert header.image.tile_offsets.size == 256
    assert [level.width for level in header.overviews][:2] == [1000, 500]
    assert header.georef.epsg == 32633


def test_without_a_start_the_first_16_kib_are_one_request(cog):
    _, calls = _read(cog, start=0)
    assert calls == [(0, START)]


def test_a_start_too_short_for_the_tags_costs_one_more(cog):
    header, calls = _read(cog, start=1000)
    assert len(calls) <= 2
    assert (header.image.tile_offsets == parse_header(cog).image.tile_offsets).all()


def test_tags_at_the_end_of_the_file_cost_one_request(tiff_with):
    data = tiff_with(shape=(512, 512), dtype="uint16", tile=(64, 64))
    moved = _tags_at_end(data)
    header, calls = _read(moved)
    assert len(calls) == 1
    assert header.image.tile_offsets.size == 64
    assert len(_read(moved, file_size=len(moved))[1]) == 1


def _tags_at_end(data):
    """The same little-endian file, with a copy of its only directory behind all other bytes."""
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    directory = data[at : at + 2 + 12 * count + 4]
    return data[:4] + len(data).to_bytes(4, "little") + data[8:] + directory


def test_real_files_cost_at_most_two_more_requests(data, truth):
    counts, more = Counter(), []
    for path in truth:
        content = (data / path).read_bytes()
        try:
            _, calls = _read(content, file_size=len(content))
        except RasteretError:
            continue
        counts[len(calls)] += 1
        if len(calls) > 2:
            more.append(path.rsplit("/", 1)[-1])
    # its two directories and the tables of the second lie 130 KB apart, out of order
    assert more == ["left-to-right.tif"]
    assert counts[0] > 440


def test_no_request_reaches_beyond_a_known_end(cog):
    cut = cog[:1500]
    with pytest.raises(HeaderError, match="cut off"):
        read_header(lambda *_: pytest.fail("it asked"), start=cut, file_size=len(cut))


def test_a_fetch_that_returns_less_is_a_cut_off_file(cog):
    with pytest.raises(HeaderError, match="cut off"):
        read_header(lambda offset, length: cog[:1500][offset : offset + length], start=cog[:1500])


def test_a_chain_of_far_pages_ends_with_a_warning():
    page = (
        b"\x03\0"
        + b"".join(
            tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0" + (1).to_bytes(4, "little")
            for tag in (256, 257, 273)
        )
    )  # fmt: skip
    step = 2 << 20

    def fetch(offset, length):
        data = bytearray(length)
        for at in range(0, length, step):
            whole = page + (offset + at + step).to_bytes(4, "little")
            data[at : at + len(whole)] = whole[: length - at]
        return bytes(data)

    start = b"II*\0" + step.to_bytes(4, "little") + bytes(100)
    header = read_header(fetch, start=start)
    assert any("far apart" in warning for warning in header.warnings)
