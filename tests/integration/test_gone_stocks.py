"""Stocks that leave the market, by whole jobs: what is asked for them, and what is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace
from rich.console import Console

from assetbatch.database.read.overview import gone as gone_assets
from assetbatch.report import reading, status_tables
from assetbatch.report.sentences import sentences
from assetbatch.sandbox.actions import Listing
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY
from tests.world import DAY, MINUTE, NO_ASSETS, UNLIMITED, overview
from tests.world import World as AnyWorld
from tests.world import judged as judged_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult
    from assetbatch.report.status import Status

ADD = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select ticker, ticker, case left(ticker, 2) when 'I:' then 'indices' else 'stocks' end, 'secondary', 3, 1800, 'symbols'
from unnest(%(tickers)s::text[]) ticker
"""

LEAVING = date(2026, 11, 10)
DELISTED = [f"ZZT{number}" for number in range(1, 41)]
RENAMED = {"AAPL": "APPL", "MSFT": "MCSF", "NVDA": "NVID"}
GONE = {*DELISTED, *RENAMED}
# Delisted, too, and two weeks later the name of what was TSLA.
REUSED = "ZZT2000"
# Monday, while New York trades; the finished day of Friday can be had.
MONDAY = datetime(2026, 11, 9, 16, tzinfo=UTC)
# All on which stocks trade, a week longer than it may take to find out who has left.
DAYS = [day for day in range(9, 32) if day % 7 not in {0, 1} and day != 26]


@dataclass
class World(AnyWorld):
    """So many stocks, of which some leave the market on a day."""

    KEYS: ClassVar[dict[str, str]] = {
        "batch": NO_ASSETS,
        "bars": "{enabled: false}",
        "queue": "{max_size: 10000}",
        "rate_limiting": UNLIMITED,
    }

    now: datetime = MONDAY
    asked: list[tuple[date, str]] = field(default_factory=list)
    """What was asked for, and on what day."""
    told: list[str] = field(default_factory=list)
    """All warnings of runs."""

    def add(self, *tickers: str, **_: Any) -> None:
        self.connection.execute(ADD, {"tickers": list(tickers)})

    def run(self, **sections: Any) -> list[RunResult]:
        """Enqueue what is due, and drain the queue twice, as cron does."""
        results = [self.enqueue(**sections)]
        for _ in range(2):
            self.now += MINUTE
            results.append(self.drain(**sections))
        self.told += [warning for result in results for warning in result.warnings]
        assert [(one.exit_code, one.dead, one.failed) for one in results] == [(0, (), ())] * 3
        arrived, self.sandbox.arrivals[:] = self.sandbox.arrivals[:], []
        self.asked += [(self.now.date(), one.path) for one in arrived]
        return results

    def days(self, days: Sequence[int], **sections: Any) -> None:
        """Run on these days of November."""
        for day in days:
            self.now = MONDAY + (day - MONDAY.day) * DAY
            self.run(**sections)

    def status(self, **sections: Any) -> Status:
        config = self.configure(**sections)
        gone = self.connection.answer(gone_assets(limit=5))
        seen = replace(overview(self.now), gone=gone)
        return reading.build(config, seen, judged_at(self.connection, config, seen), source=None)

    def referred(self) -> Counter[tuple[int, str]]:
        """How often each question was put to the reference list in each week since the tickers left."""
        return Counter(
            ((day - LEAVING).days // 7, path) for day, path in self.asked if path.startswith("/v3/reference/tickers")
        )

    def asked_alone(self, *tickers: str) -> list[str]:
        """Return calls for one of these tickers alone, but for those of the reference list."""
        names = {f"/{ticker}/" for ticker in tickers}
        return [path for _, path in self.asked if any(name in path for name in names)]

    def in_snapshots(self, since: date) -> set[str]:
        """Return what was asked for in snapshots since a day."""
        queries = [parse_qs(urlsplit(path).query) for day, path in self.asked if day >= since and "snapshot" in path]
        return {ticker for query in queries for tickers in query["ticker.any_of"] for ticker in tickers.split(",")}


def listing(stocks: int) -> Listing:
    return Listing(
        delistings=[f"{ticker}:{LEAVING}" for ticker in (*DELISTED, REUSED, "I:DJI")],
        renamings=[*(f"{old}:{new}:{LEAVING}" for old, new in RENAMED.items()), f"TSLA:{REUSED}:2026-11-24"],
        stocks=stocks,
    )


@pytest.fixture
def world(connection: Connection, database: str, tmp_path: Path) -> Iterator[World]:
    with Sandbox(key=API_KEY, plan="free", listing=listing(100)) as sandbox:
        yield World(connection, database, sandbox, tmp_path)


@pytest.fixture(params=[60, pytest.param(2_000, marks=pytest.mark.slow)])
def stocks(request: pytest.FixtureRequest, world: World) -> int:
    number: int = request.param
    world.sandbox.listing = listing(max(number, 100))
    return number


def finished_days(world: World) -> dict[str, Any]:
    world.environment["POLYGON_TIER"] = "free"
    return {}


def live(world: World) -> dict[str, Any]:
    world.sandbox.stocks_plan = "advanced"
    world.environment["POLYGON_TIER"] = "free"
    return {"provider": "{plans: {stocks: advanced}}"}


PLANS = pytest.mark.parametrize("plan", [finished_days, live])


@PLANS
def test_what_has_left_is_told_by_name_and_costs_a_call_a_week(
    world: World, plan: Callable[[World], dict[str, Any]], stocks: int
) -> None:
    keys = plan(world)
    others = [f"ZZT{number}" for number in range(41, stocks - len(RENAMED) + 1)]
    world.add(*DELISTED, *RENAMED, *others)

    world.days(DAYS, **keys)

    assert sorted(world.told) == [
        f"delisted on {LEAVING}: ZZT1, ZZT10, ZZT11, ZZT12, ZZT13 and 35 more",
        *(f"renamed to {new}: {old}" for old, new in sorted(RENAMED.items(), key=lambda item: item[1])),
    ]
    assert max(world.referred().values()) == 1
    assert world.asked_alone(*GONE) == []
    assert world.in_snapshots(MONDAY.date()) >= (set() if plan is finished_days else GONE)
    assert not world.in_snapshots(LEAVING + 2 * DAY) & GONE
    status = world.status(**keys)
    assert (status.asset_states["delisted"], status.asset_states["renamed"]) == (40, 3)
    assert sum(status.asset_states.values()) == stocks
    assert not {"failing", "stale", "never"} & status.asset_states.keys()
    assert [alert for alert in status.alerts if alert.area in {"assets", "queue"}] == []
    assert "no longer asked for: AAPL renamed to APPL, MSFT renamed to MCSF" in sentences(status)["assets"]
    enqueued = world.enqueue(**keys).enqueued
    assert enqueued is not None
    assert (enqueued.gone, enqueued.dead) == (43, 0)


@PLANS
def test_a_name_that_somebody_else_takes_is_served_again_and_told(
    world: World, plan: Callable[[World], dict[str, Any]]
) -> None:
    keys = plan(world)
    world.add(REUSED, "SPY")
    world.days([9, 11, 17, 18], **keys)
    assert world.told == [f"delisted on {LEAVING}: {REUSED}"]

    world.days([25, 27, 30], **keys)

    (_, told) = world.told
    assert told.startswith(f"{REUSED}: the ticker {REUSED} is another company's since 2026-11-25 at the latest; prices")
    assert world.status(**keys).asset_states.keys() & {"delisted", "renamed", "stale", "failing"} == set()
    (quote,) = world.connection.execute(
        "select metadata #>> '{last_update,timestamp}' as at from trading.symbols where symbol = %s", [REUSED]
    )
    assert quote["at"] > "2026-11-27"
    shown = Console(width=200)
    with shown.capture() as text:
        story = reading.read(world.configure(**keys), world.connection, reading.Wanted(asset=REUSED))
        shown.print(status_tables.status_view(story, width=200))
    assert (
        "Ticker  listed, another company's since 2026-11-25 at the latest; the reference list was asked" in text.get()
    )


def test_an_index_that_has_left_is_asked_for_no_more(world: World) -> None:
    keys = finished_days(world)
    world.add("I:DJI", "I:COMP")
    world.days([10, 11, 12, 13, 17, 18], **keys)
    assert world.told == [f"delisted on {LEAVING}: I:DJI"]
    assert world.asked_alone("I:DJI")

    world.asked.clear()
    world.days([19, 20], **keys)

    assert len(world.asked_alone("I:COMP")) == 2
    assert world.asked_alone("I:DJI") == []
    assert world.status(**keys).asset_states == {"delisted": 1, "end_of_day": 1}


def test_no_bars_are_asked_for_of_what_has_left(world: World) -> None:
    keys = live(world) | {"bars": "{backfill_days: 1}"}
    world.add("ZZT1", "SPY")
    world.run(**keys)
    assert world.asked_alone("ZZT1")

    world.now += DAY
    world.run(**keys)
    world.asked.clear()
    world.now += DAY
    world.run(**keys)

    assert world.asked_alone("SPY")
    assert world.asked_alone("ZZT1") == []


@PLANS
def test_a_priority_asset_that_has_left_is_no_failure_any_more(
    world: World, plan: Callable[[World], dict[str, Any]]
) -> None:
    keys = plan(world)
    rows = ", ".join(f"{{symbol: {name}, polygon_ticker: {name}, asset_type: stocks}}" for name in ("ZZT1", "SPY"))
    keys |= {"batch": f"{{secondary_assets: [], priority_assets: [{rows}]}}"}
    results = []
    for day in (9, 11, 17, 18):
        world.now = MONDAY + (day - MONDAY.day) * DAY
        results += [world.prioritise(**keys) for _ in range(2)]

    assert [word for one in results for word in one.warnings] == [f"delisted on {LEAVING}: ZZT1"]
    assert (results[-1].exit_code, results[-1].failed, "ZZT1" in results[-1].unchanged) == (0, (), True)
    status = world.status(**keys)
    assert [one.state for one in status.assets if one.asset.symbol == "ZZT1"] == ["delisted"]
    assert [alert for alert in status.alerts if "ZZT1" in alert.message] == []
