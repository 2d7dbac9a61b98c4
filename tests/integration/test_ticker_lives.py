"""What became of tickers: whom the reference list is asked about, how often, and what is noted and told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from assetbatch.database import catalogue, lives, runs, streams
from assetbatch.database.read import overview
from assetbatch.failures import CallError, FailureKind
from assetbatch.jobs.calls import Landed
from assetbatch.jobs.lives import LifeWork
from assetbatch.model import AssetType
from tests.canned_list import CannedList, listed
from tests.conftest import open_database

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

TUESDAY = datetime(2026, 11, 17, 12, tzinfo=UTC)
DAY, WEEK = timedelta(days=1), timedelta(days=7)

ADD = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select ticker, ticker,
       case left(ticker, 2) when 'I:' then 'indices' when 'X:' then 'crypto' else 'stocks' end,
       'secondary', 3, 1800, 'symbols'
from unnest(%(tickers)s::text[]) ticker
"""

# Each lacks the finished days since `missing_since`, or was said to be unknown.
FAIL = """
insert into assetbatch.sync_state (symbol, succeeded_at, day, missing_since, error_kind, error)
select symbol, %(succeeded_at)s, %(day)s, %(missing_since)s, %(kind)s, 'no price'
from unnest(%(symbols)s::text[]) symbol
on conflict (symbol) do update
set succeeded_at = excluded.succeeded_at, day = excluded.day, missing_since = excluded.missing_since,
    error_kind = excluded.error_kind
"""


@dataclass
class Looks:
    """A catalogue, a reference list, and the time that both go by."""

    connection: Connection
    run_id: int
    reference: CannedList = field(default_factory=lambda: CannedList([]))
    now: datetime = TUESDAY

    def add(self, *tickers: str) -> None:
        self.connection.execute(ADD, {"tickers": list(tickers)})

    def miss(self, *symbols: str, since: date | None = None, ever: bool = True) -> None:
        """Let finished days since then lack these; `ever`: they had prices before."""
        day = self.now.date() - DAY
        self._fail(symbols, "missing", day, since or day - 5 * DAY, ever=ever)

    def refuse(self, *symbols: str, ever: bool = True) -> None:
        """Let snapshots say that the vendor does not know these."""
        self._fail(symbols, "unknown_ticker", None, None, ever=ever)

    def _fail(self, symbols: Any, kind: str, day: date | None, since: date | None, *, ever: bool) -> None:
        succeeded_at = (
            None if not ever else self.now - DAY if since is None else datetime.combine(since, self.now.time())
        )
        state = {"kind": kind, "day": day, "missing_since": since}
        self.connection.execute(FAIL, state | {"symbols": list(symbols), "succeeded_at": succeeded_at})

    def look(self, *, calls: int = 1_000, error: FailureKind | None = None) -> tuple[str, ...]:
        """Ask what is due, with so many calls at most; return what is told."""
        run = SimpleNamespace(
            id=self.run_id,
            connection=self.connection,
            rules=SimpleNamespace(hold_seconds=30.0),
            clock=SimpleNamespace(now=lambda: self.now),
        )
        due = self.connection.answer(lives.due(self.now))
        work = LifeWork(cast("Any", run), cast("Any", SimpleNamespace(under_way=[])), due)
        for _ in range(calls):
            if not work.is_ready():
                break
            (planned,) = work.begin(1)
            call = planned.request.call
            record = runs.CallRecord(self.run_id, call.kind.value, "ok", 200, True, 1, 0, 0, None, None)
            if error is not None:
                self.reference.asked.append({})
                work.failed(Landed(call, work, planned.work, self.now), CallError(error, "no"))
                continue
            page = planned.request.read(self.reference.answer(planned.request.path), self.now)
            work.landed([Landed(call, work, planned.work, self.now, page, record)])
        work.finish(has_ended=False)
        return work.warnings()

    def asked(self) -> list[str]:
        """What was asked since this was asked last: `-` the newest that are inactive, `-X`, `+X`, or `cik`."""
        asked, self.reference.asked = self.reference.asked, []
        return [
            query.get("cik") or ("+" if query["active"] == "true" else "-") + query.get("ticker", "") for query in asked
        ]

    def states(self) -> dict[str, str]:
        rows = self.connection.execute("select symbol, state from assetbatch.ticker_lives order by symbol")
        return {row["symbol"]: row["state"] for row in rows}

    def gone(self) -> dict[str, str]:
        return dict(self.connection.answer(overview.gone(limit=100)).named)


@pytest.fixture
def looks(connection: Connection) -> Looks:
    run = connection.execute(
        "insert into assetbatch.runs (job, host, version, plan) values ('drain-queue', 'a', '0', 'free') returning id"
    ).fetchone()
    assert run is not None
    return Looks(connection, run["id"])


def test_one_call_tells_of_all_that_were_delisted_lately(looks: Looks) -> None:
    gone = [f"GONE{number}" for number in range(40)]
    looks.reference.rows = [listed(ticker, delisted="2026-11-10") for ticker in gone]
    looks.reference.rows += [listed(f"OLD{number}", delisted="2020-01-02") for number in range(2_000)]
    looks.add(*gone, "WELL")
    looks.miss(*gone)

    assert looks.look() == ("delisted on 2026-11-10: GONE0, GONE1, GONE10, GONE11, GONE12 and 35 more",)

    assert looks.asked() == ["-"]
    assert looks.gone() == dict.fromkeys(sorted(gone), "delisted on 2026-11-10")


def test_a_ticker_is_asked_for_once_a_week_while_it_is_gone(looks: Looks) -> None:
    looks.reference.rows = [listed("ABC", "BBG1", cik="0000000001", delisted="2026-11-10")]
    looks.add("ABC")
    looks.miss("ABC")
    assert looks.look() == ("delisted on 2026-11-10: ABC",)
    assert looks.asked() == ["-", "0000000001"]

    for _ in range(13):
        looks.now += DAY
        looks.miss("ABC", since=date(2026, 11, 11))
        assert looks.look() == ()

    assert looks.asked() == ["+ABC"]
    assert looks.gone() == {"ABC": "delisted on 2026-11-10"}


def test_a_new_ticker_is_found_by_what_is_traded_under_it(looks: Looks) -> None:
    looks.reference.rows = [
        listed("FB", "BBG1", cik="0001326801", delisted="2026-11-10"),
        listed("META", "BBG1", cik="0001326801"),
        listed("METAW", "BBG2", cik="0001326801"),
    ]
    looks.add("FB")
    looks.miss("FB")

    # Until it is known what it became, nothing is told: the calls of one run may be few.
    assert looks.look(calls=1) == ()
    assert looks.gone() == {"FB": "delisted on 2026-11-10"}
    assert looks.look() == ("renamed to META: FB",)

    assert looks.asked() == ["-", "0001326801"]
    assert looks.gone() == {"FB": "renamed to META"}
    looks.now += WEEK
    assert looks.look() == ()
    assert looks.asked() == ["+FB"]


def test_what_is_seldom_traded_is_no_suspect_for_a_week(looks: Looks) -> None:
    looks.reference.rows = [listed("RARE"), listed("OLD", delisted="2026-11-01")]
    looks.add("RARE")
    looks.miss("RARE")

    assert looks.look() == ()
    looks.now += DAY
    looks.miss("RARE", since=date(2026, 11, 11))
    assert looks.look() == ()

    assert looks.asked() == ["-"]
    assert (looks.states(), looks.gone()) == ({"RARE": "listed"}, {})


@pytest.mark.parametrize("days", [0, 3])
def test_a_ticker_that_a_few_days_lack_is_not_asked_for(looks: Looks, days: int) -> None:
    looks.add("RARE")
    looks.miss("RARE", since=looks.now.date() - DAY - days * DAY)

    assert looks.look() == ()
    assert looks.asked() == []


def test_what_was_never_there_is_looked_for_by_name(looks: Looks) -> None:
    looks.reference.rows = [
        listed("LONGGONE", delisted="2019-01-04"),
        listed("NEW"),
        *(listed(f"OLD{number}", delisted="2026-01-02") for number in range(1_000)),
    ]
    looks.add("LONGGONE", "NEW", "MISSPELT")
    looks.miss("LONGGONE", "NEW", "MISSPELT", ever=False)

    assert looks.look() == ("delisted on 2019-01-04: LONGGONE",)

    assert sorted(looks.asked()) == sorted(["-", "-LONGGONE", "-MISSPELT", "-NEW", "+MISSPELT", "+NEW"])
    assert looks.states() == {"LONGGONE": "delisted", "MISSPELT": "unknown", "NEW": "listed"}
    looks.now += WEEK
    looks.reference.rows.append(listed("MISSPELT"))
    looks.look()
    assert sorted(looks.asked())[:2] == ["+LONGGONE", "+MISSPELT"]
    assert looks.states()["MISSPELT"] == "listed"


def test_a_list_in_another_order_is_not_believed_to_have_the_newest(looks: Looks) -> None:
    looks.reference = CannedList([listed(f"A{number}", delisted="2020-01-02") for number in range(3)], page_size=2)
    looks.reference.is_sorted = False
    looks.reference.rows += [listed("A0A", delisted="2026-11-12"), listed("ZZ", delisted="2026-11-10")]
    looks.add("ZZ")
    looks.miss("ZZ")

    assert looks.look() == ("delisted on 2026-11-10: ZZ",)
    assert looks.asked() == ["-", "-ZZ"]


def test_a_list_that_lags_behind_refusals_is_asked_daily_at_first(looks: Looks) -> None:
    looks.reference.rows = [listed("ABC")]
    looks.add("ABC")
    looks.refuse("ABC")
    assert looks.look() == ()
    assert looks.asked() == ["-", "+ABC"]
    assert looks.look() == ()
    assert looks.asked() == []

    looks.reference.rows = [listed("ABC", delisted="2026-11-16")]
    looks.now += DAY
    assert looks.look() == ("delisted on 2026-11-16: ABC",)


def test_one_that_comes_back_is_served_again(looks: Looks) -> None:
    looks.reference.rows = [listed("ABC", "BBG1", delisted="2026-11-10")]
    looks.add("ABC")
    looks.miss("ABC")
    looks.look()
    assert looks.gone()

    # A finished day that has it is enough,
    looks.now += WEEK
    looks.connection.execute("update assetbatch.sync_state set succeeded_at = %s, error_kind = null", [looks.now])
    assert looks.gone() == {}
    # whatever the list says.
    assert looks.look() == ()
    assert (looks.gone(), looks.states()) == ({}, {"ABC": "listed"})


def test_one_that_is_listed_again_is_asked_for_again(looks: Looks) -> None:
    looks.reference.rows = [listed("ABC", "BBG1", delisted="2026-11-10")]
    looks.add("ABC")
    looks.refuse("ABC")
    looks.look()
    assert looks.gone()

    looks.reference.rows = [listed("ABC", "BBG1")]
    looks.now += WEEK
    assert looks.look() == ()
    assert (looks.gone(), looks.states()) == ({}, {"ABC": "listed"})


def test_a_ticker_that_is_another_companys_is_told_once(looks: Looks) -> None:
    looks.reference.rows = [listed("ABC", "BBG1", delisted="2026-11-10")]
    looks.add("ABC")
    looks.miss("ABC")
    looks.look()

    looks.reference.rows.append(listed("ABC", "BBG2"))
    looks.now += WEEK
    (told,) = looks.look()
    assert told == (
        "ABC: the ticker ABC is another company's since 2026-11-24 at the latest; prices and bars of before are of the"
        " old one"
    )
    looks.now += WEEK
    looks.miss("ABC", since=date(2026, 11, 24))
    assert looks.look() == ()


def test_who_had_a_ticker_before_says_nothing_of_who_has_it(looks: Looks) -> None:
    looks.reference.rows = [listed("ABC", "BBG1", delisted="2026-03-10"), listed("ABC", "BBG2")]
    looks.add("ABC")
    looks.miss("ABC")

    assert looks.look() == ()
    assert looks.states() == {"ABC": "listed"}


def test_the_last_of_several_lives_counts(looks: Looks) -> None:
    looks.reference.rows = [listed("ZZZ", delisted="2005-01-03"), listed("ZZZ", delisted="2026-11-09")]
    looks.add("ZZZ")
    looks.refuse("ZZZ")

    assert looks.look() == ("delisted on 2026-11-09: ZZZ",)


def test_tickers_that_differ_by_case_have_lives_of_their_own(looks: Looks) -> None:
    looks.reference.rows = [listed("AMPB", delisted="2026-11-10"), listed("AMpB")]
    looks.add("AMPB", "AMpB")
    looks.refuse("AMPB", "AMpB")

    looks.look()
    assert looks.states() == {"AMPB": "delisted", "AMpB": "listed"}


def test_indices_have_a_list_of_their_own_and_pairs_have_none(looks: Looks) -> None:
    looks.reference.rows = [
        listed("I:OLD", delisted="2026-11-10", market="indices"),
        listed("ABC", delisted="2026-11-10"),
    ]
    looks.add("I:OLD", "ABC", "X:NOSUCHUSD")
    looks.refuse("I:OLD", "ABC", "X:NOSUCHUSD")

    assert looks.look() == ("delisted on 2026-11-10: ABC, I:OLD",)
    assert [query["market"] for query in looks.reference.asked] == ["stocks", "indices"]


def test_what_is_gone_leaves_queue_stream_and_bars_alone(looks: Looks) -> None:
    looks.reference.rows = [listed("ABC", delisted="2026-11-10")]
    looks.add("ABC", "WELL")
    looks.refuse("ABC")
    looks.connection.execute(
        "insert into assetbatch.queue"
        " (symbol, priority, waiting_since, rank, enqueued_at, available_at, state, died_at)"
        " values ('ABC', 4, now(), now(), now(), now(), 'dead', now());"
        "insert into assetbatch.bar_state (symbol, wanted_since, failures, error_kind, error, retry_at)"
        " values ('ABC', now(), 1, 'not_found', 'no', now())"
    )

    looks.look()

    assert looks.connection.execute("select from assetbatch.queue").fetchall() == []
    assert looks.connection.execute("select failures, error_kind from assetbatch.bar_state").fetchall() == [
        {"failures": 0, "error_kind": None}
    ]
    streamed = looks.connection.answer(streams.assets([AssetType.STOCKS]))
    assert [one.asset.symbol for one in streamed] == ["WELL"]
    assert [(one.symbol, one.error) for one in catalogue.unknown_tickers(looks.connection)] == [
        ("ABC", "delisted on 2026-11-10")
    ]


def test_another_ticker_has_another_life(looks: Looks) -> None:
    looks.reference.rows = [listed("FB", delisted="2026-11-10")]
    looks.add("FB")
    looks.refuse("FB")
    looks.look()
    assert looks.gone()

    looks.connection.execute("update assetbatch.assets set polygon_ticker = 'META'")

    assert (looks.gone(), looks.states()) == ({}, {})


@pytest.mark.parametrize("kind", [FailureKind.NOT_ENTITLED, FailureKind.TIMEOUT, FailureKind.MALFORMED])
def test_after_a_call_that_failed_nobody_asks_for_an_hour(looks: Looks, kind: FailureKind) -> None:
    looks.add("ABC", "DEF")
    looks.refuse("ABC", "DEF")

    for _ in range(3):
        looks.look(error=kind)

    assert len(looks.reference.asked) == 1
    assert looks.states() == {}
    looks.connection.execute("update assetbatch.leases set held_until = held_until - interval '1 hour'")
    looks.look(error=kind)
    assert len(looks.reference.asked) == 2


def test_one_run_at_a_time_asks(looks: Looks, database: str) -> None:
    looks.add("ABC")
    looks.refuse("ABC")
    with open_database(database) as connection:
        connection.execute(
            "insert into assetbatch.leases values ('ticker-lives', gen_random_uuid(), now() + interval '1 minute')"
        )
    looks.look()
    assert looks.asked() == []
