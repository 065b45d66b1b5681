"""Fixtures that several folders of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers.range_server import RangeServer

import rasteret_sql

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real files beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("the shared data set is not beside this checkout")
    return DATA


@pytest.fixture
def con(tmp_path):
    """A registered connection with a workspace of its own."""
    con = rasteret_sql.connect(workspace=tmp_path / "workspace", config={"threads": 2})
    yield con
    con.close()


@pytest.fixture
def rows(con):
    """Run SQL, get all rows."""

    def run(query, parameters=None):
        return con.execute(query, parameters).fetchall()

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A range server: `scenes` serves a folder of the session, `data` the shared files."""
    folder = tmp_path_factory.mktemp("served")
    roots = {"scenes": folder} | ({"data": DATA} if DATA.is_dir() else {})
    with RangeServer(**roots) as running:
        running.folder = folder
        yield running
