"""Small scenes that look like Sentinel-2: fields either side of 78 E, in two UTM zones.

Everything is computed from longitude, latitude and date, so two runs write the same
pixels, and the scenes of the two zones agree where they overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from pyproj import Transformer

Grid = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

ITEMS_FILE = "items.json"
SIZE_PX = 512
PIXEL_M = 10.0
N_OVERVIEWS = 2

_ZONES = {"43PHQ": (32643, 821600.0, 1443200.0), "44PKV": (32644, 173600.0, 1443200.0)}
"""Tile name to EPSG code and upper left corner in metres."""

_CLOUDS = {date(2024, 1, 10): 0.25, date(2024, 2, 9): 3.2, date(2024, 3, 10): 0.45}
"""Date to size of its clouds, in km; the second date is overcast."""

_CLOUD_CENTRES = ((77.985, 13.026), (78.012, 13.019), (78.024, 13.031))
_DEGREE_KM = 111.0
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_COMMON_NAMES = {"B04": "red", "B08": "nir"}

# TIFF tags 33550, 33922, 34735 (OGC GeoTIFF 1.1, section 7.1) and GDAL's 42113
_PIXEL_SCALE, _TIEPOINT, _GEO_KEYS, _GDAL_NODATA = 33550, 33922, 34735, 42113
_ASCII, _SHORT, _DOUBLE = 2, 3, 12


@dataclass(frozen=True)
class Scene:
    """One date of one tile.

    Attributes:
        bands: Band to values, ``(rows, cols)``, uint16 reflectance times 10000 with 0 for
            no data, or uint8 classes (SCL).
    """

    tile: str
    epsg: int
    left_m: float
    top_m: float
    day: date
    bands: dict[str, Image]

    @property
    def name(self) -> str:
        """Id of its STAC item."""
        return f"S2A_{self.tile}_{self.day:%Y%m%d}_L2A"

    @property
    def cloud_cover(self) -> float:
        """Share of pixels classed as cloud (8, 9), in percent."""
        return round(100 * float(np.isin(self.bands["SCL"], (8, 9)).mean()), 2)


def write_scenes(folder: Path) -> Path:
    """Write all files and the ItemCollection that describes them.

    Returns:
        The ItemCollection; its hrefs are relative, so the folder may be moved.
    """
    items = []
    for scene in _scenes():
        for band, image in scene.bands.items():
            path = folder / scene.name / f"{band}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_tiff(path, image, scene)
        items.append(_item(scene))
    path = folder / ITEMS_FILE
    text = json.dumps({"type": "FeatureCollection", "features": items}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _scenes() -> Iterator[Scene]:
    places = {tile: _Place(*_lonlat(*zone)) for tile, zone in _ZONES.items()}
    for day, cloud_km in _CLOUDS.items():
        for tile, (epsg, left, top) in _ZONES.items():
            yield Scene(tile, epsg, left, top, day, _bands(places[tile], day, cloud_km))


class _Place:
    """What is the same on all dates of a tile."""

    def __init__(self, lon: Grid, lat: Grid) -> None:
        self.lon, self.lat = lon, lat
        self.water = _river(lon, lat)
        self.texture = _texture(lon, lat)
        self.cloud_km = _cloud_distance_km(lon, lat)
        self.shadow_km = _cloud_distance_km(lon - 0.004, lat - 0.003)


def _lonlat(epsg: int, left: float, top: float) -> tuple[Grid, Grid]:
    """Longitude and latitude of all pixel centres."""
    steps = (np.arange(SIZE_PX) + 0.5) * PIXEL_M
    x, y = np.meshgrid(left + steps, top - steps)
    lon, lat = Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def _bands(place: _Place, day: date, cloud_km: float) -> dict[str, Image]:
    cover = _plant_cover(place.lon, place.lat, day)
    water, texture = place.water, place.texture
    red = np.where(water, 420.0, 1900 - 1550 * cover) + 60 * texture
    nir = np.where(water, 230.0, 2300 + 2500 * cover) + 90 * texture
    classes = np.where(water, 6, np.where(cover > 0.3, 4, 5))
    distance = place.cloud_km / cloud_km
    shadow = place.shadow_km / cloud_km < 1
    red, nir = np.where(shadow, red * 0.4, red), np.where(shadow, nir * 0.4, nir)
    haze = distance < 1.25
    red, nir = np.where(haze, 5200.0, red), np.where(haze, 5600.0, nir)
    classes = np.where(haze, 8, np.where(shadow, 3, classes))
    thick = distance < 1
    bands: dict[str, Image] = {
        name: np.where(thick, 0.0, values.round()).astype(np.uint16)
        for name, values in (("B04", red), ("B08", nir))
    }
    return bands | {"SCL": np.where(thick, 9, classes).astype(np.uint8)}


def _plant_cover(lon: Grid, lat: Grid, day: date) -> Grid:
    """From 0 (bare) to 1: each field of about 300 m grows from its own day of sowing."""
    field = np.floor((lon + 0.2 * lat) / 0.0028), np.floor((lat - 0.2 * lon) / 0.0021)
    sown = 60 * (0.5 + 0.5 * np.sin(12.9898 * field[0] + 78.233 * field[1]))
    age = (day - date(2023, 12, 20)).days - sown
    return 0.08 + 0.84 / (1 + np.exp(-(age - 30) / 9))


def _river(lon: Grid, lat: Grid) -> npt.NDArray[np.bool_]:
    return np.abs(lat - 13.038 - 0.003 * np.sin((lon - 78) * 250)) < 0.0006


def _texture(lon: Grid, lat: Grid) -> Grid:
    """Fine structure between -1 and 1."""
    return np.asarray(np.sin(lon * 41000) * np.cos(lat * 37000))


def _cloud_distance_km(lon: Grid, lat: Grid) -> Grid:
    """Distance to the nearest centre of a cloud."""
    shrink = np.cos(np.radians(13))
    found = [np.hypot((lon - x) * shrink, lat - y) * _DEGREE_KM for x, y in _CLOUD_CENTRES]
    return np.asarray(np.minimum.reduce(found))


def _write_tiff(path: Path, image: Image, scene: Scene) -> None:
    """Tiles of 128 px, deflate, horizontal differencing, overviews as pages behind."""
    is_class = image.dtype == np.uint8
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, scene.epsg)
    tags: list[tuple[int, int, int, Any, bool]] = [
        (_PIXEL_SCALE, _DOUBLE, 3, (PIXEL_M, PIXEL_M, 0.0), True),
        (_TIEPOINT, _DOUBLE, 6, (0.0, 0.0, 0.0, scene.left_m, scene.top_m, 0.0), True),
        (_GEO_KEYS, _SHORT, len(keys), keys, True),
    ]
    nodata = (_GDAL_NODATA, _ASCII, 2, "0", True)
    level: Image = image
    with tifffile.TiffWriter(path) as out:
        for number in range(N_OVERVIEWS + 1):
            out.write(
                level,
                subfiletype=1 if number else 0,
                tile=(128, 128),
                compression="deflate",
                predictor=None if is_class else 2,
                photometric="minisblack",
                metadata=None,
                software=False,
                extratags=[nodata] if number else [*tags, nodata],
            )
            level = level[::2, ::2] if is_class else _halved(level)


def _halved(image: Image) -> npt.NDArray[np.uint16]:
    """Mean of each 2 x 2 pixels that has data, 0 where none has."""
    rows, cols = image.shape
    blocks = image.reshape(rows // 2, 2, cols // 2, 2).astype(np.float64)
    count = (blocks > 0).sum(axis=(1, 3))
    mean = blocks.sum(axis=(1, 3)) / np.maximum(count, 1)
    halved: npt.NDArray[np.uint16] = mean.round().astype(np.uint16)
    return halved


def _item(scene: Scene) -> dict[str, Any]:
    size = SIZE_PX * PIXEL_M
    left, top = scene.left_m, scene.top_m
    to_lonlat = Transformer.from_crs(scene.epsg, 4326, always_xy=True)
    x = (left, left + size, left + size, left, left)
    y = (top - size, top - size, top, top, top - size)
    lon, lat = ([round(v, 7) for v in values] for values in to_lonlat.transform(x, y))
    # 05:22 UTC is when Sentinel-2 passes here
    when = datetime(scene.day.year, scene.day.month, scene.day.day, 5, 22, 11, tzinfo=UTC)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": scene.name,
        "collection": "sentinel-2-l2a",
        "bbox": [min(lon), min(lat), max(lon), max(lat)],
        "geometry": {"type": "Polygon", "coordinates": [list(zip(lon, lat, strict=True))]},
        "properties": {
            "datetime": when.isoformat().replace("+00:00", "Z"),
            "eo:cloud_cover": scene.cloud_cover,
            "proj:epsg": scene.epsg,
            "proj:code": f"EPSG:{scene.epsg}",
            "platform": "sentinel-2a",
        },
        "assets": {band: _asset(scene, band) for band in scene.bands},
        "links": [],
    }


def _asset(scene: Scene, band: str) -> dict[str, Any]:
    common = {"common_name": _COMMON_NAMES[band]} if band in _COMMON_NAMES else {}
    return {
        "href": f"./{scene.name}/{band}.tif",
        "type": _COG,
        "roles": ["data"],
        "eo:bands": [{"name": band, **common}],
    }
