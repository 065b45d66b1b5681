"""Small types that carry order and unit in their names.

Map coordinates are x then y, pixels row then column, ranges half-open.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rasteret_sql.errors import InputError


class BBox(NamedTuple):
    """A box in map units; ``xmin > xmax`` (longitudes only) crosses the antimeridian."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float

    def intersects(self, other: BBox) -> bool:
        """Whether the boxes share a point; touching counts.

        Example:
            >>> BBox(0, 0, 1, 1).intersects(BBox(1, 1, 2, 2))
            True
        """
        return (
            self.xmin <= other.xmax
            and other.xmin <= self.xmax
            and self.ymin <= other.ymax
            and other.ymin <= self.ymax
        )


class Window(NamedTuple):
    """Pixels ``[row_start, row_stop) x [col_start, col_stop)`` of one image level."""

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def height(self) -> int:
        """Rows in the window."""
        return self.row_stop - self.row_start

    @property
    def width(self) -> int:
        """Columns in the window."""
        return self.col_stop - self.col_start

    @property
    def is_empty(self) -> bool:
        """Whether no pixel lies in the window."""
        return self.height <= 0 or self.width <= 0

    def intersection(self, other: Window) -> Window:
        """The pixels in both windows; may be empty.

        Example:
            >>> Window(0, 10, 0, 10).intersection(Window(5, 20, 8, 9))
            Window(row_start=5, row_stop=10, col_start=8, col_stop=9)
        """
        return Window(
            max(self.row_start, other.row_start),
            min(self.row_stop, other.row_stop),
            max(self.col_start, other.col_start),
            min(self.col_stop, other.col_stop),
        )


class Affine(NamedTuple):
    """Pixel corner to map: ``x = a*col + b*row + c``, ``y = d*col + e*row + f``.

    The order of rasterio's and GeoJSON-projection's six numbers, not GDAL's.
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    @property
    def is_rectilinear(self) -> bool:
        """Whether rows and columns run along the map axes."""
        return self.b == 0 and self.d == 0

    @property
    def determinant(self) -> float:
        """Signed area of a pixel, in square map units."""
        return self.a * self.e - self.b * self.d

    @property
    def is_mirrored(self) -> bool:
        """Whether the raster is a mirror image of the map, as one that is south-up."""
        return self.determinant > 0

    def to_map(self, col: float, row: float) -> tuple[float, float]:
        """Map x, y of a pixel position (0, 0 is the upper-left corner).

        Example:
            >>> Affine(10, 0, 500, 0, -10, 900).to_map(1, 2)
            (510.0, 880.0)
        """
        return (
            float(self.a * col + self.b * row + self.c),
            float(self.d * col + self.e * row + self.f),
        )

    def inverse(self) -> Affine:
        """Map to pixel position.

        Raises:
            InputError: if a pixel has no area.
        """
        det = self.determinant
        if det == 0 or not math.isfinite(det):
            raise InputError.expected(
                "transform", "pixels with an area", tuple(self), "the file has no usable grid"
            )
        a, b, d, e = self.e / det, -self.b / det, -self.d / det, self.a / det
        return Affine(a, b, -self.c * a - self.f * b, d, e, -self.c * d - self.f * e)
