"""Splits from end to end: a vendor that adjusts its bars overnight, the jobs, and what is stored by the morning."""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
import requests

from assetbatch.database.setup import schema
from assetbatch.jobs import drain, priority
from assetbatch.jobs.run import Start
from assetbatch.report import reading
from assetbatch.report.documents import status_document
from assetbatch.report.status_tables import status_view
from assetbatch.report.tables import console
from assetbatch.sandbox.actions import Listing
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, open_database, variables
from tests.integration.test_bar_changes import export
from tests.world import NO_ASSETS, QUICK, UNLIMITED, load_config, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.jobs.clock import Stop
    from assetbatch.model import RunResult

NEW_YORK = ZoneInfo("America/New_York")
FIVE_MINUTES = timedelta(minutes=5)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SATURDAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
TUESDAY = date(2026, 11, 24)
# In New York, one o'clock in the night, and five, when trade before the opening goes on.
IN_THE_NIGHT = datetime(2026, 11, 24, 6, tzinfo=UTC)
EARLY = datetime(2026, 11, 24, 10, tzinfo=UTC)
RANGE = re.compile(r"/v2/aggs/ticker/([^/]+)/range/5/minute/(\d+)/(\d+)")
PRICES = ("o", "h", "l", "c", "vw")
COLUMNS = ("open", "high", "low", "close", "volume", "vwap", "trades")

Row = dict[str, Any]


@dataclass
class Vendor:
    """Answers for splits and bars as the real one does: what is older than a split is adjusted from its day on.

    `splits` are (ticker, execution date, split_from, split_to); `adjusts_at` is when it does so, by New York's clock.
    """

    now: datetime = SATURDAY
    splits: list[tuple[str, date, int, int]] = field(default_factory=list)
    adjusts_at: time = time(2)
    rows_in_a_page: int = 5000
    lost: set[datetime] = field(default_factory=set)
    """Bars that it has no more."""
    fails: bool = False
    """Its list of splits does not come."""
    before: Callable[[str], object] = lambda _: None
    """What happens while it has a request and no answer yet."""
    paths: list[str] = field(default_factory=list)

    def calls(self, word: str) -> list[str]:
        """Tell which calls came in that have a word in their path, and forget them all."""
        found = [path for path in self.paths if word in path]
        self.paths.clear()
        return found

    def bars(self, ticker: str, since: datetime, until: datetime) -> dict[datetime, Row]:
        """Return the bars that it has now: two of three in its sessions, with prices that tell the time."""
        found: dict[datetime, Row] = {}
        ts = since + (datetime(1970, 1, 1, tzinfo=UTC) - since) % FIVE_MINUTES
        while ts < min(until, self.now):
            here = ts.astimezone(NEW_YORK)
            number = int(ts.timestamp()) // 300
            if here.weekday() < 5 and time(9, 30) <= here.time() < time(16) and number % 3 and ts not in self.lost:
                price = Decimal(4000 + number % 997) / 10
                figures = dict(zip(PRICES, (price, price + 2, price - 2, price + 1, price), strict=True))
                shares = Decimal(1)
                for other, day, split_from, split_to in self.splits:
                    adjusted = datetime.combine(day, self.adjusts_at, NEW_YORK)
                    if other == ticker and (here.date() >= day or self.now >= adjusted):
                        shares = shares * split_to / split_from
                found[ts] = {key: value / shares for key, value in figures.items()} | {
                    "v": 12000 * shares,
                    "n": Decimal(number % 50 + 1),
                }
            ts += FIVE_MINUTES
        return found

    def answer(self, target: str) -> tuple[int, str]:
        """Answer a request."""
        self.paths.append(target)
        self.before(target)
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/stocks/v1/splits":
            return self._listed(query)
        if (match := RANGE.fullmatch(parts.path)) is not None:
            ticker, *ends = match.groups()
            since, until = (datetime.fromtimestamp(int(end) / 1000, UTC) for end in ends)
            bars = [{"t": int(ts.timestamp() * 1000)} | bar for ts, bar in self.bars(ticker, since, until).items()]
            return 200, written({"status": "OK", "ticker": ticker, "resultsCount": len(bars), "results": bars})
        if parts.path == "/v3/snapshot":
            minute = {"close": 101.5, "last_updated": int((self.now - FIVE_MINUTES).timestamp() * 1e9)}
            rows = [{"ticker": ticker, "last_minute": minute} for ticker in query["ticker.any_of"].split(",")]
            return 200, written({"status": "OK", "results": rows})
        return 404, '{"status": "NotFound"}'

    def _listed(self, query: dict[str, str]) -> tuple[int, str]:
        if self.fails:
            return 500, '{"status": "ERROR"}'
        since, after = query.get("execution_date.gte", query.get("since", "")), int(query.get("cursor", "0"))
        listed = sorted(one for one in self.splits if str(one[1]) >= since)
        rows = [
            {"id": f"E{number}", "ticker": ticker, "execution_date": str(day), "split_from": one, "split_to": other}
            for number, (ticker, day, one, other) in enumerate(listed)
        ]
        end = after + self.rows_in_a_page
        more = {"next_url": f"https://elsewhere.example/stocks/v1/splits?cursor={end}&since={since}"}
        page: dict[str, Any] = {"status": "OK", "results": rows[after:end]}
        return 200, written(page | (more if end < len(rows) else {}))


def written(document: dict[str, Any]) -> str:
    """Write JSON with the digits that numbers have."""
    text = json.dumps(document, default=lambda number: f"\0{number:f}\0")
    return text.replace('"\\u0000', "").replace('\\u0000"', "")


@pytest.fixture
def vendor() -> Iterator[tuple[Vendor, str]]:
    """A vendor on a port of its own, with its address."""
    vendor = Vendor()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = vendor.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, 0.05)
        try:
            yield vendor, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


ADD_STOCK = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
values (%(symbol)s, %(symbol)s, 'stocks', 'secondary', 3, 1800, 'symbols')
"""
ROWS = """
select b.*, b.xmin::text as written_by from market_data.ohlcv_5m b
join trading.symbols s on s.id = b.symbol_id where s.symbol = %s order by b.ts
"""


@dataclass
class World:
    """A database and a vendor that go by one time; two months of bars are wanted."""

    connection: Connection
    database: str
    folder: Path
    vendor: Vendor
    url: str
    plan: str = "free"
    bars: str = "{backfill_days: 60}"
    limit: str = QUICK

    def add(self, *symbols: str) -> None:
        """Put stocks into the catalogue and into the platform's table."""
        for symbol in symbols:
            self.connection.execute(ADD_STOCK, {"symbol": symbol})
            self.connection.execute("insert into trading.symbols (symbol) values (%s)", [symbol])

    def start(self, connection: Connection, stop: Stop | None = None, batch: str = NO_ASSETS) -> Start:
        sections = {
            "provider": f"{{plans: {{stocks: {self.plan}}}}}",
            "batch": batch,
            "bars": self.bars,
            "rate_limiting": self.limit,
        }
        text = "".join(f"{section}: {value}\n" for section, value in sections.items())
        config = load_config(self.folder, text, **variables(self.database, self.url))
        return Start(config, connection, "test", stop or no_stop(), self.vendor.now)

    def drain(self, now: datetime, *, stop: Stop | None = None) -> RunResult:
        """Drain as if it were `now`, here and at the vendor."""
        self.vendor.now = now
        with open_database(self.database) as connection:
            return drain.drain_queue(
                self.start(connection, stop),
                bounds=drain.Bounds(55.0),
                shared=True,
                reconnect=lambda: open_database(self.database),
            )

    def rows(self, symbol: str) -> dict[datetime, dict[str, Any]]:
        return {row["ts"]: row for row in self.connection.execute(ROWS, [symbol])}

    def is_as_the_vendors(self, symbol: str) -> bool:
        """Tell whether every stored bar is the vendor's of now, number by number, and none is missing in between."""
        rows = self.rows(symbol)
        vendors = self.vendor.bars(symbol, min(rows), max(rows) + FIVE_MINUTES)
        names = {"open": "o", "high": "h", "low": "l", "close": "c", "vwap": "vw", "volume": "v", "trades": "n"}
        return {ts: {key: Decimal(row[name]) for name, key in names.items()} for ts, row in rows.items()} == vendors

    def fill(self) -> None:
        """Let all bars come that are wanted, and let what the vendor does not have be told twice."""
        for hour in range(4):
            self.drain(SATURDAY + hour * HOUR)
        self.drain(SATURDAY + DAY)
        self.vendor.paths.clear()

    def story(self, symbol: str) -> tuple[str, list[dict[str, Any]]]:
        """Tell what `status --asset` prints of a symbol, and what its document has of splits."""
        config = self.start(self.connection).config
        status = reading.read(config, self.connection, reading.Wanted(asset=symbol))
        shown = console()
        shown.width = 200
        with shown.capture() as capture:
            shown.print(status_view(status, width=200))
        return capture.get(), status_document(status)["asset"]["splits"]


@pytest.fixture
def world(
    connection: Connection,
    database: str,
    vendor: tuple[Vendor, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    one, url = vendor
    monkeypatch.setattr(schema, "check", lambda _: one.now)
    return World(connection, database, tmp_path, one, url)


def days_of(path: str) -> float:
    """Tell how long a span a call for bars asked for, in days."""
    since, until = (int(part) for part in path.partition("?")[0].split("/")[-2:])
    return (until - since) / 86_400_000


def test_after_a_split_on_a_tuesday_all_bars_before_it_are_the_vendors_adjusted_ones(world: World) -> None:
    world.add("AAPL", "MSFT")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4), ("OTHR", TUESDAY, 10, 1)]
    world.fill()
    before, others = world.rows("AAPL"), world.rows("MSFT")
    assert len(before) > 2000
    assert world.is_as_the_vendors("AAPL")

    # In the night nobody knows of which scale its bars are: they wait, though others' of Monday come.
    world.drain(IN_THE_NIGHT)
    assert [path.split("/")[4] for path in world.vendor.calls("/range/")] == ["MSFT"]
    assert world.rows("AAPL") == before
    others = {ts: row for ts, row in world.rows("MSFT").items() if ts in others}

    world.drain(EARLY)

    # Sixty days and those since: two pages, of which the first has Monday's bars, too.
    assert [path.split("/")[4] for path in world.vendor.calls("/range/")] == ["AAPL", "AAPL"]
    after = world.rows("AAPL")
    assert after.keys() > before.keys()
    assert world.is_as_the_vendors("AAPL")
    assert all(after[ts]["close"] * 4 == before[ts]["close"] for ts in before)
    assert all(after[ts]["is_final"] and after[ts]["fetched_at"] >= EARLY for ts in before)
    assert {ts: row for ts, row in world.rows("MSFT").items() if ts in others} == others

    # Nothing is left to do, and nothing more is written.
    world.drain(EARLY + 6 * HOUR)
    assert not world.vendor.paths
    world.drain(EARLY + DAY)
    (path,) = world.vendor.calls("/AAPL/range/")
    assert days_of(path) < 4
    rows = world.rows("AAPL")
    assert {ts: rows[ts] for ts in after} == after


def test_a_cursor_brings_all_bars_of_before_a_split_as_they_are_now(world: World) -> None:
    world.add("AAPL", "MSFT")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4)]
    world.fill()
    others = world.rows("MSFT")
    _, cursor = export(world.database)
    world.drain(IN_THE_NIGHT)
    world.drain(EARLY)

    changes, later = export(world.database, cursor)

    told = {(row["symbol"], row["ts"]): row["close"] for row in changes}
    assert len(told) == len(changes)
    assert {ts: close for (symbol, ts), close in told.items() if symbol == "AAPL"} == {
        ts: row["close"] for ts, row in world.rows("AAPL").items()
    }
    assert {ts for symbol, ts in told if symbol == "MSFT"} == world.rows("MSFT").keys() - others.keys()
    assert export(world.database, later)[0] == []


def test_the_list_of_splits_is_asked_for_once_a_day_and_page_by_page(world: World) -> None:
    world.add("AAPL")
    world.vendor.splits = [(f"T{number}", TUESDAY + timedelta(days=number), 1, 2) for number in range(5)]
    world.vendor.rows_in_a_page = 2

    world.drain(SATURDAY)
    world.drain(SATURDAY + HOUR)
    first = world.vendor.calls("/splits")
    assert len(first) == 3
    assert "execution_date.gte=2026-11-14" in first[0]
    world.drain(SATURDAY + DAY)
    assert len(world.vendor.calls("/splits")) == 3
    known = world.connection.execute("select count(*) as count from assetbatch.splits").fetchone()
    assert known == {"count": 5}


def test_without_stocks_nobody_asks_for_splits(world: World) -> None:
    world.drain(SATURDAY)

    assert not world.vendor.paths


def test_a_list_that_does_not_come_is_asked_for_again_in_an_hour_and_no_run_fails(world: World) -> None:
    world.add("AAPL")
    world.vendor.fails = True

    result = world.drain(SATURDAY)
    assert result.exit_code == 0
    assert len(world.vendor.calls("/splits")) == 1
    world.drain(SATURDAY + HOUR / 2)
    assert not world.vendor.calls("/splits")
    world.vendor.fails = False
    world.drain(SATURDAY + HOUR + FIVE_MINUTES)
    assert len(world.vendor.calls("/splits")) == 1


def test_run_priority_asks_for_the_list_behind_its_prices_and_has_bars_adjusted_with_its_newest(world: World) -> None:
    batch = (
        "{priority_assets: [{symbol: AAPL, polygon_ticker: AAPL, asset_type: stocks, priority: 1,"
        " update_frequency_seconds: 300}], secondary_assets: []}"
    )
    world.plan, world.limit = "starter", UNLIMITED
    world.bars = "{enabled: true, backfill_days: 20}"

    def run(now: datetime) -> list[str]:
        world.vendor.now = now
        world.vendor.paths.clear()
        with open_database(world.database) as connection:
            priority.run_priority(world.start(connection, batch=batch))
        return world.vendor.paths.copy()

    world.connection.execute(ADD_STOCK, {"symbol": "AAPL"})
    world.connection.execute("insert into trading.symbols (symbol) values ('AAPL')")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4)]
    for hour in range(4):
        run(SATURDAY + hour * HOUR)
    assert world.is_as_the_vendors("AAPL")
    # It waits for no slot: where none is free just then, the next run asks.
    nights = [run(IN_THE_NIGHT + number * FIVE_MINUTES) for number in range(3)]
    assert sum("/splits" in path for paths in nights for path in paths) == 1
    assert not any("/range/" in path for paths in nights for path in paths)

    calls = [path for path in run(EARLY) if "/snapshot" not in path]

    assert ["/range/" in path for path in calls] == [True]
    assert days_of(calls[0]) == pytest.approx(21, abs=2)
    assert world.is_as_the_vendors("AAPL")


def drain_elsewhere(database: str, folder: Path, url: str, now: datetime, bars: str) -> None:
    """Drain in a process of its own, as if it were `now`."""
    with pytest.MonkeyPatch.context() as patch, open_database(database) as connection:
        patch.setattr(schema, "check", lambda _: now)
        World(connection, database, folder, Vendor(now), url, bars=bars).drain(now)


def test_a_run_that_is_killed_between_two_pages_leaves_the_rest_to_the_next_one(world: World) -> None:
    world.bars = "{backfill_days: 120}"
    world.add("AAPL")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4)]
    world.fill()
    world.drain(IN_THE_NIGHT)
    world.vendor.paths.clear()
    world.vendor.now = EARLY
    given = (world.database, world.folder, world.url, EARLY, world.bars)
    process = multiprocessing.get_context("spawn").Process(target=drain_elsewhere, args=given)

    def kill(path: str) -> None:
        if sum("/range/" in one for one in world.vendor.paths) == 3:
            process.kill()
            process.join()

    world.vendor.before = kill
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    world.vendor.before = lambda _: None
    assert len(world.vendor.calls("/range/")) == 3
    scales = [row["close"] < 150 for row in world.rows("AAPL").values()]
    assert scales == sorted(scales), "those that are adjusted are the newest"
    assert scales.count(True) > 1000
    assert scales.count(False) > 1000

    world.drain(EARLY + HOUR)

    assert world.is_as_the_vendors("AAPL")
    # Four pages have 123 days; that of the third was lost with the process.
    assert len(world.vendor.calls("/range/")) == 2


def test_a_vendor_that_adjusts_late_is_asked_again_in_an_hour(world: World) -> None:
    world.bars = "{backfill_days: 30}"
    world.add("AAPL")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4)]
    world.vendor.adjusts_at = time(6, 30)
    world.fill()
    before = world.rows("AAPL")

    world.drain(EARLY)
    world.drain(EARLY + HOUR / 2)
    assert len(world.vendor.calls("/range/")) == 1
    now = world.rows("AAPL")
    assert {ts: now[ts] for ts in before} == before
    world.drain(EARLY + HOUR + FIVE_MINUTES)
    assert len(world.vendor.calls("/range/")) == 1
    world.drain(EARLY + 2 * HOUR + 2 * FIVE_MINUTES)
    assert len(world.vendor.calls("/range/")) == 1
    assert world.is_as_the_vendors("AAPL")
    world.drain(EARLY + 4 * HOUR)
    assert not world.vendor.calls("/range/")


def test_two_splits_of_one_ticker_and_a_reverse_one(world: World) -> None:
    world.bars = "{backfill_days: 30}"
    world.add("AAPL", "BRK.B")
    friday = date(2026, 11, 27)
    world.vendor.splits = [
        ("AAPL", TUESDAY, 1, 4),
        ("AAPL", friday, 1, 2),
        ("BRK.B", TUESDAY, 10, 1),
    ]
    world.fill()
    world.drain(IN_THE_NIGHT)
    world.drain(EARLY)
    assert world.is_as_the_vendors("AAPL")
    assert world.is_as_the_vendors("BRK.B")

    for day in range(1, 5):
        world.drain(IN_THE_NIGHT + day * DAY)
        world.drain(EARLY + day * DAY)
    assert world.is_as_the_vendors("AAPL")
    assert world.is_as_the_vendors("BRK.B")


def test_on_a_live_plan_bars_of_before_and_after_are_never_of_two_scales(world: World) -> None:
    world.plan = "starter"
    world.bars = "{enabled: true, backfill_days: 20}"
    world.add("AAPL")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4)]
    world.fill()
    midnight = datetime.combine(TUESDAY, time(0), NEW_YORK).astimezone(UTC)
    now = midnight - HOUR
    while now < midnight + 12 * HOUR:
        world.drain(now)
        closes = [row["close"] for row in world.rows("AAPL").values()]
        assert max(closes) < 3 * min(closes), now
        now += 20 * timedelta(minutes=1)

    assert world.is_as_the_vendors("AAPL")


def test_a_bar_that_the_vendor_has_no_more_stays(world: World) -> None:
    world.bars = "{backfill_days: 30}"
    world.add("AAPL")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4)]
    world.fill()
    lost = list(world.rows("AAPL").values())[500]
    world.vendor.lost = {lost["ts"]}

    world.drain(EARLY)
    world.drain(EARLY + HOUR)
    after = world.rows("AAPL")
    told, document = world.story("AAPL")

    assert after[lost["ts"]] == lost
    assert "4 for 1 on 2026-11-24: 1 bar before it kept as before, the vendor has no others" in told
    assert [(one["waiting"], one["kept"]) for one in document] == [(0, 1)]


def test_status_tells_a_split_and_how_much_is_still_to_be_fetched_again(world: World) -> None:
    world.bars = "{backfill_days: 30}"
    world.add("AAPL")
    world.vendor.splits = [("AAPL", TUESDAY, 1, 4)]
    world.fill()

    announced, _ = world.story("AAPL")
    assert "4 for 1 on 2026-11-24, announced" in announced or "4 for 1 on 2026-11-24" in announced
    world.vendor.adjusts_at = time(12)
    world.drain(EARLY)
    waiting, document = world.story("AAPL")
    count = len(world.rows("AAPL"))
    assert f"4 for 1 on 2026-11-24: {count:,} bars before it still to be fetched again" in waiting
    assert document[0]["waiting"] == count
    world.vendor.adjusts_at = time(2)
    world.drain(EARLY + HOUR + FIVE_MINUTES)
    done, document = world.story("AAPL")
    assert re.search(r"4 for 1 on 2026-11-24 *\n", done), done
    assert document[0] == document[0] | {"waiting": 0, "kept": 0, "execution_date": "2026-11-24"}


def test_the_sandbox_has_a_split_as_the_vendor_does(
    connection: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = Vendor()
    monkeypatch.setattr(schema, "check", lambda _: vendor.now)
    with Sandbox(key=API_KEY, listing=Listing(["AAPL:4:2026-11-24"]), clock=lambda: vendor.now) as sandbox:
        world = World(connection, database, tmp_path, vendor, sandbox.url, bars="{backfill_days: 40}")
        world.add("AAPL", "MSFT")
        world.fill()
        world.drain(IN_THE_NIGHT)
        before = world.rows("AAPL")
        sandbox.arrivals.clear()
        world.drain(EARLY)
        asked = [one.path for one in sandbox.arrivals if "/range/" in one.path]
        after = world.rows("AAPL")
        span = (int(moment.timestamp() * 1000) for moment in (min(after), max(after)))
        path = "/v2/aggs/ticker/AAPL/range/5/minute/{}/{}?limit=50000".format(*span)
        answer = requests.get(sandbox.url + path, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=20)

    document = json.loads(answer.content, parse_float=Decimal, parse_int=Decimal)
    assert {
        datetime.fromtimestamp(int(row["t"]) / 1000, UTC): [row[key] for key in ("o", "h", "l", "c", "v", "vw", "n")]
        for row in document["results"]
    } == {ts: [Decimal(row[name]) for name in COLUMNS] for ts, row in after.items()}
    assert len(before) > 3000
    assert all(after[ts]["close"] < before[ts]["close"] / 3 for ts in before)
    # Forty days and those since.
    assert [path.split("/")[4] for path in asked] == ["AAPL", "AAPL"]


def test_a_list_that_has_not_come_for_days_is_an_alert(world: World) -> None:
    world.add("AAPL")
    world.drain(SATURDAY)

    def alerts() -> list[str]:
        config = world.start(world.connection).config
        return [
            alert.message for alert in reading.read(config, world.connection).alerts if alert.metric == "splits.list"
        ]

    world.connection.execute("update assetbatch.split_list set listed_at = now() - interval '1 day'")
    assert not alerts()
    world.connection.execute("update assetbatch.split_list set listed_at = now() - interval '3 days'")
    assert "the list of splits has not come since" in alerts()[0]
    world.connection.execute("update assetbatch.split_list set listed_at = null")
    assert not alerts()
    world.connection.execute("update assetbatch.assets set enabled_at = now() - interval '3 days'")
    assert alerts()
    world.connection.execute("update assetbatch.assets set enabled = false")
    assert not alerts()
