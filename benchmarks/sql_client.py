"""This project as a client of the read benchmarks: one SQL statement, to an Arrow table.

Routes: `read` (rasteret_read), `tiles` (rasteret_read_tiles), `rows`, `sum` and `avg`
(rasteret_pixels), `points` (rasteret_sample_points), `headers` (rasteret_enrich); with `-used`
behind it, the collection was used before in the process. Turning the table into arrays, to compare
pixels, is not timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from cases import (
    CRS,
    SIZE_PX,
    WARM_CRS,
    WARM_KEY,
    WARM_PATH,
    Window,
    areas,
    header_paths,
    load_cogs,
    load_items,
    scene_ids,
    windows,
)

import rasteret_sql

USED = "-used"


class MissingFunctionError(Exception):
    """The function of a route is not in this version."""


class Client(NamedTuple):
    """What is timed, and what turns its table into arrays or into a total."""

    run: Callable[[], pa.Table]
    arrays: Callable[[pa.Table], list[np.ndarray]]
    total: Callable[[pa.Table], int] | None


def build(folder: Path, work: Path, base: str) -> None:
    """Build the collections `s2` and `warm` in a workspace below `work`."""
    items = load_items(folder, base)
    warm = json.loads(json.dumps(next(item for item in items if item["id"] == "B00")))
    warm["assets"] = {"B04": {**warm["assets"]["B04"], "href": f"{base}/{WARM_PATH}"}}
    with rasteret_sql.connect(workspace=work / "workspace") as con:
        for name, records in (("s2", items), ("warm", [warm])):
            path = work / f"{name}.ndjson"
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
            report = con.execute(
                f"SELECT records, failed FROM rasteret_build_stac('{name}', stac_api := '{path}', "
                "force := true)"
            ).fetchall()
            assert report == [(len(records), 0)], report


def prepare(
    base: str, folder: Path, work: Path, case: str, route: str, max_concurrent: int
) -> Client:
    """Do what is not timed. Raises MissingFunctionError."""
    con = rasteret_sql.connect(workspace=work / "workspace")
    if case == "f":
        return headers_client(con, base, max_concurrent)
    if route.endswith(USED):
        route = route.removesuffix(USED)
        con.sql("FROM rasteret_plan('s2', bands := ['B04'], ids := ['B00'])").fetchall()
    functions = {name for (name,) in con.sql("SELECT name FROM rasteret_functions()").fetchall()}
    if route == "read" and "rasteret_read" not in functions:
        raise MissingFunctionError("rasteret_read is not in this version")
    cogs = load_cogs(folder)
    bounds = list(cogs[WARM_KEY].bounds(Window(0, 0, 8, 8)))
    con.sql(
        f"SELECT sum(B04) FROM rasteret_pixels('warm', bands := ['B04'], bbox := {bounds}, "
        f"geometry_crs := '{WARM_CRS}')"
    ).fetchall()
    boxes = [shapely.box(*cogs["A00_B04"].bounds(area)) for area in areas(case)]
    if route == "read":
        geometry = pa.array(shapely.to_wkb(boxes), pa.binary())
        relation = pa.table({"aoi": list(range(len(boxes))), "geometry": geometry})
        con.register("new_aois", relation)
        con.execute("CREATE TABLE aois AS FROM new_aois")
    if route == "points":
        x, y = shapely.get_coordinates(shapely.centroid(boxes)).T
        con.register("new_points", pa.table({"n": range(len(x)), "x": x, "y": y}))
        con.execute("CREATE TABLE places AS FROM new_points")
    area = shapely.MultiPolygon(boxes) if len(boxes) > 1 else boxes[0]
    query = statement(case, route, shapely.to_wkt(area, rounding_precision=-1))
    if route in ("sum", "avg"):
        n_pixels = boxes[0].area / cogs["A00_B04"].resolution_m ** 2 * len(boxes)
        return Client(
            lambda: con.sql(query).to_arrow_table(),
            lambda _: [],
            lambda table: round(
                sum(table["value"].to_pylist()) * (n_pixels if route == "avg" else 1)
            ),
        )
    place = {"read": from_windows, "points": from_points, "tiles": from_tiles, "rows": from_rows}[
        route
    ]
    return Client(lambda: con.sql(query).to_arrow_table(), lambda table: place(table, case), None)


def statement(case: str, route: str, area: str) -> str:
    """The SQL of a case and route; whole scenes are read without an area."""
    ids = scene_ids(case)
    where = f"ids := {ids}"
    if route == "points":
        return (
            "SELECT record_id, n, B04 FROM rasteret_sample_points('s2', 'places', "
            f"bands := ['B04'], geometry_crs := '{CRS}', {where})"
        )
    if case != "d" and route != "read":
        where = f"geometry := '{area}', geometry_crs := '{CRS}', {where}"
    if route == "read":
        aois = f"aois := 'aois', geometry_crs := '{CRS}', " if case != "d" else ""
        columns = "id, aoi, height, width, B04" if case != "d" else "id, height, width, B04"
        return f"SELECT {columns} FROM rasteret_read('s2', bands := ['B04'], {aois}ids := {ids})"
    if route == "tiles":
        return (
            "SELECT id, row_off, col_off, height, width, pixels "
            f"FROM rasteret_read_tiles('s2', bands := ['B04'], {where})"
        )
    columns, group = {
        "rows": ('id, "row", col, B04', ""),
        "sum": ("sum(B04) AS value", ""),
        "avg": ("id, avg(B04) AS value", " GROUP BY id"),
    }[route]
    return f"SELECT {columns} FROM rasteret_pixels('s2', bands := ['B04'], {where}){group}"


def from_windows(table: pa.Table, case: str) -> list[np.ndarray]:
    keys = ("id", "aoi") if case != "d" else ("id",)
    found = {
        tuple(row[key] for key in keys): np.frombuffer(row["B04"], "<u2").reshape(
            row["height"], row["width"]
        )
        for row in table.to_pylist()
    }
    if case == "d":
        return [found[scene,] for scene in scene_ids(case)]
    n_areas = len(areas(case))
    return [found[scene, area] for scene in scene_ids(case) for area in range(n_areas)]


def from_points(table: pa.Table, case: str) -> list[np.ndarray]:
    keys = zip(table["record_id"].to_pylist(), table["n"].to_pylist(), strict=True)
    values = dict(zip(keys, table["B04"].to_numpy(), strict=True))
    return [
        np.full((1, 1), values[scene, number], "u2")
        for scene in scene_ids(case)
        for number in range(len(areas(case)))
    ]


def from_tiles(table: pa.Table, case: str) -> list[np.ndarray]:
    scenes = {scene: np.zeros((SIZE_PX, SIZE_PX), "u2") for scene in scene_ids(case)}
    for row in table.to_pylist():
        top, left, height, width = (row[k] for k in ("row_off", "col_off", "height", "width"))
        pixels = np.frombuffer(row["pixels"], "<u2").reshape(height, width)
        scenes[row["id"]][top : top + height, left : left + width] = pixels
    return cut(scenes, case)


def from_rows(table: pa.Table, case: str) -> list[np.ndarray]:
    ids = scene_ids(case)
    scene = pc.index_in(table["id"].cast(pa.string()), value_set=pa.array(ids)).to_numpy()
    row, col, value = (table[name].to_numpy() for name in ("row", "col", "B04"))
    scenes = {}
    for number, name in enumerate(ids):
        pixels = np.zeros((SIZE_PX, SIZE_PX), "u2")
        chosen = scene == number
        pixels[row[chosen], col[chosen]] = value[chosen]
        scenes[name] = pixels
    return cut(scenes, case)


def cut(scenes: dict[str, np.ndarray], case: str) -> list[np.ndarray]:
    return [
        scenes[name[:3]][row : row + height, col : col + width]
        for name, (row, col, height, width) in windows(case)
    ]


def headers_client(con, base: str, max_concurrent: int) -> Client:
    urls = [f"{base}/{path}" for path in header_paths()]

    def query(name: str, hrefs: list[str]) -> str:
        ids = [str(number) for number in range(len(hrefs))]
        con.register(name, pa.table({"id": ids, "url": hrefs}))
        return (
            "SELECT id, B04_metadata.tile_offsets AS offsets FROM rasteret_enrich("
            f"'{name}', href_column := 'url', bands := ['B04'], on_error := 'error', "
            f"max_concurrent := {max_concurrent})"
        )

    con.sql(query("warmup", [f"{base}/{WARM_PATH}"])).to_arrow_table()
    timed = query("cogs", urls)

    def arrays(table: pa.Table) -> list[np.ndarray]:
        rows = dict(zip(*(table[name].to_pylist() for name in ("id", "offsets")), strict=True))
        return [np.array(rows[str(number)], "i8") for number in range(len(urls))]

    return Client(lambda: con.sql(timed).to_arrow_table(), arrays, None)
