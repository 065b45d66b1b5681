"""What a read counts of itself for whoever shows it: tiles done, expected and failed."""

from __future__ import annotations

import shutil

import pytest

import rasteret_sql
from rasteret_sql.progress import counts
from rasteret_sql.progress.display import line

GONE = "S2A_43PHQ_20240110_L2A"


@pytest.fixture
def con(scenes, tmp_path):
    """A connection with a collection, of which one file has gone since."""
    items = shutil.copytree(scenes, tmp_path / "scenes") / "items.json"
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    con.execute("FROM rasteret_build_stac('s2', stac_api := $1)", [str(items)]).fetchall()
    (tmp_path / "scenes" / GONE / "B04.tif").unlink()
    yield con
    con.close()


@pytest.fixture
def begun(monkeypatch):
    """All work that has begun."""
    monkeypatch.setattr(counts, "_listeners", [])
    found = []
    counts.on_begin(lambda: found.extend(counts.running()))
    return found


@pytest.mark.parametrize("on_error", ["report", "null"])
def test_tiles_that_fail_are_counted(con, begun, on_error):
    planned = dict(
        con.sql(
            f"SELECT id = '{GONE}' AND band = 'B04', count(*) "
            "FROM rasteret_plan('s2', bands := ['B04', 'B08']) GROUP BY 1"
        ).fetchall()
    )
    con.sql(
        "SELECT sum(B04), sum(B08) "
        f"FROM rasteret_pixels('s2', bands := ['B04', 'B08'], on_error := '{on_error}')"
    ).fetchall()
    work = next(one for one in begun if one.name == "rasteret_pixels")
    found = work.current()
    n_failed, n_read = planned[True], planned[False]
    assert n_failed > 3
    assert found["tiles failed"] == n_failed
    assert found["tiles"] == found["tiles expected"] == n_failed + n_read
    assert f"{n_failed + n_read} of {n_failed + n_read} tiles, {n_failed} failed, " in line(work)
    assert " left" not in line(work)


def test_the_tiles_to_come_are_known_from_the_scenes_that_are_planned(con, begun):
    """Plans cover some scenes each; those of the first tell how many tiles there will be."""
    con.sql("SELECT count(*) FROM rasteret_plan('s2')").fetchall()
    rows = con.sql("SELECT * FROM rasteret_read_tiles('s2', bands := ['B08'])")
    batches = rows.to_arrow_reader(1)
    next(batches)
    (work,) = [one for one in begun if one.name == "rasteret_read_tiles"]
    during = work.current()
    n_tiles = 1 + sum(batch.num_rows for batch in batches)
    assert during["tiles expected"] == pytest.approx(n_tiles, rel=0.3)
    assert work.current()["tiles expected"] == work.current()["tiles"] == n_tiles


def test_a_read_of_a_query_does_not_say_how_much_is_left_before_all_is_planned(con, begun):
    """Its records come in batches, and nobody knows how many."""
    query = "SELECT * FROM s2 WHERE id <> ''''"
    con.sql(f"SELECT sum(B08) FROM rasteret_pixels('{query}', bands := ['B08'])").fetchall()
    (work,) = [one for one in begun if one.name == "rasteret_pixels"]
    assert work.current()["tiles expected"] == work.current()["tiles"] > 0
