"""What every read takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnError = Literal["error", "null", "report"]


Overview = int | Literal["auto", "none"]


@dataclass(frozen=True)
class OutputGrid:
    """A grid of the caller's, which pixels are read onto.

    Attributes:
        crs: Of the grid; None for the CRS of each raster.
        resolution: Width and height of a pixel in units of the CRS; None for those of the
            raster, whose units must be the same.
        kernel: One of `grid.kernels.KERNELS`.
        overview: Level to read from; ``'auto'`` by the rule of gdalwarp, ``'none'`` the full
            resolution.
    """

    crs: str | None = None
    resolution: tuple[float, float] | None = None
    kernel: str = "nearest"
    overview: Overview = "auto"


@dataclass(frozen=True)
class ReadRequest:
    """What to read, whatever form it is returned in.

    Attributes:
        bands: Bands, in output order.
        level: 0 is full resolution, 1 the largest overview.
        all_touched: Pixels that the area touches, not only those whose centre it holds.
        masked: Hide nodata, masked, transparent and sparse pixels.
        scaled: Apply the file's scale and offset.
        on_error: What a tile or header that can't be read does.
        max_bytes: Refuse a read that would fetch more.
        max_concurrent: Requests under way at once; None adapts to the latency.
        output_grid: The grid of the pixels; None for that of each raster.
    """

    bands: tuple[str, ...]
    level: int = 0
    all_touched: bool = False
    masked: bool = True
    scaled: bool = False
    on_error: OnError = "error"
    max_bytes: int | None = None
    max_concurrent: int | None = None
    output_grid: OutputGrid | None = None
