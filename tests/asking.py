"""Asking with a client by itself, one request after another, as no job does: they have several under way."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.provider.client import Client
    from assetbatch.provider.request import Request

A = TypeVar("A")


def utc_now() -> datetime:
    return datetime.now(UTC)


def ask(
    client: Client,
    request: Request[A],
    *,
    now: Callable[[], datetime] = utc_now,
    leave_by: float = math.inf,
    wait: Callable[[threading.Event, float], object] = threading.Event.wait,
) -> A:
    """Send a request and read its answer; `wait` waits in place of `Event.wait`: what it raises ends the waiting."""
    done = threading.Event()
    asked = client.begin(request, done.set, leave_by=leave_by)
    flight = asked.flight
    try:
        wait(done, flight.seconds_to_leave)
        if flight.sent and not done.is_set() and not flight.seconds_to_leave:
            wait(done, flight.seconds_left)
    except BaseException:
        client.give_up(asked)
        raise
    return client.finish(asked, now=now())
