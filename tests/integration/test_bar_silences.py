"""Pages that lack bars which the vendor has: believed when it says so twice, an hour apart, in the fewest calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.setup import schema
from assetbatch.jobs import backfill
from assetbatch.jobs.run import Start
from assetbatch.sandbox import routes
from tests.integration import test_bars_job
from tests.world import DAY, FRIDAYS_CLOSE, HOUR, MINUTE, QUICK, SECOND, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult
    from assetbatch.sandbox.bodies import Answer
    from assetbatch.sandbox.request import Request
    from assetbatch.sandbox.server import Sandbox

TUESDAY = datetime(2026, 11, 17, 12, 3, tzinfo=UTC)
BARS = "{backfill_days: 12}"
NOTHING = {"results": [], "resultsCount": 0, "count": 0}

Document = dict[str, Any]


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def only(document: Document, *spans: tuple[datetime, datetime]) -> Document:
    """Leave of a page what lies in these spans; the counts agree with what is left."""
    ends = [(milliseconds(since), milliseconds(until)) for since, until in spans]
    rows = [row for row in document.get("results", []) if any(since <= row["t"] < until for since, until in ends)]
    return document | {"results": rows, "resultsCount": len(rows), "count": len(rows)}


@dataclass
class World(test_bars_job.World):
    """A world that goes by a time of its own; `change` is what becomes of a page on its way."""

    now: datetime = TUESDAY
    change: Callable[[Document], Document] | None = field(default=None)

    def asked(self, **sections: str) -> list[str]:
        """Drain, and tell of how many minutes the bars were that were asked for."""
        known = len(self.calls())
        keys: dict[str, Any] = {"bars": BARS} | sections
        assert self.drain(**keys).exit_code == 0
        self.now += MINUTE  # else the next run takes itself for the same one
        return self.lengths()[known:]

    def ago(self, **back: float) -> datetime:
        return test_bars_job.floor(self.now - timedelta(**back))

    def delete(self, since: datetime, until: datetime) -> None:
        self.connection.execute("delete from market_data.ohlcv_5m where ts >= %s and ts < %s", [since, until])

    def backfill(self, since: datetime, until: datetime, *, refetch: bool = False) -> RunResult:
        config = self.configure(bars="{enabled: false}")
        foreseen = backfill.foresee(config, self.connection, symbols=None, since=since, until=until, refetch=refetch)
        start = Start(config, self.connection, "test", no_stop(), self.now)
        return backfill.backfill(start, foreseen, refetch=refetch)


@pytest.fixture
def world(
    connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    world = World(connection, database, sandbox, tmp_path)
    monkeypatch.setattr(schema, "check", lambda _: world.now)
    good = routes.answer

    def answer(request: Request) -> Answer:
        found = good(request)
        if world.change is None or "/range/" not in request.target:
            return found
        return replace(found, body=json.dumps(world.change(json.loads(found.body))).encode())

    monkeypatch.setattr(routes, "answer", answer)
    return world


def on_the_free_plan(world: World) -> dict[str, str]:
    world.environment["POLYGON_TIER"] = world.sandbox.plan = "free"
    return {"rate_limiting": QUICK}


TICKERS = pytest.mark.parametrize("ticker", ["X:T1USD", "C:XAUUSD"])
PLANS = pytest.mark.parametrize("sections", [lambda _: {}, on_the_free_plan], ids=["live", "free"])


@TICKERS
@PLANS
def test_a_new_asset_whose_first_page_is_empty_is_asked_for_again_after_an_hour(
    world: World, ticker: str, sections: Callable[[World], dict[str, str]]
) -> None:
    keys, symbol = sections(world), ticker.partition(":")[2]
    world.add(ticker)
    world.change = lambda page: page | NOTHING

    assert world.asked(**keys) == ["5", "1"]
    assert "nothing" not in world.absent(symbol)
    assert world.state(symbol)["source_minutes"] == 5
    world.now += 20 * MINUTE
    assert world.asked(**keys) == []

    world.change = None
    world.now = TUESDAY + 61 * MINUTE
    assert world.asked(**keys) == ["1"]
    world.now += 61 * MINUTE
    world.asked(**keys)
    world.now += DAY
    world.asked(**keys)
    assert world.state(symbol)["source_minutes"] == 5
    assert world.settled(symbol) == world.wanted(ticker)
    assert world.absent(symbol).keys() <= {"closed"}


@TICKERS
def test_5_minute_bars_that_are_not_there_once_are_built_and_then_fetched(world: World, ticker: str) -> None:
    symbol = ticker.partition(":")[2]
    world.add(ticker)
    world.sandbox.fail = ["minutes-only"]
    assert world.asked() == ["5", "1"]
    assert world.state(symbol)["source_minutes"] == 5
    built = world.stored(symbol)

    world.sandbox.fail = []
    world.now += 30 * MINUTE
    assert world.asked() == ["1"]
    world.now += 31 * MINUTE
    assert world.asked() == ["5"]

    assert len(built) > 1000
    assert world.settled(symbol) == world.wanted(ticker)
    world.now += 30 * MINUTE
    assert world.asked() == ["5"]
    assert world.state(symbol)["source_minutes"] == 5


@PLANS
def test_a_hole_whose_page_is_empty_is_asked_for_once_more_and_comes_back(
    world: World, sections: Callable[[World], dict[str, str]]
) -> None:
    keys = sections(world)
    world.add("T1USD")
    world.asked(**keys)
    world.delete(world.ago(days=8), world.ago(days=5))
    world.change = lambda page: page | NOTHING
    assert world.asked(**keys) == ["5"]
    assert "nothing" not in world.absent("T1USD")
    world.now += 20 * MINUTE
    assert world.asked(**keys) == []

    world.change = None
    world.now += 41 * MINUTE
    assert world.asked(**keys) == ["5"]

    assert world.is_whole("T1USD")
    assert world.absent("T1USD") == {}


PAGES: dict[str, Callable[[World], Callable[[Document], Document]]] = {
    "ends early": lambda world: lambda page: only(page, (world.ago(days=12), world.ago(days=3))),
    "begins late": lambda world: lambda page: only(page, (world.ago(days=3), world.now)),
    "lacks days": lambda world: (
        lambda page: only(page, (world.ago(days=12), world.ago(days=6)), (world.ago(days=3), world.now))
    ),
    "lacks an hour": lambda world: (
        lambda page: only(page, (world.ago(days=12), world.ago(hours=60)), (world.ago(hours=59), world.now))
    ),
    "lacks a bar": lambda world: (
        lambda page: only(page, (world.ago(days=12), world.ago(hours=60)), (world.ago(hours=60, minutes=-5), world.now))
    ),
}


@PLANS
@pytest.mark.parametrize("lacking", PAGES.values(), ids=PAGES)
def test_what_a_page_lacks_comes_with_the_next_call_for_the_newest_bars(
    world: World,
    lacking: Callable[[World], Callable[[Document], Document]],
    sections: Callable[[World], dict[str, str]],
) -> None:
    keys = sections(world)
    world.add("T1USD")
    world.change = lacking(world)
    assert world.asked(**keys) == ["5"]
    assert world.absent("T1USD").keys() == {"once"}

    world.change = None
    asked = []
    for minutes in (20, 61, 60 * 24, 60 * 24 + 1):
        world.now = TUESDAY + minutes * MINUTE
        asked += world.asked(**keys)

    assert world.is_whole("T1USD")
    assert world.absent("T1USD") == {}
    # Of a new asset it is asked after an hour, should no call for its newest bars do that; else at no further call.
    assert asked == ["5"] * 2


@pytest.mark.parametrize("empty", [2, 3])
def test_an_empty_page_among_several_is_asked_for_once_more(world: World, empty: int) -> None:
    world.add("T1USD")
    bars = "{backfill_days: 100}"
    # Without a word of a further page: all that is left is said not to be there.
    world.change = lambda page: page | NOTHING if len(world.calls()) == empty else page
    assert world.asked(bars=bars) == ["5"] * empty
    assert not world.is_whole("T1USD")

    world.change = None
    world.now += 61 * MINUTE
    # The newest, as ever, and what was not there.
    assert world.asked(bars=bars) == ["5"] * (1 + 4 - empty)

    assert world.is_whole("T1USD")
    assert world.asked(bars=bars) == []


def test_a_second_page_of_the_newest_bars_that_is_empty_is_asked_for_with_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("T1USD")
    monkeypatch.setattr("assetbatch.provider.massive.aggregates.MOST_BASE_MINUTES", 10_000)
    world.change = lambda page: (page | NOTHING) if len(world.calls()) == 2 else page
    assert world.asked() == ["5", "5"]

    world.change = None
    world.now += 61 * MINUTE
    assert world.asked() == ["5"]

    assert world.is_whole("T1USD")
    assert world.absent("T1USD") == {}


@pytest.mark.parametrize("ticker", ["X:T1USD", "C:XAUUSD"])
def test_what_the_vendor_truly_lacks_is_asked_for_twice_and_never_again(world: World, ticker: str) -> None:
    symbol = ticker.partition(":")[2]
    world.add(ticker)
    world.sandbox.fail = [f"drop:{ticker}"]
    world.asked()

    slots = []
    for number in range(1, 25):
        world.now = TUESDAY + number * HOUR + number * SECOND
        slots.append(world.asked() + world.asked())

    # A call in each slot for what is new, as ever, and no other: it asks for what is told a second time in passing.
    assert {len(asked) for asked in slots} <= ({1} if ticker == "X:T1USD" else {0, 1})  # gold rests for an hour a day
    assert world.absent(symbol)["nothing"][0][0] == world.state(symbol)["wanted_since"]
    assert world.state(symbol)["source_minutes"] == 5


def test_a_ticker_that_trades_seldom_costs_no_call_more_than_another(world: World) -> None:
    world.add("T1USD")
    world.sandbox.fail = ["drop:X:T1USD@0.9"]
    bars = "{backfill_days: 5}"
    assert world.asked(bars=bars) == ["5"]

    calls = 0
    for number in range(1, 49):
        world.now = TUESDAY + number * HOUR + number * SECOND
        calls += len(world.asked(bars=bars))

    assert calls == 48


def test_on_the_free_plan_a_ticker_that_trades_seldom_costs_a_call_a_day(world: World) -> None:
    keys = on_the_free_plan(world)
    world.add("T1USD", "C:EURUSD")
    world.sandbox.fail = ["drop:X:T1USD@0.7", "drop:C:EURUSD@0.7"]
    first = world.asked(**keys)
    days = []
    for number in range(1, 9):
        world.now = TUESDAY + number * DAY
        asked = world.asked(**keys)
        for hours in (1.1, 5):
            world.now = TUESDAY + number * DAY + hours * HOUR
            asked += world.asked(**keys)
        days.append(len(asked))

    # What its first page lacked is asked for an hour later.
    assert first == ["5", "5"]
    # From Wednesday to the next: on Sunday and Monday there is no new day of forex.
    assert days == [2, 2, 2, 2, 1, 1, 2, 2]


def test_at_a_weekend_nothing_is_asked_of_a_market_that_rests(world: World) -> None:
    world.add("C:EURUSD")
    world.now = FRIDAYS_CLOSE - 2 * HOUR
    world.asked()
    world.sandbox.fail = ["drop:C:EURUSD@0.5"]
    world.now = FRIDAYS_CLOSE + 5 * MINUTE
    assert world.asked() == ["5"]
    world.sandbox.fail = []

    for hours in range(1, 48, 4):
        world.now = FRIDAYS_CLOSE + hours * HOUR
        assert world.asked() == []
    world.now = FRIDAYS_CLOSE + 49 * HOUR
    assert world.asked() == ["5"]
    assert world.settled("EURUSD") == world.wanted("C:EURUSD")


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page | {"ticker": "X:OTHERUSD"},
        lambda page: page | NOTHING | {"resultsCount": 7200},
        lambda page: page | {"results": page["results"][:100]},
        lambda page: {key: value for key, value in page.items() if key != "results"},
    ],
    ids=["of another ticker", "counts but brings none", "brings less than it counts", "without rows"],
)
def test_a_page_that_contradicts_itself_tells_nothing(world: World, change: Callable[[Document], Document]) -> None:
    world.add("T1USD")
    world.change = change
    assert world.asked() == ["5"]
    assert (world.stored("T1USD"), world.absent("T1USD")) == ({}, {})
    state = world.state("T1USD")
    assert (state["asked_until"], state["failures"]) == (None, 1)

    world.change = None
    world.now += 7 * HOUR
    assert world.asked() == ["5"]
    assert world.is_whole("T1USD")


# A backfill.


def test_a_backfill_that_finds_nothing_says_so_and_ends_and_asks_once_more_after_an_hour(world: World) -> None:
    world.add("T1USD", "C:EURUSD")
    span = world.ago(days=40), world.ago(days=10)
    world.change = lambda page: page | NOTHING

    first = world.backfill(*span)
    again = world.backfill(*span)

    # Of each bars of 5 minutes, then of 1.
    assert (first.exit_code, first.bars.stored, first.api_calls_used) == (0, 0, 4)
    (warning,) = first.warnings
    assert "of T1USD, EURUSD between 2026-10-08 12:00 UTC and 2026-11-07 12:00 UTC were not there" in warning
    assert "from 2026-11-17 13:03 UTC on" in warning
    assert (again.api_calls_used, again.warnings) == (0, first.warnings)

    world.now += 61 * MINUTE
    second = world.backfill(*span)
    assert (second.exit_code, second.api_calls_used) == (0, 2)
    world.now += 61 * MINUTE
    third = world.backfill(*span)
    assert (third.api_calls_used, third.warnings) == (0, ())


def test_what_a_backfill_did_not_get_once_it_gets_the_second_time(world: World) -> None:
    world.add("T1USD")
    world.asked(bars="{backfill_days: 1}")
    span = world.ago(days=40), world.ago(days=10)
    world.change = lambda page: only(page, (world.ago(days=40), world.ago(days=30)))
    assert world.backfill(*span).api_calls_used == 1

    world.change = None
    world.now += 61 * MINUTE
    second = world.backfill(*span)

    assert (second.api_calls_used, second.warnings) == (1, ())
    stored = {ts: bar for ts, bar in world.stored("T1USD").items() if ts < span[1]}
    assert stored == world.vendors("X:T1USD", *span)
    assert bar_absences.silences(world.connection, {}, now=world.now) == []
