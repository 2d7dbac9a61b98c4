"""What a key may see on a plan, and what the vendor has of the last days: remembered, so that nobody asks in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from assetbatch.boottime import boot_time
from assetbatch.database import holidays
from assetbatch.database.leases import new_token, release_dead
from assetbatch.database.query import Query
from assetbatch.database.rows import filled, value
from assetbatch.model import Access, AssetType, Product
from assetbatch.planner import AskedDay, DayOutcome
from assetbatch.plans import ASK_AGAIN, Entitlement, Sight

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from assetbatch.database.connection import Connection
    from assetbatch.planner import Days
    from assetbatch.plans import Plan, Told

READ_ENTITLEMENTS = """
select e.product, e.access, e.ticker, e.allowed, e.asked_at, e.reason
from assetbatch.entitlements e
join unnest(%(products)s::text[], %(plans)s::text[]) as p (product, plan) using (product, plan)
where e.key_fingerprint = %(key)s
"""

READ_TYPES = "select distinct asset_type from assetbatch.assets where enabled"

REMEMBER = """
insert into assetbatch.entitlements (key_fingerprint, plan, product, access, ticker, allowed, asked_at, reason)
values (%(key)s, %(plan)s, %(product)s, %(access)s, %(ticker)s, %(allowed)s, %(asked_at)s, %(reason)s)
on conflict (key_fingerprint, plan, product, access, ticker) do update
set allowed = excluded.allowed, asked_at = excluded.asked_at, reason = excluded.reason
"""

# Two weeks hold the longest row of days without trade.
READ_DAYS = """
select market, day, outcome, asked_at, times from assetbatch.daily_figures
where outcome is not null and day > coalesce(%(now)s::timestamptz, statement_timestamp())::date - 14
"""

# Who finds it held waits for the other's answer, instead of making the same call.
BEGIN_DAY = """
insert into assetbatch.daily_figures as d (market, day, token, asking_until)
values (%(market)s, %(day)s, %(token)s, clock_timestamp() + make_interval(secs => %(seconds)s))
on conflict (market, day) do update set token = excluded.token, asking_until = excluded.asking_until
where d.asking_until is null or d.asking_until < clock_timestamp() or d.token = excluded.token
returning token
"""

NOTE_DAY = """
insert into assetbatch.daily_figures as d (market, day, outcome, times, asked_at)
values (%(market)s, %(day)s, %(outcome)s, 1, %(asked_at)s)
on conflict (market, day) do update
set outcome = case when d.outcome = 'stored' then d.outcome else excluded.outcome end,
    times = case when d.outcome = excluded.outcome then d.times + 1 else 1 end,
    asked_at = excluded.asked_at, token = null, asking_until = null
"""

GIVE_UP_DAY = """
update assetbatch.daily_figures set token = null, asking_until = null
where market = %(market)s and day = %(day)s and token = %(token)s
"""

READ_CLOSED = """
select market from assetbatch.market_status
where not is_open and asked_at > coalesce(%(now)s::timestamptz, statement_timestamp()) - %(held)s::interval
"""

READ_STATUS_AT = "select max(asked_at) as asked_at from assetbatch.market_status"

NOTE_MARKETS = """
insert into assetbatch.market_status (market, is_open, asked_at)
select market, is_open, %(asked_at)s from unnest(%(markets)s::text[], %(open)s::boolean[]) as v (market, is_open)
on conflict (market) do update set is_open = excluded.is_open, asked_at = excluded.asked_at
"""


def told_to(plan: str, key: str) -> str:
    """Name whom the vendor told something: a plan's word and a key's fingerprint, as `bar_absences.told` has them."""
    return f"{plan} {key}"


def entitlements(*, key: str, plans: Mapping[Product, Plan]) -> Query[Told]:
    """Ask what the key was found to see, or was refused; what is not there was never asked, or never refused."""
    return Query(
        READ_ENTITLEMENTS,
        {"key": key, "products": [one.value for one in plans], "plans": [plan.name for plan in plans.values()]},
        lambda rows: {
            Sight(Product(row.pop("product")), Access(row.pop("access")), row.pop("ticker")): Entitlement(**row)
            for row in rows
        },
    )


def types_in_use() -> Query[frozenset[AssetType]]:
    """Ask of which types the catalogue has enabled assets."""
    return Query(READ_TYPES, None, lambda rows: frozenset(AssetType(row["asset_type"]) for row in rows))


def remember(connection: Connection, *, key: str, plan: str, sight: Sight, found: Entitlement) -> None:
    """Remember what the vendor said."""
    about = {"key": key, "plan": plan, "product": sight.product.value}
    connection.execute(REMEMBER, about | {"access": sight.access.value, "ticker": sight.ticker} | asdict(found))


class DayLease:
    """The right to ask for one day of one market, so that two runs do not make the same call."""

    def __init__(
        self, connection: Connection, market: AssetType, day: date, *, seconds: float, run_id: int | None = None
    ) -> None:
        self._connection = connection
        self._parameters = {"market": market.value, "day": day, "token": new_token(run_id), "seconds": seconds}
        self.until = boot_time() + seconds
        """When it runs out at the earliest, as `boot_time()`, once it is taken."""

    def take(self) -> bool:
        """Take it; False while somebody else asks."""
        return self._try() or (release_dead(self._connection) and self._try())

    def _try(self) -> bool:
        return self._connection.execute(BEGIN_DAY, self._parameters).fetchone() is not None

    def give_up(self) -> None:
        """Let somebody else ask; `note_day` does that, too."""
        self._connection.execute(GIVE_UP_DAY, self._parameters)


def note_day(connection: Connection, market: AssetType, day: date, outcome: DayOutcome, asked_at: datetime) -> None:
    """Note what the vendor answered for a day; what is stored once stays so."""
    connection.execute(NOTE_DAY, {"market": market.value, "day": day, "outcome": outcome.value, "asked_at": asked_at})


class Remembered:
    """What is remembered of what a key may see on its plans, and of what the vendor has; `now` None: it is now.

    Questions to be asked together: `entitlements`; `days`, what it answered for those of the last two weeks; `closed`,
    the markets that it said are closed, for as long as that holds; `types` that are in use; `holidays`, which are known
    in all of the process from then on.
    """

    def __init__(self, *, key: str, plans: Mapping[Product, Plan], now: datetime | None) -> None:
        self.entitlements = entitlements(key=key, plans=plans)
        self.types = types_in_use()
        self.days: Query[Days] = Query(
            READ_DAYS,
            {"now": now},
            lambda rows: {
                (AssetType(row.pop("market")), row.pop("day")): filled(
                    AskedDay, row, outcome=DayOutcome(row["outcome"])
                )
                for row in rows
            },
        )
        self.closed = Query(
            READ_CLOSED,
            {"now": now, "held": ASK_AGAIN},
            lambda rows: frozenset(AssetType(row["market"]) for row in rows),
        )
        self.holidays = holidays.listed(now)
        self.queries: tuple[Query[Any], ...] = (
            self.entitlements,
            self.days,
            self.closed,
            self.types,
            self.holidays,
        )


def last_status_at(connection: Connection) -> datetime | None:
    """Return when the vendor was last asked which markets are open."""
    asked_at: datetime | None = value(connection.execute(READ_STATUS_AT))
    return asked_at


def note_markets(connection: Connection, found: Mapping[AssetType, bool], asked_at: datetime) -> None:
    """Note which markets the vendor says are open; one that it does not mention counts as open."""
    connection.execute(
        NOTE_MARKETS,
        {
            "markets": [market.value for market in AssetType],
            "open": [found.get(market, True) for market in AssetType],
            "asked_at": asked_at,
        },
    )
