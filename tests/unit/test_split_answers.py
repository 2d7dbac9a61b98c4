"""The vendor's list of splits: what is asked for, and what is read of it, row by row."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from assetbatch.failures import CallError, FailureKind
from assetbatch.model import AssetType, Call, CallKind, Split
from assetbatch.provider import endpoints
from assetbatch.provider.results import SplitPage

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
CALL = Call(CallKind.SPLITS, market=AssetType.STOCKS, day=date(2026, 11, 17))
FOUR_FOR_ONE = {
    "id": "E1",
    "ticker": "AAPL",
    "execution_date": "2026-11-24",
    "split_from": 1,
    "split_to": 4,
    "historical_adjustment_factor": 0.25,
    "adjustment_type": "forward_split",
}
AAPL = Split("AAPL", date(2026, 11, 24), Decimal(1), Decimal(4))


def read(*rows: Any, **more: Any) -> SplitPage:
    body = json.dumps({"status": "OK", "request_id": "x", "results": list(rows)} | more).encode()
    return endpoints.splits_since(CALL).parse(body)(NOW)


def test_one_request_asks_for_all_splits_since_a_day_in_pages_as_large_as_can_be() -> None:
    parts = urlsplit(endpoints.splits_since(CALL).path)

    assert parts.path == "/stocks/v1/splits"
    assert parse_qs(parts.query) == {
        "execution_date.gte": ["2026-11-17"],
        "sort": ["execution_date.asc"],
        "limit": ["5000"],
    }


def test_splits_are_read_with_the_vendors_digits() -> None:
    reverse = FOUR_FOR_ONE | {"ticker": "KIMpL", "split_from": 30.5, "split_to": 1}

    assert read(FOUR_FOR_ONE, reverse).splits == (
        AAPL,
        Split("KIMpL", date(2026, 11, 24), Decimal("30.5"), Decimal(1)),
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"ticker": None},
        {"ticker": ""},
        {"ticker": "A" * 51},
        {"ticker": "A\0B"},
        {"ticker": 7},
        {"execution_date": None},
        {"execution_date": "soon"},
        {"execution_date": "2026-02-30"},
        {"execution_date": 20261124},
        {"split_from": 0},
        {"split_to": None},
        {"split_to": -4},
        {"split_to": "4"},
        {"split_to": 1},
        {"split_to": 1e40},
    ],
)
def test_a_row_that_is_no_split_condemns_itself_alone(odd: dict[str, Any]) -> None:
    page = read(FOUR_FOR_ONE | odd, "a row", FOUR_FOR_ONE)

    assert page.splits == (AAPL,)
    assert len(page.invalid) == 1


def test_a_list_without_rows_is_one() -> None:
    body = b'{"status": "OK"}'

    assert endpoints.splits_since(CALL).parse(body)(NOW) == SplitPage((), (), "")


def test_the_next_page_is_asked_for_by_its_query_alone_without_a_key() -> None:
    page = read(FOUR_FOR_ONE, next_url="https://elsewhere.example/stocks/v1/splits?cursor=YXA9&apiKey=secret")
    following = Call(CallKind.SPLITS, market=AssetType.STOCKS, day=CALL.day, page=page.next_page)

    assert endpoints.splits_since(following).path == "/stocks/v1/splits?cursor=YXA9"


def test_a_next_page_that_is_elsewhere_is_followed_nowhere() -> None:
    with pytest.raises(CallError, match="elsewhere") as raised:
        read(FOUR_FOR_ONE, next_url="https://elsewhere.example/other?cursor=YXA9")

    assert raised.value.kind is FailureKind.MALFORMED
