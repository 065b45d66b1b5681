"""Every STAC file of the shared data, ingested: what came of it, written as a table.

python tests/ingest/sources.py --check docs/ingest.md
python tests/ingest/sources.py --write docs/ingest.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rasteret_sql.errors import CollectionError, RasteretError
from rasteret_sql.ingest.stac.items import records_from_items
from rasteret_sql.ingest.stac.search import StacSource, read_items

STAC = Path(__file__).parents[2] / ".." / "shared" / "data" / "stac"
SUFFIXES = {".json", ".ndjson", ".geojson", ".parquet"}
OUTCOMES = ("ingested", "no rasters", "no items", "other server", "refused")
"""From best to worst."""
BEGIN = "<!-- sources: written by tests/ingest/sources.py -->"
END = "<!-- end of sources -->"
_NO_NETWORK = "not reached here"


@dataclass(frozen=True)
class Result:
    """One file.

    Attributes:
        outcome: of `OUTCOMES`.
        records: rows.
        bands: of the collection.
        why: of a refusal.
    """

    name: str
    outcome: str
    records: int = 0
    bands: int = 0
    why: str = ""

    def row(self) -> str:
        """The line of the table."""
        what = f"{self.outcome}: {self.why}" if self.why else self.outcome
        return f"| `{self.name}` | {self.records} | {self.bands} | {what} |"


def no_network(url: str) -> bytes:
    raise CollectionError(f"{url}: {_NO_NETWORK}")


def results() -> Iterator[Result]:
    """Ingest each file."""
    for path in sorted(p for p in STAC.rglob("*") if p.suffix in SUFFIXES):
        yield ingested(path)


def ingested(path: Path) -> Result:
    """Ingest one file, without network."""
    name = path.relative_to(STAC).as_posix()
    warnings: list[str] = []
    try:
        items = read_items(StacSource(str(path)), fetch_text=no_network, warnings=warnings)
        records = records_from_items(items, warnings=warnings)
        n_rows = sum(batch.num_rows for batch in records.batches())
    except RasteretError as error:
        if _NO_NETWORK in error.message:
            return Result(name, "other server")
        # without the path of this checkout
        _, _, fault = error.message.replace(f"{path}", path.name).partition(": ")
        return Result(name, "refused", why=fault.partition(";")[0])
    bands = records.schema.field("assets").type.num_fields
    if not n_rows:
        return Result(name, "no items")
    is_bare = not records.has_rasters
    return Result(name, "no rasters" if is_bare else "ingested", n_rows, bands)


def table(found: list[Result]) -> str:
    """The results as Markdown."""
    counts = {outcome: sum(r.outcome == outcome for r in found) for outcome in OUTCOMES}
    lines = [
        BEGIN,
        "",
        f"{len(found)} files: {', '.join(f'{n} {o}' for o, n in counts.items() if n)}.",
        "",
        "| file | records | bands | outcome |",
        "| --- | --- | --- | --- |",
        *(result.row() for result in found),
        "",
        END,
    ]
    return "\n".join(lines)


def recorded(page: Path) -> dict[str, tuple[str, int, int]]:
    """Outcome, records and bands by file, as the page has them."""
    rows = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`") and cells[1].isdecimal():
            outcome = cells[3].partition(":")[0]
            rows[cells[0].strip("`")] = (outcome, int(cells[1]), int(cells[2]))
    return rows


def changes(page: Path, found: list[Result]) -> list[str]:
    """What differs from the page, one line each; what got worse says so."""
    before = recorded(page)
    lines = [f"{name}: is gone" for name in before.keys() - {r.name for r in found}]
    for result in found:
        now = (result.outcome, result.records, result.bands)
        then = before.get(result.name)
        if then is None:
            lines.append(f"{result.name}: is new")
        elif then != now:
            rank = OUTCOMES.index
            worse = (rank(now[0]), -now[1], -now[2]) > (rank(then[0]), -then[1], -then[2])
            lines.append(f"{result.name}: {'WORSE' if worse else 'better'}: {then} is {now}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    found = list(results())
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        arguments.write.write_text(head + table(found) + tail, encoding="utf-8")
        return 0
    lines = changes(arguments.check, found)
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
