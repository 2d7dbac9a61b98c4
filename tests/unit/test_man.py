"""The manual page, as the programs that show it read it; that it is current is held with the other pages."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.conftest import ran
from tests.reference.cli import flat, program
from tests.reference.pages import DOCS

PAGE = DOCS / "man" / "assetbatch.1"


@pytest.mark.parametrize(
    ("program_", "options"), [("groff", ["-ww", "-man", "-Tutf8", "-z"]), ("mandoc", ["-T", "lint", "-W", "warning"])]
)
def test_nothing_is_wrong_with_it(program_: str, options: list[str]) -> None:
    if shutil.which(program_) is None:
        pytest.skip(f"no {program_} on this machine")
    done = ran([program_, *options, PAGE])

    # It has no date, which would change by itself.
    assert [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line] == []


def test_it_shows_every_command_and_option_as_it_is_typed() -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("no mandoc on this machine")
    shown = re.sub(".\b", "", ran(["mandoc", "-T", "ascii", "-O", "width=200", PAGE]).stdout)

    for command in flat(program().commands):
        assert f"   {command.usage}\n" in shown
        assert f"{command.example}\n" in shown
        for option in command.options:
            assert option.synopsis in shown
