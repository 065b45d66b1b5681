"""Pictures from SQL: rasteret_preview."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import at_least, interval
from rasteret_sql.duck.declarations import Parameter, table_function, with_docs
from rasteret_sql.duck.functions.read_parameters import COLLECTION, READ_PARAMETERS
from rasteret_sql.duck.reading import BoundRead, bind_read, expose_read
from rasteret_sql.errors import InputError
from rasteret_sql.pictures import CLASSES, RAMPS, rgb_of
from rasteret_sql.reading.outputs.previews import PreviewOptions, preview_rows, preview_schema


def colours(name: str, value: object) -> str | dict[int, str]:
    """The name of a colormap, or a colour for each value.

    Example:
        >>> colours("colormap", {4: "#00a000"})
        {4: '00a000'}
    """
    listed = ", ".join(map(repr, (*RAMPS, *CLASSES)))
    if isinstance(value, str) and value in (*RAMPS, *CLASSES):
        return value
    if isinstance(value, Mapping) and value:
        try:
            pairs = {int(key): bytes(rgb_of(colour)).hex() for key, colour in value.items()}
        except (ValueError, TypeError, AttributeError):
            pairs = {}
        if pairs:
            return pairs
    raise InputError.expected(
        name, f"{listed} or MAP {{value: '#rrggbb'}}", value, "choose one, or name each colour"
    )


@table_function(
    "rasteret_preview",
    "Pictures: one PNG per record, from the smallest overview that is wide enough.",
    file="30_pixels.sql",
    parameters=(
        *with_docs(
            (COLLECTION, *READ_PARAMETERS),
            bands="[red, green, blue], or one band; default: the collection's, if it has one or "
            "three",
        ),
        Parameter(
            "width",
            "INTEGER",
            "columns of a picture, in pixels; fewer where the area has fewer",
            "512",
            at_least(1),
        ),
        Parameter(
            "rescale",
            "DOUBLE[]",
            "[low, high]: values that become black and white; default: 2nd and 98th percentile "
            "of each band of the picture",
            "NULL",
            interval,
        ),
        Parameter(
            "colormap",
            "any",
            "of one band: 'grey', 'viridis', 'magma', 'rdylgn', 'scl' (classes of Sentinel-2), or "
            "MAP {value: '#rrggbb'}, where other values are transparent",
            "'grey'",
            colours,
        ),
    ),
    notes=(
        "Pixels without data and outside the area are transparent. A pixel of the picture is the",
        "mean of the valid pixels that it covers; of classes (a MAP, 'scl', a palette) the one in",
        "its middle.",
    ),
    returns="the record's columns, height, width (of the picture), transform (of its pixels), "
    "level (0: full resolution), png BLOB",
    raises="collection, bands: unknown, neither one nor three; bands of unlike grid; a tile that "
    "can't be read, unless on_error",
    example="SELECT id, width, height, octet_length(png) FROM rasteret_preview('s2', "
    "bands := ['B08', 'B04', 'B04'], width := 128)",
)
def preview(
    call: Call,
    *,
    width: int,
    rescale: tuple[float, float] | None,
    colormap: str | dict[int, str],
    **arguments: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Make pictures."""
    asked = arguments["bands"]
    arguments["bands"] = None if asked is None else list(dict.fromkeys(asked))
    bound = bind_read(call, arguments)
    names = bound.request.bands if asked is None else tuple(asked)
    if len(names) not in (1, 3):
        raise InputError.expected(
            "bands", "one band, or red, green and blue", ", ".join(names), "name them"
        )
    if len(names) == 3 and colormap != "grey":
        raise InputError.expected(
            "colormap", "one band", ", ".join(names), "leave colormap out, or name one band"
        )
    classes = CLASSES.get(colormap) if isinstance(colormap, str) else colormap
    ramp = "grey" if classes is not None or not isinstance(colormap, str) else colormap
    options = PreviewOptions(width, rescale, ramp, classes)

    def run(bound: BoundRead, scan: Scan) -> Iterator[pa.RecordBatch]:
        wanted = names if {"png", "error"} & set(scan.columns) else ()
        yield from preview_rows(bound.execution(scan), wanted, options, bound.records(scan))

    return expose_read(bound, preview_schema(bound.request.on_error), run)
