"""Bars fetched in process by both jobs, and held against what the server says when it is asked directly."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import groupby
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import requests

from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.bars.state import KEEP_PARTITIONS
from assetbatch.database.setup import schema
from assetbatch.failures import FailureKind
from assetbatch.jobs import backfill, bar_catalogue
from assetbatch.jobs.bars import MOST_AT_ONCE
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.run import Start
from assetbatch.model import RunStatus, Trouble
from assetbatch.provider.massive import aggregates
from assetbatch.sandbox import routes
from tests import world as worlds
from tests.conftest import API_KEY, open_database, wait_until
from tests.world import NO_ASSETS, NO_SECONDARY, QUICK, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult
    from assetbatch.sandbox.bodies import Answer
    from assetbatch.sandbox.request import Request
    from assetbatch.sandbox.server import Sandbox
    from assetbatch.sandbox.window import Arrival

FIVE_MINUTES = timedelta(minutes=5)
# An end of a run that has met an endless loop; no good run comes near.
TOO_LONG_SECONDS = 8.0
TUESDAY = datetime(2026, 11, 17, 12, 3, tzinfo=UTC)
FOREX = {"EURUSD": "C:EURUSD", "XAUUSD": "C:XAUUSD"}
ALL = FOREX | {"BTCUSD": "X:BTCUSD"}
BARS = """
select b.ts, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades
from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id where s.symbol = %s
"""
PUT = """
insert into assetbatch.queue (symbol, priority, waiting_since, rank, enqueued_at, available_at)
values (%s, 3, now(), now(), now(), now()) on conflict do nothing
"""
ROWS = """
select b.*, b.xmin::text as written_by
from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id where s.symbol = %s order by b.ts
"""

ADD_SYMBOLS = """
insert into trading.symbols (symbol, metadata) select symbol, '{}' from assetbatch.assets on conflict do nothing
"""

Bars = dict[datetime, tuple[Any, ...]]


def floor(moment: datetime) -> datetime:
    return moment - (moment - datetime(1970, 1, 1, tzinfo=UTC)) % FIVE_MINUTES


def bars_of(document: dict[str, Any]) -> Bars:
    """Read what the server sent, digit by digit."""
    return {
        datetime.fromtimestamp(int(row["t"]) // 1000, UTC): tuple(
            row[key] for key in ("o", "h", "l", "c", "v", "vw", "n")
        )
        for row in document.get("results", [])
    }


class World(worlds.World):
    """A world without assets, but for those that a test adds to want bars."""

    KEYS: ClassVar = {"batch": NO_ASSETS, "bars": "{backfill_days: 2}"}

    def add(self, *assets: str, priority: int = 3) -> None:
        """Put assets into the catalogue and into the platform's table."""
        super().add(*assets, priority=priority)
        self.connection.execute(ADD_SYMBOLS)

    def run_priority(self, now: datetime, **sections: str) -> RunResult:
        """Run as if it were `now`, here and at the server."""
        self.now = now
        keys: dict[str, Any] = {"batch": NO_SECONDARY} | sections
        return self.prioritise(**keys)

    def backfill(self, since: datetime, until: datetime, *, refetch: bool = False) -> RunResult:
        """Ask for the bars of BTCUSD between two times; the job goes by the real time."""
        config = self.configure()
        foreseen = backfill.foresee(
            config, self.connection, symbols=["BTCUSD"], since=since, until=until, refetch=refetch
        )
        return backfill.backfill(Start(config, self.connection, "test", no_stop()), foreseen, refetch=refetch)

    def see_two_years(self) -> datetime:
        """Let the server show what the free plan does, whatever the plan is said to be; tell since when."""
        self.now = datetime.now(UTC)
        self.sandbox.plan = "free"
        today = self.now.date()
        oldest = today.replace(year=today.year - 2, day=28 if (today.month, today.day) == (2, 29) else today.day)
        return datetime.combine(oldest, time(0), UTC)

    def make_due(self) -> None:
        """Let the newest bars be due at once, and whatever failed be asked for again."""
        self.connection.execute(
            "update assetbatch.bar_state"
            " set asked_at = asked_at - interval '1 hour', asked_until = asked_until - interval '5 minutes',"
            " retry_at = null"
        )

    def calls(self) -> list[Arrival]:
        """Tell which calls for bars came in."""
        return [one for one in self.sandbox.arrivals if "/range/" in one.path]

    def lengths(self) -> list[str]:
        """Tell of how many minutes the bars were that they asked for."""
        return [one.path.split("/")[6] for one in self.calls()]

    def spans(self) -> list[tuple[int, int]]:
        """Tell from when to when they asked, in milliseconds."""
        paths = [one.path.partition("?")[0].split("/") for one in self.calls()]
        return [(int(path[-2]), int(path[-1])) for path in paths]

    def stored(self, symbol: str) -> Bars:
        rows = self.connection.execute(BARS, [symbol]).fetchall()
        return {row.pop("ts"): tuple(row.values()) for row in rows}

    def rows(self, symbol: str) -> list[dict[str, Any]]:
        return self.connection.execute(ROWS, [symbol]).fetchall()

    def vendors(self, ticker: str, since: datetime, until: datetime, *, minutes: int = 5) -> Bars:
        """Ask the server directly, page by page as it says itself, for what begins in a span."""
        ends = [int(moment.timestamp() * 1000) for moment in (since, until)]
        url = f"{self.sandbox.url}/v2/aggs/ticker/{ticker}/range/{minutes}/minute/{ends[0]}/{ends[1] - 1}?limit=50000"
        found: Bars = {}
        arrivals = len(self.sandbox.arrivals)
        while url:
            answer = requests.get(url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=20)
            document = json.loads(answer.content, parse_float=Decimal, parse_int=Decimal)
            found |= bars_of(document)
            url = document.get("next_url", "")
        del self.sandbox.arrivals[arrivals:]
        return found

    def state(self, symbol: str) -> dict[str, Any]:
        row = self.connection.execute("select * from assetbatch.bar_state where symbol = %s", [symbol]).fetchone()
        assert row is not None
        return row

    def absent(self, symbol: str) -> dict[str, list[tuple[datetime, datetime]]]:
        rows = self.connection.execute(
            "select reason, lower(r) as since, upper(r) as until"
            " from (select symbol, reason, ranges from assetbatch.bar_absences"
            "       union all select symbol, 'once', ranges from assetbatch.bar_silences) a, unnest(ranges) r"
            " where symbol = %s order by reason, r",
            [symbol],
        )
        return {
            reason: [(row["since"], row["until"]) for row in group]
            for reason, group in groupby(rows, key=lambda row: row["reason"])
        }

    def settled(self, symbol: str) -> Bars:
        until = self.state(symbol)["asked_until"]
        return {ts: bar for ts, bar in self.stored(symbol).items() if ts < until}

    def wanted(self, ticker: str, *, minutes: int = 5) -> Bars:
        """Ask the server directly for what is wanted of a ticker and settled."""
        state = self.state(ticker.partition(":")[2])
        found = self.vendors(ticker, state["wanted_since"], state["asked_until"], minutes=minutes)
        assert len(found) > 100
        return found

    def is_whole(self, symbol: str) -> bool:
        """Tell whether all settled bars are there since they are wanted, exactly as the server has them."""
        return self.settled(symbol) == self.wanted(f"X:{symbol}")


@pytest.fixture
def world(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, database, sandbox, tmp_path)


def test_one_call_an_asset_closes_the_hole_of_a_week(world: World) -> None:
    before = TUESDAY - timedelta(days=7)
    world.run_priority(before, bars="{backfill_days: 1}")
    calls = len(world.calls())

    result = world.run_priority(TUESDAY, bars="{backfill_days: 1}")

    assert result.bars.assets == len(world.calls()) - calls == 3
    assert result.exit_code == 0
    for symbol, ticker in ALL.items():
        since, end = floor(before - timedelta(days=1)), floor(TUESDAY) + FIVE_MINUTES
        assert world.stored(symbol) == world.vendors(ticker, since, end)
        settled = {row["ts"]: row["is_final"] for row in world.rows(symbol)}
        limit = TUESDAY - timedelta(seconds=90)
        assert settled == {ts: ts + FIVE_MINUTES <= limit for ts in settled}
        assert list(settled.values()).count(False) == 1


@pytest.mark.slow
def test_bars_of_two_years_come_in_the_fewest_calls_and_exact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("BTCUSD")
    pages: list[bytes] = []
    good = routes.answer

    def answer(request: Request) -> Answer:
        found = good(request)
        pages.append(found.body)
        return found

    monkeypatch.setattr(routes, "answer", answer)

    result = world.drain(bars="{backfill_days: 730}")

    assert (result.exit_code, result.bars.assets) == (0, 1)
    assert len(world.calls()) <= 22
    stored = world.stored("BTCUSD")
    sent: Bars = {}
    for page in pages:
        sent |= bars_of(json.loads(page, parse_float=Decimal, parse_int=Decimal))
    assert stored == sent
    times = sorted(stored)
    assert (times[0], times[-1]) == (world.state("BTCUSD")["wanted_since"], times[0] + (len(times) - 1) * FIVE_MINUTES)
    assert times[-1] - times[0] >= timedelta(days=730)


def test_a_killed_backfill_goes_on_with_the_page_that_broke(world: World) -> None:
    world.add("T1USD")
    bars = "{backfill_days: 80}"
    world.configure(bars=bars)
    held, let_go = 1, Event()

    def is_on_its_way() -> bool:
        return len(world.calls()) > held

    world.before = lambda: is_on_its_way() and let_go.wait(20)
    # Each worker is killed while its second page is on its way.
    for number in range(2):
        held = 1 + 2 * number
        let_go.clear()
        worker = world.commands().start("drain-queue", "--shared")
        wait_until(is_on_its_way)
        worker.kill()
        worker.communicate()
        let_go.set()
        assert len(world.stored("T1USD")) >= 9_998 * (number + 1)
        if number == 0:
            # On another host, and its lease has not run out yet: nobody else asks meanwhile. Here it is known at once.
            world.connection.execute("update assetbatch.runs set place = 'elsewhere'")
            world.drain(bars=bars)
            assert len(world.calls()) == held + 1
            world.connection.execute("update assetbatch.bar_state set leased_until = now() - interval '1 s'")
    world.drain(bars=bars)

    assert world.is_whole("T1USD")
    first, second, again, third, third_again = world.spans()
    assert (again, third_again) == (second, third)
    assert len({first, second, third}) == 3


def test_a_page_that_fails_leaves_the_pages_before_it(world: World) -> None:
    world.add("T1USD")

    def fail() -> None:
        if len(world.calls()) == 2:
            world.sandbox.fail = ["500:/range/"]

    world.before = fail
    result = world.drain(bars="{backfill_days: 80}")

    assert result.bars.assets == 1
    assert [call.status for call in world.calls()] == [200, 200, 500]
    assert len(world.stored("T1USD")) == pytest.approx(2 * 9_999, abs=3)
    state = world.state("T1USD")
    assert (state["error_kind"], state["failures"]) == ("server_error", 1)
    assert state["retry_at"] > datetime.now(UTC) + timedelta(seconds=30)

    world.before = lambda: None
    world.sandbox.fail = []
    world.connection.execute("update assetbatch.bar_state set retry_at = null")
    world.drain(bars="{backfill_days: 80}")
    assert world.spans()[3] == world.spans()[2]
    assert len(world.calls()) == 4
    assert world.is_whole("T1USD")
    assert world.state("T1USD")["failures"] == 0


@pytest.mark.parametrize(("symbol", "ticker"), [("T1USD", "X:T1USD"), ("XAGUSD", "C:XAGUSD")])
def test_bars_are_built_of_minutes_where_there_are_no_others(world: World, symbol: str, ticker: str) -> None:
    world.sandbox.fail = [f"minutes-only:{ticker}"]
    world.add(ticker)
    world.now = TUESDAY

    world.drain(bars="{backfill_days: 5}")

    assert world.lengths() == ["5", "1"]
    assert world.state(symbol)["source_minutes"] == 5  # told once
    stored = world.settled(symbol)
    assert stored == aggregated(world.wanted(ticker, minutes=1))
    # What the vendor itself would make of them; its average is of exact prices, ours of rounded ones.
    world.sandbox.fail = []
    theirs = world.wanted(ticker)
    assert {ts: (*bar[:5], bar[6]) for ts, bar in stored.items()} == {
        ts: (*bar[:5], bar[6]) for ts, bar in theirs.items()
    }
    world.sandbox.fail = [f"minutes-only:{ticker}"]
    for minutes, asked in ((30, ["1"]), (61, ["5", "1"]), (95, ["1"]), (60 * 24, ["1"])):
        known = len(world.calls())
        world.now = TUESDAY + timedelta(minutes=minutes)
        world.drain(bars="{backfill_days: 5}")
        assert world.lengths()[known:] == asked
    assert world.state(symbol)["source_minutes"] == 1
    assert world.settled(symbol) == aggregated(world.wanted(ticker, minutes=1))


def aggregated(minutes: Bars) -> Bars:
    found: Bars = {}
    for ts, group in groupby(sorted(minutes), key=floor):
        opens, highs, lows, closes, volumes, averages, trades = zip(*(minutes[one] for one in group), strict=True)
        worth = sum(price * volume for price, volume in zip(averages, volumes, strict=True))
        finest = min(averages, key=lambda price: price.as_tuple().exponent)
        average = (worth / sum(volumes)).quantize(finest)
        found[ts] = (opens[0], max(highs), min(lows), closes[-1], sum(volumes), average, sum(trades))
    return found


def test_a_window_with_a_minute_that_is_no_bar_is_not_built(world: World) -> None:
    world.add("T1USD")
    world.sandbox.fail = ["minutes-only:/range/5/", "zero:X:T1USD@0.01"]

    world.drain(max_seconds=TOO_LONG_SECONDS, bars="{backfill_days: 5}")

    failed = world.absent("T1USD")["failed"]
    stored = world.stored("T1USD")
    assert failed
    assert not [ts for ts in stored for since, until in failed if since <= ts < until]
    world.sandbox.fail = ["minutes-only:/range/5/"]
    settled = world.settled("T1USD")
    assert len(settled) > 1000
    assert settled.items() <= aggregated(world.wanted("X:T1USD", minutes=1)).items()


def test_a_correction_is_found_within_a_day_and_told_by_when_it_came(world: World) -> None:
    world.run_priority(TUESDAY)
    late, old = floor(TUESDAY) - timedelta(hours=3), floor(TUESDAY) - timedelta(hours=20)
    # As if the vendor's answer had been another one then.
    world.connection.execute("update market_data.ohlcv_5m set close = close + 1 where ts = any(%s)", [[late, old]])
    since = TUESDAY + timedelta(hours=1)
    world.run_priority(since)
    learned = "select s.symbol, b.ts from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id"
    learned += " where is_final and fetched_at > %s order by 1, 2"
    new = {row["ts"] for row in world.connection.execute(learned, [TUESDAY + timedelta(minutes=1)])}
    assert min(new) >= floor(TUESDAY) - FIVE_MINUTES  # not by every run: once a day

    calls = len(world.calls())
    world.run_priority(TUESDAY + timedelta(days=1))

    assert len(world.calls()) - calls == 3
    rows = world.connection.execute(learned, [since + timedelta(minutes=1)]).fetchall()
    for symbol, ticker in ALL.items():
        corrected = [row["ts"] for row in rows if row["symbol"] == symbol and row["ts"] < floor(TUESDAY)]
        assert corrected == [old, late]
        assert world.stored(symbol) == world.vendors(
            ticker, floor(TUESDAY - timedelta(days=2)), floor(TUESDAY + timedelta(days=1)) + FIVE_MINUTES
        )


def test_what_does_not_change_is_not_written_again(world: World) -> None:
    world.run_priority(TUESDAY)
    before = {row["ts"]: row for row in world.rows("BTCUSD") if row["is_final"]}

    result = world.run_priority(TUESDAY + timedelta(days=1))

    after = {row["ts"]: row for row in world.rows("BTCUSD") if row["ts"] in before}
    assert after == before
    assert len(before) > 500
    assert result.bars.stored < 3 * 300


def test_bars_deleted_by_hand_come_back_with_the_next_drain(world: World) -> None:
    world.add("T1USD")
    world.drain()
    calls = len(world.calls())
    middle = floor(datetime.now(UTC) - timedelta(days=1))
    gone = world.connection.execute(
        "delete from market_data.ohlcv_5m where ts = any(%s)",
        [[middle, middle + timedelta(hours=1), middle + timedelta(hours=1, minutes=5), middle + timedelta(hours=9)]],
    ).rowcount
    assert gone == 4

    result = world.drain()

    assert len(world.calls()) - calls == 1
    assert result.bars.stored == 4
    assert world.is_whole("T1USD")
    assert world.drain().api_calls_used == 0


def test_a_bar_that_was_open_before_a_long_stop_is_fetched_again(world: World) -> None:
    stopped = datetime.now(UTC) - timedelta(days=40)
    world.run_priority(stopped, batch="{priority_assets: [{symbol: BTCUSD, polygon_ticker: 'X:BTCUSD',"
                       " asset_type: crypto}], secondary_assets: []}")  # fmt: skip
    unsettled = [row["ts"] for row in world.rows("BTCUSD") if not row["is_final"]]
    assert unsettled
    world.now = None
    world.connection.execute("update assetbatch.assets set origin = 'symbols', role = 'secondary'")

    world.drain(max_seconds=TOO_LONG_SECONDS)

    settled = {row["ts"]: row["is_final"] for row in world.rows("BTCUSD")}
    assert all(settled[ts] for ts in unsettled)
    assert world.is_whole("BTCUSD")


def test_where_the_market_rests_nothing_is_missing_and_nothing_is_asked(world: World) -> None:
    friday, weekend = datetime(2026, 11, 20, 21, 58, tzinfo=UTC), timedelta(days=2)

    world.run_priority(friday, bars="{backfill_days: 10}")
    closed = datetime(2026, 11, 13, 22, tzinfo=UTC)
    assert world.absent("EURUSD") == {"closed": [(closed, closed + weekend)]}
    asked = []
    for minutes in (5, 10, 15, 60 * 24, 60 * 47):
        calls = len(world.calls())
        world.run_priority(friday + timedelta(minutes=minutes), bars="{backfill_days: 10}")
        asked.append(len(world.calls()) - calls)

    # What closed at 22:00 is settled at 22:01:30; then only crypto is left.
    assert asked == [3, 1, 1, 1, 1]
    since = world.state("EURUSD")["wanted_since"]
    assert world.stored("EURUSD") == world.vendors("C:EURUSD", since, friday + weekend)
    assert max(world.stored("EURUSD")) == datetime(2026, 11, 20, 21, 55, tzinfo=UTC)


def test_an_illiquid_ticker_is_not_asked_again_for_what_it_does_not_have(world: World) -> None:
    world.add("T1USD")
    world.sandbox.fail = ["drop:X:T1USD@0.5"]

    world.drain()

    stored = world.stored("T1USD")
    assert 100 < len(stored) < 500
    assert len(world.calls()) == 1
    state = world.state("T1USD")
    wanted = (state["asked_until"] - state["wanted_since"]) // FIVE_MINUTES
    nothing = sum(((until - since) for since, until in world.absent("T1USD")["once"]), timedelta(0))
    assert nothing // FIVE_MINUTES == wanted - len(world.settled("T1USD"))

    assert world.drain().api_calls_used == 0


def test_a_ticker_without_any_bars_costs_two_calls_once(world: World) -> None:
    world.add("T1USD")
    world.sandbox.fail = ["drop:X:T1USD"]

    result = world.drain()

    assert (result.exit_code, result.bars.stored, len(world.calls())) == (0, 0, 2)
    assert world.state("T1USD")["source_minutes"] == 5
    assert world.drain().api_calls_used == 0


def test_rows_that_are_no_bars_are_asked_for_again_after_a_day(world: World) -> None:
    world.add("T1USD")
    world.sandbox.fail = ["zero:X:T1USD@0.1"]

    result = world.drain(max_seconds=TOO_LONG_SECONDS)

    assert len(world.calls()) == 1
    assert result.exit_code == 0
    assert world.absent("T1USD")["failed"]
    good = len(world.stored("T1USD"))
    assert 400 < good < 577
    assert world.drain(max_seconds=TOO_LONG_SECONDS).api_calls_used == 0

    # Still no better: once more, then not for another day.
    world.connection.execute("update assetbatch.bar_absences set noted_at = noted_at - interval '25 hours'")
    world.sandbox.fail = ["nan:X:T1USD"]
    world.drain(max_seconds=TOO_LONG_SECONDS)
    assert len(world.calls()) == 2
    assert len(world.stored("T1USD")) == good

    world.connection.execute("update assetbatch.bar_absences set noted_at = noted_at - interval '25 hours'")
    world.sandbox.fail = []
    world.drain(max_seconds=TOO_LONG_SECONDS)
    assert len(world.calls()) == 3
    assert "failed" not in world.absent("T1USD")
    assert world.is_whole("T1USD")


def test_what_a_plan_does_not_show_is_asked_for_under_another_one(world: World) -> None:
    world.add("T1USD")
    bars = "{backfill_days: 36}"
    world.before = lambda: setattr(world.sandbox, "fail", ["403-timeframe:/range/"])

    result = world.drain(max_seconds=TOO_LONG_SECONDS, bars=bars)

    assert result.exit_code == 0
    asked = len(world.calls())
    # The newest page, and what is before it.
    assert asked == 2
    assert world.absent("T1USD")["not_entitled"]
    assert world.drain(max_seconds=TOO_LONG_SECONDS, bars=bars).api_calls_used == 0

    world.before = lambda: None
    world.sandbox.fail = []
    world.environment = {"POLYGON_TIER": "developer"}
    world.drain(max_seconds=TOO_LONG_SECONDS, bars=bars)
    assert len(world.calls()) == asked + 1
    assert world.is_whole("T1USD")


# A backfill.


def test_a_backfill_that_is_refused_what_is_long_ago_goes_on_with_what_the_key_sees(world: World) -> None:
    world.add("BTCUSD")
    edge = world.see_two_years()
    until = edge + timedelta(days=5)

    result = world.backfill(edge - timedelta(days=3), until)

    stored = world.stored("BTCUSD")
    assert (result.exit_code, result.updated, result.bars.stored) == (0, ("BTCUSD",), len(stored))
    # Calendars may differ about the first days.
    assert edge <= min(stored) < edge + timedelta(days=3)
    assert stored == world.vendors("X:BTCUSD", min(stored), until)
    refused = world.absent("BTCUSD")["not_entitled"]
    assert (refused[0][0], refused[-1][1]) == (edge - timedelta(days=3), min(stored))


def test_a_refetch_that_is_refused_what_is_long_ago_goes_on_as_well(world: World) -> None:
    world.add("BTCUSD")
    edge = world.see_two_years()
    span = edge - timedelta(days=3), edge + timedelta(days=5)
    world.backfill(*span)
    before = world.stored("BTCUSD")
    world.connection.execute("update market_data.ohlcv_5m set close = close + 1")

    again = world.backfill(*span, refetch=True)

    assert (again.exit_code, again.updated) == (0, ("BTCUSD",))
    assert {one.new.ts for one in again.changed} == before.keys()
    assert world.stored("BTCUSD") == before


def test_a_page_whose_lease_was_lost_on_its_way_is_asked_for_again(world: World) -> None:
    world.add("BTCUSD")
    until = floor(datetime.now(UTC)) - timedelta(days=1)

    def lose() -> None:
        if len(world.calls()) == 1:
            world.connection.execute("update assetbatch.bar_state set token = null, leased_until = null")

    world.before = lose

    result = world.backfill(until - timedelta(hours=1), until)

    assert (result.exit_code, result.updated, result.deferred) == (0, ("BTCUSD",), ())
    assert (len(world.calls()), result.bars.stored, len(world.stored("BTCUSD"))) == (2, 12, 12)


@pytest.mark.parametrize("refetch", [False, True])
def test_a_backfill_asks_once_for_an_asset_whose_row_the_platform_has_deleted(world: World, refetch: bool) -> None:
    world.add("BTCUSD")
    until = floor(datetime.now(UTC)) - timedelta(days=1)
    assert world.backfill(until - timedelta(hours=1), until).bars.stored == 12
    world.connection.execute(
        "update assetbatch.bar_state set asked_until = clock_timestamp();"
        "delete from market_data.ohlcv_5m;"
        "delete from trading.symbols where symbol = 'BTCUSD'"
    )
    known = len(world.calls())

    def end() -> None:
        assert len(world.calls()) < known + 5

    world.before = end

    result = world.backfill(until - timedelta(hours=1), until, refetch=refetch)

    assert (result.exit_code, result.bars.stored, len(world.calls())) == (0, 0, known + 1)


def test_a_backfill_makes_no_call_for_bars_that_were_refused_within_the_hour_and_says_so(world: World) -> None:
    world.add("BTCUSD")
    until = floor(datetime.now(UTC)) - timedelta(days=1)
    span = until - timedelta(hours=1), until
    world.sandbox.fail = ["403-entitled:/range/"]
    refused = world.backfill(*span)
    world.sandbox.fail = []

    again = world.backfill(*span)

    assert (refused.api_calls_used, refused.exit_code) == (1, 3)
    assert (again.api_calls_used, again.exit_code, again.status) == (0, 3, RunStatus.FAILED)
    assert again.ended_by == Trouble(FailureKind.NOT_ENTITLED, refused.failed[0].error)
    assert again.deferred == ("BTCUSD",)


@pytest.mark.parametrize("word", ["403-timeframe", "403", "401", "429", "500", "404", "400", "garbage", "wrong-ticker"])
def test_newest_bars_that_are_refused_cost_few_calls(world: World, word: str) -> None:
    world.add("T1USD")
    world.sandbox.fail = [word if word == "wrong-ticker" else f"{word}:/range/"]

    result = world.drain(max_seconds=TOO_LONG_SECONDS, bars="{backfill_days: 1}")

    assert 1 <= len(world.calls()) <= 2
    assert world.stored("T1USD") == {}
    assert result.exit_code == (77 if word == "401" else 0)
    row = world.connection.execute("select * from assetbatch.bar_state where token is not null").fetchone()
    assert row is None


def test_two_drains_fetch_the_bars_of_each_asset_once(world: World, pool: ThreadPoolExecutor) -> None:
    symbols = [f"T{number}USD" for number in range(1, 13)]
    world.add(*symbols)

    results = list(pool.map(lambda _: world.drain(), range(2)))

    asked = sorted(call.path.split("/")[4] for call in world.calls())
    assert asked == sorted(f"X:{symbol}" for symbol in symbols)
    assert sum(result.bars.assets for result in results) == 12
    assert all(world.is_whole(symbol) for symbol in symbols[:2])


def test_bars_delay_no_item_of_the_queue(world: World) -> None:
    symbols = [f"T{number}USD" for number in range(1, 7)]
    world.add(*symbols)

    def put() -> None:
        if len(world.calls()) == 2:
            world.connection.execute(PUT, ["T6USD"])

    world.before = put
    result = world.drain(provider="{concurrency: 1}")

    kinds = ["/range/" in one.path for one in world.sandbox.arrivals]
    assert kinds == [True, True, False, True, True, True, True]
    assert result.updated == ("T6USD",)
    assert result.bars.assets == 6


def test_slots_of_a_limit_go_to_bars_when_the_queue_leaves_them(world: World) -> None:
    world.add("T1USD", "T2USD")
    limits = "{calls_per_minute: 1, window_seconds: 0.2, margin_seconds: 0}"

    assert world.drain(rate_limiting=limits).api_calls_used == 0  # auto: not where it could delay a price
    world.drain(rate_limiting=limits, bars="{enabled: true, backfill_days: 1}")

    assert len(world.calls()) == 2
    assert world.is_whole("T1USD")


def test_the_newest_page_is_one_page_however_much_is_checked_again(world: World) -> None:
    world.add("T1USD")
    bars = "{backfill_days: 36, recheck_hours: 8760}"
    world.drain(max_seconds=TOO_LONG_SECONDS, bars=bars)
    calls = len(world.calls())
    assert calls == 2
    world.make_due()
    world.connection.execute("update assetbatch.bar_state set rechecked_at = null")

    world.drain(max_seconds=TOO_LONG_SECONDS, bars=bars)

    assert len(world.calls()) == calls + 1
    assert world.is_whole("T1USD")


def test_the_end_of_day_mode_asks_once_a_day_for_each_asset(world: World) -> None:
    world.sandbox.plan = world.environment["POLYGON_TIER"] = "free"
    for number in range(7):
        now = TUESDAY + timedelta(hours=6 * number)
        # As many calls as assets in a run: those of the day's prices, then bars.
        while (result := world.run_priority(now, rate_limiting=QUICK)).deferred:
            assert result.api_calls_used == 3
        assert result.exit_code == 0
        assert world.run_priority(now, rate_limiting=QUICK).api_calls_used == 0

        day = now.replace(hour=0, minute=0) - (timedelta(days=1) if now.hour < 5 else timedelta(0))
        for symbol, ticker in ALL.items():
            state = world.state(symbol)
            assert state["asked_until"] == day
            assert world.stored(symbol) == world.vendors(ticker, state["wanted_since"], day)
            assert all(row["is_final"] for row in world.rows(symbol))
        days = (day - TUESDAY.replace(hour=0, minute=0)).days + 1
        assert len(world.calls()) == 3 * days
    assert days == 2


BARE = """
create schema trading; create schema market_data;
create table trading.symbols (id {id}, symbol text not null unique, metadata jsonb, updated_at timestamptz);
create table market_data.ohlcv_5m (
  symbol_id {key} not null, ts timestamptz not null, open {number} not null, high {number} not null,
  low {number} not null, close {number} not null check (close {check}), volume {number} not null, vwap {number},
  trades int, {more} primary key (symbol_id, ts)
)
"""
PLAIN = {
    "id": "bigint generated by default as identity primary key",
    "key": "bigint",
    "number": "numeric",
    "check": "> 0",
    "more": "",
}
FINAL = "is_final boolean, fetched_at timestamptz,"


@pytest.fixture
def platform(empty_database: str, sandbox: Sandbox, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make a world whose tables the platform made."""
    with open_database(empty_database) as connection:

        def make(**words: str) -> World:
            connection.execute(BARE.format_map(PLAIN | words))
            schema.migrate(connection)
            return World(connection, empty_database, sandbox, tmp_path)

        yield make


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"more": FINAL},
        {"number": "numeric(20,8)"},
        {"id": "uuid primary key default gen_random_uuid()", "key": "uuid"},
        {"number": "double precision"},
    ],
    ids=["bare", "final", "scale", "uuid", "double"],
)
def test_the_platforms_own_table_is_used_as_it_is(platform: Callable[..., World], words: dict[str, str]) -> None:
    world = platform(**words)
    world.add("T1USD")

    first = world.drain()
    before = {row["ts"]: row for row in world.rows("T1USD")}
    world.make_due()
    world.connection.execute("update assetbatch.bar_state set rechecked_at = null")
    world.drain()

    assert first.bars.stored == len(before)
    settled = [row["ts"] for row in before.values()][:-2]
    after = {row["ts"]: row for row in world.rows("T1USD")}
    assert {ts: before[ts] for ts in settled} == {ts: after[ts] for ts in settled}
    assert len(world.calls()) == 2
    vendors = world.wanted("X:T1USD")
    if words.get("number") == "double precision":
        vendors = {ts: tuple(map(float, bar)) for ts, bar in vendors.items()}
    assert world.settled("T1USD") == vendors


def test_bars_of_the_platforms_own_are_taken_over(platform: Callable[..., World]) -> None:
    world = platform(more=FINAL)
    world.add("T1USD")
    last = floor(datetime.now(UTC) - timedelta(hours=2))
    world.connection.execute(
        "insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume)"
        " select id, t, 1, 1, 1, 1, 1 from trading.symbols, generate_series(%s::timestamptz, %s, '5 minutes') t",
        [last - timedelta(hours=5), last],
    )

    world.drain()

    assert world.is_whole("T1USD")
    assert all(row["is_final"] for row in world.rows("T1USD") if row["ts"] < world.state("T1USD")["asked_until"])


def test_a_bar_that_the_platform_refuses_spoils_no_other_and_is_left_for_a_day(
    platform: Callable[..., World],
) -> None:
    world = platform(check="> 0 and extract(hour from ts at time zone 'UTC') <> 3")
    world.add("T1USD")

    world.drain(max_seconds=TOO_LONG_SECONDS)

    assert len(world.calls()) == 1
    vendors = world.wanted("X:T1USD")
    assert world.settled("T1USD") == {ts: bar for ts, bar in vendors.items() if ts.hour != 3} != vendors
    assert world.drain(max_seconds=TOO_LONG_SECONDS).api_calls_used == 0


def test_an_asset_that_the_platform_has_deleted_is_not_asked_for(world: World) -> None:
    world.add("T1USD", "T2USD")
    world.drain()
    world.connection.execute("delete from market_data.ohlcv_5m where true")
    world.connection.execute("delete from trading.symbols where symbol = 'T1USD'")
    world.make_due()
    del world.sandbox.arrivals[:]

    result = world.drain(max_seconds=TOO_LONG_SECONDS)

    assert result.exit_code == 0
    assert len([call for call in world.calls() if "T1USD" in call.path]) <= 1
    assert world.stored("T1USD") == {}
    assert world.is_whole("T2USD")
    assert world.connection.execute("select * from trading.symbols where symbol = 'T1USD'").fetchall() == []


@pytest.fixture
def partitioned(empty_database: str, sandbox: Sandbox, tmp_path: Path) -> Iterator[World]:
    with open_database(empty_database) as connection:
        schema.migrate(connection, partition_bars=True)
        yield World(connection, empty_database, sandbox, tmp_path)


def months(world: World) -> list[str]:
    rows = world.connection.execute(
        "select right(c.relname, 6) as month from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " where i.inhparent = 'market_data.ohlcv_5m'::regclass order by 1"
    )
    return [row["month"] for row in rows]


def a_month(months_from_now: int) -> str:
    now = datetime.now(UTC)
    month = now.year * 12 + now.month - 1 + months_from_now
    return f"{month // 12}{month % 12 + 1:02}"


def test_months_are_made_ahead_and_dropped_when_they_are_not_kept(partitioned: World) -> None:
    world = partitioned
    world.add("T1USD")
    since = datetime.now(UTC) - timedelta(days=70)
    world.drain(bars="{backfill_days: 70}")
    assert len(world.stored("T1USD")) >= 70 * 288
    assert months(world)[0] == f"{since:%Y%m}"
    assert months(world)[-1] == a_month(3)
    assert len(months(world)) >= 6

    world.make_due()
    calls = len(world.calls())
    world.drain(bars="{backfill_days: 70, retention_months: 1}")

    assert months(world)[0] == a_month(-1)
    assert f"{min(world.stored('T1USD')):%Y%m%d}" == a_month(-1) + "01"
    assert world.is_whole("T1USD")
    assert len(world.calls()) == calls + 1  # what was dropped is not fetched again


def test_months_are_made_for_whoever_wants_the_oldest_bars(partitioned: World) -> None:
    world = partitioned
    world.add("T1USD")
    world.drain(bars="{backfill_days: 1}")
    world.add("T2USD")
    world.connection.execute(
        "insert into assetbatch.bar_state (symbol, wanted_since, asked_until, asked_at)"
        " select 'T2USD', wanted_since - interval '33 days', asked_until, now() from assetbatch.bar_state"
    )
    world.connection.execute(
        "update assetbatch.bar_state set asked_at = null, asked_until = asked_until"
        " - interval '5 minutes' where symbol = 'T1USD'"
    )

    world.drain(max_seconds=TOO_LONG_SECONDS, bars="{backfill_days: 1}", provider="{concurrency: 1}")

    assert world.is_whole("T1USD")
    assert world.is_whole("T2USD")


def test_the_newest_bars_come_page_by_page_where_pages_are_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("T1USD")
    monkeypatch.setattr(aggregates, "MOST_BASE_MINUTES", 600)

    world.drain(max_seconds=TOO_LONG_SECONDS, bars="{backfill_days: 1}")

    assert 3 <= len(world.calls()) <= 4
    assert world.is_whole("T1USD")


def test_a_list_of_assets_that_are_due_is_followed_by_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_catalogue, "LIST_SIZE", 2)
    world.add(*(f"T{number}USD" for number in range(1, 6)))

    assert world.drain(bars="{backfill_days: 1}").bars.assets == 5


def test_an_outage_that_bars_meet_costs_no_item_an_attempt(world: World) -> None:
    world.add("T1USD", "T2USD", "T3USD", "T4USD")
    world.connection.execute(PUT, ["T1USD"])
    world.sandbox.fail = ["500"]

    result = world.drain(bars="{enabled: true}", rate_limiting=QUICK)

    assert result.exit_code == 69
    assert world.calls()
    row = world.connection.execute("select state, attempts from assetbatch.queue").fetchone()
    assert row == {"state": "queued", "attempts": 0}


def test_months_are_made_by_two_at_once(empty_database: str, pool: ThreadPoolExecutor) -> None:
    with open_database(empty_database) as one, open_database(empty_database) as other:
        schema.migrate(one, partition_bars=True)
        with one.transaction():
            one.execute(KEEP_PARTITIONS, {"since": TUESDAY - timedelta(days=90), "kept_since": None})
            waiting = pool.submit(
                other.execute, KEEP_PARTITIONS, {"since": TUESDAY - timedelta(days=120), "kept_since": None}
            )
            wait_until(lambda: one.execute("select 1 from pg_locks where not granted").fetchone())
        waiting.result(timeout=10)
        made = one.execute("select to_regclass('market_data.ohlcv_5m_202607') is not null as first_month").fetchone()
        assert made == {"first_month": True}


# What the table does not take

MONTHLY = """
create schema trading;
create table trading.symbols (id bigint generated by default as identity primary key, symbol text not null unique,
  metadata jsonb not null default '{{}}', updated_at timestamptz not null default now());
create schema market_data;
create table market_data.ohlcv_5m (
  symbol_id bigint not null, ts timestamptz not null, open numeric not null, high numeric not null,
  low numeric not null, close numeric not null, volume numeric not null, vwap numeric, trades int,
  is_final boolean, fetched_at timestamptz, primary key (symbol_id, ts)
) partition by range (ts);
create table market_data.of_old partition of market_data.ohlcv_5m for values from ('2020-01-01Z') to ('{until}')
"""
NEW_PARTITION = "create table market_data.of_new partition of market_data.ohlcv_5m for"
NO_PARTITION = 'no partition of relation "ohlcv_5m" found for row'


@pytest.fixture
def monthly(empty_database: str, sandbox: Sandbox, tmp_path: Path) -> Iterator[Callable[[datetime], World]]:
    """Make a world whose platform has partitions of its own, up to a time."""
    with open_database(empty_database) as connection:

        def make(until: datetime) -> World:
            connection.execute(MONTHLY.format(until=until))
            schema.migrate(connection)
            return World(connection, empty_database, sandbox, tmp_path)

        yield make


def errors(world: World) -> dict[str, str]:
    rows = world.connection.execute("select symbol, error_kind from assetbatch.bar_state where error_kind is not null")
    return {row["symbol"]: row["error_kind"] for row in rows}


def refused(world: World) -> dict[str, tuple[int, str]]:
    return {one.symbol: (one.bars, one.words) for one in world.connection.answer(bar_absences.refused())}


def test_a_table_without_this_months_partition_costs_one_call_and_is_told_until_it_is_mended(
    monthly: Callable[[datetime], World],
) -> None:
    until = floor(datetime.now(UTC) - timedelta(days=40))
    world = monthly(until)
    world.add("T1USD", "T2USD")

    first = world.drain(max_seconds=TOO_LONG_SECONDS)

    (call,) = world.calls()
    assert "T1USD" in call.path
    assert (first.exit_code, first.bars.stored, world.stored("T1USD")) == (0, 0, {})
    state = world.state("T1USD")
    assert (state["error_kind"], state["error"]) == ("refused_by_table", NO_PARTITION)
    assert (state["watermark"], state["asked_until"]) == (None, None)
    assert 0 < (state["retry_at"] - datetime.now(UTC)).total_seconds() <= 3600
    (warning,) = first.warnings
    number, words = refused(world)["T1USD"]
    assert number == pytest.approx(2 * 288, abs=2)
    assert warning == f"{number} bars of T1USD were refused by market_data.ohlcv_5m: {words}"

    # Nobody asks before one asset's turn comes again; all that time it is told.
    again = world.drain(max_seconds=TOO_LONG_SECONDS)
    assert (again.api_calls_used, again.warnings) == (0, first.warnings)

    world.connection.execute(f"{NEW_PARTITION} values from ('{until}') to (maxvalue)")
    world.make_due()
    mended = world.drain(max_seconds=TOO_LONG_SECONDS)
    assert mended.warnings == ()
    assert (errors(world), refused(world)) == ({}, {})
    assert world.is_whole("T1USD")
    assert world.is_whole("T2USD")


def test_of_a_page_the_bars_are_stored_that_have_a_partition(monthly: Callable[[datetime], World]) -> None:
    end = floor(datetime.now(UTC) - timedelta(hours=11))
    world = monthly(end)
    world.add("T1USD")

    result = world.drain(max_seconds=TOO_LONG_SECONDS)

    assert result.exit_code == 0
    assert world.stored("T1USD") == {ts: bar for ts, bar in world.wanted("X:T1USD").items() if ts < end}
    assert world.state("T1USD")["watermark"] == end - FIVE_MINUTES
    number, words = refused(world)["T1USD"]
    # The open bar, too, and perhaps one that is not settled.
    settled = len(world.wanted("X:T1USD")) - len(world.stored("T1USD"))
    assert number - settled in {1, 2}
    assert words == NO_PARTITION
    assert world.drain(max_seconds=TOO_LONG_SECONDS).api_calls_used == 0

    # The newest are asked for from the last one that is there; of these the table takes none.
    world.make_due()
    world.drain(max_seconds=TOO_LONG_SECONDS)
    assert errors(world) == {"T1USD": "refused_by_table"}
    assert world.state("T1USD")["watermark"] == end - FIVE_MINUTES


def test_old_months_that_the_table_does_not_have_hold_up_no_newest_bars(monthly: Callable[[datetime], World]) -> None:
    world = monthly(datetime(2020, 2, 1, tzinfo=UTC))
    begin = floor(datetime.now(UTC) - timedelta(hours=9))
    world.connection.execute(f"{NEW_PARTITION} values from ('{begin}') to (maxvalue)")
    world.add("T1USD", "T2USD")

    world.drain(max_seconds=TOO_LONG_SECONDS)

    assert len(world.calls()) == 2
    for symbol in ("T1USD", "T2USD"):
        assert world.settled(symbol) == {ts: bar for ts, bar in world.wanted(f"X:{symbol}").items() if ts >= begin}
    assert errors(world) == {}
    assert refused(world).keys() == {"T1USD", "T2USD"}
    # Asked again after a day, and taken.
    world.connection.execute(
        "create table market_data.of_past partition of market_data.ohlcv_5m"
        f" for values from ('2020-02-01Z') to ('{begin}')"
    )
    assert world.drain(max_seconds=TOO_LONG_SECONDS).api_calls_used == 0
    world.connection.execute("update assetbatch.bar_absences set noted_at = noted_at - interval '25 hours'")
    assert world.drain(max_seconds=TOO_LONG_SECONDS).warnings == ()
    assert world.is_whole("T1USD")
    assert refused(world) == {}


TRIGGER = """
create function market_data.guard() returns trigger language plpgsql as $$
begin {body} end $$;
create trigger guard before insert on market_data.ohlcv_5m for each row execute function market_data.guard()
"""
ONE_ALONE = "new.symbol_id = (select id from trading.symbols where symbol = 'T1USD')"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (TRIGGER.format(body=f"if {ONE_ALONE} then raise 'not here'; end if; return new;"), "not here"),
        (
            TRIGGER.format(body=f"if {ONE_ALONE} then raise 'not now' using errcode = 'UE042'; end if; return new;"),
            "not now",
        ),
        (TRIGGER.format(body=f"if {ONE_ALONE} then perform 1 / 0; end if; return new;"), "division by zero"),
        (TRIGGER.format(body=f"if {ONE_ALONE} then perform f(1); end if; return new;"), "function f(integer) does not"),
        (TRIGGER.format(body=f"if {ONE_ALONE} then return null; end if; return new;"), "a trigger, a rule or"),
        ("alter table market_data.ohlcv_5m add constraint sane check (close < 0) not valid", '"sane"'),
    ],
    ids=["raises", "raises-its-own", "fails", "is-broken", "swallows", "check"],
)
def test_what_is_refused_of_one_asset_costs_it_one_call_and_the_others_none(
    world: World, rule: str, words: str
) -> None:
    world.add("T1USD", "T2USD")
    world.connection.execute(rule)

    result = world.drain(max_seconds=TOO_LONG_SECONDS)

    assert len(world.calls()) == 2
    assert result.exit_code == 0
    assert world.stored("T1USD") == {}
    assert errors(world)["T1USD"] == "refused_by_database"
    assert words in world.state("T1USD")["error"]
    assert any("T1USD" in one and words in one for one in result.warnings)
    assert "sane" in words or world.is_whole("T2USD")
    assert world.drain(max_seconds=TOO_LONG_SECONDS).api_calls_used == 0


@pytest.mark.parametrize(
    ("privileges", "more", "words"),
    [
        ("select, update", "", "permission denied for table ohlcv_5m"),
        (
            "select, insert, update",
            "alter table market_data.ohlcv_5m drop column vwap, add vwap numeric generated always as (close) stored",
            'cannot insert a non-DEFAULT value into column "vwap"',
        ),
    ],
    ids=["privilege", "generated"],
)
def test_a_table_that_cannot_be_written_stops_after_the_first_proof(
    world: World, privileges: str, more: str, words: str
) -> None:
    world.add("T1USD", "T2USD")
    world.connection.execute(f"drop role if exists jobs; create role jobs login; {more}")
    world.connection.execute(schema.grants("jobs"))
    world.connection.execute(
        f"revoke all on market_data.ohlcv_5m from jobs; grant {privileges} on market_data.ohlcv_5m to jobs"
    )
    world.database += " options='-c role=jobs'"
    try:
        result = world.drain(max_seconds=TOO_LONG_SECONDS)
    finally:
        world.connection.execute("drop owned by jobs; drop role jobs")

    assert len(world.calls()) == 1
    assert result.exit_code == 0
    assert errors(world) == {"T1USD": "refused_by_table"}
    assert words in result.warnings[0]


def test_a_backfill_that_the_table_refuses_ends_with_3_after_one_call(monthly: Callable[[datetime], World]) -> None:
    world = monthly(datetime(2020, 2, 1, tzinfo=UTC))
    world.add("BTCUSD", "ETHUSD")
    now = datetime.now(UTC)
    config = world.configure()
    foreseen = backfill.foresee(
        config, world.connection, symbols=None, since=now - timedelta(days=60), until=now, refetch=False
    )

    result = backfill.backfill(Start(config, world.connection, "test", no_stop()), foreseen, refetch=False)

    assert (result.exit_code, len(world.calls())) == (3, 1)
    assert result.ended_by == Trouble(FailureKind.REFUSED_BY_TABLE, NO_PARTITION)
    assert [one.symbol for one in result.failed] == ["BTCUSD"]
    assert world.stored("BTCUSD") == {}


@pytest.mark.parametrize("refetch", [False, True])
def test_a_backfill_asks_at_once_for_what_the_table_has_refused(
    monthly: Callable[[datetime], World], *, refetch: bool
) -> None:
    until = floor(datetime.now(UTC) - timedelta(hours=11))
    world = monthly(until)
    world.add("T1USD", "T2USD")
    assert len(world.drain(max_seconds=TOO_LONG_SECONDS).warnings) == 1
    world.connection.execute(f"{NEW_PARTITION} values from ('{until}') to (maxvalue)")
    config = world.configure()
    foreseen = backfill.foresee(config, world.connection, symbols=None, since=None, until=None, refetch=refetch)

    result = backfill.backfill(Start(config, world.connection, "test", no_stop()), foreseen, refetch=refetch)

    assert (result.exit_code, result.warnings, foreseen.calls) == (0, (), 2)
    assert refused(world) == {}
    assert world.is_whole("T1USD")


def test_a_backfill_asks_once_for_what_the_table_refuses_still(monthly: Callable[[datetime], World]) -> None:
    until = floor(datetime.now(UTC) - timedelta(hours=11))
    world = monthly(until)
    world.add("T1USD")
    world.drain(max_seconds=TOO_LONG_SECONDS)
    before, noted = len(world.calls()), refused(world)
    config = world.configure()
    foreseen = backfill.foresee(config, world.connection, symbols=None, since=None, until=None, refetch=False)

    result = backfill.backfill(Start(config, world.connection, "test", no_stop()), foreseen, refetch=False)

    assert len(world.calls()) == before + 1
    assert NO_PARTITION in result.warnings[0]
    assert refused(world).keys() == noted.keys()
    # The jobs go by what was found anew.
    assert world.drain(max_seconds=TOO_LONG_SECONDS).api_calls_used == 0


def test_a_bar_that_the_table_refuses_for_good_fails_the_first_backfill_alone(world: World) -> None:
    world.add("T1USD")
    bad = floor(datetime.now(UTC) - timedelta(hours=11))
    world.connection.execute(f"alter table market_data.ohlcv_5m add constraint sane check (ts <> '{bad}')")
    config = world.configure()
    ends = []
    for _ in range(3):
        span = {"since": bad, "until": bad + FIVE_MINUTES}
        foreseen = backfill.foresee(config, world.connection, symbols=None, refetch=False, **span)
        result = backfill.backfill(Start(config, world.connection, "test", no_stop()), foreseen, refetch=False)
        ends.append((foreseen.calls, result.exit_code, '"sane"' in result.warnings[0]))

    assert ends == [(1, 3, True), (1, 0, True), (1, 0, True)]


def test_an_asset_whose_row_another_transaction_keeps_is_put_off_and_the_others_are_stored(world: World) -> None:
    world.add("T1USD", "T2USD")
    with open_database(world.database) as platform, platform.transaction():
        platform.execute("select from trading.symbols where symbol = 'T1USD' for update")

        result = world.drain(max_seconds=30)

    assert result.exit_code == 0
    assert errors(world) == {"T1USD": "locked"}
    assert world.is_whole("T2USD")
    # Its call was made, and is told to the ledger.
    outcomes = "select count(*) as calls from assetbatch.api_calls where symbol = 'T1USD' and outcome = 'ok'"
    assert world.connection.execute(outcomes).fetchone() == {"calls": 1}

    world.make_due()
    assert world.drain(max_seconds=TOO_LONG_SECONDS).exit_code == 0
    assert errors(world) == {}
    assert world.is_whole("T1USD")


def test_what_a_trigger_raises_at_the_commit_costs_its_bars_alone(world: World) -> None:
    world.add("T1USD", "T2USD")
    world.connection.execute(
        """
        create function market_data.guard() returns trigger language plpgsql as $$
        begin
          if to_char(new.ts at time zone 'UTC', 'HH24:MI') = '03:35' then
            raise exception 'not at that time' using errcode = '45000';
          end if;
          return new;
        end $$;
        create constraint trigger guard after insert or update on market_data.ohlcv_5m
          deferrable initially deferred for each row execute function market_data.guard();
        """
    )

    result = world.drain(max_seconds=TOO_LONG_SECONDS)

    assert result.exit_code == 0
    assert {words for _, words in refused(world).values()} == {"not at that time"}
    for symbol in ("T1USD", "T2USD"):
        missing = world.wanted(f"X:{symbol}").keys() - world.stored(symbol).keys()
        assert {(ts.hour, ts.minute) for ts in missing} == {(3, 35)}


@pytest.mark.parametrize("job", ["backfill", "drain-queue"])
def test_without_a_limit_the_next_pages_are_under_way_while_one_is_stored(
    world: World, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = [f"T{number}USD" for number in range(1, 8)]
    world.add(*symbols)
    under_way: list[int] = []
    begin = Calls.begin

    def noted(calls: Calls, *arguments: Any, **options: Any) -> None:
        begin(calls, *arguments, **options)
        under_way.append(len(calls.under_way))

    monkeypatch.setattr(Calls, "begin", noted)
    if job == "backfill":
        config = world.configure()
        foreseen = backfill.foresee(config, world.connection, symbols=None, since=None, until=None, refetch=False)
        result = backfill.backfill(Start(config, world.connection, "test", no_stop()), foreseen, refetch=False)
    else:
        result = world.drain(max_seconds=TOO_LONG_SECONDS)

    assert (result.exit_code, len(world.calls())) == (0, len(symbols))
    assert all(len(world.stored(symbol)) > 500 for symbol in symbols)
    # One, until the table has taken bars.
    assert under_way[:2] == [1, 1]
    assert 1 < max(under_way) <= MOST_AT_ONCE
