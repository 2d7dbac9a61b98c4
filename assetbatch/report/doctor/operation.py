"""How things go: jobs against their schedule, the queue, bars, events, what the key is refused, hosts that disagree."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import planner
from assetbatch.database import doctor, entitlements, runs
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.errors import KINDS, FailureKind
from assetbatch.events import backend
from assetbatch.model import Access
from assetbatch.report.alerts import EVENTS_PENDING_AT_MOST, limits_of
from assetbatch.report.doctor.findings import Finding, Level, fail, ok, warn
from assetbatch.report.job_alerts import DRAIN_SILENT_AT_MOST, INTERVALS_SILENT_AT_MOST
from assetbatch.report.words import counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection, Row
    from assetbatch.planner import Entitlement

MOST_NAMED = 5
INSTALL = "install crontab.example, or enable the timers of scripts/systemd"


def jobs(connection: Connection, config: Config) -> Iterator[Finding]:
    """Hold each job's last run against its schedule, and tell how the last that has ended went."""
    batch = config.settings.batch
    work = doctor.work(connection)
    secondary = config.secondary_assets if batch.secondary_source == "config" else work["secondary"]
    mode = _mode(config, _told(connection, config), doctor.clock(connection))
    bars = work["assets"] and planner.asks_for_bars(config.settings.bars.enabled, config.calls_per_window, mode)
    silent = INTERVALS_SILENT_AT_MOST
    silent_at_most = {
        "run-priority": silent * timedelta(minutes=batch.interval_minutes) if config.priority_assets else None,
        "drain-queue": DRAIN_SILENT_AT_MOST if work["due"] or bars else None,
        "enqueue-secondary": silent * timedelta(minutes=batch.enqueue_interval_minutes) if secondary else None,
    }
    for row in doctor.jobs(connection, list(silent_at_most)):
        yield _job(row, silent_at_most[row["job"]])


def _job(row: Row, silent_at_most: timedelta | None) -> Finding:
    """Tell of one job; one that has nothing to do may be silent (None)."""
    name: str = row["job"]
    # Without it no price comes at all; without the others, some come late.
    silent_level = Level.FAIL if name == "run-priority" else Level.WARN
    if row["started_at"] is None:
        return (
            ok(name, "never ran, has nothing to do")
            if silent_at_most is None
            else Finding(silent_level, name, "has never run", INSTALL)
        )
    age = row["now"] - row["started_at"]
    found, hints, level = f"ran {duration(age)} ago on {row['host']}", [], Level.OK
    if silent_at_most is not None and age > silent_at_most:
        every = duration(silent_at_most / INTERVALS_SILENT_AT_MOST)
        found += f", which is expected every {every}" if name != "drain-queue" else ""
        hints.append(f"is cron, or the timer, running on {row['host']}?")
        level = silent_level
    if row["status"] in {"failed", "partial", "killed"}:
        word = {"killed": "was killed", "failed": "failed", "partial": "went well in part"}[row["status"]]
        found += f"; the last that ended {word} {duration(row['now'] - row['ended_at'])} ago"
        found += f": {row['error']}" if row["error"] else ""
        hints.append(_hint(row["error_kind"]) or f"`assetbatch -v {name}` tells more")
        level = Level.FAIL if row["status"] == "failed" else max(level, Level.WARN, key=list(Level).index)
    return Finding(level, name, found, "; ".join(hints))


def _hint(kind: str | None) -> str:
    return KINDS[FailureKind(kind)].hint if kind in set(FailureKind) else ""


def _told(connection: Connection, config: Config) -> Mapping[Access, Entitlement]:
    """Read what the key was told that it may see."""
    if config.api_key is None:
        return {}
    return entitlements.read(connection, key=key_fingerprint(config.api_key.reveal()), plan=config.plan)


def _mode(config: Config, told: Mapping[Access, Entitlement], now: datetime) -> planner.Mode:
    return planner.mode(config.plan, config.settings.provider.mode, told.get(Access.SNAPSHOTS), now)


def plan_and_key(connection: Connection, config: Config) -> Iterator[Finding]:
    """Hold the word of the plan against what the key was refused."""
    told, now = _told(connection, config), doctor.clock(connection)
    refused = {access: found for access, found in told.items() if not found.allowed}
    mode = _mode(config, told, now)
    words = "; ".join(
        f"{access} {duration(now - found.asked_at)} ago" + (f" ({found.reason})" if found.reason else "")
        for access, found in sorted(refused.items())
    )
    if planner.contradictions(refused.keys(), config.plan, config.settings.provider.mode, mode):
        hint = "lapsed payment? `assetbatch probe` asks again at once; else set provider.plan to what the key has"
        yield fail("entitlements", f"plan says {config.plan}, the key was refused {words}", hint)
    else:
        yield ok("entitlements", f"refused {words}, as the plan says" if refused else "the key was refused nothing")


def limit(connection: Connection) -> Iterator[Finding]:
    """Tell of calls that were refused as too many."""
    if refusals := runs.refusals_in_last_hour(connection):
        hint = "does another program use this key? Lower rate_limiting.calls_per_minute"
        yield warn("rate limit", f"the API refused {counted(refusals, 'call')} in the last hour as too many", hint)
    else:
        yield ok("rate limit", "no call was refused as too many in the last hour")


def queue(connection: Connection) -> Iterator[Finding]:
    """Tell of dead letters, and why the newest died."""
    work = doctor.work(connection)
    if not work["dead"]:
        yield ok("queue", f"{counted(work['due'], 'item')} due, no dead letters")
        return
    newest = doctor.dead_letters(connection, limit=MOST_NAMED)
    found = f"{counted(work['dead'], 'dead letter')}: {_named(newest, work['dead'])}; {newest[0]['error']}"
    hints = [_hint(newest[0]["error_kind"]), f"`assetbatch queue retry {newest[0]['symbol']}` once it is fixed"]
    yield warn("queue", found, "; then ".join(filter(None, hints)))


def bars(connection: Connection) -> Iterator[Finding]:
    """Tell of assets whose bars failed."""
    if failed := doctor.failed_bars(connection, limit=MOST_NAMED):
        found = f"the last call for bars failed for {_named(failed, failed[0]['total'])}; {failed[0]['error']}"
        yield warn("bars", found, _hint(failed[0]["error_kind"]) or "the next runs try again")
    else:
        yield ok("bars", "no asset's bars failed")


def events(connection: Connection, config: Config) -> Iterator[Finding]:
    """Tell of events that nobody carried."""
    waiting, carrier = doctor.events(connection), backend(config)
    found = f"{counted(waiting['pending'], 'event')} for {carrier} waiting"
    if carrier == "none":
        yield ok("events", "switched off (events.backend: none)")
    elif waiting["oldest"] is not None and waiting["now"] - waiting["oldest"] > EVENTS_PENDING_AT_MOST:
        hint = "is Redis running?" if carrier == "redis" else "a run of any job announces them: do the jobs run?"
        yield warn("events", f"{found}, the oldest for {duration(waiting['now'] - waiting['oldest'])}", hint)
    else:
        yield ok("events", found)


def hosts(connection: Connection) -> Iterator[Finding]:
    """Tell of hosts whose rules, plans or versions differ."""
    well = True
    if differing := doctor.disagreeing_hosts(connection):
        well = False
        hint = "make their config.yaml the same; until then the strictest holds"
        yield warn("hosts", f"the rules of the rate limit differ: {limits_of(differing)}", hint)
    seen = doctor.hosts(connection)
    for what, hint in (("version", "upgrade the older one"), ("plan", "make provider.plan the same")):
        if len({row[what] for row in seen}) > 1:
            well = False
            yield warn("hosts", f"{what}s differ: " + ", ".join(f"{row['host']} {row[what]}" for row in seen), hint)
    if well:
        yield ok("hosts", f"{', '.join(row['host'] for row in seen[:MOST_NAMED]) or 'none'} in the last day")


def _named(rows: list[Row], total: int) -> str:
    more = total - len(rows)
    return ", ".join(row["symbol"] for row in rows) + (f" and {more} more" if more > 0 else "")
