"""The vendor's list of holidays: which days are taken from it, and what is no day."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from typing import Any

import pytest

from assetbatch.failures import CallError, FailureKind
from assetbatch.provider import endpoints
from assetbatch.provider.results import Holidays

NOW = datetime(2026, 11, 17, 12, tzinfo=UTC)
THANKSGIVING, FRIDAY, CHRISTMAS = date(2026, 11, 26), date(2026, 11, 27), date(2026, 12, 25)


def row(day: object, exchange: object = "NYSE", status: object = "closed", **more: object) -> dict[str, object]:
    return {"date": str(day), "exchange": exchange, "name": "A holiday", "status": status} | more


def half_day(day: date, exchange: str = "NYSE", closes: object = "18:00:00.000Z") -> dict[str, object]:
    times = {"open": f"{day}T14:30:00.000Z", "close": f"{day}T{closes}" if isinstance(closes, str) else closes}
    return row(day, exchange, "early-close", **times)


def read(document: Any, now: datetime = NOW) -> Holidays:
    return endpoints.holidays().parse(json.dumps(document).encode())(now)


def test_each_day_is_taken_once_from_the_rows_of_three_exchanges() -> None:
    exchanges = ("NASDAQ", "NYSE", "OTC")
    rows = [row(day, exchange) for day in (THANKSGIVING, CHRISTMAS) for exchange in exchanges]

    found = read([*rows, *(half_day(FRIDAY, exchange) for exchange in exchanges)])

    assert (found.days, found.odd) == ({THANKSGIVING: None, CHRISTMAS: None, FRIDAY: time(13)}, ())


def test_the_clock_of_new_york_says_when_a_half_day_ends() -> None:
    assert read([half_day(date(2028, 7, 3), closes="17:00:00.000Z")]).days == {date(2028, 7, 3): time(13)}


@pytest.mark.parametrize("exchanges", [("NYSE", "NASDAQ"), ("NASDAQ", "NYSE")])
def test_a_day_is_closed_where_one_of_them_says_so_whatever_over_the_counter_does(exchanges: tuple[str, str]) -> None:
    first, second = exchanges

    assert read([half_day(FRIDAY, first), row(FRIDAY, second), row(CHRISTMAS, "OTC")]).days == {FRIDAY: None}


@pytest.mark.parametrize(
    "bad",
    [
        row("2026-13-01"),
        row("soon"),
        {"exchange": "NYSE", "status": "closed"},
        row(date(2026, 7, 3)),
        row(date(2036, 12, 25)),
        row(CHRISTMAS, status="late-open"),
        row(CHRISTMAS, status=None),
        row(CHRISTMAS, status="early-close"),
        half_day(CHRISTMAS, closes="soon"),
        half_day(CHRISTMAS, closes="21:00:00.000Z"),
        half_day(CHRISTMAS, closes="14:00:00Z"),
        half_day(CHRISTMAS, closes=7),
        row(CHRISTMAS, status="early-close", close="2026-12-24T18:00:00Z"),
        row(CHRISTMAS, status="early-close", close="0001-01-01T00:00:00+14:00"),
    ],
)
def test_a_row_that_makes_no_sense_condemns_itself_alone(bad: dict[str, object]) -> None:
    found = read([bad, row(THANKSGIVING)])

    assert found.days == {THANKSGIVING: None}
    assert len(found.odd) == 1


@pytest.mark.parametrize("odd", [None, 7, "closed", [], {"exchange": ["NYSE"]}, {"exchange": None}])
def test_what_is_no_row_of_an_exchange_is_left_out(odd: object) -> None:
    assert read([odd, row(THANKSGIVING)]) == Holidays({THANKSGIVING: None})


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"results": None},
        {"status": "OK"},
        [row("soon")],
        [row(CHRISTMAS, "OTC")],
        # Such a list would close the market for good.
        [row(date(2027, month, day)) for month in range(1, 13) for day in range(1, 20)],
    ],
)
def test_a_list_without_a_day_or_with_too_many_is_none(document: object) -> None:
    with pytest.raises(CallError) as caught:
        read(document)
    assert caught.value.kind is FailureKind.MALFORMED


def test_a_refusal_in_a_good_answers_clothes_is_one() -> None:
    with pytest.raises(CallError) as caught:
        read({"status": "NOT_AUTHORIZED", "message": "You are not entitled to this data."})
    assert caught.value.kind is FailureKind.NOT_ENTITLED


@pytest.mark.parametrize("body", [b"", b"[", b"[] []", b"[{}", b"closed", b"[{]"])
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(CallError) as caught:
        endpoints.holidays().parse(body)
    assert caught.value.kind is FailureKind.MALFORMED
