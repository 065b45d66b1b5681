"""What may stand at the cursor of the shell: functions, arguments, collections, columns, bands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import duckdb

from rasteret_sql.duck import functions  # noqa: F401 (declares them)
from rasteret_sql.duck.checks import OneOf
from rasteret_sql.duck.declarations import FUNCTIONS, Parameter
from rasteret_sql.duck.names import quote_identifier, quote_text
from rasteret_sql.grid.zonal import STATISTICS
from rasteret_sql.pictures import CLASSES, RAMPS

DOT_COMMANDS = {
    ".help": "this list, or the manual of a function: .help rasteret_pixels",
    ".functions": "the functions of rasteret_sql",
    ".tables": "collections, views and tables",
    ".mode": "form of results: .mode table, csv or json",
    ".read": "run the statements of a file: .read views.sql",
    ".timer": "how long each statement takes: .timer on, .timer off",
    ".quit": "leave, as Ctrl-D does",
}
"""What the shell itself does, and what it says of it."""

MODES = ("table", "csv", "json")

_METADATA = "_metadata"
_WORD = re.compile(r'"?[\w:]*$|\.\w*$')
_PLAIN = re.compile(r"[a-z_]\w*")
_LITERAL = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*\n|/\*.*?\*/", re.DOTALL
)
_OPENING = re.compile(r"['\"]|\$\w*\$|/\*|--")
_CALL = re.compile(r"(\w*)\s*$")
_ARGUMENT = re.compile(r'(?:"?(\w+)"?\s*:=\s*)?[\[\s]*(?:\'[^\']*\'\s*,\s*)*$')
_USED = re.compile(r'"?(\w+)"?\s*:=')
_AFTER_FROM = re.compile(r"\b(?:from|join|describe|summarize|into|table)\s+$", re.IGNORECASE)
_QUOTED = re.compile(r"'([\w.-]+)'")
_WORDS = {
    "stats": (*STATISTICS, "area_m2", "p05", "p50", "p95"),
    "colormap": (*RAMPS, *CLASSES),
}
"""Of arguments that take other values too."""
_VALUE = re.compile(r'"?(\w+)"?\s*:=\s*$')
_BARE = {"exit": ".quit", "quit": ".quit", "help": ".help"}
"""What other shells understand, to the command that it is here."""
_RELATIONS = ("collection", "points", "zones", "aois", "source", "name")
"""Arguments that name one."""


class Candidate(NamedTuple):
    """A text that may stand at the cursor, in place of the last ``length`` characters."""

    text: str
    length: int
    what: str


@dataclass
class Catalog:
    """What a connection knows, as far as names go.

    Attributes:
        functions: Name of each function to its parameters.
        relations: Name of each table and view to its columns.
        keywords: Words of SQL.
    """

    functions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    relations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keywords: Sequence[str] = ()

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection) -> Catalog:
        """The catalog as it is now."""
        known: dict[str, Sequence[str]] = {}
        for name, parameters in con.execute(
            "SELECT function_name, any_value(parameters) FROM duckdb_functions() "
            "WHERE regexp_full_match(function_name, '[a-z][a-z0-9_]*') GROUP BY 1 ORDER BY 1"
        ).fetchall():
            ours = FUNCTIONS.get(name)
            listed = [one.name for one in ours.parameters] if ours else parameters
            known[name] = listed if name.startswith("rasteret_") else ()
        relations: dict[str, list[str]] = {}
        for name, column in con.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal "
            "ORDER BY table_name, column_index"
        ).fetchall():
            relations.setdefault(name, []).append(column)
        words = con.execute(
            "SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        ).fetchall()
        return cls(known, relations, sorted({word for (word,) in words}))

    def bands(self, relation: str) -> list[str]:
        """The bands of a collection."""
        columns = self.relations.get(relation, ())
        return [name.removesuffix(_METADATA) for name in columns if name.endswith(_METADATA)]


def words_of(parameter: Parameter) -> tuple[str, ...]:
    """The words that a parameter takes, as far as they are known."""
    if isinstance(parameter.check, OneOf):
        return parameter.check.choices
    return _WORDS.get(parameter.name, ())


def as_command(line: str) -> str | None:
    """The dot command that a line holds, also where it is written as elsewhere; None: it is SQL.

    Example:
        >>> as_command(" .help rasteret_ndvi"), as_command("exit;"), as_command("FROM s2;")
        ('.help rasteret_ndvi', '.quit', None)
    """
    text = line.strip()
    return text if text.startswith(".") else _BARE.get(text.rstrip("; ").lower())


def candidates(text: str, catalog: Catalog) -> Iterator[Candidate]:
    """What may follow a text, the likeliest first.

    Args:
        text: Up to the cursor.
        catalog: What there is.

    Example:
        >>> known = Catalog({"rasteret_pixels": ["collection", "bands"]}, {"s2": ["B04_metadata"]})
        >>> [one.text for one in candidates("FROM rasteret_pixels('s2', ba", known)]
        ['bands := ']
        >>> [one.text for one in candidates("FROM rasteret_pixels('s2', bands := ['B", known)]
        ['B04']
    """
    if text.lstrip().startswith("."):
        yield from _of_dot_command(text.lstrip(), catalog)
        return
    literal = _open_literal(text)
    if literal is not None:
        before, inside = literal
        yield from _matching(inside, _texts(before, catalog))
        return
    found = _WORD.search(text)
    word = found[0] if found else ""
    yield from _matching(word, _names(text[: len(text) - len(word)], word, catalog))


def is_complete(text: str) -> bool:
    """Whether a text is a dot command, empty, or a statement that has ended.

    Example:
        >>> is_complete("SELECT ';"), is_complete("SELECT ';' ; -- end"), is_complete(".help")
        (False, True, True)
    """
    if not text.strip() or as_command(text) is not None:
        return True
    plain = _LITERAL.sub(" ", f"{text}\n")
    return not _OPENING.search(plain) and plain.rstrip().endswith(";")


def _of_dot_command(text: str, catalog: Catalog) -> Iterator[Candidate]:
    command, space, rest = text.partition(" ")
    if not space:
        yield from _matching(command, DOT_COMMANDS.items())
    elif command == ".help":
        known = (name for name in catalog.functions if name.startswith("rasteret_"))
        yield from _matching(rest, ((name, "function") for name in known))
    elif command == ".mode":
        yield from _matching(rest, ((name, "mode") for name in MODES))
    elif command == ".timer":
        yield from _matching(rest, (("on", "timer"), ("off", "timer")))


def _matching(word: str, found: Iterable[tuple[str, str]]) -> Iterator[Candidate]:
    """Those that begin with the word, each once."""
    seen = set()
    wanted = word.lstrip('"').lower()
    for text, what in found:
        plain = text.lstrip('"').lower()
        if plain.startswith(wanted) and plain != wanted and text not in seen:
            seen.add(text)
            yield Candidate(text, len(word), what)


def _open_literal(text: str) -> tuple[str, str] | None:
    """What stands before a text literal that has not ended, and what is in it."""
    hidden = _LITERAL.sub(lambda found: " " * len(found[0]), text)
    start = hidden.find("'")
    return None if start < 0 else (text[:start], text[start + 1 :])


def _open_call(text: str) -> tuple[str, str] | None:
    """The function whose arguments are being written, and what is written of them."""
    hidden = _LITERAL.sub(lambda found: "_" * len(found[0]), text)
    depth = 0
    for position in range(len(hidden) - 1, -1, -1):
        mark = hidden[position]
        if mark in ")]}":
            depth += 1
        elif mark in "([{":
            depth -= 1
            if depth < 0 and mark == "(":
                named = _CALL.search(hidden[:position])
                return (named[1].lower() if named else ""), text[position + 1 :]
            depth = max(depth, 0) if mark != "(" else depth
    return None


def _texts(before: str, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Texts that an argument takes: collections, bands, words of its manual."""
    call = _open_call(before)
    if call is None or call[0] not in FUNCTIONS:
        return
    function, written = FUNCTIONS[call[0]], call[1]
    named = _ARGUMENT.search(written)
    name = named[1] if named else None
    if name is None:
        n_before = _LITERAL.sub("_", written).count(",")
        required = [one.name for one in function.parameters if not one.default]
        name = required[n_before] if n_before < len(required) else None
    if name is None or name not in {one.name for one in function.parameters}:
        return
    if name in _RELATIONS:
        yield from ((one, "collection or table") for one in catalog.relations)
    elif name in ("bands", "mask_band", "weight_band"):
        collection = _QUOTED.search(written)
        yield from ((one, "band") for one in catalog.bands(collection[1] if collection else ""))
    elif name in ("record_columns", "partition_by"):
        collection = _QUOTED.search(written)
        columns = catalog.relations.get(collection[1] if collection else "", ())
        yield from ((one, "column") for one in columns)
    else:
        parameter = function.parameter(name)
        words = words_of(parameter) or _QUOTED.findall(parameter.doc)
        yield from ((one, name) for one in words)


def _names(before: str, word: str, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Names that may stand outside of literals."""
    call = _open_call(before)
    if call is not None and call[0] in FUNCTIONS:
        plain = _LITERAL.sub("_", call[1])
        if plain.count("[") > plain.count("]"):
            yield from ((quote_text(one), what) for one, what in _texts(before, catalog))
        else:
            yield from _arguments(*call, catalog)
        return
    if _AFTER_FROM.search(before):
        yield from ((_identifier(one), "collection or table") for one in catalog.relations)
        yield from ((f"{name}(", "function") for name in FUNCTIONS if name in catalog.functions)
        return
    mentioned = [name for name in catalog.relations if re.search(rf"\b{re.escape(name)}\b", before)]
    for relation in mentioned or catalog.relations:
        yield from ((_identifier(one), relation) for one in catalog.relations[relation])
        yield from ((_identifier(one), "band") for one in catalog.bands(relation))
    if not word:
        return
    yield from ((_identifier(one), "collection or table") for one in catalog.relations)
    ours = [name for name in catalog.functions if name.startswith("rasteret_")]
    yield from ((f"{name}(", "function") for name in ours)
    yield from ((one, "keyword") for one in catalog.keywords)
    yield from ((f"{name}(", "function") for name in catalog.functions)


def _arguments(function: str, written: str, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """What may stand where an argument of a table function begins: constants, no columns."""
    declared = FUNCTIONS[function]
    named = _VALUE.search(written)
    if named is None:
        n_before = _LITERAL.sub("_", written).count(",")
        required = [one.name for one in declared.parameters if not one.default]
        if n_before < len(required) and required[n_before] in _RELATIONS:
            yield from ((quote_text(one), "collection or table") for one in catalog.relations)
        used = set(_USED.findall(written))
        parameters = catalog.functions.get(function, ())
        yield from ((f"{one} := ", "argument") for one in parameters if one not in used)
    elif any(one.name == named[1] and one.sql_type == "BOOLEAN" for one in declared.parameters):
        yield from (("true", "constant"), ("false", "constant"))
    yield "getvariable('", "constant"


def _identifier(name: str) -> str:
    """A name as SQL has it, in quotes where it needs them."""
    return name if _PLAIN.fullmatch(name.lower()) else quote_identifier(name)
