"""What a stream of prices is told, in our words: whoever the vendor is, its module makes these of its frames."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from assetbatch.model import Bar, Quote


class Word(Enum):
    """What a status is about."""

    CONNECTED = auto()
    AUTHENTICATED = auto()
    CONFIRMED = auto()
    """One subscription is in force; the status names it."""
    NOT_ENTITLED = auto()
    """Some of the last subscriptions are not; which ones, it does not say."""
    REFUSED_KEY = auto()
    REFUSED_PLAN = auto()
    """The key is right, and its plan has no stream of this cluster."""
    TOO_MANY = auto()
    """Another connection of the account has taken this one's place."""
    ENDED = auto()
    """The vendor ends the connection, for the reason that the status gives."""
    OTHER = auto()


class Status(Struct, frozen=True):
    """One status; `about` is the name that it confirms, or the vendor's words."""

    word: Word
    about: str


class Frame(Struct):
    """What one frame brought, in its order: statuses, quotes and minutes by the names they were subscribed by.

    `closes` are quotes of what minutes closed with, where no others come. `dropped` counts events that were no prices,
    or that nobody knows; `oddest` is what was wrong with the last.
    """

    statuses: list[Status] = field(default_factory=list)
    quotes: list[tuple[str, Quote]] = field(default_factory=list)
    minutes: list[tuple[str, Bar]] = field(default_factory=list)
    closes: list[tuple[str, Quote]] = field(default_factory=list)
    dropped: int = 0
    oddest: str = ""
