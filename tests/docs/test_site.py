"""The pages of docs/ are one site: each is in the navigation, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from scenes import ROOT

import rasteret_sql
from rasteret_sql.cli.reference import commands

DOCS = ROOT / "docs"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = (
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.glob("*.md")),
    *ROOT.glob("examples/**/README.md"),
)


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Those that GitHub and Python-Markdown both make of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    github = {text.replace(" ", "-") for text in plain}
    return github & {re.sub(r"[-\s]+", "-", text) for text in plain}


def navigation(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in navigation(part)]


def test_every_page_is_in_the_navigation_once():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(navigation(site["nav"])) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_first_page_leads_to_every_page():
    linked = set(LINK.findall(prose(DOCS / "index.md")))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_anchor_resolves(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_a_link_of_a_page_stays_on_the_site():
    """Files of the repository are named, not linked: on the site they are not there."""
    for page in DOCS.glob("*.md"):
        for target in LINK.findall(prose(page)):
            path = target.partition("#")[0]
            if path and not re.match(r"[a-z]+:", target):
                assert (page.parent / path).resolve().is_relative_to(DOCS), f"{page.name}: {target}"


def test_a_page_has_one_title():
    for page in DOCS.glob("*.md"):
        assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1, page.name


def test_every_function_and_command_is_on_a_page_that_is_written_by_hand():
    generated = {"functions.md", "cli.md", "python.md"}
    pages = [page for page in DOCS.glob("*.md") if page.name not in generated]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    with rasteret_sql.connect(workspace="/nonexistent") as con:
        functions = [
            name for (name,) in con.sql("SELECT name FROM rasteret_functions()").fetchall()
        ]
    assert [name for name in functions if not re.search(rf"\b{name}\b", text)] == []
    known = {" ".join(name.split()[1:2]) for name, _ in commands()} - {""}
    assert [name for name in known if f"rasteret-sql {name}" not in text] == []
