"""Errors back from SQL: DuckDB keeps only their text, the engine keeps the object."""

from __future__ import annotations

import contextlib
import difflib
import re

import duckdb

from rasteret_sql.duck.calls import Warned
from rasteret_sql.duck.connection import Connection, instance_of
from rasteret_sql.duck.names import IS_DUCKDB_2
from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError, RasteretWarning

_COLUMN_ARGUMENT = re.compile(
    r'function "query" does not support lateral join column parameters - .* column "(.*?)" in'
)
"""Our macros are calls of DuckDB's ``query``."""
_OTHER_ARGUMENTS = re.compile(r"Macro (rasteret_\w+)\(\) does not support the supplied arguments")
_BY_NAME = re.compile(r"'(?:[^']|'')*'|(?<![\w.])(\w+)\s*(?::=|=>)")
"""Text, which may hold anything, or the name of an argument."""
_AT_COLON = 'syntax error at or near ":"'
_WITH_COLON = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\b([a-z_]\w*:[a-z_]\w*)""", re.IGNORECASE)
"""Text and quoted names, which may hold anything, or a name as of STAC."""
_NO_COLUMN = re.compile(r'Referenced column "(.*?)" not found')
_OVERFLOW = re.compile(r"Overflow in (\w+ of U?\w*INT\d*) \((.*?)\)")
_SUBQUERY_ARGUMENT = "Table function cannot contain subqueries"
_NO_ROWS = "SELECT NULL::BIGINT AS Count LIMIT 0"


def sql(con: Connection, query: str, parameters: object = None) -> duckdb.DuckDBPyRelation:
    """Run a query and raise our own error classes, with their cause.

    Args:
        con: A registered connection.
        query: Statements of any kind; parameters and result are those of the last one.
        parameters: Values of ``?`` or ``$name``.

    Returns:
        The relation, with its rows already computed. It has none where the statement returns
        no rows; in DuckDB 2.0 it has one, with their number, where rows were written.

    Raises:
        RasteretError: the class that the function raised.
        duckdb.Error: an error of DuckDB's own.
        KeyboardInterrupt: Ctrl-C.
    """
    with translated(con, query):
        relation: duckdb.DuckDBPyRelation | None = con.sql(query, params=parameters)
        if relation is None:  # in 1.5 for all that is no query, in 2.0 for no statement
            relation = con.sql(_NO_ROWS)
        if IS_DUCKDB_2:  # which keeps no rows in a relation, and has no `execute`
            return relation.materialize()
        relation.execute()  # type: ignore[operator]  # the stubs take it for a column
        return relation


class translated:  # noqa: N801 (used as a with-statement, like contextlib's)
    """Turn DuckDB's text-only errors into the error that caused them.

    Args:
        con: A registered connection.
        query: What runs inside, where it is known.
    """

    def __init__(self, con: Connection, query: str = "") -> None:
        self._query = query
        instance = instance_of(con)
        self._errors = instance.runtime.last_errors
        self._held = instance.runtime.held_warnings
        self._id = instance.id_of(con) or ""
        self._warned: list[Warned] | None = None

    def __enter__(self) -> None:
        """Forget earlier errors of this connection, hold its warnings back."""
        self._errors.pop(self._id, None)
        if self._id not in self._held:  # else an outer one emits them
            self._warned = self._held[self._id] = []

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise the real error in place of DuckDB's, then emit warnings.

        Raises:
            RasteretError: the error.
            RasteretWarning: a filter makes the warning an error, and there is no other.
        """
        if self._warned is not None:
            del self._held[self._id]
        try:
            self._raise_cause(error)
        finally:
            for warned in self._warned or ():
                with contextlib.suppress(*([RasteretWarning] if error else [])):
                    warned.emit()

    def _raise_cause(self, error: BaseException | None) -> None:
        if not isinstance(error, (duckdb.Error, RuntimeError)):
            return
        cause = self._errors.pop(self._id, None)
        if isinstance(cause, KeyboardInterrupt) or "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        if isinstance(cause, InterruptedReadError) and isinstance(error, duckdb.InterruptException):
            return
        if isinstance(cause, RasteretError):
            raise cause from cause.__cause__
        if isinstance(error, duckdb.BinderException):
            _explain_column(error, self._query)
            _explain_arguments(error, self._query)
        if isinstance(error, (duckdb.BinderException, duckdb.ParserException)):
            _explain_colon(error, self._query)
        if isinstance(error, duckdb.OutOfRangeException):
            _explain_overflow(error, self._query)


def _explain_column(error: duckdb.BinderException, query: str) -> None:
    """Say what to write where a column or subquery is an argument; DuckDB says only that it is.

    Raises:
        InputError: it was one.
    """
    column = _COLUMN_ARGUMENT.search(str(error))
    is_subquery = _SUBQUERY_ARGUMENT in str(error) and "rasteret_" in query
    if column is None and not is_subquery:
        return
    got = f"the column {column[1]}" if column else "a subquery"
    raise InputError(
        f"arguments: expected constants, got {got}; for areas pass their table or query as aois, "
        "else SET VARIABLE v = (SELECT …) and getvariable('v')"
    ) from error


def _explain_colon(error: duckdb.Error, query: str) -> None:
    """Say that a name of STAC, as eo:cloud_cover, needs quotes.

    In a list of columns DuckDB takes what stands before the colon for an alias.

    Raises:
        InputError: there is one without.
    """
    missing = _NO_COLUMN.search(str(error))
    names = [found[1] for found in _WITH_COLON.finditer(query) if found[1]]
    if missing is not None:
        names = [name for name in names if name.partition(":")[2] == missing[1]]
    elif _AT_COLON not in str(error):
        return
    for name in names[:1]:
        raise InputError(
            f'column: expected a name with a colon in double quotes, got {name}; write "{name}"'
        ) from error


def _explain_overflow(error: duckdb.OutOfRangeException, query: str) -> None:
    """Say what to write where bands of integers are subtracted, added or multiplied.

    Raises:
        InputError: they were.
    """
    found = _OVERFLOW.search(str(error))
    if found is not None and "rasteret_" in query:
        raise InputError(
            f"{found[1]}: expected a result that its type holds, got an overflow ({found[2]}); "
            "bands have the type of their files: write B08::DOUBLE - B04, or scaled := true"
        ) from error


def _explain_arguments(error: duckdb.BinderException, query: str) -> None:
    """Say which argument a function of ours lacks or does not have; DuckDB lists all it could be.

    Raises:
        InputError: a call did not fit.
    """
    found = _OTHER_ARGUMENTS.search(str(error))
    if found is None:
        return
    function = found[1]
    needed, optional = _parameters(function, str(error))
    known = [*needed, *optional]
    for name in _named_arguments(function, query):
        if name.lower() not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1)
            todo = f"did you mean {near[0]}?" if near else f"they are {', '.join(known)}"
            raise InputError.expected(function, "one of its arguments", name, todo) from error
    rest = ", others by name" if optional else ""
    raise InputError(
        f"{function}: expected ({', '.join(needed)}){rest}, got other arguments; "
        f"see SELECT manual FROM rasteret_functions() WHERE name = '{function}'"
    ) from error


def _parameters(function: str, candidates: str) -> tuple[list[str], list[str]]:
    """The parameters without and with a default, from the call that DuckDB proposes.

    Example:
        >>> _parameters("f", "Candidate macros: f(a, b, c := [1, 2], d := 'x')")
        (['a', 'b'], ['c', 'd'])
    """
    listed = candidates.rpartition(f"{function}(")[2].rstrip().removesuffix(")")
    optional = re.findall(r"(\w+) :=", listed)
    positional = [one.strip() for one in listed.partition(" :=")[0].split(",") if one.strip()]
    return positional[: len(positional) - bool(optional)], optional


def _named_arguments(function: str, query: str) -> list[str]:
    """The names of arguments in the calls of a function.

    Example:
        >>> _named_arguments("f", "FROM f('a := 1', b := g((1)), c => 2), h(d := 3)")
        ['b', 'c']
    """
    names: list[str] = []
    for call in re.finditer(rf"\b{function}\s*\(", query, re.IGNORECASE):
        names += [found[1] for found in _BY_NAME.finditer(_inside(query[call.end() :])) if found[1]]
    return names


def _inside(text: str) -> str:
    """What stands before the bracket that closes the one in front of the text."""
    depth = 1
    for found in re.finditer(r"'(?:[^']|'')*'|[()]", text):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth == 0:
            return text[: found.start()]
    return text
