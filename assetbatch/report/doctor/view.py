"""How findings are shown: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.report.doctor.findings import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def lines(findings: Sequence[Finding]) -> list[str]:
    """Write each finding on one line, for a pipe or a mail."""
    return [_line(one) for one in findings]


def _line(finding: Finding) -> str:
    hint = f"; fix: {finding.hint}" if finding.hint else ""
    return f"{finding.level.value:4}  " + " ".join(f"{finding.name}: {finding.found}{hint}".split())


def table(findings: Sequence[Finding]) -> Table:
    """Lay findings out for a terminal."""
    from rich.table import Table
    from rich.text import Text

    shown = Table.grid(padding=(0, 1))
    # A name must not break over lines; what was found and its hint share what is left of the width.
    for no_wrap in (True, True, False):
        shown.add_column(no_wrap=no_wrap, overflow="fold")
    for one in findings:
        text = Text(one.found)
        if one.hint:
            text.append(f"\n→ {one.hint}", style="bold")
        shown.add_row(Text(one.level.value, style=STYLES[one.level]), one.name, text)
    return shown
