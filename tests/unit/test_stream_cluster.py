"""One cluster: what is told of it and when, what counts as fresh, and what was missed between connections."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from assetbatch.database.streams import Listed
from assetbatch.jobs.clock import Clock
from assetbatch.model import Asset, AssetType, Product, Role
from assetbatch.plans import PLANS
from assetbatch.provider.massive.websocket import cluster_of
from assetbatch.stream import cluster as clusters
from assetbatch.stream.book import Book
from assetbatch.stream.cluster import ClusterStream
from assetbatch.stream.connection import Feed, State
from assetbatch.stream.pacing import STEADY_SECONDS, Pacing

if TYPE_CHECKING:
    from assetbatch.database.leases import Lease

NOON = datetime(2026, 9, 3, 12, tzinfo=UTC)  # a Thursday
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
STEADY = timedelta(seconds=STEADY_SECONDS)
FOREX = cluster_of(AssetType.FOREX, PLANS[Product.CURRENCIES]["starter"])


def listed(symbol: str, pair: tuple[str, str] | None) -> Listed:
    return Listed(Asset(symbol, f"C:{symbol}", AssetType.FOREX, Role.PRIORITY, 1, 300), known=True, pair=pair)


EURO, POUND = listed("EURUSD", ("EUR", "USD")), listed("GBPUSD", ("GBP", "USD"))


def feed(state: State, *, heard_at: datetime | None = None) -> Feed:
    """A feed that was never started."""
    found = Feed(
        FOREX,
        "ws://127.0.0.1:9/forex",
        key="key",
        names=[],
        markets=[],
        book=Book({}),
        clock=Clock(NOON),
        pacing=Pacing(),
        stop=threading.Event(),
        lost_at=heard_at,
    )
    found.state = state
    return found


def live(since: datetime = NOON, *, lost_at: datetime | None = None, confirmed: tuple[str, ...] = ()) -> State:
    return State("live", since=since, lost_at=lost_at, confirmed=frozenset(confirmed), connects=1)


def cluster(*assets: Listed) -> ClusterStream:
    one = ClusterStream(FOREX, "", cast("Lease", None), Clock(NOON), threading.Event())
    one.take_list(assets, ())
    return one


@pytest.fixture
def streaming() -> ClusterStream:
    """Two assets, of which one is confirmed."""
    one = cluster(EURO, POUND)
    one.book = Book(one.names)
    one.feed = feed(live(confirmed=("C.EUR/USD",)))
    return one


def test_only_what_is_confirmed_counts_as_fresh_and_nothing_before_it_is_live(streaming: ClusterStream) -> None:
    assert streaming.feed is not None
    assert streaming.fresh() == ["EURUSD"]
    for word in ("connecting", "waiting", "resting", "refused"):
        streaming.feed.state = replace(streaming.feed.state, word=word)
        assert streaming.fresh() == []


def test_what_the_database_did_not_take_is_told_again(streaming: ClusterStream) -> None:
    lost = streaming.telling(1)
    told = streaming.telling(1)
    assert lost is not None
    assert told is not None
    # With what is fresh, and all that came since.
    assert len(told.queries) == len(lost.queries) == 2
    assert (told.report.connects, told.report.asked) == (1, 2)

    streaming.was_told(told)
    assert streaming.telling(1) is None
    assert streaming.feed is not None
    streaming.feed.state = replace(streaming.feed.state, confirmed=frozenset(["C.EUR/USD", "C.GBP/USD"]))
    again = streaming.telling(1)
    assert again is not None
    assert again.report.confirmed == 2
    assert again.report.connects == 0


def test_it_is_told_every_few_seconds_though_nothing_changed(
    streaming: ClusterStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = streaming.telling(1)
    assert told is not None
    streaming.was_told(told)
    assert streaming.telling(1) is None

    monkeypatch.setattr(clusters, "TELL_SECONDS", 0.0)
    again = streaming.telling(1)
    assert again is not None
    # What is fresh is written only where it differs.
    assert len(again.queries) == 1


def test_an_asset_without_a_pair_is_told_by_name_as_far_as_that_is_known() -> None:
    nameless = listed("NOPE", None)
    one = cluster(EURO, nameless)
    one.feed = feed(live())
    told = one.telling(1)
    assert told is not None
    assert told.report.unconfirmed == ("NOPE: what the vendor calls its pair is not known yet",)

    assert not one.take_list([EURO, nameless], ["C:NOPE"])
    told = one.telling(1)
    assert told is not None
    assert told.report.unconfirmed == ("NOPE: the vendor's reference list has no pair of it",)


def test_what_was_missed_is_asked_for_once_a_connection_has_lasted_and_once_alone() -> None:
    one = cluster(EURO)
    one.feed = feed(live(NOON, lost_at=NOON - 7 * MINUTE))

    assert one.missed(NOON + STEADY - SECOND) == {}
    missed = one.missed(NOON + STEADY)
    assert set(missed) == {"EURUSD"}
    assert missed["EURUSD"].since == NOON - 10 * MINUTE
    assert missed["EURUSD"].until == NOON + 5 * MINUTE
    assert one.missed(NOON + STEADY) == {}


@pytest.mark.parametrize("lost_at", [None, NOON - MINUTE, NOON - 30 * SECOND])
def test_a_minute_without_a_connection_leaves_no_bar_to_ask_for(lost_at: datetime | None) -> None:
    one = cluster(EURO)
    one.feed = feed(live(NOON, lost_at=lost_at))
    assert one.missed(NOON + STEADY) == {}


def test_a_weekend_without_a_connection_is_no_gap() -> None:
    saturday = datetime(2026, 9, 5, 12, tzinfo=UTC)
    one = cluster(EURO)
    one.feed = feed(live(saturday, lost_at=saturday - timedelta(hours=12)))
    assert one.missed(saturday + STEADY) == {}


def test_until_a_connection_has_lasted_the_gap_begins_with_the_first_break() -> None:
    one = feed(live(NOON, lost_at=NOON - 7 * MINUTE), heard_at=NOON + SECOND)
    assert one.missing_since == NOON - 7 * MINUTE
    one.state = State("waiting", lost_at=one.missing_since)
    assert one.missing_since == NOON - 7 * MINUTE

    # Somebody has seen to all that was before.
    one.state = live(NOON + MINUTE, lost_at=NOON - 7 * MINUTE)
    one.made_up_since = NOON + MINUTE
    one.heard_at = NOON + 2 * MINUTE
    assert one.missing_since == NOON + 2 * MINUTE


def test_who_never_heard_of_the_vendor_has_missed_nothing() -> None:
    assert feed(State()).missing_since is None


def test_other_names_are_a_change_and_the_same_are_none() -> None:
    one = cluster(EURO)
    assert not one.take_list([EURO], ())
    assert one.take_list([EURO, POUND], ())
    assert one.take_list([POUND], ())
    assert one.take_list([], ())
    assert one.names == {}
