"""Declarations: all there is to say about a table function, said once.

A declaration stands above the Python function that it is of::

    @table_function(
        "rasteret_errors",
        "What was wrong when the collection was built.",
        file="20_collections.sql",
        parameters=(Parameter("collection", "VARCHAR", "name of a collection"), WORKSPACE),
        returns="id, band, href, error",
        raises="collection: unknown",
        example="FROM rasteret_errors('s2')",
    )
    def errors(call: Call, *, collection: str, workspace: str | None) -> Stream: ...

From it come the macro and its COMMENT (`sql_file`, written into ``sql/`` by ``python
docs/build.py``), the page ``docs/functions.md``, the checks that the engine makes of
arguments (`TableFunction.checked`), help and defaults of the command line's options, and
whether a server lets its clients call the function (`TableFunction.writes`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from rasteret_sql.duck.checks import Check
from rasteret_sql.errors import InputError

BIND_UDF = "_rasteret_bind"
REQUIRED = ""
"""The default of a parameter that has none."""

_Bind = TypeVar("_Bind", bound=Callable[..., Any])
_RESERVED = frozenset({"where"})
_WIDTH = 100
_MACRO_PARAMETER = re.compile(r"\d+_macro_parameters(.*)\.([^.]+)")
"""What DuckDB passes for a parameter of a macro, while it makes that macro."""
_CASTS = {"any": "VARCHAR", "MAP": "MAP(VARCHAR, VARCHAR)"}
_CALLER = (
    "{database: current_database(), schema: current_schema(), "
    "connection: current_connection_id()::VARCHAR}"
)

SQL_FILES = {
    "20_collections.sql": "Collections: build, keep, share.",
    "22_maintenance.sql": "Collections: bring up to date, check, compare with data sets.",
    "25_datasets.sql": "Data sets by name: built-in ones and the user's own.",
    "30_pixels.sql": "Pixels: plan, tiles, rows.",
}
"""The files of ``sql/`` that are written from declarations, and their first sentence."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a table function.

    Attributes:
        name: In SQL and in Python.
        sql_type: As the manual shows it; macros take any type.
        doc: A line for the manual.
        default: SQL text, as ``NULL``, ``false``, ``'error'``; `REQUIRED` for none.
        check: Checks and normalises the value. A NULL that is the default is not checked.
    """

    name: str
    sql_type: str
    doc: str
    default: str = REQUIRED
    check: Check | None = None

    def with_doc(self, doc: str) -> Self:
        """The parameter as one function words it."""
        return replace(self, doc=doc)

    def with_default(self, default: str) -> Self:
        """The parameter with a default of one function's own."""
        return replace(self, default=default)

    def checked(self, value: Any) -> Any:  # noqa: ANN401 (any SQL value)
        """The value as the bind function gets it.

        Raises:
            InputError: what was expected.
        """
        named = _MACRO_PARAMETER.fullmatch(value) if isinstance(value, str) else None
        if named is not None:
            macro, parameter = named.groups()
            raise InputError.expected(
                self.name,
                "a constant",
                f"{parameter}, a parameter of the macro {macro}, without a type",
                f"write {parameter}::{_CASTS.get(self.sql_type, self.sql_type)}",
            )
        if self.check is None or (value is None and self.default == "NULL"):
            return value
        return self.check(self.name, value)


def with_docs(parameters: Iterable[Parameter], **docs: str) -> tuple[Parameter, ...]:
    """Parameters, some of them worded otherwise.

    Example:
        >>> level = Parameter("level", "INTEGER", "0 is full resolution", "0")
        >>> with_docs([level], level="of the overview")[0].doc
        'of the overview'
    """
    return tuple(one.with_doc(docs.get(one.name, one.doc)) for one in parameters)


@dataclass(frozen=True)
class TableFunction:
    """A table function of SQL that is written in Python.

    Attributes:
        name: In SQL.
        summary: First line of the manual.
        parameters: In the order of the macro; required ones first.
        returns: Columns of the result.
        raises: Errors that a caller meets; empty for none of its own.
        example: One statement, which a test runs.
        bind: Called with a `Call` and a keyword per parameter; returns a `Stream` or `Sql`.
        writes: Whether it changes files, views or registered data sets.
        file: The one of ``sql/`` that holds its macro.
        notes: Paragraphs of the manual after the summary.
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    returns: str
    raises: str
    example: str
    bind: Callable[..., Any]
    writes: bool = False
    file: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a bind function that takes other keywords."""
        names = [one.name for one in self.parameters]
        accepted = inspect.signature(self.bind).parameters.values()
        explicit = {one.name for one in accepted if one.kind is one.KEYWORD_ONLY}
        takes_rest = any(one.kind is one.VAR_KEYWORD for one in accepted)
        twice = {name for name in names if names.count(name) > 1}
        odd = explicit - set(names) or (set() if takes_rest else set(names) - explicit)
        if twice or odd:
            raise TypeError(
                f"{self.name}: parameters of the declaration and keywords of "
                f"{self.bind.__qualname__} differ: {', '.join(sorted(twice | odd))}"
            )

    def parameter(self, name: str) -> Parameter:
        """The parameter of a name."""
        return next(one for one in self.parameters if one.name == name)

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the bind function gets them.

        Raises:
            InputError: the first one, in the order of the parameters, that does not do.
        """
        names = [one.name for one in self.parameters]
        if set(arguments) != set(names):
            raise InputError.expected(
                "arguments", ", ".join(names), ", ".join(arguments), "call the macro of this name"
            )
        return {one.name: one.checked(arguments[one.name]) for one in self.parameters}

    def macro(self) -> str:
        """The statement that makes the macro."""
        names = [quoted(one.name) for one in self.parameters]
        signature = [
            f"{name} := {one.default}" if one.default else name
            for name, one in zip(names, self.parameters, strict=True)
        ]
        struct = [f"{name}: {name}" for name in names]
        return (
            f"CREATE OR REPLACE MACRO {self.name}(\n    {_filled(signature, 4)}\n) AS TABLE\n"
            f"    FROM query({BIND_UDF}(\n        '{self.name}',\n        {_CALLER},\n"
            f"        {{{_filled(struct, 9)}}}\n    ));"
        )

    def manual(self) -> str:
        """What the COMMENT says: a line for each parameter, then the result."""
        last = {"returns": self.returns, "raises": self.raises, "example": self.example}
        width = max(len(name) for name in (*(one.name for one in self.parameters), *last))
        types = max((len(one.sql_type) for one in self.parameters), default=0)
        lines = [self.summary, "", *self.notes, *([""] if self.notes else [])]
        lines += [
            f"{one.name:<{width}}  {one.sql_type:<{types}}  {one.doc}" for one in self.parameters
        ]
        lines += [f"{name:<{width}}  {words}" for name, words in last.items() if words]
        return "\n".join(lines)

    def sql(self) -> str:
        """Both statements: the macro and its COMMENT."""
        comment = f"COMMENT ON MACRO TABLE {self.name} IS $doc$\n{self.manual()}\n$doc$;"
        return f"{self.macro()}\n\n{comment}\n"


FUNCTIONS: dict[str, TableFunction] = {}
"""Every table function, by its SQL name; filled by importing `rasteret_sql.duck.functions`."""


def table_function(
    name: str,
    summary: str,
    *,
    parameters: tuple[Parameter, ...],
    returns: str,
    example: str,
    file: str = "",
    raises: str = "",
    writes: bool = False,
    notes: tuple[str, ...] = (),
) -> Callable[[_Bind], _Bind]:
    """Declare a table function; see `TableFunction`.

    The decorated function is called with a `Call` and one keyword argument per parameter,
    checked (Python values: list, dict for MAP and STRUCT, float for DECIMAL, bytes for BLOB
    and GEOMETRY), and returns a `Stream` or `Sql`.

    Raises:
        TypeError: the function's keywords are not the parameters.
    """

    def declare(bind: _Bind) -> _Bind:
        FUNCTIONS[name] = TableFunction(
            name, summary, parameters, returns, raises, example, bind, writes, file, notes
        )
        return bind

    return declare


def sql_file(name: str) -> str:
    """The text of a file of ``sql/``: its first sentence, then its functions."""
    head = (
        f"-- {SQL_FILES[name]} Each macro calls the Python function of its name.\n"
        "-- Written by `python docs/build.py` from rasteret_sql/duck/functions: edit it there.\n"
    )
    return "\n".join([head, *(one.sql() for one in FUNCTIONS.values() if one.file == name)])


def _filled(items: Iterable[str], indent: int) -> str:
    """Items with commas between them, broken into lines that are not too wide."""
    return f"\n{' ' * indent}".join(_lines(list(items), _WIDTH - indent))


def _lines(items: list[str], width: int) -> Iterator[str]:
    line = ""
    for number, item in enumerate(items, 1):
        part = item if number == len(items) else f"{item},"
        if line and len(line) + 1 + len(part) > width:
            yield line
            line = part
        else:
            line = f"{line} {part}".strip()
    yield line


def quoted(name: str) -> str:
    """A parameter's name in SQL, in quotes where SQL has that word itself.

    Example:
        >>> quoted("bands"), quoted("where")
        ('bands', '"where"')
    """
    return f'"{name}"' if name in _RESERVED else name
