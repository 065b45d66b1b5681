"""Headers of made files against GDAL: no-data spellings, types, colours, pages, byte orders."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from rasterio.io import MemoryFile

from rasteret_sql.errors import UnsupportedTiffError
from rasteret_sql.tiff.header import parse_header

sys.path.insert(0, str(Path(__file__).parent))

import made_tiffs

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SPELLINGS = (
    *("0", "255", "-1", "256", "-9999", " -9999", "0.5", "1,5", ".5", "+7", "1e", "1d3", "1.5e3"),
    *("nan", "NaN", "-nan", "nano", "inf", "-inf", "+inf", "infinity", "-1.#IND", "1.#INF"),
    *("-1.#INF", "1.#QNAN", "-1.#QNAN", "-3.4028234663852886e+38", "3.4028235e+38", "1e39"),
    *("-1e400", "1.7976931348623157e+308", "-2147483648", "abc", "  ", "", "-32768 m", "--7"),
)
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32")


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
def test_every_spelling_of_no_data_is_read_as_gdal_reads_it(tiff_with, dtype):
    for text in SPELLINGS:
        data = tiff_with((42113, "s", 0, text), dtype=dtype)
        with MemoryFile(data) as file, file.open() as source:
            expected = source.nodata
        got = parse_header(data).nodata
        both_nan = got is not None and expected is not None and got != got and expected != expected
        assert both_nan or got == expected, text


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        ("int64", "9223372036854775807", 2**63 - 1),
        ("int64", "-9223372036854775808", -(2**63)),
        ("int64", "9223372036854775808", None),
        ("uint64", "18446744073709551615", 2**64 - 1),
        ("uint64", "-9999", 2**64 - 9999),
    ],
)
def test_64_bit_no_data_keeps_all_digits(tiff_with, dtype, text, value):
    got = parse_header(tiff_with((42113, "s", 0, text), dtype=dtype)).nodata
    assert got == value
    assert isinstance(got, int) or value is None


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_byte_orders_bigtiff_tiles_and_strips(tiff_with, byteorder, bigtiff, tile):
    data = tiff_with(
        shape=(70, 90), dtype="uint16", byteorder=byteorder, bigtiff=bigtiff, tile=tile,
        **({} if tile else {"rowsperstrip": 16}),
    )  # fmt: skip
    header = parse_header(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        assert header.image.tile_offsets.tolist() == list(page.dataoffsets)
        assert header.image.tile_byte_counts.tolist() == list(page.databytecounts)
    assert header.byte_order == ("little" if byteorder == "<" else "big")
    assert header.is_bigtiff is bigtiff
    assert (header.image.tile_height, header.image.tile_width) == (tile or (16, 90))
    assert header.dtype == "uint16"


@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("samples", [3, 4, 5])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colors_and_planes(tiff_with, photometric, samples, planar):
    shape = (8, 8, samples) if planar == "contig" else (samples, 8, 8)
    base = 3 if photometric == "rgb" else 1
    extra = ["unassalpha", *["unspecified"] * samples][: samples - base]
    data = tiff_with(shape=shape, photometric=photometric, planarconfig=planar, extrasamples=extra)
    header = parse_header(data)
    with MemoryFile(data) as file, file.open() as source:
        assert list(header.color_interpretation) == [c.name for c in source.colorinterp]
        assert header.samples_per_pixel == source.count == samples
    assert header.planar_configuration == (1 if planar == "contig" else 2)


def test_pages_without_a_flag_are_no_overviews():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for side in (64, 32, 16):
            writer.write(np.zeros((side, side), "uint8"), metadata=None)
    assert parse_header(file.getvalue()).overviews == ()


@pytest.mark.parametrize("as_sub_ifds", [True, False])
def test_flagged_pages_and_sub_ifds_are_overviews_largest_first(as_sub_ifds):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        options = {"subifds": 2} if as_sub_ifds else {}
        writer.write(np.zeros((64, 64), "uint8"), metadata=None, **options)
        for side in (16, 32):
            writer.write(np.zeros((side, side), "uint8"), subfiletype=1, metadata=None)
    header = parse_header(file.getvalue())
    assert [level.width for level in header.overviews] == [32, 16]


def test_a_mask_and_the_mask_of_an_overview():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for side, kind in ((64, 0), (64, 4), (32, 1), (32, 5), (20, 5)):
            pixels = np.zeros((side, side), bool if kind & 4 else "uint8")
            writer.write(pixels, subfiletype=kind, metadata=None)
    header = parse_header(file.getvalue())
    assert header.mask is not None
    assert (header.mask.width, header.mask.bits_per_sample) == (64, 1)
    assert [level.width for level in header.mask_overviews] == [32]


def test_missing_byte_counts_are_inferred(tiff_with):
    data = tiff_with(shape=(50, 20), rowsperstrip=16)
    known = parse_header(data).image
    at = int.from_bytes(data[4:8], "little")
    entries = [
        at + 2 + 12 * i for i in range(int.from_bytes(data[at : at + 2], "little"))
    ]  # fmt: skip
    place = next(e for e in entries if data[e : e + 2] == (279).to_bytes(2, "little"))
    without = data[:place] + (65000).to_bytes(2, "little") + data[place + 2 :]
    assert parse_header(without).image.tile_byte_counts.tolist() == [320, 320, 320, 40]
    assert known.tile_byte_counts.tolist() == [320, 320, 320, 40]


def test_samples_of_unlike_depth_are_refused_by_name(tiff_with):
    data = tiff_with(shape=(8, 8, 3), photometric="rgb")
    unlike = data.replace(b"\x08\0\x08\0\x08\0", b"\x08\0\x05\0\x08\0", 1)
    with pytest.raises(UnsupportedTiffError, match=r"BitsPerSample.*\(8, 5, 8\)"):
        parse_header(unlike)


@pytest.mark.parametrize(
    ("kind", "bits", "dtype"),
    [(1, 1, "uint8"), (1, 7, "uint8"), (2, 5, "uint8"), (1, 12, "uint16"), (2, 12, "uint16"),
     (1, 24, "uint32"), (2, 16, "int16"), (3, 16, "float16"), (3, 24, "float32"),
     (5, 32, "complex_int16"), (5, 64, "complex_int32"), (6, 64, "complex64"),
     (6, 128, "complex128"), (4, 8, "uint8"), (2, 64, "int64")],
)  # fmt: skip
def test_formats_and_depths_have_gdals_types(tiff_with, kind, bits, dtype):
    assert parse_header(_with_format(tiff_with(dtype="int16"), kind, bits)).dtype == dtype


@pytest.mark.parametrize(("kind", "bits"), [(3, 8), (3, 12), (5, 16), (1, 48), (9, 8), (1, 0)])
def test_formats_that_no_type_fits_are_refused_by_name(tiff_with, kind, bits):
    with pytest.raises(UnsupportedTiffError, match=f"format {kind} with {bits} bits"):
        parse_header(_with_format(tiff_with(dtype="int16"), kind, bits))


def _with_format(data, kind, bits):
    """The same little-endian file, with other SampleFormat and BitsPerSample."""
    data = bytearray(data)
    at = int.from_bytes(data[4:8], "little")
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
        new = {258: bits, 339: kind}.get(int.from_bytes(data[entry : entry + 2], "little"))
        if new is not None:
            data[entry + 8 : entry + 10] = new.to_bytes(2, "little")
    return bytes(data)


def test_metadata_items_by_role(tiff_with):
    xml = (
        '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.0001</Item>'
        '<Item name="OFFSET" sample="0" role="offset">-0.1</Item>'
        '<Item name="UNITTYPE" sample="0" role="unittype">K</Item>'
        '<Item name="DESCRIPTION" sample="0" role="description">B04</Item>'
        '<Item name="COLORINTERP" sample="0" role="colorinterp">Red</Item>'
        '<Item name="SCALE" sample="7" role="scale">9</Item></GDALMetadata>'
    )
    data = tiff_with((42112, "s", 0, xml))
    header = parse_header(data)
    with MemoryFile(data) as file, file.open() as source:
        assert header.scales == source.scales == (0.0001,)
        assert header.offsets == source.offsets == (-0.1,)
        assert header.units == source.units == ("K",)
        assert header.descriptions == source.descriptions == ("B04",)
        assert header.color_interpretation == ("red",) == (source.colorinterp[0].name,)


@pytest.mark.parametrize(
    "xml",
    [
        (
            '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
            '<GDALMetadata><Item name="n" sample="0" role="description">&b;</Item></GDALMetadata>'
        ),
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><GDALMetadata/>',
        "<GDALMetadata><Item",
        "not xml",
    ],
)
def test_metadata_with_entities_or_damage_is_left_out_with_a_warning(tiff_with, xml):
    header = parse_header(tiff_with((42112, "s", 0, xml)))
    assert header.descriptions == (None,)
    assert any("GDAL_METADATA" in warning for warning in header.warnings)
    assert math.isclose(header.scales[0], 1.0)


@pytest.mark.parametrize("photometric", [0, 1, 2, 3, 5, 9, 32803])
@pytest.mark.parametrize("samples", [1, 2, 3, 4, 6])
def test_colours_and_alpha_are_gdals(photometric, samples):
    for extra in ((), (0,), (1,), (2,), (999,), (0, 1), (2, 0), (0, 0, 2)):
        if len(extra) > samples:
            continue  # GDAL does not open it
        more: list = [(338, "H", list(extra))] if extra else []
        more += [(320, "H", [0] * 768)] if photometric == 3 else []
        data = made_tiffs.one_page(
            *("little", 4, 4, 8, 1, [bytes(16 * samples)]),
            photometric=photometric,
            samples=samples,
            more=more,
        )
        with MemoryFile(data) as file, file.open() as source:
            expected = tuple(colour.name for colour in source.colorinterp)
        if photometric == 5 and samples > 4:
            continue  # GDAL shows four bands; the pixels are refused here
        assert parse_header(data).color_interpretation == expected, extra


def test_texts_that_gdal_writes_come_back():
    text = "1 < 2 & 3 > 2, \"é\" 'x' &amp;"
    with MemoryFile() as file:
        with file.open(
            driver="GTiff", width=4, height=4, count=4, dtype="uint8", photometric="cmyk"
        ) as target:  # fmt: skip
            target.descriptions = [text] * 4
            target.units = ["m&m"] * 4
        data = bytes(file.read())
    with MemoryFile(data) as file, file.open() as source:
        assert source.descriptions == (text,) * 4
        colours = tuple(colour.name for colour in source.colorinterp)
    header = parse_header(data)
    assert header.descriptions == (text,) * 4
    assert header.units == ("m&m",) * 4
    assert header.color_interpretation == colours


@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_map_makes_a_grey_band_a_palette_as_in_gdal(bits):
    more = [(320, "H", [7] * (3 << bits))]
    data = made_tiffs.one_page("little", 4, 4, bits, 1, [bytes(2 * bits)], more=more)
    with MemoryFile(data) as file, file.open() as source:
        expected = tuple(color.name for color in source.colorinterp)
    assert parse_header(data).color_interpretation == expected == ("palette",)


def test_more_bits_per_sample_than_samples_are_left_alone():
    image = io.BytesIO()
    tifffile.imwrite(image, np.zeros((4, 4, 3), np.uint8), photometric="rgb", metadata=None)
    bits = b"\x02\x01\x03\x00\x03\x00\x00\x00"
    place = image.getvalue().index(bits)
    end = len(image.getvalue()).to_bytes(4, "little")
    data = bytearray(image.getvalue()) + b"\x08\x00\x08\x00\x08\x00\x01\x00"
    data[place : place + 12] = b"\x02\x01\x03\x00\x04\x00\x00\x00" + end
    with MemoryFile(bytes(data)) as file, file.open() as source:
        assert source.dtypes == ("uint8",) * 3
    assert parse_header(bytes(data)).dtype == "uint8"
