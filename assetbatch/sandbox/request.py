"""One request as the documents see it, and what the plan lets it see."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from assetbatch.markets import TRAITS, type_of
from assetbatch.sandbox import bodies
from assetbatch.sandbox.bodies import Refused
from assetbatch.sandbox.hours import EXCHANGES, NEW_YORK, moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assetbatch.model import AssetType, Product
    from assetbatch.plans import Plan
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.faults import Faults
    from assetbatch.sandbox.market import Market


class Request(Struct, frozen=True):
    """One request that was let in: what is asked, when, by a key of which plans, and of which market."""

    target: str
    """Path and query as they came."""
    path: str
    """Without the query, unquoted."""
    query: dict[str, str]
    now: datetime
    plans: Mapping[Product, Plan]
    url: str
    """Where the server is to be reached."""
    market: Market
    faults: Faults

    @property
    def now_ms(self) -> int:
        """The server's time in milliseconds since 1970."""
        return int(self.now.timestamp() * 1000)

    def plan_of(self, market: AssetType) -> Plan:
        """Return the plan that the key has for a market."""
        return self.plans[TRAITS[market].product]

    def now_ms_of(self, market: AssetType) -> int:
        """Return up to when the key sees a market: now, or so long ago as its plan is late."""
        return self.now_ms - self.plan_of(market).delay // timedelta(milliseconds=1)

    def status(self, *markets: AssetType) -> str:
        """Return the word at the top of a good document about these markets."""
        is_late = any(self.plan_of(market).delay for market in markets)
        return "DELAYED" if is_late or self.faults.document("delayed", self.target) else "OK"

    @property
    def is_adjusted(self) -> bool:
        """Whether prices of before a split are to be told as if it had been then."""
        return self.query.get("adjusted") != "false"

    def number(self, name: str, default: int, largest: int) -> int:
        """Read a whole number of the query, from 1 to `largest`; refused with 400 when it is not."""
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= largest:
            raise Refused(bodies.error(400, f"{bodies.BAD_QUERY}: {name}"))
        return int(text[:9])

    def descending(self, name: str) -> bool:
        """Whether the query asks for the reverse order; refused with 400 when it is no order."""
        order = self.query.get(name, "asc")
        if order not in {"asc", "desc"}:
            raise Refused(bodies.error(400, f"{bodies.BAD_QUERY}: {name}"))
        return order == "desc"

    def day(self, market: AssetType) -> int:
        """Return the number of the market's day that it is."""
        return moment(market, self.now_ms)[0]

    def find(self, ticker: str) -> Instrument | None:
        """Return the instrument of a ticker as it is told of today, None when there is none or none any more."""
        return self.market.listing.listed(ticker, self.day(type_of(ticker)))

    def lately(self, ticker: str) -> Instrument | None:
        """Return the newest instrument of a ticker, one that was delisted, too."""
        return self.market.listing.find(ticker, self.day(type_of(ticker)))

    def at_its_day(self, instrument: Instrument, day: int) -> Instrument:
        """Return an instrument as its bar of a day is to be told: after all splits by today, or those by that day."""
        if self.is_adjusted:
            return instrument
        return self.market.listing.find(instrument.ticker, day) or instrument

    def is_listed(self, instrument: Instrument) -> bool:
        """Whether there is such a ticker today."""
        return instrument.is_listed(self.day(instrument.market))

    def known(self, *markets: AssetType) -> list[Instrument]:
        """Return all instruments of these markets that there ever were up to today."""
        return [one for market in markets for one in self.market.listing.known(market, self.day(market))]

    def listed(self, *markets: AssetType) -> list[Instrument]:
        """Return all instruments of these markets that have not been delisted."""
        return [one for one in self.known(*markets) if self.is_listed(one)]

    def instrument(self, ticker: str) -> Instrument:
        """Return the instrument of a ticker that was asked for alone; refused with 404 when there is none."""
        instrument = self.find(ticker)
        if instrument is None:
            raise Refused(bodies.not_found(self.path))
        return instrument

    def wants(self, instrument: Instrument) -> bool:
        """Whether a whole market is to have an instrument: over the counter only when `include_otc` says so."""
        return not instrument.is_over_the_counter or self.query.get("include_otc") == "true"

    def page(self, tickers: list[str], limit: int) -> tuple[list[str], str | None]:
        """Return those of the tickers that this page has, behind the one before, and the address of the next page."""
        after = self.query.get("page_marker")
        if after is not None:
            tickers = tickers[tickers.index(after) + 1 :] if after in tickers else []
        shown = tickers[:limit]
        if len(tickers) == len(shown):
            return shown, None
        return shown, self.next_url(self.path, {**self.query, "page_marker": shown[-1]})

    def next_url(self, path: str, query: dict[str, str]) -> str:
        """Make the address of the next page; as with the vendor, its query is one opaque `cursor`."""
        return f"{self.url}{path}?cursor={base64.urlsafe_b64encode(urlencode(query).encode()).decode()}"

    def today(self, market: AssetType) -> date:
        """Return the market's day that it is."""
        return self.now.astimezone(NEW_YORK if market in EXCHANGES else UTC).date()

    def last_finished_day(self, market: AssetType) -> date:
        """Return the newest day that the plan shows whole: over for the market; without live prices in New York too."""
        today = self.today(market)
        if not self.plan_of(market).is_live:
            today = min(today, self.now.astimezone(NEW_YORK).date())
        return today - timedelta(days=1)

    def require_entitlement(self, *markets: AssetType) -> None:
        """Refuse a key that has no live prices of any of the markets."""
        if not any(self.plan_of(market).is_live for market in markets):
            raise Refused(bodies.not_authorized(bodies.NOT_ENTITLED))

    def require_timeframe(self, market: AssetType, first: date, last: date) -> None:
        """Refuse days before those that the plan reaches back to, or, without live prices, that are not over."""
        plan, today = self.plan_of(market), self.today(market)
        if plan.history_years is not None:
            leap = today.month == 2 and today.day == 29
            if first < today.replace(year=today.year - plan.history_years, day=28 if leap else today.day):
                raise Refused(bodies.not_authorized(bodies.TIMEFRAME))
        if not plan.is_live and last > today:
            raise Refused(bodies.not_authorized(bodies.TIMEFRAME))
        if not plan.is_live and last > self.last_finished_day(market):
            raise Refused(bodies.not_authorized(bodies.BEFORE_END_OF_DAY))


def read_query(text: str) -> dict[str, str]:
    """Read the query by name, the cursor of a next page opened; refused with 400 when that is broken."""
    query = dict(parse_qsl(text, keep_blank_values=True))
    if "cursor" in query:
        try:
            inner = base64.b64decode(query.pop("cursor").encode(), altchars=b"-_", validate=True).decode()
        except ValueError as broken:
            raise Refused(bodies.error(400, f"{bodies.BAD_QUERY}: cursor")) from broken
        query |= dict(parse_qsl(inner, keep_blank_values=True))
    query.pop("apiKey", None)
    return query
