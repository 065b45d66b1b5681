"""Which column of a source table is what, aliases included."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from rasteret_sql.errors import InputError


@dataclass(frozen=True)
class TableLayout:
    """Which column of the source is what.

    Attributes:
        schema: of the source with aliases in front.
        sources: canonical or source name to the column it is read from.
        kept: columns that pass through, as named in the source.
    """

    schema: pa.Schema
    sources: dict[str, str]
    kept: list[str]

    @classmethod
    def of(
        cls,
        schema: pa.Schema,
        column_map: dict[str, str],
        columns: list[str] | None,
        href_column: str | None,
    ) -> TableLayout:
        """Match the columns of a source with the canonical ones.

        Raises:
            InputError: if an argument names no column, or `id` or the assets are missing.
        """
        names = schema.names
        listed = ", ".join(names)
        if len(set(names)) < len(names):
            twice = [name for name, n in Counter(names).items() if n > 1]
            raise InputError.expected("source", "column names once each", twice, "rename them")
        for subject, given in (
            ("column_map", list(column_map)),
            ("columns", columns or []),
            ("href_column", [] if href_column is None else [href_column]),
        ):
            unknown = [name for name in given if name not in names]
            if unknown:
                raise InputError.expected(
                    subject, f"columns of the source ({listed})", unknown, "check the spelling"
                )
        sources = {name: name for name in names}
        for name, canonical in column_map.items():
            if sources.get(canonical, name) != name and canonical not in names:
                raise InputError.expected(
                    "column_map", f"one column for {canonical!r}", "two", "leave one out"
                )
            sources.setdefault(canonical, name)
        if "id" not in sources:
            raise _missing("id", listed, "column_map := MAP {'<column>': 'id'}")
        if "assets" not in sources and href_column is None:
            raise _missing(
                "assets", listed, "href_column := '<column>', or MAP {'<column>': 'assets'}"
            )
        fields = [schema.field(name).with_name(alias) for alias, name in sources.items()]
        kept = [name for name in names if columns is None or name in columns]
        return cls(pa.schema(fields), sources, kept)

    def column(self, batch: pa.RecordBatch, name: str) -> pa.Array | None:
        """The column that has or is given this name, plain: neither dictionary nor extension."""
        source = self.sources.get(name)
        return None if source is None else plain(batch.column(source))


def _missing(name: str, listed: str, todo: str) -> InputError:
    return InputError.expected(name, f"a column {name}", f"columns {listed}", f"give {todo}")


def plain(column: pa.Array) -> pa.Array:
    """A column as neither dictionary nor extension type."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of `plain`."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind
