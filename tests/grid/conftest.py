import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import shapely

VECTOR = Path(__file__).parents[3] / "shared" / "data" / "vector"


@pytest.fixture(scope="session")
def vectors():
    """Read the polygons of a file in the shared test data, in the coordinates of the file."""

    def read(name):
        path = VECTOR / name
        if not path.exists():
            pytest.skip(f"no shared test data at {path}")
        if path.suffix == ".parquet":
            return list(shapely.from_wkb(pq.read_table(path)["geometry"].to_pylist()))
        features = json.loads(path.read_text())["features"]
        return [shapely.from_geojson(json.dumps(f["geometry"])) for f in features]

    return read
