"""How a command runs a job, and tells what it did: a document or one line; then its trouble; and its exit code."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, NoReturn

import typer
from msgspec.structs import asdict

from assetbatch import pings
from assetbatch.cli import lifecycle, trouble
from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, current, host, print_json
from assetbatch.cli.trouble import named
from assetbatch.errors import AnswerLostError, Interrupted
from assetbatch.jobs.run import Start
from assetbatch.model import RunStatus
from assetbatch.report.progress import ProgressBar
from assetbatch.words import counted, utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.config import Config
    from assetbatch.model import ChangedBar, RunResult

log = logging.getLogger(__name__)

# What became of the assets that were looked at for the queue.
ENQUEUED = {
    "enqueued": "put on the queue",
    "already_queued": "there already",
    "fresh": "fresh enough",
    "dead": "dead letters",
    "dropped": "dropped, the queue is full",
    "unmapped": "unknown, or without a row in trading.symbols",
    "gone": "delisted or renamed",
}
# A run that a signal ended is gone within two seconds.
LAST_PING_SECONDS = 1.0


def run(
    config: Config,
    work: Callable[[Start, ProgressBar | None], RunResult],
    *,
    max_seconds: float | None,
    needs_key: bool = False,
    ended_by_signal: bool = False,
) -> NoReturn:
    """Do a job's work on the configured database, tell what it did, and end the command as the run ended.

    `max_seconds` is the job's own limit, None: it goes on until it is asked to end. The hard end comes some time after
    that and a call that began just then. `ended_by_signal`: a signal ends the work well; the exit code names it all the
    same.
    Whoever monitors the job by pings is told at the end, however it ends; a run that left the work to another is none.
    """
    stop = lifecycle.stop_on_signals()
    provider = config.settings.provider
    if max_seconds is not None:
        lifecycle.end_by(max_seconds + provider.connect_timeout_seconds + provider.timeout_seconds)
    try:
        if needs_key:
            config.require_api_key()
        with (
            ProgressBar.for_terminal(current.command, mask=current.mask) as progress,
            current.installed(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection,
        ):
            result = work(Start(config, connection, host(), stop), progress)
        current.job_exit_code = result.exit_code
        _tell(result)
        if ended_by_signal:
            stop.check()
    except BaseException as error:
        seconds = LAST_PING_SECONDS if isinstance(error, Interrupted) else pings.PING_SECONDS
        failed = bool(current.job_exit_code) or not isinstance(error, AnswerLostError)
        pings.ping(config, current.command, failed=failed, seconds=seconds)
        raise
    if result.status is not RunStatus.SKIPPED:
        pings.ping(config, current.command, failed=bool(result.exit_code), seconds=pings.PING_SECONDS)
    raise typer.Exit(result.exit_code)


def _tell(result: RunResult) -> None:
    if current.json:
        from assetbatch.report.documents import run_document

        print_json(run_document(result))
    else:
        sys.stdout.writelines(_changed(one) + "\n" for one in result.changed)
        if sys.stdout.isatty():
            sys.stdout.write(_summary(result) + "\n")
        else:
            log.info("%s", _summary(result))
    trouble.tell_failures(result)


def _changed(bar: ChangedBar) -> str:
    """Return how a bar was stored, and what it is now."""
    fields = ("open", "high", "low", "close", "volume", "vwap", "trades")
    pairs = [(name, getattr(bar.old, name), getattr(bar.new, name)) for name in fields]
    words = ", ".join(f"{name} {old} -> {new}" for name, old, new in pairs if old != new)
    return f"{bar.symbol} {utc(bar.old.ts)}: {words}"


def _summary(result: RunResult) -> str:
    if result.enqueued is not None:
        counts = (f"{count:,} {ENQUEUED[word]}" for word, count in asdict(result.enqueued).items() if count)
        return f"{result.job}: {', '.join(counts) or 'nothing to do'}; {result.remaining:,} on the queue"
    parts = [
        f"{one.cluster} {counted(one.events, 'event')} of {counted(one.assets, 'asset')}"
        if one.connects
        else f"{one.cluster} left to another stream"
        for one in result.streamed
    ]
    parts += [
        f"{len(symbols):,} {word} ({named(symbols)})"
        for word, symbols in (
            ("updated", result.updated),
            ("unchanged", result.unchanged),
            ("not due", result.not_due),
            ("with bars for later", result.deferred),
            ("failed", [failure.symbol for failure in result.failed]),
            ("back on the queue", result.requeued),
        )
        if symbols
    ]
    if result.bars.assets:
        parts.append(f"{counted(result.bars.stored, 'bar')} of {counted(result.bars.assets, 'asset')}")
    if result.newer_at is not None and not result.updated:
        parts.append(f"newer prices from {utc(result.newer_at)} on")
    if result.remaining is not None:
        parts.append(f"{result.remaining:,} on the queue")
    calls = counted(result.api_calls_used, "call")
    did = "; ".join(parts) or ("another run is still going" if result.status == "skipped" else "nothing to do")
    return f"{result.job}: {did}; {calls}, {result.latency_ms / 1000:.1f} s"
