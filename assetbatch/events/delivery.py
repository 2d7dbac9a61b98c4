"""What delivers events, and how it says that it could not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.outbox import Event


class DeliveryError(Exception):
    """Events could not be delivered, but for those `delivered`; they stay in the outbox."""

    def __init__(self, reason: str, delivered: Sequence[Event] = ()) -> None:
        super().__init__(reason)
        self.delivered = delivered


class RefusedError(DeliveryError):
    """What carries the events answers, and refuses them: they wait until somebody has mended that."""


class Publisher(Protocol):
    """Delivers events, all or an exception: DeliveryError."""

    def publish(self, events: Sequence[Event], *, seconds: float, leave_by: float) -> None:
        """Deliver in order, within so many seconds; return once whoever carries them has acknowledged all.

        Past `leave_by`, as `boot_time()`, another publisher may be at it: raises LeaseLostError where it could disturb.
        """

    def close(self) -> None:
        """Give back what it holds; no delivery goes on after that."""
