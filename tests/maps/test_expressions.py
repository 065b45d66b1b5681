"""What may be typed as SQL: an expression over columns, and nothing more."""

from __future__ import annotations

import contextlib

import pytest

from rasteret_sql.errors import InputError
from rasteret_sql.maps.expressions import MAX_LENGTH, checked

pytestmark = pytest.mark.any_duckdb

NAMES = ("B04", "B08", "SCL", "eo:cloud_cover", "datetime", "bbox")

VALUES = {
    "(B08 - B04) / (B08 + B04)": ("B08", "B04"),
    "rasteret_ndvi(B04, B08)": ("B04", "B08"),
    "CASE WHEN SCL IN (4, 5) THEN sqrt(B04) ELSE -B08 END": ("SCL", "B04", "B08"),
    "\"eo:cloud_cover\" < 20 AND datetime >= DATE '2024-01-01'": ("eo:cloud_cover", "datetime"),
    "NOT (B04 IS NULL OR B04 BETWEEN 1 AND 2)": ("B04",),
    "datetime > TIMESTAMP '2024-01-01' + INTERVAL 3 days": ("datetime",),
    "extract(month FROM datetime) NOT IN (1, 2)": ("datetime",),
    "bbox.xmin > 3": ("bbox",),
    "B04::DOUBLE ** 2 -- squared": ("B04",),
    "rasteret_qa_bit(B04, 3) OR (B04 & 3) = 1": ("B04",),
    "TRY_CAST(B04 AS INTEGER) IS DISTINCT FROM 3": ("B04",),
    "'B08'": (),
}
REFUSED = {
    "(SELECT 1)": "a subquery",
    "EXISTS (FROM s2)": "a subquery",
    "B04 IN (SELECT 1)": "a subquery",
    "B04) FROM s2 WHERE (true": "a statement",
    "B04) UNION SELECT (1": "a statement",
    "B04), (B08": "a statement",
    "B04; DROP TABLE s2": "syntax error",
    "B04 /*": "unterminated",
    "'B04": "unterminated",
    "read_text('/etc/passwd')": "read_text",
    "getenv('HOME')": "getenv",
    "getvariable('secret')": "getvariable",
    "current_setting('secret_directory')": "current_setting",
    "query('SELECT 1')": "query",
    "nextval('s')": "nextval",
    "other.places.abs(B04)": "abs",
    "length(replace(replace('aaaa', 'a', 'aaaa'), 'a', 'aaaa'))": "replace",
    "(NULL::INTEGER[100000][100000]) IS NULL": "a CAST to a plain type, got array",
    "CAST(B04 AS STRUCT(a INTEGER))": "a CAST to a plain type, got struct",
    "B04::other.kind": "a CAST to a plain type",
    "repeat('x', 1000000000)": "repeat",
    "range(1000000000)": "range",
    "list_transform([B04], lambda x: x)": "list_transform",
    "sum(B04)": "sum",
    "sum(B04) OVER ()": "a window",
    "random()": "random",
    "error('x')": "error",
    "*": "a star",
    "COLUMNS('B.*')": "a star",
    "$1": "a parameter",
    "#1": "a positional reference",
    "(B04, B08)": "row",
    "b04": "case-sensitive",
    "other.B04": "other",
    "B05": "B05",
    "": "nothing",
    "B04 + " * 400 + "1": "characters",
}


@pytest.mark.parametrize("text", VALUES)
def test_an_expression_tells_which_columns_it_reads(text):
    found = checked("expression", text, NAMES, "columns")
    assert found.names == VALUES[text]
    assert found.sql.startswith("(")
    assert found.sql.endswith("\n)" if "--" in text else ")")


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match=r"^where: expected ") as refused:
        checked("where", text, NAMES, "columns")
    assert REFUSED[text].lower() in str(refused.value).lower()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("length(replace(B04, '1', '11'))", "functions that compute numbers, got length; leave it"),
        ("B04 || B08", "functions that compute numbers, got ||; leave it out"),
        ("B04 LIKE '1%'", "functions that compute numbers, got ~~; leave it out"),
        ("list_contains([1, 2], B04)", "functions that compute numbers, got list_contains"),
        ("B04::VARCHAR < '2'", "a CAST to a number, got VARCHAR; leave it out"),
        ("(NULL::INTEGER[100000]) IS NULL", "a CAST to a number, got array"),
        ("year(DATE '2024-01-01') + B04", "functions that compute numbers, got year"),
    ],
)
def test_bands_are_numbers_and_so_is_what_is_computed_from_them(text, told):
    with pytest.raises(InputError) as refused:
        checked("expression", text, NAMES, "bands")
    assert f"expression: expected {told}".lower() in str(refused.value).lower()


@pytest.mark.parametrize(
    "text", ["B04::INT8 + B08::float", "'nan'::DOUBLE + B04", "CAST(B04 AS DECIMAL(9, 2)) + pi()"]
)
def test_numbers_may_be_cast_to_numbers(text):
    assert "B04" in checked("expression", text, NAMES, "bands").names


@pytest.mark.parametrize("text", ["NOT " * 480 + "true", "-(" * 600 + "1" + ")" * 600])
def test_many_levels_end_in_no_fault_of_the_server(text):
    assert len(text) <= MAX_LENGTH
    with contextlib.suppress(InputError):
        assert checked("expression", text, NAMES, "columns").names == ()
