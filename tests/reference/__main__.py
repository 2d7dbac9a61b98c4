"""Write the pages of reference, or with --check tell which are not current."""

from __future__ import annotations

import sys

from tests.reference.pages import DOCS, PAGES, PROJECT

check = "--check" in sys.argv[1:]
stale = []
for name, make in PAGES.items():
    file, text = DOCS / name, make()
    if file.exists() and file.read_text("utf-8") == text:
        continue
    stale.append(str(file.relative_to(PROJECT)))
    if not check:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
if stale:
    sys.stdout.write("".join(f"{file}: {'not current' if check else 'written'}\n" for file in stale))
sys.exit(bool(stale) and check)
