"""Options that pass a parameter of a table function on, worded as its declaration words it.

Name, help and default are the parameter's; what only a command line has (metavar, parsing,
flags) stands here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import click

from rasteret_sql.cli import tab_completion, values
from rasteret_sql.cli.completion import words_of
from rasteret_sql.cli.decorators import Command, Option, together
from rasteret_sql.duck import functions  # noqa: F401 (declares them)
from rasteret_sql.duck.declarations import FUNCTIONS, Parameter

_FORMS: dict[str, dict[str, Any]] = {  # the help of values that are written otherwise than in SQL
    "band_index_map": {"metavar": "BAND=N,...", "callback": values.integers},
    "bbox": {
        "metavar": "W,S,E,N",
        "callback": values.bbox,
        "help": "Area in degrees; west > east crosses 180.",
    },
    "date_range": {
        "metavar": "START/END",
        "callback": values.date_range,
        "help": "Dates; a side left out is open, a date as end means through that day.",
    },
    "query": {"help": "STAC query extension, as JSON."},
    "intersects": {"help": "Area as WKT or GeoJSON, in degrees, in place of --bbox."},
    "partition_by": {
        "metavar": "NAME,...",
        "callback": values.names,
        "help": "Hive partition columns; default: year,month.",
    },
    "geometry": {"help": "Polygon as WKT or GeoJSON, in place of --bbox."},
    "record_columns": {
        "metavar": "NAME,...",
        "callback": values.names,
    },
    "max_dt": {"metavar": "INTERVAL", "callback": values.interval},
    "mask_values": {"metavar": "N,...", "callback": values.numbers},
    "rescale": {
        "metavar": "LOW,HIGH",
        "callback": values.numbers,
        "help": "Values that become black and white; default: 2nd and 98th percentile of each "
        "band of the picture.",
    },
    "colormap": {
        "metavar": "NAME|VALUE=COLOUR,...",
        "callback": values.colormap,
        "help": "Of one band: grey, viridis, magma, rdylgn, scl (classes of Sentinel-2), or "
        "VALUE=#rrggbb,..., where other values are transparent.",
    },
    "level": {"type": click.IntRange(min=0)},
    "max_distance_pixels": {"type": click.IntRange(min=0)},
    "max_bytes": {"type": click.IntRange(min=0)},
    "since": {"metavar": "DATE"},
    "start_date": {"metavar": "DATE"},
    "end_date": {"metavar": "DATE", "help": "Of the last scene; left out: goes on."},
}
_FORMS_OF_TYPES: dict[str, dict[str, Any]] = {
    "VARCHAR[]": {"metavar": "NAME,...", "callback": values.names},
    "MAP": {"metavar": "KEY=VALUE,...", "callback": values.texts},
    "DOUBLE": {"type": float},
    "BIGINT": {"type": click.IntRange(min=1)},
    "INTEGER": {"type": click.IntRange(min=1)},
}
_COMPLETERS: dict[str, tab_completion.Completer] = {
    "bands": tab_completion.bands,
    "stac_api": tab_completion.files,
    "source": tab_completion.files,
    "data_source": tab_completion.dataset_ids,
}


def of(function: str, name: str, **how: Any) -> Option:  # noqa: ANN401 (what click takes)
    """The option that passes a parameter on.

    Args:
        function: SQL name.
        name: Of the parameter.
        **how: What click takes, in place of what follows from the parameter's type.

    Raises:
        StopIteration: the function has no such parameter.
    """
    parameter = FUNCTIONS[function].parameter(name)
    form = _FORMS.get(name, _FORMS_OF_TYPES.get(parameter.sql_type, {}))
    flag = f"--{name.replace('_', '-')}"
    told = {"help": _help(parameter), "shell_complete": _completer(parameter)} | form
    if parameter.sql_type == "BOOLEAN":
        on = parameter.default == "true"
        flag = f"{flag}/--no-{flag[2:]}" if on else flag
        told |= {"default": on, "show_default": on, "is_flag": True}
    elif parameter.default.startswith("["):
        told["show_default"] = ",".join(_LISTED.findall(parameter.default))
    elif parameter.default not in ("", "NULL"):
        told |= {"default": parameter.default.strip("'"), "show_default": True}
    return cast("Option", click.option(flag, name, **told | how))


def _completer(parameter: Parameter) -> tab_completion.Completer | None:
    """What Tab offers for a parameter; None: what click itself does."""
    words = words_of(parameter)
    if words:
        return tab_completion.Words(words, are_listed=parameter.sql_type.endswith("[]"))
    return _COMPLETERS.get(parameter.name)


_LISTED = re.compile(r"'(\w+)'")


def _help(parameter: Parameter) -> str:
    """The parameter's line of the manual as a sentence."""
    text = parameter.doc
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def all_of(function: str, *names: str) -> Callable[[Command], Command]:
    """Several options of one function, in this order."""
    return together(*(of(function, name) for name in names))


def rest_of(function: str, *without: str) -> Callable[[Command], Command]:
    """The options of all parameters of a function but some, in their order."""
    names = (one.name for one in FUNCTIONS[function].parameters)
    return all_of(function, *(name for name in names if name not in without))


strict = click.option(
    "--strict",
    "on_error",
    flag_value="error",
    help="End at the first asset that can't be read, change nothing.",
)
