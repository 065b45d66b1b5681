"""SQL that a user of the map types: an expression over named columns, and nothing more.

DuckDB's own parser, in an instance of its own, turns the text into a tree. Only what is
listed here may stand in it, so a subquery, a statement, a file or a setting can't. Nothing
listed makes a value much larger than those it is made from: ``replace`` in ``replace``, or a
cast to ``INTEGER[100000]``, would take all memory.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from rasteret_sql.errors import InputError

MAX_LENGTH = 2000
"""Characters of an expression."""

_CLASSES = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"}
    | {"FUNCTION", "OPERATOR", "TYPE"}
)
_NUMERIC = frozenset(
    # operators, and what the parser makes of them
    "+ - * / // % ** ^ & | ~ << >> @ <> "  # noqa: SIM905
    # numbers
    "abs acos add asin atan atan2 cbrt ceil ceiling cos cot degrees divide even exp fdiv floor "
    "fmod gamma greatest isfinite isinf isnan least lgamma ln log log10 log2 mod multiply "
    "nextafter nullif pi pow power radians round round_even roundbankers sign signbit sin sqrt "
    "subtract tan tanh sinh cosh trunc xor bit_count "
    # no data
    "coalesce if ifnull "
    # of this package
    "rasteret_evi rasteret_ndvi rasteret_normalized_difference rasteret_qa_bit "
    "rasteret_scl_clear".split()
)
"""Functions of numbers, of fixed size."""

_OF_COLUMNS = frozenset(
    # operators, and what the parser makes of them
    "|| !~~ ~~ ~~* !~~* ~~~ list_value struct_pack "  # noqa: SIM905
    "like_escape not_like_escape ilike_escape not_ilike_escape "
    # text and lists
    "concat contains ends_with left length len lower prefix regexp_extract regexp_full_match "
    "regexp_matches right starts_with strip_accents strpos substr substring suffix trim "
    "ltrim rtrim upper split_part array_contains list_contains list_has list_position element_at "
    "struct_extract array_extract map_extract json_extract json_extract_string "
    # time
    "age century date_add date_diff date_part date_sub date_trunc datediff datepart datesub "
    "datetrunc day dayname dayofmonth dayofweek dayofyear decade epoch epoch_ms era hour "
    "isodow isoyear julian last_day make_date make_timestamp millennium minute month monthname "
    "quarter second strftime strptime to_days to_hours to_minutes to_months to_seconds to_weeks "
    "to_years time_bucket week weekday weekofyear year yearweek "
    # of this package
    "rasteret_bbox_intersects rasteret_solar_day rasteret_split".split()
)
"""Functions of text, lists and times: no result is longer than a few times its arguments."""

_NUMBERS = frozenset(
    "BOOLEAN BOOL TINYINT SMALLINT INTEGER INT BIGINT HUGEINT UTINYINT USMALLINT "  # noqa: SIM905
    "UINTEGER UBIGINT UHUGEINT INT1 INT2 INT4 INT8 SHORT LONG FLOAT FLOAT4 FLOAT8 REAL DOUBLE "
    "DECIMAL NUMERIC".split()
)
_TYPES_OF_COLUMNS = frozenset(
    "VARCHAR TEXT STRING DATE TIME TIMESTAMP DATETIME TIMESTAMPTZ TIMESTAMP_S "  # noqa: SIM905
    "TIMESTAMP_MS TIMESTAMP_NS INTERVAL UUID".split()
) | {"TIMESTAMP WITH TIME ZONE"}
_RULES = {
    "bands": (_NUMERIC, _NUMBERS, "numbers"),
    "columns": (_NUMERIC | _OF_COLUMNS, _NUMBERS | _TYPES_OF_COLUMNS, "a value"),
}
"""Of what is read: functions, types that a CAST may name, and what they compute."""


@dataclass(frozen=True)
class Expression:
    """An expression that was checked.

    Attributes:
        sql: What may stand for a value in a statement: the text, in parentheses.
        names: Columns that it reads, in the order in which they appear.
    """

    sql: str
    names: tuple[str, ...]


@functools.lru_cache(maxsize=256)
def checked(argument: str, text: str, names: Sequence[str], what: str) -> Expression:
    """Check that a text is an expression over columns, and nothing more.

    Args:
        argument: What the user calls it, for errors.
        text: SQL.
        names: Columns that it may read, a tuple; their case counts.
        what: ``bands``, which are numbers, or ``columns``, which hold text and times too.

    Raises:
        InputError: it is not.

    Example:
        >>> checked("expression", "(B08 - B04) / B08", ("B04", "B08"), "bands")
        Expression(sql='((B08 - B04) / B08)', names=('B08', 'B04'))
        >>> checked("where", "(SELECT 1)", ("id",), "columns")
        Traceback (most recent call last):
        rasteret_sql.errors.InputError: where: expected an expression over columns, got a subquery
    """
    if not text.strip():
        raise InputError.expected(argument, "SQL", "nothing", f"{what}: {', '.join(names)}")
    if len(text) > MAX_LENGTH:
        raise InputError.expected(
            argument, f"{MAX_LENGTH} characters or fewer", len(text), "make it shorter"
        )
    end = "\n" if "--" in text else ""  # a comment would hide the parenthesis
    sql = f"({text.strip()}{end})"
    found: dict[str, None] = {}
    for node in _nodes(_value_of(argument, sql, what)):
        if node.get("class") == "COLUMN_REF":
            found[_column(argument, node["column_names"], names, what)] = None
    return Expression(sql, tuple(found))


def _value_of(argument: str, sql: str, what: str) -> dict[str, Any]:
    """The tree of the one value that the text is.

    Raises:
        InputError: it is no SQL, more than a value, or holds what is not listed.
    """
    try:
        tree = _parsed(f"SELECT {sql}")
    except RecursionError:
        tree = {"error": True, "error_message": "one of too many levels"}
    if tree["error"]:
        got = str(tree["error_message"]).split("\n")[0]
        raise InputError(f"{argument}: expected an expression over {what}, got {got}")
    statements = tree["statements"]
    node = statements[0]["node"]
    is_value = (
        len(statements) == 1
        and node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not any(node.get(key) for key in ("where_clause", "group_expressions", "having"))
        and not any(node.get(key) for key in ("modifiers", "qualify", "sample"))
        and not node["cte_map"]["map"]
    )
    if not is_value:
        raise InputError(f"{argument}: expected an expression over {what}, got a statement")
    value: dict[str, Any] = node["select_list"][0]
    for part in _nodes(value):
        if "class" in part and part["class"] not in _CLASSES:
            got = f"a {part['class'].lower().replace('_', ' ')}"
            raise InputError(f"{argument}: expected an expression over {what}, got {got}")
        _check_call(argument, part, what)
    return value


def _check_call(argument: str, node: dict[str, Any], what: str) -> None:
    """Refuse a function or a type that is not listed.

    Raises:
        InputError: it is one.
    """
    functions, types, result = _RULES[what]
    name = node.get("function_name")
    if name is not None and (name.lower() not in functions or _is_qualified(node)):
        raise InputError(
            f"{argument}: expected functions that compute {result}, got {name}; leave it out"
        )
    kind = _cast_type(node) if node.get("class") == "CAST" else None
    if kind is not None and kind.upper() not in types:
        raise InputError(
            f"{argument}: expected a CAST to {'a number' if what == 'bands' else 'a plain type'}, "
            f"got {kind}; leave it out"
        )


def _cast_type(cast: dict[str, Any]) -> str:
    """The type that a CAST names; DuckDB 1.5 has resolved it, 2.0 has its name."""
    if "cast_type" in cast:
        return str(cast["cast_type"]["id"])
    named = cast["type_expr"]
    return ".".join(one for one in (named["catalog"], named["schema"], named["type_name"]) if one)


def _is_qualified(function: dict[str, Any]) -> bool:
    """Whether a function is one of another place than the parser of DuckDB 1.5 names by itself."""
    places = function.get("catalog"), function.get("schema")
    return places not in (("", ""), ("system", "main"), ("", "main"), ("", "pg_catalog"))


def _column(argument: str, path: Sequence[str], names: Sequence[str], what: str) -> str:
    """The name of a column that an expression reads.

    Raises:
        InputError: there is none of that name.
    """
    if path[0] not in names:
        listed = ", ".join(names)
        like = [name for name in names if name.lower() == path[0].lower()]
        todo = f"{what} are case-sensitive" if like else "a name with signs needs double quotes"
        raise InputError.expected(argument, f"one of {what} {listed}", path[0], todo)
    return path[0]


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """All objects of a tree, in the order of the text."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(reversed(node.values()))
        elif isinstance(node, list):
            stack.extend(reversed(node))


_lock = threading.Lock()


@functools.cache
def _parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def _parsed(statement: str) -> dict[str, Any]:
    with _lock:
        rows = _parser().execute("SELECT json_serialize_sql($1::VARCHAR)", [statement]).fetchall()
    tree: dict[str, Any] = json.loads(rows[0][0])
    return tree
