"""Previews: one row per record with a PNG, read from the best overview."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_sql import pictures
from rasteret_sql.reading.columns import Ints
from rasteret_sql.reading.groups import Group
from rasteret_sql.reading.outputs.common import ERROR, Read, run
from rasteret_sql.reading.outputs.windows import WindowOptions, WindowRows
from rasteret_sql.reading.plan import Granularity, TilePlan
from rasteret_sql.reading.planner import Planner
from rasteret_sql.reading.scenes import SceneTable
from rasteret_sql.units import Affine

FIELDS = (
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("transform", pa.list_(pa.float64())),
    pa.field("level", pa.int32()),
    pa.field("png", pa.binary_view()),
)
_PALETTE = 3


@dataclass(frozen=True)
class PreviewOptions:
    """How pictures are made.

    Attributes:
        width: Columns of a picture; fewer where the raster has fewer.
        limits: Values that become black and white; None: percentiles of the picture.
        ramp: Name of the colours of one band.
        classes: Instead, colours of values.
    """

    width: int
    limits: tuple[float, float] | None = None
    ramp: str = "grey"
    classes: dict[int, str] | None = None


class PreviewPlanner(Planner):
    """Plans each record on the smallest overview that has enough columns.

    Args:
        read: The execution.
        bands: Bands that are fetched.
        width: Columns that are enough.
    """

    def __init__(self, read: Read, bands: Sequence[str], width: int) -> None:
        distinct = list(dict.fromkeys(bands))
        super().__init__(read.request, read.footprints, Granularity.WINDOW, bands=distinct)
        self._width = width

    def plans(self, table: SceneTable) -> Iterator[TilePlan]:
        """Plan the records of a table, those of one level together."""
        levels = self._levels(table)
        chosen = np.ones(table.n_scenes, bool) if table.chosen is None else table.chosen
        for level in np.unique(levels[chosen]).tolist():
            planner = Planner(
                replace(self.request, level=level),
                self.footprints,
                Granularity.WINDOW,
                bands=self.bands,
            )
            yield from planner.plans(table.view(self.request.bands, chosen & (levels == level)))

    def _levels(self, table: SceneTable) -> Ints:
        """The level to read of each record."""
        bands = [table.bands[name] for name in self.request.bands]
        found, best = np.zeros(table.n_scenes, np.int64), np.ones(table.n_scenes)
        full = bands[0].level(0)
        if full is None:
            return found
        wanted = np.unique(full.grid[full.grid >= 0])
        pairs, _ = self.footprints.pairs(table.grids, wanted)
        across = np.zeros(len(table.grids), np.int64)
        np.maximum.at(across, pairs.grid, pairs.window[:, 3] - pairs.window[:, 2])
        columns = np.where(full.grid >= 0, across[full.grid], 0)
        for number in itertools.count(1):
            levels = [band.level(number) for band in bands]
            grids = [level.grid for level in levels if level is not None]
            if len(grids) < len(bands):
                break
            there = np.all([grid >= 0 for grid in grids], axis=0)
            factor = np.ones(table.n_scenes)
            factors = np.array([grid.full_width / grid.width for grid in table.grids])
            factor[there] = factors[grids[0][there]]
            fits = there & (columns / factor >= self._width) & (factor > best)
            found[fits], best[fits] = number, factor[fits]
        return found


class PreviewRows(WindowRows):
    """Makes rows of pictures.

    Args:
        read: The execution.
        bands: One band, or red, green and blue; none where no picture is wanted.
        options: How pictures are made.
    """

    def __init__(self, read: Read, bands: Sequence[str], options: PreviewOptions) -> None:
        super().__init__(read, bands, WindowOptions(valid=True))
        self._how = options

    def work(self, group: Group) -> pa.RecordBatch:
        """The rows of a group."""
        units = slice(group.start, group.stop)
        plan = group.plan
        rows = [self._picture(group, unit) for unit in range(group.start, group.stop)]
        return self._batch(
            plan, plan.units.scene[units].tolist(), plan.units.target[units].tolist(), rows
        )

    def _picture(self, group: Group, unit: int) -> dict[str, Any]:
        plan, how = group.plan, self._how
        row = self._row(group, unit)
        size = row["height"], row["width"]
        width = min(how.width, size[1])
        height = max(1, round(size[0] * width / size[1]))
        made = {"error": row["error"], "height": height, "width": width, "level": plan.level}
        if row["transform"] is not None:
            a, b, c, d, e, f = Affine(*row["transform"])
            x, y = size[1] / width, size[0] / height
            made["transform"] = [a * x, b * y, c, d * x, e * y, f]
        arrays = [row[name] for name in self._bands]
        if arrays and all(array is not None for array in arrays):
            masks = row["valid"].reshape(len(arrays), *size).astype(bool)
            classes = how.classes is not None or self._is_palette(plan, unit)
            made["png"] = np.frombuffer(
                self._png(arrays, list(masks), (height, width), is_classes=classes), np.uint8
            )
        return made

    def _png(
        self, arrays: list[Any], masks: list[Any], size: tuple[int, int], *, is_classes: bool
    ) -> bytes:
        smaller = pictures.nearest if is_classes else pictures.averaged
        reals = [np.abs(array) if array.dtype.kind == "c" else array for array in arrays]
        small = [smaller(a, mask, *size) for a, mask in zip(reals, masks, strict=True)]
        valid = np.all([mask & np.isfinite(values) for values, mask in small], axis=0)
        if self._how.classes is not None:
            rgb, valid = pictures.classed(small[0][0], valid, self._how.classes)
            return pictures.png(rgb, valid)
        codes = [pictures.stretched(values, valid, self._how.limits) for values, _ in small]
        rgb = np.dstack(codes) if len(codes) > 1 else pictures.coloured(codes[0], self._how.ramp)
        return pictures.png(rgb, valid)

    def _is_palette(self, plan: TilePlan, unit: int) -> bool:
        level = plan.table.bands[self._bands[0]].level(plan.level)
        number = -1 if level is None else int(level.kind[plan.units.scene[unit]])
        return number >= 0 and plan.table.kinds[number].format.photometric == _PALETTE


def preview_rows(
    read: Read,
    bands: Sequence[str],
    options: PreviewOptions,
    records: Any,  # noqa: ANN401
) -> Iterator[pa.RecordBatch]:
    """Make pictures.

    Args:
        read: The execution.
        bands: Bands that are wanted; none where no picture is.
        options: How pictures are made.
        records: Gives the scene tables.
    """
    planner = PreviewPlanner(read, bands, options.width)
    yield from run(read, PreviewRows(read, bands, options), planner, records)


def preview_schema(on_error: str) -> pa.Schema:
    """Columns of previews besides those of records."""
    return pa.schema([*FIELDS, *((ERROR,) if on_error == "report" else ())])
