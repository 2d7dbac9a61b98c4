"""One request as the documents see it, and what the plan lets it see."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from assetbatch.sandbox import bodies
from assetbatch.sandbox.bodies import Refused
from assetbatch.sandbox.market import NEW_YORK

if TYPE_CHECKING:
    from assetbatch.plans import Plan
    from assetbatch.sandbox.faults import Faults
    from assetbatch.sandbox.market import Market


class Request(Struct, frozen=True):
    """One request that was let in: what is asked, when, by a key of which plan, and of which market."""

    target: str
    """Path and query as they came."""
    path: str
    """Without the query, unquoted."""
    query: dict[str, str]
    now: datetime
    plan: Plan
    url: str
    """Where the server is to be reached."""
    market: Market
    faults: Faults

    @property
    def now_ms(self) -> int:
        """The server's time in milliseconds since 1970."""
        return int(self.now.timestamp() * 1000)

    @property
    def status(self) -> str:
        """The word at the top of a good document."""
        return "DELAYED" if self.faults.document("delayed", self.target) else "OK"

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

    def next_url(self, path: str, query: dict[str, str]) -> str:
        """Make the address of the next page; as with the vendor, its query is one opaque `cursor`."""
        return f"{self.url}{path}?cursor={base64.urlsafe_b64encode(urlencode(query).encode()).decode()}"

    def last_finished_day(self) -> date:
        """Return the newest day that the plan shows whole: over in UTC; without live prices in New York too."""
        today = self.now.astimezone(UTC).date()
        if not self.plan.is_live:
            today = min(today, self.now.astimezone(NEW_YORK).date())
        return date.fromordinal(today.toordinal() - 1)

    def require_entitlement(self) -> None:
        """Refuse a plan without live prices."""
        if not self.plan.is_live:
            raise Refused(bodies.not_authorized(bodies.NOT_ENTITLED))

    def require_timeframe(self, first: date, last: date) -> None:
        """Refuse days before those that the plan reaches back to, or, without live prices, that are not over."""
        today, years = self.now.astimezone(UTC).date(), self.plan.history_years
        if years is not None:
            leap = today.month == 2 and today.day == 29
            if first < today.replace(year=today.year - years, day=28 if leap else today.day):
                raise Refused(bodies.not_authorized(bodies.TIMEFRAME))
        if not self.plan.is_live and last > today:
            raise Refused(bodies.not_authorized(bodies.TIMEFRAME))
        if not self.plan.is_live and last > self.last_finished_day():
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
