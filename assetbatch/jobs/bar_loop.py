"""Bars asked for by themselves: several calls at once where the plan has no limit, and stored one after another."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import psycopg

from assetbatch.database import leases
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import CallError, FailureKind, Interrupted
from assetbatch.jobs.bar_calls import BarWork
from assetbatch.provider.bars import Page
from assetbatch.provider.flight import HeldUpError

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.jobs.bars import Bars
    from assetbatch.jobs.flights import Flights, Flying
    from assetbatch.jobs.update import Road
    from assetbatch.provider.reading import Answer

log = logging.getLogger(__name__)
W = TypeVar("W", bound=BarWork)

# How long at most to wait for an answer before the right to run is looked after.
PATIENCE_SECONDS = 1.0


def fetch(
    road: Road,
    flights: Flights,
    bars: Bars[W],
    *,
    no_call_after: float,
    max_calls: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Ask page by page for as long as there is something to ask for and a call to do it.

    The next pages are under way, and read, while one is stored. No call begins after the monotonic time
    `no_call_after`; `max_calls` bounds the requests of the run, None: no bound. `progress` is told before each.
    """
    try:
        while True:
            while (
                flights.free
                and len(flights) < bars.most_at_once
                and road.calls_left(max_calls) - len(flights) >= 1
                and time.monotonic() < no_call_after
                and bars.work.has_work()
            ):
                progress()
                try:
                    _begin(road, flights, bars.work, max_wait_seconds=no_call_after - time.monotonic())
                except CallError as error:
                    log.info("no further call in this run: %s", error)
                    no_call_after = 0.0
            if not flights:
                return
            for one, answer in flights.land(PATIENCE_SECONDS):
                _take_in(road, flights, bars, one, answer)
            road.stop.check()
            road.keep_lease()
    except BaseException:
        given_up = flights.give_up()
        with suppress(psycopg.Error, Interrupted):
            leases.give_back(road.connection, road.run_id)
            road.given_up(given_up)
        raise


def _begin(road: Road, flights: Flights, work: BarWork, *, max_wait_seconds: float) -> None:
    """Begin a call as soon as there is a slot. Raises CallError (no_slot) when that would take too long."""
    slot = road.acquire(max_wait_seconds=max_wait_seconds)
    one = None
    try:
        one = work.begin()
    finally:
        if one is None:
            road.limiter.release(slot, Outcome.UNSENT)
    if one is not None:
        flights.begin(one.call, (), slot, leave_by=road.leave_by(slot), bars=one)


def _take_in(
    road: Road, flights: Flights, bars: Bars[W], one: Flying, answer: Answer | CallError | HeldUpError
) -> None:
    """Tell the slot of a call what became of it; store the page that it brought, or decide what follows."""
    assert one.bars is not None  # noqa: S101 - such calls are for bars
    if isinstance(answer, HeldUpError):
        road.held_up(one.slot)
        bars.held_up(one.bars)
    elif isinstance(answer, CallError):
        road.failed(one.call, one.slot, one.began, answer)
        # What is given up because the run is to end says nothing about the API, or about any asset.
        road.stop.check()
        if answer.kind is FailureKind.RATE_LIMITED:
            _call_off(road, flights, bars)
        bars.failed(one.bars, answer)
    else:
        assert isinstance(answer, Page)  # noqa: S101 - such calls bring bars
        bars.landed(one.bars, answer, road.landed(one.call, one.slot, one.began, Outcome.OK))


def _call_off(road: Road, flights: Flights, bars: Bars[W]) -> None:
    """Keep calls from leaving that have not left yet."""
    called_off = flights.call_off()
    road.given_up([one for one in called_off if one.asked.flight.sent])
    for one in called_off:
        if not one.asked.flight.sent:
            road.limiter.release(one.slot, Outcome.UNSENT)
        if one.bars is not None:
            bars.held_up(one.bars)
