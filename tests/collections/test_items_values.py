"""Values on their way from documents to columns: times, hrefs, boxes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import urljoin, urlsplit

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rasteret_sql.collections.datetimes import Instants, format_micros, parse_micros, parse_range
from rasteret_sql.collections.footprints import (
    bbox_of,
    boxes_meet,
    geometry_of,
    parse_bbox,
    parse_geometry,
)
from rasteret_sql.collections.hrefs import resolve, unsigned
from rasteret_sql.errors import InputError
from rasteret_sql.units import BBox

pytestmark = pytest.mark.any_duckdb

AT = st.datetimes(
    min_value=datetime(1, 1, 3),
    max_value=datetime(9999, 12, 29),
    timezones=st.builds(timezone, st.builds(timedelta, minutes=st.integers(-1439, 1439))),
)


@given(at=AT)
def test_rfc_3339_times_come_back_in_utc(at):
    micros = parse_micros(at.isoformat())
    assert micros == parse_micros(at)
    assert datetime.fromisoformat(format_micros(micros)) == at.astimezone(UTC)


@given(day=st.dates())
def test_the_days_of_a_month_fill_its_range_without_a_gap(day):
    month = parse_range((f"{day:%Y-%m}".rjust(7, "0"), f"{day:%Y-%m}".rjust(7, "0")))
    whole = parse_range((day, day))
    assert whole.end - whole.start == 86_400_000_000 - 1
    assert month.start <= whole.start < whole.end <= month.end


@pytest.mark.parametrize("text", ["", "x", "2024-13", "2024-02-30", "24:00", "2024-1-1Z9"])
def test_what_is_no_time_is_a_value_error(text):
    with pytest.raises(ValueError, match="'"):
        parse_micros(text)


@pytest.mark.parametrize(
    ("given_", "written"),
    [
        (("2020", "2021"), "2020-01-01T00:00:00Z/2021-12-31T23:59:59.999999Z"),
        (("2020-02", None), "2020-02-01T00:00:00Z/.."),
        ((None, "2020-02"), "../2020-02-29T23:59:59.999999Z"),
        (("..", ""), "../.."),
        (["2020-01-01T00:00:00+01:00", ".."], "2019-12-31T23:00:00Z/.."),
    ],
)
def test_ranges_are_written_as_an_api_wants_them(given_, written):
    assert parse_range(given_).rfc3339() == written


def test_a_range_that_ends_first_is_refused():
    with pytest.raises(InputError, match="start <= end"):
        parse_range(("2021", "2020"))


@given(a=st.integers(0, 20), b=st.integers(0, 20), start=st.integers(0, 20), end=st.integers(0, 20))
def test_ranges_meet_as_sets_of_instants_do(a, b, start, end):
    wanted = set(range(a, b + 1))
    given_ = set(range(start, end + 1))
    if wanted and given_:
        assert Instants(a, b).meets(start, end) == bool(wanted & given_)
        assert Instants(None, b).meets(start, end) == (start <= b)
        assert Instants(a, None).meets(start, end) == (end >= a)


PLAIN = st.text("abc0-._~/", max_size=12)


@given(path=PLAIN, names=st.lists(st.text("abcxyz", min_size=1, max_size=5), unique=True))
def test_other_queries_are_left_as_they_are(path, names):
    query = "&".join(f"{name}=%20{n}" for n, name in enumerate(names))
    href = f"https://host/{path}" + (f"?{query}" if query else "")
    assert unsigned(href) == href


@given(path=PLAIN, kept=st.lists(st.sampled_from(["v=1", "x", "date=2"]), unique=True))
@pytest.mark.parametrize(
    "signature",
    [
        "sv=1&se=2&sr=b&sp=r&sig=SECRET%3D",
        "X-Amz-Algorithm=a&X-Amz-Credential=SECRET&x-amz-signature=SECRET",
        "AWSAccessKeyId=SECRET&Signature=SECRET&Expires=1",
        "X-Goog-Signature=SECRET",
        "Policy=SECRET&Signature=SECRET&Key-Pair-Id=SECRET",
        "token=SECRET",
        "access_token=SECRET&api_key=SECRET",
    ],
)
def test_no_part_of_a_signature_stays(path, kept, signature):
    href = "https://host/" + path + "?" + "&".join([*kept, signature])
    found = unsigned(href)
    assert "SECRET" not in found
    assert urlsplit(found).query == "&".join(kept)
    assert unsigned(found) == found


@pytest.mark.parametrize("query", ["expires=1", "sp=r&sv=1", "policy=b"])
def test_words_of_signatures_alone_are_no_signature(query):
    assert unsigned(f"https://host/a.tif?{query}") == f"https://host/a.tif?{query}"


@given(href=PLAIN.filter(lambda text: text and not text.startswith("/")))
def test_relative_hrefs_of_the_web_follow_rfc_3986(href):
    base = "https://host/a/b/item.json"
    assert resolve(href, base) == urljoin(base, href)


@pytest.mark.parametrize(
    ("href", "base", "found"),
    [
        ("a.tif", "/data/x/i.json", "/data/x/a.tif"),
        ("./../a.tif", "/data/x/i.json", "/data/a.tif"),
        ("a.tif", "file:///data/x%20y/i.json", "/data/x y/a.tif"),
        ("../a.tif", "s3://b/k/i.json", "s3://b/a.tif"),
        ("../../../a.tif", "s3://b/k/i.json", "s3://b/a.tif"),
        ("s3://b/a.tif", "https://h/i.json", "s3://b/a.tif"),
        ("/vsicurl/https://h/a.tif", "x.json", "https://h/a.tif"),
        ("/vsigs/b/a.tif", None, "gs://b/a.tif"),
        ("/abs/a.tif", "/data/i.json", "/abs/a.tif"),
        ("a.tif", None, "a.tif"),
    ],
)
def test_hrefs_start_at_their_document(href, base, found):
    assert resolve(href, base) == found


LON = st.integers(-179, 179).map(float)
BOXES = st.tuples(LON, st.integers(-90, -1), LON, st.integers(1, 90)).map(lambda t: BBox(*t))


@given(a=BOXES, b=BOXES)
def test_boxes_meet_where_their_polygons_do(a, b):
    assert boxes_meet(a, b) == shapely.intersects(geometry_of(a), geometry_of(b))


@given(box=BOXES.filter(lambda box: box.xmax < box.xmin))
def test_a_box_across_the_antimeridian_comes_back_from_its_polygons(box):
    assert bbox_of(geometry_of(box)) == box


@pytest.mark.parametrize(
    "value", [[1, 2, 3], [1, 5, 2, 4], "1,2,3,4", [None, 1, 2, 3], {"a": 1}, 5]
)
def test_what_is_no_box_is_a_value_error_or_nothing(value):
    if isinstance(value, dict):
        assert parse_bbox(value) is None
    else:
        with pytest.raises(ValueError, match=r"\S"):
            parse_bbox(value)


@pytest.mark.parametrize("value", [b"\x00", "POINT (", {"type": "Point", "coordinates": ["a"]}, 7])
def test_what_is_no_geometry_is_a_value_error(value):
    with pytest.raises(ValueError, match=r"\S"):
        parse_geometry(value)


def test_empty_geometries_are_none():
    for value in (None, {}, "POLYGON EMPTY", shapely.Point().wkb):
        assert parse_geometry(value) is None
