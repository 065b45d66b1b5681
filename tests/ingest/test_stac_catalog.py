"""Static catalogs: links, loops, old versions, broken and hostile documents."""

from __future__ import annotations

import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_sql.errors import CollectionError, InputError, NotFoundError
from rasteret_sql.ingest.stac.documents import LOCATION
from rasteret_sql.ingest.stac.items import records_from_items
from rasteret_sql.ingest.stac.search import StacSource, read_items

pytestmark = pytest.mark.any_duckdb


def item(name, *, href="./red.tif", version="1.0.0", **extra):
    return {
        "type": "Feature",
        "stac_version": version,
        "id": name,
        "geometry": {"type": "Point", "coordinates": [10.0, 50.0]},
        "bbox": [10.0, 50.0, 10.0, 50.0],
        "properties": {"datetime": "2024-05-01T12:00:00Z"},
        "links": [],
        "assets": {"red": {"href": href, "type": "image/tiff"}},
        **extra,
    }


def catalog(name, *links, kind="Catalog", **extra):
    found = [{"rel": rel, "href": href} for rel, href in links]
    return {"type": kind, "id": name, "stac_version": "1.0.0", "links": found, **extra}


def collection(name, *links, **extra):
    return catalog(name, *links, kind="Collection", extent={}, **extra)


def write(folder, documents):
    for name, document in documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = document if isinstance(document, str) else json.dumps(document)
        path.write_text(text)
    return folder


def read(location, *, fetch_text=None, **conditions):
    warnings: list[str] = []
    source = StacSource(str(location), **conditions)
    return list(read_items(source, fetch_text=fetch_text, warnings=warnings)), warnings


class Web:
    """Documents by URL; counts what is asked for."""

    def __init__(self, documents):
        self.documents = {url: json.dumps(doc).encode() for url, doc in documents.items()}
        self.asked: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, url):
        with self.lock:
            self.asked.append(url)
        if url not in self.documents:
            raise NotFoundError.expected(url, "a document", "none", "check the link")
        return self.documents[url]


def test_items_come_in_link_order_depth_first(tmp_path):
    write(
        tmp_path,
        {
            "catalog.json": catalog("root", ("child", "a/catalog.json"), ("item", "z.json")),
            "a/catalog.json": catalog("a", ("item", "1.json"), ("child", "./b/catalog.json")),
            "a/b/catalog.json": catalog("b", ("item", "../2.json")),
            "a/1.json": item("1"),
            "a/2.json": item("2"),
            "z.json": item("z"),
        },
    )
    found, warnings = read(tmp_path)
    assert [one["id"] for one in found] == ["1", "2", "z"]
    assert warnings == []
    assert found[1]["assets"]["red"]["href"] == str(tmp_path / "a" / "red.tif")
    assert found[1][LOCATION] == str(tmp_path / "a" / "2.json")


def test_loops_and_documents_linked_twice_are_read_once(tmp_path):
    links = [("child", "catalog.json"), ("child", "./x/../catalog.json"), ("item", "i.json")]
    root = catalog("root", *links, ("item", "./i.json"), ("child", "c.json"))
    back = catalog("c", ("child", "catalog.json"), ("item", "i.json"))
    write(tmp_path, {"catalog.json": root, "i.json": item("i"), "c.json": back})
    found, warnings = read(tmp_path / "catalog.json")
    assert [one["id"] for one in found] == ["i"]
    assert warnings == []


def test_a_thousand_levels_are_no_recursion(tmp_path):
    documents = {f"{n}.json": catalog(f"{n}", ("child", f"{n + 1}.json")) for n in range(1500)}
    documents["1500.json"] = item("deep")
    found, _ = read(write(tmp_path, documents) / "0.json")
    assert [one["id"] for one in found] == ["deep"]


def test_one_broken_document_is_a_warning_and_not_the_end(tmp_path):
    links = [("item", f"{name}.json") for name in ("a", "missing", "html", "cut", "noid", "b")]
    write(
        tmp_path,
        {
            "catalog.json": catalog("root", *links),
            "a.json": item("a"),
            "b.json": item("b"),
            "html.json": "<html>",
            "cut.json": '{"type": "Feature", "id": ',
            "noid.json": {**item("x"), "id": None},
        },
    )
    found, warnings = read(tmp_path)
    assert [one["id"] for one in found] == ["a", "b"]
    faults = ["No such file", "HTML or XML page", "at line 1, column", "no id"]
    assert len(warnings) == len(faults)
    for warning, fault in zip(warnings, faults, strict=True):
        assert fault in warning
        assert ".json" in warning


def test_if_nothing_can_be_read_the_first_reason_is_raised(tmp_path):
    write(tmp_path, {"catalog.json": catalog("root", ("item", "gone.json"))})
    with pytest.raises(CollectionError, match=r"gone\.json"):
        read(tmp_path)


def test_a_collection_is_chosen_by_id_and_others_are_not_fetched():
    base = "https://host/"
    web = Web(
        {
            f"{base}catalog.json": catalog("root", ("child", "s2.json"), ("child", "l8.json")),
            f"{base}s2.json": collection("s2", ("item", "s2/1.json")),
            f"{base}l8.json": collection("l8", ("item", "l8/1.json")),
            f"{base}s2/1.json": item("s2-1"),
            f"{base}l8/1.json": item("l8-1"),
        }
    )
    found, _ = read(f"{base}catalog.json", fetch_text=web, collection="s2")
    assert [(one["id"], one["collection"]) for one in found] == [("s2-1", "s2")]
    assert f"{base}l8/1.json" not in web.asked
    with pytest.raises(InputError, match="expected one of s2, l8, got 's3'"):
        read(f"{base}catalog.json", fetch_text=web, collection="s3")


def test_old_versions_share_properties_of_their_collection(tmp_path):
    old = item("old", version="0.8.0")
    old["properties"] = {"datetime": "2018-01-01T00:00:00Z", "eo:bands": [{"name": "R"}]}
    del old["assets"]["red"]["type"]
    parent = {
        "id": "c",
        "stac_version": "0.8.0",
        "extent": {},
        "properties": {"eo:platform": "x", "datetime": "never"},
        "links": [{"rel": "item", "href": "old.json"}],
    }
    write(tmp_path, {"collection.json": parent, "old.json": old})
    found, _ = read(tmp_path)
    assert found[0]["properties"]["eo:platform"] == "x"
    assert found[0]["properties"]["datetime"] == "2018-01-01T00:00:00Z"
    assert found[0]["collection"] == "c"


def test_a_page_of_items_leads_to_the_next():
    def page(*names, following=None):
        links = [{"rel": "next", "href": following}] if following else []
        return {"type": "FeatureCollection", "features": list(map(item, names)), "links": links}

    web = Web(
        {
            "s3://bucket/c/collection.json": collection("c", ("items", "items.json")),
            "s3://bucket/c/items.json": page("a", "b", following="./items2.json"),
            "s3://bucket/c/items2.json": page("c", following="items.json"),
        }
    )
    found, _ = read("s3://bucket/c/collection.json", fetch_text=web)
    assert [one["id"] for one in found] == ["a", "b", "c"]
    assert found[0]["assets"]["red"]["href"] == "s3://bucket/c/red.tif"


def test_an_address_of_one_page_of_items_is_followed_to_the_last():
    first = {"type": "FeatureCollection", "features": [item("a")]}
    second = {"type": "FeatureCollection", "features": [item("b")]}
    first["links"] = [{"rel": "next", "href": "https://host/items?page=2"}]
    second["links"] = [{"rel": "next", "href": "https://host/search", "method": "POST"}]
    web = Web({"https://host/items": first, "https://host/items?page=2": second})
    found, warnings = read("https://host/items", fetch_text=web)
    assert [one["id"] for one in found] == ["a", "b"]
    assert warnings == ["https://host/items: the next page is not read; search the API instead"]


def test_a_saved_page_says_that_there_are_more(tmp_path):
    page = {"type": "FeatureCollection", "features": [item("a")]}
    page["links"] = [{"rel": "next", "href": "https://host/items?page=2"}]
    write(tmp_path, {"page.json": page})
    found, warnings = read(tmp_path / "page.json")
    assert [one["id"] for one in found] == ["a"]
    assert len(warnings) == 1
    assert "one page of several" in warnings[0]


def test_remote_documents_are_fetched_side_by_side_and_stay_in_order():
    together = threading.Barrier(8, timeout=10)
    names = [f"{n:03d}" for n in range(8)]

    def fetch(url):
        if url.endswith("catalog.json"):
            links = [("item", f"{name}.json") for name in names]
            return json.dumps(catalog("root", *links)).encode()
        together.wait()  # deadlocks, and breaks, unless eight fetches are under way
        return json.dumps(item(url[-8:-5])).encode()

    found, _ = read("https://host/catalog.json", fetch_text=fetch)
    assert [one["id"] for one in found] == names


HOSTILE = ["/etc/passwd", "file:///etc/passwd", "FILE:///etc/x.tif", "file:/etc/x.tif", "C:\\x.tif"]


@pytest.mark.parametrize("href", [*HOSTILE, "\\\\server\\share\\x.tif", "/vsicurl/file:///x.tif"])
@pytest.mark.parametrize("is_linked_from_here", [False, True])
def test_a_remote_item_can_not_point_at_local_files(tmp_path, href, is_linked_from_here):
    web = Web({"https://host/i.json": item("i", href=href)})
    location = "https://host/i.json"
    if is_linked_from_here:
        write(tmp_path, {"catalog.json": catalog("r", ("item", location))})
        location = str(tmp_path)
    source = StacSource(location)
    found = list(read_items(source, fetch_text=web))
    records = records_from_items(found, is_remote=source.is_remote)
    (batch,) = records.batches()
    assert batch.column("assets").to_pylist() == [{"red": None}]
    assert [(one.id, one.band) for one in records.failures] == [("i", "red")]
    assert "the item is remote" in records.failures[0].error
    allowed = records_from_items(found, is_remote=source.is_remote, allow_local=True)
    assert next(allowed.batches()).column("assets")[0].as_py()["red"] is not None
    assert allowed.failures == []


@pytest.mark.parametrize("scheme", ["https", "s3"])
def test_a_remote_catalog_can_not_link_local_documents(tmp_path, scheme):
    write(tmp_path, {"secret.json": item("secret")})
    secret = str(tmp_path / "secret.json")
    root = f"{scheme}://host/a/catalog.json"
    links = [("item", f"file://{secret}"), ("item", secret), ("item", "./i.json")]
    web = Web({root: catalog("root", *links), f"{scheme}://host/a/i.json": item("i")})
    found, warnings = read(root, fetch_text=web)
    assert [one["id"] for one in found] == ["i"]
    assert len(warnings) == 2
    assert any("links a local file" in warning for warning in warnings)


def test_a_link_with_an_absolute_path_stays_on_its_server():
    root = "https://host/a/catalog.json"
    web = Web({root: catalog("root", ("item", "/b/i.json")), "https://host/b/i.json": item("i")})
    found, _ = read(root, fetch_text=web)
    assert found[0]["assets"]["red"]["href"] == "https://host/b/red.tif"


def test_a_rewrite_of_the_caller_may_lead_to_local_files():
    web = Web({"https://host/i.json": item("i", href="/eodata/a/red.tif")})
    found = list(read_items(StacSource("https://host/i.json"), fetch_text=web))
    records = records_from_items(found, is_remote=True, url_rewrite={"/eodata/": "/mnt/eodata/"})
    asset = next(records.batches()).column("assets")[0].as_py()["red"]
    assert asset["href"] == "/mnt/eodata/a/red.tif"
    assert records.failures == []


def test_an_item_of_a_local_file_may_point_at_local_files(tmp_path):
    saved = item("i", href="/data/red.tif")
    saved["links"] = [{"rel": "self", "href": "https://api/items/i"}]
    write(tmp_path, {"i.json": {"type": "FeatureCollection", "features": [saved]}})
    records = records_from_items(read_items(StacSource(str(tmp_path / "i.json"))))
    assert next(records.batches()).column("assets")[0].as_py()["red"]["href"] == "/data/red.tif"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", json.dumps([item("a"), item("b")])),
        ("collections.json", json.dumps([{"features": [item("a")]}, {"features": [item("b")]}])),
        ("really-lines.json", f"{json.dumps(item('a'))}\n{json.dumps(item('b'))}\n"),
        ("lines.ndjson", f"{json.dumps(item('a'))}\n\n{json.dumps(item('b'))}"),
        ("bom.jsonl", f"\ufeff{json.dumps(item('a'))}\r\n{json.dumps(item('b'))}\r\n"),
    ],
)
def test_files_of_items_come_in_many_forms(tmp_path, name, text):
    write(tmp_path, {name: text})
    found, warnings = read(tmp_path / name)
    assert [one["id"] for one in found] == ["a", "b"]
    assert warnings == []


def test_an_item_without_type_is_no_catalog(tmp_path):
    bare = {key: value for key, value in item("a").items() if key != "type"}
    write(tmp_path, {"bare.json": bare | {"links": []}})
    found, warnings = read(tmp_path / "bare.json")
    assert [one["id"] for one in found] == ["a"]
    assert warnings == []


@pytest.mark.parametrize("kind", ["Catalog", "Collection"])
def test_a_catalog_that_links_no_item_says_so(tmp_path, kind):
    write(tmp_path, {"c.json": {"type": kind, "id": "c", "links": []}})
    found, warnings = read(tmp_path / "c.json")
    assert found == []
    assert warnings == [f"{tmp_path / 'c.json'}: links no item that can be read"]


def test_a_bad_line_is_a_warning_with_its_number(tmp_path):
    write(tmp_path, {"x.ndjson": f"{json.dumps(item('a'))}\n{{oops\n{json.dumps(item('b'))}\n"})
    found, warnings = read(tmp_path / "x.ndjson")
    assert [one["id"] for one in found] == ["a", "b"]
    assert len(warnings) == 1
    assert "x.ndjson line 2" in warnings[0]


@pytest.mark.parametrize("text", ["", "   ", "<html>", "{", "[1, 2]", '"text"', "\x00\x01", "null"])
def test_what_is_no_stac_is_refused_by_name(tmp_path, text):
    write(tmp_path, {"x.json": text})
    with pytest.raises(CollectionError, match=r"x\.json"):
        read(tmp_path / "x.json")


def test_a_folder_without_a_catalog_and_a_missing_file_are_errors(tmp_path):
    with pytest.raises(CollectionError, match=r"catalog\.json, collection\.json or Parquet"):
        read(tmp_path)
    with pytest.raises(CollectionError, match="No such file"):
        read(tmp_path / "none.json")


def test_a_filter_needs_an_api(tmp_path):
    write(tmp_path, {"i.json": item("i")})
    with pytest.raises(InputError, match="CQL2"):
        read(tmp_path / "i.json", filter="eo:cloud_cover < 10")


@pytest.mark.parametrize(
    ("condition", "subject"),
    [
        ({"bbox": [0, 1, 2]}, "bbox"),
        ({"bbox": [0, 5, 1, 4]}, "bbox"),
        ({"bbox": [500000, 0, 600000, 10]}, "bbox"),
        ({"date_range": ["2024-02-30", None]}, "date_range"),
        ({"date_range": ["2024-03", "2024-02"]}, "date_range"),
        ({"date_range": "2024"}, "date_range"),
        ({"query": "{"}, "query"),
        ({"query": {"a": {"like": 1}}}, "query"),
        ({"max_items": 0}, "max_items"),
        ({"intersects": "POLYGON"}, "intersects"),
        ({"bbox": [0, 0, 1, 1], "intersects": "POINT (0 0)"}, "bbox"),
    ],
)
def test_a_malformed_condition_names_its_argument(condition, subject):
    with pytest.raises(InputError, match=f"^{subject}: expected"):
        read("nowhere.json", **condition)


def boxed(name, bbox):
    one = item(name, bbox=bbox)
    one["geometry"] = None
    return one


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ((9, 49, 11, 51), ["here"]),
        ((170, -20, -170, -10), ["fiji", "fiji-3d", "east", "west"]),
        ((-180, -90, 180, 90), ["here", "fiji", "fiji-3d", "east", "west"]),
        ((175, -16, 178, -15), ["east"]),
        ((179.5, -16, 180, -15), ["fiji", "fiji-3d", "east"]),
    ],
)
def test_boxes_meet_across_the_antimeridian_and_in_three_dimensions(tmp_path, bbox, expected):
    features = [
        boxed("here", [10, 50, 10, 50]),
        boxed("fiji", [179, -16, -179, -15]),
        boxed("fiji-3d", [179, -16, -1000, -179, -15, 4000]),
        boxed("east", [175, -16, 180, -15]),
        boxed("west", [-180, -16, -175, -15]),
    ]
    write(tmp_path, {"x.json": {"type": "FeatureCollection", "features": features}})
    found, _ = read(tmp_path / "x.json", bbox=bbox)
    assert [one["id"] for one in found] == expected


def test_a_stored_footprint_decides_where_its_box_is_too_large(tmp_path):
    triangle = item("t", bbox=[0, 0, 10, 10])
    ring = [[0, 0], [10, 0], [0, 10], [0, 0]]
    triangle["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    write(tmp_path, {"t.json": triangle})
    assert read(tmp_path / "t.json", bbox=(8, 8, 9, 9))[0] == []
    assert len(read(tmp_path / "t.json", bbox=(1, 1, 2, 2))[0]) == 1


@pytest.mark.parametrize(
    ("date_range", "is_found"),
    [
        (("2024-05-01", "2024-05-01"), True),
        (("2024-05", "2024-05"), True),
        (("2024", None), True),
        ((None, "2024-04"), False),
        (("..", "2024-05-01T11:59:59Z"), False),
        (("2024-05-01T14:00:00+02:00", ".."), True),
        (("2024-05-01T12:00:00.000001Z", ".."), False),
    ],
)
def test_the_last_day_of_a_range_counts_to_its_end(tmp_path, date_range, is_found):
    write(tmp_path, {"i.json": item("i")})
    assert bool(read(tmp_path / "i.json", date_range=date_range)[0]) == is_found


@pytest.mark.parametrize(
    ("date_range", "is_found"),
    [(("2024-01-15", "2024-01-20"), True), (("2024-02-02", None), False), ((None, "2023"), False)],
)
def test_an_interval_without_datetime_is_met_inside(tmp_path, date_range, is_found):
    one = item("i")
    one["properties"] = {
        "datetime": None,
        "start_datetime": "2024-01-01T00:00:00Z",
        "end_datetime": "2024-02-01T00:00:00Z",
    }
    write(tmp_path, {"i.json": one})
    assert bool(read(tmp_path / "i.json", date_range=date_range)[0]) == is_found


ASSETS = {"red": {"href": "https://host/red.tif", "type": "image/tiff"}, "info": None}


@pytest.mark.parametrize("form", ["struct", "json", "map"])
@pytest.mark.parametrize("bbox", ["struct", "list", "none"])
def test_stac_geoparquet_of_many_writers_is_read(tmp_path, form, bbox):
    asset_type = pa.struct([("href", pa.string()), ("type", pa.string())])
    assets = {
        "struct": pa.array([ASSETS], pa.struct([("red", asset_type), ("info", asset_type)])),
        "json": pa.array([json.dumps(ASSETS)]),
        "map": pa.array([list(ASSETS.items())], pa.map_(pa.string(), asset_type)),
    }[form]
    boxes = {
        "struct": pa.array([{"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}]),
        "list": pa.array([[1.0, 2.0, -5.0, 3.0, 4.0, 5.0]]),
        "none": pa.nulls(1),
    }[bbox]
    table = pa.table(
        {
            "id": ["a"],
            "geometry": [shapely.to_wkb(shapely.box(1, 2, 3, 4))],
            "bbox": boxes,
            "assets": assets,
            "datetime": pa.array([1_700_000_000_000], pa.timestamp("ms", "UTC")),
            "gsd": [10.0],
            "links": [[{"rel": "self", "href": "x"}]],
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")
    records = records_from_items(read_items(StacSource(str(tmp_path / "items.parquet"))))
    (row,) = pa.Table.from_batches(records.batches(), records.schema).to_pylist()
    assert row["assets"] == {"red": {"href": "https://host/red.tif", "band_index": 0}}
    assert row["bbox"] == {"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0}
    assert row["datetime"].isoformat() == "2023-11-14T22:13:20"
    assert row["gsd"] == 10.0
    assert "links" not in row


def test_a_folder_of_stac_geoparquet_is_read_file_by_file(tmp_path):
    assets = [{"red": {"href": "https://host/red.tif", "type": "image/tiff"}}]
    for year, name in ((2025, "b"), (2024, "a")):
        folder = tmp_path / "items.parquet" / f"year={year}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"id": [name], "assets": assets}), folder / "part-0.parquet")
    for location in (tmp_path / "items.parquet", tmp_path):
        found, warnings = read(location)
        assert [one["id"] for one in found] == ["a", "b"]
        assert warnings == []


def test_a_parquet_file_that_is_no_stac_says_what_to_use(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    with pytest.raises(CollectionError, match="rasteret_build_table"):
        read(tmp_path / "t.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(CollectionError, match="a Parquet file"):
        read(tmp_path / "bad.parquet")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(document=JSON)
def test_no_json_document_makes_the_reader_fail_but_as_it_promises(document, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document))
    try:
        outcome = read(path)[0]
    except CollectionError as error:
        outcome = error.message
    assert outcome == [] or "any.json" in outcome
