"""The commands and their options as data: so Tab is answered without importing the functions.

To load the commands takes a second, as their options come from the declarations of the table
functions. ``commands.jsonl`` holds what completion needs of them, a line for each command::

    python -m rasteret_sql.cli.known_commands > rasteret_sql/cli/commands.jsonl

A test fails when it is stale.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from rasteret_sql.cli import PROGRAM, VARIABLE, tab_completion
from rasteret_sql.cli.tab_completion import Completer, Words

FILE = Path(__file__).with_name("commands.jsonl")

_FLAGS = ("is_flag", "multiple", "hidden")
_SENTENCE = 200


def answer(instruction: str) -> int:
    """Print what may stand at the cursor, as the scripts of `tab_completion` ask for it.

    Args:
        instruction: ``bash_complete`` and the like.

    Returns:
        Exit code.
    """
    kind = get_completion_class(instruction.partition("_")[0])
    if kind is None:
        return 1
    click.echo(kind(read(), {}, PROGRAM, VARIABLE).complete())
    return 0


def written(
    command: click.Command, path: tuple[str, ...] = (), above: click.Context | None = None
) -> Iterator[str]:
    """A line for each command, a group before its members.

    Args:
        command: The program.
        path: Names of the groups that it is in, and its own.
        above: Context of the group that it is in.
    """
    context = click.Context(command, above, **command.context_settings)
    help_option = command.get_help_option(context)
    yield json.dumps(
        {
            "command": " ".join(path),
            "help": command.get_short_help_str(_SENTENCE),
            "parameters": [
                {"name": "help" if one is help_option else one.name} | _fields(one)
                for one in command.get_params(context)
            ],
        },
        ensure_ascii=False,
    )
    if isinstance(command, click.Group):
        for name in sorted(command.list_commands(context)):
            member = command.get_command(context, name)
            if member is not None:
                yield from written(member, (*path, name), context)


def _fields(parameter: click.Parameter) -> dict[str, Any]:
    """What completion needs to know of a parameter; what is usual is left out."""
    found: dict[str, Any] = {}
    if isinstance(parameter, click.Option):
        found |= {"flags": [*parameter.opts], "off": [*parameter.secondary_opts]}
        found |= {"help": parameter.help}
        found |= {key: getattr(parameter, key) for key in _FLAGS}
    found["nargs"] = None if parameter.nargs == 1 else parameter.nargs
    completer = vars(parameter).get("_custom_shell_complete")  # click tells it in no other way
    if isinstance(completer, Words):
        found |= {"choices": completer.choices, "prefix": completer.prefix}
        found |= {"are_listed": completer.are_listed}
    elif completer is not None:
        found["completer"] = completer.__name__
    elif isinstance(parameter.type, click.Choice):
        found["one_of"] = [*parameter.type.choices]
    elif isinstance(parameter.type, click.Path):
        found["path"] = "file" if parameter.type.file_okay else "dir"
    return {key: value for key, value in found.items() if value}


def read() -> click.Group:
    """The program, of which only completion may be asked."""
    root = click.Group(PROGRAM)
    groups: dict[str, click.Group] = {"": root}
    lines = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    names = [line["command"] for line in lines]
    for line in lines:
        path = line["command"]
        parameters = [_parameter(one) for one in line["parameters"]]
        if not path:
            root.params = parameters
            continue
        above, _, name = path.rpartition(" ")
        given: dict[str, Any] = {"params": parameters, "short_help": line["help"]}
        given["add_help_option"] = False  # it is one of the parameters
        if any(one.startswith(f"{path} ") for one in names):
            groups[path] = click.Group(name, **given)
            groups[above].add_command(groups[path])
        else:
            groups[above].add_command(click.Command(name, **given))
    root.add_help_option = False
    return root


def _parameter(given: dict[str, Any]) -> click.Parameter:
    how: dict[str, Any] = {"nargs": given.get("nargs", 1), "required": False}
    how["shell_complete"] = _completer(given)
    if "path" in given:
        how["type"] = click.Path(file_okay=given["path"] == "file")
    if "one_of" in given:
        how["type"] = click.Choice(given["one_of"])
    if "flags" not in given:
        return click.Argument([given["name"]], **how)
    names = "/".join(filter(None, (given["flags"][-1], *given.get("off", ()))))
    declared = [*given["flags"][:-1], names, given["name"]]
    how |= {key: given.get(key, False) for key in _FLAGS}
    if how["is_flag"]:
        how["nargs"] = 1
    return click.Option(declared, help=given.get("help"), **how)


def _completer(given: dict[str, Any]) -> Completer | None:
    if "choices" in given:
        are_listed = given.get("are_listed", False)
        return Words(tuple(given["choices"]), given.get("prefix", ""), are_listed)
    name = given.get("completer")
    return None if name is None else getattr(tab_completion, name)


if __name__ == "__main__":
    from rasteret_sql.cli.program import main

    click.echo(os.linesep.join(written(main)))
