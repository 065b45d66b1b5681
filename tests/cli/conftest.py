"""The command line in this process, over the scenes that the demo writes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from servers.range_server import RangeServer

from rasteret_sql.cli import main
from rasteret_sql.demo import write_scenes


@pytest.fixture(scope="session")
def items(tmp_path_factory):
    """The demo's ItemCollection, beside its scenes."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def server(items):
    """Serves the folder of `items` under several names, to tell who asks."""
    with RangeServer(
        **dict.fromkeys(("scenes", "table", "json", "arrow"), items.parent)
    ) as running:
        yield running


@pytest.fixture(scope="session")
def command():
    """Run the command line in this process."""

    def run(*arguments, **options):
        return CliRunner().invoke(main, [str(a) for a in arguments], **options)

    return run


@pytest.fixture(scope="session")
def built(items, command, tmp_path_factory):
    """A workspace with the collection s2; tests do not change it."""
    workspace = tmp_path_factory.mktemp("built")
    done = command("collections", "build", "s2", "--stac-api", items, "--workspace-dir", workspace)
    assert done.exit_code == 0, done.output
    return workspace
