"""How many examples the tests take whose cases are many alike."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

ALL_EXAMPLES = os.environ.get("RASTERET_ALL_EXAMPLES", "0") != "0"
"""RASTERET_ALL_EXAMPLES=1 takes them all, which costs some minutes more."""


def examples(few: T, every: T) -> T:
    """``few``, enough to find the faults that are known; ``every`` where all are asked for."""
    return every if ALL_EXAMPLES else few
