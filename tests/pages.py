"""The pages for who uses the program, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
# What docs/design shows is for who reads the code.
PAGES = [PROJECT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if "design" not in page.parts)]
RUN = ("sh", "sql", "python")


class Block(NamedTuple):
    """A block of code: its page, the number of its first line, its language, its text, and what a note above says."""

    page: Path
    line: int
    language: str
    text: str
    note: str

    @property
    def is_run(self) -> bool:
        """Whether the test of pages runs it."""
        return self.language in RUN and not re.match("(not run|run by): ", self.note)

    @property
    def place(self) -> str:
        """Return where it stands, for who mends it."""
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = page.read_text("utf-8")
    fences = re.finditer(r"(?:^ *<!-- ([^\n]*?) -->\n)?^( *)```(\S*)\n(.*?)^\2```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(page, text.count("\n", 0, fence.start(3)) + 2, fence[3], _outdented(fence[4], fence[2]), fence[1] or "")
        for fence in fences
    ]


def _outdented(text: str, indent: str) -> str:
    return re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
