"""Every real file gives the header that GDAL reports; the exceptions are listed with reasons."""

from __future__ import annotations

import itertools
import math

import pyproj
import pytest
import rasterio

from rasteret_sql.errors import HeaderError
from rasteret_sql.tiff.header import parse_header

REFUSED = {
    "crash-86214e58da443d2b80820cff9677a38a33dcbbca.tif": "the tile table is cut off",
    "value-beyond-eof.tif": "no StripOffsets; GDAL refuses too",
    "block_width_above_32bit.tif": "GDAL refuses too",
    "ossfuzz_470691578.tif": "tiles of no size; GDAL opens it and can't read",
    "image_width_above_32bit.tif": "GDAL refuses too",
    "toomanyblocks.tif": "GDAL refuses too",
    "aspect-tiled-near.tif": "a VRT, no TIFF; GDAL refuses too",
    "graydepth-invert-overflow-5a0aad5024cc4ff3.tiff": "corrupt BitsPerSample; GDAL refuses too",
}
NOT_OPENED_BY_GDAL = {
    "byte_jxl_deprecated_50002.tif": "this GDAL has no JPEG XL",
    "byte_jxl_dng_1_7_52546.tif": "this GDAL has no JPEG XL",
    "jxl-rgbi.tif": "this GDAL has no JPEG XL",
    "rgbsmall_JXL.tif": "this GDAL has no JPEG XL",
    "rgbsmall_JXL_separate.tif": "this GDAL has no JPEG XL",
    "unsupported_codec_jp2000.tif": "this GDAL has no JPEG 2000 in TIFF",
    "int12_ycbcr_contig.tif": "the header is sound; its blocks are refused by the decoder",
    "unknown_compression.tif": "the header is sound; its blocks are refused by the decoder",
}
OTHER_DTYPE = {"cint32_big_endian.tif": "rasterio has no name for complex integers of 32 bits"}
OTHER_EPSG = {
    "nodata-sample.tiff": "names 3035; GDAL drops the code over digits of the ellipsoid",
    "epsg_2193_override.tif": "names 2193; GDAL drops the code over digits of the ellipsoid",
    "inconsistent_invflattening.tif": "names 28992; GDAL drops it over the ellipsoid's digits",
    "tiff_vertcs_scale_offset.tif": "compound; rasterio gives the code of its horizontal part",
    "test_esri_wkt.tif": "equal to 5070; rasterio keeps ESRI's vertical part in the way",
}
GCPS_ONLY = "rasterio gives the CRS of ground control points apart"
SPLIT_STRIPS = "GDAL shows one large strip as many small ones"


def _name(path):
    return path.rsplit("/", 1)[-1]


def _number(value):
    return float(value) if isinstance(value, str) else value


def _equal(one, other):
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


@pytest.fixture(scope="module")
def headers(data, truth):
    parsed, refused = {}, {}
    for path in truth:
        try:
            parsed[path] = parse_header((data / path).read_bytes())
        except HeaderError as error:
            refused[_name(path)] = error.message
    return parsed, refused


@pytest.fixture(scope="module")
def pairs(headers, truth):
    """Path, our header, GDAL's report, of the files that both open."""
    return [(path, h, truth[path]) for path, h in headers[0].items() if "width" in truth[path]]


def _different(pairs, ours, theirs, excepted=()):
    return [
        (path, ours(h, t), theirs(t))
        for path, h, t in pairs
        if _name(path) not in excepted and ours(h, t) != theirs(t)
    ]


def test_only_the_listed_files_are_refused(headers):
    assert headers[1].keys() == REFUSED.keys()


def test_only_the_listed_files_are_read_where_gdal_opens_none(headers, truth):
    read = {_name(path) for path in headers[0] if "width" not in truth[path]}
    assert read == NOT_OPENED_BY_GDAL.keys()


def test_most_files_are_compared(pairs):
    assert len(pairs) >= 490


def test_size_bands_and_sample_type(pairs):
    assert not _different(
        pairs,
        lambda h, _: (h.image.width, h.image.height, h.samples_per_pixel),
        lambda t: (t["width"], t["height"], t["count"]),
    )
    promoted = {"float16": "float32"}
    assert not _different(
        pairs,
        lambda h, _: promoted.get(h.dtype, h.dtype),
        lambda t: t["dtype"],
        OTHER_DTYPE,
    )


def test_blocks_are_those_of_the_file(pairs):
    different = _different(
        pairs,
        lambda h, _: [h.image.tile_height, h.image.tile_width],
        lambda t: t["block_shape"],
    )
    split = [
        path
        for path, ours, gdal in different
        if ours[1] == gdal[1] and gdal[0] < ours[0] <= (2 << 30)
    ]
    assert len(split) == len(different) == 14, SPLIT_STRIPS


def test_block_tables_have_an_entry_for_each_block(pairs):
    for path, header, _ in pairs:
        planes = header.samples_per_pixel if header.planar_configuration == 2 else 1
        for level in (header.image, *header.overviews):
            assert level.tile_offsets.size == level.tiles_per_plane * planes, path
            assert level.tile_byte_counts.size == level.tile_offsets.size, path


def test_no_data_value(pairs):
    assert not [
        (path, h.nodata, t["nodata"])
        for path, h, t in pairs
        if not _equal(h.nodata, _number(t["nodata"]))
    ]


def test_transform_to_the_last_bit(pairs):
    identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert not _different(
        pairs,
        lambda h, _: list(h.georef.affine or identity),
        lambda t: t["transform"],
    )


def test_overviews_by_size_largest_first(pairs):
    assert not _different(
        [pair for pair in pairs if "overview_truth" in pair[2]],
        lambda h, _: [(level.width, level.height) for level in h.overviews],
        lambda t: sorted(((o["width"], o["height"]) for o in t["overview_truth"]), reverse=True),
    )
    assert not _different(pairs, lambda h, _: len(h.overviews), lambda t: len(t["overviews"]))


def test_internal_mask(pairs):
    assert not _different(
        pairs,
        lambda h, _: h.mask is not None,
        # no flag: a mask with a sample for each of the image
        lambda t: any(not flags or flags == ["per_dataset"] for flags in t["mask_flags"]),
    )


@pytest.mark.parametrize("field", ["scales", "offsets", "units", "descriptions"])
def test_band_metadata(pairs, field):
    def first(values):
        return list(itertools.islice(values, 16)) if values else None

    def ours(header, report):
        values = getattr(header, field)
        known = report[field] is not None or any(value is not None for value in values)
        return first(values) if known else None

    assert not _different(pairs, ours, lambda t: first(t[field]))


def test_color_interpretation(pairs):
    assert not _different(
        pairs,
        lambda h, t: list(h.color_interpretation)[: len(t["colorinterp"])],
        lambda t: t["colorinterp"],
    )


def test_epsg_code(pairs):
    with_own_transform = [pair for pair in pairs if not pair[2]["gcps"]]
    assert len(pairs) - len(with_own_transform) == 5, GCPS_ONLY
    assert not _different(
        with_own_transform, lambda h, _: h.georef.epsg, lambda t: t["crs_epsg"], OTHER_EPSG
    )
    on_points = [pair for pair in pairs if pair[2]["gcps"]]
    assert not _different(on_points, lambda h, _: h.georef.epsg, lambda t: t["gcps_epsg"])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_crs_without_a_code_puts_corners_where_gdal_puts_them(pairs, data):
    compared = 0
    for path, header, report in pairs:
        code = report["crs_epsg"]
        if not report["crs_present"] or (code and header.georef.crs == f"EPSG:{code}"):
            continue
        with rasterio.open(data / path) as source:
            theirs = pyproj.CRS.from_wkt(source.crs.to_wkt())
        ours = pyproj.CRS.from_user_input(header.georef.crs)
        if not ours.is_engineering:
            assert _offset_m(ours, theirs, header) < 1e-3, path
        else:
            assert theirs.is_engineering, path
        compared += 1
    assert compared >= 30


def _offset_m(ours, theirs, header):
    """Largest distance between the places that two CRSs give a raster's corners."""
    level, affine = header.image, header.georef.affine
    corners = itertools.product((0, level.width / 2, level.width), (0, level.height))
    places = [affine.to_map(*corner) if affine else corner for corner in corners]
    one = pyproj.Transformer.from_crs(ours, ours.geodetic_crs, always_xy=True)
    two = pyproj.Transformer.from_crs(theirs, theirs.geodetic_crs, always_xy=True)
    axes = [crs.ellipsoid.semi_major_metre for crs in (ours, theirs)]
    worst = abs(axes[0] - axes[1])
    for place in places:
        here, there = one.transform(*place), two.transform(*place)
        if all(map(math.isfinite, (*here, *there))):
            degrees = max(abs(a - b) for a, b in zip(here, there, strict=True))
            worst = max(worst, math.radians(degrees) * axes[0])
        else:
            assert math.isfinite(here[0]) == math.isfinite(there[0])
    return worst


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_statistics(data):
    """As GDAL lists them in the tags of each band; a side file of GDAL's own is left aside."""
    n_files, different = 0, []
    for path in sorted((data / "geotiff").rglob("*")):
        if path.suffix.lower() not in {".tif", ".tiff"} or b"STATISTICS_" not in path.read_bytes():
            continue
        with rasterio.Env(GDAL_PAM_ENABLED="NO"):
            try:
                source = rasterio.open(path)
            except rasterio.errors.RasterioIOError:
                continue
            with source:
                theirs = [source.tags(index) for index in source.indexes]
        ours = parse_header(path.read_bytes()).statistics
        n_files += 1
        for sample, tags in enumerate(theirs):
            for name, value in ours[sample]._asdict().items():
                text = tags.get(f"STATISTICS_{name.upper()}")
                if not _equal(value, None if text is None else float(text)):
                    different.append((path.name, sample, name, value, text))
    assert n_files > 10
    assert different == []
