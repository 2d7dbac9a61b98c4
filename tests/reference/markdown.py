"""Words as Markdown, so that GitHub and mkdocs show the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def head(title: str, made_from: str, *paragraphs: str) -> str:
    """Return how a page begins that nobody is to write by hand."""
    note = f"<!-- made by scripts/docs from {made_from}: change that, and run it -->"
    return "\n\n".join([note, f"# {title}", *paragraphs]) + "\n"


def prose(text: str) -> str:
    """Return a sentence for a terminal as Markdown: options become code, as what stands between backticks is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if index % 2 else _escaped(part) for index, part in enumerate(parts))


def _escaped(text: str) -> str:
    return re.sub(r"(?<![\w-])--[a-z][a-z-]+", r"`\g<0>`", re.sub(r"([*<\[\]])", r"\\\1", text))


def code(text: str) -> str:
    """Return a text as code."""
    return f"`{text}`"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a cell's | is escaped, and so may not stand within code."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def anchor(heading: str) -> str:
    """Return the anchor of a heading as GitHub makes it; a second one of the same words is not known here."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
