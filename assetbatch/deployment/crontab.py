"""The block of a user's crontab that starts the jobs: crontab.example, with the paths of this installation."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

from assetbatch.deployment import shipped
from assetbatch.deployment.starts import cron_fields, minutes_between
from assetbatch.errors import ConfigurationError, Fault
from assetbatch.schedule import JOBS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from assetbatch.config.settings import Batch

BEGIN, END = "# BEGIN assetbatch", "# END assetbatch"
_ENTRY = re.compile(rf"(?:# )?((?:\S+ ){{4}}\S+) {re.escape(shipped.COMMAND)} (\S+)(.*)")
_MAILTO = re.compile(r"\s*[\"']?MAILTO[\"']?\s*=")
_OUR_JOB = re.compile(rf"^\s*[^#\s].*assetbatch.* ({'|'.join([*JOBS, 'stream'])})\b")


def command_line(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return a command for the shell of a crontab, where a bare percent sign would end the line."""
    assigned = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*assigned, *map(shlex.quote, words)]).replace("%", r"\%")


def block(command: str, batch: Batch, *, mailto: str | None, mailto_below: str | None, with_stream: bool) -> str:
    """Return the lines that start the jobs, as often as the configuration says.

    `command` is what `command_line` returns; `mailto` the line `MAILTO=…` in full, None: cron mails to the user. Since
    it holds for all lines below it, see crontab(5), the block ends with `mailto_below` (None: with none) for those.
    """
    lines = []
    for line in shipped.text("crontab.example").splitlines():
        if line.startswith("MAILTO="):
            lines += [] if mailto is None else [mailto]
        elif line.startswith(END) and mailto is not None and mailto_below is not None:
            lines += ["# Mail of the lines below goes where it went before.", mailto_below, line]
        elif entry := _ENTRY.fullmatch(line):
            fields, name, options = entry.groups()
            off = "# " if name not in JOBS and not with_stream else ""
            if name in JOBS:
                fields = cron_fields(minutes_between(JOBS[name].every(batch)))
            lines.append(f"{off}{fields} {command} {name}{options}")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def mailto_of(crontab: str) -> str | None:
    """Return the line of MAILTO in our block; None where there is none."""
    return next((line for line in ours(crontab).splitlines() if line.startswith("MAILTO=")), None)


def mailto_above(crontab: str) -> str | None:
    """Return the line of MAILTO that holds where our block begins, or would; None where there is none."""
    return next((line.strip() for line in reversed(_split(crontab)[0].split("\n")) if _MAILTO.match(line)), None)


def ours(crontab: str) -> str:
    """Return our block, empty where there is none."""
    return _split(crontab)[1]


def replaced(crontab: str, block: str) -> str:
    """Return a crontab with these lines in the place of our block, or at its end; all others stay as they are.

    Raises ConfigurationError where the block that is there has no end.
    """
    before, _, after = _split(crontab)
    return before + ("\n" if block and before and not before.endswith("\n") else "") + block + after


def jobs_elsewhere(crontab: str) -> list[str]:
    """Return the lines outside our block that start a job as well."""
    before, _, after = _split(crontab)
    return [line for line in (before + after).splitlines() if _OUR_JOB.match(line)]


def _split(crontab: str) -> tuple[str, str, str]:
    """Split into what stands before our block, the block, and what stands behind it."""
    lines = crontab.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.startswith(BEGIN)), None)
    if first is None:
        return crontab, "", ""
    last = next((number for number in range(first, len(lines)) if lines[number].startswith(END)), None)
    if last is None:
        raise ConfigurationError(
            [Fault("crontab", "", f"the line {BEGIN} has no line {END} below it")],
            hint="by `crontab -e` take out the lines of assetbatch, and the first of these",
        )
    return "".join(lines[:first]), "".join(lines[first : last + 1]), "".join(lines[last + 1 :])


def read(user: str | None) -> str:
    """Return the crontab of a user (None: of who asks), empty where there is none. Raises ConfigurationError."""
    done = _crontab(user, "-l")
    if done.returncode and re.search(b"no crontab|no such file", done.stderr, re.IGNORECASE):
        return ""
    return os.fsdecode(_succeeded(done).stdout)


def write(user: str | None, text: str) -> None:
    """Put a text in the place of a user's crontab; an empty one leaves none. Raises ConfigurationError."""
    _succeeded(_crontab(user, "-", text=text) if text.strip() else _crontab(user, "-r"))


def _crontab(user: str | None, *arguments: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
    words = ["crontab", *(["-u", user] if user else []), *arguments]
    environment = os.environ | {"LC_ALL": "C"}
    try:
        # As bytes: lines that are not ours stay as they are, in whatever encoding.
        return subprocess.run(words, input=os.fsencode(text), env=environment, capture_output=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise ConfigurationError(
            [Fault("", "", "there is no program crontab on this host")],
            hint="install cron, or take timers instead: `assetbatch install systemd`",
        ) from None


def _succeeded(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[bytes]:
    if done.returncode:
        told = os.fsdecode(done.stderr).strip() or f"exit code {done.returncode}"
        raise ConfigurationError([Fault("", "", f"`{' '.join(done.args)}` failed: {told}")])
    return done
