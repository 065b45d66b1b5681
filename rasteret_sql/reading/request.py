"""What every read takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnError = Literal["error", "null", "report"]


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
    """

    bands: tuple[str, ...]
    level: int = 0
    all_touched: bool = False
    masked: bool = True
    scaled: bool = False
    on_error: OnError = "error"
    max_bytes: int | None = None
    max_concurrent: int | None = None
