"""Keep collections right: rasteret_refresh, rasteret_validate, rasteret_compare_to_catalog."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from rasteret_sql.duck.functions.builds import Recipe, made, stac_recipe, table_recipe
from rasteret_sql.duck.functions.collections import find, workspace_of
from rasteret_sql.duck.table_function import Call, Sql, Stream, table_function
from rasteret_sql.errors import CollectionError, InputError
from rasteret_sql.records.catalog import suggest_storage_of
from rasteret_sql.records.datetimes import Instants, format_micros, parse_range
from rasteret_sql.records.records import Records
from rasteret_sql.records.refresh import RefreshOptions, refresh_collection
from rasteret_sql.records.workspace import read_build

_LOCATION = {"stac": "stac_api", "records": "source"}


@table_function("rasteret_refresh")
def refresh(
    call: Call,
    *,
    name: object,
    since: object,
    check_remote: object,
    workspace: object,
    max_concurrent: object,
    on_error: object,
    **locations: object,
) -> Stream | Sql:
    """Run the build of a collection again, for what is new."""
    place = workspace_of(call, workspace)
    info = find(place, name, "name")
    arguments = _stored_arguments(read_build(info.path), info.name, info.kind, locations)
    common: dict[str, Any] = {
        "name": info.name,
        "workspace": workspace,
        "max_concurrent": max_concurrent,
        "on_error": on_error,
    }
    recipe_of = stac_recipe if info.kind == "stac" else table_recipe
    recipe = recipe_of(call, **arguments, **common)
    instants = _since(since, info.kind)
    if instants is not None:
        narrowed = _narrowed(arguments.get("date_range"), instants)
        recipe = replace(recipe, records=_later(call, arguments | common, narrowed))
    options = RefreshOptions(
        recipe.options, check_remote=bool(check_remote), since=instants and instants.start
    )

    def make(records: Callable[[], Records], stop: threading.Event) -> dict[str, Any]:
        suggest_storage_of([info.data_source])
        return refresh_collection(records, recipe.place, options, stop)

    return made(call, recipe, make)


def _stored_arguments(
    built: Mapping[str, object], name: str, kind: str, locations: Mapping[str, object]
) -> dict[str, Any]:
    """What the collection was built with, its location given again or as it was kept.

    Raises:
        CollectionError: the folder does not tell how it was built.
        InputError: a part that may be secret was not kept, and is not given again.
    """
    source = built.get("source")
    if not isinstance(source, dict) or _LOCATION[kind] not in source:
        raise CollectionError.expected(
            name, "a collection that tells how it was built", "none", "build it with force := true"
        )
    arguments = dict(cast("dict[str, Any]", source))
    own = _LOCATION[kind]
    for argument, value in locations.items():
        if value is not None and argument != own:
            raise InputError.expected(argument, "NULL", value, f"{name} is built from {own}")
    withheld = list(cast("list[str]", built.get("withheld") or []))
    if locations[own] is not None:
        arguments[own] = locations[own]
        withheld = [argument for argument in withheld if argument != own]
    if own in withheld:
        raise InputError.expected(
            own, "the signed address again", "NULL", "what follows its ? was not stored"
        )
    if withheld:
        raise InputError.expected(
            ", ".join(withheld), "values without secrets", "ones", "build it with force := true"
        )
    return arguments


def _since(since: object, kind: str) -> Instants | None:
    if since is None:
        return None
    if kind != "stac":
        raise InputError.expected("since", "NULL for a table", since, "put it into its SELECT")
    return parse_range([since, None])


def _narrowed(date_range: list[Any] | None, since: Instants) -> list[Any]:
    """The dates of the build from `since` on."""
    start, end = date_range or [None, None]
    instants = parse_range([start, None])
    later = max(at for at in (instants.start, since.start) if at is not None)
    return [format_micros(later), end]


def _later(
    call: Call, arguments: dict[str, Any], date_range: list[Any]
) -> Callable[..., Records] | None:
    recipe: Recipe = stac_recipe(call, **arguments | {"date_range": date_range})
    return recipe.records
