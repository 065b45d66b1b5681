"""A tour in SQL over scenes written on the spot: ``rasteret-sql demo``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rasteret_sql import connect
from rasteret_sql.demo import statements
from rasteret_sql.demo.scenes import write_scenes
from rasteret_sql.duck.names import quote_text
from rasteret_sql.duck.results import translated

__all__ = ["run", "statements", "write_scenes"]


def run(folder: Path, show: Callable[[str], None], *, live: bool = False) -> None:
    """Show statements, each followed by its result as DuckDB draws it.

    Args:
        folder: Gets ``scenes/``, the files, and ``workspace/``, the collection.
        show: Called with each statement and each result.
        live: Use Sentinel-2 at Earth Search, over the network, instead of written scenes.

    Raises:
        RasteretError: from a statement.
    """
    # one thread adds up in one order, so that each run prints the same digits
    workspace = folder / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    con = connect(workspace=workspace, config={"threads": 1})
    try:
        con.execute("SET enable_progress_bar = false")
        if not live:
            items = write_scenes(folder / "scenes")
            setting = f"SET VARIABLE items = {quote_text(str(items))}"
            show(f"{setting};\n")
            con.execute(setting)
        for statement in statements.LIVE if live else statements.LOCAL:
            show(f"{statement};")
            with translated(con):
                show(str(con.sql(statement)))
    finally:
        con.close()
