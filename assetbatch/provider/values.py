"""Numbers and times out of the vendor's rows: `Decimal` from the text on, times told apart by their magnitude."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from assetbatch.provider.answers import text

if TYPE_CHECKING:
    from collections.abc import Mapping

# Beyond any price; bounds what numeric columns and people must take.
LARGEST_NUMBER = Decimal(10) ** 18
SMALLEST_NUMBER = Decimal(10) ** -18
MOST_DIGITS = 40
# Clocks differ a little; a price of tomorrow is none.
FUTURE_TOLERANCE = timedelta(minutes=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OLDEST_TIME = datetime(1970, 1, 2, tzinfo=UTC)
# (below this magnitude, microseconds a unit)
TIME_UNITS = (
    (Decimal(10) ** 11, Decimal(10) ** 6),
    (Decimal(10) ** 14, Decimal(1000)),
    (Decimal(10) ** 17, Decimal(1)),
    (Decimal(10) ** 20, Decimal("0.001")),
)


# How a number is written that needs no second look: within these bounds, however it is read.
FRACTION = rb"(?:\.[0-9]{1,18})?"
PRICE = rb"[1-9][0-9]{0,17}%b|0\.(?=[0-9]*[1-9])[0-9]{1,18}|[1-9]%b[eE]-(?:0?[1-9]|1[0-8])" % (FRACTION, FRACTION)


class InvalidRowError(Exception):
    """A row is no price; says why."""


def number(part: Mapping[str, Any], key: str) -> Decimal | None:
    """Read a price. Absent, null and zero are the vendor's three ways to say that there is none."""
    value = part.get(key)
    if value is None:
        return None
    if not isinstance(value, Decimal) or not value.is_finite():
        raise InvalidRowError(f"`{key}` is no number: {text(value)}")
    if value == 0:
        return None
    if value < 0:
        raise InvalidRowError(f"`{key}` is negative: {text(value)}")
    if not SMALLEST_NUMBER <= value <= LARGEST_NUMBER or len(value.as_tuple().digits) > MOST_DIGITS:
        raise InvalidRowError(f"`{key}` is out of range: {text(value)}")
    return value


def time_of(value: object, now: datetime, *, ahead: timedelta = FUTURE_TOLERANCE) -> datetime:
    """Read a time that is not of the future, or so little, as `moment_of` does. Raises InvalidRowError."""
    if not isinstance(value, Decimal) or not value.is_finite():
        raise InvalidRowError(f"no time of its price: {text(value)}")
    moment = moment_of(value)
    if moment > now + ahead:
        raise InvalidRowError(f"its time {moment.isoformat()} is in the future")
    return moment


def moment_of(value: Decimal | int) -> datetime:
    """Read a time in seconds, milli-, micro- or nanoseconds, told apart by magnitude. Raises InvalidRowError."""
    if 0 < value < TIME_UNITS[-1][0]:
        microseconds = next(microseconds for below, microseconds in TIME_UNITS if value < below)
        # Whole microseconds: what datetime and PostgreSQL hold; a nanosecond is cut, never rounded into the future.
        moment = EPOCH + timedelta(microseconds=int(value * microseconds))
        if moment >= OLDEST_TIME:
            return moment
    raise InvalidRowError(f"no time of its price: {value}")
