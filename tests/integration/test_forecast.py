"""What `forecast` foretells, held against what the jobs then call, in one state after the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.database.setup import schema
from assetbatch.jobs import forecast
from assetbatch.model import CallKind
from tests.integration import test_bars_job
from tests.world import FRIDAYS_CLOSE, HOUR, MINUTE, NO_ASSETS, NO_SECONDARY, QUICK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.jobs.forecast import Forecast
    from assetbatch.sandbox.server import Sandbox

NOON = datetime(2026, 11, 17, 12, 3, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 21, 12, 3, tzinfo=UTC)
Sections = dict[str, Any]


@dataclass
class World(test_bars_job.World):
    """A world that goes by a time of its own."""

    now: datetime = NOON


@pytest.fixture
def world(
    connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    world = World(connection, database, sandbox, tmp_path)
    monkeypatch.setattr(schema, "check", lambda _: world.now)
    return world


def everything(world: World, **sections: Any) -> None:
    """Fetch all that there is now."""
    world.drain(**sections)
    assert not world.drain(**sections).api_calls_used


def fresh(world: World) -> Sections:
    world.add("T1USD", "C:EURUSD")
    return {}


def whole(world: World) -> Sections:
    world.add("T1USD", "C:EURUSD")
    everything(world)
    return {}


def in_the_same_slot(world: World) -> Sections:
    """The newest bars of the last minutes are missing, but not due: their asset's frequency is half an hour."""
    whole(world)
    world.now += 7 * MINUTE
    return {}


def in_the_next_slot(world: World) -> Sections:
    whole(world)
    world.now += 30 * MINUTE
    return {}


def of_several_pages(world: World) -> Sections:
    world.add("T1USD")
    return {"bars": "{backfill_days: 100}"}


def deleted_by_hand(world: World) -> Sections:
    whole(world)
    world.connection.execute("delete from market_data.ohlcv_5m where ts between '2026-11-16' and '2026-11-16 01:00'")
    return {}


def deleted_by_the_platform(world: World) -> Sections:
    whole(world)
    world.connection.execute("delete from market_data.ohlcv_5m")
    world.connection.execute("delete from trading.symbols where symbol = 'T1USD'")
    return {}


def failing(world: World) -> Sections:
    world.add("T1USD", "C:EURUSD")
    world.sandbox.fail = ["404:T1USD"]
    world.drain()
    world.sandbox.fail = []
    return {}


def refused(world: World, **sections: Any) -> Sections:
    world.add("T1USD", "C:EURUSD")
    world.sandbox.fail = ["403-entitled:/range/"]
    world.drain(**sections)
    return sections


def refused_an_hour_ago(world: World) -> Sections:
    """One call asks again; its answer decides about the others."""
    sections = refused(world, rate_limiting=QUICK, bars="{enabled: true, backfill_days: 2}")
    world.now += HOUR + MINUTE
    return sections


def disabled(world: World) -> Sections:
    world.add("T1USD")
    return {"bars": "{enabled: false}"}


def on_a_limited_plan(world: World) -> Sections:
    world.add("T1USD")
    return {"rate_limiting": QUICK}


def wanted_on_a_limited_plan(world: World) -> Sections:
    world.add("T1USD", "C:EURUSD")
    return {"rate_limiting": QUICK, "bars": "{enabled: true, backfill_days: 2}"}


def of_1_minute(world: World) -> Sections:
    world.add("T1USD")
    world.sandbox.fail = ["minutes-only:T1USD"]
    everything(world)
    world.now += 30 * MINUTE
    return {}


def on_the_free_plan(world: World) -> Sections:
    world.environment["POLYGON_TIER"] = world.sandbox.plan = "free"
    world.add("T1USD", "C:EURUSD")
    return {"rate_limiting": QUICK}


def whole_on_the_free_plan(world: World) -> Sections:
    sections = on_the_free_plan(world)
    everything(world, **sections)
    return sections


def of_a_day_that_is_not_over(world: World) -> Sections:
    """The vendor still refused yesterday, so that all reach to the day before."""
    sections = on_the_free_plan(world)
    world.sandbox.fail = ["403-today"]
    world.drain(**sections)
    world.sandbox.fail = []
    return sections


def on_a_weekend(world: World) -> Sections:
    world.now = FRIDAYS_CLOSE - 2 * MINUTE
    world.add("T1USD", "C:EURUSD")
    everything(world)
    world.now = SATURDAY
    return {}


def whole_on_a_weekend(world: World) -> Sections:
    sections = on_a_weekend(world)
    everything(world)
    return sections


def held_by_another_run(world: World) -> Sections:
    whole(world)
    world.now += 30 * MINUTE
    world.connection.execute("update assetbatch.bar_state set token = gen_random_uuid(), leased_until = 'infinity'")
    return {}


STATES: list[tuple[Callable[[World], Sections], int]] = [
    (fresh, 2),
    (whole, 0),
    (in_the_same_slot, 0),
    (in_the_next_slot, 2),
    (of_several_pages, 3),
    (deleted_by_hand, 2),
    (deleted_by_the_platform, 1),
    (failing, 0),
    (refused, 0),
    (refused_an_hour_ago, 1),
    (disabled, 0),
    (on_a_limited_plan, 0),
    (wanted_on_a_limited_plan, 2),
    (of_1_minute, 1),
    (on_the_free_plan, 2),
    (whole_on_the_free_plan, 0),
    (of_a_day_that_is_not_over, 0),
    (on_a_weekend, 2),
    (whole_on_a_weekend, 0),
    (held_by_another_run, 0),
]


def bars_foretold(foreseen: Forecast) -> int:
    assert sum(one.calls for one in foreseen.bars) == sum(
        one.calls for one in foreseen.calls if one.kind is CallKind.BARS
    )
    return sum(one.calls for one in foreseen.bars)


@pytest.mark.parametrize(("state", "calls"), STATES, ids=lambda value: getattr(value, "__name__", None))
def test_bars_are_foretold_that_the_next_drain_asks_for(
    world: World, state: Callable[[World], Sections], calls: int
) -> None:
    sections = state(world)
    known = len(world.calls())

    foreseen = forecast.foresee(world.configure(**sections), world.connection)
    again = forecast.foresee(world.configure(**sections), world.connection)
    world.now = world.now.replace(second=0) + MINUTE  # when cron starts it
    world.drain(**sections)

    assert (bars_foretold(foreseen), len(world.calls()) - known) == (calls, calls)
    assert again == foreseen


def test_a_hole_as_long_as_two_pages_takes_three_calls_as_foretold(world: World) -> None:
    """Each page leaves its last bar to the next one."""
    world.add("T1USD")
    long: Sections = {"bars": "{backfill_days: 35}"}
    everything(world, **long)
    world.connection.execute("delete from market_data.ohlcv_5m")
    world.connection.execute("update assetbatch.bar_state set wanted_since = asked_until - interval '100000 minutes'")
    known = len(world.calls())

    foreseen = forecast.foresee(world.configure(**long), world.connection)
    world.now += MINUTE
    world.drain(**long)

    assert len(world.calls()) - known == bars_foretold(foreseen) == 3


def test_quotes_of_a_market_that_rests_are_not_foretold(world: World) -> None:
    keys: dict[str, Any] = {"batch": NO_ASSETS, "bars": "{enabled: false}"}
    world.now = FRIDAYS_CLOSE + 2 * MINUTE
    world.add("C:GBPUSD")
    world.enqueue()
    world.drain(**keys)
    world.enqueue(["GBPUSD"])
    world.now = SATURDAY

    foreseen = forecast.foresee(world.configure(**keys), world.connection)
    made = world.drain(**keys)

    assert (foreseen.total, made.api_calls_used, made.unchanged) == (0, 0, ("GBPUSD",))


def test_bars_of_priority_assets_are_foretold_beside_their_quotes(world: World) -> None:
    world.now = NOON + timedelta(minutes=2)
    keys: dict[str, Any] = {"batch": NO_SECONDARY, "rate_limiting": "{calls_per_minute: null}"}
    world.prioritise(**keys)
    everything(world, **keys)
    world.now += timedelta(minutes=4, seconds=30)
    known = len(world.sandbox.arrivals)

    foreseen = forecast.foresee(world.configure(**keys), world.connection)
    world.now += timedelta(seconds=30)
    world.prioritise(**keys)
    world.drain(**keys)

    assert len(world.sandbox.arrivals) - known == foreseen.total == 4
