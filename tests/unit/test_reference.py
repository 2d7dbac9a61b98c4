"""The pages that are made from what the program declares are those that are there."""

from __future__ import annotations

import pytest

from tests.reference.cli import flat, program
from tests.reference.pages import DOCS, PAGES
from tests.unit.test_help import ALL


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_is_made_is_current(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), f"docs/{name} is not current: scripts/docs writes it anew"


def test_the_pages_tell_of_every_command_and_every_option_of_it() -> None:
    told = {command.name: command for command in flat(program().commands)}

    assert [*told] == [*ALL]
    common = {word for option in program().global_options for word in option.spellings}
    for name, command in ALL.items():
        declared = {word for option in command.params if option.param_type_name == "option" for word in option.opts}
        assert declared - common <= {word for option in told[name].options for word in option.spellings}
