"""Whether what cron mails can arrive: cron hands the output of a job to a mail server of this host, or drops it."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from assetbatch.report.doctor.findings import Finding, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

# Tables of the system have a column for the user; each is looked at whoever that is.
SYSTEM_TABLES = (Path("/etc/crontab"), Path("/etc/cron.d"))
MAIL_FOLDERS = "/usr/sbin:/usr/lib:/usr/bin"
CRONTAB_SECONDS = 2.0
SETTING = re.compile(r"\s*MAILTO\s*=\s*[\"']?([^\"'\s]*)")
NO_JOB = re.compile(r"\s*(#|\w+\s*=)")
# Both streams go elsewhere: into a file, or another program.
REDIRECTED = re.compile(r">\s*\S+\s+2>&1|&>|\|")


def mail() -> Iterator[Finding]:
    """Report whether the mail of jobs that cron starts can go anywhere; nothing where none of them would send any."""
    mailing = [name for name, text in _tables() if _mails(text)]
    if not mailing:
        return
    where, program = ", ".join(mailing), mail_program()
    if program is None:
        hint = "install a mail server (`apt-get install msmtp-mta`, or postfix), or watch the jobs by"
        hint += " `assetbatch status --check`, `assetbatch metrics` or pings"
        yield warn("mail", f"cron cannot mail what the jobs of {where} print: this host has no sendmail", hint)
    else:
        yield ok("mail", f"cron mails what the jobs of {where} print, by {program}")


def mail_program() -> str | None:
    """Return what cron hands mail to; None: it is dropped."""
    return shutil.which("sendmail", path=MAIL_FOLDERS)


def _tables() -> Iterator[tuple[str, str]]:
    """Yield the tables that cron reads, as far as this user may see them: a name for people, and the text."""
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["crontab", "-l"],  # noqa: S607 - each system has it where it likes
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CRONTAB_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        yield "this user's crontab", listed.stdout
    for place in SYSTEM_TABLES:
        with suppress(OSError):
            for file in sorted(place.iterdir()) if place.is_dir() else [place]:
                with suppress(OSError):
                    yield str(file), file.read_text(errors="replace")


def _mails(text: str) -> bool:
    """Return whether a table has a job of ours whose output cron would mail; a setting holds for the lines below it."""
    mails = True
    for line in text.splitlines():
        if found := SETTING.match(line):
            mails = bool(found[1])
        elif mails and "assetbatch" in line and not NO_JOB.match(line) and not REDIRECTED.search(line):
            return True
    return False
