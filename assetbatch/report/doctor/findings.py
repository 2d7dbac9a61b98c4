"""What an examination finds: a line each, with what fixes it; a check that breaks is a line, too."""

from __future__ import annotations

import logging
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct, field

from assetbatch.errors import AssetbatchError
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

log = logging.getLogger(__name__)


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True):
    """One thing that was looked at: what was found, and what fixes it; no hint where all is well."""

    level: Level
    name: str
    found: str
    hint: str = ""

    @property
    def line(self) -> str:
        """The finding on one line, for a pipe or a mail."""
        fix = f"; fix: {self.hint}" if self.hint else ""
        return f"{self.level.value:4}  " + " ".join(f"{self.name}: {self.found}{fix}".split())


def ok(name: str, found: str) -> Finding:
    """Make a finding that needs nothing."""
    return Finding(Level.OK, name, found)


def warn(name: str, found: str, hint: str) -> Finding:
    """Make a finding that somebody should look into; prices come all the same."""
    return Finding(Level.WARN, name, found, hint)


def fail(name: str, found: str, hint: str) -> Finding:
    """Make a finding that keeps the jobs from doing their work."""
    return Finding(Level.FAIL, name, found, hint)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the one word for all of them."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)


def by_urgency(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with what fails first, then warnings, then all that is well."""
    order = list(Level)
    return sorted(findings, key=lambda finding: order.index(finding.level), reverse=True)


def folded(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings by urgency, with all that is well in one that names it."""
    in_order = by_urgency(findings)
    ill = [finding for finding in in_order if finding.level is not Level.OK]
    well = [finding.name for finding in in_order if finding.level is Level.OK]
    return [*ill, ok(counted(len(well), "check"), ", ".join(dict.fromkeys(well)))] if well else ill


def summary(findings: Sequence[Finding]) -> str:
    """Return how many things fail, ask for a look, and are well."""
    counts = Counter(finding.level for finding in findings)
    words = (counted(counts[Level.FAIL], "failure"), counted(counts[Level.WARN], "warning"))
    return f"{', '.join(words)}, {counts[Level.OK]} ok"


class Examination(Struct):
    """The findings so far; `reads_only`: the database's role may not write."""

    findings: list[Finding] = field(default_factory=list)
    reads_only: bool = False

    def look(self, name: str, check: Callable[[], Iterable[Finding]]) -> bool:
        """Make one check and keep what it finds; tell whether nothing of that failed.

        An error of the check's own is a finding: whoever calls a doctor wants to be told the rest as well.
        """
        found: list[Finding] = []
        try:
            found.extend(check())
        except AssetbatchError as error:
            found.append(fail(name, error.reason, error.hint))
        except Exception as error:
            log.debug("the check of %s broke", name, exc_info=error)
            words = " ".join(str(error).split())
            why = f"could not be checked: {type(error).__name__}: {words}"
            found.append(fail(name, why, "`assetbatch -vv doctor` tells more"))
        self.findings += found
        return all(finding.level is not Level.FAIL for finding in found)
