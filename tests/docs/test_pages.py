"""Pages whose every block is typed here, in order, give what stands below the blocks."""

from __future__ import annotations

import re
import shutil

import pytest
from docs.pages import FENCE, cells, outcomes
from scenes import ROOT

import rasteret_sql
from rasteret_sql.schema import LEVEL

DOCS = ROOT / "docs"
PAGES = {
    "recipes.md": 20,
    "getting-started.md": 6,
    "frames.md": 8,
    "parquet.md": 3,
    "storage.md": 0,
    "coming-from-rasteret.md": 6,
    "coming-from-others.md": 2,
    "arrays.md": 1,
    "chips.md": 2,
    "histogram.md": 1,
    "preview.md": 1,
}
"""Pages that are run whole, and how many of their results are compared where no package of
`OPTIONAL` is installed."""

FROM_NOTHING = ("getting-started.md",)
"""Pages that begin in an empty folder; the others where the demo was run."""
OF_COMMANDS = ("getting-started.md", "storage.md")
"""Pages that mostly start commands."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.any_duckdb if page in OF_COMMANDS else ())
        for page in PAGES
    ],
)
def test_every_block_gives_what_stands_below_it(page, reader):
    checked = 0
    if page in FROM_NOTHING:
        for part in reader.folder.iterdir():
            shutil.rmtree(part)
    text = (DOCS / page).read_text(encoding="utf-8")
    for fence, found in outcomes(text, reader):
        if found is not None:
            assert cells(found) == cells(fence["text"]), f"{page}:\n{found}"
            checked += 1
    assert checked >= PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert len(re.findall(r"^```\w*$", text, re.MULTILINE)) == 2 * len(FENCE.findall(text))
    assert {fence["kind"] for fence in FENCE.finditer(text)} <= {"sh", "python", "sql", "text"}


def test_parquet_md_has_every_column_and_field_with_its_type(demo):
    columns, header = (DOCS / "parquet.md").read_text(encoding="utf-8").split("## Header of a band")
    table, levels = header.split("A level is a STRUCT")
    told = {
        name: kind.partition("(")[0]
        for names, kind in re.findall(r"^\| (`.*?) \| `(.*?)` \|", columns + table, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", names)
    }
    with rasteret_sql.connect(workspace=demo / "workspace") as con:
        rows = con.sql("SELECT column_name, column_type FROM (DESCRIBE s2)").fetchall()
        fields = con.sql("DESCRIBE SELECT unnest(B04_metadata) FROM s2").fetchall()
    extra = ("eo:cloud_cover", "proj:code", "platform")  # properties of the items
    held = {n: t for n, t in rows if n not in extra and not n.endswith("_metadata")}
    assert {n: t for n, t in told.items() if n in held} == {
        n: t.partition("(")[0] for n, t in held.items()
    }
    kinds = {row[0]: row[1] for row in fields}
    assert {n: t for n, t in told.items() if n not in held} == {"{band}_metadata": "STRUCT"} | {
        n: "LIST" if n == "overviews" else t.partition("(")[0] for n, t in kinds.items()
    }
    assert set(LEVEL.names) <= set(re.findall(r"`(\w+)`", levels))


SPAN = re.compile(r"(?<=[ ])`((?:FROM|SELECT|CREATE) [^`]+)`")
"""SQL in a cell of a table."""


@pytest.mark.any_duckdb
def test_sql_in_the_tables_of_coming_from_rasteret_md_runs(reader):
    text = (DOCS / "coming-from-rasteret.md").read_text(encoding="utf-8")
    first = text[: text.index("## Build a collection")]
    for fence in FENCE.finditer(first):
        reader.run(fence["kind"], fence["text"])
    con = reader.names["con"]
    source = "FROM rasteret_register_dataset('mine/s2', stac_api := 'scenes/items.json')"
    con.execute(source).fetchall()
    con.execute("FROM rasteret_build('mine/s2', name := 'mine')").fetchall()
    ran = 0
    for line in text.splitlines():
        for statement in SPAN.findall(line) if line.startswith("|") else ():
            if "earthsearch" in statement:  # it needs the network
                con.execute(f"EXPLAIN {statement}").fetchall()
            else:
                found = con.execute(statement).fetchall()
                assert found or statement.startswith("CREATE") or "validate" in statement, statement
            ran += 1
    assert ran >= 40
