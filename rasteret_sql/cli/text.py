"""Rows and values as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

_N_SHOWN = 12


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Print columns padded to their widest value."""
    lines = [list(columns)] + [[shown(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def facts(row: Mapping[str, object]) -> None:
    """Print one row, a line for each column."""
    width = max(map(len, row))
    for column, value in row.items():
        click.echo(f"{column:<{width}}  {shown(value)}")


def report(row: Mapping[str, object]) -> None:
    """Print what a build did."""
    failed = f", {row['failed']} failed (see rasteret_errors)" if row["failed"] else ""
    click.echo(
        f"{row['name']}: {row['records']} records, {shown(row['bands'])}, "
        f"{row['enriched']} of {row['assets']} headers{failed}, "
        f"{row['seconds']:.1f} s\n{row['path']}"
    )


def shown(value: object) -> str:
    """A value as a person reads it; long lists are cut and say so.

    Example:
        >>> shown(["B04", "B08"])
        'B04, B08'
    """
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        more = f", … ({len(value)})" if len(value) > _N_SHOWN else ""
        return ", ".join(str(item) for item in value[:_N_SHOWN]) + more
    return str(value)
