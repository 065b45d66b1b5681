"""What the plans of one read share: a tile that one of them fetches, the next ones have."""

from __future__ import annotations

import numpy as np

from rasteret_sql.reading.footprints import Mask
from rasteret_sql.reading.plan import TilePlan


class Fetched:
    """Which tiles the plans of a read have fetched; the next ones find them in memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int, int], tuple[int, int]] = {}
        self._sparse: set[tuple[int, ...]] = set()

    def chosen(self, plan: TilePlan) -> Mask:
        """Which needs of a plan are of tiles that were not fetched before, in order of its needs.

        Files of which no version is known are fetched by each plan.
        """
        needs, tiles, table = plan.needs, plan.tiles, plan.table
        versions: dict[tuple[int, int], bool] = {}
        is_new = np.ones(len(tiles.file) + 1, bool)  # the last one stands for sparse tiles
        columns = (tiles.file, tiles.band, tiles.scene, tiles.byte_offset, tiles.part,
                   tiles.first_row, tiles.stop_row)  # fmt: skip
        for number, (file, band, scene, offset, part, first, stop) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            if (file, scene) not in versions:
                known = table.bands[plan.bands[band]].version(scene)
                versions[file, scene] = known is not None
            if not versions[file, scene]:
                continue
            key = table.hrefs[file], offset, part
            start, end = self._rows.get(key, (0, 0))
            is_new[number] = not (start <= first and stop <= end)
            if is_new[number]:
                self._rows[key] = first, stop
        chosen: Mask = is_new[needs.tile]
        sparse = np.flatnonzero(needs.tile < 0)
        scene = plan.units.scene[needs.unit]
        places = (scene, needs.band, needs.role, needs.tile_row, needs.tile_col)
        keys = [tuple(one) for one in np.column_stack([one[sparse] for one in places]).tolist()]
        chosen[sparse] = [key not in self._sparse for key in keys]
        self._sparse.update(keys)
        return chosen
