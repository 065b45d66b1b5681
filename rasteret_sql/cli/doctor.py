"""``rasteret-sql doctor``: what is installed, where things are, and what does not work.

The JSON form is an object with these keys, to which later versions only add:

``ok``           whether nothing essential is broken; the exit code is 1 where it is false
``faults``       list of ``{subject, message}``: what is broken
``versions``     package or library to version; null where it is missing
``extensions``   list of ``{name, installed, loaded}``: DuckDB's, as far as they matter here
``workspace``    ``{path, exists, writable, collections, versions, size_bytes}``
``credentials``  names of environment variables that are set and of files that exist
``urls``         list of ``{url, reachable, seconds, size_bytes, error}``, one per ``--url``
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import duckdb

from rasteret_sql import __version__
from rasteret_sql.cli import text
from rasteret_sql.cli.failures import FAILED, one_line
from rasteret_sql.cli.session import json_option, opened, to_json, workspace_option
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.datasets.registry import datasets
from rasteret_sql.errors import redact
from rasteret_sql.grid.crs import PROJ_VERSION, transformer
from rasteret_sql.remote.clouds import credentials_found
from rasteret_sql.remote.ranges import get_start
from rasteret_sql.remote.stores import Stores

_PACKAGES = ("duckdb", "pyarrow", "obstore", "numpy", "imagecodecs", "pyproj", "shapely")
_ESSENTIAL = ("icu", "json", "parquet")
_OPTIONAL = ("httpfs", "quack", "spatial")
_FIRST_BYTES = 1024

_Faults = list[dict[str, str]]


@click.command()
@click.option(
    "--url",
    "urls",
    multiple=True,
    help="Path or URL whose first bytes to ask for, as a read would; may be given several times.",
)
@workspace_option
@json_option
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    urls: tuple[str, ...],
    workspace_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    """Check the installation, the workspace and the way to the imagery.

    Shows versions, extensions of DuckDB, the workspace and the names of credentials that the
    environment holds, never their values. Nothing is changed, and without --url nothing is
    requested. Exit code 1 where something essential is broken: the functions, an extension,
    PROJ, a settings file, the workspace or a URL that was asked for.

    --json prints one object: ok, faults (subject, message), versions, extensions (name,
    installed, loaded), workspace (path, exists, writable, collections, versions, size_bytes),
    credentials, urls (url, reachable, seconds, size_bytes, error). Later versions only add
    to it.
    """
    faults: _Faults = []
    workspace = Workspace(workspace_dir)
    report: dict[str, Any] = {
        "ok": True,
        "faults": faults,
        "versions": _versions(),
        "extensions": _extensions(faults),
        "workspace": _workspace(workspace, faults),
        "credentials": credentials_found(),
        "urls": [_url(url, faults) for url in urls],
    }
    _functions(workspace, faults)
    _settings(faults)
    report["ok"] = not faults
    if as_json:
        click.echo(to_json(report))
    else:
        _show(report)
    ctx.exit(FAILED if faults else 0)


@contextmanager
def _checked(subject: str, faults: _Faults) -> Iterator[None]:
    """Make an error inside a fault; the other checks go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (whatever is broken is what is looked for)
        faults.append({"subject": subject, "message": one_line(error)})


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "rasteret_sql": __version__,
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found | {"proj": PROJ_VERSION}


def _extensions(faults: _Faults) -> list[dict[str, Any]]:
    rows: list[tuple[str, bool, bool]] = []
    with _checked("extensions", faults), duckdb.connect() as con:
        rows = con.execute(
            "SELECT extension_name, installed, loaded FROM duckdb_extensions() ORDER BY 1"
        ).fetchall()
        for name in _ESSENTIAL:
            if not any(row[0] == name and row[1] for row in rows):
                todo = f"run INSTALL {name} in DuckDB"
                message = f"{name}: expected an extension that is installed, got none; {todo}"
                faults.append({"subject": "extensions", "message": message})
    return [
        dict(zip(("name", "installed", "loaded"), row, strict=True))
        for row in rows
        if row[0] in (*_ESSENTIAL, *_OPTIONAL) or row[2]
    ]


def _workspace(workspace: Workspace, faults: _Faults) -> dict[str, Any]:
    root = workspace.root
    found: dict[str, Any] = {"path": str(root), "exists": False, "writable": False}
    found |= {"collections": 0, "versions": 0, "size_bytes": 0}
    with _checked("workspace", faults):
        found["exists"] = root.is_dir()
        found["writable"] = _is_writable(root)
        found["collections"] = len(workspace.collections())
        found["versions"], found["size_bytes"] = workspace.extent()
        for name, problem in workspace.problems.items():
            faults.append({"subject": f"workspace, {name}", "message": problem})
        if not found["exists"] and not found["writable"]:
            faults.append(
                {
                    "subject": "workspace",
                    "message": f"{root}: expected a folder that is there or can be made, got none; "
                    "choose one with --workspace-dir or $RASTERET_WORKSPACE",
                }
            )
    return found


def _is_writable(root: Path) -> bool:
    """Whether a build could write there, the folder itself or where it would be made.

    A file without a name is made: what root may do, and /proc or a full disk refuses, no
    permission tells.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False


def _functions(workspace: Workspace, faults: _Faults) -> None:
    """Run SQL, Python under SQL, and PROJ."""
    with _checked("functions", faults):
        con = opened(":memory:", workspace.root)
        try:
            con.execute("SELECT count(*) FROM rasteret_collections()").fetchall()
        finally:
            con.close()
    with _checked("PROJ", faults):
        transformer("OGC:CRS84", "EPSG:32643").transform(75, 0)


def _settings(faults: _Faults) -> None:
    """Read the files of settings."""
    with _checked("storage", faults):
        Stores().locate(
            "https://example.org/a.tif"
        )  # which has the file read; nothing is requested
    with _checked("datasets", faults):
        datasets()


def _url(url: str, faults: _Faults) -> dict[str, Any]:
    began = time.monotonic()
    found: dict[str, Any] = {"url": redact(url), "reachable": False, "seconds": 0.0}
    found |= {"size_bytes": None, "error": None}
    try:
        found["size_bytes"] = get_start(url, _FIRST_BYTES).size
        found["reachable"] = True
    except Exception as error:  # noqa: BLE001 (whatever is broken is what is looked for)
        found["error"] = one_line(error)
        faults.append({"subject": "url", "message": found["error"]})
    found["seconds"] = round(time.monotonic() - began, 3)
    return found


def _show(report: dict[str, Any]) -> None:
    """Print a report as a person reads it."""
    workspace = report["workspace"]
    state = "" if workspace["exists"] else ", not made yet"
    access = "can be written" if workspace["writable"] else "can't be written"
    lines = {name: version or "missing" for name, version in report["versions"].items()}
    lines["extensions"] = ", ".join(
        one["name"] for one in report["extensions"] if one["installed"] or one["loaded"]
    )
    lines["workspace"] = f"{workspace['path']} ({access}{state})"
    lines["collections"] = (
        f"{workspace['collections']} in {workspace['versions']} versions, "
        f"{workspace['size_bytes']:,} bytes"
    )
    lines["credentials"] = ", ".join(report["credentials"]) or "none"
    text.facts(lines)
    for one in report["urls"]:
        reached = "reached" if one["reachable"] else "not reached"
        click.echo(f"{one['url']}: {reached} in {one['seconds']:.2f} s")
    for fault in report["faults"]:
        click.echo(f"{fault['subject']}: {fault['message']}", err=True)
    if report["ok"]:
        click.echo("no faults")
