"""How often a job is started, in the words of a calendar that repeats each hour or each day."""

from __future__ import annotations

from datetime import timedelta

HOUR = 60
STEPS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)
"""Minutes that go into an hour or a day without a rest."""


def minutes_between(every: timedelta) -> int:
    """Return the longest step that is not longer than the interval, so that each slot of it has a start; 1 at least."""
    minutes = every // timedelta(minutes=1)
    return max((step for step in STEPS if step <= minutes), default=1)


def cron_fields(minutes: int) -> str:
    """Return the five fields of a crontab for one of `STEPS`."""
    hours = minutes // HOUR
    match minutes, hours:
        case 1, _:
            return "* * * * *"
        case _, 0:
            return f"*/{minutes} * * * *"
        case _, 1:
            return "0 * * * *"
        case _, 24:
            return "0 0 * * *"
    return f"0 */{hours} * * *"


def systemd_calendar(minutes: int) -> str:
    """Return the OnCalendar= of a timer for one of `STEPS`, in UTC: see systemd.time(7)."""
    hours = minutes // HOUR
    match minutes, hours:
        case 1, _:
            return "*:* UTC"
        case _, 0:
            return f"*:0/{minutes} UTC"
        case _, 1:
            return "*:00 UTC"
        case _, 24:
            return "00:00 UTC"
    return f"0/{hours}:00 UTC"
