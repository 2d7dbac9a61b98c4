"""What mkdocs does to a page before it builds it; see mkdocs.yml."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave of links to files of the project that are no pages the words alone: the site has no such file."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./){2,}[^)]*\)", lambda link: link[1], markdown)
