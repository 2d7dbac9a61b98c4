"""A world for jobs that run in process: a database, a server, what both are told, and one time for all."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from assetbatch import config as configuration
from assetbatch.database import catalogue
from assetbatch.database.rate_limit import Rules
from assetbatch.database.read import freshness
from assetbatch.database.read.overview import Overview
from assetbatch.errors import Interrupted
from assetbatch.jobs import drain, enqueue, priority
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.run import Start
from assetbatch.model import AssetType
from assetbatch.report.freshness import SEEN_WITHIN, limits, outlook_of
from tests.conftest import Commands, open_database, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.read.freshness import Judged
    from assetbatch.model import RunResult
    from assetbatch.sandbox.server import Sandbox

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TUESDAY = datetime(2026, 11, 17, 12, tzinfo=UTC)
FRIDAYS_CLOSE = datetime(2026, 11, 20, 22, tzinfo=UTC)
ALL = ("XAUUSD", "EURUSD", "BTCUSD")
PROMPT = dict.fromkeys(AssetType, timedelta(0))

# The free plan's limit, with all defaults.
RULES = Rules(
    max_calls=5,
    window_seconds=60,
    margin_seconds=1,
    min_spacing_seconds=0,
    max_calls_per_second=None,
    request_seconds=25,
)

NO_SECONDARY = "{secondary_assets: []}"
NO_ASSETS = "{priority_assets: [], secondary_assets: []}"
UNLIMITED = "{calls_per_minute: null}"
# A short window, so that a run does not wait for slots unless a test wants it to.
QUICK = "{window_seconds: 0.05, margin_seconds: 0, calls_per_minute: 50}"

ADD_ASSETS = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select regexp_replace(ticker, '^[A-Z]:', ''), ticker,
       case left(ticker, 2) when 'X:' then 'crypto' when 'C:' then 'forex' when 'I:' then 'indices' else 'stocks' end,
       %(role)s, %(rank)s, 1800, 'symbols'
from unnest(%(tickers)s::text[]) ticker
"""

_one_at_a_time = Lock()


def no_stop() -> Stop:
    return Stop(lambda: Interrupted(signal.SIGTERM))


def load_config(folder: Path, text: str = "", **environment: str) -> Config:
    """Write config.yaml and load it."""
    file = folder / "config.yaml"
    # Runs that begin together share the file: one must not read what another is writing.
    with _one_at_a_time:
        # A disk takes a moment to make a file anew over one that is there.
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        return configuration.load(file=file, environ=environment, cwd=folder)


def add_assets(connection: Connection, *tickers: str, role: str = "secondary", rank: int = 3) -> None:
    """Put assets into the catalogue, each called as its ticker is."""
    connection.execute(ADD_ASSETS, {"tickers": list(tickers), "role": role, "rank": rank})


@dataclass
class World:
    """A database, a server that goes by the same time as the jobs, and the configuration that names them."""

    KEYS: ClassVar[dict[str, str]] = {}
    """The sections of config.yaml, where a test gives no other."""

    connection: Connection
    database: str
    sandbox: Sandbox
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    now: datetime | None = None
    """The time that server and jobs go by; None: the real one."""
    before: Callable[[], object] = lambda: None
    """What happens while the server has a request and no answer yet; it may hold the answer back."""

    def __post_init__(self) -> None:
        self.sandbox.clock = self.clock

    def clock(self) -> datetime:
        self.before()
        return self.now or datetime.now(UTC)

    def variables(self) -> dict[str, str]:
        return variables(self.database, self.sandbox.url) | self.environment

    def configure(self, **sections: str) -> Config:
        text = "".join(f"{section}: {value}\n" for section, value in (self.KEYS | sections).items())
        return load_config(self.folder, text, **self.variables())

    def commands(self) -> Commands:
        """Tell how to run a command as a process of its own, with the configuration that was last in force."""
        return Commands(self.folder, {"PATH": os.environ["PATH"], "HOME": str(self.folder)} | self.variables())

    def add(self, *assets: str, priority: int = 3) -> None:
        """Put secondary assets into the catalogue by ticker; T1USD is X:T1USD for short."""
        add_assets(self.connection, *(one if ":" in one else f"X:{one}" for one in assets), rank=priority)

    def start(self, config: Config, connection: Connection | None = None, *, stop: Stop | None = None) -> Start:
        """Tell what a run begins with."""
        return Start(config, connection or self.connection, "test", stop or no_stop(), self.now)

    def prioritise(self, *, stop: Stop | None = None, **sections: str) -> RunResult:
        return priority.run_priority(self.start(self.configure(**sections), stop=stop))

    def enqueue(self, symbols: Sequence[str] | None = None, /, **sections: str) -> RunResult:
        """Enqueue the assets that are due, or these, due or not."""
        start = self.start(self.configure(**sections))
        return enqueue.enqueue_secondary(start, source="database", symbols=symbols, due_or_not=symbols is not None)

    def drain(
        self,
        *,
        stop: Stop | None = None,
        max_seconds: float = 55.0,
        max_items: int | None = None,
        shared: bool = True,
        **sections: str,
    ) -> RunResult:
        """Drain with a connection of its own, so that others may be under way in other threads."""
        with open_database(self.database) as connection:
            return drain.drain_queue(
                self.start(self.configure(**sections), connection, stop=stop),
                bounds=drain.Bounds(max_seconds, max_items),
                shared=shared,
                reconnect=lambda: open_database(self.database),
            )


def judged(connection: Connection, config: Config, seen: Overview) -> Judged:
    """Let the database judge its assets at the time of what `status` sees."""
    outlook = outlook_of(config, seen)
    judging = freshness.judge(
        limits(connection.answer(catalogue.frequencies()), outlook),
        seen_since=seen.now - SEEN_WITHIN,
        named=[asset.symbol for asset in config.priority_assets],
        most_others=20,
    )
    return connection.answer(judging)


def overview(now: datetime = TUESDAY, *, job: dict[str, Any] | None = None, **hour: Any) -> Overview:
    """What `status` sees of a quiet hour in which all went well, but for what is given; `job` is run-priority's row."""
    quiet = {
        "priority_ok": 12,
        "priority_finished": 12,
        "priority_latency_ms": 400.0,
        "rate_limit_waits": 0,
        "calls": 12,
        "limited_calls": 12,
        "refusals": 0,
        "events_pending": 0,
        "events_dropped": 0,
        "oldest_event_at": None,
    }
    row: dict[str, Any] = {
        "last_run": now - MINUTE,
        "last_status": "ok",
        "last_success": now - MINUTE,
        "exit_code": 0,
        "last_error": None,
        "runs": 288,
        "ok": 288,
        "partial": 0,
        "failed": 0,
        "longest_gap_seconds": 301.0,
        "last_failure": None,
        "host": "here",
        "in_a_row": 0,
        "failing_since": None,
        "failing_error": None,
        "failing_error_kind": None,
    }
    others = ({"job": name} | row for name in ("drain-queue", "enqueue-secondary"))
    return Overview(now, [{"job": "run-priority"} | row | (job or {}), *others], quiet | hour, [], None, None, [])
