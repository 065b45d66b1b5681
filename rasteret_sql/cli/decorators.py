"""Options of several commands as one decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
Command = TypeVar("Command", bound=Callable[..., Any])


def together(
    *options: Option,
) -> Callable[[Command], Command]:
    """Options in the order in which the help lists them."""

    def decorate(command: Command) -> Command:
        decorated: Callable[..., Any] = command
        for option in reversed(options):
            decorated = option(decorated)
        return cast("Command", decorated)

    return decorate
