"""What one statement says of all assets, held against what is said of each."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from assetbatch.database import asset_states, catalogue
from assetbatch.model import AssetType
from assetbatch.planner import AskedDay, DayOutcome, Mode
from assetbatch.report.freshness import Outlook, freshness, limits

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

INTERVAL = timedelta(minutes=5)
MONDAY = datetime(2026, 11, 16, 0, 30, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 21, 9, tzinfo=UTC)
CHRISTMAS = datetime(2026, 12, 25, 20, tzinfo=UTC)
TICKERS = ("C:EURUSD", "C:XAUUSD", "X:BTCUSD")
FREQUENCIES = (1, 300, 1800, 86_400)
ERRORS = (None, None, None, "invalid", "not_entitled")


def add(connection: Connection, now: datetime) -> None:
    """Add 600 assets of all markets and frequencies, whose last updates lie in the last nine days, or never were."""
    chance = random.Random(7)
    assets, states = [], []
    for number in range(600):
        ticker = chance.choice(TICKERS)
        kind = AssetType.CRYPTO if ticker.startswith("X:") else AssetType.FOREX
        assets.append((f"S{number}", ticker, kind.value, chance.choice(FREQUENCIES)))
        succeeded_at = now - timedelta(days=9) * chance.random() ** 4
        day = now.date() - timedelta(days=chance.randrange(5))
        states.append(
            (
                f"S{number}",
                chance.choice([succeeded_at, succeeded_at, succeeded_at, None]),
                chance.choice(ERRORS),
                chance.choice([day, day, None]),
            )
        )
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into assetbatch.assets"
            " (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)"
            " values (%s, %s, %s, 'secondary', 3, %s, 'symbols')",
            assets,
        )
        cursor.executemany(
            "insert into assetbatch.sync_state (symbol, succeeded_at, error_kind, day) values (%s, %s, %s, %s)",
            states,
        )


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("now", [MONDAY, SATURDAY, CHRISTMAS], ids=["monday", "saturday", "christmas"])
def test_all_assets_together_are_judged_as_each_of_them(connection: Connection, now: datetime, mode: Mode) -> None:
    add(connection, now)
    closed = frozenset({AssetType.FOREX}) if now == CHRISTMAS else frozenset()
    days = {(AssetType.FOREX, date(2026, 11, 20)): AskedDay(DayOutcome.EMPTY, now)}
    outlook = Outlook(now, INTERVAL, mode=mode, days=days, closed=closed)
    assets = catalogue.enabled_assets(connection)
    states = catalogue.sync_states(connection, [asset.symbol for asset in assets])

    judged = asset_states.judge(
        connection,
        limits(catalogue.frequencies(connection), outlook),
        daily=mode is Mode.END_OF_DAY,
        apart=["S0"],
        most_worst=1000,
    )

    each = {asset.symbol: freshness(asset, states[asset.symbol], outlook).value for asset in assets}
    del each["S0"]
    assert judged.counts == Counter(each.values())
    assert len(judged.counts) >= 4
    bad = {"failing", "stale", "never", "not_entitled"}
    assert set(judged.worst) == {symbol for symbol, state in each.items() if state in bad}
