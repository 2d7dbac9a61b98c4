"""The documentation as a whole: every link and anchor leads somewhere, and every page is within reach."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.pages import PAGES as FOR_USERS
from tests.pages import RUN, blocks
from tests.reference.markdown import anchor

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = [*PROJECT.glob("*.md"), *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
# Files that name pages to people, beside what the program says.
NAMING = ["config.yaml", "crontab.example", *sorted(str(file) for file in PROJECT.joinpath("assetbatch").rglob("*.py"))]


def prose(page: Path) -> str:
    """Return a page without its blocks of code and what stands as code within a line."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page as a forge and the site make them: of equal ones the second has -1."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ (.+?)\s*$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE):
        name = anchor(heading)
        times = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{times}" if times else name)
    return names


def links(page: Path) -> set[str]:
    """Return what a page links to within the project."""
    return {target for target in LINK.findall(prose(page)) if not re.match(r"\w+:", target)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        path, _, name = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (name and name not in anchors(target)):
            lost.append(link)

    assert lost == []


def test_every_page_is_reached_from_the_front_page() -> None:
    reached, new = set[Path](), {DOCS / "index.md"}
    while new:
        reached |= new
        linked = {(page.parent / link.partition("#")[0]).resolve() for page in new for link in links(page)}
        new = {page for page in linked & {*PAGES} if DOCS in page.parents} - reached

    assert not {*DOCS.rglob("*.md")} - reached


def test_the_site_leads_to_every_page() -> None:
    config = re.search(r"^nav:\n(?:[ ].*\n)+", PROJECT.joinpath("mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert config is not None
    named = re.findall(r"[\w/.-]+\.md", str(yaml.safe_load(config[0])))

    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_page_that_the_program_names_is_there() -> None:
    named = {
        path for file in NAMING for path in re.findall(r"\bdocs/[\w/.-]+\.md", (PROJECT / file).read_text("utf-8"))
    }

    assert not {path for path in named if not (PROJECT / path).exists()}


@pytest.mark.parametrize("page", FOR_USERS, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    wrong = []
    for block in blocks(page):
        if not block.language:
            wrong.append(f"{block.place}: a block without a language: sh, sql, python, or text for what is shown")
        if block.language in RUN and block.note and block.is_run and not block.note.startswith("made by"):
            wrong.append(f"{block.place}: <!-- {block.note} --> is no 'not run: WHY' and no 'run by: TEST'")
        if block.note.startswith("run by: ") and not (PROJECT / block.note.removeprefix("run by: ")).exists():
            wrong.append(f"{block.place}: there is no {block.note.removeprefix('run by: ')}")

    assert wrong == []
