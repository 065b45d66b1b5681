"""STAC items to records: types over all items, bands, CRS, footprints, hrefs."""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from rasteret_sql.errors import InputError, RasteretError, UnknownBandError
from rasteret_sql.ingest.records import BATCH_ROWS
from rasteret_sql.ingest.stac.items import records_from_items
from rasteret_sql.ingest.stac.property_types import PropertyType, to_array
from rasteret_sql.ingest.stac.search import StacSource, read_items
from rasteret_sql.ingest.table.tables import records_from_table

pytestmark = pytest.mark.any_duckdb


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


def item(name="i", properties=None, assets=None, **extra):
    red = {"href": "https://h/red.tif", "type": "image/tiff"}
    return {
        "type": "Feature",
        "id": name,
        "geometry": {"type": "Point", "coordinates": [10.0, 50.0]},
        "bbox": None,
        "properties": {"datetime": "2024-05-01T12:00:00Z", **(properties or {})},
        "assets": {"red": red} if assets is None else assets,
        **extra,
    }


def tif(name, **fields):
    return {"href": f"https://h/{name}.tif", "type": "image/tiff", **fields}


def records_of(items, **options):
    records = records_from_items(items, **options)
    table = pa.Table.from_batches(records.batches(), records.schema)
    table.validate(full=True)
    return records, table


def column(name, *values):
    items = [item(str(n), {name: value}) for n, value in enumerate(values)]
    _, table = records_of(items)
    return table[name]


def bands_of(*assets, **options):
    records, table = records_of([item(str(n), assets=a) for n, a in enumerate(assets)], **options)
    rows = table["assets"].to_pylist()
    assert [field.name for field in records.schema.field("assets").type] == list(rows[0])
    return rows


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([1, None, 2], "int64", [1, None, 2]),
        ([1, 2.5], "double", [1.0, 2.5]),
        ([2**53 + 1, 0.5], "string", [str(2**53 + 1), "0.5"]),
        ([2**53 + 2, 0.5], "double", [float(2**53 + 2), 0.5]),
        ([2**53 + 1, 1], "int64", [2**53 + 1, 1]),
        ([2**70, 0.5], "double", [float(2**70), 0.5]),
        ([2**70, 1], "string", [str(2**70), "1"]),
        ([10**400, 0.5], "string", [str(10**400), "0.5"]),
        ([True, None], "bool", [True, None]),
        ([True, 1], "string", ["true", "1"]),
        (["a", 1], "string", ['"a"', "1"]),
        (["a", "b"], "string", ["a", "b"]),
        ([None, None], "string", [None, None]),
        ([[1, 2], [2.5], []], "list<item: double>", [[1.0, 2.0], [2.5], []]),
        ([[[1, 2]], [[3]]], "list<item: list<item: int64>>", [[[1, 2]], [[3]]]),
        ([[], None], "list<item: string>", [[], None]),
        ([[1], "a"], "string", ["[1]", '"a"']),
        ([[1, "a"]], "string", ['[1,"a"]']),
        ([{"a": 1}, {"a": 2}], "struct<a: int64>", [{"a": 1}, {"a": 2}]),
        ([{"a": 1}, {}], "struct<a: int64>", [{"a": 1}, {"a": None}]),
        ([{"a": 1}, {"a": "x"}], "string", ['{"a":1}', '{"a":"x"}']),
        ([{"a": 1}, {"b": 1}, {"c": 1}], "string", ['{"a":1}', '{"b":1}', '{"c":1}']),
        ([{"a": 1, "A": 2}], "string", ['{"a":1,"A":2}']),
        ([{}], "string", ["{}"]),
    ],
)
def test_a_property_has_one_type_that_holds_all_values(values, kind, stored):
    found = column("x", *values)
    assert str(found.type) == kind
    assert found.to_pylist() == stored


def test_a_property_that_only_the_last_of_many_items_has_is_kept():
    items = [item(str(n), {"n": n}) for n in range(2 * BATCH_ROWS + 1)]
    items[-1]["properties"]["late"] = 0.5
    records, table = records_of(items)
    assert [batch.num_rows for batch in records.batches()] == [BATCH_ROWS, BATCH_ROWS, 1]
    assert table["late"].to_pylist()[-2:] == [None, 0.5]
    assert table["n"].to_pylist() == list(range(2 * BATCH_ROWS + 1))


def test_batches_can_be_read_again_and_side_by_side():
    records, table = records_of([item(str(n)) for n in range(1500)])
    first, second = records.batches(), records.batches()
    pairs = list(zip(first, second, strict=True))
    assert len(pairs) == 2
    assert all(one.equals(other) for one, other in pairs)
    assert pa.Table.from_batches(records.batches(), records.schema).equals(table)


def test_stac_times_are_timestamps_and_others_stay_text():
    name = "2024-05-01T12:00:00+02:00"
    _, table = records_of([item("a", {"created": name, "s2:generation_time": name})])
    assert table["created"].type == pa.timestamp("us")
    assert table["created"].to_pylist() == [datetime(2024, 5, 1, 10)]
    assert table["s2:generation_time"].to_pylist() == [name]


def test_a_time_that_is_none_keeps_its_text_with_a_warning():
    items = [item("a", {"updated": "2024-05-01"}), item("b", {"updated": "soon"})]
    records, table = records_of(items)
    assert table["updated"].to_pylist() == ["2024-05-01", "soon"]
    assert any("updated" in warning for warning in records.warnings)


@pytest.mark.parametrize(
    ("properties", "expected", "n_warnings"),
    [
        ({"datetime": "2024-05-01"}, datetime(2024, 5, 1), 0),
        ({"datetime": None, "start_datetime": "2024"}, datetime(2024, 1, 1), 0),
        ({"datetime": "soon", "start_datetime": "2024-02"}, datetime(2024, 2, 1), 1),
        ({"datetime": None}, None, 0),
        ({"datetime": 5}, None, 1),
    ],
)
def test_datetime_falls_back_to_the_start_and_may_be_missing(properties, expected, n_warnings):
    records, table = records_of([item(properties=properties)])
    assert table["datetime"].to_pylist() == [expected]
    assert len(records.warnings) == n_warnings


def test_names_of_canonical_columns_are_not_overwritten():
    own = {"id": "x", "BBOX": 1, "assets": [1], "year": 3, "red_metadata": {"a": 1}, "crs": 5}
    records, table = records_of([item("i", own)])
    (row,) = table.to_pylist()
    assert row["id"] == "i"
    assert row["assets"]["red"]["href"] == "https://h/red.tif"
    assert row["id_property"] == "x"
    assert row["BBOX_property"] == 1
    assert row["year_property"] == 3
    assert row["red_metadata_property"] == {"a": 1}
    assert row["crs_property"] == 5
    assert len(records.warnings) == len(own)
    assert any("red_metadata" in warning for warning in records.warnings)


def test_columns_that_differ_in_case_only_are_kept_apart():
    _, table = records_of([item("i", {"Platform": "a", "platform": "b"})])
    names = [name for name in table.schema.names if name.lower().startswith("platform")]
    assert names == ["Platform", "platform_property"]
    assert table["platform_property"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    ("properties", "asset", "epsg", "crs"),
    [
        ({"proj:epsg": 32633}, {}, 32633, "EPSG:32633"),
        ({"proj:epsg": "32633"}, {}, 32633, "EPSG:32633"),
        ({"proj:code": "EPSG:3857", "proj:epsg": 1}, {}, 3857, "EPSG:3857"),
        ({"proj:code": "ESRI:102008"}, {}, None, "ESRI:102008"),
        ({"proj:code": None, "proj:epsg": None}, {"proj:epsg": 4326}, 4326, "EPSG:4326"),
        ({"proj:epsg": -5}, {}, None, None),
        ({"proj:wkt2": "nonsense"}, {}, None, None),
        ({"proj:code": {"a": 1}}, {}, None, None),
        ({}, {}, None, None),
    ],
)
def test_the_crs_is_what_the_item_or_all_of_its_assets_say(properties, asset, epsg, crs):
    _, table = records_of([item("i", properties, {"red": tif("r", **asset)})])
    assert table["proj:epsg"].to_pylist() == [epsg]
    assert table["crs"].to_pylist() == [crs]


def test_assets_of_unlike_crs_leave_it_open():
    assets = {"a": tif("a", **{"proj:epsg": 1}), "b": tif("b", **{"proj:epsg": 2})}
    _, table = records_of([item("i", assets=assets)])
    assert table["crs"].to_pylist() == [None]


def test_wkt_and_projjson_find_their_code_or_stay_text():
    pyproj = pytest.importorskip("pyproj")
    known = pyproj.CRS(32719)
    own = pyproj.CRS("+proj=laea +lat_0=3 +lon_0=7")
    _, table = records_of(
        [
            item("a", {"proj:wkt2": known.to_wkt()}),
            item("b", {"proj:projjson": known.to_json_dict()}),
            item("c", {"proj:wkt2": own.to_wkt()}),
        ]
    )
    assert table["proj:epsg"].to_pylist() == [32719, 32719, None]
    assert pyproj.CRS(table["crs"][2].as_py()) == own


SPLIT = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[178, 0], [180, 0], [180, 1], [178, 1], [178, 0]]],
        [[[-180, 0], [-179, 0], [-179, 1], [-180, 1], [-180, 0]]],
    ],
}


@pytest.mark.parametrize(
    ("geometry", "bbox", "wkt", "box"),
    [
        ({"type": "Point", "coordinates": [1, 2, 3]}, None, "POINT (1 2)", [1, 2, 1, 2]),
        (None, [1, 2, 3, 4], "POLYGON ((1 2, 1 4, 3 4, 3 2, 1 2))", [1, 2, 3, 4]),
        (None, [1, 2, -9, 3, 4, 9], "POLYGON ((1 2, 1 4, 3 4, 3 2, 1 2))", [1, 2, 3, 4]),
        (None, None, None, None),
        (SPLIT, None, shapely.from_geojson(json.dumps(SPLIT)).wkt, [178, 0, -179, 1]),
        ({"type": "Polygon", "coordinates": []}, [1, 2, 1, 2], None, [1, 2, 1, 2]),
        ({"type": "Blob"}, [1, 2, 1, 2], None, [1, 2, 1, 2]),
        ({"type": "Point", "coordinates": [1, 2]}, [1, 2, 3], "POINT (1 2)", [1, 2, 1, 2]),
        ({"type": "Point", "coordinates": [1, 2]}, [1, 9, 3, 4], "POINT (1 2)", [1, 2, 1, 2]),
    ],
)
def test_geometry_and_bbox_complete_each_other(geometry, bbox, wkt, box):
    _, table = records_of([item(geometry=geometry, bbox=bbox)])
    found = table["bbox"].to_pylist()[0]
    assert (found and list(found.values())) == box
    stored = table["geometry"].to_pylist()[0]
    if wkt is not None:
        assert shapely.equals(shapely.from_wkb(stored), shapely.from_wkt(wkt))
    else:
        assert (stored is None) == (box is None)


def test_a_box_across_the_antimeridian_becomes_two_polygons():
    _, table = records_of([item(geometry=None, bbox=[170, -1, -170, 1])])
    shape = shapely.from_wkb(table["geometry"].to_pylist()[0])
    assert shape.area == pytest.approx(20 * 2)
    assert table["bbox"].to_pylist() == [{"xmin": 170.0, "ymin": -1.0, "xmax": -170.0, "ymax": 1.0}]


def test_the_band_of_an_asset_of_one_sample_has_the_name_of_its_key():
    one = {"eo:bands": [{"name": "B04"}]}
    (row,) = bands_of({"red": tif("r", **one), "nir": tif("n", type=None)})
    assert list(row) == ["red", "nir"]
    assert row["red"] == {"href": "https://h/r.tif", "band_index": 0}


@pytest.mark.parametrize("field", ["bands", "eo:bands", "raster:bands"])
def test_samples_of_an_asset_are_bands_in_their_order(field):
    image = tif("i", **{field: [{"name": "R"}, {"name": "G"}, {"name": "NIR"}]})
    (row,) = bands_of({"image": image})
    assert {name: asset["band_index"] for name, asset in row.items()} == {"R": 0, "G": 1, "NIR": 2}


def test_samples_without_a_name_are_numbered_from_one():
    (row,) = bands_of({"image": tif("i", **{"raster:bands": [{}, {}]})})
    assert {name: asset["band_index"] for name, asset in row.items()} == {
        "image_1": 0,
        "image_2": 1,
    }


def test_a_sample_whose_name_is_taken_in_its_asset_is_numbered():
    names = ["red", "rededge", "rededge", "nir"]
    image = tif("i", bands=[{"eo:common_name": name} for name in names])
    (row,) = bands_of({"image": image})
    assert {name: asset["band_index"] for name, asset in row.items()} == {
        "red": 0,
        "rededge": 1,
        "image_3": 2,
        "nir": 3,
    }


def test_bands_of_stac_0_8_are_indices_into_those_of_the_item():
    bands = [{"name": "R"}, {"name": "G"}, {"name": "B"}]
    image = tif("i", **{"eo:bands": [2, 0]})
    _records, table = records_of([item("i", {"eo:bands": bands}, {"image": image})])
    assert list(table["assets"].to_pylist()[0]) == ["B", "R"]


def test_a_sample_name_that_two_assets_have_carries_the_key():
    visual = tif("v", **{"eo:bands": [{"name": "red"}, {"name": "green"}]})
    (row,) = bands_of({"red": tif("r"), "green": tif("g"), "visual": visual})
    assert list(row) == ["red", "green", "visual_red", "visual_green"]


def test_items_that_order_their_samples_unlike_are_followed():
    def image(*names):
        return {"image": tif("i", bands=[{"name": name} for name in names])}

    rows = bands_of(image("R", "G", "B"), image("G", "R"))
    assert rows[0]["R"]["band_index"] == 0
    assert rows[1]["R"]["band_index"] == 1
    assert rows[1]["B"] is None


@pytest.mark.parametrize(
    "asset",
    [
        {"href": "a.json", "type": "application/json"},
        {"href": "a.tif", "type": "image/tiff", "roles": ["thumbnail"]},
        {"href": "a.jp2", "type": "image/jp2"},
        {"href": "a.png"},
        {"type": "image/tiff"},
        {"href": None, "type": "image/tiff"},
        "a.tif",
        None,
    ],
)
def test_what_is_no_raster_is_no_band(asset):
    (row,) = bands_of({"red": tif("r"), "x": asset})
    assert list(row) == ["red"]


@pytest.mark.parametrize(
    "asset",
    [
        {"href": "a.TIF"},
        {"href": "https://h/a.tif?x=1", "type": "application/octet-stream"},
        {"href": "a", "type": "image/vnd.stac.geotiff; cloud-optimized=true"},
        {"href": "a", "type": "image/tiff; application=geotiff", "roles": ["metadata"]},
        {"href": "a", "type": "image/tiff", "roles": ["overview", "data"]},
    ],
)
def test_what_is_a_raster_is_a_band(asset):
    (row,) = bands_of({"x": asset})
    assert list(row) == ["x"]


def test_the_main_href_is_preferred_and_an_alternate_helps_out():
    other = {"s3": {"href": "s3://b/r.tif"}}
    (row,) = bands_of({"a": tif("r", alternate=other), "b": tif("x", href=None, alternate=other)})
    assert row["a"]["href"] == "https://h/r.tif"
    assert row["b"]["href"] == "s3://b/r.tif"


def test_bands_choose_and_unknown_ones_are_listed():
    assets = {"red": tif("r"), "nir": tif("n")}
    (row,) = bands_of(assets, bands=["nir"])
    assert list(row) == ["nir"]
    with pytest.raises(UnknownBandError, match="expected one of nir, red, got 'NIR'"):
        bands_of(assets, bands=["NIR"])


def test_a_band_map_names_assets_of_any_type():
    assets = {"B4": {"href": "r.jp2", "type": "image/jp2"}, "B8": tif("n")}
    (row,) = bands_of(assets, band_map={"red": "B4"})
    assert row == {"red": {"href": "r.jp2", "band_index": 0}}
    with pytest.raises(
        InputError, match=r"band_map: expected asset keys of these items \(B4, B8\)"
    ):
        bands_of(assets, band_map={"red": "B5"})


def test_band_maps_reach_the_samples_of_one_asset():
    image = tif("i", **{"eo:bands": [{"name": "R"}, {"name": "G"}]})
    (row,) = bands_of({"image": image}, band_map={"G": "image", "R": "image"})
    assert {name: asset["band_index"] for name, asset in row.items()} == {"G": 1, "R": 0}
    plain = {"image": tif("i")}
    with pytest.raises(InputError, match="band_index_map"):
        bands_of(plain, band_map={"r": "image", "g": "image"})
    both = {"band_map": {"r": "image", "g": "image"}, "band_index_map": {"r": 0, "g": 1}}
    (row,) = bands_of(plain, **both)
    assert row["g"]["band_index"] == 1
    (row,) = bands_of(plain, band_index_map={"r": 2, "g": 0})
    assert {name: asset["band_index"] for name, asset in row.items()} == {"r": 2, "g": 0}
    with pytest.raises(InputError, match="0 or more"):
        bands_of(plain, band_index_map={"r": -1})
    with pytest.raises(UnknownBandError):
        bands_of({"a": tif("a"), "b": tif("b")}, band_index_map={"c": 0})


def test_items_without_any_raster_keep_all_assets():
    items = [item("a", assets={"data": {"href": "a.laz"}, "bare": {"title": "no href"}})]
    records, table = records_of(items)
    assert table["assets"].to_pylist() == [{"data": {"href": "a.laz", "band_index": 0}}]
    assert records.warnings == [
        "assets: none is a TIFF, so all are kept, but there are no pixels to read"
    ]
    with pytest.raises(InputError, match="at least one with an href, got 'bare'"):
        records_of([item(assets={"bare": {"title": "no href"}})])


def test_other_assets_are_left_out_where_any_item_has_a_raster():
    items = [item("a", assets={"data": {"href": "a.laz"}}), item("b", assets={"dem": tif("b")})]
    records, table = records_of(items)
    assert [field.name for field in records.schema.field("assets").type] == ["dem"]
    assert table.num_rows == 2
    assert records.warnings == []


def test_no_items_are_no_rows():
    records, table = records_of([])
    assert table.num_rows == 0
    assert records.warnings == []


def test_no_token_of_a_signed_href_is_stored():
    secrets = {
        "sas": "https://h/a.tif?st=1&se=2&sp=rl&sv=2024&sr=c&sig=SECRET",
        "s3": "https://h/b.tif?X-Amz-Signature=SECRET&X-Amz-Date=1&versionId=7",
        "token": "https://user:SECRET@h/c.tif?token=SECRET&x=1",
    }
    (row,) = bands_of({key: {"href": href, "type": "image/tiff"} for key, href in secrets.items()})
    assert [asset["href"] for asset in row.values()] == [
        "https://h/a.tif",
        "https://h/b.tif?versionId=7",
        "https://h/c.tif?x=1",
    ]


def test_hrefs_are_rewritten_by_their_longest_prefix():
    rewrites = {"https://h/": "s3://b/", "https://h/deep/": "/mnt/"}
    assets = {"a": tif("a"), "b": tif("deep/b")}
    (row,) = bands_of(assets, url_rewrite=rewrites)
    assert [asset["href"] for asset in row.values()] == ["s3://b/a.tif", "/mnt/b.tif"]


def test_warnings_of_one_kind_are_counted_after_the_first_hundred():
    items = [item(str(n), {"datetime": "soon"}) for n in range(250)]
    records, _ = records_of(items)
    assert len(records.warnings) == 101
    assert records.warnings[-1].startswith("150 more items")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(values=st.lists(JSON, min_size=1, max_size=5))
def test_a_column_gives_back_every_json_value(values):
    seen = PropertyType()
    for value in values:
        seen.add(value)
    kind = seen.arrow()
    stored = to_array(values, kind).to_pylist()
    for given_, found in zip(values, stored, strict=True):
        if kind is None:
            found = None if found is None else json.loads(found)
        assert is_alike(given_, found), (given_, found, kind)


def is_alike(given_, found):
    """Equal but for NULL members that a struct adds and integers that became doubles."""
    if isinstance(given_, dict):
        extra = set(found) - set(given_)
        return all(found[name] is None for name in extra) and all(
            is_alike(inner, found[name]) for name, inner in given_.items()
        )
    if isinstance(given_, list):
        return len(given_) == len(found) and all(map(is_alike, given_, found))
    if isinstance(given_, int) and isinstance(found, float):
        return math.isclose(given_, found)
    return given_ == found


@settings(max_examples=examples(60, 150), deadline=None)
@given(
    parts=st.fixed_dictionaries(
        {},
        optional={
            "geometry": JSON,
            "bbox": JSON | st.lists(st.floats(), max_size=6),
            "collection": JSON,
            "links": JSON,
            "properties": st.dictionaries(
                st.sampled_from(["datetime", "proj:epsg", "proj:code", "created", "eo:bands", "x"]),
                JSON,
            ),
            "assets": st.dictionaries(
                st.text(max_size=3),
                JSON
                | st.fixed_dictionaries(
                    {"href": st.just("a.tif") | JSON},
                    optional={
                        "type": JSON,
                        "roles": JSON,
                        "bands": JSON,
                        "eo:bands": JSON,
                        "proj:epsg": JSON,
                        "alternate": JSON,
                    },
                ),
            ),
        },
    )
)
def test_hostile_items_end_as_records_or_as_one_of_our_errors(parts, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    features = [item("good"), {**item("bad"), **parts}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    try:
        _, table = records_of(read_items(StacSource(str(path))))
    except RasteretError:
        return
    assert table["id"].to_pylist() == ["good", "bad"]


@pytest.mark.parametrize("code", [32633, 32633.0, Decimal("32633.0"), "32633", "EPSG:32633"])
def test_an_epsg_code_may_be_written_as_any_number(code):
    _, table = records_of(
        [item("a", {"proj:epsg": float(code) if isinstance(code, Decimal) else code})]
    )
    assert table["proj:epsg"].to_pylist() == [32633]
    source = pa.table({"id": ["a"], "u": ["a.tif"], "proj:epsg": [code]})
    found = records_from_table(source.to_reader, href_column="u")
    assert pa.Table.from_batches(found.batches())["proj:epsg"].to_pylist() == [32633]


def test_a_year_is_a_datetime():
    _, table = records_of([item("a", {"datetime": 2021})])
    assert table["datetime"].to_pylist() == [datetime(2021, 1, 1)]


def test_a_property_named_collection_is_kept_where_it_differs():
    items = [item("a", {"collection": "other"}, collection="c"), item("b", collection="c")]
    _, table = records_of(items)
    assert table["collection"].to_pylist() == ["c", "c"]
    assert table["collection_property"].to_pylist() == ["other", None]
    _, table = records_of([item("a", {"collection": "c"}, collection="c")])
    assert "collection_property" not in table.schema.names


def test_bands_that_differ_in_case_are_told():
    items = [item("a", assets={"B04": tif("x"), "b04": tif("y")})]
    records, _ = records_of(items)
    assert [field.name for field in records.schema.field("assets").type] == ["B04", "b04_2"]
    assert records.warnings == ["band b04_2: is b04 in the items, a name that another band has"]
