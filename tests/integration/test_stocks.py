"""Stocks and indices beside currencies, in process: one queue, one budget, plans of their own."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

from assetbatch.database.rate_limit import RateLimiter, Slot
from assetbatch.jobs import forecast, probe
from assetbatch.model import AssetType
from assetbatch.plans import Mode
from assetbatch.report import reading
from assetbatch.sandbox.actions import Listing
from assetbatch.sandbox.catalogue import KNOWN
from assetbatch.sandbox.server import Sandbox
from tests import world as worlds
from tests.conftest import API_KEY
from tests.world import DAY, HOUR, MINUTE, NO_ASSETS, add_assets, no_stop

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection

# A Tuesday, 10:30 in New York: all trade.
OPEN = datetime(2026, 11, 17, 15, 30, tzinfo=UTC)
NEW_YORKS_CLOSE = datetime(2026, 11, 17, 21, tzinfo=UTC)
WEDNESDAY = datetime(2026, 11, 18, 12, tzinfo=UTC)
GROUPED = re.compile(r"/v2/aggs/grouped/locale/(?:global|us)/market/([a-z]+)/(\d{4}-\d\d-\d\d)\?.*")
OF_TICKER = re.compile(r"/v2/aggs/ticker/([^/]+)/range/1/day/(\d{4}-\d\d-\d\d)/.*")
# What is asked for all stocks together once a day, or a week.
UPKEEP = ("/v1/marketstatus/upcoming", "/stocks/v1/splits")
QUICK = "{window_seconds: 0.05, margin_seconds: 0}"


@dataclass
class World(worlds.World):
    """A world whose quotes alone are looked at, unless a test says more."""

    KEYS: ClassVar = {"rate_limiting": QUICK, "bars": "{enabled: false}", "batch": NO_ASSETS}

    now: datetime = WEDNESDAY

    def plan(self, currencies: str, stocks: str = "free", indices: str = "free") -> str:
        """Let the key be on these plans; return the section that says so."""
        self.sandbox.plan, self.sandbox.stocks_plan, self.sandbox.indices_plan = currencies, stocks, indices
        self.environment["POLYGON_TIER"] = currencies
        return f"{{plans: {{stocks: {stocks}, indices: {indices}}}}}"

    def asked(self) -> list[str]:
        """Tell what was asked for beside upkeep, `stocks 2026-11-16` for a day; and forget it."""
        paths, self.sandbox.arrivals[:] = [unquote(one.path) for one in self.sandbox.arrivals], []
        paths = [path for path in paths if not path.startswith(UPKEEP)]
        shorter = (GROUPED.sub(r"\1 \2", path) for path in paths)
        return [OF_TICKER.sub(r"\1 \2", path) for path in shorter]

    def prices(self) -> dict[str, dict[str, Any]]:
        rows = self.connection.execute("select symbol, metadata -> 'last_update' as last from trading.symbols")
        return {row["symbol"]: row["last"] for row in rows if row["last"]}

    def vendors(self, path: str) -> dict[str, Any]:
        """Ask the vendor by hand."""
        request = Request(self.sandbox.url + path, headers={"Authorization": f"Bearer {API_KEY}"})
        with urlopen(request) as answer:
            found: dict[str, Any] = json.loads(answer.read(), parse_float=Decimal, parse_int=Decimal)
        self.sandbox.arrivals.clear()
        return found


@pytest.fixture
def world(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, database, sandbox, tmp_path)


def of_type(kind: AssetType) -> list[str]:
    return [ticker for ticker, known in KNOWN.items() if known.market is kind]


# --- Finished days


def test_a_free_keys_finished_days_of_three_markets_cost_three_calls_and_then_none(world: World) -> None:
    provider = world.plan("free")
    tickers = [*of_type(AssetType.FOREX), *of_type(AssetType.CRYPTO), *of_type(AssetType.STOCKS)]
    # What is traded over the counter is in no day that is asked for.
    tickers.remove("TCEHY")
    add_assets(world.connection, *tickers)

    world.enqueue(provider=provider)
    first = world.drain(provider=provider)

    assert sorted(world.asked()) == ["crypto 2026-11-17", "fx 2026-11-17", "stocks 2026-11-17"]
    assert first.failed == ()
    assert len(world.prices()) == len(tickers)
    row = next(
        row
        for row in world.vendors("/v2/aggs/grouped/locale/us/market/stocks/2026-11-17")["results"]
        if row["T"] == "KIMpL"
    )
    kim = world.prices()["KIMpL"]
    assert (kim["last_price"], kim["daily_open"]) == (row["c"], row["o"])
    assert moment(kim) == NEW_YORKS_CLOSE

    world.now += HOUR
    world.enqueue(provider=provider)
    world.drain(provider=provider)

    assert world.asked() == []


def test_todays_stocks_are_asked_for_once_the_day_is_over_in_new_york(world: World) -> None:
    provider = world.plan("free")
    add_assets(world.connection, "AAPL")
    # Midnight of UTC has passed, New York's has not.
    world.now = datetime(2026, 11, 18, 3, tzinfo=UTC)

    world.enqueue(provider=provider)
    world.drain(provider=provider)
    assert world.asked() == ["stocks 2026-11-16"]

    world.now = datetime(2026, 11, 18, 5, 1, tzinfo=UTC)
    world.enqueue(provider=provider)
    world.drain(provider=provider)
    assert world.asked() == ["stocks 2026-11-17"]


def test_indices_cost_a_call_each_and_those_that_the_plan_lacks_are_asked_for_weekly(world: World) -> None:
    provider = world.plan("free")
    tickers = of_type(AssetType.INDICES)
    add_assets(world.connection, *tickers)

    world.enqueue(provider=provider)
    done = world.drain(provider=provider)

    assert sorted(world.asked()) == sorted(f"{ticker} 2026-11-17" for ticker in tickers)
    assert set(world.prices()) == {"COMP", "DJI", "RUT"}
    assert moment(world.prices()["COMP"]) == NEW_YORKS_CLOSE
    assert done.dead == ()

    for _ in range(3):
        world.now += DAY
        enqueued = world.enqueue(provider=provider).enqueued
        assert enqueued is not None
        assert (enqueued.enqueued, enqueued.fresh) == (3, len(tickers) - 3)
        world.drain(provider=provider)
    days = Counter(asked.partition(" ")[0] for asked in world.asked())
    # Thursday, Friday and Saturday ask for Wednesday, Thursday and Friday.
    assert days == {"I:COMP": 3, "I:DJI": 3, "I:RUT": 3}

    world.now += 5 * DAY
    world.enqueue(provider=provider)
    world.drain(provider=provider)
    assert {asked.partition(" ")[0] for asked in world.asked()} == set(tickers)


def test_without_a_limit_each_call_for_an_indexs_day_takes_the_pace_of_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = world.plan("free")
    tickers = of_type(AssetType.INDICES)
    add_assets(world.connection, *tickers)
    acquire, taken = RateLimiter.acquire, list[int]()

    def noted(limiter: RateLimiter, **given: Any) -> Slot:
        slot = acquire(limiter, **given)
        taken.append(slot.calls)
        return slot

    monkeypatch.setattr(RateLimiter, "acquire", noted)

    world.enqueue(provider=provider, rate_limiting=worlds.UNLIMITED)
    world.drain(provider=provider, rate_limiting=worlds.UNLIMITED)

    assert len(world.asked()) == len(tickers)
    assert set(taken) == {1}


def test_an_index_beside_others_in_a_priority_list(world: World) -> None:
    provider = world.plan("free")
    assets = (
        "{priority_assets: [{symbol: SPX, polygon_ticker: 'I:SPX', asset_type: indices},"
        " {symbol: DJI, polygon_ticker: 'I:DJI', asset_type: indices},"
        " {symbol: BRK.B, polygon_ticker: BRK.B, asset_type: stocks},"
        " {symbol: EURUSD, polygon_ticker: 'C:EURUSD', asset_type: forex}], secondary_assets: []}"
    )

    result = world.prioritise(provider=provider, batch=assets)

    assert world.asked() == ["I:SPX 2026-11-17", "I:DJI 2026-11-17", "stocks 2026-11-17", "fx 2026-11-17"]
    assert set(result.updated) == {"DJI", "BRK.B", "EURUSD"}
    assert [(one.symbol, one.kind.value) for one in result.failed] == [("SPX", "not_entitled")]
    again = world.prioritise(provider=provider, batch=assets)
    assert (world.asked(), again.updated) == ([], ())


def test_a_day_that_came_before_a_split_is_asked_for_once_more(world: World) -> None:
    provider = world.plan("free")
    add_assets(world.connection, "AAPL", "MSFT")
    # Half past midnight in New York: the vendor adjusts by four.
    world.now = datetime(2026, 11, 18, 5, 30, tzinfo=UTC)
    world.enqueue(provider=provider)
    world.drain(provider=provider)
    before = world.prices()
    assert world.asked() == ["stocks 2026-11-17"]

    world.now = WEDNESDAY
    world.sandbox.listing = Listing(splits=["AAPL:4:2026-11-18"])
    world.connection.execute("update assetbatch.split_list set ask_at = 'epoch'")
    world.drain(provider=provider)
    for _ in range(2):
        world.now += HOUR
        world.enqueue(provider=provider)
        world.drain(provider=provider)

    assert world.asked() == ["stocks 2026-11-17"]
    after = world.prices()
    vendors = world.vendors("/v2/aggs/grouped/locale/us/market/stocks/2026-11-17")["results"]
    (apple,) = (row for row in vendors if row["T"] == "AAPL")
    assert (after["AAPL"]["last_price"], after["AAPL"]["daily_high"]) == (apple["c"], apple["h"])
    assert abs(after["AAPL"]["last_price"] * 4 - before["AAPL"]["last_price"]) < 1
    assert after["MSFT"] == before["MSFT"]


def test_a_holiday_that_is_on_no_list_leaves_an_index_its_price_of_the_day_before(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    assets = "{priority_assets: [{symbol: DJI, polygon_ticker: 'I:DJI', asset_type: indices}], secondary_assets: []}"
    with Sandbox(key=API_KEY, holidays=[date(2026, 11, 17)]) as sandbox:
        world = World(connection, database, sandbox, tmp_path)
        provider = world.plan("free")
        results = []
        for _ in range(3):
            results.append(world.prioritise(provider=provider, batch=assets))
            world.now += 5 * MINUTE

        assert world.asked() == ["I:DJI 2026-11-17", "I:DJI 2026-11-16"]
    assert [result.failed for result in results] == [()] * 3
    assert moment(world.prices()["DJI"]) == datetime(2026, 11, 16, 21, tzinfo=UTC)
    judged = worlds.judged(connection, world.configure(provider=provider, batch=assets), worlds.overview(world.now))
    assert [(group.state, group.ill) for group in judged.groups] == [("end_of_day", False)]


# --- Live


def test_five_hundred_mixed_assets_of_four_types_take_two_calls_exact_to_the_digit(world: World) -> None:
    provider = world.plan("starter", "starter", "starter")
    world.now = OPEN
    known = [ticker for ticker in KNOWN if ticker != "ZVZZT"]
    tickers = [*known, *(f"ZZT{number}" for number in range(1, 501 - len(known)))]
    add_assets(world.connection, *tickers)

    world.enqueue(provider=provider)
    result = world.drain(provider=provider)

    asked = world.asked()
    assert [urlsplit(path).path for path in asked] == ["/v3/snapshot"] * 2
    assert len(result.updated) == len(tickers) == 500
    stored = world.prices()
    for path in asked:
        for row in world.vendors(path)["results"]:
            told = stored[row["ticker"].rpartition(":")[2]]
            assert (told["last_price"], moment(told)) == priced(row)
            session = row["session"]
            for figure in ("open", "high", "low", "close"):
                own = session.get(figure) or None
                assert told[f"daily_{figure}"] == own
    # Starter's answers have no last trade, and are 15 minutes late.
    assert moment(stored["AAPL"]) <= OPEN - 15 * MINUTE
    judged = worlds.judged(world.connection, world.configure(provider=provider), worlds.overview(OPEN + MINUTE))
    assert {(group.asset_type, group.state) for group in judged.groups} == {(one.value, "fresh") for one in AssetType}


def moment(last_update: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(last_update["timestamp"])


def priced(row: dict[str, Any]) -> tuple[Decimal, datetime]:
    """The price of a row of a unified snapshot, and when it was, by the rules of each type."""
    match row["type"]:
        case "fx":
            found = row["last_quote"]["bid"], row["last_quote"]["last_updated"]
        case "crypto":
            trade = row["last_trade"]
            found = trade["price"], trade.get("participant_timestamp") or trade["last_updated"]
        case "stocks":
            found = row["last_minute"]["close"], row["last_minute"]["last_updated"]
        case _:
            found = row["value"], row["last_updated"]
    seconds, rest = divmod(int(found[1]), 1_000_000_000)
    return found[0], datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def test_a_market_is_asked_for_as_its_own_plan_says(world: World) -> None:
    provider = world.plan("starter")
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "AAPL", "I:DJI")

    world.enqueue(provider=provider)
    result = world.drain(provider=provider)

    snapshot, *days = world.asked()
    assert parse_qs(urlsplit(snapshot).query)["ticker.any_of"] == ["C:EURUSD"]
    assert sorted(days) == ["I:DJI 2026-11-16", "stocks 2026-11-16"]
    assert set(result.updated) == {"EURUSD", "AAPL", "DJI"}
    status = reading.read(world.configure(provider=provider), world.connection)
    assert status.prices.mode is Mode.LIVE


def test_what_a_stocks_plan_promises_and_the_key_is_refused_comes_as_finished_days(world: World) -> None:
    world.plan("starter")
    provider = "{plans: {stocks: starter}}"
    world.now = OPEN
    assets = (
        "{priority_assets: [{symbol: EURUSD, polygon_ticker: 'C:EURUSD', asset_type: forex},"
        " {symbol: AAPL, polygon_ticker: AAPL, asset_type: stocks},"
        " {symbol: KIMpL, polygon_ticker: KIMpL, asset_type: stocks}], secondary_assets: []}"
    )

    result = world.prioritise(provider=provider, batch=assets)

    assert set(result.updated) == {"EURUSD", "AAPL", "KIMpL"}
    assert world.asked()[1:] == ["stocks 2026-11-16"]
    (told,) = (words for words in result.warnings if "plan says" in words)
    assert told.startswith("plan says starter for stocks, the key is refused snapshots")
    status = reading.read(world.configure(provider=provider, batch=assets), world.connection)
    assert [alert.message for alert in status.alerts if alert.metric == "api.plan"] != []


# --- One budget


def test_calls_of_a_paid_market_take_no_slot_beside_those_of_a_free_one(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    with Sandbox(key=API_KEY, limit=5, window_seconds=600, paid_unlimited=True) as strict:
        world = World(connection, database, strict, tmp_path, now=OPEN)
        keys: dict[str, Any] = {"provider": world.plan("starter"), "rate_limiting": "{window_seconds: 600}"}
        add_assets(connection, "C:EURUSD", *of_type(AssetType.INDICES))
        world.enqueue(**keys)

        world.drain(max_seconds=4, **keys)

        assert 429 not in statuses(strict)
        assert len(strict.arrivals) == 1 + 5
        for _ in range(3):
            # Slots are used up for ten minutes: what takes none is asked for all the same.
            strict.arrivals.clear()
            world.now += HOUR
            world.enqueue(["EURUSD"], **keys)
            world.drain(max_seconds=4, **keys)
            (snapshot,) = strict.arrivals
            assert parse_qs(urlsplit(snapshot.path).query)["ticker.any_of"] == ["C:EURUSD"]
            assert snapshot.status == 200


def statuses(sandbox: Sandbox) -> list[int | None]:
    return [arrival.status for arrival in sandbox.arrivals]


def test_a_refusal_stops_both(world: World) -> None:
    provider = world.plan("starter")
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "AAPL")
    keys: dict[str, Any] = {"provider": provider, "rate_limiting": "{window_seconds: 30}"}
    world.sandbox.fail = ["429"]
    world.enqueue(**keys)

    world.drain(max_seconds=4, **keys)

    assert len(world.asked()) == 1
    world.sandbox.fail = []
    world.drain(max_seconds=4, **keys)
    assert world.asked() == []


def test_probe_asks_and_tells_market_by_market(world: World) -> None:
    provider = world.plan("starter", "free", "free")
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "AAPL", "I:SPX")

    found = probe.probe(world.configure(provider=provider), world.connection, host="test", stop=no_stop())

    seen = {one.market: (one.quotes, one.plan.name) for one in found.markets}
    assert seen == {
        AssetType.FOREX: (True, "starter"),
        AssetType.STOCKS: (False, "free"),
        AssetType.INDICES: (False, "free"),
    }
    assert found.verdict == ""


def test_the_forecast_tells_days_and_quotes_apart(world: World) -> None:
    provider = world.plan("starter")
    world.now = None  # type: ignore[assignment] # it foresees from the time of the database
    add_assets(world.connection, "C:EURUSD", "AAPL", "MSFT", "I:DJI")
    world.enqueue(provider=provider)

    found = forecast.foresee(world.configure(provider=provider), world.connection)

    kinds = {(one.kind.value, one.calls, one.assets) for one in found.calls}
    assert {("grouped_daily", 1, 2), ("daily_ticker", 1, 1)} <= kinds


def test_bars_of_stocks_come_within_extended_hours_and_those_of_indices_without_volume(world: World) -> None:
    provider = world.plan("free")
    keys: dict[str, Any] = {"provider": provider, "bars": "{enabled: true, backfill_days: 2}", "batch": NO_ASSETS}
    add_assets(world.connection, "AAPL", "I:DJI")
    world.enqueue(**keys)
    world.drain(**keys)

    rows = world.connection.execute(
        "select s.symbol, min(b.ts) as first, max(b.ts) as last, count(*) as bars, count(b.volume) as volumes"
        " from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id"
        " where b.ts >= '2026-11-17 05:00+00' group by s.symbol order by s.symbol"
    ).fetchall()
    apple, dow = rows
    assert (apple["symbol"], dow["symbol"]) == ("AAPL", "DJI")
    assert (apple["first"].isoformat(), apple["last"].isoformat()) == (
        "2026-11-17T09:00:00+00:00",
        "2026-11-18T00:55:00+00:00",
    )
    assert (dow["bars"], dow["volumes"]) == (78, 0)
    assert (dow["first"], dow["last"]) == (
        datetime(2026, 11, 17, 14, 30, tzinfo=UTC),
        datetime(2026, 11, 17, 20, 55, tzinfo=UTC),
    )
    world.asked()
    world.now += 5 * MINUTE
    world.drain(**keys)
    assert world.asked() == []
