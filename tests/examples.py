"""How many examples the tests take whose cases are many alike."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

ALL_EXAMPLES = os.environ.get("RASTERET_ALL_EXAMPLES", "0") != "0"
"""RASTERET_ALL_EXAMPLES=1 takes them all, which costs some minutes more."""


def examples(few: T, every: T) -> T:
    """``few``, enough to find the faults that are known; ``every`` where all are asked for."""
    return every if ALL_EXAMPLES else few


def in_turns(cases: Iterable[Any], choices: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each case with one of the choices, which take turns; all pairs where all are asked for.

    Example:
        >>> in_turns("abc", [1, 2])
        [('a', 1), ('b', 2), ('c', 1)]
    """
    cases = list(cases)
    turns = [(case, choices[n % len(choices)]) for n, case in enumerate(cases)]
    return examples(turns, list(itertools.product(cases, choices)))
