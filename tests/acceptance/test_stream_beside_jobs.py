"""The stream and cron side by side: no call twice while it streams, and the jobs carry on when it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import wait_until
from tests.stream_runs import command, told, wait_for_price

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

SCALED = "stream.cluster.TELL_SECONDS=0.5 stream.streamer.LOOK_SECONDS=1"
# For how long one that was killed counts as alive. Where it lives, no busy machine lets it be silent for that long.
ALIVE = "stream.cluster.ALIVE_SECONDS=8"


@pytest.fixture
def commands(commands: Commands, sandbox: Sandbox) -> Commands:
    """With a configuration that streams Bitcoin and Ether, due every six seconds; bars have budget of their own."""
    sandbox.stream.rate = 10
    urls = ", ".join(f'{one}: "{sandbox.stream.url}/{one}"' for one in ("forex", "crypto"))
    priority = "{symbol: BTCUSD, polygon_ticker: 'X:BTCUSD', asset_type: crypto, update_frequency_seconds: 5}"
    secondary = "{symbol: ETHUSD, polygon_ticker: 'X:ETHUSD', asset_type: crypto, update_frequency_seconds: 5}"
    (commands.folder / "config.yaml").write_text(
        f"batch: {{priority_assets: [{priority}], secondary_assets: [{secondary}]}}\n"
        f"stream: {{flush_seconds: 0.2, urls: {{{urls}}}}}\n"
        "bars: {backfill_days: 1}\n"
    )
    commands.environment["POLYGON_RATE_LIMIT"] = "unlimited"
    assert commands("init").returncode == 0
    return commands


def quotes(sandbox: Sandbox) -> int:
    """How many calls for quotes there were."""
    return sum("/snapshot" in one.path for one in sandbox.arrivals)


def alive(connection: Connection) -> set[str]:
    return {row["symbol"] for row in connection.execute("select symbol from assetbatch.streamed")}


def known(connection: Connection) -> set[str]:
    """Of whose prices something is known, here or in the platform's table."""
    rows = connection.execute(
        "select symbol from assetbatch.sync_state"
        " union select symbol from data_sources.data_sync_status d join trading.symbols s on s.id = d.ticker_id"
    )
    return {row["symbol"] for row in rows}


def document(commands: Commands, *words: str) -> dict[str, Any]:
    done = commands(*words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_while_it_streams_no_job_asks_for_a_quote_and_bars_go_on_and_then_they_carry_on(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    # One waits in the queue since before.
    assert document(commands, "enqueue-secondary", "--all")["enqueued"] == 1
    with command(commands, scaled=f"{SCALED} {ALIVE}") as stream:
        wait_until(lambda: alive(connection) == {"BTCUSD", "ETHUSD"}, seconds=30)
        # The one call for the figures of the day, which takes what waited out of the queue.
        wait_until(lambda: quotes(sandbox) == 1, seconds=30)
        wait_until(lambda: connection.execute("select from assetbatch.queue").fetchone() is None, seconds=30)
        bars = sum("/aggs/" in one.path for one in sandbox.arrivals)
        ran = document(commands, "run-priority")
        enqueued = document(commands, "enqueue-secondary")
        drained = document(commands, "drain-queue", "--max-seconds", "10")
        assert quotes(sandbox) == 1
        assert ran["failed"] == []
        assert (enqueued["enqueued"], drained["remaining"]) == (0, 0)
        assert sum("/aggs/" in one.path for one in sandbox.arrivals) > bars
        stored = connection.execute("select count(distinct symbol_id) as n from market_data.ohlcv_5m where is_final")
        assert stored.fetchone() == {"n": 2}

        stream.process.kill()
        stream.process.wait()
        last = wait_for_price(connection, "BTCUSD")
        wait_until(lambda: not alive(connection), seconds=30)
        # In the next of its slots at the latest.
        wait_until(lambda: document(commands, "run-priority")["updated"] == ["BTCUSD"], seconds=30)
        assert quotes(sandbox) == 2
        assert wait_for_price(connection, "BTCUSD") > last
        wait_until(lambda: document(commands, "enqueue-secondary")["enqueued"] == 1, seconds=30)
        assert document(commands, "drain-queue", "--max-seconds", "10")["updated"] == ["ETHUSD"]
    for symbol in ("BTCUSD", "ETHUSD"):
        rows = connection.execute("select seq, payload from assetbatch.outbox where symbol = %s order by id", [symbol])
        events = [(row["seq"], row["payload"]["timestamp"]) for row in rows]
        assert events == sorted(events)
        assert len({seq for seq, _ in events}) == len(events)


def test_assets_that_are_added_are_streamed_soon_and_removed_ones_no_more(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    with command(commands, scaled=SCALED) as stream:
        wait_until(lambda: alive(connection) == {"BTCUSD", "ETHUSD"}, seconds=30)
        assert commands("symbols", "add", "SOLUSD", "X:SOLUSD").returncode == 0
        wait_until(lambda: "SOLUSD" in alive(connection), seconds=30)
        wait_for_price(connection, "SOLUSD", after=datetime.now(UTC))
        assert commands("symbols", "remove", "SOLUSD").returncode == 0
        wait_until(lambda: "SOLUSD" not in alive(connection), seconds=30)
        wait_until(lambda: [s for s in sandbox.stream.open("crypto") if s.held and "XT.SOL-USD" not in s.held])
        # Nor is anything left of what came until then.
        wait_until(lambda: known(connection) == {"BTCUSD", "ETHUSD"})
        assert stream.process.poll() is None
        assert "Traceback" not in stream.log


def test_a_pair_that_the_reference_list_does_not_know_is_told_by_name(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    connection.execute(
        "insert into assetbatch.assets"
        " (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)"
        " values ('NOPE', 'X:NOPEUSD', 'crypto', 'secondary', 3, 1800, 'symbols')"
    )
    with command(commands, scaled=SCALED) as stream:
        wait_until(lambda: "BTCUSD" in alive(connection), seconds=30)
        wait_until(
            lambda: told(connection)["unconfirmed"] == ["NOPE: the vendor's reference list has no pair of it"],
            seconds=30,
        )
        assert "X:NOPEUSD" in stream.log
        asked = sum("/v3/reference/tickers" in one.path for one in sandbox.arrivals)
        wait_for_price(connection, "BTCUSD", after=datetime.now(UTC))
        assert sum("/v3/reference/tickers" in one.path for one in sandbox.arrivals) == asked


def asked(sandbox: Sandbox) -> int:
    return sum("/v3/reference/tickers" in one.path for one in sandbox.arrivals)


def test_a_reference_list_that_cannot_be_had_is_asked_again_and_prices_that_have_a_name_go_on(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    sandbox.fail = ["500:/v3/reference/tickers"]
    connection.execute("insert into assetbatch.pairs values ('X:BTCUSD', 'BTC', 'USD')")
    with command(commands, scaled=f"{SCALED} stream.calls.AGAIN_SECONDS=1"):
        wait_for_price(connection, "BTCUSD", after=datetime.now(UTC))
        wait_until(
            lambda: told(connection)["unconfirmed"] == ["ETHUSD: what the vendor calls its pair is not known yet"]
        )
        # It is told of before the first answer has come.
        wait_until(lambda: asked(sandbox) >= 1)
        refused, sandbox.fail = asked(sandbox), []
        wait_until(lambda: "ETHUSD" in alive(connection), seconds=30)
        assert asked(sandbox) > refused
        assert told(connection)["unconfirmed"] == []
