"""One request as the documents see it, and what the plan lets it see."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from assetbatch.sandbox import bodies
from assetbatch.sandbox.bodies import Refused
from assetbatch.sandbox.market import NEW_YORK

if TYPE_CHECKING:
    from assetbatch.sandbox.faults import Faults
    from assetbatch.sandbox.market import Market

FREE_PLANS = frozenset({"free", "basic"})
PLANS = (*sorted(FREE_PLANS, reverse=True), "starter", "developer", "advanced", "business")
HISTORY_YEARS = 2
"""How far back the free plan may look."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was let in: what is asked, when, by a key of which plan, and of which market."""

    target: str
    """Path and query as they came."""
    path: str
    """Without the query, unquoted."""
    query: dict[str, str]
    now: datetime
    plan: str
    url: str
    """Where the server is to be reached."""
    market: Market
    faults: Faults

    @property
    def now_ms(self) -> int:
        """The server's time in milliseconds since 1970."""
        return int(self.now.timestamp() * 1000)

    @property
    def free(self) -> bool:
        """Whether the plan gives end-of-day data only."""
        return self.plan in FREE_PLANS

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
        """Tell the newest day that the plan shows whole: over in UTC; for the free plan in New York too."""
        today = self.now.astimezone(UTC).date()
        if self.free:
            today = min(today, self.now.astimezone(NEW_YORK).date())
        return date.fromordinal(today.toordinal() - 1)

    def require_entitlement(self) -> None:
        """Refuse the free plan."""
        if self.free:
            raise Refused(bodies.not_authorized(bodies.NOT_ENTITLED))

    def require_timeframe(self, first: date, last: date) -> None:
        """Refuse the free plan a day that is not over, more than two years ago, or not begun anywhere."""
        if not self.free:
            return
        today = self.now.astimezone(UTC).date()
        leap = today.month == 2 and today.day == 29
        oldest = today.replace(year=today.year - HISTORY_YEARS, day=28 if leap else today.day)
        if first < oldest or last > today:
            raise Refused(bodies.not_authorized(bodies.TIMEFRAME))
        if last > self.last_finished_day():
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
