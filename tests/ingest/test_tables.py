"""Tables of records of many spellings; geopandas' and DuckDB's own files where they exist."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_sql.errors import InputError, UnknownBandError
from rasteret_sql.ingest.records import BATCH_ROWS
from rasteret_sql.ingest.table.tables import records_from_table
from rasteret_sql.schema import BBOX

pytestmark = pytest.mark.any_duckdb

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
BOX = shapely.box(1, 2, 3, 4)
UTM = pyproj.CRS(32631)


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


def records_of(table, **options):
    if isinstance(table, dict):
        table = pa.table(table)
    records = records_from_table(lambda: table.to_reader(max_chunksize=2), **options)
    found = pa.Table.from_batches(records.batches(), records.schema)
    found.validate(full=True)
    return records, found


def plain(n_rows=1, **columns):
    table = {
        "id": [f"r{n}" for n in range(n_rows)],
        "datetime": pa.array([datetime(2024, 5, 1)] * n_rows),
        "geometry": [BOX.wkb] * n_rows,
        "assets": [{"red": {"href": "r.tif", "band_index": 0}}] * n_rows,
    }
    table.update(columns)
    return {name: values for name, values in table.items() if values is not None}


def test_canonical_columns_come_first_and_the_rest_is_untouched():
    extra = pa.array([[1, 2]], pa.list_(pa.int16()))
    _, table = records_of(plain(cloud=extra, B01_metadata=[{"tile_offsets": [1]}]))
    assert table.schema.names == [
        "id",
        "datetime",
        "geometry",
        "bbox",
        "assets",
        "collection",
        "proj:epsg",
        "crs",
        "cloud",
        "B01_metadata",
    ]
    assert table["cloud"].type == extra.type
    assert table["B01_metadata"].to_pylist() == [{"tile_offsets": [1]}]


def test_aliases_keep_the_source_and_give_way_to_what_is_there():
    table = plain(name=["n"], when=["2020-01-01"])
    _, found = records_of(table, column_map={"name": "id", "when": "start_datetime"})
    (row,) = found.to_pylist()
    assert row["id"] == "r0"
    assert row["name"] == "n"
    del table["id"], table["datetime"]
    _, found = records_of(table, column_map={"name": "id", "when": "datetime"})
    (row,) = found.to_pylist()
    assert row["id"] == row["name"] == "n"
    assert row["datetime"] == datetime(2020, 1, 1)
    assert row["when"] == "2020-01-01"


@pytest.mark.parametrize(
    ("ids", "stored"),
    [
        (pa.array([1, 2], pa.int32()), ["1", "2"]),
        (pa.array([2**63, 1], pa.uint64()), [str(2**63), "1"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_ids_become_text(ids, stored):
    _, table = records_of(plain(2, id=ids))
    assert table["id"].to_pylist() == stored
    assert table.schema.field("id") == pa.field("id", pa.string(), nullable=False)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (pa.array([0], pa.timestamp("s")), datetime(1970, 1, 1)),
        (pa.array([1], pa.timestamp("ns")), datetime(1970, 1, 1)),
        (
            pa.array([1500], pa.timestamp("ms", "Europe/Paris")),
            datetime(1970, 1, 1, 0, 0, 1, 500000),
        ),
        (pa.array([datetime(2024, 1, 1, 5, tzinfo=UTC)]), datetime(2024, 1, 1, 5)),
        (pa.array([date(2024, 2, 29)]), datetime(2024, 2, 29)),
        (pa.array([date(2024, 2, 29)], pa.date64()), datetime(2024, 2, 29)),
        (pa.array([2021], pa.int16()), datetime(2021, 1, 1)),
        (pa.array([2021.0]), datetime(2021, 1, 1)),
        (pa.array(["2021"]), datetime(2021, 1, 1)),
        (pa.array(["2021-07"]), datetime(2021, 7, 1)),
        (pa.array(["2021-07-04"]), datetime(2021, 7, 4)),
        (pa.array(["2021-07-04 10:00:00"]), datetime(2021, 7, 4, 10)),
        (pa.array(["2021-07-04T10:00:00.5z"]), datetime(2021, 7, 4, 10, 0, 0, 500000)),
        (pa.array(["2021-07-04T10:00:00.123456789+05:30"]), datetime(2021, 7, 4, 4, 30, 0, 123456)),
        (pa.array(["2016-12-31T23:59:60Z"]), datetime(2017, 1, 1)),
        (pa.array(["2021"]).dictionary_encode(), datetime(2021, 1, 1)),
        (pa.array([""]), None),
        (pa.nulls(1), None),
        (pa.nulls(1, pa.int64()), None),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_datetimes_of_every_spelling_are_utc(values, stored):
    _, table = records_of(plain(datetime=values))
    assert table["datetime"].type == pa.timestamp("us")
    assert table["datetime"].to_pylist() == [stored]


@pytest.mark.parametrize(
    "values",
    [
        ["soon"],
        [20240501],
        [2021.5],
        [float("nan")],
        [b"2024"],
        [True],
        pa.array([2**63 - 1], pa.timestamp("s")),  # DuckDB's infinity
        pa.array([2**63 - 1], pa.timestamp("ms")),
        pa.array([2**63 - 1], pa.timestamp("us")),
        pa.array([1 - 2**63], pa.timestamp("ns")),
        pa.array([2**31 - 1], pa.date32()),
        pa.array([-735_000], pa.date32()),  # before Christ
    ],
)
def test_a_datetime_that_is_none_is_an_error(values):
    with pytest.raises(InputError, match=r"^datetime: expected"):
        records_of(plain(datetime=values))


def test_the_start_is_the_datetime_of_rows_without_one():
    at = [datetime(2024, 1, 1), None, None]
    start = [datetime(2023, 1, 1), datetime(2023, 2, 1), None]
    _, table = records_of(plain(3, datetime=at, start_datetime=start))
    assert table["datetime"].to_pylist() == [at[0], start[1], None]
    assert table["start_datetime"].to_pylist() == start


def test_a_start_that_is_no_time_is_not_asked_for_in_vain():
    _, table = records_of(plain(datetime=["2024"], start_datetime=["unknown"]))
    assert table["datetime"].to_pylist() == [datetime(2024, 1, 1)]


def test_without_a_datetime_records_survive_with_a_warning():
    records, table = records_of(plain(datetime=None))
    assert table["datetime"].to_pylist() == [None]
    assert records.warnings == ["datetime: no such column, so it is NULL; name one in column_map"]


NATIVE = pa.list_(pa.list_(pa.struct([("x", pa.float64()), ("y", pa.float64())])))
INTERLEAVED = pa.list_(pa.list_(pa.list_(pa.float64(), 2)))
RING = [{"x": x, "y": y} for x, y in BOX.exterior.coords]


@pytest.mark.parametrize(
    "geometry",
    [
        [BOX.wkb],
        pa.array([BOX.wkb], pa.large_binary()),
        pa.array([BOX.wkb], pa.binary_view()),
        [shapely.to_wkb(shapely.set_srid(BOX, 4326), include_srid=True)],
        [shapely.to_wkb(shapely.force_3d(BOX, 9.0))],
        [BOX.wkt],
        [f"SRID=4326;{BOX.wkt}"],
        [shapely.to_geojson(BOX)],
        [json.loads(shapely.to_geojson(BOX))],
        pa.array([[RING]], NATIVE),
        pa.array(
            [[[list(xy) for xy in BOX.exterior.coords]]],
            pa.list_(pa.list_(pa.list_(pa.float64(), 2))),
        ),
    ],
    ids=[
        "wkb",
        "large",
        "view",
        "ewkb",
        "wkb-z",
        "wkt",
        "ewkt",
        "geojson",
        "struct",
        "geoarrow",
        "interleaved",
    ],
)
def test_geometries_of_every_form_are_wkb(geometry):
    records, table = records_of(plain(geometry=geometry))
    assert records.warnings == []
    stored = shapely.from_wkb(table["geometry"].to_pylist()[0])
    assert shapely.equals(stored, BOX)
    assert not stored.has_z
    assert shapely.get_srid(stored) == 0
    assert table["bbox"].to_pylist() == [{"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}]


def test_a_point_of_geoarrow_is_a_geometry():
    _, table = records_of(plain(geometry=[{"x": 5.0, "y": 6.0}]))
    assert shapely.from_wkb(table["geometry"].to_pylist()[0]).wkt == "POINT (5 6)"


def in_utm(shape):
    move = pyproj.Transformer.from_crs(4326, UTM, always_xy=True)
    return shapely.transform(shape, lambda xy: np.column_stack(move.transform(xy[:, 0], xy[:, 1])))


def with_geoarrow_crs(table, crs):
    table = pa.table(table)
    position = table.schema.get_field_index("geometry")
    metadata = {
        "ARROW:extension:name": "geoarrow.wkb",
        "ARROW:extension:metadata": json.dumps({"crs": crs}),
    }
    field = table.schema.field(position).with_metadata(metadata)
    return table.set_column(position, field, table.column(position))


def geo_key(**column):
    columns = {"geometry": {"encoding": "WKB", **column}}
    return json.dumps(
        {"version": "1.0.0", "primary_column": "geometry", "columns": columns}
    ).encode()


@pytest.mark.parametrize("how", ["geoarrow", "geo", "geo-wkt", "ewkb", "argument"])
def test_a_projected_footprint_comes_to_degrees_wherever_its_crs_is_said(how):
    shape = in_utm(BOX)
    wkb = shapely.to_wkb(shapely.set_srid(shape, 32631 if how == "ewkb" else 0), include_srid=True)
    table = plain(geometry=[wkb], bbox=[dict(zip(BBOX.names, shape.bounds, strict=True))])
    options = {}
    if how == "geoarrow":
        table = with_geoarrow_crs(table, UTM.to_json_dict())
    elif how == "geo":
        options = {"geo_metadata": geo_key(crs=UTM.to_json_dict())}
    elif how == "geo-wkt":
        options = {"geo_metadata": geo_key(crs=UTM.to_wkt())}
    elif how == "argument":
        options = {"geometry_crs": 32631}
    _, found = records_of(table, **options)
    bounds = list(found["bbox"].to_pylist()[0].values())
    assert bounds == pytest.approx([1, 2, 3, 4], abs=5e-3)
    stored = shapely.from_wkb(found["geometry"].to_pylist()[0])
    assert stored.bounds == pytest.approx(tuple(bounds))


def test_edges_are_densified_before_they_are_transformed():
    wide = shapely.box(200_000, 5_000_000, 800_000, 5_100_000)
    _, table = records_of(plain(geometry=[wide.wkb]), geometry_crs=32631)
    stored = shapely.from_wkb(table["geometry"].to_pylist()[0])
    move = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    exact = shapely.transform(
        shapely.segmentize(wide, 1000),
        lambda xy: np.column_stack(move.transform(xy[:, 0], xy[:, 1])),
    )
    assert shapely.symmetric_difference(stored, exact).area < 2e-3 * exact.area
    assert shapely.get_num_coordinates(stored) < 100


def test_a_projected_footprint_across_the_antimeridian_is_cut_there():
    crossing = shapely.box(750_000, 7_900_000, 900_000, 8_000_000)
    _, table = records_of(plain(geometry=[crossing.wkb]), geometry_crs="EPSG:32760")
    (box,) = table["bbox"].to_pylist()
    assert box["xmin"] > 179 > -179 > box["xmax"] > -180.0
    stored = shapely.from_wkb(table["geometry"].to_pylist()[0])
    assert stored.geom_type == "MultiPolygon"
    assert stored.area < 3


def test_degrees_of_a_declared_lonlat_crs_stay_as_they_are():
    for crs in ("OGC:CRS84", "EPSG:4326", pyproj.CRS(4326).to_json_dict(), None):
        _, table = records_of(with_geoarrow_crs(plain(), crs))
        assert shapely.equals_exact(shapely.from_wkb(table["geometry"].to_pylist()[0]), BOX)


def test_metres_without_a_crs_are_refused_with_what_to_give():
    with pytest.raises(InputError, match="geometry_crs"):
        records_of(plain(geometry=[in_utm(BOX).wkb]))


def test_an_unknown_crs_names_the_argument():
    table = with_geoarrow_crs(plain(), "not a crs")
    with pytest.raises(InputError, match="geometry_crs"):
        records_of(table)


@pytest.mark.parametrize(
    "columns",
    [
        {"bbox": [{"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}]},
        {"bbox": [[1.0, 2.0, 3.0, 4.0]]},
        {"bbox": [[1, 2, -9, 3, 4, 9]]},
        {"bbox": pa.array([[1.0, 2.0, 3.0, 4.0]], pa.list_(pa.float32(), 4))},
        {"xmin": [1], "ymin": [2], "xmax": [3], "ymax": [4]},
        {"bbox_minx": [1.0], "bbox_miny": [2.0], "bbox_maxx": [3.0], "bbox_maxy": [4.0]},
    ],
)
def test_a_missing_geometry_is_made_of_the_box(columns):
    _, table = records_of(plain(geometry=None, **columns))
    assert table["bbox"].to_pylist() == [{"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}]
    assert shapely.equals(shapely.from_wkb(table["geometry"].to_pylist()[0]), BOX)


def test_neither_geometry_nor_box_is_null_and_reported():
    records, table = records_of(plain(3, geometry=[b"junk", None, BOX.wkb]))
    assert table["geometry"].null_count == table["bbox"].null_count == 2
    assert records.warnings == [
        "geometry: a geometry that is empty or can't be read; it is NULL",
        "geometry: neither geometry nor bbox; NULL, but for a bbox that headers give (2 rows)",
    ]


def test_rows_without_an_href_are_reported():
    table = plain(3, assets=None, url=["a.tif", None, ""])
    records, _ = records_of(table, href_column="url")
    assert records.warnings == ["href_column: NULL or empty; the record has no band (2 rows)"]
    records, _ = records_of(plain(assets=None, url=["a.tif"]), href_column="url")
    assert records.warnings == []


@pytest.mark.parametrize("name", ["geom", "wkb_geometry", "shape"])
def test_the_geometry_column_is_found_by_name_or_metadata(name):
    table = plain(geometry=None, **{name: [BOX.wkb]})
    geo = json.dumps({"primary_column": name, "columns": {name: {}}}).encode()
    _, found = records_of(table, geo_metadata=geo if name == "shape" else None)
    assert found["geometry"].null_count == 0
    assert name not in found.schema.names


HREFS = {"B1": "https://h/1.tif", "B2": "https://h/2.tif"}
EXPECTED = {name: {"href": href, "band_index": 0} for name, href in HREFS.items()}


@pytest.mark.parametrize(
    "assets",
    [
        [EXPECTED],
        [{name: {"href": href} for name, href in HREFS.items()}],
        [HREFS],
        pa.array([list(HREFS.items())], pa.map_(pa.string(), pa.string())),
        pa.array(
            [[(name, {"href": href}) for name, href in HREFS.items()]],
            pa.map_(pa.string(), pa.struct([("href", pa.string())])),
        ),
        [json.dumps(HREFS)],
        [json.dumps(EXPECTED)],
        [[{"key": name, "value": href} for name, href in HREFS.items()]],
        [[{"key": name, "value": {"href": href}} for name, href in HREFS.items()]],
        [[{"band": name, "href": href, "band_index": 0} for name, href in HREFS.items()]],
        [[[name, href] for name, href in HREFS.items()]],
    ],
    ids=[
        "structs",
        "hrefs-only",
        "strings",
        "map",
        "map-struct",
        "json",
        "json-structs",
        "pairs",
        "pair-structs",
        "list",
        "lists",
    ],
)
def test_assets_of_every_form_are_structs(assets):
    _, table = records_of(plain(assets=assets))
    assert table["assets"].to_pylist() == [EXPECTED]


def test_bands_of_all_rows_are_kept_and_absent_ones_are_null():
    maps = [[("a", "1.tif")], None, [("b", "2.tif"), ("a", None)], []]
    _, table = records_of(plain(4, assets=pa.array(maps, pa.map_(pa.string(), pa.string()))))
    assert table["assets"].to_pylist() == [
        {"a": {"href": "1.tif", "band_index": 0}, "b": None},
        {"a": None, "b": None},
        {"a": None, "b": {"href": "2.tif", "band_index": 0}},
        {"a": None, "b": None},
    ]


def test_assets_that_say_that_they_are_no_rasters_are_left_out_unless_asked_for():
    assets = [
        {
            "red": {"href": "r.tif", "type": "image/tiff"},
            "view": {"href": "v.png", "type": "image/png"},
        }
    ]
    for form in (assets, [json.dumps(assets[0])]):
        _, table = records_of(plain(assets=form))
        assert list(table["assets"].to_pylist()[0]) == ["red"]
        _, table = records_of(plain(assets=form), bands=["view"])
        assert list(table["assets"].to_pylist()[0]) == ["view"]


def test_hrefs_of_a_column_are_the_bands_of_the_index_map():
    table = plain(2, assets=None, url=["https://h/a.tif?sig=S&se=1", None])
    _, found = records_of(table, href_column="url", band_index_map={"r": 0, "nir": 3})
    assert found["assets"].to_pylist() == [
        {
            "r": {"href": "https://h/a.tif", "band_index": 0},
            "nir": {"href": "https://h/a.tif", "band_index": 3},
        },
        {"r": None, "nir": None},
    ]
    assert found["url"].to_pylist() == ["https://h/a.tif", None]


def test_hrefs_of_a_column_are_one_band_without_an_index_map():
    table = plain(assets=None, url=["a.tif"])
    _, found = records_of(table, href_column="url")
    assert found["assets"].to_pylist() == [{"b1": {"href": "a.tif", "band_index": 0}}]
    _, found = records_of(table, href_column="url", bands=["dem"])
    assert found["assets"].to_pylist() == [{"dem": {"href": "a.tif", "band_index": 0}}]
    with pytest.raises(InputError, match="band_index_map"):
        records_of(table, href_column="url", bands=["a", "b"])


def test_hrefs_are_rewritten_and_unsigned():
    table = plain(assets=[{"red": "https://h/r.tif?token=S"}])
    _, found = records_of(table, url_rewrite={"https://h/": "s3://b/"})
    assert found["assets"].to_pylist()[0]["red"]["href"] == "s3://b/r.tif"


def test_a_remote_table_can_not_point_at_local_files():
    assets = [{"a": "/etc/a.tif", "b": "https://h/b.tif"}, {"a": "https://h/a.tif", "b": None}]
    table = plain(2, assets=assets)
    records, found = records_of(table, is_remote=True)
    (first, second) = found["assets"].to_pylist()
    assert first == {"a": None, "b": {"href": "https://h/b.tif", "band_index": 0}}
    assert second["a"]["href"] == "https://h/a.tif"
    assert [(one.id, one.band, one.href) for one in records.failures] == [("r0", "a", "/etc/a.tif")]
    for options in ({"allow_local": True}, {"url_rewrite": {"/etc/": "/mnt/"}}):
        records, found = records_of(table, is_remote=True, **options)
        assert records.failures == []
        assert found["assets"].to_pylist()[0]["a"] is not None


def test_an_index_map_reaches_into_the_only_asset_or_by_name():
    _, found = records_of(plain(), band_index_map={"r": 0, "g": 1})
    assert found["assets"].to_pylist()[0]["g"] == {"href": "r.tif", "band_index": 1}
    _, found = records_of(plain(assets=[HREFS]), band_index_map={"B2": 4})
    assert [asset["band_index"] for asset in found["assets"].to_pylist()[0].values()] == [0, 4]
    for form in ([HREFS], [json.dumps(HREFS)]):
        with pytest.raises(UnknownBandError):
            records_of(plain(assets=form), band_index_map={"B9": 4})


def test_bands_choose_and_order():
    _, found = records_of(plain(assets=[HREFS]), bands=["B2"])
    assert list(found["assets"].to_pylist()[0]) == ["B2"]
    with pytest.raises(UnknownBandError, match="expected one of B1, B2"):
        records_of(plain(assets=[HREFS]), bands=["b1"])


@pytest.mark.parametrize(
    ("columns", "epsg", "crs"),
    [
        ({"proj:epsg": pa.array([32633], pa.int64())}, 32633, "EPSG:32633"),
        ({"proj:code": ["EPSG:32633"]}, 32633, "EPSG:32633"),
        ({"crs": ["EPSG:32633"]}, 32633, "EPSG:32633"),
        ({"crs": ["local grid"]}, None, "local grid"),
        ({"crs": [None], "proj:epsg": [None]}, None, None),
        ({"proj:wkt2": [pyproj.CRS(32633).to_wkt()]}, 32633, "EPSG:32633"),
        ({"proj:projjson": [pyproj.CRS(32633).to_json()]}, 32633, "EPSG:32633"),
    ],
)
def test_the_crs_of_the_raster_is_read_from_its_columns(columns, epsg, crs):
    _, table = records_of(plain(**columns))
    assert table["proj:epsg"].to_pylist() == [epsg]
    assert table["crs"].to_pylist() == [crs]
    assert table["proj:epsg"].type == pa.int32()


def test_partition_keys_of_the_source_go_if_they_say_the_same_and_are_renamed_if_not():
    records, table = records_of(plain(year=[2024], month=[5]))
    assert not {"year", "month"} & set(table.schema.names)
    assert records.warnings == []
    records, table = records_of(plain(year=[1999], month=[5]))
    assert table["year_column"].to_pylist() == [1999]
    assert "month" not in table.schema.names
    assert records.warnings == ["year: differs from datetime, so it is column year_column"]


def test_columns_that_duckdb_would_take_for_partition_keys_give_way_too():
    records, table = records_of(plain(Year=[1999], MONTH=[5], yearly=["a"]))
    assert table["Year_column"].to_pylist() == [1999]
    assert table["yearly"].to_pylist() == ["a"]
    assert not {"Year", "MONTH"} & set(table.schema.names)
    assert records.warnings == ["Year: differs from datetime, so it is column Year_column"]


def test_columns_choose_what_passes_through():
    _, table = records_of(plain(a=[1], b=[2]), columns=["b"])
    assert "b" in table.schema.names
    assert "a" not in table.schema.names


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (plain(id=None), {}, ["id", "columns datetime, geometry, assets", "column_map"]),
        (plain(assets=None), {}, ["assets", "href_column"]),
        (plain(id=[None]), {}, ["id", "row 0", '"where"']),
        (plain(id=[[1]]), {}, ["id", "column_map"]),
        (plain(), {"column_map": {"x": "id"}}, ["column_map", "id, datetime"]),
        (plain(), {"columns": ["x"]}, ["columns"]),
        (plain(), {"href_column": "x"}, ["href_column"]),
        (plain(n=[1]), {"href_column": "geometry"}, ["href_column"]),
        (plain(), {"band_index_map": {"red": -1}}, ["band_index_map", "0 or more"]),
        (plain(assets=[5]), {}, ["assets", "href_column"]),
        (plain(assets=["{"]), {}, ["assets", "JSON"]),
        (plain(assets=[[{"href": "a"}]]), {}, ["assets", "band"]),
        (plain(assets=[json.dumps({"a": "1", "A": "2"})]), {}, ["assets", "case"]),
        (plain(geometry=[5]), {}, ["geometry", "column_map"]),
        (plain(bbox=["x"]), {}, ["bbox", "column_map"]),
        (plain(a=[1], b=[1]), {"column_map": {"a": "z", "b": "z"}}, ["column_map", "two"]),
    ],
)
def test_an_error_says_which_argument_to_give(table, options, words):
    with pytest.raises(InputError) as caught:
        records_of(table, **options)
    for word in words:
        assert word in caught.value.message


def test_duplicate_ids_are_named():
    records, table = records_of(plain(3, id=["a", "b", "a"]))
    assert table.num_rows == 3
    assert records.warnings == ["id: a: more than one row has this id"]


def test_the_source_is_read_once_and_batches_stay_small():
    table = pa.table(plain(2500))
    n_opened = 0

    def reader():
        nonlocal n_opened
        n_opened += 1
        return table.to_reader()

    records = records_from_table(reader)
    for _ in range(2):
        assert [batch.num_rows for batch in records.batches()] == [BATCH_ROWS, BATCH_ROWS, 500]
    assert n_opened == 1


def test_an_empty_table_has_its_columns():
    empty = pa.table(plain()).slice(0, 0)
    records, table = records_of(empty)
    assert table.num_rows == 0
    assert table.schema.names[:3] == ["id", "datetime", "geometry"]
    assert records.warnings == []


@pytest.mark.parametrize(
    "name",
    [
        "stac/stac-geoparquet/naip.parquet",
        "stac/rustac/core/data/extended-item.parquet",
        "stac/rustac/duckdb/data/100-sentinel-2-items.parquet",
    ],
)
def test_stac_geoparquet_is_a_table_of_records_too(name):
    path = DATA / name
    if not path.exists():
        pytest.skip("the shared data is not here")
    schema = pq.read_schema(path)
    records, table = records_of(
        pq.read_table(path), geo_metadata=(schema.metadata or {}).get(b"geo")
    )
    assert table.num_rows == pq.read_metadata(path).num_rows
    assert table["geometry"].null_count == 0
    bands = [field.name for field in records.schema.field("assets").type]
    assert bands
    assert not {"thumbnail", "tilejson", "metadata"} & set(bands)


def vector_files():
    folder = DATA / "vector"
    return sorted(path.relative_to(DATA).as_posix() for path in folder.rglob("*.parquet"))


@pytest.mark.parametrize("name", vector_files())
def test_geoparquet_of_other_writers_gives_footprints_in_degrees(name):
    table = pq.read_table(DATA / name).slice(0, 500)
    geo = (table.schema.metadata or {}).get(b"geo")
    ids = pa.array(range(table.num_rows))
    drop = [name for name in ("id", "assets", "datetime") if name in table.schema.names]
    table = table.drop_columns(drop).append_column("id", ids)
    table = table.append_column("href", pa.array(["a.tif"] * table.num_rows))
    _, found = records_of(table, geo_metadata=geo, href_column="href")
    boxes = [box for box in found["bbox"].to_pylist() if box]
    assert boxes
    assert all(box["xmin"] >= -180.001 and box["xmax"] <= 180.001 for box in boxes)
    assert all(-90.001 <= box["ymin"] <= box["ymax"] <= 90.001 for box in boxes)


LON = st.floats(-179, 179)
LAT = st.floats(-80, 80)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.none() | st.tuples(LON, LAT, st.floats(0, 1), st.floats(0, 1)), max_size=6))
def test_every_box_encloses_its_geometry(rows):
    shapes = [r and shapely.box(r[0], r[1], r[0] + r[2], r[1] + r[3]).wkb for r in rows]
    assets = pa.array([{"red": "r.tif"}] * len(rows), pa.struct([("red", pa.string())]))
    table = plain(len(rows), geometry=pa.array(shapes, pa.binary()), assets=assets)
    _, found = records_of(table)
    for row, given_ in zip(found.to_pylist(), rows, strict=True):
        assert (row["bbox"] is None) == (given_ is None)
        if given_ is not None:
            bounds = shapely.from_wkb(row["geometry"]).bounds
            assert tuple(row["bbox"].values()) == pytest.approx(bounds)
