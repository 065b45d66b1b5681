"""A workspace, and what programs that read it need in their environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from doors.scenes import ROOT, build_workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """A workspace with one collection, `s2`."""
    return build_workspace(tmp_path_factory.mktemp("imagery"))


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For programs that the tests start: this checkout, and this interpreter's scripts."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
