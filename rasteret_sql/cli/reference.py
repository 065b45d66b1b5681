"""The text of ``docs/cli.md``: ``python -m rasteret_sql.cli.reference > docs/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc

import click

from rasteret_sql.cli import PROGRAM
from rasteret_sql.cli.program import main


def commands(
    command: click.Command = main, path: tuple[str, ...] = (PROGRAM,)
) -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups before their members."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            member = command.get_command(context, name)
            if member is not None:
                yield from commands(member, (*path, name))


def reference() -> str:
    """Markdown: usage, description and options of every command, from click's own help."""
    parts = ["# Command line\n\nGenerated from `--help`; do not edit."]
    parts += [_section(name, command) for name, command in commands()]
    return "\n\n".join(parts) + "\n"


def _section(name: str, command: click.Command) -> str:
    above = click.Context(main, **main.context_settings)  # click keeps the help option of the first
    context = click.Context(command, above, info_name=name)
    usage = " ".join((name, *command.collect_usage_pieces(context)))
    lines = [f"## {name}", f"    {usage}", _paragraphs(cleandoc(command.help or ""))]
    options = (p for p in command.params if isinstance(p, click.Option))
    records = [option.get_help_record(context) for option in options]
    listed = "\n".join(f"- `{record[0]}`: {record[1]}" for record in records if record)
    return "\n\n".join([*lines, listed] if listed else lines)


def _paragraphs(text: str) -> str:
    """A docstring without its line breaks, but in examples, which are indented."""
    parts = text.replace("\b\n", "").split("\n\n")  # click's mark for lines to be kept
    return "\n\n".join(p if p.startswith("    ") else " ".join(p.split()) for p in parts)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
