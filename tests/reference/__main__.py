"""Write the pages of reference, or with --check tell which are not current."""

from __future__ import annotations

import sys

from tests.reference.pages import DOCS, PAGES, PAGES_OF_A_DATABASE, PROJECT, new_database

check = "--check" in sys.argv[1:]
with new_database() as connection:
    made = {name: make() for name, make in PAGES.items()}
    made |= {name: make(connection) for name, make in PAGES_OF_A_DATABASE.items()}
stale = [file for name, text in made.items() if not (file := DOCS / name).exists() or file.read_text("utf-8") != text]
for file in stale:
    if not check:
        file.parent.mkdir(exist_ok=True)
        file.write_text(made[str(file.relative_to(DOCS))], "utf-8")
    sys.stdout.write(f"{file.relative_to(PROJECT)}: {'not current' if check else 'written'}\n")
sys.exit(bool(stale) and check)
