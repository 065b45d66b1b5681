"""Peak memory of reads that decode two and a half times the budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rasteret_sql.reading.tile_store import BUDGET_BYTES

pytestmark = pytest.mark.any_duckdb

SCENARIO = Path(__file__).with_name("memory_scenario.py")
ALLOWED_MIB = 1.3 * BUDGET_BYTES / 2**20
STRIPS = ", ".join(  # the lower half of each tile: all of them are decoded
    f"((-1 {top}, 4097 {top + 3}, 4097 {top + 256}, -1 {top + 253}, -1 {top}))"
    for top in range(256, 4096, 512)
)
ZONE = (
    "SELECT sum(mean), sum(median), sum(max) FROM rasteret_zonal_stats('made', "
    f"'SELECT ''MULTIPOLYGON({STRIPS})'' AS geometry', "
    "stats := ['mean', 'median', 'max'], weights := 'fraction', geometry_crs := 'pixel')"
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "query",
    [
        "SELECT avg(b) FROM rasteret_pixels('made')",
        "SELECT id, sum(octet_length(pixels)) FROM rasteret_read_tiles('made') GROUP BY id",
        ZONE,
    ],
    ids=["pixels", "tiles", "zone"],
)
def test_peak_memory_stays_near_the_budget(tmp_path, query):
    done = subprocess.run(
        [sys.executable, str(SCENARIO), str(tmp_path), query],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["decoded_mib"] >= 2.5 * BUDGET_BYTES / 2**20
    assert facts["peak_mib"] <= ALLOWED_MIB, facts
