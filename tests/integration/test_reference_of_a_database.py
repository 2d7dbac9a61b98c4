"""The pages that tell of a database are those of one that `init` made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.reference.pages import DOCS, PAGES_OF_A_DATABASE

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection


@pytest.mark.parametrize("name", PAGES_OF_A_DATABASE)
def test_a_page_of_a_database_is_current(name: str, connection: Connection) -> None:
    made = PAGES_OF_A_DATABASE[name](connection)

    assert (DOCS / name).read_text("utf-8") == made, f"docs/{name} is not current: scripts/docs writes it anew"
