"""What a read does, as numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """What a read did.

    Attributes:
        requests: Ranges that were asked for.
        fetched_bytes: Bytes that came.
        tiles_decoded: Blocks, or parts of large ones.
        decoded_bytes: Bytes of their pixels.
        cache_hits: Tiles that were in memory, or that another read was decoding.
        tiles_failed: Tiles that could not be fetched or decoded.
        unplanned: Scenes, or bands of them, that no tile could be planned for.
        tiles_planned: Tiles of the plans so far.
        planned_share: Share of the scenes that these plans cover; 0 where that is not known.
    """

    requests: int = 0
    fetched_bytes: int = 0
    tiles_decoded: int = 0
    decoded_bytes: int = 0
    cache_hits: int = 0
    tiles_failed: int = 0
    unplanned: int = 0
    tiles_planned: int = 0
    planned_share: float = 0.0

    @property
    def tiles_done(self) -> int:
        """Tiles that are there, or will not be."""
        return self.tiles_decoded + self.cache_hits + self.tiles_failed

    @property
    def tiles_expected(self) -> int:
        """Tiles of the whole read, about, from those of the scenes so far; 0 where not known."""
        share = self.planned_share
        return round(self.tiles_planned / share) if share else 0
