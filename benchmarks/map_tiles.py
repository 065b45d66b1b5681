"""Time of one tile of the map, from the request to the whole PNG, over the demo's scenes.

    python benchmarks/map_tiles.py

Files and headers are warm. Each tile that is made has a range of its own, so that none is kept;
a tile that is kept is asked for again as it was. One client, one request after another.
"""

from __future__ import annotations

import http.client
import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

import rasteret_sql
from rasteret_sql.demo import write_scenes
from rasteret_sql.maps import serving

WEST, SOUTH, EAST, NORTH = 77.968, 12.993, 78.035, 13.036
DAY = {"date": "2024-03-10"}
CASES = {
    "one band": {"bands": "B08", **DAY},
    "RGB": {"bands": "B08,B04,B04", **DAY},
    "NDVI": {"expression": "rasteret_ndvi(B04, B08)", "colormap": "rdylgn", **DAY},
    "median of all dates": {"bands": "B08", "method": "median"},
}
REPEATS = 3


def places() -> list[str]:
    """Tiles of three zoom levels that hold pixels."""
    return list(dict.fromkeys(_places()))


def _places() -> Iterator[str]:
    for zoom in (13, 14, 15):
        for lon in np.linspace(WEST, EAST, 8):
            for lat in np.linspace(SOUTH, NORTH, 6):
                turned = 1 - math.asinh(math.tan(math.radians(lat))) / math.pi
                x, y = int((lon + 180) / 360 * 2**zoom), int(turned / 2 * 2**zoom)
                yield f"/tiles/s2/{zoom}/{x}/{y}.png"


def main() -> None:
    """Print a table."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as made:
        items = write_scenes(Path(made) / "scenes")
        con = rasteret_sql.connect(workspace=made)
        con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [str(items)]).fetchall()
        con.execute("SET threads = 1")  # as `rasteret-sql map` does
        print("| tile | made: median ms | p95 | kept: median ms | p95 |\n| --- |" + " --- |" * 4)
        with serving(con, ["s2"], tokens=[]) as server:
            client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

            def ask(path: str, query: dict[str, str]) -> float:
                begun = time.perf_counter()
                client.request("GET", f"{path}?{urlencode(query)}")
                answer = client.getresponse()
                body = answer.read()
                seconds = time.perf_counter() - begun
                if answer.status != http.HTTPStatus.OK:
                    raise SystemExit(body.decode())
                return 1000 * seconds

            for name, query in CASES.items():
                times: dict[str, list[float]] = {"made": [], "kept": []}
                for repeat in range(REPEATS + 1):
                    for path in places():
                        new = ask(path, query | {"rescale": f"{-1 - next(numbers) / 1000},6000"})
                        kept = ask(path, query | {"rescale": "0,6000"})
                        if repeat:  # the first time is not warm
                            times["made"].append(new)
                            times["kept"].append(kept)
                figures = [np.percentile(one, p) for one in times.values() for p in (50, 95)]
                print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
        con.close()


if __name__ == "__main__":
    main()
