"""What `rasteret_read` must give, by rasterio; and its rows as arrays.

Geometries are shapely's. "Pixel coordinates" have x = column and y = row, 0, 0 the upper
left corner of the image, as in ``geometry_crs := 'pixel'``.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import rasterio
import rasterio.features
import rasterio.mask
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import WindowError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

LOSSY = ("JPEG", "WEBP", "JXL", "YCbCr JPEG")


class Expected(NamedTuple):
    """One row.

    Attributes:
        pixels: Shape (bands, height, width).
        valid: Same shape, False where there is no data.
        transform: Of the window.
        window: In pixels of the level.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    transform: Affine
    window: Window


class Got(NamedTuple):
    """One row of `rasteret_read`; ``row`` holds all its columns as they came."""

    bands: dict[str, NDArray[Any]]
    valid: NDArray[np.bool_] | None
    transform: Affine | None
    row: dict[str, Any]


@contextlib.contextmanager
def opened(path: str | Path, level: int = 0) -> Iterator[Any]:
    """A file alone, without its neighbours; ``level`` 1 is its largest overview."""
    options = {"OVERVIEW_LEVEL": overview_number(path, level)} if level else {}
    with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        warnings.simplefilter("ignore")
        with rasterio.open(path, driver="GTiff", **options) as file:
            yield file


def overview_number(path: str | Path, level: int) -> int:
    """GDAL's number of a level; it numbers overviews as they stand in the file."""
    with opened(path) as file:
        factors = file.overviews(1)
    return sorted(range(len(factors)), key=lambda number: factors[number])[level - 1]


def to_map(geometry_px: shapely.Geometry, transform: Affine) -> shapely.Geometry:
    """A geometry in pixel coordinates as one in map coordinates."""
    a, b, c, d, e, f = transform[:6]
    linear = np.array([[a, d], [b, e]])
    return shapely.transform(geometry_px, lambda xy: xy @ linear + [c, f])


def expected_read(
    path: str | Path,
    geometry: shapely.Geometry | None = None,
    *,
    geometry_px: shapely.Geometry | None = None,
    indexes: Sequence[int] | None = None,
    level: int = 0,
    all_touched: bool = False,
    crop: bool = True,
    masked: bool = True,
) -> Expected | None:
    """What rasterio gives for one file and one area.

    Args:
        path: The file.
        geometry: In the CRS of the file; None reads the whole image.
        geometry_px: Instead of it, in pixel coordinates of the full resolution.
        indexes: Bands, from 1; default all.
        level: 0 is the full resolution, 1 the first overview.
        all_touched: As in `rasterio.mask.mask`.
        crop: As in `rasterio.mask.mask`.
        masked: False gives the file's own pixels of the window, not changed by the area.

    Returns:
        The row, None where the bounds of the area are outside.
    """
    with contextlib.ExitStack() as files:
        full = files.enter_context(opened(path))
        file = files.enter_context(opened(path, level)) if level else full
        if geometry_px is not None:
            geometry = to_map(geometry_px, full.transform)
        indexes = list(indexes or file.indexes)
        window = Window(0, 0, file.width, file.height)
        if geometry is not None:
            try:
                touched = rasterio.features.geometry_window(file, [geometry])
            except WindowError:
                return None
            if touched.width < 1 or touched.height < 1:
                return None
            window = touched if crop else window
        if geometry is None:
            values = file.read(indexes, masked=True)
        else:
            values, transform = rasterio.mask.mask(
                file, [geometry], all_touched=all_touched, crop=crop, filled=False, indexes=indexes
            )
            assert transform.almost_equals(file.window_transform(window), 1e-9 * abs(transform.a))
        valid = ~np.broadcast_to(np.ma.getmaskarray(values), values.shape)
        valid = valid & stored(file, full, indexes, window, level)
        pixels = file.read(indexes, window=window)
        if masked:
            pixels = np.where(valid, pixels, fill_value(file))
        return Expected(pixels, valid, file.window_transform(window), window)


def stored(file: Any, full: Any, indexes: Sequence[int], window: Window, level: int) -> Any:
    """Which pixels lie in blocks that are in the file; rasterio reads the others as valid 0.

    ``file`` is opened at the level, ``full`` is the same at the full resolution.
    """
    if file.nodata is not None or file.driver != "GTiff":
        return np.True_
    found = np.ones((len(indexes), window.height, window.width), bool)
    height, width = file.block_shapes[0]
    top, left = window.row_off, window.col_off
    rows = range(top // height, -(-(top + window.height) // height))
    cols = range(left // width, -(-(left + window.width) // width))
    ovr = overview_number(file.name, level) if level else None
    for (number, index), row, col in itertools.product(enumerate(indexes), rows, cols):
        name = f"BLOCK_OFFSET_{col}_{row}"
        if full.get_tag_item(name, "TIFF", bidx=index, ovr=ovr) is None:
            down = slice(max(row * height - top, 0), (row + 1) * height - top)
            across = slice(max(col * width - left, 0), (col + 1) * width - left)
            found[number, down, across] = False
    return found


def fill_value(file: Any) -> Any:
    """What stands where there is no data: nodata, else 0."""
    dtype = np.dtype(
        {"complex_int16": "complex64", "complex_int32": "complex128"}.get(
            file.dtypes[0], file.dtypes[0]
        )
    )
    nodata = 0 if file.nodata is None else file.nodata
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max:
        nodata = 0
    return np.array(nodata).astype(dtype)


def touches(path: str | Path, geometry_px: shapely.Geometry) -> bool:
    """Whether an area shares more than its border with the image."""
    return overlap(image_px(path), geometry_px)


def image_px(path: str | Path) -> shapely.Polygon:
    """The outline of an image in pixel coordinates."""
    with opened(path) as file:
        return shapely.box(0, 0, file.width, file.height)


def overlap(image: shapely.Geometry, area: shapely.Geometry) -> bool:
    """Whether two areas share more than their borders."""
    return bool(shapely.intersection(image, area).area > 0)


def warped(
    path: str | Path, row: dict[str, Any], level: int = 0
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The first band on the grid of a row, and which pixels hold data."""
    options = {"OVERVIEW_LEVEL": level - 1} if level else {}
    with rasterio.open(path, **options) as file, WarpedVRT(
        file, crs=row["crs"], transform=Affine(*row["transform"]), width=row["width"],
        height=row["height"], tolerance=1e-6, add_alpha=file.nodata is None,
    ) as vrt:  # fmt: skip
        return vrt.read(1), vrt.read_masks(1) != 0


def literal(value: Any) -> str:
    """A value as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, dict):
        pairs = (f"{literal(key)}: {literal(item)}" for key, item in value.items())
        return f"MAP {{{', '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, shapely.Geometry):
        return literal(value.wkb_hex)
    return repr(value)


def call_of(function: str, collection: str, **options: Any) -> str:
    """A call of a table function as SQL; options that are None are left out."""
    named = [f"{k} := {literal(v)}" for k, v in options.items() if v is not None]
    return f"{function}({', '.join([literal(str(collection)), *named])})"


def rows_of(con: Any, query: str) -> list[dict[str, Any]]:
    """All rows as dictionaries; no two columns may have one name."""
    found = con.execute(query)
    names = [column[0] for column in found.description]
    assert len({name.lower() for name in names}) == len(names), names
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def numpy_type(dtype: str) -> np.dtype[Any]:
    """Type of the values in a BLOB: little-endian."""
    return np.dtype(dtype).newbyteorder("<")


def read(con: Any, collection: str, bands: Sequence[str], **options: Any) -> list[Got]:
    """Run `rasteret_read` (BLOBs, one grid) and decode its rows."""
    query = f"FROM {call_of('rasteret_read', collection, bands=list(bands), **options)}"
    return [decoded(row, bands) for row in rows_of(con, query)]


def decoded(row: dict[str, Any], bands: Sequence[str]) -> Got:
    """The BLOBs of a row as arrays; a band that is NULL is left out."""
    shape = (row["height"], row["width"])
    arrays, valid = {}, None
    for position, band in enumerate(bands):
        if row[band] is not None:
            dtype = numpy_type(row["dtypes"][position])
            assert len(row[band]) == dtype.itemsize * shape[0] * shape[1], (band, row["dtypes"])
            arrays[band] = np.frombuffer(row[band], dtype).reshape(shape)
    if row.get("valid") is not None:
        bits = np.frombuffer(row["valid"], np.uint8)
        assert bits.size == len(bands) * shape[0] * shape[1]
        assert set(np.unique(bits)) <= {0, 1}
        valid = bits.reshape(len(bands), *shape).astype(bool)
    transform = None if row["transform"] is None else Affine(*row["transform"])
    return Got(arrays, valid, transform, row)


def assert_same(got: Got, expected: Expected, *, georeferenced: bool = True) -> None:
    """A row of ours equals rasterio's: shape, values, validity, transform."""
    told = {k: v for k, v in got.row.items() if not isinstance(v, (bytes, bytearray))}
    shape = (expected.window.height, expected.window.width)
    assert (got.row["height"], got.row["width"]) == shape, told
    assert len(got.bands) == len(expected.pixels), told
    for values, wanted in zip(got.bands.values(), expected.pixels, strict=True):
        is_wider = values.dtype in (np.float16, np.complex128)  # GDAL's complex integers
        wide = values.astype(wanted.dtype) if is_wider else values
        assert wide.dtype == wanted.dtype, told
        np.testing.assert_array_equal(wide, wanted, err_msg=str(told))
    if got.valid is not None:
        np.testing.assert_array_equal(got.valid, expected.valid, err_msg=str(told))
    if georeferenced:
        assert got.transform is not None, told
        assert_transform(got.transform, expected.transform)


def assert_transform(got: Sequence[float], expected: Sequence[float]) -> None:
    pixel = max(abs(number) for i, number in enumerate(expected[:6]) if i not in (2, 5))
    np.testing.assert_allclose(got[:6], expected[:6], rtol=1e-12, atol=1e-9 * pixel)


def polygonal(geometry: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a repaired geometry, as Polygon or MultiPolygon; may be empty."""
    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(geometry)))
    return shapely.union_all(parts[shapely.get_type_id(parts) == 3])


def random_polygon(rng: np.random.Generator, size: float) -> shapely.Geometry:
    """Star of 3 to 11 corners about a random centre, some with a hole or a second part."""
    n = rng.integers(3, 12)
    angles = np.sort(rng.uniform(0, 2 * np.pi, n))
    radii = rng.uniform(0.1, 0.6, n) * size
    centre = rng.uniform(0, size, 2)
    ring = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    area = polygonal(shapely.Polygon(ring))
    kind = rng.integers(0, 3)
    if kind == 1:
        area = polygonal(area - shapely.Point(centre).buffer(0.11 * size, 3))
    if kind == 2:
        second = shapely.Point(rng.uniform(0, size, 2)).buffer(0.17 * size, 2)
        area = polygonal(shapely.union(area, second))
    return area


def make_areas(con: Any, name: str, areas: dict[str, shapely.Geometry], kind: str = "TABLE") -> str:
    """A table of areas with columns ``area`` (a name) and ``geom`` (WKB)."""
    rows = pa.table({"area": list(areas), "geom": [a.wkb for a in areas.values()]})
    con.register("_rows_of_areas", rows)
    con.execute(f"CREATE OR REPLACE {kind} {name} AS FROM _rows_of_areas")
    con.unregister("_rows_of_areas")
    return name


def build_files(
    con: Any, name: str, files: dict[str, str | Path], bands: Sequence[str] = ("band",)
) -> str:
    """A collection over files; ``bands`` are their samples in order. Returns its name."""
    con.register("_files", pa.table({"id": list(files), "href": [str(p) for p in files.values()]}))
    con.execute(f"CREATE OR REPLACE TABLE {name}_files AS FROM _files")
    con.unregister("_files")
    samples = {band: index for index, band in enumerate(bands)}
    call = call_of(
        "rasteret_build_table", name, source=f"{name}_files", href_column="href",
        band_index_map=samples, enrich=True, force=True,
    )  # fmt: skip
    con.execute(f"FROM {call}").fetchall()
    return name
