"""The vendor's own client on the sandbox's stream: what it says to the vendor it can say here, and reads the same."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from massive import WebSocketClient
from massive.exceptions import AuthError
from websockets.exceptions import ConnectionClosedError

from assetbatch.sandbox.server import Sandbox
from assetbatch.sandbox.session import NO_WEBSOCKET, WRONG_KEY
from tests.conftest import wait_until
from tests.streaming import SECONDS, Clock

Message = Any
# The client leaves connections to the garbage collector: it is called here, so that no other test is blamed.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(clock=clock) as sandbox:
        yield sandbox


def client(sandbox: Sandbox, market: str, *names: str, key: str = "sandbox", **options: Any) -> Any:
    return WebSocketClient(
        api_key=key,
        feed=sandbox.stream.url.removeprefix("ws://"),
        market=market,
        subscriptions=list(names),
        secure=False,
        **options,
    )


def read(one: Any, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """Let a client run until what it has read is enough, or it ends by itself; return what it has read."""
    found: list[Message] = []

    async def keep(messages: list[Message]) -> None:
        found.extend(messages)

    async def until_enough() -> None:
        running = asyncio.create_task(one.connect(keep, proxy=None))
        while not running.done() and not enough(found):
            await asyncio.sleep(0.02)
        if not running.done():
            await one.close()
        await running

    run(until_enough())
    return found


async def ignore(_: list[Message]) -> None: ...


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, SECONDS))
    gc.collect()


def kinds(messages: list[Message]) -> set[str]:
    return {message.event_type for message in messages}


def test_it_reads_quotes_and_minutes_of_forex(sandbox: Sandbox, clock: Clock) -> None:
    one = client(sandbox, "forex", "C.EUR/USD", "CA.EUR/USD", "C.XAU/USD")
    clock.forward(seconds=27)

    found = read(one, lambda found: {"C", "CA"} <= kinds(found))

    quote = next(message for message in found if message.event_type == "C" and message.pair == "EUR/USD")
    assert 0 < quote.bid_price < quote.ask_price < 2
    assert quote.exchange_id == 48
    minute = next(message for message in found if message.event_type == "CA")
    assert minute.pair == "EUR/USD"
    assert minute.end_timestamp - minute.start_timestamp == 60_000
    assert minute.low <= minute.open <= minute.high
    assert minute.low <= minute.close <= minute.high
    assert minute.volume > 0


def test_it_reads_trades_quotes_and_minutes_of_crypto(sandbox: Sandbox, clock: Clock) -> None:
    names = ("XT.BTC-USD", "XQ.BTC-USD", "XA.BTC-USD", "XAS.BTC-USD")
    one = client(sandbox, "crypto", *names)
    clock.forward(seconds=27)

    found = {message.event_type: message for message in read(one, lambda found: len(kinds(found)) == 4)}

    assert found["XQ"].bid_price < found["XT"].price < found["XQ"].ask_price
    assert isinstance(found["XT"].id, str)
    assert found["XT"].received_timestamp >= found["XT"].timestamp
    assert found["XA"].low <= found["XA"].vwap <= found["XA"].high
    assert found["XAS"].end_timestamp - found["XAS"].start_timestamp == 1_000
    (session,) = sandbox.stream.sessions
    assert set(session.held) == set(names)


def test_it_reads_trades_and_minutes_of_stocks_and_values_of_indices(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.stocks_plan = sandbox.indices_plan = "advanced"
    clock.set(datetime(2026, 9, 3, 14, 0, 57, tzinfo=UTC))
    one = client(sandbox, "stocks", "T.KIM", "AM.BRK.B")

    found = {message.event_type: message for message in read(one, lambda found: len(kinds(found)) == 2)}

    assert (found["T"].symbol, found["AM"].symbol) == ("KIM", "BRK.B")
    assert found["T"].price > 0
    assert float(found["T"].fractional_shares) > 0
    assert found["AM"].end_timestamp - found["AM"].start_timestamp == 60_000
    assert found["AM"].low <= found["AM"].vwap <= found["AM"].high
    assert found["AM"].accumulated_volume >= found["AM"].volume == int(float(found["AM"].fractional_volume))
    (value, *_) = read(client(sandbox, "indices", "V.I:SPX"), bool)
    assert (value.event_type, value.ticker) == ("V", "I:SPX")
    assert value.value > 0


def test_it_subscribes_and_unsubscribes_while_it_runs(sandbox: Sandbox) -> None:
    one = client(sandbox, "forex", "C.EUR/USD")

    def change(found: list[Message]) -> bool:
        if found and "C.GBP/USD" not in one.scheduled_subs:
            one.unsubscribe("C.EUR/USD")
            one.subscribe("C.GBP/USD")
        return any(message.pair == "GBP/USD" for message in found)

    read(one, change)
    (session,) = sandbox.stream.sessions
    assert list(session.held) == ["C.GBP/USD"]


@pytest.mark.parametrize(
    ("key", "plan", "message"), [("wrong", "starter", WRONG_KEY), ("sandbox", "free", NO_WEBSOCKET)]
)
def test_a_refusal_is_its_own_error(sandbox: Sandbox, key: str, plan: str, message: str) -> None:
    sandbox.plan = plan
    with pytest.raises(AuthError, match=message[:20]):
        run(client(sandbox, "forex", "C.EUR/USD", key=key).connect(ignore, proxy=None))


def test_it_comes_back_after_a_drop_with_its_subscriptions(sandbox: Sandbox) -> None:
    one = client(sandbox, "forex", "C.EUR/USD")

    def drop(found: list[Message]) -> bool:
        # Once: one that is dropped before it has subscribed never subscribes again.
        if found and not sandbox.stream.sessions[0].ended_by:
            sandbox.stream.drop()
        return len(sandbox.stream.sessions) > 1 and sandbox.stream.sessions[1].events > 0

    read(one, drop)
    first, second = sandbox.stream.sessions[:2]
    assert (first.close_code, first.ended_by) == (1006, "drop")
    assert list(second.held) == ["C.EUR/USD"]


def test_a_close_with_1001_ends_it_in_silence(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-close-1001"]

    read(client(sandbox, "forex", "C.EUR/USD"), lambda _: False)

    assert len(sandbox.stream.sessions) == 1


def test_two_of_them_evict_each_other_until_one_gives_up(sandbox: Sandbox) -> None:
    both = [client(sandbox, "forex", "C.EUR/USD", max_reconnects=3) for _ in range(2)]

    async def war() -> None:
        running = {asyncio.create_task(one.connect(ignore, proxy=None)): one for one in both}
        (loser, *_), rest = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        assert isinstance(loser.exception(), ConnectionClosedError)
        for winner in rest:
            await running[winner].close()
            await winner

    run(war())
    evicted = [session for session in sandbox.stream.sessions if session.ended_by == "max_connections"]
    assert len(evicted) >= 4
    assert {session.close_code for session in evicted} == {1008}
    assert sandbox.stream.overlap_seconds("forex") < 1


def test_a_frame_of_two_mebibytes_is_too_big_for_it(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-big"]
    with pytest.raises(ConnectionClosedError, match="1009"):
        read(client(sandbox, "forex", "C.EUR/USD", max_reconnects=0), lambda _: False)

    wait_until(lambda: not sandbox.stream.open())
    assert [session.close_code for session in sandbox.stream.sessions] == [1009]
