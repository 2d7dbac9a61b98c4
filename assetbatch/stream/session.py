"""What is said on one connection, and what has to be answered by when. Pure: it reads no clock and no socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.provider.massive import websocket
from assetbatch.provider.stream import Word
from assetbatch.stream.pacing import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from assetbatch.provider.stream import Status

STEP_SECONDS = 10.0
CONFIRM_SECONDS = 5.0
# Names in one subscription: what is not entitled is known by the names that the same message leaves unconfirmed.
MOST_NAMES = 200

CAUSES = {
    Word.REFUSED_KEY: Cause.REFUSED_KEY,
    Word.REFUSED_PLAN: Cause.REFUSED_PLAN,
    Word.TOO_MANY: Cause.TOO_MANY,
    Word.ENDED: Cause.ENDED,
}


class EndedError(Exception):
    """The connection is of no further use, for this cause."""

    def __init__(self, cause: Cause, words: str) -> None:
        super().__init__(words)
        self.cause = cause
        self.words = words


class Session:
    """One connection, from its greeting to its subscriptions, which are confirmed name by name.

    `names` are `CHANNEL.NAME`, the most important first. Times are monotonic seconds.
    """

    def __init__(self, key: str, names: Sequence[str], *, began: float) -> None:
        self._key = key
        self._left = list(names)
        self._asked: set[str] = set()
        self._waiting: set[str] = set()
        self._is_refused = False
        self._step = "a greeting"
        self._by: float = began + STEP_SECONDS
        self.confirmed: set[str] = set()
        self.unconfirmed: dict[str, str] = {}
        """Names that are not in force, and why."""

    @property
    def is_ready(self) -> bool:
        """Whether every name is confirmed, or told to be none."""
        return not (self._step or self._left or self._waiting)

    def seconds_left(self, now: float) -> float | None:
        """Return in how many seconds something has to have come; None: nothing is waited for."""
        return None if self.is_ready else max(0.0, self._by - now)

    def take(self, statuses: Iterable[Status], now: float) -> list[str]:
        """Take what the vendor said; return the frames to answer with. Raises EndedError."""
        frames = []
        for status in statuses:
            if status.word in CAUSES:
                raise EndedError(CAUSES[status.word], status.about)
            if status.word is Word.CONNECTED and self._step == "a greeting":
                self._step, self._by = "an answer to the key", now + STEP_SECONDS
                frames.append(websocket.authentication(self._key))
            elif status.word is Word.AUTHENTICATED and self._step == "an answer to the key":
                self._step = ""
                frames += self._subscribe(now)
            elif status.word is Word.CONFIRMED and status.about in self._asked:
                self.confirmed.add(status.about)
                self.unconfirmed.pop(status.about, None)
                self._waiting.discard(status.about)
                if not self._waiting and self._left and not self._step:
                    frames += self._subscribe(now)
            elif status.word is Word.NOT_ENTITLED:
                self._is_refused = True
        return frames

    def _subscribe(self, now: float) -> list[str]:
        names, self._left = self._left[:MOST_NAMES], self._left[MOST_NAMES:]
        self._asked.update(names)
        self._waiting, self._is_refused = set(names), False
        self._by = now + CONFIRM_SECONDS
        return [websocket.subscription(names)] if names else []

    def look(self, now: float) -> list[str]:
        """See to it what is overdue; return the frames to send. Raises EndedError where the handshake is."""
        if self.is_ready or now < self._by:
            return []
        if self._step:
            raise EndedError(Cause.MUTE, f"{self._step} did not come within {STEP_SECONDS:.0f} s")
        if not self.confirmed and not self._is_refused:
            raise EndedError(Cause.MUTE, f"no subscription was confirmed within {CONFIRM_SECONDS:.0f} s")
        why = "not in the plan" if self._is_refused else "no answer: the vendor knows no such channel"
        self.unconfirmed.update(dict.fromkeys(self._waiting, why))
        self._waiting.clear()
        return self._subscribe(now)
