"""The documentation as a whole: every page within reach of the front page."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"


def linked(page: Path) -> set[Path]:
    """Return the pages that one links to."""
    targets = re.findall(r"\]\(([^)#:]+\.md)", page.read_text("utf-8"))
    return {found for target in targets if (found := (page.parent / target).resolve()).exists()}


def test_every_page_is_reached_from_the_front_page() -> None:
    reached, new = set[Path](), {DOCS / "index.md"}
    while new:
        reached |= new
        new = {target for page in new for target in linked(page)} - reached

    assert not {*DOCS.rglob("*.md")} - reached
