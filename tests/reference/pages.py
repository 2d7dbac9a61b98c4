"""Which pages are made, and of what: one table for who writes them and who holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.reference import commands

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands.page,
}
